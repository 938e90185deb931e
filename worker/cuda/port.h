/* port.h: what a kernel may use of the device, in one place.
 *
 * Kernels are CUDA C++. The same files also compile as plain C++ for a processor (WEIR_CUDA_EMU is then the
 * header that stands in for CUDA's), where every thread of a block is a fiber and collectives are exchanges between them: tests/cuda.
 * So indices, bounds and synchronisation are tested, under ASan too, on machines without a GPU; speed is not.
 *
 * The rules that make this work: no <<<>>>, but rt_run of rt.h; block sizes are multiples of 32; collectives
 * of a warp are called by all its 32 lanes; shared memory is declared by SHARED or SHARED_DYN.
 */
#ifndef WEIR_WORKER_CUDA_PORT_H
#define WEIR_WORKER_CUDA_PORT_H

#ifdef WEIR_CUDA_EMU
#include WEIR_CUDA_EMU
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define DEV static __device__ __forceinline__
/* IN_PLACE: a kernel's struct that is read where the launch put it, whatever index its arrays are read at. */
#define IN_PLACE const __grid_constant__
#define SHARED(type, name, n) __shared__ __align__(16) type name[n]
/* SHARED_DYN: the launch's dynamic shared memory. One name for all kernels, since its type is its own. */
#define SHARED_DYN(type, name)                                                                               \
    extern __shared__ __align__(128) unsigned char port_dynamic_[];                                          \
    type *name = reinterpret_cast<type *>(port_dynamic_)

/* dep_wait: everything before it may overlap the end of the kernel in front (programmatic dependent launch), so it
 * may only touch weights. Every kernel calls it, in every thread, before anything else is read or written. */
DEV void dep_wait(void) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* dep_launch: the kernel behind may be started as far as its own dep_wait. */
DEV void dep_launch(void) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

template <class T> DEV T warp_xor(T v, int lanes) {
    return __shfl_xor_sync(0xFFFFFFFFu, v, lanes);
}
template <class T> DEV T warp_from(T v, int lane) {
    return __shfl_sync(0xFFFFFFFFu, v, lane);
}
template <class T> DEV T warp_up(T v, unsigned lanes) {
    return __shfl_up_sync(0xFFFFFFFFu, v, lanes);
}
DEV void warp_sync(void) {
    __syncwarp();
}

/* Words that other devices and the host see: flag_put makes everything that the block wrote before (behind a
 * __syncthreads) visible to whoever gets the value by flag_get. host_put, host_get: of memory of the host, without
 * order. give_way: between two looks at a word that somebody else writes. */
DEV void flag_put(uint32_t *p, uint32_t v) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
DEV uint32_t flag_get(const uint32_t *p) {
    uint32_t v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
DEV void host_put(uint32_t *p, uint32_t v) {
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
DEV uint32_t host_get(const uint32_t *p) {
    uint32_t v;
    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
DEV void give_way(void) {
    __nanosleep(32);
}

/* shared_at: an address of shared memory, as descriptors have it. */
DEV uint32_t shared_at(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/* copy16: 16 bytes from global to shared memory behind the thread's back; n_bytes less than 16 are filled up with
 * zeros. copies_commit ends a group; copies_wait<N> waits until at most N groups are on their way. */
DEV void copy16(void *shared, const void *global, int n_bytes) {
    uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(n_bytes) : "memory");
}
DEV void copies_commit(void) {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> DEV void copies_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* load_matrix: four 8 x 8 matrices of 16-bit elements from shared memory; lane l gives the address of row l % 8 of
 * matrix l / 8, and gets elements 2 (l % 4) and the next of row l / 4 of each. Transposed: of column l / 4. */
DEV void load_matrix(uint32_t r[4], const void *row) {
    uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEV void load_matrix_t(uint32_t r[4], const void *row) {
    uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
#endif

extern "C" {
#include "worker/backend.h"
}

/* ---- element types ----------------------------------------------------------------------------- */

/* Stored types are structs of their bits, so that no arithmetic happens in them by accident. */
struct bf16 {
    uint16_t u;
};
struct f16 {
    uint16_t u;
};
struct f8 { /* e4m3, no infinities */
    uint8_t u;
};

DEV float to_f32(float x) {
    return x;
}
#ifdef WEIR_CUDA_EMU
DEV float to_f32(bf16 x) {
    return f32_of_bf16(x.u);
}
DEV float to_f32(f16 x) {
    return f32_of_f16(x.u);
}
DEV float to_f32(f8 x) {
    return emu_f32_of_f8(x.u);
}
DEV void from_f32(bf16 *d, float x) {
    d->u = bf16_of_f32(x);
}
DEV void from_f32(f16 *d, float x) {
    d->u = f16_of_f32(x);
}
DEV void from_f32(f8 *d, float x) {
    d->u = emu_f8_of_f32(x);
}
#else
DEV float to_f32(bf16 x) {
    return __uint_as_float(static_cast<uint32_t>(x.u) << 16);
}
DEV float to_f32(f16 x) {
    return __half2float(__ushort_as_half(x.u));
}
DEV float to_f32(f8 x) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.u, __NV_E4M3)));
}
DEV void from_f32(bf16 *d, float x) {
    d->u = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
DEV void from_f32(f16 *d, float x) {
    d->u = __half_as_ushort(__float2half_rn(x));
}
DEV void from_f32(f8 *d, float x) { /* what is too large becomes the largest */
    d->u = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}
#endif
DEV void from_f32(float *d, float x) {
    *d = x;
}
/* load_as, store_as: element i of an array whose type is known when it runs. */
DEV float load_as(const void *p, enum dtype t, uint64_t i) {
    switch (t) {
    case DT_F32:
        return static_cast<const float *>(p)[i];
    case DT_F16:
        return to_f32(static_cast<const f16 *>(p)[i]);
    case DT_F8E4M3:
        return to_f32(static_cast<const f8 *>(p)[i]);
    default:
        return to_f32(static_cast<const bf16 *>(p)[i]);
    }
}
DEV void store_as(void *p, enum dtype t, uint64_t i, float x) {
    switch (t) {
    case DT_F32:
        static_cast<float *>(p)[i] = x;
        break;
    case DT_F16:
        from_f32(&static_cast<f16 *>(p)[i], x);
        break;
    case DT_F8E4M3:
        from_f32(&static_cast<f8 *>(p)[i], x);
        break;
    default:
        from_f32(&static_cast<bf16 *>(p)[i], x);
    }
}
#ifdef WEIR_CUDA_EMU
DEV void move16(void *to, const void *from) {
    CHECK((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 == 0);
    memcpy(to, from, 16);
}
#else
DEV void move16(void *to, const void *from) {
    *static_cast<uint4 *>(to) = *static_cast<const uint4 *>(from);
}
#endif
/* vec: 16 bytes of elements, moved at once. The address must be a multiple of 16. */
template <class T> struct alignas(16) vec {
    static const int n = 16 / sizeof(T);
    T e[16 / sizeof(T)];
};
template <class T> DEV vec<T> vec_load(const T *p) {
    vec<T> v;
    move16(&v, p);
    return v;
}
template <class T> DEV void vec_store(T *p, const vec<T> &v) {
    move16(p, &v);
}

/* ---- products of small tiles ------------------------------------------------------------------- */

/* mma: d[16][8] += a[16][16] b[16][8], in f32. Lane l = 4 g + t holds, as pairs of 16-bit elements, a[g][2t..],
 * a[g + 8][2t..], a[g][2t + 8..], a[g + 8][2t + 8..]; b[2t..][g], b[2t + 8..][g]; and of d: [g][2t], [g][2t + 1],
 * [g + 8][2t], [g + 8][2t + 1]. */
#ifdef WEIR_CUDA_EMU
DEV void mma(float d[4], const uint32_t a[4], const uint32_t b[2], bf16) {
    emu_mma(d, a, b, true);
}
DEV void mma(float d[4], const uint32_t a[4], const uint32_t b[2], f16) {
    emu_mma(d, a, b, false);
}
#else
DEV void mma(float d[4], const uint32_t a[4], const uint32_t b[2], bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEV void mma(float d[4], const uint32_t a[4], const uint32_t b[2], f16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

/* f8x2: two neighbouring elements of a row, as tiles of 16-bit elements hold them: mma's lanes then have as bytes
 * a[g][4t..], a[g + 8][4t..], a[g][4t + 16..] and so on, of d[16][8] += a[16][32] b[32][8]. From sm_89 on. */
struct f8x2 {
    uint16_t u;
};
#ifdef WEIR_CUDA_EMU
DEV void mma(float d[4], const uint32_t a[4], const uint32_t b[2], f8x2) {
    emu_mma_f8(d, a, b);
}
#else
DEV void mma(float d[4], const uint32_t a[4], const uint32_t b[2], f8x2) {
#if __CUDA_ARCH__ >= 890
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    (void)d, (void)a, (void)b; /* the host never asks for it here */
    __trap();
#endif
}
#endif

/* pack2: two floats as a pair of 16-bit elements, the first in the low half. */
template <class T> DEV uint32_t pack2(float lo, float hi) {
    T a, b;
    from_f32(&a, lo);
    from_f32(&b, hi);
    return static_cast<uint32_t>(a.u) | static_cast<uint32_t>(b.u) << 16;
}

/* ---- sums of a warp and of a block ------------------------------------------------------------- */

template <class T> DEV T warp_sum(T v) {
    for (int lanes = 16; lanes; lanes >>= 1)
        v += warp_xor(v, lanes);
    return v;
}
DEV float warp_max(float v) {
    for (int lanes = 16; lanes; lanes >>= 1)
        v = fmaxf(v, warp_xor(v, lanes));
    return v;
}

/* block_sum: of one value a thread, to all threads. room: [32] shared, free again after the call. */
template <class T> DEV T block_sum(T v, T *room) {
    int n_warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32,
        lane = static_cast<int>(threadIdx.x) % 32;
    v = warp_sum(v);
    if (lane == 0)
        room[warp] = v;
    __syncthreads();
    v = warp_sum(lane < n_warps ? room[lane] : T(0));
    __syncthreads();
    return v;
}

#endif
