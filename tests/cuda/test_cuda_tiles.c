/* The CUDA backend in 16 bits, on the emulated device: what runs on tensor cores, for few rows, from fp8, and out of
 * captured graphs; against f64, or against the same step taken another way.
 *
 * Inputs are what the type holds, sums are in f32, results are rounded once: so a result differs from the exact one by
 * half a step of the type (HALF of it) and the roundings of the sum. Where a value in between is rounded to the type,
 * too, the comment says so. */
#include "tests/parity/parity.h"

#define HALF(t) ((t) == DT_BF16 ? 0x1p-8 : 0x1p-11)

static const enum dtype types[] = {DT_BF16, DT_F16};

static struct rig open_type(enum dtype t, uint32_t n_tokens, uint32_t n_vocab) {
    return rig_open(&tested_ops, (struct be_config){.compute = t,
                                                    .n_tokens_max = n_tokens,
                                                    .n_seqs_max = n_tokens,
                                                    .n_rows_max = n_tokens,
                                                    .n_vocab = n_vocab});
}

/* values: n numbers that the type holds. */
static float *values(struct rng *g, size_t n, float scale, enum dtype t) {
    float *x = rng_floats(g, n, scale);
    free(as_type(x, n, t));
    return x;
}

static double dot(const float *x, const float *w, uint32_t n, double *magnitude) {
    double s = 0;
    *magnitude = 0;
    for (uint32_t k = 0; k < n; k++) {
        s += (double)x[k] * w[k];
        *magnitude += fabs((double)x[k] * w[k]);
    }
    return s;
}

/* Products of 1 to 200 rows: those of few rows, tiles with ragged edges; plain and added to. */
static void products(void **state) {
    (void)state;
    struct rng g = {.seed = 61};
    for (int i = 0; i < 16; i++) {
        enum dtype t = types[i % 2];
        uint32_t n = i < 12 ? (uint32_t)i + 1 : rng_range(&g, 9, 200), n_in = 16 * rng_range(&g, 1, 14),
                 cols = rng_range(&g, 1, 150);
        struct rig r = open_type(t, n, 0);
        float *x = values(&g, (size_t)n * n_in, 1, t), *w = values(&g, (size_t)cols * n_in, 0.2f, t),
              *add = values(&g, (size_t)n * cols, 1, t), *bias = rng_floats(&g, cols, 1);
        bool with_bias = i % 3 == 1, with_add = i % 3 > 0;
        struct be_mem *y = rig_mem(r, NULL, n, cols);
        r.ops->gemm(r.b, &(struct op_gemm){.y = y,
                                           .x = rig_mem(r, x, n, n_in),
                                           .w = rig_weight(r, BE_W_LINEAR, w, DT_F32, cols, n_in),
                                           .bias = with_bias ? rig_vector(r, bias, cols) : NULL,
                                           .add = with_add ? rig_mem(r, add, n, cols) : NULL,
                                           .n_rows = n});
        float *got = rig_get(r, y, n, cols);
        for (uint32_t k = 0; k < n * cols; k++) {
            double size, want = dot(x + k / cols * (size_t)n_in, w + k % cols * (size_t)n_in, n_in, &size);
            double inner = want + (with_bias ? bias[k % cols] : 0), all = inner + (with_add ? add[k] : 0);
            /* the sum may be rounded to the type before bias and residual */
            expect_near(got[k], all, HALF(t) * (fabs(all) + fabs(want) + fabs(inner)) + 2.0 * n_in * U * (size + 2), "y", k);
        }
        r.ops->close(r.b);
        free(x), free(w), free(add), free(bias), free(got);
    }
}

extern int emu_sm; /* tests/cuda/rt_emu.cc */

/* f8_error: the most by which a sum of x w may differ where both are rounded to e4m3, with factors of x's and w's largest
 * values: half of 2^-3 of a value, or half of the smallest step, 2^-9 of the factor. what: 1: x is, 2: w is. */
static double f8_error(const float *x, const float *w, uint32_t n, int what) {
    double x_max = 0, w_max = 0, sum = 0;
    for (uint32_t k = 0; k < n; k++) {
        x_max = fmax(x_max, fabs((double)x[k]));
        w_max = fmax(w_max, fabs((double)w[k]));
    }
    for (uint32_t k = 0; k < n; k++) {
        double xe = what & 1 ? fabs((double)x[k]) * 0x1p-4 + x_max / 448 * 0x1p-10 : 0;
        double we = what & 2 ? fabs((double)w[k]) * 0x1p-4 + w_max / 448 * 0x1p-10 : 0;
        sum += xe * fabs((double)w[k]) + we * fabs((double)x[k]) + xe * we;
    }
    return 1.001 * sum; /* the factors are rounded themselves */
}

/* f8_of: bits of e4m3 at random, and their value; no NaN. */
static float f8_of(struct rng *g, uint8_t *bits) {
    *bits = (uint8_t)rng_below(g, 256);
    *bits &= (*bits & 0x7F) == 0x7F ? 0xFE : 0xFF;
    int e = *bits >> 3 & 15;
    float v = e ? ldexpf(1 + (float)(*bits & 7) / 8, e - 7) : ldexpf((float)(*bits & 7) / 8, -6);
    return *bits & 0x80 ? -v : v;
}

/* A factor for each row; matrices that become fp8 when they are loaded; activations with a factor that is given; all of
 * it for few rows, which are taken as they are, and for many, which become fp8 too, with and without what follows. */
static void fp8_made(void **state) {
    (void)state;
    enum { N_IN = 160, COLS = 72 };
    struct rng g = {.seed = 66};
    for (int i = 0; i < 6; i++) {
        uint32_t n = i % 2 ? 3 : 70;
        bool made = i / 2 == 1, fixed = i / 2 == 2;
        struct rig r = open_type(DT_BF16, n, 0);
        float *x = values(&g, (size_t)n * N_IN, 1, DT_BF16), *add = values(&g, (size_t)n * COLS, 1, DT_BF16),
              *w = values(&g, COLS * N_IN, 0.2f, DT_BF16), scale[COLS];
        uint8_t *bits = malloc(COLS * N_IN);
        CHECK(bits);
        for (uint32_t c = 0; c < COLS && !made; c++) {
            scale[c] = 0.001f * (float)(1 + c % 9);
            for (uint32_t k = 0; k < N_IN; k++)
                w[c * N_IN + k] = f8_of(&g, &bits[c * N_IN + k]) * scale[c];
        }
        struct be_weight_src src = {.data = bits, .dtype = DT_F8E4M3, .rows = COLS, .cols = N_IN, .scale = scale,
                                    .scale_rows = true, .input_scale = fixed ? 0.0625f : 0};
        if (made)
            src = (struct be_weight_src){.data = w, .dtype = DT_F32, .rows = COLS, .cols = N_IN, .to_fp8 = true};
        char err[BE_ERR_BYTES] = "";
        struct be_w *wm = r.ops->weight(r.b, BE_W_LINEAR, &src, 1, err);
        assert_non_null(wm);
        assert_int_equal(r.ops->weight_bytes(wm), COLS * N_IN + COLS * sizeof(float));
        struct be_mem *y = rig_mem(r, NULL, n, COLS);
        r.ops->gemm(r.b, &(struct op_gemm){.y = y, .x = rig_mem(r, x, n, N_IN), .w = wm, .add = rig_mem(r, add, n, COLS),
                                           .n_rows = n});
        float *got = rig_get(r, y, n, COLS);
        for (uint32_t k = 0; k < n * COLS; k++) {
            const float *xr = x + k / COLS * (size_t)N_IN, *wr = w + k % COLS * (size_t)N_IN;
            double size, want = dot(xr, wr, N_IN, &size) + add[k];
            double bound = 2 * HALF(DT_BF16) * (fabs(want) + size) + f8_error(xr, wr, N_IN, (n > 8) + 2 * made);
            if (n > 8 && fixed) /* all values lie within 448 / 16, and the smallest step is 2^-9 / 16 */
                bound += size * 0x1p-4 + N_IN * 0x1p-14;
            expect_near(got[k], want, bound, "y", k);
        }
        r.ops->close(r.b);
        free(x), free(add), free(w), free(bits), free(got);
    }
}

/* Weights in fp8 with one scale, or one for each 128 x 128. Many rows are made fp8 as well, from sm_89 on. */
static void fp8_weights(void **state) {
    (void)state;
    struct rng g = {.seed = 62};
    for (int i = 0; i < 12; i++) {
        emu_sm = i < 8 ? 90 : 80;
        uint32_t n = i % 2 && i < 8 ? 3 : 40, n_in = i / 4 != 1 ? 160 : 256, cols = i / 4 != 1 ? 70 : 130;
        bool blocks = i / 4 == 1, glu = i % 4 >= 2;
        uint32_t n_out = glu ? 2 * cols : cols, per_row = (n_in + 127) / 128;
        struct rig r = open_type(DT_BF16, n, 0);
        float *x = values(&g, (size_t)n * n_in, 1, DT_BF16), *scale = rng_floats(&g, 64, 1), *w;
        uint8_t *bits = malloc((size_t)n_out * n_in);
        w = malloc((size_t)n_out * n_in * sizeof *w);
        CHECK(bits && w);
        for (int k = 0; k < 64; k++)
            scale[k] = 0.01f + fabsf(scale[k]);
        for (size_t k = 0; k < (size_t)n_out * n_in; k++) {
            uint32_t row = (uint32_t)(k / n_in), col = (uint32_t)(k % n_in);
            w[k] = f8_of(&g, &bits[k]) * (blocks ? scale[row / 128 * per_row + col / 128] : scale[row >= cols]);
        }
        struct be_weight_src src[2] = {{.data = bits, .dtype = DT_F8E4M3, .rows = n_out, .cols = n_in, .scale = scale,
                                        .scale_block = blocks ? 128 : 0}};
        if (glu && !blocks) { /* two tensors, each with a scale of its own */
            src[0].rows = cols;
            src[1] = src[0];
            src[1].data = bits + (size_t)cols * n_in;
            src[1].scale = scale + 1;
        } else if (glu) {
            src[0].n_rows = 128;
            src[1] = src[0];
            src[1].row0 = 128;
        }
        uint32_t taken = glu && blocks ? 128 : cols;
        char err[BE_ERR_BYTES] = "";
        struct be_w *wm = r.ops->weight(r.b, glu ? BE_W_GATE_UP : BE_W_LINEAR, src, glu ? 2 : 1, err);
        assert_non_null(wm);
        struct be_mem *y = rig_mem(r, NULL, n, taken);
        r.ops->gemm(r.b, &(struct op_gemm){.y = y, .x = rig_mem(r, x, n, n_in), .w = wm, .n_rows = n});
        float *got = rig_get(r, y, n, taken);
        for (uint32_t k = 0; k < n * taken; k++) {
            double size, up_size = 1, up = 1, de = 0, ue = 0;
            const float *xr = x + k / taken * (size_t)n_in, *wr = w + k % taken * (size_t)n_in;
            double gate = dot(xr, wr, n_in, &size);
            if (glu)
                up = dot(xr, wr + taken * (size_t)n_in, n_in, &up_size);
            if (n > 8 && emu_sm > 80) {
                de = f8_error(xr, wr, n_in, 1);
                ue = glu ? f8_error(xr, wr + taken * (size_t)n_in, n_in, 1) : 0;
            }
            /* else, for many rows, weights are widened to bf16; and sums are rounded before the product */
            double bound = 2 * HALF(DT_BF16) * (size + 1) * (up_size + 1) + 2 * HALF(DT_BF16) * fabs(gate * up) +
                           de * fabs(up) + ue * fabs(gate) + de * ue;
            expect_near(got[k], gate * up, bound, "y", k);
        }
        r.ops->close(r.b);
        free(x), free(scale), free(bits), free(w), free(got);
    }
    emu_sm = 90;
}

/* scene: sequences with a past in blocks that lie anywhere, and the queries of a step. */
enum { SEQS = 4, TOKENS = 160, STRIDE = 48 };
struct scene {
    struct batch batch;
    uint32_t start[SEQS + 1], kv_len[SEQS], tokens[TOKENS], slot[TOKENS], table[SEQS * STRIDE], rows[SEQS];
    int32_t pos[TOKENS];
    uint8_t kind[SEQS];
};

/* new_max 0: none, two, one and one: as many tokens as sequences, and yet no step of decodes. */
static void scene_make(struct rng *g, struct scene *s, uint32_t new_max, uint32_t past_max) {
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < SEQS * STRIDE; i++)
        s->table[i] = (i * 7 + 3) % (SEQS * STRIDE);
    for (uint32_t i = 0; i < SEQS; i++) {
        static const uint32_t uneven[SEQS] = {0, 2, 1, 1};
        uint32_t n = new_max ? rng_range(g, 1, new_max) : uneven[i], past = rng_below(g, past_max + 1);
        s->start[i + 1] = s->start[i] + n;
        s->kv_len[i] = past + n;
        for (uint32_t k = 0; k < n; k++) {
            s->pos[s->start[i] + k] = (int32_t)(past + k);
            s->slot[s->start[i] + k] = s->table[i * STRIDE + (past + k) / 16] * 16 + (past + k) % 16;
        }
    }
    s->batch = (struct batch){.n_tokens = s->start[SEQS],
                              .n_seqs = SEQS,
                              .n_axes = 1,
                              .n_groups = 1,
                              .tokens = s->tokens,
                              .pos = s->pos,
                              .seq_start = s->start,
                              .kv_len = s->kv_len,
                              .kind = s->kind,
                              .n_rows = SEQS,
                              .rows = s->rows};
    s->batch.group[0].table = s->table;
    s->batch.group[0].table_stride = STRIDE;
    s->batch.group[0].slot = s->slot;
}

struct layer {
    uint32_t n_heads, n_kv, dim, window;
    float softcap;
    bool sinks;
};

/* attention_f64: one query and head over the cache, canonical blocks [block][k, v][head][16][dim]; *size: of a value. */
static void attention_f64(const struct scene *s, const struct layer *l, const float *kv, const float *q, uint32_t seq,
                          uint32_t at, uint32_t head, float sink, double *out, double *size) {
    uint32_t lo = l->window && at + 1 > l->window ? at + 1 - l->window : 0, g = head / (l->n_heads / l->n_kv);
    double p[1024], max = l->sinks ? sink : -INFINITY, sum = 0;
    size_t block = 2 * (size_t)l->n_kv * 16 * l->dim;
    *size = 0;
    for (uint32_t j = lo; j <= at; j++) {
        const float *k = kv + s->table[seq * STRIDE + j / 16] * block + ((size_t)g * 16 + j % 16) * l->dim;
        double m;
        p[j] = dot(q, k, l->dim, &m) * 0.11;
        if (l->softcap > 0)
            p[j] = l->softcap * tanh(p[j] / l->softcap);
        max = fmax(max, p[j]);
    }
    for (uint32_t j = lo; j <= at; j++)
        sum += p[j] = exp(p[j] - max);
    sum += l->sinks ? exp(sink - max) : 0;
    for (uint32_t d = 0; d < l->dim; d++) {
        out[d] = 0;
        for (uint32_t j = lo; j <= at; j++) {
            float v = kv[s->table[seq * STRIDE + j / 16] * block + ((size_t)(l->n_kv + g) * 16 + j % 16) * l->dim + d];
            out[d] += p[j] / sum * v;
            *size = fmax(*size, fabs((double)v));
        }
    }
}

static void attention_case(struct rng *g, enum dtype t, enum dtype cache, const struct layer *l, uint32_t new_max,
                           uint32_t past_max) {
    static struct scene s;
    scene_make(g, &s, new_max, past_max);
    uint32_t n = s.batch.n_tokens, cols = (l->n_heads + 2 * l->n_kv) * l->dim, n_blocks = SEQS * STRIDE, blocks[SEQS * STRIDE];
    struct rig r = open_type(t, TOKENS, 0);
    struct cache_group_spec spec = {
        .kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = l->n_kv, .head_dim = l->dim, .dtype = cache};
    char err[BE_ERR_BYTES] = "";
    struct be_kv *kv = r.ops->kv_new(r.b, 0, &spec, n_blocks, err);
    assert_non_null(kv);
    size_t n_cache = (size_t)n_blocks * 2 * l->n_kv * 16 * l->dim;
    float *past = rng_floats(g, n_cache, 1), *qkv = values(g, (size_t)n * cols, 1, t), *sinks = rng_floats(g, l->n_heads, 1);
    uint8_t *stored;
    const float k_scale = cache == DT_F8E4M3 ? 2 : 0, v_scale = cache == DT_F8E4M3 ? 0.5f : 0;
    if (cache == DT_F8E4M3) { /* small integers are what e4m3 holds; their bits are worked out by hand */
        stored = malloc(n_cache);
        CHECK(stored);
        for (size_t i = 0; i < n_cache; i++) {
            past[i] = (float)(i % 7) - 3;
            static const uint8_t of[] = {0x00, 0x38, 0x40, 0x44};
            stored[i] = (uint8_t)(of[abs((int)past[i])] | (past[i] < 0 ? 0x80 : 0));
        }
        for (size_t i = 0; i < (size_t)n * cols; i++)
            qkv[i] = (float)(i % 5) - 2;
    } else {
        stored = as_type(past, n_cache, cache);
    }
    for (uint32_t i = 0; i < n_blocks; i++)
        blocks[i] = i;
    r.ops->kv_import(r.b, kv, blocks, n_blocks, stored);
    for (size_t i = 0; cache == DT_F8E4M3 && i < n_cache; i++) /* what the bits stand for, keys first */
        past[i] *= i / (16 * l->dim) % (2 * l->n_kv) < l->n_kv ? k_scale : v_scale;
    r.ops->plan(r.b, &s.batch);
    /* the product with the identity leaves the rows as they are; the tail stores keys and values */
    float *eye = calloc((size_t)cols * cols, sizeof *eye);
    CHECK(eye);
    for (uint32_t i = 0; i < cols; i++)
        eye[(size_t)i * cols + i] = 1;
    struct be_mem *row = rig_mem(r, NULL, n, cols), *out = rig_mem(r, NULL, n, l->n_heads * l->dim);
    r.ops->gemm(r.b, &(struct op_gemm){.y = row,
                                       .x = rig_mem(r, qkv, n, cols),
                                       .w = rig_weight(r, BE_W_LINEAR, eye, DT_F32, cols, cols),
                                       .rope = {.on = true, .n_heads = l->n_heads, .n_kv_heads = l->n_kv, .head_dim = l->dim,
                                                .k_scale = k_scale, .v_scale = v_scale}});
    r.ops->attn(r.b, &(struct op_attn){.out = out,
                                       .qkv = row,
                                       .n_heads = l->n_heads,
                                       .n_kv_heads = l->n_kv,
                                       .head_dim = l->dim,
                                       .scale = 0.11f,
                                       .softcap = l->softcap,
                                       .window = l->window,
                                       .sinks = l->sinks ? rig_vector(r, sinks, l->n_heads) : NULL,
                                       .k_scale = k_scale,
                                       .v_scale = v_scale});
    float *got = rig_get(r, out, n, l->n_heads * l->dim);
    for (uint32_t seq = 0; seq < SEQS; seq++) /* the step's own keys and values */
        for (uint32_t k = s.start[seq]; k < s.start[seq + 1]; k++)
            for (uint32_t h = 0; h < 2 * l->n_kv; h++)
                memcpy(past + ((size_t)(s.slot[k] / 16) * 2 * l->n_kv * 16 + (size_t)h * 16 + s.slot[k] % 16) * l->dim,
                       qkv + (size_t)k * cols + (l->n_heads + h) * l->dim, l->dim * sizeof *past);
    double want[256], size;
    for (uint32_t seq = 0; seq < SEQS; seq++)
        for (uint32_t k = s.start[seq]; k < s.start[seq + 1]; k++)
            for (uint32_t h = 0; h < l->n_heads; h++) {
                attention_f64(&s, l, past, qkv + (size_t)k * cols + h * l->dim, seq, (uint32_t)s.pos[k], h, sinks[h], want,
                              &size);
                for (uint32_t d = 0; d < l->dim; d++) /* weights are rounded to the type, and so is the result */
                    expect_near(got[((size_t)k * l->n_heads + h) * l->dim + d], want[d], 2.5 * HALF(t) * size + 1e-4, "out",
                                ((size_t)k * l->n_heads + h) * l->dim + d);
            }
    r.ops->close(r.b);
    free(past), free(qkv), free(sinks), free(stored), free(eye), free(got);
}

static void attention(void **state) {
    (void)state;
    struct rng g = {.seed = 63};
    static const struct layer layers[] = {
        {4, 2, 64, 0, 0, false},  {8, 2, 128, 0, 0, false}, {3, 1, 96, 0, 0, true},   {2, 2, 256, 0, 0, false},
        {4, 4, 64, 37, 0, false}, {6, 2, 64, 0, 5, false},  {20, 1, 64, 70, 0, true}, {4, 1, 80, 0, 0, false},
    };
    for (int i = 0; i < 8; i++) {
        for (emu_sm = 89; emu_sm <= 90; emu_sm++) /* without and with products of warpgroups */
            attention_case(&g, types[i % 2], types[i % 2], &layers[i], 24, i % 3 ? 60 : 0);
        emu_sm = 90;
        attention_case(&g, types[i % 2], types[i % 2], &layers[i], 1, 400); /* decodes, split */
        if (i % 3 == 0)
            attention_case(&g, types[i % 2], types[i % 2], &layers[i], 0, 400);
    }
    emu_sm = 90;
    for (int i = 1; i < 4; i++) /* enough keys to use every place for them twice */
        attention_case(&g, types[(i + 1) % 2], types[(i + 1) % 2], &layers[i], 2, 450);
    for (emu_sm = 89; emu_sm <= 90; emu_sm++)
        attention_case(&g, DT_BF16, DT_F8E4M3, &layers[0], 8, 90);
    emu_sm = 90;
    attention_case(&g, DT_F16, DT_F8E4M3, &layers[2], 1, 90);
}

/* A step that only decodes is captured the second time it comes, and then runs from its graph, with other tokens and
 * fewer sequences: each must equal, to the bit, what a handle without graphs computes. */
static void graphs(void **state) {
    (void)state;
    struct rng g = {.seed = 64};
    enum { HIDDEN = 64, DIM = 64, HEADS = 2, VOCAB = 96, COLS = 4 * DIM };
    float *e = rng_floats(&g, VOCAB * HIDDEN, 1), *qkv_w = rng_floats(&g, COLS * HIDDEN, 0.1f),
          *o_w = rng_floats(&g, HIDDEN * HEADS * DIM, 0.1f), got[2][VOCAB];
    struct rig rig[2];
    struct be_mem *x[2], *row[2], *attn[2];
    struct be_w *embed[2], *qkv[2], *o[2];
    struct sample_out out[2][SEQS] = {0};
    char err[BE_ERR_BYTES] = "";
    for (int i = 0; i < 2; i++) {
        rig[i] = rig_open(&tested_ops, (struct be_config){.compute = DT_BF16,
                                                          .n_tokens_max = 16,
                                                          .n_seqs_max = 16,
                                                          .n_rows_max = 16,
                                                          .n_vocab = VOCAB,
                                                          .eager = i == 0});
        struct cache_group_spec spec = {
            .kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = 1, .head_dim = DIM, .dtype = DT_BF16};
        assert_non_null(rig[i].ops->kv_new(rig[i].b, 0, &spec, SEQS * STRIDE, err));
        embed[i] = rig_weight(rig[i], BE_W_EMBED, e, DT_F32, VOCAB, HIDDEN);
        qkv[i] = rig_weight(rig[i], BE_W_LINEAR, qkv_w, DT_F32, COLS, HIDDEN);
        o[i] = rig_weight(rig[i], BE_W_LINEAR, o_w, DT_F32, HIDDEN, HEADS * DIM);
        x[i] = rig_mem(rig[i], NULL, 16, HIDDEN);
        row[i] = rig_mem(rig[i], NULL, 16, COLS);
        attn[i] = rig_mem(rig[i], NULL, 16, HEADS * DIM);
    }
    int n_launched = 0;
    uint32_t n_last = 0;
    for (uint32_t step = 0; step < 24; step++) {
        static struct scene s;
        uint32_t n = step % 5 == 4 ? 3 : SEQS, rows[SEQS], from[SEQS];
        scene_make(&g, &s, 1, 0);
        for (uint32_t i = 0; i < SEQS; i++) {
            s.pos[i] = (int32_t)step;
            s.kv_len[i] = step + 1;
            s.slot[i] = s.table[i * STRIDE + step / 16] * 16 + step % 16;
            s.tokens[i] = rng_below(&g, VOCAB);
            rows[i] = i;
            from[i] = i % 2 && i < n_last ? i + 1 : 0;
        }
        s.batch.n_seqs = s.batch.n_tokens = s.batch.n_rows = n;
        s.batch.rows = rows;
        s.batch.from_row = from;
        for (int i = 0; i < 2; i++) {
            const struct be_ops *ops = rig[i].ops;
            struct be *b = rig[i].b;
            ops->plan(b, &s.batch);
            bool launched = ops->begin(b);
            n_launched += launched;
            if (!launched) {
                ops->embed(b, &(struct op_embed){.y = x[i], .tokens = embed[i], .cols = HIDDEN});
                ops->gemm(b, &(struct op_gemm){.y = row[i],
                                               .x = x[i],
                                               .w = qkv[i],
                                               .rope = {.on = true, .n_heads = HEADS, .n_kv_heads = 1, .head_dim = DIM}});
                ops->attn(b, &(struct op_attn){.out = attn[i], .qkv = row[i], .n_heads = HEADS, .n_kv_heads = 1,
                                               .head_dim = DIM, .scale = 0.1f});
                ops->gemm(b, &(struct op_gemm){.y = x[i], .x = attn[i], .w = o[i], .add = x[i]});
                ops->logits(b, &(struct op_logits){.x = x[i], .w = embed[i]});
            }
            ops->end(b);
            /* what rows bring along grows step by step; graphs outlive that */
            struct sample_row greedy[SEQS];
            struct sample_seen seen[VOCAB];
            for (uint32_t k = 0; k < VOCAB; k++)
                seen[k] = (struct sample_seen){.id = k, .n_output = 1};
            for (uint32_t k = 0; k < SEQS; k++)
                greedy[k] = (struct sample_row){.top_p = 1, .presence_penalty = 0.01f, .seen = seen, .n_seen = 4 * step};
            ops->sample(b, greedy, out[i], n);
            rig_wait(rig[i]);
        }
        for (uint32_t k = 0; k < n; k++) {
            for (int i = 0; i < 2; i++)
                rig[i].ops->logits_get(rig[i].b, k, got[i]);
            assert_memory_equal(got[0], got[1], sizeof got[0]);
            assert_int_equal(out[0][k].id, out[1][k].id);
        }
        n_last = n;
    }
    assert_true(n_launched > 11); /* all but a first and a second one for each rung of sizes and lengths */
    for (int i = 0; i < 2; i++)
        rig[i].ops->close(rig[i].b);
    free(e), free(qkv_w), free(o_w);
}

/* Weights that several threads take to the device, whole and cut by columns: rows around every border of theirs. */
static void large_weights(void **state) {
    (void)state;
    enum { ROWS = 4096, COLS = 640, CUT = 512, COL0 = 64, N = 64 };
    struct rng g = {.seed = 65};
    float *x = rng_floats(&g, (size_t)ROWS * COLS, 1);
    void *bits = as_type(x, (size_t)ROWS * COLS, DT_BF16);
    for (uint32_t cut = 0; cut < 2; cut++) {
        struct rig r = rig_open(&tested_ops, (struct be_config){.compute = DT_BF16, .n_threads = 4, .n_tokens_max = N,
                                                                .n_seqs_max = 1, .n_rows_max = 1, .n_vocab = ROWS});
        uint32_t col0 = cut ? COL0 : 0, cols = cut ? CUT : COLS, tokens[N], start[] = {0, N}, kv_len[] = {N};
        int32_t pos[N];
        char err[BE_ERR_BYTES] = "";
        struct be_weight_src src = {.data = bits, .dtype = DT_BF16, .rows = ROWS, .cols = COLS, .col0 = col0, .n_cols = cols};
        struct be_w *w = r.ops->weight(r.b, BE_W_EMBED, &src, 1, err);
        assert_non_null(w);
        for (uint32_t i = 0; i < N; i++) {
            tokens[i] = MIN((i / 2 + 1) * ROWS / (N / 2), ROWS - 1u) - i % 2;
            pos[i] = (int32_t)i;
        }
        struct batch b = {.n_tokens = N, .n_seqs = 1, .n_axes = 1, .tokens = tokens, .pos = pos, .seq_start = start,
                          .kv_len = kv_len};
        struct be_mem *y = rig_mem(r, NULL, N, cols);
        r.ops->plan(r.b, &b);
        r.ops->embed(r.b, &(struct op_embed){.y = y, .tokens = w, .cols = cols});
        float *got = rig_get(r, y, N, cols);
        for (uint32_t i = 0; i < N; i++)
            assert_memory_equal(got + (size_t)i * cols, x + (size_t)tokens[i] * COLS + col0, cols * sizeof *got);
        free(got);
        r.ops->close(r.b);
    }
    free(x), free(bits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(fp8_weights),
        cmocka_unit_test(fp8_made),
        cmocka_unit_test(attention),
        cmocka_unit_test(graphs),
        cmocka_unit_test(large_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
