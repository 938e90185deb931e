/* config_internal.h: limits of a config, and what config.c and config_rope.c share. */
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
    CONFIG_VOCAB_MAX = 1 << 22,
    CONFIG_POSITIONS_MAX = 1 << 26
};

/* config_unsupported: RC_UNSUPPORTED with "FILE: KEY: what". */
enum rc config_unsupported(const struct fields *f, const char *key, const char *what);
/* config_rope_read: c->rope, from rope_parameters, or rope_scaling and rope_theta. Needs the sizes. */
MUST_USE enum rc config_rope_read(const struct fields *f, struct hf_config *c);

#endif
