#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/buf.h"
#include "common/gram/front.h"
#include "common/gram/gram.h"

#include <stdlib.h>

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NOTHING ((const char *const[]){NULL})

static bool takes(struct gram *g, const char *text) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e = {0};
    bool yes = gram_run_bytes(r, str_of(text), NULL, &e) == RC_OK && gram_run_may_end(r);
    gram_run_free(r);
    return yes;
}

/* The text is JSON with ' for ". */
static enum rc compile(const char *text, struct gram **g, struct err *e) {
    struct buf b = {0};
    for (const char *p = text; *p; p++)
        buf_addc(&b, *p == '\'' ? '"' : *p);
    enum rc rc = gram_compile(g, GRAM_STRUCTURAL_TAG, buf_str(&b), (struct str){0}, NULL, e);
    buf_fini(&b);
    return rc;
}

static void expect(const char *tag, const char *const *yes, const char *const *no) {
    struct gram *g;
    struct err e = {0};
    if (compile(tag, &g, &e) != RC_OK)
        fail_msg("%s %s: %s", e.param, e.msg, tag);
    for (size_t i = 0; yes[i]; i++)
        if (!takes(g, yes[i]))
            fail_msg("refuses \"%s\": %s", yes[i], tag);
    for (size_t i = 0; no[i]; i++)
        if (takes(g, no[i]))
            fail_msg("takes \"%s\": %s", no[i], tag);
    gram_drop(g);
}

static void refuse(const char *tag, const char *pointer, const char *message) {
    struct gram *g = NULL;
    struct err e = {0};
    if (compile(tag, &g, &e) != RC_INVALID)
        fail_msg("taken: %s", tag);
    if (strcmp(e.param, pointer) != 0 || !strstr(e.msg, message))
        fail_msg("\"%s\" \"%s\", not \"%s\" \"%s\": %s", e.param, e.msg, pointer, message, tag);
    assert_null(g);
}

#define FORMAT(f) "{'type':'structural_tag','format':" f "}"

static void test_legacy(void **state UNUSED) {
    const char *tag = "{'type':'structural_tag','triggers':['<f='],'structures':["
                      "{'begin':'<f=a>','schema':{'const':1},'end':'</f>'},"
                      "{'begin':'<f=b>','schema':{'type':'boolean'},'end':'</f>'}]}";
    expect(tag,
           LIST("", "free text", "<f", "<f=a>1</f>", "x <f=b>true</f> y <f=a>1</f> z", "<<f=a>1</f>",
                "<f=a>1</f><f=a>1</f>"),
           LIST("<f=", "<f=c>", "<f=a>2</f>", "<f=a>1", "x<f=b>1</f>", "<f=a>1</f><f=", "a <f=a> b"));
    /* The first trigger in the text counts, not one that overlaps it. */
    expect("{'type':'structural_tag','triggers':['aa'],'structures':[{'begin':'aab','schema':{'const':1},'"
           "end':'.'}]}",
           LIST("aab1.", "a", "xaab1.a"), LIST("aaab1.", "aa", "aaa"));
    /* A trigger inside another ends first. */
    expect("{'type':'structural_tag','triggers':['xby','b'],'structures':["
           "{'begin':'bz','schema':{'const':1},'end':''},{'begin':'xby','schema':{'const':2},'end':''}]}",
           LIST("xbz1", "bz1q"), LIST("xby2", "b"));
}

static void test_simple(void **state UNUSED) {
    expect(FORMAT("{'type':'const_string','value':'yes'}"), LIST("yes"), LIST("", "yesyes"));
    expect(FORMAT("{'type':'const_string','value':''}"), LIST(""), LIST("x"));
    expect(FORMAT("{'type':'regex','pattern':'[a-c]+'}"), LIST("abc"), LIST("", "d"));
}

static void test_grammar(void **state UNUSED) {
    expect(FORMAT("{'type':'grammar','grammar':'root ::= [x]+ | (root [y])'}"), LIST("x", "xxy"),
           LIST("", "y"));
    expect(FORMAT("{'type':'json_schema','json_schema':{'enum':[1,'a']}}"), LIST("1", "\"a\""), LIST("2"));
    expect(FORMAT("{'type':'any_text'}"), LIST("", "anything"), NOTHING);
    expect(FORMAT("{'type':'any_text','excludes':['no','\u00e9']}"), LIST("", "n", "on"),
           LIST("no", "an\u00e9"));
    expect(FORMAT("{'type':'sequence','elements':[{'type':'const_string','value':'a'},{'type':'regex','"
                  "pattern':'b*'}]}"),
           LIST("a", "abb"), LIST("b", ""));
    expect(FORMAT("{'type':'or','elements':[{'type':'const_string','value':'a'},{'type':'const_string','"
                  "value':'b'}]}"),
           LIST("a", "b"), LIST("ab", ""));
}

static void test_tag(void **state UNUSED) {
    expect(FORMAT("{'type':'tag','begin':'<t>','content':{'type':'any_text'},'end':'</t>'}"),
           LIST("<t></t>", "<t>text < x</t>", "<t><</t>"), LIST("", "<t>", "<t>a</t>b</t>", "<t></t> "));
    expect(FORMAT("{'type':'tag','begin':'','content':{'type':'any_text','excludes':['x']},'end':'aa'}"),
           LIST("aa", "baa", "abaa"), LIST("aaa", "xaa", "a"));
    expect(FORMAT("{'type':'tag','begin':'(','content':{'type':'sequence','elements':[{'type':'regex','"
                  "pattern':'[0-9]'},"
                  "{'type':'any_text'}]},'end':')'}"),
           LIST("(1)", "(1abc)"), LIST("()", "(1))"));
    expect(FORMAT("{'type':'tag','begin':'<','content':{'type':'tag','begin':'[','content':{'type':'any_text'"
                  "},'end':']'},"
                  "'end':'>'}"),
           LIST("<[a>b]>"), LIST("<[a]]>", "[a]"));
    expect(FORMAT("{'type':'tag','begin':'<','content':{'type':'const_string','value':'c'},'end':''}"),
           LIST("<c"), LIST("<", "<c>"));
}

#define TAGS                                                                                                 \
    "'triggers':['<'],'tags':[{'begin':'<a>','content':{'type':'const_string','value':'1'},'end':'.'},"      \
    "{'begin':'<b>','content':{'type':'any_text'},'end':'.'}]"

static void test_triggered(void **state UNUSED) {
    expect(FORMAT("{'type':'triggered_tags'," TAGS "}"), LIST("", "text", "x<a>1.y<b>zz.w"),
           LIST("<", "<c>", "<a>2.", "<b>zz"));
    expect(FORMAT("{'type':'triggered_tags'," TAGS ",'at_least_one':true}"), LIST("<a>1.", "x<b>q.y"),
           LIST("", "text"));
    expect(FORMAT("{'type':'triggered_tags'," TAGS ",'stop_after_first':true}"), LIST("", "text", "x<a>1."),
           LIST("<a>1.x", "<a>1.<a>1."));
    expect(FORMAT("{'type':'triggered_tags'," TAGS ",'at_least_one':true,'stop_after_first':true}"),
           LIST("x<a>1."), LIST("", "text", "<a>1.x"));
    /* In a tag the free text ends with the tag. */
    expect(FORMAT("{'type':'tag','begin':'{','content':{'type':'triggered_tags'," TAGS "},'end':'}'}"),
           LIST("{}", "{x<a>1.y}"), LIST("{}}", "{x}y}"));
}

#define PAIR                                                                                                 \
    "'tags':[{'begin':'a','content':{'type':'regex','pattern':'[0-9]'},'end':';'},"                          \
    "{'type':'tag','begin':'b','content':{'type':'const_string','value':''},'end':''}],'separator':', '"

static void test_separated(void **state UNUSED) {
    expect(FORMAT("{'type':'tags_with_separator'," PAIR "}"), LIST("", "a1;", "b", "a1;, b, a2;"),
           LIST(", ", "a1;b", "a1;, "));
    expect(FORMAT("{'type':'tags_with_separator'," PAIR ",'at_least_one':true}"), LIST("b, b"), LIST(""));
    expect(FORMAT("{'type':'tags_with_separator'," PAIR ",'stop_after_first':true}"), LIST("", "b"),
           LIST("b, b"));
}

static void test_refusals(void **state UNUSED) {
    refuse("[]", "", "must be an object");
    refuse("{'type':'tag'}", "", "type must be \"structural_tag\"");
    refuse("{'type':'structural_tag'}", "", "triggers must be a list");
    refuse("{'type':'structural_tag','triggers':['a'],'structures':[],'x':1}", "", "x is not supported");
    refuse("{'type':'structural_tag','triggers':[''],'structures':[]}", "", "triggers must be strings");
    refuse("{'type':'structural_tag','triggers':['ab','b','abc'],'structures':[]}", "",
           "begin with one another");
    refuse("{'type':'structural_tag','triggers':['a','a'],'structures':[]}", "", "begin with one another");
    refuse("{'type':'structural_tag','triggers':['<'],'structures':[{'begin':'(','schema':{},'end':''}]}",
           "/structures/0", "does not start with any");
    refuse("{'type':'structural_tag','triggers':['<'],'structures':[{'begin':'<','end':''}]}",
           "/structures/0", "schema must be a JSON schema");
    refuse("{'type':'structural_tag','triggers':['<'],'structures':[{'begin':'<','schema':{'type':7},'end':''"
           "}]}",
           "/structures/0/schema/type", "");
    refuse(FORMAT("{'type':'html'}"), "/format", "type must be one of");
    refuse(FORMAT("7"), "/format", "must be an object");
    refuse(FORMAT("{'type':'regex','pattern':'(a'}"), "/format/pattern", "pattern offset 0");
    refuse(FORMAT("{'type':'regex','pattern':7}"), "/format", "pattern must be a string");
    refuse(FORMAT("{'type':'regex','pattern':'a','flags':'i'}"), "/format", "flags is not supported");
    refuse(FORMAT("{'type':'grammar','grammar':'root ::= x'}"), "/format/grammar", "not defined");
    refuse(FORMAT("{'type':'json_schema','json_schema':7}"), "/format", "must be a JSON schema");
    refuse(FORMAT("{'type':'json_schema','json_schema':false}"), "/format/json_schema", "");
    refuse(FORMAT("{'type':'any_text','excludes':'x'}"), "/format", "excludes must be a list");
    refuse(FORMAT("{'type':'any_text','excludes':['']}"), "/format", "excludes must be a list");
    refuse(FORMAT("{'type':'sequence','elements':[]}"), "/format", "elements must be a list");
    refuse(FORMAT("{'type':'or','elements':[{'type':'const_string','value':'a'},{'type':'const_string'}]}"),
           "/format/elements/1", "value must be a string");
    refuse(FORMAT("{'type':'tag','begin':'a','end':'b'}"), "/format/content", "must be an object");
    refuse(FORMAT("{'type':'tag','begin':'a','content':{'type':'any_text'}}"), "/format",
           "end must be a string");
    refuse(FORMAT("{'type':'triggered_tags','triggers':['a'],'tags':[{'type':'or','begin':'a','end':''}]}"),
           "/format/tags/0", "type must be \"tag\"");
    refuse(FORMAT("{'type':'triggered_tags','triggers':['a'],'tags':[],'at_least_one':1}"), "/format",
           "at_least_one must be a boolean");
    refuse(FORMAT("{'type':'tags_with_separator','separator':',','tags':[7]}"), "/format/tags/0",
           "must be an object");
    /* No string at all. */
    refuse(FORMAT("{'type':'regex','pattern':'a^b'}"), "", "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy),   cmocka_unit_test(test_simple),    cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_tag),      cmocka_unit_test(test_triggered), cmocka_unit_test(test_separated),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
