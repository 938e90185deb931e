/* flags.h: the flags of `weir serve` and `weir router` as data: rows S and R of api.md 22.2 and every limit of
 * api.md 18. */
#ifndef WEIR_ROUTER_FLAGS_H
#define WEIR_ROUTER_FLAGS_H

#include "common/worker_flags.h"
#include "router/opts.h"

/* Rows with offsets relative to a struct router_opts. */
extern const struct conf_flag router_flag_rows[];
extern const size_t n_router_flag_rows;
/* router_opts_check: flags that need one another. RC_INVALID. Logs a warning for one without effect. */
MUST_USE enum rc router_opts_check(const struct router_opts *o, struct err *e);
/* router_opts_init: the defaults of api.md 18 and 22.2. */
void router_opts_init(struct router_opts *o);

/* Both subcommands parse into one struct; `weir router` leaves the worker's part alone. */
struct weir_opts {
    struct router_opts r;
    struct worker_flags w;
    int64_t n_workers, n_replicas; /* --workers, --data-parallel-size: two names of one number; 0: not given */
};
enum { WEIR_FLAG_ROWS_MAX = 256 };

/* weir_flags: the table of a subcommand. rows: room for WEIR_FLAG_ROWS_MAX, which must outlive it; their
 * offsets are relative to a struct weir_opts. */
struct conf_table weir_flags(struct conf_flag *rows, bool serve);
/* weir_opts_init: the defaults. */
void weir_opts_init(struct weir_opts *o);
/* weir_opts_check: after parsing: flags that need one another or say the same; n_workers is then the number.
 * RC_INVALID. */
MUST_USE enum rc weir_opts_check(struct weir_opts *o, struct err *e);
/* weir_opts_settle: after parsing: what one half says for both, and whether --seed was given. */
void weir_opts_settle(struct weir_opts *o, bool serve);
/* weir_opts_free: what the places of both subcommands hold, and the positionals. */
void weir_opts_free(struct weir_opts *o, struct conf_list *positional);

#endif
