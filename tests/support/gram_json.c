#include "tests/support/gram_json.h"

#define S(text) STR_LIT(text)

static uint32_t range(struct gram *g, uint32_t lo, uint32_t hi) {
    return rx_class(g, &(struct rx_range){lo, hi}, 1, false);
}
static uint32_t term(struct gram *g, const char *s) {
    return gram_term(g, rx_bytes(g, str_of(s)), 0);
}
struct gram *gram_json(const struct gram_limits *limits) {
    struct gram *g = gram_new(limits);
    uint32_t value = gram_rule(g, S("value"), 0), object = gram_rule(g, S("object"), RULE_SCOPE),
             members = gram_rule(g, S("members"), 0), rest = gram_rule(g, S("rest"), 0);
    static const struct rx_range odd[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    uint32_t quote = rx_bytes(g, S("\"")), chars = rx_repeat(g, rx_class(g, odd, 3, true), 0, RX_INF);
    uint32_t string = rx_cat(g, quote, rx_cat(g, chars, quote));
    uint32_t number = gram_term(g, rx_repeat(g, range(g, '0', '9'), 1, 20), 0), colon = term(g, ":"),
             comma = term(g, ","), key = gram_term(g, string, TERM_UNIQUE);
    uint32_t list = gram_repeat(g, value, comma, 0, RX_INF);
    gram_prod(g, value, (uint32_t[]){gram_term(g, string, 0)}, 1);
    gram_prod(g, value, &number, 1);
    gram_prod(g, value, (uint32_t[]){term(g, "["), list, term(g, "]")}, 3);
    gram_prod(g, value, &object, 1);
    gram_prod(g, object, (uint32_t[]){term(g, "{"), term(g, "}")}, 2);
    gram_prod(g, object, (uint32_t[]){term(g, "{"), members, term(g, "}")}, 3);
    gram_prod(g, members, (uint32_t[]){key, colon, value, rest}, 4);
    gram_prod(g, rest, NULL, 0);
    gram_prod(g, rest, (uint32_t[]){comma, members}, 2);
    CHECK(gram_seal(g, value, true, NULL) == RC_OK);
    return g;
}
