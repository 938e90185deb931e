#include "worker/prefix.h"

#include <stdlib.h>

#include "common/hash.h"

uint32_t kv_group_first(const struct kv_group *g, uint32_t pos) {
    if (g->kind != KV_WINDOW || pos < g->window)
        return 0;
    return (pos - g->window + 1) / KV_TOKENS;
}

static uint32_t bucket_of(const struct prefix *p, const struct prefix_table *t, struct id128 name) {
    return (uint32_t)hash_fast(name.b, sizeof name.b, p->seed) & (t->n_buckets - 1);
}

/* event: appends to the ring; when it is full the oldest is lost, which its number will tell. */
static void event(struct prefix *p, uint32_t group, enum prefix_event_kind kind, struct id128 name) {
    if (group != 0 || p->n_events_max == 0)
        return;
    if (p->n_events == p->n_events_max) {
        p->event_at = (p->event_at + 1) % p->n_events_max;
        p->first_event++;
        p->n_events--;
    }
    uint32_t i = (p->event_at + p->n_events++) % p->n_events_max;
    p->events[i] = (struct prefix_event){.kind = kind, .name = name};
}

static void table_remove(struct prefix *p, uint32_t group, uint32_t block) {
    struct prefix_table *t = &p->table[group];
    uint32_t *at = &t->head[bucket_of(p, t, t->name[block])];
    while (*at != block) {
        CHECK(*at != KV_NO_BLOCK);
        at = &t->next[*at];
    }
    *at = t->next[block];
    t->n_named--;
    event(p, group, PREFIX_REMOVED, t->name[block]);
}

static void on_evict(void *arg, uint32_t block) {
    const struct prefix_link *l = arg;
    table_remove(l->prefix, l->group, block);
}

void prefix_init(struct prefix *p, const struct kv_group *groups, uint32_t n_groups, struct kv_pool *pools,
                 uint64_t seed, uint32_t n_events_max) {
    CHECK(n_groups <= KV_GROUPS_MAX);
    *p = (struct prefix){.n_groups = n_groups, .pool = pools, .seed = seed, .n_events_max = n_events_max};
    for (uint32_t g = 0; g < n_groups; g++) {
        struct prefix_table *t = &p->table[g];
        uint32_t n = groups[g].n_blocks;
        CHECK(n == pools[g].n_blocks);
        p->group[g] = groups[g];
        for (t->n_buckets = 16; t->n_buckets < n; t->n_buckets *= 2)
            ;
        t->head = xmalloc(sizeof *t->head * t->n_buckets);
        memset(t->head, 0xff, sizeof *t->head * t->n_buckets); /* KV_NO_BLOCK */
        t->next = xcalloc(n, sizeof *t->next);
        t->name = xcalloc(n, sizeof *t->name);
        p->link[g] = (struct prefix_link){.prefix = p, .group = g};
        pools[g].on_evict = on_evict;
        pools[g].arg = &p->link[g];
    }
    if (n_events_max)
        p->events = xcalloc(n_events_max, sizeof *p->events);
}

void prefix_fini(struct prefix *p) {
    for (uint32_t g = 0; g < p->n_groups; g++) {
        free(p->table[g].head);
        free(p->table[g].next);
        free(p->table[g].name);
    }
    free(p->events);
    *p = (struct prefix){0};
}

uint32_t prefix_find(const struct prefix *p, uint32_t group, struct id128 name) {
    const struct prefix_table *t = &p->table[group];
    uint32_t b = t->head[bucket_of(p, t, name)];
    while (b != KV_NO_BLOCK && !id128_eq(t->name[b], name))
        b = t->next[b];
    return b;
}

uint32_t prefix_match(const struct prefix *p, const struct id128 *names, uint32_t n) {
    uint32_t best = 0, run[KV_GROUPS_MAX] = {0}; /* consecutive blocks found up to here */
    if (p->n_groups == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        bool good = true;
        for (uint32_t g = 0; g < p->n_groups; g++) {
            bool found = prefix_find(p, g, names[i]) != KV_NO_BLOCK;
            if (!found && p->group[g].kind == KV_FULL)
                return best;
            run[g] = found ? run[g] + 1 : 0;
            good = good && run[g] >= i + 1 - MIN(i + 1, kv_group_first(&p->group[g], (i + 1) * KV_TOKENS));
        }
        if (good)
            best = i + 1;
    }
    return best;
}

void prefix_name(struct prefix *p, uint32_t group, uint32_t block, struct id128 name) {
    struct prefix_table *t = &p->table[group];
    CHECK(p->pool[group].blocks[block].n_holds > 0);
    if (p->pool[group].blocks[block].named || prefix_find(p, group, name) != KV_NO_BLOCK)
        return;
    uint32_t *head = &t->head[bucket_of(p, t, name)];
    t->name[block] = name;
    t->next[block] = *head;
    *head = block;
    t->n_named++;
    kv_set_named(&p->pool[group], block, true);
    event(p, group, PREFIX_STORED, name);
}

void prefix_count(struct prefix *p, uint32_t n_tokens, uint32_t n_hits) {
    p->n_query_tokens += n_tokens;
    p->n_hit_tokens += n_hits;
}

void prefix_reset(struct prefix *p) {
    for (uint32_t g = 0; g < p->n_groups; g++) {
        struct prefix_table *t = &p->table[g];
        for (uint32_t b = 0; b < p->pool[g].n_blocks; b++)
            if (p->pool[g].blocks[b].named)
                kv_set_named(&p->pool[g], b, false);
        memset(t->head, 0xff, sizeof *t->head * t->n_buckets);
        t->n_named = 0;
    }
    /* What was kept is void now: a reader needs to know of the clearing only. */
    p->first_event += p->n_events;
    p->n_events = 0;
    event(p, 0, PREFIX_CLEARED, (struct id128){0});
}

uint32_t prefix_events_take(struct prefix *p, struct prefix_event *out, uint32_t n_max, uint64_t *first) {
    uint32_t n = MIN(n_max, p->n_events);
    *first = p->first_event;
    for (uint32_t i = 0; i < n; i++)
        out[i] = p->events[(p->event_at + i) % p->n_events_max];
    if (n) {
        p->event_at = (p->event_at + n) % p->n_events_max;
        p->n_events -= n;
        p->first_event += n;
    }
    return n;
}

uint32_t prefix_names(const struct prefix *p, uint32_t *at, struct id128 *out, uint32_t n_max) {
    uint32_t n_blocks = p->n_groups ? p->pool[0].n_blocks : 0, n = 0;
    uint32_t end = *at < n_blocks ? *at + MIN(n_max, n_blocks - *at) : n_blocks;
    for (uint32_t b = *at; b < end; b++)
        if (p->pool[0].blocks[b].named)
            out[n++] = p->table[0].name[b];
    *at = end;
    return n;
}

void prefix_check(const struct prefix *p) {
    for (uint32_t g = 0; g < p->n_groups; g++) {
        const struct prefix_table *t = &p->table[g];
        uint32_t n = 0, n_named = 0;
        for (uint32_t i = 0; i < t->n_buckets; i++)
            for (uint32_t b = t->head[i]; b != KV_NO_BLOCK; b = t->next[b]) {
                CHECK(p->pool[g].blocks[b].named && bucket_of(p, t, t->name[b]) == i);
                CHECK(prefix_find(p, g, t->name[b]) == b);
                CHECK(++n <= p->pool[g].n_blocks);
            }
        for (uint32_t b = 0; b < p->pool[g].n_blocks; b++)
            n_named += p->pool[g].blocks[b].named;
        CHECK(n == n_named && n == t->n_named);
    }
}
