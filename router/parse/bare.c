/* bare.c: calls as JSON objects without marks around them: llama3_json, llama4_json. A mark may come first, and
 * ';' stands between them. */
#include "router/parse/private.h"

#define MARK(s) {s, sizeof(s) - 1}

enum {
    TEXT = 0,
    TAGGED, /* behind the mark */
    OBJECT,
    BETWEEN, /* behind an object */
};

static void start(struct parse *p) {
    p->state = TEXT;
    marks_set(&p->marks, p->family->marks, 1, FAMILY_SLOT);
}

/* open: an object begins. tagged: nothing else is meant by it. */
static void open(struct parse *p, bool tagged) {
    hold_byte(p, '{');
    call_json_start(&p->call, !tagged);
    p->state = OBJECT;
}

/* may_open: a '{' here is not inside other JSON or code, by what stands before it. */
static bool may_open(const struct parse *p) {
    return !p->last || !strchr(":,[({=\"'`", p->last);
}

static void text(struct parse *p, char c) {
    p->loose.len = 0;
    int mark = marks_byte(&p->marks, c, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        if (p->loose.data[i] == '{' && may_open(p))
            open(p, false); /* the last one: no mark has a '{' */
        else
            text_byte(p, p->loose.data[i]);
    if (mark >= 0) {
        hold_mark(p, mark, c);
        p->state = TAGGED;
    }
}

static void byte(struct parse *p, char c) {
    enum call_step step;
    switch (p->state) {
    case TEXT:
        text(p, c);
        return;
    case TAGGED:
        if (is_space(c)) {
            hold_byte(p, c);
        } else if (c == '{') {
            open(p, true);
        } else {
            hold_release(p);
            p->state = TEXT;
            text(p, c);
        }
        return;
    case OBJECT:
        step = hold_call(p, c);
        if (step == CALL_DONE)
            p->state = BETWEEN;
        if (step != CALL_FAIL)
            return;
        p->state = TEXT;
        text(p, c);
        return;
    default:
        if (is_space(c) || c == ';') {
            buf_addc(&p->held, c);
        } else {
            p->state = TEXT;
            text(p, c);
        }
    }
}

static void end(struct parse *p) {
    p->loose.len = 0;
    marks_rest(&p->marks, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    hold_end(p);
}

const struct family family_llama3_json = {"llama3_json", {MARK("<|python_tag|>")}, start, byte, end};
const struct family family_llama4_json = {"llama4_json", {MARK("<|python_tag|>")}, start, byte, end};
