/* wg.h: products of a warpgroup, wgmma of sm_90a, and how tiles lie in shared memory for it.
 *
 * A tile is a matrix [rows][cols] of 16-bit elements in chunks of BYTES / 2 columns: a chunk has `rows` rows of BYTES
 * bytes, one behind the other, and the 16-byte parts of a row are permuted (swizzled) by its number, so that the same part
 * of 8 neighbouring rows lies in different banks. BYTES is 128 or 64; a tile starts at a multiple of 1024, and rows are
 * a multiple of 8.
 *
 * The layouts and the descriptor's fields: PTX ISA, "Asynchronous warpgroup-level matrix shared memory layout". The
 * same descriptors, taken apart again, are what the emulated device computes with.
 *
 * Products are asynchronous: nothing that wg_mma names may be read or written until wg_wait has waited for its group, and
 * then only behind wg_settled. All 128 threads of the warpgroup call together.
 */
#ifndef WEIR_WORKER_CUDA_WG_H
#define WEIR_WORKER_CUDA_WG_H

#include "worker/cuda/port.h"

/* wg_swizzle: where byte `at` of a chunk, counted without permutation, lies in it. */
template <int BYTES> DEV uint32_t wg_swizzle(uint32_t at) {
    static_assert(BYTES == 128 || BYTES == 64, "the two permutations that are used");
    return at ^ (at >> 7 & (BYTES == 128 ? 7u : 3u)) << 4;
}

/* wg_byte: where element (row, col) of a tile lies, in bytes from its start. */
template <int BYTES> DEV uint32_t wg_byte(uint32_t rows, uint32_t row, uint32_t col) {
    return col / (BYTES / 2) * rows * BYTES + wg_swizzle<BYTES>(row * BYTES + col % (BYTES / 2) * 2);
}

/* wg_descriptor: of an operand that starts at `at`, an address of shared memory. `leading`, `stride`: see below. */
template <int BYTES> DEV uint64_t wg_descriptor(uint32_t at, uint32_t leading, uint32_t stride) {
    return static_cast<uint64_t>(at >> 4 & 0x3FFF) | static_cast<uint64_t>(leading >> 4 & 0x3FFF) << 16 |
           static_cast<uint64_t>(stride >> 4 & 0x3FFF) << 32 | static_cast<uint64_t>(BYTES == 128 ? 1 : 2) << 62;
}

/* wg_by_rows: rows [row0, ...) and columns [k, k + 16) of a tile at `tile`, summed over its columns (queries and keys):
 * `stride` is from 8 rows to the next 8; `leading` is not used. */
template <int BYTES> DEV uint64_t wg_by_rows(uint32_t tile, uint32_t rows, uint32_t row0, uint32_t k) {
    return wg_descriptor<BYTES>(tile + k / (BYTES / 2) * rows * BYTES + row0 * BYTES + k % (BYTES / 2) * 2, 16, 8 * BYTES);
}

/* wg_by_cols: columns [col0, ...), a multiple of a chunk's, and rows [k, k + 16), summed over its rows (values): `leading` is
 * from a chunk to the next, `stride` from 8 rows to the next 8. */
template <int BYTES> DEV uint64_t wg_by_cols(uint32_t tile, uint32_t rows, uint32_t col0, uint32_t k) {
    return wg_descriptor<BYTES>(tile + col0 / (BYTES / 2) * rows * BYTES + k * BYTES, rows * BYTES, 8 * BYTES);
}

constexpr __host__ __device__ bool wg_is_bf16(bf16) {
    return true;
}
constexpr __host__ __device__ bool wg_is_bf16(f16) {
    return false;
}

/* wg_mma: d[64][N] (+)= a b, d as mma leaves it for each warp's 16 rows and every 8 columns. The first: a and b by rows;
 * ADD false: d is overwritten. The second: a as mma takes it, b by columns, and d is added to. wg_begin comes in front of
 * a run of them, wg_commit ends a group, and wg_wait<G> waits until at most G groups are under way. */
#ifdef WEIR_CUDA_EMU
template <int N, bool ADD, class T> DEV void wg_mma(float (*d)[4], uint64_t a, uint64_t b, T) {
    emu_wg_mma(d, N, NULL, a, b, ADD, wg_is_bf16(T()));
}
template <int N, class T> DEV void wg_mma(float (*d)[4], const uint32_t a[4], uint64_t b, T) {
    emu_wg_mma(d, N, a, 0, b, true, wg_is_bf16(T()));
}
DEV void wg_begin(void) {}
DEV void wg_commit(void) {
    emu_wg_commit();
}
template <int G> DEV void wg_wait(void) {
    emu_wg_wait(G);
}
template <int N> DEV void wg_settled(float (*d)[4]) {
    (void)d;
}
DEV void wg_written(void) {}
#else
#define WG_OUT4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WG_NEW4(d, i) "=f"(d[i][0]), "=f"(d[i][1]), "=f"(d[i][2]), "=f"(d[i][3])
#define WG_NEWS_64(d) \
    WG_NEW4(d, 0), WG_NEW4(d, 1), WG_NEW4(d, 2), WG_NEW4(d, 3), WG_NEW4(d, 4), WG_NEW4(d, 5), \
    WG_NEW4(d, 6), WG_NEW4(d, 7)
#define WG_REGS_64 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
    "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define WG_OUTS_64(d) \
    WG_OUT4(d, 0), WG_OUT4(d, 1), WG_OUT4(d, 2), WG_OUT4(d, 3), WG_OUT4(d, 4), WG_OUT4(d, 5), \
    WG_OUT4(d, 6), WG_OUT4(d, 7)
#define WG_REGS_96 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
    "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, " \
    "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}"
#define WG_OUTS_96(d) \
    WG_OUT4(d, 0), WG_OUT4(d, 1), WG_OUT4(d, 2), WG_OUT4(d, 3), WG_OUT4(d, 4), WG_OUT4(d, 5), \
    WG_OUT4(d, 6), WG_OUT4(d, 7), WG_OUT4(d, 8), WG_OUT4(d, 9), WG_OUT4(d, 10), WG_OUT4(d, 11)
#define WG_NEWS_128(d) \
    WG_NEW4(d, 0), WG_NEW4(d, 1), WG_NEW4(d, 2), WG_NEW4(d, 3), WG_NEW4(d, 4), WG_NEW4(d, 5), \
    WG_NEW4(d, 6), WG_NEW4(d, 7), WG_NEW4(d, 8), WG_NEW4(d, 9), WG_NEW4(d, 10), WG_NEW4(d, 11), \
    WG_NEW4(d, 12), WG_NEW4(d, 13), WG_NEW4(d, 14), WG_NEW4(d, 15)
#define WG_REGS_128 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
    "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, " \
    "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
    "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define WG_OUTS_128(d) \
    WG_OUT4(d, 0), WG_OUT4(d, 1), WG_OUT4(d, 2), WG_OUT4(d, 3), WG_OUT4(d, 4), WG_OUT4(d, 5), \
    WG_OUT4(d, 6), WG_OUT4(d, 7), WG_OUT4(d, 8), WG_OUT4(d, 9), WG_OUT4(d, 10), WG_OUT4(d, 11), \
    WG_OUT4(d, 12), WG_OUT4(d, 13), WG_OUT4(d, 14), WG_OUT4(d, 15)
/* The two forms, for a width, the numbers of its operands behind d, and a type's name. */
#define WG_FIRST(n, o0, o1, name)                                                                             \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." name "." name " " WG_REGS_##n ", %" #o0     \
                 ", %" #o1 ", p, 1, 1, 0, 0;\n}\n"                                                             \
                 : WG_NEWS_##n(d)                                                                             \
                 : "l"(a), "l"(b))
#define WG_BOTH(n, o0, o1, name)                                                                              \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." name "." name " " WG_REGS_##n ", %" #o0     \
                 ", %" #o1 ", p, 1, 1, 0, 0;\n}\n"                                                             \
                 : WG_OUTS_##n(d)                                                                             \
                 : "l"(a), "l"(b))
#define WG_LEFT(n, o0, o1, o2, o3, o4, name)                                                                  \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." name "." name " " WG_REGS_##n ", {%" #o0    \
                 ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 ", p, 1, 1, 1;\n}\n"                                 \
                 : WG_OUTS_##n(d)                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
template <int N, bool ADD, class T> DEV void wg_mma(float (*d)[4], uint64_t a, uint64_t b, T) {
    static_assert(N == 64 || N == 128, "the widths that are used");
    constexpr bool bf = wg_is_bf16(T());
    if constexpr (N == 64 && ADD && bf)
        WG_BOTH(64, 32, 33, "bf16");
    else if constexpr (N == 64 && ADD)
        WG_BOTH(64, 32, 33, "f16");
    else if constexpr (N == 64 && bf)
        WG_FIRST(64, 32, 33, "bf16");
    else if constexpr (N == 64)
        WG_FIRST(64, 32, 33, "f16");
    else if constexpr (ADD && bf)
        WG_BOTH(128, 64, 65, "bf16");
    else if constexpr (ADD)
        WG_BOTH(128, 64, 65, "f16");
    else if constexpr (bf)
        WG_FIRST(128, 64, 65, "bf16");
    else
        WG_FIRST(128, 64, 65, "f16");
}
template <int N, class T> DEV void wg_mma(float (*d)[4], const uint32_t a[4], uint64_t b, T) {
    static_assert(N == 64 || N == 96 || N == 128, "the widths that are used");
    constexpr bool bf = wg_is_bf16(T());
    if constexpr (N == 64 && bf)
        WG_LEFT(64, 32, 33, 34, 35, 36, "bf16");
    else if constexpr (N == 64)
        WG_LEFT(64, 32, 33, 34, 35, 36, "f16");
    else if constexpr (N == 96 && bf)
        WG_LEFT(96, 48, 49, 50, 51, 52, "bf16");
    else if constexpr (N == 96)
        WG_LEFT(96, 48, 49, 50, 51, 52, "f16");
    else if constexpr (bf)
        WG_LEFT(128, 64, 65, 66, 67, 68, "bf16");
    else
        WG_LEFT(128, 64, 65, 66, 67, 68, "f16");
}
DEV void wg_begin(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
DEV void wg_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int G> DEV void wg_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(G) : "memory");
}
/* wg_written: what this thread wrote to shared memory is there for products; before the barrier in front of them. */
DEV void wg_written(void) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/* wg_settled: d[N / 8][4] is what the products made of it from here on; keeps the compiler from reading it earlier. */
template <int N> DEV void wg_settled(float (*d)[4]) {
#pragma unroll
    for (int i = 0; i < N / 8; i++)
        asm volatile("" : WG_OUT4(d, i)::"memory");
}
#endif
#endif

#endif
