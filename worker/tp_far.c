/* tp_far.c: rank 0's side of ranks on other hosts. */
#include "worker/tp_far.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

enum { REST_MS = 100, LAST_WORDS_MS = 200 };

/* far: one rank. Its threads run from when it has come until its connection has ended. */
struct far {
    struct tp_far *all;
    uint32_t rank;
    struct tp_wire *wire; /* once it is here */
    struct be_stand *stand;
    pthread_t reader, hands;
    bool here; /* under mu of all; never taken back */
    bool gone; /* likewise */
    char why[TPW_WHY_BYTES];
    /* The call under way; under mu: */
    struct buf call;
    uint32_t n_answer;
    bool due;
};

struct tp_far {
    struct tp_far_opts o;
    nng_stream_listener *listener;
    nng_aio *aio;
    pthread_t door;
    pthread_mutex_t mu;
    pthread_cond_t changed; /* a call has come, or a rank is gone */
    bool closing, opened;
    int port;
    struct far rank[BE_RANKS_MAX];
};

/* ---- a rank that has come ----------------------------------------------------------------------- */

/* leave: the connection is over; the first reason counts. */
static void leave(struct far *r, const char *why) {
    struct tp_far *f = r->all;
    uint64_t one = 1;
    tp_wire_stop(r->wire);
    pthread_mutex_lock(&f->mu);
    if (!r->gone) {
        r->gone = true;
        snprintf(r->why, sizeof r->why, "%.*s", (int)sizeof r->why - 1, why);
    }
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mu);
    (void)!write(f->o.events, &one, sizeof one);
}

/* body: n bytes of a frame, believed as far as they come. */
static enum rc body(struct far *r, struct buf *b, size_t n, struct err *e) {
    enum { STEP_BYTES = 4 << 20 };
    enum rc rc = RC_OK;
    b->len = 0;
    while (rc == RC_OK && b->len < n) {
        size_t part = MIN(n - b->len, (size_t)STEP_BYTES);
        rc = tp_wire_body(r->wire, buf_reserve(b, part), part, 0, e);
        b->len += rc ? 0 : part;
    }
    return rc;
}

static enum rc take_beat(struct far *r, const struct tp_wire_head *h, struct err *e) {
    struct tp_wire_beat m;
    struct tp_seat *seat = &r->all->o.s->seats[r->rank];
    uint32_t *reached = &r->all->o.be.group->reached[r->rank];
    if (h->n_bytes != sizeof m)
        return err_set(e, RC_PROTO, NULL, "a beat of %u bytes", h->n_bytes);
    enum rc rc = tp_wire_body(r->wire, &m, sizeof m, 0, e);
    if (rc)
        return rc;
    atomic_store(&seat->cpu_ns, m.cpu_ns);
    if ((int32_t)(m.reached - __atomic_load_n(reached, __ATOMIC_RELAXED)) > 0) /* where the stand does not count */
        __atomic_store_n(reached, m.reached, __ATOMIC_RELAXED);
    atomic_fetch_add(&seat->beat, 1);
    return RC_OK;
}

static enum rc take_call(struct far *r, const struct tp_wire_head *h, struct buf *room, struct err *e) {
    struct tp_far *f = r->all;
    enum rc rc = body(r, room, h->n_bytes, e);
    if (rc)
        return rc;
    pthread_mutex_lock(&f->mu);
    if (r->due) {
        rc = err_set(e, RC_PROTO, NULL, "a call before the last one's answer");
    } else {
        struct buf empty = r->call;
        r->call = *room;
        *room = empty;
        r->n_answer = h->n_answer;
        r->due = true;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->mu);
    return rc;
}

static enum rc take_refusal(struct far *r, const struct tp_wire_head *h, struct buf *room, struct err *e) {
    struct tp_seat *seat = &r->all->o.s->seats[r->rank];
    if (h->n_bytes >= TP_WHY_BYTES)
        return err_set(e, RC_PROTO, NULL, "a reason of %u bytes", h->n_bytes);
    enum rc rc = body(r, room, h->n_bytes, e);
    if (rc)
        return rc;
    memcpy(seat->why, room->len ? room->data : "", room->len);
    seat->why[room->len] = 0;
    atomic_store(&seat->state, TP_REFUSED);
    return err_set(e, RC_CLOSED, NULL, "%s", seat->why);
}

static void *reader_main(void *arg) {
    struct far *r = arg;
    struct tp_wire_head h;
    struct buf room = {0};
    struct err e = {0};
    enum rc rc = RC_OK;
    while (rc == RC_OK) {
        rc = tp_wire_recv(r->wire, &h, 0, &e);
        if (rc)
            break;
        switch (h.type) {
        case TPW_BEAT:
            rc = take_beat(r, &h, &e);
            break;
        case TPW_CALL:
            rc = take_call(r, &h, &room, &e);
            break;
        case TPW_LOADED:
            atomic_store(&r->all->o.s->seats[r->rank].state, TP_LOADED);
            break;
        case TPW_REFUSED:
            rc = take_refusal(r, &h, &room, &e);
            break;
        default:
            rc = err_set(&e, RC_PROTO, NULL, "a frame of type %u", h.type);
        }
    }
    buf_fini(&room);
    leave(r, e.msg);
    return NULL;
}

/* hands_main: what the rank would do in the memory of the group, were it here. */
static void *hands_main(void *arg) {
    struct far *r = arg;
    struct tp_far *f = r->all;
    struct buf call = {0}, out = {0};
    struct err e = {0};
    for (;;) {
        pthread_mutex_lock(&f->mu);
        while (!r->due && !r->gone)
            pthread_cond_wait(&f->changed, &f->mu);
        bool gone = r->gone;
        struct buf empty = call;
        call = r->call;
        r->call = empty;
        uint32_t n_answer = r->n_answer;
        r->due = false;
        pthread_mutex_unlock(&f->mu);
        if (gone)
            break;
        out.len = 0;
        void *answer = buf_reserve(&out, MAX(n_answer, 1u));
        if (!f->o.ops->stand_call(r->stand, call.data, call.len, answer, n_answer)) {
            if (!__atomic_load_n(&f->o.be.group->failed, __ATOMIC_ACQUIRE))
                leave(r, "it sends what is no message");
            break;
        }
        if (tp_wire_send(r->wire, TPW_RESULT, 0, answer, n_answer, f->o.silent_ms, &e)) {
            leave(r, e.msg);
            break;
        }
    }
    buf_fini(&call);
    buf_fini(&out);
    return NULL;
}

/* ---- the door ----------------------------------------------------------------------------------- */

static bool taken(void *arg, uint32_t rank) {
    struct tp_far *f = arg;
    return rank < f->o.first || rank >= f->o.n_ranks || f->rank[rank].here; /* the door alone sets it */
}

/* let_in: a rank that was admitted; takes the wire. */
static enum rc let_in(struct tp_far *f, uint32_t rank, struct tp_wire *wire, struct err *e) {
    struct far *r = &f->rank[rank];
    struct be_config cfg = f->o.be;
    char why[BE_ERR_BYTES] = "";
    cfg.rank = (int)rank;
    r->stand = f->o.ops->stand_open(&cfg, why);
    if (!r->stand)
        return err_set(e, RC_IO, NULL, "%s", why);
    r->wire = wire;
    CHECK(pthread_create(&r->reader, NULL, reader_main, r) == 0);
    CHECK(pthread_create(&r->hands, NULL, hands_main, r) == 0);
    pthread_mutex_lock(&f->mu);
    r->here = true;
    pthread_mutex_unlock(&f->mu);
    LOG(LOG_INFO, "a rank has come", F_U64("rank", rank));
    return RC_OK;
}

/* admit: whoever has come in. False: no rank. */
static bool admit(struct tp_far *f, nng_stream *s) {
    struct err e = {0};
    uint32_t rank = 0;
    struct tp_wire *wire = xcalloc(1, sizeof *wire);
    enum rc rc = tp_wire_init(wire, &e);
    if (rc) {
        nng_stream_free(s);
        free(wire);
        return false;
    }
    tp_wire_take(wire, s);
    rc = tp_wire_admit(wire, f->o.config->secret, f->o.config->facts, taken, f, &rank, &e);
    if (rc == RC_OK)
        rc = let_in(f, rank, wire, &e);
    if (rc == RC_OK)
        return true;
    LOG(LOG_WARN, "a rank was refused", F_STR("reason", e.msg));
    tp_wire_fini(wire);
    free(wire);
    return false;
}

static void *door_main(void *arg) {
    struct tp_far *f = arg;
    uint32_t n_missing = f->o.n_ranks - f->o.first;
    while (n_missing > 0) {
        nng_aio_set_timeout(f->aio, NNG_DURATION_INFINITE);
        pthread_mutex_lock(&f->mu);
        bool closing = f->closing;
        if (!closing)
            nng_stream_listener_accept(f->listener, f->aio);
        pthread_mutex_unlock(&f->mu);
        if (closing)
            break;
        nng_aio_wait(f->aio);
        int rv = nng_aio_result(f->aio);
        if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
            break;
        if (rv) {
            LOG(LOG_WARN, "cannot accept a rank", F_STR("reason", nng_strerror(rv)));
            nanosleep(&(struct timespec){0, REST_MS * 1000000}, NULL);
            continue;
        }
        n_missing -= admit(f, nng_aio_get_output(f->aio, 0));
    }
    return NULL;
}

enum rc tp_far_open(struct tp_far **out, const struct tp_far_opts *o, struct err *e) {
    const char *url = o->config->url;
    nng_tls_config *tls = NULL;
    sigset_t all, before;
    if (link_is_tls(url)) {
        enum rc rc = link_tls_server(o->config->tls, &tls, e);
        if (rc)
            return rc;
    }
    struct tp_far *f = xcalloc(1, sizeof *f);
    f->o = *o;
    for (uint32_t i = 0; i < BE_RANKS_MAX; i++) {
        f->rank[i].all = f;
        f->rank[i].rank = i;
    }
    CHECK(pthread_mutex_init(&f->mu, NULL) == 0 && pthread_cond_init(&f->changed, NULL) == 0);
    int rv = nng_stream_listener_alloc(&f->listener, url);
    if (!rv && tls)
        rv = nng_stream_listener_set_ptr(f->listener, NNG_OPT_TLS_CONFIG, tls);
    if (tls)
        nng_tls_config_free(tls); /* the listener holds it */
    if (!rv)
        rv = nng_aio_alloc(&f->aio, NULL, NULL);
    if (!rv)
        rv = nng_stream_listener_listen(f->listener);
    if (!rv)
        rv = nng_stream_listener_get_int(f->listener, NNG_OPT_TCP_BOUND_PORT, &f->port);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!rv && pthread_create(&f->door, NULL, door_main, f))
        rv = NNG_ENOMEM;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    f->opened = !rv;
    if (rv) {
        tp_far_close(f, 0);
        return err_set(e, RC_IO, "rank-listen", "--rank-listen %.200s: %s", url, nng_strerror(rv));
    }
    *out = f;
    return RC_OK;
}

int tp_far_port(const struct tp_far *f) {
    return f->port;
}

/* ---- the group ---------------------------------------------------------------------------------- */

static bool here(struct tp_far *f, uint32_t rank) {
    pthread_mutex_lock(&f->mu);
    bool is = f->rank[rank].here;
    pthread_mutex_unlock(&f->mu);
    return is;
}

bool tp_far_here(struct tp_far *f, uint32_t rank) {
    return here(f, rank);
}

bool tp_far_gone(struct tp_far *f, uint32_t rank, char *why, size_t n) {
    pthread_mutex_lock(&f->mu);
    bool is = f->rank[rank].gone;
    if (is)
        snprintf(why, n, "rank %u, on another host: %s", rank, f->rank[rank].why);
    pthread_mutex_unlock(&f->mu);
    return is;
}

void tp_far_beat(struct tp_far *f) {
    struct err e;
    for (uint32_t i = f->o.first; i < f->o.n_ranks; i++)
        if (here(f, i) && tp_wire_try_beat(f->rank[i].wire, f->o.silent_ms, &e))
            leave(&f->rank[i], e.msg);
}

void tp_far_tell(struct tp_far *f, const uint32_t *words, size_t n) {
    struct err e;
    for (uint32_t i = f->o.first; i < f->o.n_ranks; i++)
        if (here(f, i) && tp_wire_send(f->rank[i].wire, TPW_PLAN, 0, words, n * sizeof *words, f->o.silent_ms, &e))
            leave(&f->rank[i], e.msg);
}

void tp_far_over(struct tp_far *f, const char *why) {
    struct err e;
    for (uint32_t i = f->o.first; i < f->o.n_ranks; i++)
        if (here(f, i)) {
            (void)!tp_wire_send(f->rank[i].wire, TPW_GONE, 0, why, strlen(why), LAST_WORDS_MS, &e);
            leave(&f->rank[i], "the group is over");
        }
}

void tp_far_close(struct tp_far *f, unsigned ms) {
    if (!f)
        return;
    char why[TPW_WHY_BYTES + 64];
    uint64_t until = clock_ns() + ms * NS_PER_MS;
    pthread_mutex_lock(&f->mu);
    f->closing = true;
    if (f->listener)
        nng_stream_listener_close(f->listener);
    pthread_mutex_unlock(&f->mu);
    if (f->opened)
        pthread_join(f->door, NULL);
    for (uint32_t i = f->o.first; i < f->o.n_ranks; i++) {
        struct far *r = &f->rank[i];
        if (!r->here)
            continue;
        while (!tp_far_gone(f, i, why, sizeof why) && clock_ns() < until)
            poll(NULL, 0, 2);
        leave(r, "the group is over");
        __atomic_store_n(&f->o.be.group->failed, 1, __ATOMIC_RELEASE); /* its hands wait for nobody */
        pthread_join(r->reader, NULL);
        pthread_join(r->hands, NULL);
        f->o.ops->stand_close(r->stand);
        tp_wire_fini(r->wire);
        free(r->wire);
        buf_fini(&r->call);
    }
    if (f->aio)
        nng_aio_free(f->aio);
    if (f->listener)
        nng_stream_listener_free(f->listener);
    pthread_mutex_destroy(&f->mu);
    pthread_cond_destroy(&f->changed);
    free(f);
}
