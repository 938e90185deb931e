/* rt.h: the runtime under the operations: one device, one stream, memory, copies, captured graphs.
 *
 * rt_cuda.cu does it with CUDA's runtime; tests/cuda/rt_emu.cc with the heap, so that everything above runs on a
 * processor. All work is enqueued on the one stream, in order; only rt_wait blocks, and what says so.
 *
 * Errors stick: after the first one nothing is enqueued any more, and rt_wait reports it.
 * Threads: one at a time.
 */
#ifndef WEIR_WORKER_CUDA_RT_H
#define WEIR_WORKER_CUDA_RT_H

#include <functional>

#include "worker/cuda/port.h"

struct rt;
struct rt_graph;

struct rt_info {
    char name[64];
    int sm;     /* 80, 89, 90 */
    int n_sms;
    uint64_t memory_total_bytes, memory_free_bytes;
};

/* rt_devices: how many there are. */
int rt_devices(void);
/* rt_open: 0, or nonzero with err filled. */
int rt_open(struct rt **out, int device_index, char err[BE_ERR_BYTES]);
void rt_close(struct rt *r);
void rt_info(struct rt *r, struct rt_info *out);

/* rt_alloc: aligned to 256 bytes, cleared (enqueued). NULL: no memory; that is no sticking error. */
void *rt_alloc(struct rt *r, size_t bytes);
/* rt_no_memory: an error that sticks: `bytes` for `what`, a constant, were not there. */
void rt_no_memory(struct rt *r, const char *what, size_t bytes);
/* rt_free: waits for what runs. NULL is fine. */
void rt_free(struct rt *r, void *p);

/* rt_stage: room in pinned memory for n bytes, free again when the copy that uses it is done: write it, then
 * rt_put. At most one room is open at a time. */
void *rt_stage(struct rt *r, size_t n);
/* rt_put: from the room of rt_stage to the device. */
void rt_put(struct rt *r, void *dst, const void *staged, size_t n);
/* rt_fetch: from the device to the host, where `dst` is the caller's until rt_wait. */
void rt_fetch(struct rt *r, void *dst, const void *src, size_t n);
void rt_copy(struct rt *r, void *dst, const void *src, size_t n);
/* rt_pinned, rt_unpinned: host memory that rt_fetch reaches at full speed. NULL: no memory. */
void *rt_pinned(struct rt *r, size_t n);
void rt_unpinned(struct rt *r, void *p);
/* rt_fence: the next kernel begins when everything before it has ended: for what reads, before its dep_wait, memory that
 * a kernel just wrote. */
void rt_fence(struct rt *r);
/* rt_wait: until everything enqueued so far is done. */
int rt_wait(struct rt *r, char err[BE_ERR_BYTES]);

/* rt_mark: remembers what is enqueued so far, under a number. rt_wait_mark: until that much is done. */
enum { RT_MARKS = 8 };
void rt_mark(struct rt *r, uint32_t mark);
int rt_wait_mark(struct rt *r, uint32_t mark, char err[BE_ERR_BYTES]);

/* rt_capture: what is enqueued from here to rt_captured is recorded, not run. rt_captured: NULL: it failed, which
 * sticks. rt_launch: enqueues a recorded graph. */
void rt_capture(struct rt *r);
struct rt_graph *rt_captured(struct rt *r);
void rt_launch(struct rt *r, struct rt_graph *g);
void rt_graph_free(struct rt_graph *g);

/* rt_product: y[m][n] = x[m][k] w[n][k]^T (+ add[m][n]), rows close, through the vendor's library. t: of x, w
 * and add; y_type: t or f32. False: it cannot; nothing was enqueued. */
bool rt_product(struct rt *r, void *y, enum dtype y_type, const void *x, const void *w, const void *add, enum dtype t,
                uint32_t m, uint32_t n, uint32_t k);
/* rt_product_fp8: the same of e4m3, with a factor for each row: x_scale [m], w_scale [n]. add: of type y_type. */
bool rt_product_fp8(struct rt *r, void *y, enum dtype y_type, const void *x, const void *w, const float *x_scale,
                    const float *w_scale, const void *add, uint32_t m, uint32_t n, uint32_t k);

/* ---- ranks of a group ---------------------------------------------------------------------------- */

enum { RT_HANDLE_BYTES = 64, RT_PLACE_BYTES = 32 };
/* rt_place: names the device, alike in all processes of a machine: ranks that share one have the same. */
void rt_place(struct rt *r, char out[RT_PLACE_BYTES]);
/* rt_share: as rt_alloc, of memory that other ranks' devices reach by its handle. */
void *rt_share(struct rt *r, size_t bytes, uint8_t handle[RT_HANDLE_BYTES]);
/* rt_peer: another rank's memory, by its handle, until rt_peer_leave. NULL: this device does not reach it. */
void *rt_peer(struct rt *r, const uint8_t handle[RT_HANDLE_BYTES]);
void rt_peer_leave(struct rt *r, void *p);
/* rt_word: a word of the host's memory as kernels see it; of memory that is not rt_pinned's it is made visible first.
 * NULL: it cannot be. */
uint32_t *rt_word(struct rt *r, uint32_t *host, bool pinned);
void rt_word_leave(struct rt *r, uint32_t *host);
/* rt_guard: while rt_wait waits, it calls `look` again and again, and once more, with `done`, when all is done. What
 * look returns true for ends the wait; `why` is then the error. */
void rt_guard(struct rt *r, bool (*look)(void *arg, bool done, char why[BE_ERR_BYTES]), void *arg);
/* rt_measures: whether times mean anything on this device. */
bool rt_measures(struct rt *r);

#ifdef WEIR_CUDA_EMU
/* rt_do: now, or with every launch of the graph that is being recorded. */
void rt_do(struct rt *r, const std::function<void()> &work);
template <class... P, class... A>
static inline void rt_run(struct rt *r, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args) {
    rt_do(r, [=] { emu_run(grid, block, shared_bytes, [=] { kernel(static_cast<P>(args)...); }); });
}
#else
cudaStream_t rt_stream(struct rt *r);
bool rt_failed(const struct rt *r);
bool rt_overlaps(struct rt *r); /* programmatic dependent launch: sm_90 and later, and not behind a fence */
void rt_check(struct rt *r, cudaError_t e, const char *what);
void rt_shared_limit(struct rt *r, const void *kernel, size_t bytes);

/* rt_run: a kernel on the stream. Above 48 KiB of shared memory, a kernel's own arrays included, its limit is raised
 * first. */
template <class... P, class... A>
static inline void rt_run(struct rt *r, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args) {
    if (rt_failed(r))
        return;
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared_bytes;
    c.stream = rt_stream(r);
    c.attrs = &attr;
    c.numAttrs = rt_overlaps(r) ? 1 : 0;
    if (shared_bytes > 32 * KIB)
        rt_shared_limit(r, reinterpret_cast<const void *>(kernel), shared_bytes);
    rt_check(r, cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...), "a kernel's launch");
}
#endif

#endif
