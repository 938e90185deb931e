/* router_rig.h: a router in this process, and a plain HTTP client of one blocking socket, for tests. */
#ifndef WEIR_TESTS_SUPPORT_ROUTER_RIG_H
#define WEIR_TESTS_SUPPORT_ROUTER_RIG_H

#include <pthread.h>

#include "common/buf.h"
#include "router/router.h"

struct router_rig {
    struct router_opts opts; /* change between router_rig_init and router_rig_start */
    struct router *router;
    pthread_t thread;
    char url[128]; /* for a worker on this machine */
    bool peaceful; /* router_run's answer, after router_rig_stop */
};
void router_rig_init(struct router_rig *r);
void router_rig_start(struct router_rig *r); /* dials r->url */
/* router_rig_wait_ready: until /health says 200; aborts after ten seconds. */
void router_rig_wait_ready(struct router_rig *r);
void router_rig_stop(struct router_rig *r);
void router_rig_fini(struct router_rig *r);
/* rig_until: polls a condition for up to ten seconds. */
bool rig_until(bool (*fn)(void *arg), void *arg);

/* http_open: connected, or aborts. http_send: all of it. */
int http_open(int port);
void http_send(int fd, const char *p, size_t n);
struct http_answer {
    int status;
    struct buf head, body; /* body: without chunk frames */
    bool closed;           /* the server closed before the answer was whole */
    bool keep_alive;
};
/* http_read: one whole answer from the socket; *rest keeps bytes of the next one. */
void http_read(int fd, struct buf *rest, bool head_only, struct http_answer *out);
void http_answer_fini(struct http_answer *a);
/* http_post, http_get: a request with its own connection. */
void http_post(int port, const char *path, const char *json, struct http_answer *out);
void http_get(int port, const char *path, struct http_answer *out);
/* http_post_text: a POST with Content-Length, as text to send. */
void http_post_text(const char *path, const char *json, struct buf *out);
/* http_header: whether the head has this line's beginning, in any case ("retry-after: 5"). */
bool http_header(const struct http_answer *a, const char *begins);

#endif
