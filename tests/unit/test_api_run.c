/* gen_run: scripted tokens in, events and bodies out, to the letter (api.md 6, 7.4, 7.5, 8.6, 8.7, 8.12). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
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

/* A run with the buffer that its events go to, and placeholders for what differs from run to run. */
struct play {
    struct gen_run *g;
    struct buf sse;
};

static struct play play(struct api_fixture *f, enum gen_route route, const char *body) {
    struct gen_req *r = NULL;
    struct err e = {0};
    if (gen_prepare(&f->env, route, str_of(body), STR_LIT("x"), &r, &e))
        fail_msg("%s: %s", body, e.msg);
    r->created_unix_s = 7;
    snprintf(r->model->fingerprint, sizeof r->model->fingerprint, "weir-fp");
    return (struct play){.g = gen_run_new(r)};
}

static void play_end(struct play *p) {
    gen_run_free(p->g);
    buf_fini(&p->sse);
}

/* tok: one token of a choice, with finish or without. */
static enum gen_action tok(struct play *p, uint32_t choice, uint32_t id, const struct gen_finish *finish) {
    struct gen_token t = {.id = id, .logprob = -0.5f};
    return gen_on_step(p->g, choice, &t, finish, &p->sse);
}

static void text(struct play *p, uint32_t choice, const char *z) {
    for (; *z; z++)
        assert_int_equal(tok(p, choice, (unsigned char)*z, NULL), GEN_CONTINUE);
}

static const struct gen_finish LENGTH = {.reason = GEN_LENGTH}, STOP = {.reason = GEN_STOP},
                               ABORT = {.reason = GEN_ABORT},
                               STOP_ID = {.reason = GEN_STOP, .has_stop_id = true, .stop_id = FIX_END};

/* expect: the events since the last look. */
static void expect(struct play *p, const char *want) {
    assert_string_equal(buf_cstr(&p->sse), want);
    p->sse.len = 0;
}

static void end(struct play *p, const char *want) {
    struct err e = {0};
    assert_true(gen_run_done(p->g));
    assert_int_equal(gen_on_end(p->g, &p->sse, &e), RC_OK);
    expect(p, want);
}

#define CH                                                                                                   \
    "data: {\"id\":\"cmpl-x\",\"object\":\"text_completion\",\"created\":7,\"model\":\"tiny\",\"choices\":["
#define HH                                                                                                   \
    "data: "                                                                                                 \
    "{\"id\":\"chatcmpl-x\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"tiny\","          \
    "\"choices\":["
#define FP ",\"system_fingerprint\":\"weir-fp\""
#define OPEN ",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define USAGE(p, c, t)                                                                                       \
    "\"usage\":{\"prompt_tokens\":" #p ",\"completion_tokens\":" #c ",\"total_tokens\":" #t                  \
    ",\"prompt_tokens_details\":null,\"completion_tokens_details\":null}"

static void test_completion_stream(void **state) {
    struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"ab\",\"stream\":true}");
    tok(&p, 0, 'H', NULL);
    expect(&p, CH "{\"index\":0,\"text\":\"H\"" OPEN);
    tok(&p, 0, 'i', &LENGTH);
    expect(
        &p, CH
        "{\"index\":0,\"text\":\"i\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}]" FP
        "}\n\n");
    end(&p, DONE);
    play_end(&p);
}

static void test_completion_stream_usage(void **state) {
    struct play p = play(
        *state, GEN_COMPLETIONS,
        "{\"prompt\":[\"a\",\"bc\"],\"n\":2,\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    tok(&p, 3, 'x', NULL);
    expect(&p, CH "{\"index\":3,\"text\":\"x\"" OPEN);
    for (uint32_t i = 0; i < 3; i++)
        tok(&p, i, 'y', &ABORT);
    assert_false(gen_run_done(p.g));
    p.sse.len = 0;
    tok(&p, 3, FIX_EOS, &STOP); /* its text is left out, its token counts */
    expect(&p, CH
           "{\"index\":3,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}]" FP
           "}\n\n");
    tok(&p, 3, 'z', NULL); /* after the finish: ignored */
    expect(&p, "");
    end(&p, CH "]" FP "," USAGE(5, 5, 10) "}\n\n" DONE);
    play_end(&p);
}

static void test_continuous_usage(void **state) {
    struct api_fixture *f = *state;
    f->opts.prompt_tokens_details = true;
    struct play p = play(f, GEN_COMPLETIONS,
                         "{\"prompt\":[\"a\",\"bc\"],\"stream\":true,"
                         "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}");
    gen_on_first(p.g, 1, &(struct gen_first){.cached_tokens = 2});
    tok(&p, 1, 'x', NULL);
    expect(
        &p, CH
        "{\"index\":1,\"text\":\"x\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}],"
        "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4,\"prompt_tokens_details\":"
        "{\"cached_tokens\":2},\"completion_tokens_details\":null}}\n\n");
    tok(&p, 1, 'x', &STOP);
    tok(&p, 0, 'x', &STOP);
    p.sse.len = 0;
    end(&p, CH "]" FP ",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,\"prompt_"
                      "tokens_details\":"
               "{\"cached_tokens\":2},\"completion_tokens_details\":null}}\n\n" DONE);
    play_end(&p);
}

static void test_completion_body(void **state) {
    struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"ab\",\"model\":\"tiny-alias\"}");
    text(&p, 0, "a\n\"");
    assert_int_equal(tok(&p, 0, FIX_END, &STOP_ID), GEN_CONTINUE);
    end(&p, "{\"id\":\"cmpl-x\",\"object\":\"text_completion\",\"created\":7,\"model\":\"tiny-alias\","
            "\"choices\":[{\"index\":0,"
            "\"text\":\"a\\n\\\"\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":259,\"prompt_"
            "logprobs\":null}],"
            "\"service_tier\":null,\"system_fingerprint\":\"weir-fp\"," USAGE(
                3, 4, 7) ",\"kv_transfer_params\":null}");
    struct gen_counts n = gen_run_counts(p.g);
    assert_int_equal(n.prompt_tokens, 3);
    assert_int_equal(n.completion_tokens, 4);
    play_end(&p);
}

#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]"

static void test_chat_stream(void **state) {
    struct play p = play(*state, GEN_CHAT, "{" CHAT ",\"n\":2,\"stream\":true}");
    tok(&p, 1, 'x', NULL); /* roles of all choices come first */
    expect(&p,
           HH "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_"
              "reason\":null}]}\n\n" HH "{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                                        "\"logprobs\":null,\"finish_reason\":null}]}\n\n" HH
              "{\"index\":1,\"delta\":{\"content\":\"x\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    tok(&p, 1, 'y', &LENGTH);
    expect(&p, HH "{\"index\":1,\"delta\":{\"content\":\"y\"},\"logprobs\":null,\"finish_reason\":\"length\","
                  "\"stop_reason\":null}]" FP "}\n\n");
    tok(&p, 0, FIX_EOS, &STOP);
    expect(&p, HH
           "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}]" FP
           "}\n\n");
    end(&p, DONE);
    play_end(&p);
}

static void test_chat_stream_usage(void **state) {
    struct play p =
        play(*state, GEN_CHAT,
             "{" CHAT
             ",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}");
    tok(&p, 0, 'x', &STOP_ID); /* a stop token's text is left out */
    expect(&p, HH "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                  "\"finish_reason\":null}]," USAGE(
                      21, 0, 21) "}\n\n" HH "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
                                            "\"stop\",\"stop_reason\":259}]" FP "," USAGE(21, 1, 22) "}\n\n");
    end(&p, HH "]" FP "," USAGE(21, 1, 22) "}\n\n" DONE);
    play_end(&p);
}

static void test_chat_body(void **state) {
    struct api_fixture *f = *state;
    f->opts.response_role = (char[]){"bot"};
    struct play p = play(f, GEN_CHAT, "{" CHAT "}");
    text(&p, 0, "hello");
    assert_int_equal(gen_on_step(p.g, 0, NULL, &ABORT, &p.sse), GEN_CONTINUE);
    end(&p, "{\"id\":\"chatcmpl-x\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"tiny\","
            "\"choices\":[{\"index\":0,"
            "\"message\":{\"role\":\"bot\",\"content\":\"hello\",\"refusal\":null,\"annotations\":null,"
            "\"audio\":null,"
            "\"function_call\":null,\"reasoning\":null,\"reasoning_content\":null},\"logprobs\":null,"
            "\"finish_reason\":\"abort\","
            "\"stop_reason\":null}],\"service_tier\":null,\"system_fingerprint\":\"weir-fp\"," USAGE(
                21, 5, 26) ",\"prompt_logprobs\":null,\"kv_transfer_params\":null}");
    play_end(&p);
}

/* ---- text -------------------------------------------------------------------------------------------- */

static void test_characters_are_whole(void **state) {
    struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"ab\",\"stream\":true}");
    tok(&p, 0, 0xE2, NULL);
    expect(&p, CH "{\"index\":0,\"text\":\"\"" OPEN); /* a step is an event, with empty text */
    tok(&p, 0, 0x82, NULL);
    expect(&p, CH "{\"index\":0,\"text\":\"\"" OPEN);
    tok(&p, 0, 0xAC, NULL);
    expect(&p, CH "{\"index\":0,\"text\":\"\xE2\x82\xAC\"" OPEN);
    tok(&p, 0, 0xE2, &LENGTH); /* never completed */
    expect(&p, CH "{\"index\":0,\"text\":\"\xEF\xBF\xBD\",\"logprobs\":null,\"finish_reason\":\"length\","
                  "\"stop_reason\":null}]" FP "}\n\n");
    play_end(&p);
}

static void test_special_tokens_in_text(void **state) {
    static const struct {
        const char *fields;
        uint32_t last;
        const char *want;
    } rows[] = {
        {"", FIX_EOS, "a"},
        {",\"skip_special_tokens\":false", FIX_EOS, "a<|im_start|>"},
        {",\"skip_special_tokens\":false,\"include_stop_str_in_output\":true", FIX_EOS, "a<|im_start|></s>"},
        {",\"include_stop_str_in_output\":true", FIX_EOS, "a"},
        {",\"include_stop_str_in_output\":true", 'z', "az"}, /* an ordinary token as stop token */
        {"", 'z', "a"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"prompt\":\"q\"%s}", rows[i].fields);
        struct play p = play(*state, GEN_COMPLETIONS, body);
        text(&p, 0, "a");
        tok(&p, 0, FIX_BEGIN, NULL);
        tok(&p, 0, rows[i].last, &STOP);
        struct err e = {0};
        assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_OK);
        json_t *v = NULL;
        assert_int_equal(json_parse(buf_str(&p.sse), &json_limits_default, &v, &e), RC_OK);
        json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
        assert_string_equal(json_string_value(json_object_get(choice, "text")), rows[i].want);
        json_decref(v);
        assert_int_equal(gen_run_counts(p.g).completion_tokens, 3);
        play_end(&p);
    }
}

static void test_stop_string(void **state) {
    struct play p =
        play(*state, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"stream\":true,\"stop\":[\"END\",\"XY\"]}");
    text(&p, 0, "aE");
    expect(&p,
           CH "{\"index\":0,\"text\":\"a\"" OPEN CH "{\"index\":0,\"text\":\"\"" OPEN); /* E may begin END */
    text(&p, 0, "xEN");
    expect(&p, CH "{\"index\":0,\"text\":\"Ex\"" OPEN CH "{\"index\":0,\"text\":\"\"" OPEN CH
                  "{\"index\":0,\"text\":\"\"" OPEN);
    assert_int_equal(tok(&p, 0, 'D', NULL), GEN_CUT);
    expect(
        &p, CH
        "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":\"END\"}]" FP
        "}\n\n");
    assert_true(gen_run_done(p.g));
    assert_int_equal(tok(&p, 0, 'D', &LENGTH),
                     GEN_CONTINUE); /* surplus of the worker: neither counted nor shown */
    assert_int_equal(gen_run_counts(p.g).completion_tokens, 6);
    end(&p, DONE);
    play_end(&p);

    p = play(*state, GEN_COMPLETIONS,
             "{\"prompt\":\"q\",\"stop\":\"XY\",\"include_stop_str_in_output\":true}");
    text(&p, 0, "aX");
    assert_int_equal(tok(&p, 0, 'Y', &LENGTH),
                     GEN_CONTINUE); /* the stop string wins, and nothing is left to abort */
    struct err e = {0};
    assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_OK);
    assert_non_null(
        strstr(buf_cstr(&p.sse),
               "\"text\":\"aXY\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":\"XY\""));
    play_end(&p);
}

static void test_held_text_comes_at_the_finish(void **state) {
    struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"stream\":true,\"stop\":\"END\"}");
    text(&p, 0, "EN");
    p.sse.len = 0;
    tok(&p, 0, FIX_EOS, &STOP);
    expect(
        &p, CH
        "{\"index\":0,\"text\":\"EN\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}]" FP
        "}\n\n");
    play_end(&p);
}

static void test_min_tokens_and_stop_strings(void **state) {
    struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"stop\":\"b\",\"min_tokens\":2}");
    text(&p, 0, "ab"); /* ends in the second token: does not count */
    text(&p, 0, "c");
    assert_int_equal(tok(&p, 0, 'b', NULL), GEN_CUT);
    struct err e = {0};
    assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_OK);
    assert_non_null(strstr(buf_cstr(&p.sse), "\"text\":\"abc\""));
    assert_int_equal(gen_run_counts(p.g).completion_tokens, 4);
    play_end(&p);
}

/* ---- log-probabilities ----------------------------------------------------------------------------------
 */

static enum gen_action top(struct play *p, uint32_t id, float logprob, const uint32_t *ids,
                           const float *values, uint32_t n, const struct gen_finish *finish) {
    struct gen_token t = {
        .id = id, .logprob = logprob, .rank = 1, .top_ids = ids, .top_logprobs = values, .n_top = n};
    return gen_on_step(p->g, 0, &t, finish, &p->sse);
}

static void test_completion_logprobs(void **state) {
    static const uint32_t ids[] = {'a', 'b'}, halves[] = {0xE2, 0xE3};
    static const float values[] = {-0.25f, -1.5f};
    struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"logprobs\":2,\"stream\":true}");
    top(&p, 'c', -0.1f, ids, values, 2, NULL); /* the sampled one is not among the best: N + 1 */
    expect(&p, CH "{\"index\":0,\"text\":\"c\",\"logprobs\":{\"text_offset\":[0],\"token_logprobs\":[-0.1],"
                  "\"tokens\":[\"c\"],"
                  "\"top_logprobs\":[{\"a\":-0.25,\"b\":-1.5,\"c\":-0.1}]},\"finish_reason\":null,\"stop_"
                  "reason\":null}]}\n\n");
    top(&p, 'a', -0.25f, ids, values, 2, NULL); /* it is: N */
    expect(&p, CH
           "{\"index\":0,\"text\":\"a\",\"logprobs\":{\"text_offset\":[1],\"token_logprobs\":[-0.25],"
           "\"tokens\":[\"a\"],"
           "\"top_logprobs\":[{\"a\":-0.25,\"b\":-1.5}]},\"finish_reason\":null,\"stop_reason\":null}]}\n\n");
    top(&p, 0xE2, -INFINITY, halves, values, 2, NULL); /* equal strings collapse to the best */
    expect(
        &p, CH
        "{\"index\":0,\"text\":\"\",\"logprobs\":{\"text_offset\":[2],\"token_logprobs\":[-9999.0],"
        "\"tokens\":[\"\xEF\xBF\xBD\"],\"top_logprobs\":[{\"\xEF\xBF\xBD\":-0.25}]},\"finish_reason\":null,"
        "\"stop_reason\":null}]}\n\n");
    top(&p, 0x82, -1, ids, values, 0, NULL);
    top(&p, 0xAC, -1, ids, values, 0, NULL);
    p.sse.len = 0;
    top(&p, FIX_EOS, -1, ids, values, 1, &STOP); /* a stop token has an entry; offsets count code points */
    expect(
        &p, CH
        "{\"index\":0,\"text\":\"\",\"logprobs\":{\"text_offset\":[3],\"token_logprobs\":[-1.0],\"tokens\":["
        "\"</s>\"],"
        "\"top_logprobs\":[{\"a\":-0.25,\"</s>\":-1.0}]},\"finish_reason\":\"stop\",\"stop_reason\":null}]" FP
        "}\n\n");
    play_end(&p);
}

static void test_completion_logprobs_body(void **state) {
    struct play p = play(*state, GEN_COMPLETIONS,
                         "{\"prompt\":\"q\",\"logprobs\":0,\"return_tokens_as_token_ids\":true}");
    top(&p, 'c', -0.1f, NULL, NULL, 0, NULL);
    top(&p, 'd', -2, NULL, NULL, 0, &LENGTH);
    struct err e = {0};
    assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_OK);
    assert_non_null(
        strstr(buf_cstr(&p.sse),
               "\"text\":\"cd\",\"logprobs\":{\"text_offset\":[0,1],\"token_logprobs\":[-0.1,-2.0],"
               "\"tokens\":[\"token_id:99\",\"token_id:100\"],\"top_logprobs\":[{\"token_id:99\":-0.1},"
               "{\"token_id:100\":-2.0}]},"));
    play_end(&p);
}

static void test_chat_logprobs(void **state) {
    static const uint32_t ids[] = {0xE2, 'b', 'c'};
    static const float values[] = {-0.25f, -1.5f, -3};
    struct play p = play(*state, GEN_CHAT, "{" CHAT ",\"logprobs\":true,\"top_logprobs\":2}");
    top(&p, 'z', -9, ids, values, 3, NULL); /* exactly K, though the worker sent more */
    top(&p, 'b', -1.5f, ids, values, 2, &LENGTH);
    struct err e = {0};
    assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_OK);
#define TOPS                                                                                                 \
    "\"top_logprobs\":[{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-0.25,\"bytes\":[226]},{\"token\":\"b\","     \
    "\"logprob\":-1.5,\"bytes\":[98]}]"
    assert_non_null(strstr(
        buf_cstr(&p.sse), "\"logprobs\":{\"content\":[{\"token\":\"z\",\"logprob\":-9.0,\"bytes\":[122]," TOPS
                          "},{\"token\":\"b\",\"logprob\":-1.5,\"bytes\":[98]," TOPS
                          "}],\"refusal\":null},\"finish_reason\":\"length\""));
    play_end(&p);
    p = play(*state, GEN_CHAT, "{" CHAT ",\"logprobs\":true,\"stream\":true}");
    top(&p, 'z', -9, ids, values, 0, NULL);
    assert_non_null(strstr(
        buf_cstr(&p.sse), "{\"content\":\"z\"},\"logprobs\":{\"content\":[{\"token\":\"z\",\"logprob\":-9.0,"
                          "\"bytes\":[122],\"top_logprobs\":[]}],\"refusal\":null},\"finish_reason\":null}"));
    p.sse.len = 0;
    gen_on_step(p.g, 0, NULL, &ABORT, &p.sse); /* no token, no entry */
    expect(&p, HH
           "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"abort\",\"stop_reason\":null}]" FP
           "}\n\n");
    play_end(&p);
}

static void test_nan_fails_the_request(void **state) {
    static const uint32_t ids[] = {'a'};
    static const float values[] = {NAN};
    for (int k = 0; k < 2; k++) {
        struct play p = play(*state, GEN_COMPLETIONS, "{\"prompt\":\"q\",\"logprobs\":1,\"n\":2}");
        assert_int_equal(k ? top(&p, 'a', -1, ids, values, 1, NULL) : top(&p, 'a', NAN, ids, values, 0, NULL),
                         GEN_FAILED);
        assert_true(gen_run_done(p.g));
        assert_int_equal(tok(&p, 1, 'a', NULL), GEN_CONTINUE);
        struct err e = {0};
        assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_INTERNAL);
        assert_int_equal(p.sse.len, 0);
        play_end(&p);
    }
}

/* Joined deltas of a stream equal the body's text, whatever the bytes and the stop strings. */
static void test_stream_equals_body(void **state) {
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        const char *bodies[] = {
            "{\"prompt\":\"q\",\"stop\":[\"aba\",\"\xC3\xA9\"],\"min_tokens\":3,\"max_tokens\":50,\"stream\":"
            "true}",
            "{\"prompt\":\"q\",\"stop\":[\"aba\",\"\xC3\xA9\"],\"min_tokens\":3,\"max_tokens\":50}"};
        uint32_t ids[40];
        static const uint32_t alphabet[] = {'a', 'b', 'a', 0xC3, 0xA9, 0xE2, 0x82, FIX_BEGIN, FIX_THINK, 271};
        for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            ids[i] = alphabet[(seed >> 33) % ARRAY_LEN(alphabet)];
        }
        struct buf joined[2] = {{0}, {0}};
        uint32_t n_tokens[2];
        for (int k = 0; k < 2; k++) {
            struct play p = play(*state, GEN_COMPLETIONS, bodies[k]);
            struct err e = {0};
            for (size_t i = 0; i < ARRAY_LEN(ids) && !gen_run_done(p.g); i++)
                tok(&p, 0, ids[i], i + 1 == ARRAY_LEN(ids) ? &LENGTH : NULL);
            assert_int_equal(gen_on_end(p.g, &p.sse, &e), RC_OK);
            char *all = buf_take(&p.sse), *save = NULL, *line = strtok_r(all, "\n", &save);
            for (; line; line = strtok_r(NULL, "\n", &save)) {
                if (!strcmp(line, "data: [DONE]"))
                    continue;
                json_t *v = NULL;
                assert_int_equal(json_parse(str_of(k ? line : line + 6), &json_limits_default, &v, &e),
                                 RC_OK);
                json_t *t = json_object_get(json_array_get(json_object_get(v, "choices"), 0), "text");
                buf_add(&joined[k], json_string_value(t), json_string_length(t));
                json_decref(v);
            }
            free(all);
            n_tokens[k] = gen_run_counts(p.g).completion_tokens;
            play_end(&p);
        }
        assert_int_equal(n_tokens[0], n_tokens[1]);
        assert_int_equal(joined[0].len, joined[1].len);
        assert_memory_equal(buf_cstr(&joined[0]), buf_cstr(&joined[1]), joined[0].len);
        buf_fini(&joined[0]);
        buf_fini(&joined[1]);
    }
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_completion_stream),
        T(test_completion_stream_usage),
        T(test_continuous_usage),
        T(test_completion_body),
        T(test_chat_stream),
        T(test_chat_stream_usage),
        T(test_chat_body),
        T(test_characters_are_whole),
        T(test_special_tokens_in_text),
        T(test_stop_string),
        T(test_held_text_comes_at_the_finish),
        T(test_min_tokens_and_stop_strings),
        T(test_completion_logprobs),
        T(test_completion_logprobs_body),
        T(test_chat_logprobs),
        T(test_nan_fails_the_request),
        T(test_stream_equals_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
