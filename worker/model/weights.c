#include "worker/model/weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/hash.h"
#include "worker/model/convert.h"

static enum dtype dtype_of(enum hf_dtype t) {
    return t == HF_DTYPE_F16 ? DT_F16 : t == HF_DTYPE_BF16 ? DT_BF16 : DT_F32;
}

/* dummy_bytes: what the tensors of the config's shape would occupy in a file. */
static uint64_t dummy_bytes(const struct hf_config *c, enum dtype dt) {
    uint64_t q = (uint64_t)c->n_heads * c->head_dim, kv = (uint64_t)c->n_kv_heads * c->head_dim;
    uint64_t sum = (2 * q + 2 * kv) * c->n_layers + (c->tie_embeddings ? 1ull : 2ull) * c->vocab;
    for (uint32_t i = 0; i < c->n_layers; i++)
        sum += c->moe.n_experts && c->moe.layer_sparse[i] ? 3ull * c->moe.n_experts * c->moe.mlp
                                                          : 3ull * c->mlp;
    return sum * c->hidden * dtype_bytes(dt);
}

void weights_init(struct weights *w, struct model *m, const struct hf_config *cfg, const struct st_set *set,
                  const struct model_opts *o) {
    *w = (struct weights){.m = m,
                          .set = set,
                          .dtype = o->weights,
                          .dummy_dtype = o->weights ? o->weights : dtype_of(cfg->dtype),
                          .progress = o->progress,
                          .progress_arg = o->progress_arg};
    struct be_info info = {0};
    o->ops->info(o->be, &info);
    if (info.memory_start_bytes) /* it converts on its way into its own memory, faster than the host */
        w->dtype = DT_NONE;
    w->fp8_stored = cfg->quant.fp8;
    w->static_inputs = cfg->quant.static_inputs;
    w->kv_scales = cfg->quant.kv_scales;
    w->fp8_taken = info.fp8;
    w->to_fp8 = o->to_fp8;
    w->used = set ? xcalloc(st_count(set) + 1, sizeof *w->used) : NULL;
    w->total_bytes = set ? st_total_bytes(set) : dummy_bytes(cfg, w->dummy_dtype);
}

void weights_fini(struct weights *w) {
    for (uint32_t i = 0; i < w->n_temp; i++) {
        free(w->temp[i].data);
        free(w->temp[i].factors);
    }
    free(w->temp);
    free(w->src);
    free(w->used);
}

static void report(struct weights *w) {
    if (w->progress)
        w->progress(w->progress_arg, MIN(w->done_bytes, w->total_bytes), w->total_bytes);
}

void weights_done(struct weights *w) {
    w->done_bytes = w->total_bytes;
    report(w);
}

/* make_room: for n sources at once. */
static void make_room(struct weights *w, uint32_t n) {
    if (n <= w->n_temp)
        return;
    w->temp = xreallocarray(w->temp, n, sizeof *w->temp);
    w->src = xreallocarray(w->src, n, sizeof *w->src);
    memset(w->temp + w->n_temp, 0, (n - w->n_temp) * sizeof *w->temp);
    w->n_temp = n;
}

/* temp_get: room for the converted source i; what it held is lost. NULL: no memory. Huge pages spare a large
 * embedding tens of thousands of page faults. */
void *weights_temp(struct weights *w, uint32_t i, size_t bytes) {
    make_room(w, i + 1);
    if (bytes > w->temp[i].bytes) {
        bool small = bytes < 2 * MIB; /* experts come by the hundred */
        size_t align = small ? 64 : 2 * MIB, whole = (bytes + align - 1) / align * align;
        free(w->temp[i].data);
        w->temp[i].data = aligned_alloc(align, whole);
        w->temp[i].bytes = w->temp[i].data ? whole : 0;
        if (w->temp[i].data && !small)
            madvise(w->temp[i].data, whole, MADV_HUGEPAGE); /* a hint: it may be refused */
    }
    return w->temp[i].data;
}

/* shape_text: "[2, 3]". */
static const char *shape_text(char *out, size_t n, const uint64_t *dims, uint32_t n_dims) {
    size_t at = (size_t)snprintf(out, n, "[");
    for (uint32_t i = 0; i < n_dims && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%" PRIu64, i ? ", " : "", dims[i]);
    if (at < n)
        snprintf(out + at, n - at, "]");
    return out;
}

static enum rc check_shape(const struct tensor *t, const struct st_tensor *st, struct err *e) {
    uint64_t want[2] = {t->rows, t->cols};
    uint32_t n_want = t->cols ? 2 : 1;
    bool same = st->n_dims == n_want;
    for (uint32_t i = 0; same && i < n_want; i++)
        same = st->dims[i] == want[i];
    char got[200], wanted[64];
    if (!same)
        return err_set(e, RC_INVALID, t->name, "tensor %s has shape %s, but config.json makes it %s", t->name,
                       shape_text(got, sizeof got, st->dims, st->n_dims),
                       shape_text(wanted, sizeof wanted, want, n_want));
    return RC_OK;
}

static enum rc stored_type(const struct tensor *t, const struct st_tensor *st, enum dtype *out,
                           struct err *e) {
    switch (st->dtype) {
    case ST_F32:
        *out = DT_F32;
        return RC_OK;
    case ST_F16:
        *out = DT_F16;
        return RC_OK;
    case ST_BF16:
        *out = DT_BF16;
        return RC_OK;
    default:
        return err_set(e, RC_UNSUPPORTED, t->name,
                       "tensor %s: weights must be F32, F16, BF16 or F8_E4M3",
                       t->name);
    }
}

static enum rc no_memory(const struct tensor *t, size_t bytes, struct err *e) {
    return err_set(e, RC_IO, t->name, "tensor %s: no memory for a copy of %zu MiB", t->name, bytes / MIB);
}

const struct st_tensor *weights_find(const struct weights *w, const char *name) {
    static const struct {
        const char *end, *old;
    } ends[] = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
    const char *bare = strchr(name, '.');
    const struct st_tensor *t = st_find(w->set, name);
    if (!t && bare)
        t = st_find(w->set, bare + 1);
    size_t n = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(ends) && !t; i++) {
        size_t k = strlen(ends[i].end);
        char old[128];
        if (n < k || strcmp(name + n - k, ends[i].end) != 0)
            continue;
        snprintf(old, sizeof old, "%.*s%s", (int)(n - k), name, ends[i].old);
        t = st_find(w->set, old);
        if (!t && bare)
            t = st_find(w->set, strchr(old, '.') + 1);
    }
    return t;
}

void weights_use(struct weights *w, const struct st_tensor *st) {
    w->used[st - st_at(w->set, 0)] = true;
    w->done_bytes += st->n_bytes;
}

/* read_tensor: source i, from the set; copied where the type changes or the file has it unaligned. matrix: of a kind
 * that may be fp8. */
static enum rc read_tensor(struct weights *w, uint32_t i, const struct tensor *t, bool matrix,
                           struct be_weight_src *src, struct err *e) {
    const struct st_tensor *st = weights_find(w, t->name);
    enum dtype stored = DT_NONE;
    if (!st)
        return err_set(e, RC_INVALID, t->name, "the checkpoint has no tensor %s, which config.json asks for",
                       t->name);
    enum rc rc = check_shape(t, st, e);
    if (!rc && st->dtype != ST_F8_E4M3)
        rc = stored_type(t, st, &stored, e);
    if (rc)
        return rc;
    weights_use(w, st);
    if (st->dtype == ST_F8_E4M3)
        return weights_read_fp8(w, i, t, st, matrix, src, e);
    src->dtype = t->wide ? DT_F32 : w->dtype ? w->dtype : stored;
    src->data = st->data;
    if (src->dtype == stored && (uintptr_t)st->data % dtype_bytes(stored) == 0)
        return RC_OK;
    size_t n = (size_t)src->n_rows * src->cols; /* only the rows that are taken */
    const uint8_t *from = (const uint8_t *)st->data + (size_t)src->row0 * src->cols * dtype_bytes(stored);
    void *copy = weights_temp(w, i, n * dtype_bytes(src->dtype));
    if (!copy)
        return no_memory(t, n * dtype_bytes(src->dtype), e);
    convert_floats(copy, src->dtype, from, stored, n);
    src->data = copy;
    src->rows = src->n_rows;
    src->row0 = 0;
    return RC_OK;
}

/* make_tensor: source i, made up from its name: uniform with the variance 1 / n_in. */
static enum rc make_tensor(struct weights *w, uint32_t i, const struct tensor *t, struct be_weight_src *src,
                           struct err *e) {
    src->dtype = t->is_norm || t->wide ? DT_F32 : w->dummy_dtype;
    size_t n = (size_t)src->n_rows * src->cols;
    void *data = weights_temp(w, i, n * dtype_bytes(src->dtype));
    if (!data)
        return no_memory(t, n * dtype_bytes(src->dtype), e);
    if (t->is_norm) {
        for (size_t k = 0; k < n; k++)
            ((float *)data)[k] = 1;
    } else {
        float limit = sqrtf(3.0f / (float)(t->cols ? t->cols : t->rows));
        uint64_t seed = hash_fast(t->name, strlen(t->name), 1);
        random_floats(data, src->dtype, seed, (uint64_t)src->row0 * src->cols, n, limit);
    }
    w->done_bytes += (uint64_t)t->rows * src->cols * dtype_bytes(src->dtype);
    src->data = data;
    src->rows = src->n_rows;
    src->row0 = 0;
    return RC_OK;
}

static enum rc pack(struct weights *w, enum be_weight_kind kind, const struct be_weight_src *src, uint32_t n,
                    const char *name, const struct be_w **out, struct err *e) {
    struct model *m = w->m;
    char why[BE_ERR_BYTES] = "";
    struct be_w *packed = m->ops->weight(m->be, kind, src, n, why);
    if (!packed)
        return err_set(e, RC_IO, name, "%s: %s; %" PRIu64 " MiB of %" PRIu64 " were loaded", name, why,
                       w->done_bytes / MIB, w->total_bytes / MIB);
    if (m->n_owned == m->cap_owned) {
        m->cap_owned = m->cap_owned ? m->cap_owned * 2 : 64;
        m->owned = xreallocarray(m->owned, m->cap_owned, sizeof(struct be_w *));
    }
    m->owned[m->n_owned++] = packed;
    m->weight_bytes += m->ops->weight_bytes(packed);
    *out = packed;
    report(w);
    return RC_OK;
}

/* is_head: kept as it is by --quantization: logits show every rounding. */
static bool is_head(const struct tensor *t) {
    return strcmp(t->name, "lm_head.weight") == 0;
}

enum rc weights_pack(struct weights *w, enum be_weight_kind kind, const struct tensor *t, uint32_t n,
                     const struct be_w **out, struct err *e) {
    CHECK(n > 0);
    bool matrix = kind != BE_W_VECTOR && kind != BE_W_EMBED;
    make_room(w, n);
    struct be_weight_src *src = w->src;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t cols = MAX(t[i].cols, 1u);
        src[i] = (struct be_weight_src){
            .rows = t[i].rows,
            .cols = cols,
            .row0 = t[i].row0,
            .n_rows = t[i].n_rows ? t[i].n_rows : t[i].rows - t[i].row0,
            .col0 = t[i].col0,
            .n_cols = t[i].n_cols ? t[i].n_cols : cols - t[i].col0,
        };
        enum rc rc = w->set ? read_tensor(w, i, &t[i], matrix, &src[i], e) : make_tensor(w, i, &t[i], &src[i], e);
        if (rc)
            return rc;
        src[i].to_fp8 = w->to_fp8 && matrix && !t[i].wide && src[i].dtype != DT_F8E4M3 && !is_head(&t[i]);
    }
    return pack(w, kind, src, n, t[0].name, out, e);
}

enum rc weights_floats(struct weights *w, const struct tensor *t, float **out, struct err *e) {
    uint32_t cols = MAX(t->cols, 1u);
    struct be_weight_src src = {.rows = t->rows, .cols = cols, .n_rows = t->rows, .n_cols = cols};
    size_t n = (size_t)t->rows * cols;
    enum rc rc = w->set ? read_tensor(w, 0, t, false, &src, e) : make_tensor(w, 0, t, &src, e);
    if (rc)
        return rc;
    *out = xcalloc(n, sizeof **out);
    convert_floats(*out, DT_F32, src.data, src.dtype, n);
    return RC_OK;
}

/* turn: [rows][cols] of n_bytes each to [cols][rows]. */
static void turn(uint8_t *dst, const uint8_t *src, size_t rows, size_t cols, size_t n_bytes) {
    for (size_t c = 0; c < cols; c++)
        for (size_t r = 0; r < rows; r++)
            memcpy(dst + (c * rows + r) * n_bytes, src + (r * cols + c) * n_bytes, n_bytes);
}

enum rc weights_pack_turned(struct weights *w, const struct tensor *t, const struct be_w **out,
                            struct err *e) {
    struct be_weight_src src = {.rows = t->rows, .cols = t->cols, .n_rows = t->rows, .n_cols = t->cols};
    enum rc rc = w->set ? read_tensor(w, 0, t, false, &src, e) : make_tensor(w, 0, t, &src, e);
    if (rc)
        return rc;
    size_t bytes = (size_t)t->rows * t->cols * dtype_bytes(src.dtype);
    void *turned = weights_temp(w, 1, bytes);
    if (!turned)
        return no_memory(t, bytes, e);
    turn(turned, src.data, t->rows, t->cols, dtype_bytes(src.dtype));
    src = (struct be_weight_src){.data = turned,
                                 .dtype = src.dtype,
                                 .rows = t->cols,
                                 .cols = t->rows,
                                 .n_rows = t->cols,
                                 .n_cols = t->rows};
    return pack(w, BE_W_LINEAR, &src, 1, t->name, out, e);
}

enum rc weights_pack_floats(struct weights *w, const float *v, uint32_t n, const struct be_w **out,
                            struct err *e) {
    struct be_weight_src src = {.data = v, .dtype = DT_F32, .rows = n, .cols = 1, .n_rows = n, .n_cols = 1};
    return pack(w, BE_W_VECTOR, &src, 1, "rotary frequencies", out, e);
}

/* layer_of: the number behind a "layers." or "encoder.layer." that starts the name or one of its parts;
 * UINT64_MAX: none. */
static unsigned long long layer_of(const char *name) {
    static const char *const words[] = {"layers.", "encoder.layer."};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        const char *at = strstr(name, words[i]);
        if (at && (at == name || at[-1] == '.'))
            return strtoull(at + strlen(words[i]), NULL, 10);
    }
    return UINT64_MAX;
}

/* in_graph: whether a tensor of this name belongs to what the model computes. Not: layers beyond the last
 * (drafting heads of some checkpoints), heads of other tasks, frequencies that old versions stored. */
static bool in_graph(const struct model *m, const char *name, bool tied) {
    static const char freq[] = "rotary_emb.inv_freq";
    size_t n = strlen(name);
    unsigned long long layer = layer_of(name);
    if (n >= sizeof freq - 1 && strcmp(name + n - (sizeof freq - 1), freq) == 0)
        return false;
    if (layer != UINT64_MAX)
        return layer < m->n_layers;
    if (strcmp(name, "lm_head.weight") == 0)
        return !tied;
    if (m->pools) /* its head is the pooler's, or another task's */
        return strncmp(name, "model.", 6) == 0;
    return strncmp(name, "model.", 6) == 0 || strncmp(name, "lm_head.", 8) == 0;
}

enum rc weights_check_rest(const struct weights *w, bool tied, struct err *e) {
    for (size_t i = 0; w->set && i < st_count(w->set); i++) {
        const char *name = st_at(w->set, i)->name.p;
        if (!w->used[i] && in_graph(w->m, name, tied))
            return err_set(
                e, RC_UNSUPPORTED, name,
                "the checkpoint has a tensor %.120s, which the architecture of config.json does not use",
                name);
    }
    return RC_OK;
}
