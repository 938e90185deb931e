#include "router/structured.h"

#include <stdlib.h>

#include "common/log.h"
#include "router/parse/parse.h"

static const char flag[] = "structured-outputs-config";

static bool is_backend(const char *name) {
    size_t n = strlen(name), at;
    for (const char *p = GUIDED_BACKEND_CHOICES; *p; p += at + (p[at] == '|')) {
        at = strcspn(p, "|");
        if (at == n && !memcmp(p, name, n))
            return true;
    }
    return false;
}

/* set_backend: any name there is means the one engine, as with --guided-decoding-backend. */
static enum rc set_backend(struct router_opts *o, const char *name, struct err *e) {
    if (!is_backend(name))
        return err_set(e, RC_INVALID, flag, "--%s: backend \"%.64s\" is not one of " GUIDED_BACKEND_CHOICES, flag, name);
    free(o->guided_backend);
    o->guided_backend = xstrdup(name);
    return RC_OK;
}

static enum rc set_reasoning_parser(struct router_opts *o, const char *name, struct err *e) {
    enum parse_reasoning kind;
    if (!*name)
        return RC_OK;
    if (!parse_reasoning_find(name, &kind))
        return err_set(e, RC_INVALID, flag, "--%s: reasoning_parser \"%.64s\" is not one of " PARSE_REASONING_CHOICES,
                       flag, name);
    if (o->reasoning_parser && strcmp(o->reasoning_parser, name))
        return err_set(e, RC_INVALID, flag, "--%s: reasoning_parser \"%.64s\" contradicts --reasoning-parser %s", flag,
                       name, o->reasoning_parser);
    free(o->reasoning_parser);
    o->reasoning_parser = xstrdup(name);
    return RC_OK;
}

static enum rc set_bool(struct router_opts *o, const char *key, bool on, struct err *e) {
    if (!strcmp(key, "disable_any_whitespace"))
        o->no_json_whitespace |= on;
    else if (!strcmp(key, "disable_additional_properties"))
        o->no_additional_properties |= on;
    else if (!strcmp(key, "enable_in_reasoning") && on)
        return err_set(e, RC_INVALID, flag, "--%s: enable_in_reasoning is not supported: structured output begins "
                       "behind the reasoning", flag);
    else if (!strcmp(key, "disable_fallback"))
        LOG(LOG_WARN, "key ignored", F_STR("flag", flag), F_STR("key", key),
            F_STR("reason", "there is one engine and no fallback"));
    return RC_OK;
}

static enum rc set_text(struct router_opts *o, const char *key, const char *text, struct err *e) {
    if (!strcmp(key, "backend"))
        return set_backend(o, text, e);
    if (!strcmp(key, "reasoning_parser"))
        return set_reasoning_parser(o, text, e);
    return *text ? err_set(e, RC_INVALID, flag, "--%s: %s is not supported: the router runs no Python", flag, key) : RC_OK;
}

enum rc structured_apply(struct router_opts *o, struct err *e) {
    static const struct {
        const char *key;
        bool text;
    } keys[] = {{"backend", true},          {"disable_fallback", false}, {"disable_any_whitespace", false},
                {"reasoning_parser", true}, {"enable_in_reasoning", false}, {"disable_additional_properties", false},
                {"reasoning_parser_plugin", true}};
    if (!o->structured_config)
        return RC_OK;
    json_t *config = NULL;
    enum rc rc = json_parse(str_of(o->structured_config), &json_limits_default, &config, e);
    if (!rc && !json_is_object(config))
        rc = err_set(e, RC_INVALID, flag, "--%s must be a JSON object, not %s", flag, json_kind(config));
    for (void *it = rc ? NULL : json_object_iter(config); it && !rc; it = json_object_iter_next(config, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *v = json_object_iter_value(it);
        size_t k = 0;
        while (k < ARRAY_LEN(keys) && strcmp(key, keys[k].key))
            k++;
        if (k == ARRAY_LEN(keys))
            rc = err_set(e, RC_INVALID, flag,
                         "--%s has no key \"%.64s\", but backend, disable_any_whitespace, disable_additional_properties, "
                         "disable_fallback and reasoning_parser",
                         flag, key);
        else if (json_is_null(v))
            continue;
        else if (keys[k].text ? !json_is_string(v) : !json_is_boolean(v))
            rc = err_set(e, RC_INVALID, flag, "--%s: %s must be %s, not %s", flag, key,
                         keys[k].text ? "a string" : "a boolean", json_kind(v));
        else
            rc = keys[k].text ? set_text(o, key, json_string_value(v), e) : set_bool(o, key, json_is_true(v), e);
    }
    json_decref(config);
    return rc;
}
