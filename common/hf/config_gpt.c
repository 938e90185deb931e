/* config_gpt.c: GPT-2 and OPT, whose configs have names of their own. */
#include <stdio.h>

#include "common/hf/config_internal.h"

/* keys: what the two call the same things. */
static const struct keys {
    const char *hidden, *layers, *heads, *positions, *mlp;
} names[] = {
    {"n_embd", "n_layer", "n_head", "n_positions", "n_inner"},
    {"hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "ffn_dim"}};

/* must_be: a switch that changes the graph, and the one value this build knows. */
static enum rc must_be(const struct fields *f, const char *key, bool dflt, bool want) {
    bool v = dflt;
    enum rc rc = field_bool(f, key, &v);
    return rc || v == want ? rc : config_unsupported(f, key, want ? "must be true" : "must be false");
}

static enum rc read_switches(const struct fields *f, const struct hf_config *c) {
    uint32_t proj = c->hidden;
    enum rc rc;
    if (c->arch == HF_GPT2)
        return (rc = must_be(f, "scale_attn_weights", true, true)) ||
                       (rc = must_be(f, "scale_attn_by_inverse_layer_idx", false, false))
                   ? rc
                   : RC_OK;
    if ((rc = must_be(f, "do_layer_norm_before", true, true)) ||
        (rc = must_be(f, "_remove_final_layer_norm", false, false)) ||
        (rc = must_be(f, "enable_bias", true, true)) ||
        (rc = must_be(f, "layer_norm_elementwise_affine", true, true)) ||
        (rc = field_u32(f, "word_embed_proj_dim", 1, CONFIG_HIDDEN_MAX, &proj)))
        return rc;
    return proj == c->hidden ? RC_OK : config_unsupported(f, "word_embed_proj_dim", "must be hidden_size");
}

enum rc config_gpt_read(const struct fields *f, struct hf_config *c) {
    bool gpt2 = c->arch == HF_GPT2;
    const struct keys *k = &names[!gpt2];
    double eps = 1e-5;
    enum rc rc;
    c->max_positions = gpt2 ? 1024 : 2048;
    if ((rc = config_need_u32(f, k->hidden, CONFIG_HIDDEN_MAX, &c->hidden)) ||
        (rc = config_need_u32(f, k->layers, CONFIG_LAYERS_MAX, &c->n_layers)) ||
        (rc = config_need_u32(f, k->heads, CONFIG_HEADS_MAX, &c->n_heads)) ||
        (rc = config_need_u32(f, "vocab_size", CONFIG_VOCAB_MAX, &c->vocab)))
        return rc;
    c->mlp = 4 * c->hidden;
    if ((rc = field_u32(f, k->mlp, 1, CONFIG_MLP_MAX, &c->mlp)) ||
        (rc = field_u32(f, k->positions, 1, CONFIG_POSITIONS_MAX, &c->max_positions)) ||
        (rc = config_read_act(f, "activation_function", gpt2 ? "gelu_new" : "relu", c->act)) ||
        (gpt2 && (rc = field_f64(f, "layer_norm_epsilon", 0, true, 1, &eps))) || (rc = read_switches(f, c)))
        return rc;
    if (c->hidden % c->n_heads != 0)
        return field_bad(f, k->heads, "%u does not divide %s, %u", c->n_heads, k->hidden, c->hidden);
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->hidden / c->n_heads;
    if (c->head_dim % 2 != 0 || c->head_dim > CONFIG_HEAD_DIM_MAX)
        return field_bad(f, k->heads, "makes heads of %u, which must be even and at most %d", c->head_dim,
                         CONFIG_HEAD_DIM_MAX);
    c->encoder.norm_eps = (float)eps;
    c->encoder.norm_bias = true;
    c->encoder.pos_offset = gpt2 ? 0 : 2;
    c->encoder.n_positions = c->max_positions + c->encoder.pos_offset;
    c->qkv_bias = c->o_bias = c->mlp_bias = true;
    c->tie_embeddings = true;
    c->layer_windowed = xcalloc(c->n_layers, 1);
    rc = field_bool(f, "tie_word_embeddings", &c->tie_embeddings);
    return rc || c->tie_embeddings ? rc : config_unsupported(f, "tie_word_embeddings", "must be true");
}
