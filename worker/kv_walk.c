#include "worker/kv_walk.h"

#include <stdlib.h>

void kv_walks_init(struct kv_walks *w, uint32_t n_routers) {
    *w = (struct kv_walks){.n_max = n_routers};
    w->v = xcalloc(n_routers, sizeof *w->v);
    w->names = xcalloc(KV_PIECE_BLOCKS, sizeof *w->names);
}

void kv_walks_fini(struct kv_walks *w) {
    free(w->v);
    free(w->names);
    *w = (struct kv_walks){0};
}

static void remove_walk(struct kv_walks *w, uint32_t i) {
    memmove(w->v + i, w->v + i + 1, (--w->n - i) * sizeof *w->v);
}

void kv_walk_begin(struct kv_walks *w, uint32_t router, uint32_t router_epoch) {
    for (uint32_t i = 0; i < w->n; i++)
        if (w->v[i].router == router)
            remove_walk(w, i--);
    CHECK(w->n < w->n_max); /* one for each index */
    w->v[w->n++] = (struct kv_walk){.router = router, .router_epoch = router_epoch};
}

const struct kv_piece *kv_walk_step(struct kv_walks *w, const struct prefix *p) {
    if (w->n == 0)
        return NULL;
    struct kv_walk *v = &w->v[0];
    w->piece = (struct kv_piece){
        .router = v->router, .router_epoch = v->router_epoch, .begins = v->at == 0, .names = w->names};
    w->piece.n_names = prefix_names(p, &v->at, w->names, KV_PIECE_BLOCKS);
    if (p->n_groups == 0 || v->at == p->pool[0].n_blocks)
        remove_walk(w, 0);
    return &w->piece;
}

void kv_walks_forget(struct kv_walks *w, uint32_t router, uint32_t epoch) {
    for (uint32_t i = 0; i < w->n; i++)
        if (w->v[i].router == router && w->v[i].router_epoch < epoch)
            remove_walk(w, i--);
}
