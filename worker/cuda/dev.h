/* dev.h: what the files of the CUDA backend share: the handle, its buffers, weights, cache pools and the plan.
 *
 * Activations are of one type a handle: bf16, f16 or f32 (be_config.compute); everything is summed in f32. Rows of
 * a matrix lie close: the stride is the width that the operation names. Matrices are kept as the checkpoint has them,
 * [n_out][n_in], in the activations' type; vectors in f32.
 *
 * A step's batch goes up as one block of memory, struct dplan at its head, at the same address each time: kernels
 * take its address and read counts from it, so a captured graph serves every batch that is no larger than the one it
 * was captured for. Rows beyond the batch's own are computed and mean nothing; nothing of theirs is stored in a cache.
 *
 * Threads: all of a handle is its engine's.
 */
#ifndef WEIR_WORKER_CUDA_DEV_H
#define WEIR_WORKER_CUDA_DEV_H

#include "worker/cuda/rt.h"

/* dplan: the planned batch on the device. Offsets are in bytes from this struct; 0: not there. */
struct dplan {
    uint32_t n_tokens, n_seqs, n_rows, n_axes;
    uint32_t tokens;    /* u32 [n_tokens] */
    uint32_t pos;       /* i32 [n_axes][n_tokens] */
    uint32_t seq_of;    /* u32 [n_tokens] */
    uint32_t seq_start; /* u32 [n_seqs + 1] */
    uint32_t kv_len;    /* u32 [n_seqs] */
    uint32_t kind;      /* u8 [n_seqs] */
    uint32_t type;      /* u8 [n_tokens] */
    uint32_t embed_row; /* u32 [n_tokens] */
    uint32_t from_row;  /* u32 [n_tokens] */
    uint32_t rows;      /* u32 [n_rows] */
    uint32_t tiles;     /* struct dtile [n_tiles]: the prefill attention's work */
    uint32_t n_tiles;
    struct {
        uint32_t slot, table, table_stride;
    } group[BE_GROUPS_MAX];
};
/* dtile: up to TILE_QUERIES queries of one sequence. */
struct dtile {
    uint32_t seq, first, n; /* first: token of the batch */
};
enum { TILE_QUERIES = 64 };

#define PLAN_AT(type, p, at) (reinterpret_cast<const type *>(reinterpret_cast<const unsigned char *>(p) + (at)))

struct be_mem {
    struct be_mem *prev, *next;
    void *data;
    uint64_t rows;
    uint32_t cols;
    enum dtype dtype;
};

/* be_w: one weight. BE_W_GATE_UP: n_out counts gate and up, gate's rows first. Experts follow each other. */
struct be_w {
    struct be_w *prev, *next;
    enum be_weight_kind kind;
    enum dtype dtype; /* the handle's activations', DT_F8E4M3, or f32 for vectors */
    uint32_t n_out, n_in, n_experts;
    void *data;
    float *scale;                      /* fp8: [n_experts * n_out][n_scales] factors; NULL: none */
    uint32_t scale_block, n_scales;    /* columns that share a factor; factors of a row */
    float input_scale;                 /* fp8: the factor of activations that go with it; 0: of each row its own */
    uint64_t bytes;
};
static inline bool w_gated(const struct be_w *w) {
    return w->kind == BE_W_GATE_UP || w->kind == BE_W_EXPERTS_GATE_UP;
}

/* be_kv: [layer][block][k, v][head][token of the block][dim]; v's dims are head_dim_v. */
struct be_kv {
    struct be_kv *prev, *next;
    struct cache_group_spec spec; /* head_dim_v filled in */
    uint32_t n_blocks;
    uint64_t layer_elems, block_elems; /* block_elems: of one block in one layer */
    void *data;
};

/* kvref: a layer of a pool as kernels take it. data NULL: the group keeps nothing, k and v are rows of qkv. */
struct kvref {
    void *data; /* of the layer */
    uint64_t block_elems;
    uint32_t n_heads, dim, dim_v, window; /* window: the group's; 0: none */
    uint32_t group;
};

/* scratch: working memory of operations. It grows where a plan shows that more is needed, never within a step. */
enum scratch_id {
    SCRATCH_X,
    SCRATCH_WIDE,
    SCRATCH_WEIGHT,
    SCRATCH_SPLIT,
    SCRATCH_MOE,
    SCRATCH_ROWS,
    SCRATCH_SAMPLE,
    SCRATCH_PARTS,
    SCRATCH_NORMED,
    SCRATCH_QUANT,
    N_SCRATCH
};

enum { GRAPHS_MAX = 64, PENDING_MAX = RT_MARKS };

struct graph_slot {
    uint32_t n_tokens, n_rows, kv_len; /* of the padded batch; kv_len: the longest, to a power of two */
    bool seen;
    struct rt_graph *graph;
};

/* pending: results that rt_wait brings and wait hands out. */
struct pending {
    struct sample_out **outs; /* [n] where they go */
    uint32_t n, n_top_max;
    uint32_t mark; /* of the runtime, behind the copy to the host */
    void *host; /* pinned; struct dsample_out [n], then ids and logprobs [n][n_top_max] */
    size_t host_bytes;
};

struct be {
    struct rt *rt;
    struct rt_info device;
    enum dtype act;
    bool deterministic, eager;
    uint32_t rank; /* of its group */
    uint32_t n_copiers; /* threads that fill pinned memory */
    uint32_t n_tokens_max, n_seqs_max, n_rows_max, n_vocab, n_vocab_padded;
    struct be_mem mems; /* heads of rings */
    struct be_w weights;
    struct be_kv kvs;
    struct be_kv *kv[BE_GROUPS_MAX];

    /* the plan: host's copy of its head, and what the host decides by */
    struct dplan *dplan;
    size_t dplan_bytes;
    struct dplan plan;
    bool decode;       /* one token a sequence, causal, no embeds: a graph may serve it */
    bool group_on[BE_GROUPS_MAX];
    uint32_t n_tokens, n_rows; /* that operations compute: the batch's, or padded for a graph */
    uint32_t kv_len_max;       /* padded likewise */
    const struct be_mem *embeds;
    bool capturing;
    struct graph_slot graphs[GRAPHS_MAX];
    uint32_t n_graphs;
    struct graph_slot *slot; /* being captured or launched */

    float *logits;      /* [n_rows_max][n_vocab_padded] */
    float *processed;   /* likewise: a row after penalties */
    uint32_t n_logits;
    uint32_t *last_ids; /* [n_rows_max] of the last sample, on the device */
    uint32_t n_last_ids;
    struct pending pending[PENDING_MAX];
    uint32_t n_pending;
    uint32_t *n_tops[PENDING_MAX]; /* [n] of each pending's rows */
    struct {
        void *data;
        size_t bytes;
    } scratch[N_SCRATCH];
    struct group *group; /* of ranks; NULL: alone */
    /* what a sum over ranks left in SCRATCH_NORMED, for the operation right behind it: norm of `of`, n rows */
    struct {
        const struct be_mem *of; /* NULL: nothing */
        struct be_norm norm;
        uint32_t n;
    } normed;
};

/* memory.cu */
int dev_err(char err[BE_ERR_BYTES], const char *fmt, ...) PRINTF_LIKE(2, 3);
/* dev_scratch: at least `bytes`. Growing waits, and drops captured graphs but for SAMPLE and ROWS, which no graph holds.
 * Without memory it is an error that sticks, and the result is not to be touched: nothing runs any more. */
void *dev_scratch(struct be *b, enum scratch_id id, size_t bytes);
/* dev_act: the data of a buffer of activations that must hold rows x cols. */
void *dev_act(const struct be *b, const struct be_mem *m, uint64_t rows, uint32_t cols);
/* dev_vector: the data of a BE_W_VECTOR of n floats; NULL for w NULL. */
const float *dev_vector(const struct be_w *w, uint32_t n);
struct be_mem *dev_mem_new(struct be *b, uint64_t rows, uint32_t cols, enum dtype dt);
void dev_mem_free(struct be *b, struct be_mem *m);
void dev_mem_put(struct be *b, struct be_mem *m, uint64_t row0, uint64_t n_rows, const float *src);
void dev_mem_get(struct be *b, const struct be_mem *m, uint64_t row0, uint64_t n_rows, float *dst);
/* dev_upload, dev_download: n bytes, in pieces through pinned memory. download waits. */
void dev_upload(struct be *b, void *dst, const void *src, size_t n);
/* dev_gather_rows: n_rows rows of row_bytes, `pitch` apart, into one run of host memory, by several threads where there is
 * much of it: one thread copies, and takes page faults, more slowly than a GPU's bus. */
void dev_gather_rows(const struct be *b, void *to, const void *from, size_t n_rows, size_t row_bytes, size_t pitch);
void dev_download(struct be *b, void *dst, const void *src, size_t n);

/* weight.cu */
struct be_w *dev_weight(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src, uint32_t n_src,
                        char err[BE_ERR_BYTES]);
void dev_weight_free(struct be *b, struct be_w *w);
uint64_t dev_weight_bytes(const struct be_w *w);

/* kv.cu */
uint64_t dev_kv_block_bytes(struct be *b, const struct cache_group_spec *spec);
struct be_kv *dev_kv_new(struct be *b, uint32_t group, const struct cache_group_spec *spec, uint32_t n_blocks,
                         char err[BE_ERR_BYTES]);
void dev_kv_free(struct be *b, struct be_kv *kv);
void dev_kv_copy(struct be *b, struct be_kv *kv, const struct be_copy *copies, uint32_t n);
void dev_kv_export(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst);
void dev_kv_import(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, const void *src);
/* kv_ref: a group's layer; data NULL where it keeps nothing. */
struct kvref kv_ref(const struct be *b, uint32_t group, uint32_t layer);

/* plan.cu, graph.cu */
void dev_plan(struct be *b, const struct batch *batch);
bool dev_begin(struct be *b);
void dev_end(struct be *b);
void graphs_drop(struct be *b);

/* norm.cu, gemm.cu, rope.cu, attn.cu, moe.cu, logits.cu */
void dev_embed(struct be *b, const struct op_embed *op);
void dev_norm(struct be *b, const struct op_norm *op);
void dev_gemm(struct be *b, const struct op_gemm *op);
void dev_attn(struct be *b, const struct op_attn *op);
void dev_moe(struct be *b, const struct op_moe *op);
void dev_logits(struct be *b, const struct op_logits *op);
void dev_logits_get(struct be *b, uint32_t row, float *dst);
void dev_logits_put(struct be *b, uint32_t row, const float *src);
/* norm_rows: y[r] = add[r] + norm(x[r]) of n rows; pick: x's rows are the plan's rows [r]. add NULL: none. */
void norm_rows(struct be *b, void *y, const void *x, const void *add, bool pick, const struct be_norm *norm,
               uint32_t cols, uint32_t n);
/* normed_take: n rows of norm(x), if the operation in front left them; else NULL. Every operation calls it, or
 * normed_drop, before it writes anything. normed_room: where a sum over ranks leaves them, for `then`; NULL: no norm. */
const void *normed_take(struct be *b, const struct be_mem *x, const struct be_norm *norm, uint32_t n);
static inline void normed_drop(struct be *b) {
    b->normed.of = NULL;
}
void *normed_room(struct be *b, const struct be_mem *y, const struct be_norm *then, uint32_t cols, uint32_t n);
/* rope_rows: rope_store for every token of the batch. */
void rope_rows(struct be *b, void *qkv, const struct rope_store *rope);

/* sample.cu */
void dev_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n);
void dev_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n);
/* pending_deliver: after a wait: hands out what samplings brought, but for the last n_behind. */
void pending_deliver(struct be *b, uint32_t n_behind);

/* ACT_TYPES: calls f(T) with the handle's type of activations. */
#define ACT_CALL(b, f, ...)                                                                                  \
    ((b)->act == DT_BF16  ? f<bf16>(__VA_ARGS__)                                                             \
     : (b)->act == DT_F16 ? f<f16>(__VA_ARGS__)                                                              \
                          : f<float>(__VA_ARGS__))

/* act_apply: an activation, in f32. */
DEV float act_apply(enum act_kind kind, float x) {
    switch (kind) {
    case ACT_SILU:
        return x / (1.0f + expf(-x));
    case ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case ACT_RELU:
        return x > 0 ? x : 0.0f;
    case ACT_TANH:
        return tanhf(x);
    case ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    default:
        return x;
    }
}

static inline unsigned blocks_for(uint64_t n, unsigned each) {
    return static_cast<unsigned>((n + each - 1) / each);
}

#endif
