#include "router/reply.h"

#include <stdio.h>
#include <stdlib.h>

#include "router/api/error.h"
#include "router/conn.h"
#include "router/cors.h"

static const char hex_digits[] = "0123456789abcdef";

void reply_header(h2o_req_t *req, const char *name, struct str value) {
    h2o_iovec_t v = h2o_strdup(&req->pool, value.p, value.n);
    h2o_add_header_by_str(&req->pool, &req->res.headers, name, strlen(name), 1, NULL, v.base, v.len);
}

bool reply_request_id(const h2o_req_t *req, struct str *out) {
    ssize_t i = h2o_find_header_by_str(&req->headers, H2O_STRLIT("x-request-id"), -1);
    *out = (struct str){0};
    if (i < 0)
        return true;
    struct str v = str_of_iovec(req->headers.entries[i].value);
    if (v.n < 1 || v.n > 128)
        return false;
    for (size_t k = 0; k < v.n; k++) {
        if (v.p[k] < 0x21 || v.p[k] > 0x7e)
            return false;
    }
    *out = v;
    return true;
}

void reply_id_header(h2o_req_t *req, struct str suffix) {
    struct str header;
    char fresh[32];
    if (!loop_of(req)->router->opts->request_id_headers)
        return;
    if (reply_request_id(req, &header) && header.n) {
        suffix = header;
    } else if (suffix.n == 0) {
        uint8_t random[16];
        fill_random(random, sizeof random);
        for (size_t i = 0; i < sizeof random; i++) {
            fresh[2 * i] = hex_digits[random[i] >> 4];
            fresh[2 * i + 1] = hex_digits[random[i] & 15];
        }
        suffix = (struct str){fresh, sizeof fresh};
    }
    reply_header(req, "x-request-id", suffix);
}

/* A body on its way: freed with the request's pool, which is after the last byte was handed to the kernel. */
struct reply {
    h2o_generator_t super;
    struct buf body;
};

static void reply_dispose(void *p) {
    struct reply *r = p;
    buf_fini(&r->body);
}

static void begin(h2o_req_t *req, int status, struct str suffix) {
    req->res.status = status;
    req->res.reason = api_reason(status);
    if (atomic_load_explicit(&loop_of(req)->router->draining, memory_order_relaxed))
        req->http1_is_persistent = 0;
    reply_id_header(req, suffix);
}

void reply_body(h2o_req_t *req, int status, const char *content_type, struct buf *body, struct str suffix) {
    struct reply *r = h2o_mem_alloc_shared(&req->pool, sizeof *r, reply_dispose);
    *r = (struct reply){.body = *body};
    *body = (struct buf){0};
    begin(req, status, suffix);
    req->res.content_length = r->body.len;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, content_type,
                   strlen(content_type));
    h2o_start_response(req, &r->super);
    h2o_iovec_t v = h2o_iovec_init(r->body.data, r->body.len);
    bool empty = r->body.len == 0 || str_eqz(str_of_iovec(req->input.method), "HEAD");
    h2o_send(req, &v, empty ? 0 : 1, H2O_SEND_STATE_FINAL);
}

void reply_empty(h2o_req_t *req, int status, struct str suffix) {
    static h2o_generator_t nothing = {NULL, NULL};
    begin(req, status, suffix);
    if (status != 204)
        req->res.content_length = 0;
    h2o_start_response(req, &nothing);
    h2o_send(req, NULL, 0, H2O_SEND_STATE_FINAL);
}

void reply_error(h2o_req_t *req, const struct err *e, unsigned retry_after_s, struct str suffix) {
    struct buf body = {0};
    char seconds[16];
    api_error_body(e, &body);
    if (retry_after_s) {
        snprintf(seconds, sizeof seconds, "%u", retry_after_s);
        reply_header(req, "retry-after", str_of(seconds));
    }
    reply_json(req, api_status(e->rc), &body, suffix);
}

/* ---- every response, h2o's own errors among them
 * -------------------------------------------------------------------------------- */

struct own_error {
    h2o_ostream_t super;
    h2o_iovec_t body;
};

static void own_error_send(h2o_ostream_t *self, h2o_req_t *req, h2o_iovec_t *bufs, size_t n,
                           h2o_send_state_t state) {
    struct own_error *o = (struct own_error *)self;
    (void)bufs;
    /* h2o sends such a body in one piece; HEAD has none. */
    h2o_ostream_send_next(self, req, &o->body, n ? 1 : 0, state);
}

/* own_error_body: 417 and the like have no row in the table of types; they are bad requests. */
static void own_error_body(int status, uint64_t limit_bytes, struct buf *out) {
    char message[160];
    if (status == 413)
        snprintf(message, sizeof message, "The request body is over %llu bytes (--max-body-bytes)",
                 (unsigned long long)limit_bytes);
    else
        snprintf(message, sizeof message, "The request cannot be read: %s",
                 status == 417 ? "it expects what this server does not know"
                               : "its head or its chunks are malformed");
    buf_addz(out, "{\"error\":{\"message\":");
    jw_strz(out, message);
    buf_addz(out, ",\"type\":");
    jw_strz(out, api_error_type(status == 413 ? 413 : 400));
    buf_addf(out, ",\"param\":null,\"code\":%d}}", status);
}

/* add_cors: who else's pages may read this response. */
static void add_cors(h2o_req_t *req) {
    const struct cors *c = loop_of(req)->router->cors;
    ssize_t i = h2o_find_header_by_str(&req->headers, H2O_STRLIT("origin"), -1);
    if (i < 0)
        return;
    struct str allow = cors_allow(c, str_of_iovec(req->headers.entries[i].value));
    if (cors_varies(c))
        reply_header(req, "vary", STR_LIT("Origin"));
    if (!allow.n)
        return;
    reply_header(req, "access-control-allow-origin", allow);
    if (cors_credentials(c))
        reply_header(req, "access-control-allow-credentials", STR_LIT("true"));
}

static void on_response(h2o_filter_t *self, h2o_req_t *req, h2o_ostream_t **slot) {
    (void)self;
    add_cors(req);
    ssize_t i = h2o_find_header(&req->res.headers, H2O_TOKEN_CONTENT_TYPE, -1);
    /* Only h2o answers an error in plain text. */
    if (req->res.status >= 400 && i >= 0 &&
        str_starts(str_of_iovec(req->res.headers.entries[i].value), STR_LIT("text/plain"))) {
        const struct router_opts *opts = loop_of(req)->router->opts;
        struct buf body = {0};
        if (req->res.status == 413)
            rmetrics_reject(loop_of(req)->router->metrics, REJECT_LIMIT, 413);
        own_error_body(req->res.status, opts->limit.body_bytes, &body);
        req->res.reason = api_reason(req->res.status);
        struct own_error *o = (struct own_error *)h2o_add_ostream(req, sizeof *o, slot);
        o->super.do_send = own_error_send;
        o->body = h2o_strdup(&req->pool, body.data, body.len);
        buf_fini(&body);
        req->res.content_length = o->body.len;
        req->res.headers.entries[i].value = h2o_iovec_init(H2O_STRLIT("application/json"));
        reply_id_header(req, (struct str){0});
        conn_linger(conn_of(req));
        slot = &o->super.next;
    }
    h2o_setup_next_ostream(req, slot);
}

void reply_filter_init(h2o_pathconf_t *p) {
    h2o_filter_t *f = h2o_create_filter(p, sizeof *f);
    f->on_setup_ostream = on_response;
}
