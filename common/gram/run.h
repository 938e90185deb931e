/* run.h: the inside of a run; for the engine's own files. */
#ifndef WEIR_COMMON_GRAM_RUN_H
#define WEIR_COMMON_GRAM_RUN_H

#include "common/gram/engine.h"
#include "common/gram/gram.h"
#include "common/gram/vocab.h"

struct gram_run {
    struct gram *g;
    const struct gram_vocab *v;
    uint32_t config;
    uint32_t gc_n; /* of gram_gc: threads of the config */
    bool gc_accept;
    uint32_t *stack;               /* [v->depth_max + 1] of a walk */
    bool ended;                    /* an end token was taken */
    struct gram_run *next, **link; /* in g->runs */
};

/* gram_gc_soon: from how many bytes on to collect again, when memory is short, if `bytes` were left. */
static inline size_t gram_gc_soon(size_t bytes) {
    return bytes * 2 + 256 * KIB;
}

/* mask_of: the mask of a config, end tokens included. stack has room for vocab.depth_max + 1 configs. False
 * on fail. */
bool mask_of(struct gram *g, const struct gram_vocab *v, uint32_t config, uint32_t *stack, uint32_t *mask);

#endif
