#include "router/client/api.h"

#include <stdlib.h>

enum { REASON_BYTES_MAX = 200 };

void clean_text(struct buf *out, struct str text) {
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7f)
            buf_addc(out, '?');
        else if (c == 0xc2 && i + 1 < text.n && (unsigned char)text.p[i + 1] < 0xa0) { /* U+0080 to U+009F */
            buf_addc(out, '?');
            i++;
        } else
            buf_addc(out, (char)c);
    }
}

/* reason: one line of it, short enough for a message. */
static enum rc reason(struct err *e, const char *head, struct str why) {
    struct buf clean = {0};
    size_t n = MIN(why.n, (size_t)REASON_BYTES_MAX);
    while (n && n < why.n && ((unsigned char)why.p[n] & 0xc0) == 0x80)
        n--;
    clean_text(&clean, (struct str){why.p, n});
    for (size_t i = 0; i < clean.len; i++)
        if (clean.data[i] == '\n' || clean.data[i] == '\t')
            clean.data[i] = ' ';
    enum rc rc = err_set(e, RC_PROTO, NULL, "%s%s%s", head, clean.len ? ": " : "", buf_cstr(&clean));
    buf_fini(&clean);
    return rc;
}

static struct str string_of(const json_t *v) {
    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)}
                             : (struct str){"", 0};
}

/* told: the message of an error's body, in the shapes that servers have. */
static struct str told(const json_t *answer) {
    const json_t *error = json_object_get(answer, "error");
    const json_t *places[] = {json_object_get(error, "message"), error, json_object_get(answer, "message"),
                              json_object_get(answer, "detail")};
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (json_is_string(places[i]))
            return string_of(places[i]);
    return (struct str){"", 0};
}

void api_usage_read(const json_t *answer, struct api_usage *u) {
    const json_t *usage = json_object_get(answer, "usage");
    const json_t *prompt = json_object_get(usage, "prompt_tokens");
    const json_t *completion = json_object_get(usage, "completion_tokens");
    if (json_is_integer(prompt) && json_integer_value(prompt) >= 0 && json_integer_value(prompt) < INT32_MAX)
        u->n_prompt = json_integer_value(prompt);
    if (json_is_integer(completion) && json_integer_value(completion) >= 0 &&
        json_integer_value(completion) < INT32_MAX)
        u->n_completion = json_integer_value(completion);
}

static void take_text(struct chunk *c, struct buf *to, const json_t *v) {
    struct str s = string_of(v);
    c->has_output |= s.n > 0;
    if (to)
        buf_add_str(to, s);
}

static void take_choice(struct chunk *c, const json_t *choice) {
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *thought = json_object_get(delta, "reasoning");
    take_text(c, c->text, json_object_get(choice, "text"));
    take_text(c, c->text, json_object_get(delta, "content"));
    take_text(c, c->reasoning, thought ? thought : json_object_get(delta, "reasoning_content"));
    c->has_output |= json_array_size(json_object_get(delta, "tool_calls")) > 0;
    c->finished |= json_is_string(json_object_get(choice, "finish_reason"));
}

enum rc chunk_read(struct str data, struct chunk *c, struct err *e) {
    json_t *root = NULL;
    c->has_output = c->finished = false;
    c->last = str_eqz(data, "[DONE]");
    if (c->last)
        return RC_OK;
    struct err why;
    if (json_parse(data, NULL, &root, &why))
        return err_set(e, RC_PROTO, NULL, "the server sent an event that is no JSON");
    enum rc rc = RC_OK;
    const json_t *error = json_object_get(root, "error");
    const json_t *choices = json_object_get(root, "choices");
    if (error && !json_is_null(error)) {
        rc = reason(e, "the server reports an error", told(root));
    } else if (!json_is_array(choices)) {
        rc = err_set(e, RC_PROTO, NULL, "the server sent an event without choices");
    } else {
        take_choice(c, json_array_get(choices, 0));
        api_usage_read(root, &c->usage);
    }
    json_decref(root);
    return rc;
}

enum rc api_check(const struct exchange *x, struct err *e) {
    char head[32];
    struct err none;
    json_t *root = NULL;
    if (x->resp.status == 200)
        return RC_OK;
    snprintf(head, sizeof head, "HTTP %d", x->resp.status);
    struct str why = buf_str(&x->body);
    if (!json_parse(why, NULL, &root, &none))
        why = told(root);
    enum rc rc = reason(e, head, why);
    json_decref(root);
    return rc;
}

static bool no_event(void *arg, struct str data) {
    (void)arg, (void)data;
    return false;
}

enum rc api_ask(const struct target *t, const char *path, const char *key, struct str body, int64_t limit_ms,
                json_t **out, struct err *e) {
    struct exchange x;
    struct buf request = {0};
    target_request(t, path, key, body, &request);
    enum rc rc = exchange_start(&x, t, &request, no_event, NULL, e);
    if (!rc)
        rc = exchange_run(&x, limit_ms, NULL, NULL, e);
    if (!rc)
        rc = api_check(&x, e);
    struct err why = {0};
    if (!rc && json_parse(buf_str(&x.body), NULL, out, &why))
        rc = err_set(e, RC_PROTO, NULL, "%s%s: the answer is no JSON: %.200s", t->url.path, path, why.msg);
    exchange_close(&x);
    return rc;
}

enum rc api_model(const struct target *t, const char *key, char **model, struct err *e) {
    json_t *root = NULL;
    enum rc rc = api_ask(t, "/models", key, (struct str){NULL, 0}, 30000, &root, e);
    if (rc)
        return rc;
    struct str id = string_of(json_object_get(json_array_get(json_object_get(root, "data"), 0), "id"));
    if (id.n && id.n < 1024 && !memchr(id.p, '\0', id.n))
        *model = xstrndup(id.p, id.n);
    else
        rc = err_set(e, RC_PROTO, NULL, "the server lists no model; name one with --model");
    json_decref(root);
    return rc;
}
