/* kv.h: a pool of KV blocks: reference counts, a free list, and idle blocks whose content may still be of
 * use.
 *
 * Pure accounting: block numbers only, the memory is the backend's. One pool per cache group. A block is
 *   free  nobody holds it, nothing of value in it;
 *   used  held by n_holds > 0 sequences (or leases);
 *   idle  held by nobody, but named: the prefix cache can find it. The least recently used idle block is
 *         taken when no free one is left.
 * At all times n_free + n_idle + n_used == n_blocks. A block's generation grows whenever it gets a new owner,
 * so that whoever remembers a block from outside (a transfer) can tell that its content is gone.
 *
 * The engine's thread only. All memory is taken by kv_init; every operation is O(1).
 */
#ifndef WEIR_WORKER_KV_H
#define WEIR_WORKER_KV_H

#include "common/base.h"

#define KV_NO_BLOCK UINT32_MAX
enum { KV_TOKENS = 16 }; /* tokens of a block */

enum kv_list { KV_LIST_NONE = 0, KV_LIST_FREE, KV_LIST_IDLE };

struct kv_block {
    uint32_t n_holds;
    uint32_t generation;
    uint32_t prev, next; /* in its list */
    uint8_t list;        /* enum kv_list; NONE while used */
    bool named;          /* the prefix cache has it */
};

struct kv_pool {
    uint32_t n_blocks, n_free, n_idle, n_used;
    struct kv_block *blocks;
    struct {
        uint32_t head, tail; /* KV_NO_BLOCK: empty */
    } list[3];               /* by enum kv_list; idle: head is the least recently used */
    /* on_evict: an idle block is about to be reused: take its name away. Must not call the pool. */
    void (*on_evict)(void *arg, uint32_t block);
    void *arg;
};

/* kv_init: n_blocks free blocks, numbered from 0; on_evict may be NULL if nothing is ever named. */
void kv_init(struct kv_pool *p, uint32_t n_blocks, void (*on_evict)(void *arg, uint32_t block), void *arg);
void kv_fini(struct kv_pool *p);

/* kv_take: a block with one hold and no name: a free one, else the least recently used idle one. KV_NO_BLOCK
 * if all are used. */
uint32_t kv_take(struct kv_pool *p);
/* kv_hold: one more hold; wakes an idle block. The block must be used or idle. */
void kv_hold(struct kv_pool *p, uint32_t block);
/* kv_drop: one hold less; the last one makes the block idle if named, else free. */
void kv_drop(struct kv_pool *p, uint32_t block);

/* kv_set_named: tells whether the prefix cache can find the block's content. Unnaming an idle block frees it.
 */
void kv_set_named(struct kv_pool *p, uint32_t block, bool named);

/* kv_available: blocks that kv_take can still give. */
static inline uint32_t kv_available(const struct kv_pool *p) {
    return p->n_free + p->n_idle;
}

/* kv_check: walks everything and CHECKs the invariants above. O(n_blocks): for tests, and when idle. */
void kv_check(const struct kv_pool *p);

#endif
