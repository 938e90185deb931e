/* server.h: the end that has the blocks: a listener, and a thread for each reader.
 *
 * It knows the protocol and no leases: what a reader opens, reads and ends goes to a source. A reader that breaks the
 * protocol is cut; one that says nothing for the length of a lease is gone. Readers are bounded in number, what they may
 * have allocated is one chunk each.
 */
#ifndef WEIR_WORKER_KVX_SERVER_H
#define WEIR_WORKER_KVX_SERVER_H

#include "common/link/secure.h"
#include "worker/kvx/wire.h"

enum { KVX_READERS_MAX = 64 };

struct kvx_server;

/* kvx_source: called on readers' threads; each call of one lease ends before the next. */
struct kvx_source {
    void *arg;
    /* open: GRANTED: *lease stands for it from now on, and *n_blocks is what it will have. May wait for a moment. */
    enum kvx_refusal (*open)(void *arg, const struct kvx_open *o, uint64_t *lease);
    /* read: blocks [from, from + n) of a group as a rank has them, into dst. How many of them are there by now, from the
     * first on; 0: none, after a wait of half a second at most; -1: the lease has ended. Renews it. */
    int (*read)(void *arg, uint64_t lease, const struct kvx_read *r, uint8_t *dst);
    /* renew: false: the lease has ended. */
    bool (*renew)(void *arg, uint64_t lease);
    /* close: nothing more comes. done: the reader has what it needs; else it was lost, or has given up. */
    void (*close)(void *arg, uint64_t lease, bool done);
    /* forget: who has the capability will not read. NULL: nobody wants to know. */
    void (*forget)(void *arg, struct id128 transfer);
};

struct kvx_server_opts {
    const char *host; /* IP address to bind to */
    uint32_t port;    /* 0: any */
    struct id128 engine;
    struct str secret; /* the cluster's token; empty: none. Copied */
    const struct link_tls *tls; /* readers prove themselves by certificates, too; NULL: in clear text */
    struct kvx_layout layout;
    uint32_t lease_ms;
    struct kvx_source source;
};

/* kvx_server_start: RC_IO: it cannot listen. */
MUST_USE enum rc kvx_server_start(struct kvx_server **out, const struct kvx_server_opts *o, struct err *e);
uint32_t kvx_server_port(const struct kvx_server *s);
/* kvx_server_cuts: readers cut for breaking the protocol. */
uint64_t kvx_server_cuts(const struct kvx_server *s);
/* kvx_server_stop: cuts every reader and waits for their threads; then frees it. The source must answer by itself. NULL is
 * fine. */
void kvx_server_stop(struct kvx_server *s);

#endif
