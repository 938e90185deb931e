/* beam.h: beam search: the hypotheses of one request, from rows of logits to the best of them (api.md 8.4).
 *
 * A request of width w has w sequences. Live hypotheses each have one of them, which the scheduler runs like any
 * other; when all have had their row computed, the best w extensions are the next live ones. Where a hypothesis
 * has several successors the sequence is forked: full blocks are shared, and the last is copied when it is
 * written. What a hypothesis says is a path in a tree of tokens, so that forks cost nothing there.
 *
 *   score = sum of raw log-probabilities / L ^ length_penalty, L: tokens of prompt and output without an end token
 *
 * The search ends at the token limit, or when no live hypothesis can come among the best w any more: a sum only
 * falls, so with s the sum and L the length so far the best score to come is the larger of s / L^p and
 * s / Lmax^p. Memory grows with the steps taken, bounded by BEAM_NODES_MAX and BEAM_TOPS_MAX.
 *
 * The engine's thread only.
 */
#ifndef WEIR_WORKER_BEAM_H
#define WEIR_WORKER_BEAM_H

#include "worker/backend.h"
#include "worker/sched.h"

enum { BEAM_NODES_MAX = 1 << 22, BEAM_TOPS_MAX = 1 << 23 };

/* beam_check: whether r, which asks for one, can be searched: RC_INVALID with the field. */
MUST_USE enum rc beam_check(const struct req *r, uint32_t n_vocab, struct err *e);
/* beam_n_top: alternatives that each row must come with. */
uint32_t beam_n_top(const struct req *r);

void beam_free(struct beam *b); /* NULL is allowed */
/* beam_row: the row of q, one of r's live sequences, with the beam_n_top best raw log-probabilities. logits: of the
 * whole vocabulary, where they are what is reported; else NULL. Makes r->beam the first time. Returns whether all
 * live ones have had theirs. */
bool beam_row(struct sched *s, struct seq *q, const struct sample_out *row, const float *logits);
/* beam_step: when they have: the next live hypotheses. False: the search is over, and no sequence holds anything
 * any more. */
bool beam_step(struct sched *s, struct req *r);

/* The result, after the end: hypothesis k is sample k, best first. */
struct beam_token {
    uint32_t id, rank;
    float logprob; /* or its logit */
    const uint32_t *top_ids; /* [n_logprobs of the request] */
    const float *top_logprobs;
};
/* beam_length: tokens of hypothesis k, an end token included; 0: there is none. *stopped: it ends in one. */
uint32_t beam_length(struct beam *b, uint32_t k, bool *stopped);
/* beam_token: number i of hypothesis k; cheap if k is that of the last beam_length. */
struct beam_token beam_token(const struct beam *b, uint32_t i);

/* The next token to be reported, and the engine's list of searches that are over. */
struct beam_cursor {
    uint32_t sample, token;
    struct req *next;
    bool listed;
};
struct beam_cursor *beam_cursor(struct beam *b);

#endif
