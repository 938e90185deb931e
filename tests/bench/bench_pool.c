/* bench_pool.c: how much of the machine an encoder's forward pass uses: MiniLM's shape (6 layers of 384, MLP
 * 1536, f32) with random weights, texts packed one behind the other without padding.
 *
 *   pool.peak_share   operations of products and attention of a step, over its time, as a share of the peak
 * of multiply-adds that touch registers only, on all threads
 *
 * One line for each length of text; the last for lengths as they come, from 8 tokens to 256. From the
 * embedding to the pooled and normalised vectors. Norms, activations and the pooling count as time, not as
 * operations. The yardstick is taken before and after every step, so that other load on the machine meets
 * both; medians are reported. share_cpu_time is the same share over CPU time instead of the clock's.
 * tests/bench/pool.py measures the whole server beside its peers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/bench.h"
#include "worker/cpu/probe.h"
#include "worker/cpu/team.h"
#include "worker/model/model.h"
#include "worker/pooler.h"

enum {
    HIDDEN = 384,
    MLP = 1536,
    N_LAYERS = 6,
    N_VOCAB = 30522,
    STEP_TOKENS = 1024,
    SEQS_MAX = 128,
    N_STEPS = 9
};

static const char config[] =
    "{\"architectures\":[\"BertModel\"],\"model_type\":\"bert\",\"hidden_size\":384,\"intermediate_size\":"
    "1536,"
    "\"num_hidden_layers\":6,\"num_attention_heads\":12,\"max_position_embeddings\":512,\"type_vocab_size\":"
    "2,"
    "\"vocab_size\":30522,\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-12,\"torch_dtype\":\"float32\"}";

struct bench {
    struct hf_config cfg;
    struct be *be;
    struct model *model;
    struct pooler *pooler;
    struct team *team;
    float hidden[STEP_TOKENS * HIDDEN];
};

/* texts: one step. */
struct texts {
    uint32_t n, start[SEQS_MAX + 1], len[SEQS_MAX], tokens[STEP_TOKENS];
    int32_t pos[STEP_TOKENS];
    uint8_t kind[SEQS_MAX], type[STEP_TOKENS];
};

static void die(const char *what) {
    fprintf(stderr, "bench_pool: %s\n", what);
    exit(1);
}

static void bench_open(struct bench *b) {
    char why[BE_ERR_BYTES];
    struct err e = {0};
    struct be_config cfg = {.n_ranks = 1,
                            .n_tokens_max = STEP_TOKENS,
                            .n_seqs_max = SEQS_MAX,
                            .n_rows_max = 1,
                            .n_vocab = N_VOCAB};
    if (hf_config_parse((struct str){config, sizeof config - 1}, NULL, &b->cfg, &e))
        die(e.msg);
    if (cpu_ops.open(&b->be, &cfg, why) != 0)
        die(why);
    struct model_opts o = {.ops = &cpu_ops,
                           .be = b->be,
                           .n_ranks = 1,
                           .n_tokens_max = STEP_TOKENS,
                           .pools = true,
                           .dummy = true};
    struct pooler_opts p = {
        .dir = ".", .config = &b->cfg, .pooler_config = "{\"pooling_type\":\"MEAN\"}", .task = "embed"};
    if (model_load(&b->model, &b->cfg, NULL, &o, &e) || pooler_load(&b->pooler, &p, &e))
        die(e.msg);
    b->team = team_start(team_cores());
    if (!b->team)
        die("no threads");
}

static void bench_close(struct bench *b) {
    team_stop(b->team);
    pooler_free(b->pooler);
    model_free(b->model);
    cpu_ops.close(b->be);
    hf_config_fini(&b->cfg);
}

/* texts_make: as many texts as fit a step; len 0: of lengths 8 to 256, short ones more often. */
static void texts_make(struct texts *t, uint32_t len) {
    uint32_t at = 0;
    uint64_t seed = 8;
    *t = (struct texts){0};
    while (t->n < SEQS_MAX && at < STEP_TOKENS) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t n = len ? len : 8u << (seed >> 40) % 6;
        n = MIN(n, STEP_TOKENS - at);
        t->kind[t->n] = ATTN_BIDIRECTIONAL;
        t->len[t->n++] = n;
        for (uint32_t i = 0; i < n; i++, at++) {
            t->tokens[at] = (t->n * 7919 + i * 104729) % N_VOCAB;
            t->pos[at] = (int32_t)i;
        }
        t->start[t->n] = at;
    }
}

/* step: one forward pass, and its texts pooled. */
static void step(struct bench *b, const struct texts *t) {
    struct batch batch = {.n_tokens = t->start[t->n],
                          .n_seqs = t->n,
                          .n_axes = 1,
                          .tokens = t->tokens,
                          .pos = t->pos,
                          .seq_start = t->start,
                          .kv_len = t->len,
                          .kind = t->kind,
                          .token_type = t->type};
    static const struct pool_ask ask = {.kind = POOL_EMBED, .activate = true};
    model_forward(b->model, &batch);
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t rows, cols;
        struct pool_state *s = pooling_start(b->pooler, &ask, t->len[i]);
        model_hidden(b->model, t->start[i], t->len[i], b->hidden);
        pooling_rows(s, b->hidden, 0, t->len[i]);
        if (!pooling_finish(s, &rows, &cols))
            die("a value is not a number");
        pooling_free(s);
    }
}

/* operations: a multiply-add is two; of attention both products, of every text with itself. */
static double operations(const struct texts *t) {
    double products = 2.0 * (4.0 * HIDDEN * HIDDEN + 2.0 * HIDDEN * MLP) * t->start[t->n], attention = 0;
    for (uint32_t i = 0; i < t->n; i++)
        attention += 4.0 * t->len[i] * t->len[i] * HIDDEN;
    return N_LAYERS * (products + attention);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v) {
    qsort(v, N_STEPS, sizeof *v, ascending);
    return v[N_STEPS / 2];
}

static void measure(struct bench *b, uint32_t len) {
    static struct texts t;
    double wall[N_STEPS], cpu[N_STEPS], pace[N_STEPS], limit[N_STEPS], limit_cpu[N_STEPS + 1];
    double peak[N_STEPS + 1];
    texts_make(&t, len);
    double work = operations(&t);
    step(b, &t);
    for (int i = 0; i <= N_STEPS; i++) {
        double from = bench_now_s(), from_cpu = bench_cpu_s(), ops = probe_fma(b->team);
        peak[i] = ops / (bench_now_s() - from);
        limit_cpu[i] = ops / (bench_cpu_s() - from_cpu);
        if (i == N_STEPS)
            break;
        from = bench_now_s();
        from_cpu = bench_cpu_s();
        step(b, &t);
        pace[i] = work / (bench_now_s() - from);
        cpu[i] = work / (bench_cpu_s() - from_cpu);
    }
    for (int i = 0; i < N_STEPS; i++) {
        limit[i] = (peak[i] + peak[i + 1]) / 2;
        wall[i] = pace[i] / limit[i];
        cpu[i] /= (limit_cpu[i] + limit_cpu[i + 1]) / 2;
    }
    double gflop_s = median(pace) * 1e-9, tokens_s = t.start[t.n] * gflop_s * 1e9 / work;
    char params[400];
    snprintf(
        params, sizeof params,
        "{\"text_tokens\":\"%.0u%s\",\"texts\":%u,\"tokens\":%u,\"dtype\":\"f32\",\"threads\":%d,"
        "\"gflop_s\":%.1f,\"limit_gflop_s\":%.1f,\"tokens_s\":%.0f,\"share_cpu_time\":%.3f,\"steps\":%d}",
        len, len ? "" : "8 to 256", t.n, t.start[t.n], team_size(b->team), gflop_s, median(limit) * 1e-9,
        tokens_s, median(cpu), N_STEPS);
    bench_emit("pool.peak_share", median(wall), "share", params);
}

int main(void) {
    static struct bench b;
    bench_open(&b);
    const uint32_t lens[] = {16, 64, 256, 0};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++)
        measure(&b, lens[i]);
    bench_close(&b);
    return 0;
}
