/* The router from socket to link and back, against a scripted worker in this process. threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/fake_worker.h"
#include "tests/support/router_rig.h"

struct world {
    struct router_rig rig;
    struct fake_worker *worker;
};

static struct world start(struct fake_opts f) {
    struct world w = {0};
    router_rig_init(&w.rig);
    f.url = w.rig.url;
    w.worker = fake_worker_new(&f);
    return w;
}

static void stop(struct world *w) {
    router_rig_fini(&w->rig);
    fake_worker_free(w->worker);
}

static int setup(void **state) {
    struct world *w = malloc(sizeof *w);
    *w = start((struct fake_opts){0});
    router_rig_start(&w->rig);
    router_rig_wait_ready(&w->rig);
    *state = w;
    return 0;
}

static int teardown(void **state) {
    stop(*state);
    free(*state);
    return 0;
}

static int port_of(void **state) {
    struct world *w = *state;
    return router_port(w->rig.router);
}

static bool idle(void *arg) {
    struct world *w = arg;
    return fake_worker_live(w->worker) == 0 && router_request_count(w->rig.router) == 0;
}

static unsigned count(const struct buf *b, const char *needle) {
    unsigned n = 0;
    for (const char *p = b->data; p && (p = strstr(p, needle)); p += strlen(needle))
        n++;
    return n;
}

/* expect: status and a piece of the body. */
static void expect(int port, const char *path, const char *json, int status, const char *piece) {
    struct http_answer a;
    http_post(port, path, json, &a);
    if (a.status != status || (piece && !strstr(a.body.data, piece)))
        fprintf(stderr, "%s %s: %d %s\n", path, json, a.status, a.body.data ? a.body.data : "");
    assert_int_equal(a.status, status);
    if (piece)
        assert_non_null(strstr(a.body.data, piece));
    http_answer_fini(&a);
}

/* ---- the plain path ---------------------------------------------------------------------------------- */

static void test_completion(void **state) {
    expect(port_of(state), "/v1/completions", "{\"model\":\"fake\",\"prompt\":\"hello\",\"max_tokens\":5}",
           200, "\"completion_tokens\":5");
    expect(port_of(state), "/v1/completions",
           "{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":2,\"temperature\":1,\"max_tokens\":3}", 200,
           "\"completion_tokens\":18");
    expect(port_of(state), "/v1/chat/completions",
           "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"max_tokens\":4}", 200,
           "\"finish_reason\":\"length\"");
}

static void test_stream(void **state) {
    struct http_answer a;
    http_post(port_of(state), "/v1/completions",
              "{\"prompt\":\"hello\",\"max_tokens\":20,\"stream\":true,\"stream_options\":{\"include_usage\":"
              "true}}",
              &a);
    assert_int_equal(a.status, 200);
    assert_true(http_header(&a, "content-type: text/event-stream; charset=utf-8"));
    assert_true(http_header(&a, "cache-control: no-cache"));
    assert_true(http_header(&a, "x-accel-buffering: no"));
    assert_int_equal(count(&a.body, "data: {"), 21);
    assert_non_null(strstr(a.body.data, "\"completion_tokens\":20"));
    assert_string_equal(a.body.data + a.body.len - 14, "data: [DONE]\n\n");
    http_answer_fini(&a);
}

static void test_errors(void **state) {
    int port = port_of(state);
    expect(port, "/v1/completions", "{\"model\":\"no\",\"prompt\":\"x\"}", 404, "does not exist");
    expect(port, "/v1/completions", "{\"prompt\":", 400, "JSON decode error");
    expect(port, "/v1/completions", "", 400, "JSON decode error");
    expect(port, "/v1/completions", "{\"prompt\":\"\"}", 400, "decoder prompt cannot be empty");
    expect(port, "/none", "{}", 404, "NotFoundError");
    expect(port, "/health", "{}", 405, "MethodNotAllowedError");
    expect(port, "/v1/audio/transcriptions", "{}", 501, "NotImplementedError");
    expect(port, "/v1/embeddings", "{}", 400, "BadRequestError");
    expect(port, "/v1/embeddings", "{\"input\":\"a\"}", 404, "NotFoundError");
}

static void test_tokenize(void **state) {
    expect(port_of(state), "/tokenize", "{\"prompt\":\"hello world\"}", 200, "\"tokens\":[");
    expect(port_of(state), "/detokenize", "{\"tokens\":[40,41,42]}", 200, "\"prompt\":\"");
    expect(port_of(state), "/detokenize", "{\"tokens\":[99999999]}", 400, "out of vocabulary");
}

static void get(int port, const char *path, int status, const char *piece) {
    struct http_answer a;
    http_get(port, path, &a);
    if (a.status != status)
        fprintf(stderr, "%s: %d\n", path, a.status);
    assert_int_equal(a.status, status);
    if (piece)
        assert_non_null(strstr(a.body.data, piece));
    http_answer_fini(&a);
}

static void test_pages(void **state) {
    int port = port_of(state);
    get(port, "/health", 200, NULL);
    get(port, "/readyz?x=1", 200, NULL);
    get(port, "/livez", 200, NULL);
    get(port, "/ping", 200, NULL);
    get(port, "/version", 200, "\"version\"");
    get(port, "/load", 200, "\"server_load\":0");
    get(port, "/v1/models", 200, "\"id\":\"fake\"");
    get(port, "/v1/models/fake", 200, "\"id\":\"fake\"");
    get(port, "/v1/models/f%61ke", 200, "\"id\":\"fake\"");
    get(port, "/v1/models/other", 404, "does not exist");
    get(port, "/v1/models/", 404, NULL);
    get(port, "/v1/../v1/models", 404, NULL);
    get(port, "//v1/models", 404, NULL);
    get(port, "/v1/models%00", 404, NULL);
    get(port, "http://localhost/v1/models", 404, NULL);
    get(port, "/metrics", 200, "vllm:num_requests_running{model_name=\"fake\",engine=\"0\"}");
    get(port, "/metrics", 200, "weir_client_disconnects_total");
    expect(port, "/ping", "", 200, NULL);
}

/* ---- heads ------------------------------------------------------------------------------------------- */

static void raw(int port, const char *text, int status, bool keep_alive, const char *piece) {
    struct http_answer a;
    struct buf rest = {0};
    int fd = http_open(port);
    http_send(fd, text, strlen(text));
    http_read(fd, &rest, !strncmp(text, "HEAD", 4), &a);
    bool has = !piece || http_header(&a, piece) || (a.body.data && strstr(a.body.data, piece));
    if (a.status != status || a.keep_alive != keep_alive || !has)
        fprintf(stderr, "%s -> %d keep-alive %d closed %d\n%s%s\n", text, a.status, a.keep_alive, a.closed,
                a.head.data ? a.head.data : "", a.body.data ? a.body.data : "");
    assert_int_equal(a.status, status);
    assert_int_equal(a.keep_alive, keep_alive);
    assert_true(has);
    if (!keep_alive) {
        /* nothing behind it is read as a request */
        char more;
        assert_int_equal(rest.len, 0);
        assert_int_equal(read(fd, &more, 1), 0);
    }
    http_answer_fini(&a);
    buf_fini(&rest);
    close(fd);
}

static void test_heads(void **state) {
    int port = port_of(state);
    raw(port, "HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n", 200, true, "content-length: 1");
    raw(port, "OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 204, true, "allow: GET, HEAD, OPTIONS");
    raw(port, "FOO /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", 405, true, "allow: POST, OPTIONS");
    raw(port, "GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b\r\n\r\n", 400, true, "X-Request-Id");
    raw(port, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 400, true,
        "Unsupported Media Type");
    raw(port,
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: "
        "gzip\r\nContent-Length: "
        "2\r\n\r\n{}",
        400, true, "Content-Encoding");
    raw(port,
        "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        "2\r\nContent-Length: 3\r\n\r\n{}x",
        400, false, "Content-Length");
    raw(port,
        "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        "5\r\nTransfer-Encoding: "
        "chunked\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n",
        400, false, "Transfer-Encoding");
    raw(port,
        "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: "
        "chunked\r\n\r\ne\r\n{\"prompt\":\"x\"}\r\n0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n",
        200, false, "tokens");
    raw(port, "GET /version HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, false, "Host");
    raw(port, "GET /version HTTP/1.1\r\nHost: a/v1?x\r\n\r\n", 400, false, "Host");
    raw(port, "GET /version HTTP/1.0\r\n\r\n", 200, false, "version");
    raw(port, "POST /tokenize HTTP/1.1\r\nHost: x\r\nExpect: banana\r\nContent-Length: 2\r\n\r\n{}", 417,
        false, "BadRequestError");
    raw(port, "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{}", 413, false,
        "PayloadTooLargeError");
}

static void test_header_limit(void **state) {
    struct buf b = {0};
    buf_addz(&b, "GET /version HTTP/1.1\r\nHost: x\r\nX-Long: ");
    for (int i = 0; i < 70000; i++)
        buf_addc(&b, 'a');
    buf_addz(&b, "\r\n\r\n");
    raw(port_of(state), buf_cstr(&b), 431, false, "--max-header-bytes");
    buf_fini(&b);
}

static void test_pipelined(void **state) {
    enum { N = 1000 };
    struct buf text = {0}, rest = {0};
    int fd = http_open(port_of(state));
    for (int i = 0; i < N; i++) {
        if (i % 100 == 50)
            http_post_text("/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":2}", &text);
        else
            buf_addz(&text, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    http_send(fd, text.data, text.len);
    for (int i = 0; i < N; i++) {
        struct http_answer a;
        http_read(fd, &rest, false, &a);
        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.body.data, i % 100 == 50 ? "text_completion" : "version"));
        http_answer_fini(&a);
    }
    close(fd);
    buf_fini(&text);
    buf_fini(&rest);
}

/* ---- departures
 * --------------------------------------------------------------------------------------------- */

static void test_clients_leave(void **state) {
    struct world *w = *state;
    int fds[40];
    for (int i = 0; i < 40; i++) {
        struct buf text = {0};
        fds[i] = http_open(port_of(state));
        http_post_text("/v1/completions",
                       i % 2 ? "{\"prompt\":\"x\",\"max_tokens\":3000,\"stream\":true}"
                             : "{\"prompt\":\"x\",\"max_tokens\":3000}",
                       &text);
        http_send(fds[i], text.data, text.len);
        buf_fini(&text);
        if (i % 3 == 0)
            usleep(3000);
        if (i % 4 == 0)
            close(fds[i]);
    }
    for (int i = 0; i < 40; i++) {
        if (i % 4)
            close(fds[i]);
    }
    bool quiet = rig_until(idle, w);
    if (!quiet)
        fprintf(stderr, "live %u, requests %u, submits %u, aborts %u\n", fake_worker_live(w->worker),
                router_request_count(w->rig.router), fake_worker_submits(w->worker),
                fake_worker_aborts(w->worker));
    assert_true(quiet);
    expect(port_of(state), "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":2}", 200, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_completion, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tokenize, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipelined, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clients_leave, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
