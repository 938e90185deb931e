/* model.h: a model: weights on a backend, and the order of operations of one step.
 *
 * One file per family describes its tensors' names and its layers in terms of blocks.h; nothing here knows
 * a device. All calls come from the engine's thread.
 */
#ifndef WEIR_WORKER_MODEL_MODEL_H
#define WEIR_WORKER_MODEL_MODEL_H

#include "common/err.h"
#include "common/hf/config.h"
#include "common/hf/safetensors.h"
#include "worker/backend.h"

struct model;

struct model_opts {
    const struct be_ops *ops;
    struct be *be; /* opened; outlives the model */
    uint32_t rank, n_ranks;
    enum dtype weights;    /* DT_NONE: as stored; else converted at load (--dtype) */
    enum dtype kv;         /* DT_NONE: as the weights */
    uint32_t max_len;      /* effective context; a window no shorter is none. 0: the config's limit */
    uint32_t n_tokens_max; /* activation buffers */
    bool to_fp8;           /* matrices of floats become fp8 at load; the backend takes it */
    bool pools;            /* keep hidden states (model_hidden) and load no head; always so for encoders */
    bool dummy;            /* --load-format dummy: random weights in the config's shape, seeded, scaled by
                              1/sqrt(n_in); set is NULL */
    /* progress: bytes packed so far of the whole; NULL for none. Called on the loading thread. */
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_arg;
};

/* model_check: what model_load would refuse of cfg and opts before it reads a tensor: sizes that the ranks
 * cannot share evenly, a context that is too long, an operation that the backend lacks. */
MUST_USE enum rc model_check(const struct hf_config *cfg, const struct model_opts *o, struct err *e);
/* model_load: RC_INVALID names a missing tensor or a wrong shape, or options that do not go with the config;
 * RC_UNSUPPORTED a type, or a tensor of the layers that this graph would leave unused; RC_IO no memory. */
MUST_USE enum rc model_load(struct model **out, const struct hf_config *cfg, const struct st_set *set,
                            const struct model_opts *o, struct err *e);
void model_free(struct model *m);

/* model_groups: the cache groups its layers need, BE_GROUPS_MAX at most; returns how many. Usable before load
 * with the same cfg and opts, so that memory can be planned. */
uint32_t model_groups(const struct hf_config *cfg, const struct model_opts *o, struct cache_group_spec *out);
/* model_weight_bytes: what the packed weights occupy. */
uint64_t model_weight_bytes(const struct model *m);

/* model_forward: plans the batch and enqueues every operation up to the logits of its rows. Does not wait. */
void model_forward(struct model *m, const struct batch *b);
/* model_gathers: where a batch of a model that pools has rows, fewer than tokens, its hidden states are those of the rows,
 * in their order, and the last layer is computed for them alone. Else they are those of all tokens. */
bool model_gathers(const struct model *m);
/* model_hidden: final hidden states, behind the last norm, of batch tokens, or rows (model_gathers), [row0, row0 + n) of
 * the last model_forward: [n][hidden]. Only of a model that pools. Waits. */
void model_hidden(struct model *m, uint32_t row0, uint32_t n, float *dst);

#endif
