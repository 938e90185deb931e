/* attn_wg.cu: attention of prompts by wgmma, on sm_90a.
 *
 * The rows of a block are pairs (query, head) of one sequence and one head of keys, as in attn_tile.cu; a warpgroup has 64
 * of them. Keys and values come in tiles by asynchronous copies into permuted shared memory (wg.h), two of each in turn. The
 * scores of a tile are asked for together with the values of the tile before, and become weights while those are summed;
 * and while one warpgroup takes exponentials the other has the tensor cores.
 *
 * Scores are kept in units of log2 e, so that a weight is one exp2f. */
#include "worker/cuda/attn.h"
#include "worker/cuda/wg.h"

template <int DIM, int WGS> struct wg_shape {
    static const int BYTES = DIM % 64 ? 64 : 128; /* of a chunk's row */
    static const int ROWS = 64 * WGS, KEYS = DIM > 128 ? 64 : 128, THREADS = 128 * WGS;
    static const int WIDTH = DIM < 128 ? DIM : 128; /* of a product with values */
    static const uint32_t QUERY_BYTES = ROWS * DIM * 2, TILE_BYTES = KEYS * DIM * 2;
    static const uint32_t ALL_BYTES = QUERY_BYTES + 4 * TILE_BYTES + 1024; /* two of keys, two of values; to begin at 1024 */
};

struct wg_keys { /* of a block: positions [lo, hi) */
    uint32_t lo, hi;
};

static const float LOG2_E = 1.4426950408889634f;

/* wg_fetch: a tile of keys, or of values, from j0 on; what is not in the range becomes 0: a block of the cache below a
 * window may be somebody else's by now. */
template <class T, class C, int DIM, int WGS, bool VALUES>
DEV void wg_fetch(const struct attn_args &a, unsigned char *to, uint32_t seq, uint32_t g, uint32_t j0, struct wg_keys keys) {
    typedef wg_shape<DIM, WGS> S;
    const C *data = static_cast<const C *>(a.kv.data ? a.kv.data : a.qkv);
    const uint32_t each = cache_part<T, C>::n, parts = DIM / each;
    for (uint32_t i = threadIdx.x; i < S::KEYS * parts; i += S::THREADS) {
        uint32_t r = i / parts, d = i % parts * each, j = j0 + r;
        bool there = j >= keys.lo && j < keys.hi;
        const C *from = !there ? data : data + (VALUES ? value_row(a, seq, g, j) : key_row(a, seq, g, j)) + d;
        fetch_part<T, C>(
            [=](int part) {
                return reinterpret_cast<T *>(to + wg_byte<S::BYTES>(S::KEYS, r, d + 8 * static_cast<uint32_t>(part)));
            },
            from, there);
    }
}

/* wg_row: of a thread: what it sees, and the running largest score and sum of its part. */
struct wg_row {
    struct dkeys keys;
    uint32_t row;
    float max, sum;
};

/* wg_weights: scores of a tile from j0 on become weights, as sums and earlier sums' factors (keep) are brought up. Lane
 * 4 i + j has of rows i and i + 8 of its warp's 16 the columns 2 j and 2 j + 1 of every 8. */
template <int KEYS> DEV void wg_weights(const struct attn_args &a, float (*s)[4], struct wg_row rows[2], uint32_t j0,
                                        struct wg_keys keys, float keep[2]) {
    uint32_t col = threadIdx.x % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        struct wg_row &r = rows[h];
        uint32_t lo = r.keys.lo > keys.lo ? r.keys.lo : keys.lo, hi = r.keys.hi < keys.hi ? r.keys.hi : keys.hi;
        bool all = j0 >= lo && j0 + KEYS <= hi;
        float top = r.max, unit = a.scale * LOG2_E;
#pragma unroll
        for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; e++) {
                uint32_t j = j0 + static_cast<uint32_t>(i) * 8 + col + static_cast<uint32_t>(e % 2);
                s[i][e] *= unit;
                if (a.softcap > 0)
                    s[i][e] = a.softcap * LOG2_E * tanhf(s[i][e] / (a.softcap * LOG2_E));
                if (!all && !(j >= lo && j < hi))
                    s[i][e] = -INFINITY;
                top = fmaxf(top, s[i][e]);
            }
        top = fmaxf(top, warp_xor(top, 1));
        top = fmaxf(top, warp_xor(top, 2));
        keep[h] = r.max == top ? 1.0f : exp2f(r.max - top);
        float base = top == -INFINITY ? 0.0f : top, sum = r.sum * keep[h];
#pragma unroll
        for (int i = 0; i < KEYS / 8; i++)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; e++) {
                s[i][e] = exp2f(s[i][e] - base);
                sum += s[i][e];
            }
        r.max = top;
        r.sum = sum;
    }
}

#if defined(WEIR_CUDA_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* wg_scores: s = q k^T of the warpgroup's rows and a tile of keys. wg_sums: acc += weights v, of a tile of values.
 * wg_pack: weights as wg_sums takes them. */
template <class T, int DIM, int WGS> DEV void wg_scores(float (*s)[4], uint32_t q_at, uint32_t k_at, uint32_t wg) {
    typedef wg_shape<DIM, WGS> S;
    wg_mma<S::KEYS, false>(s, wg_by_rows<S::BYTES>(q_at, S::ROWS, wg * 64, 0), wg_by_rows<S::BYTES>(k_at, S::KEYS, 0, 0), T());
#pragma unroll
    for (uint32_t k = 16; k < DIM; k += 16)
        wg_mma<S::KEYS, true>(s, wg_by_rows<S::BYTES>(q_at, S::ROWS, wg * 64, k), wg_by_rows<S::BYTES>(k_at, S::KEYS, 0, k), T());
}
template <class T, int DIM, int WGS> DEV void wg_sums(float (*acc)[4], const uint32_t (*weights)[4], uint32_t v_at) {
    typedef wg_shape<DIM, WGS> S;
#pragma unroll
    for (uint32_t d = 0; d < DIM; d += S::WIDTH)
#pragma unroll
        for (uint32_t k = 0; k < S::KEYS; k += 16)
            wg_mma<S::WIDTH>(acc + d / 8, weights[k / 16], wg_by_cols<S::BYTES>(v_at, S::KEYS, d, k), T());
}
template <class T, int KEYS> DEV void wg_pack(uint32_t (*weights)[4], const float (*s)[4]) {
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            weights[k][e] = pack2<T>(s[2 * k + e / 2][e % 2 * 2], s[2 * k + e / 2][e % 2 * 2 + 1]);
}

template <class T, class C, int DIM, int WGS>
static __global__ void __launch_bounds__(WGS * 128, 1) wg_kernel(struct attn_args a) {
    typedef wg_shape<DIM, WGS> S;
    SHARED_DYN(unsigned char, dynamic);
    unsigned char *room = dynamic + (1024 - shared_at(dynamic) % 1024) % 1024;
    uint32_t q_at = shared_at(room), tiles_at = q_at + S::QUERY_BYTES;
    dep_wait();
    const struct dplan *p = a.plan;
    uint32_t group = a.n_heads / a.n_kv, chunks = (a.tile_queries * group + S::ROWS - 1) / S::ROWS, g = blockIdx.y;
    uint32_t tile_at = blockIdx.x / chunks, first_row = blockIdx.x % chunks * S::ROWS;
    if (tile_at >= p->n_tiles)
        return;
    struct dtile tile = PLAN_AT(struct dtile, p, p->tiles)[tile_at];
    uint32_t n_rows = tile.n * group, lane = threadIdx.x % 32, wg = threadIdx.x / 128;
    if (first_row >= n_rows)
        return;
    uint32_t last_row = (first_row + S::ROWS < n_rows ? first_row + S::ROWS : n_rows) - 1;
    /* positions of a sequence's queries ascend */
    struct wg_keys keys = {keys_of(a, tile.first + first_row / group, tile.seq).lo,
                           keys_of(a, tile.first + last_row / group, tile.seq).hi};
    const T *qkv = static_cast<const T *>(a.qkv);
    for (uint32_t i = threadIdx.x; i < S::ROWS * (DIM / 8); i += S::THREADS) {
        uint32_t r = i / (DIM / 8), d = i % (DIM / 8) * 8, row = first_row + r;
        bool there = row < n_rows;
        const T *at = qkv + static_cast<size_t>(tile.first + row / group) * a.width + (g * group + row % group) * DIM + d;
        copy16(room + wg_byte<S::BYTES>(S::ROWS, r, d), there ? at : qkv, there ? 16 : 0);
    }
    uint32_t start = keys.lo / S::KEYS * S::KEYS, n_tiles = (keys.hi - start + S::KEYS - 1) / S::KEYS;
    unsigned char *tiles = room + S::QUERY_BYTES; /* keys of even and odd tiles, then values */
    auto fetch_keys = [=](uint32_t t) {
        if (t < n_tiles)
            wg_fetch<T, C, DIM, WGS, false>(a, tiles + t % 2 * S::TILE_BYTES, tile.seq, g, start + t * S::KEYS, keys);
    };
    auto fetch_values = [=](uint32_t t) {
        wg_fetch<T, C, DIM, WGS, true>(a, tiles + (2 + t % 2) * S::TILE_BYTES, tile.seq, g, start + t * S::KEYS, keys);
    };
    fetch_keys(0);
    copies_commit();
    fetch_keys(1);
    fetch_values(0);
    copies_commit();

    struct wg_row rows[2];
    float s[S::KEYS / 8][4] = {}, acc[DIM / 8][4] = {}, keep[2];
    uint32_t weights[S::KEYS / 16][4];
    for (uint32_t h = 0; h < 2; h++) {
        rows[h].row = first_row + threadIdx.x / 32 * 16 + lane / 4 + 8 * h;
        uint32_t row = rows[h].row < n_rows ? rows[h].row : n_rows - 1;
        rows[h].keys = keys_of(a, tile.first + row / group, tile.seq);
        rows[h].max = a.sinks ? a.sinks[g * group + row % group] * LOG2_E : -INFINITY;
        rows[h].sum = a.sinks && lane % 4 == 0 ? 1.0f : 0.0f; /* sums are of four lanes' parts */
    }
    copies_wait<1>();
    wg_written();
    __syncthreads();
    wg_begin();
    wg_scores<T, DIM, WGS>(s, q_at, tiles_at, wg);
    wg_commit();
    wg_wait<0>();
    wg_settled<S::KEYS>(s);
    wg_weights<S::KEYS>(a, s, rows, start, keys, keep);
    wg_pack<T, S::KEYS>(weights, s);
    for (uint32_t t = 0; t + 1 < n_tiles; t++) { /* scores of t + 1, values of t */
        copies_wait<0>();
        wg_written();
        __syncthreads(); /* and nobody reads the keys of t, or the values of t - 1, any more */
        fetch_keys(t + 2);
        fetch_values(t + 1);
        copies_commit();
        wg_begin();
        wg_scores<T, DIM, WGS>(s, q_at, tiles_at + (t + 1) % 2 * S::TILE_BYTES, wg);
        wg_commit();
        wg_sums<T, DIM, WGS>(acc, weights, tiles_at + (2 + t % 2) * S::TILE_BYTES);
        wg_commit();
        wg_wait<1>();
        wg_settled<S::KEYS>(s);
        wg_weights<S::KEYS>(a, s, rows, start + (t + 1) * S::KEYS, keys, keep);
        wg_wait<0>();
        wg_settled<DIM>(acc);
#pragma unroll
        for (int d = 0; d < DIM / 8; d++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                acc[d][e] *= keep[e / 2];
        wg_pack<T, S::KEYS>(weights, s);
    }
    copies_wait<0>();
    wg_written();
    __syncthreads();
    wg_begin();
    wg_sums<T, DIM, WGS>(acc, weights, tiles_at + (2 + (n_tiles - 1) % 2) * S::TILE_BYTES);
    wg_commit();
    wg_wait<0>();
    wg_settled<DIM>(acc);
    for (int h = 0; h < 2; h++) {
        rows[h].sum += warp_xor(rows[h].sum, 1);
        rows[h].sum += warp_xor(rows[h].sum, 2);
    }
    for (int h = 0; h < 2; h++) {
        if (rows[h].row >= n_rows)
            continue;
        uint32_t token = tile.first + rows[h].row / group, head = g * group + rows[h].row % group;
        T *out = static_cast<T *>(a.out) + (static_cast<size_t>(token) * a.n_heads + head) * DIM + lane % 4 * 2;
        float one = a.v_scale / rows[h].sum;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++)
            *reinterpret_cast<uint32_t *>(out + d * 8) = pack2<T>(acc[d][2 * h] * one, acc[d][2 * h + 1] * one);
    }
}
#else /* the host, and architectures without wgmma, where the host does not ask for it */
template <class T, class C, int DIM, int WGS>
static __global__ void __launch_bounds__(WGS * 128, 1) wg_kernel(struct attn_args a) {
    (void)a;
    __trap();
}
#endif

template <class T, class C, int DIM, int WGS> static void wg_launch(struct be *b, const struct attn_args *a) {
    typedef wg_shape<DIM, WGS> S;
    uint32_t chunks = blocks_for(static_cast<uint64_t>(a->tile_queries) * (a->n_heads / a->n_kv), S::ROWS);
    rt_run(b->rt, wg_kernel<T, C, DIM, WGS>, dim3(b->plan.n_tiles * chunks, a->n_kv), dim3(S::THREADS), S::ALL_BYTES, *a);
}

/* Two warpgroups share keys where there are rows for both; and where keys are widened, which is the more work. */
template <class T, class C, int DIM> static void wg_dim(struct be *b, const struct attn_args *a) {
    if constexpr (sizeof(C) == 1)
        wg_launch<T, C, DIM, 2>(b, a);
    else if (a->tile_queries * (a->n_heads / a->n_kv) > 64)
        wg_launch<T, C, DIM, 2>(b, a);
    else
        wg_launch<T, C, DIM, 1>(b, a);
}

template <class T, class C> static void wg_typed(struct be *b, const struct attn_args *a) {
    switch (a->dim) {
    case 64:
        return wg_dim<T, C, 64>(b, a);
    case 96:
        return wg_dim<T, C, 96>(b, a);
    case 128:
        return wg_dim<T, C, 128>(b, a);
    default:
        return wg_dim<T, C, 256>(b, a);
    }
}

bool attn_wg(struct be *b, struct attn_args *a, enum dtype cache) {
    bool dim_fits = a->dim == 64 || a->dim == 96 || a->dim == 128 || a->dim == 256;
    bool fp8 = cache == DT_F8E4M3;
    if (b->device.sm != 90 || b->decode || !dim_fits || a->dim_v != a->dim || (cache != b->act && !fp8) ||
        b->act == DT_F32 || a->rel_bias || b->plan.n_tiles == 0)
        return false;
    a->tile_queries = TILE_QUERIES;
    uint32_t group = a->n_heads / a->n_kv, n_blocks = b->plan.n_tiles * blocks_for(TILE_QUERIES * group, 128) * a->n_kv;
    if (a->kv.data && n_blocks < static_cast<uint32_t>(b->device.n_sms) && b->kv_len_max > WG_ALONE_KEYS)
        return false; /* too few to fill the device: better split by keys */
    if (b->act == DT_BF16)
        fp8 ? wg_typed<bf16, f8>(b, a) : wg_typed<bf16, bf16>(b, a);
    else
        fp8 ? wg_typed<f16, f8>(b, a) : wg_typed<f16, f16>(b, a);
    return true;
}
