/* qwen_coder.c: calls as tags: <tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>:
 * qwen3_coder. A value is text without the newline after its tag and the one before the next; the tool's schema says
 * what it is. Strings go out as they come; what is typed otherwise is short, waits for its end and is written as JSON
 * of that type, or, where it is not of that type, as a string. */
#include <stdlib.h>

#include "common/json.h"
#include "router/parse/private.h"

#define MARK(s) {s, sizeof(s) - 1}

enum {
    TEXT = 0,
    OPENED, /* behind <tool_call> */
    NAME,
    BODY,
    KEY,
    VALUE,
    TYPED, /* a value that waits for its end */
};
enum { MARK_OPEN = 0, MARK_CLOSE, MARK_NAME, MARK_END, MARK_KEY, MARK_KEY_END, N_MARKS };
enum { WORD_BYTES_MAX = 256 };

/* to: the next state, and the marks that count in it. */
static void to(struct parse *p, int state) {
    static const struct {
        int first, n;
    } range[] = {[TEXT] = {MARK_OPEN, 3}, [OPENED] = {MARK_OPEN, 3}, [NAME] = {0, 0},
                 [BODY] = {MARK_CLOSE, 4}, [KEY] = {0, 0},           [VALUE] = {MARK_END, 3},
                 [TYPED] = {MARK_END, 3}};
    p->state = state;
    p->marks.n_tail = 0;
    p->first_mark = range[state].first;
    marks_set(&p->marks, p->family->marks + range[state].first, (size_t)range[state].n,
              (unsigned)(FAMILY_SLOT + range[state].first));
}

static void start(struct parse *p) {
    to(p, TEXT);
}

static void to_name(struct parse *p) {
    p->call.name.len = 0;
    p->call.begun = false;
    p->n_args = 0;
    to(p, NAME);
}

/* scan: c to p->loose; the index of a mark of the family, or -1. */
static int scan(struct parse *p, char c) {
    p->loose.len = 0;
    int mark = marks_byte(&p->marks, c, &p->loose);
    return mark < 0 ? mark : mark + p->first_mark;
}

static void text(struct parse *p, char c) {
    int mark = scan(p, c);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    if (mark == MARK_CLOSE) {
        struct str m = p->family->marks[mark];
        if (p->open && p->quiet)
            p->held.len = 0;
        for (size_t i = 0; i < m.n && !p->open && !is_hidden(c); i++)
            text_byte(p, m.p[i]);
        p->open = false;
    } else if (mark >= 0) {
        hold_mark(p, mark, c);
        p->open = mark == MARK_OPEN ? false : p->open;
        if (mark == MARK_OPEN)
            to(p, OPENED);
        else
            to_name(p);
    }
}

/* give_up: c has no place here. Not held yet; what is, is content, unless the call has begun. */
static void give_up(struct parse *p, char c) {
    if (p->attempt) {
        hold_release(p);
    } else {
        p->quiet = p->open = true;
        p->held.len = 0;
    }
    to(p, TEXT);
    text(p, c);
}

/* begin: the call. */
static void begin(struct parse *p) {
    if (p->call.begun)
        return;
    emit_call(p, buf_str(&p->call.name));
    p->call.begun = true;
    emit(p, PARSE_ARGUMENTS, "{", 1);
}

static void finish(struct parse *p) {
    begin(p);
    emit(p, PARSE_ARGUMENTS, "}", 1);
    p->quiet = p->open = true;
    to(p, TEXT);
}

static void word(struct parse *p, char c) {
    struct buf *b = p->state == NAME ? &p->call.name : &p->call.key;
    if (c == '>' && b->len) {
        if (!p->call.begun)
            hold_byte(p, c);
        if (p->state == NAME) {
            to(p, BODY);
            return;
        }
        begin(p);
        p->call.piece.len = 0;
        jw_str(&p->call.piece, buf_str(b));
        emit(p, PARSE_ARGUMENTS, ", ", p->n_args++ ? 2 : 0);
        emit(p, PARSE_ARGUMENTS, p->call.piece.data, p->call.piece.len);
        emit(p, PARSE_ARGUMENTS, ": ", 2);
        struct parse_type key = {.tool = buf_str(&p->call.name), .name = buf_str(b)}, *type = NULL;
        if (p->o.n_types)
            type = bsearch(&key, p->o.types, p->o.n_types, sizeof key, parse_type_order);
        p->types = type && type->types ? type->types : PARSE_STRING;
        p->newline = false;
        p->at_start = true;
        p->call.args.len = 0;
        to(p, p->types == PARSE_STRING ? VALUE : TYPED);
        if (p->types == PARSE_STRING)
            emit(p, PARSE_ARGUMENTS, "\"", 1);
        return;
    }
    if (c == '<' || c == '>' || (unsigned char)c < 0x20 || is_hidden(c) || b->len >= WORD_BYTES_MAX ||
        (p->state == NAME && c == ' ')) {
        give_up(p, c);
        return;
    }
    buf_addc(b, c);
    if (!p->call.begun)
        hold_byte(p, c);
}

/* body: between parameters. */
static void body(struct parse *p, char c) {
    if (!p->call.begun)
        hold_byte(p, c);
    int mark = scan(p, c);
    for (size_t i = 0; i < p->loose.len; i++)
        if (!is_space(p->loose.data[i])) {
            if (!p->call.begun)
                p->held.len--;
            give_up(p, c);
            return;
        }
    if (mark == MARK_KEY) {
        p->call.key.len = 0;
        to(p, KEY);
    } else if (mark == MARK_END) {
        finish(p);
    } else if (mark == MARK_CLOSE) {
        finish(p);
        p->open = false;
    } else if (mark == MARK_NAME) { /* the end of the function before it is missing */
        finish(p);
        to_name(p);
    }
}

/* ---- values --------------------------------------------------------------------------------------------- */

/* value_byte: of a string: the first newline is none of it, nor is the last. */
static void value_byte(struct parse *p, char c) {
    struct buf *out = &p->call.piece;
    bool first = p->at_start;
    p->at_start = false;
    if (first && c == '\n')
        return;
    out->len = 0;
    if (p->newline)
        json_byte('\n', out);
    p->newline = c == '\n';
    if (!p->newline)
        json_byte(c, out);
    emit(p, PARSE_ARGUMENTS, out->data, out->len);
}

static struct str trim(struct str s) {
    while (s.n && is_space(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* literal_of: s as JSON; false: it is no literal. */
static bool literal_of(struct literal *l, struct str s, struct buf *out) {
    literal_start(l);
    for (size_t i = 0; i < s.n; i++) {
        enum literal_step step = literal_byte(l, s.p[i], out);
        if (step == LITERAL_DONE)
            return i + 1 == s.n;
        if (step != LITERAL_MORE)
            return false;
    }
    return literal_end(l, out) == LITERAL_DONE;
}

/* kind_of: what JSON this is; 0: none. */
static unsigned kind_of(struct str json) {
    static const unsigned kinds[] = {[JSON_OBJECT] = PARSE_OBJECT,   [JSON_ARRAY] = PARSE_ARRAY,
                                     [JSON_STRING] = PARSE_STRING,   [JSON_INTEGER] = PARSE_INTEGER,
                                     [JSON_REAL] = PARSE_NUMBER,     [JSON_TRUE] = PARSE_BOOLEAN,
                                     [JSON_FALSE] = PARSE_BOOLEAN,   [JSON_NULL] = PARSE_NULL};
    static const struct json_limits limits = {.depth_max = LITERAL_DEPTH_MAX + 1, .nodes_max = 1 << 20};
    json_t *v = NULL;
    struct buf list = {0};
    struct err e = {0};
    unsigned kind = 0;
    buf_addc(&list, '[');
    buf_add_str(&list, json);
    buf_addc(&list, ']');
    if (json_parse(buf_str(&list), &limits, &v, &e) == RC_OK && json_array_size(v) == 1)
        kind = kinds[json_typeof(json_array_get(v, 0))];
    json_decref(v);
    buf_fini(&list);
    return kind;
}

/* fits: JSON of this kind is what the schema says. A quoted string is text with quotes. */
static bool fits(unsigned types, unsigned kind) {
    if (kind == PARSE_INTEGER)
        return types & (PARSE_INTEGER | PARSE_NUMBER);
    if (kind == PARSE_NULL)
        return (types & PARSE_NULL) || !(types & PARSE_STRING);
    return kind != PARSE_STRING && (types & kind);
}

/* typed_out: a whole value. */
static void typed_out(struct parse *p) {
    struct str text = buf_str(&p->call.args), inner = trim(text);
    struct buf *json = &p->call.piece;
    json->len = 0;
    if (fits(p->types, kind_of(inner))) {
        emit(p, PARSE_ARGUMENTS, inner.p, inner.n);
        return;
    }
    if (literal_of(&p->literal, inner, json) && fits(p->types, kind_of(buf_str(json)))) {
        emit(p, PARSE_ARGUMENTS, json->data, json->len);
        return;
    }
    if (text.n && text.p[0] == '\n')
        text.p++, text.n--;
    if (text.n && text.p[text.n - 1] == '\n')
        text.n--;
    json->len = 0;
    jw_str(json, text);
    emit(p, PARSE_ARGUMENTS, json->data, json->len);
}

static void value(struct parse *p, char c) {
    int mark = scan(p, c);
    for (size_t i = 0; i < p->loose.len; i++)
        if (p->state == VALUE)
            value_byte(p, p->loose.data[i]);
        else if (!is_hidden(p->loose.data[i]))
            buf_addc(&p->call.args, p->loose.data[i]);
    if (mark < 0)
        return;
    if (p->state == TYPED)
        typed_out(p);
    else
        emit(p, PARSE_ARGUMENTS, "\"", 1);
    p->call.key.len = 0;
    if (mark == MARK_END)
        finish(p);
    else
        to(p, mark == MARK_KEY ? KEY : BODY); /* the end of a value may be missing */
}

/* ---- the family ----------------------------------------------------------------------------------------- */

static void opened(struct parse *p, char c) {
    hold_byte(p, c);
    int mark = scan(p, c);
    bool bad = false;
    for (size_t i = 0; i < p->loose.len; i++)
        bad |= !is_space(p->loose.data[i]);
    if (mark == MARK_NAME) {
        to_name(p);
    } else if (mark >= 0) { /* out of place: what was before it is content */
        struct str m = p->family->marks[mark];
        p->held.len -= is_hidden(c) ? 1 : m.n;
        hold_release(p);
        to(p, TEXT);
        for (size_t i = 0; i < (is_hidden(c) ? 1 : m.n); i++)
            text(p, is_hidden(c) ? c : m.p[i]);
    } else if (bad) {
        p->held.len--;
        give_up(p, c);
    }
}

static void byte(struct parse *p, char c) {
    switch (p->state) {
    case TEXT:
        text(p, c);
        return;
    case OPENED:
        opened(p, c);
        return;
    case NAME:
    case KEY:
        word(p, c);
        return;
    case BODY:
        body(p, c);
        return;
    default:
        value(p, c);
    }
}

static void end(struct parse *p) {
    marks_end(p, p->state == TEXT);
}

const struct family family_qwen3_coder = {"qwen3_coder",
                                          {MARK("<tool_call>"), MARK("</tool_call>"), MARK("<function="),
                                           MARK("</function>"), MARK("<parameter="), MARK("</parameter>")},
                                          start,
                                          byte,
                                          end};
