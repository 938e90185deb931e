/* tok_pre.c: reading the pre_tokenizer of tokenizer.json. */
#include "common/text/tok_impl.h"

#include <stdio.h>

static const struct {
    const char *name;
    enum pre_behavior behavior;
} behaviors[] = {
    {"Removed", PRE_REMOVED},
    {"Isolated", PRE_ISOLATED},
    {"MergedWithPrevious", PRE_MERGED_WITH_PREVIOUS},
    {"MergedWithNext", PRE_MERGED_WITH_NEXT},
    {"Contiguous", PRE_CONTIGUOUS},
};

static enum rc load_behavior(const json_t *m, const char *path, enum pre_behavior *out, struct err *e) {
    const char *s = json_string_value(json_object_get(m, "behavior"));
    for (size_t i = 0; s && i < ARRAY_LEN(behaviors); i++)
        if (strcmp(s, behaviors[i].name) == 0) {
            *out = behaviors[i].behavior;
            return RC_OK;
        }
    return tok_bad(e, path,
                   "behavior \"%.40s\" is none of Removed, Isolated, MergedWithPrevious, "
                   "MergedWithNext, Contiguous",
                   s ? s : "");
}

static enum rc add_step(struct tok *t, const char *path, struct pre_step step, struct err *e) {
    if (t->pre.n_steps == PRE_STEPS_MAX)
        return tok_bad(e, path, "more than %d steps", PRE_STEPS_MAX);
    t->pre.steps[t->pre.n_steps++] = step;
    return RC_OK;
}

/* load_regex: a known pattern covers every text, so that Isolated, with and without invert, and Removed
 * with invert (keep what matches) all cut the same. Else the pattern is compiled. */
static enum rc load_regex(struct tok *t, struct str pattern, enum pre_behavior behavior, bool invert,
                          const char *path, struct err *e) {
    split_fn *split = split_by_pattern(pattern);
    if (split && (behavior == PRE_ISOLATED || (behavior == PRE_REMOVED && invert)))
        return add_step(t, path, (struct pre_step){.kind = PRE_SPLIT, .split = split}, e);
    struct pre_step s = {
        .kind = PRE_MATCH, .match = PRE_MATCH_PATTERN, .behavior = behavior, .invert = invert};
    enum rc rc = tok_compile(pattern, path, &s.pattern, e);
    if (!rc && (rc = add_step(t, path, s, e)))
        pattern_free(s.pattern);
    return rc;
}

static enum rc load_split(struct tok *t, const json_t *m, const char *path, struct err *e) {
    struct str pattern;
    struct pre_step s = {.kind = PRE_MATCH, .match = PRE_MATCH_TEXT};
    bool regex;
    enum rc rc;
    if ((rc = tok_pattern(m, path, &pattern, &regex, e)) || (rc = load_behavior(m, path, &s.behavior, e)) ||
        (rc = tok_flag(m, "invert", path, false, &s.invert, e)))
        return rc;
    if (regex)
        return load_regex(t, pattern, s.behavior, s.invert, path, e);
    if ((rc = add_step(t, path, s, e)))
        return rc;
    struct pre_step *own = &t->pre.steps[t->pre.n_steps - 1];
    own->text = xstrndup(pattern.p, pattern.n);
    own->n_text = pattern.n;
    return RC_OK;
}

static enum rc load_byte_level(struct tok *t, const json_t *m, const char *path, struct err *e) {
    bool prefix = true, regex = true;
    enum rc rc;
    if ((rc = tok_flag(m, "add_prefix_space", path, true, &prefix, e)) ||
        (rc = tok_flag(m, "use_regex", path, true, &regex, e)))
        return rc;
    t->byte_level = true;
    if (prefix && (rc = add_step(t, path, (struct pre_step){.kind = PRE_PREFIX_SPACE}, e)))
        return rc;
    return regex ? add_step(t, path, (struct pre_step){.kind = PRE_SPLIT, .split = split_gpt2}, e) : RC_OK;
}

enum rc tok_scheme(const json_t *m, const char *path, enum pre_scheme *out, struct err *e) {
    static const char *const names[] = {
        [PRE_NEVER] = "never", [PRE_FIRST] = "first", [PRE_ALWAYS] = "always"};
    const json_t *v = json_object_get(m, "prepend_scheme"), *old = json_object_get(m, "add_prefix_space");
    bool found = !v;
    *out = PRE_ALWAYS;
    for (size_t i = 0; json_is_string(v) && i < ARRAY_LEN(names); i++)
        if (strcmp(json_string_value(v), names[i]) == 0) {
            *out = (enum pre_scheme)i;
            found = true;
        }
    if (!found)
        return tok_bad(e, path, "prepend_scheme must be never, first or always");
    if (!tok_absent(old) && !json_is_boolean(old))
        return tok_bad(e, path, "add_prefix_space must be true or false");
    if (json_is_false(old) && v && *out != PRE_NEVER)
        return tok_bad(e, path, "add_prefix_space and prepend_scheme contradict each other");
    if (json_is_false(old))
        *out = PRE_NEVER;
    return RC_OK;
}

static enum rc load_meta(struct tok *t, const json_t *m, const char *path, struct err *e) {
    struct str text;
    struct pre_step s = {.kind = PRE_META};
    const json_t *split = json_object_get(m, "split");
    enum rc rc;
    if ((rc = tok_one_char(m, "replacement", path, &text, e)) || (rc = tok_scheme(m, path, &s.scheme, e)))
        return rc;
    if (!tok_absent(split) && !json_is_boolean(split))
        return tok_bad(e, path, "split must be true or false");
    s.cut = tok_absent(split) || json_is_true(split);
    if ((rc = add_step(t, path, s, e)))
        return rc;
    struct pre_step *own = &t->pre.steps[t->pre.n_steps - 1];
    own->text = xstrndup(text.p, text.n);
    own->n_text = text.n;
    return RC_OK;
}

static enum rc load_digits(struct tok *t, const json_t *m, const char *path, struct err *e) {
    bool individual = false;
    enum rc rc = tok_flag(m, "individual_digits", path, false, &individual, e);
    if (rc)
        return rc;
    enum pre_behavior behavior = individual ? PRE_ISOLATED : PRE_CONTIGUOUS;
    return add_step(
        t, path, (struct pre_step){.kind = PRE_MATCH, .match = PRE_MATCH_NUMERIC, .behavior = behavior}, e);
}

static enum rc load_punctuation(struct tok *t, const json_t *m, const char *path, struct err *e) {
    struct pre_step s = {.kind = PRE_MATCH, .match = PRE_MATCH_PUNCT, .behavior = PRE_ISOLATED};
    enum rc rc;
    if (json_object_get(m, "behavior") && (rc = load_behavior(m, path, &s.behavior, e)))
        return rc;
    return add_step(t, path, s, e);
}

static enum rc load_delimiter(struct tok *t, const json_t *m, const char *path, struct err *e) {
    struct str text;
    enum rc rc = tok_one_char(m, "delimiter", path, &text, e);
    if (rc ||
        (rc = add_step(t, path,
                       (struct pre_step){.kind = PRE_MATCH, .match = PRE_MATCH_TEXT, .behavior = PRE_REMOVED},
                       e)))
        return rc;
    struct pre_step *own = &t->pre.steps[t->pre.n_steps - 1];
    own->text = xstrndup(text.p, text.n);
    own->n_text = text.n;
    return RC_OK;
}

static enum rc load_fixed(struct tok *t, const json_t *m, const char *path, struct err *e) {
    const json_t *v = json_object_get(m, "length");
    if (v && (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > UINT32_MAX))
        return tok_bad(e, path, "length must be a number from 1");
    size_t n = v ? (size_t)json_integer_value(v) : 5;
    return add_step(t, path, (struct pre_step){.kind = PRE_FIXED, .n_fixed = n}, e);
}

static enum rc load_member(struct tok *t, const json_t *m, const char *path, struct err *e) {
    static const struct {
        const char *type;
        enum rc (*load)(struct tok *t, const json_t *m, const char *path, struct err *e);
    } with_options[] = {
        {"ByteLevel", load_byte_level},    {"Split", load_split},
        {"Metaspace", load_meta},          {"Digits", load_digits},
        {"Punctuation", load_punctuation}, {"CharDelimiterSplit", load_delimiter},
        {"Delimiter", load_delimiter},     {"FixedLength", load_fixed},
    };
    static const struct {
        const char *type;
        struct pre_step step;
    } plain[] = {
        {"Whitespace", {.kind = PRE_WORDS}},
        {"BertPreTokenizer", {.kind = PRE_BERT}},
        {"UnicodeScripts", {.kind = PRE_SCRIPTS}},
        {"WhitespaceSplit", {.kind = PRE_MATCH, .match = PRE_MATCH_SPACE, .behavior = PRE_REMOVED}},
    };
    const char *type = tok_type(m);
    for (size_t i = 0; i < ARRAY_LEN(with_options); i++)
        if (strcmp(type, with_options[i].type) == 0)
            return with_options[i].load(t, m, path, e);
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (strcmp(type, plain[i].type) == 0)
            return add_step(t, path, plain[i].step, e);
    return tok_unsupported(e, path, "pre-tokenizer \"%.40s\" is not supported", type);
}

enum rc tok_pre_in_letters(struct tok *t, struct err *e) {
    bool bytes = t->byte_level;
    t->byte_level = false;
    return bytes ? add_step(t, "pre_tokenizer", (struct pre_step){.kind = PRE_BYTES}, e) : RC_OK;
}

enum rc tok_load_pre(struct tok *t, const json_t *part, struct err *e) {
    struct tok_members list;
    enum rc rc = tok_members(part, "pre_tokenizer", "pretokenizers", &list, e);
    for (size_t i = 0; i < list.n && !rc; i++)
        if (!(rc = tok_pre_in_letters(t, e)))
            rc = load_member(t, list.at[i].v, list.at[i].path, e);
    return rc;
}
