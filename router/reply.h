/* reply.h: whole responses: JSON, errors, text. Each ends the request: after it req belongs to h2o alone.
 *
 * suffix is the request's id as the client may see it (api.md 2.6.3), empty if there is none yet: with
 * --enable-request-id-headers every response carries one. Threads: the request's loop.
 */
#ifndef WEIR_ROUTER_REPLY_H
#define WEIR_ROUTER_REPLY_H

#include "router/core.h"

/* reply_body: body is taken over and freed when it has been sent. content_type must be static. HEAD gets the
 * headers alone. */
void reply_body(h2o_req_t *req, int status, const char *content_type, struct buf *body, struct str suffix);
static inline void reply_json(h2o_req_t *req, int status, struct buf *body, struct str suffix) {
    reply_body(req, status, "application/json", body, suffix);
}
/* reply_empty: no body, Content-Length 0 (204: none). */
void reply_empty(h2o_req_t *req, int status, struct str suffix);
/* reply_error: the body of api.md 3.1 with the status of e->rc. retry_after_s 0: no header. */
void reply_error(h2o_req_t *req, const struct err *e, unsigned retry_after_s, struct str suffix);
/* reply_header: adds a header; name is static, value is copied. */
void reply_header(h2o_req_t *req, const char *name, struct str value);
/* reply_id_header: X-Request-Id, if the flag asks for it. For responses that do not come from this file. */
void reply_id_header(h2o_req_t *req, struct str suffix);
/* reply_request_id: the request's header if it is there. False: there, and not 1 to 128 bytes of 0x21 to
 * 0x7E. */
bool reply_request_id(const h2o_req_t *req, struct str *out);

/* reply_filter_init: a filter that adds CORS headers to every response, and gives the errors h2o writes by itself (413, 417, ...) the body of
 * api.md 3.1. */
void reply_filter_init(h2o_pathconf_t *p);

#endif
