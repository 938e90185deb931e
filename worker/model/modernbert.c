/* modernbert.c: ModernBERT (Warner et al., 2024): names of tensors and the graph.
 *
 * Norms come before attention and MLP (the first layer has none before attention: the embedding's norm
 * serves), gate and up are one matrix, and most layers see a window to both sides, with a rope of their own.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/blocks.h"
#include "worker/model/weights.h"

static struct tensor named(const char *name, uint32_t rows, uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

static struct tensor at(uint32_t i, const char *suffix, uint32_t rows, uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    int n = snprintf(t.name, sizeof t.name, "model.layers.%u.%s", i, suffix);
    CHECK(n > 0 && (size_t)n < sizeof t.name);
    return t;
}

static enum rc load_norm(struct weights *w, struct tensor t, bool bias, struct norm_w *out, struct err *e) {
    struct tensor b = t;
    size_t n = strlen(t.name);
    t.is_norm = true;
    snprintf(t.name + n, sizeof t.name - n, ".weight");
    snprintf(b.name + n, sizeof b.name - n, ".bias");
    enum rc rc = weights_pack(w, BE_W_VECTOR, &t, 1, &out->weight, e);
    return rc || !bias ? rc : weights_pack(w, BE_W_VECTOR, &b, 1, &out->bias, e);
}

/* load_linear: NAME.weight and, if the config says so, NAME.bias. */
static enum rc load_linear(struct weights *w, struct tensor t, bool has_bias, const struct be_w **weight,
                           const struct be_w **bias, struct err *e) {
    struct tensor b = {.rows = t.rows};
    snprintf(b.name, sizeof b.name, "%.80s.bias", t.name);
    size_t n = strlen(t.name);
    snprintf(t.name + n, sizeof t.name - n, ".weight");
    enum rc rc = weights_pack(w, BE_W_LINEAR, &t, 1, weight, e);
    return rc || !has_bias ? rc : weights_pack(w, BE_W_VECTOR, &b, 1, bias, e);
}

/* load_up: Wi holds what goes through the activation in its first half and what it gates in the second. */
static enum rc load_up(struct weights *w, uint32_t i, const struct model *m, bool has_bias,
                       struct enc_layer *l, struct err *e) {
    struct tensor t[2], b[2];
    for (uint32_t k = 0; k < 2; k++) {
        t[k] = at(i, "mlp.Wi.weight", 2 * m->mlp, m->hidden);
        b[k] = at(i, "mlp.Wi.bias", 2 * m->mlp, 0);
        t[k].row0 = b[k].row0 = k * m->mlp;
        t[k].n_rows = b[k].n_rows = m->mlp;
    }
    enum rc rc = weights_pack(w, BE_W_GATE_UP, t, 2, &l->up, e);
    return rc || !has_bias ? rc : weights_pack(w, BE_W_VECTOR, b, 2, &l->up_bias, e);
}

static enum rc load_layer(const struct model *m, const struct hf_config *c, struct weights *w, uint32_t i,
                          struct enc_layer *l, struct err *e) {
    uint32_t h = m->hidden;
    bool norm_bias = c->encoder.norm_bias;
    enum rc rc = RC_OK;
    if (i > 0)
        rc = load_norm(w, at(i, "attn_norm", h, 0), norm_bias, &l->attn_norm, e);
    if (!rc)
        rc = load_linear(w, at(i, "attn.Wqkv", 3 * h, h), c->qkv_bias, &l->qkv, &l->qkv_bias, e);
    if (!rc)
        rc = load_linear(w, at(i, "attn.Wo", h, h), c->o_bias, &l->o, &l->o_bias, e);
    if (!rc)
        rc = load_norm(w, at(i, "mlp_norm", h, 0), norm_bias, &l->mlp_norm, e);
    if (!rc)
        rc = load_up(w, i, m, c->mlp_bias, l, e);
    return rc ? rc : load_linear(w, at(i, "mlp.Wo", h, m->mlp), c->mlp_bias, &l->down, &l->down_bias, e);
}

/* load_freq: theta^(-2i / d), in f32 as Hugging Face computes it. */
static enum rc load_freq(struct weights *w, uint32_t head_dim, double theta, const struct be_w **out,
                         struct err *e) {
    float *freq = xcalloc(head_dim / 2, sizeof *freq);
    for (uint32_t i = 0; i < head_dim / 2; i++)
        freq[i] = 1.0f / powf((float)theta, (float)(2 * i) / (float)head_dim);
    enum rc rc = weights_pack_floats(w, freq, head_dim / 2, out, e);
    free(freq);
    return rc;
}

static enum rc modernbert_load(struct model *m, const struct hf_config *c, struct weights *w, struct err *e) {
    const struct hf_encoder *enc = &c->encoder;
    struct tensor words = named("model.embeddings.tok_embeddings.weight", c->vocab, c->hidden);
    m->enc.norm_eps = enc->norm_eps;
    m->enc.windowed = xmalloc(c->n_layers);
    memcpy(m->enc.windowed, c->layer_windowed, c->n_layers);
    m->enc.window = enc->local_reach + 1;
    enum rc rc = weights_pack(w, BE_W_EMBED, &words, 1, &m->embed, e);
    if (!rc)
        rc =
            load_norm(w, named("model.embeddings.norm", c->hidden, 0), enc->norm_bias, &m->enc.embed_norm, e);
    if (!rc)
        rc = load_freq(w, c->head_dim, c->rope.theta, &m->inv_freq, e);
    if (!rc)
        rc = load_freq(w, c->head_dim, enc->local_theta, &m->enc.local_freq, e);
    for (uint32_t i = 0; i < c->n_layers && !rc; i++)
        rc = load_layer(m, c, w, i, &m->enc.layers[i], e);
    return rc ? rc
              : load_norm(w, named("model.final_norm", c->hidden, 0), enc->norm_bias, &m->enc.last_norm, e);
}

static struct be_norm norm_of(const struct model *m, const struct norm_w *n) {
    return (struct be_norm){.kind = n->weight ? NORM_LAYER : NORM_NONE,
                            .weight = n->weight,
                            .bias = n->bias,
                            .eps = m->enc.norm_eps};
}

static void layer_run(struct model *m, uint32_t i) {
    const struct enc_layer *l = &m->enc.layers[i];
    const bool local = m->enc.windowed[i];
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->qkv,
                                          .x = m->x,
                                          .w = l->qkv,
                                          .norm = norm_of(m, &l->attn_norm),
                                          .bias = l->qkv_bias,
                                          .rope = {.on = true,
                                                   .n_heads = m->heads.n,
                                                   .n_kv_heads = m->heads.n_kv,
                                                   .head_dim = m->head_dim,
                                                   .rotary_dim = m->head_dim,
                                                   .rope = ROPE_NEOX,
                                                   .inv_freq = local ? m->enc.local_freq : m->inv_freq}});
    m->ops->attn(m->be, &(struct op_attn){.out = m->attn,
                                          .qkv = m->qkv,
                                          .n_heads = m->heads.n,
                                          .n_kv_heads = m->heads.n_kv,
                                          .head_dim = m->head_dim,
                                          .scale = m->attn_scale,
                                          .window = local ? m->enc.window : 0});
    if (rows_wanted(m, i))
        rows_gather(m, true);
    enc_add_run(m, m->attn, l->o, l->o_bias);
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->mid,
                                          .x = m->x,
                                          .w = l->up,
                                          .norm = norm_of(m, &l->mlp_norm),
                                          .bias = l->up_bias,
                                          .act = m->act,
                                          .n_rows = m->n_live});
    enc_add_run(m, m->mid, l->down, l->down_bias);
}

static void modernbert_forward(struct model *m, uint32_t n_rows) {
    (void)n_rows; /* no logits */
    m->ops->embed(
        m->be, &(struct op_embed){
                   .y = m->x, .tokens = m->embed, .norm = norm_of(m, &m->enc.embed_norm), .cols = m->hidden});
    for (uint32_t i = 0; i < m->n_layers; i++)
        layer_run(m, i);
    m->ops->norm(
        m->be,
        &(struct op_norm){
            .y = m->last, .x = m->x, .norm = norm_of(m, &m->enc.last_norm), .cols = m->hidden, .n_rows = m->n_live});
}

const struct model_family modernbert_family = {.load = modernbert_load, .forward = modernbert_forward};
