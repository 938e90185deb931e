/* tok_fallback_spm.c: what tokenizer.json would be, from SentencePiece's tokenizer.model. As transformers converts
 * it. */
#include "common/text/idmap.h"
#include "common/text/spm.h"
#include "common/text/tok_draft.h"
#include "common/utf8.h"

#include <stdlib.h>

#define META "\xE2\x96\x81"

static json_t *replace_part(const char *kind, const char *pattern, const char *content) {
    json_t *v = draft_part("Replace"), *p = json_object();
    draft_set(p, kind, draft_textz(pattern));
    draft_set(v, "pattern", p);
    draft_set(v, "content", draft_textz(content));
    return v;
}

/* One way to make a piece of two. Ranked as transformers does: by falling score, then by the lengths of the
 * parts in characters, the longer first; equals by the piece's place, then by the parts' ids. */
struct way {
    float score;
    uint32_t n_left, n_right, piece, left, right;
};

static int by_rank(const void *a, const void *b) {
    const struct way *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->n_left != y->n_left)
        return x->n_left > y->n_left ? -1 : 1;
    if (x->n_right != y->n_right)
        return x->n_right > y->n_right ? -1 : 1;
    if (x->piece != y->piece)
        return x->piece < y->piece ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

/* spm_slices: the pieces as one block, for the hash table. */
static struct slices spm_slices(const struct spm *m) {
    struct slices s = {.n = m->n_pieces};
    struct buf b = {0};
    s.at = xcalloc((size_t)s.n + 1, sizeof *s.at);
    for (uint32_t i = 0; i < s.n; i++) {
        buf_add_str(&b, m->pieces[i].text);
        s.at[i + 1] = (uint32_t)b.len;
    }
    s.blob = buf_take(&b);
    return s;
}

static bool plain(const struct spm_piece *p) {
    return p->type != SPM_CONTROL && p->type != SPM_USER_DEFINED;
}

enum { PIECE_BYTES_MAX = 1024 };

/* merges_of: the merges of a BPE model: all ways to make a piece of two others. */
static json_t *merges_of(const struct spm *m) {
    struct slices s = spm_slices(m);
    struct idmap map;
    struct way *ways = NULL;
    size_t n = 0, cap = 0;
    idmap_init(&map, m->n_pieces);
    for (uint32_t i = 0; i < m->n_pieces; i++)
        if (m->pieces[i].text.n)
            (void)idmap_put(&map, &s, i);
    for (uint32_t i = 0; i < m->n_pieces; i++) {
        struct str t = m->pieces[i].text;
        uint32_t n_chars = (uint32_t)utf8_count(t.p, t.n), n_left = 0;
        for (size_t at = 1; at < t.n && plain(&m->pieces[i]); at++) {
            uint32_t left, right;
            if (((uint8_t)t.p[at] & 0xC0) == 0x80)
                continue;
            n_left++;
            if (!idmap_find(&map, &s, (struct str){t.p, at}, &left) ||
                !idmap_find(&map, &s, (struct str){t.p + at, t.n - at}, &right) || !plain(&m->pieces[left]) ||
                !plain(&m->pieces[right]))
                continue;
            if (n == cap) {
                cap = MAX(cap * 2, (size_t)4096);
                ways = xreallocarray(ways, cap, sizeof *ways);
            }
            ways[n++] = (struct way){m->pieces[i].score, n_left, n_chars - n_left, i, left, right};
        }
    }
    if (n)
        qsort(ways, n, sizeof *ways, by_rank);
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *pair = json_array();
        draft_push(pair, draft_text(m->pieces[ways[i].left].text));
        draft_push(pair, draft_text(m->pieces[ways[i].right].text));
        draft_push(out, pair);
    }
    free(ways);
    idmap_fini(&map);
    slices_fini(&s);
    return out;
}

static char *base64(struct str s) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf b = {0};
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t word = 0;
        size_t n = MIN(s.n - i, (size_t)3);
        for (size_t k = 0; k < 3; k++)
            word = word << 8 | (k < n ? (uint8_t)s.p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            buf_addc(&b, k <= n ? digits[word >> (18 - 6 * k) & 63] : '=');
    }
    return buf_take(&b);
}

static json_t *charsmap_part(struct str charsmap) {
    json_t *v = draft_part("Precompiled");
    char *blob = base64(charsmap);
    draft_set(v, "precompiled_charsmap", draft_textz(blob));
    free(blob);
    return v;
}

static void put_spm_normalizer(struct draft *d, const struct spm *m, bool bpe) {
    json_t *norm = draft_sequence("normalizers"), *list = json_object_get(norm, "normalizers");
    if (m->charsmap.n)
        draft_push(list, charsmap_part(m->charsmap));
    if (m->no_extra_spaces) {
        json_t *strip = draft_part("Strip");
        draft_set(strip, "strip_left", json_boolean(bpe));
        draft_set(strip, "strip_right", json_true());
        draft_push(list, strip);
        draft_push(list, replace_part("Regex", " {2,}", bpe ? " " : META));
    }
    if (bpe && m->dummy_prefix) {
        json_t *prepend = draft_part("Prepend");
        draft_set(prepend, "prepend", draft_textz(META));
        draft_push(list, prepend);
    }
    if (bpe)
        draft_push(list, replace_part("String", " ", META));
    draft_set(d->root, "normalizer", norm);
}

static json_t *metaspace_part(const struct spm *m) {
    json_t *v = draft_part("Metaspace");
    draft_set(v, "replacement", draft_textz(META));
    draft_set(v, "prepend_scheme", draft_textz(m->dummy_prefix ? "always" : "never"));
    return v;
}

static void put_spm_decoder(struct draft *d, const struct spm *m) {
    json_t *dec = draft_sequence("decoders"), *list = json_object_get(dec, "decoders"), *strip = draft_part("Strip");
    draft_push(list, replace_part("String", META, " "));
    draft_push(list, draft_part("ByteFallback"));
    draft_push(list, draft_part("Fuse"));
    draft_set(strip, "content", draft_textz(" "));
    draft_set(strip, "start", json_integer(1));
    draft_set(strip, "stop", json_integer(0));
    if (m->dummy_prefix)
        draft_push(list, strip);
    else
        json_decref(strip);
    draft_set(d->root, "decoder", dec);
}

/* spm_vocab: ids are places in the file, but for XLM-RoBERTa, whose first four tokens are others. */
static void spm_vocab(struct draft *d, const struct spm *m, bool bpe) {
    static const char *const fairseq[] = {"<s>", "<pad>", "</s>", "<unk>"};
    bool moved = !bpe && (draft_is_class(d, "XLMRoberta") || draft_is_class(d, "XLMR"));
    uint32_t first = moved ? 3 : 0, shift = moved ? 4 : 0;
    json_int_t unk = -1;
    d->vocab = bpe ? json_object() : json_array();
    d->ids = json_object();
    for (uint32_t i = 0; i < shift + m->n_pieces - MIN(first, m->n_pieces) + moved; i++) {
        uint32_t at = i - shift + first;
        struct spm_piece special = {.text = str_of(i < shift ? fairseq[i] : "<mask>"), .type = SPM_CONTROL};
        bool own = i >= shift && at < m->n_pieces;
        const struct spm_piece *p = own ? &m->pieces[at] : &special;
        json_int_t id = (json_int_t)i;
        if (p->type == SPM_UNKNOWN || (moved && i == 3))
            unk = unk < 0 ? id : unk;
        if (!bpe) {
            json_t *entry = json_array();
            draft_push(entry, draft_text(p->text));
            draft_push(entry, json_real((double)p->score));
            draft_push(d->vocab, entry);
        }
        if (p->text.n)
            CHECK(json_object_setn_new(d->ids, p->text.p, p->text.n, json_integer(id)) == 0);
        if (p->text.n && (p->type == SPM_CONTROL || p->type == SPM_USER_DEFINED || p->type == SPM_UNKNOWN))
            draft_add(d, id, draft_text(p->text), p->type != SPM_USER_DEFINED);
    }
    if (bpe)
        CHECK(json_object_update(d->vocab, d->ids) == 0);
    if (!bpe)
        draft_set(d->model, "unk_id", unk < 0 ? json_null() : json_integer(unk));
    else if (unk >= 0)
        draft_set(d->model, "unk_token", draft_text(m->pieces[unk].text));
}

enum rc draft_from_spm(struct draft *d, struct str file, struct err *e) {
    struct spm m;
    enum rc rc = spm_read(&m, file, e);
    if (rc)
        return rc;
    bool bpe = m.kind == SPM_BPE;
    for (uint32_t i = 0; bpe && i < m.n_pieces && !rc; i++)
        if (m.pieces[i].text.n > PIECE_BYTES_MAX)
            rc = err_set(e, RC_INVALID, NULL, "tokenizer.model: piece %u of %zu bytes, the limit is %d", i,
                         m.pieces[i].text.n, PIECE_BYTES_MAX);
    if (!rc && !bpe && m.kind != SPM_UNIGRAM)
        rc = err_set(e, RC_UNSUPPORTED, NULL,
                     "tokenizer.model: model type %u is not supported, only BPE and Unigram", m.kind);
    if (rc)
        goto out;
    draft_set(d->model, "type", draft_textz(bpe ? "BPE" : "Unigram"));
    draft_set(d->model, "byte_fallback", json_boolean(m.byte_fallback));
    spm_vocab(d, &m, bpe);
    put_spm_normalizer(d, &m, bpe);
    if (bpe) {
        draft_set(d->model, "fuse_unk", json_true());
        draft_set(d->model, "merges", merges_of(&m));
        put_spm_decoder(d, &m);
    } else {
        draft_set(d->root, "pre_tokenizer", metaspace_part(&m));
        draft_set(d->root, "decoder", metaspace_part(&m));
    }
    if (draft_is_class(d, "T5"))
        draft_put_template(d, NULL, draft_named(d, "eos_token", "</s>"), NULL, 0);
    else if (draft_is_class(d, "XLMR"))
        draft_put_template(d, "<s>", "</s>", "</s>", 0);
    else
        draft_put_bos_eos(d, bpe, false);
out:
    spm_fini(&m);
    return rc;
}

