/* table.h: what the engine's tables are made of: growing arrays and hash tables of ids.
 *
 * Every table adds its bytes to a counter that its owner gives, so that a grammar knows what it occupies.
 * Not thread safe.
 */
#ifndef WEIR_COMMON_GRAM_TABLE_H
#define WEIR_COMMON_GRAM_TABLE_H

#include "common/base.h"
#include "common/hash.h"

#include <stdlib.h>

/* table_grow: room for `need` elements of `size` bytes; doubles, or grows by a quarter from 1 MiB on. *bytes
 * follows the capacity. */
void *table_grow(void *p, uint32_t *cap, size_t need, size_t size, size_t *bytes);
/* table_more: the bytes that table_grow would add. */
size_t table_more(uint32_t cap, size_t need, size_t size);

/* table_trim: keeps n elements and little more; p may become NULL when n is 0. */
void *table_trim(void *p, uint32_t *cap, size_t n, size_t size, size_t *bytes);

/* itab: ids by the hash of what they stand for; the owner compares contents. */
struct itab_slot {
    uint32_t hash, id1; /* id + 1; 0: free */
};
struct itab {
    struct itab_slot *slot;
    uint32_t cap, n; /* cap: a power of two, or 0 */
};

void itab_add(struct itab *t, uint32_t hash, uint32_t id, size_t *bytes);
/* itab_more: the bytes that itab_add would add. */
size_t itab_more(const struct itab *t);
void itab_fini(struct itab *t, size_t *bytes);
/* itab_clear: empty, memory given back. */
static inline void itab_clear(struct itab *t, size_t *bytes) {
    itab_fini(t, bytes);
}

/* itab_find: the next candidate with this hash; *at is the cursor, set to UINT32_MAX for a new search.
 * Returns the id or UINT32_MAX. */
static inline uint32_t itab_find(const struct itab *t, uint32_t hash, uint32_t *at) {
    if (!t->cap)
        return UINT32_MAX;
    uint32_t mask = t->cap - 1, i = *at == UINT32_MAX ? hash & mask : (*at + 1) & mask;
    for (;; i = (i + 1) & mask) {
        if (!t->slot[i].id1)
            return UINT32_MAX;
        if (t->slot[i].hash == hash) {
            *at = i;
            return t->slot[i].id1 - 1;
        }
    }
}

/* mix: folds a word into a hash. */
static inline uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

#endif
