/* bpe.h: byte-pair encoding of one pre-token, and its tables.
 *
 * Immutable once built; any thread. What is computed: start from one symbol a byte, or one a character
 * (bpe_chars.h); merge the adjacent pair of lowest rank, the leftmost of equals, until no pair has a rank.
 *
 * Long pre-tokens are encoded in overlapping windows. Why that is exact: (1) the encoding of a text
 * cut at its token boundaries is the encoding of each stretch of tokens, because merges inside
 * a stretch happen in the same order as they would alone; (2) conversely a sequence of tokens each
 * neighbouring pair of which is the encoding of its own text is the encoding of the whole: look at
 * the first merge that would cross a boundary; up to it both sides evolved as in the pair alone, so
 * it would happen there too. Hence two windows that share one token (same place, same id) can be
 * joined at it. If two windows share none, the pre-token is done again with larger windows.
 */
#ifndef WEIR_COMMON_TEXT_BPE_H
#define WEIR_COMMON_TEXT_BPE_H

#include "common/text/idmap.h"
#include "common/text/tok.h"

enum { BPE_NONE = UINT32_MAX, BPE_INLINE_MAX = 11, BPE_WHOLE_MAX = 256 };

struct bpe_pair {
    uint64_t key; /* left id << 32 | right id; BPE_NO_PAIR in an empty slot */
    uint32_t rank;
};
#define BPE_NO_PAIR UINT64_MAX

/* A pre-token of at most 11 bytes that is one token, whole in a slot of 16 bytes. */
struct bpe_word {
    uint64_t low;  /* bytes 0..7 */
    uint32_t high; /* bytes 8..10, and the length on top; 0 in an empty slot */
    uint32_t id;
};

struct bpe {
    struct slices raw;       /* [n_ids] text of each model token; empty where not reachable */
    struct bpe_chars *chars; /* symbols are characters; owned. NULL: bytes */
    bool no_windows;         /* the symbols of a token cannot be told from its id */
    uint32_t byte_id[256];   /* BPE_NONE: the vocabulary lacks the byte */
    bool all_bytes;          /* it lacks none */
    uint32_t unk_id;         /* for a byte it lacks; BPE_NONE: such a byte is dropped */
    bool fuse_unk;           /* neighbouring unknown bytes become one token */
    struct bpe_pair *pairs;  /* hash table */
    uint32_t pairs_mask;
    uint32_t *byte_pair_rank; /* [65536] of two bytes, first byte high; BPE_NONE if not merged */
    uint32_t *merged;         /* [n_merges] the id a merge makes, by rank */
    uint32_t n_merges;
    struct bpe_word *words; /* hash table of short whole pre-tokens */
    uint32_t words_mask;
    struct idmap long_words; /* the longer ones */
    size_t long_word_n_max;
};

/* A merge as the file gives it. */
struct bpe_merge {
    uint32_t a, b, merged;
};

/* bpe_init: builds the tables. raw moves in; merges is [n_merges] in order of rank, of a pair that
 * occurs twice the last counts. whole_words: every token of the vocabulary stands for its own text
 * without merging (ignore_merges). */
void bpe_init(struct bpe *m, struct slices raw, const struct bpe_merge *merges, uint32_t n_merges,
              uint32_t unk_id, bool fuse_unk, bool whole_words);
/* What is put to a character before it is looked up: before one that does not start the pre-token, behind the one
 * that ends it. */
struct bpe_affixes {
    struct str within, last;
};
/* bpe_init_chars: the same over characters. byte_id, [256], are the tokens <0x00> to <0xFF> for characters
 * that the vocabulary lacks, BPE_NONE where there is none; NULL: no byte fallback. */
void bpe_init_chars(struct bpe *m, struct slices raw, const struct bpe_merge *merges, uint32_t n_merges,
                    uint32_t unk_id, bool fuse_unk, bool whole_words, const uint32_t *byte_id,
                    struct bpe_affixes affixes);
void bpe_fini(struct bpe *m);

/* bpe_encode: appends the ids of one pre-token. */
void bpe_encode(const struct bpe *m, const char *p, size_t n, struct tok_ids *out);
/* bpe_encode_symbols: those of n > 0 symbols. */
void bpe_encode_symbols(const struct bpe *m, const uint32_t *symbols, size_t n, struct tok_ids *out);

#endif
