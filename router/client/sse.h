/* sse.h: reading server-sent events from bytes that come in any pieces (WHATWG HTML, 9.2).
 *
 * Only `data` matters here: names, ids and retry times of events are skipped. A line, and an event's data,
 * may have SSE_EVENT_BYTES_MAX bytes. One thread at a time.
 */
#ifndef WEIR_ROUTER_CLIENT_SSE_H
#define WEIR_ROUTER_CLIENT_SSE_H

#include "common/buf.h"
#include "common/err.h"

enum { SSE_EVENT_BYTES_MAX = 1 << 20 };

struct sse { /* private; all zero is a fresh one */
    struct buf line, data;
    bool after_cr, begun, given, has_data;
};

void sse_fini(struct sse *s);
/* sse_read: takes bytes from the front of *in up to the end of one event, or all. *event: there is one, and
 * *data, which may be the empty text, holds until the next call. RC_TOO_LARGE beyond the limit. What is
 * behind the last blank line when the stream ends is no event. */
MUST_USE enum rc sse_read(struct sse *s, struct str *in, bool *event, struct str *data, struct err *e);

#endif
