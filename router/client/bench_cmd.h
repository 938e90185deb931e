/* bench_cmd.h: `weir bench serve`: a measured load on any OpenAI-compatible server. */
#ifndef WEIR_ROUTER_CLIENT_BENCH_CMD_H
#define WEIR_ROUTER_CLIENT_BENCH_CMD_H

/* bench_cmd: argv[0] is "bench". Returns the exit status: 0 every request was completed, 1 some were not or
 * the server cannot be reached, 2 wrong usage. */
int bench_cmd(int argc, char **argv);

#endif
