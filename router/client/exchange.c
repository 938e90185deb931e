#include "router/client/exchange.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <unistd.h>

#include "common/clock.h"

enum { PIECE_BYTES = 16384, PIECES_MAX = 16 };
enum { PHASE_NONE, PHASE_CONNECT, PHASE_TLS, PHASE_TALK };

static enum rc tls_fault(const struct exchange *x, const char *what, struct err *e) {
    unsigned long code = ERR_peek_last_error();
    long verdict = SSL_get_verify_result(x->ssl);
    const char *why = verdict != X509_V_OK ? X509_verify_cert_error_string(verdict)
                      : code               ? ERR_reason_error_string(code)
                                           : "the connection was lost";
    return err_set(e, RC_PROTO, NULL, "TLS %s: %s", what, why ? why : "unknown fault");
}

/* start_tls: the peer must be who the URL says. */
static enum rc start_tls(struct exchange *x, struct err *e) {
    char host[TARGET_HOST_BYTES_MAX + 1]; /* OpenSSL's macro takes it without const */
    strcpy(host, x->target->url.host);
    struct in6_addr ip;
    bool is_ip = inet_pton(AF_INET, host, &ip) == 1 || inet_pton(AF_INET6, host, &ip) == 1;
    x->ssl = SSL_new(x->target->tls);
    if (!x->ssl || SSL_set_fd(x->ssl, x->fd) != 1 ||
        (is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(x->ssl), host) != 1
               : SSL_set1_host(x->ssl, host) != 1 || SSL_set_tlsext_host_name(x->ssl, host) != 1))
        return err_set(e, RC_IO, NULL, "TLS cannot be set up");
    SSL_set_connect_state(x->ssl);
    return RC_OK;
}

enum rc exchange_start(struct exchange *x, const struct target *t, struct buf *request,
                       bool (*on_event)(void *arg, struct str data), void *arg, struct err *e) {
    *x = (struct exchange){.target = t, .fd = -1, .on_event = on_event, .arg = arg, .out = *request};
    *request = (struct buf){0};
    http_resp_init(&x->resp);
    x->fd = target_socket(t, e);
    x->phase = x->fd < 0 ? PHASE_NONE : PHASE_CONNECT;
    if (x->fd < 0)
        return RC_IO;
    return t->tls ? start_tls(x, e) : RC_OK;
}

void exchange_close(struct exchange *x) {
    SSL_free(x->ssl); /* without a farewell: the connection serves nothing else */
    if (x->phase != PHASE_NONE)
        close(x->fd);
    http_resp_fini(&x->resp);
    sse_fini(&x->sse);
    buf_fini(&x->body);
    buf_fini(&x->out);
    *x = (struct exchange){.fd = -1};
}

short exchange_wants(const struct exchange *x) {
    if (x->phase == PHASE_CONNECT)
        return POLLOUT;
    if (x->ssl) /* a write may have to wait for bytes to read, and the other way round */
        return x->wants_write ? POLLIN | POLLOUT : POLLIN;
    return x->n_sent < x->out.len ? POLLIN | POLLOUT : POLLIN;
}

/* connected: RC_AGAIN while it is not. */
static enum rc connected(struct exchange *x, struct err *e) {
    struct pollfd p = {.fd = x->fd, .events = POLLOUT};
    int fault = 0;
    socklen_t n = sizeof fault;
    if (poll(&p, 1, 0) == 0)
        return RC_AGAIN;
    getsockopt(x->fd, SOL_SOCKET, SO_ERROR, &fault, &n);
    errno = fault;
    if (fault)
        return err_io(e, "connect");
    x->phase = x->ssl ? PHASE_TLS : PHASE_TALK;
    return RC_OK;
}

/* tls_result: what to do about an answer of OpenSSL's that is no success: RC_AGAIN, or the fault. */
static enum rc tls_result(struct exchange *x, int result, const char *what, struct err *e) {
    int kind = SSL_get_error(x->ssl, result);
    if (kind == SSL_ERROR_WANT_WRITE)
        x->wants_write = true;
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
        return RC_AGAIN;
    return tls_fault(x, what, e);
}

/* send_some: RC_OK when all is sent. A server may answer before it has read everything, and close: so a write
 * that fails is left for the next read to explain. */
static enum rc send_some(struct exchange *x, struct err *e) {
    while (x->n_sent < x->out.len) {
        size_t left = x->out.len - x->n_sent;
        ssize_t n;
        if (x->ssl) {
            n = SSL_write(x->ssl, x->out.data + x->n_sent, (int)MIN(left, (size_t)1 << 20));
            if (n <= 0)
                return tls_result(x, (int)n, "write", e);
        } else {
            n = send(x->fd, x->out.data + x->n_sent, left, MSG_NOSIGNAL);
            if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return RC_AGAIN;
            if (n < 0)
                n = (ssize_t)left;
        }
        x->n_sent += (size_t)n;
    }
    buf_fini(&x->out);
    x->n_sent = 0;
    return RC_OK;
}

/* receive: *n bytes; 0 is the end; RC_AGAIN when there are none yet. */
static enum rc receive(struct exchange *x, char *piece, size_t *n, struct err *e) {
    if (x->ssl) {
        int got = SSL_read(x->ssl, piece, PIECE_BYTES);
        if (got <= 0 && SSL_get_error(x->ssl, got) == SSL_ERROR_ZERO_RETURN)
            got = 0;
        else if (got <= 0)
            return tls_result(x, got, "read", e);
        *n = (size_t)got;
        return RC_OK;
    }
    ssize_t got = recv(x->fd, piece, PIECE_BYTES, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? RC_AGAIN : err_io(e, "the connection to the server");
    *n = (size_t)got;
    return RC_OK;
}

static enum rc on_body(struct exchange *x, struct str body, struct err *e) {
    if (x->resp.status != 200 || !x->resp.event_stream || !x->on_event) {
        if (x->body.len + body.n > EXCHANGE_BODY_BYTES_MAX)
            return err_set(e, RC_TOO_LARGE, NULL, "the server's answer is longer than %d bytes",
                           EXCHANGE_BODY_BYTES_MAX);
        buf_add_str(&x->body, body);
        return RC_OK;
    }
    while (body.n && !x->done) {
        struct str data;
        bool event;
        enum rc rc = sse_read(&x->sse, &body, &event, &data, e);
        if (rc)
            return rc;
        if (event && !x->on_event(x->arg, data))
            x->done = true;
    }
    return RC_OK;
}

static enum rc on_bytes(struct exchange *x, struct str in, struct err *e) {
    while (in.n && !x->done) {
        struct str body;
        enum rc rc = http_resp_read(&x->resp, &in, &body, e);
        if (!rc && body.n)
            rc = on_body(x, body, e);
        if (rc)
            return rc;
        x->done |= x->resp.done;
    }
    return RC_OK;
}

enum rc exchange_step(struct exchange *x, struct err *e) {
    char piece[PIECE_BYTES];
    enum rc rc = RC_OK;
    ERR_clear_error();
    x->wants_write = false;
    if (x->phase == PHASE_CONNECT)
        rc = connected(x, e);
    if (!rc && x->phase == PHASE_TLS) {
        int ok = SSL_do_handshake(x->ssl);
        if (ok == 1)
            x->phase = PHASE_TALK;
        else
            rc = tls_result(x, ok, "handshake", e);
    }
    if (!rc)
        rc = send_some(x, e);
    if (rc && (rc != RC_AGAIN || x->phase != PHASE_TALK))
        return rc == RC_AGAIN ? RC_OK : rc;
    /* What TLS has read ahead wakes nobody, so it is taken even beyond the share. */
    for (int i = 0; !x->done && (i < PIECES_MAX || (x->ssl && SSL_pending(x->ssl))); i++) {
        size_t n = 0;
        rc = receive(x, piece, &n, e);
        if (rc)
            return rc == RC_AGAIN ? RC_OK : rc;
        if (!n) {
            rc = http_resp_eof(&x->resp, e);
            x->done = !rc;
            return rc;
        }
        rc = on_bytes(x, (struct str){piece, n}, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}

enum rc exchange_run(struct exchange *x, int64_t limit_ms, const volatile sig_atomic_t *stop,
                     const sigset_t *during, struct err *e) {
    uint64_t end_ns = clock_ns() + (uint64_t)limit_ms * NS_PER_MS;
    while (!x->done) {
        uint64_t now = clock_ns();
        if (stop && *stop)
            return err_set(e, RC_AGAIN, NULL, "stopped");
        if (now >= end_ns)
            return err_set(e, RC_TIMEOUT, NULL, "the server did not answer within %lld s",
                           (long long)(limit_ms / 1000));
        struct timespec left = {.tv_sec = (time_t)((end_ns - now) / NS_PER_S),
                                .tv_nsec = (long)((end_ns - now) % NS_PER_S)};
        struct pollfd p = {.fd = x->fd, .events = exchange_wants(x)};
        int n = ppoll(&p, 1, &left, during);
        if (n < 0 && errno != EINTR)
            return err_io(e, "poll");
        if (n <= 0)
            continue;
        enum rc rc = exchange_step(x, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}
