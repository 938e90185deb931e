/* engine_out.c: what a step reports, and the statistics. */
#include <stdlib.h>

#include "common/clock.h"
#include "worker/engine_kvx.h"

const uint32_t engine_iter_bounds[ENGINE_ITER_BUCKETS - 1] = {1,   8,    16,   32,   64,   128,  256,
                                                              512, 1024, 2048, 4096, 8192, 16384};

struct token_out *out_event(struct engine *e, const struct seq *q) {
    if (e->n_events == e->n_events_max) {
        e->n_events_max *= 2;
        e->events = xreallocarray(e->events, e->n_events_max, sizeof *e->events);
        e->sorted = xreallocarray(e->sorted, e->n_events_max, sizeof *e->sorted);
    }
    struct token_out *t = &e->events[e->n_events++];
    *t = (struct token_out){.req = q->req, .stream = q->req->stream + q->sample, .sample = q->sample};
    t->token = SEQ_NO_TOKEN;
    t->index = q->n_out;
    return t;
}

void out_first(struct engine *e, struct token_out *t, struct seq *q, uint64_t now_ns) {
    struct req *r = q->req;
    if (r->prefilled_ns == 0) {
        r->prefilled_ns = now_ns;
        e->stats.prompt_tokens += r->n_prompt;
        e->stats.prompt_tokens_cached += r->n_cached;
    }
    if (q->first_sent)
        return;
    q->first_sent = true;
    struct first_out *f = &e->firsts[e->n_firsts++];
    *f = (struct first_out){.n_prompt = r->n_prompt, .n_cached = r->n_cached};
    f->queue_ns = r->admitted_ns > r->arrival_ns ? r->admitted_ns - r->arrival_ns : 0;
    f->transfer_ns = r->pull_ns;
    f->prefill_ns = now_ns > r->admitted_ns ? now_ns - r->admitted_ns : 0;
    if (r->prompt_logprobs && !r->prompt_reported) {
        CHECK(r->n_prompt_done == r->n_prompt);
        r->prompt_reported = true;
        f->prompt = r->prompt_logprobs;
        f->prompt_top_ids = r->prompt_top_ids;
        f->prompt_top_logprobs = r->prompt_top_logprobs;
        f->n_prompt_top = (uint32_t)r->n_prompt_logprobs;
    }
    t->first = f;
}

void out_forget(struct engine *e, uint32_t router, uint32_t epoch) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_events; i++) {
        const struct req *r = e->events[i].req;
        if (r->router != router || r->router_epoch >= epoch)
            e->events[n++] = e->events[i];
    }
    e->n_events = n;
}

/* sort_events: by router, in order of arising within one; returns how many routers there are. */
static uint32_t sort_events(struct engine *e) {
    uint32_t n = e->opts.n_routers_max, n_used = 0, at = 0;
    memset(e->router_counts, 0, n * sizeof *e->router_counts);
    for (uint32_t i = 0; i < e->n_events; i++)
        e->router_counts[e->events[i].req->router]++;
    for (uint32_t r = 0; r < n; r++) {
        uint32_t count = e->router_counts[r];
        e->router_counts[r] = at;
        if (count)
            e->routers[n_used++] =
                (struct router_out){.router = r, .n_tokens = count, .tokens = e->sorted + at};
        at += count;
    }
    for (uint32_t i = 0; i < e->n_events; i++)
        e->sorted[e->router_counts[e->events[i].req->router]++] = e->events[i];
    for (uint32_t i = 0; i < n_used; i++)
        e->routers[i].router_epoch = e->routers[i].tokens[0].req->router_epoch;
    return n_used;
}

static void free_ended(struct engine *e) {
    uint32_t n = 0;
    uint64_t n_wide = 0;
    struct req *all[] = {e->ended_before, e->flight.on ? NULL : e->ended};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (struct req *r = all[i], *next; r; r = next, n++) {
            next = r->next;
            n_wide += req_wide(r);
            req_free(r);
        }
    e->ended_before = e->flight.on ? e->ended : NULL; /* the step under way may name their sequences */
    e->ended = NULL;
    if (n == 0)
        return;
    pthread_mutex_lock(&e->inbox.lock);
    CHECK(e->inbox.n_live >= n && e->inbox.n_wide >= n_wide);
    e->inbox.n_live -= n;
    e->inbox.n_wide -= n_wide;
    pthread_mutex_unlock(&e->inbox.lock);
}

void out_flush(struct engine *e) {
    struct step_out out = {.step = e->stats.steps, .routers = e->routers, .kv_events = e->kv_events};
    if (e->opts.kv_events)
        out.n_kv_events =
            prefix_events_take(&e->sched.prefix, e->kv_events, ENGINE_KV_EVENTS, &out.first_kv_event);
    out.kv_piece = kv_walk_step(&e->kv_walks, &e->sched.prefix);
    if (e->n_events > 0 || out.n_kv_events > 0 || out.kv_piece) {
        out.n_routers = sort_events(e);
        e->opts.on_step(e->opts.arg, &out);
    }
    e->n_events = e->n_firsts = 0;
    free_ended(e);
}

void stats_iteration(struct engine_stats *s, uint32_t n_tokens) {
    uint32_t i = 0;
    while (i < ENGINE_ITER_BUCKETS - 1 && n_tokens > engine_iter_bounds[i])
        i++;
    s->iteration_tokens[i]++;
    s->iteration_tokens_sum += n_tokens;
}

void stats_mask(struct engine_stats *s, enum gram_kind kind, uint64_t ns) {
    static const uint64_t bound_ns[ENGINE_MASK_BUCKETS - 1] = {10000,     100000,     500000,    1000000,
                                                               5000000,   10000000,   50000000,  100000000,
                                                               500000000, 1000000000, 5000000000};
    uint32_t i = 0, k = (uint32_t)kind - GRAM_JSON_SCHEMA;
    while (i < ENGINE_MASK_BUCKETS - 1 && ns > bound_ns[i])
        i++;
    s->mask_times[k][i]++;
    s->mask_ns[k] += ns;
}

void stats_publish(struct engine *e, uint32_t step_tokens, uint64_t now_ns) {
    const struct sched *c = &e->sched;
    struct engine_stats *s = &e->stats;
    s->running = c->n_running;
    s->waiting = c->n_waiting + c->n_pending;
    for (const struct req *r = e->compiling; r; r = r->compile_next)
        s->waiting += r->n_live;
    s->kv_used_blocks = s->kv_total_blocks = s->queued_tokens = 0;
    for (uint32_t g = 0; g < c->opts.n_groups; g++) {
        s->kv_used_blocks += c->pool[g].n_used;
        s->kv_total_blocks += c->pool[g].n_blocks;
    }
    for (const struct kvx_pull *p = e->kvx ? e->kvx->pulls : NULL; p; p = p->next) /* for their blocks */
        s->waiting += p->req && p->req->pulling ? p->req->n_live : 0;
    kvx_stats_fill(e, &s->kvx);
    for (uint32_t i = 0; i < c->n_waiting; i++)
        s->queued_tokens += seq_known(c->waiting[i]);
    s->prefix_queries = c->prefix.n_query_tokens;
    s->prefix_hits = c->prefix.n_hit_tokens;
    s->preemptions = c->n_preemptions;
    s->step_done_ns = sched_idle(c) ? 0 : now_ns;
    s->step_tokens = step_tokens;
    s->failed = e->failed;
    pthread_mutex_lock(&e->stats_lock);
    e->stats_out = *s;
    pthread_mutex_unlock(&e->stats_lock);
}

void engine_stats_get(struct engine *e, struct engine_stats *out) {
    pthread_mutex_lock(&e->stats_lock);
    *out = e->stats_out;
    pthread_mutex_unlock(&e->stats_lock);
}
