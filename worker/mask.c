#include "worker/mask.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/clock.h"

struct masks {
    uint32_t n_rows_max, n_words, n_eos;
    uint32_t *eos;         /* [n_eos] */
    uint32_t *at_end;      /* [n_words] the end tokens */
    struct mask_job *jobs; /* [n_rows_max] */
    uint32_t *bits;        /* [n_bits][n_words] */
    uint32_t n_bits;       /* masks there is room for */
    uint32_t n_jobs;
    bool running;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint32_t round, n_round; /* under lock: of the helpers' jobs */
    uint32_t n_done;         /* under lock */
    bool stopping;           /* under lock */
    _Atomic uint64_t
        ticket; /* round << 32 | next job: a helper that comes late takes none of another round */
    unsigned n_threads;
    pthread_t threads[];
};

/* ---- one sequence ---------------------------------------------------------------------------------- */

static bool holds(const uint32_t *ids, uint32_t n, uint32_t id) {
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* take: the run follows one token of the output. */
static enum rc take(const struct masks *m, struct seq *q, uint32_t token, struct err *e) {
    const struct req *r = q->req;
    if (!q->run_on) {
        q->run_on = holds(r->starts_after, r->n_starts_after, token);
        return RC_OK;
    }
    if (q->run_ended)
        return RC_OK;
    if (holds(m->eos, m->n_eos, token)) {
        q->run_ended = true;
        return RC_OK;
    }
    return gram_run_accept(q->run, token, e);
}

static enum rc catch_up(const struct masks *m, struct seq *q, struct err *e) {
    const struct req *r = q->req;
    if (!q->run) {
        q->run = constraint_run(r->constraint);
        q->run_on = r->n_starts_after == 0;
    }
    enum rc rc = RC_OK;
    for (; q->n_run < q->n_out && rc == RC_OK; q->n_run++)
        rc = take(m, q, q->out[q->n_run], e);
    return rc;
}

/* mask_now: of what may come next, within what the request allows anyway. */
static enum rc mask_now(const struct masks *m, struct seq *q, uint32_t *bits, struct err *e) {
    enum rc rc = RC_OK;
    if (q->run_ended)
        memcpy(bits, m->at_end, m->n_words * sizeof *bits);
    else
        rc = gram_run_mask(q->run, bits, e);
    for (uint32_t i = 0; q->req->allowed && rc == RC_OK && i < m->n_words; i++)
        bits[i] &= q->req->allowed[i];
    return rc;
}

/* only_bit: the one token allowed; false if there is none or another. */
static bool only_bit(const uint32_t *bits, uint32_t n_words, uint32_t *id) {
    bool found = false;
    for (uint32_t i = 0; i < n_words; i++) {
        if (!bits[i])
            continue;
        if (found || (bits[i] & (bits[i] - 1)))
            return false;
        found = true;
        *id = i * 32 + (uint32_t)__builtin_ctz(bits[i]);
    }
    return found;
}

/* follow: the chain of tokens that must come, from the mask in `bits` on, which is spoilt. The run is behind
 * the chain afterwards, as the output will be: the sampler cannot but draw its first token. */
static void follow(const struct masks *m, struct mask_job *j, uint32_t *bits) {
    struct seq *q = j->q;
    const struct req *r = q->req;
    struct err e;
    uint32_t id, n_most = MIN(r->max_tokens - q->n_out, (uint32_t)MASK_FORCED_MAX);
    while (j->n_forced < n_most && only_bit(bits, m->n_words, &id)) {
        if (q->n_out + j->n_forced < r->min_tokens && req_stops_at(r, id))
            return; /* banned so early */
        if (take(m, q, id, &e))
            return;
        q->n_run++;
        j->forced[j->n_forced++] = id;
        if (q->run_ended || req_stops_at(r, id) || mask_now(m, q, bits, &e))
            return;
    }
}

static void run_job(const struct masks *m, struct mask_job *j, uint32_t *bits) {
    uint64_t start_ns = clock_ns();
    struct seq *q = j->q;
    enum rc rc = catch_up(m, q, &j->why);
    if (rc == RC_OK && q->run_on) {
        rc = mask_now(m, q, bits, &j->why);
        j->mask = bits;
        uint32_t id;
        /* Log-probabilities are of steps, so with them every token has one; and so it is with banned words
         * and logits processors. */
        if (rc == RC_OK && q->req->n_logprobs < 0 && !q->req->n_words && !q->req->n_procs &&
            only_bit(bits, m->n_words, &id)) {
            uint32_t *ahead = bits + m->n_words;
            memcpy(ahead, bits, m->n_words * sizeof *bits);
            follow(m, j, ahead);
        }
    }
    j->why.rc = rc;
    j->ns = clock_ns() - start_ns;
}

/* ---- the helpers ----------------------------------------------------------------------------------- */

/* take_jobs: until none of the round is left. */
static void take_jobs(struct masks *m, uint32_t round, uint32_t n) {
    uint32_t n_mine = 0;
    for (uint64_t t = atomic_load(&m->ticket); (uint32_t)(t >> 32) == round && (uint32_t)t < n;) {
        if (!atomic_compare_exchange_weak(&m->ticket, &t, t + 1))
            continue;
        uint32_t i = (uint32_t)t;
        run_job(m, &m->jobs[i], m->bits + (size_t)i * 2 * m->n_words);
        n_mine++;
        t = atomic_load(&m->ticket);
    }
    if (!n_mine)
        return;
    pthread_mutex_lock(&m->lock);
    m->n_done += n_mine;
    if (m->n_done == n)
        pthread_cond_signal(&m->done);
    pthread_mutex_unlock(&m->lock);
}

static void *helper(void *arg) {
    struct masks *m = arg;
    uint32_t seen = 0;
    pthread_mutex_lock(&m->lock);
    for (;;) {
        while (!m->stopping && m->round == seen)
            pthread_cond_wait(&m->work, &m->lock);
        if (m->stopping)
            break;
        seen = m->round;
        uint32_t n = m->n_round;
        pthread_mutex_unlock(&m->lock);
        take_jobs(m, seen, n);
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* ---- a step ---------------------------------------------------------------------------------------- */

void masks_add(struct masks *m, struct seq *q, uint32_t row) {
    CHECK(!m->running && m->n_jobs < m->n_rows_max);
    m->jobs[m->n_jobs++] = (struct mask_job){.q = q, .row = row};
}

void masks_start(struct masks *m) {
    CHECK(!m->running);
    m->running = true;
    if (m->n_jobs == 0)
        return;
    if (m->n_jobs > m->n_bits) {
        m->n_bits = m->n_jobs;
        free(m->bits);
        m->bits = xreallocarray(NULL, (size_t)m->n_bits * m->n_words, 2 * sizeof *m->bits);
    }
    pthread_mutex_lock(&m->lock);
    m->round++;
    m->n_round = m->n_jobs;
    m->n_done = 0;
    atomic_store(&m->ticket, (uint64_t)m->round << 32);
    if (m->n_threads)
        pthread_cond_broadcast(&m->work);
    pthread_mutex_unlock(&m->lock);
}

const struct mask_job *masks_finish(struct masks *m, uint32_t *n) {
    CHECK(m->running);
    *n = m->n_jobs;
    if (m->n_jobs) {
        take_jobs(m, m->round, m->n_jobs);
        pthread_mutex_lock(&m->lock);
        while (m->n_done < m->n_jobs)
            pthread_cond_wait(&m->done, &m->lock);
        pthread_mutex_unlock(&m->lock);
    }
    m->n_jobs = 0;
    m->running = false;
    return m->jobs;
}

struct masks *masks_new(uint32_t n_rows_max, uint32_t n_vocab, const uint32_t *eos_ids, uint32_t n_eos_ids,
                        unsigned n_threads) {
    struct masks *m = xcalloc(1, sizeof *m + n_threads * sizeof m->threads[0]);
    m->n_rows_max = n_rows_max;
    m->n_words = (uint32_t)gram_mask_words(n_vocab);
    m->eos = xcalloc((size_t)n_eos_ids + 1, sizeof *m->eos);
    m->at_end = xcalloc(m->n_words, sizeof *m->at_end);
    m->n_eos = n_eos_ids;
    for (uint32_t i = 0; i < n_eos_ids; i++) {
        m->eos[i] = eos_ids[i];
        m->at_end[eos_ids[i] / 32] |= 1u << eos_ids[i] % 32;
    }
    m->jobs = xcalloc(n_rows_max, sizeof *m->jobs);
    CHECK(pthread_mutex_init(&m->lock, NULL) == 0 && pthread_cond_init(&m->work, NULL) == 0 &&
          pthread_cond_init(&m->done, NULL) == 0);
    m->n_threads = n_threads;
    for (unsigned i = 0; i < n_threads; i++)
        CHECK(pthread_create(&m->threads[i], NULL, helper, m) == 0);
    return m;
}

void masks_free(struct masks *m) {
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_broadcast(&m->work);
    pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; i < m->n_threads; i++)
        pthread_join(m->threads[i], NULL);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->work);
    pthread_cond_destroy(&m->done);
    free(m->eos);
    free(m->at_end);
    free(m->jobs);
    free(m->bits);
    free(m);
}
