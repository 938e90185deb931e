/* kv_walk.h: snapshots of a prefix cache for routers, a piece a step, so that no step waits for them.
 *
 * The pieces of a snapshot name the blocks that can be found as the walk comes by; what is stored or removed
 * meanwhile is in the events that are sent between them, so that who takes everything in order knows in the
 * end what the cache holds. One snapshot after the other; each router has one at most.
 *
 * The engine's thread only. All memory is taken by kv_walks_init.
 */
#ifndef WEIR_WORKER_KV_WALK_H
#define WEIR_WORKER_KV_WALK_H

#include "worker/prefix.h"

enum { KV_PIECE_BLOCKS = 4096 /* that a piece covers */ };

struct kv_piece {
    uint32_t router, router_epoch;
    bool begins; /* the first one of its snapshot */
    const struct id128 *names;
    uint32_t n_names;
};
struct kv_walks {
    struct kv_walk {
        uint32_t router, router_epoch, at;
    } * v; /* [n_max] the oldest first */
    uint32_t n, n_max;
    struct id128 *names; /* [KV_PIECE_BLOCKS] */
    struct kv_piece piece;
};

/* kv_walks_init: for router indices below n_routers. */
void kv_walks_init(struct kv_walks *w, uint32_t n_routers);
void kv_walks_fini(struct kv_walks *w);
/* kv_walk_begin: a router's snapshot; one that it asked for before begins anew. */
void kv_walk_begin(struct kv_walks *w, uint32_t router, uint32_t router_epoch);
/* kv_walk_step: the next piece of the oldest one, until the next call; NULL: there is none. */
const struct kv_piece *kv_walk_step(struct kv_walks *w, const struct prefix *p);
/* kv_walks_forget: of a router's connections below that epoch. */
void kv_walks_forget(struct kv_walks *w, uint32_t router, uint32_t epoch);

#endif
