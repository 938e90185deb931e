/* What the router's streams cost. A `weir router` and mock workers, real processes, from build/plain; the
 * clients are sockets of this one. CPU is user and system time of the router's process alone. Run from the
 * project's root. With arguments only the parts that are named: events, coalesced, long, many.
 *
 *   router.event_cpu_us         an event of a stream; 64 streams that get a token every 5 ms
 *   router.rss_mib              resident memory after that
 *   router.tokens_s_core        tokens by second of one core, where the workers are faster than the router:
 * what has come meanwhile leaves in one piece router.long_request_core_s  a prompt of 100,000 tokens as text,
 * and 1,000 tokens streamed, one every millisecond router.stream_kib           resident memory of one of
 * 10,000 streams at a time (as many as descriptors allow)
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/json.h"
#include "tests/support/bench.h"
#include "tests/support/router_pair.h"
#include "tests/support/router_rig.h"

enum {
    STREAMS = 64,
    TOKENS = 800,
    STEP_MS = 5,
    FAST_TOKENS = 2000,
    LONG_IN = 100000,
    LONG_OUT = 1000,
    MANY = 10000,
    MANY_SPARE = 100, /* descriptors that are not streams */
    TAIL = 8,
    WAIT_MS = 60000
};

static void sleep_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

struct client {
    char tail[TAIL]; /* the last bytes of what came */
    long n_events;
    bool over;
};

/* drain: what a socket has now. */
static void drain(int fd, struct client *c) {
    char part[65536 + TAIL];
    memcpy(part, c->tail, TAIL);
    ssize_t n = recv(fd, part + TAIL, sizeof part - TAIL, MSG_DONTWAIT);
    if (n <= 0) {
        c->over = n == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
    /* an event begins with "data: {": each is counted where its last byte arrives */
    for (char *at = part + 2; (at = memmem(at, (size_t)(part + TAIL + n - at), "data: {", 7)); at += 7)
        c->n_events++;
    c->over = memmem(part, (size_t)n + TAIL, "[DONE]", 6) != NULL;
    memmove(c->tail, part + n, TAIL);
}

/* run: n streams of one request, to their ends. Returns how many events came. */
static long run(int port, int n, const struct buf *text) {
    struct pollfd *fds = xcalloc((size_t)n, sizeof *fds);
    struct client *c = xcalloc((size_t)n, sizeof *c);
    long n_events = 0;
    for (int i = 0; i < n; i++) {
        fds[i] = (struct pollfd){.fd = http_open(port), .events = POLLIN};
        http_send(fds[i].fd, text->data, text->len);
    }
    for (int live = n; live;) {
        CHECK(poll(fds, (nfds_t)n, WAIT_MS) > 0);
        for (int i = 0; i < n; i++) {
            if (fds[i].fd < 0 || !fds[i].revents)
                continue;
            drain(fds[i].fd, &c[i]);
            if (!c[i].over)
                continue;
            n_events += c[i].n_events;
            close(fds[i].fd);
            fds[i].fd = -1;
            live--;
        }
        sleep_ms(
            1); /* what arrives together is read together: the router's cost is measured, not this one's */
    }
    free(fds);
    free(c);
    return n_events;
}

static void chat(int max_tokens, struct buf *text) {
    char json[256];
    snprintf(json, sizeof json,
             "{\"messages\":[{\"role\":\"user\",\"content\":\"one two "
             "three\"}],\"max_tokens\":%d,\"stream\":true}",
             max_tokens);
    http_post_text("/v1/chat/completions", json, text);
}

/* ---- parts ------------------------------------------------------------------------------------------- */

static void bench_events(void) {
    struct router_pair p;
    struct buf text = {0};
    char step[16], params[128];
    snprintf(step, sizeof step, "%d", STEP_MS);
    router_pair_start(&p, step, 1, NULL, NULL);
    chat(TOKENS, &text);
    double cpu = process_cpu_s(p.router), t0 = bench_now_s();
    long n = run(p.port, STREAMS, &text);
    cpu = process_cpu_s(p.router) - cpu;
    CHECK(n >= (long)STREAMS * TOKENS);
    snprintf(params, sizeof params, "{\"streams\":%d,\"step_ms\":%d,\"events\":%ld,\"events_per_s\":%.0f}",
             STREAMS, STEP_MS, n, (double)n / (bench_now_s() - t0));
    bench_emit("router.event_cpu_us", cpu * 1e6 / (double)n, "us", params);
    bench_emit("router.rss_mib", process_rss_kib(p.router) / 1024, "MiB",
               "{\"after\":\"64 streams of 800 events\"}");
    router_pair_stop(&p);
    buf_fini(&text);
}

static void bench_coalesced(void) {
    struct router_pair p;
    struct buf text = {0};
    char params[128];
    router_pair_start(&p, "0", 1, NULL, NULL);
    chat(FAST_TOKENS, &text);
    run(p.port, STREAMS, &text); /* buffers, caches */
    double cpu = process_cpu_s(p.router), t0 = bench_now_s();
    long n = (long)STREAMS * FAST_TOKENS;
    CHECK(run(p.port, STREAMS, &text) >= STREAMS);
    cpu = process_cpu_s(p.router) - cpu;
    snprintf(params, sizeof params, "{\"streams\":%d,\"tokens\":%ld,\"tokens_per_s\":%.0f}", STREAMS, n,
             (double)n / (bench_now_s() - t0));
    bench_emit("router.tokens_s_core", (double)n / cpu, "tokens/s", params);
    router_pair_stop(&p);
    buf_fini(&text);
}

/* words: n times some words; returns the tokens that they are. */
static uint32_t words(int port, int n, struct buf *out) {
    struct buf json = {0};
    struct http_answer a;
    for (int i = 0; i < n; i++)
        buf_addz(out, "one two three four five six seven eight ");
    buf_addf(&json, "{\"prompt\":\"%s\"}", buf_cstr(out));
    http_post(port, "/tokenize", buf_cstr(&json), &a);
    json_t *root = json_loads(buf_cstr(&a.body), 0, NULL);
    CHECK(a.status == 200 && root);
    uint32_t count = (uint32_t)json_integer_value(json_object_get(root, "count"));
    json_decref(root);
    http_answer_fini(&a);
    buf_fini(&json);
    return count;
}

static void bench_long(void) {
    static const char *const flags[] = {"--hf-overrides", "{\"max_position_embeddings\":131072}", NULL};
    struct router_pair p;
    struct buf prompt = {0}, json = {0}, text = {0};
    char params[128];
    router_pair_start(&p, "1", 1, flags, NULL);
    uint32_t unit = words(p.port, 100, &prompt);
    prompt.len = 0;
    uint32_t n_in = words(p.port, (int)(100 * LONG_IN / unit), &prompt);
    buf_addf(&json, "{\"prompt\":\"%s\",\"max_tokens\":%d,\"ignore_eos\":true,\"stream\":true}",
             buf_cstr(&prompt), LONG_OUT);
    http_post_text("/v1/completions", buf_cstr(&json), &text);
    run(p.port, 1, &text);
    enum { TIMES = 5 };
    double cpu = process_cpu_s(p.router);
    for (int i = 0; i < TIMES; i++)
        CHECK(run(p.port, 1, &text) >= LONG_OUT);
    cpu = process_cpu_s(p.router) - cpu;
    snprintf(params, sizeof params, "{\"prompt_tokens\":%u,\"prompt_bytes\":%zu,\"max_tokens\":%d}", n_in,
             prompt.len, LONG_OUT);
    bench_emit("router.long_request_core_s", cpu / TIMES, "s", params);
    router_pair_stop(&p);
    buf_fini(&prompt);
    buf_fini(&json);
    buf_fini(&text);
}

static void bench_many(void) {
    static const char *const worker[] = {"--max-num-seqs", "4096", NULL};
    static const char *const router[] = {"--max-connections", "20000", NULL};
    struct router_pair p;
    struct buf text = {0};
    struct rlimit l;
    char params[128];
    CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0);
    l.rlim_cur = l.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &l) == 0);
    int n = (int)MIN((rlim_t)MANY, l.rlim_max - MANY_SPARE);
    router_pair_start(&p, "2000", 3, worker, router);
    chat(20, &text);
    run(p.port, 1, &text);
    double before = process_rss_kib(p.router);
    struct pollfd *fds = xcalloc((size_t)n, sizeof *fds);
    struct client *c = xcalloc((size_t)n, sizeof *c);
    for (int i = 0; i < n; i++) {
        fds[i] = (struct pollfd){.fd = http_open(p.port), .events = POLLIN};
        http_send(fds[i].fd, text.data, text.len);
    }
    for (int begun = 0; begun < n;) { /* two events: the role, and a token */
        CHECK(poll(fds, (nfds_t)n, WAIT_MS) > 0);
        begun = 0;
        for (int i = 0; i < n; i++) {
            if (fds[i].revents)
                drain(fds[i].fd, &c[i]);
            CHECK(!c[i].over);
            begun += c[i].n_events >= 2;
        }
        sleep_ms(50);
    }
    snprintf(params, sizeof params, "{\"streams\":%d,\"workers\":3}", n);
    bench_emit("router.stream_kib", (process_rss_kib(p.router) - before) / n, "KiB", params);
    for (int i = 0; i < n; i++)
        close(fds[i].fd);
    router_pair_stop(&p);
    free(fds);
    free(c);
    buf_fini(&text);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } parts[] = {
        {"events", bench_events}, {"coalesced", bench_coalesced}, {"long", bench_long}, {"many", bench_many}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        bool wanted = argc < 2;
        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], parts[i].name);
        if (wanted)
            parts[i].run();
    }
    return 0;
}
