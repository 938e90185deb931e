/* private.h: the parts of the parser. Inside router/parse only.
 *
 * Bytes pass two stages: reasoning.c tells reasoning from the rest, and gives the rest to one family of tool
 * formats, which is a state machine over bytes with one byte of push-back. What may yet turn out to be a call
 * waits in `held`. A failed attempt is released as content and never read again, so time stays linear.
 */
#ifndef WEIR_ROUTER_PARSE_PRIVATE_H
#define WEIR_ROUTER_PARSE_PRIVATE_H

#include "common/buf.h"
#include "router/parse/parse.h"

/* ---- marks.c: finding fixed strings ------------------------------------------------------------------ */

enum { MARK_BYTES_MAX = 40, MARKS_MAX = 6 };
struct marks {
    const struct str *m; /* [n] each of 1 to MARK_BYTES_MAX bytes; none begins another */
    size_t n;
    unsigned slot; /* of m[0]: its hidden byte is PARSE_MARK_BYTE(slot) */
    size_t n_tail; /* bytes that may begin a mark */
    char tail[MARK_BYTES_MAX];
};
/* marks_set: looks for m from now on. What the tail held must have been taken. */
void marks_set(struct marks *s, const struct str *m, size_t n, unsigned slot);
/* marks_byte: returns the index of the mark that c completes, or -1; appends to loose what can no longer be
 * part of one. */
int marks_byte(struct marks *s, char c, struct buf *loose);
/* marks_rest: appends the tail to loose. */
void marks_rest(struct marks *s, struct buf *loose);

static inline bool is_hidden(char c) {
    return (unsigned char)c >= (unsigned char)PARSE_MARK_BYTE(0);
}
static inline bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* ---- json.c: JSON, a byte at a time ------------------------------------------------------------------- */

/* unescape: the inside of a JSON string to the text it means. */
struct unescape {
    char have[12];
    size_t n_have; /* of an escape not complete */
};
/* unescape_byte: appends what is certain. False: no such escape; nothing was appended for it. */
bool unescape_byte(struct unescape *u, char c, struct buf *out);
/* unescape_end: the string ends here. */
void unescape_end(struct unescape *u, struct buf *out);
/* json_char: appends a code point as inside a JSON string. A surrogate is written as U+FFFD. */
void json_char(uint32_t cp, struct buf *out);

/* json_value: the extent of one value, lenient inside: brackets are counted, strings are strings. */
enum value_step {
    VALUE_MORE, /* the byte belongs to it */
    VALUE_DONE, /* the byte was its last */
    VALUE_OVER, /* it ended before this byte */
    VALUE_BAD,  /* no JSON has this byte here */
};
struct json_value {
    size_t depth;
    bool in_string, escaped, scalar;
};
enum value_step json_value_byte(struct json_value *v, char c);

/* call_json: one object {"name": ..., "arguments": ...}. Its pieces go to the parser as soon as the name is
 * known and the arguments begin. Arguments are the object as it was written, or, of a string, its text. */
enum call_step {
    CALL_MORE,
    CALL_DONE, /* the object is closed */
    CALL_FAIL, /* not a call, or, once begun, broken: the byte was not taken */
};
struct call_json {
    int state;
    bool strict;   /* no tag says that this is a call: other keys mean that it is none, and it has arguments */
    bool has_name; /* `name` is complete */
    bool has_args; /* `args` is, or was sent */
    bool begun;    /* PARSE_CALL is out */
    bool bare;     /* only arguments: their end is the call's */
    bool in_object; /* arguments as a string: its '{' came */
    struct buf key, name, args, piece;
    struct unescape esc;
    struct json_value value;
};
void call_json_start(struct call_json *c, bool strict); /* the '{' was taken */
/* call_json_named: the '{' of the arguments was taken; `name` is set. Begins the call. */
void call_json_named(struct parse *p, struct call_json *c);
enum call_step call_json_byte(struct parse *p, struct call_json *c, char b);
void call_json_fini(struct call_json *c);
/* hold_call: call_json_byte on p->call, with what is held kept right: after CALL_FAIL it is released. */
enum call_step hold_call(struct parse *p, char b);

/* ---- literal.c: Python literals to JSON ---------------------------------------------------------------- */

enum { LITERAL_DEPTH_MAX = 128, LITERAL_SCALAR_MAX = 512 };
enum literal_step {
    LITERAL_MORE,
    LITERAL_DONE, /* the byte was its last */
    LITERAL_OVER, /* it ended before this byte */
    LITERAL_BAD,  /* not a literal: numbers, strings, True, False, None, lists and dicts of them */
};
struct literal {
    int state;
    uint32_t depth;
    bool is_dict[LITERAL_DEPTH_MAX], is_key[LITERAL_DEPTH_MAX]; /* a key, not a value, is next or at hand */
    bool some[LITERAL_DEPTH_MAX];                               /* it has members */
    char quote;
    unsigned n_quotes; /* triple: 3; else 1 */
    unsigned n_closing;
    char escape[12];
    size_t n_escape;
    uint32_t high; /* first half of a surrogate pair; 0: none */
    size_t n_scalar;
    char scalar[LITERAL_SCALAR_MAX];
};
void literal_start(struct literal *l);
/* literal_byte: appends to out the JSON that is certain. */
enum literal_step literal_byte(struct literal *l, char c, struct buf *out);
/* literal_end: no byte follows. LITERAL_DONE or LITERAL_BAD. */
enum literal_step literal_end(struct literal *l, struct buf *out);
/* json_byte: a byte of text as inside a JSON string. */
void json_byte(char c, struct buf *out);

/* ---- parse.c ------------------------------------------------------------------------------------------ */

struct family {
    const char *name;
    struct str marks[MARKS_MAX]; /* from slot FAMILY_SLOT on */
    void (*start)(struct parse *p);
    void (*byte)(struct parse *p, char c);
    void (*end)(struct parse *p); /* what is held: hold_end does for most */
};
enum { FAMILY_SLOT = 2 };
extern const struct family family_hermes, family_jamba, family_llama3_json, family_llama4_json, family_mistral,
    family_pythonic, family_llama4_pythonic, family_qwen3_coder;

struct reasoner; /* reasoning.c */
struct parse {
    struct parse_opts o;
    struct parse_sink sink;
    struct buf out; /* of one kind, not sent yet */
    enum parse_part out_part;
    bool any_hidden; /* a mark byte came in */
    /* reasoning */
    const struct reasoner *reasoner;
    int thinks;
    struct marks think_marks;
    struct buf lead; /* white space before the first mark, then scratch */
    size_t n_lead;   /* of it looked at */
    /* tools */
    const struct family *family;
    bool called;   /* a call began */
    bool shut;     /* content came first: what follows is content */
    int state;
    struct marks marks;
    struct buf held; /* white space behind a call, then an attempt at one */
    bool attempt;    /* held has more than white space */
    bool quiet;      /* directly behind a call: white space is held */
    bool open;       /* behind a mark that another closes */
    size_t n_in;     /* calls since that mark */
    char last;       /* of the content, white space apart; 0: none, or a call was last */
    struct call_json call;
    struct literal literal;
    char before;   /* pythonic: the byte in front; 0: none, or a call */
    bool key_sent; /* of the argument at hand */
    size_t n_args; /* of the call at hand that are out */
    unsigned types; /* of the parameter at hand */
    bool newline;   /* its value goes on with one, unless it ends */
    bool at_start;  /* of its value */
    int first_mark; /* index in the family's of marks.m[0] */
    struct buf loose; /* scratch of `marks` */
};

/* emit: a piece of a part. emit_call: a call begins; what was held is its head, and is gone. */
void emit(struct parse *p, enum parse_part part, const char *s, size_t n);
void emit_call(struct parse *p, struct str name);
/* text_byte: content, unless it is white space behind a call. */
void text_byte(struct parse *p, char c);
/* hold_byte: part of an attempt. hold_release: the attempt is content. hold_end: at the end. */
void hold_byte(struct parse *p, char c);
void hold_release(struct parse *p);
void hold_end(struct parse *p);
/* marks_end: hold_end, and where the output ends in text, what may have been the beginning of a mark is content. */
void marks_end(struct parse *p, bool in_text);
/* hold_mark: the mark i of the family, as it was written. */
void hold_mark(struct parse *p, int i, char last);

/* ---- reasoning.c -------------------------------------------------------------------------------------- */

const struct reasoner *reasoner_of(enum parse_reasoning r);
void reasoning_start(struct parse *p);
void reasoning_byte(struct parse *p, char c);
void reasoning_end(struct parse *p);

#endif
