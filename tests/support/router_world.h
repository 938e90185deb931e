/* router_world.h: a router in this process and one scripted worker (fake_worker.h) behind it, with what tests ask of the
 * two. What does not come true ends the program, having said what came instead.
 */
#ifndef WEIR_TESTS_SUPPORT_ROUTER_WORLD_H
#define WEIR_TESTS_SUPPORT_ROUTER_WORLD_H

#include "tests/support/fake_worker.h"
#include "tests/support/router_rig.h"

struct world {
    struct router_rig rig; /* router_rig_init is the test's, and options may change before world_start */
    struct fake_worker *worker;
    int port;
};
/* world_start: returns when the router is ready, unless the worker never will be. */
void world_start(struct world *w, struct fake_opts f);
void world_stop(struct world *w);

/* Bodies of completions: that outlive the test, streamed and whole, and one of three tokens. */
extern const char world_long_stream[], world_long_whole[], world_small[];

/* world_post: a request on its way; the socket is the caller's. */
int world_post(int port, const char *path, const char *json);
/* world_read_until: until the socket has shown some text; keeps all of it. */
void world_read_until(int fd, struct buf *b, const char *text);
/* world_answer: the whole answer, of which rest has the beginning; closes the socket, frees rest. */
void world_answer(int fd, struct buf *rest, struct http_answer *a);
/* world_expect_fd, world_expect: that the answer has this status and this piece, as the beginning of a header or in its
 * body; NULL: any. */
void world_expect_fd(int fd, int status, const char *piece);
void world_expect(int port, const char *json, int status, const char *piece);
/* world_metric: a series without labels. */
double world_metric(int port, const char *name);

/* Conditions for rig_until; arg in turn: the rig, the worker, the worker, the port. */
bool world_idle(void *arg);      /* the router has no request */
bool world_submitted(void *arg); /* the worker has had one */
bool world_aborted(void *arg);   /* the worker runs none */
bool world_healthy(void *arg);

/* world_swallow: an on_submit that answers nothing and counts in arg, an _Atomic int. world_swallowed: it has. */
bool world_swallow(void *arg, struct fake_worker *f, struct link_conn *c, const Weir__Submit *m);
bool world_swallowed(void *arg);

#endif
