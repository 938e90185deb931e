/* Fairness, refusals and goodput of two routers before two workers, in virtual time: real lines, counters,
 * bounds and choice of a worker on one side, the real scheduler with its order among tenants on the other. A
 * step takes 5 ms, 60 us for each token of a prompt and 0.1 ms for each sequence that decodes; the link takes
 * no time. What happens is a function of the seed.
 *
 * A tenant sends at a rate of its own, through both routers in turn. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "router/fleet/line.h"
#include "router/fleet/policy.h"
#include "router/fleet/refuse.h"
#include "worker/sched.h"

enum {
    N_ROUTERS = 2,
    N_WORKERS = 2,
    N_TENANTS_MAX = 8,
    MAX_LEN = 4096,
    SEATS = 128,
    BUDGET = 256,
    BILL_TOKENS = 32
};

struct tenant {
    double per_s; /* requests; 0: no tenant */
    uint32_t prompt_min, prompt_max, out_min, out_max;
    int32_t priority;
};
/* asked: one request, from its arrival to its end. */
struct asked {
    struct line_ticket line;
    struct asked *prev, *next; /* all that live */
    struct req *req;
    struct vtc_bill bill;
    uint32_t tenant, router, worker, n_prompt, n_out, n_unbilled;
    uint64_t came_ns;
    bool begun; /* its first token has come */
};
struct router_sim {
    struct line line;
    struct pick_load load[N_WORKERS];
    struct policy policy;
    uint64_t n_done, n_ticked;
    double done_per_s;
};
struct worker_sim {
    struct sched sched;
    struct kv_group group;
    uint64_t step_ns; /* the end of the step under way; UINT64_MAX: it is idle */
};
struct result {
    uint64_t n_in, n_refused, n_done, served[N_TENANTS_MAX]; /* of the time that is measured; served: cost */
    double tokens_per_s, p99_s[N_TENANTS_MAX];               /* to the first token */
    uint32_t n_waiting_max, n_seqs_max, n_live_max;
};
struct world {
    bool fair;
    uint32_t n_queued_max;
    struct tenant tenant[N_TENANTS_MAX];
    uint64_t next_ns[N_TENANTS_MAX], n_sent[N_TENANTS_MAX];
    uint64_t rng, now_ns, from_ns;
    struct router_sim r[N_ROUTERS];
    struct worker_sim w[N_WORKERS];
    struct asked *live;
    uint32_t n_live;
    uint64_t n_tokens; /* of output, of the time that is measured */
    float *ttft[N_TENANTS_MAX];
    uint32_t n_ttft[N_TENANTS_MAX];
    struct result out;
};
enum { TTFT_MAX = 1 << 16 };

static double uniform(struct world *x) {
    x->rng += 0x9e3779b97f4a7c15ull;
    return ((double)(hash_u64(x->rng) >> 11) + 0.5) / (double)(1ull << 53);
}

static uint32_t between(struct world *x, uint32_t lo, uint32_t hi) {
    return lo + (uint32_t)(uniform(x) * (hi - lo + 1));
}

static struct id128 tag(uint32_t i) {
    struct id128 t = {{0}};
    uint64_t h = hash_u64(i + 1);
    memcpy(t.b, &h, sizeof h);
    return t;
}

/* ---- a router ---------------------------------------------------------------------------------------- */

static void start_step(struct world *x, struct worker_sim *w);

static bool held_back(const struct world *x, const struct router_sim *r, const struct asked *a) {
    struct line_room room = {0, 0, 0, 0};
    for (int i = 0; i < N_WORKERS; i++) {
        room.seqs += r->load[i].credit_seqs;
        room.seqs_taken += r->load[i].n_seqs;
        room.tokens += r->load[i].credit_tokens;
        room.tokens_taken += r->load[i].n_tokens;
    }
    return x->fair && line_holds_back(&r->line, &a->line, 1, a->n_prompt, &room);
}

/* dispatch: false: no worker has credit for it. */
static bool dispatch(struct world *x, struct router_sim *r, struct asked *a) {
    struct policy_worker w[N_WORKERS];
    enum policy_reason why;
    for (int i = 0; i < N_WORKERS; i++)
        w[i] = (struct policy_worker){.load = &r->load[i], .id = (uint64_t)i};
    const struct policy_ask ask = {.n_seqs = 1, .n_tokens = a->n_prompt};
    int i = held_back(x, r, a) ? -1 : policy_choose(&r->policy, w, N_WORKERS, &ask, &why);
    if (i < 0)
        return false;
    if (a->line.waits)
        line_remove(&r->line, &a->line);
    line_open(&r->line, &a->line, &(struct vtc_load){1, a->n_prompt, a->n_prompt, a->n_out}, &a->bill);
    r->load[i].n_seqs++;
    r->load[i].n_tokens += a->n_prompt;
    a->worker = (uint32_t)i;
    uint32_t *prompt = xcalloc(a->n_prompt, sizeof *prompt);
    const struct req src = {.n_samples = 1,
                            .prompt = prompt,
                            .n_prompt = a->n_prompt,
                            .max_tokens = a->n_out,
                            .priority = a->line.priority,
                            .tagged = x->fair,
                            .tenant = a->line.tenant,
                            .arrival_ns = x->now_ns,
                            .repetition_penalty = 1,
                            .n_logprobs = -1,
                            .n_prompt_logprobs = -1};
    a->req = req_new(&src);
    free(prompt);
    req_prepare(a->req, NULL, 0, false);
    a->req->stream = (uint64_t)(uintptr_t)a;
    sched_add(&x->w[i].sched, a->req);
    if (x->w[i].step_ns == UINT64_MAX)
        start_step(x, &x->w[i]);
    return true;
}

static void pump(struct world *x, struct router_sim *r) {
    for (struct line_ticket *t; (t = line_next(&r->line)) != NULL;)
        if (!dispatch(x, r, CONTAINER_OF(t, struct asked, line)))
            return;
}

static bool refused(const struct world *x, const struct router_sim *r, uint32_t tenant) {
    const struct refuse_limits limits = {.requests = x->n_queued_max, .tokens = 1u << 24, .tenants = x->fair};
    const struct line_has has = line_of(&r->line, x->fair ? tag(tenant) : tag(0));
    const struct refuse_now now = {.n = r->line.n,
                                   .n_tokens = r->line.n_tokens,
                                   .own = has.n,
                                   .own_tokens = has.n_tokens,
                                   .n_tenants = r->line.order.n};
    return refuse_why(&limits, &now, 1) != REFUSE_NOT;
}

static void arrive(struct world *x, uint32_t tenant) {
    const struct tenant *t = &x->tenant[tenant];
    uint32_t i = (uint32_t)(x->n_sent[tenant]++ % N_ROUTERS);
    struct router_sim *r = &x->r[i];
    bool counts = x->now_ns >= x->from_ns;
    x->out.n_in += counts;
    if (refused(x, r, tenant)) {
        x->out.n_refused += counts;
        return;
    }
    struct asked *a = xcalloc(1, sizeof *a);
    a->tenant = tenant;
    a->router = i;
    a->came_ns = x->now_ns;
    a->n_prompt = between(x, t->prompt_min, t->prompt_max);
    a->n_out = between(x, t->out_min, t->out_max);
    a->line = (struct line_ticket){.tenant = x->fair ? tag(tenant) : tag(0),
                                   .priority = t->priority,
                                   .arrival_ns = x->now_ns,
                                   .n_tokens = a->n_prompt};
    a->next = x->live;
    if (x->live)
        x->live->prev = a;
    x->live = a;
    x->n_live++;
    x->out.n_live_max = MAX(x->out.n_live_max, x->n_live);
    if (r->line.n || !dispatch(x, r, a)) {
        line_add(&r->line, &a->line);
        if (line_next(&r->line) == &a->line)
            pump(x, r);
    }
    x->out.n_waiting_max = MAX(x->out.n_waiting_max, r->line.n);
}

static void bill(struct router_sim *r, struct asked *a) {
    line_said(&r->line, &a->bill, a->n_unbilled);
    a->n_unbilled = 0;
}

static void on_token(struct world *x, struct asked *a) {
    struct router_sim *r = &x->r[a->router];
    if (!a->begun) {
        a->begun = true;
        line_prompt(&r->line, &a->bill, a->n_prompt);
        r->load[a->worker].n_tokens -= a->n_prompt;
        if (a->came_ns >= x->from_ns && x->n_ttft[a->tenant] < TTFT_MAX)
            x->ttft[a->tenant][x->n_ttft[a->tenant]++] = (float)((double)(x->now_ns - a->came_ns) * 1e-9);
        x->out.served[a->tenant] += x->now_ns >= x->from_ns ? a->n_prompt : 0;
    }
    x->n_tokens += x->now_ns >= x->from_ns;
    x->out.served[a->tenant] += x->now_ns >= x->from_ns ? 2 : 0;
    if (++a->n_unbilled == BILL_TOKENS)
        bill(r, a);
}

static void on_end(struct world *x, struct asked *a) {
    struct router_sim *r = &x->r[a->router];
    bill(r, a);
    line_end(&r->line, &a->bill, false);
    r->load[a->worker].n_seqs--;
    x->out.n_done += x->now_ns >= x->from_ns;
    *(a->prev ? &a->prev->next : &x->live) = a->next;
    if (a->next)
        a->next->prev = a->prev;
    x->n_live--;
    req_free(a->req);
    free(a);
    pump(x, r);
}

/* ---- a worker ---------------------------------------------------------------------------------------- */

static void start_step(struct world *x, struct worker_sim *w) {
    const struct step_plan *p = sched_plan(&w->sched, x->now_ns);
    uint64_t ns = 5 * NS_PER_MS + p->n_prefill_tokens * 60 * NS_PER_US +
                  (p->n_tokens - p->n_prefill_tokens) * 100 * NS_PER_US;
    w->step_ns = p->n_entries ? x->now_ns + ns : UINT64_MAX;
}

/* end_step: nothing that tokens set off may touch the plan, so ended requests leave after it. */
static void end_step(struct world *x, struct worker_sim *w) {
    struct asked *ended[SEATS];
    const struct step_plan *p = &w->sched.plan;
    uint32_t n_rows = p->n_sample_rows, n_ended = 0;
    struct seq *rows[SEATS];
    for (uint32_t i = 0; i < n_rows; i++)
        rows[i] = p->rows[i].seq;
    sched_computed(&w->sched);
    w->step_ns = 0; /* not idle */
    for (uint32_t i = 0; i < n_rows; i++) {
        struct asked *a = (struct asked *)(uintptr_t)rows[i]->req->stream;
        bool over = seq_accept(rows[i], 1, MAX_LEN) != FINISH_NONE;
        on_token(x, a);
        if (!over)
            continue;
        sched_end(&w->sched, rows[i]);
        sched_left(&w->sched, a->req);
        ended[n_ended++] = a;
    }
    for (uint32_t i = 0; i < n_ended; i++)
        on_end(x, ended[i]);
    x->out.n_seqs_max = MAX(x->out.n_seqs_max, w->sched.n_running + w->sched.n_waiting);
    start_step(x, w);
}

/* ---- the whole --------------------------------------------------------------------------------------- */

static uint64_t gap_ns(struct world *x, const struct tenant *t) {
    return (uint64_t)(-log(uniform(x)) / t->per_s * (double)NS_PER_S) + 1;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void open_world(struct world *x) {
    for (int i = 0; i < N_WORKERS; i++) {
        struct worker_sim *w = &x->w[i];
        w->group = (struct kv_group){.kind = KV_FULL, .n_blocks = SEATS * 64};
        w->step_ns = UINT64_MAX;
        sched_init(&w->sched, &(struct sched_opts){.groups = &w->group,
                                                   .n_groups = 1,
                                                   .max_len = MAX_LEN,
                                                   .n_seqs_max = SEATS,
                                                   .n_rows_max = SEATS,
                                                   .token_budget = BUDGET,
                                                   .policy = SCHED_PRIORITY,
                                                   .n_events_max = 16});
    }
    for (int i = 0; i < N_ROUTERS; i++) {
        line_init(&x->r[i].line, 64, 1, 2);
        x->r[i].policy = (struct policy){.kind = POLICY_LEAST_LOAD, .rng = 1};
        for (int k = 0; k < N_WORKERS; k++) /* what a worker grants each of two (worker/io.c) */
            x->r[i].load[k] = (struct pick_load){.credit_seqs = SEATS + 128, .credit_tokens = 1 << 20};
    }
    for (int i = 0; i < N_TENANTS_MAX; i++) {
        x->ttft[i] = xcalloc(TTFT_MAX, sizeof(float));
        x->next_ns[i] = x->tenant[i].per_s > 0 ? gap_ns(x, &x->tenant[i]) : UINT64_MAX;
    }
}

static void close_world(struct world *x) {
    for (int i = 0; i < N_TENANTS_MAX; i++)
        free(x->ttft[i]);
    for (int i = 0; i < N_ROUTERS; i++)
        line_fini(&x->r[i].line);
    for (int i = 0; i < N_WORKERS; i++)
        sched_fini(&x->w[i].sched);
}

static void turn(struct world *x, bool arrivals) {
    uint64_t next = UINT64_MAX;
    int tenant = -1, worker = -1;
    for (int i = 0; i < N_TENANTS_MAX && arrivals; i++) {
        if (x->next_ns[i] < next) {
            next = x->next_ns[i];
            tenant = i;
        }
    }
    for (int i = 0; i < N_WORKERS; i++) {
        if (x->w[i].step_ns < next) {
            next = x->w[i].step_ns;
            worker = i;
        }
    }
    x->now_ns = next;
    if (worker >= 0) {
        end_step(x, &x->w[worker]);
    } else {
        x->next_ns[tenant] += gap_ns(x, &x->tenant[tenant]);
        arrive(x, (uint32_t)tenant);
    }
}

/* run: for so many seconds, of which the first three are not measured. */
static struct result run(const struct tenant *tenants, uint32_t n, bool fair, uint32_t n_queued_max,
                         double seconds) {
    struct world *x = xcalloc(1, sizeof *x);
    x->fair = fair;
    x->n_queued_max = n_queued_max;
    memcpy(x->tenant, tenants, n * sizeof *tenants);
    x->rng = 17;
    x->from_ns = 3 * NS_PER_S;
    open_world(x);
    while (x->now_ns < (uint64_t)(seconds * (double)NS_PER_S))
        turn(x, true);
    struct result out = x->out;
    out.tokens_per_s = (double)x->n_tokens / (seconds - 3);
    while (x->live) /* every bill and every block comes back */
        turn(x, false);
    for (uint32_t i = 0; i < n; i++) {
        qsort(x->ttft[i], x->n_ttft[i], sizeof(float), by_value);
        out.p99_s[i] = x->n_ttft[i] ? (double)x->ttft[i][x->n_ttft[i] * 99 / 100] : 0;
    }
    close_world(x);
    free(x);
    return out;
}

static double jain(const uint64_t *v, uint32_t n) {
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)v[i];
        squares += (double)v[i] * (double)v[i];
    }
    return sum * sum / (n * squares);
}

#define SMALL .prompt_min = 100, .prompt_max = 500, .out_min = 10, .out_max = 60
/* Requests a second of that kind that the two workers can do: test_overload measures it. */
static const double capacity_per_s = 72;

/* Of two tenants one sends at half of its share, the other at its whole one, and then at ten times that. */
static void test_flood(void **state) {
    (void)state;
    const double share = capacity_per_s / 2;
    struct tenant t[2] = {{.per_s = 0.5 * share, SMALL}, {.per_s = share, SMALL}};
    struct result calm = run(t, 2, true, 400, 60);
    t[1].per_s = 10 * share;
    struct result flood = run(t, 2, true, 400, 60), plain = run(t, 2, false, 400, 60);
    print_message(
        "p99 to the first token: %.0f ms beside a calm tenant, %.0f ms beside a flood (%.2f times); %.0f ms "
        "without fairness; its share of what it asked for: %.3f of the calm run's\n",
        calm.p99_s[0] * 1e3, flood.p99_s[0] * 1e3, flood.p99_s[0] / calm.p99_s[0], plain.p99_s[0] * 1e3,
        (double)flood.served[0] / (double)calm.served[0]);
    assert_true(flood.p99_s[0] <= 1.5 * calm.p99_s[0]);
    assert_true((double)flood.served[0] >= 0.97 * (double)calm.served[0]);
    assert_true(plain.p99_s[0] > 3 * calm.p99_s[0]); /* there was something to be fair about */
}

/* Eight who all want more than their share, one to ten times of it, with requests of different make. */
static void test_shares(void **state) {
    (void)state;
    struct tenant t[N_TENANTS_MAX];
    for (uint32_t i = 0; i < N_TENANTS_MAX; i++) {
        double share = capacity_per_s / N_TENANTS_MAX;
        t[i] = (struct tenant){.per_s = share * (2 + i * 1.2), SMALL};
        if (i % 3 == 1)
            t[i] = (struct tenant){
                .per_s = 2 * t[i].per_s, .prompt_min = 20, .prompt_max = 100, .out_min = 5, .out_max = 30};
        if (i % 3 == 2)
            t[i] = (struct tenant){
                .per_s = t[i].per_s, .prompt_min = 300, .prompt_max = 1500, .out_min = 100, .out_max = 200};
    }
    struct result fair = run(t, N_TENANTS_MAX, true, 400, 60), plain = run(t, N_TENANTS_MAX, false, 400, 60);
    print_message("Jain's index: %.4f, without fairness %.4f\n", jain(fair.served, N_TENANTS_MAX),
                  jain(plain.served, N_TENANTS_MAX));
    assert_true(jain(fair.served, N_TENANTS_MAX) >= 0.95);
    assert_true(jain(plain.served, N_TENANTS_MAX) < 0.9);
}

/* Load from half the capacity to three times it: what is refused costs nothing, and nothing grows. */
static void test_overload(void **state) {
    (void)state;
    static const double factors[] = {0.5, 0.8, 1, 1.5, 2, 3};
    double peak = 0, last = 0;
    for (size_t i = 0; i < ARRAY_LEN(factors); i++) {
        struct tenant t = {.per_s = factors[i] * capacity_per_s, SMALL};
        struct result r = run(&t, 1, false, 200, 40);
        last = (double)r.n_done / 37;
        peak = fmax(peak, last);
        print_message(
            "%.1f times: %.1f requests/s done, %.0f tokens/s, %.1f %% refused, p99 to the first token %.0f "
            "ms; most waiting %u, at a worker %u, alive %u\n",
            factors[i], last, r.tokens_per_s, 100.0 * (double)r.n_refused / (double)r.n_in, r.p99_s[0] * 1e3,
            r.n_waiting_max, r.n_seqs_max, r.n_live_max);
        assert_true(r.n_waiting_max <= 200 && r.n_seqs_max <= N_ROUTERS * (SEATS + 128));
        assert_true(factors[i] < 2 || r.n_refused > 0);
        assert_true(factors[i] > 0.8 || r.n_refused == 0);
    }
    assert_true(last >= 0.95 * peak);
    assert_true(peak > 0.9 * capacity_per_s && peak < 1.1 * capacity_per_s);
}

/* A class before another: its time to the first token is that of an idle machine, more or less. */
static void test_priority(void **state) {
    (void)state;
    struct tenant t[2] = {{.per_s = 0.2 * capacity_per_s, .priority = -5, SMALL},
                          {.per_s = 3 * capacity_per_s, .priority = 3, SMALL}};
    struct result alone = run(t, 1, false, 400, 40), both = run(t, 2, true, 400, 40);
    print_message("p99 to the first token: alone %.0f ms, before a flood %.0f ms, the flood's %.0f ms\n",
                  alone.p99_s[0] * 1e3, both.p99_s[0] * 1e3, both.p99_s[1] * 1e3);
    assert_true(both.p99_s[0] <= 3 * alone.p99_s[0]);
    assert_true(both.p99_s[1] > 5 * both.p99_s[0]);
    t[0].priority = 3;
    t[1].priority = -5;
    struct result behind = run(t, 2, false, 400, 40);
    assert_true(behind.p99_s[0] > behind.p99_s[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_overload), cmocka_unit_test(test_flood),
                                       cmocka_unit_test(test_shares), cmocka_unit_test(test_priority)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
