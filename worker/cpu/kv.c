#include "worker/cpu/be.h"

#include "worker/cpu/convert.h"

static struct cache_group_spec spec_full(const struct cache_group_spec *spec) {
    struct cache_group_spec s = *spec;
    if (s.head_dim_v == 0)
        s.head_dim_v = s.head_dim;
    return s;
}

uint64_t cpu_kv_block_bytes(struct be *b, const struct cache_group_spec *spec) {
    (void)b;
    struct cache_group_spec s = spec_full(spec);
    if (s.kind != CACHE_FULL && s.kind != CACHE_WINDOW)
        return 0;
    return cpu_kv_pool_bytes(&s, 1);
}

uint64_t cpu_kv_pool_bytes(const struct cache_group_spec *s, uint32_t n_blocks) {
    uint64_t row = (uint64_t)s->n_kv_heads * ((uint64_t)s->head_dim + s->head_dim_v) * dtype_bytes(s->dtype),
             n;
    if (__builtin_mul_overflow(row * KV_BLOCK_TOKENS, (uint64_t)s->n_layers * n_blocks, &n))
        return UINT64_MAX;
    return n;
}

static int spec_check(const struct be *b, uint32_t group, const struct cache_group_spec *s, char err[BE_ERR_BYTES]) {
    if (group >= BE_GROUPS_MAX)
        return cpu_err(err, "cache group %u: there are %d", group, BE_GROUPS_MAX);
    if (s->kind == CACHE_STATE || s->kind == CACHE_CROSS)
        return cpu_err(err, "cache group %u: the CPU backend has no %s cache", group,
                       s->kind == CACHE_STATE ? "state" : "cross-attention");
    if (s->kind == CACHE_NONE)
        return 0;
    if (!is_float_type(s->dtype) && (b->avx2 || s->dtype != DT_F8E4M3)) /* e4m3: the reference alone */
        return cpu_err(err, "cache group %u: the CPU backend keeps keys and values as f32, f16 or bf16",
                       group);
    if (s->head_dim == 0 || s->head_dim > 256 || s->head_dim_v > 256)
        return cpu_err(err, "cache group %u: head_dim %u is not in 1..256", group,
                       MAX(s->head_dim, s->head_dim_v));
    if (s->kind == CACHE_WINDOW && s->window == 0)
        return cpu_err(err, "cache group %u: a window of 0 tokens", group);
    return 0;
}

struct be_kv *cpu_kv_new(struct be *b, uint32_t group, const struct cache_group_spec *spec, uint32_t n_blocks,
                         char err[BE_ERR_BYTES]) {
    struct cache_group_spec s = spec_full(spec);
    if (spec_check(b, group, &s, err) != 0)
        return NULL;
    CHECK(!b->kv[group]);
    struct be_kv *kv = NULL;
    uint64_t block_bytes = cpu_kv_block_bytes(b, &s),
             bytes = s.kind == CACHE_NONE ? 0 : cpu_kv_pool_bytes(&s, n_blocks);
    if (!(kv = owned_new_zero(b, sizeof *kv, bytes))) {
        cpu_err(err, "no memory for %u cache blocks of %llu bytes", n_blocks,
                (unsigned long long)block_bytes);
        return NULL;
    }
    kv->data = kv->own.data;
    kv->spec = s;
    kv->n_blocks = n_blocks;
    kv->panels = b->avx2;
    kv->block_bytes = block_bytes;
    kv->layer_bytes = s.n_layers ? block_bytes / s.n_layers : 0;
    b->kv[group] = kv;
    return kv;
}

void cpu_kv_free(struct be *b, struct be_kv *kv) {
    if (!kv)
        return;
    for (int g = 0; g < BE_GROUPS_MAX; g++)
        if (b->kv[g] == kv)
            b->kv[g] = NULL;
    owned_free(&kv->own);
}

struct be_kv *kv_group(const struct be *b, uint32_t group, uint32_t layer) {
    CHECK(group < BE_GROUPS_MAX);
    struct be_kv *kv = b->kv[group];
    if (!kv || kv->spec.kind == CACHE_NONE) {
        CHECK(!b->plan.group[group].on);
        return NULL;
    }
    CHECK(b->plan.group[group].on && layer < kv->spec.n_layers);
    return kv;
}

void cpu_kv_copy(struct be *b, struct be_kv *kv, const struct be_copy *copies, uint32_t n) {
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(copies[i].src < kv->n_blocks && copies[i].dst < kv->n_blocks);
        if (copies[i].src != copies[i].dst)
            memcpy(kv->data + copies[i].dst * kv->block_bytes, kv->data + copies[i].src * kv->block_bytes,
                   kv->block_bytes);
    }
}

/* block_move: one block between the pool and the canonical layout: out of the pool to `dst`, or, dst being
 * NULL, into it from `src`. */
static void block_move(struct be_kv *kv, uint32_t block, uint8_t *dst, const uint8_t *src) {
    const struct cache_group_spec *s = &kv->spec;
    size_t e = dtype_bytes(s->dtype), flat = 0;
    uint32_t n_rows = s->n_layers * 2 * s->n_kv_heads * KV_BLOCK_TOKENS;
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t tok = r % KV_BLOCK_TOKENS, head = r / KV_BLOCK_TOKENS % s->n_kv_heads;
        uint32_t layer_v = r / KV_BLOCK_TOKENS / s->n_kv_heads, layer = layer_v / 2;
        bool v = layer_v % 2;
        for (uint32_t d = 0; d < (v ? s->head_dim_v : s->head_dim); d++, flat += e) {
            size_t at = v ? kv_v(kv, block, layer, head, tok, d) : kv_k(kv, block, layer, head, tok, d);
            if (dst)
                memcpy(dst + flat, kv->data + at * e, e);
            else
                memcpy(kv->data + at * e, src + flat, e);
        }
    }
}

void cpu_kv_export(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst) {
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(blocks[i] < kv->n_blocks);
        block_move(kv, blocks[i], (uint8_t *)dst + i * kv->block_bytes, NULL);
    }
}

void cpu_kv_import(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, const void *src) {
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(blocks[i] < kv->n_blocks);
        block_move(kv, blocks[i], NULL, (const uint8_t *)src + i * kv->block_bytes);
    }
}
