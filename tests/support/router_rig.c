#include "tests/support/router_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "router/flags.h"

/* ---- a router ---------------------------------------------------------------------------------------- */

void router_rig_init(struct router_rig *r) {
    static int serial;
    memset(r, 0, sizeof *r);
    log_set_level(getenv("RIG_LOG") ? LOG_DEBUG : LOG_ERROR);
    router_opts_init(&r->opts);
    r->opts.port = 0;
    r->opts.threads = 2;
    snprintf(r->url, sizeof r->url, "ipc:///tmp/weir-rig-%d-%d", (int)getpid(), serial++);
}

static void *run(void *arg) {
    struct router_rig *r = arg;
    r->peaceful = router_run(r->router);
    return NULL;
}

void router_rig_start(struct router_rig *r) {
    struct err e;
    if (router_new(&r->router, &r->opts, &e) != RC_OK) {
        fprintf(stderr, "router_new: %s\n", e.msg);
        abort();
    }
    CHECK(router_dial(r->router, r->url, &e) == RC_OK);
    CHECK(pthread_create(&r->thread, NULL, run, r) == 0);
}

bool rig_until(bool (*fn)(void *arg), void *arg) {
    struct timespec pause = {0, 2000000};
    uint64_t end = clock_ns() + 10 * NS_PER_S;
    while (!fn(arg)) {
        if (clock_ns() > end)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static bool healthy(void *arg) {
    struct router_rig *r = arg;
    struct http_answer a;
    http_get(router_port(r->router), "/health", &a);
    bool ok = a.status == 200;
    http_answer_fini(&a);
    return ok;
}

void router_rig_wait_ready(struct router_rig *r) {
    CHECK(rig_until(healthy, r));
}

void router_rig_stop(struct router_rig *r) {
    if (!r->router)
        return;
    router_shutdown(r->router);
    pthread_join(r->thread, NULL);
    router_free(r->router);
    r->router = NULL;
}

void router_rig_fini(struct router_rig *r) {
    const struct conf_table t = {.flags = router_flag_rows, .n_flags = n_router_flag_rows};
    router_rig_stop(r);
    conf_free(&t, &r->opts, NULL);
    free(r->opts.log_level); /* a flag of both programs, in neither's table alone */
}

/* ---- a client ---------------------------------------------------------------------------------------- */

int http_open(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    CHECK(fd >= 0);
    CHECK(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct timeval limit = {20, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

void http_send(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return; /* the server has closed; its answer says why */
        p += k;
        n -= (size_t)k;
    }
}

static bool more(int fd, struct buf *b) {
    ssize_t n;
    do
        n = recv(fd, buf_reserve(b, 65536), 65536, 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return false;
    b->len += (size_t)n;
    return true;
}

bool http_header(const struct http_answer *a, const char *begins) {
    size_t n = strlen(begins);
    for (const char *p = a->head.data; p && p < a->head.data + a->head.len;
         p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        if (!strncasecmp(p, begins, n))
            return true;
    }
    return false;
}

static const char *value(const struct http_answer *a, const char *name) {
    size_t n = strlen(name);
    for (const char *p = a->head.data; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        if (!strncasecmp(p, name, n))
            return p + n;
    }
    return NULL;
}

static bool read_chunks(int fd, struct buf *in, struct buf *out) {
    for (;;) {
        const char *end;
        while (!(end = in->len ? memmem(in->data, in->len, "\r\n", 2) : NULL)) {
            if (!more(fd, in))
                return false;
        }
        size_t n = strtoul(in->data, NULL, 16), head = (size_t)(end - in->data) + 2;
        while (in->len < head + n + 2) {
            if (!more(fd, in))
                return false;
        }
        buf_add(out, in->data + head, n);
        buf_drop(in, head + n + 2);
        if (n == 0)
            return true;
    }
}

void http_read(int fd, struct buf *rest, bool head_only, struct http_answer *out) {
    const char *end;
    *out = (struct http_answer){0};
    while (!(end = rest->len ? memmem(rest->data, rest->len, "\r\n\r\n", 4) : NULL)) {
        if (!more(fd, rest)) {
            out->closed = true;
            return;
        }
    }
    size_t n = (size_t)(end - rest->data) + 4;
    buf_add(&out->head, rest->data, n);
    (void)buf_cstr(&out->head);
    buf_drop(rest, n);
    out->status = atoi(out->head.data + 9);
    out->keep_alive = http_header(out, "connection: keep-alive");
    const char *length = value(out, "content-length: ");
    if (head_only || out->status == 204)
        return;
    if (length) {
        size_t want = strtoul(length, NULL, 10);
        while (rest->len < want) {
            if (!more(fd, rest)) {
                out->closed = true;
                return;
            }
        }
        buf_add(&out->body, rest->data, want);
        buf_drop(rest, want);
    } else if (http_header(out, "transfer-encoding: chunked")) {
        out->closed = !read_chunks(fd, rest, &out->body);
    } else {
        while (more(fd, rest))
            ;
        buf_add(&out->body, rest->data, rest->len);
        rest->len = 0;
    }
    (void)buf_cstr(&out->body);
}

void http_answer_fini(struct http_answer *a) {
    buf_fini(&a->head);
    buf_fini(&a->body);
}

void http_post_text(const char *path, const char *json, struct buf *out) {
    buf_addf(out,
             "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
             "%zu\r\n\r\n%s",
             path, strlen(json), json);
}

void http_post(int port, const char *path, const char *json, struct http_answer *out) {
    struct buf text = {0}, rest = {0};
    int fd = http_open(port);
    http_post_text(path, json, &text);
    http_send(fd, text.data, text.len);
    http_read(fd, &rest, false, out);
    close(fd);
    buf_fini(&text);
    buf_fini(&rest);
}

void http_get(int port, const char *path, struct http_answer *out) {
    struct buf text = {0}, rest = {0};
    int fd = http_open(port);
    buf_addf(&text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    http_send(fd, text.data, text.len);
    http_read(fd, &rest, false, out);
    close(fd);
    buf_fini(&text);
    buf_fini(&rest);
}
