/* blocks.h: the parts that families are composed of, in operations of the backend: five for a layer. */
#ifndef WEIR_WORKER_MODEL_BLOCKS_H
#define WEIR_WORKER_MODEL_BLOCKS_H

#include "worker/model/family.h"

/* next: weight of the norm that whatever comes behind takes of x; NULL: none, or nobody knows. */

/* attn_block_run: x += o(attention(rope(qkv(norm(x))))). K and V go to the cache. */
void attn_block_run(struct model *m, const struct attn_block *a, const struct be_w *next);
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

#endif
