/* plan.cu: a batch becomes one block of memory on the device; and graphs of steps that only decode. */
#include "worker/cuda/dev.h"

#include <stdlib.h>

/* part: n bytes of the block, at a multiple of 16; returns its offset. */
static uint32_t part(size_t *at, size_t n) {
    size_t here = (*at + 15) / 16 * 16;
    *at = here + n;
    CHECK(*at < UINT32_MAX);
    return static_cast<uint32_t>(here);
}

static void fill(uint8_t *block, uint32_t at, const void *src, size_t n) {
    if (src)
        memcpy(block + at, src, n);
    else
        memset(block + at, 0, n);
}

static uint32_t count_tiles(const struct batch *batch) {
    uint32_t n = 0;
    for (uint32_t s = 0; s < batch->n_seqs; s++)
        n += (batch->seq_start[s + 1] - batch->seq_start[s] + TILE_QUERIES - 1) / TILE_QUERIES;
    return n;
}

static void check_batch(const struct be *b, const struct batch *batch) {
    CHECK(batch->n_tokens <= b->n_tokens_max && batch->n_seqs <= b->n_seqs_max && batch->n_rows <= b->n_rows_max);
    CHECK(batch->n_axes <= BE_AXES_MAX && batch->n_groups <= BE_GROUPS_MAX);
    CHECK(batch->seq_start[0] == 0 && batch->seq_start[batch->n_seqs] == batch->n_tokens);
    for (uint32_t s = 0; s < batch->n_seqs; s++)
        CHECK(batch->seq_start[s] <= batch->seq_start[s + 1] && (!batch->kind || batch->kind[s] != ATTN_CROSS));
    for (uint32_t r = 0; r < batch->n_rows; r++)
        CHECK(batch->rows[r] < batch->n_tokens);
    for (uint32_t t = 0; batch->from_row && t < batch->n_tokens; t++)
        CHECK(batch->from_row[t] <= b->n_last_ids);
    CHECK(!batch->embeds || (batch->embed_row && batch->embeds->dtype == b->act));
    for (uint32_t t = 0; batch->embeds && t < batch->n_tokens; t++)
        CHECK(batch->embed_row[t] <= batch->embeds->rows);
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        const struct be_kv *kv = b->kv[g];
        if (!batch->group[g].slot)
            continue;
        CHECK(kv && kv->spec.kind != CACHE_NONE);
        for (uint32_t t = 0; t < batch->n_tokens; t++)
            CHECK(batch->group[g].slot[t] / KV_BLOCK_TOKENS < kv->n_blocks);
        for (uint32_t s = 0; s < batch->n_seqs; s++)
            CHECK(static_cast<uint64_t>(batch->group[g].table_stride) * KV_BLOCK_TOKENS >= batch->kv_len[s]);
    }
}

/* lay_out: where everything is; returns the size of the block. */
static size_t lay_out(struct be *b, const struct batch *batch) {
    struct dplan *p = &b->plan;
    size_t at = sizeof *p, t = batch->n_tokens, s = batch->n_seqs;
    memset(p, 0, sizeof *p);
    p->n_tokens = batch->n_tokens;
    p->n_seqs = batch->n_seqs;
    p->n_rows = batch->n_rows;
    p->n_axes = batch->n_axes;
    p->n_tiles = count_tiles(batch);
    p->tokens = part(&at, t * 4);
    p->pos = part(&at, batch->n_axes * t * 4);
    p->seq_of = part(&at, t * 4);
    p->seq_start = part(&at, (s + 1) * 4);
    p->kv_len = part(&at, s * 4);
    p->kind = part(&at, s);
    p->type = part(&at, t);
    p->embed_row = batch->embeds ? part(&at, t * 4) : 0;
    p->from_row = batch->from_row ? part(&at, t * 4) : 0;
    p->rows = part(&at, batch->n_rows * static_cast<size_t>(4));
    p->tiles = part(&at, p->n_tiles * sizeof(struct dtile));
    for (uint32_t g = 0; g < BE_GROUPS_MAX; g++) {
        b->group_on[g] = g < batch->n_groups && batch->group[g].slot != NULL;
        if (!b->group_on[g])
            continue;
        p->group[g].slot = part(&at, t * 4);
        p->group[g].table = part(&at, s * batch->group[g].table_stride * 4);
        p->group[g].table_stride = batch->group[g].table_stride;
    }
    return at;
}

static void write_tiles(const struct batch *batch, struct dtile *tile) {
    for (uint32_t s = 0; s < batch->n_seqs; s++)
        for (uint32_t first = batch->seq_start[s], end = batch->seq_start[s + 1]; first < end; first += TILE_QUERIES) {
            tile->seq = s;
            tile->first = first;
            tile->n = MIN(end - first, static_cast<uint32_t>(TILE_QUERIES));
            tile++;
        }
}

static void write_block(const struct be *b, const struct batch *batch, uint8_t *block) {
    const struct dplan *p = &b->plan;
    size_t t = batch->n_tokens, s = batch->n_seqs;
    memcpy(block, p, sizeof *p);
    fill(block, p->tokens, batch->tokens, t * 4);
    fill(block, p->pos, batch->pos, batch->n_axes * t * 4);
    fill(block, p->seq_start, batch->seq_start, (s + 1) * 4);
    fill(block, p->kv_len, batch->kv_len, s * 4);
    fill(block, p->kind, batch->kind, s);
    fill(block, p->type, batch->token_type, t);
    fill(block, p->rows, batch->rows, batch->n_rows * static_cast<size_t>(4));
    if (p->embed_row)
        fill(block, p->embed_row, batch->embed_row, t * 4);
    if (p->from_row)
        fill(block, p->from_row, batch->from_row, t * 4);
    uint32_t *seq_of = reinterpret_cast<uint32_t *>(block + p->seq_of);
    for (uint32_t k = 0; k < s; k++)
        for (uint32_t i = batch->seq_start[k]; i < batch->seq_start[k + 1]; i++)
            seq_of[i] = k;
    write_tiles(batch, reinterpret_cast<struct dtile *>(block + p->tiles));
    for (uint32_t g = 0; g < batch->n_groups; g++)
        if (b->group_on[g]) {
            fill(block, p->group[g].slot, batch->group[g].slot, t * 4);
            fill(block, p->group[g].table, batch->group[g].table, s * batch->group[g].table_stride * 4);
        }
}

/* ---- graphs ------------------------------------------------------------------------------------ */

/* padded: n up to a rung of the ladder of captured sizes: 1, 2, 4, then steps of 8, and of 32 above 256. */
static uint32_t padded(uint32_t n) {
    if (n <= 2)
        return n;
    if (n <= 4)
        return 4;
    uint32_t step = n <= 256 ? 8 : 32;
    return (n + step - 1) / step * step;
}

static bool only_decodes(const struct be *b, const struct batch *batch) {
    if (b->eager || batch->n_tokens == 0 || batch->n_tokens != batch->n_seqs || batch->embeds)
        return false;
    for (uint32_t s = 0; s < batch->n_seqs; s++)
        if (batch->seq_start[s + 1] - batch->seq_start[s] != 1 || (batch->kind && batch->kind[s] != ATTN_CAUSAL))
            return false;
    return batch->n_rows > 0;
}

static struct graph_slot *slot_of(struct be *b, uint32_t n_tokens, uint32_t n_rows) {
    for (uint32_t i = 0; i < b->n_graphs; i++)
        if (b->graphs[i].n_tokens == n_tokens && b->graphs[i].n_rows == n_rows && b->graphs[i].kv_len == b->kv_len_max)
            return &b->graphs[i];
    if (b->n_graphs == GRAPHS_MAX)
        graphs_drop(b);
    struct graph_slot *g = &b->graphs[b->n_graphs++];
    *g = {};
    g->n_tokens = n_tokens;
    g->n_rows = n_rows;
    g->kv_len = b->kv_len_max;
    return g;
}

void graphs_drop(struct be *b) {
    char err[BE_ERR_BYTES];
    bool some = false;
    for (uint32_t i = 0; i < b->n_graphs; i++)
        some |= b->graphs[i].graph != NULL;
    if (some)
        rt_wait(b->rt, err); /* one may be running; an error sticks */
    for (uint32_t i = 0; i < b->n_graphs; i++)
        rt_graph_free(b->graphs[i].graph);
    b->n_graphs = 0;
    b->slot = NULL;
}

/* size: how many rows operations compute, and, for a step that only decodes, the graph that serves it. */
static void size(struct be *b, const struct batch *batch) {
    b->n_tokens = batch->n_tokens;
    b->n_rows = batch->n_rows;
    b->kv_len_max = 1;
    for (uint32_t s = 0; s < batch->n_seqs; s++)
        b->kv_len_max = MAX(b->kv_len_max, batch->kv_len ? batch->kv_len[s] : 1);
    while (b->kv_len_max & (b->kv_len_max - 1)) /* to a power of two */
        b->kv_len_max += b->kv_len_max & -b->kv_len_max;
    b->slot = NULL;
    b->decode = only_decodes(b, batch);
    uint32_t n = padded(batch->n_tokens), n_rows = padded(batch->n_rows);
    if (!b->decode || n > b->n_tokens_max || n > b->n_seqs_max || n_rows > b->n_rows_max)
        return;
    b->n_tokens = n;
    b->n_rows = n_rows;
    b->slot = slot_of(b, n, n_rows);
}

void dev_plan(struct be *b, const struct batch *batch) {
    check_batch(b, batch);
    normed_drop(b);
    size_t bytes = lay_out(b, batch);
    if (b->dplan_bytes < bytes) {
        graphs_drop(b);
        rt_free(b->rt, b->dplan);
        b->dplan_bytes = bytes + bytes / 4;
        b->dplan = static_cast<struct dplan *>(rt_alloc(b->rt, b->dplan_bytes));
        if (!b->dplan) {
            rt_no_memory(b->rt, "the plan of a step", b->dplan_bytes);
            b->dplan_bytes = 0;
        }
    }
    size(b, batch);
    b->embeds = batch->embeds;
    uint8_t *block = static_cast<uint8_t *>(rt_stage(b->rt, bytes));
    write_block(b, batch, block);
    rt_put(b->rt, b->dplan, block, bytes);
}

/* A shape runs once as it is, which sizes the scratch memory and the library's plans, and is captured when it comes a
 * second time: so a start-up waits for none. */
bool dev_begin(struct be *b) {
    if (!b->slot)
        return false;
    if (b->slot->graph) {
        rt_launch(b->rt, b->slot->graph);
        b->n_logits = b->plan.n_rows;
        return true;
    }
    if (b->slot->seen) {
        b->capturing = true;
        rt_capture(b->rt);
    }
    b->slot->seen = true;
    return false;
}

void dev_end(struct be *b) {
    if (!b->capturing)
        return;
    b->capturing = false;
    b->slot->graph = rt_captured(b->rt);
    if (b->slot->graph)
        rt_launch(b->rt, b->slot->graph);
}
