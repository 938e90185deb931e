/* family.h: what the files of worker/model share: the model, its blocks' weights, and a family's two
 * functions.
 *
 * Included by worker/model only. A model belongs to the engine's thread. Weights and buffers are the
 * backend's; the model keeps a list of them and frees them in model_free.
 *
 * Tensor parallelism: a rank holds n_heads / n_ranks query heads and the KV heads they use, and mlp / n_ranks
 * columns of the MLP. q, k, v, gate and up are cut by rows, o and down by columns, whose products are summed
 * over the ranks (`reduce`). Of the embedding and the head a rank holds the rows [vocab0, vocab0 + n_vocab),
 * which need not be as many on all. Norms are whole on every rank.
 */
#ifndef WEIR_WORKER_MODEL_FAMILY_H
#define WEIR_WORKER_MODEL_FAMILY_H

#include "worker/model/model.h"

struct weights;

/* heads: the attention heads of one rank. */
struct heads {
    uint32_t n, n_kv;
    uint32_t first, first_kv; /* of the whole model's */
};

struct attn_block {
    const struct be_w *norm;            /* [hidden] */
    const struct be_w *qkv;             /* [(n + 2 n_kv) head_dim][hidden] */
    const struct be_w *qkv_bias;        /* [(n + 2 n_kv) head_dim], or NULL */
    const struct be_w *q_norm, *k_norm; /* [head_dim], or NULL */
    const struct be_w *o;               /* [hidden][n head_dim] */
    const struct be_w *o_bias;          /* [hidden], or NULL */
    uint32_t group, layer;              /* cache group, and layer within it */
    uint32_t window;                    /* 0: none */
    const struct be_w *post_norm;       /* [hidden] of what is added; NULL: none */
    const struct be_w *inv_freq;        /* of this layer's rope */
    float k_scale, v_scale;             /* of a cache in fp8; 0: none are stored */
};

struct mlp_block {
    const struct be_w *norm;         /* [hidden] */
    const struct be_w *gate_up;      /* [2 mlp][hidden] */
    const struct be_w *gate_up_bias; /* [2 mlp], or NULL */
    const struct be_w *down;         /* [hidden][mlp] */
    const struct be_w *down_bias;    /* [hidden], or NULL */
    const struct be_w *post_norm;    /* [hidden] of what is added; NULL: none */
};

/* moe_block: experts in place of one MLP; sizes are the model's. A rank holds a part of every expert, cut as an
 * MLP is. */
struct moe_block {
    const struct be_w *norm;    /* [hidden] */
    const struct be_w *router;  /* [n_experts][hidden] f32, whole on every rank; NULL: the layer has an MLP */
    const struct be_w *gate_up; /* [n_experts][2 moe.mlp][hidden] */
    const struct be_w *down;    /* [n_experts][hidden][moe.mlp] */
};

struct layer {
    struct attn_block attn;
    struct mlp_block mlp; /* or */
    struct moe_block moe;
};

/* norm_w: a LayerNorm's weights; bias NULL: without. weight NULL: no norm at all. */
struct norm_w {
    const struct be_w *weight, *bias; /* [hidden] */
};

/* enc_layer: of an encoder. BERT and its relatives norm behind attention and MLP, ModernBERT before them. */
struct enc_layer {
    struct norm_w attn_norm, mlp_norm;
    const struct be_w *qkv, *qkv_bias;
    const struct be_w *o, *o_bias;
    const struct be_w *up, *up_bias; /* [mlp][hidden]; ModernBERT: gate and up */
    const struct be_w *down, *down_bias;
};

struct encoder {
    struct enc_layer *layers;             /* [n_layers] */
    const struct be_w *positions, *types; /* NULL: without */
    struct norm_w embed_norm, last_norm;
    float norm_eps;
    int32_t pos_offset;
    const struct be_w *rel_bias; /* MPNet: see op_attn */
    uint32_t rel_span;
    const struct be_w *local_freq; /* ModernBERT: rope of the layers with a window */
    uint8_t *windowed;             /* [n_layers] */
    uint32_t window;
};

struct model_family {
    /* load: fills the layers and the ends of the model from named tensors. */
    enum rc (*load)(struct model *m, const struct hf_config *cfg, struct weights *w, struct err *e);
    /* forward: enqueues the operations between begin and end. */
    void (*forward)(struct model *m, uint32_t n_rows);
};

/* model_plan: how layers map to cache groups. */
struct group_plan {
    uint32_t n_groups;
    struct cache_group_spec spec[BE_GROUPS_MAX];
    uint32_t full, windowed; /* index of the group of each kind; UINT32_MAX: no such layer */
};

struct model {
    const struct be_ops *ops;
    struct be *be;
    const struct model_family *family;
    uint32_t rank, n_ranks;
    uint32_t hidden, head_dim, mlp; /* mlp: of this rank */
    uint32_t vocab0, n_vocab;       /* of this rank */
    struct heads heads;
    float rms_eps, attn_scale, rope_scale;
    float norm_offset, embed_scale, attn_softcap, final_softcap; /* Gemma; else 0 */
    uint32_t rotary_dim;
    enum act_kind act;
    struct {
        uint32_t n_experts, top_k, mlp; /* mlp: of one expert, of this rank */
        bool renorm;
    } moe; /* n_experts 0: without */
    struct group_plan groups;

    const struct be_w *embed, *norm,
        *head; /* [n_vocab][hidden], [hidden], [n_vocab][hidden] (embed itself where tied) */
    const struct be_w *inv_freq; /* [head_dim / 2] */
    struct layer *layers;        /* [n_layers] */
    uint32_t n_layers;
    struct encoder enc; /* of encoders; their hidden states end up in `last` */
    bool pools;         /* hidden states are wanted, not logits */

    struct be_mem *x;      /* [n_tokens_max][hidden]: the residual stream */
    struct be_mem *qkv;    /* [n_tokens_max][(n + 2 n_kv) head_dim] */
    struct be_mem *attn;   /* [n_tokens_max][n head_dim] */
    struct be_mem *mid;    /* [n_tokens_max][mlp] */
    struct be_mem *branch; /* [n_tokens_max][hidden]: what is normed before it is added; NULL: nothing is */
    struct be_mem *last;   /* [n_tokens_max][hidden]: behind the last norm; NULL unless it pools */
    /* What the last layer goes on with once K and V are there: x and attn of the batch's rows alone (rows_gather) */
    struct be_mem *row_x, *row_attn;
    uint32_t n_tokens; /* of the batch */
    uint32_t n_rows;  /* of the batch; a pooling model's: 0: hidden states of all tokens are wanted */
    uint32_t n_live;  /* rows that x and attn hold; 0: the batch's tokens */

    struct be_w **owned; /* every packed weight */
    uint32_t n_owned, cap_owned;
    uint64_t weight_bytes;
};

/* Llama, Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3, Phi-3, Mixtral and Qwen3-MoE: one graph, told apart by flags
 * of the config. */
extern const struct model_family llama_family;
/* GPT-2 and OPT. */
extern const struct model_family gpt_family;
/* BERT, RoBERTa, XLM-RoBERTa and MPNet; ModernBERT. */
extern const struct model_family bert_family, modernbert_family;

#endif
