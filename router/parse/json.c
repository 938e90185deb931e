/* json.c: JSON a byte at a time: strings, the extent of values, and the object that a call is. */
#include "common/utf8.h"
#include "router/parse/private.h"

/* ---- strings -------------------------------------------------------------------------------------------- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static uint32_t hex4(const char *p) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 4 | (uint32_t)hex_digit(p[i]);
    return v;
}

static void add_code(uint32_t cp, struct buf *out) {
    char utf8[4];
    if (cp >= 0xD800 && cp < 0xE000)
        buf_addz(out, UTF8_REPLACEMENT);
    else
        buf_add(out, utf8, utf8_encode(cp, utf8));
}

/* simple: the character of a two-byte escape; 0: there is none. */
static char simple(char c) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = c ? strchr(from, c) : NULL;
    return at ? to[at - from] : 0;
}

/* unicode_done: n_have bytes of \uXXXX or of a pair are complete. */
static void unicode_done(struct unescape *u, struct buf *out) {
    uint32_t high = hex4(u->have + 2);
    if (u->n_have == 6) {
        if (high >= 0xD800 && high < 0xDC00)
            return; /* its other half may follow */
        add_code(high, out);
    } else {
        uint32_t low = hex4(u->have + 8);
        if (low >= 0xDC00 && low < 0xE000) {
            add_code(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), out);
        } else {
            buf_addz(out, UTF8_REPLACEMENT);
            if (low >= 0xD800 && low < 0xDC00) { /* again a first half */
                memmove(u->have, u->have + 6, 6);
                u->n_have = 6;
                return;
            }
            add_code(low, out);
        }
    }
    u->n_have = 0;
}

bool unescape_byte(struct unescape *u, char c, struct buf *out) {
    size_t n = u->n_have;
    if (n == 0 || (n == 6 && c != '\\')) {
        if (n == 6)
            buf_addz(out, UTF8_REPLACEMENT); /* half a pair */
        u->n_have = 0;
        if (c == '\\')
            u->have[u->n_have++] = c;
        else if (!is_hidden(c))
            buf_addc(out, c);
        return true;
    }
    if (n == 7 && c != 'u') { /* half a pair, then an escape of another kind */
        buf_addz(out, UTF8_REPLACEMENT);
        u->n_have = n = 1;
    }
    if (n == 1 && c != 'u') {
        u->n_have = 0;
        if (!simple(c))
            return false;
        buf_addc(out, simple(c));
        return true;
    }
    if (n % 6 >= 2 && hex_digit(c) < 0) {
        u->n_have = 0;
        return false;
    }
    u->have[u->n_have++] = c;
    if (u->n_have % 6 == 0)
        unicode_done(u, out);
    return true;
}

void unescape_end(struct unescape *u, struct buf *out) {
    if (u->n_have == 6)
        buf_addz(out, UTF8_REPLACEMENT);
    u->n_have = 0;
}

void json_char(uint32_t cp, struct buf *out) {
    static const char names[] = "\b\f\n\r\t", letters[] = "bfnrt";
    const char *at = cp && cp < 0x20 ? strchr(names, (char)cp) : NULL;
    if (cp == '"' || cp == '\\' || at) {
        buf_addc(out, '\\');
        buf_addc(out, at ? letters[at - names] : (char)cp);
    } else if (cp < 0x20) {
        buf_addf(out, "\\u%04x", (unsigned)cp);
    } else {
        add_code(cp, out);
    }
}

void json_byte(char c, struct buf *out) {
    if ((unsigned char)c < 0x20 || c == '"' || c == '\\')
        json_char((unsigned char)c, out);
    else if (!is_hidden(c))
        buf_addc(out, c);
}

/* ---- values --------------------------------------------------------------------------------------------- */

enum value_step json_value_byte(struct json_value *v, char c) {
    if (v->in_string) {
        if (v->escaped)
            v->escaped = false;
        else if (c == '\\')
            v->escaped = true;
        else
            v->in_string = c != '"';
        return v->in_string || v->depth ? VALUE_MORE : VALUE_DONE;
    }
    if (c == '<' || is_hidden(c))
        return VALUE_BAD;
    if (v->depth == 0 && v->scalar) {
        if (c == ',' || c == '}' || c == ']' || is_space(c))
            return VALUE_OVER;
        bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
                    c == '+' || c == '-';
        return word ? VALUE_MORE : VALUE_BAD;
    }
    if (c == '"') {
        v->in_string = true;
    } else if (c == '{' || c == '[') {
        v->depth++;
    } else if (c == '}' || c == ']') {
        if (v->depth == 0)
            return VALUE_BAD;
        return --v->depth ? VALUE_MORE : VALUE_DONE;
    } else if (v->depth == 0) {
        v->scalar = true;
        return (c >= '0' && c <= '9') || (c && strchr("-tfnNI", c)) ? VALUE_MORE : VALUE_BAD;
    }
    return VALUE_MORE;
}

/* ---- the object of a call --------------------------------------------------------------------------------- */

enum {
    AT_KEY = 0, /* a key, or the end of an empty object */
    AT_NEXT_KEY,
    IN_KEY,
    AT_COLON,
    AT_VALUE, /* of `key` */
    IN_NAME,
    IN_ARGS,   /* an object: as it is */
    IN_STRING, /* arguments as a string that holds them */
    IN_NULL,   /* no arguments */
    IN_OTHER,  /* the value of another key */
    AT_COMMA,
};
enum { NAME_BYTES_MAX = 256, KEY_BYTES_MAX = 64 };

void call_json_start(struct call_json *c, bool strict) {
    c->state = AT_KEY;
    c->strict = strict;
    c->has_name = c->has_args = c->begun = c->bare = false;
    c->key.len = c->name.len = c->args.len = 0;
    c->esc.n_have = 0;
    c->in_object = false;
    c->value = (struct json_value){0};
}

void call_json_named(struct parse *p, struct call_json *c) {
    size_t n_name = c->name.len;
    call_json_start(c, false);
    c->name.len = n_name;
    c->has_name = c->has_args = c->bare = true;
    c->state = IN_ARGS;
    (void)json_value_byte(&c->value, '{');
    emit_call(p, buf_str(&c->name));
    c->begun = true;
    emit(p, PARSE_ARGUMENTS, "{", 1);
}

void call_json_fini(struct call_json *c) {
    buf_fini(&c->key);
    buf_fini(&c->name);
    buf_fini(&c->args);
    buf_fini(&c->piece);
}

static bool is_args(struct str key) {
    return str_eqz(key, "arguments") || str_eqz(key, "parameters");
}

static void begin(struct parse *p, struct call_json *c) {
    emit_call(p, buf_str(&c->name));
    c->begun = true;
    emit(p, PARSE_ARGUMENTS, c->args.data, c->args.len);
    c->args.len = 0;
}

/* add_args: of the arguments' text; they wait for the name. */
static void add_args(struct parse *p, struct call_json *c, const char *s, size_t n) {
    if (c->begun)
        emit(p, PARSE_ARGUMENTS, s, n);
    else
        buf_add(&c->args, s, n);
}

/* string_byte: of a key or a name. */
static enum call_step string_byte(struct call_json *c, struct buf *to, size_t max, int next, char b) {
    if (b == '"' && (c->esc.n_have == 0 || c->esc.n_have == 6)) {
        unescape_end(&c->esc, to);
        c->state = next;
        if (to != &c->name)
            return CALL_MORE;
        c->has_name = to->len > 0;
        return c->has_name ? CALL_MORE : CALL_FAIL;
    }
    bool control = (unsigned char)b < 0x20;
    return !control && unescape_byte(&c->esc, b, to) && to->len <= max ? CALL_MORE : CALL_FAIL;
}

/* value_start: the first byte of a value. */
static enum call_step value_start(struct parse *p, struct call_json *c, char b) {
    struct str key = buf_str(&c->key);
    c->value = (struct json_value){0};
    if (str_eqz(key, "name") && !c->begun) {
        c->state = IN_NAME;
        c->name.len = 0;
        c->has_name = false;
        return b == '"' ? CALL_MORE : CALL_FAIL;
    }
    if (is_args(key) && !c->has_args) {
        c->has_args = true;
        if (b != '{' && b != '"' && b != 'n')
            return CALL_FAIL;
        c->state = b == '{' ? IN_ARGS : b == '"' ? IN_STRING : IN_NULL;
        (void)json_value_byte(&c->value, b);
        if (b == '"')
            return CALL_MORE;
        if (c->has_name)
            begin(p, c);
        add_args(p, c, "{}", b == 'n' ? 2 : 1);
        return CALL_MORE;
    }
    if (c->strict && !str_eqz(key, "type") && !str_eqz(key, "id") && !str_eqz(key, "name"))
        return CALL_FAIL;
    c->state = IN_OTHER;
    return json_value_byte(&c->value, b) == VALUE_BAD ? CALL_FAIL : CALL_MORE;
}

/* args_byte: of an object. A control character that JSON does not allow is written as its escape. */
static enum call_step args_byte(struct parse *p, struct call_json *c, char b) {
    bool in_string = c->value.in_string;
    enum value_step step = json_value_byte(&c->value, b);
    if (step == VALUE_BAD)
        return CALL_FAIL;
    if (in_string && (unsigned char)b < 0x20) {
        c->piece.len = 0;
        json_byte(b, &c->piece);
        add_args(p, c, c->piece.data, c->piece.len);
    } else {
        add_args(p, c, &b, 1);
    }
    if (step == VALUE_DONE)
        c->state = AT_COMMA;
    return step == VALUE_DONE && c->bare ? CALL_DONE : CALL_MORE;
}

/* text_args_byte: of a string, which must hold an object, or nothing. */
static enum call_step text_args_byte(struct parse *p, struct call_json *c, char b) {
    bool ends = b == '"' && (c->esc.n_have == 0 || c->esc.n_have == 6);
    c->piece.len = 0;
    if (ends)
        unescape_end(&c->esc, &c->piece);
    else if (!unescape_byte(&c->esc, b, &c->piece))
        return CALL_FAIL;
    for (size_t i = 0; i < c->piece.len && !c->in_object; i++) {
        if (is_space(c->piece.data[i]))
            continue;
        if (c->piece.data[i] != '{')
            return CALL_FAIL;
        c->in_object = true;
        if (c->has_name)
            begin(p, c);
    }
    if (c->in_object)
        add_args(p, c, c->piece.data, c->piece.len);
    if (!ends)
        return CALL_MORE;
    c->state = AT_COMMA;
    c->has_args = c->in_object; /* "": as if there were none */
    return CALL_MORE;
}

/* between: outside of values. */
static enum call_step between(struct parse *p, struct call_json *c, char b) {
    if (is_space(b))
        return CALL_MORE;
    if ((c->state == AT_KEY || c->state == AT_NEXT_KEY) && b == '"') {
        c->state = IN_KEY;
        c->key.len = 0;
        return CALL_MORE;
    }
    if (c->state == AT_COLON && b == ':') {
        c->state = AT_VALUE;
        return CALL_MORE;
    }
    if (c->state == AT_VALUE)
        return value_start(p, c, b);
    if (c->state == AT_COMMA && b == ',') {
        c->state = AT_NEXT_KEY;
        return CALL_MORE;
    }
    if (c->state != AT_COMMA || b != '}' || !c->has_name || (c->strict && !c->has_args))
        return CALL_FAIL;
    if (!c->begun)
        begin(p, c);
    if (!c->has_args)
        emit(p, PARSE_ARGUMENTS, "{}", 2);
    return CALL_DONE;
}

enum call_step call_json_byte(struct parse *p, struct call_json *c, char b) {
    switch (c->state) {
    case IN_KEY:
        return string_byte(c, &c->key, KEY_BYTES_MAX, AT_COLON, b);
    case IN_NAME:
        return string_byte(c, &c->name, NAME_BYTES_MAX, AT_COMMA, b);
    case IN_ARGS:
        return args_byte(p, c, b);
    case IN_STRING:
        return text_args_byte(p, c, b);
    case IN_NULL:
    case IN_OTHER: {
        enum value_step step = json_value_byte(&c->value, b);
        if (step == VALUE_BAD)
            return CALL_FAIL;
        if (step == VALUE_MORE)
            return CALL_MORE;
        c->state = AT_COMMA;
        return step == VALUE_OVER ? between(p, c, b) : CALL_MORE;
    }
    default:
        return between(p, c, b);
    }
}

enum call_step hold_call(struct parse *p, char b) {
    struct call_json *c = &p->call;
    enum call_step step = call_json_byte(p, c, b);
    if (step == CALL_FAIL && !c->begun)
        hold_release(p);
    else if (step == CALL_FAIL)
        p->quiet = true;
    else if (!c->begun)
        hold_byte(p, b);
    if (step == CALL_DONE) {
        p->quiet = true;
        p->n_in++;
    }
    return step;
}
