/* engine_inbox.c: what other threads call. Checks requests, prepares them, and queues commands. */
#include <math.h>
#include <stdlib.h>

#include "common/clock.h"
#include "worker/beam.h"
#include "worker/engine_impl.h"
#include "worker/procs.h"

enum { CONTROL_ROOM = 16384 }; /* commands beside the submissions, which n_live_max bounds */

void inbox_init(struct inbox *b, uint32_t n_live_max, uint32_t n_routers) {
    *b = (struct inbox){.n_live_max = n_live_max, .n_max = n_live_max + CONTROL_ROOM};
    pthread_condattr_t attr;
    CHECK(pthread_condattr_init(&attr) == 0 && pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&b->lock, NULL) == 0 && pthread_cond_init(&b->filled, &attr) == 0);
    pthread_condattr_destroy(&attr);
    b->in = xcalloc(b->n_max, sizeof *b->in);
    b->out = xcalloc(b->n_max, sizeof *b->out);
    b->drop_below = xcalloc(n_routers, sizeof *b->drop_below);
}

void inbox_fini(struct inbox *b) {
    for (uint32_t i = 0; i < b->n_in; i++)
        req_free(b->in[i].req);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->filled);
    free(b->in);
    free(b->out);
    free(b->drop_below);
}

uint32_t inbox_take(struct inbox *b, uint64_t until_ns, uint32_t *drop_below, uint32_t n_routers, bool *dropped) {
    struct timespec until = {.tv_sec = (time_t)MIN(until_ns / NS_PER_S, (uint64_t)INT32_MAX), .tv_nsec = (long)(until_ns % NS_PER_S)};
    pthread_mutex_lock(&b->lock);
    while (until_ns && b->n_in == 0 && !b->dropped && !b->poked && !b->stopping)
        if (pthread_cond_timedwait(&b->filled, &b->lock, &until))
            break;
    uint32_t n = b->n_in;
    struct cmd *taken = b->in;
    b->in = b->out;
    b->out = taken;
    b->n_in = 0;
    *dropped = b->dropped;
    b->poked = false;
    if (b->dropped) {
        memcpy(drop_below, b->drop_below, n_routers * sizeof *drop_below);
        memset(b->drop_below, 0, n_routers * sizeof *drop_below);
        b->dropped = false;
    }
    pthread_mutex_unlock(&b->lock);
    return n;
}

void inbox_poke(struct inbox *b) {
    pthread_mutex_lock(&b->lock);
    b->poked = true;
    pthread_cond_signal(&b->filled);
    pthread_mutex_unlock(&b->lock);
}

/* put: RC_AGAIN when full, RC_UNAVAILABLE when nobody will empty it again. Under the lock. */
static enum rc put(struct inbox *b, const struct cmd *c) {
    if (b->stopping)
        return RC_UNAVAILABLE;
    if (b->n_in == b->n_max)
        return RC_AGAIN;
    b->in[b->n_in++] = *c;
    pthread_cond_signal(&b->filled);
    return RC_OK;
}

static enum rc put_locked(struct engine *e, const struct cmd *c) {
    CHECK(c->router < e->opts.n_routers_max);
    pthread_mutex_lock(&e->inbox.lock);
    enum rc rc = put(&e->inbox, c);
    pthread_mutex_unlock(&e->inbox.lock);
    return rc;
}

/* ---- checks
 * --------------------------------------------------------------------------------------------------- */

static enum rc check_ids(const uint32_t *ids, uint32_t n, uint32_t n_vocab, const char *field,
                         struct err *err) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= n_vocab)
            return err_set(err, RC_INVALID, field, "token id %u is outside the vocabulary of %u", ids[i],
                           n_vocab);
    return RC_OK;
}

static enum rc check_numbers(const struct req *r, struct err *err) {
    if (!(r->temperature >= 0) || !isfinite(r->temperature))
        return err_set(err, RC_INVALID, "temperature", "temperature is not a number from 0");
    if (!(r->top_p > 0 && r->top_p <= 1))
        return err_set(err, RC_INVALID, "top_p", "top_p is not in (0, 1]");
    if (!(r->min_p >= 0 && r->min_p <= 1))
        return err_set(err, RC_INVALID, "min_p", "min_p is not in [0, 1]");
    if (!(r->repetition_penalty > 0) || !isfinite(r->repetition_penalty))
        return err_set(err, RC_INVALID, "repetition_penalty", "repetition_penalty is not above 0");
    if (!isfinite(r->frequency_penalty) || !isfinite(r->presence_penalty))
        return err_set(err, RC_INVALID, "presence_penalty", "a penalty is not a finite number");
    return RC_OK;
}

static enum rc check_resume(const struct engine *e, const struct req *r, struct err *err) {
    for (uint32_t i = 0; i < r->n_resume; i++) {
        const struct req_resume *x = &r->resume[i];
        if (x->sample >= r->n_samples || (i > 0 && x->sample <= r->resume[i - 1].sample))
            return err_set(err, RC_INVALID, "resume", "samples are out of range or out of order");
        if (x->n_tokens > 0 && x->n_tokens >= r->max_tokens)
            return err_set(err, RC_INVALID, "resume", "sample %u has all of its %u tokens", x->sample,
                           r->max_tokens);
        enum rc rc = check_ids(x->tokens, x->n_tokens, e->opts.n_vocab, "resume", err);
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

/* check_pool: a pooling request computes its prompt and nothing else, and the model can do it. */
static enum rc check_pool(const struct engine *e, const struct req *r, struct err *err) {
    const struct engine_opts *o = &e->opts;
    if (r->pool.kind == POOL_NONE)
        return o->pooler ? err_set(err, RC_INVALID, "task", "the model does not generate") : RC_OK;
    if (!o->pooler)
        return err_set(err, RC_INVALID, "task", "the model does not pool");
    if (r->max_tokens || r->n_samples != 1 || r->n_prompt_logprobs >= 0)
        return err_set(err, RC_INVALID, "max_tokens", "a pooling request generates nothing");
    return pooler_check(o->pooler, &r->pool, err);
}

static enum rc check_req(const struct engine *e, const struct req *r, struct err *err) {
    const struct engine_opts *o = &e->opts;
    if (r->router >= o->n_routers_max)
        return err_set(err, RC_INVALID, "router", "router index %u of %u", r->router, o->n_routers_max);
    if (r->n_samples == 0 || r->n_samples > SEQ_SAMPLES_MAX)
        return err_set(err, RC_INVALID, "n_samples", "n_samples is not in 1..%d", SEQ_SAMPLES_MAX);
    if (r->n_prompt == 0)
        return err_set(err, RC_INVALID, "tokens", "the prompt has no tokens");
    if ((uint64_t)r->n_prompt + r->max_tokens > o->max_len)
        return err_set(err, RC_INVALID, "max_tokens",
                       "%u prompt tokens and max_tokens %u exceed the context of %u", r->n_prompt,
                       r->max_tokens, o->max_len);
    if (r->min_tokens > r->max_tokens)
        return err_set(err, RC_INVALID, "min_tokens", "min_tokens is above max_tokens");
    if (r->n_logprobs > (int32_t)MIN(o->n_top_max, o->n_vocab))
        return err_set(err, RC_INVALID, "n_logprobs", "n_logprobs is above %u", o->n_top_max);
    if (r->n_prompt_logprobs > (int32_t)MIN(o->n_top_max, o->n_vocab))
        return err_set(err, RC_INVALID, "n_prompt_logprobs", "n_prompt_logprobs is above %u", o->n_top_max);
    if (r->allowed && r->n_allowed_words != (o->n_vocab + 31) / 32)
        return err_set(err, RC_INVALID, "allowed_ids", "the mask is not of %u tokens", o->n_vocab);
    for (uint32_t i = 0; i < r->n_bias; i++)
        if (r->bias[i].id >= o->n_vocab || (i > 0 && r->bias[i].id <= r->bias[i - 1].id) ||
            !isfinite(r->bias[i].value))
            return err_set(err, RC_INVALID, "bias_ids", "bias %u is out of range or out of order", i);
    if (r->constraint && !o->constraints)
        return err_set(err, RC_UNSUPPORTED, "constraint", "this worker serves no constraints");
    enum rc rc = check_numbers(r, err);
    if (rc == RC_OK)
        rc = check_ids(r->starts_after, r->n_starts_after, o->n_vocab, "constraint", err);
    if (rc == RC_OK)
        rc = check_ids(r->prompt, r->n_prompt, o->n_vocab, "tokens", err);
    if (rc == RC_OK)
        rc = check_ids(r->stop_ids, r->n_stop_ids, o->n_vocab, "stop_ids", err);
    if (rc == RC_OK)
        rc = check_resume(e, r, err);
    if (rc == RC_OK)
        rc = check_pool(e, r, err);
    if (rc == RC_OK && r->kv.offer && r->n_samples > 1)
        rc = err_set(err, RC_INVALID, "kv_transfer_params", "a prompt that is computed for another worker has one sample");
    if (rc == RC_OK && r->beams)
        rc = beam_check(r, o->n_vocab, err);
    return rc;
}

/* check_open: whether another request may come. Under the lock. */
static enum rc check_open(const struct inbox *b, const struct req *r, struct err *err) {
    if (b->failed)
        return err_set(err, RC_UNAVAILABLE, NULL, "the device failed");
    if (b->draining || b->stopping)
        return err_set(err, RC_UNAVAILABLE, NULL, "the worker is shutting down");
    if (b->n_live >= b->n_live_max)
        return err_set(err, RC_OVERLOAD, NULL, "%u requests are in the worker", b->n_live);
    uint64_t wide = req_wide(r);
    if (wide > ENGINE_WIDE_MAX)
        return err_set(err, RC_INVALID, "n_logprobs", "%d logprobs of %u samples are more than %d a step",
                       r->n_logprobs, r->n_samples, ENGINE_WIDE_MAX);
    if (wide && b->n_wide + wide > ENGINE_WIDE_MAX)
        return err_set(err, RC_OVERLOAD, "n_logprobs", "running requests get %llu logprobs a step already",
                       (unsigned long long)b->n_wide);
    return RC_OK;
}

/* ---- calls
 * ---------------------------------------------------------------------------------------------------- */

enum rc engine_submit(struct engine *e, struct req *r, struct err *err) {
    struct inbox *b = &e->inbox;
    pthread_mutex_lock(&b->lock);
    enum rc rc = check_open(b, r, err);
    pthread_mutex_unlock(&b->lock);
    if (rc == RC_OK)
        rc = check_req(e, r, err);
    if (rc != RC_OK)
        return rc;
    if (!r->seqs) { /* else it was refused after this once before */
        req_prepare(r, e->eos_ids, e->opts.n_eos_ids, e->opts.prefix_cache);
        if (r->n_procs && procs_create(r, e->opts.n_vocab, err) != RC_OK)
            return RC_INVALID;
    }
    pthread_mutex_lock(&b->lock);
    rc = check_open(b, r, err);
    if (rc == RC_OK) {
        rc = put(b, &(struct cmd){.kind = CMD_SUBMIT, .router = r->router, .req = r});
        if (rc == RC_OK) {
            b->n_live++;
            b->n_wide += req_wide(r);
        } else {
            rc = err_set(err, RC_OVERLOAD, NULL, "the engine's inbox is full");
        }
    }
    pthread_mutex_unlock(&b->lock);
    return rc;
}

enum rc engine_abort(struct engine *e, uint32_t router, uint32_t router_epoch, struct id128 id, bool whole,
                     uint64_t stream) {
    struct cmd c = {.kind = CMD_ABORT, .router = router, .router_epoch = router_epoch};
    c.id = id;
    c.whole = whole;
    c.stream = stream;
    return put_locked(e, &c);
}

enum rc engine_abort_pull(struct engine *e, uint32_t router, uint32_t router_epoch, struct id128 id) {
    struct cmd c = {.kind = CMD_ABORT, .router = router, .router_epoch = router_epoch};
    c.id = id;
    c.transfer = true;
    return put_locked(e, &c);
}

enum rc engine_control(struct engine *e, enum engine_control kind, uint32_t router, uint32_t router_epoch,
                       uint64_t id) {
    struct cmd c = {.kind = CMD_CONTROL, .router = router, .router_epoch = router_epoch};
    c.control = kind;
    c.control_id = id;
    return put_locked(e, &c);
}

void engine_drop_router(struct engine *e, uint32_t router, uint32_t router_epoch) {
    struct inbox *b = &e->inbox;
    CHECK(router < e->opts.n_routers_max && router_epoch < UINT32_MAX);
    pthread_mutex_lock(&b->lock);
    b->drop_below[router] = MAX(b->drop_below[router], router_epoch + 1);
    b->dropped = true;
    pthread_cond_signal(&b->filled);
    pthread_mutex_unlock(&b->lock);
}

void engine_drain(struct engine *e) {
    pthread_mutex_lock(&e->inbox.lock);
    e->inbox.draining = true;
    e->inbox.dropped = true; /* wakes it, to see whether anything is left */
    pthread_cond_signal(&e->inbox.filled);
    pthread_mutex_unlock(&e->inbox.lock);
}
