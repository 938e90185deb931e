#include "router/client/target.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <unistd.h>

#include "common/version.h"

enum { CONNECT_LIMIT_MS = 5000 };

static enum rc wrong(struct err *e, const char *text, const char *why) {
    return err_set(e, RC_INVALID, NULL, "\"%.100s\" is no URL of a server: %s", text, why);
}

enum rc url_read(const char *text, struct url *u, struct err *e) {
    *u = (struct url){0};
    size_t n = strlen(text);
    if (n > TARGET_URL_BYTES_MAX)
        return wrong(e, text, "it is too long");
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f)
            return wrong(e, text, "it holds blanks, or characters beyond ASCII");
    u->tls = !strncmp(text, "https://", 8);
    if (!u->tls && strncmp(text, "http://", 7))
        return wrong(e, text, "it must begin with http:// or https://");
    const char *host = text + (u->tls ? 8 : 7), *end = host + strcspn(host, "/?#"), *port = NULL;
    size_t n_host;
    if (*end == '?' || *end == '#' || strpbrk(end, "?#"))
        return wrong(e, text, "a query has no place in it");
    if (memchr(host, '@', (size_t)(end - host)))
        return wrong(e, text, "a user has no place in it");
    if (*host == '[') {
        const char *close_bracket = memchr(host, ']', (size_t)(end - host));
        if (!close_bracket || (close_bracket + 1 != end && close_bracket[1] != ':'))
            return wrong(e, text, "an address in brackets is not closed");
        n_host = (size_t)(close_bracket - ++host);
        port = close_bracket[1] == ':' ? close_bracket + 2 : NULL;
    } else {
        const char *colon = memchr(host, ':', (size_t)(end - host));
        n_host = (size_t)((colon ? colon : end) - host);
        port = colon ? colon + 1 : NULL;
    }
    if (!n_host || n_host > TARGET_HOST_BYTES_MAX)
        return wrong(e, text, "it names no host");
    memcpy(u->host, host, n_host);
    strcpy(u->port, u->tls ? "443" : "80");
    if (port) {
        size_t n_port = (size_t)(end - port);
        if (!n_port || n_port > 5 || strspn(port, "0123456789") != n_port)
            return wrong(e, text, "its port is no number");
        memcpy(u->port, port, n_port);
        u->port[n_port] = '\0';
        if (strtoul(u->port, NULL, 10) > 65535 || strtoul(u->port, NULL, 10) == 0)
            return wrong(e, text, "its port is no number of a port");
    }
    size_t n_path = strlen(end);
    while (n_path && end[n_path - 1] == '/')
        n_path--;
    memcpy(u->path, end, n_path);
    if (!n_path)
        strcpy(u->path, "/v1");
    return RC_OK;
}

int target_socket(const struct target *t, struct err *e) {
    const struct sockaddr *addr = (const struct sockaddr *)&t->addr;
    int one = 1, fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        err_io(e, "socket");
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, addr, t->addr_len) && errno != EINPROGRESS) {
        err_io(e, "connect");
        close(fd);
        return -1;
    }
    return fd;
}

/* answers: whether a connection comes about. */
static bool answers(const struct target *t, struct err *e) {
    int fd = target_socket(t, e), fault = 0;
    socklen_t n = sizeof fault;
    if (fd < 0)
        return false;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, CONNECT_LIMIT_MS) != 1)
        fault = ETIMEDOUT;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &n);
    close(fd);
    errno = fault;
    if (fault)
        err_io(e, "connect");
    return !fault;
}

static enum rc open_tls(struct target *t, struct err *e) {
    t->tls = SSL_CTX_new(TLS_client_method());
    if (!t->tls || SSL_CTX_set_min_proto_version(t->tls, TLS1_2_VERSION) != 1 ||
        (!t->insecure && SSL_CTX_set_default_verify_paths(t->tls) != 1))
        return err_set(e, RC_IO, NULL, "TLS cannot be set up");
    SSL_CTX_set_verify(t->tls, t->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(t->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return RC_OK;
}

enum rc target_open(struct target *t, const char *url, bool insecure, struct err *e) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct err why = {0};
    *t = (struct target){.insecure = insecure};
    enum rc rc = url_read(url, &t->url, e);
    if (rc)
        return rc;
    int fault = getaddrinfo(t->url.host, t->url.port, &hints, &found);
    if (fault)
        return err_set(e, RC_IO, NULL, "%s cannot be resolved: %s", t->url.host, gai_strerror(fault));
    const struct addrinfo *a = found;
    for (; a; a = a->ai_next) {
        CHECK(a->ai_addrlen <= sizeof t->addr);
        memcpy(&t->addr, a->ai_addr, a->ai_addrlen);
        t->addr_len = a->ai_addrlen;
        if (answers(t, &why))
            break;
    }
    freeaddrinfo(found);
    if (!a)
        return err_set(e, RC_IO, NULL, "%s port %s: %s", t->url.host, t->url.port, why.msg);
    rc = t->url.tls ? open_tls(t, e) : RC_OK;
    if (rc)
        target_close(t);
    return rc;
}

void target_close(struct target *t) {
    SSL_CTX_free(t->tls);
    t->tls = NULL;
}

void target_request(const struct target *t, const char *path, const char *key, struct str body,
                    struct buf *out) {
    bool v6 = strchr(t->url.host, ':') != NULL;
    buf_addf(out, "%s %s%s HTTP/1.1\r\n", body.n ? "POST" : "GET", t->url.path, path);
    buf_addf(out, "Host: %s%s%s:%s\r\n", v6 ? "[" : "", t->url.host, v6 ? "]" : "", t->url.port);
    buf_addz(out, "User-Agent: weir/" WEIR_VERSION "\r\nConnection: close\r\n");
    if (key)
        buf_addf(out, "Authorization: Bearer %s\r\n", key);
    if (body.n)
        buf_addf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body.n);
    buf_addz(out, "\r\n");
    buf_add_str(out, body);
}

enum rc key_check(const char *key, struct err *e) {
    for (const char *p = key; p && *p; p++)
        if (*p <= ' ' || *p >= 0x7f)
            return err_set(e, RC_INVALID, NULL, "the API key holds blanks, or characters beyond ASCII");
    return RC_OK;
}
