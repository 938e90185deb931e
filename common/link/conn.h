/* conn.h: private to common/link: the link, its connections and diallers, and who may touch what.
 *
 * Threads: nng's callback threads, any thread that sends, and the link's keeper (heartbeats, deadlines,
 * redials, the end of connections). Locks, taken in this order and never held while the user's code runs
 * except the first: conn.turn   held around every callback of one connection, so that these never overlap
 *   link.mu     the lists, and what says so below
 *   conn.mu     sending and the end of the connection
 * A connection ends in steps: `closing` (nothing more is sent or delivered), the receive callback's last run,
 * which gives on_down and sets `rx_done`, then the keeper frees nng's objects and drops the link's reference.
 */
#ifndef WEIR_COMMON_LINK_CONN_H
#define WEIR_COMMON_LINK_CONN_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/link/hello.h"
#include "common/link/queue.h"
#include "common/link/rx.h"

#define LINK_IDLE_NS (60 * NS_PER_S) /* silence after which a peer is cut: its heartbeats ended long ago */
#define LINK_STABLE_NS                                                                                       \
    NS_PER_S /* a connection that stayed up for so long starts the dialler's backoff anew */
#define LINK_FLUSH_NS (500 * NS_PER_MS) /* time for a last Fault to leave */

struct link_dialler {
    struct link *l;
    struct link_dialler *next;
    char *url;
    nng_aio *aio;
    nng_tls_config *tls; /* NULL: not by TLS */
    /* Under link.mu: */
    nng_stream_dialer *d;   /* of one attempt; a connection takes it along */
    bool used;              /* d has dialled */
    bool busy;              /* dialling, or connected: until the connection is reaped */
    bool stopped;           /* undialled: the keeper frees it once it is not busy */
    struct link_conn *conn; /* while connected; not held */
    uint64_t due_ns;        /* of the next attempt */
    unsigned n_failed;      /* in a row */
    bool was_up;            /* at least once */
    uint64_t reported[8];   /* hashes of the reasons told since the last success */
    size_t n_reported;
};

struct link_listener {
    struct link *l;
    struct link_listener *next;
    char *url;
    nng_stream_listener *s;
    nng_aio *aio;
    /* Under link.mu: */
    bool accepting;  /* the aio is out */
    uint64_t due_ns; /* of the next accept after one failed; 0: none failed */
};

struct link_conn {
    _Atomic unsigned n_refs;
    struct link *l;
    struct link_conn *next;       /* in the link's list, under link.mu */
    struct link_dialler *dialler; /* NULL: accepted. Under link.mu */
    const char *address;          /* copied */
    _Atomic(void *) user;
    uint64_t born_ns;
    _Atomic uint64_t heard_ns; /* when bytes last came */

    pthread_mutex_t turn;
    struct rx_events events;
    struct rx rx;          /* under turn */
    bool suspect;          /* under turn */
    unsigned n_silent;     /* heartbeats since the peer was heard; the keeper's */
    uint64_t seen_ns;      /* heard_ns as the keeper last saw it; the keeper's */
    bool gone;             /* on_down was given, or will never be; under turn */
    struct link_peer peer; /* set before on_up, then constant */

    /* Under link.mu: */
    bool up;
    uint64_t up_ns;       /* since when; 0: never was */
    struct id128 peer_id; /* once up */
    uint64_t peer_epoch;

    pthread_mutex_t mu;
    /* Under mu: */
    nng_stream *s;
    nng_stream_dialer *via; /* what dialled it, once it is over; NULL: accepted */
    nng_aio *rx_aio, *tx_aio;
    struct queue q;
    struct buf out; /* being written */
    size_t out_at;
    bool sending; /* tx_aio is out */
    bool closing; /* nothing new is sent or delivered */
    bool closed;  /* the stream is closed */
    bool broken;  /* a write failed: nothing more is sent, but what the peer said before may be read */
    uint64_t flush_until_ns; /* closing or broken: when the stream is closed at the latest; 0: not set */
    bool rx_done;
    char reason[200]; /* why it ended; the first one counts */
};

struct link {
    struct link_opts o;
    char *secret;
    struct id128 id;
    uint64_t epoch;
    struct hello_epochs epochs;

    pthread_mutex_t mu;
    pthread_cond_t wake; /* the keeper; monotonic clock */
    pthread_t keeper;
    /* Under mu: */
    struct link_conn *conns;
    size_t n_conns;
    struct link_dialler *diallers;
    struct link_listener *listeners;
    bool stopping, poked;
    uint64_t jitter; /* state of the generator */

    struct {
        _Atomic uint64_t frames_in, frames_out, bytes_in, bytes_out, cuts, reconnects;
    } n;
};

/* conn_start: takes the stream; the connection is in the link's list and runs. false: too many, or no memory
 * in nng; the stream is gone then. d: the dialler, NULL for an accepted one. */
bool conn_start(struct link *l, nng_stream *s, const char *address, struct link_dialler *d);
/* conn_end: closing, with a reason unless there is one. fault: tell the peer first. Any thread, without
 * link.mu. */
void conn_end(struct link_conn *c, const char *reason, bool fault);
/* conn_tick: what the keeper does for a connection every heartbeat. */
void conn_tick(struct link_conn *c, uint64_t now_ns);
/* conn_over: rx_done, and nothing more to write. conn_reap: then frees nng's objects; the keeper only. */
bool conn_over(struct link_conn *c);
void conn_reap(struct link_conn *c);

/* link_poke: the keeper looks at once. */
void link_poke(struct link *l);
/* link_dial_failed: an attempt ended without a connection that came up. Under link.mu; returns whether the
 * reason is to be told. */
bool link_dial_failed(struct link_dialler *d, const char *reason);

#endif
