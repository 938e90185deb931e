#include "tests/support/router_world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

const char world_long_stream[] = "{\"prompt\":\"hello\",\"max_tokens\":3000,\"stream\":true}";
const char world_long_whole[] = "{\"prompt\":\"hello\",\"max_tokens\":3000}";
const char world_small[] = "{\"prompt\":\"hello\",\"max_tokens\":3}";

int world_post(int port, const char *path, const char *json) {
    struct buf text = {0};
    int fd = http_open(port);
    http_post_text(path, json, &text);
    http_send(fd, text.data, text.len);
    buf_fini(&text);
    return fd;
}

void world_read_until(int fd, struct buf *b, const char *text) {
    while (!b->len || !memmem(b->data, b->len, text, strlen(text))) {
        ssize_t n = recv(fd, buf_reserve(b, 4096), 4096, 0);
        CHECK(n > 0);
        b->len += (size_t)n;
    }
}

void world_answer(int fd, struct buf *rest, struct http_answer *a) {
    http_read(fd, rest, false, a);
    buf_fini(rest);
    close(fd);
}

void world_expect_fd(int fd, int status, const char *piece) {
    struct buf rest = {0};
    struct http_answer a;
    world_answer(fd, &rest, &a);
    bool has = !piece || http_header(&a, piece) || (a.body.data && strstr(a.body.data, piece));
    if (a.status != status || !has)
        fprintf(stderr, "got %d, not %d with %s\n%s%s\n", a.status, status, piece ? piece : "",
                a.head.data ? a.head.data : "", a.body.data ? a.body.data : "");
    CHECK(a.status == status && has);
    http_answer_fini(&a);
}

void world_expect(int port, const char *json, int status, const char *piece) {
    world_expect_fd(world_post(port, "/v1/completions", json), status, piece);
}

double world_metric(int port, const char *name) {
    struct http_answer a;
    char line[200];
    http_get(port, "/metrics", &a);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *p = strstr(a.body.data, line);
    CHECK(p);
    double v = strtod(p + strlen(line), NULL);
    http_answer_fini(&a);
    return v;
}

bool world_idle(void *arg) {
    struct router_rig *r = arg;
    return router_request_count(r->router) == 0;
}

bool world_submitted(void *arg) {
    return fake_worker_submits(arg) >= 1;
}

bool world_aborted(void *arg) {
    return fake_worker_live(arg) == 0;
}

bool world_healthy(void *arg) {
    struct http_answer a;
    http_get(*(int *)arg, "/health", &a);
    bool ok = a.status == 200;
    http_answer_fini(&a);
    return ok;
}

bool world_swallow(void *arg, struct fake_worker *f, struct link_conn *c, const Weir__Submit *m) {
    (void)f, (void)c, (void)m;
    atomic_fetch_add((_Atomic int *)arg, 1);
    return true;
}

bool world_swallowed(void *arg) {
    return atomic_load((_Atomic int *)arg) > 0;
}

void world_start(struct world *w, struct fake_opts f) {
    f.url = w->rig.url;
    w->worker = fake_worker_new(&f);
    router_rig_start(&w->rig);
    w->port = router_port(w->rig.router);
    if (!f.start_loading && !f.bad_digest)
        router_rig_wait_ready(&w->rig);
}

void world_stop(struct world *w) {
    router_rig_fini(&w->rig);
    fake_worker_free(w->worker);
}
