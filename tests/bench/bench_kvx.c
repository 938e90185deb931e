/* KV blocks over loopback: the server's and the client's whole way, blocks of a model of 8 billion parameters in bf16; and, in
 * turns with it, a plain copy of as many bytes over a socket. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/support/bench.h"
#include "worker/kvx/client.h"
#include "worker/kvx/server.h"

enum { N_BLOCKS = 512, ROUNDS = 5 }; /* 1 GiB: 8,192 tokens */

static const struct kvx_layout layout = {
    .n_groups = 1,
    .n_ranks = 1,
    .group = {{.kind = CACHE_FULL, .dtype = DT_BF16, .n_layers = 32, .n_heads = 8, .head_dim = 128, .head_dim_v = 128}}};
static uint8_t *source, *sink; /* [block] one of each, over and over */
static size_t block;

static enum kvx_refusal on_open(void *arg, const struct kvx_open *o, uint64_t *lease) {
    (void)arg, (void)o;
    *lease = 1;
    return KVX_GRANTED;
}
static int on_read(void *arg, uint64_t lease, const struct kvx_read *r, uint8_t *dst) {
    (void)arg, (void)lease;
    for (uint32_t i = 0; i < r->n; i++)
        memcpy(dst + i * block, source, block);
    return (int)r->n;
}
static bool on_renew(void *arg, uint64_t lease) {
    (void)arg, (void)lease;
    return true;
}
static void on_close(void *arg, uint64_t lease, bool done) {
    (void)arg, (void)lease, (void)done;
}
static int on_room(void *arg) {
    (void)arg;
    return 1;
}
static void on_put(void *arg, unsigned buffer, uint32_t group, uint32_t from, uint32_t n, const uint8_t *data) {
    (void)arg, (void)buffer, (void)group, (void)from;
    for (uint32_t i = 0; i < n; i++)
        memcpy(sink, data + i * block, block);
}
static bool on_settle(void *arg, unsigned buffer) {
    (void)arg, (void)buffer;
    return true;
}

static double pull(struct kvx_server *s, struct id128 engine) {
    struct kvx_pull_opts o = {.host = "127.0.0.1", .port = kvx_server_port(s), .layout = layout, .end = N_BLOCKS};
    struct kvx_pull_stats stats;
    enum kvx_refusal why;
    struct kvx_io io;
    struct err e;
    o.open = (struct kvx_open){.engine = engine, .n_blocks = N_BLOCKS};
    o.sink = (struct kvx_sink){NULL, on_room, on_put, on_settle};
    CHECK(kvx_io_init(&io, &e) == RC_OK);
    double t = bench_now_s();
    CHECK(kvx_pull_run(&o, &io, &stats, &why, &e) == RC_OK && stats.n_bytes == N_BLOCKS * (uint64_t)block);
    t = bench_now_s() - t;
    kvx_io_fini(&io);
    return t;
}

static void *writer(void *arg) {
    int fd = *(int *)arg;
    for (int i = 0; i < N_BLOCKS; i++)
        for (size_t at = 0; at < block;) {
            ssize_t n = write(fd, source + at, block - at);
            CHECK(n > 0);
            at += (size_t)n;
        }
    close(fd);
    return NULL;
}

/* plain: the same bytes over a connection, by blocking calls. */
static double plain(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    pthread_t thread;
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0), s;
    CHECK(bind(l, (struct sockaddr *)&a, len) == 0 && listen(l, 1) == 0);
    CHECK(getsockname(l, (struct sockaddr *)&a, &len) == 0);
    double t = bench_now_s();
    CHECK(connect(c, (struct sockaddr *)&a, len) == 0 && (s = accept(l, NULL, NULL)) >= 0);
    CHECK(pthread_create(&thread, NULL, writer, &s) == 0);
    uint64_t got = 0;
    for (ssize_t n; (n = read(c, sink, block)) > 0;)
        got += (uint64_t)n;
    t = bench_now_s() - t;
    CHECK(got == N_BLOCKS * (uint64_t)block);
    pthread_join(thread, NULL);
    close(c);
    close(l);
    return t;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void) {
    struct kvx_server *s;
    struct err e;
    double took[ROUNDS], copy[ROUNDS], share[ROUNDS];
    char params[200];
    log_set_level(LOG_WARN);
    block = kvx_block_bytes(&layout.group[0], 8);
    source = xmalloc(block);
    sink = xmalloc(block);
    fill_random(source, block);
    struct kvx_server_opts o = {.host = "127.0.0.1", .layout = layout, .lease_ms = 30000};
    o.source = (struct kvx_source){NULL, on_open, on_read, on_renew, on_close, NULL};
    if (kvx_server_start(&s, &o, &e)) {
        fprintf(stderr, "bench_kvx: %s\n", e.msg);
        return 1;
    }
    for (int i = 0; i < ROUNDS; i++) {
        took[i] = pull(s, o.engine);
        copy[i] = plain();
        share[i] = copy[i] / took[i];
    }
    kvx_server_stop(s);
    qsort(took, ROUNDS, sizeof *took, by_value);
    qsort(copy, ROUNDS, sizeof *copy, by_value);
    qsort(share, ROUNDS, sizeof *share, by_value);
    const double gb = N_BLOCKS * (double)block / 1e9;
    snprintf(params, sizeof params, "{\"share\":%.3f,\"plain_gb_s\":%.3f,\"block_bytes\":%zu,\"blocks\":%d}",
             share[ROUNDS / 2], gb / copy[ROUNDS / 2], block, N_BLOCKS);
    bench_emit("kvx.gb_s", gb / took[ROUNDS / 2], "GB/s", params);
    free(source);
    free(sink);
    return 0;
}
