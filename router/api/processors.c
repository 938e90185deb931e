/* logits_processors and vllm_xargs (api.md 5.4, 8.10): names that the operator allows, and what they are handed. */
#include "router/api/processors.h"

#include <stdio.h>

#include "common/gram/front.h"
#include "common/gram/gram.h"

enum { ITEMS_MAX = 16, NAME_BYTES_MAX = 256, XARGS_MAX = 64 };

enum rc processor_names_new(struct gram **out, const char *pattern, struct err *e) {
    struct err why = {0};
    *out = NULL;
    if (!pattern)
        return RC_OK;
    enum rc rc = gram_compile(out, GRAM_REGEX, str_of(pattern), (struct str){0}, NULL, &why);
    return rc ? err_set(e, RC_INVALID, "logits-processor-pattern", "--logits-processor-pattern: %s", why.msg)
              : RC_OK;
}

/* allowed: the pattern matches the whole name. */
static bool allowed(struct gram *names, struct str name) {
    struct err e;
    struct gram_run *run = gram_run_new(names, NULL);
    bool good = gram_run_bytes(run, name, NULL, &e) == RC_OK && gram_run_may_end(run);
    gram_run_free(run);
    return good;
}

static enum rc check_name(struct gram *names, const json_t *v, const char *param, struct err *e) {
    struct str name = {json_string_value(v), json_string_length(v)};
    if (!name.p)
        return err_set(e, RC_INVALID, param, "%s must name a logits processor by a string, not %s", param,
                       v ? json_kind(v) : "nothing");
    struct str shown = api_quote(name);
    if (name.n > NAME_BYTES_MAX || memchr(name.p, 0, name.n) || !allowed(names, name))
        return err_set(e, RC_INVALID, param,
                       "%s: the logits processor \"%.*s\" is not allowed by --logits-processor-pattern", param,
                       (int)shown.n, shown.p);
    return RC_OK;
}

/* text_of: v as JSON in the arena; NULL for none. */
static char *text_of(const json_t *v, struct arena *a) {
    struct buf b = {0};
    if (!v || json_is_null(v))
        return NULL;
    jw_json(&b, v);
    char *text = arena_strndup(a, b.data, b.len);
    buf_fini(&b);
    return text;
}

static enum rc read_item(struct gram *names, json_t *v, const char *param, struct arena *a,
                         Weir__Processor *out, struct err *e) {
    const json_t *name = v, *args = NULL, *kwargs = NULL;
    char inner[64];
    snprintf(inner, sizeof inner, "%s", param);
    if (json_is_object(v)) {
        for (void *it = json_object_iter(v); it; it = json_object_iter_next(v, it)) {
            const char *key = json_object_iter_key(it);
            if (strcmp(key, "qualname") && strcmp(key, "args") && strcmp(key, "kwargs"))
                return err_set(e, RC_INVALID, param, "%s has qualname, args and kwargs and no other members", param);
        }
        snprintf(inner, sizeof inner, "%s.qualname", param);
        name = json_object_get(v, "qualname");
        enum rc rc = json_get_list(v, param, "args", &args, NULL, e);
        if (!rc)
            rc = json_get_object(v, param, "kwargs", &kwargs, NULL, e);
        if (rc)
            return rc;
    }
    enum rc rc = check_name(names, name, inner, e);
    if (rc)
        return rc;
    weir__processor__init(out);
    out->name = arena_strndup(a, json_string_value(name), json_string_length(name));
    out->args_json = text_of(args, a);
    out->kwargs_json = text_of(kwargs, a);
    return RC_OK;
}

/* check_xargs: strings, numbers, and lists of these. */
static enum rc check_xargs(json_t *xargs, struct err *e) {
    if (json_object_size(xargs) > XARGS_MAX)
        return err_set(e, RC_INVALID, "vllm_xargs", "vllm_xargs: %zu members given, must be less_than_equal %d",
                       json_object_size(xargs), XARGS_MAX);
    for (void *it = xargs ? json_object_iter(xargs) : NULL; it; it = json_object_iter_next(xargs, it)) {
        const json_t *v = json_object_iter_value(it);
        bool good = json_is_string(v) || json_is_number(v) || json_is_array(v);
        for (size_t i = 0; good && i < json_array_size(v); i++)
            good = json_is_string(json_array_get(v, i)) || json_is_number(json_array_get(v, i));
        if (good)
            continue;
        struct str key = api_quote((struct str){json_object_iter_key(it), json_object_iter_key_len(it)});
        char param[240];
        snprintf(param, sizeof param, "vllm_xargs.%.*s", (int)key.n, key.p);
        return err_set(e, RC_INVALID, param, "%s must be a string, a number, or a list of these", param);
    }
    return RC_OK;
}

enum rc processors_read(const struct field_values *v, struct gram *names, struct gen_req *r, struct err *e) {
    size_t n = json_array_size(v->logits_processors);
    enum rc rc = check_xargs(v->vllm_xargs, e);
    if (rc || n == 0)
        return rc;
    if (!names)
        return err_set(e, RC_INVALID, "logits_processors",
                       "logits_processors need a server with --logits-processor-pattern");
    if (n > ITEMS_MAX)
        return err_set(e, RC_INVALID, "logits_processors",
                       "logits_processors: %zu given, must be less_than_equal %d", n, ITEMS_MAX);
    r->s.processors = arena_zalloc(&r->arena, n, sizeof(Weir__Processor *));
    for (size_t i = 0; i < n && !rc; i++) {
        char param[40];
        snprintf(param, sizeof param, "logits_processors.%zu", i);
        r->s.processors[i] = arena_zalloc(&r->arena, 1, sizeof(Weir__Processor));
        rc = read_item(names, json_array_get(v->logits_processors, i), param, &r->arena, r->s.processors[i], e);
    }
    r->s.n_processors = (uint32_t)n;
    r->s.xargs_json = text_of(v->vllm_xargs, &r->arena);
    return rc;
}
