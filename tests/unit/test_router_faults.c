/* The router when workers break, lie, refuse or are busy, and when time runs out.
 * threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/router_world.h"

/* ---- a worker that is lost --------------------------------------------------------------------------- */

static void test_killed_in_mid_stream(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){0});
    int fd = world_post(w.port, "/v1/completions", world_long_stream),
        whole = world_post(w.port, "/v1/completions", world_long_whole);
    struct buf got = {0};
    world_read_until(fd, &got, "data: {");
    fake_worker_free(w.worker);
    struct http_answer a;
    world_answer(fd, &got, &a);
    assert_int_equal(a.status, 200);
    assert_false(a.closed);
    const char *error = strstr(a.body.data, "data: {\"error\":{");
    assert_non_null(error);
    assert_non_null(strstr(error, "\"code\":503"));
    assert_string_equal(a.body.data + a.body.len - 14, "data: [DONE]\n\n");
    http_answer_fini(&a);
    world_expect_fd(whole, 503, "retry-after: 5");
    world_expect(w.port, world_small, 503, "retry-after: 5");
    w.worker = fake_worker_new(&(struct fake_opts){.url = w.rig.url});
    router_rig_wait_ready(&w.rig);
    world_expect(w.port, world_small, 200, "\"completion_tokens\":3");
    world_stop(&w);
}

static void test_retried_elsewhere(void **state) {
    (void)state;
    struct world w;
    _Atomic int n = 0;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.arg = &n, .on_submit = world_swallow});
    int fd = world_post(w.port, "/v1/completions", world_small), other = world_post(w.port, "/v1/completions", world_small);
    assert_true(rig_until(world_swallowed, &n));
    char url[160];
    struct err e;
    snprintf(url, sizeof url, "%s-b", w.rig.url);
    struct fake_worker *second = fake_worker_new(&(struct fake_opts){.url = url});
    assert_int_equal(router_dial(w.rig.router, url, &e), RC_OK);
    /* It serves once a third request has gone to it, the less loaded one. */
    for (int i = 0; i < 5000 && fake_worker_submits(second) == 0; i++) {
        int probe = world_post(w.port, "/v1/completions", world_small);
        usleep(2000);
        close(probe);
    }
    fake_worker_free(w.worker);
    world_expect_fd(fd, 200, "\"completion_tokens\":3");
    world_expect_fd(other, 200, "\"completion_tokens\":3");
    w.worker = second;
    world_stop(&w);
}

/* add_worker: a second one, which serves once some request has gone to it. */
static struct fake_worker *add_worker(struct world *w, char url[160], struct fake_opts o) {
    struct err e;
    snprintf(url, 160, "%s-b", w->rig.url);
    o.url = url;
    struct fake_worker *second = fake_worker_new(&o);
    assert_int_equal(router_dial(w->rig.router, url, &e), RC_OK);
    for (int i = 0; i < 5000 && !router_worker_ready(w->rig.router, url); i++)
        usleep(2000);
    return second;
}

/* text_of: an answer's choices, in order of their index, from one body or from events. */
static void text_of(const char *body, unsigned n, struct buf *out) {
    for (unsigned k = 0; k < n; k++) {
        char key[32];
        snprintf(key, sizeof key, "\"index\":%u,\"text\":\"", k);
        for (const char *p = body; (p = strstr(p, key));) {
            p += strlen(key);
            buf_add(out, p, (size_t)(strchr(p, '"') - p));
        }
        buf_addc(out, '\n');
    }
}

/* Requests that are in mid-stream when their worker dies, whatever their kind, end as if it had lived. */
static void test_replayed(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"hello\",\"max_tokens\":900,\"stream\":true}",
        "{\"prompt\":\"hello\",\"max_tokens\":900}",
        "{\"prompt\":\"hello\",\"max_tokens\":901,\"n\":3,\"temperature\":1}",
        "{\"prompt\":[\"a\",\"b\"],\"max_tokens\":902,\"stream\":true,\"logprobs\":0}",
    };
    static const unsigned n_choices[] = {1, 1, 3, 2};
    struct world w;
    char url[160];
    int fd[ARRAY_LEN(bodies)];
    struct buf want[ARRAY_LEN(bodies)] = {{0}};
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){0});
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct http_answer a;
        http_post(w.port, "/v1/completions", bodies[i], &a);
        assert_int_equal(a.status, 200);
        text_of(a.body.data, n_choices[i], &want[i]);
        assert_true(want[i].len > 900);
        http_answer_fini(&a);
    }
    unsigned had = fake_worker_submits(w.worker);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
        fd[i] = world_post(w.port, "/v1/completions", bodies[i]);
    for (int i = 0; i < 5000 && fake_worker_submits(w.worker) < had + 5; i++)
        usleep(1000);
    struct fake_worker *second = add_worker(&w, url, (struct fake_opts){0});
    usleep(50000);
    fake_worker_free(w.worker);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct buf rest = {0}, got = {0};
        struct http_answer a;
        world_answer(fd[i], &rest, &a);
        assert_int_equal(a.status, 200);
        assert_null(strstr(a.body.data, "\"error\""));
        text_of(a.body.data, n_choices[i], &got);
        assert_string_equal(buf_cstr(&got), buf_cstr(&want[i]));
        buf_fini(&got);
        buf_fini(&want[i]);
        http_answer_fini(&a);
    }
    assert_true(world_metric(w.port, "weir_failovers_total{outcome=\"ok\"}") == 5);
    w.worker = second;
    world_stop(&w);
}

/* It refuses everything; another worker has room: no client sees it. */
static bool refuse_all(void *arg, struct fake_worker *f, struct link_conn *c, const Weir__Submit *m) {
    Weir__Reject r = WEIR__REJECT__INIT;
    (void)arg, (void)f;
    r.has_request_id = r.has_status = true;
    r.request_id = m->request_id;
    r.status = 503;
    (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_REJECT, &r);
    return true;
}

static void test_refused_elsewhere(void **state) {
    (void)state;
    struct world w;
    char url[160];
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.on_submit = refuse_all});
    world_expect(w.port, world_small, 503, "retry-after: 5");
    struct fake_worker *second = add_worker(&w, url, (struct fake_opts){0});
    for (int i = 0; i < 6; i++)
        world_expect(w.port, world_small, 200, "\"completion_tokens\":3");
    fake_worker_free(second);
    world_stop(&w);
}

/* ---- lies -------------------------------------------------------------------------------------------- */

struct liar {
    _Atomic int what;
    uint64_t other; /* a handle of another request */
};

enum {
    LIE_TOKEN = 1,
    LIE_TWICE,
    LIE_FOREIGN,
    LIE_COLUMNS,
    LIE_ERROR,
    LIE_REJECT,
    LIE_REASON,
    LIE_ABORT,
    LIE_NAN,
    LIE_TOP,
    LIE_MORE
};

static bool lie(void *arg, struct fake_worker *f, struct link_conn *c, const Weir__Submit *m) {
    struct liar *x = arg;
    Weir__StepOutputs out = WEIR__STEP_OUTPUTS__INIT;
    Weir__Finish fin = WEIR__FINISH__INIT, *fins = &fin;
    Weir__Reject no = WEIR__REJECT__INIT;
    Weir__TopLogprobs top = WEIR__TOP_LOGPROBS__INIT, *tops = &top;
    uint64_t s = m->stream;
    uint32_t token = 41;
    float nan = __builtin_nanf("");
    out.stream = &s;
    out.token = &token;
    out.n_stream = out.n_token = 1;
    switch (atomic_load(&x->what)) {
    case LIE_TOKEN:
        fake_send(c, s, fake_worker_vocab(f), 0);
        return true;
    case LIE_TWICE: /* finishes and goes on, and finishes again */
        fake_send(c, s, 41, 0);
        fake_send(c, s, 42, WEIR__FINISH__REASON__LENGTH);
        fake_send(c, s, 43, 0);
        fake_send(c, s, UINT32_MAX, WEIR__FINISH__REASON__LENGTH);
        return true;
    case LIE_FOREIGN: /* samples, slots, generations and loops that are nobody's */
        fake_send(c, s + 5, 43, 0);
        fake_send(c, s + 256, 43, 0);
        fake_send(c, s ^ 1ull << 40, 43, WEIR__FINISH__REASON__LENGTH);
        fake_send(c, s ^ 0xffull << 32, 43, 0);
        fake_send(c, 0, 43, 0);
        return false;
    case LIE_MORE: /* never ends, although three were asked for */
        for (uint32_t i = 0; i < 4; i++)
            fake_send(c, s, 41, 0);
        return true;
    case LIE_COLUMNS:
        out.n_token = 0;
        break;
    case LIE_ERROR:
    case LIE_REASON:
    case LIE_ABORT:
        fin.has_stream = fin.has_reason = fin.has_status = true;
        fin.stream = s;
        fin.reason = x->what == LIE_ERROR   ? WEIR__FINISH__REASON__ERROR
                     : x->what == LIE_ABORT ? WEIR__FINISH__REASON__ABORT
                                            : (Weir__Finish__Reason)77;
        fin.status = 400;
        char text[] = "no token satisfies the constraints";
        fin.message = text;
        out.n_finish = 1;
        out.finish = &fins;
        (void)!link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_STEP_OUTPUTS, &out);
        return true;
    case LIE_REJECT:
        no.has_request_id = no.has_status = true;
        no.request_id = m->request_id;
        no.status = 400;
        char why[] = "the prompt is too long for this worker", param[] = "prompt";
        no.message = why;
        no.param = param;
        (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_REJECT, &no);
        return true;
    case LIE_NAN:
        out.logprob = &nan;
        out.n_logprob = 1;
        break;
    case LIE_TOP:
        top.has_entry = true;
        top.entry = 1;
        out.top = &tops;
        out.n_top = 1;
        break;
    default:
        return false;
    }
    (void)!link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_STEP_OUTPUTS, &out);
    return true;
}

static void test_lies(void **state) {
    (void)state;
    static const struct {
        int lie, status;
        const char *piece;
    } cases[] = {
        {LIE_TOKEN, 503, "Retry-After"},
        {LIE_TWICE, 200, "\"completion_tokens\":2"},
        {LIE_FOREIGN, 200, "\"completion_tokens\":3"},
        {LIE_COLUMNS, 503, NULL},
        {LIE_ERROR, 400, "no token satisfies the constraints"},
        {LIE_REJECT, 400, "\"param\":\"prompt\""},
        {LIE_REASON, 503, NULL},
        {LIE_ABORT, 503, "stopped"},
        {LIE_NAN, 500, "not a number"},
        {LIE_TOP, 503, NULL},
        {LIE_MORE, 503, "lost"},
    };
    struct liar x = {0};
    struct world w;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.arg = &x, .on_submit = lie});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        atomic_store(&x.what, cases[i].lie);
        world_expect(w.port, world_small, cases[i].status, cases[i].piece);
        atomic_store(&x.what, 0);
        assert_true(rig_until(world_healthy, &w.port)); /* a worker that was cut comes back */
        world_expect(w.port, world_small, 200, "\"completion_tokens\":3");
    }
    assert_true(world_metric(w.port, "weir_dropped_outputs_total") >= 7);
    world_stop(&w);
}

/* ---- lines and limits -------------------------------------------------------------------------------- */

static void test_line(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.limit.queued_requests = 2;
    world_start(&w, (struct fake_opts){.credit_seqs = 1});
    /* it runs for over a second, however busy the machine is; the line is full before that */
    int first = world_post(w.port, "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":1500}");
    assert_true(rig_until(world_submitted, w.worker));
    int fd[5];
    for (int i = 0; i < 5; i++) {
        fd[i] = world_post(w.port, "/v1/completions", world_small);
        for (int ms = 0; i < 2 && world_metric(w.port, "weir_queue_depth{model=\"fake\"}") != i + 1; ms++) {
            assert_true(ms < 5000);
            usleep(1000);
        }
        if (i >= 2)
            world_expect_fd(fd[i], 429, "retry-after: ");
    }
    assert_true(world_metric(w.port, "weir_rejected_total{reason=\"queue_full\",status=\"429\"}") == 3);
    world_expect_fd(first, 200, NULL);
    world_expect_fd(fd[0], 200, NULL);
    world_expect_fd(fd[1], 200, NULL);
    /* many prompts in one request trickle through the one credit, however short the line may be */
    world_expect(w.port, "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"],\"max_tokens\":2}", 200,
           "\"completion_tokens\":12");
    world_stop(&w);
}

static void test_waiting_client_leaves(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.credit_seqs = 1});
    int first = world_post(w.port, "/v1/completions", world_long_whole);
    assert_true(rig_until(world_submitted, w.worker));
    int waiting = world_post(w.port, "/v1/completions", world_small);
    usleep(20000);
    close(waiting);
    usleep(20000);
    close(first);
    assert_true(rig_until(world_idle, &w.rig));
    assert_true(rig_until(world_aborted, w.worker));
    world_expect(w.port, world_small, 200, NULL);
    assert_true(world_metric(w.port, "weir_client_disconnects_total") == 2);
    world_stop(&w);
}

static void test_timeouts(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    w.rig.opts.queue_timeout_s = 0.1;
    w.rig.opts.request_timeout_s = 0.4;
    world_start(&w, (struct fake_opts){.credit_seqs = 1});
    int first = world_post(w.port, "/v1/completions", world_long_stream);
    assert_true(rig_until(world_submitted, w.worker));
    world_expect(w.port, world_small, 503, "--queue-timeout");
    struct buf got = {0};
    struct http_answer a;
    world_answer(first, &got, &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body.data, "\"code\":504"));
    http_answer_fini(&a);
    assert_true(rig_until(world_aborted, w.worker));
    world_expect(w.port, world_long_whole, 504, "--request-timeout");
    world_stop(&w);
}

static void test_loading_and_failures(void **state) {
    (void)state;
    struct world w;
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.start_loading = true});
    struct router_progress p;
    router_note_worker_state(w.rig.router, "restarting\nin 2 s");
    world_expect(w.port, world_small, 503, "restarting in 2 s");
    fake_worker_state(w.worker, WEIR__WORKER_STATE__FAILED, "no memory");
    for (int i = 0; i < 1000; i++) {
        router_progress(w.rig.router, &p);
        if (p.failed)
            break;
        usleep(2000);
    }
    assert_true(p.failed);
    assert_string_equal(p.detail, "no memory");
    fake_worker_state(w.worker, WEIR__WORKER_STATE__FAILED, "'/srv/ab/m.json' /srv/x/y.bin: cut short /");
    for (int i = 0; i < 1000 && strcmp(p.detail, "no memory") == 0; i++) {
        router_progress(w.rig.router, &p);
        usleep(2000);
    }
    world_expect(w.port, world_small, 503, "(dead): 'm.json' y.bin: cut short /");
    fake_worker_state(w.worker, WEIR__WORKER_STATE__READY, NULL);
    router_rig_wait_ready(&w.rig);
    world_expect(w.port, world_small, 200, NULL);
    fake_worker_state(w.worker, WEIR__WORKER_STATE__DRAINING, NULL);
    for (int i = 0; i < 1000 && world_healthy(&w.port); i++)
        usleep(2000);
    world_expect(w.port, world_small, 503, "retry-after: 5");
    world_expect(w.port, "{\"model\":\"other\",\"prompt\":\"x\"}", 404, "does not exist");
    world_stop(&w);
}

static void test_bad_digest(void **state) {
    (void)state;
    struct world w;
    struct router_progress p = {0};
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.bad_digest = true});
    for (int i = 0; i < 1000 && !p.failed; i++) {
        router_progress(w.rig.router, &p);
        usleep(2000);
    }
    assert_non_null(strstr(p.detail, "digest"));
    world_expect(w.port, world_small, 503, "digest");
    world_stop(&w);
}

/* Of two workers of one model the first does not deliver what it has announced; the second serves. */
static void test_bad_digest_of_another(void **state) {
    (void)state;
    struct world w;
    struct err e;
    char url[160];
    router_rig_init(&w.rig);
    world_start(&w, (struct fake_opts){.bad_digest = true, .start_loading = true});
    snprintf(url, sizeof url, "%s-b", w.rig.url);
    struct fake_worker *second = fake_worker_new(&(struct fake_opts){.url = url, .start_loading = true});
    assert_int_equal(router_dial(w.rig.router, url, &e), RC_OK);
    struct router_progress p = {0};
    for (int i = 0; i < 1000 && p.n_workers < 2; i++) {
        router_progress(w.rig.router, &p);
        usleep(2000);
    }
    fake_worker_state(w.worker, WEIR__WORKER_STATE__READY, NULL);
    fake_worker_state(second, WEIR__WORKER_STATE__READY, NULL);
    router_rig_wait_ready(&w.rig);
    world_expect(w.port, world_small, 200, "\"completion_tokens\":3");
    fake_worker_free(second);
    world_stop(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_in_mid_stream),
        cmocka_unit_test(test_retried_elsewhere),
        cmocka_unit_test(test_replayed),
        cmocka_unit_test(test_refused_elsewhere),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_waiting_client_leaves),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_loading_and_failures),
        cmocka_unit_test(test_bad_digest),
        cmocka_unit_test(test_bad_digest_of_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
