/* ref_attn.c: attention in plain C: for each token and head all scores, their softmax, the weighted sum. */
#include "worker/cpu/be.h"

#include <math.h>

#include "worker/cpu/convert.h"

/* head: what one query head of one token reads. */
struct head {
    const struct be_kv *kv; /* NULL: k and v are rows of qkv */
    const uint32_t *table;
    const float *k, *v; /* of the sequence's first row, at this head */
    size_t stride;      /* of rows of qkv */
    uint32_t layer, index, dim, dim_v;
    const float *bias; /* by distance, of distance 0; NULL: none */
    uint32_t at;       /* the query's place among the keys */
    float k_scale, v_scale;
};

static float key(const struct head *h, uint32_t j, uint32_t d) {
    if (!h->kv)
        return h->k[j * h->stride + d];
    uint32_t block = h->table[j / KV_BLOCK_TOKENS];
    return h->k_scale * f32_load(h->kv->data, h->kv->spec.dtype,
                                 kv_k(h->kv, block, h->layer, h->index, j % KV_BLOCK_TOKENS, d));
}

static float value(const struct head *h, uint32_t j, uint32_t d) {
    if (!h->kv)
        return h->v[j * h->stride + d];
    uint32_t block = h->table[j / KV_BLOCK_TOKENS];
    return h->v_scale * f32_load(h->kv->data, h->kv->spec.dtype,
                                 kv_v(h->kv, block, h->layer, h->index, j % KV_BLOCK_TOKENS, d));
}

/* head_attn: one query over keys [keys.lo, keys.hi). p: room for a score each. sink: -inf for none. */
static void head_attn(float *out, const float *q, const struct head *h, struct keys keys,
                      const struct op_attn *op, float sink, float *p) {
    float max = sink, sum = 0;
    for (uint32_t j = keys.lo; j < keys.hi; j++) {
        float s = 0;
        for (uint32_t d = 0; d < h->dim; d++)
            s += q[d] * key(h, j, d);
        s *= op->scale;
        if (op->softcap > 0)
            s = op->softcap * tanhf(s / op->softcap);
        if (h->bias)
            s += h->bias[MAX(MIN((int64_t)j - h->at, (int64_t)op->rel_span), -(int64_t)op->rel_span)];
        p[j - keys.lo] = s;
        max = fmaxf(max, s);
    }
    for (uint32_t j = keys.lo; j < keys.hi; j++)
        sum += p[j - keys.lo] = expf(p[j - keys.lo] - max);
    if (isfinite(sink))
        sum += expf(sink - max);
    for (uint32_t d = 0; d < h->dim_v; d++) {
        float s = 0;
        for (uint32_t j = keys.lo; j < keys.hi; j++)
            s += p[j - keys.lo] * value(h, j, d);
        out[d] = s / sum;
    }
}

void ref_attn(struct be *b, const struct op_attn *op) {
    const struct plan *p = &b->plan;
    const struct be_kv *kv = kv_group(b, op->group, op->layer);
    uint32_t hd = op->head_dim, hd_v = kv ? kv->spec.head_dim_v : hd, n_kv = op->n_kv_heads;
    CHECK(n_kv > 0 && op->n_heads % n_kv == 0);
    CHECK(!kv || (kv->spec.n_kv_heads == n_kv && kv->spec.head_dim == hd));
    uint32_t cols = op->n_heads * hd + n_kv * (hd + hd_v), n_keys_max = 0;
    const float *qkv = cpu_f32(op->qkv, p->n_tokens, cols), *sinks = cpu_vector(op->sinks, op->n_heads);
    uint32_t n_bias = 2 * op->rel_span + 1;
    const float *bias = cpu_vector(op->rel_bias, op->n_heads * n_bias);
    float *out = cpu_f32(op->out, p->n_tokens, op->n_heads * hd_v);
    for (uint32_t s = 0; s < p->n_seqs; s++)
        n_keys_max = MAX(n_keys_max, kv ? p->kv_len[s] : p->seq_start[s + 1] - p->seq_start[s]);
    float *scores = cpu_scratch(b, SCRATCH_THREAD, n_keys_max * sizeof *scores);
    for (uint32_t t = 0; t < p->n_tokens; t++) {
        uint32_t seq = p->seq_of[t];
        struct keys keys = plan_keys(b, kv, t, op->window);
        const float *first = qkv + (size_t)p->seq_start[seq] * cols;
        for (uint32_t i = 0; i < op->n_heads; i++) {
            uint32_t g = i / (op->n_heads / n_kv);
            struct head h = {
                .kv = kv,
                .table =
                    kv ? p->group[op->group].table + (size_t)seq * p->group[op->group].table_stride : NULL,
                .k = first + op->n_heads * hd + g * hd,
                .v = first + (op->n_heads + n_kv) * hd + g * hd_v,
                .stride = cols,
                .layer = op->layer,
                .index = g,
                .dim = hd,
                .dim_v = hd_v,
                .bias = bias ? bias + (size_t)i * n_bias + op->rel_span : NULL,
                .at = kv ? (uint32_t)p->pos[t] : t - p->seq_start[seq],
                .k_scale = op->k_scale == 0 ? 1.0f : op->k_scale,
                .v_scale = op->v_scale == 0 ? 1.0f : op->v_scale,
            };
            head_attn(out + ((size_t)t * op->n_heads + i) * hd_v, qkv + (size_t)t * cols + i * hd, &h, keys,
                      op, sinks ? sinks[i] : -INFINITY, scores);
        }
    }
}
