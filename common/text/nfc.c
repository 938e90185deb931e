#include "common/text/nfc.h"

#include "common/text/uni.h"
#include "common/utf8.h"

#include <stdlib.h>

enum { S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7 };
enum { N_L = 19, N_V = 21, N_T = 28, N_S = N_L * N_V * N_T };

/* A stretch: characters from one that is safe up to the next; NFC treats it on its own. */
struct stretch {
    uint32_t *v; /* code points */
    uint32_t *tmp;
    size_t n, cap;
};

static uint8_t ccc_of(uint32_t cp) {
    return uni_ccc_block[(size_t)uni_ccc_index[cp >> 7] * 128 + (cp & 127)];
}

static void push(struct stretch *s, uint32_t cp) {
    if (s->n == s->cap) {
        s->cap = MAX(s->cap * 2, (size_t)64);
        s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
        s->tmp = xreallocarray(s->tmp, s->cap, sizeof *s->tmp);
    }
    s->v[s->n++] = cp;
}

static void push_decomposed(struct stretch *s, uint32_t cp) {
    if (cp >= S_BASE && cp < S_BASE + N_S) {
        uint32_t i = cp - S_BASE;
        push(s, L_BASE + i / (N_V * N_T));
        push(s, V_BASE + i % (N_V * N_T) / N_T);
        if (i % N_T)
            push(s, T_BASE + i % N_T);
        return;
    }
    uint32_t h = (cp * 2654435761u) >> UNI_DECOMP_SHIFT;
    for (; uni_decomp[h].cp; h = (h + 1) % UNI_N_DECOMP) {
        if (uni_decomp[h].cp != cp)
            continue;
        for (size_t i = 0; i < uni_decomp[h].n; i++)
            push(s, uni_decomp_pool[uni_decomp[h].at + i]);
        return;
    }
    push(s, cp);
}

/* join: the primary composite of a pair, or 0. */
static uint32_t join(uint32_t a, uint32_t b) {
    if (a - L_BASE < N_L && b - V_BASE < N_V)
        return S_BASE + ((a - L_BASE) * N_V + (b - V_BASE)) * N_T;
    if (a - S_BASE < N_S && (a - S_BASE) % N_T == 0 && b - T_BASE - 1 < N_T - 1)
        return a + (b - T_BASE);
    uint32_t h = ((a * 31 + b) * 2654435761u) >> UNI_COMP_SHIFT;
    for (; uni_comp[h].first; h = (h + 1) % UNI_N_COMP)
        if (uni_comp[h].first == a && uni_comp[h].second == b)
            return uni_comp[h].joined;
    return 0;
}

/* sort_marks: stable order by combining class of v[from .. to), all classes > 0. Short runs by
 * insertion, long ones by counting, so that a megabyte of marks stays linear. */
static void sort_marks(struct stretch *s, size_t from, size_t to) {
    uint32_t *v = s->v + from;
    size_t n = to - from;
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            uint32_t cp = v[i];
            size_t j = i;
            for (; j > 0 && ccc_of(v[j - 1]) > ccc_of(cp); j--)
                v[j] = v[j - 1];
            v[j] = cp;
        }
        return;
    }
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[ccc_of(v[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        at[c] += at[c - 1];
    for (size_t i = 0; i < n; i++)
        s->tmp[at[ccc_of(v[i])]++] = v[i];
    memcpy(v, s->tmp, n * sizeof *v);
}

static void order(struct stretch *s) {
    for (size_t i = 0; i < s->n;) {
        size_t j = i;
        while (j < s->n && ccc_of(s->v[j]))
            j++;
        if (j - i > 1)
            sort_marks(s, i, j);
        i = j + 1;
    }
}

/* compose: joins each mark to the last starter unless one between them blocks it. */
static void compose(struct stretch *s) {
    size_t n = 0, starter = SIZE_MAX;
    uint8_t last = 0;
    for (size_t i = 0; i < s->n; i++) {
        uint32_t cp = s->v[i];
        uint8_t ccc = ccc_of(cp);
        if (starter != SIZE_MAX && (last < ccc || (last == 0 && starter + 1 == n))) {
            uint32_t joined = join(s->v[starter], cp);
            if (joined) {
                s->v[starter] = joined;
                continue;
            }
        }
        if (ccc == 0)
            starter = n;
        last = ccc;
        s->v[n++] = cp;
    }
    s->n = n;
}

static void flush(struct stretch *s, struct buf *out) {
    order(s);
    compose(s);
    char *at = buf_reserve(out, s->n * 4);
    for (size_t i = 0; i < s->n; i++) {
        size_t len = utf8_encode(s->v[i], at);
        at += len;
        out->len += len;
    }
    s->n = 0;
}

size_t nfc_unchanged_n(const char *p, size_t n) {
    size_t i = 0, safe = 0; /* start of the last safe character: what follows may still join it */
    while (i < n) {
        uint64_t eight;
        while (n - i >= sizeof eight) {
            memcpy(&eight, p + i, sizeof eight);
            if (eight & 0x8080808080808080u)
                break;
            i += sizeof eight;
            safe = i - 1;
        }
        if (i == n)
            break;
        size_t len;
        uint32_t cp = uni_decode(p + i, &len);
        if (cp >= 0x80 && (uni_flags(cp) & UNI_NFC_UNSAFE))
            return safe;
        safe = i;
        i += len;
    }
    return n;
}

/* map_to: fixes the positions of map that lie in source [.., end): rewritten is the source stretch
 * [begin, end) with its result [out_begin, out_end); an unchanged stretch maps one to one. */
static void map_to(struct nfc_map *map, size_t *next, size_t begin, size_t end, size_t out_begin,
                   size_t out_end, bool unchanged) {
    for (; map && *next < map->n && map->at[*next] < end; ++*next) {
        size_t at = map->at[*next];
        if (unchanged || at == begin)
            map->at[*next] = out_begin + (at - begin);
        else
            map->at[*next] = map->round_up[*next] ? out_end : out_begin;
    }
}

void nfc(const char *p, size_t n, struct buf *out, struct nfc_map *map) {
    struct stretch s = {0};
    size_t i = 0, next = 0;
    while (i < n) {
        size_t same = nfc_unchanged_n(p + i, n - i);
        map_to(map, &next, i, i + same, out->len, 0, true);
        buf_add(out, p + i, same);
        i += same;
        if (i == n)
            break;
        /* From the last safe character (or the text's start) to the next safe one. */
        size_t begin = i, out_begin = out->len, len;
        do {
            push_decomposed(&s, uni_decode(p + i, &len));
            i += len;
        } while (i < n && (uni_flags(uni_decode(p + i, &len)) & UNI_NFC_UNSAFE));
        flush(&s, out);
        map_to(map, &next, begin, i, out_begin, out->len, false);
    }
    map_to(map, &next, n, SIZE_MAX, out->len, out->len, false);
    free(s.v);
    free(s.tmp);
}
