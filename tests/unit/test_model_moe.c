/* Mixtures of experts against Hugging Face transformers: tests/golden/moe, made by scripts/goldens/moe.py.
 * The weights are those of --load-format dummy, and the same ones out of a checkpoint with published names.
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
#include <unistd.h>

#include "common/buf.h"
#include "common/hash.h"
#include "tests/support/model_run.h"
#include "worker/model/convert.h"

static const char *const names[] = {"mixtral", "qwen3_moe", "qwen3_moe_step"};
static const struct be_ops *const tables[] = {&ref_ops, &cpu_ops};
enum { N_GREEDY = 32 };

static json_t *golden_open(const char *name, struct hf_config *cfg) {
    char path[128];
    struct err e = {0};
    snprintf(path, sizeof path, "tests/golden/moe/%s.json", name);
    json_t *g = json_load_file(path, 0, NULL);
    assert_non_null(g);
    char *text = json_dumps(json_object_get(g, "config"), 0);
    if (hf_config_parse((struct str){text, strlen(text)}, NULL, cfg, &e))
        fail_msg("%s: %s", name, e.msg);
    free(text);
    return g;
}

static uint32_t ids_of(const json_t *list, uint32_t *out) {
    uint32_t n = (uint32_t)json_array_size(list);
    assert_true(n > 0 && n <= MODEL_RUN_LEN);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return n;
}

/* check_rows: the logits and log-probabilities that the golden keeps. Returns the largest difference. */
static double check_rows(const struct model_run *r, const json_t *p, uint32_t stride, const char *what) {
    uint32_t at[8], n_at = ids_of(json_object_get(p, "at"), at);
    double worst = 0;
    for (uint32_t i = 0; i < n_at; i++) {
        const float *row = r->logits + (size_t)at[i] * r->vocab;
        const json_t *logits = json_array_get(json_object_get(p, "logits"), i);
        const json_t *top = json_array_get(json_object_get(p, "top_ids"), i);
        const json_t *lps = json_array_get(json_object_get(p, "top_logprobs"), i);
        double sum = 0;
        for (uint32_t v = 0; v < r->vocab; v++)
            sum += exp(row[v]);
        assert_int_equal(json_array_size(logits), (r->vocab + stride - 1) / stride);
        for (uint32_t k = 0; k < json_array_size(logits); k++) {
            double d = fabs(row[k * stride] - json_number_value(json_array_get(logits, k)));
            if (!(d <= 1e-4))
                fail_msg("%s: logit %u at %u is off by %.3g", what, k * stride, at[i], d);
            worst = MAX(worst, d);
        }
        for (uint32_t k = 0; k < 5; k++) {
            double lp = row[json_integer_value(json_array_get(top, k))] - log(sum);
            if (!(fabs(lp - json_number_value(json_array_get(lps, k))) <= 1e-4))
                fail_msg("%s: log-probability %u at %u is %.6f", what, k, at[i], lp);
        }
    }
    return worst;
}

static void check(const json_t *g, const struct hf_config *cfg, const struct st_set *set,
                  const struct be_ops *ops, const char *name) {
    struct model_run r;
    double worst = 0;
    const json_t *p;
    size_t i;
    uint32_t stride = (uint32_t)json_integer_value(json_object_get(g, "stride"));
    model_run_open(&r, cfg, set, ops, &(struct be_config){.n_threads = 2, .n_ranks = 1});
    json_array_foreach(json_object_get(g, "prompts"), i, p) {
        uint32_t text[MODEL_RUN_LEN], want[MODEL_RUN_LEN], n = ids_of(json_object_get(p, "tokens"), text);
        char what[96];
        assert_int_equal(ids_of(json_object_get(p, "greedy"), want), N_GREEDY);
        assert_true(n + N_GREEDY <= MODEL_RUN_LEN);
        snprintf(what, sizeof what, "%s, %s, prompt of %u", name, ops->name, n);
        model_run_greedy(&r, text, n, N_GREEDY);
        for (uint32_t k = 0; k < N_GREEDY; k++)
            if (text[n + k] != want[k])
                fail_msg("%s: greedy token %u is %u, wanted %u", what, k, text[n + k], want[k]);
        worst = MAX(worst, check_rows(&r, p, stride, what));
        /* The same bits at once as token by token. */
        size_t bytes = (n + N_GREEDY - 1) * (size_t)r.vocab * sizeof(float);
        float *before = malloc(bytes);
        assert_non_null(before);
        memcpy(before, r.logits, bytes);
        model_run_chunk(&r, text, 0, n + N_GREEDY - 1);
        assert_memory_equal(before, r.logits, bytes);
        free(before);
    }
    print_message("%s, %s: logits within %.2g\n", name, ops->name, worst);
    model_run_close(&r);
}

static void test_parity(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct hf_config cfg;
        json_t *g = golden_open(names[i], &cfg);
        for (size_t t = 0; t < ARRAY_LEN(tables); t++)
            check(g, &cfg, NULL, tables[t], names[i]);
        json_decref(g);
        hf_config_fini(&cfg);
    }
}

/* ---- a checkpoint ------------------------------------------------------------------------------- */

struct file {
    struct buf head, data;
    char dir[64], path[96];
};

static void put(struct file *f, uint32_t rows, uint32_t cols, const char *fmt, ...) PRINTF_LIKE(4, 5);
static void put(struct file *f, uint32_t rows, uint32_t cols, const char *fmt, ...) {
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    size_t n = (size_t)rows * MAX(cols, 1u), from = f->data.len;
    float *v = xcalloc(n, sizeof *v);
    for (size_t k = 0; !cols && k < n; k++)
        v[k] = 1;
    if (cols)
        random_floats(v, DT_F32, hash_fast(name, strlen(name), 1), 0, n, sqrtf(3.0f / (float)cols));
    buf_add(&f->data, v, n * sizeof *v);
    free(v);
    buf_addf(&f->head, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%u", f->head.len ? "," : "{", name, rows);
    if (cols)
        buf_addf(&f->head, ",%u", cols);
    buf_addf(&f->head, "],\"data_offsets\":[%zu,%zu]}", from, f->data.len);
}

static void put_layer(struct file *f, const struct hf_config *c, uint32_t i) {
    bool mixtral = c->arch == HF_MIXTRAL;
    uint32_t h = c->hidden, q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    char at[32];
    snprintf(at, sizeof at, "model.layers.%u", i);
    put(f, h, 0, "%s.input_layernorm.weight", at);
    put(f, h, 0, "%s.post_attention_layernorm.weight", at);
    put(f, q, h, "%s.self_attn.q_proj.weight", at);
    put(f, kv, h, "%s.self_attn.k_proj.weight", at);
    put(f, kv, h, "%s.self_attn.v_proj.weight", at);
    put(f, h, q, "%s.self_attn.o_proj.weight", at);
    if (c->qk_norm) {
        put(f, c->head_dim, 0, "%s.self_attn.q_norm.weight", at);
        put(f, c->head_dim, 0, "%s.self_attn.k_norm.weight", at);
    }
    if (!c->moe.layer_sparse[i]) {
        put(f, c->mlp, h, "%s.mlp.gate_proj.weight", at);
        put(f, c->mlp, h, "%s.mlp.up_proj.weight", at);
        put(f, h, c->mlp, "%s.mlp.down_proj.weight", at);
        return;
    }
    const char *block = mixtral ? "block_sparse_moe" : "mlp";
    put(f, c->moe.n_experts, h, "%s.%s.gate.weight", at, block);
    for (uint32_t k = 0; k < c->moe.n_experts; k++) {
        put(f, c->moe.mlp, h, "%s.%s.experts.%u.%s.weight", at, block, k, mixtral ? "w1" : "gate_proj");
        put(f, c->moe.mlp, h, "%s.%s.experts.%u.%s.weight", at, block, k, mixtral ? "w3" : "up_proj");
        put(f, h, c->moe.mlp, "%s.%s.experts.%u.%s.weight", at, block, k, mixtral ? "w2" : "down_proj");
    }
}

/* file_open: the model of `c` as model.safetensors in a folder of its own; extra: one more tensor, or NULL.
 */
static void file_open(struct file *f, const struct hf_config *c, const char *extra) {
    *f = (struct file){.dir = "/tmp/weir-moe-XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    put(f, c->vocab, c->hidden, "model.embed_tokens.weight");
    for (uint32_t i = 0; i < c->n_layers; i++)
        put_layer(f, c, i);
    put(f, c->hidden, 0, "model.norm.weight");
    put(f, c->vocab, c->hidden, "lm_head.weight");
    if (extra)
        put(f, 4, 4, "%s", extra);
    buf_addf(&f->head, "}");
    uint64_t n = f->head.len;
    snprintf(f->path, sizeof f->path, "%s/model.safetensors", f->dir);
    FILE *out = fopen(f->path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(&n, sizeof n, 1, out), 1);
    assert_int_equal(fwrite(f->head.data, 1, f->head.len, out), f->head.len);
    assert_int_equal(fwrite(f->data.data, 1, f->data.len, out), f->data.len);
    fclose(out);
}

static void file_close(struct file *f) {
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(rmdir(f->dir), 0);
    buf_fini(&f->head);
    buf_fini(&f->data);
}

static void test_checkpoint(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct hf_config cfg;
        struct st_set *set;
        struct file f;
        struct err e = {0};
        json_t *g = golden_open(names[i], &cfg);
        file_open(&f, &cfg, NULL);
        if (st_open(&set, f.dir, &e))
            fail_msg("%s", e.msg);
        check(g, &cfg, set, &cpu_ops, names[i]);
        st_close(set);
        file_close(&f);
        json_decref(g);
        hf_config_fini(&cfg);
    }
}

/* load_fails: why a model does not load. */
static void load_fails(const struct hf_config *cfg, const struct st_set *set, uint32_t n_ranks,
                       const char *want) {
    char why[BE_ERR_BYTES] = "";
    struct model *m;
    struct err e = {0};
    struct be *be;
    struct be_config bc = {.n_threads = 1,
                           .n_ranks = 1,
                           .n_tokens_max = 4,
                           .n_seqs_max = 1,
                           .n_rows_max = 4,
                           .n_vocab = cfg->vocab};
    assert_int_equal(cpu_ops.open(&be, &bc, why), 0);
    struct model_opts o = {.ops = &cpu_ops, .be = be, .n_ranks = n_ranks, .n_tokens_max = 4, .dummy = !set};
    assert_int_not_equal(model_load(&m, cfg, set, &o, &e), RC_OK);
    if (!strstr(e.msg, want))
        fail_msg("\"%s\" is not in: %s", want, e.msg);
    cpu_ops.close(be);
}

static void test_refused(void **state) {
    (void)state;
    struct hf_config cfg;
    struct st_set *set;
    struct file f;
    struct err e = {0};
    json_t *g = golden_open("mixtral", &cfg);
    file_open(&f, &cfg, "model.layers.0.block_sparse_moe.experts.4.w1.weight");
    assert_int_equal(st_open(&set, f.dir, &e), RC_OK);
    load_fails(&cfg, set, 1, "experts.4.w1.weight, which the architecture of config.json does not use");
    cfg.moe.n_experts = 5;
    load_fails(&cfg, set, 1, "gate.weight has shape [4, 64], but config.json makes it [5, 64]");
    cfg.moe.n_experts = 4;
    cfg.moe.mlp = 73;
    load_fails(&cfg, NULL, 2, "experts of 73 columns cannot be shared by 2 ranks evenly");
    st_close(set);
    file_close(&f);
    json_decref(g);
    hf_config_fini(&cfg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("model_moe", tests, NULL, NULL);
}
