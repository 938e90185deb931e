/* tls.h: TLS 1.2 and 1.3 on the listening socket (api.md 19.3.4), by OpenSSL through libh2o.
 *
 * Files may be replaced while the server runs: the context that loops know stays, and hands every new
 * connection the newest certificate, key and authorities that could be read. Connections that are open keep
 * theirs.
 *
 * Threads: made before the loops, then read by them; tls_refresh by one thread beside them.
 */
#ifndef WEIR_ROUTER_TLS_H
#define WEIR_ROUTER_TLS_H

#include "router/opts.h"

struct ssl_ctx_st;
struct tls;

/* tls_new: *out NULL without --ssl-certfile. The certificate file is a chain in PEM, the server's first; the
 * key is in --ssl-keyfile, or in the same file. With --ssl-cert-reqs 1 or 2 clients are asked for
 * certificates of --ssl-ca-certs: 1: one that is shown must be good; 2: one must be shown. http2: h2 is
 * offered by ALPN. RC_INVALID names the flag and the reason, never what a file holds. o must outlive it. */
MUST_USE enum rc tls_new(struct tls **out, const struct router_opts *o, struct err *e);
void tls_free(struct tls *t);
/* tls_context: for libh2o; the same for ever; NULL: t is. */
struct ssl_ctx_st *tls_context(const struct tls *t);

enum tls_news { TLS_SAME = 0, TLS_LOADED, TLS_FAILED };
/* tls_refresh: reads the files again if they have changed since they were last looked at, or if forced.
 * TLS_FAILED: they cannot be used, as e says; those in use stay. A file that is being replaced looks wrong
 * for a moment, and changed once more afterwards. t NULL: TLS_SAME. */
enum tls_news tls_refresh(struct tls *t, bool forced, struct err *e);

#endif
