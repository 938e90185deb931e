#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "common/hash.h"

static const char *hex(const void *p, size_t n) {
    static char out[65];
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", ((const uint8_t *)p)[i]);
    return out;
}

static void test_sha256(void **state) {
    (void)state;
    uint8_t d[32]; /* FIPS 180-4's examples */
    hash_sha256("abc", 3, d);
    assert_string_equal(hex(d, 32), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash_sha256(NULL, 0, d);
    assert_string_equal(hex(d, 32), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* The names of blocks are shared between processes of different versions, so they are pinned here; the bytes
 * that go in are those of the comments in hash.c, and the digests were made from them with Python's hashlib.
 */
static void test_pinned(void **state) {
    (void)state;
    uint32_t tokens[HASH_BLOCK_TOKENS];
    for (uint32_t i = 0; i < HASH_BLOCK_TOKENS; i++)
        tokens[i] = i * 100003;
    struct hash_field f[] = {
        {HASH_MODEL, STR_LIT("rev")}, {HASH_SALT, STR_LIT("")}, {HASH_ADAPTER, {NULL, 0}}};
    struct id128 domain = hash_domain(f, 3), none = {{0}}, media = {{9}};
    assert_string_equal(hex(&domain, 16), "6cecadd772d5b9c6d6a09888d5fb8048");
    struct id128 first = hash_block(none, domain, tokens, NULL);
    assert_string_equal(hex(&first, 16), "bcaab14484753ed00a9a514e14027630");
    struct id128 second = hash_block(first, domain, tokens, &media);
    assert_string_equal(hex(&second, 16), "eef52a718274669ffbe6a4c5f618260f");
}

/* What differs must not collide: kind, presence, order, borders between fields; parent, domain, tokens,
 * media. */
static void test_distinct(void **state) {
    (void)state;
    struct hash_field a[] = {{HASH_SALT, STR_LIT("x")}, {HASH_ADAPTER, STR_LIT("y")}};
    struct hash_field b[] = {{HASH_ADAPTER, STR_LIT("x")}, {HASH_SALT, STR_LIT("y")}};
    struct hash_field c[] = {{HASH_SALT, STR_LIT("xy")}, {HASH_ADAPTER, STR_LIT("")}};
    struct hash_field d[] = {{HASH_SALT, STR_LIT("xy")}, {HASH_ADAPTER, {NULL, 0}}};
    struct id128 all[12] = {hash_domain(a, 2), hash_domain(b, 2), hash_domain(c, 2),
                            hash_domain(d, 2), hash_domain(a, 1), hash_domain(NULL, 0)};
    uint32_t tokens[HASH_BLOCK_TOKENS] = {0}, other[HASH_BLOCK_TOKENS] = {[15] = 1};
    struct id128 none = {{0}}, media = {{0}};
    all[6] = hash_block(none, all[0], tokens, NULL);
    all[7] = hash_block(none, all[1], tokens, NULL);
    all[8] = hash_block(all[6], all[0], tokens, NULL);
    all[9] = hash_block(none, all[0], other, NULL);
    all[10] = hash_block(none, all[0], tokens, &media);
    all[11] = hash_block(all[0], none, tokens, NULL);
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t k = 0; k < i; k++)
            assert_false(id128_eq(all[i], all[k]));
}

static void test_fast(void **state) {
    (void)state;
    /* Keys that differ in one bit, or in length alone, spread over 1024 buckets about as chance would. */
    unsigned counts[1024] = {0}, most = 0;
    uint8_t key[40] = {0};
    for (size_t n = 0; n < sizeof key; n++)
        for (size_t bit = 0; bit < 8 * n + 1; bit++) {
            if (bit < 8 * n)
                key[bit / 8] ^= (uint8_t)(1 << bit % 8);
            unsigned at = hash_fast(key, n, 1) & 1023;
            if (bit < 8 * n)
                key[bit / 8] ^= (uint8_t)(1 << bit % 8);
            counts[at]++;
            most = MAX(most, counts[at]);
        }
    assert_true(most < 25); /* 6,280 keys: 6 a bucket on average */
    assert_true(hash_fast("a", 1, 1) != hash_fast("a", 1, 2));
    assert_true(hash_fast("a", 1, 1) == hash_fast("a", 1, 1));
    assert_true(hash_u64(0) == 0 && hash_u64(1) != hash_u64(2));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sha256), cmocka_unit_test(test_pinned),
                                       cmocka_unit_test(test_distinct), cmocka_unit_test(test_fast)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
