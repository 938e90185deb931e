#include "worker/cpu/sample.h"

#include <float.h>
#include <math.h>

/* saturate: a finite logit stays finite, whatever a request's numbers did to it. */
static float saturate(float x) {
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

void sample_penalize(const struct sample_row *row, float *l, uint32_t n_vocab) {
    for (uint32_t i = 0; i < row->n_bias; i++)
        if (row->bias[i].id < n_vocab && l[row->bias[i].id] > -INFINITY)
            l[row->bias[i].id] = saturate(l[row->bias[i].id] + row->bias[i].value);
    bool repetition = row->repetition_penalty > 0 && row->repetition_penalty != 1.0f;
    if (!repetition && row->frequency_penalty == 0 && row->presence_penalty == 0)
        return;
    for (uint32_t i = 0; i < row->n_seen; i++) {
        const struct sample_seen *s = &row->seen[i];
        if (s->id >= n_vocab || l[s->id] == -INFINITY)
            continue;
        float x = l[s->id];
        if (repetition)
            x = x > 0 ? x / row->repetition_penalty : x * row->repetition_penalty;
        if (s->n_output > 0) {
            x -= row->frequency_penalty * (float)s->n_output;
            x -= row->presence_penalty;
        }
        l[s->id] = saturate(x);
    }
}

void sample_ban(const struct sample_row *row, float *l, uint32_t n_vocab) {
    for (uint32_t i = 0; i < row->n_banned; i++)
        if (row->banned[i] < n_vocab)
            l[row->banned[i]] = -INFINITY;
}

uint64_t sample_need(float top_p, uint64_t total) {
    double need = ceil((double)top_p * (double)total);
    if (!(need >= 1))
        return 1;
    return need >= (double)total ? total : (uint64_t)need;
}

float sample_report(uint32_t mode, float divisor, float l, float d, double log_total) {
    if (mode == BE_RAW_LOGITS)
        return l;
    if (mode == BE_PROCESSED_LOGITS)
        return l == -INFINITY ? l : saturate(l / divisor);
    return (float)((double)d - log_total);
}
