#include "common/text/bpe.h"

#include "common/text/bpe_chars.h"

#include <stdlib.h>

/* Windows start at WINDOW_MIN symbols; a pass over ids beyond PASSES_MAX goes over to a heap. */
enum { WINDOW_MIN = 64, WINDOW_GROWTH = 8, PASSES_MAX = 96 };

/* ---- tables ---- */

static inline uint64_t pair_key(uint32_t a, uint32_t b) {
    return (uint64_t)a << 32 | b;
}

static inline uint32_t pair_hash(uint64_t key) {
    return (uint32_t)((key * 0x9E3779B97F4A7C15u) >> 32);
}

static inline uint32_t pair_rank(const struct bpe *m, uint32_t a, uint32_t b) {
    uint64_t key = pair_key(a, b);
    const struct bpe_pair *pairs = m->pairs;
    uint32_t mask = m->pairs_mask, i = pair_hash(key) & mask;
    while (pairs[i].key != key) {
        if (pairs[i].key == BPE_NO_PAIR)
            return BPE_NONE;
        i = (i + 1) & mask;
    }
    return pairs[i].rank;
}

static uint32_t power_of_two(uint32_t n_max) {
    uint32_t n = 16;
    while (n / 2 < n_max)
        n *= 2;
    return n;
}

static void pairs_init(struct bpe *m, const struct bpe_merge *merges) {
    uint32_t n = power_of_two(m->n_merges);
    m->pairs_mask = n - 1;
    m->pairs = xmalloc(n * sizeof *m->pairs);
    for (uint32_t i = 0; i < n; i++)
        m->pairs[i] = (struct bpe_pair){BPE_NO_PAIR, BPE_NONE};
    for (uint32_t rank = 0; rank < m->n_merges; rank++) {
        uint64_t key = pair_key(merges[rank].a, merges[rank].b);
        uint32_t i = pair_hash(key) & m->pairs_mask;
        while (m->pairs[i].key != BPE_NO_PAIR && m->pairs[i].key != key)
            i = (i + 1) & m->pairs_mask;
        m->pairs[i] = (struct bpe_pair){key, rank};
        m->merged[rank] = merges[rank].merged;
    }
}

static void bytes_init(struct bpe *m) {
    m->all_bytes = true;
    for (unsigned b = 0; b < 256; b++)
        m->byte_id[b] = BPE_NONE;
    for (uint32_t id = 0; id < m->raw.n; id++) {
        struct str s = slices_get(&m->raw, id);
        if (s.n == 1)
            m->byte_id[(uint8_t)s.p[0]] = id;
    }
    for (unsigned b = 0; b < 256; b++)
        m->all_bytes &= m->byte_id[b] != BPE_NONE;
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            bool known = m->byte_id[a] != BPE_NONE && m->byte_id[b] != BPE_NONE;
            m->byte_pair_rank[a << 8 | b] = known ? pair_rank(m, m->byte_id[a], m->byte_id[b]) : BPE_NONE;
        }
}

/* ---- whole pre-tokens ---- */

static inline uint32_t word_hash(uint64_t low, uint32_t high) {
    uint64_t h = (low ^ (uint64_t)high << 29) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 54);
}

/* word_key: n <= BPE_INLINE_MAX bytes as two integers. */
static inline void word_key(const char *p, size_t n, uint64_t *low, uint32_t *high) {
    uint64_t w[2] = {0};
    memcpy(w, p, n);
    *low = w[0];
    *high = (uint32_t)w[1] | (uint32_t)n << 24;
}

static inline struct bpe_word *word_slot(const struct bpe *m, uint64_t low, uint32_t high) {
    uint32_t i = word_hash(low, high) & m->words_mask;
    while (m->words[i].high && (m->words[i].low != low || m->words[i].high != high))
        i = (i + 1) & m->words_mask;
    return &m->words[i];
}

/* words_init: enters each token whose own text encodes to it alone: checked by encoding it. */
static void words_init(struct bpe *m, bool whole_words) {
    uint32_t n_short = 0, n_long = 0;
    for (uint32_t id = 0; id < m->raw.n; id++) {
        size_t n = slices_get(&m->raw, id).n;
        n_short += n > 0 && n <= BPE_INLINE_MAX;
        n_long += n > BPE_INLINE_MAX;
    }
    uint32_t n_slots = power_of_two(n_short);
    m->words_mask = n_slots - 1;
    m->words = xcalloc(n_slots, sizeof *m->words);
    idmap_init(&m->long_words, n_long);
    struct tok_ids ids = {0};
    for (uint32_t id = 0; id < m->raw.n; id++) {
        struct str s = slices_get(&m->raw, id);
        if (!s.n)
            continue;
        if (!whole_words) {
            ids.n = 0;
            if (s.n <= BPE_WHOLE_MAX)
                bpe_encode(m, s.p, s.n, &ids);
            if (ids.n != 1 || ids.v[0] != id)
                continue;
        }
        if (s.n > BPE_INLINE_MAX) {
            if (idmap_put(&m->long_words, &m->raw, id))
                m->long_word_n_max = MAX(m->long_word_n_max, s.n);
            continue;
        }
        uint64_t low;
        uint32_t high;
        word_key(s.p, s.n, &low, &high);
        *word_slot(m, low, high) = (struct bpe_word){low, high, id};
    }
    tok_ids_fini(&ids);
}

static void tables_init(struct bpe *m, struct slices raw, const struct bpe_merge *merges, uint32_t n_merges) {
    *m = (struct bpe){.raw = raw, .n_merges = n_merges};
    m->merged = xreallocarray(NULL, n_merges, sizeof *m->merged);
    pairs_init(m, merges);
}

void bpe_init(struct bpe *m, struct slices raw, const struct bpe_merge *merges, uint32_t n_merges,
              uint32_t unk_id, bool fuse_unk, bool whole_words) {
    tables_init(m, raw, merges, n_merges);
    m->unk_id = unk_id;
    m->fuse_unk = fuse_unk;
    m->byte_pair_rank = xreallocarray(NULL, 65536, sizeof *m->byte_pair_rank);
    bytes_init(m);
    words_init(m, whole_words);
}

void bpe_init_chars(struct bpe *m, struct slices raw, const struct bpe_merge *merges, uint32_t n_merges,
                    uint32_t unk_id, bool fuse_unk, bool whole_words, const uint32_t *byte_id,
                    struct bpe_affixes affixes) {
    tables_init(m, raw, merges, n_merges);
    m->unk_id = unk_id;
    m->fuse_unk = fuse_unk;
    m->chars = xcalloc(1, sizeof *m->chars);
    bpe_chars_init(m->chars, m, merges, whole_words, byte_id, affixes);
    words_init(m, whole_words);
}

void bpe_fini(struct bpe *m) {
    if (m->chars)
        bpe_chars_fini(m->chars);
    free(m->chars);
    slices_fini(&m->raw);
    free(m->pairs);
    free(m->byte_pair_rank);
    free(m->merged);
    free(m->words);
    idmap_fini(&m->long_words);
    *m = (struct bpe){0};
}

/* ---- merging ---- */

/* lowest: the least of n ranks; four chains, because each comparison waits for the one before. */
static inline uint32_t lowest(const uint32_t *rank, size_t n) {
    uint32_t a = BPE_NONE, b = BPE_NONE, c = BPE_NONE, d = BPE_NONE;
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        a = MIN(a, rank[i]);
        b = MIN(b, rank[i + 1]);
        c = MIN(c, rank[i + 2]);
        d = MIN(d, rank[i + 3]);
    }
    for (; i < n; i++)
        a = MIN(a, rank[i]);
    return MIN(MIN(a, b), MIN(c, d));
}

/* merge_rank: merges the pairs of the lowest rank from left to right, until a merge makes a pair that
 * ranks lower still. Returns the number of ids left. */
static size_t merge_rank(const struct bpe *m, uint32_t *id, uint32_t *rank, size_t n, uint32_t low) {
    uint32_t merged = m->merged[low];
    bool lower = false;
    size_t w = 0;
    while (rank[w] != low)
        w++;
    for (size_t i = w; i < n;) {
        id[w] = merged; /* of id[i] and id[i + 1] */
        i += 2;
        rank[w] = i < n ? pair_rank(m, merged, id[i]) : BPE_NONE;
        lower |= rank[w] < low;
        if (w > 0) {
            rank[w - 1] = pair_rank(m, id[w - 1], merged);
            lower |= rank[w - 1] < low;
        }
        w++;
        for (; i < n && (lower || rank[i] != low); i++, w++) {
            id[w] = id[i];
            rank[w] = rank[i];
        }
    }
    return w;
}

/* merge_passes: merges in place. id is [n], rank[i] that of (id[i], id[i + 1]), BPE_NONE at the end.
 * *done is false if n_passes did not suffice. Returns the number of ids left. */
static size_t merge_passes(const struct bpe *m, uint32_t *id, uint32_t *rank, size_t n, size_t n_passes,
                           bool *done) {
    for (; n_passes > 0; n_passes--) {
        uint32_t low = lowest(rank, n);
        *done = low == BPE_NONE;
        if (*done)
            break;
        n = merge_rank(m, id, rank, n, low);
    }
    return n;
}

struct heap {
    uint64_t *v; /* rank << 32 | position: the smallest is the lowest rank, leftmost */
    size_t n;
};

static void heap_down(struct heap *h, size_t i) {
    uint64_t x = h->v[i];
    for (size_t c; (c = 2 * i + 1) < h->n; i = c) {
        c += c + 1 < h->n && h->v[c + 1] < h->v[c];
        if (h->v[c] >= x)
            break;
        h->v[i] = h->v[c];
    }
    h->v[i] = x;
}

static void heap_add(struct heap *h, uint32_t rank, size_t at) {
    if (rank == BPE_NONE)
        return;
    uint64_t x = (uint64_t)rank << 32 | at;
    size_t i = h->n++;
    for (; i > 0 && h->v[(i - 1) / 2] > x; i = (i - 1) / 2)
        h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = x;
}

/* merge_heap: the same result as merge_passes in n log n. An entry is stale unless rank[position]
 * still equals its rank. Each merge adds at most two entries, so 3 n bound the heap. */
static size_t merge_heap(const struct bpe *m, uint32_t *id, uint32_t *rank, size_t n) {
    CHECK(n < BPE_NONE);
    uint32_t *next = xreallocarray(NULL, 2 * n, sizeof *next), *prev = next + n;
    struct heap h = {.v = xreallocarray(NULL, 3 * n, sizeof *h.v)};
    for (size_t i = 0; i < n; i++) {
        next[i] = (uint32_t)i + 1;
        prev[i] = (uint32_t)i - 1;
        if (rank[i] != BPE_NONE)
            h.v[h.n++] = (uint64_t)rank[i] << 32 | i;
    }
    for (size_t i = h.n / 2; i-- > 0;)
        heap_down(&h, i);
    while (h.n) {
        uint32_t low = (uint32_t)(h.v[0] >> 32), at = (uint32_t)h.v[0];
        h.v[0] = h.v[--h.n];
        if (h.n)
            heap_down(&h, 0);
        if (rank[at] != low)
            continue;
        uint32_t gone = next[at], right = next[gone], left = prev[at];
        id[at] = m->merged[low];
        rank[gone] = BPE_NONE;
        next[at] = right;
        if (right < n)
            prev[right] = at;
        rank[at] = right < n ? pair_rank(m, id[at], id[right]) : BPE_NONE;
        heap_add(&h, rank[at], at);
        if (left < n) {
            rank[left] = pair_rank(m, id[left], id[at]);
            heap_add(&h, rank[left], left);
        }
    }
    size_t w = 0;
    for (size_t i = 0; i < n; i = next[i])
        id[w++] = id[i];
    free(next);
    free(h.v);
    return w;
}

/* ---- long pre-tokens ---- */

/* The symbols before merging: one a byte, or, for characters and where the vocabulary lacks bytes, an array.
 */
struct source {
    const uint8_t *bytes; /* [n], or NULL */
    const uint32_t *ids;  /* [n], or NULL */
    size_t n;
};

struct window {
    uint32_t *id, *rank; /* [size] */
    uint32_t *tail_id;   /* [size] last tokens of the window before, not yet given out */
    size_t *tail_at;     /* [size] where they start, in symbols */
    size_t n, n_tail;
};

static size_t n_symbols(const struct bpe *m, uint32_t id) {
    if (id == m->unk_id && !m->all_bytes)
        return 1;
    return m->chars ? m->chars->n_symbols[id] : slices_get(&m->raw, id).n;
}

/* encode_span: the tokens of symbols [at, at + n) by themselves, to w->id; returns their number. */
static size_t encode_span(const struct bpe *m, const struct source *src, size_t at, size_t n,
                          struct window *w) {
    for (size_t i = 0; i < n; i++)
        w->id[i] = src->ids ? src->ids[at + i] : m->byte_id[src->bytes[at + i]];
    for (size_t i = 0; i + 1 < n; i++)
        w->rank[i] = src->ids ? pair_rank(m, w->id[i], w->id[i + 1])
                              : m->byte_pair_rank[src->bytes[at + i] << 8 | src->bytes[at + i + 1]];
    w->rank[n - 1] = BPE_NONE;
    bool done = false;
    size_t k = merge_passes(m, w->id, w->rank, n, n <= WINDOW_MIN ? SIZE_MAX : PASSES_MAX, &done);
    return done ? k : merge_heap(m, w->id, w->rank, k);
}

/* join_tail: finds a token that both the tail and the window (which starts at symbol from) have at
 * the same place, gives out the tail before it, and returns its index in the window; *at is its
 * place. SIZE_MAX if there is none. */
static size_t join_tail(const struct bpe *m, const struct window *w, size_t from, size_t *at,
                        struct tok_ids *out) {
    size_t i = 0, j = 0;
    *at = from;
    while (i < w->n && j < w->n_tail) {
        if (w->tail_at[j] < *at) {
            j++;
        } else if (w->tail_at[j] == *at && w->tail_id[j] == w->id[i]) {
            for (size_t t = 0; t < j; t++)
                tok_ids_push(out, w->tail_id[t]);
            return i;
        } else {
            *at += n_symbols(m, w->id[i++]);
        }
    }
    return SIZE_MAX;
}

/* encode_windows: all of src by windows of size symbols; false if two neighbours share no token. */
static bool encode_windows(const struct bpe *m, const struct source *src, size_t size, struct window *w,
                           struct tok_ids *out) {
    w->n_tail = 0;
    for (size_t from = 0;;) {
        size_t n = MIN(size, src->n - from), i = 0, at = from;
        w->n = encode_span(m, src, from, n, w);
        if (from > 0 && (i = join_tail(m, w, from, &at, out)) == SIZE_MAX)
            return false;
        bool last = from + n == src->n;
        /* The next window starts at the first token past three quarters, or at the last token. */
        while (i < w->n && (last || (at < from + n - n / 4 && i + 1 < w->n))) {
            tok_ids_push(out, w->id[i]);
            at += n_symbols(m, w->id[i++]);
        }
        if (last)
            return true;
        if (at < from + n / 4)
            return false;
        w->n_tail = 0;
        size_t start = at;
        for (; i < w->n; i++) {
            w->tail_id[w->n_tail] = w->id[i];
            w->tail_at[w->n_tail++] = at;
            at += n_symbols(m, w->id[i]);
        }
        from = start;
    }
}

static void encode_long(const struct bpe *m, const struct source *src, struct tok_ids *out) {
    size_t n_before = out->n;
    bool done = false;
    for (size_t size = WINDOW_MIN; !done; size *= WINDOW_GROWTH) {
        size = m->no_windows ? src->n : MIN(size, src->n);
        struct window w = {0};
        w.id = xreallocarray(NULL, size, 3 * sizeof *w.id);
        w.rank = w.id + size;
        w.tail_id = w.rank + size;
        w.tail_at = xreallocarray(NULL, size, sizeof *w.tail_at);
        out->n = n_before;
        done = encode_windows(m, src, size, &w, out);
        free(w.id);
        free(w.tail_at);
    }
}

/* encode_source: from few symbols on the stack, from many in windows. */
static void encode_source(const struct bpe *m, const struct source *src, struct tok_ids *out) {
    if (src->n > WINDOW_MIN) {
        encode_long(m, src, out);
        return;
    }
    uint32_t id[WINDOW_MIN], rank[WINDOW_MIN];
    struct window w = {.id = id, .rank = rank};
    size_t k = encode_span(m, src, 0, src->n, &w);
    for (size_t i = 0; i < k; i++)
        tok_ids_push(out, id[i]);
}

void bpe_encode_symbols(const struct bpe *m, const uint32_t *symbols, size_t n, struct tok_ids *out) {
    encode_source(m, &(struct source){.ids = symbols, .n = n}, out);
}

/* encode_sparse: a vocabulary without all bytes: an unknown byte becomes unk_id or vanishes. */
static void encode_sparse(const struct bpe *m, const char *p, size_t n, struct tok_ids *out) {
    uint32_t *ids = xreallocarray(NULL, n, sizeof *ids);
    size_t k = 0;
    bool after_unk = false;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = m->byte_id[(uint8_t)p[i]];
        bool unk = id == BPE_NONE;
        if (!unk)
            ids[k++] = id;
        else if (m->unk_id != BPE_NONE && !(after_unk && m->fuse_unk))
            ids[k++] = m->unk_id;
        after_unk = unk;
    }
    if (k)
        bpe_encode_symbols(m, ids, k, out);
    free(ids);
}

void bpe_encode(const struct bpe *m, const char *p, size_t n, struct tok_ids *out) {
    if (n == 0)
        return;
    if (n <= BPE_INLINE_MAX) {
        uint64_t low;
        uint32_t high;
        word_key(p, n, &low, &high);
        const struct bpe_word *word = word_slot(m, low, high);
        if (LIKELY(word->high)) {
            tok_ids_push(out, word->id);
            return;
        }
    } else if (n <= m->long_word_n_max) {
        uint32_t id;
        if (idmap_find(&m->long_words, &m->raw, (struct str){p, n}, &id)) {
            tok_ids_push(out, id);
            return;
        }
    }
    if (m->chars)
        bpe_chars_encode(m, p, n, out);
    else if (!m->all_bytes)
        encode_sparse(m, p, n, out);
    else
        encode_source(m, &(struct source){.bytes = (const uint8_t *)p, .n = n}, out);
}
