/* flags.h: the flags of `weir-worker`: those that `weir serve` shares (common/worker_flags.h), its own, and
 * those that no program has a place for (common/apart_flags.h). */
#ifndef WEIR_WORKER_FLAGS_H
#define WEIR_WORKER_FLAGS_H

#include "common/worker_flags.h"

struct worker_opts {
    struct worker_flags w;
    struct conf_list listen;
    char *cluster_token_file;
    char *cluster_tls_ca, *cluster_tls_certfile, *cluster_tls_keyfile, *cluster_tls_name; /* link/secure.h */
    int64_t parent_pid;
    int64_t n_sharing; /* --sharing */
    double drain_timeout_s;
    char *role; /* prefill, decode, both */
    int64_t rank;      /* of a worker that another one has started, or leads from another host; 0: none */
    char *leader;      /* of such a one: the address of rank 0's --rank-listen */
    char *rank_listen;
    int64_t remote_ranks;
    bool selftest;
};
enum { WORKER_FLAG_ROWS_MAX = 192 };

/* worker_table: rows: room for WORKER_FLAG_ROWS_MAX, which must outlive the table; their offsets are relative
 * to a struct worker_opts, whose defaults are worker_opts_init's. */
struct conf_table worker_table(struct conf_flag *rows);
void worker_opts_init(struct worker_opts *o);

#endif
