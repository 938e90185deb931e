/* out.c: the output buffer. Text in the making (captures) is built behind the output and cut off when
 * it is done, so nothing but this buffer is on the heap. Marks are kept in step with the bytes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "router/tmpl/ast.h"

static void room(struct tm_run *r, size_t n) {
    size_t max = r->t->limits.output_bytes_max, len = r->out.text.len;
    /* The innermost text and all texts in the making together are bounded. */
    if (UNLIKELY(n > max || len - r->cap.base > max - n || len > 3 * max))
        tm_fail(r, "template output is over its limit of %zu bytes (--max-template-output)", max);
    tm_step_bytes(r, n);
}

static void mark(struct tm_run *r, size_t begin, size_t end) {
    struct tmpl_out *o = &r->out;
    if (o->n_marks > r->cap.mark_floor && o->marks[o->n_marks - 1].end == begin) {
        o->marks[o->n_marks - 1].end = end;
        return;
    }
    if (o->n_marks == o->cap_marks) {
        o->cap_marks = MAX(o->cap_marks * 2, (size_t)32);
        o->marks = xreallocarray(o->marks, o->cap_marks, sizeof *o->marks);
    }
    o->marks[o->n_marks++] = (struct tmpl_mark){begin, end};
}

void tm_put_from(struct tm_run *r, const char *p, size_t n, bool client) {
    if (n == 0)
        return;
    room(r, n);
    size_t at = r->out.text.len;
    buf_add(&r->out.text, p, n);
    if (client)
        mark(r, at, at + n);
}

void tm_put(struct tm_run *r, const char *p, size_t n) {
    tm_put_from(r, p, n, false);
}

void tm_putz(struct tm_run *r, const char *z) {
    tm_put(r, z, strlen(z));
}

void tm_putc(struct tm_run *r, char c) {
    tm_put(r, &c, 1);
}

void tm_putf(struct tm_run *r, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    CHECK(n >= 0 && (size_t)n < sizeof text);
    tm_put(r, text, (size_t)n);
}

void tm_put_sub(struct tm_run *r, const struct tm_str *s, size_t begin, size_t end) {
    if (begin >= end)
        return;
    size_t at = r->out.text.len;
    tm_put_from(r, s->p + begin, end - begin, s->origin == FROM_CLIENT);
    if (s->origin != FROM_BOTH)
        return;
    tm_step(r, s->n_marks / 8);
    for (uint32_t i = 0; i < s->n_marks && s->marks[i].begin < end; i++) {
        size_t b = MAX(s->marks[i].begin, begin), e = MIN(s->marks[i].end, end);
        if (b < e)
            mark(r, at + b - begin, at + e - begin);
    }
}

void tm_put_str(struct tm_run *r, const struct tm_str *s) {
    tm_put_sub(r, s, 0, s->n);
}

void tm_put_fill(struct tm_run *r, const struct tm_str *s, int64_t times) {
    if (times <= 0 || s->n == 0)
        return;
    if ((uint64_t)times > r->t->limits.output_bytes_max / s->n)
        tm_fail(r, "template output is over its limit of %zu bytes (--max-template-output)",
                r->t->limits.output_bytes_max);
    tm_step(r, (uint64_t)times / 8);
    for (; times > 0; times--)
        tm_put_str(r, s);
}

struct tm_cap tm_cap_begin(struct tm_run *r) {
    struct tm_cap outer = r->cap;
    r->cap = (struct tm_cap){r->out.text.len, r->out.n_marks};
    return outer;
}

void tm_cap_drop(struct tm_run *r, struct tm_cap outer) {
    r->out.text.len = r->cap.base;
    r->out.n_marks = r->cap.mark_floor;
    r->cap = outer;
}

struct tm_val tm_cap_end(struct tm_run *r, struct tm_cap outer) {
    size_t base = r->cap.base, n = r->out.text.len - base, n_marks = r->out.n_marks - r->cap.mark_floor;
    char *p = tm_alloc(r, n);
    if (n)
        memcpy(p, r->out.text.data + base, n);
    struct tm_val v = tm_str(r, p, n, FROM_TEMPLATE);
    const struct tmpl_mark *m = n_marks ? r->out.marks + r->cap.mark_floor : NULL;
    if (n_marks == 1 && m[0].begin == base && m[0].end == base + n) {
        v.s->origin = FROM_CLIENT;
    } else if (n_marks) {
        struct tmpl_mark *copy = tm_alloc(r, n_marks * sizeof *copy);
        for (size_t i = 0; i < n_marks; i++)
            copy[i] = (struct tmpl_mark){m[i].begin - base, m[i].end - base};
        v.s->origin = FROM_BOTH;
        v.s->marks = copy;
        v.s->n_marks = (uint32_t)n_marks;
    }
    tm_cap_drop(r, outer);
    return v;
}

struct str tm_run_next(const struct tm_str *s, size_t *at, bool *client) {
    size_t begin = *at, end = s->n;
    *client = s->origin == FROM_CLIENT;
    if (s->origin == FROM_BOTH) {
        uint32_t lo = 0, hi = s->n_marks; /* the first mark that ends behind begin */
        while (lo < hi) {
            uint32_t mid = (lo + hi) / 2;
            if (s->marks[mid].end <= begin)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo < s->n_marks) {
            *client = s->marks[lo].begin <= begin;
            end = MIN(end, *client ? s->marks[lo].end : s->marks[lo].begin);
        }
    }
    *at = end;
    return (struct str){s->p + begin, end - begin};
}
