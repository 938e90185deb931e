/* Traces: W3C's headers, the environment's lists and numbers, the sampler, the form of an export, and the thread that sends
 * it, against a collector in this process.
 * threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/otlp.pb-c.h"
#include "router/metrics.h"
#include "router/trace/settings.h"
#include "router/trace/tracer.h"

#define PARENT "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

/* ---- W3C Trace Context ------------------------------------------------------------------------------- */

static void test_parent(void **state) {
    static const char *const bad[] = {
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331_01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    };
    struct trace_context c;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (trace_parent_read(str_of(bad[i]), &c))
            fail_msg("taken: %s", bad[i]);
    assert_true(trace_parent_read(STR_LIT(PARENT), &c));
    assert_true(c.has_parent && c.sampled);
    assert_int_equal(c.trace.b[0], 0x0a);
    assert_int_equal(c.trace.b[15], 0x9c);
    assert_int_equal(c.parent[0], 0xb7);
    assert_int_equal(c.parent[7], 0x31);
    assert_true(trace_parent_read(STR_LIT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe"), &c));
    assert_false(c.sampled);
    assert_true(trace_parent_read(STR_LIT("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what comes"), &c));
}

static void test_state(void **state) {
    static const char *const good[] = {"a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", " a=b , ,c@d/*-_0= x", "0a=b"};
    static const char *const bad[] = {"", ",", " ", "a", "a=", "=b", "A=b", "a=b=c", "a=b\x01", "_a=b", "a b=c"};
    struct buf b = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (!trace_state_good(str_of(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (trace_state_good(str_of(bad[i])))
            fail_msg("taken: %s", bad[i]);
    for (int i = 0; i < TRACE_STATE_MEMBERS_MAX; i++)
        buf_addf(&b, "k%d=v,", i);
    assert_true(trace_state_good(buf_str(&b)));
    buf_addz(&b, "one=more");
    assert_false(trace_state_good(buf_str(&b)));
    b.len = 0;
    buf_addz(&b, "a=");
    while (b.len < TRACE_STATE_BYTES_MAX + 1)
        buf_addz(&b, b.len % 100 ? "x" : ",b=x");
    assert_false(trace_state_good(buf_str(&b)));
    buf_fini(&b);
}

/* ---- the environment --------------------------------------------------------------------------------- */

static const char *env[32][2];
static size_t n_env;

static void set(const char *name, const char *value) {
    assert_true(n_env < ARRAY_LEN(env));
    env[n_env][0] = name;
    env[n_env++][1] = value;
}

static char *get(const char *name) {
    for (size_t i = n_env; i-- > 0;)
        if (!strcmp(env[i][0], name))
            return (char *)(uintptr_t)env[i][1];
    return NULL;
}

static void test_settings(void **state) {
    struct trace_settings s;
    struct err e;
    (void)state;
    n_env = 0;
    assert_int_equal(trace_settings_read(&s, "http://c:4318", get, &e), RC_OK);
    assert_string_equal(s.url, "http://c:4318/v1/traces");
    assert_string_equal(s.service, "weir");
    assert_int_equal(s.timeout_ms, 10000);
    assert_true(s.sampler.by_parent && s.sampler.always && !s.disabled && s.headers.n == 0);
    trace_settings_fini(&s);
    set("OTEL_RESOURCE_ATTRIBUTES", "service.name=from%20list, deployment.environment = prod ,");
    set("OTEL_EXPORTER_OTLP_HEADERS", "x=all");
    set("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Basic%20YTpi%3D,x-tenant=7");
    set("OTEL_EXPORTER_OTLP_TIMEOUT", "250");
    set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    set("OTEL_BSP_MAX_QUEUE_SIZE", "10");
    set("OTEL_SDK_DISABLED", "TRUE");
    assert_int_equal(trace_settings_read(&s, "https://c/", get, &e), RC_OK);
    assert_string_equal(s.url, "https://c/v1/traces");
    assert_string_equal(s.service, "from list");
    assert_string_equal(trace_pairs_get(&s.resource, "deployment.environment"), "prod");
    assert_string_equal(trace_pairs_get(&s.headers, "authorization"), "Basic YTpi=");
    assert_null(trace_pairs_get(&s.headers, "x"));
    assert_int_equal(s.timeout_ms, 250);
    assert_int_equal(s.queue_max, 10);
    assert_true(s.disabled);
    trace_settings_fini(&s);
    set("OTEL_SERVICE_NAME", "chat");
    assert_int_equal(trace_settings_read(&s, "http://c/other/path", get, &e), RC_OK);
    assert_string_equal(s.url, "http://c/other/path");
    assert_string_equal(s.service, "chat");
    trace_settings_fini(&s);
}

static void test_settings_refused(void **state) {
    static const struct {
        const char *endpoint, *name, *value;
    } bad[] = {
        {"grpc://c:4317", "X", ""},
        {"c:4318", "X", ""},
        {"http://user@c", "X", ""},
        {"http://c", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"},
        {"http://c", "OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "a"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "=a"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "a=%0d%0ab: c"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "a=%4"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "a b=c"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "a=\xc3\xa9"},
        {"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "Content-Length=7"},
        {"http://c", "OTEL_EXPORTER_OTLP_TIMEOUT", "0"},
        {"http://c", "OTEL_EXPORTER_OTLP_TIMEOUT", "1s"},
        {"http://c", "OTEL_BSP_SCHEDULE_DELAY", "-1"},
        {"http://c", "OTEL_TRACES_SAMPLER", "jaeger_remote"},
        {"http://c", "OTEL_TRACES_SAMPLER_ARG", "2"},
        {"http://c", "OTEL_TRACES_SAMPLER_ARG", "nan"},
        {"http://c", "OTEL_RESOURCE_ATTRIBUTES", "a"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct trace_settings s;
        struct err e = {0};
        n_env = 0;
        set("OTEL_TRACES_SAMPLER", "traceidratio"); /* so that _ARG is looked at */
        set(bad[i].name, bad[i].value);
        if (trace_settings_read(&s, bad[i].endpoint, get, &e) == RC_OK)
            fail_msg("taken: %s %s=%s", bad[i].endpoint, bad[i].name, bad[i].value);
        assert_non_null(strstr(e.msg, "--otlp-traces-endpoint: "));
    }
    /* A list without end. */
    struct trace_pairs p;
    struct buf b = {0};
    for (int i = 0; i < TRACE_PAIRS_MAX; i++)
        buf_addf(&b, "k%d=v,", i);
    assert_true(trace_pairs_read(buf_cstr(&b), &p));
    assert_int_equal(p.n, TRACE_PAIRS_MAX);
    trace_pairs_fini(&p);
    buf_addz(&b, "more=v");
    assert_false(trace_pairs_read(buf_cstr(&b), &p));
    assert_int_equal(p.n, 0);
    buf_fini(&b);
}

static bool takes(const char *sampler, const char *arg, const char *parent, uint64_t low) {
    struct trace_settings s;
    struct trace_context c = {.has_parent = false};
    struct err e;
    n_env = 0;
    set("OTEL_TRACES_SAMPLER", sampler);
    set("OTEL_TRACES_SAMPLER_ARG", arg);
    assert_int_equal(trace_settings_read(&s, "http://c", get, &e), RC_OK);
    if (parent)
        assert_true(trace_parent_read(str_of(parent), &c));
    for (int i = 0; i < 8; i++)
        c.trace.b[15 - i] = (uint8_t)(low >> 8 * i);
    bool yes = trace_sampler_takes(&s.sampler, &c);
    trace_settings_fini(&s);
    return yes;
}

static void test_sampler(void **state) {
    static const char no[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    (void)state;
    assert_true(takes("", "", NULL, 1));
    assert_true(takes("", "", PARENT, 1));
    assert_false(takes("", "", no, 1));
    assert_true(takes("always_on", "", no, 1));
    assert_false(takes("always_off", "", PARENT, 0));
    assert_true(takes("parentbased_always_off", "", PARENT, 1));
    assert_false(takes("parentbased_always_off", "", NULL, 0));
    assert_true(takes("traceidratio", "0.25", no, (1ull << 62) - 1));
    assert_false(takes("traceidratio", "0.25", PARENT, 1ull << 62));
    assert_false(takes("parentbased_traceidratio", "0.25", NULL, 1ull << 62));
    assert_true(takes("parentbased_traceidratio", "0.25", PARENT, UINT64_MAX));
    assert_true(takes("traceidratio", "1", NULL, UINT64_MAX));
    assert_false(takes("traceidratio", "0", NULL, 0));
}

/* ---- the form of an export --------------------------------------------------------------------------- */

static const Otlp__AnyValue *value_of(Otlp__KeyValue **v, size_t n, const char *key) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(v[i]->key, key))
            return v[i]->value;
    fail_msg("no attribute %s", key);
    return NULL;
}

static void test_encode(void **state) {
    struct trace_pairs more;
    struct buf b = {0};
    struct trace_record r = {.begin_ns = 1000, .end_ns = 9000, .first_ns = 5000, .operation = "chat", .end = "done",
                             .status = 200, .http_status = 200, .generates = true, .temperature = .5, .top_p = 1, .n = 2, .max_tokens = 7,
                             .prompt_tokens = 11, .completion_tokens = 14, .n_sequences = 2, .worker = 3,
                             .id = "chatcmpl-x", .model = "m", .model_asked = "alias", .route = "/v1/chat/completions",
                             .state = "a=b", .span = {1, 2, 3, 4, 5, 6, 7, 8}};
    struct trace_record bad = {.begin_ns = 2000, .end_ns = 3000, .status = 503, .end = "error", .worker = -1};
    (void)state;
    assert_true(trace_parent_read(STR_LIT(PARENT), &r.from));
    r.stage[TRACE_QUEUE].begin_ns = 2000;
    r.stage[TRACE_QUEUE].end_ns = 4000;
    r.stage[TRACE_TRANSFER].begin_ns = 2500;
    r.stage[TRACE_TRANSFER].end_ns = 3500;
    r.stage[TRACE_PREFILL].begin_ns = 4000;
    r.stage[TRACE_PREFILL].end_ns = 5000;
    r.next = &bad;
    assert_int_equal(trace_record_spans(&r), 4);
    assert_true(trace_pairs_read("a.b=c,service.name=other", &more));
    trace_encode(&r, "weir", &more, 1000000, &b);
    trace_pairs_fini(&more);
    Otlp__ExportRequest *m = otlp__export_request__unpack(NULL, b.len, (const uint8_t *)b.data);
    assert_non_null(m);
    assert_int_equal(m->n_resource_spans, 1);
    const Otlp__Resource *res = m->resource_spans[0]->resource;
    assert_string_equal(value_of(res->attributes, res->n_attributes, "service.name")->string_value, "weir");
    assert_string_equal(value_of(res->attributes, res->n_attributes, "a.b")->string_value, "c");
    const Otlp__ScopeSpans *scope = m->resource_spans[0]->scope_spans[0];
    assert_int_equal(scope->n_spans, 5);
    const Otlp__Span *top = scope->spans[0], *queue = scope->spans[1], *moved = scope->spans[2], *prefill = scope->spans[3], *err = scope->spans[4];
    assert_string_equal(moved->name, "transfer");
    assert_int_equal(moved->end_time_unix_nano - moved->start_time_unix_nano, 1000);
    assert_string_equal(top->name, "llm_request");
    assert_int_equal(top->kind, 2);
    assert_int_equal(top->flags, 0x301);
    assert_string_equal(top->trace_state, "a=b");
    assert_int_equal(top->start_time_unix_nano, 1001000);
    assert_int_equal(top->end_time_unix_nano, 1009000);
    assert_memory_equal(top->trace_id.data, r.from.trace.b, 16);
    assert_memory_equal(top->parent_span_id.data, r.from.parent, 8);
    assert_null(top->status);
    assert_int_equal(value_of(top->attributes, top->n_attributes, "gen_ai.usage.output_tokens")->int_value, 14);
    assert_string_equal(value_of(top->attributes, top->n_attributes, "gen_ai.request.model")->string_value, "alias");
    double ttft_s = value_of(top->attributes, top->n_attributes, "gen_ai.latency.time_to_first_token")->double_value;
    assert_true(fabs(ttft_s - 4e-6) < 1e-12);
    assert_string_equal(queue->name, "queue");
    assert_string_equal(prefill->name, "prefill");
    assert_memory_equal(queue->parent_span_id.data, r.span, 8);
    assert_memory_equal(queue->trace_id.data, r.from.trace.b, 16);
    assert_memory_not_equal(queue->span_id.data, prefill->span_id.data, 8);
    assert_int_equal(prefill->start_time_unix_nano, 1004000);
    assert_int_equal(err->status->code, 2);
    assert_false(err->has_parent_span_id);
    assert_string_equal(value_of(err->attributes, err->n_attributes, "error.type")->string_value, "503");
    otlp__export_request__free_unpacked(m, NULL);
    buf_fini(&b);
    /* What a collector says of it: partial_success {rejected_spans: 3, error_message: "x"}. */
    assert_int_equal(trace_rejected((struct str){"\x0a\x05\x08\x03\x12\x01x", 7}), 3);
    assert_int_equal(trace_rejected(STR_LIT("{}")), 0);
    assert_int_equal(trace_rejected((struct str){0}), 0);
}

/* ---- the thread -------------------------------------------------------------------------------------- */

/* collector: answers each request with the next of its statuses, the last one for ever; counts the spans of those it
 * answers 200. */
struct collector {
    int fd, port;
    pthread_t thread;
    int status[4];
    unsigned n_status;
    _Atomic unsigned n_requests, n_spans, n_largest;
    _Atomic bool held; /* it reads and does not answer */
};

static void serve_one(struct collector *c, int fd) {
    struct buf b = {0};
    char *head = NULL;
    size_t want = 0;
    while (!head || b.len < want) {
        ssize_t n = recv(fd, buf_reserve(&b, 65536), 65536, 0);
        if (n <= 0)
            goto out;
        b.len += (size_t)n;
        if (!head && (head = memmem(b.data, b.len, "\r\n\r\n", 4))) {
            const char *length = memmem(b.data, b.len, "Content-Length: ", 16);
            assert_non_null(length);
            assert_non_null(memmem(b.data, b.len, "Content-Type: application/x-protobuf\r\n", 38));
            assert_non_null(memmem(b.data, b.len, "POST /v1/traces HTTP/1.1\r\n", 26));
            want = (size_t)(head - b.data) + 4 + strtoul(length + 16, NULL, 10);
            head = b.data;
        }
    }
    while (atomic_load(&c->held))
        usleep(1000);
    unsigned k = atomic_fetch_add(&c->n_requests, 1);
    int status = c->status[MIN(k, c->n_status - 1)];
    const char *body = strstr(b.data, "\r\n\r\n") + 4;
    Otlp__ExportRequest *m = otlp__export_request__unpack(NULL, b.len - (size_t)(body - b.data), (const uint8_t *)body);
    assert_non_null(m);
    unsigned n = (unsigned)m->resource_spans[0]->scope_spans[0]->n_spans;
    if (status == 200)
        atomic_fetch_add(&c->n_spans, n);
    if (n > atomic_load(&c->n_largest))
        atomic_store(&c->n_largest, n);
    otlp__export_request__free_unpacked(m, NULL);
    char answer[100];
    int len = snprintf(answer, sizeof answer, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n", status);
    assert_int_equal(send(fd, answer, (size_t)len, MSG_NOSIGNAL), len);
out:
    buf_fini(&b);
    close(fd);
}

static void *collector_main(void *arg) {
    struct collector *c = arg;
    for (int fd; (fd = accept(c->fd, NULL, NULL)) >= 0;)
        serve_one(c, fd);
    return NULL;
}

static void collector_start(struct collector *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(c->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(c->fd, 16), 0);
    assert_int_equal(getsockname(c->fd, (struct sockaddr *)&a, &n), 0);
    c->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&c->thread, NULL, collector_main, c), 0);
}

static void collector_stop(struct collector *c) {
    shutdown(c->fd, SHUT_RDWR);
    pthread_join(c->thread, NULL);
    close(c->fd);
}

static double spans(struct rmetrics *m, const char *outcome) {
    struct buf b = {0};
    char line[80];
    rmetrics_write(m, STR_LIT("m"), &b);
    snprintf(line, sizeof line, "\nweir_otlp_spans_total{outcome=\"%s\"} ", outcome);
    const char *at = strstr(buf_cstr(&b), line);
    assert_non_null(at);
    double v = strtod(at + strlen(line), NULL);
    buf_fini(&b);
    return v;
}

static struct tracer *tracer_at(int port, struct rmetrics *m) {
    char url[64];
    struct tracer *t;
    struct err e;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", port);
    assert_int_equal(tracer_new(&t, url, m, &e), RC_OK);
    assert_non_null(t);
    return t;
}

static void add_one(struct tracer *t) {
    struct trace_record *r = trace_begin(t, STR_LIT(PARENT), STR_LIT("a=b"));
    assert_true(r->from.sampled);
    r->end = "done";
    r->status = 200;
    tracer_add(t, r);
}

static void *add_many(void *t) {
    for (int i = 0; i < 50; i++)
        add_one(t);
    return NULL;
}

/* Everything arrives, in batches, from several threads, and what waits when the tracer ends arrives too. */
static void test_batches(void **state) {
    struct collector c = {.status = {503, 200}, .n_status = 2};
    struct rmetrics *m = rmetrics_new();
    pthread_t threads[3];
    (void)state;
    setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16", 1);
    setenv("OTEL_BSP_SCHEDULE_DELAY", "600000", 1);
    collector_start(&c);
    struct tracer *t = tracer_at(c.port, m);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_create(&threads[i], NULL, add_many, t);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    while (spans(m, "sent") < 144) /* 9 full batches; the first came twice */
        usleep(1000);
    tracer_free(t);
    assert_true(spans(m, "sent") == 150 && spans(m, "dropped") == 0 && spans(m, "failed") == 0);
    assert_int_equal(atomic_load(&c.n_spans), 150);
    assert_int_equal(atomic_load(&c.n_largest), 16);
    collector_stop(&c);
    rmetrics_free(m);
}

/* A collector that hangs holds nobody up: the queue fills, the rest is dropped, and the end takes less than a second. */
static void test_hangs(void **state) {
    struct collector c = {.status = {200}, .n_status = 1, .held = true};
    struct rmetrics *m = rmetrics_new();
    (void)state;
    setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1", 1);
    setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10", 1);
    collector_start(&c);
    struct tracer *t = tracer_at(c.port, m);
    for (int i = 0; i < 100; i++)
        add_one(t);
    assert_true(spans(m, "dropped") >= 89 && spans(m, "sent") == 0);
    uint64_t begin_ns = clock_ns();
    tracer_free(t);
    assert_true(clock_ns() - begin_ns < 5 * NS_PER_S);
    assert_true(spans(m, "dropped") + spans(m, "failed") == 100);
    atomic_store(&c.held, false);
    collector_stop(&c);
    unsetenv("OTEL_BSP_MAX_QUEUE_SIZE");
    rmetrics_free(m);
}

/* A collector that says no, and one that is not there. */
static void test_refused(void **state) {
    struct collector c = {.status = {400}, .n_status = 1};
    struct rmetrics *m = rmetrics_new();
    (void)state;
    setenv("OTEL_BSP_SCHEDULE_DELAY", "0", 1);
    collector_start(&c);
    struct tracer *t = tracer_at(c.port, m);
    add_one(t);
    while (spans(m, "failed") < 1)
        usleep(1000);
    assert_int_equal(atomic_load(&c.n_requests), 1);
    tracer_free(t);
    collector_stop(&c);
    t = tracer_at(c.port, m);
    add_one(t);
    tracer_free(t);
    assert_true(spans(m, "failed") == 2 && spans(m, "sent") == 0);
    rmetrics_free(m);
}

static void test_begin(void **state) {
    struct rmetrics *m = rmetrics_new();
    (void)state;
    assert_null(trace_begin(NULL, STR_LIT("nonsense"), (struct str){0}));
    struct trace_record *r = trace_begin(NULL, STR_LIT(PARENT), (struct str){0});
    assert_false(r->from.sampled);
    free(r);
    struct tracer *t = tracer_at(9, m);
    struct trace_record *a = trace_begin(t, (struct str){0}, STR_LIT("a=b")), *b = trace_begin(t, (struct str){0}, (struct str){0});
    assert_true(a->from.sampled && !a->from.has_parent && a->state[0] == '\0'); /* a state goes with its parent */
    assert_false(id128_eq(a->from.trace, b->from.trace));
    free(a);
    free(b);
    a = trace_begin(t, STR_LIT(PARENT), STR_LIT("NO=b"));
    assert_string_equal(a->state, "");
    free(a);
    tracer_free(t);
    setenv("OTEL_SDK_DISABLED", "true", 1);
    struct err e;
    assert_int_equal(tracer_new(&t, "http://127.0.0.1:9", m, &e), RC_OK);
    assert_null(t);
    unsetenv("OTEL_SDK_DISABLED");
    rmetrics_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parent),   cmocka_unit_test(test_state),   cmocka_unit_test(test_settings),
        cmocka_unit_test(test_settings_refused), cmocka_unit_test(test_sampler), cmocka_unit_test(test_encode),
        cmocka_unit_test(test_batches),  cmocka_unit_test(test_hangs),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_begin),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
