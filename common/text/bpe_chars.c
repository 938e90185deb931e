#include "common/text/bpe_chars.h"

#include "common/text/uni.h"
#include "common/utf8.h"

#include <stdlib.h>

enum { STACK_SYMBOLS_MAX = 64 };

static inline uint32_t char_hash(uint32_t cp) {
    return (cp * 2654435761u) >> 7;
}

static struct bpe_char *char_slot(const struct bpe_chars *c, uint32_t cp) {
    uint32_t i = char_hash(cp) & c->table_mask;
    while (c->table[i].cp != BPE_NONE && c->table[i].cp != cp)
        i = (i + 1) & c->table_mask;
    return &c->table[i];
}

/* ---- tables ---- */

/* sole_char: whether s is one character, which goes to *cp. */
static bool sole_char(struct str s, uint32_t *cp) {
    size_t len = 0;
    if (s.n)
        *cp = uni_decode(s.p, &len);
    return s.n && len == s.n;
}

static void table_init(struct bpe_chars *c, const struct slices *raw) {
    uint32_t n_chars = 0, n = 64, cp;
    for (uint32_t id = 0; id < raw->n; id++)
        n_chars += sole_char(slices_get(raw, id), &cp);
    while (n / 2 < n_chars)
        n *= 2;
    c->table_mask = n - 1;
    c->table = xreallocarray(NULL, n, sizeof *c->table);
    for (uint32_t i = 0; i < n; i++)
        c->table[i] = (struct bpe_char){BPE_NONE, BPE_NONE};
    for (uint32_t id = 0; id < raw->n; id++)
        if (sole_char(slices_get(raw, id), &cp))
            *char_slot(c, cp) = (struct bpe_char){cp, id};
}

/* symbols_init: a token is as many symbols as characters, but a byte token, which is one. Where merges make
 * or use byte tokens, an id does not tell. */
static void symbols_init(struct bpe_chars *c, struct bpe *m, const struct bpe_merge *merges) {
    bool *is_byte = xcalloc(m->raw.n, sizeof *is_byte);
    c->n_symbols = xreallocarray(NULL, m->raw.n, sizeof *c->n_symbols);
    for (unsigned b = 0; b < 256; b++)
        if (c->byte_fallback && c->byte_id[b] != BPE_NONE)
            is_byte[c->byte_id[b]] = true;
    for (uint32_t id = 0; id < m->raw.n; id++) {
        struct str s = slices_get(&m->raw, id);
        c->n_symbols[id] = is_byte[id] ? 1 : (uint32_t)utf8_count(s.p, s.n);
    }
    for (uint32_t i = 0; i < m->n_merges; i++)
        m->no_windows |= is_byte[merges[i].a] || is_byte[merges[i].b] || is_byte[merges[i].merged];
    free(is_byte);
}

/* may_cut: no merge joins something that ends otherwise to something that starts with cp. */
static bool may_cut(const struct bpe *m, const struct bpe_merge *merges, uint32_t cp) {
    char text[4];
    struct str mark = {text, utf8_encode(cp, text)};
    for (uint32_t i = 0; i < m->n_merges; i++) {
        struct str a = slices_get(&m->raw, merges[i].a), b = slices_get(&m->raw, merges[i].b);
        bool ends = a.n >= mark.n && memcmp(a.p + a.n - mark.n, mark.p, mark.n) == 0;
        if (!ends && str_starts(b, mark))
            return false;
    }
    return true;
}

/* affixes_init: a symbol is then looked up as text, and a pre-token is never cut. */
static void affixes_init(struct bpe_chars *c, struct bpe *m, struct bpe_affixes affixes) {
    c->within = xstrndup(affixes.within.p ? affixes.within.p : "", affixes.within.n);
    c->last = xstrndup(affixes.last.p ? affixes.last.p : "", affixes.last.n);
    c->n_within = affixes.within.n;
    c->n_last = affixes.last.n;
    m->no_windows = true;
    idmap_init(&c->whole, m->raw.n);
    for (uint32_t id = 0; id < m->raw.n; id++)
        if (slices_get(&m->raw, id).n)
            (void)idmap_put(&c->whole, &m->raw, id);
}

void bpe_chars_init(struct bpe_chars *c, struct bpe *m, const struct bpe_merge *merges, bool whole_words,
                    const uint32_t *byte_id, struct bpe_affixes affixes) {
    static const uint32_t marks[BPE_CUTS_MAX] = {0x2581, ' '};
    *c = (struct bpe_chars){.byte_fallback = byte_id != NULL};
    if (byte_id)
        memcpy(c->byte_id, byte_id, sizeof c->byte_id);
    table_init(c, &m->raw);
    symbols_init(c, m, merges);
    if (affixes.within.n || affixes.last.n) {
        affixes_init(c, m, affixes);
        return;
    }
    /* Only a mark that has a token parts what stands around it; and where whole pre-tokens need no merging,
     * a part of one is not one. */
    for (size_t i = 0; i < BPE_CUTS_MAX && !whole_words; i++)
        if (char_slot(c, marks[i])->cp != BPE_NONE && may_cut(m, merges, marks[i])) {
            char text[4];
            (void)utf8_encode(marks[i], text);
            c->cut_first[(uint8_t)text[0]] = true;
            c->cuts[c->n_cuts++] = marks[i];
        }
}

void bpe_chars_fini(struct bpe_chars *c) {
    free(c->table);
    free(c->n_symbols);
    free(c->within);
    free(c->last);
    idmap_fini(&c->whole);
    *c = (struct bpe_chars){0};
}

/* ---- encoding ---- */

struct symbols {
    uint32_t *v;
    size_t n;
};

/* put_bytes: a character as byte tokens; false if one is missing. */
static bool put_bytes(const struct bpe_chars *c, const char *p, size_t len, struct symbols *to) {
    if (!c->byte_fallback)
        return false;
    for (size_t i = 0; i < len; i++)
        if (c->byte_id[(uint8_t)p[i]] == BPE_NONE)
            return false;
    for (size_t i = 0; i < len; i++)
        to->v[to->n++] = c->byte_id[(uint8_t)p[i]];
    return true;
}

/* with_affixes: a character as the vocabulary spells it at its place. */
static struct str with_affixes(const struct bpe_chars *c, struct str s, bool first, bool last, struct buf *b) {
    b->len = 0;
    if (!first)
        buf_add(b, c->within, c->n_within);
    buf_add_str(b, s);
    if (last)
        buf_add(b, c->last, c->n_last);
    return buf_str(b);
}

/* symbols_of: the symbols before merging. An unknown token waits until a known character follows, so that
 * more of them can join it (fuse_unk); byte tokens do not count as known. That is how Hugging Face has it. */
static void symbols_of(const struct bpe *m, const char *p, size_t n, struct symbols *to) {
    bool unk = false, whole = m->chars->within != NULL;
    struct buf b = {0};
    for (size_t i = 0, len; i < n; i += len) {
        const struct bpe_char *known = char_slot(m->chars, uni_decode(p + i, &len));
        struct str s = {p + i, len};
        uint32_t id = known->id;
        if (UNLIKELY(whole)) {
            s = with_affixes(m->chars, s, i == 0, i + len == n, &b);
            if (!idmap_find(&m->chars->whole, &m->raw, s, &id))
                id = BPE_NONE;
        }
        if (id != BPE_NONE) {
            if (unk)
                to->v[to->n++] = m->unk_id;
            unk = false;
            to->v[to->n++] = id;
        } else if (!put_bytes(m->chars, s.p, s.n, to) && m->unk_id != BPE_NONE) {
            if (unk && !m->fuse_unk)
                to->v[to->n++] = m->unk_id;
            unk = true;
        }
    }
    if (unk)
        to->v[to->n++] = m->unk_id;
    buf_fini(&b);
}

static void encode_word(const struct bpe *m, const char *p, size_t n, struct tok_ids *out) {
    uint32_t few[STACK_SYMBOLS_MAX];
    struct symbols s = {few, 0};
    /* A symbol is a byte at least; as bytes, affixes are some more. */
    size_t n_max = n * (1 + m->chars->n_within) + m->chars->n_last;
    bool many = n_max > STACK_SYMBOLS_MAX;
    if (many)
        s.v = xreallocarray(NULL, n_max, sizeof *s.v);
    symbols_of(m, p, n, &s);
    if (s.n)
        bpe_encode_symbols(m, s.v, s.n, out);
    if (many)
        free(s.v);
}

/* word_end: the first place behind at where the text may be cut: before a mark that no mark precedes. */
static size_t word_end(const struct bpe_chars *c, const char *p, size_t at, size_t n) {
    uint32_t before = 0;
    for (size_t i = at, len = 1; i < n; i += len) {
        if (!c->cut_first[(uint8_t)p[i]]) { /* also inside a character */
            before = 0;
            len = 1;
            continue;
        }
        uint32_t cp = uni_decode(p + i, &len);
        for (size_t k = 0; k < c->n_cuts && i > at; k++)
            if (cp == c->cuts[k] && before != cp)
                return i;
        before = cp;
    }
    return n;
}

void bpe_chars_encode(const struct bpe *m, const char *p, size_t n, struct tok_ids *out) {
    size_t end = m->chars->n_cuts ? word_end(m->chars, p, 0, n) : n;
    if (end == n) {
        encode_word(m, p, n, out);
        return;
    }
    for (size_t at = 0; at < n; at = end) {
        end = word_end(m->chars, p, at, n);
        bpe_encode(m, p + at, end - at, out);
    }
}
