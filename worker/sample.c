#include "worker/sample.h"

#include "worker/beam.h"
#include "worker/words.h"

static uint32_t seen_find(const struct seq *q, uint32_t id) {
    uint32_t lo = 0, hi = q->n_seen;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (q->seen[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void seen_note(struct seq *q, uint32_t token) {
    uint32_t at = seen_find(q, token);
    if (at == q->n_seen || q->seen[at].id != token) {
        memmove(q->seen + at + 1, q->seen + at, (q->n_seen - at) * sizeof *q->seen);
        q->seen[at] = (struct sample_seen){.id = token};
        q->n_seen++;
    }
    q->seen[at].n_output++;
}

void sample_note(struct seq *q, uint32_t token) {
    if (q->word_had)
        words_note(q, token);
    if (q->seen)
        seen_note(q, token);
}

/* seen_start: the prompt's ids and the output so far, with room for the rest of the output. */
static void seen_start(struct seq *q, uint32_t n_vocab) {
    const struct req *r = q->req;
    uint64_t most = (uint64_t)r->n_seen + r->max_tokens;
    q->seen = xcalloc((size_t)MIN(most, n_vocab), sizeof *q->seen);
    memcpy(q->seen, r->seen, r->n_seen * sizeof *q->seen);
    q->n_seen = r->n_seen;
    for (uint32_t i = 0; i < q->n_out; i++)
        seen_note(q, q->out[i]);
}

void sample_row_fill(struct sample_row *row, struct seq *q, uint32_t n_vocab, uint32_t logprobs_mode) {
    const struct req *r = q->req;
    if (r->seen && !q->seen)
        seen_start(q, n_vocab);
    bool too_early = q->n_out < r->min_tokens;
    *row = (struct sample_row){
        .temperature = r->temperature,
        .top_p = r->top_p,
        .min_p = r->min_p,
        .top_k = r->top_k,
        .repetition_penalty = r->repetition_penalty,
        .frequency_penalty = r->frequency_penalty,
        .presence_penalty = r->presence_penalty,
        .seed = r->seed + q->sample,
        .position = q->n_out,
        .seen = q->seen,
        .n_seen = q->n_seen,
        .bias = r->bias,
        .n_bias = r->n_bias,
        .banned = too_early ? r->stops : NULL,
        .n_banned = too_early ? r->n_stops : 0,
        .mask = r->allowed,
        .n_top = r->n_logprobs > 0 ? (uint32_t)r->n_logprobs : 0,
        .logprobs_mode = logprobs_mode,
        .want_logprob = r->n_logprobs >= 0 || r->want_raw,
    };
    if (r->beams) {
        row->n_top = beam_n_top(r);
        row->want_logprob = true;
        row->logprobs_mode = BE_RAW_LOGPROBS;
    }
    if (r->n_words)
        row->banned = words_banned(q, too_early, &row->n_banned);
}
