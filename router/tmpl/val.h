/* val.h: values of a rendering, and the rendering itself.
 *
 * Values follow Python's: what prints, compares, hashes or fails there does so here. Integers have
 * 64 bits; an overflow is an error. Strings are UTF-8 and remember which of their bytes came from
 * client text. All memory is the request's arena; evaluation fails by a jump to tmpl_render
 * (tm_fail), which has nothing to undo but the output buffer.
 */
#ifndef WEIR_ROUTER_TMPL_VAL_H
#define WEIR_ROUTER_TMPL_VAL_H

#include <setjmp.h>

#include "router/tmpl/tmpl.h"

enum tm_kind {
    V_MISSING, /* a variable not set yet, an argument not given; never reaches an expression */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW,
    V_RANGE,
    V_ITER,
    V_NS,
    V_LOOP,
    V_MACRO,
    V_FUNC,
    V_METHOD,
    V_CYCLER,
    V_JOINER
};

struct tm_val {
    uint8_t kind; /* enum tm_kind */
    union {
        bool b;
        int64_t i;
        double f;
        struct tm_undef *u;
        struct tm_str *s;
        struct tm_list *l; /* V_LIST, V_TUPLE */
        struct tm_dict *d;
        struct tm_view *view;
        struct tm_range *range;
        struct tm_iter *it;
        struct tm_ns *ns;
        struct tm_loop *loop;
        struct tm_macro *macro;
        const struct tm_callable *func;
        struct tm_bound *bound;
        struct tm_cycler *cycler;
        struct tm_joiner *joiner;
        void *p;
    };
};

enum tm_origin { FROM_TEMPLATE, FROM_CLIENT, FROM_BOTH };

struct tm_tail; /* spare room behind a string that grows by appending */
struct tm_str {
    const char *p;
    size_t n;
    int64_t n_cp;  /* code points; -1: not counted yet */
    uint32_t hash; /* 0: not computed yet */
    uint8_t origin;
    bool markup;                   /* the result of `safe` or `escape` */
    uint32_t n_marks;              /* FROM_BOTH */
    const struct tmpl_mark *marks; /* sorted; ends beyond n count as n */
    struct tm_tail *tail;          /* may be NULL */
};

struct tm_list {
    struct tm_val *v;
    size_t n;
    const json_t *lazy; /* not NULL: not converted yet */
    bool client;
    bool group; /* a tuple made by groupby: has .grouper and .list */
};

struct tm_entry {
    struct tm_val key, value;
    uint32_t hash;
};
struct tm_dict {
    struct tm_entry *e; /* in order of insertion */
    size_t n, cap;
    uint32_t *index; /* open addressing, entry + 1; NULL while small */
    size_t n_index;
    const json_t *lazy;
    bool client;
};

enum tm_view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };
struct tm_view {
    struct tm_dict *d;
    enum tm_view_kind kind;
};
struct tm_range {
    int64_t start, stop, step, n;
};
struct tm_ns {
    struct tm_dict *d;
};
struct tm_cycler {
    struct tm_val *v;
    size_t n, at;
};
struct tm_joiner {
    struct tm_val sep;
    bool used;
};
struct tm_undef {
    const char *hint; /* the whole message, or NULL */
    struct str name;
    const char *owner; /* type of the object that lacks it, or NULL: a variable */
    bool unsafe;
};

/* The variables of one running function. */
struct tm_act {
    struct tm_act *up; /* of the function around its definition */
    struct tm_val slots[];
};

struct tm_func;
struct tm_node;
struct tm_macro {
    const struct tm_func *func;
    struct tm_act *act;
};

struct tm_run;
/* Arguments of a call, evaluated. */
struct tm_kwarg {
    struct str name;
    struct tm_val v;
};
struct tm_args {
    struct tm_val *v;
    size_t n;
    struct tm_kwarg *kw;
    size_t n_kw;
};

enum { TM_PARAMS_MAX = 6, TM_VARARGS = 255 };
/* A function, method or filter: p[] has the arguments bound to params[] (V_MISSING where not given);
 * with n_max TM_VARARGS, p is NULL and args has them. self: the object, or the filtered value. */
struct tm_callable {
    const char *name;
    struct tm_val (*fn)(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                        const struct tm_args *args);
    uint8_t n_min, n_max;
    const char *params[TM_PARAMS_MAX]; /* "": positional only */
};
struct tm_test {
    const char *name;
    bool (*fn)(struct tm_run *r, struct tm_val v, const struct tm_val *p);
    uint8_t n_args;
    const char *param; /* NULL: positional only */
};
struct tm_bound {
    struct tm_val self;
    const struct tm_callable *m;
};

enum tm_iter_kind {
    IT_ARRAY,
    IT_REVERSED,
    IT_STR,
    IT_DICT,
    IT_RANGE,
    IT_MAP,
    IT_SELECT,
    IT_UNIQUE,
    IT_DEFERRED,
    IT_FOR_TEST
};
struct tm_iter {
    enum tm_iter_kind kind;
    size_t at;
    union {
        const struct tm_list *list; /* IT_ARRAY, IT_REVERSED */
        const struct tm_str *s;     /* IT_STR: at is a byte offset */
        struct tm_view view;        /* IT_DICT */
        const struct tm_range *range;
        struct {
            struct tm_val source;
            struct tm_iter *from;             /* NULL until first used */
            const struct tm_callable *filter; /* IT_MAP: NULL for an attribute */
            const struct tm_test *test;       /* IT_SELECT: NULL for truth */
            struct tm_args args;
            struct tm_val attr, dflt; /* V_MISSING: none */
            bool negate, case_sensitive;
            struct tm_dict *seen; /* IT_UNIQUE */
        } pipe;
        struct {
            struct tm_val (*make)(struct tm_run *r, struct tm_val source, const struct tm_args *args);
            struct tm_val source;
            struct tm_args args;
            const struct tm_list *list; /* NULL until first used */
        } deferred;
        struct {
            struct tm_iter *from;
            const struct tm_node *loop;
            struct tm_act *act;
        } for_test;
    };
};

struct tm_loop {
    struct tm_val iterable;
    struct tm_iter *it;
    int64_t index0, length; /* length -1: not known yet */
    int64_t depth0;
    struct tm_val after, current, before; /* V_MISSING: none */
    struct tm_val changed;                /* a tuple, or V_MISSING */
    const struct tm_node *recursive;      /* NULL: not callable */
    struct tm_act *act;                   /* where a recursive loop was defined */
};

struct tm_cap {
    size_t base, mark_floor;
};

struct tm_run {
    const struct tmpl *t;
    struct arena *a;
    size_t arena_bytes_max; /* of a->used_bytes */
    struct tmpl_out out;    /* finished output, then text of captures in progress */
    struct tm_cap cap;      /* innermost capture: where it begins in out */
    uint64_t steps;
    unsigned calls, depth;
    uint32_t line;
    struct tm_act *act;
    struct tm_val block; /* the text that a block's filter works on */
    const struct tmpl_var *vars;
    struct tm_val *var_vals; /* V_MISSING: not converted yet */
    size_t n_vars;
    int64_t now_unix_s;
    struct err *e;
    jmp_buf fail;
};

/* tm_fail: ends the rendering with "message (line N)". */
NORETURN void tm_fail(struct tm_run *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* tm_fail_undef: the error of using an undefined value. */
NORETURN void tm_fail_undef(struct tm_run *r, struct tm_val v);

/* tm_fail_steps: the error of a spent budget. */
NORETURN void tm_fail_steps(struct tm_run *r);

/* tm_step: spends n steps. tm_step_bytes: for work over n bytes. */
static inline void tm_step(struct tm_run *r, uint64_t n) {
    if (UNLIKELY(n > r->steps))
        tm_fail_steps(r);
    r->steps -= n;
}
static inline void tm_step_bytes(struct tm_run *r, size_t n) {
    tm_step(r, n / 32);
}
/* tm_enter, tm_leave: a level of nesting of evaluation, bounded. */
void tm_enter(struct tm_run *r);
static inline void tm_leave(struct tm_run *r) {
    r->depth--;
}
/* tm_alloc: arena memory within the rendering's budget; not cleared. */
void *tm_alloc(struct tm_run *r, size_t n) __attribute__((returns_nonnull));
void *tm_zalloc(struct tm_run *r, size_t count, size_t size) __attribute__((returns_nonnull));

/* ---- making values (val.c) ---- */
#define TM_MISSING ((struct tm_val){.kind = V_MISSING})
#define TM_NONE ((struct tm_val){.kind = V_NONE})
static inline struct tm_val tm_bool(bool b) {
    return (struct tm_val){.kind = V_BOOL, .b = b};
}
static inline struct tm_val tm_int(int64_t i) {
    return (struct tm_val){.kind = V_INT, .i = i};
}
static inline struct tm_val tm_float(double f) {
    return (struct tm_val){.kind = V_FLOAT, .f = f};
}
static inline struct tm_val tm_of_str(struct tm_str *s) {
    return (struct tm_val){.kind = V_STR, .s = s};
}
/* tm_str: a string over bytes that outlive the rendering. */
struct tm_val tm_str(struct tm_run *r, const char *p, size_t n, enum tm_origin origin);
struct tm_val tm_strz(struct tm_run *r, const char *z);
struct tm_val tm_list(struct tm_run *r, enum tm_kind kind, size_t n); /* items V_NONE */
struct tm_val tm_tuple2(struct tm_run *r, struct tm_val a, struct tm_val b);
struct tm_val tm_undef(struct tm_run *r, const char *hint, struct str name, const char *owner);
struct tm_val tm_iter_val(struct tm_iter *it);
struct tm_val tm_from_json(struct tm_run *r, const json_t *j, bool client);
const char *tm_type_name(struct tm_val v);

/* A vector that grows, for results of unknown length. */
struct tm_vec {
    struct tm_val *v;
    size_t n, cap;
};
void tm_vec_add(struct tm_run *r, struct tm_vec *x, struct tm_val v);
struct tm_val tm_vec_list(struct tm_run *r, const struct tm_vec *x, enum tm_kind kind);

/* tm_items: the items of a list or tuple, converted if need be. */
const struct tm_list *tm_items(struct tm_run *r, struct tm_val v);
const struct tm_dict *tm_entries(struct tm_run *r, struct tm_dict *d);

struct tm_dict *tm_dict_new(struct tm_run *r, size_t cap);
/* tm_dict_set: false if the key cannot be hashed. */
bool tm_dict_set(struct tm_run *r, struct tm_dict *d, struct tm_val key, struct tm_val value);
/* tm_dict_get: V_MISSING when absent. hashable (may be NULL) is set to false for a list and the like. */
struct tm_val tm_dict_get(struct tm_run *r, struct tm_dict *d, struct tm_val key, bool *hashable);
struct tm_val tm_dict_getz(struct tm_run *r, struct tm_dict *d, struct str name);

/* ---- strings (str.c) ---- */
uint32_t tm_hash_bytes(const char *p, size_t n);
uint32_t tm_str_hash(struct tm_str *s);
int64_t tm_str_len(struct tm_run *r, struct tm_str *s); /* code points */
/* tm_str_sub: bytes [begin, end) of s. */
struct tm_val tm_str_sub(struct tm_run *r, const struct tm_str *s, size_t begin, size_t end);
/* tm_str_at: the byte offset of code point i, 0 <= i <= length. */
size_t tm_str_at(struct tm_run *r, struct tm_str *s, int64_t i);
struct tm_val tm_str_append(struct tm_run *r, struct tm_str *a, struct tm_str *b);
/* tm_str_as: the same text with the markup flag set or cleared. */
struct tm_val tm_str_as(struct tm_run *r, struct tm_val s, bool markup);
uint32_t tm_utf8_get(const char *p, const char *end, unsigned *len);

/* ---- output and building strings (out.c): everything built is written behind the output ---- */
void tm_put(struct tm_run *r, const char *p, size_t n);
void tm_putz(struct tm_run *r, const char *z);
void tm_putc(struct tm_run *r, char c);
void tm_putf(struct tm_run *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
void tm_put_from(struct tm_run *r, const char *p, size_t n, bool client);
void tm_put_fill(struct tm_run *r, const struct tm_str *s, int64_t times);
void tm_put_sub(struct tm_run *r, const struct tm_str *s, size_t begin, size_t end);
void tm_put_str(struct tm_run *r, const struct tm_str *s);
struct tm_cap tm_cap_begin(struct tm_run *r);
struct tm_val tm_cap_end(struct tm_run *r, struct tm_cap outer);
void tm_cap_drop(struct tm_run *r, struct tm_cap outer);
/* tm_run_next: splits s into runs of one origin: the run at *at, which moves to its end. */
struct str tm_run_next(const struct tm_str *s, size_t *at, bool *client);

/* ---- text of values (repr.c) ---- */
void tm_put_val(struct tm_run *r, struct tm_val v);           /* str(v) */
void tm_put_repr(struct tm_run *r, struct tm_val v);          /* repr(v) */
struct tm_val tm_to_str(struct tm_run *r, struct tm_val v);   /* str(v): never markup */
struct tm_val tm_soft_str(struct tm_run *r, struct tm_val v); /* v itself if a string */
struct tm_val tm_escape(struct tm_run *r, struct tm_val v);
enum { TM_FLOAT_MAX = 32 };
size_t tm_float_repr(char out[TM_FLOAT_MAX], double f);
void tm_put_json(struct tm_run *r, struct tm_val v, const struct tm_val *p);

/* ---- operations (ops.c) ---- */
bool tm_truth(struct tm_run *r, struct tm_val v);
bool tm_eq(struct tm_run *r, struct tm_val a, struct tm_val b);
bool tm_less(struct tm_run *r, struct tm_val a, struct tm_val b, const char *op); /* a < b; op for errors */
bool tm_le(struct tm_run *r, struct tm_val a, struct tm_val b, const char *op);   /* a <= b */
bool tm_contains(struct tm_run *r, struct tm_val box, struct tm_val item);
bool tm_same(struct tm_val a, struct tm_val b);
struct tm_val tm_arith(struct tm_run *r, int op, struct tm_val a, struct tm_val b);
struct tm_val tm_negate(struct tm_run *r, struct tm_val v);
/* tm_length: len(v), or -1 where it has none. */
int64_t tm_length(struct tm_run *r, struct tm_val v);
bool tm_is_num(struct tm_val v);               /* bool, int or float */
bool tm_as_int(struct tm_val v, int64_t *out); /* bool or int */
double tm_as_double(struct tm_val v);
/* tm_need_int, tm_need_str: or a type error naming what. */
int64_t tm_need_int(struct tm_run *r, struct tm_val v, const char *what);
struct tm_str *tm_need_str(struct tm_run *r, struct tm_val v, const char *what);
/* tm_slice: v[start:stop:step]. What cannot be sliced is an error. (Jinja makes it undefined where it
 * computes an expression of constants while compiling.) */
struct tm_val tm_slice(struct tm_run *r, struct tm_val v, struct tm_val start, struct tm_val stop,
                       struct tm_val step);

/* ---- iteration (iter.c) ---- */
bool tm_iterable(struct tm_val v);
struct tm_iter *tm_iter_open(struct tm_run *r, struct tm_val v);
bool tm_iter_next(struct tm_run *r, struct tm_iter *it, struct tm_val *out);
struct tm_val tm_to_list(struct tm_run *r, struct tm_val v, enum tm_kind kind);
void tm_sort(struct tm_run *r, struct tm_val *keys, struct tm_val *vals, size_t n, bool reverse);

/* ---- attributes and items (attr.c) ---- */
struct tm_val tm_getattr(struct tm_run *r, struct tm_val obj, struct tm_str *name);
struct tm_val tm_getitem(struct tm_run *r, struct tm_val obj, struct tm_val key);
/* tm_attr_path: follows "a.b.0" or an int, as filters' attribute arguments do. */
struct tm_val tm_attr_path(struct tm_run *r, struct tm_val obj, struct tm_val path, struct tm_val dflt);
const struct tm_callable *tm_method(struct tm_val obj, struct str name);

/* ---- calls (call.c) ---- */
struct tm_val tm_call(struct tm_run *r, struct tm_val f, const struct tm_args *args);
struct tm_val tm_call_def(struct tm_run *r, const struct tm_callable *c, struct tm_val self,
                          const struct tm_args *args);
bool tm_call_test(struct tm_run *r, const struct tm_test *t, struct tm_val v, const struct tm_args *args);
struct tm_val tm_call_macro(struct tm_run *r, const struct tm_macro *m, const struct tm_args *args);

/* ---- tables ---- */
/* Ends: name NULL. A method without fn is one that Python has: n_min 0, and the sandbox blocks; 1, and is
 * not available here. */
extern const struct tm_callable tm_str_methods[], tm_seq_methods[], tm_list_methods[], tm_dict_methods[];
extern const struct tm_callable tm_num_methods[], tm_cycler_methods[], tm_loop_methods[];
extern const struct tm_callable tm_functions[], tm_dict_fromkeys;
extern const struct tm_callable tm_filters_str[], tm_filters_seq[];
/* tm_filter_find, tm_test_find: NULL when unknown. A filter without fn exists in Jinja and not here. */
const struct tm_callable *tm_filter_find(struct str name);
const struct tm_test *tm_test_find(struct str name);
const struct tm_callable *tm_table_find(const struct tm_callable *table, struct str name);
/* str methods that filters share. */
struct tm_val tm_str_case(struct tm_run *r, const struct tm_str *s, int how);
enum { CASE_UPPER, CASE_LOWER, CASE_CAPITALIZE, CASE_TITLE, CASE_SWAP, CASE_TITLE_FILTER };
bool tm_str_is_case(struct tm_run *r, const struct tm_str *s, bool upper);
struct tm_val tm_str_strip(struct tm_run *r, const struct tm_str *s, struct tm_val chars, bool left,
                           bool right);
struct tm_val tm_str_replace(struct tm_run *r, const struct tm_str *s, const struct tm_str *old,
                             const struct tm_str *new_, int64_t count);
struct tm_val tm_str_lines(struct tm_run *r, struct tm_str *s, bool keepends);
struct tm_val tm_str_pad(struct tm_run *r, struct tm_str *s, int64_t width, const struct tm_str *fill,
                         char align);
struct tm_val tm_str_percent(struct tm_run *r, struct tm_str *fmt, struct tm_val args);
struct tm_val tm_str_format(struct tm_run *r, struct tm_str *fmt, const struct tm_args *args);
struct tm_val tm_join(struct tm_run *r, const struct tm_str *sep, struct tm_val seq, struct tm_val attr,
                      bool convert);

/* ---- running (exec.c, eval.c) ---- */
struct tm_val tm_eval(struct tm_run *r, const struct tm_node *n);
/* tm_eval_call: a call node; caller is passed as the keyword of that name unless V_MISSING. */
struct tm_val tm_eval_call(struct tm_run *r, const struct tm_node *n, struct tm_val caller);
void tm_assign(struct tm_run *r, const struct tm_node *target, struct tm_val v);
void tm_check_target(struct tm_run *r, const struct tm_node *target);
enum tm_flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };
struct tm_nodes;
enum tm_flow tm_exec(struct tm_run *r, const struct tm_nodes *body);
struct tm_scope;
void tm_scope_enter(struct tm_run *r, const struct tm_scope *s);
bool tm_for_test(struct tm_run *r, struct tm_iter *it, struct tm_val *out);
/* tm_loop_call: loop(iterable) of a recursive loop, as a string. */
struct tm_val tm_loop_call(struct tm_run *r, struct tm_loop *loop, struct tm_val iterable);
struct tm_val tm_loop_attr(struct tm_run *r, struct tm_loop *loop, struct str name);
struct tm_val tm_var(struct tm_run *r, struct str name); /* a top-level variable or global; or V_MISSING */

#endif
