/* kvfeed.h: one worker's KvEvents into the index.
 *
 * A worker numbers the changes of its prefix cache. Nothing counts before a snapshot has begun, which may
 * come in parts, with changes between them; a gap in the numbers makes all of it void, until the next
 * snapshot.
 *
 * Threads: none of its own; the caller locks, with the index.
 */
#ifndef WEIR_ROUTER_FLEET_KVFEED_H
#define WEIR_ROUTER_FLEET_KVFEED_H

#include "proto/weir.pb-c.h"
#include "router/fleet/index.h"

struct kv_feed {
    uint32_t slot; /* INDEX_NO_SLOT: nothing is known of the worker */
    uint64_t next_seq;
};
enum kv_feed_say {
    KV_FEED_OK = 0,
    KV_FEED_ASK, /* changes were lost: ask for a snapshot */
    KV_FEED_BAD  /* a message that no correct worker sends; nothing was taken from it */
};

void kv_feed_init(struct kv_feed *f);
/* kv_feed_take: a message of the worker. */
MUST_USE enum kv_feed_say kv_feed_take(struct kv_feed *f, struct prefix_index *x, const Weir__KvEvents *m);
/* kv_feed_gone: what it said is void, as after a gap. */
void kv_feed_gone(struct kv_feed *f, struct prefix_index *x);

#endif
