/* fuzz_parse: any text, to every parser: cut into any pieces it joins to the same as whole, and nothing of the
 * content is invented. The first byte chooses the parsers, the second the pieces. */
#include "tests/support/parse_join.h"

#define NAMED(s) {s, sizeof(s) - 1}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct parse_type types[] = {
        {NAMED("f"), NAMED("a"), PARSE_INTEGER | PARSE_OBJECT}, {NAMED("f"), NAMED("b"), PARSE_ANY}};
    if (n < 2)
        return 0;
    const struct parse_opts o = {.tools = (enum parse_tools)(data[0] % N_TOOLS_PARSER),
                                 .reasoning = (enum parse_reasoning)(data[0] / 16 % 4),
                                 .in_reasoning = data[0] & 128,
                                 .calls_first = data[0] & 64,
                                 .types = types,
                                 .n_types = ARRAY_LEN(types)};
    struct str text = {(const char *)data + 2, n - 2};
    struct buf whole = {0}, pieces = {0};
    join_whole(&o, text, &whole);
    join_pieces(&o, text, 1, 0, &pieces);
    CHECK(str_eq(buf_str(&whole), buf_str(&pieces)));
    pieces.len = 0;
    join_pieces(&o, text, 1 + data[1] % 32, data[1], &pieces);
    CHECK(str_eq(buf_str(&whole), buf_str(&pieces)));
    buf_fini(&whole);
    buf_fini(&pieces);
    return 0;
}
