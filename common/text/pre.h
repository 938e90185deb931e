/* pre.h: the pre-tokeniser of a tokenizer: a list of steps, each of which cuts every piece that the step
 * before it left (tok_pre.c reads them).
 *
 * Immutable once built; any thread. Linear time. Pieces that are empty go no further.
 */
#ifndef WEIR_COMMON_TEXT_PRE_H
#define WEIR_COMMON_TEXT_PRE_H

#include "common/text/pattern.h"
#include "common/text/split.h"
#include "common/text/tok.h"

enum { PRE_STEPS_MAX = 16 };

enum pre_kind {
    PRE_SPLIT,        /* by a splitter: its pieces cover the text */
    PRE_PREFIX_SPACE, /* a space before a piece that does not start with one */
    PRE_META,         /* spaces become `text`, one is put in front (scheme), cut before each (cut) */
    PRE_BERT,         /* words and single punctuation characters; spaces go */
    PRE_WORDS,        /* \w+ and [^\w\s]+; spaces go */
    PRE_MATCH,        /* at what match finds, as behavior says */
    PRE_FIXED,        /* every n characters */
    PRE_SCRIPTS,      /* where the script changes */
    PRE_BYTES,        /* bytes become letters of the byte-level alphabet */
};
enum pre_match {
    PRE_MATCH_SPACE,
    PRE_MATCH_PUNCT,
    PRE_MATCH_NUMERIC,
    PRE_MATCH_TEXT, /* occurrences of `text` */
    PRE_MATCH_PATTERN,
};
enum pre_behavior { /* what becomes of a match, in Hugging Face's names */
                    PRE_REMOVED,
                    PRE_ISOLATED,
                    PRE_MERGED_WITH_PREVIOUS,
                    PRE_MERGED_WITH_NEXT,
                    PRE_CONTIGUOUS,
};
enum pre_scheme { PRE_NEVER, PRE_FIRST, PRE_ALWAYS };

struct pre_step {
    enum pre_kind kind;
    split_fn *split;
    enum pre_match match;
    enum pre_behavior behavior;
    bool invert; /* what does not match counts as matched */
    enum pre_scheme scheme;
    bool cut;
    char *text;              /* owned */
    struct pattern *pattern; /* owned */
    size_t n_text, n_fixed;
};
struct pre {
    struct pre_step steps[PRE_STEPS_MAX];
    size_t n_steps;
};
void pre_fini(struct pre *pre);

/* Where the pieces go: a model's encoder. */
struct pre_sink {
    void (*encode)(const void *self, const char *p, size_t n, struct tok_ids *out);
    const void *self;
    struct tok_ids *out;
};
/* pre_run: cuts n > 0 bytes of valid UTF-8. A piece that starts in the first n_front bytes starts where the
 * tokenizer's input does. */
void pre_run(const struct pre *pre, const char *p, size_t n, size_t n_front, const struct pre_sink *sink);

#endif
