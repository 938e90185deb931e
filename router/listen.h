/* listen.h: the socket that connections come from. Threads: the caller's, before and after the loops. */
#ifndef WEIR_ROUTER_LISTEN_H
#define WEIR_ROUTER_LISTEN_H

#include "router/opts.h"

/* listen_open: --uds, else --host and --port (0: any free one). *port: the one bound, 0 for a Unix socket. A
 * socket file that nobody listens on is replaced. RC_IO: "cannot listen on ...: reason"; RC_INVALID: a host
 * or path that cannot be. */
MUST_USE enum rc listen_open(const struct router_opts *o, int *fd, int *port, struct err *e);
/* listen_close: also removes the socket file that listen_open made. */
void listen_close(const struct router_opts *o, int fd);

#endif
