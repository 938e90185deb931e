/* arith.c: + - * / // % ** and unary minus. */
#include <math.h>

#include "router/tmpl/ast.h"

static NORETURN void bad(struct tm_run *r, int op, struct tm_val a, struct tm_val b) {
    static const char *const names[] = {
        [TOK_ADD] = "+",       [TOK_SUB] = "-", [TOK_MUL] = "*", [TOK_DIV] = "/",
        [TOK_FLOORDIV] = "//", [TOK_MOD] = "%", [TOK_POW] = "**"};
    if (a.kind == V_UNDEF || b.kind == V_UNDEF)
        tm_fail_undef(r, a.kind == V_UNDEF ? a : b);
    tm_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", names[op], tm_type_name(a),
            tm_type_name(b));
}

static NORETURN void overflow(struct tm_run *r) {
    tm_fail(r, "integer overflow: integers of templates have 64 bits");
}

static struct tm_val int_pow(struct tm_run *r, int64_t base, int64_t exp) {
    int64_t out = 1;
    while (exp > 0) {
        if (exp & 1 && __builtin_mul_overflow(out, base, &out))
            overflow(r);
        exp >>= 1;
        if (exp && __builtin_mul_overflow(base, base, &base))
            overflow(r);
    }
    return tm_int(out);
}

static struct tm_val float_pow(struct tm_run *r, double a, double b) {
    if (a == 0 && b < 0)
        tm_fail(r, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        tm_fail(r, "complex numbers are not supported");
    double f = pow(a, b);
    if (isinf(f) && isfinite(a) && isfinite(b))
        tm_fail(r, "Numerical result out of range");
    return tm_float(f);
}

static double float_mod(double a, double b) {
    double m = fmod(a, b);
    if (m == 0)
        return copysign(0, b);
    return (m < 0) != (b < 0) ? m + b : m;
}

static double float_floordiv(double a, double b) {
    double m = fmod(a, b), d = (a - m) / b;
    if (m != 0 && (m < 0) != (b < 0))
        d -= 1;
    if (d == 0)
        return copysign(0, a / b);
    double f = floor(d);
    return d - f > 0.5 ? f + 1 : f;
}

static struct tm_val int_arith(struct tm_run *r, int op, int64_t a, int64_t b) {
    int64_t out;
    bool over = false;
    switch (op) {
    case TOK_ADD:
        over = __builtin_add_overflow(a, b, &out);
        break;
    case TOK_SUB:
        over = __builtin_sub_overflow(a, b, &out);
        break;
    case TOK_MUL:
        over = __builtin_mul_overflow(a, b, &out);
        break;
    case TOK_DIV:
        return tm_float((double)((long double)a / (long double)b));
    case TOK_FLOORDIV:
        over = a == INT64_MIN && b == -1;
        out = over ? 0 : a / b - (a % b != 0 && (a % b < 0) != (b < 0));
        break;
    case TOK_MOD:
        out = b == -1 ? 0 : a % b;
        out += out != 0 && (out < 0) != (b < 0) ? b : 0;
        break;
    default:
        return b >= 0 ? int_pow(r, a, b) : float_pow(r, (double)a, (double)b);
    }
    if (over)
        overflow(r);
    return tm_int(out);
}

static struct tm_val num_arith(struct tm_run *r, int op, struct tm_val a, struct tm_val b) {
    if ((op == TOK_DIV || op == TOK_FLOORDIV || op == TOK_MOD) && tm_as_double(b) == 0)
        tm_fail(r, "division by zero");
    int64_t i, j;
    if (tm_as_int(a, &i) && tm_as_int(b, &j))
        return int_arith(r, op, i, j);
    double x = tm_as_double(a), y = tm_as_double(b);
    switch (op) {
    case TOK_ADD:
        return tm_float(x + y);
    case TOK_SUB:
        return tm_float(x - y);
    case TOK_MUL:
        return tm_float(x * y);
    case TOK_DIV:
        return tm_float(x / y);
    case TOK_FLOORDIV:
        return tm_float(float_floordiv(x, y));
    case TOK_MOD:
        return tm_float(float_mod(x, y));
    default:
        return float_pow(r, x, y);
    }
}

/* "ab" * 3, [1] * 3 */
static struct tm_val repeat(struct tm_run *r, struct tm_val v, int64_t times) {
    if (v.kind == V_STR) {
        struct tm_cap outer = tm_cap_begin(r);
        tm_put_fill(r, v.s, times);
        return tm_str_as(r, tm_cap_end(r, outer), v.s->markup);
    }
    const struct tm_list *l = tm_items(r, v);
    size_t n = 0;
    if (times > 0 && __builtin_mul_overflow(l->n, (size_t)times, &n))
        tm_fail(r, "template ran out of its budget of memory, which follows --max-template-output");
    tm_step(r, n / 8);
    struct tm_val out = tm_list(r, (enum tm_kind)v.kind, n);
    for (size_t i = 0; i < n; i++)
        out.l->v[i] = l->v[i % l->n];
    return out;
}

static struct tm_val add_lists(struct tm_run *r, struct tm_val a, struct tm_val b) {
    const struct tm_list *x = tm_items(r, a), *y = tm_items(r, b);
    tm_step(r, (x->n + y->n) / 8);
    struct tm_val out = tm_list(r, (enum tm_kind)a.kind, x->n + y->n);
    if (x->n)
        memcpy(out.l->v, x->v, x->n * sizeof *x->v);
    if (y->n)
        memcpy(out.l->v + x->n, y->v, y->n * sizeof *y->v);
    return out;
}

static struct tm_val add_strs(struct tm_run *r, struct tm_val a, struct tm_val b) {
    if (!a.s->markup && !b.s->markup)
        return tm_str_append(r, a.s, b.s);
    return tm_str_as(r, tm_str_append(r, tm_escape(r, a).s, tm_escape(r, b).s), true);
}

struct tm_val tm_arith(struct tm_run *r, int op, struct tm_val a, struct tm_val b) {
    int64_t times;
    if (tm_is_num(a) && tm_is_num(b))
        return num_arith(r, op, a, b);
    bool a_seq = a.kind == V_STR || a.kind == V_LIST || a.kind == V_TUPLE;
    bool b_seq = b.kind == V_STR || b.kind == V_LIST || b.kind == V_TUPLE;
    if (op == TOK_ADD && a_seq && a.kind == b.kind)
        return a.kind == V_STR ? add_strs(r, a, b) : add_lists(r, a, b);
    if (op == TOK_MUL && a_seq && tm_as_int(b, &times))
        return repeat(r, a, times);
    if (op == TOK_MUL && b_seq && tm_as_int(a, &times))
        return repeat(r, b, times);
    if (op == TOK_MOD && a.kind == V_STR)
        return tm_str_percent(r, a.s, b);
    bad(r, op, a, b);
}

struct tm_val tm_negate(struct tm_run *r, struct tm_val v) {
    int64_t i;
    if (v.kind == V_FLOAT)
        return tm_float(-v.f);
    if (v.kind == V_UNDEF)
        tm_fail_undef(r, v);
    if (!tm_as_int(v, &i))
        tm_fail(r, "bad operand type for unary -: '%s'", tm_type_name(v));
    if (i == INT64_MIN)
        overflow(r);
    return tm_int(-i);
}
