/* gen.h: a generation request from JSON to wire and from tokens to JSON (completions and chat).
 *
 * Three stages. gen_prepare runs on a pool thread, or for a short body on the loop's: it parses and checks the
 * body, renders the template, tokenises, and yields an immutable struct gen_req. The loop that owns the
 * connection then makes a struct gen_run from it, submits each prompt, and feeds every output in; the run turns
 * tokens into text, cuts at stop strings, and appends SSE events or, at the end, the whole body. No sockets
 * here, no wire connection: the session (router/session.h) has those.
 */
#ifndef WEIR_ROUTER_API_GEN_H
#define WEIR_ROUTER_API_GEN_H

#include <stdatomic.h>

#include "common/arena.h"
#include "common/gram/front.h"
#include "common/text/detok.h"
#include "common/text/stop.h"
#include "proto/weir.pb-c.h"
#include "router/api/kv_params.h"
#include "router/api/model_info.h"
#include "router/parse/parse.h"

enum gen_route {
    GEN_COMPLETIONS = 0,
    GEN_CHAT,
    GEN_EMBEDDINGS, /* from here on: the pooling family, router/api/pool.h */
    GEN_POOLING,
    GEN_CLASSIFY,
    GEN_SCORE,
    GEN_RERANK,
    N_GEN_ROUTE
};
/* gen_route_word: for logs and messages. */
const char *gen_route_word(enum gen_route route);

/* How gen_prepare finds a model: by served name, or the default for name.p NULL or empty. Returns a held
 * reference, or NULL for an unknown name. Any thread. */
struct gen_good { /* digest of a constraint that compiled */
    _Atomic uint64_t half[2];
};
enum { GEN_GOOD = 1024 };
struct gen_env {
    const struct router_opts *opts;
    struct model_info *(*find_model)(void *arg, struct str name);
    void *arg;
    _Atomic uint64_t n_requests; /* counter for --seed */
    struct gen_good good[GEN_GOOD];
    struct gram *processor_names; /* logits processors that requests may name; NULL: none */
    _Atomic bool moves_kv; /* some worker has said that it moves KV blocks: kv_transfer_params count */
    /* end_transfer: what a request that failed was to fetch nobody will. Any thread. NULL: nobody wants to know. */
    void (*end_transfer)(void *arg, const struct kv_params *p);
};

/* Whether the output is the arguments of one call, or an array of calls (api.md 11.1). */
enum tools_mode { TOOLS_NONE = 0, TOOLS_NAMED, TOOLS_REQUIRED };

struct gen_prompt {
    const uint32_t *ids;
    uint32_t n_ids;
    const uint32_t *types; /* [n_ids] token types; NULL: all 0 */
    uint32_t max_tokens;   /* resolved: api.md 5.3; 0: a pooling request, or an echo alone */
    struct str echo;       /* what the choices of an echoing request begin with */
    uint32_t n_front;      /* leading ids that the tokenizer added and that echo does not show */
    const struct id128 *blocks; /* [n_blocks] names of blocks that may be cached (routing.h) */
    uint32_t n_blocks;
};

/* gen_req: immutable after gen_prepare; everything lives in its arena. */
struct gen_req {
    struct arena arena;
    enum gen_route route;
    struct pool_req *pool;    /* NULL: a generation */
    struct model_info *model; /* held */
    struct str model_name;    /* echoed: as asked, or the first served name */
    struct str id;            /* client-visible: prefix and suffix */
    struct str id_suffix;     /* its part for X-Request-Id (api.md 2.6.3) */
    int64_t created_unix_s;
    struct gen_prompt *prompts;
    uint32_t n_prompts, n;  /* n choices of each prompt; choice index = prompt * n + k */
    uint32_t n_samples;     /* sequences of each prompt, of which the best n are shown; n, best_of, or beams */
    bool beams;             /* beam search: the worker gives them best first */
    float length_penalty;
    bool echo, echo_alone;  /* echo_alone: nothing is generated */
    bool sums;              /* samples are ranked by the sum of their raw log-probabilities */
    int32_t n_prompt_top;   /* alternatives asked of the worker for each token of the prompt; -1: nothing */
    int32_t n_prompt_list;  /* alternatives in prompt_logprobs; -1: null */
    bool stream, include_usage, continuous_usage;
    uint32_t stream_interval; /* steps of an event (--stream-interval) */
    bool logprobs;  /* wanted at all */
    uint32_t n_top; /* alternatives beside the sampled token */
    bool skip_special, spaces_between_special, include_stop;
    bool prompt_details;            /* usage tells cached tokens (--enable-prompt-tokens-details) */
    bool ids_as_tokens;             /* token strings are token_id:N */
    struct stop_set *stop;          /* NULL: none */
    const struct str *stop_strings; /* the same, for stop_reason */
    uint32_t n_stop_strings;
    uint32_t min_tokens;
    struct str role; /* chat: of the answer */
    struct str chat_echo; /* what its content begins with */
    int32_t priority;
    struct id128 domain; /* of the prefix cache: revision and salt */
    uint64_t session_key; /* routing.h */
    struct {             /* sampling, resolved */
        float temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
        uint32_t top_k;
        uint64_t seed;
        bool seeded; /* by the client: every prompt then uses this seed as it is */
        bool ignore_eos;
        const uint32_t
            *stop_ids; /* the client's and, unless ignore_eos, generation_config's secondary EOS ids */
        uint32_t n_stop_ids;
        const uint32_t *bias_ids; /* ascending */
        const float *bias_values;
        uint32_t n_bias;
        const uint32_t *allowed; /* the only ids that may come; n_allowed 0: all */
        uint32_t n_allowed;
        Weir__BadWord **bad_words; /* as they go out */
        uint32_t n_bad_words;
        Weir__Processor **processors; /* likewise */
        uint32_t n_processors;
        char *xargs_json; /* vllm_xargs; NULL without processors */
    } s;
    struct {                      /* structured output, api.md 9 */
        enum gram_kind kind;      /* 0: none */
        const char *field;        /* where it came from: a literal */
        struct str text, options; /* NUL-terminated */
        uint32_t starts_after;    /* the token behind which it holds */
        bool starts_later;        /* starts_after is set; else it holds from the beginning */
    } constraint;
    struct {                 /* how the text of a chat is taken apart (parsing.c) */
        bool on;             /* by a parser with these options: */
        struct parse_opts o;
        uint32_t mark_ids[PARSE_MARKS_MAX]; /* [n_marks] special tokens that text hides, and what stands for them */
        char mark_bytes[PARSE_MARKS_MAX];
        uint32_t n_marks;
        bool auto_tools;     /* the model may call tools */
        bool counts_reasoning; /* usage tells its tokens: the server has a reasoning parser */
        bool drop_reasoning;   /* include_reasoning is false */
        bool one_call;       /* only the first call is kept */
        bool short_ids;      /* of calls: 9 characters */
    } parse;
    enum tools_mode tools_mode;
    struct str tool_name;              /* NAMED */
    uint64_t encode_ns; /* when template or tokenizer began */
    struct kv_params kv; /* of the first prompt */
    uint64_t template_ns, tokenize_ns, compile_ns; /* time spent, for metrics; 0: none */
};

enum { GEN_ID_BYTES_MAX = 128 };
/* gen_asked_id: the body's request_id if the body is an object and its request_id is valid (api.md 2.6.2),
 * else "": for the X-Request-Id of a request that gen_prepare refuses. out has GEN_ID_BYTES_MAX + 1 bytes. */
void gen_asked_id(struct str body, const struct router_limits *limits, char *out);
/* gen_prepare: body is the request's JSON. id_suffix: a valid X-Request-Id header, or empty. Errors carry
 * `param` and the wording of api.md 3.5, in the order of 3.3 from "JSON" to "semantic checks". Thread-safe;
 * takes no lock of its own. */
MUST_USE enum rc gen_prepare(struct gen_env *env, enum gen_route route, struct str body, struct str id_suffix,
                             struct gen_req **out, struct err *e);
/* gen_prepare_light: likewise, on a loop's thread. RC_AGAIN, without a word in *e: this request has something
 * that may take long, like a grammar to compile; gen_prepare must do it, on the pool. */
MUST_USE enum rc gen_prepare_light(struct gen_env *env, enum gen_route route, struct str body,
                                   struct str id_suffix, struct gen_req **out, struct err *e);
void gen_req_free(struct gen_req *r);

/* gen_submit: fills *m for one prompt, pointing into r and scratch (which must outlive packing). The caller
 * sets request_id and stream. */
struct gen_submit {
    Weir__Submit m;
    Weir__Constraint constraint;
    Weir__Sampling sampling;
    Weir__Pooling pooling;
    Weir__KvTransfer kv; /* the caller's: only it knows whether the worker moves blocks */
};
void gen_submit(const struct gen_req *r, uint32_t prompt, struct gen_submit *scratch);

/* ---- outputs ----------------------------------------------------------------------------------------- */

struct gen_run;                                 /* state of all choices; belongs to one loop */
struct gen_run *gen_run_new(struct gen_req *r); /* takes r */
void gen_run_free(struct gen_run *g);
const struct gen_req *gen_run_req(const struct gen_run *g);

struct gen_first { /* before a choice's first token */
    uint32_t cached_tokens;
};
/* gen_prompt_row: what the model thought of one token of the prompt. */
struct gen_prompt_row {
    float logprob;
    uint32_t rank; /* from 1; 0: the first token, of which nothing is known */
    const uint32_t *top_ids; /* [n_top] */
    const float *top_logprobs;
    uint32_t n_top;
};
struct gen_token {
    uint32_t id;
    float logprob;
    float raw_logprob; /* whatever --logprobs-mode says */
    bool unknown;      /* the prompt's first: there is no log-probability */
    uint32_t rank;
    const uint32_t *top_ids; /* [n_top] */
    const float *top_logprobs;
    uint32_t n_top;
};
enum gen_finish_reason { GEN_STOP = 0, GEN_LENGTH, GEN_ABORT };
struct gen_finish {
    enum gen_finish_reason reason;
    bool has_stop_id; /* ended by a stop token: stop_reason is its id */
    uint32_t stop_id;
};

enum gen_action {
    GEN_CONTINUE = 0,
    GEN_CUT, /* a stop string ended this choice: tell the worker to abort the sample; nothing more is expected
                of it */
    GEN_FAILED, /* a value cannot be printed (NaN): abort all samples; the run is done, gen_on_end gives the
                   error */
};

/* gen_first: notes the prompt's cached tokens. */
void gen_on_first(struct gen_run *g, uint32_t choice, const struct gen_first *f);
/* gen_on_prompt: the next n rows of a prompt, before any step of its choices. RC_INTERNAL: more than it has
 * tokens, or a value that cannot be printed. */
MUST_USE enum rc gen_on_prompt(struct gen_run *g, uint32_t prompt, const struct gen_prompt_row *rows, uint32_t n,
                               struct err *e);
/* gen_prompt_known: every row that the request needs of that prompt has come. */
bool gen_prompt_known(const struct gen_run *g, uint32_t prompt);
/* gen_on_step: one engine step of one choice: token may be NULL (a finish alone), finish may be NULL. With
 * `stream` appends the step's events to sse (a "data: {...}\n\n" for each); without, nothing is appended.
 * Outputs for a choice that has finished are ignored. */
enum gen_action gen_on_step(struct gen_run *g, uint32_t choice, const struct gen_token *token,
                            const struct gen_finish *finish, struct buf *sse);
/* gen_on_pool: what a pooling worker made of one prompt: [rows][cols] of data, copied. RC_INTERNAL: not what was
 * asked for, or a value that cannot be printed. */
MUST_USE enum rc gen_on_pool(struct gen_run *g, uint32_t prompt, uint32_t rows, uint32_t cols, const float *data,
                             struct err *e);
/* gen_on_kv: blocks of the first prompt are kept for another server: its leg's internal id and where they are; copied.
 * Before the step that ends the choice. Ignored unless the request asked for it. */
void gen_on_kv(struct gen_run *g, struct id128 request, const struct kv_reply *r);
/* gen_run_done: every choice has finished. */
bool gen_run_done(const struct gen_run *g);
/* gen_on_end: the usage chunk if asked for and [DONE]; or the whole JSON body if not streaming. Once, when
 * done. RC_INTERNAL if a value cannot be printed (NaN). */
MUST_USE enum rc gen_on_end(struct gen_run *g, struct buf *out, struct err *e);
/* gen_error_event: the error object as an event, and [DONE]. */
void gen_error_event(const struct err *e, struct buf *sse);
/* Totals so far, for metrics and the log. */
struct gen_counts {
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    uint32_t reasoning_tokens; /* of completion_tokens: those of reasoning, its marks included */
};
struct gen_counts gen_run_counts(const struct gen_run *g);

/* ---- the tokenizer routes and models: body in, body out, on a pool thread ---------------------------- */

MUST_USE enum rc api_tokenize(struct gen_env *env, struct str body, struct buf *out, struct err *e);
MUST_USE enum rc api_detokenize(struct gen_env *env, struct str body, struct buf *out, struct err *e);
/* api_model_card: one object of GET /v1/models. */
void api_model_card(const struct model_info *m, const char *name, struct buf *out);

#endif
