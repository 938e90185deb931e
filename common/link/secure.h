/* secure.h: what two ends of the link show each other: the cluster's token, and certificates for tls+tcp addresses.
 *
 * The token is proved, not sent (hello.h); without TLS the link is readable and the token keeps strangers out. With TLS
 * a listener shows its certificate, and asks for one if it has authorities to hold it against; a dialler always holds
 * the listener's certificate against its authorities and the name: that of the URL's host, or one that the operator
 * gives, since certificates name addresses rarely and mbed TLS, which is nng's engine, does not look at those that do.
 * TLS 1.2 or later.
 *
 * Threads: read-only once made.
 */
#ifndef WEIR_COMMON_LINK_SECURE_H
#define WEIR_COMMON_LINK_SECURE_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include "common/buf.h"
#include "common/err.h"

struct link_tls_files { /* PEM; each may be NULL */
    const char *ca;     /* --cluster-tls-ca: authorities of peers' certificates */
    const char *cert;   /* --cluster-tls-certfile: this end's, with its chain */
    const char *key;    /* --cluster-tls-keyfile; NULL: in the file of the certificate */
    const char *name;   /* --cluster-tls-name: what listeners' certificates must name; NULL: the URL's host */
};
struct link_tls;

/* link_tls_new: reads the files. *out NULL: there are none. RC_INVALID names what cannot be used. */
MUST_USE enum rc link_tls_new(struct link_tls **out, const struct link_tls_files *files, struct err *e);
void link_tls_free(struct link_tls *t);
/* link_tls_listens, link_tls_dials: whether it has what a tls+tcp address takes; t may be NULL. link_tls_mutual: whether
 * peers of a listener have to show a certificate. */
bool link_tls_listens(const struct link_tls *t);
bool link_tls_dials(const struct link_tls *t);
bool link_tls_mutual(const struct link_tls *t);

/* link_tls_server, link_tls_client: a configuration of nng's, the caller's to free. url: the one that is dialled. */
MUST_USE enum rc link_tls_server(const struct link_tls *t, nng_tls_config **out, struct err *e);
MUST_USE enum rc link_tls_client(const struct link_tls *t, const char *url, nng_tls_config **out, struct err *e);

/* link_is_tls: whether an address is tls+tcp. link_is_local: whether only this machine reaches it: a Unix socket, or
 * loopback. */
bool link_is_tls(const char *url);
bool link_is_local(const char *url);

/* link_secret_read: appends a token file's first line, without blanks at its end. path NULL: nothing. */
MUST_USE enum rc link_secret_read(const char *path, struct buf *out, struct err *e);

#endif
