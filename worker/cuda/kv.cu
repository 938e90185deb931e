/* kv.cu: pools of cache blocks: [layer][block][k, v][head][token][dim]. A step of attention reads one layer, so layers
 * lie apart; within a block a head's keys, and its values, are one run of memory. */
#include "worker/cuda/dev.h"

#include <stdlib.h>

static struct cache_group_spec spec_full(const struct cache_group_spec *spec) {
    struct cache_group_spec s = *spec;
    if (s.head_dim_v == 0)
        s.head_dim_v = s.head_dim;
    return s;
}

uint64_t dev_kv_block_bytes(struct be *b, const struct cache_group_spec *spec) {
    (void)b;
    struct cache_group_spec s = spec_full(spec);
    if (s.kind != CACHE_FULL && s.kind != CACHE_WINDOW)
        return 0;
    return static_cast<uint64_t>(s.n_layers) * s.n_kv_heads * KV_BLOCK_TOKENS *
           (static_cast<uint64_t>(s.head_dim) + s.head_dim_v) * dtype_bytes(s.dtype);
}

static int spec_check(uint32_t group, const struct cache_group_spec *s, char err[BE_ERR_BYTES]) {
    if (group >= BE_GROUPS_MAX)
        return dev_err(err, "cache group %u: there are %d", group, BE_GROUPS_MAX);
    if (s->kind == CACHE_STATE || s->kind == CACHE_CROSS)
        return dev_err(err, "cache group %u: the CUDA backend has no %s cache", group,
                       s->kind == CACHE_STATE ? "state" : "cross-attention");
    if (s->kind == CACHE_NONE)
        return 0;
    if (s->dtype != DT_F32 && s->dtype != DT_F16 && s->dtype != DT_BF16 && s->dtype != DT_F8E4M3)
        return dev_err(err, "cache group %u: the CUDA backend keeps keys and values as f32, f16, bf16 or fp8 (e4m3)",
                       group);
    if (s->head_dim == 0 || s->head_dim > 256 || s->head_dim_v > 256)
        return dev_err(err, "cache group %u: head_dim %u is not in 1..256", group, MAX(s->head_dim, s->head_dim_v));
    if (s->kind == CACHE_WINDOW && s->window == 0)
        return dev_err(err, "cache group %u: a window of 0 tokens", group);
    return 0;
}

struct be_kv *dev_kv_new(struct be *b, uint32_t group, const struct cache_group_spec *spec, uint32_t n_blocks,
                         char err[BE_ERR_BYTES]) {
    struct cache_group_spec s = spec_full(spec);
    if (spec_check(group, &s, err) != 0)
        return NULL;
    CHECK(!b->kv[group]);
    uint64_t block_bytes = dev_kv_block_bytes(b, &s), bytes;
    struct be_kv *kv = static_cast<struct be_kv *>(calloc(1, sizeof *kv));
    void *data = NULL;
    if (kv && !__builtin_mul_overflow(block_bytes, static_cast<uint64_t>(n_blocks), &bytes))
        data = rt_alloc(b->rt, MAX(bytes, static_cast<uint64_t>(1)));
    if (!data) {
        dev_err(err, "no memory for %u cache blocks of %llu bytes", n_blocks,
                static_cast<unsigned long long>(block_bytes));
        free(kv);
        return NULL;
    }
    kv->spec = s;
    kv->n_blocks = n_blocks;
    kv->block_elems = s.n_layers ? block_bytes / s.n_layers / dtype_bytes(s.dtype) : 0;
    kv->layer_elems = kv->block_elems * n_blocks;
    kv->data = data;
    kv->prev = &b->kvs;
    kv->next = b->kvs.next;
    kv->next->prev = b->kvs.next = kv;
    b->kv[group] = kv;
    return kv;
}

void dev_kv_free(struct be *b, struct be_kv *kv) {
    if (!kv)
        return;
    graphs_drop(b);
    for (int g = 0; g < BE_GROUPS_MAX; g++)
        if (b->kv[g] == kv)
            b->kv[g] = NULL;
    rt_free(b->rt, kv->data);
    kv->prev->next = kv->next;
    kv->next->prev = kv->prev;
    free(kv);
}

struct kvref kv_ref(const struct be *b, uint32_t group, uint32_t layer) {
    CHECK(group < BE_GROUPS_MAX);
    const struct be_kv *kv = b->kv[group];
    struct kvref r = {};
    r.group = group;
    if (!kv || kv->spec.kind == CACHE_NONE) {
        CHECK(!b->group_on[group]);
        return r;
    }
    CHECK(b->group_on[group] && layer < kv->spec.n_layers);
    r.data = static_cast<uint8_t *>(kv->data) + layer * kv->layer_elems * dtype_bytes(kv->spec.dtype);
    r.block_elems = kv->block_elems;
    r.n_heads = kv->spec.n_kv_heads;
    r.dim = kv->spec.head_dim;
    r.dim_v = kv->spec.head_dim_v;
    r.window = kv->spec.kind == CACHE_WINDOW ? kv->spec.window : 0;
    return r;
}

/* ---- blocks as bytes --------------------------------------------------------------------------- */

/* move: words [n_words] of block src[i] in each layer to block dst[i]; the pool's own or a flat copy, in which block i
 * lies at i, layers inside: [block][layer][words]. Grid: (words, layers, blocks). */
struct moving {
    uint32_t *to;
    const uint32_t *from;
    const uint32_t *src, *dst; /* on the device; NULL: flat */
    uint64_t words;            /* of a block in a layer */
    uint64_t layer_words;      /* of the pool */
    uint32_t n_layers;
};

static __global__ void move(struct moving m) {
    dep_wait();
    uint64_t w = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x, layer = blockIdx.y, i = blockIdx.z;
    if (w >= m.words)
        return;
    uint64_t flat = (i * m.n_layers + layer) * m.words + w;
    uint64_t from = m.src ? layer * m.layer_words + m.src[i] * m.words + w : flat;
    uint64_t to = m.dst ? layer * m.layer_words + m.dst[i] * m.words + w : flat;
    m.to[to] = m.from[from];
}

enum { MOVE_BLOCKS = 256 }; /* at a time */

/* words_of: blocks hold 16 tokens, so their bytes are a multiple of 4. */
static uint64_t words_of(const struct be_kv *kv) {
    return kv->block_elems * dtype_bytes(kv->spec.dtype) / 4;
}

static void move_run(struct be *b, const struct be_kv *kv, struct moving m, uint32_t n) {
    m.words = words_of(kv);
    m.layer_words = m.words * kv->n_blocks;
    m.n_layers = kv->spec.n_layers;
    if (n > 0 && m.words > 0 && m.n_layers > 0)
        rt_run(b->rt, move, dim3(blocks_for(m.words, 256), m.n_layers, n), dim3(256), 0, m);
}

/* apart: how many of the first n pairs one kernel may do: no block is read or written that an earlier one writes, and
 * none written that an earlier one reads. */
static uint32_t apart(const struct be_copy *c, uint32_t n) {
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = 0; k < i; k++)
            if (c[i].src == c[k].dst || c[i].dst == c[k].dst || c[i].dst == c[k].src)
                return i;
    return n;
}

void dev_kv_copy(struct be *b, struct be_kv *kv, const struct be_copy *copies, uint32_t n) {
    for (uint32_t at = 0, part; at < n; at += part) {
        part = apart(copies + at, MIN(n - at, static_cast<uint32_t>(MOVE_BLOCKS)));
        uint32_t *room = static_cast<uint32_t *>(dev_scratch(b, SCRATCH_ROWS, 2 * MOVE_BLOCKS * sizeof *room));
        uint32_t *ids = static_cast<uint32_t *>(rt_stage(b->rt, 2 * part * sizeof *ids));
        for (uint32_t i = 0; i < part; i++) {
            CHECK(copies[at + i].src < kv->n_blocks && copies[at + i].dst < kv->n_blocks);
            ids[i] = copies[at + i].src;
            ids[part + i] = copies[at + i].dst;
        }
        rt_put(b->rt, room, ids, 2 * part * sizeof *ids);
        struct moving m = {};
        m.to = static_cast<uint32_t *>(kv->data);
        m.from = static_cast<const uint32_t *>(kv->data);
        m.src = room;
        m.dst = room + part;
        move_run(b, kv, m, part);
    }
}

/* flat_move: blocks between the pool and canonical bytes on the host, some at a time. */
static void flat_move(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst, const void *src) {
    size_t block_bytes = words_of(kv) * 4 * kv->spec.n_layers;
    uint32_t each = static_cast<uint32_t>(MAX(MIN((64 * MIB) / MAX(block_bytes, static_cast<size_t>(1)),
                                                  static_cast<size_t>(MOVE_BLOCKS)),
                                              static_cast<size_t>(1)));
    for (uint32_t at = 0; at < n; at += each) {
        uint32_t part = MIN(n - at, each);
        uint8_t *room =
            static_cast<uint8_t *>(dev_scratch(b, SCRATCH_ROWS, MOVE_BLOCKS * sizeof(uint32_t) + each * block_bytes));
        uint32_t *ids = static_cast<uint32_t *>(rt_stage(b->rt, part * sizeof *ids));
        for (uint32_t i = 0; i < part; i++) {
            CHECK(blocks[at + i] < kv->n_blocks);
            ids[i] = blocks[at + i];
        }
        rt_put(b->rt, room, ids, part * sizeof *ids);
        uint8_t *flat = room + MOVE_BLOCKS * sizeof(uint32_t);
        struct moving m = {};
        const uint32_t *on_device = reinterpret_cast<const uint32_t *>(room);
        if (dst) {
            m.to = reinterpret_cast<uint32_t *>(flat);
            m.from = static_cast<const uint32_t *>(kv->data);
            m.src = on_device;
        } else {
            dev_upload(b, flat, static_cast<const uint8_t *>(src) + at * block_bytes, part * block_bytes);
            m.to = static_cast<uint32_t *>(kv->data);
            m.from = reinterpret_cast<const uint32_t *>(flat);
            m.dst = on_device;
        }
        move_run(b, kv, m, part);
        char err[BE_ERR_BYTES];
        if (dst)
            dev_download(b, static_cast<uint8_t *>(dst) + at * block_bytes, flat, part * block_bytes);
        else
            rt_wait(b->rt, err);
    }
}

void dev_kv_export(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst) {
    flat_move(b, kv, blocks, n, dst, NULL);
}

void dev_kv_import(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, const void *src) {
    flat_move(b, kv, blocks, n, NULL, src);
}
