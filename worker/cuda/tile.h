/* tile.h: the tensor-core product of tile.cu. */
#ifndef WEIR_WORKER_CUDA_TILE_H
#define WEIR_WORKER_CUDA_TILE_H

#include "worker/cuda/product.h"

/* y[r] = x[row r] w^T (+ add[r]), r < n. With experts: rows [starts[e], starts[e + 1]) meet matrix e of w, and row r of
 * x is from[r] / from_div. */
struct tile_args {
    void *y;
    bool y_f32;
    const void *w, *x, *add; /* add NULL: none */
    uint32_t n, n_in, n_out; /* n_in a multiple of 8 */
    const uint32_t *starts;  /* on the device, [n_experts + 1]; NULL: one matrix */
    const uint32_t *from;    /* on the device; NULL: r */
    uint32_t n_experts, from_div;
    /* fp8: x and w are e4m3, and columns [i * block, (i + 1) * block) of a row share a factor; NULL: not fp8 */
    const float *x_scale, *w_scale; /* [rows of x][n_scales], [n_experts * n_out][n_scales] */
    uint32_t block, n_scales;
};
/* tile_run: x, w and y of bf16 or f16, or x and w of fp8. */
void tile_run(struct be *b, const struct tile_args *t);

/* fp8_computes: whether products with w are made in fp8, activations too. fp8_rows: n rows of x as w wants them, in
 * working memory: t->x, and t's scales, blocks and w. */
bool fp8_computes(const struct be *b, const struct be_w *w);
void fp8_rows(struct be *b, struct tile_args *t, const struct be_w *w, const void *x, uint32_t n);
/* fp8_encode: rows [n][cols] of type `from` as e4m3 with a factor for each. */
void fp8_encode(struct be *b, void *to, float *scale, const void *x, enum dtype from, uint32_t n, uint32_t cols);

#endif
