/* api_fixture.h: a model for the tests of router/api, made in memory: a byte-level tokenizer in which id b is
 * byte b, eight added tokens behind them, a small chat template, and the default limits.
 *
 * So "AB" is the ids 65, 66, and a scripted answer reads as its text. One thread.
 */
#ifndef WEIR_TESTS_SUPPORT_API_FIXTURE_H
#define WEIR_TESTS_SUPPORT_API_FIXTURE_H

#include "router/api/gen.h"

/* Added tokens, and sizes. */
enum {
    FIX_BOS = 256, /* <s>, special; the post-processor puts it in front */
    FIX_EOS,       /* </s>, special */
    FIX_BEGIN,     /* <|im_start|>, special */
    FIX_END,       /* <|im_end|>, special; the second end token of generation_config.json */
    FIX_THINK,     /* <think>, not special */
    FIX_UNTHINK,   /* </think>, not special */
    FIX_CALL,      /* <tool_call>, special */
    FIX_UNCALL,    /* </tool_call>, special */
    FIX_N_TOKENS,
    FIX_VOCAB = 272,   /* width of the logits: ids up to it are legal, and mean nothing */
    FIX_CONTEXT = 128, /* tokens */
};

struct api_fixture {
    struct router_opts opts;
    struct gen_env env;
    struct model_info *m;
    /* What may be set between init and open: */
    uint32_t context; /* FIX_CONTEXT */
    struct str tokenizer_config, special_map, template_file, generation;
    struct str processor_template; /* chat_template.json */
    struct str pooling;            /* pooling.json; empty: the model generates */
    bool priority; /* priority scheduling */
};

/* api_fixture_init: default options. api_fixture_open: builds the model, which answers to "tiny" and
 * "tiny-alias". The defaults of tokenizer_config.json have a ChatML template; generation_config.json says
 * temperature 0.7, top_k 20 and both end tokens. */
void api_fixture_init(struct api_fixture *f);
MUST_USE enum rc api_fixture_open(struct api_fixture *f, struct err *e);
/* api_fixture_open_tiny: the same with deploy/tiny-model instead; RC_IO unless run from the project's root.
 */
MUST_USE enum rc api_fixture_open_tiny(struct api_fixture *f, struct err *e);
void api_fixture_fini(struct api_fixture *f);
/* api_fixture_tokenizer: the text of tokenizer.json. */
void api_fixture_tokenizer(struct buf *out);
/* The defaults. */
extern const char fix_tokenizer_config[], fix_generation[];

#endif
