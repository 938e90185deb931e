/* moe_avx2.c: the mixture of experts: each row's choice, then the rows of each expert as one segment of a
 * product.
 *
 * Rows go in groups of ROWS_MAX, which bounds the memory in between. What a row's experts give is added up
 * best expert first, so a row's bits do not depend on the rows beside it.
 */
#include "worker/cpu/gemm.h"

#include "worker/cpu/simd.h"

enum { ROWS_MAX = 256 };

/* moe: of one group of rows. A pair is a row with one of its experts; `pairs` lie by expert, then by row. */
struct moe {
    const struct op_moe *op;
    const float *x, *add; /* of the group's first row */
    float *y;
    uint32_t n_rows, cols, n_pairs;
    float *logits;             /* [n_rows][n_experts] */
    float *weights;            /* [n_rows][top_k] */
    uint32_t *experts, *place; /* [n_rows][top_k]; place: of the pair among the pairs */
    uint32_t *row;             /* [n_pairs] */
    uint32_t *first;           /* [n_experts + 1] first pair of each expert */
    struct segment *segments;
    uint32_t n_segments;
    float *inner, *outer; /* [n_pairs][inner], [n_pairs][cols] */
    struct team_queue choose, combine;
};

static void choose_run(void *arg, int member) {
    struct moe *m = arg;
    uint32_t n, i, k = m->op->top_k;
    (void)member;
    while (i = queue_take(&m->choose, &n), n)
        for (uint32_t r = i; r < i + n; r++)
            moe_choose(m->op, m->logits + (size_t)r * m->op->n_experts, m->experts + (size_t)r * k,
                       m->weights + (size_t)r * k);
}

/* pairs_sort: counts, then places; and each expert's rows become segments. */
static void pairs_sort(struct moe *m) {
    uint32_t n_experts = m->op->n_experts;
    memset(m->first, 0, (n_experts + (size_t)1) * sizeof *m->first);
    for (uint32_t i = 0; i < m->n_pairs; i++)
        m->first[m->experts[i] + 1]++;
    m->n_segments = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        m->n_segments = segments_cut(m->segments, m->n_segments, e, m->first[e], m->first[e + 1]);
        m->first[e + 1] += m->first[e];
    }
    for (uint32_t i = 0; i < m->n_pairs; i++) { /* first[e] moves on to the end of e */
        m->place[i] = m->first[m->experts[i]]++;
        m->row[m->place[i]] = i / m->op->top_k;
    }
}

static void combine_run(void *arg, int member) {
    struct moe *m = arg;
    uint32_t n, i, k = m->op->top_k;
    (void)member;
    while (i = queue_take(&m->combine, &n), n)
        for (uint32_t r = i; r < i + n; r++)
            for (uint32_t c = 0; c < m->cols; c += 8) {
                __m256i mask = v_mask((int)MIN(8, m->cols - c));
                __m256 sum = _mm256_setzero_ps();
                for (uint32_t j = 0; j < k; j++) {
                    const float *part = m->outer + (size_t)m->place[r * k + j] * m->cols + c;
                    sum = _mm256_fmadd_ps(v_set(m->weights[r * k + j]), _mm256_maskload_ps(part, mask), sum);
                }
                size_t at = (size_t)r * m->cols + c;
                if (m->add)
                    sum = _mm256_add_ps(_mm256_maskload_ps(m->add + at, mask), sum);
                _mm256_maskstore_ps(m->y + at, mask, sum);
            }
}

static void group_run(struct be *b, struct moe *m) {
    const struct op_moe *op = m->op;
    struct row_norm norm = row_norm_of(&op->norm, m->cols);
    struct product router = {.w = op->router,
                             .x = m->x,
                             .norm = norm,
                             .y = m->logits,
                             .stride = op->n_experts,
                             .cols = op->n_experts,
                             .scale = 1,
                             .n_rows = m->n_rows};
    product_run(b, &router);
    queue_init(&m->choose, m->n_rows, 8);
    queue_init(&m->combine, m->n_rows, 8);
    team_run(b->team, choose_run, m);
    pairs_sort(m);
    struct product up = {.w = op->gate_up,
                         .x = m->x,
                         .rows = m->row,
                         .norm = norm,
                         .y = m->inner,
                         .stride = op->down->n_in,
                         .cols = op->down->n_in,
                         .act = op->act,
                         .scale = 1,
                         .n_rows = m->n_pairs,
                         .segments = m->segments,
                         .n_segments = m->n_segments};
    product_run(b, &up);
    struct product down = {.w = op->down,
                           .x = m->inner,
                           .y = m->outer,
                           .stride = m->cols,
                           .cols = m->cols,
                           .scale = 1,
                           .n_rows = m->n_pairs,
                           .segments = m->segments,
                           .n_segments = m->n_segments};
    product_run(b, &down);
    team_run(b->team, combine_run, m);
}

/* take: the next n elements of a block of memory, on lines of their own. */
#define TAKE(at, ptr, n) ((ptr) = (void *)(at), (at) += ((size_t)(n) * sizeof *(ptr) + 63) / 64 * 64)

void avx2_moe(struct be *b, const struct op_moe *op) {
    bool shared = op->reduce && b->group;
    uint32_t n = b->plan.n_tokens, cols = op->down->n_out, inner = op->down->n_in;
    uint32_t most = MIN(n, shared ? GROUP_ROWS : ROWS_MAX);
    moe_check(op, cols);
    const float *x = cpu_f32(op->x, n, cols), *add = op->add ? cpu_f32(op->add, n, cols) : NULL;
    float *y = cpu_f32(op->y, n, cols);
    size_t pairs = (size_t)most * op->top_k, n_segments = op->n_experts + pairs / SEGMENT_ROWS;
    size_t bytes = most * (size_t)op->n_experts * 4 + pairs * (4 * 4 + 4 * ((size_t)inner + cols)) +
                   (op->n_experts + (size_t)1) * 4 + n_segments * sizeof(struct segment) + 9 * 64;
    struct moe m = {.op = op, .cols = cols};
    uint8_t *at = cpu_scratch(b, SCRATCH_MOE, bytes), *end = at + bytes;
    TAKE(at, m.logits, most * (size_t)op->n_experts);
    TAKE(at, m.weights, pairs);
    TAKE(at, m.experts, pairs);
    TAKE(at, m.place, pairs);
    TAKE(at, m.row, pairs);
    TAKE(at, m.first, op->n_experts + (size_t)1);
    TAKE(at, m.segments, n_segments);
    TAKE(at, m.inner, pairs * inner);
    TAKE(at, m.outer, pairs * cols);
    CHECK(at <= end);
    for (uint32_t t = 0; t < n; t += most) {
        m.n_rows = MIN(most, n - t);
        m.n_pairs = m.n_rows * op->top_k;
        m.x = x + (size_t)t * cols;
        m.add = add && !shared ? add + (size_t)t * cols : NULL;
        m.y = shared ? group_slot(b->group) : y + (size_t)t * cols;
        group_run(b, &m);
        if (shared)
            group_sum(b, &(struct group_sum){.y = y + (size_t)t * cols,
                                             .add = add ? add + (size_t)t * cols : NULL,
                                             .n_rows = m.n_rows,
                                             .cols = cols});
    }
}
