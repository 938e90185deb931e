/* rope.cu: the tail of a QKV projection: norms of heads, rotation, and K and V into their slots of the cache. A warp has
 * a head of a token. */
#include "worker/cuda/norm.cuh"

enum { ROPE_WARPS = 4, HEAD_MAX = 256 };

struct rope_args {
    void *qkv;
    const struct dplan *plan;
    struct kvref kv;
    enum dtype cache;
    uint32_t n_heads, n_kv, dim, dim_v, rotary;
    uint32_t axis_end[BE_AXES_MAX]; /* first rotary pair beyond each axis' */
    enum rope_kind kind;
    const float *inv_freq;
    float scale, by_k, by_v; /* by_k, by_v: of what is stored */
    struct dnorm q_norm, k_norm;
};

/* axis_of: the axis whose position turns a pair. */
DEV uint32_t axis_of(const struct rope_args &a, uint32_t pair) {
    uint32_t axis = 0;
    for (uint32_t i = 1; i < BE_AXES_MAX; i++)
        if (pair >= a.axis_end[i - 1] && a.axis_end[i] > a.axis_end[i - 1])
            axis = i;
    return axis;
}

template <class T> static __global__ void rope_kernel(struct rope_args a) {
    SHARED(float, heads, ROPE_WARPS *HEAD_MAX);
    dep_wait();
    const struct dplan *p = a.plan;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_heads = a.n_heads + 2 * a.n_kv;
    uint32_t t = blockIdx.x, h = blockIdx.y * ROPE_WARPS + warp;
    if (t >= p->n_tokens || h >= n_heads) /* a whole warp */
        return;
    bool is_v = h >= a.n_heads + a.n_kv, is_k = !is_v && h >= a.n_heads;
    uint32_t width = a.n_heads * a.dim + a.n_kv * (a.dim + a.dim_v), dim = is_v ? a.dim_v : a.dim;
    uint32_t index = is_v ? h - a.n_heads - a.n_kv : h - a.n_heads; /* among the keys' or the values' heads */
    T *x = static_cast<T *>(a.qkv) + static_cast<size_t>(t) * width +
           (is_v ? (a.n_heads + a.n_kv) * a.dim + index * a.dim_v : h * a.dim);
    float *v = heads + warp * HEAD_MAX;
    for (uint32_t i = lane; i < dim; i += 32)
        v[i] = to_f32(x[i]);
    warp_sync();
    const struct dnorm &norm = is_k ? a.k_norm : a.q_norm;
    if (!is_v && norm.kind != NORM_NONE) {
        float sq = 0, mean = 0;
        if (norm.kind == NORM_LAYER) {
            for (uint32_t i = lane; i < dim; i += 32)
                mean += v[i];
            mean = warp_sum(mean) / static_cast<float>(dim);
        }
        for (uint32_t i = lane; i < dim; i += 32)
            sq += (v[i] - mean) * (v[i] - mean);
        float inv = 1.0f / sqrtf(warp_sum(sq) / static_cast<float>(dim) + norm.eps);
        for (uint32_t i = lane; i < dim; i += 32)
            v[i] = norm_value(norm, v[i], i, mean, inv);
        warp_sync();
    }
    for (uint32_t i = lane; !is_v && a.kind != ROPE_NONE && i < a.rotary / 2; i += 32) {
        float angle = static_cast<float>(PLAN_AT(int32_t, p, p->pos)[axis_of(a, i) * p->n_tokens + t]) * a.inv_freq[i];
        float c = cosf(angle) * a.scale, s = sinf(angle) * a.scale;
        uint32_t one = a.kind == ROPE_NEOX ? i : 2 * i, two = a.kind == ROPE_NEOX ? i + a.rotary / 2 : 2 * i + 1;
        float xa = v[one], xz = v[two];
        v[one] = xa * c - xz * s;
        v[two] = xz * c + xa * s;
    }
    warp_sync();
    for (uint32_t i = lane; !is_v && i < dim; i += 32)
        from_f32(&x[i], v[i]);
    if (!a.kv.data || (!is_k && !is_v))
        return;
    uint32_t slot = PLAN_AT(uint32_t, p, p->group[a.kv.group].slot)[t];
    uint64_t at = slot / KV_BLOCK_TOKENS * a.kv.block_elems +
                  (is_v ? static_cast<uint64_t>(a.n_kv) * a.dim * KV_BLOCK_TOKENS : 0) +
                  (static_cast<uint64_t>(index) * KV_BLOCK_TOKENS + slot % KV_BLOCK_TOKENS) * dim;
    float by = is_v ? a.by_v : a.by_k;
    for (uint32_t i = lane; i < dim; i += 32)
        store_as(a.kv.data, a.cache, at + i, v[i] * by);
}

template <class T> static void rope_launch(struct be *b, const struct rope_args *a) {
    dim3 grid(b->n_tokens, blocks_for(a->n_heads + 2 * a->n_kv, ROPE_WARPS));
    rt_run(b->rt, rope_kernel<T>, grid, dim3(ROPE_WARPS * 32), 0, *a);
}

void rope_rows(struct be *b, void *qkv, const struct rope_store *rope) {
    struct rope_args a = {};
    a.qkv = qkv;
    a.plan = b->dplan;
    a.kv = kv_ref(b, rope->group, rope->layer);
    a.n_heads = rope->n_heads;
    a.n_kv = rope->n_kv_heads;
    a.dim = rope->head_dim;
    a.dim_v = a.kv.data ? a.kv.dim_v : rope->head_dim;
    a.rotary = rope->rotary_dim;
    a.kind = rope->rope;
    CHECK(a.dim <= HEAD_MAX && a.dim_v <= HEAD_MAX && a.rotary <= a.dim && a.rotary % 2 == 0);
    CHECK(!a.kv.data || (a.kv.n_heads == a.n_kv && a.kv.dim == a.dim));
    for (uint32_t i = 0, end = 0; i < BE_AXES_MAX; i++) {
        end += rope->axis_sections[i];
        CHECK(rope->axis_sections[i] == 0 || i < b->plan.n_axes);
        a.axis_end[i] = end;
    }
    if (a.kind != ROPE_NONE) {
        CHECK(b->plan.n_axes > 0 && rope->inv_freq);
        a.inv_freq = dev_vector(rope->inv_freq, a.rotary / 2);
    }
    a.scale = rope->rope_scale == 0 ? 1.0f : rope->rope_scale;
    a.by_k = rope->k_scale == 0 ? 1.0f : 1.0f / rope->k_scale;
    a.by_v = rope->v_scale == 0 ? 1.0f : 1.0f / rope->v_scale;
    a.q_norm = dnorm_of(&rope->q_norm, a.dim);
    a.k_norm = dnorm_of(&rope->k_norm, a.dim);
    a.cache = a.kv.data ? b->kv[rope->group]->spec.dtype : b->act;
    if (b->n_tokens > 0)
        ACT_CALL(b, rope_launch, b, &a);
}
