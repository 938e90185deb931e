#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/detok.h"
#include "tests/support/tok_golden.h"

#define FFFD "\xEF\xBF\xBD"

/* byte_token: the token that stands for one byte. */
static uint32_t byte_token(const struct tok *t, uint8_t byte) {
    for (uint32_t id = 0; id < tok_vocab_size(t); id++) {
        struct str b = tok_bytes(t, id);
        if (b.n == 1 && (uint8_t)*b.p == byte)
            return id;
    }
    fail_msg("no token for byte %u", byte);
    return 0;
}

/* pieces: feeds bytes one token each; the pieces, "|" after each push, then the finish. */
static void expect_bytes(const struct tok *t, const char *bytes, const char *want) {
    struct detok d;
    struct buf out = {0};
    detok_init(&d, t, NULL, 0, true, false);
    for (; *bytes; bytes++) {
        detok_push(&d, byte_token(t, (uint8_t)*bytes), &out);
        buf_addc(&out, '|');
    }
    detok_finish(&d, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
}

/* As Python's bytes.decode("utf-8", "replace"). */
static void test_characters(void **state UNUSED) {
    struct tok *t = tok_golden("gpt2");
    expect_bytes(t, "ab", "a|b|");
    expect_bytes(t, "\xC3\xA9", "|\xC3\xA9|");
    expect_bytes(t, "\xF0\x9F\x98\x80!", "|||\xF0\x9F\x98\x80|!|");
    expect_bytes(t, "\xF0\x9F\x98", "|||" FFFD);
    expect_bytes(t, "\xF0\x9F\x98z", "|||" FFFD "z|");
    expect_bytes(t, "\xF0\x9F\xC3\xA9", "||" FFFD "|\xC3\xA9|");
    expect_bytes(t, "\xF0\x9F\xF0\x9F", "||" FFFD "||" FFFD);
    expect_bytes(t, "\x80\x80", FFFD "|" FFFD "|");
    expect_bytes(t, "\xC0\xAF", FFFD "|" FFFD "|");
    expect_bytes(t, "\xE0\x80\x80", "|" FFFD FFFD "|" FFFD "|");
    expect_bytes(t, "\xED\xA0\x80", "|" FFFD FFFD "|" FFFD "|");
    expect_bytes(t, "\xF4\x90", "|" FFFD FFFD "|");
    expect_bytes(t, "\xFF\xE2\x82\xAC", FFFD "|||\xE2\x82\xAC|");
    tok_free(t);
}

static void expect_all(const struct tok *t, const uint32_t *ids, size_t n, bool skip, const char *want) {
    struct buf out = {0};
    detok_all(t, ids, n, skip, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
}

static void test_special(void **state UNUSED) {
    struct tok *t = tok_golden("qwen2");
    uint32_t end, think;
    assert_true(tok_find(t, STR_LIT("<|im_end|>"), &end));
    assert_true(tok_find(t, STR_LIT("<think>"), &think));
    const uint32_t ids[] = {byte_token(t, 'a'), end, think, byte_token(t, 'b')};
    expect_all(t, ids, 4, false, "a<|im_end|><think>b");
    expect_all(t, ids, 4, true, "a<think>b"); /* added, but not special */
    /* A skipped token does not part a character; a shown one does. */
    const uint32_t split[] = {byte_token(t, 0xC3), end, byte_token(t, 0xA9)};
    expect_all(t, split, 3, true, "\xC3\xA9");
    expect_all(t, split, 3, false, FFFD "<|im_end|>" FFFD);
    /* Ids outside the vocabulary stand for nothing. */
    const uint32_t outside[] = {ids[0], tok_vocab_size(t), UINT32_MAX, ids[3]};
    expect_all(t, outside, 4, false, "ab");
    /* The prompt's tail and spaces between special tokens change nothing for this kind. */
    struct detok d;
    struct buf out = {0};
    detok_init(&d, t, ids, 2, false, true);
    detok_push(&d, end, &out);
    detok_push(&d, end, &out);
    detok_finish(&d, &out);
    assert_string_equal(buf_cstr(&out), "<|im_end|><|im_end|>");
    buf_fini(&out);
    tok_free(t);
}

/* clean_up_tokenization_spaces is true in this family's file; spaces before punctuation stay all the same. */
static void test_no_clean_up(void **state UNUSED) {
    struct tok *t = tok_golden("llama3");
    struct tok_ids ids = {0};
    const char *text = "a . b , c ! d n't 's do not";
    tok_encode(t, text, strlen(text), NULL, 0, 0, &ids);
    expect_all(t, ids.v, ids.n, true, text);
    tok_ids_fini(&ids);
    tok_free(t);
}

/* Hugging Face reads an added token's letters in the byte-level alphabet, too: "<|é|>" has bytes 3C 7C E9 ...
 */
static void test_added_alphabet(void **state UNUSED) {
    struct tok *t = tok_golden("qwen2");
    uint32_t id;
    assert_true(tok_find(t, STR_LIT("<|\xC3\xA9|>"), &id));
    expect_all(t, &id, 1, false, "<|" FFFD "|>");
    tok_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_no_clean_up),
        cmocka_unit_test(test_added_alphabet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
