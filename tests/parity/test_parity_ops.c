/* cpu_ops against ref_ops: products, norms and embeddings on ragged random shapes. threads: tsan
 *
 * Both sides sum in f32, each within gamma(K) of the exact sum, so they differ by at most twice that. An
 * activation's slope is at most 1.13 (GELU), so a difference passes it almost unchanged. */
#include "tests/parity/parity.h"

#ifdef PARITY_CUDA
enum { N_CASES = 14 }; /* emulated threads are slow */
#else
enum { N_CASES = 150 };
#endif

static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};

/* pair: the oracle and what is tested. */
struct pair {
    struct rig rig[2];
};

static struct pair pair_open(struct be_config cfg) {
    return (struct pair){{rig_open(&ref_ops, cfg), rig_open(&tested_ops, cfg)}};
}

static void pair_close(struct pair *p) {
    p->rig[0].ops->close(p->rig[0].b);
    p->rig[1].ops->close(p->rig[1].b);
}

/* magnitude: sum |x||w| of one output, after the norm has made x about `gain` times a unit vector. */
static double magnitude(const float *x, const float *w, uint32_t n) {
    double s = 0;
    for (uint32_t k = 0; k < n; k++)
        s += fabs((double)x[k] * w[k]);
    return s;
}

struct gemm_case {
    uint32_t n, n_in, cols; /* cols of y */
    bool glu, in_place;
    enum dtype t;
    enum act_kind act;
    enum norm_kind norm;
    bool bias, add;
    float offset;
};

/* normed: x through the case's norm in f64, as the bound's magnitude needs it. */
static void normed(const struct gemm_case *c, const float *x, const float *w, const float *bias, float *y) {
    double mean = 0, sq = 0;
    for (uint32_t k = 0; c->norm == NORM_LAYER && k < c->n_in; k++)
        mean += x[k] / (double)c->n_in;
    for (uint32_t k = 0; k < c->n_in; k++)
        sq += (x[k] - mean) * (x[k] - mean) / c->n_in;
    double inv = c->norm == NORM_NONE ? 1 : 1 / sqrt(sq + 1e-6);
    for (uint32_t k = 0; k < c->n_in; k++) {
        double v = c->norm == NORM_NONE
                       ? x[k]
                       : (x[k] - mean) * inv * (w[k] + (c->norm == NORM_RMS ? c->offset : 0));
        y[k] = (float)(v + (c->norm == NORM_LAYER ? bias[k] : 0));
    }
}

static void gemm_case_run(struct rng *g, const struct gemm_case *c) {
    uint32_t n_out = c->glu ? 2 * c->cols : c->cols;
    struct pair p = pair_open((struct be_config){.n_threads = (int)rng_range(g, 1, 3), .n_tokens_max = c->n});
    float *x = rng_floats(g, (size_t)c->n * c->n_in, 1), *w = rng_floats(g, (size_t)n_out * c->n_in, 0.2f);
    float *bias = rng_floats(g, n_out, 1), *add = rng_floats(g, (size_t)c->n * c->cols, 1);
    float *nw = rng_floats(g, c->n_in, 1), *nb = rng_floats(g, c->n_in, 1), *row = rng_floats(g, c->n_in, 1),
          *got[2];
    void *stored = as_type(w, (size_t)n_out * c->n_in, c->t);
    for (int i = 0; i < 2; i++) {
        struct rig r = p.rig[i];
        struct be_weight_src src[2] = {{.data = stored, .dtype = c->t, .rows = n_out, .cols = c->n_in}};
        if (c->glu) {
            src[1] = src[0];
            src[1].row0 = src[0].n_rows = c->cols;
        }
        char err[BE_ERR_BYTES];
        struct be_w *wm = r.ops->weight(r.b, c->glu ? BE_W_GATE_UP : BE_W_LINEAR, src, c->glu ? 2 : 1, err);
        assert_non_null(wm);
        struct be_mem *am = rig_mem(r, add, c->n, c->cols),
                      *y = c->in_place ? am : rig_mem(r, NULL, c->n, c->cols);
        struct op_gemm op = {
            .y = y,
            .x = rig_mem(r, x, c->n, c->n_in),
            .w = wm,
            .bias = c->bias ? rig_vector(r, bias, n_out) : NULL,
            .add = c->add ? am : NULL,
            .act = c->act,
            .norm = {.kind = c->norm, .eps = 1e-6f, .weight_offset = c->offset},
            .n_rows = c->n,
        };
        if (c->norm != NORM_NONE)
            op.norm.weight = rig_vector(r, nw, c->n_in);
        if (c->norm == NORM_LAYER)
            op.norm.bias = rig_vector(r, nb, c->n_in);
        r.ops->gemm(r.b, &op);
        got[i] = rig_get(r, y, c->n, c->cols);
    }
    for (uint32_t r = 0; r < c->n; r++) {
        normed(c, x + (size_t)r * c->n_in, nw, nb, row);
        for (uint32_t j = 0; j < c->cols; j++) {
            size_t at = (size_t)r * c->cols + j;
            double size = magnitude(row, w + (size_t)j * c->n_in, c->n_in) + (c->bias ? fabs(bias[j]) : 0);
            if (c->glu) { /* |a' b' - a b| <= |a' - a||b| + |b' - b||a|, and both are within their magnitude
                           */
                double up = magnitude(row, w + (size_t)(c->cols + j) * c->n_in, c->n_in);
                size = 2.3 * (size + 1) * (up + (c->bias ? fabs(bias[c->cols + j]) : 0) + 1);
            }
            size += c->add ? fabs(add[at]) : 0;
            /* twice the sum's n_in roundings, those of a norm in front, and 24 of an activation (erf's
             * absolute error of 1.5e-7 is 3 u of its argument's magnitude) */
            double bound = (2.3 * c->n_in + (c->norm ? 2.0 * c->n_in + 12 : 0) + 24) * U * (size + 1);
            expect_near(got[1][at], got[0][at], bound, "y", at);
        }
    }
    pair_close(&p);
    free(x), free(w), free(bias), free(add), free(nw), free(nb), free(row), free(stored), free(got[0]),
        free(got[1]);
}

static void gemm_equals_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 21};
    for (int i = 0; i < N_CASES; i++) {
        struct gemm_case c = {
            .n = i % 10 == 0 ? rng_range(&g, 180, 420) : rng_range(&g, 1, 30),
            .n_in = i % 7 == 0 ? rng_range(&g, 1, 8) : rng_range(&g, 9, 600),
            .cols = rng_range(&g, 1, 90),
            .glu = i % 3 == 1,
            .t = types[i / 2 % 3],
            .act = (enum act_kind)(i % 7),
            .norm = (enum norm_kind)(i % 3),
            .bias = i % 2,
            .add = i % 4 >= 2,
            .in_place = i % 4 == 3,
            .offset = i % 5 == 0 ? 1.0f : 0.0f,
        };
        gemm_case_run(&g, &c);
    }
}

/* Three sources of different types stack into one weight; a rank's shard takes part of a tensor. */
static void weights_stack_and_shard(void **state) {
    (void)state;
    struct rng g = {.seed = 22};
    enum { N = 3, N_IN = 70, COL0 = 11, TAKEN = 40 };
    uint32_t rows[3] = {19, 5, 24}, n_out = 48;
    struct pair p = pair_open((struct be_config){.n_threads = 2, .n_tokens_max = N});
    float *x = rng_floats(&g, N * TAKEN, 1), *w[3], *got[2];
    void *stored[3];
    for (int i = 0; i < 3; i++) {
        w[i] = rng_floats(&g, (size_t)(rows[i] + 2) * N_IN, 1);
        stored[i] = as_type(w[i], (size_t)(rows[i] + 2) * N_IN, types[i]);
    }
    for (int i = 0; i < 2; i++) {
        struct rig r = p.rig[i];
        struct be_weight_src src[3];
        char err[BE_ERR_BYTES];
        for (int s = 0; s < 3; s++)
            src[s] = (struct be_weight_src){.data = stored[s],
                                            .dtype = types[s],
                                            .rows = rows[s] + 2,
                                            .cols = N_IN,
                                            .row0 = 2,
                                            .col0 = COL0,
                                            .n_cols = TAKEN};
        struct be_w *wm = r.ops->weight(r.b, BE_W_LINEAR, src, 3, err);
        assert_non_null(wm);
        assert_true(r.ops->weight_bytes(wm) >= (uint64_t)n_out * TAKEN * 4);
        struct be_mem *y = rig_mem(r, NULL, N, n_out);
        r.ops->gemm(r.b, &(struct op_gemm){.y = y, .x = rig_mem(r, x, N, TAKEN), .w = wm, .n_rows = N});
        got[i] = rig_get(r, y, N, n_out);
    }
    for (uint32_t t = 0; t < N; t++)
        for (uint32_t s = 0, j = 0; s < 3; s++)
            for (uint32_t k = 0; k < rows[s]; k++, j++) {
                const float *row = w[s] + (size_t)(k + 2) * N_IN + COL0;
                double want = 0;
                for (uint32_t d = 0; d < TAKEN; d++)
                    want += (double)row[d] * x[t * TAKEN + d];
                double bound = TAKEN * U * magnitude(x + t * TAKEN, row, TAKEN);
                expect_near(got[0][t * n_out + j], want, bound, "reference", j);
                expect_near(got[1][t * n_out + j], want, bound, "cpu", j);
            }
    pair_close(&p);
    for (int i = 0; i < 3; i++)
        free(w[i]), free(stored[i]);
    free(x), free(got[0]), free(got[1]);
}

static void norms_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 23};
    for (int i = 0; i < N_CASES; i++) {
        uint32_t n = rng_range(&g, 1, 20), cols = rng_range(&g, 1, 500);
        bool layer = i % 2, add = i % 3 == 0;
        struct pair p = pair_open((struct be_config){.n_threads = 2, .n_tokens_max = n});
        float *x = rng_floats(&g, (size_t)n * cols, 3), *w = rng_floats(&g, cols, 1),
              *bias = rng_floats(&g, cols, 1);
        float *a = rng_floats(&g, (size_t)n * cols, 1), *got[2];
        for (int k = 0; k < 2; k++) {
            struct rig r = p.rig[k];
            struct be_mem *y = rig_mem(r, NULL, n, cols);
            struct be_norm norm = {
                .kind = layer ? NORM_LAYER : NORM_RMS, .weight = rig_vector(r, w, cols), .eps = 1e-3f};
            if (layer)
                norm.bias = rig_vector(r, bias, cols);
            struct be_mem *am = rig_mem(r, a, n, cols), *xm = rig_mem(r, x, n, cols);
            r.ops->norm(
                r.b, &(struct op_norm){
                         .y = y, .x = xm, .norm = norm, .add = add ? am : NULL, .cols = cols, .n_rows = n});
            got[k] = rig_get(r, y, n, cols);
        }
        for (size_t j = 0; j < (size_t)n * cols; j++) {
            const float *row = x + j / cols * cols;
            double size = 0, mean = 0, var = 0;
            for (uint32_t k = 0; k < cols; k++) {
                size = fmax(size, fabs(row[k]));
                mean += layer ? row[k] / (double)cols : 0;
            }
            for (uint32_t k = 0; k < cols; k++)
                var += (row[k] - mean) * (row[k] - mean) / cols;
            /* each side's mean errs by cols u of the largest element, its root by half of cols u of itself,
             * and each element's deviation from the mean is at most twice the largest */
            double unit = 1 / sqrt(var + 1e-3) * fabs(w[j % cols]);
            double bound = (4.0 * cols + 24) * U * (2 * size * unit + fabs(bias[j % cols]) + fabs(a[j]));
            expect_near(got[1][j], got[0][j], bound, "y", j);
        }
        pair_close(&p);
        free(x), free(w), free(bias), free(a), free(got[0]), free(got[1]);
    }
}

static void embeddings_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 24};
    for (int i = 0; i < 40; i++) {
        uint32_t n = rng_range(&g, 1, 40), cols = rng_range(&g, 2, 100), n_vocab = rng_range(&g, 1, 60),
                 starts[2] = {0, n};
        enum dtype t = types[i % 3];
        struct pair p = pair_open((struct be_config){.n_threads = 2, .n_tokens_max = n, .n_seqs_max = 1});
        float *tok = rng_floats(&g, (size_t)n_vocab * cols, 1), *pos_w = rng_floats(&g, 50 * (size_t)cols, 1);
        float *type_w = rng_floats(&g, 2 * (size_t)cols, 1), *e = rng_floats(&g, 5 * (size_t)cols, 1),
              *got[2];
        float *nw = rng_floats(&g, cols, 1);
        void *stored = as_type(tok, (size_t)n_vocab * cols, t);
        uint32_t tokens[40], from[40];
        int32_t pos[40];
        uint8_t type[40];
        for (uint32_t k = 0; k < n; k++) {
            tokens[k] = rng_below(&g, n_vocab);
            from[k] = i % 4 == 0 ? rng_below(&g, 6) : 0;
            pos[k] = (int32_t)rng_below(&g, 48);
            type[k] = (uint8_t)rng_below(&g, 2);
        }
        for (int k = 0; k < 2; k++) {
            struct rig r = p.rig[k];
            struct batch batch = {.n_tokens = n,
                                  .n_seqs = 1,
                                  .n_axes = 1,
                                  .tokens = tokens,
                                  .pos = pos,
                                  .seq_start = starts,
                                  .token_type = type,
                                  .embed_row = from,
                                  .embeds = rig_mem(r, e, 5, cols)};
            struct op_embed op = {.y = rig_mem(r, NULL, n, cols),
                                  .tokens = rig_weight(r, BE_W_EMBED, stored, t, n_vocab, cols),
                                  .scale = i % 3 ? 0 : 1.7f,
                                  .cols = cols};
            if (i % 2) {
                op.positions = rig_weight(r, BE_W_EMBED, pos_w, DT_F32, 50, cols);
                op.types = rig_weight(r, BE_W_EMBED, type_w, DT_F32, 2, cols);
                op.pos_offset = 2;
            }
            if (i % 5 == 1)
                op.norm =
                    (struct be_norm){.kind = NORM_LAYER, .weight = rig_vector(r, nw, cols), .eps = 1e-3f};
            r.ops->plan(r.b, &batch);
            r.ops->embed(r.b, &op);
            got[k] = rig_get(r, op.y, n, cols);
        }
        for (size_t j = 0; j < (size_t)n * cols; j++) /* without a norm the operations are the same */
            expect_near(got[1][j], got[0][j], i % 5 == 1 ? (8.0 * cols + 24) * U * 100 : 0, "y", j);
        pair_close(&p);
        free(tok), free(pos_w), free(type_w), free(e), free(nw), free(stored), free(got[0]), free(got[1]);
    }
}

/* Logits of chosen rows, with norm, scale and cap, over a vocabulary that no panel divides. */
static void logits_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 25};
    for (int i = 0; i < 30; i++) {
        uint32_t n = rng_range(&g, 1, 20), n_rows = rng_range(&g, 1, n), n_in = rng_range(&g, 1, 200);
        uint32_t n_vocab = rng_range(&g, 1, 300), rows[20], starts[2] = {0, n};
        struct pair p = pair_open((struct be_config){
            .n_threads = 2, .n_tokens_max = n, .n_seqs_max = 1, .n_rows_max = n_rows, .n_vocab = n_vocab});
        float *x = rng_floats(&g, (size_t)n * n_in, 1), *w = rng_floats(&g, (size_t)n_vocab * n_in, 0.3f);
        float *got[2] = {malloc(n_vocab * sizeof(float)), malloc(n_vocab * sizeof(float))};
        for (uint32_t r = 0; r < n_rows; r++)
            rows[r] = rng_below(&g, n);
        for (int k = 0; k < 2; k++) {
            struct rig r = p.rig[k];
            struct batch batch = {
                .n_tokens = n, .n_seqs = 1, .n_rows = n_rows, .seq_start = starts, .rows = rows};
            r.ops->plan(r.b, &batch);
            r.ops->logits(r.b, &(struct op_logits){.x = rig_mem(r, x, n, n_in),
                                                   .w = rig_weight(r, BE_W_EMBED, w, DT_F32, n_vocab, n_in),
                                                   .scale = i % 2 ? 0.5f : 0,
                                                   .softcap = i % 3 ? 0 : 5.0f});
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            for (int k = 0; k < 2; k++)
                p.rig[k].ops->logits_get(p.rig[k].b, r, got[k]);
            for (uint32_t j = 0; j < n_vocab; j++) {
                double size = magnitude(x + (size_t)rows[r] * n_in, w + (size_t)j * n_in, n_in);
                expect_near(got[1][j], got[0][j], (2.0 * n_in + 16) * U * (size + 1), "logits", j);
            }
        }
        pair_close(&p);
        free(x), free(w), free(got[0]), free(got[1]);
    }
}

#ifndef PARITY_CUDA
/* Rows in any order, some twice: what is gathered is x's own bits, and so are the logits of what is gathered. */
static void gathered_rows_are_the_rows(void **state) {
    (void)state;
    struct rng g = {.seed = 26};
    for (int i = 0; i < 30; i++) {
        uint32_t n = rng_range(&g, 1, 20), n_rows = rng_range(&g, 1, 20), n_in = rng_range(&g, 1, 200);
        uint32_t n_vocab = rng_range(&g, 1, 300), rows[20], starts[2] = {0, n};
        struct pair p = pair_open((struct be_config){
            .n_threads = 2, .n_tokens_max = n, .n_seqs_max = 1, .n_rows_max = n_rows, .n_vocab = n_vocab});
        float *x = rng_floats(&g, (size_t)n * n_in, 1), *w = rng_floats(&g, (size_t)n_vocab * n_in, 0.3f);
        float *got = calloc((size_t)n_rows * n_in, sizeof *got), *want = calloc(n_vocab, sizeof *want),
              *logits = calloc((size_t)n_rows * n_vocab, sizeof *logits);
        assert_true(got && want && logits);
        for (uint32_t r = 0; r < n_rows; r++)
            rows[r] = rng_below(&g, n);
        for (int k = 0; k < 2; k++) {
            struct rig r = p.rig[k];
            struct be_mem *xm = rig_mem(r, x, n, n_in), *y = rig_mem(r, got, n_rows, n_in);
            struct op_logits op = {.x = xm, .w = rig_weight(r, BE_W_EMBED, w, DT_F32, n_vocab, n_in)};
            r.ops->plan(r.b, &(struct batch){
                                 .n_tokens = n, .n_seqs = 1, .n_rows = n_rows, .seq_start = starts, .rows = rows});
            r.ops->logits(r.b, &op);
            for (uint32_t j = 0; j < n_rows; j++)
                r.ops->logits_get(r.b, j, logits + (size_t)j * n_vocab);
            r.ops->gather(r.b, &(struct op_gather){.y = y, .x = xm, .cols = n_in});
            r.ops->mem_get(r.b, y, 0, n_rows, got);
            op.x = y;
            op.gathered = true;
            r.ops->logits(r.b, &op);
            for (uint32_t j = 0; j < n_rows; j++) {
                assert_memory_equal(got + (size_t)j * n_in, x + (size_t)rows[j] * n_in, n_in * sizeof *x);
                r.ops->logits_get(r.b, j, want);
                assert_memory_equal(want, logits + (size_t)j * n_vocab, n_vocab * sizeof *want);
            }
        }
        pair_close(&p);
        free(x), free(w), free(got), free(want), free(logits);
    }
}

static void what_it_cannot_hold_is_refused(void **state) {
    (void)state;
    uint8_t data[64] = {0};
    char err[BE_ERR_BYTES] = "";
    struct be *none = NULL;
    assert_int_not_equal(cpu_ops.open(&none, &(struct be_config){.n_ranks = 2}, err), 0);
    assert_non_null(strstr(err, "ranks that share memory"));
    struct rig r = rig_open(&tested_ops, (struct be_config){.n_threads = 1});
    struct be_weight_src src = {.data = data, .dtype = DT_F8E4M3, .rows = 4, .cols = 4};
    assert_null(r.ops->weight(r.b, BE_W_LINEAR, &src, 1, err));
    assert_non_null(strstr(err, "fp8"));
    src.dtype = DT_F32;
    struct be_weight_src uneven[2] = {src, src};
    uneven[1].n_rows = 3;
    assert_null(r.ops->weight(r.b, BE_W_EXPERTS, uneven, 2, err));
    assert_non_null(strstr(err, "experts of 4 and 3 rows"));
    assert_null(r.ops->weight(r.b, BE_W_EXPERTS_GATE_UP, &src, 1, err));
    assert_non_null(strstr(err, "pairs"));
    src.n_rows = 5;
    assert_null(r.ops->weight(r.b, BE_W_LINEAR, &src, 1, err));
    assert_non_null(strstr(err, "outside"));
    struct cache_group_spec spec = {.kind = CACHE_STATE, .n_layers = 1, .state_bytes = 8};
    assert_null(r.ops->kv_new(r.b, 0, &spec, 1, err));
    assert_non_null(strstr(err, "state"));
    spec = (struct cache_group_spec){
        .kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = 1, .head_dim = 300, .dtype = DT_F32};
    assert_null(r.ops->kv_new(r.b, 0, &spec, 1, err));
    assert_non_null(strstr(err, "head_dim 300"));
    r.ops->close(r.b);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_equals_reference),  cmocka_unit_test(weights_stack_and_shard),
        cmocka_unit_test(norms_equal_reference),  cmocka_unit_test(embeddings_equal_reference),
        cmocka_unit_test(logits_equal_reference),
#ifndef PARITY_CUDA
        cmocka_unit_test(gathered_rows_are_the_rows), cmocka_unit_test(what_it_cannot_hold_is_refused),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
