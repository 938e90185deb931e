/* cpu_ops against ref_ops: rotation, the cache and attention, on ragged batches. threads: tsan */
#include "tests/parity/parity.h"

#ifdef PARITY_CUDA /* emulated threads are slow */
enum { N_CASES = 12, N_LONG = 2, N_ENCODERS = 4 };
#else
enum { N_CASES = 90, N_LONG = 6, N_ENCODERS = 16 };
#endif
enum { N_SEQS_MAX = 5, LEN_MAX = 1300, TOKENS_MAX = 400 };

/* scene: a ragged batch over sequences with a past, in blocks that lie anywhere. */
struct scene {
    uint32_t n_tokens, n_seqs, n_axes, stride, n_blocks;
    uint32_t start[N_SEQS_MAX + 1], kv_len[N_SEQS_MAX], past[N_SEQS_MAX];
    uint8_t kind[N_SEQS_MAX];
    uint32_t tokens[TOKENS_MAX], slot[TOKENS_MAX], *table;
    int32_t pos[3 * TOKENS_MAX];
    struct batch batch;
};

static void scene_make(struct rng *g, struct scene *s, uint32_t n_seqs, uint32_t past_max, uint32_t new_max,
                       bool cached) {
    memset(s, 0, sizeof *s);
    s->n_seqs = n_seqs;
    s->n_axes = 3;
    for (uint32_t i = 0; i < n_seqs; i++) {
        uint32_t n_new = rng_range(g, 1, new_max);
        s->past[i] = cached ? rng_below(g, past_max + 1) : 0;
        s->kv_len[i] = s->past[i] + n_new;
        s->start[i + 1] = s->start[i] + n_new;
        s->stride = MAX(s->stride, (s->kv_len[i] + 15) / 16);
    }
    s->n_tokens = s->start[n_seqs];
    CHECK(s->n_tokens <= TOKENS_MAX);
    s->n_blocks = n_seqs * s->stride;
    s->table = malloc(s->n_blocks * sizeof *s->table);
    CHECK(s->table);
    for (uint32_t i = 0; i < s->n_blocks; i++)
        s->table[i] = i;
    for (uint32_t i = s->n_blocks; i > 1; i--) { /* shuffled */
        uint32_t j = rng_below(g, i), t = s->table[i - 1];
        s->table[i - 1] = s->table[j];
        s->table[j] = t;
    }
    for (uint32_t i = 0; i < n_seqs; i++)
        for (uint32_t k = s->start[i]; k < s->start[i + 1]; k++) {
            uint32_t at = s->past[i] + k - s->start[i];
            s->pos[k] = (int32_t)at;
            s->pos[s->n_tokens + k] = (int32_t)rng_below(g, 50);
            s->pos[2 * s->n_tokens + k] = (int32_t)rng_below(g, 50);
            s->slot[k] = s->table[i * s->stride + at / 16] * 16 + at % 16;
        }
    s->batch = (struct batch){.n_tokens = s->n_tokens,
                              .n_seqs = n_seqs,
                              .n_axes = 3,
                              .tokens = s->tokens,
                              .pos = s->pos,
                              .seq_start = s->start,
                              .kv_len = s->kv_len,
                              .kind = s->kind};
    if (cached) {
        s->batch.n_groups = 1;
        s->batch.group[0].table = s->table;
        s->batch.group[0].table_stride = s->stride;
        s->batch.group[0].slot = s->slot;
    }
}

/* shape: of a layer. */
struct shape {
    uint32_t n_kv, n_heads, hd, hd_v, cols, window, rotary;
    enum dtype t;
    float softcap;
    uint32_t rel_span; /* 0: no bias by distance */
    bool sink, norms, cached, group_window;
    enum rope_kind rope;
    uint32_t sections[2];
};

static struct shape shape_make(struct rng *g, int i) {
    static const uint32_t dims[] = {64, 16, 80, 128, 40, 7, 256, 96, 1, 20};
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    struct shape s = {
        .n_kv = rng_range(g, 1, 3), .hd = dims[i % 10], .t = types[i % 3], .cached = i % 4 != 3};
    if (s.hd > 64)
        s.n_kv = MIN(s.n_kv, 2);
    s.n_heads = s.n_kv * (i % 10 == 5 ? 29 : rng_range(g, 1, s.hd > 64 ? 3 : 7));
    s.hd_v = s.cached && i % 11 == 5 ? s.hd / 2 + 1 : s.hd;
    s.cols = s.n_heads * s.hd + s.n_kv * (s.hd + s.hd_v);
    s.window = i % 5 == 1 ? rng_range(g, 1, 60) : 0;
    s.group_window = s.cached && i % 7 == 2;
    s.softcap = i % 6 == 4 ? 4.0f : 0;
    s.sink = i % 8 == 6;
    s.rel_span = i % 9 == 7 ? rng_range(g, 1, 40) : 0;
    s.norms = i % 3 == 1;
    s.rope = (enum rope_kind)(i % 3);
    s.rotary = s.rope ? (i % 4 == 1 ? s.hd / 2 : s.hd) / 2 * 2 : 0;
    if (i % 5 == 3 && s.rotary >= 4) { /* pairs shared between axes 0 and 2 */
        s.sections[0] = s.rotary / 4;
        s.sections[1] = s.rotary / 2 - s.rotary / 4;
    }
    return s;
}

/* past: K and V of the tokens before the batch, in canonical blocks; the same for both sides. */
static uint8_t *past_make(struct rng *g, const struct scene *sc, const struct shape *s) {
    size_t n = (size_t)sc->n_blocks * 2 * s->n_kv * (s->hd + s->hd_v) * 16;
    float *x = rng_floats(g, n, 1);
    uint8_t *p = as_type(x, n, s->t);
    free(x);
    return p;
}

struct result {
    float *qkv, *out;
    uint8_t *kv;
};

static struct result layer_run(struct rig r, const struct scene *sc, const struct shape *s, const float *x,
                               const float *eye, const float *inv_freq, const float *norm, const float *sinks,
                               const float *rel, const uint8_t *past) {
    struct result res = {0};
    char err[BE_ERR_BYTES];
    struct cache_group_spec spec = {.kind = s->group_window ? CACHE_WINDOW : CACHE_FULL,
                                    .n_layers = 2,
                                    .n_kv_heads = s->n_kv,
                                    .head_dim = s->hd,
                                    .head_dim_v = s->hd_v,
                                    .window = 33,
                                    .dtype = s->t};
    struct be_kv *kv = NULL;
    uint32_t n_rel = s->n_heads * (2 * s->rel_span + 1);
    uint32_t *blocks = malloc(sc->n_blocks * sizeof *blocks);
    CHECK(blocks);
    for (uint32_t i = 0; i < sc->n_blocks; i++)
        blocks[i] = i;
    if (s->cached) {
        kv = r.ops->kv_new(r.b, 0, &spec, sc->n_blocks, err);
        assert_non_null(kv);
        r.ops->kv_import(r.b, kv, blocks, sc->n_blocks, past);
    }
    struct rope_store rope = {.on = true,
                              .layer = s->cached,
                              .n_heads = s->n_heads,
                              .n_kv_heads = s->n_kv,
                              .head_dim = s->hd,
                              .rotary_dim = s->rotary,
                              .rope = s->rope,
                              .rope_scale = 1.1f,
                              .axis_sections = {s->sections[0], 0, s->sections[1]}};
    if (s->rope)
        rope.inv_freq = rig_vector(r, inv_freq, s->rotary / 2);
    if (s->norms) {
        rope.q_norm = (struct be_norm){.kind = NORM_RMS, .weight = rig_vector(r, norm, s->hd), .eps = 1e-2f};
        rope.k_norm = rope.q_norm;
    }
    struct be_mem *qkv = rig_mem(r, NULL, sc->n_tokens, s->cols);
    struct be_mem *out = rig_mem(r, NULL, sc->n_tokens, s->n_heads * s->hd_v);
    r.ops->plan(r.b, &sc->batch);
    assert_false(r.ops->begin(r.b));
    r.ops->gemm(r.b, &(struct op_gemm){.y = qkv,
                                       .x = rig_mem(r, x, sc->n_tokens, s->cols),
                                       .w = rig_weight(r, BE_W_LINEAR, eye, DT_F32, s->cols, s->cols),
                                       .rope = rope});
    r.ops->attn(r.b, &(struct op_attn){.out = out,
                                       .qkv = qkv,
                                       .layer = s->cached,
                                       .n_heads = s->n_heads,
                                       .n_kv_heads = s->n_kv,
                                       .head_dim = s->hd,
                                       .scale = 1 / sqrtf((float)s->hd),
                                       .softcap = s->softcap,
                                       .window = s->window,
                                       .sinks = s->sink ? rig_vector(r, sinks, s->n_heads) : NULL,
                                       .rel_bias = s->rel_span ? rig_vector(r, rel, n_rel) : NULL,
                                       .rel_span = s->rel_span});
    r.ops->end(r.b);
    assert_int_equal(r.ops->wait(r.b, err), 0);
    res.qkv = rig_get(r, qkv, sc->n_tokens, s->cols);
    res.out = rig_get(r, out, sc->n_tokens, s->n_heads * s->hd_v);
    if (s->cached) {
        uint64_t bytes = r.ops->kv_block_bytes(r.b, &spec);
        res.kv = malloc(sc->n_blocks * bytes);
        CHECK(res.kv);
        r.ops->kv_export(r.b, kv, blocks, sc->n_blocks, res.kv);
    }
    free(blocks);
    return res;
}

static void result_free(struct result *r) {
    free(r->qkv), free(r->out), free(r->kv);
}

/* The product is with the identity, so that what is left is rotation, store and attention. */
static void layer_case(struct rng *g, const struct scene *sc, const struct shape *s, int n_threads) {
    float *x = rng_floats(g, (size_t)sc->n_tokens * s->cols, 1),
          *eye = calloc((size_t)s->cols * s->cols, sizeof *eye);
    float *inv_freq = rng_floats(g, 128, 0.2f), *norm = rng_floats(g, s->hd, 1),
          *sinks = rng_floats(g, s->n_heads, 1),
          *rel = rng_floats(g, (size_t)s->n_heads * (2 * s->rel_span + 1), 1);
    uint8_t *past = past_make(g, sc, s);
    struct be_config cfg = {.n_tokens_max = TOKENS_MAX, .n_seqs_max = N_SEQS_MAX, .n_threads = n_threads};
    struct rig rig[2] = {rig_open(&ref_ops, cfg), rig_open(&tested_ops, cfg)};
    struct result res[2];
    CHECK(eye);
    for (uint32_t i = 0; i < s->cols; i++)
        eye[(size_t)i * s->cols + i] = 1;
    for (int i = 0; i < 2; i++)
        res[i] = layer_run(rig[i], sc, s, x, eye, inv_freq, norm, sinks, rel, past);
    size_t q_cols = (size_t)s->n_heads * s->hd;
    for (uint32_t t = 0; t < sc->n_tokens; t++)
        for (size_t c = 0; c < (s->cached ? q_cols : s->cols); c++) {
            size_t at = t * s->cols + c;
            /* a norm of hd elements, then two products and a sum: elements here are below 5, weights too */
            expect_near(res[1].qkv[at], res[0].qkv[at], (2.0 * s->hd + 16) * U * 50, "qkv", at);
        }
    size_t n_kv = s->cached ? (size_t)sc->n_blocks * 2 * s->n_kv * (s->hd + s->hd_v) * 16 : 0;
    double step = s->t == DT_F32   ? 0
                  : s->t == DT_F16 ? 0x1p-10
                                   : 0x1p-7; /* a rounding may fall to either side */
    for (size_t i = 0; i < n_kv; i++) {
        float a = f32_load(res[0].kv, s->t, i), b = f32_load(res[1].kv, s->t, i);
        expect_near(b, a, (2.0 * s->hd + 16) * U * 50 + step * fabsf(a), "kv", i);
    }
    for (size_t i = 0; i < (size_t)sc->n_tokens * s->n_heads * s->hd_v; i++) {
        /* scores of size |q||k| / sqrt(hd), at most about 25 * sqrt(hd) / 4 here, err by (hd + 8) u of that
         * on each side, and move weights and sum by as much; the weighted sum adds LEN_MAX u, values are
         * below 5. K and V that round to another 16-bit neighbour move the result by up to two steps of that
         * type. */
        double score = (s->rel_span ? 5 : 0) + (s->norms ? 12.0 * sqrt(s->hd) : 6.0 * sqrt(s->hd));
        double bound =
            (4 * (s->hd + 24.0) * score + 2 * LEN_MAX + 64) * U * 5 + step * 0.5 * (s->t != DT_F32);
        expect_near(res[1].out[i], res[0].out[i], bound, "out", i);
    }
    rig[0].ops->close(rig[0].b);
    rig[1].ops->close(rig[1].b);
    result_free(&res[0]);
    result_free(&res[1]);
    free(x), free(eye), free(inv_freq), free(norm), free(sinks), free(rel), free(past);
}

static void layers_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 31};
    static struct scene sc;
    for (int i = 0; i < N_CASES; i++) {
        struct shape s = shape_make(&g, i);
        scene_make(&g, &sc, rng_range(&g, 1, N_SEQS_MAX), i % 13 == 0 ? 700 : 60, i % 6 == 0 ? 70 : 12,
                   s.cached);
        for (uint32_t k = 0; k < sc.n_seqs; k++)
            sc.kind[k] = s.cached ? ATTN_CAUSAL : (uint8_t)rng_below(&g, 2);
        layer_case(&g, &sc, &s, 1 + i % 3);
        free(sc.table);
    }
}

/* One token over a long context: its parts are shared between threads. */
static void long_contexts_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 32};
    static struct scene sc;
    for (int i = 0; i < N_LONG; i++) {
        struct shape s = shape_make(&g, i % 2 ? 12 : 0);
        s.n_kv = 1;
        s.n_heads = 3;
        s.cols = 3 * s.hd + s.hd + s.hd_v;
        scene_make(&g, &sc, 1, LEN_MAX - 1, 1, true);
        layer_case(&g, &sc, &s, 3);
        free(sc.table);
    }
}

/* Encoders: whole sequences of their own rows, one K and V head for each query head, windows to both sides,
 * biases by distance; a batch of several tiles of each, and of single tokens. */
static void encoders_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 33};
    static struct scene sc;
    for (int i = 0; i < N_ENCODERS; i++) {
        struct shape s = {.hd = i % 2 ? 64 : 32, .n_kv = 2 + (uint32_t)i % 3, .t = DT_F32};
        s.n_heads = s.n_kv;
        s.hd_v = s.hd;
        s.cols = 3 * s.n_heads * s.hd;
        s.window = i % 4 == 2 ? rng_range(&g, 1, 40) : 0;
        s.rel_span = i % 4 == 3 ? rng_range(&g, 1, 200) : 0;
        s.rope = i % 4 == 1 ? ROPE_NEOX : ROPE_NONE;
        s.rotary = s.rope ? s.hd : 0;
        scene_make(&g, &sc, i % 8 == 0 ? 1 : N_SEQS_MAX, 0, i % 8 == 0 ? 390 : i % 8 == 5 ? 1 : 80, false);
        memset(sc.kind, ATTN_BIDIRECTIONAL, sizeof sc.kind);
        layer_case(&g, &sc, &s, 1 + i % 3);
        free(sc.table);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encoders_equal_reference),
        cmocka_unit_test(layers_equal_reference),
        cmocka_unit_test(long_contexts_equal_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
