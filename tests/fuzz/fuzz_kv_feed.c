/* fuzz_kv_feed: KvEvents of four workers, hostile ones too, into a small index. The first byte of each
 * message chooses: bits 0 and 1 the worker, bit 2 snapshot, bit 3 part, bit 4 its own number (a byte follows)
 * instead of the next, bit 5 a removed name before the stored ones, bit 6 lengths that are no names, bit 7:
 * no message but a question, a departure or some sweeping. A byte tells how many names follow, each a byte.
 * Invariants: those of index_check, and a worker never has more blocks than were asked for. */
#include <stdlib.h>

#include "router/fleet/kvfeed.h"

enum { N_WORKERS = 4, N_NAMES_MAX = 16 };
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static size_t take_names(const uint8_t **p, const uint8_t *end, struct id128 *out) {
    size_t n = *p < end ? *(*p)++ % (N_NAMES_MAX + 1) : 0;
    n = MIN(n, (size_t)(end - *p));
    for (size_t i = 0; i < n; i++)
        out[i] = (struct id128){{1, *(*p)++}};
    return n;
}

static void message(struct kv_feed *f, struct prefix_index *x, uint8_t how, const uint8_t **p,
                    const uint8_t *end) {
    struct id128 names[N_NAMES_MAX];
    Weir__KvEvents m = WEIR__KV_EVENTS__INIT;
    m.has_first_seq = true;
    m.first_seq = f->next_seq;
    if (how & 16 && *p < end) {
        m.first_seq = *(*p)++;
        m.first_seq = m.first_seq == 255 ? UINT64_MAX - 3 : m.first_seq;
    }
    m.snapshot = how >> 2 & 1;
    m.part = how >> 3 & 1;
    size_t n = take_names(p, end, names), n_removed = how & 32 && n;
    m.removed = (ProtobufCBinaryData){n_removed * sizeof *names, names[0].b};
    m.stored = (ProtobufCBinaryData){(n - n_removed) * sizeof *names + (how >> 6 & 1), names[n_removed].b};
    (void)!kv_feed_take(f, x, &m);
}

static void other(struct kv_feed *f, struct prefix_index *x, uint8_t how, const uint8_t **p,
                  const uint8_t *end) {
    struct id128 names[N_NAMES_MAX];
    uint32_t out[INDEX_SLOTS];
    if (how & 4) {
        kv_feed_gone(f, x);
    } else if (how & 8) {
        index_sweep(x, how >> 4 & 7);
    } else {
        uint32_t n = (uint32_t)take_names(p, end, names);
        index_match(x, names, n, out);
        for (uint32_t i = 0; i < INDEX_SLOTS; i++)
            CHECK(out[i] <= n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    const uint8_t *end = p + MIN(n, 4096);
    struct prefix_index *x = index_new(INDEX_BYTES_MIN, 1);
    struct kv_feed feeds[N_WORKERS];
    for (int i = 0; i < N_WORKERS; i++)
        kv_feed_init(&feeds[i]);
    while (p < end) {
        uint8_t how = *p++;
        (how & 128 ? other : message)(&feeds[how & 3], x, how, &p, end);
    }
    index_check(x);
    for (int i = 0; i < N_WORKERS; i++)
        kv_feed_gone(&feeds[i], x);
    while (index_sweep(x, 100))
        ;
    CHECK(index_stats(x).n_entries == 0);
    index_check(x);
    index_free(x);
    return 0;
}
