/* Which template renders a request, templates that requests bring, and messages that are continued
 * (api.md 10.1.1, 10.3, 10.4.2), on all routes that take messages. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/api_fixture.h"

static void open(struct api_fixture *f, const char *config) {
    struct err e = {0};
    api_fixture_init(f);
    f->context = 4096;
    if (config)
        f->tokenizer_config = str_of(config);
    if (api_fixture_open(f, &e))
        fail_msg("%s", e.msg);
}

static enum rc prompt(struct api_fixture *f, const char *body, struct buf *out, struct err *e) {
    struct gen_req *r = NULL;
    *e = (struct err){0};
    enum rc rc = gen_prepare(&f->env, GEN_CHAT, str_of(body), (struct str){0}, &r, e);
    if (rc == RC_OK)
        detok_all(f->m->tok, r->prompts[0].ids, r->prompts[0].n_ids, false, out);
    gen_req_free(r);
    return rc;
}

static void expect(struct api_fixture *f, const char *body, const char *want) {
    struct buf out = {0};
    struct err e;
    if (prompt(f, body, &out, &e))
        fail_msg("%s: %s (%s)", body, e.msg, e.param);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
}

static void refused(struct api_fixture *f, const char *body, const char *param, const char *says) {
    struct buf out = {0};
    struct err e;
    enum rc rc = prompt(f, body, &out, &e);
    if (rc != RC_INVALID || strcmp(e.param, param) || !strstr(e.msg, says))
        fail_msg("%s: %s %s (param %s)", body, rc_name(rc), e.msg, e.param);
    buf_fini(&out);
}

#define USER(x) "{\"role\":\"user\",\"content\":" x "}"
#define BOT(x) "{\"role\":\"assistant\",\"content\":" x "}"
#define BODY(messages, rest) "{\"messages\":[" messages "]" rest "}"
#define TEMPLATE(t) ",\"chat_template\":\"" t "\""
#define CONTINUE ",\"continue_final_message\":true"
#define TOOL ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"none\""

/* ---- choice ---- */

static void test_named_templates(void **state UNUSED) {
    struct api_fixture f;
    open(&f, "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D{{ tools is none }}\"},"
             "{\"name\":\"tool_use\",\"template\":\"T{{ tools[0].function.name }}\"},"
             "{\"name\":\"rag\",\"template\":\"R\"}]}");
    expect(&f, BODY(USER("\"a\""), ""), "DTrue");
    expect(&f, BODY(USER("\"a\""), TOOL), "Tf");
    expect(&f, BODY(USER("\"a\""), TOOL TEMPLATE("own")), "own");
    api_fixture_fini(&f);
    open(&f, "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"}]}");
    expect(&f, BODY(USER("\"a\""), TOOL), "T");
    refused(&f, BODY(USER("\"a\""), ""), "messages", "has no chat template");
    api_fixture_fini(&f);
    open(&f, "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"},"
             "{\"name\":\"tool_use\",\"template\":\"{% if %}\"}]}");
    expect(&f, BODY(USER("\"a\""), ""), "D");
    refused(&f, BODY(USER("\"a\""), TOOL), "messages", "chat template does not compile");
    api_fixture_fini(&f);
}

/* Each of the two named templates has its own content format and its own view of the role developer. */
static void test_each_template_has_its_format(void **state UNUSED) {
    struct api_fixture f;
    open(&f,
         "{\"chat_template\":[{\"name\":\"default\",\"template\":\"{{ messages[0].role }}:{{ "
         "messages[0].content }}\"},"
         "{\"name\":\"tool_use\",\"template\":\"developer? {% for m in messages %}{{ m.role }}{% for c in "
         "m.content %}[{{ c.text }}]{% endfor %}{% endfor %}\"}]}");
    assert_false(f.m->chat.openai);
    assert_true(f.m->chat_tools.openai);
#define DEVELOPER "{\"role\":\"developer\",\"content\":\"a\"}"
    expect(&f, BODY(DEVELOPER, ""), "system:a");
    expect(&f, BODY(DEVELOPER, TOOL), "developer? developer[a]");
    expect(&f, BODY(DEVELOPER, TEMPLATE("{{ messages[0].role }}")), "system");
    expect(&f, BODY(DEVELOPER, TEMPLATE("{# developer #}{{ messages[0].role }}")), "developer");
    api_fixture_fini(&f);
}

/* ---- templates of requests ---- */

static void test_request_template(void **state UNUSED) {
    struct api_fixture f;
    open(&f, NULL);
    expect(
        &f,
        BODY(USER("\"a\""),
             TEMPLATE("{{ bos_token }}<|im_start|>{{ messages[0].content }}|{{ x }}") ",\"chat_template_"
                                                                                      "kwargs\":{\"x\":7}"),
        "<s><|im_start|>a|7");
    expect(&f, BODY(USER("\"a\""), ",\"chat_template\":null"),
           "<s><|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
    /* its own content format */
    expect(
        &f,
        BODY(USER("\"a\""), TEMPLATE("{% for m in messages %}{% for c in m.content %}[{{ c.text }}]{% endfor "
                                     "%}{% endfor %}")),
        "[a]");
    expect(&f, BODY(USER("[\"a\",\"b\"]"), TEMPLATE("{{ messages[0].content }}")), "a\nb");
    refused(&f, BODY(USER("\"a\""), ",\"chat_template\":7"), "chat_template", "string");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("x\\n{% for %}")), "chat_template", "(line 2)");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("{{ raise_exception('not you') }}")), "chat_template",
            "not you (line 1)");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("{% include 'x' %}")), "chat_template", "include");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("")), "chat_template", "must not be empty");
    api_fixture_fini(&f);
}

/* The budgets of api.md 18 hold for them. */
static void test_request_template_is_bounded(void **state UNUSED) {
    struct api_fixture f;
    api_fixture_init(&f);
    f.opts.limit.template_bytes = 100;
    f.opts.limit.template_steps = 10000;
    f.opts.limit.template_output = 1000;
    f.opts.limit.template_depth = 8;
    struct err e = {0};
    f.tokenizer_config = STR_LIT("{\"chat_template\":\"M\"}");
    assert_int_equal(api_fixture_open(&f, &e), RC_OK);
    expect(&f, BODY(USER("\"a\""), TEMPLATE("{{ 'x' * 10 }}")), "xxxxxxxxxx");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("{% for i in range(99999) %}{% endfor %}")), "chat_template",
            "budget");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("{{ 'x' * 1001 }}")), "chat_template", "over its limit");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")),
            "chat_template", "(line 1)");
    refused(&f, BODY(USER("\"a\""), TEMPLATE("{{ ((((((((((1)))))))))) }}")), "chat_template", "nested");
    struct buf body = {0};
    buf_addz(&body, "{\"messages\":[" USER("\"a\"") "],\"chat_template\":\"");
    for (int i = 0; i < 101; i++)
        buf_addc(&body, 'x');
    buf_addz(&body, "\"}");
    refused(&f, buf_cstr(&body), "chat_template", "limit of 100");
    buf_fini(&body);
    api_fixture_fini(&f);
}

static void test_request_template_refused(void **state UNUSED) {
    struct api_fixture f;
    open(&f, NULL);
    f.opts.request_template = false;
    refused(&f, BODY(USER("\"a\""), TEMPLATE("x")), "chat_template", "--no-request-chat-template");
    expect(&f, BODY(USER("\"a\""), ",\"chat_template\":null,\"add_generation_prompt\":false"),
           "<s><|im_start|>user\na<|im_end|>\n");
    api_fixture_fini(&f);
}

static void test_request_templates_are_kept(void **state UNUSED) {
    struct api_fixture f;
    open(&f, NULL);
    for (int i = 0; i < 5; i++)
        expect(&f, BODY(USER("\"a\""), TEMPLATE("{{ 1 }}")), "1");
    assert_int_equal(tmpl_cache_count(f.m->templates), 1);
    for (int i = 0; i < 5; i++)
        refused(&f, BODY(USER("\"a\""), TEMPLATE("{{ 1 ")), "chat_template", "line 1");
    assert_int_equal(tmpl_cache_count(f.m->templates), 1);
    api_fixture_fini(&f);
}

/* Never on a loop's thread: such a template may spend its whole budget. */
static void test_request_template_is_no_light_work(void **state UNUSED) {
    struct api_fixture f;
    struct gen_req *r = NULL;
    struct err e;
    open(&f, NULL);
    static const enum gen_route routes[] = {GEN_CHAT, GEN_EMBEDDINGS};
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        assert_int_equal(gen_prepare_light(&f.env, routes[i], STR_LIT(BODY(USER("\"a\""), TEMPLATE("x"))),
                                           (struct str){0}, &r, &e),
                         RC_AGAIN);
    assert_int_equal(
        gen_prepare_light(&f.env, GEN_CHAT, STR_LIT(BODY(USER("\"a\""), "")), (struct str){0}, &r, &e),
        RC_OK);
    gen_req_free(r);
    api_fixture_fini(&f);
}

/* A template of the client's is a template: its own special tokens are read, those of messages are not. */
static void test_request_template_spells_tokens(void **state UNUSED) {
    struct api_fixture f;
    struct gen_req *r = NULL;
    struct err e = {0};
    open(&f, NULL);
    const char *body = BODY(
        USER("\"<|im_end|>\""),
        TEMPLATE(
            "<|im_start|>{{ messages[0].content }}{{ k }}") ",\"chat_template_kwargs\":{\"k\":\"</s>\"}");
    if (gen_prepare(&f.env, GEN_CHAT, str_of(body), (struct str){0}, &r, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(r->prompts[0].n_ids, 1 + strlen("<|im_end|></s>"));
    assert_int_equal(r->prompts[0].ids[0], FIX_BEGIN);
    gen_req_free(r);
    api_fixture_fini(&f);
}

/* ---- continue_final_message ---- */

#define OPENED "<s><|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"

static void test_continue(void **state UNUSED) {
    struct api_fixture f;
    open(&f, NULL);
    expect(&f, BODY(USER("\"q\"") "," BOT("\"Sure, it\""), CONTINUE), OPENED "Sure, it");
    expect(&f, BODY(USER("\"q\"") "," BOT("\"Sure, it\""), CONTINUE ",\"add_generation_prompt\":false"),
           OPENED "Sure, it");
    expect(&f, BODY(USER("\"q\"") "," BOT("\"Sure, it\""), CONTINUE ",\"add_generation_prompt\":null"),
           OPENED "Sure, it");
    /* what stands in the template, too, is not mistaken for it */
    expect(&f, BODY(USER("\"q\"") "," BOT("\"e\""), CONTINUE), OPENED "e");
    expect(&f, BODY(USER("\"q\"") "," BOT("\"<|im_end|>\""), CONTINUE), OPENED "<|im_end|>");
    expect(&f, BODY(USER("\"q\"") "," BOT("\"\""), CONTINUE), OPENED);
    expect(&f, BODY(USER("\"q\"") "," BOT("null"), CONTINUE), OPENED);
    expect(&f, BODY(USER("\"q\"") "," BOT("\"a \\n\""), CONTINUE), OPENED "a \n");
    expect(&f, BODY(USER("\"q\"") "," BOT("[\"a\",{\"type\":\"text\",\"text\":\"b\"}]"), CONTINUE),
           OPENED "a\nb");
    expect(&f,
           BODY(USER("\"q\"") "," USER("\"\\u00e9\\ud83d\\ude00\\u0000x\""),
                CONTINUE TEMPLATE("{% for m in messages %}{{ m.content }};{% endfor %}")),
           "q;\xC3\xA9\xF0\x9F\x98\x80");
    refused(&f, BODY(BOT("\"a\""), CONTINUE ",\"add_generation_prompt\":true"), "continue_final_message",
            "add_generation_prompt");
    refused(&f, BODY(BOT("\"a\""), ",\"continue_final_message\":\"perhaps\""), "continue_final_message",
            "boolean");
    api_fixture_fini(&f);
}

static void test_continue_strips_as_the_template(void **state UNUSED) {
    static const struct {
        const char *template, *content, *want;
    } rows[] = {
        {"<{{ m.content }}>", " a ", "< a "},
        {"<{{ m.content | trim }}>", " a ", "<a"},
        {"<{{ m.content | trim }} >", " a ", "<a"}, /* the space is the template's */
        {"<{{ m.content.lstrip() }}>", " a ", "<a "},
        {"<{{ m.content.rstrip() }}>", " a ", "< a"},
        {"<\\n{{ m.content | trim }}>", " \\n\\u3000", "<\n"},
        {"<{{ m.content | trim }}>", "a\\u00a0\\u2003", "<a"},
        {"<{{ m.content }}>", "a\\u00a0", "<a\xC2\xA0"},
        {"<{{ m.content }}|{{ m.content }}>", "a ", "<a |a "},
        {"<{{ m.content | trim }}|{{ m.content | trim }}>", "a ", "<a |a"},
        {"<{{ m.content | upper | lower }}>", "a", "<a"},
        {"<{{ m.content | tojson }}>", "a", "<\"a"},
        {"<{{ m.content }}{{ 'a' * 9 }}>", "a", "<a"},
        {"<{{ m.content.split('</x>')[-1] }}>", "a", "<a"},
    };
    struct api_fixture f;
    open(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf body = {0};
        buf_addf(&body,
                 "{\"messages\":[" BOT("\"%s\"") "]" CONTINUE
                                                 ",\"chat_template\":\"{%% set m = messages[-1] %%}%s\"}",
                 rows[i].content, rows[i].template);
        expect(&f, buf_cstr(&body), rows[i].want);
        buf_fini(&body);
    }
    static const char *const lost[] = {
        "{{ messages[0].role }}",
        "{{ messages[0].content | upper }}",
        "{{ messages[0].content | length }}",
        "{{ messages[0].content[1:] }}",
        "{{ messages[0].content.split('b')[-1] }}",
        "{{ messages[0].content | replace('b', 'bb') }}",
        "{{ messages[0].content | reverse }}",
        "x",
    };
    for (size_t i = 0; i < ARRAY_LEN(lost); i++) {
        struct buf body = {0};
        buf_addf(&body, "{\"messages\":[" BOT("\"abc\"") "]" CONTINUE ",\"chat_template\":\"%s\"}", lost[i]);
        refused(&f, buf_cstr(&body), "continue_final_message", "as it is");
        buf_fini(&body);
    }
    api_fixture_fini(&f);
}

static void test_continue_openai_content(void **state UNUSED) {
    struct api_fixture f;
    open(&f, "{\"chat_template\":\"{% for m in messages %}<{{ m.role }}>{% for c in m.content %}[{{ c.text "
             "if c.type == "
             "'text' else c.thinking }}]{% endfor %}{% endfor %}\"}");
    assert_true(f.m->chat.openai);
    expect(&f, BODY(BOT("\"ab\""), CONTINUE), "<assistant>[ab");
    expect(&f, BODY(BOT("[\"a\",\"b\"]"), CONTINUE), "<assistant>[a][b");
    expect(&f, BODY(BOT("[\"a\",{\"type\":\"thinking\",\"thinking\":\"t\"}]"), CONTINUE), "<assistant>[a");
    expect(&f, BODY(BOT("[{\"type\":\"thinking\",\"thinking\":\"t\"}]"), CONTINUE), "<assistant>[t][");
    expect(&f, BODY(BOT("[]"), CONTINUE), "<assistant>[");
    expect(&f, BODY(BOT("null"), CONTINUE), "<assistant>[");
    api_fixture_fini(&f);
}

/* Text of the client stays marked, in front of the cut and where the word was taken out. */
static void test_continue_keeps_marks(void **state UNUSED) {
    struct api_fixture f;
    struct gen_req *r = NULL;
    struct err e = {0};
    open(&f, NULL);
    const char *body =
        BODY(USER("\"</s>\"") "," BOT("\"</s>\""),
             CONTINUE TEMPLATE(
                 "{{ messages[1].content }}</s>{% for m in messages %}{{ m.content }}<s>{% endfor %}"));
    if (gen_prepare(&f.env, GEN_CHAT, str_of(body), (struct str){0}, &r, &e))
        fail_msg("%s", e.msg);
    const uint32_t text[] = {'<', '/', 's', '>'};
    assert_int_equal(r->prompts[0].n_ids, 14);
    assert_memory_equal(r->prompts[0].ids, text, sizeof text);
    assert_int_equal(r->prompts[0].ids[4], FIX_EOS);
    assert_memory_equal(r->prompts[0].ids + 5, text, sizeof text);
    assert_int_equal(r->prompts[0].ids[9], FIX_BOS);
    assert_memory_equal(r->prompts[0].ids + 10, text, sizeof text);
    gen_req_free(r);
    api_fixture_fini(&f);
}

/* The answer's role is the continued message's. */
static void test_continue_role(void **state UNUSED) {
    struct api_fixture f;
    struct gen_req *r = NULL;
    struct err e = {0};
    open(&f, NULL);
    assert_int_equal(
        gen_prepare(&f.env, GEN_CHAT, STR_LIT(BODY(USER("\"a\""), CONTINUE)), (struct str){0}, &r, &e),
        RC_OK);
    assert_true(str_eqz(r->role, "user"));
    gen_req_free(r);
    api_fixture_fini(&f);
}

/* ---- the other routes ---- */

static void tokenized(struct api_fixture *f, const char *body, const char *want) {
    struct buf out = {0}, text = {0};
    struct err e = {0};
    json_t *v = NULL;
    if (api_tokenize(&f->env, str_of(body), &out, &e))
        fail_msg("%s: %s (%s)", body, e.msg, e.param);
    assert_int_equal(json_parse(buf_str(&out), &json_limits_default, &v, &e), RC_OK);
    json_t *tokens = json_object_get(v, "tokens");
    for (size_t i = 0; i < json_array_size(tokens); i++)
        buf_add_str(&text, tok_bytes(f->m->tok, (uint32_t)json_integer_value(json_array_get(tokens, i))));
    assert_string_equal(buf_cstr(&text), want);
    json_decref(v);
    buf_fini(&text);
    buf_fini(&out);
}

static void test_tokenize(void **state UNUSED) {
    struct api_fixture f;
    struct buf out = {0};
    struct err e = {0};
    open(&f, NULL);
    tokenized(&f, BODY(USER("\"q\"") "," BOT("\"Sure\""), CONTINUE), OPENED "Sure");
    tokenized(&f,
              BODY(USER("\"q\""), TEMPLATE("{{ messages[0].content }}{{ documents[0].t }}{{ reasoning_effort "
                                           "}}") ",\"documents\":[{\"t\":\"D\"}],\"reasoning_effort\":"
                                                 "\"low\""),
              "qDlow");
    assert_int_equal(
        api_tokenize(&f.env, STR_LIT(BODY(USER("\"q\""), CONTINUE ",\"add_generation_prompt\":1")), &out, &e),
        RC_INVALID);
    assert_string_equal(e.param, "continue_final_message");
    f.opts.request_template = false;
    assert_int_equal(api_tokenize(&f.env, STR_LIT(BODY(USER("\"q\""), TEMPLATE("x"))), &out, &e), RC_INVALID);
    assert_string_equal(e.param, "chat_template");
    buf_fini(&out);
    api_fixture_fini(&f);
}

static void pooled(struct api_fixture *f, enum gen_route route, const char *body, const char *want) {
    struct gen_req *r = NULL;
    struct buf out = {0};
    struct err e = {0};
    if (gen_prepare(&f->env, route, str_of(body), (struct str){0}, &r, &e))
        fail_msg("%s: %s (%s)", body, e.msg, e.param);
    detok_all(f->m->tok, r->prompts[0].ids, r->prompts[0].n_ids, false, &out);
    assert_string_equal(buf_cstr(&out), want);
    gen_req_free(r);
    buf_fini(&out);
}

static void test_pooling_routes(void **state UNUSED) {
    struct api_fixture f;
    struct gen_req *r = NULL;
    struct err e = {0};
    api_fixture_init(&f);
    f.pooling = STR_LIT("{\"task\":\"embed\",\"dimensions\":8,\"hidden\":8,\"n_labels\":0}");
    assert_int_equal(api_fixture_open(&f, &e), RC_OK);
    static const enum gen_route routes[] = {GEN_EMBEDDINGS, GEN_POOLING};
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        pooled(&f, routes[i], BODY(USER("\"q\""), ""), "<s><|im_start|>user\nq<|im_end|>\n");
        pooled(&f, routes[i], BODY(USER("\"q\""), CONTINUE), "<s><|im_start|>user\nq");
        pooled(&f, routes[i],
               BODY(USER("\"q\""), TEMPLATE("[{{ messages[0].content }}]{{ add_generation_prompt }}")),
               "[q]False");
        assert_int_equal(gen_prepare(&f.env, routes[i],
                                     STR_LIT(BODY(USER("\"q\""), CONTINUE ",\"add_generation_prompt\":true")),
                                     (struct str){0}, &r, &e),
                         RC_INVALID);
        assert_string_equal(e.param, "continue_final_message");
    }
    api_fixture_fini(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named_templates),
        cmocka_unit_test(test_each_template_has_its_format),
        cmocka_unit_test(test_request_template),
        cmocka_unit_test(test_request_template_is_bounded),
        cmocka_unit_test(test_request_template_refused),
        cmocka_unit_test(test_request_templates_are_kept),
        cmocka_unit_test(test_request_template_is_no_light_work),
        cmocka_unit_test(test_request_template_spells_tokens),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_continue_strips_as_the_template),
        cmocka_unit_test(test_continue_openai_content),
        cmocka_unit_test(test_continue_keeps_marks),
        cmocka_unit_test(test_continue_role),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_pooling_routes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
