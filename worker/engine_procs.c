/* engine_procs.c: rows of logits that processors change, and raw log-probabilities beside another mode's.
 *
 * The device applies bias, penalties and masks; processors come after the bias (api.md 8.1), so for their rows the
 * bias is added here. What is reported of the raw logits is found after the draw: the row is put back as the
 * model gave it.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "worker/engine_impl.h"
#include "worker/procs.h"

struct proc_row {
    uint32_t row, status;
    bool failed;
    char why[PROCS_WHY_BYTES];
};

static bool is_raw(uint32_t mode) {
    return mode == BE_RAW_LOGPROBS || mode == BE_RAW_LOGITS;
}

static struct proc_row *next_row(struct engine *e, uint32_t row) {
    size_t n = (size_t)e->n_proc_rows + 1, stride = 2 * (size_t)e->opts.n_vocab;
    if (n > e->n_proc_rows_max) {
        e->n_proc_rows_max = (uint32_t)n;
        e->proc_rows = xreallocarray(e->proc_rows, n, sizeof *e->proc_rows);
        e->proc_logits = xreallocarray(e->proc_logits, n * stride, sizeof *e->proc_logits);
    }
    struct proc_row *p = &e->proc_rows[e->n_proc_rows++];
    *p = (struct proc_row){.row = row};
    return p;
}

/* raw_of, changed_of: the logits of proc row k as the model gave them, and as they are sampled from. */
static float *raw_of(const struct engine *e, uint32_t k) {
    return e->proc_logits + (size_t)k * 2 * e->opts.n_vocab;
}
static float *changed_of(const struct engine *e, uint32_t k) {
    return raw_of(e, k) + e->opts.n_vocab;
}

static void add_bias(struct sample_row *row, float *l) {
    for (uint32_t i = 0; i < row->n_bias; i++) {
        float *x = &l[row->bias[i].id];
        if (*x > -INFINITY)
            *x = fminf(fmaxf(*x + row->bias[i].value, -FLT_MAX), FLT_MAX);
    }
    row->n_bias = 0;
}

void procs_before(struct engine *e, const struct step_plan *p) {
    const struct be_ops *ops = e->opts.ops;
    uint32_t n_vocab = e->opts.n_vocab;
    e->n_proc_rows = 0;
    for (uint32_t i = 0; i < p->n_sample_rows; i++) {
        struct seq *q = p->rows[i].seq;
        if (!q->req->n_procs)
            continue;
        struct proc_row *x = next_row(e, i);
        uint32_t k = e->n_proc_rows - 1;
        float *raw = raw_of(e, k), *l = changed_of(e, k);
        bool sound = true;
        ops->logits_get(e->opts.be, i, raw);
        for (uint32_t v = 0; v < n_vocab; v++)
            sound &= raw[v] < INFINITY;
        if (!sound)
            continue; /* the draw finds it, too */
        memcpy(l, raw, n_vocab * sizeof *l);
        add_bias(&e->rows[i], l);
        x->failed = !procs_apply(q, l, n_vocab, x->why, &x->status);
        if (!x->failed)
            ops->logits_put(e->opts.be, i, l);
    }
}

/* raw_logits_of: the mode that reports logits: the values of what was found by log-probabilities. */
static void raw_logits_of(const float *raw, uint32_t n_top, struct sample_out *out) {
    out->logprob = raw[out->id];
    for (uint32_t i = 0; i < n_top; i++)
        out->top_logprobs[i] = raw[out->top_ids[i]];
}

bool procs_after(struct engine *e, const struct step_plan *p, char *why) {
    const struct engine_opts *o = &e->opts;
    struct op_row_logprobs *ops = e->prompt_rows; /* those of the prompts were read */
    uint32_t n = 0;
    for (uint32_t k = 0; k < e->n_proc_rows; k++) {
        uint32_t i = e->proc_rows[k].row;
        struct sample_out *s = &e->results[i];
        if (e->proc_rows[k].failed || s->id == BE_NO_TOKEN || !e->rows[i].want_logprob)
            continue;
        o->ops->logits_put(o->be, i, raw_of(e, k));
        if (is_raw(o->logprobs_mode))
            ops[n++] = (struct op_row_logprobs){.row = i, .target = s->id, .n_top = e->rows[i].n_top, .out = s};
    }
    if (n)
        o->ops->row_logprobs(o->be, ops, n);
    if (n && o->ops->wait(o->be, why))
        return false;
    for (uint32_t k = 0; k < e->n_proc_rows && o->logprobs_mode == BE_RAW_LOGITS; k++) {
        uint32_t i = e->proc_rows[k].row;
        if (!e->proc_rows[k].failed && e->results[i].id != BE_NO_TOKEN && e->rows[i].want_logprob)
            raw_logits_of(raw_of(e, k), e->rows[i].n_top, &e->results[i]);
    }
    if (o->logprobs_mode == BE_RAW_LOGPROBS)
        return true;
    /* What best_of ranks by. */
    n = 0;
    for (uint32_t i = 0; i < p->n_sample_rows; i++) {
        if (!p->rows[i].seq->req->want_raw || e->results[i].id == BE_NO_TOKEN)
            continue;
        ops[n++] = (struct op_row_logprobs){.row = i, .target = e->results[i].id, .out = &e->raw_results[i]};
    }
    if (n)
        o->ops->row_logprobs(o->be, ops, n);
    return n == 0 || o->ops->wait(o->be, why) == 0;
}

const char *procs_failed(const struct engine *e, uint32_t row, uint32_t *status) {
    for (uint32_t k = 0; k < e->n_proc_rows; k++)
        if (e->proc_rows[k].row == row && e->proc_rows[k].failed) {
            *status = e->proc_rows[k].status;
            return e->proc_rows[k].why;
        }
    return NULL;
}
