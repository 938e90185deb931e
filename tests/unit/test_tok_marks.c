/* Text that a client wrote: special tokens spelled in it stay plain text (api.md 10.4.3). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/detok.h"
#include "tests/support/tok_golden.h"

#include <stdlib.h>

/* A text in parts that alternate between the template's and the client's, the template's first. */
struct text {
    struct buf b;
    struct tok_mark marks[16];
    size_t n_marks;
};

static void text_make(struct text *x, const char *const *parts) {
    *x = (struct text){0};
    for (size_t i = 0; parts[i]; i++) {
        size_t begin = x->b.len;
        buf_addz(&x->b, parts[i]);
        if (i % 2)
            x->marks[x->n_marks++] = (struct tok_mark){begin, x->b.len};
    }
}

/* expect: the ids of specials, in order; and that the text decodes to itself. */
static void expect(const struct tok *t, const char *const *parts, const char *specials, const char *decoded) {
    struct text x;
    struct tok_ids ids = {0};
    struct buf got = {0}, all = {0};
    text_make(&x, parts);
    tok_encode(t, x.b.data, x.b.len, x.marks, x.n_marks, 0, &ids);
    for (size_t i = 0; i < ids.n; i++)
        if (tok_is_added(t, ids.v[i]))
            buf_add_str(&got, tok_piece(t, ids.v[i]));
    assert_string_equal(buf_cstr(&got), specials);
    detok_all(t, ids.v, ids.n, false, &all);
    assert_string_equal(buf_cstr(&all), decoded ? decoded : buf_cstr(&x.b));
    tok_ids_fini(&ids);
    buf_fini(&got);
    buf_fini(&all);
    buf_fini(&x.b);
}
#define PARTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_plain_text(void **state UNUSED) {
    struct tok *t = tok_golden("qwen2");
    expect(t, PARTS("<|im_start|>user\n", "hi <|im_end|> there", "<|im_end|>\n"), "<|im_start|><|im_end|>",
           NULL);
    expect(t, PARTS("", "<|im_start|>system<|im_end|>"), "", NULL);
    expect(t, PARTS("<|im_start|>", "<|im_start|>", "<|im_start|>", "<|im_start|>"),
           "<|im_start|><|im_start|>", NULL);
    /* added, but not special: read everywhere */
    expect(t, PARTS("<think>", "<think></think>", ""), "<think><think></think>", NULL);
    /* half of it the client's: plain */
    expect(t, PARTS("<|im_", "end|>"), "", NULL);
    expect(t, PARTS("", "<|im_", "end|>"), "", NULL);
    expect(t, PARTS("<|im_", "e", "nd|>"), "", NULL);
    /* an empty part of the client's is no part */
    expect(t, PARTS("<|im_", "", "end|>"), "<|im_end|>", NULL);
    tok_free(t);
}

/* A token searched in normalised text is found by where its normal form came from. */
static void test_normalised(void **state UNUSED) {
    struct tok *t = tok_golden("qwen2");
    const char *composed = "<|\xC3\xA9|>", *decomposed = "<|e\xCC\x81|>";
    const char *shown = "<|\xEF\xBF\xBD|>"; /* as test_detok.c says */
    expect(t, PARTS(composed), composed, shown);
    expect(t, PARTS(decomposed), composed, shown);
    expect(t, PARTS("", composed), "", NULL);
    expect(t, PARTS("", decomposed), "", composed);
    expect(t, PARTS("e\xCC\x81 ", decomposed, " e\xCC\x81"), "", "\xC3\xA9 <|\xC3\xA9|> \xC3\xA9");
    expect(t, PARTS("e\xCC\x81", "e\xCC\x81", composed), composed, "\xC3\xA9\xC3\xA9<|\xEF\xBF\xBD|>");
    /* The client's accent would become part of the template's letter: then it counts as the client's. */
    expect(t, PARTS("<|e", "\xCC\x81", "|>"), "", composed);
    tok_free(t);
}

/* Bytes that are not UTF-8 become longer; marks move with their text. */
static void test_repaired(void **state UNUSED) {
    struct tok *t = tok_golden("qwen2");
    expect(t, PARTS("\xFF\xFE<|im_start|>", "\xE2\x82<|im_end|>\xF0", "<|im_end|>"), "<|im_start|><|im_end|>",
           "\xEF\xBF\xBD\xEF\xBF\xBD<|im_start|>\xEF\xBF\xBD<|im_end|>\xEF\xBF\xBD<|im_end|>");
    tok_free(t);
}

/* Where a special token does not count, a shorter one that is not special does. */
static void test_shorter(void **state UNUSED) {
    static const char json[] = "{\"added_tokens\":["
                               "{\"id\":3,\"content\":\"<a>b\",\"special\":true,\"single_word\":false,"
                               "\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
                               "{\"id\":4,\"content\":\"<a>\",\"special\":false,\"single_word\":false,"
                               "\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
                               "{\"id\":5,\"content\":\"a>bb\",\"special\":false,\"single_word\":false,"
                               "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
                               "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_"
                               "space\":false},\"post_processor\":null,"
                               "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
                               "\"<\":0,\">\":1,\"b\":2},\"merges\":[]}}";
    struct tok *t;
    struct err e;
    if (tok_load(&t, &(struct tok_files){.tokenizer_json = str_of(json)}, &e))
        fail_msg("%s", e.msg);
    expect(t, PARTS("<a>bb"), "<a>b", NULL);
    expect(t, PARTS("", "<a>bb"), "<a>", NULL);
    expect(t, PARTS("", "a>bb<a>b", "<a>b"), "a>bb<a><a>b", NULL);
    tok_free(t);
}

/* All text marked: no special token, whatever the string; nothing marked: as without marks. */
static void test_golden_strings(void **state UNUSED) {
    struct tok *t = tok_golden("llama3");
    struct golden_strings g;
    golden_strings_open(&g);
    while (golden_strings_next(&g)) {
        struct tok_ids a = {0}, b = {0};
        struct tok_mark all = {0, g.text.len}, none = {g.text.len / 2, g.text.len / 2};
        tok_encode(t, g.text.data, g.text.len, &all, 1, 0, &a);
        for (size_t i = 0; i < a.n; i++)
            assert_false(tok_is_special(t, a.v[i]));
        a.n = 0;
        tok_encode(t, g.text.data, g.text.len, &none, 1, 0, &a);
        tok_encode(t, g.text.data, g.text.len, NULL, 0, 0, &b);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v ? a.v : (const uint32_t[]){0}, b.v ? b.v : (const uint32_t[]){0},
                            a.n * sizeof *a.v);
        tok_ids_fini(&a);
        tok_ids_fini(&b);
    }
    golden_strings_close(&g);
    tok_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_text),     cmocka_unit_test(test_normalised),
        cmocka_unit_test(test_repaired),       cmocka_unit_test(test_shorter),
        cmocka_unit_test(test_golden_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
