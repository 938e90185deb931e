#include "router/quota.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/clock.h"

enum { MINUTE_S = 60 };

struct bucket {
    double level;   /* below 0: it owes */
    uint32_t limit; /* its size, and what flows in in a minute; 0: it is not asked */
};
struct quota {
    _Atomic uint32_t n_refs;
    pthread_mutex_t lock; /* of what follows */
    struct bucket requests, tokens;
    uint64_t filled_ns;
};

struct quota *quota_new(struct quota_limits limits, uint64_t now_ns) {
    struct quota *q = xcalloc(1, sizeof *q);
    atomic_init(&q->n_refs, 1);
    pthread_mutex_init(&q->lock, NULL);
    q->requests = (struct bucket){limits.requests, limits.requests};
    q->tokens = (struct bucket){limits.tokens, limits.tokens};
    q->filled_ns = now_ns;
    return q;
}

struct quota *quota_hold(struct quota *q) {
    atomic_fetch_add_explicit(&q->n_refs, 1, memory_order_relaxed);
    return q;
}

void quota_drop(struct quota *q) {
    if (!q || atomic_fetch_sub_explicit(&q->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&q->lock);
    free(q);
}

/* pour: what flowed in in so many seconds. */
static void pour(struct bucket *b, double seconds) {
    b->level = fmin(b->level + b->limit * seconds / MINUTE_S, b->limit);
}

static void fill(struct quota *q, uint64_t now_ns) {
    if (now_ns <= q->filled_ns)
        return; /* another thread has read the clock later */
    double seconds = (double)(now_ns - q->filled_ns) * 1e-9;
    pour(&q->requests, seconds);
    pour(&q->tokens, seconds);
    q->filled_ns = now_ns;
}

static unsigned seconds_until(const struct bucket *b, double level) {
    double s = ceil((level - b->level) * MINUTE_S / b->limit);
    return (unsigned)fmin(fmax(s, 1), MINUTE_S);
}

void quota_change(struct quota *q, struct quota_limits limits, uint64_t now_ns) {
    pthread_mutex_lock(&q->lock);
    fill(q, now_ns);
    struct bucket *b[2] = {&q->requests, &q->tokens};
    const uint32_t limit[2] = {limits.requests, limits.tokens};
    for (int i = 0; i < 2; i++) {
        if (b[i]->limit == 0)
            b[i]->level = limit[i];
        b[i]->limit = limit[i];
        b[i]->level = fmin(b[i]->level, limit[i]);
    }
    pthread_mutex_unlock(&q->lock);
}

enum quota_verdict quota_request(struct quota *q, uint64_t now_ns, unsigned *wait_s) {
    enum quota_verdict v = QUOTA_OK;
    pthread_mutex_lock(&q->lock);
    fill(q, now_ns);
    if (q->requests.limit && q->requests.level < 1) {
        v = QUOTA_REQUESTS;
        *wait_s = seconds_until(&q->requests, 1);
    } else if (q->tokens.limit && q->tokens.level < 1) {
        v = QUOTA_TOKENS;
        *wait_s = seconds_until(&q->tokens, 1);
    } else {
        q->requests.level -= q->requests.limit != 0;
    }
    pthread_mutex_unlock(&q->lock);
    return v;
}

enum quota_verdict quota_prompt(struct quota *q, uint64_t now_ns, uint64_t n, unsigned *wait_s) {
    enum quota_verdict v = QUOTA_OK;
    pthread_mutex_lock(&q->lock);
    fill(q, now_ns);
    struct bucket *b = &q->tokens;
    double want = fmin((double)n, b->limit);
    if (b->limit && b->level < want) {
        v = QUOTA_TOKENS;
        *wait_s = seconds_until(b, want);
    } else if (b->limit) {
        b->level -= (double)n;
    }
    pthread_mutex_unlock(&q->lock);
    return v;
}

void quota_output(struct quota *q, uint64_t now_ns, uint64_t n) {
    pthread_mutex_lock(&q->lock);
    fill(q, now_ns);
    if (q->tokens.limit)
        q->tokens.level -= (double)n;
    pthread_mutex_unlock(&q->lock);
}

struct quota_limits quota_read(struct quota *q) {
    pthread_mutex_lock(&q->lock);
    struct quota_limits l = {q->requests.limit, q->tokens.limit};
    pthread_mutex_unlock(&q->lock);
    return l;
}
