#include "worker/seq.h"

#include <stdlib.h>

#include "common/hash.h"

void seq_copy_tokens(const struct seq *s, uint32_t from, uint32_t n, uint32_t *dst) {
    const struct req *r = s->req;
    CHECK(from + n <= seq_known(s));
    uint32_t n_prompt = from < r->n_prompt ? MIN(n, r->n_prompt - from) : 0;
    if (n_prompt)
        memcpy(dst, r->prompt + from, n_prompt * sizeof *dst);
    if (n > n_prompt)
        memcpy(dst + n_prompt, s->out + (from + n_prompt - r->n_prompt), (n - n_prompt) * sizeof *dst);
}

struct id128 seq_block_name(const struct seq *s, uint32_t block, struct id128 parent) {
    const struct req *r = s->req;
    uint32_t tokens[HASH_BLOCK_TOKENS];
    struct id128 domain;
    if (block < r->n_hashes)
        return r->hashes[block];
    seq_copy_tokens(s, block * HASH_BLOCK_TOKENS, HASH_BLOCK_TOKENS, tokens);
    memcpy(domain.b, r->domain, sizeof domain.b);
    return hash_block(parent, domain, tokens, NULL);
}

void seq_ready(struct seq *s) {
    struct req *r = s->req;
    if (!s->out && r->max_tokens)
        s->out = xmalloc((size_t)r->max_tokens * sizeof *s->out);
    if (r->n_prompt_logprobs >= 0 && !r->prompt_logprobs) {
        size_t n_top = (size_t)r->n_prompt * (uint32_t)r->n_prompt_logprobs;
        r->prompt_logprobs = xcalloc(r->n_prompt, sizeof *r->prompt_logprobs);
        r->prompt_top_ids = xcalloc(n_top + 1, sizeof *r->prompt_top_ids);
        r->prompt_top_logprobs = xcalloc(n_top + 1, sizeof *r->prompt_top_logprobs);
        r->n_prompt_done = 1; /* nothing predicts the first token */
    }
}

bool seq_wants_prompt_rows(const struct seq *s) {
    return s->req->n_prompt_logprobs >= 0 && s->req->n_prompt_done < s->req->n_prompt;
}

enum finish_reason seq_accept(struct seq *s, uint32_t token, uint32_t max_len) {
    const struct req *r = s->req;
    CHECK(s->out && s->n_out < r->max_tokens && seq_known(s) < max_len);
    s->out[s->n_out++] = token;
    /* Stop ids are masked before min_tokens are out; a resumed output may hold one nevertheless. */
    if (s->n_out > r->min_tokens && req_stops_at(r, token))
        return FINISH_STOP;
    if (s->n_out == r->max_tokens || seq_known(s) == max_len)
        return FINISH_LENGTH;
    return FINISH_NONE;
}

bool req_stops_at(const struct req *r, uint32_t token) {
    uint32_t lo = 0, hi = r->n_stops;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (r->stops[mid] < token)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < r->n_stops && r->stops[lo] == token;
}

#define ORDER(x, y)                                                                                          \
    if ((x) != (y))                                                                                          \
    return (x) < (y) ? -1 : 1

int seq_order(const struct seq *a, const struct seq *b, bool by_priority) {
    if (by_priority)
        ORDER(a->req->priority, b->req->priority);
    ORDER(a->req->fair, b->req->fair);
    ORDER(a->req->arrival_ns, b->req->arrival_ns);
    ORDER(a->req->serial, b->req->serial);
    ORDER(a->sample, b->sample);
    return 0;
}
