/* blob.h: immutable, reference-counted bytes: what may cross threads. */
#ifndef WEIR_COMMON_BLOB_H
#define WEIR_COMMON_BLOB_H

#include "common/buf.h"

struct blob {
    _Atomic uint32_t n_refs;
    size_t n;
    char data[]; /* n bytes and a NUL */
};
struct blob *blob_new(const void *p, size_t n);
/* blob_new_uninit: to be filled before it is shared. */
struct blob *blob_new_uninit(size_t n);
struct blob *blob_hold(struct blob *b);
void blob_drop(struct blob *b); /* NULL is fine */
static inline struct str blob_str(const struct blob *b) {
    return b ? (struct str){b->data, b->n} : (struct str){0};
}

#endif
