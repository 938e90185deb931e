#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *b) {
    *b = (struct buf){0};
}

void buf_fini(struct buf *b) {
    free(b->data);
    buf_init(b);
}

char *buf_reserve(struct buf *b, size_t n) {
    CHECK(n < SIZE_MAX / 2 - b->len);
    if (!b->data || b->cap - b->len < n) {
        size_t cap = MAX(b->cap + b->cap / 2, (size_t)64);
        b->cap = MAX(cap, b->len + n);
        b->data = xrealloc(b->data, b->cap);
    }
    return b->data + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n) {
    if (!n)
        return;
    memcpy(buf_reserve(b, n), p, n);
    b->len += n;
}

void buf_addz(struct buf *b, const char *z) {
    buf_add(b, z, strlen(z));
}

void buf_addc(struct buf *b, char c) {
    *buf_reserve(b, 1) = c;
    b->len++;
}

void buf_addf(struct buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    buf_reserve(b, 64);
    int n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    if ((size_t)n >= b->cap - b->len) {
        buf_reserve(b, (size_t)n + 1);
        vsnprintf(b->data + b->len, b->cap - b->len, fmt, again);
    }
    va_end(again);
    b->len += (size_t)n;
}

void buf_addu64(struct buf *b, uint64_t v) {
    char tmp[20];
    size_t i = sizeof tmp;
    do {
        tmp[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buf_add(b, tmp + i, sizeof tmp - i);
}

void buf_drop(struct buf *b, size_t n) {
    CHECK(n <= b->len);
    if (!n)
        return;
    b->len -= n;
    memmove(b->data, b->data + n, b->len);
}

const char *buf_cstr(struct buf *b) {
    *buf_reserve(b, 1) = 0;
    return b->data;
}

char *buf_take(struct buf *b) {
    buf_cstr(b);
    char *p = b->data;
    buf_init(b);
    return p;
}
