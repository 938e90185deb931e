/* Which bytes of the output came from client text, and which content format a template wants. Marked
 * text is written between guillemets in these tests. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "router/tmpl/tmpl.h"

static json_t *client, *own;

static void marked(const char *text, const char *want) {
    struct tmpl *t;
    struct tmpl_out out = {0};
    struct err e;
    struct arena a;
    if (tmpl_compile(&t, str_of(text), NULL, &e))
        fail_msg("%s: %s", text, e.msg);
    struct tmpl_var vars[] = {{"c", client, true}, {"t", own, false}};
    arena_init(&a);
    if (tmpl_render(t, vars, ARRAY_LEN(vars), 1, &a, &out, &e))
        fail_msg("%s: %s", text, e.msg);
    arena_fini(&a);
    struct buf b = {0};
    size_t at = 0;
    for (size_t i = 0; i < out.n_marks; i++) {
        assert_true(out.marks[i].begin >= at && out.marks[i].end > out.marks[i].begin);
        buf_add(&b, out.text.data + at, out.marks[i].begin - at);
        buf_addz(&b, "«");
        buf_add(&b, out.text.data + out.marks[i].begin, out.marks[i].end - out.marks[i].begin);
        buf_addz(&b, "»");
        at = out.marks[i].end;
    }
    buf_add(&b, out.text.len ? out.text.data + at : "", out.text.len - at);
    assert_string_equal(buf_cstr(&b), want);
    buf_fini(&b);
    tmpl_out_fini(&out);
    tmpl_free(t);
}

static void plain(void **state) {
    (void)state;
    marked("a{{ c.s }}b{{ t.s }}{{ c.s }}", "a«Hi there»bown«Hi there»");
    marked("{{ c.s }}{{ c.e }}", "«Hi therehé»");       /* neighbours merge */
    marked("{{ c.n }}{{ c.f }}{{ none }}", "71.5None"); /* numbers are spelled by us */
    marked("{% for k in c.d %}{{ k }}={{ c.d[k] }};{% endfor %}", "«k»=«v»;«<|x|>»=«w»;");
    marked("{{ '' }}{{ c.empty }}", "");
}

static void parts_of_strings(void **state) {
    (void)state;
    marked("{{ c.s[1:4] }}|{{ c.s[0] }}|{{ c.s[::-1] }}|{{ c.s[::3] }}", "«i t»|«H»|«ereht iH»|«Htr»");
    marked("{{ c.pad|trim }}|{{ c.pad.strip() }}|{{ c.pad.lstrip() }}", "«x y»|«x y»|«x y  »");
    marked("{% for ch in c.e %}{{ ch }},{% endfor %}", "«h»,«é»,");
    marked("{{ c.s.split(' ')|join('/') }}|{{ c.s.split()[0] }}", "«Hi»/«there»|«Hi»");
    marked("{{ c.s.partition(' ')[2] }}|{{ c.s.removeprefix('Hi') }}|{{ c.s|first }}{{ c.s|last }}",
           "«there»|« there»|«He»");
    marked("{{ c.lines.splitlines()|join(' ') }}", "«a» «b»");
    marked("{{ c.s|truncate(5, true, '..', 0) }}|{{ (c.s ~ '----------')|truncate(11, true, '', 0) }}",
           "«Hi »..|«Hi there»---");
}

static void made_from_strings(void **state) {
    (void)state;
    marked("{{ c.s|upper }}|{{ c.e|upper }}|{{ c.s.title() }}|{{ c.s|lower }}",
           "«HI THERE»|«HÉ»|«Hi There»|«hi there»");
    marked("{{ '<' ~ c.s ~ '>' }}|{{ '<' + c.s + '>' }}", "<«Hi there»>|<«Hi there»>");
    marked("{{ ('<' ~ c.s ~ '>')|upper }}|{{ ('é' ~ c.e ~ 'ß')|upper }}", "<«HI THERE»>|É«HÉ»SS");
    marked("{{ ('<' ~ c.s ~ '>')[1:4] }}|{{ ('<' ~ c.s ~ '>')[::-1] }}", "«Hi »|>«ereht iH»<");
    marked("{{ ('  ' ~ c.s ~ ' x ')|trim }}|{{ ('a' ~ c.s)|replace('Hi', 'Ho') }}",
           "«Hi there» x|aHo« there»");
    marked("{{ t.s|replace('w', c.e) }}|{{ c.s|replace('Hi', t.s) }}", "o«hé»n|own« there»");
    marked("{{ c.s * 2 }}|{{ ('<' ~ c.e) * 2 }}", "«Hi thereHi there»|<«hé»<«hé»");
    marked("{{ '%s: %5s|%.1s' % (c.s, c.e, c.e) }}|{{ '%s'|format(c.e) }}", "«Hi there»:    «hé»|«h»|«hé»");
    marked("{{ '{}={!r}'.format(c.e, c.e) }}|{{ '{:>4}'.format(c.e) }}", "«hé»='«hé»'|  «hé»");
    marked("{{ c.e.center(6) }}|{{ c.e.zfill(4) }}", "  «hé»  |00«hé»");
    marked("{{ [c.s, t.s]|join(c.e) }}|{{ c.l|join('-') }}", "«Hi therehé»own|«p»-«q»");
    marked("{{ c.lines|indent(2) }}", "«a»\n  «b»");
    marked("{{ c.html|escape }}|{{ ('<' ~ c.html)|e }}", "«&lt;b&gt;»|&lt;«&lt;b&gt;»");
    marked("{{ c.html|safe + '<' }}", "«<b>»&lt;");
    marked("{{ c.html|urlencode }}", "«%3Cb%3E»");
}

static void inside_other_values(void **state) {
    (void)state;
    marked("{{ c.l }}|{{ c.d }}", "['«p»', '«q»']|{'«k»': '«v»', '«<|x|>»': '«w»'}");
    marked("{{ c.d|tojson }}|{{ {'x': c.s}|tojson }}",
           "{\"«k»\": \"«v»\", \"«<|x|>»\": \"«w»\"}|{\"x\": \"«Hi there»\"}");
    marked("{{ ('a\"' ~ c.quote)|tojson }}", "\"a\\\"«\\\"»\"");
    marked("{{ c.l|map('upper')|join(',') }}|{{ c.l|sort(reverse=true)|first }}", "«P»,«Q»|«q»");
    marked("{{ c.d|dictsort|first|first }}|{{ c.d.items()|list|last|last }}", "«<|x|>»|«w»");
    marked("{{ c.d|items|map('first')|join(' ') }}", "«k» «<|x|>»");
}

static void through_statements(void **state) {
    (void)state;
    marked("{% set x %}[{{ c.s }}]{% endset %}{{ x }}{{ x|length }}", "[«Hi there»]10");
    marked(
        "{% macro f(x) %}<{{ x }}|{{ caller() }}>{% endmacro %}{% call f(c.e) %}{{ c.l[0] }}!{% endcall %}",
        "<«hé»|«p»!>");
    marked("{% filter upper %}a{{ c.e }}b{% endfilter %}", "A«HÉ»B");
    marked("{% generation %}x{{ c.e }}{% endgeneration %}", "x«hé»");
    marked("{% set ns = namespace(s='') %}{% for x in c.l %}{% set ns.s = ns.s ~ x ~ ',' %}{% endfor %}{{ "
           "ns.s }}",
           "«p»,«q»,");
    marked("{% set ns = namespace(s='') %}{% for i in range(200) %}{% set ns.s = ns.s + c.l[0] + t.s %}{% "
           "endfor %}"
           "{{ ns.s[:8] }}{{ ns.s[-8:] }}",
           "«p»own«p»own«p»own«p»own");
    /* two strings grown from one: neither sees what was added to the other */
    marked("{% set a = t.s * 100 ~ c.s %}{% set b = a ~ c.s %}{% set d = a ~ 'x' %}{{ (b ~ '.')[-9:] }}|{{ "
           "d[-3:] }}|"
           "{{ a[-2:] }}",
           "«Hi there».|«re»x|«re»");
    marked(
        "{% for x in c.l recursive %}{{ x }}{% if x == 'p' %}{{ loop(['z', c.e]) }}{% endif %}{% endfor %}",
        "«p»z«héq»");
}

/* ---- content format ---- */

static void format(const char *text, bool openai) {
    struct tmpl *t;
    struct err e;
    if (tmpl_compile(&t, str_of(text), NULL, &e))
        fail_msg("%s: %s", text, e.msg);
    if (tmpl_uses_openai_content(t) != openai)
        fail_msg("%s: expected %s", text, openai ? "openai" : "string");
    tmpl_free(t);
}

static void content_format(void **state) {
    (void)state;
    format("{% for m in messages %}{{ m.content }}{% endfor %}", false);
    format("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}", true);
    format("{% for m in messages %}{% for p in m['content'] %}{{ p.text }}{% endfor %}{% endfor %}", true);
    format("{% for m in messages %}{% for p in m.get('content') %}{% endfor %}{% endfor %}", true);
    format("{% for m in messages %}{% for p in m.tool_calls %}{% endfor %}{% endfor %}", false);
    format("{% for m in tools %}{% for p in m.content %}{% endfor %}{% endfor %}", false);
    format("{% for p in messages[0].content %}{% endfor %}", true);
    format("{% for p in (messages|first)['content'] %}{% endfor %}", true);
    format("{% for p in messages[0].content|selectattr('type', 'equalto', 'text') %}{% endfor %}", true);
    format("{% set x = messages[1:] %}{% for m in x %}{% for p in m.content %}{% endfor %}{% endfor %}",
           true);
    format("{% set x = messages %}{% set y = x[::-1] %}{% for m in y %}{% set z = m['content'] %}"
           "{% for p in z[1:] %}{% endfor %}{% endfor %}",
           true);
    format("{% for m in messages|rejectattr('role', 'eq', 'system') %}{% for p in m.content %}{% endfor %}{% "
           "endfor %}",
           true);
    format("{% macro show(c) %}{% for p in c %}{{ p.text }}{% endfor %}{% endmacro %}"
           "{% for m in messages %}{{ show(m.content) }}{% endfor %}",
           true);
    format(
        "{% macro show(m) %}{% set c = m.content if m else none %}{% for p in c %}{% endfor %}{% endmacro %}"
        "{{ show(m=messages[0]) }}",
        true);
    format("{% with c = messages[0].content or [] %}{% for p in c %}{% endfor %}{% endwith %}", true);
    format("{% for m in messages %}{% set content = m.content|trim %}{{ content }}{% endfor %}", false);
    format("{% for content in documents %}{% for p in content %}{% endfor %}{% endfor %}", false);
}

static void mentions(void **state) {
    (void)state;
    struct tmpl *t;
    struct err e;
    assert_int_equal(tmpl_compile(&t, STR_LIT("{% if m.role == 'developer' %}x{% endif %}"), NULL, &e),
                     RC_OK);
    assert_true(tmpl_mentions(t, "developer"));
    assert_false(tmpl_mentions(t, "system"));
    tmpl_free(t);
}

int main(void) {
    client = json_loads(
        "{\"s\": \"Hi there\", \"e\": \"hé\", \"pad\": \"  x y  \", \"n\": 7, \"f\": 1.5, \"empty\": \"\","
        " \"l\": [\"p\", \"q\"], \"d\": {\"k\": \"v\", \"<|x|>\": \"w\"}, \"lines\": \"a\\nb\","
        " \"html\": \"<b>\", \"quote\": \"\\\"\"}",
        0, NULL);
    own = json_pack("{s:s}", "s", "own");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(parts_of_strings),
        cmocka_unit_test(made_from_strings),
        cmocka_unit_test(inside_other_values),
        cmocka_unit_test(through_statements),
        cmocka_unit_test(content_format),
        cmocka_unit_test(mentions),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(client);
    json_decref(own);
    return failed;
}
