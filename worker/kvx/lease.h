/* lease.h: blocks of prompts that are kept for other workers, and for how long.
 *
 * A lease begins with its request, gains each block as it is computed, and is complete when the prompt is; so a reader may
 * follow a prefill that is still running. From then on it lasts for the length of a lease, and anew from each word of its
 * reader. It is for one reader, once: who comes second, or late, is refused. It ends when its reader is done or gone, when
 * its time is over, when its request ends otherwise than by its length or is aborted once it has, or when whoever has the
 * capability says that nobody will read.
 *
 * A lease has a number that is never used again, and remembers the generation of every block: what is read by either is what
 * was computed, or is not read at all.
 *
 * The engine's thread only. Bounded: KVX_LEASES_MAX of them, and by the blocks that the scheduler lets others keep.
 */
#ifndef WEIR_WORKER_KVX_LEASE_H
#define WEIR_WORKER_KVX_LEASE_H

#include "worker/kvx/wire.h"
#include "worker/sched.h"

enum { KVX_LEASES_MAX = 1024, KVX_ENDED = 256 /* that are told from those still to come */ };

struct kvx_lease {
    struct kvx_lease *next;
    uint64_t serial; /* from 1 */
    struct id128 transfer;
    struct req *req;          /* that computes it; NULL: complete */
    struct id128 request;     /* its id, and whose it was */
    uint32_t router, router_epoch;
    struct id128 chain;       /* name of the last block */
    uint8_t domain[16];
    uint32_t n_blocks, n_ready; /* of the prompt; of them, kept by now */
    uint32_t first[KV_GROUPS_MAX]; /* blocks in front of it are not kept: no query will see them */
    struct kvx_kept {
        uint32_t block, generation;
    } *kept[KV_GROUPS_MAX]; /* [n_blocks] */
    bool opened;
    uint64_t expiry_ns; /* UINT64_MAX while the request runs */
};

struct kvx_leases {
    struct sched *sched;
    struct kvx_lease *first;
    uint32_t n;
    uint64_t next_serial, lease_ns;
    uint64_t n_expired;
    struct id128 ended[KVX_ENDED]; /* transfers, a ring */
    uint32_t n_ended;
};

void kvx_leases_init(struct kvx_leases *l, struct sched *sched, uint64_t lease_ns);
/* kvx_leases_fini: ends them all. */
void kvx_leases_fini(struct kvx_leases *l);

/* kvx_lease_new: for r, whose prompt has a full block at least, under its own transfer or a new one. NULL: too many, or the
 * transfer is in use. */
struct kvx_lease *kvx_lease_new(struct kvx_leases *l, struct req *r);
/* kvx_lease_grow: keeps what r's first sequence has computed by now. false: there is no room, and the lease has ended. */
bool kvx_lease_grow(struct kvx_leases *l, struct kvx_lease *x);
/* kvx_lease_complete: its request is over and all blocks are there; the time begins. */
void kvx_lease_complete(struct kvx_leases *l, struct kvx_lease *x, uint64_t now_ns);
void kvx_lease_end(struct kvx_leases *l, struct kvx_lease *x);
/* kvx_lease_refuse: a transfer that there will never be: its reader is not to wait for it. */
void kvx_lease_refuse(struct kvx_leases *l, struct id128 transfer);
/* kvx_lease_forget: nobody will read it; one that is being read lasts. kvx_lease_abort: its request has ended, and is aborted
 * by the router whose it was. */
void kvx_lease_forget(struct kvx_leases *l, struct id128 transfer);
void kvx_lease_abort(struct kvx_leases *l, struct id128 request, uint32_t router, uint32_t router_epoch);
/* kvx_leases_expire: ends those whose time is over; returns when the next one's will be, UINT64_MAX: none. */
uint64_t kvx_leases_expire(struct kvx_leases *l, uint64_t now_ns);

/* kvx_lease_open: for a reader; GRANTED: *out, which is its alone. UNKNOWN may change if the reader is early; GONE: it is
 * over, or in use. */
enum kvx_refusal kvx_lease_open(struct kvx_leases *l, const struct kvx_open *o, uint64_t now_ns, struct kvx_lease **out);
/* kvx_lease_at: by its number; NULL: it has ended. kvx_lease_renew: a word of its reader. */
struct kvx_lease *kvx_lease_at(const struct kvx_leases *l, uint64_t serial);
void kvx_lease_renew(struct kvx_leases *l, struct kvx_lease *x, uint64_t now_ns);
/* kvx_lease_blocks: block numbers of [from, from + n) of a group to out, as many as are there; -1: some are not kept, or
 * are not what they were. */
int kvx_lease_blocks(const struct kvx_leases *l, const struct kvx_lease *x, uint32_t group, uint32_t from, uint32_t n,
                     uint32_t *out);

#endif
