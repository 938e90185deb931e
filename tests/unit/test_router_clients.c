/* The router when clients are slow, odd or old, and its end.
 * threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/router_world.h"

/* ---- clients ----------------------------------------------------------------------------------------- */

static void test_slow_reader(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.limit.stream_buffer_bytes = 64 * 1024;
    world_start(&w, (struct fake_opts){.step_us = 20});
    /* 128 samples fill the socket's buffers soon; nobody reads */
    int fd =
        world_post(w.port, "/v1/completions",
                  "{\"prompt\":\"hello\",\"max_tokens\":3000,\"stream\":true,\"n\":128,\"temperature\":1}");
    assert_true(rig_until(world_submitted, w.worker));
    assert_true(rig_until(world_aborted, w.worker));
    assert_true(rig_until(world_idle, &w.rig));
    assert_true(world_metric(w.port, "weir_slow_client_aborts_total") == 1);
    close(fd);
    world_stop(&w);
}

static void test_stalled_write(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.write_timeout_s = 1;
    world_start(&w, (struct fake_opts){.step_us = 20});
    int fd = http_open(w.port), small_buffer = 4096;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small_buffer, sizeof small_buffer), 0);
    struct buf text = {0};
    http_post_text("/v1/completions",
                   "{\"prompt\":\"hello\",\"max_tokens\":1000,\"n\":120,\"temperature\":1,\"stream\":true}",
                   &text);
    http_send(fd, text.data, text.len);
    buf_fini(&text);
    assert_true(rig_until(world_submitted, w.worker));
    assert_true(rig_until(world_idle, &w.rig));
    assert_true(rig_until(world_aborted, w.worker));
    assert_true(world_metric(w.port, "weir_slow_client_aborts_total") == 1);
    close(fd);
    world_stop(&w);
}

static void test_idle_and_slow_connections(void **state) {
    (void)state;
    struct world w;
    char c;
    router_rig_init(&w.rig);
    w.rig.opts.keep_alive_s = 0.1;
    w.rig.opts.limit.body_timeout_s = 1;
    w.rig.opts.limit.connections = 4;
    world_start(&w, (struct fake_opts){0});
    int idle = http_open(w.port), half = http_open(w.port);
    http_send(half, "POST /tokenize HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", 50);
    assert_int_equal(recv(idle, &c, 1, 0), 0);
    assert_int_equal(recv(half, &c, 1, 0), 0);
    close(idle);
    close(half);
    /* one connection too many */
    int fds[5];
    for (int i = 0; i < 5; i++) {
        fds[i] = world_post(w.port, "/v1/completions", world_long_whole);
        usleep(10000);
    }
    world_expect_fd(fds[4], 503, "--max-connections");
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    assert_true(rig_until(world_idle, &w.rig));
    world_expect(w.port, world_small, 200, NULL);
    world_stop(&w);
}

static void test_body_limit(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.limit.body_bytes = 1000;
    world_start(&w, (struct fake_opts){0});
    struct buf text = {0};
    buf_addz(&text, "{\"prompt\":\"");
    while (text.len < 300000)
        buf_addz(&text, "word ");
    buf_addz(&text, "\"}");
    world_expect(w.port, buf_cstr(&text), 413, "--max-body-bytes");
    struct buf chunked = {0};
    buf_addf(&chunked,
             "POST /tokenize HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: "
             "chunked\r\n\r\n%zx\r\n%s\r\n0\r\n\r\n",
             text.len, buf_cstr(&text));
    int fd = http_open(w.port);
    http_send(fd, chunked.data, chunked.len);
    world_expect_fd(fd, 413, "PayloadTooLargeError");
    buf_fini(&text);
    buf_fini(&chunked);
    world_stop(&w);
}

static void test_ids_and_old_http(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.request_id_headers = true;
    world_start(&w, (struct fake_opts){0});
    struct buf text = {0};
    buf_addf(&text,
             "POST /v1/completions HTTP/1.1\r\nX-Request-Id: abc\r\nContent-Type: "
             "application/json\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(world_small), world_small);
    int fd = http_open(w.port);
    http_send(fd, text.data, text.len);
    world_expect_fd(fd, 200, "\"id\":\"cmpl-abc\"");
    fd = http_open(w.port);
    http_send(fd, text.data, text.len);
    world_expect_fd(fd, 200, "x-request-id: abc\r");
    world_expect(w.port, "{\"prompt\":\"x\",\"max_tokens\":1,\"request_id\":\"from-body\",\"stream\":true}", 200,
           "x-request-id: from-body\r");
    world_expect(w.port, "{\"prompt\":\"x\",\"max_tokens\":1,\"request_id\":\"from-body\"}", 200,
           "x-request-id: from-body\r");
    world_expect(w.port, "{", 400, "x-request-id: ");
    world_expect(w.port, "{\"prompt\":\"x\",\"request_id\":\"two words\"}", 400, "request_id");
    text.len = 0;
    const char *json = "{\"prompt\":\"x\",\"max_tokens\":4,\"stream\":true}";
    buf_addf(&text,
             "POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Type: "
             "application/json\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(json), json);
    fd = http_open(w.port);
    http_send(fd, text.data, text.len);
    world_expect_fd(fd, 200, "data: [DONE]");
    buf_fini(&text);
    world_stop(&w);
}

static void test_keepalive_comments(void **state) {
    (void)state;
    struct world w;
    _Atomic int n = 0;
    router_rig_init(&w.rig);
    w.rig.opts.sse_keepalive_s = 0.05;
    w.rig.opts.request_timeout_s = 0.4;
    world_start(&w, (struct fake_opts){.arg = &n, .on_submit = world_swallow});
    int fd = world_post(w.port, "/v1/completions", world_long_stream);
    struct buf got = {0};
    struct http_answer a;
    world_answer(fd, &got, &a);
    assert_int_equal(a.status, 200);
    assert_true(strstr(a.body.data, ": keep-alive\n\n: keep-alive\n\n") == a.body.data);
    assert_non_null(strstr(a.body.data, "\"code\":504"));
    http_answer_fini(&a);
    world_expect(w.port, world_long_whole, 504, NULL); /* no early 200 for a whole answer */
    world_stop(&w);
}

/* ---- the end ------------------------------------------------------------------------------------------ */

static void test_drain_waits(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){0});
    int fd = world_post(w.port, "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":200,\"stream\":true}");
    struct buf got = {0};
    world_read_until(fd, &got, "data: {");
    router_shutdown(w.rig.router);
    usleep(60000);
    int health = http_open(w.port);
    http_send(health, "GET /health HTTP/1.1\r\n\r\n", 24);
    world_expect_fd(health, 503, "connection: close");
    world_expect(w.port, world_small, 503, "shutting down");
    struct http_answer a;
    world_answer(fd, &got, &a);
    assert_null(strstr(a.body.data, "error"));
    assert_non_null(strstr(a.body.data, "[DONE]"));
    http_answer_fini(&a);
    pthread_join(w.rig.thread, NULL);
    assert_true(w.rig.peaceful);
    router_free(w.rig.router);
    w.rig.router = NULL;
    world_stop(&w);
}

static void test_drain_runs_out(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.shutdown_timeout_s = 0.1;
    world_start(&w, (struct fake_opts){0});
    int fd = world_post(w.port, "/v1/completions", world_long_stream),
        whole = world_post(w.port, "/v1/completions", world_long_whole);
    struct buf got = {0};
    world_read_until(fd, &got, "data: {");
    usleep(20000);
    router_shutdown(w.rig.router);
    struct http_answer a;
    world_answer(fd, &got, &a);
    assert_non_null(strstr(a.body.data, "\"code\":503"));
    assert_non_null(strstr(a.body.data, "[DONE]"));
    http_answer_fini(&a);
    world_expect_fd(whole, 503, "retry-after: ");
    pthread_join(w.rig.thread, NULL);
    assert_true(w.rig.peaceful);
    router_free(w.rig.router);
    w.rig.router = NULL;
    world_stop(&w);
}

static void test_second_shutdown(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){0});
    int fd = world_post(w.port, "/v1/completions", world_long_whole);
    assert_true(rig_until(world_submitted, w.worker));
    router_shutdown(w.rig.router);
    router_shutdown(w.rig.router);
    pthread_join(w.rig.thread, NULL);
    assert_false(w.rig.peaceful);
    router_free(w.rig.router);
    w.rig.router = NULL;
    close(fd);
    world_stop(&w);
}

static void test_port_taken(void **state) {
    (void)state;
    struct router_rig a, b;
    struct err e;
    router_rig_init(&a);
    router_rig_init(&b);
    assert_int_equal(router_new(&a.router, &a.opts, &e), RC_OK);
    b.opts.port = router_port(a.router);
    assert_int_equal(router_new(&b.router, &b.opts, &e), RC_IO);
    assert_non_null(strstr(e.msg, "cannot listen"));
    router_free(a.router);
    a.router = NULL;
    router_rig_fini(&a);
    router_rig_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_stalled_write),
        cmocka_unit_test(test_idle_and_slow_connections),
        cmocka_unit_test(test_body_limit),
        cmocka_unit_test(test_ids_and_old_http),
        cmocka_unit_test(test_keepalive_comments),
        cmocka_unit_test(test_drain_waits),
        cmocka_unit_test(test_drain_runs_out),
        cmocka_unit_test(test_second_shutdown),
        cmocka_unit_test(test_port_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
