/* tok_norm.c: reading the normalizer of tokenizer.json. */
#include "common/text/tok_impl.h"

#include "common/utf8.h"

#include <stdio.h>
#include <stdlib.h>

/* run_pattern: the regular expressions that are a run: a plain character or \s, then + or {n,}. */
static bool run_pattern(struct str re, struct norm_step *s) {
    static const char special[] = "\\^$.|?*+()[]{}";
    size_t n = 2;
    if (!str_starts(re, STR_LIT("\\s"))) {
        int32_t cp = utf8_decode(re.p, re.n, &n);
        if (cp < 0 || (cp < 0x80 && (cp == 0 || strchr(special, cp))))
            return false;
        s->pattern = xstrndup(re.p, n);
        s->n_pattern = n;
    }
    struct str rest = {re.p + n, re.n - n};
    s->kind = NORM_REPLACE_RUN;
    s->run_min = 1;
    if (str_eqz(rest, "+"))
        return true;
    if (rest.n == 4 && rest.p[0] == '{' && rest.p[1] >= '1' && rest.p[1] <= '9' && rest.p[2] == ',' &&
        rest.p[3] == '}') {
        s->run_min = (size_t)(rest.p[1] - '0');
        return true;
    }
    return false;
}

static enum rc load_replace(struct norm_step *s, const json_t *m, const char *path, struct err *e) {
    struct str pattern, content;
    bool regex;
    enum rc rc;
    if ((rc = tok_pattern(m, path, &pattern, &regex, e)) ||
        (rc = tok_text(m, "content", path, 0, &content, e)))
        return rc;
    if (regex && !run_pattern(pattern, s)) {
        s->kind = NORM_REPLACE_PATTERN;
        if ((rc = tok_compile(pattern, path, &s->compiled, e)))
            return rc;
    }
    if (!regex) {
        s->kind = NORM_REPLACE;
        s->pattern = xstrndup(pattern.p, pattern.n);
        s->n_pattern = pattern.n;
    }
    s->content = xstrndup(content.p, content.n);
    s->n_content = content.n;
    return RC_OK;
}

static enum rc load_prepend(struct norm_step *s, const json_t *m, const char *path, struct err *e) {
    struct str content;
    enum rc rc = tok_text(m, "prepend", path, 0, &content, e);
    if (rc)
        return rc;
    s->kind = NORM_PREPEND;
    s->content = xstrndup(content.p, content.n);
    s->n_content = content.n;
    return RC_OK;
}

static enum rc load_bert(struct norm_step *s, const json_t *m, const char *path, struct err *e) {
    const json_t *accents = json_object_get(m, "strip_accents");
    enum rc rc;
    s->kind = NORM_BERT;
    if ((rc = tok_flag(m, "clean_text", path, true, &s->clean_text, e)) ||
        (rc = tok_flag(m, "handle_chinese_chars", path, true, &s->chinese, e)) ||
        (rc = tok_flag(m, "lowercase", path, true, &s->lower, e)))
        return rc;
    s->accents = s->lower; /* null: as lowercase says */
    if (!tok_absent(accents) && (rc = tok_flag(m, "strip_accents", path, false, &s->accents, e)))
        return rc;
    norm_bert_init(s);
    return RC_OK;
}

/* base64: the bytes of standard base64 in new memory; NULL if it is none. */
static char *base64(struct str s, size_t *n_out) {
    if (s.n % 4)
        return NULL;
    char *out = xmalloc(s.n / 4 * 3 + 1);
    size_t n = 0, n_pad = 0;
    uint32_t word = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        int v = c >= 'A' && c <= 'Z'   ? c - 'A'
                : c >= 'a' && c <= 'z' ? c - 'a' + 26
                : c >= '0' && c <= '9' ? c - '0' + 52
                : c == '+'             ? 62
                : c == '/'             ? 63
                                       : -1;
        if (c == '=' && i + 2 >= s.n) {
            n_pad++;
            v = 0;
        } else if (v < 0 || n_pad) {
            free(out);
            return NULL;
        }
        word = word << 6 | (uint32_t)v;
        if (i % 4 == 3) {
            out[n++] = (char)(word >> 16);
            out[n++] = (char)(word >> 8);
            out[n++] = (char)word;
            word = 0;
        }
    }
    *n_out = n - n_pad;
    return out;
}

static enum rc load_charsmap(struct norm_step *s, const json_t *m, const char *path, struct err *e) {
    struct str text;
    struct err why;
    enum rc rc = tok_text(m, "precompiled_charsmap", path, 0, &text, e);
    if (rc)
        return rc;
    size_t n = 0;
    char *blob = base64(text, &n);
    if (!blob)
        return tok_bad(e, path, "precompiled_charsmap is not base64");
    rc = charsmap_init(&s->map, (struct str){blob, n}, &why);
    free(blob);
    s->kind = NORM_CHARSMAP;
    return rc ? tok_bad(e, path, "%s", why.msg) : RC_OK;
}

static enum rc load_step(struct norm_step *s, const json_t *m, const char *path, struct err *e) {
    static const struct {
        const char *type;
        struct norm_step step;
    } plain[] = {
        {"NFC", {.kind = NORM_FORM, .form = NF_C}},
        {"NFD", {.kind = NORM_FORM, .form = NF_D}},
        {"NFKC", {.kind = NORM_FORM, .form = NF_KC}},
        {"NFKD", {.kind = NORM_FORM, .form = NF_KD}},
        {"Lowercase", {.kind = NORM_LOWER}},
        {"StripAccents", {.kind = NORM_STRIP_ACCENTS}},
        {"Nmt", {.kind = NORM_NMT}},
        {"ByteLevel", {.kind = NORM_BYTES}},
    };
    const char *type = tok_type(m);
    enum rc rc;
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (strcmp(type, plain[i].type) == 0) {
            *s = plain[i].step;
            return RC_OK;
        }
    if (strcmp(type, "Replace") == 0)
        return load_replace(s, m, path, e);
    if (strcmp(type, "Prepend") == 0)
        return load_prepend(s, m, path, e);
    if (strcmp(type, "BertNormalizer") == 0)
        return load_bert(s, m, path, e);
    if (strcmp(type, "Precompiled") == 0)
        return load_charsmap(s, m, path, e);
    if (strcmp(type, "Strip") == 0) {
        s->kind = NORM_STRIP;
        if ((rc = tok_flag(m, "strip_left", path, true, &s->left, e)))
            return rc;
        return tok_flag(m, "strip_right", path, true, &s->right, e);
    }
    return tok_unsupported(e, path, "normalizer \"%.40s\" is not supported", type);
}

enum rc tok_load_norm(struct tok *t, const json_t *part, struct err *e) {
    struct tok_members list;
    enum rc rc = tok_members(part, "normalizer", "normalizers", &list, e);
    if (rc || list.n == 0)
        return rc;
    t->norm.steps = xcalloc(list.n, sizeof *t->norm.steps);
    for (size_t i = 0; i < list.n && !rc; i++) {
        t->norm.n_steps++; /* first: what a failed step holds is freed with the rest */
        rc = load_step(&t->norm.steps[i], list.at[i].v, list.at[i].path, e);
    }
    return rc;
}
