/* ref_sample.c: sampling in plain C: sorts the whole vocabulary and then follows backend.h word for word. */
#include "worker/cpu/be.h"

#include <math.h>
#include <stdlib.h>

#include "worker/cpu/sample.h"

/* work: a row's scratch, each [n_vocab]. */
struct work {
    uint32_t n;
    const float *raw;
    float *l;       /* processed */
    uint64_t *keys; /* best first after sort */
    bool *kept;
};

static struct work work_of(struct be *b, uint32_t row) {
    CHECK(row < b->n_logits);
    size_t n = b->n_vocab;
    uint8_t *at = cpu_scratch(b, SCRATCH_THREAD, n * (sizeof(uint64_t) + sizeof(float) + sizeof(bool)) + 64);
    return (struct work){
        .n = b->n_vocab,
        .raw = b->logits + (size_t)row * b->n_vocab_padded,
        .keys = (void *)at,
        .l = (void *)(at + n * sizeof(uint64_t)),
        .kept = (void *)(at + n * (sizeof(uint64_t) + sizeof(float))),
    };
}

static int key_order(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void sort(struct work *k, const float *l) {
    for (uint32_t i = 0; i < k->n; i++)
        k->keys[i] = sample_key(l[i], i);
    qsort(k->keys, k->n, sizeof *k->keys, key_order);
}

static bool has_nan(const struct work *k) {
    for (uint32_t i = 0; i < k->n; i++)
        if (isnan(k->raw[i]) || k->raw[i] == INFINITY)
            return true;
    return false;
}

static float max_of(const float *l, uint32_t n) {
    float m = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        m = fmaxf(m, l[i]);
    return m;
}

/* filter: sets kept[] by min_p, top_k and top_p; returns the sum of what is kept. */
static uint64_t filter(struct work *k, const struct sample_row *row, float m) {
    float t = sample_divisor(row);
    uint64_t total = 0, run = 0;
    sort(k, k->l);
    uint32_t n_kept = 0, n_run = 0;
    for (uint32_t i = 0; i < k->n; i++)
        k->kept[i] = false;
    for (uint32_t i = 0; i < k->n; i++) {
        uint32_t id = (uint32_t)k->keys[i];
        float d = (k->l[id] - m) / t;
        if (k->l[id] == -INFINITY || (row->min_p > 0 && be_exp(d) < sample_min_p(row)))
            continue;
        if (row->top_k > 0 && n_kept == row->top_k)
            break;
        k->keys[n_kept++] = k->keys[i]; /* what is left, best first */
        total += be_weight40(d);
    }
    uint64_t need = row->top_p < 1 ? sample_need(row->top_p, total) : UINT64_MAX;
    while (n_run < n_kept && run < need) {
        uint32_t id = (uint32_t)k->keys[n_run++];
        k->kept[id] = true;
        run += be_weight40((k->l[id] - m) / t);
    }
    return run;
}

static uint32_t draw(struct work *k, const struct sample_row *row, float m) {
    uint64_t total = filter(k, row, m), point = sample_point(row, total), run = 0;
    for (uint32_t i = 0; i < k->n; i++) {
        if (!k->kept[i])
            continue;
        run += be_weight40((k->l[i] - m) / sample_divisor(row));
        if (run > point)
            return i;
    }
    CHECK(!"a point below the sum");
    return BE_NO_TOKEN;
}

/* report: logprob, rank and the best n_top, of `l` with divisor t; ranks are by the raw logits. */
static void report(struct work *k, const float *l, float t, uint32_t mode, uint32_t n_top,
                   struct sample_out *out) {
    float m = max_of(l, k->n);
    uint64_t total = 0;
    for (uint32_t i = 0; i < k->n; i++)
        total += be_weight40((l[i] - m) / t);
    double log_total = log((double)total * 0x1p-40);
    out->logprob = sample_report(mode, t, l[out->id], (l[out->id] - m) / t, log_total);
    out->rank = 1;
    for (uint32_t i = 0; i < k->n; i++)
        out->rank += sample_key(k->raw[i], i) < sample_key(k->raw[out->id], out->id);
    CHECK(n_top <= k->n);
    if (n_top == 0)
        return;
    sort(k, l);
    for (uint32_t i = 0; i < n_top; i++) {
        uint32_t id = (uint32_t)k->keys[i];
        out->top_ids[i] = id;
        out->top_logprobs[i] = sample_report(mode, t, l[id], (l[id] - m) / t, log_total);
    }
}

static void sample_one(struct work *k, const struct sample_row *row, struct sample_out *out) {
    out->id = BE_NO_TOKEN;
    out->logprob = 0;
    out->rank = 0;
    out->nan = has_nan(k);
    if (out->nan)
        return;
    memcpy(k->l, k->raw, k->n * sizeof *k->l);
    sample_penalize(row, k->l, k->n);
    sample_ban(row, k->l, k->n);
    for (uint32_t i = 0; row->mask && i < k->n; i++)
        if (!(row->mask[i / 32] >> i % 32 & 1))
            k->l[i] = -INFINITY;
    float m = max_of(k->l, k->n);
    if (m == -INFINITY)
        return;
    if (row->temperature > 0) {
        out->id = draw(k, row, m);
    } else {
        for (out->id = 0; k->l[out->id] != m;)
            out->id++;
    }
    bool raw = row->logprobs_mode == BE_RAW_LOGPROBS || row->logprobs_mode == BE_RAW_LOGITS;
    if (sample_wants_logprobs(row))
        report(k, raw ? k->raw : k->l, raw ? 1.0f : sample_divisor(row), row->logprobs_mode, row->n_top, out);
}

void ref_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    for (uint32_t r = 0; r < n; r++) {
        struct work k = work_of(b, r);
        sample_one(&k, &rows[r], &out[r]);
        b->last_ids[r] = out[r].id;
    }
    b->n_last_ids = n;
}

void ref_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        struct work k = work_of(b, rows[i].row);
        struct sample_out *out = rows[i].out;
        CHECK(rows[i].target < k.n);
        out->id = rows[i].target;
        out->logprob = 0;
        out->rank = 0;
        out->nan = has_nan(&k);
        if (!out->nan && max_of(k.raw, k.n) > -INFINITY)
            report(&k, k.raw, 1.0f, BE_RAW_LOGPROBS, rows[i].n_top, out);
    }
}
