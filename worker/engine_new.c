/* engine_new.c: an engine's start and end, the sizes of its pools, and the token budget it can afford. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "common/clock.h"
#include "worker/engine_kvx.h"

enum { BUDGET_MIN = 16, BUDGET_MAX = 2048 };
static const uint64_t step_ns = 200 * NS_PER_MS; /* what a step may take */
#define PROBE_NS (60 * NS_PER_MS)                /* no probe begins after so long */

/* ---- sizes
 * ---------------------------------------------------------------------------------------------------- */

static enum rc group_of(const struct cache_group_spec *spec, uint32_t n_blocks, struct kv_group *out,
                        struct err *err) {
    switch (spec->kind) {
    case CACHE_FULL:
        *out = (struct kv_group){.kind = KV_FULL, .n_blocks = n_blocks};
        return RC_OK;
    case CACHE_WINDOW:
        *out = (struct kv_group){.kind = KV_WINDOW, .window = spec->window, .n_blocks = n_blocks};
        return spec->window ? RC_OK
                            : err_set(err, RC_INVALID, NULL, "a cache group has a window of 0 tokens");
    case CACHE_STATE:
        return err_set(err, RC_UNSUPPORTED, NULL, "the engine has no state caches");
    case CACHE_CROSS:
        return err_set(err, RC_UNSUPPORTED, NULL, "the engine has no cross-attention caches");
    case CACHE_NONE:
        break;
    }
    return err_set(err, RC_UNSUPPORTED, NULL, "cache group of kind %d", (int)spec->kind);
}

/* chunk_max: most tokens of one sequence in a step, measured budgets included. */
static uint32_t chunk_max(const struct engine_opts *o) {
    return o->token_budget ? MIN(o->token_budget, o->n_tokens_max) : o->n_tokens_max;
}

static enum rc too_small(const struct engine_opts *o, uint64_t need_bytes, uint64_t bytes, struct err *err) {
    return err_set(err, RC_INVALID, "kv_cache_memory_bytes",
                   "one sequence of %u tokens takes %.1f MiB of KV cache and %.1f MiB are given: raise "
                   "--kv-cache-memory-bytes or lower --max-model-len",
                   o->max_len, (double)need_bytes / (double)MIB, (double)bytes / (double)MIB);
}

enum rc engine_size_pools(const struct engine_opts *o, uint64_t bytes, uint32_t *n_blocks, struct err *err) {
    uint64_t block_bytes[BE_GROUPS_MAX], sum = 0, left = bytes, need_bytes = 0;
    uint32_t least[BE_GROUPS_MAX], n[BE_GROUPS_MAX] = {0};
    for (uint32_t g = 0; g < o->n_groups; g++) {
        struct kv_group x;
        enum rc rc = group_of(&o->groups[g], 0, &x, err);
        if (rc != RC_OK)
            return rc;
        block_bytes[g] = o->ops->kv_block_bytes(o->be, &o->groups[g]);
        CHECK(block_bytes[g] > 0);
        least[g] = sched_blocks_needed(&x, o->max_len, chunk_max(o));
        need_bytes += least[g] * block_bytes[g];
        sum += block_bytes[g];
    }
    if (need_bytes > bytes)
        return too_small(o, need_bytes, bytes, err);
    /* Window groups first: an equal share, but no more than all sequences can hold, twice. What they leave is
     * for the full ones. */
    for (int full = 0; full < 2; full++) {
        uint64_t pot = left, share = sum;
        for (uint32_t g = 0; g < o->n_groups; g++) {
            if ((o->groups[g].kind == CACHE_FULL) != full)
                continue;
            uint64_t want = pot / share,
                     most = full ? UINT32_MAX / KV_TOKENS - 1 : 2ull * o->n_seqs_max * least[g];
            n[g] = (uint32_t)MIN(MIN(want, most), UINT32_MAX / KV_TOKENS - 1);
            left -= n[g] * block_bytes[g];
            sum -= block_bytes[g];
        }
    }
    for (uint32_t g = 0; g < o->n_groups; g++)
        if (n[g] < least[g]) /* equal shares do not do: everyone gets the least, the first what is left */
            left = UINT64_MAX;
    if (left == UINT64_MAX) {
        memcpy(n, least, sizeof least);
        n[0] += (uint32_t)MIN((bytes - need_bytes) / block_bytes[0], UINT32_MAX / KV_TOKENS - 1 - least[0]);
    }
    memcpy(n_blocks, n, o->n_groups * sizeof *n_blocks);
    return RC_OK;
}

/* ---- measuring
 * ------------------------------------------------------------------------------------------------ */

/* cpu_ns: of all threads of this process. */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* dummy_step: computes one prompt of n tokens in the first blocks of each pool; nobody looks at them. */
static enum rc dummy_step(struct engine *e, uint32_t n, uint64_t *took_ns, struct err *err) {
    char why[BE_ERR_BYTES] = "";
    uint32_t n_blocks = (n + KV_TOKENS - 1) / KV_TOKENS, start[2] = {0, n}, row = n - 1;
    uint32_t *tokens = xcalloc(n, sizeof *tokens), *table = xcalloc(n_blocks, sizeof *table);
    uint32_t *slot = xcalloc(n, sizeof *slot);
    int32_t *pos = xcalloc(n, sizeof *pos);
    for (uint32_t i = 0; i < n_blocks; i++)
        table[i] = i;
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = i % e->opts.n_vocab;
        pos[i] = (int32_t)i;
        slot[i] = i;
    }
    struct batch b = {.n_tokens = n, .n_seqs = 1, .n_rows = 1, .n_axes = 1, .n_groups = e->opts.n_groups};
    b.tokens = tokens;
    b.pos = pos;
    b.seq_start = start;
    b.kv_len = &n;
    b.rows = &row;
    uint8_t kind = ATTN_BIDIRECTIONAL;
    if (e->opts.bidirectional) {
        b.kind = &kind;
        b.n_rows = 0;
    }
    for (uint32_t g = 0; g < b.n_groups; g++) {
        b.group[g].table = table;
        b.group[g].table_stride = n_blocks;
        b.group[g].slot = slot;
    }
    uint64_t from_ns = clock_ns(), from_cpu_ns = cpu_ns();
    e->opts.model.forward(e->opts.model.arg, &b);
    int bad = e->opts.ops->wait(e->opts.be, why);
    *took_ns = clock_ns() - from_ns;
    /* On a machine that others load, the clock tells how busy they are; processor time tells what is ours. */
    if (e->opts.n_cpu_threads)
        *took_ns = MIN(*took_ns, (cpu_ns() - from_cpu_ns) / e->opts.n_cpu_threads);
    *took_ns = MAX(*took_ns, 1);
    free(tokens);
    free(table);
    free(slot);
    free(pos);
    return bad ? err_set(err, RC_UNAVAILABLE, NULL, "the device failed in its first step: %s", why) : RC_OK;
}

/* probe: the shortest of a few such steps: the first touches memory and wakes threads, and any may be
 * disturbed. */
static enum rc probe(struct engine *e, uint32_t n, uint64_t *least_ns, struct err *err) {
    enum { PROBES = 4 };
    uint64_t until_ns = clock_ns() + PROBE_NS, ns;
    enum rc rc = RC_OK;
    *least_ns = UINT64_MAX;
    for (int i = 0; i < PROBES && rc == RC_OK && (i == 0 || clock_ns() < until_ns); i++) {
        rc = dummy_step(e, n, &ns, err);
        if (rc == RC_OK)
            *least_ns = MIN(*least_ns, ns);
    }
    return rc;
}

enum rc engine_measure(struct engine *e, uint32_t *budget, struct err *err) {
    const struct engine_opts *o = &e->opts;
    uint32_t n_max = MIN(MIN(o->n_tokens_max, o->max_len), BUDGET_MAX), n = MIN(BUDGET_MIN, n_max);
    uint64_t ns;
    enum rc rc = probe(e, n, &ns, err);
    /* From a tenth of the time on, the rest is a matter of proportion. */
    while (rc == RC_OK && ns < step_ns / 10 && n < n_max) {
        n = MIN(4 * n, n_max);
        rc = probe(e, n, &ns, err);
    }
    if (rc != RC_OK)
        return rc;
    double fits = (double)n * ((double)step_ns / (double)ns);
    uint32_t most = MIN(o->n_tokens_max, BUDGET_MAX), least = MIN(BUDGET_MIN, most);
    uint32_t tokens = fits >= most ? most : (uint32_t)fits / KV_TOKENS * KV_TOKENS;
    *budget = MAX(tokens, least);
    return RC_OK;
}

/* ---- start and end
 * -------------------------------------------------------------------------------------------- */

static enum rc check_opts(const struct engine_opts *o, struct err *err) {
    CHECK(o->ops && o->model.forward && o->on_step);
    if (o->n_groups > BE_GROUPS_MAX || o->max_len == 0 || o->n_vocab == 0 || o->n_seqs_max == 0 ||
        o->n_tokens_max == 0)
        return err_set(err, RC_INVALID, NULL, "a limit of the engine is 0 or too large");
    if (o->n_requests_max == 0 || o->n_requests_max > 1u << 20 || o->n_routers_max == 0)
        return err_set(err, RC_INVALID, NULL, "%u live requests of %u routers", o->n_requests_max,
                       o->n_routers_max);
    CHECK(!o->pooler || (o->model.hidden && o->hidden > 0));
    if (o->bidirectional &&
        (o->n_groups || o->n_tokens_max < o->max_len || (o->token_budget && o->token_budget < o->max_len)))
        return err_set(err, RC_INVALID, "max_num_batched_tokens",
                       "an encoder computes a text in one step: --max-num-batched-tokens must be at least "
                       "the context of %u",
                       o->max_len);
    if (o->whole_prompts && (o->n_tokens_max < o->max_len || (o->token_budget && o->token_budget < o->max_len)))
        return err_set(err, RC_INVALID, "max_num_batched_tokens",
                       "--no-enable-chunked-prefill computes a prompt in one step: --max-num-batched-tokens must be at "
                       "least the context of %u",
                       o->max_len);
    if (o->token_budget > o->n_tokens_max)
        return err_set(err, RC_INVALID, "max_num_batched_tokens",
                       "a step of %u tokens is above the device's %u", o->token_budget, o->n_tokens_max);
    if (o->n_rows_max < o->n_seqs_max)
        return err_set(err, RC_INVALID, "max_num_seqs",
                       "%u sequences need as many rows of logits; there are %u", o->n_seqs_max,
                       o->n_rows_max);
    return RC_OK;
}

static enum rc make_pools(struct engine *e, struct kv_group *groups, struct err *err) {
    const struct engine_opts *o = &e->opts;
    char why[BE_ERR_BYTES] = "";
    for (uint32_t g = 0; g < o->n_groups; g++) {
        enum rc rc = group_of(&e->groups[g], o->n_blocks[g], &groups[g], err);
        if (rc != RC_OK)
            return rc;
        uint32_t least = sched_blocks_needed(&groups[g], o->max_len, chunk_max(o));
        uint64_t block_bytes = o->ops->kv_block_bytes(o->be, &e->groups[g]);
        if (o->n_blocks[g] < least)
            return too_small(o, least * block_bytes, o->n_blocks[g] * block_bytes, err);
        e->kv[g] = o->ops->kv_new(o->be, g, &e->groups[g], o->n_blocks[g], why);
        if (!e->kv[g])
            return err_set(err, RC_IO, "kv_cache_memory_bytes", "KV cache: %s: lower --kv-cache-memory-bytes",
                           why);
    }
    return RC_OK;
}

/* plan_largest: shows the backend the largest step there can be, so that what it sizes by a step's shape is
 * large enough from now on. Nothing is computed. */
static void plan_largest(struct engine *e) {
    const struct batch_arrays *a = &e->arrays;
    struct batch b = {
        .n_tokens = e->sched.n_seats, .n_seqs = e->sched.n_seats, .n_axes = 1, .n_groups = a->n_groups};
    if (!e->opts.ops->plan)
        return;
    for (uint32_t i = 0; i < b.n_seqs; i++) {
        a->seq_start[i] = i;
        a->kv_len[i] = 1;
    }
    a->seq_start[b.n_seqs] = b.n_seqs;
    b.tokens = a->tokens;
    b.pos = a->pos;
    b.seq_start = a->seq_start;
    b.kv_len = a->kv_len;
    b.rows = a->rows;
    for (uint32_t g = 0; g < b.n_groups; g++) {
        b.group[g].table = a->table[g];
        b.group[g].table_stride = e->sched.n_table;
        b.group[g].slot = a->slot[g];
    }
    e->opts.ops->plan(e->opts.be, &b);
}

static void make_buffers(struct engine *e) {
    const struct engine_opts *o = &e->opts;
    uint32_t n_seats = e->sched.n_seats;
    batch_init(&e->arrays, &e->sched);
    if (o->pooler)
        e->hidden = xcalloc((size_t)o->token_budget * o->hidden, sizeof *e->hidden);
    if (o->bidirectional) {
        e->kinds = xmalloc(n_seats);
        memset(e->kinds, ATTN_BIDIRECTIONAL, n_seats);
    }
    plan_largest(e);
    e->rows = xcalloc(o->n_rows_max, sizeof *e->rows);
    e->results = xcalloc(o->n_rows_max, sizeof *e->results);
    if (o->ops->wait_sampled && !o->model.copies) { /* ranks that follow do not know the tokens on rank 0's device */
        struct flight *f = &e->flight;
        f->seqs = xcalloc(o->n_rows_max, sizeof(struct seq *));
        f->rows = xcalloc(o->n_rows_max, sizeof *f->rows);
        f->results = xcalloc(o->n_rows_max, sizeof *f->results);
        f->row_jobs = xcalloc(o->n_rows_max, sizeof(struct mask_job *));
    }
    e->raw_results = xcalloc(o->n_rows_max, sizeof *e->raw_results);
    e->prompt_rows = xcalloc(o->n_rows_max, sizeof *e->prompt_rows);
    e->copies = xcalloc(n_seats, sizeof *e->copies);
    e->row_jobs = xcalloc(o->n_rows_max, sizeof(struct mask_job *));
    if (o->constraints)
        e->masks = masks_new(o->n_rows_max, o->n_vocab, e->eos_ids, o->n_eos_ids, o->n_mask_threads);
    e->n_events_max = o->n_rows_max + n_seats;
    e->events = xcalloc(e->n_events_max, sizeof *e->events);
    e->sorted = xcalloc(e->n_events_max, sizeof *e->sorted);
    e->firsts = xcalloc((size_t)o->n_rows_max + n_seats + BEAM_FIRSTS_MAX, sizeof *e->firsts);
    e->routers = xcalloc(o->n_routers_max, sizeof *e->routers);
    e->router_counts = xcalloc(o->n_routers_max, sizeof *e->router_counts);
    e->drop_below = xcalloc(o->n_routers_max, sizeof *e->drop_below);
    e->kv_events = o->kv_events ? xcalloc(ENGINE_KV_EVENTS, sizeof *e->kv_events) : NULL;
    if (o->kv_events)
        kv_walks_init(&e->kv_walks, o->n_routers_max);
    for (e->n_buckets = 64; e->n_buckets < o->n_requests_max; e->n_buckets *= 2)
        ;
    e->buckets = xcalloc(e->n_buckets, sizeof(struct req *));
    fill_random(&e->hash_seed, sizeof e->hash_seed);
    e->next_deadline_ns = UINT64_MAX;
}

static void poke(void *arg) {
    inbox_poke(arg);
}

enum rc engine_new(struct engine **out, const struct engine_opts *o, struct err *err) {
    struct kv_group groups[KV_GROUPS_MAX];
    enum rc rc = check_opts(o, err);
    if (rc != RC_OK)
        return rc;
    struct engine *e = xcalloc(1, sizeof *e);
    e->opts = *o;
    for (uint32_t g = 0; g < o->n_groups; g++)
        e->groups[g] = o->groups[g];
    e->opts.groups = e->groups;
    e->eos_ids = xcalloc((size_t)o->n_eos_ids + 1, sizeof *e->eos_ids);
    for (uint32_t i = 0; i < o->n_eos_ids; i++)
        e->eos_ids[i] = o->eos_ids[i];
    e->opts.eos_ids = e->eos_ids;
    rc = make_pools(e, groups, err);
    if (rc == RC_OK && o->token_budget == 0)
        rc = engine_measure(e, &e->opts.token_budget, err);
    if (o->bidirectional || o->whole_prompts)
        e->opts.token_budget = MAX(e->opts.token_budget, o->max_len);
    if (rc != RC_OK)
        goto out;
    struct sched_opts so = {.groups = groups,
                            .n_groups = o->n_groups,
                            .max_len = o->max_len,
                            .n_seqs_max = o->n_seqs_max,
                            .token_budget = e->opts.token_budget,
                            .n_rows_max = o->n_rows_max,
                            .long_prefill_tokens = o->long_prefill_tokens,
                            .policy = o->policy,
                            .whole_prompts = o->bidirectional || o->whole_prompts,
                            .prefix_cache = o->prefix_cache,
                            .n_events_max = o->kv_events ? ENGINE_KV_EVENTS : 0};
    fill_random(&so.prefix_seed, sizeof so.prefix_seed);
    sched_init(&e->sched, &so);
    make_buffers(e);
    inbox_init(&e->inbox, o->n_requests_max, o->n_routers_max);
    CHECK(pthread_mutex_init(&e->stats_lock, NULL) == 0);
    stats_publish(e, 0, 0);
    if (o->constraints)
        constraints_on_done(o->constraints, poke, &e->inbox);
    rc = kvx_new(e, err);
    if (rc != RC_OK) {
        engine_free(e);
        return rc;
    }
    *out = e;
    return RC_OK;
out:
    for (uint32_t g = 0; g < o->n_groups; g++)
        if (e->kv[g])
            o->ops->kv_free(o->be, e->kv[g]);
    free(e->eos_ids);
    free(e);
    return rc;
}

enum rc engine_start(struct engine *e, struct err *err) {
    sigset_t all, before;
    CHECK(!e->started);
    /* Signals are for the main thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&e->thread, NULL, engine_main, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (errno)
        return err_io(err, "engine thread");
    pthread_setname_np(e->thread, "engine");
    e->started = true;
    return RC_OK;
}

void engine_stop(struct engine *e) {
    pthread_mutex_lock(&e->inbox.lock);
    e->inbox.stopping = true;
    pthread_cond_signal(&e->inbox.filled);
    pthread_mutex_unlock(&e->inbox.lock);
    if (e->started)
        pthread_join(e->thread, NULL);
    e->started = false;
}

void engine_free(struct engine *e) {
    if (!e)
        return;
    CHECK(!e->started);
    kvx_free(e);
    if (e->opts.constraints)
        constraints_on_done(e->opts.constraints, NULL, NULL);
    masks_free(e->masks);
    sched_fini(&e->sched);
    batch_fini(&e->arrays);
    inbox_fini(&e->inbox);
    pthread_mutex_destroy(&e->stats_lock);
    for (uint32_t g = 0; g < e->opts.n_groups; g++)
        e->opts.ops->kv_free(e->opts.be, e->kv[g]);
    free(e->rows);
    free(e->results);
    free(e->flight.seqs);
    free(e->flight.rows);
    free(e->flight.results);
    free(e->flight.row_jobs);
    free(e->flight.top_ids);
    free(e->flight.top_logprobs);
    free(e->raw_results);
    free(e->proc_rows);
    free(e->proc_logits);
    free(e->beam_logits);
    free(e->prompt_rows);
    free(e->copies);
    free(e->row_jobs);
    free(e->top_ids);
    free(e->top_logprobs);
    free(e->hidden);
    free(e->kinds);
    free(e->events);
    free(e->sorted);
    free(e->firsts);
    free(e->routers);
    free(e->router_counts);
    free(e->drop_below);
    free(e->kv_events);
    kv_walks_fini(&e->kv_walks);
    free(e->buckets);
    free(e->eos_ids);
    free(e);
}

uint32_t engine_seats(const struct engine *e) {
    return e->sched.n_seats;
}

uint32_t engine_token_budget(const struct engine *e) {
    return e->opts.token_budget;
}
