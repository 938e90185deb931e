/* schema_object.h: between schema_object.c, which reads a branch of facts about objects, and
 * schema_members.c, which writes its members as productions. */
#ifndef WEIR_COMMON_GRAM_SCHEMA_OBJECT_H
#define WEIR_COMMON_GRAM_SCHEMA_OBJECT_H

#include "common/gram/schema.h"

struct name {
    struct str body; /* as spelled between quotes */
    const char *key; /* NULL: no keyword names it by itself */
    uint32_t node;   /* that requires it */
    bool declared;   /* in `properties`, or in a const */
    bool required, absent;
};

struct object {
    struct schema *s;
    const struct branch *b;
    struct name *name; /* in the order of output */
    uint32_t *table;   /* open addressing by body: index plus 1 */
    size_t n_names, n_table;
    size_t n_required, n_shapes;
    uint32_t min, max, min_node, names_node;
    struct vset keys; /* propertyNames */
    bool declares, opens, closed;
};

/* A kind of extra keys. */
struct cell {
    uint32_t rx;       /* their bodies */
    uint64_t patterns; /* which patterns they match */
    uint32_t value;    /* symbol */
};

MUST_USE enum rc object_gather(struct schema *s, const struct branch *b, struct object *o, struct err *e);
/* object_key: what the value of a name must meet. */
MUST_USE enum rc object_key(struct object *o, const struct name *name, struct lits *out, struct err *e);
/* object_cells: the kinds of extra keys that may come; cell has room for SCHEMA_CELLS_MAX. */
MUST_USE enum rc object_cells(struct object *o, struct cell *cell, size_t *n, struct err *e);
MUST_USE enum rc object_pattern(struct object *o, uint32_t node, const char *pattern, uint32_t *rx,
                                struct err *e);

#endif
