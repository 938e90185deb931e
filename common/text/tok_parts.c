/* tok_parts.c: the parts of tokenizer.json around the model. */
#include "common/text/tok_impl.h"

#include <stdio.h>

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "(none)";
}

/* A part is an object, or a Sequence that lists some under a name. sequence_of: the list, or NULL. */
static const json_t *sequence_of(const json_t *part, const char *list) {
    return strcmp(type_of(part), "Sequence") == 0 ? json_object_get(part, list) : NULL;
}

/* member: the i-th of a part: of its list if it is a Sequence, else the part itself; NULL at the end.
 * path becomes "name" or "name.list[i]". A Sequence in a Sequence is refused by whoever reads it. */
static const json_t *member(const json_t *part, const char *name, const char *list, size_t i, char *path,
                            size_t size) {
    const json_t *seq = sequence_of(part, list);
    if (!seq && strcmp(type_of(part), "Sequence") != 0) {
        snprintf(path, size, "%s", name);
        return i == 0 ? part : NULL;
    }
    snprintf(path, size, "%s.%s[%zu]", name, list, i);
    return json_array_get(seq, i);
}

static bool absent(const json_t *part) {
    return !part || json_is_null(part);
}

static enum rc load_normalizer(struct tok *t, const json_t *part, struct err *e) {
    char path[64];
    const json_t *m;
    if (absent(part))
        return RC_OK;
    for (size_t i = 0; (m = member(part, "normalizer", "normalizers", i, path, sizeof path)); i++) {
        if (strcmp(type_of(m), "NFC") != 0)
            return tok_unsupported(e, path, "normalizer \"%.40s\" is not supported, only NFC", type_of(m));
        t->nfc = true;
    }
    return RC_OK;
}

static enum rc add_step(struct tok *t, const char *path, split_fn *split, struct err *e) {
    if (t->n_steps == TOK_STEPS_MAX)
        return tok_bad(e, path, "more than %d steps", TOK_STEPS_MAX);
    t->steps[t->n_steps++] = (struct tok_step){split};
    return RC_OK;
}

/* load_split: a known pattern covers every text, so that Isolated, with and without invert, and
 * Removed with invert (keep what matches) all cut the same. */
static enum rc load_split(struct tok *t, const json_t *m, const char *path, struct err *e) {
    const json_t *pattern = json_object_get(json_object_get(m, "pattern"), "Regex");
    const char *behavior = json_string_value(json_object_get(m, "behavior"));
    const json_t *invert = json_object_get(m, "invert");
    if (!json_is_string(pattern))
        return tok_unsupported(e, path, "Split is supported with a Regex pattern only");
    split_fn *split = split_by_pattern((struct str){json_string_value(pattern), json_string_length(pattern)});
    if (!split)
        return tok_unsupported(e, path, "the split pattern %.300s is not supported",
                               json_string_value(pattern));
    if (!json_is_boolean(invert))
        return tok_bad(e, path, "invert must be true or false");
    bool keeps = behavior && (strcmp(behavior, "Isolated") == 0 ||
                              (strcmp(behavior, "Removed") == 0 && json_is_true(invert)));
    if (!keeps)
        return tok_unsupported(e, path, "Split with behavior \"%.40s\" and invert %s is not supported",
                               behavior ? behavior : "", json_is_true(invert) ? "true" : "false");
    return add_step(t, path, split, e);
}

/* flag: a boolean with a default for files that leave it out. */
static enum rc flag(const json_t *m, const char *key, const char *path, bool fallback, bool *out,
                    struct err *e) {
    const json_t *v = json_object_get(m, key);
    if (v && !json_is_boolean(v))
        return tok_bad(e, path, "%s must be true or false", key);
    *out = v ? json_is_true(v) : fallback;
    return RC_OK;
}

static enum rc load_byte_level(struct tok *t, const json_t *m, const char *path, struct err *e) {
    bool prefix = true, regex = true;
    enum rc rc;
    if ((rc = flag(m, "add_prefix_space", path, true, &prefix, e)) ||
        (rc = flag(m, "use_regex", path, true, &regex, e)))
        return rc;
    if (prefix && (rc = add_step(t, path, NULL, e)))
        return rc;
    return regex ? add_step(t, path, split_gpt2, e) : RC_OK;
}

static enum rc load_pre_tokenizer(struct tok *t, const json_t *part, struct err *e) {
    char path[64] = "pre_tokenizer";
    const json_t *m;
    bool byte_level = false;
    for (size_t i = 0;
         !absent(part) && (m = member(part, "pre_tokenizer", "pretokenizers", i, path, sizeof path)); i++) {
        const char *type = type_of(m);
        enum rc rc;
        if (byte_level)
            return tok_unsupported(e, path, "\"%.40s\" behind ByteLevel is not supported", type);
        if (strcmp(type, "ByteLevel") == 0) {
            byte_level = true;
            rc = load_byte_level(t, m, path, e);
        } else if (strcmp(type, "Split") == 0) {
            rc = load_split(t, m, path, e);
        } else if (strcmp(type, "Digits") == 0) {
            bool individual = false;
            rc = flag(m, "individual_digits", path, false, &individual, e);
            if (!rc)
                rc = add_step(t, path, individual ? split_digit : split_digit_run, e);
        } else {
            rc = tok_unsupported(e, path, "pre-tokenizer \"%.40s\" is not supported", type);
        }
        if (rc)
            return rc;
    }
    if (!byte_level)
        return tok_unsupported(e, "pre_tokenizer", "BPE without a ByteLevel pre-tokenizer is not supported");
    return RC_OK;
}

static enum rc load_decoder(const json_t *part, struct err *e) {
    char path[64];
    const json_t *m;
    size_t n = 0;
    for (; !absent(part) && (m = member(part, "decoder", "decoders", n, path, sizeof path)); n++)
        if (strcmp(type_of(m), "ByteLevel") != 0)
            return tok_unsupported(e, path, "decoder \"%.40s\" is not supported", type_of(m));
    if (n != 1)
        return tok_unsupported(e, "decoder", "one ByteLevel decoder is supported, here are %zu", n);
    return RC_OK;
}

enum rc tok_load_parts(struct tok *t, const json_t *root, struct err *e) {
    enum rc rc;
    if ((rc = load_normalizer(t, json_object_get(root, "normalizer"), e)) ||
        (rc = load_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), e)))
        return rc;
    return load_decoder(json_object_get(root, "decoder"), e);
}

/* ---- post-processor ---- */

/* A template while it is read: the ids before and behind the sequence. */
struct template {
    uint32_t front[TOK_TEMPLATE_IDS_MAX], back[TOK_TEMPLATE_IDS_MAX];
    size_t n_front, n_back;
    bool sequence; /* it was seen: what follows goes behind */
};

static enum rc template_special(const struct tok *t, const json_t *part, const json_t *special,
                                const char *path, struct template *x, struct err *e) {
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *ids =
        name ? json_object_get(json_object_get(json_object_get(part, "special_tokens"), name), "ids") : NULL;
    if (!json_is_array(ids))
        return tok_bad(e, path, "\"%.40s\" is not among special_tokens", name ? name : "");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= t->pieces.n)
            return tok_bad(e, path, "\"%.40s\" has an id outside the vocabulary", name);
        uint32_t *to = x->sequence ? x->back : x->front;
        size_t *n = x->sequence ? &x->n_back : &x->n_front;
        if (*n == TOK_TEMPLATE_IDS_MAX)
            return tok_bad(e, path, "more than %d special tokens", TOK_TEMPLATE_IDS_MAX);
        to[(*n)++] = (uint32_t)json_integer_value(id);
    }
    return RC_OK;
}

/* template_read: the template of a single text, such as [BOS, Sequence A]. */
static enum rc template_read(const struct tok *t, const json_t *part, const char *path, struct template *x,
                             struct err *e) {
    const json_t *single = json_object_get(part, "single");
    *x = (struct template){0};
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i), *special = json_object_get(piece, "SpecialToken");
        const char *seq = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        enum rc rc;
        if (special) {
            if ((rc = template_special(t, part, special, path, x, e)))
                return rc;
        } else if (seq && strcmp(seq, "A") == 0 && !x->sequence) {
            x->sequence = true;
        } else {
            return tok_bad(e, path, "single must hold special tokens and Sequence A once");
        }
    }
    return x->sequence ? RC_OK : tok_bad(e, path, "single has no Sequence A");
}

/* wrap: puts a template around what is there already. */
static enum rc wrap(struct tok *t, const char *path, const struct template *x, struct err *e) {
    if (t->n_front + x->n_front > TOK_TEMPLATE_IDS_MAX || t->n_back + x->n_back > TOK_TEMPLATE_IDS_MAX)
        return tok_bad(e, path, "more than %d special tokens", TOK_TEMPLATE_IDS_MAX);
    memmove(t->front + x->n_front, t->front, t->n_front * sizeof *t->front);
    memcpy(t->front, x->front, x->n_front * sizeof *t->front);
    memcpy(t->back + t->n_back, x->back, x->n_back * sizeof *t->back);
    t->n_front += x->n_front;
    t->n_back += x->n_back;
    return RC_OK;
}

enum rc tok_load_post(struct tok *t, const json_t *root, struct err *e) {
    const json_t *part = json_object_get(root, "post_processor"), *m;
    char path[64];
    for (size_t i = 0;
         !absent(part) && (m = member(part, "post_processor", "processors", i, path, sizeof path)); i++) {
        struct template x;
        enum rc rc;
        if (strcmp(type_of(m), "ByteLevel") == 0) /* moves offsets only */
            continue;
        if (strcmp(type_of(m), "TemplateProcessing") != 0)
            return tok_unsupported(e, path, "post-processor \"%.40s\" is not supported", type_of(m));
        if ((rc = template_read(t, m, path, &x, e)) || (rc = wrap(t, path, &x, e)))
            return rc;
    }
    return RC_OK;
}
