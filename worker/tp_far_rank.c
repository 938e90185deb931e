/* tp_far_rank.c: a rank whose rank 0 is on another host. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/tp_far.h"

enum { DIAL_MS = 2000, AGAIN_MS = 200 };
#define PLANS_BYTES_MAX (256u << 20) /* that wait; rank 0 is one step ahead at most */

struct plan {
    struct plan *next;
    uint32_t *words;
    size_t n;
};

struct tp_far_rank {
    struct tp_wire wire;
    struct be_far meets;
    uint32_t rank;
    unsigned silent_ms;
    _Atomic(struct be_group *) group; /* once it is known how large it is */
    _Atomic bool done;                /* rank 0 has said that it is over: the connection may end */
    pthread_mutex_t mu;
    pthread_cond_t changed; /* a plan, or an answer */
    /* Under mu: */
    struct plan *first, **last;
    size_t plans_bytes;
    bool waiting, answered; /* for the answer of a call; it has come */
    void *out;              /* [n_out] of the one that waits: the reader's until it is answered */
    size_t n_out;
};

/* over: nothing to save: the compute thread may wait for others, and the process ends at once. */
static _Noreturn void over(struct tp_far_rank *r, const char *why) {
    if (atomic_load(&r->done))
        _exit(0);
    LOG(LOG_ERROR, "the group is over", F_U64("rank", r->rank), F_STR("reason", why));
    _exit(1);
}

/* ---- what rank 0 says --------------------------------------------------------------------------- */

static enum rc take_plan(struct tp_far_rank *r, uint32_t n_bytes, struct err *e) {
    struct plan *p = xcalloc(1, sizeof *p);
    if (n_bytes == 0 || n_bytes % sizeof(uint32_t)) {
        free(p);
        return err_set(e, RC_PROTO, NULL, "a plan of %u bytes", n_bytes);
    }
    p->n = n_bytes / sizeof(uint32_t);
    p->words = xmalloc(n_bytes);
    enum rc rc = tp_wire_body(&r->wire, p->words, n_bytes, r->silent_ms, e);
    pthread_mutex_lock(&r->mu);
    if (!rc && r->plans_bytes > PLANS_BYTES_MAX)
        rc = err_set(e, RC_PROTO, NULL, "more plans than may wait");
    if (!rc) {
        *r->last = p;
        r->last = &p->next;
        r->plans_bytes += n_bytes;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->mu);
    if (rc) {
        free(p->words);
        free(p);
    }
    return rc;
}

static enum rc take_answer(struct tp_far_rank *r, uint32_t n_bytes, struct err *e) {
    pthread_mutex_lock(&r->mu);
    bool due = r->waiting && !r->answered && r->n_out == n_bytes;
    pthread_mutex_unlock(&r->mu);
    if (!due)
        return err_set(e, RC_PROTO, NULL, "an answer that nobody waits for");
    enum rc rc = tp_wire_body(&r->wire, r->out, n_bytes, r->silent_ms, e); /* the caller sleeps until it is there */
    if (rc)
        return rc;
    pthread_mutex_lock(&r->mu);
    r->answered = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mu);
    return RC_OK;
}

static enum rc take_gone(struct tp_far_rank *r, uint32_t n_bytes, struct err *e) {
    char why[TPW_WHY_BYTES + 128] = "";
    enum rc rc = n_bytes < sizeof why ? tp_wire_body(&r->wire, why, n_bytes, r->silent_ms, e)
                                      : err_set(e, RC_PROTO, NULL, "a reason of %u bytes", n_bytes);
    return rc ? rc : err_set(e, RC_CLOSED, NULL, "%s", why);
}

static void *reader_main(void *arg) {
    struct tp_far_rank *r = arg;
    struct tp_wire_head h;
    struct err e = {0};
    enum rc rc = RC_OK;
    while (rc == RC_OK) {
        rc = tp_wire_recv(&r->wire, &h, r->silent_ms, &e);
        if (rc == RC_TIMEOUT)
            snprintf(e.msg, sizeof e.msg, "rank 0 did not answer for %.1f s", r->silent_ms * 1e-3);
        if (rc)
            break;
        if (h.type == TPW_PLAN)
            rc = take_plan(r, h.n_bytes, &e);
        else if (h.type == TPW_RESULT)
            rc = take_answer(r, h.n_bytes, &e);
        else if (h.type == TPW_GONE)
            rc = take_gone(r, h.n_bytes, &e);
        else if (h.type != TPW_BEAT || h.n_bytes)
            rc = err_set(&e, RC_PROTO, NULL, "a frame of type %u", h.type);
    }
    over(r, e.msg);
}

/* heart_main: processor time and exchanges, so that rank 0 sees whether this rank takes part. */
static void *heart_main(void *arg) {
    struct tp_far_rank *r = arg;
    struct err e = {0};
    for (;;) {
        struct tp_wire_beat m = {0};
        struct timespec cpu;
        struct be_group *g = atomic_load(&r->group);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
        m.cpu_ns = (uint64_t)cpu.tv_sec * NS_PER_S + (uint64_t)cpu.tv_nsec;
        m.reached = g ? __atomic_load_n(&g->reached[r->rank], __ATOMIC_RELAXED) : 0;
        if (tp_wire_send(&r->wire, TPW_BEAT, 0, &m, sizeof m, r->silent_ms, &e))
            over(r, e.msg);
        poll(NULL, 0, TP_BEAT_MS);
    }
    return NULL;
}

/* ---- the rank's side ---------------------------------------------------------------------------- */

static bool call(void *arg, const void *in, size_t n, void *out, size_t n_out) {
    struct tp_far_rank *r = arg;
    struct err e = {0};
    CHECK(n <= TPW_BODY_BYTES_MAX && n_out <= TPW_BODY_BYTES_MAX);
    pthread_mutex_lock(&r->mu);
    r->waiting = true;
    r->answered = false;
    r->out = out;
    r->n_out = n_out;
    pthread_mutex_unlock(&r->mu);
    if (tp_wire_send(&r->wire, TPW_CALL, (uint32_t)n_out, in, n, r->silent_ms, &e))
        over(r, e.msg);
    pthread_mutex_lock(&r->mu);
    while (!r->answered)
        pthread_cond_wait(&r->changed, &r->mu);
    r->waiting = false;
    pthread_mutex_unlock(&r->mu);
    return true;
}

/* begin: one attempt; true if it is over: joined, or refused for good. */
static bool begin(struct tp_far_rank *r, const struct tp_far_config *c, enum rc *rc, struct err *e) {
    *rc = tp_wire_init(&r->wire, e);
    if (*rc)
        return true;
    *rc = tp_wire_dial(&r->wire, c->url, c->tls, DIAL_MS, e);
    bool there = *rc == RC_OK;
    if (there)
        *rc = tp_wire_join(&r->wire, c->secret, c->facts, r->rank, e);
    if (*rc == RC_OK)
        return true;
    tp_wire_fini(&r->wire);
    return *rc == RC_INVALID || *rc == RC_UNAUTHORIZED;
}

/* await_leader: rank 0 may not be there yet, or may be ending: then the rank that it had is not gone yet. */
static enum rc await_leader(struct tp_far_rank *r, const struct tp_far_config *c, struct err *e) {
    enum rc rc;
    char told[sizeof e->msg] = "";
    while (!begin(r, c, &rc, e)) {
        if (strcmp(told, e->msg) != 0)
            LOG(LOG_INFO, "waiting for rank 0", F_STR("address", c->url), F_STR("reason", e->msg));
        snprintf(told, sizeof told, "%s", e->msg);
        poll(NULL, 0, AGAIN_MS);
    }
    return rc;
}

enum rc tp_far_join(struct tp_far_rank **out, const struct tp_far_config *c, uint32_t rank, unsigned silent_ms,
                    struct err *e) {
    struct tp_far_rank *r = xcalloc(1, sizeof *r);
    pthread_t reader, heart;
    r->rank = rank;
    r->silent_ms = silent_ms;
    r->last = &r->first;
    r->meets = (struct be_far){.arg = r, .call = call};
    CHECK(pthread_mutex_init(&r->mu, NULL) == 0 && pthread_cond_init(&r->changed, NULL) == 0);
    enum rc rc = await_leader(r, c, e);
    if (rc) {
        pthread_mutex_destroy(&r->mu);
        pthread_cond_destroy(&r->changed);
        free(r);
        return rc;
    }
    CHECK(pthread_create(&reader, NULL, reader_main, r) == 0 && pthread_create(&heart, NULL, heart_main, r) == 0);
    pthread_detach(reader);
    pthread_detach(heart);
    *out = r;
    return RC_OK;
}

const struct be_far *tp_far_meets(struct tp_far_rank *r) {
    return &r->meets;
}

struct be_group *tp_far_group(struct tp_far_rank *r, size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    atomic_store(&r->group, (struct be_group *)p);
    return p;
}

void tp_far_say(struct tp_far_rank *r, enum tp_wire_type type, const char *why) {
    struct err e;
    size_t n = MIN(strlen(why), (size_t)TP_WHY_BYTES - 1);
    (void)!tp_wire_send(&r->wire, type, 0, why, n, r->silent_ms, &e); /* the reader sees what became of the connection */
}

uint32_t *tp_far_next(struct tp_far_rank *r, size_t *n) {
    pthread_mutex_lock(&r->mu);
    while (!r->first)
        pthread_cond_wait(&r->changed, &r->mu);
    struct plan *p = r->first;
    r->first = p->next;
    if (!r->first)
        r->last = &r->first;
    r->plans_bytes -= p->n * sizeof *p->words;
    pthread_mutex_unlock(&r->mu);
    uint32_t *words = p->words;
    *n = p->n;
    free(p);
    return words;
}

void tp_far_done(struct tp_far_rank *r) {
    atomic_store(&r->done, true);
}
