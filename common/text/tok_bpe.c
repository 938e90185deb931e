/* tok_bpe.c: a tokenizer.json model of type BPE: over bytes behind a ByteLevel pre-tokeniser, else over
 * characters. */
#include "common/text/bpe.h"
#include "common/text/bytelevel.h"
#include "common/text/tok_impl.h"
#include "common/text/uni.h"

#include <stdio.h>
#include <stdlib.h>

enum { AFFIX_BYTES_MAX = 32 };

struct bpe_model {
    struct bpe bpe;
    const struct tok *t;
};

static void model_encode(const void *self, const char *p, size_t n, struct tok_ids *out) {
    bpe_encode(&((const struct bpe_model *)self)->bpe, p, n, out);
}

/* take_apart: a special token as its characters (or bytes), each by itself; what is special even so becomes
 * the unknown token, or vanishes. */
static void take_apart(const struct bpe_model *m, uint32_t id, struct tok_ids *out) {
    struct str s = slices_get(&m->bpe.raw, id);
    for (size_t i = 0, len = 1; i < s.n; i += len) {
        size_t n_before = out->n;
        if (m->bpe.chars)
            (void)uni_decode(s.p + i, &len);
        if (len < s.n)
            bpe_encode(&m->bpe, s.p + i, len, out);
        bool bad = len == s.n;
        for (size_t k = n_before; k < out->n; k++)
            bad |= tok_is_special(m->t, out->v[k]) && out->v[k] != m->bpe.unk_id;
        if (!bad)
            continue;
        out->n = n_before;
        if (m->bpe.unk_id != BPE_NONE)
            tok_ids_push(out, m->bpe.unk_id);
    }
}

static void model_encode_plain(const void *self, const char *p, size_t n, struct tok_ids *out) {
    const struct bpe_model *m = self;
    size_t n_before = out->n, n_special = 0;
    bpe_encode(&m->bpe, p, n, out);
    for (size_t i = n_before; i < out->n; i++)
        n_special += tok_is_special(m->t, out->v[i]) && out->v[i] != m->bpe.unk_id;
    if (LIKELY(n_special == 0))
        return;
    size_t n_ids = out->n - n_before;
    uint32_t *ids = xreallocarray(NULL, n_ids, sizeof *ids);
    memcpy(ids, out->v + n_before, n_ids * sizeof *ids);
    out->n = n_before;
    for (size_t i = 0; i < n_ids; i++)
        if (tok_is_special(m->t, ids[i]) && ids[i] != m->bpe.unk_id)
            take_apart(m, ids[i], out);
        else
            tok_ids_push(out, ids[i]);
    free(ids);
}

static void model_free(void *self) {
    bpe_fini(&((struct bpe_model *)self)->bpe);
    free(self);
}

static const struct tok_model_ops bpe_ops = {model_encode, model_encode_plain, model_free};

/* optional_bool: absent and null are false. */
static enum rc optional_bool(const json_t *model, const char *key, const char *path, bool *out,
                             struct err *e) {
    const json_t *v = json_object_get(model, key);
    if (v && !json_is_null(v) && !json_is_boolean(v))
        return tok_bad(e, path, "must be true or false");
    *out = json_is_true(v);
    return RC_OK;
}

/* check_options: what would make this another kind of model. */
static enum rc check_options(const json_t *model, struct err *e) {
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return tok_unsupported(e, "model.dropout", "encoding at random is not supported");
    return RC_OK;
}

/* affix_read: a string of bounded length; null is the empty one. */
static enum rc affix_read(const json_t *model, const char *key, struct str *out, struct err *e) {
    const json_t *v = json_object_get(model, key);
    char path[64];
    snprintf(path, sizeof path, "model.%s", key);
    *out = (struct str){json_string_value(v), json_string_length(v)};
    if (!tok_absent(v) && !json_is_string(v))
        return tok_bad(e, path, "must be a string or null");
    if (out->n > AFFIX_BYTES_MAX)
        return tok_bad(e, path, "longer than %d bytes", AFFIX_BYTES_MAX);
    return RC_OK;
}

/* merge_parts: "a b" or ["a", "b"]. */
static bool merge_parts(const json_t *v, struct str *a, struct str *b) {
    if (json_is_array(v) && json_array_size(v) == 2) {
        const json_t *x = json_array_get(v, 0), *y = json_array_get(v, 1);
        if (!json_is_string(x) || !json_is_string(y))
            return false;
        *a = (struct str){json_string_value(x), json_string_length(x)};
        *b = (struct str){json_string_value(y), json_string_length(y)};
        return a->n && b->n;
    }
    if (!json_is_string(v))
        return false;
    const char *s = json_string_value(v), *end = s + json_string_length(v),
               *space = memchr(s, ' ', (size_t)(end - s));
    if (!space)
        return false;
    *a = (struct str){s, (size_t)(space - s)};
    *b = (struct str){space + 1, (size_t)(end - space - 1)};
    return a->n && b->n && !memchr(b->p, ' ', b->n);
}

struct merge_reader {
    const struct tok *t;
    size_t n_within; /* bytes that go from the front of a merge's second token */
    const bool *in_vocab;
    struct buf joined;
    uint32_t unk_id; /* BPE_NONE where it cannot meet a merge */
};

static bool find_piece(const struct merge_reader *r, struct str s, uint32_t *id) {
    return tok_find(r->t, s, id) && r->in_vocab[*id];
}

static enum rc merge_read(struct merge_reader *r, const json_t *v, size_t i, struct bpe_merge *out,
                          struct err *e) {
    struct str a, b;
    char path[48];
    snprintf(path, sizeof path, "model.merges[%zu]", i);
    if (!merge_parts(v, &a, &b))
        return tok_bad(e, path, "must be two tokens: \"a b\" or [\"a\", \"b\"]");
    r->joined.len = 0;
    buf_add_str(&r->joined, a);
    buf_add(&r->joined, b.p + MIN(r->n_within, b.n), b.n - MIN(r->n_within, b.n));
    const struct str parts[3] = {a, b, buf_str(&r->joined)};
    uint32_t id[3];
    for (size_t k = 0; k < 3; k++) {
        if (!find_piece(r, parts[k], &id[k]))
            return tok_bad(e, path, "\"%.*s\" is not in model.vocab", (int)MIN(parts[k].n, 40u), parts[k].p);
        if (id[k] == r->unk_id)
            return tok_unsupported(e, path, "merges with the unknown token are not supported");
    }
    *out = (struct bpe_merge){id[0], id[1], id[2]};
    return RC_OK;
}

/* merges_read: a first line "#version: ..." is the remains of a merges.txt and does not count. */
static enum rc merges_read(struct merge_reader *r, const json_t *list, struct bpe_merge **out,
                           uint32_t *n_out, struct err *e) {
    size_t n = json_array_size(list);
    if (!json_is_array(list))
        return tok_bad(e, "model.merges", "must be an array");
    struct bpe_merge *merges = xreallocarray(NULL, n, sizeof *merges);
    uint32_t k = 0;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_string(v) && strncmp(json_string_value(v), "#version", 8) == 0)
            continue;
        rc = merge_read(r, v, i, &merges[k++], e);
    }
    if (rc) {
        free(merges);
        return rc;
    }
    *out = merges;
    *n_out = k;
    return RC_OK;
}

/* raw_pieces: the text of the vocabulary's tokens, bytes in the byte-level alphabet decoded; empty for added
 * ones and those outside that alphabet, which no merge can reach. */
static struct slices raw_pieces(const struct tok *t, const bool *in_vocab) {
    struct slices raw = {.n = t->pieces.n};
    raw.blob = xmalloc(t->pieces.at[raw.n]);
    raw.at = xreallocarray(NULL, (size_t)raw.n + 1, sizeof *raw.at);
    raw.at[0] = 0;
    for (uint32_t id = 0; id < raw.n; id++) {
        char *to = raw.blob + raw.at[id];
        struct str s = in_vocab[id] ? slices_get(&t->pieces, id) : (struct str){0};
        size_t n = s.n;
        if (t->byte_level)
            n = byte_level_decode(s, to);
        else if (n)
            memcpy(to, s.p, n);
        raw.at[id + 1] = raw.at[id] + (uint32_t)(n == SIZE_MAX ? 0 : n);
    }
    return raw;
}

/* lacks_bytes: the vocabulary has not all 256 bytes as tokens. */
static bool lacks_bytes(const struct slices *raw) {
    bool has[256] = {false};
    size_t n = 0;
    for (uint32_t id = 0; id < raw->n; id++) {
        struct str s = slices_get(raw, id);
        if (s.n == 1 && !has[(uint8_t)*s.p]) {
            has[(uint8_t)*s.p] = true;
            n++;
        }
    }
    return n < 256;
}

/* unk_read: the id of what the vocabulary lacks; BPE_NONE for none. */
static enum rc unk_read(const struct merge_reader *r, const json_t *model, uint32_t *id, struct err *e) {
    const json_t *v = json_object_get(model, "unk_token");
    *id = BPE_NONE;
    if (tok_absent(v))
        return RC_OK;
    if (!json_is_string(v))
        return tok_bad(e, "model.unk_token", "must be a string or null");
    if (!find_piece(r, (struct str){json_string_value(v), json_string_length(v)}, id))
        return tok_bad(e, "model.unk_token", "\"%.40s\" is not in model.vocab", json_string_value(v));
    return RC_OK;
}

static void byte_ids(const struct merge_reader *r, uint32_t out[256]) {
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        if (!find_piece(r, str_of(name), &out[b]))
            out[b] = BPE_NONE;
    }
}

struct options {
    bool fuse_unk, ignore_merges, byte_fallback;
    struct bpe_affixes affixes;
};

static enum rc options_read(const json_t *model, struct options *o, struct err *e) {
    enum rc rc;
    if ((rc = check_options(model, e)) ||
        (rc = affix_read(model, "continuing_subword_prefix", &o->affixes.within, e)) ||
        (rc = affix_read(model, "end_of_word_suffix", &o->affixes.last, e)) ||
        (rc = optional_bool(model, "fuse_unk", "model.fuse_unk", &o->fuse_unk, e)) ||
        (rc = optional_bool(model, "byte_fallback", "model.byte_fallback", &o->byte_fallback, e)))
        return rc;
    return optional_bool(model, "ignore_merges", "model.ignore_merges", &o->ignore_merges, e);
}

enum rc tok_load_bpe(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e) {
    struct merge_reader r = {.t = t, .in_vocab = in_vocab, .unk_id = BPE_NONE};
    struct bpe_merge *merges = NULL;
    uint32_t n_merges = 0, bytes[256];
    struct options o = {0};
    enum rc rc = options_read(model, &o, e);
    if (rc)
        return rc;
    if (o.byte_fallback || o.affixes.within.n || o.affixes.last.n) {
        if ((rc = tok_pre_in_letters(t, e))) /* these are of characters */
            return rc;
        r.n_within = o.affixes.within.n;
    }
    struct slices raw = raw_pieces(t, in_vocab);
    bool lacks = !t->byte_level || lacks_bytes(&raw);
    if (lacks && (rc = unk_read(&r, model, &r.unk_id, e)))
        goto out;
    if ((rc = merges_read(&r, json_object_get(model, "merges"), &merges, &n_merges, e)))
        goto out;
    byte_ids(&r, bytes);
    struct bpe_model *m = xcalloc(1, sizeof *m);
    m->t = t;
    if (t->byte_level)
        bpe_init(&m->bpe, raw, merges, n_merges, r.unk_id, o.fuse_unk, o.ignore_merges);
    else
        bpe_init_chars(&m->bpe, raw, merges, n_merges, r.unk_id, o.fuse_unk, o.ignore_merges,
                       o.byte_fallback ? bytes : NULL, o.affixes);
    raw = (struct slices){0};
    t->model = m;
    t->ops = &bpe_ops;
out:
    slices_fini(&raw);
    buf_fini(&r.joined);
    free(merges);
    return rc;
}
