/* request.h: the parts of gen_prepare: sampling and prompts. Inside router/api only. */
#ifndef WEIR_ROUTER_API_REQUEST_H
#define WEIR_ROUTER_API_REQUEST_H

#include "router/api/fields.h"
#include "router/api/gen.h"

/* What the checks before the model's lookup leave for those after it. */
struct sampling_raw {
    const int64_t *stop_ids;
    size_t n_stop_ids;
    const struct raw_bias *bias;
    size_t n_bias;
    const int64_t *allowed; /* NULL: not asked for */
    size_t n_allowed;
    const struct str *bad_words;
    size_t n_bad_words;
    int64_t n_top; /* -1: all */
};

/* sampling_check: what no model is needed for: shapes and limits of stop, stop_token_ids and logit_bias;
 * options of streams and logprobs. */
MUST_USE enum rc sampling_check(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                                struct sampling_raw *raw, struct err *e);
/* sampling_resolve: defaults of the model, ids within its vocabulary, seed (api.md 5.2, 8.2, 8.3). r->model
 * is set. */
MUST_USE enum rc sampling_resolve(const struct field_values *v, struct gen_env *env,
                                  const struct sampling_raw *raw, struct gen_req *r, struct err *e);

/* samples_check (samples.c): how many sequences there are and how many are shown (api.md 8.2, 8.4). beams_check:
 * a beam search has nothing that it excludes; after everything else was read. */
MUST_USE enum rc samples_check(const struct field_values *v, struct gen_req *r, struct err *e);
MUST_USE enum rc beams_check(const struct field_values *v, const struct sampling_raw *raw,
                             const struct gen_req *r, struct err *e);

/* echo_prompt (echo.c): what the choices of prompt i begin with: the text if it was taken whole, else what its
 * ids say (text.p NULL). n_front: ids in front that are not of the text. */
void echo_prompt(struct gen_req *r, uint32_t i, struct str text, uint32_t n_front);
/* echo_message: of a chat: the last message's text, if it is of r->role. */
void echo_message(const json_t *messages, struct gen_req *r);
/* echo_limit: an answer does not repeat more text than a body may have. */
MUST_USE enum rc echo_limit(const struct gen_req *r, const struct router_limits *limits, struct err *e);

/* bans_check, bans_resolve (bans.c): the same of allowed_token_ids and bad_words (api.md 8.5). */
MUST_USE enum rc bans_check(const struct field_values *v, struct gen_req *r, struct sampling_raw *raw,
                            struct err *e);
MUST_USE enum rc bans_resolve(const struct sampling_raw *raw, struct gen_req *r, struct err *e);

/* spelled_is_text: whether a special token that a client's text spells is plain text (api.md 10.4.3): in what goes into
 * a template, and in the texts of the pooling family. The prompts of completions and of /tokenize are read as Hugging
 * Face reads them (10.4.4, 14.4): they are whole renderings. */
static inline bool spelled_is_text(const struct router_opts *o) {
    return !o->special_tokens_in_content || strcmp(o->special_tokens_in_content, "special") != 0;
}

/* prompt_cut: how long a prompt may be, and which side of a longer one goes (api.md 8.8). */
struct prompt_cut {
    bool on, right;
    uint32_t max;
};
/* prompt_cut_of: r->model is set. RC_INVALID: 0, or more than the context. */
MUST_USE enum rc prompt_cut_of(const struct field_values *v, const struct gen_req *r, struct prompt_cut *out,
                               struct err *e);
/* prompt_cut_ids: cuts ids in place to at most cut->max - n_kept. Returns whether some went. */
bool prompt_cut_ids(const struct prompt_cut *cut, size_t n_kept, struct tok_ids *ids);

/* input_check: a string, a list of strings, of ids or of lists of ids (api.md 6.1), named path; *n: how many. if_empty:
 * what is said of an empty one. */
MUST_USE enum rc input_check(const json_t *input, const char *path, const char *if_empty, int64_t max,
                             const char *flag, size_t *n, struct err *e);
/* input_several: a checked input is a list of inputs. input_ids: appends a list of ids, each in the vocabulary. */
bool input_several(const json_t *input);
MUST_USE enum rc input_ids(const json_t *list, const char *path, uint32_t vocab_size, struct tok_ids *ids,
                           struct err *e);
/* prompts_check: the four forms of a completion's prompt, and how many there may be. Sets r->n_prompts. */
MUST_USE enum rc prompts_check(const json_t *prompt, const struct router_limits *limits, struct gen_req *r,
                               struct err *e);
/* prompts_encode: ids of every prompt of a completion. */
MUST_USE enum rc prompts_encode(const json_t *prompt, bool add_special, const struct prompt_cut *cut,
                                struct gen_req *r, struct err *e);
/* prompt_set: takes ids as prompt i: neither empty nor out of the vocabulary (RC_INVALID). */
MUST_USE enum rc prompt_set(struct gen_req *r, uint32_t i, const struct tok_ids *ids, struct err *e);
/* prompt_budgets: max_tokens of every prompt (api.md 5.3), and min_tokens against them. */
MUST_USE enum rc prompt_budgets(const struct field_values *v, struct gen_req *r, struct err *e);

/* model_lookup: the model a body names, held. RC_NOT_FOUND. */
MUST_USE enum rc model_lookup(struct gen_env *env, struct str name, struct model_info **out, struct err *e);
/* body_parse: JSON that must be an object, within the limits. The caller's reference. */
MUST_USE enum rc body_parse(struct str body, const struct router_limits *limits, json_t **out, struct err *e);
/* api_check_token: RC_INVALID "out of vocabulary" unless 0 <= id < vocab_size. */
MUST_USE enum rc api_check_token(const char *param, int64_t id, uint32_t vocab_size, struct err *e);

#endif
