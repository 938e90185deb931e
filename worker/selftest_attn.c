/* selftest_attn.c: rotation, cache and attention of ragged batches, against f64. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/selftest_private.h"

enum { SEQS = 4, STRIDE = 24, BLOCKS = SEQS * STRIDE };

struct scene {
    struct batch batch;
    uint32_t start[SEQS + 1], kv_len[SEQS], tokens[SELFTEST_TOKENS], slot[SELFTEST_TOKENS], table[BLOCKS];
    int32_t pos[SELFTEST_TOKENS];
};

struct layer {
    uint32_t n_heads, n_kv, dim, window, new_max, past_max;
    float softcap;
};

/* A row of the batch after its rotation, as the type holds it, and canonical blocks of keys and values. */
struct state {
    float *qkv, *past;
    size_t cols, block;
};

static void scene_make(struct selftest *t, struct scene *s, const struct layer *l) {
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < BLOCKS; i++)
        s->table[i] = (i * 5 + 1) % BLOCKS;
    for (uint32_t i = 0; i < SEQS; i++) {
        uint32_t n = 1 + selftest_below(t, l->new_max), past = selftest_below(t, l->past_max + 1);
        s->start[i + 1] = s->start[i] + n;
        s->kv_len[i] = past + n;
        for (uint32_t k = 0; k < n; k++) {
            s->pos[s->start[i] + k] = (int32_t)(past + k);
            s->slot[s->start[i] + k] = s->table[i * STRIDE + (past + k) / 16] * 16 + (past + k) % 16;
        }
    }
    s->batch = (struct batch){.n_tokens = s->start[SEQS], .n_seqs = SEQS, .n_axes = 1, .n_groups = 1, .tokens = s->tokens,
                              .pos = s->pos, .seq_start = s->start, .kv_len = s->kv_len};
    s->batch.group[0].table = s->table;
    s->batch.group[0].table_stride = STRIDE;
    s->batch.group[0].slot = s->slot;
}

static const float *row_of(const struct state *st, const struct scene *s, const struct layer *l, uint32_t seq, uint32_t j, uint32_t h) {
    return st->past + s->table[seq * STRIDE + j / 16] * st->block + ((size_t)h * 16 + j % 16) * l->dim;
}

/* one_head: expected output of a query; head_dim sums of f64. */
static void one_head(struct selftest *t, const struct state *st, const struct scene *s, const struct layer *l, uint32_t seq,
                     uint32_t token, uint32_t head, const float *got) {
    uint32_t at = (uint32_t)s->pos[token], lo = l->window && at + 1 > l->window ? at + 1 - l->window : 0, g = head / (l->n_heads / l->n_kv);
    const float *q = st->qkv + token * st->cols + head * l->dim;
    double p[STRIDE * 16], max = -INFINITY, sum = 0, size = 0, scores = 0;
    for (uint32_t j = lo; j <= at; j++) {
        const float *k = row_of(st, s, l, seq, j, g);
        p[j] = 0;
        for (uint32_t d = 0; d < l->dim; d++)
            p[j] += (double)q[d] * k[d] * 0.125;
        scores = fmax(scores, fabs(p[j]));
        if (l->softcap > 0)
            p[j] = l->softcap * tanh(p[j] / l->softcap);
        max = fmax(max, p[j]);
    }
    for (uint32_t j = lo; j <= at; j++)
        sum += p[j] = exp(p[j] - max);
    for (uint32_t d = 0; d < l->dim; d++) {
        double want = 0;
        for (uint32_t j = lo; j <= at; j++) {
            float v = row_of(st, s, l, seq, j, l->n_kv + g)[d];
            want += p[j] / sum * v;
            size = fmax(size, fabs((double)v));
        }
        /* weights are rounded to the type, scores carry a sum's roundings, the result is rounded */
        selftest_near(t, got[d], want, (2.5 * t->half + (l->dim + 64.0) * 0x1p-23 * (scores + 1)) * (size + 0.5));
    }
}

/* f16_bits: of a number that f16 holds. */
static uint16_t f16_bits(float x) {
    float a = fabsf(x);
    uint32_t u, sign = signbit(x) ? 0x8000 : 0;
    memcpy(&u, &a, sizeof u);
    return (uint16_t)(sign | (a < 0x1p-14f ? (uint32_t)(a * 0x1p24f) : (u - 0x38000000u) >> 13));
}

static void layer_check(struct selftest *t, const struct layer *l) {
    static struct scene s;
    struct state st = {.cols = (l->n_heads + 2 * (size_t)l->n_kv) * l->dim, .block = 2 * (size_t)l->n_kv * 16 * l->dim};
    scene_make(t, &s, l);
    uint32_t n = s.batch.n_tokens, cols = (uint32_t)st.cols, blocks[BLOCKS];
    char err[BE_ERR_BYTES] = "";
    struct cache_group_spec spec = {.kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = l->n_kv, .head_dim = l->dim, .dtype = DT_F32};
    if (t->act != DT_F32)
        spec.dtype = t->act;
    struct be_kv *kv = t->ops->kv_new(t->b, 0, &spec, BLOCKS, err);
    CHECK(kv);
    st.past = selftest_floats(t, BLOCKS * st.block, 1);
    float *x = selftest_floats(t, n * st.cols, 1), *eye = calloc(st.cols * st.cols, sizeof *eye);
    uint16_t *half = NULL;
    CHECK(eye);
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = i;
    if (t->act != DT_F32) { /* bits of bf16 are the upper ones of f32 */
        half = xreallocarray(NULL, BLOCKS * st.block, sizeof *half);
        for (size_t i = 0; i < BLOCKS * st.block; i++) {
            uint32_t u;
            memcpy(&u, &st.past[i], sizeof u);
            half[i] = t->act == DT_F16 ? f16_bits(st.past[i]) : (uint16_t)(u >> 16);
        }
    }
    t->ops->kv_import(t->b, kv, blocks, BLOCKS, half ? (void *)half : st.past);
    for (uint32_t i = 0; i < cols; i++)
        eye[i * st.cols + i] = 1;
    float *inv_freq = xreallocarray(NULL, l->dim / 2, sizeof *inv_freq);
    for (uint32_t i = 0; i < l->dim / 2; i++)
        inv_freq[i] = powf(10000, -2.0f * (float)i / (float)l->dim);
    struct be_mem *row = selftest_mem(t, NULL, n, cols), *out = selftest_mem(t, NULL, n, l->n_heads * l->dim), *xm = selftest_mem(t, x, n, cols);
    struct be_w *w = selftest_weight(t, BE_W_LINEAR, eye, cols, cols), *freq = selftest_weight(t, BE_W_VECTOR, inv_freq, 1, l->dim / 2);
    t->ops->plan(t->b, &s.batch);
    t->ops->gemm(t->b, &(struct op_gemm){.y = row, .x = xm, .w = w,
                                         .rope = {.on = true, .n_heads = l->n_heads, .n_kv_heads = l->n_kv, .head_dim = l->dim,
                                                  .rotary_dim = l->dim, .rope = ROPE_NEOX, .inv_freq = freq}});
    st.qkv = selftest_get(t, row, n, cols);
    for (uint32_t k = 0; k < n; k++) /* rotated heads against f64, values as they were */
        for (uint32_t h = 0; h < l->n_heads + l->n_kv; h++)
            for (uint32_t i = 0; i < l->dim / 2; i++) {
                const float *from = x + k * st.cols + h * l->dim, *to = st.qkv + k * st.cols + h * l->dim;
                double a = s.pos[k] * (double)inv_freq[i], u = from[i], v = from[i + l->dim / 2];
                selftest_near(t, to[i], u * cos(a) - v * sin(a), (2 * t->half + 1e-4) * (fabs(u) + fabs(v) + 0.01));
                selftest_near(t, to[i + l->dim / 2], v * cos(a) + u * sin(a), (2 * t->half + 1e-4) * (fabs(u) + fabs(v) + 0.01));
            }
    for (uint32_t k = 0; k < n; k++) /* what the step stored */
        for (uint32_t h = 0; h < 2 * l->n_kv; h++)
            memcpy(st.past + (s.slot[k] / 16) * st.block + ((size_t)h * 16 + s.slot[k] % 16) * l->dim,
                   h < l->n_kv ? st.qkv + k * st.cols + (l->n_heads + h) * l->dim : x + k * st.cols + (l->n_heads + h) * l->dim,
                   l->dim * sizeof(float));
    t->ops->attn(t->b, &(struct op_attn){.out = out, .qkv = row, .n_heads = l->n_heads, .n_kv_heads = l->n_kv, .head_dim = l->dim,
                                         .scale = 0.125f, .softcap = l->softcap, .window = l->window});
    float *got = selftest_get(t, out, n, l->n_heads * l->dim);
    for (uint32_t seq = 0; seq < SEQS; seq++)
        for (uint32_t k = s.start[seq]; k < s.start[seq + 1]; k++)
            for (uint32_t h = 0; h < l->n_heads; h++)
                one_head(t, &st, &s, l, seq, k, h, got + ((size_t)k * l->n_heads + h) * l->dim);
    t->ops->mem_free(t->b, row), t->ops->mem_free(t->b, out), t->ops->mem_free(t->b, xm);
    t->ops->weight_free(t->b, w), t->ops->weight_free(t->b, freq), t->ops->kv_free(t->b, kv);
    free(st.past), free(st.qkv), free(x), free(eye), free(half), free(inv_freq), free(got);
}

void selftest_attn(struct selftest *t) {
    static const struct layer layers[] = {
        {4, 2, 64, 0, 20, 200, 0},  {8, 2, 128, 0, 1, 300, 0}, {3, 1, 96, 0, 20, 30, 4}, {2, 2, 256, 0, 20, 40, 0},
        {4, 4, 64, 33, 20, 100, 0}, {4, 1, 80, 0, 6, 90, 0},   {6, 1, 128, 50, 1, 300, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(layers); i++)
        layer_check(t, &layers[i]);
}

/* Blocks go in, are copied, and come out with every byte in place. */
void selftest_blocks(struct selftest *t) {
    enum { N = 9 };
    struct cache_group_spec spec = {.kind = CACHE_FULL, .n_layers = 3, .n_kv_heads = 2, .head_dim = 64, .dtype = DT_BF16};
    char err[BE_ERR_BYTES] = "";
    struct be_kv *kv = t->ops->kv_new(t->b, 0, &spec, N, err);
    CHECK(kv);
    size_t bytes = t->ops->kv_block_bytes(t->b, &spec);
    uint8_t *in = xmalloc(N * bytes), *back = xcalloc(N, bytes);
    uint32_t blocks[N];
    for (uint32_t i = 0; i < N; i++)
        blocks[i] = i;
    for (size_t i = 0; i < N * bytes; i++)
        in[i] = (uint8_t)(i * 131 + i / 257);
    static const struct be_copy copies[] = {{0, 8}, {1, 7}, {8, 2}};
    t->ops->kv_import(t->b, kv, blocks, N, in);
    t->ops->kv_copy(t->b, kv, copies, ARRAY_LEN(copies));
    t->ops->kv_export(t->b, kv, blocks, N, back);
    for (size_t i = 0; i < ARRAY_LEN(copies); i++)
        memcpy(in + copies[i].dst * bytes, in + copies[i].src * bytes, bytes);
    if (memcmp(in, back, N * bytes) != 0)
        snprintf(t->error, sizeof t->error, "blocks come out other than they went in");
    t->ops->kv_free(t->b, kv);
    free(in), free(back);
}
