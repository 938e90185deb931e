/* What a request needs to go on at another worker when its own is lost: the tokens that its samples have said.
 *
 * A token depends on logits, parameters, seed and position alone (ARCHITECTURE.md 7), so a worker that is given
 * prompt and output so far goes on where the other one stopped, and the run (text, stop strings, parsers, usage)
 * does not notice. A beam search has no such middle: it begins anew, and what of it is out already must come
 * again, token by token. */
#include <stdlib.h>

#include "router/session_private.h"

enum { IDS_MIN = 32 };

/* choice_spill: the tail is full. */
void choice_spill(struct choice *c) {
    uint32_t at = c->n_tokens - CHOICE_TAIL;
    if (c->n_tokens > c->cap) {
        c->cap = MAX(2 * c->cap, (uint32_t)IDS_MIN);
        c->ids = xreallocarray(c->ids, c->cap, sizeof *c->ids);
    }
    memcpy(c->ids + at, c->tail, sizeof c->tail);
}

uint32_t choice_id(const struct choice *c, uint32_t i) {
    CHECK(i < c->n_tokens);
    return i < c->n_tokens / CHOICE_TAIL * CHOICE_TAIL ? c->ids[i] : c->tail[i % CHOICE_TAIL];
}

void choice_forget(struct choice *c) {
    free(c->ids);
    c->ids = NULL;
    c->cap = 0;
}

/* resumes: whether a sample's tokens go to the next worker. */
static bool resumes(const struct leg *g, uint32_t k) {
    return !g->s->req->beams && !g->choices[k].finished && g->choices[k].n_tokens > 0;
}

uint32_t leg_seqs(const struct leg *g) {
    uint32_t n = 0;
    for (uint32_t k = 0; k < g->s->req->n_samples; k++)
        n += !g->choices[k].finished;
    return n;
}

uint32_t leg_tokens(const struct leg *g) {
    uint64_t n = g->s->req->prompts[g->prompt].n_ids;
    for (uint32_t k = 0; k < g->s->req->n_samples; k++)
        n += resumes(g, k) ? g->choices[k].n_tokens : 0;
    return (uint32_t)MIN(n, UINT32_MAX / 2);
}

void *replay_fill(struct leg *g, struct gen_submit *out) {
    const struct gen_req *r = g->s->req;
    size_t n = 0, n_tokens = 0, at = 0;
    if (!g->touched || r->pool)
        return NULL;
    /* The rows of the prompt come with the first output: they are known, or nothing is. */
    if (r->n_prompt_top >= 0 && gen_prompt_known(g->s->run, g->prompt))
        out->sampling.n_prompt_logprobs = -1;
    for (uint32_t k = 0; k < r->n_samples; k++) {
        struct choice *c = &g->choices[k];
        c->n_repeat = r->beams && !c->finished ? c->n_tokens : 0;
        n += resumes(g, k);
        n_tokens += resumes(g, k) ? c->n_tokens : 0;
    }
    if (n == 0)
        return NULL;
    /* One block: the list's pointers, what they point to, the tokens. */
    Weir__Resume **list = xmalloc(n * (sizeof *list + sizeof **list) + n_tokens * sizeof(uint32_t));
    Weir__Resume *item = (Weir__Resume *)(void *)(list + n);
    uint32_t *ids = (uint32_t *)(void *)(item + n);
    for (uint32_t k = 0; k < r->n_samples; k++) {
        const struct choice *c = &g->choices[k];
        if (!resumes(g, k))
            continue;
        weir__resume__init(item);
        item->has_sample = true;
        item->sample = k;
        item->tokens = ids;
        item->n_tokens = c->n_tokens;
        for (uint32_t i = 0; i < c->n_tokens; i++)
            ids[i] = choice_id(c, i);
        ids += c->n_tokens;
        list[at++] = item++;
    }
    out->m.resume = list;
    out->m.n_resume = n;
    return list;
}

bool leg_replay(struct leg *g, uint64_t last_ns, bool abort) {
    const struct router *r = g->s->loop->router;
    uint64_t until_ns = last_ns + fleet_replay_ns(r->fleet);
    if (!r->opts->replay || g->n_replays >= (uint64_t)r->opts->max_replays ||
        (until_ns <= clock_ns() && !fleet_has_other(r->fleet, g->worker)))
        return false;
    g->n_replays++;
    g->until_ns = until_ns;
    leg_again(g, abort);
    return true;
}
