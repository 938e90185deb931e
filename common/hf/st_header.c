/* st_header.c: the header of one safetensors file.
 *
 * Format (github.com/huggingface/safetensors): u64 little-endian length of the header, the header, a JSON
 * object that begins with '{' and may be padded with spaces, then the data. Each member but "__metadata__" is
 * NAME: {"dtype": D, "shape": [...], "data_offsets": [begin, end]}, offsets counted from the start of the
 * data. The spans must cover the data exactly, without holes or overlaps.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hf/scan.h"
#include "common/hf/st_internal.h"

static const struct {
    const char *name;
    uint8_t bytes;
} dtypes[N_ST_DTYPE] = {
    [ST_F32] = {"F32", 4},         [ST_F16] = {"F16", 2},         [ST_BF16] = {"BF16", 2},
    [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_F8_E5M2] = {"F8_E5M2", 1}, [ST_F64] = {"F64", 8},
    [ST_I64] = {"I64", 8},         [ST_I32] = {"I32", 4},         [ST_I16] = {"I16", 2},
    [ST_I8] = {"I8", 1},           [ST_U8] = {"U8", 1},           [ST_BOOL] = {"BOOL", 1},
};

/* What one parse needs. */
struct header {
    struct st_set *set;
    struct st_file *file;
    struct scan scan;
    const uint8_t *data;
    uint64_t n_data;
    struct str tensor; /* being read, for messages */
    struct err *e;
};

static enum rc bad(struct header *h, const char *key, const char *why) {
    char shown[ST_SHOWN_MAX + 4];
    st_show(shown, h->tensor);
    return err_set(h->e, RC_INVALID, shown, "%s: tensor \"%s\": %s%s%s", h->file->name, shown, key,
                   *key ? ": " : "", why);
}

static enum rc bad_json(struct header *h) {
    return err_set(h->e, RC_INVALID, NULL, "%s: header, byte %zu: %s", h->file->name, scan_offset(&h->scan),
                   h->scan.why);
}

static enum rc read_dtype(struct header *h, struct st_tensor *t) {
    struct str name;
    if (!scan_string(&h->scan, &h->set->arena, &name))
        return bad_json(h);
    for (int i = 0; i < N_ST_DTYPE; i++) {
        if (str_eqz(name, dtypes[i].name)) {
            t->dtype = (enum st_dtype)i;
            return RC_OK;
        }
    }
    char shown[ST_SHOWN_MAX + 4], why[ST_SHOWN_MAX + 32];
    snprintf(why, sizeof why, "unknown type \"%s\"", st_show(shown, name));
    return bad(h, "dtype", why);
}

/* read_numbers: a list of at most max numbers; *n counts them. Stops at the first too many. */
static enum rc read_numbers(struct header *h, const char *key, uint64_t *out, uint32_t max, uint32_t *n) {
    struct scan *s = &h->scan;
    *n = 0;
    if (!scan_eat(s, '['))
        return bad_json(h);
    if (scan_peek(s, ']'))
        return scan_eat(s, ']') ? RC_OK : bad_json(h);
    for (;;) {
        uint64_t v;
        if (!scan_u64(s, &v))
            return bad(h, key, s->why);
        if (*n == max)
            return bad(h, key, "too many numbers");
        out[(*n)++] = v;
        if (scan_peek(s, ']'))
            return scan_eat(s, ']') ? RC_OK : bad_json(h);
        if (!scan_eat(s, ','))
            return bad_json(h);
    }
}

/* check_span: shape and type against the offsets, and the offsets against the data. */
static enum rc check_span(struct header *h, struct st_tensor *t, const uint64_t span[2]) {
    uint64_t bytes = dtypes[t->dtype].bytes;
    bool overflow = false;
    for (uint32_t i = 0; i < t->n_dims; i++)
        overflow |= __builtin_mul_overflow(bytes, t->dims[i], &bytes);
    if (overflow)
        return bad(h, "shape", "the product of the sizes overflows");
    if (span[0] > span[1])
        return bad(h, "data_offsets", "reversed");
    if (span[1] > h->n_data) {
        char why[120];
        snprintf(why, sizeof why,
                 "end %" PRIu64 " lies past the %" PRIu64 " bytes of data: is the file cut short?", span[1],
                 h->n_data);
        return bad(h, "data_offsets", why);
    }
    if (span[1] - span[0] != bytes) {
        char why[120];
        snprintf(why, sizeof why, "%" PRIu64 " bytes, but shape and dtype make %" PRIu64, span[1] - span[0],
                 bytes);
        return bad(h, "data_offsets", why);
    }
    t->data = h->data + span[0];
    t->n_bytes = bytes;
    return RC_OK;
}

static enum rc read_tensor(struct header *h, struct st_tensor *t) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    unsigned seen = 0;
    uint64_t span[2] = {0, 0};
    bool first = true, more;
    struct str key;
    if (!scan_eat(&h->scan, '{'))
        return bad_json(h);
    for (;;) {
        if (!scan_member(&h->scan, &h->set->arena, &first, &more, &key))
            return bad_json(h);
        if (!more)
            break;
        unsigned bit = str_eqz(key, "dtype")          ? DTYPE
                       : str_eqz(key, "shape")        ? SHAPE
                       : str_eqz(key, "data_offsets") ? OFFSETS
                                                      : 0;
        char shown[ST_SHOWN_MAX + 4];
        if (!bit)
            return bad(h, st_show(shown, key), "unknown key");
        if (seen & bit)
            return bad(h, st_show(shown, key), "given twice");
        seen |= bit;
        uint32_t n = 2;
        enum rc rc = bit == DTYPE   ? read_dtype(h, t)
                     : bit == SHAPE ? read_numbers(h, "shape", t->dims, ST_DIMS_MAX, &t->n_dims)
                                    : read_numbers(h, "data_offsets", span, 2, &n);
        if (rc)
            return rc;
        if (n != 2)
            return bad(h, "data_offsets", "two numbers are needed");
    }
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return bad(h, !(seen & DTYPE) ? "dtype" : !(seen & SHAPE) ? "shape" : "data_offsets", "missing");
    return check_span(h, t, span);
}

/* add_tensor: reads the value of member `name` into the set. */
static enum rc add_tensor(struct header *h, struct str name) {
    struct st_set *s = h->set;
    bool is_new;
    if (s->names.n == ST_TENSORS_MAX)
        return err_set(h->e, RC_INVALID, NULL, "%s: more than %d tensors", h->file->name, ST_TENSORS_MAX);
    uint32_t i = names_put(&s->names, name, &is_new);
    if (!is_new) {
        const struct st_file *other = &s->files[s->file_of[i]];
        char why[ST_SHOWN_MAX + 64];
        snprintf(why, sizeof why, "is also in %.*s", ST_SHOWN_MAX, other->name);
        return bad(h, "", other == h->file ? "given twice" : why);
    }
    if (i == s->cap_tensors) {
        s->cap_tensors = s->cap_tensors ? s->cap_tensors * 2 : 256;
        s->tensors = xreallocarray(s->tensors, s->cap_tensors, sizeof *s->tensors);
        s->file_of = xreallocarray(s->file_of, s->cap_tensors, sizeof *s->file_of);
    }
    s->tensors[i] = (struct st_tensor){.name = name};
    s->file_of[i] = (uint32_t)(h->file - s->files);
    h->file->n_tensors++;
    return read_tensor(h, &s->tensors[i]);
}

/* read_metadata: text to text, of no use to us beyond its form. */
static enum rc read_metadata(struct header *h) {
    struct scan *s = &h->scan;
    struct arena scratch;
    arena_init(&scratch);
    bool first = true, more = true, ok = scan_eat(s, '{');
    while (ok && more) {
        struct str text;
        ok = scan_member(s, &scratch, &first, &more, &text) && (!more || scan_string(s, &scratch, &text));
    }
    arena_fini(&scratch);
    return ok ? RC_OK : bad_json(h);
}

static int by_address(const void *a, const void *b) {
    const struct st_tensor *x = *(const struct st_tensor *const *)a, *y = *(const struct st_tensor *const *)b;
    if (x->data != y->data)
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return x->n_bytes < y->n_bytes
               ? -1
               : x->n_bytes > y->n_bytes; /* empty tensors before the one that starts there */
}

/* check_cover: the tensors of the file lie end to end over all of its data. */
static enum rc check_cover(struct header *h) {
    uint32_t n = h->file->n_tensors;
    const struct st_tensor **order = xcalloc(MAX(n, 1u), sizeof *order);
    for (uint32_t i = 0; i < n; i++)
        order[i] = &h->set->tensors[h->file->first + i];
    qsort(order, n, sizeof *order, by_address);
    enum rc rc = RC_OK;
    uint64_t at = 0;
    for (uint32_t i = 0; i < n && !rc; i++) {
        uint64_t begin = (uint64_t)((const uint8_t *)order[i]->data - h->data);
        h->tensor = order[i]->name;
        if (begin != at)
            rc = bad(h, "data_offsets", begin < at ? "overlaps another tensor" : "leaves a hole before it");
        at = begin + order[i]->n_bytes;
    }
    free(order);
    if (!rc && at != h->n_data)
        rc = err_set(h->e, RC_INVALID, NULL, "%s: %" PRIu64 " bytes behind the last tensor", h->file->name,
                     h->n_data - at);
    return rc;
}

/* find_parts: splits the file into header text and data. */
static enum rc find_parts(struct header *h) {
    const struct st_file *f = h->file;
    if (f->n < 8)
        return err_set(h->e, RC_INVALID, NULL, "%s: %zu bytes are too short for a safetensors file", f->name,
                       f->n);
    uint64_t len = 0;
    for (int i = 7; i >= 0; i--)
        len = len << 8 | f->data[i];
    if (len > ST_HEADER_BYTES_MAX || len > f->n - 8)
        return err_set(h->e, RC_INVALID, NULL,
                       "%s: header of %" PRIu64 " bytes in a file of %zu (at most %" PRIu64
                       "): cut short, or not safetensors",
                       f->name, len, f->n, ST_HEADER_BYTES_MAX);
    if (len < 2 || f->data[8] != '{')
        return err_set(h->e, RC_INVALID, NULL, "%s: the header does not begin with an object", f->name);
    scan_init(&h->scan, (struct str){(const char *)f->data + 8, len});
    h->data = f->data + 8 + len;
    h->n_data = f->n - 8 - len;
    return RC_OK;
}

enum rc st_header_read(struct st_set *s, uint32_t file, struct err *e) {
    struct header h = {.set = s, .file = &s->files[file], .e = e};
    h.file->first = s->names.n;
    h.file->n_tensors = 0;
    enum rc rc = find_parts(&h);
    bool first = true, more = true, metadata = false;
    if (!rc && !scan_eat(&h.scan, '{'))
        rc = bad_json(&h);
    while (!rc) {
        if (!scan_member(&h.scan, &s->arena, &first, &more, &h.tensor))
            rc = bad_json(&h);
        else if (!more)
            break;
        else if (!str_eqz(h.tensor, "__metadata__"))
            rc = add_tensor(&h, h.tensor);
        else if (metadata)
            rc = bad(&h, "", "given twice");
        else
            metadata = true, rc = read_metadata(&h);
    }
    if (!rc && !scan_end(&h.scan))
        rc = bad_json(&h);
    if (!rc)
        rc = check_cover(&h);
    s->total_bytes += h.n_data;
    return rc;
}
