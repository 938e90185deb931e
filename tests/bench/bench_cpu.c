/* bench_cpu.c: how much of the machine the CPU backend uses on a 0.5B-shaped bf16 model, built from the
 * operations with random weights.
 *
 *   cpu.decode_bandwidth_share   bytes of weights that a step reads, over its time; of 1, 4, 16 sequences
 *   cpu.prefill_peak_share       operations of the products of a 512-token step, over its time
 *
 * They are shares of the bandwidth of a plain read, and of the peak of multiply-adds that touch registers
 * only, both on all threads. A step goes from embedding to sampled token.
 *
 * The yardsticks are taken between the steps, so that other load on the machine meets both; medians are
 * reported. share_cpu_time is the same share over CPU time instead of the clock's, for machines that are not
 * quiet. A step of 16 sequences needs more multiply-adds than its weights' transfer leaves time for: its
 * share is bound by arithmetic.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/bench.h"
#include "worker/backend.h"
#include "worker/cpu/probe.h"
#include "worker/cpu/team.h"

enum {
    HIDDEN = 896,
    N_LAYERS = 24,
    N_HEADS = 14,
    N_KV_HEADS = 2,
    HEAD_DIM = 64,
    MLP = 4864,
    N_VOCAB = 151936,
    QKV = (N_HEADS + 2 * N_KV_HEADS) * HEAD_DIM,
    N_PREFILL = 512,
    CONTEXT = 64, /* tokens already in the cache of a decoding sequence */
    N_SEQS = 16,
    N_BLOCKS = (N_PREFILL + N_SEQS * (CONTEXT + KV_BLOCK_TOKENS)) / KV_BLOCK_TOKENS,
};
static const size_t READ_BYTES = 1 * GIB; /* as much as a step reads, lest a large cache answer */

struct layer {
    struct be_w *norm1, *qkv, *bias, *o, *norm2, *gate_up, *down;
};

struct model {
    const struct be_ops *ops;
    struct be *b;
    struct layer layers[N_LAYERS];
    struct be_w *embed, *norm, *inv_freq;
    struct be_mem *x, *row, *attn, *mlp;
    uint64_t matrix_bytes; /* of what a step reads whole: every matrix once */
};

static void die(const char *what) {
    fprintf(stderr, "bench_cpu: %s\n", what);
    exit(1);
}

/* weight: from a pool of random bits; values are below 1/64, so activations stay in range. */
static struct be_w *weight(struct model *m, enum be_weight_kind kind, const uint16_t *data, uint32_t rows,
                           uint32_t cols) {
    struct be_weight_src src[2] = {{.data = data, .dtype = DT_BF16, .rows = rows, .cols = cols}};
    char err[BE_ERR_BYTES];
    bool two = kind == BE_W_GATE_UP;
    if (two) {
        src[0].n_rows = src[1].row0 = rows / 2;
        src[1] = (struct be_weight_src){
            .data = data, .dtype = DT_BF16, .rows = rows, .cols = cols, .row0 = rows / 2};
    }
    struct be_w *w = m->ops->weight(m->b, kind, src, two ? 2 : 1, err);
    if (!w)
        die(err);
    if (kind != BE_W_VECTOR)
        m->matrix_bytes += m->ops->weight_bytes(w);
    return w;
}

static void model_open(struct model *m) {
    struct be_config cfg = {
        .n_tokens_max = N_PREFILL, .n_seqs_max = N_SEQS, .n_rows_max = N_SEQS, .n_vocab = N_VOCAB};
    char err[BE_ERR_BYTES];
    m->ops = &cpu_ops;
    if (m->ops->open(&m->b, &cfg, err) != 0)
        die(err);
    size_t n = (size_t)N_VOCAB * HIDDEN;
    uint16_t *bits = xmalloc(n * sizeof *bits);
    uint64_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        bits[i] = (uint16_t)((s >> 48 & 0x80FF) | 0x3B00); /* +-[2^-9, 2^-6) */
    }
    for (int i = 0; i < N_LAYERS; i++)
        m->layers[i] = (struct layer){
            .norm1 = weight(m, BE_W_VECTOR, bits, 1, HIDDEN),
            .qkv = weight(m, BE_W_LINEAR, bits + 97 * i, QKV, HIDDEN),
            .bias = weight(m, BE_W_VECTOR, bits, 1, QKV),
            .o = weight(m, BE_W_LINEAR, bits + 101 * i, HIDDEN, HEAD_DIM * N_HEADS),
            .norm2 = weight(m, BE_W_VECTOR, bits, 1, HIDDEN),
            .gate_up = weight(m, BE_W_GATE_UP, bits + 103 * i, 2 * MLP, HIDDEN),
            .down = weight(m, BE_W_LINEAR, bits + 107 * i, HIDDEN, MLP),
        };
    m->embed = weight(m, BE_W_EMBED, bits, N_VOCAB, HIDDEN);
    m->norm = weight(m, BE_W_VECTOR, bits, 1, HIDDEN);
    m->inv_freq = weight(m, BE_W_VECTOR, bits, 1, HEAD_DIM / 2);
    free(bits);
    m->x = m->ops->mem_new(m->b, N_PREFILL, HIDDEN, DT_NONE);
    m->row = m->ops->mem_new(m->b, N_PREFILL, QKV, DT_NONE);
    m->attn = m->ops->mem_new(m->b, N_PREFILL, HEAD_DIM * N_HEADS, DT_NONE);
    m->mlp = m->ops->mem_new(m->b, N_PREFILL, MLP, DT_NONE);
    struct cache_group_spec spec = {.kind = CACHE_FULL,
                                    .n_layers = N_LAYERS,
                                    .n_kv_heads = N_KV_HEADS,
                                    .head_dim = HEAD_DIM,
                                    .dtype = DT_BF16};
    if (!m->x || !m->row || !m->attn || !m->mlp || !m->ops->kv_new(m->b, 0, &spec, N_BLOCKS, err))
        die("no memory");
}

/* step: one forward pass. */
static void step(struct model *m, const struct batch *batch, struct sample_out *out) {
    const struct be_ops *o = m->ops;
    struct be *b = m->b;
    static const struct sample_row greedy[N_SEQS];
    char err[BE_ERR_BYTES];
    o->plan(b, batch);
    o->begin(b);
    o->embed(b, &(struct op_embed){.y = m->x, .tokens = m->embed, .cols = HIDDEN});
    for (uint32_t i = 0; i < N_LAYERS; i++) {
        const struct layer *l = &m->layers[i];
        o->gemm(b, &(struct op_gemm){.y = m->row,
                                     .x = m->x,
                                     .w = l->qkv,
                                     .norm = {.kind = NORM_RMS, .weight = l->norm1, .eps = 1e-6f},
                                     .bias = l->bias,
                                     .rope = {.on = true,
                                              .layer = i,
                                              .n_heads = N_HEADS,
                                              .n_kv_heads = N_KV_HEADS,
                                              .head_dim = HEAD_DIM,
                                              .rotary_dim = HEAD_DIM,
                                              .rope = ROPE_NEOX,
                                              .inv_freq = m->inv_freq}});
        o->attn(b, &(struct op_attn){.out = m->attn,
                                     .qkv = m->row,
                                     .layer = i,
                                     .n_heads = N_HEADS,
                                     .n_kv_heads = N_KV_HEADS,
                                     .head_dim = HEAD_DIM,
                                     .scale = 0.125f});
        o->gemm(b, &(struct op_gemm){.y = m->x, .x = m->attn, .w = l->o, .add = m->x});
        o->gemm(b, &(struct op_gemm){.y = m->mlp,
                                     .x = m->x,
                                     .w = l->gate_up,
                                     .norm = {.kind = NORM_RMS, .weight = l->norm2, .eps = 1e-6f},
                                     .act = ACT_SILU});
        o->gemm(b, &(struct op_gemm){.y = m->x, .x = m->mlp, .w = l->down, .add = m->x});
    }
    o->logits(b, &(struct op_logits){
                     .x = m->x, .norm = {.kind = NORM_RMS, .weight = m->norm, .eps = 1e-6f}, .w = m->embed});
    o->end(b);
    o->sample(b, greedy, out, batch->n_rows);
    if (o->wait(b, err) != 0)
        die(err);
}

/* input: the arrays of a batch: n_seqs sequences with n_new tokens each on top of `past`. */
struct input {
    uint32_t tokens[N_PREFILL], slot[N_PREFILL], start[N_SEQS + 1], kv_len[N_SEQS], rows[N_SEQS];
    uint32_t table[N_SEQS * (N_PREFILL / KV_BLOCK_TOKENS + 1)];
    int32_t pos[N_PREFILL];
    struct batch batch;
};

static void input_make(struct input *in, uint32_t n_seqs, uint32_t n_new, uint32_t past) {
    uint32_t stride = (past + n_new + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS, t = 0;
    for (uint32_t s = 0; s < n_seqs; s++) {
        in->start[s] = t;
        in->kv_len[s] = past + n_new;
        for (uint32_t i = 0; i < stride; i++)
            in->table[s * stride + i] = s * stride + i;
        for (uint32_t i = 0; i < n_new; i++, t++) {
            uint32_t at = past + i;
            in->tokens[t] = (s * 7919 + i * 104729) % N_VOCAB;
            in->pos[t] = (int32_t)at;
            in->slot[t] =
                in->table[s * stride + at / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + at % KV_BLOCK_TOKENS;
        }
        in->rows[s] = t - 1;
    }
    in->start[n_seqs] = t;
    in->batch = (struct batch){.n_tokens = t,
                               .n_seqs = n_seqs,
                               .n_rows = n_seqs,
                               .n_axes = 1,
                               .n_groups = 1,
                               .tokens = in->tokens,
                               .pos = in->pos,
                               .seq_start = in->start,
                               .kv_len = in->kv_len,
                               .rows = in->rows};
    in->batch.group[0].table = in->table;
    in->batch.group[0].table_stride = stride;
    in->batch.group[0].slot = in->slot;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[n / 2];
}

/* pace: work done in a stretch of time, by the clock and by the CPU time of all threads. */
struct pace {
    double wall, cpu;
};

static struct pace pace_start(void) {
    return (struct pace){bench_now_s(), bench_cpu_s()};
}

static struct pace pace_end(struct pace start, double work) {
    return (struct pace){work / (bench_now_s() - start.wall), work / (bench_cpu_s() - start.cpu)};
}

/* yardstick: the pace of the limit that a case is measured against: of memory, or NULL, of multiply-adds. */
static struct pace yardstick(struct team *team, const void *memory) {
    struct pace start = pace_start();
    if (!memory)
        return pace_end(start, probe_fma(team));
    probe_read(team, memory, READ_BYTES);
    return pace_end(start, (double)READ_BYTES);
}

/* measure: the yardstick and a step that does `work`, in turn. what: the case's own parameter, as JSON. */
static void measure(struct model *m, struct team *team, const struct input *in, const char *name,
                    const char *what, const void *memory, double work, int n_steps) {
    enum { N_MAX = 15 };
    double wall[N_MAX], cpu[N_MAX], mine[N_MAX], limit[N_MAX];
    struct sample_out out[N_SEQS];
    const char *unit = memory ? "gb_s" : "gflop_s";
    CHECK(n_steps <= N_MAX);
    step(m, &in->batch, out);
    for (int i = 0; i < n_steps; i++) {
        struct pace before = yardstick(team, memory), start = pace_start();
        step(m, &in->batch, out);
        struct pace pace = pace_end(start, work), after = yardstick(team, memory);
        mine[i] = pace.wall * 1e-9;
        limit[i] = (before.wall + after.wall) / 2 * 1e-9;
        wall[i] = mine[i] / limit[i];
        cpu[i] = pace.cpu / ((before.cpu + after.cpu) / 2);
    }
    char params[300];
    snprintf(params, sizeof params,
             "{%s,\"dtype\":\"bf16\",\"threads\":%d,\"%s\":%.2f,\"limit_%s\":%.2f,\"share_cpu_time\":%.3f,"
             "\"steps\":%d}",
             what, team_size(team), unit, median(mine, n_steps), unit, median(limit, n_steps),
             median(cpu, n_steps), n_steps);
    bench_emit(name, median(wall, n_steps), "share", params);
}

static void bench_decode(struct model *m, struct team *team, uint32_t n_seqs, const void *memory) {
    static struct input in;
    char what[40];
    input_make(&in, n_seqs, 1, CONTEXT);
    snprintf(what, sizeof what, "\"batch\":%u", n_seqs);
    measure(m, team, &in, "cpu.decode_bandwidth_share", what, memory, (double)m->matrix_bytes, 15);
}

static void bench_prefill(struct model *m, struct team *team) {
    static struct input in;
    /* a multiply-add is two operations; the vocabulary is needed for one row only */
    double per_token = 2.0 * HIDDEN * (QKV + HEAD_DIM * N_HEADS + 3.0 * MLP) * N_LAYERS;
    char what[40];
    input_make(&in, 1, N_PREFILL, 0);
    snprintf(what, sizeof what, "\"tokens\":%d", N_PREFILL);
    measure(m, team, &in, "cpu.prefill_peak_share", what, NULL,
            per_token * N_PREFILL + 2.0 * HIDDEN * N_VOCAB, 5);
}

/* main: "decode" or "prefill" as argument runs one of the two. */
int main(int argc, char **argv) {
    static struct model m;
    const char *only = argc > 1 ? argv[1] : "";
    model_open(&m);
    struct team *team = team_start(team_cores());
    void *memory = probe_memory(READ_BYTES);
    if (!team || !memory)
        die("no memory");
    if (strcmp(only, "prefill") != 0) {
        bench_decode(&m, team, 1, memory);
        bench_decode(&m, team, 4, memory);
        bench_decode(&m, team, 16, memory);
    }
    if (strcmp(only, "decode") != 0)
        bench_prefill(&m, team);
    free(memory);
    team_stop(team);
    m.ops->close(m.b);
    return 0;
}
