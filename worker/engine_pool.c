/* engine_pool.c: which hidden states of a step are wanted, and whose they are. */
#include "worker/engine_impl.h"

/* pool_span: positions [*lo, *hi) of an entry that its request pools; false: none. */
static bool pool_span(const struct engine *e, const struct plan_entry *x, uint32_t *lo, uint32_t *hi) {
    const struct req *r = x->seq->req;
    if (r->pool.kind == POOL_NONE)
        return false;
    pooler_span(e->opts.pooler, &r->pool, r->n_prompt, lo, hi);
    *lo = MAX(*lo, x->start);
    *hi = MIN(*hi, x->start + x->n_tokens);
    return *lo < *hi;
}

void engine_pool_rows(struct engine *e, const struct step_plan *p) {
    struct batch_arrays *a = &e->arrays;
    uint32_t lo, hi, n = 0;
    for (uint32_t i = 0; i < p->n_entries; i++)
        if (pool_span(e, &p->entries[i], &lo, &hi))
            n += hi - lo;
    a->n_rows = 0;
    if (n >= a->n_tokens || n > e->opts.n_rows_max)
        return;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const struct plan_entry *x = &p->entries[i];
        if (!pool_span(e, x, &lo, &hi))
            continue;
        for (uint32_t k = lo; k < hi; k++)
            a->rows[a->n_rows++] = x->at + k - x->start;
    }
}

void engine_pool(struct engine *e, const struct step_plan *p) {
    uint32_t lo, hi, row = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const struct plan_entry *x = &p->entries[i];
        struct req *r = x->seq->req;
        if (!pool_span(e, x, &lo, &hi))
            continue;
        if (!r->pool_state)
            r->pool_state = pooling_start(e->opts.pooler, &r->pool, r->n_prompt);
        if (e->arrays.n_rows == 0)
            row = x->at + lo - x->start;
        e->opts.model.hidden(e->opts.model.arg, row, hi - lo, e->hidden);
        row += hi - lo;
        pooling_rows(r->pool_state, e->hidden, lo, hi - lo);
    }
}
