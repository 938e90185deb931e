/* Pooling models against Hugging Face transformers: tests/golden/pooling, made by scripts/goldens/pooling.py.
 *
 * Every folder runs through ref_ops and cpu_ops: hidden states and pooled vectors within 1e-4 of transformers
 * in f32, and the same bits alone, in a batch, and with a text's rows given to the pooler in pieces.
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
#include "worker/pooler.h"

enum { TEXTS_MAX = 8, LEN_MAX = 128, TOKENS_MAX = 512 };
static const float bound = 1e-4f;

struct text {
    uint32_t n, first; /* tokens, and where they start among those of all texts */
    uint32_t tokens[LEN_MAX];
    uint8_t types[LEN_MAX];
};

struct golden {
    struct text text[TEXTS_MAX];
    uint32_t n_texts, n_tokens, cols;
    struct hf_config cfg;
    struct st_set *set;
    struct pooler *pooler;
    struct pool_ask ask;
    float *hidden, *pooled;
};

static char *read_file(const char *name, const char *file, size_t *n) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/pooling/%s/%s", name, file);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

static void golden_open(struct golden *g, const char *name) {
    struct err e = {0};
    size_t n;
    char dir[128], *text = read_file(name, "config.json", &n);
    memset(g, 0, sizeof *g);
    if (hf_config_parse((struct str){text, n}, NULL, &g->cfg, &e))
        fail_msg("%s: %s", name, e.msg);
    free(text);
    snprintf(dir, sizeof dir, "tests/golden/pooling/%s", name);
    if (st_open(&g->set, dir, &e) ||
        pooler_load(&g->pooler,
                    &(struct pooler_opts){.dir = dir, .config = &g->cfg, .weights = g->set, .task = "auto"},
                    &e))
        fail_msg("%s: %s", name, e.msg);
    bool labels = pooler_labels(g->pooler) > 0;
    g->ask.kind = labels ? POOL_CLASSIFY : POOL_EMBED;
    g->ask.activate = !labels && pooler_activates(g->pooler, POOL_EMBED);
    g->cols = pooler_cols(g->pooler, &g->ask);
    text = read_file(name, "golden.json", &n);
    json_t *all = json_loadb(text, n, 0, NULL);
    const json_t *texts = json_object_get(all, "texts");
    g->n_texts = (uint32_t)json_array_size(texts);
    assert_true(g->n_texts >= 5 && g->n_texts <= TEXTS_MAX);
    for (uint32_t i = 0; i < g->n_texts; i++) {
        const json_t *t = json_array_get(texts, i), *ids = json_object_get(t, "tokens");
        struct text *x = &g->text[i];
        x->first = g->n_tokens;
        x->n = (uint32_t)json_array_size(ids);
        assert_true(x->n > 0 && x->n <= LEN_MAX);
        for (uint32_t k = 0; k < x->n; k++) {
            x->tokens[k] = (uint32_t)json_integer_value(json_array_get(ids, k));
            x->types[k] = (uint8_t)json_integer_value(json_array_get(json_object_get(t, "types"), k));
        }
        g->n_tokens += x->n;
    }
    assert_true(g->n_tokens <= TOKENS_MAX);
    json_decref(all);
    free(text);
    g->hidden = (float *)(void *)read_file(name, "hidden.f32", &n);
    assert_int_equal(n, (size_t)g->n_tokens * g->cfg.hidden * sizeof(float));
    g->pooled = (float *)(void *)read_file(name, "pooled.f32", &n);
    assert_int_equal(n, (size_t)g->n_texts * g->cols * sizeof(float));
}

static void golden_close(struct golden *g) {
    pooler_free(g->pooler);
    st_close(g->set);
    hf_config_fini(&g->cfg);
    free(g->hidden);
    free(g->pooled);
}

struct run {
    const struct be_ops *ops;
    struct be *be;
    struct model *model;
    struct be_kv *kv[BE_GROUPS_MAX];
    uint32_t n_groups;
};

static void run_open(struct run *r, const struct golden *g, const struct be_ops *ops) {
    char why[BE_ERR_BYTES];
    struct err e = {0};
    struct cache_group_spec specs[BE_GROUPS_MAX];
    *r = (struct run){.ops = ops};
    struct be_config cfg = {.n_threads = 2,
                            .n_ranks = 1,
                            .n_tokens_max = TOKENS_MAX,
                            .n_seqs_max = TEXTS_MAX,
                            .n_rows_max = TOKENS_MAX,
                            .n_vocab = g->cfg.vocab};
    if (ops->open(&r->be, &cfg, why))
        fail_msg("%s", why);
    struct model_opts o = {.ops = ops, .be = r->be, .n_ranks = 1, .n_tokens_max = TOKENS_MAX, .pools = true};
    if (model_load(&r->model, &g->cfg, g->set, &o, &e))
        fail_msg("%s", e.msg);
    r->n_groups = model_groups(&g->cfg, &o, specs);
    assert_int_equal(r->n_groups == 0, hf_is_encoder(&g->cfg));
    for (uint32_t i = 0; i < r->n_groups; i++)
        assert_non_null(r->kv[i] =
                            ops->kv_new(r->be, i, &specs[i], TOKENS_MAX / KV_BLOCK_TOKENS + TEXTS_MAX, why));
}

static void run_close(struct run *r) {
    for (uint32_t i = 0; i < r->n_groups; i++)
        r->ops->kv_free(r->be, r->kv[i]);
    model_free(r->model);
    r->ops->close(r->be);
}

/* run_texts: texts [from, to) in one batch; hidden states [tokens][hidden] to out. every: of those tokens only that it
 * divides, [rows][hidden]. */
static void run_texts(struct run *r, const struct golden *g, uint32_t from, uint32_t to, uint32_t every, float *out) {
    enum { STRIDE = LEN_MAX / KV_BLOCK_TOKENS };
    uint32_t tokens[TOKENS_MAX], start[TEXTS_MAX + 1] = {0}, len[TEXTS_MAX], slot[TOKENS_MAX];
    uint32_t table[TEXTS_MAX][STRIDE] = {0}, n = 0, n_blocks = 0;
    int32_t pos[TOKENS_MAX];
    uint8_t types[TOKENS_MAX], kind[TEXTS_MAX];
    for (uint32_t i = from; i < to; i++) {
        const struct text *t = &g->text[i];
        for (uint32_t k = 0; k < t->n; k++, n++) {
            if (k % KV_BLOCK_TOKENS == 0)
                table[i - from][k / KV_BLOCK_TOKENS] = n_blocks++;
            tokens[n] = t->tokens[k];
            types[n] = t->types[k];
            pos[n] = (int32_t)k;
            slot[n] = (n_blocks - 1) * KV_BLOCK_TOKENS + k % KV_BLOCK_TOKENS;
        }
        start[i - from + 1] = n;
        len[i - from] = t->n;
        kind[i - from] = hf_is_encoder(&g->cfg) ? ATTN_BIDIRECTIONAL : ATTN_CAUSAL;
    }
    struct batch b = {.n_tokens = n, .n_seqs = to - from, .n_axes = 1, .n_groups = r->n_groups};
    b.tokens = tokens;
    b.pos = pos;
    b.seq_start = start;
    b.kv_len = len;
    b.kind = kind;
    b.token_type = types;
    for (uint32_t i = 0; i < r->n_groups; i++) {
        b.group[i].table = &table[0][0];
        b.group[i].table_stride = STRIDE;
        b.group[i].slot = slot;
    }
    uint32_t rows[TOKENS_MAX];
    for (uint32_t i = 0; every > 1 && i < n; i += every)
        rows[b.n_rows++] = i;
    b.rows = rows;
    model_forward(r->model, &b);
    model_hidden(r->model, 0, b.n_rows ? b.n_rows : n, out);
}

static void pool_text(const struct golden *g, uint32_t i, const float *hidden, uint32_t piece, float *out) {
    const struct text *t = &g->text[i];
    struct pool_state *s = pooling_start(g->pooler, &g->ask, t->n);
    uint32_t lo, hi, rows, cols;
    pooler_span(g->pooler, &g->ask, t->n, &lo, &hi);
    for (uint32_t at = lo; at < hi; at += piece)
        pooling_rows(s, hidden + (size_t)at * g->cfg.hidden, at, MIN(piece, hi - at));
    const float *v = pooling_finish(s, &rows, &cols);
    assert_non_null(v);
    assert_int_equal(rows, 1);
    assert_int_equal(cols, g->cols);
    memcpy(out, v, cols * sizeof *v);
    pooling_free(s);
}

static void check_close(const char *name, const char *what, const float *got, const float *want, size_t n) {
    float worst = 0;
    for (size_t i = 0; i < n; i++) {
        float d = fabsf(got[i] - want[i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    if (!(worst <= bound))
        fail_msg("%s: %s differ by %g", name, what, (double)worst);
}

static void check_model(const char *name, const struct be_ops *ops) {
    struct golden g;
    struct run r;
    golden_open(&g, name);
    run_open(&r, &g, ops);
    uint32_t h = g.cfg.hidden;
    float *all = calloc((size_t)g.n_tokens * h, sizeof *all), *one = calloc((size_t)LEN_MAX * h, sizeof *one);
    float *pooled = calloc((size_t)g.n_texts * g.cols, sizeof *pooled),
          *again = calloc(g.cols, sizeof *again);
    run_texts(&r, &g, 0, g.n_texts, 1, all);
    check_close(name, "hidden states", all, g.hidden, (size_t)g.n_tokens * h);
    for (uint32_t i = 0; i < g.n_texts; i++) {
        const float *own = all + (size_t)g.text[i].first * h;
        run_texts(&r, &g, i, i + 1, 1, one);
        assert_memory_equal(one, own, (size_t)g.text[i].n * h * sizeof *one);
        pool_text(&g, i, own, LEN_MAX, pooled + (size_t)i * g.cols);
        pool_text(&g, i, own, 5, again);
        assert_memory_equal(again, pooled + (size_t)i * g.cols, g.cols * sizeof *again);
    }
    assert_true(model_gathers(r.model));
    float *some = calloc((size_t)g.n_tokens * h, sizeof *some);
    run_texts(&r, &g, 0, g.n_texts, 3, some);
    for (uint32_t i = 0; i < g.n_tokens; i += 3)
        assert_memory_equal(some + (size_t)i / 3 * h, all + (size_t)i * h, h * sizeof *some);
    free(some);
    check_close(name, "pooled vectors", pooled, g.pooled, (size_t)g.n_texts * g.cols);
    free(all);
    free(one);
    free(pooled);
    free(again);
    run_close(&r);
    golden_close(&g);
}

static const char *const names[] = {"bert-embed",  "bert-labels",       "xlmr-score",  "roberta-embed",
                                    "mpnet-embed", "modernbert-labels", "llama-embed", "qwen3-labels"};

static void plain_c(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        check_model(names[i], &ref_ops);
}

static void cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        check_model(names[i], &cpu_ops);
}

/* What a pooler is asked for and does not have. */
static void refusals(void **state) {
    (void)state;
    struct golden g;
    struct err e = {0};
    golden_open(&g, "bert-embed");
    assert_int_equal(pooler_check(g.pooler, &(struct pool_ask){.kind = POOL_CLASSIFY}, &e), RC_INVALID);
    assert_int_equal(pooler_check(g.pooler, &(struct pool_ask){.kind = POOL_EMBED, .dimensions = 8}, &e),
                     RC_INVALID);
    assert_string_equal(e.param, "dimensions");
    assert_int_equal(pooler_check(g.pooler, &(struct pool_ask){.kind = POOL_EMBED, .dimensions = g.cols}, &e),
                     RC_OK);
    golden_close(&g);
    golden_open(&g, "bert-labels");
    assert_int_equal(pooler_check(g.pooler, &(struct pool_ask){.kind = POOL_EMBED}, &e), RC_INVALID);
    enum pool_task task;
    assert_int_equal(pooler_task(&g.cfg, "score", &task, &e), RC_INVALID); /* three labels */
    assert_int_equal(pooler_task(&g.cfg, "generate", &task, &e), RC_INVALID);
    golden_close(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_c), cmocka_unit_test(cpu),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
