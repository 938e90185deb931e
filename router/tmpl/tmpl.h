/* tmpl.h: chat templates: a Jinja2 engine with Hugging Face's settings.
 *
 * Settings: trim_blocks, lstrip_blocks, loop controls, sandbox, no autoescape, keep_trailing_newline
 * off, `generation` blocks; filters and globals of api.md 10.2. Output is byte-equal to Python's.
 * A compiled template is immutable and shared by threads; a rendering uses one thread and an arena.
 * Every rendering has budgets of steps, depth and output.
 */
#ifndef WEIR_ROUTER_TMPL_TMPL_H
#define WEIR_ROUTER_TMPL_TMPL_H

#include <jansson.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

struct tmpl;

struct tmpl_limits {
    size_t template_bytes_max; /* 256 KiB */
    uint64_t steps_max;        /* 5,000,000 */
    size_t output_bytes_max;   /* 16 MiB */
    unsigned depth_max;        /* 64: loop, call and expression nesting, at parse and at run */
};
extern const struct tmpl_limits tmpl_limits_default;

/* tmpl_compile: RC_INVALID with the template's message and line, as "message (line N)". The text is
 * copied. */
MUST_USE enum rc tmpl_compile(struct tmpl **out, struct str text, const struct tmpl_limits *limits,
                              struct err *e);
void tmpl_free(struct tmpl *t);
/* tmpl_bytes: the memory it takes. */
size_t tmpl_bytes(const struct tmpl *t);

/* A stretch of output that came from client text, [begin, end) in bytes. */
struct tmpl_mark {
    size_t begin, end;
};
struct tmpl_out {
    struct buf text;
    struct tmpl_mark *marks; /* sorted, merged; heap */
    size_t n_marks, cap_marks;
};
void tmpl_out_fini(struct tmpl_out *o);

/* A top-level variable. Strings inside a value with `client` set are marked wherever they, or text
 * made from them (slices, strip, upper, joins, tojson, concatenation: per part), reach the output.
 * Keys of objects count as client text too when `client` is set. */
struct tmpl_var {
    const char *name;
    const json_t *value; /* borrowed for the rendering; json null is None */
    bool client;
};

/* tmpl_render: RC_INVALID for raise_exception, an undefined operation or a spent budget, with the
 * template's message and line. now_unix_s feeds strftime_now (0: the clock). Memory for values comes
 * from a. out is written on success only. Thread-safe for one t. */
MUST_USE enum rc tmpl_render(const struct tmpl *t, const struct tmpl_var *vars, size_t n_vars, int64_t now_unix_s,
                             struct arena *a, struct tmpl_out *out, struct err *e);

/* tmpl_uses_openai_content: whether a for loop iterates over the `content` of an element of
 * `messages`, through assignments, filters, tests, slices and aliases (api.md 10.3.1). */
bool tmpl_uses_openai_content(const struct tmpl *t);
/* tmpl_mentions: whether the template's source contains the word. */
bool tmpl_mentions(const struct tmpl *t, const char *word);

#endif
