#include "worker/sched.h"

#include <stdlib.h>

#include "worker/sched_impl.h"

void sched_init(struct sched *s, const struct sched_opts *o) {
    CHECK(o->n_groups <= KV_GROUPS_MAX && o->max_len > 0 && o->token_budget > 0 && o->n_seqs_max > 0);
    CHECK(!o->whole_prompts || (o->token_budget >= o->max_len && !o->long_prefill_tokens));
    *s = (struct sched){.opts = *o};
    s->opts.groups = s->group;
    /* A quarter of each step is kept from decodes, so that prompts go on however many sequences decode. */
    s->n_seats = MIN(o->n_seqs_max, o->token_budget - o->token_budget / 4);
    s->n_table = blocks_of(o->max_len);
    CHECK(o->n_rows_max >= s->n_seats);
    for (uint32_t g = 0; g < o->n_groups; g++) {
        s->group[g] = o->groups[g];
        CHECK(o->groups[g].kind == KV_FULL || o->groups[g].window > 0);
        CHECK(o->groups[g].n_blocks >= sched_blocks_needed(&o->groups[g], o->max_len, sched_chunk_max(s)));
        kv_init(&s->pool[g], o->groups[g].n_blocks, NULL, NULL);
        s->table[g] = xcalloc((size_t)s->n_seats * s->n_table, sizeof *s->table[g]);
    }
    s->fair = xmalloc(sizeof *s->fair);
    fair_init(s->fair);
    prefix_init(&s->prefix, s->group, o->n_groups, s->pool, o->prefix_seed, o->n_events_max);
    s->seats_free = xcalloc(s->n_seats, sizeof *s->seats_free);
    for (s->n_seats_free = 0; s->n_seats_free < s->n_seats; s->n_seats_free++)
        s->seats_free[s->n_seats_free] = s->n_seats - 1 - s->n_seats_free;
    s->running = xcalloc(s->n_seats, sizeof(struct seq *));
    s->n_waiting_max = 64;
    s->waiting = xcalloc(s->n_waiting_max, sizeof(struct seq *));
    s->names = xcalloc(s->n_table, sizeof *s->names);
    s->plan.entries = xcalloc(s->n_seats, sizeof *s->plan.entries);
    s->plan.rows = xcalloc(o->n_rows_max, sizeof *s->plan.rows);
    s->plan.copies = xcalloc((size_t)s->n_seats * MAX(o->n_groups, 1), sizeof *s->plan.copies);
    s->plan.forks = xcalloc(s->n_seats, sizeof *s->plan.forks);
}

void sched_fini(struct sched *s) {
    CHECK(sched_idle(s));
    prefix_fini(&s->prefix);
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        kv_fini(&s->pool[g]);
        free(s->table[g]);
    }
    free(s->fair);
    free(s->seats_free);
    free(s->running);
    free(s->waiting);
    free(s->names);
    free(s->plan.entries);
    free(s->plan.rows);
    free(s->plan.copies);
    free(s->plan.forks);
    *s = (struct sched){0};
}

/* ---- coming and going ------------------------------------------------------------------------- */

/* A resumed request was paid for where it was lost. */
static uint32_t billed_prompt(const struct req *r) {
    return r->n_resume ? 0 : r->n_prompt - MIN(r->n_cached, r->n_prompt);
}

void sched_arrive(struct sched *s, struct req *r) {
    if (r->arrived)
        return;
    r->arrived = true;
    r->fair = fair_arrive(s->fair, r->tagged, r->tenant, billed_prompt(r), r->n_samples, r->max_tokens, &r->fair_cost);
}

void sched_left(struct sched *s, const struct req *r) {
    uint64_t n_out = 0;
    for (uint32_t k = 0; k < r->n_samples; k++)
        n_out += r->seqs[k].n_out - r->seqs[k].n_resumed;
    if (r->arrived)
        fair_end(s->fair, r->tenant, r->fair_cost, r->admitted_ns ? billed_prompt(r) : 0, n_out,
                 r->max_tokens && r->admitted_ns ? r->n_samples : 0);
}

void sched_add(struct sched *s, struct req *r) {
    struct seq *tail = NULL; /* of the chain that hangs on the first sample without output */
    r->serial = s->next_serial++;
    sched_arrive(s, r);
    for (uint32_t k = 0; k < r->n_samples; k++) {
        struct seq *q = &r->seqs[k];
        if (q->state == SEQ_ENDED)
            continue;
        CHECK(q->state == SEQ_NEW && seq_known(q) < s->opts.max_len + seq_prompt_only(q));
        for (uint32_t g = 0; g < KV_GROUPS_MAX; g++)
            q->cow_src[g] = KV_NO_BLOCK;
        if (r->beams && k > 0)
            continue; /* sched_fork brings it in */
        if (q->n_out || !tail) {
            queue_push(s, q);
        } else {
            q->state = SEQ_PENDING;
            tail->fork_next = q;
            s->n_pending++;
        }
        if (!q->n_out)
            tail = q;
    }
}

void seat_take(struct sched *s, struct seq *q) {
    CHECK(s->n_seats_free > 0);
    q->seat = s->seats_free[--s->n_seats_free];
    running_insert(s, q);
    seq_ready(q);
}

void seat_leave(struct sched *s, struct seq *q) {
    blocks_release(s, q);
    running_remove(s, q);
    s->seats_free[s->n_seats_free++] = q->seat;
    q->seat = SEQ_NO_SEAT;
}

/* promote: the samples that hang on q wait by themselves, on the first of them. */
static void promote(struct sched *s, struct seq *q) {
    struct seq *next = q->fork_next;
    if (!next)
        return;
    q->fork_next = NULL;
    s->n_pending--;
    queue_push(s, next);
}

void sched_end(struct sched *s, struct seq *q) {
    switch (q->state) {
    case SEQ_PENDING: {
        struct seq *before = q->req->seqs;
        while (before->fork_next != q)
            CHECK(++before < q);
        before->fork_next = q->fork_next;
        q->fork_next = NULL;
        s->n_pending--;
        break;
    }
    case SEQ_WAITING:
        queue_remove(s, q);
        break;
    case SEQ_RUNNING:
        seat_leave(s, q);
        break;
    case SEQ_NEW:
    case SEQ_ENDED:
        CHECK(!"a sequence ends once, after sched_add");
    }
    promote(s, q);
    q->state = SEQ_ENDED;
    CHECK(q->req->n_live-- > 0);
}

void sched_reset_prefix(struct sched *s) {
    prefix_reset(&s->prefix);
}

void sched_preempt(struct sched *s, struct seq *q) {
    if (q->step_tokens) {
        s->tokens_left += q->step_tokens;
        s->rows_left++; /* only decodes are planned before someone earlier in order runs short */
        q->step_tokens = 0;
    }
    seat_leave(s, q);
    q->n_preempted++;
    s->n_preemptions++;
    if (q->parked)
        q->state = SEQ_NEW; /* it has nothing to compute until sched_unpark */
    else
        queue_push(s, q);
}

/* ---- planning --------------------------------------------------------------------------------- */

static bool decodes(const struct seq *q) {
    return q->n_out > 0 && seq_known(q) - q->n_computed == 1;
}

/* chunk_of: how many tokens q may have in this step, blocks aside; 0 if it would need a row that is not left.
 */
static uint32_t chunk_of(const struct sched *s, const struct seq *q) {
    uint32_t want = seq_known(q) - q->n_computed;
    if (want == 0)
        return 0; /* parked */
    uint32_t n = MIN(MIN(want, s->tokens_left), sched_chunk_max(s));
    if (s->opts.whole_prompts && !seq_wants_prompt_rows(q))
        return want <= s->tokens_left && (s->rows_left > 0 || seq_prompt_only(q)) ? want : 0;
    if (seq_wants_prompt_rows(q))
        return MIN(n, s->rows_left); /* a row each at most: of the next prompt token, or the sample */
    if (n == want && s->rows_left == 0)
        n--;
    return n;
}

/* rows_of: rows of logits that the next n tokens of q need. */
static uint32_t rows_of(const struct seq *q, uint32_t n) {
    uint32_t end = q->n_computed + n, n_rows = end == seq_known(q) && !seq_prompt_only(q);
    if (seq_wants_prompt_rows(q)) {
        uint32_t from = MAX(q->n_computed + 1, q->req->n_prompt_done), to = MIN(end + 1, q->req->n_prompt);
        n_rows += to > from ? to - from : 0;
    }
    return n_rows;
}

static void schedule(struct sched *s, struct seq *q, uint32_t n) {
    blocks_grow(s, q, n);
    q->step_tokens = n;
    s->tokens_left -= n;
    s->rows_left -= rows_of(q, n);
}

/* plan_running: gives q a place in the step, at the cost of those behind it in order if need be. */
static void plan_running(struct sched *s, struct seq *q) {
    for (;;) {
        uint32_t n = chunk_of(s, q);
        if (n == 0)
            return;
        n = blocks_room(s, q, n);
        if (n > 0) {
            schedule(s, q, n);
            return;
        }
        struct seq *victim = s->running[s->n_running - 1];
        sched_preempt(s, victim);
        if (victim == q)
            return;
    }
}

/* fork_pending: the samples that hang on q take their first token from the row that q samples from, as many
 * as there are seats, rows and blocks for. */
static void fork_pending(struct sched *s, struct seq *q) {
    if (!q->fork_next || q->n_computed + q->step_tokens != seq_known(q) || seq_prompt_only(q))
        return;
    while (q->fork_next && s->n_seats_free > 0 && s->rows_left > 0) {
        struct seq *k = q->fork_next;
        for (uint32_t g = 0; g < s->opts.n_groups; g++)
            if (kv_available(&s->pool[g]) < s->reserved[g] + s->n_running + 1)
                return;
        q->fork_next = k->fork_next;
        k->fork_next = NULL;
        s->n_pending--;
        seat_take(s, k);
        blocks_share(s, q, k);
        s->rows_left--;
        s->plan.forks[s->plan.n_forks++] = (struct plan_fork){.from = q, .seq = k};
    }
}

/* cached_blocks: how many leading blocks of q the prefix cache can provide; their names go to s->names. */
static uint32_t cached_blocks(struct sched *s, const struct seq *q) {
    struct id128 parent = {0};
    if (!s->opts.prefix_cache || !q->req->cache_read || seq_wants_prompt_rows(q))
        return 0;
    /* The last known token is always computed: its logits are wanted. */
    uint32_t n = (seq_known(q) - 1) / KV_TOKENS;
    for (uint32_t i = 0; i < n; i++)
        parent = s->names[i] = seq_block_name(q, i, parent);
    return prefix_match(&s->prefix, s->names, n);
}

/* fits: blocks for all known tokens of q, of which n_hits blocks are cached, are there without hurting the
 * running. */
static bool fits(const struct sched *s, const struct seq *q, uint32_t n_hits) {
    for (uint32_t g = 0; g < s->opts.n_groups && s->n_running > 0; g++) {
        const struct kv_group *x = &s->group[g];
        uint32_t first = MIN(n_hits, kv_group_first(x, n_hits * KV_TOKENS)), n_idle = 0;
        for (uint32_t i = first; i < n_hits; i++)
            n_idle += s->pool[g].blocks[prefix_find(&s->prefix, g, s->names[i])].n_holds == 0;
        uint32_t held = n_hits - first, left = blocks_of(seq_known(q)) - n_hits;
        uint32_t most = sched_blocks_needed(x, seq_known(q), sched_chunk_max(s));
        uint64_t need = MIN(left, most > held ? most - held : 0);
        if (need + n_idle + s->reserved[g] + s->n_running > kv_available(&s->pool[g]))
            return false;
    }
    return true;
}

/* admit: the first of the queue gets a seat and a place in the step. False if it has to wait. */
static bool admit(struct sched *s, uint64_t now_ns) {
    struct seq *q = s->waiting[0];
    struct req *r = q->req;
    uint32_t n_hits = cached_blocks(s, q);
    if (!fits(s, q, n_hits) || chunk_of(s, q) == 0)
        return false;
    queue_remove(s, q);
    seat_take(s, q);
    blocks_adopt(s, q, n_hits);
    if (r->admitted_ns == 0) {
        r->admitted_ns = MAX(now_ns, 1);
        fair_serve(s->fair, r->fair);
        r->n_cached = MIN(q->n_computed, r->n_prompt);
        if (s->opts.prefix_cache)
            prefix_count(&s->prefix, seq_known(q), q->n_computed);
    }
    uint32_t n = chunk_of(s, q);
    CHECK(n > 0 && blocks_room(s, q, n) == n);
    schedule(s, q, n);
    for (uint32_t g = 0; g < s->opts.n_groups; g++)
        s->reserved[g] += blocks_lacking(s, q, g);
    return true;
}

static void admit_waiting(struct sched *s, uint64_t now_ns) {
    while (s->n_waiting > 0 && s->n_seats_free > 0 && s->tokens_left > 0 && s->rows_left > 0) {
        struct seq *q = s->waiting[0];
        if (!admit(s, now_ns))
            break;
        fork_pending(s, q);
    }
}

/* add_rows: rows of logits of an entry: the one to sample from first; those of prompt tokens in a second
 * pass. */
static void add_sample_row(struct step_plan *p, const struct plan_entry *e) {
    if (e->start + e->n_tokens == seq_known(e->seq) && !seq_prompt_only(e->seq))
        p->rows[p->n_rows++] = (struct plan_row){.seq = e->seq, .token = e->at + e->n_tokens - 1};
}

static void add_prompt_rows(struct step_plan *p, const struct plan_entry *e) {
    if (!seq_wants_prompt_rows(e->seq))
        return;
    uint32_t to = MIN(e->start + e->n_tokens + 1, e->seq->req->n_prompt);
    for (uint32_t i = MAX(e->start + 1, e->seq->req->n_prompt_done); i < to; i++)
        p->rows[p->n_rows++] = (struct plan_row){e->seq, e->at + (i - 1 - e->start), i};
}

/* complete: writes down what the sequences have been given. */
static void complete(struct sched *s) {
    struct step_plan *p = &s->plan;
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct seq *q = s->running[i];
        if (q->step_tokens == 0)
            continue;
        struct plan_entry *e = &p->entries[p->n_entries++];
        *e = (struct plan_entry){
            .seq = q, .start = q->n_computed, .n_tokens = q->step_tokens, .at = p->n_tokens};
        e->prefill = !decodes(q);
        p->n_tokens += e->n_tokens;
        p->n_prefill_tokens += e->prefill ? e->n_tokens : 0;
        add_sample_row(p, e);
        for (uint32_t f = 0; f < p->n_forks; f++)
            if (p->forks[f].from == q)
                p->rows[p->n_rows++] = (struct plan_row){p->forks[f].seq, e->at + e->n_tokens - 1, 0};
    }
    p->n_sample_rows = p->n_rows;
    for (uint32_t i = 0; i < p->n_entries; i++)
        add_prompt_rows(p, &p->entries[i]);
    for (uint32_t g = 0; g < s->opts.n_groups; g++)
        for (uint32_t i = 0; i < p->n_entries; i++) {
            struct seq *q = p->entries[i].seq;
            if (q->cow_src[g] == KV_NO_BLOCK)
                continue;
            uint32_t dst = sched_table(s, g, q)[q->n_computed / KV_TOKENS];
            p->copies[p->n_copies++] = (struct plan_copy){.group = g, .src = q->cow_src[g], .dst = dst};
            kv_drop(&s->pool[g], q->cow_src[g]);
            q->cow_src[g] = KV_NO_BLOCK;
        }
    CHECK(p->n_tokens <= s->opts.token_budget && p->n_rows <= s->opts.n_rows_max);
}

const struct step_plan *sched_plan(struct sched *s, uint64_t now_ns) {
    struct step_plan *p = &s->plan;
    *p = (struct step_plan){.entries = p->entries, .rows = p->rows, .copies = p->copies, .forks = p->forks};
    s->tokens_left = s->opts.token_budget;
    s->rows_left = s->opts.n_rows_max;
    for (uint32_t i = 0; i < s->n_running; i++)
        blocks_slide(s, s->running[i]);
    for (uint32_t i = 0; i < s->n_running; i++)
        if (decodes(s->running[i]))
            plan_running(s, s->running[i]);
    for (uint32_t i = 0; i < s->n_running; i++)
        if (!decodes(s->running[i]))
            plan_running(s, s->running[i]);

    /* From here on nobody is preempted. */
    memset(s->reserved, 0, sizeof s->reserved);
    for (uint32_t i = 0; i < s->n_running; i++)
        for (uint32_t g = 0; g < s->opts.n_groups; g++)
            s->reserved[g] += blocks_lacking(s, s->running[i], g);
    for (uint32_t i = 0; i < s->n_running; i++)
        fork_pending(s, s->running[i]);
    admit_waiting(s, now_ns);
    /* Sequences of a beam search may wait for some that they leave no room for. */
    if (s->tokens_left == s->opts.token_budget && s->n_waiting > 0 && sched_evict_parked(s))
        admit_waiting(s, now_ns);
    complete(s);
    CHECK(p->n_entries > 0 || sched_idle(s) || s->n_unsettled > 0);
    return p;
}

/* name_blocks: offers the blocks that are full now. */
static void name_blocks(struct sched *s, struct seq *q) {
    if (!s->opts.prefix_cache || !q->req->cache_write)
        return;
    for (; q->n_named < q->n_computed / KV_TOKENS; q->n_named++) {
        q->chain = seq_block_name(q, q->n_named, q->chain);
        for (uint32_t g = 0; g < s->opts.n_groups; g++)
            if (q->n_named >= q->n_gone[g])
                prefix_name(&s->prefix, g, sched_table(s, g, q)[q->n_named], q->chain);
    }
}

void sched_computed(struct sched *s) {
    const struct step_plan *p = &s->plan;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        struct seq *q = p->entries[i].seq;
        if (q->state == SEQ_ENDED)
            continue;
        q->n_computed += q->step_tokens;
        q->step_tokens = 0;
        name_blocks(s, q);
        if (seq_wants_prompt_rows(q))
            q->req->n_prompt_done = MAX(q->req->n_prompt_done, MIN(q->n_computed + 1, q->req->n_prompt));
    }
    for (uint32_t i = 0; i < p->n_forks; i++) {
        const struct seq *from = p->forks[i].from;
        struct seq *q = p->forks[i].seq;
        if (q->state == SEQ_ENDED)
            continue;
        q->n_computed = from->n_computed;
        q->n_named = from->n_named;
        q->chain = from->chain;
    }
    /* Samples there was no room for wait on their own; with the prefix cache they find the prompt computed.
     */
    for (uint32_t i = 0; i < p->n_entries; i++) {
        struct seq *q = p->entries[i].seq;
        if (q->state != SEQ_ENDED && q->n_computed == seq_known(q) && !seq_prompt_only(q))
            promote(s, q);
    }
}
