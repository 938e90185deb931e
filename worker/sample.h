/* sample.h: what a sampled token depends on, put together for the backend (architecture 7).
 *
 * A row is a function of the request, the sample's number and its output so far, and of nothing else in the
 * batch; the order of operations on it is api.md 8.1. The list of seen tokens is kept from token to token,
 * and only where a penalty needs it. The engine's thread only.
 */
#ifndef WEIR_WORKER_SAMPLE_H
#define WEIR_WORKER_SAMPLE_H

#include "worker/backend.h"
#include "worker/seq.h"

/* sample_row_fill: the row of q's next token. Arrays in it belong to the request and the sequence, and stay
 * valid until the next sample_note or the end of q. The first call allocates the seen list, if there is to be
 * one. */
void sample_row_fill(struct sample_row *row, struct seq *q, uint32_t n_vocab, uint32_t logprobs_mode);

/* sample_note: q has just accepted that token. */
void sample_note(struct seq *q, uint32_t token);

#endif
