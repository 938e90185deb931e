/* io_private.h: shared by io.c (connections, state), io_submit.c (requests in) and io_out.c (outputs). */
#ifndef WEIR_WORKER_IO_PRIVATE_H
#define WEIR_WORKER_IO_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/link/link.h"
#include "worker/io.h"

/* Aborts whose request may not have arrived yet: an Abort overtakes the parts of a long Submit. Direct-mapped
 * by id, and for the abort of one sample by its stream, too; ids are random and used once, so an old entry
 * does no harm. */
enum { IO_TOMBS = 4096 };
struct io_tomb {
    struct id128 id;
    uint64_t stream; /* of the sample; IO_TOMB_WHOLE: the whole request; or IO_TOMB_TRANSFER */
};
#define IO_TOMB_WHOLE UINT64_MAX
#define IO_TOMB_TRANSFER (UINT64_MAX - 1) /* only what it fetches */

/* io_router: a connection's index. Reused with another epoch. Guarded by io.lock. */
struct io_router {
    struct link_conn *conn; /* held; NULL: free */
    uint32_t epoch;
    bool kv_events; /* it has asked for a snapshot, which has begun */
};

struct io {
    struct link *link;
    pthread_mutex_t lock;
    pthread_cond_t tick; /* wakes the reporter early */
    struct io_router routers[IO_ROUTERS_MAX];
    uint32_t next_epoch;
    struct io_tomb tombs[IO_TOMBS];

    Weir__WorkerState state; /* guarded by lock, as are the facts */
    char detail[256];
    char *model;
    struct conf_list names;
    struct io_facts facts; /* strings owned */
    uint64_t load_done_bytes, load_total_bytes, progress_sent_ns;
    struct io_asset assets[IO_ASSETS_MAX];
    size_t n_assets;
    uint8_t asset_digest[IO_ASSETS_MAX][32];

    _Atomic bool ready; /* engine and facts may be read without the lock */
    struct io_engine engine;
    pthread_t reporter;
    bool reporter_on, stopping;
    void (*on_drain)(void *arg);
    void *arg;
    struct io_out *out; /* io_out.c's scratch; the engine's thread only */
};

/* io_submit: checks m and hands it to the engine, or answers with a Reject. */
void io_submit(struct io *io, struct link_conn *c, uint32_t router, uint32_t epoch, const Weir__Submit *m);
/* io_tomb_find: whether an Abort of that request (stream IO_TOMB_WHOLE), or of that sample of it, has come. */
bool io_tomb_find(struct io *io, struct id128 id, uint64_t stream);
/* io_abort: tells the engine. */
void io_abort(struct io *io, uint32_t router, uint32_t epoch, struct id128 id, bool whole, uint64_t stream);
/* io_hex: an id as text. */
void io_hex(struct id128 id, char out[2 * sizeof(struct id128) + 1]);
/* io_kv_check: of a Submit's kv_transfer: peers that may be dialled. io_kv_read: to what a request says; blocks stay the
 * message's. io_kv_offer: the offer of a request that has ended, into m, which points into text; false: there is none.
 * (io_transfer.c) */
MUST_USE enum rc io_kv_check(const Weir__Submit *m, const struct io_facts *f, struct err *e);
void io_kv_read(const Weir__Submit *m, struct req_kv *out);
/* io_kv_end: m, which may be NULL, will not be fetched: who keeps it is told. */
void io_kv_end(struct io *io, const Weir__KvTransfer *m);
struct io_kv_text {
    char engine[2 * sizeof(struct id128) + 1];
    uint8_t transfer[sizeof(struct id128)];
};
bool io_kv_offer(const struct req *r, const struct io_facts *f, struct io_kv_text *text, Weir__KvTransfer *m);
/* io_reject: status by rc. */
void io_reject(struct link_conn *c, struct id128 id, const struct err *e);
/* io_kv_step: changes of the prefix cache to the routers that follow it, and a piece of a snapshot to the one
 * that asked for it. The engine's thread. */
void io_kv_step(struct io *io, const struct step_out *out);
/* io_kv_fill: packs events v[0 .. n), n > 0, the first of which has the number seq, into a message: as many as one
 * can hold in their order; returns how many. The message points into stored and removed. Pure. */
enum { IO_KV_NAMES_MAX = 4096 };
uint32_t io_kv_fill(const struct prefix_event *v, uint32_t n, uint64_t seq, struct id128 stored[IO_KV_NAMES_MAX],
                    struct id128 removed[IO_KV_NAMES_MAX], Weir__KvEvents *m);
struct io_out *io_out_new(void);
void io_out_free(struct io_out *o);
/* io_conn_of: the held connection of a router index, NULL if it has gone. Drop it after use. */
struct link_conn *io_conn_of(struct io *io, uint32_t router, uint32_t epoch);

#endif
