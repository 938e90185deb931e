/* tests.c: the tests behind `is`. */
#include "router/tmpl/ast.h"

#define TEST(name) static bool name(UNUSED struct tm_run *r, struct tm_val v, UNUSED const struct tm_val *p)

static bool divides(struct tm_run *r, struct tm_val v, int64_t by, int64_t rest) {
    struct tm_val m = tm_arith(r, TOK_MOD, v, tm_int(by));
    return tm_eq(r, m, tm_int(rest));
}

TEST(t_odd) {
    return divides(r, v, 2, 1);
}
TEST(t_even) {
    return divides(r, v, 2, 0);
}
TEST(t_divisibleby) {
    return tm_eq(r, tm_arith(r, TOK_MOD, v, p[0]), tm_int(0));
}
TEST(t_defined) {
    return v.kind != V_UNDEF;
}
TEST(t_undefined) {
    return v.kind == V_UNDEF;
}
TEST(t_none) {
    return v.kind == V_NONE;
}
TEST(t_boolean) {
    return v.kind == V_BOOL;
}
TEST(t_true) {
    return v.kind == V_BOOL && v.b;
}
TEST(t_false) {
    return v.kind == V_BOOL && !v.b;
}
TEST(t_integer) {
    return v.kind == V_INT;
}
TEST(t_float) {
    return v.kind == V_FLOAT;
}
TEST(t_number) {
    return tm_is_num(v);
}
TEST(t_string) {
    return v.kind == V_STR;
}
TEST(t_mapping) {
    return v.kind == V_DICT;
}
TEST(t_sequence) { /* has a length and can be subscripted */
    return v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_DICT ||
           v.kind == V_RANGE || v.kind == V_UNDEF;
}
TEST(t_iterable) {
    return tm_iterable(v) || v.kind == V_LOOP;
}
TEST(t_callable) {
    return v.kind == V_MACRO || v.kind == V_FUNC || v.kind == V_METHOD || v.kind == V_LOOP ||
           v.kind == V_JOINER || v.kind == V_UNDEF;
}
TEST(t_sameas) {
    return tm_same(v, p[0]);
}
TEST(t_escaped) {
    return v.kind == V_STR && v.s->markup;
}
TEST(t_in) {
    return tm_contains(r, p[0], v);
}
TEST(t_eq) {
    return tm_eq(r, v, p[0]);
}
TEST(t_ne) {
    return !tm_eq(r, v, p[0]);
}
TEST(t_lt) {
    return tm_less(r, v, p[0], "<");
}
TEST(t_gt) {
    return tm_less(r, p[0], v, ">");
}
TEST(t_le) {
    return tm_le(r, v, p[0], "<=");
}
TEST(t_ge) {
    return tm_le(r, p[0], v, ">=");
}
TEST(t_upper) {
    return tm_str_is_case(r, tm_to_str(r, v).s, true);
}
TEST(t_lower) {
    return tm_str_is_case(r, tm_to_str(r, v).s, false);
}
TEST(t_filter) {
    return v.kind == V_STR && tm_filter_find((struct str){v.s->p, v.s->n});
}
TEST(t_test) {
    return v.kind == V_STR && tm_test_find((struct str){v.s->p, v.s->n});
}

static const struct tm_test table[] = {
    {"defined", t_defined, 0, NULL},
    {"undefined", t_undefined, 0, NULL},
    {"none", t_none, 0, NULL},
    {"string", t_string, 0, NULL},
    {"mapping", t_mapping, 0, NULL},
    {"sequence", t_sequence, 0, NULL},
    {"iterable", t_iterable, 0, NULL},
    {"number", t_number, 0, NULL},
    {"integer", t_integer, 0, NULL},
    {"float", t_float, 0, NULL},
    {"boolean", t_boolean, 0, NULL},
    {"true", t_true, 0, NULL},
    {"false", t_false, 0, NULL},
    {"callable", t_callable, 0, NULL},
    {"odd", t_odd, 0, NULL},
    {"even", t_even, 0, NULL},
    {"divisibleby", t_divisibleby, 1, "num"},
    {"sameas", t_sameas, 1, "other"},
    {"escaped", t_escaped, 0, NULL},
    {"upper", t_upper, 0, NULL},
    {"lower", t_lower, 0, NULL},
    {"in", t_in, 1, "seq"},
    {"filter", t_filter, 0, NULL},
    {"test", t_test, 0, NULL},
    {"eq", t_eq, 1, NULL},
    {"equalto", t_eq, 1, NULL},
    {"==", t_eq, 1, NULL},
    {"ne", t_ne, 1, NULL},
    {"!=", t_ne, 1, NULL},
    {"lt", t_lt, 1, NULL},
    {"lessthan", t_lt, 1, NULL},
    {"<", t_lt, 1, NULL},
    {"gt", t_gt, 1, NULL},
    {"greaterthan", t_gt, 1, NULL},
    {">", t_gt, 1, NULL},
    {"le", t_le, 1, NULL},
    {"<=", t_le, 1, NULL},
    {"ge", t_ge, 1, NULL},
    {">=", t_ge, 1, NULL},
};

const struct tm_test *tm_test_find(struct str name) {
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (str_eqz(name, table[i].name))
            return &table[i];
    return NULL;
}
