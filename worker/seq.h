/* seq.h: a request and its sequences, as the scheduler and the engine see them.
 *
 * All belong to the engine's thread from the moment the inbox is drained. Sequences and block tables come
 * from pools allocated at start; a request's variable parts (prompt, stop ids, bias) are one heap block,
 * taken over from the wire thread and freed at the end.
 */
#ifndef WEIR_WORKER_SEQ_H
#define WEIR_WORKER_SEQ_H

#include "common/base.h"
#include "worker/backend.h"

enum finish_reason { FINISH_NONE = 0, FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR };

/* req: what a Submit asks for. Immutable after creation. Freed by req_free. */
struct req {
    struct id128 id;            /* internal id, minted by the router */
    uint32_t router;            /* index of the connection it came from */
    uint32_t router_epoch;      /* of that index's reuse */
    uint64_t stream;            /* the router's handle of sample 0; sample k is stream + k */
    uint32_t n_samples;         /* best_of sequences sharing the prompt */
    int32_t priority;           /* lower runs earlier; 0 unless priority scheduling */
    uint64_t arrival_ns;        /* monotonic clock, at the worker's link */

    const uint32_t *prompt;     /* [n_prompt] */
    uint32_t n_prompt;
    const uint32_t *resume;     /* [n_resume] output tokens already sent (replay), sample 0 only */
    uint32_t n_resume;
    uint8_t domain[16];         /* digest of revision, adapter, media and salt: prefix blocks start from it */
    bool cache_read, cache_write;

    uint32_t max_tokens, min_tokens;
    bool ignore_eos;
    const uint32_t *stop_ids;   /* EOS ids of the model are added by the engine unless ignore_eos */
    uint32_t n_stop_ids;

    float temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
    uint32_t top_k;
    uint64_t seed;              /* of sample 0; sample k uses seed + k */
    const struct sample_bias *bias; /* sorted by id */
    uint32_t n_bias;
    const uint32_t *allowed;    /* bitset over the vocabulary; NULL: all */

    int32_t n_logprobs;         /* -1: none; else top N beside the sampled one */
    int32_t n_prompt_logprobs;  /* -1: none */
};
void req_free(struct req *r);

enum seq_state { SEQ_WAITING = 0, SEQ_RUNNING, SEQ_PREEMPTED, SEQ_FINISHED };

#endif
