/* engine_flight.c: steps that overlap.
 *
 * Where a backend can wait for a step's tokens alone, the next step is planned and enqueued before they are there: each
 * decoding sequence goes on with a guess, which the device knows (batch.from_row), and its token is taken while the next
 * step runs. If that token ends the sequence, its row of the next step was computed in vain, and is passed over. */
#include "worker/engine_impl.h"

static void flight_swap(struct engine *e) {
    struct flight *f = &e->flight, old = *f;
    f->rows = e->rows;
    f->results = e->results;
    f->top_ids = e->top_ids;
    f->top_logprobs = e->top_logprobs;
    f->n_top_room = e->n_top_room;
    f->row_jobs = e->row_jobs;
    e->rows = old.rows;
    e->results = old.results;
    e->top_ids = old.top_ids;
    e->top_logprobs = old.top_logprobs;
    e->n_top_room = old.n_top_room;
    e->row_jobs = old.row_jobs;
}

bool flight_may(const struct engine *e, const struct step_plan *p) {
    /* With KV transfers blocks are read and written between steps, by who has not planned them. */
    if (!e->flight.seqs || e->kvx || e->extra || p->n_sample_rows == 0 || p->n_rows != p->n_sample_rows)
        return false;
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct req *r = p->rows[i].seq->req;
        if (r->constraint || r->beams || r->n_words || r->n_procs || req_penalises(r))
            return false;
    }
    return true;
}

/* A sequence that this step ends by its length gets no guess: it has nothing more to compute. */
void flight_start(struct engine *e, const struct step_plan *p) {
    struct flight *f = &e->flight;
    CHECK(!f->on);
    f->on = true;
    f->n_rows = p->n_rows;
    f->n_tokens = p->n_tokens;
    f->n_prefill_tokens = p->n_prefill_tokens;
    sched_computed(&e->sched);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        struct seq *q = f->seqs[i] = p->rows[i].seq;
        if (q->state == SEQ_ENDED)
            continue;
        e->sched.n_unsettled++;
        if (q->n_out + 1 < q->req->max_tokens && seq_known(q) + 1 < e->opts.max_len) {
            q->out[q->n_out++] = 0;
            q->guessed = true;
            q->from_row = i;
        }
    }
    flight_swap(e);
}

void flight_land(struct engine *e, uint64_t now_ns) {
    struct flight *f = &e->flight;
    uint64_t n_before = e->stats.generated_tokens;
    uint32_t n_procs = e->n_proc_rows; /* of the step behind */
    f->on = false;
    e->sched.n_unsettled = e->n_proc_rows = 0;
    flight_swap(e);
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct seq *q = f->seqs[i];
        if (q->guessed && q->from_row == i) { /* a sequence has one row */
            q->n_out--;
            q->guessed = false;
        }
        engine_take_token(e, q, i, now_ns);
    }
    flight_swap(e);
    e->n_proc_rows = n_procs;
    e->stats.steps++;
    e->stats.computed_tokens += f->n_tokens;
    stats_iteration(&e->stats, f->n_prefill_tokens + (uint32_t)(e->stats.generated_tokens - n_before));
}
