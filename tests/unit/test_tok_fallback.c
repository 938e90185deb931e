/* Folders without tokenizer.json: added_tokens.json beside vocab.json and merges.txt. Ids as GPT2Tokenizer of
 * transformers gives them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/tok.h"

static struct tok_files files_with(const char *config, const char *added) {
    return (struct tok_files){
        .tokenizer_config_json = str_of(config),
        .vocab_json = STR_LIT("{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}"),
        .merges_txt = STR_LIT("#version: 0.2\na b\n"),
        .added_tokens_json = str_of(added),
    };
}

static void encodes(const char *config, const char *added, const char *text, size_t n, const uint32_t *want) {
    struct tok *t;
    struct err e = {0};
    struct tok_ids ids = {0};
    struct tok_files files = files_with(config, added);
    if (tok_load(&t, &files, &e))
        fail_msg("%s", e.msg);
    tok_encode(t, text, strlen(text), NULL, 0, 0, &ids);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.v, want, n * sizeof *want);
    tok_ids_fini(&ids);
    tok_free(t);
}
#define IDS(...) sizeof((const uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__}

#define SPECIALS "{\"tokenizer_class\":\"GPT2Tokenizer\",\"additional_special_tokens\":[\"<x>\"]}"
#define ADDED "{\"<think>\":5,\"<x>\":4}"

/* Tokens of the file are read whole, in whichever order it lists them, as are those that the configuration names. */
static void test_added(void **state UNUSED) {
    encodes(SPECIALS, ADDED, "ab<x>ab<think>b<|endoftext|>", IDS(2, 4, 2, 5, 1, 3));
    encodes("{}", ADDED, "<x><think>", IDS(4, 5));
    encodes("{}", "{}", "ab<|endoftext|>", IDS(2, 3));
}

/* Which of them are special comes from the configuration. */
static void test_special(void **state UNUSED) {
    struct tok *t;
    struct err e = {0};
    struct tok_files files = files_with(SPECIALS, ADDED);
    assert_int_equal(tok_load(&t, &files, &e), RC_OK);
    assert_true(tok_is_special(t, 4));
    assert_false(tok_is_special(t, 5));
    assert_true(tok_is_special(t, 3));
    tok_free(t);
}

/* added_tokens_decoder of the configuration is newer and stands alone; what an entry leaves out has a default. */
static void test_decoder_stands_alone(void **state UNUSED) {
    encodes("{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":"
            "{\"4\":{\"content\":\"<y>\",\"special\":true}}}",
            "{\"<z>\":5}", "<y>ab", IDS(4, 2));
}

static void test_refused(void **state UNUSED) {
    static const char *const bad[] = {"[",          "[]",           "{\"<x>\":-1}", "{\"<x>\":\"4\"}", "{\"<x>\":4.0}",
                                      "{\"\":4}",   "{\"<x>\":16777216}", "{\"<x>\":null}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct tok *t = NULL;
        struct err e = {0};
        struct tok_files files = files_with("{}", bad[i]);
        if (tok_load(&t, &files, &e) != RC_INVALID || !strstr(e.msg, "added_tokens.json"))
            fail_msg("%s: %s", bad[i], e.msg);
        assert_null(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_decoder_stands_alone),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
