#include "router/api/run.h"

#include <stdlib.h>

#include "common/utf8.h"
#include "router/api/error.h"

enum {
    PROMPT_TAIL = 16,     /* ids that the detokeniser sees of the prompt */
    GATHER_BYTES_MAX = MIB /* of log-probabilities: more do not wait for their --stream-interval */
};

struct gen_run *gen_run_new(struct gen_req *r) {
    struct gen_run *g = xcalloc(1, sizeof *g);
    g->r = r;
    g->n_choices = r->n_prompts * r->n_samples;
    g->choices = xcalloc(g->n_choices, sizeof *g->choices);
    g->cached = xcalloc(r->n_prompts, sizeof *g->cached);
    if (r->pool) {
        g->results = xcalloc(r->n_prompts, sizeof *g->results);
        return g;
    }
    for (uint32_t i = 0; i < g->n_choices; i++) {
        struct choice *c = &g->choices[i];
        const struct gen_prompt *p = &r->prompts[i / r->n_samples];
        uint32_t tail = MIN(p->n_ids, (uint32_t)PROMPT_TAIL);
        detok_init(&c->detok, r->model->tok, p->ids + p->n_ids - tail, tail, r->skip_special,
                   r->spaces_between_special);
        stop_init(&c->stop, r->stop, r->include_stop);
        c->stop_string = -1;
        take_start(g, c);
        c->gathers = !r->stream || c->parse || r->stream_interval > 1;
    }
    echo_start(g);
    for (uint32_t i = 0; r->echo && r->route == GEN_COMPLETIONS && i < g->n_choices; i++)
        g->choices[i].n_points = g->prompts[i / r->n_samples].n_points;
    if (r->logprobs && r->route == GEN_COMPLETIONS) {
        for (g->n_seen = 8; g->n_seen < 2 * (r->n_top + 2);)
            g->n_seen *= 2;
        g->seen = xcalloc(g->n_seen, sizeof *g->seen);
    }
    buf_reserve(&g->piece, 64);
    buf_reserve(&g->text, 64);
    if (r->stream)
        events_head(g);
    return g;
}

void gen_run_free(struct gen_run *g) {
    if (!g)
        return;
    for (uint32_t i = 0; g->results && i < g->r->n_prompts; i++)
        free(g->results[i].v);
    free(g->results);
    for (uint32_t i = 0; !g->r->pool && i < g->n_choices; i++) {
        stop_fini(&g->choices[i].stop);
        parse_free(g->choices[i].parse);
        shown_fini(&g->choices[i].shown);
        tool_calls_fini(&g->choices[i].calls);
    }
    echo_fini(g);
    buf_fini(&g->kv);
    buf_fini(&g->head);
    buf_fini(&g->piece);
    buf_fini(&g->text);
    buf_fini(&g->key);
    shown_fini(&g->step);
    free(g->seen);
    free(g->cached);
    free(g->choices);
    gen_req_free(g->r);
    free(g);
}

const char *gen_route_word(enum gen_route route) {
    static const char *const words[N_GEN_ROUTE] = {"completions", "chat",  "embeddings", "pooling",
                                                   "classify",    "score", "rerank"};
    return words[route];
}

const struct gen_req *gen_run_req(const struct gen_run *g) {
    return g->r;
}

bool gen_run_done(const struct gen_run *g) {
    return g->n_done == g->n_choices;
}

void gen_on_first(struct gen_run *g, uint32_t choice, const struct gen_first *f) {
    CHECK(choice < g->n_choices);
    uint32_t prompt = choice / g->r->n_samples;
    if (choice % g->r->n_samples == 0) /* the other samples share the prompt's KV: what they found is no reuse of
                                          earlier work */
        g->cached[prompt] = MIN(f->cached_tokens, g->r->prompts[prompt].n_ids);
}

/* decode_token: its text. A special token that is hidden, and a mark to the parser, leaves its byte. */
static void decode_token(const struct gen_req *r, struct detok *d, uint32_t id, struct buf *out) {
    detok_push(d, id, out);
    for (uint32_t i = 0; i < r->parse.n_marks; i++)
        if (id == r->parse.mark_ids[i])
            buf_addc(out, r->parse.mark_bytes[i]);
}

/* decode: the step's text to g->text: decoded, and cut at a stop string. Returns the index of one that
 * matched, else -1. */
static int decode(struct gen_run *g, struct choice *c, const struct gen_token *token,
                  const struct gen_finish *finish) {
    const struct gen_req *r = g->r;
    bool stop_token =
        finish && finish->reason == GEN_STOP; /* tested before stop strings, its text left out (api.md 8.6) */
    g->piece.len = g->text.len = 0;
    if (token && token->id < tok_vocab_size(r->model->tok) && (!stop_token || r->include_stop))
        decode_token(r, &c->detok, token->id, &g->piece);
    if (finish)
        detok_finish(&c->detok, &g->piece);
    if (r->logprobs)
        c->n_points += (uint32_t)utf8_count(g->piece.data, g->piece.len);
    if (!r->stop) {
        struct buf swap = g->text;
        g->text = g->piece;
        g->piece = swap;
        return -1;
    }
    int match = stop_push(&c->stop, g->piece.data, g->piece.len, c->n_tokens > r->min_tokens && !stop_token,
                          &g->text);
    if (finish && match < 0)
        stop_flush(&c->stop, &g->text);
    return match;
}

static void end_choice(struct gen_run *g, struct choice *c, int match, const struct gen_finish *finish) {
    c->done = true;
    c->stop_string = match;
    c->reason = match >= 0 ? GEN_STOP : finish->reason;
    c->has_stop_id = match < 0 && finish->reason == GEN_STOP && finish->has_stop_id;
    c->stop_id = c->has_stop_id ? finish->stop_id : 0;
    g->n_done++;
}

/* is_due: whether a step of a stream ends an event (api.md 2.9.3): the choice's first and its last do, the others
 * by --stream-interval; not while a parser holds everything back. */
static bool is_due(const struct gen_req *r, const struct choice *c, const struct shown *p) {
    if (c->done)
        return true;
    if (c->parse && shown_empty(p))
        return false;
    return !c->begun || c->n_waiting >= r->stream_interval || p->lp.tokens.len + p->lp.tops.len > GATHER_BYTES_MAX;
}

static void show(struct gen_run *g, uint32_t choice, struct shown *p, struct buf *sse) {
    struct choice *c = &g->choices[choice];
    event_step(g, choice, p, sse);
    shown_clear(p);
    c->calls.n_entries = 0;
    c->n_waiting = 0;
    c->begun = true;
}

enum gen_action gen_on_step(struct gen_run *g, uint32_t choice, const struct gen_token *token,
                            const struct gen_finish *finish, struct buf *sse) {
    CHECK(choice < g->n_choices);
    const struct gen_req *r = g->r;
    struct choice *c = &g->choices[choice];
    if (c->done || g->failed || (!token && !finish))
        return GEN_CONTINUE;
    if (r->beams && finish && finish->reason == GEN_STOP && !r->include_stop)
        token = NULL; /* the end token ranks a hypothesis and is not of its text (api.md 8.4.3) */
    if (token && r->logprobs && !lp_printable(token)) {
        g->failed = true;
        g->n_done = g->n_choices;
        return GEN_FAILED;
    }
    if (r->stream && !g->began && r->route == GEN_CHAT)
        event_roles(g, sse);
    g->began = true;
    struct shown *p = shown_of(g, c);
    if (token && r->logprobs)
        lp_add(g, token, c->n_points, &p->lp);
    if (token && r->sums)
        c->sum += token->raw_logprob;
    c->n_tokens += token != NULL;
    int match = decode(g, c, token, finish);
    if (finish || match >= 0)
        end_choice(g, c, match, finish);
    bool reasons = c->parse && parse_reasons(c->parse);
    take_text(g, choice);
    c->n_reasoning += token && c->parse && (reasons || parse_reasons(c->parse));
    c->n_waiting++;
    bool due = r->stream && is_due(r, c, p);
    if (due || c->done)
        tool_calls_close(&c->calls, &p->calls);
    if (due)
        show(g, choice, p, sse);
    return match >= 0 && !finish ? GEN_CUT : GEN_CONTINUE;
}

struct gen_counts gen_run_counts(const struct gen_run *g) {
    struct gen_counts n = {0};
    for (uint32_t i = 0; i < g->r->n_prompts; i++) {
        n.prompt_tokens += g->r->prompts[i].n_ids;
        n.cached_tokens += g->cached[i];
    }
    for (uint32_t i = 0; i < g->n_choices; i++) {
        n.completion_tokens += g->choices[i].n_tokens;
        n.reasoning_tokens += g->choices[i].n_reasoning;
    }
    return n;
}

void gen_on_kv(struct gen_run *g, struct id128 request, const struct kv_reply *r) {
    if (!g->r->kv.offer || g->kv.len)
        return;
    kv_reply_write(r, request, &g->kv);
}

enum rc gen_on_end(struct gen_run *g, struct buf *out, struct err *e) {
    CHECK(gen_run_done(g));
    if (g->failed)
        return err_set(e, RC_INTERNAL, NULL, "the model gave a log-probability that is not a number");
    if (g->r->pool)
        pool_body_write(g, out);
    else if (g->r->stream)
        event_end(g, out);
    else
        body_write(g, out);
    return RC_OK;
}

void gen_error_event(const struct err *e, struct buf *sse) {
    buf_addz(sse, "data: ");
    api_error_body(e, sse);
    buf_addz(sse, "\n\ndata: [DONE]\n\n");
}
