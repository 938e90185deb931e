/* rx.h: private to common/link: the receiver of one connection: bytes in, checked messages out. No sockets,
 * one thread.
 *
 * HELLO -> PROOF -> UP. Whatever breaks the protocol comes back as RC_PROTO with a reason, once; the
 * connection then ends.
 */
#ifndef WEIR_COMMON_LINK_RX_H
#define WEIR_COMMON_LINK_RX_H

#include "common/link/frame.h"
#include "common/link/hello.h"
#include "common/link/part.h"

enum { RX_HELLO_BYTES_MAX = 4096 }; /* of a frame before the peer is known */

/* What the receiver tells its owner, in order of arrival. */
struct rx_events {
    void *arg;
    /* The peer's first hello is good: send the second one. proof NULL: without. */
    void (*answer)(void *arg, const uint8_t *proof);
    /* The peer proved itself. Not RC_OK: it is refused (a stale epoch). */
    enum rc (*up)(void *arg, const struct hello_side *peer, struct err *e);
    void (*message)(void *arg, const Weir__Envelope *m);
    void (*ping)(void *arg, uint64_t sent_ns);
    void (*tensor)(void *arg, uint8_t *data, size_t n,
                   const uint8_t digest[32]); /* NULL: tensors are refused */
    bool (*ended)(void *arg);                 /* the owner cut the connection: deliver nothing more */
};

struct rx {
    const struct rx_events *ev;
    struct hello_side self, peer;
    struct str secret;
    enum { RX_HELLO = 0, RX_PROOF, RX_UP } state;
    struct frame_rx frames;
    struct parts parts;
    uint64_t seq[2];
    uint64_t n_frames; /* taken so far */
};

/* rx_init: ev and secret stay the owner's and outlive rx. */
void rx_init(struct rx *r, const struct rx_events *ev, const struct hello_side *self, struct str secret,
             size_t message_bytes_max);
void rx_fini(struct rx *r);
/* rx_run: takes every whole frame that frame_rx_added brought. RC_OK: wants more bytes. RC_CLOSED: it is
 * over: the owner ended it, or the peer said why it will. RC_PROTO: cut the peer. e->msg: the reason. */
MUST_USE enum rc rx_run(struct rx *r, uint64_t now_ns, struct err *e);

#endif
