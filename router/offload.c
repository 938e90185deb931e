#include "router/offload.h"

#include <stdio.h>
#include <stdlib.h>

#include "router/api/error.h"
#include "router/api/openapi.h"
#include "router/conn.h"
#include "router/reply.h"
#include "router/session.h"
#include "router/stream.h"

enum {
    SLOW_BODY_BYTES = 16 * 1024, /* above it a body may take the tokenizer more than about a millisecond */
    TRIM_BODY_BYTES = 1 << 20,   /* from it on, what a body leaves behind in the heap is worth giving back */
    HERE_BODY_BYTES = 2 * 1024,  /* up to it, JSON, template and tokenizer take some tens of microseconds */
};

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
    if (b->n >= TRIM_BODY_BYTES)
        atomic_store(&r->trim_due, true);
    atomic_fetch_sub(&r->body_bytes, b->n);
}

/* class_of: a small body is a fast job, unless a word in it says that a grammar may have to be compiled, or a
 * template of the client's run. */
static enum pool_class class_of(struct str body) {
    static const char *const words[] = {"\"guided_", "\"structur", "\"response_format\"", "\"tool_choice\"",
                                        "\"chat_template\""};
    if (body.n > SLOW_BODY_BYTES)
        return POOL_SLOW;
    for (size_t i = 0; body.n && i < ARRAY_LEN(words); i++)
        if (memmem(body.p, body.n, words[i], strlen(words[i])))
            return POOL_SLOW;
    return POOL_FAST;
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

void offload_end_transfer(void *arg, const struct kv_params *p) {
    struct router *r = arg;
    fleet_end_transfer(r->fleet, p);
}

static bool prepare_back(struct loop *l, struct loop_msg *m) {
    struct prepare *p = CONTAINER_OF(m, struct prepare, msg);
    p->done(l, p->owner, p->req, &p->err, p->asked);
    free(p);
    return true;
}

/* prepare_checked: light: on the loop's thread (gen_prepare_light), which may be RC_AGAIN. */
static enum rc prepare_checked(struct router *r, enum gen_route route, struct str body, struct str suffix,
                               bool light, struct gen_req **req, struct err *e) {
    *req = NULL;
    found = serving = false;
    if (!fleet_knows_model(r->fleet)) {
        /* Nothing is known of any model yet, so nothing can be said of the request either. */
        session_unavailable(r, e);
        return RC_UNAVAILABLE;
    }
    enum rc rc = light ? gen_prepare_light(&r->env, route, body, suffix, req, e)
                       : gen_prepare(&r->env, route, body, suffix, req, e);
    /* The order of api.md 3.3: after the model's name, before what only semantic checks see, comes the ready
     * worker. */
    if (found && !serving && r->opts->model_wait_s <= 0) {
        if (rc == RC_OK)
            gen_req_free(*req);
        *req = NULL;
        session_unavailable(r, e);
        return RC_UNAVAILABLE;
    }
    return rc;
}

/* prepare: likewise; of a refused request, *asked is the id that its body asks for, if it must be known. */
static enum rc prepare(struct router *r, enum gen_route route, struct str body, struct str suffix, bool light,
                       struct gen_req **req, struct err *e, char asked[GEN_ID_BYTES_MAX + 1]) {
    enum rc rc = prepare_checked(r, route, body, suffix, light, req, e);
    asked[0] = '\0';
    if (rc != RC_OK && rc != RC_AGAIN && !suffix.n && r->opts->request_id_headers)
        gen_asked_id(body, &r->opts->limit, asked);
    return rc;
}

static void prepare_run(struct pool_job *job) {
    struct prepare *p = CONTAINER_OF(job, struct prepare, job);
    struct router *r = p->loop->router;
    struct str body = {p->body.p, p->body.n};
    (void)prepare(r, p->route, body, str_of(p->suffix), false, &p->req, &p->err, p->asked);
    body_drop(r, &p->body);
    loop_post(p->loop, &p->msg);
}

bool offload_here(const struct loop *l, size_t n) {
    return n <= HERE_BODY_BYTES && clock_ns() >= l->offload_until_ns;
}

/* learn: a running mean, in which one piece counts little however long it took: the thread may have lost its
 * core meanwhile. */
static void learn(struct loop *l, uint64_t begin_ns, uint64_t end_ns) {
    enum { SHARE = 16, PIECE_US_MAX = 1000 };
    int64_t took_ns = (int64_t)MIN(end_ns - begin_ns, PIECE_US_MAX * NS_PER_US);
    l->here_ns += (took_ns - l->here_ns) / SHARE;
    if (l->here_ns > (int64_t)(LOOP_SLICE_US * NS_PER_US)) {
        l->here_ns = 0;
        l->offload_until_ns = end_ns + NS_PER_S;
    }
}

bool offload_prepare_here(struct loop *l, void *owner,
                          void (*done)(struct loop *l, void *owner, struct gen_req *req, const struct err *e,
                                       const char *asked_id),
                          enum gen_route route, struct str body, struct str suffix) {
    struct err e;
    char asked[GEN_ID_BYTES_MAX + 1];
    uint64_t begin_ns = clock_ns();
    struct gen_req *req;
    enum rc rc = prepare(l->router, route, body, suffix, true, &req, &e, asked);
    learn(l, begin_ns, clock_ns());
    if (rc == RC_AGAIN)
        return false;
    done(l, owner, req, &e, asked);
    return true;
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
    if (pool_submit(l->router->pool, class_of(body), &p->job))
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
    case WORK_OPENAPI:
        api_openapi(r->opts, &x->out);
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
    if (held && pool_submit(l->router->pool, class_of((struct str){x->body.p, x->body.n}), &x->job)) {
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
