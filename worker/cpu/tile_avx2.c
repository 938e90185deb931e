#include "worker/cpu/tile.h"

#include "worker/cpu/simd.h"

/* Loops over rows and panels unroll, and the accumulators are registers. Under a sanitizer, which checks each
 * access, they stay loops of one function, lest the compiler take a minute for this file. */
#define PRAGMA(x) _Pragma(#x)
#ifdef WEIR_SANITIZE
#define UNROLL(n) PRAGMA(GCC unroll 1)
#define SPECIALIZED static __attribute__((noinline))
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#define SPECIALIZED INLINE
#endif

/* How far ahead of use tile_stream prefetches each of its panels, in k. Measured: four streams keep the
 * processor's own prefetchers busy and want little. */
enum { STREAM_AHEAD_K = 8 };

/* form: what the compiler knows of a tile. */
struct form {
    enum dtype t;
    int n_rows, n_panels;
    enum { PLAIN, PACKED, ROWS, STREAM } kind;
};

/* step: one k. */
INLINE void step(struct form f, const struct tile *a, const float *x, const uint8_t *w, __m256 acc[][6][2]) {
    UNROLL(4)
    for (int p = 0; p < f.n_panels; p++) {
        __m256 lo, hi;
        panel_load(f.t, w + p * a->w_panel, &lo, &hi);
        UNROLL(6)
        for (int r = 0; r < f.n_rows; r++) {
            __m256 v = _mm256_broadcast_ss(f.kind == ROWS ? x + 16 * r : x + r);
            acc[p][r][0] = _mm256_fmadd_ps(v, lo, acc[p][r][0]);
            acc[p][r][1] = _mm256_fmadd_ps(v, hi, acc[p][r][1]);
        }
    }
}

/* pair: two k, and the prefetch of as many bytes as they take: one line of 64 for a 16-bit type, two for f32.
 */
INLINE void pair(struct form f, const struct tile *a, const float *x, const uint8_t *w, const uint8_t *next,
                 __m256 acc[][6][2]) {
    const size_t e = 16 * dtype_bytes(f.t), x_k = f.kind == ROWS ? 1 : (size_t)f.n_rows;
    step(f, a, x, w, acc);
    for (size_t line = 0; f.kind == PACKED && line < 2 * e; line += 64)
        _mm_prefetch((const char *)next + line, _MM_HINT_T0);
    if (f.kind == STREAM) {
        UNROLL(4)
        for (int p = 0; p < f.n_panels; p++)
            for (size_t line = 0; line < 2 * e; line += 64)
                _mm_prefetch((const char *)w + p * a->w_panel + STREAM_AHEAD_K * e + line, _MM_HINT_T0);
    }
    step(f, a, x + x_k, w + e, acc);
}

/* body: all k. Two k a turn: longer turns were slower. */
INLINE void body(struct form f, const struct tile *a, __m256 acc[][6][2]) {
    const size_t e = 16 * dtype_bytes(f.t), x_k = f.kind == ROWS ? 1 : (size_t)f.n_rows;
    const float *x = a->x;
    const uint8_t *w = a->w, *next = f.kind == PACKED ? a->next : a->w;
    uint32_t k = 0;
    while (k + 8 <= a->n_k) {
        UNROLL(1)
        for (const uint32_t end = k + 8; k < end; k += 2, x += 2 * x_k, w += 2 * e) {
            pair(f, a, x, w, next, acc);
            next += f.kind == PACKED ? a->next_near : 0;
        }
        next += f.kind == PACKED ? a->next_far : 0;
    }
    UNROLL(1)
    for (; k < a->n_k; k++, x += x_k, w += e)
        step(f, a, x, w, acc);
}

SPECIALIZED void run(struct form f, const struct tile *a) {
    __m256 acc[4][6][2];
    UNROLL(4)
    for (int p = 0; p < f.n_panels; p++)
        UNROLL(6)
    for (int r = 0; r < f.n_rows; r++) {
        float *at = a->c + (p * f.n_rows + r) * 16;
        acc[p][r][0] = a->more ? _mm256_loadu_ps(at) : _mm256_setzero_ps();
        acc[p][r][1] = a->more ? _mm256_loadu_ps(at + 8) : _mm256_setzero_ps();
    }
    body(f, a, acc);
    UNROLL(4)
    for (int p = 0; p < f.n_panels; p++)
        UNROLL(6)
    for (int r = 0; r < f.n_rows; r++) {
        float *at = a->c + (p * f.n_rows + r) * 16;
        _mm256_storeu_ps(at, acc[p][r][0]);
        _mm256_storeu_ps(at + 8, acc[p][r][1]);
    }
}

INLINE void run_panels(struct form f, const struct tile *a, uint32_t n_panels) {
    struct tile one = *a;
    for (uint32_t p = 0; p < n_panels; p++) {
        run(f, &one);
        one.w += a->w_panel;
        one.c += a->c_panel;
    }
}

/* Each form is a function of its own: the compiler then finds registers for all of it. */
typedef void tile_fn(const struct tile *a);
typedef void rows_fn(const struct tile *a, uint32_t n_panels);
// clang-format off
#define FORM static __attribute__((noinline)) void
#define TILE(t, rows)                                                                                       \
    FORM plain_##t##_##rows(const struct tile *a) { run((struct form){DT_##t, rows, 1, PLAIN}, a); }        \
    FORM tile_##t##_##rows(const struct tile *a) { run((struct form){DT_##t, rows, 1, PACKED}, a); }        \
    FORM rows_##t##_##rows(const struct tile *a, uint32_t n_panels) {                                       \
        run_panels((struct form){DT_##t, rows, 1, ROWS}, a, n_panels);                                      \
    }
#define TILES(t)                                                                                            \
    TILE(t, 1) TILE(t, 2) TILE(t, 3) TILE(t, 4) TILE(t, 5) TILE(t, 6)                                       \
    FORM stream_##t(const struct tile *a) { run((struct form){DT_##t, 1, 4, STREAM}, a); }
TILES(F32)
TILES(F16)
TILES(BF16)
#define ALL(name) {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6}
// clang-format on

/* type_index: f32, f16, bf16. */
static int type_index(enum dtype t) {
    return t == DT_F32 ? 0 : t == DT_F16 ? 1 : 2;
}

void tile_run(enum dtype t, uint32_t n_rows, const struct tile *a) {
    static tile_fn *const fetching[3][TILE_ROWS] = {ALL(tile_F32), ALL(tile_F16), ALL(tile_BF16)};
    static tile_fn *const plain[3][TILE_ROWS] = {ALL(plain_F32), ALL(plain_F16), ALL(plain_BF16)};
    CHECK(n_rows >= 1 && n_rows <= TILE_ROWS);
    (a->next ? fetching : plain)[type_index(t)][n_rows - 1](a);
}

void tile_rows(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *a) {
    static rows_fn *const forms[3][TILE_ROWS] = {ALL(rows_F32), ALL(rows_F16), ALL(rows_BF16)};
    CHECK(n_rows >= 1 && n_rows <= TILE_ROWS && a->n_k <= 16);
    forms[type_index(t)][n_rows - 1](a, n_panels);
}

void tile_stream(enum dtype t, const struct tile *a) {
    static tile_fn *const forms[3] = {stream_F32, stream_F16, stream_BF16};
    forms[type_index(t)](a);
}
