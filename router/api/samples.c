/* How many sequences of each prompt there are, which of them are shown, and what beam search excludes
 * (api.md 8.2, 8.4). */
#include <float.h>
#include <math.h>

#include "router/api/request.h"
#include "router/api/run.h"

enum rc samples_check(const struct field_values *v, struct gen_req *r, struct err *e) {
    int64_t best_of = v->best_of.set ? v->best_of.v : (int64_t)r->n;
    if (best_of < (int64_t)r->n)
        return err_set(e, RC_INVALID, "best_of", "best_of must be greater_than_equal %u, which is n, got %lld",
                       r->n, (long long)best_of);
    r->n_samples = (uint32_t)best_of;
    r->beams = v->use_beam_search.v;
    r->sums = r->n_samples > r->n && !r->beams;
    r->length_penalty =
        v->length_penalty.set ? (float)fmin(fmax(v->length_penalty.v, -FLT_MAX), FLT_MAX) : 1.0f;
    if (r->stream && r->beams)
        return err_set(e, RC_INVALID, "stream", "stream is not available with use_beam_search");
    if (r->stream && r->sums)
        return err_set(e, RC_INVALID, "best_of", "best_of greater than n, %u, is not available with stream", r->n);
    bool alone = r->route == GEN_COMPLETIONS && v->max_tokens.set && v->max_tokens.v == 0;
    if (alone && !r->echo)
        return err_set(e, RC_INVALID, "max_tokens", "max_tokens must be greater_than_equal 1 without echo, got 0");
    if (alone && r->beams)
        return err_set(e, RC_INVALID, "max_tokens",
                       "max_tokens must be greater_than_equal 1 with use_beam_search, got 0");
    r->echo_alone = alone;
    return RC_OK;
}

enum rc beams_check(const struct field_values *v, const struct sampling_raw *raw, const struct gen_req *r,
                    struct err *e) {
    const struct {
        bool given;
        const char *field;
    } rows[] = {
        {r->n_stop_strings > 0, "stop"},
        {raw->n_stop_ids > 0, "stop_token_ids"},
        {raw->n_bad_words > 0, "bad_words"},
        {raw->n_bias > 0, "logit_bias"},
        {raw->n_allowed > 0, "allowed_token_ids"},
        {json_array_size(v->logits_processors) > 0, "logits_processors"},
        {v->min_tokens.v > 0, "min_tokens"},
        {v->presence_penalty.v != 0, "presence_penalty"},
        {v->frequency_penalty.v != 0, "frequency_penalty"},
        {v->repetition_penalty.set && v->repetition_penalty.v != 1, "repetition_penalty"},
        {v->prompt_logprobs.set, "prompt_logprobs"},
        {r->tools_mode != TOOLS_NONE || r->parse.auto_tools, "tool_choice"},
        {r->constraint.kind != 0, r->constraint.field ? r->constraint.field : "response_format"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].given)
            return err_set(e, RC_INVALID, rows[i].field, "%s is not available with use_beam_search",
                           rows[i].field);
    return RC_OK;
}

void samples_order(const struct gen_run *g, uint32_t prompt, uint32_t *order) {
    uint32_t n = g->r->n_samples;
    const struct choice *c = g->choices + (size_t)prompt * n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i;
        for (; g->r->sums && at > 0 && c[order[at - 1]].sum < c[i].sum; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}
