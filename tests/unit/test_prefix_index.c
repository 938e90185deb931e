/* The router's index of blocks: against a plain list, at its limits, and as a worker's messages fill it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/hash.h"
#include "router/fleet/kvfeed.h"

static struct id128 name_of(uint32_t i) {
    struct id128 n = {{0}};
    memcpy(n.b, &i, sizeof i);
    return n;
}

static uint32_t rnd(uint64_t *s, uint32_t n) {
    *s += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash_u64(*s) % n);
}

/* ---- a plain list ------------------------------------------------------------------------------------ */

enum { N_NAMES = 200, N_WORKERS = 6 };
struct model {
    struct row {
        uint32_t name;
        bool has[N_WORKERS];
    } rows[N_NAMES]; /* the newest first */
    uint32_t n, n_max;
    uint64_t n_evicted;
};

static uint32_t model_find(const struct model *m, uint32_t name) {
    uint32_t i = 0;
    while (i < m->n && m->rows[i].name != name)
        i++;
    return i;
}

static void model_cut(struct model *m, uint32_t i) {
    memmove(m->rows + i, m->rows + i + 1, (--m->n - i) * sizeof *m->rows);
}

/* model_put: row to behind the name `after` (UINT32_MAX: to the front). */
static void model_put(struct model *m, struct row row, uint32_t after) {
    uint32_t at = after == UINT32_MAX ? 0 : model_find(m, after) + 1;
    memmove(m->rows + at + 1, m->rows + at, (m->n++ - at) * sizeof *m->rows);
    m->rows[at] = row;
}

static void model_stored(struct model *m, uint32_t w, const uint32_t *v, uint32_t n) {
    uint32_t after = UINT32_MAX;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = model_find(m, v[k]);
        struct row row = {.name = v[k]};
        if (i < m->n) {
            row = m->rows[i];
            if (row.name != after) {
                model_cut(m, i);
                model_put(m, row, after);
            }
        } else {
            if (m->n == m->n_max) {
                if (m->rows[m->n - 1].name == after)
                    after = m->n > 1 ? m->rows[m->n - 2].name : UINT32_MAX;
                m->n--;
                m->n_evicted++;
            }
            model_put(m, row, after);
        }
        m->rows[model_find(m, v[k])].has[w] = true;
        after = v[k];
    }
}

static void model_clear(struct model *m, uint32_t w, uint32_t i) {
    bool any = false;
    m->rows[i].has[w] = false;
    for (uint32_t k = 0; k < N_WORKERS; k++)
        any |= m->rows[i].has[k];
    if (!any)
        model_cut(m, i);
}

static uint32_t model_leading(const struct model *m, uint32_t w, const uint32_t *v, uint32_t n) {
    uint32_t k = 0;
    for (; k < n; k++) {
        uint32_t i = model_find(m, v[k]);
        if (i == m->n || !m->rows[i].has[w])
            break;
    }
    return k;
}

static void model_touch(struct model *m, const uint32_t *v, uint32_t n) {
    uint32_t after = UINT32_MAX;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = model_find(m, v[k]);
        struct row row = m->rows[i];
        if (row.name == after)
            continue;
        model_cut(m, i);
        model_put(m, row, after);
        after = v[k];
    }
}

/* test_model: any order of operations gives what the list gives: the same blocks, the same evictions. */
static void test_model(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t s = seed;
        struct prefix_index *x = index_new(INDEX_BYTES_MIN, seed);
        struct model m = {.n_max = index_stats(x).n_entries_max};
        uint32_t slot[N_WORKERS], out[INDEX_SLOTS];
        assert_in_range(m.n_max, 32, N_NAMES / 2);
        for (uint32_t w = 0; w < N_WORKERS; w++)
            slot[w] = index_join(x);
        for (int step = 0; step < 600; step++) {
            uint32_t w = rnd(&s, N_WORKERS), n = 1 + rnd(&s, step % 50 ? 12 : 100), from = rnd(&s, N_NAMES),
                     v[100];
            struct id128 names[100];
            for (uint32_t k = 0; k < n; k++)
                names[k] = name_of(v[k] = rnd(&s, 8) ? (from + k) % N_NAMES : rnd(&s, N_NAMES));
            switch (rnd(&s, 20)) {
            case 0:
                index_leave(x, slot[w]);
                while (index_sweep(x, 7))
                    ;
                for (uint32_t i = m.n; i-- > 0;)
                    model_clear(&m, w, i);
                slot[w] = index_join(x);
                break;
            case 1:
            case 2:
            case 3:
            case 4:
            case 5:
                index_removed(x, slot[w], names, n);
                for (uint32_t k = 0; k < n; k++)
                    if (model_find(&m, v[k]) < m.n)
                        model_clear(&m, w, model_find(&m, v[k]));
                break;
            case 6:
            case 7:
            case 8:
            case 9:
            case 10:
            case 11:
            case 12: {
                uint32_t longest = 0;
                index_match(x, names, n, out);
                for (uint32_t k = 0; k < N_WORKERS; k++) {
                    uint32_t want = model_leading(&m, k, v, n);
                    assert_int_equal(out[slot[k]], want);
                    longest = MAX(longest, want);
                }
                model_touch(&m, v, longest);
                break;
            }
            default:
                index_stored(x, slot[w], names, n);
                model_stored(&m, w, v, n);
            }
            index_check(x);
            assert_int_equal(index_stats(x).n_entries, m.n);
            assert_true(index_stats(x).n_evicted == m.n_evicted);
        }
        index_free(x);
    }
}

/* test_slots: 256 workers at once, and a slot's next owner inherits nothing, swept or not. */
static void test_slots(void **state) {
    (void)state;
    struct prefix_index *x = index_new(64 * 1024, 1);
    uint32_t slot[INDEX_SLOTS], out[INDEX_SLOTS];
    struct id128 names[300];
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++)
        names[i] = name_of(i);
    for (uint32_t i = 0; i < INDEX_SLOTS; i++) {
        slot[i] = index_join(x);
        index_stored(x, slot[i], names, i + 1);
    }
    assert_int_equal(index_join(x), INDEX_NO_SLOT);
    index_match(x, names, 300, out);
    for (uint32_t i = 0; i < INDEX_SLOTS; i++)
        assert_int_equal(out[slot[i]], i + 1);
    index_leave(x, slot[7]);
    index_match(x, names, 300, out);
    assert_int_equal(out[slot[7]], 0);
    assert_int_equal(out[slot[8]], 9);
    assert_int_equal(index_join(x), INDEX_NO_SLOT); /* not swept yet */
    uint32_t n_steps = 0, again = INDEX_NO_SLOT;
    while ((again = index_join(x)) == INDEX_NO_SLOT && n_steps++ < 2 * 300)
        index_sweep(x, 1);
    assert_int_equal(again, slot[7]);
    index_match(x, names, 300, out);
    assert_int_equal(out[again], 0);
    assert_int_equal(index_stats(x).n_entries, INDEX_SLOTS);
    for (uint32_t i = 0; i < INDEX_SLOTS; i++)
        index_leave(x, slot[i]);
    while (index_sweep(x, 1000))
        ;
    assert_int_equal(index_stats(x).n_entries, 0);
    index_check(x);
    index_free(x);
}

/* test_full: memory is bounded, and the head of a prefix outlives its tail. */
static void test_full(void **state) {
    (void)state;
    struct prefix_index *x = index_new(64 * 1024, 1);
    uint32_t n_max = index_stats(x).n_entries_max, slot = index_join(x), out[INDEX_SLOTS];
    assert_in_range(n_max, 64 * 1024 / 72, 64 * 1024 / 64);
    struct id128 *names = xcalloc(n_max + 100, sizeof *names);
    for (uint32_t i = 0; i < n_max + 100; i++)
        names[i] = name_of(i);
    index_stored(x, slot, names, n_max);
    assert_int_equal(index_stats(x).n_evicted, 0);
    index_stored(x, slot, names + n_max, 100);
    assert_int_equal(index_stats(x).n_entries, n_max);
    assert_int_equal(index_stats(x).n_evicted, 100);
    index_match(x, names, n_max, out);
    assert_int_equal(out[slot], n_max - 100);
    index_check(x);
    index_stored(x, slot, names, n_max + 100); /* more in one go than there is room for */
    index_check(x);
    free(names);
    index_free(x);
}

/* ---- a worker's messages ----------------------------------------------------------------------------- */

static Weir__KvEvents message(uint64_t seq, struct id128 *stored, size_t n_stored, struct id128 *removed,
                              size_t n_removed) {
    Weir__KvEvents m = WEIR__KV_EVENTS__INIT;
    m.has_first_seq = true;
    m.first_seq = seq;
    m.stored = (ProtobufCBinaryData){n_stored * 16, n_stored ? stored->b : NULL};
    m.removed = (ProtobufCBinaryData){n_removed * 16, n_removed ? removed->b : NULL};
    return m;
}

static uint32_t leading(struct prefix_index *x, const struct kv_feed *f, const struct id128 *names,
                        uint32_t n) {
    uint32_t out[INDEX_SLOTS];
    index_match(x, names, n, out);
    return f->slot == INDEX_NO_SLOT ? 0 : out[f->slot];
}

static void test_feed(void **state) {
    (void)state;
    struct prefix_index *x = index_new(64 * 1024, 1);
    struct kv_feed f;
    struct id128 names[32];
    for (uint32_t i = 0; i < 32; i++)
        names[i] = name_of(i);
    kv_feed_init(&f);
    /* Before a snapshot nothing counts. */
    Weir__KvEvents m = message(5, names, 4, NULL, 0);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    assert_int_equal(leading(x, &f, names, 32), 0);
    /* A snapshot in two parts with changes between them. */
    m = message(9, names, 8, NULL, 0);
    m.snapshot = m.part = true;
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    m = message(9, names + 16, 2, names + 7, 1);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    m = message(12, names + 7, 9, NULL, 0);
    m.part = true;
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    assert_int_equal(leading(x, &f, names, 32), 18);
    m = message(12, NULL, 0, names + 3, 1);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    assert_int_equal(leading(x, &f, names, 32), 3);
    /* Lost changes: all is void, and asked for; what comes before the answer is ignored. */
    m = message(14, names + 3, 1, NULL, 0);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_ASK);
    assert_int_equal(leading(x, &f, names, 32), 0);
    m = message(15, names, 4, NULL, 0);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    assert_int_equal(leading(x, &f, names, 32), 0);
    m = message(16, NULL, 0, NULL, 0);
    m.snapshot = true;
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    m = message(16, names, 4, NULL, 0);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_OK);
    assert_int_equal(leading(x, &f, names, 32), 4);
    /* What no worker sends. */
    m = message(20, names, 1, NULL, 0);
    m.stored.len = 15;
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_BAD);
    m = message(20, NULL, 0, names, 1);
    m.part = true;
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_BAD);
    m = message(UINT64_MAX, names, 1, NULL, 0);
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_BAD);
    m = message(20, names, 1, NULL, 0);
    m.has_first_seq = false;
    assert_int_equal(kv_feed_take(&f, x, &m), KV_FEED_BAD);
    assert_int_equal(leading(x, &f, names, 32), 4);
    kv_feed_gone(&f, x);
    kv_feed_gone(&f, x);
    assert_int_equal(leading(x, &f, names, 32), 0);
    index_check(x);
    index_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model), cmocka_unit_test(test_slots),
                                       cmocka_unit_test(test_full), cmocka_unit_test(test_feed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
