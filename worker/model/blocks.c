#include "worker/model/blocks.h"

static struct be_norm rms(const struct model *m, const struct be_w *weight) {
    return (struct be_norm){.kind = weight ? NORM_RMS : NORM_NONE,
                            .weight = weight,
                            .eps = m->rms_eps,
                            .weight_offset = m->norm_offset};
}

static void swap(struct be_mem **a, struct be_mem **b) {
    struct be_mem *was = *a;
    *a = *b;
    *b = was;
}

bool rows_wanted(const struct model *m, uint32_t i) {
    return m->row_x && i + 1 == m->n_layers && m->n_rows < m->n_tokens && (m->n_rows > 0 || !m->pools);
}

void rows_gather(struct model *m, bool attn) {
    uint32_t cols = m->heads.n * m->head_dim;
    CHECK(m->n_live == 0 && m->n_rows > 0);
    if (attn)
        m->ops->gather(m->be, &(struct op_gather){.y = m->row_attn, .x = m->attn, .cols = cols});
    m->ops->gather(m->be, &(struct op_gather){.y = m->row_x, .x = m->x, .cols = m->hidden});
    swap(&m->attn, &m->row_attn);
    swap(&m->x, &m->row_x);
    m->n_live = m->n_rows;
}

void rows_end(struct model *m) {
    if (m->n_live == 0)
        return;
    swap(&m->attn, &m->row_attn);
    swap(&m->x, &m->row_x);
    m->n_live = 0;
}

/* add_run: x += norm(w from + bias), without the norm where there is none. */
static void add_run(struct model *m, const struct be_mem *from, const struct be_w *w, const struct be_w *bias,
                    const struct be_w *post_norm, const struct be_w *next) {
    struct op_gemm op = {.y = m->x, .x = from, .w = w, .bias = bias, .add = m->x, .reduce = m->n_ranks > 1, .n_rows = m->n_live};
    if (next && !post_norm)
        op.then = rms(m, next);
    if (post_norm) {
        op.y = m->branch;
        op.add = NULL;
    }
    m->ops->gemm(m->be, &op);
    if (post_norm)
        m->ops->norm(
            m->be, &(struct op_norm){
                       .y = m->x, .x = m->branch, .norm = rms(m, post_norm), .add = m->x, .cols = m->hidden, .n_rows = m->n_live});
}

void attn_block_run(struct model *m, const struct attn_block *a, const struct be_w *next, bool rows) {
    m->ops->gemm(m->be, &(struct op_gemm){
                            .y = m->qkv,
                            .x = m->x,
                            .w = a->qkv,
                            .norm = rms(m, a->norm),
                            .bias = a->qkv_bias,
                            .rope = {.on = true,
                                     .group = a->group,
                                     .layer = a->layer,
                                     .n_heads = m->heads.n,
                                     .n_kv_heads = m->heads.n_kv,
                                     .head_dim = m->head_dim,
                                     .rotary_dim = m->rotary_dim,
                                     .rope = ROPE_NEOX,
                                     .inv_freq = a->inv_freq,
                                     .rope_scale = m->rope_scale,
                                     .q_norm = rms(m, a->q_norm),
                                     .k_norm = rms(m, a->k_norm),
                                     .k_scale = a->k_scale,
                                     .v_scale = a->v_scale},
                        });
    if (rows && m->n_rows == 0) /* K and V were all that was wanted */
        return;
    m->ops->attn(m->be, &(struct op_attn){.out = m->attn,
                                          .qkv = m->qkv,
                                          .group = a->group,
                                          .layer = a->layer,
                                          .n_heads = m->heads.n,
                                          .n_kv_heads = m->heads.n_kv,
                                          .head_dim = m->head_dim,
                                          .scale = m->attn_scale,
                                          .softcap = m->attn_softcap,
                                          .window = a->window,
                                          .k_scale = a->k_scale,
                                          .v_scale = a->v_scale});
    if (rows)
        rows_gather(m, true);
    add_run(m, m->attn, a->o, a->o_bias, a->post_norm, next);
}

void mlp_block_run(struct model *m, const struct mlp_block *b, const struct be_w *next) {
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->mid,
                                          .x = m->x,
                                          .w = b->gate_up,
                                          .norm = rms(m, b->norm),
                                          .bias = b->gate_up_bias,
                                          .act = m->act,
                                          .n_rows = m->n_live});
    add_run(m, m->mid, b->down, b->down_bias, b->post_norm, next);
}

void moe_block_run(struct model *m, const struct moe_block *b, const struct be_w *next) {
    m->ops->moe(m->be, &(struct op_moe){.y = m->x,
                                        .x = m->x,
                                        .norm = rms(m, b->norm),
                                        .router = b->router,
                                        .gate_up = b->gate_up,
                                        .down = b->down,
                                        .n_experts = m->moe.n_experts,
                                        .top_k = m->moe.top_k,
                                        .renorm = m->moe.renorm,
                                        .reduce = m->n_ranks > 1,
                                        .act = m->act,
                                        .add = m->x,
                                        .then = next ? rms(m, next) : (struct be_norm){0}});
}

void enc_add_run(struct model *m, const struct be_mem *from, const struct be_w *w, const struct be_w *bias) {
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->x, .x = from, .w = w, .bias = bias, .add = m->x, .n_rows = m->n_live});
}

void embed_run(struct model *m) {
    m->ops->embed(m->be, &(struct op_embed){.y = m->x,
                                            .tokens = m->embed,
                                            .scale = m->embed_scale,
                                            .cols = m->hidden,
                                            .sharded = m->n_ranks > 1,
                                            .row0 = m->vocab0});
}

void head_run(struct model *m) {
    m->ops->logits(m->be, &(struct op_logits){.x = m->x,
                                              .norm = rms(m, m->norm),
                                              .w = m->head,
                                              .softcap = m->final_softcap,
                                              .sharded = m->n_ranks > 1,
                                              .col0 = m->vocab0,
                                              .gathered = m->n_live > 0});
}

void last_run(struct model *m) {
    m->ops->norm(m->be,
                 &(struct op_norm){.y = m->last, .x = m->x, .norm = rms(m, m->norm), .cols = m->hidden, .n_rows = m->n_live});
}
