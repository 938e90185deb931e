/* tok_draft.c: what tokenizer.json's parts are made with; what the side files say. */
#include "common/text/tok_draft.h"

#include <stdlib.h>

json_t *draft_text(struct str s) {
    json_t *v = json_stringn(s.p ? s.p : "", s.n);
    CHECK(v); /* UTF-8 was checked */
    return v;
}

json_t *draft_textz(const char *z) {
    return draft_text(str_of(z));
}

void draft_set(json_t *object, const char *key, json_t *v) {
    CHECK(v && json_object_set_new(object, key, v) == 0);
}

void draft_push(json_t *list, json_t *v) {
    CHECK(v && json_array_append_new(list, v) == 0);
}

/* part: an object with a type. */
json_t *draft_part(const char *type) {
    json_t *v = json_object();
    draft_set(v, "type", draft_textz(type));
    return v;
}

json_t *draft_sequence(const char *key) {
    json_t *v = draft_part("Sequence");
    draft_set(v, key, json_array());
    return v;
}

/* ---- tokenizer_config.json ---- */

bool draft_flag(const struct draft *d, const char *key, bool fallback) {
    const json_t *v = json_object_get(d->config, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

bool draft_is_class(const struct draft *d, const char *prefix) {
    const char *class = json_string_value(json_object_get(d->config, "tokenizer_class"));
    return class && strncmp(class, prefix, strlen(prefix)) == 0;
}

/* named: the text of bos_token and the like: a string or an object with content. */
const char *draft_named(const struct draft *d, const char *key, const char *fallback) {
    const json_t *files[] = {d->config, d->map};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        const json_t *v = json_object_get(files[i], key);
        if (json_is_object(v))
            v = json_object_get(v, "content");
        const char *s = json_string_value(v);
        if (s && *s)
            return s;
    }
    return fallback;
}

json_int_t draft_id_of(const struct draft *d, const char *token) {
    const json_t *id = token ? json_object_get(d->ids, token) : NULL;
    return id ? json_integer_value(id) : -1;
}

/* ---- added tokens ---- */

void draft_add(struct draft *d, json_int_t id, json_t *content, bool special) {
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    json_t *v = json_object();
    draft_set(v, "id", json_integer(id));
    draft_set(v, "content", content);
    draft_set(v, "special", json_boolean(special));
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        draft_set(v, flags[i], json_false());
    draft_push(d->added, v);
}

/* ---- templates ---- */

/* template_part: '$A', '$B' or a token, of a type. */
static void template_part(struct draft *d, json_t *list, json_t *tokens, const char *name, int type) {
    bool sequence_part = name[0] == '$';
    json_t *inner = json_object(), *outer = json_object();
    draft_set(inner, "id", draft_textz(sequence_part ? name + 1 : name));
    draft_set(inner, "type_id", json_integer(type));
    draft_set(outer, sequence_part ? "Sequence" : "SpecialToken", inner);
    draft_push(list, outer);
    if (sequence_part)
        return;
    json_t *token = json_object(), *ids = json_array();
    draft_push(ids, json_integer(draft_id_of(d, name)));
    draft_set(token, "ids", ids);
    draft_set(tokens, name, token);
}

/* put_template: front A back, and front A back middle B back; NULL for none. */
void draft_put_template(struct draft *d, const char *front, const char *back, const char *middle,
                         int type_b) {
    json_t *post = draft_part("TemplateProcessing"), *single = json_array(), *pair = json_array(),
           *tokens = json_object();
    front = draft_id_of(d, front) >= 0 ? front : NULL;
    back = draft_id_of(d, back) >= 0 ? back : NULL;
    middle = draft_id_of(d, middle) >= 0 ? middle : NULL;
    for (int is_pair = 0; is_pair < 2; is_pair++) {
        json_t *list = is_pair ? pair : single;
        if (front)
            template_part(d, list, tokens, front, 0);
        template_part(d, list, tokens, "$A", 0);
        if (back)
            template_part(d, list, tokens, back, 0);
        if (!is_pair)
            continue;
        if (middle)
            template_part(d, list, tokens, middle, type_b);
        template_part(d, list, tokens, "$B", type_b);
        if (back)
            template_part(d, list, tokens, back, type_b);
    }
    draft_set(post, "single", single);
    draft_set(post, "pair", pair);
    draft_set(post, "special_tokens", tokens);
    draft_set(d->root, "post_processor", post);
}

/* put_bos_eos: as add_bos_token and add_eos_token say. */
void draft_put_bos_eos(struct draft *d, bool bos, bool eos) {
    const char *front = draft_named(d, "bos_token", d->end ? d->end : "<s>");
    const char *back = draft_named(d, "eos_token", d->end ? d->end : "</s>");
    front = draft_flag(d, "add_bos_token", bos) ? front : NULL;
    back = draft_flag(d, "add_eos_token", eos) ? back : NULL;
    draft_put_template(d, front, back, front, 1);
}

