/* tok_bpe.c: a tokenizer.json model of type BPE over the byte-level alphabet. */
#include "common/text/bpe.h"
#include "common/text/bytelevel.h"
#include "common/text/tok_impl.h"

#include <stdio.h>
#include <stdlib.h>

static void model_encode(const void *self, const char *p, size_t n, struct tok_ids *out) {
    bpe_encode(self, p, n, out);
}

static void model_free(void *self) {
    bpe_fini(self);
    free(self);
}

static const struct tok_model_ops bpe_ops = {model_encode, model_free};

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
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < ARRAY_LEN(affixes); i++) {
        const json_t *v = json_object_get(model, affixes[i]);
        char path[64];
        snprintf(path, sizeof path, "model.%s", affixes[i]);
        if (v && !json_is_null(v) && !json_is_string(v))
            return tok_bad(e, path, "must be a string or null");
        if (json_string_length(v))
            return tok_unsupported(e, path, "only the empty one is supported");
    }
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return tok_unsupported(e, "model.byte_fallback",
                               "BPE with byte fallback (SentencePiece) is not supported");
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
    buf_add_str(&r->joined, b);
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

/* raw_pieces: the bytes of the vocabulary's tokens; empty for added ones and those outside the
 * byte-level alphabet, which no merge can reach. */
static struct slices raw_pieces(const struct tok *t, const bool *in_vocab, bool has_byte[256]) {
    struct slices raw = {.n = t->pieces.n};
    raw.blob = xmalloc(t->pieces.at[raw.n]);
    raw.at = xreallocarray(NULL, (size_t)raw.n + 1, sizeof *raw.at);
    raw.at[0] = 0;
    for (uint32_t id = 0; id < raw.n; id++) {
        char *to = raw.blob + raw.at[id];
        size_t n = in_vocab[id] ? byte_level_decode(slices_get(&t->pieces, id), to) : 0;
        if (n == SIZE_MAX)
            n = 0;
        if (n == 1)
            has_byte[(uint8_t)*to] = true;
        raw.at[id + 1] = raw.at[id] + (uint32_t)n;
    }
    return raw;
}

/* unk_read: the id for bytes the vocabulary lacks; BPE_NONE where it lacks none. */
static enum rc unk_read(const struct merge_reader *r, const json_t *model, const bool has_byte[256],
                        uint32_t *id, struct err *e) {
    const json_t *v = json_object_get(model, "unk_token");
    bool lacks = false;
    for (unsigned b = 0; b < 256; b++)
        lacks |= !has_byte[b];
    if (v && !json_is_null(v) && !json_is_string(v))
        return tok_bad(e, "model.unk_token", "must be a string or null");
    *id = BPE_NONE;
    if (!lacks || !json_is_string(v))
        return RC_OK;
    if (!find_piece(r, (struct str){json_string_value(v), json_string_length(v)}, id))
        return tok_bad(e, "model.unk_token", "\"%.40s\" is not in model.vocab", json_string_value(v));
    return RC_OK;
}

enum rc tok_load_bpe(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e) {
    struct merge_reader r = {.t = t, .in_vocab = in_vocab, .unk_id = BPE_NONE};
    struct bpe_merge *merges = NULL;
    uint32_t n_merges = 0;
    bool fuse_unk = false, ignore_merges = false, has_byte[256] = {false};
    enum rc rc;
    if (!t->byte_level)
        return tok_unsupported(e, "pre_tokenizer", "BPE without a ByteLevel pre-tokenizer is not supported");
    if ((rc = check_options(model, e)) ||
        (rc = optional_bool(model, "fuse_unk", "model.fuse_unk", &fuse_unk, e)) ||
        (rc = optional_bool(model, "ignore_merges", "model.ignore_merges", &ignore_merges, e)))
        return rc;
    struct slices raw = raw_pieces(t, in_vocab, has_byte);
    if ((rc = unk_read(&r, model, has_byte, &r.unk_id, e)) ||
        (rc = merges_read(&r, json_object_get(model, "merges"), &merges, &n_merges, e)))
        goto out;
    struct bpe *m = xmalloc(sizeof *m);
    bpe_init(m, raw, merges, n_merges, r.unk_id, fuse_unk, ignore_merges);
    raw = (struct slices){0};
    t->model = m;
    t->ops = &bpe_ops;
out:
    slices_fini(&raw);
    buf_fini(&r.joined);
    free(merges);
    return rc;
}
