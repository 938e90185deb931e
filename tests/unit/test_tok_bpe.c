/* Merging against the definition, on merge tables made at random: windows, heap and passes must all give
 * what the plain algorithm gives, also for tables no trainer would make. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/bpe.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t seed;

static uint32_t rnd(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

enum { N_IDS_MAX = 400, N_MERGES_MAX = 200 };

struct table {
    char piece[N_IDS_MAX][48];
    uint32_t n;
    struct bpe_merge merges[N_MERGES_MAX];
    uint32_t n_merges;
};

static uint32_t find(const struct table *t, const char *s) {
    for (uint32_t i = 0; i < t->n; i++)
        if (strcmp(t->piece[i], s) == 0)
            return i;
    return BPE_NONE;
}

/* table_make: single letters, then joins of what is there, in random order of rank. */
static void table_make(struct table *t, unsigned n_letters, unsigned n_joins, size_t n_max) {
    memset(t, 0, sizeof *t);
    for (; t->n < n_letters; t->n++)
        t->piece[t->n][0] = (char)('a' + t->n);
    for (unsigned i = 0; i < n_joins; i++) {
        uint32_t a = rnd(t->n), b = rnd(t->n);
        char joined[96];
        snprintf(joined, sizeof joined, "%s%s", t->piece[a], t->piece[b]);
        if (strlen(joined) > n_max)
            continue;
        uint32_t id = find(t, joined);
        if (id == BPE_NONE)
            strcpy(t->piece[id = t->n++], joined);
        t->merges[t->n_merges++] = (struct bpe_merge){a, b, id};
    }
    for (uint32_t i = t->n_merges; rnd(3) && i > 1; i--) {
        uint32_t j = rnd(i);
        struct bpe_merge m = t->merges[i - 1];
        t->merges[i - 1] = t->merges[j];
        t->merges[j] = m;
    }
}

static struct slices table_pieces(const struct table *t) {
    struct slices s = {.n = t->n, .at = calloc(t->n + 1, sizeof *s.at), .blob = malloc(t->n * 48)};
    for (uint32_t i = 0; i < t->n; i++) {
        size_t n = strlen(t->piece[i]);
        memcpy(s.blob + s.at[i], t->piece[i], n);
        s.at[i + 1] = s.at[i] + (uint32_t)n;
    }
    return s;
}

/* plain: one merge at a time, the lowest rank, the leftmost of equals. Letters the table lacks vanish. */
static size_t plain(const struct table *t, const char *p, size_t n, uint32_t *id) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        char letter[2] = {p[i], 0};
        if ((id[k] = find(t, letter)) != BPE_NONE)
            k++;
    }
    for (;;) {
        uint32_t best = BPE_NONE;
        size_t at = 0;
        for (size_t i = 0; i + 1 < k; i++)
            for (uint32_t r = t->n_merges; r-- > 0;)
                if (t->merges[r].a == id[i] && t->merges[r].b == id[i + 1]) {
                    if (r < best) {
                        best = r;
                        at = i;
                    }
                    break; /* of equal pairs the last counts */
                }
        if (best == BPE_NONE)
            return k;
        id[at] = t->merges[best].merged;
        memmove(id + at + 1, id + at + 2, (k - at - 2) * sizeof *id);
        k--;
    }
}

static void compare(const struct table *t, const struct bpe *m, const char *p, size_t n) {
    uint32_t *want = malloc((n + 1) * sizeof *want);
    struct tok_ids got = {0};
    size_t k = plain(t, p, n, want);
    bpe_encode(m, p, n, &got);
    if (got.n != k || (k && memcmp(got.v, want, k * sizeof *want) != 0))
        fail_msg("%zu letters, %u merges: %zu ids, not %zu: %.60s", n, t->n_merges, got.n, k, p);
    free(want);
    tok_ids_fini(&got);
}

static void test_random_tables(void **state UNUSED) {
    static const size_t sizes[] = {1, 2, 5, 11, 12, 40, 64, 65, 66, 100, 129, 300, 700};
    seed = 11;
    for (int round = 0; round < 150; round++) {
        struct table t;
        struct bpe m;
        unsigned n_letters = 1 + rnd(4);
        table_make(&t, n_letters, rnd(60), round % 3 == 0 ? 40 : 8);
        bpe_init(&m, table_pieces(&t), t.merges, t.n_merges, BPE_NONE, false, false);
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            char text[1024];
            size_t period = 1 + rnd(7), n = sizes[s];
            bool repeats = rnd(2);
            for (size_t i = 0; i < n; i++)
                text[i] = repeats && i >= period ? text[i - period]
                                                 : (char)('a' + rnd(n_letters + (round % 5 == 0)));
            text[n] = 0;
            compare(&t, &m, text, n);
        }
        bpe_fini(&m);
    }
}

/* Windows that never agree: with a chain of merges whose ranks fall from left to right, how a text starts
 * to merge depends on where it ends. The chain spans more than the first two sizes of window. */
static void test_chain(void **state UNUSED) {
    enum { N = 800 };
    struct slices s = {.n = 2 * 256, .at = calloc(2 * 256 + 1, sizeof *s.at), .blob = calloc(1, 256 * 3)};
    struct bpe_merge merges[255];
    char text[N];
    for (uint32_t i = 0; i < 256; i++) {
        s.blob[s.at[i]] = (char)i;
        s.at[i + 1] = s.at[i] + 1;
    }
    for (uint32_t i = 0; i < 255; i++) { /* id 256 + i: byte i and byte i + 1; the last pair merges first */
        s.blob[s.at[256 + i]] = (char)i;
        s.blob[s.at[256 + i] + 1] = (char)(i + 1);
        s.at[257 + i] = s.at[256 + i] + 2;
        merges[254 - i] = (struct bpe_merge){i, i + 1, 256 + i};
    }
    s.at[512] = s.at[511];
    struct bpe m;
    bpe_init(&m, s, merges, 255, BPE_NONE, false, false);
    assert_true(m.all_bytes);
    for (int i = 0; i < N; i++)
        text[i] = (char)(i % 256);
    for (size_t n = 2; n <= N; n += n < 300 ? 1 : 37) {
        struct tok_ids got = {0};
        bpe_encode(&m, text, n, &got);
        size_t at = 0;
        for (size_t i = 0; i < got.n; i++) {
            /* In each run of 0, 1, 2 ... pairs form from its end, so that an odd one is first. */
            size_t run_at = at % 256, run_n = MIN(n - (at - run_at), (size_t)256);
            bool single = run_at == 0 && run_n % 2 == 1;
            assert_int_equal(got.v[i], single ? 0 : 256 + run_at);
            at += single ? 1 : 2;
        }
        assert_int_equal(at, n);
        tok_ids_fini(&got);
    }
    bpe_fini(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_tables),
        cmocka_unit_test(test_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
