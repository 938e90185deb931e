/* The tokenizer routes, the card of a model, and what model_info_new refuses (api.md 14, 15.2). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "common/json.h"
#include "tests/support/api_fixture.h"

static int setup(void **state) {
    struct api_fixture *f = xcalloc(1, sizeof *f);
    struct err e = {0};
    api_fixture_init(f);
    *state = f;
    return api_fixture_open(f, &e) ? -1 : 0;
}

static int teardown(void **state) {
    api_fixture_fini(*state);
    free(*state);
    return 0;
}

#define ROUTE enum rc (*fn)(struct gen_env *, struct str, struct buf *, struct err *)

static void expect(struct api_fixture *f, ROUTE, const char *body, const char *want) {
    struct buf out = {0};
    struct err e = {0};
    if (fn(&f->env, str_of(body), &out, &e))
        fail_msg("%s: %s (%s)", body, e.msg, e.param);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
}

static void refused(struct api_fixture *f, ROUTE, const char *body, enum rc rc, const char *param,
                    const char *says) {
    struct buf out = {0};
    struct err e = {0};
    if (fn(&f->env, str_of(body), &out, &e) != rc || strcmp(e.param, param) || !strstr(e.msg, says))
        fail_msg("%s: %s %s (param %s)", body, rc_name(e.rc), e.msg, e.param);
    assert_int_equal(out.len, 0);
    buf_fini(&out);
}

static void test_tokenize(void **state) {
    struct api_fixture *f = *state;
    expect(f, api_tokenize, "{\"prompt\":\"AB\"}",
           "{\"count\":3,\"max_model_len\":128,\"tokens\":[256,65,66],\"token_strs\":null}");
    expect(f, api_tokenize,
           "{\"model\":\"tiny\",\"prompt\":\" "
           "\\n</s>\",\"add_special_tokens\":false,\"return_token_strs\":true}",
           "{\"count\":3,\"max_model_len\":128,\"tokens\":[32,10,257],\"token_strs\":[\"\xC4\xA0\","
           "\"\xC4\x8A\",\"</s>\"]}");
    expect(f, api_tokenize, "{\"prompt\":\"\",\"add_special_tokens\":false}",
           "{\"count\":0,\"max_model_len\":128,\"tokens\":[],\"token_strs\":null}");
    expect(f, api_tokenize, "{\"prompt\":\"\",\"add_special_tokens\":false,\"return_token_strs\":true}",
           "{\"count\":0,\"max_model_len\":128,\"tokens\":[],\"token_strs\":[]}");
    refused(f, api_tokenize, "{}", RC_INVALID, "prompt", "required");
    refused(f, api_tokenize, "{\"prompt\":5}", RC_INVALID, "prompt", "string");
    refused(f, api_tokenize, "{\"prompt\":[1]}", RC_INVALID, "prompt", "string");
    refused(f, api_tokenize, "{\"prompt\":\"a\",\"messages\":[]}", RC_INVALID, "prompt", "exclude");
    refused(f, api_tokenize, "{\"prompt\":\"a\",\"model\":\"other\"}", RC_NOT_FOUND, "model",
            "does not exist");
    refused(f, api_tokenize, "{\"messages\":[]}", RC_INVALID, "messages", "at least one");
    refused(f, api_tokenize, "{\"messages\":[],\"tools\":[]}", RC_INVALID, "tools",
            "must not be empty");
    refused(f, api_tokenize, "[", RC_INVALID, "", "JSON decode error");
}

/* 10.4.4: /tokenize with messages gives the ids of a chat request. */
static void test_tokenize_agrees_with_chat(void **state) {
    struct api_fixture *f = *state;
    static const char *const bodies[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a<|im_end|>\"}]}",
        "{\"messages\":[{\"role\":\"developer\",\"content\":[\"x\",\"y\"]}],\"add_generation_prompt\":false,"
        "\"add_special_tokens\":true}",
    };
    for (size_t k = 0; k < ARRAY_LEN(bodies); k++) {
        struct gen_req *r = NULL;
        struct err e = {0};
        struct buf out = {0};
        json_t *v = NULL;
        assert_int_equal(gen_prepare(&f->env, GEN_CHAT, str_of(bodies[k]), (struct str){0}, &r, &e), RC_OK);
        assert_int_equal(api_tokenize(&f->env, str_of(bodies[k]), &out, &e), RC_OK);
        assert_int_equal(json_parse(buf_str(&out), &json_limits_default, &v, &e), RC_OK);
        json_t *tokens = json_object_get(v, "tokens");
        assert_int_equal(json_array_size(tokens), r->prompts[0].n_ids);
        assert_int_equal(json_integer_value(json_object_get(v, "count")), r->prompts[0].n_ids);
        for (size_t i = 0; i < r->prompts[0].n_ids; i++)
            assert_int_equal(json_integer_value(json_array_get(tokens, i)), r->prompts[0].ids[i]);
        json_decref(v);
        buf_fini(&out);
        gen_req_free(r);
    }
}

/* ... and so does a completion of the rendered text, whatever the tokenizer merges, while no client text
 * spells a special token: with the tiny model, whose tokenizer has merges. */
static void test_rendered_text_gives_the_ids_of_chat(void **state) {
    (void)state;
    static const char *const turns[] = {
        "Hello world, it's 12345 o'clock!",
        "  leading and trailing  ",
        "\\n\\n\\tx\\n",
        "na\xC3\xAFve \xF0\x9F\x98\x80\xF0\x9F\x98\x80",
        "",
    };
    struct api_fixture f;
    struct err e = {0};
    api_fixture_init(&f);
    f.context = 2048;
    if (api_fixture_open_tiny(&f, &e))
        fail_msg("%s", e.msg);
    for (size_t k = 0; k < ARRAY_LEN(turns); k++) {
        struct gen_req *chat = NULL, *text = NULL;
        struct buf body = {0}, rendered = {0};
        buf_addf(&body,
                 "{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
                 "brief.\"},{\"role\":\"user\",\"content\":\"%s\"}]}",
                 turns[k]);
        if (gen_prepare(&f.env, GEN_CHAT, buf_str(&body), (struct str){0}, &chat, &e))
            fail_msg("%s: %s", buf_cstr(&body), e.msg);
        detok_all(f.m->tok, chat->prompts[0].ids, chat->prompts[0].n_ids, false, &rendered);
        body.len = 0;
        buf_addz(&body, "{\"add_special_tokens\":false,\"prompt\":");
        jw_str(&body, buf_str(&rendered));
        buf_addz(&body, "}");
        if (gen_prepare(&f.env, GEN_COMPLETIONS, buf_str(&body), (struct str){0}, &text, &e))
            fail_msg("%s: %s", buf_cstr(&body), e.msg);
        assert_int_equal(text->prompts[0].n_ids, chat->prompts[0].n_ids);
        assert_memory_equal(text->prompts[0].ids, chat->prompts[0].ids,
                            text->prompts[0].n_ids * sizeof(uint32_t));
        gen_req_free(chat);
        gen_req_free(text);
        buf_fini(&body);
        buf_fini(&rendered);
    }
    api_fixture_fini(&f);
}

static void test_detokenize(void **state) {
    struct api_fixture *f = *state;
    expect(f, api_detokenize, "{\"tokens\":[256,65,\"66\",257]}", "{\"prompt\":\"<s>AB</s>\"}");
    expect(f, api_detokenize, "{\"tokens\":[]}", "{\"prompt\":\"\"}");
    expect(f, api_detokenize, "{\"tokens\":[65,271,226]}", "{\"prompt\":\"A\xEF\xBF\xBD\"}");
    refused(f, api_detokenize, "{}", RC_INVALID, "tokens", "required");
    refused(f, api_detokenize, "{\"tokens\":[272]}", RC_INVALID, "tokens.0", "out of vocabulary");
    refused(f, api_detokenize, "{\"tokens\":[-1]}", RC_INVALID, "tokens.0", "out of vocabulary");
    refused(f, api_detokenize, "{\"tokens\":[1.5]}", RC_INVALID, "tokens.0", "integer");
    refused(f, api_detokenize, "{\"tokens\":\"a\"}", RC_INVALID, "tokens", "list");
    refused(f, api_detokenize, "{\"tokens\":[],\"model\":\"x\"}", RC_NOT_FOUND, "model", "does not exist");
}

static void test_card(void **state) {
    struct api_fixture *f = *state;
    struct buf out = {0};
    f->m->created_unix_s = 7;
    api_model_card(f->m, "tiny-alias", &out);
    char *id = strstr(buf_cstr(&out), "modelperm-");
    assert_non_null(id);
    assert_int_equal(strspn(id + 10, "0123456789abcdef"), 32);
    memset(id + 10, 'x', 32);
    assert_string_equal(
        buf_cstr(&out),
        "{\"id\":\"tiny-alias\",\"object\":\"model\",\"created\":7,\"owned_by\":\"weir\",\"root\":\"/models/"
        "tiny\",\"parent\":null,"
        "\"max_model_len\":128,\"permission\":[{\"id\":\"modelperm-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\","
        "\"object\":\"model_permission\","
        "\"created\":7,\"allow_create_engine\":false,\"allow_sampling\":true,\"allow_logprobs\":true,"
        "\"allow_search_indices\":false,\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*"
        "\",\"group\":null,"
        "\"is_blocking\":false}]}");
    buf_fini(&out);
}

static void test_model_info(void **state) {
    struct api_fixture *f = *state;
    assert_true(model_info_serves(f->m, STR_LIT("tiny")));
    assert_true(model_info_serves(f->m, STR_LIT("tiny-alias")));
    assert_false(model_info_serves(f->m, STR_LIT("tin")));
    assert_false(model_info_serves(f->m, (struct str){0}));
    assert_memory_equal(f->m->fingerprint, "weir-", 5);
    size_t n = strlen(f->m->fingerprint);
    assert_int_equal(strspn(f->m->fingerprint + n - 8, "0123456789abcdef"), 8);
    assert_int_equal(f->m->fingerprint[n - 9], '-');
    model_info_drop(model_info_hold(f->m));
    assert_true(isnan(f->m->defaults.top_p));
}

static void test_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *config, *map, *generation, *kwargs, *says;
    } rows[] = {
        {"{", NULL, NULL, NULL, "tokenizer_config.json"},
        {"[]", NULL, NULL, NULL, "tokenizer_config.json"},
        {"{}", "5", NULL, NULL, "special_tokens_map.json"},
        {"{}", NULL, "{\"temperature\":\"hot\"}", NULL, "generation_config.json"},
        {"{}", NULL, NULL, "[1]", "--default-chat-template-kwargs"},
        {"{}", NULL, NULL, "{", "--default-chat-template-kwargs"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct api_fixture f;
        struct err e = {0};
        api_fixture_init(&f);
        f.tokenizer_config = str_of(rows[i].config);
        f.special_map = str_of(rows[i].map);
        f.generation = str_of(rows[i].generation);
        char kwargs[16] = "";
        if (rows[i].kwargs)
            f.opts.chat_template_kwargs = strcpy(kwargs, rows[i].kwargs);
        assert_int_not_equal(api_fixture_open(&f, &e), RC_OK);
        if (!strstr(e.msg, rows[i].says))
            fail_msg("%s", e.msg);
        assert_null(f.m);
    }
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_tokenize),
        T(test_tokenize_agrees_with_chat),
        T(test_rendered_text_gives_the_ids_of_chat),
        T(test_detokenize),
        T(test_card),
        T(test_model_info),
        T(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
