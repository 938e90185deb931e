/* idmap.h: strings by id, and ids by string. Immutable once filled; any thread reads. */
#ifndef WEIR_COMMON_TEXT_IDMAP_H
#define WEIR_COMMON_TEXT_IDMAP_H

#include "common/base.h"

/* slices: n strings in one block; ids without one are empty. */
struct slices {
    char *blob;
    uint32_t *at; /* [n + 1] */
    uint32_t n;
};
static inline struct str slices_get(const struct slices *s, uint32_t id) {
    return (struct str){s->blob + s->at[id], s->at[id + 1] - s->at[id]};
}
void slices_fini(struct slices *s);

/* idmap: a hash table from a string to the id whose slice it is. */
struct idmap_slot {
    uint32_t tag; /* of the hash */
    uint32_t id;  /* UINT32_MAX: empty */
};
struct idmap {
    struct idmap_slot *slots;
    uint32_t mask;
};
/* idmap_init: room for n_max strings. */
void idmap_init(struct idmap *m, uint32_t n_max);
void idmap_fini(struct idmap *m);
/* idmap_put: enters the string of id; false if an equal string is there already. */
bool idmap_put(struct idmap *m, const struct slices *s, uint32_t id);
bool idmap_find(const struct idmap *m, const struct slices *s, struct str key, uint32_t *id);

#endif
