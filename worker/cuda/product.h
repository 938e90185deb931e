/* product.h: the parts of a matrix product: which kernel computes it, and what follows it. */
#ifndef WEIR_WORKER_CUDA_PRODUCT_H
#define WEIR_WORKER_CUDA_PRODUCT_H

#include "worker/cuda/dev.h"

/* tail: y = add + act(v + bias), of gated weights act(gate + bias) * (up + bias). */
struct tail {
    void *y;
    const void *add;   /* NULL: none */
    const float *bias; /* [n_out]; NULL: none */
    enum act_kind act;
    bool gated;
    uint32_t n_out; /* of the weight; y has half as many columns where it is gated */
};

/* gemv_rows: the product and its tail for few rows, at the speed of reading the weights: a warp sums some output
 * columns, K in one order. False: not for this shape. */
bool gemv_rows(struct be *b, const struct be_w *w, const void *x, uint32_t n_rows, const struct tail *t);
enum { GEMV_ROWS = 8 };

/* product_rows: y[n][n_out] = x w^T (+ add), y of type b->act or f32. */
void product_rows(struct be *b, void *y, bool y_f32, const struct be_w *w, const void *x, const void *add, uint32_t n);
/* tile_rows, plain_rows: our own kernels for it: tiles on tensor cores (false: not for this type or shape), and one
 * warp an output, for anything. The order of sums depends on the shape of w alone. */
bool tile_rows(struct be *b, void *y, bool y_f32, const struct be_w *w, const void *x, const void *add, uint32_t n);
void plain_rows(struct be *b, void *y, bool y_f32, const struct be_w *w, const void *x, const void *add, uint32_t n);
/* tail_rows: the tail of n rows of v [n][n_out], type b->act. */
void tail_rows(struct be *b, const void *v, const struct tail *t, uint32_t n);

#endif
