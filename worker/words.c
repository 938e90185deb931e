#include "worker/words.h"

#include <stdlib.h>

/* A word of n ids has a table of n entries: fail[i] is the length of the longest proper beginning of the word
 * that ids [0, i] end in. */

/* advance: how much of the word the output ends in after `token`, given how much before; n stands for the
 * whole word, which only a resumed output can hold. */
static uint32_t advance(const struct req_word *w, uint32_t had, uint32_t token) {
    if (had == w->n)
        had = w->fail[had - 1];
    while (had > 0 && w->ids[had] != token)
        had = w->fail[had - 1];
    return w->ids[had] == token ? had + 1 : 0;
}

void words_prepare(struct req *r) {
    size_t n = 0, at = 0;
    for (uint32_t i = 0; i < r->n_words; i++)
        n += r->words[i].n;
    if (n == 0)
        return;
    r->word_fails = xcalloc(n, sizeof *r->word_fails);
    for (uint32_t i = 0; i < r->n_words; i++) {
        struct req_word *w = &r->words[i];
        uint32_t had = 0;
        w->fail = r->word_fails + at;
        at += w->n;
        for (uint32_t k = 1; k < w->n; k++) {
            had = advance(w, had, w->ids[k]);
            w->fail[k] = had;
        }
    }
}

void words_note(struct seq *q, uint32_t token) {
    const struct req *r = q->req;
    for (uint32_t i = 0; q->word_had && i < r->n_words; i++)
        q->word_had[i] = advance(&r->words[i], q->word_had[i], token);
}

static void insert(uint32_t *ids, uint32_t *n, uint32_t id) {
    uint32_t at = *n;
    while (at > 0 && ids[at - 1] > id)
        at--;
    if (at > 0 && ids[at - 1] == id)
        return;
    memmove(ids + at + 1, ids + at, (*n - at) * sizeof *ids);
    ids[at] = id;
    ++*n;
}

const uint32_t *words_banned(struct seq *q, bool with_stops, uint32_t *n) {
    const struct req *r = q->req;
    if (!q->word_had) {
        /* Progress in each word, then the list. */
        q->word_had = xcalloc(2 * (size_t)r->n_words + r->n_stops, sizeof *q->word_had);
        for (uint32_t i = 0; i < q->n_out; i++)
            words_note(q, q->out[i]);
    }
    uint32_t *ids = q->word_had + r->n_words;
    *n = with_stops ? r->n_stops : 0;
    for (uint32_t i = 0; i < *n; i++)
        ids[i] = r->stops[i];
    for (uint32_t i = 0; i < r->n_words; i++) {
        const struct req_word *w = &r->words[i];
        /* The longest beginning decides: it is all but the last id, or no beginning of that length fits. */
        if ((q->word_had[i] == w->n ? w->fail[w->n - 1] : q->word_had[i]) + 1 == w->n)
            insert(ids, n, w->ids[w->n - 1]);
    }
    return ids;
}
