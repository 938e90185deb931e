/* Echo, the prompt's log-probabilities, best_of, beams, banned words, truncation and logits processors: bodies in,
 * the wire, scripted outputs, and events and bodies out, to the letter. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/gram.h"
#include "router/api/processors.h"
#include "tests/support/api_fixture.h"

static int setup(void **state) {
    struct api_fixture *f = xcalloc(1, sizeof *f);
    struct err e = {0};
    api_fixture_init(f);
    *state = f;
    if (processor_names_new(&f->env.processor_names, "my\\.[a-z]+", &e))
        return -1;
    return api_fixture_open(f, &e) ? -1 : 0;
}

static int teardown(void **state) {
    struct api_fixture *f = *state;
    gram_drop(f->env.processor_names);
    api_fixture_fini(f);
    free(f);
    return 0;
}

static struct gen_req *prepare(struct api_fixture *f, enum gen_route route, const char *body) {
    struct gen_req *r = NULL;
    struct err e = {0};
    if (gen_prepare(&f->env, route, str_of(body), STR_LIT("x"), &r, &e))
        fail_msg("%s: %s (%s)", body, e.msg, e.param);
    r->created_unix_s = 7;
    snprintf(r->model->fingerprint, sizeof r->model->fingerprint, "weir-fp");
    return r;
}

static void refuse(struct api_fixture *f, const char *body, const char *param, const char *says) {
    struct gen_req *r = NULL;
    struct err e = {0};
    assert_int_equal(gen_prepare(&f->env, GEN_COMPLETIONS, str_of(body), (struct str){0}, &r, &e), RC_INVALID);
    assert_string_equal(e.param, param);
    if (!strstr(e.msg, says))
        fail_msg("%s: %s", body, e.msg);
}

/* ---- the wire ---------------------------------------------------------------------------------------- */

static void test_bans(void **state) {
    struct gen_submit s;
    struct gen_req *r = prepare(*state, GEN_COMPLETIONS,
                                "{\"prompt\":\"a\",\"bad_words\":[\"AB\",\"x\",\" y\"],\"allowed_token_ids\":[7,3,7]}");
    gen_submit(r, 0, &s);
    /* Each as given; with a space in front it has a token more, so that form is not kept. */
    assert_int_equal(s.sampling.n_bad_words, 3);
    assert_int_equal(s.sampling.bad_words[0]->n_tokens, 2);
    assert_int_equal(s.sampling.bad_words[0]->tokens[1], 'B');
    assert_int_equal(s.sampling.bad_words[2]->tokens[0], ' ');
    assert_int_equal(s.sampling.n_allowed_ids, 3);
    assert_int_equal(s.sampling.allowed_ids[1], 3);
    gen_req_free(r);
}

static void test_truncation(void **state) {
    static const struct {
        const char *fields;
        uint32_t n, ids[6];
    } rows[] = {
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":3", 3, {FIX_BOS, 'c', 'd'}},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":3,\"truncation_side\":\"right\"", 3, {FIX_BOS, 'a', 'b'}},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":1", 1, {'d'}}, /* no room beside the special token */
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":3,\"add_special_tokens\":false", 3, {'b', 'c', 'd'}},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":100", 5, {FIX_BOS, 'a', 'b', 'c', 'd'}},
        {"\"prompt\":[256,97,98,99],\"truncate_prompt_tokens\":2", 2, {'b', 'c'}},
        {"\"prompt\":[256,97,98,99],\"truncate_prompt_tokens\":2,\"truncation_side\":\"right\"", 2, {FIX_BOS, 'a'}},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":-1,\"max_tokens\":125", 3, {FIX_BOS, 'c', 'd'}},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":-1,\"max_tokens\":123", 5, {FIX_BOS, 'a', 'b', 'c', 'd'}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char body[200];
        snprintf(body, sizeof body, "{%s}", rows[i].fields);
        struct gen_req *r = prepare(*state, GEN_COMPLETIONS, body);
        assert_int_equal(r->prompts[0].n_ids, rows[i].n);
        assert_memory_equal(r->prompts[0].ids, rows[i].ids, rows[i].n * sizeof(uint32_t));
        gen_req_free(r);
    }
}

static void test_samples(void **state) {
    struct gen_submit s;
    struct gen_req *r = prepare(*state, GEN_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"best_of\":5}");
    gen_submit(r, 1, &s);
    assert_int_equal(s.sampling.n_samples, 5);
    assert_true(s.sampling.want_sum_logprob && !s.sampling.beam_width);
    assert_int_equal(s.sampling.n_logprobs, -1);
    gen_req_free(r);
    r = prepare(*state, GEN_COMPLETIONS,
                "{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"use_beam_search\":true,\"temperature\":0,"
                "\"length_penalty\":0.5,\"top_k\":5,\"repetition_penalty\":1}");
    gen_submit(r, 0, &s);
    assert_true(s.sampling.n_samples == 3 && s.sampling.beam_width == 3 && s.sampling.length_penalty == 0.5f);
    assert_true(!s.sampling.want_sum_logprob && s.sampling.temperature == 0 && s.sampling.repetition_penalty == 1);
    gen_req_free(r);
    refuse(*state, "{\"prompt\":\"a\",\"use_beam_search\":true,\"n\":2,\"logits_processors\":[\"my.x\"]}",
           "logits_processors", "use_beam_search");
    refuse(*state, "{\"prompt\":[\"a\",\"b\"],\"best_of\":100,\"n\":1,\"max_tokens\":0,\"echo\":false}", "max_tokens",
           "greater_than_equal 1");
}

static void test_processors(void **state) {
    struct gen_submit s;
    struct gen_req *r = prepare(*state, GEN_CHAT,
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"logits_processors\":[\"my.a\","
                                "{\"qualname\":\"my.b\",\"args\":[1,\"x\"],\"kwargs\":{\"k\":null}},"
                                "{\"qualname\":\"my.c\",\"args\":null}],\"vllm_xargs\":{\"t\":0.5,\"l\":[1,\"z\"]}}");
    gen_submit(r, 0, &s);
    assert_int_equal(s.sampling.n_processors, 3);
    assert_string_equal(s.sampling.processors[0]->name, "my.a");
    assert_null(s.sampling.processors[0]->args_json);
    assert_string_equal(s.sampling.processors[1]->args_json, "[1,\"x\"]");
    assert_string_equal(s.sampling.processors[1]->kwargs_json, "{\"k\":null}");
    assert_null(s.sampling.processors[2]->args_json);
    assert_string_equal(s.sampling.xargs_json, "{\"t\":0.5,\"l\":[1,\"z\"]}");
    gen_req_free(r);
    r = prepare(*state, GEN_COMPLETIONS, "{\"prompt\":\"a\",\"logits_processors\":[],\"vllm_xargs\":{\"t\":1}}");
    gen_submit(r, 0, &s);
    assert_true(s.sampling.n_processors == 0 && !s.sampling.xargs_json);
    gen_req_free(r);
#define ONE(item) "{\"prompt\":\"a\",\"logits_processors\":[" item "]}"
    refuse(*state, ONE("\"your.a\""), "logits_processors.0", "not allowed by --logits-processor-pattern");
    refuse(*state, ONE("\"my.a1\""), "logits_processors.0", "not allowed"); /* the whole name must match */
    refuse(*state, ONE("\"my.a\",\"xmy.a\""), "logits_processors.1", "not allowed");
    refuse(*state, ONE("null"), "logits_processors.0", "string");
    refuse(*state, ONE("{}"), "logits_processors.0.qualname", "string");
    refuse(*state, ONE("{\"qualname\":\"my.a\",\"arg\":[]}"), "logits_processors.0", "no other members");
    refuse(*state, ONE("{\"qualname\":\"my.a\",\"args\":{}}"), "logits_processors.0.args", "list");
    refuse(*state, ONE("{\"qualname\":\"my.a\",\"kwargs\":[]}"), "logits_processors.0.kwargs", "object");
}

/* ---- outputs ----------------------------------------------------------------------------------------- */

struct play {
    struct gen_run *g;
    struct buf sse;
};

static struct play play(void **state, enum gen_route route, const char *body) {
    return (struct play){.g = gen_run_new(prepare(*state, route, body))};
}

static void expect(struct play *p, const char *want) {
    assert_string_equal(buf_cstr(&p->sse), want);
    p->sse.len = 0;
}

static void end(struct play *p, const char *want) {
    struct err e = {0};
    assert_true(gen_run_done(p->g));
    assert_int_equal(gen_on_end(p->g, &p->sse, &e), RC_OK);
    expect(p, want);
    gen_run_free(p->g);
    buf_fini(&p->sse);
}

static void tok(struct play *p, uint32_t choice, uint32_t id, float logprob, const struct gen_finish *finish) {
    uint32_t top = id + 1;
    float value = -0.25f;
    struct gen_token t = {.id = id, .logprob = logprob, .raw_logprob = logprob, .rank = 1};
    t.top_ids = &top;
    t.top_logprobs = &value;
    t.n_top = gen_run_req(p->g)->logprobs && gen_run_req(p->g)->n_top ? 1 : 0;
    assert_int_equal(gen_on_step(p->g, choice, &t, finish, &p->sse), GEN_CONTINUE);
}

/* rows: of the whole prompt: rank 2, and the token before in the alphabet as the best one. */
static void rows(struct play *p, uint32_t prompt) {
    const struct gen_req *r = gen_run_req(p->g);
    struct err e = {0};
    for (uint32_t i = 0; i < r->prompts[prompt].n_ids; i++) {
        uint32_t best = r->prompts[prompt].ids[i] - 1;
        float value = -0.125f;
        struct gen_prompt_row row = {.rank = i ? 2 : 0, .logprob = -2, .top_ids = &best, .top_logprobs = &value};
        row.n_top = i ? 1 : 0;
        assert_false(gen_prompt_known(p->g, prompt));
        assert_int_equal(gen_on_prompt(p->g, prompt, &row, 1, &e), RC_OK);
    }
    assert_true(gen_prompt_known(p->g, prompt));
}

static const struct gen_finish LENGTH = {.reason = GEN_LENGTH}, STOP = {.reason = GEN_STOP},
                               STOP_ID = {.reason = GEN_STOP, .has_stop_id = true, .stop_id = FIX_EOS};

#define CH                                                                                                   \
    "data: {\"id\":\"cmpl-x\",\"object\":\"text_completion\",\"created\":7,\"model\":\"tiny\",\"choices\":["
#define BODY                                                                                                 \
    "{\"id\":\"cmpl-x\",\"object\":\"text_completion\",\"created\":7,\"model\":\"tiny\",\"choices\":["
#define FP ",\"system_fingerprint\":\"weir-fp\""
#define TAIL(p, c, t)                                                                                        \
    "],\"service_tier\":null" FP ",\"usage\":{\"prompt_tokens\":" #p ",\"completion_tokens\":" #c            \
    ",\"total_tokens\":" #t                                                                                  \
    ",\"prompt_tokens_details\":null,\"completion_tokens_details\":null},\"kv_transfer_params\":null}"
#define DONE "data: [DONE]\n\n"
#define LP_AB                                                                                                \
    "\"text_offset\":[0,0,1],\"token_logprobs\":[null,-2.0,-2.0],\"tokens\":[\"<s>\",\"a\",\"b\"],"           \
    "\"top_logprobs\":[null,{\"`\":-0.125,\"a\":-2.0},{\"a\":-0.125,\"b\":-2.0}]"
#define LIST_AB                                                                                              \
    "[null,{\"96\":{\"logprob\":-0.125,\"rank\":1,\"decoded_token\":\"`\"},"                                 \
    "\"97\":{\"logprob\":-2.0,\"rank\":2,\"decoded_token\":\"a\"}},"                                         \
    "{\"97\":{\"logprob\":-0.125,\"rank\":1,\"decoded_token\":\"a\"},"                                       \
    "\"98\":{\"logprob\":-2.0,\"rank\":2,\"decoded_token\":\"b\"}}]"

static void test_echo_alone(void **state) {
    static const char body[] = "{\"prompt\":\"ab\",\"echo\":true,\"max_tokens\":0,\"logprobs\":1%s}";
    char text[128];
    snprintf(text, sizeof text, body, "");
    struct play p = play(state, GEN_COMPLETIONS, text);
    rows(&p, 0);
    assert_int_equal(gen_on_step(p.g, 0, NULL, &LENGTH, NULL), GEN_CONTINUE);
    end(&p, BODY "{\"index\":0,\"text\":\"ab\",\"logprobs\":{" LP_AB "},\"finish_reason\":\"length\","
                 "\"stop_reason\":null,\"prompt_logprobs\":" LIST_AB "}" TAIL(3, 0, 3));
    snprintf(text, sizeof text, body, ",\"stream\":true");
    p = play(state, GEN_COMPLETIONS, text);
    rows(&p, 0);
    assert_int_equal(gen_on_step(p.g, 0, NULL, &LENGTH, &p.sse), GEN_CONTINUE);
    expect(&p, CH "{\"index\":0,\"text\":\"ab\",\"logprobs\":{" LP_AB "},\"finish_reason\":\"length\","
                  "\"stop_reason\":null}]" FP "}\n\n");
    end(&p, DONE);
}

/* The first event of each choice holds the prompt and the first delta, with their arrays joined. */
static void test_echo_stream(void **state) {
    struct play p = play(state, GEN_COMPLETIONS,
                         "{\"prompt\":\"ab\",\"echo\":true,\"logprobs\":1,\"n\":2,\"stream\":true}");
    rows(&p, 0);
    tok(&p, 1, 'c', -1, NULL);
    expect(&p, CH "{\"index\":1,\"text\":\"abc\",\"logprobs\":{\"text_offset\":[0,0,1,2],\"token_logprobs\":[null,-2.0,"
                  "-2.0,-1.0],\"tokens\":[\"<s>\",\"a\",\"b\",\"c\"],\"top_logprobs\":[null,{\"`\":-0.125,\"a\":-2.0},"
                  "{\"a\":-0.125,\"b\":-2.0},{\"d\":-0.25,\"c\":-1.0}]},\"finish_reason\":null,\"stop_reason\":null}]"
                  "}\n\n");
    tok(&p, 1, 'd', -1, &LENGTH);
    expect(&p, CH "{\"index\":1,\"text\":\"d\",\"logprobs\":{\"text_offset\":[3],\"token_logprobs\":[-1.0],"
                  "\"tokens\":[\"d\"],\"top_logprobs\":[{\"e\":-0.25,\"d\":-1.0}]},\"finish_reason\":\"length\","
                  "\"stop_reason\":null}]" FP "}\n\n");
    tok(&p, 0, FIX_EOS, -1, &STOP);
    expect(&p, CH "{\"index\":0,\"text\":\"ab\",\"logprobs\":{\"text_offset\":[0,0,1,2],\"token_logprobs\":[null,-2.0,"
                  "-2.0,-1.0],\"tokens\":[\"<s>\",\"a\",\"b\",\"</s>\"],\"top_logprobs\":[null,{\"`\":-0.125,\"a\":-2.0},"
                  "{\"a\":-0.125,\"b\":-2.0},{\"<|im_start|>\":-0.25,\"</s>\":-1.0}]},\"finish_reason\":\"stop\","
                  "\"stop_reason\":null}]" FP "}\n\n");
    end(&p, DONE);
}

static void test_echo_forms(void **state) {
    static const struct {
        const char *fields, *echo;
        uint32_t n_front;
    } rows_of[] = {
        {"\"prompt\":\"a\\u00e9\"", "a\xc3\xa9", 1},
        {"\"prompt\":[256,97]", "<s>a", 0},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":3", "<s>cd", 0},
        {"\"prompt\":\"abcd\",\"truncate_prompt_tokens\":9", "abcd", 1},
        {"\"prompt\":\"ab\",\"add_special_tokens\":false", "ab", 0},
        {"\"prompt\":[97,195]", "a\xef\xbf\xbd", 0}, /* half a character */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows_of); i++) {
        char body[160];
        snprintf(body, sizeof body, "{%s,\"echo\":true}", rows_of[i].fields);
        struct gen_req *r = prepare(*state, GEN_COMPLETIONS, body);
        assert_true(str_eqz(r->prompts[0].echo, rows_of[i].echo));
        assert_int_equal(r->prompts[0].n_front, rows_of[i].n_front);
        assert_int_equal(r->n_prompt_top, -1);
        gen_req_free(r);
    }
    /* A prompt that fills the context can be echoed alone. */
    char full[FIX_CONTEXT * 2 + 64], *at = full + sprintf(full, "{\"prompt\":[1");
    for (int i = 1; i < FIX_CONTEXT; i++)
        at += sprintf(at, ",1");
    sprintf(at, "],\"echo\":true}");
    refuse(*state, full, "prompt", "maximum context length");
    sprintf(at, "],\"echo\":true,\"max_tokens\":0}");
    gen_req_free(prepare(*state, GEN_COMPLETIONS, full));
    struct api_fixture *f = *state;
    f->opts.limit.body_bytes = 11;
    refuse(f, "{\"prompt\":\"abcd\",\"echo\":true,\"n\":3}", "echo", "12 bytes, must be less_than_equal 11");
}

static void test_chat_echo(void **state) {
#define TALK(role) "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"" role "\",\"content\":[{\"type\":" \
                   "\"text\",\"text\":\"I\"},\"am\"]}],\"echo\":true,\"stream\":true}"
#define HH                                                                                                   \
    "data: {\"id\":\"chatcmpl-x\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"tiny\","     \
    "\"choices\":["
#define ROLE                                                                                                 \
    HH "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}" \
       "\n\n"
#define LAST HH "{\"index\":0,\"delta\":{\"content\":\"!\"},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}]" FP "}\n\n"
    struct play p = play(state, GEN_CHAT, TALK("assistant"));
    tok(&p, 0, '!', -1, &LENGTH);
    expect(&p, ROLE HH "{\"index\":0,\"delta\":{\"content\":\"I\\nam\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n" LAST);
    end(&p, DONE);
    p = play(state, GEN_CHAT, TALK("system")); /* of another role */
    tok(&p, 0, '!', -1, &LENGTH);
    expect(&p, ROLE LAST);
    end(&p, DONE);
}

static void test_ids_as_tokens(void **state) {
    struct play p = play(state, GEN_COMPLETIONS,
                         "{\"prompt\":[97,98],\"prompt_logprobs\":1,\"return_tokens_as_token_ids\":true,\"max_tokens\":1}");
    rows(&p, 0);
    tok(&p, 0, 'c', -1, &LENGTH);
    end(&p, BODY "{\"index\":0,\"text\":\"c\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,"
                 "\"prompt_logprobs\":[null,{\"token_id:97\":{\"logprob\":-0.125,\"rank\":1,\"decoded_token\":"
                 "\"token_id:97\"},\"token_id:98\":{\"logprob\":-2.0,\"rank\":2,\"decoded_token\":\"token_id:98\"}}]}" TAIL(
                     2, 1, 3));
}

#define CHOICE(i, text, reason, stop)                                                                        \
    "{\"index\":" #i ",\"text\":\"" text "\",\"logprobs\":null,\"finish_reason\":\"" reason                  \
    "\",\"stop_reason\":" stop ",\"prompt_logprobs\":null}"

/* The n with the largest sums, best first; of equal ones the lower sample. All tokens count in usage. */
static void test_best_of(void **state) {
    struct play p = play(state, GEN_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"best_of\":4,\"stop\":\"Z\"}");
    static const float sums[8] = {-3, -1, -2, -1, -5, -9, -8, -5.5f};
    for (uint32_t i = 0; i < 8; i++) {
        tok(&p, i, '0' + i, sums[i] / 2, NULL);
        tok(&p, i, FIX_EOS, sums[i] / 2, &STOP);
    }
    end(&p, BODY CHOICE(0, "1", "stop", "null") "," CHOICE(1, "3", "stop", "null") "," CHOICE(
                2, "4", "stop", "null") "," CHOICE(3, "7", "stop", "null") TAIL(4, 16, 20));
}

/* Hypotheses come best first; the end token is of none of them, unless it is to be shown. */
static void test_beams(void **state) {
    static const char body[] = "{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"use_beam_search\":true%s}";
    for (int shown = 0; shown < 2; shown++) {
        char text[160];
        snprintf(text, sizeof text, body,
                 shown ? ",\"include_stop_str_in_output\":true,\"skip_special_tokens\":false" : "");
        struct play p = play(state, GEN_COMPLETIONS, text);
        for (uint32_t i = 0; i < 3; i++)
            tok(&p, i, 'x' + i, -1, NULL);
        tok(&p, 0, FIX_EOS, -1, &STOP_ID);
        tok(&p, 1, 'y', -1, &LENGTH);
        tok(&p, 2, FIX_EOS, -1, &STOP_ID);
        if (shown)
            end(&p, BODY CHOICE(0, "x</s>", "stop", "257") "," CHOICE(1, "yy", "length", "null") TAIL(2, 6, 8));
        else
            end(&p, BODY CHOICE(0, "x", "stop", "257") "," CHOICE(1, "yy", "length", "null") TAIL(2, 4, 6));
    }
}

/* What a worker must not say of a prompt. */
static void test_bad_rows(void **state) {
    struct gen_prompt_row row = {.rank = 1, .logprob = -1};
    struct err e;
    struct play p = play(state, GEN_COMPLETIONS, "{\"prompt\":[97,98],\"prompt_logprobs\":0}");
    assert_int_equal(gen_on_prompt(p.g, 0, &row, 1, &e), RC_INTERNAL); /* the first has no rank */
    row.rank = 0;
    assert_int_equal(gen_on_prompt(p.g, 0, &row, 1, &e), RC_OK);
    row = (struct gen_prompt_row){.rank = 1, .logprob = NAN};
    assert_int_equal(gen_on_prompt(p.g, 0, &row, 1, &e), RC_INTERNAL);
    row.logprob = -1;
    assert_int_equal(gen_on_prompt(p.g, 0, &row, 1, &e), RC_OK);
    assert_int_equal(gen_on_prompt(p.g, 0, &row, 1, &e), RC_INTERNAL); /* more than there are */
    gen_run_free(p.g);
    p = play(state, GEN_COMPLETIONS, "{\"prompt\":\"a\"}");
    assert_int_equal(gen_on_prompt(p.g, 0, &row, 1, &e), RC_INTERNAL); /* nobody asked */
    gen_run_free(p.g);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_bans),       T(test_truncation),  T(test_samples),    T(test_processors),
                                       T(test_echo_alone), T(test_echo_stream), T(test_echo_forms), T(test_chat_echo),
                                       T(test_ids_as_tokens), T(test_best_of),  T(test_beams),      T(test_bad_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
