/* backend.h: the one narrow interface between a model and a device.
 *
 * A backend is a table of operations, struct be_ops, and a handle, struct be. cpu/ implements it in
 * AVX2 (cpu_ops) and in plain C (ref_ops, the oracle); cuda/ is a shared object that exports
 * be_plugin_ops(). Collectives sit behind the same table: a group of ranks runs the same calls in the
 * same order, and an operation with `reduce` or a sharded result leaves every rank with the same bytes.
 *
 * Threads: all calls of one handle come from one thread, its engine's. Operations only enqueue, in
 * order; `wait` is the only call of a step that blocks. Host memory given to an operation is copied
 * or read before the call returns, unless its comment says otherwise.
 *
 * Growth: every operation takes one pointer to a struct of arguments, in which zero means "without".
 * New arguments and new operations go at the end of their struct; no signature and no caller changes.
 * A backend that lacks an operation leaves NULL; model_load refuses a model that needs it.
 *
 * Activations are row-major matrices [rows][cols] of the backend's own type (`act`): f32 on the CPU,
 * bf16 or f16 on a GPU. Rows are the tokens of the planned batch, unless said otherwise. Accumulation is
 * in f32. On the CPU a row's bits depend on that row alone, never on the other rows, on their number, or
 * on chunking.
 */
#ifndef WEIR_WORKER_BACKEND_H
#define WEIR_WORKER_BACKEND_H

#include <math.h>

#include "common/base.h"

/* BE_EXACT: functions that a device's own code calls too. */
#ifdef __CUDACC__
#define BE_EXACT static inline __host__ __device__
#else
#define BE_EXACT static inline
#endif

#define BE_ABI 2u
enum { KV_BLOCK_TOKENS = 16, BE_GROUPS_MAX = 4, BE_AXES_MAX = 4, BE_ERR_BYTES = 256, BE_RANKS_MAX = 32 };

enum dtype {
    DT_NONE = 0,
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_F8E4M3,
    DT_I8,
    DT_I32,
    DT_I64,
    DT_U8,
    DT_BOOL,
    N_DTYPE
};

struct be;     /* one device of one rank */
struct be_mem; /* a device buffer */
struct be_w;   /* a packed weight */
struct be_kv;  /* the block pool of one cache group */
struct be_stand; /* of a rank on another host, beside rank 0 */

/* ---- start-up --------------------------------------------------------------------------------- */

/* be_group: heads the memory that the ranks of a group share on a host. The worker makes it, zero, maps it in
 * every rank, and keeps it until the last handle is closed; what follows the head is the backend's. Whoever
 * watches over the ranks and finds one gone writes `why`, then sets `failed`, once: a backend that waits for
 * other ranks then gives up, and `wait` says why. Words are accessed by __atomic operations: processes share
 * them. */
struct be_group {
    uint32_t failed;
    char why[BE_ERR_BYTES];
    /* [rank] times that it has come to where it waits for others: tells who holds up the rest */
    uint32_t reached[BE_RANKS_MAX];
};

/* be_far: how a rank on another host meets those on rank 0's. There it has a stand (be_ops.stand_open), which takes its
 * place in the memory of the group. call: n bytes for the stand, whose answer of n_out bytes goes to out; both are the
 * backend's own affair. Returns when the others have come as far. false: the group is over. */
struct be_far {
    void *arg;
    bool (*call)(void *arg, const void *in, size_t n, void *out, size_t n_out);
};

struct be_config {
    int device_index;
    int n_threads;          /* CPU compute threads; 0: cores that this process may use */
    int rank, n_ranks;      /* of the tensor-parallel group */
    struct be_group *group; /* shared memory of group_bytes(); NULL when n_ranks is 1, or for group_uid */
    const void *group_uid;  /* NCCL's unique id, n_ranks > 1 on GPUs */
    size_t group_uid_bytes;
    enum dtype compute;    /* type of activations on a GPU; a CPU always uses f32 */
    uint32_t n_tokens_max; /* rows of the largest batch */
    uint32_t n_seqs_max;
    uint32_t n_rows_max; /* rows of logits at once */
    uint32_t n_vocab;    /* columns of logits */
    bool deterministic;  /* a GPU too keeps the order of sums independent of the batch */
    bool eager;          /* no captured graphs */
    uint32_t n_reduce_cols; /* n_ranks > 1: columns of the widest result with reduce, or of a sharded table */
    bool no_own_reduce;     /* GPUs: sums over ranks by the vendor's library alone */
    /* of a rank on another host than rank 0; `group` is then memory of its own, of the same size. NULL: none */
    const struct be_far *far;
};

struct be_info {
    char name[96]; /* "cpu avx2, 2 threads" */
    enum dtype act;
    uint64_t memory_total_bytes, memory_free_bytes;
    uint32_t n_vocab_padded; /* row stride of logits, in floats */
    /* of a device with memory of its own: free before the handle was opened. 0: the memory is the machine's */
    uint64_t memory_start_bytes;
    bool fp8;                /* takes fp8 weights, and makes them */
};

/* be_weight_src: a matrix or vector as the checkpoint has it, [rows][cols] row-major, in the host's mapped
 * memory (valid until `weight` returns). A rank passes its own shard: row0 and col0 with n_rows, n_cols. */
struct be_weight_src {
    const void *data;
    enum dtype dtype;
    uint32_t rows, cols;     /* of the stored tensor */
    uint32_t row0, col0;     /* first row and column taken */
    uint32_t n_rows, n_cols; /* taken; 0 means all that remain */
    const void *scale;       /* fp8: f32 scales, NULL for none */
    uint32_t scale_block;    /* 0: one scale; 128: one per 128 x 128 block */
    bool scale_rows;         /* with scale_block 0: one scale for each stored row */
    float input_scale;       /* fp8: what activations are divided by to be fp8 too; 0: by what each row needs */
    bool to_fp8;             /* of a float type: kept as fp8 with one scale a row */
};

enum be_weight_kind {
    BE_W_LINEAR,  /* y[n_out] = W[n_out][n_in] x; several sources stack along n_out (q, k, v; gate, up) */
    BE_W_GATE_UP, /* two sources of equal shape; the backend may interleave their rows */
    BE_W_EMBED,   /* looked up by row; may also serve as a LINEAR (tied embeddings) */
    BE_W_VECTOR,  /* norm weights, biases: f32 on every backend; several sources stack */
    BE_W_EXPERTS, /* [n_experts] LINEARs of equal shape, one source each */
    BE_W_EXPERTS_GATE_UP /* sources gate0, up0, gate1, up1 ... */
};

/* ---- batches ---------------------------------------------------------------------------------- */

enum attn_kind { ATTN_CAUSAL = 0, ATTN_BIDIRECTIONAL, ATTN_CROSS };

/* Cache groups. Layers that share a kind of cache form a group with its own block pool and tables. */
enum cache_kind { CACHE_NONE = 0, CACHE_FULL, CACHE_WINDOW, CACHE_STATE, CACHE_CROSS };

struct cache_group_spec {
    enum cache_kind kind;
    uint32_t n_layers;
    uint32_t n_kv_heads; /* of this rank */
    uint32_t head_dim;
    uint32_t head_dim_v;  /* 0: as head_dim */
    uint32_t window;      /* CACHE_WINDOW: tokens a query sees, itself included */
    uint32_t state_bytes; /* CACHE_STATE: per sequence and layer */
    enum dtype dtype;     /* as stored */
};

/* batch: the work of one step, ragged. Sequence s owns tokens [seq_start[s], seq_start[s + 1]). Prefill
 * chunks and decodes mix freely. All arrays belong to the caller and are read by `plan` only. */
struct batch {
    uint32_t n_tokens, n_seqs, n_rows, n_axes, n_groups;
    const uint32_t *tokens;    /* [n_tokens] ids; ignored where embeds replace them */
    const int32_t *pos;        /* [n_axes][n_tokens] rope or absolute positions; axis 0 orders the cache */
    const uint32_t *seq_start; /* [n_seqs + 1] */
    const uint32_t *kv_len;    /* [n_seqs] tokens in the cache after this step (cross: encoder rows) */
    const uint8_t *kind;       /* [n_seqs] enum attn_kind; NULL: all causal */
    const uint8_t *token_type; /* [n_tokens] token type ids; NULL: all 0 */
    struct {
        const uint32_t *table; /* [n_seqs][table_stride] blocks in order of position */
        uint32_t table_stride;
        const uint32_t *slot;  /* [n_tokens] block * KV_BLOCK_TOKENS + offset, where K and V go */
        const uint32_t *state; /* [n_seqs] slot of the sequence's state; CACHE_STATE only */
    } group[BE_GROUPS_MAX];
    const uint32_t *rows;        /* [n_rows] token index whose hidden state becomes row r of the logits */
    const struct be_mem *embeds; /* replacement input embeddings, act, [n_embeds][hidden]; NULL: none */
    const uint32_t *embed_row;   /* [n_tokens] row of embeds plus 1, 0: use the token */
    /* device-resident ids of the last step: token i is out_ids[from_row[i] - 1] of the previous sample call,
     * 0: take tokens[i]. NULL where not used. Lets a GPU start a step before the host has seen the ids. */
    const uint32_t *from_row;
};

/* ---- operations ------------------------------------------------------------------------------- */

enum norm_kind { NORM_NONE = 0, NORM_RMS, NORM_LAYER };
struct be_norm {
    enum norm_kind kind;
    const struct be_w *weight; /* [cols] f32 */
    const struct be_w *bias;   /* NORM_LAYER */
    float eps;
    float weight_offset; /* RMS: x * (offset + w); 1 for Gemma */
};

/* op_embed: y[t] = scale * E[token] (+ P[pos + pos_offset]) (+ T[type]); then norm, if given. */
struct op_embed {
    struct be_mem *y; /* [n_tokens][cols] */
    const struct be_w *tokens, *positions, *types;
    int32_t pos_offset;
    float scale; /* 0 means 1 */
    struct be_norm norm;
    uint32_t cols;
    /* sharded: tokens holds rows row0 .. of the vocabulary, and each id's row comes from the rank that has
     * it. Without positions, types and norm. */
    bool sharded;
    uint32_t row0;
};

enum rope_kind { ROPE_NONE = 0, ROPE_NEOX, ROPE_INTERLEAVED };

/* rope_store: the tail of a QKV projection. The row is [q heads][k heads][v heads]; optional per-head RMS
 * norms of q and k come first, then rotation of the first rotary_dim of each head, then K and V go to
 * their slots of the cache. q (and, for groups of CACHE_NONE, k and v) stay in the row, rotated. */
struct rope_store {
    bool on;
    uint32_t group, layer; /* cache group and layer within it */
    uint32_t n_heads, n_kv_heads, head_dim, rotary_dim;
    enum rope_kind rope;
    const struct be_w *inv_freq;         /* VECTOR [rotary_dim / 2] f32, scaling applied */
    float rope_scale;                    /* factor on sin and cos (YaRN's attention factor); 0 means 1 */
    uint32_t axis_sections[BE_AXES_MAX]; /* rotary pairs taken from each axis; all 0: axis 0 only */
    struct be_norm q_norm, k_norm;       /* weights [head_dim] */
    float k_scale, v_scale; /* of a cache in fp8: what K and V are divided by before they are stored; 0 means 1 */
};

enum act_kind { ACT_NONE = 0, ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU, ACT_TANH, ACT_QUICK_GELU };

/* op_gemm: y = add + act(norm(x) W^T + bias), with the tail of rope_store. For BE_W_GATE_UP: y has half as
 * many columns, act(gate) * up. reduce: the product is summed over ranks before bias and add. y may
 * be add; y must not be x. */
struct op_gemm {
    struct be_mem *y;
    const struct be_mem *x;
    const struct be_w *w;
    struct be_norm norm;     /* over the columns of x, before the product */
    const struct be_w *bias; /* VECTOR [n_out] */
    enum act_kind act;
    const struct be_mem *add; /* [rows][n_out] residual; NULL for none */
    bool reduce;
    struct rope_store rope;
    uint32_t n_rows; /* 0: the batch's tokens */
    /* a hint, with reduce: the norm that the next operation takes of y; a backend may make it along with the sum */
    struct be_norm then;
};

/* op_norm: y = add + norm(x). */
struct op_norm {
    struct be_mem *y;
    const struct be_mem *x;
    struct be_norm norm;
    const struct be_mem *add;
    uint32_t cols, n_rows; /* n_rows 0: the batch's tokens */
};

/* op_attn: out[t] = softmax(scale q k^T (soft-capped, masked)) v over the sequence's cache (or, for
 * CACHE_NONE, over its own rows of qkv). A causal query at position p sees positions <= p, and with a window
 * only p - window + 1 and later. A
 * bidirectional query sees all, and with a window those with |p - j| < window. */
struct op_attn {
    struct be_mem *out;       /* [n_tokens][n_heads * head_dim_v] */
    const struct be_mem *qkv; /* rows as rope_store leaves them */
    uint32_t group, layer;
    uint32_t n_heads, n_kv_heads, head_dim;
    float scale;
    float softcap;            /* 0: none; else c * tanh(s / c) */
    uint32_t window;          /* 0: none */
    const struct be_w *sinks; /* VECTOR [n_heads], 0: none */
    /* A bias by distance, added to the scaled score of query p and key j: entry
     * rel_span + clamp(j - p, -rel_span, rel_span) of the head's row. NULL: none */
    const struct be_w *rel_bias; /* VECTOR [n_heads * (2 * rel_span + 1)] */
    uint32_t rel_span;
    float k_scale, v_scale; /* of a cache in fp8: what its K and V are multiplied by; 0 means 1 */
};

/* op_moe: y = add + sum over the top_k experts e of g_e * down_e(act(gate_e x) * up_e x). Router logits and
 * softmax in f32; renorm: the chosen weights are divided by their sum. y may be x and add. */
struct op_moe {
    struct be_mem *y;
    const struct be_mem *x;
    struct be_norm norm;
    const struct be_w *router, *gate_up, *down;
    uint32_t n_experts, top_k;
    bool renorm, reduce;
    enum act_kind act;
    const struct be_mem *add;
    struct be_norm then; /* as op_gemm's */
};

/* op_logits: for each of the batch's rows: logits = softcap(scale * W norm(x[rows[r]])), f32, all columns on
 * every rank (on CPUs, of a rank on another host its own alone). Kept in the backend until the next op_logits; used by
 * sample, logprobs, logits_get/put. */
struct op_logits {
    const struct be_mem *x;
    struct be_norm norm;
    const struct be_w *w;
    const struct be_w *bias;
    float scale;   /* 0 means 1 */
    float softcap; /* 0: none */
    /* sharded: w gives columns col0 .. of the logits, the other ranks' weights the others. The rows may then
     * lie in memory that the ranks share: logits_put is seen by all. */
    bool sharded;
    uint32_t col0;
    bool gathered; /* x holds the rows alone, as op_gather leaves them: row r is x[r] */
};

/* op_gather: y[r] = x[rows[r]] for each of the batch's rows. */
struct op_gather {
    struct be_mem *y;       /* [n_rows][cols]; not x */
    const struct be_mem *x; /* [n_tokens][cols] */
    uint32_t cols;
};

/* ---- sampling --------------------------------------------------------------------------------- */

/* One token seen by a row's sequence, for penalties. */
struct sample_seen {
    uint32_t id;
    uint32_t n_output : 31; /* times in the output */
    uint32_t in_prompt : 1;
};
struct sample_bias {
    uint32_t id;
    float value;
};

/* sample_row: everything a sampled token depends on, beside the logits (architecture 7). Order and meaning:
 * api.md 8.1. Arrays are sorted by id, unique, in host memory.
 *
 * Draws are exact on every device for equal logits: after penalties, masks and temperature, with m the
 * largest logit, token i weighs w_i = floor(2^40 * E(l_i - m)), E being be_exp() below in f32; sums are
 * of 64-bit integers, so they do not depend on order. min_p keeps E(l_i - m) >= min_p; top_k the k largest
 * (logit, then lower id); top_p the shortest run of those, best first, with sum(w) >= top_p * total, total
 * being over what min_p and top_k kept. The draw takes r = high 64 bits of (philox64(seed, position) *
 * sum(w)) and the first kept id, in ascending order of id, whose running sum of w exceeds r. */
struct sample_row {
    float temperature;        /* 0: greedy, the lowest id of the largest logit */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    uint32_t top_k;           /* 0: off */
    float repetition_penalty; /* 1: off */
    float frequency_penalty, presence_penalty;
    uint64_t seed, position; /* position: index of the token in its sequence's output */
    const struct sample_seen *seen;
    uint32_t n_seen;
    const struct sample_bias *bias;
    uint32_t n_bias;
    const uint32_t *banned; /* ids masked */
    uint32_t n_banned;
    const uint32_t *mask;   /* bitset over the vocabulary, 1 = allowed; NULL: all */
    uint32_t n_top;         /* logprobs wanted beside the sampled token's */
    uint32_t logprobs_mode; /* enum be_logprobs_mode */
    bool want_logprob;
};
enum be_logprobs_mode { BE_RAW_LOGPROBS = 0, BE_PROCESSED_LOGPROBS, BE_RAW_LOGITS, BE_PROCESSED_LOGITS };

#define BE_NO_TOKEN UINT32_MAX
/* sample_out: results of a row, valid in host memory after wait. */
struct sample_out {
    uint32_t id;         /* BE_NO_TOKEN: nothing satisfies the constraints, or a logit was NaN */
    bool nan;            /* a logit was NaN or plus infinity */
    float logprob;       /* of id, by logprobs_mode */
    uint32_t rank;       /* of id among the raw logits, from 1 */
    uint32_t *top_ids;   /* [n_top] the caller's memory, best first, lower id on ties */
    float *top_logprobs; /* [n_top] */
};

/* op_prompt_logprobs: for logits row r: the log-softmax of target[r], its rank, and the n_top best. */
struct op_row_logprobs {
    uint32_t row;
    uint32_t target;
    uint32_t n_top;
    struct sample_out *out; /* id is target */
};

/* ---- the table -------------------------------------------------------------------------------- */

struct be_copy {
    uint32_t src, dst; /* blocks */
};

struct be_ops {
    uint32_t abi;   /* BE_ABI */
    uint32_t bytes; /* sizeof(struct be_ops) as the backend was built */
    const char *name;

    /* open: 0, or nonzero with err filled. close frees everything that belongs to the handle. */
    int (*open)(struct be **out, const struct be_config *cfg, char err[BE_ERR_BYTES]);
    void (*close)(struct be *b);
    void (*info)(struct be *b, struct be_info *out);

    /* mem_new: rows * cols elements of `dt` (DT_NONE: the activation type), cleared. NULL: no memory. */
    struct be_mem *(*mem_new)(struct be *b, uint64_t rows, uint32_t cols, enum dtype dt);
    void (*mem_free)(struct be *b, struct be_mem *m);
    /* put and get convert from and to f32 for activation buffers; get waits. */
    void (*mem_put)(struct be *b, struct be_mem *m, uint64_t row0, uint64_t n_rows, const float *src);
    void (*mem_get)(struct be *b, const struct be_mem *m, uint64_t row0, uint64_t n_rows, float *dst);

    /* weight: packs sources into the backend's own layout, using its threads. NULL with err filled: no memory
     * or a type it cannot hold. Blocking. weight_bytes: what it occupies. */
    struct be_w *(*weight)(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src,
                           uint32_t n_src, char err[BE_ERR_BYTES]);
    void (*weight_free)(struct be *b, struct be_w *w);
    uint64_t (*weight_bytes)(const struct be_w *w);

    /* kv_new: a pool of n_blocks of KV_BLOCK_TOKENS tokens (CACHE_STATE: n_blocks states). group is its index
     * in batches. kv_block_bytes: bytes of one block over all layers of the group. */
    uint64_t (*kv_block_bytes)(struct be *b, const struct cache_group_spec *spec);
    struct be_kv *(*kv_new)(struct be *b, uint32_t group, const struct cache_group_spec *spec,
                            uint32_t n_blocks, char err[BE_ERR_BYTES]);
    void (*kv_free)(struct be *b, struct be_kv *kv);
    void (*kv_copy)(struct be *b, struct be_kv *kv, const struct be_copy *copies, uint32_t n);
    /* kv_export, kv_import: whole blocks in the canonical layout [layer][k,v][head][token][dim], stored type.
     * Both wait. bytes is n * kv_block_bytes. */
    void (*kv_export)(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst);
    void (*kv_import)(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, const void *src);

    /* plan: takes a batch in: metadata, host decisions, everything that may not happen between begin and end.
     * begin returns true if a captured graph of this shape was launched instead: skip to end. */
    void (*plan)(struct be *b, const struct batch *batch);
    bool (*begin)(struct be *b);
    void (*end)(struct be *b);

    void (*embed)(struct be *b, const struct op_embed *op);
    void (*gemm)(struct be *b, const struct op_gemm *op);
    void (*norm)(struct be *b, const struct op_norm *op);
    void (*attn)(struct be *b, const struct op_attn *op);
    void (*moe)(struct be *b, const struct op_moe *op);
    void (*logits)(struct be *b, const struct op_logits *op);

    /* logits_get, logits_put: rows of the last op_logits to and from host f32 [n_vocab]. get waits. */
    void (*logits_get)(struct be *b, uint32_t row, float *dst);
    void (*logits_put)(struct be *b, uint32_t row, const float *src);
    /* sample: rows[r] and out[r] go with row r of the logits, r < n. rows is read before it returns; out is
     * written by the time wait returns, also if other steps were planned meanwhile. */
    void (*sample)(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n);
    void (*row_logprobs)(struct be *b, const struct op_row_logprobs *rows, uint32_t n);

    /* wait: until everything enqueued so far is done. 0, or nonzero with err filled: the device failed or
     * a rank of the group is gone, and the handle is only good for close. */
    int (*wait)(struct be *b, char err[BE_ERR_BYTES]);

    /* group_bytes: of the memory that the ranks of a group opened with cfg share, struct be_group included.
     * NULL: the backend's ranks do not meet in memory. */
    size_t (*group_bytes)(const struct be_config *cfg);

    /* wait_sampled: as wait, but only for the results of all calls of sample and row_logprobs but the last n_behind, so
     * that what was enqueued behind goes on meanwhile. NULL: steps are not overlapped. */
    int (*wait_sampled)(struct be *b, uint32_t n_behind, char err[BE_ERR_BYTES]);

    /* stand_open: for a rank on another host (be_far), in rank 0's process: cfg is the rank's, with the group's memory.
     * Any thread, one at a time for each stand. stand_call: waits with the other ranks as that rank would; false: the
     * group is over, or this is no message. NULL: all ranks are on one host. */
    struct be_stand *(*stand_open)(const struct be_config *cfg, char err[BE_ERR_BYTES]);
    bool (*stand_call)(struct be_stand *s, const void *in, size_t n, void *out, size_t n_out);
    void (*stand_close)(struct be_stand *s);

    /* gather: lets a model compute its last layer for the batch's rows alone, and `logits` then takes what is gathered.
     * NULL: it computes all of it. */
    void (*gather)(struct be *b, const struct op_gather *op);
};

/* The CPU's tables, and the loader of a shared object's. */
extern const struct be_ops cpu_ops; /* AVX2, or plain C where the processor lacks it: decided at open */
extern const struct be_ops ref_ops; /* cpu/ref.c: the oracle */
/* be_plugin_ops: exported by backend-cuda.so. NULL if abi is not its own. */
const struct be_ops *be_plugin_ops(uint32_t abi);

/* ---- exact arithmetic of draws ---------------------------------------------------------------- */

/* be_exp: e^x for x <= 0 in f32, from multiplications and fmaf alone, so that every device that rounds to
 * nearest gives the same bits. Relative error below 2^-21; 0 below -60. Degree-6 minimax of 2^f on
 * [-0.5, 0.5] (Taylor terms of ln 2), scaled by the exponent's bits. */
BE_EXACT float be_exp(float x) {
    if (!(x > -60.0f))
        return 0.0f;
    float t = x * 1.44269504f;
    float n = rintf(t);
    float f = fmaf(n, -0.693359375f, x); /* ln 2 in two parts */
    f = fmaf(n, 2.12194440e-4f, f);
    float p = 1.38888889e-3f;
    p = fmaf(p, f, 8.33333333e-3f);
    p = fmaf(p, f, 4.16666667e-2f);
    p = fmaf(p, f, 1.66666667e-1f);
    p = fmaf(p, f, 0.5f);
    p = fmaf(p, f, 1.0f);
    p = fmaf(p, f, 1.0f);
    union {
        uint32_t u;
        float f;
    } s;
    s.u = (uint32_t)((int32_t)n + 127) << 23;
    return p * s.f;
}

/* be_weight40: a token's share in a draw. d is its logit minus the largest, d <= 0. */
BE_EXACT uint64_t be_weight40(float d) {
    return (uint64_t)(be_exp(d) * 1099511627776.0f);
}

/* be_philox64: Philox4x32-10 (Salmon et al., 2011), key = seed, counter = (position, 0); its first two words.
 */
BE_EXACT uint64_t be_philox64(uint64_t seed, uint64_t position) {
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

static inline size_t dtype_bytes(enum dtype t) {
    static const uint8_t size[N_DTYPE] = {0, 4, 2, 2, 1, 1, 4, 8, 1, 1};
    return size[t];
}

#endif
