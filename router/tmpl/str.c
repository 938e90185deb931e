/* str.c: strings: hashing, code points, parts, growing by appending. */
#include <pthread.h>

#include "router/tmpl/val.h"

static uint64_t seed;
static void seed_make(void) {
    fill_random(&seed, sizeof seed);
}

/* Seeded, so that a client cannot choose keys that collide. */
uint32_t tm_hash_bytes(const char *p, size_t n) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, seed_make);
    uint64_t h = seed ^ n * 0x9e3779b97f4a7c15u, w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    w = 0;
    if (n)
        memcpy(&w, p, n);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
    h *= 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 32) | 1; /* 0 means not computed */
}

uint32_t tm_str_hash(struct tm_str *s) {
    if (!s->hash)
        s->hash = tm_hash_bytes(s->p, s->n);
    return s->hash;
}

uint32_t tm_utf8_get(const char *p, const char *end, unsigned *len) {
    const unsigned char *u = (const unsigned char *)p;
    size_t left = (size_t)(end - p);
    *len = 1;
    if (u[0] < 0x80)
        return u[0];
    if (u[0] < 0xe0 && left >= 2) {
        *len = 2;
        return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
    }
    if (u[0] < 0xf0 && left >= 3) {
        *len = 3;
        return (u[0] & 0xfu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
    }
    if (left >= 4) {
        *len = 4;
        return ((u[0] & 7u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 | (u[3] & 0x3fu)) & 0x1fffff;
    }
    return 0xfffd;
}

/* Bytes that continue a code point, eight at a time. */
static size_t count_continuations(const char *p, size_t n) {
    size_t more = 0;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        w = w >> 7 & ~(w >> 6) & 0x0101010101010101u;
        more += (w * 0x0101010101010101u) >> 56;
    }
    for (; n; p++, n--)
        more += ((unsigned char)*p & 0xc0) == 0x80;
    return more;
}

int64_t tm_str_len(struct tm_run *r, struct tm_str *s) {
    if (s->n_cp < 0) {
        tm_step_bytes(r, s->n);
        s->n_cp = (int64_t)(s->n - count_continuations(s->p, s->n));
    }
    return s->n_cp;
}

size_t tm_str_at(struct tm_run *r, struct tm_str *s, int64_t i) {
    int64_t len = tm_str_len(r, s);
    if ((size_t)len == s->n)
        return (size_t)i;
    if (i >= len)
        return s->n;
    tm_step_bytes(r, s->n);
    size_t at = 0;
    if (i > len / 2) { /* from the end */
        at = s->n;
        for (int64_t left = len - i; left > 0; left--) {
            at--;
            while (((unsigned char)s->p[at] & 0xc0) == 0x80)
                at--;
        }
        return at;
    }
    for (; i > 0; i--) {
        at++;
        while (at < s->n && ((unsigned char)s->p[at] & 0xc0) == 0x80)
            at++;
    }
    return at;
}

/* The marks of s that touch [begin, end), moved by -begin, into out (which has room for all). */
static uint32_t marks_cut(const struct tm_str *s, size_t begin, size_t end, struct tmpl_mark *out) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_marks && s->marks[i].begin < end; i++) {
        size_t b = MAX(s->marks[i].begin, begin), e = MIN(s->marks[i].end, end);
        if (b < e)
            out[n++] = (struct tmpl_mark){b - begin, e - begin};
    }
    return n;
}

static void marks_set(struct tm_str *s, struct tmpl_mark *marks, uint32_t n) {
    s->origin = FROM_BOTH;
    s->marks = marks;
    s->n_marks = n;
    if (n == 0)
        s->origin = FROM_TEMPLATE;
    else if (n == 1 && marks[0].begin == 0 && marks[0].end >= s->n)
        s->origin = FROM_CLIENT;
}

struct tm_val tm_str_sub(struct tm_run *r, const struct tm_str *s, size_t begin, size_t end) {
    struct tm_val v =
        tm_str(r, s->p + begin, end - begin, s->origin == FROM_CLIENT ? FROM_CLIENT : FROM_TEMPLATE);
    v.s->markup = s->markup;
    if (s->n_cp >= 0 && (size_t)s->n_cp == s->n)
        v.s->n_cp = (int64_t)v.s->n; /* ASCII */
    if (s->origin == FROM_BOTH && end > begin) {
        uint32_t count = 0; /* the first mark that may touch, and how many do */
        uint32_t lo = 0, hi = s->n_marks;
        while (lo < hi) {
            uint32_t mid = (lo + hi) / 2;
            if (s->marks[mid].end <= begin)
                lo = mid + 1;
            else
                hi = mid;
        }
        while (lo + count < s->n_marks && s->marks[lo + count].begin < end)
            count++;
        tm_step(r, count / 8);
        struct tmpl_mark *marks = tm_alloc(r, MAX(count, 1u) * sizeof *marks);
        struct tm_str part = {.marks = s->marks + lo, .n_marks = count};
        marks_set(v.s, marks, marks_cut(&part, begin, end, marks));
    }
    return v;
}

struct tm_val tm_str_as(struct tm_run *r, struct tm_val s, bool markup) {
    if (s.s->markup == markup)
        return s;
    struct tm_str *copy = tm_alloc(r, sizeof *copy);
    *copy = *s.s;
    copy->markup = markup;
    return tm_of_str(copy);
}

/* ---- appending: s = s ~ x in a loop takes linear time, as in Python ---- */

struct tm_tail {
    char *base;
    size_t used, cap; /* bytes written; a string that ends at used may grow in place */
    struct tmpl_mark *marks;
    uint32_t n_marks, cap_marks;
};

enum { TAIL_MIN = 256 };

static void tail_mark(struct tm_run *r, struct tm_tail *t, size_t begin, size_t end) {
    if (begin >= end)
        return;
    if (t->n_marks && t->marks[t->n_marks - 1].end >= begin) { /* older strings stop at their own n */
        t->marks[t->n_marks - 1].end = end;
        return;
    }
    if (t->n_marks == t->cap_marks) {
        t->cap_marks = MAX(t->cap_marks * 2, 8u);
        struct tmpl_mark *grown = tm_alloc(r, t->cap_marks * sizeof *grown);
        if (t->n_marks)
            memcpy(grown, t->marks, t->n_marks * sizeof *grown);
        t->marks = grown;
    }
    t->marks[t->n_marks++] = (struct tmpl_mark){begin, end};
}

static void tail_add(struct tm_run *r, struct tm_tail *t, const struct tm_str *s) {
    size_t at = t->used;
    tm_step_bytes(r, s->n);
    tm_step(r, s->n_marks / 8);
    if (s->n)
        memcpy(t->base + at, s->p, s->n);
    t->used += s->n;
    if (s->origin == FROM_CLIENT)
        tail_mark(r, t, at, at + s->n);
    else if (s->origin == FROM_BOTH)
        for (uint32_t i = 0; i < s->n_marks; i++)
            tail_mark(r, t, at + s->marks[i].begin, at + MIN(s->marks[i].end, s->n));
}

struct tm_val tm_str_append(struct tm_run *r, struct tm_str *a, struct tm_str *b) {
    struct tm_tail *t = a->tail;
    bool in_place = t && a->p == t->base && a->n == t->used && t->cap - t->used >= b->n &&
                    (a->origin != FROM_BOTH || (a->marks == t->marks && a->n_marks == t->n_marks));
    if (!in_place) {
        size_t n = a->n + b->n;
        t = tm_alloc(r, sizeof *t);
        *t = (struct tm_tail){.cap = n >= TAIL_MIN ? n * 2 : n};
        t->base = tm_alloc(r, MAX(t->cap, (size_t)1));
        tail_add(r, t, a);
    }
    tail_add(r, t, b);
    struct tm_val v = tm_str(r, t->base, t->used, FROM_TEMPLATE);
    v.s->tail = t;
    if (a->n_cp >= 0 && b->n_cp >= 0)
        v.s->n_cp = a->n_cp + b->n_cp;
    marks_set(v.s, t->marks, t->n_marks);
    return v;
}
