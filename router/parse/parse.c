#include <stdlib.h>

#include "router/parse/private.h"

static const struct family *const families[N_TOOLS_PARSER] = {
    [TOOLS_PARSER_HERMES] = &family_hermes,
    [TOOLS_PARSER_LLAMA3_JSON] = &family_llama3_json,
    [TOOLS_PARSER_LLAMA4_JSON] = &family_llama4_json,
    [TOOLS_PARSER_PYTHONIC] = &family_pythonic,
    [TOOLS_PARSER_LLAMA4_PYTHONIC] = &family_llama4_pythonic,
    [TOOLS_PARSER_MISTRAL] = &family_mistral,
    [TOOLS_PARSER_JAMBA] = &family_jamba,
    [TOOLS_PARSER_QWEN3_CODER] = &family_qwen3_coder,
};

bool parse_tools_find(const char *name, enum parse_tools *out) {
    for (size_t i = TOOLS_PARSER_NONE + 1; i < N_TOOLS_PARSER; i++)
        if (strcmp(name, families[i]->name) == 0) {
            *out = (enum parse_tools)i;
            return true;
        }
    return false;
}

void parse_marks(const struct parse_opts *o, struct str marks[PARSE_MARKS_MAX]) {
    memset(marks, 0, PARSE_MARKS_MAX * sizeof *marks);
    if (o->reasoning == REASONING_DEEPSEEK_R1 || o->reasoning == REASONING_QWEN3) {
        const struct str *open, *close; /* the phrases of granite are no tokens */
        (void)parse_reasoning_marks(o->reasoning, &open, &close);
        marks[0] = open[0];
        marks[1] = close[0];
    }
    for (size_t i = 0; o->tools && i < MARKS_MAX; i++)
        marks[FAMILY_SLOT + i] = families[o->tools]->marks[i];
}

static int str_order(struct str a, struct str b) {
    int d = a.n && b.n ? memcmp(a.p, b.p, MIN(a.n, b.n)) : 0;
    return d ? d : (a.n > b.n) - (a.n < b.n);
}

int parse_type_order(const void *pa, const void *pb) {
    const struct parse_type *a = pa, *b = pb;
    int d = str_order(a->tool, b->tool);
    return d ? d : str_order(a->name, b->name);
}

/* ---- parts --------------------------------------------------------------------------------------------- */

static void flush(struct parse *p) {
    if (p->any_hidden) {
        size_t n = 0;
        for (size_t i = 0; i < p->out.len; i++)
            if (!is_hidden(p->out.data[i]))
                p->out.data[n++] = p->out.data[i];
        p->out.len = n;
    }
    if (p->out.len)
        p->sink.part(p->sink.arg, p->out_part, buf_str(&p->out));
    p->out.len = 0;
}

void emit(struct parse *p, enum parse_part part, const char *s, size_t n) {
    if (!n)
        return;
    if (part != p->out_part)
        flush(p);
    p->out_part = part;
    buf_add(&p->out, s, n);
    if (p->o.calls_first && part == PARSE_CONTENT && !p->called)
        for (size_t i = 0; i < n && !p->shut; i++)
            p->shut = !is_space(s[i]) && !is_hidden(s[i]);
}

void emit_call(struct parse *p, struct str name) {
    flush(p);
    p->held.len = 0;
    p->attempt = p->quiet = false;
    p->called = true;
    p->last = 0;
    p->sink.part(p->sink.arg, PARSE_CALL, name);
}

/* ---- what is held --------------------------------------------------------------------------------------- */

/* note_last: a ':' at the end of a line is prose, not JSON. */
static void note_last(struct parse *p, char c) {
    if (c == '\n' && p->last == ':')
        p->last = 0;
    else if (!is_space(c) && !is_hidden(c))
        p->last = c;
}

void text_byte(struct parse *p, char c) {
    if (p->quiet && (is_space(c) || is_hidden(c))) {
        buf_addc(&p->held, c);
        return;
    }
    if (p->quiet)
        hold_release(p);
    emit(p, PARSE_CONTENT, &c, 1);
    note_last(p, c);
}

void hold_byte(struct parse *p, char c) {
    p->attempt = true;
    buf_addc(&p->held, c);
}

void hold_mark(struct parse *p, int i, char last) {
    if (is_hidden(last))
        hold_byte(p, last);
    else
        buf_add_str(&p->held, p->family->marks[i]);
    p->attempt = true;
}

void hold_release(struct parse *p) {
    p->attempt = p->quiet = false;
    emit(p, PARSE_CONTENT, p->held.data, p->held.len);
    for (size_t i = 0; i < p->held.len; i++)
        note_last(p, p->held.data[i]);
    p->held.len = 0;
}

void hold_end(struct parse *p) {
    if (p->attempt)
        hold_release(p);
    p->held.len = 0;
}

void marks_end(struct parse *p, bool in_text) {
    p->loose.len = 0;
    if (in_text)
        marks_rest(&p->marks, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    hold_end(p);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

struct parse *parse_new(const struct parse_opts *o, struct parse_sink sink) {
    CHECK(o->tools < N_TOOLS_PARSER);
    struct parse *p = xcalloc(1, sizeof *p);
    p->o = *o;
    p->sink = sink;
    p->reasoner = reasoner_of(o->reasoning);
    p->family = families[o->tools];
    reasoning_start(p);
    if (p->family)
        p->family->start(p);
    return p;
}

void parse_free(struct parse *p) {
    if (!p)
        return;
    call_json_fini(&p->call);
    buf_fini(&p->out);
    buf_fini(&p->lead);
    buf_fini(&p->held);
    buf_fini(&p->loose);
    free(p);
}

void parse_push(struct parse *p, struct str text) {
    for (size_t i = 0; i < text.n; i++) {
        p->any_hidden |= is_hidden(text.p[i]);
        reasoning_byte(p, text.p[i]);
    }
    flush(p);
}

void parse_end(struct parse *p) {
    reasoning_end(p);
    if (p->family && !p->shut)
        p->family->end(p);
    flush(p);
}
