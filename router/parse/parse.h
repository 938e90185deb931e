/* parse.h: what a model wrote, taken apart as it comes: reasoning, content and tool calls (api.md 11.2, 11.3).
 *
 * A push parser for one choice. Text goes in as it is released, in pieces of any size; parts come out as soon
 * as no later text can change them. Cutting the same text elsewhere changes how the parts are cut, never what
 * they join to. Time is linear in the text for any text, memory at most proportional to what is held back: the
 * head of a call until it is known to be one, and values that are typed as a whole (qwen3_coder).
 *
 * A call counts as one from the moment its name and the beginning of its arguments are there. What does not
 * get that far is content, unchanged. What breaks off later stays a call with partial arguments.
 *
 * Marks: `<tool_call>` and the like are found as text. Where one is a special token that text hides, the
 * caller puts the byte PARSE_MARK_BYTE(i) in its place, which no UTF-8 has; a part never holds such a byte.
 *
 * One thread at a time. Nothing here knows of tokens or of JSON answers.
 */
#ifndef WEIR_ROUTER_PARSE_PARSE_H
#define WEIR_ROUTER_PARSE_PARSE_H

#include "common/base.h"

enum parse_reasoning { REASONING_NONE = 0, REASONING_DEEPSEEK_R1, REASONING_QWEN3, REASONING_GRANITE };
enum parse_tools {
    TOOLS_PARSER_NONE = 0,
    TOOLS_PARSER_HERMES,
    TOOLS_PARSER_LLAMA3_JSON,
    TOOLS_PARSER_LLAMA4_JSON,
    TOOLS_PARSER_PYTHONIC,
    TOOLS_PARSER_LLAMA4_PYTHONIC,
    TOOLS_PARSER_MISTRAL,
    TOOLS_PARSER_JAMBA,
    TOOLS_PARSER_QWEN3_CODER,
    N_TOOLS_PARSER
};

/* parse_tools_find, parse_reasoning_find: by name; false: there is none of that name. */
bool parse_tools_find(const char *name, enum parse_tools *out);
bool parse_reasoning_find(const char *name, enum parse_reasoning *out);
/* parse_reasoning_marks: the spellings of what begins and what ends the reasoning: how many there are of each. */
size_t parse_reasoning_marks(enum parse_reasoning kind, const struct str **open, const struct str **close);
/* Their names, as choices of a flag. */
#define PARSE_TOOLS_CHOICES "hermes|llama3_json|llama4_json|pythonic|llama4_pythonic|mistral|jamba|qwen3_coder"
#define PARSE_REASONING_CHOICES "deepseek_r1|qwen3|granite"

/* What a parameter of a tool may be: values of qwen3_coder are text, typed by the schema. None: a string. */
enum {
    PARSE_STRING = 1,
    PARSE_INTEGER = 2,
    PARSE_NUMBER = 4,
    PARSE_BOOLEAN = 8,
    PARSE_OBJECT = 16,
    PARSE_ARRAY = 32,
    PARSE_NULL = 64,
    PARSE_ANY = 127
};
struct parse_type {
    struct str tool, name;
    unsigned types;
};
/* parse_type_order: by tool, then by name; for qsort. */
int parse_type_order(const void *a, const void *b);

struct parse_opts {
    enum parse_reasoning reasoning;
    enum parse_tools tools;
    bool in_reasoning; /* the prompt ends with an open mark of reasoning */
    bool calls_first;  /* content that does not begin with a call has none */
    const struct parse_type *types; /* [n_types] in parse_type_order; must outlive the parser */
    size_t n_types;
};

/* parse_reasoning_begins: whether the output must begin with the first mark to have reasoning. */
bool parse_reasoning_begins(const struct parse_opts *o);

enum { PARSE_MARKS_MAX = 8 };
#define PARSE_MARK_BYTE(i) ((char)(0xF8 + (i)))
/* parse_marks: the marks these options look for; empty slots in between. Slot 1 ends the reasoning, where a
 * fixed mark does. */
enum { PARSE_MARK_REASONING_END = 1 };
void parse_marks(const struct parse_opts *o, struct str marks[PARSE_MARKS_MAX]);

enum parse_part {
    PARSE_CONTENT,
    PARSE_REASONING,
    PARSE_CALL,      /* a call begins; the text is its name */
    PARSE_ARGUMENTS, /* of the call begun last: JSON text */
};
struct parse_sink {
    void (*part)(void *arg, enum parse_part part, struct str text); /* text is valid during the call */
    void *arg;
};

struct parse;
struct parse *parse_new(const struct parse_opts *o, struct parse_sink sink);
void parse_free(struct parse *p); /* NULL is fine */
/* parse_push: more text: UTF-8 and mark bytes. Parts of one kind in a row come as one. */
void parse_push(struct parse *p, struct str text);
/* parse_end: there is no more: what was held back goes out. Once, last. */
void parse_end(struct parse *p);
/* parse_reasons: the text so far ends inside the reasoning. */
bool parse_reasons(const struct parse *p);

#endif
