#include "worker/cpu/be.h"

/* take: the next n elements of a block of memory. */
#define TAKE(at, ptr, n) ((ptr) = (void *)(at), (at) += ((size_t)(n) * sizeof *(ptr) + 63) / 64 * 64)

bool plan_init(struct be *b) {
    struct plan *p = &b->plan;
    size_t t = b->n_tokens_max, s = b->n_seqs_max, r = b->n_rows_max;
    size_t bytes =
        (t * (4 + 4 * BE_AXES_MAX + 4 + 1 + 4 + 4 * BE_GROUPS_MAX) + s * (4 + 4 + 1) + 4 + r * 4) + 64 * 16;
    uint8_t *at = cpu_alloc(bytes), *end = at + bytes;
    if (!at)
        return false;
    b->scratch[SCRATCH_PLAN].data = at;
    b->scratch[SCRATCH_PLAN].bytes = bytes;
    TAKE(at, p->tokens, t);
    TAKE(at, p->pos, t * BE_AXES_MAX);
    TAKE(at, p->seq_of, t);
    TAKE(at, p->seq_start, s + 1);
    TAKE(at, p->kv_len, s);
    TAKE(at, p->kind, s);
    TAKE(at, p->type, t);
    TAKE(at, p->embed_row, t);
    TAKE(at, p->rows, r);
    for (int g = 0; g < BE_GROUPS_MAX; g++)
        TAKE(at, p->group[g].slot, t);
    CHECK(at <= end);
    return true;
}

/* copy_or_zero: n bytes of src, or zeros for NULL. */
static void copy_or_zero(void *dst, const void *src, size_t n) {
    if (src)
        memcpy(dst, src, n);
    else
        memset(dst, 0, n);
}

static void plan_group(struct be *b, const struct batch *batch, uint32_t g) {
    struct plan *p = &b->plan;
    const struct be_kv *kv = b->kv[g];
    p->group[g].on = g < batch->n_groups && batch->group[g].slot != NULL;
    if (!p->group[g].on)
        return;
    CHECK(kv && kv->spec.kind != CACHE_NONE);
    uint32_t stride = batch->group[g].table_stride;
    size_t n = (size_t)p->n_seqs * stride;
    for (uint32_t i = 0; i < p->n_tokens; i++)
        CHECK(batch->group[g].slot[i] / KV_BLOCK_TOKENS < kv->n_blocks);
    for (uint32_t s = 0; s < p->n_seqs; s++)
        CHECK((uint64_t)stride * KV_BLOCK_TOKENS >= p->kv_len[s]);
    memcpy(p->group[g].slot, batch->group[g].slot, p->n_tokens * sizeof *p->group[g].slot);
    p->group[g].table = cpu_scratch(b, SCRATCH_TABLE + g, n * sizeof *p->group[g].table);
    if (n)
        memcpy(p->group[g].table, batch->group[g].table, n * sizeof *p->group[g].table);
    p->group[g].table_stride = stride;
}

void cpu_plan(struct be *b, const struct batch *batch) {
    struct plan *p = &b->plan;
    CHECK(batch->n_tokens <= b->n_tokens_max && batch->n_seqs <= b->n_seqs_max &&
          batch->n_rows <= b->n_rows_max);
    CHECK(batch->n_axes <= BE_AXES_MAX && batch->n_groups <= BE_GROUPS_MAX);
    b->n_plans++;
    p->n_tokens = batch->n_tokens;
    p->n_seqs = batch->n_seqs;
    p->n_rows = batch->n_rows;
    p->n_axes = batch->n_axes;
    p->embeds = batch->embeds;
    copy_or_zero(p->tokens, batch->tokens, p->n_tokens * sizeof *p->tokens);
    copy_or_zero(p->pos, batch->pos, (size_t)p->n_axes * p->n_tokens * sizeof *p->pos);
    copy_or_zero(p->kind, batch->kind, p->n_seqs);
    copy_or_zero(p->type, batch->token_type, p->n_tokens);
    copy_or_zero(p->embed_row, batch->embeds ? batch->embed_row : NULL, p->n_tokens * sizeof *p->embed_row);
    copy_or_zero(p->rows, batch->rows, p->n_rows * sizeof *p->rows);
    copy_or_zero(p->kv_len, batch->kv_len, p->n_seqs * sizeof *p->kv_len);
    memcpy(p->seq_start, batch->seq_start, (p->n_seqs + (size_t)1) * sizeof *p->seq_start);
    CHECK(p->seq_start[0] == 0 && p->seq_start[p->n_seqs] == p->n_tokens);
    for (uint32_t s = 0; s < p->n_seqs; s++) {
        CHECK(p->seq_start[s] <= p->seq_start[s + 1] && p->kind[s] != ATTN_CROSS);
        for (uint32_t t = p->seq_start[s]; t < p->seq_start[s + 1]; t++)
            p->seq_of[t] = s;
    }
    for (uint32_t r = 0; r < p->n_rows; r++)
        CHECK(p->rows[r] < p->n_tokens);
    for (uint32_t t = 0; batch->from_row && t < p->n_tokens; t++) {
        if (batch->from_row[t] == 0)
            continue;
        CHECK(batch->from_row[t] <= b->n_last_ids);
        p->tokens[t] = b->last_ids[batch->from_row[t] - 1];
    }
    for (uint32_t g = 0; g < BE_GROUPS_MAX; g++)
        plan_group(b, batch, g);
}

bool cpu_begin(struct be *b) {
    (void)b;
    return false;
}

void cpu_end(struct be *b) {
    (void)b;
}

struct keys plan_keys(const struct be *b, const struct be_kv *kv, uint32_t t, uint32_t window) {
    const struct plan *p = &b->plan;
    uint32_t s = p->seq_of[t], n = p->seq_start[s + 1] - p->seq_start[s], at = t - p->seq_start[s];
    if (kv) {
        n = p->kv_len[s];
        CHECK(p->n_axes > 0 && p->pos[t] >= 0 && (uint32_t)p->pos[t] < n);
        at = (uint32_t)p->pos[t];
        if (kv->spec.kind == CACHE_WINDOW && (window == 0 || kv->spec.window < window))
            window = kv->spec.window;
    }
    struct keys k = {0, p->kind[s] == ATTN_BIDIRECTIONAL ? n : at + 1};
    if (window > 0) {
        k.lo = at + 1 > window ? at + 1 - window : 0;
        k.hi = window < k.hi - at ? at + window : k.hi;
    }
    return k;
}

uint32_t plan_axis(const struct be *b, const struct rope_store *rope, uint32_t pair) {
    uint32_t axis = 0, end = rope->axis_sections[0];
    for (uint32_t a = 1; a < BE_AXES_MAX && pair >= end; a++)
        if (rope->axis_sections[a]) {
            axis = a;
            end += rope->axis_sections[a];
        }
    CHECK(axis < b->plan.n_axes);
    return axis;
}
