/* buf.h: a growing byte buffer. One thread at a time. data may be NULL while len is 0. */
#ifndef WEIR_COMMON_BUF_H
#define WEIR_COMMON_BUF_H

#include "common/base.h"

struct buf {
    char *data;
    size_t len, cap;
};

/* buf_init: empty, no memory taken; `struct buf b = {0}` is the same. */
void buf_init(struct buf *b);
void buf_fini(struct buf *b);
/* buf_reserve: room for n more bytes; returns the place where they go (len is unchanged). */
char *buf_reserve(struct buf *b, size_t n) __attribute__((returns_nonnull));
void buf_add(struct buf *b, const void *p, size_t n);
void buf_addz(struct buf *b, const char *z);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_addu64(struct buf *b, uint64_t v);
/* buf_drop: removes n bytes from the front. */
void buf_drop(struct buf *b, size_t n);
/* buf_cstr: the bytes with a NUL behind them (not counted in len); valid until the next change. */
const char *buf_cstr(struct buf *b) __attribute__((returns_nonnull));
/* buf_take: the memory goes to the caller (free()), NUL-terminated; the buffer is empty again. */
char *buf_take(struct buf *b) __attribute__((returns_nonnull));

static inline void buf_add_str(struct buf *b, struct str s) {
    buf_add(b, s.p, s.n);
}
static inline struct str buf_str(const struct buf *b) {
    return (struct str){b->data, b->len};
}

#endif
