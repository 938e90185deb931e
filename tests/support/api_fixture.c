#include "tests/support/api_fixture.h"

#include <stdio.h>

#include "common/json.h"
#include "common/utf8.h"

const char fix_tokenizer_config[] =
    "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\",\"lstrip\":false},\"chat_template\":"
    "\"{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% "
    "endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}\"}";
const char fix_generation[] = "{\"temperature\":0.7,\"top_k\":20,\"eos_token_id\":[257,259]}";

/* byte_char: how byte-level vocabularies spell a byte: printable Latin-1 as itself, the others from U+0100
 * up, in order. */
static uint32_t byte_char(unsigned byte) {
    uint32_t next = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte)
            return printable ? b : next;
        next += !printable;
    }
    return 0;
}

void api_fixture_tokenizer(struct buf *out) {
    static const char *const added[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>",
                                      "<think>", "</think>", "<tool_call>", "</tool_call>"};
    buf_addz(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (unsigned i = 0; i < ARRAY_LEN(added); i++)
        buf_addf(out,
                 "%s{\"id\":%u,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                 "\"normalized\":false,\"special\":%s}",
                 i ? "," : "", FIX_BOS + i, added[i], FIX_BOS + i == FIX_THINK || FIX_BOS + i == FIX_UNTHINK ? "false" : "true");
    buf_addz(
        out,
        "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":{\"type\":\"TemplateProcessing\","
        "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_"
        "id\":0}}],"
        "\"pair\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":"
        "0}},"
        "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
        "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[256],\"tokens\":[\"<s>\"]}}},"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":"
        "true},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
        "\"vocab\":{");
    for (unsigned b = 0; b < 256; b++) {
        char piece[4];
        size_t n = utf8_encode(byte_char(b), piece);
        if (b)
            buf_addc(out, ',');
        jw_str(out, (struct str){piece, n});
        buf_addf(out, ":%u", b);
    }
    buf_addz(out, "},\"merges\":[]}}");
}

static struct model_info *find_model(void *arg, struct str name) {
    struct api_fixture *f = arg;
    return name.n == 0 || model_info_serves(f->m, name) ? model_info_hold(f->m) : NULL;
}

void api_fixture_init(struct api_fixture *f) {
    *f = (struct api_fixture){.context = FIX_CONTEXT};
    f->opts.limit = (struct router_limits){
        .header_bytes = 64 * KIB,
        .body_bytes = 32 * MIB,
        .header_count = 100,
        .body_timeout_s = 60,
        .connections = 8192,
        .json_depth = 64,
        .json_nodes = 1 << 20,
        .json_keys = 131072,
        .n = 128,
        .prompts = 1024,
        .sequences = 4096,
        .messages = 8192,
        .inputs = 2048,
        .tools = 256,
        .stop_strings = 16,
        .stop_bytes = 1024,
        .stop_token_ids = 256,
        .bad_words = 128,
        .logit_bias = 4096,
        .logprobs = 20,
        .logprob_entries = 4194304,
        .template_bytes = 256 << 10,
        .template_steps = 5000000,
        .template_output = 16 << 20,
        .template_depth = 64,
        .queued_requests = 2048,
        .stream_buffer_bytes = 4 * MIB,
    };
    f->opts.request_template = true;
    grammar_flags_init(&f->opts.grammar);
    f->env = (struct gen_env){.opts = &f->opts, .find_model = find_model, .arg = f};
    f->tokenizer_config = str_of(fix_tokenizer_config);
    f->generation = str_of(fix_generation);
}

enum rc api_fixture_open(struct api_fixture *f, struct err *e) {
    static const char *const names[] = {"tiny", "tiny-alias"};
    static const uint32_t eos[] = {FIX_EOS, FIX_END};
    struct model_facts facts = {
        .root = "/models/tiny",
        .names = names,
        .n_names = 2,
        .revision = {1, 2, 3},
        .max_model_len = f->context,
        .vocab_size = FIX_VOCAB,
        .max_logprobs = 20,
        .block_tokens = 16,
        .priority_scheduling = f->priority,
        .eos = eos,
        .n_eos = 2,
    };
    struct buf tokenizer = {0};
    api_fixture_tokenizer(&tokenizer);
    struct str files[N_MODEL_ASSET] = {
        [ASSET_TOKENIZER] = buf_str(&tokenizer), [ASSET_TOKENIZER_CONFIG] = f->tokenizer_config,
        [ASSET_SPECIAL_TOKENS] = f->special_map, [ASSET_CHAT_TEMPLATE] = f->template_file,
        [ASSET_GENERATION] = f->generation,      [ASSET_POOLING] = f->pooling,
        [ASSET_PROCESSOR_TEMPLATE] = f->processor_template,
    };
    enum rc rc = model_info_new(&f->m, &facts, files, &f->opts, e);
    buf_fini(&tokenizer);
    return rc;
}

static enum rc read_file(const char *name, struct buf *out, struct err *e) {
    char path[64];
    snprintf(path, sizeof path, "deploy/tiny-model/%s", name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_io(e, path);
    for (size_t got = 1; got; out->len += got)
        got = fread(buf_reserve(out, 64 * KIB), 1, 64 * KIB, f);
    fclose(f);
    return RC_OK;
}

enum rc api_fixture_open_tiny(struct api_fixture *f, struct err *e) {
    static const char *const names[] = {"tiny"};
    struct buf text[N_MODEL_ASSET] = {{0}}, config = {0};
    struct str files[N_MODEL_ASSET] = {{0}};
    struct hf_config c = {0};
    enum rc rc = read_file("config.json", &config, e);
    for (size_t i = 0; !rc && i < N_MODEL_ASSET; i++) {
        static const bool there[N_MODEL_ASSET] = {[ASSET_TOKENIZER] = true,
                                                  [ASSET_TOKENIZER_CONFIG] = true,
                                                  [ASSET_CHAT_TEMPLATE] = true,
                                                  [ASSET_GENERATION] = true};
        rc = there[i] ? read_file(model_asset_name[i], &text[i], e) : RC_OK;
        files[i] = buf_str(&text[i]);
    }
    if (!rc)
        rc = hf_config_parse(buf_str(&config), NULL, &c, e);
    struct model_facts facts = {.root = "tiny",
                                .names = names,
                                .n_names = 1,
                                .max_model_len = f->context,
                                .vocab_size = c.vocab,
                                .max_logprobs = 20,
                                .block_tokens = 16,
                                .eos = c.eos,
                                .n_eos = c.n_eos};
    if (!rc) {
        rc = model_info_new(&f->m, &facts, files, &f->opts, e);
        hf_config_fini(&c);
    }
    for (size_t i = 0; i < N_MODEL_ASSET; i++)
        buf_fini(&text[i]);
    buf_fini(&config);
    return rc;
}

void api_fixture_fini(struct api_fixture *f) {
    model_info_drop(f->m);
    f->m = NULL;
}
