#include "common/hf/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/hf/config_internal.h"

/* Defaults of the families where a key is absent: those of Hugging Face's configuration classes. */
static const struct family {
    const char *model_type;
    uint32_t n_kv_heads; /* 0: as n_heads */
    uint32_t head_dim;   /* 0: hidden / heads */
    uint32_t max_positions, window;
    bool qkv_bias, qk_norm;
    bool reads_attention_bias, reads_mlp_bias;
    const char *act_key;  /* NULL: hidden_act, silu */
    bool window_by_layer;  /* use_sliding_window, max_window_layers, layer_types */
    bool window_on_demand; /* use_sliding_window, for all layers */
} families[HF_GPT2] = {
    [HF_LLAMA] = {.model_type = "llama",
                  .max_positions = 2048,
                  .reads_attention_bias = true,
                  .reads_mlp_bias = true},
    [HF_MISTRAL] = {.model_type = "mistral", .n_kv_heads = 8, .max_positions = 131072, .window = 4096},
    [HF_QWEN2] = {.model_type = "qwen2",
                  .n_kv_heads = 32,
                  .max_positions = 32768,
                  .window = 4096,
                  .qkv_bias = true,
                  .window_by_layer = true},
    [HF_GEMMA2] = {.model_type = "gemma2",
                   .n_kv_heads = 4,
                   .head_dim = 256,
                   .max_positions = 8192,
                   .window = 4096,
                   .reads_attention_bias = true,
                   .act_key = "hidden_activation"},
    [HF_GEMMA3] = {.model_type = "gemma3_text",
                   .n_kv_heads = 4,
                   .head_dim = 256,
                   .max_positions = 131072,
                   .window = 4096,
                   .qk_norm = true,
                   .reads_attention_bias = true,
                   .act_key = "hidden_activation"},
    [HF_MIXTRAL] = {.model_type = "mixtral", .n_kv_heads = 8, .max_positions = 131072},
    [HF_QWEN3_MOE] = {.model_type = "qwen3_moe",
                      .n_kv_heads = 4,
                      .max_positions = 32768,
                      .window = 4096,
                      .qk_norm = true,
                      .reads_attention_bias = true,
                      .window_on_demand = true},
    [HF_PHI3] = {.model_type = "phi3", .max_positions = 4096},
    [HF_QWEN3] = {.model_type = "qwen3",
                  .n_kv_heads = 32,
                  .head_dim = 128,
                  .max_positions = 32768,
                  .window = 4096,
                  .qk_norm = true,
                  .reads_attention_bias = true,
                  .window_by_layer = true},
};

/* Names of model classes. "Model" alone is the body without a head; a masked language model serves as its
 * body. */
static const struct {
    const char *name;
    enum hf_arch arch;
    enum hf_head head;
} classes[] = {
    {"LlamaForCausalLM", HF_LLAMA, HF_HEAD_LM},
    {"MistralForCausalLM", HF_MISTRAL, HF_HEAD_LM},
    {"Qwen2ForCausalLM", HF_QWEN2, HF_HEAD_LM},
    {"Qwen3ForCausalLM", HF_QWEN3, HF_HEAD_LM},
    {"Gemma2ForCausalLM", HF_GEMMA2, HF_HEAD_LM},
    {"Gemma3ForCausalLM", HF_GEMMA3, HF_HEAD_LM},
    {"Phi3ForCausalLM", HF_PHI3, HF_HEAD_LM},
    {"MixtralForCausalLM", HF_MIXTRAL, HF_HEAD_LM},
    {"Qwen3MoeForCausalLM", HF_QWEN3_MOE, HF_HEAD_LM},
    {"GPT2LMHeadModel", HF_GPT2, HF_HEAD_LM},
    {"OPTForCausalLM", HF_OPT, HF_HEAD_LM},
    {"LlamaModel", HF_LLAMA, HF_HEAD_NONE},
    {"MistralModel", HF_MISTRAL, HF_HEAD_NONE},
    {"Qwen2Model", HF_QWEN2, HF_HEAD_NONE},
    {"Qwen3Model", HF_QWEN3, HF_HEAD_NONE},
    {"Gemma2Model", HF_GEMMA2, HF_HEAD_NONE},
    {"Gemma3TextModel", HF_GEMMA3, HF_HEAD_NONE},
    {"Phi3Model", HF_PHI3, HF_HEAD_NONE},
    {"LlamaForSequenceClassification", HF_LLAMA, HF_HEAD_LABELS},
    {"MistralForSequenceClassification", HF_MISTRAL, HF_HEAD_LABELS},
    {"Qwen2ForSequenceClassification", HF_QWEN2, HF_HEAD_LABELS},
    {"Qwen3ForSequenceClassification", HF_QWEN3, HF_HEAD_LABELS},
    {"Gemma2ForSequenceClassification", HF_GEMMA2, HF_HEAD_LABELS},
    {"Gemma3TextForSequenceClassification", HF_GEMMA3, HF_HEAD_LABELS},
    {"Phi3ForSequenceClassification", HF_PHI3, HF_HEAD_LABELS},
    {"BertModel", HF_BERT, HF_HEAD_NONE},
    {"BertForMaskedLM", HF_BERT, HF_HEAD_NONE},
    {"BertForSequenceClassification", HF_BERT, HF_HEAD_LABELS},
    {"RobertaModel", HF_ROBERTA, HF_HEAD_NONE},
    {"RobertaForMaskedLM", HF_ROBERTA, HF_HEAD_NONE},
    {"RobertaForSequenceClassification", HF_ROBERTA, HF_HEAD_LABELS},
    {"XLMRobertaModel", HF_ROBERTA, HF_HEAD_NONE},
    {"XLMRobertaForMaskedLM", HF_ROBERTA, HF_HEAD_NONE},
    {"XLMRobertaForSequenceClassification", HF_ROBERTA, HF_HEAD_LABELS},
    {"MPNetModel", HF_MPNET, HF_HEAD_NONE},
    {"MPNetForMaskedLM", HF_MPNET, HF_HEAD_NONE},
    {"ModernBertModel", HF_MODERNBERT, HF_HEAD_NONE},
    {"ModernBertForMaskedLM", HF_MODERNBERT, HF_HEAD_NONE},
    {"ModernBertForSequenceClassification", HF_MODERNBERT, HF_HEAD_LABELS},
};

/* Keys that would change what the model computes, or how its files are stored, in ways this build does not
 * know. Each is refused unless it has a value that means "without". */
enum {
    OFF_NULL = 0,
    OFF_FALSE = 1,
    OFF_ZERO = 2,
    OFF_ONE = 4,
    OFF_EMPTY = 8,
    GEMMA_READS = 16, /* config_gemma.c */
    MOE_READS = 32    /* config_moe.c */
};
static const struct {
    const char *key;
    unsigned off; /* values that are allowed beside null */
} refused[] = {
    {"compression_config", OFF_NULL},
    {"sparsity_config", OFF_NULL},
    {"num_experts", OFF_ZERO | MOE_READS},
    {"num_local_experts", OFF_ZERO | MOE_READS},
    {"n_routed_experts", OFF_ZERO},
    {"attn_logit_softcapping", OFF_ZERO | GEMMA_READS},
    {"final_logit_softcapping", OFF_ZERO | GEMMA_READS},
    {"logits_soft_cap", OFF_ZERO},
    {"query_pre_attn_scalar", GEMMA_READS},
    {"attention_multiplier", OFF_NULL},
    {"embedding_multiplier", OFF_ONE},
    {"residual_multiplier", OFF_ONE},
    {"logits_scaling", OFF_ONE},
    {"logit_scale", OFF_ONE},
    {"clip_qkv", OFF_NULL},
    {"use_bidirectional_attention", OFF_FALSE},
    {"use_qk_norm", OFF_FALSE},
    {"qk_layernorm", OFF_FALSE},
    {"kv_lora_rank", OFF_NULL},
    {"v_head_dim", OFF_NULL},
    {"alibi", OFF_FALSE},
    {"no_rope_layers", OFF_EMPTY},
    {"attention_chunk_size", OFF_NULL},
    {"attn_temperature_tuning", OFF_FALSE | OFF_ZERO},
    {"rope_interleaved", OFF_FALSE},
    {"use_mrope", OFF_FALSE},
    {"dual_chunk_attention_config", OFF_NULL},
    {"cross_attention_layers", OFF_EMPTY},
    {"add_cross_attention", OFF_FALSE},
    {"is_encoder_decoder", OFF_FALSE},
    {"vision_config", OFF_NULL},
    {"text_config", OFF_NULL},
    {"audio_config", OFF_NULL},
};

static const char *const acts[] = {"silu", "swish",      "gelu", "gelu_new", "gelu_pytorch_tanh",
                                   "relu", "quick_gelu", "tanh"};

enum rc config_unsupported(const struct fields *f, const char *key, const char *what) {
    char param[160];
    snprintf(param, sizeof param, "%s%s", f->prefix, key);
    return err_set(f->e, RC_UNSUPPORTED, param, "%s: %s: %s", f->file, param, what);
}

static enum rc check_refused(const struct fields *f, enum hf_arch arch) {
    bool gemma = arch == HF_GEMMA2 || arch == HF_GEMMA3, moe = arch == HF_MIXTRAL || arch == HF_QWEN3_MOE;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        const json_t *v = field_get(f, refused[i].key);
        if ((gemma && (refused[i].off & GEMMA_READS)) || (moe && (refused[i].off & MOE_READS)))
            continue;
        unsigned off = refused[i].off;
        if (!v || ((off & OFF_FALSE) && json_is_false(v)) ||
            ((off & OFF_ZERO) && json_is_number(v) && json_number_value(v) == 0) ||
            ((off & OFF_ONE) && json_is_number(v) && json_number_value(v) == 1) ||
            ((off & OFF_EMPTY) && json_is_array(v) && json_array_size(v) == 0))
            continue;
        return config_unsupported(f, refused[i].key, "this build does not support what it asks for");
    }
    return RC_OK;
}

/* type_fits: model_type goes with the class. XLM-RoBERTa is RoBERTa with another tokenizer. */
static bool type_fits(enum hf_arch arch, const char *type) {
    static const char *const encoders[][2] = {
        {"bert", "bert"}, {"roberta", "xlm-roberta"}, {"mpnet", "mpnet"}, {"modernbert", "modernbert"}};
    if (arch < HF_GPT2)
        return strcmp(type, families[arch].model_type) == 0;
    if (arch < HF_BERT)
        return strcmp(type, arch == HF_GPT2 ? "gpt2" : "opt") == 0;
    return strcmp(type, encoders[arch - HF_BERT][0]) == 0 || strcmp(type, encoders[arch - HF_BERT][1]) == 0;
}

static enum rc read_arch(const struct fields *f, struct hf_config *c) {
    const json_t *list = field_get(f, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (!name)
        return field_bad(f, "architectures", "a list with the name of the model's class is needed");
    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        if (strcmp(name, classes[i].name) != 0)
            continue;
        const char *type = NULL;
        enum rc rc = field_str(f, "model_type", &type);
        if (!rc && type && !type_fits(classes[i].arch, type))
            rc = field_bad(f, "model_type", "\"%.64s\" contradicts the architecture %s", type, name);
        c->arch = classes[i].arch;
        c->head = classes[i].head;
        snprintf(c->arch_name, sizeof c->arch_name, "%s", name);
        return rc;
    }
    struct buf known = {0};
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        buf_addf(&known, "%s%s", i ? ", " : "", classes[i].name);
    enum rc rc = err_set(f->e, RC_UNSUPPORTED, "architectures",
                         "%s: architectures: \"%.64s\" is not supported; supported are: %.*s", f->file, name,
                         (int)known.len, known.data);
    buf_fini(&known);
    return rc;
}

static enum rc read_dtype(const struct fields *f, struct hf_config *c) {
    const char *key = field_get(f, "dtype") ? "dtype" : "torch_dtype", *name = "float32";
    enum rc rc = field_str(f, key, &name);
    if (rc)
        return rc;
    if (strcmp(name, "float32") == 0)
        c->dtype = HF_DTYPE_F32;
    else if (strcmp(name, "float16") == 0)
        c->dtype = HF_DTYPE_F16;
    else if (strcmp(name, "bfloat16") == 0)
        c->dtype = HF_DTYPE_BF16;
    else
        return config_unsupported(f, key, "must be float32, float16 or bfloat16");
    return RC_OK;
}

/* config_need_u32: a size without which there is no model. */
enum rc config_need_u32(const struct fields *f, const char *key, uint32_t hi, uint32_t *out) {
    *out = 0;
    enum rc rc = field_u32(f, key, 1, hi, out);
    return rc ? rc : *out ? RC_OK : field_bad(f, key, "missing");
}

static enum rc read_heads(const struct fields *f, const struct family *fam, struct hf_config *c) {
    enum rc rc = config_need_u32(f, "num_attention_heads", CONFIG_HEADS_MAX, &c->n_heads);
    if (rc)
        return rc;
    c->n_kv_heads =
        fam->n_kv_heads && !json_object_get(f->obj, "num_key_value_heads") ? fam->n_kv_heads : c->n_heads;
    if ((rc = field_u32(f, "num_key_value_heads", 1, CONFIG_HEADS_MAX, &c->n_kv_heads)))
        return rc;
    if (c->n_heads % c->n_kv_heads != 0)
        return field_bad(f, "num_key_value_heads", "%u does not divide num_attention_heads, %u",
                         c->n_kv_heads, c->n_heads);
    c->head_dim = fam->head_dim;
    if ((rc = field_u32(f, "head_dim", 2, CONFIG_HEAD_DIM_MAX, &c->head_dim)))
        return rc;
    if (c->head_dim == 0) {
        if (c->hidden % c->n_heads != 0)
            return field_bad(f, "num_attention_heads", "%u does not divide hidden_size, %u", c->n_heads,
                             c->hidden);
        c->head_dim = c->hidden / c->n_heads;
    }
    if (c->head_dim % 2 != 0 || c->head_dim > CONFIG_HEAD_DIM_MAX)
        return field_bad(f, "head_dim", "must be even and at most %d, got %u", CONFIG_HEAD_DIM_MAX,
                         c->head_dim);
    return RC_OK;
}

static enum rc read_sizes(const struct fields *f, const struct family *fam, struct hf_config *c) {
    enum rc rc;
    double eps = c->arch == HF_MIXTRAL ? 1e-5 : 1e-6;
    c->max_positions = fam->max_positions;
    if ((rc = config_need_u32(f, "hidden_size", CONFIG_HIDDEN_MAX, &c->hidden)) ||
        (rc = config_need_u32(f, "num_hidden_layers", CONFIG_LAYERS_MAX, &c->n_layers)) ||
        (rc = config_need_u32(f, "intermediate_size", CONFIG_MLP_MAX, &c->mlp)) ||
        (rc = config_need_u32(f, "vocab_size", CONFIG_VOCAB_MAX, &c->vocab)) ||
        (rc = read_heads(f, fam, c)) ||
        (rc = field_u32(f, "max_position_embeddings", 1, CONFIG_POSITIONS_MAX, &c->max_positions)) ||
        (rc = field_f64(f, "rms_norm_eps", 0, true, 1, &eps)))
        return rc;
    c->rms_eps = (float)eps;
    return RC_OK;
}

enum rc config_read_act(const struct fields *f, const char *key, const char *name, char out[32]) {
    enum rc rc = field_str(f, key, &name);
    if (rc)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
        if (strcmp(name, acts[i]) == 0) {
            snprintf(out, 32, "%s", name);
            return RC_OK;
        }
    }
    return config_unsupported(
        f, key, "must be one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh, relu, quick_gelu, tanh");
}

static enum rc read_flags(const struct fields *f, const struct family *fam, struct hf_config *c) {
    bool bias = false;
    c->tie_embeddings = c->arch == HF_GEMMA2 || c->arch == HF_GEMMA3; /* where the key is absent */
    enum rc rc = field_bool(f, "tie_word_embeddings", &c->tie_embeddings);
    if (!rc && fam->reads_attention_bias)
        rc = field_bool(f, "attention_bias", &bias);
    if (!rc && fam->reads_mlp_bias)
        rc = field_bool(f, "mlp_bias", &c->mlp_bias);
    c->qkv_bias = fam->qkv_bias || bias;
    c->o_bias = bias;
    c->qk_norm = fam->qk_norm;
    return rc;
}

/* config_layer_types: marks the layers of a list "full_attention" or "sliding_attention". */
enum rc config_layer_types(const struct fields *f, const json_t *types, struct hf_config *c) {
    if (!json_is_array(types) || json_array_size(types) != c->n_layers)
        return field_bad(f, "layer_types", "a list with one name for each of the %u layers is needed",
                         c->n_layers);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *name = json_string_value(json_array_get(types, i));
        bool sliding = name && strcmp(name, "sliding_attention") == 0;
        if (!name || (!sliding && strcmp(name, "full_attention") != 0))
            return config_unsupported(f, "layer_types", "each must be full_attention or sliding_attention");
        if (sliding && c->window == 0)
            return field_bad(f, "layer_types", "layer %u slides, but no window is given", i);
        c->layer_windowed[i] = sliding;
    }
    return RC_OK;
}

/* read_window: which layers see a sliding window. Llama has none; every layer of Mistral has one unless it is
 * null; Qwen's layers from max_window_layers on, or those in layer_types, if use_sliding_window is set; that key alone
 * decides for Qwen3-MoE. */
static enum rc read_window(const struct fields *f, const struct family *fam, struct hf_config *c) {
    const json_t *types = field_get(f, "layer_types");
    bool asks = fam->window_by_layer || fam->window_on_demand, used = !asks;
    uint32_t window = json_object_get(f->obj, "sliding_window") ? 0 : fam->window;
    uint32_t first = fam->window_by_layer ? 28 : 0; /* Hugging Face's default of max_window_layers */
    enum rc rc = field_u32(f, "sliding_window", 1, CONFIG_POSITIONS_MAX, &window);
    if (!rc && asks)
        rc = field_bool(f, "use_sliding_window", &used);
    if (!rc && fam->window_by_layer)
        rc = field_u32(f, "max_window_layers", 0, CONFIG_POSITIONS_MAX, &first);
    if (rc)
        return rc;
    c->window = used ? window : 0;
    if (c->arch == HF_LLAMA && c->window)
        return config_unsupported(f, "sliding_window",
                                  "LlamaForCausalLM has no sliding window; null takes it away");
    if (c->arch == HF_GEMMA2 || c->arch == HF_GEMMA3)
        return config_gemma_layers(f, types, c);
    if (types && fam->window_by_layer)
        return config_layer_types(f, types, c);
    if (types && !(c->arch == HF_LLAMA))
        return config_unsupported(f, "layer_types", "this architecture has one kind of layer");
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layer_windowed[i] = c->window && i >= first;
    return RC_OK;
}

/* merge: a copy of base with the members of overrides put in, as vLLM merges: a member replaces the one it
 * names as a whole. Old and new spellings of a key exclude each other, so that the override is the one read.
 */
static json_t *merge(const json_t *base, const json_t *overrides) {
    static const char *const spellings[][2] = {{"dtype", "torch_dtype"}, {"rope_parameters", "rope_scaling"}};
    json_t *all = json_copy((json_t *)(uintptr_t)base);
    CHECK(all);
    for (size_t i = 0; i < ARRAY_LEN(spellings); i++) {
        for (int k = 0; k < 2; k++) {
            if (json_object_get(overrides, spellings[i][k]))
                json_object_del(all, spellings[i][1 - k]);
        }
    }
    CHECK(json_object_update(all, (json_t *)(uintptr_t)overrides) == 0);
    json_t *theta = json_object_get(overrides, "rope_theta");
    for (int k = 0; theta && k < 2; k++) {
        json_t *rope = json_object_get(all, spellings[1][k]);
        if (!json_is_object(rope) || json_object_get(overrides, spellings[1][k]))
            continue;
        json_t *copy = json_copy(rope); /* base's own stays as it is */
        CHECK(copy && json_object_set(copy, "rope_theta", theta) == 0);
        CHECK(json_object_set_new(all, spellings[1][k], copy) == 0);
    }
    return all;
}

static enum rc read_all(const struct fields *f, struct hf_config *c) {
    enum rc rc = read_arch(f, c);
    if (rc || (rc = config_quant_read(f, c)))
        return rc;
    if (hf_is_encoder(c))
        return (rc = check_refused(f, c->arch)) || (rc = read_dtype(f, c)) || (rc = config_encoder_read(f, c))
                   ? rc
                   : config_labels_read(f, c);
    if (c->arch == HF_GPT2 || c->arch == HF_OPT)
        return (rc = check_refused(f, c->arch)) || (rc = read_dtype(f, c)) || (rc = config_gpt_read(f, c))
                   ? rc
                   : field_ids(f, "eos_token_id", c->vocab, c->eos, HF_EOS_MAX, &c->n_eos);
    const struct family *fam = &families[c->arch];
    if ((rc = check_refused(f, c->arch)) || (rc = read_dtype(f, c)) || (rc = read_sizes(f, fam, c)))
        return rc;
    c->layer_windowed = xcalloc(c->n_layers, 1);
    if ((rc = config_read_act(f, fam->act_key ? fam->act_key : "hidden_act",
                              fam->act_key ? "gelu_pytorch_tanh" : "silu", c->act)) ||
        (rc = read_flags(f, fam, c)) || (rc = read_window(f, fam, c)) || (rc = config_gemma_read(f, c)) ||
        (rc = config_moe_read(f, c)) || (rc = config_rope_read(f, c)) || (rc = config_labels_read(f, c)))
        return rc;
    return field_ids(f, "eos_token_id", c->vocab, c->eos, HF_EOS_MAX, &c->n_eos);
}

enum rc hf_config_parse(struct str text, const json_t *overrides, struct hf_config *out, struct err *e) {
    CHECK(!overrides || json_is_object(overrides));
    json_t *obj;
    enum rc rc = fields_parse("config.json", text, &obj, e);
    if (rc)
        return rc;
    if (overrides) {
        json_t *all = merge(obj, overrides);
        json_decref(obj);
        obj = all;
    }
    struct hf_config c = {0};
    struct fields f = {.file = "config.json", .prefix = "", .obj = obj, .e = e};
    rc = read_all(&f, &c);
    json_decref(obj);
    if (rc)
        hf_config_fini(&c);
    else
        *out = c;
    return rc;
}

void hf_config_fini(struct hf_config *c) {
    for (uint32_t i = 0; c->labels.names && i < c->labels.n; i++)
        free(c->labels.names[i]);
    free(c->labels.names);
    c->labels.names = NULL;
    free(c->layer_windowed);
    c->layer_windowed = NULL;
    free(c->moe.layer_sparse);
    c->moe.layer_sparse = NULL;
}

enum rc hf_generation_parse(struct str text, struct hf_generation *out, struct err *e) {
    json_t *obj;
    enum rc rc = fields_parse("generation_config.json", text, &obj, e);
    if (rc)
        return rc;
    struct fields f = {.file = "generation_config.json", .prefix = "", .obj = obj, .e = e};
    struct hf_generation g = {NAN, NAN, NAN, NAN, NAN, 0, {0}, 0};
    uint32_t top_k = UINT32_MAX, max_new = 0;
    if (!(rc = field_f64(&f, "temperature", 0, false, 1e6, &g.temperature)) &&
        !(rc = field_f64(&f, "top_p", 0, true, 1, &g.top_p)) &&
        !(rc = field_u32(&f, "top_k", 0, INT32_MAX, &top_k)) &&
        !(rc = field_f64(&f, "min_p", 0, false, 1, &g.min_p)) &&
        !(rc = field_f64(&f, "repetition_penalty", 0, true, 1e6, &g.repetition_penalty)) &&
        !(rc = field_u32(&f, "max_new_tokens", 1, UINT32_MAX, &max_new)))
        rc = field_ids(&f, "eos_token_id", CONFIG_VOCAB_MAX, g.eos, HF_EOS_MAX, &g.n_eos);
    json_decref(obj);
    if (rc)
        return rc;
    if (top_k != UINT32_MAX)
        g.top_k = top_k;
    g.max_new_tokens = max_new;
    *out = g;
    return RC_OK;
}
