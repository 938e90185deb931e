/* launch_gpus.h: which GPUs each of several workers on a machine has.
 *
 * Rank r of a worker takes the r-th GPU that it sees. Workers beside each other must see different ones: each is given its
 * own part of the list in CUDA_VISIBLE_DEVICES, as CUDA reads it. Pure functions; no CUDA is needed. */
#ifndef WEIR_ROUTER_LAUNCH_GPUS_H
#define WEIR_ROUTER_LAUNCH_GPUS_H

#include "common/buf.h"
#include "common/err.h"

/* launch_gpus: appends the part of worker i, of n_ranks ranks, of the GPUs in all (separated by commas; NULL: all there are,
 * by number): entries [i * n_ranks, (i + 1) * n_ranks). RC_INVALID if there are not so many; nothing is appended then. */
MUST_USE enum rc launch_gpus(struct buf *out, const char *all, unsigned i, unsigned n_ranks, struct err *e);

/* launch_environ: env (NAME=VALUE, NULL at the end) with CUDA_VISIBLE_DEVICES=gpus in place of what it says there. The array
 * is the caller's to free; its strings are env's, and line, which holds the new one and must live as long. */
char **launch_environ(char **env, struct buf *line, struct str gpus);

#endif
