#include "common/link/conn.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/link/wire.h"
#include "common/log.h"
#include "common/version.h"

/* ---- sending (all with c->mu held) ------------------------------------------------------------------ */

static void close_stream(struct link_conn *c) {
    if (c->closed)
        return;
    c->closed = true;
    nng_stream_close(c->s);
}

static void send_rest(struct link_conn *c) {
    nng_iov iov = {.iov_buf = c->out.data + c->out_at, .iov_len = c->out.len - c->out_at};
    CHECK(nng_aio_set_iov(c->tx_aio, 1, &iov) == 0);
    c->sending = true;
    nng_stream_send(c->s, c->tx_aio);
}

/* kick: starts a write of what is queued unless one is under way; ends a connection that only waited for its
 * last write. */
static void kick(struct link_conn *c) {
    if (c->sending || c->closed)
        return;
    if (queue_empty(&c->q) || c->broken) {
        if (c->closing)
            close_stream(c);
        return;
    }
    c->out.len = 0;
    size_t n_frames = queue_fill(&c->q, &c->out, clock_ns());
    atomic_fetch_add_explicit(&c->l->n.frames_out, n_frames, memory_order_relaxed);
    c->out_at = 0;
    send_rest(c);
}

static void on_sent(void *arg) {
    struct link_conn *c = arg;
    pthread_mutex_lock(&c->mu);
    c->sending = false;
    if (nng_aio_result(c->tx_aio) != 0) {
        /* The receive callback ends the connection: the peer's last words may still wait there. */
        c->broken = true;
        c->flush_until_ns = clock_ns() + LINK_FLUSH_NS;
        kick(c);
    } else {
        size_t n = nng_aio_count(c->tx_aio);
        atomic_fetch_add_explicit(&c->l->n.bytes_out, n, memory_order_relaxed);
        c->out_at += n;
        if (c->out_at < c->out.len && !c->closed)
            send_rest(c);
        else
            kick(c);
    }
    bool over = c->rx_done && !c->sending;
    pthread_mutex_unlock(&c->mu);
    if (over)
        link_poke(c->l);
}

void conn_end(struct link_conn *c, const char *reason, bool fault) {
    pthread_mutex_lock(&c->mu);
    if (!c->closing) {
        c->closing = true;
        snprintf(c->reason, sizeof c->reason, "%s", reason);
        if (fault) {
            Weir__Fault f = WEIR__FAULT__INIT;
            f.message = c->reason;
            f.has_fatal = f.fatal = true;
            Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_FAULT, &f);
            c->flush_until_ns = clock_ns() + LINK_FLUSH_NS;
            queue_add(&c->q, LINK_CONTROL, &m);
            kick(c);
        } else {
            close_stream(c);
        }
    }
    pthread_mutex_unlock(&c->mu);
}

static bool is_closing(struct link_conn *c) {
    pthread_mutex_lock(&c->mu);
    bool closing = c->closing;
    pthread_mutex_unlock(&c->mu);
    return closing;
}

/* cut: ends a connection whose peer misbehaved; the reason is logged and counted. A dialler tries again for
 * ever, so of what it dialled and what never came up on_dial_error tells, once. */
static void cut(struct link_conn *c, const char *reason) {
    if (is_closing(c))
        return;
    pthread_mutex_lock(&c->l->mu);
    bool will_be_told = c->dialler && c->up_ns == 0 && c->l->o.on_dial_error;
    pthread_mutex_unlock(&c->l->mu);
    LOG(will_be_told ? LOG_DEBUG : LOG_WARN, "link: peer cut", F_STR("address", c->address),
        F_STR("reason", reason));
    atomic_fetch_add_explicit(&c->l->n.cuts, 1, memory_order_relaxed);
    conn_end(c, reason, true);
}

/* send_hello: the first one has the nonce, the second the proof. */
static void send_hello(struct link_conn *c, bool first, const uint8_t *proof) {
    Weir__Hello h = WEIR__HELLO__INIT;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_HELLO, &h);
    char version[] = WEIR_VERSION;
    if (first) {
        h.has_protocol = h.has_role = h.has_nonce = m.has_sender = m.has_epoch = true;
        h.protocol = LINK_PROTOCOL;
        h.version = version;
        h.role = c->l->o.role;
        h.nonce = (ProtobufCBinaryData){sizeof c->rx.self.nonce, c->rx.self.nonce};
        m.sender = (ProtobufCBinaryData){sizeof c->rx.self.id.b, c->rx.self.id.b};
        m.epoch = c->rx.self.epoch;
    } else if (proof) {
        h.has_secret_proof = true;
        h.secret_proof = (ProtobufCBinaryData){HELLO_PROOF_BYTES, (uint8_t *)(uintptr_t)proof};
    }
    pthread_mutex_lock(&c->mu);
    if (!c->closing) {
        queue_add(&c->q, LINK_CONTROL, &m);
        kick(c);
    }
    pthread_mutex_unlock(&c->mu);
}

/* ---- events of the receiver (with c->turn held) ------------------------------------------------------ */

static void ev_answer(void *arg, const uint8_t *proof) {
    send_hello(arg, false, proof);
}

/* end_older: connections of the same process from before its restart. */
static void end_older(struct link *l, struct id128 id, uint64_t epoch) {
    for (;;) {
        struct link_conn *older = NULL;
        pthread_mutex_lock(&l->mu);
        for (struct link_conn *c = l->conns; c && !older; c = c->next)
            if (c->up && id128_eq(c->peer_id, id) && c->peer_epoch < epoch) {
                c->up = false;
                older = link_hold(c);
            }
        pthread_mutex_unlock(&l->mu);
        if (!older)
            return;
        conn_end(older, "the peer started anew", false);
        link_drop(older);
    }
}

static enum rc ev_up(void *arg, const struct hello_side *peer, struct err *e) {
    struct link_conn *c = arg;
    struct link *l = c->l;
    if (!hello_epochs_admit(&l->epochs, peer->id, peer->epoch))
        return err_set(e, RC_PROTO, NULL, "a stale epoch: this process was seen with a later one");
    end_older(l, peer->id, peer->epoch);
    c->peer = (struct link_peer){.id = peer->id,
                                 .epoch = peer->epoch,
                                 .role = peer->role,
                                 .version = peer->version,
                                 .address = c->address};
    pthread_mutex_lock(&l->mu);
    c->up = true;
    c->peer_id = peer->id;
    c->peer_epoch = peer->epoch;
    if (c->dialler) {
        struct link_dialler *d = c->dialler;
        if (d->was_up)
            atomic_fetch_add_explicit(&l->n.reconnects, 1, memory_order_relaxed);
        d->was_up = true;
        d->n_reported = 0;
    }
    c->up_ns = clock_ns();
    pthread_mutex_unlock(&l->mu);
    l->o.on_up(l->o.arg, c, &c->peer);
    return RC_OK;
}

static void ev_message(void *arg, const Weir__Envelope *m) {
    struct link_conn *c = arg;
    c->l->o.on_message(c->l->o.arg, c, m);
}

static void ev_tensor(void *arg, uint8_t *data, size_t n, const uint8_t digest[32]) {
    struct link_conn *c = arg;
    c->l->o.on_tensor(c->l->o.arg, c, data, n, digest);
}

static void ev_ping(void *arg, uint64_t sent_ns) {
    struct link_conn *c = arg;
    pthread_mutex_lock(&c->mu);
    if (!c->closing) {
        c->q.pong_due = true;
        c->q.pong_sent_ns = sent_ns;
        kick(c);
    }
    pthread_mutex_unlock(&c->mu);
}

static bool ev_ended(void *arg) {
    return is_closing(arg);
}

static const struct rx_events conn_events = {.answer = ev_answer,
                                             .up = ev_up,
                                             .message = ev_message,
                                             .ping = ev_ping,
                                             .tensor = ev_tensor,
                                             .ended = ev_ended};

/* ---- receiving -------------------------------------------------------------------------------------- */

/* finish: the last run of the receive callback, with c->turn held: tells the user, or the dialler's reason if
 * the connection never came up. */
static void finish(struct link_conn *c) {
    struct link *l = c->l;
    char reason[sizeof c->reason];
    bool tell = false;
    pthread_mutex_lock(&c->mu);
    CHECK(c->closing);
    memcpy(reason, c->reason, sizeof reason);
    pthread_mutex_unlock(&c->mu);
    c->gone = true;
    if (c->peer.address) {
        l->o.on_down(l->o.arg, c, reason);
    } else {
        pthread_mutex_lock(&l->mu);
        tell = c->dialler && link_dial_failed(c->dialler, reason);
        pthread_mutex_unlock(&l->mu);
        if (tell && l->o.on_dial_error)
            l->o.on_dial_error(l->o.arg, c->address, reason);
    }
    pthread_mutex_lock(&l->mu);
    c->up = false;
    pthread_mutex_unlock(&l->mu);
    pthread_mutex_lock(&c->mu);
    c->rx_done = true;
    pthread_mutex_unlock(&c->mu);
    link_poke(l); /* the keeper may free c as soon as turn is released */
}

/* receive: with c->turn held; asks nng for more bytes. False: the stream is closed. The check is needed, and
 * under the lock: nng 1.5 never completes a receive (or a send) that begins after the close. */
static bool receive(struct link_conn *c) {
    nng_iov iov;
    iov.iov_buf = frame_rx_room(&c->rx.frames, &iov.iov_len);
    pthread_mutex_lock(&c->mu);
    bool open = !c->closed;
    if (open) {
        CHECK(nng_aio_set_iov(c->rx_aio, 1, &iov) == 0);
        nng_stream_recv(c->s, c->rx_aio);
    }
    pthread_mutex_unlock(&c->mu);
    return open;
}

/* spoke: bytes came: a suspect peer is none any more. */
static void spoke(struct link_conn *c, uint64_t now_ns) {
    atomic_store_explicit(&c->heard_ns, now_ns, memory_order_relaxed);
    if (!c->suspect)
        return;
    c->suspect = false;
    if (c->l->o.on_silent)
        c->l->o.on_silent(c->l->o.arg, c, false);
}

static void on_received(void *arg) {
    struct link_conn *c = arg;
    struct link *l = c->l;
    bool more = false;
    link_hold(c); /* through the unlock below */
    pthread_mutex_lock(&c->turn);
    int rv = nng_aio_result(c->rx_aio);
    if (rv != 0) {
        char reason[160];
        snprintf(reason, sizeof reason, "connection ended: %s", nng_strerror(rv));
        conn_end(c, rv == NNG_ECLOSED || rv == NNG_ECONNSHUT ? "the peer closed the connection" : reason,
                 false);
    } else {
        struct err e = {0};
        uint64_t now_ns = clock_ns(), before = c->rx.n_frames;
        size_t n = nng_aio_count(c->rx_aio);
        frame_rx_added(&c->rx.frames, n);
        atomic_fetch_add_explicit(&l->n.bytes_in, n, memory_order_relaxed);
        spoke(c, now_ns);
        enum rc rc = rx_run(&c->rx, now_ns, &e);
        atomic_fetch_add_explicit(&l->n.frames_in, c->rx.n_frames - before, memory_order_relaxed);
        if (rc == RC_PROTO)
            cut(c, e.msg);
        else if (rc)
            conn_end(c, e.msg, false);
        more = rc == RC_OK;
    }
    if (!more || !receive(c))
        finish(c);
    pthread_mutex_unlock(&c->turn);
    link_drop(c);
}

/* ---- life ------------------------------------------------------------------------------------------- */

static void conn_delete(struct link_conn *c) {
    rx_fini(&c->rx);
    queue_fini(&c->q);
    buf_fini(&c->out);
    pthread_mutex_destroy(&c->mu);
    pthread_mutex_destroy(&c->turn);
    free((char *)(uintptr_t)c->address);
    free(c);
}

/* enlist: into the link's list, unless it is full or stopping. */
static bool enlist(struct link *l, struct link_conn *c, struct link_dialler *d) {
    pthread_mutex_lock(&l->mu);
    bool ok = !l->stopping && l->n_conns < l->o.conns_max && !(d && d->stopped);
    if (ok) {
        c->next = l->conns;
        l->conns = c;
        l->n_conns++;
        c->dialler = d;
        if (d)
            d->conn = c;
    }
    pthread_mutex_unlock(&l->mu);
    return ok;
}

bool conn_start(struct link *l, nng_stream *s, const char *address, struct link_dialler *d) {
    struct link_conn *c = xcalloc(1, sizeof *c);
    struct hello_side self = {.id = l->id, .epoch = l->epoch, .role = l->o.role};
    fill_random(self.nonce, sizeof self.nonce);
    atomic_init(&c->n_refs, 2); /* the link's and, until this returns, ours */
    c->l = l;
    c->s = s;
    c->address = xstrdup(address);
    c->born_ns = clock_ns();
    atomic_init(&c->heard_ns, c->born_ns);
    atomic_init(&c->user, NULL);
    c->events = conn_events;
    c->events.arg = c;
    if (!l->o.on_tensor)
        c->events.tensor = NULL;
    CHECK(pthread_mutex_init(&c->mu, NULL) == 0 && pthread_mutex_init(&c->turn, NULL) == 0);
    queue_init(&c->q, l->o.queue_bytes_max);
    rx_init(&c->rx, &c->events, &self, l->o.secret, l->o.message_bytes_max);
    if (nng_aio_alloc(&c->rx_aio, on_received, c) != 0 || nng_aio_alloc(&c->tx_aio, on_sent, c) != 0 ||
        !enlist(l, c, d)) {
        nng_aio_free(c->rx_aio);
        nng_aio_free(c->tx_aio);
        nng_stream_free(s);
        conn_delete(c);
        return false;
    }
    /* The receive callback must not end the connection before the hello was queued: turn keeps it out. */
    pthread_mutex_lock(&c->turn);
    send_hello(c, true, NULL);
    if (!receive(c))
        finish(c);
    pthread_mutex_unlock(&c->turn);
    link_drop(c);
    return true;
}

/* count_silent: silence as the clock tells it, and in heartbeats of ours: a process that did not run for a
 * while finds what its peers said meanwhile unread, and must not take that for their silence. */
static void count_silent(struct link_conn *c) {
    uint64_t heard_ns = atomic_load_explicit(&c->heard_ns, memory_order_relaxed);
    c->n_silent = c->seen_ns == heard_ns ? c->n_silent + 1 : 0;
    c->seen_ns = heard_ns;
}

void conn_tick(struct link_conn *c, uint64_t now_ns) {
    uint64_t heard_ns = atomic_load_explicit(&c->heard_ns, memory_order_relaxed);
    uint64_t silent_ns = now_ns > heard_ns ? now_ns - heard_ns : 0;
    count_silent(c);
    pthread_mutex_lock(&c->mu);
    bool closing = c->closing, late = c->flush_until_ns && now_ns > c->flush_until_ns;
    if (closing && late)
        close_stream(c);
    pthread_mutex_unlock(&c->mu);
    if (late && !closing)
        conn_end(c, "the peer takes nothing more", false);
    /* A callback under way means that the peer spoke just now. */
    if (closing || late || pthread_mutex_trylock(&c->turn) != 0)
        return;
    bool up = c->rx.state == RX_UP;
    if (up && silent_ns > LINK_SUSPECT_MS * NS_PER_MS && c->n_silent >= LINK_SUSPECT_MS / LINK_HEARTBEAT_MS &&
        !c->suspect && !c->gone) {
        c->suspect = true;
        if (c->l->o.on_silent)
            c->l->o.on_silent(c->l->o.arg, c, true);
    }
    pthread_mutex_unlock(&c->turn);
    if (!up && now_ns > c->born_ns + LINK_HELLO_MS * NS_PER_MS) {
        cut(c, "no hello in time");
    } else if (up && silent_ns > LINK_IDLE_NS) {
        cut(c, "silent for too long");
    } else if (up) {
        pthread_mutex_lock(&c->mu);
        if (!c->closing) {
            c->q.ping_due = true;
            kick(c);
        }
        pthread_mutex_unlock(&c->mu);
    }
}

bool conn_over(struct link_conn *c) {
    pthread_mutex_lock(&c->mu);
    bool over = c->rx_done && !c->sending && c->closed;
    pthread_mutex_unlock(&c->mu);
    return over;
}

void conn_reap(struct link_conn *c) {
    nng_aio_free(c->rx_aio); /* waits for a callback that is still on its way out */
    nng_aio_free(c->tx_aio);
    /* In this order: the stream holds a reference to its dialler inside nng, so the dialler's last moment is
     * on nng's side of a lock that orders it after what this thread did. */
    if (c->via)
        nng_stream_dialer_free(c->via);
    nng_stream_free(c->s);
    link_drop(c);
}

struct link_conn *link_hold(struct link_conn *c) {
    CHECK(atomic_fetch_add_explicit(&c->n_refs, 1, memory_order_relaxed) > 0);
    return c;
}

void link_drop(struct link_conn *c) {
    if (c && atomic_fetch_sub_explicit(&c->n_refs, 1, memory_order_acq_rel) == 1)
        conn_delete(c);
}

/* ---- what users call -------------------------------------------------------------------------------- */

void link_set_user(struct link_conn *c, void *user) {
    atomic_store_explicit(&c->user, user, memory_order_release);
}

void *link_user(const struct link_conn *c) {
    return atomic_load_explicit(&c->user, memory_order_acquire);
}

void link_cut(struct link_conn *c, const char *reason) {
    conn_end(c, reason, false);
}

/* add: queues under the lock: `m` whole, or `data` in parts if it is not NULL. */
static enum rc add(struct link_conn *c, enum link_lane lane, const Weir__Envelope *m, bool now,
                   Weir__BlobPart__Kind kind, const void *data, size_t n, const uint8_t *digest) {
    enum rc rc = RC_OK;
    pthread_mutex_lock(&c->mu);
    if (c->closing || c->broken) {
        rc = RC_CLOSED;
    } else if (!queue_admits(&c->q, lane, n)) {
        rc = RC_AGAIN;
    } else {
        if (m)
            queue_add(&c->q, lane, m);
        else
            queue_add_blob(&c->q, lane, kind, data, n, digest);
        if (now)
            kick(c);
    }
    pthread_mutex_unlock(&c->mu);
    return rc;
}

static enum rc send_body(struct link_conn *c, enum link_lane lane, Weir__Envelope__BodyCase which, void *body,
                         bool now) {
    Weir__Envelope m = wire_envelope(which, body);
    size_t n = weir__envelope__get_packed_size(&m);
    if (n <= WIRE_BODY_BYTES_MAX)
        return add(c, lane, &m, now, 0, NULL, n, NULL);
    if (n > c->rx.parts.bytes_max)
        return RC_TOO_LARGE;
    struct buf packed = {0};
    wire_add_body(&packed, &m);
    enum rc rc = add(c, lane, NULL, now, WEIR__BLOB_PART__KIND__ENVELOPE, packed.data, packed.len, NULL);
    buf_fini(&packed);
    return rc;
}

enum rc link_send(struct link_conn *c, enum link_lane lane, Weir__Envelope__BodyCase which, void *body) {
    return send_body(c, lane, which, body, true);
}

enum rc link_queue(struct link_conn *c, enum link_lane lane, Weir__Envelope__BodyCase which, void *body) {
    return send_body(c, lane, which, body, false);
}

void link_push(struct link_conn *c) {
    pthread_mutex_lock(&c->mu);
    kick(c);
    pthread_mutex_unlock(&c->mu);
}

enum rc link_send_tensor(struct link_conn *c, const void *data, size_t n, const uint8_t digest[32]) {
    if (n > c->rx.parts.bytes_max)
        return RC_TOO_LARGE;
    return add(c, LINK_DATA, NULL, true, WEIR__BLOB_PART__KIND__TENSOR, data, n, digest);
}

size_t link_queue_bytes(const struct link_conn *c) {
    struct link_conn *m = (struct link_conn *)(uintptr_t)c; /* the mutex is no part of what const promises */
    pthread_mutex_lock(&m->mu);
    size_t n = queue_bytes(&m->q) + (m->sending ? m->out.len - m->out_at : 0);
    pthread_mutex_unlock(&m->mu);
    return n;
}
