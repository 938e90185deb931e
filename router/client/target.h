/* target.h: the server that a URL names, and how to reach it.
 *
 * http://HOST[:PORT][/PATH] or https://; an IPv6 address in brackets; no path means /v1. The address is
 * chosen once, when the target is opened: the first of the name's that takes a connection. Shared by any
 * number of exchanges of one thread, which it must outlive.
 */
#ifndef WEIR_ROUTER_CLIENT_TARGET_H
#define WEIR_ROUTER_CLIENT_TARGET_H

#include <sys/socket.h>

#include "common/buf.h"
#include "common/err.h"

enum { TARGET_URL_BYTES_MAX = 2048, TARGET_HOST_BYTES_MAX = 255 };

struct url {
    bool tls;
    char host[TARGET_HOST_BYTES_MAX + 1]; /* without brackets */
    char port[6];
    char path[TARGET_URL_BYTES_MAX + 1]; /* "/v1": without a slash at its end */
};

struct target {
    struct url url;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    struct ssl_ctx_st *tls; /* NULL for http */
    bool insecure;
};

/* url_read: RC_INVALID with what is wrong. */
MUST_USE enum rc url_read(const char *text, struct url *u, struct err *e);
/* target_open: resolves the name and tries its addresses, for at most 5 s each; blocks. insecure:
 * certificates are not checked; else they are, against the system's authorities (or SSL_CERT_FILE) and the
 * host's name. */
MUST_USE enum rc target_open(struct target *t, const char *url, bool insecure, struct err *e);
void target_close(struct target *t);
/* target_socket: a non-blocking socket on its way to the target, or -1 with the error set. */
int target_socket(const struct target *t, struct err *e);
/* target_request: appends a request for PATH below the URL's: a POST of the JSON body, or a GET if it is
 * empty. key may be NULL; it has been through key_check. The connection is for this one request. */
void target_request(const struct target *t, const char *path, const char *key, struct str body,
                    struct buf *out);
/* key_check: visible ASCII only, so that a key is one header's value. NULL is fine. */
MUST_USE enum rc key_check(const char *key, struct err *e);

#endif
