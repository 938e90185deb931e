#include "common/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void check_failed(const char *cond, const char *file, int line) {
    fprintf(stderr, "weir: check failed: %s at %s:%d\n", cond, file, line);
    abort();
}

static NORETURN void out_of_memory(size_t n) {
    fprintf(stderr, "weir: out of memory allocating %zu bytes\n", n);
    _Exit(70);
}

void *xmalloc(size_t n) {
    void *p = malloc(n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *xcalloc(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p)
        out_of_memory(count * size);
    return p;
}

void *xrealloc(void *p, size_t n) {
    void *q = realloc(p, n ? n : 1);
    if (!q)
        out_of_memory(n);
    return q;
}

void *xreallocarray(void *p, size_t count, size_t size) {
    size_t n;
    CHECK(!__builtin_mul_overflow(count, size, &n));
    return xrealloc(p, n);
}

char *xstrndup(const char *s, size_t n) {
    char *d = xmalloc(n + 1);
    if (n)
        memcpy(d, s, n);
    d[n] = 0;
    return d;
}

char *xstrdup(const char *s) {
    return xstrndup(s, strlen(s));
}

/* draw: from the kernel. */
static void draw(void *p, size_t n) {
    unsigned char *d = p;
    while (n) {
        ssize_t got = getrandom(d, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        CHECK(got > 0);
        d += got;
        n -= (size_t)got;
    }
}

/* A system call for each id of a request costs more than the rest of what an id is for, so small pieces come
 * out of a thread's store. What was given out is erased; no process of ours forks without exec, which would
 * give two processes the same bytes. */
void fill_random(void *p, size_t n) {
    enum { STORE_BYTES = 512, PIECE_BYTES_MAX = 64 };
    static _Thread_local struct {
        unsigned char bytes[STORE_BYTES];
        size_t n_left; /* at the end of bytes */
    } store;
    if (n > PIECE_BYTES_MAX) {
        draw(p, n);
        return;
    }
    if (n > store.n_left) {
        draw(store.bytes, STORE_BYTES);
        store.n_left = STORE_BYTES;
    }
    unsigned char *from = store.bytes + STORE_BYTES - store.n_left;
    memcpy(p, from, n);
    memset(from, 0, n);
    store.n_left -= n;
}
