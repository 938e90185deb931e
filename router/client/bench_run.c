/* Sending and measuring: one epoll loop, at most BENCH_CONNECTIONS_MAX exchanges at once. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "router/client/bench.h"

enum { WAKES_MAX = 256, LOOK_MS = 100, LATE_NS = 10000000 };

/* ---- the histogram ------------------------------------------------------------------------------ */

static size_t bucket_of(uint64_t v) {
    if (v < HIST_SUB)
        return (size_t)v;
    unsigned shift = 63 - (unsigned)__builtin_clzll(v) - 8; /* leaves 9 bits, of which the first is 1 */
    return (size_t)(shift + 1) * HIST_SUB + (size_t)((v >> shift) - HIST_SUB);
}

/* bucket_value: the middle of it. */
static uint64_t bucket_value(size_t i) {
    if (i < HIST_SUB)
        return i;
    unsigned shift = (unsigned)(i / HIST_SUB) - 1;
    return ((uint64_t)(i % HIST_SUB + HIST_SUB) << shift) + (((uint64_t)1 << shift) >> 1);
}

void hist_add(struct hist *h, uint64_t ns) {
    h->buckets[bucket_of(ns)]++;
    h->n++;
    h->sum += (double)ns;
    h->max = MAX(h->max, ns);
}

uint64_t hist_quantile(const struct hist *h, double q) {
    uint64_t seen = 0;
    for (size_t i = 0; h->n && i < HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > 0 && (double)seen >= q * (double)h->n)
            return MIN(bucket_value(i), h->max);
    }
    return 0;
}

/* ---- one request -------------------------------------------------------------------------------- */

struct load;
struct slot {
    struct exchange x;
    struct load *load;
    bool open;
    short wants;                                  /* as epoll knows it */
    uint64_t due_ns, start_ns, first_ns, last_ns; /* first, last: output; 0: none yet */
    uint64_t n_events;                            /* with output */
    struct chunk chunk;
    bool complete;
    enum rc rc;
    struct err e;
};

struct load {
    const struct bench_opts *o;
    const struct target *t;
    const struct bench_fit *fit;
    const struct bench_item *items;
    struct bench_result *r;
    struct slot *slots; /* [n_slots] */
    unsigned n_slots, n_open;
    uint64_t start_ns;
    int64_t n_sent;
    int epoll, timer;
};

static bool on_event(void *arg, struct str data) {
    struct slot *s = arg;
    uint64_t now = clock_ns();
    s->rc = chunk_read(data, &s->chunk, &s->e);
    if (s->rc)
        return false;
    /* A finish without any text before it stands for the output. */
    if (s->chunk.has_output || (s->chunk.finished && !s->first_ns)) {
        if (s->first_ns)
            hist_add(&s->load->r->times[TIME_ITL], now - s->last_ns);
        else
            s->first_ns = now;
        s->last_ns = now;
        s->n_events++;
    }
    s->complete |= s->chunk.finished;
    return !s->chunk.last;
}

static void count_failure(struct bench_result *r, const char *why) {
    unsigned i = 0;
    r->n_failed++;
    while (i < r->n_reasons && i < BENCH_REASONS_MAX - 1 &&
           strncmp(r->reasons[i].text, why, sizeof r->reasons[i].text - 1))
        i++;
    if (i == r->n_reasons) {
        const char *text = i == BENCH_REASONS_MAX - 1 ? "other reasons" : why;
        snprintf(r->reasons[i].text, sizeof r->reasons[i].text, "%.255s", text);
        r->n_reasons++;
    }
    r->reasons[i].n++;
}

static void count_success(struct slot *s, uint64_t now) {
    struct bench_result *r = s->load->r;
    const uint64_t *goal = s->load->o->goal_ns;
    int64_t n = s->chunk.usage.n_completion;
    if (n < 0) {
        r->n_without_usage++;
        n = (int64_t)s->n_events;
    }
    uint64_t ttft = s->first_ns - s->due_ns, e2e = now - s->due_ns;
    uint64_t tpot = n > 1 ? (s->last_ns - s->first_ns) / (uint64_t)(n - 1) : 0;
    r->n_done++;
    r->n_completion += n;
    r->n_prompt += MAX(s->chunk.usage.n_prompt, (int64_t)0);
    hist_add(&r->times[TIME_TTFT], ttft);
    hist_add(&r->times[TIME_E2E], e2e);
    if (n > 1)
        hist_add(&r->times[TIME_TPOT], tpot);
    r->n_good +=
        (!goal[0] || ttft <= goal[0]) && (!goal[1] || tpot <= goal[1]) && (!goal[2] || e2e <= goal[2]);
}

/* finish: rc and e tell how the exchange ended; the slot is free afterwards. */
static void finish(struct slot *s, enum rc rc, struct err *e) {
    uint64_t now = clock_ns();
    if (!rc)
        rc = api_check(&s->x, e);
    if (!rc && s->rc) {
        rc = s->rc;
        *e = s->e;
    } else if (!rc && !s->x.resp.event_stream) {
        rc = err_set(e, RC_PROTO, NULL, "the answer is no event stream");
    } else if (!rc && !s->complete) {
        rc = err_set(e, RC_CLOSED, NULL, "the stream ended before the answer did");
    }
    if (rc)
        count_failure(s->load->r, e->msg);
    else
        count_success(s, now);
    exchange_close(&s->x); /* epoll forgets a descriptor that is closed */
    s->open = false;
    s->load->n_open--;
}

/* watch: tells epoll what the exchange waits for. */
static void watch(struct slot *s, int op) {
    short wants = exchange_wants(&s->x);
    if (op == EPOLL_CTL_MOD && wants == s->wants)
        return;
    struct epoll_event ev = {.data.ptr = s};
    ev.events = (wants & POLLIN ? EPOLLIN : 0u) | (wants & POLLOUT ? EPOLLOUT : 0u);
    CHECK(epoll_ctl(s->load->epoll, op, s->x.fd, &ev) == 0);
    s->wants = wants;
}

static void launch(struct load *l, struct slot *s, const struct bench_item *item) {
    struct buf body = {0}, request = {0};
    struct err e = {0};
    *s = (struct slot){.load = l, .open = true, .chunk.usage = {-1, -1}};
    bench_body(l->o, l->fit, item, &body);
    target_request(l->t, l->o->chat ? "/chat/completions" : "/completions", l->o->key, buf_str(&body),
                   &request);
    buf_fini(&body);
    s->start_ns = clock_ns();
    s->due_ns = l->o->rate > 0 ? l->start_ns + item->due_ns : s->start_ns;
    l->r->n_late += s->start_ns - s->due_ns > LATE_NS;
    l->n_open++;
    l->r->n_open_max = MAX(l->r->n_open_max, l->n_open);
    enum rc rc = exchange_start(&s->x, l->t, &request, on_event, s, &e);
    if (rc)
        finish(s, rc, &e);
    else
        watch(s, EPOLL_CTL_ADD);
}

/* ---- the loop ----------------------------------------------------------------------------------- */

/* launch_due: all that may start now. In an open loop the timer is set to the next arrival. */
static void launch_due(struct load *l) {
    for (unsigned i = 0; i < l->n_slots && l->n_sent < l->o->n_prompts; i++) {
        if (l->slots[i].open)
            continue;
        uint64_t due_ns = l->start_ns + l->items[l->n_sent].due_ns;
        if (l->o->rate > 0 && clock_ns() < due_ns) {
            struct itimerspec at = {
                .it_value = {.tv_sec = (time_t)(due_ns / NS_PER_S), .tv_nsec = (long)(due_ns % NS_PER_S)}};
            CHECK(timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &at, NULL) == 0);
            return;
        }
        launch(l, &l->slots[i], &l->items[l->n_sent++]);
    }
}

static void step(struct slot *s) {
    struct err e = {0};
    enum rc rc = exchange_step(&s->x, &e);
    if (rc || s->x.done)
        finish(s, rc, &e);
    else
        watch(s, EPOLL_CTL_MOD);
}

static void end_overdue(struct load *l) {
    uint64_t now = clock_ns(), limit_ns = (uint64_t)(l->o->timeout_s * 1e9);
    for (unsigned i = 0; i < l->n_slots; i++)
        if (l->slots[i].open && now - l->slots[i].start_ns > limit_ns) {
            struct err e;
            enum rc rc = err_set(&e, RC_TIMEOUT, NULL, "no complete answer within %g s", l->o->timeout_s);
            finish(&l->slots[i], rc, &e);
        }
}

static enum rc loop(struct load *l, struct err *e) {
    struct epoll_event wakes[WAKES_MAX];
    uint64_t looked_ns = clock_ns();
    l->start_ns = looked_ns;
    launch_due(l);
    while (l->n_open || l->n_sent < l->o->n_prompts) {
        int n = epoll_wait(l->epoll, wakes, WAKES_MAX, LOOK_MS);
        if (n < 0 && errno != EINTR)
            return err_io(e, "epoll_wait");
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (wakes[i].data.ptr)
                step(wakes[i].data.ptr);
            else if (read(l->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                return err_io(e, "timer");
        }
        if (clock_ns() - looked_ns > LOOK_MS * NS_PER_MS) {
            end_overdue(l);
            looked_ns = clock_ns();
        }
        launch_due(l);
    }
    l->r->took_ns = clock_ns() - l->start_ns;
    return RC_OK;
}

enum rc bench_run(const struct bench_opts *o, const struct target *t, const struct bench_fit *fit,
                  const struct bench_item *items, struct bench_result *r, struct err *e) {
    struct load l = {.o = o, .t = t, .fit = fit, .items = items, .r = r};
    struct epoll_event ev = {.events = EPOLLIN};
    struct rlimit files;
    int64_t most = o->rate > 0 ? BENCH_CONNECTIONS_MAX : o->n_concurrent;
    enum rc rc;
    if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* if not, the requests that find no descriptor say so */
    }
    l.n_slots = (unsigned)MIN(most, o->n_prompts);
    l.slots = xcalloc(l.n_slots, sizeof *l.slots);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l.epoll < 0 || l.timer < 0 || epoll_ctl(l.epoll, EPOLL_CTL_ADD, l.timer, &ev))
        rc = err_io(e, "epoll");
    else
        rc = loop(&l, e);
    for (unsigned i = 0; i < l.n_slots; i++)
        if (l.slots[i].open)
            exchange_close(&l.slots[i].x);
    free(l.slots);
    if (l.epoll >= 0)
        close(l.epoll);
    if (l.timer >= 0)
        close(l.timer);
    return rc;
}
