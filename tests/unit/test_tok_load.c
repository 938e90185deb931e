/* tokenizer.json as it should not be, and small ones whose ids were asked of Hugging Face tokenizers 0.23.3.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/detok.h"
#include "common/text/tok.h"

#include <stdlib.h>

/* The parts of a file; NULL: the default below. */
struct parts {
    const char *vocab, *merges, *added, *norm, *pre, *post, *dec, *model;
};

static const char * or (const char *s, const char *fallback) {
    return s ? s : fallback;
}

static char *file_of(const struct parts *p) {
    struct buf b = {0};
    buf_addf(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":%s,",
             or (p->added, "[]"));
    buf_addf(
        &b, "\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,",
        or (p->norm, "null"),
        or (p->pre,
            "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"),
        or (p->post, "null"), or (p->dec, "{\"type\":\"ByteLevel\"}"));
    buf_addf(&b, "\"model\":{%s,\"vocab\":%s,\"merges\":%s}}",
             or (p->model, "\"type\":\"BPE\",\"unk_token\":null"),
             or (p->vocab, "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"bc\":5,\"\xC4\xA0\":6,\"aa\":7}"),
             or (p->merges, "[\"a b\",\"b c\",\"ab c\"]"));
    return buf_take(&b);
}

static enum rc load(struct tok **t, const struct parts *p, struct err *e) {
    char *json = file_of(p);
    *e = (struct err){0};
    enum rc rc = tok_load(t, &(struct tok_files){.tokenizer_json = str_of(json)}, e);
    free(json);
    return rc;
}

/* refused: RC_INVALID or RC_UNSUPPORTED, naming the key. */
static void refused(enum rc want, const char *param, struct parts p) {
    struct tok *t = NULL;
    struct err e;
    enum rc rc = load(&t, &p, &e);
    if (rc != want || strcmp(e.param, param) != 0 || !strstr(e.msg, "tokenizer.json"))
        fail_msg("wanted %s %s, got %s %s: %s", rc_name(want), param, rc_name(rc), e.param, e.msg);
    assert_null(t);
}
#define BAD(param, ...) refused(RC_INVALID, param, (struct parts){__VA_ARGS__})
#define LACKS(param, ...) refused(RC_UNSUPPORTED, param, (struct parts){__VA_ARGS__})
#define ENTRY(id, content, flags) "{\"id\":" #id ",\"content\":\"" content "\"," flags "}"
#define FLAGS(special, single, l, r, norm)                                                                   \
    "\"special\":" #special ",\"single_word\":" #single ",\"lstrip\":" #l ",\"rstrip\":" #r                  \
    ",\"normalized\":" #norm
#define PLAIN FLAGS(false, false, false, false, false)

static void test_bad_merges(void **state UNUSED) {
    BAD("model.merges[1]", .merges = "[\"a b\",\"a x\"]");
    BAD("model.merges[0]", .merges = "[\"c c\"]"); /* what it makes is absent */
    BAD("model.merges[0]", .merges = "[\"a b c\"]");
    BAD("model.merges[0]", .merges = "[\"ab\"]");
    BAD("model.merges[0]", .merges = "[\" b\"]");
    BAD("model.merges[0]", .merges = "[\"a \"]");
    BAD("model.merges[0]", .merges = "[[\"a\"]]");
    BAD("model.merges[0]", .merges = "[[\"a\",\"\"]]");
    BAD("model.merges[0]", .merges = "[[\"a\",7]]");
    BAD("model.merges[0]", .merges = "[\"a b\\u0000\"]");
    BAD("model.merges[0]", .merges = "[null]");
    BAD("model.merges", .merges = "{}");
    BAD("model.merges", .merges = "null");
    /* an added token is no part of the vocabulary proper */
    BAD("model.merges[0]", .merges = "[\"a <x>\"]",
        .added = "[" ENTRY(8, "<x>", PLAIN) "," ENTRY(9, "a<x>", PLAIN) "]");
}

static void test_bad_vocab(void **state UNUSED) {
    BAD("model.vocab", .vocab = "{\"a\":0,\"b\":0}", .merges = "[]");
    BAD("model.vocab", .vocab = "{\"a\":-1}", .merges = "[]");
    BAD("model.vocab", .vocab = "{\"a\":4294967296}", .merges = "[]");
    BAD("model.vocab", .vocab = "{\"a\":16777216}", .merges = "[]");
    BAD("model.vocab", .vocab = "{\"a\":9000000}", .merges = "[]"); /* in bounds, but for one token? */
    BAD("model.vocab", .vocab = "{\"a\":1.0}", .merges = "[]");
    BAD("model.vocab", .vocab = "{\"a\":\"0\"}", .merges = "[]");
    BAD("model.vocab", .vocab = "{\"\":0}", .merges = "[]");
    BAD("model.vocab", .vocab = "{}", .merges = "[]");
    BAD("model.vocab", .vocab = "[\"a\"]", .merges = "[]");
    BAD("model.unk_token", .model = "\"type\":\"BPE\",\"unk_token\":\"<q>\"");
    BAD("model.unk_token", .model = "\"type\":\"BPE\",\"unk_token\":7");
    BAD("model.fuse_unk", .model = "\"type\":\"BPE\",\"fuse_unk\":1");
    BAD("model.ignore_merges", .model = "\"type\":\"BPE\",\"ignore_merges\":\"yes\"");
}

static void test_bad_added(void **state UNUSED) {
    BAD("added_tokens[0]", .added = "[" ENTRY(9, "<x>", PLAIN) "]");
    BAD("added_tokens[0]", .added = "[" ENTRY(7, "<x>", PLAIN) "]");
    BAD("added_tokens[0]", .added = "[" ENTRY(4, "ab", PLAIN) "]"); /* the vocabulary says 3 */
    BAD("added_tokens[0]", .added = "[" ENTRY(-1, "<x>", PLAIN) "]");
    BAD("added_tokens[0]", .added = "[" ENTRY(16777216, "<x>", PLAIN) "]");
    BAD("added_tokens[0]", .added = "[" ENTRY(8, "", PLAIN) "]");
    BAD("added_tokens[0]", .added = "[7]");
    BAD("added_tokens[0]", .added = "[{\"id\":8,\"content\":\"x\",\"special\":true}]");
    BAD("added_tokens", .added = "[" ENTRY(8, "x", PLAIN) "," ENTRY(9, "x", PLAIN) "]");
    BAD("added_tokens", .added = "[" ENTRY(3, "ab", PLAIN) "," ENTRY(3, "ab", PLAIN) "]");
    BAD("added_tokens", .added = "{}");
    BAD("added_tokens", .norm = "{\"type\":\"NFC\"}", /* the same once normalised */
        .added = "[" ENTRY(8, "\xC3\xA9", FLAGS(false, false, false, false, true)) "," ENTRY(
            9, "e\xCC\x81", FLAGS(false, false, false, false, true)) "]");
}

static void test_unsupported(void **state UNUSED) {
    LACKS("model.type", .model = "\"type\":\"Markov\"");
    LACKS("model.dropout", .model = "\"type\":\"BPE\",\"dropout\":0.1");
    BAD("model.continuing_subword_prefix", .model = "\"type\":\"BPE\",\"continuing_subword_prefix\":7");
    BAD("model.end_of_word_suffix",
        .model = "\"type\":\"BPE\",\"end_of_word_suffix\":\"012345678901234567890123456789012\"");
    LACKS("normalizer", .norm = "{\"type\":\"Rot13\"}");
    LACKS("normalizer", .norm = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(a)\\\\1\"},\"content\":\"\"}");
    BAD("normalizer.normalizers[1]",
        .norm = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Sequence\"}]}");
    LACKS("normalizer.normalizers[1].normalizers[0]",
          .norm = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Sequence\","
                  "\"normalizers\":[{\"type\":\"Rot13\"}]}]}");
    LACKS("pre_tokenizer", .pre = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\X+\"},\"behavior\":"
                                  "\"Isolated\",\"invert\":false}");
    BAD("pre_tokenizer", .pre = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":"
                                "\"Isolated\",\"invert\":false}");
    BAD("decoder", .dec = "{\"type\":\"CTC\"}");
    LACKS("decoder",
          .dec = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"CTC\",\"pad_token\":\"<p>\","
                 "\"word_delimiter_token\":\"|\",\"cleanup\":true},{\"type\":\"Metaspace\",\"replacement\":\"_\"}]}");
    LACKS("decoder.decoders[1]",
          .dec = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}");
    LACKS("post_processor", .post = "{\"type\":\"Sandwich\"}");
    struct tok *t;
    struct err e;
    assert_int_equal(
        load(&t,
             &(struct parts){.pre =
                                 "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Han}\\\\K+\"},\"behavior\":"
                                 "\"Isolated\",\"invert\":false}"},
             &e),
        RC_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "\\p{Han}\\K+")); /* the pattern is named */
}

#define TEMPLATE(single, special)                                                                            \
    "{\"type\":\"TemplateProcessing\",\"single\":" single ",\"pair\":[],\"special_tokens\":" special "}"
#define SEQ "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define TOKEN(name) "{\"SpecialToken\":{\"id\":\"" name "\",\"type_id\":0}}"
#define NAMED(name, ids) "{\"" name "\":{\"id\":\"" name "\",\"ids\":" ids ",\"tokens\":[\"" name "\"]}}"

static void test_template(void **state UNUSED) {
    BAD("post_processor", .post = TEMPLATE("[" TOKEN("x") "," SEQ "]", "{}"));
    BAD("post_processor", .post = TEMPLATE("[" TOKEN("a") "," SEQ "]", NAMED("a", "[8]")));
    BAD("post_processor", .post = TEMPLATE("[" TOKEN("a") "," SEQ "]", NAMED("a", "[-1]")));
    BAD("post_processor", .post = TEMPLATE("[" TOKEN("a") "]", NAMED("a", "[0]")));
    BAD("post_processor", .post = TEMPLATE("[" SEQ "," SEQ "]", "{}"));
    BAD("post_processor", .post = TEMPLATE("[7]", "{}"));
    LACKS("post_processor.processors[1]", .post = "{\"type\":\"Sequence\",\"processors\":[" TEMPLATE(
                                              "[" SEQ "]", "{}") "," TEMPLATE("[" SEQ "]", "{}") "]}");
    struct tok *t;
    struct err e;
    size_t n_front, n_back;
    const struct parts p = {.post =
                                "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," TEMPLATE(
                                    "[" TOKEN("a") "," SEQ "," TOKEN("b") "]",
                                    "{\"a\":{\"id\":\"a\",\"ids\":[0,7]},\"b\":{\"id\":\"b\",\"ids\":[1]}"
                                    "}") "]}"};
    assert_int_equal(load(&t, &p, &e), RC_OK);
    tok_n_special(t, &n_front, &n_back);
    assert_int_equal(n_front, 2);
    assert_int_equal(n_back, 1);
    struct tok_ids ids = {0};
    tok_encode(t, "bc", 2, NULL, 0, TOK_ADD_SPECIAL, &ids);
    const uint32_t want[] = {0, 7, 5, 1};
    assert_int_equal(ids.n, ARRAY_LEN(want));
    assert_memory_equal(ids.v, want, sizeof want);
    tok_ids_fini(&ids);
    tok_free(t);
}

static void test_bad_json(void **state UNUSED) {
    static const char *const bad[] = {
        "", "{", "[]", "null", "{\"model\":", "{} x", "{\"model\":{\"vocab\":{\"\\ud800\":0}}}", "\xFF"};
    struct tok *t = NULL;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(tok_load(&t, &(struct tok_files){.tokenizer_json = str_of(bad[i])}, &e), RC_INVALID);
    struct buf deep = {0};
    buf_addz(&deep, "{\"model\":");
    for (int i = 0; i < 100000; i++)
        buf_addc(&deep, '[');
    assert_int_equal(tok_load(&t, &(struct tok_files){.tokenizer_json = buf_str(&deep)}, &e), RC_INVALID);
    buf_fini(&deep);
    /* Size is looked at before the bytes are. */
    assert_int_equal(tok_load(&t, &(struct tok_files){.tokenizer_json = {"{", (size_t)1 << 40}}, &e),
                     RC_INVALID);
    char *json = file_of(&(struct parts){0});
    const struct tok_files side = {.tokenizer_json = str_of(json),
                                   .tokenizer_config_json = STR_LIT("{\"bos_token\":")};
    assert_int_equal(tok_load(&t, &side, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "tokenizer_config.json"));
    free(json);
    assert_null(t);
}

/* bos and eos: the config first, special_tokens_map.json for what it leaves out. */
static void test_names(void **state UNUSED) {
    char *json = file_of(&(struct parts){.added = "[" ENTRY(8, "<s>", PLAIN) "]"});
    const struct tok_files files = {
        .tokenizer_json = str_of(json),
        .tokenizer_config_json = STR_LIT("{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":null}"),
        .special_tokens_map_json = STR_LIT("{\"bos_token\":\"a\",\"eos_token\":\"b\"}")};
    struct tok *t;
    struct err e;
    uint32_t bos, eos;
    assert_int_equal(tok_load(&t, &files, &e), RC_OK);
    assert_true(tok_bos(t, &bos));
    assert_true(tok_eos(t, &eos));
    assert_int_equal(bos, 8);
    assert_int_equal(eos, 1);
    tok_free(t);
    free(json);
}

static void encodes(struct parts p, const char *text, size_t n, const uint32_t *want) {
    struct tok *t;
    struct err e;
    struct tok_ids ids = {0};
    if (load(&t, &p, &e))
        fail_msg("%s", e.msg);
    tok_encode(t, text, strlen(text), NULL, 0, 0, &ids);
    if (ids.n != n || memcmp(ids.v, want, n * sizeof *want) != 0) {
        for (size_t i = 0; i < ids.n; i++)
            print_error("%u ", ids.v[i]);
        fail_msg("are the ids of \"%s\"", text);
    }
    tok_ids_fini(&ids);
    tok_free(t);
}
#define IDS(...)                                                                                             \
    sizeof((const uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]) {                                        \
        __VA_ARGS__                                                                                          \
    }
#define WITH_UNK                                                                                             \
    .vocab = "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"bc\":5,\"\xC4\xA0\":6,\"aa\":7,\"<unk>\":8}",    \
    .merges = "[\"a b\"]"

static void test_model(void **state UNUSED) {
    encodes((struct parts){0}, "abc abx", IDS(4, 6, 3)); /* a byte without a token vanishes */
    encodes((struct parts){.merges = "[\"a b\",\"b c\",\"a b\"]"}, "abc",
            IDS(0, 5)); /* the last of equals counts */
    encodes((struct parts){.merges = "[\"#version: 0.2\",\"a b\"]"}, "ab", IDS(3));
    encodes((struct parts){.merges = "[[\"a\",\"b\"]]"}, "abc", IDS(3, 2));
    encodes((struct parts){WITH_UNK, .model = "\"type\":\"BPE\",\"unk_token\":\"<unk>\""}, "axyb zzz",
            IDS(0, 8, 8, 1, 6, 8, 8, 8));
    encodes((struct parts){WITH_UNK, .model = "\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true"},
            "axyb zzz", IDS(0, 8, 1, 6, 8));
    /* ignore_merges: a whole pre-token in the vocabulary needs none */
    encodes((struct parts){.merges = "[]"}, "abc", IDS(0, 1, 2));
    encodes((struct parts){.merges = "[]", .model = "\"type\":\"BPE\",\"ignore_merges\":true"}, "abc abcc",
            IDS(4, 6, 0, 1, 2, 2));
}

static void test_added_flags(void **state UNUSED) {
    const struct parts p = {
        .added = "[" ENTRY(8, "<x>", FLAGS(false, true, false, false, false)) "," ENTRY(
            9, "<y>", FLAGS(false, false, true, true, false)) "," ENTRY(10, " ",
                                                                        FLAGS(true, false, false, false,
                                                                              false)) "," ENTRY(11, "<xx>",
                                                                                                PLAIN) "]"};
    encodes(p, "a<x>", IDS(0));
    encodes(p, "<x> a<xx> <x>", IDS(8, 10, 0, 11, 10, 8));
    encodes(p, "a <y>   b", IDS(0, 10, 9, 10, 10, 10, 1));
    encodes((struct parts){.added = "[" ENTRY(8, "<y>", FLAGS(false, false, true, true, false)) "]"},
            "a  <y> \n b<y>", IDS(0, 8, 1, 8));
    /* leftmost, then longest */
    encodes((struct parts){.added = "[" ENTRY(8, "aab", PLAIN) "," ENTRY(4, "abc", PLAIN) "," ENTRY(
                               3, "ab", PLAIN) "]"},
            "aabcabcab", IDS(8, 2, 4, 3));
}

#define PREFIXED "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}"

static void test_steps(void **state UNUSED) {
    encodes((struct parts){.merges = "[]", .pre = PREFIXED, .added = "[" ENTRY(8, "<x>", PLAIN) "]"},
            "a<x>b <x> a<x>", IDS(6, 0, 8, 6, 1, 6, 8, 6, 0, 8));
    encodes(
        (struct parts){
            .vocab = "{\"1\":0,\"2\":1,\"12\":2,\"a\":3,\"112\":4,\"a1\":5}",
            .merges = "[\"1 2\",\"1 12\",\"a 1\"]",
            .pre =
                "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
                "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"},
        "a112", IDS(3, 0, 0, 1));
    encodes(
        (struct parts){
            .vocab = "{\"1\":0,\"2\":1,\"12\":2,\"a\":3,\"112\":4,\"a1\":5}",
            .merges = "[\"1 2\",\"1 12\",\"a 1\"]",
            .pre =
                "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":false},"
                "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"},
        "a112a", IDS(3, 4, 3));
    /* No split at all: everything is one pre-token. */
    encodes((struct parts){.vocab = "{\"a\":0,\"\xC4\xA0\":1,\"a\xC4\xA0\":2}",
                           .merges = "[\"a \xC4\xA0\"]",
                           .pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"},
            "a a", IDS(2, 0));
}

#define SPLIT(re, behavior)                                                                                  \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" re "\"},\"behavior\":\"" behavior "\",\"invert\":false}"

static void test_patterns(void **state UNUSED) {
    encodes((struct parts){.pre = SPLIT("b(?=c)|a+?", "MergedWithNext")}, "abcab", IDS(0, 5, 3));
    encodes((struct parts){.pre = SPLIT("b(?=c)|a+?", "MergedWithNext")}, "bcbcab", IDS(5, 5, 3));
    encodes((struct parts){.pre = SPLIT("b(?=c)|a+?", "MergedWithNext")}, "cabc", IDS(2, 0, 5));
    encodes((struct parts){.pre = "{\"type\":\"UnicodeScripts\"}"}, "  abc\xCE\xB1" "abc a", IDS(4, 4, 0));
    encodes((struct parts){.pre = "{\"type\":\"UnicodeScripts\"}"}, "abc1abc", IDS(4, 4));
    /* behind ByteLevel, steps see its letters */
    const struct parts bytes = {
        .pre = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
               "{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT("b", "Removed") "]}]}"};
    encodes(bytes, "abc ab", IDS(0, 2, 6, 0));
    encodes(bytes, "a bc", IDS(0, 6, 2));
    const struct parts merged = {
        .norm = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(?<=a)x|y+(?=c)\"},\"content\":\"b\"}"};
    encodes(merged, "axyyc", IDS(3, 5));
}

static void test_models(void **state UNUSED) {
    encodes((struct parts){.model = "\"type\":\"WordLevel\",\"unk_token\":\"[U]\"",
                           .vocab = "{\"abc\":0,\"ab\":1,\"[U]\":2}",
                           .pre = "{\"type\":\"Whitespace\"}"},
            "abc ab x abc", IDS(0, 1, 2, 0));
    BAD("model.unk_token", .model = "\"type\":\"WordLevel\",\"unk_token\":\"[U]\"");
    BAD("model", .model = "\"type\":\"WordLevel\"");
    encodes((struct parts){.model = "\"type\":\"BPE\",\"unk_token\":\"?\",\"continuing_subword_prefix\":\"##\","
                                    "\"end_of_word_suffix\":\"</w>\"",
                           .vocab = "{\"a\":0,\"b\":1,\"##b\":2,\"c</w>\":3,\"##c</w>\":4,\"##bc</w>\":5,\"abc</w>\":6,"
                                    "\"?\":7,\"a</w>\":8}",
                           .merges = "[\"##b ##c</w>\",\"a ##bc</w>\"]",
                           .pre = "{\"type\":\"Whitespace\"}"},
            "abc ab a abb c bc", IDS(6, 0, 7, 8, 0, 2, 7, 3, 1, 4));
}

/* decodes: the pieces of a WordLevel vocabulary, by a decoder. */
static void decodes(const char *dec, const char *vocab, size_t n, const uint32_t *ids, const char *want) {
    struct tok *t;
    struct err e;
    struct buf out = {0};
    const struct parts p = {.model = "\"type\":\"WordLevel\",\"unk_token\":\"?\"", .vocab = vocab, .dec = dec};
    if (load(&t, &p, &e))
        fail_msg("%s", e.msg);
    detok_all(t, ids, n, false, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
    tok_free(t);
}

static void test_decoders(void **state UNUSED) {
    decodes("{\"type\":\"CTC\",\"pad_token\":\"<p>\",\"word_delimiter_token\":\"|\",\"cleanup\":true}",
            "{\"?\":0,\"h\":1,\"<p>\":2,\"e\":3,\"l\":4,\"o\":5,\"|\":6,\"w\":7,\".\":8}",
            IDS(1, 1, 2, 3, 4, 4, 2, 4, 5, 6, 6, 7, 8), "hello w.");
    static const char fused[] = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\","
                                "\"content\":\"_\",\"start\":1,\"stop\":1}]}";
    static const char vocab[] = "{\"?\":0,\"__a_\":1,\"_b__\":2,\"__\":3,\"_\":4,\"a\":5,\"c_\":6,\"__a__\":7,\"_b\":8}";
    decodes(fused, vocab, IDS(1, 2, 3), "_a__b___");
    decodes(fused, vocab, IDS(4, 3), "_");
    decodes(fused, vocab, IDS(5, 4), "a");
    decodes("{\"type\":\"Strip\",\"content\":\"_\",\"start\":1,\"stop\":1}", vocab, IDS(7, 8, 6), "_a_bc");
    decodes("{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[a-c]+$\"},"
            "\"content\":\"X\"},{\"type\":\"Fuse\"}]}",
            "{\"?\":0,\"dabc\":1,\"ad\":2,\"c\":3}", IDS(1, 2, 3), "dXadX");
}

/* 200,000 added tokens load and match in reasonable time. */
static void test_many_added(void **state UNUSED) {
    struct buf added = {0}, text = {0};
    buf_addz(&added, "[");
    for (unsigned i = 0; i < 200000; i++) {
        buf_addf(&added, "%s{\"id\":%u,\"content\":\"<|%u|>\"," PLAIN "}", i ? "," : "", 8 + i, i);
        if (i % 1000 == 0)
            buf_addf(&text, "<|%u|>", i);
    }
    buf_addz(&added, "]");
    struct tok *t;
    struct err e;
    struct tok_ids ids = {0};
    assert_int_equal(load(&t, &(struct parts){.added = buf_cstr(&added)}, &e), RC_OK);
    tok_encode(t, text.data, text.len, NULL, 0, 0, &ids);
    assert_int_equal(ids.n, 200);
    for (uint32_t i = 0; i < 200; i++)
        assert_int_equal(ids.v[i], 8 + 1000 * i);
    tok_ids_fini(&ids);
    tok_free(t);
    buf_fini(&added);
    buf_fini(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_merges),  cmocka_unit_test(test_bad_vocab),
        cmocka_unit_test(test_bad_added),   cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_template),    cmocka_unit_test(test_bad_json),
        cmocka_unit_test(test_names),       cmocka_unit_test(test_model),
        cmocka_unit_test(test_added_flags), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_many_added),  cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_models),      cmocka_unit_test(test_decoders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
