/* The plain C backend against the same formulas in f64: what every other backend is compared with is right.
 */
#include "tests/parity/parity.h"

enum { N_CASES = 40 };

static void gemm_is_the_product(void **state) {
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    struct rng g = {.seed = 11};
    for (int c = 0; c < N_CASES; c++) {
        uint32_t n = rng_range(&g, 1, 9), n_in = rng_range(&g, 1, 300), n_out = rng_range(&g, 1, 50);
        enum dtype t = types[c % 3];
        struct rig r = rig_open(&ref_ops, (struct be_config){.n_tokens_max = n});
        float *x = rng_floats(&g, (size_t)n * n_in, 1), *w = rng_floats(&g, (size_t)n_out * n_in, 0.3f);
        float *bias = rng_floats(&g, n_out, 1), *add = rng_floats(&g, (size_t)n * n_out, 1);
        void *stored = as_type(w, (size_t)n_out * n_in, t);
        struct be_mem *y = rig_mem(r, NULL, n, n_out), *xm = rig_mem(r, x, n, n_in),
                      *am = rig_mem(r, add, n, n_out);
        struct be_w *wm = rig_weight(r, BE_W_LINEAR, stored, t, n_out, n_in),
                    *bm = rig_vector(r, bias, n_out);
        r.ops->gemm(r.b, &(struct op_gemm){.y = y, .x = xm, .w = wm, .bias = bm, .add = am, .n_rows = n});
        float *got = rig_get(r, y, n, n_out);
        for (size_t i = 0; i < (size_t)n * n_out; i++) {
            double want = bias[i % n_out] + (double)add[i], size = fabs(want);
            for (uint32_t k = 0; k < n_in; k++) {
                double term = (double)x[i / n_out * n_in + k] * w[i % n_out * n_in + k];
                want += term;
                size += fabs(term);
            }
            /* n_in products and sums in f32, then bias and add: one rounding each */
            expect_near(got[i], want, (n_in + 4) * U * size, "y", i);
        }
        r.ops->close(r.b);
        free(x), free(w), free(bias), free(add), free(stored), free(got);
    }
}

static void norms_follow_their_formulas(void **state) {
    (void)state;
    struct rng g = {.seed = 12};
    for (int c = 0; c < N_CASES; c++) {
        uint32_t n = rng_range(&g, 1, 5), cols = rng_range(&g, 2, 400);
        bool layer = c % 2;
        struct rig r = rig_open(&ref_ops, (struct be_config){.n_tokens_max = n});
        float *x = rng_floats(&g, (size_t)n * cols, 2), *w = rng_floats(&g, cols, 1),
              *bias = rng_floats(&g, cols, 1);
        struct be_mem *y = rig_mem(r, NULL, n, cols), *xm = rig_mem(r, x, n, cols);
        struct be_norm norm = {
            .kind = layer ? NORM_LAYER : NORM_RMS,
            .weight = rig_vector(r, w, cols),
            .bias = layer ? rig_vector(r, bias, cols) : NULL,
            .eps = 1e-5f,
            .weight_offset = c % 4 == 0 ? 1.0f : 0.0f,
        };
        r.ops->norm(r.b, &(struct op_norm){.y = y, .x = xm, .norm = norm, .cols = cols, .n_rows = n});
        float *got = rig_get(r, y, n, cols);
        for (size_t i = 0; i < (size_t)n * cols; i++) {
            const float *row = x + i / cols * cols;
            double mean = 0, sq = 0, size = 0;
            for (uint32_t k = 0; k < cols; k++) {
                mean += layer ? (double)row[k] / cols : 0;
                size = fmax(size, fabs(row[k]));
            }
            for (uint32_t k = 0; k < cols; k++)
                sq += (row[k] - mean) * (row[k] - mean) / cols;
            double inv = 1 / sqrt(sq + 1e-5), scale = w[i % cols] + norm.weight_offset;
            double want = (row[i % cols] - mean) * inv * scale + (layer ? bias[i % cols] : 0);
            /* mean and squares are sums of `cols` terms: relative error (cols + 6) u, of the largest element
             * for the mean, and halved by the root for the squares */
            double bound = (2.0 * cols + 12) * U * (size * inv * fabs(scale) + fabs(want));
            expect_near(got[i], want, bound, "y", i);
        }
        r.ops->close(r.b);
        free(x), free(w), free(bias), free(got);
    }
}

/* One sequence in cache blocks that lie out of order; queries are its last n positions. */
static void attention_is_softmax_of_scores(void **state) {
    (void)state;
    struct rng g = {.seed = 13};
    for (int c = 0; c < N_CASES; c++) {
        uint32_t len = rng_range(&g, 1, 70), n_kv = rng_range(&g, 1, 3), n_heads = n_kv * rng_range(&g, 1, 3);
        uint32_t hd = rng_range(&g, 1, 40), window = c % 3 == 0 ? rng_range(&g, 1, 20) : 0;
        uint32_t cols = (n_heads + 2 * n_kv) * hd, stride = (len + 15) / 16;
        float softcap = c % 4 == 1 ? 3.0f : 0, scale = 1 / sqrtf((float)hd);
        bool both = c % 5 == 2, sink = c % 5 == 3;
        struct rig r = rig_open(&ref_ops, (struct be_config){.n_tokens_max = len, .n_seqs_max = 1});
        struct cache_group_spec spec = {
            .kind = CACHE_FULL, .n_layers = 2, .n_kv_heads = n_kv, .head_dim = hd, .dtype = DT_F32};
        char err[BE_ERR_BYTES];
        assert_non_null(r.ops->kv_new(r.b, 0, &spec, stride + 3, err));
        uint32_t table[8], tokens[70] = {0}, slot[70], starts[2] = {0, len};
        int32_t pos[70];
        for (uint32_t i = 0; i < stride; i++)
            table[i] = stride + 2 - i;
        for (uint32_t i = 0; i < len; i++) {
            pos[i] = (int32_t)i;
            slot[i] = table[i / 16] * 16 + i % 16;
        }
        uint8_t kind = both ? ATTN_BIDIRECTIONAL : ATTN_CAUSAL;
        struct batch batch = {.n_tokens = len,
                              .n_seqs = 1,
                              .n_axes = 1,
                              .n_groups = 1,
                              .tokens = tokens,
                              .pos = pos,
                              .seq_start = starts,
                              .kv_len = &len,
                              .kind = &kind};
        batch.group[0].table = table;
        batch.group[0].table_stride = stride;
        batch.group[0].slot = slot;
        float *x = rng_floats(&g, (size_t)len * cols, 1), *eye = calloc((size_t)cols * cols, sizeof *eye);
        float *sinks = rng_floats(&g, n_heads, 1);
        CHECK(eye);
        for (uint32_t i = 0; i < cols; i++)
            eye[(size_t)i * cols + i] = 1;
        struct be_mem *xm = rig_mem(r, x, len, cols), *qkv = rig_mem(r, NULL, len, cols);
        struct be_mem *out = rig_mem(r, NULL, len, n_heads * hd);
        struct rope_store rope = {
            .on = true, .layer = 1, .n_heads = n_heads, .n_kv_heads = n_kv, .head_dim = hd};
        r.ops->plan(r.b, &batch);
        r.ops->gemm(r.b, &(struct op_gemm){.y = qkv,
                                           .x = xm,
                                           .w = rig_weight(r, BE_W_LINEAR, eye, DT_F32, cols, cols),
                                           .rope = rope});
        r.ops->attn(r.b, &(struct op_attn){.out = out,
                                           .qkv = qkv,
                                           .layer = 1,
                                           .n_heads = n_heads,
                                           .n_kv_heads = n_kv,
                                           .head_dim = hd,
                                           .scale = scale,
                                           .softcap = softcap,
                                           .window = window,
                                           .sinks = sink ? rig_vector(r, sinks, n_heads) : NULL});
        float *got = rig_get(r, out, len, n_heads * hd);
        for (uint32_t t = 0; t < len; t++)
            for (uint32_t h = 0; h < n_heads; h++) {
                const float *q = x + (size_t)t * cols + h * hd;
                double p[70], sum = sink ? exp(sinks[h]) : 0, size = 0;
                for (uint32_t j = 0; j < len; j++) {
                    const float *k = x + (size_t)j * cols + (n_heads + h / (n_heads / n_kv)) * hd;
                    double s = 0, a = 0;
                    for (uint32_t d = 0; d < hd; d++) {
                        s += (double)q[d] * k[d];
                        a += fabs((double)q[d] * k[d]);
                    }
                    s *= scale;
                    size = fmax(size, a * scale);
                    if (softcap > 0)
                        s = softcap * tanh(s / softcap);
                    bool seen = both || j <= t;
                    if (window && (j + window <= t || t + window <= j))
                        seen = false;
                    sum += p[j] = seen ? exp(s) : 0;
                }
                for (uint32_t d = 0; d < hd; d++) {
                    double want = 0, abs_sum = 0;
                    for (uint32_t j = 0; j < len; j++) {
                        double v = x[(size_t)j * cols + (n_heads + n_kv + h / (n_heads / n_kv)) * hd + d];
                        want += p[j] / sum * v;
                        abs_sum += p[j] / sum * fabs(v);
                    }
                    /* a score errs by (hd + 4) u |q||k|, which is a relative error of its weight, twice with
                     * the sum's; exp a few u of its argument; the two sums len u each */
                    double bound = (2 * (hd + 16) * (size + 1) + 2.0 * len + 16) * U * (abs_sum + fabs(want));
                    expect_near(got[((size_t)t * n_heads + h) * hd + d], want, bound, "out", t);
                }
            }
        r.ops->close(r.b);
        free(x), free(eye), free(sinks), free(got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_is_the_product),
        cmocka_unit_test(norms_follow_their_formulas),
        cmocka_unit_test(attention_is_softmax_of_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
