#include "worker/selftest.h"

#include <math.h>
#include <stdlib.h>

#include "worker/device.h"
#include "worker/selftest_private.h"

#define ROUND 0x1p-24

uint32_t selftest_below(struct selftest *t, uint32_t n) {
    return (uint32_t)((be_philox64(t->seed, t->count++) >> 32) * n >> 32);
}

/* rounded: to the nearest that act holds, ties to even, by adding and taking away a number of the right size. */
static float rounded(enum dtype act, float x) {
    if (act == DT_F32 || x == 0)
        return x;
    int e;
    frexpf(x, &e);
    float unit = ldexpf(1, e - (act == DT_BF16 ? 8 : 11));
    return rintf(x / unit) * unit;
}

float *selftest_floats(struct selftest *t, size_t n, float scale) {
    float *x = xreallocarray(NULL, n + 1, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        uint64_t r = be_philox64(t->seed, t->count++);
        float s = 0;
        for (int k = 0; k < 4; k++)
            s += (float)(r >> 16 * k & 0xFFFF) / 65536.0f - 0.5f;
        x[i] = rounded(t->act, s * 1.7320508f * scale);
    }
    return x;
}

void selftest_near(struct selftest *t, double got, double want, double bound) {
    double share = fabs(got - want) / bound;
    if (!(share <= t->worst)) /* a NaN, too */
        t->worst = isnan(share) ? INFINITY : share;
}

struct be_mem *selftest_mem(struct selftest *t, const float *x, uint32_t rows, uint32_t cols) {
    struct be_mem *m = t->ops->mem_new(t->b, rows, cols, DT_NONE);
    float *poison = NULL;
    CHECK(m);
    if (!x) {
        poison = xreallocarray(NULL, (size_t)rows * cols + 1, sizeof *poison);
        for (size_t i = 0; i < (size_t)rows * cols; i++)
            poison[i] = NAN;
    }
    t->ops->mem_put(t->b, m, 0, rows, x ? x : poison);
    free(poison);
    return m;
}

struct be_w *selftest_weight(struct selftest *t, enum be_weight_kind kind, const float *x, uint32_t rows, uint32_t cols) {
    bool pair = kind == BE_W_GATE_UP;
    struct be_weight_src src[2] = {{.data = x, .dtype = DT_F32, .rows = rows, .cols = cols, .n_rows = pair ? rows / 2 : 0}};
    char err[BE_ERR_BYTES] = "";
    src[1] = src[0];
    src[1].row0 = rows / 2;
    struct be_w *w = t->ops->weight(t->b, kind, src, pair ? 2 : 1, err);
    if (!w)
        snprintf(t->error, sizeof t->error, "%.120s", err);
    return w;
}

float *selftest_get(struct selftest *t, const struct be_mem *m, uint32_t rows, uint32_t cols) {
    float *x = xreallocarray(NULL, (size_t)rows * cols + 1, sizeof *x);
    t->ops->mem_get(t->b, m, 0, rows, x);
    return x;
}

/* dot: and the sum of magnitudes. */
static double dot(const double *x, const float *w, uint32_t n, double *size) {
    double s = 0;
    *size = 0;
    for (uint32_t k = 0; k < n; k++) {
        s += x[k] * w[k];
        *size += fabs(x[k] * w[k]);
    }
    return s;
}

/* normed: a row through an RMS norm with weights w; w NULL: as it is. */
static void normed(double *y, const float *x, const float *w, uint32_t n) {
    double sq = 0;
    for (uint32_t k = 0; k < n; k++)
        sq += (double)x[k] * x[k] / n;
    for (uint32_t k = 0; k < n; k++)
        y[k] = w ? x[k] / sqrt(sq + 1e-6) * w[k] : x[k];
}

static double silu(double x) {
    return x / (1 + exp(-x));
}

/* Products of one row and of many, plain, with a norm, a bias and a residual, and gated. */
static void gemm(struct selftest *t) {
    for (uint32_t i = 0; i < 12; i++) {
        uint32_t n = i % 3 == 0 ? 1 : 1 + selftest_below(t, SELFTEST_TOKENS), n_in = 16 * (1 + selftest_below(t, 40)),
                 cols = 1 + selftest_below(t, 300);
        bool gated = i % 4 == 1, with_norm = i % 2, extra = i % 4 >= 2;
        uint32_t n_out = gated ? 2 * cols : cols;
        float *x = selftest_floats(t, (size_t)n * n_in, 1), *w = selftest_floats(t, (size_t)n_out * n_in, 0.1f);
        float *nw = selftest_floats(t, n_in, 1), *bias = selftest_floats(t, n_out, 1), *add = selftest_floats(t, (size_t)n * cols, 1);
        struct be_mem *xm = selftest_mem(t, x, n, n_in), *y = selftest_mem(t, NULL, n, cols),
                      *am = selftest_mem(t, add, n, cols);
        struct be_w *wm = selftest_weight(t, gated ? BE_W_GATE_UP : BE_W_LINEAR, w, n_out, n_in),
                    *nm = selftest_weight(t, BE_W_VECTOR, nw, 1, n_in), *bm = selftest_weight(t, BE_W_VECTOR, bias, 1, n_out);
        struct op_gemm op = {.y = y, .x = xm, .w = wm, .n_rows = n, .act = gated ? ACT_SILU : ACT_NONE};
        if (with_norm)
            op.norm = (struct be_norm){.kind = NORM_RMS, .weight = nm, .eps = 1e-6f};
        if (extra) {
            op.bias = bm;
            op.add = am;
        }
        t->ops->gemm(t->b, &op);
        float *got = selftest_get(t, y, n, cols);
        double *row = xreallocarray(NULL, n_in, sizeof *row), size, up_size = 1;
        for (uint32_t r = 0; r < n; r++) {
            normed(row, x + (size_t)r * n_in, with_norm ? nw : NULL, n_in);
            for (uint32_t c = 0; c < cols; c++) {
                double v = dot(row, w + (size_t)c * n_in, n_in, &size) + (extra ? bias[c] : 0), up = 1;
                if (gated) {
                    up = dot(row, w + (size_t)(cols + c) * n_in, n_in, &up_size);
                    v = silu(v) * up;
                }
                v += extra ? add[(size_t)r * cols + c] : 0;
                /* rows behind a norm and sums in front of a tail are rounded to the type, the result is, too */
                double bound = (4 * t->half + 6.0 * n_in * ROUND) * (size + 2) * (gated ? up_size + 1 : 1) + 2 * t->half * fabs(v);
                selftest_near(t, got[(size_t)r * cols + c], v, bound);
            }
        }
        t->ops->mem_free(t->b, xm), t->ops->mem_free(t->b, y), t->ops->mem_free(t->b, am);
        t->ops->weight_free(t->b, wm), t->ops->weight_free(t->b, nm), t->ops->weight_free(t->b, bm);
        free(x), free(w), free(nw), free(bias), free(add), free(got), free(row);
    }
}

static void norm(struct selftest *t) {
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t n = 1 + selftest_below(t, SELFTEST_TOKENS), cols = 1 + selftest_below(t, 700);
        float *x = selftest_floats(t, (size_t)n * cols, 2), *w = selftest_floats(t, cols, 1), *add = selftest_floats(t, (size_t)n * cols, 1);
        struct be_mem *xm = selftest_mem(t, x, n, cols), *y = selftest_mem(t, NULL, n, cols), *am = selftest_mem(t, add, n, cols);
        struct be_w *wm = selftest_weight(t, BE_W_VECTOR, w, 1, cols);
        t->ops->norm(t->b, &(struct op_norm){.y = y,
                                             .x = xm,
                                             .norm = {.kind = NORM_RMS, .weight = wm, .eps = 1e-6f},
                                             .add = i % 2 ? am : NULL,
                                             .cols = cols,
                                             .n_rows = n});
        float *got = selftest_get(t, y, n, cols);
        double *row = xreallocarray(NULL, cols, sizeof *row);
        for (uint32_t r = 0; r < n; r++) {
            normed(row, x + (size_t)r * cols, w, cols);
            for (uint32_t c = 0; c < cols; c++) {
                double v = row[c] + (i % 2 ? add[(size_t)r * cols + c] : 0);
                selftest_near(t, got[(size_t)r * cols + c], v, t->half * fabs(v) + (cols + 16.0) * ROUND * (fabs(row[c]) + 1));
            }
        }
        t->ops->mem_free(t->b, xm), t->ops->mem_free(t->b, y), t->ops->mem_free(t->b, am), t->ops->weight_free(t->b, wm);
        free(x), free(w), free(add), free(got), free(row);
    }
}

/* Embedding, then logits of chosen rows over the same table. */
static void embed_and_logits(struct selftest *t) {
    enum { COLS = 128, N = 40 };
    uint32_t tokens[N], rows[N], starts[2] = {0, N};
    int32_t pos[N];
    float *e = selftest_floats(t, (size_t)SELFTEST_VOCAB * COLS, 1), *got = xreallocarray(NULL, SELFTEST_VOCAB, sizeof *got);
    for (uint32_t i = 0; i < N; i++) {
        tokens[i] = selftest_below(t, SELFTEST_VOCAB);
        rows[i] = N - 1 - i;
        pos[i] = (int32_t)i;
    }
    struct be_w *table = selftest_weight(t, BE_W_EMBED, e, SELFTEST_VOCAB, COLS);
    struct be_mem *x = selftest_mem(t, NULL, N, COLS);
    t->ops->plan(t->b, &(struct batch){.n_tokens = N,
                                       .n_seqs = 1,
                                       .n_rows = N,
                                       .n_axes = 1,
                                       .tokens = tokens,
                                       .pos = pos,
                                       .seq_start = starts,
                                       .rows = rows});
    t->ops->embed(t->b, &(struct op_embed){.y = x, .tokens = table, .cols = COLS});
    float *there = selftest_get(t, x, N, COLS);
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t c = 0; c < COLS; c++)
            selftest_near(t, there[i * COLS + c], e[(size_t)tokens[i] * COLS + c], 1e-30);
    t->ops->logits(t->b, &(struct op_logits){.x = x, .w = table, .scale = 0.25f, .softcap = 30});
    for (uint32_t r = 0; r < N; r++) {
        double row[COLS], size;
        t->ops->logits_get(t->b, r, got);
        normed(row, e + (size_t)tokens[rows[r]] * COLS, NULL, COLS);
        for (uint32_t c = 0; c < SELFTEST_VOCAB; c++) {
            double v = 0.25 * dot(row, e + (size_t)c * COLS, COLS, &size);
            selftest_near(t, got[c], 30 * tanh(v / 30), (2.0 * COLS + 16) * ROUND * (size + 1));
        }
    }
    t->ops->mem_free(t->b, x), t->ops->weight_free(t->b, table);
    free(e), free(got), free(there);
}

/* Ids and reports of the device against those of plain C, for equal logits: ids to the bit. */
static void sample(struct selftest *t) {
    enum { ROWS = 24, TOP = 5 };
    struct be *ref = NULL;
    char err[BE_ERR_BYTES] = "";
    struct be_config cfg = {.n_threads = 1, .n_tokens_max = 1, .n_seqs_max = 1, .n_rows_max = ROWS, .n_vocab = SELFTEST_VOCAB};
    if (ref_ops.open(&ref, &cfg, err) != 0) {
        snprintf(t->error, sizeof t->error, "%.120s", err);
        return;
    }
    struct sample_row rows[ROWS];
    struct sample_out out[2][ROWS];
    uint32_t ids[2][ROWS][TOP];
    float values[2][ROWS][TOP];
    memset(rows, 0, sizeof rows);
    for (uint32_t r = 0; r < ROWS; r++) {
        float *l = selftest_floats(t, SELFTEST_VOCAB, 3);
        rows[r] = (struct sample_row){.temperature = r % 4 ? 0.7f + 0.1f * (float)(r % 5) : 0,
                                      .top_p = r % 3 ? 1 : 0.8f,
                                      .top_k = r % 5 == 1 ? 12 : 0,
                                      .min_p = r % 7 == 2 ? 0.05f : 0,
                                      .repetition_penalty = 1,
                                      .seed = t->seed + r,
                                      .position = r,
                                      .n_top = TOP,
                                      .want_logprob = true};
        for (int side = 0; side < 2; side++) {
            out[side][r] = (struct sample_out){.top_ids = ids[side][r], .top_logprobs = values[side][r]};
            (side ? t->ops : &ref_ops)->logits_put(side ? t->b : ref, r, l);
        }
        free(l);
    }
    ref_ops.sample(ref, rows, out[0], ROWS);
    t->ops->sample(t->b, rows, out[1], ROWS);
    if (t->ops->wait(t->b, err) != 0)
        snprintf(t->error, sizeof t->error, "%.120s", err);
    for (uint32_t r = 0; r < ROWS && !t->error[0]; r++) {
        if (out[0][r].id != out[1][r].id || out[0][r].rank != out[1][r].rank || memcmp(ids[0][r], ids[1][r], sizeof ids[0][r]))
            snprintf(t->error, sizeof t->error, "row %u: token %u instead of %u", r, out[1][r].id, out[0][r].id);
        for (int k = 0; k < TOP; k++)
            selftest_near(t, values[1][r][k], values[0][r][k], 2e-6);
        selftest_near(t, out[1][r].logprob, out[0][r].logprob, 2e-6);
    }
    ref_ops.close(ref);
}

/* A mixture of experts: 7 experts, 2 of them a row. */
static void moe(struct selftest *t) {
    enum { N = 21, COLS = 64, INNER = 48, E = 7, K = 2 };
    uint32_t starts[2] = {0, N};
    float *x = selftest_floats(t, N * COLS, 1), *router = selftest_floats(t, E * COLS, 0.3f),
          *up = selftest_floats(t, (size_t)E * 2 * INNER * COLS, 0.1f), *down = selftest_floats(t, (size_t)E * COLS * INNER, 0.1f);
    struct be_weight_src ups[2 * E], downs[E];
    char err[BE_ERR_BYTES] = "";
    for (int e = 0; e < E; e++) {
        for (int h = 0; h < 2; h++)
            ups[2 * e + h] = (struct be_weight_src){.data = up + (size_t)(2 * e + h) * INNER * COLS, .dtype = DT_F32, .rows = INNER, .cols = COLS};
        downs[e] = (struct be_weight_src){.data = down + (size_t)e * COLS * INNER, .dtype = DT_F32, .rows = COLS, .cols = INNER};
    }
    struct be_w *rw = selftest_weight(t, BE_W_LINEAR, router, E, COLS), *uw = t->ops->weight(t->b, BE_W_EXPERTS_GATE_UP, ups, 2 * E, err),
                *dw = t->ops->weight(t->b, BE_W_EXPERTS, downs, E, err);
    struct be_mem *xm = selftest_mem(t, x, N, COLS), *y = selftest_mem(t, NULL, N, COLS);
    CHECK(rw && uw && dw);
    t->ops->plan(t->b, &(struct batch){.n_tokens = N, .n_seqs = 1, .seq_start = starts});
    t->ops->moe(t->b, &(struct op_moe){.y = y, .x = xm, .router = rw, .gate_up = uw, .down = dw, .n_experts = E, .top_k = K,
                                       .renorm = true, .act = ACT_SILU});
    float *got = selftest_get(t, y, N, COLS);
    for (uint32_t r = 0; r < N; r++) {
        double row[COLS], p[E], size, sum = 0, want[COLS] = {0}, scale[COLS] = {0};
        int best[K] = {0};
        normed(row, x + r * COLS, NULL, COLS);
        for (int e = 0; e < E; e++)
            p[e] = dot(row, router + e * COLS, COLS, &size);
        for (int k = 0; k < K; k++) {
            best[k] = k && best[0] == 0;
            for (int e = 0; e < E; e++)
                if (!(k && e == best[0]) && p[e] > p[best[k]])
                    best[k] = e;
            sum += exp(p[best[k]] - p[best[0]]);
        }
        for (int k = 0; k < K; k++) {
            double h[INNER], h_size = 0, g = exp(p[best[k]] - p[best[0]]) / sum;
            for (int i = 0; i < INNER; i++) {
                const float *gate = up + ((size_t)best[k] * 2 * INNER + i) * COLS;
                h[i] = silu(dot(row, gate, COLS, &size)) * dot(row, gate + (size_t)INNER * COLS, COLS, &size);
                h_size = fmax(h_size, fabs(h[i]));
            }
            for (int c = 0; c < COLS; c++) {
                want[c] += g * dot(h, down + ((size_t)best[k] * COLS + c) * INNER, INNER, &size);
                scale[c] += g * (size + h_size);
            }
        }
        for (int c = 0; c < COLS; c++)
            selftest_near(t, got[r * COLS + c], want[c], (6 * t->half + 400 * ROUND) * (scale[c] + 0.5));
    }
    t->ops->mem_free(t->b, xm), t->ops->mem_free(t->b, y);
    t->ops->weight_free(t->b, rw), t->ops->weight_free(t->b, uw), t->ops->weight_free(t->b, dw);
    free(x), free(router), free(up), free(down), free(got);
}

static const struct {
    const char *name;
    void (*run)(struct selftest *t);
} checks[] = {
    {"gemm", gemm},       {"norm", norm},           {"embed, logits", embed_and_logits}, {"rope, attention", selftest_attn},
    {"cache blocks", selftest_blocks}, {"experts", moe}, {"sample", sample},
};

enum rc selftest(const char *device, int compute, FILE *out, int *n_failed, struct err *e) {
    struct selftest t = {.seed = 20260301};
    struct be_info info;
    char err[BE_ERR_BYTES] = "";
    enum rc rc = device_ops(device, &t.ops, e);
    if (rc != RC_OK)
        return rc;
    struct be_config cfg = {.n_ranks = 1,
                            .compute = (enum dtype)compute,
                            .n_tokens_max = SELFTEST_TOKENS,
                            .n_seqs_max = SELFTEST_TOKENS,
                            .n_rows_max = SELFTEST_TOKENS,
                            .n_vocab = SELFTEST_VOCAB};
    if (t.ops->open(&t.b, &cfg, err) != 0)
        return err_set(e, RC_UNAVAILABLE, "device", "%s: %s", t.ops->name, err);
    t.ops->info(t.b, &info);
    t.act = info.act;
    t.half = t.act == DT_BF16 ? 0x1p-8 : t.act == DT_F16 ? 0x1p-11 : ROUND;
    fprintf(out, "%s, activations in %s\n", info.name, t.act == DT_BF16 ? "bf16" : t.act == DT_F16 ? "f16" : "f32");
    *n_failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
        t.worst = 0;
        t.error[0] = 0;
        checks[i].run(&t);
        if (!t.error[0] && t.ops->wait(t.b, err) != 0)
            snprintf(t.error, sizeof t.error, "%.120s", err);
        bool good = t.worst <= 1 && !t.error[0];
        *n_failed += !good;
        fprintf(out, "%-4s %-16s largest error %.2f of its bound%s%s\n", good ? "ok" : "FAIL", checks[i].name, t.worst,
                t.error[0] ? "; " : "", t.error);
    }
    t.ops->close(t.b);
    return RC_OK;
}
