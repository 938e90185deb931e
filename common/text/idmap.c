#include "common/text/idmap.h"

#include <stdlib.h>

void slices_fini(struct slices *s) {
    free(s->blob);
    free(s->at);
    *s = (struct slices){0};
}

/* Multiply and fold, eight bytes at a time. Not keyed: what is stored comes from the model's files;
 * text is only looked up, and a text that collides costs one probe chain of the file's making. */
static uint64_t hash(struct str key) {
    uint64_t h = key.n * 0x9E3779B97F4A7C15u;
    size_t i = 0;
    for (uint64_t w; key.n - i >= sizeof w; i += sizeof w) {
        memcpy(&w, key.p + i, sizeof w);
        h = (h ^ w) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    if (i < key.n) {
        uint64_t w = 0;
        memcpy(&w, key.p + i, key.n - i);
        h = (h ^ w) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    return h * 0x9E3779B97F4A7C15u;
}

void idmap_init(struct idmap *m, uint32_t n_max) {
    uint32_t n = 16;
    while (n / 2 < n_max)
        n *= 2;
    m->mask = n - 1;
    m->slots = xmalloc(n * sizeof *m->slots);
    for (uint32_t i = 0; i < n; i++)
        m->slots[i] = (struct idmap_slot){0, UINT32_MAX};
}

void idmap_fini(struct idmap *m) {
    free(m->slots);
    *m = (struct idmap){0};
}

/* find: the slot that holds key, or the empty one where it would go. */
static struct idmap_slot *find(const struct idmap *m, const struct slices *s, struct str key, uint32_t *tag) {
    uint64_t h = hash(key);
    *tag = (uint32_t)h;
    uint32_t i = (uint32_t)(h >> 32) & m->mask;
    while (m->slots[i].id != UINT32_MAX) {
        if (m->slots[i].tag == *tag && str_eq(slices_get(s, m->slots[i].id), key))
            break;
        i = (i + 1) & m->mask;
    }
    return &m->slots[i];
}

bool idmap_put(struct idmap *m, const struct slices *s, uint32_t id) {
    uint32_t tag;
    struct idmap_slot *slot = find(m, s, slices_get(s, id), &tag);
    if (slot->id != UINT32_MAX)
        return false;
    *slot = (struct idmap_slot){tag, id};
    return true;
}

bool idmap_find(const struct idmap *m, const struct slices *s, struct str key, uint32_t *id) {
    uint32_t tag;
    const struct idmap_slot *slot = find(m, s, key, &tag);
    if (slot->id == UINT32_MAX)
        return false;
    *id = slot->id;
    return true;
}
