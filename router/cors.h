/* cors.h: what pages of other origins may do here (api.md 2.7). Pure, but for the one function that reads
 * flags.
 *
 * A response to a request with an Origin header says who may read it; a preflight is answered with what may
 * be sent. With credentials the origin is always echoed, never "*". Threads: any; immutable once made.
 */
#ifndef WEIR_ROUTER_CORS_H
#define WEIR_ROUTER_CORS_H

#include "common/buf.h"
#include "router/opts.h"

struct cors;

/* cors_new: RC_INVALID names the flag whose value is no list of origins, methods or header names. */
MUST_USE enum rc cors_new(struct cors **out, const struct router_opts *o, struct err *e);
void cors_free(struct cors *c);

/* cors_allow: the value of Access-Control-Allow-Origin for an Origin; empty: it is not allowed. Borrowed from
 * both. */
struct str cors_allow(const struct cors *c, struct str origin);
/* cors_varies: whether that value depends on the origin, so that caches must be told (Vary). */
bool cors_varies(const struct cors *c);
bool cors_credentials(const struct cors *c);
/* cors_methods: of a preflight's answer. Borrowed. */
struct str cors_methods(const struct cors *c);
/* cors_headers: of a preflight's answer; asked: its Access-Control-Request-Headers. "*" does not cover
 * Authorization, so where every header is allowed the ones asked for are named. Borrowed from both; empty:
 * leave the header out. */
struct str cors_headers(const struct cors *c, struct str asked);

#endif
