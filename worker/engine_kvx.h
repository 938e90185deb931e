/* engine_kvx.h: KV transfers of an engine: leases for readers (engine_kvx.c), pulls of its own (engine_pull.c), and word to
 * others of what it will not pull (engine_tell.c).
 *
 * Readers' and pulls' threads touch neither cache nor device: what they want is a job, which the engine's thread does
 * between two steps, or later if it cannot be done yet. A job lies in its thread's memory, and that thread waits for it.
 *
 * A request that is to have blocks from elsewhere waits outside of the scheduler until they are here, others run meanwhile.
 * They enter the prefix cache by their names, so admission finds them like any cached prefix and computes the rest. Until
 * then, and while a lease lasts, blocks are kept (sched_keep).
 */
#ifndef WEIR_WORKER_ENGINE_KVX_H
#define WEIR_WORKER_ENGINE_KVX_H

#include <stdatomic.h>

#include "worker/engine_impl.h"
#include "worker/kvx/client.h"
#include "worker/kvx/config.h"
#include "worker/kvx/lease.h"
#include "worker/kvx/server.h"

enum { KVX_PULLS_MAX = 64, KVX_EARLY_MS = 2000, KVX_READ_MS = 500, KVX_ROOM_MS = 200, KVX_SLICE_MS = 20, KVX_TELLS_MAX = 64 };

enum kvx_job_kind { JOB_OPEN = 1, JOB_READ, JOB_RENEW, JOB_CLOSE, JOB_FORGET, JOB_ROOM, JOB_IMPORT, JOB_END };
struct kvx_job {
    enum kvx_job_kind kind;
    struct kvx_job *next;
    uint64_t until_ns; /* answered by then; UINT64_MAX: when it can be */
    int result;
    bool posted, done; /* under kvx.mu; neither: unused */
    union {
        struct {
            const struct kvx_open *open;
            uint64_t lease;
        } o;
        struct {
            uint64_t lease;
            const struct kvx_read *read;
            uint8_t *dst;
            bool finished; /* CLOSE: the reader is done */
        } r;
        struct id128 transfer; /* FORGET */
        struct {
            struct kvx_pull *pull;
            uint32_t group, from, n;
            const uint8_t *data;
        } p;
    };
};

/* kvx_pull: a request's pull, and then the hold on what it brought. */
struct kvx_pull {
    struct engine *e;
    struct kvx_pull *next;
    struct req *req; /* NULL: it has ended */
    struct kvx_pull_opts o;
    char host[KVX_HOST_BYTES];
    uint8_t *ids; /* of o.open */
    uint32_t local;   /* leading blocks that were here */
    uint32_t *kept[BE_GROUPS_MAX]; /* [o.end] blocks held; KV_NO_BLOCK: none */
    uint32_t reserved[BE_GROUPS_MAX]; /* room promised and not used yet */
    bool landed; /* the thread is joined */
    pthread_t thread;
    struct kvx_io io;
    _Atomic bool stop, opened;
    struct kvx_job room, import[KVX_BUFFERS][BE_GROUPS_MAX], end;
    /* of the thread, before END is posted: */
    enum rc rc;
    enum kvx_refusal why;
    struct err err;
    struct kvx_pull_stats stats;
};

struct kvx {
    struct kvx_opts o;
    struct kvx_layout layout;
    struct kvx_server *server; /* NULL: it keeps nothing for others */
    struct kvx_leases leases;
    struct kvx_pull *pulls;
    uint32_t n_pulls; /* not landed */
    uint32_t reserved[BE_GROUPS_MAX];
    uint32_t n_open;  /* leases that are being read */
    uint64_t wake_ns; /* when the engine must look again by itself; UINT64_MAX: not */
    uint32_t *blocks; /* [chunk] scratch */
    uint8_t *part;    /* of one rank, if there are several */
    struct kvx_stats stats;

    pthread_mutex_t mu;
    pthread_cond_t answered;
    struct kvx_job *in_first, **in_last; /* posted */
    bool closed;
    struct kvx_job *held; /* the engine's: taken and not answered yet, oldest first */
    struct kvx_tell *tells; /* under mu */
    unsigned n_tells;       /* under mu */
    pthread_cond_t told;    /* one of them is over */
};

/* kvx_new: RC_INVALID: the engine's cache cannot be moved; RC_IO: no listener. kvx_halt: the engine's thread ends: nobody waits
 * for it any more. kvx_free: after that; before sched_fini. */
MUST_USE enum rc kvx_new(struct engine *e, struct err *err);
void kvx_halt(struct engine *e);
void kvx_free(struct engine *e);
/* kvx_run: jobs and times, between two steps. true: something happened. */
bool kvx_run(struct engine *e);
/* kvx_waits: some request waits for its blocks. */
bool kvx_waits(const struct engine *e);
/* kvx_begin: of a new request: it gets a lease, or begins a pull. True: the scheduler sees it later (engine_release), or
 * never: it has failed. */
MUST_USE bool kvx_begin(struct engine *e, struct req *r);
/* kvx_computed: leases keep what the step has computed. Before any end of a sequence. */
void kvx_computed(struct engine *e);
/* kvx_ended: a sequence ends: its lease is complete, or over. Before the scheduler lets its blocks go. */
void kvx_ended(struct engine *e, struct seq *q, enum finish_reason why);
/* kvx_aborted: a request that is not there any more is aborted: its lease, if there is one, ends. */
void kvx_aborted(struct engine *e, struct id128 request, uint32_t router, uint32_t router_epoch);
/* kvx_forget: r leaves the engine. */
void kvx_forget(struct engine *e, struct req *r);
/* kvx_stats_fill: gauges and counters. */
void kvx_stats_fill(const struct engine *e, struct kvx_stats *out);

/* For each other. kvx_post: to the engine; kvx_await: until it was answered: its result; -1: the engine is gone.
 * kvx_move_in: data, all heads, to blocks of every rank. */
void kvx_post(struct kvx *k, struct engine *e, struct kvx_job *j);
int kvx_await(struct kvx *k, struct kvx_job *j);
bool kvx_move_in(struct engine *e, uint32_t group, const uint32_t *blocks, uint32_t n, const uint8_t *data);
/* kvx_pull_try: of ROOM, IMPORT and END: true: it is answered. kvx_pull_sweep: what admission has taken over is let go. */
bool kvx_pull_try(struct engine *e, struct kvx_job *j, uint64_t now_ns);
void kvx_pull_sweep(struct engine *e);
/* kvx_pull_begin: true: the request waits for its blocks, or has ended. kvx_pull_forget: its request is over, or has been
 * admitted. kvx_count: a pull in the statistics. */
bool kvx_pull_begin(struct engine *e, struct req *r);
void kvx_count(struct kvx_stats *s, bool ok, uint64_t n_bytes, uint64_t ns);
void kvx_pull_forget(struct engine *e, struct kvx_pull *p);
/* kvx_pull_stop: r computes its prompt itself, if it still waits for its blocks. */
void kvx_pull_stop(struct req *r);
void kvx_pulls_free(struct engine *e);
/* kvx_tell: who keeps the blocks that v names learns that nobody will read them; by a thread of its own. Any thread; does not
 * block. What cannot be told ends with its lease. kvx_tells_free: no more of them; waits for those under way. */
void kvx_tell(struct engine *e, const struct req_kv *v);
void kvx_tells_free(struct kvx *k);

#endif
