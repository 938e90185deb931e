/* h2guard.h: HTTP/2 frames counted before libh2o sees them.
 *
 * libh2o 2.2.5 does whatever a client's frames ask for, however many come: streams opened and reset again,
 * pings and settings that it has to answer, frames that say nothing. Here the frames of one connection are
 * counted by kind in windows of ten seconds; above a limit the connection is to be ended. Frames of kinds
 * that nobody knows, which a server has to pass over in silence, are taken out: libh2o writes a line for
 * each.
 *
 * libh2o uses up all whole frames whenever it reads, so input begins with a frame, or with the preface.
 *
 * Threads: the connection's loop. Pure: no socket, no clock, no allocation; time linear in the bytes given.
 */
#ifndef WEIR_ROUTER_H2GUARD_H
#define WEIR_ROUTER_H2GUARD_H

#include "common/base.h"

enum {
    H2GUARD_WINDOW_S = 10,
    H2GUARD_RESETS_MAX = 100,   /* in a window: streams that the client ends before their answer */
    H2GUARD_ANSWERS_MAX = 1000, /* PING and SETTINGS: each makes the server write */
    H2GUARD_IDLE_MAX = 20000,   /* frames of little or no use: see idle() */
    H2GUARD_TINY_BYTES = 16,    /* DATA below this is of little use */
    H2GUARD_PREFACE_BYTES = 24,
    H2GUARD_FRAME_BYTES_MAX = 16384, /* what SETTINGS of libh2o allow, and it refuses more */
};

struct h2guard {
    bool begun;       /* the preface was seen */
    bool in_headers;  /* CONTINUATION must come */
    uint64_t from_ns; /* when the window began */
    uint32_t n_resets, n_early, n_answers, n_idle;
};

/* What a connection is to be ended for. */
enum h2guard_fault { H2GUARD_OK = 0, H2GUARD_RESETS, H2GUARD_ANSWERS, H2GUARD_IDLE };

/* h2guard_preface: whether p[0..n) begins as a client's HTTP/2 does; n 0: true. */
bool h2guard_preface(const char *p, size_t n);

/* h2guard_scan: counts the whole frames in p[0..*n), and takes those out that nobody knows: *n shrinks. Bytes
 * behind the last whole frame stay, and are scanned with what comes next. *data_bytes: of DATA frames. */
enum h2guard_fault h2guard_scan(struct h2guard *g, char *p, size_t *n, uint64_t now_ns, size_t *data_bytes);

/* h2guard_early: a stream has ended before its answer was out, for whatever reason: the same limit again, for
 * the ways to bring that about which no frame shows. */
enum h2guard_fault h2guard_early(struct h2guard *g, uint64_t now_ns);

/* h2guard_reason: for the log and for GOAWAY; static. */
const char *h2guard_reason(enum h2guard_fault f);

#endif
