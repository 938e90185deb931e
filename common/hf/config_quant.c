/* config_quant.c: quantization_config: fp8 (e4m3) as Hugging Face and compressed-tensors write it. Which tensors are
 * fp8 is told by their own types, so lists of exceptions are not read. */
#include "common/hf/config_internal.h"

static enum rc unsupported(const struct fields *f, const char *what) {
    return config_unsupported(f, "quantization_config", what);
}

static bool is_word(const json_t *v, const char *word) {
    const char *s = json_string_value(v);
    return s && strcmp(s, word) == 0;
}

static bool absent(const json_t *v) {
    return !v || json_is_null(v);
}

/* blocks_of_128: [128, 128]. */
static bool blocks_of_128(const json_t *v) {
    return json_is_array(v) && json_array_size(v) == 2 && json_integer_value(json_array_get(v, 0)) == 128 &&
           json_integer_value(json_array_get(v, 1)) == 128;
}

static bool float8(const json_t *part) {
    const json_t *bits = json_object_get(part, "num_bits");
    return json_integer_value(bits) == 8 && is_word(json_object_get(part, "type"), "float");
}

/* read_kv: kv_cache_scheme: as compressed-tensors describes it, or the one word of AutoFP8. */
static enum rc read_kv(const struct fields *f, const json_t *q, struct hf_config *c) {
    const json_t *s = json_object_get(q, "kv_cache_scheme"), *strategy = json_object_get(s, "strategy");
    if (absent(s))
        return RC_OK;
    if (!is_word(s, "static") && !float8(s))
        return unsupported(f, "kv_cache_scheme: of the KV cache, fp8 with factors that are stored is supported");
    if (!absent(strategy) && !is_word(strategy, "tensor"))
        return unsupported(f, "kv_cache_scheme: strategy: one factor for a layer's keys and one for its values "
                              "(tensor) is supported");
    if (json_is_true(json_object_get(s, "dynamic")))
        return unsupported(f, "kv_cache_scheme: dynamic: factors that are stored are supported");
    if (json_is_false(json_object_get(s, "symmetric")))
        return unsupported(f, "kv_cache_scheme: symmetric: factors without an offset are supported");
    c->quant.kv_scales = true;
    return RC_OK;
}

static enum rc read_fp8(const struct fields *f, const json_t *q, struct hf_config *c) {
    const json_t *fmt = json_object_get(q, "fmt"), *blocks = json_object_get(q, "weight_block_size"),
                 *acts = json_object_get(q, "activation_scheme");
    if (!absent(fmt) && !is_word(fmt, "e4m3") && !is_word(fmt, "float8_e4m3fn"))
        return unsupported(f, "fmt: of fp8, e4m3 is supported");
    if (!absent(blocks) && !blocks_of_128(blocks))
        return unsupported(f, "weight_block_size: blocks of [128, 128] are supported");
    if (!absent(acts) && !is_word(acts, "dynamic") && !is_word(acts, "static"))
        return unsupported(f, "activation_scheme: dynamic and static are supported");
    c->quant.fp8 = true;
    c->quant.static_inputs = is_word(acts, "static");
    return read_kv(f, q, c);
}

static enum rc read_compressed(const struct fields *f, const json_t *q, struct hf_config *c) {
    const json_t *groups = json_object_get(q, "config_groups");
    const char *name;
    json_t *group;
    enum rc rc = read_kv(f, q, c);
    if (rc != RC_OK)
        return rc;
    if (c->quant.kv_scales && (absent(groups) || (json_is_object(groups) && json_object_size(groups) == 0)))
        return RC_OK; /* the cache alone */
    if (!json_is_object(groups) || json_object_size(groups) == 0)
        return unsupported(f, "config_groups: a description of the weights is needed");
    json_object_foreach((json_t *)(uintptr_t)groups, name, group) {
        const json_t *w = json_object_get(group, "weights"), *x = json_object_get(group, "input_activations");
        const json_t *strategy = json_object_get(w, "strategy");
        if (!float8(w) || (!absent(x) && !float8(x)))
            return unsupported(f, "of compressed-tensors, weights and activations in fp8 are supported");
        if (is_word(strategy, "block") && !blocks_of_128(json_object_get(w, "block_structure")))
            return unsupported(f, "block_structure: blocks of [128, 128] are supported");
        if (!is_word(strategy, "tensor") && !is_word(strategy, "channel") && !is_word(strategy, "block"))
            return unsupported(f, "strategy: tensor, channel and block are supported");
        c->quant.static_inputs |= !absent(x) && !json_is_true(json_object_get(x, "dynamic"));
    }
    c->quant.fp8 = true;
    return RC_OK;
}

enum rc config_quant_read(const struct fields *f, struct hf_config *c) {
    const json_t *q = field_get(f, "quantization_config"), *method = json_object_get(q, "quant_method");
    if (!q)
        return RC_OK;
    if (!json_is_object(q))
        return field_bad(f, "quantization_config", "an object is needed");
    if (is_word(method, "fp8"))
        return read_fp8(f, q, c);
    if (is_word(method, "compressed-tensors"))
        return read_compressed(f, q, c);
    return unsupported(f, "this build supports fp8 and compressed-tensors of fp8");
}
