/* rt_cuda.cu: rt.h over CUDA's runtime and cuBLASLt. */
#include "worker/cuda/rt.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/cuda/dev.h"

enum { STAGES = 4, WORKSPACE_BYTES = 32 << 20, PRODUCTS_MAX = 512, PRODUCT_BUCKETS = 1024 };

/* stage: pinned memory that copies to the device take from; the event says when the last one is done. */
struct stage {
    void *data;
    size_t bytes;
    cudaEvent_t done;
    bool used;
};

/* product_plan: what the library chose for one shape. */
struct product_plan {
    uint32_t m, n, k;
    enum dtype t, y_type;
    bool add, possible;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y, c;
    cublasLtMatmulAlgo_t algo;
    struct product_plan *next;
};

struct rt_graph {
    cudaGraphExec_t exec;
};

struct rt {
    int device, sm, n_sms;
    cudaStream_t stream;
    cublasLtHandle_t lt;
    void *workspace;
    struct stage stage[STAGES];
    unsigned at;
    bool stage_open, fenced;
    cudaEvent_t marks[RT_MARKS];
    cudaError_t error; /* the first one */
    const char *what;
    size_t lacking_bytes; /* of memory, if that is the error */
    struct product_plan *plans[PRODUCT_BUCKETS];
    uint32_t n_plans;
    bool (*look)(void *arg, bool done, char why[BE_ERR_BYTES]); /* NULL: nobody watches */
    void *look_arg;
    bool given_up; /* what runs is waited for no more */
    char why[BE_ERR_BYTES];
};

cudaStream_t rt_stream(struct rt *r) {
    return r->stream;
}

bool rt_overlaps(struct rt *r) {
    bool fenced = r->fenced;
    r->fenced = false;
    return r->sm >= 90 && !fenced;
}

bool rt_failed(const struct rt *r) {
    return r->error != cudaSuccess;
}

void rt_fence(struct rt *r) {
    r->fenced = true;
}

/* bind: the device that calls of this thread mean. A handle is opened on one thread and used on another. */
static void bind(struct rt *r) {
    static thread_local int bound = -1;
    if (bound != r->device)
        rt_check(r, cudaSetDevice(r->device), "choosing the GPU");
    bound = r->device;
}

void rt_check(struct rt *r, cudaError_t e, const char *what) {
    if (e == cudaSuccess || r->error != cudaSuccess)
        return;
    r->error = e;
    r->what = what;
}

void rt_shared_limit(struct rt *r, const void *kernel, size_t bytes) {
    rt_check(r, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
             "shared memory for a kernel");
}

int rt_devices(void) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess)
        return count;
    cudaGetLastError();
    return 0;
}

int rt_open(struct rt **out, int device_index, char err[BE_ERR_BYTES]) {
    int count = 0;
    cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count == 0)
        return dev_err(err, "no GPU: %s", e != cudaSuccess ? cudaGetErrorString(e) : "the driver shows none");
    if (device_index < 0 || device_index >= count)
        return dev_err(err, "GPU %d: this machine has %d", device_index, count);
    if ((e = cudaSetDevice(device_index)) != cudaSuccess || (e = cudaGetDeviceProperties(&p, device_index)) != cudaSuccess)
        return dev_err(err, "GPU %d: %s", device_index, cudaGetErrorString(e));
    if (p.major < 8)
        return dev_err(err, "GPU %d (%s) is of compute capability %d.%d; 8.0 or later is needed", device_index, p.name,
                       p.major, p.minor);
    struct rt *r = static_cast<struct rt *>(calloc(1, sizeof *r));
    if (!r)
        return dev_err(err, "no memory for the CUDA backend");
    r->device = device_index;
    r->sm = p.major * 10 + p.minor;
    r->n_sms = p.multiProcessorCount;
    rt_check(r, cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), "a stream");
    rt_check(r, cudaMalloc(&r->workspace, WORKSPACE_BYTES), "memory for the library");
    for (int i = 0; i < STAGES; i++)
        rt_check(r, cudaEventCreateWithFlags(&r->stage[i].done, cudaEventDisableTiming), "an event");
    for (int i = 0; i < RT_MARKS; i++)
        rt_check(r, cudaEventCreateWithFlags(&r->marks[i], cudaEventDisableTiming), "an event");
    if (r->error == cudaSuccess && cublasLtCreate(&r->lt) != CUBLAS_STATUS_SUCCESS) {
        r->error = cudaErrorUnknown;
        r->what = "cuBLASLt";
    }
    if (r->error != cudaSuccess) {
        dev_err(err, "GPU %d: %s: %s", device_index, r->what, cudaGetErrorString(r->error));
        rt_close(r);
        return -1;
    }
    *out = r;
    return 0;
}

static void plan_free(struct product_plan *p) {
    if (p->op)
        cublasLtMatmulDescDestroy(p->op);
    cublasLtMatrixLayout_t layouts[] = {p->w, p->x, p->y, p->c};
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++)
        if (layouts[i])
            cublasLtMatrixLayoutDestroy(layouts[i]);
    free(p);
}

void rt_close(struct rt *r) {
    for (int i = 0; i < STAGES; i++) {
        if (r->stage[i].data)
            cudaFreeHost(r->stage[i].data);
        if (r->stage[i].done)
            cudaEventDestroy(r->stage[i].done);
    }
    for (int i = 0; i < RT_MARKS; i++)
        if (r->marks[i])
            cudaEventDestroy(r->marks[i]);
    for (size_t i = 0; i < PRODUCT_BUCKETS; i++)
        for (struct product_plan *p = r->plans[i], *next; p; p = next) {
            next = p->next;
            plan_free(p);
        }
    if (r->lt)
        cublasLtDestroy(r->lt);
    cudaFree(r->workspace);
    if (r->stream)
        cudaStreamDestroy(r->stream);
    free(r);
}

void rt_info(struct rt *r, struct rt_info *out) {
    cudaDeviceProp p;
    size_t free_bytes = 0, total = 0;
    memset(out, 0, sizeof *out);
    bind(r);
    rt_check(r, cudaMemGetInfo(&free_bytes, &total), "the device's memory");
    if (cudaGetDeviceProperties(&p, r->device) == cudaSuccess)
        snprintf(out->name, sizeof out->name, "%.63s", p.name);
    out->sm = r->sm;
    out->n_sms = r->n_sms;
    out->memory_total_bytes = total;
    out->memory_free_bytes = free_bytes;
}

/* No memory is an answer, not an error that sticks. */
void *rt_alloc(struct rt *r, size_t bytes) {
    void *p = NULL;
    bind(r);
    if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    rt_check(r, cudaMemsetAsync(p, 0, bytes, r->stream), "clearing memory");
    return p;
}

void rt_no_memory(struct rt *r, const char *what, size_t bytes) {
    if (r->error == cudaSuccess)
        r->lacking_bytes = bytes;
    rt_check(r, cudaErrorMemoryAllocation, what);
}

/* settle: waits for the stream. Watched, it looks often for a millisecond, which is longer than most steps' ends are
 * away, and then every 20 us. */
static void settle(struct rt *r, const char *what) {
    if (r->given_up)
        return;
    bind(r);
    if (!r->look || r->error != cudaSuccess) {
        rt_check(r, cudaStreamSynchronize(r->stream), what);
        return;
    }
    for (uint32_t looks = 0;; looks++) {
        cudaError_t e = cudaStreamQuery(r->stream);
        bool done = e != cudaErrorNotReady;
        if (!done)
            cudaGetLastError(); /* it stays there, and is none */
        else
            rt_check(r, e, what);
        if (done || looks % 64 == 63)
            r->given_up = r->look(r->look_arg, done, r->why);
        if (done || r->given_up)
            return;
        if (looks > 2000)
            usleep(20);
    }
}

void rt_guard(struct rt *r, bool (*look)(void *arg, bool done, char why[BE_ERR_BYTES]), void *arg) {
    r->look = look;
    r->look_arg = arg;
}

void rt_free(struct rt *r, void *p) {
    if (!p)
        return;
    settle(r, "waiting");
    rt_check(r, cudaFree(p), "freeing memory");
}

static void stage_grow(struct stage *s, size_t n) {
    if (s->data)
        cudaFreeHost(s->data);
    s->bytes = n + n / 2;
    s->data = NULL;
    if (cudaMallocHost(&s->data, s->bytes) == cudaSuccess)
        return;
    cudaGetLastError();
    fprintf(stderr, "weir-worker: no %zu bytes of pinned memory\n", s->bytes);
    abort();
}

void *rt_stage(struct rt *r, size_t n) {
    struct stage *s = &r->stage[r->at];
    CHECK(!r->stage_open);
    bind(r);
    r->stage_open = true;
    if (s->used)
        rt_check(r, cudaEventSynchronize(s->done), "an upload");
    s->used = false;
    if (s->bytes < n || !s->data)
        stage_grow(s, MAX(n, 64 * KIB));
    return s->data;
}

void rt_put(struct rt *r, void *dst, const void *staged, size_t n) {
    struct stage *s = &r->stage[r->at];
    CHECK(r->stage_open && staged == s->data && n <= s->bytes);
    r->stage_open = false;
    r->at = (r->at + 1) % STAGES;
    if (rt_failed(r))
        return;
    if (n > 0)
        rt_check(r, cudaMemcpyAsync(dst, staged, n, cudaMemcpyHostToDevice, r->stream), "an upload");
    rt_check(r, cudaEventRecord(s->done, r->stream), "an event");
    s->used = true;
}

void rt_fetch(struct rt *r, void *dst, const void *src, size_t n) {
    if (n > 0 && !rt_failed(r))
        rt_check(r, cudaMemcpyAsync(dst, src, n, cudaMemcpyDeviceToHost, r->stream), "a download");
}

void rt_copy(struct rt *r, void *dst, const void *src, size_t n) {
    if (n > 0 && !rt_failed(r))
        rt_check(r, cudaMemcpyAsync(dst, src, n, cudaMemcpyDeviceToDevice, r->stream), "a copy");
}

void *rt_pinned(struct rt *r, size_t n) {
    void *p = NULL;
    bind(r);
    if (cudaMallocHost(&p, n ? n : 1) == cudaSuccess)
        return p;
    cudaGetLastError();
    return NULL;
}

void rt_unpinned(struct rt *r, void *p) {
    if (!p)
        return;
    settle(r, "waiting");
    cudaFreeHost(p);
}

void rt_mark(struct rt *r, uint32_t mark) {
    CHECK(mark < RT_MARKS);
    rt_check(r, cudaEventRecord(r->marks[mark], r->stream), "an event");
}

static int result(struct rt *r, char err[BE_ERR_BYTES]) {
    if (r->given_up)
        return dev_err(err, "%s", r->why);
    rt_check(r, cudaGetLastError(), "a step");
    if (r->error == cudaSuccess)
        return 0;
    if (r->lacking_bytes)
        return dev_err(err, "GPU %d: no %.1f MiB of memory for %s", r->device,
                       static_cast<double>(r->lacking_bytes) / static_cast<double>(MIB), r->what);
    return dev_err(err, "GPU %d: %s: %s", r->device, r->what, cudaGetErrorString(r->error));
}

int rt_wait(struct rt *r, char err[BE_ERR_BYTES]) {
    settle(r, "a step");
    return result(r, err);
}

int rt_wait_mark(struct rt *r, uint32_t mark, char err[BE_ERR_BYTES]) {
    CHECK(mark < RT_MARKS);
    if (r->look) /* the watch is over whole steps */
        settle(r, "a step");
    else
        rt_check(r, cudaEventSynchronize(r->marks[mark]), "a step");
    return result(r, err);
}

/* ---- ranks of a group ---------------------------------------------------------------------------- */

void rt_place(struct rt *r, char out[RT_PLACE_BYTES]) {
    memset(out, 0, RT_PLACE_BYTES);
    rt_check(r, cudaDeviceGetPCIBusId(out, RT_PLACE_BYTES - 1, r->device), "the GPU's place");
}

/* The end of the process frees it: until then others may have it mapped. */
void *rt_share(struct rt *r, size_t bytes, uint8_t handle[RT_HANDLE_BYTES]) {
    cudaIpcMemHandle_t h;
    static_assert(sizeof h == RT_HANDLE_BYTES, "a handle's size");
    void *p = rt_alloc(r, bytes);
    if (!p)
        return NULL;
    if (cudaIpcGetMemHandle(&h, p) != cudaSuccess) {
        cudaGetLastError();
        cudaFree(p);
        return NULL;
    }
    memcpy(handle, &h, sizeof h);
    return p;
}

void *rt_peer(struct rt *r, const uint8_t handle[RT_HANDLE_BYTES]) {
    cudaIpcMemHandle_t h;
    void *p = NULL;
    (void)r;
    memcpy(&h, handle, sizeof h);
    if (cudaIpcOpenMemHandle(&p, h, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess)
        return p;
    cudaGetLastError();
    return NULL;
}

void rt_peer_leave(struct rt *r, void *p) {
    (void)r;
    if (p && !r->given_up && cudaIpcCloseMemHandle(p) != cudaSuccess)
        cudaGetLastError();
}

static void *page_of(void *p, size_t *page) {
    *page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return reinterpret_cast<void *>(reinterpret_cast<uintptr_t>(p) / *page * *page);
}

uint32_t *rt_word(struct rt *r, uint32_t *host, bool pinned) {
    size_t page;
    void *at = page_of(host, &page), *seen = NULL;
    (void)r;
    if (!pinned && cudaHostRegister(at, page, cudaHostRegisterMapped) != cudaSuccess) {
        cudaGetLastError();
        return NULL;
    }
    if (cudaHostGetDevicePointer(&seen, host, 0) == cudaSuccess)
        return static_cast<uint32_t *>(seen);
    cudaGetLastError();
    if (!pinned)
        cudaHostUnregister(at);
    return NULL;
}

void rt_word_leave(struct rt *r, uint32_t *host) {
    size_t page;
    if (!r->given_up && cudaHostUnregister(page_of(host, &page)) != cudaSuccess)
        cudaGetLastError(); /* it was not registered */
}

bool rt_measures(struct rt *r) {
    (void)r;
    return true;
}

/* ---- graphs ------------------------------------------------------------------------------------ */

void rt_capture(struct rt *r) {
    bind(r);
    rt_check(r, cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal), "capturing a step");
}

struct rt_graph *rt_captured(struct rt *r) {
    cudaGraph_t graph = NULL;
    struct rt_graph *g = static_cast<struct rt_graph *>(calloc(1, sizeof *g));
    CHECK(g);
    rt_check(r, cudaStreamEndCapture(r->stream, &graph), "capturing a step");
    if (graph)
        rt_check(r, cudaGraphInstantiate(&g->exec, graph, 0), "a captured step");
    if (graph)
        cudaGraphDestroy(graph);
    if (g->exec)
        return g;
    free(g);
    return NULL;
}

void rt_launch(struct rt *r, struct rt_graph *g) {
    if (!rt_failed(r))
        rt_check(r, cudaGraphLaunch(g->exec, r->stream), "a captured step");
}

void rt_graph_free(struct rt_graph *g) {
    if (!g)
        return;
    cudaGraphExecDestroy(g->exec);
    free(g);
}

/* ---- products ---------------------------------------------------------------------------------- */

static cudaDataType_t data_type(enum dtype t) {
    return t == DT_BF16 ? CUDA_R_16BF : t == DT_F16 ? CUDA_R_16F : t == DT_F8E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_32F;
}

/* layout: of a row-major matrix [rows][cols], which the library calls column-major [cols][rows]. */
static bool layout(cublasLtMatrixLayout_t *out, enum dtype t, uint32_t rows, uint32_t cols) {
    return cublasLtMatrixLayoutCreate(out, data_type(t), cols, rows, cols) == CUBLAS_STATUS_SUCCESS;
}

/* scales_of: of an fp8 product: a factor for each row of w, which the library calls A, and of x. */
static bool scales_of(cublasLtMatmulDesc_t op, const float *w_scale, const float *x_scale) {
    cublasLtMatmulMatrixScale_t each_row = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    return cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &each_row, sizeof each_row) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &each_row, sizeof each_row) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w_scale, sizeof w_scale) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x_scale, sizeof x_scale) ==
               CUBLAS_STATUS_SUCCESS;
}

/* plan_make: y^T [n][m] = w [n][k] x^T [k][m] in the library's words, all of them column-major. */
static bool plan_make(struct rt *r, struct product_plan *p) {
    cublasLtMatmulPreference_t want = NULL;
    cublasLtMatmulHeuristicResult_t found;
    cublasOperation_t turned = CUBLAS_OP_T;
    size_t room = WORKSPACE_BYTES;
    int n_found = 0;
    bool good = cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned) ==
                    CUBLAS_STATUS_SUCCESS &&
                layout(&p->w, p->t, p->n, p->k) && layout(&p->x, p->t, p->m, p->k) &&
                layout(&p->y, p->y_type, p->m, p->n) && layout(&p->c, p->y_type, p->m, p->n) &&
                (p->t != DT_F8E4M3 || scales_of(p->op, NULL, NULL)) &&
                cublasLtMatmulPreferenceCreate(&want) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
                                                     sizeof room) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulAlgoGetHeuristic(r->lt, p->op, p->w, p->x, p->c, p->y, want, 1, &found, &n_found) ==
                    CUBLAS_STATUS_SUCCESS &&
                n_found > 0;
    if (want)
        cublasLtMatmulPreferenceDestroy(want);
    if (good)
        p->algo = found.algo;
    return good;
}

static bool same(const struct product_plan *a, const struct product_plan *b) {
    return a->m == b->m && a->n == b->n && a->k == b->k && a->t == b->t && a->y_type == b->y_type && a->add == b->add;
}

/* plan_of: the library's choice for a shape, asked for once. Prompts come in any length, so m's are many: when there
 * are too many plans all are forgotten. */
static struct product_plan *plan_of(struct rt *r, const struct product_plan *like) {
    size_t bucket = (like->m * 2654435761u ^ like->n * 40503u ^ like->k * 9973u ^ (unsigned)like->add) % PRODUCT_BUCKETS;
    for (struct product_plan *p = r->plans[bucket]; p; p = p->next)
        if (same(p, like))
            return p;
    if (r->n_plans >= PRODUCTS_MAX) {
        for (size_t i = 0; i < PRODUCT_BUCKETS; i++)
            for (; r->plans[i];) {
                struct product_plan *p = r->plans[i];
                r->plans[i] = p->next;
                plan_free(p);
            }
        r->n_plans = 0;
    }
    struct product_plan *p = static_cast<struct product_plan *>(malloc(sizeof *p));
    CHECK(p);
    *p = *like;
    p->possible = plan_make(r, p);
    p->next = r->plans[bucket];
    r->plans[bucket] = p;
    r->n_plans++;
    return p;
}

static bool product(struct rt *r, const struct product_plan *like, void *y, const void *x, const void *w,
                    const float *x_scale, const float *w_scale, const void *add) {
    struct product_plan *p = plan_of(r, like);
    if (!p->possible || (w_scale && !scales_of(p->op, w_scale, x_scale)))
        return false;
    float one = 1, beta = add ? 1.0f : 0.0f;
    cublasStatus_t s = cublasLtMatmul(r->lt, p->op, &one, w, p->w, x, p->x, &beta, add ? add : y, p->c, y, p->y, &p->algo,
                                      r->workspace, WORKSPACE_BYTES, r->stream);
    if (s != CUBLAS_STATUS_SUCCESS)
        rt_check(r, cudaErrorUnknown, "a product of cuBLASLt");
    return true;
}

bool rt_product(struct rt *r, void *y, enum dtype y_type, const void *x, const void *w, const void *add, enum dtype t,
                uint32_t m, uint32_t n, uint32_t k) {
    struct product_plan like;
    if (rt_failed(r))
        return true; /* nothing is enqueued any more */
    memset(&like, 0, sizeof like);
    like.m = m;
    like.n = n;
    like.k = k;
    like.t = t;
    like.y_type = y_type;
    like.add = add != NULL;
    if (add && y_type != t)
        return false;
    return product(r, &like, y, x, w, NULL, NULL, add);
}

bool rt_product_fp8(struct rt *r, void *y, enum dtype y_type, const void *x, const void *w, const float *x_scale,
                    const float *w_scale, const void *add, uint32_t m, uint32_t n, uint32_t k) {
    struct product_plan like;
    if (rt_failed(r))
        return true; /* nothing is enqueued any more */
    memset(&like, 0, sizeof like);
    like.m = m;
    like.n = n;
    like.k = k;
    like.t = DT_F8E4M3;
    like.y_type = y_type;
    like.add = add != NULL;
    return product(r, &like, y, x, w, x_scale, w_scale, add);
}
