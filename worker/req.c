/* req.c: making and freeing requests; all that needs the whole prompt happens here, on the submitting thread.
 */
#include <stdlib.h>

#include "common/hash.h"
#include "worker/backend.h"
#include "worker/beam.h"
#include "worker/constraint.h"
#include "worker/procs.h"
#include "worker/seq.h"
#include "worker/words.h"

enum { REQ_ALIGN = 16 };

/* place: the next `bytes` of a block being laid out; base NULL while measuring. */
static void *place(char *base, size_t *at, const void *src, size_t bytes) {
    char *dst = base ? base + *at : NULL;
    if (dst && bytes)
        memcpy(dst, src, bytes);
    *at += (bytes + REQ_ALIGN - 1) / REQ_ALIGN * REQ_ALIGN;
    return dst;
}

/* lay_out: copies src and everything it points to into base, or measures what that takes. */
static size_t lay_out(const struct req *src, char *base) {
    size_t at = 0;
    struct req *r = place(base, &at, src, sizeof *src);
    const uint32_t *prompt = place(base, &at, src->prompt, src->n_prompt * sizeof *src->prompt);
    const uint32_t *stop_ids = place(base, &at, src->stop_ids, src->n_stop_ids * sizeof *src->stop_ids);
    const uint32_t *starts_after =
        place(base, &at, src->starts_after, src->n_starts_after * sizeof *src->starts_after);
    const struct sample_bias *bias = place(base, &at, src->bias, src->n_bias * sizeof *src->bias);
    size_t allowed_bytes = src->allowed ? src->n_allowed_words * sizeof *src->allowed : 0;
    const uint32_t *allowed = place(base, &at, src->allowed, allowed_bytes);
    const uint8_t *types = place(base, &at, src->token_types, src->token_types ? src->n_prompt : 0);
    struct req_resume *resume = place(base, &at, src->resume, src->n_resume * sizeof *src->resume);
    for (uint32_t i = 0; i < src->n_resume; i++) {
        const struct req_resume *x = &src->resume[i];
        const uint32_t *tokens = place(base, &at, x->tokens, x->n_tokens * sizeof *x->tokens);
        if (base)
            resume[i].tokens = tokens;
    }
    struct req_word *words = place(base, &at, src->words, src->n_words * sizeof *src->words);
    for (uint32_t i = 0; i < src->n_words; i++) {
        const uint32_t *ids = place(base, &at, src->words[i].ids, src->words[i].n * sizeof *ids);
        if (base)
            words[i].ids = ids;
    }
    struct req_proc *procs = place(base, &at, src->procs, src->n_procs * sizeof *src->procs);
    for (uint32_t i = 0; i < src->n_procs; i++) {
        const char *args = place(base, &at, src->procs[i].args, strlen(src->procs[i].args) + 1);
        const char *kwargs = place(base, &at, src->procs[i].kwargs, strlen(src->procs[i].kwargs) + 1);
        if (base)
            procs[i] = (struct req_proc){src->procs[i].lp, args, kwargs};
    }
    const uint32_t *kv_blocks = place(base, &at, src->kv.blocks, src->kv.n_blocks * sizeof *src->kv.blocks);
    const char *xargs = place(base, &at, src->xargs, src->xargs ? strlen(src->xargs) + 1 : 0);
    if (base) {
        r->procs = procs;
        r->kv.blocks = kv_blocks;
        r->xargs = src->xargs ? xargs : NULL;
        r->words = words;
        r->prompt = prompt;
        r->stop_ids = stop_ids;
        r->starts_after = starts_after;
        r->bias = bias;
        r->allowed = src->allowed ? allowed : NULL;
        r->resume = resume;
        r->token_types = src->token_types ? types : NULL;
    }
    return at;
}

struct req *req_new(const struct req *src) {
    char *base = xmalloc(lay_out(src, NULL));
    lay_out(src, base);
    return (struct req *)(void *)base;
}

/* sort_ids: radix sort, a byte at a time; tmp has n entries. The result may end up in either. */
static uint32_t *sort_ids(uint32_t *a, uint32_t *tmp, size_t n) {
    for (int shift = 0; shift < 32; shift += 8) {
        size_t count[256] = {0}, at = 0;
        for (size_t i = 0; i < n; i++)
            count[a[i] >> shift & 255]++;
        if (n && count[a[0] >> shift & 255] == n)
            continue;
        for (int i = 0; i < 256; i++) {
            size_t c = count[i];
            count[i] = at;
            at += c;
        }
        for (size_t i = 0; i < n; i++)
            tmp[count[a[i] >> shift & 255]++] = a[i];
        uint32_t *x = a;
        a = tmp;
        tmp = x;
    }
    return a;
}

/* unique_ids: sorts a[n] (with n more entries of scratch behind) and drops repeats; the result is at a[0]. */
static uint32_t unique_ids(uint32_t *a, size_t n) {
    uint32_t *sorted = sort_ids(a, a + n, n), n_unique = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || sorted[i] != sorted[i - 1])
            a[n_unique++] = sorted[i]; /* never ahead of i, should they overlap */
    return n_unique;
}

bool req_penalises(const struct req *r) {
    return r->repetition_penalty != 1.0f || r->frequency_penalty != 0 || r->presence_penalty != 0;
}

static void prepare_seqs(struct req *r) {
    r->seqs = xcalloc(r->n_samples, sizeof *r->seqs);
    for (uint32_t k = 0; k < r->n_samples; k++)
        r->seqs[k] = (struct seq){.req = r, .sample = k, .seat = SEQ_NO_SEAT};
    for (uint32_t i = 0; i < r->n_resume; i++) {
        const struct req_resume *x = &r->resume[i];
        CHECK(x->sample < r->n_samples && x->n_tokens < r->max_tokens);
        struct seq *q = &r->seqs[x->sample];
        if (x->n_tokens == 0)
            continue;
        CHECK(!q->out);
        q->out = xmalloc((size_t)r->max_tokens * sizeof *q->out);
        memcpy(q->out, x->tokens, x->n_tokens * sizeof *q->out);
        q->n_out = q->n_resumed = x->n_tokens;
    }
}

void req_prepare(struct req *r, const uint32_t *eos_ids, uint32_t n_eos_ids, bool with_hashes) {
    CHECK(r->n_prompt > 0 && r->n_samples > 0 && !r->seqs);
    r->n_live = r->n_samples;
    prepare_seqs(r);
    uint32_t n_eos = r->ignore_eos ? 0 : n_eos_ids, n = n_eos + r->n_stop_ids;
    if (n) {
        r->stops = xcalloc(2 * (size_t)n, sizeof *r->stops);
        for (uint32_t i = 0; i < n; i++)
            r->stops[i] = i < n_eos ? eos_ids[i] : r->stop_ids[i - n_eos];
        r->n_stops = unique_ids(r->stops, n);
    }
    words_prepare(r);
    if (req_penalises(r)) {
        uint32_t *ids = xcalloc(2 * (size_t)r->n_prompt, sizeof *ids);
        memcpy(ids, r->prompt, r->n_prompt * sizeof *ids);
        r->n_seen = unique_ids(ids, r->n_prompt);
        r->seen = xcalloc(r->n_seen, sizeof *r->seen);
        for (uint32_t i = 0; i < r->n_seen; i++)
            r->seen[i] = (struct sample_seen){.id = ids[i], .in_prompt = 1};
        free(ids);
    }
    if (with_hashes && r->n_prompt >= HASH_BLOCK_TOKENS) {
        struct id128 parent = {0}, domain;
        memcpy(domain.b, r->domain, sizeof domain.b);
        uint32_t n_hashes = r->n_prompt / HASH_BLOCK_TOKENS;
        r->hashes = xcalloc(n_hashes, sizeof *r->hashes);
        for (uint32_t i = 0; i < n_hashes; i++)
            parent = r->hashes[i] = hash_block(parent, domain, r->prompt + i * HASH_BLOCK_TOKENS, NULL);
        r->n_hashes = n_hashes;
    }
}

void req_free(struct req *r) {
    if (!r)
        return;
    for (uint32_t k = 0; r->seqs && k < r->n_samples; k++) {
        free(r->seqs[k].out);
        free(r->seqs[k].seen);
        free(r->seqs[k].word_had);
        procs_destroy(&r->seqs[k]);
        gram_run_free(r->seqs[k].run);
    }
    pooling_free(r->pool_state);
    beam_free(r->beam);
    free(r->seqs);
    constraint_drop(r->constraint);
    free(r->hashes);
    free(r->offer);
    free(r->stops);
    free(r->seen);
    free(r->word_fails);
    free(r->prompt_logprobs);
    free(r->prompt_top_ids);
    free(r->prompt_top_logprobs);
    free(r);
}
