/* The tables of router/api: errors and fields. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "router/api/error.h"
#include "router/api/fields.h"
#include "tests/support/api_fixture.h"

static void test_error_table(void **state) {
    (void)state;
    static const struct {
        enum rc rc;
        int status;
        const char *type;
    } want[] = {
        {RC_INVALID, 400, "BadRequestError"},
        {RC_UNAUTHORIZED, 401, "AuthenticationError"},
        {RC_NOT_FOUND, 404, "NotFoundError"},
        {RC_METHOD, 405, "MethodNotAllowedError"},
        {RC_TOO_LARGE, 413, "PayloadTooLargeError"},
        {RC_UNFETCHABLE, 422, "UnprocessableEntityError"},
        {RC_OVERLOAD, 429, "RateLimitError"},
        {RC_HEADERS, 431, "RequestHeaderFieldsTooLargeError"},
        {RC_INTERNAL, 500, "InternalServerError"},
        {RC_UNSUPPORTED, 501, "NotImplementedError"},
        {RC_UNAVAILABLE, 503, "ServiceUnavailableError"},
        {RC_TIMEOUT, 504, "GatewayTimeoutError"},
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_int_equal(api_status(want[i].rc), want[i].status);
        assert_string_equal(api_error_type(want[i].status), want[i].type);
        assert_int_equal(api_rc_of_status(want[i].status), want[i].rc);
        assert_true(strlen(api_reason(want[i].status)) > 3);
    }
    for (int rc = RC_INVALID; rc < N_RC; rc++)
        assert_in_range(api_status((enum rc)rc), 400, 504);
    assert_int_equal(api_rc_of_status(418), RC_INTERNAL);
    assert_int_equal(api_rc_of_status(200), RC_INTERNAL);
}

static void test_error_body(void **state) {
    (void)state;
    struct err e;
    struct buf b = {0};
    err_set(&e, RC_INVALID, "messages.0.content", "a \"quoted\"\nline");
    api_error_body(&e, &b);
    assert_string_equal(buf_cstr(&b),
                        "{\"error\":{\"message\":\"a \\\"quoted\\\"\\nline\",\"type\":\"BadRequestError\","
                        "\"param\":\"messages.0.content\",\"code\":400}}");
    b.len = 0;
    err_set(&e, RC_UNAVAILABLE, NULL, "no worker");
    api_error_body(&e, &b);
    assert_string_equal(buf_cstr(&b),
                        "{\"error\":{\"message\":\"no worker\",\"type\":\"ServiceUnavailableError\","
                        "\"param\":null,\"code\":503}}");
    b.len = 0;
    gen_error_event(&e, &b);
    assert_string_equal(buf_cstr(&b),
                        "data: {\"error\":{\"message\":\"no worker\",\"type\":\"ServiceUnavailableError\","
                        "\"param\":null,\"code\":503}}\n\ndata: [DONE]\n\n");
    buf_fini(&b);
}

/* Every row can be used: its default is JSON of its kind, and no route has a name twice. */
static void test_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < n_api_fields; i++) {
        const struct field *f = &api_fields[i];
        assert_true(f->on != 0);
        assert_non_null(f->dflt);
        assert_true(f->rule == FIELD_REFUSED || f->meaning);
        if (strcmp(f->dflt, "n")) {
            json_t *v = json_loads(f->dflt, JSON_DECODE_ANY, NULL);
            assert_non_null(v);
            bool fits =
                json_is_null(v) || f->kind == FIELD_ANY || (f->kind == FIELD_BOOL && json_is_boolean(v)) ||
                (f->kind == FIELD_INT && json_is_integer(v)) ||
                (f->kind == FIELD_FLOAT && json_is_number(v)) ||
                (f->kind == FIELD_STR && json_is_string(v)) || (f->kind == FIELD_LIST && json_is_array(v)) ||
                (f->kind == FIELD_OBJECT && json_is_object(v));
            if (!fits)
                fail_msg("%s: default %s", f->name, f->dflt);
            json_decref(v);
        }
        for (size_t k = 0; k < i; k++)
            if (!strcmp(api_fields[k].name, f->name) && (api_fields[k].on & f->on))
                fail_msg("%s is twice on a route", f->name);
    }
}

/* read: {"NAME": JSON} on a route. */
static enum rc read(unsigned route, const char *name, const char *json, struct err *e) {
    struct api_fixture f;
    struct field_values v;
    struct buf text = {0};
    api_fixture_init(&f);
    buf_addf(&text, "{\"%s\":%s}", name, json);
    json_t *root = json_loadb(text.data, text.len, 0, NULL);
    assert_non_null(root);
    enum rc rc = api_fields_read(route, root, &f.opts.limit, &v, e);
    json_decref(root);
    buf_fini(&text);
    return rc;
}

/* What the specification names and this build lacks: refused, and taken when null or neutral. */
static void test_refused(void **state) {
    (void)state;
    enum { C = ON_COMPLETIONS, H = ON_CHAT, P = ON_POOL };
    static const struct {
        const char *name;
        unsigned on;
        const char *neutral, *bad, *says;
    } rows[] = {
        {"mm_processor_kwargs", H | ON_TOKENIZE | P, "{}", "{\"a\":1}", "mm_processor_kwargs"},
        {"prompt_embeds", C, "null", "\"AAAA\"", "prompt_embeds is not supported"},
        {"suffix", C, "null", "\"\"", "suffix is not currently supported"},
        {"functions", H, "null", "[]", "use tools"},
        {"function_call", H, "\"none\"", "\"auto\"", "use tools"},
        {"modalities", H, "[\"text\"]", "[\"text\",\"audio\"]", "audio output is not supported"},
        {"audio", H, "null", "{}", "audio output is not supported"},
        {"web_search_options", H, "null", "{}", "not supported"},
        {"normalize", P, "null", "false", "use_activation"},
        {"dimensions", ON_POOLING, "null", "8", "/v1/embeddings"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (unsigned on = ON_COMPLETIONS; on <= ON_RERANK; on *= 2) {
            if (!(rows[i].on & on))
                continue;
            struct err e = {0};
            assert_int_equal(read(on, rows[i].name, "null", &e), RC_OK);
            assert_int_equal(read(on, rows[i].name, rows[i].neutral, &e), RC_OK);
            assert_int_equal(read(on, rows[i].name, rows[i].bad, &e), RC_INVALID);
            assert_string_equal(e.param, rows[i].name);
            if (!strstr(e.msg, rows[i].says))
                fail_msg("%s: %s", rows[i].name, e.msg);
        }
    /* Every refused row of the table is in the list above. */
    for (size_t i = 0; i < n_api_fields; i++) {
        if (api_fields[i].rule != FIELD_REFUSED)
            continue;
        bool found = false;
        for (size_t k = 0; k < ARRAY_LEN(rows); k++)
            found |= !strcmp(rows[k].name, api_fields[i].name);
        if (!found)
            fail_msg("%s is refused but not tested", api_fields[i].name);
    }
}

/* Every field read, with values of every wrong kind and beyond its range, is refused by name or accepted;
 * never otherwise. */
static void test_every_field_every_value(void **state) {
    (void)state;
    static const char *const values[] = {"null",
                                         "\"\"",
                                         "0",
                                         "-1",
                                         "1e308",
                                         "9223372036854775807",
                                         "-9223372036854775808",
                                         "1e19",
                                         "true",
                                         "[]",
                                         "{}",
                                         "1.5",
                                         "\"5\"",
                                         "\"x\"",
                                         "[1]",
                                         "{\"a\":1}",
                                         "[null]"};
    for (size_t i = 0; i < n_api_fields; i++)
        for (unsigned on = ON_COMPLETIONS; on <= ON_RERANK; on *= 2)
            for (size_t k = 0; (api_fields[i].on & on) && k < ARRAY_LEN(values); k++) {
                struct err e = {0};
                enum rc rc = read(on, api_fields[i].name, values[k], &e);
                size_t n = strlen(api_fields[i].name); /* or a path into it */
                bool named = !strncmp(e.param, api_fields[i].name, n) && (!e.param[n] || e.param[n] == '.');
                if (rc != RC_OK && (rc != RC_INVALID || !named))
                    fail_msg("%s = %s: %s (param %s)", api_fields[i].name, values[k], e.msg, e.param);
                if (!strcmp(values[k], "null"))
                    assert_int_equal(rc, RC_OK);
                if (api_fields[i].rule == FIELD_IGNORED && api_fields[i].kind == FIELD_ANY)
                    assert_int_equal(rc, RC_OK);
            }
}

/* A field without effect still has its kind. */
static void test_ignored_have_kinds(void **state) {
    (void)state;
    struct err e = {0};
    assert_int_equal(read(ON_CHAT, "kv_transfer_params", "{\"do_remote_decode\":true}", &e), RC_OK);
    assert_int_equal(read(ON_CHAT, "kv_transfer_params", "5", &e), RC_INVALID);
    assert_string_equal(e.param, "kv_transfer_params");
    assert_int_equal(read(ON_CHAT, "user", "[5]", &e), RC_OK);
}

static void test_ranges(void **state) {
    (void)state;
    static const struct {
        const char *name, *good, *bad, *says;
    } rows[] = {
        {"max_tokens", "0", "-1", "greater_than_equal 0"}, /* 0 with echo: samples.c */
        {"best_of", "128", "129", "less_than_equal 128 (--max-n)"},
        {"best_of", "1", "0", "greater_than_equal 1"},
        {"prompt_logprobs", "20", "21", "less_than_equal 20 (--max-logprobs)"},
        {"prompt_logprobs", "0", "-1", "greater_than_equal 0"},
        {"truncate_prompt_tokens", "-1", "-2", "greater_than_equal -1"},
        {"truncation_side", "\"right\"", "\"up\"", "one of left, right"},
        {"n", "128", "129", "less_than_equal 128 (--max-n)"},
        {"n", "\"3\"", "0", "greater_than_equal 1"},
        {"n", "true", "1.5", "integer"},
        {"temperature", "2", "2.1", "less_than_equal 2"},
        {"temperature", "0", "-0.1", "greater_than_equal 0"},
        {"top_p", "1", "1.1", "less_than_equal 1"},
        {"top_p", "0.001", "0", "greater_than 0"},
        {"top_k", "-1", "-2", "greater_than_equal -1"},
        {"min_p", "1", "2", "less_than_equal 1"},
        {"presence_penalty", "-2", "2.1", "less_than_equal 2"},
        {"frequency_penalty", "2", "-2.1", "greater_than_equal -2"},
        {"repetition_penalty", "0.1", "0", "greater_than 0"},
        {"min_tokens", "0", "-1", "greater_than_equal 0"},
        {"logprobs", "20", "21", "less_than_equal 20 (--max-logprobs)"},
        {"logprobs", "0", "-1", "greater_than_equal 0"},
        {"priority", "-5", "3000000000", "less_than_equal 2147483647"},
        {"seed", "-9223372036854775808", "1.5", "integer"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = {0};
        assert_int_equal(read(ON_COMPLETIONS, rows[i].name, rows[i].good, &e), RC_OK);
        assert_int_equal(read(ON_COMPLETIONS, rows[i].name, rows[i].bad, &e), RC_INVALID);
        assert_string_equal(e.param, rows[i].name);
        if (!strstr(e.msg, rows[i].says))
            fail_msg("%s: %s", rows[i].name, e.msg);
    }
}

/* --max-logprobs -1: no bound, and -1 asks for all. */
static void test_unbounded_logprobs(void **state) {
    (void)state;
    struct api_fixture f;
    struct field_values v;
    struct err e = {0};
    api_fixture_init(&f);
    f.opts.limit.logprobs = -1;
    json_t *root = json_pack("{s:i}", "logprobs", -1);
    assert_int_equal(api_fields_read(ON_COMPLETIONS, root, &f.opts.limit, &v, &e), RC_OK);
    assert_int_equal(v.n_logprobs.v, -1);
    json_object_set_new(root, "logprobs", json_integer(-2));
    assert_int_equal(api_fields_read(ON_COMPLETIONS, root, &f.opts.limit, &v, &e), RC_INVALID);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_table),
        cmocka_unit_test(test_error_body),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_every_field_every_value),
        cmocka_unit_test(test_ignored_have_kinds),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_unbounded_logprobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
