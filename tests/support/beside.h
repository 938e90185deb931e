/* beside.h: 64 free sequences and 64 others beside them in one engine with deploy/tiny-model: how long free
 * ones wait between two tokens.
 *
 * One thread. Needs the project's root as working directory. */
#ifndef WEIR_TESTS_SUPPORT_BESIDE_H
#define WEIR_TESTS_SUPPORT_BESIDE_H

#include "common/err.h"

struct beside;
struct beside_run {
    double p99_us; /* of the gaps between two tokens of a free sequence */
    double cpu_s;  /* of the process */
    double wall_s;
};
/* BESIDE_FREE: the others are free too. BESIDE_APART: each has a schema of its own; BESIDE_SHARED: all have
 * one. */
enum beside_kind { BESIDE_FREE, BESIDE_APART, BESIDE_SHARED };
enum { BESIDE_EACH = 64 };

/* beside_open: loads the model and starts the engine. */
MUST_USE enum rc beside_open(struct beside **out, struct err *e);
void beside_close(struct beside *b);
/* beside_run: 128 requests of n_tokens each (2 to 512), from the first to the end of the last. Prompts are
 * the same each time. */
struct beside_run beside_run(struct beside *b, enum beside_kind kind, uint32_t n_tokens);

#endif
