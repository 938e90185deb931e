/* config_gemma.c: what Gemma 2 and 3 have beside Llama's config, and Phi-3's fused tensors. */
#include <math.h>

#include "common/hf/config_internal.h"

enum rc config_gemma_read(const struct fields *f, struct hf_config *c) {
    bool two = c->arch == HF_GEMMA2;
    double scalar = 256, attn = two ? 50 : 0, final = two ? 30 : 0;
    enum rc rc;
    c->fused = c->arch == HF_PHI3;
    if (!two && c->arch != HF_GEMMA3)
        return RC_OK;
    if ((rc = field_f64(f, "query_pre_attn_scalar", 0, true, 1e6, &scalar)) ||
        (rc = field_f64(f, "attn_logit_softcapping", 0, false, 1e6, &attn)) ||
        (rc = field_f64(f, "final_logit_softcapping", 0, false, 1e6, &final)))
        return rc;
    if (json_is_null(json_object_get(f->obj, "attn_logit_softcapping")))
        attn = 0;
    if (json_is_null(json_object_get(f->obj, "final_logit_softcapping")))
        final = 0;
    c->attn_scale = (float)(1 / sqrt(scalar));
    c->attn_softcap = (float)attn;
    c->final_softcap = (float) final;
    c->norm_offset = 1;
    c->embed_scale = sqrtf((float)c->hidden);
    c->sandwich_norms = true;
    c->local_theta = two ? 0 : 10000;
    return two ? RC_OK : field_f64(f, "rope_local_base_freq", 0, true, 1e12, &c->local_theta);
}

/* Every second layer of Gemma 2 sees all; of Gemma 3, the last of every sliding_window_pattern. */
enum rc config_gemma_layers(const struct fields *f, const json_t *types, struct hf_config *c) {
    uint32_t pattern = 6;
    if (types)
        return config_layer_types(f, types, c);
    const char *key =
        field_get(f, "sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    enum rc rc = field_u32(f, key, 1, CONFIG_LAYERS_MAX, &pattern);
    if (c->arch == HF_GEMMA2)
        pattern = 2;
    for (uint32_t i = 0; i < c->n_layers && !rc; i++)
        c->layer_windowed[i] = c->window && (i + 1) % pattern != 0;
    return rc;
}
