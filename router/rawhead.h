/* rawhead.h: a second look at the head of an HTTP/1 request.
 *
 * libh2o 2.2.5 takes Content-Length, Transfer-Encoding and Host out of the header list, and of repeated ones
 * it keeps one. What it dropped decides where the body ends, so the head, which is still in the socket's
 * input buffer when a handler runs, is read again here. Linear time, no allocation, bounded by the bytes
 * given. Pure.
 */
#ifndef WEIR_ROUTER_RAWHEAD_H
#define WEIR_ROUTER_RAWHEAD_H

#include "common/base.h"

struct rawhead {
    size_t bytes; /* request line and headers, the blank line included */
    unsigned n_headers;
    unsigned n_content_length, n_transfer_encoding, n_host;
    bool folded;     /* one of these three goes on in a second line */
    struct str host; /* trimmed; of the last one */
};

/* rawhead_scan: false if there is no blank line in p[0..n). Empty lines before the request line are skipped.
 */
bool rawhead_scan(const char *p, size_t n, struct rawhead *out);

/* What is wrong with a head that libh2o let pass. */
enum rawhead_fault {
    RAWHEAD_OK = 0,
    RAWHEAD_TOO_LARGE,       /* over header_bytes_max */
    RAWHEAD_TOO_MANY,        /* over n_headers_max */
    RAWHEAD_LENGTH_REPEATED, /* more than one Content-Length */
    RAWHEAD_LENGTH_AND_TE,   /* Content-Length beside Transfer-Encoding, or the latter twice */
    RAWHEAD_HOST,            /* repeated, or with bytes no host name has */
    RAWHEAD_FOLDED,
};
enum rawhead_fault rawhead_check(const struct rawhead *h, size_t header_bytes_max, size_t n_headers_max);

#endif
