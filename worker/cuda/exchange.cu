/* exchange.cu: exchange.h's kernels. */
#include "worker/cuda/exchange.h"

enum { THREADS = 256, HEAD_BYTES = EXCHANGE_BLOCKS * 2 * 4, LOOKS = 64 };
enum { STATE_OVER = 0, STATE_BLOCKS, STATE_GONE };

DEV uint32_t *flag_at(const struct exchange &x, uint32_t owner, uint32_t round, uint32_t from) {
    return reinterpret_cast<uint32_t *>(x.region[owner]) + (round * EXCHANGE_BLOCKS + blockIdx.x) * EXCHANGE_RANKS + from;
}

/* slot_of: what rank k gives in exchange e; result_of: what it has summed up. */
DEV unsigned char *slot_of(const struct exchange &x, uint32_t k, uint32_t e) {
    return x.region[k] + EXCHANGE_FLAG_BYTES + e % 2 * x.slot_bytes;
}
DEV unsigned char *result_of(const struct exchange &x, uint32_t k, uint32_t e) {
    return slot_of(x, k, e) + 2 * x.slot_bytes;
}

/* begin: the number of this exchange; false: the group was given up. room: [2] shared. */
DEV bool begin(const struct exchange &x, uint32_t *room, uint32_t *e) {
    if (threadIdx.x == 0) {
        room[0] = host_get(&x.state[STATE_GONE]);
        room[1] = x.state[STATE_OVER] + 1;
        if (!room[0] && blockIdx.x == 0)
            host_put(x.mark, room[1]);
    }
    __syncthreads();
    *e = room[1];
    return room[0] == 0;
}

/* meet: returns when block blockIdx.x of every rank has come here: what it wrote before can be read. False: the group was
 * given up meanwhile, and the others' regions may be gone. room: begin's. */
DEV bool meet(const struct exchange &x, uint32_t *room, uint32_t round, uint32_t e) {
    uint32_t peer = threadIdx.x;
    __syncthreads();
    if (peer < x.n_ranks)
        flag_put(flag_at(x, peer, round, x.rank), e);
    if (peer < x.n_ranks) {
        const uint32_t *theirs = flag_at(x, x.rank, round, peer);
        for (uint32_t looks = 1; static_cast<int32_t>(flag_get(theirs) - e) < 0; looks++) {
            if (looks % LOOKS == 0 && (host_get(x.stop) || (x.failed && host_get(x.failed)))) {
                host_put(&x.state[STATE_GONE], 1);
                room[0] = 1;
                break;
            }
            give_way();
        }
    }
    __syncthreads();
    return room[0] == 0;
}

/* end: the last block to come here ends the exchange. */
DEV void end(const struct exchange &x, uint32_t e) {
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(&x.state[STATE_BLOCKS], 1u) == gridDim.x - 1) {
        x.state[STATE_BLOCKS] = 0;
        x.state[STATE_OVER] = e;
    }
}

/* piece: some neighbouring elements of a row: 16 bytes, or one where rows have no whole number of those. */
template <class T> DEV void piece_load(float v[vec<T>::n], const T *p, bool whole) {
    if (!whole) {
        v[0] = to_f32(*p);
        return;
    }
    vec<T> some = vec_load(p);
#pragma unroll
    for (int i = 0; i < vec<T>::n; i++)
        v[i] = to_f32(some.e[i]);
}
template <class T> DEV void piece_store(T *p, const float v[vec<T>::n], bool whole) {
    if (!whole) {
        from_f32(p, v[0]);
        return;
    }
    vec<T> some;
#pragma unroll
    for (int i = 0; i < vec<T>::n; i++)
        from_f32(&some.e[i], v[i]);
    vec_store(p, some);
}

/* piece_sum: of all ranks' slots, in their order, rounded to T. */
template <class T> DEV void piece_sum(const struct exchange &x, float v[vec<T>::n], uint32_t e, size_t at, bool whole) {
    piece_load(v, reinterpret_cast<const T *>(slot_of(x, 0, e)) + at, whole);
    for (uint32_t k = 1; k < x.n_ranks; k++) {
        float more[vec<T>::n] = {};
        piece_load(more, reinterpret_cast<const T *>(slot_of(x, k, e)) + at, whole);
#pragma unroll
        for (int i = 0; i < vec<T>::n; i++)
            if (whole || i == 0)
                v[i] += more[i];
    }
#pragma unroll
    for (int i = 0; i < vec<T>::n; i++) {
        T rounded;
        if (whole || i == 0) {
            from_f32(&rounded, v[i]);
            v[i] = to_f32(rounded);
        }
    }
}

template <class T> static __global__ void sum_kernel(IN_PLACE struct exchange x, struct exchange_sum a) {
    SHARED(float, room, 32);
    SHARED(uint32_t, head, 2);
    SHARED_DYN(float, row);
    dep_wait();
    const uint32_t V = vec<T>::n;
    uint32_t e;
    if (!begin(x, head, &e))
        return;
    bool whole = a.cols % V == 0;
    uint32_t step = whole ? V : 1, n_pieces = a.cols / step;
    T *mine = reinterpret_cast<T *>(slot_of(x, x.rank, e));
    for (uint32_t r = blockIdx.x; r < a.n; r += gridDim.x)
        for (uint32_t p = threadIdx.x; p < n_pieces; p += THREADS) {
            size_t at = static_cast<size_t>(r) * a.cols + p * step;
            if (whole)
                move16(mine + at, static_cast<const T *>(a.in) + at);
            else
                mine[at] = static_cast<const T *>(a.in)[at];
        }
    if (!meet(x, head, 0, e))
        return;
    if (a.two) {
        T *sums = reinterpret_cast<T *>(result_of(x, x.rank, e));
        uint32_t lo = static_cast<uint32_t>(static_cast<uint64_t>(n_pieces) * x.rank / x.n_ranks),
                 hi = static_cast<uint32_t>(static_cast<uint64_t>(n_pieces) * (x.rank + 1) / x.n_ranks);
        for (uint32_t r = blockIdx.x; r < a.n; r += gridDim.x)
            for (uint32_t p = lo + threadIdx.x; p < hi; p += THREADS) {
                size_t at = static_cast<size_t>(r) * a.cols + p * step;
                float v[vec<T>::n] = {};
                piece_sum<T>(x, v, e, at, whole);
                piece_store(sums + at, v, whole);
            }
        if (!meet(x, head, 1, e))
            return;
    }
    for (uint32_t r = blockIdx.x; r < a.n; r += gridDim.x) {
        for (uint32_t p = threadIdx.x; p < n_pieces; p += THREADS) {
            size_t at = static_cast<size_t>(r) * a.cols + p * step;
            float v[vec<T>::n] = {}, add[vec<T>::n] = {};
            if (a.two) { /* the rank whose part p is in */
                uint32_t k = static_cast<uint32_t>(((static_cast<uint64_t>(p) + 1) * x.n_ranks - 1) / n_pieces);
                piece_load(v, reinterpret_cast<const T *>(result_of(x, k, e)) + at, whole);
            } else {
                piece_sum<T>(x, v, e, at, whole);
            }
            if (a.add)
                piece_load(add, static_cast<const T *>(a.add) + at, whole);
#pragma unroll
            for (uint32_t i = 0; i < V; i++)
                if (whole || i == 0) {
                    v[i] = act_apply(a.act, v[i] + (a.bias ? a.bias[p * step + i] : 0.0f)) + (a.add ? add[i] : 0.0f);
                    T rounded;
                    from_f32(&rounded, v[i]);
                    if (a.normed)
                        row[p * step + i] = to_f32(rounded);
                }
            piece_store(static_cast<T *>(a.y) + at, v, whole);
        }
        if (!a.normed)
            continue;
        __syncthreads();
        float mean, inv;
        norm_factors(a.norm, [=](uint32_t i) { return row[i]; }, a.cols, room, &mean, &inv);
        T *normed = static_cast<T *>(a.normed) + static_cast<size_t>(r) * a.cols;
        for (uint32_t i = threadIdx.x; i < a.cols; i += THREADS)
            from_f32(&normed[i], norm_value(a.norm, row[i], i, mean, inv));
        __syncthreads(); /* before the next row is written over it */
    }
    end(x, e);
}

template <class T> static void sum_launch(struct be *b, const struct exchange *x, const struct exchange_sum *s) {
    rt_run(b->rt, sum_kernel<T>, dim3(MIN(s->n, static_cast<uint32_t>(EXCHANGE_BLOCKS))), dim3(THREADS),
           s->normed ? s->cols * sizeof(float) : 0, *x, *s);
}

void exchange_sum(struct be *b, const struct exchange *x, const struct exchange_sum *s) {
    CHECK(s->n > 0 && static_cast<size_t>(s->n) * s->cols * dtype_bytes(b->act) <= x->slot_bytes);
    ACT_CALL(b, sum_launch, b, x, s);
}

/* A slot holds, for each block, whence its rank's columns start and how many they are, and then the rows. */
static __global__ void gather_kernel(IN_PLACE struct exchange x, struct exchange_gather a) {
    SHARED(uint32_t, head, 2);
    dep_wait();
    uint32_t e;
    if (!begin(x, head, &e))
        return;
    unsigned char *mine = slot_of(x, x.rank, e);
    float *rows = reinterpret_cast<float *>(mine + HEAD_BYTES);
    if (threadIdx.x == 0) {
        uint32_t *where = reinterpret_cast<uint32_t *>(mine) + 2 * blockIdx.x;
        where[0] = a.col0;
        where[1] = a.cols;
    }
    for (uint32_t r = blockIdx.x; r < a.n; r += gridDim.x)
        for (uint32_t c = threadIdx.x; c < a.cols; c += THREADS)
            rows[static_cast<size_t>(r) * a.pitch + c] = a.part[static_cast<size_t>(r) * a.cols + c];
    if (!meet(x, head, 0, e))
        return;
    for (uint32_t k = 0; k < x.n_ranks; k++) {
        const unsigned char *theirs = slot_of(x, k, e);
        const uint32_t *where = reinterpret_cast<const uint32_t *>(theirs) + 2 * blockIdx.x;
        const float *from = reinterpret_cast<const float *>(theirs + HEAD_BYTES);
        uint32_t col0 = where[0], cols = where[1];
        if (cols > a.pitch || col0 > a.stride || cols > a.stride - col0)
            continue; /* of a group that was given up: anything may stand there */
        for (uint32_t r = blockIdx.x; r < a.n; r += gridDim.x)
            for (uint32_t c = threadIdx.x; c < cols; c += THREADS)
                a.out[static_cast<size_t>(r) * a.stride + col0 + c] = from[static_cast<size_t>(r) * a.pitch + c];
    }
    end(x, e);
}

uint32_t exchange_gather_rows(size_t slot_bytes, uint32_t pitch) {
    return static_cast<uint32_t>((slot_bytes - HEAD_BYTES) / (static_cast<size_t>(pitch) * sizeof(float)));
}

void exchange_gather(struct be *b, const struct exchange *x, const struct exchange_gather *g) {
    CHECK(g->n > 0 && g->n <= exchange_gather_rows(x->slot_bytes, g->pitch) && g->cols <= g->pitch);
    rt_run(b->rt, gather_kernel, dim3(MIN(g->n, static_cast<uint32_t>(EXCHANGE_BLOCKS))), dim3(THREADS), 0, *x, *g);
}

static __global__ void note_kernel(IN_PLACE struct exchange x) {
    SHARED(uint32_t, head, 2);
    dep_wait();
    uint32_t e;
    if (begin(x, head, &e))
        end(x, e);
}

void exchange_note(struct be *b, const struct exchange *x) {
    rt_run(b->rt, note_kernel, dim3(1), dim3(32), 0, *x);
}
