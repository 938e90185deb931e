/* tile.cu: products on tensor cores, our own: for mixtures of experts, whose rows are gathered, where the order of sums
 * must not depend on the batch, and for fp8. Tiles of 64 x 64 outputs, four warps of 32 x 32, K in steps of 32 elements of
 * 16 bits, or 64 of fp8, two stages. */
#include "worker/cuda/tile.h"

enum { TILE_M = 64, TILE_N = 64, TILE_K = 32, TILE_THREADS = 128, TILE_PITCH = TILE_K + 8 };

/* fetch: a tile of 64 rows of TILE_K columns into shared memory; rows and columns that are not there become 0.
 * row_at(i): row i of the tile in memory, or NULL. any: an address that is there. */
template <class T, class F> DEV void fetch(T *to, F row_at, const T *any, uint32_t k0, uint32_t n_in) {
    for (uint32_t i = threadIdx.x; i < TILE_M * TILE_K / 8; i += TILE_THREADS) {
        uint32_t r = i / (TILE_K / 8), k = i % (TILE_K / 8) * 8;
        const T *from = row_at(r);
        bool there = from && k0 + k < n_in;
        copy16(to + r * TILE_PITCH + k, there ? from + k0 + k : any, there ? 16 : 0);
    }
}

/* multiply: acc += the two tiles' product; a and b as fetch leaves them. Warp w has rows 32 (w / 2), columns
 * 32 (w % 2). */
template <class T> DEV void multiply(float acc[2][4][4], const T *a, const T *bt) {
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = warp / 2 * 32, col0 = warp % 2 * 32;
#pragma unroll
    for (uint32_t k = 0; k < TILE_K; k += 16) {
        uint32_t fa[2][4], fb[2][4];
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) /* matrices: rows 0..7, rows 8..15, and the same of the next 8 columns */
            load_matrix(fa[i], a + (row0 + i * 16 + lane % 16) * TILE_PITCH + k + lane / 16 * 8);
#pragma unroll
        for (uint32_t j = 0; j < 2; j++) /* columns 0..7 at k and k + 8, then columns 8..15 */
            load_matrix(fb[j], bt + (col0 + j * 16 + lane % 8 + lane / 16 * 8) * TILE_PITCH + k + lane / 8 % 2 * 8);
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
#pragma unroll
            for (uint32_t j = 0; j < 4; j++)
                mma(acc[i][j], fa[i], &fb[j / 2][j % 2 * 2], T());
    }
}

/* scaled: acc += part times the factors of its rows and columns for block `at` of K; part becomes 0. */
DEV void scaled(float acc[2][4][4], float part[2][4][4], const struct tile_args &t, uint32_t expert, uint32_t first,
                uint32_t end, uint32_t col0, uint32_t at) {
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++)
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t r = first + warp / 2 * 32 + i * 16 + lane / 4 + h * 8;
            r = r < end ? r : end - 1;
            float x = t.x_scale[static_cast<size_t>(t.from ? t.from[r] / t.from_div : r) * t.n_scales + at];
#pragma unroll
            for (uint32_t j = 0; j < 4; j++)
#pragma unroll
                for (uint32_t e = 2 * h; e < 2 * h + 2; e++) {
                    uint32_t c = col0 + warp % 2 * 32 + j * 8 + lane % 4 * 2 + e % 2;
                    c = c < t.n_out ? c : t.n_out - 1;
                    size_t row = static_cast<size_t>(expert) * t.n_out + c;
                    acc[i][j][e] = fmaf(part[i][j][e], x * t.w_scale[row * t.n_scales + at], acc[i][j][e]);
                    part[i][j][e] = 0;
                }
        }
}

template <class E> struct is_fp8 {
    static const bool yes = false;
};
template <> struct is_fp8<f8x2> {
    static const bool yes = true;
};

/* T: type of y and add. E: of x and w; for f8x2, n_in and block count pairs. */
template <class T, class E> static __global__ void __launch_bounds__(TILE_THREADS) tile_kernel(struct tile_args t) {
    SHARED(E, a, 2 * TILE_M *TILE_PITCH);
    SHARED(E, w, 2 * TILE_N *TILE_PITCH);
    dep_wait();
    uint32_t first = blockIdx.y * TILE_M, end = t.n, expert = 0, col0 = blockIdx.x * TILE_N;
    if (t.starts) { /* blockIdx.y counts tiles of all experts; each begins a new one */
        uint32_t tile = blockIdx.y;
        while (expert < t.n_experts) {
            uint32_t n_tiles = (t.starts[expert + 1] - t.starts[expert] + TILE_M - 1) / TILE_M;
            if (tile < n_tiles)
                break;
            tile -= n_tiles;
            expert++;
        }
        if (expert == t.n_experts)
            return;
        first = t.starts[expert] + tile * TILE_M;
        end = t.starts[expert + 1];
    }
    if (first >= end)
        return;
    const E *x = static_cast<const E *>(t.x);
    const E *weights = static_cast<const E *>(t.w) + static_cast<size_t>(expert) * t.n_out * t.n_in;
    auto x_row = [=](uint32_t r) {
        uint32_t at = first + r;
        if (at >= end)
            return static_cast<const E *>(NULL);
        return x + static_cast<size_t>(t.from ? t.from[at] / t.from_div : at) * t.n_in;
    };
    auto w_row = [=](uint32_t r) {
        return col0 + r < t.n_out ? weights + static_cast<size_t>(col0 + r) * t.n_in : static_cast<const E *>(NULL);
    };
    const bool fp8 = is_fp8<E>::yes;
    float acc[2][4][4] = {}, part[2][4][4] = {}; /* part: fp8's, of one block of K */
    fetch(a, x_row, x, 0, t.n_in);
    fetch(w, w_row, weights, 0, t.n_in);
    copies_commit();
    for (uint32_t k = 0, stage = 0; k < t.n_in; k += TILE_K, stage ^= 1) {
        if (k + TILE_K < t.n_in) {
            fetch(a + (stage ^ 1) * TILE_M * TILE_PITCH, x_row, x, k + TILE_K, t.n_in);
            fetch(w + (stage ^ 1) * TILE_N * TILE_PITCH, w_row, weights, k + TILE_K, t.n_in);
        }
        copies_commit(); /* empty at the end, so that the count below holds */
        copies_wait<1>();
        __syncthreads();
        multiply<E>(fp8 ? part : acc, a + stage * TILE_M * TILE_PITCH, w + stage * TILE_N * TILE_PITCH);
        if (fp8 && ((k + TILE_K) % t.block == 0 || k + TILE_K >= t.n_in))
            scaled(acc, part, t, expert, first, end, col0, k / t.block);
        __syncthreads();
    }
    copies_wait<0>();
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++)
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
#pragma unroll
            for (uint32_t e = 0; e < 4; e++) {
                uint32_t r = first + warp / 2 * 32 + i * 16 + lane / 4 + e / 2 * 8;
                uint32_t c = col0 + warp % 2 * 32 + j * 8 + lane % 4 * 2 + e % 2;
                if (r >= end || c >= t.n_out)
                    continue;
                size_t at = static_cast<size_t>(r) * t.n_out + c;
                float v = acc[i][j][e] + (t.add ? to_f32(static_cast<const T *>(t.add)[at]) : 0.0f);
                if (t.y_f32)
                    static_cast<float *>(t.y)[at] = v;
                else
                    from_f32(&static_cast<T *>(t.y)[at], v);
            }
}

void tile_run(struct be *b, const struct tile_args *t) {
    dim3 grid(blocks_for(t->n_out, TILE_N), blocks_for(t->n, TILE_M) + (t->starts ? t->n_experts : 0));
    struct tile_args pairs = *t;
    pairs.n_in /= 2;
    pairs.block /= 2;
    CHECK(t->n > 0 && t->n_in % (t->w_scale ? 16 : 8) == 0);
    CHECK(!t->w_scale || t->block == t->n_in || t->block % (2 * TILE_K) == 0);
    if (t->w_scale && b->act == DT_BF16)
        rt_run(b->rt, tile_kernel<bf16, f8x2>, grid, dim3(TILE_THREADS), 0, pairs);
    else if (t->w_scale)
        rt_run(b->rt, tile_kernel<f16, f8x2>, grid, dim3(TILE_THREADS), 0, pairs);
    else if (b->act == DT_BF16)
        rt_run(b->rt, tile_kernel<bf16, bf16>, grid, dim3(TILE_THREADS), 0, *t);
    else
        rt_run(b->rt, tile_kernel<f16, f16>, grid, dim3(TILE_THREADS), 0, *t);
}

bool tile_rows(struct be *b, void *y, bool y_f32, const struct be_w *w, const void *x, const void *add, uint32_t n) {
    if (b->act == DT_F32 || w->dtype != b->act || w->n_in % 8 != 0)
        return false;
    struct tile_args t = {};
    t.y = y;
    t.y_f32 = y_f32;
    t.w = w->data;
    t.x = x;
    t.add = add;
    t.n = n;
    t.n_in = w->n_in;
    t.n_out = w->n_out;
    tile_run(b, &t);
    return true;
}
