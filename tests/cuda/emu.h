/* emu.h: enough of a GPU, on a processor, to test kernels: blocks run one after another, and the threads of a block
 * are fibers that give way at barriers and at collectives of their warp. Their order is shuffled by a seed, so what
 * depends on an order that nothing guarantees changes its result. Memory of the device is memory of the heap, so ASan
 * sees every access beyond a buffer; asynchronous copies are done at the latest moment allowed, at the wait for them.
 *
 * Threads: a device belongs to the thread that uses it; several threads have a device each (ranks of a group).
 */
#ifndef WEIR_TESTS_CUDA_EMU_H
#define WEIR_TESTS_CUDA_EMU_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

extern "C" {
#include "worker/cpu/convert.h"
}

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define DEV static inline
#define IN_PLACE const
#define SHARED(type, name, n)                                                                                \
    static thread_local emu_static<type, (n)> name##_static;                                                 \
    type *name = name##_static.enter()
#define SHARED_DYN(type, name) type *name = reinterpret_cast<type *>(emu_shared())

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};

struct emu_thread {
    dim3 index;
};
extern thread_local emu_thread *emu_self;
extern thread_local dim3 emu_block, emu_block_dim, emu_grid_dim;
#define threadIdx (emu_self->index)
#define blockIdx emu_block
#define blockDim emu_block_dim
#define gridDim emu_grid_dim

/* emu_run: every block of a grid. */
void emu_run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &kernel);
/* emu_seed: the order of threads from now on. */
void emu_seed(uint64_t seed);
void *emu_shared(void);
/* emu_static: shared memory of a kernel's own; a block finds it poisoned (NaN), as dynamic memory is. */
extern thread_local uint64_t emu_block_count;
template <class T, size_t N> struct emu_static {
    uint64_t block = 0;
    alignas(16) unsigned char data[sizeof(T) * N];
    T *enter() {
        if (block != emu_block_count)
            memset(data, 0xFF, sizeof data);
        block = emu_block_count;
        return reinterpret_cast<T *>(data);
    }
};

void __syncthreads(void);
void warp_sync(void);
/* emu_exchange: n bytes of every lane, in order of lanes, valid until the next call in this warp. */
const uint8_t *emu_exchange(const void *mine, size_t n);
void emu_mma(float d[4], const uint32_t a[4], const uint32_t b[2], bool is_bf16);
void emu_mma_f8(float d[4], const uint32_t a[4], const uint32_t b[2]);
void load_matrix(uint32_t r[4], const void *row);
void load_matrix_t(uint32_t r[4], const void *row);
void copy16(void *shared, const void *global, int n_bytes);
void copies_commit(void);
/* shared_at: within the block's dynamic shared memory. */
uint32_t shared_at(const void *p);
/* emu_wg_mma: of a warpgroup: a from registers, or, where a_regs is NULL, by its descriptor. Done at the latest moment
 * allowed, at the wait for its group, so that what is read or written too early shows. */
void emu_wg_mma(float (*d)[4], int n, const uint32_t *a_regs, uint64_t a, uint64_t b, bool add, bool is_bf16);
void emu_wg_commit(void);
void emu_wg_wait(int n);
void emu_copies_wait(int n);
template <int N> static inline void copies_wait(void) {
    emu_copies_wait(N);
}
/* give_way: the other threads of the block run, and other threads of the process. */
void give_way(void);
static inline void flag_put(uint32_t *p, uint32_t v) {
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
static inline uint32_t flag_get(const uint32_t *p) {
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void host_put(uint32_t *p, uint32_t v) {
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}
static inline uint32_t host_get(const uint32_t *p) {
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static inline void dep_wait(void) {}
static inline void dep_launch(void) {}

static inline int emu_lane(void) {
    return static_cast<int>(threadIdx.x % 32);
}
template <class T> static inline T emu_of_lane(T v, int lane) {
    T out;
    memcpy(&out, emu_exchange(&v, sizeof v) + static_cast<size_t>(lane) * sizeof v, sizeof out);
    return out;
}
template <class T> static inline T warp_xor(T v, int lanes) {
    return emu_of_lane(v, emu_lane() ^ lanes);
}
template <class T> static inline T warp_from(T v, int lane) {
    return emu_of_lane(v, lane);
}
template <class T> static inline T warp_up(T v, unsigned lanes) {
    int from = emu_lane() - static_cast<int>(lanes);
    return emu_of_lane(v, from < 0 ? emu_lane() : from);
}

template <class T> static inline T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
static inline float emu_bits_f32(uint32_t u) {
    return f32_of_bits(u);
}
#define __float_as_uint(x) f32_bits(x)
#define __uint_as_float(x) f32_of_bits(x)
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}
#define __ldg(p) (*(p))

float emu_f32_of_f8(uint8_t u);
uint8_t emu_f8_of_f32(float x);

/* ---- the runtime: memory is the heap's, streams do at once what they are asked to ---------------- */

typedef int cudaError_t;
typedef int cudaStream_t;
typedef int cudaEvent_t;
enum { cudaSuccess = 0 };

#endif
