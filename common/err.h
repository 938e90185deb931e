/* err.h: operating errors: a code, the offending field, and a message for people.
 *
 * A function that can fail for a reason outside the program returns `enum rc`, is MUST_USE and takes
 * a trailing `struct err *`, which it fills when it returns anything but RC_OK. Outputs are written
 * on success only. One table, router/api/error.c, maps rc to an HTTP status and error type.
 */
#ifndef WEIR_COMMON_ERR_H
#define WEIR_COMMON_ERR_H

#include "common/base.h"

enum rc {
    RC_OK = 0,
    RC_INVALID,      /* malformed or out of range; 400 */
    RC_UNAUTHORIZED, /* 401 */
    RC_NOT_FOUND,    /* unknown path, model or id; 404 */
    RC_METHOD,       /* 405 */
    RC_TOO_LARGE,    /* over a byte limit; 413 */
    RC_UNFETCHABLE,  /* media permitted but not fetchable; 422 */
    RC_OVERLOAD,     /* queue full; 429 */
    RC_HEADERS,      /* head over its limit; 431 */
    RC_INTERNAL,     /* a bug or engine failure of this request; 500 */
    RC_UNSUPPORTED,  /* known feature that this build lacks; 501, or 400 for a field */
    RC_UNAVAILABLE,  /* no ready worker, draining, engine dead; 503 */
    RC_TIMEOUT,      /* 504 */
    RC_AGAIN,        /* a bounded queue is full; not an error of the request */
    RC_CLOSED,       /* the other side is gone */
    RC_IO,           /* the operating system said no */
    RC_PROTO,        /* a peer broke the protocol */
    N_RC
};

struct err {
    enum rc rc;
    char param[160]; /* dotted path of the offending field, "" for none */
    char msg[1024];
};

/* err_set: fills e (which may be NULL) and returns rc. param may be NULL. Over-long text is cut at
 * a character boundary. */
enum rc err_set(struct err *e, enum rc rc, const char *param, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* err_io: RC_IO with "WHAT: strerror(errno)". */
enum rc err_io(struct err *e, const char *what);

/* rc_name: a stable lower-case word for logs. */
const char *rc_name(enum rc rc);

#endif
