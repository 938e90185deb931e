/* bench_cpu.c: how much of the machine the CPU backend uses on a 0.5B-shaped bf16 model, built from the
 * operations with random weights.
 *
 *   cpu.decode_bandwidth_share   bytes of weights a step reads over its time, as a share of the bandwidth of
 * a plain read on all threads; a step of 1, 4 and 16 sequences, embedding to sampled token
 *   cpu.prefill_peak_share       floating-point operations of the products of a 512-token step over its time,
 * as a share of the peak of multiply-adds that touch registers only
 *
 * The yardsticks are taken between the steps, so that other load on the machine meets both; medians are
 * reported.
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

/* step: one forward pass; returns its seconds. */
static double step(struct model *m, const struct batch *batch, struct sample_out *out) {
    const struct be_ops *o = m->ops;
    struct be *b = m->b;
    static const struct sample_row greedy[N_SEQS];
    char err[BE_ERR_BYTES];
    double start = bench_now_s();
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
    return bench_now_s() - start;
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

enum { N_STEPS = 15 };

static void bench_decode(struct model *m, struct team *team, uint32_t n_seqs, const void *memory) {
    static struct input in;
    struct sample_out out[N_SEQS];
    double share[N_STEPS], gb_s[N_STEPS], read[N_STEPS];
    input_make(&in, n_seqs, 1, CONTEXT);
    step(m, &in.batch, out);
    for (int i = 0; i < N_STEPS; i++) {
        double before = probe_read(team, memory, READ_BYTES);
        double t = step(m, &in.batch, out);
        double after = probe_read(team, memory, READ_BYTES);
        gb_s[i] = (double)m->matrix_bytes / t * 1e-9;
        read[i] = (before + after) / 2 * 1e-9;
        share[i] = gb_s[i] / read[i];
    }
    double g = median(gb_s, N_STEPS), r = median(read, N_STEPS);
    char params[200];
    snprintf(params, sizeof params,
             "{\"batch\":%u,\"dtype\":\"bf16\",\"threads\":%d,\"gb_s\":%.2f,\"read_gb_s\":%.2f,\"steps\":%d}",
             n_seqs, team_size(team), g, r, N_STEPS);
    bench_emit("cpu.decode_bandwidth_share", median(share, N_STEPS), "share", params);
}

static void bench_prefill(struct model *m, struct team *team) {
    static struct input in;
    struct sample_out out[N_SEQS];
    enum { N = 5 };
    double share[N], gflops[N], peak[N];
    /* a multiply-add is two operations; the vocabulary is needed for one row only */
    double flop =
        2.0 * HIDDEN * (QKV + HEAD_DIM * N_HEADS + 3.0 * MLP) * N_LAYERS * N_PREFILL + 2.0 * HIDDEN * N_VOCAB;
    input_make(&in, 1, N_PREFILL, 0);
    step(m, &in.batch, out);
    for (int i = 0; i < N; i++) {
        double before = probe_fma(team);
        double t = step(m, &in.batch, out);
        peak[i] = (before + probe_fma(team)) / 2 * 1e-9;
        gflops[i] = flop / t * 1e-9;
        share[i] = gflops[i] / peak[i];
    }
    char params[200];
    double g = median(gflops, N), p = median(peak, N);
    snprintf(params, sizeof params,
             "{\"tokens\":%d,\"dtype\":\"bf16\",\"threads\":%d,\"gflop_s\":%.1f,\"peak_gflop_s\":%.1f,"
             "\"steps\":%d}",
             N_PREFILL, team_size(team), g, p, N);
    bench_emit("cpu.prefill_peak_share", median(share, N), "share", params);
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
