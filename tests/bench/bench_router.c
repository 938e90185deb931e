/* What the router costs: CPU a short request and an event, latency it adds, memory. A `weir router` and a
 * `weir-worker --mock`, real processes, from build/plain; clients are threads of this one with blocking
 * keep-alive sockets. CPU is user and system time of the router's process alone, from its CPU clock. Run
 * from the project's root. With arguments only the parts that are named: requests, latency, events.
 *
 *   router.request_cpu_us        a chat request of 16 words, not streamed, 4 tokens; 32 connections
 *   router.event_cpu_us          an event of a stream; 64 streams that get a token every 5 ms
 *   router.added_latency_*_us    one connection, one token at a time; the mock answers at once, so all of the
 *                                time between sending a request and its answer is the router's and the link's
 *   router.rss_mib               resident memory after the events
 */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/bench.h"
#include "tests/support/router_rig.h"

enum {
    CONNECTIONS = 32,
    REQUESTS = 16000,
    STREAMS = 64,
    TOKENS = 800,
    STEP_MS = 5,
    SINGLES = 2000,
    READY_S = 30
};
static const char model[] = "deploy/tiny-model";
static const char chat[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen\"}],\"max_tokens\":4}";
static const char single[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one two three\"}],\"max_tokens\":1}";

struct pair {
    pid_t router, worker;
    int port;
};

static pid_t spawn(const char *const *argv) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(126);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

static int free_port(void) {
    struct router_rig r;
    struct err e;
    router_rig_init(&r);
    CHECK(router_new(&r.router, &r.opts, &e) == RC_OK);
    int port = router_port(r.router);
    router_free(r.router);
    r.router = NULL;
    router_rig_fini(&r);
    return port;
}

static void sleep_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static bool answers(int port) {
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool up = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    if (!up)
        return false;
    struct http_answer a;
    http_get(port, "/health", &a);
    up = a.status == 200;
    http_answer_fini(&a);
    return up;
}

static struct pair start(const char *step_ms) {
    char url[64], port[16];
    struct pair p = {.port = free_port()};
    snprintf(url, sizeof url, "ipc:///tmp/weir-bench-%d", (int)getpid());
    snprintf(port, sizeof port, "%d", p.port);
    p.worker = spawn((const char *const[]){"build/plain/weir-worker", model, "--mock", "--mock-step-ms",
                                           step_ms, "--listen", url, NULL});
    p.router =
        spawn((const char *const[]){"build/plain/weir", "router", "--port", port, "--worker", url, NULL});
    for (double end = bench_now_s() + READY_S; !answers(p.port);) {
        if (bench_now_s() > end || waitpid(p.router, NULL, WNOHANG) || waitpid(p.worker, NULL, WNOHANG)) {
            fprintf(stderr, "bench_router: no router with a worker in %d s\n", READY_S);
            exit(1);
        }
        sleep_ms(10);
    }
    return p;
}

static void stop(struct pair *p) {
    kill(p->router, SIGTERM);
    kill(p->worker, SIGTERM);
    waitpid(p->router, NULL, 0);
    waitpid(p->worker, NULL, 0);
}

/* cpu_s: user and system time of a process, all threads. */
static double cpu_s(pid_t pid) {
    clockid_t clock;
    struct timespec t;
    CHECK(clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double rss_mib(pid_t pid) {
    char path[64], line[256];
    double kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    CHECK(f);
    while (fgets(line, sizeof line, f)) {
        if (!strncmp(line, "VmRSS:", 6))
            kib = strtod(line + 6, NULL);
    }
    fclose(f);
    return kib / 1024;
}

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

static void bench_requests(const struct pair *p) {
    char params[160];
    run_clients(p->port, CONNECTIONS, 20, chat); /* connections, buffers, caches */
    double cpu = cpu_s(p->router), t0 = bench_now_s();
    run_clients(p->port, CONNECTIONS, REQUESTS / CONNECTIONS, chat);
    cpu = cpu_s(p->router) - cpu;
    snprintf(params, sizeof params,
             "{\"connections\":%d,\"requests\":%d,\"max_tokens\":4,\"requests_per_s\":%.0f}", CONNECTIONS,
             REQUESTS, REQUESTS / (bench_now_s() - t0));
    bench_emit("router.request_cpu_us", cpu * 1e6 / REQUESTS, "us", params);
}

static void bench_latency(const struct pair *p) {
    static double seconds[SINGLES];
    char params[96];
    struct client c = {.port = p->port, .n = SINGLES, .json = single, .seconds = seconds};
    client_run(&c);
    qsort(seconds, SINGLES, sizeof *seconds, ascending);
    snprintf(params, sizeof params, "{\"connections\":1,\"requests\":%d,\"max_tokens\":1}", SINGLES);
    bench_emit("router.added_latency_p50_us", seconds[SINGLES / 2] * 1e6, "us", params);
    bench_emit("router.added_latency_p99_us", seconds[SINGLES * 99 / 100] * 1e6, "us", params);
}

/* ---- events ------------------------------------------------------------------------------------------ */

/* drain: what a socket has now; returns whether the stream is over, and adds its events. */
static bool drain(int fd, char tail[8], long *n_events) {
    char part[65536 + 8];
    memcpy(part, tail, 8);
    ssize_t n = recv(fd, part + 8, sizeof part - 8, MSG_DONTWAIT);
    if (n <= 0)
        return n == 0;
    /* an event begins with "data: {": each is counted where its last byte arrives */
    for (char *at = part + 2; (at = memmem(at, (size_t)(part + 8 + n - at), "data: {", 7)); at += 7)
        ++*n_events;
    bool over = memmem(part, (size_t)n + 8, "[DONE]", 6) != NULL;
    memmove(tail, part + n, 8);
    return over;
}

static void bench_events(const struct pair *p) {
    char json[256], params[128], tail[STREAMS][8];
    struct pollfd fds[STREAMS];
    struct buf text = {0};
    long n_events = 0;
    int live = STREAMS;
    memset(tail, 0, sizeof tail);
    snprintf(json, sizeof json,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"one two "
             "three\"}],\"max_tokens\":%d,\"stream\":true}",
             TOKENS);
    http_post_text("/v1/chat/completions", json, &text);
    double cpu = cpu_s(p->router), t0 = bench_now_s();
    for (int i = 0; i < STREAMS; i++) {
        fds[i] = (struct pollfd){.fd = http_open(p->port), .events = POLLIN};
        http_send(fds[i].fd, text.data, text.len);
    }
    while (live) {
        CHECK(poll(fds, STREAMS, 20000) > 0);
        for (int i = 0; i < STREAMS; i++) {
            if (fds[i].fd < 0 || !fds[i].revents || !drain(fds[i].fd, tail[i], &n_events))
                continue;
            close(fds[i].fd);
            fds[i].fd = -1;
            live--;
        }
        sleep_ms(
            1); /* what arrives together is read together: the router's cost is measured, not this one's */
    }
    cpu = cpu_s(p->router) - cpu;
    double took = bench_now_s() - t0;
    CHECK(n_events >= (long)STREAMS * TOKENS);
    snprintf(params, sizeof params, "{\"streams\":%d,\"step_ms\":%d,\"events\":%ld,\"events_per_s\":%.0f}",
             STREAMS, STEP_MS, n_events, (double)n_events / took);
    bench_emit("router.event_cpu_us", cpu * 1e6 / (double)n_events, "us", params);
    buf_fini(&text);
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
        struct pair p = start("0");
        if (requests)
            bench_requests(&p);
        if (latency)
            bench_latency(&p);
        stop(&p);
    }
    if (wanted(argc, argv, "events")) {
        char step[16];
        snprintf(step, sizeof step, "%d", STEP_MS);
        struct pair p = start(step);
        bench_events(&p);
        bench_emit("router.rss_mib", rss_mib(p.router), "MiB", "{\"after\":\"64 streams of 800 events\"}");
        stop(&p);
    }
    return 0;
}
