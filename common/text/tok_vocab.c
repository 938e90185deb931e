#include "common/text/tok_impl.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- added tokens as the file has them ---- */

struct entry {
    struct str content;
    uint32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
};

static enum rc entry_flag(const json_t *v, const char *key, const char *path, bool *out, struct err *e) {
    const json_t *flag = json_object_get(v, key);
    if (!json_is_boolean(flag))
        return tok_bad(e, path, "%s must be true or false", key);
    *out = json_is_true(flag);
    return RC_OK;
}

static enum rc entry_read(const json_t *v, const char *path, struct entry *out, struct err *e) {
    const json_t *content = json_object_get(v, "content"), *id = json_object_get(v, "id");
    if (!json_is_string(content) || json_string_length(content) == 0)
        return tok_bad(e, path, "content must be a string that is not empty");
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > TOK_ID_MAX)
        return tok_bad(e, path, "id must be a number from 0 to %d", TOK_ID_MAX);
    struct entry x = {.content = {json_string_value(content), json_string_length(content)},
                      .id = (uint32_t)json_integer_value(id)};
    enum rc rc;
    if ((rc = entry_flag(v, "special", path, &x.special, e)) ||
        (rc = entry_flag(v, "single_word", path, &x.single_word, e)) ||
        (rc = entry_flag(v, "lstrip", path, &x.lstrip, e)) ||
        (rc = entry_flag(v, "rstrip", path, &x.rstrip, e)) ||
        (rc = entry_flag(v, "normalized", path, &x.normalized, e)))
        return rc;
    *out = x;
    return RC_OK;
}

/* entries_read: the list, with the id of each checked against the one Hugging Face would give: that of
 * the vocabulary if it has the content, else the next free one behind vocabulary and list. */
static enum rc entries_read(const json_t *list, const json_t *vocab, size_t n_vocab_all, struct entry **out,
                            size_t *n_out, struct err *e) {
    size_t n = json_array_size(list), n_bytes = 0;
    if (list && !json_is_null(list) && !json_is_array(list))
        return tok_bad(e, "added_tokens", "must be an array");
    if (n > TOK_ID_MAX)
        return tok_bad(e, "added_tokens", "%zu entries, the limit is %d", n, TOK_ID_MAX);
    struct entry *entries = xcalloc(n, sizeof *entries);
    json_int_t next = (json_int_t)n_vocab_all;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        char path[64];
        snprintf(path, sizeof path, "added_tokens[%zu]", i);
        struct entry *x = &entries[i];
        if ((rc = entry_read(json_array_get(list, i), path, x, e)))
            break;
        n_bytes += x->content.n;
        const json_t *known = json_object_getn(vocab, x->content.p, x->content.n);
        json_int_t want = known ? json_integer_value(known) : next;
        next = MAX(next, want + 1);
        if (n_bytes > TOK_ADDED_BYTES_MAX)
            rc = tok_bad(e, "added_tokens", "contents of more than %d bytes together", TOK_ADDED_BYTES_MAX);
        else if ((json_int_t)x->id != want)
            rc = tok_bad(e, path, "id %" PRIu32 " of \"%.40s\" where %s%lld is due", x->id, x->content.p,
                         known ? "the vocabulary's " : "the next free id ", (long long)want);
    }
    if (rc) {
        free(entries);
        return rc;
    }
    *out = entries;
    *n_out = n;
    return RC_OK;
}

/* ---- vocabulary ---- */

/* vocab_check: ids are integers in range, none twice; the highest goes to *n_ids, plus one. */
static enum rc vocab_check(json_t *vocab, uint32_t *n_ids, struct err *e) {
    const char *key;
    json_t *v;
    json_int_t top = -1, n = (json_int_t)json_object_size(vocab);
    /* Holes are legal, but tables are as long as the highest id: so that must be in proportion. */
    json_int_t limit = MIN((json_int_t)TOK_ID_MAX, 8 * n + (1 << 16));
    if (n == 0)
        return tok_bad(e, "model.vocab", "must be an object that is not empty");
    size_t n_key;
    json_object_keylen_foreach(vocab, key, n_key, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > limit)
            return tok_bad(e, "model.vocab", "the id of \"%.40s\" must be a number from 0 to %lld", key,
                           (long long)limit);
        if (n_key == 0)
            return tok_bad(e, "model.vocab", "an empty token");
        top = MAX(top, json_integer_value(v));
    }
    *n_ids = (uint32_t)top + 1;
    return RC_OK;
}

/* pieces_fill: t->pieces and t->flags of vocabulary and added tokens; in_vocab of the former. */
static enum rc pieces_fill(struct tok *t, json_t *vocab, const struct entry *entries, size_t n_entries,
                           bool *in_vocab, struct err *e) {
    struct slices *s = &t->pieces;
    struct str *piece = xcalloc(s->n, sizeof *piece);
    const char *key;
    json_t *v;
    enum rc rc = RC_OK;
    size_t n_key;
    json_object_keylen_foreach(vocab, key, n_key, v) {
        uint32_t id = (uint32_t)json_integer_value(v);
        if (piece[id].p) {
            rc = tok_bad(e, "model.vocab", "\"%.40s\" and \"%.40s\" have the same id %" PRIu32, piece[id].p,
                         key, id);
            goto out;
        }
        piece[id] = (struct str){key, n_key};
        in_vocab[id] = true;
    }
    for (size_t i = 0; i < n_entries; i++) {
        const struct entry *x = &entries[i];
        if (t->flags[x->id] & TOK_IS_ADDED || (piece[x->id].p && !str_eq(piece[x->id], x->content))) {
            rc = tok_bad(e, "added_tokens", "\"%.40s\": its id %" PRIu32 " is taken", x->content.p, x->id);
            goto out;
        }
        piece[x->id] = x->content;
        t->flags[x->id] = TOK_IS_ADDED | (x->special ? TOK_IS_SPECIAL : 0);
    }
    size_t n_bytes = 0;
    for (uint32_t id = 0; id < s->n; id++)
        n_bytes += piece[id].n;
    s->blob = xmalloc(n_bytes);
    s->at = xreallocarray(NULL, (size_t)s->n + 1, sizeof *s->at);
    s->at[0] = 0;
    for (uint32_t id = 0; id < s->n; id++) {
        if (piece[id].n)
            memcpy(s->blob + s->at[id], piece[id].p, piece[id].n);
        s->at[id + 1] = s->at[id] + (uint32_t)piece[id].n;
    }
out:
    free(piece);
    return rc;
}

/* shown_fill: the decoder sees an added token that is `normalized` in its normal form, as Hugging Face
 * keeps it. */
static void shown_fill(struct tok *t, const struct entry *entries, size_t n) {
    struct str *normal = xcalloc(t->pieces.n, sizeof *normal);
    size_t n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const struct entry *x = &entries[i];
        struct buf b = {0};
        if (x->normalized && norm_run(&t->norm, x->content.p, x->content.n, &b, NULL, NULL) &&
            !str_eq(buf_str(&b), x->content)) {
            n_bytes += b.len;
            normal[x->id] = (struct str){b.data, b.len};
            b = (struct buf){0};
        }
        buf_fini(&b);
    }
    if (n_bytes) {
        struct slices *s = &t->shown;
        s->n = t->pieces.n;
        s->blob = xmalloc(n_bytes);
        s->at = xcalloc((size_t)s->n + 1, sizeof *s->at);
        for (uint32_t id = 0; id < s->n; id++) {
            if (normal[id].n)
                memcpy(s->blob + s->at[id], normal[id].p, normal[id].n);
            s->at[id + 1] = s->at[id] + (uint32_t)normal[id].n;
        }
    }
    for (uint32_t id = 0; id < t->pieces.n; id++)
        free((void *)(uintptr_t)normal[id].p);
    free(normal);
}

/* bytes_fill: what each piece decodes to in running text. */
static void bytes_fill(struct tok *t) {
    struct slices *to = &t->bytes;
    struct buf blob = {0};
    (void)buf_reserve(&blob, 1); /* pieces that decode to nothing are at its beginning */
    to->n = t->pieces.n;
    to->at = xreallocarray(NULL, (size_t)to->n + 1, sizeof *to->at);
    to->at[0] = 0;
    for (uint32_t id = 0; id < to->n; id++) {
        size_t before = blob.len;
        uint8_t byte;
        dec_piece(&t->dec, tok_shown(t, id), false, false, &blob);
        if (dec_byte(&t->dec, (struct str){blob.data + before, blob.len - before}, &byte)) {
            blob.len = before;
            buf_addc(&blob, (char)byte);
            t->flags[id] |= TOK_IS_BYTE;
        }
        to->at[id + 1] = (uint32_t)blob.len;
    }
    to->blob = buf_take(&blob);
}

/* automata_fill: two searches, in the text as it comes and in normalised text. What the second looks
 * for is normalised too; two tokens that become equal by that cannot be told apart. */
static enum rc automata_fill(struct tok *t, const struct entry *entries, size_t n, struct err *e) {
    struct added_token *raw = xcalloc(n, sizeof *raw), *norm = xcalloc(n, sizeof *norm);
    uint32_t n_raw = 0, n_norm = 0;
    struct buf text = {0};
    size_t *at = xcalloc(n + 1, sizeof *at);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n; i++) {
        const struct entry *x = &entries[i];
        struct added_token a = {.content = slices_get(&t->pieces, x->id),
                                .id = x->id,
                                .special = x->special,
                                .single_word = x->single_word,
                                .lstrip = x->lstrip,
                                .rstrip = x->rstrip};
        if (!x->normalized) {
            raw[n_raw++] = a;
            continue;
        }
        struct str shown = tok_shown(t, x->id);
        at[n_norm] = text.len;
        buf_add_str(&text, shown);
        at[n_norm + 1] = text.len;
        norm[n_norm++] = a;
    }
    t->norm_contents = buf_take(&text);
    struct slices contents = {
        .blob = t->norm_contents, .at = xcalloc((size_t)n_norm + 1, sizeof(uint32_t)), .n = n_norm};
    for (uint32_t i = 0; i <= n_norm; i++)
        contents.at[i] = (uint32_t)at[i];
    struct idmap seen;
    idmap_init(&seen, n_norm);
    for (uint32_t i = 0; i < n_norm && !rc; i++) {
        norm[i].content = slices_get(&contents, i);
        if (!idmap_put(&seen, &contents, i))
            rc = tok_bad(e, "added_tokens", "two entries become \"%.*s\" when normalised",
                         (int)MIN(norm[i].content.n, 40u), norm[i].content.p);
    }
    idmap_fini(&seen);
    free(contents.at);
    free(at);
    if (rc) {
        free(raw);
        free(norm);
        return rc;
    }
    added_init(&t->raw_added, raw, n_raw);
    added_init(&t->norm_added, norm, n_norm);
    return RC_OK;
}

/* shown_check: an added token whose normal form is empty can never be found. */
static enum rc shown_check(const struct tok *t, const struct entry *entries, size_t n, struct err *e) {
    for (size_t i = 0; i < n; i++) {
        struct buf b = {0};
        bool gone = entries[i].normalized &&
                    norm_run(&t->norm, entries[i].content.p, entries[i].content.n, &b, NULL, NULL) &&
                    b.len == 0;
        buf_fini(&b);
        if (gone)
            return tok_bad(e, "added_tokens", "nothing is left of \"%.40s\" when normalised",
                           entries[i].content.p);
    }
    return RC_OK;
}

enum rc tok_load_vocab(struct tok *t, json_t *vocab, size_t n_vocab, const json_t *added, bool **in_vocab,
                       struct err *e) {
    struct entry *entries = NULL;
    size_t n_entries = 0;
    bool *mine = NULL;
    enum rc rc;
    if (!json_is_object(vocab))
        return tok_bad(e, "model.vocab", "must be an object");
    if ((rc = vocab_check(vocab, &t->pieces.n, e)) ||
        (rc = entries_read(added, vocab, n_vocab, &entries, &n_entries, e)) ||
        (rc = shown_check(t, entries, n_entries, e)))
        goto out;
    for (size_t i = 0; i < n_entries; i++)
        t->pieces.n = MAX(t->pieces.n, entries[i].id + 1);
    t->flags = xcalloc(t->pieces.n, sizeof *t->flags);
    mine = xcalloc(t->pieces.n, sizeof *mine);
    if ((rc = pieces_fill(t, vocab, entries, n_entries, mine, e)))
        goto out;
    shown_fill(t, entries, n_entries);
    bytes_fill(t);
    idmap_init(&t->by_piece, (uint32_t)(json_object_size(vocab) + n_entries));
    for (uint32_t id = 0; id < t->pieces.n; id++) {
        if (slices_get(&t->pieces, id).n && !idmap_put(&t->by_piece, &t->pieces, id)) {
            struct str s = slices_get(&t->pieces, id);
            rc = tok_bad(e, "added_tokens", "\"%.*s\" occurs twice", (int)MIN(s.n, 40u), s.p);
            goto out;
        }
    }
    if ((rc = automata_fill(t, entries, n_entries, e)))
        goto out;
    *in_vocab = mine;
    mine = NULL;
out:
    free(entries);
    free(mine);
    return rc;
}
