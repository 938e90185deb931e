/* Templates against Python's Jinja: our own, one per family, with every context, and random ones.
 * scripts/goldens/templates.py made the expectations; see tests/golden/tmpl/README.md.
 * threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "router/tmpl/tmpl.h"

enum { NOW_UNIX_S = 1753180200, VARS_MAX = 64 }; /* the clock of the goldens */
#define GOLDEN "tests/golden/tmpl/"

static json_t *load(const char *path) {
    json_error_t e;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (!j)
        fail_msg("%s: %s", path, e.text);
    return j;
}

/* Renders with every variable of context; out is the caller's to free on RC_OK. */
static enum rc render(const struct tmpl *t, const json_t *context, bool client, struct tmpl_out *out,
                      struct err *e) {
    struct tmpl_var vars[VARS_MAX];
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)context, name, value) {
        assert_true(n < VARS_MAX);
        vars[n++] = (struct tmpl_var){name, value, client};
    }
    struct arena a;
    arena_init(&a);
    enum rc rc = tmpl_render(t, vars, n, NOW_UNIX_S, &a, out, e);
    arena_fini(&a);
    return rc;
}

/* expected NULL: an error when compiling or rendering. Marks must not change the text. */
static int check(const char *what, struct str text, const json_t *context, const json_t *expected) {
    struct tmpl *t;
    struct tmpl_out out = {0};
    struct err e = {0};
    enum rc rc = tmpl_compile(&t, text, NULL, &e);
    if (rc == RC_OK) {
        rc = render(t, context, true, &out, &e);
        tmpl_free(t);
    }
    bool want = json_is_string(expected);
    bool same = rc == RC_OK ? want && json_string_length(expected) == out.text.len &&
                                  memcmp(out.text.len ? out.text.data : "", json_string_value(expected),
                                         out.text.len) == 0
                            : !want;
    if (!same)
        print_error("%s: %.*s\nwant %s\ngot  %s%.*s\n", what, (int)text.n, text.p,
                    want ? json_string_value(expected) : "an error", rc ? e.msg : "", (int)out.text.len,
                    out.text.len ? out.text.data : "");
    if (rc == RC_OK) {
        size_t at = 0;
        for (size_t i = 0; i < out.n_marks; i++) { /* sorted, merged, inside */
            assert_true(out.marks[i].begin < out.marks[i].end && out.marks[i].end <= out.text.len);
            assert_true(i == 0 || out.marks[i].begin > at);
            at = out.marks[i].end;
        }
        tmpl_out_fini(&out);
    } else {
        assert_int_equal(rc, RC_INVALID);
        assert_non_null(strstr(e.msg, "(line "));
    }
    return !same;
}

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    struct buf b = {0};
    size_t got;
    while ((got = fread(buf_reserve(&b, 4096), 1, 4096, f)) > 0)
        b.len += got;
    fclose(f);
    *n = b.len;
    return buf_take(&b);
}

static void our_templates(void **state) {
    (void)state;
    json_t *contexts = load(GOLDEN "contexts.json"), *expected = load(GOLDEN "expected.json"), *answers,
           *answer;
    const char *name, *chat;
    int wrong = 0, n = 0;
    json_object_foreach(expected, name, answers) {
        char path[128];
        size_t len;
        snprintf(path, sizeof path, GOLDEN "templates/%s.jinja", name);
        char *text = read_file(path, &len);
        json_object_foreach(answers, chat, answer) {
            char what[128];
            snprintf(what, sizeof what, "%s with %s", name, chat);
            const json_t *context = json_object_get(contexts, chat);
            wrong += check(what, (struct str){text, len}, context, json_object_get(answer, "output"));
            n++;
        }
        free(text);
    }
    json_decref(contexts);
    json_decref(expected);
    assert_int_equal(wrong, 0);
    assert_int_equal(n, 180);
}

static void random_templates(void **state) {
    (void)state;
    json_t *all = load(GOLDEN "random.json"), *cases = json_object_get(all, "cases"), *c;
    size_t i;
    int wrong = 0, outputs = 0;
    json_array_foreach(cases, i, c) {
        char what[32];
        snprintf(what, sizeof what, "random %zu", i);
        const json_t *text = json_array_get(c, 0);
        const json_t *context = json_array_get(json_object_get(all, "contexts"),
                                               (size_t)json_integer_value(json_array_get(c, 1)));
        struct str s = {json_string_value(text), json_string_length(text)};
        wrong += check(what, s, context, json_array_get(c, 2));
        outputs += json_is_string(json_array_get(c, 2));
    }
    assert_int_equal(json_array_size(cases), 280);
    assert_true(outputs > 150);
    json_decref(all);
    assert_int_equal(wrong, 0);
}

/* One compiled template, rendered by several threads at once. */
struct shared {
    const struct tmpl *t;
    const json_t *context;
    struct str want;
    int wrong;
};

static void *render_often(void *arg) {
    struct shared *s = arg;
    for (int i = 0; i < 100; i++) {
        struct tmpl_out out = {0};
        struct err e;
        bool same = render(s->t, s->context, i & 1, &out, &e) == RC_OK && str_eq(buf_str(&out.text), s->want);
        s->wrong += !same;
        tmpl_out_fini(&out);
    }
    return NULL;
}

static void shared_by_threads(void **state) {
    (void)state;
    enum { N_THREADS = 4 };
    json_t *contexts = load(GOLDEN "contexts.json"), *expected = load(GOLDEN "expected.json");
    const char *name;
    json_t *answers;
    json_object_foreach(expected, name, answers) {
        char path[128];
        size_t len;
        snprintf(path, sizeof path, GOLDEN "templates/%s.jinja", name);
        char *text = read_file(path, &len);
        struct tmpl *t;
        struct err e;
        assert_int_equal(tmpl_compile(&t, (struct str){text, len}, NULL, &e), RC_OK);
        json_t *want = json_object_get(json_object_get(answers, "multi"), "output");
        assert_non_null(want);
        struct shared s[N_THREADS];
        pthread_t thread[N_THREADS];
        for (int i = 0; i < N_THREADS; i++) {
            s[i] = (struct shared){t,
                                   json_object_get(contexts, "multi"),
                                   {json_string_value(want), json_string_length(want)},
                                   0};
            assert_int_equal(pthread_create(&thread[i], NULL, render_often, &s[i]), 0);
        }
        for (int i = 0; i < N_THREADS; i++) {
            pthread_join(thread[i], NULL);
            assert_int_equal(s[i].wrong, 0);
        }
        tmpl_free(t);
        free(text);
    }
    json_decref(contexts);
    json_decref(expected);
}

int main(void) {
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_templates),
        cmocka_unit_test(random_templates),
        cmocka_unit_test(shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
