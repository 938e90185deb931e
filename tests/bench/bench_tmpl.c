/* bench_tmpl.c: microseconds to render a chat template; with --stdin, a renderer for other programs.
 *
 * --stdin reads lines {"template": text, "context": {name: value}, "client": bool} and answers each
 * with {"output": text} or {"error": message}, and with "marks": [[begin, end], ...] (bytes) if
 * client is true. A template equal to the one of the line before is not compiled again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/tmpl/tmpl.h"
#include "tests/support/bench.h"

enum { VARS_MAX = 256, NOW_UNIX_S = 1753180200 };

static size_t vars_of(const json_t *context, bool client, struct tmpl_var *vars) {
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)context, name, value) {
        if (n == VARS_MAX)
            break;
        vars[n++] = (struct tmpl_var){name, value, client};
    }
    return n;
}

static json_t *render(const struct tmpl *t, const json_t *line) {
    struct tmpl_var vars[VARS_MAX];
    bool client = json_is_true(json_object_get(line, "client"));
    size_t n = vars_of(json_object_get(line, "context"), client, vars);
    struct tmpl_out out = {0};
    struct arena a;
    struct err e;
    arena_init(&a);
    json_t *answer;
    if (tmpl_render(t, vars, n, NOW_UNIX_S, &a, &out, &e)) {
        answer = json_pack("{s:s}", "error", e.msg);
    } else {
        answer = json_pack("{s:s%}", "output", out.text.len ? out.text.data : "", out.text.len);
        json_t *marks = json_array();
        for (size_t i = 0; i < out.n_marks; i++)
            json_array_append_new(
                marks, json_pack("[I,I]", (json_int_t)out.marks[i].begin, (json_int_t)out.marks[i].end));
        json_object_set_new(answer, "marks", marks);
        tmpl_out_fini(&out);
    }
    arena_fini(&a);
    return answer;
}

static int serve(void) {
    char *text = NULL;
    size_t cap = 0;
    ssize_t n;
    json_t *source = NULL;
    struct tmpl *t = NULL;
    struct err e;
    enum rc rc = RC_OK;
    while ((n = getline(&text, &cap, stdin)) > 0) {
        json_t *line = json_loadb(text, (size_t)n, JSON_ALLOW_NUL, NULL);
        json_t *tmpl = json_object_get(line, "template");
        if (!json_is_string(tmpl)) {
            fprintf(stderr, "bench_tmpl: a line is no JSON object with a template\n");
            return 1;
        }
        if (!source || !json_equal(source, tmpl)) {
            tmpl_free(t);
            t = NULL;
            json_decref(source);
            source = json_incref(tmpl);
            rc = tmpl_compile(&t, (struct str){json_string_value(tmpl), json_string_length(tmpl)}, NULL, &e);
        }
        json_t *answer = rc ? json_pack("{s:s}", "error", e.msg) : render(t, line);
        char *reply = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
        puts(reply ? reply : "{\"error\":\"output is not UTF-8\"}");
        fflush(stdout);
        free(reply);
        json_decref(answer);
        json_decref(line);
    }
    tmpl_free(t);
    json_decref(source);
    free(text);
    return 0;
}

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    struct buf b = {0};
    size_t got;
    while ((got = fread(buf_reserve(&b, 4096), 1, 4096, f)) > 0)
        b.len += got;
    fclose(f);
    *n = b.len;
    return buf_take(&b);
}

/* A chat of n messages of a few hundred characters each. */
static json_t *chat(int n) {
    static const char words[] =
        "The quick brown fox jumps over the lazy dog while <tags> & \"quotes\" pass by. ";
    json_t *messages = json_array();
    for (int i = 0; i < n; i++) {
        struct buf b = {0};
        for (int k = 0; k < 3 + i % 3; k++)
            buf_addz(&b, words);
        json_array_append_new(messages, json_pack("{s:s,s:s}", "role",
                                                  i == 0  ? "system"
                                                  : i % 2 ? "user"
                                                          : "assistant",
                                                  "content", buf_cstr(&b)));
        buf_fini(&b);
    }
    return messages;
}

static int bench(const char *path) {
    size_t n_text;
    char *text = read_file(path, &n_text);
    struct tmpl *t;
    struct err e;
    if (!text || tmpl_compile(&t, (struct str){text, n_text}, NULL, &e)) {
        fprintf(stderr, "bench_tmpl: cannot read or compile %s\n", path);
        return 1;
    }
    json_t *messages = chat(20), *yes = json_true(), *bos = json_string("<s>");
    struct tmpl_var vars[] = {
        {"messages", messages, true}, {"add_generation_prompt", yes, false}, {"bos_token", bos, false}};
    double best = 1e9;
    for (int round = 0; round < 20; round++) {
        enum { REPEAT = 200 };
        double start = bench_cpu_s();
        for (int i = 0; i < REPEAT; i++) {
            struct arena a;
            struct tmpl_out out = {0};
            arena_init(&a);
            if (tmpl_render(t, vars, ARRAY_LEN(vars), NOW_UNIX_S, &a, &out, &e)) {
                fprintf(stderr, "bench_tmpl: %s\n", e.msg);
                return 1;
            }
            arena_fini(&a);
            tmpl_out_fini(&out);
        }
        best = MIN(best, (bench_cpu_s() - start) / REPEAT);
    }
    bench_emit("router.template_us", best * 1e6, "us", "{\"messages\":20,\"template\":\"qwen3\"}");
    json_decref(messages);
    json_decref(yes);
    json_decref(bos);
    tmpl_free(t);
    free(text);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--stdin") == 0)
        return serve();
    return bench(argc > 1 ? argv[1] : "tests/golden/tmpl/templates/qwen3.jinja");
}
