/* mistral.c: [TOOL_CALLS] and then a list of objects, or one, or NAME{...}, NAME[ARGS]{...}, or
 * NAME[CALL_ID]ID[ARGS]{...}. The id is not used. */
#include "router/parse/private.h"

#define MARK(s) {s, sizeof(s) - 1}

enum {
    TEXT = 0,
    FIRST, /* behind [TOOL_CALLS] */
    LIST,
    OBJECT, /* of a list, or alone */
    NAME,
    ID,
    ARGS, /* behind [ARGS] */
    NAMED /* the arguments */
};
enum { MARK_CALLS = 0, MARK_ARGS, MARK_ID, N_MARKS };
enum { NAME_MAX_BYTES = 256 };

/* to: the next state, and the marks that count in it. */
static void to(struct parse *p, int state) {
    p->state = state;
    p->marks.n_tail = 0; /* what may begin a mark is held as it was written, too */
    marks_set(&p->marks, p->family->marks, state == TEXT ? 1 : N_MARKS, FAMILY_SLOT);
}

static void start(struct parse *p) {
    to(p, TEXT);
}

static void text(struct parse *p, char c) {
    p->loose.len = 0;
    int mark = marks_byte(&p->marks, c, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    if (mark >= 0) {
        hold_mark(p, mark, c);
        p->n_in = 0;
        p->call.name.len = 0;
        to(p, FIRST);
    }
}

/* fail: what is held is content; c is looked at again. */
static void fail(struct parse *p, char c) {
    if (p->attempt)
        hold_release(p);
    to(p, TEXT);
    text(p, c);
}

static bool name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_-./:", c));
}

static void open_object(struct parse *p) {
    hold_byte(p, '{');
    call_json_start(&p->call, false);
    p->state = OBJECT;
}

static void first(struct parse *p, char c) {
    if (is_space(c)) {
        hold_byte(p, c);
    } else if (c == '[') {
        hold_byte(p, c);
        p->open = true;
        p->state = LIST;
    } else if (c == '{') {
        p->open = false;
        open_object(p);
    } else if (name_char(c)) {
        hold_byte(p, c);
        buf_addc(&p->call.name, c);
        to(p, NAME);
    } else {
        fail(p, c);
    }
}

static void list(struct parse *p, char c) {
    if (is_space(c) || (c == ',' && p->n_in)) {
        buf_addc(&p->held, c);
    } else if (c == '{') {
        open_object(p);
    } else if (c == ']' && p->n_in) {
        p->held.len = 0; /* the list's own punctuation */
        to(p, TEXT);
    } else {
        fail(p, c);
    }
}

static void object(struct parse *p, char c) {
    enum call_step step = hold_call(p, c);
    if (step == CALL_FAIL) {
        to(p, TEXT);
        text(p, c);
    } else if (step == CALL_DONE) {
        if (p->open && p->state == OBJECT)
            p->state = LIST;
        else
            to(p, TEXT);
    }
}

/* head_byte: of a name or an id, white space behind it, or the arguments' '{'. */
static bool head_byte(struct parse *p, char c) {
    if (c == '{') {
        call_json_named(p, &p->call);
        p->state = NAMED;
        return true;
    }
    if (is_space(c))
        return true;
    if (p->state == ID && name_char(c))
        return true;
    if (p->state != NAME || !name_char(c) || p->call.name.len >= NAME_MAX_BYTES ||
        is_space(p->held.data[p->held.len - 2]))
        return false;
    buf_addc(&p->call.name, c);
    return true;
}

static void head(struct parse *p, char c) {
    hold_byte(p, c);
    p->loose.len = 0;
    int mark = marks_byte(&p->marks, c, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        if (!head_byte(p, p->loose.data[i])) {
            p->held.len--;
            fail(p, c);
            return;
        }
    if (mark == MARK_ARGS && p->state != ARGS) {
        to(p, ARGS);
    } else if (mark == MARK_ID && p->state == NAME) {
        to(p, ID);
    } else if (mark >= 0) { /* out of place */
        struct str m = p->family->marks[mark];
        p->held.len -= is_hidden(c) ? 1 : m.n;
        hold_release(p);
        to(p, TEXT);
        for (size_t i = 0; i < (is_hidden(c) ? 1 : m.n); i++)
            text(p, is_hidden(c) ? c : m.p[i]);
    }
}

static void byte(struct parse *p, char c) {
    switch (p->state) {
    case TEXT:
        text(p, c);
        return;
    case FIRST:
        first(p, c);
        return;
    case LIST:
        list(p, c);
        return;
    case OBJECT:
    case NAMED:
        object(p, c);
        return;
    default:
        head(p, c);
    }
}

static void end(struct parse *p) {
    marks_end(p, p->state == TEXT);
}

const struct family family_mistral = {
    "mistral", {MARK("[TOOL_CALLS]"), MARK("[ARGS]"), MARK("[CALL_ID]")}, start, byte, end};
