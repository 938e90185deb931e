/* tok_dec.c: reading the decoder of tokenizer.json. */
#include "common/text/tok_impl.h"

#include <stdio.h>

/* add_step: text and with are copied. */
static enum rc add_step(struct dec *d, const char *path, struct dec_step step, struct str text,
                        struct str with, struct err *e) {
    if (d->n_steps == DEC_STEPS_MAX)
        return tok_bad(e, path, "more than %d steps", DEC_STEPS_MAX);
    step.text = xstrndup(text.p ? text.p : "", text.n);
    step.n_text = text.n;
    step.with = xstrndup(with.p ? with.p : "", with.n);
    step.n_with = with.n;
    d->steps[d->n_steps++] = step;
    return RC_OK;
}

static enum rc load_replace(struct dec *d, const json_t *m, const char *path, struct err *e) {
    struct str pattern, content;
    bool regex;
    enum rc rc;
    if ((rc = tok_pattern(m, path, &pattern, &regex, e)) ||
        (rc = tok_text(m, "content", path, 0, &content, e)))
        return rc;
    struct dec_step s = {.kind = DEC_REPLACE};
    if (regex && (rc = tok_compile(pattern, path, &s.pattern, e)))
        return rc;
    if ((rc = add_step(d, path, s, pattern, content, e)))
        pattern_free(s.pattern);
    return rc;
}

static enum rc load_meta(struct dec *d, const json_t *m, const char *path, struct err *e) {
    struct str text;
    enum pre_scheme scheme;
    enum rc rc;
    if ((rc = tok_one_char(m, "replacement", path, &text, e)) || (rc = tok_scheme(m, path, &scheme, e)))
        return rc;
    d->first_differs |= scheme != PRE_NEVER;
    return add_step(d, path, (struct dec_step){.kind = DEC_META, .first_drops = scheme != PRE_NEVER}, text,
                    (struct str){0}, e);
}

static enum rc load_wordpiece(struct dec *d, const json_t *m, const char *path, struct err *e) {
    struct str prefix;
    bool cleanup;
    enum rc rc;
    if ((rc = tok_text(m, "prefix", path, 0, &prefix, e)) ||
        (rc = tok_flag(m, "cleanup", path, true, &cleanup, e)))
        return rc;
    d->first_differs = true;
    return add_step(d, path, (struct dec_step){.kind = DEC_WORDPIECE, .cleanup = cleanup}, prefix,
                    (struct str){0}, e);
}

/* load_strip: fused: the pieces are one text by now. */
static enum rc load_strip(struct dec *d, const json_t *m, const char *path, bool fused, struct err *e) {
    const json_t *start = json_object_get(m, "start"), *stop = json_object_get(m, "stop");
    struct str text;
    enum rc rc = tok_one_char(m, "content", path, &text, e);
    if (rc)
        return rc;
    if (!json_is_integer(start) || json_integer_value(start) < 0 || !json_is_integer(stop) ||
        json_integer_value(stop) < 0)
        return tok_bad(e, path, "start and stop must be numbers from 0");
    size_t n_start = (size_t)json_integer_value(start), n_stop = (size_t)json_integer_value(stop);
    if (!fused)
        return add_step(d, path, (struct dec_step){.kind = DEC_STRIP, .n_start = n_start, .n_stop = n_stop},
                        text, (struct str){0}, e);
    if (d->n_strip || d->n_strip_stop)
        return tok_unsupported(e, path, "a second Strip of the whole text is not supported");
    memcpy(d->strip, text.p, text.n);
    d->n_strip = n_start;
    d->n_strip_stop = n_stop;
    return RC_OK;
}

static enum rc load_suffix(struct dec *d, const json_t *m, const char *path, struct err *e) {
    struct str suffix;
    enum rc rc = tok_text(m, "suffix", path, 1, &suffix, e);
    if (rc)
        return rc;
    d->last_differs = true;
    return add_step(d, path, (struct dec_step){.kind = DEC_SUFFIX}, suffix, (struct str){0}, e);
}

static enum rc load_ctc(struct dec *d, const json_t *m, const char *path, struct err *e) {
    struct str pad, delimiter;
    bool cleanup;
    enum rc rc;
    if ((rc = tok_text(m, "pad_token", path, 1, &pad, e)) ||
        (rc = tok_text(m, "word_delimiter_token", path, 1, &delimiter, e)) ||
        (rc = tok_flag(m, "cleanup", path, true, &cleanup, e)))
        return rc;
    d->no_repeats = true;
    return add_step(d, path, (struct dec_step){.kind = DEC_CTC, .cleanup = cleanup}, pad, delimiter, e);
}

/* load_member: pieces come first, one by one; then bytes are joined; then the text is one. */
static enum rc load_member(struct dec *d, const json_t *m, const char *path, bool *fused, struct err *e) {
    const char *type = tok_type(m);
    bool joined = *fused || d->end != DEC_JOIN;
    if (strcmp(type, "Fuse") == 0) {
        *fused = true;
        return RC_OK;
    }
    if (strcmp(type, "Strip") == 0 && (*fused || !joined))
        return load_strip(d, m, path, *fused, e);
    if (joined)
        return tok_unsupported(e, path, "decoder \"%.40s\" behind one that joins tokens is not supported",
                               type);
    if (strcmp(type, "ByteLevel") == 0) {
        d->end = DEC_BYTE_LEVEL;
        *fused = true;
        return RC_OK;
    }
    if (strcmp(type, "ByteFallback") == 0) {
        d->end = DEC_BYTE_FALLBACK;
        return RC_OK;
    }
    if (strcmp(type, "Replace") == 0)
        return load_replace(d, m, path, e);
    if (strcmp(type, "Metaspace") == 0)
        return load_meta(d, m, path, e);
    if (strcmp(type, "WordPiece") == 0)
        return load_wordpiece(d, m, path, e);
    if (strcmp(type, "BPEDecoder") == 0)
        return load_suffix(d, m, path, e);
    if (strcmp(type, "CTC") == 0)
        return load_ctc(d, m, path, e);
    return tok_unsupported(e, path, "decoder \"%.40s\" is not supported", type);
}

enum rc tok_load_dec(struct tok *t, const json_t *part, struct err *e) {
    struct tok_members list;
    struct dec *d = &t->dec;
    bool fused = false;
    if (tok_absent(part)) {
        d->first_differs = true;
        return add_step(d, "decoder", (struct dec_step){.kind = DEC_SPACE_JOIN}, (struct str){0},
                        (struct str){0}, e);
    }
    enum rc rc = tok_members(part, "decoder", "decoders", &list, e);
    for (size_t i = 0; i < list.n && !rc; i++)
        rc = load_member(d, list.at[i].v, list.at[i].path, &fused, e);
    if (rc)
        return rc;
    if (d->no_repeats && (d->n_steps > 1 || d->end != DEC_JOIN))
        return tok_unsupported(e, "decoder", "CTC together with other decoders is not supported");
    if (d->last_differs && d->end != DEC_JOIN)
        return tok_unsupported(e, "decoder", "BPEDecoder together with bytes is not supported");
    return RC_OK;
}
