/* engine.c: the loop: take commands, plan, compute, sample, report. */
#include "worker/engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "worker/engine_impl.h"
#include "worker/engine_kvx.h"

_Static_assert((int)KV_TOKENS == (int)KV_BLOCK_TOKENS && (int)KV_TOKENS == (int)HASH_BLOCK_TOKENS,
               "one block size");
_Static_assert((int)KV_GROUPS_MAX == (int)BE_GROUPS_MAX && SEQ_NO_TOKEN == BE_NO_TOKEN,
               "as the backend has it");

/* ---- live requests
 * -------------------------------------------------------------------------------------------- */

static struct req **bucket_of(struct engine *e, struct id128 id) {
    return &e->buckets[hash_fast(id.b, sizeof id.b, e->hash_seed) & (e->n_buckets - 1)];
}

static void live_add(struct engine *e, struct req *r) {
    struct req **bucket = bucket_of(e, r->id);
    r->hash_next = *bucket;
    *bucket = r;
    r->next = e->live;
    r->prev = NULL;
    if (e->live)
        e->live->prev = r;
    e->live = r;
    if (r->deadline_ns)
        e->next_deadline_ns = MIN(e->next_deadline_ns, r->deadline_ns);
}

static void compiling_remove(struct engine *e, struct req *r) {
    struct req **at = &e->compiling;
    while (*at != r)
        at = &(*at)->compile_next;
    *at = r->compile_next;
    r->compiling = false;
}

static void live_remove(struct engine *e, struct req *r) {
    struct req **at = bucket_of(e, r->id);
    while (*at != r)
        at = &(*at)->hash_next;
    *at = r->hash_next;
    if (r->compiling)
        compiling_remove(e, r);
    if (r->beam)
        beams_forget(e, r);
    sched_left(&e->sched, r);
    kvx_forget(e, r);
    if (r->next)
        r->next->prev = r->prev;
    if (r->prev)
        r->prev->next = r->next;
    else
        e->live = r->next;
    r->next = e->ended;
    e->ended = r;
}

void engine_end(struct engine *e, struct seq *q, enum finish_reason why, const char *message, uint32_t status,
                bool quiet) {
    struct req *r = q->req;
    if (q->guessed) { /* it ends without the token that is under way */
        q->n_out--;
        q->guessed = false;
    }
    q->finish = why;
    kvx_ended(e, q, why);
    e->stats.finished[why]++;
    if (!quiet) {
        struct token_out *t = out_event(e, q);
        t->finish = why;
        t->message = message;
        t->status = status;
        t->n_preempted = q->n_preempted;
        if (why == FINISH_LENGTH) /* of a prompt alone: its logprobs go with it */
            out_first(e, t, q, clock_ns());
    }
    gram_run_free(q->run);
    q->run = NULL;
    if (q->state == SEQ_NEW) { /* the scheduler does not know it */
        q->state = SEQ_ENDED;
        r->n_live--;
    } else {
        sched_end(&e->sched, q);
    }
    if (r->n_live == 0)
        live_remove(e, r);
}

void engine_end_all(struct engine *e, struct req *r, enum finish_reason why, const char *message,
                    uint32_t status, bool quiet) {
    /* r lives until out_flush, whichever of its samples is the last. */
    for (uint32_t k = 0; k < r->n_samples; k++)
        if (r->seqs[k].state != SEQ_ENDED)
            engine_end(e, &r->seqs[k], why, message, status, quiet);
}

static void end_expired(struct engine *e, uint64_t now_ns) {
    if (now_ns < e->next_deadline_ns)
        return;
    e->next_deadline_ns = UINT64_MAX;
    for (struct req *r = e->live, *next; r; r = next) {
        next = r->next;
        if (r->deadline_ns == 0)
            continue;
        if (r->deadline_ns <= now_ns)
            engine_end_all(e, r, FINISH_ERROR, "the request took longer than its limit", 504, false);
        else
            e->next_deadline_ns = MIN(e->next_deadline_ns, r->deadline_ns);
    }
}

/* ---- commands
 * ------------------------------------------------------------------------------------------------- */

static void do_abort(struct engine *e, const struct cmd *c) {
    for (struct req *r = *bucket_of(e, c->id); r; r = r->hash_next) {
        if (!id128_eq(r->id, c->id) || r->router != c->router || r->router_epoch != c->router_epoch)
            continue;
        uint64_t k = c->stream - r->stream;
        if (c->transfer)
            kvx_pull_stop(r);
        else if (c->whole || r->beams)
            engine_end_all(e, r, FINISH_ABORT, NULL, 0, false);
        else if (k < r->n_samples && r->seqs[k].state != SEQ_ENDED)
            engine_end(e, &r->seqs[k], FINISH_ABORT, NULL, 0, false);
        return;
    }
    if (c->whole)
        kvx_aborted(e, c->id, c->router, c->router_epoch);
}

static void do_control(struct engine *e, const struct cmd *c) {
    if (c->control == ENGINE_KV_SNAPSHOT) {
        if (e->opts.kv_events)
            kv_walk_begin(&e->kv_walks, c->router, c->router_epoch);
        return;
    }
    bool ok = c->control == ENGINE_RESET_PREFIX_CACHE;
    if (ok)
        sched_reset_prefix(&e->sched);
    if (e->opts.on_control)
        e->opts.on_control(e->opts.arg, c->router, c->router_epoch, c->control_id, ok);
}

void engine_release(struct engine *e, struct req *r) {
    if (r->constraint) {
        r->compiling = true;
        r->compile_next = e->compiling;
        e->compiling = r;
    } else {
        sched_add(&e->sched, r);
    }
}

static void do_submit(struct engine *e, struct req *r) {
    live_add(e, r);
    sched_arrive(&e->sched, r);
    if (!kvx_begin(e, r))
        engine_release(e, r);
    if (e->failed)
        engine_end_all(e, r, FINISH_ERROR, "the device failed", 503, false);
}

/* admit_compiled: requests whose grammar is there now join the queue; its order is by arrival, so they lose
 * no place by the wait. */
static void admit_compiled(struct engine *e) {
    for (struct req *r = e->compiling, *next; r; r = next) {
        const struct err *why = NULL;
        enum constraint_state s = constraint_state(r->constraint, &why);
        next = r->compile_next;
        if (s == CONSTRAINT_PENDING)
            continue;
        if (s == CONSTRAINT_FAILED) {
            engine_end_all(e, r, FINISH_ERROR, why->msg, why->rc == RC_INTERNAL ? 500 : 400, false);
            continue;
        }
        compiling_remove(e, r);
        sched_add(&e->sched, r);
    }
}

static void do_drops(struct engine *e) {
    for (struct req *r = e->live, *next; r; r = next) {
        next = r->next;
        if (r->router_epoch < e->drop_below[r->router])
            engine_end_all(e, r, FINISH_ABORT, NULL, 0, true);
    }
    for (uint32_t i = 0; i < e->opts.n_routers_max; i++)
        if (e->drop_below[i]) {
            out_forget(e, i, e->drop_below[i]);
            kv_walks_forget(&e->kv_walks, i, e->drop_below[i]);
        }
}

/* check_idle: with nobody there, nothing may be held but for other workers. */
static void check_idle(const struct engine *e) {
    const struct sched *s = &e->sched;
    CHECK(!e->live && s->n_pending == 0 && s->n_seats_free == s->n_seats);
    for (uint32_t g = 0; g < s->opts.n_groups; g++)
        CHECK(s->pool[g].n_used <= s->n_kept[g] && (s->pool[g].n_used > 0) == (s->n_kept[g] > 0));
}

/* tell_drained: once, when nothing is left and nothing can come. */
static void tell_drained(struct engine *e) {
    if (e->drained_told)
        return;
    pthread_mutex_lock(&e->inbox.lock);
    bool done = e->inbox.draining && e->inbox.n_live == 0 && !(e->kvx && e->kvx->n_open);
    pthread_mutex_unlock(&e->inbox.lock);
    if (!done)
        return;
    e->drained_told = true;
    if (e->opts.on_drained)
        e->opts.on_drained(e->opts.arg);
}

/* take_commands: false when the engine is to stop. Sleeps while there is nothing to do. */
static bool take_commands(struct engine *e) {
    struct inbox *b = &e->inbox;
    bool idle = sched_idle(&e->sched) && !e->searched && !e->flight.on, dropped;
    const bool busy = kvx_run(e); /* what became of it is published before the engine sleeps */
    idle &= sched_idle(&e->sched);
    if (idle && !e->compiling && !kvx_waits(e)) {
        check_idle(e);
        tell_drained(e);
    }
    uint64_t until_ns = idle && e->kv_walks.n == 0 && !e->ended && !busy ? e->kvx ? e->kvx->wake_ns : UINT64_MAX : 0;
    uint32_t n = inbox_take(b, until_ns, e->drop_below, e->opts.n_routers_max, &dropped);
    if (idle) /* from now on a step is due */
        e->stats.step_done_ns = clock_ns();
    for (uint32_t i = 0; i < n; i++) {
        const struct cmd *c = &b->out[i];
        if (c->kind == CMD_SUBMIT)
            do_submit(e, c->req);
        else if (c->kind == CMD_ABORT)
            do_abort(e, c);
        else
            do_control(e, c);
    }
    if (dropped)
        do_drops(e);
    if (e->compiling)
        admit_compiled(e);
    pthread_mutex_lock(&b->lock);
    bool stopping = b->stopping;
    pthread_mutex_unlock(&b->lock);
    return !stopping;
}

/* ---- a step
 * --------------------------------------------------------------------------------------------------- */

static void copy_blocks(struct engine *e, const struct step_plan *p) {
    for (uint32_t i = 0, n; i < p->n_copies; i += n) {
        uint32_t g = p->copies[i].group;
        for (n = 0; i + n < p->n_copies && p->copies[i + n].group == g; n++)
            e->copies[n] = (struct be_copy){.src = p->copies[i + n].src, .dst = p->copies[i + n].dst};
        if (e->opts.model.copies)
            e->opts.model.copies(e->opts.model.arg, g, e->copies, n);
        e->opts.ops->kv_copy(e->opts.be, e->kv[g], e->copies, n);
    }
}

static void forward(struct engine *e) {
    const struct batch_arrays *a = &e->arrays;
    struct batch b = {.n_tokens = a->n_tokens, .n_seqs = a->n_seqs, .n_rows = a->n_rows, .n_axes = 1};
    b.n_groups = a->n_groups;
    b.tokens = a->tokens;
    b.pos = a->pos;
    b.seq_start = a->seq_start;
    b.kv_len = a->kv_len;
    b.rows = a->rows;
    b.kind = e->kinds;
    b.token_type = a->has_types ? a->types : NULL;
    b.from_row = a->has_guesses ? a->from_row : NULL;
    for (uint32_t g = 0; g < a->n_groups; g++) {
        b.group[g].table = a->table[g];
        b.group[g].table_stride = a->table_stride;
        b.group[g].slot = a->slot[g];
    }
    e->opts.model.forward(e->opts.model.arg, &b);
}

/* make_top_room: the sampled rows' top logprobs need n entries in all. */
static void make_top_room(struct engine *e, size_t n) {
    if (n <= e->n_top_room)
        return;
    e->n_top_room = n;
    e->top_ids = xreallocarray(e->top_ids, n, sizeof *e->top_ids);
    e->top_logprobs = xreallocarray(e->top_logprobs, n, sizeof *e->top_logprobs);
}

/* start_masks: of the rows to be sampled; helpers work on them while the model computes. */
static void start_masks(struct engine *e, const struct step_plan *p) {
    if (!e->masks)
        return;
    for (uint32_t i = 0; i < p->n_sample_rows; i++)
        if (p->rows[i].seq->req->constraint)
            masks_add(e->masks, p->rows[i].seq, i);
    masks_start(e->masks);
}

static void finish_masks(struct engine *e, const struct step_plan *p) {
    uint32_t n;
    memset(e->row_jobs, 0, p->n_sample_rows * sizeof(struct mask_job *));
    if (!e->masks)
        return;
    const struct mask_job *jobs = masks_finish(e->masks, &n);
    for (uint32_t i = 0; i < n; i++) {
        e->row_jobs[jobs[i].row] = &jobs[i];
        if (jobs[i].mask)
            stats_mask(&e->stats, constraint_kind(jobs[i].q->req->constraint), jobs[i].ns);
    }
}

static void sample(struct engine *e, const struct step_plan *p) {
    const struct engine_opts *o = &e->opts;
    size_t n_top = 0;
    finish_masks(e, p);
    e->extra = false;
    for (uint32_t i = 0; i < p->n_sample_rows; i++) {
        const struct req *r = p->rows[i].seq->req;
        e->extra |= r->n_procs > 0 || r->want_raw;
        sample_row_fill(&e->rows[i], p->rows[i].seq, o->n_vocab, o->logprobs_mode);
        if (e->row_jobs[i] && e->row_jobs[i]->mask)
            e->rows[i].mask = e->row_jobs[i]->mask;
        n_top += e->rows[i].n_top;
    }
    make_top_room(e, n_top);
    n_top = 0;
    e->n_proc_rows = 0;
    if (e->extra)
        procs_before(e, p);
    for (uint32_t i = 0; i < p->n_sample_rows; i++) {
        e->results[i] = (struct sample_out){.id = BE_NO_TOKEN};
        e->results[i].top_ids = e->top_ids + n_top;
        e->results[i].top_logprobs = e->top_logprobs + n_top;
        n_top += e->rows[i].n_top;
    }
    for (uint32_t i = p->n_sample_rows; i < p->n_rows; i++) {
        const struct req *r = p->rows[i].seq->req;
        size_t at = p->rows[i].prompt_at, n = (uint32_t)r->n_prompt_logprobs;
        e->results[i] = (struct sample_out){.top_ids = r->prompt_top_ids + at * n};
        e->results[i].top_logprobs = r->prompt_top_logprobs + at * n;
        e->prompt_rows[i - p->n_sample_rows] = (struct op_row_logprobs){
            .row = i, .target = r->prompt[at], .n_top = (uint32_t)n, .out = &e->results[i]};
    }
    if (p->n_rows > p->n_sample_rows)
        o->ops->row_logprobs(o->be, e->prompt_rows, p->n_rows - p->n_sample_rows);
    if (p->n_sample_rows)
        o->ops->sample(o->be, e->rows, e->results, p->n_sample_rows);
}

const char engine_nan_message[] = "the model computed a logit that is not a number";

static void take_prompt_row(struct engine *e, const struct plan_row *row, const struct sample_out *s) {
    struct req *r = row->seq->req;
    if (s->nan)
        engine_end_all(e, r, FINISH_ERROR, engine_nan_message, 500, false);
    else
        r->prompt_logprobs[row->prompt_at] =
            (struct prompt_logprob){.id = s->id, .logprob = s->logprob, .rank = s->rank};
}

/* ends_quietly: the end token that stop_reason does not name: the model's primary one, or any that a
 * constraint demanded. */
static bool ends_quietly(const struct engine *e, const struct req *r, uint32_t id) {
    if (r->ignore_eos)
        return false;
    for (uint32_t i = 0; i < (r->constraint ? e->opts.n_eos_ids : MIN(e->opts.n_eos_ids, 1)); i++)
        if (e->eos_ids[i] == id)
            return true;
    return false;
}

/* add_token: to q's output and the events; ends q if that is the end. The event is valid until the next one.
 */
static struct token_out *add_token(struct engine *e, struct seq *q, uint32_t id, uint64_t now_ns) {
    struct token_out *t = out_event(e, q);
    t->token = id;
    out_first(e, t, q, now_ns);
    t->finish = seq_accept(q, id, e->opts.max_len);
    sample_note(q, id);
    e->stats.generated_tokens++;
    if (t->finish == FINISH_NONE)
        return t;
    if (t->finish == FINISH_STOP) {
        t->stop_id = id;
        t->eos = ends_quietly(e, q->req, id);
    }
    t->n_preempted = q->n_preempted;
    engine_end(e, q, t->finish, NULL, 0, true);
    return t;
}

/* take_token: a sampled token becomes part of its sequence, and an event; with it what a constraint leaves no
 * choice about: those tokens are computed in the next step, all at once. */
void engine_take_token(struct engine *e, struct seq *q, uint32_t i, uint64_t now_ns) {
    const struct sample_row *row = &e->rows[i];
    const struct sample_out *s = &e->results[i];
    const struct mask_job *job = e->row_jobs[i];
    if (q->state == SEQ_ENDED) /* another row of its request failed */
        return;
    if (q->req->beams) {
        beams_take(e, q, i);
        return;
    }
    if (job && job->why.rc != RC_OK) {
        engine_end(e, q, FINISH_ERROR, job->why.msg, job->why.rc == RC_OVERLOAD ? 400 : 500, false);
        return;
    }
    uint32_t status;
    const char *failed = e->n_proc_rows ? procs_failed(e, i, &status) : NULL;
    if (failed) {
        engine_end(e, q, FINISH_ERROR, failed, status, false);
        return;
    }
    if (s->id == BE_NO_TOKEN) {
        bool nan = s->nan;
        engine_end(e, q, FINISH_ERROR, nan ? engine_nan_message : "no token satisfies the constraints",
                   nan ? 500 : 400, false);
        return;
    }
    CHECK(!job || !job->n_forced || job->forced[0] == s->id);
    struct token_out *t = add_token(e, q, s->id, now_ns);
    t->has_logprob = row->want_logprob;
    t->logprob = t->raw_logprob = s->logprob;
    if (q->req->want_raw && e->opts.logprobs_mode != BE_RAW_LOGPROBS)
        t->raw_logprob = e->raw_results[i].logprob;
    t->rank = s->rank;
    t->n_top = row->n_top;
    t->top_ids = s->top_ids;
    t->top_logprobs = s->top_logprobs;
    for (uint32_t k = 1; job && k < job->n_forced && q->state != SEQ_ENDED; k++)
        add_token(e, q, job->forced[k], now_ns);
}

/* end_prompt: the prompt is computed, and that was all that was asked for. */
static void end_prompt(struct engine *e, struct seq *q) {
    struct req *r = q->req;
    if (r->pool.kind == POOL_NONE) {
        engine_end(e, q, FINISH_LENGTH, NULL, 0, false);
        return;
    }
    uint32_t rows, cols;
    const float *v = pooling_finish(r->pool_state, &rows, &cols);
    if (!v) {
        engine_end(e, q, FINISH_ERROR, "the model computed a value that is not a number", 500, false);
        return;
    }
    struct token_out *t = out_event(e, q);
    t->finish = FINISH_STOP;
    t->pool = v;
    t->pool_rows = rows;
    t->pool_cols = cols;
    e->stats.prompt_tokens += r->n_prompt;
    e->stats.prompt_tokens_cached += r->n_cached;
    engine_end(e, q, FINISH_STOP, NULL, 0, true);
}

static void take_results(struct engine *e, const struct step_plan *p, uint64_t now_ns) {
    for (uint32_t i = p->n_sample_rows; i < p->n_rows; i++)
        if (p->rows[i].seq->state != SEQ_ENDED)
            take_prompt_row(e, &p->rows[i], &e->results[i]);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        struct seq *q = p->entries[i].seq;
        if (q->state != SEQ_ENDED && seq_prompt_only(q) && q->n_computed == seq_known(q))
            end_prompt(e, q);
    }
    for (uint32_t i = 0; i < p->n_sample_rows; i++)
        engine_take_token(e, p->rows[i].seq, i, now_ns);
}

void engine_fail(struct engine *e, const char *message) {
    LOG(LOG_ERROR, "the device failed", F_STR("reason", message));
    e->failed = true;
    pthread_mutex_lock(&e->inbox.lock);
    e->inbox.failed = true;
    pthread_mutex_unlock(&e->inbox.lock);
    while (e->live)
        engine_end_all(e, e->live, FINISH_ERROR, "the device failed", 503, false);
    out_flush(e);
    stats_publish(e, 0, clock_ns());
    if (e->opts.on_failed)
        e->opts.on_failed(e->opts.arg, message);
}

/* finish: waits for the planned step and takes what it brought. False: the device failed. */
static bool finish(struct engine *e, const struct step_plan *p, char why[BE_ERR_BYTES]) {
    if (e->opts.ops->wait(e->opts.be, why) || (e->extra && !procs_after(e, p, why)))
        return false;
    uint64_t now_ns = clock_ns();
    if (e->flight.on)
        flight_land(e, now_ns);
    if (e->opts.pooler)
        engine_pool(e, p);
    uint64_t n_before = e->stats.generated_tokens;
    sched_computed(&e->sched);
    kvx_computed(e);
    take_results(e, p, now_ns);
    e->stats.steps++;
    e->stats.computed_tokens += p->n_tokens;
    stats_iteration(&e->stats, p->n_prefill_tokens + (uint32_t)(e->stats.generated_tokens - n_before));
    return true;
}

/* go_on: the planned step stays under way; the tokens of the one before are taken meanwhile. False: the device failed. */
static bool go_on(struct engine *e, const struct step_plan *p, char why[BE_ERR_BYTES]) {
    if (e->flight.on && e->opts.ops->wait_sampled(e->opts.be, 1, why))
        return false;
    if (e->flight.on)
        flight_land(e, clock_ns());
    flight_start(e, p);
    return true;
}

static bool land_last(struct engine *e, char why[BE_ERR_BYTES]) {
    if (e->flight.on && e->opts.ops->wait(e->opts.be, why))
        return false;
    if (e->flight.on)
        flight_land(e, clock_ns());
    return true;
}

static void step(struct engine *e) {
    char why[BE_ERR_BYTES] = "";
    bool alive;
    uint64_t now_ns = clock_ns();
    end_expired(e, now_ns);
    const struct step_plan *p = sched_plan(&e->sched, now_ns);
    if (p->n_entries > 0) {
        stats_publish(e, p->n_tokens, e->stats.step_done_ns ? e->stats.step_done_ns : now_ns);
        batch_build(&e->arrays, &e->sched, p);
        if (e->opts.model.gathers)
            engine_pool_rows(e, p);
        copy_blocks(e, p);
        start_masks(e, p);
        forward(e);
        sample(e, p);
        alive = flight_may(e, p) ? go_on(e, p, why) : finish(e, p, why);
    } else {
        alive = land_last(e, why);
    }
    if (!alive) {
        e->flight.on = false;
        engine_fail(e, why);
        return;
    }
    now_ns = clock_ns();
    if (e->searched)
        beams_report(e, now_ns);
    /* Before the report, so that whoever learns of an end finds the gauges down. */
    stats_publish(e, 0, now_ns);
    out_flush(e);
}

void *engine_main(void *arg) {
    struct engine *e = arg;
    char why[BE_ERR_BYTES];
    while (take_commands(e))
        step(e);
    if (e->flight.on) /* what it writes its results to is freed below */
        (void)!e->opts.ops->wait(e->opts.be, why);
    e->flight.on = false;
    while (e->live)
        engine_end_all(e, e->live, FINISH_ABORT, NULL, 0, false);
    kvx_halt(e);
    stats_publish(e, 0, clock_ns());
    out_flush(e);
    return NULL;
}
