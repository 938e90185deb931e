/* A prompt that another worker computes (fleet/split.h): its leg there, beside the leg that goes on with it.
 *
 * Both are submitted at once: the decoding worker fetches blocks while the other still computes them. The leg there says
 * nothing that reaches the client; it lasts until the first token of its request, which is when the blocks are where they
 * are needed, and its worker is told that it is over, whatever came of it: a prefill that runs is aborted, and blocks that are
 * kept are let go. If it fails the decoding worker computes the prompt; it sees that by itself, but for what only the router
 * knows: that the other was refused, is silent, or is gone without a word. */
#include <stdlib.h>

#include "common/hash.h"
#include "router/session_private.h"

/* wanted: a prompt that may be computed elsewhere: what its client, or the router's client, does not move itself. */
static bool wanted(const struct leg *g) {
    const struct gen_req *r = g->s->req;
    return !r->pool && r->n_prompt_top < 0 && !(g->prompt == 0 && (r->kv.offer || r->kv.pull)) &&
           r->prompts[g->prompt].n_ids > HASH_BLOCK_TOKENS && r->prompts[g->prompt].max_tokens > 0;
}

/* fill_submit: the prompt and nothing else. */
static void fill_submit(const struct leg *p, struct gen_submit *out) {
    Weir__Sampling *s = &out->sampling;
    gen_submit(p->s->req, p->prompt, out);
    weir__sampling__init(s);
    s->has_n_samples = s->has_max_tokens = true;
    s->n_samples = 1;
    s->max_tokens = 0;
    out->m.constraint = NULL;
    out->m.has_request_id = out->m.has_stream = true;
    out->m.request_id = (ProtobufCBinaryData){sizeof p->id.b, (uint8_t *)(uintptr_t)p->id.b};
    out->m.stream = p->handle;
    out->m.priority = p->s->priority;
    weir__kv_transfer__init(&out->kv);
    out->kv.has_do_remote_decode = out->kv.do_remote_decode = true;
    out->kv.has_transfer_id = true;
    out->kv.transfer_id = (ProtobufCBinaryData){sizeof p->transfer.b, (uint8_t *)(uintptr_t)p->transfer.b};
    out->m.kv_transfer = &out->kv;
}

static enum rc send_submit(struct leg *p) {
    struct loop *l = p->s->loop;
    struct gen_submit scratch;
    p->handle = slots_put(&l->slots, p);
    if (!p->handle)
        return RC_OVERLOAD;
    fill_submit(p, &scratch);
    leg_fill_tag(p->s, &scratch.m);
    enum rc rc = link_queue(p->worker->conn, LINK_DATA, WEIR__ENVELOPE__BODY_SUBMIT, &scratch.m);
    if (rc == RC_OK)
        loop_push_later(l, p->worker->conn);
    else
        slots_del(&l->slots, p->handle);
    return rc;
}

/* finish: what p has taken is given back. */
static void finish(struct leg *p) {
    struct fleet *f = p->s->loop->router->fleet;
    fleet_split_end(f, p->decoding, p->worker);
    fleet_release(f, p->worker, p->n_live, p->credit_tokens, p->credit_tokens ? p->n_cached : 0);
    worker_drop(p->worker);
    worker_drop(p->decoding);
    free(p);
}

bool prefill_begin(struct leg *g, struct worker *w, struct gen_submit *out) {
    struct session *s = g->s;
    struct fleet *f = s->loop->router->fleet;
    const uint32_t n_here = s->ticket.n_cached;
    uint32_t n_there;
    struct worker *other = wanted(g) ? fleet_split(f, &s->ticket, w, &n_there) : NULL;
    CHECK(!g->prefill);
    if (!other)
        return false;
    struct leg *p = xcalloc(1, sizeof *p);
    *p = (struct leg){.s = s, .prompt = g->prompt, .decode = g, .worker = other, .n_cached = n_there, .n_live = 1};
    p->decoding = worker_hold(w);
    p->credit_tokens = s->ticket.n_tokens;
    p->n_here = MIN(n_here, s->req->prompts[g->prompt].n_ids);
    p->n_found = MIN(n_there, s->req->prompts[g->prompt].n_ids); /* until it says so itself */
    fill_random(p->id.b, sizeof p->id.b);
    fill_random(p->transfer.b, sizeof p->transfer.b);
    enum rc rc = send_submit(p);
    if (rc) {
        if (rc == RC_AGAIN)
            link_cut(other->conn, "it does not read its requests");
        if (rc != RC_OVERLOAD)
            fleet_unusable(f, other);
        finish(p);
        return false;
    }
    p->state = LEG_SUBMITTED;
    g->prefill = p;
    weir__kv_transfer__init(&out->kv);
    out->kv.has_do_remote_prefill = out->kv.do_remote_prefill = true;
    out->kv.has_known = out->kv.known = out->kv.has_early = out->kv.early = true;
    out->kv.has_transfer_id = out->kv.has_remote_port = true;
    out->kv.transfer_id = (ProtobufCBinaryData){sizeof p->transfer.b, p->transfer.b};
    out->kv.remote_engine_id = other->kv_engine;
    out->kv.remote_host = other->kv_host;
    out->kv.remote_port = other->kv_port;
    out->m.kv_transfer = &out->kv;
    return true;
}

void prefill_end(struct leg *g) {
    struct leg *p = g->prefill;
    if (!p)
        return;
    struct loop *l = p->s->loop;
    g->prefill = NULL;
    leg_tell_abort(p, true, 0);
    slots_del(&l->slots, p->handle);
    finish(p);
}

void prefill_failed(struct leg *p) {
    struct leg *g = p->decode;
    Weir__Abort m = WEIR__ABORT__INIT;
    m.has_request_id = m.has_transfer = true;
    m.request_id = (ProtobufCBinaryData){sizeof g->id.b, g->id.b};
    m.transfer = true;
    if (link_send(g->worker->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &m) == RC_AGAIN)
        link_cut(g->worker->conn, "it does not read its aborts");
    rmetrics_remote_prefill(g->s->loop->router->metrics, false);
    prefill_end(g);
}

bool prefill_on_entry(struct leg *p, const struct batch_entry *t) {
    struct fleet *f = p->s->loop->router->fleet;
    if (p->n_live == 0)
        return false;
    if (t->flags & ENTRY_TOKEN) {
        link_cut(p->worker->conn, "more tokens than were asked for");
        return false;
    }
    if (t->flags & ENTRY_FIRST) {
        const uint32_t n = p->s->req->prompts[p->prompt].n_ids;
        p->n_found = MIN(t->cached_tokens, n);
        fleet_prefilled(f, p->worker, n - p->n_found, t->prefill_us);
        leg_prefilled(p);
        return true;
    }
    if (!(t->flags & ENTRY_FINISH))
        return false;
    leg_prefilled(p);
    fleet_release(f, p->worker, 1, 0, 0);
    p->n_live = 0;
    p->done_ns = p->s->loop->now_ns;
    p->kept = t->reason == WEIR__FINISH__REASON__LENGTH;
    return true; /* if it ended otherwise its lease did, which the decoding side sees at once */
}

uint32_t prefill_first(struct leg *g, uint32_t n_cached, uint32_t prefill_us) {
    struct leg *p = g->prefill;
    struct router *r = g->s->loop->router;
    const uint32_t n = leg_tokens(g), n_prompt = g->s->req->prompts[g->prompt].n_ids;
    if (!p) {
        fleet_prefilled(r->fleet, g->worker, n - MIN(n, n_cached), prefill_us);
        return n_cached;
    }
    /* The last block may be here, and used, before the other worker's word that it is done with the prompt. */
    const bool ok = n_cached >= (n_prompt - 1) / HASH_BLOCK_TOKENS * HASH_BLOCK_TOKENS;
    if (ok)
        fleet_transferred(r->fleet, p->kept ? g->s->loop->now_ns - p->done_ns : 0);
    rmetrics_remote_prefill(r->metrics, ok);
    /* What the other worker has computed is no cached token to the client, nor to its tenant's bill. */
    n_cached = MIN(n_cached, MAX(p->n_found, p->n_here));
    prefill_end(g);
    return n_cached;
}
