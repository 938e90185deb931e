/* bpe_chars.h: byte-pair encoding over characters, with byte fallback: SentencePiece's kind. For bpe.c.
 *
 * A pre-token may be the whole text there. Where no merge joins a word's end and the mark (or the space) that
 * starts the next word, each word is encoded by itself, with the same result.
 */
#ifndef WEIR_COMMON_TEXT_BPE_CHARS_H
#define WEIR_COMMON_TEXT_BPE_CHARS_H

#include "common/text/bpe.h"

struct bpe_char {
    uint32_t cp; /* BPE_NONE in an empty slot */
    uint32_t id;
};
enum { BPE_CUTS_MAX = 2 };

struct bpe_chars {
    struct bpe_char *table; /* hash table from character to token */
    uint32_t table_mask;
    char *within, *last; /* affixes; owned. NULL: there are none */
    size_t n_within, n_last;
    struct idmap whole;  /* with affixes: all tokens */
    uint32_t *n_symbols; /* [n_ids] symbols a token is made of */
    bool byte_fallback;
    uint32_t byte_id[256];       /* BPE_NONE: no such token */
    uint32_t cuts[BPE_CUTS_MAX]; /* characters before which words may be cut */
    size_t n_cuts;
    bool cut_first[256]; /* bytes that one of them starts with */
};

/* bpe_chars_init: m's raw, pairs and unk_id must be set; the rest is as in bpe_init_chars. */
void bpe_chars_init(struct bpe_chars *c, struct bpe *m, const struct bpe_merge *merges, bool whole_words,
                    const uint32_t *byte_id, struct bpe_affixes affixes);
void bpe_chars_fini(struct bpe_chars *c);
/* bpe_chars_encode: a pre-token that is no word of m's tables. */
void bpe_chars_encode(const struct bpe *m, const char *p, size_t n, struct tok_ids *out);

#endif
