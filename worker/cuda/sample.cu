/* sample.cu: sampling, as backend.h defines it to the bit. A block has a row. Nothing is sorted: the last token that is
 * kept, by count or by weight, is found by narrowing down. A row of 128k logits is read once for the best token, once
 * more for a draw, and twice more for each of top_k and top_p. */
#include "worker/cuda/sample.h"

#include <float.h>

enum { THREADS = 512, WARPS = THREADS / 32, BINS = 256, LIST_MAX = 2048, VECS = 4 };

struct room {
    unsigned long long bins[BINS];
    unsigned long long sums[32];
    unsigned long long list[LIST_MAX]; /* keys of candidates */
    unsigned long long before, found;
    uint32_t bin, n_list;
};

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

/* each: f(i, l[i]) for the thread's share of i < n, ascending; rows are padded to whole vectors, and several of them are
 * on their way at a time, since one block has to keep up with the memory. */
template <class F> DEV void each(const float *l, uint32_t n, F f) {
    for (uint32_t at = 4 * threadIdx.x; at < n; at += 4 * VECS * THREADS) {
        vec<float> v[VECS] = {};
#pragma unroll
        for (int u = 0; u < VECS; u++)
            if (at + 4 * u * THREADS < n)
                v[u] = vec_load(l + at + 4 * u * THREADS);
#pragma unroll
        for (int u = 0; u < VECS; u++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (at + 4 * u * THREADS + e < n)
                    f(at + 4 * u * THREADS + e, v[u].e[e]);
    }
}

/* scale: of a draw: a logit's distance from the largest, m, at temperature t. */
struct scale {
    float m, t;
};
DEV float distance(const struct scale &s, float l) {
    return (l - s.m) / s.t;
}
/* bin_of: ascending is best first; equal logits share one. Weights beyond the last are 0. */
DEV uint32_t bin_of(const struct scale &s, float l) {
    float d = distance(s, l) * -9.0f;
    return d < BINS - 1 ? static_cast<uint32_t>(d) : BINS - 1;
}

DEV void bins_clear(struct room *room) {
    for (uint32_t i = threadIdx.x; i < BINS; i += THREADS)
        room->bins[i] = 0;
    __syncthreads();
}

/* bins_find: room->bin, where the running sum of bins reaches need, which is 1 up to their total, and room->before, the
 * sum in front of it. */
DEV void bins_find(unsigned long long need, struct room *room) {
    const uint32_t per_lane = BINS / 32;
    if (threadIdx.x < 32) {
        unsigned long long mine = 0, upto;
        for (uint32_t i = 0; i < per_lane; i++)
            mine += room->bins[threadIdx.x * per_lane + i];
        upto = mine;
        for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
            unsigned long long o = warp_up(upto, lanes);
            upto += threadIdx.x >= lanes ? o : 0;
        }
        if (upto - mine < need && need <= upto) {
            unsigned long long before = upto - mine;
            uint32_t bin = threadIdx.x * per_lane;
            while (before + room->bins[bin] < need)
                before += room->bins[bin++];
            room->bin = bin;
            room->before = before;
        }
    }
    __syncthreads();
}

/* cut: the key of the last token that is kept, and the weights of all that are. */
struct cut {
    unsigned long long last, sum;
};

/* narrow: the cut among candidates, digit by digit of their keys: of the logit, then of the id. items(f) calls f(key,
 * weight) for each candidate of the thread. */
template <class I> DEV struct cut narrow(unsigned long long need, I items, struct room *room) {
    unsigned long long prefix = 0, mask = 0xFFull << 24; /* ids are below 2^24 */
    struct cut c = {0, 0};
    for (int shift = 56; shift >= 0; shift -= shift == 32 ? 16 : 8) {
        bins_clear(room);
        items([&](unsigned long long key, unsigned long long w) {
            if ((key & mask) == prefix)
                atomicAdd(&room->bins[key >> shift & 255], w);
        });
        __syncthreads();
        bins_find(need, room);
        need -= room->before;
        c.sum += room->before;
        prefix |= static_cast<unsigned long long>(room->bin) << shift;
        mask |= 0xFFull << shift;
    }
    c.sum += room->bins[room->bin];
    c.last = prefix;
    __syncthreads();
    return c;
}

/* select: tokens are taken best first until their weights reach need(total), at most the total; 0: all of them. weight(i,
 * l): 0 for what is not there. */
template <class W, class N>
DEV struct cut select(const float *l, uint32_t n, struct scale s, W weight, N need_of, struct room *room) {
    bins_clear(room);
    each(l, n, [&](uint32_t i, float x) {
        unsigned long long w = weight(i, x);
        if (w)
            atomicAdd(&room->bins[bin_of(s, x)], w);
    });
    if (threadIdx.x == 0)
        room->n_list = 0;
    __syncthreads();
    unsigned long long total = block_sum(threadIdx.x < BINS ? room->bins[threadIdx.x] : 0ull, room->sums);
    unsigned long long need = need_of(total);
    if (need == 0)
        return {~0ull, total};
    bins_find(need, room);
    uint32_t bin = room->bin;
    unsigned long long before = room->before;
    each(l, n, [&](uint32_t i, float x) {
        if (bin_of(s, x) != bin || weight(i, x) == 0)
            return;
        uint32_t at = atomicAdd(&room->n_list, 1u);
        if (at < LIST_MAX)
            room->list[at] = key_of(x, i);
    });
    __syncthreads();
    uint32_t n_list = room->n_list;
    struct cut c;
    if (n_list <= LIST_MAX)
        c = narrow(need - before, [&](auto f) {
            for (uint32_t i = threadIdx.x; i < n_list; i += THREADS) {
                uint32_t id = static_cast<uint32_t>(room->list[i]);
                f(room->list[i], weight(id, l[id]));
            }
        }, room);
    else
        c = narrow(need - before, [&](auto f) {
            each(l, n, [&](uint32_t i, float x) {
                unsigned long long w = bin_of(s, x) == bin ? weight(i, x) : 0;
                if (w)
                    f(key_of(x, i), w);
            });
        }, room);
    c.sum += before;
    return c;
}

/* at_point: the first id, ascending, whose running sum of weights exceeds point(total), which is below the total. The sums
 * of warps' shares tell where it lies, then those of threads'. */
template <class W, class P> DEV uint32_t at_point(const float *l, uint32_t n, W weight, P point_of, struct room *room) {
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, share = (n + WARPS * 128 - 1) / (WARPS * 128) * 128;
    uint32_t lo = warp * share, hi = lo + share < n ? lo + share : n;
    unsigned long long mine = 0, upto;
#pragma unroll 4
    for (uint32_t at = lo + 4 * lane; at < hi; at += 128) {
        vec<float> v = vec_load(l + at);
#pragma unroll
        for (int e = 0; e < 4; e++)
            mine += at + e < hi ? weight(at + e, v.e[e]) : 0;
    }
    mine = warp_sum(mine);
    if (lane == 0)
        room->sums[warp] = mine;
    __syncthreads();
    unsigned long long total = 0, before = 0;
    for (uint32_t w = 0; w < WARPS; w++)
        total += room->sums[w];
    unsigned long long point = point_of(total);
    uint32_t where = 0;
    while (where < WARPS - 1 && before + room->sums[where] <= point)
        before += room->sums[where++];
    __syncthreads();
    uint32_t part = (share + THREADS - 1) / THREADS, end = where * share + share < n ? where * share + share : n;
    lo = where * share + threadIdx.x * part;
    hi = lo + part < end ? lo + part : end;
    mine = 0;
    for (uint32_t i = lo; i < hi; i++)
        mine += weight(i, l[i]);
    upto = mine; /* an inclusive scan over the block */
    for (unsigned lanes = 1; lanes < 32; lanes *= 2) {
        unsigned long long o = warp_up(upto, lanes);
        upto += lane >= lanes ? o : 0;
    }
    if (lane == 31)
        room->sums[warp] = upto;
    __syncthreads();
    upto += before;
    for (uint32_t w = 0; w < warp; w++)
        upto += room->sums[w];
    if (upto - mine <= point && point < upto) {
        unsigned long long run = upto - mine;
        uint32_t i = lo;
        while (run + weight(i, l[i]) <= point) {
            run += weight(i, l[i]);
            i++;
        }
        room->found = i;
    }
    __syncthreads();
    return static_cast<uint32_t>(room->found);
}

DEV uint64_t need_of(float top_p, unsigned long long total) {
    double need = ceil(static_cast<double>(top_p) * static_cast<double>(total));
    if (!(need >= 1))
        return 1;
    return need >= static_cast<double>(total) ? total : static_cast<uint64_t>(need);
}

DEV uint32_t draw(const struct drow *row, const float *l, uint32_t n, float m, struct room *room) {
    struct scale s = {m, row->temperature};
    float min_p = row->min_p < 1 ? row->min_p : 1.0f, top_p = row->top_p;
    uint32_t top_k = row->top_k;
    unsigned long long last = ~0ull, random = be_philox64(row->seed, row->position);
    auto passes = [=](float x) { return x > -INFINITY && !(min_p > 0 && be_exp(distance(s, x)) < min_p); };
    auto weight = [&](uint32_t i, float x) {
        return key_of(x, i) <= last && passes(x) ? static_cast<unsigned long long>(be_weight40(distance(s, x))) : 0ull;
    };
    if (top_k > 0)
        last = select(l, n, s, [=](uint32_t, float x) { return passes(x) ? 1ull : 0ull; },
                      [=](unsigned long long count) { return count > top_k ? top_k : 0ull; }, room)
                   .last;
    if (top_p < 1)
        last = select(l, n, s, weight, [=](unsigned long long total) { return need_of(top_p, total); }, room).last;
    return at_point(l, n, weight, [=](unsigned long long total) { return __umul64hi(random, total); }, room);
}

/* report_value: what a mode reports for one token, from its l and d and the logarithm of sum(w) / 2^40. */
DEV float report_value(uint32_t mode, float divisor, float l, float d, double log_total) {
    if (mode == BE_RAW_LOGITS)
        return l;
    if (mode == BE_PROCESSED_LOGITS)
        return l == -INFINITY ? l : saturate(l / divisor);
    return static_cast<float>(static_cast<double>(d) - log_total);
}

/* best_few: the n_top best of l, some at a time: the last one of them tells which they are, and each one's place is the
 * number of better ones. */
template <class F> DEV void best_few(const float *l, uint32_t n, struct scale s, uint32_t n_top, F tell, struct room *room) {
    unsigned long long done = 0;
    for (uint32_t first = 0; first < n_top; first += LIST_MAX) {
        uint32_t upto = n_top - first < LIST_MAX ? n_top : first + LIST_MAX, part = upto - first;
        unsigned long long last = select(l, n, s, [](uint32_t, float) { return 1ull; },
                                         [=](unsigned long long) { return static_cast<unsigned long long>(upto); }, room)
                                      .last;
        if (threadIdx.x == 0)
            room->n_list = 0;
        __syncthreads();
        each(l, n, [&](uint32_t i, float x) {
            unsigned long long key = key_of(x, i);
            if (key <= last && (first == 0 || key > done))
                room->list[atomicAdd(&room->n_list, 1u)] = key;
        });
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < part; i += THREADS) {
            unsigned long long key = room->list[i];
            uint32_t place = 0;
            for (uint32_t k = 0; k < part; k++)
                place += room->list[k] < key;
            tell(first + place, static_cast<uint32_t>(key));
        }
        done = last;
        __syncthreads();
    }
}

/* report: of token id: logprob, rank and the best n_top; s.m: the largest of l; ranks are by the raw logits. */
DEV void report(const struct sample_args &a, const struct drow *row, uint32_t id, const float *raw, const float *l,
                struct scale s, uint32_t mode, struct room *room) {
    unsigned long long total = 0, better = 0, mine = key_of(raw[id], id);
    uint32_t n = a.n_vocab;
    each(l, n, [&](uint32_t, float x) { total += be_weight40(distance(s, x)); });
    each(raw, n, [&](uint32_t i, float x) { better += key_of(x, i) < mine; });
    total = block_sum(total, room->sums);
    better = block_sum(better, room->sums);
    double log_total = log(static_cast<double>(total) * 0x1p-40);
    if (threadIdx.x == 0) {
        a.outs[blockIdx.x].logprob = report_value(mode, s.t, l[id], distance(s, l[id]), log_total);
        a.outs[blockIdx.x].rank = static_cast<uint32_t>(better) + 1;
    }
    uint32_t *ids = a.top_ids + static_cast<size_t>(blockIdx.x) * a.n_top_max;
    float *values = a.top_values + static_cast<size_t>(blockIdx.x) * a.n_top_max;
    auto tell = [=](uint32_t place, uint32_t best) {
        ids[place] = best;
        values[place] = report_value(mode, s.t, l[best], distance(s, l[best]), log_total);
    };
    best_few(l, n, s, row->n_top, tell, room);
}

/* best: the thread's largest logit and the lowest id that has it. */
struct best {
    float l;
    uint32_t id;
};
DEV void best_take(struct best *b, uint32_t i, float x) {
    if (x > b->l) {
        b->l = x;
        b->id = i;
    }
}
/* best_of: the block's; id n or above: every logit is minus infinity. */
DEV uint32_t best_of(const struct best &b, struct room *room) {
    return static_cast<uint32_t>(block_min(key_of(b.l, b.id), room->sums));
}

/* process: raw, copied to l, gets bias, penalties, bans and mask; returns the best id, as best_of. Each step ends before
 * the next begins; ids of an array are unique. */
DEV uint32_t process(const struct sample_args &a, const struct drow *row, float *l, struct room *room) {
    const struct sample_bias *bias = reinterpret_cast<const struct sample_bias *>(a.block + row->bias);
    const struct sample_seen *seen = reinterpret_cast<const struct sample_seen *>(a.block + row->seen);
    const uint32_t *banned = reinterpret_cast<const uint32_t *>(a.block + row->banned);
    const uint32_t *mask = row->mask ? reinterpret_cast<const uint32_t *>(a.block + row->mask) : NULL;
    float repetition = row->repetition, frequency = row->frequency, presence = row->presence;
    uint32_t n = a.n_vocab;
    for (uint32_t i = threadIdx.x; i < row->n_bias; i += THREADS)
        if (bias[i].id < n && l[bias[i].id] > -INFINITY)
            l[bias[i].id] = saturate(l[bias[i].id] + bias[i].value);
    __syncthreads();
    bool repeats = repetition > 0 && repetition != 1.0f;
    for (uint32_t i = threadIdx.x; i < row->n_seen; i += THREADS) {
        struct sample_seen s = seen[i];
        if (s.id >= n || l[s.id] == -INFINITY)
            continue;
        float x = l[s.id];
        if (repeats)
            x = x > 0 ? x / repetition : x * repetition;
        if (s.n_output > 0) { /* two roundings each, as on a processor without fused operations */
            x = add_rounded(x, -mul_rounded(frequency, static_cast<float>(s.n_output)));
            x = add_rounded(x, -presence);
        }
        l[s.id] = saturate(x);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < row->n_banned; i += THREADS)
        if (banned[i] < n)
            l[banned[i]] = -INFINITY;
    __syncthreads();
    struct best b = {-INFINITY, UINT32_MAX};
    each(l, n, [&](uint32_t i, float x) {
        if (mask && !(mask[i / 32] >> i % 32 & 1))
            l[i] = -INFINITY;
        else
            best_take(&b, i, x);
    });
    return best_of(b, room);
}

static __global__ void __launch_bounds__(THREADS) sample_kernel(struct sample_args a) {
    SHARED(struct room, shared, 1);
    struct room *room = shared;
    dep_wait();
    const struct drow *row = a.rows + blockIdx.x;
    const float *raw = a.logits + static_cast<size_t>(row->row) * a.stride, *l = raw;
    float *processed = a.processed + static_cast<size_t>(row->row) * a.stride;
    struct dsample_out *out = a.outs + blockIdx.x;
    uint32_t n = a.n_vocab, bad = 0;
    bool given = row->target != BE_NO_TOKEN, changes = !given && (row->n_bias || row->n_seen || row->n_banned || row->mask);
    struct best b = {-INFINITY, UINT32_MAX};
    each(raw, n, [&](uint32_t i, float x) {
        bad += !(x <= FLT_MAX); /* NaN, too */
        best_take(&b, i, x);
        if (changes)
            processed[i] = x;
    });
    bad = block_sum(bad, reinterpret_cast<uint32_t *>(room->sums));
    uint32_t id = best_of(b, room);
    float raw_max = id < n ? raw[id] : -INFINITY;
    if (threadIdx.x == 0) {
        out->id = row->target;
        out->nan = bad > 0;
        out->logprob = 0;
        out->rank = 0;
        if (!given)
            a.last_ids[blockIdx.x] = BE_NO_TOKEN;
    }
    if (bad || (given && raw_max == -INFINITY))
        return;
    if (given) {
        report(a, row, row->target, raw, raw, {raw_max, 1.0f}, BE_RAW_LOGPROBS, room);
        return;
    }
    if (changes) {
        id = process(a, row, processed, room);
        l = processed;
        __syncthreads(); /* its last writes */
    }
    float m = id < n ? l[id] : -INFINITY, t = row->temperature;
    if (m == -INFINITY)
        return;
    if (t > 0)
        id = draw(row, l, n, m, room);
    if (threadIdx.x == 0) {
        out->id = id;
        a.last_ids[blockIdx.x] = id;
    }
    if (!row->wants)
        return;
    __syncthreads(); /* room is free */
    if (row->mode == BE_RAW_LOGPROBS || row->mode == BE_RAW_LOGITS)
        report(a, row, id, raw, raw, {raw_max, 1.0f}, row->mode, room);
    else
        report(a, row, id, raw, l, {m, t > 0 ? t : 1.0f}, row->mode, room);
}

void sample_run(struct be *b, const struct sample_args *a, uint32_t n) {
    CHECK(b->n_vocab < 1u << 24);
    rt_run(b->rt, sample_kernel, dim3(n), dim3(THREADS), 0, *a);
}
