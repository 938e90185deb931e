/* schema_expand.h: what schema_expand.c and schema_says.c share. Nobody else includes it. */
#ifndef WEIR_COMMON_GRAM_SCHEMA_EXPAND_H
#define WEIR_COMMON_GRAM_SCHEMA_EXPAND_H

#include "common/gram/schema.h"

/* A branch in the making. All lists are shared with other states and never change. */
struct state {
    struct state *next;
    const struct todo *todo;
    const struct todo *choices, *late; /* a queue: late holds the newest first */
    const struct fact *facts;          /* last first */
    const struct todo *done;           /* literals taken in */
    uint32_t n_absent;
    bool dead;
};

struct expand {
    struct schema *s;
    enum want want;
    struct state *open; /* states to go on with */
    struct branch *first, *last;
    size_t n_branches;
};

/* ---- schema_says.c ---- */

/* says_fact: one fact more; a state that contradicts itself is dead. */
void says_fact(struct expand *x, struct state *st, struct fact f);
/* says_value: the value equals this array, this object. */
void says_value(struct expand *x, struct state *st, uint32_t node);
/* says_schema: takes a node apart: its facts now, what stands in place to be done, in a fixed order of
 * keywords. */
enum rc says_schema(struct expand *x, struct state *st, uint32_t node, struct err *e);
/* says_member: the literal of member i of a node's list `keyword`. */
enum rc says_member(struct schema *s, uint32_t node, const char *keyword, size_t i, uint32_t *lit,
                    struct err *e);

#endif
