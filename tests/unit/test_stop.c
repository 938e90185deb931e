#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/stop.h"

#include <stdlib.h>

/* run: feeds pieces (NULL ends); the first n_early of them do not count. Returns the match; *out is the text
 * released at the end, with what was held if there was none. */
static int run(const char *const *strings, bool include, const char *const *pieces, size_t n_early,
               char out[256]) {
    struct str v[8];
    size_t n = 0;
    for (; strings[n]; n++)
        v[n] = str_of(strings[n]);
    struct stop_set *set = stop_set_new(v, n);
    struct stop s;
    struct buf b = {0};
    int hit = -1;
    stop_init(&s, set, include);
    for (size_t i = 0; pieces[i] && hit < 0; i++)
        hit = stop_push(&s, pieces[i], strlen(pieces[i]), i >= n_early, &b);
    if (hit < 0)
        stop_flush(&s, &b);
    assert_true(b.len < 256);
    strcpy(out, buf_cstr(&b));
    stop_fini(&s);
    stop_set_free(set);
    buf_fini(&b);
    return hit;
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect(const char *const *strings, bool include, const char *const *pieces, size_t n_early,
                   int want, const char *text) {
    char out[256];
    assert_int_equal(run(strings, include, pieces, n_early, out), want);
    assert_string_equal(out, text);
}

static void test_cut(void **state UNUSED) {
    expect(LIST("END"), false, LIST("one ", "E", "N", "D two"), 0, 0, "one ");
    expect(LIST("END"), true, LIST("one ", "E", "N", "D two"), 0, 0, "one END");
    expect(LIST("END"), false, LIST("one EN", "E", "NDED"), 0, 0, "one EN");
    expect(LIST("END"), false, LIST("one EN"), 0, -1, "one EN");
    expect(LIST("aab"), false, LIST("aaa", "ab", "x"), 0, 0, "aa");
    expect(LIST("\n\n"), false, LIST("a\n", "b\n", "\nc"), 0, 0, "a\nb");
    expect(LIST("\xC3\xA9t\xC3\xA9"), false, LIST("l'", "\xC3\xA9", "t", "\xC3\xA9", "!"), 0, 0, "l'");
    expect(LIST("x"), false, LIST("x"), 0, 0, "");
}

/* Within one step the first string in request order wins, even if another one ends or starts earlier. */
static void test_order(void **state UNUSED) {
    expect(LIST("later", "soon"), false, LIST("a soon or later b"), 0, 0, "a soon or ");
    expect(LIST("later", "soon"), false, LIST("a soon ", "or later b"), 0, 1, "a ");
    expect(LIST("bc", "abcd"), false, LIST("xabcdy"), 0, 0, "xa");
    expect(LIST("abcd", "bc"), false, LIST("xabcdy"), 0, 0, "x");
    expect(LIST("abcd", "bc"), false, LIST("xab", "c", "dy"), 0, 1, "xa");
}

/* min_tokens: a match that ends too early does not count; one that ends later does, wherever it began. */
static void test_early(void **state UNUSED) {
    expect(LIST("ab"), false, LIST("ab", "xab", "y"), 1, 0, "abx");
    expect(LIST("ab"), false, LIST("xa", "by"), 1, 0, "x");
    expect(LIST("aa"), false, LIST("aa", "a", "b"), 1, 0, "a");
    expect(LIST("aa"), true, LIST("aa", "a", "b"), 1, 0, "aaa");
    expect(LIST("ab"), false, LIST("ab", "ab"), 2, -1, "abab");
}

/* What is held is the longest tail that begins some stop string, and no more. */
static void test_held(void **state UNUSED) {
    struct str v[] = {STR_LIT("</end>"), STR_LIT("dog")};
    struct stop_set *set = stop_set_new(v, 2);
    struct stop s;
    struct buf b = {0};
    static const struct {
        const char *piece, *out;
    } steps[] = {{"a <", "a "}, {"/e", ""},   {"nd<", "</end"}, {"d", "<"},
                 {"o", ""},     {"do", "do"}, {"t", "dot"}};
    stop_init(&s, set, false);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        b.len = 0;
        assert_int_equal(stop_push(&s, steps[i].piece, strlen(steps[i].piece), true, &b), -1);
        assert_string_equal(buf_cstr(&b), steps[i].out);
    }
    stop_fini(&s);
    /* With the match kept nothing can be taken back, so nothing is held. */
    stop_init(&s, set, true);
    b.len = 0;
    assert_int_equal(stop_push(&s, "a </e", 5, true, &b), -1);
    assert_string_equal(buf_cstr(&b), "a </e");
    assert_int_equal(stop_push(&s, "nd> b", 5, true, &b), 0);
    assert_string_equal(buf_cstr(&b), "a </end>");
    stop_fini(&s);
    stop_set_free(set);
    buf_fini(&b);
}

static void test_none(void **state UNUSED) {
    struct stop s;
    struct buf b = {0};
    assert_null(stop_set_new(NULL, 0));
    stop_init(&s, NULL, false);
    assert_int_equal(stop_push(&s, "text", 4, true, &b), -1);
    assert_string_equal(buf_cstr(&b), "text");
    assert_int_equal(stop_push(&s, NULL, 0, true, &b), -1);
    stop_flush(&s, &b);
    assert_int_equal(b.len, 4);
    stop_fini(&s);
    stop_set_free(NULL);
    buf_fini(&b);
}

/* Against the definition: at each step look for every string, in order, in the new characters and the
 * length - 1 before them; hold the longest tail that is a proper prefix. */
static void test_random(void **state UNUSED) {
    uint64_t seed = 5;
    for (int round = 0; round < 3000; round++) {
        char strings[3][6], text[64], out[256], want[64];
        const char *list[4] = {strings[0], strings[1], strings[2], NULL}, *pieces[65];
        char piece[64][8];
        size_t n = 0, n_pieces = 0, n_early;
        bool include;
#define RND(k) ((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33) % (k)
        for (int i = 0; i < 3; i++) {
            size_t k = 1 + RND(5);
            for (size_t j = 0; j < k; j++)
                strings[i][j] = (char)('a' + RND(2));
            strings[i][k] = 0;
        }
        while (n < 40) {
            size_t k = RND(5);
            for (size_t j = 0; j < k; j++)
                piece[n_pieces][j] = text[n++] = (char)('a' + RND(2 + round % 2));
            piece[n_pieces][k] = 0;
            pieces[n_pieces] = piece[n_pieces];
            n_pieces++;
        }
        pieces[n_pieces] = NULL;
        text[n] = 0;
        n_early = RND(8);
        include = RND(2);
        int hit = -1;
        size_t begin = n, end = 0;
        for (size_t i = 0; i < n_pieces && hit < 0; i++) {
            size_t from = end;
            end += strlen(piece[i]);
            for (int k = 0; k < 3 && hit < 0 && i >= n_early; k++) {
                size_t len = strlen(strings[k]), at = from >= len - 1 ? from - (len - 1) : 0;
                for (; at + len <= end && hit < 0; at++)
                    if (memcmp(text + at, strings[k], len) == 0) {
                        hit = k;
                        begin = include ? at + len : at;
                    }
            }
        }
        memcpy(want, text, begin);
        want[begin] = 0;
        assert_int_equal(run(list, include, pieces, n_early, out), hit);
        assert_string_equal(out, want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),  cmocka_unit_test(test_order), cmocka_unit_test(test_early),
        cmocka_unit_test(test_held), cmocka_unit_test(test_none),  cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
