/* The kinds beside byte-level BPE: what their files must be, how they decode a token at a time, what their
 * tokens stand for, and marks. Ids and texts of small files were asked of Hugging Face tokenizers 0.23.3. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/detok.h"
#include "tests/support/tok_golden.h"

#include <stdlib.h>

static enum rc load(struct tok **t, const char *json, struct err *e) {
    *e = (struct err){0};
    return tok_load(t, &(struct tok_files){.tokenizer_json = str_of(json)}, e);
}

static void refused(enum rc want, const char *param, const char *json) {
    struct tok *t = NULL;
    struct err e;
    enum rc rc = load(&t, json, &e);
    if (rc != want || strcmp(e.param, param) != 0)
        fail_msg("wanted %s %s, got %s %s: %s", rc_name(want), param, rc_name(rc), e.param, e.msg);
    assert_null(t);
}
#define WORDPIECE(options, vocab) "{\"model\":{\"type\":\"WordPiece\"," options ",\"vocab\":" vocab "}}"
#define UNIGRAM(options, vocab) "{\"model\":{\"type\":\"Unigram\"," options ",\"vocab\":" vocab "}}"
#define NORMALIZER(part)                                                                                     \
    "{\"normalizer\":" part ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"

static void test_wordpiece_files(void **state UNUSED) {
    refused(RC_INVALID, "model", WORDPIECE("\"max_input_chars_per_word\":9", "{\"a\":0}"));
    refused(RC_INVALID, "model.unk_token", WORDPIECE("\"unk_token\":\"u\"", "{\"a\":0}"));
    refused(RC_INVALID, "model",
            WORDPIECE("\"unk_token\":\"a\",\"continuing_subword_prefix\":7", "{\"a\":0}"));
    refused(RC_INVALID, "model.max_input_chars_per_word",
            WORDPIECE("\"unk_token\":\"a\",\"max_input_chars_per_word\":-1", "{\"a\":0}"));
    refused(RC_INVALID, "model.vocab", WORDPIECE("\"unk_token\":\"a\"", "[[\"a\",0]]"));
}

static void test_unigram_files(void **state UNUSED) {
    refused(RC_INVALID, "model.vocab", UNIGRAM("\"unk_id\":0", "{\"a\":0}"));
    refused(RC_INVALID, "model.vocab", UNIGRAM("\"unk_id\":0", "[]"));
    refused(RC_INVALID, "model.vocab", UNIGRAM("\"unk_id\":0", "[\"a\"]"));
    refused(RC_INVALID, "model.vocab", UNIGRAM("\"unk_id\":0", "[[\"a\",\"b\"]]"));
    refused(RC_INVALID, "model.vocab", UNIGRAM("\"unk_id\":0", "[[7,-1.0]]"));
    refused(RC_INVALID, "model.unk_id", UNIGRAM("\"unk_id\":1", "[[\"a\",-1.0]]"));
    refused(RC_INVALID, "model.unk_id", UNIGRAM("\"unk_id\":-1", "[[\"a\",-1.0]]"));
    refused(RC_INVALID, "model.unk_id", UNIGRAM("\"unk_id\":\"a\"", "[[\"a\",-1.0]]"));
    refused(RC_INVALID, "model.unk_id", UNIGRAM("\"unk_id\":1", "[[\"a\",-1.0],[\"\",-1.0]]"));
    refused(RC_INVALID, "model", UNIGRAM("\"unk_id\":0,\"byte_fallback\":1", "[[\"a\",-1.0]]"));
}

/* A character map is a trie that may lie: sizes, offsets and values are checked. */
static void test_charsmap_files(void **state UNUSED) {
#define MAP(base64) NORMALIZER("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" base64 "\"}")
    refused(RC_INVALID, "normalizer", NORMALIZER("{\"type\":\"Precompiled\"}"));
    refused(RC_INVALID, "normalizer", MAP(""));
    refused(RC_INVALID, "normalizer", MAP("AAAA"));
    refused(RC_INVALID, "normalizer", MAP("!!!!"));
    refused(RC_INVALID, "normalizer", MAP("AA=A"));
    refused(RC_INVALID, "normalizer", MAP("AAAAAAAAAAA="));     /* an empty trie */
    refused(RC_INVALID, "normalizer", MAP("CAAAAAAAAAA="));     /* eight bytes of trie in four */
    refused(RC_INVALID, "normalizer", MAP("BAAAAAAAAACA"));     /* a replacement that is not UTF-8 */
    refused(RC_INVALID, "normalizer", MAP("BAAAAAEAAIDDqQA=")); /* the value points into a character */
    struct tok *t;
    struct err e;
    struct tok_ids ids = {0};
    /* the root's children lie outside the trie: nothing is mapped */
    assert_int_equal(load(&t, MAP("BAAAAAD8/39h"), &e), RC_OK);
    tok_encode(t, "aba", 3, NULL, 0, 0, &ids);
    assert_int_equal(ids.n, 2); /* "b" has no token and there is no unknown one */
    tok_ids_fini(&ids);
    tok_free(t);
}

static void refused_files(enum rc want, const char *part, struct tok_files files) {
    struct tok *t = NULL;
    struct err e = {0};
    enum rc rc = tok_load(&t, &files, &e);
    if (rc != want || !strstr(e.msg, part))
        fail_msg("wanted %s naming %s, got %s: %s", rc_name(want), part, rc_name(rc), e.msg);
    assert_null(t);
}
#define MODEL(bytes)                                                                                         \
    (struct tok_files) {                                                                                     \
        .tokenizer_model = STR_LIT(bytes)                                                                    \
    }

/* tokenizer.model is a protobuf message that may lie about every length. */
static void test_spm_files(void **state UNUSED) {
    refused_files(RC_INVALID, "tokenizer.model", MODEL("\n"));
    refused_files(RC_INVALID, "tokenizer.model",
                  MODEL("\n\x05"
                        "abc"));
    refused_files(RC_INVALID, "tokenizer.model", MODEL("\n\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"));
    refused_files(RC_INVALID, "tokenizer.model", MODEL("\n\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"));
    refused_files(RC_INVALID, "tokenizer.model", MODEL("\x0B"));             /* a group */
    refused_files(RC_INVALID, "tokenizer.model", MODEL("\x12\x02\x18\x02")); /* no piece */
    refused_files(RC_INVALID, "tokenizer.model", MODEL("\n\x03\n\x01\xFF")); /* not UTF-8 */
    refused_files(RC_INVALID, "tokenizer.model",
                  MODEL("\n\x08\n\x01"
                        "a\x15\0\0\xC0\x7F")); /* not a number */
    refused_files(RC_UNSUPPORTED, "model type 4",
                  MODEL("\n\x03\n\x01"
                        "a\x12\x02\x18\x04"));
    refused_files(RC_INVALID, "normalizer",
                  MODEL("\n\x03\n\x01"
                        "a\x1A\x04\x12\x02" "ab")); /* a map of two bytes */
    refused_files(RC_INVALID, "tokenizer_config.json",
                  (struct tok_files){.vocab_txt = STR_LIT("a\n"), .tokenizer_config_json = STR_LIT("[]")});
    refused_files(RC_INVALID, "model.unk_token", (struct tok_files){.vocab_txt = STR_LIT("a\n")});
    refused_files(RC_INVALID, "vocab.txt", (struct tok_files){.vocab_txt = STR_LIT("\xFF\n")});
    refused_files(RC_INVALID, "merges.txt",
                  (struct tok_files){.vocab_json = STR_LIT("{\"a\":0}"), .merges_txt = STR_LIT("a \xFF\n")});
    refused_files(RC_INVALID, "vocab.json",
                  (struct tok_files){.vocab_json = STR_LIT("{"), .merges_txt = STR_LIT("a a\n")});
    refused_files(RC_INVALID, "model.merges[0]",
                  (struct tok_files){.vocab_json = STR_LIT("{\"a\":0}"), .merges_txt = STR_LIT("a b\n")});
    refused_files(RC_INVALID, "no tokenizer.json", (struct tok_files){.vocab_json = STR_LIT("{\"a\":0}")});
    refused_files(RC_INVALID, "tokenizer.json", (struct tok_files){0});
    struct buf file = {0}, piece = {0}; /* a piece with too many ways to split it */
    buf_addz(&file, "\x12\x02\x18\x02\n\x83\x10\n\x80\x10");
    for (int i = 0; i < 2048; i++)
        buf_addc(&piece, 'a');
    buf_add_str(&file, buf_str(&piece));
    refused_files(RC_INVALID, "2048 bytes", (struct tok_files){.tokenizer_model = buf_str(&file)});
    buf_fini(&file);
    buf_fini(&piece);
}

static uint32_t find(const struct tok *t, const char *s) {
    uint32_t id;
    if (!tok_find(t, str_of(s), &id))
        fail_msg("no token \"%s\"", s);
    return id;
}

/* expect: tokens pushed one by one, "|" after each, then the finish. prompt: tokens before them. */
static void expect(const struct tok *t, const char *const *prompt, const char *const *tokens,
                   const char *want) {
    uint32_t tail[8];
    size_t n_tail = 0;
    for (; prompt[n_tail]; n_tail++)
        tail[n_tail] = find(t, prompt[n_tail]);
    struct detok d;
    struct buf out = {0};
    detok_init(&d, t, tail, n_tail, true, false);
    for (; *tokens; tokens++) {
        detok_push(&d, find(t, *tokens), &out);
        buf_addc(&out, '|');
    }
    detok_finish(&d, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
}
#define TOKENS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NOTHING ((const char *const[]){NULL})
#define FFFD "\xEF\xBF\xBD"
#define META "\xE2\x96\x81"

static void test_byte_runs(void **state UNUSED) {
    struct tok *t = tok_golden("llama2");
    expect(t, NOTHING, TOKENS("<0xC3>", "<0xA9>", "a"),
           "||\xC3\xA9"
           "a|");
    expect(t, NOTHING, TOKENS("a", "<0xC3>", "<0xA9>"), "a|||\xC3\xA9");
    /* one bad byte spoils its run, what came before included */
    expect(t, NOTHING, TOKENS("<0xC3>", "<0xA9>", "<0xC3>", "a"), "|||" FFFD FFFD FFFD "a|");
    expect(t, NOTHING, TOKENS("<0xC3>", "<0xA9>", "<0xA9>", "<0xC3>", "<0xA9>"),
           "||" FFFD FFFD FFFD "|" FFFD "|" FFFD "|");
    expect(t, NOTHING, TOKENS("<0xFF>", "b", "<0xE2>"), FFFD "|b||" FFFD);
    /* special tokens that are skipped do not end a run */
    expect(t, NOTHING, TOKENS("<0xC3>", "</s>", "<0xA9>"), "|||\xC3\xA9");
    tok_free(t);
}

/* A run is held back up to a bound; then whole characters go out. */
static void test_long_run(void **state UNUSED) {
    struct tok *t = tok_golden("llama2");
    struct detok d;
    struct buf out = {0}, want = {0};
    detok_init(&d, t, NULL, 0, true, false);
    for (unsigned i = 0; i < 400; i++) {
        detok_push(&d, find(t, "<0xE2>"), &out);
        detok_push(&d, find(t, "<0x82>"), &out);
        detok_push(&d, find(t, "<0xAC>"), &out);
        buf_addz(&want, "\xE2\x82\xAC");
        assert_true(i * 3 <= out.len + DETOK_RUN_MAX);
    }
    detok_finish(&d, &out);
    assert_string_equal(buf_cstr(&out), buf_cstr(&want));
    buf_fini(&out);
    buf_fini(&want);
    tok_free(t);
}

static void test_first_space(void **state UNUSED) {
    struct tok *t = tok_golden("llama2");
    expect(t, NOTHING, TOKENS(META "the", META "the"), "the| the|");
    expect(t, NOTHING, TOKENS(META META, META "the"), " | the|");
    expect(t, TOKENS("<s>"), TOKENS(META "the"), "the|"); /* skipped: the text still starts here */
    expect(t, TOKENS("<s>", "a"), TOKENS(META "the"), " the|");
    tok_free(t);
    t = tok_golden("xlmr");
    expect(t, NOTHING, TOKENS(META "the", META "the"), "the| the|");
    expect(t, TOKENS("</s>", "s"), TOKENS(META "the"), " the|");
    tok_free(t);
}

static void test_wordpiece_text(void **state UNUSED) {
    struct tok *t = tok_golden("bert_uncased"); /* with cleanup */
    expect(t, NOTHING, TOKENS("the", "##s", ".", "the", "?"), "the|s|.| the|?|");
    expect(t, NOTHING, TOKENS("##s", "the"), "##s| the|"); /* the first keeps its prefix */
    expect(t, TOKENS("the"), TOKENS("##s", "the"), "s| the|");
    tok_free(t);
    t = tok_golden("bert_cased"); /* without */
    expect(t, NOTHING, TOKENS("the", "."), "the| .|");
    tok_free(t);
}

/* BPEDecoder: the suffix is a space but in the last token, so each waits for the next. */
static void test_suffix(void **state UNUSED) {
    struct tok *t;
    struct err e;
    assert_int_equal(
        load(&t,
             "{\"decoder\":{\"type\":\"BPEDecoder\",\"suffix\":\"_\"},\"model\":{\"type\":\"BPE\","
             "\"vocab\":{\"a_\":0,\"b\":1},\"merges\":[]}}",
             &e),
        RC_OK);
    expect(t, NOTHING, TOKENS("a_", "b", "a_", "a_"), "|a |b|a |a");
    tok_free(t);
    /* no decoder: a space between tokens */
    assert_int_equal(load(&t, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}", &e),
                     RC_OK);
    expect(t, NOTHING, TOKENS("a", "b", "a"), "a| b| a|");
    tok_free(t);
}

/* What structured output relies on: the bytes of each token in running text. */
static void test_bytes(void **state UNUSED) {
    struct tok *t = tok_golden("llama2");
    assert_true(str_eqz(tok_bytes(t, find(t, META "the")), " the"));
    assert_true(str_eqz(tok_bytes(t, find(t, "<0x0A>")), "\n"));
    assert_true(str_eqz(tok_bytes(t, find(t, "a")), "a"));
    assert_true(str_eq(tok_bytes(t, find(t, "<0x00>")), STR_LIT("\0")));
    assert_true(str_eqz(tok_piece(t, find(t, "<0x0A>")), "<0x0A>"));
    tok_free(t);
    t = tok_golden("xlmr");
    assert_true(str_eqz(tok_bytes(t, find(t, META "the")), " the"));
    tok_free(t);
    t = tok_golden("bert_cased");
    assert_true(str_eqz(tok_bytes(t, find(t, "the")), " the"));
    assert_true(str_eqz(tok_bytes(t, find(t, "##s")), "s"));
    tok_free(t);
}

/* Marked text never becomes special tokens, whatever the string; nothing marked is as without marks. */
static void test_marks(void **state) {
    struct tok *t = tok_golden(*state);
    struct golden_strings g;
    struct tok_ids a = {0}, b = {0};
    golden_strings_open(&g);
    for (size_t i = 0; golden_strings_next(&g) && i < 5000; i++) {
        struct tok_mark all = {0, g.text.len}, half = {0, g.text.len / 2},
                        none = {g.text.len / 2, g.text.len / 2};
        uint32_t bos;
        a.n = b.n = 0;
        tok_encode(t, g.text.data, g.text.len, &all, 1, 0, &a);
        for (size_t k = 0; k < a.n; k++)
            assert_false(tok_is_special(t, a.v[k]) && !str_eqz(tok_piece(t, a.v[k]), "<unk>") &&
                         !str_eqz(tok_piece(t, a.v[k]), "[UNK]"));
        a.n = 0;
        tok_encode(t, g.text.data, g.text.len, &half, 1, TOK_ADD_SPECIAL, &a);
        assert_true(!tok_bos(t, &bos) || a.v[0] == bos);
        a.n = 0;
        tok_encode(t, g.text.data, g.text.len, &none, 1, 0, &a);
        tok_encode(t, g.text.data, g.text.len, NULL, 0, 0, &b);
        assert_int_equal(a.n, b.n);
        if (a.n)
            assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
    }
    golden_strings_close(&g);
    tok_ids_fini(&a);
    tok_ids_fini(&b);
    tok_free(t);
}

/* Special tokens that are searched in normalised text are found by where it came from. */
static void test_marks_normalised(void **state UNUSED) {
    static const char json[] =
        "{\"added_tokens\":[{\"id\":2,\"content\":\"[Stop]\",\"special\":true,\"single_word\":false,"
        "\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
        "{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true},"
        "{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":"
        "null,"
        "\"lowercase\":true},{\"type\":\"Replace\",\"pattern\":{\"String\":\"..\"},\"content\":\".\"}]},"
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
        "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1}}}";
    struct tok *t;
    struct err e;
    if (load(&t, json, &e))
        fail_msg("%s", e.msg);
    static const struct {
        const char *text;
        size_t begin, end; /* the mark */
        size_t n_special;
    } cases[] = {
        {"  [STOP] a..[stop]", 0, 0, 2},
        {"  [STOP] a..[stop]", 0, 18, 0},
        {"  [STOP] a..[stop]", 8, 12, 2},  /* beside both */
        {"  [STOP] a..[stop]", 7, 9, 1},   /* the bracket of the first */
        {"  [STOP] a..[stop]", 11, 13, 1}, /* the bracket of the second */
        {"\xC3\x81\xE4\xB8\xAD[ST\xC3\x93P]", 0, 5, 1},
        {"\xC3\x81\xE4\xB8\xAD[ST\xC3\x93P]", 8, 10, 0}, /* the accented letter */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tok_ids ids = {0};
        struct tok_mark mark = {cases[i].begin, cases[i].end};
        size_t n = 0;
        tok_encode(t, cases[i].text, strlen(cases[i].text), &mark, 1, 0, &ids);
        for (size_t k = 0; k < ids.n; k++)
            n += ids.v[k] == 2;
        if (n != cases[i].n_special)
            fail_msg("case %zu: %zu special tokens", i, n);
        tok_ids_fini(&ids);
    }
    tok_free(t);
}

/* Special tokens among the model's own are not read from a client's text either. */
static void test_marks_model(void **state UNUSED) {
#define SPECIAL(id, content)                                                                                 \
    "{\"id\":" #id ",\"content\":\"" content "\",\"special\":true,\"single_word\":false,\"lstrip\":false,"   \
    "\"rstrip\":false,\"normalized\":false}"
    static const char *const models[] = {
        "{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"u\":0,\"<\":1,\"s\":2,\">\":3,\"<s>\":4,\"<"
        "s\":5},"
        "\"merges\":[]}",
        "{\"type\":\"BPE\",\"vocab\":{\"u\":0,\"<\":1,\"s\":2,\">\":3,\"<s>\":4,\"<s\":5},\"merges\":[\"< "
        "s\",\"<s >\"]}",
        "{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"continuing_subword_prefix\":\"\","
        "\"vocab\":{\"u\":0,\"<\":1,\"s\":2,\">\":3,\"<s>\":4}}",
        "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"u\",-1],[\"<\",-2],[\"s\",-2],[\">\",-2],[\"<s>\","
        "0]]}",
    };
    const uint32_t want[] = {1, 2, 3};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        struct tok *t;
        struct err e;
        struct buf json = {0};
        struct tok_ids ids = {0};
        buf_addf(&json, "{\"added_tokens\":[" SPECIAL(4, "<s>") "],\"model\":%s}", models[i]);
        if (load(&t, buf_cstr(&json), &e))
            fail_msg("%zu: %s", i, e.msg);
        tok_encode(t, "<s>", 3, &(struct tok_mark){0, 3}, 1, 0, &ids);
        assert_int_equal(ids.n, 3);
        assert_memory_equal(ids.v, want, sizeof want);
        ids.n = 0;
        tok_encode(t, "<s>", 3, NULL, 0, 0, &ids);
        assert_int_equal(ids.n, 1);
        tok_ids_fini(&ids);
        tok_free(t);
        buf_fini(&json);
    }
}

#define MARKS(family)                                                                                        \
    { "marks_" family, test_marks, NULL, NULL, (void *)(uintptr_t)family }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wordpiece_files),
        cmocka_unit_test(test_unigram_files),
        cmocka_unit_test(test_charsmap_files),
        cmocka_unit_test(test_spm_files),
        cmocka_unit_test(test_byte_runs),
        cmocka_unit_test(test_long_run),
        cmocka_unit_test(test_first_space),
        cmocka_unit_test(test_wordpiece_text),
        cmocka_unit_test(test_suffix),
        cmocka_unit_test(test_bytes),
        MARKS("bert_uncased"),
        MARKS("xlmr"),
        MARKS("t5"),
        MARKS("llama2"),
        MARKS("mistral"),
        MARKS("gemma"),
        cmocka_unit_test(test_marks_normalised),
        cmocka_unit_test(test_marks_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
