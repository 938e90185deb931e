/* link.h: framed, checked connections between a router and its workers, over nng's byte streams.
 *
 * A frame is a 4-byte little-endian length and one packed Envelope. Both sides send a Hello first; nothing
 * else is delivered before the peer's Hello was found good (protocol, role, proof of the cluster's secret, an
 * epoch not older than the last seen of the same sender). An Envelope longer than a frame travels as
 * BlobParts and arrives whole. Two lanes a connection: CONTROL overtakes DATA between frames. Heartbeats
 * (Ping every 200 ms, answered by Pong) come from the link itself, whatever its user does. A dialler
 * reconnects by itself, with backoff from 50 ms to 2 s and jitter.
 *
 * Garbage from a peer (a bad length, an Envelope that does not unpack, a gap in seq, parts that do not fit,
 * silence before the Hello) cuts that connection and nothing else; the reason is logged and counted.
 *
 * Threads: any thread may send. Callbacks come on the link's threads: never two at once for one connection,
 * possibly at once for different ones; they must not block and may send. After on_down nothing more comes for
 * that connection.
 */
#ifndef WEIR_COMMON_LINK_LINK_H
#define WEIR_COMMON_LINK_LINK_H

#include "common/err.h"
#include "proto/weir.pb-c.h"

struct link_tls;

enum {
    LINK_PROTOCOL = 1,
    LINK_FRAME_BYTES_MAX = 256 * 1024,
    LINK_PART_BYTES = 128 * 1024,
    LINK_HEARTBEAT_MS = 200,
    LINK_SUSPECT_MS = 1000, /* silence after which on_silent(true), by the clock and in heartbeats of ours */
    LINK_HELLO_MS = 2000,   /* time for the peer's Hello */
    LINK_CONNS_MAX = 1024,
};

struct link;      /* a process's end: its listeners, diallers and connections */
struct link_conn; /* one connection; valid in callbacks, elsewhere while held */

struct link_peer {
    struct id128 id; /* the process */
    uint64_t epoch;  /* its start */
    Weir__Role role;
    const char *version;
    const char *address; /* as dialled; of the listener for accepted ones */
};

enum link_lane { LINK_CONTROL = 0, LINK_DATA };

struct link_opts {
    Weir__Role role;          /* peers must have the other one */
    struct str secret;        /* the cluster's token; empty: no proof is asked for */
    const struct link_tls *tls; /* secure.h, for tls+tcp addresses; outlives the link. NULL: none can be used */
    size_t message_bytes_max; /* of a reassembled Envelope; 0: 64 MiB */
    size_t queue_bytes_max;   /* waiting to be sent, per connection; 0: 64 MiB */
    uint32_t conns_max;       /* 0: LINK_CONNS_MAX */
    uint32_t seed;            /* 0: random; of the jitter, for tests */
    void *arg;
    void (*on_up)(void *arg, struct link_conn *c, const struct link_peer *peer);
    void (*on_message)(void *arg, struct link_conn *c, const Weir__Envelope *m);
    /* A tensor blob arrived whole; data is the callee's from then on (free()). NULL: tensors cut the
     * connection. */
    void (*on_tensor)(void *arg, struct link_conn *c, uint8_t *data, size_t n, const uint8_t digest[32]);
    void (*on_silent)(void *arg, struct link_conn *c, bool suspect); /* may be NULL */
    void (*on_down)(void *arg, struct link_conn *c, const char *reason);
    /* A dialler failed to connect; once per distinct reason until it succeeds. May be NULL. */
    void (*on_dial_error)(void *arg, const char *address, const char *reason);
};

/* link_new: no connection yet. The sender id and epoch are drawn here. */
struct link *link_new(const struct link_opts *o);
/* link_free: closes all; on_down comes for every open connection before it returns. Not from a callback. */
void link_free(struct link *l);
struct id128 link_self(const struct link *l);

/* link_check_url: whether url is an address that this build can listen on or dial, as far as its text tells.
 * RC_INVALID, RC_UNSUPPORTED: not, and why. */
MUST_USE enum rc link_check_url(const char *url, struct err *e);
/* link_listen: ipc://PATH (mode 0600, a stale socket file is replaced), tcp://HOST:PORT, tls+tcp://. RC_IO if it cannot.
 * link_listen_port: the port bound, for tcp with port 0. */
MUST_USE enum rc link_listen(struct link *l, const char *url, struct err *e);
int link_listen_port(const struct link *l);
/* link_dial: keeps a connection to url until link_undial. RC_INVALID for a url nng does not know. */
MUST_USE enum rc link_dial(struct link *l, const char *url, struct err *e);
void link_undial(struct link *l, const char *url);

/* link_send: packs body (a Weir__Xxx matching which) before it returns. RC_AGAIN: the queue is full, nothing
 * was sent. RC_CLOSED: the connection is gone. RC_TOO_LARGE: above message_bytes_max. Never blocks. */
MUST_USE enum rc link_send(struct link_conn *c, enum link_lane lane, Weir__Envelope__BodyCase which,
                           void *body);
/* link_queue: as link_send, but what is queued waits for link_push or the next link_send: several messages
 * then leave with one write. */
MUST_USE enum rc link_queue(struct link_conn *c, enum link_lane lane, Weir__Envelope__BodyCase which,
                            void *body);
void link_push(struct link_conn *c);
/* link_send_tensor: data is copied. */
MUST_USE enum rc link_send_tensor(struct link_conn *c, const void *data, size_t n, const uint8_t digest[32]);
/* link_queue_bytes: waiting to be sent. */
size_t link_queue_bytes(const struct link_conn *c);

/* A user's pointer for the connection; set it in on_up, before anything else can see the connection. */
void link_set_user(struct link_conn *c, void *user);
void *link_user(const struct link_conn *c);
struct link_conn *link_hold(struct link_conn *c);
void link_drop(struct link_conn *c);
/* link_cut: ends the connection with a reason; on_down follows. */
void link_cut(struct link_conn *c, const char *reason);

/* Counters since start, of the whole link. */
struct link_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out, cuts, reconnects;
};
struct link_stats link_stats(const struct link *l);

#endif
