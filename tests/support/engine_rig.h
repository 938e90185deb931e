/* engine_rig.h: an engine under test, and what came out of it, by stream.
 *
 * The test's thread submits and waits; the engine's thread records under a lock. Streams are numbered from 0.
 */
#ifndef WEIR_TESTS_SUPPORT_ENGINE_RIG_H
#define WEIR_TESTS_SUPPORT_ENGINE_RIG_H

#include <pthread.h>

#include "worker/engine.h"

enum { RIG_STREAMS = 1024, RIG_TOKENS = 512, RIG_TOP = 5, RIG_PROMPT = 512, RIG_ROUTERS = 4, RIG_OFFER = 64 };

struct rig_stream {
    uint32_t n_tokens, n_ends, n_firsts;
    uint32_t tokens[RIG_TOKENS];
    float logprobs[RIG_TOKENS];
    uint32_t top_ids[RIG_TOKENS][RIG_TOP];
    float top_logprobs[RIG_TOKENS][RIG_TOP];
    enum finish_reason finish;
    uint32_t stop_id, status, n_preempted, n_cached, n_prompt, router;
    bool eos;
    char message[128];
    bool offered; /* its end came with blocks kept for another worker: */
    struct id128 transfer;
    double expiry_unix_s;
    uint32_t n_offer, offer[RIG_OFFER];
    uint32_t n_prompt_logprobs; /* entries recorded */
    struct prompt_logprob prompt[RIG_PROMPT];
    uint32_t prompt_top_ids[RIG_PROMPT]; /* [n_prompt * n_top] as far as it goes */
    float prompt_top_logprobs[RIG_PROMPT];
};

struct rig {
    struct engine *engine;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct rig_stream *streams; /* [RIG_STREAMS] */
    uint32_t n_ends, n_steps, n_controls, n_drained, n_failed;
    bool control_ok;
    /* called on the engine's thread after each step was recorded, without the lock; NULL: not */
    void (*watch)(struct rig *r, const struct step_out *out);
    void *watch_arg;
};

/* rig_opts: of an engine over a fake device (fake_be.h) with one group of full attention, which is filled in *group: 512
 * blocks, contexts of 256, steps of 128 tokens and 64 sequences, a prefix cache, end tokens rig_eos. */
struct engine_opts rig_opts(struct be *be, struct cache_group_spec *group);
extern const uint32_t rig_eos[2];
/* rig_prompt: n ids, never an end token; the same salt has the same beginnings. */
void rig_prompt(uint32_t *p, uint32_t n, uint64_t salt);

/* rig_start: makes and starts an engine with callbacks that record here. o is completed in place. */
void rig_start(struct rig *r, struct engine_opts *o);
/* rig_stop: stops and frees the engine; what was recorded stays until rig_free. */
void rig_stop(struct rig *r);
void rig_free(struct rig *r);

/* rig_req: a request with neutral sampling. prompt stays the caller's. */
struct req rig_req(uint64_t stream, const uint32_t *prompt, uint32_t n_prompt, uint32_t max_tokens);
/* rig_submit: copies and submits it; aborts the test if it is refused. */
void rig_submit(struct rig *r, const struct req *q);
/* rig_wait_ends: until n streams have ended in all; a test that waits a minute has failed. */
void rig_wait_ends(struct rig *r, uint32_t n);
/* rig_wait_tokens: until that stream has n tokens or has ended. */
void rig_wait_tokens(struct rig *r, uint64_t stream, uint32_t n);
/* rig_wait_idle: until running, waiting and used blocks are 0. */
void rig_wait_idle(struct rig *r);
/* rig_clear: forgets what was recorded. */
void rig_clear(struct rig *r);

#endif
