/* load_rank.c: a rank that follows: its shard of the model, its pools, and then one message after another. */
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/device.h"
#include "worker/load_impl.h"

struct follower {
    struct load *l;
    struct tp_rank *seat;
    struct tp_limits limits;
    struct cache_group_spec groups[BE_GROUPS_MAX];
    struct be_kv *kv[BE_GROUPS_MAX];
};

static enum rc load_shard(struct follower *w, const char *model, const struct worker_flags *f,
                          struct err *e) {
    struct load *l = w->l;
    enum rc rc = load_files(l, model, f, e);
    if (rc == RC_OK)
        rc = device_ops(f->device, &l->ops, e);
    if (rc != RC_OK)
        return rc;
    if (l->is_far && (!l->ops->stand_open || l->rank >= (uint32_t)f->tensor_parallel))
        return l->ops->stand_open ? err_set(e, RC_INVALID, "rank", "--rank %u: there are %lld (--tensor-parallel-size)",
                                            l->rank, (long long)f->tensor_parallel)
                                  : err_set(e, RC_UNSUPPORTED, "leader", "the %s backend runs on one host", l->ops->name);
    struct load_sizes z = load_sizes_of(l, f);
    struct be_config cfg = load_device_config(l, f, &z, l->rank);
    if (!l->ops->group_bytes)
        return err_set(e, RC_UNSUPPORTED, "tensor-parallel-size", "the %s backend runs on one rank",
                       l->ops->name);
    if (l->is_far) {
        load_facts(l, f, &z, &l->far_facts);
        l->far.facts = &l->far_facts;
        rc = tp_join_far(&w->seat, &l->far, l->rank, e);
        if (rc == RC_OK)
            cfg.far = tp_rank_far(w->seat);
        if (rc == RC_OK)
            LOG(LOG_INFO, "joined", F_STR("address", l->far.url), F_U64("rank", l->rank), F_U64("of", z.n_ranks));
    }
    if (rc == RC_OK)
        rc = tp_rank_group(w->seat, l->ops->group_bytes(&cfg), &cfg.group, e);
    if (rc == RC_OK)
        rc = load_device_open(l, &cfg, e);
    if (rc != RC_OK)
        return rc;
    struct model_opts mo = load_model_opts(l, &z, l->rank);
    w->limits = load_limits(l, &z, model_groups(&l->config, &mo, w->groups));
    return model_load(&l->model, &l->config, l->weights, &mo, e);
}

/* plan_largest: shows the backend the widest step, so that steady decode finds all its room. */
static void plan_largest(struct follower *w) {
    const struct tp_limits *l = &w->limits;
    uint32_t n = MIN(l->n_seqs_max, l->n_tokens_max),
             width = (l->max_len + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    uint32_t *start = xcalloc((size_t)n + 1, sizeof *start),
             *zeros = xcalloc((size_t)n * width, sizeof *zeros);
    uint32_t *ones = xcalloc(n, sizeof *ones);
    struct batch b = {.n_tokens = n, .n_seqs = n, .n_axes = 1, .n_groups = l->n_groups};
    for (uint32_t i = 0; i < n; i++) {
        start[i + 1] = i + 1;
        ones[i] = 1;
    }
    b.tokens = zeros;
    b.pos = (const int32_t *)(const void *)zeros;
    b.seq_start = start;
    b.kv_len = ones;
    for (uint32_t g = 0; g < l->n_groups; g++) {
        b.group[g].table = b.group[g].slot = zeros;
        b.group[g].table_stride = width;
    }
    w->l->ops->plan(w->l->be, &b);
    free(start);
    free(zeros);
    free(ones);
}

static enum rc make_pools(struct follower *w, const struct tp_msg *m, struct err *e) {
    char why[BE_ERR_BYTES] = "";
    for (uint32_t g = 0; g < w->limits.n_groups; g++) {
        if (w->kv[g]) /* those of the worst step, before the sizes are known */
            w->l->ops->kv_free(w->l->be, w->kv[g]);
        w->kv[g] = w->l->ops->kv_new(w->l->be, g, &w->groups[g], m->n_blocks[g], why);
        if (!w->kv[g])
            return err_set(e, RC_IO, "kv_cache_memory_bytes", "KV cache: %s: lower --kv-cache-memory-bytes",
                           why);
        w->limits.n_blocks[g] = m->n_blocks[g];
    }
    plan_largest(w);
    return RC_OK;
}

static enum rc step(struct follower *w, const struct batch *b, struct err *e) {
    char why[BE_ERR_BYTES] = "";
    model_forward(w->l->model, b);
    return w->l->ops->wait(w->l->be, why) ? err_set(e, RC_UNAVAILABLE, NULL, "%s", why) : RC_OK;
}

/* move: blocks of this rank, between the cache and the memory that rank 0 looks into. */
static enum rc move(struct follower *w, const struct tp_msg *m, struct err *e) {
    size_t room;
    uint8_t *data = tp_move_room(w->seat, &room);
    if (m->rank != w->l->rank)
        return RC_OK;
    if (!w->kv[m->group] ||
        w->l->ops->kv_block_bytes(w->l->be, &w->groups[m->group]) > room / m->n_blocks_moved)
        return err_set(e, RC_INVALID, NULL, "%u blocks are more than there is room for", m->n_blocks_moved);
    if (m->in)
        w->l->ops->kv_import(w->l->be, w->kv[m->group], m->blocks, m->n_blocks_moved, data);
    else
        w->l->ops->kv_export(w->l->be, w->kv[m->group], m->blocks, m->n_blocks_moved, data);
    tp_moved(w->seat, m->serial);
    return RC_OK;
}

/* follow: until rank 0 says that it is over. */
static enum rc follow(struct follower *w, struct err *e) {
    struct tp_msg m;
    for (;;) {
        enum rc rc = tp_next(w->seat, &w->limits, &m, e);
        if (rc == RC_OK && m.kind == TP_STOP)
            return RC_OK;
        if (rc == RC_OK && m.kind == TP_POOLS)
            rc = make_pools(w, &m, e);
        else if (rc == RC_OK && m.kind == TP_COPY)
            w->l->ops->kv_copy(w->l->be, w->kv[m.group], m.copies, m.n_copies);
        else if (rc == RC_OK && m.kind == TP_MOVE)
            rc = move(w, &m, e);
        else if (rc == RC_OK)
            rc = step(w, &m.batch, e);
        if (rc != RC_OK)
            return rc;
    }
}

int load_follow(struct load *l, const char *model, const struct worker_flags *f) {
    struct follower w = {.l = l};
    struct err e = {0};
    enum rc rc = l->is_far ? RC_OK : tp_join(&w.seat, l->rank, (uint32_t)f->tensor_parallel, &e);
    if (rc != RC_OK) {
        fprintf(stderr, "weir-worker: %s\n", e.msg);
        return 2;
    }
    rc = load_shard(&w, model, f, &e);
    if (rc == RC_OK) {
        tp_loaded(w.seat);
        rc = follow(&w, &e);
    }
    if (rc != RC_OK && w.seat)
        tp_refuse(w.seat, e.msg); /* rank 0 says it */
    if (rc != RC_OK && l->is_far)
        fprintf(stderr, "weir-worker: %s\n", e.msg);
    load_free(l);
    tp_leave(w.seat);
    return rc == RC_OK ? 0 : 1;
}
