/* attn.h: attention as its kernels take it. */
#ifndef WEIR_WORKER_CUDA_ATTN_H
#define WEIR_WORKER_CUDA_ATTN_H

#include "worker/cuda/dev.h"

struct attn_args {
    void *out;
    const void *qkv;
    const struct dplan *plan;
    struct kvref kv;
    enum dtype act;
    uint32_t n_heads, n_kv, dim, dim_v, width; /* width: of a row of qkv */
    uint32_t window;                           /* 0: none; the group's counts too */
    float scale, softcap; /* scale: with that of the keys */
    float v_scale;        /* of what comes out */
    const float *sinks, *rel_bias; /* NULL: none */
    uint32_t rel_span;
    /* tiles only */
    uint32_t tile_queries; /* the most queries that a tile of the plan has */
    uint32_t n_splits, split_keys; /* keys of a split; splits are at absolute positions */
    float *parts;                  /* [row][split][dim + 2]: sums, then their largest score and their total; n_splits 1: NULL */
};

/* dkeys: the half-open range of positions that one query attends to, and its own. */
struct dkeys {
    uint32_t lo, hi, at;
};

DEV struct dkeys keys_of(const struct attn_args &a, uint32_t t, uint32_t seq) {
    const struct dplan *p = a.plan;
    uint32_t first = PLAN_AT(uint32_t, p, p->seq_start)[seq], n = PLAN_AT(uint32_t, p, p->seq_start)[seq + 1] - first;
    struct dkeys k;
    k.at = t - first;
    if (a.kv.data) {
        n = PLAN_AT(uint32_t, p, p->kv_len)[seq];
        k.at = static_cast<uint32_t>(PLAN_AT(int32_t, p, p->pos)[t]);
        k.at = k.at < n ? k.at : n - 1;
    }
    k.lo = 0;
    k.hi = PLAN_AT(uint8_t, p, p->kind)[seq] == ATTN_BIDIRECTIONAL ? n : k.at + 1;
    if (a.window > 0) {
        k.lo = k.at + 1 > a.window ? k.at + 1 - a.window : 0;
        k.hi = a.window < k.hi - k.at ? k.at + a.window : k.hi;
    }
    return k;
}

/* key_row, value_row: where head g of position j lies, in elements from the layer's data, or from qkv where the group
 * keeps nothing. */
DEV uint64_t key_row(const struct attn_args &a, uint32_t seq, uint32_t g, uint32_t j) {
    const struct dplan *p = a.plan;
    if (!a.kv.data)
        return static_cast<uint64_t>(PLAN_AT(uint32_t, p, p->seq_start)[seq] + j) * a.width + (a.n_heads + g) * a.dim;
    uint32_t block = PLAN_AT(uint32_t, p, p->group[a.kv.group].table)[seq * p->group[a.kv.group].table_stride + j / KV_BLOCK_TOKENS];
    return block * a.kv.block_elems + (static_cast<uint64_t>(g) * KV_BLOCK_TOKENS + j % KV_BLOCK_TOKENS) * a.dim;
}
DEV uint64_t value_row(const struct attn_args &a, uint32_t seq, uint32_t g, uint32_t j) {
    const struct dplan *p = a.plan;
    if (!a.kv.data)
        return static_cast<uint64_t>(PLAN_AT(uint32_t, p, p->seq_start)[seq] + j) * a.width +
               (a.n_heads + a.n_kv) * a.dim + g * a.dim_v;
    uint32_t block = PLAN_AT(uint32_t, p, p->group[a.kv.group].table)[seq * p->group[a.kv.group].table_stride + j / KV_BLOCK_TOKENS];
    return block * a.kv.block_elems + static_cast<uint64_t>(a.n_kv) * a.dim * KV_BLOCK_TOKENS +
           (static_cast<uint64_t>(g) * KV_BLOCK_TOKENS + j % KV_BLOCK_TOKENS) * a.dim_v;
}

/* score_of: a product of query and key, scaled, capped, biased. */
DEV float score_of(const struct attn_args &a, float s, uint32_t head, uint32_t at, uint32_t j) {
    s *= a.scale;
    if (a.softcap > 0)
        s = a.softcap * tanhf(s / a.softcap);
    if (a.rel_bias) {
        int64_t span = a.rel_span, d = static_cast<int64_t>(j) - at;
        d = d < -span ? -span : d > span ? span : d;
        s += a.rel_bias[static_cast<int64_t>(head) * (2 * span + 1) + span + d];
    }
    return s;
}

/* fetch_part: 16 bytes of a cache's row, or zeros, into shared memory: as they are, asynchronously, or fp8 widened to T at
 * once. `at(i)`: where the part's i-th 8 elements of T go. */
template <class T, class C> struct cache_part {
    static const int n = 16 / sizeof(C); /* elements */
};
template <class T, class C, class F> DEV void fetch_part(F at, const C *from, bool there) {
    if constexpr (sizeof(C) == 1) {
        vec<C> some = {};
        if (there)
            some = vec_load(from);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            vec<T> wide;
#pragma unroll
            for (int k = 0; k < 8; k++)
                from_f32(&wide.e[k], to_f32(some.e[8 * i + k]));
            vec_store(static_cast<T *>(at(i)), wide);
        }
    } else {
        copy16(at(0), from, there ? 16 : 0);
    }
}

/* attn_tiles: tensor cores, for the usual shapes. False: not for this one. */
bool attn_tiles(struct be *b, struct attn_args *a, enum dtype cache);
/* attn_wg: wgmma, for prompts on sm_90a. False: not for this one, or not worth it: a step of few queries whose sequences
 * are longer than WG_ALONE_KEYS is better split by keys. */
enum { WG_ALONE_KEYS = 1024 };
bool attn_wg(struct be *b, struct attn_args *a, enum dtype cache);

#endif
