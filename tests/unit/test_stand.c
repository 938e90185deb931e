/* What a rank on another host sends to its stand: sums and columns of the logits arrive, alike for all; and of everything
 * that is no such message nothing is taken, before anybody is waited for. threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "worker/backend.h"

enum { ROWS = 4, VOCAB = 100, COLS = 8, HEAD = 8, N = 3 * COLS, SUM = 1, LOGITS = 2 };

static struct be_config config(struct be_group *group, int rank) {
    return (struct be_config){.rank = rank, .n_ranks = 2, .group = group, .n_rows_max = ROWS, .n_vocab = VOCAB,
                              .n_reduce_cols = COLS, .n_tokens_max = 1, .n_seqs_max = 1};
}

static struct be_group *memory(void) {
    struct be_config c = config(NULL, 0);
    size_t n = (cpu_ops.group_bytes(&c) + 63) / 64 * 64;
    struct be_group *g = aligned_alloc(64, n);
    CHECK(g);
    memset(g, 0, n);
    return g;
}

static struct be_stand *stand(struct be_group *g, int rank) {
    struct be_config c = config(g, rank);
    char err[BE_ERR_BYTES] = "";
    struct be_stand *s = cpu_ops.stand_open(&c, err);
    assert_non_null(s);
    return s;
}

struct party {
    struct be_stand *s;
    float in[HEAD + N], out[N];
    size_t n_out;
    bool good;
};

static void *party_run(void *arg) {
    struct party *p = arg;
    p->good = cpu_ops.stand_call(p->s, p->in, sizeof p->in, p->out, p->n_out);
    return NULL;
}

/* together: both ranks send their message. */
static void together(struct party p[2]) {
    pthread_t t;
    CHECK(pthread_create(&t, NULL, party_run, &p[1]) == 0);
    party_run(&p[0]);
    pthread_join(t, NULL);
    assert_true(p[0].good && p[1].good);
}

static void test_sums_and_logits(void **state) {
    (void)state;
    struct be_group *g = memory();
    struct party p[2];
    for (int r = 0; r < 2; r++)
        p[r].s = stand(g, r);
    for (uint32_t turn = 0; turn < 5; turn++) {
        for (int r = 0; r < 2; r++) {
            uint32_t head[HEAD] = {SUM, N};
            memcpy(p[r].in, head, sizeof head);
            for (uint32_t i = 0; i < N; i++)
                p[r].in[HEAD + i] = (float)(i + turn) * (r ? 0.3f : 1.0f);
            p[r].n_out = sizeof p[r].out;
        }
        together(p);
        for (uint32_t i = 0; i < N; i++) {
            assert_true(p[0].out[i] == p[0].in[HEAD + i] + p[1].in[HEAD + i]);
            assert_true(p[1].out[i] == p[0].out[i]);
        }
    }
    for (int r = 0; r < 2; r++) { /* 3 rows of 8 columns, those of rank 1 behind 50 others */
        uint32_t head[HEAD] = {LOGITS, N, 0, 3, r ? 50 : 0, COLS, 1, 1};
        memcpy(p[r].in, head, sizeof head);
        for (uint32_t i = 0; i < N; i++)
            p[r].in[HEAD + i] = (float)(100 * (uint32_t)r + i);
        p[r].n_out = 0;
    }
    together(p);
    struct be_config c = config(g, 0);
    struct be *b = NULL;
    char err[BE_ERR_BYTES] = "";
    float row[VOCAB];
    c.n_threads = 1;
    assert_int_equal(cpu_ops.open(&b, &c, err), 0); /* a rank of this host looks at the rows that all share */
    struct be_info info;
    cpu_ops.info(b, &info);
    const float *rows = (const float *)(const void *)((const uint8_t *)g + cpu_ops.group_bytes(&c)) -
                        (size_t)ROWS * info.n_vocab_padded;
    for (uint32_t r = 0; r < 3; r++) {
        memcpy(row, rows + (size_t)r * info.n_vocab_padded, sizeof row);
        for (uint32_t i = 0; i < COLS; i++)
            assert_true(row[i] == (float)(r * COLS + i) && row[50 + i] == (float)(100 + r * COLS + i));
    }
    cpu_ops.close(b);
    for (int r = 0; r < 2; r++)
        cpu_ops.stand_close(p[r].s);
    free(g);
}

static void test_no_message(void **state) {
    (void)state;
    static const struct {
        uint32_t head[HEAD];
        size_t n, n_out;
    } bad[] = {
        {{SUM, 8}, 0, 32},
        {{SUM, 8}, 31, 32},                                            /* less than a head */
        {{SUM, 8}, HEAD * 4 + 33, 32},                                 /* no whole floats */
        {{SUM, 8}, HEAD * 4 + 28, 32},                                 /* fewer than it says */
        {{SUM, 8}, HEAD * 4 + 36, 32},                                 /* more */
        {{SUM, 8}, HEAD * 4 + 32, 28},                                 /* another answer */
        {{SUM, 1 << 16}, HEAD * 4 + (4 << 16), 4 << 16},               /* more than a slot */
        {{0, 8}, HEAD * 4 + 32, 32},                                   /* no kind */
        {{3, 8}, HEAD * 4 + 32, 32},
        {{LOGITS, 8, 0, 1, 0, 8, 1, 1}, HEAD * 4 + 32, 4},             /* an answer */
        {{LOGITS, 8, 0, 2, 0, 8, 1, 1}, HEAD * 4 + 32, 0},             /* two rows of them are 16 */
        {{LOGITS, 8, 4, 1, 0, 8, 1, 1}, HEAD * 4 + 32, 0},             /* beyond the rows */
        {{LOGITS, 8, UINT32_MAX, 1, 0, 8, 1, 1}, HEAD * 4 + 32, 0},
        {{LOGITS, 40, 0, 5, 0, 8, 1, 1}, HEAD * 4 + 160, 0},
        {{LOGITS, 8, 0, 1, 93, 8, 1, 1}, HEAD * 4 + 32, 0},            /* beyond the vocabulary */
        {{LOGITS, 8, 0, 1, UINT32_MAX - 3, 8, 1, 1}, HEAD * 4 + 32, 0},
        {{LOGITS, 101, 0, 1, 0, 101, 1, 1}, HEAD * 4 + 404, 0},
        {{LOGITS, 0, 0, 65536, 0, 65536, 1, 1}, HEAD * 4, 0},          /* the product is 0 in 32 bits */
    };
    struct be_group *g = memory();
    struct be_stand *s = stand(g, 1);
    float *out = xcalloc(1 << 16, sizeof *out);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t *in = malloc(MAX(bad[i].n, 1)); /* exactly so long, for ASan */
        CHECK(in);
        memset(in, 0, MAX(bad[i].n, 1));
        memcpy(in, bad[i].head, MIN(bad[i].n, sizeof bad[i].head));
        if (cpu_ops.stand_call(s, in, bad[i].n, out, bad[i].n_out))
            fail_msg("message %zu", i);
        assert_int_equal(g->reached[1], 0);
        free(in);
    }
    g->failed = 1; /* a good one ends, too, when the group is over */
    uint32_t good[HEAD + 8] = {SUM, 8};
    assert_false(cpu_ops.stand_call(s, good, sizeof good, out, 32));
    cpu_ops.stand_close(s);
    free(out);
    free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sums_and_logits), cmocka_unit_test(test_no_message)};
    return cmocka_run_group_tests_name("stand", tests, NULL, NULL);
}
