/* procs.h: logits processors: plugins loaded at start, and their states for each sequence (api.md 8.10).
 *
 * Plugins are read-only once loaded. A sequence's states are made where its request is submitted, so that a
 * processor that says no does so before anything is computed, and made anew after a preemption, by the engine's
 * thread.
 */
#ifndef WEIR_WORKER_PROCS_H
#define WEIR_WORKER_PROCS_H

#include "common/conf.h"
#include "worker/plugin/weir_plugin.h"
#include "worker/seq.h"

enum { PROCS_MAX = 16, PROCS_WHY_BYTES = 200 };

struct plugins;

/* plugins_load: RC_INVALID with the file: it does not load, has no list, another ABI, or a name that another one
 * has. No files: *out is NULL. */
MUST_USE enum rc plugins_load(struct plugins **out, const struct conf_list *files, struct err *e);
void plugins_free(struct plugins *p); /* NULL is allowed */
/* plugins_find: NULL if nothing has that name, or p is NULL. */
const struct weir_lp *plugins_find(const struct plugins *p, const char *name);

/* procs_create: states for all sequences of r, which was prepared. RC_INVALID with what the processor said. */
MUST_USE enum rc procs_create(struct req *r, uint32_t n_vocab, struct err *e);
/* procs_destroy: q's states; nothing if it has none. */
void procs_destroy(struct seq *q);
/* procs_apply: runs q's processors on logits [n_vocab]. False with a reason and its HTTP status: q's request cannot
 * go on. */
bool procs_apply(struct seq *q, float *logits, uint32_t n_vocab, char why[PROCS_WHY_BYTES], uint32_t *status);

#endif
