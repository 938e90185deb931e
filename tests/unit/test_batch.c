/* StepOutputs split by loop and checked; the choice among workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "router/fleet/batch.h"
#include "router/fleet/pick.h"
#include "router/slots.h"

enum { LOOPS = 3, VOCAB = 100, TOP = 4 };
static const struct batch_limits limits = {.n_loops = LOOPS, .vocab_size = VOCAB, .n_top_max = TOP};

static uint64_t h(uint32_t loop, uint32_t slot, uint32_t sample) {
    return handle_make(1, loop, slot) + sample;
}

static void drop(struct batch **b) {
    for (int i = 0; i < LOOPS; i++)
        free(b[i]);
}

static void test_split(void **state) {
    (void)state;
    uint64_t stream[] = {h(0, 1, 0), h(2, 1, 0), h(0, 1, 1), h(2, 9, 0), h(200, 1, 0)};
    uint32_t token[] = {1, 2, 3, 4, 5}, ids[] = {7, 8};
    float logprob[] = {-1, -2, -INFINITY, NAN, -5}, top_lp[] = {-0.5f, -0.7f};
    Weir__First first = WEIR__FIRST__INIT, *firsts[] = {&first};
    Weir__TopLogprobs top = WEIR__TOP_LOGPROBS__INIT, *tops[] = {&top};
    Weir__Finish a = WEIR__FINISH__INIT, b = WEIR__FINISH__INIT, c = WEIR__FINISH__INIT,
                 *fins[] = {&a, &b, &c};
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    first.has_stream = true;
    first.stream = h(0, 1, 1);
    first.cached_tokens = 48;
    top.has_entry = true;
    top.entry = 2;
    top.rank = 9;
    top.ids = ids;
    top.logprobs = top_lp;
    top.n_ids = top.n_logprobs = 2;
    a.has_stream = a.has_reason = b.has_stream = b.has_reason = c.has_stream = c.has_reason = true;
    a.stream = h(0, 1, 1);
    a.reason = WEIR__FINISH__REASON__STOP;
    a.has_stop_id = true;
    a.stop_id = 3;
    b.stream = h(0, 1, 1); /* the same one again */
    b.reason = WEIR__FINISH__REASON__LENGTH;
    char text[] = "why";
    c.stream = h(0, 4, 0); /* without a token */
    c.reason = WEIR__FINISH__REASON__ERROR;
    c.message = text;
    c.has_status = true;
    c.status = 400;
    m.stream = stream;
    m.token = token;
    m.logprob = logprob;
    m.n_stream = m.n_token = m.n_logprob = 5;
    m.first = firsts;
    m.n_first = 1;
    m.top = tops;
    m.n_top = 1;
    m.finish = fins;
    m.n_finish = 3;
    struct batch *out[LOOPS];
    uint32_t n_foreign;
    struct err e;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_OK);
    assert_int_equal(n_foreign, 1);
    assert_null(out[1]);
    assert_int_equal(out[0]->n, 5);
    const struct batch_entry *t = out[0]->entries;
    assert_int_equal(t[0].flags, ENTRY_FIRST);
    assert_int_equal(t[0].cached_tokens, 48);
    assert_int_equal(t[1].flags, ENTRY_TOKEN | ENTRY_LOGPROB);
    assert_int_equal(t[1].token, 1);
    assert_int_equal(t[2].flags, ENTRY_TOKEN | ENTRY_LOGPROB | ENTRY_FINISH);
    assert_int_equal(t[2].reason, WEIR__FINISH__REASON__STOP);
    assert_true(t[2].has_stop_id && t[2].stop_id == 3);
    assert_int_equal(t[2].rank, 9);
    assert_int_equal(t[2].n_top, 2);
    assert_int_equal(out[0]->top_ids[t[2].top_at + 1], 8);
    assert_true(out[0]->top_logprobs[t[2].top_at + 1] == -0.7f);
    assert_int_equal(t[3].flags, ENTRY_FINISH);
    assert_int_equal(t[3].reason, WEIR__FINISH__REASON__LENGTH);
    assert_int_equal(t[4].reason, WEIR__FINISH__REASON__ERROR);
    assert_string_equal(t[4].message, "why");
    assert_int_equal(t[4].status, 400);
    assert_int_equal(out[2]->n, 2);
    assert_int_equal(out[2]->entries[0].token, 2);
    assert_int_equal(out[2]->entries[1].flags, ENTRY_TOKEN | ENTRY_LOGPROB | ENTRY_NAN);
    drop(out);
}

static void refused(const Weir__StepOutputs *m) {
    struct batch *out[LOOPS];
    uint32_t n_foreign;
    struct err e;
    assert_int_equal(batch_split(m, &limits, out, &n_foreign, &e), RC_PROTO);
}

static void test_refused(void **state) {
    (void)state;
    uint64_t stream[2] = {h(0, 1, 0), h(0, 1, 1)};
    uint32_t token[2] = {1, 2}, ids[TOP + 1] = {0}, bad_id[1] = {VOCAB};
    float lp[TOP + 1] = {0};
    Weir__TopLogprobs top = WEIR__TOP_LOGPROBS__INIT, *tops[2] = {&top, &top};
    Weir__Finish f = WEIR__FINISH__INIT, *fins[] = {&f};
    Weir__StepOutputs good = WEIR__STEP_OUTPUTS__INIT, m;
    good.stream = stream;
    good.token = token;
    good.logprob = lp;
    good.n_stream = good.n_token = good.n_logprob = 2;
    top.has_entry = true;
    top.ids = ids;
    top.logprobs = lp;
    m = good;
    m.n_token = 1;
    refused(&m);
    m = good;
    m.n_logprob = 1;
    refused(&m);
    m = good;
    token[1] = VOCAB;
    refused(&m);
    token[1] = 2;
    m = good;
    m.top = tops;
    m.n_top = 2; /* one entry twice */
    refused(&m);
    m.n_top = 1;
    top.entry = 2;
    refused(&m);
    top.entry = 1;
    top.n_ids = 1;
    refused(&m);
    top.n_ids = top.n_logprobs = TOP + 1;
    refused(&m);
    top.n_ids = top.n_logprobs = 1;
    top.ids = bad_id;
    refused(&m);
    m = good;
    m.finish = fins;
    m.n_finish = 1;
    refused(&m);
    f.has_stream = f.has_reason = true;
    f.reason = 9;
    refused(&m);
    f.reason = WEIR__FINISH__REASON__ERROR;
    char text[] = "\xff\xfe";
    f.message = text; /* text that is none is left out, and the rest is good */
    f.stream = stream[0];
    struct batch *out[LOOPS];
    uint32_t n_foreign;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, NULL), RC_OK);
    assert_null(out[0]->entries[0].message);
    assert_int_equal(out[0]->entries[0].status, 500);
    drop(out);
    uint64_t *many = calloc(BATCH_ENTRIES_MAX + 1, sizeof *many);
    uint32_t *zeros = calloc(BATCH_ENTRIES_MAX + 1, sizeof *zeros);
    m = good;
    m.n_logprob = 0;
    m.stream = many;
    m.token = zeros;
    m.n_stream = m.n_token = BATCH_ENTRIES_MAX + 1;
    refused(&m);
    free(many);
    free(zeros);
}

static void test_many_finishes(void **state) {
    (void)state;
    enum { N = 20000 };
    uint64_t *stream = malloc(N * sizeof *stream);
    uint32_t *token = calloc(N, sizeof *token);
    Weir__Finish *f = malloc(N * sizeof *f), **fp = malloc(N * sizeof *fp);
    for (uint32_t i = 0; i < N; i++) {
        stream[i] = h(i % LOOPS, i, 0);
        weir__finish__init(&f[i]);
        f[i].has_stream = f[i].has_reason = true;
        f[i].stream = h((N - 1 - i) % LOOPS, N - 1 - i, 0);
        f[i].reason = WEIR__FINISH__REASON__LENGTH;
        fp[i] = &f[i];
    }
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    m.stream = stream;
    m.token = token;
    m.n_stream = m.n_token = N;
    m.finish = fp;
    m.n_finish = N;
    struct batch *out[LOOPS];
    uint32_t n_foreign, n = 0;
    struct err e;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_OK);
    for (int i = 0; i < LOOPS; i++) {
        for (uint32_t k = 0; k < out[i]->n; k++, n++)
            assert_int_equal(out[i]->entries[k].flags, ENTRY_TOKEN | ENTRY_FINISH);
    }
    assert_int_equal(n, N);
    drop(out);
    /* One token for each loop, all finishes for the first: the others' memory does not grow with them. */
    m.n_stream = m.n_token = LOOPS;
    for (uint32_t i = 0; i < N; i++)
        f[i].stream = h(0, i, 1);
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_OK);
    assert_int_equal(out[0]->n, N + 1);
    for (int i = 1; i < LOOPS; i++) {
        assert_int_equal(out[i]->n, 1);
        assert_true(out[i]->bytes < 1024);
    }
    drop(out);
    free(stream);
    free(token);
    free(f);
    free(fp);
}

static void test_pick(void **state) {
    (void)state;
    struct pick_load a = {.credit_seqs = 4, .credit_tokens = 1000}, b = a, none = {0};
    const struct pick_load *w[] = {&a, &b, &none};
    assert_int_equal(pick_least(w, 3, 0, 1, 10), 0);
    assert_int_equal(pick_least(w, 3, 1, 1, 10), 1);
    assert_int_equal(pick_least(w, 3, 2, 1, 10), 0);
    a.n_seqs = 2;
    assert_int_equal(pick_least(w, 3, 0, 1, 10), 1);
    b.n_tokens = 500;
    assert_int_equal(pick_least(w, 3, 0, 1, 10), 0);
    a.n_seqs = 4;
    assert_int_equal(pick_least(w, 3, 0, 1, 10), 1);
    assert_int_equal(pick_least(w, 3, 0, 1, 501), -1);
    assert_int_equal(pick_least(w, 0, 0, 1, 1), -1);
    /* more than the whole credit goes to an idle worker only */
    b = (struct pick_load){.credit_seqs = 4, .credit_tokens = 1000};
    assert_int_equal(pick_least(w, 3, 0, 9, 5000), 1);
    b.n_seqs = 1;
    assert_int_equal(pick_least(w, 3, 0, 9, 5000), -1);
    b.n_seqs = UINT32_MAX - 1;
    b.credit_seqs = UINT32_MAX;
    assert_false(pick_fits(&b, 5, 1));
}

/* A prompt's rows come before everything else of it, in pieces that keep no loop for long. */
static void test_prompt_rows(void **state) {
    (void)state;
    enum { N = 200, N_TOP = 3 };
    static Weir__PromptLogprob rows[N], *ptrs[N];
    static uint32_t ids[N][N_TOP];
    static float values[N][N_TOP];
    Weir__First first = WEIR__FIRST__INIT, *firsts[] = {&first};
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    for (uint32_t i = 0; i < N; i++) {
        weir__prompt_logprob__init(&rows[i]);
        ptrs[i] = &rows[i];
        if (i == 0)
            continue;
        rows[i].has_rank = rows[i].has_logprob = true;
        rows[i].rank = i;
        rows[i].logprob = -(float)i;
        rows[i].n_ids = rows[i].n_logprobs = N_TOP;
        rows[i].ids = ids[i];
        rows[i].logprobs = values[i];
        for (uint32_t k = 0; k < N_TOP; k++) {
            ids[i][k] = (i + k) % 10;
            values[i][k] = -(float)k;
        }
    }
    first.has_stream = true;
    first.stream = h(1, 3, 0);
    first.n_prompt = N;
    first.prompt = ptrs;
    m.first = firsts;
    m.n_first = 1;
    struct batch *out[LOOPS];
    uint32_t n_foreign, n_rows = 0;
    struct err e;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_OK);
    const struct batch *b = out[1];
    assert_int_equal(b->n, (N + BATCH_ROWS_MAX - 1) / BATCH_ROWS_MAX + 1);
    for (uint32_t i = 0; i + 1 < b->n; i++) {
        const struct batch_entry *x = &b->entries[i];
        assert_int_equal(x->flags, ENTRY_PROMPT);
        assert_true(x->n_top <= BATCH_ROWS_MAX && x->stream == first.stream);
        for (uint32_t k = 0; k < x->n_top; k++, n_rows++) {
            const struct batch_row *row = &b->rows[x->top_at + k];
            assert_int_equal(row->rank, n_rows);
            assert_int_equal(row->n_top, n_rows ? N_TOP : 0);
            assert_memory_equal(b->top_ids + row->top_at, ids[n_rows], row->n_top * sizeof **ids);
            assert_memory_equal(b->top_logprobs + row->top_at, values[n_rows], row->n_top * sizeof **values);
        }
    }
    assert_int_equal(n_rows, N);
    assert_int_equal(b->entries[b->n - 1].flags, ENTRY_FIRST);
    drop(out);
    rows[7].logprob = NAN; /* that piece cannot be printed */
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_OK);
    assert_int_equal(out[1]->entries[0].flags, ENTRY_PROMPT | ENTRY_NAN);
    drop(out);
    rows[7].logprob = -1;
    rows[9].n_logprobs = 2;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_PROTO);
    rows[9].n_logprobs = N_TOP;
    ids[9][1] = limits.vocab_size;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_PROTO);
    ids[9][1] = 0;
    rows[9].rank = 0;
    assert_int_equal(batch_split(&m, &limits, out, &n_foreign, &e), RC_PROTO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_split), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_many_finishes), cmocka_unit_test(test_pick),
                                       cmocka_unit_test(test_prompt_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
