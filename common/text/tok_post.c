/* tok_post.c: reading the post_processor of tokenizer.json: what goes around a text and a pair of texts. */
#include "common/text/tok_impl.h"

#include <stdio.h>

static enum rc add_part(struct tok_template *x, struct tok_part part, const char *path, struct err *e) {
    if (x->n_parts == TOK_TEMPLATE_PARTS_MAX)
        return tok_bad(e, path, "more than %d special tokens", TOK_TEMPLATE_IDS_MAX);
    x->parts[x->n_parts++] = part;
    return RC_OK;
}

static enum rc special_part(const struct tok *t, const json_t *part, const char *name, uint32_t type,
                            const char *path, struct tok_template *x, struct err *e) {
    const json_t *ids =
        name ? json_object_get(json_object_get(json_object_get(part, "special_tokens"), name), "ids") : NULL;
    enum rc rc = RC_OK;
    if (!json_is_array(ids))
        return tok_bad(e, path, "\"%.40s\" is not among special_tokens", name ? name : "");
    for (size_t i = 0; i < json_array_size(ids) && !rc; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= t->pieces.n)
            return tok_bad(e, path, "\"%.40s\" has an id outside the vocabulary", name);
        rc = add_part(x, (struct tok_part){TOK_PART_ID, (uint32_t)json_integer_value(id), type}, path, e);
    }
    return rc;
}

/* template_read: a list such as [BOS, Sequence A]; each of the n_texts sequences occurs once. */
static enum rc template_read(const struct tok *t, const json_t *part, const char *key, unsigned n_texts,
                             const char *path, struct tok_template *x, struct err *e) {
    const json_t *list = json_object_get(part, key);
    unsigned seen = 0;
    *x = (struct tok_template){0};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *piece = json_array_get(list, i), *special = json_object_get(piece, "SpecialToken");
        const json_t *sequence = json_object_get(piece, "Sequence");
        const json_t *type = json_object_get(special ? special : sequence, "type_id");
        const char *id = json_string_value(json_object_get(special ? special : sequence, "id"));
        enum rc rc;
        if (!json_is_integer(type) || json_integer_value(type) < 0 || json_integer_value(type) > INT32_MAX)
            return tok_bad(e, path, "%s: a type_id must be a number from 0", key);
        uint32_t type_id = (uint32_t)json_integer_value(type);
        unsigned bit = !id ? 0 : strcmp(id, "A") == 0 ? 1 : strcmp(id, "B") == 0 ? 2 : 0;
        if (special)
            rc = special_part(t, part, id, type_id, path, x, e);
        else if (bit && bit <= n_texts && !(seen & bit))
            rc = add_part(x, (struct tok_part){bit == 1 ? TOK_PART_A : TOK_PART_B, 0, type_id}, path, e);
        else
            return tok_bad(e, path, "%s must hold special tokens and each Sequence once", key);
        if (rc)
            return rc;
        seen |= special ? 0 : bit;
    }
    return seen == (1u << n_texts) - 1 ? RC_OK : tok_bad(e, path, "%s lacks a Sequence", key);
}

static enum rc load_template(struct tok *t, const json_t *m, const char *path, struct err *e) {
    enum rc rc = template_read(t, m, "single", 1, path, &t->single, e);
    if (rc || json_array_size(json_object_get(m, "pair")) == 0)
        return rc;
    return template_read(t, m, "pair", 2, path, &t->pair, e);
}

/* named_id: ["[SEP]", 102]. */
static enum rc named_id(const struct tok *t, const json_t *m, const char *key, const char *path,
                        struct tok_part *out, struct err *e) {
    const json_t *id = json_array_get(json_object_get(m, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= t->pieces.n)
        return tok_bad(e, path, "%s must be a token and its id in the vocabulary", key);
    *out = (struct tok_part){TOK_PART_ID, (uint32_t)json_integer_value(id), 0};
    return RC_OK;
}

/* load_bert: CLS A SEP B SEP, what comes behind the first SEP of type 1; of RoBERTa CLS A SEP SEP B SEP, all
 * of type 0. */
static enum rc load_bert(struct tok *t, const json_t *m, bool roberta, const char *path, struct err *e) {
    struct tok_part cls, sep;
    enum rc rc;
    if ((rc = named_id(t, m, "cls", path, &cls, e)) || (rc = named_id(t, m, "sep", path, &sep, e)))
        return rc;
    const struct tok_part a = {TOK_PART_A, 0, 0}, b = {TOK_PART_B, 0, roberta ? 0 : 1};
    const struct tok_part last = {TOK_PART_ID, sep.id, roberta ? 0 : 1};
    t->single = (struct tok_template){{cls, a, sep}, 3};
    if (roberta)
        t->pair = (struct tok_template){{cls, a, sep, sep, b, last}, 6};
    else
        t->pair = (struct tok_template){{cls, a, sep, b, last}, 5};
    return RC_OK;
}

enum rc tok_load_post(struct tok *t, const json_t *part, struct err *e) {
    struct tok_members list;
    bool found = false;
    t->single = (struct tok_template){{{TOK_PART_A, 0, 0}}, 1};
    t->pair = (struct tok_template){{{TOK_PART_A, 0, 0}, {TOK_PART_B, 0, 1}}, 2};
    enum rc rc = tok_members(part, "post_processor", "processors", &list, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < list.n; i++) {
        const json_t *m = list.at[i].v;
        const char *type = tok_type(m), *path = list.at[i].path;
        bool roberta = strcmp(type, "RobertaProcessing") == 0;
        if (strcmp(type, "ByteLevel") == 0) /* moves offsets only */
            continue;
        if (found) /* Hugging Face would read the first one's parts as a pair */
            return tok_unsupported(e, path, "a second template is not supported");
        found = true;
        if (strcmp(type, "TemplateProcessing") == 0)
            rc = load_template(t, m, path, e);
        else if (roberta || strcmp(type, "BertProcessing") == 0)
            rc = load_bert(t, m, roberta, path, e);
        else
            return tok_unsupported(e, path, "post-processor \"%.40s\" is not supported", type);
        if (rc)
            return rc;
    }
    return RC_OK;
}
