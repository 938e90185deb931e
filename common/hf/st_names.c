#include <stdlib.h>

#include "common/hash.h"
#include "common/hf/st_internal.h"

void names_fini(struct names *t) {
    free(t->at);
    free(t->slots);
    *t = (struct names){0};
}

/* slot_of: where s is, or the free slot where it belongs. */
static uint32_t *slot_of(const struct names *t, struct str s) {
    uint32_t mask = t->n_slots - 1;
    uint32_t i = (uint32_t)hash_fast(s.p, s.n, t->seed) & mask;
    while (t->slots[i] && !str_eq(t->at[t->slots[i] - 1], s))
        i = (i + 1) & mask;
    return &t->slots[i];
}

static void grow(struct names *t) {
    if (t->n_slots == 0)
        fill_random(&t->seed, sizeof t->seed); /* names come from files: no chosen collisions */
    t->cap = t->cap ? t->cap * 2 : 256;
    t->at = xreallocarray(t->at, t->cap, sizeof *t->at);
    free(t->slots);
    t->n_slots = t->cap * 2;
    t->slots = xcalloc(t->n_slots, sizeof *t->slots);
    for (uint32_t i = 0; i < t->n; i++)
        *slot_of(t, t->at[i]) = i + 1;
}

uint32_t names_put(struct names *t, struct str s, bool *is_new) {
    if (t->n == t->cap)
        grow(t);
    uint32_t *slot = slot_of(t, s);
    *is_new = *slot == 0;
    if (*is_new) {
        t->at[t->n] = s;
        *slot = ++t->n;
    }
    return *slot - 1;
}

uint32_t names_find(const struct names *t, struct str s) {
    if (t->n == 0)
        return UINT32_MAX;
    uint32_t slot = *slot_of(t, s);
    return slot ? slot - 1 : UINT32_MAX;
}

const char *st_show(char out[ST_SHOWN_MAX + 4], struct str s) {
    size_t n = MIN(s.n, (size_t)ST_SHOWN_MAX);
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F ? '?' : s.p[i];
    while (n > 0 && n < s.n && ((unsigned char)s.p[n] & 0xC0) == 0x80)
        n--; /* not inside a character */
    memcpy(out + n, "...", 4);
    if (n == s.n)
        out[n] = 0;
    return out;
}
