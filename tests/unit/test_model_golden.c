/* The model against Hugging Face transformers: tests/golden/models, made by scripts/goldens/models.py.
 *
 * Every folder runs through ref_ops and cpu_ops: logits within 1e-4 of transformers in f32, the same 64
 * greedy tokens, log-probabilities within 1e-4, and the same bits however the text is cut into chunks.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/model.h"

enum { LEN_MAX = 192, BLOCKS = LEN_MAX / KV_BLOCK_TOKENS, N_GREEDY = 64, PROMPTS_MAX = 8, AT_MAX = 16 };

/* ---- goldens ------------------------------------------------------------------------------------ */

struct golden_prompt {
    uint32_t n, n_at;
    uint32_t tokens[LEN_MAX]; /* prompt, then the greedy tokens */
    uint32_t at[AT_MAX];
    uint32_t top_ids[AT_MAX][5];
    double top_logprobs[AT_MAX][5];
    size_t row0; /* first row in the files of logits */
};

struct golden {
    struct golden_prompt prompt[PROMPTS_MAX];
    size_t n_prompts, n_rows;
    struct hf_config cfg;
    struct st_set *set;
    float *logits;         /* [n_rows][vocab] */
    float *cache, *native; /* the same, of 16-bit models; else NULL */
};

static char *read_file(const char *name, const char *file, size_t *n) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/models/%s/%s", name, file);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

static void read_prompt(const json_t *p, struct golden_prompt *out) {
    const json_t *tokens = json_object_get(p, "tokens"), *greedy = json_object_get(p, "greedy");
    const json_t *at = json_object_get(p, "at");
    out->n = (uint32_t)json_array_size(tokens);
    out->n_at = (uint32_t)json_array_size(at);
    assert_int_equal(json_array_size(greedy), N_GREEDY);
    assert_true(out->n > 0 && out->n + N_GREEDY <= LEN_MAX && out->n_at > 0 && out->n_at <= AT_MAX);
    for (uint32_t i = 0; i < out->n + N_GREEDY; i++) {
        const json_t *t = i < out->n ? json_array_get(tokens, i) : json_array_get(greedy, i - out->n);
        out->tokens[i] = (uint32_t)json_integer_value(t);
    }
    for (uint32_t i = 0; i < out->n_at; i++) {
        out->at[i] = (uint32_t)json_integer_value(json_array_get(at, i));
        assert_true(out->at[i] < out->n + N_GREEDY - 1);
        for (uint32_t k = 0; k < 5; k++) {
            const json_t *ids = json_array_get(json_object_get(p, "top_ids"), i);
            const json_t *lps = json_array_get(json_object_get(p, "top_logprobs"), i);
            out->top_ids[i][k] = (uint32_t)json_integer_value(json_array_get(ids, k));
            out->top_logprobs[i][k] = json_number_value(json_array_get(lps, k));
        }
    }
}

/* read_rows: a file of logits, or NULL if there is none. */
static float *read_rows(const struct golden *g, const char *name, const char *file) {
    size_t n;
    char *data = read_file(name, file, &n);
    assert_true(!data || n == g->n_rows * g->cfg.vocab * sizeof(float));
    return (float *)(void *)data;
}

static void golden_open(struct golden *g, const char *name) {
    memset(g, 0, sizeof *g);
    struct err e = {0};
    size_t n;
    char *text = read_file(name, "config.json", &n);
    assert_non_null(text);
    if (hf_config_parse((struct str){text, n}, NULL, &g->cfg, &e))
        fail_msg("%s: %s", name, e.msg);
    free(text);
    char dir[128];
    snprintf(dir, sizeof dir, "tests/golden/models/%s", name);
    if (st_open(&g->set, dir, &e))
        fail_msg("%s: %s", name, e.msg);
    text = read_file(name, "golden.json", &n);
    assert_non_null(text);
    json_t *all = json_loadb(text, n, 0, NULL);
    const json_t *prompts = json_object_get(all, "prompts");
    g->n_prompts = json_array_size(prompts);
    assert_true(g->n_prompts >= 5 && g->n_prompts <= PROMPTS_MAX);
    for (size_t i = 0; i < g->n_prompts; i++) {
        read_prompt(json_array_get(prompts, i), &g->prompt[i]);
        g->prompt[i].row0 = g->n_rows;
        g->n_rows += g->prompt[i].n_at;
    }
    json_decref(all);
    free(text);
    g->logits = read_rows(g, name, "logits.f32");
    assert_non_null(g->logits);
    g->cache = read_rows(g, name, "logits.cache");
    g->native = read_rows(g, name, "logits.native");
    assert_true(!g->cache == (g->cfg.dtype == HF_DTYPE_F32) && !g->cache == !g->native);
}

static void golden_close(struct golden *g) {
    st_close(g->set);
    hf_config_fini(&g->cfg);
    free(g->logits);
    free(g->cache);
    free(g->native);
}

/* ---- running a model without an engine ------------------------------------------------------------ */

struct run {
    const struct be_ops *ops;
    struct be *be;
    struct model *model;
    uint32_t vocab, n_groups;
    struct be_kv *kv[BE_GROUPS_MAX];
    float *logits; /* [LEN_MAX][vocab], by position */
    uint32_t every; /* only of positions that this divides, the last ones first; 0: of all */
};

static void run_open(struct run *r, const struct golden *g, const struct be_ops *ops, enum dtype weights,
                     enum dtype kv, bool dummy) {
    *r = (struct run){.ops = ops, .vocab = g->cfg.vocab};
    char why[BE_ERR_BYTES] = "";
    struct be_config bc = {.n_threads = 2,
                           .n_ranks = 1,
                           .n_tokens_max = LEN_MAX,
                           .n_seqs_max = 1,
                           .n_rows_max = LEN_MAX,
                           .n_vocab = g->cfg.vocab};
    if (ops->open(&r->be, &bc, why))
        fail_msg("%s: %s", ops->name, why);
    struct model_opts o = {.ops = ops,
                           .be = r->be,
                           .n_ranks = 1,
                           .weights = weights,
                           .kv = kv,
                           .max_len = g->cfg.max_positions,
                           .n_tokens_max = LEN_MAX,
                           .dummy = dummy};
    struct err e = {0};
    if (model_load(&r->model, &g->cfg, dummy ? NULL : g->set, &o, &e))
        fail_msg("%s", e.msg);
    struct cache_group_spec spec[BE_GROUPS_MAX];
    r->n_groups = model_groups(&g->cfg, &o, spec);
    for (uint32_t i = 0; i < r->n_groups; i++) {
        r->kv[i] = ops->kv_new(r->be, i, &spec[i], BLOCKS + 3 * i, why);
        if (!r->kv[i])
            fail_msg("%s", why);
    }
    r->logits = calloc((size_t)LEN_MAX * r->vocab, sizeof *r->logits);
}

static void run_close(struct run *r) {
    for (uint32_t i = 0; i < r->n_groups; i++)
        r->ops->kv_free(r->be, r->kv[i]);
    model_free(r->model);
    r->ops->close(r->be);
    free(r->logits);
}

/* run_chunk: positions from .. to - 1 of a sequence whose earlier positions are in the cache; fills their
 * logits. The blocks of a group lie in no order, and differently in each group. */
static void run_chunk(struct run *r, const uint32_t *tokens, uint32_t from, uint32_t to) {
    uint32_t n = to - from, table[BE_GROUPS_MAX][BLOCKS], slot[BE_GROUPS_MAX][LEN_MAX], rows[LEN_MAX];
    int32_t pos[LEN_MAX];
    uint32_t seq_start[2] = {0, n}, kv_len[1] = {to};
    struct batch b = {.n_tokens = n,
                      .n_seqs = 1,
                      .n_axes = 1,
                      .n_groups = r->n_groups,
                      .tokens = tokens + from,
                      .pos = pos,
                      .seq_start = seq_start,
                      .kv_len = kv_len,
                      .rows = rows};
    for (uint32_t i = 0; i < n; i++) {
        pos[i] = (int32_t)(from + i);
        uint32_t row = r->every ? n - 1 - i : i;
        if (!r->every || (from + row) % r->every == 0)
            rows[b.n_rows++] = row;
    }
    for (uint32_t g = 0; g < r->n_groups; g++) {
        for (uint32_t i = 0; i < BLOCKS; i++)
            table[g][i] = (i * 5 + 7 + g) % BLOCKS + 3 * g; /* 5 and BLOCKS have no common factor */
        for (uint32_t i = 0; i < n; i++) {
            uint32_t p = from + i;
            slot[g][i] = table[g][p / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + p % KV_BLOCK_TOKENS;
        }
        b.group[g].table = table[g];
        b.group[g].table_stride = BLOCKS;
        b.group[g].slot = slot[g];
    }
    model_forward(r->model, &b);
    char why[BE_ERR_BYTES] = "";
    assert_int_equal(r->ops->wait(r->be, why), 0);
    for (uint32_t i = 0; i < b.n_rows; i++)
        r->ops->logits_get(r->be, i, r->logits + (size_t)(from + rows[i]) * r->vocab);
}

static void run_text(struct run *r, const uint32_t *tokens, uint32_t n, uint32_t chunk) {
    for (uint32_t from = 0; from < n; from += chunk)
        run_chunk(r, tokens, from, MIN(n, from + chunk));
}

static uint32_t argmax(const float *v, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

static double logsumexp(const float *v, uint32_t n) {
    double max = v[argmax(v, n)], sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(v[i] - max);
    return max + log(sum);
}

/* largest_error: over the rows that the goldens keep of a prompt. */
static double largest_error(const struct run *r, const struct golden *g, const struct golden_prompt *p,
                            const float *want) {
    double largest = 0;
    for (uint32_t i = 0; i < p->n_at; i++)
        for (uint32_t v = 0; v < r->vocab; v++) {
            double d = fabs((double)r->logits[(size_t)p->at[i] * r->vocab + v] -
                            (double)want[(p->row0 + i) * g->cfg.vocab + v]);
            if (!(d <= largest)) /* a NaN is the largest */
                largest = d;
        }
    return largest;
}

/* ---- tests -------------------------------------------------------------------------------------- */

static const char *const names[] = {"gpt2",       "opt",   "phi3",  "gemma2",  "gemma3",     "llama",
                                    "llama-yarn", "qwen2", "qwen3", "mistral", "llama-bf16", "qwen2-f16"};
static const struct be_ops *const tables[] = {&ref_ops, &cpu_ops};

static void check_logprobs(const struct run *r, const struct golden_prompt *p, const char *what) {
    for (uint32_t i = 0; i < p->n_at; i++) {
        const float *row = r->logits + (size_t)p->at[i] * r->vocab;
        double z = logsumexp(row, r->vocab);
        for (uint32_t k = 0; k < 5; k++)
            if (!(fabs(row[p->top_ids[i][k]] - z - p->top_logprobs[i][k]) <= 1e-4))
                fail_msg("%s: log-probability %u at %u is %.6f, wanted %.6f", what, k, p->at[i],
                         row[p->top_ids[i][k]] - z, p->top_logprobs[i][k]);
    }
}

/* greedy, one token at a time, as an engine decodes. */
static void check_greedy(struct run *r, const struct golden_prompt *p, const char *what) {
    uint32_t tokens[LEN_MAX];
    memcpy(tokens, p->tokens, p->n * sizeof *tokens);
    run_chunk(r, tokens, 0, p->n);
    for (uint32_t i = 0; i < N_GREEDY; i++) {
        uint32_t last = p->n + i - 1;
        tokens[last + 1] = argmax(r->logits + (size_t)last * r->vocab, r->vocab);
        if (tokens[last + 1] != p->tokens[last + 1])
            fail_msg("%s: greedy token %u is %u, wanted %u", what, i, tokens[last + 1], p->tokens[last + 1]);
        if (i + 1 < N_GREEDY)
            run_chunk(r, tokens, last + 1, last + 2);
    }
}

static void test_parity(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct golden g;
        golden_open(&g, names[i]);
        for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
            struct run r;
            double largest = 0;
            /* Weights as stored. The cache in f32: transformers in f32 keeps it so. */
            run_open(&r, &g, tables[t], DT_NONE, DT_F32, false);
            for (size_t k = 0; k < g.n_prompts; k++) {
                const struct golden_prompt *p = &g.prompt[k];
                char what[96];
                snprintf(what, sizeof what, "%s, %s, prompt of %u", names[i], tables[t]->name, p->n);
                run_text(&r, p->tokens, p->n + N_GREEDY - 1, LEN_MAX);
                double worst = largest_error(&r, &g, p, g.logits);
                if (!(worst <= 1e-4))
                    fail_msg("%s: logits differ by %.3g", what, worst);
                largest = MAX(largest, worst);
                check_logprobs(&r, p, what);
                check_greedy(&r, p, what);
            }
            print_message("%s, %s: logits within %.2g\n", names[i], tables[t]->name, largest);
            run_close(&r);
        }
        golden_close(&g);
    }
}

/* The bits of the logits do not depend on how the text was cut. */
static void test_chunks(void **state) {
    (void)state;
    static const uint32_t chunks[] = {1, 7, 16, 33};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct golden g;
        golden_open(&g, names[i]);
        for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
            struct run r;
            run_open(&r, &g, tables[t], DT_NONE, DT_NONE, false);
            const struct golden_prompt *p = &g.prompt[g.n_prompts - 1];
            uint32_t n = p->n + N_GREEDY;
            size_t bytes = (size_t)n * r.vocab * sizeof(float);
            float *whole = malloc(bytes);
            assert_non_null(whole);
            run_text(&r, p->tokens, n, n);
            memcpy(whole, r.logits, bytes);
            for (size_t c = 0; c < ARRAY_LEN(chunks); c++) {
                memset(r.logits, 0, bytes);
                run_text(&r, p->tokens, n, chunks[c]);
                if (memcmp(whole, r.logits, bytes) != 0)
                    fail_msg("%s, %s: chunks of %u change bits", names[i], tables[t]->name, chunks[c]);
            }
            free(whole);
            run_close(&r);
        }
        golden_close(&g);
    }
}

/* Nor on which rows are asked for: the last layer computes no others. Chunks of 3 have some without any. */
static void test_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct golden g;
        golden_open(&g, names[i]);
        for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
            struct run r;
            run_open(&r, &g, tables[t], DT_NONE, DT_NONE, false);
            const struct golden_prompt *p = &g.prompt[g.n_prompts - 1];
            uint32_t n = p->n + N_GREEDY;
            size_t bytes = (size_t)n * r.vocab * sizeof(float), row = r.vocab * sizeof(float);
            float *whole = malloc(bytes);
            assert_non_null(whole);
            run_text(&r, p->tokens, n, n);
            memcpy(whole, r.logits, bytes);
            memset(r.logits, 0, bytes);
            r.every = 5;
            run_text(&r, p->tokens, n / 2, n / 2);
            for (uint32_t at = n / 2; at < n; at += 3)
                run_chunk(&r, p->tokens, at, MIN(n, at + 3));
            for (uint32_t k = 0; k < n; k += r.every)
                if (memcmp(whole + (size_t)k * r.vocab, r.logits + (size_t)k * r.vocab, row) != 0)
                    fail_msg("%s, %s: position %u has other bits", names[i], tables[t]->name, k);
            free(whole);
            run_close(&r);
        }
        golden_close(&g);
    }
}

/* largest_difference: of two sets of rows. */
static double largest_difference(const float *a, const float *b, size_t n) {
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = MAX(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

/* The model as it is served in bf16 or f16, the cache in that type too. Three references:
 *   f32      transformers with the same weights in f32
 *   cache    the same, with K and V rounded as the cache rounds them: C is how far that moves the logits
 *   native   transformers in that type throughout: N is how far that moves them
 * Bound against `cache`: 1e-4 + C / 4. Weights and sums are the same, so what is left are numbers of K and V
 * so close to a rounding boundary that the last bits of f32 decide: relative errors of 1e-6 meet boundaries
 * 2^-7 (bf16) or 2^-10 (f16) apart at one number in 10^3 at most. Each such number is off by one rounding, as
 * all were when C was measured, and independent errors add in squares: sqrt(10^-3) C, C / 32. They are few,
 * hence 8 times that. Against `native` the triangle gives the bound: |native - cache| + 1e-4 + C / 4. */
static void test_half(void **state) {
    (void)state;
    unsigned n_models = 0;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct golden g;
        golden_open(&g, names[i]);
        n_models += g.native != NULL;
        size_t n = g.n_rows * g.cfg.vocab;
        double c = g.native ? largest_difference(g.cache, g.logits, n) : 0, bound = 1e-4 + c / 4;
        double native_bound = g.native ? largest_difference(g.native, g.cache, n) + bound : 0;
        for (size_t t = 0; t < ARRAY_LEN(tables) && g.native; t++) {
            struct run r;
            run_open(&r, &g, tables[t], DT_NONE, DT_NONE, false);
            double from_cache = 0, from_native = 0;
            for (size_t k = 0; k < g.n_prompts; k++) {
                run_text(&r, g.prompt[k].tokens, g.prompt[k].n + N_GREEDY - 1, LEN_MAX);
                from_cache = MAX(from_cache, largest_error(&r, &g, &g.prompt[k], g.cache));
                from_native = MAX(from_native, largest_error(&r, &g, &g.prompt[k], g.native));
            }
            print_message(
                "%s, %s: logits within %.2g (bound %.2g) of f32 with a rounded cache, %.2g (bound %.2g) "
                "of the native run\n",
                names[i], tables[t]->name, from_cache, bound, from_native, native_bound);
            assert_true(from_cache <= bound);
            assert_true(from_native <= native_bound);
            run_close(&r);
        }
        golden_close(&g);
    }
    assert_int_equal(n_models, 2);
}

/* Widening at load changes no bit of a sum; narrowing gives what a checkpoint of that type would. */
static void test_converted(void **state) {
    (void)state;
    struct golden g;
    golden_open(&g, "llama-bf16");
    const struct golden_prompt *p = &g.prompt[2];
    struct run stored, wide;
    run_open(&stored, &g, &ref_ops, DT_NONE, DT_F32, false);
    run_open(&wide, &g, &ref_ops, DT_F32, DT_F32, false);
    run_text(&stored, p->tokens, p->n, LEN_MAX);
    run_text(&wide, p->tokens, p->n, LEN_MAX);
    assert_memory_equal(stored.logits, wide.logits, (size_t)p->n * g.cfg.vocab * sizeof(float));
    assert_true(model_weight_bytes(wide.model) > model_weight_bytes(stored.model));
    run_close(&wide);
    run_open(&wide, &g, &ref_ops, DT_F16, DT_F32,
             false); /* 8 bits of a bf16 fit into an f16's 11, in its range */
    run_text(&wide, p->tokens, p->n, LEN_MAX);
    assert_true(largest_error(&wide, &g, p, g.logits) <= 1e-4);
    run_close(&wide);
    run_close(&stored);
    golden_close(&g);
}

/* Made-up weights: the same in every run, logits finite and alive. */
static void test_dummy(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct golden g;
        golden_open(&g, names[i]);
        const struct golden_prompt *p = &g.prompt[2];
        size_t n = (size_t)p->n * g.cfg.vocab;
        float *first = malloc(n * sizeof *first);
        assert_non_null(first);
        for (int again = 0; again < 2; again++) {
            struct run r;
            run_open(&r, &g, &cpu_ops, DT_NONE, DT_NONE, true);
            run_text(&r, p->tokens, p->n, LEN_MAX);
            if (!again)
                memcpy(first, r.logits, n * sizeof *first);
            else
                assert_memory_equal(first, r.logits, n * sizeof *first);
            run_close(&r);
        }
        double squares = 0;
        for (size_t k = 0; k < n; k++)
            squares += (double)first[k] * (double)first[k];
        double rms = sqrt(squares / (double)n);
        assert_true(rms > 0.05 && rms < 50); /* false for NaN */
        free(first);
        golden_close(&g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),    cmocka_unit_test(test_chunks), cmocka_unit_test(test_rows), cmocka_unit_test(test_half),
        cmocka_unit_test(test_converted), cmocka_unit_test(test_dummy),
    };
    return cmocka_run_group_tests_name("model_golden", tests, NULL, NULL);
}
