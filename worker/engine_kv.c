/* engine_kv.c: snapshots of the prefix cache for routers, a piece a step, so that no step waits for them. */
#include <stdlib.h>

#include "worker/engine_impl.h"

void kv_walks_init(struct engine *e) {
    if (!e->opts.kv_events)
        return;
    e->kv_walks = xcalloc(e->opts.n_routers_max, sizeof *e->kv_walks);
    e->kv_names = xcalloc(ENGINE_KV_PIECE, sizeof *e->kv_names);
}

void kv_walks_fini(struct engine *e) {
    free(e->kv_walks);
    free(e->kv_names);
}

static void remove_walk(struct engine *e, uint32_t i) {
    memmove(e->kv_walks + i, e->kv_walks + i + 1, (--e->n_kv_walks - i) * sizeof *e->kv_walks);
}

void kv_walk_begin(struct engine *e, uint32_t router, uint32_t router_epoch) {
    if (!e->opts.kv_events)
        return;
    for (uint32_t i = 0; i < e->n_kv_walks; i++)
        if (e->kv_walks[i].router == router)
            remove_walk(e, i--);
    CHECK(e->n_kv_walks < e->opts.n_routers_max); /* one for each index */
    e->kv_walks[e->n_kv_walks++] = (struct kv_walk){.router = router, .router_epoch = router_epoch};
}

const struct kv_piece *kv_walk_step(struct engine *e) {
    if (e->n_kv_walks == 0)
        return NULL;
    struct kv_walk *w = &e->kv_walks[0];
    const struct kv_pool *pool = e->sched.pool;
    e->kv_piece = (struct kv_piece){
        .router = w->router, .router_epoch = w->router_epoch, .begins = w->at == 0, .names = e->kv_names};
    e->kv_piece.n_names = prefix_names(&e->sched.prefix, &w->at, e->kv_names, ENGINE_KV_PIECE);
    if (e->sched.prefix.n_groups == 0 || w->at == pool[0].n_blocks)
        remove_walk(e, 0);
    return &e->kv_piece;
}

void kv_walks_forget(struct engine *e, uint32_t router, uint32_t epoch) {
    for (uint32_t i = 0; i < e->n_kv_walks; i++)
        if (e->kv_walks[i].router == router && e->kv_walks[i].router_epoch < epoch)
            remove_walk(e, i--);
}
