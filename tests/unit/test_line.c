/* The line of waiting requests: heap, counters of tenants, order, bounds. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/hash.h"
#include "router/fleet/line.h"
#include "router/fleet/refuse.h"

static uint32_t rnd(uint64_t *s, uint32_t n) {
    *s += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash_u64(*s) % n);
}

static struct id128 tag(uint32_t i) {
    struct id128 t = {{0}};
    uint64_t h = hash_u64(i + 1);
    memcpy(t.b, &h, sizeof h);
    return t;
}

/* ---- heap -------------------------------------------------------------------------------------------- */

struct number {
    struct heap_node node;
    uint32_t value;
    bool in;
};

static bool smaller(struct heap_node *a, struct heap_node *b) {
    return CONTAINER_OF(a, struct number, node)->value < CONTAINER_OF(b, struct number, node)->value;
}

static void test_heap(void **state) {
    (void)state;
    enum { N = 64 };
    struct number x[N] = {{.value = 0}};
    struct heap h;
    uint64_t seed = 3;
    heap_init(&h, smaller);
    assert_null(heap_top(&h));
    for (int round = 0; round < 20000; round++) {
        struct number *n = &x[rnd(&seed, N)];
        uint32_t value = rnd(&seed, 50), least = UINT32_MAX, n_in = 0;
        if (!n->in) {
            n->value = value;
            heap_push(&h, &n->node);
            n->in = true;
        } else if (round % 3) {
            heap_remove(&h, &n->node);
            n->in = false;
        } else {
            n->value = value;
            heap_moved(&h, &n->node);
        }
        for (uint32_t i = 0; i < N; i++) {
            n_in += x[i].in;
            if (x[i].in)
                least = MIN(least, x[i].value);
        }
        assert_int_equal(h.n, n_in);
        if (n_in)
            assert_int_equal(CONTAINER_OF(heap_top(&h), struct number, node)->value, least);
    }
    while (h.n)
        heap_remove(&h, heap_top(&h));
    heap_fini(&h);
}

/* ---- counters ---------------------------------------------------------------------------------------- */

static double settled(const struct vtc_tenant *t) {
    return t->counter - t->expected;
}

static void test_charges(void **state) {
    (void)state;
    struct vtc v;
    struct vtc_bill b, none = {0};
    vtc_init(&v, 4, 1, 2);
    struct vtc_tenant *t = vtc_hold(&v, tag(1));
    /* Charged with 100 tokens of the prompt and the first guess of output for two sequences. */
    vtc_open(&v, t, &(struct vtc_load){2, 200, 100, 1000}, &b);
    assert_true(t->counter == 100 + 2 * 2 * VTC_OUT_FIRST && settled(t) == 0);
    /* 60 of them were cached after all. */
    vtc_in(&v, &b, 40);
    assert_true(t->counter == 40 + 2 * 2 * VTC_OUT_FIRST && settled(t) == 40);
    vtc_in(&v, &b, 4000); /* the second sample says it again */
    assert_true(settled(t) == 40);
    vtc_out(&v, &b, 10);
    assert_true(t->counter == 40 + 2 * 2 * VTC_OUT_FIRST && settled(t) == 60);
    /* More than was expected is charged as it comes. */
    vtc_out(&v, &b, 2 * VTC_OUT_FIRST);
    assert_true(t->counter == 60 + 2 * 2 * VTC_OUT_FIRST && settled(t) == t->counter);
    vtc_close(&v, &b, false);
    assert_true(t->counter == 60 + 2 * 2 * VTC_OUT_FIRST && t->expected == 0);
    assert_memory_equal(&b, &none, sizeof b);
    assert_true(t->out_mean > VTC_OUT_FIRST);
    /* What does not come goes back; a prompt that was not told to be computed does not, unless it was lost.
     */
    double before = t->counter;
    vtc_open(&v, t, &(struct vtc_load){1, 100, 100, 3}, &b);
    assert_true(t->counter == before + 100 + 2 * 3); /* it may say no more than 3 */
    vtc_close(&v, &b, false);
    assert_true(t->counter == before + 100);
    vtc_open(&v, t, &(struct vtc_load){1, 100, 100, 1000}, &b);
    vtc_close(&v, &b, true);
    assert_true(t->counter == before + 100);
    /* A pooling request says nothing, and is no measure of what others will. */
    double mean = t->out_mean;
    vtc_open(&v, t, &(struct vtc_load){1, 7, 7, 0}, &b);
    vtc_close(&v, &b, false);
    assert_true(t->counter == before + 107 && t->out_mean == mean);
    vtc_close(&v, &b, false); /* nothing */
    vtc_drop(&v, t);
    vtc_fini(&v);
}

static void test_lift(void **state) {
    (void)state;
    struct vtc v;
    struct vtc_bill b, c;
    vtc_init(&v, 8, 1, 1);
    struct vtc_tenant *a = vtc_hold(&v, tag(1)), *x = vtc_hold(&v, tag(2)), *y = vtc_hold(&v, tag(3));
    vtc_open(&v, a, &(struct vtc_load){1, 1000, 1000, 0}, &b);
    vtc_in(&v, &b, 1000);
    vtc_close(&v, &b, false);
    vtc_open(&v, a, &(struct vtc_load){1, 100, 100, 0}, &b); /* of these nothing has come yet */
    vtc_join(&v, a);
    assert_true(a->counter == 1100);
    /* Who comes while a waits is lifted to what a has had, so it comes before a, whose next one already runs.
     */
    vtc_join(&v, x);
    assert_true(x->counter == 1000);
    vtc_open(&v, x, &(struct vtc_load){1, 50, 50, 0}, &c);
    vtc_in(&v, &c, 50);
    vtc_leave(&v, x);
    vtc_leave(&v, a);
    /* Nobody waits: a newcomer begins where the one who was served had begun. */
    vtc_join(&v, y);
    assert_true(y->counter == 1000);
    vtc_leave(&v, y);
    /* Who has had more is not lowered. */
    vtc_in(&v, &b, 500);
    assert_true(a->counter == 1500);
    vtc_join(&v, y);
    vtc_join(&v, a);
    assert_true(a->counter == 1500 && y->counter == 1000);
    vtc_leave(&v, a);
    vtc_leave(&v, y);
    vtc_close(&v, &b, false);
    vtc_close(&v, &c, false);
    vtc_drop(&v, a);
    vtc_drop(&v, x);
    vtc_drop(&v, y);
    vtc_fini(&v);
}

static void test_forgotten(void **state) {
    (void)state;
    struct vtc v;
    vtc_init(&v, 3, 1, 1);
    struct vtc_tenant *t[3];
    for (uint32_t i = 0; i < 3; i++)
        t[i] = vtc_hold(&v, tag(i));
    assert_null(vtc_find(&v, tag(9)));
    /* All are in use: two more share a counter, and are not in the table. */
    struct vtc_tenant *s = vtc_hold(&v, tag(9));
    assert_ptr_equal(vtc_hold(&v, tag(8)), s);
    assert_ptr_equal(vtc_find(&v, tag(9)), s);
    assert_int_equal(v.n, 3);
    vtc_drop(&v, s);
    vtc_drop(&v, s);
    /* Out of use they stay, in the order in which they were last used. */
    vtc_drop(&v, t[1]);
    vtc_drop(&v, t[0]);
    assert_ptr_equal(vtc_hold(&v, tag(1)), t[1]);
    vtc_drop(&v, t[1]);
    struct vtc_tenant *n = vtc_hold(&v, tag(9));
    assert_int_equal(v.n, 3);
    assert_null(vtc_find(&v, tag(0)));
    assert_ptr_equal(vtc_find(&v, tag(1)), t[1]);
    vtc_drop(&v, n);
    vtc_drop(&v, t[2]);
    /* A million names are no more memory than three. */
    for (uint32_t i = 0; i < 100000; i++)
        vtc_drop(&v, vtc_hold(&v, tag(i)));
    assert_int_equal(v.n, 3);
    vtc_fini(&v);
}

/* ---- order ------------------------------------------------------------------------------------------- */

static void put(struct line *l, struct line_ticket *t, uint32_t tenant, int32_t priority, uint64_t arrival) {
    *t = (struct line_ticket){
        .tenant = tag(tenant), .priority = priority, .arrival_ns = arrival, .n_tokens = 10};
    line_add(l, t);
}

/* next: takes the first one, as a worker would, for n_in tokens. */
static struct line_ticket *next(struct line *l, uint32_t n_in) {
    struct line_ticket *t = line_next(l);
    struct vtc_bill b;
    if (!t)
        return NULL;
    line_remove(l, t);
    line_open(l, t, &(struct vtc_load){1, n_in, n_in, 0}, &b);
    line_prompt(l, &b, n_in);
    line_end(l, &b, false);
    return t;
}

static void test_order(void **state) {
    (void)state;
    struct line l;
    struct line_ticket t[8];
    line_init(&l, 16, 1, 1);
    assert_null(line_next(&l));
    /* One tenant, one priority: as they came. */
    put(&l, &t[0], 1, 0, 10);
    put(&l, &t[1], 1, 0, 30);
    put(&l, &t[2], 1, 0, 20);
    put(&l, &t[3], 1, 0, 20);
    assert_int_equal(l.n, 4);
    assert_int_equal(l.n_tokens, 40);
    static const int came[] = {0, 2, 3, 1};
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(next(&l, 1), &t[came[i]]);
    /* Priorities first, whoever has had how much. */
    put(&l, &t[0], 1, 5, 1);
    put(&l, &t[1], 2, 5, 2);
    put(&l, &t[2], 1, -3, 3);
    put(&l, &t[3], 2, INT32_MIN, 4);
    put(&l, &t[4], 1, INT32_MAX, 0);
    t[5] = (struct line_ticket){.tenant = tag(2), .again = true, .priority = 99, .arrival_ns = 50};
    line_add(&l, &t[5]);
    t[6] = (struct line_ticket){.tenant = tag(1), .again = true, .priority = 0, .arrival_ns = 51};
    line_add(&l, &t[6]);
    static const int want[] = {5, 6, 3, 2};
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(next(&l, 100), &t[want[i]]);
    /* One that leaves the line takes its tenant's place with it. */
    line_remove(&l, &t[0]);
    assert_ptr_equal(next(&l, 1), &t[1]);
    assert_ptr_equal(next(&l, 1), &t[4]);
    assert_null(line_next(&l));
    line_fini(&l);
}

/* Two who always wait, one with prompts three times as long, have the same in tokens; a third comes late. */
static void test_shares(void **state) {
    (void)state;
    enum { N = 3 };
    struct line l;
    struct line_ticket t[N][4];
    uint64_t had[N] = {0}, now = 0;
    static const uint32_t cost[N] = {300, 100, 50};
    line_init(&l, 16, 1, 1);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 4; k++)
            put(&l, &t[i][k], (uint32_t)i, 0, now++);
    for (int round = 0; round < 4000; round++) {
        if (round == 2000) {
            assert_true(had[0] > 0.99 * (double)had[1] && had[0] < 1.01 * (double)had[1]);
            had[0] = had[1] = 0;
            for (int k = 0; k < 4; k++)
                put(&l, &t[2][k], 2, 0, now++);
        }
        struct line_ticket *x = line_next(&l);
        uint32_t i = id128_eq(x->tenant, tag(0)) ? 0 : id128_eq(x->tenant, tag(1)) ? 1 : 2;
        assert_ptr_equal(next(&l, cost[i]), x);
        had[i] += cost[i];
        put(&l, x, i, 0, now++);
    }
    for (int i = 1; i < N; i++)
        assert_true(had[i] > 0.99 * (double)had[0] && had[i] < 1.01 * (double)had[0]);
    while (next(&l, 1)) {
    }
    line_fini(&l);
}

/* What is in flight and turns out cheaper never puts a newcomer behind: it comes next whenever it comes. */
static void test_newcomer(void **state) {
    (void)state;
    struct line l;
    struct line_ticket many[64], one;
    struct vtc_bill b[32];
    uint64_t seed = 5;
    line_init(&l, 16, 1, 2);
    for (uint64_t i = 0; i < 64; i++)
        put(&l, &many[i], 1, 0, i);
    for (int i = 0; i < 32; i++) {
        struct line_ticket *t = line_next(&l);
        line_remove(&l, t);
        line_open(&l, t, &(struct vtc_load){1, 100, 100, 1000}, &b[i]);
        line_prompt(&l, &b[i], 100);
    }
    put(&l, &one, 2, 0, 1000);
    assert_ptr_equal(line_next(&l), &one);
    for (int i = 0; i < 32; i++) {
        line_said(&l, &b[i], rnd(&seed, VTC_OUT_FIRST));
        line_end(&l, &b[i], false);
        assert_ptr_equal(line_next(&l), &one);
    }
    while (next(&l, 1)) {
    }
    line_fini(&l);
}

/* Random work against a plain list: the order of the header, and sums. */
static void test_random(void **state) {
    (void)state;
    enum { N = 200, TENANTS = 12 };
    struct line l;
    struct line_ticket *t = xcalloc(N, sizeof *t);
    struct vtc_bill bill[TENANTS] = {{0}};
    uint64_t seed = 11, now = 0;
    line_init(&l, 8, 1, 2); /* fewer than there are */
    for (int round = 0; round < 20000; round++) {
        struct line_ticket *x = &t[rnd(&seed, N)];
        if (!x->waits && rnd(&seed, 2)) {
            *x = (struct line_ticket){.tenant = tag(rnd(&seed, TENANTS)),
                                      .priority = (int32_t)rnd(&seed, 3) - 1,
                                      .again = rnd(&seed, 20) == 0,
                                      .arrival_ns = now++,
                                      .n_tokens = rnd(&seed, 100)};
            line_add(&l, x);
        } else if (x->waits && rnd(&seed, 3) == 0) {
            line_remove(&l, x);
        } else if ((x = line_next(&l)) != NULL) {
            struct vtc_bill *b = &bill[rnd(&seed, TENANTS)];
            line_said(&l, b, rnd(&seed, 100));
            line_end(&l, b, rnd(&seed, 5) == 0);
            line_remove(&l, x);
            const struct vtc_load load = {1 + rnd(&seed, 3), 1000, rnd(&seed, 1000), rnd(&seed, 200)};
            line_open(&l, x, &load, b);
            line_prompt(&l, b, rnd(&seed, 1000));
        }
        uint32_t n = 0;
        uint64_t n_tokens = 0;
        const struct line_ticket *best = NULL;
        for (const struct line_ticket *i = l.first; i; i = i->next) {
            n++;
            n_tokens += i->n_tokens;
            assert_true(i->waits);
            const struct line_ticket *y = best;
            bool before = !y;
            if (y && i->again != y->again)
                before = i->again;
            else if (y && !i->again && i->priority != y->priority)
                before = i->priority < y->priority;
            else if (y && !i->again && i->of->counter != y->of->counter)
                before = i->of->counter < y->of->counter;
            else if (y)
                before = i->arrival_ns < y->arrival_ns;
            best = before ? i : best;
        }
        assert_ptr_equal(line_next(&l), best);
        assert_int_equal(l.n, n);
        assert_int_equal(l.n_tokens, n_tokens);
    }
    assert_int_equal(line_of(&l, tag(77)).n, l.vtc.shared && !l.vtc.oldest ? l.vtc.shared->n_waiting : 0);
    for (int i = 0; i < TENANTS; i++)
        line_end(&l, &bill[i], false);
    while (next(&l, 1)) {
    }
    for (uint32_t i = 0; i < TENANTS; i++) {
        struct line_has has = line_of(&l, tag(i));
        assert_true(has.n == 0 && has.n_tokens == 0 && has.n_seqs == 0);
    }
    for (const struct vtc_tenant *i = l.vtc.oldest; i; i = i->next)
        assert_true(i->n_seqs == 0 && i->n_prompt == 0 && i->expected == 0);
    line_fini(&l);
    free(t);
}

/* Whoever has the workers' room to himself leaves a fifth of it; a newcomer gets some of that at once. */
static void test_room(void **state) {
    (void)state;
    enum { N = 100 };
    struct line l;
    struct line_ticket a = {.tenant = tag(1)}, b = {.tenant = tag(2)}, c = {.tenant = tag(3)};
    struct vtc_bill bill[N];
    struct line_room room = {.seqs = N, .tokens = 10000};
    const struct vtc_load load = {1, 10, 10, 5};
    uint32_t n = 0, n_a;
    line_init(&l, 16, 1, 1);
    for (; !line_holds_back(&l, &a, 1, 10, &room); room.seqs_taken++)
        line_open(&l, &a, &load, &bill[n++]);
    assert_int_equal(n, 80);
    for (n_a = n; !line_holds_back(&l, &b, 1, 10, &room); room.seqs_taken++)
        line_open(&l, &b, &load, &bill[n++]);
    assert_true(n - n_a >= 15 && n < N);
    assert_false(line_holds_back(&l, &c, 1, 10, &room));
    assert_true(line_holds_back(&l, &a, 1, 10, &room));
    a.again = true;
    assert_false(line_holds_back(&l, &a, 1, 10, &room));
    a.again = false;
    /* Tokens likewise, until their prompt is computed. */
    room = (struct line_room){.seqs = 10 * N, .seqs_taken = n, .tokens = 1000, .tokens_taken = 900};
    assert_true(line_holds_back(&l, &a, 1, 10, &room));
    for (uint32_t i = 0; i < n_a; i++)
        line_prompt(&l, &bill[i], 10);
    assert_false(line_holds_back(&l, &a, 1, 10, &room));
    for (uint32_t i = 0; i < n; i++)
        line_end(&l, &bill[i], i % 2);
    line_fini(&l);
}

/* ---- bounds ------------------------------------------------------------------------------------------ */

static void test_refusals(void **state) {
    (void)state;
    struct refuse_limits l = {.requests = 10, .tokens = 1000};
    struct refuse_now n = {.n = 9, .n_tokens = 900, .own = 9, .own_tokens = 900, .n_tenants = 1};
    assert_int_equal(refuse_why(&l, &n, 100), REFUSE_NOT);
    assert_int_equal(refuse_why(&l, &n, 101), REFUSE_TOKENS);
    n.n = 10;
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_REQUESTS);
    /* What is larger than the limit may wait alone. */
    n = (struct refuse_now){0};
    assert_int_equal(refuse_why(&l, &n, 5000), REFUSE_NOT);
    l.requests = 0;
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_REQUESTS);

    /* By time: 6 wait, 2 end each second. */
    l = (struct refuse_limits){.requests = 100, .tokens = 1000, .wait_s = 2.5};
    n = (struct refuse_now){.n = 6, .own = 6, .n_tenants = 1, .done_per_s = 2};
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_WAIT);
    n.n = 5;
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_NOT);
    n = (struct refuse_now){.n = 50};
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_NOT); /* no rate is known */

    /* Tenants: who has nothing in the line comes after one request of each. */
    l.tenants = true;
    n = (struct refuse_now){.n = 50, .own = 0, .n_tenants = 3, .done_per_s = 2};
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_NOT);
    n.own = 2;
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_WAIT);

    /* One tenant alone has four fifths of the line, and never all of it: there is room for a second one. */
    l.wait_s = 0;
    n = (struct refuse_now){.n_tenants = 1};
    while (!refuse_why(&l, &n, 1))
        n.n = ++n.own;
    assert_int_equal(n.n, 80);
    uint64_t first = n.own;
    n.own = 0;
    n.n_tenants = 2;
    while (!refuse_why(&l, &n, 1))
        n.n++, n.own++;
    assert_true(n.own >= 16 && n.n < 100);
    n.own = first;
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_REQUESTS);
    n.own = 0; /* a third one */
    assert_int_equal(refuse_why(&l, &n, 1), REFUSE_NOT);
    n = (struct refuse_now){.n = 1, .n_tokens = 700, .own_tokens = 700, .own = 1, .n_tenants = 1};
    assert_int_equal(refuse_why(&l, &n, 50), REFUSE_NOT);
    assert_int_equal(refuse_why(&l, &n, 150), REFUSE_TOKENS);
    n.own = n.own_tokens = 0;
    assert_int_equal(refuse_why(&l, &n, 150), REFUSE_NOT);
}

static void test_retry_after(void **state) {
    (void)state;
    assert_int_equal(refuse_retry_s(0, 5), 1);
    assert_int_equal(refuse_retry_s(10, 5), 2);
    assert_int_equal(refuse_retry_s(11, 5), 3);
    assert_int_equal(refuse_retry_s(100000, 5), 60);
    assert_int_equal(refuse_retry_s(7, 0), 60);
    assert_int_equal(refuse_retry_s(UINT64_MAX, 1e-300), 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap),      cmocka_unit_test(test_charges),     cmocka_unit_test(test_lift),
        cmocka_unit_test(test_forgotten), cmocka_unit_test(test_order),       cmocka_unit_test(test_shares),
        cmocka_unit_test(test_newcomer),  cmocka_unit_test(test_random),      cmocka_unit_test(test_room),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_retry_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
