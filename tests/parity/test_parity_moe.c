/* op_moe of both CPU backends against the formula in f64, and a row's bits alone and among others. threads:
 * tsan
 */
#include "tests/parity/parity.h"

#ifdef PARITY_CUDA
enum { N_CASES = 7 }; /* emulated threads are slow */
#else
enum { N_CASES = 40 };
#endif
enum { EXPERTS_MAX = 12 };

struct moe_case {
    uint32_t n, cols, inner, n_experts, top_k;
    enum dtype t;
    bool renorm, add, in_place;
    enum norm_kind norm;
    enum act_kind act;
};

/* stuff: a case's numbers. Weights hold what their type holds. */
struct stuff {
    float *x, *add, *nw, *router, *gate_up, *down; /* gate_up: [experts][gate, up][inner][cols] */
    void *gate_up_data, *down_data;
};

static struct stuff stuff_make(struct rng *g, const struct moe_case *c) {
    size_t n_up = (size_t)c->n_experts * 2 * c->inner * c->cols, n_down = n_up / 2;
    struct stuff s = {
        .x = rng_floats(g, (size_t)c->n * c->cols, 1),
        .add = rng_floats(g, (size_t)c->n * c->cols, 1),
        .nw = rng_floats(g, c->cols, 1),
        .router = rng_floats(g, (size_t)c->n_experts * c->cols, 1),
        .gate_up = rng_floats(g, n_up, 0.2f),
        .down = rng_floats(g, n_down, 0.2f),
    };
    s.gate_up_data = as_type(s.gate_up, n_up, c->t);
    s.down_data = as_type(s.down, n_down, c->t);
    return s;
}

static void stuff_free(struct stuff *s) {
    free(s->x), free(s->add), free(s->nw), free(s->router), free(s->gate_up), free(s->down);
    free(s->gate_up_data), free(s->down_data);
}

/* experts_new: each expert's rows are a shard of one stored tensor. */
static struct be_w *experts_new(struct rig r, enum be_weight_kind kind, const void *data, enum dtype t,
                                uint32_t n, uint32_t rows, uint32_t cols) {
    struct be_weight_src src[2 * EXPERTS_MAX];
    char err[BE_ERR_BYTES] = "";
    for (uint32_t i = 0; i < n; i++)
        src[i] = (struct be_weight_src){
            .data = data, .dtype = t, .rows = n * rows, .cols = cols, .row0 = i * rows, .n_rows = rows};
    struct be_w *w = r.ops->weight(r.b, kind, src, n, err);
    if (!w)
        print_error("weight: %s\n", err);
    assert_non_null(w);
    return w;
}

/* moe_run: rows [from, from + n) of the case, on a backend of their own. */
static float *moe_run(const struct be_ops *ops, const struct moe_case *c, const struct stuff *s,
                      uint32_t from, uint32_t n, int n_threads) {
    struct rig r =
        rig_open(ops, (struct be_config){.n_threads = n_threads, .n_tokens_max = n, .n_seqs_max = 1});
    uint32_t start[2] = {0, n};
    struct be_mem *x = rig_mem(r, s->x + (size_t)from * c->cols, n, c->cols);
    struct be_mem *add = rig_mem(r, s->add + (size_t)from * c->cols, n, c->cols);
    struct op_moe op = {
        .y = c->in_place ? x : rig_mem(r, NULL, n, c->cols),
        .x = x,
        .norm = {.kind = c->norm, .eps = 1e-5f},
        .router = rig_weight(r, BE_W_LINEAR, s->router, DT_F32, c->n_experts, c->cols),
        .gate_up =
            experts_new(r, BE_W_EXPERTS_GATE_UP, s->gate_up_data, c->t, 2 * c->n_experts, c->inner, c->cols),
        .down = experts_new(r, BE_W_EXPERTS, s->down_data, c->t, c->n_experts, c->cols, c->inner),
        .n_experts = c->n_experts,
        .top_k = c->top_k,
        .renorm = c->renorm,
        .act = c->act,
        .add = c->in_place ? x
               : c->add    ? add
                           : NULL,
    };
    if (c->norm)
        op.norm.weight = rig_vector(r, s->nw, c->cols);
    r.ops->plan(r.b, &(struct batch){.n_tokens = n, .n_seqs = 1, .seq_start = start});
    r.ops->moe(r.b, &op);
    float *y = rig_get(r, op.y, n, c->cols);
    r.ops->close(r.b);
    return y;
}

/* dot: and in *size the sum of magnitudes. */
static double dot(const double *x, const float *w, uint32_t n, double *size) {
    double s = 0;
    *size = 0;
    for (uint32_t k = 0; k < n; k++) {
        s += x[k] * w[k];
        *size += fabs(x[k] * w[k]);
    }
    return s;
}

static double act(enum act_kind kind, double x) {
    return kind == ACT_SILU ? x / (1 + exp(-x)) : 0.5 * x * (1 + erf(x * 0.70710678118654752));
}

/* want: row t in f64, and a bound on what f32 may make of it. false: two experts are so close at the end of
 * the choice that rounding may swap them. */
static bool want(const struct moe_case *c, const struct stuff *s, uint32_t t, double *y, double *bound) {
    double *x = calloc(c->cols, sizeof *x), *h = calloc(c->inner, sizeof *h),
           *h_err = calloc(c->inner, sizeof *h_err);
    double p[EXPERTS_MAX], weight[EXPERTS_MAX], mean = 0, sq = 0, size, logit_err = 0, sum = 0, kept = 0,
                                                last = 0;
    uint32_t chosen[EXPERTS_MAX];
    /* a product of `cols` terms, and a norm of as many in front of it, on f32 */
    double unit = (2.2 * c->cols + (c->norm ? 2.0 * c->cols + 12 : 0) + 24) * U;
    const float *row = s->x + (size_t)t * c->cols;
    CHECK(x && h && h_err);
    for (uint32_t k = 0; c->norm == NORM_LAYER && k < c->cols; k++)
        mean += row[k] / (double)c->cols;
    for (uint32_t k = 0; k < c->cols; k++)
        sq += (row[k] - mean) * (row[k] - mean) / c->cols;
    for (uint32_t k = 0; k < c->cols; k++)
        x[k] = c->norm ? (row[k] - mean) / sqrt(sq + 1e-5) * s->nw[k] : row[k];
    for (uint32_t e = 0; e < c->n_experts; e++) {
        p[e] = dot(x, s->router + (size_t)e * c->cols, c->cols, &size);
        logit_err = fmax(logit_err, unit * (size + 1));
    }
    for (uint32_t j = 0; j < c->top_k; j++) {
        chosen[j] = UINT32_MAX;
        for (uint32_t e = 0; e < c->n_experts; e++) {
            bool taken = false;
            for (uint32_t i = 0; i < j; i++)
                taken |= chosen[i] == e;
            if (!taken && (chosen[j] == UINT32_MAX || p[e] > p[chosen[j]]))
                chosen[j] = e;
        }
        last = p[chosen[j]];
    }
    bool clear = true;
    for (uint32_t e = 0; e < c->n_experts; e++) {
        bool taken = false;
        for (uint32_t i = 0; i < c->top_k; i++)
            taken |= chosen[i] == e;
        clear &= taken || last - p[e] > 4 * logit_err;
        sum += exp(p[e] - p[chosen[0]]);
    }
    for (uint32_t j = 0; j < c->top_k; j++)
        kept += weight[j] = exp(p[chosen[j]] - p[chosen[0]]) / sum;
    for (uint32_t i = 0; i < c->cols; i++) {
        y[i] = c->in_place ? row[i] : c->add ? s->add[(size_t)t * c->cols + i] : 0;
        bound[i] = 4 * U * fabs(y[i]);
    }
    for (uint32_t j = 0; j < c->top_k; j++) {
        const float *gate = s->gate_up + (size_t)chosen[j] * 2 * c->inner * c->cols;
        const float *up = gate + (size_t)c->inner * c->cols,
                    *down = s->down + (size_t)chosen[j] * c->cols * c->inner;
        double w = weight[j] / (c->renorm ? kept : 1);
        for (uint32_t i = 0; i < c->inner; i++) {
            double g_size, u_size, g = dot(x, gate + (size_t)i * c->cols, c->cols, &g_size);
            double u = dot(x, up + (size_t)i * c->cols, c->cols, &u_size);
            h[i] = act(c->act, g) * u;
            h_err[i] = 2.3 * unit * (g_size + 1) * (u_size + 1); /* an activation's slope is below 1.13 */
        }
        for (uint32_t i = 0; i < c->cols; i++) {
            double err = 0, d = dot(h, down + (size_t)i * c->inner, c->inner, &size);
            for (uint32_t k = 0; k < c->inner; k++)
                err += h_err[k] * fabs(down[(size_t)i * c->inner + k]);
            y[i] += w * d;
            /* logits that err by e move a softmax by at most 2 e of itself, twice where it is normalised
             * again */
            bound[i] += w * (err + ((c->inner + 16.0) * U + 4 * logit_err + (c->n_experts + 8.0) * U) * size);
        }
    }
    free(x), free(h), free(h_err);
    return clear;
}

static struct moe_case case_make(struct rng *g, int i) {
    static const enum dtype types[] = {DT_F32, DT_BF16, DT_F16};
    struct moe_case c = {
        .n = i % 10 == 9  ? rng_range(g, 260, 300)
             : i % 3 == 0 ? 1
                          : rng_range(g, 2, 40),
        .cols = rng_range(g, 3, i % 2 ? 150 : 40),
        .inner = rng_range(g, 1, 70),
        .n_experts = rng_range(g, 1, EXPERTS_MAX),
        .t = types[i % 3],
        .renorm = i % 2,
        .add = i % 4 >= 2,
        .in_place = i % 5 == 4,
        .norm = (enum norm_kind)(i % 3),
        .act = i % 7 == 3 ? ACT_GELU : ACT_SILU,
    };
    c.top_k = rng_range(g, 1, MIN(c.n_experts, 4));
    return c;
}

static void experts_follow_the_formula(void **state) {
    (void)state;
    struct rng g = {.seed = 51};
    uint32_t n_rows = 0, n_clear = 0;
    for (int i = 0; i < N_CASES; i++) {
        struct moe_case c = case_make(&g, i);
        struct stuff s = stuff_make(&g, &c);
        float *got[2] = {moe_run(&ref_ops, &c, &s, 0, c.n, 1), moe_run(&tested_ops, &c, &s, 0, c.n, 1 + i % 3)};
        double *y = calloc(c.cols, sizeof *y), *bound = calloc(c.cols, sizeof *bound);
        CHECK(y && bound);
        for (uint32_t t = 0; t < c.n; t++) {
            n_rows++;
            if (!want(&c, &s, t, y, bound))
                continue;
            n_clear++;
            for (uint32_t k = 0; k < c.cols; k++) {
                expect_near(got[0][(size_t)t * c.cols + k], y[k], bound[k], "reference", k);
                expect_near(got[1][(size_t)t * c.cols + k], y[k], bound[k], "cpu", k);
            }
        }
        stuff_free(&s);
        free(y), free(bound), free(got[0]), free(got[1]);
    }
    assert_true(n_clear >= n_rows - n_rows / 20);
}

/* Among 300 rows, in two halves and alone, on one thread or three. */
static void a_row_of_experts_keeps_its_bits(void **state) {
    (void)state;
    struct rng g = {.seed = 52};
    for (int i = 0; i < 3; i++) {
        struct moe_case c = {.n = 300,
                             .cols = 72,
                             .inner = 40,
                             .n_experts = 8,
                             .top_k = 2,
                             .t = i == 0 ? DT_F32 : DT_BF16,
                             .renorm = true,
                             .in_place = i == 2,
                             .norm = NORM_RMS,
                             .act = ACT_SILU};
        struct stuff s = stuff_make(&g, &c);
        float *all = moe_run(&tested_ops, &c, &s, 0, c.n, 1);
        for (uint32_t from = 0, n = 150; from < c.n; from += n, n = from >= 150 ? rng_range(&g, 1, 9) : n) {
            n = MIN(n, c.n - from);
            float *some = moe_run(&tested_ops, &c, &s, from, n, 1 + (int)(n % 3));
            for (size_t k = 0; k < (size_t)n * c.cols; k++)
                assert_int_equal(f32_bits(some[k]), f32_bits(all[(size_t)from * c.cols + k]));
            free(some);
        }
        free(all);
        stuff_free(&s);
    }
}

/* Equal logits: the lower id wins; logits that are no numbers choose something all the same. */
static void ties_choose_the_lower_expert(void **state) {
    (void)state;
    for (int bad = 0; bad < 2; bad++)
        for (int side = 0; side < 2; side++) {
            struct rng g = {.seed = 53};
            struct moe_case c = {.n = 3, .cols = 8, .inner = 8, .n_experts = 4, .top_k = 2, .t = DT_F32};
            c.act = ACT_SILU;
            struct stuff s = stuff_make(&g, &c);
            memset(s.router, 0, c.n_experts * c.cols * sizeof *s.router);
            if (bad)
                s.x[0] = NAN;
            float *all = moe_run(side ? &tested_ops : &ref_ops, &c, &s, 0, c.n, 2);
            memset((float *)s.down_data + 2 * c.cols * c.inner, 0, 2 * c.cols * c.inner * sizeof(float));
            float *first = moe_run(side ? &tested_ops : &ref_ops, &c, &s, 0, c.n, 2);
            for (uint32_t k = bad ? c.cols : 0; k < c.n * c.cols; k++) {
                assert_true(isfinite(all[k]));
                assert_int_equal(f32_bits(all[k]), f32_bits(first[k])); /* experts 2 and 3 were not asked */
            }
            assert_true(!bad || isnan(all[0]));
            free(all), free(first);
            stuff_free(&s);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_follow_the_formula),
        cmocka_unit_test(a_row_of_experts_keeps_its_bits),
        cmocka_unit_test(ties_choose_the_lower_expert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
