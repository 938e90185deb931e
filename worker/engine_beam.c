/* engine_beam.c: beam searches in the loop: rows in, and at the end their hypotheses as events. */
#include "worker/beam.h"
#include "worker/engine_impl.h"

void beams_forget(struct engine *e, struct req *r) {
    struct beam_cursor *c = beam_cursor(r->beam);
    if (!c->listed)
        return;
    struct req **at = &e->searched;
    while (*at != r)
        at = &beam_cursor((*at)->beam)->next;
    *at = c->next;
    c->listed = false;
}

static void list(struct engine *e, struct req *r) {
    struct req **at = &e->searched;
    while (*at)
        at = &beam_cursor((*at)->beam)->next;
    *at = r;
    *beam_cursor(r->beam) = (struct beam_cursor){.listed = true};
}

/* logits_of: a row's, where they are what is reported; NULL: log-probabilities are. A search has no processing, so
 * processed ones are the model's. */
static const float *logits_of(struct engine *e, const struct req *r, uint32_t row) {
    uint32_t mode = e->opts.logprobs_mode;
    if (r->n_logprobs < 0 || (mode != BE_RAW_LOGITS && mode != BE_PROCESSED_LOGITS))
        return NULL;
    if (!e->beam_logits)
        e->beam_logits = xcalloc(e->opts.n_vocab, sizeof *e->beam_logits);
    e->opts.ops->logits_get(e->opts.be, row, e->beam_logits);
    return e->beam_logits;
}

void beams_take(struct engine *e, struct seq *q, uint32_t i) {
    struct req *r = q->req;
    const struct sample_out *row = &e->results[i];
    if (row->id == BE_NO_TOKEN) {
        engine_end_all(e, r, FINISH_ERROR, row->nan ? engine_nan_message : "no token satisfies the constraints",
                       row->nan ? 500 : 400, false);
        return;
    }
    if (beam_row(&e->sched, q, row, logits_of(e, r, i)) && !beam_step(&e->sched, r))
        list(e, r);
}

/* report_token: the next event of r's search; r may end with it. Returns what it counts. */
static uint32_t report_token(struct engine *e, struct req *r, uint64_t now_ns) {
    struct beam_cursor *c = beam_cursor(r->beam);
    struct seq *q = &r->seqs[c->sample];
    bool stopped;
    uint32_t n = beam_length(r->beam, c->sample, &stopped), n_kept = r->n_logprobs > 0 ? (uint32_t)r->n_logprobs : 0;
    if (n == 0) { /* fewer hypotheses than asked for: nearly every logit was minus infinity */
        engine_end_all(e, r, FINISH_ERROR, "no token satisfies the constraints", 400, false);
        return 1;
    }
    struct beam_token x = beam_token(r->beam, c->token);
    struct token_out *t = out_event(e, q);
    t->token = x.id;
    t->index = c->token;
    out_first(e, t, q, now_ns);
    t->has_logprob = r->n_logprobs >= 0;
    t->logprob = t->raw_logprob = x.logprob;
    t->rank = x.rank;
    t->n_top = n_kept;
    t->top_ids = x.top_ids;
    t->top_logprobs = x.top_logprobs;
    e->stats.generated_tokens++;
    if (++c->token < n)
        return 1 + n_kept;
    t->finish = stopped ? FINISH_STOP : FINISH_LENGTH;
    t->stop_id = x.id; /* named by stop_reason, the primary end token too (api.md 8.4.3) */
    t->n_preempted = q->n_preempted;
    c->sample++;
    c->token = 0;
    engine_end(e, q, t->finish, NULL, 0, true);
    return 1 + n_kept;
}

void beams_report(struct engine *e, uint64_t now_ns) {
    uint32_t n_events = 0, n_counted = 0, n_firsts = e->n_firsts;
    while (e->searched && n_events < BEAM_EVENTS_MAX && n_counted < BEAM_TOPS_STEP_MAX &&
           e->n_firsts - n_firsts < BEAM_FIRSTS_MAX) {
        n_counted += report_token(e, e->searched, now_ns);
        n_events++;
    }
}
