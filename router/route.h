/* route.h: which paths there are, and what each one wants. A table, so that 404, 405, Allow, HEAD and OPTIONS
 * are decided in one place. Matching is exact, on the path as the client wrote it: no normalising, no
 * redirects. Pure. */
#ifndef WEIR_ROUTER_ROUTE_H
#define WEIR_ROUTER_ROUTE_H

#include "common/buf.h"
#include "common/err.h"

enum route_id {
    ROUTE_COMPLETIONS = 0,
    ROUTE_CHAT,
    ROUTE_EMBEDDINGS,
    ROUTE_POOLING,
    ROUTE_CLASSIFY,
    ROUTE_SCORE,
    ROUTE_RERANK,
    ROUTE_TOKENIZE,
    ROUTE_DETOKENIZE,
    ROUTE_MODELS,
    ROUTE_MODEL, /* /v1/models/{name} */
    ROUTE_HEALTH,
    ROUTE_LIVEZ,
    ROUTE_PING,
    ROUTE_VERSION,
    ROUTE_METRICS,
    ROUTE_LOAD,
    ROUTE_OPENAPI,
    ROUTE_TOKENIZER_INFO,
    ROUTE_PLAYGROUND,
    ROUTE_ABORT,
    ROUTE_RESET,
    ROUTE_REQUESTS,
    ROUTE_WORKERS,
    ROUTE_NOT_BUILT, /* in the specification, not in this build: 501 */
};
enum { METHOD_GET = 1, METHOD_POST = 2 };
enum {
    ROUTE_JSON = 1,      /* the body is JSON: media type and content encoding are checked */
    ROUTE_INFERENCE = 2, /* counted by /load; refused while draining */
    ROUTE_QUIET = 4,     /* left out of the http_ metrics */
    ROUTE_PREFIX = 8,    /* path is a beginning; at least one more character follows */
    /* There only as flags say; 404 as if unknown otherwise. */
    ROUTE_DOCS = 16,           /* unless --disable-fastapi-docs */
    ROUTE_TOKENIZER_FLAG = 32, /* with --enable-tokenizer-info-endpoint */
    ROUTE_ADMIN = 64,          /* with --enable-admin-api */
    ROUTE_PAGE = 128,          /* unless --no-playground */
};

struct route {
    struct str path;
    enum route_id id;
    unsigned methods, flags;
    const char *label; /* of metrics and logs */
};

/* route_find: NULL: 404. path is without the query. */
const struct route *route_find(struct str path);
/* route_root: --root-path as a prefix: "/api" of "api", "/api" or "/api/"; "" of NULL, "" and "/". *out:
 * heap. RC_INVALID: not a path of plain segments. */
MUST_USE enum rc route_root(const char *given, char **out, struct err *e);
/* route_strip: path without the prefix, if it begins with it and goes on with a slash; else path. */
struct str route_strip(struct str path, struct str root);
/* route_mounted: whether the flags have it: a route that is not mounted is unknown (404). */
struct router_opts;
bool route_mounted(const struct route *r, const struct router_opts *o);
/* route_at, n_routes: the table, for registering metrics. */
extern const struct route routes[];
extern const size_t n_routes;
/* route_method: METHOD_GET for GET and HEAD, METHOD_POST for POST, else 0. */
unsigned route_method(struct str method);
/* route_allow: the value of the Allow header: "GET, HEAD, OPTIONS". */
const char *route_allow(const struct route *r);
/* route_name: the rest of a ROUTE_PREFIX path, percent-decoded into out. False: a bad escape, a NUL, or
 * nothing. */
bool route_name(const struct route *r, struct str path, struct buf *out);

#endif
