/* The files of a model: what a worker reads of a folder, and the tokenizer and templates that a router makes
 * of them, tokenizer.json or what stands in for it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/api_fixture.h"
#include "tests/support/tok_golden.h"
#include "worker/assets.h"

/* A folder under /tmp, its name and the names of its files. */
struct folder {
    char path[64];
    const char *names[8];
    size_t n;
};

static void folder_open(struct folder *f) {
    *f = (struct folder){.path = "/tmp/weir-files-XXXXXX"};
    assert_non_null(mkdtemp(f->path));
}

static void put(struct folder *f, const char *name, struct str text) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text.p, 1, text.n, file), text.n);
    fclose(file);
    f->names[f->n++] = name;
}

static void folder_close(struct folder *f) {
    char path[160];
    for (size_t i = 0; i < f->n; i++) {
        snprintf(path, sizeof path, "%s/%s", f->path, f->names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(f->path), 0);
}

struct assets {
    struct io_asset v[IO_ASSETS_MAX];
    size_t n;
};

static void assets_close(struct assets *a) {
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i].data);
}

static void expect_names(const struct folder *f, const char *want) {
    struct assets a = {0};
    struct err e;
    struct buf names = {0};
    if (assets_read(f->path, f->path, a.v, &a.n, &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < a.n; i++)
        buf_addf(&names, "%s=%.*s ", a.v[i].name, (int)a.v[i].n, a.v[i].data);
    assert_string_equal(buf_cstr(&names), want);
    buf_fini(&names);
    assets_close(&a);
}

static void test_choice_of_files(void **state UNUSED) {
    struct folder f;
    struct assets a = {0};
    struct err e;
    folder_open(&f);
    put(&f, "vocab.json", STR_LIT("v"));
    put(&f, "tokenizer_config.json", STR_LIT("c"));
    assert_int_equal(assets_read(f.path, f.path, a.v, &a.n, &e), RC_NOT_FOUND);
    assert_non_null(strstr(e.msg, "tokenizer.json is missing"));
    assert_non_null(strstr(e.msg, "vocab.json with merges.txt"));
    assets_close(&a);
    put(&f, "vocab.txt", STR_LIT("w"));
    expect_names(&f, "vocab.txt=w tokenizer_config.json=c ");
    put(&f, "merges.txt", STR_LIT("m"));
    expect_names(&f, "vocab.json=v merges.txt=m tokenizer_config.json=c ");
    put(&f, "spiece.model", STR_LIT("s"));
    expect_names(&f, "tokenizer.model=s tokenizer_config.json=c ");
    put(&f, "tokenizer.model", STR_LIT("t"));
    expect_names(&f, "tokenizer.model=t tokenizer_config.json=c ");
    put(&f, "tokenizer.json", STR_LIT("j"));
    put(&f, "chat_template.json", STR_LIT("p"));
    expect_names(&f, "tokenizer.json=j tokenizer_config.json=c chat_template.json=p ");
    folder_close(&f);
}

/* Beside a tokenizer that is not the model's lie its templates; the generation config is the model's. */
static void test_tokenizer_elsewhere(void **state UNUSED) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "generation_config.json"};
    struct folder model, other;
    struct assets a = {0};
    struct err e;
    folder_open(&model);
    folder_open(&other);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        put(&model, names[i], STR_LIT("model"));
        if (i != 1)
            put(&other, names[i], STR_LIT("other"));
    }
    assert_int_equal(assets_read(model.path, other.path, a.v, &a.n, &e), RC_OK);
    assert_int_equal(a.n, 3);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct io_asset *x = assets_find(a.v, a.n, names[i]);
        assert_true(i == 1 ? !x : !memcmp(x->data, i == 3 ? "model" : "other", 5));
    }
    assets_close(&a);
    folder_close(&model);
    folder_close(&other);
}

/* The router's names for assets are the worker's. */
static void test_names_agree(void **state UNUSED) {
    static const char *const worker_names[] = {"tokenizer.json",
                                               "tokenizer.model",
                                               "vocab.json",
                                               "merges.txt",
                                               "vocab.txt",
                                               "tokenizer_config.json",
                                               "special_tokens_map.json",
                                               "added_tokens.json",
                                               "chat_template.jinja",
                                               "chat_template.json",
                                               "generation_config.json",
                                               "pooling.json"};
    assert_int_equal(ARRAY_LEN(worker_names), N_MODEL_ASSET);
    for (size_t i = 0; i < N_MODEL_ASSET; i++)
        assert_string_equal(model_asset_name[i], worker_names[i]);
}

static enum rc model_of(const struct folder *f, struct model_info **m, struct err *e) {
    static const char *const names[] = {"m"};
    struct api_fixture fix;
    struct assets a = {0};
    struct str files[N_MODEL_ASSET] = {{0}};
    const struct model_facts facts = {
        .root = "m", .names = names, .n_names = 1, .max_model_len = 64, .vocab_size = 4096};
    api_fixture_init(&fix);
    enum rc rc = assets_read(f->path, f->path, a.v, &a.n, e);
    for (size_t i = 0; !rc && i < N_MODEL_ASSET; i++) {
        const struct io_asset *x = assets_find(a.v, a.n, model_asset_name[i]);
        files[i] = x ? (struct str){x->data, x->n} : (struct str){0};
    }
    if (!rc)
        rc = model_info_new(m, &facts, files, &fix.opts, e);
    assets_close(&a);
    return rc;
}

static const char *const texts[] = {
    "Hello world, it's 12345 o'clock!",
    "  leading and   several spaces  ",
    "line\n\n\ttab\r\nna\xC3\xAFve \xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87 \xEF\xAC\x81",
    "static int f(void) { return x[0] >= 2; }",
    "<s> and </s> and [SEP] and <|endoftext|>",
    "",
};

/* same_ids: the model of a folder encodes as the golden tokenizer.json does. */
static void same_ids(const struct folder *f, const char *family) {
    struct model_info *m = NULL;
    struct err e = {0};
    struct tok *want = tok_golden(family);
    if (model_of(f, &m, &e))
        fail_msg("%s: %s", family, e.msg);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct tok_ids a = {0}, b = {0};
        tok_encode(m->tok, texts[i], strlen(texts[i]), NULL, 0, TOK_ADD_SPECIAL, &a);
        tok_encode(want, texts[i], strlen(texts[i]), NULL, 0, TOK_ADD_SPECIAL, &b);
        assert_int_equal(a.n, b.n);
        if (a.n)
            assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
        tok_ids_fini(&a);
        tok_ids_fini(&b);
    }
    tok_free(want);
    model_info_drop(m);
}

static void put_golden(struct folder *f, const char *family, const char *file, const char *as) {
    char path[160];
    size_t n;
    snprintf(path, sizeof path, "tests/golden/tok/%s/%s", family, file);
    char *text = golden_file_read(path, &n);
    put(f, as, (struct str){text, n});
    free(text);
}

static void test_sentencepiece(void **state UNUSED) {
    static const struct {
        const char *family, *as;
    } rows[] = {{"llama2", "tokenizer.model"}, {"xlmr", "sentencepiece.bpe.model"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct folder f;
        folder_open(&f);
        put_golden(&f, rows[i].family, "tokenizer.model", rows[i].as);
        put_golden(&f, rows[i].family, "tokenizer_config.json", "tokenizer_config.json");
        same_ids(&f, rows[i].family);
        folder_close(&f);
    }
}

/* part: model.KEY of a golden tokenizer.json, and its added tokens as added_tokens_decoder beside what
 * tokenizer_config.json holds. */
static json_t *part(const char *family, const char *key, json_t **config) {
    char path[160];
    size_t n;
    snprintf(path, sizeof path, "tests/golden/tok/%s/tokenizer.json", family);
    char *text = golden_file_read(path, &n);
    json_t *root = json_loadb(text, n, 0, NULL), *added = json_object(), *v;
    free(text);
    snprintf(path, sizeof path, "tests/golden/tok/%s/tokenizer_config.json", family);
    text = golden_file_read(path, &n);
    *config = json_loadb(text, n, 0, NULL);
    free(text);
    assert_true(root && *config && added);
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, v) {
        char id[16];
        snprintf(id, sizeof id, "%lld", (long long)json_integer_value(json_object_get(v, "id")));
        assert_int_equal(json_object_set(added, id, v), 0);
    }
    assert_int_equal(json_object_set_new(*config, "added_tokens_decoder", added), 0);
    v = json_incref(json_object_get(json_object_get(root, "model"), key));
    json_decref(root);
    return v;
}

static void put_json(struct folder *f, const char *name, const json_t *v) {
    char *text = json_dumps(v, 0);
    put(f, name, str_of(text));
    free(text);
}

static void test_vocab_and_merges(void **state UNUSED) {
    static const struct {
        const char *family, *class;
    } rows[] = {{"gpt2", "GPT2Tokenizer"}, {"qwen2", "Qwen2Tokenizer"}};
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        struct folder f;
        struct buf lines = {0};
        json_t *config = NULL, *v, *merges = part(rows[k].family, "merges", &config);
        json_decref(config);
        json_t *vocab = part(rows[k].family, "vocab", &config);
        size_t i;
        assert_int_equal(json_object_set_new(config, "tokenizer_class", json_string(rows[k].class)), 0);
        buf_addz(&lines, "#version: 0.2\n");
        json_array_foreach(merges, i, v) {
            buf_addz(&lines,
                     json_is_string(v) ? json_string_value(v) : json_string_value(json_array_get(v, 0)));
            if (json_is_array(v))
                buf_addf(&lines, " %s", json_string_value(json_array_get(v, 1)));
            buf_addc(&lines, '\n');
        }
        folder_open(&f);
        put_json(&f, "vocab.json", vocab);
        put(&f, "merges.txt", buf_str(&lines));
        put_json(&f, "tokenizer_config.json", config);
        same_ids(&f, rows[k].family);
        folder_close(&f);
        buf_fini(&lines);
        json_decref(vocab);
        json_decref(merges);
        json_decref(config);
    }
}

static void ids_are(const struct model_info *m, const char *text, const uint32_t *want, size_t n) {
    struct tok_ids ids = {0};
    tok_encode(m->tok, text, strlen(text), NULL, 0, TOK_ADD_SPECIAL, &ids);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.v, want, n * sizeof *want);
    tok_ids_fini(&ids);
}

/* What nothing names is <|endoftext|>, as for GPT-2; OPT names </s> for all and puts it in front. */
static void test_special_tokens_beside_vocab(void **state UNUSED) {
    static const char vocab[] = "{\"a\":0,\"<\":1,\"/\":2,\"s\":3,\">\":4,\"</s>\":5,\"<|endoftext|>\":6}";
    static const struct {
        const char *config, *map;
        uint32_t ids[8];
        size_t n;
    } rows[] = {
        {"{\"tokenizer_class\":\"GPT2Tokenizer\"}", NULL, {0, 6, 1, 2, 3, 4}, 6},
        {NULL, NULL, {0, 6, 1, 2, 3, 4}, 6},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true}", NULL, {6, 0, 6, 1, 2, 3, 4}, 7},
        {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true}",
         "{\"bos_token\":{\"content\":\"</s>\"},\"eos_token\":\"</s>\"}",
         {5, 0, 6, 5},
         4},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct folder f;
        struct model_info *m = NULL;
        struct err e = {0};
        folder_open(&f);
        put(&f, "vocab.json", str_of(vocab));
        put(&f, "merges.txt", STR_LIT("#version: 0.2\n"));
        if (rows[i].config)
            put(&f, "tokenizer_config.json", str_of(rows[i].config));
        if (rows[i].map)
            put(&f, "special_tokens_map.json", str_of(rows[i].map));
        if (model_of(&f, &m, &e))
            fail_msg("%s", e.msg);
        ids_are(m, "a<|endoftext|></s>", rows[i].ids, rows[i].n);
        model_info_drop(m);
        folder_close(&f);
    }
}

static void test_vocab_txt(void **state UNUSED) {
    struct folder f;
    struct buf lines = {0};
    json_t *config = NULL, *vocab = part("bert_uncased", "vocab", &config), *v;
    const char *key, *by_id[4096] = {0};
    size_t n = json_object_size(vocab);
    assert_true(n < ARRAY_LEN(by_id));
    json_object_foreach(vocab, key, v) {
        assert_true((size_t)json_integer_value(v) < n);
        by_id[json_integer_value(v)] = key;
    }
    for (size_t i = 0; i < n; i++)
        buf_addf(&lines, "%s\n", by_id[i]);
    folder_open(&f);
    put(&f, "vocab.txt", buf_str(&lines));
    put_json(&f, "tokenizer_config.json", config);
    same_ids(&f, "bert_uncased");
    folder_close(&f);
    buf_fini(&lines);
    json_decref(vocab);
    json_decref(config);
}

static void test_broken_files_are_named(void **state UNUSED) {
    static const struct {
        const char *name, *text;
    } rows[] = {{"tokenizer.model", "\n"}, {"vocab.txt", "\xFF\n"}, {"tokenizer.json", "{"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct folder f;
        struct model_info *m = NULL;
        struct err e = {0};
        folder_open(&f);
        put(&f, rows[i].name, str_of(rows[i].text));
        assert_int_equal(model_of(&f, &m, &e), RC_INVALID);
        if (!strstr(e.msg, rows[i].name))
            fail_msg("%s", e.msg);
        folder_close(&f);
    }
}

/* chat_template.json is the processor's: it wins over the tokenizer's but knows no tools (api.md 10.1.1). */
static void test_processor_template(void **state UNUSED) {
    struct api_fixture f;
    struct err e = {0};
    api_fixture_init(&f);
    f.tokenizer_config = STR_LIT("{\"chat_template\":\"T\"}");
    f.processor_template = STR_LIT("{\"chat_template\":\"P\"}");
    assert_int_equal(api_fixture_open(&f, &e), RC_OK);
    assert_true(f.m->tools_apart && tmpl_mentions(f.m->chat.t, "P") && tmpl_mentions(f.m->chat_tools.t, "T"));
    api_fixture_fini(&f);
    f.tokenizer_config = (struct str){0};
    assert_int_equal(api_fixture_open(&f, &e), RC_OK);
    assert_true(f.m->tools_apart && tmpl_mentions(f.m->chat.t, "P") && !f.m->chat_tools.t);
    api_fixture_fini(&f);
    f.processor_template = STR_LIT("{\"chat_template\":[{\"name\":\"other\",\"template\":\"P\"}]}");
    f.template_file = STR_LIT("F");
    assert_int_equal(api_fixture_open(&f, &e), RC_OK);
    assert_true(!f.m->tools_apart && tmpl_mentions(f.m->chat.t, "F"));
    api_fixture_fini(&f);
    f.processor_template = STR_LIT("[]");
    assert_int_equal(api_fixture_open(&f, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "chat_template.json"));
    api_fixture_fini(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice_of_files),
        cmocka_unit_test(test_tokenizer_elsewhere),
        cmocka_unit_test(test_names_agree),
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_vocab_and_merges),
        cmocka_unit_test(test_vocab_txt),
        cmocka_unit_test(test_broken_files_are_named),
        cmocka_unit_test(test_special_tokens_beside_vocab),
        cmocka_unit_test(test_processor_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
