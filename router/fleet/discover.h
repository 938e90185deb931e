/* discover.h: workers that come and go: by a file, by DNS, by Kubernetes' EndpointSlices.
 *
 * Each source has a thread of its own that looks, waits, and looks again; what it finds new is dialled, what is no
 * longer there is let go, and whoever was served by it goes on elsewhere. A source that cannot be read, or says
 * something that cannot be, changes nothing: the workers stay, and the log says why, once.
 *
 * A file is looked at four times a second (its time, size and place, so that a replaced symlink counts). DNS is asked
 * again when its records expire, within 1..30 s; an answer without any record counts the third time in a row.
 * EndpointSlices are listed once and then watched.
 */
#ifndef WEIR_ROUTER_FLEET_DISCOVER_H
#define WEIR_ROUTER_FLEET_DISCOVER_H

#include "router/opts.h"
#include "router/router.h"

struct discover;

/* discover_check: whether the flags make sense. RC_INVALID. */
MUST_USE enum rc discover_check(const struct router_opts *o, struct err *e);
/* discover_start: after discover_check; reads the file once before it returns. RC_INVALID: it cannot be. *out is
 * NULL if the flags name no source. Both must outlive it. */
MUST_USE enum rc discover_start(struct discover **out, const struct router_opts *o, struct router *r, struct err *e);
/* discover_again: looks at the file at once; in a signal handler, too. */
void discover_again(struct discover *d);
/* discover_stop: joins the threads. The workers stay dialled. NULL is fine. */
void discover_stop(struct discover *d);

#endif
