#include "router/offload.h"

#include <stdio.h>
#include <stdlib.h>

#include "router/api/error.h"
#include "router/conn.h"
#include "router/reply.h"
#include "router/session.h"
#include "router/stream.h"

enum {
    SLOW_BODY_BYTES = 16 * 1024
}; /* above it a body may take the tokenizer more than about a millisecond */

/* A body's copy, counted against the process's limit. */
struct body {
    char *p;
    size_t n;
};

static bool body_take(struct router *r, struct body *b, struct str from) {
    size_t held = atomic_fetch_add(&r->body_bytes, from.n);
    if (held + from.n + atomic_load(&r->input_bytes) > r->input_bytes_max) {
        atomic_fetch_sub(&r->body_bytes, from.n);
        return false;
    }
    b->p = xstrndup(from.p ? from.p : "", from.n);
    b->n = from.n;
    return true;
}

static void body_drop(struct router *r, struct body *b) {
    free(b->p);
    b->p = NULL;
    atomic_fetch_sub(&r->body_bytes, b->n);
}

static enum pool_class class_of(size_t n) {
    return n > SLOW_BODY_BYTES ? POOL_SLOW : POOL_FAST;
}

/* ---- requests that a worker will answer -------------------------------------------------------------- */

struct prepare {
    struct pool_job job;
    struct loop_msg msg;
    struct loop *loop;
    void *owner;
    void (*done)(struct loop *l, void *owner, struct gen_req *req, const struct err *e, const char *asked_id);
    enum gen_route route;
    struct body body;
    char suffix[129], asked[GEN_ID_BYTES_MAX + 1];
    struct gen_req *req;
    struct err err;
};

/* Of the job on this thread: whether a worker serves the model that it asked for. */
static _Thread_local bool found, serving;

struct model_info *offload_find_model(void *arg, struct str name) {
    struct router *r = arg;
    struct model_info *m = fleet_find_model(r->fleet, name, &serving);
    found = m != NULL;
    return m;
}

static bool prepare_back(struct loop *l, struct loop_msg *m) {
    struct prepare *p = CONTAINER_OF(m, struct prepare, msg);
    p->done(l, p->owner, p->req, &p->err, p->asked);
    free(p);
    return true;
}

static void prepare_run(struct pool_job *job) {
    struct prepare *p = CONTAINER_OF(job, struct prepare, job);
    struct router *r = p->loop->router;
    bool any;
    struct model_info *first = fleet_find_model(r->fleet, (struct str){0}, &any);
    found = serving = false;
    if (!first) {
        /* Nothing is known of any model yet, so nothing can be said of the request either. */
        session_unavailable(r, &p->err);
    } else {
        enum rc rc = gen_prepare(&r->env, p->route, (struct str){p->body.p, p->body.n}, str_of(p->suffix),
                                 &p->req, &p->err);
        model_info_drop(first);
        /* The order of api.md 3.3: after the model's name, before what only semantic checks see, comes the
         * ready worker. */
        if (found && !serving) {
            if (rc == RC_OK)
                gen_req_free(p->req);
            p->req = NULL;
            session_unavailable(r, &p->err);
        }
    }
    if (!p->req && !p->suffix[0] && r->opts->request_id_headers)
        gen_asked_id((struct str){p->body.p, p->body.n}, &r->opts->limit, p->asked);
    body_drop(r, &p->body);
    loop_post(p->loop, &p->msg);
}

bool offload_prepare(struct loop *l, void *owner,
                     void (*done)(struct loop *l, void *owner, struct gen_req *req, const struct err *e,
                                  const char *asked_id),
                     enum gen_route route, struct str body, struct str suffix) {
    struct prepare *p = xcalloc(1, sizeof *p);
    CHECK(suffix.n < sizeof p->suffix);
    if (!body_take(l->router, &p->body, body)) {
        free(p);
        return false;
    }
    p->job.run = prepare_run;
    p->msg.step = prepare_back;
    p->loop = l;
    p->owner = owner;
    p->done = done;
    p->route = route;
    if (suffix.n)
        memcpy(p->suffix, suffix.p, suffix.n);
    if (pool_submit(l->router->pool, class_of(body.n), &p->job))
        return true;
    body_drop(l->router, &p->body);
    free(p);
    return false;
}

/* ---- requests that the pool answers ------------------------------------------------------------------ */

struct errand {
    struct pool_job job;
    struct loop_msg msg;
    struct loop *loop;
    struct stream *stream; /* NULL: the client is gone. The loop's. */
    enum pool_work work;
    struct body body;
    char suffix[129];
    struct buf out;
    enum rc rc;
    struct err err;
};

static void errand_gone(void *owner) {
    struct errand *x = owner;
    x->stream = NULL;
}

static bool errand_back(struct loop *l, struct loop_msg *m) {
    struct errand *x = CONTAINER_OF(m, struct errand, msg);
    (void)l;
    if (x->stream) {
        h2o_req_t *req = stream_take(x->stream);
        if (x->rc != RC_OK)
            reply_error(req, &x->err, x->rc == RC_UNAVAILABLE ? 5 : 0, str_of(x->suffix));
        else if (x->work == WORK_METRICS)
            reply_body(req, 200, "text/plain; version=0.0.4; charset=utf-8", &x->out, str_of(x->suffix));
        else
            reply_json(req, 200, &x->out, str_of(x->suffix));
    }
    buf_fini(&x->out);
    free(x);
    return true;
}

static enum rc errand_do(struct router *r, struct errand *x) {
    struct str body = {x->body.p, x->body.n};
    struct buf name = {0};
    struct model_info *any;
    switch (x->work) {
    case WORK_METRICS:
        fleet_gauges(r->fleet);
        fleet_first_name(r->fleet, &name);
        rmetrics_write(r->metrics, buf_str(&name), &x->out);
        buf_fini(&name);
        return RC_OK;
    case WORK_TOKENIZE:
    case WORK_DETOKENIZE:
        break;
    }
    if (!fleet_models(r->fleet, &any, 1)) {
        session_unavailable(r, &x->err);
        return RC_UNAVAILABLE;
    }
    model_info_drop(any);
    return x->work == WORK_TOKENIZE ? api_tokenize(&r->env, body, &x->out, &x->err)
                                    : api_detokenize(&r->env, body, &x->out, &x->err);
}

static void errand_run(struct pool_job *job) {
    struct errand *x = CONTAINER_OF(job, struct errand, job);
    struct router *r = x->loop->router;
    x->rc = errand_do(r, x);
    if (x->rc != RC_OK)
        x->err.rc = x->rc;
    body_drop(r, &x->body);
    loop_post(x->loop, &x->msg);
}

void offload_reply(h2o_req_t *req, enum pool_work work, struct str suffix) {
    struct loop *l = loop_of(req);
    struct errand *x = xcalloc(1, sizeof *x);
    x->job.run = errand_run;
    x->msg.step = errand_back;
    x->loop = l;
    x->work = work;
    snprintf(x->suffix, sizeof x->suffix, "%.*s", (int)suffix.n, suffix.p ? suffix.p : "");
    bool held = body_take(l->router, &x->body, str_of_iovec(req->entity));
    if (held && pool_submit(l->router->pool, class_of(x->body.n), &x->job)) {
        x->stream = stream_new(req, false, x, errand_gone);
        return;
    }
    if (held)
        body_drop(l->router, &x->body);
    free(x);
    struct err e;
    err_set(&e, RC_OVERLOAD, NULL, "Too many requests are waiting");
    rmetrics_reject(l->router->metrics, REJECT_QUEUE_FULL, 429);
    reply_error(req, &e, fleet_retry_after_s(l->router->fleet), suffix);
}
