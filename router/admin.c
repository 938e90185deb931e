#include "router/admin.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "router/reply.h"
#include "router/session_private.h"

enum { BODY_BYTES_MAX = 256 * 1024, SESSIONS_PER_STEP = 32, ROWS_MAX = 1000 };

/* ---- a round through the loops ----------------------------------------------------------------------- */

/* A request that every loop has a part of the answer to. The loops visit their sessions one after the other,
 * some at a time: a message stays at the head of its loop's backlog until it is done, so rounds do not mix
 * there. */
struct round {
    struct loop_msg back;  /* to the loop that was asked */
    struct stream *stream; /* NULL: the client is gone. That loop's. */
    char suffix[129];
    json_t *ids; /* abort: a list, or NULL for all; only read meanwhile */
    bool abort;
    uint64_t serial;
    _Atomic unsigned n_left;
    _Atomic uint64_t n_aborted, n_seen; /* n_seen: requests there are; the first ROWS_MAX have a row */
    pthread_mutex_t lock; /* of rows */
    struct buf rows;
};
struct visit {
    struct loop_msg msg;
    struct round *round;
    struct loop *home;
    struct buf rows;
};

static void gone(void *owner) {
    struct round *r = owner;
    r->stream = NULL;
}

static bool round_back(struct loop *l, struct loop_msg *m) {
    struct round *r = CONTAINER_OF(m, struct round, back);
    struct buf b = {0};
    (void)l;
    if (r->abort)
        buf_addf(&b, "{\"status\":\"aborted\",\"aborted\":%llu}",
                 (unsigned long long)atomic_load(&r->n_aborted));
    else
        buf_addf(&b, "{\"requests\":[%.*s],\"total\":%llu}", (int)r->rows.len, r->rows.data ? r->rows.data : "",
                 (unsigned long long)atomic_load(&r->n_seen));
    if (r->stream)
        reply_json(stream_take(r->stream), 200, &b, str_of(r->suffix));
    buf_fini(&b);
    buf_fini(&r->rows);
    pthread_mutex_destroy(&r->lock);
    json_decref(r->ids);
    free(r);
    return true;
}

static bool is_named(const struct session *s, const json_t *ids) {
    char id[GEN_ID_BYTES_MAX + 64];
    session_client_id(s, id, sizeof id);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        if (!strcmp(json_string_value(json_array_get(ids, i)), id))
            return true;
    }
    return false;
}

static void visit(struct visit *v, struct session *s) {
    struct round *r = v->round;
    s->round = r->serial;
    if (r->abort) {
        if (!r->ids || is_named(s, r->ids)) {
            atomic_fetch_add(&r->n_aborted, 1);
            session_abort(s);
        }
        return;
    }
    if (atomic_fetch_add(&r->n_seen, 1) >= ROWS_MAX)
        return;
    if (v->rows.len)
        buf_addc(&v->rows, ',');
    session_describe(s, &v->rows);
}

/* visit_list: those of a list that were not visited, up to the step's share. */
static void visit_list(struct visit *v, struct session *first, unsigned *n) {
    for (struct session *s = first, *next; s && *n < SESSIONS_PER_STEP; s = next) {
        next = s->next;
        if (s->round == v->round->serial)
            continue;
        visit(v, s);
        ++*n;
    }
}

static bool visit_step(struct loop *l, struct loop_msg *m) {
    struct visit *v = CONTAINER_OF(m, struct visit, msg);
    struct round *r = v->round;
    unsigned n = 0;
    visit_list(v, l->sessions, &n);
    if (!r->abort)
        visit_list(v, l->ended, &n);
    if (n == SESSIONS_PER_STEP)
        return false;
    if (v->rows.len) {
        pthread_mutex_lock(&r->lock);
        if (r->rows.len)
            buf_addc(&r->rows, ',');
        buf_add(&r->rows, v->rows.data, v->rows.len);
        pthread_mutex_unlock(&r->lock);
    }
    struct loop *home = v->home;
    buf_fini(&v->rows);
    free(v);
    if (atomic_fetch_sub(&r->n_left, 1) == 1)
        loop_post(home, &r->back);
    return true;
}

/* go_round: ids is taken over. */
static void go_round(h2o_req_t *req, bool abort, json_t *ids, struct str suffix) {
    static _Atomic uint64_t n_rounds;
    struct loop *l = loop_of(req);
    struct router *router = l->router;
    struct round *r = xcalloc(1, sizeof *r);
    r->back.step = round_back;
    r->abort = abort;
    r->ids = ids;
    r->serial = atomic_fetch_add(&n_rounds, 1) + 1;
    snprintf(r->suffix, sizeof r->suffix, "%.*s", (int)suffix.n, suffix.p ? suffix.p : "");
    pthread_mutex_init(&r->lock, NULL);
    atomic_init(&r->n_left, router->n_loops);
    r->stream = stream_new(req, false, r, gone);
    for (unsigned i = 0; i < router->n_loops; i++) {
        struct visit *v = xcalloc(1, sizeof *v);
        v->msg.step = visit_step;
        v->round = r;
        v->home = l;
        loop_post(&router->loops[i], &v->msg);
    }
}

void admin_requests(h2o_req_t *req, struct str suffix) {
    go_round(req, false, NULL, suffix);
}

/* read_ids: *ids NULL: all. */
static enum rc read_ids(struct str body, const struct router_limits *limit, json_t **ids, struct err *e) {
    const struct json_limits limits = {.depth_max = (size_t)limit->json_depth,
                                       .nodes_max = (size_t)limit->json_nodes,
                                       .keys_max = (size_t)limit->json_keys};
    json_t *root = NULL;
    const json_t *list = NULL;
    *ids = NULL;
    if (body.n == 0)
        return RC_OK;
    if (body.n > BODY_BYTES_MAX)
        return err_set(e, RC_TOO_LARGE, NULL, "The body is over %d bytes", BODY_BYTES_MAX);
    enum rc rc = json_parse(body, &limits, &root, e);
    if (rc == RC_OK && !json_is_object(root))
        rc = err_set(e, RC_INVALID, NULL, "The body must be an object, not %s", json_kind(root));
    if (rc == RC_OK)
        rc = json_get_list(root, "", "request_ids", &list, NULL, e);
    for (size_t i = 0; rc == RC_OK && i < json_array_size(list); i++) {
        char param[64];
        snprintf(param, sizeof param, "request_ids.%zu", i);
        if (!json_is_string(json_array_get(list, i)))
            rc = err_set(e, RC_INVALID, param, "%s must be a string", param);
    }
    if (rc == RC_OK && json_array_size(list))
        CHECK((*ids = json_deep_copy(list)));
    json_decref(root);
    return rc;
}

void admin_abort(h2o_req_t *req, struct str suffix) {
    json_t *ids;
    struct err e;
    if (read_ids(str_of_iovec(req->entity), &loop_of(req)->router->opts->limit, &ids, &e) != RC_OK)
        reply_error(req, &e, 0, suffix);
    else
        go_round(req, true, ids, suffix);
}

/* ---- workers ----------------------------------------------------------------------------------------- */

void admin_workers(h2o_req_t *req, struct str suffix) {
    struct buf b = {0};
    fleet_workers_write(loop_of(req)->router->fleet, &b);
    reply_json(req, 200, &b, suffix);
}

struct reset {
    struct fleet_reset order;
    struct stream *stream;
    char suffix[129];
};

static void reset_gone(void *owner) {
    struct reset *r = owner;
    r->stream = NULL;
}

static bool reset_back(struct loop *l, struct loop_msg *m) {
    struct reset *r = CONTAINER_OF(m, struct reset, order.msg);
    struct buf b = {0};
    (void)l;
    buf_addf(&b, "{\"success\":%s}", r->order.ok ? "true" : "false");
    if (r->stream)
        reply_json(stream_take(r->stream), 200, &b, str_of(r->suffix));
    buf_fini(&b);
    free(r);
    return true;
}

void admin_reset(h2o_req_t *req, struct str suffix) {
    struct loop *l = loop_of(req);
    struct reset *r = xcalloc(1, sizeof *r);
    struct err e;
    r->order.msg.step = reset_back;
    r->order.loop = l->index;
    snprintf(r->suffix, sizeof r->suffix, "%.*s", (int)suffix.n, suffix.p ? suffix.p : "");
    r->stream = stream_new(req, false, r, reset_gone);
    enum rc rc = fleet_reset(l->router->fleet, &r->order);
    if (rc == RC_OK)
        return;
    if (rc == RC_AGAIN)
        err_set(&e, RC_UNAVAILABLE, NULL, "The caches are being reset already");
    else
        session_unavailable(l->router, &e);
    reply_error(stream_take(r->stream), &e, RETRY_AFTER_LOADING_S, suffix);
    free(r);
}
