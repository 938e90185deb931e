/* config_encoder.c: encoders (BERT, RoBERTa, MPNet, ModernBERT), and the labels of any model.
 *
 * Defaults are those of Hugging Face's configuration classes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/hf/config_internal.h"

static enum rc read_sizes(const struct fields *f, struct hf_config *c) {
    enum rc rc;
    c->max_positions = c->arch == HF_MODERNBERT ? 8192 : 512;
    if ((rc = config_need_u32(f, "hidden_size", CONFIG_HIDDEN_MAX, &c->hidden)) ||
        (rc = config_need_u32(f, "num_hidden_layers", CONFIG_LAYERS_MAX, &c->n_layers)) ||
        (rc = config_need_u32(f, "intermediate_size", CONFIG_MLP_MAX, &c->mlp)) ||
        (rc = config_need_u32(f, "vocab_size", CONFIG_VOCAB_MAX, &c->vocab)) ||
        (rc = config_need_u32(f, "num_attention_heads", CONFIG_HEADS_MAX, &c->n_heads)) ||
        (rc = field_u32(f, "max_position_embeddings", 1, CONFIG_POSITIONS_MAX, &c->max_positions)))
        return rc;
    if (c->hidden % c->n_heads != 0)
        return field_bad(f, "num_attention_heads", "%u does not divide hidden_size, %u", c->n_heads,
                         c->hidden);
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->hidden / c->n_heads;
    if (c->head_dim % 2 != 0 || c->head_dim > CONFIG_HEAD_DIM_MAX)
        return field_bad(f, "num_attention_heads", "makes heads of %u, which must be even and at most %d",
                         c->head_dim, CONFIG_HEAD_DIM_MAX);
    c->tie_embeddings = true;
    c->layer_windowed = xcalloc(c->n_layers, 1);
    return RC_OK;
}

/* read_positions: RoBERTa's and MPNet's first token has position pad id + 1, so their tables hold that many
 * fewer tokens. */
static enum rc read_positions(const struct fields *f, struct hf_config *c) {
    uint32_t pad = 1, n_types = 2;
    const char *kind = "absolute";
    enum rc rc = field_str(f, "position_embedding_type", &kind);
    if (!rc && strcmp(kind, "absolute") != 0)
        return config_unsupported(f, "position_embedding_type", "must be absolute");
    if (!rc)
        rc = field_u32(f, "pad_token_id", 0, c->vocab - 1, &pad);
    if (!rc && c->arch != HF_MPNET)
        rc = field_u32(f, "type_vocab_size", 1, 256, &n_types);
    if (rc)
        return rc;
    c->encoder.n_types = c->arch == HF_MPNET ? 0 : n_types;
    c->encoder.n_positions = c->max_positions;
    c->encoder.pos_offset = c->arch == HF_BERT ? 0 : pad + 1;
    if (c->max_positions <= c->encoder.pos_offset)
        return field_bad(f, "max_position_embeddings", "%u leaves no position behind pad_token_id, %u",
                         c->max_positions, pad);
    c->max_positions -= c->encoder.pos_offset;
    if (c->arch == HF_MPNET) {
        c->encoder.rel_buckets = 32;
        rc = field_u32(f, "relative_attention_num_buckets", 8, 1024, &c->encoder.rel_buckets);
        if (!rc && c->encoder.rel_buckets % 4)
            rc = field_bad(f, "relative_attention_num_buckets", "must be a multiple of 4");
    }
    return rc;
}

static enum rc read_bert(const struct fields *f, struct hf_config *c) {
    double eps = 1e-12;
    bool decoder = false;
    enum rc rc;
    c->encoder.norm_bias = true;
    c->encoder.head_bias = true;
    if ((rc = field_bool(f, "is_decoder", &decoder)) ||
        (rc = field_f64(f, "layer_norm_eps", 0, true, 1, &eps)) ||
        (rc = config_read_act(f, "hidden_act", "gelu", c->act)) || (rc = read_positions(f, c)))
        return rc;
    c->qkv_bias = c->o_bias = c->mlp_bias = true;
    c->encoder.norm_eps = (float)eps;
    return decoder ? config_unsupported(f, "is_decoder", "must be false") : RC_OK;
}

/* theta_of: rope_parameters.KIND.rope_theta; only the default kind of rope is known here. */
static enum rc theta_of(const struct fields *f, const json_t *all, const char *kind, double *theta) {
    const json_t *one = json_object_get(all, kind);
    const char *type = "default";
    if (!json_is_object(one))
        return RC_OK;
    struct fields r = {.file = f->file, .prefix = "rope_parameters.", .obj = one, .e = f->e};
    enum rc rc = field_str(&r, "rope_type", &type);
    if (!rc && strcmp(type, "default") != 0)
        rc = config_unsupported(&r, "rope_type", "must be default");
    return rc ? rc : field_f64(&r, "rope_theta", 0, true, 1e12, theta);
}

/* read_layers: which layers see all tokens: layer_types, else one of every global_attn_every_n_layers. */
static enum rc read_layers(const struct fields *f, struct hf_config *c) {
    const json_t *types = field_get(f, "layer_types");
    uint32_t every = 3;
    enum rc rc = field_u32(f, "global_attn_every_n_layers", 1, CONFIG_LAYERS_MAX, &every);
    if (rc)
        return rc;
    if (types && (!json_is_array(types) || json_array_size(types) != c->n_layers))
        return field_bad(f, "layer_types", "a list with one name for each of the %u layers is needed",
                         c->n_layers);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *name = types       ? json_string_value(json_array_get(types, i))
                           : i % every ? "sliding_attention"
                                       : "full_attention";
        bool sliding = name && strcmp(name, "sliding_attention") == 0;
        if (!name || (!sliding && strcmp(name, "full_attention") != 0))
            return config_unsupported(f, "layer_types", "each must be full_attention or sliding_attention");
        c->layer_windowed[i] = sliding;
    }
    return RC_OK;
}

static enum rc read_modernbert(const struct fields *f, struct hf_config *c) {
    double eps = 1e-5, theta = 160000, local_theta = 10000;
    uint32_t local = 128;
    bool bias = false;
    const char *pooling = "cls";
    const json_t *rope = field_get(f, "rope_parameters");
    enum rc rc;

    if ((rc = field_f64(f, "norm_eps", 0, true, 1, &eps)) ||
        (rc = field_bool(f, "norm_bias", &c->encoder.norm_bias)) ||
        (rc = field_bool(f, "attention_bias", &bias)) || (rc = field_bool(f, "mlp_bias", &c->mlp_bias)) ||
        (rc = field_u32(f, "local_attention", 2, CONFIG_POSITIONS_MAX, &local)) ||
        (rc = field_f64(f, "global_rope_theta", 0, true, 1e12, &theta)) ||
        (rc = field_f64(f, "local_rope_theta", 0, true, 1e12, &local_theta)) ||
        (rc = theta_of(f, rope, "full_attention", &theta)) ||
        (rc = theta_of(f, rope, "sliding_attention", &local_theta)) ||
        (rc = config_read_act(f, "hidden_activation", "gelu", c->act)) ||
        (rc = config_read_act(f, "classifier_activation", "gelu", c->encoder.head_act)) ||
        (rc = field_bool(f, "classifier_bias", &c->encoder.head_bias)) ||
        (rc = field_str(f, "classifier_pooling", &pooling)) || (rc = read_layers(f, c)))
        return rc;
    if (strcmp(pooling, "cls") != 0 && strcmp(pooling, "mean") != 0)
        return config_unsupported(f, "classifier_pooling", "must be cls or mean");
    c->encoder.pools_mean = strcmp(pooling, "mean") == 0;
    c->qkv_bias = c->o_bias = bias;
    c->encoder.norm_eps = (float)eps;
    c->encoder.local_reach = local / 2;
    c->encoder.local_theta = local_theta;
    c->rope.theta = theta;
    return RC_OK;
}

enum rc config_encoder_read(const struct fields *f, struct hf_config *c) {
    enum rc rc = read_sizes(f, c);
    if (rc)
        return rc;
    return c->arch == HF_MODERNBERT ? read_modernbert(f, c) : read_bert(f, c);
}

/* ---- labels ------------------------------------------------------------------------------------- */

/* read_names: id2label, {"0": "good", ...}: every index from 0 on, once. */
static enum rc read_names(const struct fields *f, struct hf_labels *l) {
    const json_t *table = field_get(f, "id2label");
    if (!table)
        return RC_OK;
    size_t n = json_object_size(table);
    if (!json_is_object(table) || n == 0 || n > HF_LABELS_MAX)
        return field_bad(f, "id2label", "an object with 1 to %d labels is needed", (int)HF_LABELS_MAX);
    l->n = (uint32_t)n;
    l->names = xcalloc(n, sizeof *l->names);
    for (uint32_t i = 0; i < n; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        const char *name = json_string_value(json_object_get(table, key));
        if (!name)
            return field_bad(f, "id2label", "has no text for label %u", i);
        l->names[i] = xstrdup(name);
    }
    return RC_OK;
}

/* read_act: what sentence-transformers writes for cross-encoders: a Python class. */
static enum rc read_act(const struct fields *f, struct hf_labels *l) {
    static const struct {
        const char *name;
        enum hf_label_act act;
    } acts[] = {{"Identity", HF_LABEL_ACT_NONE},
                {"Sigmoid", HF_LABEL_ACT_SIGMOID},
                {"Softmax", HF_LABEL_ACT_SOFTMAX}};
    const char *name = NULL;
    const json_t *st = field_get(f, "sentence_transformers");
    struct fields inner = {.file = f->file, .prefix = "sentence_transformers.", .obj = st, .e = f->e};
    enum rc rc = field_str(f, "sbert_ce_default_activation_function", &name);
    if (!rc && json_is_object(st))
        rc = field_str(&inner, "activation_fn", &name);
    if (rc || !name)
        return rc;
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
        if (strcmp(dot ? dot + 1 : name, acts[i].name) == 0) {
            l->act = acts[i].act;
            return RC_OK;
        }
    }
    return config_unsupported(f, "sbert_ce_default_activation_function",
                              "must be Identity, Sigmoid or Softmax");
}

static enum rc read_matryoshka(const struct fields *f, struct hf_config *c) {
    struct hf_labels *l = &c->labels;
    const json_t *list = field_get(f, "matryoshka_dimensions");
    enum rc rc = field_bool(f, "is_matryoshka", &l->is_matryoshka);
    if (rc || !list)
        return rc;
    if (!json_is_array(list) || json_array_size(list) > HF_MATRYOSHKA_MAX)
        return field_bad(f, "matryoshka_dimensions", "a list of at most %d lengths is needed",
                         (int)HF_MATRYOSHKA_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > CONFIG_HIDDEN_MAX)
            return field_bad(f, "matryoshka_dimensions", "must hold lengths of 1 or more");
        l->matryoshka[l->n_matryoshka++] = (uint32_t)json_integer_value(v);
    }
    return RC_OK;
}

enum rc config_labels_read(const struct fields *f, struct hf_config *c) {
    enum rc rc = read_names(f, &c->labels);
    if (!rc)
        rc = read_act(f, &c->labels);
    if (!rc)
        rc = read_matryoshka(f, c);
    if (!rc && c->head == HF_HEAD_LABELS && c->labels.n == 0) {
        c->labels.n = 2; /* Hugging Face's default */
        rc = field_u32(f, "num_labels", 1, HF_LABELS_MAX, &c->labels.n);
    }
    return rc;
}
