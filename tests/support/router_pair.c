#include "tests/support/router_pair.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/bench.h"
#include "tests/support/router_rig.h"

enum { READY_S = 30, ARGS_MAX = 32 };
static const char model[] = "deploy/tiny-model";

static pid_t spawn(const char *const *argv) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
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

struct args {
    const char *v[ARGS_MAX];
    size_t n;
};

static void push(struct args *a, const char *arg) {
    CHECK(a->n + 1 < ARGS_MAX);
    a->v[a->n++] = arg;
}

static void push_all(struct args *a, const char *const *more) {
    for (; more && *more; more++)
        push(a, *more);
}

static pid_t start_worker(const char *url, const char *step_ms, const char *const *flags) {
    struct args a = {.n = 0};
    push_all(&a, (const char *const[]){"build/plain/weir-worker", model, "--mock", "--mock-step-ms", step_ms,
                                       "--listen", url, NULL});
    push_all(&a, flags);
    return spawn(a.v);
}

void router_pair_start(struct router_pair *p, const char *step_ms, unsigned n_workers,
                       const char *const *worker_flags, const char *const *router_flags) {
    char url[PAIR_WORKERS_MAX][64], port[16];
    struct args a = {.n = 0};
    *p = (struct router_pair){.port = free_port(), .n_workers = n_workers};
    CHECK(n_workers <= PAIR_WORKERS_MAX);
    snprintf(port, sizeof port, "%d", p->port);
    push_all(&a, (const char *const[]){"build/plain/weir", "router", "--port", port, NULL});
    for (unsigned i = 0; i < n_workers; i++) {
        snprintf(url[i], sizeof url[i], "ipc:///tmp/weir-bench-%d-%u", (int)getpid(), i);
        p->workers[i] = start_worker(url[i], step_ms, worker_flags);
        push(&a, "--worker");
        push(&a, url[i]);
    }
    push_all(&a, router_flags);
    p->router = spawn(a.v);
    for (double end = bench_now_s() + READY_S; !answers(p->port);) {
        if (bench_now_s() > end || waitpid(p->router, NULL, WNOHANG)) {
            fprintf(stderr, "no router with a worker in %d s\n", READY_S);
            exit(1);
        }
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
}

void router_pair_stop(struct router_pair *p) {
    kill(p->router, SIGTERM);
    for (unsigned i = 0; i < p->n_workers; i++)
        kill(p->workers[i], SIGTERM);
    waitpid(p->router, NULL, 0);
    for (unsigned i = 0; i < p->n_workers; i++)
        waitpid(p->workers[i], NULL, 0);
}

double process_cpu_s(pid_t pid) {
    clockid_t clock;
    struct timespec t;
    CHECK(clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double process_rss_kib(pid_t pid) {
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
    return kib;
}
