/* kvx.h: what the two ends of a KV transfer agree on: what blocks look like, and who holds which part.
 *
 * A prefill worker (the server) holds the full blocks of a prompt under a lease; a decode worker (the client)
 * pulls them. On the way a block has the canonical layout of backend.h, [layer][k,v][head][token][dim] in the
 * stored type, one per cache group. With tensor parallelism each rank has a range of the heads, which follows
 * from their number and the number of ranks; the sides may have different numbers of ranks.
 */
#ifndef WEIR_WORKER_KVX_KVX_H
#define WEIR_WORKER_KVX_KVX_H

#include "common/err.h"
#include "worker/backend.h"

enum {
    KVX_HOST_BYTES = 46,           /* an IP address as text, with its end */
    KVX_CHUNK_BYTES = 1 << 20,     /* what a read asks for, if blocks are no larger than that */
    KVX_BLOCK_BYTES_MAX = 1 << 26, /* of one block, over all layers and heads of a group */
    KVX_BLOCKS_MAX = 1 << 20       /* of one prompt */
};

/* kvx_group: a cache group, over all ranks. Two engines can exchange blocks if these are equal. */
struct kvx_group {
    enum cache_kind kind; /* FULL or WINDOW */
    enum dtype dtype;     /* f32, f16 or bf16: no scales */
    uint32_t n_layers, n_heads, head_dim, head_dim_v, window;
};

struct kvx_layout {
    uint32_t n_groups, n_ranks;
    struct kvx_group group[BE_GROUPS_MAX];
};

/* kvx_heads: of a rank. With more ranks than heads several have the same one. */
struct kvx_heads {
    uint32_t first, n;
};
static inline struct kvx_heads kvx_heads_of(uint32_t n_heads, uint32_t rank, uint32_t n_ranks) {
    return (struct kvx_heads){(uint32_t)((uint64_t)rank * n_heads / n_ranks), MAX(n_heads / n_ranks, 1u)};
}

/* kvx_block_bytes: of a block with n_heads of the group's heads; 0: above KVX_BLOCK_BYTES_MAX, or nothing. */
size_t kvx_block_bytes(const struct kvx_group *g, uint32_t n_heads);
/* kvx_chunk_blocks: blocks of one read, the same for all groups. */
uint32_t kvx_chunk_blocks(const struct kvx_layout *l);
/* kvx_layout_check: RC_INVALID: no layout that this build moves. */
MUST_USE enum rc kvx_layout_check(const struct kvx_layout *l, struct err *e);
/* kvx_layout_same: blocks of the one are blocks of the other. The number of ranks does not count. */
bool kvx_layout_same(const struct kvx_layout *a, const struct kvx_layout *b);
/* kvx_slice: n blocks between all heads, [block][layer][k,v][n_heads][token][dim], and a range of them. in: to
 * all heads; else from them. */
void kvx_slice(const struct kvx_group *g, struct kvx_heads h, uint32_t n, uint8_t *all, uint8_t *part, bool in);

#endif
