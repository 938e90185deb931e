/* Logits processors: states that come and go with their sequences, and what becomes of one that fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/engine_rig.h"
#include "worker/procs.h"

enum { VOCAB = 12 };

/* What a processor was asked, by all its states together. */
static struct {
    int n_create, n_destroy, n_apply, refuse_at;
    float writes; /* to logits[0] */
    int result;
    char args[64], kwargs[64], xargs[64];
    size_t prompt_len, output_len;
} seen;

static int create(const struct weir_lp_args *a, void **state, char *err, size_t err_size) {
    snprintf(seen.args, sizeof seen.args, "%s", a->args_json);
    snprintf(seen.kwargs, sizeof seen.kwargs, "%s", a->kwargs_json);
    snprintf(seen.xargs, sizeof seen.xargs, "%s", a->xargs_json);
    assert_int_equal(a->vocab_size, VOCAB);
    if (++seen.n_create == seen.refuse_at) {
        snprintf(err, err_size, "not today");
        return 7;
    }
    *state = malloc(1); /* the sanitizer sees one that is not destroyed */
    return 0;
}

static int apply(void *state, const struct weir_lp_view *view, float *logits) {
    assert_non_null(state);
    seen.n_apply++;
    seen.prompt_len = view->prompt_len;
    seen.output_len = view->output_len;
    assert_int_equal(view->prompt[0], 4);
    logits[0] = seen.writes;
    return seen.result;
}

static void destroy(void *state) {
    seen.n_destroy++;
    free(state);
}

static const struct weir_lp one = {"t.one", create, apply, destroy}, two = {"t.two", create, apply, destroy};

static struct req *make(uint32_t n_samples) {
    static const uint32_t prompt[2] = {4, 5};
    struct req_proc procs[2] = {{&one, "[1]", "{}"}, {&two, "[]", "{\"k\":2}"}};
    struct req src = rig_req(0, prompt, 2, 8);
    src.n_samples = n_samples;
    src.procs = procs;
    src.n_procs = 2;
    src.xargs = "{\"x\":3}";
    memset(&seen, 0, sizeof seen);
    struct req *r = req_new(&src);
    req_prepare(r, NULL, 0, false);
    return r;
}

static void test_life(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    char why[PROCS_WHY_BYTES] = "";
    uint32_t status;
    struct err e;
    struct req *r = make(3);
    assert_int_equal(procs_create(r, VOCAB, &e), RC_OK);
    assert_int_equal(seen.n_create, 6);
    assert_string_equal(seen.args, "[]"); /* of the second processor */
    assert_string_equal(seen.kwargs, "{\"k\":2}");
    assert_string_equal(seen.xargs, "{\"x\":3}");
    seen.writes = -INFINITY; /* rules a token out */
    assert_true(procs_apply(&r->seqs[1], logits, VOCAB, why, &status));
    assert_int_equal(seen.n_apply, 2);
    assert_int_equal(seen.prompt_len, 2);
    assert_int_equal(seen.output_len, 0);
    r->seqs[1].n_preempted++; /* the states are made again, and no apply is repeated */
    assert_true(procs_apply(&r->seqs[1], logits, VOCAB, why, &status));
    assert_int_equal(seen.n_create, 8);
    assert_int_equal(seen.n_destroy, 2);
    assert_int_equal(seen.n_apply, 4);
    req_free(r);
    assert_int_equal(seen.n_destroy, seen.n_create);
}

static void test_refusal(void **state) {
    (void)state;
    struct err e;
    struct req *r = make(2);
    seen.refuse_at = 4; /* the second processor of the second sample */
    assert_int_equal(procs_create(r, VOCAB, &e), RC_INVALID);
    assert_string_equal(e.param, "logits_processors");
    assert_non_null(strstr(e.msg, "t.two: not today"));
    assert_int_equal(seen.n_destroy, 3);
    req_free(r);
    assert_int_equal(seen.n_destroy, 3);
}

static void test_faults(void **state) {
    (void)state;
    static const struct {
        float writes;
        int result;
        const char *says;
    } rows[] = {{NAN, 0, "not finite"}, {INFINITY, 0, "not finite"}, {0, 1, "t.one failed"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        float logits[VOCAB] = {0};
        char why[PROCS_WHY_BYTES] = "";
        uint32_t status = 0;
        struct err e;
        struct req *r = make(1);
        assert_int_equal(procs_create(r, VOCAB, &e), RC_OK);
        seen.writes = rows[i].writes;
        seen.result = rows[i].result;
        assert_false(procs_apply(&r->seqs[0], logits, VOCAB, why, &status));
        assert_int_equal(status, 500); /* the plugin's own doing: no bad request */
        assert_non_null(strstr(why, rows[i].says));
        assert_int_equal(seen.n_apply, 1);
        req_free(r);
        assert_int_equal(seen.n_destroy, 2);
    }
}

static void test_no_such_file(void **state) {
    (void)state;
    char *files[] = {(char[]){"/no/such/plugin.so"}};
    struct plugins *p = NULL;
    struct err e;
    assert_int_equal(plugins_load(&p, &(struct conf_list){files, 1}, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "/no/such/plugin.so"));
    assert_int_equal(plugins_load(&p, &(struct conf_list){0}, &e), RC_OK);
    assert_null(p);
    assert_null(plugins_find(p, "x"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_life), cmocka_unit_test(test_refusal),
                                       cmocka_unit_test(test_faults), cmocka_unit_test(test_no_such_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
