/* config.h: what Weir reads from a Hugging Face folder's config.json and generation_config.json.
 *
 * Checked as reliability.md L02 asks: every size is positive and bounded, heads divide, rope is
 * finite. An architecture this build lacks is RC_UNSUPPORTED with the list of those it has.
 */
#ifndef WEIR_COMMON_HF_CONFIG_H
#define WEIR_COMMON_HF_CONFIG_H

#include <jansson.h>

#include "common/err.h"

enum hf_arch {
    HF_LLAMA = 0,
    HF_MISTRAL,
    HF_QWEN2,
    HF_QWEN3,
    HF_GEMMA2,
    HF_GEMMA3,
    HF_PHI3,
    HF_MIXTRAL, /* a mixture of experts; config_moe.c */
    HF_QWEN3_MOE,
    HF_GPT2, /* LayerNorms and learned positions; config_gpt.c */
    HF_OPT,
    HF_BERT, /* from here on encoders: every token sees all; config_encoder.c */
    HF_ROBERTA,
    HF_MPNET,
    HF_MODERNBERT,
    N_HF_ARCH
};
/* What sits on top: a language model's head, nothing, or a head of labels. */
enum hf_head { HF_HEAD_LM = 0, HF_HEAD_NONE, HF_HEAD_LABELS, N_HF_HEAD };
enum hf_dtype { HF_DTYPE_F32 = 0, HF_DTYPE_F16, HF_DTYPE_BF16 };
enum hf_rope {
    HF_ROPE_DEFAULT = 0,
    HF_ROPE_LINEAR,
    HF_ROPE_DYNAMIC,
    HF_ROPE_LLAMA3,
    HF_ROPE_YARN,
    HF_ROPE_LONG
};

/* The function on label outputs that the checkpoint asks for. */
enum hf_label_act { HF_LABEL_ACT_DEFAULT = 0, HF_LABEL_ACT_NONE, HF_LABEL_ACT_SIGMOID, HF_LABEL_ACT_SOFTMAX };

enum { HF_EOS_MAX = 16, HF_LABELS_MAX = 4096, HF_MATRYOSHKA_MAX = 64, HF_PAIRS_MAX = 256 };

/* hf_encoder: what only encoders have, and of it norms and positions: GPT-2 and OPT. */
struct hf_encoder {
    float norm_eps; /* of their LayerNorms */
    bool norm_bias;
    uint32_t n_types;     /* rows of the token type table; 0: there is none */
    uint32_t pos_offset;  /* added to positions: pad id + 1 for RoBERTa and MPNet */
    uint32_t n_positions; /* rows of the position table */
    uint32_t rel_buckets; /* MPNet: buckets of relative positions */
    uint32_t global_every,
        local_reach;    /* ModernBERT: layers that see all; tokens the others see to each side */
    double local_theta; /* rope of the others */
    bool pools_mean;    /* ModernBERT: the label head takes the mean, not the first token */
    bool head_bias;
    char head_act[32];
};

/* hf_labels: of a head of labels, and of embeddings that may be cut short. */
struct hf_labels {
    uint32_t n;   /* outputs of the head; 0: none */
    char **names; /* [n] heap, or NULL without a table */
    enum hf_label_act act;
    uint32_t matryoshka[HF_MATRYOSHKA_MAX]; /* lengths that are allowed */
    uint32_t n_matryoshka;
    bool is_matryoshka; /* any length is */
};

/* hf_moe: a mixture of experts. Each expert is an MLP of its own; every token goes to the top_k that a router
 * names. */
struct hf_moe {
    uint32_t n_experts, top_k; /* n_experts 0: the model has none */
    uint32_t mlp;              /* columns of one expert */
    bool renorm;               /* the weights of the chosen experts are divided by their sum */
    uint8_t *layer_sparse;     /* [n_layers] 1: experts in place of one MLP; heap */
};

struct hf_config {
    enum hf_arch arch;
    enum hf_head head;
    char arch_name[64];  /* "LlamaForCausalLM" */
    enum hf_dtype dtype; /* torch_dtype; f32 if absent */
    uint32_t hidden, n_layers, n_heads, n_kv_heads, head_dim, mlp, vocab;
    uint32_t max_positions; /* the position limit */
    float rms_eps;
    bool tie_embeddings;
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    /* Gemma */
    float norm_offset;                 /* added to norm weights */
    float embed_scale, attn_scale;     /* 0: 1, and 1 / sqrt(head_dim) */
    float attn_softcap, final_softcap; /* 0: none */
    bool sandwich_norms;               /* what attention and MLP give is normed before it is added */
    double local_theta;                /* rope of the layers with a window; 0: as the others' */
    bool fused;                        /* q, k, v in one tensor, gate and up in another (Phi-3) */
    uint32_t rotary_dim;               /* leading part of each head that is turned */
    char act[32];                      /* "silu" */
    uint32_t window;                   /* sliding window, 0: none */
    uint8_t *layer_windowed;           /* [n_layers] 1: this layer uses the window; heap */
    struct {
        enum hf_rope kind;
        double theta, factor, low_freq_factor, high_freq_factor;
        double beta_fast, beta_slow, attention_factor, mscale,
            mscale_all_dim; /* attention_factor 0: default */
        uint32_t original_max_positions;
        bool truncate; /* YaRN: round the correction range */
        /* LongRoPE: [rotary_dim / 2] divisors up to the original context, and beyond it */
        float short_factor[HF_PAIRS_MAX], long_factor[HF_PAIRS_MAX];
    } rope;
    struct {
        bool fp8;           /* some matrices are stored in e4m3, with factors beside them */
        bool static_inputs; /* and activations are made so by factors that are stored, too */
        bool kv_scales;     /* keys and values are for e4m3, by factors that are stored for each layer */
    } quant;
    struct hf_moe moe;
    struct hf_encoder encoder;
    struct hf_labels labels;
    uint32_t eos[HF_EOS_MAX]; /* config.json's; generation_config.json's come first when it has any */
    uint32_t n_eos;
};

/* Sampling defaults of generation_config.json (api.md 5.2); NAN or 0 where absent. */
struct hf_generation {
    double temperature, top_p, top_k, min_p, repetition_penalty; /* NAN: absent */
    uint64_t max_new_tokens;                                     /* 0: absent */
    uint32_t eos[HF_EOS_MAX];
    uint32_t n_eos;
};

/* hf_config_parse: from the text of config.json; overrides (--hf-overrides, a JSON object or NULL) are merged
 * on top. RC_INVALID names the key and the reason. */
MUST_USE enum rc hf_config_parse(struct str text, const json_t *overrides, struct hf_config *out,
                                 struct err *e);
void hf_config_fini(struct hf_config *c);
MUST_USE enum rc hf_generation_parse(struct str text, struct hf_generation *out, struct err *e);
/* hf_generation_load: what --generation-config and --override-generation-config make of the model's file (api.md
 * 5.2.2). source: auto, vllm or a folder; override: a JSON object or NULL. *capped: max_new_tokens comes from the
 * folder or the override, and so binds every request (5.3.3). */
MUST_USE enum rc hf_generation_load(struct str own, const char *source, const char *override,
                                    struct hf_generation *out, bool *capped, struct err *e);
/* hf_is_encoder: its tokens attend in both directions, and nothing is cached. */
static inline bool hf_is_encoder(const struct hf_config *c) {
    return c->arch >= HF_BERT;
}
/* hf_config_len_limit: the longest context that the config and its rope scaling allow: max_positions, or what
 * linear scaling and YaRN stretch it to. */
uint32_t hf_config_len_limit(const struct hf_config *c);
/* hf_rope_inv_freq: rotary_dim / 2 frequencies with scaling applied, and the factor on sin and cos.
 * Formulas: Hugging Face's modeling_rope_utils, Llama 3.1 report, YaRN (Peng et al., 2023). Dynamic scaling
 * is exact up to max_positions only: max_len must not be above it. */
void hf_rope_inv_freq(const struct hf_config *c, uint32_t rotary_dim, uint32_t max_len, float *inv_freq,
                      float *scale);

#endif
