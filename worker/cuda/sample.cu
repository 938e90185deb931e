/* sample.cu: sampling, as backend.h defines it to the bit. A block has a row. Nothing is sorted: the best tokens by
 * count or by weight are found by narrowing down, eight bits at a time, the key of the last one that is kept. */
#include "worker/cuda/sample.h"

#include <float.h>

enum { THREADS = 512 };

struct room {
    unsigned long long bins[256];
    unsigned long long sums[32];
    float floats[32];
    unsigned long long found;
};

DEV float block_max(float v, float *room) {
    v = warp_max(v);
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_max(threadIdx.x % 32 < blockDim.x / 32 ? room[threadIdx.x % 32] : -INFINITY);
    __syncthreads();
    return v;
}

DEV unsigned long long warp_min(unsigned long long v) {
    for (int lanes = 16; lanes; lanes >>= 1) {
        unsigned long long o = warp_xor(v, lanes);
        v = o < v ? o : v;
    }
    return v;
}

DEV unsigned long long block_min(unsigned long long v, unsigned long long *room) {
    v = warp_min(v);
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_min(threadIdx.x % 32 < blockDim.x / 32 ? room[threadIdx.x % 32] : ~0ull);
    __syncthreads();
    return v;
}

DEV float saturate(float x) {
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

/* key_of: ascending is best first: the larger logit, then the lower id. */
DEV unsigned long long key_of(float l, uint32_t id) {
    uint32_t u = __float_as_uint(l + 0.0f);
    u = u & 0x80000000u ? u : ~u & 0x7FFFFFFFu;
    return static_cast<unsigned long long>(u) << 32 | id;
}

/* select: the key of the last token that is kept when tokens are taken best first until their weights reach `need`,
 * which they do. weight(i): 0 for what is not there. Two levels of digits: of the logit, then of the id. */
template <class F> DEV unsigned long long select(const float *l, uint32_t n, unsigned long long need, F weight, struct room *room) {
    unsigned long long prefix = 0, mask = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        if (shift == 24) /* ids are below 2^24 */
            mask |= 0xFFull << 24;
        if (shift == 24)
            continue;
        for (uint32_t i = threadIdx.x; i < 256; i += THREADS)
            room->bins[i] = 0;
        __syncthreads();
        uint32_t bin = 0;
        unsigned long long run = 0; /* most neighbours share a bin: add them up first */
        for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
            unsigned long long key = key_of(l[i], i), w;
            if ((key & mask) != prefix || (w = weight(i)) == 0)
                continue;
            uint32_t to = static_cast<uint32_t>(key >> shift) & 255;
            if (to != bin && run) {
                atomicAdd(&room->bins[bin], run);
                run = 0;
            }
            bin = to;
            run += w;
        }
        if (run)
            atomicAdd(&room->bins[bin], run);
        __syncthreads();
        unsigned long long before = 0;
        uint32_t d = 0;
        while (d < 255 && before + room->bins[d] < need)
            before += room->bins[d++];
        need -= before;
        prefix |= static_cast<unsigned long long>(d) << shift;
        mask |= 0xFFull << shift;
        __syncthreads();
    }
    return prefix;
}

template <class F> DEV unsigned long long total_of(uint32_t n, F weight, struct room *room) {
    unsigned long long s = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        s += weight(i);
    return block_sum(s, room->sums);
}

/* at_point: the first id, ascending, whose running sum of weights exceeds point, which is below the total. */
template <class F> DEV uint32_t at_point(uint32_t n, unsigned long long point, F weight, struct room *room) {
    uint32_t each = (n + THREADS - 1) / THREADS, lo = threadIdx.x * each, hi = lo + each < n ? lo + each : n;
    unsigned long long mine = 0, upto;
    for (uint32_t i = lo; i < hi; i++)
        mine += weight(i);
    upto = mine; /* an inclusive scan over the block */
    for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
        unsigned long long o = warp_up(upto, lanes);
        upto += threadIdx.x % 32 >= lanes ? o : 0;
    }
    if (threadIdx.x % 32 == 31)
        room->sums[threadIdx.x / 32] = upto;
    __syncthreads();
    for (uint32_t w = 0; w < threadIdx.x / 32; w++)
        upto += room->sums[w];
    if (upto - mine <= point && point < upto) {
        unsigned long long run = upto - mine;
        uint32_t i = lo;
        while (run + weight(i) <= point)
            run += weight(i++);
        room->found = i;
    }
    __syncthreads();
    uint32_t id = static_cast<uint32_t>(room->found);
    __syncthreads();
    return id;
}

DEV uint64_t need_of(float top_p, unsigned long long total) {
    double need = ceil(static_cast<double>(top_p) * static_cast<double>(total));
    if (!(need >= 1))
        return 1;
    return need >= static_cast<double>(total) ? total : static_cast<uint64_t>(need);
}

DEV uint32_t draw(const struct drow &row, const float *l, uint32_t n, float m, struct room *room) {
    float t = row.temperature, min_p = row.min_p < 1 ? row.min_p : 1.0f;
    auto passes = [=](uint32_t i) { return l[i] > -INFINITY && !(min_p > 0 && be_exp((l[i] - m) / t) < min_p); };
    unsigned long long last = ~0ull;
    if (row.top_k > 0) {
        unsigned long long count = total_of(n, [=](uint32_t i) { return passes(i) ? 1ull : 0ull; }, room);
        if (count > row.top_k)
            last = select(l, n, row.top_k, [=](uint32_t i) { return passes(i) ? 1ull : 0ull; }, room);
    }
    auto weight = [=](uint32_t i) {
        return key_of(l[i], i) <= last && passes(i) ? static_cast<unsigned long long>(be_weight40((l[i] - m) / t)) : 0ull;
    };
    unsigned long long total = total_of(n, weight, room);
    if (row.top_p < 1) {
        unsigned long long end = select(l, n, need_of(row.top_p, total), weight, room);
        auto kept = [=](uint32_t i) { return key_of(l[i], i) <= end ? weight(i) : 0ull; };
        total = total_of(n, kept, room);
        return at_point(n, __umul64hi(be_philox64(row.seed, row.position), total), kept, room);
    }
    return at_point(n, __umul64hi(be_philox64(row.seed, row.position), total), weight, room);
}

/* report_value: what a mode reports for one token, from its l and d and the logarithm of sum(w) / 2^40. */
DEV float report_value(uint32_t mode, float divisor, float l, float d, double log_total) {
    if (mode == BE_RAW_LOGITS)
        return l;
    if (mode == BE_PROCESSED_LOGITS)
        return l == -INFINITY ? l : saturate(l / divisor);
    return static_cast<float>(static_cast<double>(d) - log_total);
}

/* report: logprob, rank and the best n_top; ranks are by the raw logits. */
DEV void report(const struct sample_args &a, const struct drow &row, const float *raw, const float *l, float t, uint32_t mode,
                struct dsample_out *out, struct room *room) {
    float m = -INFINITY;
    for (uint32_t i = threadIdx.x; i < a.n_vocab; i += THREADS)
        m = fmaxf(m, l[i]);
    m = block_max(m, room->floats);
    unsigned long long total =
        total_of(a.n_vocab, [=](uint32_t i) { return static_cast<unsigned long long>(be_weight40((l[i] - m) / t)); }, room);
    double log_total = log(static_cast<double>(total) * 0x1p-40);
    unsigned long long mine = key_of(raw[out->id], out->id);
    unsigned long long better =
        total_of(a.n_vocab, [=](uint32_t i) { return key_of(raw[i], i) < mine ? 1ull : 0ull; }, room);
    if (threadIdx.x == 0) {
        out->logprob = report_value(mode, t, l[out->id], (l[out->id] - m) / t, log_total);
        out->rank = static_cast<uint32_t>(better) + 1;
    }
    uint32_t *ids = a.top_ids + static_cast<size_t>(blockIdx.x) * a.n_top_max;
    float *values = a.top_values + static_cast<size_t>(blockIdx.x) * a.n_top_max;
    unsigned long long last = 0;
    for (uint32_t k = 0; k < row.n_top; k++) {
        unsigned long long best = ~0ull;
        for (uint32_t i = threadIdx.x; i < a.n_vocab; i += THREADS) {
            unsigned long long key = key_of(l[i], i);
            if ((k == 0 || key > last) && key < best)
                best = key;
        }
        last = block_min(best, room->sums);
        uint32_t id = static_cast<uint32_t>(last);
        if (threadIdx.x == 0) {
            ids[k] = id;
            values[k] = report_value(mode, t, l[id], (l[id] - m) / t, log_total);
        }
    }
}

/* process: raw to l: bias, penalties, bans, mask. Each step ends before the next begins; ids of an array are unique. */
DEV void process(const struct sample_args &a, const struct drow &row, const float *raw, float *l) {
    const struct sample_bias *bias = reinterpret_cast<const struct sample_bias *>(a.block + row.bias);
    const struct sample_seen *seen = reinterpret_cast<const struct sample_seen *>(a.block + row.seen);
    const uint32_t *banned = reinterpret_cast<const uint32_t *>(a.block + row.banned);
    const uint32_t *mask = reinterpret_cast<const uint32_t *>(a.block + row.mask);
    uint32_t n = a.n_vocab;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        l[i] = raw[i];
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < row.n_bias; i += THREADS)
        if (bias[i].id < n && l[bias[i].id] > -INFINITY)
            l[bias[i].id] = saturate(l[bias[i].id] + bias[i].value);
    __syncthreads();
    bool repetition = row.repetition > 0 && row.repetition != 1.0f;
    if (repetition || row.frequency != 0 || row.presence != 0)
        for (uint32_t i = threadIdx.x; i < row.n_seen; i += THREADS) {
            struct sample_seen s = seen[i];
            if (s.id >= n || l[s.id] == -INFINITY)
                continue;
            float x = l[s.id];
            if (repetition)
                x = x > 0 ? x / row.repetition : x * row.repetition;
            if (s.n_output > 0) { /* two roundings each, as on a processor without fused operations */
                x = add_rounded(x, -mul_rounded(row.frequency, static_cast<float>(s.n_output)));
                x = add_rounded(x, -row.presence);
            }
            l[s.id] = saturate(x);
        }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < row.n_banned; i += THREADS)
        if (banned[i] < n)
            l[banned[i]] = -INFINITY;
    __syncthreads();
    if (row.mask)
        for (uint32_t i = threadIdx.x; i < n; i += THREADS)
            if (!(mask[i / 32] >> i % 32 & 1))
                l[i] = -INFINITY;
    __syncthreads();
}

static __global__ void __launch_bounds__(THREADS) sample_kernel(struct sample_args a) {
    SHARED(struct room, shared, 1);
    struct room *room = shared;
    dep_wait();
    struct drow row = a.rows[blockIdx.x];
    const float *raw = a.logits + static_cast<size_t>(row.row) * a.stride;
    float *l = a.processed + static_cast<size_t>(row.row) * a.stride;
    struct dsample_out *out = a.outs + blockIdx.x;
    uint32_t n = a.n_vocab;
    unsigned long long bad = 0;
    float m = -INFINITY;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        bad += isnan(raw[i]) || raw[i] == INFINITY;
        m = fmaxf(m, raw[i]);
    }
    bad = block_sum(bad, room->sums);
    m = block_max(m, room->floats);
    bool given = row.target != BE_NO_TOKEN;
    if (threadIdx.x == 0) {
        out->id = row.target;
        out->nan = bad > 0;
        out->logprob = 0;
        out->rank = 0;
        if (!given)
            a.last_ids[blockIdx.x] = BE_NO_TOKEN;
    }
    __syncthreads();
    if (bad || (given && m == -INFINITY))
        return;
    if (given) {
        report(a, row, raw, raw, 1.0f, BE_RAW_LOGPROBS, out, room);
        return;
    }
    process(a, row, raw, l);
    m = -INFINITY;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        m = fmaxf(m, l[i]);
    m = block_max(m, room->floats);
    if (m == -INFINITY)
        return;
    uint32_t id;
    if (row.temperature > 0) {
        id = draw(row, l, n, m, room);
    } else {
        unsigned long long first = ~0ull;
        for (uint32_t i = threadIdx.x; i < n; i += THREADS)
            if (l[i] == m && i < first)
                first = i;
        id = static_cast<uint32_t>(block_min(first, room->sums));
    }
    if (threadIdx.x == 0) {
        out->id = id;
        a.last_ids[blockIdx.x] = id;
    }
    __syncthreads();
    bool is_raw = row.mode == BE_RAW_LOGPROBS || row.mode == BE_RAW_LOGITS;
    float divisor = row.temperature > 0 ? row.temperature : 1.0f;
    if (row.wants)
        report(a, row, raw, is_raw ? raw : l, is_raw ? 1.0f : divisor, row.mode, out, room);
}

void sample_run(struct be *b, const struct sample_args *a, uint32_t n) {
    CHECK(b->n_vocab < 1u << 24);
    rt_run(b->rt, sample_kernel, dim3(n), dim3(THREADS), 0, *a);
}
