/* sample_avx2.c: sampling without sorting the vocabulary; definitions in sample.h, to the bit.
 *
 * A row's maxima over chunks of 64 logits are taken first. They give the largest logit, and a bound below
 * which no logit can be among the k best, so that filters look at few tokens closely. One member does a whole
 * row.
 */
#include "worker/cpu/cpu.h"

#include <math.h>

#include "worker/cpu/sample.h"
#include "worker/cpu/select.h"
#include "worker/cpu/simd.h"

enum { CHUNK = 64 };

/* room: of one member; arrays of n_vocab unless said otherwise. */
struct room {
    uint32_t n, n_chunks;
    float *l;                 /* processed logits */
    float *tops;              /* [n_chunks] */
    uint64_t *sums;           /* [n_chunks] weights */
    uint64_t *keys, *weights; /* candidates, ids ascending */
    uint32_t *select;
};

/* logits_at: eight logits; minus infinity beyond n. */
INLINE __m256 logits_at(const float *l, uint32_t i, uint32_t n) {
    if (LIKELY(i + 8 <= n))
        return _mm256_loadu_ps(l + i);
    __m256i mask = v_mask((int)(n - i));
    return _mm256_blendv_ps(v_set(-INFINITY), _mm256_maskload_ps(l + i, mask), _mm256_castsi256_ps(mask));
}

/* scan: the chunks' maxima and the largest of all. Returns whether a logit is NaN or plus infinity. */
static bool scan(struct room *k, const float *l, float *max) {
    __m256 bad = _mm256_setzero_ps(), all = v_set(-INFINITY);
    for (uint32_t c = 0; c < k->n_chunks; c++) {
        __m256 top = v_set(-INFINITY);
        for (uint32_t i = c * CHUNK; i < MIN(k->n, (c + 1) * CHUNK); i += 8) {
            __m256 v = logits_at(l, i, k->n);
            bad = _mm256_or_ps(bad, _mm256_cmp_ps(v, v_set(INFINITY), _CMP_NLT_UQ));
            top = _mm256_max_ps(top, v);
        }
        k->tops[c] = v_max(top);
        all = _mm256_max_ps(all, top);
    }
    *max = v_max(all);
    return _mm256_movemask_ps(bad) != 0;
}

static void mask_apply(float *l, const uint32_t *mask, uint32_t n) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i byte = _mm256_set1_epi32((int)(mask[i / 32] >> i % 32 & 0xFF));
        __m256i keep = _mm256_cmpeq_epi32(_mm256_and_si256(byte, bit), bit);
        __m256 v = _mm256_blendv_ps(v_set(-INFINITY), logits_at(l, i, n), _mm256_castsi256_ps(keep));
        _mm256_maskstore_ps(l + i, v_mask((int)MIN(8, n - i)), v);
    }
}

/* v_be_exp: be_exp() of backend.h, operation by operation. */
INLINE __m256 v_be_exp(__m256 x) {
    __m256 n =
        _mm256_round_ps(_mm256_mul_ps(x, v_set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 f = _mm256_fmadd_ps(n, v_set(-0.693359375f), x);
    f = _mm256_fmadd_ps(n, v_set(2.12194440e-4f), f);
    __m256 p = v_set(1.38888889e-3f);
    p = _mm256_fmadd_ps(p, f, v_set(8.33333333e-3f));
    p = _mm256_fmadd_ps(p, f, v_set(4.16666667e-2f));
    p = _mm256_fmadd_ps(p, f, v_set(1.66666667e-1f));
    p = _mm256_fmadd_ps(p, f, v_set(0.5f));
    p = _mm256_fmadd_ps(p, f, v_set(1.0f));
    p = _mm256_fmadd_ps(p, f, v_set(1.0f));
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(e));
    return _mm256_and_ps(p, _mm256_cmp_ps(x, v_set(-60.0f), _CMP_GT_OQ));
}

/* v_weight40: be_weight40() of four, given their be_exp. Below 2^41, the integer part plus 2^52 has it in its
 * low bits. */
INLINE __m256i v_weight40(__m128 e) {
    const __m256d big = _mm256_set1_pd(0x1p52);
    __m256d v = _mm256_floor_pd(_mm256_mul_pd(_mm256_cvtps_pd(e), _mm256_set1_pd(0x1p40)));
    return _mm256_xor_si256(_mm256_castpd_si256(_mm256_add_pd(v, big)), _mm256_castpd_si256(big));
}

/* weigh: sums of weights by chunk; returns their sum. */
static uint64_t weigh(struct room *k, const float *l, float m, float t) {
    uint64_t total = 0;
    for (uint32_t c = 0; c < k->n_chunks; c++) {
        __m256i sum = _mm256_setzero_si256();
        for (uint32_t i = c * CHUNK; i < MIN(k->n, (c + 1) * CHUNK); i += 8) {
            __m256 e = v_be_exp(_mm256_div_ps(_mm256_sub_ps(logits_at(l, i, k->n), v_set(m)), v_set(t)));
            sum = _mm256_add_epi64(sum, v_weight40(_mm256_castps256_ps128(e)));
            sum = _mm256_add_epi64(sum, v_weight40(_mm256_extractf128_ps(e, 1)));
        }
        uint64_t part[4];
        _mm256_storeu_si256((__m256i *)(void *)part, sum);
        k->sums[c] = part[0] + part[1] + part[2] + part[3];
        total += k->sums[c];
    }
    return total;
}

/* bound_of_best: a value that at least `count` logits reach: the count-th largest chunk maximum. */
static float bound_of_best(struct room *k, uint32_t count) {
    if (count == 0 || count > k->n_chunks)
        return -INFINITY;
    for (uint32_t c = 0; c < k->n_chunks; c++)
        k->keys[c] = sample_key(k->tops[c], c);
    return k->tops[(uint32_t)select_key(k->keys, NULL, k->n_chunks, count, k->select)];
}

/* candidate: what collect keeps, and how its weights are made. */
struct candidate {
    float bound;   /* logits below are passed over */
    bool infinite; /* minus infinity is a candidate too */
    float m, t;    /* for weights */
    float min_p;   /* 0: none */
};

/* collect: candidates into keys and weights, ids ascending; their number. */
static uint32_t collect(struct room *k, const float *l, const struct candidate *want) {
    uint32_t n = 0;
    for (uint32_t c = 0; c < k->n_chunks; c++) {
        if (k->tops[c] < want->bound)
            continue;
        for (uint32_t i = c * CHUNK; i < MIN(k->n, (c + 1) * CHUNK); i += 8) {
            __m256 v = logits_at(l, i, k->n);
            __m256 keep = _mm256_cmp_ps(v, v_set(want->bound), _CMP_GE_OQ);
            if (!want->infinite)
                keep = _mm256_and_ps(keep, _mm256_cmp_ps(v, v_set(-INFINITY), _CMP_GT_OQ));
            if (_mm256_movemask_ps(keep) == 0)
                continue;
            __m256 e = v_be_exp(_mm256_div_ps(_mm256_sub_ps(v, v_set(want->m)), v_set(want->t)));
            if (want->min_p > 0)
                keep = _mm256_and_ps(keep, _mm256_cmp_ps(e, v_set(want->min_p), _CMP_GE_OQ));
            uint32_t bits = (uint32_t)_mm256_movemask_ps(keep);
            if (i + 8 > k->n)
                bits &= (1u << (k->n - i)) - 1;
            uint64_t w[8];
            _mm256_storeu_si256((__m256i *)(void *)w, v_weight40(_mm256_castps256_ps128(e)));
            _mm256_storeu_si256((__m256i *)(void *)(w + 4), v_weight40(_mm256_extractf128_ps(e, 1)));
            for (; bits; bits &= bits - 1) {
                uint32_t j = (uint32_t)__builtin_ctz(bits);
                k->keys[n] = sample_key(l[i + j], i + j);
                k->weights[n++] = w[j];
            }
        }
    }
    return n;
}

/* cut: drops candidates worse than `last`; their number, and the sum of their weights. */
static uint32_t cut(struct room *k, uint32_t n, uint64_t last, uint64_t *total) {
    uint32_t n_kept = 0;
    *total = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (k->keys[i] > last)
            continue;
        *total += k->weights[i];
        k->keys[n_kept] = k->keys[i];
        k->weights[n_kept++] = k->weights[i];
    }
    return n_kept;
}

/* draw_filtered: with min_p, top_k or top_p. The bound: min_p and weights above 0 need d >= log(min_p) and
 * d >= -27.8; both are widened by far more than their rounding, and candidates then tested exactly. */
static uint32_t draw_filtered(struct room *k, const float *l, const struct sample_row *row, float m) {
    float least = row->min_p > 0 ? fmaxf(-28.0f, logf(sample_min_p(row)) - 0.01f) : -28.0f;
    struct candidate want = {.m = m, .t = row->temperature, .min_p = sample_min_p(row)};
    want.bound = fmaxf(m + least * row->temperature - fabsf(m) * 1e-6f, bound_of_best(k, row->top_k));
    uint32_t n = collect(k, l, &want);
    uint64_t total = 0, sum = 0;
    if (row->top_k > 0 && n > row->top_k)
        n = cut(k, n, select_key(k->keys, NULL, n, row->top_k, k->select), &total);
    else
        n = cut(k, n, UINT64_MAX, &total);
    if (row->top_p < 1) {
        uint64_t need = sample_need(row->top_p, total);
        n = cut(k, n, select_key(k->keys, k->weights, n, need, k->select), &total);
    }
    uint64_t point = sample_point(row, total);
    for (uint32_t i = 0; i < n; i++) {
        sum += k->weights[i];
        if (sum > point)
            return (uint32_t)k->keys[i];
    }
    CHECK(!"a point below the sum");
    return BE_NO_TOKEN;
}

static uint32_t draw(struct room *k, const float *l, const struct sample_row *row, float m) {
    if (row->min_p > 0 || row->top_k > 0 || row->top_p < 1)
        return draw_filtered(k, l, row, m);
    uint64_t point = sample_point(row, weigh(k, l, m, row->temperature)), sum = 0;
    uint32_t c = 0;
    while (sum + k->sums[c] <= point)
        sum += k->sums[c++];
    for (uint32_t i = c * CHUNK;; i++) {
        sum += be_weight40((l[i] - m) / row->temperature);
        if (sum > point)
            return i;
    }
}

/* first_of: the lowest id of the largest logit. */
static uint32_t first_of(const struct room *k, const float *l, float m) {
    uint32_t c = 0;
    while (k->tops[c] != m)
        c++;
    for (uint32_t i = c * CHUNK;; i += 8) {
        int at = _mm256_movemask_ps(_mm256_cmp_ps(logits_at(l, i, k->n), v_set(m), _CMP_EQ_OQ));
        if (at)
            return i + (uint32_t)__builtin_ctz((uint32_t)at);
    }
}

/* rank_of: 1 plus the raw logits that come before id's. */
static uint32_t rank_of(const struct room *k, const float *raw, uint32_t id) {
    uint32_t rank = 1;
    __m256 x = v_set(raw[id]);
    for (uint32_t i = 0; i < k->n; i += 8) {
        __m256 v = logits_at(raw, i, k->n);
        uint32_t before = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, x, _CMP_GT_OQ));
        uint32_t equal = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, x, _CMP_EQ_OQ));
        if (i + 8 > id)
            equal &= id > i ? (1u << (id - i)) - 1 : 0;
        rank += (uint32_t)__builtin_popcount(before) + (uint32_t)__builtin_popcount(equal);
    }
    return rank;
}

/* report: logprob, rank and the best n_top of `l`, whose chunk maxima are in the room. */
static void report(struct room *k, const float *l, const float *raw, float m, float t, uint32_t mode,
                   uint32_t n_top, struct sample_out *out) {
    double log_total = 0;
    if (mode == BE_RAW_LOGPROBS || mode == BE_PROCESSED_LOGPROBS)
        log_total = log((double)weigh(k, l, m, t) * 0x1p-40);
    out->logprob = sample_report(mode, t, l[out->id], (l[out->id] - m) / t, log_total);
    out->rank = rank_of(k, raw, out->id);
    CHECK(n_top <= k->n);
    if (n_top == 0)
        return;
    struct candidate want = {.bound = bound_of_best(k, n_top), .m = m, .t = t};
    want.infinite = want.bound == -INFINITY;
    uint32_t n = collect(k, l, &want);
    uint64_t total;
    n = cut(k, n, select_key(k->keys, NULL, n, n_top, k->select), &total);
    select_sort(k->keys, n);
    for (uint32_t i = 0; i < n_top; i++) {
        uint32_t id = (uint32_t)k->keys[i];
        out->top_ids[i] = id;
        out->top_logprobs[i] = sample_report(mode, t, l[id], (l[id] - m) / t, log_total);
    }
}

/* changed: some logit may differ from the raw one. */
static bool changed(const struct sample_row *row) {
    bool repetition = row->repetition_penalty > 0 && row->repetition_penalty != 1.0f;
    bool penalties = repetition || row->frequency_penalty != 0 || row->presence_penalty != 0;
    return (penalties && row->n_seen) || row->n_bias || row->n_banned || row->mask;
}

static void sample_one(struct room *k, const float *raw, const struct sample_row *row,
                       struct sample_out *out) {
    const float *l = raw;
    float m;
    out->id = BE_NO_TOKEN;
    out->logprob = 0;
    out->rank = 0;
    out->nan = scan(k, raw, &m);
    if (out->nan)
        return;
    if (changed(row)) {
        v_copy(k->l, raw, k->n);
        l = k->l;
        sample_penalize(row, k->l, k->n);
        sample_ban(row, k->l, k->n);
        if (row->mask)
            mask_apply(k->l, row->mask, k->n);
        scan(k, l, &m);
    }
    if (m == -INFINITY)
        return;
    out->id = row->temperature > 0 ? draw(k, l, row, m) : first_of(k, l, m);
    if (!sample_wants_logprobs(row))
        return;
    bool use_raw = row->logprobs_mode == BE_RAW_LOGPROBS || row->logprobs_mode == BE_RAW_LOGITS;
    if (use_raw && l != raw)
        scan(k, raw, &m);
    report(k, use_raw ? raw : l, raw, m, use_raw ? 1.0f : sample_divisor(row), row->logprobs_mode, row->n_top,
           out);
}

struct work {
    struct be *b;
    const struct sample_row *rows;
    struct sample_out *out;
    const struct op_row_logprobs *targets; /* instead of rows */
    uint8_t *rooms;
    size_t room_bytes;
    struct team_queue queue;
};

static struct room room_of(const struct work *w, int member) {
    size_t n = w->b->n_vocab_padded, n_chunks = (w->b->n_vocab + CHUNK - 1) / CHUNK;
    uint8_t *at = w->rooms + (size_t)member * w->room_bytes;
    struct room k = {.n = w->b->n_vocab, .n_chunks = (uint32_t)n_chunks};
    k.keys = (void *)at;
    k.weights = k.keys + n;
    k.sums = k.weights + n;
    k.l = (void *)(k.sums + n_chunks);
    k.tops = k.l + n;
    k.select = (void *)(k.tops + n_chunks);
    return k;
}

static void work_run(void *arg, int member) {
    struct work *w = arg;
    struct room k = room_of(w, member);
    uint32_t n, i;
    while (i = queue_take(&w->queue, &n), n) {
        uint32_t row = w->targets ? w->targets[i].row : i;
        const float *raw = w->b->logits + (size_t)row * w->b->n_vocab_padded;
        if (!w->targets) {
            sample_one(&k, raw, &w->rows[i], &w->out[i]);
            continue;
        }
        struct sample_out *out = w->targets[i].out;
        float m;
        out->id = w->targets[i].target;
        out->logprob = 0;
        out->rank = 0;
        out->nan = scan(&k, raw, &m);
        if (!out->nan && m > -INFINITY)
            report(&k, raw, raw, m, 1.0f, BE_RAW_LOGPROBS, w->targets[i].n_top, out);
    }
}

static void work_start(struct be *b, struct work *w, uint32_t n) {
    size_t n_vocab = b->n_vocab_padded, n_chunks = (b->n_vocab + CHUNK - 1) / CHUNK;
    w->b = b;
    w->room_bytes = (n_vocab * (8 + 8 + 4 + 4) + n_chunks * (8 + 4) + 127) / 64 * 64;
    w->rooms = cpu_scratch(b, SCRATCH_THREAD, (size_t)b->n_threads * w->room_bytes);
    queue_init(&w->queue, n, 1);
    if (n == 1) /* not worth waking anybody */
        work_run(w, 0);
    else
        team_run(b->team, work_run, w);
}

void avx2_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    struct work w = {.rows = rows, .out = out};
    CHECK(n <= b->n_logits);
    work_start(b, &w, n);
    for (uint32_t r = 0; r < n; r++)
        b->last_ids[r] = out[r].id;
    b->n_last_ids = n;
}

void avx2_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n) {
    struct work w = {.targets = rows};
    for (uint32_t i = 0; i < n; i++)
        CHECK(rows[i].row < b->n_logits && rows[i].target < b->n_vocab);
    work_start(b, &w, n);
}
