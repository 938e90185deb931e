/* run.h: the state of a running generation, and the writers of its events and bodies. Inside router/api only.
 */
#ifndef WEIR_ROUTER_API_RUN_H
#define WEIR_ROUTER_API_RUN_H

#include "common/json.h"
#include "router/api/gen.h"
#include "router/api/pool.h"

/* Entries of log-probabilities as JSON without the brackets around them, one per token, joined by commas.
 * Completions use all four columns, chat only `tokens`, which then holds whole objects. */
struct lp_columns {
    struct buf offsets, logprobs, tokens, tops;
};

/* The calls of a choice whose output is constrained to them (tool_calls.c). */
enum call_stage { CALL_SEEK = 0, CALL_NAME, CALL_KEY, CALL_ARGUMENTS };
struct tool_calls {
    enum call_stage stage;
    uint32_t n_calls;   /* begun */
    uint32_t n_entries; /* written: of the step when streaming, else of all */
    bool entry_open;    /* its arguments' string is not closed */
    unsigned n_quotes;
    size_t depth; /* within the arguments */
    bool in_string;
    char escape[12]; /* the escape being read */
    size_t n_escape;
    struct buf name;
};

struct choice {
    struct detok detok;
    struct stop stop;
    struct buf text;      /* not streaming: what was released so far; with calls, their JSON */
    struct lp_columns lp; /* not streaming */
    struct tool_calls calls;
    uint32_t n_tokens; /* sampled, stop tokens included */
    uint32_t n_points; /* code points decoded so far: text_offset of the next token */
    bool done, has_stop_id;
    enum gen_finish_reason reason;
    uint32_t stop_id;
    int stop_string; /* index of the one that matched, or -1 */
};

struct gen_run {
    struct gen_req *r; /* owned */
    struct choice *choices;
    uint32_t n_choices, n_done;
    struct pool_result *results; /* [n_prompts] of a pooling request; else NULL, as detok and stop are unused there */
    uint32_t *cached;     /* [n_prompts] tokens */
    bool began;           /* streaming: the first event is out */
    bool failed;          /* a log-probability was NaN */
    struct buf head;      /* what every event of the stream begins with, up to the choice's index */
    struct buf piece;     /* text of the step's token */
    struct buf text;      /* what of it is released */
    struct buf calls;     /* streaming: the step's entries of tool_calls */
    struct buf key;       /* a token's JSON string */
    struct lp_columns lp; /* streaming: of the step */
    uint32_t *seen;       /* [n_seen] hash table over a token's keys: positions in `tops` plus 1 */
    uint32_t n_seen;      /* power of two */
};

/* ---- logprobs.c (api.md 8.7) */

/* lp_printable: whether all numbers of t can be written. */
bool lp_printable(const struct gen_token *t);
/* lp_add: one entry, for the run's route; offset as `n_points`. */
void lp_add(struct gen_run *g, const struct gen_token *t, uint32_t offset, struct lp_columns *to);
void lp_clear(struct lp_columns *c);
void lp_fini(struct lp_columns *c);
/* lp_write: the object around the entries; null if the request wants none. */
void lp_write(const struct gen_run *g, const struct lp_columns *c, struct buf *out);

/* ---- events.c (api.md 6.3, 7.5) */

/* events_head: fills g->head. */
void events_head(struct gen_run *g);
/* event_roles: chat: the first chunk of every choice. */
void event_roles(const struct gen_run *g, struct buf *sse);
/* event_step: the chunk of a step; the final one when c->done. has_lp: g->lp holds the step's entry. */
void event_step(const struct gen_run *g, uint32_t choice, struct str text, bool has_lp, struct buf *sse);
/* event_end: the usage chunk if asked for, and [DONE]. */
void event_end(const struct gen_run *g, struct buf *sse);

/* ---- tool_calls.c (api.md 11.1) */

/* tool_calls_take: released text of a choice; appends entries of tool_calls, joined by commas: when streaming
 * those of the step, else the last one stays open for more. */
void tool_calls_take(const struct gen_run *g, struct tool_calls *t, struct str text, struct buf *out);
/* tool_calls_end: not streaming: closes the last entry. */
void tool_calls_end(struct tool_calls *t, struct buf *out);
void tool_calls_fini(struct tool_calls *t);

/* ---- body.c (api.md 6.2, 7.4, 8.12) */

void body_write(const struct gen_run *g, struct buf *out);
/* usage_write: the object for these counts. */
void usage_write(const struct gen_req *r, struct gen_counts n, struct buf *out);
/* finish_write: `"finish_reason":...,"stop_reason":...`. */
void finish_write(const struct gen_run *g, const struct choice *c, struct buf *out);

#endif
