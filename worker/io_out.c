/* A step's outputs, packed into one StepOutputs for each router. Runs on the engine's thread and reuses its
 * scratch, so that steady decode allocates nothing here. */
#include <stdlib.h>

#include "worker/io_private.h"

/* io_out: columns and sub-messages of one StepOutputs. Pointer lists point into the arrays beside them. */
struct io_out {
    uint64_t *stream;
    uint32_t *token;
    float *logprob, *raw_logprob;
    Weir__First *first, **first_ptr;
    Weir__TopLogprobs *top, **top_ptr;
    Weir__Finish *finish, **finish_ptr;
    Weir__KvTransfer *kv; /* [cap_kv] offers of the step's ends */
    struct io_kv_text *kv_text;
    size_t cap, cap_kv;
    Weir__PromptLogprob *prompt, **prompt_ptr;
    size_t cap_prompt;
};

struct io_out *io_out_new(void) {
    return xcalloc(1, sizeof(struct io_out));
}

void io_out_free(struct io_out *o) {
    if (!o)
        return;
    free(o->stream);
    free(o->token);
    free(o->logprob);
    free(o->raw_logprob);
    free(o->first);
    free(o->first_ptr);
    free(o->top);
    free(o->top_ptr);
    free(o->finish);
    free(o->finish_ptr);
    free(o->kv);
    free(o->kv_text);
    free(o->prompt);
    free(o->prompt_ptr);
    free(o);
}

static void grow(struct io_out *o, size_t n) {
    if (n <= o->cap)
        return;
    size_t cap = MAX(o->cap * 2, MAX(n, 64));
    o->stream = xreallocarray(o->stream, cap, sizeof *o->stream);
    o->token = xreallocarray(o->token, cap, sizeof *o->token);
    o->logprob = xreallocarray(o->logprob, cap, sizeof *o->logprob);
    o->raw_logprob = xreallocarray(o->raw_logprob, cap, sizeof *o->raw_logprob);
    o->first = xreallocarray(o->first, cap, sizeof *o->first);
    o->first_ptr = xreallocarray(o->first_ptr, cap, sizeof *o->first_ptr);
    o->top = xreallocarray(o->top, cap, sizeof *o->top);
    o->top_ptr = xreallocarray(o->top_ptr, cap, sizeof *o->top_ptr);
    o->finish = xreallocarray(o->finish, cap, sizeof *o->finish);
    o->finish_ptr = xreallocarray(o->finish_ptr, cap, sizeof *o->finish_ptr);
    o->cap = cap;
}

static size_t n_prompt_rows(const struct router_out *r) {
    size_t n = 0;
    for (uint32_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i].first && r->tokens[i].first->prompt)
            n += r->tokens[i].first->n_prompt;
    return n;
}

static size_t n_offers(const struct router_out *r) {
    size_t n = 0;
    for (uint32_t i = 0; i < r->n_tokens; i++)
        n += r->tokens[i].finish != FINISH_NONE && r->tokens[i].req->offer;
    return n;
}

static void fill_prompt(struct io_out *o, Weir__First *m, const struct first_out *f, size_t at) {
    m->prompt = o->prompt_ptr + at;
    m->n_prompt = f->n_prompt;
    for (uint32_t i = 0; i < f->n_prompt; i++) {
        Weir__PromptLogprob *p = &o->prompt[at + i];
        size_t k = (size_t)i * f->n_prompt_top;
        weir__prompt_logprob__init(p);
        o->prompt_ptr[at + i] = p;
        if (i == 0)
            continue; /* nothing comes before it */
        p->has_token = p->has_logprob = p->has_rank = true;
        p->token = f->prompt[i].id;
        p->logprob = f->prompt[i].logprob;
        p->rank = f->prompt[i].rank;
        p->n_ids = p->n_logprobs = f->n_prompt_top;
        /* protobuf-c's lists are not const; they are only read */
        p->ids = (uint32_t *)(uintptr_t)(f->prompt_top_ids + k);
        p->logprobs = (float *)(uintptr_t)(f->prompt_top_logprobs + k);
    }
}

static uint32_t us_of(uint64_t ns) {
    return (uint32_t)MIN(ns / 1000, (uint64_t)UINT32_MAX);
}

static void fill_first(Weir__First *m, const struct token_out *t) {
    weir__first__init(m);
    m->has_stream = m->has_cached_tokens = m->has_queue_us = m->has_prefill_us = true;
    m->stream = t->stream;
    m->cached_tokens = t->first->n_cached;
    m->queue_us = us_of(t->first->queue_ns);
    m->prefill_us = us_of(t->first->prefill_ns);
    m->has_transfer_us = t->first->transfer_ns > 0;
    m->transfer_us = us_of(t->first->transfer_ns);
}

static void fill_finish(Weir__Finish *m, const struct token_out *t) {
    static const Weir__Finish__Reason reason[N_FINISH] = {
        [FINISH_NONE] = WEIR__FINISH__REASON__ERROR,    [FINISH_STOP] = WEIR__FINISH__REASON__STOP,
        [FINISH_LENGTH] = WEIR__FINISH__REASON__LENGTH, [FINISH_ABORT] = WEIR__FINISH__REASON__ABORT,
        [FINISH_ERROR] = WEIR__FINISH__REASON__ERROR,
    };
    weir__finish__init(m);
    m->has_stream = m->has_reason = true;
    m->stream = t->stream;
    m->reason = reason[t->finish];
    if (t->finish == FINISH_STOP) {
        m->has_stop_id = m->has_eos = true;
        m->stop_id = t->stop_id;
        m->eos = t->eos;
    }
    if (t->finish == FINISH_ERROR) {
        m->message = (char *)(uintptr_t)t->message;
        m->has_status = true;
        m->status = t->status;
    }
    m->has_n_preempted = true;
    m->n_preempted = t->n_preempted;
}

static void fill_top(Weir__TopLogprobs *m, const struct token_out *t, uint32_t entry) {
    weir__top_logprobs__init(m);
    m->has_entry = m->has_rank = true;
    m->entry = entry;
    m->rank = t->rank;
    m->n_ids = m->n_logprobs = t->n_top;
    m->ids = (uint32_t *)(uintptr_t)t->top_ids;
    m->logprobs = (float *)(uintptr_t)t->top_logprobs;
}

/* send_pools: what pooling requests of this router came to. One message for each: a row for every token of a
 * long text is large. */
static void send_pools(const struct router_out *r, struct link_conn *c) {
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        const struct token_out *t = &r->tokens[i];
        if (t->req->pool.kind == POOL_NONE || t->finish == FINISH_ABORT)
            continue;
        Weir__PoolOutput o = WEIR__POOL_OUTPUT__INIT, *list = &o;
        Weir__PoolOutputs m = WEIR__POOL_OUTPUTS__INIT;
        o.has_stream = o.has_n_tokens = true;
        o.stream = t->stream;
        o.n_tokens = t->req->n_prompt;
        if (t->pool) {
            o.has_rows = o.has_cols = o.has_data = true;
            o.rows = t->pool_rows;
            o.cols = t->pool_cols;
            o.data.data = (uint8_t *)(uintptr_t)t->pool; /* only read; floats are little-endian here */
            o.data.len = (size_t)o.rows * o.cols * sizeof *t->pool;
        } else {
            o.message = (char *)(uintptr_t)t->message;
            o.has_status = true;
            o.status = t->status ? t->status : 500;
        }
        m.outputs = &list;
        m.n_outputs = 1;
        enum rc rc = link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_POOL_OUTPUTS, &m);
        if (rc == RC_AGAIN)
            link_cut(c, "the router does not read its outputs");
        else if (rc == RC_TOO_LARGE)
            link_cut(c, "a pooled output is larger than a message");
    }
}

static void send_router(struct io *io, uint64_t step, const struct router_out *r, struct link_conn *c) {
    struct io_out *o = io->out;
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    size_t n_prompt = n_prompt_rows(r), at_prompt = 0;
    bool any_logprob = false, any_raw = false;
    grow(o, r->n_tokens);
    if (n_prompt > o->cap_prompt) {
        o->prompt = xreallocarray(o->prompt, n_prompt, sizeof *o->prompt);
        o->prompt_ptr = xreallocarray(o->prompt_ptr, n_prompt, sizeof(Weir__PromptLogprob *));
        o->cap_prompt = n_prompt;
    }
    size_t n_kv = n_offers(r), at_kv = 0;
    if (n_kv > o->cap_kv) {
        o->kv = xreallocarray(o->kv, n_kv, sizeof *o->kv);
        o->kv_text = xreallocarray(o->kv_text, n_kv, sizeof *o->kv_text);
        o->cap_kv = n_kv;
    }
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        const struct token_out *t = &r->tokens[i];
        if (t->first) {
            Weir__First *f = o->first_ptr[m.n_first] = &o->first[m.n_first];
            fill_first(f, t);
            if (t->first->prompt) {
                fill_prompt(o, f, t->first, at_prompt);
                at_prompt += t->first->n_prompt;
            }
            m.n_first++;
        }
        if (t->token != SEQ_NO_TOKEN) {
            uint32_t entry = (uint32_t)m.n_stream++;
            o->stream[entry] = t->stream;
            o->token[entry] = t->token;
            o->logprob[entry] = t->has_logprob ? t->logprob : 0;
            o->raw_logprob[entry] = t->has_logprob ? t->raw_logprob : 0;
            any_logprob |= t->has_logprob;
            any_raw |= t->has_logprob && t->req->want_raw && t->raw_logprob != t->logprob;
            if (t->has_logprob && t->req->n_logprobs >= 0) {
                o->top_ptr[m.n_top] = &o->top[m.n_top];
                fill_top(&o->top[m.n_top++], t, entry);
            }
        }
        if (t->finish != FINISH_NONE) {
            o->finish_ptr[m.n_finish] = &o->finish[m.n_finish];
            fill_finish(&o->finish[m.n_finish], t);
            if (io_kv_offer(t->req, &io->facts, &o->kv_text[at_kv], &o->kv[at_kv]))
                o->finish[m.n_finish].kv_transfer = &o->kv[at_kv++];
            m.n_finish++;
        }
    }
    m.has_step = true;
    m.step = step;
    m.stream = o->stream;
    m.token = o->token;
    m.n_token = m.n_stream;
    m.logprob = o->logprob;
    m.n_logprob = any_logprob ? m.n_stream : 0;
    m.raw_logprob = o->raw_logprob;
    m.n_raw_logprob = any_raw ? m.n_stream : 0;
    m.first = o->first_ptr;
    m.top = o->top_ptr;
    m.finish = o->finish_ptr;
    /* Without these outputs its streams would wait for ever: the router must learn that they are lost. */
    enum rc rc = link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_STEP_OUTPUTS, &m);
    if (rc == RC_AGAIN)
        link_cut(c, "the router does not read its outputs");
    else if (rc == RC_TOO_LARGE)
        link_cut(c, "the outputs of a step are larger than a message");
}

void io_on_step(void *arg, const struct step_out *out) {
    struct io *io = arg;
    for (uint32_t i = 0; i < out->n_routers; i++) {
        const struct router_out *r = &out->routers[i];
        struct link_conn *c = r->n_tokens ? io_conn_of(io, r->router, r->router_epoch) : NULL;
        if (!c)
            continue;
        if (io->facts.pooler)
            send_pools(r, c);
        else
            send_router(io, out->step, r, c);
        link_drop(c);
    }
    if (out->n_kv_events || out->kv_piece)
        io_kv_step(io, out);
}
