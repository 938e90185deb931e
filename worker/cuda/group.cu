/* group.cu: the ranks of a tensor-parallel group, over NCCL.
 *
 * NCCL is loaded when a group has more than one rank, so a single GPU needs none. Its few functions are declared here as
 * nccl.h has them since version 2. Collectives are enqueued on the one stream and captured with the step. */
#include <dlfcn.h>
#include <stdlib.h>

#include "worker/cuda/dev.h"

extern "C" {
typedef struct {
    char internal[128];
} nccl_id;
typedef void *nccl_comm;
}
enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7, NCCL_SUM = 0, NCCL_F16 = 6, NCCL_F32 = 7, NCCL_BF16 = 9 };

struct group {
    void *library;
    nccl_comm comm;
    int n_ranks;
    float *parts; /* what group_gather collects before it is put in place */
    size_t parts_bytes;
    int (*init)(nccl_comm *, int, nccl_id, int);
    int (*abort_comm)(nccl_comm);
    int (*all_reduce)(const void *, void *, size_t, int, int, nccl_comm, cudaStream_t);
    int (*all_gather)(const void *, void *, size_t, int, nccl_comm, cudaStream_t);
    const char *(*error_string)(int);
};

template <class F> static bool find(void *library, const char *name, F *out) {
    void *sym = dlsym(library, name);
    memcpy(out, &sym, sizeof sym);
    return sym != NULL;
}

int group_join(struct be *b, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    struct group *g = static_cast<struct group *>(calloc(1, sizeof *g));
    nccl_id id;
    if (!g)
        return dev_err(err, "no memory for a group of ranks");
    b->group = g;
    g->n_ranks = cfg->n_ranks;
    g->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!g->library)
        return dev_err(err, "a group of %d ranks needs NCCL: %s", cfg->n_ranks, dlerror());
    if (!find(g->library, "ncclCommInitRank", &g->init) || !find(g->library, "ncclCommAbort", &g->abort_comm) ||
        !find(g->library, "ncclAllReduce", &g->all_reduce) || !find(g->library, "ncclAllGather", &g->all_gather) ||
        !find(g->library, "ncclGetErrorString", &g->error_string))
        return dev_err(err, "libnccl.so.2 lacks functions of version 2: %s", dlerror());
    if (!cfg->group_uid || cfg->group_uid_bytes != sizeof id)
        return dev_err(err, "a group of %d ranks needs NCCL's unique id of %zu bytes", cfg->n_ranks, sizeof id);
    memcpy(&id, cfg->group_uid, sizeof id);
    int s = g->init(&g->comm, cfg->n_ranks, id, cfg->rank);
    if (s != NCCL_SUCCESS)
        return dev_err(err, "NCCL: rank %d of %d: %s", cfg->rank, cfg->n_ranks, g->error_string(s));
    return 0;
}

/* Aborts instead of destroying: a rank that is gone must not be waited for. */
void group_leave(struct be *b) {
    struct group *g = b->group;
    if (!g)
        return;
    if (g->comm)
        g->abort_comm(g->comm);
    rt_free(b->rt, g->parts);
    if (g->library)
        dlclose(g->library);
    free(g);
    b->group = NULL;
}

static int nccl_type(enum dtype t) {
    return t == DT_BF16 ? NCCL_BF16 : t == DT_F16 ? NCCL_F16 : NCCL_F32;
}

void group_sum(struct be *b, void *data, size_t n, enum dtype t) {
    struct group *g = b->group;
    int s = g->all_reduce(data, data, n, nccl_type(t), NCCL_SUM, g->comm, rt_stream(b->rt));
    if (s != NCCL_SUCCESS && s != NCCL_IN_PROGRESS)
        rt_check(b->rt, cudaErrorUnknown, "a sum over ranks");
}

static __global__ void place(float *out, const float *parts, uint32_t rows, uint32_t cols, uint32_t stride) {
    dep_wait();
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x, r = blockIdx.y, rank = blockIdx.z;
    if (c < cols)
        out[static_cast<size_t>(r) * stride + rank * cols + c] = parts[(static_cast<size_t>(rank) * rows + r) * cols + c];
}

void group_gather(struct be *b, float *out, const float *part, uint32_t rows, uint32_t cols, uint32_t stride) {
    struct group *g = b->group;
    size_t n = static_cast<size_t>(rows) * cols, bytes = n * static_cast<size_t>(g->n_ranks) * sizeof *g->parts;
    if (g->parts_bytes < bytes) {
        CHECK(!b->capturing);
        graphs_drop(b);
        rt_free(b->rt, g->parts);
        g->parts = static_cast<float *>(rt_alloc(b->rt, bytes));
        g->parts_bytes = bytes;
        CHECK(g->parts);
    }
    int s = g->all_gather(part, g->parts, n, NCCL_F32, g->comm, rt_stream(b->rt));
    if (s != NCCL_SUCCESS && s != NCCL_IN_PROGRESS)
        rt_check(b->rt, cudaErrorUnknown, "gathering over ranks");
    rt_run(b->rt, place, dim3(blocks_for(cols, 256), rows, static_cast<unsigned>(g->n_ranks)), dim3(256), 0, out,
           static_cast<const float *>(g->parts), rows, cols, stride);
}
