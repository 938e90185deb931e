/* The choice among workers, and the lines of prompts that wait for one. */
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "router/fleet/fleet_private.h"

/* ---- choice ------------------------------------------------------------------------------------------ */

/* candidates: ready workers of a model. Those that have been silent for a second are a last resort, as is one
 * to be avoided. */
static size_t candidates(const struct fleet *f, const struct model_info *info, const struct fleet_ticket *t,
                         bool last, struct policy_worker *w, struct worker_state **of) {
    size_t n = 0;
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        struct worker_state *s = f->workers[i];
        if (!s || !worker_is_ready(s) || s->model->info != info || !fleet_decodes(f, s) ||
            (s->suspect || s->slow || &s->w == t->avoid) != last)
            continue;
        w[n] = (struct policy_worker){.load = &s->load, .id = s->id};
        of[n++] = s;
    }
    return n;
}

/* take: a worker with credit for the prompt, its credit taken and held; NULL: none. *any: some ready worker
 * serves the model. match: fleet_kv_match's; NULL: asked here, once it is of use. */
static struct worker *take(struct fleet *f, struct model_info *info, struct fleet_ticket *t,
                           const uint32_t *match, bool *any) {
    struct policy_worker w[FLEET_WORKERS_MAX];
    struct worker_state *of[FLEET_WORKERS_MAX];
    const struct policy_ask ask = {t->n_seqs, t->n_tokens, t->key, t->has_key};
    uint32_t own[INDEX_SLOTS];
    enum policy_reason why;
    *any = false;
    for (int last = 0; last < (t->strict ? 1 : 2); last++) {
        size_t n = candidates(f, info, t, last, w, of);
        bool fits = false;
        for (size_t i = 0; i < n && !fits; i++)
            fits = pick_fits(w[i].load, t->n_seqs, t->n_tokens);
        *any |= n > 0;
        if (!fits)
            continue;
        if (!match && fleet_kv_match(f, t, own))
            match = own;
        for (size_t i = 0; i < n && match; i++)
            if (of[i]->feed.slot != INDEX_NO_SLOT)
                w[i].n_cached = match[of[i]->feed.slot] * HASH_BLOCK_TOKENS;
        int i = policy_choose(&f->policy, w, n, &ask, &why);
        CHECK(i >= 0);
        struct worker_state *s = of[i];
        t->n_cached = w[i].n_cached;
        t->predicted = match && s->feed.slot != INDEX_NO_SLOT;
        s->load.n_seqs += t->n_seqs;
        s->load.n_tokens += t->n_tokens;
        s->load.n_cached += t->n_cached;
        rmetrics_decision(f->o.metrics, f->policy.kind, why);
        return worker_hold(&s->w);
    }
    return NULL;
}

/* held_back: its tenant has too much of the room already. */
static bool held_back(const struct fleet *f, const struct fleet_model *m, const struct fleet_ticket *t) {
    struct line_room room = {0, 0, 0, 0};
    if (!f->tenants)
        return false;
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        const struct worker_state *s = f->workers[i];
        if (!s || !worker_is_ready(s) || s->model != m || !fleet_decodes(f, s))
            continue;
        room.seqs += s->load.credit_seqs;
        room.seqs_taken += s->load.n_seqs;
        room.tokens += s->load.credit_tokens;
        room.tokens_taken += s->load.n_tokens;
    }
    return room.seqs && line_holds_back(&m->line, &t->line, t->n_seqs, t->n_tokens, &room);
}

/* dispatched: w is the ticket's, whether it waited or not: its credit was taken by `take`. */
static void dispatched(struct fleet_ticket *t, struct worker *w) {
    t->worker = w;
    const struct vtc_load load = {.n_seqs = t->n_seqs,
                                  .n_prompt = t->n_tokens,
                                  .n_in = t->n_tokens - t->n_cached,
                                  .out_max = t->n_out_max};
    line_open(&w->state->model->line, &t->line, &load, &t->bill);
}

/* ---- the lines --------------------------------------------------------------------------------------- */

static struct fleet_ticket *ticket_of(struct line_ticket *x) {
    return CONTAINER_OF(x, struct fleet_ticket, line);
}

/* answer: w NULL: nobody serves the model. */
static void answer(struct fleet *f, struct fleet_ticket *t, struct worker *w) {
    line_remove(&t->queue->line, &t->line);
    t->queue = NULL;
    if (w) {
        dispatched(t, w);
        metric_observe(w->metrics.queue_wait, (double)(clock_ns() - t->queued_ns) * 1e-9);
    }
    f->o.post(f->o.arg, t->loop, &t->msg);
}

void fleet_pump(struct fleet *f, struct fleet_model *m) {
    for (struct line_ticket *first; (first = line_next(&m->line)) != NULL;) {
        bool any;
        if (held_back(f, m, ticket_of(first)))
            return;
        struct worker *w = take(f, m->info, ticket_of(first), NULL, &any);
        if (!w && any)
            return;
        if (!w)
            break;
        answer(f, ticket_of(first), w);
    }
    /* Nobody serves the model: who does not wait for that is told. */
    uint64_t now = m->line.first ? clock_ns() : 0;
    for (struct line_ticket *t = m->line.first, *next; t; t = next) {
        next = t->next;
        if (ticket_of(t)->until_ns <= now)
            answer(f, ticket_of(t), NULL);
    }
}

/* at_workers: what this router has at workers: in all, and of that beyond the sequences that run there. */
static uint64_t at_workers(const struct fleet *f, uint64_t *n_beyond) {
    uint64_t n = 0;
    *n_beyond = 0;
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        const struct worker_state *s = f->workers[i];
        n += s ? s->load.n_seqs : 0;
        if (s && s->max_seqs && s->load.n_seqs > s->max_seqs)
            *n_beyond += s->load.n_seqs - s->max_seqs;
    }
    return n;
}

/* n_waiting: in the lines here, and at workers. */
static uint64_t n_waiting(const struct fleet *f) {
    uint64_t n;
    (void)at_workers(f, &n);
    for (unsigned i = 0; i < f->n_models; i++)
        n += f->models[i]->line.n;
    return n;
}

/* why_refused: whether a tenant's request may not wait. */
static enum refusal why_refused(const struct fleet *f, struct id128 tenant, uint64_t n_tokens) {
    const struct router_opts *o = f->o.opts;
    const struct refuse_limits limits = {.requests = (uint64_t)o->limit.queued_requests,
                                         .tokens = (uint64_t)o->limit.queued_tokens,
                                         .wait_s = o->max_queue_wait_s,
                                         .tenants = f->tenants};
    struct refuse_now now = {.done_per_s = f->done_per_s};
    uint64_t n_at = at_workers(f, &now.n), n_own = 0;
    const double beyond = n_at ? (double)now.n / (double)n_at : 0;
    for (unsigned i = 0; i < f->n_models; i++) {
        const struct line *l = &f->models[i]->line;
        const struct line_has has = line_of(l, tenant);
        now.own += has.n;
        now.own_tokens += has.n_tokens;
        now.n += l->n;
        now.n_tokens += l->n_tokens;
        now.n_tenants += l->order.n;
        n_own += has.n_seqs;
    }
    now.own += (uint64_t)((double)n_own * beyond); /* of those at workers each tenant's part waits alike */
    return refuse_why(&limits, &now, n_tokens);
}

/* runs_at_once: some worker has room for the sequences, so that they need not wait there. info NULL: of any
 * model. */
static bool runs_at_once(const struct fleet *f, const struct model_info *info, uint32_t n_seqs) {
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        const struct worker_state *s = f->workers[i];
        if (!s || !worker_is_ready(s) || (info && s->model->info != info) || (!info && s->model->line.n) ||
            !fleet_decodes(f, s))
            continue;
        if (s->max_seqs == 0 || s->load.n_seqs == 0 || (uint64_t)s->load.n_seqs + n_seqs <= s->max_seqs)
            return true;
    }
    return false;
}

void fleet_set_tenants(struct fleet *f, bool on) {
    pthread_mutex_lock(&f->lock);
    f->tenants = on;
    pthread_mutex_unlock(&f->lock);
}

enum refusal fleet_refuses(struct fleet *f, struct id128 tenant) {
    pthread_mutex_lock(&f->lock);
    enum refusal why = runs_at_once(f, NULL, 1) ? REFUSE_NOT : why_refused(f, tenant, 1);
    pthread_mutex_unlock(&f->lock);
    return why;
}

enum rc fleet_acquire(struct fleet *f, struct fleet_ticket *t, bool begun) {
    enum rc rc = RC_OK;
    bool any = false;
    const uint64_t now = clock_ns();
    uint32_t match[INDEX_SLOTS];
    const bool known = fleet_kv_match(f, t, match);
    t->worker = NULL;
    t->queue = NULL;
    pthread_mutex_lock(&f->lock);
    struct fleet_model *m = NULL;
    for (unsigned i = 0; i < f->n_models && !m; i++) {
        if (f->models[i]->info == t->model)
            m = f->models[i];
    }
    CHECK(m); /* models are never removed */
    t->refused = begun ? REFUSE_NOT : why_refused(f, t->line.tenant, t->line.n_tokens);
    if (t->line.again ||
        (!m->line.n && (!t->refused || runs_at_once(f, t->model, t->n_seqs)) && !held_back(f, m, t)))
        t->worker = take(f, t->model, t, known ? match : NULL, &any);
    else
        any = fleet_serves(f, t->model);
    if (t->worker) {
        dispatched(t, t->worker);
        metric_observe(t->worker->metrics.queue_wait, 0);
    } else if (!any && t->until_ns <= now) {
        rc = RC_UNAVAILABLE;
    } else if (t->refused) {
        rc = RC_OVERLOAD;
    } else {
        t->queued_ns = now;
        t->queue = m;
        line_add(&m->line, &t->line);
        rc = RC_AGAIN;
        if (m->line.n > 1 && line_next(&m->line) == &t->line)
            fleet_pump(f, m); /* there may be room for this one, of a tenant who has little of it */
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

bool fleet_acquire_other(struct fleet *f, struct fleet_ticket *t) {
    uint32_t match[INDEX_SLOTS];
    bool any, known = fleet_kv_match(f, t, match);
    t->strict = true;
    t->queue = NULL;
    pthread_mutex_lock(&f->lock);
    t->worker = take(f, t->model, t, known ? match : NULL, &any);
    if (t->worker)
        dispatched(t, t->worker);
    pthread_mutex_unlock(&f->lock);
    t->strict = false;
    return t->worker != NULL;
}

bool fleet_cancel(struct fleet *f, struct fleet_ticket *t) {
    pthread_mutex_lock(&f->lock);
    struct fleet_model *m = t->queue;
    if (m) {
        line_remove(&m->line, &t->line);
        t->queue = NULL;
        fleet_pump(f, m); /* a large prompt at the head may have held up smaller ones */
    }
    pthread_mutex_unlock(&f->lock);
    return m != NULL;
}

/* ---- what becomes of it ------------------------------------------------------------------------------- */

static void release(struct fleet *f, struct worker *w, uint32_t n_seqs, uint32_t n_tokens,
                    uint32_t n_cached) {
    struct worker_state *s = w->state;
    CHECK(s->load.n_seqs >= n_seqs && s->load.n_tokens >= n_tokens && s->load.n_cached >= n_cached);
    s->load.n_seqs -= n_seqs;
    s->load.n_tokens -= n_tokens;
    s->load.n_cached -= n_cached;
    if (s->up && s->model)
        fleet_pump(f, s->model);
}

void fleet_release(struct fleet *f, struct worker *w, uint32_t n_seqs, uint32_t n_tokens, uint32_t n_cached) {
    pthread_mutex_lock(&f->lock);
    release(f, w, n_seqs, n_tokens, n_cached);
    pthread_mutex_unlock(&f->lock);
}

void fleet_give_back(struct fleet *f, struct worker *w, struct fleet_ticket *t) {
    pthread_mutex_lock(&f->lock);
    line_end(&w->state->model->line, &t->bill, true);
    release(f, w, t->n_seqs, t->n_tokens, t->n_cached);
    pthread_mutex_unlock(&f->lock);
}

void fleet_bill_prompt(struct fleet *f, struct worker *w, struct vtc_bill *bill, uint32_t n_computed) {
    pthread_mutex_lock(&f->lock);
    line_prompt(&w->state->model->line, bill, n_computed);
    pthread_mutex_unlock(&f->lock);
}

void fleet_bill_said(struct fleet *f, struct worker *w, struct vtc_bill *bill, uint32_t n) {
    pthread_mutex_lock(&f->lock);
    line_said(&w->state->model->line, bill, n);
    pthread_mutex_unlock(&f->lock);
}

void fleet_bill_end(struct fleet *f, struct worker *w, struct vtc_bill *bill, uint32_t n, bool lost) {
    struct line *l = &w->state->model->line;
    if (!bill->tenant)
        return;
    pthread_mutex_lock(&f->lock);
    line_said(l, bill, n);
    line_end(l, bill, lost);
    pthread_mutex_unlock(&f->lock);
}

void fleet_done(struct fleet *f) {
    pthread_mutex_lock(&f->lock);
    f->n_done++;
    pthread_mutex_unlock(&f->lock);
}

unsigned fleet_retry_after_s(struct fleet *f) {
    pthread_mutex_lock(&f->lock);
    unsigned s = refuse_retry_s(n_waiting(f), f->done_per_s);
    pthread_mutex_unlock(&f->lock);
    return s;
}
