/* Rows G01 to G06 of reliability.md: hostile constraints are refused with a reason, or right, within a second
 * of CPU time and 64 MiB. Each is compiled and run for a while in a process of its own, which is then asked
 * what it took. G07 is test_engine_constraint's, G08 to G10 are of the API (test_api_constraint, tests/e2e).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/gram/front.h"
#include "common/gram/gram.h"

#ifdef WEIR_SANITIZE /* takes its own time and memory */
enum { MEASURED = false };
#else
enum { MEASURED = true };
#endif
enum { MAY = 0, TAKE, REFUSE }; /* what must come of it */

static double cpu_s(const struct rusage *u) {
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

/* in_child: compiles, and goes along whatever bytes may come. Exit status: MAY if the answer is no answer. */
static int in_child(enum gram_kind kind, struct str text) {
    struct gram *g = NULL;
    struct err e = {0};
    enum rc rc = gram_compile(&g, kind, text, (struct str){NULL, 0}, NULL, &e);
    if (rc)
        return rc == RC_INVALID && e.msg[0] ? REFUSE : MAY;
    struct gram_run *r = gram_run_new(g, NULL);
    for (unsigned step = 0; step < 64 && !rc; step++) {
        rc = RC_INVALID;
        for (unsigned b = 0; b < 256 && rc == RC_INVALID; b++) {
            char c = (char)(' ' + (step * 7 + b) % 256);
            rc = gram_run_bytes(r, (struct str){&c, 1}, NULL, &e);
        }
        if (rc == RC_INVALID && !gram_run_may_end(r))
            return MAY; /* stuck */
    }
    gram_run_free(r);
    gram_drop(g);
    return TAKE;
}

static struct rusage child_of(enum gram_kind kind, struct str text, int *answer) {
    struct rusage u;
    int status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(text.p ? in_child(kind, text) : TAKE);
    assert_int_equal(wait4(pid, &status, 0, &u), pid);
    if (!WIFEXITED(status))
        fail_msg("the child ended by signal %d", WTERMSIG(status));
    *answer = WEXITSTATUS(status);
    return u;
}

static void try_text(enum gram_kind kind, struct str text, int want) {
    int idle, answer;
    struct rusage none = child_of(kind, (struct str){NULL, 0}, &idle), u = child_of(kind, text, &answer);
    int n = (int)MIN(text.n, (size_t)100);
    if (answer == MAY || (want != MAY && answer != want))
        fail_msg("%.*s: %s", n, text.p,
                 answer == MAY    ? "stuck, or no reason given"
                 : answer == TAKE ? "taken"
                                  : "refused");
    long kib = u.ru_maxrss - none.ru_maxrss;
    if (MEASURED && (cpu_s(&u) > 1 || kib > 64 * 1024))
        fail_msg("%.*s: %.2f s, %ld KiB", n, text.p, cpu_s(&u), kib);
}

/* A piece written n times, with its number where there is a %u, between a head and a tail. */
struct made {
    const char *head, *piece, *tail;
    uint32_t n;
    int want;
};

static void put_piece(struct buf *b, const char *piece, uint32_t i) {
    for (; *piece; piece++)
        if (piece[0] == '%') {
            buf_addu64(b, i);
            piece++;
        } else {
            buf_addc(b, *piece == '\'' ? '"' : *piece);
        }
}

static void try_made(enum gram_kind kind, const struct made *m, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct buf b = {0};
        put_piece(&b, m[i].head, 0);
        for (uint32_t k = 0; k < m[i].n; k++)
            put_piece(&b, m[i].piece, k);
        put_piece(&b, m[i].tail, m[i].n);
        try_text(kind, buf_str(&b), m[i].want);
        buf_fini(&b);
    }
}

static void test_g01(void **state) {
    (void)state;
    static const struct made schemas[] = {
        {"7", "", "", 0, REFUSE},
        {"[]", "", "", 0, REFUSE},
        {"'x'", "", "", 0, REFUSE},
        {"{'type':7}", "", "", 0, REFUSE},
        {"{'type':'strin'}", "", "", 0, REFUSE},
        {"{'type':[]}", "", "", 0, REFUSE},
        {"{'pattern':'('}", "", "", 0, REFUSE},
        {"{'pattern':'['}", "", "", 0, REFUSE},
        {"{'pattern':'a{2,1}'}", "", "", 0, REFUSE},
        {"{'pattern':'(?:a)'}", "", "", 0, TAKE},
        {"{'pattern':'(?=a)'}", "", "", 0, REFUSE},
        {"{'pattern':'\\\\1'}", "", "", 0, REFUSE},
        {"{'pattern':'\\\\p{L}'}", "", "", 0, TAKE},
        {"{'pattern':'(?<n>a)'}", "", "", 0, TAKE},
    };
    static const struct made patterns[] = {
        {"(", "", "", 0, REFUSE},      {"[", "", "", 0, REFUSE},     {"a{2,1}", "", "", 0, REFUSE},
        {"(?:a)", "", "", 0, TAKE},    {"(?=a)", "", "", 0, REFUSE}, {"\\1", "", "", 0, REFUSE},
        {"\\p{L}", "", "", 0, TAKE},   {"(?<n>a)", "", "", 0, TAKE}, {"\\", "", "", 0, REFUSE},
        {"[\\d-\\w]", "", "", 0, MAY}, {"(?", "", "", 0, REFUSE},    {"*", "", "", 0, REFUSE},
    };
    try_made(GRAM_JSON_SCHEMA, schemas, ARRAY_LEN(schemas));
    try_made(GRAM_REGEX, patterns, ARRAY_LEN(patterns));
}

static void test_g02(void **state) {
    (void)state;
    static const struct made patterns[] = {
        {"(a+)+$", "", "", 0, TAKE},
        {"(a|a)*b", "", "", 0, TAKE},
        {"(.{1,1000}){1,1000}", "", "", 0, REFUSE},
        {"a{1000000}", "", "", 0, REFUSE},
        {"a", "|b", "", 1 << 19, REFUSE},
        {"", "(", "", 100000, REFUSE},
        {"", "(a?", "", 5000, REFUSE},
        {"", "(a|b)?", "c", 2000, MAY},
        {"(a*)*", ".*", "=", 1000, MAY},
    };
    try_made(GRAM_REGEX, patterns, ARRAY_LEN(patterns));
}

static void test_g03(void **state) {
    (void)state;
    static const struct made schemas[] = {
        {"{'$ref':'#'}", "", "", 0, REFUSE},
        {"{'$defs':{'a':{'$ref':'#/$defs/b'},'b':{'$ref':'#/$defs/a'}},'$ref':'#/$defs/a'}", "", "", 0,
         REFUSE},
        {"{'$ref':'#/$defs/no'}", "", "", 0, REFUSE},
        {"{'$ref':'http://example.com/x'}", "", "", 0, REFUSE},
        {"{'$ref':'#/'}", "", "", 0, REFUSE},
        {"{'type':'array','items':{'$ref':'#'}}", "", "", 0, TAKE},
        {"{'$defs':{'x':{}", ",'d%u':{}", "}}", 10000, MAY},
        {"{'$defs':{'x':{}", ",'d%u':{'type':'null'}", "}}", 100000, REFUSE},
        {"{'$defs':{'d0':{}", ",'e%u':{'$ref':'#/$defs/e%u'}", "}}", 1000, MAY},
        {"{'allOf':[{}", ",{'type':'object','properties':{'k%u':{'type':'string'}}}", "]}", 1000, MAY},
        {"{'allOf':[{}", ",{'type':'string','minLength':%u}", "]}", 1000, TAKE},
        {"{'oneOf':[{'type':'integer'},{'type':'number','minimum':3}]}", "", "", 0, MAY},
        {"{'oneOf':[{'type':'object'}", ",{'type':'object','required':['k%u']}", "]}", 200, MAY},
        {"{'type':'object','not':{'required':['a']}}", "", "", 0, MAY},
        {"{'not':{'anyOf':[{}", ",{'properties':{'k%u':{'type':'null'}}}", "]}}", 500, REFUSE},
        {"", "{'anyOf':[{'type':'null'},", "1", 60, REFUSE},
    };
    try_made(GRAM_JSON_SCHEMA, schemas, ARRAY_LEN(schemas));
}

static void test_g04(void **state) {
    (void)state;
    static const struct made schemas[] = {
        {"{'enum':['x'", ",'s%u'", "]}", 100000, REFUSE},
        {"{'enum':[{}", ",{'k%u':%u}", "]}", 4000, TAKE},
        {"{'enum':[[]", ",[%u,'%u',[%u]]", "]}", 4000, TAKE},
        {"{'const':'", "x", "'}", 1 << 20, REFUSE},
        {"{'const':'", "x", "'}", 200000, TAKE},
        {"{'type':'object','properties':{'x':{}", ",'p%u':{'type':'integer'}", "}}", 10000, REFUSE},
        {"{'type':'object','properties':{'x':{}", ",'p%u':{}", "},'additionalProperties':true}", 1000, TAKE},
        {"{'type':'object','required':['x'", ",'r%u'", "]}", 200, TAKE},
        {"{'type':'object','properties':{'a':{}},'required':['b']}", "", "", 0, REFUSE},
        {"{'type':'array','minItems':1000000000}", "", "", 0, REFUSE},
        {"{'type':'string','minLength':1000000000}", "", "", 0, REFUSE},
        {"{'type':'integer','minimum':2,'maximum':1}", "", "", 0, REFUSE},
        {"{'type':'integer','multipleOf':0}", "", "", 0, REFUSE},
        {"{'type':'number','multipleOf':1e-300}", "", "", 0, REFUSE},
    };
    try_made(GRAM_JSON_SCHEMA, schemas, ARRAY_LEN(schemas));
}

static void test_g05(void **state) {
    (void)state;
    static const struct made schemas[] = {
        {"false", "", "", 0, REFUSE},
        {"{'type':'string','minLength':5,'maxLength':3}", "", "", 0, REFUSE},
        {"{'enum':[]}", "", "", 0, REFUSE},
        {"{'type':'object','properties':{'a':false},'required':['a']}", "", "", 0, REFUSE},
        {"{'type':'array','items':false,'minItems':1}", "", "", 0, REFUSE},
        {"{'allOf':[{'type':'string'},{'type':'integer'}]}", "", "", 0, REFUSE},
        {"{'type':'string','pattern':'^a$','minLength':2}", "", "", 0, REFUSE},
    };
    try_made(GRAM_JSON_SCHEMA, schemas, ARRAY_LEN(schemas));
}

static void test_g06(void **state) {
    (void)state;
    static const struct made grammars[] = {
        {"root ::= nowhere", "", "", 0, REFUSE},
        {"root ::= root 'a' | 'b'", "", "", 0, TAKE},
        {"root ::= ''", "", "", 0, TAKE},
        {"root ::= (('')*)*", "", "", 0, TAKE},
        {"root ::= a\na ::= b\nb ::= a | ''", "", "", 0, TAKE},
        {"root ::= a\na ::= a 'x'", "", "", 0, REFUSE},
        {"root ::= r0\n", "r%u ::= 'a'\n", "", 100000, REFUSE},
        {"root ::= ", "( ", "", 100000, REFUSE},
        {"root ::= [\xFF-\xFE]", "", "", 0, REFUSE},
        {"root ::= 'abc\nx ::= 'd'", "", "", 0, REFUSE},
        {"root ::= [a-", "", "", 0, REFUSE},
        {"start: nowhere", "", "", 0, REFUSE},
        {"start: start 'a' | 'b'", "", "", 0, TAKE},
        {"start: /(/", "", "", 0, REFUSE},
    };
    try_made(GRAM_EBNF, grammars, ARRAY_LEN(grammars));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_g01), cmocka_unit_test(test_g02), cmocka_unit_test(test_g03),
        cmocka_unit_test(test_g04), cmocka_unit_test(test_g05), cmocka_unit_test(test_g06),
    };
    return cmocka_run_group_tests_name("gram_rows", tests, NULL, NULL);
}
