#include "common/gram/table.h"

/* Tables of this size and more grow by a quarter: a limit on all of them is then not met half empty. */
enum { LARGE_BYTES = 1 << 20 };

/* next_cap: of a table that must take `need`, more than cap. */
static size_t next_cap(size_t cap, size_t need, size_t size) {
    size_t more = cap * size < LARGE_BYTES ? cap : cap / 4;
    return MAX(cap ? cap + more : 16, need);
}

size_t table_more(uint32_t cap, size_t need, size_t size) {
    return need <= cap ? 0 : (next_cap(cap, need, size) - cap) * size;
}

void *table_grow(void *p, uint32_t *cap, size_t need, size_t size, size_t *bytes) {
    if (need <= *cap)
        return p;
    size_t now = next_cap(*cap, need, size);
    CHECK(now < UINT32_MAX);
    p = xreallocarray(p, now, size);
    *bytes += (now - *cap) * size;
    *cap = (uint32_t)now;
    return p;
}

void *table_trim(void *p, uint32_t *cap, size_t n, size_t size, size_t *bytes) {
    size_t now = n + n / 4;
    if (now >= *cap)
        return p;
    *bytes -= (*cap - now) * size;
    *cap = (uint32_t)now;
    if (now)
        return xreallocarray(p, now, size);
    free(p);
    return NULL;
}

static void itab_put(struct itab *t, uint32_t hash, uint32_t id1) {
    uint32_t mask = t->cap - 1, i = hash & mask;
    while (t->slot[i].id1)
        i = (i + 1) & mask;
    t->slot[i] = (struct itab_slot){hash, id1};
}

/* full: three quarters are taken. */
static bool full(const struct itab *t) {
    return (uint64_t)t->n * 4 >= (uint64_t)t->cap * 3;
}

size_t itab_more(const struct itab *t) {
    return full(t) ? (t->cap ? (size_t)t->cap : 64) * sizeof *t->slot : 0;
}

void itab_add(struct itab *t, uint32_t hash, uint32_t id, size_t *bytes) {
    if (full(t)) {
        struct itab old = *t;
        t->cap = old.cap ? old.cap * 2 : 64;
        t->slot = xcalloc(t->cap, sizeof *t->slot);
        *bytes += (size_t)(t->cap - old.cap) * sizeof *t->slot;
        for (uint32_t i = 0; i < old.cap; i++)
            if (old.slot[i].id1)
                itab_put(t, old.slot[i].hash, old.slot[i].id1);
        free(old.slot);
    }
    itab_put(t, hash, id + 1);
    t->n++;
}

void itab_fini(struct itab *t, size_t *bytes) {
    *bytes -= (size_t)t->cap * sizeof *t->slot;
    free(t->slot);
    *t = (struct itab){0};
}
