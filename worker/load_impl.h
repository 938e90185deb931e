/* load_impl.h: what rank 0 (load.c) and the ranks that follow it (load_rank.c) do alike: the same sizes,
 * devices and shards from the same files and flags.
 */
#ifndef WEIR_WORKER_LOAD_IMPL_H
#define WEIR_WORKER_LOAD_IMPL_H

#include "worker/load.h"
#include "worker/tp.h"

/* sizes: what device, model and engine are opened for. */
struct load_sizes {
    enum dtype dt, kv;
    uint32_t n_seqs, n_tokens, n_rows;
    uint32_t n_ranks;
    int n_threads; /* of one rank */
    bool may_spin; /* every thread of every rank has a core */
};
struct load_sizes load_sizes_of(const struct load *l, const struct worker_flags *f);
/* load_device_config: for a rank; without its group. */
struct be_config load_device_config(const struct load *l, const struct worker_flags *f,
                                    const struct load_sizes *z, uint32_t rank);
/* load_device_open: l->be and l->device. */
MUST_USE enum rc load_device_open(struct load *l, const struct be_config *cfg, struct err *e);
/* load_model_opts: for a rank, with l->ops and l->be as they are. */
struct model_opts load_model_opts(const struct load *l, const struct load_sizes *z, uint32_t rank);
/* load_limits: of plans, without the pools' blocks. */
struct tp_limits load_limits(const struct load *l, const struct load_sizes *z, uint32_t n_groups);

#endif
