/* norm.h: the normaliser of a tokenizer: a list of steps over the text (tok_norm.c reads them).
 *
 * Immutable once built; any thread. Every step takes linear time.
 */
#ifndef WEIR_COMMON_TEXT_NORM_H
#define WEIR_COMMON_TEXT_NORM_H

#include "common/text/charsmap.h"
#include "common/text/nfc.h"
#include "common/text/pattern.h"

enum norm_kind {
    NORM_FORM,          /* NFC and the like: form */
    NORM_LOWER,         /* lower case, a character at a time */
    NORM_STRIP,         /* spaces at the ends: left, right */
    NORM_STRIP_ACCENTS, /* combining marks */
    NORM_NMT,           /* control characters and odd spaces, as SentencePiece's nmt rules */
    NORM_REPLACE,       /* every occurrence of pattern by content */
    NORM_REPLACE_RUN,   /* every run of at least run_min of a character: pattern, or any space if empty */
    NORM_REPLACE_PATTERN, /* every match of compiled by content */
    NORM_PREPEND,       /* content before a text that is not empty */
    NORM_BYTES,         /* each byte as a character of the byte-level alphabet */
    NORM_BERT,          /* clean_text, chinese, accents, lower */
    NORM_CHARSMAP,      /* map */
};

struct norm_step {
    enum norm_kind kind;
    enum nf_form form;
    bool left, right;
    bool clean_text, chinese, accents, lower;
    char *pattern, *content; /* owned */
    size_t n_pattern, n_content, run_min;
    struct pattern *compiled; /* owned */
    struct charsmap map;
    uint8_t ascii[128]; /* NORM_BERT: what an ASCII character becomes; 0: nothing */
};

struct norm {
    struct norm_step *steps; /* [n_steps] */
    size_t n_steps;
};

void norm_fini(struct norm *m);
/* norm_bert_init: fills ascii from the flags. */
void norm_bert_init(struct norm_step *s);
/* norm_run: normalises n bytes of valid UTF-8. false: they are normal already. true: out, which must be
 * empty, holds the result. map (or NULL): positions to move along. *front (or NULL): how many bytes from the
 * text's first on count as its first character's; moves along, and is 0 once that is gone. */
bool norm_run(const struct norm *m, const char *p, size_t n, struct buf *out, struct nf_map *map,
              size_t *front);

#endif
