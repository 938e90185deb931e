/* flags.h: the router's flags as data: rows R of api.md 22.2 and every limit of api.md 18. */
#ifndef WEIR_ROUTER_FLAGS_H
#define WEIR_ROUTER_FLAGS_H

#include "router/opts.h"

/* Rows with offsets relative to a struct router_opts. */
extern const struct conf_flag router_flag_rows[];
extern const size_t n_router_flag_rows;
/* router_opts_init: the defaults of api.md 18 and 22.2. */
void router_opts_init(struct router_opts *o);

#endif
