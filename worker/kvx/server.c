#include "worker/kvx/server.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/kvx/io.h"

enum { OPEN_MS = 2000, SEND_MS = 5000, ACCEPT_PAUSE_MS = 100 };

struct reader {
    struct kvx_server *server;
    struct reader *next; /* under mu */
    struct kvx_io io;
};

struct kvx_server {
    struct kvx_server_opts o;
    char *secret;
    nng_stream_listener *listener;
    nng_aio *aio; /* of the acceptor */
    pthread_t acceptor;
    int port;
    pthread_mutex_t mu;
    pthread_cond_t changed;
    struct reader *readers; /* under mu */
    unsigned n_readers;     /* under mu */
    bool stopping;          /* under mu */
    _Atomic uint64_t n_cuts;
};

/* ---- a reader ----------------------------------------------------------------------------------- */

static enum rc send_buf(struct kvx_io *io, struct buf *b, struct err *e) {
    enum rc rc = kvx_io_send(io, b->data, b->len, SEND_MS, e);
    b->len = 0;
    return rc;
}

static enum rc refuse(struct kvx_io *io, enum kvx_refusal why, struct buf *b, struct err *e) {
    struct err ignored;
    b->len = 0;
    kvx_put_refuse(b, &(struct kvx_refuse){why});
    (void)!send_buf(io, b, &ignored);
    return err_set(e, RC_CLOSED, NULL, "refused: %s", kvx_refusal_words[why]);
}

/* may: whether it has the cluster's token. */
static bool may(const struct kvx_server *s, const struct kvx_hello *h, const struct kvx_open *o) {
    uint8_t proof[KVX_PROOF_BYTES];
    kvx_prove(s->o.secret, h, o, proof);
    return CRYPTO_memcmp(proof, o->proof, sizeof proof) == 0;
}

/* forget_lease: RC_CLOSED: there is nothing to serve. */
static enum rc forget_lease(struct kvx_server *s, const struct kvx_hello *h, const struct buf *body, struct err *e) {
    struct kvx_open o;
    enum rc rc = kvx_get_forget((const uint8_t *)body->data, body->len, &o, e);
    if (rc)
        return rc;
    if (may(s, h, &o) && id128_eq(o.engine, s->o.engine) && s->o.source.forget)
        s->o.source.forget(s->o.source.arg, o.transfer);
    return err_set(e, RC_CLOSED, NULL, "a transfer that nobody reads");
}

/* greet: until the lease is granted. */
static enum rc greet(struct kvx_server *s, struct kvx_io *io, struct buf *body, uint64_t *lease, uint32_t *n_blocks,
                     struct err *e) {
    struct kvx_hello hello = {.engine = s->o.engine, .wants_proof = s->o.secret.n > 0};
    struct buf out = {0};
    struct kvx_head head;
    struct kvx_open open;
    fill_random(hello.nonce, sizeof hello.nonce);
    kvx_put_hello(&out, &hello);
    enum rc rc = send_buf(io, &out, e);
    if (!rc)
        rc = kvx_io_frame(io, body, &head, OPEN_MS, e);
    if (!rc && head.type == KVX_FORGET) {
        rc = forget_lease(s, &hello, body, e);
        goto out;
    }
    if (!rc && head.type != KVX_OPEN)
        rc = err_set(e, RC_PROTO, NULL, "a KV transfer begins with something else");
    if (!rc)
        rc = kvx_get_open((const uint8_t *)body->data, body->len, &open, e);
    if (rc)
        goto out;
    if (!may(s, &hello, &open)) {
        rc = refuse(io, KVX_DENIED, &out, e);
        goto out;
    }
    enum kvx_refusal why = KVX_UNKNOWN;
    if (id128_eq(open.engine, s->o.engine))
        why = s->o.source.open(s->o.source.arg, &open, lease);
    if (why) {
        rc = refuse(io, why, &out, e);
        goto out;
    }
    *n_blocks = open.n_blocks;
    kvx_put_grant(&out, &(struct kvx_grant){s->o.layout, s->o.lease_ms});
    rc = send_buf(io, &out, e);
    if (rc)
        s->o.source.close(s->o.source.arg, *lease, false);
out:
    buf_fini(&out);
    return rc;
}

/* answer_read: a chunk, or what there is of it. */
static enum rc answer_read(struct kvx_server *s, struct kvx_io *io, uint64_t lease, uint32_t n_blocks,
                           struct kvx_read *r, struct buf *chunk, struct err *e) {
    const struct kvx_layout *l = &s->o.layout;
    struct buf out = {0};
    if (r->group >= l->n_groups || r->rank >= l->n_ranks || r->from >= n_blocks || r->n > n_blocks - r->from ||
        r->n > kvx_chunk_blocks(l))
        return err_set(e, RC_PROTO, NULL, "a read outside of what was granted");
    const struct kvx_group *g = &l->group[r->group];
    struct kvx_heads heads = kvx_heads_of(g->n_heads, r->rank, l->n_ranks);
    const size_t block = kvx_block_bytes(g, heads.n);
    chunk->len = 0;
    uint8_t *dst = (uint8_t *)buf_reserve(chunk, block * r->n);
    int n = s->o.source.read(s->o.source.arg, lease, r, dst);
    if (n < 0)
        return refuse(io, KVX_GONE, chunk, e);
    CHECK((uint32_t)n <= r->n);
    if (n == 0)
        kvx_put_empty(&out, KVX_WAIT);
    else
        kvx_put_data(&out, &(struct kvx_data){.group = r->group,
                                              .rank = r->rank,
                                              .from = r->from,
                                              .n = (uint32_t)n,
                                              .heads = heads,
                                              .dtype = g->dtype,
                                              .n_bytes = block * (size_t)n});
    enum rc rc = send_buf(io, &out, e);
    if (!rc && n > 0)
        rc = kvx_io_send(io, dst, block * (size_t)n, SEND_MS, e);
    buf_fini(&out);
    return rc;
}

/* serve: what the reader asks for, until it is done. RC_OK: it has said so. */
static enum rc serve(struct kvx_server *s, struct kvx_io *io, struct buf *body, struct buf *chunk, uint64_t lease,
                     uint32_t n_blocks, struct err *e) {
    for (;;) {
        struct kvx_head head;
        struct kvx_read read;
        enum rc rc = kvx_io_frame(io, body, &head, s->o.lease_ms, e);
        if (rc)
            return rc;
        switch (head.type) {
        case KVX_READ:
            rc = kvx_get_read((const uint8_t *)body->data, body->len, &read, e);
            if (!rc)
                rc = answer_read(s, io, lease, n_blocks, &read, chunk, e);
            break;
        case KVX_BEAT:
            if (!s->o.source.renew(s->o.source.arg, lease))
                rc = refuse(io, KVX_GONE, chunk, e);
            break;
        case KVX_DONE:
            return RC_OK;
        default:
            rc = err_set(e, RC_PROTO, NULL, "a frame that readers do not send");
        }
        if (rc)
            return rc;
    }
}

static void forget(struct reader *r) {
    struct kvx_server *s = r->server;
    pthread_mutex_lock(&s->mu);
    struct reader **at = &s->readers;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    pthread_mutex_unlock(&s->mu);
    kvx_io_fini(&r->io);
    free(r);
    pthread_mutex_lock(&s->mu);
    s->n_readers--;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->mu);
}

static void *reader_main(void *arg) {
    struct reader *r = arg;
    struct kvx_server *s = r->server;
    struct buf body = {0}, chunk = {0};
    struct err e = {0};
    uint64_t lease = 0;
    uint32_t n_blocks = 0;
    enum rc rc = greet(s, &r->io, &body, &lease, &n_blocks, &e);
    if (!rc) {
        rc = serve(s, &r->io, &body, &chunk, lease, n_blocks, &e);
        s->o.source.close(s->o.source.arg, lease, rc == RC_OK);
    }
    if (rc == RC_PROTO) {
        atomic_fetch_add(&s->n_cuts, 1);
        LOG(LOG_WARN, "KV transfer: peer cut", F_STR("reason", e.msg));
    } else if (rc) {
        LOG(LOG_DEBUG, "KV transfer: a reader is gone", F_STR("reason", e.msg));
    }
    buf_fini(&body);
    buf_fini(&chunk);
    forget(r);
    return NULL;
}

/* ---- the listener ------------------------------------------------------------------------------- */

static void start_reader(struct kvx_server *s, nng_stream *stream) {
    struct reader *r = xcalloc(1, sizeof *r);
    struct err e;
    pthread_t thread;
    r->server = s;
    bool ok = kvx_io_init(&r->io, &e) == RC_OK;
    if (!ok) {
        nng_stream_free(stream);
        free(r);
        return;
    }
    kvx_io_take(&r->io, stream);
    pthread_mutex_lock(&s->mu);
    ok = !s->stopping && s->n_readers < KVX_READERS_MAX;
    if (ok) {
        r->next = s->readers;
        s->readers = r;
        s->n_readers++;
    }
    pthread_mutex_unlock(&s->mu);
    if (!ok) {
        kvx_io_fini(&r->io);
        free(r);
    } else if (pthread_create(&thread, NULL, reader_main, r)) {
        forget(r);
    } else {
        pthread_detach(thread);
    }
}

static bool is_stopping(struct kvx_server *s) {
    pthread_mutex_lock(&s->mu);
    bool stopping = s->stopping;
    pthread_mutex_unlock(&s->mu);
    return stopping;
}

static void *acceptor_main(void *arg) {
    struct kvx_server *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->mu);
        bool stopping = s->stopping;
        if (!stopping)
            nng_stream_listener_accept(s->listener, s->aio);
        pthread_mutex_unlock(&s->mu);
        if (stopping)
            return NULL;
        nng_aio_wait(s->aio);
        if (nng_aio_result(s->aio) == 0)
            start_reader(s, nng_aio_get_output(s->aio, 0));
        else if (!is_stopping(s)) /* mostly no descriptors left */
            nanosleep(&(struct timespec){.tv_nsec = ACCEPT_PAUSE_MS * (long)NS_PER_MS}, NULL);
    }
}

enum rc kvx_server_start(struct kvx_server **out, const struct kvx_server_opts *o, struct err *e) {
    struct kvx_server *s = xcalloc(1, sizeof *s);
    char url[KVX_URL_BYTES];
    nng_tls_config *config = NULL;
    sigset_t all, before;
    enum rc rc = o->tls ? link_tls_server(o->tls, &config, e) : RC_OK;
    if (rc) {
        free(s);
        return rc;
    }
    s->o = *o;
    s->secret = xstrndup(o->secret.n ? o->secret.p : "", o->secret.n);
    s->o.secret.p = s->secret;
    CHECK(pthread_mutex_init(&s->mu, NULL) == 0 && pthread_cond_init(&s->changed, NULL) == 0);
    kvx_url(o->host, o->port, o->tls, url);
    int rv = nng_stream_listener_alloc(&s->listener, url);
    if (!rv && config)
        rv = nng_stream_listener_set_ptr(s->listener, NNG_OPT_TLS_CONFIG, config);
    if (config)
        nng_tls_config_free(config); /* the listener holds it */
    if (!rv)
        rv = nng_aio_alloc(&s->aio, NULL, NULL);
    if (!rv)
        rv = nng_stream_listener_listen(s->listener);
    if (!rv)
        rv = nng_stream_listener_get_int(s->listener, NNG_OPT_TCP_BOUND_PORT, &s->port);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!rv && pthread_create(&s->acceptor, NULL, acceptor_main, s))
        rv = NNG_ENOMEM;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!rv) {
        *out = s;
        return RC_OK;
    }
    if (s->aio)
        nng_aio_free(s->aio);
    if (s->listener)
        nng_stream_listener_free(s->listener);
    pthread_mutex_destroy(&s->mu);
    pthread_cond_destroy(&s->changed);
    free(s->secret);
    free(s);
    return err_set(e, RC_IO, "kv-transfer-config", "KV transfers cannot listen on %s port %u: %s", o->host, o->port,
                   nng_strerror(rv));
}

uint32_t kvx_server_port(const struct kvx_server *s) {
    return (uint32_t)s->port;
}

uint64_t kvx_server_cuts(const struct kvx_server *s) {
    return atomic_load(&s->n_cuts);
}

void kvx_server_stop(struct kvx_server *s) {
    if (!s)
        return;
    pthread_mutex_lock(&s->mu);
    s->stopping = true;
    nng_stream_listener_close(s->listener);
    for (struct reader *r = s->readers; r; r = r->next)
        kvx_io_stop(&r->io);
    pthread_mutex_unlock(&s->mu);
    pthread_join(s->acceptor, NULL);
    pthread_mutex_lock(&s->mu);
    while (s->n_readers)
        pthread_cond_wait(&s->changed, &s->mu);
    pthread_mutex_unlock(&s->mu);
    nng_aio_free(s->aio);
    nng_stream_listener_free(s->listener);
    pthread_mutex_destroy(&s->mu);
    pthread_cond_destroy(&s->changed);
    free(s->secret);
    free(s);
}
