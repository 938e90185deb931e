/* fuzz_template: any text as a chat template, over a fixed chat, or over JSON when a NUL follows it.
 * What renders must be UTF-8 with ordered marks inside it, and the same text with and without marks. */
#include "common/utf8.h"
#include "router/tmpl/tmpl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { NOW_UNIX_S = 1753180200 };

static const char chat[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": "
    "\"Ünï <b>\"},"
    "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", "
    "\"arguments\": {\"x\": 1.5}}}]},"
    "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"part\"}, {\"type\": \"image\"}]}],"
    "\"tools\": [{\"function\": {\"name\": \"f\", \"items\": 3}}], \"documents\": null, \"n\": -7, \"b\": "
    "true,"
    "\"s\": \"Hello, wörld\", \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": [1, {\"c\": null}]}, \"bos_token\": "
    "\"<s>\"}";

static bool render(const struct tmpl *t, json_t *context, bool client, struct tmpl_out *out) {
    struct tmpl_var vars[32];
    size_t n_vars = 0;
    const char *name;
    json_t *value;
    json_object_foreach(context, name, value) {
        if (n_vars < ARRAY_LEN(vars))
            vars[n_vars++] = (struct tmpl_var){name, value, client};
    }
    struct arena a;
    struct err e = {0};
    arena_init(&a);
    bool ok = tmpl_render(t, vars, n_vars, NOW_UNIX_S, &a, out, &e) == RC_OK;
    CHECK(ok || *e.msg);
    arena_fini(&a);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct tmpl_limits limits = {
        .template_bytes_max = 4096, .steps_max = 20000, .output_bytes_max = 1 << 16, .depth_max = 16};
    const char *text = (const char *)data, *nul = memchr(text, 0, n);
    size_t n_text = nul ? (size_t)(nul - text) : n;
    json_t *context = NULL;
    if (nul)
        context = json_loadb(nul + 1, n - n_text - 1, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(context)) {
        json_decref(context);
        context = json_loads(chat, 0, NULL);
    }
    CHECK(context);
    struct tmpl *t;
    struct err e = {0};
    if (tmpl_compile(&t, (struct str){text, n_text}, &limits, &e) == RC_OK) {
        struct tmpl_out out = {0}, plain = {0};
        bool ok = render(t, context, true, &out);
        /* Steps spent on marks may tip the balance, so only what renders both ways is compared. */
        if (render(t, context, false, &plain) && ok) {
            CHECK(str_eq(buf_str(&out.text), buf_str(&plain.text)));
            CHECK(plain.n_marks == 0);
        }
        CHECK(utf8_valid(out.text.data, out.text.len));
        for (size_t i = 0; i < out.n_marks; i++) {
            CHECK(out.marks[i].begin < out.marks[i].end && out.marks[i].end <= out.text.len);
            CHECK(i == 0 || out.marks[i].begin > out.marks[i - 1].end);
        }
        tmpl_out_fini(&out);
        tmpl_out_fini(&plain);
        tmpl_uses_openai_content(t);
        tmpl_free(t);
    } else {
        CHECK(*e.msg);
    }
    json_decref(context);
    return 0;
}
