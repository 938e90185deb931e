/* JSON Schema: for each keyword texts that its grammar accepts and texts that it does not. In the tables '
 * stands for ". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/gram/front.h"
#include "common/gram/gram.h"

static char *quotes(const char *text) {
    char *copy = xstrdup(text);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    return copy;
}

static struct gram *compile(const char *schema, const char *options, struct err *e) {
    struct gram *g = NULL;
    char *s = quotes(schema), *o = quotes(options);
    enum rc rc = gram_compile(&g, GRAM_JSON_SCHEMA, str_of(s), str_of(o), NULL, e);
    assert_true(rc == RC_OK || rc == RC_INVALID);
    free(s);
    free(o);
    return rc ? NULL : g;
}

static bool accepts(struct gram *g, const char *text) {
    char *t = quotes(text);
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e;
    bool yes = gram_run_bytes(r, str_of(t), NULL, &e) == RC_OK && gram_run_may_end(r);
    gram_run_free(r);
    free(t);
    return yes;
}

struct expect {
    const char *schema;
    const char *yes[12], *no[12];
};

static void check(const struct expect *x, size_t n, const char *options) {
    for (size_t i = 0; i < n; i++) {
        struct err e = {0};
        struct gram *g = compile(x[i].schema, options, &e);
        if (!g)
            fail_msg("%s: %s", x[i].schema, e.msg);
        for (size_t k = 0; k < 12 && x[i].yes[k]; k++)
            if (!accepts(g, x[i].yes[k]))
                fail_msg("%s does not accept %s", x[i].schema, x[i].yes[k]);
        for (size_t k = 0; k < 12 && x[i].no[k]; k++)
            if (accepts(g, x[i].no[k]))
                fail_msg("%s accepts %s", x[i].schema, x[i].no[k]);
        gram_drop(g);
    }
}

static void test_types(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"true",
         {"1", "null", "{}", "[]", "'x'", "{'a':[{}]}"},
         {"", "nul", "{'a':1,'a':2}", "01", "+1", "'\x01'"}},
        {"{'type':'null'}", {"null"}, {"0", "''"}},
        {"{'type':'boolean'}", {"true", "false"}, {"0", "True"}},
        {"{'type':'integer'}",
         {"0", "-7", "12345678901234567890"},
         {"1.5", "'1'", "1e2", "123456789012345678901"}},
        {"{'type':'number'}",
         {"0", "-0.5", "1e3", "1E-3", "2.5e+10"},
         {".5", "1.", "1e", "--1", "1e1234", "0x1"}},
        {"{'type':'string'}",
         {"''", "'\\u00e9'", "'\\ud83d\\ude00'", "'\\/'", "'é'"},
         {"'", "'\\ud83d'", "'\\ude00'", "'\\x'", "'\n'"}},
        {"{'type':'array'}", {"[]", "[1,'a',[]]", "[ 1 , 2 ]"}, {"[1,]", "[,1]", "{}"}},
        {"{'type':'object'}", {"{}", "{'a':{'b':1}}"}, {"{'a'}", "{'a':1,}", "{'a':1,'b':2,'a':3}"}},
        {"{'type':['string','null']}", {"null", "'a'"}, {"1", "[]"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_values(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'enum':['a','b',3,null,[1],{'k':'v'}]}",
         {"'a'", "3", "null", "[1]", "[ 1 ]", "{'k':'v'}", "{ 'k' : 'v' }"},
         {"'c'", "[2]", "{'k':'w'}", "{}", "3.0"}},
        {"{'const':{'a':[1,2],'b':{}}}",
         {"{'a':[1,2],'b':{}}"},
         {"{'b':{},'a':[1,2]}", "{'a':[1,2]}", "{'a':[1]}"}},
        {"{'const':[{'a':[],'b':{}},12,'\\n']}",
         {"[{'a':[],'b':{}},12,'\\n']", "[ { 'a' : [ ] , 'b' : {\t} } ,\n12 , '\\n' ]"},
         {"[{'a':[],'b':{}},12,'\n']", "[{'a':[],'b':{}},12,'\\u000a']", "[{'a':[],'b':{}},1]", "[]"}},
        {"{'const':1.5}", {"1.5"}, {"1.50", "1"}},
        {"{'enum':[1,2,3,4,5],'minimum':2,'exclusiveMaximum':5}", {"2", "4"}, {"1", "5"}},
        {"{'enum':['ab','abc','x'],'pattern':'^a','maxLength':2}", {"'ab'"}, {"'abc'", "'x'"}},
        {"{'enum':['\\n',1e300],'type':['string','number']}", {"'\\n'", "1e300"}, {"'\\u000a'", "1"}},
    };
    check(x, ARRAY_LEN(x), "");
}

/* test_listed: lists of values, written out, and the same with a keyword that says nothing, which are made of
 * rules: they accept the same. */
static void test_listed(void **state) {
    (void)state;
    static const struct expect x[] = {
        /* One number begins another, one list another. */
        {"{'enum':[[1,12],[12,1],[1,1],[1.5],[1],[],{'a':1},{'a':12,'b':[]},{'a':1,'b':null},{}]}",
         {"[1,12]", "[12 ,1]", "[1,1]", "[ 1.5 ]", "[1 ]", "[ ]", "{'a':1 }", "{'a':12,'b':[]}",
          "{'a':1 , 'b' : null}", "{}"},
         {"[12,12]", "[12]", "[1,]", "[1.5,1]", "{'a':12}", "{'b':null,'a':1}", "{'a':1,'b':[]}", "[1 2]"}},
        {"{'type':['array','null'],'enum':[{'a':1},[2],null,[null],'x']}",
         {"[2]", "[null]", "null"},
         {"{'a':1}", "'x'", "[]"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(x); i++) {
        char longer[400];
        struct expect other = x[i];
        size_t n = strlen(x[i].schema);
        snprintf(longer, sizeof longer, "%.*s,'minItems':0,'minProperties':0}", (int)n - 1, x[i].schema);
        other.schema = longer;
        check(&x[i], 1, "");
        check(&other, 1, "");
    }
    static const struct expect tight = {
        "{'enum':[[1,2],{'a':[]}]}", {"[1,2]", "[1, 2]", "{'a': []}"}, {"[1,  2]", "[ 1,2]", "{'a' :[]}"}};
    check(&tight, 1, "{'disable_any_whitespace':true}");
    static const struct expect must = {"{'enum':[[1,2]]}", {"[ 1 , 2 ]"}, {"[1,2]", "[ 1 ,2 ]"}};
    check(&must, 1, "{'whitespace_pattern':' '}");
}

/* test_long_lists: as many objects as --max-choices allows by default. */
static void test_long_lists(void **state) {
    (void)state;
    struct buf b = {0};
    struct err e = {0};
    buf_addz(&b, "{'type':'object','enum':[");
    for (int i = 0; i < 4096; i++)
        buf_addf(&b, "%s{'id':%d,'name':'item %d','ok':%s}", i ? "," : "", i, i * 7919,
                 i % 3 ? "true" : "null");
    buf_addz(&b, "]}");
    struct gram *g = compile(buf_cstr(&b), "", &e);
    if (!g)
        fail_msg("%s", e.msg);
    assert_true(gram_bytes(g) < 16 * MIB);
    assert_true(accepts(g, "{'id':4095,'name':'item 32428305','ok':null}"));
    assert_true(accepts(g, "{ 'id' : 17, 'name' : 'item 134623' , 'ok':true }"));
    assert_false(accepts(g, "{'id':17,'name':'item 134623','ok':null}"));
    assert_false(accepts(g, "{'id':4096,'name':'item 32436224','ok':true}"));
    gram_drop(g);
    buf_fini(&b);
}

static void test_strings(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'type':'string','minLength':2,'maxLength':3}",
         {"'ab'", "'abc'", "'éé'", "'\\n\\n'", "'😀😀'"},
         {"'a'", "'abcd'", "'\\u00e9\\u00e9'"}},
        {"{'type':'string','pattern':'b'}", {"'b'", "'abc'", "'\\'b'"}, {"'ac'", "''"}},
        {"{'type':'string','pattern':'^a+$','maxLength':3}", {"'a'", "'aaa'"}, {"'aaaa'", "'ab'", "''"}},
        {"{'type':'string','pattern':'^[\\\\s]$'}", {"' '", "'\\t'"}, {"'\\u0009'", "'a'"}},
        {"{'type':'string','pattern':'^\\\\\\\\$'}", {"'\\\\'"}, {"'\\'"}},
        {"{'type':'string','not':{'pattern':'^a'}}", {"'b'", "''"}, {"'a'", "'ab'"}},
        {"{'type':'string','not':{'enum':['a','b']}}", {"'c'", "''", "'ab'"}, {"'a'", "'b'"}},
        {"{'oneOf':[{'type':'string','maxLength':3},{'type':'string','minLength':2}]}",
         {"'a'", "'abcd'", "''"},
         {"'ab'", "'abc'", "1"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_numbers(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'type':'integer','minimum':-12,'maximum':105}",
         {"-12", "0", "9", "99", "100", "105", "-0"},
         {"-13", "106", "200", "1000", "1e1"}},
        {"{'type':'number','minimum':-1.25,'exclusiveMaximum':2.5}",
         {"-1.25", "-1.2500", "-1", "0", "2.4999", "2"},
         {"-1.26", "-1.2501", "2.5", "2.50", "3", "-2"}},
        {"{'type':'number','exclusiveMinimum':0}", {"0.1", "0.001", "7"}, {"0", "-0", "0.00", "-1"}},
        {"{'type':'number','maximum':0}", {"0", "-0", "-0.0", "-5", "0.0"}, {"0.1", "1"}},
        {"{'type':'number','maximum':-3}", {"-3", "-3.5", "-10"}, {"-2.9", "0", "3"}},
        {"{'type':'number','minimum':0.5,'maximum':0.5}", {"0.5", "0.50"}, {"0.51", "0.49", "0"}},
        {"{'minimum':1e-25,'type':'number'}",
         {"0.0000000000000000000000001", "1"},
         {"0", "0.00000000000000000000000001"}},
        {"{'minimum':1e25,'type':'integer'}", {"10000000000000000000000000"}, {"9999999999999999999999999"}},
        {"{'type':'integer','multipleOf':7}", {"0", "7", "-14", "700", "1001"}, {"1", "8", "-15"}},
        {"{'type':'integer','multipleOf':864000}", {"0", "864000", "-1728000"}, {"86400", "864001"}},
        {"{'type':'number','multipleOf':100}", {"0", "0.0", "100", "200.0", "-1700"}, {"10", "150", "100.5"}},
        {"{'type':'integer','multipleOf':2.5}", {"0", "5", "10", "-15"}, {"2", "7", "2.5"}},
        {"{'type':'number','multipleOf':0.01}", {"0.01", "1.2", "1.230", "5"}, {"0.001", "1.234"}},
        {"{'type':'number','multipleOf':1.5}", {"1.5", "3", "4.50", "-1.5"}, {"1", "2.5", "4"}},
        {"{'type':'integer','allOf':[{'multipleOf':4},{'multipleOf':6}],'minimum':1}",
         {"12", "24"},
         {"4", "6", "0"}},
        {"{'type':'integer','not':{'multipleOf':3}}", {"1", "2", "4"}, {"0", "3", "-6"}},
        {"{'oneOf':[{'type':'integer'},{'minimum':2,'type':'number'}]}",
         {"1", "2.5", "-7"},
         {"2", "3", "1.5"}},
        {"{'type':'number','not':{'type':'integer'}}", {"1.5"}, {"1", "1.0"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_formats(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'type':'string','format':'date'}",
         {"'2024-02-29'", "'2000-02-29'", "'1999-12-31'"},
         {"'2023-02-29'", "'1900-02-29'", "'2024-04-31'", "'2024-13-01'", "'24-01-01'", "'0000-01-01'"}},
        {"{'type':'string','format':'time'}",
         {"'23:59:59Z'", "'00:00:00.123+14:00'", "'23:59:60Z'"},
         {"'24:00:00Z'", "'12:60:00Z'", "'12:00:00'", "'12:00:60Z'"}},
        {"{'type':'string','format':'date-time'}",
         {"'1990-12-31T15:59:50.1-08:00'"},
         {"'1990-12-31 15:59:50Z'"}},
        {"{'type':'string','format':'duration'}",
         {"'P1Y2M3DT4H5M6S'", "'P2W'", "'PT36H'", "'P1D'", "'P4DT12H30M5S'"},
         {"'P'", "'PT'", "'P1'", "'P1YT'", "'P1Y2W'", "'P1D2H'", "'PT1D'", "'P1Y3D'"}},
        {"{'type':'string','format':'email'}",
         {"'joe.bloggs@example.com'", "'te~st@example.com'", "'a@[127.0.0.1]'",
          "'\\'joe bloggs\\'@example.com'"},
         {"'2962'", "'.test@example.com'", "'te..st@example.com'", "'a@[127.0.0.300]'", "'a@b=c'"}},
        {"{'type':'string','format':'hostname'}",
         {"'www.example.com'", "'a'", "'1host'"},
         {"'-a'", "'a-'", "'a..b'", "''", "'a_b'", "'xn--a'"}},
        {"{'type':'string','format':'ipv4'}",
         {"'192.168.0.1'", "'0.0.0.0'"},
         {"'256.1.1.1'", "'01.1.1.1'", "'1.1.1'"}},
        {"{'type':'string','format':'ipv6'}",
         {"'::1'", "'::'", "'1:2:3:4:5:6:7:8'", "'::ffff:192.168.0.1'", "'1::8'", "'fe80::a'"},
         {"'12345::'", "'1:1:1:1:1:1:1:1:1'", "':1'", "'1:2:3:4:5:6:7:8::'", "'1::2::3'", "'::%1'"}},
        {"{'type':'string','format':'uri'}",
         {"'http://foo.bar/?baz=qux#quux'", "'urn:a:b'", "'http://[::1]:80/'", "'tel:+1-816'",
          "'mailto:a@b.c'"},
         {"'//foo'", "'/abs'", "'foo'", "'http:// x'", "'http://a/<>'", "'bar,baz:a%zz'"}},
        {"{'type':'string','format':'uuid'}",
         {"'2eb8aa08-aa98-11ea-b4aa-73b441d16380'"},
         {"'2eb8aa08aa9811eab4aa73b441d16380'", "'2eb8-aa08-aa98-11ea-b4aa73b44-1d16380'"}},
        {"{'type':'string','format':'json-pointer'}", {"''", "'/a~0b/~1'", "'/'"}, {"'a'", "'/~2'", "'/a~'"}},
        {"{'type':'integer','format':'int64'}", {"1"}, {"'1'"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_objects(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'properties':{'a':{'type':'integer'},'b':{},'c':{'type':'null'}},'required':['b'],'type':'object'"
         "}",
         {"{'b':1}", "{'a':1,'b':2}", "{'b':[],'c':null}", "{'a':1,'b':{},'c':null}"},
         {"{}", "{'a':1}", "{'b':1,'a':1}", "{'b':1,'d':1}", "{'a':'x','b':1}", "{'b':1,}"}},
        {"{'type':'object','properties':{'a':{}},'additionalProperties':{'type':'integer'}}",
         {"{}", "{'a':'x','b':1,'c':2}", "{'z':1}"},
         {"{'b':'x'}", "{'b':1,'a':1}", "{'b':1,'b':2}", "{'a':1,'a':2}"}},
        {"{'type':'object','properties':{'a':{}},'additionalProperties':true}",
         {"{'a':1,'b':[]}"},
         {"{'b':1,'a':1}"}},
        {"{'type':'object','additionalProperties':false}", {"{}"}, {"{'a':1}"}},
        {"{'type':'object','required':['x','y']}",
         {"{'x':1,'y':2}", "{'y':1,'x':2}", "{'a':0,'y':1,'b':0,'x':2,'c':0}"},
         {"{'x':1}", "{'y':1,'a':1}", "{'x':1,'y':1,'x':2}"}},
        {"{'type':'object','patternProperties':{'^x':{'type':'integer'},'y$':{'minimum':3}}}",
         {"{'xa':1}", "{'xy':3}", "{'by':'s'}", "{'q':null}"},
         {"{'xa':'s'}", "{'xy':2}", "{'xy':'s'}", "{'ay':2}"}},
        {"{'type':'object','patternProperties':{'^x':{}},'additionalProperties':false}",
         {"{'xa':1}"},
         {"{'a':1}"}},
        {"{'type':'object','propertyNames':{'pattern':'^[a-c]{2}$'}}",
         {"{'ab':1,'cc':2}"},
         {"{'a':1}", "{'ad':1}"}},
        {"{'type':'object','patternProperties':{'^[ab]$':{}},'additionalProperties':false}",
         {"{}", "{'a':1,'b':2}", "{'b':2}"},
         {"{'a':1,'a':1}", "{'c':1}"}},
        {"{'type':'object','propertyNames':{'enum':['a','b']}}",
         {"{}", "{'a':1,'b':2}", "{'b':1}"},
         {"{'c':1}"}},
        {"{'type':'object','minProperties':2,'maxProperties':3}",
         {"{'a':1,'b':2}", "{'a':1,'b':2,'c':3}"},
         {"{}", "{'a':1}", "{'a':1,'b':2,'c':3,'d':4}"}},
        {"{'type':'object','properties':{'a':{},'b':{},'c':{}},'minProperties':2}",
         {"{'a':1,'b':2}", "{'b':1,'c':2}", "{'a':1,'b':2,'c':3}"},
         {"{'a':1}", "{}"}},
        {"{'type':'object','properties':{'a':{},'b':{},'c':{}},'maxProperties':1}",
         {"{}", "{'c':2}"},
         {"{'a':1,'c':2}"}},
        {"{'type':'object','dependentRequired':{'a':['b']}}",
         {"{}", "{'b':1}", "{'a':1,'b':2}", "{'b':2,'q':1,'a':0}"},
         {"{'a':1}"}},
        {"{'type':'object','properties':{'a':{},'b':{}},'dependentSchemas':{'a':{'properties':{'b':{'type':'"
         "null'}}}}}",
         {"{'b':1}", "{'a':1,'b':null}"},
         {"{'a':1,'b':1}"}},
        {"{'type':'object','dependencies':{'a':['b'],'c':{'required':['d']}}}",
         {"{'a':1,'b':1}"},
         {"{'a':1}", "{'c':1}"}},
        {"{'properties':{'\\n/~':{'const':1}},'type':'object'}",
         {"{'\\n/~':1}"},
         {"{'\\u000a/~':1}", "{'\\n/~':2}"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_arrays(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'type':'array','items':{'type':'integer'},'minItems':2,'maxItems':3}",
         {"[1,2]", "[1,2,3]"},
         {"[1]", "[1,2,3,4]", "[1,'a']", "[]"}},
        {"{'type':'array','prefixItems':[{'type':'integer'},{'type':'string'}]}",
         {"[]", "[1]", "[1,'a']", "[1,'a',null,[]]"},
         {"['a']", "[1,2]"}},
        {"{'type':'array','prefixItems':[{'type':'integer'}],'items':false}", {"[]", "[1]"}, {"[1,2]"}},
        {"{'type':'array','items':[{'type':'integer'}],'additionalItems':{'type':'null'}}",
         {"[1,null]"},
         {"[1,2]"}},
        {"{'type':'array','prefixItems':[{},{},{}],'minItems':2,'maxItems':2}",
         {"[1,2]"},
         {"[1]", "[1,2,3]"}},
        {"{'type':'array','contains':{'type':'integer'}}", {"[1]", "['a',1,'b']", "[1,2]"}, {"[]", "['a']"}},
        {"{'type':'array','contains':{'type':'integer'},'minContains':2,'maxContains':3}",
         {"[1,2]", "[1,'a',2,3]"},
         {"[1]", "[1,2,3,4]", "['a','b']"}},
        {"{'type':'array','contains':{'type':'integer'},'maxContains':0,'minContains':0}",
         {"[]", "['a']"},
         {"[1]"}},
        {"{'type':'array','items':{'enum':['a','b','c']},'uniqueItems':true}",
         {"[]", "['a']", "['c','a','b']"},
         {"['a','a']", "['a','b','a']"}},
        {"{'type':'array','items':{'type':['integer','string','boolean']},'uniqueItems':true}",
         {"[1,'1',true]", "[10,1]"},
         {"[1,2,1]", "['a','a']", "[-0]"}},
        {"{'type':'array','items':{'type':'number'},'uniqueItems':true,'maxItems':3}",
         {"[1,1.5,15]"},
         {"[1,1]", "[1.0]", "[1.50]"}},
        {"{'type':'array','prefixItems':[{'type':'boolean'},{'type':'boolean'}],'items':false,'uniqueItems':"
         "true}",
         {"[true,false]", "[false]"},
         {"[true,true]"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_combinations(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'allOf':[{'properties':{'a':{'type':'integer'}},'required':['a']},{'properties':{'b':{}},'"
         "required':['b']}]}",
         {"{'a':1,'b':2}", "1"},
         {"{'a':1}", "{'b':1}", "{'a':1,'b':2,'c':3}"}},
        {"{'type':'integer','allOf':[{'minimum':3},{'maximum':5}]}", {"3", "5"}, {"2", "6"}},
        {"{'anyOf':[{'type':'integer'},{'type':'object','properties':{'a':{}}}]}",
         {"1", "{'a':1}"},
         {"'x'", "{'b':1}"}},
        {"{'oneOf':[{'type':'object','properties':{'k':{'const':'a'},'x':{'type':'integer'}},'required':['k']"
         "},"
         "{'type':'object','properties':{'k':{'const':'b'},'y':{}},'required':['k']}]}",
         {"{'k':'a','x':1}", "{'k':'b','y':2}"},
         {"{'k':'a','y':1}", "{'k':'c'}", "{}"}},
        {"{'type':'object','properties':{'a':{},'b':{}},'oneOf':[{'required':['a']},{'required':['b']}]}",
         {"{'a':1}", "{'b':1}"},
         {"{}", "{'a':1,'b':2}"}},
        {"{'not':{'type':'object','properties':{'foo':{'type':'string'}}}}",
         {"1", "{'foo':1}"},
         {"{'foo':'x'}", "{}"}},
        {"{'type':'object','not':{'required':['a']}}", {"{}", "{'b':1}"}, {"{'a':1}", "{'b':1,'a':2}"}},
        {"{'type':'array','not':{'items':{'type':'integer'}}}", {"['a']", "[1,'a']"}, {"[]", "[1,2]"}},
        {"{'type':'array','not':{'contains':{'type':'integer'}}}", {"[]", "['a']"}, {"[1]", "['a',1]"}},
        {"{'type':'object','properties':{'c':{'enum':['x','y']},'z':{}},'required':['c'],"
         "'if':{'properties':{'c':{'const':'x'}}},'then':{'properties':{'z':{'type':'integer'}}},"
         "'else':{'properties':{'z':{'type':'string'}},'required':['z']}}",
         {"{'c':'x'}", "{'c':'x','z':1}", "{'c':'y','z':'q'}"},
         {"{'c':'x','z':'q'}", "{'c':'y'}", "{'c':'y','z':1}"}},
        {"{'if':{'type':'integer'},'then':{'minimum':5},'else':{'type':'string'}}",
         {"5", "'x'"},
         {"4", "null"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_references(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'$ref':'#/$defs/"
         "t','$defs':{'t':{'type':'object','properties':{'c':{'type':'array','items':{'$ref':'#/$defs/"
         "t'}}}}}}",
         {"{}", "{'c':[{},{'c':[]}]}"},
         {"{'c':[1]}", "[]"}},
        {"{'type':'array','items':{'$ref':'#'}}", {"[]", "[[],[[]]]"}, {"[1]"}},
        {"{'$defs':{'a~b/c%d':{'type':'null'}},'$ref':'#/$defs/a~0b~1c%25d'}", {"null"}, {"1"}},
        {"{'$defs':{'x':{'$anchor':'n','type':'null'}},'$ref':'#n'}", {"null"}, {"1"}},
        {"{'$defs':{'x':{'type':'integer'}},'$ref':'#/$defs/x','minimum':3}", {"3"}, {"2", "'x'"}},
        {"{'$schema':'http://json-schema.org/draft-07/schema#','definitions':{'x':{'type':'integer'}},"
         "'properties':{'a':{'$ref':'#/definitions/x','minimum':3}}}",
         {"{'a':1}"},
         {"{'a':'x'}"}},
        {"{'$id':'http://h/"
         "root','$defs':{'a':{'$id':'inner','$defs':{'b':{'type':'null'}},'items':{'$ref':'#/$defs/b'}}},"
         "'$ref':'inner'}",
         {"[null]"},
         {"[1]"}},
        {"{'$defs':{'a':{'$ref':'#/$defs/b'},'b':{'$ref':'#/$defs/c'},'c':{'type':'null'}},'$ref':'#/$defs/"
         "a'}",
         {"null"},
         {"1"}},
        /* A value without end has no finite text: what needs one is left out. */
        {"{'$defs':{'l':{'type':'object','properties':{'n':{'$ref':'#/$defs/l'}},'required':['n']}},"
         "'anyOf':[{'type':'null'},{'$ref':'#/$defs/l'}]}",
         {"null"},
         {"{'n':{}}"}},
    };
    check(x, ARRAY_LEN(x), "");
}

static void test_whitespace(void **state) {
    (void)state;
    static const struct expect any[] = {
        {"{'type':'object','properties':{'a':{'type':'array','items':{'type':'integer'}}}}",
         {"{\n\t'a' :\r[ 1 , 2 ] }", "{}", "{                                }"},
         {" {}", "{} ", "{                                 }"}},
    };
    static const struct expect none[] = {
        {"{'type':'object','properties':{'a':{'type':'array','items':{'type':'integer'}}}}",
         {"{'a': [1, 2]}", "{'a':[1,2]}"},
         {"{ 'a':[1]}", "{'a' :[1]}", "{'a':  [1]}", "{'a':[1 ]}"}},
    };
    static const struct expect two[] = {
        {"{'type':'object','properties':{'a':{}}}",
         {"{'a':1}", "{  'a'  :  1  }"},
         {"{ 'a':1}", "{\t\t'a':1}"}},
    };
    struct err e;
    check(any, 1, "");
    check(none, 1, "{'disable_any_whitespace':true}");
    check(two, 1, "{'whitespace_pattern':'(  )?'}");
    assert_null(compile("{}", "{'whitespace_pattern':'x*'}", &e));
    assert_non_null(strstr(e.msg, "whitespace_pattern"));
    assert_null(compile("{}", "{'whitespace_pattern':'('}", &e));
}

static void test_closed(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'type':'object','properties':{'a':{}},'additionalProperties':true}",
         {"{'a':1}", "{}"},
         {"{'b':1}"}},
        {"{'type':'object','properties':{'a':{}},'patternProperties':{'^x':{}}}", {"{'xy':1}"}, {"{'b':1}"}},
        {"{'type':'object'}", {"{}", "{'free':1}"}, {0}},
    };
    check(x, ARRAY_LEN(x), "{'disable_additional_properties':true}");
}

/* What is refused: the keyword and its place are named. */
static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *schema, *message, *pointer;
    } x[] = {
        {"1", "must be an object or a boolean", ""},
        {"{'type':7}", "\"type\"", "/type"},
        {"{'type':'strin'}", "\"type\"", "/type"},
        {"{'type':[]}", "\"type\"", "/type"},
        {"{'properties':{'a/b':{'minLength':-1}}}", "\"minLength\"", "/properties/a~1b/minLength"},
        {"{'properties':[]}", "\"properties\"", "/properties"},
        {"{'items':{'pattern':'('}}", "\"pattern\"", "/items/pattern"},
        {"{'pattern':'(?=a)'}", "\"pattern\"", "/pattern"},
        {"{'pattern':'a{2,1}'}", "\"pattern\"", "/pattern"},
        {"{'pattern':'\\\\1'}", "\"pattern\"", "/pattern"},
        {"{'patternProperties':{'[':{}}}", "\"patternProperties\"", "/patternProperties"},
        {"{'format':'phone'}", "\"format\"", "/format"},
        {"{'multipleOf':0}", "\"multipleOf\"", "/multipleOf"},
        {"{'multipleOf':1e-300}", "\"multipleOf\"", "/multipleOf"},
        {"{'minimum':'1'}", "\"minimum\"", "/minimum"},
        {"{'exclusiveMinimum':true}", "\"exclusiveMinimum\"", "/exclusiveMinimum"},
        {"{'type':'array','minItems':1000000000}", "\"minItems\"", "/minItems"},
        {"{'type':'string','minLength':1000000000}", "\"minLength\"", "/minLength"},
        {"{'type':'object','minProperties':1000000000}", "\"minProperties\"", "/minProperties"},
        {"{'unevaluatedProperties':false}", "\"unevaluatedProperties\"", "/unevaluatedProperties"},
        {"{'uniqueItems':true}", "\"uniqueItems\"", "/uniqueItems"},
        {"{'$ref':'#'}", "\"$ref\"", "/$ref"},
        {"{'$ref':'#/'}", "\"$ref\"", "/$ref"},
        {"{'$ref':'#/$defs/x'}", "leads nowhere", "/$ref"},
        {"{'$ref':'http://example.com/x'}", "\"$ref\"", "/$ref"},
        {"{'$defs':{'a':{'$ref':'#/$defs/b'},'b':{'$ref':'#/$defs/a'}},'$ref':'#/$defs/a'}", "\"$ref\"",
         "/$ref"},
        {"{'allOf':[{'$ref':'#'}]}", "leads back to itself", "/$ref"},
        {"{'not':{'type':'object','additionalProperties':{'type':'null'}}}", "negated",
         "/not/additionalProperties"},
        {"{'not':{'uniqueItems':true},'type':'array'}", "negated", "/not/uniqueItems"},
        /* No value. */
        {"false", "no value", ""},
        {"{'enum':[]}", "no value", ""},
        {"{'type':'string','minLength':5,'maxLength':3}", "no value", ""},
        {"{'type':'integer','minimum':3,'maximum':2}", "no value", ""},
        {"{'type':'integer','minimum':3.2,'maximum':3.8}", "no value", ""},
        {"{'type':'string','pattern':'^a$','minLength':2}", "no value", ""},
        {"{'type':'array','minItems':2,'maxItems':1}", "no value", ""},
        {"{'type':'array','items':{'enum':[1,2]},'uniqueItems':true,'minItems':3}", "", ""},
        {"{'type':'object','properties':{'a':{}},'required':['b']}", "\"required\" at \"/required\"", ""},
        {"{'type':'object','properties':{'a':false},'required':['a']}", "\"required\" at \"/required\"", ""},
        {"{'const':1,'type':'string'}", "no value", ""},
        {"{'allOf':[{'type':'integer'},{'type':'string'}]}", "no value", ""},
        {"{'type':'object','properties':{'n':{'$ref':'#'}},'required':['n']}", "", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(x); i++) {
        struct err e = {0};
        struct gram *g = compile(x[i].schema, "", &e);
        if (g)
            fail_msg("%s is not refused", x[i].schema);
        if (!strstr(e.msg, x[i].message))
            fail_msg("%s: the message is: %s", x[i].schema, e.msg);
        if (*x[i].pointer && strcmp(e.param, x[i].pointer) != 0)
            fail_msg("%s: the place is: %s", x[i].schema, e.param);
    }
}

/* Annotations and unknown keywords change nothing. */
static void test_annotations(void **state) {
    (void)state;
    static const struct expect x[] = {
        {"{'title':'t','description':'d','default':3,'examples':[1],'deprecated':true,'readOnly':true,'$"
         "comment':'c',"
         "'x-note':{},'contentEncoding':'base64','unevaluatedProperties':true,'nullable':true,'discriminator'"
         ":{},'type':'null'}",
         {"null"},
         {"1"}},
    };
    check(x, 1, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_listed),      cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_strings),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_formats),     cmocka_unit_test(test_objects),
        cmocka_unit_test(test_arrays),      cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_references),  cmocka_unit_test(test_whitespace),
        cmocka_unit_test(test_closed),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_annotations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
