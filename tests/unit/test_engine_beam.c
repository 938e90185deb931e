/* Beam search in the engine, on a device without arithmetic, against a search that keeps whole texts and sorts.
 * threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "common/hash.h"
#include "tests/support/engine_rig.h"
#include "tests/support/fake_be.h"

enum { CONTEXT = 256, WIDTH_MAX = 12, STEPS_MAX = 40 };

struct fixture {
    struct fake_device device;
    struct be *be;
    struct cache_group_spec group;
    struct engine_opts opts;
    struct rig rig;
};

static int setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    f->be = fake_open(&f->device);
    atomic_store(&f->device.ranked, true);
    f->opts = rig_opts(f->be, &f->group);
    f->opts.max_len = CONTEXT;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    rig_free(&f->rig);
    fake_close(f->be);
    free(f);
    return 0;
}

/* ---- the plain search -------------------------------------------------------------------------------- */

struct text {
    uint32_t ids[STEPS_MAX + 1], n; /* without its end token */
    double sum, score;
    uint32_t end; /* UINT32_MAX: none */
};
struct texts {
    struct text *v;
    uint32_t n;
};

static void push(struct texts *t, const struct text *x) {
    t->v = xreallocarray(t->v, t->n + 1, sizeof *t->v);
    t->v[t->n++] = *x;
}

/* sort: stable, the largest key first. */
static void sort(struct texts *t, bool by_score) {
    for (uint32_t i = 1; i < t->n; i++)
        for (uint32_t k = i; k > 0; k--) {
            double a = by_score ? t->v[k - 1].score : t->v[k - 1].sum, b = by_score ? t->v[k].score : t->v[k].sum;
            if (!(a < b))
                break;
            struct text swap = t->v[k];
            t->v[k] = t->v[k - 1];
            t->v[k - 1] = swap;
        }
}

static void rank(const struct req *q, const struct text *x, uint32_t n_top, uint32_t *ids, float *values) {
    uint32_t known[CONTEXT];
    bool used[FAKE_VOCAB] = {0};
    memcpy(known, q->prompt, q->n_prompt * sizeof *known);
    memcpy(known + q->n_prompt, x->ids, x->n * sizeof *known);
    for (uint32_t k = 0; k < n_top; k++) {
        uint32_t best = UINT32_MAX;
        float top = 0;
        for (uint32_t id = 0; id < FAKE_VOCAB; id++) {
            float v = fake_logprob(known, q->n_prompt + x->n, 0, id);
            if (!used[id] && (best == UINT32_MAX || v > top)) {
                best = id;
                top = v;
            }
        }
        used[best] = true;
        ids[k] = best;
        values[k] = top;
    }
}

/* search: every hypothesis there is at the end, best first; no early stop. */
static struct texts search(const struct req *q) {
    struct texts live = {0}, done = {0};
    push(&live, &(struct text){.end = UINT32_MAX});
    for (uint32_t step = 0; step < q->max_tokens; step++) {
        struct texts next = {0};
        for (uint32_t i = 0; i < live.n; i++) {
            uint32_t ids[2 * WIDTH_MAX];
            float values[2 * WIDTH_MAX];
            rank(q, &live.v[i], 2 * q->n_samples, ids, values);
            for (uint32_t k = 0; k < 2 * q->n_samples; k++) {
                struct text x = live.v[i];
                bool ends = !q->ignore_eos && (ids[k] == 97 || ids[k] == 98);
                x.sum += values[k];
                if (ends)
                    x.end = ids[k];
                else
                    x.ids[x.n++] = ids[k];
                x.score = x.sum == 0 ? 0 : x.sum / pow((double)q->n_prompt + x.n, (double)q->length_penalty);
                push(ends ? &done : &next, &x);
            }
        }
        sort(&next, false);
        next.n = MIN(next.n, q->n_samples);
        free(live.v);
        live = next;
    }
    for (uint32_t i = 0; i < live.n; i++)
        push(&done, &live.v[i]);
    free(live.v);
    sort(&done, true);
    return done;
}

/* expect: the streams of q say what the plain search says. */
static void expect(const struct fixture *f, const struct req *q) {
    struct texts want = search(q);
    for (uint32_t k = 0; k < q->n_samples; k++) {
        const struct rig_stream *s = &f->rig.streams[q->stream + k];
        const struct text *x = &want.v[k];
        bool ends = x->end != UINT32_MAX;
        assert_int_equal(s->n_ends, 1);
        assert_int_equal(s->n_firsts, 1);
        assert_int_equal(s->finish, ends ? FINISH_STOP : FINISH_LENGTH);
        assert_int_equal(s->n_tokens, x->n + ends);
        assert_memory_equal(s->tokens, x->ids, x->n * sizeof *x->ids);
        if (ends) {
            assert_int_equal(s->tokens[x->n], x->end);
            assert_int_equal(s->stop_id, x->end);
            assert_false(s->eos);
        }
        double sum = 0;
        struct text so_far = {0};
        for (uint32_t i = 0; q->n_logprobs >= 0 && i < s->n_tokens; i++) {
            uint32_t ids[RIG_TOP];
            float values[RIG_TOP];
            uint32_t n_top = MIN((uint32_t)q->n_logprobs, (uint32_t)RIG_TOP);
            rank(q, &so_far, n_top, ids, values);
            assert_memory_equal(s->top_ids[i], ids, n_top * sizeof *ids);
            assert_memory_equal(s->top_logprobs[i], values, n_top * sizeof *values);
            so_far.ids[so_far.n++] = s->tokens[i];
            sum += s->logprobs[i];
        }
        if (q->n_logprobs >= 0)
            assert_true(sum == x->sum);
    }
    free(want.v);
}

/* ---- tests ------------------------------------------------------------------------------------------- */

static struct req beams(uint64_t stream, const uint32_t *prompt, uint32_t n_prompt, uint32_t width, uint32_t steps,
                        float length_penalty) {
    struct req q = rig_req(stream, prompt, n_prompt, steps);
    q.n_samples = width;
    q.beams = true;
    q.length_penalty = length_penalty;
    return q;
}

/* Many searches at once, between ordinary requests, with room and without. */
static void test_many(void **state) {
    struct fixture *f = *state;
    enum { N = 18 };
    static uint32_t prompts[N][64];
    static struct req reqs[N];
    static const float penalties[] = {1, 0, 0.5f, 3, -1, -0.5f};
    static const struct {
        uint32_t budget, n_blocks, n_seqs;
    } rooms[] = {{128, 512, 64}, {17, 24, 12}, {8, 17, 6}};
    for (size_t room = 0; room < ARRAY_LEN(rooms); room++) {
        f->opts.token_budget = rooms[room].budget;
        f->opts.n_blocks[0] = rooms[room].n_blocks;
        f->opts.n_seqs_max = rooms[room].n_seqs;
        rig_start(&f->rig, &f->opts);
        uint32_t stream = 0;
        for (uint32_t i = 0; i < N; i++) {
            uint32_t n = 1 + (uint32_t)(hash_u64(i) % 60), width = 1 + i % WIDTH_MAX;
            rig_prompt(prompts[i], n, i % 4);
            if (i % 6 == 5) {
                reqs[i] = rig_req(stream, prompts[i], n, 12);
                reqs[i].n_samples = 2;
                reqs[i].temperature = 1;
            } else {
                reqs[i] = beams(stream, prompts[i], n, width, 1 + i % 11, penalties[i % 6]);
                reqs[i].n_logprobs = i % 3 == 0 ? (int32_t)(i % 4) : -1;
                reqs[i].ignore_eos = i % 5 == 4;
            }
            rig_submit(&f->rig, &reqs[i]);
            stream += reqs[i].n_samples;
        }
        rig_wait_ends(&f->rig, stream);
        rig_wait_idle(&f->rig);
        for (uint32_t i = 0; i < N; i++)
            if (reqs[i].beams)
                expect(f, &reqs[i]);
        rig_stop(&f->rig);
        if (room + 1 < ARRAY_LEN(rooms))
            rig_free(&f->rig);
    }
}

/* A long search forks blocks at every offset, and copies what is written. */
static void test_long(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[50];
    rig_prompt(prompt, 50, 9);
    rig_start(&f->rig, &f->opts);
    struct req q = beams(0, prompt, 50, 5, STEPS_MAX, 1);
    q.ignore_eos = true;
    q.n_logprobs = 0;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 5);
    rig_wait_idle(&f->rig);
    expect(f, &q);
    assert_true(atomic_load(&f->device.n_copied) > 0);
}

/* A search that nothing can change any more ends before its limit. */
static void test_early_end(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[3] = {1, 2, 3};
    rig_start(&f->rig, &f->opts);
    struct req q = beams(0, prompt, 3, 1, 200, 0); /* sums alone count, and only fall */
    uint32_t stops[80];
    for (uint32_t i = 0; i < 80; i++)
        stops[i] = i;
    q.stop_ids = stops; /* most tokens end a text */
    q.n_stop_ids = 80;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 1);
    assert_int_equal(f->rig.streams[0].finish, FINISH_STOP);
    assert_true(atomic_load(&f->device.n_steps) < 100);
}

static void test_abort(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[20];
    rig_prompt(prompt, 20, 3);
    atomic_store(&f->device.step_us, 500);
    rig_start(&f->rig, &f->opts);
    struct req q = beams(0, prompt, 20, 6, 200, 1);
    q.ignore_eos = true;
    rig_submit(&f->rig, &q);
    struct req other = rig_req(10, prompt, 20, 8);
    rig_submit(&f->rig, &other);
    rig_wait_tokens(&f->rig, 10, 4);
    assert_int_equal(engine_abort(f->rig.engine, q.router, q.router_epoch, q.id, false, 3), RC_OK);
    rig_wait_ends(&f->rig, 7); /* all of them, whichever was named */
    rig_wait_idle(&f->rig);
    for (uint32_t k = 0; k < 6; k++) {
        assert_int_equal(f->rig.streams[k].finish, FINISH_ABORT);
        assert_int_equal(f->rig.streams[k].n_tokens, 0);
    }
}

static void test_nan(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[4] = {1, 2, 3, 4};
    rig_start(&f->rig, &f->opts);
    atomic_store(&f->device.nan_in, 3);
    struct req q = beams(0, prompt, 4, 4, 20, 1);
    q.ignore_eos = true;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 4);
    for (uint32_t k = 0; k < 4; k++) {
        assert_int_equal(f->rig.streams[k].finish, FINISH_ERROR);
        assert_int_equal(f->rig.streams[k].status, 500);
    }
    rig_wait_idle(&f->rig);
}

/* The prompt's log-probabilities come with the first hypothesis. */
static void test_prompt_rows(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[30];
    rig_prompt(prompt, 30, 5);
    rig_start(&f->rig, &f->opts);
    struct req q = beams(0, prompt, 30, 3, 4, 1);
    q.n_prompt_logprobs = 0;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 3);
    expect(f, &q);
    assert_int_equal(f->rig.streams[0].n_prompt_logprobs, 30);
    for (uint32_t i = 1; i < 30; i++)
        assert_true(f->rig.streams[0].prompt[i].logprob == fake_logprob(prompt, i, 0, prompt[i]));
}

static void test_refused(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[2] = {1, 2}, stop = 3;
    struct sample_bias bias = {1, 1};
    struct err e;
    rig_start(&f->rig, &f->opts);
#define CASE(change)                                                                                         \
    do {                                                                                                     \
        struct req q = beams(0, prompt, 2, 2, 5, 1);                                                         \
        change;                                                                                              \
        struct req *r = req_new(&q);                                                                         \
        assert_int_equal(engine_submit(f->rig.engine, r, &e), RC_INVALID);                                   \
        req_free(r);                                                                                         \
    } while (0)
    CASE((q.n_samples = 51));
    CASE((q.max_tokens = 0));
    CASE((q.min_tokens = 1));
    CASE((q.presence_penalty = 1));
    CASE((q.length_penalty = NAN));
    CASE((q.bias = &bias, q.n_bias = 1));
    struct req good = beams(0, prompt, 2, 2, 5, 1);
    good.stop_ids = &stop;
    good.n_stop_ids = 1;
    rig_submit(&f->rig, &good);
    rig_wait_ends(&f->rig, 2);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_many),  T(test_long),        T(test_early_end), T(test_abort),
                                       T(test_nan),   T(test_prompt_rows), T(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
