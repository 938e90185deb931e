/* The handler: what every request goes through before a route has it, in the order of api.md 3.3. */
#include <stdio.h>

#include "router/admin.h"
#include "router/admit.h"
#include "router/api/error.h"
#include "router/auth.h"
#include "router/conn.h"
#include "router/cors.h"
#include "router/http2.h"
#include "router/offload.h"
#include "router/pages.h"
#include "router/rawhead.h"
#include "router/reply.h"
#include "router/session.h"

/* ---- checks ------------------------------------------------------------------------------------------ */

/* check_head: what h2o has let pass. A head with a fault is answered and its connection closed: what follows
 * it cannot be told from its body. */
static bool check_head(h2o_req_t *req, struct err *e) {
    const struct router_limits *limit = &loop_of(req)->router->opts->limit;
    struct conn *c = conn_of(req);
    struct rawhead h;
    if (req->version >= 0x200) {
        http2_head(req, &h);
    } else if (!rawhead_scan(c->sock->input->bytes, c->sock->input->size, &h)) {
        err_set(e, RC_INVALID, NULL, "The request's head cannot be read");
        goto bad;
    }
    if (h.n_transfer_encoding) {
        req->http1_is_persistent = 0;
        conn_linger(c);
    }
    switch (rawhead_check(&h, limit->header_bytes, (size_t)limit->header_count)) {
    case RAWHEAD_OK:
        if (req->version >= 0x200 && !http2_check_body(req, e))
            break;
        return true;
    case RAWHEAD_TOO_LARGE:
        err_set(e, RC_HEADERS, NULL, "The request line and headers are over %llu bytes (--max-header-bytes)",
                (unsigned long long)limit->header_bytes);
        break;
    case RAWHEAD_TOO_MANY:
        err_set(e, RC_HEADERS, NULL, "The request has more than %lld headers (--max-header-count)",
                (long long)limit->header_count);
        break;
    case RAWHEAD_LENGTH_REPEATED:
        err_set(e, RC_INVALID, NULL, "Content-Length is given more than once");
        break;
    case RAWHEAD_LENGTH_AND_TE:
        err_set(e, RC_INVALID, NULL, "Transfer-Encoding is repeated, or given beside Content-Length");
        break;
    case RAWHEAD_HOST:
        err_set(e, RC_INVALID, NULL, "The Host header is repeated or is no host");
        break;
    case RAWHEAD_FOLDED:
        err_set(e, RC_INVALID, NULL, "A header that frames the request is folded over two lines");
        break;
    }
bad:
    req->http1_is_persistent = 0;
    conn_linger(c);
    return false;
}

static bool header(const h2o_req_t *req, const char *name, struct str *out) {
    ssize_t i = h2o_find_header_by_str(&req->headers, name, strlen(name), -1);
    if (i < 0)
        return false;
    *out = str_of_iovec(req->headers.entries[i].value);
    return true;
}

/* word: the value up to a semicolon, without blanks around it. */
static struct str word(struct str s) {
    const char *end = s.n ? memchr(s.p, ';', s.n) : NULL;
    if (end)
        s.n = (size_t)(end - s.p);
    while (s.n && (*s.p == ' ' || *s.p == '\t'))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

static bool same(struct str s, const char *lower) {
    return h2o_lcstris(s.p, s.n, lower, strlen(lower)) != 0;
}

/* all_identity: whether every member of a Content-Encoding list is identity. */
static bool all_identity(struct str list) {
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        struct str one = {list.p, comma ? (size_t)(comma - list.p) : list.n};
        if (word(one).n && !same(word(one), "identity"))
            return false;
        size_t used = one.n + (comma != NULL);
        list = (struct str){list.p + used, list.n - used};
    }
    return true;
}

/* check_key: one Authorization header, and a key that is known. Missing and wrong keys are not told apart. */
static bool check_key(const h2o_req_t *req, struct auth *a, struct auth_key *key, struct err *e) {
    const h2o_header_t *found = NULL;
    unsigned n = 0;
    for (size_t i = 0; i < req->headers.size; i++) {
        const h2o_header_t *h = &req->headers.entries[i];
        if (h->name == &H2O_TOKEN_AUTHORIZATION->buf) {
            found = h;
            n++;
        }
    }
    if (n == 1 && auth_allows(a, str_of_iovec(found->value), key))
        return true;
    err_set(e, RC_UNAUTHORIZED, NULL,
            "This server wants an API key that it knows: Authorization: Bearer KEY");
    return false;
}

static bool check_body_headers(const h2o_req_t *req, struct err *e) {
    struct str v;
    bool has = header(req, "content-type", &v);
    if (!has || !same(word(v), "application/json")) {
        struct str w = has ? word(v) : (struct str){0};
        err_set(e, RC_INVALID, NULL, "Unsupported Media Type: '%.*s'; this path takes application/json",
                (int)MIN(w.n, 200), w.p ? w.p : "");
        return false;
    }
    for (size_t i = 0; i < req->headers.size; i++) { /* repeated headers are one list */
        const h2o_header_t *h = &req->headers.entries[i];
        if (h2o_memis(h->name->base, h->name->len, H2O_STRLIT("content-encoding")) &&
            !all_identity(str_of_iovec(h->value))) {
            err_set(e, RC_INVALID, NULL, "Content-Encoding other than identity is not supported");
            return false;
        }
    }
    return true;
}

/* ---- the handler ------------------------------------------------------------------------------------- */

static void dispatch(h2o_req_t *req, const struct route *route, struct str path, struct str suffix,
                     const struct admitted *a) {
    struct err e;
    switch (route->id) {
    case ROUTE_COMPLETIONS:
        session_begin(req, GEN_COMPLETIONS, suffix, a);
        break;
    case ROUTE_CHAT:
        session_begin(req, GEN_CHAT, suffix, a);
        break;
    case ROUTE_EMBEDDINGS:
        session_begin(req, GEN_EMBEDDINGS, suffix, a);
        break;
    case ROUTE_POOLING:
        session_begin(req, GEN_POOLING, suffix, a);
        break;
    case ROUTE_CLASSIFY:
        session_begin(req, GEN_CLASSIFY, suffix, a);
        break;
    case ROUTE_SCORE:
        session_begin(req, GEN_SCORE, suffix, a);
        break;
    case ROUTE_RERANK:
        session_begin(req, GEN_RERANK, suffix, a);
        break;
    case ROUTE_TOKENIZE:
        offload_reply(req, WORK_TOKENIZE, suffix);
        break;
    case ROUTE_DETOKENIZE:
        offload_reply(req, WORK_DETOKENIZE, suffix);
        break;
    case ROUTE_METRICS:
        offload_reply(req, WORK_METRICS, suffix);
        break;
    case ROUTE_OPENAPI:
        offload_reply(req, WORK_OPENAPI, suffix);
        break;
    case ROUTE_MODELS:
        page_models(req, suffix);
        break;
    case ROUTE_MODEL:
        page_model(req, route, path, suffix);
        break;
    case ROUTE_HEALTH:
    case ROUTE_PING:
        page_health(req, suffix);
        break;
    case ROUTE_LIVEZ:
        reply_empty(req, 200, suffix);
        break;
    case ROUTE_VERSION:
        page_version(req, suffix);
        break;
    case ROUTE_LOAD:
        page_load(req, suffix);
        break;
    case ROUTE_PLAYGROUND:
        page_playground(req, suffix);
        break;
    case ROUTE_ABORT:
        admin_abort(req, suffix);
        break;
    case ROUTE_RESET:
        admin_reset(req, suffix);
        break;
    case ROUTE_REQUESTS:
        admin_requests(req, suffix);
        break;
    case ROUTE_WORKERS:
        admin_workers(req, suffix);
        break;
    case ROUTE_TOKENIZER_INFO:
        page_tokenizer_info(req, suffix);
        break;
    case ROUTE_NOT_BUILT:
        err_set(&e, RC_UNSUPPORTED, NULL, "%s is not in this build", route->label);
        reply_error(req, &e, 0, suffix);
        break;
    }
}

/* path_of: as the client wrote it, without the query and --root-path. */
static struct str path_of(const h2o_req_t *req) {
    struct str p = str_of_iovec(req->input.path);
    if (req->input.query_at < p.n)
        p.n = req->input.query_at;
    return route_strip(p, str_of(loop_of(req)->router->root));
}

/* mounted: the route of a path, if the flags have it. */
static const struct route *mounted(const struct router_opts *o, struct str path) {
    const struct route *route = route_find(path);
    return route && route_mounted(route, o) ? route : NULL;
}

/* preflight: whether an OPTIONS request was one, and is answered: with 200 on every path, so that a page gets
 * to read the 404 of its real request. Access-Control-Allow-Origin comes with every response (reply.c). */
static bool preflight(h2o_req_t *req, const struct cors *c) {
    struct str origin, method, asked = {0};
    if (!header(req, "origin", &origin) || !header(req, "access-control-request-method", &method))
        return false;
    (void)header(req, "access-control-request-headers", &asked);
    asked = cors_headers(c, asked);
    reply_header(req, "access-control-allow-methods", cors_methods(c));
    if (asked.n)
        reply_header(req, "access-control-allow-headers", asked);
    reply_header(req, "access-control-max-age", STR_LIT("600"));
    reply_empty(req, 200, (struct str){0});
    return true;
}

static int on_req(h2o_handler_t *self, h2o_req_t *req) {
    (void)self;
    LOOP_WATCH_BEGIN();
    struct router *r = loop_of(req)->router;
    struct conn *c = conn_of(req);
    struct str path = path_of(req), method = str_of_iovec(req->input.method), suffix = {0};
    const struct route *route = NULL;
    struct auth_key key = {.quota = NULL};
    struct admitted admitted = {.quota = NULL};
    struct err e;
    unsigned retry_after_s = 0;
    bool options = str_eqz(method, "OPTIONS");
    if (UNLIKELY(c->http2) && c->cut)
        return 0; /* what libh2o had read already; nobody waits for an answer */
    c->busy = true;
    if (!check_head(req, &e))
        goto fail;
    if (UNLIKELY(r->auth) && !options && !auth_open(path, !r->opts->metrics_auth) &&
        !check_key(req, r->auth, &key, &e)) {
        reply_header(req, "www-authenticate", STR_LIT("Bearer"));
        goto fail;
    }
    if (options && preflight(req, r->cors))
        return 0; /* no key was asked for */
    route = mounted(r->opts, path);
    if (!route) {
        err_set(&e, RC_NOT_FOUND, NULL, "Not Found");
        goto fail;
    }
    if (options) {
        reply_header(req, "allow", str_of(route_allow(route)));
        reply_empty(req, 204, suffix);
        return 0;
    }
    if (!(route_method(method) & route->methods)) {
        reply_header(req, "allow", str_of(route_allow(route)));
        err_set(&e, RC_METHOD, NULL, "Method Not Allowed");
        goto fail;
    }
    if (!reply_request_id(req, &suffix)) {
        err_set(&e, RC_INVALID, NULL,
                "X-Request-Id must be 1 to 128 printable ASCII characters without blanks");
        goto fail;
    }
    if (route->flags & ROUTE_JSON && atomic_load(&r->draining)) {
        session_unavailable(r, &e);
        rmetrics_reject(r->metrics, REJECT_DRAINING, 503);
        retry_after_s = 5;
        goto fail;
    }
    if (route->flags & ROUTE_JSON && !check_body_headers(req, &e))
        goto fail;
    if (route->flags & ROUTE_INFERENCE && !admit(req, &key, &admitted, &e, &retry_after_s))
        goto fail;
    dispatch(req, route, path, suffix, &admitted);
    quota_drop(key.quota);
    LOOP_WATCH_END(route->label);
    return 0;
fail:
    quota_drop(key.quota);
    reply_error(req, &e, retry_after_s, suffix);
    return 0;
}

/* on_access: after the last byte, or after the client's departure. */
static void on_access(h2o_logger_t *self, h2o_req_t *req) {
    (void)self;
    struct router *r = loop_of(req)->router;
    struct conn *c = conn_of(req);
    const struct timeval *t0 = &req->timestamps.request_begin_at;
    struct timeval now;
    gettimeofday(&now, NULL);
    double seconds = (double)(now.tv_sec - t0->tv_sec) + (double)(now.tv_usec - t0->tv_usec) * 1e-6;
    rmetrics_http(r->metrics, mounted(r->opts, path_of(req)), str_of_iovec(req->input.method),
                  req->res.status, seconds > 0 ? seconds : 0, req->entity.len, req->bytes_sent);
    if (UNLIKELY(c->http2))
        http2_ended(req);
    conn_done(c);
}

void server_init(struct router *r) {
    h2o_globalconf_t *conf = &r->conf;
    const struct router_opts *o = r->opts;
    h2o_config_init(conf);
    conf->server_name = h2o_iovec_init(H2O_STRLIT("weir"));
    conf->max_request_entity_size = o->limit.body_bytes;
    /* h2o has one timer from one response to the end of the next request; conn.c keeps the two apart, this is
     * the backstop. */
    conf->http1.req_timeout = (uint64_t)((o->keep_alive_s + (double)o->limit.body_timeout_s + 5) * 1000);
    h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX; /* prompts never reach the disk */
    h2o_hostconf_t *host = h2o_config_register_host(conf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_handler_t *handler = h2o_create_handler(&host->fallback_path, sizeof *handler);
    handler->on_req = on_req;
    reply_filter_init(&host->fallback_path);
    h2o_logger_t *logger = h2o_create_logger(&host->fallback_path, sizeof *logger);
    logger->log_access = on_access;
    http2_conf(r, host);
}
