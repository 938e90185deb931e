/* moe.c: the experts of Mixtral and Qwen3-MoE: names of tensors, and their shards.
 *
 * Published checkpoints hold each expert's matrices apart. A rank takes moe.mlp rows of every gate and up and
 * as many columns of every down, so the ranks of a token's experts always have the same work. The router
 * stays f32 and whole: every rank chooses the same experts.
 */
#include <stdio.h>
#include <stdlib.h>

#include "worker/model/weights.h"

/* names: of what stands behind "model.layers.N.". */
struct names {
    const char *router, *expert, *gate, *up, *down;
};
static const struct names mixtral = {"block_sparse_moe.gate.weight", "block_sparse_moe.experts", "w1", "w3",
                                     "w2"};
static const struct names qwen = {"mlp.gate.weight", "mlp.experts", "gate_proj", "up_proj", "down_proj"};

static struct tensor at(uint32_t layer, const char *suffix, uint32_t rows, uint32_t cols) {
    struct tensor t = {.rows = rows, .cols = cols};
    int n = snprintf(t.name, sizeof t.name, "model.layers.%u.%s", layer, suffix);
    CHECK(n > 0 && (size_t)n < sizeof t.name);
    return t;
}

static struct tensor expert_at(const struct names *x, uint32_t layer, uint32_t expert, const char *part,
                               uint32_t rows, uint32_t cols) {
    char suffix[80];
    snprintf(suffix, sizeof suffix, "%s.%u.%s.weight", x->expert, expert, part);
    return at(layer, suffix, rows, cols);
}

enum rc weights_load_moe(struct weights *w, const struct hf_config *c, uint32_t i, struct moe_block *b,
                         struct err *e) {
    const struct names *x = c->arch == HF_MIXTRAL ? &mixtral : &qwen;
    uint32_t mlp = w->m->moe.mlp, first = w->m->rank * mlp;
    struct tensor norm = at(i, "post_attention_layernorm.weight", c->hidden, 0);
    struct tensor router = at(i, x->router, c->moe.n_experts, c->hidden);
    struct tensor *up = xcalloc(2 * (size_t)c->moe.n_experts, sizeof *up);
    struct tensor *down = xcalloc(c->moe.n_experts, sizeof *down);
    norm.is_norm = router.wide = true;
    for (uint32_t k = 0; k < c->moe.n_experts; k++) {
        up[2 * k] = expert_at(x, i, k, x->gate, c->moe.mlp, c->hidden);
        up[2 * k + 1] = expert_at(x, i, k, x->up, c->moe.mlp, c->hidden);
        up[2 * k].row0 = up[2 * k + 1].row0 = first;
        up[2 * k].n_rows = up[2 * k + 1].n_rows = mlp;
        down[k] = expert_at(x, i, k, x->down, c->hidden, c->moe.mlp);
        down[k].col0 = first;
        down[k].n_cols = mlp;
    }
    enum rc rc = weights_pack(w, BE_W_VECTOR, &norm, 1, &b->norm, e);
    if (!rc)
        rc = weights_pack(w, BE_W_LINEAR, &router, 1, &b->router, e);
    if (!rc)
        rc = weights_pack(w, BE_W_EXPERTS_GATE_UP, up, 2 * c->moe.n_experts, &b->gate_up, e);
    if (!rc)
        rc = weights_pack(w, BE_W_EXPERTS, down, c->moe.n_experts, &b->down, e);
    free(up);
    free(down);
    return rc;
}
