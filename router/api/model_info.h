/* model_info.h: what a router knows of a served model: tokenizer, templates, defaults, limits.
 *
 * Built once from a worker's WorkerInfo and assets (on a pool thread), immutable and reference-counted
 * afterwards.
 */
#ifndef WEIR_ROUTER_API_MODEL_INFO_H
#define WEIR_ROUTER_API_MODEL_INFO_H

#include "common/blob.h"
#include "common/hf/config.h"
#include "common/text/tok.h"
#include "router/opts.h"
#include "router/tmpl/cache.h"

/* Assets a router asks workers for, in this order. Workers have what of them there is, but of the files that
 * stand in for tokenizer.json only those of one kind, and only where it is missing. */
enum model_asset {
    ASSET_TOKENIZER = 0,      /* tokenizer.json */
    ASSET_TOKENIZER_MODEL,    /* tokenizer.model */
    ASSET_VOCAB_JSON,         /* vocab.json */
    ASSET_MERGES,             /* merges.txt */
    ASSET_VOCAB_TXT,          /* vocab.txt */
    ASSET_TOKENIZER_CONFIG,   /* tokenizer_config.json */
    ASSET_SPECIAL_TOKENS,     /* special_tokens_map.json */
    ASSET_ADDED_TOKENS,       /* added_tokens.json */
    ASSET_CHAT_TEMPLATE,      /* chat_template.jinja */
    ASSET_PROCESSOR_TEMPLATE, /* chat_template.json */
    ASSET_GENERATION,         /* generation_config.json */
    ASSET_POOLING,            /* pooling.json, which workers make: see worker/pooler_load.c */
    N_MODEL_ASSET
};
extern const char *const model_asset_name[N_MODEL_ASSET];

/* model_facts: from WorkerInfo; strings are copied. */
struct model_facts {
    const char *root;         /* the MODEL argument */
    const char *const *names; /* served names, at least one */
    size_t n_names;
    uint8_t revision[32];
    uint32_t max_model_len, vocab_size, max_logprobs, block_tokens;
    bool priority_scheduling;
    const uint32_t *eos; /* primary first */
    size_t n_eos;
};

enum model_task { MODEL_EMBED = 0, MODEL_CLASSIFY, MODEL_SCORE, MODEL_REWARD, N_MODEL_TASK };
/* model_pooling: of a model that pools. */
struct model_pooling {
    enum model_task task;
    const char *task_word;
    uint32_t dimensions, hidden, n_labels;
    char **labels; /* [n_labels] or NULL */
    uint32_t matryoshka[HF_MATRYOSHKA_MAX], n_matryoshka;
    bool is_matryoshka, cross_encoder, lower_case;
    char *prompt; /* put before every text; NULL: none */
};

/* model_template: one of the model's chat templates. */
struct model_template {
    struct tmpl *t; /* NULL: there is none, or it does not compile */
    struct err why; /* rc: it does not compile; every request that wants it is told */
    bool openai;    /* content is a list of parts (api.md 10.3) */
};

struct model_info {
    _Atomic uint32_t n_refs;
    struct model_facts facts; /* owned copies */
    int64_t created_unix_s;
    struct tok *tok;
    struct model_template chat, chat_tools; /* chat_tools: of requests with tools, if tools_apart */
    bool tools_apart;
    struct tmpl_cache *templates; /* of requests; locks itself */
    json_t *template_vars;                     /* bos_token, eos_token and other named special tokens */
    json_t *default_kwargs;                    /* --default-chat-template-kwargs or NULL */
    struct hf_generation defaults;
    uint64_t max_new_tokens_cap;   /* of every request (api.md 5.3.3); 0: none */
    struct model_pooling *pooling; /* NULL: it generates */
    char *chat_text, *tokenizer_info; /* both NULL without --enable-tokenizer-info-endpoint */
    char fingerprint[32];          /* "weir-0.1.0-89abcdef" */
};

/* model_info_new: RC_INVALID or RC_UNSUPPORTED with file and reason. files may hold empty slices. */
MUST_USE enum rc model_info_new(struct model_info **out, const struct model_facts *facts,
                                const struct str files[N_MODEL_ASSET], const struct router_opts *o,
                                struct err *e);
struct model_info *model_info_hold(struct model_info *m);
void model_info_drop(struct model_info *m);
/* model_info_serves: whether name is one of its served names. */
bool model_info_serves(const struct model_info *m, struct str name);

/* ---- router/api/model_templates.c ------------------------------------------------------------------- */

/* model_templates_load: chooses and compiles the model's templates (api.md 10.1.1): config, processor: what
 * tokenizer_config.json and chat_template.json hold, or NULL; file: chat_template.jinja. RC_INVALID:
 * --chat-template cannot be read. One that does not compile is no reason not to start: requests are told. */
MUST_USE enum rc model_templates_load(struct model_info *m, const json_t *config, const json_t *processor,
                                      struct str file, const struct router_opts *o, struct err *e);
/* model_openai_content: whether content is a list of parts for that template (api.md 10.3.1). fresh: it is new
 * here, and its format goes to the log. */
bool model_openai_content(const struct tmpl *t, const struct router_opts *o, bool fresh);

#endif
