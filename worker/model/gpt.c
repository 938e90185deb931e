/* gpt.c: GPT-2 and OPT: names of tensors, and one graph.
 *
 * LayerNorm before attention and MLP, learned positions, biases everywhere, the embedding as the head. GPT-2
 * keeps its matrices the other way round ([in][out]) and q, k, v in one of them.
 */
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/blocks.h"
#include "worker/model/weights.h"

/* names: what the two call the same things; those of a layer stand behind its prefix. */
struct names {
    const char *words, *positions, *last_norm, *layer;
    const char *attn_norm, *mlp_norm, *o, *up, *down;
    bool turned; /* matrices are [in][out] */
};
static const struct names gpt2 = {.words = "transformer.wte.weight",
                                  .positions = "transformer.wpe.weight",
                                  .last_norm = "transformer.ln_f",
                                  .layer = "transformer.h",
                                  .attn_norm = "ln_1",
                                  .mlp_norm = "ln_2",
                                  .o = "attn.c_proj",
                                  .up = "mlp.c_fc",
                                  .down = "mlp.c_proj",
                                  .turned = true};
static const struct names opt = {.words = "model.decoder.embed_tokens.weight",
                                 .positions = "model.decoder.embed_positions.weight",
                                 .last_norm = "model.decoder.final_layer_norm",
                                 .layer = "model.decoder.layers",
                                 .attn_norm = "self_attn_layer_norm",
                                 .mlp_norm = "final_layer_norm",
                                 .o = "self_attn.out_proj",
                                 .up = "fc1",
                                 .down = "fc2"};

static struct tensor named(const char *name, uint32_t rows, uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    int n = snprintf(t.name, sizeof t.name, "%s", name);
    CHECK(n > 0 && (size_t)n < sizeof t.name);
    return t;
}

/* at: LAYER.i.PATH.PART. */
static struct tensor at(const struct names *x, uint32_t i, const char *path, const char *part, uint32_t rows,
                        uint32_t cols) {
    char name[128];
    snprintf(name, sizeof name, "%s.%u.%s.%s", x->layer, i, path, part);
    return named(name, rows, cols);
}

static enum rc load_norm(struct weights *w, struct tensor weight, struct tensor bias, struct norm_w *out,
                         struct err *e) {
    weight.is_norm = true;
    enum rc rc = weights_pack(w, BE_W_VECTOR, &weight, 1, &out->weight, e);
    return rc ? rc : weights_pack(w, BE_W_VECTOR, &bias, 1, &out->bias, e);
}

/* load_linear: the matrix and bias of PATH, as [n_out][n_in]. */
static enum rc load_linear(struct weights *w, const struct names *x, uint32_t i, const char *path,
                           uint32_t n_out, uint32_t n_in, const struct be_w **weight,
                           const struct be_w **bias, struct err *e) {
    struct tensor b = at(x, i, path, "bias", n_out, 0);
    struct tensor t =
        x->turned ? at(x, i, path, "weight", n_in, n_out) : at(x, i, path, "weight", n_out, n_in);
    enum rc rc =
        x->turned ? weights_pack_turned(w, &t, weight, e) : weights_pack(w, BE_W_LINEAR, &t, 1, weight, e);
    return rc ? rc : weights_pack(w, BE_W_VECTOR, &b, 1, bias, e);
}

static enum rc load_qkv(struct weights *w, const struct names *x, uint32_t i, uint32_t h, struct enc_layer *l,
                        struct err *e) {
    static const char *const paths[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    struct tensor t[3], b[3];
    if (x->turned)
        return load_linear(w, x, i, "attn.c_attn", 3 * h, h, &l->qkv, &l->qkv_bias, e);
    for (int k = 0; k < 3; k++) {
        t[k] = at(x, i, paths[k], "weight", h, h);
        b[k] = at(x, i, paths[k], "bias", h, 0);
    }
    enum rc rc = weights_pack(w, BE_W_LINEAR, t, 3, &l->qkv, e);
    return rc ? rc : weights_pack(w, BE_W_VECTOR, b, 3, &l->qkv_bias, e);
}

static enum rc load_layer(const struct model *m, struct weights *w, const struct names *x, uint32_t i,
                          struct enc_layer *l, struct err *e) {
    uint32_t h = m->hidden;
    enum rc rc = load_norm(w, at(x, i, x->attn_norm, "weight", h, 0), at(x, i, x->attn_norm, "bias", h, 0),
                           &l->attn_norm, e);
    if (!rc)
        rc = load_qkv(w, x, i, h, l, e);
    if (!rc)
        rc = load_linear(w, x, i, x->o, h, h, &l->o, &l->o_bias, e);
    if (!rc)
        rc = load_norm(w, at(x, i, x->mlp_norm, "weight", h, 0), at(x, i, x->mlp_norm, "bias", h, 0),
                       &l->mlp_norm, e);
    if (!rc)
        rc = load_linear(w, x, i, x->up, m->mlp, h, &l->up, &l->up_bias, e);
    return rc ? rc : load_linear(w, x, i, x->down, h, m->mlp, &l->down, &l->down_bias, e);
}

static enum rc gpt_load(struct model *m, const struct hf_config *c, struct weights *w, struct err *e) {
    const struct names *x = c->arch == HF_GPT2 ? &gpt2 : &opt;
    struct tensor words = named(x->words, c->vocab, c->hidden);
    struct tensor positions = named(x->positions, c->encoder.n_positions, c->hidden);
    char weight[96], bias[96];
    m->enc.norm_eps = c->encoder.norm_eps;
    m->enc.pos_offset = (int32_t)c->encoder.pos_offset;
    enum rc rc = weights_pack(w, BE_W_EMBED, &words, 1, &m->embed, e);
    m->head = m->embed;
    if (!rc)
        rc = weights_pack(w, BE_W_EMBED, &positions, 1, &m->enc.positions, e);
    for (uint32_t i = 0; i < c->n_layers && !rc; i++)
        rc = load_layer(m, w, x, i, &m->enc.layers[i], e);
    snprintf(weight, sizeof weight, "%s.weight", x->last_norm);
    snprintf(bias, sizeof bias, "%s.bias", x->last_norm);
    return rc ? rc
              : load_norm(w, named(weight, c->hidden, 0), named(bias, c->hidden, 0), &m->enc.last_norm, e);
}

static struct be_norm norm_of(const struct model *m, const struct norm_w *n) {
    return (struct be_norm){.kind = NORM_LAYER, .weight = n->weight, .bias = n->bias, .eps = m->enc.norm_eps};
}

static void layer_run(struct model *m, const struct enc_layer *l, uint32_t i) {
    const bool rows = rows_wanted(m, i);
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->qkv,
                                          .x = m->x,
                                          .w = l->qkv,
                                          .norm = norm_of(m, &l->attn_norm),
                                          .bias = l->qkv_bias,
                                          .rope = {.on = true, /* turns nothing: K and V go to the cache */
                                                   .group = m->groups.full,
                                                   .layer = i,
                                                   .n_heads = m->heads.n,
                                                   .n_kv_heads = m->heads.n_kv,
                                                   .head_dim = m->head_dim,
                                                   .rope = ROPE_NONE}});
    if (rows && m->n_rows == 0) /* K and V were all that was wanted */
        return;
    m->ops->attn(m->be, &(struct op_attn){.out = m->attn,
                                          .qkv = m->qkv,
                                          .group = m->groups.full,
                                          .layer = i,
                                          .n_heads = m->heads.n,
                                          .n_kv_heads = m->heads.n_kv,
                                          .head_dim = m->head_dim,
                                          .scale = m->attn_scale});
    if (rows)
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

static void gpt_forward(struct model *m, uint32_t n_rows) {
    struct be_norm last = norm_of(m, &m->enc.last_norm);
    m->ops->embed(m->be, &(struct op_embed){.y = m->x,
                                            .tokens = m->embed,
                                            .positions = m->enc.positions,
                                            .pos_offset = m->enc.pos_offset,
                                            .cols = m->hidden});
    for (uint32_t i = 0; i < m->n_layers; i++)
        layer_run(m, &m->enc.layers[i], i);
    if (m->pools)
        m->ops->norm(m->be, &(struct op_norm){
                                .y = m->last, .x = m->x, .norm = last, .cols = m->hidden, .n_rows = m->n_live});
    else if (n_rows > 0)
        m->ops->logits(m->be, &(struct op_logits){.x = m->x, .norm = last, .w = m->head, .gathered = m->n_live > 0});
}

const struct model_family gpt_family = {.load = gpt_load, .forward = gpt_forward};
