#include "worker/mock.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "worker/mock_cache.h"

/* run: one live sample. The request is shared by its samples and counted. */
struct run {
    struct req *req;
    uint32_t sample, n_out, n_resumed;
    uint64_t starts_ns;   /* the prompt is done; UINT64_MAX: its turn has not come */
    bool aborted, silent; /* silent: its router is gone */
    bool begun;           /* its first event is out */
    uint32_t n_cached;
};
struct mock {
    struct mock_opts o;
    uint32_t *eos;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct tok_ids text; /* what is said, if there is a text_path */
    unsigned n_faults;     /* of the script, that have come */
    uint64_t frozen_ns;    /* no step before */
    uint64_t n_refusals;   /* requests still to be refused */
    char *text_path;
    struct run *runs; /* [n] the first n_seqs_max run, the others wait, in the order of an engine's (seq_order) */
    struct fair fair;
    size_t n, cap;
    struct mock_cache *cache; /* NULL: none */
    uint64_t prefill_ns;      /* with it: when the last prompt is done */
    bool poked; /* there may be something to tell of the cache */
    bool stopping, draining, drained;
    struct engine_stats stats;
    /* the thread's own */
    struct token_out *out;
    struct first_out *first;
    size_t cap_out;
};

uint32_t mock_token(const struct mock_opts *o, uint64_t seed, uint32_t i) {
    for (uint64_t k = 0;; k++) {
        uint32_t id = (uint32_t)(hash_u64(seed + (uint64_t)i * 0x9E3779B97F4A7C15ull + k) % o->n_vocab);
        bool is_eos = false;
        for (uint32_t e = 0; e < o->n_eos_ids; e++)
            is_eos |= id == o->eos_ids[e];
        if (!is_eos || k > 64)
            return id;
    }
}

static uint64_t n_prefill(const struct req *r) {
    uint64_t n = r->n_prompt;
    for (uint32_t k = 0; k < r->n_resume; k++)
        n += r->resume[k].n_tokens;
    return n;
}

/* req.n_live counts its runs; the last one frees it. */
static void drop_req(struct mock *m, struct req *r) {
    if (--r->n_live)
        return;
    if (m->cache)
        mock_cache_drop(m->cache, r);
    req_free(r);
}

static bool same_router(const struct req *r, uint32_t router, uint32_t epoch) {
    return r->router == router && r->router_epoch == epoch;
}

/* bill: of a run that is over. The first of a request's brings its prompt along. */
static void bill(struct mock *m, const struct run *r) {
    struct req *q = r->req;
    uint32_t n_in = q->fair_cost && !q->n_resume && r->begun ? q->n_prompt - r->n_cached : 0;
    fair_end(&m->fair, q->tenant, q->fair_cost, n_in, r->n_out - r->n_resumed, r->begun);
    q->fair_cost = 0;
}

/* ---- the thread --------------------------------------------------------------------------------- */

static void grow_out(struct mock *m) {
    if (m->cap_out >= m->n)
        return;
    m->cap_out = m->cap;
    m->out = xreallocarray(m->out, m->cap_out, sizeof *m->out);
    m->first = xreallocarray(m->first, m->cap_out, sizeof *m->first);
}

/* ---- faults -------------------------------------------------------------------------------------- */

/* fault: what the script has for the next token, one fault after the other. Called with the lock held. */
static void fault(struct mock *m, uint64_t now, struct token_out *t) {
    while (m->n_faults < m->o.script.n && m->o.script.fault[m->n_faults].token <= m->stats.generated_tokens) {
        const struct mock_fault *f = &m->o.script.fault[m->n_faults++];
        switch (f->kind) {
        case MOCK_DIE:
            kill(getpid(), SIGKILL);
            break;
        case MOCK_STOP:
            kill(getpid(), SIGSTOP);
            break;
        case MOCK_FREEZE:
            m->frozen_ns = f->arg < 0 ? UINT64_MAX : now + (uint64_t)(f->arg * (double)NS_PER_S);
            break;
        case MOCK_GARBAGE:
            t->token = m->o.n_vocab;
            break;
        case MOCK_SLOW:
            m->o.step_ns = (uint64_t)(f->arg * (double)NS_PER_MS);
            break;
        default:
            m->n_refusals = f->arg < 0 ? UINT64_MAX : (uint64_t)f->arg;
            break;
        }
    }
}

/* step_run: this step's event of a run; false if it has none yet. */
static bool step_run(struct mock *m, struct run *r, uint64_t now, struct token_out *t,
                     struct first_out *first) {
    if (r->silent || (!r->aborted && now < r->starts_ns))
        return r->silent;
    const struct req *q = r->req;
    *t = (struct token_out){
        .req = q, .stream = q->stream + r->sample, .sample = r->sample, .token = SEQ_NO_TOKEN};
    if (r->aborted) {
        t->finish = FINISH_ABORT;
        m->stats.finished[FINISH_ABORT]++;
        return true;
    }
    bool said = m->text_path && r->n_out >= m->text.n;
    if (q->max_tokens) {
        t->index = r->n_out;
        if (said)
            t->token = m->eos[0];
        else
            t->token =
                m->text_path ? m->text.v[r->n_out] : mock_token(&m->o, q->seed + r->sample, r->n_out);
        t->has_logprob = q->n_logprobs >= 0;
        t->rank = 1;
        if (t->has_logprob)
            t->logprob = -1;
        fault(m, now, t);
        m->stats.generated_tokens++;
    }
    r->n_out++;
    if (!r->begun) {
        r->begun = true;
        *first = (struct first_out){
            .n_prompt = q->n_prompt, .n_cached = r->n_cached, .prefill_ns = now - q->arrival_ns};
        t->first = first;
        m->stats.prompt_tokens += q->n_prompt;
    }
    if (said && q->max_tokens) {
        t->finish = FINISH_STOP;
        t->eos = true;
        t->stop_id = m->eos[0];
        m->stats.finished[FINISH_STOP]++;
    } else if (r->n_out >= q->max_tokens) {
        t->finish = FINISH_LENGTH;
        m->stats.finished[FINISH_LENGTH]++;
    }
    return true;
}

/* send_step: groups the events by router, in order, and reports them. m->out is sorted by router in place. */
static int by_router(const void *a, const void *b) {
    const struct token_out *x = a, *y = b;
    uint64_t kx = (uint64_t)x->req->router << 32 | x->req->router_epoch,
             ky = (uint64_t)y->req->router << 32 | y->req->router_epoch;
    return (kx > ky) - (kx < ky);
}

static void send_step(struct mock *m, size_t n_out, struct step_out *out) {
    struct router_out routers[IO_ROUTERS_MAX];
    uint32_t n = 0;
    if (n_out)
        qsort(m->out, n_out, sizeof *m->out, by_router);
    for (size_t i = 0; i < n_out; i++) {
        const struct req *q = m->out[i].req;
        if (n && same_router(q, routers[n - 1].router, routers[n - 1].router_epoch)) {
            routers[n - 1].n_tokens++;
            continue;
        }
        if (n == IO_ROUTERS_MAX)
            break;
        routers[n++] = (struct router_out){q->router, q->router_epoch, 1, &m->out[i]};
    }
    out->step = m->stats.steps;
    out->n_routers = n;
    out->routers = routers;
    m->o.on_step(m->o.arg, out);
}

/* prefill: with a cache: begins with the prompts whose turn has come, in order of arrival. */
static void prefill(struct mock *m, uint64_t now, size_t limit) {
    for (size_t i = 0; i < limit && m->prefill_ns <= now; i++) {
        struct run *r = &m->runs[i];
        struct req *q = r->req;
        if (r->starts_ns != UINT64_MAX || r->aborted || r->silent)
            continue;
        uint32_t n_cached = mock_cache_admit(m->cache, q);
        m->stats.prefix_queries += q->n_prompt;
        m->stats.prefix_hits += n_cached;
        m->stats.computed_tokens += n_prefill(q) - n_cached;
        m->prefill_ns =
            MAX(m->prefill_ns, q->arrival_ns) + m->o.prefill_ns_per_token * (n_prefill(q) - n_cached);
        for (size_t k = i; k < m->n && m->runs[k].req == q; k++) {
            m->runs[k].starts_ns = m->prefill_ns;
            m->runs[k].n_cached = n_cached;
        }
    }
}

/* seat: a run that is among those that run; without a cache its prompt is computed from now on. */
static void seat(struct mock *m, struct run *r, uint64_t now) {
    fair_serve(&m->fair, r->req->fair);
    if (r->starts_ns == UINT64_MAX && !m->cache)
        r->starts_ns = now + m->o.prefill_ns_per_token * n_prefill(r->req);
}

/* step: one token for each run that is due; called and left with the lock held. True: more is to be told of the
 * cache. */
static bool step(struct mock *m) {
    uint64_t now = clock_ns();
    size_t n_out = 0, n_ended = 0, limit = MIN(m->n, (size_t)m->o.n_seqs_max);
    grow_out(m);
    if (m->cache)
        prefill(m, now, limit);
    struct req **ended = xcalloc(m->n, sizeof(struct req *));
    size_t kept = 0;
    for (size_t i = 0; i < m->n; i++) {
        struct run r = m->runs[i];
        bool end = false;
        if (i < limit)
            seat(m, &r, now);
        if (i < limit || r.aborted || r.silent) {
            bool event = step_run(m, &r, now, &m->out[n_out], &m->first[n_out]);
            end = r.silent || (event && m->out[n_out].finish != FINISH_NONE);
            n_out += event && !r.silent;
        }
        if (end)
            bill(m, &r);
        if (end)
            ended[n_ended++] = r.req;
        else
            m->runs[kept++] = r;
    }
    m->n = kept;
    m->stats.step_done_ns = m->n ? clock_ns() : 0;
    struct step_out out = {0};
    bool told = m->cache && mock_cache_report(m->cache, &out);
    if (n_out || told) {
        m->stats.steps++;
        pthread_mutex_unlock(&m->lock);
        send_step(m, n_out, &out);
        pthread_mutex_lock(&m->lock);
    }
    for (size_t i = 0; i < n_ended; i++)
        drop_req(m, ended[i]);
    free(ended);
    return told;
}

/* wait_frozen: some time of it. With the lock held, but for the wait. */
static void wait_frozen(struct mock *m) {
    struct timespec t = {0, 10 * 1000000};
    pthread_mutex_unlock(&m->lock);
    nanosleep(&t, NULL);
    pthread_mutex_lock(&m->lock);
}

static void *mock_loop(void *arg) {
    struct mock *m = arg;
    uint64_t next = clock_ns();
    bool more = false;
    pthread_mutex_lock(&m->lock);
    while (!m->stopping) {
        if (!m->n && !more && !m->poked) {
            if (m->draining && !m->drained) {
                m->drained = true;
                pthread_mutex_unlock(&m->lock);
                m->o.on_drained(m->o.arg);
                pthread_mutex_lock(&m->lock);
                continue;
            }
            pthread_cond_wait(&m->wake, &m->lock);
            next = clock_ns();
            continue;
        }
        m->poked = false;
        more = step(m);
        uint64_t now = clock_ns();
        next = MAX(next + m->o.step_ns + m->o.seq_ns * MIN(m->n, (size_t)m->o.n_seqs_max), now);
        while (m->frozen_ns > clock_ns() && !m->stopping)
            wait_frozen(m);
        if (next > now) {
            struct timespec t = {(time_t)(next / NS_PER_S), (long)(next % NS_PER_S)};
            pthread_mutex_unlock(&m->lock);
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
            pthread_mutex_lock(&m->lock);
        }
    }
    /* What is left ends as an engine's does: routers take it elsewhere. */
    for (size_t i = 0; i < m->n; i++)
        m->runs[i].aborted = true;
    step(m);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* ---- calls -------------------------------------------------------------------------------------- */

/* read_text: the file's text, as it is now. Called with the lock held. */
static enum rc read_text(struct mock *m, struct err *e) {
    enum { TEXT_BYTES_MAX = 1 << 20 };
    char text[4096];
    struct buf b = {0};
    FILE *f = fopen(m->text_path, "re");
    if (!f)
        return err_set(e, RC_INTERNAL, NULL, "%s cannot be read", m->text_path);
    for (size_t n; (n = fread(text, 1, sizeof text, f)) > 0 && b.len < TEXT_BYTES_MAX;)
        buf_add(&b, text, n);
    fclose(f);
    m->text.n = 0;
    tok_encode(m->o.tok, b.data ? b.data : "", b.len, NULL, 0, 0, &m->text);
    buf_fini(&b);
    return RC_OK;
}

/* place: where r's runs go: behind all that run, and before those of later requests that wait. */
static size_t place(const struct mock *m, const struct req *r) {
    size_t at = m->n;
    for (; at > m->o.n_seqs_max; at--) {
        const struct req *q = m->runs[at - 1].req;
        bool before = r->priority != q->priority ? r->priority < q->priority : r->fair < q->fair;
        if (!before)
            break;
    }
    while (at > 0 && at < m->n && m->runs[at - 1].req == m->runs[at].req)
        at++; /* samples stay together */
    return at;
}

static enum rc mock_submit(void *arg, struct req *r, struct err *e) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    if (m->draining || m->stopping) {
        pthread_mutex_unlock(&m->lock);
        return err_set(e, RC_UNAVAILABLE, NULL, "the worker is draining");
    }
    if (m->n_refusals) {
        m->n_refusals -= m->n_refusals < UINT64_MAX;
        pthread_mutex_unlock(&m->lock);
        return err_set(e, RC_UNAVAILABLE, NULL, "the worker refuses, as its script says");
    }
    enum rc rc = m->text_path ? read_text(m, e) : RC_OK;
    if (rc != RC_OK) {
        pthread_mutex_unlock(&m->lock);
        return rc;
    }
    if (m->n + r->n_samples > m->cap) {
        m->cap = MAX(2 * m->cap, m->n + r->n_samples + 64);
        m->runs = xreallocarray(m->runs, m->cap, sizeof *m->runs);
    }
    r->n_live = r->n_samples;
    r->fair = fair_arrive(&m->fair, r->tagged, r->tenant, r->n_resume ? 0 : r->n_prompt, r->n_samples, r->max_tokens,
                          &r->fair_cost);
    size_t at = place(m, r);
    memmove(m->runs + at + r->n_samples, m->runs + at, (m->n - at) * sizeof *m->runs);
    m->n += r->n_samples;
    bool waits = m->cache || at >= m->o.n_seqs_max;
    uint64_t starts = waits ? UINT64_MAX : clock_ns() + m->o.prefill_ns_per_token * n_prefill(r);
    for (uint32_t s = 0; s < r->n_samples; s++)
        m->runs[at + s] = (struct run){.req = r, .sample = s, .starts_ns = starts};
    for (uint32_t k = 0; k < r->n_resume; k++)
        m->runs[at + r->resume[k].sample].n_out = m->runs[at + r->resume[k].sample].n_resumed = r->resume[k].n_tokens;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    return RC_OK;
}

static enum rc mock_abort(void *arg, uint32_t router, uint32_t epoch, struct id128 id, bool whole,
                          uint64_t stream) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n; i++) {
        struct run *r = &m->runs[i];
        if (same_router(r->req, router, epoch) && id128_eq(r->req->id, id) &&
            (whole || r->req->stream + r->sample == stream))
            r->aborted = true;
    }
    pthread_mutex_unlock(&m->lock);
    return RC_OK;
}

static void mock_drop_router(void *arg, uint32_t router, uint32_t epoch) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n; i++)
        if (same_router(m->runs[i].req, router, epoch))
            m->runs[i].silent = true;
    if (m->cache)
        mock_cache_forget(m->cache, router, epoch);
    pthread_mutex_unlock(&m->lock);
}

static enum rc mock_reset(void *arg, uint32_t router, uint32_t epoch, uint64_t id) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    if (m->cache)
        mock_cache_reset(m->cache);
    m->poked = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    m->o.on_control(m->o.arg, router, epoch, id, true);
    return RC_OK;
}

static enum rc mock_snapshot(void *arg, uint32_t router, uint32_t epoch) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    mock_cache_snapshot(m->cache, router, epoch);
    m->poked = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    return RC_OK;
}

static void mock_drain(void *arg) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    m->draining = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
}

static void mock_stats(void *arg, struct engine_stats *out) {
    struct mock *m = arg;
    pthread_mutex_lock(&m->lock);
    *out = m->stats;
    out->running = (uint32_t)MIN(m->n, (size_t)m->o.n_seqs_max);
    out->waiting = (uint32_t)m->n - out->running;
    out->kv_total_blocks = m->o.n_blocks;
    out->kv_used_blocks = m->cache ? mock_cache_used(m->cache) : 0;
    pthread_mutex_unlock(&m->lock);
}

struct io_engine mock_engine(struct mock *m) {
    return (struct io_engine){.arg = m,
                              .submit = mock_submit,
                              .abort = mock_abort,
                              .drop_router = mock_drop_router,
                              .reset_prefix = mock_reset,
                              .drain = mock_drain,
                              .stats = mock_stats,
                              .kv_snapshot = m->cache ? mock_snapshot : NULL};
}

struct mock *mock_new(const struct mock_opts *o) {
    struct mock *m = xcalloc(1, sizeof *m);
    fair_init(&m->fair);
    m->o = *o;
    m->eos = xcalloc(o->n_eos_ids, sizeof *m->eos);
    memcpy(m->eos, o->eos_ids, o->n_eos_ids * sizeof *m->eos);
    m->o.eos_ids = m->eos;
    m->text_path = o->text_path ? xstrdup(o->text_path) : NULL;
    m->cache = o->cache_blocks ? mock_cache_new(o->cache_blocks, IO_ROUTERS_MAX) : NULL;
    CHECK(!o->text_path || (o->tok && o->n_eos_ids));
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, NULL);
    CHECK(pthread_create(&m->thread, NULL, mock_loop, m) == 0);
    return m;
}

void mock_stop(struct mock *m) {
    pthread_mutex_lock(&m->lock);
    bool running = !m->stopping;
    m->stopping = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    if (running)
        pthread_join(m->thread, NULL);
}

void mock_free(struct mock *m) {
    if (!m)
        return;
    mock_stop(m);
    for (size_t i = 0; i < m->n; i++)
        drop_req(m, m->runs[i].req);
    mock_cache_free(m->cache);
    free(m->runs);
    free(m->out);
    free(m->first);
    free(m->eos);
    free(m->text_path);
    tok_ids_fini(&m->text);
    pthread_cond_destroy(&m->wake);
    pthread_mutex_destroy(&m->lock);
    free(m);
}
