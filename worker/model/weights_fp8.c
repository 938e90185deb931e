/* weights_fp8.c: tensors in fp8 (e4m3): their factors, and wide copies for what takes no fp8.
 *
 * Beside NAME.weight lie NAME.weight_scale or NAME.weight_scale_inv, which both are what a stored value is multiplied by:
 * one, one for each row, or one for each 128 x 128 block; and, where activations are quantised by a fixed factor,
 * NAME.input_scale. Beside an attention's tensors lie what stored keys and values are multiplied by, under the names that
 * weights_kv_scales knows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/convert.h"
#include "worker/model/weights.h"

enum { BLOCK = 128 };

static uint64_t n_values(const struct st_tensor *s) {
    uint64_t n = 1;
    for (uint32_t d = 0; d < s->n_dims; d++)
        n *= s->dims[d]; /* safetensors.c has checked the product */
    return n;
}

/* beside: the tensor that goes with t's weight; NULL: none. */
static const struct st_tensor *beside(const struct weights *w, const struct tensor *t, const char *suffix) {
    char name[sizeof t->name + 32];
    size_t n = strlen(t->name), end = strlen("weight");
    if (n < end || strcmp(t->name + n - end, "weight") != 0)
        return NULL;
    snprintf(name, sizeof name, "%.*s%s", (int)(n - end), t->name, suffix);
    return weights_find(w, name);
}

/* floats_of: the values of a tensor of factors, on the heap. */
static enum rc floats_of(struct weights *w, const struct tensor *t, const struct st_tensor *s, float **out, struct err *e) {
    enum dtype from = s->dtype == ST_F32 ? DT_F32 : s->dtype == ST_BF16 ? DT_BF16 : s->dtype == ST_F16 ? DT_F16 : DT_NONE;
    uint64_t n = n_values(s);
    if (from == DT_NONE)
        return err_set(e, RC_UNSUPPORTED, t->name, "tensor %s: its factors must be F32, F16 or BF16", t->name);
    float *v = xcalloc((size_t)n, sizeof *v);
    convert_floats(v, DT_F32, s->data, from, (size_t)n);
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(v[i])) {
            free(v);
            return err_set(e, RC_INVALID, t->name, "tensor %s: a factor is not a finite number", t->name);
        }
    weights_use(w, s);
    *out = v;
    return RC_OK;
}

static enum rc read_factors(struct weights *w, uint32_t i, const struct tensor *t, struct be_weight_src *src,
                            struct err *e) {
    const struct st_tensor *s = beside(w, t, "weight_scale_inv");
    uint64_t rows = t->rows, cols = t->cols;
    if (!s)
        s = beside(w, t, "weight_scale");
    if (!s)
        return err_set(e, RC_INVALID, t->name, "tensor %s is fp8 and has no weight_scale beside it", t->name);
    bool blocks = s->n_dims == 2 && s->dims[0] == (rows + BLOCK - 1) / BLOCK && s->dims[1] == (cols + BLOCK - 1) / BLOCK;
    bool each_row = (s->n_dims == 1 || (s->n_dims == 2 && s->dims[1] == 1)) && s->dims[0] == rows;
    if (n_values(s) != 1 && !blocks && !each_row)
        return err_set(e, RC_UNSUPPORTED, t->name,
                       "tensor %s: factors for the tensor, for each row or for each 128 x 128 block are supported", t->name);
    free(w->temp[i].factors);
    w->temp[i].factors = NULL;
    enum rc rc = floats_of(w, t, s, &w->temp[i].factors, e);
    src->scale = w->temp[i].factors;
    src->scale_rows = n_values(s) != 1 && each_row;
    src->scale_block = n_values(s) != 1 && !each_row ? BLOCK : 0;
    return rc;
}

static enum rc read_input(struct weights *w, const struct tensor *t, struct be_weight_src *src, struct err *e) {
    const struct st_tensor *s = beside(w, t, "input_scale");
    float *v;
    if (!s)
        return RC_OK;
    if (n_values(s) != 1)
        return err_set(e, RC_UNSUPPORTED, t->name, "tensor %s: one input_scale is supported", t->name);
    enum rc rc = floats_of(w, t, s, &v, e);
    if (rc)
        return rc;
    if (v[0] > 0 && w->static_inputs)
        src->input_scale = v[0];
    free(v);
    return RC_OK;
}

/* f8_value: of e4m3: no infinities, and one NaN. */
static float f8_value(uint8_t u) {
    uint32_t e = u >> 3 & 15, m = u & 7;
    float v = e ? ldexpf(1.0f + (float)m / 8, (int)e - 7) : ldexpf((float)m / 8, -6);
    if (e == 15 && m == 7)
        return NAN;
    return u & 0x80 ? -v : v;
}

/* widen: the rows that are taken, with all of their columns, as f32. */
static void widen(float *to, const struct be_weight_src *s) {
    const uint8_t *from = (const uint8_t *)s->data + (size_t)s->row0 * s->cols;
    const float *scale = s->scale;
    size_t per_row = ((size_t)s->cols + BLOCK - 1) / BLOCK;
    float value[256];
    for (uint32_t u = 0; u < 256; u++)
        value[u] = f8_value((uint8_t)u);
    for (uint32_t r = 0; r < s->n_rows; r++) {
        size_t row = (size_t)s->row0 + r;
        for (uint32_t c = 0; c < s->cols; c++) {
            size_t at = s->scale_block ? row / BLOCK * per_row + c / BLOCK : s->scale_rows ? row : 0;
            to[(size_t)r * s->cols + c] = value[from[(size_t)r * s->cols + c]] * scale[at];
        }
    }
}

enum rc weights_read_fp8(struct weights *w, uint32_t i, const struct tensor *t, const struct st_tensor *st,
                         bool matrix, struct be_weight_src *src, struct err *e) {
    if (!w->fp8_stored)
        return err_set(e, RC_INVALID, t->name, "tensor %s is fp8, and config.json has no quantization_config of that kind",
                       t->name);
    src->data = st->data;
    src->dtype = DT_F8E4M3;
    enum rc rc = read_factors(w, i, t, src, e);
    if (rc == RC_OK)
        rc = read_input(w, t, src, e);
    if (rc != RC_OK || (matrix && w->fp8_taken && !t->wide))
        return rc;
    enum dtype to = t->wide || !w->dtype ? DT_F32 : w->dtype;
    size_t n = (size_t)src->n_rows * src->cols;
    float *wide = malloc(MAX(n, 1) * sizeof *wide);
    void *copy = weights_temp(w, i, n * dtype_bytes(to));
    if (!wide || !copy) {
        free(wide);
        return err_set(e, RC_IO, t->name, "tensor %s: no memory for a copy of %zu MiB", t->name, n * sizeof *wide / MIB);
    }
    widen(wide, src);
    convert_floats(copy, to, wide, DT_F32, n);
    free(wide);
    *src = (struct be_weight_src){.data = copy,
                                  .dtype = to,
                                  .rows = src->n_rows,
                                  .cols = src->cols,
                                  .n_rows = src->n_rows,
                                  .col0 = src->col0,
                                  .n_cols = src->n_cols};
    return RC_OK;
}

/* kv_scale: the first of the names that the checkpoint has; *out stays 0 where it has none. */
static enum rc kv_scale(struct weights *w, const char *attn, const char *const names[3], float *out, struct err *e) {
    struct tensor t = {.rows = 1};
    const struct st_tensor *s = NULL;
    float *v;
    for (int i = 0; i < 3 && !s; i++) {
        snprintf(t.name, sizeof t.name, "%s%s", attn, names[i]);
        s = weights_find(w, t.name);
    }
    if (!s)
        return RC_OK;
    if (n_values(s) != 1)
        return err_set(e, RC_UNSUPPORTED, t.name, "tensor %s: one factor for the layer is supported", t.name);
    enum rc rc = floats_of(w, &t, s, &v, e);
    if (rc != RC_OK)
        return rc;
    float factor = v[0];
    free(v);
    if (!(factor > 0) || !isfinite(1 / factor))
        return err_set(e, RC_INVALID, t.name, "tensor %s: a factor of the KV cache must be above 0", t.name);
    *out = factor;
    return RC_OK;
}

enum rc weights_kv_scales(struct weights *w, const char *attn, float *k, float *v, struct err *e) {
    /* compressed-tensors now, ModelOpt's, and compressed-tensors before */
    static const char *const of_k[] = {"k_scale", "k_proj.k_scale", "k_proj.output_scale"},
                      *const of_v[] = {"v_scale", "v_proj.v_scale", "v_proj.output_scale"},
                      *const of_both[] = {"kv_scale", "attn.kv_scale", "kv_cache_scale"};
    float both = 0, one[2] = {0};
    if (!w->set)
        return RC_OK;
    enum rc rc = kv_scale(w, attn, of_both, &both, e);
    if (rc == RC_OK)
        rc = kv_scale(w, attn, of_k, &one[0], e);
    if (rc == RC_OK)
        rc = kv_scale(w, attn, of_v, &one[1], e);
    if (rc != RC_OK)
        return rc;
    for (int i = 0; i < 2; i++) {
        one[i] = one[i] > 0 ? one[i] : both;
        if (w->kv_scales && !(one[i] > 0))
            return err_set(e, RC_INVALID, "quantization_config",
                           "the checkpoint has no tensor %s%s, which kv_cache_scheme of config.json asks for", attn,
                           (i ? of_v : of_k)[0]);
    }
    if ((one[0] > 0) != (one[1] > 0))
        return err_set(e, RC_INVALID, attn, "%s: keys have a factor and values none, or the other way round", attn);
    *k = one[0];
    *v = one[1];
    return RC_OK;
}
