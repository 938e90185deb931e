/* nccl.cu: nccl.h over libnccl.so.2. Its few functions are declared here as nccl.h has them since version 2, so that a
 * build needs no headers of it. */
#include "worker/cuda/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "worker/cuda/dev.h"

extern "C" {
typedef struct {
    char internal[NCCL_ID_BYTES];
} nccl_id_bytes;
typedef void *nccl_comm;
}
enum { SUCCESS = 0, IN_PROGRESS = 7, OP_SUM = 0, TYPE_F16 = 6, TYPE_F32 = 7, TYPE_BF16 = 9 };

/* functions: of the library; loaded once and kept. */
static struct functions {
    void *library;
    int (*unique_id)(nccl_id_bytes *);
    int (*init)(nccl_comm *, int, nccl_id_bytes, int);
    int (*abort_comm)(nccl_comm);
    int (*async_error)(nccl_comm, int *);
    int (*all_reduce)(const void *, void *, size_t, int, int, nccl_comm, cudaStream_t);
    int (*all_gather)(const void *, void *, size_t, int, nccl_comm, cudaStream_t);
    const char *(*error_string)(int);
} lib;

struct nccl {
    nccl_comm comm;
    struct rt *rt;
};

template <class F> static bool find(void *library, const char *name, F *out) {
    void *sym = dlsym(library, name);
    memcpy(out, &sym, sizeof sym);
    return sym != NULL;
}

static int load(char err[BE_ERR_BYTES]) {
    struct functions f = {};
    if (lib.library)
        return 0;
    f.library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!f.library)
        return dev_err(err, "no NCCL: %s", dlerror());
    if (!find(f.library, "ncclGetUniqueId", &f.unique_id) || !find(f.library, "ncclCommInitRank", &f.init) ||
        !find(f.library, "ncclCommAbort", &f.abort_comm) ||
        !find(f.library, "ncclCommGetAsyncError", &f.async_error) ||
        !find(f.library, "ncclAllReduce", &f.all_reduce) || !find(f.library, "ncclAllGather", &f.all_gather) ||
        !find(f.library, "ncclGetErrorString", &f.error_string)) {
        dlclose(f.library);
        return dev_err(err, "libnccl.so.2 lacks functions of version 2");
    }
    lib = f;
    return 0;
}

int nccl_id(uint8_t id[NCCL_ID_BYTES], char err[BE_ERR_BYTES]) {
    nccl_id_bytes made;
    if (load(err) != 0)
        return -1;
    int s = lib.unique_id(&made);
    if (s != SUCCESS)
        return dev_err(err, "NCCL: %s", lib.error_string(s));
    memcpy(id, &made, NCCL_ID_BYTES);
    return 0;
}

int nccl_open(struct nccl **out, struct rt *r, const uint8_t id[NCCL_ID_BYTES], int rank, int n_ranks,
              char err[BE_ERR_BYTES]) {
    nccl_id_bytes given;
    if (load(err) != 0)
        return -1;
    struct nccl *n = static_cast<struct nccl *>(calloc(1, sizeof *n));
    if (!n)
        return dev_err(err, "no memory for NCCL");
    memcpy(&given, id, NCCL_ID_BYTES);
    n->rt = r;
    int s = lib.init(&n->comm, n_ranks, given, rank);
    if (s != SUCCESS) {
        free(n);
        return dev_err(err, "NCCL: rank %d of %d: %s", rank, n_ranks, lib.error_string(s));
    }
    *out = n;
    return 0;
}

void nccl_close(struct nccl *n) {
    if (!n)
        return;
    lib.abort_comm(n->comm);
    free(n);
}

bool nccl_failed(struct nccl *n, char err[BE_ERR_BYTES]) {
    int state = SUCCESS, s = lib.async_error(n->comm, &state);
    if (s == SUCCESS)
        s = state;
    if (s == SUCCESS || s == IN_PROGRESS)
        return false;
    dev_err(err, "NCCL: %s", lib.error_string(s));
    return true;
}

static void check(struct nccl *n, int s, const char *what) {
    if (s != SUCCESS && s != IN_PROGRESS)
        rt_check(n->rt, cudaErrorUnknown, what);
}

void nccl_sum(struct nccl *c, void *data, size_t n, enum dtype t) {
    int type = t == DT_BF16 ? TYPE_BF16 : t == DT_F16 ? TYPE_F16 : TYPE_F32;
    check(c, lib.all_reduce(data, data, n, type, OP_SUM, c->comm, rt_stream(c->rt)), "a sum over ranks");
}

void nccl_gather(struct nccl *c, float *all, const float *mine, size_t n) {
    check(c, lib.all_gather(mine, all, n, TYPE_F32, c->comm, rt_stream(c->rt)), "gathering over ranks");
}
