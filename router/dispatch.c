/* Prompts to workers: choosing, waiting, submitting, giving credit back, trying again. */
#include <stdio.h>
#include <stdlib.h>

#include "router/session_private.h"

/* ---- a leg ------------------------------------------------------------------------------------------- */

void leg_prefilled(struct leg *g) {
    if (g->credit_tokens == 0)
        return;
    fleet_release(g->s->loop->router->fleet, g->worker, 0, g->credit_tokens, g->n_cached);
    g->credit_tokens = 0;
}

/* bill_end: before credit is given back, so that who comes next is chosen with it in mind. */
static void bill_end(struct leg *g, bool lost) {
    admit_output(&g->s->who, g->n_unbilled);
    fleet_bill_end(g->s->loop->router->fleet, g->worker, &g->bill, g->n_unbilled, lost);
    g->n_unbilled = 0;
}

void leg_prompt_done(struct leg *g, uint32_t n_cached) {
    uint32_t n = leg_tokens(g);
    if (!g->bill.in_known)
        fleet_bill_prompt(g->s->loop->router->fleet, g->worker, &g->bill, n - MIN(n, n_cached));
}

void leg_bill(struct leg *g) {
    admit_output(&g->s->who, g->n_unbilled);
    fleet_bill_said(g->s->loop->router->fleet, g->worker, &g->bill, g->n_unbilled);
    g->n_unbilled = 0;
}

void leg_tell_abort(struct leg *g, bool whole, uint32_t k) {
    Weir__Abort m = WEIR__ABORT__INIT;
    m.has_request_id = m.has_whole = m.has_stream = true;
    m.request_id = (ProtobufCBinaryData){sizeof g->id.b, g->id.b};
    m.whole = whole;
    m.stream = g->handle + k;
    /* A full queue to a worker means that it does not read: cut, it frees everything of ours. */
    if (link_send(g->worker->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &m) == RC_AGAIN)
        link_cut(g->worker->conn, "it does not read its aborts");
}

void leg_close(struct leg *g, bool abort) {
    struct loop *l = g->s->loop;
    CHECK(g->state == LEG_SUBMITTED);
    if (abort)
        leg_tell_abort(g, true, 0);
    prefill_end(g);
    bill_end(g, false);
    fleet_release(l->router->fleet, g->worker, g->n_live, g->credit_tokens, g->credit_tokens ? g->n_cached : 0);
    g->n_live = g->credit_tokens = 0;
    slots_del(&l->slots, g->handle);
    worker_drop(g->worker);
    g->worker = NULL;
    g->state = LEG_OVER;
}

void leg_choice_over(struct leg *g, uint32_t k) {
    CHECK(!g->choices[k].finished && g->n_live > 0);
    g->choices[k].finished = true;
    choice_forget(&g->choices[k]);
    if (g->n_live == 1) {
        leg_close(g, false);
    } else {
        g->n_live--;
        fleet_release(g->s->loop->router->fleet, g->worker, 1, 0, 0);
    }
}

void leg_cut(struct leg *g, uint32_t k) {
    leg_tell_abort(g, g->n_live == 1, k);
    leg_choice_over(g, k);
}

/* fill_tag: whose it is, so that the worker is fair to those of several routers. */
void leg_fill_tag(struct session *s, Weir__Submit *m) {
    static const struct id128 none;
    m->has_fair_tag = !id128_eq(s->who.tenant, none);
    if (m->has_fair_tag)
        m->fair_tag = (ProtobufCBinaryData){sizeof s->who.tenant.b, s->who.tenant.b};
}

/* fill_kv: what the client says of KV transfers, to a worker that knows of them. */
static void fill_kv(const struct leg *g, const struct worker *w, struct gen_submit *out) {
    const struct kv_params *p = &g->s->req->kv;
    if (g->prompt != 0 || !(p->offer || p->pull) || !w->kv_engine[0])
        return;
    kv_params_fill(p, &out->kv);
    out->kv.has_known = p->pull;
    out->kv.known = p->pull && p->host && fleet_kv_known(g->s->loop->router->fleet, p->host, p->port);
    out->m.kv_transfer = &out->kv;
}

/* send_submit: RC_CLOSED, RC_AGAIN: as link_queue. RC_OVERLOAD: no handle is left. */
static enum rc send_submit(struct leg *g, struct worker *w) {
    struct loop *l = g->s->loop;
    struct gen_submit scratch;
    g->handle = slots_put(&l->slots, g);
    if (!g->handle)
        return RC_OVERLOAD;
    gen_submit(g->s->req, g->prompt, &scratch);
    scratch.m.has_request_id = true;
    scratch.m.request_id = (ProtobufCBinaryData){sizeof g->id.b, g->id.b};
    scratch.m.has_stream = true;
    scratch.m.stream = g->handle;
    scratch.m.priority = g->s->priority;
    leg_fill_tag(g->s, &scratch.m);
    if (!prefill_begin(g, w, &scratch))
        fill_kv(g, w, &scratch);
    void *resume = replay_fill(g, &scratch);
    enum rc rc = link_queue(w->conn, LINK_DATA, WEIR__ENVELOPE__BODY_SUBMIT, &scratch.m);
    free(resume);
    if (rc != RC_OK) {
        prefill_end(g);
        slots_del(&l->slots, g->handle);
    } else {
        loop_push_later(l, w->conn);
    }
    return rc;
}

/* drop_finished: a worker runs every sample of a Submit; those that have ended are not to be run again. Of a
 * beam search the whole is run again, whose samples hang together. */
static void drop_finished(struct leg *g) {
    for (uint32_t k = 0; k < g->s->req->n_samples && !g->s->req->beams; k++) {
        if (g->choices[k].finished)
            leg_tell_abort(g, false, k);
    }
}

/* submit: with the credit that the session's ticket has taken of w. If it cannot be, the credit is given
 * back, and the leg is still new; RC_CLOSED: w will not be offered again. */
static enum rc submit(struct leg *g, struct worker *w) {
    struct session *s = g->s;
    struct fleet *f = s->loop->router->fleet;
    fill_random(g->id.b, sizeof g->id.b);
    enum rc rc = send_submit(g, w);
    if (rc != RC_OK) {
        if (rc == RC_AGAIN)
            link_cut(w->conn, "it does not read its requests");
        if (rc == RC_AGAIN || rc == RC_CLOSED)
            fleet_unusable(f, w);
        fleet_give_back(f, w, &s->ticket);
        worker_drop(w);
        return rc == RC_AGAIN ? RC_CLOSED : rc;
    }
    g->state = LEG_SUBMITTED;
    g->worker = w;
    s->kv_given |= g->prompt == 0 && w->kv_pulls;
    g->avoid = w;
    g->n_live = s->ticket.n_seqs;
    g->credit_tokens = s->ticket.n_tokens;
    g->n_cached = s->ticket.n_cached;
    g->predicted = s->ticket.predicted && !g->touched; /* what a lost worker's tokens add is not in it */
    g->bill = s->ticket.bill;
    s->ticket.bill = (struct vtc_bill){0};
    s->n_new--;
    if (g->n_live < s->req->n_samples)
        drop_finished(g);
    if (!s->metrics) {
        s->metrics_worker = worker_hold(w);
        s->metrics = &w->metrics;
    }
    return RC_OK;
}

/* ---- the request's legs, one after the other --------------------------------------------------------- */

static void fail_unavailable(struct session *s) {
    struct err e;
    rmetrics_reject(s->loop->router->metrics, REJECT_NO_WORKER, 503);
    if (s->ticket_leg->n_replays)
        err_set(&e, RC_UNAVAILABLE, NULL, "The worker that served the request was lost, and no other is there");
    else
        session_unavailable(s->loop->router, &e);
    session_fail(s, &e, RETRY_AFTER_LOADING_S);
}

static void fail_full(struct session *s, enum refusal why) {
    struct router *r = s->loop->router;
    struct err e;
    session_refused(r, why, &e);
    session_fail(s, &e, fleet_retry_after_s(r->fleet));
}

/* submitted: false: the session is over. If the worker has just gone the leg is still new, and has its next
 * try: with another one, since that one will not be offered again. */
static bool submitted(struct session *s, struct leg *g, struct worker *w) {
    if (submit(g, w) != RC_OVERLOAD)
        return true;
    fail_full(s, REFUSE_REQUESTS);
    return false;
}

/* fill_place: where the leg stands if it must wait. What it had a worker for once is not to wait again. */
static void fill_place(const struct session *s, const struct leg *g, struct line_ticket *t) {
    uint64_t n = leg_tokens(g);
    for (uint32_t i = 0; i < s->n_legs && !s->metrics; i++) /* a request waits as a whole */
        n += &s->legs[i] != g ? s->req->prompts[i].n_ids : 0;
    t->tenant = s->who.tenant;
    t->priority = s->priority;
    t->again = g->n_replays || g->n_refusals || g->n_hedges;
    t->arrival_ns = s->begin_ns;
    t->n_tokens = (uint32_t)MIN(n, UINT32_MAX);
}

/* fill_ticket: what the fleet is asked for a leg. */
static void fill_ticket(struct leg *g) {
    struct session *s = g->s;
    const double wait_s = s->loop->router->opts->model_wait_s;
    s->ticket_leg = g;
    s->ticket.model = s->req->model;
    s->ticket.n_seqs = leg_seqs(g);
    s->ticket.n_tokens = leg_tokens(g);
    s->ticket.n_out_max = s->req->prompts[g->prompt].max_tokens;
    fill_place(s, g, &s->ticket.line);
    s->ticket.blocks = s->req->prompts[g->prompt].blocks;
    s->ticket.n_blocks = s->req->prompts[g->prompt].n_blocks;
    s->ticket.has_key = s->has_key || s->req->session_key;
    s->ticket.key = s->has_key ? s->key : s->req->session_key;
    s->ticket.avoid = g->avoid;
    s->ticket.until_ns = g->n_replays ? g->until_ns : s->begin_ns + (uint64_t)(wait_s * (double)NS_PER_S);
}

/* next_leg: submits one leg or asks for a worker. True: there is more to do at once. The session may be over
 * afterwards. */
static bool next_leg(struct session *s) {
    struct leg *g = s->legs;
    while (g->state != LEG_NEW)
        g++;
    fill_ticket(g);
    switch (fleet_acquire(s->loop->router->fleet, &s->ticket, s->metrics != NULL)) {
    case RC_OK:
        return submitted(s, g, s->ticket.worker) && s->n_new > 0;
    case RC_AGAIN:
        s->ticket_out = true;
        return false;
    case RC_OVERLOAD:
        fail_full(s, s->ticket.refused);
        return false;
    default:
        fail_unavailable(s);
        return false;
    }
}

static bool work_step(struct loop *l, struct loop_msg *m) {
    struct session *s = CONTAINER_OF(m, struct session, work);
    (void)l;
    if (!s->over && !s->ticket_out && s->n_new > 0 && next_leg(s))
        return false;
    s->work_queued = false;
    session_maybe_free(s);
    return true;
}

static void go_on(struct session *s) {
    if (s->work_queued || s->ticket_out || s->n_new == 0)
        return;
    s->work_queued = true;
    loop_queue(s->loop, &s->work);
}

/* on_ticket: the line's answer. */
static bool on_ticket(struct loop *l, struct loop_msg *m) {
    struct session *s = CONTAINER_OF(m, struct session, ticket.msg);
    struct worker *w = s->ticket.worker;
    s->ticket_out = false;
    if (s->over) {
        if (w) {
            fleet_give_back(l->router->fleet, w, &s->ticket);
            worker_drop(w);
        }
        session_maybe_free(s);
        return true;
    }
    if (!w) {
        fail_unavailable(s);
        return true;
    }
    s->wait_us = MAX(s->wait_us, (clock_ns() - s->ticket.queued_ns) / NS_PER_US);
    if (submitted(s, s->ticket_leg, w))
        go_on(s);
    return true;
}

void dispatch_start(struct session *s) {
    const struct gen_req *r = s->req;
    CHECK(r->n_samples >= 1 && r->n_samples <= HANDLE_SAMPLES_MAX && r->n_prompts >= 1);
    s->n_legs = s->n_new = r->n_prompts;
    s->legs = xcalloc(s->n_legs, sizeof *s->legs);
    for (uint32_t i = 0; i < s->n_legs; i++)
        s->legs[i] = (struct leg){.s = s, .prompt = i, .choices = xcalloc(r->n_samples, sizeof(struct choice))};
    s->work.step = work_step;
    s->ticket.loop = s->loop->index;
    s->ticket.msg.step = on_ticket;
    go_on(s);
}

void leg_again(struct leg *g, bool abort) {
    struct session *s = g->s;
    bill_end(g, true);
    leg_close(g, abort);
    g->state = LEG_NEW;
    s->n_new++;
    go_on(s);
}

bool leg_hedge(struct leg *g) {
    struct session *s = g->s;
    const struct router_opts *o = s->loop->router->opts;
    /* The session has one ticket; if it is in the line for another leg, this one waits for better luck. */
    if (!o->replay || g->n_hedges >= (uint64_t)o->max_replays || s->ticket_out)
        return false;
    fill_ticket(g);
    s->ticket.avoid = g->worker;
    s->ticket.line.again = true;
    if (!fleet_acquire_other(s->loop->router->fleet, &s->ticket))
        return false;
    struct worker *w = s->ticket.worker;
    bill_end(g, true);
    leg_close(g, true);
    g->state = LEG_NEW;
    g->n_hedges++;
    s->n_new++;
    if (submitted(s, g, w))
        go_on(s); /* if that one has just gone */
    return true;
}
