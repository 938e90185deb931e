/* router.h: the HTTP front as one object: h2o loops, sessions, and the table of workers.
 *
 * router_new binds the listening socket at once, so that a taken port is known before a model loads; nothing
 * is accepted before router_run. router_run starts --threads loops and the pool and returns when all is over.
 * Until a worker is ready the router answers /health and errors.
 *
 * Threads: router_shutdown and router_request_count from any thread (router_shutdown also from a signal
 * handler); router_dial, router_undial and router_note_worker_state from any thread between router_new and
 * router_free.
 */
#ifndef WEIR_ROUTER_ROUTER_H
#define WEIR_ROUTER_ROUTER_H

#include "router/opts.h"

struct router;

/* router_new: opts must outlive the router. RC_IO "cannot listen on HOST:PORT: reason" (port 0: any free
 * one); RC_INVALID for a flag's value that cannot work (an unreadable token file, a bad host). Workers of
 * opts->workers are dialled in router_run. */
MUST_USE enum rc router_new(struct router **out, const struct router_opts *opts, struct err *e);
/* router_free: after router_run has returned, or without it ever called. */
void router_free(struct router *r);
/* router_port: the port bound. */
int router_port(const struct router *r);

/* router_run: serves until router_shutdown; blocks. Returns true if it drained in peace (or by the timeout),
 * false if a second shutdown cut it short. */
bool router_run(struct router *r);
/* router_shutdown: async-signal-safe. The first call drains (api.md 17.3): new work gets 503, running work
 * has
 * --shutdown-timeout seconds, then gets 503 or an error event. The second makes router_run return at once. */
void router_shutdown(struct router *r);

/* router_reload: async-signal-safe. The key file is read again soon (api.md 2.5.1), and the certificates;
 * what cannot be stays as it is, and the log says why. Certificates that change are read again without it. */
void router_reload(struct router *r);

/* router_dial: keeps a connection to a worker's address (an nng URL) until router_undial; any number.
 * RC_INVALID: bad address. */
MUST_USE enum rc router_dial(struct router *r, const char *url, struct err *e);
void router_undial(struct router *r, const char *url);
/* router_worker_up: whether the worker dialled at url is connected, and answers. */
bool router_worker_up(struct router *r, const char *url);
/* router_worker_ready: whether it takes requests. */
bool router_worker_ready(struct router *r, const char *url);

/* router_note_worker_state: a line about workers this process has started ("worker died by signal 9,
 * restarting in 2 s"); shown in the 503 of /health and of requests while no worker is ready. NULL or ""
 * clears it. Copied; control characters and over-long text are cut. Never put paths or keys in it: clients
 * see it. */
void router_note_worker_state(struct router *r, const char *line);

/* What a launcher's progress display shows; the newest report of any worker. */
struct router_progress {
    unsigned n_workers; /* connected */
    unsigned n_ready;   /* able to serve: worker ready, and tokenizer and template loaded here */
    uint64_t load_done_bytes, load_total_bytes;
    uint32_t ready_ms; /* of the last worker to become ready, as it says */
    bool failed;       /* a worker reported FAILED; detail says why */
    bool worker_failed; /* of these, the worker itself */
    char detail[256];  /* or why the model's files cannot be served */
};
void router_progress(struct router *r, struct router_progress *out);
/* router_on_change: fn(arg) is called, on any thread, soon after router_progress would say something new. It
 * must not block and not call back into the router other than router_progress. Set it before router_run. */
void router_on_change(struct router *r, void (*fn)(void *arg), void *arg);
/* router_request_count: inference requests in progress (what /load says). */
unsigned router_request_count(const struct router *r);

#endif
