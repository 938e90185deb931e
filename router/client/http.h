/* http.h: reading an HTTP/1.1 response, as a client, from bytes that come in any pieces.
 *
 * One response per connection. The server is not trusted: lines, headers and interim responses are counted
 * against the limits below, and nothing is kept but the line being read; the body is handed on as slices of
 * the input. No sockets here. One thread at a time.
 */
#ifndef WEIR_ROUTER_CLIENT_HTTP_H
#define WEIR_ROUTER_CLIENT_HTTP_H

#include "common/buf.h"
#include "common/err.h"

enum {
    HTTP_LINE_BYTES_MAX = 16384, /* of a status line, a header, a chunk's size with its extension */
    HTTP_HEADERS_MAX = 128,      /* headers and trailers of one response */
    HTTP_INTERIM_MAX = 8         /* 1xx responses before it */
};

struct http_resp {
    int status;        /* of the final response; 0 until its head is complete */
    bool event_stream; /* its Content-Type is text/event-stream */
    bool done;         /* the body is complete */
    /* private */
    int state, line_status;
    bool chunked, has_length;
    uint64_t left; /* bytes of the body, or of the chunk */
    unsigned n_headers, n_interim;
    struct buf line;
};

void http_resp_init(struct http_resp *r);
void http_resp_fini(struct http_resp *r);
/* http_resp_read: takes bytes from the front of *in, until some of the body are found (*body, a slice of what
 * *in was), the response is complete, or *in is empty. Call it while in->n > 0 and !r->done. RC_PROTO: no
 * HTTP/1 response, or one beyond the limits; then r is of no further use. */
MUST_USE enum rc http_resp_read(struct http_resp *r, struct str *in, struct str *body, struct err *e);
/* http_resp_eof: the connection has ended. RC_OK if that completes the response, else RC_CLOSED. */
MUST_USE enum rc http_resp_eof(struct http_resp *r, struct err *e);

#endif
