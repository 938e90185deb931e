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
};
/* tile_run: bf16 and f16 only. */
void tile_run(struct be *b, const struct tile_args *t);

#endif
