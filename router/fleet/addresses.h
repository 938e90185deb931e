/* addresses.h: sets of workers' addresses, and the texts that they are found in: a file of lines, and a Kubernetes
 * EndpointSlice. Pure; for DNS see dns.h.
 */
#ifndef WEIR_ROUTER_FLEET_ADDRESSES_H
#define WEIR_ROUTER_FLEET_ADDRESSES_H

#include "common/err.h"
#include "common/json.h"

enum { ADDRESSES_MAX = 256, ADDRESS_BYTES_MAX = 255 };

/* addresses: each once, in no order that means anything. All zeros is the empty set. */
struct addresses {
    char *v[ADDRESSES_MAX];
    size_t n;
};
void addresses_fini(struct addresses *a);
bool addresses_have(const struct addresses *a, const char *url);
/* addresses_add: a copy. False: it is too long, or one too many. */
bool addresses_add(struct addresses *a, struct str url);

/* addresses_read: lines; blank ones and those that begin with # say nothing. RC_INVALID names the line; out is the
 * empty set then. */
MUST_USE enum rc addresses_read(struct str text, struct addresses *out, struct err *e);

/* endpoints_add: adds tcp:// addresses of the endpoints in an EndpointSlice (discovery.k8s.io/v1). port: a number
 * or a name; "": the slice's first. An endpoint that is ending and still serves stays, one that does not serve yet
 * is left out. RC_INVALID: it is no EndpointSlice, or has too many. */
MUST_USE enum rc endpoints_add(const json_t *slice, const char *port, struct addresses *out, struct err *e);
/* endpoint_slice_name: of the slice, borrowed; NULL: it has none. */
const char *endpoint_slice_name(const json_t *slice);

#endif
