#include "worker/flags.h"

#include "common/apart_flags.h"

static const struct conf_flag own_rows[] = {
    {.name = "listen",
     .kind = CONF_LIST,
     .offset = offsetof(struct worker_opts, listen),
     .help = "ipc://PATH, tcp://HOST:PORT or tls+tcp://HOST:PORT, one or several; beyond this machine with --cluster-token-file "
             "or --cluster-tls-ca [a socket of its own, which the log names]"},
    {.name = "cluster-token-file",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, cluster_token_file),
     .help = "file with the secret that routers must prove"},
    {.name = "cluster-tls-certfile",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, cluster_tls_certfile),
     .help = "PEM file with this worker's certificate, for tls+tcp addresses"},
    {.name = "cluster-tls-keyfile",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, cluster_tls_keyfile),
     .help = "PEM file with its key [the certfile]"},
    {.name = "cluster-tls-ca",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, cluster_tls_ca),
     .help = "PEM file with the authorities of certificates that routers, and workers that fetch KV blocks, must show; with "
             "--cluster-tls-certfile blocks travel under TLS [none asked for]"},
    {.name = "cluster-tls-name",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, cluster_tls_name),
     .help = "name that the certificates must have of workers from which this one fetches KV blocks, and of --leader "
             "[the host of their address]"},
    {.name = "parent-pid",
     .kind = CONF_INT,
     .offset = offsetof(struct worker_opts, parent_pid),
     .help = "end when this parent process ends; weir serve uses it [0: no]"},
    {.name = "sharing",
     .kind = CONF_INT,
     .min = 1,
     .max = 1024,
     .offset = offsetof(struct worker_opts, n_sharing),
     .help = "workers that share memory and cores of this machine; weir serve uses it [1]"},
    {.name = "drain-timeout",
     .kind = CONF_FLOAT,
     .min = 0,
     .max = 1e9,
     .offset = offsetof(struct worker_opts, drain_timeout_s),
     .help = "seconds that running requests have after SIGTERM; routers then take them elsewhere [30]"},
    {.name = "role",
     .kind = CONF_ENUM,
     .choices = "prefill|decode|both",
     .offset = offsetof(struct worker_opts, role),
     .help = "what routers use it for: to compute prompts for others, to go on with what others have computed, or both; "
             "the former two turn KV transfers on [both]"},
    {.name = "rank",
     .kind = CONF_INT,
     .min = 0,
     .max = 31,
     .offset = offsetof(struct worker_opts, rank),
     .help = "this process is that rank of a worker with several: weir-worker uses it on its own host, and --leader goes "
             "with it on another [0]"},
    {.name = "leader",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, leader),
     .help = "with --rank: tcp://HOST:PORT or tls+tcp://HOST:PORT of rank 0's --rank-listen, on another host"},
    {.name = "remote-ranks",
     .kind = CONF_INT,
     .min = 0,
     .max = 31,
     .offset = offsetof(struct worker_opts, remote_ranks),
     .help = "of --tensor-parallel-size, the last ranks, which are started on other hosts with --rank and --leader [0]"},
    {.name = "rank-listen",
     .kind = CONF_STR,
     .offset = offsetof(struct worker_opts, rank_listen),
     .help = "with --remote-ranks: tcp://HOST:PORT or tls+tcp://HOST:PORT where they come in"},
    {.name = "selftest",
     .kind = CONF_BOOL,
     .offset = offsetof(struct worker_opts, selftest),
     .help = "check every operation of --device against sums in f64, print a line for each, and end; needs no MODEL"},
};

void worker_opts_init(struct worker_opts *o) {
    *o = (struct worker_opts){.drain_timeout_s = 30, .role = xstrdup("both")};
    worker_flags_init(&o->w);
}

struct conf_table worker_table(struct conf_flag *rows) {
    size_t n = conf_rows_add(rows, 0, WORKER_FLAG_ROWS_MAX, own_rows, ARRAY_LEN(own_rows), 0);
    n = conf_rows_add(rows, n, WORKER_FLAG_ROWS_MAX, worker_flag_rows, n_worker_flag_rows,
                      offsetof(struct worker_opts, w));
    n = conf_rows_add(rows, n, WORKER_FLAG_ROWS_MAX, apart_flag_rows, n_apart_flag_rows, 0);
    return (struct conf_table){
        .usage = "weir-worker MODEL [flags]", .flags = rows, .n_flags = n, .n_positional_max = 1};
}
