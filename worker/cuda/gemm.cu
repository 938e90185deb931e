/* gemm.cu: op_gemm in steps: a norm in front, the product, the sum over ranks, the tail, the rotation. */
#include "worker/cuda/group.h"
#include "worker/cuda/tile.h"

/* ---- one warp an output ------------------------------------------------------------------------ */

enum { PLAIN_WARPS = 8 };

struct plain_args {
    void *y;
    bool y_f32;
    const void *w, *x, *add;
    const float *scale;
    uint32_t scale_block, n_scales, n, n_in, n_out;
};

template <class T, class W> static __global__ void plain_kernel(struct plain_args a) {
    dep_wait();
    uint32_t lane = threadIdx.x % 32, c = blockIdx.x * PLAIN_WARPS + threadIdx.x / 32;
    if (c >= a.n_out)
        return;
    const W *w = static_cast<const W *>(a.w) + static_cast<size_t>(c) * a.n_in;
    for (uint32_t r = blockIdx.y; r < a.n; r += gridDim.y) {
        const T *x = static_cast<const T *>(a.x) + static_cast<size_t>(r) * a.n_in;
        float s = 0;
        for (uint32_t k = lane; k < a.n_in; k += 32) {
            float v = to_f32(w[k]);
            if (a.scale)
                v *= a.scale[static_cast<size_t>(c) * a.n_scales + k / a.scale_block];
            s = fmaf(v, to_f32(x[k]), s);
        }
        s = warp_sum(s);
        size_t at = static_cast<size_t>(r) * a.n_out + c;
        if (a.add)
            s += to_f32(static_cast<const T *>(a.add)[at]);
        if (lane == 0 && a.y_f32)
            static_cast<float *>(a.y)[at] = s;
        else if (lane == 0)
            from_f32(&static_cast<T *>(a.y)[at], s);
    }
}

template <class T> static void plain_typed(struct be *b, const struct plain_args *a) {
    dim3 grid(blocks_for(a->n_out, PLAIN_WARPS), MIN(a->n, 65535u));
    if (a->scale)
        rt_run(b->rt, plain_kernel<T, f8>, grid, dim3(PLAIN_WARPS * 32), 0, *a);
    else
        rt_run(b->rt, plain_kernel<T, T>, grid, dim3(PLAIN_WARPS * 32), 0, *a);
}

void plain_rows(struct be *b, void *y, bool y_f32, const struct be_w *w, const void *x, const void *add, uint32_t n) {
    struct plain_args a = {};
    a.y = y;
    a.y_f32 = y_f32;
    a.w = w->data;
    a.x = x;
    a.add = add;
    a.scale = w->scale;
    a.scale_block = w->scale_block;
    a.n_scales = w->n_scales;
    a.n = n;
    a.n_in = w->n_in;
    a.n_out = w->n_out;
    if (n > 0)
        ACT_CALL(b, plain_typed, b, &a);
}

/* ---- fp8 weights widened for a product of many rows --------------------------------------------- */

template <class T>
static __global__ void widen_kernel(T *y, const f8 *w, const float *scale, uint32_t n_in, uint32_t scale_block,
                                    uint32_t n_scales, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n)
        from_f32(&y[i], to_f32(w[i]) * scale[i / n_in * n_scales + i % n_in / scale_block]);
}

template <class T> static void widen(struct be *b, void *to, const struct be_w *w) {
    size_t n = static_cast<size_t>(w->n_out) * w->n_in;
    rt_run(b->rt, widen_kernel<T>, dim3(blocks_for(n, 256)), dim3(256), 0, static_cast<T *>(to),
           static_cast<const f8 *>(w->data), static_cast<const float *>(w->scale), w->n_in, w->scale_block, w->n_scales,
           n);
}

void product_rows(struct be *b, void *y, bool y_f32, const struct be_w *w, const void *x, const void *add, uint32_t n) {
    struct be_w wide = *w;
    if (n == 0)
        return;
    if (fp8_computes(b, w)) {
        struct tile_args t = {};
        fp8_rows(b, &t, w, x, n);
        t.y = y;
        t.y_f32 = y_f32;
        t.add = add;
        t.n = n;
        if (w->n_scales != 1 ||
            !rt_product_fp8(b->rt, y, y_f32 ? DT_F32 : b->act, t.x, t.w, t.x_scale, t.w_scale, add, n, w->n_out, w->n_in))
            tile_run(b, &t);
        return;
    }
    if (w->dtype == DT_F8E4M3) {
        wide.data = dev_scratch(b, SCRATCH_WEIGHT, static_cast<size_t>(w->n_out) * w->n_in * dtype_bytes(b->act));
        wide.dtype = b->act;
        wide.scale = NULL;
        ACT_CALL(b, widen, b, wide.data, w);
    }
    if (!b->deterministic &&
        rt_product(b->rt, y, y_f32 ? DT_F32 : b->act, x, wide.data, add, b->act, n, w->n_out, w->n_in))
        return;
    if (!tile_rows(b, y, y_f32, &wide, x, add, n))
        plain_rows(b, y, y_f32, &wide, x, add, n);
}

/* ---- the tail ---------------------------------------------------------------------------------- */

template <class T> static __global__ void tail_kernel(struct tail t, const T *v, uint32_t n_cols, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    size_t r = i / n_cols, c = i % n_cols, at = r * t.n_out + c;
    float x = act_apply(t.act, to_f32(v[at]) + (t.bias ? t.bias[c] : 0.0f));
    if (t.gated)
        x *= to_f32(v[at + n_cols]) + (t.bias ? t.bias[n_cols + c] : 0.0f);
    if (t.add)
        x += to_f32(static_cast<const T *>(t.add)[i]);
    from_f32(&static_cast<T *>(t.y)[i], x);
}

template <class T> static void tail_launch(struct be *b, const void *v, const struct tail *t, uint32_t n) {
    uint32_t n_cols = t->gated ? t->n_out / 2 : t->n_out;
    size_t all = static_cast<size_t>(n) * n_cols;
    rt_run(b->rt, tail_kernel<T>, dim3(blocks_for(all, 256)), dim3(256), 0, *t, static_cast<const T *>(v), n_cols, all);
}

void tail_rows(struct be *b, const void *v, const struct tail *t, uint32_t n) {
    if (n > 0)
        ACT_CALL(b, tail_launch, b, v, t, n);
}

void dev_gemm(struct be *b, const struct op_gemm *op) {
    uint32_t n = op->n_rows ? op->n_rows : b->n_tokens, n_in = op->w->n_in;
    struct tail t = {};
    t.gated = w_gated(op->w);
    t.n_out = op->w->n_out;
    uint32_t cols = t.gated ? t.n_out / 2 : t.n_out;
    CHECK(op->y != op->x && op->w->n_experts == 1 && op->w->kind != BE_W_VECTOR);
    const void *x = dev_act(b, op->x, n, n_in);
    t.y = dev_act(b, op->y, n, cols);
    t.add = op->add ? dev_act(b, op->add, n, cols) : NULL;
    t.bias = dev_vector(op->bias, t.n_out);
    t.act = op->act;
    const void *normed = op->norm.kind != NORM_NONE ? normed_take(b, op->x, &op->norm, n) : NULL;
    normed_drop(b);
    if (n == 0)
        return;
    if (normed) {
        x = normed;
    } else if (op->norm.kind != NORM_NONE) {
        void *to = dev_scratch(b, SCRATCH_X, static_cast<size_t>(n) * n_in * dtype_bytes(b->act));
        norm_rows(b, to, x, NULL, false, &op->norm, n_in, n);
        x = to;
    }
    bool sums = op->reduce && b->group, plain = !t.bias && t.act == ACT_NONE && !t.gated;
    if (sums || b->deterministic || !gemv_rows(b, op->w, x, n, &t)) {
        if (plain && !sums) {
            product_rows(b, t.y, false, op->w, x, t.add, n);
        } else {
            void *wide = dev_scratch(b, SCRATCH_WIDE, static_cast<size_t>(n) * t.n_out * dtype_bytes(b->act));
            struct tail none = {};
            none.y = wide;
            none.n_out = t.n_out;
            if (b->deterministic || !gemv_rows(b, op->w, x, n, &none))
                product_rows(b, wide, false, op->w, x, NULL, n);
            if (sums)
                group_sum(b, wide, n, t.n_out, &t, normed_room(b, op->y, &op->then, t.n_out, n), &op->then);
            else
                tail_rows(b, wide, &t, n);
        }
    }
    if (op->rope.on) {
        CHECK(n == b->n_tokens);
        rope_rows(b, t.y, &op->rope);
    }
}
