#include "worker/cpu/tile.h"

#include "worker/cpu/simd.h"

/* How far ahead of use a stream is prefetched, in k: with bf16 32 bytes each. */
enum { AHEAD_K = 32 };

/* form: what the compiler knows of a tile. Every loop over rows and panels unrolls, and the accumulators are
 * registers. */
struct form {
    enum dtype t;
    int n_rows, n_panels;
    bool packed; /* x is [k][n_rows]: offsets are constants, which is worth a fifth of the speed */
    bool stream;
    bool next;
};

/* add_product: acc += x * w, fused. Written out because with 15 of 16 registers in use the compiler, left to
 * choose among the three forms of the instruction, keeps the sum in the wrong operand and spills others. */
INLINE void add_product(__m256 *acc, __m256 x, __m256 w) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(*acc) : "x"(x), "x"(w));
}

/* step: one k. prefetch: bytes ahead, 0 for none. */
INLINE void step(struct form f, const struct tile *a, const float *x, const uint8_t *w, __m256 acc[][6][2],
                 size_t prefetch) {
#pragma GCC unroll 4
    for (int p = 0; p < f.n_panels; p++) {
        __m256 lo, hi;
        panel_load(f.t, w + p * a->w_panel, &lo, &hi);
        if (prefetch)
            _mm_prefetch((const char *)w + p * a->w_panel + prefetch, _MM_HINT_T0);
#pragma GCC unroll 6
        for (int r = 0; r < f.n_rows; r++) {
            __m256 v = _mm256_broadcast_ss(f.packed ? x + r : x + (size_t)r * a->x_row);
            add_product(&acc[p][r][0], v, lo);
            add_product(&acc[p][r][1], v, hi);
        }
    }
}

/* body: k in [k0, k1). */
INLINE void body(struct form f, const struct tile *a, uint32_t k0, uint32_t k1, __m256 acc[][6][2],
                 size_t ahead) {
    const size_t e = 16 * dtype_bytes(f.t), x_k = f.packed ? (size_t)f.n_rows : 1;
    const float *x = a->x + k0 * x_k;
    const uint8_t *w = a->w + k0 * e, *next = a->next;
    uint32_t k = k0;
    for (; k + 4 <= k1; k += 4) {
#pragma GCC unroll 4
        for (uint32_t u = 0; u < 4; u++) {
            /* a line of 64 bytes holds two k of a 16-bit type, one of f32 */
            step(f, a, x + u * x_k, w + u * e, acc, f.stream && (u % 2 == 0 || e > 32) ? ahead : 0);
            if (f.next && u % 2 == 1)
                _mm_prefetch((const char *)next + u / 2 * 64, _MM_HINT_T1);
        }
        w += 4 * e;
        x += 4 * x_k;
        next += f.next ? 128 : 0;
    }
    for (; k < k1; k++, w += e, x += x_k)
        step(f, a, x, w, acc, 0);
}

INLINE void run(struct form f, const struct tile *a) {
    __m256 acc[4][6][2];
    float *c = a->c;
#pragma GCC unroll 4
    for (int p = 0; p < f.n_panels; p++)
#pragma GCC unroll 6
        for (int r = 0; r < f.n_rows; r++) {
            float *at = c + (p * f.n_rows + r) * 16;
            acc[p][r][0] = a->more ? _mm256_loadu_ps(at) : _mm256_setzero_ps();
            acc[p][r][1] = a->more ? _mm256_loadu_ps(at + 8) : _mm256_setzero_ps();
        }
    if (f.stream) {
        const size_t ahead = AHEAD_K * 16 * dtype_bytes(f.t);
        uint32_t turn = a->n_k > AHEAD_K ? (a->n_k - AHEAD_K) & ~3u : 0;
        body(f, a, 0, turn, acc, ahead);
        body(f, a, turn, a->n_k, acc, ahead + (size_t)(f.n_panels - 1) * a->w_panel);
    } else {
        body(f, a, 0, a->n_k, acc, 0);
    }
#pragma GCC unroll 4
    for (int p = 0; p < f.n_panels; p++)
#pragma GCC unroll 6
        for (int r = 0; r < f.n_rows; r++) {
            float *at = c + (p * f.n_rows + r) * 16;
            _mm256_storeu_ps(at, acc[p][r][0]);
            _mm256_storeu_ps(at + 8, acc[p][r][1]);
        }
}

/* ROWS: one case of a switch over the number of rows. */
#define ROWS(n)                                                                                              \
    case n:                                                                                                  \
        f.n_rows = n;                                                                                        \
        run(f, a);                                                                                           \
        return

INLINE void run_one(struct form f, uint32_t n_rows, const struct tile *a) {
    switch (n_rows) {
        ROWS(1);
        ROWS(2);
        ROWS(3);
        ROWS(4);
        ROWS(5);
        ROWS(6);
    }
    CHECK(!"1 to 6 rows");
}

INLINE void run_typed(enum dtype t, uint32_t n_rows, const struct tile *a) {
    if (a->x_row > 0)
        run_one((struct form){.t = t, .n_panels = 1}, n_rows, a);
    else if (a->next)
        run_one((struct form){.t = t, .n_panels = 1, .packed = true, .next = true}, n_rows, a);
    else
        run_one((struct form){.t = t, .n_panels = 1, .packed = true}, n_rows, a);
}

void tile_run(enum dtype t, uint32_t n_rows, const struct tile *a) {
    if (t == DT_F32)
        run_typed(DT_F32, n_rows, a);
    else if (t == DT_F16)
        run_typed(DT_F16, n_rows, a);
    else
        run_typed(DT_BF16, n_rows, a);
}

INLINE void stream_typed(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *a) {
    const struct form one = {.t = t, .n_rows = 1, .n_panels = 1, .packed = true, .stream = true};
    struct form f = one;
    if (n_panels == 1) {
        run_one(one, n_rows, a);
    } else if (n_panels == 2 && n_rows == 1) {
        f.n_panels = 2;
        run(f, a);
    } else if (n_panels == 2) {
        CHECK(n_rows == 2);
        f.n_rows = f.n_panels = 2;
        run(f, a);
    } else {
        CHECK(n_panels == 4 && n_rows == 1);
        f.n_panels = 4;
        run(f, a);
    }
}

void tile_stream(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *a) {
    if (t == DT_F32)
        stream_typed(DT_F32, n_rows, n_panels, a);
    else if (t == DT_F16)
        stream_typed(DT_F16, n_rows, n_panels, a);
    else
        stream_typed(DT_BF16, n_rows, n_panels, a);
}
