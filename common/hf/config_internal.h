/* config_internal.h: limits of a config, and what the config*.c files share. */
#ifndef WEIR_COMMON_HF_CONFIG_INTERNAL_H
#define WEIR_COMMON_HF_CONFIG_INTERNAL_H

#include "common/hf/config.h"
#include "common/hf/fields.h"

/* Sizes above the largest public models by a wide margin, low enough that no product of two overflows. */
enum {
    CONFIG_HIDDEN_MAX = 1 << 17,
    CONFIG_LAYERS_MAX = 1 << 10,
    CONFIG_HEADS_MAX = 1 << 10,
    CONFIG_HEAD_DIM_MAX = 1 << 9,
    CONFIG_MLP_MAX = 1 << 20,
    CONFIG_EXPERTS_MAX = 1 << 10,
    CONFIG_VOCAB_MAX = 1 << 22,
    CONFIG_POSITIONS_MAX = 1 << 26
};

/* config_unsupported: RC_UNSUPPORTED with "FILE: KEY: what". */
enum rc config_unsupported(const struct fields *f, const char *key, const char *what);
/* config_need_u32: 1 to hi, and it must be there. */
MUST_USE enum rc config_need_u32(const struct fields *f, const char *key, uint32_t hi, uint32_t *out);
/* config_read_act: the name of an activation this build knows; `name` where the key is absent. */
MUST_USE enum rc config_read_act(const struct fields *f, const char *key, const char *name, char out[32]);
/* config_encoder_read: sizes, positions and norms of BERT's relatives. */
MUST_USE enum rc config_encoder_read(const struct fields *f, struct hf_config *c);
/* config_labels_read: labels, their activation, matryoshka lengths. */
MUST_USE enum rc config_labels_read(const struct fields *f, struct hf_config *c);
/* config_layer_types: layer_windowed from a list of full_attention and sliding_attention. */
MUST_USE enum rc config_layer_types(const struct fields *f, const json_t *types, struct hf_config *c);
/* config_gemma_read, config_gemma_layers: scales, caps and norms of Gemma 2 and 3 (nothing for other
 * families), and which of its layers have a window. config_gpt_read: everything of GPT-2 and OPT. */
MUST_USE enum rc config_gemma_read(const struct fields *f, struct hf_config *c);
MUST_USE enum rc config_gemma_layers(const struct fields *f, const json_t *types, struct hf_config *c);
MUST_USE enum rc config_gpt_read(const struct fields *f, struct hf_config *c);
/* config_moe_read: the experts of Mixtral and Qwen3-MoE (nothing for other families). Needs the sizes. */
MUST_USE enum rc config_moe_read(const struct fields *f, struct hf_config *c);
/* config_quant_read: c->quant, from quantization_config. */
MUST_USE enum rc config_quant_read(const struct fields *f, struct hf_config *c);
/* config_rope_read: c->rope, from rope_parameters, or rope_scaling and rope_theta. Needs the sizes. */
MUST_USE enum rc config_rope_read(const struct fields *f, struct hf_config *c);

#endif
