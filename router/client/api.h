/* api.h: what a client says to an OpenAI-compatible server, and reads from it. */
#ifndef WEIR_ROUTER_CLIENT_API_H
#define WEIR_ROUTER_CLIENT_API_H

#include "common/json.h"
#include "router/client/exchange.h"

struct api_usage {
    int64_t n_prompt, n_completion; /* tokens; -1 until the server has told */
};

/* chunk: what one event of a stream adds. text and reasoning are appended to. */
struct chunk {
    struct buf *text, *reasoning; /* of choice 0; NULL: not wanted */
    struct api_usage usage;       /* kept while an event has none */
    bool has_output;              /* the event holds text, reasoning or a piece of a tool call */
    bool finished;                /* it has a finish_reason */
    bool last;                    /* it is [DONE] */
};

/* chunk_read: one event's data, of chat or completions. RC_PROTO: it is no chunk, or reports an error. */
MUST_USE enum rc chunk_read(struct str data, struct chunk *c, struct err *e);
/* api_check: RC_OK for a complete answer of 200; else RC_PROTO with "HTTP STATUS: " and the server's reason.
 */
MUST_USE enum rc api_check(const struct exchange *x, struct err *e);
/* api_ask: one request that is not streamed, and its answer parsed (*out is the caller's reference). Blocks
 * for at most limit_ms. body empty: GET. */
MUST_USE enum rc api_ask(const struct target *t, const char *path, const char *key, struct str body,
                         int64_t limit_ms, json_t **out, struct err *e);
/* api_model: the first model that the server lists; heap. */
MUST_USE enum rc api_model(const struct target *t, const char *key, char **model, struct err *e);
/* api_usage_read: the `usage` of an answer; leaves u alone if there is none. */
void api_usage_read(const json_t *answer, struct api_usage *u);
/* clean_text: appends text for a terminal: UTF-8, in which nothing but line ends and tabs controls anything.
 */
void clean_text(struct buf *out, struct str text);

#endif
