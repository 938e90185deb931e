/* Names of prefix blocks: pairs of requests built to be taken for each other share the blocks up to which all
 * that counts is equal, and no other. 100,000 pairs, times TEST_SCALE. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"

enum { N_PAIRS = 100000, N_BLOCKS = 3, N_TOKENS = N_BLOCKS * HASH_BLOCK_TOKENS, FIELD_MAX = 4 };

/* field: n < 0: absent. */
struct field {
    int n;
    char bytes[2 * FIELD_MAX];
};
/* media: an item that starts in a block; size: what it is scaled to. */
struct media {
    bool there;
    struct field bytes;
    uint32_t size[2];
};
struct request {
    struct field revision, adapter, salt;
    uint32_t tokens[N_TOKENS];
    struct media media[N_BLOCKS];
};

static uint32_t rnd(uint64_t *s, uint32_t n) {
    *s += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash_u64(*s) % n);
}

/* Few values, so that chance makes more of the same. */
static struct field some_field(uint64_t *s, bool may_lack) {
    static const char bytes[] = {0, 1, 'a'};
    struct field f = {.n = (int)rnd(s, FIELD_MAX + 1 + may_lack) - may_lack};
    for (int i = 0; i < f.n; i++)
        f.bytes[i] = bytes[rnd(s, sizeof bytes)];
    return f;
}

static struct request some_request(uint64_t *s) {
    static const uint32_t ids[] = {0, 1, 256, 65536, 1u << 24, 257, 0xffffffff};
    struct request r = {
        .revision = some_field(s, false), .adapter = some_field(s, true), .salt = some_field(s, true)};
    for (uint32_t i = 0; i < N_TOKENS; i++)
        r.tokens[i] = ids[rnd(s, ARRAY_LEN(ids))];
    for (uint32_t b = 0; b < N_BLOCKS; b++)
        if (rnd(s, 3) == 0)
            r.media[b] = (struct media){true, some_field(s, false), {1 + rnd(s, 2), 1 + rnd(s, 2)}};
    return r;
}

/* ---- twisting ---------------------------------------------------------------------------------------- */

/* move_bytes: some from the end of one field to the beginning of the other. */
static void move_bytes(struct field *from, struct field *to, int n) {
    if (from->n < n || to->n < 0 || to->n + n > (int)sizeof to->bytes)
        return;
    memmove(to->bytes + n, to->bytes, (size_t)to->n);
    memcpy(to->bytes, from->bytes + from->n - n, (size_t)n);
    from->n -= n;
    to->n += n;
}

static void swap_fields(struct field *a, struct field *b) {
    struct field x = *a;
    *a = *b;
    *b = x;
}

static void swap_ids(uint32_t *a, uint32_t *b) {
    uint32_t x = *a;
    *a = *b;
    *b = x;
}

/* twist: *b is a already. */
static void twist(uint64_t *s, struct request *a, struct request *b) {
    uint32_t i = rnd(s, N_BLOCKS), k = rnd(s, N_TOKENS);
    switch (rnd(s, 16)) {
    case 0: /* a field becomes one of another kind */
        swap_fields(&b->adapter, &b->salt);
        break;
    case 1:
        swap_fields(&b->revision, &b->adapter);
        break;
    case 2: /* bytes over a boundary */
        move_bytes(&b->adapter, &b->salt, 1 + (int)rnd(s, 2));
        break;
    case 3:
        move_bytes(&b->revision, &b->adapter, 1);
        break;
    case 4: /* empty against absent */
        a->adapter.n = 0;
        b->adapter.n = -1;
        break;
    case 5:
        a->salt.n = 0;
        b->salt.n = -1;
        break;
    case 6: /* an adapter of the salt's name, with it or without it */
        a->adapter = b->adapter = a->salt;
        b->salt.n = -1;
        break;
    case 7:
        b->adapter = a->salt;
        b->salt = a->adapter;
        b->salt.n = -1;
        break;
    case 8: /* the same picture at another size */
        a->media[i].there = b->media[i].there = true;
        b->media[i].size[rnd(s, 2)]++;
        break;
    case 9:
        a->media[i].there = b->media[i].there = true;
        swap_ids(&b->media[i].size[0], &b->media[i].size[1]);
        break;
    case 10: /* in another block, or none */
        b->media[i] = b->media[(i + 1) % N_BLOCKS];
        break;
    case 11:
        b->media[i].there = !b->media[i].there;
        break;
    case 12: /* a token, or its bytes, somewhere else */
        swap_ids(&b->tokens[k], &b->tokens[(k + 1) % N_TOKENS]);
        break;
    case 13:
        b->tokens[k] = b->tokens[k] << 8 | b->tokens[k] >> 24;
        break;
    case 14: /* all tokens one further */
        memmove(b->tokens + 1, a->tokens, (N_TOKENS - 1) * sizeof *b->tokens);
        break;
    default: /* none: they are equal */
        break;
    }
}

/* ---- what is equal, and what is named alike ----------------------------------------------------------- */

static bool same_field(const struct field *a, const struct field *b) {
    return a->n == b->n && (a->n <= 0 || memcmp(a->bytes, b->bytes, (size_t)a->n) == 0);
}

static bool same_media(const struct media *a, const struct media *b) {
    return a->there == b->there && (!a->there || (same_field(&a->bytes, &b->bytes) &&
                                                  a->size[0] == b->size[0] && a->size[1] == b->size[1]));
}

/* same: how many leading blocks have all in common. */
static uint32_t same(const struct request *a, const struct request *b) {
    uint32_t i = 0;
    if (!same_field(&a->revision, &b->revision) || !same_field(&a->adapter, &b->adapter) ||
        !same_field(&a->salt, &b->salt))
        return 0;
    while (
        i < N_BLOCKS && same_media(&a->media[i], &b->media[i]) &&
        !memcmp(a->tokens + i * HASH_BLOCK_TOKENS, b->tokens + i * HASH_BLOCK_TOKENS, 4 * HASH_BLOCK_TOKENS))
        i++;
    return i;
}

static struct str str_of_field(const struct field *f) {
    return f->n < 0 ? (struct str){0} : (struct str){f->bytes, (size_t)f->n};
}

/* name: as routers and workers do it. A media item's digest is of its bytes and of the size it is scaled to.
 */
static void name(const struct request *r, struct id128 out[N_BLOCKS]) {
    const struct hash_field fields[] = {{HASH_MODEL, str_of_field(&r->revision)},
                                        {HASH_ADAPTER, str_of_field(&r->adapter)},
                                        {HASH_SALT, str_of_field(&r->salt)}};
    struct id128 domain = hash_domain(fields, ARRAY_LEN(fields)), parent = {{0}};
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        const struct media *m = &r->media[i];
        const struct hash_field item[] = {{HASH_MEDIA, str_of_field(&m->bytes)},
                                          {HASH_MEDIA, {(const char *)m->size, sizeof m->size}}};
        struct id128 digest = hash_domain(item, ARRAY_LEN(item));
        out[i] = parent =
            hash_block(parent, domain, r->tokens + i * HASH_BLOCK_TOKENS, m->there ? &digest : NULL);
    }
}

static void test_pairs(void **state) {
    (void)state;
    const char *scale = getenv("TEST_SCALE");
    double n_pairs = N_PAIRS * (scale ? strtod(scale, NULL) : 1);
    uint64_t s = 1, n_equal = 0, n_apart = 0, n_part = 0;
    for (uint64_t i = 0; (double)i < n_pairs; i++) {
        struct request a = some_request(&s), b = a;
        struct id128 x[N_BLOCKS], y[N_BLOCKS];
        twist(&s, &a, &b);
        name(&a, x);
        name(&b, y);
        uint32_t n = same(&a, &b);
        for (uint32_t k = 0; k < N_BLOCKS; k++) {
            for (uint32_t j = 0; j < N_BLOCKS; j++) {
                bool alike = id128_eq(x[k], y[j]);
                if (alike != (k == j && k < n))
                    fail_msg("pair %llu: block %u of one, %u of the other: %s, %u are equal",
                             (unsigned long long)i, k, j, alike ? "one name" : "two names", n);
            }
        }
        n_equal += n == N_BLOCKS;
        n_apart += n == 0;
        n_part += n > 0 && n < N_BLOCKS;
    }
    /* Pairs of every sort were there. */
    assert_true(n_equal > n_pairs / 40 && n_apart > n_pairs / 10 && n_part > n_pairs / 10);
    print_message("%.0f pairs: %llu equal, %llu with a common beginning, %llu with none\n", n_pairs,
                  (unsigned long long)n_equal, (unsigned long long)n_part, (unsigned long long)n_apart);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pairs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
