/* reload.h: the flags again, on SIGHUP, while the router runs: what a file given by --config says now.
 *
 * The level of the log and the list of --worker take effect at once; files that are watched or read on SIGHUP anyway
 * (--api-key-file, --worker-file) have ways of their own. For any other flag that has changed the log says that it
 * waits for the next start. Flags that do not parse change nothing. One thread of its own.
 */
#ifndef WEIR_ROUTER_RELOAD_H
#define WEIR_ROUTER_RELOAD_H

#include "router/flags.h"
#include "router/router.h"

struct reload;
struct reload_opts {
    const struct conf_table *table; /* of the subcommand */
    int argc;
    char **argv;
    bool serve;
    const struct weir_opts *now; /* as the process was started */
    struct router *router;
};

/* reload_start: what the options point to must outlive it. */
struct reload *reload_start(const struct reload_opts *o);
/* reload_ask: in a signal handler, too. NULL is fine. */
void reload_ask(struct reload *r);
/* reload_stop: joins the thread. NULL is fine. */
void reload_stop(struct reload *r);

#endif
