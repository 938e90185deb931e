#include "router/trace/tracer.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/version.h"
#include "router/client/exchange.h"
#include "router/metrics.h"
#include "router/trace/settings.h"

enum {
    TRIES = 5,
    PAUSE_FIRST_MS = 250, /* doubled with every try */
    FLUSH_MS = 600,       /* for what waits when the tracer ends */
    JOIN_MS = 900
};

struct tracer {
    struct trace_settings s;
    pthread_t thread;
    int stop_fd; /* readable once it is to end */
    pthread_mutex_t lock;
    pthread_cond_t wake; /* monotonic clock */
    /* Under the lock: */
    struct rmetrics *metrics; /* NULL: gone, the thread is on its own */
    struct trace_record *first, *last;
    uint64_t n_spans; /* waiting */
    bool stopping;
    uint64_t stop_ns; /* when that was said */
    /* The thread's own: */
    struct target target;
    bool open, in_trouble;
};

/* ---- what loops call --------------------------------------------------------------------------------- */

struct trace_record *trace_begin(const struct tracer *t, struct str parent, struct str state) {
    struct trace_context c = {.has_parent = false};
    bool known = trace_parent_read(parent, &c);
    if (!t && !known)
        return NULL;
    struct trace_record *r = xcalloc(1, sizeof *r);
    r->from = c;
    if (!known)
        fill_random(r->from.trace.b, sizeof r->from.trace.b);
    r->from.sampled = t && trace_sampler_takes(&t->s.sampler, &r->from);
    if (r->from.sampled) {
        fill_random(r->span, sizeof r->span);
        r->span[0] |= 1; /* an id is never all zero */
    }
    if (known && trace_state_good(state))
        memcpy(r->state, state.p, state.n);
    r->worker = -1;
    return r;
}

static void count(struct tracer *t, enum span_end how, uint64_t n) {
    if (t->metrics && n)
        rmetrics_spans(t->metrics, how, n);
}

void tracer_add(struct tracer *t, struct trace_record *r) {
    uint64_t n = trace_record_spans(r);
    pthread_mutex_lock(&t->lock);
    bool room = !t->stopping && t->n_spans + n <= t->s.queue_max;
    if (room) {
        r->next = NULL;
        *(t->last ? &t->last->next : &t->first) = r;
        t->last = r;
        t->n_spans += n;
        pthread_cond_signal(&t->wake);
    } else {
        count(t, SPAN_DROPPED, n);
    }
    pthread_mutex_unlock(&t->lock);
    if (!room)
        free(r);
}

/* ---- the thread -------------------------------------------------------------------------------------- */

static void records_free(struct trace_record *r) {
    for (struct trace_record *next; r; r = next) {
        next = r->next;
        free(r);
    }
}

static struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* take_batch: waits until a batch is full, or has waited long enough, or the tracer ends; then its records, at least
 * one if there are any, and no more spans than a batch has. NULL: it ends, and nothing is left. */
static struct trace_record *take_batch(struct tracer *t, uint64_t *n_spans) {
    struct trace_record *first;
    uint64_t due_ns = 0;
    *n_spans = 0;
    pthread_mutex_lock(&t->lock);
    while (!t->stopping && t->n_spans < t->s.batch_max) {
        if (!t->first) {
            pthread_cond_wait(&t->wake, &t->lock);
            continue;
        }
        if (!due_ns)
            due_ns = clock_ns() + t->s.delay_ms * NS_PER_MS;
        struct timespec until = timespec_of(due_ns);
        if (pthread_cond_timedwait(&t->wake, &t->lock, &until) == ETIMEDOUT)
            break;
    }
    first = t->first;
    struct trace_record *last = NULL;
    for (struct trace_record *r = first; r; r = r->next) {
        uint64_t n = trace_record_spans(r);
        if (last && *n_spans + n > t->s.batch_max)
            break;
        *n_spans += n;
        last = r;
    }
    if (last) {
        t->first = last->next;
        last->next = NULL;
        t->last = t->first ? t->last : NULL;
        t->n_spans -= *n_spans;
    }
    pthread_mutex_unlock(&t->lock);
    return first;
}

/* left_ms: of a limit that began at begin_ns; less once the tracer ends. */
static uint64_t left_ms(struct tracer *t, uint64_t begin_ns, uint64_t limit_ms) {
    uint64_t end_ns = begin_ns + limit_ms * NS_PER_MS, now = clock_ns();
    pthread_mutex_lock(&t->lock);
    if (t->stopping)
        end_ns = MIN(end_ns, t->stop_ns + FLUSH_MS * NS_PER_MS);
    pthread_mutex_unlock(&t->lock);
    return end_ns > now ? (end_ns - now) / NS_PER_MS + 1 : 0;
}

/* talk: until the answer is there, or the time is over. The end of the tracer only makes that shorter. */
static enum rc talk(struct tracer *t, struct exchange *x, struct err *e) {
    uint64_t begin_ns = clock_ns(), ms;
    bool told = false;
    enum rc rc = RC_OK;
    while (rc == RC_OK && !x->done) {
        if ((ms = left_ms(t, begin_ns, t->s.timeout_ms)) == 0)
            return err_set(e, RC_TIMEOUT, NULL, "the collector does not answer");
        struct pollfd p[2] = {{.fd = x->fd, .events = exchange_wants(x)}, {.fd = t->stop_fd, .events = POLLIN}};
        if (poll(p, told ? 1 : 2, (int)ms) < 0 && errno != EINTR)
            return err_io(e, "poll");
        told = told || p[1].revents;
        rc = exchange_step(x, e);
    }
    return rc;
}

static void write_request(const struct tracer *t, struct str body, struct buf *out) {
    const struct url *u = &t->target.url;
    bool v6 = strchr(u->host, ':') != NULL;
    buf_addf(out, "POST %s HTTP/1.1\r\nHost: %s%s%s:%s\r\n", u->path, v6 ? "[" : "", u->host, v6 ? "]" : "", u->port);
    buf_addz(out, "User-Agent: weir/" WEIR_VERSION "\r\nConnection: close\r\n");
    buf_addf(out, "Content-Type: application/x-protobuf\r\nContent-Length: %zu\r\n", body.n);
    for (size_t i = 0; i < t->s.headers.n; i++)
        buf_addf(out, "%s: %s\r\n", t->s.headers.v[i].key, t->s.headers.v[i].value);
    buf_addz(out, "\r\n");
    buf_add_str(out, body);
}

static enum rc open_target(struct tracer *t, struct err *e) {
    if (t->open)
        return RC_OK;
    enum rc rc = target_open(&t->target, t->s.url, false, e);
    if (rc == RC_OK && t->s.ca_file && t->target.tls &&
        SSL_CTX_load_verify_locations(t->target.tls, t->s.ca_file, NULL) != 1) {
        target_close(&t->target);
        rc = err_set(e, RC_IO, NULL, "%.200s: no certificates can be read from it", t->s.ca_file);
    }
    t->open = rc == RC_OK;
    return rc;
}

/* post: one try. RC_AGAIN: another one may do better. */
static enum rc post(struct tracer *t, struct str body, uint64_t *n_rejected, struct err *e) {
    struct exchange x = {.fd = -1};
    struct buf request = {0};
    *n_rejected = 0;
    if (open_target(t, e) != RC_OK)
        return RC_AGAIN;
    write_request(t, body, &request);
    enum rc rc = exchange_start(&x, &t->target, &request, NULL, NULL, e);
    if (rc == RC_OK)
        rc = talk(t, &x, e);
    int status = x.resp.status;
    if (rc == RC_OK && status >= 200 && status < 300) {
        *n_rejected = trace_rejected(buf_str(&x.body));
    } else if (rc == RC_OK) {
        bool busy = status == 429 || status == 502 || status == 503 || status == 504;
        rc = err_set(e, busy ? RC_AGAIN : RC_INVALID, NULL, "the collector answers %d", status);
    } else {
        rc = RC_AGAIN;
    }
    exchange_close(&x);
    if (rc != RC_OK) { /* its name may mean another address by now */
        target_close(&t->target);
        t->open = false;
    }
    return rc;
}

/* rest: between two tries. False: there is no time for another one. */
static bool rest(struct tracer *t, uint64_t ms) {
    struct pollfd p = {.fd = t->stop_fd, .events = POLLIN};
    uint64_t begin_ns = clock_ns(), left;
    while ((left = left_ms(t, begin_ns, ms)) > 0)
        if (poll(&p, 1, (int)left) > 0)
            return false; /* what could not be sent so far is not sent in what time is left either */
    return true;
}

static void send_batch(struct tracer *t, const struct trace_record *batch, uint64_t n_spans) {
    struct timespec wall;
    struct buf body = {0};
    struct err e = {0};
    uint64_t n_rejected = 0, pause_ms = PAUSE_FIRST_MS;
    enum rc rc = RC_AGAIN;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t offset_ns =
        (int64_t)((uint64_t)wall.tv_sec * NS_PER_S + (uint64_t)wall.tv_nsec) - (int64_t)clock_ns();
    trace_encode(batch, t->s.service, &t->s.resource, offset_ns, &body);
    err_set(&e, RC_TIMEOUT, NULL, "there was no time left");
    for (int k = 0; k < TRIES && rc == RC_AGAIN && left_ms(t, clock_ns(), t->s.timeout_ms); k++, pause_ms *= 2) {
        if (k && !rest(t, pause_ms))
            break;
        rc = post(t, buf_str(&body), &n_rejected, &e);
    }
    buf_fini(&body);
    if (rc != RC_OK && !t->in_trouble)
        LOG(LOG_WARN, "traces cannot be sent", F_STR("endpoint", t->s.url), F_STR("reason", e.msg));
    t->in_trouble = rc != RC_OK;
    n_rejected = rc == RC_OK ? MIN(n_rejected, n_spans) : n_spans;
    pthread_mutex_lock(&t->lock);
    count(t, SPAN_FAILED, n_rejected);
    count(t, SPAN_SENT, n_spans - n_rejected);
    pthread_mutex_unlock(&t->lock);
}

static void *tracer_main(void *arg) {
    struct tracer *t = arg;
    struct trace_record *batch;
    uint64_t n_spans;
    while ((batch = take_batch(t, &n_spans)) != NULL) {
        send_batch(t, batch, n_spans);
        records_free(batch);
    }
    if (t->open)
        target_close(&t->target);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------------- */

enum rc tracer_check(const char *endpoint, struct err *e) {
    struct trace_settings s;
    enum rc rc = trace_settings_read(&s, endpoint, getenv, e);
    if (rc == RC_OK)
        trace_settings_fini(&s);
    return rc;
}

enum rc tracer_new(struct tracer **out, const char *endpoint, struct rmetrics *m, struct err *e) {
    struct trace_settings s;
    *out = NULL;
    enum rc rc = trace_settings_read(&s, endpoint, getenv, e);
    if (rc != RC_OK)
        return rc;
    if (s.disabled) {
        trace_settings_fini(&s);
        return RC_OK;
    }
    struct tracer *t = xcalloc(1, sizeof *t);
    pthread_condattr_t attr;
    t->s = s;
    t->metrics = m;
    t->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(t->stop_fd >= 0);
    CHECK(pthread_condattr_init(&attr) == 0 && pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0 && pthread_cond_init(&t->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
    CHECK(pthread_create(&t->thread, NULL, tracer_main, t) == 0);
    *out = t;
    return RC_OK;
}

void tracer_free(struct tracer *t) {
    uint64_t one = 1;
    struct timespec until;
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    t->stop_ns = clock_ns();
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    CHECK(write(t->stop_fd, &one, sizeof one) == sizeof one); /* never read: it stays readable */
    clock_gettime(CLOCK_REALTIME, &until);
    until = timespec_of((uint64_t)until.tv_sec * NS_PER_S + (uint64_t)until.tv_nsec + JOIN_MS * NS_PER_MS);
    if (pthread_timedjoin_np(t->thread, NULL, &until) != 0) {
        /* It looks a name up, which nothing can end. The process does not wait for that: the thread ends with it, and
         * what it holds with the thread. */
        pthread_mutex_lock(&t->lock);
        t->metrics = NULL;
        pthread_mutex_unlock(&t->lock);
        pthread_detach(t->thread);
        return;
    }
    records_free(t->first);
    trace_settings_fini(&t->s);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    close(t->stop_fd);
    free(t);
}
