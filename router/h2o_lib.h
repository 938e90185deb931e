/* h2o_lib.h: libh2o with its own event loop: the one place that includes it, since the choice changes its
 * structures. */
#ifndef WEIR_ROUTER_H2O_LIB_H
#define WEIR_ROUTER_H2O_LIB_H

#define H2O_USE_LIBUV 0
#define H2O_USE_EPOLL 1
#include <h2o.h>
#include <h2o/http1.h>

#endif
