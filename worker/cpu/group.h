/* group.h: what the ranks of a tensor-parallel group do together: they meet, add up their products, and fill
 * in each other's columns of the logits.
 *
 * The ranks are processes (in tests, threads) that run the same operations in the same order, in memory that
 * they share: struct be_group, counters, two sets of slots, one slot of GROUP_ROWS rows for each rank, and
 * the logits. Ranks may outnumber cores: a rank that waits spins at most 20 us, and not at all where all the
 * ranks' threads have no core each, and then sleeps on a futex.
 *
 * A sum is made by every rank for itself, in the order of ranks, so all have the same bits. One meeting does
 * for a sum: a slot of the other set is not written before all have met again, and thus have read this one.
 *
 * A rank on another host (be_config.far) has the same memory for itself, and in rank 0's process a stand, which takes part
 * for it: what the rank gives goes there, and what comes of all of them comes back, with the same bits.
 *
 * Threads: all calls come from member 0 of a rank's team. When be_group.failed is set, waits end, nothing is
 * added up any more, and group_why says why: the group is good for nothing then.
 */
#ifndef WEIR_WORKER_CPU_GROUP_H
#define WEIR_WORKER_CPU_GROUP_H

#include "worker/backend.h"

enum { GROUP_ROWS = 192 }; /* that are added up at once */

struct group;

/* group_bytes: as be_ops.group_bytes. group_open: cfg->group is zero, or others have begun to use it. */
size_t group_bytes(const struct be_config *cfg);
struct group *group_open(const struct be_config *cfg, int n_threads);
void group_close(struct group *g); /* NULL is fine */
/* group_logits: [n_rows_max][n_vocab padded], shared by the ranks. */
float *group_logits(const struct group *g);
/* group_why: true if this rank waited for one that is gone; why in err. */
bool group_why(const struct group *g, char err[BE_ERR_BYTES]);

/* group_meet: returns when all ranks have come here: what they wrote before can be read. */
void group_meet(struct group *g);

/* group_logits_begin: in front of this rank's columns [col0, col0 + cols) of n_rows rows of the logits; group_logits_end:
 * behind them: the ranks on rank 0's host have the columns of all. */
void group_logits_begin(struct group *g);
void group_logits_end(struct group *g, uint32_t n_rows, uint32_t col0, uint32_t cols);

/* As be_ops. */
struct be_stand *group_stand_open(const struct be_config *cfg, char err[BE_ERR_BYTES]);
bool group_stand_call(struct be_stand *s, const void *in, size_t n, void *out, size_t n_out);
void group_stand_close(struct be_stand *s);

/* group_slot: this rank's slot of the next sum, for rows of at most n_reduce_cols floats. */
float *group_slot(struct group *g);
/* group_sum: y = add + act(sum over ranks of their slots + bias), n_rows x cols, n_rows <= GROUP_ROWS; meets.
 * y may be add. bias, add: NULL for none. */
struct group_sum {
    float *y;
    const float *bias, *add;
    enum act_kind act;
    uint32_t n_rows, cols;
};
void group_sum(struct be *b, const struct group_sum *s);

/* group_embed: an embed with a sharded table. group_gemm: a gemm with reduce, by a gemm without. */
void group_embed(struct be *b, const struct op_embed *op);
void group_gemm(struct be *b, const struct op_gemm *op, void (*gemm)(struct be *b, const struct op_gemm *op));

#endif
