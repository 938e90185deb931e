/* config_rope.c: rotary embeddings: what config.json says, and the frequencies that follow.
 *
 * Frequencies are computed in f32 in the order of Hugging Face's modeling_rope_utils, so that they are its
 * numbers to the last bit or two: at position 10^5 a relative difference of 10^-6 would turn a pair by 0.1.
 */
#include <math.h>

#include "common/hf/config_internal.h"

/* Members of the rope object that are read, or that change nothing. Others are refused: each that exists
 * today (short_factor, mrope_section, per-layer objects ...) changes the frequencies. */
static const char *const known_keys[] = {
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "partial_rotary_factor",
    "finetuned",
};

static enum rc check_keys(const struct fields *r, bool has_long) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)r->obj, key, v) {
        bool known = json_is_null(v);
        for (size_t i = 0; i < ARRAY_LEN(known_keys); i++)
            known |= strcmp(key, known_keys[i]) == 0;
        known |= has_long && (strcmp(key, "short_factor") == 0 || strcmp(key, "long_factor") == 0);
        if (!known)
            return config_unsupported(r, key, "this build does not support what it asks for");
    }
    return RC_OK;
}

static enum rc read_kind(const struct fields *r, struct hf_config *c) {
    static const char *const names[] = {
        [HF_ROPE_DEFAULT] = "default", [HF_ROPE_LINEAR] = "linear", [HF_ROPE_DYNAMIC] = "dynamic",
        [HF_ROPE_LLAMA3] = "llama3",   [HF_ROPE_YARN] = "yarn",     [HF_ROPE_LONG] = "longrope",
    };
    const char *key = field_get(r, "rope_type") ? "rope_type" : "type", *name = "default";
    enum rc rc = field_str(r, key, &name);
    if (rc)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0 && (i != HF_ROPE_LONG || c->arch == HF_PHI3)) {
            c->rope.kind = (enum hf_rope)i;
            return RC_OK;
        }
    }
    return config_unsupported(r, key,
                              "must be default, linear, dynamic, llama3 or yarn (Phi-3: or longrope)");
}

/* need_f64: a factor without which the kind of scaling means nothing. */
static enum rc need_f64(const struct fields *r, const char *key, double lo, double hi, double *out) {
    enum rc rc = field_f64(r, key, lo, true, hi, out);
    return rc || field_get(r, key) ? rc : field_bad(r, key, "missing");
}

static enum rc read_llama3(const struct fields *r, struct hf_config *c) {
    enum rc rc = need_f64(r, "low_freq_factor", 0, 1e6, &c->rope.low_freq_factor);
    if (!rc)
        rc = need_f64(r, "high_freq_factor", 0, 1e6, &c->rope.high_freq_factor);
    if (!rc && c->rope.high_freq_factor <= c->rope.low_freq_factor)
        rc = field_bad(r, "high_freq_factor", "must be above low_freq_factor");
    return rc;
}

static enum rc read_yarn(const struct fields *r, struct hf_config *c) {
    enum rc rc;
    if ((rc = field_f64(r, "attention_factor", 0, true, 1e6, &c->rope.attention_factor)) ||
        (rc = field_f64(r, "beta_fast", 0, true, 1e6, &c->rope.beta_fast)) ||
        (rc = field_f64(r, "beta_slow", 0, true, 1e6, &c->rope.beta_slow)) ||
        (rc = field_f64(r, "mscale", 0, false, 1e6, &c->rope.mscale)) ||
        (rc = field_f64(r, "mscale_all_dim", 0, false, 1e6, &c->rope.mscale_all_dim)) ||
        (rc = field_bool(r, "truncate", &c->rope.truncate)))
        return rc;
    if (c->rope.beta_fast < c->rope.beta_slow)
        return field_bad(r, "beta_fast", "must not be below beta_slow");
    return c->rope.theta > 1 ? RC_OK : field_bad(r, "rope_theta", "YaRN needs a base above 1");
}

/* read_factors: one divisor for each pair that is turned. */
static enum rc read_factors(const struct fields *r, const char *key, uint32_t n, float *out) {
    const json_t *list = field_get(r, key);
    if (!json_is_array(list) || json_array_size(list) != n || n > HF_PAIRS_MAX)
        return field_bad(r, key, "a list of %u numbers is needed, one for each pair", n);
    for (uint32_t i = 0; i < n; i++) {
        double v = json_number_value(json_array_get(list, i));
        if (!(v >= 1e-3 && v <= 1e6))
            return field_bad(r, key, "number %u is not between 0.001 and 1000000", i);
        out[i] = (float)v;
    }
    return RC_OK;
}

/* read_long: LongRoPE as Phi-3 has it (Ding et al., 2024). */
static enum rc read_long(const struct fields *top, const struct fields *r, struct hf_config *c) {
    const struct fields *from = field_get(top, "original_max_position_embeddings") ? top : r;
    enum rc rc;
    if ((rc = read_factors(r, "short_factor", c->rotary_dim / 2, c->rope.short_factor)) ||
        (rc = read_factors(r, "long_factor", c->rotary_dim / 2, c->rope.long_factor)) ||
        (rc = field_f64(r, "attention_factor", 0, true, 1e6, &c->rope.attention_factor)) ||
        (rc = field_u32(from, "original_max_position_embeddings", 1, CONFIG_POSITIONS_MAX,
                        &c->rope.original_max_positions)))
        return rc;
    c->rope.factor = (double)c->max_positions / c->rope.original_max_positions;
    return field_f64(r, "factor", 0, true, 1e6, &c->rope.factor);
}

/* read_partial: how much of each head is turned. */
static enum rc read_partial(const struct fields *r, struct hf_config *c) {
    double partial = (double)c->rotary_dim / c->head_dim;
    enum rc rc = field_f64(r, "partial_rotary_factor", 0, true, 1, &partial);
    c->rotary_dim = (uint32_t)(c->head_dim * partial);
    if (!rc && c->arch != HF_PHI3 && c->rotary_dim != c->head_dim)
        rc = config_unsupported(r, "partial_rotary_factor", "must be 1: every pair is rotated");
    return rc || (c->rotary_dim >= 2 && c->rotary_dim % 2 == 0)
               ? rc
               : field_bad(r, "partial_rotary_factor", "must leave an even number of dimensions");
}

static enum rc read_scaling(const struct fields *top, const struct fields *r, struct hf_config *c) {
    enum rc rc;
    c->rope.original_max_positions = c->max_positions;
    if ((rc = check_keys(r, c->arch == HF_PHI3)) || (rc = read_kind(r, c)) ||
        (rc = field_f64(r, "rope_theta", 0, true, 1e12, &c->rope.theta)) || (rc = read_partial(r, c)))
        return rc;
    if (c->rope.kind == HF_ROPE_DEFAULT)
        return RC_OK;
    if (c->rope.kind == HF_ROPE_LONG)
        return read_long(top, r, c);
    /* As Hugging Face reads it: the top of the config comes first. */
    const struct fields *from = field_get(top, "original_max_position_embeddings") ? top : r;
    if ((rc = need_f64(r, "factor", 0, 1e6, &c->rope.factor)) ||
        (rc = field_u32(from, "original_max_position_embeddings", 1, CONFIG_POSITIONS_MAX,
                        &c->rope.original_max_positions)))
        return rc;
    if (c->rope.factor < 1)
        return field_bad(r, "factor", "must be at least 1, got %g", c->rope.factor);
    return c->rope.kind == HF_ROPE_LLAMA3 ? read_llama3(r, c)
           : c->rope.kind == HF_ROPE_YARN ? read_yarn(r, c)
                                          : RC_OK;
}

/* read_gemma3: one object for each kind of layer; those with a window have a plain rope. */
static enum rc read_gemma3(const struct fields *top, const json_t *both, struct hf_config *c) {
    struct fields r = {.file = top->file, .prefix = "rope_parameters.full_attention.", .e = top->e};
    struct fields local = {.file = top->file, .prefix = "rope_parameters.sliding_attention.", .e = top->e};
    const char *kind = "default";
    r.obj = json_object_get(both, "full_attention");
    local.obj = json_object_get(both, "sliding_attention");
    enum rc rc = read_scaling(top, &r, c);
    if (rc || !json_is_object(local.obj))
        return rc;
    rc = field_str(&local, "rope_type", &kind);
    if (!rc && strcmp(kind, "default") != 0)
        rc = config_unsupported(&local, "rope_type", "must be default");
    return rc ? rc : field_f64(&local, "rope_theta", 0, true, 1e12, &c->local_theta);
}

enum rc config_rope_read(const struct fields *f, struct hf_config *c) {
    c->rope.theta = 10000;
    c->rope.factor = 1;
    c->rope.beta_fast = 32;
    c->rope.beta_slow = 1;
    c->rope.truncate = true;
    c->rope.original_max_positions = c->max_positions;
    if (c->arch == HF_GEMMA3 || c->arch == HF_MIXTRAL)
        c->rope.theta = 1e6;
    c->rotary_dim = c->head_dim;
    enum rc rc = field_f64(f, "rope_theta", 0, true, 1e12, &c->rope.theta);
    if (!rc)
        rc = read_partial(f, c);
    if (rc)
        return rc;
    /* Transformers 5 writes rope_parameters; before it rope_scaling, which wins where both are given. */
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    static const char *const prefixes[] = {"rope_scaling.", "rope_parameters."};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *v = field_get(f, keys[i]);
        if (v && !json_is_object(v))
            return field_bad(f, keys[i], "an object is needed");
        if (!v || json_object_size(v) == 0)
            continue;
        struct fields r = {.file = f->file, .prefix = prefixes[i], .obj = v, .e = f->e};
        if (c->arch == HF_GEMMA3 && json_is_object(json_object_get(v, "full_attention")))
            return read_gemma3(f, v, c);
        return read_scaling(f, &r, c);
    }
    return RC_OK;
}

uint32_t hf_config_len_limit(const struct hf_config *c) {
    double n = c->rope.kind == HF_ROPE_LINEAR ? c->max_positions * c->rope.factor
               : c->rope.kind == HF_ROPE_YARN ? c->rope.original_max_positions * c->rope.factor
                                              : 0;
    return n > CONFIG_POSITIONS_MAX ? CONFIG_POSITIONS_MAX : MAX((uint32_t)n, c->max_positions);
}

/* scale_llama3: long waves are slowed by factor, short ones kept, those between blended (Llama 3.1's report,
 * section 3.4.2, and its reference code). */
static float scale_llama3(const struct hf_config *c, float freq) {
    float factor = (float)c->rope.factor, low = (float)c->rope.low_freq_factor,
          high = (float)c->rope.high_freq_factor;
    float old_len = (float)c->rope.original_max_positions;
    float wave = (float)(2 * M_PI) / freq;
    if (wave > (float)(c->rope.original_max_positions / c->rope.low_freq_factor))
        return freq / factor;
    if (wave < (float)(c->rope.original_max_positions / c->rope.high_freq_factor))
        return freq;
    float smooth = (old_len / wave - low) / (high - low);
    return (1 - smooth) * freq / factor + smooth * freq;
}

/* yarn_dim: the pair, as a fraction, that turns `rotations` times over the original context (YaRN,
 * section 3.2). */
static double yarn_dim(const struct hf_config *c, uint32_t dim, double rotations) {
    return dim * log(c->rope.original_max_positions / (rotations * 2 * M_PI)) / (2 * log(c->rope.theta));
}

static double yarn_mscale(double factor, double m) {
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* scale_yarn: fast pairs keep their frequency, slow ones are divided by factor, with a linear ramp between.
 */
static float scale_yarn(const struct hf_config *c, uint32_t dim, float power, uint32_t pair) {
    double low = yarn_dim(c, dim, c->rope.beta_fast), high = yarn_dim(c, dim, c->rope.beta_slow);
    if (c->rope.truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = MAX(low, 0.0);
    high = MIN(high, dim - 1.0);
    if (low == high)
        high += 0.001;
    float ramp = ((float)pair - (float)low) / (float)(high - low);
    float keep = 1 - MIN(MAX(ramp, 0.0f), 1.0f);
    return 1 / ((float)c->rope.factor * power) * (1 - keep) + 1 / power * keep;
}

void hf_rope_inv_freq(const struct hf_config *c, uint32_t rotary_dim, uint32_t max_len, float *inv_freq,
                      float *scale) {
    /* Within max_positions dynamic scaling is no scaling; beyond it, frequencies would change with the length
     * while the cache holds keys turned by the old ones. */
    CHECK(c->rope.kind != HF_ROPE_DYNAMIC || max_len <= c->max_positions);
    for (uint32_t i = 0; i < rotary_dim / 2; i++) {
        float power = powf((float)c->rope.theta, (float)(2 * i) / (float)rotary_dim);
        float freq = 1 / power;
        bool beyond = max_len > c->rope.original_max_positions;
        inv_freq[i] = c->rope.kind == HF_ROPE_LINEAR   ? freq / (float)c->rope.factor
                      : c->rope.kind == HF_ROPE_LLAMA3 ? scale_llama3(c, freq)
                      : c->rope.kind == HF_ROPE_YARN   ? scale_yarn(c, rotary_dim, power, i)
                      : c->rope.kind == HF_ROPE_LONG
                          ? 1 / ((beyond ? c->rope.long_factor : c->rope.short_factor)[i] * power)
                          : freq;
    }
    double m = 1;
    if (c->rope.kind == HF_ROPE_YARN && c->rope.attention_factor > 0)
        m = c->rope.attention_factor;
    else if (c->rope.kind == HF_ROPE_YARN && c->rope.mscale > 0 && c->rope.mscale_all_dim > 0)
        m = yarn_mscale(c->rope.factor, c->rope.mscale) / yarn_mscale(c->rope.factor, c->rope.mscale_all_dim);
    else if (c->rope.kind == HF_ROPE_YARN)
        m = yarn_mscale(c->rope.factor, 1);
    else if (c->rope.kind == HF_ROPE_LONG && c->rope.attention_factor > 0)
        m = c->rope.attention_factor;
    else if (c->rope.kind == HF_ROPE_LONG && c->rope.factor > 1)
        m = sqrt(1 + log(c->rope.factor) / log(c->rope.original_max_positions));
    *scale = (float)m;
}
