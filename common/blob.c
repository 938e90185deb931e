#include "common/blob.h"

#include <stdatomic.h>
#include <stdlib.h>

struct blob *blob_new_uninit(size_t n) {
    CHECK(n <= SIZE_MAX - sizeof(struct blob) - 1);
    struct blob *b = xmalloc(sizeof *b + n + 1);
    atomic_init(&b->n_refs, 1);
    b->n = n;
    b->data[n] = 0;
    return b;
}

struct blob *blob_new(const void *p, size_t n) {
    struct blob *b = blob_new_uninit(n);
    if (n)
        memcpy(b->data, p, n);
    return b;
}

struct blob *blob_hold(struct blob *b) {
    uint32_t before = atomic_fetch_add_explicit(&b->n_refs, 1, memory_order_relaxed);
    CHECK(before > 0 && before < UINT32_MAX);
    return b;
}

void blob_drop(struct blob *b) {
    if (!b)
        return;
    /* acq_rel: what every other holder did to the bytes is done before they are freed. */
    uint32_t before = atomic_fetch_sub_explicit(&b->n_refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1)
        free(b);
}
