/* load_gpu.c: how much of a GPU's memory the KV cache gets: --gpu-memory-utilization of all there is, less what weights
 * and the worst step take. The step is computed, not estimated. */
#include <stdlib.h>

#include "common/log.h"
#include "worker/load_impl.h"

enum {
    CONTEXT_MAX = 16384, /* of a profiled step: from there on more tokens take no more working memory */
    BLOCKS_MAX = 1 << 21 /* of a pool: 33 million tokens; a block costs the engine memory, too */
};

static double gib(uint64_t bytes) {
    return (double)bytes / (double)GIB;
}

/* shape: a step of n_seqs sequences with n_each tokens on top of `past`. */
struct shape {
    uint32_t n_seqs, n_each, past, n_rows;
};

/* step: all tables name block 0, so that any context takes one block; nobody looks at what comes out. */
static void step(const struct engine_opts *o, const struct shape *s) {
    uint32_t n = s->n_seqs * s->n_each, kv_len = s->past + s->n_each,
             stride = (kv_len + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    uint32_t *zeros = xcalloc(MAX((size_t)s->n_seqs * stride, n), sizeof *zeros), *rows = xcalloc(n, sizeof *rows);
    uint32_t *start = xcalloc((size_t)s->n_seqs + 1, sizeof *start), *lens = xcalloc(s->n_seqs, sizeof *lens);
    int32_t *pos = xcalloc(n, sizeof *pos);
    uint8_t *kind = xcalloc(s->n_seqs, 1);
    for (uint32_t i = 0; i < s->n_seqs; i++) {
        start[i + 1] = (i + 1) * s->n_each;
        lens[i] = kv_len;
        kind[i] = ATTN_BIDIRECTIONAL;
    }
    for (uint32_t i = 0; i < n; i++) {
        pos[i] = (int32_t)(s->past + i % s->n_each);
        rows[i] = n - 1 - i;
    }
    struct batch b = {.n_tokens = n, .n_seqs = s->n_seqs, .n_rows = s->n_rows, .n_axes = 1, .n_groups = o->n_groups};
    b.tokens = zeros;
    b.pos = pos;
    b.seq_start = start;
    b.kv_len = lens;
    b.kind = o->bidirectional ? kind : NULL;
    b.rows = rows;
    for (uint32_t g = 0; g < o->n_groups; g++) {
        b.group[g].table = b.group[g].slot = zeros;
        b.group[g].table_stride = stride;
    }
    o->model.forward(o->model.arg, &b);
    free(zeros), free(rows), free(start), free(lens), free(pos), free(kind);
}

/* draw: tokens for all sequences at once, with masks and the most log-probabilities that clients get unasked. Waits. */
static int draw(const struct engine_opts *o, char why[BE_ERR_BYTES]) {
    uint32_t n = o->n_seqs_max, n_top = MIN(o->n_top_max, 20), n_words = (o->n_vocab + 31) / 32;
    uint32_t *mask = xcalloc(n_words, sizeof *mask), *ids = xcalloc((size_t)n * MAX(n_top, 1), sizeof *ids);
    float *values = xcalloc((size_t)n * MAX(n_top, 1), sizeof *values);
    struct sample_row *rows = xcalloc(n, sizeof *rows);
    struct sample_out *out = xcalloc(n, sizeof *out);
    memset(mask, 0xFF, n_words * sizeof *mask);
    for (uint32_t i = 0; i < n; i++) {
        rows[i] = (struct sample_row){
            .temperature = 1, .top_p = 0.9f, .seed = i, .mask = mask, .n_top = n_top, .want_logprob = true};
        out[i].top_ids = ids + (size_t)i * n_top;
        out[i].top_logprobs = values + (size_t)i * n_top;
    }
    o->ops->sample(o->be, rows, out, n);
    int bad = o->ops->wait(o->be, why);
    free(mask), free(ids), free(values), free(rows), free(out);
    return bad;
}

/* worst_steps: a step full of prompts; one of all sequences decoding; and prompts' chunks on top of a long context, whose
 * attention is split over the device. Waits. */
static int worst_steps(const struct engine_opts *o, char why[BE_ERR_BYTES]) {
    uint32_t n = o->token_budget ? o->token_budget : o->n_tokens_max;
    uint32_t n_seqs = MIN((n + o->max_len - 1) / o->max_len, o->n_seqs_max), each = MIN(n / n_seqs, o->max_len);
    uint32_t context = MIN(o->max_len, CONTEXT_MAX);
    bool rows = !o->pooler;
    int bad = 0;
    step(o, &(struct shape){n_seqs, each, 0, rows ? MIN(n_seqs * each, o->n_rows_max) : 0});
    if (o->bidirectional)
        return o->ops->wait(o->be, why);
    step(o, &(struct shape){o->n_seqs_max, 1, context - 1, rows ? o->n_seqs_max : 0});
    if (rows)
        bad = draw(o, why);
    for (uint32_t chunk = 64; !bad && chunk < MIN(n, context); chunk *= 2) {
        step(o, &(struct shape){1, chunk, context - chunk, rows});
        bad = o->ops->wait(o->be, why);
    }
    return bad ? bad : o->ops->wait(o->be, why);
}

static enum rc no_step(const char *why, struct err *e) {
    return err_set(e, RC_INVALID, "gpu-memory-utilization",
                   "the worst step does not fit beside the weights: %s; lower --max-num-batched-tokens or --max-num-seqs",
                   why);
}

/* profile: the worst steps, with pools of one block in every rank. */
static enum rc profile(struct load *l, const struct engine_opts *o, struct err *e) {
    struct be_kv *kv[BE_GROUPS_MAX] = {NULL};
    uint32_t ones[BE_GROUPS_MAX] = {1, 1, 1, 1};
    char why[BE_ERR_BYTES] = "";
    enum rc rc = RC_OK;
    if (l->tp)
        tp_pools(l->tp, ones, o->n_groups);
    for (uint32_t g = 0; g < o->n_groups && rc == RC_OK; g++) {
        kv[g] = l->ops->kv_new(l->be, g, &o->groups[g], 1, why);
        if (!kv[g])
            rc = no_step(why, e);
    }
    if (rc == RC_OK && worst_steps(o, why))
        rc = no_step(why, e);
    for (uint32_t g = 0; g < o->n_groups; g++)
        if (kv[g])
            l->ops->kv_free(l->be, kv[g]);
    return rc;
}

enum rc load_gpu_room(struct load *l, const struct worker_flags *f, const struct engine_opts *o, struct load_room *out,
                      struct err *e) {
    struct load_room r = {.share = f->gpu_memory_utilization};
    struct be_info now;
    enum rc rc = profile(l, o, e);
    if (rc != RC_OK)
        return rc;
    l->ops->info(l->be, &now);
    r.total_bytes = now.memory_total_bytes;
    r.start_bytes = now.memory_start_bytes;
    r.weight_bytes = model_weight_bytes(l->model);
    r.own_bytes = now.memory_start_bytes - MIN(now.memory_start_bytes, now.memory_free_bytes);
    uint64_t budget = (uint64_t)((double)r.total_bytes * r.share), block_bytes = 0;
    bool chosen = f->kv_cache_memory_bytes || f->n_blocks_override; /* then the share says nothing */
    if (!chosen && r.start_bytes < budget)
        return err_set(e, RC_INVALID, "gpu-memory-utilization",
                       "--gpu-memory-utilization %.2f asks for %.1f of the GPU's %.1f GiB, and %.1f GiB were free at start: "
                       "lower it, or end what else uses the GPU",
                       r.share, gib(budget), gib(r.total_bytes), gib(r.start_bytes));
    if (!chosen && r.own_bytes >= budget)
        return err_set(e, RC_INVALID, "gpu-memory-utilization",
                       "the weights and the worst step take %.1f GiB, and --gpu-memory-utilization %.2f of %.1f GiB is %.1f "
                       "GiB: raise it, or lower --max-num-batched-tokens or --max-num-seqs",
                       gib(r.own_bytes), r.share, gib(r.total_bytes), gib(budget));
    for (uint32_t g = 0; g < o->n_groups; g++)
        block_bytes += l->ops->kv_block_bytes(l->be, &o->groups[g]);
    r.kv_bytes = MIN(chosen ? 0 : budget - r.own_bytes, block_bytes * BLOCKS_MAX);
    *out = r;
    return RC_OK;
}

enum rc load_gpu_full(const struct worker_flags *f, const struct engine_opts *o, const struct load_room *room,
                      struct err *e) {
    return err_set(e, RC_INVALID, "gpu-memory-utilization",
                   "the KV cache of one sequence of %u tokens does not fit into the %.2f GiB that are left of "
                   "--gpu-memory-utilization %.2f of %.1f GiB (weights and the worst step take %.1f GiB): raise it, or lower "
                   "--max-model-len, --max-num-batched-tokens or --max-num-seqs",
                   o->max_len, gib(room->kv_bytes), f->gpu_memory_utilization, gib(room->total_bytes),
                   gib(room->own_bytes));
}

void load_gpu_tell(const struct load *l, const struct load_room *room) {
    LOG(LOG_INFO, "memory of the GPU", F_F64("total_gib", gib(room->total_bytes)),
        F_F64("free_at_start_gib", gib(room->start_bytes)), F_F64("weights_gib", gib(room->weight_bytes)),
        F_F64("step_gib", gib(room->own_bytes - MIN(room->own_bytes, room->weight_bytes))),
        F_F64("kv_cache_gib", gib(l->kv_bytes)), F_U64("kv_tokens", (uint64_t)l->facts.n_blocks * KV_BLOCK_TOKENS));
}
