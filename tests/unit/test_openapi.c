/* /openapi.json against the tables it is made from. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "common/json.h"
#include "router/api/fields.h"
#include "router/api/openapi.h"
#include "router/route.h"
#include "tests/support/api_fixture.h"

static json_t *document(const struct router_opts *o) {
    struct buf b = {0};
    json_error_t why;
    api_openapi(o, &b);
    json_t *doc = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES, &why);
    if (!doc)
        fail_msg("%s at byte %d: %.*s", why.text, why.position, 80,
                 b.data + (why.position > 40 ? why.position - 40 : 0));
    buf_fini(&b);
    return doc;
}

static const json_t *at(const json_t *v, const char *path) {
    char key[128];
    while (*path && v) {
        size_t n = strcspn(path, " ");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        v = json_object_get(v, key);
        path += n + (path[n] == ' ');
    }
    return v;
}

static const char *text(const json_t *v, const char *path) {
    const char *s = json_string_value(at(v, path));
    return s ? s : "";
}

struct fixture {
    struct api_fixture f;
    json_t *doc;
};

static int set_up(void **state) {
    struct fixture *x = calloc(1, sizeof *x);
    api_fixture_init(&x->f);
    x->f.opts.tokenizer_info = x->f.opts.admin_api = true; /* so that every route is mounted */
    x->doc = document(&x->f.opts);
    *state = x;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *x = *state;
    json_decref(x->doc);
    free(x);
    return 0;
}

/* Every route that is built is in the document with its methods, and no other. */
static void test_routes(void **state) {
    struct fixture *x = *state;
    const json_t *paths = json_object_get(x->doc, "paths");
    size_t n = 0;
    assert_string_equal(text(x->doc, "openapi"), "3.1.0");
    for (size_t i = 0; i < n_routes; i++) {
        const json_t *path = json_object_get(paths, routes[i].label);
        if (routes[i].id == ROUTE_NOT_BUILT) {
            assert_null(path);
            continue;
        }
        if (!path)
            fail_msg("%s is not in the document", routes[i].label);
        assert_int_equal(json_object_get(path, "get") != NULL, (routes[i].methods & METHOD_GET) != 0);
        assert_int_equal(json_object_get(path, "post") != NULL, (routes[i].methods & METHOD_POST) != 0);
        assert_int_equal(json_object_size(path), __builtin_popcount(routes[i].methods));
        assert_int_equal(at(path, "post requestBody") != NULL, routes[i].flags & ROUTE_JSON || routes[i].id == ROUTE_ABORT);
        n++;
    }
    assert_int_equal(json_object_size(paths), n);
    /* Routes that the flags leave out are in no document. */
    x->f.opts.tokenizer_info = x->f.opts.admin_api = false;
    x->f.opts.no_docs = x->f.opts.no_playground = true;
    json_t *less = document(&x->f.opts);
    for (size_t i = 0; i < n_routes; i++)
        if (!route_mounted(&routes[i], &x->f.opts))
            assert_null(json_object_get(json_object_get(less, "paths"), routes[i].label));
    assert_in_range(json_object_size(json_object_get(less, "paths")), 1, n - 2);
    json_decref(less);
}

static const json_t *properties(const json_t *doc, unsigned on) {
    static const struct {
        unsigned on;
        const char *path;
    } of[] = {
        {ON_COMPLETIONS, "/v1/completions"}, {ON_CHAT, "/v1/chat/completions"}, {ON_TOKENIZE, "/tokenize"},
        {ON_DETOKENIZE, "/detokenize"},      {ON_EMBEDDINGS, "/v1/embeddings"}, {ON_POOLING, "/pooling"},
        {ON_CLASSIFY, "/classify"},          {ON_SCORE, "/v1/score"},           {ON_RERANK, "/v2/rerank"}};
    char path[160];
    for (size_t i = 0; i < ARRAY_LEN(of); i++) {
        if (of[i].on != on)
            continue;
        snprintf(path, sizeof path, "paths %s post requestBody content application/json schema", of[i].path);
        return at(doc, path);
    }
    return NULL;
}

static bool lists(const json_t *list, const char *word) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_string_value(json_array_get(list, i)) &&
            !strcmp(json_string_value(json_array_get(list, i)), word))
            return true;
    return false;
}

/* Every field of the table is a property of its routes' bodies with its default, and there is no other. */
static void test_fields(void **state) {
    struct fixture *x = *state;
    for (unsigned on = ON_COMPLETIONS; on <= ON_RERANK; on *= 2) {
        const json_t *schema = properties(x->doc, on), *all = json_object_get(schema, "properties");
        size_t n = 0;
        assert_non_null(all);
        for (size_t i = 0; i < n_api_fields; i++) {
            const struct field *f = &api_fields[i];
            if (!(f->on & on))
                continue;
            const json_t *p = json_object_get(all, f->name);
            if (!p)
                fail_msg("%s is not in the document", f->name);
            n++;
            assert_true(strlen(text(p, "description")) > 3);
            assert_int_equal(lists(json_object_get(schema, "required"), f->name), f->required);
            json_t *dflt = f->required ? NULL : json_loads(f->dflt, JSON_DECODE_ANY, NULL);
            assert_true(dflt ? json_equal(dflt, json_object_get(p, "default"))
                             : !json_object_get(p, "default"));
            json_decref(dflt);
        }
        assert_int_equal(json_object_size(all), n);
    }
}

/* refs: every $ref of v points to something; those of schemas are noted in *used. */
static void refs(const json_t *doc, json_t *v, json_t *used) {
    const char *to = json_string_value(json_object_get(v, "$ref"));
    if (to) {
        char path[128];
        assert_memory_equal(to, "#/", 2);
        snprintf(path, sizeof path, "%s", to + 2);
        for (char *p = path; *p; p++)
            *p = *p == '/' ? ' ' : *p;
        if (!at(doc, path))
            fail_msg("%s points nowhere", to);
        json_object_set_new(used, strrchr(to, '/') + 1, json_true());
    }
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        refs(doc, json_array_get(v, i), used);
    for (void *it = json_object_iter(v); it; it = json_object_iter_next(v, it))
        refs(doc, json_object_iter_value(it), used);
}

static void test_references(void **state) {
    struct fixture *x = *state;
    json_t *used = json_object();
    refs(x->doc, x->doc, used);
    for (size_t i = 0; i < n_openapi_parts + n_openapi_answers; i++) {
        const char *name =
            i < n_openapi_parts ? openapi_parts[i].name : openapi_answers[i - n_openapi_parts].name;
        if (!json_object_get(used, name))
            fail_msg("%s is used nowhere", name);
    }
    json_decref(used);
}

/* A value of each kind of row, in full. */
static void test_some_schemas(void **state) {
    struct fixture *x = *state;
    static const struct {
        unsigned on;
        const char *field, *says;
    } rows[] = {
        {ON_CHAT, "n",
         "{\"description\":\"choices returned per prompt (bounded by "
         "--max-n)\",\"type\":[\"integer\",\"string\","
         "\"boolean\",\"null\"],\"pattern\":\"" OPENAPI_NUMBER_PATTERN
         "\",\"format\":\"int64\",\"minimum\":1,"
         "\"maximum\":128,\"default\":1}"},
        {ON_COMPLETIONS, "top_p",
         "{\"description\":\"nucleus; null: the model's, else "
         "1\",\"type\":[\"number\",\"string\",\"boolean\","
         "\"null\"],\"pattern\":\"" OPENAPI_NUMBER_PATTERN
         "\",\"exclusiveMinimum\":0,\"maximum\":1,\"default\":null}"},
        {ON_CHAT, "ignore_eos",
         "{\"description\":\"the end token does not end the "
         "sequence\",\"type\":[\"boolean\",\"integer\",\"string\","
         "\"null\"],\"minimum\":0,\"maximum\":1,\"pattern\":\"" OPENAPI_BOOL_PATTERN "\",\"default\":false}"},
        {ON_SCORE, "truncation_side",
         "{\"description\":\"where tokens are cut "
         "off\",\"type\":[\"string\",\"null\"],\"enum\":[\"left\",\"right\","
         "null],\"default\":\"right\"}"},
        {ON_CHAT, "messages",
         "{\"description\":\"the conversation (bounded by "
         "--max-messages)\",\"type\":[\"array\"],\"items\":{\"$ref\":"
         "\"#/components/schemas/Message\"},\"maxItems\":8192,\"minItems\":1}"},
        {ON_DETOKENIZE, "tokens",
         "{\"description\":\"token ids\",\"type\":[\"array\"],\"items\":{\"type\":[\"integer\",\"string\","
         "\"boolean\"],\"pattern\":\"" OPENAPI_NUMBER_PATTERN "\",\"format\":\"int64\"}}"},
        {ON_COMPLETIONS, "logit_bias",
         "{\"description\":\"token id to a value added to its logit, clamped to 100 either way (bounded by "
         "--max-logit-bias)\",\"anyOf\":[{\"$ref\":\"#/components/schemas/LogitBias\"},{\"type\":\"null\"}],"
         "\"additionalProperties\":{\"type\":[\"number\",\"string\",\"boolean\"],\"pattern\":"
         "\"" OPENAPI_NUMBER_PATTERN "\"},\"maxProperties\":4096,\"default\":null}"},
        {ON_COMPLETIONS, "prompt",
         "{\"description\":\"text, texts, token ids or lists of token ids\",\"anyOf\":[{\"$ref\":"
         "\"#/components/schemas/Prompt\"}]}"},
        {ON_COMPLETIONS, "suffix",
         "{\"description\":\"suffix is not currently "
         "supported\",\"x-weir-refused\":true,\"type\":\"null\",\"default\":null}"},
        {ON_CHAT, "modalities",
         "{\"description\":\"audio output is not supported in this "
         "build\",\"x-weir-refused\":true,\"enum\":[null,[\"text\"]],\"default\":"
         "[\"text\"]}"},
        {ON_CHAT, "user", "{\"description\":\"no effect\",\"default\":null}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const json_t *p =
            json_object_get(json_object_get(properties(x->doc, rows[i].on), "properties"), rows[i].field);
        char *s = json_dumps(p, JSON_COMPACT | JSON_ENCODE_ANY);
        assert_string_equal(s, rows[i].says);
        free(s);
    }
}

/* What flags say is in the document. */
static void test_flags(void **state) {
    struct fixture *x = *state;
    x->f.opts.limit.n = 7;
    x->f.opts.limit.logprobs = -1;
    json_t *doc = document(&x->f.opts);
    const json_t *p = json_object_get(properties(doc, ON_COMPLETIONS), "properties");
    assert_int_equal(json_integer_value(at(p, "n maximum")), 7);
    assert_int_equal(json_integer_value(at(p, "logprobs minimum")), -1);
    assert_null(at(p, "logprobs maximum"));
    json_decref(doc);
}

static void security(const struct router_opts *o, const char *whole, const char *servers, bool metrics_open) {
    json_t *doc = document(o);
    char *s = json_dumps(json_object_get(doc, "security"), JSON_COMPACT);
    assert_string_equal(s, whole);
    free(s);
    s = json_dumps(json_object_get(doc, "servers"), JSON_COMPACT);
    assert_string_equal(s, servers);
    free(s);
    const json_t *open = at(doc, "paths /health get"), *metrics = at(doc, "paths /metrics get");
    assert_non_null(json_object_get(open, "security"));
    assert_null(at(open, "responses 401"));
    assert_int_equal(json_object_get(metrics, "security") != NULL, metrics_open);
    assert_int_equal(at(metrics, "responses 401") == NULL, metrics_open);
    assert_null(at(doc, "paths /v1/models get security"));
    assert_non_null(at(doc, "paths /v1/models get responses 401"));
    json_decref(doc);
}

/* Keys and --root-path. */
static void test_keys_and_root(void **state) {
    struct fixture *x = *state;
    char *keys[] = {"k"};
    security(&x->f.opts, "[{\"key\":[]},{}]", "[{\"url\":\"/\"}]", true);
    x->f.opts.api_keys = (struct conf_list){.v = keys, .n = 1};
    x->f.opts.metrics_auth = true;
    x->f.opts.root_path = "a/b\"/";
    security(&x->f.opts, "[{\"key\":[]}]", "[{\"url\":\"/a/b\\\"\"},{\"url\":\"/\"}]", false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_routes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fields, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_references, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_some_schemas, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_flags, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keys_and_root, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
