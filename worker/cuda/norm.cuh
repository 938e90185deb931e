/* norm.cuh: a norm as kernels take it, and one row of it by a block. */
#ifndef WEIR_WORKER_CUDA_NORM_CUH
#define WEIR_WORKER_CUDA_NORM_CUH

#include "worker/cuda/dev.h"

struct dnorm {
    enum norm_kind kind;
    const float *weight, *bias; /* NULL: 1 and 0 */
    float eps, offset;
};

static inline struct dnorm dnorm_of(const struct be_norm *n, uint32_t cols) {
    struct dnorm d = {};
    d.kind = n->kind;
    d.weight = dev_vector(n->weight, cols);
    d.bias = dev_vector(n->bias, cols);
    d.eps = n->eps;
    d.offset = n->weight_offset;
    return d;
}

/* norm_factors: mean and 1 / deviation of n values, value i of them by get(i), to every thread of the block. The sums
 * are taken in one order, whatever the rest of the batch is. room: [32] shared. */
template <class F> DEV void norm_factors(const struct dnorm &d, F get, uint32_t n, float *room, float *mean, float *inv) {
    float m = 0, sq = 0;
    if (d.kind == NORM_LAYER) {
        for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
            m += get(i);
        m = block_sum(m, room) / static_cast<float>(n);
    }
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        sq += (get(i) - m) * (get(i) - m);
    *mean = m;
    *inv = 1.0f / sqrtf(block_sum(sq, room) / static_cast<float>(n) + d.eps);
}

DEV float norm_value(const struct dnorm &d, float x, uint32_t i, float mean, float inv) {
    float v = (x - mean) * inv;
    if (d.kind == NORM_RMS)
        return v * (d.offset + (d.weight ? d.weight[i] : 1.0f));
    return v * (d.weight ? d.weight[i] : 1.0f) + (d.bias ? d.bias[i] : 0.0f);
}

#endif
