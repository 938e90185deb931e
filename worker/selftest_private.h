/* selftest_private.h: what selftest.c and selftest_attn.c share: a device, seeded numbers, and errors as shares of a bound. */
#ifndef WEIR_WORKER_SELFTEST_PRIVATE_H
#define WEIR_WORKER_SELFTEST_PRIVATE_H

#include "worker/backend.h"

struct selftest {
    const struct be_ops *ops;
    struct be *b;
    enum dtype act;
    double half;     /* half a step of act, relative */
    uint64_t seed, count;
    double worst;    /* error over bound, of the current operation */
    char error[128]; /* what went wrong otherwise; "" */
};

enum { SELFTEST_TOKENS = 96, SELFTEST_VOCAB = 1000 };

/* selftest_below: uniform in [0, n). selftest_floats: n numbers of about normal distribution that act holds; heap. */
uint32_t selftest_below(struct selftest *t, uint32_t n);
float *selftest_floats(struct selftest *t, size_t n, float scale);
/* selftest_near: notes |got - want| / bound. */
void selftest_near(struct selftest *t, double got, double want, double bound);
struct be_mem *selftest_mem(struct selftest *t, const float *x, uint32_t rows, uint32_t cols); /* NULL: poisoned */
struct be_w *selftest_weight(struct selftest *t, enum be_weight_kind kind, const float *x, uint32_t rows, uint32_t cols);
float *selftest_get(struct selftest *t, const struct be_mem *m, uint32_t rows, uint32_t cols);

/* selftest_attn.c: rope_store, the cache and attention; and blocks in and out of a pool. */
void selftest_attn(struct selftest *t);
void selftest_blocks(struct selftest *t);

#endif
