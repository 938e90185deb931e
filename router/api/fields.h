/* fields.h: every field that a JSON route knows, as data: name, kind, range, default, meaning and standing.
 *
 * Parsing, its errors, the refusal of fields this build lacks and the OpenAPI document (openapi.h) all come from
 * this one table, so a field cannot exist in one of them only. Reading is one pass over the body's members;
 * nothing is allocated. What depends on the model or on another field is checked where it is used
 * (prepare.c).
 */
#ifndef WEIR_ROUTER_API_FIELDS_H
#define WEIR_ROUTER_API_FIELDS_H

#include "common/json.h"
#include "router/opts.h"

/* Routes, as bits. */
enum {
    ON_COMPLETIONS = 1,
    ON_CHAT = 2,
    ON_GENERATE = ON_COMPLETIONS | ON_CHAT,
    ON_TOKENIZE = 4,
    ON_DETOKENIZE = 8,
    ON_EMBEDDINGS = 16,
    ON_POOLING = 32,
    ON_CLASSIFY = 64,
    ON_SCORE = 128,
    ON_RERANK = 256,
    ON_INPUT = ON_EMBEDDINGS | ON_POOLING | ON_CLASSIFY,
    ON_POOL = ON_INPUT | ON_SCORE | ON_RERANK,
};
enum field_kind { FIELD_BOOL, FIELD_INT, FIELD_FLOAT, FIELD_STR, FIELD_LIST, FIELD_OBJECT, FIELD_ANY };
enum field_rule {
    FIELD_READ,    /* its value goes to `place` */
    FIELD_REFUSED, /* 400 naming it, unless null or equal to its default */
    FIELD_IGNORED, /* accepted if of its kind, without effect (api.md 2.4, 7.1, 16.3.4) */
};

/* A field's value: `set` is false for an absent or null field. */
struct opt_bool {
    bool v, set;
};
struct opt_int {
    int64_t v;
    bool set;
};
struct opt_float {
    double v;
    bool set;
};
struct opt_str {
    struct str v; /* borrowed from the body */
    bool set;
};

struct field {
    const char *name;
    unsigned on; /* routes */
    enum field_kind kind;
    enum field_rule rule;
    size_t place; /* READ: offset in struct field_values of the opt_ kind; list, object and any: a json_t * */
    double lo, hi;       /* numbers; both 0: no range */
    bool lo_open;        /* lo itself is out of range */
    bool some;           /* LIST: an empty one is refused, which is said where the list is read */
    bool required;       /* absent and null are refused (api_fields_required) */
    size_t limit;        /* 1 + offset in struct router_limits of the upper bound, of lists, objects and any of
                            the most entries; 0: none */
    const char *flag;    /* of that limit */
    const char *words;   /* STR: the legal values, "left|right"; NULL: any */
    unsigned elem;       /* LIST, OBJECT: 1 + the kind of every element or member; 0: see `schema` */
    const char *schema;  /* a name of openapi_parts.c: what the value of a STR, OBJECT or ANY, or the elements of a
                            LIST, must be beyond their kind; NULL: nothing more */
    const char *dflt;    /* JSON; for REFUSED also the neutral value */
    const char *meaning; /* READ, IGNORED: a line for the documentation; REFUSED: the message, or NULL for the
                            usual one */
};

struct field_values {
    struct opt_str model, request_id, cache_salt, reasoning_effort;
    struct opt_str text; /* tokenize: `prompt` */
    struct opt_str truncation_side, encoding_format, task;
    struct opt_int truncate, dimensions, top_n, max_tokens_per_doc;
    struct opt_bool use_activation, return_documents;
    json_t *input, *query;
    json_t *left[4], *right[4]; /* score: the spellings of the pair, each with its twin's index */
    struct opt_int max_tokens, max_completion_tokens, n, top_k, seed, min_tokens, priority;
    struct opt_int n_logprobs, top_logprobs; /* completions `logprobs`; chat */
    struct opt_float temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
    struct opt_bool logprobs, stream, ignore_eos, include_stop, skip_special, spaces_between_special,
        add_special;
    struct opt_bool parallel_tool_calls, include_reasoning;
    struct opt_bool ids_as_tokens, add_generation_prompt, continue_final_message, return_token_strs;
    struct opt_str chat_template;
    json_t *prompt, *messages, *tokens, *stop, *stop_token_ids, *logit_bias, *stream_options;
    json_t *allowed_ids, *bad_words, *logits_processors, *vllm_xargs, *kv_transfer_params;
    struct opt_int best_of, prompt_logprobs;
    struct opt_bool use_beam_search, echo;
    struct opt_float length_penalty;
    json_t *documents, *chat_template_kwargs, *tools, *tool_choice;
    json_t *response_format, *guided_json, *guided_choice, *structural_tag, *structured_outputs;
    struct opt_str guided_regex, guided_grammar, guided_backend, guided_whitespace;
};

extern const struct field api_fields[];
extern const size_t n_api_fields;

/* api_fields_read: checks every member of body (an object) that `route` knows and fills *v, whose pointers
 * borrow from body. Unknown members are ignored and logged at debug level. RC_INVALID names the field. */
MUST_USE enum rc api_fields_read(unsigned route, json_t *body, const struct router_limits *limits,
                                 struct field_values *v, struct err *e);

/* api_fields_required: RC_INVALID "NAME is required" for the first required field of `route` that body lacks. */
MUST_USE enum rc api_fields_required(unsigned route, const json_t *body, struct err *e);

/* api_field_max: the bound that f's flag sets (f->limit). -1, of logprobs: none. */
int64_t api_field_max(const struct field *f, const struct router_limits *limits);
/* api_field_int: one element of a list as an integer, with the coercions of api.md 2.3.6; path names the
 * list. */
MUST_USE enum rc api_field_int(const json_t *list, size_t i, const char *path, int64_t *out, struct err *e);
/* api_field_limit: RC_INVALID "PARAM must be less_than_equal MAX (--FLAG)" if n > max; what is counted is
 * `what`. */
MUST_USE enum rc api_field_limit(const char *param, const char *what, size_t n, int64_t max, const char *flag,
                                 struct err *e);
/* api_quote: at most 200 bytes of client text, cut at a character, for a message. */
struct str api_quote(struct str s);

#endif
