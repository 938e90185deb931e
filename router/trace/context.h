/* context.h: what comes with a request of the trace it belongs to (W3C Trace Context), and the environment's
 * lists (OpenTelemetry's "key=value,..." of headers and of resource attributes). Pure.
 */
#ifndef WEIR_ROUTER_TRACE_CONTEXT_H
#define WEIR_ROUTER_TRACE_CONTEXT_H

#include "common/base.h"

enum {
    SPAN_ID_BYTES = 8,
    TRACE_STATE_BYTES_MAX = 512,
    TRACE_STATE_MEMBERS_MAX = 32,
    TRACE_PAIRS_MAX = 64, /* of one list */
    TRACE_PAIR_BYTES_MAX = 4096
};

struct trace_context {
    struct id128 trace;
    uint8_t parent[SPAN_ID_BYTES]; /* the caller's span; all zero: none */
    bool has_parent;
    bool sampled; /* the caller's flag; without a parent: false */
};

/* trace_parent_read: the value of one traceparent header (https://www.w3.org/TR/trace-context/, 3.2). A version
 * above 00 may have more behind its flags. False: it is none, and the request begins a trace of its own. */
bool trace_parent_read(struct str value, struct trace_context *out);
/* trace_state_good: whether the value of tracestate, its headers joined by commas, may be passed on. */
bool trace_state_good(struct str value);

struct trace_pair {
    char *key, *value; /* heap */
};
struct trace_pairs {
    struct trace_pair v[TRACE_PAIRS_MAX];
    size_t n;
};
/* trace_pairs_read: "key=value,key=value", values with %XX escapes, blanks around both left out. False: a piece that
 * is no such pair, an empty key, a control character, or more than the limits above; *out is empty then. */
bool trace_pairs_read(const char *text, struct trace_pairs *out);
void trace_pairs_fini(struct trace_pairs *p);
/* trace_pairs_get: the last value of a key; NULL: none. */
const char *trace_pairs_get(const struct trace_pairs *p, const char *key);

#endif
