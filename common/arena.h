/* arena.h: memory that lives exactly as long as a request.
 *
 * One thread at a time. Memory comes in chunks that double up to 1 MiB; nothing is freed singly.
 */
#ifndef WEIR_COMMON_ARENA_H
#define WEIR_COMMON_ARENA_H

#include "common/base.h"

struct arena_chunk;
struct arena {
    struct arena_chunk *chunk; /* newest first */
    char *at, *end;            /* free part of the newest chunk */
    size_t used_bytes;         /* sum of sizes handed out */
};

/* arena_init: an empty arena, in the caller's storage; no memory is taken yet. */
void arena_init(struct arena *a);
/* arena_fini: frees everything; the arena is empty and usable again. */
void arena_fini(struct arena *a);
/* arena_alloc: n bytes aligned to 16, not cleared. Never NULL. */
void *arena_alloc(struct arena *a, size_t n) __attribute__((returns_nonnull));
/* arena_zalloc: count * size cleared bytes; the product is checked. */
void *arena_zalloc(struct arena *a, size_t count, size_t size) __attribute__((returns_nonnull));
/* arena_strndup: a NUL-terminated copy of n bytes. */
char *arena_strndup(struct arena *a, const char *s, size_t n) __attribute__((returns_nonnull));

#endif
