/* llama.c: Llama, Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3, Phi-3, Mixtral and Qwen3-MoE: names of tensors, and
 * one graph.
 *
 * They differ in flags of the config: biases of q, k, v (Qwen2), norms of q and k (Qwen3, Gemma 3), windows
 * (Mistral, Qwen, Gemma), tied embeddings, scaled rope, norms behind attention and MLP (Gemma), fused tensors
 * (Phi-3), experts in place of the MLP (moe.c). Names are those of Hugging Face's checkpoints.
 */
#include <stdio.h>

#include "worker/model/blocks.h"
#include "worker/model/weights.h"

/* at: tensor NAME.suffix of layer i, [rows][cols] (cols 0: a vector), whole. */
static struct tensor at(uint32_t i, const char *suffix, uint32_t rows, uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    int n = snprintf(t.name, sizeof t.name, "model.layers.%u.%s", i, suffix);
    CHECK(n > 0 && (size_t)n < sizeof t.name);
    return t;
}

static struct tensor cut_rows(struct tensor t, uint32_t row0, uint32_t n) {
    t.row0 = row0;
    t.n_rows = n;
    return t;
}

static struct tensor cut_cols(struct tensor t, uint32_t col0, uint32_t n) {
    t.col0 = col0;
    t.n_cols = n;
    return t;
}

static struct tensor norm(struct tensor t) {
    t.is_norm = true;
    return t;
}

static struct tensor end(const char *name, uint32_t rows, uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

/* fuse: the three parts of a tensor that holds q, k and v one behind the other. */
static void fuse(struct tensor part[3], const char *name, uint32_t i, uint32_t q, uint32_t kv,
                 uint32_t cols) {
    uint32_t before[3] = {0, q, q + kv};
    for (int k = 0; k < 3; k++) {
        uint32_t row0 = part[k].row0, n = part[k].n_rows;
        part[k] = cut_rows(at(i, name, q + 2 * kv, cols), before[k] + row0, n);
    }
}

/* load_kv_scales: a cache of wider numbers needs none: they are read then, and no more. */
static enum rc load_kv_scales(const struct model *m, struct weights *w, uint32_t i, struct attn_block *a, struct err *e) {
    float k = 0, v = 0;
    struct tensor attn = at(i, "self_attn.", 1, 0);
    enum rc rc = weights_kv_scales(w, attn.name, &k, &v, e);
    if (rc == RC_OK && m->groups.spec[a->group].dtype == DT_F8E4M3) {
        a->k_scale = k;
        a->v_scale = v;
    }
    return rc;
}

static enum rc load_attn(const struct model *m, const struct hf_config *c, struct weights *w, uint32_t i,
                         struct attn_block *a, struct err *e) {
    uint32_t hd = c->head_dim, q = c->n_heads * hd, kv = c->n_kv_heads * hd;
    uint32_t q0 = m->heads.first * hd, nq = m->heads.n * hd, kv0 = m->heads.first_kv * hd,
             nkv = m->heads.n_kv * hd;
    struct tensor n1 = norm(at(i, "input_layernorm.weight", c->hidden, 0));
    struct tensor qkv[3] = {cut_rows(at(i, "self_attn.q_proj.weight", q, c->hidden), q0, nq),
                            cut_rows(at(i, "self_attn.k_proj.weight", kv, c->hidden), kv0, nkv),
                            cut_rows(at(i, "self_attn.v_proj.weight", kv, c->hidden), kv0, nkv)};
    struct tensor bias[3] = {cut_rows(at(i, "self_attn.q_proj.bias", q, 0), q0, nq),
                             cut_rows(at(i, "self_attn.k_proj.bias", kv, 0), kv0, nkv),
                             cut_rows(at(i, "self_attn.v_proj.bias", kv, 0), kv0, nkv)};
    struct tensor o = cut_cols(at(i, "self_attn.o_proj.weight", c->hidden, q), q0, nq);
    struct tensor o_bias = at(i, "self_attn.o_proj.bias", c->hidden, 0);
    struct tensor q_norm = norm(at(i, "self_attn.q_norm.weight", hd, 0));
    struct tensor k_norm = norm(at(i, "self_attn.k_norm.weight", hd, 0));
    struct tensor post = norm(at(i, "post_attention_layernorm.weight", c->hidden, 0));
    if (c->fused)
        fuse(qkv, "self_attn.qkv_proj.weight", i, q, kv, c->hidden);
    enum rc rc = weights_pack(w, BE_W_VECTOR, &n1, 1, &a->norm, e);
    if (!rc && c->sandwich_norms)
        rc = weights_pack(w, BE_W_VECTOR, &post, 1, &a->post_norm, e);
    if (!rc)
        rc = weights_pack(w, BE_W_LINEAR, qkv, 3, &a->qkv, e);
    if (!rc && c->qkv_bias)
        rc = weights_pack(w, BE_W_VECTOR, bias, 3, &a->qkv_bias, e);
    if (!rc && c->qk_norm)
        rc = weights_pack(w, BE_W_VECTOR, &q_norm, 1, &a->q_norm, e);
    if (!rc && c->qk_norm)
        rc = weights_pack(w, BE_W_VECTOR, &k_norm, 1, &a->k_norm, e);
    if (!rc)
        rc = weights_pack(w, BE_W_LINEAR, &o, 1, &a->o, e);
    if (!rc && c->o_bias)
        rc = weights_pack(w, BE_W_VECTOR, &o_bias, 1, &a->o_bias, e);
    if (!rc)
        rc = load_kv_scales(m, w, i, a, e);
    return rc;
}

static enum rc load_mlp(const struct model *m, const struct hf_config *c, struct weights *w, uint32_t i,
                        struct mlp_block *b, struct err *e) {
    uint32_t first = m->rank * m->mlp;
    struct tensor n2 =
        norm(at(i, c->sandwich_norms ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight",
                c->hidden, 0));
    struct tensor post = norm(at(i, "post_feedforward_layernorm.weight", c->hidden, 0));
    struct tensor gate_up[2] = {cut_rows(at(i, "mlp.gate_proj.weight", c->mlp, c->hidden), first, m->mlp),
                                cut_rows(at(i, "mlp.up_proj.weight", c->mlp, c->hidden), first, m->mlp)};
    struct tensor bias[2] = {cut_rows(at(i, "mlp.gate_proj.bias", c->mlp, 0), first, m->mlp),
                             cut_rows(at(i, "mlp.up_proj.bias", c->mlp, 0), first, m->mlp)};
    struct tensor down = cut_cols(at(i, "mlp.down_proj.weight", c->hidden, c->mlp), first, m->mlp);
    struct tensor down_bias = at(i, "mlp.down_proj.bias", c->hidden, 0);
    for (uint32_t k = 0; k < 2 && c->fused; k++)
        gate_up[k] =
            cut_rows(at(i, "mlp.gate_up_proj.weight", 2 * c->mlp, c->hidden), k * c->mlp + first, m->mlp);
    enum rc rc = weights_pack(w, BE_W_VECTOR, &n2, 1, &b->norm, e);
    if (!rc && c->sandwich_norms)
        rc = weights_pack(w, BE_W_VECTOR, &post, 1, &b->post_norm, e);
    if (!rc)
        rc = weights_pack(w, BE_W_GATE_UP, gate_up, 2, &b->gate_up, e);
    if (!rc && c->mlp_bias)
        rc = weights_pack(w, BE_W_VECTOR, bias, 2, &b->gate_up_bias, e);
    if (!rc)
        rc = weights_pack(w, BE_W_LINEAR, &down, 1, &b->down, e);
    if (!rc && c->mlp_bias)
        rc = weights_pack(w, BE_W_VECTOR, &down_bias, 1, &b->down_bias, e);
    return rc;
}

static enum rc llama_load(struct model *m, const struct hf_config *c, struct weights *w, struct err *e) {
    struct tensor embed =
        cut_rows(end("model.embed_tokens.weight", c->vocab, c->hidden), m->vocab0, m->n_vocab);
    struct tensor last = norm(end("model.norm.weight", c->hidden, 0));
    struct tensor head = cut_rows(end("lm_head.weight", c->vocab, c->hidden), m->vocab0, m->n_vocab);
    enum rc rc = weights_pack(w, BE_W_EMBED, &embed, 1, &m->embed, e);
    for (uint32_t i = 0; i < c->n_layers && !rc; i++) {
        rc = load_attn(m, c, w, i, &m->layers[i].attn, e);
        if (!rc && c->moe.n_experts && c->moe.layer_sparse[i])
            rc = weights_load_moe(w, c, i, &m->layers[i].moe, e);
        else if (!rc)
            rc = load_mlp(m, c, w, i, &m->layers[i].mlp, e);
    }
    if (!rc)
        rc = weights_pack(w, BE_W_VECTOR, &last, 1, &m->norm, e);
    m->head = m->embed;
    if (!rc && !c->tie_embeddings && !m->pools)
        rc = weights_pack(w, BE_W_LINEAR, &head, 1, &m->head, e);
    return rc;
}

static void llama_forward(struct model *m, uint32_t n_rows) {
    embed_run(m);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct layer *l = &m->layers[i];
        const struct be_w *next = i + 1 < m->n_layers ? l[1].attn.norm : NULL;
        const bool rows = rows_wanted(m, i) && !l->moe.router;
        attn_block_run(m, &l->attn, l->moe.router ? l->moe.norm : l->mlp.norm, rows);
        if (rows && n_rows == 0)
            return;
        if (l->moe.router)
            moe_block_run(m, &l->moe, next);
        else
            mlp_block_run(m, &l->mlp, next);
    }
    if (m->pools && m->n_live == 0 && rows_wanted(m, m->n_layers - 1))
        rows_gather(m, false); /* behind experts */
    if (m->pools)
        last_run(m);
    else if (n_rows > 0)
        head_run(m);
}

const struct model_family llama_family = {.load = llama_load, .forward = llama_forward};
