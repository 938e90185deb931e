/* moe.cu: the mixture of experts: choose, sort rows by expert, two grouped products, and the weighted sum in the order
 * of the choice. Router logits, softmax and weights are f32. */
#include "worker/cuda/group.h"
#include "worker/cuda/norm.cuh"
#include "worker/cuda/tile.h"

enum { CHOOSE_THREADS = 128, EXPERTS_MAX = 512, CHUNK = 256 };

/* room: the working memory of an op_moe, one allocation. n rows, k experts a row. */
struct moe_room {
    void *x;           /* act [n][cols]: normed */
    uint32_t *experts; /* [n][k] */
    float *weights;    /* [n][k] */
    uint32_t *starts;  /* [n_experts + 1] of the sorted rows */
    uint32_t *counts;  /* [n k / CHUNK, rounded up][n_experts] */
    uint32_t *from;    /* [n k] sorted: row * k + choice */
    uint32_t *place;   /* [n][k] where a row's choice lies among the sorted */
    void *wide;        /* act [n k][2 inner] */
    void *h;           /* act [n k][inner] */
    void *y;           /* act [n k][cols] */
};

struct choose_args {
    const void *x, *router;
    const float *scale; /* of an fp8 router */
    uint32_t scale_block, n_scales, cols, n_experts, top_k, n;
    bool renorm;
    uint32_t *experts;
    float *weights;
};

/* A block has a row: scores by its warps, the softmax and the choice by its first. */
template <class T, class W> static __global__ void choose_kernel(struct choose_args a) {
    SHARED(float, p, EXPERTS_MAX);
    dep_wait();
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = blockIdx.x;
    const T *x = static_cast<const T *>(a.x) + static_cast<size_t>(t) * a.cols;
    for (uint32_t e = warp; e < a.n_experts; e += CHOOSE_THREADS / 32) {
        const W *w = static_cast<const W *>(a.router) + static_cast<size_t>(e) * a.cols;
        float s = 0;
        for (uint32_t i = lane; i < a.cols; i += 32) {
            float v = to_f32(w[i]);
            if (a.scale)
                v *= a.scale[static_cast<size_t>(e) * a.n_scales + i / a.scale_block];
            s = fmaf(v, to_f32(x[i]), s);
        }
        s = warp_sum(s);
        if (lane == 0)
            p[e] = s;
    }
    __syncthreads();
    if (warp > 0)
        return;
    float max = -INFINITY, sum = 0, kept = 0;
    for (uint32_t e = lane; e < a.n_experts; e += 32)
        max = fmaxf(max, p[e]);
    max = warp_max(max);
    for (uint32_t e = lane; e < a.n_experts; e += 32)
        sum += p[e] = expf(p[e] - max);
    sum = warp_sum(sum);
    warp_sync();
    for (uint32_t j = 0; j < a.top_k; j++) {
        float best = -2.0f;
        uint32_t id = 0;
        for (uint32_t e = lane; e < a.n_experts; e += 32)
            if (p[e] > best) {
                best = p[e];
                id = e;
            }
        for (int lanes = 16; lanes; lanes >>= 1) { /* the best, the lower id among equals */
            float other = warp_xor(best, lanes);
            uint32_t other_id = warp_xor(id, lanes);
            if (other > best || (other == best && other_id < id)) {
                best = other;
                id = other_id;
            }
        }
        if (lane == 0) {
            a.experts[t * a.top_k + j] = id;
            a.weights[t * a.top_k + j] = best / sum;
            p[id] = -1.0f;
        }
        kept += best / sum;
        warp_sync();
    }
    if (a.renorm && lane < 1)
        for (uint32_t j = 0; j < a.top_k; j++)
            a.weights[t * a.top_k + j] /= kept;
}

/* Rows are sorted by expert, in order within each, so that the sums of a row never depend on others. CHUNK rows at a time:
 * each block counts its own, one block adds the counts up, and each row's place is what lies before its block and the
 * equal ones before it in the block. */
static __global__ void count_kernel(struct moe_room m, uint32_t n, uint32_t n_experts) {
    SHARED(uint32_t, counts, EXPERTS_MAX);
    dep_wait();
    for (uint32_t e = threadIdx.x; e < n_experts; e += CHUNK)
        counts[e] = 0;
    __syncthreads();
    uint32_t i = blockIdx.x * CHUNK + threadIdx.x;
    if (i < n)
        atomicAdd(&counts[m.experts[i]], 1u);
    __syncthreads();
    for (uint32_t e = threadIdx.x; e < n_experts; e += CHUNK)
        m.counts[static_cast<size_t>(blockIdx.x) * n_experts + e] = counts[e];
}

/* starts_kernel: one block, a thread an expert: counts become the rows of the expert in front of each chunk. */
static __global__ void starts_kernel(struct moe_room m, uint32_t n_chunks, uint32_t n_experts) {
    SHARED(uint32_t, sums, EXPERTS_MAX / 32);
    dep_wait();
    uint32_t e = threadIdx.x, sum = 0, upto;
    if (e < n_experts)
        for (uint32_t k = 0; k < n_chunks; k++) {
            uint32_t *count = m.counts + static_cast<size_t>(k) * n_experts + e, here = *count;
            *count = sum;
            sum += here;
        }
    upto = sum;
    for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
        uint32_t o = warp_up(upto, lanes);
        upto += e % 32 >= lanes ? o : 0;
    }
    if (e % 32 == 31)
        sums[e / 32] = upto;
    __syncthreads();
    for (uint32_t w = 0; w < e / 32; w++)
        upto += sums[w];
    if (e < n_experts)
        m.starts[e + 1] = upto;
    if (e == 0)
        m.starts[0] = 0;
}

static __global__ void place_kernel(struct moe_room m, uint32_t n, uint32_t n_experts) {
    SHARED(uint32_t, experts, CHUNK);
    dep_wait();
    uint32_t i = blockIdx.x * CHUNK + threadIdx.x, e = i < n ? m.experts[i] : 0, at;
    experts[threadIdx.x] = e;
    __syncthreads();
    if (i >= n)
        return;
    at = m.starts[e] + m.counts[static_cast<size_t>(blockIdx.x) * n_experts + e];
    for (uint32_t k = 0; k < threadIdx.x; k++)
        at += experts[k] == e;
    m.from[at] = i;
    m.place[i] = at;
}

/* sort_few: the same for one chunk, in one kernel. */
static __global__ void sort_few(struct moe_room m, uint32_t n, uint32_t n_experts) {
    SHARED(uint32_t, experts, CHUNK);
    dep_wait();
    uint32_t i = threadIdx.x, at = 0;
    experts[i] = i < n ? m.experts[i] : UINT32_MAX;
    __syncthreads();
    for (uint32_t e = i; e <= n_experts; e += CHUNK) {
        uint32_t before = 0;
        for (uint32_t k = 0; k < n; k++)
            before += experts[k] < e;
        m.starts[e] = before;
    }
    if (i >= n)
        return;
    for (uint32_t k = 0; k < n; k++)
        at += experts[k] < experts[i] || (experts[k] == experts[i] && k < i);
    m.from[at] = i;
    m.place[i] = at;
}

static void sort_rows(struct be *b, const struct moe_room *m, uint32_t n, uint32_t n_experts) {
    uint32_t n_chunks = blocks_for(n, CHUNK);
    if (n_chunks == 1) {
        rt_run(b->rt, sort_few, dim3(1), dim3(CHUNK), 0, *m, n, n_experts);
        return;
    }
    rt_run(b->rt, count_kernel, dim3(n_chunks), dim3(CHUNK), 0, *m, n, n_experts);
    rt_run(b->rt, starts_kernel, dim3(1), dim3(EXPERTS_MAX), 0, *m, n_chunks, n_experts);
    rt_run(b->rt, place_kernel, dim3(n_chunks), dim3(CHUNK), 0, *m, n, n_experts);
}

template <class T> static __global__ void glu_kernel(T *h, const T *wide, enum act_kind act, uint32_t inner, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    size_t at = i / inner * 2 * inner + i % inner;
    from_f32(&h[i], act_apply(act, to_f32(wide[at])) * to_f32(wide[at + inner]));
}

template <class T>
static __global__ void sum_kernel(T *y, const T *parts, const T *add, const float *weights, const uint32_t *place,
                                  uint32_t top_k, uint32_t cols, size_t n) {
    dep_wait();
    size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    size_t t = i / cols, c = i % cols;
    float s = 0;
    for (uint32_t j = 0; j < top_k; j++)
        s = fmaf(weights[t * top_k + j], to_f32(parts[static_cast<size_t>(place[t * top_k + j]) * cols + c]), s);
    from_f32(&y[i], (add ? to_f32(add[i]) : 0.0f) + s);
}

/* grouped: y[r] = x[from[r] / div] w_e^T for sorted rows; on tensor cores where it fits, else a warp an output. */
struct grouped_args {
    void *y;
    const void *w, *x;
    const float *scale;
    const uint32_t *starts, *from;
    uint32_t scale_block, n_scales, n, n_in, n_out, n_experts, div;
};

template <class T, class W> static __global__ void grouped_kernel(struct grouped_args a) {
    dep_wait();
    uint32_t lane = threadIdx.x % 32, c = blockIdx.x * 8 + threadIdx.x / 32, expert = 0;
    if (c >= a.n_out)
        return;
    for (uint32_t r = blockIdx.y; r < a.n; r += gridDim.y) {
        while (r >= a.starts[expert + 1])
            expert++;
        size_t row = static_cast<size_t>(expert) * a.n_out + c;
        const W *w = static_cast<const W *>(a.w) + row * a.n_in;
        const T *x = static_cast<const T *>(a.x) + static_cast<size_t>(a.from ? a.from[r] / a.div : r) * a.n_in;
        float s = 0;
        for (uint32_t k = lane; k < a.n_in; k += 32) {
            float v = to_f32(w[k]);
            if (a.scale)
                v *= a.scale[row * a.n_scales + k / a.scale_block];
            s = fmaf(v, to_f32(x[k]), s);
        }
        s = warp_sum(s);
        if (lane == 0)
            from_f32(&static_cast<T *>(a.y)[static_cast<size_t>(r) * a.n_out + c], s);
    }
}

template <class T> static void grouped_typed(struct be *b, const struct grouped_args *a) {
    dim3 grid(blocks_for(a->n_out, 8), MIN(a->n, 65535u));
    if (a->scale)
        rt_run(b->rt, grouped_kernel<T, f8>, grid, dim3(256), 0, *a);
    else
        rt_run(b->rt, grouped_kernel<T, T>, grid, dim3(256), 0, *a);
}

/* n: of the sorted rows; n_x: of x. */
static void grouped(struct be *b, void *y, const struct be_w *w, const void *x, const struct moe_room *m, bool gather,
                    uint32_t div, uint32_t n, uint32_t n_x) {
    bool fp8 = fp8_computes(b, w);
    if (fp8 || (b->act != DT_F32 && w->dtype == b->act && w->n_in % 8 == 0)) {
        struct tile_args t = {};
        t.y = y;
        t.w = w->data;
        t.x = x;
        t.n = n;
        t.n_in = w->n_in;
        t.n_out = w->n_out;
        t.starts = m->starts;
        t.from = gather ? m->from : NULL;
        t.n_experts = w->n_experts;
        t.from_div = div;
        if (fp8)
            fp8_rows(b, &t, w, x, n_x);
        tile_run(b, &t);
        return;
    }
    struct grouped_args a = {};
    a.y = y;
    a.w = w->data;
    a.x = x;
    a.scale = w->scale;
    a.starts = m->starts;
    a.from = gather ? m->from : NULL;
    a.scale_block = w->scale_block;
    a.n_scales = w->n_scales;
    a.n = n;
    a.n_in = w->n_in;
    a.n_out = w->n_out;
    a.n_experts = w->n_experts;
    a.div = div;
    ACT_CALL(b, grouped_typed, b, &a);
}

template <class T> static void choose_typed(struct be *b, const struct choose_args *a) {
    if (a->scale)
        rt_run(b->rt, choose_kernel<T, f8>, dim3(a->n), dim3(CHOOSE_THREADS), 0, *a);
    else
        rt_run(b->rt, choose_kernel<T, T>, dim3(a->n), dim3(CHOOSE_THREADS), 0, *a);
}

template <class T> static void glu_typed(struct be *b, const struct moe_room *m, enum act_kind act, uint32_t inner, size_t n) {
    rt_run(b->rt, glu_kernel<T>, dim3(blocks_for(n, 256)), dim3(256), 0, static_cast<T *>(m->h),
           static_cast<const T *>(m->wide), act, inner, n);
}

template <class T>
static void sum_typed(struct be *b, void *y, const void *add, const struct moe_room *m, uint32_t top_k, uint32_t cols, size_t n) {
    rt_run(b->rt, sum_kernel<T>, dim3(blocks_for(n, 256)), dim3(256), 0, static_cast<T *>(y), static_cast<const T *>(m->y),
           static_cast<const T *>(add), static_cast<const float *>(m->weights), static_cast<const uint32_t *>(m->place),
           top_k, cols, n);
}

static void *take(uint8_t **at, size_t n) {
    void *p = *at;
    *at += (n + 255) / 256 * 256;
    return p;
}

static struct moe_room room_of(struct be *b, const struct op_moe *op, uint32_t n, uint32_t cols, uint32_t inner) {
    size_t e = dtype_bytes(b->act), nk = static_cast<size_t>(n) * op->top_k;
    size_t n_counts = (nk + CHUNK - 1) / CHUNK * op->n_experts;
    size_t bytes = static_cast<size_t>(n) * cols * e + nk * (4 + 4 + 4 + 4) + (n_counts + op->n_experts + 1) * sizeof(uint32_t) +
                   nk * (3 * static_cast<size_t>(inner) + cols) * e + 12 * 256;
    uint8_t *at = static_cast<uint8_t *>(dev_scratch(b, SCRATCH_MOE, bytes));
    struct moe_room m = {};
    m.x = take(&at, static_cast<size_t>(n) * cols * e);
    m.experts = static_cast<uint32_t *>(take(&at, nk * 4));
    m.weights = static_cast<float *>(take(&at, nk * 4));
    m.starts = static_cast<uint32_t *>(take(&at, (op->n_experts + 1) * sizeof(uint32_t)));
    m.counts = static_cast<uint32_t *>(take(&at, n_counts * sizeof(uint32_t)));
    m.from = static_cast<uint32_t *>(take(&at, nk * 4));
    m.place = static_cast<uint32_t *>(take(&at, nk * 4));
    m.wide = take(&at, nk * 2 * inner * e);
    m.h = take(&at, nk * inner * e);
    m.y = take(&at, nk * cols * e);
    return m;
}

void dev_moe(struct be *b, const struct op_moe *op) {
    uint32_t n = b->n_tokens, cols = op->down->n_out, inner = op->down->n_in, nk = n * op->top_k;
    const struct be_w *up = op->gate_up, *down = op->down, *router = op->router;
    CHECK(op->n_experts > 0 && op->n_experts <= EXPERTS_MAX && op->top_k > 0 && op->top_k <= op->n_experts);
    CHECK(router->n_experts == 1 && !w_gated(router) && router->n_out == op->n_experts && router->n_in == cols);
    CHECK(up->kind == BE_W_EXPERTS_GATE_UP && up->n_experts == op->n_experts && up->n_in == cols);
    CHECK(down->kind == BE_W_EXPERTS && down->n_experts == op->n_experts && inner == up->n_out / 2);
    const void *x = dev_act(b, op->x, n, cols), *add = op->add ? dev_act(b, op->add, n, cols) : NULL;
    void *y = dev_act(b, op->y, n, cols);
    const void *normed = normed_take(b, op->x, &op->norm, n);
    if (n == 0)
        return;
    struct moe_room m = room_of(b, op, n, cols, inner);
    if (!normed)
        norm_rows(b, m.x, x, NULL, false, &op->norm, cols, n);
    const void *in = normed ? normed : m.x;
    struct choose_args c = {};
    c.x = in;
    c.router = router->data;
    c.scale = router->scale;
    c.scale_block = router->scale_block;
    c.n_scales = router->n_scales;
    c.cols = cols;
    c.n_experts = op->n_experts;
    c.top_k = op->top_k;
    c.n = n;
    c.renorm = op->renorm;
    c.experts = m.experts;
    c.weights = m.weights;
    ACT_CALL(b, choose_typed, b, &c);
    sort_rows(b, &m, nk, op->n_experts);
    grouped(b, m.wide, up, in, &m, true, op->top_k, nk, n);
    ACT_CALL(b, glu_typed, b, &m, op->act, inner, static_cast<size_t>(nk) * inner);
    grouped(b, m.y, down, m.h, &m, false, 1, nk, nk);
    if (op->reduce && b->group) { /* the others' shares of inner come before the residual */
        ACT_CALL(b, sum_typed, b, m.x, static_cast<const void *>(NULL), &m, op->top_k, cols, static_cast<size_t>(n) * cols);
        struct tail t = {};
        t.y = y;
        t.add = add;
        t.n_out = cols;
        group_sum(b, m.x, n, cols, &t, normed_room(b, op->y, &op->then, cols, n), &op->then);
        return;
    }
    ACT_CALL(b, sum_typed, b, y, add, &m, op->top_k, cols, static_cast<size_t>(n) * cols);
}
