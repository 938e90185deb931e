/* group.h: the ranks of a tensor-parallel group: processes with a GPU each (or, where there are fewer, sharing one), that
 * run the same operations in the same order.
 *
 * They find each other in the memory of be_group: rank 0 puts NCCL's unique id there, everybody the handle of a region of
 * its device's memory. Sums go through those regions (exchange.h) or through NCCL, by size, as measured when the group
 * comes together, alike on all ranks. Ranks that share a GPU, which NCCL refuses, use the regions alone.
 *
 * Death: a rank that waits in rt_wait looks whether be_group.failed is set, whether NCCL has failed, and whether some
 * rank has come to no new exchange for HANG_NS while others wait there; then rt_wait says which, and the handle is good
 * for close only.
 *
 * A rank on another host (be_config.far) asks its stand, in rank 0's process, for what stands in that memory; with one of
 * them all sums go through NCCL.
 *
 * Threads: the device's; a stand's are its own.
 */
#ifndef WEIR_WORKER_CUDA_GROUP_H
#define WEIR_WORKER_CUDA_GROUP_H

#include "worker/cuda/product.h"

size_t group_shared_bytes(const struct be_config *cfg);
int group_join(struct be *b, const struct be_config *cfg, char err[BE_ERR_BYTES]);
void group_leave(struct be *b);
/* As be_ops. */
struct be_stand *group_stand_open(const struct be_config *cfg, char err[BE_ERR_BYTES]);
bool group_stand_call(struct be_stand *s, const void *in, size_t n, void *out, size_t n_out);
void group_stand_close(struct be_stand *s);

/* group_sum: t->y = t->add + act(sum over ranks of in + bias), [n][cols] of b->act, and normed = norm(y) where normed is
 * not NULL. in is working memory, or t->y; it is overwritten. All ranks get the same bits. */
void group_sum(struct be *b, void *in, uint32_t n, uint32_t cols, const struct tail *t, void *normed,
               const struct be_norm *norm);
/* group_gather: part [n][cols] f32 of every rank becomes columns [col0, col0 + cols) of everybody's out, whose rows are
 * `stride` floats apart. */
void group_gather(struct be *b, float *out, const float *part, uint32_t n, uint32_t cols, uint32_t col0, uint32_t stride);

#endif
