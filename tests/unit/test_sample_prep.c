/* Requests as they are made and prepared, and the rows that the backend samples from. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/hash.h"
#include "tests/support/engine_rig.h"
#include "worker/sample.h"

static const uint32_t eos_ids[] = {50, 7};

static struct req *make(const struct req *src) {
    struct req *r = req_new(src);
    req_prepare(r, eos_ids, 2, true);
    for (uint32_t k = 0; k < r->n_samples; k++)
        seq_ready(&r->seqs[k]);
    return r;
}

/* A copy shares nothing with its source. */
static void test_copy(void **state) {
    (void)state;
    uint32_t prompt[40], stops[3] = {9, 50, 3}, allowed[2] = {5, 6}, sent[5] = {1, 2, 3, 4, 5};
    struct sample_bias bias[2] = {{1, 0.5f}, {4, -1}};
    struct req_resume resume[2] = {{0, sent, 2}, {2, sent + 1, 4}};
    for (uint32_t i = 0; i < 40; i++)
        prompt[i] = i;
    struct req src = rig_req(3, prompt, 40, 10);
    src.n_samples = 3;
    src.stop_ids = stops;
    src.n_stop_ids = 3;
    src.allowed = allowed;
    src.n_allowed_words = 2;
    src.bias = bias;
    src.n_bias = 2;
    src.resume = resume;
    src.n_resume = 2;
    struct req *r = make(&src);
    memset(prompt, 0xee, sizeof prompt);
    memset(stops, 0xee, sizeof stops);
    memset(allowed, 0xee, sizeof allowed);
    memset(sent, 0xee, sizeof sent);
    memset(bias, 0xee, sizeof bias);
    memset(resume, 0xee, sizeof resume);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(r->prompt[i], i);
    assert_int_equal(r->allowed[1], 6);
    assert_true(r->bias[1].id == 4 && r->bias[1].value == -1);
    assert_int_equal(r->seqs[0].n_out, 2);
    assert_int_equal(r->seqs[1].n_out, 0);
    assert_int_equal(r->seqs[2].n_out, 4);
    assert_int_equal(seq_token(&r->seqs[2], 41), 3);
    const uint32_t want[] = {3, 7, 9, 50}; /* sorted, unique, the model's among them */
    assert_int_equal(r->n_stops, 4);
    assert_memory_equal(r->stops, want, sizeof want);
    assert_true(req_stops_at(r, 50) && req_stops_at(r, 3) && !req_stops_at(r, 4) && !req_stops_at(r, 51));
    req_free(r);
    req_free(NULL);
}

static void test_ignore_eos(void **state) {
    (void)state;
    uint32_t prompt[1] = {1}, stops[1] = {7};
    struct req src = rig_req(0, prompt, 1, 10);
    src.ignore_eos = true;
    struct req *r = make(&src);
    assert_int_equal(r->n_stops, 0);
    req_free(r);
    src.stop_ids = stops; /* the client may name an end token itself */
    src.n_stop_ids = 1;
    r = make(&src);
    assert_true(req_stops_at(r, 7) && !req_stops_at(r, 50));
    req_free(r);
}

/* Block names chain over prompt and output, and differ with the domain from the first block on. */
static void test_names(void **state) {
    (void)state;
    uint32_t prompt[40] = {0}, tokens[64];
    struct req src = rig_req(0, prompt, 40, 30), salted;
    src.domain[0] = 1;
    salted = src;
    salted.domain[0] = 2;
    struct req *r = make(&src), *s = make(&salted);
    assert_int_equal(r->n_hashes, 2);
    for (uint32_t i = 0; i < 24; i++) {
        seq_accept(&r->seqs[0], 100 + i, 1000);
        seq_accept(&s->seqs[0], 100 + i, 1000);
    }
    seq_copy_tokens(&r->seqs[0], 0, 64, tokens);
    struct id128 domain, parent = {0}, name = {0}, other = {0};
    memcpy(domain.b, src.domain, 16);
    for (uint32_t i = 0; i < 4; i++) {
        parent = hash_block(parent, domain, tokens + 16 * i, NULL);
        name = seq_block_name(&r->seqs[0], i, name);
        other = seq_block_name(&s->seqs[0], i, other);
        assert_memory_equal(name.b, parent.b, 16);
        assert_false(id128_eq(name, other));
    }
    req_free(r);
    req_free(s);
    /* The same, where even the first block is part output. */
    src.n_prompt = salted.n_prompt = 5;
    r = make(&src);
    s = make(&salted);
    for (uint32_t i = 0; i < 11; i++) {
        seq_accept(&r->seqs[0], i, 1000);
        seq_accept(&s->seqs[0], i, 1000);
    }
    assert_false(id128_eq(seq_block_name(&r->seqs[0], 0, (struct id128){0}),
                          seq_block_name(&s->seqs[0], 0, (struct id128){0})));
    req_free(r);
    req_free(s);
}

static void test_accept(void **state) {
    (void)state;
    uint32_t prompt[4] = {0};
    struct req src = rig_req(0, prompt, 4, 3);
    struct req *r = make(&src);
    struct seq *q = &r->seqs[0];
    assert_int_equal(seq_accept(q, 1, 100), FINISH_NONE);
    assert_int_equal(seq_accept(q, 2, 100), FINISH_NONE);
    assert_int_equal(seq_accept(q, 7, 100), FINISH_STOP); /* on the last allowed token: stop, not length */
    req_free(r);
    r = make(&src);
    seq_accept(&r->seqs[0], 1, 100);
    seq_accept(&r->seqs[0], 1, 100);
    assert_int_equal(seq_accept(&r->seqs[0], 1, 100), FINISH_LENGTH);
    req_free(r);
    r = make(&src);
    assert_int_equal(seq_accept(&r->seqs[0], 1, 6), FINISH_NONE);
    assert_int_equal(seq_accept(&r->seqs[0], 1, 6), FINISH_LENGTH); /* the context is full */
    req_free(r);
}

static void test_row(void **state) {
    (void)state;
    uint32_t prompt[6] = {5, 3, 5, 80, 3, 5}, allowed[4] = {1};
    struct sample_bias bias[1] = {{9, 2}};
    struct sample_row row;
    struct req src = rig_req(0, prompt, 6, 20);
    src.n_samples = 2;
    src.temperature = 0.7f;
    src.top_p = 0.9f;
    src.min_p = 0.1f;
    src.top_k = 40;
    src.seed = UINT64_MAX;
    src.min_tokens = 2;
    src.n_logprobs = 3;
    src.bias = bias;
    src.n_bias = 1;
    src.allowed = allowed;
    src.n_allowed_words = 4;
    struct req *r = make(&src);
    sample_row_fill(&row, &r->seqs[1], 100, BE_PROCESSED_LOGPROBS);
    assert_true(row.temperature == 0.7f && row.top_p == 0.9f && row.min_p == 0.1f && row.top_k == 40);
    assert_true(row.repetition_penalty == 1 && row.frequency_penalty == 0 && row.presence_penalty == 0);
    assert_true(row.seed == 0 && row.position == 0); /* seed + sample wraps */
    assert_true(row.n_banned == 2 && row.banned[0] == 7 && row.banned[1] == 50);
    assert_true(row.n_bias == 1 && row.bias[0].id == 9 && row.mask == r->allowed);
    assert_true(row.want_logprob && row.n_top == 3 && row.logprobs_mode == BE_PROCESSED_LOGPROBS);
    assert_true(row.n_seen == 0 && row.seen == NULL); /* no penalty: no list */
    for (uint32_t i = 0; i < 2; i++) {
        seq_accept(&r->seqs[1], 60, 100);
        sample_note(&r->seqs[1], 60);
    }
    sample_row_fill(&row, &r->seqs[1], 100, BE_RAW_LOGPROBS);
    assert_true(row.position == 2 && row.n_banned == 0); /* min_tokens are out */
    req_free(r);
    src.n_logprobs = -1;
    r = make(&src);
    sample_row_fill(&row, &r->seqs[0], 100, BE_RAW_LOGPROBS);
    assert_true(!row.want_logprob && row.n_top == 0 && row.seed == UINT64_MAX);
    req_free(r);
}

/* The seen list against a count over everything, for each kind of penalty. */
static void test_seen(void **state) {
    (void)state;
    enum { VOCAB = 40, N_PROMPT = 60, N_OUT = 200 };
    uint32_t prompt[N_PROMPT], sent[20];
    for (uint32_t i = 0; i < N_PROMPT; i++)
        prompt[i] = (uint32_t)(hash_u64(i) % VOCAB / 2);
    for (uint32_t i = 0; i < 20; i++)
        sent[i] = (uint32_t)(hash_u64(i + 500) % VOCAB);
    for (int kind = 0; kind < 3; kind++) {
        struct req_resume resume = {0, sent, 20};
        struct req src = rig_req(0, prompt, N_PROMPT, N_OUT);
        src.repetition_penalty = kind == 0 ? 1.2f : 1;
        src.frequency_penalty = kind == 1 ? 0.5f : 0;
        src.presence_penalty = kind == 2 ? -0.5f : 0;
        src.resume = &resume;
        src.n_resume = 1;
        struct req *r = make(&src);
        struct seq *q = &r->seqs[0];
        for (uint32_t i = 20; i < N_OUT; i++) {
            struct sample_row row;
            sample_row_fill(&row, q, VOCAB, BE_RAW_LOGPROBS);
            uint32_t in_prompt[VOCAB] = {0}, n_output[VOCAB] = {0}, n = 0;
            for (uint32_t k = 0; k < seq_known(q); k++)
                *(k < N_PROMPT ? &in_prompt[seq_token(q, k)] : &n_output[seq_token(q, k)]) += 1;
            for (uint32_t id = 0; id < VOCAB; id++) {
                if (!in_prompt[id] && !n_output[id])
                    continue;
                assert_true(n < row.n_seen);
                assert_int_equal(row.seen[n].id, id);
                assert_int_equal(row.seen[n].in_prompt, in_prompt[id] > 0);
                assert_int_equal(row.seen[n].n_output, n_output[id]);
                n++;
            }
            assert_int_equal(row.n_seen, n);
            uint32_t token = (uint32_t)(hash_u64(i * 7) % VOCAB);
            seq_accept(q, token, 10000);
            sample_note(q, token);
        }
        req_free(r);
    }
}

/* Sorting, with ids of every magnitude. */
static void test_stop_set(void **state) {
    (void)state;
    for (uint32_t n = 1; n < 200; n += 13) {
        uint32_t prompt[1] = {0}, ids[200];
        for (uint32_t i = 0; i < n; i++)
            ids[i] = (uint32_t)hash_u64(i % 50) >> i % 29;
        struct req src = rig_req(0, prompt, 1, 5);
        src.stop_ids = ids;
        src.n_stop_ids = n;
        struct req *r = make(&src);
        for (uint32_t i = 1; i < r->n_stops; i++)
            assert_true(r->stops[i - 1] < r->stops[i]);
        for (uint32_t i = 0; i < n; i++)
            assert_true(req_stops_at(r, ids[i]));
        req_free(r);
    }
}

/* Banned words against a search through the whole output at every token. */
static void test_words(void **state) {
    (void)state;
    enum { N_OUT = 600, N_WORDS = 8 };
    static const uint32_t word[N_WORDS][6] = {{1},          {2, 3},       {1, 2, 1},       {2, 2, 2, 1},
                                              {3, 3, 2, 3}, {1, 2, 1, 2}, {2, 1, 2, 1, 2}, {3, 1, 3, 1, 3, 2}};
    static const uint32_t length[N_WORDS] = {1, 2, 3, 4, 4, 4, 5, 6};
    uint32_t prompt[3] = {2, 2, 2}, stops[2] = {40, 3}, sent[30];
    struct req_word words[N_WORDS];
    for (uint32_t i = 0; i < 30; i++)
        sent[i] = 1 + (uint32_t)(hash_u64(i) % 3); /* what was sent already may hold a word */
    struct req_resume resume = {0, sent, 30};
    struct req src = rig_req(0, prompt, 3, N_OUT);
    for (uint32_t i = 0; i < N_WORDS; i++)
        words[i] = (struct req_word){word[i], length[i], NULL};
    src.words = words;
    src.n_words = N_WORDS;
    src.stop_ids = stops;
    src.n_stop_ids = 2;
    src.min_tokens = 100;
    src.resume = &resume;
    src.n_resume = 1;
    struct req *r = make(&src);
    struct seq *q = &r->seqs[0];
    for (uint32_t n = 30; n < N_OUT; n++) {
        bool want[64] = {0};
        struct sample_row row;
        uint32_t n_want = 0;
        for (uint32_t k = 0; n < 100 && k < r->n_stops; k++)
            want[r->stops[k]] = true;
        for (uint32_t i = 0; i < N_WORDS; i++) {
            uint32_t m = length[i] - 1;
            if (m <= n && !memcmp(q->out + n - m, word[i], m * sizeof **word))
                want[word[i][m]] = true;
        }
        sample_row_fill(&row, q, 64, BE_RAW_LOGPROBS);
        for (uint32_t id = 0; id < 64; id++)
            n_want += want[id];
        assert_int_equal(row.n_banned, n_want);
        for (uint32_t k = 0; k < row.n_banned; k++) {
            assert_true(want[row.banned[k]]);
            assert_true(k == 0 || row.banned[k] > row.banned[k - 1]);
        }
        uint32_t id = 1 + (uint32_t)(hash_u64(n + 77) % 4); /* 1, 2 and 3 often, whatever is banned */
        seq_accept(q, id, 10000);
        sample_note(q, id);
    }
    req_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),     cmocka_unit_test(test_ignore_eos), cmocka_unit_test(test_names),
        cmocka_unit_test(test_accept),   cmocka_unit_test(test_row),        cmocka_unit_test(test_seen),
        cmocka_unit_test(test_stop_set), cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
