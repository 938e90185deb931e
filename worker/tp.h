/* tp.h: the ranks of a worker: processes that hold a shard of the model each and follow the same plan.
 *
 * Rank 0 is the worker itself: scheduler, sampling, the link to routers. It starts ranks 1 .. n - 1 from its
 * own binary, with its own arguments and --rank=N, and tells them each step's plan through a ring in shared
 * memory (tp_step.h); the backend's collectives do the rest.
 *
 * Death: rank 0 watches the others: a process that ends, one that has not beaten for 1.5 s, and one that
 * holds up the rest without using its processor for as long. Then the group is over: its waits end, the
 * others are killed, and on_gone ends this process, as if it had died: routers replay or report, and the
 * supervisor restarts it. The others watch rank 0 by a pipe and by the kernel's signal on a parent's death.
 * Nothing has a name in the file system.
 *
 * The last ranks may be on other hosts (tp_far.h): somebody starts them there, with --leader, and they come to rank 0 by
 * the link's kind of connection. They get the same messages, and a stand beside rank 0 takes part for them in what the
 * ranks do together.
 *
 * Threads: tp_lead and what follows it belong to the thread that loads, then to the engine's; one at a time.
 * One thread of its own watches.
 */
#ifndef WEIR_WORKER_TP_H
#define WEIR_WORKER_TP_H

#include "common/err.h"
#include "worker/backend.h"
#include "worker/tp_step.h"

/* ---- rank 0 ------------------------------------------------------------------------------------- */

/* tp_far_config: how rank 0 and ranks on other hosts find each other, and what both must have alike. */
struct tp_facts;
struct link_tls;
struct tp_far_config {
    const char *url;   /* rank 0's: --rank-listen, --leader */
    struct str secret; /* the cluster's token; empty: none */
    const struct link_tls *tls;
    const struct tp_facts *facts;
};

struct tp;
struct tp_opts {
    uint32_t n_ranks;        /* 2 .. BE_RANKS_MAX */
    int argc;                /* of this process */
    char *const *argv;       /* outlives tp_lead only */
    size_t group_bytes;      /* be_ops.group_bytes */
    uint32_t n_far;          /* of the ranks, the last ones, on other hosts */
    struct tp_far_config far; /* with n_far; outlives the group */
    const struct be_ops *ops; /* likewise: whose stands they have */
    struct be_config be;      /* likewise: of any rank, without its group */
    struct tp_limits limits; /* n_blocks may be 0 */
    bool may_spin;           /* every rank's threads have a core each */
    size_t move_bytes;       /* of blocks that tp_move takes at a time; 0: it is not called */
    /* on_gone: a rank is gone, and why. On the watching thread, once. Ends the process. Not called for a load
     * that ends by itself within a second of it. */
    void (*on_gone)(void *arg, const char *why);
    void *arg;
    /* on_wait: while tp_await_loaded waits; may end the process. NULL: nothing */
    void (*on_wait)(void *arg);
    void *wait_arg;
};

/* tp_lead: the memory and the processes. RC_IO. */
MUST_USE enum rc tp_lead(struct tp **out, const struct tp_opts *o, struct err *e);
struct be_group *tp_group(const struct tp *t);
/* tp_port: where ranks on other hosts come in; 0: nowhere. */
int tp_port(const struct tp *t);
/* tp_await_loaded: until every rank has its weights. RC_INVALID: one has refused or died, and why; tp_end is
 * due. */
MUST_USE enum rc tp_await_loaded(struct tp *t, struct err *e);
/* tp_pools, tp_copies, tp_step: what the ranks are to do next, before rank 0 does the same. Where the group
 * is over they say nothing. */
void tp_pools(struct tp *t, const uint32_t *n_blocks, uint32_t n_groups);
void tp_copies(struct tp *t, uint32_t group, const struct be_copy *copies, uint32_t n);
void tp_step(struct tp *t, const struct batch *b);
/* tp_move: n blocks of a rank above 0, each of block_bytes, between its cache and data. Waits for that rank. false: the group
 * is over. */
MUST_USE bool tp_move(struct tp *t, uint32_t rank, uint32_t group, const uint32_t *blocks, uint32_t n, size_t block_bytes,
                      uint8_t *data, bool in);
/* tp_settle: after a step. Returns if the group is whole; else sleeps until on_gone has ended the process. */
void tp_settle(struct tp *t);
/* tp_end: the ranks end, by themselves if they are loaded, and are waited for, 2 s at most. NULL is fine. */
void tp_end(struct tp *t);

/* ---- the others --------------------------------------------------------------------------------- */

struct tp_rank;
/* tp_join: with the descriptors that rank 0 gave this process. RC_INVALID: it was started by somebody else.
 * From now on the process ends with rank 0. */
MUST_USE enum rc tp_join(struct tp_rank **out, uint32_t rank, uint32_t n_ranks, struct err *e);
/* tp_join_far: with rank 0 on another host, for which it waits. RC_INVALID, RC_UNAUTHORIZED: it does not take this rank.
 * From now on the process ends with the group. */
MUST_USE enum rc tp_join_far(struct tp_rank **out, const struct tp_far_config *c, uint32_t rank, struct err *e);
/* tp_rank_far: NULL: rank 0 is on this host. */
const struct be_far *tp_rank_far(struct tp_rank *r);
/* tp_rank_group: RC_INVALID: the memory is not as large as this rank makes it. */
MUST_USE enum rc tp_rank_group(struct tp_rank *r, size_t group_bytes, struct be_group **out, struct err *e);
/* tp_loaded: rank 0 may go on. tp_refuse: it is told why this process will now end. */
void tp_loaded(struct tp_rank *r);
void tp_refuse(struct tp_rank *r, const char *why);
/* tp_move_room: where a TP_MOVE's blocks are, or go, and how many bytes there are. tp_moved: it is done. */
uint8_t *tp_move_room(struct tp_rank *r, size_t *bytes);
void tp_moved(struct tp_rank *r, uint32_t serial);
/* tp_leave: nothing is called any more; the process ends. Its threads beat until then. NULL is fine. */
void tp_leave(struct tp_rank *r);
/* tp_next: waits for the next message, which is valid until the next call. A group that is over ends the
 * process. RC_INVALID: the message breaks the limits. */
MUST_USE enum rc tp_next(struct tp_rank *r, const struct tp_limits *l, struct tp_msg *out, struct err *e);

#endif
