/* Special tokens that a client spells: plain text in whatever goes into a template and in the texts of the pooling
 * family, tokens in the prompts of completions and /tokenize (api.md 10.4.3, 10.4.4, 14.4), on every route. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/support/api_fixture.h"

static uint32_t count(struct api_fixture *f, enum gen_route route, const char *body, uint32_t id) {
    struct gen_req *r = NULL;
    struct err e = {0};
    uint32_t n = 0;
    if (gen_prepare(&f->env, route, str_of(body), (struct str){0}, &r, &e))
        fail_msg("%s: %s", body, e.msg);
    for (uint32_t i = 0; i < r->n_prompts; i++)
        for (uint32_t k = 0; k < r->prompts[i].n_ids; k++)
            n += r->prompts[i].ids[k] == id;
    gen_req_free(r);
    return n;
}

/* row: how many end tokens a body has that spells one; by default, and with --special-tokens-in-content special. */
struct row {
    enum gen_route route;
    const char *body;
    uint32_t text, special;
};

static void check(struct api_fixture *f, const struct row *rows, size_t n) {
    static const char *const flags[] = {NULL, "text", "special"};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < ARRAY_LEN(flags); k++) {
            f->opts.special_tokens_in_content = (char *)(uintptr_t)flags[k];
            uint32_t got = count(f, rows[i].route, rows[i].body, FIX_EOS), want = k == 2 ? rows[i].special : rows[i].text;
            if (got != want)
                fail_msg("%s, %s: %u end tokens, not %u", flags[k] ? flags[k] : "-", rows[i].body, got, want);
        }
}

static void open(struct api_fixture *f, const char *pooling) {
    struct err e = {0};
    api_fixture_init(f);
    if (pooling)
        f->pooling = str_of(pooling);
    if (api_fixture_open(f, &e))
        fail_msg("%s", e.msg);
}

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"a</s>b\"}]"

static void test_generation(void **state) {
    (void)state;
    static const struct row rows[] = {
        {GEN_COMPLETIONS, "{\"prompt\":\"a</s>b\"}", 1, 1},
        {GEN_COMPLETIONS, "{\"prompt\":[\"a</s>b\",\"</s>\"]}", 2, 2},
        {GEN_COMPLETIONS, "{\"prompt\":\"a</s>b\",\"truncate_prompt_tokens\":3,\"max_tokens\":1}", 1, 1},
        {GEN_CHAT, "{" MESSAGES "}", 0, 1},
    };
    struct api_fixture f;
    open(&f, NULL);
    check(&f, rows, ARRAY_LEN(rows));
    api_fixture_fini(&f);
}

/* tokens: whether the answer of /tokenize holds the end token. */
static void tokens(struct api_fixture *f, const char *body, bool has) {
    struct buf out = {0};
    struct err e = {0};
    if (api_tokenize(&f->env, str_of(body), &out, &e))
        fail_msg("%s: %s", body, e.msg);
    if ((strstr(buf_cstr(&out), ",257") != NULL) != has)
        fail_msg("%s: %s", body, buf_cstr(&out));
    buf_fini(&out);
}

static void test_tokenize(void **state) {
    (void)state;
    struct api_fixture f;
    assert_int_equal(FIX_EOS, 257);
    open(&f, NULL);
    tokens(&f, "{\"prompt\":\"a</s>b\"}", true);
    tokens(&f, "{" MESSAGES "}", false);
    f.opts.special_tokens_in_content = (char[]){"special"};
    tokens(&f, "{" MESSAGES "}", true);
    api_fixture_fini(&f);
}

static void test_embeddings(void **state) {
    (void)state;
    static const struct row rows[] = {
        {GEN_EMBEDDINGS, "{\"input\":\"a</s>b\"}", 0, 1},
        {GEN_EMBEDDINGS, "{\"input\":[\"a</s>\",\"</s>\"],\"add_special_tokens\":false}", 0, 2},
        {GEN_EMBEDDINGS, "{\"input\":\"a</s>b\",\"truncate_prompt_tokens\":3}", 0, 1},
        {GEN_EMBEDDINGS, "{\"input\":[97,257]}", 1, 1}, /* ids are ids */
        {GEN_EMBEDDINGS, "{" MESSAGES "}", 0, 1},
        {GEN_POOLING, "{\"input\":\"a</s>b\"}", 0, 1},
        {GEN_SCORE, "{\"text_1\":\"a</s>b\",\"text_2\":[\"</s>\",{\"content\":[{\"type\":\"text\",\"text\":\"</s>\"}]}]}", 0, 3},
        {GEN_RERANK, "{\"query\":\"</s>\",\"documents\":[\"a</s>b\",{\"text\":\"</s>\"}]}", 0, 3},
    };
    struct api_fixture f;
    open(&f, "{\"task\":\"embed\",\"dimensions\":8,\"hidden\":8,\"n_labels\":0}");
    check(&f, rows, ARRAY_LEN(rows));
    f.opts.special_tokens_in_content = NULL;
    assert_int_equal(count(&f, GEN_EMBEDDINGS, "{\"input\":\"<think>a</think>\"}", FIX_THINK), 1); /* not special */
    assert_int_equal(count(&f, GEN_EMBEDDINGS, "{\"input\":\"<s>a\"}", FIX_BOS), 1); /* the tokenizer's own */
    api_fixture_fini(&f);
    /* what the model puts before every text is its own */
    open(&f, "{\"task\":\"embed\",\"dimensions\":8,\"hidden\":8,\"n_labels\":0,\"prompt\":\"q</s>\",\"lower_case\":true}");
    static const struct row prompted[] = {{GEN_EMBEDDINGS, "{\"input\":\"A</S></s>\"}", 1, 3}};
    check(&f, prompted, 1);
    api_fixture_fini(&f);
}

static void test_labels(void **state) {
    (void)state;
    static const struct row rows[] = {
        {GEN_CLASSIFY, "{\"input\":[\"a</s>b\"]}", 0, 1},
        {GEN_CLASSIFY, "{" MESSAGES "}", 0, 1},
        {GEN_POOLING, "{\"input\":\"a</s>b\"}", 0, 1},
    };
    static const struct row pairs[] = {
        {GEN_SCORE, "{\"text_1\":\"a</s>b\",\"text_2\":\"</s>\"}", 0, 2},
        {GEN_RERANK, "{\"query\":\"</s>\",\"documents\":[\"a</s>b\"],\"max_tokens_per_doc\":9}", 0, 2},
    };
    struct api_fixture f;
    open(&f, "{\"task\":\"classify\",\"dimensions\":8,\"hidden\":8,\"n_labels\":3}");
    check(&f, rows, ARRAY_LEN(rows));
    api_fixture_fini(&f);
    open(&f, "{\"task\":\"score\",\"dimensions\":8,\"hidden\":8,\"n_labels\":1,\"cross_encoder\":true}");
    check(&f, pairs, ARRAY_LEN(pairs));
    api_fixture_fini(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
