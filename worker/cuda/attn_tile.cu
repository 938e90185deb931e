/* attn_tile.cu: attention on tensor cores, for prefill and for decode.
 *
 * The rows of a tile are pairs (query, head) of one sequence and one head of keys: the query heads that share a head of
 * keys read it together, so a decode step, too, reads each key once. A warp has 16 rows and keeps their sums; keys and
 * values come in tiles through two stages of shared memory. Long sequences with few rows are split at absolute
 * positions, and merge_kernel adds the parts up, in order.
 *
 * Online softmax: Milakov and Gimelshein, 2018; the tiling: Dao, "FlashAttention-2", 2023. */
#include "worker/cuda/attn.h"

enum { SPLIT_KEYS = 256, SPLITS_MAX = 64 };

/* shape: how a tile lies in shared memory: queries, then two stages of keys and values. */
template <int DIM> struct tile_shape {
    static const int PITCH = DIM + 8;                 /* of a row, in elements: 16-byte parts of 8 rows fall into different banks */
    static const int KEYS = DIM > 128 ? 32 : 64;      /* of a tile */
    static const int STAGE = 2 * KEYS * PITCH;        /* elements of a stage: keys, then values */
    static size_t bytes(int rows) {
        return static_cast<size_t>(rows * PITCH + 2 * STAGE) * 2;
    }
};

/* range: the keys that a block works on, [lo, hi), in tiles from lo on. */
struct range {
    uint32_t lo, hi;
};

/* fetch_keys: the tile of keys and values from j0 on; what is not in the range becomes 0, so that it weighs nothing: a
 * block below a window may be somebody else's by now. */
template <class T, class C, int DIM, int THREADS>
DEV void fetch_keys(const struct attn_args &a, T *stage, uint32_t seq, uint32_t g, uint32_t j0, struct range keys) {
    typedef tile_shape<DIM> S;
    const C *data = static_cast<const C *>(a.kv.data ? a.kv.data : a.qkv);
    const int each = cache_part<T, C>::n, parts = DIM / each;
    for (uint32_t i = threadIdx.x; i < static_cast<uint32_t>(S::KEYS * parts); i += THREADS) {
        uint32_t r = i / parts, d = i % parts * each, j = j0 + r;
        bool there = j >= keys.lo && j < keys.hi;
        T *k = stage + r * S::PITCH + d, *v = stage + (S::KEYS + r) * S::PITCH + d;
        fetch_part<T, C>([=](int part) { return k + 8 * part; }, there ? data + key_row(a, seq, g, j) + d : data, there);
        fetch_part<T, C>([=](int part) { return v + 8 * part; }, there ? data + value_row(a, seq, g, j) + d : data, there);
    }
}

/* scores: s = q k^T of 16 rows and a tile of keys. */
template <class T, int DIM> DEV void scores(float (*s)[4], const T *q, const T *keys) {
    typedef tile_shape<DIM> S;
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < S::KEYS / 8; j++)
        s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
    for (int k = 0; k < DIM; k += 16) {
        uint32_t fq[4], fk[4];
        load_matrix(fq, q + (lane % 16) * S::PITCH + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < S::KEYS / 16; j++) {
            load_matrix(fk, keys + (j * 16 + lane % 8 + lane / 16 * 8) * S::PITCH + k + lane / 8 % 2 * 8);
            mma(s[2 * j], fq, fk, T());
            mma(s[2 * j + 1], fq, fk + 2, T());
        }
    }
}

/* weigh: acc += p v of 16 rows, a tile of values; p as scores leaves its layout. */
template <class T, int DIM> DEV void weigh(float (*acc)[4], const float (*p)[4], const T *values) {
    typedef tile_shape<DIM> S;
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < S::KEYS / 16; j++) {
        uint32_t fp[4] = {pack2<T>(p[2 * j][0], p[2 * j][1]), pack2<T>(p[2 * j][2], p[2 * j][3]),
                          pack2<T>(p[2 * j + 1][0], p[2 * j + 1][1]), pack2<T>(p[2 * j + 1][2], p[2 * j + 1][3])};
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            uint32_t fv[4];
            load_matrix_t(fv, values + (j * 16 + lane % 16) * S::PITCH + d * 16 + lane / 16 * 8);
            mma(acc[2 * d], fp, fv, T());
            mma(acc[2 * d + 1], fp, fv + 2, T());
        }
    }
}

template <class T, class C, int DIM, int WARPS>
static __global__ void __launch_bounds__(WARPS * 32) tile_kernel(struct attn_args a) {
    typedef tile_shape<DIM> S;
    const int ROWS = WARPS * 16, THREADS = WARPS * 32;
    SHARED_DYN(T, room);
    T *q = room, *stages = room + ROWS * S::PITCH;
    dep_wait();
    const struct dplan *p = a.plan;
    uint32_t group = a.n_heads / a.n_kv, chunks = (a.tile_queries * group + ROWS - 1) / ROWS;
    uint32_t tile_at = blockIdx.x / chunks, first_row = blockIdx.x % chunks * ROWS, g = blockIdx.y, split = blockIdx.z;
    if (tile_at >= p->n_tiles)
        return;
    struct dtile tile = PLAN_AT(struct dtile, p, p->tiles)[tile_at];
    uint32_t n_rows = tile.n * group, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (first_row >= n_rows)
        return;
    uint32_t last_row = (first_row + ROWS < n_rows ? first_row + ROWS : n_rows) - 1;
    /* the keys of the block: positions of a sequence's queries ascend */
    struct dkeys from = keys_of(a, tile.first + first_row / group, tile.seq),
                 to = keys_of(a, tile.first + last_row / group, tile.seq);
    struct range keys = {from.lo, to.hi};
    if (a.parts) {
        uint32_t lo = split * a.split_keys, hi = lo + a.split_keys;
        keys.lo = keys.lo > lo ? keys.lo : lo;
        keys.hi = keys.hi < hi ? keys.hi : hi;
    }
    uint32_t start = keys.lo / S::KEYS * S::KEYS; /* whole tiles: what a row may not see is masked below */
    const T *qkv = static_cast<const T *>(a.qkv);
    for (uint32_t i = threadIdx.x; i < static_cast<uint32_t>(ROWS * DIM / 8); i += THREADS) {
        uint32_t r = i / (DIM / 8), d = i % (DIM / 8) * 8, row = first_row + r;
        bool there = row < n_rows;
        const T *at = qkv + static_cast<size_t>(tile.first + row / group) * a.width + (g * group + row % group) * DIM + d;
        copy16(q + r * S::PITCH + d, there ? at : qkv, there ? 16 : 0);
    }
    if (keys.lo < keys.hi)
        fetch_keys<T, C, DIM, THREADS>(a, stages, tile.seq, g, start, keys);
    copies_commit();

    /* Lane 4 i + j has of rows i and i + 8 of its warp's 16 the columns 2 j and 2 j + 1 of every 8. */
    uint32_t my_row[2] = {first_row + warp * 16 + lane / 4, first_row + warp * 16 + lane / 4 + 8};
    struct dkeys mine[2];
    float max[2], sum[2], acc[DIM / 8][4] = {};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t row = my_row[h] < n_rows ? my_row[h] : n_rows - 1;
        mine[h] = keys_of(a, tile.first + row / group, tile.seq);
        bool sink = a.sinks && split == 0;
        max[h] = sink ? a.sinks[g * group + row % group] : -INFINITY;
        sum[h] = sink && lane % 4 == 0 ? 1.0f : 0.0f; /* sums are of four lanes' parts */
    }
    for (uint32_t j0 = start, stage = 0; j0 < keys.hi; j0 += S::KEYS, stage ^= 1) {
        if (j0 + S::KEYS < keys.hi)
            fetch_keys<T, C, DIM, THREADS>(a, stages + (stage ^ 1) * S::STAGE, tile.seq, g, j0 + S::KEYS, keys);
        copies_commit(); /* empty for the last tile, so that the count below holds */
        copies_wait<1>();
        __syncthreads();
        const T *k = stages + stage * S::STAGE, *v = k + S::KEYS * S::PITCH;
        float s[S::KEYS / 8][4], top[2] = {max[0], max[1]};
        scores<T, DIM>(s, q + warp * 16 * S::PITCH, k);
#pragma unroll
        for (int i = 0; i < S::KEYS / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int h = e / 2;
                uint32_t j = j0 + i * 8 + lane % 4 * 2 + e % 2;
                bool seen = j >= mine[h].lo && j < mine[h].hi && j >= keys.lo && j < keys.hi;
                s[i][e] = seen ? score_of(a, s[i][e], 0, mine[h].at, j) : -INFINITY;
                top[h] = fmaxf(top[h], s[i][e]);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            top[h] = fmaxf(top[h], warp_xor(top[h], 1));
            top[h] = fmaxf(top[h], warp_xor(top[h], 2));
            float keep = max[h] == top[h] ? 1.0f : expf(max[h] - top[h]), base = top[h] == -INFINITY ? 0.0f : top[h];
            sum[h] *= keep;
            max[h] = top[h];
#pragma unroll
            for (int i = 0; i < S::KEYS / 8; i++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    s[i][e] = expf(s[i][e] - base);
                    sum[h] += s[i][e];
                }
#pragma unroll
            for (int d = 0; d < DIM / 8; d++) {
                acc[d][2 * h] *= keep;
                acc[d][2 * h + 1] *= keep;
            }
        }
        weigh<T, DIM>(acc, s, v);
        __syncthreads();
    }
    copies_wait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        sum[h] += warp_xor(sum[h], 1);
        sum[h] += warp_xor(sum[h], 2);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (my_row[h] >= n_rows)
            continue;
        uint32_t token = tile.first + my_row[h] / group, head = g * group + my_row[h] % group;
        size_t row = static_cast<size_t>(token) * a.n_heads + head;
        float *part = a.parts ? a.parts + (row * a.n_splits + split) * (DIM + 2) : NULL;
        float one = a.v_scale / sum[h];
#pragma unroll
        for (int d = 0; d < DIM / 8; d++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                uint32_t c = d * 8 + lane % 4 * 2 + e;
                if (part)
                    part[c] = acc[d][2 * h + e];
                else
                    from_f32(&static_cast<T *>(a.out)[row * DIM + c], acc[d][2 * h + e] * one);
            }
        if (part && lane % 4 == 0) {
            part[DIM] = max[h];
            part[DIM + 1] = sum[h];
        }
    }
}

/* merge_kernel: a warp has a row; parts are added in order of their positions. */
template <class T, int DIM> static __global__ void merge_kernel(struct attn_args a) {
    dep_wait();
    uint32_t lane = threadIdx.x % 32;
    size_t row = static_cast<size_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= static_cast<size_t>(a.plan->n_tokens) * a.n_heads) /* a whole warp */
        return;
    const float *part = a.parts + row * a.n_splits * (DIM + 2);
    float max = -INFINITY, sum = 0, acc[DIM / 32] = {};
    for (uint32_t s = 0; s < a.n_splits; s++)
        max = fmaxf(max, part[s * (DIM + 2) + DIM]);
    for (uint32_t s = 0; s < a.n_splits; s++, part += DIM + 2) {
        float w = part[DIM] == -INFINITY ? 0.0f : expf(part[DIM] - max);
        sum += w * part[DIM + 1];
        for (int i = 0; i < DIM / 32; i++)
            acc[i] = fmaf(w, part[i * 32 + lane], acc[i]);
    }
    for (int i = 0; i < DIM / 32; i++)
        from_f32(&static_cast<T *>(a.out)[row * DIM + i * 32 + lane], acc[i] / sum * a.v_scale);
}

template <class T, class C, int DIM, int WARPS> static void tile_launch(struct be *b, struct attn_args *a) {
    uint32_t group = a->n_heads / a->n_kv, rows = WARPS * 16, n_tiles = b->decode ? b->n_tokens : b->plan.n_tiles;
    a->tile_queries = b->decode ? 1 : TILE_QUERIES;
    uint32_t chunks = (a->tile_queries * group + rows - 1) / rows;
    dim3 grid(n_tiles * chunks, a->n_kv, a->n_splits);
    rt_run(b->rt, tile_kernel<T, C, DIM, WARPS>, grid, dim3(WARPS * 32), tile_shape<DIM>::bytes(WARPS * 16), *a);
    if (a->parts)
        rt_run(b->rt, merge_kernel<T, DIM>, dim3(blocks_for(static_cast<uint64_t>(b->n_tokens) * a->n_heads, 4)), dim3(128),
               0, *a);
}

template <class T, class C, int DIM> static void tile_dim(struct be *b, struct attn_args *a) {
    if (b->decode)
        tile_launch<T, C, DIM, 1>(b, a);
    else
        tile_launch<T, C, DIM, 4>(b, a);
}

template <class T, class C> static void tile_typed(struct be *b, struct attn_args *a) {
    switch (a->dim) {
    case 64:
        return tile_dim<T, C, 64>(b, a);
    case 96:
        return tile_dim<T, C, 96>(b, a);
    case 128:
        return tile_dim<T, C, 128>(b, a);
    default:
        return tile_dim<T, C, 256>(b, a);
    }
}

/* split: how many blocks share a sequence's keys, so that a few rows keep the whole device busy. */
static void split(struct be *b, struct attn_args *a) {
    uint32_t keys = b->kv_len_max, n_blocks = (b->decode ? b->n_tokens : b->plan.n_tiles) * a->n_kv;
    a->n_splits = 1;
    a->split_keys = UINT32_MAX;
    uint32_t want = static_cast<uint32_t>(b->device.n_sms) * 4 / MAX(n_blocks, 1u);
    want = MIN(MIN(want, (keys + SPLIT_KEYS - 1) / SPLIT_KEYS), static_cast<uint32_t>(SPLITS_MAX));
    if (want < 2 || !a->kv.data)
        return;
    a->split_keys = ((keys + want - 1) / want + 63) / 64 * 64;
    a->n_splits = (keys + a->split_keys - 1) / a->split_keys;
    a->parts = static_cast<float *>(
        dev_scratch(b, SCRATCH_SPLIT, static_cast<size_t>(b->n_tokens) * a->n_heads * a->n_splits * (a->dim + 2) * 4));
}

bool attn_tiles(struct be *b, struct attn_args *a, enum dtype cache) {
    bool dim_fits = a->dim == 64 || a->dim == 96 || a->dim == 128 || a->dim == 256;
    bool fp8 = cache == DT_F8E4M3;
    if (!dim_fits || a->dim_v != a->dim || (cache != b->act && !fp8) || b->act == DT_F32 || a->rel_bias)
        return false;
    split(b, a);
    if (b->act == DT_BF16)
        fp8 ? tile_typed<bf16, f8>(b, a) : tile_typed<bf16, bf16>(b, a);
    else
        fp8 ? tile_typed<f16, f8>(b, a) : tile_typed<f16, f16>(b, a);
    return true;
}
