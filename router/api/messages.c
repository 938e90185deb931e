#include "router/api/messages.h"

#include <stdio.h>

#include "router/api/fields.h"

enum { PATH_MAX_BYTES = 96 };

enum part_kind { PART_TEXT = 0, PART_THINKING, PART_IMAGE, PART_AUDIO, PART_VIDEO, PART_FILE };

/* The parts of api.md 7.2.4. `field` holds the text of those that have one; `bare`: known by that member
 * alone when `type` is missing. */
static const struct part_type {
    const char *name, *field;
    enum part_kind kind;
    bool bare;
} part_types[] = {
    {"text", "text", PART_TEXT, true},         {"input_text", "text", PART_TEXT, false},
    {"refusal", "refusal", PART_TEXT, false},  {"thinking", "thinking", PART_THINKING, false},
    {"image_url", NULL, PART_IMAGE, true},     {"input_image", NULL, PART_IMAGE, false},
    {"image_embeds", NULL, PART_IMAGE, false}, {"audio_url", NULL, PART_AUDIO, true},
    {"input_audio", NULL, PART_AUDIO, true},   {"video_url", NULL, PART_VIDEO, false},
    {"file", NULL, PART_FILE, false},
};
static const char *const modality[] = {
    [PART_IMAGE] = "image", [PART_AUDIO] = "audio", [PART_VIDEO] = "video", [PART_FILE] = "file"};

static bool is_text(const json_t *v, const char *z) {
    return json_string_length(v) == strlen(z) && !memcmp(json_string_value(v), z, strlen(z));
}

/* part_type: NULL for none of them. */
static const struct part_type *part_type(const json_t *part) {
    const json_t *type = json_object_get(part, "type");
    bool bare = !type || json_is_null(type);
    if (!bare && !json_is_string(type))
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(part_types); i++) {
        const struct part_type *t = &part_types[i];
        if (bare ? t->bare && json_object_get(part, t->name) : is_text(type, t->name))
            return t;
    }
    return NULL;
}

static enum rc check_part(const json_t *part, const char *path, struct err *e) {
    if (json_is_string(part))
        return RC_OK;
    if (!json_is_object(part))
        return err_set(e, RC_INVALID, path, "%s must be a string or an object with a type, not %s", path,
                       json_kind(part));
    const struct part_type *t = part_type(part);
    if (!t) {
        const json_t *type = json_object_get(part, "type");
        struct str shown = api_quote((struct str){json_string_value(type), json_string_length(type)});
        if (json_is_string(type))
            return err_set(e, RC_INVALID, path, "%s: content part of unknown type \"%.*s\"", path,
                           (int)shown.n, shown.p);
        return err_set(e, RC_INVALID, path, "%s: content part without a type", path);
    }
    if (!t->field)
        return RC_OK; /* media: refused once the model is known, which the message names */
    bool present;
    struct str text;
    enum rc rc = json_get_str(part, path, t->field, &text, &present, e);
    if (rc || present)
        return rc;
    char param[PATH_MAX_BYTES + 16];
    snprintf(param, sizeof param, "%s.%s", path, t->field);
    return err_set(e, RC_INVALID, param, "%s is required in a part of type %s", param, t->name);
}

static enum rc check_call(const json_t *call, const char *path, struct err *e) {
    if (!json_is_object(call))
        return err_set(e, RC_INVALID, path, "%s must be an object, not %s", path, json_kind(call));
    const json_t *function = NULL;
    bool present;
    struct str name;
    enum rc rc = json_get_object(call, path, "function", &function, &present, e);
    if (rc)
        return rc;
    char inner[PATH_MAX_BYTES + 16], param[PATH_MAX_BYTES + 32];
    snprintf(inner, sizeof inner, "%s.function", path);
    if (!present)
        return err_set(e, RC_INVALID, inner, "%s is required", inner);
    rc = json_get_str(function, inner, "name", &name, &present, e);
    if (rc)
        return rc;
    snprintf(param, sizeof param, "%s.name", inner);
    if (!present || name.n == 0)
        return err_set(e, RC_INVALID, param, "%s must be a non-empty string", param);
    snprintf(param, sizeof param, "%s.arguments", inner);
    const json_t *args = json_object_get(function, "arguments");
    if (args && !json_is_null(args) && !json_is_string(args) && !json_is_object(args))
        return err_set(e, RC_INVALID, param, "%s must be a string of JSON, not %s", param, json_kind(args));
    return RC_OK;
}

static enum rc check_message(const json_t *m, size_t i, struct err *e) {
    char path[PATH_MAX_BYTES / 2], inner[PATH_MAX_BYTES];
    snprintf(path, sizeof path, "messages.%zu", i);
    bool present;
    struct str role;
    enum rc rc = json_get_str(m, path, "role", &role, &present, e);
    if (rc)
        return rc;
    if (!present || role.n == 0) {
        snprintf(inner, sizeof inner, "%s.role", path);
        return err_set(e, RC_INVALID, inner, "%s must be a non-empty string", inner);
    }
    const json_t *calls = NULL;
    rc = json_get_list(m, path, "tool_calls", &calls, NULL, e);
    for (size_t k = 0; !rc && k < json_array_size(calls); k++) {
        snprintf(inner, sizeof inner, "%s.tool_calls.%zu", path, k);
        rc = check_call(json_array_get(calls, k), inner, e);
    }
    if (rc)
        return rc;
    const json_t *content = json_object_get(m, "content");
    snprintf(inner, sizeof inner, "%s.content", path);
    if (!content && json_array_size(calls) == 0)
        return err_set(e, RC_INVALID, inner, "%s is required", inner);
    if (content && !json_is_null(content) && !json_is_string(content) && !json_is_array(content))
        return err_set(e, RC_INVALID, inner, "%s must be a string, a list of parts or null, not %s", inner,
                       json_kind(content));
    for (size_t k = 0; !rc && json_is_array(content) && k < json_array_size(content); k++) {
        snprintf(inner, sizeof inner, "%s.content.%zu", path, k);
        rc = check_part(json_array_get(content, k), inner, e);
    }
    return rc;
}

enum rc messages_check(const json_t *messages, struct err *e) {
    size_t n = json_array_size(messages);
    if (n == 0)
        return err_set(e, RC_INVALID, "messages", "messages must hold at least one message");
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < n; i++)
        rc = check_message(json_array_get(messages, i), i, e);
    return rc;
}

/* ---- normalising ------------------------------------------------------------------------------------- */

static json_t *text_part(json_t *text) {
    json_t *p = json_object();
    CHECK(p && json_object_set_new(p, "type", json_string("text")) == 0 &&
          json_object_set(p, "text", text) == 0);
    return p;
}

/* openai_part: what a template with `openai` content sees of a part that is no media. New reference. */
static json_t *openai_part(json_t *part) {
    if (json_is_string(part))
        return text_part(part);
    const struct part_type *t = part_type(part);
    json_t *text = json_object_get(part, t->field);
    if (t->kind == PART_TEXT)
        return text_part(text);
    json_t *p = json_object();
    CHECK(p && json_object_set_new(p, "type", json_string("thinking")) == 0 &&
          json_object_set(p, "thinking", text) == 0);
    json_t *closed = json_object_get(part, "closed");
    CHECK(!closed || json_object_set(p, "closed", closed) == 0);
    return p;
}

static enum rc refuse_media(const json_t *content, const char *model_name, size_t i, struct err *e) {
    for (size_t k = 0; k < json_array_size(content); k++) {
        const json_t *part = json_array_get(content, k);
        const struct part_type *t = json_is_string(part) ? NULL : part_type(part);
        if (!t || t->field)
            continue;
        char path[PATH_MAX_BYTES];
        snprintf(path, sizeof path, "messages.%zu.content.%zu", i, k);
        return err_set(e, RC_INVALID, path, "%s: %s is not supported: model \"%.200s\" takes no %s input",
                       path, t->name, model_name, modality[t->kind]);
    }
    return RC_OK;
}

/* joined: the text of all text parts, by newline. New reference. */
static json_t *joined(const json_t *content) {
    struct buf b = {0};
    bool first = true;
    for (size_t k = 0; k < json_array_size(content); k++) {
        const json_t *part = json_array_get(content, k), *text = part;
        if (!json_is_string(part)) {
            const struct part_type *t = part_type(part);
            if (t->kind != PART_TEXT)
                continue;
            text = json_object_get(part, t->field);
        }
        if (!first)
            buf_addc(&b, '\n');
        first = false;
        buf_add(&b, json_string_value(text), json_string_length(text));
    }
    json_t *s = json_stringn_nocheck(b.len ? b.data : "", b.len);
    buf_fini(&b);
    CHECK(s);
    return s;
}

static void set_content(json_t *m, json_t *content, bool openai) {
    json_t *to;
    if (!openai && json_is_string(content))
        return;
    if (!openai) {
        to = joined(content); /* absent and null are empty */
    } else {
        CHECK((to = json_array()));
        if (json_is_string(content))
            CHECK(json_array_append_new(to, text_part(content)) == 0);
        for (size_t k = 0; json_is_array(content) && k < json_array_size(content); k++)
            CHECK(json_array_append_new(to, openai_part(json_array_get(content, k))) == 0);
    }
    CHECK(json_object_set_new(m, "content", to) == 0);
}

/* count: values in v; what json_parse let through is no deeper than its limit. */
static size_t count(const json_t *v) {
    size_t n = 1;
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        n += count(json_array_get(v, i));
    json_t *o = (json_t *)(uintptr_t)v;
    for (void *it = json_is_object(v) ? json_object_iter(o) : NULL; it; it = json_object_iter_next(o, it))
        n += count(json_object_iter_value(it));
    return n;
}

/* parse_arguments: from text to an object. *n_left: JSON values that the limit leaves to this call and those
 * that follow. */
static enum rc parse_arguments(json_t *function, size_t i, size_t k, const struct json_limits *limits,
                               size_t *n_left, struct err *e) {
    json_t *args = json_object_get(function, "arguments"), *parsed = NULL;
    if (json_is_object(args))
        return RC_OK;
    if (json_string_length(args) == 0) {
        CHECK(json_object_set_new(function, "arguments", json_object()) == 0);
        return RC_OK;
    }
    char path[PATH_MAX_BYTES];
    snprintf(path, sizeof path, "messages.%zu.tool_calls.%zu.function.arguments", i, k);
    struct err why = {0};
    struct str text = {json_string_value(args), json_string_length(args)};
    enum rc rc = json_parse(text, limits, &parsed, &why);
    if (rc)
        return err_set(e, rc, path, "%s must be the JSON of an object: %.400s", path, why.msg);
    if (!json_is_object(parsed)) {
        rc = err_set(e, RC_INVALID, path, "%s must be the JSON of an object, not of %s", path,
                     json_kind(parsed));
        json_decref(parsed);
        return rc;
    }
    size_t n = count(parsed);
    if (n > *n_left) {
        json_decref(parsed);
        return err_set(e, RC_INVALID, path,
                       "the arguments of all tool calls have more than %zu JSON values (--max-json-nodes)",
                       limits->nodes_max);
    }
    *n_left -= n;
    CHECK(json_object_set_new(function, "arguments", parsed) == 0);
    return RC_OK;
}

/* mirror: a value under one of two names goes under both. */
static void mirror(json_t *m, const char *a, const char *b) {
    json_t *va = json_object_get(m, a), *vb = json_object_get(m, b);
    bool has_a = va && !json_is_null(va), has_b = vb && !json_is_null(vb);
    if (has_a != has_b)
        CHECK(json_object_set(m, has_a ? b : a, has_a ? va : vb) == 0);
}

enum rc messages_normalise(json_t *messages, const struct messages_form *form, struct err *e) {
    size_t n_left = form->args.nodes_max;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
        bool assistant = is_text(role, "assistant");
        if (form->developer_is_system && is_text(role, "developer"))
            CHECK(json_object_set_new(m, "role", json_string("system")) == 0);
        enum rc rc = refuse_media(content, form->model_name, i, e);
        if (rc)
            return rc;
        set_content(m, content, form->openai);
        if (!assistant)
            continue;
        mirror(m, "reasoning", "reasoning_content");
        json_t *calls = json_object_get(m, "tool_calls");
        for (size_t k = 0; k < json_array_size(calls); k++) {
            rc = parse_arguments(json_object_get(json_array_get(calls, k), "function"), i, k, &form->args,
                                 &n_left, e);
            if (rc)
                return rc;
        }
    }
    return RC_OK;
}
