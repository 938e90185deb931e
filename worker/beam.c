#include "worker/beam.h"

#include <math.h>
#include <stdlib.h>

static const uint32_t none = UINT32_MAX;

struct node {
    uint32_t parent; /* none: the first token */
    uint32_t token, rank;
    uint32_t row; /* whose alternatives it was chosen among; counts only if they are kept */
    float shown;  /* its log-probability, or its logit */
};

struct live {
    uint32_t sample, node;
    double sum;
    bool has_row;
    uint32_t row;
};

/* extension: a live hypothesis and one more token. */
struct extension {
    uint32_t from; /* live */
    uint32_t token, rank;
    float logprob, shown;
    double sum;
};

struct done {
    uint32_t node; /* of its end token, or of the last one */
    bool stopped;
    double score;
};

struct beam {
    uint32_t width, n_top, n_kept; /* alternatives of a row: asked for; kept for the answer */
    uint32_t n_out;                /* tokens of the live hypotheses */
    struct node *nodes;            /* [n_nodes] */
    uint32_t n_nodes, cap_nodes;
    uint32_t *kept_ids; /* [n_rows][n_kept] */
    float *kept_logprobs;
    uint32_t n_rows, cap_rows;
    struct live *live; /* [width], best first */
    uint32_t n_live, n_with_row;
    uint32_t *ids;   /* [width][n_top] by live */
    float *logprobs; /* likewise */
    float *shown;    /* likewise: what is reported of them */
    struct extension *next; /* [width] */
    struct done *done;      /* [width + 1] best first; of equal ones the older first */
    uint32_t n_done;
    uint32_t *path; /* [n_path] nodes of the hypothesis looked at */
    uint32_t n_path, path_of;
    struct beam_cursor cursor;
};

uint32_t beam_n_top(const struct req *r) {
    return MAX(2 * r->n_samples, r->n_logprobs > 0 ? (uint32_t)r->n_logprobs : 0);
}

enum rc beam_check(const struct req *r, uint32_t n_vocab, struct err *e) {
    uint64_t n_nodes = (uint64_t)r->n_samples * r->max_tokens;
    uint64_t n_kept = r->n_logprobs > 0 ? (uint64_t)r->n_logprobs : 0;
    if (2 * (uint64_t)r->n_samples > n_vocab)
        return err_set(e, RC_INVALID, "best_of", "%u beams of a vocabulary of %u", r->n_samples, n_vocab);
    if (r->max_tokens == 0)
        return err_set(e, RC_INVALID, "max_tokens", "a beam search needs max_tokens");
    if (r->constraint || r->n_words || r->n_bias || r->allowed || r->n_procs || r->n_resume || r->min_tokens ||
        req_penalises(r))
        return err_set(e, RC_INVALID, "use_beam_search", "a beam search takes nothing that changes logits");
    if (!isfinite(r->length_penalty))
        return err_set(e, RC_INVALID, "length_penalty", "length_penalty is not a finite number");
    if (n_nodes > BEAM_NODES_MAX || n_nodes * n_kept > BEAM_TOPS_MAX)
        return err_set(e, RC_INVALID, "max_tokens",
                       "%u beams of %u tokens, each with %llu alternatives, are more than a search holds: lower "
                       "max_tokens",
                       r->n_samples, r->max_tokens, (unsigned long long)n_kept);
    return RC_OK;
}

static struct beam *make(const struct req *r) {
    struct beam *b = xcalloc(1, sizeof *b);
    b->width = r->n_samples;
    b->n_top = beam_n_top(r);
    b->n_kept = r->n_logprobs > 0 ? (uint32_t)r->n_logprobs : 0;
    b->live = xcalloc(b->width, sizeof *b->live);
    b->live[0] = (struct live){.node = none};
    b->n_live = 1;
    b->ids = xcalloc((size_t)b->width * b->n_top, sizeof *b->ids);
    b->logprobs = xcalloc((size_t)b->width * b->n_top, sizeof *b->logprobs);
    b->shown = xcalloc((size_t)b->width * b->n_top, sizeof *b->shown);
    b->next = xcalloc(b->width, sizeof *b->next);
    b->done = xcalloc((size_t)b->width + 1, sizeof *b->done);
    b->path_of = none;
    return b;
}

void beam_free(struct beam *b) {
    if (!b)
        return;
    free(b->nodes);
    free(b->kept_ids);
    free(b->kept_logprobs);
    free(b->live);
    free(b->ids);
    free(b->logprobs);
    free(b->shown);
    free(b->next);
    free(b->done);
    free(b->path);
    free(b);
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static uint32_t keep_row(struct beam *b, const struct sample_out *row, const float *shown) {
    if (b->n_kept == 0)
        return none;
    if (b->n_rows == b->cap_rows) {
        b->cap_rows = MAX(2 * b->cap_rows, 64);
        b->kept_ids = xreallocarray(b->kept_ids, (size_t)b->cap_rows * b->n_kept, sizeof *b->kept_ids);
        b->kept_logprobs =
            xreallocarray(b->kept_logprobs, (size_t)b->cap_rows * b->n_kept, sizeof *b->kept_logprobs);
    }
    size_t at = (size_t)b->n_rows * b->n_kept;
    memcpy(b->kept_ids + at, row->top_ids, b->n_kept * sizeof *b->kept_ids);
    memcpy(b->kept_logprobs + at, shown, b->n_kept * sizeof *b->kept_logprobs);
    return b->n_rows++;
}

bool beam_row(struct sched *s, struct seq *q, const struct sample_out *row, const float *logits) {
    struct req *r = q->req;
    if (!r->beam)
        r->beam = make(r);
    struct beam *b = r->beam;
    uint32_t i = 0;
    while (i < b->n_live && b->live[i].sample != q->sample)
        i++;
    CHECK(i < b->n_live && !b->live[i].has_row);
    size_t at = (size_t)i * b->n_top;
    memcpy(b->ids + at, row->top_ids, b->n_top * sizeof *b->ids);
    memcpy(b->logprobs + at, row->top_logprobs, b->n_top * sizeof *b->logprobs);
    for (uint32_t k = 0; k < b->n_top; k++)
        b->shown[at + k] = logits ? logits[row->top_ids[k]] : row->top_logprobs[k];
    b->live[i].has_row = true;
    b->live[i].row = keep_row(b, row, b->shown + at);
    sched_park(s, q);
    return ++b->n_with_row == b->n_live;
}

/* ---- the next hypotheses ----------------------------------------------------------------------------- */

static uint32_t add_node(struct beam *b, const struct extension *x) {
    if (b->n_nodes == b->cap_nodes) {
        b->cap_nodes = MAX(2 * b->cap_nodes, 256);
        b->nodes = xreallocarray(b->nodes, b->cap_nodes, sizeof *b->nodes);
    }
    const struct live *from = &b->live[x->from];
    b->nodes[b->n_nodes] = (struct node){from->node, x->token, x->rank, from->row, x->shown};
    return b->n_nodes++;
}

static double score(const struct req *r, double sum, uint32_t n_out) {
    double by = pow((double)r->n_prompt + n_out, (double)r->length_penalty);
    return sum == 0 ? 0 : sum / by; /* a sum of 0 by a power of 0 is no number */
}

/* add_done: among the best `width`, behind equal ones. */
static void add_done(struct beam *b, struct done x) {
    uint32_t at = b->n_done;
    while (at > 0 && b->done[at - 1].score < x.score)
        at--;
    memmove(b->done + at + 1, b->done + at, (b->n_done - at) * sizeof *b->done);
    b->done[at] = x;
    b->n_done = MIN(b->n_done + 1, b->width);
}

/* extend: the best `width` extensions that do not end go to b->next, the others to b->done. Returns how many. */
static uint32_t extend(struct beam *b, const struct req *r) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_live; i++)
        for (uint32_t k = 0; k < MIN(b->n_top, 2 * b->width); k++) {
            size_t at = (size_t)i * b->n_top + k;
            struct extension x = {i, b->ids[at], k + 1, b->logprobs[at], b->shown[at],
                                  b->live[i].sum + b->logprobs[at]};
            if (x.logprob == -INFINITY)
                break;
            if (req_stops_at(r, x.token)) {
                double its = score(r, x.sum, b->n_out);
                if (b->n_done < b->width || its > b->done[b->n_done - 1].score)
                    add_done(b, (struct done){add_node(b, &x), true, its});
                continue;
            }
            if (n == b->width && !(x.sum > b->next[n - 1].sum))
                continue;
            uint32_t to = n < b->width ? n++ : n - 1;
            for (; to > 0 && b->next[to - 1].sum < x.sum; to--)
                b->next[to] = b->next[to - 1];
            b->next[to] = x;
        }
    return n;
}

/* hopeless: no live hypothesis can still come among the best. */
static bool hopeless(const struct beam *b, const struct req *r, uint32_t n) {
    if (b->n_done < b->width || n == 0)
        return n == 0;
    double sum = b->next[0].sum;
    double best = fmax(score(r, sum, b->n_out + 1), score(r, sum, r->max_tokens));
    return best <= b->done[b->width - 1].score;
}

/* finish: the live ones join, those that are done being older. */
static void finish(struct sched *s, struct req *r, uint32_t n) {
    struct beam *b = r->beam;
    for (uint32_t i = 0; i < n; i++) {
        double its = score(r, b->next[i].sum, b->n_out + 1);
        if (b->n_done < b->width || its > b->done[b->n_done - 1].score)
            add_done(b, (struct done){add_node(b, &b->next[i]), false, its});
    }
    for (uint32_t i = 0; i < b->n_live; i++)
        sched_drop(s, &r->seqs[b->live[i].sample]);
    b->n_live = 0;
}

/* go_on: the extensions become the live ones. The first successor of a hypothesis keeps its sequence. */
static void go_on(struct sched *s, struct req *r, uint32_t n) {
    struct beam *b = r->beam;
    struct live *old = b->live, *now = xcalloc(b->width, sizeof *now);
    bool *taken = xcalloc(b->width, sizeof *taken); /* by sample */
    uint32_t spare = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct live *from = &old[b->next[i].from];
        now[i] = (struct live){.sample = taken[from->sample] ? none : from->sample, .sum = b->next[i].sum};
        now[i].node = add_node(b, &b->next[i]);
        taken[from->sample] = true;
    }
    for (uint32_t i = 0; i < b->n_live; i++)
        if (!taken[old[i].sample])
            sched_drop(s, &r->seqs[old[i].sample]);
    for (uint32_t i = 0; i < n; i++) {
        if (now[i].sample != none)
            continue;
        while (taken[spare])
            spare++;
        taken[spare] = true;
        now[i].sample = spare;
        sched_fork(s, &r->seqs[old[b->next[i].from].sample], &r->seqs[spare]);
    }
    for (uint32_t i = 0; i < n; i++)
        sched_unpark(s, &r->seqs[now[i].sample], b->next[i].token);
    free(old);
    free(taken);
    b->live = now;
    b->n_live = n;
    b->n_with_row = 0;
    b->n_out++;
}

bool beam_step(struct sched *s, struct req *r) {
    struct beam *b = r->beam;
    CHECK(b->n_with_row == b->n_live);
    uint32_t n = extend(b, r), n_known = r->n_prompt + b->n_out + 1;
    if (b->n_out + 1 == r->max_tokens || n_known == s->opts.max_len || hopeless(b, r, n)) {
        finish(s, r, n);
        return false;
    }
    go_on(s, r, n);
    return true;
}

/* ---- the result -------------------------------------------------------------------------------------- */

uint32_t beam_length(struct beam *b, uint32_t k, bool *stopped) {
    if (k >= b->n_done)
        return 0;
    *stopped = b->done[k].stopped;
    if (b->path_of == k)
        return b->n_path;
    if (!b->path)
        b->path = xcalloc((size_t)b->n_out + 1, sizeof *b->path);
    uint32_t n = 0;
    for (uint32_t at = b->done[k].node; at != none; at = b->nodes[at].parent)
        n++;
    b->n_path = n;
    b->path_of = k;
    for (uint32_t at = b->done[k].node; at != none; at = b->nodes[at].parent)
        b->path[--n] = at;
    return b->n_path;
}

struct beam_token beam_token(const struct beam *b, uint32_t i) {
    CHECK(b->path_of != none && i < b->n_path);
    const struct node *x = &b->nodes[b->path[i]];
    struct beam_token t = {.id = x->token, .rank = x->rank, .logprob = x->shown};
    if (b->n_kept) {
        t.top_ids = b->kept_ids + (size_t)x->row * b->n_kept;
        t.top_logprobs = b->kept_logprobs + (size_t)x->row * b->n_kept;
    }
    return t;
}

struct beam_cursor *beam_cursor(struct beam *b) {
    return &b->cursor;
}
