/* attn.cu: attention for every shape, type and mask there is, a warp for each query and head: a lane has a key while
 * scores are made, and some dimensions while values are summed. The order of sums depends on the query alone. Usual
 * shapes go to attn_tiles. */
#include "worker/cuda/attn.h"

enum { ATTN_WARPS = 4, DIM_MAX = 256 };

template <class C> static __global__ void attn_kernel(struct attn_args a) {
    SHARED(float, queries, ATTN_WARPS *DIM_MAX);
    dep_wait();
    const struct dplan *p = a.plan;
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = blockIdx.x, head = blockIdx.y * ATTN_WARPS + warp;
    if (t >= p->n_tokens || head >= a.n_heads) /* a whole warp */
        return;
    uint32_t seq = PLAN_AT(uint32_t, p, p->seq_of)[t], g = head / (a.n_heads / a.n_kv);
    struct dkeys keys = keys_of(a, t, seq);
    const C *data = static_cast<const C *>(a.kv.data ? a.kv.data : a.qkv);
    float *q = queries + warp * DIM_MAX, acc[DIM_MAX / 32] = {};
    for (uint32_t d = lane; d < a.dim; d += 32)
        q[d] = load_as(a.qkv, a.act, static_cast<size_t>(t) * a.width + head * a.dim + d);
    warp_sync();
    float max = a.sinks ? a.sinks[head] : -INFINITY, sum = a.sinks ? 1.0f : 0.0f;
    for (uint32_t j0 = keys.lo; j0 < keys.hi; j0 += 32) {
        uint32_t j = j0 + lane, n = keys.hi - j0 < 32 ? keys.hi - j0 : 32;
        float s = -INFINITY;
        uint64_t v_at = 0;
        if (j < keys.hi) {
            uint64_t k_at = key_row(a, seq, g, j);
            v_at = value_row(a, seq, g, j);
            s = 0;
            for (uint32_t d = 0; d < a.dim; d++)
                s = fmaf(q[d], to_f32(data[k_at + d]), s);
            s = score_of(a, s, head, keys.at, j);
        }
        float before = max;
        max = fmaxf(max, warp_max(s));
        float keep = before == max ? 1.0f : expf(before - max), w = j < keys.hi ? expf(s - max) : 0.0f;
        sum = sum * keep + warp_sum(w);
        for (uint32_t i = 0; i < DIM_MAX / 32; i++)
            acc[i] *= keep;
        for (uint32_t k = 0; k < n; k++) {
            float wk = warp_from(w, static_cast<int>(k));
            uint64_t at = warp_from(v_at, static_cast<int>(k));
#pragma unroll
            for (uint32_t i = 0; i < DIM_MAX / 32; i++)
                if (i * 32 + lane < a.dim_v)
                    acc[i] = fmaf(wk, to_f32(data[at + i * 32 + lane]), acc[i]);
        }
    }
    size_t to = (static_cast<size_t>(t) * a.n_heads + head) * a.dim_v;
#pragma unroll
    for (uint32_t i = 0; i < DIM_MAX / 32; i++)
        if (i * 32 + lane < a.dim_v)
            store_as(a.out, a.act, to + i * 32 + lane, acc[i] / sum * a.v_scale);
}

template <class C> static void attn_launch(struct be *b, const struct attn_args *a) {
    rt_run(b->rt, attn_kernel<C>, dim3(b->n_tokens, blocks_for(a->n_heads, ATTN_WARPS)), dim3(ATTN_WARPS * 32), 0, *a);
}

static void attn_any(struct be *b, const struct attn_args *a, enum dtype cache) {
    switch (cache) {
    case DT_F32:
        return attn_launch<float>(b, a);
    case DT_F16:
        return attn_launch<f16>(b, a);
    case DT_F8E4M3:
        return attn_launch<f8>(b, a);
    default:
        return attn_launch<bf16>(b, a);
    }
}

void dev_attn(struct be *b, const struct op_attn *op) {
    struct attn_args a = {};
    normed_drop(b);
    a.kv = kv_ref(b, op->group, op->layer);
    a.plan = b->dplan;
    a.act = b->act;
    a.n_heads = op->n_heads;
    a.n_kv = op->n_kv_heads;
    a.dim = op->head_dim;
    a.dim_v = a.kv.data ? a.kv.dim_v : op->head_dim;
    CHECK(a.n_kv > 0 && a.n_heads % a.n_kv == 0 && a.dim <= DIM_MAX && a.dim_v <= DIM_MAX);
    CHECK(!a.kv.data || (a.kv.n_heads == a.n_kv && a.kv.dim == a.dim));
    a.width = a.n_heads * a.dim + a.n_kv * (a.dim + a.dim_v);
    a.out = dev_act(b, op->out, b->n_tokens, a.n_heads * a.dim_v);
    a.qkv = dev_act(b, op->qkv, b->n_tokens, a.width);
    a.window = op->window;
    if (a.kv.window && (a.window == 0 || a.kv.window < a.window))
        a.window = a.kv.window;
    a.scale = op->k_scale == 0 ? op->scale : op->scale * op->k_scale;
    a.v_scale = op->v_scale == 0 ? 1.0f : op->v_scale;
    a.softcap = op->softcap;
    a.sinks = dev_vector(op->sinks, op->n_heads);
    a.rel_bias = dev_vector(op->rel_bias, op->n_heads * (2 * op->rel_span + 1));
    a.rel_span = op->rel_span;
    enum dtype cache = a.kv.data ? b->kv[op->group]->spec.dtype : b->act;
    if (b->n_tokens > 0 && (b->deterministic || (!attn_wg(b, &a, cache) && !attn_tiles(b, &a, cache))))
        attn_any(b, &a, cache);
}
