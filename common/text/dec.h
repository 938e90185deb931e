/* dec.h: the decoder of a tokenizer: a list of steps over each token's piece, then how the pieces are put
 * together (tok_dec.c reads them). Immutable once built; any thread.
 */
#ifndef WEIR_COMMON_TEXT_DEC_H
#define WEIR_COMMON_TEXT_DEC_H

#include "common/buf.h"
#include "common/text/pattern.h"

enum { DEC_STEPS_MAX = 16 };

enum dec_kind {
    DEC_REPLACE,    /* every occurrence of text, or match of pattern, by with */
    DEC_CTC,        /* text goes; cleanup, and then with becomes a space */
    DEC_META,       /* text (one character) is a space; of the first token, nothing where first_drops */
    DEC_WORDPIECE,  /* text off the front, else a space before it (not for the first token); cleanup */
    DEC_STRIP,      /* up to n_start of text (one character) off the front, up to n_stop off the end */
    DEC_SUFFIX,     /* text becomes a space, nothing in the last token */
    DEC_SPACE_JOIN, /* a space between tokens: a file without a decoder */
};
struct dec_step {
    enum dec_kind kind;
    char *text, *with; /* owned */
    struct pattern *pattern; /* owned */
    size_t n_text, n_with, n_start, n_stop;
    bool first_drops, cleanup;
};
enum dec_end {
    DEC_JOIN,          /* pieces are text */
    DEC_BYTE_LEVEL,    /* pieces are bytes in the byte-level alphabet; all together are read as UTF-8 */
    DEC_BYTE_FALLBACK, /* pieces like <0x0A> are bytes; runs of them are read as UTF-8 */
};
struct dec {
    struct dec_step steps[DEC_STEPS_MAX];
    size_t n_steps;
    enum dec_end end;
    char strip[5]; /* one character, NUL: of the whole text, up to so many go from the front and from the end */
    size_t n_strip, n_strip_stop;
    bool no_repeats;    /* of equal tokens in a row the first counts */
    bool first_differs; /* a token decodes otherwise when it is the first */
    bool last_differs;  /* ... the last */
};
void dec_fini(struct dec *d);
/* dec_piece: appends what a piece becomes by the steps; by byte-level decoding too where that is the end. */
void dec_piece(const struct dec *d, struct str piece, bool first, bool last, struct buf *out);
/* dec_byte: whether a decoded piece is <0xHH> to a decoder of that kind; the byte goes to *byte. */
bool dec_byte(const struct dec *d, struct str decoded, uint8_t *byte);

#endif
