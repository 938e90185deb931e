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

/* shown: what there is to show of a choice: of all its steps, or of those that have had no event yet. */
struct shown {
    struct buf content, reasoning;
    struct buf calls; /* entries of tool_calls; the last one may be open (tool_calls_close) */
    struct lp_columns lp;
};

/* The calls of a choice whose output is constrained to them (tool_calls.c). */
enum call_stage { CALL_SEEK = 0, CALL_NAME, CALL_KEY, CALL_ARGUMENTS };
struct tool_calls {
    enum call_stage stage;
    uint32_t n_calls;   /* begun */
    uint32_t n_entries; /* written: of the event when streaming, else of all */
    bool entry_open;    /* its arguments' string is not closed */
    unsigned n_quotes;
    size_t depth; /* within the arguments */
    bool in_string;
    char escape[12]; /* the escape being read */
    size_t n_escape;
    struct buf name;
};

struct choice {
    struct parse *parse; /* NULL: all text is content */
    struct detok detok;
    struct stop stop;
    bool gathers;       /* `shown` is here; else every step is an event, and the run's `step` will do for all */
    struct shown shown;
    struct tool_calls calls;
    bool deaf;         /* the call being read is not kept */
    uint32_t n_tokens;    /* sampled, stop tokens included */
    uint32_t n_reasoning; /* of these, read as reasoning or as its marks */
    uint32_t n_points; /* code points decoded so far: text_offset of the next token */
    double sum;        /* of raw log-probabilities, where samples are ranked by them */
    uint32_t n_waiting; /* streaming: steps since the last event */
    bool begun;         /* streaming: its first event is out */
    bool done, has_stop_id;
    enum gen_finish_reason reason;
    uint32_t stop_id;
    int stop_string; /* index of the one that matched, or -1 */
};

/* prompt_run: what came of a prompt, for an echo or for its log-probabilities. */
struct prompt_run {
    struct detok detok;   /* for offsets */
    uint32_t n_rows;      /* tokens seen */
    uint32_t n_points;    /* code points of the echo */
    uint32_t at_points;   /* of the tokens seen */
    struct lp_columns lp; /* entries before the choices' own */
    struct buf list;      /* of prompt_logprobs, without brackets */
};

struct gen_run {
    struct gen_req *r; /* owned */
    struct choice *choices; /* [n_choices]: all samples; choice = prompt * n_samples + sample */
    uint32_t n_choices, n_done;
    struct prompt_run *prompts; /* [n_prompts]; NULL where nothing is asked of them */
    struct pool_result *results; /* [n_prompts] of a pooling request; else NULL, as detok and stop are unused there */
    uint32_t *cached;     /* [n_prompts] tokens */
    struct buf kv;        /* kv_transfer_params of the answer; empty: null */
    bool began;           /* streaming: the first event is out */
    bool failed;          /* a log-probability was NaN */
    struct buf head;      /* what every event of the stream begins with, up to the choice's index */
    struct buf piece;     /* text of the step's token */
    struct buf text;      /* what of it is released */
    uint32_t at;          /* the choice whose text is being parsed */
    struct shown step;    /* streaming: of the step, for choices that do not gather */
    struct buf key;       /* a token's JSON string */
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
/* lp_list_add: one token of a prompt for prompt_logprobs (api.md 8.7.5). */
void lp_list_add(const struct gen_run *g, const struct gen_token *t, struct buf *out);
/* lp_write: the object around the entries, those of `before` (which may be NULL) first; null if the request
 * wants none. */
void lp_write(const struct gen_run *g, const struct lp_columns *before, const struct lp_columns *c,
              struct buf *out);

/* ---- echo.c (api.md 6.2.3, 7.4.5) */

void echo_start(struct gen_run *g);
void echo_fini(struct gen_run *g);
/* echo_of: what a choice begins with; empty for nothing. */
struct str echo_of(const struct gen_run *g, uint32_t choice);
/* echo_columns: the prompt's entries before a choice's own; NULL: none. */
static inline const struct lp_columns *echo_columns(const struct gen_run *g, uint32_t choice) {
    return g->r->echo && g->prompts ? &g->prompts[choice / g->r->n_samples].lp : NULL;
}
/* echo_text_write: the echo and a choice's text, as one JSON string. */
void echo_text_write(const struct gen_run *g, uint32_t choice, struct str text, struct buf *out);
/* echo_list_write: the value of prompt_logprobs. */
void echo_list_write(const struct gen_run *g, uint32_t prompt, struct buf *out);

/* ---- samples.c (api.md 8.2) */

/* samples_order: [n_samples] the prompt's samples in the order in which they are shown. */
void samples_order(const struct gen_run *g, uint32_t prompt, uint32_t *order);

/* ---- events.c (api.md 6.3, 7.5) */

/* events_head: fills g->head. */
void events_head(struct gen_run *g);
/* event_roles: chat: the first chunk of every choice. */
void event_roles(const struct gen_run *g, struct buf *sse);
/* event_step: the chunk of a step, or of several; the final one when c->done. The first of a completion's choice also
 * shows the prompt and its entries, if they are echoed. */
void event_step(const struct gen_run *g, uint32_t choice, const struct shown *p, struct buf *sse);
/* event_end: the usage chunk if asked for, and [DONE]. */
void event_end(const struct gen_run *g, struct buf *sse);

/* ---- tool_calls.c (api.md 11.1) */

/* Entries of tool_calls, joined by commas, are appended to out: when streaming those of the event, else all; the
 * last one stays open for more. tool_calls_take: content of a choice that is constrained to calls.
 * tool_calls_begin, tool_calls_arguments: what a parser found. */
void tool_calls_take(const struct gen_run *g, struct tool_calls *t, struct str text, struct buf *out);
void tool_calls_begin(const struct gen_run *g, struct tool_calls *t, struct str name, struct buf *out);
void tool_calls_arguments(struct tool_calls *t, struct str text, struct buf *out);
/* tool_calls_close: closes the last entry: when streaming before an event, else at the end. */
void tool_calls_close(struct tool_calls *t, struct buf *out);
void tool_calls_fini(struct tool_calls *t);

/* ---- take.c: text to content, reasoning and calls */

/* take_start: the parser of a choice, if the request has one. */
void take_start(struct gen_run *g, struct choice *c);
/* take_text: g->text, of a step of this choice, to what is shown of it. */
void take_text(struct gen_run *g, uint32_t choice);

/* shown_of: of a choice: its own, or the run's. */
static inline struct shown *shown_of(struct gen_run *g, struct choice *c) {
    return c->gathers ? &c->shown : &g->step;
}
void shown_clear(struct shown *p);
void shown_fini(struct shown *p);
/* shown_empty: there is nothing to show; log-probabilities alone do not count. */
bool shown_empty(const struct shown *p);

/* ---- body.c (api.md 6.2, 7.4, 8.12) */

void body_write(const struct gen_run *g, struct buf *out);
/* kv_write: the value of kv_transfer_params. */
void kv_write(const struct gen_run *g, struct buf *out);
/* usage_write: the object for these counts. */
void usage_write(const struct gen_req *r, struct gen_counts n, struct buf *out);
/* finish_write: `"finish_reason":...,"stop_reason":...`. */
void finish_write(const struct gen_run *g, const struct choice *c, struct buf *out);

#endif
