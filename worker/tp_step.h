/* tp_step.h: what rank 0 tells the others, as words: the plan of a step, blocks to copy, or to move between a cache and
 * memory that they share, pools to make, the end.
 *
 * A message is [n_words, kind, ...], n_words counting all of it. A follower copies it out of the shared
 * memory and then reads it here: every count, id, position, row, slot and block is held against the
 * follower's own limits, so that a bad plan is an error with a reason and never a wild access. Both are
 * linear in the message, and the plan of a step that rank 0's scheduler makes always passes.
 */
#ifndef WEIR_WORKER_TP_STEP_H
#define WEIR_WORKER_TP_STEP_H

#include "common/err.h"
#include "worker/backend.h"

enum tp_kind { TP_POOLS = 1, TP_COPY, TP_STEP, TP_STOP, TP_MOVE };
enum { TP_HEAD_WORDS = 2, TP_MOVE_BLOCKS = 256 /* of one message */ };

/* tp_limits: of a rank. n_blocks is 0 until the pools are made. */
struct tp_limits {
    uint32_t n_tokens_max, n_seqs_max, n_rows_max, n_vocab, max_len, n_groups;
    uint32_t n_blocks[BE_GROUPS_MAX];
};

/* tp_msg: a message taken apart; arrays lie in its words. */
struct tp_msg {
    enum tp_kind kind;
    struct batch batch;               /* STEP */
    uint32_t n_blocks[BE_GROUPS_MAX]; /* POOLS */
    uint32_t group, n_copies;         /* COPY */
    const struct be_copy *copies;
    bool in;                /* MOVE: into the cache */
    uint32_t rank, serial;  /* MOVE: whose blocks; what it answers */
    uint32_t n_blocks_moved;
    const uint32_t *blocks; /* MOVE, of `group` */
};

/* tp_words_max: words of the longest message within these limits. */
size_t tp_words_max(const struct tp_limits *l);

/* tp_put_*: a message into out, which has room for tp_words_max; return its words. A batch must keep the
 * limits, have no embeds and no from_row. */
size_t tp_put_pools(uint32_t *out, const uint32_t *n_blocks, uint32_t n_groups);
size_t tp_put_copies(uint32_t *out, uint32_t group, const struct be_copy *copies, uint32_t n);
size_t tp_put_step(uint32_t *out, const struct batch *b);
size_t tp_put_stop(uint32_t *out);
/* tp_put_move: n blocks, TP_MOVE_BLOCKS at most. */
size_t tp_put_move(uint32_t *out, bool in, uint32_t rank, uint32_t serial, uint32_t group, const uint32_t *blocks,
                   uint32_t n);

/* tp_get: takes a whole message apart. RC_INVALID says what is wrong with it. */
MUST_USE enum rc tp_get(const uint32_t *words, size_t n, const struct tp_limits *l, struct tp_msg *out,
                        struct err *e);

#endif
