#include "worker/kvx/kvx.h"

size_t kvx_block_bytes(const struct kvx_group *g, uint32_t n_heads) {
    uint64_t dims = (uint64_t)g->head_dim + g->head_dim_v, bytes;
    if (__builtin_mul_overflow(dims * KV_BLOCK_TOKENS * dtype_bytes(g->dtype), (uint64_t)g->n_layers * n_heads, &bytes))
        return 0;
    return bytes <= KVX_BLOCK_BYTES_MAX ? (size_t)bytes : 0;
}

uint32_t kvx_chunk_blocks(const struct kvx_layout *l) {
    size_t bytes = 1;
    for (uint32_t g = 0; g < l->n_groups; g++)
        bytes = MAX(bytes, kvx_block_bytes(&l->group[g], l->group[g].n_heads));
    return (uint32_t)MAX((size_t)KVX_CHUNK_BYTES / bytes, 1);
}

enum rc kvx_layout_check(const struct kvx_layout *l, struct err *e) {
    if (l->n_groups == 0 || l->n_groups > BE_GROUPS_MAX || l->n_ranks == 0 || l->n_ranks > BE_RANKS_MAX)
        return err_set(e, RC_INVALID, NULL, "%u cache groups on %u ranks", l->n_groups, l->n_ranks);
    for (uint32_t i = 0; i < l->n_groups; i++) {
        const struct kvx_group *g = &l->group[i];
        bool kind = g->kind == CACHE_FULL || (g->kind == CACHE_WINDOW && g->window > 0);
        bool type = g->dtype == DT_F32 || g->dtype == DT_F16 || g->dtype == DT_BF16;
        if (!kind || !type || !kvx_block_bytes(g, g->n_heads))
            return err_set(e, RC_INVALID, NULL, "cache group %u is none whose blocks can be moved", i);
        if (g->n_heads % l->n_ranks && l->n_ranks % g->n_heads)
            return err_set(e, RC_INVALID, NULL, "%u heads on %u ranks", g->n_heads, l->n_ranks);
    }
    return RC_OK;
}

bool kvx_layout_same(const struct kvx_layout *a, const struct kvx_layout *b) {
    bool same = a->n_groups == b->n_groups;
    for (uint32_t i = 0; same && i < a->n_groups; i++) {
        const struct kvx_group *x = &a->group[i], *y = &b->group[i];
        same = x->kind == y->kind && x->dtype == y->dtype && x->n_layers == y->n_layers && x->n_heads == y->n_heads &&
               x->head_dim == y->head_dim && x->head_dim_v == y->head_dim_v &&
               (x->kind != CACHE_WINDOW || x->window == y->window);
    }
    return same;
}

void kvx_slice(const struct kvx_group *g, struct kvx_heads h, uint32_t n, uint8_t *all, uint8_t *part, bool in) {
    const size_t unit = KV_BLOCK_TOKENS * dtype_bytes(g->dtype);
    for (uint64_t i = 0; i < (uint64_t)n * g->n_layers * 2; i++) {
        const size_t head = unit * (i % 2 ? g->head_dim_v : g->head_dim), bytes = head * h.n;
        uint8_t *at = all + head * h.first;
        memcpy(in ? at : part, in ? part : at, bytes);
        all += head * g->n_heads;
        part += bytes;
    }
}
