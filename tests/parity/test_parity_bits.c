/* A row's bits depend on nothing but the row: alone or among 64, in chunks of 16 or at once, for 1 to 3
 * threads, on top of a prefix that another step computed. threads: tsan
 *
 * The model is two layers of real shape classes (grouped queries, gate and up, residuals, q and k norms)
 * built from the operations; what is compared is every bit of the logits. */
#include "tests/parity/parity.h"

enum {
    HIDDEN = 72,
    N_HEADS = 6,
    N_KV = 2,
    HD = 24,
    QKV = (N_HEADS + 2 * N_KV) * HD,
    MLP = 200,
    N_VOCAB = 131,
    N_LAYERS = 2,
    TOKENS_MAX = 2048,
    SEQS_MAX = 64,
    LEN = 560, /* crosses a part of attention */
    STRIDE = (LEN + 63 + 15) / 16,
};

struct model {
    struct rig r;
    struct be_w *embed, *norm, *inv_freq, *head_norm, *qkv[N_LAYERS], *o[N_LAYERS], *gate_up[N_LAYERS],
        *down[N_LAYERS];
    struct be_mem *x, *row, *attn, *mlp;
    struct be_kv *kv;
    enum dtype t, kv_t;
    uint32_t window;
};

static struct be_w *matrix(struct model *m, struct rng *g, enum be_weight_kind kind, uint32_t rows,
                           uint32_t cols) {
    float *x = rng_floats(g, (size_t)rows * cols, 0.15f);
    void *d = as_type(x, (size_t)rows * cols, m->t);
    struct be_weight_src src[2] = {{.data = d, .dtype = m->t, .rows = rows, .cols = cols}};
    char err[BE_ERR_BYTES];
    if (kind == BE_W_GATE_UP) {
        src[1] = src[0];
        src[0].n_rows = src[1].row0 = rows / 2;
    }
    struct be_w *w = m->r.ops->weight(m->r.b, kind, src, kind == BE_W_GATE_UP ? 2 : 1, err);
    assert_non_null(w);
    free(x);
    free(d);
    return w;
}

static void model_open(struct model *m, int n_threads, enum dtype t, enum dtype kv_t, uint32_t window) {
    struct rng g = {.seed = 41};
    float ones[HIDDEN];
    char err[BE_ERR_BYTES];
    m->t = t;
    m->kv_t = kv_t;
    m->window = window;
    m->r = rig_open(&tested_ops, (struct be_config){.n_threads = n_threads,
                                                 .n_tokens_max = TOKENS_MAX,
                                                 .n_seqs_max = SEQS_MAX,
                                                 .n_rows_max = TOKENS_MAX,
                                                 .n_vocab = N_VOCAB});
    for (int i = 0; i < HIDDEN; i++)
        ones[i] = 1 + 0.01f * (float)i;
    m->embed = matrix(m, &g, BE_W_EMBED, N_VOCAB, HIDDEN);
    m->norm = rig_vector(m->r, ones, HIDDEN);
    m->head_norm = rig_vector(m->r, ones, HD);
    m->inv_freq = rig_vector(m->r, ones, HD / 2);
    for (int i = 0; i < N_LAYERS; i++) {
        m->qkv[i] = matrix(m, &g, BE_W_LINEAR, QKV, HIDDEN);
        m->o[i] = matrix(m, &g, BE_W_LINEAR, HIDDEN, N_HEADS * HD);
        m->gate_up[i] = matrix(m, &g, BE_W_GATE_UP, 2 * MLP, HIDDEN);
        m->down[i] = matrix(m, &g, BE_W_LINEAR, HIDDEN, MLP);
    }
    m->x = rig_mem(m->r, NULL, TOKENS_MAX, HIDDEN);
    m->row = rig_mem(m->r, NULL, TOKENS_MAX, QKV);
    m->attn = rig_mem(m->r, NULL, TOKENS_MAX, N_HEADS * HD);
    m->mlp = rig_mem(m->r, NULL, TOKENS_MAX, MLP);
    struct cache_group_spec spec = {
        .kind = CACHE_FULL, .n_layers = N_LAYERS, .n_kv_heads = N_KV, .head_dim = HD, .dtype = kv_t};
    m->kv = m->r.ops->kv_new(m->r.b, 0, &spec, SEQS_MAX * STRIDE, err);
    assert_non_null(m->kv);
}

static void forward(struct model *m, const struct batch *batch) {
    const struct be_ops *o = m->r.ops;
    struct be *b = m->r.b;
    struct be_norm norm = {.kind = NORM_RMS, .weight = m->norm, .eps = 1e-6f};
    struct be_norm head = {.kind = NORM_RMS, .weight = m->head_norm, .eps = 1e-6f};
    o->plan(b, batch);
    o->embed(b, &(struct op_embed){.y = m->x, .tokens = m->embed, .scale = 3, .cols = HIDDEN});
    for (uint32_t i = 0; i < N_LAYERS; i++) {
        struct rope_store rope = {.on = true,
                                  .layer = i,
                                  .n_heads = N_HEADS,
                                  .n_kv_heads = N_KV,
                                  .head_dim = HD,
                                  .rotary_dim = HD,
                                  .rope = ROPE_NEOX,
                                  .inv_freq = m->inv_freq,
                                  .q_norm = head,
                                  .k_norm = head};
        o->gemm(b, &(struct op_gemm){.y = m->row, .x = m->x, .w = m->qkv[i], .norm = norm, .rope = rope});
        o->attn(b, &(struct op_attn){.out = m->attn,
                                     .qkv = m->row,
                                     .layer = i,
                                     .n_heads = N_HEADS,
                                     .n_kv_heads = N_KV,
                                     .head_dim = HD,
                                     .scale = 0.2f,
                                     .window = m->window});
        o->gemm(b, &(struct op_gemm){.y = m->x, .x = m->attn, .w = m->o[i], .add = m->x});
        o->gemm(b,
                &(struct op_gemm){.y = m->mlp, .x = m->x, .w = m->gate_up[i], .norm = norm, .act = ACT_SILU});
        o->gemm(b, &(struct op_gemm){.y = m->x, .x = m->mlp, .w = m->down[i], .add = m->x});
    }
    o->logits(b, &(struct op_logits){.x = m->x, .norm = norm, .w = m->embed});
}

/* token: of a sequence's text; sequence 0 is the one whose logits are compared. */
static uint32_t token(uint32_t seq, uint32_t at) {
    return (uint32_t)(be_philox64(seq, at) % N_VOCAB);
}

/* work: what a step does of one sequence. */
struct work {
    uint32_t seq, from, n;
};

/* step: sequences' blocks are a stripe of the pool, in falling order. Logits of sequence 0's tokens go to
 * out[position]. */
static void step(struct model *m, const struct work *work, uint32_t n_seqs, float *out) {
    static uint32_t tokens[TOKENS_MAX], slot[TOKENS_MAX], start[SEQS_MAX + 1], kv_len[SEQS_MAX],
        rows[TOKENS_MAX];
    static uint32_t table[SEQS_MAX * STRIDE];
    static int32_t pos[TOKENS_MAX];
    uint32_t t = 0, n_rows = 0;
    for (uint32_t s = 0; s < n_seqs; s++) {
        start[s] = t;
        kv_len[s] = work[s].from + work[s].n;
        for (uint32_t i = 0; i < STRIDE; i++)
            table[s * STRIDE + i] = work[s].seq * STRIDE + STRIDE - 1 - i;
        for (uint32_t i = work[s].from; i < kv_len[s]; i++, t++) {
            tokens[t] = token(work[s].seq, i);
            pos[t] = (int32_t)i;
            slot[t] = table[s * STRIDE + i / 16] * 16 + i % 16;
            if (work[s].seq == 0)
                rows[n_rows++] = t;
        }
    }
    start[n_seqs] = t;
    struct batch batch = {.n_tokens = t,
                          .n_seqs = n_seqs,
                          .n_rows = n_rows,
                          .n_axes = 1,
                          .n_groups = 1,
                          .tokens = tokens,
                          .pos = pos,
                          .seq_start = start,
                          .kv_len = kv_len,
                          .rows = rows};
    batch.group[0].table = table;
    batch.group[0].table_stride = STRIDE;
    batch.group[0].slot = slot;
    forward(m, &batch);
    for (uint32_t r = 0; r < n_rows; r++)
        m->r.ops->logits_get(m->r.b, r, out + (size_t)pos[rows[r]] * N_VOCAB);
}

static void expect_same_bits(const float *want, const float *got, const char *how) {
    for (size_t i = 0; i < (size_t)LEN * N_VOCAB; i++)
        if (f32_bits(want[i]) != f32_bits(got[i])) {
            print_error("%s: position %zu, logit %zu: %.9g, not %.9g\n", how, i / N_VOCAB, i % N_VOCAB,
                        got[i], want[i]);
            fail();
        }
}

/* chunked: sequence 0, `first` tokens and then chunks; `others` sequences are in the batch too, each with one
 * token a step. */
static void chunked(struct model *m, uint32_t first, uint32_t chunk, uint32_t others, float *out) {
    struct work work[SEQS_MAX];
    for (uint32_t at = 0, k = 0, len = first; at < LEN; at += len, len = chunk, k++) {
        uint32_t n = 0;
        for (uint32_t s = 1; s <= others; s++, n++) {
            work[n] = (struct work){.seq = s, .from = k, .n = 1};
            if (s == others / 2) /* in the middle of the batch */
                work[++n] = (struct work){.seq = 0, .from = at, .n = MIN(len, LEN - at)};
        }
        if (others < 2)
            work[n++] = (struct work){.seq = 0, .from = at, .n = MIN(len, LEN - at)};
        step(m, work, n, out);
    }
}

static void compare_all(enum dtype t, enum dtype kv_t, uint32_t window) {
    size_t n = (size_t)LEN * N_VOCAB;
    float *want = xcalloc(n, sizeof *want), *got = xcalloc(n, sizeof *got);
    struct model m;
    model_open(&m, 1, t, kv_t, window);
    chunked(&m, LEN, LEN, 0, want);
    for (size_t i = 0; i < n; i++)
        assert_true(isfinite(want[i]));
    for (int n_threads = t == DT_F32 ? 1 : 2; n_threads <= (t == DT_F32 ? 3 : 2); n_threads++) {
        static const struct {
            const char *how;
            uint32_t first, chunk, others;
        } ways[] = {{"at once, again", LEN, LEN, 0},
                    {"token by token from 490 on", 490, 1, 0},
                    {"chunks of 16", 16, 16, 0},
                    {"chunks of 37", 37, 37, 0},
                    {"chunks of 100 among 63 others", 100, 100, 63},
                    {"chunks of 350 among 63 others", 350, 350, 63}};
        m.r.ops->close(m.r.b);
        model_open(&m, n_threads, t, kv_t, window);
        for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
            if (n_threads == 3 && w % 2 == 0) /* more threads than small machines have cores: slow */
                continue;
            memset(got, 0xFF, n * sizeof *got);
            chunked(&m, ways[w].first, ways[w].chunk, ways[w].others, got);
            expect_same_bits(want, got, ways[w].how);
        }
    }
    /* the cache of a prefix, as a prefix cache hands it on: other blocks, by kv_copy */
    struct be_copy copies[STRIDE];
    for (uint32_t i = 0; i < STRIDE; i++)
        copies[i] = (struct be_copy){.src = i, .dst = 5 * STRIDE + i};
    m.r.ops->kv_copy(m.r.b, m.kv, copies, STRIDE);
    for (uint32_t i = 0; i < STRIDE; i++)
        copies[i] = (struct be_copy){.src = 5 * STRIDE + i, .dst = i};
    step(&m, &(struct work){.seq = 0, .from = 0, .n = 1}, 1, got); /* spoils block 0, which comes back */
    m.r.ops->kv_copy(m.r.b, m.kv, copies, STRIDE);
    step(&m, &(struct work){.seq = 0, .from = 528, .n = LEN - 528}, 1, got);
    expect_same_bits(want, got, "on a copied prefix");
    m.r.ops->close(m.r.b);
    free(want);
    free(got);
}

static void bits_f32(void **state) {
    (void)state;
    compare_all(DT_F32, DT_F32, 0);
}

static void bits_bf16(void **state) {
    (void)state;
    compare_all(DT_BF16, DT_BF16, 0);
}

static void bits_f16_window(void **state) {
    (void)state;
    compare_all(DT_F16, DT_F16, 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_f32),
        cmocka_unit_test(bits_bf16),
        cmocka_unit_test(bits_f16_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
