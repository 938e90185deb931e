#include "common/text/nfc.h"

#include "common/text/uni.h"
#include "common/utf8.h"

#include <stdlib.h>

enum { S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7 };
enum { N_L = 19, N_V = 21, N_T = 28, N_S = N_L * N_V * N_T };

static uint8_t ccc_of(uint32_t cp) {
    return uni_ccc_block[(size_t)uni_ccc_index[cp >> 7] * 128 + (cp & 127)];
}

void nf_stretch_fini(struct nf_stretch *s) {
    free(s->v);
    free(s->tmp);
    *s = (struct nf_stretch){0};
}

void nf_push(struct nf_stretch *s, uint32_t cp) {
    if (s->n == s->cap) {
        s->cap = MAX(s->cap * 2, (size_t)64);
        s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
        s->tmp = xreallocarray(s->tmp, s->cap, sizeof *s->tmp);
    }
    s->v[s->n++] = cp;
}

static void push_entry(struct nf_stretch *s, const struct uni_decomp_entry *e) {
    for (size_t i = 0; i < e->n; i++)
        nf_push(s, uni_decomp_pool[e->at + i]);
}

void nf_push_decomposed(struct nf_stretch *s, uint32_t cp, bool compat) {
    if (cp >= S_BASE && cp < S_BASE + N_S) {
        uint32_t i = cp - S_BASE;
        nf_push(s, L_BASE + i / (N_V * N_T));
        nf_push(s, V_BASE + i % (N_V * N_T) / N_T);
        if (i % N_T)
            nf_push(s, T_BASE + i % N_T);
        return;
    }
    uint32_t h = (cp * 2654435761u) >> UNI_COMPAT_SHIFT;
    for (; compat && uni_compat[h].cp; h = (h + 1) % UNI_N_COMPAT) {
        if (uni_compat[h].cp != cp)
            continue;
        push_entry(s, &uni_compat[h]);
        return;
    }
    h = (cp * 2654435761u) >> UNI_DECOMP_SHIFT;
    for (; uni_decomp[h].cp; h = (h + 1) % UNI_N_DECOMP) {
        if (uni_decomp[h].cp != cp)
            continue;
        push_entry(s, &uni_decomp[h]);
        return;
    }
    nf_push(s, cp);
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
static void sort_marks(struct nf_stretch *s, size_t from, size_t to) {
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

void nf_order(struct nf_stretch *s) {
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
static void compose(struct nf_stretch *s) {
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

static void flush(struct nf_stretch *s, bool composed, struct buf *out) {
    nf_order(s);
    if (composed)
        compose(s);
    char *at = buf_reserve(out, s->n * 4);
    for (size_t i = 0; i < s->n; i++) {
        size_t len = utf8_encode(s->v[i], at);
        at += len;
        out->len += len;
    }
    s->n = 0;
}

/* unsafe: whether the form may change the character or join or move it with what stands before it. */
static inline bool unsafe(enum nf_form form, uint32_t cp) {
    switch (form) {
    case NF_C:
        return uni_flags(cp) & UNI_NFC_UNSAFE;
    case NF_D:
        return uni_props(cp) & UNI_IS_NFD_UNSAFE;
    case NF_KC:
        return (uni_flags(cp) & UNI_NFC_UNSAFE) || (uni_props(cp) & UNI_IS_COMPAT);
    case NF_KD:
        return uni_props(cp) & (UNI_IS_NFD_UNSAFE | UNI_IS_COMPAT);
    }
    return true;
}

size_t nf_unchanged_n(enum nf_form form, const char *p, size_t n) {
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
        if (cp >= 0x80 && unsafe(form, cp))
            return safe;
        safe = i;
        i += len;
    }
    return n;
}

void nf_map_same(struct nf_map *map, size_t begin, size_t end, size_t out_begin) {
    for (; map && map->next < map->n && map->at[map->next] < end; map->next++)
        map->at[map->next] = out_begin + (map->at[map->next] - begin);
}

void nf_map_changed(struct nf_map *map, size_t begin, size_t end, size_t out_begin, size_t out_end) {
    for (; map && map->next < map->n && map->at[map->next] < end; map->next++) {
        bool up = map->at[map->next] > begin && map->round_up[map->next];
        map->at[map->next] = up ? out_end : out_begin;
    }
}

void nf_map_end(struct nf_map *map, size_t n, size_t out_n) {
    for (; map && map->next < map->n; map->next++) {
        CHECK(map->at[map->next] == n);
        map->at[map->next] = out_n;
    }
}

void nf(enum nf_form form, const char *p, size_t n, struct buf *out, struct nf_map *map) {
    struct nf_stretch s = {0};
    bool compat = form == NF_KC || form == NF_KD, composed = form == NF_C || form == NF_KC;
    size_t i = 0;
    while (i < n) {
        size_t same = nf_unchanged_n(form, p + i, n - i);
        nf_map_same(map, i, i + same, out->len);
        buf_add(out, p + i, same);
        i += same;
        if (i == n)
            break;
        /* From the last safe character (or the text's start) to the next safe one. */
        size_t begin = i, out_begin = out->len, len;
        do {
            nf_push_decomposed(&s, uni_decode(p + i, &len), compat);
            i += len;
        } while (i < n && unsafe(form, uni_decode(p + i, &len)));
        flush(&s, composed, out);
        nf_map_changed(map, begin, i, out_begin, out->len);
    }
    nf_map_end(map, n, out->len);
    nf_stretch_fini(&s);
}
