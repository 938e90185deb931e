/* pool.h: requests of the pooling family (api.md 12): embeddings, pooling, classify, score and rerank.
 *
 * They share a generation's path: gen_prepare yields a gen_req whose prompts are the texts (or pairs) to be
 * run, the session submits them, and gen_on_pool takes what comes back, in any order; gen_on_end writes the
 * body in the order of the input. Inside router/api only, but for struct pool_req, which the session may look
 * at.
 */
#ifndef WEIR_ROUTER_API_POOL_H
#define WEIR_ROUTER_API_POOL_H

#include "router/api/request.h"

enum pool_out { OUT_EMBED = 0, OUT_CLASSIFY, OUT_TOKEN_EMBED, OUT_TOKEN_CLASSIFY };

/* pool_req: lives in the arena of its gen_req. */
struct pool_req {
    enum pool_out out;
    bool spelled_is_text; /* see request.h */
    uint32_t dimensions; /* 0: all */
    uint32_t cols;       /* of a result's row */
    bool has_activation, activation;
    bool base64;
    /* score and rerank */
    bool cosine;     /* the first n_left prompts are the left texts; else each prompt is a pair */
    uint32_t n_left; /* 1 or n_items */
    uint32_t n_items;
    /* rerank */
    const struct str *documents; /* [n_items] NULL: not returned */
    uint32_t top_n;
};

/* pool_check_task: RC_NOT_FOUND naming route, model and task if the model does not serve the route
 * (api.md 4.2.3). */
MUST_USE enum rc pool_check_task(const struct gen_req *r, struct err *e);
/* pool_prepare: everything of gen_prepare that is particular to the family, after the model is known. */
MUST_USE enum rc pool_prepare(const struct router_opts *o, const struct field_values *v, struct gen_req *r,
                              struct err *e);
/* pool_check: what no model is needed for: which fields there must be, and their shapes. */
MUST_USE enum rc pool_check(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                            struct err *e);
/* pool_submit_fill: the Pooling part of a Submit. */
void pool_submit_fill(const struct gen_req *r, Weir__Pooling *p);

/* ---- texts to ids (pool_inputs.c) */

struct pool_cut {
    bool on, left; /* left: tokens are cut off on the left */
    uint32_t max;
};
/* pool_cut_of: truncate_prompt_tokens and truncation_side against the context (api.md 8.8). */
MUST_USE enum rc pool_cut_of(const struct field_values *v, const struct gen_req *r, struct pool_cut *out,
                             struct err *e);
/* pool_text: prompt i from a text or a list of ids, cut. path names it. */
MUST_USE enum rc pool_text(struct gen_req *r, uint32_t i, const json_t *value, const char *path,
                           bool add_special, const struct pool_cut *cut, struct err *e);
/* pool_ids: prompt i from ids as they are, cut. */
MUST_USE enum rc pool_ids(struct gen_req *r, uint32_t i, struct tok_ids *ids, const char *path,
                          const struct pool_cut *cut, struct err *e);
/* pool_pair: prompt i from two texts by the tokenizer's template for pairs, or, without special tokens, one
 * behind the other; the second is cut first. a and b are ids without special tokens. path names the second.
 */
MUST_USE enum rc pool_pair(struct gen_req *r, uint32_t i, struct tok_text_ids a, struct tok_text_ids b,
                           const char *path, bool add_special, const struct pool_cut *cut, struct err *e);
/* pool_encode: the ids of a client's text behind the model's prompt, without special tokens; lower-cased if the model
 * wants that. */
void pool_encode(const struct gen_req *r, struct str text, struct tok_ids *out);

/* ---- results (pool_body.c) */

struct pool_result {
    float *v; /* [rows][cols] of the request; NULL: not there yet */
    uint32_t rows;
};
void pool_body_write(const struct gen_run *g, struct buf *out);

#endif
