#include "worker/model/blocks.h"

static struct be_norm rms(const struct model *m, const struct be_w *weight) {
    return (struct be_norm){.kind = weight ? NORM_RMS : NORM_NONE, .weight = weight, .eps = m->rms_eps};
}

void attn_block_run(struct model *m, const struct attn_block *a) {
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
                                     .rotary_dim = m->head_dim,
                                     .rope = ROPE_NEOX,
                                     .inv_freq = m->inv_freq,
                                     .rope_scale = m->rope_scale,
                                     .q_norm = rms(m, a->q_norm),
                                     .k_norm = rms(m, a->k_norm)},
                        });
    m->ops->attn(m->be, &(struct op_attn){.out = m->attn,
                                          .qkv = m->qkv,
                                          .group = a->group,
                                          .layer = a->layer,
                                          .n_heads = m->heads.n,
                                          .n_kv_heads = m->heads.n_kv,
                                          .head_dim = m->head_dim,
                                          .scale = m->attn_scale,
                                          .window = a->window});
    m->ops->gemm(
        m->be,
        &(struct op_gemm){
            .y = m->x, .x = m->attn, .w = a->o, .bias = a->o_bias, .add = m->x, .reduce = m->n_ranks > 1});
}

void mlp_block_run(struct model *m, const struct mlp_block *b) {
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->mid,
                                          .x = m->x,
                                          .w = b->gate_up,
                                          .norm = rms(m, b->norm),
                                          .bias = b->gate_up_bias,
                                          .act = m->act});
    m->ops->gemm(m->be, &(struct op_gemm){.y = m->x,
                                          .x = m->mid,
                                          .w = b->down,
                                          .bias = b->down_bias,
                                          .add = m->x,
                                          .reduce = m->n_ranks > 1});
}

void embed_run(struct model *m) {
    m->ops->embed(m->be, &(struct op_embed){.y = m->x, .tokens = m->embed, .cols = m->hidden});
}

void head_run(struct model *m) {
    m->ops->logits(m->be, &(struct op_logits){.x = m->x, .norm = rms(m, m->norm), .w = m->head});
}

void last_run(struct model *m) {
    m->ops->norm(m->be,
                 &(struct op_norm){.y = m->last, .x = m->x, .norm = rms(m, m->norm), .cols = m->hidden});
}
