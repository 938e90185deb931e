/* One grammar and one vocabulary under several threads at once, with so little memory that they collect under
 * each other: every run sees the masks that it sees alone.
 *
 * threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/gram_json.h"
#include "tests/support/gram_oracle.h"

#include <pthread.h>
#include <stdlib.h>

#ifdef WEIR_SANITIZE
enum { SLOWER = 8 };
#else
enum { SLOWER = 1 };
#endif

enum { N_THREADS = 4, N_TOKENS = 300, END = N_TOKENS - 1 };
struct work {
    struct gram *g;
    const struct gram_vocab *v;
    uint64_t seed, hash;
    bool ok;
};

static void *walk(void *arg) {
    struct work *w = arg;
    uint64_t seed = w->seed;
    for (int i = 0; i < 40 / SLOWER + 4; i++) {
        struct gram_run *r = gram_run_new(w->g, w->v);
        struct err e = {0};
        uint32_t mask[(N_TOKENS + 31) / 32], allowed[N_TOKENS];
        for (int step = 0; step < 40; step++) {
            uint32_t n = 0;
            w->ok = w->ok && gram_run_mask(r, mask, &e) == RC_OK;
            for (uint32_t t = 0; t < END; t++)
                if (mask[t / 32] >> (t % 32) & 1)
                    allowed[n++] = t;
            for (size_t k = 0; k < ARRAY_LEN(mask); k++)
                w->hash = w->hash * 31 + mask[k];
            if (!n)
                break;
            w->ok = w->ok && gram_run_accept(r, allowed[oracle_random(&seed, n)], &e) == RC_OK;
        }
        gram_run_free(r);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct gram_limits small = {.memory_bytes = 4 * MIB};
    char *bytes;
    uint32_t eos = END;
    struct str *tokens = oracle_vocab(2, N_TOKENS, &bytes);
    struct gram_vocab *v = gram_vocab_of(tokens, N_TOKENS, &eos, 1);
    struct gram *shared = gram_json(&small), *alone = gram_json(NULL);
    struct work w[N_THREADS], one[N_THREADS];
    pthread_t id[N_THREADS];
    for (uint64_t i = 0; i < N_THREADS; i++) {
        w[i] = (struct work){shared, v, i / 2, 0, true}; /* two of a kind */
        one[i] = (struct work){alone, v, i / 2, 0, true};
        assert_int_equal(pthread_create(&id[i], NULL, walk, &w[i]), 0);
    }
    for (size_t i = 0; i < N_THREADS; i++) {
        pthread_join(id[i], NULL);
        walk(&one[i]);
        assert_true(w[i].ok && one[i].ok);
        assert_int_equal(w[i].hash, one[i].hash);
    }
    gram_drop(shared);
    gram_drop(alone);
    gram_vocab_free(v);
    free(tokens);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests_name("gram_threads", tests, NULL, NULL);
}
