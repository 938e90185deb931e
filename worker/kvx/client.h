/* client.h: the end that wants blocks: one pull, on a thread that may wait; or that wants none after all.
 *
 * A pull opens the transfer, reads the blocks that are missing, chunk by chunk as they come to be there, each chunk from
 * every rank of the other side, and hands them over whole: [block][layer][k,v][head][token][dim] with all heads. Of two
 * buffers one is filled while the other is being taken.
 */
#ifndef WEIR_WORKER_KVX_CLIENT_H
#define WEIR_WORKER_KVX_CLIENT_H

#include "worker/kvx/io.h"

enum { KVX_BUFFERS = 2 };

/* kvx_sink: where blocks go; called on the pull's thread. */
struct kvx_sink {
    void *arg;
    /* room: 1: there is room for everything; 0: not yet, after a wait of 200 ms at most; -1: it is wanted no more. Only
     * asked if something is to be read. */
    int (*room)(void *arg);
    /* put: blocks [from, from + n) of a group, whose bytes stay until settle of that buffer. */
    void (*put)(void *arg, unsigned buffer, uint32_t group, uint32_t from, uint32_t n, const uint8_t *data);
    /* settle: all that was put of the buffer was taken. false: it was not, and never will be. */
    bool (*settle)(void *arg, unsigned buffer);
};

struct kvx_pull_opts {
    const char *host;
    uint32_t port;
    struct str secret;
    const struct link_tls *tls; /* NULL: in clear text */
    struct kvx_open open; /* but for nonce and proof */
    struct kvx_layout layout; /* of this side */
    uint32_t from[BE_GROUPS_MAX], end; /* blocks wanted of each group: [from, end); from may be end */
    struct kvx_sink sink;
};
struct kvx_pull_stats {
    uint64_t n_bytes, ns; /* ns: from the grant to the last byte */
};

/* kvx_pull_run: RC_OK: everything was taken, and the other side told. *why: for RC_CLOSED by a refusal, which; else
 * KVX_GRANTED. RC_PROTO: the peer broke the protocol; RC_INVALID: its blocks are not this side's; RC_IO, RC_TIMEOUT,
 * RC_CLOSED: the network; RC_AGAIN: the sink wants no more. io is initialised, and the caller's to stop. */
MUST_USE enum rc kvx_pull_run(const struct kvx_pull_opts *o, struct kvx_io *io, struct kvx_pull_stats *stats,
                              enum kvx_refusal *why, struct err *e);

/* kvx_tell_run: the peer learns that nobody will read open.transfer; blocks for some seconds at most. */
MUST_USE enum rc kvx_tell_run(const struct kvx_pull_opts *o, struct kvx_io *io, struct err *e);

#endif
