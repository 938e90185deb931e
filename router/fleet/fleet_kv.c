/* What workers say of their prefix caches: the index, how it is fed, and how far it was right. */
#include <stdatomic.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "router/fleet/fleet_private.h"

enum { ASK_AGAIN_S = 2, SWEEP_STEPS = 32, SWEEP_ENTRIES = 4096, DRIFT_S = 60, DRIFT_TOKENS_MIN = 10000 };

void fleet_kv_init(struct fleet *f) {
    const struct router_opts *o = f->o.opts;
    f->policy.kind = policy_of(o->policy);
    CHECK(f->policy.kind < N_POLICY); /* the flag has these values only */
    rmetrics_policy(f->o.metrics, f->policy.kind);
    f->policy.rng = (uint64_t)o->seed;
    if (!o->has_seed)
        fill_random(&f->policy.rng, sizeof f->policy.rng);
    pthread_mutex_init(&f->index_lock, NULL);
    if (f->policy.kind != POLICY_PREFIX)
        return;
    uint64_t seed;
    fill_random(&seed, sizeof seed);
    f->index = index_new((size_t)o->prefix_index_mb * MIB, seed);
}

void fleet_kv_fini(struct fleet *f) {
    index_free(f->index);
    pthread_mutex_destroy(&f->index_lock);
}

/* ---- feeding ----------------------------------------------------------------------------------------- */

/* The slot of a feed changes under both locks, so that who holds one of them may read it. */
void fleet_kv_on_events(struct fleet *f, struct worker_state *s, struct link_conn *c,
                        const Weir__KvEvents *m) {
    if (!f->index)
        return;
    bool moves = m->snapshot || m->first_seq != s->feed.next_seq;
    if (moves)
        pthread_mutex_lock(&f->lock);
    pthread_mutex_lock(&f->index_lock);
    enum kv_feed_say say = kv_feed_take(&s->feed, f->index, m);
    pthread_mutex_unlock(&f->index_lock);
    if (moves)
        pthread_mutex_unlock(&f->lock);
    if (say == KV_FEED_BAD) {
        link_cut(c, "KvEvents that cannot be");
    } else if (say == KV_FEED_ASK) {
        LOG(LOG_INFO, "changes of a worker's prefix cache were lost", F_U64("engine", s->w.engine));
        s->kv_asked_ns = 0;
        fleet_kv_want(f, s);
    }
}

void fleet_kv_want(struct fleet *f, struct worker_state *s) {
    uint64_t now = clock_ns();
    if (!f->index || !s->prefix_caching || s->feed.slot != INDEX_NO_SLOT ||
        (s->kv_asked_ns && now - s->kv_asked_ns < ASK_AGAIN_S * NS_PER_S))
        return;
    Weir__KvSnapshotGet m = WEIR__KV_SNAPSHOT_GET__INIT;
    s->kv_asked_ns = now;
    if (link_send(s->w.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_KV_SNAPSHOT_GET, &m) == RC_AGAIN)
        link_cut(s->w.conn, "it does not read");
}

void fleet_kv_gone(struct fleet *f, struct worker_state *s) {
    if (!f->index)
        return;
    pthread_mutex_lock(&f->index_lock);
    kv_feed_gone(&s->feed, f->index);
    pthread_mutex_unlock(&f->index_lock);
}

void fleet_kv_sweep(struct fleet *f) {
    bool more = f->index != NULL;
    for (int i = 0; i < SWEEP_STEPS && more; i++) {
        pthread_mutex_lock(&f->index_lock);
        more = index_sweep(f->index, SWEEP_ENTRIES);
        pthread_mutex_unlock(&f->index_lock);
    }
}

/* ---- asking ------------------------------------------------------------------------------------------ */

bool fleet_kv_match(struct fleet *f, const struct fleet_ticket *t, uint32_t out[INDEX_SLOTS]) {
    if (!f->index || t->n_blocks == 0)
        return false;
    pthread_mutex_lock(&f->index_lock);
    index_match(f->index, t->blocks, t->n_blocks, out);
    pthread_mutex_unlock(&f->index_lock);
    return true;
}

/* ---- how far it was right ---------------------------------------------------------------------------- */

void fleet_cached(struct fleet *f, const struct worker *w, uint32_t n_predicted, uint32_t n_actual) {
    uint32_t off = n_predicted > n_actual ? n_predicted - n_actual : n_actual - n_predicted;
    metric_add(w->metrics.prefix_predicted, n_predicted);
    metric_add(w->metrics.prefix_actual, n_actual);
    if (off)
        metric_add(w->metrics.prefix_drift, off);
    atomic_fetch_add_explicit(&f->drift.predicted, n_predicted, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->drift.actual, n_actual, memory_order_relaxed);
    atomic_fetch_add_explicit(&f->drift.off, off, memory_order_relaxed);
}

void fleet_kv_tick(struct fleet *f) {
    uint64_t now = clock_ns();
    if (!f->index)
        return;
    pthread_mutex_lock(&f->index_lock);
    struct index_stats x = index_stats(f->index);
    pthread_mutex_unlock(&f->index_lock);
    rmetrics_index(f->o.metrics, x.n_entries, (double)x.n_evicted);
    if (now - f->drift.since_ns < DRIFT_S * NS_PER_S)
        return;
    f->drift.since_ns = now;
    uint64_t predicted = atomic_exchange(&f->drift.predicted, 0),
             actual = atomic_exchange(&f->drift.actual, 0);
    uint64_t off = atomic_exchange(&f->drift.off, 0);
    if (off >= DRIFT_TOKENS_MIN && off > MAX(predicted, actual) / 10)
        LOG(LOG_WARN, "cached tokens are not where they were expected", F_U64("predicted_tokens", predicted),
            F_U64("cached_tokens", actual), F_U64("off_tokens", off), F_U64("seconds", DRIFT_S));
}
