/* fake_worker.h: the worker's side of the link without an engine, for tests of routers: scripted tokens, and
 * whatever a broken or hostile worker could say.
 *
 * One thread steps: each step gives one token to every live sample and ends it at its limit; token i of a sample is a
 * function of i, and a resumed one goes on behind what it has. Callbacks come
 * on the link's threads. fake_worker_free closes the connections at once, as a worker that is killed does.
 */
#ifndef WEIR_TESTS_SUPPORT_FAKE_WORKER_H
#define WEIR_TESTS_SUPPORT_FAKE_WORKER_H

#include "common/link/link.h"

enum { FAKE_SEQS_MAX = 8192 };

struct fake_worker;
struct fake_opts {
    const char *url;
    const char *model_dir; /* tokenizer.json and what else is there; NULL: deploy/tiny-model */
    const char *name;      /* served name; NULL: "fake" */
    uint32_t step_us;      /* pause between steps; 0: 1000 */
    uint32_t credit_seqs;  /* 0: FAKE_SEQS_MAX */
    bool start_loading;    /* stay LOADING until fake_worker_state says otherwise */
    bool bad_digest;       /* announce another digest than the tokenizer has */
    uint64_t stall_ns;     /* what it says of the time since its last step; 0: no work */
    const char *role;      /* prefill or decode: it says that it moves KV blocks; NULL: both, and it does not */
    void *arg;
    /* Sees every Submit first. True: it was dealt with, no tokens come from the script. */
    bool (*on_submit)(void *arg, struct fake_worker *w, struct link_conn *c, const Weir__Submit *m);
    /* Sees every Abort. NULL: it is counted. */
    void (*on_abort)(void *arg, const Weir__Abort *m);
};

struct fake_worker *fake_worker_new(const struct fake_opts *o);
void fake_worker_free(struct fake_worker *w);
void fake_worker_state(struct fake_worker *w, Weir__WorkerState state, const char *detail);

unsigned fake_worker_live(struct fake_worker *w); /* samples that still run */
unsigned fake_worker_submits(struct fake_worker *w);
unsigned fake_worker_aborts(struct fake_worker *w);
uint32_t fake_worker_vocab(const struct fake_worker *w);

/* What a worker with a role says of where its blocks are. */
#define FAKE_KV_ENGINE "00112233445566778899aabbccddeeff"
#define FAKE_KV_HOST "127.0.0.9"
enum { FAKE_KV_PORT = 4242 };

/* fake_send: one StepOutputs with one token (UINT32_MAX: none) and, for reason != 0, a finish. */
void fake_send(struct link_conn *c, uint64_t stream, uint32_t token, Weir__Finish__Reason reason);

#endif
