/* cpu.h: the AVX2 operations of cpu_ops, on handles whose avx2 is set. */
#ifndef WEIR_WORKER_CPU_CPU_H
#define WEIR_WORKER_CPU_CPU_H

#include "worker/cpu/be.h"

void avx2_embed(struct be *b, const struct op_embed *op);
void avx2_norm(struct be *b, const struct op_norm *op);
void avx2_gemm(struct be *b, const struct op_gemm *op);
void avx2_attn(struct be *b, const struct op_attn *op);
void avx2_moe(struct be *b, const struct op_moe *op);
void avx2_logits(struct be *b, const struct op_logits *op);
void avx2_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n);
void avx2_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n);

/* row_norm: y = norm(x); y may be x. In row_avx2.c, as is all below. */
struct row_norm {
    enum norm_kind kind;
    const float *weight, *bias; /* or NULL */
    float eps, offset;
    uint32_t cols;
};
struct row_norm row_norm_of(const struct be_norm *norm, uint32_t cols);
void row_norm_run(const struct row_norm *n, const float *x, float *y);

/* rows_interleave: n <= 6 rows of n_k floats, k by k: dst [n_k][n], as a tile reads them. */
void rows_interleave(const float *const *rows, uint32_t n, uint32_t n_k, float *dst);

/* rope_prepare: the angles of the planned batch, once for all layers of one rope; by member 0, outside runs
 * of the team. rope_row: rope_store for token t. */
void rope_prepare(struct be *b, const struct rope_store *rope);
void rope_row(const struct be *b, const struct rope_store *rope, uint32_t t, float *row);

#endif
