/* prefix.h: which blocks hold the K and V of which tokens: block names to blocks, per cache group.
 *
 * A full block is named by the chain of hashes up to it (common/hash). Once its content has been computed it
 * is offered here; another sequence whose tokens give the same names may then hold the block instead of
 * computing it. Of two blocks with one name the first stays, the other remains private to its sequence.
 *
 * Groups have rules of their own for how much of a prefix they need: a full group every block of it, a window
 * group only those that a query right behind it can see. prefix_match finds the longest prefix good for all.
 *
 * The engine's thread only. All memory is taken by prefix_init. Tables are keyed with a random seed, because
 * clients choose the tokens.
 */
#ifndef WEIR_WORKER_PREFIX_H
#define WEIR_WORKER_PREFIX_H

#include "worker/kv.h"
#include "worker/seq.h"

/* Changes, for routers that keep an index of what is where; of the first group only. */
enum prefix_event_kind { PREFIX_STORED = 1, PREFIX_REMOVED, PREFIX_CLEARED };
struct prefix_event {
    enum prefix_event_kind kind;
    struct id128 name; /* not for CLEARED */
};

/* kv_group: a cache group as the scheduler sees it. */
enum kv_group_kind { KV_FULL = 1, KV_WINDOW };
struct kv_group {
    enum kv_group_kind kind;
    uint32_t window; /* KV_WINDOW: tokens that a query sees, itself included; at least 1 */
    uint32_t n_blocks;
};
/* kv_group_first: index of the first block that a query at position pos, or a later one, can see. */
uint32_t kv_group_first(const struct kv_group *g, uint32_t pos);

struct prefix_table {
    uint32_t n_buckets; /* a power of two */
    uint32_t *head;     /* [n_buckets] block or KV_NO_BLOCK */
    uint32_t *next;     /* [n_blocks] */
    struct id128 *name; /* [n_blocks] valid where the pool says named */
    uint32_t n_named;
};

struct prefix {
    uint32_t n_groups;
    struct kv_group group[KV_GROUPS_MAX];
    struct kv_pool *pool; /* [n_groups] the scheduler's */
    struct prefix_table table[KV_GROUPS_MAX];
    struct prefix_link {
        struct prefix *prefix;
        uint32_t group;
    } link[KV_GROUPS_MAX];
    uint64_t seed;
    uint64_t n_query_tokens, n_hit_tokens;
    struct prefix_event *events; /* ring [n_events_max]; NULL: not kept */
    uint32_t n_events_max, n_events, event_at;
    uint64_t first_event; /* number of the oldest in the ring: those lost made it grow */
};

/* prefix_init: tables for the pools of n_groups groups, and the hook of each pool (kv_pool.on_evict).
 * n_events_max: changes kept until prefix_events_take; 0: none. */
void prefix_init(struct prefix *p, const struct kv_group *groups, uint32_t n_groups, struct kv_pool *pools,
                 uint64_t seed, uint32_t n_events_max);
void prefix_fini(struct prefix *p);

/* prefix_find: the block of that name in the group, or KV_NO_BLOCK. */
uint32_t prefix_find(const struct prefix *p, uint32_t group, struct id128 name);
/* prefix_match: how many leading blocks of names[0 .. n) every group can provide. Takes nothing. */
uint32_t prefix_match(const struct prefix *p, const struct id128 *names, uint32_t n);
/* prefix_name: the content of a used block is computed: it can be found under that name from now on. Ignored
 * if another block has the name, or this block is named already. */
void prefix_name(struct prefix *p, uint32_t group, uint32_t block, struct id128 name);
/* prefix_count: for the statistics: tokens looked up, and of them found. */
void prefix_count(struct prefix *p, uint32_t n_tokens, uint32_t n_hits);
/* prefix_reset: forgets all names. Blocks in use stay with their sequences. */
void prefix_reset(struct prefix *p);
/* prefix_events_take: moves up to n_max of the oldest kept events to out; *first is the number of the first.
 */
uint32_t prefix_events_take(struct prefix *p, struct prefix_event *out, uint32_t n_max, uint64_t *first);
/* prefix_names: a walk over the names of the first group: looks at up to n_max blocks from *at on and moves *at;
 * returns how many names it wrote. *at is the number of blocks when the walk is over. */
uint32_t prefix_names(const struct prefix *p, uint32_t *at, struct id128 *out, uint32_t n_max);
/* prefix_check: CHECKs that tables and pools agree. O(blocks). */
void prefix_check(const struct prefix *p);

#endif
