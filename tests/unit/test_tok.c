/* Tokens against Hugging Face tokenizers, on the goldens; and what a tokenizer knows. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/text/detok.h"
#include "tests/support/tok_golden.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

static uint16_t digest(const void *p, size_t n) {
    uint8_t md[SHA256_DIGEST_LENGTH];
    uint16_t v;
    SHA256(n ? p : "", n, md);
    memcpy(&v, md, sizeof v);
    return v;
}

/* decode: ids a token at a time; every piece must be whole characters, as pieces go out singly. */
static void decode(const struct tok *t, const struct tok_ids *ids, bool reverse, bool skip, struct buf *out) {
    struct detok d;
    out->len = 0;
    detok_init(&d, t, NULL, 0, skip, false);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = out->len;
        detok_push(&d, ids->v[reverse ? ids->n - 1 - i : i], out);
        if (out->len > before)
            assert_true(((uint8_t)out->data[before] & 0xC0) != 0x80);
    }
    detok_finish(&d, out);
}

/* compare: every golden string: ids, decodings a token at a time, and the digest of all ids. */
static void compare(struct tok *t, const char *family) {
    char path[160];
    size_t n;
    snprintf(path, sizeof path, "tests/golden/tok/%s/expect.bin", family);
    char *expect = golden_file_read(path, &n);
    struct golden_strings g;
    golden_strings_open(&g);
    assert_int_equal(g.n, 20000);
    assert_int_equal(n, 8 + (size_t)g.n * 4 + 64);
    assert_memory_equal(expect, "WTE2", 4);
    struct tok_ids ids = {0};
    struct buf text = {0};
    EVP_MD_CTX *all = EVP_MD_CTX_new(), *texts = EVP_MD_CTX_new();
    EVP_DigestInit_ex(all, EVP_sha256(), NULL);
    EVP_DigestInit_ex(texts, EVP_sha256(), NULL);
    while (golden_strings_next(&g)) {
        uint32_t i = g.i - 1;
        uint16_t want[2];
        memcpy(want, expect + 8 + (size_t)i * 4, sizeof want);
        ids.n = 0;
        tok_encode(t, g.text.data, g.text.len, NULL, 0, i % 2 ? TOK_ADD_SPECIAL : 0, &ids);
        EVP_DigestUpdate(all, ids.v, ids.n * sizeof *ids.v);
        if (digest(ids.v, ids.n * sizeof *ids.v) != want[0])
            fail_msg("%s: ids of string %u: \"%.80s\"", family, i, buf_cstr(&g.text));
        decode(t, &ids, i % 2 == 0, i % 4 == 1, &text);
        EVP_DigestUpdate(texts, text.data, text.len);
        if (digest(text.data, text.len) != want[1])
            fail_msg("%s: decoding of string %u: \"%.80s\"", family, i, buf_cstr(&g.text));
    }
    uint8_t md[32];
    EVP_DigestFinal_ex(all, md, NULL);
    assert_memory_equal(md, expect + n - 64, 32);
    EVP_DigestFinal_ex(texts, md, NULL);
    assert_memory_equal(md, expect + n - 32, 32);
    EVP_MD_CTX_free(all);
    EVP_MD_CTX_free(texts);
    golden_strings_close(&g);
    tok_ids_fini(&ids);
    buf_fini(&text);
    free(expect);
    tok_free(t);
}

static void test_strings(void **state) {
    compare(tok_golden(*state), *state);
}

/* ---- folders without tokenizer.json ---- */

static struct str golden_file(const char *family, const char *name) {
    char path[160];
    size_t n;
    snprintf(path, sizeof path, "tests/golden/tok/%s/%s", family, name);
    char *p = golden_file_read(path, &n);
    return (struct str){p, n};
}

static json_t *golden_json(const char *family, const char *name) {
    struct str file = golden_file(family, name);
    json_t *v = json_loadb(file.p, file.n, 0, NULL);
    assert_non_null(v);
    free((void *)(uintptr_t)file.p);
    return v;
}

/* config_of: tokenizer_config.json with the added tokens, as Hugging Face writes it beside such files. */
static struct str config_of(const char *family, const json_t *root) {
    json_t *config = golden_json(family, "tokenizer_config.json"), *list = json_object(), *v;
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, v) {
        char id[24];
        snprintf(id, sizeof id, "%lld", (long long)json_integer_value(json_object_get(v, "id")));
        json_object_set(list, id, v);
    }
    json_object_set_new(config, "added_tokens_decoder", list);
    char *text = json_dumps(config, 0);
    json_decref(config);
    return str_of(text);
}

static void lines_of(const json_t *root, struct buf *merges, struct buf *vocab) {
    json_t *model = json_object_get(root, "model"), *v;
    size_t i, n = json_object_size(json_object_get(model, "vocab"));
    const char **tokens = xcalloc(n, sizeof *tokens), *key;
    json_array_foreach(json_object_get(model, "merges"), i, v) buf_addf(
        merges, "%s %s\n", json_string_value(json_array_get(v, 0)), json_string_value(json_array_get(v, 1)));
    json_object_foreach(json_object_get(model, "vocab"), key, v) {
        assert_in_range(json_integer_value(v), 0, n - 1);
        tokens[json_integer_value(v)] = key;
    }
    for (i = 0; i < n; i++)
        buf_addf(vocab, "%s\n", tokens[i]);
    free(tokens);
}

/* test_fallback: the files that other folders have give the same tokenizer. */
static void test_fallback(void **state) {
    const char *family = *state;
    json_t *root = golden_json(family, "tokenizer.json");
    struct str config = config_of(family, root), model = {0};
    struct buf merges = {0}, vocab = {0};
    char *vocab_json = NULL;
    struct tok_files files = {.tokenizer_config_json = config};
    if (strcmp(family, "llama2") == 0 || strcmp(family, "xlmr") == 0) {
        files.tokenizer_model = model = golden_file(family, "tokenizer.model");
    } else {
        buf_addz(&merges, "#version: 0.2\n");
        lines_of(root, &merges, &vocab);
        vocab_json = json_dumps(json_object_get(json_object_get(root, "model"), "vocab"), 0);
        if (strcmp(family, "bert_uncased") == 0)
            files.vocab_txt = buf_str(&vocab);
        else
            files.vocab_json = str_of(vocab_json);
        files.merges_txt = buf_str(&merges);
    }
    struct tok *t;
    struct err e;
    if (tok_load(&t, &files, &e))
        fail_msg("%s: %s", family, e.msg);
    compare(t, family);
    free((void *)(uintptr_t)config.p);
    free((void *)(uintptr_t)model.p);
    free(vocab_json);
    buf_fini(&merges);
    buf_fini(&vocab);
    json_decref(root);
}

/* test_pairs: the pair template over strings 2 i and 2 i + 1: ids and token types. */
static void test_pairs(void **state) {
    struct tok *t = tok_golden(*state);
    char path[160];
    size_t n;
    snprintf(path, sizeof path, "tests/golden/tok/%s/pairs.bin", (const char *)*state);
    char *expect = golden_file_read(path, &n);
    struct golden_strings g;
    golden_strings_open(&g);
    assert_int_equal(n, 8 + 2000 * 2);
    assert_memory_equal(expect, "WTP1", 4);
    struct tok_ids a = {0}, b = {0}, out = {0}, types = {0};
    for (uint32_t i = 0; i < 2000; i++) {
        uint16_t want;
        memcpy(&want, expect + 8 + (size_t)i * 2, sizeof want);
        a.n = b.n = out.n = types.n = 0;
        golden_strings_next(&g);
        tok_encode(t, g.text.data, g.text.len, NULL, 0, 0, &a);
        golden_strings_next(&g);
        tok_encode(t, g.text.data, g.text.len, NULL, 0, 0, &b);
        tok_wrap_pair(t, (struct tok_text_ids){a.v, a.n}, (struct tok_text_ids){b.v, b.n}, &out, &types);
        assert_int_equal(out.n, a.n + b.n + tok_n_special_pair(t));
        assert_int_equal(types.n, out.n);
        for (size_t k = 0; k < types.n; k++)
            tok_ids_push(&out, types.v[k]);
        if (digest(out.v, out.n * sizeof *out.v) != want)
            fail_msg("%s: pair %u", (const char *)*state, i);
        /* the template for one text adds what TOK_ADD_SPECIAL does */
        out.n = types.n = a.n = 0;
        tok_wrap(t, (struct tok_text_ids){b.v, b.n}, &out, &types);
        tok_encode(t, g.text.data, g.text.len, NULL, 0, TOK_ADD_SPECIAL, &a);
        assert_int_equal(out.n, types.n);
        assert_int_equal(out.n, a.n);
        assert_memory_equal(out.v, a.v, a.n * sizeof *a.v);
    }
    golden_strings_close(&g);
    tok_ids_fini(&a);
    tok_ids_fini(&b);
    tok_ids_fini(&out);
    tok_ids_fini(&types);
    free(expect);
    tok_free(t);
}

static uint32_t find(const struct tok *t, const char *s) {
    uint32_t id;
    if (!tok_find(t, str_of(s), &id))
        fail_msg("no token \"%s\"", s);
    return id;
}

static void test_knows(void **state UNUSED) {
    struct tok *t = tok_golden("llama3");
    uint32_t bos, eos, id, space_the = find(t, "\xC4\xA0the");
    size_t n_front, n_back;
    assert_true(tok_bos(t, &bos));
    assert_true(tok_eos(t, &eos));
    assert_int_equal(bos, find(t, "<|begin_of_text|>"));
    assert_int_equal(eos, find(t, "<|eot_id|>")); /* an object with content in the file */
    tok_n_special(t, &n_front, &n_back);
    assert_int_equal(n_front, 1);
    assert_int_equal(n_back, 0);
    assert_true(tok_is_special(t, bos) && tok_is_added(t, bos));
    assert_false(tok_is_special(t, space_the) || tok_is_added(t, space_the));
    assert_true(str_eqz(tok_piece(t, space_the), "\xC4\xA0the"));
    assert_true(str_eqz(tok_bytes(t, space_the), " the"));
    assert_true(str_eqz(tok_bytes(t, eos), "<|eot_id|>"));
    assert_int_equal(tok_vocab_size(t), find(t, "<|python_tag|>") + 1);
    assert_int_equal(tok_bytes(t, tok_vocab_size(t)).n, 0);
    assert_int_equal(tok_piece(t, UINT32_MAX).n, 0);
    assert_false(tok_is_special(t, tok_vocab_size(t)) || tok_is_added(t, UINT32_MAX));
    assert_false(tok_find(t, STR_LIT("no such token"), &id) || tok_find(t, STR_LIT(""), &id));
    tok_free(t);
    t = tok_golden("qwen2");
    assert_false(tok_bos(t, &bos)); /* null in the file */
    assert_true(tok_eos(t, &eos) && eos == find(t, "<|im_end|>"));
    tok_n_special(t, &n_front, &n_back);
    assert_int_equal(n_front + n_back, 0);
    assert_true(tok_is_added(t, find(t, "<think>")));
    assert_false(tok_is_special(t, find(t, "<think>")));
    tok_free(t);
}

/* All 256 bytes have a token of one byte, through the byte-level alphabet. */
static void test_bytes(void **state UNUSED) {
    struct tok *t = tok_golden("gpt2");
    bool seen[256] = {false};
    for (uint32_t id = 0; id < tok_vocab_size(t); id++) {
        struct str b = tok_bytes(t, id);
        if (b.n == 1)
            seen[(uint8_t)*b.p] = true;
    }
    for (int b = 0; b < 256; b++)
        assert_true(seen[b]);
    tok_free(t);
}

/* invalid bytes are read as U+FFFD, by the maximal subpart. */
static void test_invalid_utf8(void **state UNUSED) {
    struct tok *t = tok_golden("llama3");
    static const struct {
        const char *bad, *good;
    } cases[] = {
        {"a\xFFz", "a\xEF\xBF\xBDz"},
        {"\xE2\x82", "\xEF\xBF\xBD"},
        {"\xE2\x82z", "\xEF\xBF\xBDz"},
        {"\xF0\x9F\x98", "\xEF\xBF\xBD"},
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"12345678\x80 the", "12345678\xEF\xBF\xBD the"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tok_ids a = {0}, b = {0};
        tok_encode(t, cases[i].bad, strlen(cases[i].bad), NULL, 0, 0, &a);
        tok_encode(t, cases[i].good, strlen(cases[i].good), NULL, 0, 0, &b);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
        tok_ids_fini(&a);
        tok_ids_fini(&b);
    }
    tok_free(t);
}

#define STRINGS(family)                                                                                      \
    { "strings_" family, test_strings, NULL, NULL, (void *)(uintptr_t)family }
#define FALLBACK(family)                                                                                     \
    { "fallback_" family, test_fallback, NULL, NULL, (void *)(uintptr_t)family }
#define PAIRS(family)                                                                                        \
    { "pairs_" family, test_pairs, NULL, NULL, (void *)(uintptr_t)family }

int main(void) {
    const struct CMUnitTest tests[] = {
        STRINGS("gpt2"),
        STRINGS("llama3"),
        STRINGS("qwen2"),
        STRINGS("bert_uncased"),
        PAIRS("bert_uncased"),
        STRINGS("bert_cased"),
        PAIRS("bert_cased"),
        STRINGS("xlmr"),
        PAIRS("xlmr"),
        STRINGS("t5"),
        PAIRS("t5"),
        STRINGS("llama2"),
        PAIRS("llama2"),
        STRINGS("mistral"),
        PAIRS("mistral"),
        STRINGS("gemma"),
        PAIRS("gemma"),
        FALLBACK("llama2"),
        FALLBACK("xlmr"),
        FALLBACK("gpt2"),
        FALLBACK("bert_uncased"),
        cmocka_unit_test(test_knows),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_invalid_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
