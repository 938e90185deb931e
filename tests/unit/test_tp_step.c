/* The ring between ranks, and the plans that go through it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/ring.h"
#include "worker/tp_step.h"

/* ---- ring --------------------------------------------------------------------------------------- */

enum { RING_WORDS = 64, READERS = 3, WORDS = 20000 };

struct end {
    pthread_t thread;
    struct ring *ring;
    uint32_t reader;
    bool ok;
};

static void *memory_of(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

/* read_all: in pieces of other sizes than they were written in. */
static bool read_all(struct ring *r, uint32_t reader) {
    uint32_t v[150], next = 0;
    for (size_t n; next < WORDS; next += (uint32_t)n) {
        n = MIN(1 + (next * 7 + reader) % 150, (size_t)(WORDS - next));
        if (!ring_read(r, reader, v, n))
            return false;
        for (size_t i = 0; i < n; i++)
            if (v[i] != next + i)
                return false;
    }
    return true;
}

static void *reader_main(void *arg) {
    struct end *e = arg;
    e->ok = read_all(e->ring, e->reader);
    return NULL;
}

static bool write_all(struct ring *r) {
    uint32_t v[200];
    for (uint32_t next = 0, n; next < WORDS; next += n) {
        n = MIN(1 + next * 13 % 200, WORDS - next); /* some are longer than the ring */
        for (uint32_t i = 0; i < n; i++)
            v[i] = next + i;
        if (!ring_write(r, v, n))
            return false;
    }
    return true;
}

static void test_threads(void **state) {
    (void)state;
    for (int spin = 0; spin < 2; spin++) {
        uint32_t stop = 0;
        struct ring r;
        struct end ends[READERS];
        void *memory = memory_of(ring_bytes(RING_WORDS));
        ring_init(&r, memory, RING_WORDS, READERS, &stop, spin);
        for (uint32_t i = 0; i < READERS; i++) {
            ends[i] = (struct end){.ring = &r, .reader = i};
            assert_int_equal(pthread_create(&ends[i].thread, NULL, reader_main, &ends[i]), 0);
        }
        assert_true(write_all(&r));
        for (uint32_t i = 0; i < READERS; i++) {
            pthread_join(ends[i].thread, NULL);
            assert_true(ends[i].ok);
        }
        munmap(memory, ring_bytes(RING_WORDS));
    }
}

static void test_processes(void **state) {
    (void)state;
    size_t bytes = 64 + ring_bytes(RING_WORDS);
    uint8_t *memory = memory_of(bytes);
    struct ring r;
    ring_init(&r, memory + 64, RING_WORDS, 1, (const uint32_t *)(const void *)memory, true);
    pid_t pid = fork();
    if (pid == 0)
        _exit(read_all(&r, 0) ? 0 : 1);
    assert_true(write_all(&r));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    munmap(memory, bytes);
}

/* Whoever waits is let go: a writer for a reader that never reads, a reader for a writer that never writes.
 */
static void *stopper(void *arg) {
    usleep(20000);
    __atomic_store_n((uint32_t *)arg, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void test_stop(void **state) {
    (void)state;
    for (int writes = 0; writes < 2; writes++) {
        uint32_t stop = 0, word;
        struct ring r;
        pthread_t t;
        void *memory = memory_of(ring_bytes(RING_WORDS));
        ring_init(&r, memory, RING_WORDS, 1, &stop, false);
        assert_int_equal(pthread_create(&t, NULL, stopper, &stop), 0);
        assert_false(writes ? write_all(&r) : ring_read(&r, 0, &word, 1));
        pthread_join(t, NULL);
        munmap(memory, ring_bytes(RING_WORDS));
    }
}

/* ---- plans -------------------------------------------------------------------------------------- */

static const struct tp_limits limits = {.n_tokens_max = 8,
                                        .n_seqs_max = 3,
                                        .n_rows_max = 4,
                                        .n_vocab = 100,
                                        .max_len = 64,
                                        .n_groups = 2,
                                        .n_blocks = {10, 20}};

/* plan: two sequences, one with 3 tokens from position 17, one with a single token at 5. */
struct plan_arrays {
    uint32_t tokens[4], seq_start[3], kv_len[2], rows[2], slot[4], table0[4], table1[4];
    int32_t pos[4];
    uint8_t kind[2], type[4];
    struct batch b;
};

static void plan_of(struct plan_arrays *p) {
    *p = (struct plan_arrays){.tokens = {1, 2, 3, 99},
                              .seq_start = {0, 3, 4},
                              .kv_len = {20, 6},
                              .rows = {2, 3},
                              .slot = {17, 18, 19, 85},
                              .table0 = {0, 1, 9, 0},
                              .table1 = {19, 1, 5, 0},
                              .pos = {17, 18, 19, 5},
                              .kind = {ATTN_CAUSAL, ATTN_BIDIRECTIONAL},
                              .type = {0, 1, 0, 1}};
    p->b = (struct batch){.n_tokens = 4,
                          .n_seqs = 2,
                          .n_rows = 2,
                          .n_axes = 1,
                          .n_groups = 2,
                          .tokens = p->tokens,
                          .pos = p->pos,
                          .seq_start = p->seq_start,
                          .kv_len = p->kv_len,
                          .kind = p->kind,
                          .token_type = p->type,
                          .rows = p->rows};
    for (int g = 0; g < 2; g++) {
        p->b.group[g].table_stride = 2;
        p->b.group[g].table = g ? p->table1 : p->table0;
        p->b.group[g].slot = p->slot;
    }
}

static void test_step(void **state) {
    (void)state;
    struct plan_arrays p;
    struct tp_msg m;
    struct err e;
    uint32_t words[512];
    plan_of(&p);
    assert_true(tp_words_max(&limits) <= ARRAY_LEN(words));
    for (int bare = 0; bare < 2; bare++) {
        if (bare)
            p.b.kind = p.b.token_type = NULL;
        size_t n = tp_put_step(words, &p.b);
        assert_true(n <= tp_words_max(&limits) && words[0] == n);
        if (tp_get(words, n, &limits, &m, &e))
            fail_msg("%s", e.msg);
        const struct batch *b = &m.batch;
        assert_int_equal(m.kind, TP_STEP);
        assert_true(b->n_tokens == 4 && b->n_seqs == 2 && b->n_rows == 2 && b->n_axes == 1 &&
                    b->n_groups == 2);
        assert_memory_equal(b->tokens, p.tokens, sizeof p.tokens);
        assert_memory_equal(b->pos, p.pos, sizeof p.pos);
        assert_memory_equal(b->seq_start, p.seq_start, sizeof p.seq_start);
        assert_memory_equal(b->kv_len, p.kv_len, sizeof p.kv_len);
        assert_memory_equal(b->rows, p.rows, sizeof p.rows);
        assert_int_equal(b->kind == NULL, bare);
        assert_int_equal(b->token_type == NULL, bare);
        if (!bare) {
            assert_memory_equal(b->kind, p.kind, sizeof p.kind);
            assert_memory_equal(b->token_type, p.type, sizeof p.type);
        }
        assert_memory_equal(b->group[0].table, p.table0, sizeof p.table0);
        assert_memory_equal(b->group[1].table, p.table1, sizeof p.table1);
        assert_memory_equal(b->group[1].slot, p.slot, sizeof p.slot);
    }
}

static void test_others(void **state) {
    (void)state;
    struct tp_msg m;
    struct err e;
    uint32_t words[64];
    static const uint32_t n_blocks[2] = {7, 8};
    static const struct be_copy copies[2] = {{1, 2}, {3, 19}};
    assert_int_equal(tp_get(words, tp_put_pools(words, n_blocks, 2), &limits, &m, &e), RC_OK);
    assert_true(m.kind == TP_POOLS && m.n_blocks[0] == 7 && m.n_blocks[1] == 8);
    assert_int_equal(tp_get(words, tp_put_copies(words, 1, copies, 2), &limits, &m, &e), RC_OK);
    assert_true(m.kind == TP_COPY && m.group == 1 && m.n_copies == 2);
    assert_memory_equal(m.copies, copies, sizeof copies);
    assert_int_equal(tp_get(words, tp_put_copies(words, 0, copies, 2), &limits, &m, &e),
                     RC_INVALID); /* of 10 */
    assert_int_equal(tp_get(words, tp_put_copies(words, 2, copies, 0), &limits, &m, &e), RC_INVALID);
    assert_int_equal(tp_get(words, tp_put_stop(words), &limits, &m, &e), RC_OK);
    assert_int_equal(m.kind, TP_STOP);
    static const uint32_t moved[3] = {0, 19, 7};
    assert_int_equal(tp_get(words, tp_put_move(words, true, 3, 9, 1, moved, 3), &limits, &m, &e), RC_OK);
    assert_true(m.kind == TP_MOVE && m.in && m.rank == 3 && m.serial == 9 && m.group == 1 && m.n_blocks_moved == 3);
    assert_memory_equal(m.blocks, moved, sizeof moved);
    assert_int_equal(tp_get(words, tp_put_move(words, false, 3, 9, 0, moved, 3), &limits, &m, &e), RC_INVALID);
    assert_int_equal(tp_get(words, tp_put_move(words, false, BE_RANKS_MAX, 9, 1, moved, 3), &limits, &m, &e), RC_INVALID);
    assert_int_equal(tp_get(words, tp_put_move(words, false, 3, 9, 2, moved, 3), &limits, &m, &e), RC_INVALID);
    size_t n = tp_put_pools(words, (const uint32_t[2]){0, 8}, 2);
    assert_int_equal(tp_get(words, n, &limits, &m, &e), RC_INVALID);
    words[1] = 77;
    assert_int_equal(tp_get(words, n, &limits, &m, &e), RC_INVALID);
    assert_int_equal(tp_get(words, 0, &limits, &m, &e), RC_INVALID);
    assert_int_equal(tp_get(words, 1, &limits, &m, &e), RC_INVALID);
}

/* Each fault alone is found, and named. */
static void test_bad(void **state) {
    (void)state;
    struct plan_arrays p;
    struct tp_msg m;
    struct err e;
    uint32_t words[512];
    plan_of(&p);
    const struct {
        uint32_t *at, bad;
        const char *why;
    } cases[] = {
        {&p.b.n_tokens, 3, "tokens of the sequences"},
        {&p.b.n_axes, 0, "axes"},
        {&p.b.n_groups, 1, "cache groups"},
        {&p.tokens[3], 100, "a token"},
        {(uint32_t *)&p.pos[3], 6, "position of a token"},
        {(uint32_t *)&p.pos[0], UINT32_MAX, "position of a token"},
        {&p.seq_start[0], 1, "tokens of the sequences"},
        {&p.seq_start[1], 5, "where a sequence starts"},
        {&p.kv_len[0], 65, "length of a sequence"},
        {&p.kv_len[0], 33, "blocks of a sequence"},
        {&p.rows[1], 4, "a row"},
        {&p.slot[0], 160, "a slot"},
        {&p.table0[2], 10, "a block"},
        {&p.table1[0], 20, "a block"},
        {&p.b.group[0].table_stride, 6, "width of a block table"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t before = *cases[i].at;
        *cases[i].at = cases[i].bad;
        uint32_t wide[64] = {0};
        if (p.b.group[0].table_stride == 6)
            p.b.group[0].table = wide;
        size_t n = tp_put_step(words, &p.b);
        *cases[i].at = before;
        p.b.group[0].table = p.table0;
        assert_int_equal(tp_get(words, n, &limits, &m, &e), RC_INVALID);
        if (!strstr(e.msg, cases[i].why))
            fail_msg("\"%s\" is not in: %s", cases[i].why, e.msg);
    }
    p.kind[0] = ATTN_CROSS;
    assert_int_equal(tp_get(words, tp_put_step(words, &p.b), &limits, &m, &e), RC_INVALID);
    p.kind[0] = ATTN_CAUSAL;
    size_t n = tp_put_step(words, &p.b);
    for (size_t less = TP_HEAD_WORDS; less < n; less++) { /* cut short anywhere, and one word too many */
        words[0] = (uint32_t)less;
        assert_int_equal(tp_get(words, less, &limits, &m, &e), RC_INVALID);
    }
    words[0] = (uint32_t)n + 1;
    words[n] = 0;
    assert_int_equal(tp_get(words, n + 1, &limits, &m, &e), RC_INVALID);
    words[0] = (uint32_t)n;
    assert_int_equal(tp_get(words, n, &limits, &m, &e), RC_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads), cmocka_unit_test(test_processes), cmocka_unit_test(test_stop),
        cmocka_unit_test(test_step),    cmocka_unit_test(test_others),    cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests_name("tp_step", tests, NULL, NULL);
}
