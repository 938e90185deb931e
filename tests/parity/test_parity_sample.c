/* Sampling: cpu_ops equals ref_ops to the bit, and both do what api.md 8.1 says. threads: tsan */
#include "tests/parity/parity.h"

#ifdef PARITY_CUDA
enum { N_CASES = 16, N_DRAWS = 200 }; /* emulated threads are slow */
#else
enum { N_CASES = 400, N_DRAWS = 20000 };
#endif
enum { N_ROWS = 4, VOCAB_MAX = 3000, TOP_MAX = 30 };

static struct rig open_vocab(const struct be_ops *ops, uint32_t n_vocab, int n_threads) {
    return rig_open(ops,
                    (struct be_config){.n_threads = n_threads, .n_rows_max = N_ROWS, .n_vocab = n_vocab});
}

static const struct sample_row neutral = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

/* request: a row with the arrays it points to. */
struct request {
    struct sample_row row;
    struct sample_seen seen[64];
    struct sample_bias bias[16];
    uint32_t banned[16], mask[VOCAB_MAX / 32 + 1];
};

/* ids: up to `most` ascending ids. */
static uint32_t ids(struct rng *g, uint32_t *id, uint32_t most, uint32_t n_vocab) {
    uint32_t n = 0;
    for (uint32_t at = rng_below(g, n_vocab); n < most && at < n_vocab;
         at += 1 + rng_below(g, n_vocab / most + 1))
        id[n++] = at;
    return n;
}

static void request_make(struct rng *g, struct request *q, uint32_t n_vocab, int i) {
    static const float temperatures[] = {0, 1, 0.7f, 0.01f, 2, 1e-30f};
    uint32_t id[64];
    memset(q, 0, sizeof *q);
    q->row = (struct sample_row){
        .temperature = temperatures[i % 6],
        .top_p = i % 3 ? (float)rng_range(g, 1, 100) / 100 : 1,
        .min_p = i % 5 == 1 ? (float)rng_range(g, 0, 100) / 200 : 0,
        .top_k = i % 4 == 2   ? rng_range(g, 1, n_vocab + 3)
                 : i % 4 == 3 ? rng_range(g, 1, 20)
                              : 0,
        .repetition_penalty = i % 7 == 3 ? 1.3f : 1,
        .frequency_penalty = i % 8 == 4 ? 0.6f : 0,
        .presence_penalty = i % 9 == 5 ? -0.4f : 0,
        .seed = rng_u64(g),
        .position = rng_below(g, 1000),
        .seen = q->seen,
        .bias = q->bias,
        .banned = q->banned,
        .n_top = i % 2 ? rng_below(g, MIN(TOP_MAX, n_vocab) + 1) : 0,
        .logprobs_mode = (uint32_t)i / 2 % 4,
        .want_logprob = i % 3 != 1,
    };
    q->row.n_seen = ids(g, id, 64, n_vocab);
    for (uint32_t k = 0; k < q->row.n_seen; k++)
        q->seen[k] = (struct sample_seen){.id = id[k], .n_output = rng_below(g, 4), .in_prompt = k % 2};
    q->row.n_bias = i % 5 == 2 ? ids(g, id, 16, n_vocab) : 0;
    for (uint32_t k = 0; k < q->row.n_bias; k++)
        q->bias[k] = (struct sample_bias){.id = id[k], .value = 3 * rng_normal(g)};
    q->row.n_banned = i % 6 == 3 ? ids(g, q->banned, 16, n_vocab) : 0;
    if (i % 11 == 6) {
        for (uint32_t k = 0; k <= n_vocab / 32; k++)
            q->mask[k] = (uint32_t)rng_u64(g) & (i % 22 == 6 ? 0x01010101u : ~0u);
        q->row.mask = q->mask;
    }
}

/* logits: rough ones have many ties, spread ones some minus infinities. */
static float *logits_make(struct rng *g, uint32_t n, int i) {
    float *l = rng_floats(g, n, i % 5 ? 4 : 30);
    for (uint32_t k = 0; k < n; k++) {
        if (i % 3 == 1)
            l[k] = roundf(l[k]);
        if (i % 7 == 2 && rng_below(g, 3) == 0)
            l[k] = -INFINITY;
        if (i % 97 == 13 && k == n / 2)
            l[k] = i % 2 ? NAN : INFINITY;
        if (i % 53 == 7)
            l[k] = 0;
    }
    return l;
}

static void cpu_equals_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 51};
    static struct request q[N_ROWS];
    for (int i = 0; i < N_CASES; i++) {
        uint32_t n_vocab = i % 4 ? rng_range(&g, 1, 300) : rng_range(&g, 301, VOCAB_MAX);
        struct rig r[2] = {open_vocab(&ref_ops, n_vocab, 1), open_vocab(&tested_ops, n_vocab, 2)};
        struct sample_row rows[N_ROWS];
        struct sample_out out[2][N_ROWS];
        uint32_t top_ids[2][N_ROWS][TOP_MAX];
        float tops[2][N_ROWS][TOP_MAX];
        memset(top_ids, 0xEE, sizeof top_ids);
        memset(tops, 0xEE, sizeof tops);
        memset(out, 0xEE, sizeof out);
        for (int k = 0; k < N_ROWS; k++) {
            float *l = logits_make(&g, n_vocab, i * N_ROWS + k);
            request_make(&g, &q[k], n_vocab, i * N_ROWS + k + (int)rng_below(&g, 1000));
            rows[k] = q[k].row;
            for (int s = 0; s < 2; s++) {
                r[s].ops->logits_put(r[s].b, (uint32_t)k, l);
                out[s][k].top_ids = top_ids[s][k];
                out[s][k].top_logprobs = tops[s][k];
            }
            free(l);
        }
        for (int s = 0; s < 2; s++) {
            r[s].ops->sample(r[s].b, rows, out[s], N_ROWS);
            rig_wait(r[s]);
        }
        for (int k = 0; k < N_ROWS; k++) {
            assert_int_equal(out[1][k].id, out[0][k].id);
            assert_int_equal(out[1][k].nan, out[0][k].nan);
            assert_int_equal(f32_bits(out[1][k].logprob), f32_bits(out[0][k].logprob));
            assert_int_equal(out[1][k].rank, out[0][k].rank);
            assert_memory_equal(top_ids[1][k], top_ids[0][k], sizeof top_ids[0][k]);
            assert_memory_equal(tops[1][k], tops[0][k], sizeof tops[0][k]);
        }
        r[0].ops->close(r[0].b);
        r[1].ops->close(r[1].b);
    }
}

static void prompt_logprobs_equal_reference(void **state) {
    (void)state;
    struct rng g = {.seed = 52};
    for (int i = 0; i < 100; i++) {
        uint32_t n = rng_range(&g, 1, 500), target = rng_below(&g, n),
                 n_top = rng_below(&g, MIN(TOP_MAX, n) + 1);
        float *l = rng_floats(&g, n, 3), tops[2][TOP_MAX];
        uint32_t top_ids[2][TOP_MAX], rank = 1;
        struct sample_out out[2];
        double sum = 0;
        for (int s = 0; s < 2; s++) {
            struct rig r = open_vocab(s ? &tested_ops : &ref_ops, n, 1);
            out[s] = (struct sample_out){.top_ids = top_ids[s], .top_logprobs = tops[s]};
            r.ops->logits_put(r.b, 2, l);
            r.ops->row_logprobs(
                r.b, &(struct op_row_logprobs){.row = 2, .target = target, .n_top = n_top, .out = &out[s]},
                1);
            rig_wait(r);
            r.ops->close(r.b);
        }
        for (uint32_t k = 0; k < n; k++) {
            sum += exp((double)l[k]);
            rank += l[k] > l[target] || (l[k] == l[target] && k < target);
        }
        assert_int_equal(out[0].rank, rank);
        assert_int_equal(out[1].rank, rank);
        assert_int_equal(out[1].id, target);
        assert_int_equal(f32_bits(out[0].logprob), f32_bits(out[1].logprob));
        /* sample.h's 1e-6, and the roundings of d and of the result, both below 40 */
        expect_near(out[1].logprob, (double)l[target] - log(sum), 1e-6 + 2 * 40 * U, "logprob", (size_t)i);
        assert_memory_equal(top_ids[0], top_ids[1], n_top * sizeof top_ids[0][0]);
        assert_memory_equal(tops[0], tops[1], n_top * sizeof tops[0][0]);
        if (n_top >= rank)
            assert_int_equal(top_ids[1][rank - 1], target);
        free(l);
    }
}

/* draws: counts of N_DRAWS samples of one row, by position. */
static void draws(const float *l, uint32_t n, struct sample_row row, uint32_t *counts) {
    struct rig r = open_vocab(&tested_ops, n, 1);
    struct sample_out out;
    memset(counts, 0, n * sizeof *counts);
    r.ops->logits_put(r.b, 0, l);
    for (uint32_t i = 0; i < N_DRAWS; i++) {
        row.position = i;
        r.ops->sample(r.b, &row, &out, 1);
        rig_wait(r);
        assert_in_range(out.id, 0, n - 1);
        counts[out.id]++;
    }
    r.ops->close(r.b);
}

/* kept: probabilities in f64 after the filters, by the words of api.md 8.1: 0 for what is dropped. */
static void kept(const float *l, uint32_t n, const struct sample_row *row, double *p) {
    double max = -INFINITY, sum = 0, mass = 0;
    uint32_t order[64];
    CHECK(n <= 64);
    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, l[i]);
    for (uint32_t i = 0; i < n; i++) {
        p[i] = exp((l[i] - max) / row->temperature);
        order[i] = i;
        if (p[i] < row->min_p)
            p[i] = 0;
    }
    for (uint32_t i = 0; i < n; i++) /* best first, lower id first among equals */
        for (uint32_t j = i + 1; j < n; j++)
            if (l[order[j]] > l[order[i]] || (l[order[j]] == l[order[i]] && order[j] < order[i])) {
                uint32_t t = order[i];
                order[i] = order[j];
                order[j] = t;
            }
    for (uint32_t i = 0; i < n; i++) {
        if (row->top_k && i >= row->top_k)
            p[order[i]] = 0;
        sum += p[order[i]];
    }
    for (uint32_t i = 0; i < n; i++) {
        double share = p[order[i]] / sum;
        if (mass >= row->top_p)
            p[order[i]] = 0;
        mass += share;
    }
    sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += p[i];
    for (uint32_t i = 0; i < n; i++)
        p[i] /= sum;
}

/* Chi-square over the kept tokens that are expected at least 5 times. With k degrees of freedom the
 * statistic's mean is k and its deviation sqrt(2k); 5 deviations above are exceeded once in a million at
 * these k. Seeds are fixed. */
static void draws_follow_the_distribution(void **state) {
    (void)state;
    struct rng g = {.seed = 53};
    for (int i = 0; i < 12; i++) {
        uint32_t n = rng_range(&g, 10, 60), counts[64], free_degrees = 0;
        float *l = rng_floats(&g, n, 1.5f);
        struct sample_row row = neutral;
        double p[64], chi = 0;
        row.seed = rng_u64(&g);
        row.temperature = i % 3 ? 0.8f : 1.0f;
        row.top_k = i % 4 == 1 ? 7 : 0;
        row.top_p = i % 4 == 2 ? 0.83f : 1;
        row.min_p = i % 4 == 3 ? 0.02f : 0;
        if (i == 11)
            row.top_k = 9, row.top_p = 0.7f, row.min_p = 0.05f;
        draws(l, n, row, counts);
        kept(l, n, &row, p);
        for (uint32_t k = 0; k < n; k++) {
            double want = p[k] * N_DRAWS;
            if (p[k] == 0)
                assert_int_equal(counts[k], 0);
            if (want < 5)
                continue;
            chi += (counts[k] - want) * (counts[k] - want) / want;
            free_degrees++;
        }
        assert_true(free_degrees >= 2);
        expect_near(chi, free_degrees, 5 * sqrt(2.0 * free_degrees), "chi-square", (size_t)i);
        free(l);
    }
}

/* Bias, then repetition, frequency and presence; then masks; seen through the processed logits. */
static void penalties_come_in_order(void **state) {
    (void)state;
    const float l[6] = {2, -2, 1, 0.5f, 3, -1};
    const struct sample_seen seen[] = {{.id = 0, .n_output = 2},
                                       {.id = 1, .n_output = 0, .in_prompt = 1},
                                       {.id = 3, .n_output = 1, .in_prompt = 1},
                                       {.id = 99, .n_output = 1}};
    const struct sample_bias bias[] = {{.id = 0, .value = 1}, {.id = 4, .value = 50}};
    const uint32_t banned[] = {4}, mask[] = {0x3D}; /* 1 is not in the mask */
    const float want[6] = {3 / 2.0f - 2 * 0.25f - 0.125f, -INFINITY, 1,
                           0.5f / 2 - 0.25f - 0.125f,     -INFINITY, -1};
    struct sample_row row = {.top_p = 1,
                             .repetition_penalty = 2,
                             .frequency_penalty = 0.25f,
                             .presence_penalty = 0.125f,
                             .seen = seen,
                             .n_seen = 4,
                             .bias = bias,
                             .n_bias = 2,
                             .banned = banned,
                             .n_banned = 1,
                             .mask = mask,
                             .n_top = 6,
                             .logprobs_mode = BE_PROCESSED_LOGITS,
                             .want_logprob = true};
    for (int s = 0; s < 2; s++) {
        struct rig r = open_vocab(s ? &tested_ops : &ref_ops, 6, 1);
        uint32_t top[6];
        float value[6];
        struct sample_out out = {.top_ids = top, .top_logprobs = value};
        r.ops->logits_put(r.b, 0, l);
        r.ops->sample(r.b, &row, &out, 1);
        rig_wait(r);
        assert_int_equal(out.id, 2);
        assert_true(out.logprob == 1);
        for (int k = 0; k < 6; k++)
            assert_true(value[k] == want[top[k]]);
        assert_int_equal(top[4], 1); /* both masked: the lower id first */
        assert_int_equal(top[5], 4);
        r.ops->close(r.b);
    }
}

static struct sample_out one(const struct be_ops *ops, const float *l, uint32_t n,
                             const struct sample_row *row) {
    struct rig r = open_vocab(ops, n, 1);
    struct sample_out out;
    r.ops->logits_put(r.b, 0, l);
    r.ops->sample(r.b, row, &out, 1);
    rig_wait(r);
    r.ops->close(r.b);
    return out;
}

static void edges(void **state) {
    (void)state;
    const struct be_ops *const tables[] = {&ref_ops, &tested_ops};
    for (int s = 0; s < 2; s++) {
        float l[40] = {0};
        uint32_t mask[2] = {0};
        struct sample_row row = neutral;
        row.want_logprob = true;
        l[7] = l[9] = 1;
        row.temperature = 0;
        assert_int_equal(one(tables[s], l, 40, &row).id, 7);
        row.temperature = 1e-38f; /* only the two best weigh anything */
        struct sample_out out = one(tables[s], l, 40, &row);
        assert_true((out.id == 7 || out.id == 9) && !out.nan && isfinite(out.logprob));
        l[3] = 3e38f; /* differences overflow, nothing else does */
        l[4] = -3e38f;
        row.logprobs_mode = BE_PROCESSED_LOGITS;
        out = one(tables[s], l, 40, &row);
        assert_true(out.id == 3 && isfinite(out.logprob));
        row.repetition_penalty = 1e-30f;
        row.seen = &(struct sample_seen){.id = 3, .n_output = 1};
        row.n_seen = 1;
        out = one(tables[s], l, 40, &row);
        assert_true(out.id == 3 && !out.nan);
        row.mask = mask;
        out = one(tables[s], l, 40, &row);
        assert_true(out.id == BE_NO_TOKEN && !out.nan);
        mask[1] = 0x80; /* id 39 alone */
        assert_int_equal(one(tables[s], l, 40, &row).id, 39);
        l[39] = -INFINITY;
        assert_int_equal(one(tables[s], l, 40, &row).id, BE_NO_TOKEN);
        l[0] = NAN;
        out = one(tables[s], l, 40, &row);
        assert_true(out.id == BE_NO_TOKEN && out.nan);
        l[0] = INFINITY;
        row = neutral;
        out = one(tables[s], l, 40, &row);
        assert_true(out.id == BE_NO_TOKEN && out.nan);
        l[0] = 0;
        row.min_p = 2; /* the best survives every filter */
        row.top_k = 1;
        row.top_p = 0;
        assert_int_equal(one(tables[s], l, 40, &row).id, 3);
    }
}

/* from_row takes the ids of the last sample call as tokens of the next step. */
static void sampled_ids_feed_the_next_step(void **state) {
    (void)state;
    enum { N = 5 };
    float w[N * 2], logits[N] = {0, 0, 0, 9, 0};
    for (int i = 0; i < N * 2; i++)
        w[i] = (float)i;
    struct rig r = rig_open(
        &tested_ops, (struct be_config){
                      .n_threads = 1, .n_tokens_max = 2, .n_seqs_max = 1, .n_rows_max = 1, .n_vocab = N});
    struct sample_row greedy = {.top_p = 1};
    struct sample_out out;
    r.ops->logits_put(r.b, 0, logits);
    r.ops->sample(r.b, &greedy, &out, 1);
    rig_wait(r);
    uint32_t tokens[2] = {1, 1}, from[2] = {0, 1}, starts[2] = {0, 2};
    struct batch batch = {
        .n_tokens = 2, .n_seqs = 1, .tokens = tokens, .seq_start = starts, .from_row = from};
    r.ops->plan(r.b, &batch);
    struct be_mem *y = rig_mem(r, NULL, 2, 2);
    r.ops->embed(r.b,
                 &(struct op_embed){.y = y, .tokens = rig_weight(r, BE_W_EMBED, w, DT_F32, N, 2), .cols = 2});
    float *got = rig_get(r, y, 2, 2);
    assert_true(got[0] == 2 && got[1] == 3 && got[2] == 6 && got[3] == 7);
    free(got);
    r.ops->close(r.b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_equals_reference),
        cmocka_unit_test(prompt_logprobs_equal_reference),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(penalties_come_in_order),
        cmocka_unit_test(edges),
        cmocka_unit_test(sampled_ids_feed_the_next_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
