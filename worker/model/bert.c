/* bert.c: BERT, RoBERTa, XLM-RoBERTa and MPNet: names of tensors, and one graph.
 *
 * Each layer adds attention and MLP to its input and norms what comes out. They differ in names, in where
 * positions start, and in MPNet's bias by distance in place of token types. Names are those of Hugging Face's
 * checkpoints; a body saved alone lacks the first part of each, which weights_pack knows.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/blocks.h"
#include "worker/model/weights.h"

/* names: what the families call the same things. */
struct names {
    const char *root, *q, *k, *v, *o, *attn_norm;
};
static const struct names bert_names = {"bert",
                                        "attention.self.query",
                                        "attention.self.key",
                                        "attention.self.value",
                                        "attention.output.dense",
                                        "attention.output.LayerNorm"};
static const struct names mpnet_names = {"mpnet",
                                         "attention.attn.q",
                                         "attention.attn.k",
                                         "attention.attn.v",
                                         "attention.attn.o",
                                         "attention.LayerNorm"};

static struct names names_of(enum hf_arch arch) {
    struct names n = arch == HF_MPNET ? mpnet_names : bert_names;
    if (arch == HF_ROBERTA)
        n.root = "roberta";
    return n;
}

/* whole: tensor ROOT.PATH.PART, [rows][cols]. */
static struct tensor whole(const char *root, const char *path, const char *part, uint32_t rows,
                           uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    int n = snprintf(t.name, sizeof t.name, "%s.%s.%s", root, path, part);
    CHECK(n > 0 && (size_t)n < sizeof t.name);
    return t;
}

static enum rc load_norm(struct weights *w, const char *root, const char *path, uint32_t cols,
                         struct norm_w *out, struct err *e) {
    struct tensor weight = whole(root, path, "weight", cols, 0), bias = whole(root, path, "bias", cols, 0);
    weight.is_norm = true;
    enum rc rc = weights_pack(w, BE_W_VECTOR, &weight, 1, &out->weight, e);
    return rc ? rc : weights_pack(w, BE_W_VECTOR, &bias, 1, &out->bias, e);
}

/* load_linear: ROOT.PATH.weight and .bias. */
static enum rc load_linear(struct weights *w, const char *root, const char *path, uint32_t rows,
                           uint32_t cols, const struct be_w **weight, const struct be_w **bias,
                           struct err *e) {
    struct tensor a = whole(root, path, "weight", rows, cols), b = whole(root, path, "bias", rows, 0);
    enum rc rc = weights_pack(w, BE_W_LINEAR, &a, 1, weight, e);
    return rc ? rc : weights_pack(w, BE_W_VECTOR, &b, 1, bias, e);
}

static enum rc load_layer(const struct model *m, const struct names *x, struct weights *w, uint32_t i,
                          struct enc_layer *l, struct err *e) {
    char at[64];
    uint32_t h = m->hidden;
    snprintf(at, sizeof at, "%s.encoder.layer.%u", x->root, i);
    struct tensor qkv[3] = {whole(at, x->q, "weight", h, h), whole(at, x->k, "weight", h, h),
                            whole(at, x->v, "weight", h, h)};
    struct tensor bias[3] = {whole(at, x->q, "bias", h, 0), whole(at, x->k, "bias", h, 0),
                             whole(at, x->v, "bias", h, 0)};
    enum rc rc = weights_pack(w, BE_W_LINEAR, qkv, 3, &l->qkv, e);
    if (!rc)
        rc = weights_pack(w, BE_W_VECTOR, bias, 3, &l->qkv_bias, e);
    if (!rc)
        rc = load_linear(w, at, x->o, h, h, &l->o, &l->o_bias, e);
    if (!rc)
        rc = load_norm(w, at, x->attn_norm, h, &l->attn_norm, e);
    if (!rc)
        rc = load_linear(w, at, "intermediate.dense", m->mlp, h, &l->up, &l->up_bias, e);
    if (!rc)
        rc = load_linear(w, at, "output.dense", h, m->mlp, &l->down, &l->down_bias, e);
    return rc ? rc : load_norm(w, at, "output.LayerNorm", h, &l->mlp_norm, e);
}

/* bucket_of: MPNet's bucket of the distance j - p (T5's, Raffel et al., 2020): half of them for each
 * direction; in each, exact up to a quarter of all, then by logarithm up to 128. In f32, as the reference. */
static uint32_t bucket_of(int32_t distance, uint32_t n_buckets) {
    uint32_t half = n_buckets / 2, exact = half / 2, n = (uint32_t)abs(distance);
    uint32_t base = distance > 0 ? half : 0;
    if (n < exact)
        return base + n;
    float far = logf((float)n / (float)exact) / logf(128.0f / (float)exact) * (float)(half - exact);
    return base + MIN(exact + (uint32_t)far, half - 1);
}

/* load_distances: a table of every distance up to where the last bucket begins, [n_heads][2 * span + 1]. */
static enum rc load_distances(struct model *m, const struct hf_config *c, struct weights *w, struct err *e) {
    uint32_t n = c->encoder.rel_buckets, span = 128, row = 2 * span + 1;
    struct tensor t = whole("mpnet", "encoder", "relative_attention_bias.weight", n, c->n_heads);
    float *of = NULL, *table = xcalloc((size_t)c->n_heads * row, sizeof *table);
    enum rc rc = weights_floats(w, &t, &of, e);
    for (uint32_t h = 0; !rc && h < c->n_heads; h++)
        for (uint32_t d = 0; d < row; d++)
            table[h * row + d] = of[(size_t)bucket_of((int32_t)d - (int32_t)span, n) * c->n_heads + h];
    if (!rc)
        rc = weights_pack_floats(w, table, c->n_heads * row, &m->enc.rel_bias, e);
    m->enc.rel_span = span;
    free(of);
    free(table);
    return rc;
}

static enum rc bert_load(struct model *m, const struct hf_config *c, struct weights *w, struct err *e) {
    struct names x = names_of(c->arch);
    const struct hf_encoder *enc = &c->encoder;
    m->enc.norm_eps = enc->norm_eps;
    m->enc.pos_offset = (int32_t)enc->pos_offset;
    struct tensor words = whole(x.root, "embeddings", "word_embeddings.weight", c->vocab, c->hidden);
    struct tensor positions =
        whole(x.root, "embeddings", "position_embeddings.weight", enc->n_positions, c->hidden);
    struct tensor types =
        whole(x.root, "embeddings", "token_type_embeddings.weight", enc->n_types, c->hidden);
    enum rc rc = weights_pack(w, BE_W_EMBED, &words, 1, &m->embed, e);
    if (!rc)
        rc = weights_pack(w, BE_W_EMBED, &positions, 1, &m->enc.positions, e);
    if (!rc && enc->n_types)
        rc = weights_pack(w, BE_W_EMBED, &types, 1, &m->enc.types, e);
    if (!rc)
        rc = load_norm(w, x.root, "embeddings.LayerNorm", c->hidden, &m->enc.embed_norm, e);
    if (!rc && enc->rel_buckets)
        rc = load_distances(m, c, w, e);
    for (uint32_t i = 0; i < c->n_layers && !rc; i++)
        rc = load_layer(m, &x, w, i, &m->enc.layers[i], e);
    return rc;
}

static struct be_norm norm_of(const struct model *m, const struct norm_w *n) {
    return (struct be_norm){.kind = NORM_LAYER, .weight = n->weight, .bias = n->bias, .eps = m->enc.norm_eps};
}

static void layer_run(struct model *m, const struct enc_layer *l, uint32_t i) {
    struct be_norm attn_norm = norm_of(m, &l->attn_norm), mlp_norm = norm_of(m, &l->mlp_norm);
    struct be_mem *out = i + 1 < m->n_layers ? m->x : m->last;
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->qkv, .x = m->x, .w = l->qkv, .bias = l->qkv_bias});
    m->ops->attn(m->be, &(struct op_attn){.out = m->attn,
                                          .qkv = m->qkv,
                                          .n_heads = m->heads.n,
                                          .n_kv_heads = m->heads.n_kv,
                                          .head_dim = m->head_dim,
                                          .scale = m->attn_scale,
                                          .rel_bias = m->enc.rel_bias,
                                          .rel_span = m->enc.rel_span});
    if (rows_wanted(m, i))
        rows_gather(m, true);
    enc_add_run(m, m->attn, l->o, l->o_bias);
    m->ops->norm(m->be, &(struct op_norm){.y = m->x, .x = m->x, .norm = attn_norm, .cols = m->hidden, .n_rows = m->n_live});
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->mid,
                                          .x = m->x,
                                          .w = l->up,
                                          .bias = l->up_bias,
                                          .act = m->act,
                                          .n_rows = m->n_live});
    enc_add_run(m, m->mid, l->down, l->down_bias);
    m->ops->norm(m->be, &(struct op_norm){.y = out, .x = m->x, .norm = mlp_norm, .cols = m->hidden, .n_rows = m->n_live});
}

static void bert_forward(struct model *m, uint32_t n_rows) {
    (void)n_rows; /* no logits */
    m->ops->embed(m->be, &(struct op_embed){.y = m->x,
                                            .tokens = m->embed,
                                            .positions = m->enc.positions,
                                            .types = m->enc.types,
                                            .pos_offset = m->enc.pos_offset,
                                            .norm = norm_of(m, &m->enc.embed_norm),
                                            .cols = m->hidden});
    for (uint32_t i = 0; i < m->n_layers; i++)
        layer_run(m, &m->enc.layers[i], i);
}

const struct model_family bert_family = {.load = bert_load, .forward = bert_forward};
