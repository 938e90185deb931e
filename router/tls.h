/* tls.h: TLS 1.2 and 1.3 on the listening socket (api.md 19.3.4), by OpenSSL through libh2o. Threads: made
 * before the loops, then read by them; OpenSSL locks what it must. */
#ifndef WEIR_ROUTER_TLS_H
#define WEIR_ROUTER_TLS_H

#include "router/opts.h"

struct ssl_ctx_st;

/* tls_new: *out NULL without --ssl-certfile. The certificate file is a chain in PEM, the server's first; the
 * key is in --ssl-keyfile, or in the same file. With --ssl-cert-reqs 1 or 2 clients are asked for
 * certificates of
 * --ssl-ca-certs: 1: one that is shown must be good; 2: one must be shown. http2: h2 is offered by ALPN.
 * RC_INVALID names the flag and the reason, never what a file holds. */
MUST_USE enum rc tls_new(struct ssl_ctx_st **out, const struct router_opts *o, struct err *e);
void tls_free(struct ssl_ctx_st *ctx);

#endif
