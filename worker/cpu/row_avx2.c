/* row_avx2.c: what is done to one row at a time: embedding, norms, rotation and the store of K and V. */
#include "worker/cpu/cpu.h"

#include <math.h>

#include "worker/cpu/convert.h"
#include "worker/cpu/simd.h"

struct row_norm row_norm_of(const struct be_norm *norm, uint32_t cols) {
    return (struct row_norm){
        .kind = norm->kind,
        .weight = norm->kind ? cpu_vector(norm->weight, cols) : NULL,
        .bias = norm->kind ? cpu_vector(norm->bias, cols) : NULL,
        .eps = norm->eps,
        .offset = norm->weight_offset,
        .cols = cols,
    };
}

/* row_sum: of x, or of (x - mean) squared, over four times eight lanes and then a tail of one more vector. */
INLINE float row_sum(const float *x, uint32_t n, bool squares, float mean) {
    __m256 s[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256 m = v_set(mean);
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * j), m);
            s[j] = squares ? _mm256_fmadd_ps(v, v, s[j]) : _mm256_add_ps(s[j], v);
        }
    for (; i < n; i += 8) {
        __m256i mask = v_mask((int)MIN(8, n - i));
        __m256 v =
            _mm256_and_ps(_mm256_sub_ps(_mm256_maskload_ps(x + i, mask), m), _mm256_castsi256_ps(mask));
        s[0] = squares ? _mm256_fmadd_ps(v, v, s[0]) : _mm256_add_ps(s[0], v);
    }
    return v_sum(_mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
}

void row_norm_run(const struct row_norm *n, const float *x, float *y) {
    if (n->kind == NORM_NONE) {
        if (y != x)
            v_copy(y, x, n->cols);
        return;
    }
    float mean = n->kind == NORM_LAYER ? row_sum(x, n->cols, false, 0) / (float)n->cols : 0;
    float inv = 1.0f / sqrtf(row_sum(x, n->cols, true, mean) / (float)n->cols + n->eps);
    __m256 m = v_set(mean), r = v_set(inv), one = v_set(1.0f);
    __m256 offset = v_set(n->kind == NORM_RMS ? n->offset : 0);
    for (uint32_t i = 0; i < n->cols; i += 8) {
        uint32_t left = n->cols - i;
        __m256i mask = v_mask((int)MIN(8, left));
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_maskload_ps(x + i, mask), m), r);
        __m256 w = n->weight ? _mm256_loadu_ps(n->weight + i) : one; /* vectors are padded */
        v = _mm256_mul_ps(v, _mm256_add_ps(offset, w));
        if (n->kind == NORM_LAYER && n->bias)
            v = _mm256_add_ps(v, _mm256_loadu_ps(n->bias + i));
        _mm256_maskstore_ps(y + i, mask, v);
    }
}

/* interleave_4: four k of n rows, one of 2 to 6. */
INLINE void interleave_4(const float *const *rows, uint32_t n, uint32_t k, float *dst) {
    __m128 a = _mm_loadu_ps(rows[0] + k), b = _mm_loadu_ps(rows[1] + k);
    if (n == 2) {
        _mm_storeu_ps(dst, _mm_unpacklo_ps(a, b));
        _mm_storeu_ps(dst + 4, _mm_unpackhi_ps(a, b));
        return;
    }
    __m128 c = _mm_loadu_ps(rows[2] + k), d = n > 3 ? _mm_loadu_ps(rows[3] + k) : _mm_setzero_ps();
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(dst, a); /* of 3 rows the fourth float is overwritten by the next */
    _mm_storeu_ps(dst + n, b);
    _mm_storeu_ps(dst + 2 * n, c);
    _mm_storeu_ps(dst + 3 * n, d);
    for (uint32_t i = 0; n == 5 && i < 4; i++)
        dst[5 * i + 4] = rows[4][k + i];
    if (n < 6)
        return;
    __m128 e = _mm_loadu_ps(rows[4] + k), f = _mm_loadu_ps(rows[5] + k);
    __m128 lo = _mm_unpacklo_ps(e, f), hi = _mm_unpackhi_ps(e, f);
    _mm_storel_pi((__m64 *)(void *)(dst + 4), lo);
    _mm_storeh_pi((__m64 *)(void *)(dst + 10), lo);
    _mm_storel_pi((__m64 *)(void *)(dst + 16), hi);
    _mm_storeh_pi((__m64 *)(void *)(dst + 22), hi);
}

/* The last k go one by one: what follows dst may be another member's. */
void rows_interleave(const float *const *rows, uint32_t n, uint32_t n_k, float *dst) {
    uint32_t k = 0;
    CHECK(n >= 1 && n <= 6);
    if (n == 1) {
        v_copy(dst, rows[0], n_k);
        return;
    }
#define FOURS(n_rows)                                                                                        \
    case n_rows:                                                                                             \
        for (; k + 4 < n_k; k += 4)                                                                          \
            interleave_4(rows, n_rows, k, dst + (size_t)k * n_rows);                                         \
        break
    switch (n) {
        FOURS(2);
        FOURS(3);
        FOURS(4);
        FOURS(5);
        FOURS(6);
    }
#undef FOURS
    for (dst += (size_t)k * n; k < n_k; k++)
        for (uint32_t r = 0; r < n; r++)
            *dst++ = rows[r][k];
}

struct rows {
    struct be *b;
    const struct op_embed *embed;
    struct row_norm norm;
    const float *x, *add;
    float *y, *room; /* room: [n_threads][cols] */
    uint32_t cols;
    struct team_queue queue;
};

static void add_row(float *y, const float *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void embed_row(const struct rows *a, uint32_t t, float *y, float *room) {
    const struct op_embed *op = a->embed;
    const struct plan *p = &a->b->plan;
    if (p->embed_row[t]) {
        const float *e = cpu_f32(p->embeds, p->embed_row[t], a->cols);
        v_copy(y, e + (size_t)(p->embed_row[t] - 1) * a->cols, a->cols);
    } else {
        w_row_get(op->tokens, p->tokens[t], y);
    }
    for (uint32_t i = 0; op->scale != 0 && i < a->cols; i++)
        y[i] *= op->scale;
    if (op->positions) {
        int64_t at = (int64_t)p->pos[t] + op->pos_offset;
        CHECK(p->n_axes > 0 && at >= 0 && at < op->positions->n_out);
        w_row_get(op->positions, (uint32_t)at, room);
        add_row(y, room, a->cols);
    }
    if (op->types) {
        w_row_get(op->types, p->type[t], room);
        add_row(y, room, a->cols);
    }
    row_norm_run(&a->norm, y, y);
}

static void rows_run(void *arg, int member) {
    struct rows *a = arg;
    float *room = a->room + (size_t)member * a->cols;
    uint32_t n, i;
    while (i = queue_take(&a->queue, &n), n)
        for (uint32_t r = i; r < i + n; r++) {
            float *y = a->y + (size_t)r * a->cols;
            if (a->embed) {
                embed_row(a, r, y, room);
                continue;
            }
            if (!a->add) {
                row_norm_run(&a->norm, a->x + (size_t)r * a->cols, y);
                continue;
            }
            row_norm_run(&a->norm, a->x + (size_t)r * a->cols, room);
            const float *add = a->add + (size_t)r * a->cols;
            for (uint32_t c = 0; c < a->cols; c++)
                y[c] = add[c] + room[c];
        }
}

static void rows_start(struct be *b, struct rows *a, uint32_t n) {
    a->b = b;
    a->room = cpu_scratch(b, SCRATCH_ROWS, (size_t)b->n_threads * a->cols * sizeof *a->room);
    queue_init(&a->queue, n, MAX(1u, MIN(16u, n / (uint32_t)b->n_threads)));
    team_run(b->team, rows_run, a);
}

void avx2_embed(struct be *b, const struct op_embed *op) {
    CHECK(op->tokens && op->tokens->n_in == op->cols);
    if (op->sharded && b->group) {
        group_embed(b, op);
        return;
    }
    CHECK((!op->positions || op->positions->n_in == op->cols) && (!op->types || op->types->n_in == op->cols));
    struct rows a = {
        .embed = op,
        .norm = row_norm_of(&op->norm, op->cols),
        .y = cpu_f32(op->y, b->plan.n_tokens, op->cols),
        .cols = op->cols,
    };
    rows_start(b, &a, b->plan.n_tokens);
}

void avx2_norm(struct be *b, const struct op_norm *op) {
    uint32_t n = op->n_rows ? op->n_rows : b->plan.n_tokens;
    struct rows a = {
        .norm = row_norm_of(&op->norm, op->cols),
        .x = cpu_f32(op->x, n, op->cols),
        .add = op->add ? cpu_f32(op->add, n, op->cols) : NULL,
        .y = cpu_f32(op->y, n, op->cols),
        .cols = op->cols,
    };
    rows_start(b, &a, n);
}

/* same_angles: two ropes turn by the same angles. */
static bool same_angles(const struct rope_store *a, const struct rope_store *b) {
    return a->inv_freq == b->inv_freq && a->rotary_dim == b->rotary_dim && a->rope_scale == b->rope_scale &&
           memcmp(a->axis_sections, b->axis_sections, sizeof a->axis_sections) == 0;
}

/* The table is [n_tokens][cos, sin][pairs]. Sines and cosines are libm's, as the plain C backend's: their
 * number is small, and a long context needs their exact reduction of large angles. */
void rope_prepare(struct be *b, const struct rope_store *rope) {
    const struct plan *p = &b->plan;
    uint32_t n = rope->rotary_dim / 2;
    CHECK(rope->rotary_dim <= rope->head_dim && rope->rotary_dim % 2 == 0);
    if (rope->rope == ROPE_NONE || (b->angles.plan == b->n_plans && same_angles(&b->angles.of, rope)))
        return;
    const float *inv_freq = cpu_vector(rope->inv_freq, n);
    CHECK(inv_freq);
    float *table = cpu_scratch(b, SCRATCH_ROPE, (size_t)b->n_tokens_max * rope->rotary_dim * sizeof *table);
    float scale = rope->rope_scale == 0 ? 1.0f : rope->rope_scale;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t *pos = p->pos + (size_t)plan_axis(b, rope, i) * p->n_tokens;
        for (uint32_t t = 0; t < p->n_tokens; t++) {
            float angle = (float)pos[t] * inv_freq[i];
            table[(size_t)t * 2 * n + i] = cosf(angle) * scale;
            table[(size_t)t * 2 * n + n + i] = sinf(angle) * scale;
        }
    }
    b->angles.plan = b->n_plans;
    b->angles.of = *rope;
}

/* head_rotate: pairs (i, i + n) or (2i, 2i + 1) of one head. */
static void head_rotate(float *x, const float *cosines, const float *sines, uint32_t n, enum rope_kind kind) {
    uint32_t i = 0;
    for (; kind == ROPE_NEOX && i + 8 <= n; i += 8) {
        __m256 a = _mm256_loadu_ps(x + i), z = _mm256_loadu_ps(x + n + i);
        __m256 c = _mm256_loadu_ps(cosines + i), s = _mm256_loadu_ps(sines + i);
        _mm256_storeu_ps(x + i, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(z, s)));
        _mm256_storeu_ps(x + n + i, _mm256_add_ps(_mm256_mul_ps(z, c), _mm256_mul_ps(a, s)));
    }
    for (; i < n; i++) {
        float *a = kind == ROPE_NEOX ? x + i : x + 2 * i, *z = kind == ROPE_NEOX ? x + n + i : a + 1;
        float xa = *a, xz = *z;
        *a = xa * cosines[i] - xz * sines[i];
        *z = xz * cosines[i] + xa * sines[i];
    }
}

/* panel_row_store: up to 16 dims of V of one token, `at` being the first one's place in the pool; n below 16:
 * the dims beyond the last whole panel, which lie in plain order. */
static void panel_row_store(const struct be_kv *kv, size_t at, const float *v, uint32_t n) {
    enum dtype t = kv->spec.dtype;
    for (uint32_t j = 0; j < MIN(n, PANEL_COLS); j++)
        f32_store(kv->data, t, at + (n >= PANEL_COLS ? panel_place(t, j) : j), v[j]);
}

void rope_row(const struct be *b, const struct rope_store *rope, uint32_t t, float *row) {
    const struct plan *p = &b->plan;
    const struct be_kv *kv = kv_group(b, rope->group, rope->layer);
    uint32_t hd = rope->head_dim, hd_v = kv ? kv->spec.head_dim_v : hd, n_pairs = rope->rotary_dim / 2;
    uint32_t n_heads = rope->n_heads + rope->n_kv_heads; /* k's heads follow q's */
    struct row_norm q_norm = row_norm_of(&rope->q_norm, hd), k_norm = row_norm_of(&rope->k_norm, hd);
    const float *angles = (const float *)b->scratch[SCRATCH_ROPE].data + (size_t)t * rope->rotary_dim;
    for (uint32_t h = 0; h < n_heads; h++) {
        float *x = row + (size_t)h * hd;
        row_norm_run(h < rope->n_heads ? &q_norm : &k_norm, x, x);
        if (rope->rope != ROPE_NONE)
            head_rotate(x, angles, angles + n_pairs, n_pairs, rope->rope);
    }
    if (!kv)
        return;
    CHECK(kv->spec.n_kv_heads == rope->n_kv_heads && kv->spec.head_dim == hd);
    const float *k = row + (size_t)rope->n_heads * hd, *v = k + (size_t)rope->n_kv_heads * hd;
    uint32_t slot = p->group[rope->group].slot[t], blk = slot / KV_BLOCK_TOKENS, tok = slot % KV_BLOCK_TOKENS;
    for (uint32_t h = 0; h < rope->n_kv_heads; h++) {
        size_t at = kv_k(kv, blk, rope->layer, h, tok, 0);
        for (uint32_t d = 0; d < hd; d++)
            f32_store(kv->data, kv->spec.dtype, at + (size_t)d * PANEL_COLS, k[(size_t)h * hd + d]);
        for (uint32_t d = 0; d < hd_v; d += PANEL_COLS)
            panel_row_store(kv, kv_v(kv, blk, rope->layer, h, tok, d), v + (size_t)h * hd_v + d, hd_v - d);
    }
}
