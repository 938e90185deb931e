/* sample_host.cu: rows of a sampling to the device in one block, and their results back, when wait says so. */
#include "worker/cuda/sample.h"

#include <stdlib.h>

/* part: n elements of `each` bytes of the block; 0 for none. */
static uint32_t part(size_t *at, size_t n, size_t each) {
    if (n == 0)
        return 0;
    size_t here = (*at + 15) / 16 * 16;
    *at = here + n * each;
    CHECK(*at < UINT32_MAX);
    return static_cast<uint32_t>(here);
}

static size_t mask_words(const struct be *b) {
    return (b->n_vocab + 31) / 32;
}

/* row_place: a row's arrays in the block. */
static struct drow row_place(const struct be *b, const struct sample_row *r, uint32_t index, size_t *at) {
    struct drow d = {};
    d.seed = r->seed;
    d.position = r->position;
    d.temperature = r->temperature;
    d.top_p = r->top_p;
    d.min_p = r->min_p;
    d.repetition = r->repetition_penalty;
    d.frequency = r->frequency_penalty;
    d.presence = r->presence_penalty;
    d.top_k = r->top_k;
    d.n_top = r->n_top;
    d.mode = r->logprobs_mode;
    d.row = index;
    d.target = BE_NO_TOKEN;
    d.wants = r->want_logprob || r->n_top > 0;
    bool penalties = (r->repetition_penalty > 0 && r->repetition_penalty != 1.0f) || r->frequency_penalty != 0 ||
                     r->presence_penalty != 0;
    d.n_seen = penalties ? r->n_seen : 0;
    d.seen = part(at, d.n_seen, sizeof *r->seen);
    d.n_bias = r->n_bias;
    d.bias = part(at, r->n_bias, sizeof *r->bias);
    d.n_banned = r->n_banned;
    d.banned = part(at, r->n_banned, sizeof *r->banned);
    d.mask = part(at, r->mask ? mask_words(b) : 0, 4);
    return d;
}

static void row_fill(const struct be *b, const struct sample_row *r, const struct drow *d, uint8_t *block) {
    if (d->n_seen)
        memcpy(block + d->seen, r->seen, d->n_seen * sizeof *r->seen);
    if (d->n_bias)
        memcpy(block + d->bias, r->bias, d->n_bias * sizeof *r->bias);
    if (d->n_banned)
        memcpy(block + d->banned, r->banned, d->n_banned * sizeof *r->banned);
    if (d->mask)
        memcpy(block + d->mask, r->mask, mask_words(b) * 4);
}

/* pending_take: a place for the results of n rows. Full: waits for those that are on their way. */
static struct pending *pending_take(struct be *b, uint32_t n, uint32_t n_top_max) {
    if (b->n_pending == PENDING_MAX) {
        char err[BE_ERR_BYTES];
        if (rt_wait(b->rt, err) == 0)
            pending_deliver(b, 0);
        b->n_pending = 0; /* an error sticks */
    }
    struct pending *p = &b->pending[b->n_pending];
    size_t bytes = n * (sizeof(struct dsample_out) + n_top_max * (sizeof(uint32_t) + sizeof(float)));
    if (p->host_bytes < bytes) {
        rt_unpinned(b->rt, p->host);
        p->host = rt_pinned(b->rt, bytes);
        p->host_bytes = p->host ? bytes : 0;
        if (!p->host)
            rt_no_memory(b->rt, "results in pinned memory", bytes);
    }
    p->outs = static_cast<struct sample_out **>(realloc(p->outs, n * sizeof *p->outs));
    CHECK(p->outs);
    p->n = n;
    p->n_top_max = n_top_max;
    b->n_pending++;
    return p;
}

void pending_deliver(struct be *b, uint32_t n_behind) {
    uint32_t n = b->n_pending > n_behind ? b->n_pending - n_behind : 0;
    for (uint32_t k = 0; k < n; k++) {
        const struct pending *p = &b->pending[k];
        const struct dsample_out *outs = static_cast<const struct dsample_out *>(p->host);
        const uint32_t *ids = reinterpret_cast<const uint32_t *>(outs + p->n);
        const float *values = reinterpret_cast<const float *>(ids + static_cast<size_t>(p->n) * p->n_top_max);
        for (uint32_t r = 0; r < p->n; r++) {
            struct sample_out *to = p->outs[r];
            to->id = outs[r].id;
            to->nan = outs[r].nan != 0;
            to->logprob = outs[r].logprob;
            to->rank = outs[r].rank;
            bool told = to->id != BE_NO_TOKEN && outs[r].rank > 0;
            uint32_t n_top = told && to->top_ids ? b->n_tops[k][r] : 0;
            for (uint32_t i = 0; i < n_top; i++) {
                to->top_ids[i] = ids[static_cast<size_t>(r) * p->n_top_max + i];
                to->top_logprobs[i] = values[static_cast<size_t>(r) * p->n_top_max + i];
            }
        }
    }
    b->n_pending -= n;
    for (uint32_t k = 0; k < b->n_pending && n > 0; k++) { /* those behind move up, and the others' rooms go behind them */
        struct pending p = b->pending[k];
        uint32_t *n_tops = b->n_tops[k];
        b->pending[k] = b->pending[n + k];
        b->n_tops[k] = b->n_tops[n + k];
        b->pending[n + k] = p;
        b->n_tops[n + k] = n_tops;
    }
}

/* enqueue: rows are in the staged block; results go to outs. */
static void enqueue(struct be *b, const uint8_t *block, size_t bytes, const struct drow *rows, uint32_t n,
                    struct sample_out **outs) {
    uint32_t n_top_max = 0;
    for (uint32_t r = 0; r < n; r++) {
        CHECK(rows[r].n_top <= b->n_vocab && rows[r].row < b->n_logits);
        n_top_max = MAX(n_top_max, rows[r].n_top);
    }
    struct pending *p = pending_take(b, n, n_top_max);
    uint32_t at = static_cast<uint32_t>(p - b->pending);
    b->n_tops[at] = static_cast<uint32_t *>(realloc(b->n_tops[at], n * sizeof(uint32_t)));
    CHECK(b->n_tops[at]);
    for (uint32_t r = 0; r < n; r++) {
        p->outs[r] = outs[r];
        b->n_tops[at][r] = rows[r].n_top;
    }
    size_t out_bytes = n * (sizeof(struct dsample_out) + n_top_max * (sizeof(uint32_t) + sizeof(float)));
    uint8_t *room = static_cast<uint8_t *>(dev_scratch(b, SCRATCH_SAMPLE, bytes + 16 + out_bytes));
    rt_put(b->rt, room, block, bytes);
    struct sample_args a = {};
    a.block = room;
    a.rows = reinterpret_cast<const struct drow *>(room);
    a.logits = b->logits;
    a.processed = b->processed;
    a.n_vocab = b->n_vocab;
    a.stride = b->n_vocab_padded;
    a.n_top_max = n_top_max;
    a.last_ids = b->last_ids;
    a.outs = reinterpret_cast<struct dsample_out *>(room + (bytes + 15) / 16 * 16);
    a.top_ids = reinterpret_cast<uint32_t *>(a.outs + n);
    a.top_values = reinterpret_cast<float *>(a.top_ids + static_cast<size_t>(n) * n_top_max);
    sample_run(b, &a, n);
    rt_fetch(b->rt, p->host, a.outs, out_bytes);
    rt_mark(b->rt, p->mark);
}

void dev_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    if (n == 0)
        return;
    CHECK(n <= b->n_rows_max);
    size_t bytes = n * sizeof(struct drow);
    struct drow *placed = static_cast<struct drow *>(malloc(n * sizeof *placed));
    struct sample_out **outs = static_cast<struct sample_out **>(malloc(n * sizeof *outs));
    CHECK(placed && outs);
    for (uint32_t r = 0; r < n; r++) {
        placed[r] = row_place(b, &rows[r], r, &bytes);
        outs[r] = &out[r];
    }
    uint8_t *block = static_cast<uint8_t *>(rt_stage(b->rt, bytes));
    memcpy(block, placed, n * sizeof *placed);
    for (uint32_t r = 0; r < n; r++)
        row_fill(b, &rows[r], &placed[r], block);
    enqueue(b, block, bytes, placed, n, outs);
    b->n_last_ids = n;
    free(placed);
    free(outs);
}

void dev_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n) {
    if (n == 0)
        return;
    size_t bytes = n * sizeof(struct drow);
    struct drow *placed = static_cast<struct drow *>(calloc(n, sizeof *placed));
    struct sample_out **outs = static_cast<struct sample_out **>(malloc(n * sizeof *outs));
    CHECK(placed && outs);
    for (uint32_t r = 0; r < n; r++) {
        CHECK(rows[r].target < b->n_vocab);
        placed[r].row = rows[r].row;
        placed[r].target = rows[r].target;
        placed[r].n_top = rows[r].n_top;
        placed[r].wants = 1;
        outs[r] = rows[r].out;
    }
    uint8_t *block = static_cast<uint8_t *>(rt_stage(b->rt, bytes));
    memcpy(block, placed, bytes);
    enqueue(b, block, bytes, placed, n, outs);
    free(placed);
    free(outs);
}
