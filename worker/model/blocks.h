/* blocks.h: the parts that families are composed of, in operations of the backend: five for a layer. */
#ifndef WEIR_WORKER_MODEL_BLOCKS_H
#define WEIR_WORKER_MODEL_BLOCKS_H

#include "worker/model/family.h"

/* next: weight of the norm that whatever comes behind takes of x; NULL: none, or nobody knows. */

/* attn_block_run: x += o(attention(rope(qkv(norm(x))))). K and V go to the cache. rows: then x is that of the batch's rows
 * (rows_gather); without any, nothing but K and V is computed. */
void attn_block_run(struct model *m, const struct attn_block *a, const struct be_w *next, bool rows);
/* mlp_block_run: x += down(act(gate(norm(x))) * up(norm(x))). */
void mlp_block_run(struct model *m, const struct mlp_block *b, const struct be_w *next);
/* moe_block_run: x += the router's experts of norm(x), weighted. */
void moe_block_run(struct model *m, const struct moe_block *b, const struct be_w *next);
/* embed_run: x = E[token]. */
void embed_run(struct model *m);
/* head_run: logits of the batch's rows, from norm(x). */
void head_run(struct model *m);

/* last_run: last = norm(x), for pooling. */
void last_run(struct model *m);

/* enc_add_run: x += w from + bias, as encoders and GPTs have it. */
void enc_add_run(struct model *m, const struct be_mem *from, const struct be_w *w, const struct be_w *bias);

/* rows_wanted: of layer i nothing but the batch's rows is looked at, behind its K and V. */
bool rows_wanted(const struct model *m, uint32_t i);
/* rows_gather: x, and attn where `attn`, are from now on those of the batch's rows, n_live; rows_end: no longer. */
void rows_gather(struct model *m, bool attn);
void rows_end(struct model *m);

#endif
