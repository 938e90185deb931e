/* Reasoning and calls in the answers of a chat (api.md 7.4, 7.5, 11): streamed and whole, from the same tokens. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "common/gram/gram.h"
#include "common/json.h"
#include "tests/support/api_fixture.h"

static int setup(void **state) {
    struct api_fixture *f = xcalloc(1, sizeof *f);
    struct err e = {0};
    static char hermes[] = "hermes", qwen3[] = "qwen3";
    api_fixture_init(f);
    f->context = 1024;
    f->opts.auto_tool_choice = true;
    f->opts.tool_call_parser = hermes;
    f->opts.reasoning_parser = qwen3;
    *state = f;
    return api_fixture_open(f, &e) ? -1 : 0;
}

static int teardown(void **state) {
    api_fixture_fini(*state);
    free(*state);
    return 0;
}

#define TOOLS "'tools':[{'type':'function','function':{'name':'f'}},{'type':'function','function':{'name':'g'}}]"

/* start: fields with ' for ". */
static struct gen_run *start(struct api_fixture *f, const char *fields, bool stream) {
    struct buf b = {0};
    struct gen_req *r = NULL;
    struct err e = {0};
    buf_addf(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"stream\":%s", stream ? "true" : "false");
    buf_addc(&b, *fields ? ',' : ' ');
    for (; *fields; fields++)
        buf_addc(&b, *fields == '\'' ? '"' : *fields);
    buf_addc(&b, '}');
    if (gen_prepare(&f->env, GEN_CHAT, buf_str(&b), STR_LIT("x"), &r, &e))
        fail_msg("%s", e.msg);
    buf_fini(&b);
    return gen_run_new(r);
}

/* say: text as a token a byte, or, with marks, <tool_call> and <think> and their ends as the tokens they are. */
static void say(struct gen_run *g, const char *text, bool marks, const struct gen_finish *finish, struct buf *out) {
    static const struct {
        const char *z;
        uint32_t id;
    } added[] = {{"<think>", FIX_THINK}, {"</think>", FIX_UNTHINK}, {"<tool_call>", FIX_CALL},
                 {"</tool_call>", FIX_UNCALL}};
    while (*text) {
        struct gen_token t = {.id = (uint8_t)*text, .logprob = -1};
        size_t n = 1;
        for (size_t i = 0; i < ARRAY_LEN(added) && marks; i++)
            if (str_starts(str_of(text), str_of(added[i].z))) {
                t.id = added[i].id;
                n = strlen(added[i].z);
            }
        text += n;
        assert_int_equal(gen_on_step(g, 0, &t, *text ? NULL : finish, out), GEN_CONTINUE);
    }
}

static struct str string_of(const json_t *obj, const char *key) {
    const json_t *v = json_object_get(obj, key);
    return (struct str){json_string_value(v), json_string_length(v)};
}

static bool short_ids; /* of the calls seen last */

static void add_calls(const json_t *calls, bool stream, struct buf *to) {
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call) {
        const json_t *fn = json_object_get(call, "function");
        struct str name = string_of(fn, "name"), id = string_of(call, "id");
        if (name.p) {
            assert_true(id.n == 9 || (id.n == 46 && str_starts(id, STR_LIT("chatcmpl-tool-"))));
            short_ids = id.n == 9;
            for (size_t k = 0; k < 9 && short_ids; k++)
                assert_true((id.p[k] | 0x20) >= 'a' ? (id.p[k] | 0x20) <= 'z' : id.p[k] >= '0' && id.p[k] <= '9');
            assert_true(str_eqz(string_of(call, "type"), "function"));
            buf_addz(to, to->len ? ";" : "");
            buf_add_str(to, name);
            buf_addc(to, ':');
        }
        assert_true(json_is_integer(json_object_get(call, "index")) == stream);
        assert_true(!stream || i == 0 || json_integer_value(json_object_get(call, "index")) >
                                             json_integer_value(json_object_get(json_array_get(calls, i - 1), "index")));
        assert_true(json_is_string(json_object_get(fn, "arguments")));
        buf_add_str(to, string_of(fn, "arguments"));
    }
}

struct answer {
    struct buf content, reasoning, calls;
    bool null_content;
    struct str finish;
    size_t n_lp, n_chunks;
};

static void add_message(struct answer *a, const json_t *choice, const json_t *m, bool stream) {
    struct str reasoning = string_of(m, "reasoning"), twin = string_of(m, "reasoning_content");
    assert_true(str_eq(reasoning, twin));
    buf_add_str(&a->reasoning, reasoning);
    buf_add_str(&a->content, string_of(m, "content"));
    add_calls(json_object_get(m, "tool_calls"), stream, &a->calls);
    a->n_lp += json_array_size(json_object_get(json_object_get(choice, "logprobs"), "content"));
}

/* run: "reasoning|content|calls|finish" of the text, whole and streamed, steps by themselves or gathered; content
 * null shows as "null". */
static void gives_with(struct api_fixture *f, const char *fields, const char *text, bool marks,
                       const struct gen_finish *finish, const char *want) {
    static const int64_t intervals[] = {1, 1, 4, 1000};
    for (int stream = 0; stream < (int)ARRAY_LEN(intervals); stream++) {
        f->opts.stream_interval = intervals[stream];
        struct gen_run *g = start(f, fields, stream);
        struct buf out = {0}, got = {0};
        struct err e = {0};
        struct answer a = {0};
        char last[16] = "";
        say(g, text, marks, finish, &out);
        assert_int_equal(gen_on_end(g, &out, &e), RC_OK);
        size_t n_tokens = gen_run_counts(g).completion_tokens;
        if (!stream) {
            json_t *whole = json_loadb(out.data, out.len, 0, NULL);
            json_t *choice = json_array_get(json_object_get(whole, "choices"), 0),
                   *m = json_object_get(choice, "message");
            add_message(&a, choice, m, false);
            if (json_is_null(json_object_get(m, "content")))
                buf_addz(&a.content, "null");
            snprintf(last, sizeof last, "%s", string_of(choice, "finish_reason").p);
            json_decref(whole);
        }
        for (char *line = stream ? strtok((char *)(uintptr_t)buf_cstr(&out), "\n") : NULL; line;
             line = strtok(NULL, "\n")) {
            json_t *chunk = json_loads(line + strlen("data: "), 0, NULL);
            json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
            const json_t *delta = json_object_get(choice, "delta");
            add_message(&a, choice, delta, true);
            assert_true(!*last || !choice); /* nothing behind the finish */
            bool ends = json_is_string(json_object_get(choice, "finish_reason"));
            if (choice && !ends)
                assert_true(json_object_size(delta) > 0);
            if (ends)
                snprintf(last, sizeof last, "%s", string_of(choice, "finish_reason").p);
            json_decref(chunk);
        }
        buf_addf(&got, "%s|%s|", buf_cstr(&a.reasoning), buf_cstr(&a.content));
        buf_addf(&got, "%s|%s", buf_cstr(&a.calls), last);
        struct buf expected = {0};
        for (const char *p = want; *p; p++)
            if (stream && str_starts(str_of(p), STR_LIT("|null|")))
                p += 4, buf_addc(&expected, '|');
            else
                buf_addc(&expected, *p);
        assert_string_equal(buf_cstr(&got), buf_cstr(&expected));
        if (strstr(fields, "logprobs"))
            assert_int_equal(a.n_lp, n_tokens); /* each entry once, whatever steps were silent */
        buf_fini(&a.content);
        buf_fini(&a.reasoning);
        buf_fini(&a.calls);
        buf_fini(&got);
        buf_fini(&expected);
        buf_fini(&out);
        gen_run_free(g);
    }
}

static const struct gen_finish STOP = {.reason = GEN_STOP}, LENGTH = {.reason = GEN_LENGTH};

/* The same whether marks are tokens of their own, hidden or shown, or are spelled. The finish comes with the last
 * token: a stop token then has no text. */
static void gives(struct api_fixture *f, const char *fields, const char *text, const struct gen_finish *finish,
                  const char *want) {
    struct buf b = {0};
    gives_with(f, fields, text, false, finish, want);
    gives_with(f, fields, text, true, finish, want);
    buf_addf(&b, "%s%s'skip_special_tokens':false", fields, *fields ? "," : "");
    gives_with(f, buf_cstr(&b), text, true, finish, want);
    b.len = 0;
    buf_addf(&b, "%s%s'logprobs':true", fields, *fields ? "," : "");
    gives_with(f, buf_cstr(&b), text, true, finish, want);
    buf_fini(&b);
}

#define CALL(name, args) "<tool_call>{\"name\": \"" name "\", \"arguments\": " args "}</tool_call>"
#define END "\1" /* stands for the stop token: its text is left out */

static void test_auto(void **state) {
    struct api_fixture *f = *state;
    gives(f, TOOLS, "hello" END, &STOP, "|hello||stop");
    gives(f, TOOLS, CALL("f", "{\"a\": 1}") END, &STOP, "|null|f:{\"a\": 1}|tool_calls");
    gives(f, TOOLS, "so: " CALL("f", "{}") "\n" CALL("g", "{\"q\":\"\xc3\xbc\"}") END, &STOP,
          "|so: |f:{};g:{\"q\":\"\xc3\xbc\"}|tool_calls");
    gives(f, TOOLS, "<think>hm</think>" CALL("f", "{}") END, &STOP, "hm|null|f:{}|tool_calls");
    gives(f, TOOLS, "<think>hm</think>\n\nyes" END, &STOP, "hm|\n\nyes||stop");
    gives(f, TOOLS, "<think>hm", &LENGTH, "hm|null||length");
    gives(f, TOOLS, CALL("f", "{\"a\": 1}"), &LENGTH, "|null|f:{\"a\": 1}|length");
    gives(f, TOOLS, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"xy", &LENGTH, "|null|f:{\"a\": \"xy|length");
    gives(f, TOOLS ",'tool_choice':'auto'", CALL("f", "{}") END, &STOP, "|null|f:{}|tool_calls");
    gives_with(f, TOOLS, "<tool_call>no</tool_call>" END, false, &STOP, "|<tool_call>no</tool_call>||stop");
    gives_with(f, TOOLS, "<tool_call>no</tool_call>" END, true, &STOP, "|no||stop"); /* special tokens are not shown */
    gives_with(f, TOOLS ",'skip_special_tokens':false", "<tool_call>no</tool_call>" END, true, &STOP,
               "|<tool_call>no</tool_call>||stop");
}

static void test_others(void **state) {
    struct api_fixture *f = *state;
    /* no auto choice: a call is content */
    gives_with(f, TOOLS ",'tool_choice':'none'", CALL("f", "{}") END, false, &STOP, "|" CALL("f", "{}") "||stop");
    gives(f, "", "<think>a</think>b" END, &STOP, "a|b||stop");
    gives(f, "", "b" END, &STOP, "|b||stop");
    gives(f, "'include_reasoning':false", "<think>a</think>b" END, &STOP, "|b||stop");
    gives(f, "'include_reasoning':false", "<think>a", &LENGTH, "|null||length");
    gives_with(f, "'chat_template_kwargs':{'enable_thinking':false}", "<think>a</think>b" END, true, &STOP,
               "|<think>a</think>b||stop");
    gives_with(f, "'chat_template_kwargs':{'thinking':false}", "<think>a</think>b" END, true, &STOP,
               "|<think>a</think>b||stop");
    gives(f, TOOLS ",'tool_choice':'required'", "<think>a</think>[{\"name\": \"f\", \"parameters\": {}}]" END, &STOP,
          "a||f:{}|tool_calls");
    gives(f, TOOLS ",'tool_choice':'required'", "<think>a</think>[{\"name\": \"f\", \"parameters\": {", &LENGTH, "a||f:{|length");
    gives(f, TOOLS ",'tool_choice':{'type':'function','function':{'name':'g'}}", "<think>a</think>{}" END, &STOP,
          "a||g:{}|stop");
    gives(f, "'stop':['yz']", "<think>ax</think>by" END, &STOP, "ax|by||stop");
}

/* What usage tells of the reasoning: its tokens, the marks' included (api.md 8.12.2). */
static void test_reasoning_tokens(void **state) {
    struct api_fixture *f = *state;
    static char qwen3[] = "qwen3", r1[] = "deepseek_r1";
    static const struct {
        char *parser;
        const char *fields, *text;
        unsigned n, all;
    } rows[] = {
        {qwen3, "", "<think>hm</think>yes" END, 4, 8},
        {qwen3, "", "yes" END, 0, 4},
        {qwen3, "'include_reasoning':false", "<think>hm</think>yes" END, 4, 8},
        {qwen3, TOOLS, "<think>h</think>" CALL("f", "{}") END, 3, 36},
        {qwen3, "'chat_template_kwargs':{'enable_thinking':false}", "<think>hm</think>yes" END, 0, 8},
        {r1, "", "hm</think>yes" END, 3, 7},
        {r1, "", "hm", 2, 2},
    };
    char *before = f->opts.reasoning_parser;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int stream = 0; stream < 2; stream++) {
            char want[120];
            struct buf out = {0}, fields = {0};
            struct err e = {0};
            buf_addf(&fields, "%s%s%s", rows[i].fields, *rows[i].fields && stream ? "," : "",
                     stream ? "'stream_options':{'include_usage':true,'continuous_usage_stats':true}" : "");
            f->opts.reasoning_parser = rows[i].parser;
            struct gen_run *g = start(f, buf_cstr(&fields), stream);
            say(g, rows[i].text, true, &STOP, &out);
            assert_int_equal(gen_on_end(g, &out, &e), RC_OK);
            snprintf(want, sizeof want, "\"completion_tokens_details\":{\"reasoning_tokens\":%u}", rows[i].n);
            const char *last = NULL;
            for (const char *p = buf_cstr(&out); (p = strstr(p, "\"usage\":")); p++)
                last = p;
            if (!last || !strstr(last, want))
                fail_msg("%s: %s", rows[i].text, last ? last : buf_cstr(&out));
            assert_int_equal(gen_run_counts(g).completion_tokens, rows[i].all);
            gen_run_free(g);
            buf_fini(&out);
            buf_fini(&fields);
        }
    f->opts.reasoning_parser = NULL;
    struct gen_run *g = start(f, "", false);
    struct buf out = {0};
    struct err e = {0};
    say(g, "x" END, true, &STOP, &out);
    assert_int_equal(gen_on_end(g, &out, &e), RC_OK);
    assert_non_null(strstr(buf_cstr(&out), "\"completion_tokens_details\":null"));
    gen_run_free(g);
    buf_fini(&out);
    f->opts.reasoning_parser = before;
}

static void test_one_call(void **state) {
    struct api_fixture *f = *state;
    const char *two = CALL("f", "{}") CALL("g", "{}") "x" END;
    gives(f, TOOLS ",'parallel_tool_calls':false", two, &STOP, "|x|f:{};g:{}|tool_calls");
    f->opts.enforce_parallel_calls = true;
    gives(f, TOOLS ",'parallel_tool_calls':false", two, &STOP, "|x|f:{}|tool_calls");
    gives(f, TOOLS ",'parallel_tool_calls':true", two, &STOP, "|x|f:{};g:{}|tool_calls");
    gives(f, TOOLS ",'parallel_tool_calls':false,'tool_choice':'required'",
          "[{\"name\": \"f\", \"parameters\": {}}, {\"name\": \"g\", \"parameters\": {}}]" END, &STOP, "||f:{}|tool_calls");
    f->opts.enforce_parallel_calls = false;
}

/* Parsers that need more than the text. */
static void test_parsers(void **state) {
    struct api_fixture *f = *state;
    static char mistral[] = "mistral", qwen[] = "qwen3_coder", *before = NULL;
    before = f->opts.tool_call_parser;
    assert_false(short_ids);
    f->opts.tool_call_parser = mistral;
    gives(f, TOOLS, "[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g[ARGS]{}" END, &STOP, "|null|f:{\"a\": 1};g:{}|tool_calls");
    assert_true(short_ids);
    gives(f, TOOLS ",'tool_choice':'required'", "[{\"name\": \"f\", \"parameters\": {}}]" END, &STOP, "||f:{}|tool_calls");
    assert_true(short_ids);
    f->opts.tool_call_parser = qwen;
    gives(f,
          "'tools':[{'type':'function','function':{'name':'f','parameters':{'type':'object','properties':{"
          "'s':{'type':'string'},'i':{'type':'integer'},'u':{'type':['boolean','null']},'e':{'enum':['1',2]},"
          "'r':{'$ref':'#/$defs/x'},'o':{'anyOf':[{'type':'array'},{'type':'null'}]},'d':{}},'$defs':{'x':{}}}}}]",
          "<tool_call>\n<function=f>\n<parameter=i>\n1\n</parameter>\n<parameter=s>\n1\n</parameter>\n<parameter=u>\nNone\n"
          "</parameter>\n<parameter=e>\n2\n</parameter>\n<parameter=r>\n{}\n</parameter>\n<parameter=o>\n[1]\n</parameter>\n"
          "<parameter=d>\n5\n</parameter>\n</function>\n</tool_call>" END,
          &STOP, "|null|f:{\"i\": 1, \"s\": \"1\", \"u\": null, \"e\": 2, \"r\": {}, \"o\": [1], \"d\": \"5\"}|tool_calls");
    f->opts.tool_call_parser = before;
    gives(f, TOOLS, CALL("f", "{}") END, &STOP, "|null|f:{}|tool_calls");
    assert_false(short_ids);
}

static bool takes(struct api_fixture *f, const char *fields, const char *text) {
    struct gen_run *g = start(f, fields, false);
    const struct gen_req *r = gen_run_req(g);
    struct gram *gram;
    struct err e = {0};
    if (gram_compile(&gram, r->constraint.kind, r->constraint.text, r->constraint.options, NULL, &e))
        fail_msg("%s", e.msg);
    struct gram_run *run = gram_run_new(gram, NULL);
    bool yes = gram_run_bytes(run, str_of(text), NULL, &e) == RC_OK && gram_run_may_end(run);
    gram_run_free(run);
    gram_drop(gram);
    gen_run_free(g);
    return yes;
}

/* With calls of the model's own: content that meets the constraint, or calls. */
static void test_constraint_or_calls(void **state) {
    struct api_fixture *f = *state;
    static const struct {
        const char *parser, *call;
    } rows[] = {
        {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"},
        {"hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": "
                   "{\"x\":1}}\n</tool_call>"},
        {"llama3_json", "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}"},
        {"llama4_json", "{\"name\": \"f\", \"parameters\": {}}"},
        {"mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]"},
        {"mistral", "[TOOL_CALLS]f[ARGS]{}"},
        {"jamba", "<tool_calls>[{\"name\": \"f\", \"arguments\": {}}]</tool_calls>"},
        {"pythonic", "[f(), g(x=-1.5, y=['a', {'b': None}])]"},
        {"llama4_pythonic", "[g(x=\"a\\\"b\")]"},
        {"qwen3_coder", "<tool_call>\n<function=g>\n<parameter=x>\na<b\n</parameter>\n</function>\n</tool_call>"},
    };
    static const char tools[] =
        "'tools':[{'type':'function','function':{'name':'f'}},{'type':'function','function':{'name':'g','parameters':"
        "{'type':'object','properties':{'x':{'type':'integer'},'y':{}}}}}]";
    static const char *const own[][2] = {
        {"'guided_regex':'[0-9]+'", "12"},
        {"'guided_choice':['','ab']", "ab"},
        {"'guided_choice':['','ab']", ""},
        {"'guided_json':{'type':'integer'}", "3"},
        {"'guided_grammar':'root ::= \\\"q\\\"'", "q"},
        {"'response_format':{'type':'json_object'}", "{}"},
        {"'response_format':{'type':'structural_tag','format':{'type':'const_string','value':'z'}}", "z"},
        {"'structural_tag':{'type':'structural_tag','structures':[{'begin':'<a>','schema':{'const':1},'end':'</a>'}],"
         "'triggers':['<a']}",
         "t <a>1</a>"},
    };
    char *before = f->opts.tool_call_parser, name[32];
    f->opts.tool_call_parser = name;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf fields = {0};
        snprintf(name, sizeof name, "%s", rows[i].parser);
        buf_addf(&fields, "%s,'chat_template_kwargs':{'thinking':false},%s", tools, own[i % ARRAY_LEN(own)][0]);
        if (!takes(f, buf_cstr(&fields), rows[i].call))
            fail_msg("%s: %s", name, rows[i].call);
        if (i % ARRAY_LEN(own) < 7)
            assert_false(takes(f, buf_cstr(&fields), "free"));
        buf_fini(&fields);
    }
    snprintf(name, sizeof name, "hermes");
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        struct buf fields = {0};
        buf_addf(&fields, "%s,%s", TOOLS, own[i][0]);
        if (!takes(f, buf_cstr(&fields), own[i][1]))
            fail_msg("%s", own[i][0]);
        buf_fini(&fields);
    }
    f->opts.tool_call_parser = before;
    /* a call inside such content is content */
    gives_with(f, TOOLS ",'guided_regex':'.*'", "x" CALL("f", "{}") END, false, &STOP, "|x" CALL("f", "{}") "||stop");
    gives(f, TOOLS ",'guided_regex':'.*'", " " CALL("f", "{}") CALL("g", "{}") END, &STOP, "| |f:{};g:{}|tool_calls");
}

/* Structured output holds behind the end of the reasoning. */
static void test_constraint_after(void **state) {
    struct api_fixture *f = *state;
    static char r1[] = "deepseek_r1", granite[] = "granite";
    char *before = f->opts.reasoning_parser;
    /* qwen3: the reasoning may be left out, and both ways are in the grammar */
    assert_true(takes(f, "'guided_regex':'x+'", "xx"));
    assert_true(takes(f, "'guided_regex':'x+'", "<think>free</think>x"));
    assert_false(takes(f, "'guided_regex':'x+'", "<think>free</think>y"));
    assert_false(takes(f, "'guided_regex':'x+'", "free"));
    f->opts.reasoning_parser = granite;
    assert_true(takes(f, "'guided_regex':'x+'", "Here's my thought process: a Here is my response:x"));
    assert_true(takes(f, "'guided_regex':'x+'", "x"));
    assert_false(takes(f, "'guided_regex':'x+'", "Here's my thought process: a Here is my response:Here's my response:x"));
    f->opts.reasoning_parser = r1;
    static const struct {
        const char *fields;
        bool later;
    } rows[] = {{"'guided_regex':'x'", true},
                {TOOLS ",'tool_choice':'required'", true},
                {"'guided_regex':'x','chat_template_kwargs':{'enable_thinking':false}", false},
                {TOOLS ",'guided_regex':'x'", true}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct gen_run *g = start(f, rows[i].fields, false);
        struct gen_submit s;
        gen_submit(gen_run_req(g), 0, &s);
        assert_int_equal(s.m.constraint->n_starts_after, rows[i].later);
        if (rows[i].later)
            assert_int_equal(s.m.constraint->starts_after[0], FIX_UNTHINK);
        gen_run_free(g);
    }
    f->opts.reasoning_parser = before;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_reasoning_tokens),
        cmocka_unit_test(test_one_call),
        cmocka_unit_test(test_parsers),
        cmocka_unit_test(test_constraint_or_calls),
        cmocka_unit_test(test_constraint_after),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
