/* serve.ready_ms: from starting `weir serve deploy/tiny-model` to the first 200 of /health. Run from the
 * project's root. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/bench.h"

enum { RUNS = 7, WAIT_S = 30 };

static struct sockaddr_in address(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static int free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = address(0);
    socklen_t n = sizeof a;
    CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&a, n) && !getsockname(fd, (struct sockaddr *)&a, &n));
    close(fd);
    return ntohs(a.sin_port);
}

static bool healthy(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = address(port);
    static const char request[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char answer[32] = "";
    bool ok = fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a) &&
              write(fd, request, sizeof request - 1) == (ssize_t)sizeof request - 1 &&
              read(fd, answer, sizeof answer - 1) > 12 && !strncmp(answer, "HTTP/1.1 200", 12);
    if (fd >= 0)
        close(fd);
    return ok;
}

static double run_once(const char *model) {
    int port = free_port();
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    double start = bench_now_s();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(126);
        execl("build/plain/weir", "weir", "serve", model, "--port", text, (char *)NULL);
        _exit(127);
    }
    while (!healthy(port)) {
        struct timespec ms = {0, 1000000};
        nanosleep(&ms, NULL);
        if (bench_now_s() - start > WAIT_S || waitpid(pid, NULL, WNOHANG) == pid) {
            fprintf(stderr, "bench_serve: weir serve did not become ready\n");
            exit(1);
        }
    }
    double took = bench_now_s() - start;
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    return took * 1e3;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void) {
    double ms[RUNS];
    char params[128];
    run_once("deploy/tiny-model"); /* the files come from the page cache, as on any start but the first */
    for (int i = 0; i < RUNS; i++)
        ms[i] = run_once("deploy/tiny-model");
    qsort(ms, RUNS, sizeof *ms, ascending);
    snprintf(params, sizeof params, "{\"model\":\"tiny\",\"runs\":%d,\"min\":%.1f,\"max\":%.1f}", RUNS, ms[0],
             ms[RUNS - 1]);
    bench_emit("serve.ready_ms", ms[RUNS / 2], "ms", params);
    return 0;
}
