/* json.c: the tojson filter: json.dumps with Hugging Face's defaults. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "router/tmpl/ast.h"

struct dump {
    struct tm_run *r;
    bool ascii, sort, multiline;
    const struct tm_str *item_sep, *key_sep;
    struct tm_str *indent; /* one level; multiline only */
    int level;
};

static void put_json_run(struct dump *d, struct str s, bool client) {
    const char *p = s.p, *end = s.p + s.n, *plain = p;
    while (p < end) {
        unsigned char ch = (unsigned char)*p;
        unsigned len = 1;
        char esc[16] = "";
        if (ch == '"' || ch == '\\') {
            snprintf(esc, sizeof esc, "\\%c", ch);
        } else if (ch < 0x20) {
            static const char names[] = "\bb\tt\nn\ff\rr";
            const char *at = ch ? strchr(names, ch) : NULL;
            snprintf(esc, sizeof esc, at ? "\\%c" : "\\u%04x", at ? at[1] : ch);
        } else if (d->ascii && ch >= 0x80) {
            uint32_t cp = tm_utf8_get(p, end, &len);
            if (cp < 0x10000)
                snprintf(esc, sizeof esc, "\\u%04x", cp);
            else
                snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xd7c0 + (cp >> 10), 0xdc00 + (cp & 0x3ff));
        }
        if (*esc) {
            tm_put_from(d->r, plain, (size_t)(p - plain), client);
            tm_put_from(d->r, esc, strlen(esc), client);
            plain = p + len;
        }
        p += len;
    }
    tm_put_from(d->r, plain, (size_t)(p - plain), client);
}

static void put_json_str(struct dump *d, const struct tm_str *s) {
    tm_step_bytes(d->r, s->n * 2);
    tm_putc(d->r, '"');
    for (size_t at = 0; at < s->n;) {
        bool client;
        struct str run = tm_run_next(s, &at, &client);
        put_json_run(d, run, client);
    }
    tm_putc(d->r, '"');
}

static void put_newline(struct dump *d) {
    if (!d->multiline)
        return;
    tm_putc(d->r, '\n');
    tm_put_fill(d->r, d->indent, d->level);
}

static void put_float(struct tm_run *r, double f) {
    char text[TM_FLOAT_MAX];
    if (isfinite(f))
        tm_put(r, text, tm_float_repr(text, f));
    else
        tm_putz(r, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
}

static void put_scalar(struct tm_run *r, struct tm_val v) {
    if (v.kind == V_NONE)
        tm_putz(r, "null");
    else if (v.kind == V_BOOL)
        tm_putz(r, v.b ? "true" : "false");
    else if (v.kind == V_INT)
        tm_putf(r, "%" PRId64, v.i);
    else if (v.kind == V_FLOAT)
        put_float(r, v.f);
    else
        tm_fail(r, "Object of type %s is not JSON serializable", tm_type_name(v));
}

static void put(struct dump *d, struct tm_val v);

static void put_list(struct dump *d, const struct tm_list *l) {
    struct tm_run *r = d->r;
    if (l->n == 0) {
        tm_putz(r, "[]");
        return;
    }
    tm_putc(r, '[');
    d->level++;
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            tm_put_str(r, d->item_sep);
        put_newline(d);
        put(d, l->v[i]);
    }
    d->level--;
    put_newline(d);
    tm_putc(r, ']');
}

static void put_key(struct dump *d, struct tm_val key) {
    if (key.kind == V_STR) {
        put_json_str(d, key.s);
        return;
    }
    if (key.kind != V_NONE && !tm_is_num(key))
        tm_fail(d->r, "keys must be str, int, float, bool or None, not %s", tm_type_name(key));
    tm_putc(d->r, '"');
    put_scalar(d->r, key);
    tm_putc(d->r, '"');
}

static void put_dict(struct dump *d, struct tm_dict *dict) {
    struct tm_run *r = d->r;
    const struct tm_dict *e = tm_entries(r, dict);
    if (e->n == 0) {
        tm_putz(r, "{}");
        return;
    }
    struct tm_val *values = NULL, *keys = NULL;
    if (d->sort) {
        keys = tm_alloc(r, e->n * sizeof *keys);
        values = tm_alloc(r, e->n * sizeof *values);
        for (size_t i = 0; i < e->n; i++) {
            keys[i] = e->e[i].key;
            values[i] = e->e[i].value;
        }
        tm_sort(r, keys, values, e->n, false);
    }
    tm_putc(r, '{');
    d->level++;
    for (size_t i = 0; i < e->n; i++) {
        if (i)
            tm_put_str(r, d->item_sep);
        put_newline(d);
        put_key(d, d->sort ? keys[i] : e->e[i].key);
        tm_put_str(r, d->key_sep);
        put(d, d->sort ? values[i] : e->e[i].value);
    }
    d->level--;
    put_newline(d);
    tm_putc(r, '}');
}

static void put(struct dump *d, struct tm_val v) {
    tm_step(d->r, 1);
    tm_enter(d->r);
    if (v.kind == V_STR)
        put_json_str(d, v.s);
    else if (v.kind == V_LIST || v.kind == V_TUPLE)
        put_list(d, tm_items(d->r, v));
    else if (v.kind == V_DICT)
        put_dict(d, v.d);
    else
        put_scalar(d->r, v);
    tm_leave(d->r);
}

/* p: ensure_ascii, indent, separators, sort_keys */
void tm_put_json(struct tm_run *r, struct tm_val v, const struct tm_val *p) {
    static const struct tm_str comma = {.p = ",", .n = 1, .n_cp = 1},
                               comma_space = {.p = ", ", .n = 2, .n_cp = 2};
    static const struct tm_str colon_space = {.p = ": ", .n = 2, .n_cp = 2};
    struct dump d = {.r = r, .item_sep = &comma_space, .key_sep = &colon_space};
    d.ascii = p[0].kind != V_MISSING && tm_truth(r, p[0]);
    d.sort = p[3].kind != V_MISSING && tm_truth(r, p[3]);
    if (p[1].kind != V_MISSING && p[1].kind != V_NONE) {
        d.multiline = true;
        d.item_sep = &comma;
        if (p[1].kind == V_STR) {
            d.indent = p[1].s;
        } else {
            struct tm_cap outer = tm_cap_begin(r);
            int64_t width = tm_need_int(r, p[1], "indent");
            static const struct tm_str space = {.p = " ", .n = 1, .n_cp = 1};
            tm_put_fill(r, &space, width);
            d.indent = tm_cap_end(r, outer).s;
        }
    }
    if (p[2].kind != V_MISSING && p[2].kind != V_NONE) {
        struct tm_val pair = tm_to_list(r, p[2], V_TUPLE);
        if (pair.l->n != 2)
            tm_fail(r, "tojson: separators must be a pair of strings");
        d.item_sep = tm_need_str(r, pair.l->v[0], "separator");
        d.key_sep = tm_need_str(r, pair.l->v[1], "separator");
    }
    put(&d, v);
}
