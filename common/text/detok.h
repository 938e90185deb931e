/* detok.h: token ids to text, a token at a time.
 *
 * Joined pieces equal the tokenizer's decoding of all ids at once in the context of the prompt's end.
 * A piece never ends inside a character: an incomplete UTF-8 sequence is held back until it is
 * completed or proved invalid (then U+FFFD, as Hugging Face writes it). Tokenizers with byte fallback read a
 * run of byte tokens as a whole: one invalid byte makes every byte of the run U+FFFD. So a run is held back
 * until it ends; from DETOK_RUN_MAX bytes on, its complete characters go out. One thread at a time.
 */
#ifndef WEIR_COMMON_TEXT_DETOK_H
#define WEIR_COMMON_TEXT_DETOK_H

#include "common/text/tok.h"

enum { DETOK_RUN_MAX = 124 };

struct detok {
    const struct tok *tok;
    uint8_t pending[DETOK_RUN_MAX + 4]; /* bytes of an incomplete character, or of a run of byte tokens */
    uint8_t n_pending;
    bool run_is_bad; /* byte fallback: this run is not UTF-8; none of its bytes is */
    bool skip_special;
    bool spaces_between_special;
    bool at_start; /* nothing was decoded yet: leading-space rules of some kinds */
    bool after_special;
    bool has_held;
    uint32_t held;    /* the last token, where decoding it depends on whether another follows */
    bool has_before;
    uint32_t before;  /* the token before, where equal ones in a row are one */
    uint32_t n_tail;  /* characters that end the text so far and go if nothing else follows */
    uint32_t n_strip; /* leading characters still to be taken off */
};

/* detok_init: prompt_tail are the last ids of the prompt (may be empty, a handful is enough). */
void detok_init(struct detok *d, const struct tok *t, const uint32_t *prompt_tail, size_t n_tail,
                bool skip_special, bool spaces_between_special);
/* detok_push: appends to out the text that id completes, possibly none. */
void detok_push(struct detok *d, uint32_t id, struct buf *out);
/* detok_finish: appends U+FFFD for a character that will never be completed. */
void detok_finish(struct detok *d, struct buf *out);
/* detok_all: the whole decoding of ids. */
void detok_all(const struct tok *t, const uint32_t *ids, size_t n, bool skip_special, struct buf *out);

#endif
