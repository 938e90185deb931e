#include "tests/support/model_run.h"

#include <stdio.h>
#include <stdlib.h>

static void die(const char *what, const char *why) {
    fprintf(stderr, "model_run: %s: %s\n", what, why);
    abort();
}

void model_run_open(struct model_run *r, const struct hf_config *cfg, const struct st_set *set,
                    const struct be_ops *ops, const struct be_config *bc) {
    struct be_config c = *bc;
    struct cache_group_spec spec[BE_GROUPS_MAX];
    char why[BE_ERR_BYTES] = "";
    struct err e = {0};
    *r = (struct model_run){.ops = ops, .vocab = cfg->vocab};
    c.n_tokens_max = c.n_rows_max = MODEL_RUN_LEN;
    c.n_seqs_max = 1;
    c.n_vocab = cfg->vocab;
    c.compute = bc->compute == DT_F8E4M3 ? DT_NONE : bc->compute;
    if (ops->open(&r->be, &c, why))
        die(ops->name, why);
    struct model_opts o = {.ops = ops,
                           .be = r->be,
                           .rank = (uint32_t)c.rank,
                           .n_ranks = (uint32_t)c.n_ranks,
                           .kv = bc->compute ? bc->compute : DT_F32,
                           .n_tokens_max = MODEL_RUN_LEN,
                           .dummy = !set};
    if (model_load(&r->model, cfg, set, &o, &e))
        die("load", e.msg);
    r->n_groups = model_groups(cfg, &o, spec);
    for (uint32_t g = 0; g < r->n_groups; g++) {
        r->kv[g] = ops->kv_new(r->be, g, &spec[g], MODEL_RUN_BLOCKS, why);
        if (!r->kv[g])
            die("cache", why);
    }
    r->logits = xcalloc((size_t)MODEL_RUN_LEN * r->vocab, sizeof *r->logits);
}

void model_run_close(struct model_run *r) {
    for (uint32_t g = 0; g < r->n_groups; g++)
        r->ops->kv_free(r->be, r->kv[g]);
    model_free(r->model);
    r->ops->close(r->be);
    free(r->logits);
}

void model_run_chunk(struct model_run *r, const uint32_t *tokens, uint32_t from, uint32_t to) {
    uint32_t n = to - from, table[MODEL_RUN_BLOCKS], slot[MODEL_RUN_LEN], rows[MODEL_RUN_LEN];
    uint32_t seq_start[2] = {0, n}, kv_len[1] = {to};
    int32_t pos[MODEL_RUN_LEN];
    char why[BE_ERR_BYTES] = "";
    struct batch b = {.n_tokens = n, .n_seqs = 1, .n_rows = n, .n_axes = 1, .n_groups = r->n_groups};
    CHECK(from < to && to <= MODEL_RUN_LEN);
    b.tokens = tokens + from;
    b.pos = pos;
    b.seq_start = seq_start;
    b.kv_len = kv_len;
    b.rows = rows;
    for (uint32_t i = 0; i < MODEL_RUN_BLOCKS; i++)
        table[i] = (i * 5 + 7) % MODEL_RUN_BLOCKS; /* in no order: 5 and 12 have no common factor */
    for (uint32_t i = 0; i < n; i++) {
        pos[i] = (int32_t)(from + i);
        rows[i] = i;
        slot[i] = table[(from + i) / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + (from + i) % KV_BLOCK_TOKENS;
    }
    for (uint32_t g = 0; g < r->n_groups; g++) {
        b.group[g].table = table;
        b.group[g].table_stride = MODEL_RUN_BLOCKS;
        b.group[g].slot = slot;
    }
    model_forward(r->model, &b);
    if (r->ops->wait(r->be, why))
        die("wait", why);
    for (uint32_t i = 0; i < n; i++)
        r->ops->logits_get(r->be, i, r->logits + (size_t)(from + i) * r->vocab);
}

void model_run_greedy(struct model_run *r, uint32_t *tokens, uint32_t n_prompt, uint32_t n) {
    model_run_chunk(r, tokens, 0, n_prompt);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t last = n_prompt + i - 1, best = 0;
        const float *row = r->logits + (size_t)last * r->vocab;
        for (uint32_t v = 1; v < r->vocab; v++)
            best = row[v] > row[best] ? v : best;
        tokens[last + 1] = best;
        if (i + 1 < n)
            model_run_chunk(r, tokens, last + 1, last + 2);
    }
}
