#include "common/text/charsmap.h"

#include "common/text/uni.h"

#include <stdlib.h>

enum { SHORT_GRAPHEME_MAX = 5 };

/* A unit's fields, as darts-clone packs them. */
static inline uint32_t unit_label(uint32_t unit) {
    return unit & (1u << 31 | 0xFF);
}
static inline uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}
static inline bool unit_has_leaf(uint32_t unit) {
    return unit >> 8 & 1;
}
static inline uint32_t unit_value(uint32_t unit) {
    return unit & ~(1u << 31);
}

/* find: the replacement of the shortest key that p[0 .. n) starts with. */
static bool find(const struct charsmap *m, const char *p, size_t n, struct str *to) {
    size_t at = unit_offset(m->units[0]);
    for (size_t i = 0; i < n && p[i]; i++) {
        uint8_t byte = (uint8_t)p[i];
        at ^= byte;
        if (at >= m->n_units || unit_label(m->units[at]) != byte)
            return false;
        uint32_t unit = m->units[at];
        at ^= unit_offset(unit);
        if (!unit_has_leaf(unit))
            continue;
        if (at >= m->n_units)
            return false;
        size_t text = unit_value(m->units[at]);
        if (text >= m->n_texts)
            return false;
        *to = str_of(m->texts + text);
        return true;
    }
    return false;
}

enum rc charsmap_init(struct charsmap *m, struct str blob, struct err *e) {
    const uint8_t *b = (const uint8_t *)blob.p;
    if (blob.n < 8)
        return err_set(e, RC_INVALID, NULL, "a character map of %zu bytes", blob.n);
    size_t n_trie = (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    if (n_trie < 4 || n_trie % 4 || n_trie > blob.n - 4)
        return err_set(e, RC_INVALID, NULL, "a trie of %zu bytes in a character map of %zu", n_trie, blob.n);
    size_t n_texts = blob.n - 4 - n_trie;
    const char *texts = blob.p + 4 + n_trie;
    if (uni_valid_n(texts, n_texts) != n_texts)
        return err_set(e, RC_INVALID, NULL, "the replacements of the character map are not UTF-8");
    *m = (struct charsmap){.n_units = n_trie / 4, .n_texts = n_texts};
    m->units = xreallocarray(NULL, m->n_units, sizeof *m->units);
    for (size_t i = 0; i < m->n_units; i++) {
        const uint8_t *u = b + 4 + 4 * i;
        m->units[i] = (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
    }
    m->texts = xstrndup(texts, n_texts);
    /* A value that points into a character would make text that is not UTF-8. */
    for (size_t i = 0; i < m->n_units; i++) {
        size_t text = unit_value(m->units[i]);
        if (m->units[i] >> 31 && text < n_texts && ((uint8_t)texts[text] & 0xC0) == 0x80) {
            charsmap_fini(m);
            return err_set(e, RC_INVALID, NULL, "the character map points into a character");
        }
    }
    for (unsigned c = 0; c < 128; c++) {
        struct str to;
        char key = (char)c;
        m->ascii_same[c] = c && !find(m, &key, 1, &to);
    }
    return RC_OK;
}

void charsmap_fini(struct charsmap *m) {
    free(m->units);
    free(m->texts);
    *m = (struct charsmap){0};
}

/* put: one key's worth of text: its replacement, or itself. */
static void put(const struct charsmap *m, const char *p, size_t begin, size_t end, struct buf *out,
                struct nf_map *map) {
    struct str to;
    size_t before = out->len;
    if (find(m, p + begin, end - begin, &to)) {
        buf_add_str(out, to);
        nf_map_changed(map, begin, end, before, out->len);
    } else {
        buf_add(out, p + begin, end - begin);
        nf_map_same(map, begin, end, before);
    }
}

void charsmap_apply(const struct charsmap *m, const char *p, size_t n, struct buf *out, struct nf_map *map) {
    for (size_t i = 0; i < n;) {
        /* ASCII before ASCII is a cluster of its own; only CR LF is not, and put looks at that. */
        size_t same = i;
        while (same < n && (uint8_t)p[same] < 0x80 && m->ascii_same[(uint8_t)p[same]] && p[same] != '\r' &&
               (same + 1 == n || (uint8_t)p[same + 1] < 0x80))
            same++;
        if (same > i) {
            nf_map_same(map, i, same, out->len);
            buf_add(out, p + i, same - i);
            i = same;
            continue;
        }
        size_t end = uni_grapheme_end(p, i, n), len;
        struct str to;
        if (end - i <= SHORT_GRAPHEME_MAX && find(m, p + i, end - i, &to)) {
            put(m, p, i, end, out, map);
            i = end;
        }
        for (; i < end; i += len) {
            (void)uni_decode(p + i, &len);
            put(m, p, i, i + len, out, map);
        }
    }
    nf_map_end(map, n, out->len);
}

/* A cluster that is replaced as a whole goes over character by character: the first to the first, and what is
 * left over to the last. */
size_t charsmap_front(const struct charsmap *m, const char *p, size_t n, size_t front) {
    size_t end = uni_grapheme_end(p, 0, n), at = 0, len;
    struct str to;
    if (end <= front || end > SHORT_GRAPHEME_MAX || !find(m, p, end, &to)) {
        struct buf own = {0};
        charsmap_apply(m, p, front, &own, NULL);
        at = own.len;
        buf_fini(&own);
        return at;
    }
    for (size_t i = 0; i < front && at < to.n; at += len) {
        (void)uni_decode(p + i, &len);
        i += len;
        (void)uni_decode(to.p + at, &len);
    }
    return at;
}
