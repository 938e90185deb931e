/* nccl.h: the library's collectives, for ranks on GPUs of their own. The library is loaded when a group first asks for it,
 * so a single GPU needs none.
 *
 * Calls enqueue on the device's stream and are captured with the step. Threads: the device's.
 */
#ifndef WEIR_WORKER_CUDA_NCCL_H
#define WEIR_WORKER_CUDA_NCCL_H

#include "worker/cuda/rt.h"

struct nccl;
enum { NCCL_ID_BYTES = 128 };

/* nccl_id: names a new communicator; rank 0 makes it and gives it to the others. Nonzero: the library is not there, or
 * refuses; why in err. */
int nccl_id(uint8_t id[NCCL_ID_BYTES], char err[BE_ERR_BYTES]);
/* nccl_open: waits until all ranks have called it. */
int nccl_open(struct nccl **out, struct rt *r, const uint8_t id[NCCL_ID_BYTES], int rank, int n_ranks,
              char err[BE_ERR_BYTES]);
/* nccl_close: aborts what runs: a rank that is gone is not waited for. NULL is fine. */
void nccl_close(struct nccl *n);
/* nccl_failed: whether an error has come up since; why in err. */
bool nccl_failed(struct nccl *n, char err[BE_ERR_BYTES]);
/* nccl_sum: of n elements of type t, in place. nccl_gather: n floats of each rank, one behind the other, into all. */
void nccl_sum(struct nccl *c, void *data, size_t n, enum dtype t);
void nccl_gather(struct nccl *c, float *all, const float *mine, size_t n);

#endif
