/* attn_avx2.c: attention over blocks of 16 keys.
 *
 * A piece of work is a few tokens of one sequence times the query heads that share a K and V head: up to ROWS
 * rows. Each row passes its keys in strips of four blocks with the online softmax (Milakov and Gimelshein,
 * 2018): a running maximum m, a running sum l of exp(s - m), a running output. Every PART_TOKENS positions a
 * new part begins with fresh m, l and output, and parts are merged in order. Strips and parts lie at absolute
 * positions and a row only ever touches its own keys, so a row's bits do not depend on the batch, nor on
 * whether one thread does all parts or several threads one each.
 */
#include "worker/cpu/cpu.h"

#include <math.h>

#include "worker/cpu/convert.h"
#include "worker/cpu/simd.h"
#include "worker/cpu/tile.h"

enum {
    ROWS = 24, /* four tiles */
    STRIP_BLOCKS = 4,
    STRIP_TOKENS = STRIP_BLOCKS * KV_BLOCK_TOKENS,
    PART_TOKENS = 512, /* whole strips */
    DIM_MAX = 256,
    DIM_PANELS = DIM_MAX / PANEL_COLS,
};

/* sums: the state of the online softmax of ROWS rows. */
struct sums {
    float m[ROWS], l[ROWS];
    float out[DIM_PANELS][ROWS][PANEL_COLS]; /* only ceil(head_dim_v / 16) panels are used */
};

/* room: of one member. */
struct room {
    _Alignas(64) float q[ROWS * DIM_MAX];
    float p[STRIP_BLOCKS][TILE_ROWS][KV_BLOCK_TOKENS]; /* scores, then weights */
    float k[STRIP_BLOCKS][DIM_MAX * KV_BLOCK_TOKENS];  /* widened blocks */
    float v[STRIP_BLOCKS][DIM_PANELS][KV_BLOCK_TOKENS * PANEL_COLS];
    struct keys keys[ROWS];
    struct {
        const float *bias; /* of distance 0, or NULL */
        int at;            /* the query's place among the keys */
    } rel[ROWS];
    struct sums part, total;
};

/* span: tokens [t0, t0 + n) of one sequence. */
struct span {
    uint32_t seq, t0, n;
};

struct attn {
    struct be *b;
    const struct op_attn *op;
    struct be_kv kv; /* the pool, or rows packed as one */
    uint32_t layer;
    bool cached;
    const float *qkv, *sinks, *rel_bias;
    float *out;
    uint32_t cols, n_panels_v;           /* of qkv rows; of head_dim_v */
    uint32_t group, chunk, n_chunks;     /* query heads of a K and V head, and of a piece */
    uint32_t n_spans, n_pieces, n_parts; /* n_parts: 1 unless parts are spread over members */
    struct span *spans;
    uint32_t *first_block; /* [n_seqs] of rows packed as a pool */
    struct sums *split;    /* [n_pieces][n_parts] */
    struct room *rooms;
    struct team_queue pack, pieces, merges;
};

/* piece: what one queue item stands for. */
struct piece {
    struct span span;
    uint32_t kv_head, head0, n_heads, n_rows;
    uint32_t lo, hi; /* keys of all its rows */
};

static struct piece piece_of(const struct attn *a, uint32_t i, struct keys *keys) {
    struct piece p = {.span = a->spans[i % a->n_spans]};
    uint32_t h = i / a->n_spans, first = h % a->n_chunks * a->chunk;
    p.kv_head = h / a->n_chunks;
    p.n_heads = MIN(a->chunk, a->group - first);
    p.head0 = p.kv_head * a->group + first;
    p.n_rows = p.span.n * p.n_heads;
    p.lo = UINT32_MAX;
    for (uint32_t t = 0; t < p.span.n; t++) {
        struct keys k = plan_keys(a->b, a->cached ? &a->kv : NULL, p.span.t0 + t, a->op->window);
        p.lo = MIN(p.lo, k.lo);
        p.hi = MAX(p.hi, k.hi);
        for (uint32_t j = 0; j < p.n_heads; j++)
            keys[t * p.n_heads + j] = k;
    }
    return p;
}

static uint32_t block_at(const struct attn *a, uint32_t seq, uint32_t index) {
    if (!a->cached)
        return a->first_block[seq] + index;
    uint32_t block = a->b->plan.group[a->op->group]
                         .table[(size_t)seq * a->b->plan.group[a->op->group].table_stride + index];
    CHECK(block < a->kv.n_blocks);
    return block;
}

/* scores: scaled and capped. */
INLINE __m256 scores(const struct op_attn *op, const float *s) {
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(s), v_set(op->scale));
    if (op->softcap > 0) {
        __m256 cap = v_set(op->softcap);
        v = _mm256_mul_ps(cap, v_tanh(_mm256_div_ps(v, cap)));
    }
    return v;
}

/* biased: eight scores of a row, from key j on, with what their distances add. */
INLINE __m256 biased(const struct op_attn *op, __m256 v, const float *bias, int distance) {
    __m256i span = _mm256_set1_epi32((int)op->rel_span);
    __m256i d = _mm256_add_epi32(_mm256_set1_epi32(distance), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    d = _mm256_max_epi32(_mm256_sub_epi32(_mm256_setzero_si256(), span), _mm256_min_epi32(d, span));
    return _mm256_add_ps(v, _mm256_i32gather_ps(bias, d, sizeof(float)));
}

/* masked: lanes of a block outside [lo, hi) become minus infinity. first: the lane of v's first in the block.
 */
INLINE __m256 masked(__m256 v, int first, int lo, int hi) {
    __m256i in = _mm256_andnot_si256(v_mask(lo - first), v_mask(hi - first));
    return _mm256_blendv_ps(v_set(-INFINITY), v, _mm256_castsi256_ps(in));
}

/* row_shrink: what a row has summed so far follows a new maximum. */
static void row_shrink(const struct attn *a, struct sums *sums, uint32_t row, float factor) {
    __m256 f = v_set(factor);
    sums->l[row] *= factor;
    for (uint32_t d = 0; d < a->n_panels_v; d++) {
        float *o = sums->out[d][row];
        _mm256_storeu_ps(o, _mm256_mul_ps(_mm256_loadu_ps(o), f));
        _mm256_storeu_ps(o + 8, _mm256_mul_ps(_mm256_loadu_ps(o + 8), f));
    }
}

/* row_softmax: one row's scores of a strip, which begins at position `first`, into weights, in place; its
 * keys are [lo, hi) of the strip. r: its place in the tile. */
static void row_softmax(const struct attn *a, struct room *room, struct sums *sums, uint32_t row, uint32_t r,
                        uint32_t first, int lo, int hi) {
    float(*p)[TILE_ROWS][KV_BLOCK_TOKENS] = room->p;
    int b0 = lo / KV_BLOCK_TOKENS, b1 = (hi - 1) / KV_BLOCK_TOKENS;
    __m256 top = v_set(-INFINITY), sum = _mm256_setzero_ps();
    for (int b = b0; b <= b1; b++) {
        int from = lo - b * KV_BLOCK_TOKENS, to = hi - b * KV_BLOCK_TOKENS;
        __m256 s0 = scores(a->op, p[b][r]), s1 = scores(a->op, p[b][r] + 8);
        if (a->rel_bias) {
            int distance = (int)first + b * KV_BLOCK_TOKENS - room->rel[row].at;
            s0 = biased(a->op, s0, room->rel[row].bias, distance);
            s1 = biased(a->op, s1, room->rel[row].bias, distance + 8);
        }
        if (from > 0 || to < KV_BLOCK_TOKENS) {
            s0 = masked(s0, 0, from, to);
            s1 = masked(s1, 8, from, to);
        }
        _mm256_storeu_ps(p[b][r], s0);
        _mm256_storeu_ps(p[b][r] + 8, s1);
        top = _mm256_max_ps(top, _mm256_max_ps(s0, s1));
    }
    float max = v_max(top), m = sums->m[row];
    if (max > m) {
        if (m != -INFINITY)
            row_shrink(a, sums, row, _mm256_cvtss_f32(v_exp(v_set(m - max))));
        sums->m[row] = m = max;
    }
    for (int b = b0; b <= b1; b++) {
        __m256 s0 = v_exp(_mm256_sub_ps(_mm256_loadu_ps(p[b][r]), v_set(m)));
        __m256 s1 = v_exp(_mm256_sub_ps(_mm256_loadu_ps(p[b][r] + 8), v_set(m)));
        _mm256_storeu_ps(p[b][r], s0);
        _mm256_storeu_ps(p[b][r] + 8, s1);
        sum = _mm256_add_ps(sum, _mm256_add_ps(s0, s1));
    }
    sums->l[row] += v_sum(sum);
}

/* strip: up to four blocks, from position `first` on, which begins a strip; only blocks [b0, b1] are there.
 */
struct strip {
    uint32_t first, b0, b1;
    struct {
        const uint8_t *k, *v;
        const float *rest; /* the last head_dim_v % 16 dims, [16 tokens][16] f32; or NULL */
    } block[STRIP_BLOCKS];
    enum dtype t; /* of k and v here */
};

/* values_add: rows [r, end) of a tile, which all see the tokens [lo, hi) of block b, gather its values. */
static void values_add(const struct attn *a, struct room *room, struct sums *sums, const struct strip *s,
                       uint32_t b, uint32_t r0, uint32_t r, uint32_t end, uint32_t lo, uint32_t hi) {
    struct tile pv = {
        .x = room->p[b][r] + lo,
        .n_k = hi - lo,
        .w = s->block[b].v + lo * PANEL_COLS * dtype_bytes(s->t),
        .w_panel = KV_BLOCK_TOKENS * PANEL_COLS * dtype_bytes(s->t),
        .c = sums->out[0][r0 + r],
        .c_panel = ROWS * PANEL_COLS,
        .more = true,
    };
    tile_rows(s->t, end - r, a->kv.spec.head_dim_v / PANEL_COLS, &pv);
    if (s->block[b].rest) {
        pv.w = (const uint8_t *)(s->block[b].rest + lo * PANEL_COLS);
        pv.c = sums->out[a->n_panels_v - 1][r0 + r];
        tile_rows(DT_F32, end - r, 1, &pv);
    }
}

/* within: a position counted from `first`, cut to [0, n]. */
static uint32_t within(uint32_t pos, uint32_t first, uint32_t n) {
    return pos > first ? MIN(pos - first, n) : 0;
}

/* tile_strip: rows [r0, r0 + n) against one strip. */
static void tile_strip(const struct attn *a, struct room *room, struct sums *sums, uint32_t r0, uint32_t n,
                       const struct strip *s) {
    const struct keys *keys = room->keys + r0;
    uint32_t hd = a->op->head_dim, lo = STRIP_TOKENS, hi = 0;
    for (uint32_t r = 0; r < n; r++) {
        lo = MIN(lo, within(keys[r].lo, s->first, STRIP_TOKENS));
        hi = MAX(hi, within(keys[r].hi, s->first, STRIP_TOKENS));
    }
    if (lo >= hi)
        return;
    uint32_t b0 = MAX(s->b0, lo / KV_BLOCK_TOKENS), b1 = MIN(s->b1, (hi - 1) / KV_BLOCK_TOKENS);
    for (uint32_t b = b0; b <= b1; b++) {
        struct tile qk = {.x = room->q + (size_t)r0 * hd, .w = s->block[b].k, .c = room->p[b][0], .n_k = hd};
        tile_run(s->t, n, &qk);
    }
    for (uint32_t r = 0; r < n; r++) {
        uint32_t from = within(keys[r].lo, s->first, STRIP_TOKENS),
                 to = within(keys[r].hi, s->first, STRIP_TOKENS);
        if (from < to)
            row_softmax(a, room, sums, r0 + r, r, s->first, (int)from, (int)to);
    }
    for (uint32_t b = b0; b <= b1; b++)
        for (uint32_t r = 0, end; r < n; r = end) { /* runs of rows that see the same tokens of the block */
            uint32_t at = s->first + b * KV_BLOCK_TOKENS;
            lo = within(keys[r].lo, at, KV_BLOCK_TOKENS);
            hi = within(keys[r].hi, at, KV_BLOCK_TOKENS);
            for (end = r + 1; end < n && within(keys[end].lo, at, KV_BLOCK_TOKENS) == lo &&
                              within(keys[end].hi, at, KV_BLOCK_TOKENS) == hi;)
                end++;
            if (lo < hi)
                values_add(a, room, sums, s, b, r0, r, end, lo, hi);
        }
}

/* rest_get: dims of V beyond the last whole panel, widened into a panel of their own. */
static const float *rest_get(const struct attn *a, float *dst, const uint8_t *rest, uint32_t n) {
    for (uint32_t tok = 0; tok < KV_BLOCK_TOKENS; tok++)
        for (uint32_t d = 0; d < PANEL_COLS; d++)
            dst[tok * PANEL_COLS + d] = d < n ? f32_load(rest, a->kv.spec.dtype, (size_t)tok * n + d) : 0;
    return dst;
}

static void sums_clear(const struct attn *a, struct sums *s, uint32_t n_rows) {
    for (uint32_t r = 0; r < n_rows; r++) {
        s->m[r] = -INFINITY;
        s->l[r] = 0;
    }
    for (uint32_t d = 0; d < a->n_panels_v; d++)
        memset(s->out[d], 0, n_rows * sizeof s->out[d][0]);
}

/* strip_get: block b of a strip, widened once if several tiles will read it. */
static void strip_get(const struct attn *a, struct room *room, const struct piece *p, struct strip *s,
                      uint32_t b) {
    uint32_t hd = a->op->head_dim, hd_v = a->kv.spec.head_dim_v, n_whole = hd_v / PANEL_COLS;
    enum dtype t = a->kv.spec.dtype;
    size_t e = dtype_bytes(t);
    uint32_t block = block_at(a, p->span.seq, s->first / KV_BLOCK_TOKENS + b);
    const uint8_t *k = a->kv.data + kv_base(&a->kv, block, a->layer, p->kv_head) * e;
    const uint8_t *v = k + (size_t)hd * KV_BLOCK_TOKENS * e;
    s->block[b].k = k;
    s->block[b].v = v;
    s->block[b].rest = NULL;
    if (hd_v % PANEL_COLS)
        s->block[b].rest =
            rest_get(a, room->v[b][n_whole], v + (size_t)n_whole * PANEL_COLS * KV_BLOCK_TOKENS * e,
                     hd_v % PANEL_COLS);
    if (s->t != t) {
        panel_widen(t, k, hd, room->k[b]);
        panel_widen(t, v, n_whole * KV_BLOCK_TOKENS, room->v[b][0]);
        s->block[b].k = (const uint8_t *)room->k[b];
        s->block[b].v = (const uint8_t *)room->v[b][0];
    }
}

/* part_run: the keys of p within [lo, hi), which lies in one part, into fresh sums. */
static void part_run(const struct attn *a, struct room *room, const struct piece *p, uint32_t lo, uint32_t hi,
                     struct sums *sums) {
    size_t bytes =
        (size_t)(a->op->head_dim + a->kv.spec.head_dim_v) * KV_BLOCK_TOKENS * dtype_bytes(a->kv.spec.dtype);
    sums_clear(a, sums, p->n_rows);
    for (uint32_t first = lo / STRIP_TOKENS * STRIP_TOKENS; first < hi; first += STRIP_TOKENS) {
        struct strip s = {
            .first = first,
            .b0 = within(lo, first, STRIP_TOKENS) / KV_BLOCK_TOKENS,
            .b1 = (within(hi, first, STRIP_TOKENS) - 1) / KV_BLOCK_TOKENS,
            .t = p->n_rows > TILE_ROWS ? DT_F32 : a->kv.spec.dtype,
        };
        for (uint32_t b = s.b0; b <= s.b1; b++) {
            strip_get(a, room, p, &s, b);
            if (first + (b + STRIP_BLOCKS) * KV_BLOCK_TOKENS >= hi)
                continue;
            uint32_t block = block_at(a, p->span.seq, first / KV_BLOCK_TOKENS + b + STRIP_BLOCKS);
            const uint8_t *next =
                a->kv.data + kv_base(&a->kv, block, a->layer, p->kv_head) * dtype_bytes(a->kv.spec.dtype);
            for (size_t at = 0; at < bytes; at += 64)
                _mm_prefetch((const char *)next + at, _MM_HINT_T1);
        }
        for (uint32_t r = 0; r < p->n_rows; r += TILE_ROWS)
            tile_strip(a, room, sums, r, MIN(TILE_ROWS, p->n_rows - r), &s);
    }
}

/* merge: adds a part's sums to the total of the parts before it. */
static void merge(const struct attn *a, struct sums *total, const struct sums *part, uint32_t n_rows) {
    for (uint32_t r = 0; r < n_rows; r++) {
        if (part->m[r] == -INFINITY && part->l[r] == 0) /* no key of this part */
            continue;
        float m = part->m[r] > total->m[r] ? part->m[r] : total->m[r];
        __m256 old = v_exp(v_set(total->m[r] - m)), new = v_exp(v_set(part->m[r] - m));
        total->m[r] = m;
        total->l[r] = total->l[r] * _mm256_cvtss_f32(old) + part->l[r] * _mm256_cvtss_f32(new);
        for (uint32_t d = 0; d < a->n_panels_v; d++)
            for (int j = 0; j < 16; j += 8) {
                __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(total->out[d][r] + j), old);
                sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(part->out[d][r] + j), new));
                _mm256_storeu_ps(total->out[d][r] + j, sum);
            }
    }
}

/* piece_finish: the sinks, the division, and the rows' way out. */
static void piece_finish(const struct attn *a, const struct piece *p, const struct sums *s) {
    uint32_t hd_v = a->kv.spec.head_dim_v;
    for (uint32_t r = 0; r < p->n_rows; r++) {
        uint32_t head = p->head0 + r % p->n_heads, t = p->span.t0 + r / p->n_heads;
        float m = s->m[r], l = s->l[r], shrink = 1;
        if (a->sinks) {
            float top = a->sinks[head] > m ? a->sinks[head] : m;
            shrink = _mm256_cvtss_f32(v_exp(v_set(m - top)));
            l = l * shrink + _mm256_cvtss_f32(v_exp(v_set(a->sinks[head] - top)));
        }
        __m256 f = v_set(shrink / l);
        float *out = a->out + ((size_t)t * a->op->n_heads + head) * hd_v;
        for (uint32_t d = 0; d < hd_v; d += 8) {
            __m256 v = _mm256_mul_ps(_mm256_loadu_ps(s->out[d / PANEL_COLS][r] + d % PANEL_COLS), f);
            _mm256_maskstore_ps(out + d, v_mask((int)MIN(8, hd_v - d)), v);
        }
    }
}

/* q_get: the piece's queries in tiles, [tile][dim][row], and where they lie. */
static void q_get(const struct attn *a, struct room *room, const struct piece *p) {
    uint32_t hd = a->op->head_dim, span = a->op->rel_span;
    for (uint32_t r = 0; a->rel_bias && r < p->n_rows; r++) {
        uint32_t t = p->span.t0 + r / p->n_heads, head = p->head0 + r % p->n_heads;
        room->rel[r].bias = a->rel_bias + (size_t)head * (2 * span + 1) + span;
        room->rel[r].at = a->cached ? a->b->plan.pos[t] : (int)(t - a->b->plan.seq_start[p->span.seq]);
    }
    for (uint32_t r0 = 0; r0 < p->n_rows; r0 += TILE_ROWS) {
        const float *rows[TILE_ROWS];
        uint32_t n = MIN(TILE_ROWS, p->n_rows - r0);
        for (uint32_t r = 0; r < n; r++) {
            const float *row = a->qkv + (size_t)(p->span.t0 + (r0 + r) / p->n_heads) * a->cols;
            rows[r] = row + (size_t)(p->head0 + (r0 + r) % p->n_heads) * hd;
        }
        rows_interleave(rows, n, hd, room->q + (size_t)r0 * hd);
    }
}

/* part_bounds: what part `i` of all holds of a piece's keys; false: nothing. */
static bool part_bounds(const struct piece *p, uint32_t i, uint32_t *lo, uint32_t *hi) {
    *lo = MAX(p->lo, i * PART_TOKENS);
    *hi = MIN(p->hi, (i + 1) * PART_TOKENS);
    return *lo < *hi;
}

static void piece_run(const struct attn *a, struct room *room, uint32_t item) {
    struct piece p = piece_of(a, item / a->n_parts, room->keys);
    uint32_t lo, hi;
    q_get(a, room, &p);
    if (a->n_parts > 1) {
        if (part_bounds(&p, item % a->n_parts, &lo, &hi))
            part_run(a, room, &p, lo, hi, &a->split[item]);
        return;
    }
    sums_clear(a, &room->total, p.n_rows);
    for (uint32_t i = p.lo / PART_TOKENS; i <= (p.hi - 1) / PART_TOKENS; i++) {
        if (!part_bounds(&p, i, &lo, &hi))
            continue;
        part_run(a, room, &p, lo, hi, &room->part);
        merge(a, &room->total, &room->part, p.n_rows);
    }
    piece_finish(a, &p, &room->total);
}

static void piece_merge(const struct attn *a, struct room *room, uint32_t piece) {
    struct piece p = piece_of(a, piece, room->keys);
    uint32_t lo, hi;
    sums_clear(a, &room->total, p.n_rows);
    for (uint32_t i = 0; i < a->n_parts; i++)
        if (part_bounds(&p, i, &lo, &hi))
            merge(a, &room->total, &a->split[(size_t)piece * a->n_parts + i], p.n_rows);
    piece_finish(a, &p, &room->total);
}

/* turned: n rows of n_k floats into the columns of dst [n_k][16]; n is at most 4, and lanes beyond it get
 * what the last row has. */
static void turned(const float *x, size_t stride, uint32_t n, uint32_t n_k, float *dst) {
    const float *r[4];
    uint32_t k = 0;
    for (uint32_t i = 0; i < 4; i++)
        r[i] = x + MIN(i, n - 1) * stride;
    for (; k + 4 <= n_k; k += 4) {
        __m128 v0 = _mm_loadu_ps(r[0] + k), v1 = _mm_loadu_ps(r[1] + k);
        __m128 v2 = _mm_loadu_ps(r[2] + k), v3 = _mm_loadu_ps(r[3] + k);
        _MM_TRANSPOSE4_PS(v0, v1, v2, v3);
        _mm_storeu_ps(dst + (size_t)k * PANEL_COLS, v0);
        _mm_storeu_ps(dst + (size_t)(k + 1) * PANEL_COLS, v1);
        _mm_storeu_ps(dst + (size_t)(k + 2) * PANEL_COLS, v2);
        _mm_storeu_ps(dst + (size_t)(k + 3) * PANEL_COLS, v3);
    }
    for (; k < n_k; k++)
        for (uint32_t i = 0; i < 4; i++)
            dst[(size_t)k * PANEL_COLS + i] = r[i][k];
}

/* rows_pack: K and V of the tokens of one block of a group that keeps nothing, into the pool made of scratch.
 */
static void rows_pack(const struct attn *a, uint32_t block) {
    const struct plan *plan = &a->b->plan;
    uint32_t seq = 0, end = plan->n_seqs, hd = a->op->head_dim;
    while (end - seq > 1) { /* the last sequence whose blocks begin here or before; empty ones have none */
        uint32_t mid = (seq + end) / 2;
        if (a->first_block[mid] <= block)
            seq = mid;
        else
            end = mid;
    }
    uint32_t t0 = plan->seq_start[seq] + (block - a->first_block[seq]) * KV_BLOCK_TOKENS;
    uint32_t n = MIN(KV_BLOCK_TOKENS, plan->seq_start[seq + 1] - t0);
    const float *first = a->qkv + (size_t)t0 * a->cols + (size_t)a->op->n_heads * hd;
    float *pool = (float *)(void *)a->kv.data;
    for (uint32_t h = 0; h < a->op->n_kv_heads; h++) {
        const float *k = first + (size_t)h * hd, *v = k + (size_t)a->op->n_kv_heads * hd;
        for (uint32_t i = 0; i < n; i += 4)
            turned(k + i * a->cols, a->cols, MIN(4, n - i), hd, pool + kv_k(&a->kv, block, 0, h, i, 0));
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t d = 0; d < hd; d += PANEL_COLS)
                memcpy(pool + kv_v(&a->kv, block, 0, h, i, d), v + i * a->cols + d,
                       MIN(PANEL_COLS, hd - d) * sizeof *pool);
    }
}

static void attn_run(void *arg, int member) {
    struct attn *a = arg;
    struct room *room = &a->rooms[member];
    uint32_t n, i;
    if (!a->cached) {
        while (i = queue_take(&a->pack, &n), n)
            for (uint32_t block = i; block < i + n; block++)
                rows_pack(a, block);
        team_barrier(a->b->team);
    }
    while (i = queue_take(&a->pieces, &n), n)
        piece_run(a, room, i);
    if (a->n_parts == 1)
        return;
    team_barrier(a->b->team);
    while (i = queue_take(&a->merges, &n), n)
        piece_merge(a, room, i);
}

/* spans_make: cuts the sequences into spans that fill ROWS rows; also the packed pool's first blocks. Returns
 * the most keys a sequence has; *n_blocks: of the packed pool. */
static uint32_t spans_make(struct attn *a, uint32_t *n_blocks) {
    const struct plan *p = &a->b->plan;
    uint32_t step = MAX(1u, ROWS / a->chunk), most = 0;
    size_t bytes = (size_t)p->n_tokens * sizeof *a->spans + p->n_seqs * sizeof *a->first_block;
    size_t bytes_max =
        (size_t)a->b->n_tokens_max * sizeof *a->spans + a->b->n_seqs_max * sizeof *a->first_block;
    a->spans = cpu_scratch(a->b, SCRATCH_ROWS, MAX(bytes, bytes_max));
    a->first_block = (uint32_t *)(void *)(a->spans + p->n_tokens);
    *n_blocks = 0;
    for (uint32_t s = 0; s < p->n_seqs; s++) {
        uint32_t end = p->seq_start[s + 1], len = end - p->seq_start[s];
        a->first_block[s] = *n_blocks;
        *n_blocks += (len + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
        most = MAX(most, a->cached ? p->kv_len[s] : len);
        for (uint32_t t = p->seq_start[s]; t < end; t += step)
            a->spans[a->n_spans++] = (struct span){.seq = s, .t0 = t, .n = MIN(step, end - t)};
    }
    return most;
}

static void pool_make(struct attn *a, const struct be_kv *kv, uint32_t n_blocks) {
    if (kv) {
        a->kv = *kv;
        return;
    }
    a->kv = (struct be_kv){.n_blocks = n_blocks, .panels = true};
    a->kv.spec = (struct cache_group_spec){.kind = CACHE_NONE,
                                           .n_layers = 1,
                                           .n_kv_heads = a->op->n_kv_heads,
                                           .head_dim = a->op->head_dim,
                                           .head_dim_v = a->op->head_dim,
                                           .dtype = DT_F32};
    a->kv.data = cpu_scratch(a->b, SCRATCH_KV, cpu_kv_pool_bytes(&a->kv.spec, n_blocks));
}

void avx2_attn(struct be *b, const struct op_attn *op) {
    const struct plan *p = &b->plan;
    const struct be_kv *kv = kv_group(b, op->group, op->layer);
    uint32_t hd = op->head_dim, hd_v = kv ? kv->spec.head_dim_v : hd, n_blocks;
    CHECK(op->n_kv_heads > 0 && op->n_heads % op->n_kv_heads == 0 && hd <= DIM_MAX);
    CHECK(!kv || (kv->spec.n_kv_heads == op->n_kv_heads && kv->spec.head_dim == hd));
    struct attn a = {.b = b, .op = op, .cached = kv != NULL, .layer = kv ? op->layer : 0, .n_parts = 1};
    if (p->n_tokens == 0)
        return;
    a.cols = op->n_heads * hd + op->n_kv_heads * (hd + hd_v);
    a.qkv = cpu_f32(op->qkv, p->n_tokens, a.cols);
    a.out = cpu_f32(op->out, p->n_tokens, op->n_heads * hd_v);
    a.sinks = cpu_vector(op->sinks, op->n_heads);
    a.rel_bias = cpu_vector(op->rel_bias, op->n_heads * (2 * op->rel_span + 1));
    a.n_panels_v = (hd_v + PANEL_COLS - 1) / PANEL_COLS;
    a.group = op->n_heads / op->n_kv_heads;
    a.chunk = MIN(a.group, ROWS);
    a.n_chunks = (a.group + a.chunk - 1) / a.chunk;
    a.rooms = cpu_scratch(b, SCRATCH_THREAD, (size_t)b->n_threads * sizeof(struct room));
    uint32_t most = spans_make(&a, &n_blocks);
    pool_make(&a, kv, n_blocks);
    a.n_pieces = a.n_spans * op->n_kv_heads * a.n_chunks;
    uint32_t n_parts = (most + PART_TOKENS - 1) / PART_TOKENS;
    if (a.n_pieces < 2 * (uint32_t)b->n_threads && b->n_threads > 1 && n_parts > 1) {
        a.n_parts = n_parts; /* few rows, long contexts: members share the keys of one piece */
        a.split = cpu_scratch(b, SCRATCH_SPLIT, (size_t)a.n_pieces * n_parts * sizeof *a.split);
    }
    queue_init(&a.pack, n_blocks, 1);
    queue_init(&a.pieces, a.n_pieces * a.n_parts, 1);
    queue_init(&a.merges, a.n_pieces, 1);
    team_run(b->team, attn_run, &a);
}
