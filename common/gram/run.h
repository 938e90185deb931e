/* run.h: the inside of a run; for the engine's own files. */
#ifndef WEIR_COMMON_GRAM_RUN_H
#define WEIR_COMMON_GRAM_RUN_H

#include "common/gram/engine.h"
#include "common/gram/gram.h"

struct gram_run {
    struct gram *g;
    const struct gram_vocab *v;
    uint32_t config;
    bool ended;                      /* an end token was taken */
    struct gram_run *next, **link;   /* in g->runs */
};

#endif
