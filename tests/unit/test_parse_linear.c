/* Linear time for any text: hostile ones, repeated. The deadline is of CPU time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "tests/support/parse_join.h"

static uint64_t cpu_ns(void) {
    struct timespec t;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Texts are `head` and as many `unit` as fit. Quadratic time would show as 10 us a byte and more. */
enum { TEXT_BYTES = 64 << 10, NS_PER_BYTE_MAX = 1500 };

static const char *const units[] = {
    "<tool_call>",
    "<",
    "{",
    "[",
    "<tool_call>{\"",
    "<tool_call>{\"name\": \"",
    "</tool_call>",
    "<tool_call>{\"x\":[",
    "\\",
    "\"",
    " ",
    "<tool_call>{\"name\": \"f\", \"arguments\": {",
    "\\ud800",
    "[{\"name\"",
    "<tool_call>{\"arguments\": {\"a\": \"",
    "<think>",
    "</think",
    "Here is my ",
    "[TOOL_CALLS]",
    "f(a=",
    "<function=",
    "<parameter=",
    "[f(a=[",
    "[f(a={'",
    "'",
    "1",
    "<|python_tag|>",
    "{\"name\": \"x\", ",
    ";",
    "<tool_calls>[",
    "</parameter",
    "[f(a='",
    "]",
    "\n",
    "a",
};
static const char *const heads[] = {
    "", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ", "<tool_call>{\"x\": ",
    "[TOOL_CALLS]f{\"a\": ", "[f(a=", "<tool_call><function=f><parameter=a>", "{\"name\": \"f\", \"arguments\": {\"a\": ",
};

static void test_linear(void **state) {
    (void)state;
    struct buf text = {0}, whole = {0};
    uint64_t worst = 0;
    for (size_t t = 0; t < N_TOOLS_PARSER; t++)
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
            for (size_t h = 0; h < ARRAY_LEN(heads); h++) {
                const struct parse_opts o = {.tools = (enum parse_tools)t,
                                             .reasoning = (enum parse_reasoning)(t ? 0 : 1 + h % 3)};
                text.len = whole.len = 0;
                buf_addz(&text, heads[h]);
                while (text.len < TEXT_BYTES)
                    buf_addz(&text, units[i]);
                uint64_t start_ns = cpu_ns();
                join_whole(&o, buf_str(&text), &whole);
                uint64_t ns = (cpu_ns() - start_ns) / text.len;
                worst = MAX(worst, ns);
                if (ns > NS_PER_BYTE_MAX)
                    fail_msg("parser %zu, head %zu, unit %s: %u ns a byte", t, h, units[i], (unsigned)ns);
            }
    print_message("at worst %u ns a byte\n", (unsigned)worst);
    buf_fini(&text);
    buf_fini(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
