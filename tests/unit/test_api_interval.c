/* --stream-interval: steps that share an event (api.md 2.9.3, 6.3): which do, and that nothing else changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "tests/support/api_fixture.h"

static int setup(void **state) {
    struct api_fixture *f = xcalloc(1, sizeof *f);
    struct err e = {0};
    api_fixture_init(f);
    *state = f;
    return api_fixture_open(f, &e) ? -1 : 0;
}

static int teardown(void **state) {
    api_fixture_fini(*state);
    free(*state);
    return 0;
}

static const struct gen_finish LENGTH = {.reason = GEN_LENGTH}, STOP = {.reason = GEN_STOP},
                               ABORT = {.reason = GEN_ABORT};

static struct gen_run *start(struct api_fixture *f, int64_t interval, enum gen_route route, const char *body) {
    struct gen_req *r = NULL;
    struct err e = {0};
    f->opts.stream_interval = interval;
    if (gen_prepare(&f->env, route, str_of(body), STR_LIT("x"), &r, &e))
        fail_msg("%s: %s", body, e.msg);
    r->created_unix_s = 7;
    return gen_run_new(r);
}

/* step: of choice 0, with an alternative beside the token. */
static enum gen_action step(struct gen_run *g, uint32_t choice, uint32_t id, const struct gen_finish *finish,
                            struct buf *sse) {
    const uint32_t ids[] = {id, 'z'};
    const float values[] = {-0.25f, -2};
    struct gen_token t = {.id = id, .logprob = -0.25f, .rank = 1, .top_ids = ids, .top_logprobs = values, .n_top = 2};
    return gen_on_step(g, choice, &t, finish, sse);
}

/* texts: what the events since the last look show, a '|' behind each: the text of completions, or the delta. */
static void texts(struct buf *sse, const char *want) {
    struct buf got = {0};
    char *all = buf_take(sse), *save = NULL;
    for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *v = json_loads(line + strlen("data: "), 0, NULL), *choice;
        if (!v) /* [DONE] */
            continue;
        choice = json_array_get(json_object_get(v, "choices"), 0);
        const json_t *delta = json_object_get(choice, "delta"), *text = json_object_get(choice, "text");
        if (!text)
            text = json_object_get(delta, "content");
        buf_addz(&got, json_is_string(text) ? json_string_value(text) : "");
        if (json_is_string(json_object_get(choice, "finish_reason")))
            buf_addz(&got, "!");
        buf_addc(&got, '|');
        json_decref(v);
    }
    assert_string_equal(buf_cstr(&got), want);
    buf_fini(&got);
    free(all);
}

static void test_first_and_last(void **state) {
    static const struct {
        int64_t interval;
        const char *text, *want; /* every character a step; '!' stands behind the last event */
    } rows[] = {
        {1, "abc", "a|b|c!|"},
        {3, "abcdefg", "a|bcd|efg!|"},
        {3, "abcdefgh", "a|bcd|efg|h!|"},
        {3, "ab", "a|b!|"},
        {3, "a", "a!|"},
        {1000000000, "abcdefgh", "a|bcdefgh!|"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf sse = {0};
        struct gen_run *g = start(*state, rows[i].interval, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"stream\":true}");
        for (const char *p = rows[i].text; *p; p++)
            step(g, 0, (unsigned char)*p, p[1] ? NULL : &LENGTH, &sse);
        texts(&sse, rows[i].want);
        gen_run_free(g);
    }
}

/* Each choice counts its own steps; half a character and a held stop string count as the steps they are. */
static void test_choices(void **state) {
    struct buf sse = {0};
    struct gen_run *g = start(*state, 2, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"n\":2,\"stream\":true,\"stop\":\"xy\"}");
    step(g, 0, 'a', NULL, &sse);
    step(g, 1, 'A', NULL, &sse);
    texts(&sse, "a|A|");
    step(g, 0, 'b', NULL, &sse);
    step(g, 1, 'B', NULL, &sse);
    assert_int_equal(sse.len, 0);
    step(g, 0, 0xC3, NULL, &sse); /* the event is due, and the character not whole */
    texts(&sse, "b|");
    step(g, 0, 0xA9, NULL, &sse);
    step(g, 0, 'x', NULL, &sse);
    texts(&sse, "\xC3\xA9|");
    assert_int_equal(step(g, 0, 'y', NULL, &sse), GEN_CUT); /* a stop string ends it: at once */
    texts(&sse, "!|");
    gen_on_step(g, 1, NULL, &ABORT, &sse); /* and so does an end without a token */
    texts(&sse, "B!|");
    assert_true(gen_run_done(g));
    gen_run_free(g);
}

static void test_chat(void **state) {
    struct buf sse = {0};
    struct gen_run *g = start(*state, 3, GEN_CHAT,
                              "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"stream\":true,\"logprobs\":true,"
                              "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}");
    step(g, 0, 'a', NULL, &sse);
    texts(&sse, "|a|"); /* the role, and the first step */
    for (const char *p = "bcd"; *p; p++)
        step(g, 0, (unsigned char)*p, NULL, &sse);
    assert_non_null(strstr(buf_cstr(&sse), "\"completion_tokens\":4,"));
    json_t *v = json_loads(buf_cstr(&sse) + strlen("data: "), JSON_DISABLE_EOF_CHECK, NULL);
    const json_t *lp = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "logprobs");
    assert_int_equal(json_array_size(json_object_get(lp, "content")), 3);
    json_decref(v);
    texts(&sse, "bcd|");
    step(g, 0, FIX_EOS, &STOP, &sse);
    texts(&sse, "!|");
    gen_run_free(g);
}

/* Entries of the whole vocabulary do not pile up until the interval is over. */
static void test_much_does_not_wait(void **state) {
    enum { STEPS = 4096 };
    struct buf sse = {0};
    struct api_fixture *f = *state;
    size_t n_events = 0, bytes_max = 0;
    f->m->facts.max_model_len = 2 * STEPS;
    struct gen_run *g = start(f, 1000000, GEN_COMPLETIONS,
                              "{\"prompt\":\"q\",\"stream\":true,\"logprobs\":20,\"max_tokens\":5000}");
    f->m->facts.max_model_len = FIX_CONTEXT;
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t ids[20];
        float values[20];
        for (uint32_t k = 0; k < 20; k++) {
            ids[k] = 'A' + k;
            values[k] = -(float)(k + 1);
        }
        struct gen_token t = {.id = 'A', .logprob = -1, .rank = 1, .top_ids = ids, .top_logprobs = values, .n_top = 20};
        gen_on_step(g, 0, &t, i + 1 == STEPS ? &LENGTH : NULL, &sse);
        n_events += sse.len > 0;
        bytes_max = MAX(bytes_max, sse.len);
        sse.len = 0;
    }
    assert_true(n_events > 1 && n_events < 8);
    assert_true(bytes_max < 2 * MIB);
    buf_fini(&sse);
    gen_run_free(g);
}

/* ---- nothing else changes ----------------------------------------------------------------------------- */

/* all: of a stream, joined: the text, the columns of its log-probabilities, its last usage. */
struct all {
    struct buf text, usage;
    json_t *columns[4];
    size_t n_events;
};
static const char *const column_names[4] = {"text_offset", "token_logprobs", "tokens", "top_logprobs"};

static struct all join(struct buf *sse) {
    struct all a = {.n_events = 0};
    char *events = buf_take(sse), *save = NULL;
    for (size_t k = 0; k < 4; k++)
        a.columns[k] = json_array();
    for (char *line = strtok_r(events, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *v = json_loads(line + strlen("data: "), 0, NULL);
        if (!v)
            continue;
        json_t *choice = json_array_get(json_object_get(v, "choices"), 0), *text = json_object_get(choice, "text");
        json_t *usage = json_object_get(v, "usage");
        a.n_events += choice != NULL;
        buf_add(&a.text, json_string_value(text), json_string_length(text));
        for (size_t k = 0; k < 4; k++)
            json_array_extend(a.columns[k], json_object_get(json_object_get(choice, "logprobs"), column_names[k]));
        if (usage) {
            char *z = json_dumps(usage, 0);
            a.usage.len = 0;
            buf_addz(&a.usage, z);
            free(z);
        }
        json_decref(v);
    }
    free(events);
    return a;
}

static void all_fini(struct all *a) {
    buf_fini(&a->text);
    buf_fini(&a->usage);
    for (size_t k = 0; k < 4; k++)
        json_decref(a->columns[k]);
}

static void test_equal_when_joined(void **state) {
    static const int64_t intervals[] = {2, 3, 7, 1000};
    static const uint32_t alphabet[] = {'a', 'b', 'a', 0xC3, 0xA9, 0xE2, 0x82, FIX_BEGIN, FIX_THINK, 271};
    static const char body[] = "{\"prompt\":\"q\",\"stop\":[\"aba\",\"\xC3\xA9\"],\"min_tokens\":3,\"max_tokens\":50,"
                               "\"stream\":true,\"logprobs\":2,\"echo\":%s,\"stream_options\":{\"include_usage\":true}}";
    uint64_t seed = 7;
    for (int round = 0; round < 200; round++) {
        uint32_t ids[40];
        char text[sizeof body + 8];
        struct all want = {.n_events = 0};
        snprintf(text, sizeof text, body, round % 2 ? "true" : "false");
        for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            ids[i] = alphabet[(seed >> 33) % ARRAY_LEN(alphabet)];
        }
        for (size_t k = 0; k <= ARRAY_LEN(intervals); k++) {
            struct gen_run *g = start(*state, k ? intervals[k - 1] : 1, GEN_COMPLETIONS, text);
            struct buf sse = {0};
            struct err e = {0};
            struct gen_prompt_row rows[2] = {{.rank = 0}, {.logprob = -1, .rank = 3}};
            if (round % 2)
                assert_int_equal(gen_on_prompt(g, 0, rows, 2, &e), RC_OK);
            for (size_t i = 0; i < ARRAY_LEN(ids) && !gen_run_done(g); i++)
                step(g, 0, ids[i], i + 1 == ARRAY_LEN(ids) ? &LENGTH : NULL, &sse);
            assert_int_equal(gen_on_end(g, &sse, &e), RC_OK);
            size_t n_tokens = gen_run_counts(g).completion_tokens;
            struct all got = join(&sse);
            gen_run_free(g);
            if (k == 0) {
                assert_int_equal(got.n_events, n_tokens);
                want = got;
                continue;
            }
            size_t n = (size_t)intervals[k - 1];
            assert_int_equal(got.n_events, 1 + (n_tokens - 1 + n - 1) / n);
            assert_string_equal(buf_cstr(&got.text), buf_cstr(&want.text));
            assert_string_equal(buf_cstr(&got.usage), buf_cstr(&want.usage));
            for (size_t c = 0; c < 4; c++)
                assert_true(json_equal(got.columns[c], want.columns[c]));
            assert_int_equal(json_array_size(got.columns[2]), n_tokens + (round % 2 ? 2 : 0));
            all_fini(&got);
        }
        all_fini(&want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_and_last),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_much_does_not_wait),
        cmocka_unit_test(test_equal_when_joined),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
