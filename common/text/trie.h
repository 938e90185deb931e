/* trie.h: strings as a double-array trie over bytes, for longest and all-prefix matches.
 *
 * Immutable once built; any thread. A node is an index into nodes; 0 is the root.
 */
#ifndef WEIR_COMMON_TEXT_TRIE_H
#define WEIR_COMMON_TEXT_TRIE_H

#include "common/base.h"

enum { TRIE_NONE = UINT32_MAX };

struct trie_node {
    uint32_t base;   /* the child by a byte is at base + byte ... */
    uint32_t parent; /* ... if that one's parent is this one; TRIE_NONE: a free slot */
    uint32_t value;  /* of the string that ends here, or TRIE_NONE */
};
struct trie {
    struct trie_node *nodes; /* [n_nodes], with 256 free ones at the end */
    uint32_t n_nodes;
};
struct trie_entry {
    struct str key; /* not empty */
    uint32_t value;
};

/* trie_init: sorts entries in place; of equal keys the one with the highest value counts. */
void trie_init(struct trie *t, struct trie_entry *entries, uint32_t n_entries);
void trie_fini(struct trie *t);

/* trie_step: the child by a byte; false if there is none. */
static inline bool trie_step(const struct trie *t, uint32_t *node, uint8_t byte) {
    uint32_t to = t->nodes[*node].base + byte;
    if (t->nodes[to].parent != *node)
        return false;
    *node = to;
    return true;
}

#endif
