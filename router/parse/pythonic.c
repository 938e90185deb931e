/* pythonic.c: [f(a=1), g(b="x")] with literals as values: pythonic, and llama4_pythonic, which may put marks around
 * them. */
#include "router/parse/private.h"

#define MARK(s) {s, sizeof(s) - 1}

enum {
    TEXT = 0,
    TAGGED, /* behind an opening mark */
    AT_NAME,
    NAME,
    AT_KEY, /* behind '(' or ',' */
    KEY,
    AT_EQUALS,
    VALUE,
    AT_COMMA,
    AT_NEXT, /* behind ')' */
};
enum { MARK_START = 0, MARK_TAG, MARK_END, WORD_BYTES_MAX = 256 };

static void start(struct parse *p) {
    p->state = TEXT;
    marks_set(&p->marks, p->family->marks, p->family == &family_llama4_pythonic ? 3 : 0, FAMILY_SLOT);
}

/* may_open: a '[' here is no index and no nested list, by the byte in front of it. */
static bool may_open(const struct parse *p) {
    char c = p->before;
    return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             (c && strchr("_)]\"'`([", c)));
}

static void open(struct parse *p) {
    hold_byte(p, '[');
    p->n_in = 0;
    p->state = AT_NAME;
}

static void text(struct parse *p, char c) {
    p->loose.len = 0;
    int mark = marks_byte(&p->marks, c, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++) {
        char b = p->loose.data[i];
        if (b == '[' && may_open(p))
            open(p); /* the last one: no mark has a '[' */
        else
            text_byte(p, b);
        p->before = b;
    }
    if (mark == MARK_END && p->open) {
        p->open = false;
        if (p->quiet)
            p->held.len = 0;
    } else if (mark == MARK_END) {
        struct str m = p->family->marks[mark];
        for (size_t i = 0; i < (is_hidden(c) ? 1 : m.n); i++)
            text_byte(p, is_hidden(c) ? c : m.p[i]);
    } else if (mark >= 0) {
        hold_mark(p, mark, c);
        p->open = false;
        p->state = TAGGED;
    }
}

/* give_up: what is held is content; a call that has begun stays as it is. */
static void give_up(struct parse *p, char c) {
    p->before = p->held.len ? p->held.data[p->held.len - 1] : 0;
    if (p->attempt)
        hold_release(p);
    else
        p->quiet = true;
    p->state = TEXT;
    text(p, c);
}

static bool word_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool word_char(char c) {
    return word_start(c) || (c >= '0' && c <= '9');
}

/* begin: the call, once it is sure to be one. */
static void begin(struct parse *p) {
    struct call_json *c = &p->call;
    if (c->begun)
        return;
    emit_call(p, buf_str(&c->name));
    c->begun = true;
    emit(p, PARSE_ARGUMENTS, "{", 1);
}

static void key_out(struct parse *p) {
    struct call_json *c = &p->call;
    begin(p);
    emit(p, PARSE_ARGUMENTS, ", ", p->n_args++ ? 2 : 0);
    emit(p, PARSE_ARGUMENTS, "\"", 1);
    emit(p, PARSE_ARGUMENTS, c->key.data, c->key.len); /* a word: nothing to escape */
    emit(p, PARSE_ARGUMENTS, "\": ", 3);
}

/* value_out: more of the value at hand. */
static void value_out(struct parse *p, const struct buf *json) {
    if (json->len && !p->key_sent) {
        key_out(p);
        p->key_sent = true;
    }
    emit(p, PARSE_ARGUMENTS, json->data, json->len);
}

/* behind: ',' or ')' after an argument, or the ')' of a call without. */
static bool behind(struct parse *p, char c) {
    if (c != ',' && c != ')')
        return is_space(c);
    if (p->state == AT_COMMA)
        value_out(p, &p->call.args);
    p->state = c == ',' ? AT_KEY : AT_NEXT;
    if (c == ')' && p->call.begun)
        emit(p, PARSE_ARGUMENTS, "}", 1);
    return true;
}

/* to_value: of the key at hand. */
static void to_value(struct parse *p) {
    literal_start(&p->literal);
    p->key_sent = false;
    p->state = VALUE;
}

static bool value(struct parse *p, char c) {
    struct buf *out = &p->call.piece;
    out->len = 0;
    enum literal_step is = literal_byte(&p->literal, c, out);
    if (is == LITERAL_BAD)
        return false;
    if (is == LITERAL_MORE) {
        value_out(p, out);
        return true;
    }
    p->state = AT_COMMA; /* its end waits: an expression may go on behind it */
    p->call.args.len = 0;
    buf_add_str(&p->call.args, buf_str(out));
    return is == LITERAL_DONE || behind(p, c);
}

static void close_list(struct parse *p) {
    p->held.len = 0;
    p->quiet = p->open = true;
    p->before = 0;
    p->state = TEXT;
}

/* between: behind a call. */
static bool between(struct parse *p, char c) {
    if (is_space(c))
        return true;
    if (c != ',' && c != ']')
        return false;
    if (!p->call.begun) {
        begin(p);
        emit(p, PARSE_ARGUMENTS, "}", 1);
    }
    p->n_in++;
    p->call.begun = false;
    p->state = AT_NAME;
    if (c == ']')
        close_list(p);
    return true;
}

/* word: a byte of a name or a key, or the one behind it. */
static bool word(struct parse *p, char c) {
    bool is_name = p->state == NAME;
    struct buf *to = is_name ? &p->call.name : &p->call.key;
    if ((word_char(c) || (is_name && c == '.')) && to->len < WORD_BYTES_MAX) {
        buf_addc(to, c);
        return true;
    }
    p->state = is_name ? AT_KEY : AT_EQUALS;
    if (is_name)
        return c == '(';
    if (c == '=')
        to_value(p);
    return c == '=' || is_space(c);
}

/* at_name: in front of a name, or behind the last comma. */
static bool at_name(struct parse *p, char c) {
    if (c == ']' && p->n_in) {
        close_list(p);
        return true;
    }
    if (!word_start(c))
        return is_space(c);
    p->call.name.len = 0;
    buf_addc(&p->call.name, c);
    p->n_args = 0;
    p->state = NAME;
    return true;
}

static bool at_key(struct parse *p, char c) {
    if (!word_start(c))
        return c == ')' ? behind(p, c) : is_space(c);
    p->call.key.len = 0;
    buf_addc(&p->call.key, c);
    p->state = KEY;
    return true;
}

/* list: a byte of a list of calls. False: it has no place there. */
static bool list(struct parse *p, char c) {
    switch (p->state) {
    case AT_NAME:
        return at_name(p, c);
    case AT_KEY:
        return at_key(p, c);
    case AT_EQUALS:
        if (c == '=')
            to_value(p);
        return c == '=' || is_space(c);
    case NAME:
    case KEY:
        return word(p, c);
    case VALUE:
        return value(p, c);
    case AT_COMMA:
        return behind(p, c);
    default:
        return between(p, c);
    }
}

static void byte(struct parse *p, char c) {
    if (p->state == TEXT) {
        text(p, c);
    } else if (p->state == TAGGED) {
        if (c == '[')
            open(p);
        else if (is_space(c))
            hold_byte(p, c);
        else
            give_up(p, c);
    } else if (!list(p, c)) {
        give_up(p, c);
    } else if (p->state != TEXT && !p->call.begun) {
        buf_addc(&p->held, c);
        p->attempt |= p->state != AT_NAME;
    }
}

static void end(struct parse *p) {
    p->loose.len = 0;
    marks_rest(&p->marks, &p->loose);
    for (size_t i = 0; i < p->loose.len; i++)
        text_byte(p, p->loose.data[i]);
    hold_end(p);
}

const struct family family_pythonic = {"pythonic", {{NULL, 0}}, start, byte, end};
const struct family family_llama4_pythonic = {
    "llama4_pythonic",
    {MARK("<|python_start|>"), MARK("<|python_tag|>"), MARK("<|python_end|>")},
    start,
    byte,
    end};
