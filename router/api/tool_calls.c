/* tool_calls.c: the output of a named or required call, as it comes, to the JSON of calls (api.md 11.1).
 *
 * Named: all text is the arguments. Required: the text is an array of the shape that tools.c lays down,
 *   [{"name": "f", "parameters": ARGUMENTS}, {"name": ...
 * of which the arguments are written out again without white space and without escapes that JSON does not
 * need. A character that later text could still change (an escape cut short) is held back, so deltas only
 * ever grow.
 */
#include "common/utf8.h"
#include "router/api/run.h"

/* add_escaped: s as the inside of a JSON string. */
static void add_escaped(struct buf *out, struct str s) {
    size_t at = out->len;
    jw_str(out, s);
    memmove(out->data + at, out->data + at + 1, out->len - at - 2);
    out->len -= 2;
}

void tool_calls_close(struct tool_calls *t, struct buf *out) {
    if (t->entry_open)
        buf_addz(out, "\"}}");
    t->entry_open = false;
}

static void next_entry(struct tool_calls *t, struct buf *out) {
    tool_calls_close(t, out);
    if (t->n_entries++)
        buf_addc(out, ',');
    buf_addc(out, '{');
    t->entry_open = true;
}

/* add_id: "chatcmpl-tool-" and 32 hex digits, or 9 letters and digits. */
static void add_id(bool is_short, struct buf *out) {
    static const char digits[] = "0123456789abcdef",
                      all[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint64_t random[2];
    fill_random(random, sizeof random);
    if (!is_short)
        buf_addz(out, "chatcmpl-tool-");
    for (unsigned i = 0; i < (is_short ? 9 : 32); i++) {
        uint64_t *half = &random[is_short ? 0 : i / 16], base = is_short ? sizeof all - 1 : 16;
        buf_addc(out, is_short ? all[*half % base] : digits[*half % base]);
        *half /= base;
    }
}

void tool_calls_begin(const struct gen_run *g, struct tool_calls *t, struct str name, struct buf *out) {
    next_entry(t, out);
    if (g->r->stream)
        buf_addf(out, "\"index\":%u,", t->n_calls);
    buf_addz(out, "\"id\":\"");
    add_id(g->r->parse.short_ids, out);
    buf_addz(out, "\",\"type\":\"function\",\"function\":{\"name\":");
    jw_str(out, name);
    buf_addz(out, ",\"arguments\":\"");
    t->n_calls++;
}

void tool_calls_arguments(struct tool_calls *t, struct str text, struct buf *out) {
    if (!text.n)
        return;
    if (!t->entry_open) {
        next_entry(t, out);
        buf_addf(out, "\"index\":%u,\"function\":{\"arguments\":\"", t->n_calls - 1);
    }
    add_escaped(out, text);
}

/* ---- arguments, written again ----------------------------------------------------------------------- */

static unsigned hex4(const char *p) {
    unsigned v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 4 | (unsigned)(p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
    return v;
}

/* escape_done: the held escape is complete: as the character it means, or as it is where JSON needs it. */
static bool escape_done(struct tool_calls *t, struct buf *args) {
    const char *s = t->escape;
    size_t n = t->n_escape;
    if (n < 2 || (s[1] == 'u' && n < 6))
        return false;
    if (s[1] != 'u') {
        buf_add(args, s[1] == '/' ? s + 1 : s, s[1] == '/' ? 1 : 2);
        return true;
    }
    unsigned cp = hex4(s + 2);
    if (cp >= 0xD800 && cp < 0xDC00) {
        if (n < 12)
            return false;
        cp = 0x10000 + ((cp - 0xD800) << 10) + ((hex4(s + 8) - 0xDC00) & 0x3FF);
    }
    char utf8[4];
    bool lone = cp >= 0xDC00 && cp < 0xE000;
    struct str c = {utf8, lone ? 0 : utf8_encode(cp, utf8)};
    if (lone)
        buf_addz(args, UTF8_REPLACEMENT);
    else
        add_escaped(args, c);
    return true;
}

/* take_argument: one byte of a call's arguments. False: it closes the call. */
static bool take_argument(struct tool_calls *t, char c, struct buf *args) {
    if (t->n_escape) {
        if (t->n_escape < sizeof t->escape)
            t->escape[t->n_escape++] = c;
        if (escape_done(t, args))
            t->n_escape = 0;
        return true;
    }
    if (t->in_string) {
        if (c == '\\') {
            t->escape[0] = c;
            t->n_escape = 1;
            return true;
        }
        t->in_string = c != '"';
    } else if (c == '"') {
        t->in_string = true;
    } else if (c == '{' || c == '[') {
        t->depth++;
    } else if (c == '}' || c == ']') {
        if (t->depth == 0)
            return false;
        t->depth--;
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        return true;
    }
    buf_addc(args, c);
    return true;
}

/* ---- the array -------------------------------------------------------------------------------------- */

static void take_required(const struct gen_run *g, struct tool_calls *t, struct str text, struct buf *out) {
    struct buf args = {0};
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        switch (t->stage) {
        case CALL_SEEK: /* to the '"' in front of the name, the third of the call */
            if (c == '"' && !(g->r->parse.one_call && t->n_calls) && ++t->n_quotes == 3) {
                t->stage = CALL_NAME;
                t->name.len = 0;
            }
            break;
        case CALL_NAME:
            if (c != '"') {
                buf_addc(&t->name, c);
                break;
            }
            tool_calls_begin(g, t, buf_str(&t->name), out);
            t->stage = CALL_KEY;
            break;
        case CALL_KEY:
            if (c == ':')
                t->stage = CALL_ARGUMENTS;
            break;
        case CALL_ARGUMENTS:
            if (take_argument(t, c, &args))
                break;
            tool_calls_arguments(t, buf_str(&args), out);
            args.len = 0;
            t->stage = CALL_SEEK;
            t->n_quotes = 0;
            break;
        }
    }
    tool_calls_arguments(t, buf_str(&args), out);
    buf_fini(&args);
}

void tool_calls_take(const struct gen_run *g, struct tool_calls *t, struct str text, struct buf *out) {
    if (g->r->tools_mode == TOOLS_REQUIRED) {
        take_required(g, t, text, out);
    } else {
        if (t->n_calls == 0)
            tool_calls_begin(g, t, g->r->tool_name, out);
        tool_calls_arguments(t, text, out);
    }
}

void tool_calls_fini(struct tool_calls *t) {
    buf_fini(&t->name);
}
