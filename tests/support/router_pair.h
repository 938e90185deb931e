/* router_pair.h: a `weir router` and mock workers behind it, real processes from build/plain, for benchmarks.
 * Run from the project's root. What goes wrong ends the program.
 */
#ifndef WEIR_TESTS_SUPPORT_ROUTER_PAIR_H
#define WEIR_TESTS_SUPPORT_ROUTER_PAIR_H

#include <sys/types.h>

#include "common/base.h"

enum { PAIR_WORKERS_MAX = 4 };

struct router_pair {
    pid_t router, workers[PAIR_WORKERS_MAX];
    unsigned n_workers;
    int port;
};
/* router_pair_start: step_ms: of the mocks; flags: more of them for each side, which NULL ends; NULL: none.
 * Waits until requests are answered. */
void router_pair_start(struct router_pair *p, const char *step_ms, unsigned n_workers,
                       const char *const *worker_flags, const char *const *router_flags);
void router_pair_stop(struct router_pair *p);

/* process_cpu_s: user and system time of a process, all threads. process_rss_kib: its resident memory. */
double process_cpu_s(pid_t pid);
double process_rss_kib(pid_t pid);

#endif
