#include "router/fleet/index.h"

#include <stdlib.h>

#include "common/hash.h"

enum { WORDS = INDEX_SLOTS / 32, ENTRY_BYTES = 64, SWEEP_ROUNDS = 2 };

/* entry: in use while its set has a bit. Entry 0 is the end of lists: of a bucket, of the free ones, and, as
 * head and tail, of the order of use. */
struct entry {
    struct id128 name;
    uint32_t set[WORDS];
    uint32_t chain;      /* in its bucket, or among the free */
    uint32_t prev, next; /* by use: 0.next is the newest, 0.prev the oldest */
};
_Static_assert(sizeof(struct entry) == ENTRY_BYTES, "an entry is a cache line");

struct prefix_index {
    struct entry *entries; /* [n_max + 1] */
    uint32_t *buckets;     /* [n_buckets] */
    uint32_t n_buckets;    /* a power of two */
    uint32_t n_max, n_end; /* entries from n_end on were never used */
    uint32_t n_used, first_free;
    uint64_t seed, n_evicted;
    uint32_t live[WORDS], leaving[WORDS]; /* slots in use; being swept */
    uint8_t rounds[INDEX_SLOTS];          /* of a leaving slot: ends of rounds still to be seen */
    uint32_t cursor;
};

struct prefix_index *index_new(size_t bytes_max, uint64_t seed) {
    CHECK(bytes_max >= INDEX_BYTES_MIN);
    struct prefix_index *x = xcalloc(1, sizeof *x);
    /* Between 1/2 and 1 buckets for an entry, so 68 bytes at most. */
    x->n_max = (uint32_t)MIN(bytes_max / (ENTRY_BYTES + sizeof *x->buckets) - 1, (size_t)1 << 30);
    for (x->n_buckets = 1; x->n_buckets <= x->n_max / 2; x->n_buckets *= 2)
        ;
    x->entries = xcalloc((size_t)x->n_max + 1, sizeof *x->entries);
    x->buckets = xcalloc(x->n_buckets, sizeof *x->buckets);
    x->n_end = x->cursor = 1;
    x->seed = seed;
    return x;
}

void index_free(struct prefix_index *x) {
    if (!x)
        return;
    free(x->entries);
    free(x->buckets);
    free(x);
}

static uint32_t *bucket_of(const struct prefix_index *x, const struct id128 *name) {
    return &x->buckets[hash_fast(name->b, sizeof name->b, x->seed) & (x->n_buckets - 1)];
}

static uint32_t find(const struct prefix_index *x, const struct id128 *name) {
    uint32_t i = *bucket_of(x, name);
    while (i && !id128_eq(x->entries[i].name, *name))
        i = x->entries[i].chain;
    return i;
}

/* ---- order of use ------------------------------------------------------------------------------------ */

static void order_remove(struct prefix_index *x, uint32_t i) {
    const struct entry *e = &x->entries[i];
    x->entries[e->prev].next = e->next;
    x->entries[e->next].prev = e->prev;
}

/* order_put: next older than `newer`; 0: the newest of all. */
static void order_put(struct prefix_index *x, uint32_t i, uint32_t newer) {
    struct entry *e = &x->entries[i];
    e->prev = newer;
    e->next = x->entries[newer].next;
    x->entries[e->next].prev = i;
    x->entries[newer].next = i;
}

static void order_move(struct prefix_index *x, uint32_t i, uint32_t newer) {
    if (x->entries[i].prev == newer && i != newer)
        return;
    order_remove(x, i);
    order_put(x, i, newer);
}

/* ---- entries ----------------------------------------------------------------------------------------- */

static bool empty(const struct entry *e) {
    uint32_t any = 0;
    for (int w = 0; w < WORDS; w++)
        any |= e->set[w];
    return any == 0;
}

/* forget: whatever its set holds. */
static void forget(struct prefix_index *x, uint32_t i) {
    struct entry *e = &x->entries[i];
    uint32_t *at = bucket_of(x, &e->name);
    while (*at != i)
        at = &x->entries[*at].chain;
    *at = e->chain;
    order_remove(x, i);
    memset(e->set, 0, sizeof e->set);
    e->chain = x->first_free;
    x->first_free = i;
    x->n_used--;
}

/* make: an entry without workers, next older than *newer, which is another one afterwards if it had to go. */
static uint32_t make(struct prefix_index *x, const struct id128 *name, uint32_t *newer) {
    if (x->first_free == 0 && x->n_end > x->n_max) {
        uint32_t oldest = x->entries[0].prev;
        if (oldest == *newer)
            *newer = x->entries[oldest].prev;
        forget(x, oldest);
        x->n_evicted++;
    }
    uint32_t i = x->first_free;
    if (i)
        x->first_free = x->entries[i].chain;
    else
        i = x->n_end++;
    struct entry *e = &x->entries[i];
    uint32_t *bucket = bucket_of(x, name);
    e->name = *name;
    e->chain = *bucket;
    *bucket = i;
    order_put(x, i, *newer);
    x->n_used++;
    return i;
}

/* ---- workers ----------------------------------------------------------------------------------------- */

static bool has(const uint32_t *set, uint32_t slot) {
    return set[slot / 32] >> slot % 32 & 1;
}

uint32_t index_join(struct prefix_index *x) {
    for (uint32_t s = 0; s < INDEX_SLOTS; s++) {
        if (has(x->live, s) || has(x->leaving, s))
            continue;
        x->live[s / 32] |= 1u << s % 32;
        return s;
    }
    return INDEX_NO_SLOT;
}

void index_leave(struct prefix_index *x, uint32_t slot) {
    CHECK(slot < INDEX_SLOTS && has(x->live, slot));
    x->live[slot / 32] &= ~(1u << slot % 32);
    x->leaving[slot / 32] |= 1u << slot % 32;
    x->rounds[slot] = SWEEP_ROUNDS;
}

void index_stored(struct prefix_index *x, uint32_t slot, const struct id128 *names, size_t n) {
    uint32_t newer = 0;
    CHECK(slot < INDEX_SLOTS && has(x->live, slot));
    for (size_t k = 0; k < n; k++) {
        uint32_t i = find(x, &names[k]);
        if (!i)
            i = make(x, &names[k], &newer);
        else if (i != newer) /* a name twice in a row */
            order_move(x, i, newer);
        x->entries[i].set[slot / 32] |= 1u << slot % 32;
        newer = i;
    }
}

void index_removed(struct prefix_index *x, uint32_t slot, const struct id128 *names, size_t n) {
    CHECK(slot < INDEX_SLOTS && has(x->live, slot));
    for (size_t k = 0; k < n; k++) {
        uint32_t i = find(x, &names[k]);
        if (!i)
            continue;
        x->entries[i].set[slot / 32] &= ~(1u << slot % 32);
        if (empty(&x->entries[i]))
            forget(x, i);
    }
}

/* warm: what the names some places ahead will need from memory is called for: a long prompt is hundreds of
 * names, all over the table. */
static void warm(const struct prefix_index *x, const struct id128 *names, uint32_t n, uint32_t k) {
    enum { BUCKET_AHEAD = 6, ENTRY_AHEAD = 3 };
    if (k + BUCKET_AHEAD < n)
        __builtin_prefetch(bucket_of(x, &names[k + BUCKET_AHEAD]));
    if (k + ENTRY_AHEAD < n)
        __builtin_prefetch(&x->entries[*bucket_of(x, &names[k + ENTRY_AHEAD])]);
}

void index_match(struct prefix_index *x, const struct id128 *names, uint32_t n, uint32_t out[INDEX_SLOTS]) {
    uint32_t have[WORDS], newer = 0, k = 0;
    memset(out, 0, INDEX_SLOTS * sizeof *out);
    memcpy(have, x->live, sizeof have);
    for (; k < n; k++) {
        uint32_t any = 0, i = find(x, &names[k]);
        warm(x, names, n, k);
        for (int w = 0; w < WORDS; w++) {
            uint32_t set = x->entries[i].set[w] & have[w]; /* entry 0 has none */
            for (uint32_t lost = have[w] & ~set; lost; lost &= lost - 1)
                out[w * 32 + __builtin_ctz(lost)] = k;
            have[w] = set;
            any |= set;
        }
        if (!any)
            return;
        if (i != newer)
            order_move(x, i, newer);
        newer = i;
    }
    for (int w = 0; w < WORDS; w++)
        for (uint32_t left = have[w]; left; left &= left - 1)
            out[w * 32 + __builtin_ctz(left)] = k;
}

/* ---- sweeping ---------------------------------------------------------------------------------------- */

/* round_over: a slot that left is free at the second end of a round: since the first every entry was seen. */
static void round_over(struct prefix_index *x) {
    x->cursor = 1;
    for (uint32_t s = 0; s < INDEX_SLOTS; s++)
        if (has(x->leaving, s) && --x->rounds[s] == 0)
            x->leaving[s / 32] &= ~(1u << s % 32);
}

bool index_sweep(struct prefix_index *x, uint32_t n) {
    for (; n > 0; n--) {
        uint32_t any = 0, had = 0;
        for (int w = 0; w < WORDS; w++)
            any |= x->leaving[w];
        if (!any)
            return false;
        if (x->cursor >= x->n_end) {
            round_over(x);
            continue;
        }
        struct entry *e = &x->entries[x->cursor];
        for (int w = 0; w < WORDS; w++) {
            had |= e->set[w];
            e->set[w] &= ~x->leaving[w];
        }
        if (had && empty(e))
            forget(x, x->cursor);
        x->cursor++;
    }
    return true;
}

struct index_stats index_stats(const struct prefix_index *x) {
    return (struct index_stats){.n_entries = x->n_used, .n_entries_max = x->n_max, .n_evicted = x->n_evicted};
}

void index_check(const struct prefix_index *x) {
    uint32_t n = 0, n_free = 0, prev = 0;
    for (uint32_t b = 0; b < x->n_buckets; b++)
        for (uint32_t i = x->buckets[b]; i; i = x->entries[i].chain) {
            CHECK(i < x->n_end && !empty(&x->entries[i]) &&
                  bucket_of(x, &x->entries[i].name) == &x->buckets[b]);
            CHECK(find(x, &x->entries[i].name) == i && ++n <= x->n_used);
        }
    for (uint32_t i = x->first_free; i; i = x->entries[i].chain)
        CHECK(empty(&x->entries[i]) && ++n_free < x->n_end);
    CHECK(n == x->n_used && n + n_free + 1 == x->n_end && x->n_end <= x->n_max + 1);
    n = 0;
    for (uint32_t i = x->entries[0].next; i; prev = i, i = x->entries[i].next)
        CHECK(x->entries[i].prev == prev && ++n <= x->n_used);
    CHECK(x->entries[0].prev == prev && n == x->n_used);
    for (int w = 0; w < WORDS; w++)
        CHECK((x->live[w] & x->leaving[w]) == 0);
}
