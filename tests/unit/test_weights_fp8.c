/* Checkpoints in fp8: with a factor for each tensor, row or block of 128 x 128, they compute on a CPU, to the bit, what
 * the same values stored as floats do; factors of the KV cache, under each of their names, are what keys and values are
 * stored by; and what does not fit together is refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/hf/safetensors.h"
#include "tests/support/model_run.h"

enum { HIDDEN = 64, MLP = 160, VOCAB = 48, N_TENSORS = 12, N_TOKENS = 20 };

static const struct shape {
    const char *name;
    uint32_t rows, cols; /* cols 0: a vector */
    bool fp8;
} shapes[N_TENSORS] = {
    {"model.embed_tokens.weight", VOCAB, HIDDEN, false},
    {"model.norm.weight", HIDDEN, 0, false},
    {"lm_head.weight", VOCAB, HIDDEN, false},
    {"model.layers.0.input_layernorm.weight", HIDDEN, 0, false},
    {"model.layers.0.post_attention_layernorm.weight", HIDDEN, 0, false},
    {"model.layers.0.self_attn.q_proj.weight", HIDDEN, HIDDEN, true},
    {"model.layers.0.self_attn.k_proj.weight", HIDDEN, HIDDEN, true},
    {"model.layers.0.self_attn.v_proj.weight", HIDDEN, HIDDEN, true},
    {"model.layers.0.self_attn.o_proj.weight", HIDDEN, HIDDEN, true},
    {"model.layers.0.mlp.gate_proj.weight", MLP, HIDDEN, true},
    {"model.layers.0.mlp.up_proj.weight", MLP, HIDDEN, true},
    {"model.layers.0.mlp.down_proj.weight", HIDDEN, MLP, true},
};

enum scheme { FLOATS, ONE, ROWS, BLOCKS };

struct file {
    struct buf head, data;
    size_t n;
};

static void file_add(struct file *f, const char *name, const char *dtype, const char *shape, const void *p, size_t n) {
    buf_addf(&f->head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", f->n++ ? "," : "{", name,
             dtype, shape, f->data.len, f->data.len + n);
    buf_add(&f->data, p, n);
}

/* value_of: of e4m3. */
static float value_of(uint8_t u) {
    uint32_t e = u >> 3 & 15;
    float v = e ? ldexpf(1 + (float)(u & 7) / 8, (int)e - 7) : ldexpf((float)(u & 7) / 8, -6);
    return u & 0x80 ? -v : v;
}

/* factor_of: some number for a row and column, alike for all that share one. */
static float factor_of(enum scheme s, uint32_t row, uint32_t col) {
    uint32_t k = s == ROWS ? row : s == BLOCKS ? row / 128 * 2 + col / 128 : 0;
    return 0.001f * (float)(2 + k % 5);
}

/* matrix_add: fp8, or the same values as floats; of is what the values are those of. */
static void matrix_add(struct file *f, const struct shape *t, enum scheme stored, enum scheme of, uint32_t seed) {
    size_t n = (size_t)t->rows * t->cols, n_factors = 0;
    uint8_t *bits = xcalloc(n, 1);
    float *v = xcalloc(n, sizeof *v), *factors = xcalloc(n, sizeof *factors);
    uint32_t across = (t->cols + 127) / 128, down = (t->rows + 127) / 128;
    char name[128], shape[64];
    for (size_t i = 0; i < n; i++) {
        bits[i] = (uint8_t)(be_philox64(seed, i) & 0xF7); /* no NaN */
        v[i] = value_of(bits[i]) * factor_of(of, (uint32_t)(i / t->cols), (uint32_t)(i % t->cols));
    }
    snprintf(shape, sizeof shape, "[%u,%u]", t->rows, t->cols);
    if (stored == FLOATS) {
        file_add(f, t->name, "F32", shape, v, n * sizeof *v);
    } else {
        file_add(f, t->name, "F8_E4M3", shape, bits, n);
        n_factors = stored == ONE ? 1 : stored == ROWS ? t->rows : (size_t)across * down;
        for (uint32_t i = 0; i < n_factors; i++)
            factors[i] = stored == BLOCKS ? factor_of(of, i / across * 128, i % across * 128) : factor_of(of, i, 0);
        snprintf(name, sizeof name, "%s%s", t->name, stored == BLOCKS ? "_scale_inv" : "_scale");
        snprintf(shape, sizeof shape, stored == ONE ? "[]" : "[%zu,%u]", stored == ROWS ? n_factors : down,
                 stored == ROWS ? 1 : across);
        file_add(f, name, "F32", shape, factors, n_factors * sizeof *factors);
    }
    free(bits), free(v), free(factors);
}

/* Factors of the KV cache that file_make adds; name NULL: none. */
static struct {
    const char *name, *shape;
    float v[2];
} kv_factors[2];

static void kv_factors_set(const char *k, float k_factor, const char *v, float v_factor) {
    memset(kv_factors, 0, sizeof kv_factors);
    kv_factors[0].name = k;
    kv_factors[0].shape = "[]";
    kv_factors[0].v[0] = k_factor;
    kv_factors[1].name = v;
    kv_factors[1].shape = "[1]";
    kv_factors[1].v[0] = v_factor;
}

/* file_make: a whole checkpoint; its bytes, which the caller frees. */
static char *file_make(enum scheme stored, enum scheme of, size_t *n) {
    struct file f = {0};
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        const struct shape *t = &shapes[i];
        size_t count = (size_t)t->rows * MAX(t->cols, 1u);
        char shape[64];
        if (t->fp8) {
            matrix_add(&f, t, stored, of, i);
            continue;
        }
        float *v = xcalloc(count, sizeof *v);
        for (size_t k = 0; k < count; k++)
            v[k] = t->cols ? (float)(be_philox64(i, k) >> 40) / (1 << 24) - 0.5f : 1.0f;
        snprintf(shape, sizeof shape, t->cols ? "[%u,%u]" : "[%u]", t->rows, t->cols);
        file_add(&f, t->name, "F32", shape, v, count * sizeof *v);
        free(v);
    }
    for (size_t i = 0; i < ARRAY_LEN(kv_factors); i++)
        if (kv_factors[i].name)
            file_add(&f, kv_factors[i].name, "F32", kv_factors[i].shape, kv_factors[i].v,
                     sizeof(float) * (strcmp(kv_factors[i].shape, "[2]") ? 1 : 2));
    buf_addf(&f.head, "}");
    uint64_t head = f.head.len;
    struct buf all = {0};
    buf_add(&all, &head, sizeof head);
    buf_add(&all, f.head.data, f.head.len);
    buf_add(&all, f.data.data, f.data.len);
    buf_fini(&f.head);
    buf_fini(&f.data);
    *n = all.len;
    return buf_take(&all);
}

static void config_make(struct hf_config *c, const char *quantization) {
    struct err e = {0};
    char text[1024];
    snprintf(text, sizeof text,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%d,"
             "\"intermediate_size\":%d,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":2,"
             "\"vocab_size\":%d,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"torch_dtype\":\"float32\","
             "\"eos_token_id\":1,\"hidden_act\":\"silu\",\"quantization_config\":%s}",
             HIDDEN, MLP, VOCAB, quantization);
    if (hf_config_parse((struct str){text, strlen(text)}, NULL, c, &e))
        fail_msg("%s", e.msg);
}

/* logits_of: of a text, by a checkpoint. */
static void logits_of(const char *bytes, size_t n, const char *quantization, float *out) {
    struct hf_config c;
    struct st_set *set;
    struct err e = {0};
    struct model_run m;
    uint32_t tokens[N_TOKENS];
    config_make(&c, quantization);
    if (st_open_memory(&set, bytes, n, &e))
        fail_msg("%s", e.msg);
    model_run_open(&m, &c, set, &cpu_ops, &(struct be_config){.n_ranks = 1, .n_threads = 1});
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = i * 7 % VOCAB;
    model_run_chunk(&m, tokens, 0, N_TOKENS);
    memcpy(out, m.logits, sizeof(float) * N_TOKENS * VOCAB);
    model_run_close(&m);
    st_close(set);
    hf_config_fini(&c);
}

static void test_same_as_floats(void **state) {
    (void)state;
    static const char *const schemes[] = {
        [ONE] = "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"}",
        [ROWS] = "{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{\"group_0\":"
                 "{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\"},"
                 "\"input_activations\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"token\",\"dynamic\":true}}}}",
        [BLOCKS] = "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\","
                   "\"weight_block_size\":[128,128]}"};
    static float want[N_TOKENS * VOCAB], got[N_TOKENS * VOCAB];
    for (enum scheme s = ONE; s <= BLOCKS; s++) {
        size_t n_floats, n;
        char *floats = file_make(FLOATS, s, &n_floats), *fp8 = file_make(s, s, &n);
        assert_true(n < n_floats);
        logits_of(floats, n_floats, "null", want);
        logits_of(fp8, n, schemes[s], got);
        assert_memory_equal(got, want, sizeof want);
        for (size_t i = 0; i < ARRAY_LEN(want); i++)
            assert_true(isfinite(want[i]));
        free(floats);
        free(fp8);
    }
}

#define ATTN "model.layers.0.self_attn."
static const char kv_scheme[] = "{\"quant_method\":\"compressed-tensors\",\"kv_cache_scheme\":{\"num_bits\":8,\"type\":"
                                "\"float\",\"strategy\":\"tensor\",\"dynamic\":false,\"symmetric\":true},\"config_groups\":{}}";

/* cache_of: the text's logits by the reference, with a cache of that type, and its blocks as they lie there. */
static void cache_of(const char *quantization, enum dtype kv, float *logits, void *blocks) {
    struct hf_config c;
    struct st_set *set;
    struct err e = {0};
    struct model_run m;
    uint32_t tokens[N_TOKENS], ids[] = {7, 0}; /* where model_run puts the first blocks */
    size_t n;
    char *bytes = file_make(FLOATS, ONE, &n);
    config_make(&c, quantization);
    assert_int_equal(st_open_memory(&set, bytes, n, &e), RC_OK);
    model_run_open(&m, &c, set, &ref_ops, &(struct be_config){.n_ranks = 1, .n_threads = 1, .compute = kv});
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = i * 7 % VOCAB;
    model_run_chunk(&m, tokens, 0, N_TOKENS);
    memcpy(logits, m.logits, sizeof(float) * N_TOKENS * VOCAB);
    ref_ops.kv_export(m.be, m.kv[0], ids, 2, blocks);
    model_run_close(&m);
    st_close(set);
    hf_config_fini(&c);
    free(bytes);
}

/* nearest: whether no number of e4m3 is nearer to x. */
static bool nearest(uint8_t bits, float x) {
    float d = fabsf(value_of(bits) - x);
    for (uint32_t u = 0; u < 256; u++)
        if ((u & 0x7F) != 0x7F && fabsf(value_of((uint8_t)u) - x) < d - 1e-5f * fabsf(x))
            return false;
    return true;
}

/* The factors make the largest key and value 400, so whoever forgets one, on either way, is far off. */
static void test_kv_factors(void **state) {
    (void)state;
    enum { HEADS = 2, DIM = HIDDEN / HEADS, HALF = HEADS * KV_BLOCK_TOKENS * DIM, N = 2 * 2 * HALF };
    static float want[N_TOKENS * VOCAB], got[N_TOKENS * VOCAB], floats[N];
    static uint8_t bits[N];
    static const char *const names[][2] = {{ATTN "k_scale", ATTN "v_scale"},
                                           {ATTN "k_proj.k_scale", ATTN "v_proj.v_scale"},
                                           {ATTN "k_proj.output_scale", ATTN "v_proj.output_scale"},
                                           {ATTN "kv_scale", NULL}};
    float top[2] = {0};
    kv_factors_set(NULL, 0, NULL, 0);
    cache_of("null", DT_F32, want, floats);
    for (size_t i = 0; i < N; i++) {
        top[i / HALF % 2] = fmaxf(top[i / HALF % 2], fabsf(floats[i])); /* [block][k, v] */
        assert_true(isfinite(floats[i]));
    }
    assert_true(top[0] > 0 && top[1] > 0);
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        float factor[2] = {top[0] / 400, top[1] / 400};
        if (!names[k][1])
            factor[0] = factor[1] = MAX(factor[0], factor[1]);
        kv_factors_set(names[k][0], factor[0], names[k][1], factor[1]);
        cache_of(kv_scheme, DT_F8E4M3, got, bits);
        for (size_t i = 0; i < N; i++)
            if (!nearest(bits[i], floats[i] / factor[i / HALF % 2]))
                fail_msg("element %zu: %02x for %g", i, bits[i], floats[i] / factor[i / HALF % 2]);
        double off = 0, size = 0;
        for (size_t i = 0; i < ARRAY_LEN(got); i++) {
            off += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
            size += (double)want[i] * want[i];
        }
        assert_true(off > 0 && off < 0.05 * 0.05 * size);
        cache_of(kv_scheme, DT_F32, got, floats); /* a cache of floats needs none */
        assert_memory_equal(got, want, sizeof want);
    }
    kv_factors_set(NULL, 0, NULL, 0);
}

static void refused(const char *quantization, const char *from, const char *to, const char *why) {
    struct hf_config c;
    struct st_set *set;
    struct err e = {0};
    struct model *model = NULL;
    struct be *be;
    char err[BE_ERR_BYTES] = "";
    size_t n;
    char *bytes = file_make(ONE, ONE, &n), *at = from ? memmem(bytes, n, from, strlen(from)) : NULL;
    config_make(&c, quantization);
    if (from) {
        assert_non_null(at);
        assert_int_equal(strlen(from), strlen(to));
        memcpy(at, to, strlen(to));
    }
    assert_int_equal(st_open_memory(&set, bytes, n, &e), RC_OK);
    struct be_config cfg = {.n_ranks = 1, .n_threads = 1, .n_tokens_max = 16, .n_rows_max = 1, .n_seqs_max = 1, .n_vocab = VOCAB};
    assert_int_equal(cpu_ops.open(&be, &cfg, err), 0);
    struct model_opts o = {.ops = &cpu_ops, .be = be, .n_ranks = 1, .n_tokens_max = 16};
    assert_int_not_equal(model_load(&model, &c, set, &o, &e), RC_OK);
    if (!strstr(e.msg, why))
        fail_msg("%s", e.msg);
    cpu_ops.close(be);
    st_close(set);
    hf_config_fini(&c);
    free(bytes);
}

static void test_kv_refusals(void **state) {
    (void)state;
    static const char fp8[] = "{\"quant_method\":\"fp8\",\"kv_cache_scheme\":\"static\"}";
    refused(fp8, NULL, NULL, "no tensor " ATTN "k_scale, which kv_cache_scheme of config.json asks for");
    kv_factors_set(ATTN "k_scale", 1, NULL, 0);
    refused(fp8, NULL, NULL, "no tensor " ATTN "v_scale");
    refused("{\"quant_method\":\"fp8\"}", NULL, NULL, "values none");
    static const float bad[] = {0, -1, 1e-40f, INFINITY, NAN};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        kv_factors_set(ATTN "k_scale", 1, ATTN "v_scale", bad[i]);
        refused(fp8, NULL, NULL, isfinite(bad[i]) ? "must be above 0" : "not a finite number");
    }
    kv_factors[1].shape = "[2]";
    refused(fp8, NULL, NULL, "one factor for the layer");
    kv_factors_set(NULL, 0, NULL, 0);
}

static void test_refusals(void **state) {
    (void)state;
    static const char fp8[] = "{\"quant_method\":\"fp8\"}";
    refused("null", NULL, NULL, "no quantization_config");
    refused(fp8, "q_proj.weight_scale", "q_proj.weight_zcale", "no weight_scale beside it");
    refused(fp8, "\"F8_E4M3\",\"shape\":[64,64]", "\"F8_E5M2\",\"shape\":[64,64]", "must be F32, F16, BF16 or F8_E4M3");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_as_floats), cmocka_unit_test(test_kv_factors),
                                       cmocka_unit_test(test_kv_refusals), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests_name("weights_fp8", tests, NULL, NULL);
}
