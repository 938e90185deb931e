/* gen_prepare: completions: bodies and what becomes of them. Chat has test_api_chat.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "router/api/error.h"
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

static enum rc prepare(struct api_fixture *f, const char *body, struct gen_req **r, struct err *e) {
    *e = (struct err){0};
    *r = NULL;
    return gen_prepare(&f->env, GEN_COMPLETIONS, str_of(body), (struct str){0}, r, e);
}

/* good: the request of a body that must be accepted; the caller frees it. */
static struct gen_req *good(struct api_fixture *f, const char *body) {
    struct gen_req *r;
    struct err e;
    if (prepare(f, body, &r, &e))
        fail_msg("%s: %s (%s)", body, e.msg, e.param);
    return r;
}

static void test_refusals(void **state) {
    struct api_fixture *f = *state;
    static const struct {
        const char *body;
        int status;
        const char *param, *says;
    } rows[] = {
        {"", 400, "", "JSON decode error"},
        {"nonsense", 400, "", "JSON decode error"},
        {"{\"prompt\":\"a\"} x", 400, "", "JSON decode error"},
        {"{\"prompt\":\"\\ud800\"}", 400, "", "JSON decode error"},
        {"{\"prompt\":\"\xff\"}", 400, "", "JSON decode error"},
        {"{\"prompt\":\"a\",\"x\":NaN}", 400, "", "JSON decode error"},
        {"null", 400, "", "object"},
        {"[]", 400, "", "object"},
        {"\"x\"", 400, "", "object"},
        {"1", 400, "", "object"},
        {"true", 400, "", "object"},
        /* model */
        {"{\"prompt\":\"a\",\"model\":\"gpt-9\"}", 404, "model", "does not exist"},
        {"{\"prompt\":\"a\",\"model\":\"../../etc/passwd\"}", 404, "model", "does not exist"},
        {"{\"prompt\":\"a\",\"model\":5}", 400, "model", "string"},
        /* a field's range comes before the model */
        {"{\"prompt\":\"a\",\"model\":\"gpt-9\",\"n\":0}", 400, "n", "greater_than_equal 1"},
        /* prompt */
        {"{}", 400, "prompt", "required"},
        {"{\"prompt\":null}", 400, "prompt", "required"},
        {"{\"prompt\":\"\"}", 400, "prompt", "decoder prompt cannot be empty"},
        {"{\"prompt\":[]}", 400, "prompt", "decoder prompt cannot be empty"},
        {"{\"prompt\":[[]]}", 400, "prompt.0", "decoder prompt cannot be empty"},
        {"{\"prompt\":[\"a\",\"\"]}", 400, "prompt.1", "decoder prompt cannot be empty"},
        {"{\"prompt\":[1,\"a\"]}", 400, "prompt.1", "integer"},
        {"{\"prompt\":[\"a\",1]}", 400, "prompt.1", "string"},
        {"{\"prompt\":[[1],\"a\"]}", 400, "prompt.1", "list of integers"},
        {"{\"prompt\":[[1],[true]]}", 400, "prompt.1.0", "integer"},
        {"{\"prompt\":{}}", 400, "prompt", "list"},
        {"{\"prompt\":[null]}", 400, "prompt.0", "not null"},
        {"{\"prompt\":[-1]}", 400, "prompt.0", "out of vocabulary"},
        {"{\"prompt\":[272]}", 400, "prompt.0", "out of vocabulary"},
        {"{\"prompt\":[[1],[2,2147483648]]}", 400, "prompt.1.1", "out of vocabulary"},
        {"{\"prompt\":[9223372036854775808]}", 400, "prompt.0", "9223372036854775807"},
        /* budget: the context is 128 */
        {"{\"prompt\":\"a\",\"max_tokens\":127}", 400, "max_tokens", "maximum context length"},
        {"{\"prompt\":\"a\",\"max_tokens\":9223372036854775807}", 400, "max_tokens",
         "maximum context length"},
        {"{\"prompt\":\"a\",\"max_tokens\":0}", 400, "max_tokens", "greater_than_equal 1"},
        {"{\"prompt\":\"a\",\"max_tokens\":4,\"min_tokens\":5}", 400, "min_tokens", "less_than_equal 4"},
        {"{\"prompt\":\"a\",\"min_tokens\":17}", 400, "min_tokens", "less_than_equal 16"},
        /* n and greedy */
        {"{\"prompt\":\"a\",\"n\":2,\"temperature\":0}", 400, "n", "n must be 1 when using greedy sampling"},
        {"{\"prompt\":\"a\",\"n\":2,\"temperature\":1e-300}", 400, "n",
         "n must be 1 when using greedy sampling"},
        {"{\"prompt\":\"a\",\"best_of\":2,\"temperature\":0}", 400, "best_of",
         "n must be 1 when using greedy sampling"},
        {"{\"prompt\":\"a\",\"n\":3,\"best_of\":2}", 400, "best_of", "greater_than_equal 3"},
        {"{\"prompt\":\"a\",\"best_of\":129}", 400, "best_of", "less_than_equal 128 (--max-n)"},
        {"{\"prompt\":\"a\",\"best_of\":0}", 400, "best_of", "greater_than_equal 1"},
        {"{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"stream\":true}", 400, "best_of", "stream"},
        {"{\"prompt\":\"a\",\"max_tokens\":0,\"echo\":false}", 400, "max_tokens", "greater_than_equal 1"},
        /* beam search, and what it excludes */
#define BEAM(x) "{\"prompt\":\"a\",\"use_beam_search\":true,\"n\":2," x "}"
        {BEAM("\"stream\":true"), 400, "stream", "use_beam_search"},
        {BEAM("\"stop\":\"x\""), 400, "stop", "use_beam_search"},
        {BEAM("\"stop_token_ids\":[1]"), 400, "stop_token_ids", "use_beam_search"},
        {BEAM("\"bad_words\":[\"x\"]"), 400, "bad_words", "use_beam_search"},
        {BEAM("\"logit_bias\":{\"1\":1}"), 400, "logit_bias", "use_beam_search"},
        {BEAM("\"allowed_token_ids\":[1]"), 400, "allowed_token_ids", "use_beam_search"},
        {BEAM("\"min_tokens\":1"), 400, "min_tokens", "use_beam_search"},
        {BEAM("\"presence_penalty\":1"), 400, "presence_penalty", "use_beam_search"},
        {BEAM("\"frequency_penalty\":1"), 400, "frequency_penalty", "use_beam_search"},
        {BEAM("\"repetition_penalty\":2"), 400, "repetition_penalty", "use_beam_search"},
        {BEAM("\"prompt_logprobs\":0"), 400, "prompt_logprobs", "use_beam_search"},
        {BEAM("\"guided_regex\":\"a\""), 400, "guided_regex", "use_beam_search"},
        {BEAM("\"echo\":true,\"max_tokens\":0"), 400, "max_tokens", "greater_than_equal 1"},
        {"{\"prompt\":\"a\",\"length_penalty\":\"x\"}", 400, "length_penalty", "number"},
        /* tokens that may come, and words that may not */
        {"{\"prompt\":\"a\",\"allowed_token_ids\":[]}", 400, "allowed_token_ids", "must not be empty"},
        {"{\"prompt\":\"a\",\"allowed_token_ids\":[1,272]}", 400, "allowed_token_ids.1", "out of vocabulary"},
        {"{\"prompt\":\"a\",\"allowed_token_ids\":[-1]}", 400, "allowed_token_ids.0", "out of vocabulary"},
        {"{\"prompt\":\"a\",\"allowed_token_ids\":[\"x\"]}", 400, "allowed_token_ids.0", "integer"},
        {"{\"prompt\":\"a\",\"allowed_token_ids\":{}}", 400, "allowed_token_ids", "list"},
        {"{\"prompt\":\"a\",\"bad_words\":[\"x\",\"\"]}", 400, "bad_words.1", "must not be empty"},
        {"{\"prompt\":\"a\",\"bad_words\":[1]}", 400, "bad_words.0", "string"},
        {"{\"prompt\":\"a\",\"bad_words\":\"x\"}", 400, "bad_words", "list"},
        /* truncation */
        {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":0}", 400, "truncate_prompt_tokens", "greater_than_equal 1"},
        {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":-2}", 400, "truncate_prompt_tokens",
         "greater_than_equal -1"},
        {"{\"prompt\":\"a\",\"truncate_prompt_tokens\":129}", 400, "truncate_prompt_tokens",
         "select a smaller truncation size"},
        {"{\"prompt\":\"a\",\"truncation_side\":\"up\"}", 400, "truncation_side", "must be one of left, right"},
        /* the prompt's log-probabilities */
        {"{\"prompt\":\"a\",\"prompt_logprobs\":21}", 400, "prompt_logprobs", "--max-logprobs"},
        {"{\"prompt\":\"a\",\"prompt_logprobs\":-1}", 400, "prompt_logprobs", "greater_than_equal 0"},
        {"{\"prompt\":\"a\",\"prompt_logprobs\":1,\"stream\":true}", 400, "prompt_logprobs", "stream"},
        /* logits processors */
        {"{\"prompt\":\"a\",\"logits_processors\":[\"x\"]}", 400, "logits_processors",
         "--logits-processor-pattern"},
        {"{\"prompt\":\"a\",\"vllm_xargs\":{\"k\":{}}}", 400, "vllm_xargs.k", "string, a number, or a list"},
        {"{\"prompt\":\"a\",\"vllm_xargs\":{\"k\":[true]}}", 400, "vllm_xargs.k", "string, a number, or a list"},
        {"{\"prompt\":\"a\",\"vllm_xargs\":[]}", 400, "vllm_xargs", "object"},
        /* stop */
        {"{\"prompt\":\"a\",\"stop\":\"\"}", 400, "stop", "must not be empty"},
        {"{\"prompt\":\"a\",\"stop\":[\"x\",\"\"]}", 400, "stop.1", "must not be empty"},
        {"{\"prompt\":\"a\",\"stop\":[\"x\",1]}", 400, "stop.1", "must be a string"},
        {"{\"prompt\":\"a\",\"stop\":5}", 400, "stop", "must be a string or a list of strings, not integer"},
        {"{\"prompt\":\"a\",\"stop\":{}}", 400, "stop", "must be a string or a list of strings, not object"},
        {"{\"prompt\":\"a\",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\","
         "\"12\",\"13\",\"14\","
         "\"15\",\"16\",\"17\"]}",
         400, "stop", "less_than_equal 16 (--max-stop-strings)"},
        {"{\"prompt\":\"a\",\"stop_token_ids\":[300]}", 400, "stop_token_ids.0", "out of vocabulary"},
        {"{\"prompt\":\"a\",\"stop_token_ids\":[1,-1]}", 400, "stop_token_ids.1", "out of vocabulary"},
        {"{\"prompt\":\"a\",\"stop_token_ids\":[\"x\"]}", 400, "stop_token_ids.0", "integer"},
        {"{\"prompt\":\"a\",\"stop_token_ids\":[null]}", 400, "stop_token_ids.0", "null"},
        /* logit_bias */
        {"{\"prompt\":\"a\",\"logit_bias\":{\"abc\":1}}", 400, "logit_bias", "no token id"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"\":1}}", 400, "logit_bias", "no token id"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"1.5\":1}}", 400, "logit_bias", "no token id"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"-1\":1}}", 400, "logit_bias", "out of vocabulary"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"272\":1}}", 400, "logit_bias", "out of vocabulary"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":\"x\"}}", 400, "logit_bias.5", "number"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":null}}", 400, "logit_bias.5", "null"},
        {"{\"prompt\":\"a\",\"logit_bias\":[]}", 400, "logit_bias", "object"},
        /* logprobs */
        {"{\"prompt\":\"a\",\"logprobs\":21}", 400, "logprobs", "--max-logprobs"},
        {"{\"prompt\":\"a\",\"logprobs\":-1}", 400, "logprobs", "greater_than_equal 0"},
        /* streams */
        {"{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":true}}", 400, "stream_options", "stream"},
        {"{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":null}}", 400, "stream_options", "stream"},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":5}}", 400,
         "stream_options.include_usage", "boolean"},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":[]}", 400, "stream_options", "object"},
        /* identity */
        {"{\"prompt\":\"a\",\"request_id\":\"\"}", 400, "request_id", "1 to 128"},
        {"{\"prompt\":\"a\",\"request_id\":\"a b\"}", 400, "request_id", "1 to 128"},
        {"{\"prompt\":\"a\",\"request_id\":\"a\\nb\"}", 400, "request_id", "1 to 128"},
        {"{\"prompt\":\"a\",\"request_id\":\"\xc3\xa9\"}", 400, "request_id", "1 to 128"},
        {"{\"prompt\":\"a\",\"cache_salt\":\"\"}", 400, "cache_salt", "1 to 256"},
        {"{\"prompt\":\"a\",\"cache_salt\":5}", 400, "cache_salt", "string"},
        {"{\"prompt\":\"a\",\"priority\":1}", 400, "priority", "--scheduling-policy priority"},
        /* duplicate keys: the last wins */
        {"{\"prompt\":\"a\",\"n\":1,\"n\":0}", 400, "n", "greater_than_equal 1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct gen_req *r;
        struct err e;
        enum rc rc = prepare(f, rows[i].body, &r, &e);
        if (rc == RC_OK)
            fail_msg("%s was accepted", rows[i].body);
        if (api_status(rc) != rows[i].status || strcmp(e.param, rows[i].param) ||
            !strstr(e.msg, rows[i].says))
            fail_msg("%s: %d %s (param %s)", rows[i].body, api_status(rc), e.msg, e.param);
        assert_int_equal(e.rc, rc);
        assert_null(r);
    }
}

static void test_quoted_names_are_cut(void **state) {
    struct api_fixture *f = *state;
    struct buf b = {0};
    struct gen_req *r;
    struct err e;
    buf_addz(&b, "{\"prompt\":\"a\",\"model\":\"");
    for (int i = 0; i < 100000; i++)
        buf_addz(&b, "\xc3\xa9");
    buf_addz(&b, "\"}");
    assert_int_equal(prepare(f, buf_cstr(&b), &r, &e), RC_NOT_FOUND);
    assert_true(strlen(e.msg) < 260);
    assert_non_null(strstr(e.msg, "does not exist"));
    buf_fini(&b);
}

static void test_forms_of_prompt(void **state) {
    struct api_fixture *f = *state;
    static const struct {
        const char *body;
        uint32_t n_prompts, n_first, first, last; /* ids of the first and last prompts */
    } rows[] = {
        {"{\"prompt\":\"AB\"}", 1, 3, FIX_BOS, 'B'},
        {"{\"prompt\":\"AB\",\"add_special_tokens\":false}", 1, 2, 'A', 'B'},
        {"{\"prompt\":[\"A\",\"BC\"]}", 2, 2, FIX_BOS, 'C'},
        {"{\"prompt\":[65,66.0,271]}", 1, 3, 'A', 271},
        {"{\"prompt\":[[65],[66,67]]}", 2, 1, 'A', 'C'},
        /* special tokens spelled in a completion's prompt are tokens */
        {"{\"prompt\":\"</s>\",\"add_special_tokens\":false}", 1, 1, FIX_EOS, FIX_EOS},
        {"{\"prompt\":\"a\\u0000b\",\"add_special_tokens\":false}", 1, 3, 'a', 'b'},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct gen_req *r = good(f, rows[i].body);
        assert_int_equal(r->n_prompts, rows[i].n_prompts);
        assert_int_equal(r->prompts[0].n_ids, rows[i].n_first);
        assert_int_equal(r->prompts[0].ids[0], rows[i].first);
        const struct gen_prompt *last = &r->prompts[r->n_prompts - 1];
        assert_int_equal(last->ids[last->n_ids - 1], rows[i].last);
        gen_req_free(r);
    }
}

static void test_limits_on_prompts(void **state) {
    struct api_fixture *f = *state;
    struct gen_req *r;
    struct err e;
    f->opts.limit.prompts = 2;
    assert_int_equal(prepare(f, "{\"prompt\":[[1],[2],[3]]}", &r, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "less_than_equal 2 (--max-prompts)"));
    f->opts.limit.prompts = 1024;
    f->opts.limit.sequences = 3;
    assert_int_equal(prepare(f, "{\"prompt\":[[1],[2]],\"n\":2}", &r, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "less_than_equal 3 (--max-sequences)"));
    gen_req_free(good(f, "{\"prompt\":[[1],[2],[3]]}"));
    f->opts.limit.sequences = 4096;
    f->opts.limit.stop_bytes = 3;
    assert_int_equal(prepare(f, "{\"prompt\":\"a\",\"stop\":[\"abcd\"]}", &r, &e), RC_INVALID);
    assert_string_equal(e.param, "stop.0");
    assert_non_null(strstr(e.msg, "less_than_equal 3 (--max-stop-bytes)"));
    f->opts.limit.stop_token_ids = 1;
    assert_int_equal(prepare(f, "{\"prompt\":\"a\",\"stop_token_ids\":[1,2]}", &r, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--max-stop-token-ids"));
    f->opts.limit.logit_bias = 1;
    assert_int_equal(prepare(f, "{\"prompt\":\"a\",\"logit_bias\":{\"1\":1,\"2\":2}}", &r, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--max-logit-bias"));
    /* Two prompts of 3 choices, 10 tokens each with 4 alternatives and itself: 300 entries, unless streamed. */
    static const char many[] = "\"prompt\":[[1],[2]],\"n\":3,\"max_tokens\":10,\"logprobs\":4";
    char body[128];
    snprintf(body, sizeof body, "{%s}", many);
    f->opts.limit.logprob_entries = 300;
    gen_req_free(good(f, body));
    f->opts.limit.logprob_entries = 299;
    assert_int_equal(prepare(f, body, &r, &e), RC_INVALID);
    assert_string_equal(e.param, "logprobs");
    assert_non_null(strstr(e.msg, "300 entries, must be less_than_equal 299"));
    assert_non_null(strstr(e.msg, "--max-logprob-entries"));
    snprintf(body, sizeof body, "{%s,\"stream\":true}", many);
    gen_req_free(good(f, body));
}

/* --max-logprobs -1: the vocabulary is the limit, and -1 means all of it (api.md 5.1). */
static void test_all_logprobs(void **state) {
    struct api_fixture *f = *state;
    struct gen_req *r;
    struct err e;
    f->opts.limit.logprobs = -1;
    f->m->facts.max_logprobs = FIX_VOCAB;
    r = good(f, "{\"prompt\":[1],\"logprobs\":-1}");
    assert_int_equal(r->n_top, FIX_VOCAB);
    gen_req_free(r);
    r = good(f, "{\"prompt\":[1],\"logprobs\":100}");
    assert_int_equal(r->n_top, 100);
    gen_req_free(r);
    assert_int_equal(prepare(f, "{\"prompt\":[1],\"logprobs\":273}", &r, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "less_than_equal 272"));
    assert_int_equal(prepare(f, "{\"prompt\":[1],\"logprobs\":-2}", &r, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "greater_than_equal -1"));
}

static void test_budget(void **state) {
    struct api_fixture *f = *state;
    struct buf b = {0};
    struct gen_req *r;
    struct err e;
    for (size_t n = 110; n <= 129; n++) {
        b.len = 0;
        buf_addz(&b, "{\"prompt\":[1");
        for (size_t i = 1; i < n; i++)
            buf_addz(&b, ",1");
        buf_addz(&b, "]}");
        enum rc rc = prepare(f, buf_cstr(&b), &r, &e);
        if (n >= FIX_CONTEXT) {
            assert_int_equal(rc, RC_INVALID);
            assert_non_null(strstr(e.msg, "maximum context length of the model is 128 tokens"));
            continue;
        }
        assert_int_equal(rc, RC_OK); /* the default of 16 is clamped to the room */
        assert_int_equal(r->prompts[0].max_tokens, MIN(16, FIX_CONTEXT - n));
        gen_req_free(r);
    }
    buf_fini(&b);
    r = good(f, "{\"prompt\":[[1],[1,2]],\"max_tokens\":126,\"min_tokens\":126}");
    assert_int_equal(r->prompts[0].max_tokens, 126);
    assert_int_equal(r->prompts[1].max_tokens, 126);
    assert_int_equal(r->min_tokens, 126);
    gen_req_free(r);
}

static void test_sampling_defaults(void **state) {
    struct api_fixture *f = *state;
    struct gen_req *r = good(f, "{\"prompt\":\"a\"}"); /* from generation_config.json */
    assert_float_equal(r->s.temperature, 0.7f, 0);
    assert_int_equal(r->s.top_k, 20);
    assert_float_equal(r->s.top_p, 1, 0);
    assert_float_equal(r->s.min_p, 0, 0);
    assert_float_equal(r->s.repetition_penalty, 1, 0);
    assert_int_equal(r->n, 1);
    assert_false(r->stream || r->include_usage || r->logprobs || r->include_stop || r->ids_as_tokens);
    assert_true(r->skip_special && r->spaces_between_special);
    assert_int_equal(r->s.n_stop_ids, 1); /* the second end token */
    assert_int_equal(r->s.stop_ids[0], FIX_END);
    assert_null(r->stop);
    gen_req_free(r);

    r = good(
        f,
        "{\"prompt\":\"a\",\"temperature\":0.5,\"top_k\":-1,\"top_p\":0.25,\"min_p\":0.5,\"ignore_eos\":true,"
        "\"repetition_penalty\":1.5,\"presence_penalty\":-2,\"frequency_penalty\":0.5,\"stop_token_ids\":[5,"
        "5,7]}");
    assert_float_equal(r->s.temperature, 0.5f, 0);
    assert_int_equal(r->s.top_k, 0);
    assert_float_equal(r->s.top_p, 0.25f, 0);
    assert_float_equal(r->s.min_p, 0.5f, 0);
    assert_float_equal(r->s.repetition_penalty, 1.5f, 0);
    assert_float_equal(r->s.presence_penalty, -2, 0);
    assert_float_equal(r->s.frequency_penalty, 0.5f, 0);
    assert_true(r->s.ignore_eos);
    assert_int_equal(r->s.n_stop_ids, 2); /* ignore_eos: the client's own only */
    assert_int_equal(r->s.stop_ids[1], 7);
    gen_req_free(r);

    r = good(f,
             "{\"prompt\":\"a\",\"temperature\":1e-6,\"top_p\":0.1,\"top_k\":3,\"min_p\":0.2}"); /* greedy */
    assert_float_equal(r->s.temperature, 0, 0);
    assert_int_equal(r->s.top_k, 0);
    assert_float_equal(r->s.top_p, 1, 0);
    assert_float_equal(r->s.min_p, 0, 0);
    gen_req_free(r);

    r = good(f, "{\"prompt\":\"a\",\"temperature\":1e-5,\"top_k\":100000}");
    assert_float_equal(r->s.temperature, 0.01f, 0);
    assert_int_equal(r->s.top_k, FIX_VOCAB);
    gen_req_free(r);

    r = good(f,
             "{\"prompt\":\"a\",\"repetition_penalty\":1e-300,\"top_p\":1e-300}"); /* no zero, no infinity */
    assert_true(r->s.repetition_penalty > 0 && r->s.top_p > 0);
    gen_req_free(r);
}

static void test_generation_config_vllm(void **state) {
    struct api_fixture *f = *state, g;
    struct err e = {0};
    (void)f;
    api_fixture_init(&g);
    g.opts.generation_config = (char[]){"vllm"};
    assert_int_equal(api_fixture_open(&g, &e), RC_OK);
    struct gen_req *r = good(&g, "{\"prompt\":\"a\"}");
    assert_float_equal(r->s.temperature, 1, 0);
    assert_int_equal(r->s.top_k, 0);
    assert_int_equal(r->s.n_stop_ids, 0);
    gen_req_free(r);
    api_fixture_fini(&g);
    g.opts.generation_config = (char[]){"/elsewhere"};
    assert_int_equal(api_fixture_open(&g, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--generation-config /elsewhere"));
}

/* Merged on top of the model's file, its limit binds every request; the model's own is only a default. */
static void test_override_generation_config(void **state) {
    struct api_fixture *f = *state, g;
    struct err e = {0};
    (void)f;
    static const struct {
        const char *source, *override, *body;
        uint32_t max_tokens;
        float temperature;
    } rows[] = {
        {"auto", "{\"max_new_tokens\":5}", "{\"prompt\":\"a\"}", 5, 0.7f},
        {"auto", "{\"max_new_tokens\":5,\"temperature\":0.25}", "{\"prompt\":\"a\",\"max_tokens\":9}", 5, 0.25f},
        {"vllm", "{\"max_new_tokens\":5}", "{\"prompt\":\"a\",\"max_tokens\":3}", 3, 1},
        {"auto", "{\"top_k\":1}", "{\"prompt\":\"a\",\"max_tokens\":9}", 9, 0.7f},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        api_fixture_init(&g);
        g.opts.generation_config = (char *)(uintptr_t)rows[i].source;
        g.opts.override_generation_config = (char *)(uintptr_t)rows[i].override;
        assert_int_equal(api_fixture_open(&g, &e), RC_OK);
        struct gen_req *r = good(&g, rows[i].body);
        assert_int_equal(r->prompts[0].max_tokens, rows[i].max_tokens);
        assert_float_equal(r->s.temperature, rows[i].temperature, 0);
        gen_req_free(r);
        api_fixture_fini(&g);
    }
    api_fixture_init(&g);
    g.opts.override_generation_config = (char[]){"[]"};
    assert_int_equal(api_fixture_open(&g, &e), RC_INVALID);
    g.opts.override_generation_config = (char[]){"{\"top_p\":7}"};
    assert_int_equal(api_fixture_open(&g, &e), RC_INVALID);
}

static void test_seeds(void **state) {
    struct api_fixture *f = *state;
    struct gen_submit s;
    struct gen_req *r = good(f, "{\"prompt\":[\"a\",\"a\"],\"seed\":-9223372036854775808}");
    assert_true(r->s.seeded);
    gen_submit(r, 1, &s);
    assert_true(s.sampling.seed == (uint64_t)INT64_MIN);
    gen_req_free(r);
    struct gen_req *a = good(f, "{\"prompt\":[\"a\",\"a\"],\"seed\":-1}"), *b = good(f, "{\"prompt\":\"a\"}");
    assert_false(a->s.seeded || b->s.seeded);
    assert_true(a->s.seed != b->s.seed);
    gen_submit(a, 0, &s);
    uint64_t first = s.sampling.seed;
    gen_submit(a, 1, &s);
    assert_true(s.sampling.seed != first); /* equal prompts, unseeded: different texts */
    gen_req_free(a);
    gen_req_free(b);
    f->opts.has_seed = true;
    f->opts.seed = 5;
    f->env.n_requests = 0;
    a = good(f, "{\"prompt\":\"a\"}");
    b = good(f, "{\"prompt\":\"a\"}");
    assert_true(a->s.seed != b->s.seed);
    uint64_t again = a->s.seed;
    gen_req_free(a);
    gen_req_free(b);
    f->env.n_requests = 0;
    a = good(f, "{\"prompt\":\"a\"}");
    assert_true(a->s.seed == again);
    gen_req_free(a);
}

static void test_identity(void **state) {
    struct api_fixture *f = *state;
    struct err e = {0};
    struct gen_req *r = good(f, "{\"prompt\":\"a\"}"), *q;
    assert_int_equal(r->id.n, 5 + 32);
    assert_memory_equal(r->id.p, "cmpl-", 5);
    assert_int_equal(strspn(r->id.p + 5, "0123456789abcdef"), 32);
    assert_true(str_eqz(r->model_name, "tiny"));
    q = good(f, "{\"prompt\":\"a\",\"model\":\"tiny-alias\",\"request_id\":\"mine\"}");
    assert_true(str_eqz(q->id, "cmpl-mine"));
    assert_true(str_eqz(q->id_suffix, "mine"));
    assert_true(str_eqz(q->model_name, "tiny-alias"));
    gen_req_free(q);
    gen_req_free(r);
    r = NULL;
    struct str body = STR_LIT("{\"prompt\":\"a\",\"request_id\":\"mine\",\"model\":\"\"}");
    assert_int_equal(gen_prepare(&f->env, GEN_COMPLETIONS, body, STR_LIT("theirs"), &r, &e), RC_OK);
    assert_true(str_eqz(r->id, "cmpl-theirs"));
    assert_true(str_eqz(r->model_name, "tiny"));
    gen_req_free(r);
}

static void test_salts(void **state) {
    struct api_fixture *f = *state;
    struct gen_req *a = good(f, "{\"prompt\":\"a\",\"cache_salt\":\"x\"}"),
                   *b = good(f, "{\"prompt\":\"a\",\"cache_salt\":\"y\"}"),
                   *c = good(f, "{\"prompt\":\"a\"}"),
                   *d = good(f, "{\"prompt\":\"b\",\"cache_salt\":\"x\"}");
    assert_false(id128_eq(a->domain, b->domain));
    assert_false(id128_eq(a->domain, c->domain));
    assert_true(id128_eq(a->domain, d->domain));
    gen_req_free(a);
    gen_req_free(b);
    gen_req_free(c);
    gen_req_free(d);
}

static void test_stream_options(void **state) {
    struct api_fixture *f = *state;
    static const struct {
        const char *body;
        bool usage, continuous;
    } rows[] = {
        {"{\"prompt\":\"a\",\"stream\":true}", false, false},
        {"{\"prompt\":\"a\",\"stream\":\"yes\",\"stream_options\":null}", false, false},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", true, false},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":null}}", false, false},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true}}", false,
         false},
        {"{\"prompt\":\"a\",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_"
         "stats\":true}}",
         true, true},
        {"{\"prompt\":\"a\",\"stream_options\":{}}", false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct gen_req *r = good(f, rows[i].body);
        assert_int_equal(r->include_usage, rows[i].usage);
        assert_int_equal(r->continuous_usage, rows[i].continuous);
        gen_req_free(r);
    }
    f->opts.force_include_usage = true;
    struct gen_req *r = good(f, rows[0].body);
    assert_true(r->include_usage && r->continuous_usage);
    gen_req_free(r);
    r = good(f, "{\"prompt\":\"a\"}");
    assert_false(r->include_usage || r->continuous_usage);
    gen_req_free(r);
}

static void test_submit(void **state) {
    struct api_fixture *f = *state;
    struct gen_submit s;
    struct gen_req *r =
        good(f, "{\"prompt\":[[1,2],[3]],\"n\":3,\"max_tokens\":9,\"min_tokens\":2,\"logprobs\":4,\"seed\":7,"
                "\"stop_token_ids\":[9],\"logit_bias\":{\"7\":-500,\"3\":1.5,\"07\":2,\"5\":\"1e2\"},\"cache_"
                "salt\":\"s\"}");
    gen_submit(r, 0, &s);
    assert_ptr_equal(s.m.sampling, &s.sampling);
    assert_int_equal(s.m.task, WEIR__TASK__GENERATE);
    assert_int_equal(s.m.n_tokens, 2);
    assert_int_equal(s.m.tokens[1], 2);
    assert_int_equal(s.m.domain.len, 16);
    assert_memory_equal(s.m.domain.data, r->domain.b, 16);
    assert_int_equal(s.sampling.n_samples, 3);
    assert_int_equal(s.sampling.max_tokens, 9);
    assert_int_equal(s.sampling.min_tokens, 2);
    assert_int_equal(s.sampling.n_logprobs, 4);
    assert_true(s.sampling.seed == 7 && s.sampling.has_seed);
    assert_int_equal(s.sampling.n_stop_ids, 2);
    assert_int_equal(s.sampling.n_bias_ids, 3); /* ascending; "07" is 7 again, and came last */
    assert_int_equal(s.sampling.bias_ids[0], 3);
    assert_int_equal(s.sampling.bias_ids[1], 5);
    assert_int_equal(s.sampling.bias_ids[2], 7);
    assert_float_equal(s.sampling.bias_values[0], 1.5f, 0);
    assert_float_equal(s.sampling.bias_values[1], 100, 0);
    assert_float_equal(s.sampling.bias_values[2], 2, 0);
    gen_submit(r, 1, &s);
    assert_int_equal(s.m.n_tokens, 1);
    assert_int_equal(s.m.tokens[0], 3);
    s.m.has_stream = 1;
    uint8_t *packed = xmalloc(weir__submit__get_packed_size(&s.m));
    assert_true(weir__submit__pack(&s.m, packed) > 0);
    free(packed);
    gen_req_free(r);
    r = good(f, "{\"prompt\":\"a\"}");
    gen_submit(r, 0, &s);
    assert_int_equal(s.sampling.n_logprobs, -1);
    gen_req_free(r);
}

static void test_priority(void **state) {
    (void)state;
    struct api_fixture f;
    struct err e = {0};
    api_fixture_init(&f);
    f.priority = true;
    assert_int_equal(api_fixture_open(&f, &e), RC_OK);
    struct gen_req *r = good(&f, "{\"prompt\":\"a\",\"priority\":-3}");
    struct gen_submit s;
    gen_submit(r, 0, &s);
    assert_int_equal(s.m.priority, -3);
    gen_req_free(r);
    api_fixture_fini(&f);
}

/* kv_transfer_params count once a worker moves KV blocks, and not before. */
static void kv_transfer_params(void **state) {
    struct api_fixture *f = *state;
    struct gen_req *r;
    struct err e;
    static const struct {
        const char *value, *param; /* NULL: it is fine */
    } rows[] = {
        {"{}", NULL},
        {"{\"do_remote_decode\":true,\"do_remote_prefill\":false,\"remote_host\":null,\"remote_block_ids\":null}", NULL},
        {"{\"do_remote_prefill\":true,\"transfer_id\":\"not an id\"}", NULL},
        {"{\"do_remote_decode\":1}", "kv_transfer_params.do_remote_decode"},
        {"{\"do_remote_decode\":true,\"do_remote_prefill\":true}", "kv_transfer_params"},
        {"{\"remote_block_ids\":[1,\"2\"]}", "kv_transfer_params.remote_block_ids"},
        {"{\"remote_block_ids\":7}", "kv_transfer_params.remote_block_ids"},
        {"{\"remote_port\":65536}", "kv_transfer_params.remote_port"},
        {"{\"remote_num_tokens\":-1}", "kv_transfer_params.remote_num_tokens"},
        {"{\"remote_engine_id\":{}}", "kv_transfer_params.remote_engine_id"},
        {"{\"remote_blocks_expiry_time\":\"soon\"}", "kv_transfer_params.remote_blocks_expiry_time"},
    };
    for (int on = 0; on < 2; on++) {
        f->env.moves_kv = on;
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            struct buf b = {0};
            buf_addf(&b, "{\"prompt\":[1,2],\"kv_transfer_params\":%s}", rows[i].value);
            enum rc rc = prepare(f, buf_cstr(&b), &r, &e);
            buf_fini(&b);
            assert_int_equal(rc, on && rows[i].param ? RC_INVALID : RC_OK);
            if (rc)
                assert_string_equal(e.param, rows[i].param);
            else
                gen_req_free(r);
        }
    }
    f->env.moves_kv = true;
    assert_int_equal(prepare(f, "{\"prompt\":[1],\"n\":2,\"kv_transfer_params\":{\"do_remote_decode\":true}}", &r, &e), RC_INVALID);
    assert_string_equal(e.param, "n");
    assert_int_equal(prepare(f,
                             "{\"prompt\":[1],\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_host\":\"::1\","
                             "\"remote_port\":9,\"remote_block_ids\":[3,4294967295],\"remote_num_tokens\":32,"
                             "\"transfer_id\":\"000102030405060708090a0b0c0d0e0f\"}}",
                             &r, &e),
                     RC_OK);
    assert_true(r->kv.pull && !r->kv.offer && r->kv.has_transfer && r->kv.transfer.b[15] == 15 && r->kv.port == 9);
    assert_true(r->kv.n_blocks == 2 && r->kv.blocks[1] == UINT32_MAX && r->kv.n_tokens == 32 && !strcmp(r->kv.host, "::1"));
    assert_null(r->kv.engine);
    gen_req_free(r);
    f->env.moves_kv = false;
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_refusals),
        T(kv_transfer_params),
        T(test_quoted_names_are_cut),
        T(test_forms_of_prompt),
        T(test_limits_on_prompts),
        T(test_all_logprobs), T(test_budget),
        T(test_sampling_defaults),
        T(test_generation_config_vllm),
        T(test_override_generation_config),
        T(test_seeds),
        T(test_identity),
        T(test_salts),
        T(test_stream_options),
        T(test_submit),
        T(test_priority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
