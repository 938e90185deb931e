/* L02 of reliability.md, the readings of good configs, and rope frequencies against Hugging Face's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/hf/config.h"

/* A good config; a case puts members on top of it. */
static const char base[] =
    "{\"architectures\":[\"%s\"],\"hidden_size\":64,\"num_hidden_layers\":4,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":2,\"intermediate_size\":128,\"vocab_size\":256,\"max_position_embeddings\":512}";

static enum rc parse(const char *arch, const char *overrides, struct hf_config *c, struct err *e) {
    char text[600];
    snprintf(text, sizeof text, base, arch);
    json_t *o = overrides ? json_loads(overrides, 0, NULL) : NULL;
    if (overrides && !o)
        fail_msg("the case is not JSON: %s", overrides);
    memset(e, 0, sizeof *e);
    enum rc rc = hf_config_parse(str_of(text), o, c, e);
    json_decref(o);
    return rc;
}

/* with: a good parse, to be ended with hf_config_fini. */
static struct hf_config with(const char *arch, const char *overrides) {
    struct hf_config c;
    struct err e;
    if (parse(arch, overrides, &c, &e))
        fail_msg("%s %s: %s", arch, overrides, e.msg);
    return c;
}

static void test_llama(void **state) {
    (void)state;
    struct hf_config c = with("LlamaForCausalLM", NULL);
    assert_int_equal(c.arch, HF_LLAMA);
    assert_string_equal(c.arch_name, "LlamaForCausalLM");
    assert_int_equal(c.dtype, HF_DTYPE_F32);
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.n_layers, 4);
    assert_int_equal(c.n_heads, 8);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.mlp, 128);
    assert_int_equal(c.vocab, 256);
    assert_int_equal(c.max_positions, 512);
    assert_true(c.rms_eps == 1e-6f);
    assert_false(c.tie_embeddings || c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
    assert_string_equal(c.act, "silu");
    assert_int_equal(c.window, 0);
    assert_int_equal(c.rope.kind, HF_ROPE_DEFAULT);
    assert_true(c.rope.theta == 10000);
    assert_int_equal(c.n_eos, 0);
    assert_int_equal(hf_config_len_limit(&c), 512);
    hf_config_fini(&c);

    c = with(
        "LlamaForCausalLM",
        "{\"torch_dtype\":\"bfloat16\",\"num_key_value_heads\":null,\"head_dim\":16,\"attention_bias\":true,"
        "\"mlp_bias\":true,\"tie_word_embeddings\":true,\"rms_norm_eps\":1e-5,\"eos_token_id\":[7,9,7],"
        "\"hidden_act\":\"gelu\",\"quantization_config\":null,\"num_experts\":0,\"model_type\":\"llama\"}");
    assert_int_equal(c.dtype, HF_DTYPE_BF16);
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias && c.tie_embeddings);
    assert_true(c.rms_eps == 1e-5f);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.eos[1], 9);
    assert_string_equal(c.act, "gelu");
    hf_config_fini(&c);
    c = with("LlamaForCausalLM", "{\"dtype\":\"float16\",\"eos_token_id\":0}");
    assert_int_equal(c.dtype, HF_DTYPE_F16);
    assert_int_equal(c.n_eos, 1);
    hf_config_fini(&c);
}

static void check_windows(struct hf_config c, uint32_t window, const char *marks) {
    assert_int_equal(c.window, window);
    for (uint32_t i = 0; i < c.n_layers; i++)
        assert_int_equal(c.layer_windowed[i], marks[i] == 'w');
    hf_config_fini(&c);
}

static void test_windows(void **state) {
    (void)state;
    check_windows(with("MistralForCausalLM", NULL), 4096,
                  "wwww"); /* Hugging Face's default where the key is absent */
    check_windows(with("MistralForCausalLM", "{\"sliding_window\":null}"), 0, "ffff");
    check_windows(with("MistralForCausalLM", "{\"sliding_window\":32}"), 32, "wwww");
    check_windows(with("Qwen2ForCausalLM", "{\"sliding_window\":32}"), 0, "ffff");
    check_windows(with("Qwen2ForCausalLM", "{\"sliding_window\":32,\"use_sliding_window\":true}"), 32,
                  "ffff");
    check_windows(with("Qwen2ForCausalLM",
                       "{\"sliding_window\":32,\"use_sliding_window\":true,\"max_window_layers\":1}"),
                  32, "fwww");
    check_windows(with("Qwen3ForCausalLM",
                       "{\"sliding_window\":32,\"use_sliding_window\":true,\"layer_types\":["
                       "\"sliding_attention\",\"full_attention\",\"sliding_attention\","
                       "\"full_attention\"]}"),
                  32, "wfwf");
    check_windows(with("LlamaForCausalLM", "{\"sliding_window\":null}"), 0, "ffff");
}

static void test_qwen(void **state) {
    (void)state;
    struct hf_config c = with("Qwen2ForCausalLM", "{\"attention_bias\":false}");
    assert_true(c.qkv_bias && !c.o_bias && !c.qk_norm);
    hf_config_fini(&c);
    c = with("Qwen3ForCausalLM", NULL);
    assert_true(!c.qkv_bias && !c.o_bias && c.qk_norm);
    assert_int_equal(c.head_dim, 128);
    hf_config_fini(&c);
}

static void test_rope_forms(void **state) {
    (void)state;
    struct hf_config c =
        with("LlamaForCausalLM", "{\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\","
                                 "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                                 "\"original_max_position_embeddings\":128}}");
    assert_int_equal(c.rope.kind, HF_ROPE_LLAMA3);
    assert_true(c.rope.theta == 5e5 && c.rope.factor == 8);
    assert_int_equal(c.rope.original_max_positions, 128);
    assert_int_equal(hf_config_len_limit(&c), 512);
    hf_config_fini(&c);
    c = with("LlamaForCausalLM", "{\"rope_parameters\":{\"rope_theta\":2e4,\"rope_type\":\"default\"}}");
    assert_true(c.rope.kind == HF_ROPE_DEFAULT && c.rope.theta == 2e4);
    hf_config_fini(&c);
    c = with("Qwen2ForCausalLM", "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
                                 "\"original_max_position_embeddings\":512}}");
    assert_int_equal(c.rope.kind, HF_ROPE_YARN);
    assert_int_equal(hf_config_len_limit(&c), 2048);
    assert_true(c.rope.beta_fast == 32 && c.rope.beta_slow == 1 && c.rope.truncate);
    hf_config_fini(&c);
    c = with("LlamaForCausalLM", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}");
    assert_int_equal(hf_config_len_limit(&c), 1024);
    hf_config_fini(&c);
    c = with("LlamaForCausalLM", "{\"rope_scaling\":null,\"rope_parameters\":{}}");
    assert_int_equal(c.rope.kind, HF_ROPE_DEFAULT);
    hf_config_fini(&c);
}

static void test_moe(void **state) {
    (void)state;
    struct hf_config c = with("MixtralForCausalLM", "{\"num_local_experts\":6}");
    assert_int_equal(c.arch, HF_MIXTRAL);
    assert_int_equal(c.moe.n_experts, 6);
    assert_int_equal(c.moe.top_k, 2);
    assert_int_equal(c.moe.mlp, 128); /* intermediate_size */
    assert_true(c.moe.renorm && c.rms_eps == 1e-5f && c.rope.theta == 1e6);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(c.moe.layer_sparse[i]);
    hf_config_fini(&c);
    c = with("Qwen3MoeForCausalLM", "{\"moe_intermediate_size\":24,\"decoder_sparse_step\":2,"
                                    "\"mlp_only_layers\":[3,99],\"num_local_experts\":16}");
    assert_int_equal(c.moe.n_experts, 16); /* as transformers 5 spells it */
    assert_int_equal(c.moe.top_k, 8);
    assert_int_equal(c.moe.mlp, 24);
    assert_true(c.qk_norm && !c.moe.renorm && !c.window);
    static const uint8_t sparse[4] = {0, 1, 0, 0};
    assert_memory_equal(c.moe.layer_sparse, sparse, 4);
    hf_config_fini(&c);
    c = with("Qwen3MoeForCausalLM", "{\"use_sliding_window\":true,\"sliding_window\":32,\"norm_topk_prob\":true}");
    assert_true(c.moe.renorm && c.moe.n_experts == 128 && c.window == 32);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(c.moe.layer_sparse[i] && c.layer_windowed[i]);
    hf_config_fini(&c);
    c = with("LlamaForCausalLM", NULL);
    assert_true(c.moe.n_experts == 0 && !c.moe.layer_sparse);
    hf_config_fini(&c);
}

/* An override is the value that counts, also where the file spells the key the other way. */
static void test_overrides(void **state) {
    (void)state;
    static const char file[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"num_hidden_layers\":4,"
        "\"num_attention_heads\":8,\"intermediate_size\":128,\"vocab_size\":256,\"dtype\":\"bfloat16\","
        "\"rope_parameters\":{\"rope_theta\":10000.0,\"rope_type\":\"linear\",\"factor\":2.0}}";
    static const struct {
        const char *overrides;
        enum hf_dtype dtype;
        enum hf_rope kind;
        double theta;
    } cases[] = {
        {"{}", HF_DTYPE_BF16, HF_ROPE_LINEAR, 10000},
        {"{\"torch_dtype\":\"float16\"}", HF_DTYPE_F16, HF_ROPE_LINEAR, 10000},
        {"{\"rope_theta\":500}", HF_DTYPE_BF16, HF_ROPE_LINEAR, 500},
        {"{\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}}", HF_DTYPE_BF16, HF_ROPE_DYNAMIC,
         10000},
        {"{\"rope_parameters\":{\"rope_theta\":7}}", HF_DTYPE_BF16, HF_ROPE_DEFAULT, 7},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *o = json_loads(cases[i].overrides, 0, NULL);
        struct hf_config c;
        struct err e;
        assert_int_equal(hf_config_parse(str_of(file), o, &c, &e), RC_OK);
        assert_int_equal(c.dtype, cases[i].dtype);
        assert_int_equal(c.rope.kind, cases[i].kind);
        assert_true(c.rope.theta == cases[i].theta);
        hf_config_fini(&c);
        json_decref(o);
    }
}

#define LLAMA3 "\"rope_scaling\":{\"rope_type\":\"llama3\",\"low_freq_factor\":1,\"high_freq_factor\":4"
static const struct bad_config {
    const char *arch, *overrides;
    enum rc rc;
    const char *param, *why;
} bad_configs[] = {
    {"L", "{\"hidden_size\":0}", RC_INVALID, "hidden_size", "from 1 to"},
    {"L", "{\"hidden_size\":null}", RC_INVALID, "hidden_size", "missing"},
    {"L", "{\"hidden_size\":\"64\"}", RC_INVALID, "hidden_size", "a whole number is needed, not a string"},
    {"L", "{\"hidden_size\":64.5}", RC_INVALID, "hidden_size", "a whole number"},
    {"L", "{\"num_attention_heads\":0}", RC_INVALID, "num_attention_heads", "from 1 to"},
    {"L", "{\"num_attention_heads\":-8}", RC_INVALID, "num_attention_heads", "got -8"},
    {"L", "{\"num_attention_heads\":10}", RC_INVALID, "num_attention_heads",
     "10 does not divide hidden_size, 64"},
    {"L", "{\"num_key_value_heads\":3}", RC_INVALID, "num_key_value_heads", "3 does not divide"},
    {"L", "{\"num_key_value_heads\":0}", RC_INVALID, "num_key_value_heads", "from 1 to"},
    {"L", "{\"num_key_value_heads\":16}", RC_INVALID, "num_key_value_heads", "16 does not divide"},
    {"L", "{\"num_attention_heads\":64,\"num_key_value_heads\":64}", RC_INVALID, "head_dim", "even"},
    {"L", "{\"head_dim\":7}", RC_INVALID, "head_dim", "even"},
    {"L", "{\"head_dim\":100000}", RC_INVALID, "head_dim", "from 2 to"},
    {"L", "{\"num_hidden_layers\":1000000000}", RC_INVALID, "num_hidden_layers", "got 1000000000"},
    {"L", "{\"num_hidden_layers\":9223372036854775807}", RC_INVALID, "num_hidden_layers", "from 1 to"},
    {"L", "{\"vocab_size\":-1}", RC_INVALID, "vocab_size", "from 1 to"},
    {"L", "{\"intermediate_size\":[128]}", RC_INVALID, "intermediate_size", "a whole number"},
    {"L", "{\"max_position_embeddings\":0}", RC_INVALID, "max_position_embeddings", "from 1 to"},
    {"L", "{\"rms_norm_eps\":0}", RC_INVALID, "rms_norm_eps", "above 0"},
    {"L", "{\"rms_norm_eps\":\"x\"}", RC_INVALID, "rms_norm_eps", "a number is needed"},
    {"L", "{\"tie_word_embeddings\":1}", RC_INVALID, "tie_word_embeddings", "true or false"},
    {"L", "{\"hidden_act\":\"relu6\"}", RC_UNSUPPORTED, "hidden_act", "must be one of silu"},
    {"L", "{\"dtype\":\"float64\"}", RC_UNSUPPORTED, "dtype", "float32, float16 or bfloat16"},
    {"L", "{\"torch_dtype\":\"int8\"}", RC_UNSUPPORTED, "torch_dtype", "float32"},
    {"L", "{\"eos_token_id\":-1}", RC_INVALID, "eos_token_id", "id -1 is not in the vocabulary of 256"},
    {"L", "{\"eos_token_id\":[1,256]}", RC_INVALID, "eos_token_id", "id 256"},
    {"L", "{\"eos_token_id\":[]}", RC_INVALID, "eos_token_id", "got 0"},
    {"L", "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", RC_INVALID, "eos_token_id",
     "got 17"},
    {"L", "{\"eos_token_id\":\"</s>\"}", RC_INVALID, "eos_token_id", "a token id or a list"},
    {"L", "{\"eos_token_id\":[[1]]}", RC_INVALID, "eos_token_id", "a token id or a list"},
    {"L", "{\"architectures\":[\"GPTNeoXForCausalLM\"]}", RC_UNSUPPORTED, "architectures",
     "\"GPTNeoXForCausalLM\" is not supported; supported are: LlamaForCausalLM, MistralForCausalLM, "
     "Qwen2ForCausalLM, Qwen3ForCausalLM"},
    {"L", "{\"architectures\":[]}", RC_INVALID, "architectures", "a list"},
    {"L", "{\"architectures\":null}", RC_INVALID, "architectures", "a list"},
    {"L", "{\"architectures\":\"LlamaForCausalLM\"}", RC_INVALID, "architectures", "a list"},
    {"L", "{\"model_type\":\"mistral\"}", RC_INVALID, "model_type", "contradicts"},
    {"L", "{\"quantization_config\":{\"quant_method\":\"gptq\"}}", RC_UNSUPPORTED, "quantization_config",
     "support"},
    {"L", "{\"quantization_config\":{\"quant_method\":\"fp8\",\"kv_cache_scheme\":{\"num_bits\":4,\"type\":\"int\"}}}",
     RC_UNSUPPORTED, "quantization_config", "kv_cache_scheme: of the KV cache, fp8"},
    {"L",
     "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"kv_cache_scheme\":{\"num_bits\":8,"
     "\"type\":\"float\",\"strategy\":\"attn_head\"}}}",
     RC_UNSUPPORTED, "quantization_config", "strategy: one factor for a layer's keys"},
    {"L", "{\"quantization_config\":{\"quant_method\":\"fp8\",\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"float\",\"dynamic\":true}}}",
     RC_UNSUPPORTED, "quantization_config", "dynamic: factors that are stored"},
    {"L", "{\"num_local_experts\":8}", RC_UNSUPPORTED, "num_local_experts", "support"},
    {"X", "{\"num_local_experts\":0}", RC_INVALID, "num_local_experts", "from 1 to"},
    {"X", "{\"num_local_experts\":100000}", RC_INVALID, "num_local_experts", "from 1 to"},
    {"X", "{\"num_experts_per_tok\":9}", RC_INVALID, "num_experts_per_tok", "9 experts for a token, and there are 8"},
    {"E", "{\"num_experts_per_tok\":0}", RC_INVALID, "num_experts_per_tok", "from 1 to"},
    {"E", "{\"moe_intermediate_size\":-1}", RC_INVALID, "moe_intermediate_size", "from 1 to"},
    {"E", "{\"decoder_sparse_step\":0}", RC_INVALID, "decoder_sparse_step", "from 1 to"},
    {"E", "{\"mlp_only_layers\":3}", RC_INVALID, "mlp_only_layers", "a list of layer numbers"},
    {"E", "{\"mlp_only_layers\":[-1]}", RC_INVALID, "mlp_only_layers", "a list of layer numbers"},
    {"E", "{\"norm_topk_prob\":1}", RC_INVALID, "norm_topk_prob", "true or false"},
    {"L", "{\"attn_logit_softcapping\":50.0}", RC_UNSUPPORTED, "attn_logit_softcapping", "support"},
    {"L", "{\"partial_rotary_factor\":0.5}", RC_UNSUPPORTED, "partial_rotary_factor", "must be 1"},
    {"L", "{\"sliding_window\":16}", RC_UNSUPPORTED, "sliding_window", "has no sliding window"},
    {"M", "{\"sliding_window\":0}", RC_INVALID, "sliding_window", "from 1 to"},
    {"M", "{\"sliding_window\":-5}", RC_INVALID, "sliding_window", "from 1 to"},
    {"M", "{\"layer_types\":[]}", RC_UNSUPPORTED, "layer_types", "one kind of layer"},
    {"Q", "{\"layer_types\":[\"full_attention\"]}", RC_INVALID, "layer_types", "each of the 4 layers"},
    {"Q", "{\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"linear_attention\"]}",
     RC_UNSUPPORTED, "layer_types", "full_attention or sliding_attention"},
    {"Q",
     "{\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]}",
     RC_INVALID, "layer_types", "layer 3 slides, but no window"},
    {"L", "{\"rope_theta\":0}", RC_INVALID, "rope_theta", "above 0"},
    {"L", "{\"rope_theta\":-1}", RC_INVALID, "rope_theta", "above 0"},
    {"L", "{\"rope_scaling\":[]}", RC_INVALID, "rope_scaling", "an object"},
    {"L", "{\"rope_scaling\":{\"type\":\"longrope\"}}", RC_UNSUPPORTED, "rope_scaling.type",
     "default, linear"},
    {"L", "{\"rope_parameters\":{\"rope_type\":\"su\"}}", RC_UNSUPPORTED, "rope_parameters.rope_type",
     "default"},
    {"L", "{\"rope_scaling\":{\"type\":\"linear\"}}", RC_INVALID, "rope_scaling.factor", "missing"},
    {"L", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", RC_INVALID, "rope_scaling.factor",
     "above 0"},
    {"L", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", RC_INVALID, "rope_scaling.factor",
     "at least 1"},
    {"L", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", RC_INVALID, "rope_scaling.factor",
     "a number"},
    {"L", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":1e300}}", RC_INVALID, "rope_scaling.factor",
     "at most"},
    {"L", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"short_factor\":[1]}}", RC_UNSUPPORTED,
     "rope_scaling.short_factor", "support"},
    {"L", "{\"rope_parameters\":{\"full_attention\":{}}}", RC_UNSUPPORTED, "rope_parameters.full_attention",
     "support"},
    {"L", "{" LLAMA3 "}}", RC_INVALID, "rope_scaling.factor", "missing"},
    {"L", "{" LLAMA3 ",\"factor\":8,\"original_max_position_embeddings\":0}}", RC_INVALID,
     "rope_scaling.original_max_position_embeddings", "from 1 to"},
    {"L",
     "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}"
     "}",
     RC_INVALID, "rope_scaling.high_freq_factor", "above low_freq_factor"},
    {"L", "{\"rope_theta\":1,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2}}", RC_INVALID,
     "rope_scaling.rope_theta", "above 1"},
    {"L", "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"beta_fast\":1,\"beta_slow\":2}}", RC_INVALID,
     "rope_scaling.beta_fast", "below"},
};

static void test_bad(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad_configs); i++) {
        const struct bad_config *b = &bad_configs[i];
        const char *arch = *b->arch == 'L'   ? "LlamaForCausalLM"
                           : *b->arch == 'X' ? "MixtralForCausalLM"
                           : *b->arch == 'E' ? "Qwen3MoeForCausalLM"
                           : *b->arch == 'M' ? "MistralForCausalLM"
                                             : "Qwen2ForCausalLM";
        struct hf_config c;
        struct err e;
        enum rc rc = parse(arch, b->overrides, &c, &e);
        if (rc != b->rc || strcmp(e.param, b->param) != 0 || !strstr(e.msg, b->why) ||
            !strstr(e.msg, b->param))
            fail_msg("%s: rc %d, param \"%s\", \"%s\"", b->overrides, (int)rc, e.param, e.msg);
    }
}

static void test_bad_text(void **state) {
    (void)state;
    static const char *const texts[] = {
        "", "[]", "7", "{", "{\"hidden_size\":NaN}", "{\"rope_theta\":Infinity}", "{\"a\":1e999}", "{} {}",
    };
    struct hf_config c;
    struct hf_generation g;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_int_equal(hf_config_parse(str_of(texts[i]), NULL, &c, &e), RC_INVALID);
        assert_non_null(strstr(e.msg, "config.json"));
        assert_int_equal(hf_generation_parse(str_of(texts[i]), &g, &e), RC_INVALID);
    }
    struct buf b = {0};
    buf_addz(&b, "{\"a\":");
    for (int i = 0; i < 100000; i++)
        buf_addc(&b, '[');
    assert_int_equal(hf_config_parse(buf_str(&b), NULL, &c, &e), RC_INVALID);
    while (b.len <= 1 << 20)
        buf_addc(&b, ' ');
    assert_int_equal(hf_config_parse(buf_str(&b), NULL, &c, &e), RC_TOO_LARGE);
    buf_fini(&b);
}

static void test_generation(void **state) {
    (void)state;
    struct hf_generation g;
    struct err e;
    assert_int_equal(
        hf_generation_parse(STR_LIT("{\"do_sample\":true,\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,"
                                    "\"min_p\":0,\"repetition_penalty\":1.1,\"max_new_tokens\":99,"
                                    "\"eos_token_id\":[128001,128008,128009]}"),
                            &g, &e),
        RC_OK);
    assert_true(g.temperature == 0.6 && g.top_p == 0.9 && g.top_k == 20 && g.min_p == 0);
    assert_true(g.repetition_penalty == 1.1);
    assert_int_equal(g.max_new_tokens, 99);
    assert_int_equal(g.n_eos, 3);
    assert_int_equal(g.eos[2], 128009);
    assert_int_equal(hf_generation_parse(STR_LIT("{\"temperature\":null}"), &g, &e), RC_OK);
    assert_true(isnan(g.temperature) && isnan(g.top_p) && isnan(g.top_k) && isnan(g.min_p));
    assert_true(isnan(g.repetition_penalty));
    assert_int_equal(g.max_new_tokens, 0);
    assert_int_equal(g.n_eos, 0);
    static const char *const bad[][2] = {
        {"{\"temperature\":-1}", "temperature"},
        {"{\"top_p\":0}", "top_p"},
        {"{\"top_p\":1.5}", "top_p"},
        {"{\"top_k\":-1}", "top_k"},
        {"{\"min_p\":2}", "min_p"},
        {"{\"repetition_penalty\":0}", "repetition_penalty"},
        {"{\"max_new_tokens\":0}", "max_new_tokens"},
        {"{\"max_new_tokens\":1.5}", "max_new_tokens"},
        {"{\"eos_token_id\":-1}", "eos_token_id"},
        {"{\"eos_token_id\":{}}", "eos_token_id"},
        {"{\"eos_token_id\":9999999999}", "eos_token_id"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(hf_generation_parse(str_of(bad[i][0]), &g, &e), RC_INVALID);
        assert_string_equal(e.param, bad[i][1]);
    }
}

/* rope.json, by scripts/goldens/models.py: configs and the frequencies Hugging Face computes for them. The
 * two differ by the last bits of powf: 4 units in the last place, and the same again where YaRN subtracts. */
static void test_rope_frequencies(void **state) {
    (void)state;
    json_error_t je;
    json_t *cases = json_load_file("tests/golden/models/rope.json", 0, &je);
    assert_non_null(cases);
    assert_true(json_array_size(cases) >= 6);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *want = json_object_get(one, "inv_freq");
        char *text = json_dumps(json_object_get(one, "config"), 0);
        struct hf_config c;
        struct err e = {0};
        if (hf_config_parse(str_of(text), NULL, &c, &e))
            fail_msg("%s: %s", text, e.msg);
        float got[256], scale;
        assert_int_equal(json_array_size(want), c.head_dim / 2);
        hf_rope_inv_freq(&c, c.head_dim, c.max_positions, got, &scale);
        for (size_t k = 0; k < c.head_dim / 2; k++) {
            double w = json_number_value(json_array_get(want, k));
            if (fabs(got[k] - w) > 5e-7 * w)
                fail_msg("%s: frequency %zu is %.9g, wanted %.9g", text, k, (double)got[k], w);
        }
        double m = json_number_value(json_object_get(one, "scale"));
        assert_true(fabs(scale - m) < 1e-6);
        hf_config_fini(&c);
        free(text);
    }
    json_decref(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_qwen),
        cmocka_unit_test(test_rope_forms),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_rope_frequencies),
    };
    return cmocka_run_group_tests_name("hf_config", tests, NULL, NULL);
}
