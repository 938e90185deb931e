/* model_run.h: a model without an engine, for tests: one sequence, its cache, and the logits of each
 * position. */
#ifndef WEIR_TESTS_SUPPORT_MODEL_RUN_H
#define WEIR_TESTS_SUPPORT_MODEL_RUN_H

#include "worker/model/model.h"

enum { MODEL_RUN_LEN = 192, MODEL_RUN_BLOCKS = MODEL_RUN_LEN / KV_BLOCK_TOKENS };

struct model_run {
    const struct be_ops *ops;
    struct be *be;
    struct model *model;
    uint32_t vocab, n_groups;
    struct be_kv *kv[BE_GROUPS_MAX];
    float *logits; /* [MODEL_RUN_LEN][vocab], by position */
};

/* model_run_open: set NULL: dummy weights. bc: rank, n_ranks, group, threads and compute are read; compute is the
 * cache's type, too: fp8 is that alone.
 * Aborts on failure, with the reason. */
void model_run_open(struct model_run *r, const struct hf_config *cfg, const struct st_set *set,
                    const struct be_ops *ops, const struct be_config *bc);
void model_run_close(struct model_run *r);
/* model_run_chunk: positions from .. to - 1 of a text whose earlier ones were run; fills their logits. */
void model_run_chunk(struct model_run *r, const uint32_t *tokens, uint32_t from, uint32_t to);
/* model_run_greedy: n more tokens behind the n_prompt in `tokens`, one by one, as an engine decodes. */
void model_run_greedy(struct model_run *r, uint32_t *tokens, uint32_t n_prompt, uint32_t n);

#endif
