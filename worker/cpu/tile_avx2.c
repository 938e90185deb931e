#include "worker/cpu/tile.h"

#include "worker/cpu/simd.h"

/* ahead_k: how far ahead of use a panel is prefetched, in k: with bf16 32 bytes each. Measured: four streams
 * at once keep the processor's own prefetchers busy and want little, one stream with much arithmetic wants
 * more. */
INLINE uint32_t ahead_k(int n_panels) {
    return n_panels == 4 ? 8 : n_panels == 2 ? 32 : 64;
}

/* form: what the compiler knows of a tile. Every loop over rows and panels unrolls, and the accumulators are
 * registers. */
struct form {
    enum dtype t;
    int n_rows, n_panels;
    enum { PACKED, PREFETCHING, STREAM, ROWS } kind;
};

/* step: one k. ahead: bytes to what is prefetched, 0 for nothing. */
INLINE void step(struct form f, const struct tile *a, const float *x, const uint8_t *w, __m256 acc[][6][2],
                 size_t ahead) {
#pragma GCC unroll 4
    for (int p = 0; p < f.n_panels; p++) {
        __m256 lo, hi;
        panel_load(f.t, w + p * a->w_panel, &lo, &hi);
        if (ahead)
            _mm_prefetch((const char *)w + p * a->w_panel + ahead, _MM_HINT_T0);
#pragma GCC unroll 6
        for (int r = 0; r < f.n_rows; r++) {
            __m256 v = _mm256_broadcast_ss(f.kind == ROWS ? x + 16 * r : x + r);
            acc[p][r][0] = _mm256_fmadd_ps(v, lo, acc[p][r][0]);
            acc[p][r][1] = _mm256_fmadd_ps(v, hi, acc[p][r][1]);
        }
    }
}

/* body: k in [k0, k1). A line of 64 bytes holds two k of a 16-bit type, one of f32. */
INLINE void body(struct form f, const struct tile *a, uint32_t k0, uint32_t k1, __m256 acc[][6][2],
                 size_t ahead) {
    const size_t e = 16 * dtype_bytes(f.t), x_k = f.kind == ROWS ? 1 : (size_t)f.n_rows;
    const float *x = a->x + k0 * x_k;
    const uint8_t *w = a->w + k0 * e, *next = a->next;
    uint32_t k = k0;
    for (; k + 2 <= k1; k += 2) {
        step(f, a, x, w, acc, ahead);
        if (f.kind == PREFETCHING) {
            _mm_prefetch((const char *)next, _MM_HINT_T1);
            next += 64;
        }
        step(f, a, x + x_k, w + e, acc, e > 32 ? ahead : 0);
        w += 2 * e;
        x += 2 * x_k;
    }
    if (k < k1)
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
    if (f.kind == STREAM) {
        const uint32_t near = ahead_k(f.n_panels);
        const size_t ahead = near * 16 * dtype_bytes(f.t);
        uint32_t turn = a->n_k > near ? (a->n_k - near) & ~1u : 0;
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
#define TILE(t, kind, rows, panels)                                                                         \
    static __attribute__((noinline)) void tile_##t##_##kind##_##rows##_##panels(const struct tile *a) {     \
        run((struct form){DT_##t, rows, panels, kind}, a);                                                  \
    }
#define TILES_1(t, kind)                                                                                    \
    TILE(t, kind, 1, 1) TILE(t, kind, 2, 1) TILE(t, kind, 3, 1)                                             \
    TILE(t, kind, 4, 1) TILE(t, kind, 5, 1) TILE(t, kind, 6, 1)
#define PANELS(t, rows)                                                                                     \
    static __attribute__((noinline)) void rows_##t##_##rows(const struct tile *a, uint32_t n_panels) {      \
        run_panels((struct form){DT_##t, rows, 1, ROWS}, a, n_panels);                                      \
    }
#define TILES(t)                                                                                            \
    PANELS(t, 1) PANELS(t, 2) PANELS(t, 3) PANELS(t, 4) PANELS(t, 5) PANELS(t, 6)                           \
    TILES_1(t, PACKED) TILES_1(t, PREFETCHING) TILES_1(t, STREAM)                          \
    TILE(t, STREAM, 1, 2) TILE(t, STREAM, 1, 4) TILE(t, STREAM, 2, 2)
TILES(F32)
TILES(F16)
TILES(BF16)

#define NAMES(t, kind)                                                                                      \
    {tile_##t##_##kind##_1_1, tile_##t##_##kind##_2_1, tile_##t##_##kind##_3_1,                             \
     tile_##t##_##kind##_4_1, tile_##t##_##kind##_5_1, tile_##t##_##kind##_6_1}
#define ROWS_OF(t) {rows_##t##_1, rows_##t##_2, rows_##t##_3, rows_##t##_4, rows_##t##_5, rows_##t##_6}
#define ALL(t) {NAMES(t, PACKED), NAMES(t, PREFETCHING), NAMES(t, STREAM)}
// clang-format on

/* type_index: f32, f16, bf16. */
static int type_index(enum dtype t) {
    return t == DT_F32 ? 0 : t == DT_F16 ? 1 : 2;
}

static tile_fn *const one_panel[3][3][TILE_ROWS] = {ALL(F32), ALL(F16), ALL(BF16)};

void tile_run(enum dtype t, uint32_t n_rows, const struct tile *a) {
    CHECK(n_rows >= 1 && n_rows <= TILE_ROWS);
    one_panel[type_index(t)][a->next ? PREFETCHING : PACKED][n_rows - 1](a);
}

void tile_rows(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *a) {
    static rows_fn *const rows[3][TILE_ROWS] = {ROWS_OF(F32), ROWS_OF(F16), ROWS_OF(BF16)};
    CHECK(n_rows >= 1 && n_rows <= TILE_ROWS && a->n_k <= 16);
    rows[type_index(t)][n_rows - 1](a, n_panels);
}

void tile_stream(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *a) {
    static tile_fn *const more[3][3] = {
        {tile_F32_STREAM_1_2, tile_F32_STREAM_1_4, tile_F32_STREAM_2_2},
        {tile_F16_STREAM_1_2, tile_F16_STREAM_1_4, tile_F16_STREAM_2_2},
        {tile_BF16_STREAM_1_2, tile_BF16_STREAM_1_4, tile_BF16_STREAM_2_2},
    };
    CHECK(n_rows >= 1 && n_rows <= TILE_ROWS && (n_panels == 1 || n_panels <= tile_panels(n_rows)));
    if (n_panels == 1)
        one_panel[type_index(t)][STREAM][n_rows - 1](a);
    else
        more[type_index(t)][n_rows == 2 ? 2 : n_panels / 4](a);
}
