#include "common/arena.h"

#include <stdlib.h>

enum { ARENA_ALIGN = 16, ARENA_CHUNK_MIN = 4096, ARENA_CHUNK_MAX = 1 << 20 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size_bytes;
    _Alignas(ARENA_ALIGN) char data[];
};

void arena_init(struct arena *a) {
    *a = (struct arena){0};
}

void arena_fini(struct arena *a) {
    for (struct arena_chunk *c = a->chunk, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    arena_init(a);
}

static void arena_grow(struct arena *a, size_t n) {
    size_t size = a->chunk ? MIN(a->chunk->size_bytes * 2, (size_t)ARENA_CHUNK_MAX) : ARENA_CHUNK_MIN;
    size = MAX(size, n);
    CHECK(size <= SIZE_MAX - sizeof(struct arena_chunk));
    struct arena_chunk *c = xmalloc(sizeof *c + size);
    c->size_bytes = size;
    c->next = a->chunk;
    a->chunk = c;
    a->at = c->data;
    a->end = c->data + size;
}

void *arena_alloc(struct arena *a, size_t n) {
    CHECK(n <= SIZE_MAX - ARENA_ALIGN);
    size_t rounded = (MAX(n, 1) + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (!a->chunk || (size_t)(a->end - a->at) < rounded)
        arena_grow(a, rounded);
    void *p = a->at;
    a->at += rounded;
    a->used_bytes += rounded;
    return p;
}

void *arena_zalloc(struct arena *a, size_t count, size_t size) {
    size_t n;
    CHECK(!__builtin_mul_overflow(count, size, &n));
    void *p = arena_alloc(a, n);
    memset(p, 0, n);
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n) {
    char *d = arena_alloc(a, n + 1);
    if (n)
        memcpy(d, s, n);
    d[n] = 0;
    return d;
}
