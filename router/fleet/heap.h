/* heap.h: a binary heap of things that know their place in it, so that any of them can be taken out or moved.
 *
 * A thing has a struct heap_node as a member; the first in order is at the top. Push, remove and moved take
 * O(log n). Pure; not thread-safe.
 */
#ifndef WEIR_ROUTER_FLEET_HEAP_H
#define WEIR_ROUTER_FLEET_HEAP_H

#include "common/base.h"

struct heap_node {
    uint32_t at; /* its place while it is in a heap */
};
struct heap {
    struct heap_node **v; /* [n] */
    uint32_t n, cap;
    /* before: a strict order: two that are before neither of each other are equal. */
    bool (*before)(struct heap_node *a, struct heap_node *b);
};

static inline void heap_init(struct heap *h, bool (*before)(struct heap_node *, struct heap_node *)) {
    *h = (struct heap){.before = before};
}
/* heap_fini: it is empty. */
void heap_fini(struct heap *h);
/* heap_top: NULL: there is none. */
static inline struct heap_node *heap_top(const struct heap *h) {
    return h->n ? h->v[0] : NULL;
}
void heap_push(struct heap *h, struct heap_node *x);
void heap_remove(struct heap *h, struct heap_node *x);
/* heap_moved: what x is compared by has changed. */
void heap_moved(struct heap *h, struct heap_node *x);

#endif
