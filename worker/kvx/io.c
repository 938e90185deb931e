#include "worker/kvx/io.h"

#include <stdio.h>

enum rc kvx_io_init(struct kvx_io *io, struct err *e) {
    *io = (struct kvx_io){0};
    if (nng_aio_alloc(&io->aio, NULL, NULL))
        return err_set(e, RC_IO, NULL, "no memory for a KV transfer");
    CHECK(pthread_mutex_init(&io->mu, NULL) == 0);
    return RC_OK;
}

void kvx_io_take(struct kvx_io *io, nng_stream *s) {
    io->s = s;
}

static enum rc result(struct kvx_io *io, const char *what, struct err *e) {
    int rv = nng_aio_result(io->aio);
    switch (rv) {
    case 0:
        return RC_OK;
    case NNG_ETIMEDOUT:
        return err_set(e, RC_TIMEOUT, NULL, "%s: no answer in time", what);
    case NNG_ECLOSED:
    case NNG_ECONNSHUT:
    case NNG_ECONNRESET:
    case NNG_ECANCELED:
        return err_set(e, RC_CLOSED, NULL, "%s: the connection ended", what);
    default:
        return err_set(e, RC_IO, NULL, "%s: %s", what, nng_strerror(rv));
    }
}

void kvx_url(const char *host, uint32_t port, const struct link_tls *tls, char out[KVX_URL_BYTES]) {
    const bool v6 = strchr(host, ':') != NULL;
    snprintf(out, KVX_URL_BYTES, "%s://%s%s%s:%u", tls ? "tls+tcp" : "tcp", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

enum rc kvx_io_dial(struct kvx_io *io, const char *host, uint32_t port, const struct link_tls *tls, unsigned ms,
                    struct err *e) {
    char url[KVX_URL_BYTES];
    nng_tls_config *config = NULL;
    kvx_url(host, port, tls, url);
    enum rc rc = tls ? link_tls_client(tls, url, &config, e) : RC_OK;
    if (rc)
        return rc;
    pthread_mutex_lock(&io->mu);
    CHECK(!io->s && !io->dialer);
    int rv = io->stopped ? NNG_ECLOSED : nng_stream_dialer_alloc(&io->dialer, url);
    if (!rv && config)
        rv = nng_stream_dialer_set_ptr(io->dialer, NNG_OPT_TLS_CONFIG, config); /* which it holds */
    if (!rv) {
        nng_aio_set_timeout(io->aio, (nng_duration)ms);
        nng_stream_dialer_dial(io->dialer, io->aio);
    }
    pthread_mutex_unlock(&io->mu);
    if (config)
        nng_tls_config_free(config);
    if (rv)
        return err_set(e, rv == NNG_ECLOSED ? RC_CLOSED : RC_IO, NULL, "dial: %s", nng_strerror(rv));
    nng_aio_wait(io->aio);
    rc = result(io, "dial", e);
    if (rc)
        return rc;
    pthread_mutex_lock(&io->mu);
    io->s = nng_aio_get_output(io->aio, 0);
    if (io->stopped)
        nng_stream_close(io->s);
    pthread_mutex_unlock(&io->mu);
    return RC_OK;
}

/* move: sends or receives all of it. The look at `stopped` is needed, and under the lock: nng 1.5 does not complete what
 * begins after the close. */
static enum rc move(struct kvx_io *io, void *p, size_t n, unsigned ms, bool out, struct err *e) {
    const char *what = out ? "send" : "receive";
    for (size_t at = 0; at < n;) {
        nng_iov iov = {.iov_buf = (uint8_t *)p + at, .iov_len = n - at};
        pthread_mutex_lock(&io->mu);
        bool open = !io->stopped && io->s;
        if (open) {
            CHECK(nng_aio_set_iov(io->aio, 1, &iov) == 0);
            nng_aio_set_timeout(io->aio, (nng_duration)ms);
            if (out)
                nng_stream_send(io->s, io->aio);
            else
                nng_stream_recv(io->s, io->aio);
        }
        pthread_mutex_unlock(&io->mu);
        if (!open)
            return err_set(e, RC_CLOSED, NULL, "%s: the transfer was stopped", what);
        nng_aio_wait(io->aio);
        enum rc rc = result(io, what, e);
        if (rc)
            return rc;
        at += nng_aio_count(io->aio);
    }
    return RC_OK;
}

enum rc kvx_io_send(struct kvx_io *io, const void *p, size_t n, unsigned ms, struct err *e) {
    return move(io, (void *)(uintptr_t)p, n, ms, true, e); /* nng's vectors are not const; it only reads */
}

enum rc kvx_io_recv(struct kvx_io *io, void *p, size_t n, unsigned ms, struct err *e) {
    return move(io, p, n, ms, false, e);
}

enum rc kvx_io_frame(struct kvx_io *io, struct buf *body, struct kvx_head *head, unsigned ms, struct err *e) {
    enum { STEP_BYTES = 64 * 1024 };
    uint8_t h[KVX_HEAD_BYTES];
    body->len = 0;
    enum rc rc = kvx_io_recv(io, h, sizeof h, ms, e);
    if (!rc)
        rc = kvx_get_head(h, head, e);
    /* What a length announces is believed as far as it comes. */
    while (!rc && head->type != KVX_DATA && body->len < head->n_bytes) {
        size_t n = MIN(head->n_bytes - body->len, (size_t)STEP_BYTES);
        rc = kvx_io_recv(io, buf_reserve(body, n), n, ms, e);
        body->len += rc ? 0 : n;
    }
    return rc;
}

void kvx_io_stop(struct kvx_io *io) {
    pthread_mutex_lock(&io->mu);
    if (!io->stopped) {
        io->stopped = true;
        if (io->s)
            nng_stream_close(io->s);
        else if (io->dialer)
            nng_stream_dialer_close(io->dialer);
    }
    pthread_mutex_unlock(&io->mu);
}

void kvx_io_fini(struct kvx_io *io) {
    if (!io->aio)
        return;
    kvx_io_stop(io);
    nng_aio_free(io->aio);
    /* The dialler first: the stream holds a reference to it inside nng. */
    if (io->dialer)
        nng_stream_dialer_free(io->dialer);
    if (io->s)
        nng_stream_free(io->s);
    pthread_mutex_destroy(&io->mu);
    *io = (struct kvx_io){0};
}
