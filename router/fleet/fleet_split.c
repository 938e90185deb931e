/* Prefill on one worker and decode on another: who computes a prompt, and what that has cost so far. */
#include "common/clock.h"
#include "common/hash.h"
#include "router/fleet/fleet_private.h"

bool fleet_decodes(const struct fleet *f, const struct worker_state *s) {
    bool decodes = s->w.role != WORKER_PREFILL;
    /* One that only prefills decodes if nobody else is left. */
    for (unsigned i = 0; i < f->n_workers_end && !decodes; i++) {
        const struct worker_state *o = f->workers[i];
        if (o && worker_is_ready(o) && o->model == s->model && o->w.role != WORKER_PREFILL)
            return false;
    }
    return true;
}

/* may_prefill: it can compute the prompt for d. */
static bool may_prefill(const struct worker_state *s, const struct worker_state *d, const struct fleet_ticket *t) {
    return s != d && worker_is_ready(s) && s->model == d->model && !s->suspect && !s->slow && &s->w != t->avoid &&
           s->w.role != WORKER_DECODE && s->n_splits < SPLIT_MAX && s->w.kv_engine[0] && s->w.kv_port &&
           pick_fits(&s->load, 1, t->n_tokens);
}

static struct split_side side_of(const struct worker_state *s, uint32_t n_compute, uint64_t queued, uint64_t now_ns) {
    return (struct split_side){
        .role = s->w.role, .n_compute = n_compute, .queued_tokens = queued, .token = split_at(s->prefill_rate, now_ns)};
}

struct worker *fleet_split(struct fleet *f, struct fleet_ticket *t, struct worker *decode, uint32_t *n_cached) {
    struct worker_state *d = decode->state, *best = NULL;
    const uint32_t n_min = (uint32_t)f->o.opts->remote_prefill_min_tokens;
    uint32_t match[INDEX_SLOTS], best_cached = 0;
    struct split_side best_side = {0};
    if (!decode->kv_pulls || n_min == 0 || t->n_tokens - t->n_cached < n_min || t->n_tokens <= HASH_BLOCK_TOKENS)
        return NULL;
    const bool known = fleet_kv_match(f, t, match);
    const uint64_t now_ns = clock_ns();
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && d->n_splits < SPLIT_MAX; i++) {
        struct worker_state *s = f->workers[i];
        if (!s || !may_prefill(s, d, t))
            continue;
        uint32_t cached = known && s->feed.slot != INDEX_NO_SLOT ? match[s->feed.slot] * HASH_BLOCK_TOKENS : 0;
        cached = MIN(cached, t->n_tokens);
        struct split_side side = side_of(s, t->n_tokens - cached, pick_cost(&s->load), now_ns);
        const bool both = best && side.token.us > 0 && best_side.token.us > 0;
        if (best && split_cost(&side, both) >= split_cost(&best_side, both))
            continue;
        best = s;
        best_side = side;
        best_cached = cached;
    }
    /* The ticket's own part of what is queued at the decoding side is no queue to it. */
    const uint32_t own = t->n_tokens - t->n_cached;
    const uint64_t queued = pick_cost(&d->load), its = own + (uint64_t)t->n_seqs * PICK_SEQ_TOKENS;
    const struct split_side here = side_of(d, own, queued - MIN(queued, its), now_ns);
    if (best && !split_pays(&here, &best_side, split_at(f->split_tail, now_ns), n_min))
        best = NULL;
    if (best) {
        best->n_splits++;
        d->n_splits++;
        best->load.n_seqs++;
        best->load.n_tokens += t->n_tokens;
        best->load.n_cached += best_cached;
        *n_cached = best_cached;
        /* What is computed there is not queued here. */
        d->load.n_cached += own;
        t->n_cached += own;
        t->predicted = false;
        worker_hold(&best->w);
    }
    pthread_mutex_unlock(&f->lock);
    return best ? &best->w : NULL;
}

void fleet_split_end(struct fleet *f, struct worker *decode, struct worker *prefill) {
    pthread_mutex_lock(&f->lock);
    CHECK(decode->state->n_splits > 0 && prefill->state->n_splits > 0);
    decode->state->n_splits--;
    prefill->state->n_splits--;
    pthread_mutex_unlock(&f->lock);
}

void fleet_prefilled(struct fleet *f, struct worker *w, uint32_t n_computed, uint32_t us) {
    if (n_computed < SPLIT_SAMPLE_TOKENS)
        return;
    pthread_mutex_lock(&f->lock);
    split_learn(&w->state->prefill_rate, n_computed, us, clock_ns());
    pthread_mutex_unlock(&f->lock);
}

void fleet_transferred(struct fleet *f, uint64_t ns) {
    pthread_mutex_lock(&f->lock);
    split_learn(&f->split_tail, 1, (double)ns / NS_PER_US, clock_ns());
    pthread_mutex_unlock(&f->lock);
}

void fleet_end_transfer(struct fleet *f, const struct kv_params *p) {
    struct link_conn *c = NULL;
    Weir__Control m = WEIR__CONTROL__INIT;
    Weir__KvTransfer kv;
    if (!p->pull || !p->has_transfer || !p->engine || !p->host || !p->port)
        return;
    const bool known = fleet_kv_known(f, p->host, p->port);
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && !c; i++) {
        const struct worker_state *s = f->workers[i];
        if (s && s->up && !s->suspect && s->w.kv_pulls)
            c = link_hold(s->w.conn);
    }
    pthread_mutex_unlock(&f->lock);
    if (!c)
        return;
    kv_params_fill(p, &kv);
    kv.has_known = true;
    kv.known = known;
    kv.n_remote_blocks = 0; /* the capability is enough */
    m.has_kind = true;
    m.kind = WEIR__CONTROL__KIND__END_TRANSFER;
    m.kv_transfer = &kv;
    (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &m); /* if it is lost the lease ends by its time */
    link_drop(c);
}
