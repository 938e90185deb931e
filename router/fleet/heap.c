#include "router/fleet/heap.h"

#include <stdlib.h>

void heap_fini(struct heap *h) {
    CHECK(h->n == 0);
    free(h->v);
    h->v = NULL;
    h->cap = 0;
}

static void put(struct heap *h, uint32_t at, struct heap_node *x) {
    h->v[at] = x;
    x->at = at;
}

void heap_moved(struct heap *h, struct heap_node *x) {
    uint32_t at = x->at;
    CHECK(at < h->n && h->v[at] == x);
    for (; at > 0 && h->before(x, h->v[(at - 1) / 2]); at = (at - 1) / 2)
        put(h, at, h->v[(at - 1) / 2]);
    for (uint32_t child; (child = 2 * at + 1) < h->n; at = child) {
        if (child + 1 < h->n && h->before(h->v[child + 1], h->v[child]))
            child++;
        if (!h->before(h->v[child], x))
            break;
        put(h, at, h->v[child]);
    }
    put(h, at, x);
}

void heap_push(struct heap *h, struct heap_node *x) {
    if (h->n == h->cap) {
        h->cap = MAX(2 * h->cap, 8u);
        h->v = xreallocarray(h->v, h->cap, sizeof(struct heap_node *));
    }
    put(h, h->n++, x);
    heap_moved(h, x);
}

void heap_remove(struct heap *h, struct heap_node *x) {
    uint32_t at = x->at;
    CHECK(at < h->n && h->v[at] == x);
    struct heap_node *last = h->v[--h->n];
    if (last == x)
        return;
    put(h, at, last);
    heap_moved(h, last);
}
