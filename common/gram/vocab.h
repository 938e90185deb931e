/* vocab.h: a vocabulary as one flat byte trie; for the engine's own files.
 *
 * Nodes lie in preorder: the children of node i start at i + 1, the subtree of i ends before node[i].end, and
 * siblings stand in the order of their bytes. A walk keeps one state for each depth and jumps to `end` when a
 * state is dead.
 */
#ifndef WEIR_COMMON_GRAM_VOCAB_H
#define WEIR_COMMON_GRAM_VOCAB_H

#include "common/gram/engine.h"
#include "common/gram/gram.h"

enum { NO_TOKEN = UINT32_MAX };

struct vocab_node {
    uint32_t end;
    uint32_t token; /* that ends here, the lowest id; others of the same bytes follow by gram_vocab.same */
    uint16_t depth; /* bytes from the root, which is no node: 1 and up */
    uint8_t byte;
    uint8_t reach; /* depth of the deepest node of the subtree, at most 255 */
};

struct gram_vocab {
    uint32_t n_vocab, n_nodes;
    struct vocab_node *node;
    uint32_t *same;   /* [n_vocab] the next id of the same bytes, NO_TOKEN: none */
    uint32_t *offset; /* [n_vocab + 1] into bytes */
    char *bytes;
    uint32_t *eos;
    size_t n_eos;
    uint32_t depth_max;      /* of a node */
    bool *is_eos;            /* [n_vocab] */
    struct lex_cache *cache; /* lex.h; with a lock of its own */
};

static inline struct str vocab_token(const struct gram_vocab *v, uint32_t id) {
    return (struct str){v->bytes + v->offset[id], v->offset[id + 1] - v->offset[id]};
}
/* vocab_set: the bits of all ids that end at a node. */
static inline void vocab_set(const struct gram_vocab *v, uint32_t token, uint32_t *mask) {
    for (; token != NO_TOKEN; token = v->same[token])
        mask[token / 32] |= 1u << (token % 32);
}

#endif
