/* parity.h: what the parity tests share: a seeded generator, a backend opened with weights and buffers made
 * from the same numbers, and comparison under a bound.
 *
 * Bounds. u is 2^-24, the error of one f32 rounding. A sum of K products in any fixed order errs by at most
 * gamma(K) sum|x||w|, gamma(K) = K u / (1 - K u) (Higham, Accuracy and Stability, 3.1); each function
 * evaluated in f32 (exp, tanh, division) adds a few u of its result. The tests compute sum|x||w| itself, so a
 * bound is a number of roundings times the magnitude that was rounded.
 */
#ifndef WEIR_TESTS_PARITY_PARITY_H
#define WEIR_TESTS_PARITY_PARITY_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/backend.h"
#include "worker/cpu/convert.h"

#define U 0x1p-24

/* tested_ops: what stands beside the reference: the CPU's AVX2, or, in tests/cuda, the CUDA backend's kernels on an
 * emulated device. */
#ifdef PARITY_CUDA
#define tested_ops (*be_plugin_ops(BE_ABI))
#else
#define tested_ops cpu_ops
#endif

struct rng {
    uint64_t seed, count;
};

static inline uint64_t rng_u64(struct rng *r) {
    return be_philox64(r->seed, r->count++);
}

/* rng_below: uniform in [0, n). */
static inline uint32_t rng_below(struct rng *r, uint32_t n) {
    return (uint32_t)((rng_u64(r) >> 32) * n >> 32);
}

static inline uint32_t rng_range(struct rng *r, uint32_t lo, uint32_t hi) {
    return lo + rng_below(r, hi - lo + 1);
}

/* rng_normal: about normal: the sum of four uniforms, with variance 1. */
static inline float rng_normal(struct rng *r) {
    uint64_t a = rng_u64(r);
    float s = 0;
    for (int i = 0; i < 4; i++)
        s += (float)(a >> 16 * i & 0xFFFF) / 65536.0f - 0.5f;
    return s * 1.7320508f;
}

static inline float *rng_floats(struct rng *r, size_t n, float scale) {
    float *x = malloc((n ? n : 1) * sizeof *x);
    CHECK(x);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * rng_normal(r);
    return x;
}

/* as_type: values rounded to a type: the array as stored, and `x` changed to what the type holds. */
static inline void *as_type(float *x, size_t n, enum dtype t) {
    void *d = malloc(n * dtype_bytes(t) + 1);
    CHECK(d);
    for (size_t i = 0; i < n; i++) {
        f32_store(d, t, i, x[i]);
        x[i] = f32_load(d, t, i);
    }
    return d;
}

struct rig {
    const struct be_ops *ops;
    struct be *b;
};

static inline struct rig rig_open(const struct be_ops *ops, struct be_config cfg) {
    struct rig r = {.ops = ops};
    char err[BE_ERR_BYTES] = "";
#ifdef PARITY_CUDA
    if (cfg.compute == DT_NONE) { /* the bounds here are for sums in f32, of unrounded rows */
        cfg.compute = DT_F32;
        cfg.deterministic = true;
    }
#endif
    if (ops->open(&r.b, &cfg, err) != 0) {
        print_error("open: %s\n", err);
        fail();
    }
    return r;
}

static inline struct be_w *rig_weight(struct rig r, enum be_weight_kind kind, const void *data, enum dtype t,
                                      uint32_t rows, uint32_t cols) {
    struct be_weight_src src = {.data = data, .dtype = t, .rows = rows, .cols = cols};
    char err[BE_ERR_BYTES] = "";
    struct be_w *w = r.ops->weight(r.b, kind, &src, 1, err);
    if (!w) {
        print_error("weight: %s\n", err);
        fail();
    }
    return w;
}

static inline struct be_w *rig_vector(struct rig r, const float *x, uint32_t n) {
    return rig_weight(r, BE_W_VECTOR, x, DT_F32, 1, n);
}

/* rig_mem: a buffer with the given rows, or, for x NULL, poisoned with NaN. */
static inline struct be_mem *rig_mem(struct rig r, const float *x, uint32_t rows, uint32_t cols) {
    struct be_mem *m = r.ops->mem_new(r.b, rows, cols, DT_NONE);
    assert_non_null(m);
    float *poison = NULL;
    if (!x) {
        poison = malloc(((size_t)rows * cols + 1) * sizeof *poison);
        CHECK(poison);
        for (size_t i = 0; i < (size_t)rows * cols; i++)
            poison[i] = NAN;
    }
    r.ops->mem_put(r.b, m, 0, rows, x ? x : poison);
    free(poison);
    return m;
}

static inline float *rig_get(struct rig r, const struct be_mem *m, uint32_t rows, uint32_t cols) {
    float *x = malloc(((size_t)rows * cols + 1) * sizeof *x);
    CHECK(x);
    r.ops->mem_get(r.b, m, 0, rows, x);
    return x;
}

/* rig_wait: results of sampling are there afterwards. */
static inline void rig_wait(struct rig r) {
    char err[BE_ERR_BYTES] = "";
    if (r.ops->wait(r.b, err) != 0) {
        print_error("wait: %s\n", err);
        fail();
    }
}

/* expect_near: |got - want| <= bound, and got is a number. */
static inline void expect_near(double got, double want, double bound, const char *what, size_t at) {
    if (!(fabs(got - want) <= bound)) {
        print_error("%s[%zu]: got %.9g, want %.9g, off by %.3g, bound %.3g\n", what, at, got, want,
                    fabs(got - want), bound);
        fail();
    }
}

#endif
