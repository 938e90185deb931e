/* What the router costs: CPU of a short request, latency it adds. A `weir router` and a
 * `weir-worker --mock`, real processes, from build/plain; clients are threads of this one with blocking
 * keep-alive sockets. CPU is user and system time of the router's process alone, from its CPU clock. Run
 * from the project's root. With arguments only the parts that are named: requests, latency. Streams:
 * bench_router_streams.c.
 *
 *   router.request_cpu_us        a chat request of 16 words, not streamed, 4 tokens; 32 connections
 *   router.requests_s_core       the same requests by second of one core
 *   router.added_latency_*_us    one connection, one token at a time; the mock answers at once, so all of the
 *                                time between sending a request and its answer is the router's and the link's
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/bench.h"
#include "tests/support/router_pair.h"
#include "tests/support/router_rig.h"

enum { CONNECTIONS = 32, REQUESTS = 16000, SINGLES = 2000 };
static const char chat[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen\"}],\"max_tokens\":4}";
static const char single[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one two three\"}],\"max_tokens\":1}";

/* ---- requests ---------------------------------------------------------------------------------------- */

struct client {
    pthread_t thread;
    int port, n;
    const char *json;
    double *seconds; /* [n], or NULL */
};

static void *client_run(void *arg) {
    struct client *c = arg;
    struct buf text = {0}, rest = {0};
    int fd = http_open(c->port);
    http_post_text("/v1/chat/completions", c->json, &text);
    for (int i = 0; i < c->n; i++) {
        struct http_answer a;
        double t0 = bench_now_s();
        http_send(fd, text.data, text.len);
        http_read(fd, &rest, false, &a);
        if (c->seconds)
            c->seconds[i] = bench_now_s() - t0;
        if (a.status != 200) {
            fprintf(stderr, "bench_router: status %d\n", a.status);
            exit(1);
        }
        http_answer_fini(&a);
    }
    close(fd);
    buf_fini(&text);
    buf_fini(&rest);
    return NULL;
}

static void run_clients(int port, int n_clients, int n_each, const char *json) {
    struct client c[CONNECTIONS];
    for (int i = 0; i < n_clients; i++) {
        c[i] = (struct client){.port = port, .n = n_each, .json = json};
        CHECK(pthread_create(&c[i].thread, NULL, client_run, &c[i]) == 0);
    }
    for (int i = 0; i < n_clients; i++)
        pthread_join(c[i].thread, NULL);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_requests(const struct router_pair *p) {
    char params[160];
    run_clients(p->port, CONNECTIONS, 20, chat); /* connections, buffers, caches */
    double cpu = process_cpu_s(p->router), t0 = bench_now_s();
    run_clients(p->port, CONNECTIONS, REQUESTS / CONNECTIONS, chat);
    cpu = process_cpu_s(p->router) - cpu;
    snprintf(params, sizeof params,
             "{\"connections\":%d,\"requests\":%d,\"max_tokens\":4,\"requests_per_s\":%.0f}", CONNECTIONS,
             REQUESTS, REQUESTS / (bench_now_s() - t0));
    bench_emit("router.request_cpu_us", cpu * 1e6 / REQUESTS, "us", params);
    bench_emit("router.requests_s_core", REQUESTS / cpu, "requests/s", params);
}

static void bench_latency(const struct router_pair *p) {
    static double seconds[SINGLES];
    char params[96];
    struct client c = {.port = p->port, .n = SINGLES, .json = single, .seconds = seconds};
    client_run(&c);
    qsort(seconds, SINGLES, sizeof *seconds, ascending);
    snprintf(params, sizeof params, "{\"connections\":1,\"requests\":%d,\"max_tokens\":1}", SINGLES);
    bench_emit("router.added_latency_p50_us", seconds[SINGLES / 2] * 1e6, "us", params);
    bench_emit("router.added_latency_p99_us", seconds[SINGLES * 99 / 100] * 1e6, "us", params);
}

/* wanted: named on the command line, or nothing is. */
static bool wanted(int argc, char **argv, const char *part) {
    bool any = argc < 2;
    for (int i = 1; i < argc && !any; i++)
        any = !strcmp(argv[i], part);
    return any;
}

int main(int argc, char **argv) {
    bool requests = wanted(argc, argv, "requests"), latency = wanted(argc, argv, "latency");
    if (requests || latency) {
        struct router_pair p;
        router_pair_start(&p, "0", 1, NULL, NULL);
        if (requests)
            bench_requests(&p);
        if (latency)
            bench_latency(&p);
        router_pair_stop(&p);
    }
    return 0;
}
