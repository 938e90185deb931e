/* ref_math.c: embedding, norms, products and rotation in plain C. */
#include "worker/cpu/be.h"

#include <math.h>

#include "worker/cpu/convert.h"

void ref_norm_row(float *y, const float *x, uint32_t cols, const struct be_norm *norm) {
    const float *w = cpu_vector(norm->weight, cols), *bias = cpu_vector(norm->bias, cols);
    float mean = 0, sq = 0;
    if (norm->kind == NORM_NONE) {
        memmove(y, x, cols * sizeof *y);
        return;
    }
    for (uint32_t i = 0; norm->kind == NORM_LAYER && i < cols; i++)
        mean += x[i];
    mean /= (float)cols;
    for (uint32_t i = 0; i < cols; i++)
        sq += (x[i] - mean) * (x[i] - mean);
    float r = 1.0f / sqrtf(sq / (float)cols + norm->eps);
    for (uint32_t i = 0; i < cols; i++) {
        float v = (x[i] - mean) * r;
        if (norm->kind == NORM_RMS)
            y[i] = v * (norm->weight_offset + (w ? w[i] : 1.0f));
        else
            y[i] = v * (w ? w[i] : 1.0f) + (bias ? bias[i] : 0.0f);
    }
}

float ref_act(enum act_kind kind, float x) {
    switch (kind) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return x / (1.0f + expf(-x));
    case ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_TANH:
        return tanhf(x);
    case ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    }
    CHECK(!"an activation of backend.h");
    return 0;
}

void ref_embed(struct be *b, const struct op_embed *op) {
    const struct plan *p = &b->plan;
    float *y = cpu_f32(op->y, p->n_tokens, op->cols), scale = op->scale == 0 ? 1.0f : op->scale;
    CHECK(op->tokens && op->tokens->n_in == op->cols);
    if (op->sharded && b->group) {
        group_embed(b, op);
        return;
    }
    float *row = cpu_scratch(b, SCRATCH_THREAD, op->cols * sizeof *row);
    CHECK((!op->positions || op->positions->n_in == op->cols) && (!op->types || op->types->n_in == op->cols));
    for (uint32_t t = 0; t < p->n_tokens; t++, y += op->cols) {
        if (p->embed_row[t]) {
            const float *e = cpu_f32(p->embeds, p->embed_row[t], op->cols);
            memcpy(y, e + (size_t)(p->embed_row[t] - 1) * op->cols, op->cols * sizeof *y);
        } else {
            w_row_get(op->tokens, p->tokens[t], y);
        }
        for (uint32_t i = 0; i < op->cols; i++)
            y[i] *= scale;
        if (op->positions) {
            int64_t at = (int64_t)p->pos[t] + op->pos_offset;
            CHECK(p->n_axes > 0 && at >= 0 && at < op->positions->n_out);
            w_row_get(op->positions, (uint32_t)at, row);
            for (uint32_t i = 0; i < op->cols; i++)
                y[i] += row[i];
        }
        if (op->types) {
            w_row_get(op->types, p->type[t], row);
            for (uint32_t i = 0; i < op->cols; i++)
                y[i] += row[i];
        }
        ref_norm_row(y, y, op->cols, &op->norm);
    }
}

void ref_norm(struct be *b, const struct op_norm *op) {
    uint32_t n = op->n_rows ? op->n_rows : b->plan.n_tokens;
    float *y = cpu_f32(op->y, n, op->cols);
    const float *x = cpu_f32(op->x, n, op->cols), *add = op->add ? cpu_f32(op->add, n, op->cols) : NULL;
    float *row = cpu_scratch(b, SCRATCH_THREAD, op->cols * sizeof *row);
    for (uint32_t r = 0; r < n; r++) {
        size_t at = (size_t)r * op->cols;
        ref_norm_row(row, x + at, op->cols, &op->norm);
        for (uint32_t i = 0; i < op->cols; i++)
            y[at + i] = (add ? add[at + i] : 0.0f) + row[i];
    }
}

float ref_dot(const struct be_w *w, uint32_t row, const float *x) {
    size_t at = (size_t)row * w->n_in;
    float s = 0;
    switch (w->dtype) { /* the type is tested once, not per element */
    case DT_F32:
        for (uint32_t k = 0; k < w->n_in; k++)
            s += ((const float *)w->data)[at + k] * x[k];
        return s;
    case DT_F16:
        for (uint32_t k = 0; k < w->n_in; k++)
            s += f32_of_f16(((const uint16_t *)w->data)[at + k]) * x[k];
        return s;
    default:
        for (uint32_t k = 0; k < w->n_in; k++)
            s += f32_of_bf16(((const uint16_t *)w->data)[at + k]) * x[k];
        return s;
    }
}

struct product {
    const struct be_w *w;
    const float *x; /* [n_rows][n_in], normalised */
    float *y;       /* [n_rows][stride] */
    size_t stride;
    const float *bias; /* or NULL */
    const float *add;  /* as y, or NULL */
    enum act_kind act;
    uint32_t n_rows;
    float scale, softcap;    /* logits: 1 and 0 elsewhere */
    struct team_queue queue; /* over columns of y */
};

static void product_run(void *arg, int member) {
    (void)member;
    struct product *p = arg;
    bool glu = w_gated(p->w);
    uint32_t half = p->w->n_out / 2, n, i;
    while (i = queue_take(&p->queue, &n), n) {
        for (uint32_t c = i; c < i + n; c++)
            for (uint32_t r = 0; r < p->n_rows; r++) {
                const float *x = p->x + (size_t)r * p->w->n_in;
                size_t at = r * p->stride + c;
                float v = p->scale * ref_dot(p->w, c, x) + (p->bias ? p->bias[c] : 0.0f);
                v = ref_act(p->act, v);
                if (glu)
                    v *= ref_dot(p->w, half + c, x) + (p->bias ? p->bias[half + c] : 0.0f);
                if (p->softcap > 0)
                    v = p->softcap * tanhf(v / p->softcap);
                p->y[at] = (p->add ? p->add[at] : 0.0f) + v;
            }
    }
}

static void product(struct be *b, struct product *p) {
    bool glu = w_gated(p->w);
    queue_init(&p->queue, glu ? p->w->n_out / 2 : p->w->n_out, 16);
    team_run(b->team, product_run, p);
}

/* normed: the rows of x through a norm, in scratch; x itself without one. */
static const float *normed(struct be *b, const float *x, uint32_t n_rows, uint32_t cols,
                           const struct be_norm *norm) {
    if (norm->kind == NORM_NONE)
        return x;
    float *y = cpu_scratch(b, SCRATCH_X, (size_t)n_rows * cols * sizeof *y);
    for (size_t r = 0; r < n_rows; r++)
        ref_norm_row(y + r * cols, x + r * cols, cols, norm);
    return y;
}

/* head_norm: q_norm and k_norm, over each of n heads. */
static void head_norm(float *x, uint32_t n, uint32_t head_dim, const struct be_norm *norm) {
    for (uint32_t h = 0; h < n; h++)
        ref_norm_row(x + (size_t)h * head_dim, x + (size_t)h * head_dim, head_dim, norm);
}

void ref_rope_row(struct be *b, const struct rope_store *rope, uint32_t t, float *row) {
    const struct plan *p = &b->plan;
    const struct be_kv *kv = kv_group(b, rope->group, rope->layer);
    uint32_t hd = rope->head_dim, hd_v = kv ? kv->spec.head_dim_v : hd, n_pairs = rope->rotary_dim / 2;
    float *k = row + (size_t)rope->n_heads * hd, *v = k + (size_t)rope->n_kv_heads * hd;
    CHECK(rope->rotary_dim <= hd && rope->rotary_dim % 2 == 0);
    head_norm(row, rope->n_heads, hd, &rope->q_norm);
    head_norm(k, rope->n_kv_heads, hd, &rope->k_norm);
    const float *inv_freq = rope->rope != ROPE_NONE ? cpu_vector(rope->inv_freq, n_pairs) : NULL;
    CHECK(rope->rope == ROPE_NONE || inv_freq);
    for (uint32_t i = 0; rope->rope != ROPE_NONE && i < n_pairs; i++) {
        float angle = (float)p->pos[(size_t)plan_axis(b, rope, i) * p->n_tokens + t] * inv_freq[i];
        float scale = rope->rope_scale == 0 ? 1.0f : rope->rope_scale;
        float c = cosf(angle) * scale, s = sinf(angle) * scale;
        uint32_t a = rope->rope == ROPE_NEOX ? i : 2 * i,
                 z = rope->rope == ROPE_NEOX ? i + n_pairs : 2 * i + 1;
        for (uint32_t h = 0; h < rope->n_heads + rope->n_kv_heads; h++) { /* k's heads follow q's */
            float *x = row + (size_t)h * hd, xa = x[a], xz = x[z];
            x[a] = xa * c - xz * s;
            x[z] = xz * c + xa * s;
        }
    }
    if (!kv)
        return;
    CHECK(kv->spec.n_kv_heads == rope->n_kv_heads && kv->spec.head_dim == hd);
    uint32_t slot = p->group[rope->group].slot[t], blk = slot / KV_BLOCK_TOKENS, tok = slot % KV_BLOCK_TOKENS;
    float by_k = rope->k_scale == 0 ? 1.0f : 1.0f / rope->k_scale, by_v = rope->v_scale == 0 ? 1.0f : 1.0f / rope->v_scale;
    for (uint32_t h = 0; h < rope->n_kv_heads; h++) {
        for (uint32_t d = 0; d < hd; d++)
            f32_store(kv->data, kv->spec.dtype, kv_k(kv, blk, rope->layer, h, tok, d), k[(size_t)h * hd + d] * by_k);
        for (uint32_t d = 0; d < hd_v; d++)
            f32_store(kv->data, kv->spec.dtype, kv_v(kv, blk, rope->layer, h, tok, d),
                      v[(size_t)h * hd_v + d] * by_v);
    }
}

void ref_gemm(struct be *b, const struct op_gemm *op) {
    if (op->reduce && b->group) {
        group_gemm(b, op, ref_gemm);
        return;
    }
    uint32_t n = op->n_rows ? op->n_rows : b->plan.n_tokens, n_in = op->w->n_in;
    uint32_t cols = w_gated(op->w) ? op->w->n_out / 2 : op->w->n_out;
    CHECK(op->y != op->x && !op->w->panels && op->w->n_experts == 1);
    struct product p = {
        .w = op->w,
        .x = normed(b, cpu_f32(op->x, n, n_in), n, n_in, &op->norm),
        .y = cpu_f32(op->y, n, cols),
        .stride = cols,
        .bias = cpu_vector(op->bias, op->w->n_out),
        .add = op->add ? cpu_f32(op->add, n, cols) : NULL,
        .act = op->act,
        .n_rows = n,
        .scale = 1,
    };
    product(b, &p);
    if (!op->rope.on)
        return;
    CHECK(n == b->plan.n_tokens);
    for (uint32_t t = 0; t < n; t++)
        ref_rope_row(b, &op->rope, t, p.y + (size_t)t * cols);
}

void ref_logits(struct be *b, const struct op_logits *op) {
    const struct plan *plan = &b->plan;
    uint32_t n_in = op->w->n_in, n = plan->n_rows;
    const float *x = cpu_f32(op->x, op->gathered ? n : plan->n_tokens, n_in);
    float *rows = cpu_scratch(b, SCRATCH_ROWS, (size_t)n * n_in * sizeof *rows);
    bool shared = op->sharded && b->group;
    CHECK(op->col0 <= b->n_vocab && op->w->n_out <= b->n_vocab - op->col0);
    CHECK((shared || op->w->n_out == b->n_vocab) && !w_gated(op->w) && !op->w->panels &&
          op->w->n_experts == 1);
    if (shared)
        group_logits_begin(b->group);
    for (uint32_t r = 0; r < n; r++)
        ref_norm_row(rows + (size_t)r * n_in, x + (size_t)(op->gathered ? r : plan->rows[r]) * n_in, n_in, &op->norm);
    struct product p = {
        .w = op->w,
        .x = rows,
        .y = b->logits + op->col0,
        .stride = b->n_vocab_padded,
        .bias = cpu_vector(op->bias, op->w->n_out),
        .n_rows = n,
        .scale = op->scale == 0 ? 1.0f : op->scale,
        .softcap = op->softcap,
    };
    product(b, &p);
    if (shared)
        group_logits_end(b->group, plan->n_rows, op->col0, op->w->n_out);
    b->n_logits = n;
}
