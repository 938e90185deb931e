/* Ranks: threads in place of processes, in memory that they share; on CPUs, and in tests/cuda on emulated devices that
 * reach each other's memory. Sums and gathers of the collectives, and whole models on 2 and 4 ranks against 1: the same
 * greedy tokens, logits within a bound, the same bits on every rank. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/model_run.h"

#ifdef PARITY_CUDA /* an emulated device is slow */
enum { N_TABLES = 1, N_GREEDY = 6, N_PROMPT = 7, MODEL_RANKS = 2 };
static const struct be_ops *table_at(size_t t) {
    (void)t;
    return be_plugin_ops(BE_ABI);
}
static const char *const models[] = {"llama", "qwen3"}, *const experts[] = {"qwen3_moe"};
#else
enum { N_TABLES = 2, N_GREEDY = 48, N_PROMPT = 40, MODEL_RANKS = 4 };
static const struct be_ops *table_at(size_t t) {
    return t ? &cpu_ops : &ref_ops;
}
static const char *const models[] = {"llama", "llama-yarn", "qwen3", "gemma2", "phi3"},
                         *const experts[] = {"mixtral", "qwen3_moe", "qwen3_moe_step"};
#endif
enum { RANKS_MAX = 4 };

/* A sum over ranks in another order moves a logit by rounding alone: some 1e-6 of values of a few units. */
#define LOGITS_BOUND 5e-5

struct rank {
    pthread_t thread;
    struct be_config cfg;
    const struct be_ops *ops;
    void (*run)(struct rank *r);
    void *arg;
    /* results */
    float *out;
    size_t n_out;
    uint32_t tokens[MODEL_RUN_LEN];
};

static void *rank_main(void *arg) {
    struct rank *r = arg;
    r->run(r);
    return NULL;
}

/* run_ranks: n threads, one rank each, in shared memory for cfg. */
static void run_ranks(struct rank *ranks, uint32_t n, const struct be_ops *ops, struct be_config cfg,
                      void (*run)(struct rank *r), void *arg) {
    cfg.n_ranks = (int)n;
    cfg.n_threads = cfg.n_threads ? cfg.n_threads : 1;
    cfg.compute = DT_F32;
    size_t bytes = ops->group_bytes(&cfg);
    cfg.group = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(cfg.group != MAP_FAILED);
    for (uint32_t i = 0; i < n; i++) {
        ranks[i] = (struct rank){.cfg = cfg, .ops = ops, .run = run, .arg = arg};
        ranks[i].cfg.rank = (int)i;
        assert_int_equal(pthread_create(&ranks[i].thread, NULL, rank_main, &ranks[i]), 0);
    }
    for (uint32_t i = 0; i < n; i++)
        pthread_join(ranks[i].thread, NULL);
    munmap(cfg.group, bytes);
}

/* ---- operations ----------------------------------------------------------------------------------- */

enum { ROWS = 401, IN = 36, OUT = 29, VOCAB = 53 }; /* rows: three pieces of a sum, the last one short */

static float value(uint32_t seed, size_t i) {
    return (float)((i * 2654435761u + seed * 40503u) % 2001) / 1000.0f - 1.0f;
}

static float *values(uint32_t seed, size_t n) {
    float *v = xcalloc(n, sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = value(seed, i);
    return v;
}

static struct be_w *pack(struct rank *r, struct be *be, enum be_weight_kind kind, const float *data,
                         uint32_t rows, uint32_t cols, uint32_t row0, uint32_t n_rows, uint32_t col0,
                         uint32_t n_cols) {
    char why[BE_ERR_BYTES] = "";
    struct be_weight_src src = {
        .data = data, .dtype = DT_F32, .rows = rows, .cols = cols, .row0 = row0, .col0 = col0};
    src.n_rows = n_rows;
    src.n_cols = n_cols;
    struct be_w *w = r->ops->weight(be, kind, &src, 1, why);
    CHECK(w);
    return w;
}

/* collect: what a rank saw, behind what it saw before. */
static void collect(struct rank *r, const float *v, size_t n) {
    r->out = xreallocarray(r->out, r->n_out + n, sizeof *v);
    memcpy(r->out + r->n_out, v, n * sizeof *v);
    r->n_out += n;
}

/* share: the part of `all` that a rank has. */
static void share(const struct rank *r, uint32_t all, uint32_t *first, uint32_t *n) {
    *first = all * (uint32_t)r->cfg.rank / (uint32_t)r->cfg.n_ranks;
    *n = all * ((uint32_t)r->cfg.rank + 1) / (uint32_t)r->cfg.n_ranks - *first;
}

/* An embedding, a product with bias, activation and residual, and logits, cut by ranks. */
static void ops_run(struct rank *r) {
    char why[BE_ERR_BYTES] = "";
    struct be *be;
    CHECK(r->ops->open(&be, &r->cfg, why) == 0);
    float *table = values(1, VOCAB * IN), *matrix = values(2, OUT * IN), *bias = values(3, OUT),
          *add = values(4, ROWS * OUT);
    float *head = values(5, VOCAB * OUT), *got = xcalloc((size_t)ROWS * MAX(IN, VOCAB), sizeof *got);
    uint32_t v0, nv, c0, nc, tokens[ROWS], rows[ROWS], start[2] = {0, ROWS}, len = ROWS;
    int32_t pos[ROWS];
    share(r, VOCAB, &v0, &nv);
    share(r, IN, &c0, &nc);
    for (uint32_t i = 0; i < ROWS; i++) {
        tokens[i] = i * 7 % VOCAB;
        rows[i] = ROWS - 1 - i;
        pos[i] = (int32_t)i;
    }
    struct batch b = {
        .n_tokens = ROWS, .n_seqs = 1, .n_rows = ROWS, .n_axes = 1, .tokens = tokens, .pos = pos};
    b.seq_start = start;
    b.kv_len = &len;
    b.rows = rows;
    struct be_w *e = pack(r, be, BE_W_EMBED, table, VOCAB, IN, v0, nv, 0, IN);
    struct be_w *w = pack(r, be, BE_W_LINEAR, matrix, OUT, IN, 0, OUT, c0, nc);
    struct be_w *bw = pack(r, be, BE_W_VECTOR, bias, OUT, 1, 0, OUT, 0, 1);
    struct be_w *h = pack(r, be, BE_W_LINEAR, head, VOCAB, OUT, v0, nv, 0, OUT);
    struct be_mem *x = r->ops->mem_new(be, ROWS, IN, DT_NONE), *part = r->ops->mem_new(be, ROWS, nc, DT_NONE);
    struct be_mem *y = r->ops->mem_new(be, ROWS, OUT, DT_NONE);
    for (int round = 0; round < 3; round++) {
        r->ops->plan(be, &b);
        r->ops->embed(
            be, &(struct op_embed){.y = x, .tokens = e, .scale = 2, .cols = IN, .sharded = true, .row0 = v0});
        r->ops->mem_get(be, x, 0, ROWS, got);
        collect(r, got, (size_t)ROWS * IN);
        float *mine = xcalloc((size_t)ROWS * nc, sizeof *mine); /* this rank's columns of x */
        for (size_t i = 0; i < ROWS; i++)
            memcpy(mine + i * nc, got + i * IN + c0, nc * sizeof *mine);
        r->ops->mem_put(be, part, 0, ROWS, mine);
        free(mine);
        r->ops->mem_put(be, y, 0, ROWS, add);
        r->ops->gemm(be,
                     &(struct op_gemm){
                         .y = y, .x = part, .w = w, .bias = bw, .act = ACT_RELU, .add = y, .reduce = true});
        r->ops->mem_get(be, y, 0, ROWS, got);
        collect(r, got, (size_t)ROWS * OUT);
        r->ops->logits(be, &(struct op_logits){.x = y, .w = h, .scale = 0.5f, .sharded = true, .col0 = v0});
        for (uint32_t i = 0; i < ROWS; i++)
            r->ops->logits_get(be, i, got + (size_t)i * VOCAB);
        collect(r, got, (size_t)ROWS * VOCAB);
        CHECK(r->ops->wait(be, why) == 0);
    }
    r->ops->close(be);
    free(table), free(matrix), free(bias), free(add), free(head), free(got);
}

static void test_collectives(void **state) {
    (void)state;
    struct be_config cfg = {
        .n_tokens_max = ROWS, .n_seqs_max = 1, .n_rows_max = ROWS, .n_vocab = VOCAB, .n_reduce_cols = IN};
    for (size_t t = 0; t < N_TABLES; t++) {
        const struct be_ops *ops = table_at(t);
        struct rank alone = {.cfg = cfg, .ops = ops}, ranks[RANKS_MAX];
        alone.cfg.n_ranks = 1;
        alone.cfg.compute = DT_F32;
        alone.cfg.n_threads = 2;
        ops_run(&alone);
        for (uint32_t n = 2; n <= RANKS_MAX; n++) {
            cfg.n_threads = n == 2 ? 2 : 1;
            run_ranks(ranks, n, ops, cfg, ops_run, NULL);
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(ranks[i].n_out, alone.n_out);
                assert_memory_equal(ranks[i].out, ranks[0].out, alone.n_out * sizeof(float));
                for (size_t k = 0; k < alone.n_out; k++)
                    if (!(fabsf(ranks[i].out[k] - alone.out[k]) <= 2e-5f))
                        fail_msg("%s, rank %u of %u: value %zu is %.8g, alone %.8g", ops->name, i, n, k,
                                 (double)ranks[i].out[k], (double)alone.out[k]);
            }
            for (uint32_t i = 0; i < n; i++)
                free(ranks[i].out);
        }
        free(alone.out);
    }
}

/* ---- a rank that is gone -------------------------------------------------------------------------- */

/* Rank 1 never comes; the others are told, and give up. */
static void lone_run(struct rank *r) {
    char why[BE_ERR_BYTES] = "";
    struct be *be;
    uint32_t start[2] = {0, 1}, token = 0, len = 1;
    int32_t pos = 0;
    float *table = values(1, VOCAB * IN);
    CHECK(r->ops->open(&be, &r->cfg, why) == 0);
    struct be_w *e = pack(r, be, BE_W_EMBED, table, VOCAB, IN, 0, VOCAB, 0, IN);
    struct be_mem *x = r->ops->mem_new(be, 1, IN, DT_NONE);
    struct batch b = {
        .n_tokens = 1, .n_seqs = 1, .n_axes = 1, .tokens = &token, .pos = &pos, .seq_start = start};
    b.kv_len = &len;
    r->ops->plan(be, &b);
    if (r->cfg.rank == 1) {
        usleep(20000);
        snprintf(r->cfg.group->why, sizeof r->cfg.group->why, "rank 1 is gone");
        __atomic_store_n(&r->cfg.group->failed, 1, __ATOMIC_RELEASE);
    } else {
        for (int i = 0; i < 3; i++) /* none of them waits any more once it is known */
            r->ops->embed(be, &(struct op_embed){.y = x, .tokens = e, .cols = IN, .sharded = true});
        CHECK(r->ops->wait(be, why) != 0);
        CHECK(strcmp(why, "rank 1 is gone") == 0);
        CHECK(__atomic_load_n(&r->cfg.group->reached[0], __ATOMIC_RELAXED) == 1);
    }
    r->ops->close(be);
    free(table);
}

static void test_gone(void **state) {
    (void)state;
    struct be_config cfg = {
        .n_tokens_max = 1, .n_seqs_max = 1, .n_rows_max = 1, .n_vocab = VOCAB, .n_reduce_cols = IN};
    struct rank ranks[2];
    run_ranks(ranks, 2, table_at(N_TABLES - 1), cfg, lone_run, NULL);
}

/* ---- models --------------------------------------------------------------------------------------- */

struct text {
    const struct hf_config *cfg;
    const struct st_set *set;
    uint32_t prompt[64], n;
};

static void model_rank(struct rank *r) {
    const struct text *x = r->arg;
    struct model_run m;
    model_run_open(&m, x->cfg, x->set, r->ops, &r->cfg);
    memcpy(r->tokens, x->prompt, x->n * sizeof *x->prompt);
    model_run_greedy(&m, r->tokens, x->n, N_GREEDY);
    collect(r, m.logits, (size_t)(x->n + N_GREEDY - 1) * m.vocab);
    model_run_close(&m);
}

static void check_model(const char *name, const struct hf_config *cfg, const struct st_set *set) {
    struct text x = {.cfg = cfg, .set = set, .n = N_PROMPT};
    for (uint32_t i = 0; i < x.n; i++)
        x.prompt[i] = (i * 31 + 5) % cfg->vocab;
    struct be_config bc = {.n_reduce_cols = cfg->hidden, .n_vocab = cfg->vocab, .n_rows_max = MODEL_RUN_LEN};
    for (size_t t = 0; t < N_TABLES; t++) {
        const struct be_ops *ops = table_at(t);
        struct rank alone = {.cfg = bc, .ops = ops, .arg = &x}, ranks[RANKS_MAX];
        alone.cfg.n_ranks = alone.cfg.n_threads = 1;
        alone.cfg.compute = DT_F32;
        model_rank(&alone);
        for (uint32_t n = 2; n <= MODEL_RANKS; n += 2) {
            double worst = 0;
            run_ranks(ranks, n, ops, bc, model_rank, &x);
            for (uint32_t i = 0; i < n; i++) {
                assert_memory_equal(ranks[i].out, ranks[0].out, alone.n_out * sizeof(float));
                assert_memory_equal(ranks[i].tokens, alone.tokens, (x.n + N_GREEDY) * sizeof *alone.tokens);
            }
            for (size_t k = 0; k < alone.n_out; k++)
                worst = fmax(worst, fabs((double)ranks[0].out[k] - (double)alone.out[k]));
            if (!(worst <= LOGITS_BOUND))
                fail_msg("%s, %s, %u ranks: logits differ by %.3g", name, ops->name, n, worst);
            print_message("%s, %s, %u ranks: logits within %.2g of one rank's\n", name, ops->name, n,
                          worst);
            for (uint32_t i = 0; i < n; i++)
                free(ranks[i].out);
        }
        free(alone.out);
    }
}

static void parse(const char *text, struct hf_config *cfg) {
    struct err e = {0};
    if (hf_config_parse((struct str){text, strlen(text)}, NULL, cfg, &e))
        fail_msg("%s", e.msg);
}

/* Two KV heads: four ranks keep copies. Windows, norms of heads, tied embeddings, biases, a vocabulary that
 * does not divide. */
static void test_models(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        char path[128];
        struct hf_config cfg;
        struct st_set *set;
        struct err e = {0};
        snprintf(path, sizeof path, "tests/golden/models/%s/config.json", models[i]);
        json_t *json = json_load_file(path, 0, NULL);
        assert_non_null(json);
        char *text = json_dumps(json, 0);
        parse(text, &cfg);
        snprintf(path, sizeof path, "tests/golden/models/%s", models[i]);
        if (st_open(&set, path, &e))
            fail_msg("%s", e.msg);
        check_model(models[i], &cfg, set);
        st_close(set);
        hf_config_fini(&cfg);
        free(text);
        json_decref(json);
    }
}

static void test_experts(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(experts); i++) {
        char path[128];
        struct hf_config cfg;
        snprintf(path, sizeof path, "tests/golden/moe/%s.json", experts[i]);
        json_t *json = json_load_file(path, 0, NULL);
        assert_non_null(json);
        char *text = json_dumps(json_object_get(json, "config"), 0);
        parse(text, &cfg);
        check_model(experts[i], &cfg, NULL);
        hf_config_fini(&cfg);
        free(text);
        json_decref(json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_experts),
    };
    return cmocka_run_group_tests_name("parity_ranks", tests, NULL, NULL);
}
