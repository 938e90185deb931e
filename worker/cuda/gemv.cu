/* gemv.cu: products of a few rows, bound by reading the weights.
 *
 * A warp has ROWS output columns (of a gated weight, ROWS / 2 of gate and the same of up), so what it reads of x, out
 * of the L1 cache, serves all of them. Loads of weights are 16 bytes a lane, UNROLL of them in flight for each column,
 * and the first ones start before the kernel in front has ended. */
#include "worker/cuda/product.h"

enum { GEMV_WARPS = 4 };

struct gemv_args {
    const void *w;
    const float *scale; /* fp8 */
    uint32_t scale_block, n_scales;
    const void *x;
    uint32_t n_in, n_rows, n_cols; /* n_cols: of y */
    struct tail tail;
};

/* weights: of one column and one step of a lane. */
template <class W> DEV vec<W> weights_at(const W *row, uint32_t k, uint32_t n_in) {
    vec<W> v = {};
    if (k < n_in)
        v = vec_load(row + k);
    return v;
}

/* row_of: row r of a warp's ROWS, of the weight; beyond its end the last one, whose sum is not used. */
template <int ROWS> DEV uint32_t row_of(const struct gemv_args &a, uint32_t first, int r) {
    uint32_t col = a.tail.gated ? first + static_cast<uint32_t>(r) / 2 : first + static_cast<uint32_t>(r);
    col = col < a.n_cols ? col : a.n_cols - 1;
    return a.tail.gated && r % 2 ? a.n_cols + col : col;
}

template <class T, class W, int M, int ROWS> static __global__ void gemv_kernel(struct gemv_args a) {
    const int V = vec<W>::n, UNROLL = V > 8 ? 2 : 4; /* 16 numbers of a column need twice the registers of 8 */
    const uint32_t STEP = 32 * V;
    uint32_t lane = threadIdx.x % 32, warp = blockIdx.x * GEMV_WARPS + threadIdx.x / 32;
    uint32_t first = warp * static_cast<uint32_t>(a.tail.gated ? ROWS / 2 : ROWS);
    bool live = first < a.n_cols;
    const W *row[ROWS];
    float acc[ROWS][M];
    vec<W> next[ROWS][UNROLL];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        row[r] = static_cast<const W *>(a.w) + static_cast<size_t>(row_of<ROWS>(a, live ? first : 0, r)) * a.n_in;
#pragma unroll
        for (int m = 0; m < M; m++)
            acc[r][m] = 0;
#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            next[r][u] = weights_at(row[r], static_cast<uint32_t>(u) * STEP + lane * V, live ? a.n_in : 0);
    }
    dep_wait();
    if (!live) /* a whole warp */
        return;
    for (uint32_t k0 = lane * V; k0 - lane * V < a.n_in; k0 += UNROLL * STEP) {
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            uint32_t k = k0 + static_cast<uint32_t>(u) * STEP;
            vec<W> now[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                now[r] = next[r][u];
                next[r][u] = weights_at(row[r], k + UNROLL * STEP, a.n_in);
            }
            if (k >= a.n_in)
                continue;
#pragma unroll
            for (int m = 0; m < M; m++) {
                float x[V];
                const T *xs = static_cast<const T *>(a.x) +
                              static_cast<size_t>(m < static_cast<int>(a.n_rows) ? m : 0) * a.n_in + k;
#pragma unroll
                for (int i = 0; i < V; i += vec<T>::n) {
                    vec<T> some = vec_load(xs + i);
#pragma unroll
                    for (int j = 0; j < vec<T>::n; j++)
                        x[i + j] = to_f32(some.e[j]);
                }
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    float s = sizeof(W) == 1 ? 0.0f : acc[r][m];
#pragma unroll
                    for (int i = 0; i < V; i++)
                        s = fmaf(to_f32(now[r].e[i]), x[i], s);
                    if (sizeof(W) == 1) {
                        size_t at = static_cast<size_t>(row_of<ROWS>(a, first, r)) * a.n_scales + k / a.scale_block;
                        s = fmaf(a.scale[at], s, acc[r][m]);
                    }
                    acc[r][m] = s;
                }
            }
        }
    }
    dep_launch();
    float mine = 0, up = 0; /* lane r * M + m finishes output r of row m */
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int m = 0; m < M; m++) {
            float s = warp_sum(acc[r][m]);
            int out = a.tail.gated ? r / 2 : r;
            if (static_cast<int>(lane) == out * M + m) {
                if (a.tail.gated && r % 2)
                    up = s;
                else
                    mine = s;
            }
        }
    uint32_t outs = static_cast<uint32_t>(a.tail.gated ? ROWS / 2 : ROWS), m = lane % M, col = first + lane / M;
    if (lane / M >= outs || m >= a.n_rows || col >= a.n_cols)
        return;
    float v = act_apply(a.tail.act, mine + (a.tail.bias ? a.tail.bias[col] : 0.0f));
    if (a.tail.gated)
        v *= up + (a.tail.bias ? a.tail.bias[a.n_cols + col] : 0.0f);
    size_t at = static_cast<size_t>(m) * a.n_cols + col;
    if (a.tail.add)
        v += to_f32(static_cast<const T *>(a.tail.add)[at]);
    from_f32(&static_cast<T *>(a.tail.y)[at], v);
}

template <class T, class W, int M, int ROWS> static void gemv_launch(struct be *b, const struct gemv_args *a) {
    uint32_t outs = a->tail.gated ? ROWS / 2 : ROWS;
    rt_run(b->rt, gemv_kernel<T, W, M, ROWS>, dim3(blocks_for(a->n_cols, GEMV_WARPS * outs)), dim3(GEMV_WARPS * 32), 0,
           *a);
}

/* Numbers of fp8 become floats in registers, 16 of a column at a time: two columns are what there is room for. */
template <class T, class W> static void gemv_sized(struct be *b, const struct gemv_args *a) {
    const int MANY = sizeof(W) == 1 ? 2 : 4;
    if (a->n_rows == 1)
        gemv_launch<T, W, 1, 2>(b, a);
    else if (a->n_rows == 2)
        gemv_launch<T, W, 2, 2>(b, a);
    else if (a->n_rows <= 4)
        gemv_launch<T, W, 4, MANY>(b, a);
    else
        gemv_launch<T, W, 8, MANY>(b, a);
}

bool gemv_rows(struct be *b, const struct be_w *w, const void *x, uint32_t n_rows, const struct tail *t) {
    if (b->act == DT_F32 || n_rows == 0 || n_rows > GEMV_ROWS || w->n_in % 16 != 0 || w->n_experts != 1)
        return false;
    struct gemv_args a = {};
    a.w = w->data;
    a.scale = w->scale;
    a.scale_block = w->scale_block;
    a.n_scales = w->n_scales;
    a.x = x;
    a.n_in = w->n_in;
    a.n_rows = n_rows;
    a.n_cols = t->gated ? w->n_out / 2 : w->n_out;
    a.tail = *t;
    bool fp8 = w->dtype == DT_F8E4M3;
    if (b->act == DT_BF16)
        fp8 ? gemv_sized<bf16, f8>(b, &a) : gemv_sized<bf16, bf16>(b, &a);
    else
        fp8 ? gemv_sized<f16, f8>(b, &a) : gemv_sized<f16, f16>(b, &a);
    return true;
}
