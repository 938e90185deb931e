/* sample.h: a sampling as its kernel takes it, and how its rows come to the device. */
#ifndef WEIR_WORKER_CUDA_SAMPLE_H
#define WEIR_WORKER_CUDA_SAMPLE_H

#include "worker/cuda/dev.h"

/* drow: a sample_row; arrays are offsets in bytes from the block's start, 0 where there is none. */
struct drow {
    uint64_t seed, position;
    float temperature, top_p, min_p, repetition, frequency, presence;
    uint32_t top_k, n_top, mode;
    uint32_t row;    /* of the logits */
    uint32_t target; /* BE_NO_TOKEN: sample; else only report this token's raw log-probability */
    uint32_t wants;  /* a report */
    uint32_t seen, n_seen, bias, n_bias, banned, n_banned, mask;
};

struct dsample_out {
    uint32_t id, nan;
    float logprob;
    uint32_t rank;
};

struct sample_args {
    const unsigned char *block;
    const struct drow *rows;
    const float *logits;
    float *processed;
    uint32_t n_vocab, stride, n_top_max;
    uint32_t *last_ids;
    struct dsample_out *outs;
    uint32_t *top_ids; /* [n][n_top_max] */
    float *top_values;
};
void sample_run(struct be *b, const struct sample_args *a, uint32_t n);

/* mul_rounded, add_rounded: never fused, so that a penalty has the bits that a processor gives it. */
#ifdef WEIR_CUDA_EMU
DEV float mul_rounded(float a, float b) {
    volatile float p = a * b;
    return p;
}
DEV float add_rounded(float a, float b) {
    volatile float s = a + b;
    return s;
}
#else
DEV float mul_rounded(float a, float b) {
    return __fmul_rn(a, b);
}
DEV float add_rounded(float a, float b) {
    return __fadd_rn(a, b);
}
#endif

#endif
