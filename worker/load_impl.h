/* load_impl.h: what rank 0 (load.c) and the ranks that follow it (load_rank.c) do alike: the same sizes,
 * devices and shards from the same files and flags.
 */
#ifndef WEIR_WORKER_LOAD_IMPL_H
#define WEIR_WORKER_LOAD_IMPL_H

#include "worker/load.h"
#include "worker/tp_wire.h"

/* sizes: what device, model and engine are opened for. */
struct load_sizes {
    enum dtype dt, kv;
    uint32_t n_seqs, n_tokens, n_rows;
    uint32_t n_ranks;
    int n_threads; /* of one rank */
    bool to_fp8;   /* matrices are converted at load */
    bool may_spin; /* every thread of every rank has a core */
};
struct load_sizes load_sizes_of(const struct load *l, const struct worker_flags *f);
/* load_facts: what ranks on several hosts must have alike. */
void load_facts(const struct load *l, const struct worker_flags *f, const struct load_sizes *z, struct tp_facts *out);
/* load_device_config: for a rank; without its group. */
struct be_config load_device_config(const struct load *l, const struct worker_flags *f,
                                    const struct load_sizes *z, uint32_t rank);
/* load_device_open: l->be and l->device. */
MUST_USE enum rc load_device_open(struct load *l, const struct be_config *cfg, struct err *e);
/* load_model_opts: for a rank, with l->ops and l->be as they are. */
struct model_opts load_model_opts(const struct load *l, const struct load_sizes *z, uint32_t rank);
/* room: a GPU's memory. own: what this worker has taken when its worst step is over. */
struct load_room {
    uint64_t total_bytes, start_bytes, weight_bytes, own_bytes, kv_bytes;
    double share;
};
/* load_gpu_room: computes the worst steps that o allows, with pools of one block, so that the backend takes all the
 * working memory it will ever need, and sees what --gpu-memory-utilization then leaves for the KV cache. RC_INVALID:
 * nothing, or no step fits. */
MUST_USE enum rc load_gpu_room(struct load *l, const struct worker_flags *f, const struct engine_opts *o,
                               struct load_room *out, struct err *e);
/* load_gpu_full: RC_INVALID: what is left does not hold one sequence, and what to change. */
enum rc load_gpu_full(const struct worker_flags *f, const struct engine_opts *o, const struct load_room *room,
                      struct err *e);
/* load_gpu_tell: a line on how the memory is shared out, and how many tokens fit. */
void load_gpu_tell(const struct load *l, const struct load_room *room);

/* load_limits: of plans, without the pools' blocks. */
struct tp_limits load_limits(const struct load *l, const struct load_sizes *z, uint32_t n_groups);

#endif
