/* added.h: finding added tokens in text.
 *
 * Matches are leftmost-longest and do not overlap, as in Hugging Face tokenizers. One Aho-Corasick
 * automaton over the reversed tokens runs over the text from right to left, so that at each place it
 * knows every token that starts there; then matches are picked from left to right. That keeps the
 * search linear also when some tokens do not count in some places (marks). The automaton is
 * immutable; a scan belongs to one thread.
 */
#ifndef WEIR_COMMON_TEXT_ADDED_H
#define WEIR_COMMON_TEXT_ADDED_H

#include "common/text/tok.h"

struct added_token {
    struct str content; /* as it is searched for (normalised where it says so); not empty */
    uint32_t id;
    bool special, single_word, lstrip, rstrip;
};

struct added_node {
    uint32_t fail;  /* the longest proper suffix that is a node too */
    uint32_t token; /* index of the token that ends here, or ADDED_NONE */
    uint32_t link;  /* the nearest node along fail that has a token; 0: none */
};
struct added_edge {
    uint32_t from; /* ADDED_NONE: an empty slot */
    uint32_t to;
    uint8_t byte;
};
enum { ADDED_NONE = UINT32_MAX };

struct added {
    struct added_token *tokens; /* [n_tokens]; owned, contents borrowed */
    uint32_t n_tokens;
    struct added_node *nodes; /* [n_nodes]; 0 is the root */
    uint32_t n_nodes;
    struct added_edge *edges; /* hash table by (from, byte) */
    uint32_t edges_mask;
    uint32_t root[256]; /* edges of the root; 0: none */
    size_t token_n_max; /* bytes of the longest token */
};

/* added_init: takes the array tokens (heap; may be NULL when n is 0). The contents must outlive a and
 * differ from each other. */
void added_init(struct added *a, struct added_token *tokens, uint32_t n_tokens);
void added_fini(struct added *a);

struct added_hit {
    size_t at;
    uint32_t node;
};
struct added_scan {
    const struct added *a;
    const char *p;
    size_t n;
    const struct tok_mark *marks; /* in these, special tokens do not count */
    size_t n_marks;
    size_t block_end;       /* hits holds those that start below */
    size_t resume;          /* end of the last match */
    struct added_hit *hits; /* [n_hits], the rightmost first */
    size_t n_hits, cap;
};
struct added_match {
    const struct added_token *token;
    size_t begin, end;
};

/* added_scan_init: over n bytes at p. marks must be sorted and none empty. */
void added_scan_init(struct added_scan *s, const struct added *a, const char *p, size_t n,
                     const struct tok_mark *marks, size_t n_marks);
void added_scan_fini(struct added_scan *s);
/* added_next: the next match; false at the end. */
bool added_next(struct added_scan *s, struct added_match *m);

#endif
