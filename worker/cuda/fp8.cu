/* fp8.cu: rows as e4m3 with factors, for products in fp8: activations before each, and weights when they are loaded. */
#include "worker/cuda/tile.h"

enum { ENCODE_THREADS = 256 };
static const float F8_MAX = 448.0f, F8_NOTHING = 1e-30f; /* below that a block is as good as 0, and 1 / factor infinite */

struct encode_args {
    f8 *to;
    float *scale; /* [rows][n_blocks] */
    const void *x;
    float fixed; /* the factor; 0: the largest value of a block becomes F8_MAX */
    uint32_t cols, block, n_blocks;
};

/* block_max: of one value a thread, to all threads. room: [32] shared. */
DEV float block_max(float v, float *room) {
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    v = warp_max(v);
    if (lane == 0)
        room[warp] = v;
    __syncthreads();
    v = warp_max(lane < blockDim.x / 32 ? room[lane] : 0.0f);
    __syncthreads();
    return v;
}

/* A block has a row; of blocks of 128 columns, a warp has one after the other. */
template <class S> static __global__ void encode_kernel(struct encode_args a) {
    SHARED(float, room, 32);
    dep_wait();
    const S *x = static_cast<const S *>(a.x) + static_cast<size_t>(blockIdx.x) * a.cols;
    f8 *to = a.to + static_cast<size_t>(blockIdx.x) * a.cols;
    bool whole = a.n_blocks == 1;
    uint32_t lane = whole ? threadIdx.x : threadIdx.x % 32, step = whole ? ENCODE_THREADS : 32;
    for (uint32_t k = whole ? 0 : threadIdx.x / 32; k < a.n_blocks; k += whole ? 1 : ENCODE_THREADS / 32) {
        uint32_t from = k * a.block, end = from + a.block < a.cols ? from + a.block : a.cols;
        float most = 0, scale = a.fixed;
        for (uint32_t i = from + lane; scale == 0 && i < end; i += step)
            most = fmaxf(most, fabsf(to_f32(x[i])));
        if (scale == 0) {
            most = whole ? block_max(most, room) : warp_max(most);
            scale = most > F8_NOTHING || most != most ? most / F8_MAX : 1.0f;
        }
        float inv = 1.0f / scale;
        for (uint32_t i = from + lane; i < end; i += step)
            from_f32(&to[i], to_f32(x[i]) * inv);
        if (lane == 0)
            a.scale[static_cast<size_t>(blockIdx.x) * a.n_blocks + k] = scale;
    }
}

template <class S> static void encode_launch(struct be *b, const struct encode_args *a, uint32_t n) {
    rt_run(b->rt, encode_kernel<S>, dim3(n), dim3(ENCODE_THREADS), 0, *a);
}

static void encode(struct be *b, const struct encode_args *a, enum dtype from, uint32_t n) {
    if (n == 0)
        return;
    if (from == DT_F32)
        encode_launch<float>(b, a, n);
    else if (from == DT_F16)
        encode_launch<f16>(b, a, n);
    else
        encode_launch<bf16>(b, a, n);
}

void fp8_encode(struct be *b, void *to, float *scale, const void *x, enum dtype from, uint32_t n, uint32_t cols) {
    struct encode_args a = {};
    a.to = static_cast<f8 *>(to);
    a.scale = scale;
    a.x = x;
    a.cols = a.block = cols;
    a.n_blocks = 1;
    encode(b, &a, from, n);
}

/* Not where sums must not depend on the batch: a product of few rows takes activations as they are. */
bool fp8_computes(const struct be *b, const struct be_w *w) {
    return w->dtype == DT_F8E4M3 && b->act != DT_F32 && !b->deterministic && b->device.sm >= 89 && w->n_in % 16 == 0;
}

void fp8_rows(struct be *b, struct tile_args *t, const struct be_w *w, const void *x, uint32_t n) {
    size_t bytes = (static_cast<size_t>(n) * w->n_in + 255) / 256 * 256;
    uint8_t *room = static_cast<uint8_t *>(
        dev_scratch(b, SCRATCH_QUANT, bytes + static_cast<size_t>(n) * w->n_scales * sizeof(float)));
    struct encode_args a = {};
    a.to = reinterpret_cast<f8 *>(room);
    a.scale = reinterpret_cast<float *>(room + bytes);
    a.x = x;
    a.fixed = w->input_scale;
    a.cols = w->n_in;
    a.block = w->scale_block;
    a.n_blocks = w->n_scales;
    encode(b, &a, b->act, n);
    t->x = room;
    t->x_scale = a.scale;
    t->w = w->data;
    t->w_scale = w->scale;
    t->block = w->scale_block;
    t->n_scales = w->n_scales;
    t->n_in = w->n_in;
    t->n_out = w->n_out;
}
