/* launch.h: the workers of `weir serve`: started, watched, restarted, ended.
 *
 * One thread, which forks the workers (they die with it, by PR_SET_PDEATHSIG), waits for their ends and shows
 * loading progress: one line that renews itself on a terminal, plain lines elsewhere. A worker that ends
 * before any was ready is a refusal: the router shuts down. Later deaths are restarted after 0.1 s, doubling
 * to 5 s. So is, once it was connected, a worker that lives and does not answer for LAUNCH_SILENT_S: it is
 * killed. (Its requests have ended by then: the router cuts a silent worker off within two seconds.)
 *
 * A worker that ends by itself with status 0 was told to drain: it is started again at once. launch_roll does that
 * to all of them, one after the other: the next is told when the last one's successor is ready.
 */
#ifndef WEIR_ROUTER_LAUNCH_H
#define WEIR_ROUTER_LAUNCH_H

#include "common/conf.h"
#include "router/router.h"

enum { LAUNCH_WORKERS_MAX = 16, LAUNCH_SILENT_S = 10 };

struct launch;
struct launch_opts {
    const char *model;
    const struct conf_list *worker_argv; /* flags for every worker, without program and MODEL */
    unsigned n_workers;
    unsigned gpus_each; /* of several workers on GPUs: how many each has for itself; 0: none */
    struct router *router;
    double drain_timeout_s; /* that a worker has to drain */
    const char *url; /* for the line that says where to connect */
    uint64_t started_ns; /* of the process: "ready in" counts from here */
};

/* launch_start: makes a private folder for the sockets, starts the thread, which dials the workers. The
 * options' pointers must outlive it. */
MUST_USE enum rc launch_start(struct launch **out, const struct launch_opts *o, struct err *e);
/* launch_roll: restarts the workers one by one, without losing a request if there are several. While that is under
 * way another call does nothing. In a signal handler, too. */
void launch_roll(struct launch *l);
/* launch_stop: ends the workers: SIGTERM, or SIGKILL at once if `now`, and SIGKILL after two seconds; joins
 * the thread, removes the folder, frees l. Returns false if the start was refused because a worker could not
 * start. NULL is fine. */
bool launch_stop(struct launch *l, bool now);

#endif
