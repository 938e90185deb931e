/* be.h: what the CPU's two tables share: the handle, its buffers, weights, cache pools and the plan.
 *
 * ref_ops is plain C, written to be read, and the oracle of every other backend. cpu_ops is AVX2; on a
 * processor without it, decided at open, it runs the plain C operations. Both run an operation to its end
 * before they return, so that `wait` has nothing to wait for. Activations are f32.
 *
 * Rows of a matrix given to an operation lie close: the stride is the width that the operation names (n_in
 * and n_out of a weight, cols, heads times head_dim), so one buffer can serve matrices of several widths.
 *
 * Threads: a handle belongs to the thread that opened it, which is member 0 of its team.
 */
#ifndef WEIR_WORKER_CPU_BE_H
#define WEIR_WORKER_CPU_BE_H

#include "worker/backend.h"
#include "worker/cpu/group.h"
#include "worker/cpu/team.h"

enum { PANEL_COLS = 16 }; /* output columns of a weight that lie together */

/* owned: what heads every object of a handle, so that close finds it. */
struct owned {
    struct owned *prev, *next;
    void *data; /* 64-byte aligned; the object's own */
    size_t data_bytes;
    bool mapped;       /* data is a mapping of its own, not of the heap */
    struct slab *slab; /* data is a part of it; NULL: its own */
};

struct be_mem {
    struct owned own;
    void *data;
    uint64_t rows;
    uint32_t cols;
    enum dtype dtype;
};

/* be_w: one packed weight.
 *
 *   BE_W_VECTOR   [n_in] f32, n_out is 1
 *   plain C       [n_out][n_in], as the checkpoint has it
 *   AVX2          [n_panels][n_in][PANEL_COLS]; a panel's place j holds one output column, zero beyond n_out
 *
 * In bf16 a panel's places are stored 0 8 1 9 .. 7 15, so that a 32-bit lane holds j below and j + 8 above:
 * shift and mask widen it. BE_W_GATE_UP: n_out counts gate and up; in panels, places 0..7 are gate and 8..15
 * the same columns of up. Experts follow each other, each as a weight of its own; n_out, n_in and n_panels
 * are those of one.
 */
struct be_w {
    struct owned own;
    enum be_weight_kind kind;
    enum dtype dtype;
    bool panels;
    uint32_t n_out, n_in;
    uint32_t n_panels;
    uint32_t n_experts; /* 1 unless they are experts' */
    void *data;
    uint64_t bytes;
};

/* w_gated: gate and up together. */
static inline bool w_gated(const struct be_w *w) {
    return w->kind == BE_W_GATE_UP || w->kind == BE_W_EXPERTS_GATE_UP;
}

/* be_kv: the pool of a cache group.
 *
 *   plain C   [block][layer][k, v][head][token][dim], the canonical order of kv_export
 *   AVX2      [block][layer][head], then K as one panel and V as panels of 16 dims
 *
 * K's panel is [dim][16 tokens], V's are [token][16 dims], as in be_w; the last head_dim_v % 16 dims follow
 * as [token][dims].
 */
struct be_kv {
    struct owned own;
    struct cache_group_spec spec; /* head_dim_v filled in */
    uint32_t n_blocks;
    bool panels;
    size_t layer_bytes, block_bytes; /* of one block: in one layer, in all */
    uint8_t *data;
};

/* plan: the handle's own copy of a batch. */
struct plan {
    uint32_t n_tokens, n_seqs, n_rows, n_axes;
    uint32_t *tokens;    /* [n_tokens] ids, from_row resolved */
    int32_t *pos;        /* [n_axes][n_tokens] */
    uint32_t *seq_of;    /* [n_tokens] */
    uint32_t *seq_start; /* [n_seqs + 1] */
    uint32_t *kv_len;    /* [n_seqs] */
    uint8_t *kind;       /* [n_seqs] enum attn_kind */
    uint8_t *type;       /* [n_tokens] */
    uint32_t *embed_row; /* [n_tokens] row of embeds plus 1 */
    uint32_t *rows;      /* [n_rows] */
    const struct be_mem *embeds;
    struct {
        uint32_t *slot;  /* [n_tokens] */
        uint32_t *table; /* [n_seqs][table_stride] */
        uint32_t table_stride;
        bool on;
    } group[BE_GROUPS_MAX];
};

/* scratch: working memory that grows to what an operation needs and stays. */
enum scratch_id {
    SCRATCH_X,       /* normalised input of a product */
    SCRATCH_ROWS,    /* rows on their way: of logits' input, of a tile */
    SCRATCH_THREAD,  /* per member: tiles, scores, a row's processed logits */
    SCRATCH_ROPE,    /* cosines and sines of the planned batch */
    SCRATCH_SEGMENT, /* which rows of a product meet which matrix */
    SCRATCH_SPLIT,   /* sums of attention's parts */
    SCRATCH_MOE,     /* of a mixture of experts: choices, rows in between */
    SCRATCH_KV,      /* keys and values of groups that keep nothing, in panels */
    SCRATCH_PLAN,    /* the plan's fixed arrays */
    SCRATCH_TABLE,   /* BE_GROUPS_MAX of them: block tables */
    N_SCRATCH = SCRATCH_TABLE + BE_GROUPS_MAX
};

struct be {
    bool avx2;          /* runs AVX2 operations on panels */
    const char *flavor; /* "plain C", "avx2" */
    struct team *team;
    struct group *group; /* NULL: alone */
    int n_threads;
    uint32_t n_tokens_max, n_seqs_max, n_rows_max, n_vocab, n_vocab_padded;
    struct plan plan;
    float *logits;      /* [n_rows_max][n_vocab_padded]; a group's ranks share them */
    uint32_t n_logits;  /* rows of the last op_logits */
    uint32_t *last_ids; /* [n_rows_max] of the last sample */
    uint32_t n_last_ids;
    struct be_kv *kv[BE_GROUPS_MAX];
    struct owned objects; /* head of a ring */
    struct slab *slab;    /* that the next objects of middle size are taken from */
    uint64_t n_plans;     /* names the current plan, from 1 */
    struct {
        uint64_t plan; /* that the angles belong to; 0: none */
        struct rope_store of;
    } angles;
    struct {
        void *data;
        size_t bytes;
    } scratch[N_SCRATCH];
};

/* handle.c. cpu_open: flavor and avx2 are the table's choice. The others are entries of both tables. */
int cpu_open(struct be **out, const struct be_config *cfg, bool avx2, char err[BE_ERR_BYTES]);
void cpu_close(struct be *b);
void cpu_info(struct be *b, struct be_info *out);
struct be_mem *cpu_mem_new(struct be *b, uint64_t rows, uint32_t cols, enum dtype dt);
void cpu_mem_free(struct be *b, struct be_mem *m);
void cpu_mem_put(struct be *b, struct be_mem *m, uint64_t row0, uint64_t n_rows, const float *src);
void cpu_mem_get(struct be *b, const struct be_mem *m, uint64_t row0, uint64_t n_rows, float *dst);
void cpu_logits_get(struct be *b, uint32_t row, float *dst);
void cpu_logits_put(struct be *b, uint32_t row, const float *src);
void cpu_gather(struct be *b, const struct op_gather *op);
int cpu_wait(struct be *b, char err[BE_ERR_BYTES]);
size_t cpu_group_bytes(const struct be_config *cfg);
uint32_t cpu_vocab_padded(uint32_t n_vocab);

/* memory.c. cpu_alloc: big, aligned to 64 bytes, on huge pages where the system has them. NULL: no memory. */
void *cpu_alloc(size_t bytes);
/* owned_new: an object of `bytes` (cleared), with `data_bytes` of memory, which close frees. NULL: no memory.
 */
void *owned_new(struct be *b, size_t bytes, size_t data_bytes);
/* owned_new_zero: the same, with memory that is zero and that the system provides page by page when it is
 * first written: for pools that may never be used whole. */
void *owned_new_zero(struct be *b, size_t bytes, size_t data_bytes);
void owned_free(struct owned *o); /* NULL is fine */
void slab_drop(struct slab *s);   /* one holder less; NULL is fine */
/* cpu_scratch: at least `bytes`, kept until close; what it held is lost when it grows. Caller is member 0. */
void *cpu_scratch(struct be *b, enum scratch_id id, size_t bytes);
/* cpu_f32: the data of a buffer that must hold `rows` x `cols` f32. */
float *cpu_f32(const struct be_mem *m, uint64_t rows, uint32_t cols);
/* cpu_vector: the data of a BE_W_VECTOR of `n` floats; NULL for w NULL. */
const float *cpu_vector(const struct be_w *w, uint32_t n);
/* cpu_err: a line into err; returns -1. */
int cpu_err(char err[BE_ERR_BYTES], const char *fmt, ...) PRINTF_LIKE(2, 3);

/* weight.c */
struct be_w *cpu_weight(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src,
                        uint32_t n_src, char err[BE_ERR_BYTES]);
void cpu_weight_free(struct be *b, struct be_w *w);
uint64_t cpu_weight_bytes(const struct be_w *w);
/* w_row_get: row `row` of a matrix, widened to f32 [n_in]. Neither gated nor experts'. */
void w_row_get(const struct be_w *w, uint32_t row, float *dst);

/* kv.c */
/* cpu_kv_pool_bytes: of n_blocks; head_dim_v must be filled in. UINT64_MAX: too many. */
uint64_t cpu_kv_pool_bytes(const struct cache_group_spec *spec, uint32_t n_blocks);
uint64_t cpu_kv_block_bytes(struct be *b, const struct cache_group_spec *spec);
struct be_kv *cpu_kv_new(struct be *b, uint32_t group, const struct cache_group_spec *spec, uint32_t n_blocks,
                         char err[BE_ERR_BYTES]);
void cpu_kv_free(struct be *b, struct be_kv *kv);
void cpu_kv_copy(struct be *b, struct be_kv *kv, const struct be_copy *copies, uint32_t n);
void cpu_kv_export(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst);
void cpu_kv_import(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, const void *src);
/* kv_group: the pool of a group, or NULL where the group keeps nothing (CACHE_NONE). */
struct be_kv *kv_group(const struct be *b, uint32_t group, uint32_t layer);

/* kv_base: where the data of a block, a layer and, in panels, a head begins, in elements. */
static inline size_t kv_base(const struct be_kv *kv, uint32_t block, uint32_t layer, uint32_t head) {
    const struct cache_group_spec *s = &kv->spec;
    size_t width = s->head_dim + s->head_dim_v, at = ((size_t)block * s->n_layers + layer) * s->n_kv_heads;
    return ((at + (kv->panels ? head : 0)) * width) * KV_BLOCK_TOKENS;
}

/* panel_place: where place j of a panel is stored among its 16. */
static inline uint32_t panel_place(enum dtype t, uint32_t j) {
    return t == DT_BF16 ? j % 8 * 2 + j / 8 : j;
}

/* kv_k, kv_v: one element's index in the pool, in elements. */
static inline size_t kv_k(const struct be_kv *kv, uint32_t block, uint32_t layer, uint32_t head, uint32_t tok,
                          uint32_t d) {
    const struct cache_group_spec *s = &kv->spec;
    size_t base = kv_base(kv, block, layer, head);
    if (kv->panels)
        return base + (size_t)d * PANEL_COLS + panel_place(s->dtype, tok);
    return base + ((size_t)head * KV_BLOCK_TOKENS + tok) * s->head_dim + d;
}
static inline size_t kv_v(const struct be_kv *kv, uint32_t block, uint32_t layer, uint32_t head, uint32_t tok,
                          uint32_t d) {
    const struct cache_group_spec *s = &kv->spec;
    size_t base = kv_base(kv, block, layer, head);
    uint32_t hd_v = s->head_dim_v, whole = hd_v / PANEL_COLS * PANEL_COLS;
    if (!kv->panels) {
        base += (size_t)s->n_kv_heads * s->head_dim * KV_BLOCK_TOKENS;
        return base + ((size_t)head * KV_BLOCK_TOKENS + tok) * hd_v + d;
    }
    base += (size_t)s->head_dim * KV_BLOCK_TOKENS;
    if (d < whole)
        return base + ((size_t)(d / PANEL_COLS) * KV_BLOCK_TOKENS + tok) * PANEL_COLS +
               panel_place(s->dtype, d % PANEL_COLS);
    return base + (size_t)whole * KV_BLOCK_TOKENS + (size_t)tok * (hd_v - whole) + (d - whole);
}

/* plan.c */
void cpu_plan(struct be *b, const struct batch *batch);
bool cpu_begin(struct be *b);
void cpu_end(struct be *b);
bool plan_init(struct be *b); /* false: no memory */

/* keys: the half-open range of positions that one query attends to. */
struct keys {
    uint32_t lo, hi;
};
/* plan_keys: for token t. With a pool (kv) positions count in the sequence's cache, otherwise from the
 * sequence's first row of the batch. A window reaches to both sides of a bidirectional query: |p - j| <
 * window. */
struct keys plan_keys(const struct be *b, const struct be_kv *kv, uint32_t t, uint32_t window);

/* plan_axis: the axis whose position turns rotary pair `pair`. */
uint32_t plan_axis(const struct be *b, const struct rope_store *rope, uint32_t pair);

/* ref.c and ref_*.c: the plain C operations, which cpu_ops falls back to. */
void ref_embed(struct be *b, const struct op_embed *op);
void ref_norm(struct be *b, const struct op_norm *op);
void ref_gemm(struct be *b, const struct op_gemm *op);
void ref_attn(struct be *b, const struct op_attn *op);
void ref_moe(struct be *b, const struct op_moe *op);
void ref_logits(struct be *b, const struct op_logits *op);
void ref_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n);
void ref_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n);
/* ref_dot: row `row` of w, of all its experts' rows, with x; K in order. ref_act: one activation. */
float ref_dot(const struct be_w *w, uint32_t row, const float *x);
float ref_act(enum act_kind kind, float x);
/* moe_check: that the weights of an op_moe fit each other and rows of `cols`. */
void moe_check(const struct op_moe *op, uint32_t cols);
/* moe_choose: router logits [n_experts] of one row, which become its softmax and are spoilt, to the top_k
 * experts, best first, lower id on ties, and their weights. */
void moe_choose(const struct op_moe *op, float *logits, uint32_t *experts, float *weights);
/* ref_norm_row: y = norm(x) of one row; y may be x. ref_rope_row: rope_store for token t, row in qkv. */
void ref_norm_row(float *y, const float *x, uint32_t cols, const struct be_norm *norm);
void ref_rope_row(struct be *b, const struct rope_store *rope, uint32_t t, float *row);

#endif
