#include "worker/mock_cache.h"

#include <stdlib.h>

#include "common/hash.h"

enum { EVENTS = 65536, REPORT_EVENTS = 8192 };

/* hold: the blocks of a request that was admitted. */
struct hold {
    const struct req *req;
    uint32_t n;
    uint32_t *blocks;
};
struct mock_cache {
    struct kv_pool pool;
    struct kv_group group;
    struct prefix prefix;
    struct kv_walks walks;
    struct hold *holds; /* [n_holds] */
    size_t n_holds, cap;
    struct prefix_event *events; /* [REPORT_EVENTS] */
};

struct mock_cache *mock_cache_new(uint32_t n_blocks, uint32_t n_routers) {
    struct mock_cache *c = xcalloc(1, sizeof *c);
    uint64_t seed;
    fill_random(&seed, sizeof seed);
    c->group = (struct kv_group){.kind = KV_FULL, .n_blocks = n_blocks};
    kv_init(&c->pool, n_blocks, NULL, NULL);
    prefix_init(&c->prefix, &c->group, 1, &c->pool, seed, EVENTS);
    kv_walks_init(&c->walks, n_routers);
    c->events = xcalloc(REPORT_EVENTS, sizeof *c->events);
    return c;
}

void mock_cache_free(struct mock_cache *c) {
    if (!c)
        return;
    for (size_t i = 0; i < c->n_holds; i++)
        free(c->holds[i].blocks);
    free(c->holds);
    free(c->events);
    kv_walks_fini(&c->walks);
    prefix_fini(&c->prefix);
    kv_fini(&c->pool);
    free(c);
}

uint32_t mock_cache_admit(struct mock_cache *c, const struct req *r) {
    uint32_t n = (r->n_prompt + KV_TOKENS - 1) / KV_TOKENS, n_full = r->n_prompt / KV_TOKENS, n_hits, i = 0;
    struct id128 *names = xcalloc(n_full + 1, sizeof *names), domain, parent = {{0}};
    struct hold h = {.req = r, .blocks = xcalloc(n, sizeof *h.blocks)};
    memcpy(domain.b, r->domain, sizeof domain.b);
    for (uint32_t k = 0; k < n_full; k++)
        parent = names[k] = hash_block(parent, domain, r->prompt + (size_t)k * KV_TOKENS, NULL);
    /* The last token is always computed. */
    n_hits = r->cache_read ? prefix_match(&c->prefix, names, (r->n_prompt - 1) / KV_TOKENS) : 0;
    for (; i < n_hits; i++)
        kv_hold(&c->pool, h.blocks[i] = prefix_find(&c->prefix, 0, names[i]));
    for (; i < n; i++) {
        if ((h.blocks[i] = kv_take(&c->pool)) == KV_NO_BLOCK)
            break;
        if (i < n_full)
            prefix_name(&c->prefix, 0, h.blocks[i], names[i]);
    }
    h.n = i;
    free(names);
    if (c->n_holds == c->cap) {
        c->cap = MAX(2 * c->cap, 64);
        c->holds = xreallocarray(c->holds, c->cap, sizeof *c->holds);
    }
    c->holds[c->n_holds++] = h;
    return n_hits * KV_TOKENS;
}

void mock_cache_drop(struct mock_cache *c, const struct req *r) {
    size_t k = 0;
    while (k < c->n_holds && c->holds[k].req != r)
        k++;
    if (k == c->n_holds)
        return;
    struct hold h = c->holds[k];
    c->holds[k] = c->holds[--c->n_holds];
    for (uint32_t i = h.n; i > 0; i--) /* the tail of a prefix is to go first */
        kv_drop(&c->pool, h.blocks[i - 1]);
    free(h.blocks);
}

void mock_cache_reset(struct mock_cache *c) {
    prefix_reset(&c->prefix);
}

uint32_t mock_cache_used(const struct mock_cache *c) {
    return c->pool.n_used;
}

void mock_cache_snapshot(struct mock_cache *c, uint32_t router, uint32_t epoch) {
    kv_walk_begin(&c->walks, router, epoch);
}

void mock_cache_forget(struct mock_cache *c, uint32_t router, uint32_t epoch) {
    kv_walks_forget(&c->walks, router, epoch + 1);
}

bool mock_cache_report(struct mock_cache *c, struct step_out *out) {
    out->n_kv_events = prefix_events_take(&c->prefix, c->events, REPORT_EVENTS, &out->first_kv_event);
    out->kv_events = c->events;
    /* A snapshot begins behind the events that were kept, all of which are told before it. */
    out->kv_piece = c->prefix.n_events == 0 ? kv_walk_step(&c->walks, &c->prefix) : NULL;
    return out->n_kv_events > 0 || out->kv_piece;
}
