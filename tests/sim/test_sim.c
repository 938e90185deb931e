/* test_sim.c: the scheduler, its blocks and its prefix cache under virtual time.
 *
 * Each seed makes a small world: pools, limits, a workload with shared prefixes, samples, priorities and
 * people who leave. The device is simulated by its contents: a slot of a block holds a hash of all tokens up
 * to its position, written where the batch says and read where later batches look. A block shared, reused or
 * copied wrongly therefore shows as a wrong hash, and as wrong tokens, for a token is drawn from the hash.
 *
 * TEST_SCALE multiplies the 10,000 seeds; SIM_SEED runs one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "worker/batch.h"
#include "worker/sched.h"

enum { N_SEEDS = 10000, N_REQS_MAX = 24, N_SAMPLES_MAX = 8, N_VOCAB = 5, MAX_LEN = 160, STOP_TOKEN = 4 };
enum { N_BUDGET_DRAWN = 128, N_BUDGET_MAX = MAX_LEN, N_STEPS_MAX = 50000 };

struct rng {
    uint64_t s;
};
static uint32_t rnd(struct rng *r, uint32_t n) {
    r->s += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash_u64(r->s) % n);
}
static bool chance(struct rng *r, uint32_t percent) {
    return rnd(r, 100) < percent;
}

/* job: a request of the workload, and what became of it. */
struct job {
    struct req *req;
    uint32_t arrives; /* step */
    bool submitted;
    struct {
        uint32_t leaves;     /* step; UINT32_MAX: stays */
        uint32_t n_ends;     /* how often it ended */
        uint32_t n_rows;     /* sampled */
        uint32_t idle_steps; /* without work while it was first in order */
    } sample[N_SAMPLES_MAX];
    uint8_t *prompt_rows; /* [n_prompt] logprob rows seen */
};

struct world {
    uint64_t seed;
    struct rng rng;
    struct sched sched;
    struct batch_arrays batch;
    struct kv_group groups[2];
    uint64_t *slots[2]; /* [n_blocks * KV_TOKENS] contents */
    struct job jobs[N_REQS_MAX];
    uint32_t n_jobs, n_live, step;
    uint64_t n_hit_tokens, n_forks, n_copies, n_aborts, n_finished, n_preemptions;
};

static void die(const struct world *w, const char *what) {
    fprintf(stderr, "seed %llu, step %u: %s\n", (unsigned long long)w->seed, w->step, what);
    abort();
}
#define EXPECT(w, cond) ((cond) ? (void)0 : die((w), #cond))

/* ---- the world
 * ---------------------------------------------------------------------------------------------- */

static uint64_t extend(uint64_t h, uint32_t token) {
    return hash_u64(h * 31 + token + 1);
}

static uint64_t history_start(const struct req *r) {
    return r->domain[0] + 1000u;
}

static uint64_t history_of_prompt(const struct req *r) {
    uint64_t h = history_start(r);
    for (uint32_t i = 0; i < r->n_prompt; i++)
        h = extend(h, r->prompt[i]);
    return h;
}

/* draw: the token that follows a history, for a sample. */
static uint32_t draw(uint64_t history, const struct req *r, uint32_t sample) {
    return (uint32_t)(hash_u64(history ^ (r->seed + sample) * 0x9e3779b97f4a7c15ull) % N_VOCAB);
}

static void make_groups(struct world *w, struct sched_opts *o) {
    struct rng *r = &w->rng;
    uint32_t chunk = o->long_prefill_tokens ? MIN(o->long_prefill_tokens, o->token_budget) : o->token_budget;
    o->n_groups = 1 + chance(r, 25);
    o->groups = w->groups;
    for (uint32_t g = 0; g < o->n_groups; g++) {
        struct kv_group *x = &w->groups[g];
        x->kind = chance(r, g ? 80 : 30) ? KV_WINDOW : KV_FULL;
        x->window = x->kind == KV_WINDOW ? 1 + rnd(r, 60) : 0;
        uint32_t least = sched_blocks_needed(x, o->max_len, chunk);
        x->n_blocks = least + (chance(r, 60) ? rnd(r, 3) : rnd(r, 60));
        w->slots[g] = xcalloc((size_t)x->n_blocks * KV_TOKENS, sizeof *w->slots[g]);
    }
}

static void make_sched(struct world *w) {
    struct rng *r = &w->rng;
    struct sched_opts o = {.max_len = 17 + rnd(r, MAX_LEN - 17)};
    o.token_budget = chance(r, 20) ? 1 + rnd(r, 8) : 8 + rnd(r, N_BUDGET_DRAWN - 8);
    o.n_seqs_max = 1 + rnd(r, chance(r, 50) ? 4 : 16);
    o.n_rows_max = o.n_seqs_max + rnd(r, 8);
    o.long_prefill_tokens = chance(r, 40) ? 1 + rnd(r, 40) : 0;
    o.whole_prompts = w->seed % 5 == 0; /* drawn from the seed, so that the other worlds stay what they were */
    if (o.whole_prompts) {
        o.token_budget = MAX(o.token_budget, o.max_len);
        o.long_prefill_tokens = 0;
    }
    o.policy = chance(r, 40) ? SCHED_PRIORITY : SCHED_FCFS;
    o.prefix_cache = chance(r, 75);
    o.prefix_seed = w->seed;
    o.n_events_max = chance(r, 30) ? 8 : 0;
    make_groups(w, &o);
    sched_init(&w->sched, &o);
    batch_init(&w->batch, &w->sched);
}

/* make_prompt: often one of a few openings, so that prefixes are shared. */
static void make_prompt(struct world *w, uint32_t *tokens, uint32_t n) {
    struct rng opening = {w->seed * 7 + rnd(&w->rng, 3)};
    uint32_t n_shared = chance(&w->rng, 70) ? n - rnd(&w->rng, MIN(n, 12)) : 0;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = i < n_shared ? rnd(&opening, N_VOCAB) : rnd(&w->rng, N_VOCAB);
}

/* make_resume: up to n output tokens that a sample would have drawn, without its end: it goes on where
 * another worker stopped. */
static uint32_t make_resume(const struct req *r, uint32_t sample, uint32_t *tokens, uint32_t n) {
    uint64_t h = history_of_prompt(r);
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = draw(h, r, sample);
        if (tokens[i] == STOP_TOKEN && i >= r->min_tokens && !r->ignore_eos)
            return i;
        h = extend(h, tokens[i]);
    }
    return n;
}

static void make_job(struct world *w, struct job *j, uint32_t i) {
    struct rng *r = &w->rng;
    uint32_t max_len = w->sched.opts.max_len, tokens[MAX_LEN], resumed[MAX_LEN];
    struct req x = {.id.b = {(uint8_t)i}, .seed = w->seed + i * 100};
    x.n_samples = chance(r, 25) ? 1 + rnd(r, N_SAMPLES_MAX) : 1;
    j->arrives = chance(r, 30) ? 0 : rnd(r, 120);
    x.arrival_ns = j->arrives;
    x.priority = (int32_t)rnd(r, 4) - 1;
    x.n_prompt = 1 + rnd(r, max_len - 1);
    if (chance(r, 60))
        x.n_prompt = 1 + rnd(r, MIN(x.n_prompt, 40));
    x.prompt = tokens;
    make_prompt(w, tokens, x.n_prompt);
    x.domain[0] = (uint8_t)rnd(r, 2);
    x.cache_read = chance(r, 90);
    x.cache_write = chance(r, 90);
    x.max_tokens = chance(r, 5) ? 0 : 1 + rnd(r, max_len - x.n_prompt);
    if (chance(r, 30))
        x.max_tokens = MIN(x.max_tokens, 20);
    x.min_tokens = x.max_tokens ? rnd(r, MIN(x.max_tokens, 6)) : 0;
    x.ignore_eos = chance(r, 70);
    x.repetition_penalty = 1;
    x.n_logprobs = -1;
    x.n_prompt_logprobs = chance(r, 10) ? (int32_t)rnd(r, 3) : -1;
    struct req_resume resume = {.sample = rnd(r, x.n_samples), .tokens = resumed};
    if (x.max_tokens > 1 && chance(r, 15)) {
        resume.n_tokens = make_resume(&x, resume.sample, resumed, rnd(r, x.max_tokens));
        x.resume = &resume;
        x.n_resume = 1;
    }
    const uint32_t eos = STOP_TOKEN;
    j->req = req_new(&x);
    req_prepare(j->req, &eos, 1, w->sched.opts.prefix_cache);
    bool all_leave = chance(r, 8);
    for (uint32_t k = 0; k < x.n_samples; k++)
        j->sample[k].leaves = all_leave       ? j->arrives + 5
                              : chance(r, 15) ? j->arrives + rnd(r, 60)
                                              : UINT32_MAX;
    j->prompt_rows = xcalloc(x.n_prompt, 1);
}

static struct job *job_of(struct world *w, const struct seq *q) {
    return &w->jobs[q->req->id.b[0]];
}

/* ---- a step
 * --------------------------------------------------------------------------------------------------- */

static void end(struct world *w, struct seq *q, enum finish_reason why) {
    q->finish = why;
    EXPECT(w, job_of(w, q)->sample[q->sample].n_ends++ == 0);
    sched_end(&w->sched, q);
    w->n_live--;
}

/* come_and_go: what happens between steps. */
static void come_and_go(struct world *w) {
    for (uint32_t i = 0; i < w->n_jobs; i++) {
        struct job *j = &w->jobs[i];
        if (!j->submitted && j->arrives <= w->step) {
            j->submitted = true;
            w->n_live += j->req->n_samples;
            sched_add(&w->sched, j->req);
        }
        for (uint32_t k = 0; j->submitted && k < j->req->n_samples; k++)
            if (j->sample[k].leaves <= w->step && j->sample[k].n_ends == 0) {
                end(w, &j->req->seqs[k], FINISH_ABORT);
                w->n_aborts++;
            }
    }
    if (rnd(&w->rng, 400) == 0)
        sched_reset_prefix(&w->sched);
}

static void check_limits(const struct world *w, const struct step_plan *p) {
    const struct sched_opts *o = &w->sched.opts;
    EXPECT(w, p->n_tokens <= o->token_budget && p->n_rows <= o->n_rows_max);
    EXPECT(w, w->sched.n_running <= o->n_seqs_max);
    EXPECT(w, p->n_entries > 0 || w->n_live == 0);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const struct plan_entry *e = &p->entries[i];
        EXPECT(w, !o->long_prefill_tokens || e->n_tokens <= o->long_prefill_tokens);
        EXPECT(w, !o->whole_prompts || seq_wants_prompt_rows(e->seq) || e->start + e->n_tokens == seq_known(e->seq));
    }
}

static void copy_blocks(struct world *w, const struct step_plan *p) {
    for (uint32_t i = 0; i < p->n_copies; i++) {
        const struct plan_copy *c = &p->copies[i];
        for (uint32_t k = 0; k < p->n_copies; k++) { /* the order must not matter */
            const struct plan_copy *d = &p->copies[k];
            EXPECT(w, d->group != c->group || (d->src != c->dst && (k == i || d->dst != c->dst)));
        }
        uint64_t *slots = w->slots[c->group];
        memcpy(slots + (size_t)c->dst * KV_TOKENS, slots + (size_t)c->src * KV_TOKENS,
               KV_TOKENS * sizeof *slots);
    }
    w->n_copies += p->n_copies;
}

/* compute_seq: one sequence of the batch, as an attention layer would: writes its rows, then reads all it can
 * see. The hash behind each token goes to out. */
static void compute_seq(struct world *w, const struct plan_entry *e, uint32_t s, uint64_t *out) {
    const struct batch_arrays *b = &w->batch;
    uint64_t history[MAX_LEN], h = history_start(e->seq->req);
    uint32_t from = b->seq_start[s], n = b->seq_start[s + 1] - from, len = b->kv_len[s];
    EXPECT(w, n > 0 && (uint32_t)b->pos[from] + n == len && len <= seq_known(e->seq));
    for (uint32_t i = 0; i < len; i++)
        history[i] = h = extend(h, seq_token(e->seq, i));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = (uint32_t)b->pos[from + i];
        EXPECT(w, pos == len - n + i && b->tokens[from + i] == seq_token(e->seq, pos));
        out[from + i] = history[pos];
        for (uint32_t g = 0; g < b->n_groups; g++) {
            uint32_t slot = b->slot[g][from + i];
            /* A forked sample may share the block: the fork is as of after this step. */
            EXPECT(w, w->sched.pool[g].blocks[slot / KV_TOKENS].n_holds == 1 || w->sched.plan.n_forks > 0);
            EXPECT(w, !w->sched.pool[g].blocks[slot / KV_TOKENS].named);
            w->slots[g][slot] = history[pos];
        }
    }
    for (uint32_t g = 0; g < b->n_groups; g++) {
        const uint32_t *table = b->table[g] + (size_t)s * b->table_stride;
        uint32_t window = w->groups[g].kind == KV_WINDOW ? w->groups[g].window : UINT32_MAX;
        uint32_t seen = len - n + 1 > window ? len - n + 1 - window : 0; /* by the first query */
        for (uint32_t i = seen; i < len; i++)
            EXPECT(w, w->slots[g][(size_t)table[i / KV_TOKENS] * KV_TOKENS + i % KV_TOKENS] == history[i]);
    }
}

/* check_progress: the unfinished sequence that is first in order is in every step once it has a seat, and
 * waits for one no longer than those that run need at a token a step. */
static void check_progress(struct world *w, const struct step_plan *p) {
    const struct seq *first = NULL;
    bool by_priority = w->sched.opts.policy == SCHED_PRIORITY, moved = false;
    for (uint32_t i = 0; i < w->n_jobs; i++)
        for (uint32_t k = 0; w->jobs[i].submitted && k < w->jobs[i].req->n_samples; k++) {
            const struct seq *q = &w->jobs[i].req->seqs[k];
            bool queued = q->state == SEQ_RUNNING || q->state == SEQ_WAITING;
            if (queued && (!first || seq_order(q, first, by_priority) < 0))
                first = q;
        }
    for (uint32_t i = 0; i < p->n_entries; i++)
        moved = moved || p->entries[i].seq == first;
    for (uint32_t i = 0; i < p->n_forks; i++)
        moved = moved || p->forks[i].seq == first;
    EXPECT(w, first && (moved || first->state == SEQ_WAITING));
    uint32_t *idle = &job_of(w, first)->sample[first->sample].idle_steps;
    *idle = moved ? 0 : *idle + 1;
    EXPECT(w, *idle <= w->sched.n_seats * w->sched.opts.max_len);
}

static void take_rows(struct world *w, const struct step_plan *p, const uint64_t *hashes) {
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct plan_row *row = &p->rows[i];
        struct seq *q = row->seq;
        EXPECT(w, row->token == w->batch.rows[i] && (i < p->n_sample_rows) == (row->prompt_at == 0));
        if (row->prompt_at) {
            EXPECT(w, (uint32_t)w->batch.pos[row->token] + 1 == row->prompt_at);
            job_of(w, q)->prompt_rows[row->prompt_at] = 1;
            continue;
        }
        EXPECT(w, q->state == SEQ_RUNNING && q->n_computed == seq_known(q));
        EXPECT(w, (uint32_t)w->batch.pos[row->token] + 1 == seq_known(q));
        uint32_t token = draw(hashes[row->token], q->req, q->sample);
        enum finish_reason f = seq_accept(q, token, w->sched.opts.max_len);
        job_of(w, q)->sample[q->sample].n_rows++;
        if (f)
            end(w, q, f);
    }
    for (uint32_t i = 0; i < p->n_entries; i++) {
        struct seq *q = p->entries[i].seq;
        if (seq_prompt_only(q) && q->state == SEQ_RUNNING && q->n_computed == seq_known(q))
            end(w, q, FINISH_LENGTH);
    }
}

/* ---- a run
 * ---------------------------------------------------------------------------------------------------- */

/* check_output: what a sample was given is what it would have got alone. */
static void check_output(struct world *w, const struct job *j, uint32_t k) {
    const struct req *r = j->req;
    const struct seq *q = &r->seqs[k];
    EXPECT(w, j->sample[k].n_ends == 1 && q->state == SEQ_ENDED);
    EXPECT(w, q->n_out - q->n_resumed == j->sample[k].n_rows);
    uint64_t h = history_of_prompt(r);
    bool aborted = q->finish == FINISH_ABORT;
    for (uint32_t i = 0; i < q->n_out; i++) {
        EXPECT(w, q->out[i] == draw(h, r, k));
        bool stops = q->out[i] == STOP_TOKEN && !r->ignore_eos && i >= r->min_tokens;
        bool full = i + 1 == r->max_tokens || r->n_prompt + i + 1 == w->sched.opts.max_len;
        EXPECT(w, aborted || (i + 1 == q->n_out) == (stops || full));
        EXPECT(w, aborted || i + 1 < q->n_out || q->finish == (stops ? FINISH_STOP : FINISH_LENGTH));
        h = extend(h, q->out[i]);
    }
    EXPECT(w, aborted || q->n_out > 0 || r->max_tokens == 0);
    for (uint32_t i = 1; r->n_prompt_logprobs >= 0 && !aborted && i < r->n_prompt; i++)
        EXPECT(w, j->prompt_rows[i]);
    w->n_finished += !aborted;
}

static void end_world(struct world *w) {
    EXPECT(w, sched_idle(&w->sched) && w->sched.n_pending == 0);
    for (uint32_t i = 0; i < w->n_jobs; i++) {
        struct job *j = &w->jobs[i];
        EXPECT(w, j->req->n_live == 0);
        for (uint32_t k = 0; k < j->req->n_samples; k++)
            check_output(w, j, k);
        req_free(j->req);
        free(j->prompt_rows);
    }
    w->n_hit_tokens = w->sched.prefix.n_hit_tokens;
    w->n_preemptions = w->sched.n_preemptions;
    for (uint32_t g = 0; g < w->sched.opts.n_groups; g++) {
        EXPECT(w, w->sched.pool[g].n_used == 0);
        free(w->slots[g]);
    }
    batch_fini(&w->batch);
    sched_fini(&w->sched);
}

static void run_world(struct world *w, uint64_t seed) {
    uint64_t hashes[N_BUDGET_MAX];
    *w = (struct world){.seed = seed, .rng = {hash_u64(seed + 1)}};
    make_sched(w);
    w->n_jobs = 1 + rnd(&w->rng, N_REQS_MAX);
    for (uint32_t i = 0; i < w->n_jobs; i++)
        make_job(w, &w->jobs[i], i);
    bool more = true;
    for (w->step = 0; more; w->step++) {
        EXPECT(w, w->step < N_STEPS_MAX);
        come_and_go(w);
        const struct step_plan *p = sched_plan(&w->sched, w->step + 1);
        check_limits(w, p);
        w->n_forks += p->n_forks;
        if (p->n_entries) {
            batch_build(&w->batch, &w->sched, p);
            copy_blocks(w, p);
            for (uint32_t i = 0; i < p->n_entries; i++)
                compute_seq(w, &p->entries[i], i, hashes);
            check_progress(w, p);
            sched_computed(&w->sched);
            take_rows(w, p, hashes);
        }
        sched_check(&w->sched);
        more = w->n_live > 0;
        for (uint32_t i = 0; i < w->n_jobs; i++)
            more = more || !w->jobs[i].submitted;
    }
    end_world(w);
}

static void test_seeds(void **state) {
    (void)state;
    static struct world w;
    const char *scale = getenv("TEST_SCALE"), *one = getenv("SIM_SEED");
    unsigned long long n = (unsigned long long)(N_SEEDS * (scale ? atof(scale) : 1)), from = 0;
    unsigned long long hits = 0, forks = 0, copies = 0, preemptions = 0, aborts = 0, finished = 0;
#ifdef WEIR_SANITIZE
    n = MIN(n, 1000); /* the same worlds, ten times slower: the plain build runs them all */
#endif
    if (one) {
        from = strtoull(one, NULL, 10);
        n = 1;
    }
    for (unsigned long long seed = from; seed < from + n; seed++) {
        run_world(&w, seed);
        hits += w.n_hit_tokens;
        forks += w.n_forks;
        copies += w.n_copies;
        preemptions += w.n_preemptions;
        aborts += w.n_aborts;
        finished += w.n_finished;
    }
    printf("%llu seeds: %llu samples finished, %llu aborted, %llu preemptions, %llu forks, %llu copies, %llu "
           "tokens "
           "from the prefix cache\n",
           n, finished, aborts, preemptions, forks, copies, hits);
    /* A simulation that never meets the hard cases proves nothing. */
    if (n >= 1000) {
        assert_true(hits > n && forks > n / 2 && copies > n / 4);
        assert_true(preemptions > n && aborts > n / 2 && finished > 5 * n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
