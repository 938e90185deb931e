/* sample.h: the parts of sampling that the plain C and the AVX2 sampler share: everything whose cost does not
 * grow with the vocabulary, and the definitions that both must follow to the bit.
 *
 *   l_i     the logit after bias, penalties and masks; finite values saturate at +-FLT_MAX
 *   m       the largest l_i
 *   d_i     (l_i - m) / temperature in f32, so no temperature makes an infinity or a NaN; d_i <= 0
 *   w_i     be_weight40(d_i)
 *   order   by l_i, the lower id first among equals (-0 equals 0); temperature does not change it
 *
 * Logits of minus infinity weigh nothing and are never sampled. Log-probabilities are d_i minus the logarithm
 * of sum(w) / 2^40, in f64: the integers make them, too, independent of order and device. A w_i is off by at
 * most 2^-21 of itself plus 2^-40, which moves a log-probability by less than 1e-6 for vocabularies up to
 * 2^19.
 */
#ifndef WEIR_WORKER_CPU_SAMPLE_H
#define WEIR_WORKER_CPU_SAMPLE_H

#include "worker/backend.h"
#include "worker/cpu/convert.h"

/* sample_divisor: what logits are divided by; 1 for greedy. */
static inline float sample_divisor(const struct sample_row *row) {
    return row->temperature > 0 ? row->temperature : 1.0f;
}

/* sample_min_p: the best token always survives. */
static inline float sample_min_p(const struct sample_row *row) {
    return row->min_p < 1 ? row->min_p : 1.0f;
}

/* sample_penalize: bias and penalties, in the order of api.md 8.1, on l [n_vocab], a copy of the raw logits.
 * Ids beyond the logits cannot be sampled and are passed over. */
void sample_penalize(const struct sample_row *row, float *l, uint32_t n_vocab);

/* sample_ban: the banned ids become minus infinity. The bitset is the caller's work. */
void sample_ban(const struct sample_row *row, float *l, uint32_t n_vocab);

/* sample_need: how much of `total` a run must reach for top_p: the product in f64, rounded up, at least 1. */
uint64_t sample_need(float top_p, uint64_t total);

/* sample_point: the draw, below `total`. */
static inline uint64_t sample_point(const struct sample_row *row, uint64_t total) {
    return (uint64_t)((unsigned __int128)be_philox64(row->seed, row->position) * total >> 64);
}

/* sample_key: sorts as `order`, ascending key is best first. */
static inline uint64_t sample_key(float l, uint32_t id) {
    uint32_t u = f32_bits(l + 0.0f);
    u = u & 0x80000000u ? u : ~u & 0x7FFFFFFFu; /* larger floats get smaller keys */
    return (uint64_t)u << 32 | id;
}

/* sample_report: what a mode reports for one token, from its l and d and the logarithm of sum(w) / 2^40. */
float sample_report(uint32_t mode, float divisor, float l, float d, double log_total);

static inline bool sample_wants_logprobs(const struct sample_row *row) {
    return row->want_logprob || row->n_top > 0;
}

#endif
