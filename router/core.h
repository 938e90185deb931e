/* core.h: what the router's own files share: the process-wide part and one loop.
 *
 * A loop is a thread with an h2o event loop; connections, sessions and streams on it are touched by it alone.
 * The router part is set up before the loops start and then only read, but for the atomics.
 */
#ifndef WEIR_ROUTER_CORE_H
#define WEIR_ROUTER_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/clock.h"
#include "common/pool.h"
#include "router/api/gen.h"
#include "router/fleet/fleet.h"
#include "router/h2o_lib.h"
#include "router/inbox.h"
#include "router/metrics.h"
#include "router/router.h"
#include "router/slots.h"

enum {
    LOOP_SLICE_US = 200,      /* of work before ready events are looked at again */
    LOOP_BACKLOG_BYTES_MAX = 64 << 20, /* of what workers said and a loop has not used; more cuts them */
    LOOP_ACCEPTS_MAX = 8,              /* at one wake-up */
    LOOP_UNPUSHED_MAX = 16,
};

struct auth;
struct conn;
struct cors;
struct session;
struct stream;
struct tracer;

struct loop {
    struct router *router;
    uint32_t index;
    pthread_t thread;
    struct inbox inbox; /* while the loop is awake it looks there itself */
    _Atomic size_t backlog_bytes;  /* of outputs and refusals posted and not yet worked off */
    struct loop_msg *first, *last; /* the backlog, in order */
    h2o_context_t ctx;
    h2o_accept_ctx_t accept;
    h2o_socket_t *listener, *inbox_sock, *watch_sock;
    int watch_fd; /* an epoll of its own for EPOLLRDHUP of connections (conn.h) */
    struct slots watched; /* what its events mean */
    bool accepting;
    h2o_timeout_t accept_pause; /* after EMFILE */
    h2o_timeout_entry_t accept_entry;
    h2o_timeout_entry_t second;                              /* conn sweep */
    h2o_timeout_t queue_timeout, request_timeout, keepalive; /* of sessions; fixed durations */
    struct conn *conns;
    uint32_t n_conns, n_lingerers;
    size_t input_bytes; /* of its connections, at the last sweep */
    size_t unswept_bytes;  /* of HTTP/2 bodies, come since then */
    h2o_mem_recycle_t *h2_recycled; /* what libh2o keeps of output buffers; NULL: no HTTP/2 yet */
    uint64_t h2_logged_ns; /* when the last of its HTTP/2 connections was said to be cut off */
    struct session *sessions;
    struct session *ended; /* over, but with something out that comes back for them */
    struct slots slots;
    struct link_conn *unpushed[LOOP_UNPUSHED_MAX]; /* with requests queued in this slice of work; held */
    unsigned n_unpushed;
    int64_t here_ns;           /* what a short body takes to prepare, on the average */
    uint64_t offload_until_ns; /* short bodies go to the pool, too, until then */
    struct session *touched_first, *touched_last; /* have output that was not sent yet, oldest first */
    uint64_t now_ns;                              /* of the slice of work under way, at most some steps old */
};

struct router {
    const struct router_opts *opts;
    int listen_fd, port, shutdown_fd;
    h2o_globalconf_t conf;
    h2o_globalconf_t conf_http2; /* a copy with a limit changed, in force while HTTP/2 input is read */
    struct loop *loops;
    unsigned n_loops;
    struct pool *pool;
    struct fleet *fleet;
    struct rmetrics *metrics;
    struct tracer *tracer; /* NULL: no traces */
    struct gen_env env;
    char *secret;
    struct link_tls *link_tls; /* NULL: no tls+tcp addresses */
    struct auth *auth;      /* NULL: nobody has to show a key */
    struct cors *cors;
    struct tls *tls;        /* NULL: plain HTTP */
    char *root;             /* "/prefix", or "" */
    _Atomic unsigned n_shutdowns;
    _Atomic bool draining, stopping;
    _Atomic bool reload_due; /* the key file is to be read again */
    _Atomic unsigned n_inference; /* accepted, last byte not sent */
    _Atomic unsigned n_conns;
    _Atomic size_t body_bytes;  /* copies of request bodies held for the pool */
    _Atomic bool trim_due;      /* a large body was worked on */
    _Atomic size_t input_bytes; /* in input buffers of connections, as of the last sweep */
    size_t input_bytes_max;     /* both together */
    pthread_mutex_t note_lock;
    char note[256];
    void (*on_change)(void *arg);
    void *on_change_arg;
    bool started;
};

static inline struct loop *loop_of(const h2o_req_t *req) {
    return CONTAINER_OF(req->conn->ctx, struct loop, ctx);
}
static inline struct str str_of_iovec(h2o_iovec_t v) {
    return (struct str){v.base, v.len};
}

/* loop_init: the context, the listener and the timers; loop_fini: when nothing is left on it. */
void loop_init(struct loop *l, struct router *r, uint32_t index);
void loop_fini(struct loop *l);
/* loop_drain: after the thread has ended: what was posted since. What it does may be posted to other loops. */
void loop_drain(struct loop *l);
/* loop_main: the thread. Returns when the router is stopping and the connections are closed, or a second
 * later. */
void *loop_main(void *loop);
/* loop_post: any thread. loop_queue: the loop's own, without the way through the inbox. */
void loop_post(struct loop *l, struct loop_msg *m);
void loop_queue(struct loop *l, struct loop_msg *m);
/* loop_push_later: something was queued for c (link_queue); it leaves with the end of the slice. */
void loop_push_later(struct loop *l, struct link_conn *c);

/* server_init: the global configuration: one handler, the error filter, the access hook. */
void server_init(struct router *r);

/* LOOP_WATCH: in a build with -DWEIR_LOOP_WATCH, callbacks on a loop that take longer than a slice are
 * logged. */
#ifdef WEIR_LOOP_WATCH
void loop_watch_end(const char *what, uint64_t begin_ns);
#define LOOP_WATCH_BEGIN() const uint64_t loop_watch_ns_ = clock_ns()
#define LOOP_WATCH_END(what) loop_watch_end(what, loop_watch_ns_)
#else
#define LOOP_WATCH_BEGIN() (void)0
#define LOOP_WATCH_END(what) (void)0
#endif

#endif
