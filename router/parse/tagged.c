/* tagged.c: calls as JSON between two marks: hermes (an object), jamba (a list of them). */
#include "router/parse/private.h"

#define MARK(s) {s, sizeof(s) - 1}

enum { TEXT = 0, INSIDE, OBJECT };
enum { MARK_OPEN = 0, MARK_CLOSE };

static void start(struct parse *p) {
    p->state = TEXT;
    marks_set(&p->marks, p->family->marks, 2, FAMILY_SLOT);
}

/* on_mark: c completed a mark outside of an object. */
static void on_mark(struct parse *p, int mark, char c) {
    if (mark == MARK_OPEN) {
        hold_mark(p, mark, c);
        p->state = INSIDE;
        p->open = false;
        p->n_in = 0;
    } else if (p->open) {
        p->open = false;
        if (p->quiet)
            p->held.len = 0; /* white space before the end */
    } else if (is_hidden(c)) {
        text_byte(p, c);
    } else {
        struct str m = p->family->marks[mark];
        for (size_t i = 0; i < m.n; i++)
            text_byte(p, m.p[i]);
    }
}

static void text(struct parse *p, char c) {
    p->loose.len = 0;
    int mark = marks_byte(&p->marks, c, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    if (mark >= 0)
        on_mark(p, mark, c);
}

/* inside: between the opening mark and an object, or behind an object. */
static void inside(struct parse *p, char c) {
    bool list = p->family != &family_hermes && (c == '[' || c == ']');
    if (is_space(c)) {
        buf_addc(&p->held, c);
    } else if (p->n_in && (list || c == ',')) {
        return; /* punctuation between calls is nobody's */
    } else if (list && c == '[') {
        hold_byte(p, c);
    } else if (c == '{') {
        hold_byte(p, c);
        call_json_start(&p->call, false);
        p->state = OBJECT;
    } else {
        if (p->attempt)
            hold_release(p);
        p->state = TEXT;
        text(p, c);
    }
}

static void object(struct parse *p, char c) {
    enum call_step step = hold_call(p, c);
    if (step != CALL_MORE && p->call.begun)
        p->open = true;
    if (step == CALL_FAIL) {
        p->state = TEXT;
        text(p, c);
    } else if (step == CALL_DONE) {
        p->state = INSIDE;
    }
}

static void byte(struct parse *p, char c) {
    if (p->state == TEXT)
        text(p, c);
    else if (p->state == INSIDE)
        inside(p, c);
    else
        object(p, c);
}

static void end(struct parse *p) {
    p->loose.len = 0;
    marks_rest(&p->marks, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    hold_end(p);
}

const struct family family_hermes = {
    "hermes", {MARK("<tool_call>"), MARK("</tool_call>")}, start, byte, end};
const struct family family_jamba = {
    "jamba", {MARK("<tool_calls>"), MARK("</tool_calls>")}, start, byte, end};
