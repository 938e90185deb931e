/* config_moe.c: the experts of Mixtral and Qwen3-MoE. */
#include <stdlib.h>

#include "common/hf/config_internal.h"

/* mark_dense: the layers in mlp_only_layers keep one MLP. Numbers of layers that the model does not have are
 * harmless: a config cut to fewer layers keeps its list. */
static enum rc mark_dense(const struct fields *f, struct hf_config *c) {
    const json_t *list = field_get(f, "mlp_only_layers");
    if (list && (!json_is_array(list) || json_array_size(list) > CONFIG_LAYERS_MAX))
        return field_bad(f, "mlp_only_layers", "a list of layer numbers is needed");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t layer = json_integer_value(v);
        if (!json_is_integer(v) || layer < 0)
            return field_bad(f, "mlp_only_layers", "a list of layer numbers is needed");
        if (layer < (json_int_t)c->n_layers)
            c->moe.layer_sparse[layer] = 0;
    }
    return RC_OK;
}

/* read_n_experts: transformers 5 writes num_local_experts for both families; Qwen's own files say
 * num_experts. */
static enum rc read_n_experts(const struct fields *f, struct hf_config *c) {
    bool mixtral = c->arch == HF_MIXTRAL;
    const char *key = mixtral ? "num_local_experts" : "num_experts";
    const char *other = mixtral ? "num_experts" : "num_local_experts";
    c->moe.n_experts = mixtral ? 8 : 128;
    return field_u32(f, field_get(f, key) ? key : other, 1, CONFIG_EXPERTS_MAX, &c->moe.n_experts);
}

enum rc config_moe_read(const struct fields *f, struct hf_config *c) {
    bool mixtral = c->arch == HF_MIXTRAL;
    uint32_t step = 1;
    enum rc rc;
    if (!mixtral && c->arch != HF_QWEN3_MOE)
        return RC_OK;
    c->moe.top_k = mixtral ? 2 : 8;
    c->moe.mlp = mixtral ? c->mlp : 768;
    c->moe.renorm = mixtral;
    if ((rc = read_n_experts(f, c)) ||
        (rc = field_u32(f, "num_experts_per_tok", 1, CONFIG_EXPERTS_MAX, &c->moe.top_k)))
        return rc;
    if (c->moe.top_k > c->moe.n_experts)
        return field_bad(f, "num_experts_per_tok", "%u experts for a token, and there are %u", c->moe.top_k,
                         c->moe.n_experts);
    if (!mixtral && ((rc = field_u32(f, "moe_intermediate_size", 1, CONFIG_MLP_MAX, &c->moe.mlp)) ||
                     (rc = field_bool(f, "norm_topk_prob", &c->moe.renorm)) ||
                     (rc = field_u32(f, "decoder_sparse_step", 1, CONFIG_LAYERS_MAX, &step))))
        return rc;
    c->moe.layer_sparse = xcalloc(c->n_layers, 1);
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->moe.layer_sparse[i] = (i + 1) % step == 0;
    return mixtral ? RC_OK : mark_dense(f, c);
}
