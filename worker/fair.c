#include "worker/fair.h"

void fair_init(struct fair *f) {
    memset(f, 0, sizeof *f);
    f->out_mean = FAIR_OUT_FIRST;
}

static struct fair_tenant *set_of(struct fair *f, struct id128 tag) {
    uint64_t h;
    memcpy(&h, tag.b, sizeof h);
    return f->t[h % FAIR_SETS];
}

static struct fair_tenant *find(struct fair *f, struct id128 tag) {
    struct fair_tenant *set = set_of(f, tag);
    for (int i = 0; i < FAIR_WAYS; i++) {
        if (set[i].end && id128_eq(set[i].tag, tag))
            return &set[i];
    }
    return NULL;
}

/* find_or_make: in the place of the one whose end is nearest: free places have 0, and an end that is past
 * says nothing any more. */
static struct fair_tenant *find_or_make(struct fair *f, struct id128 tag) {
    struct fair_tenant *t = find(f, tag), *set = set_of(f, tag);
    if (t)
        return t;
    t = set;
    for (int i = 1; i < FAIR_WAYS; i++)
        t = set[i].end < t->end ? &set[i] : t;
    *t = (struct fair_tenant){.tag = tag};
    return t;
}

uint64_t fair_arrive(struct fair *f, bool tagged, struct id128 tag, uint32_t n_in, uint32_t n_seqs,
                     uint32_t out_max, uint64_t *cost) {
    *cost = 0;
    if (!f->on && !tagged)
        return 0;
    if (!f->on) {
        f->on = true;
        f->now = FAIR_BURST + 1;
    }
    double n_out = f->out_mean < out_max ? f->out_mean : out_max;
    *cost = n_in + (uint64_t)(FAIR_OUT * n_out * n_seqs);
    struct fair_tenant *t = find_or_make(f, tag);
    uint64_t start = MAX(MAX(t->end, t->last), f->now - FAIR_BURST);
    t->last = start;
    t->end = start + *cost;
    return start;
}

void fair_serve(struct fair *f, uint64_t start) {
    f->now = MAX(f->now, start);
}

void fair_end(struct fair *f, struct id128 tag, uint64_t cost, uint32_t n_in, uint64_t n_out,
              uint32_t n_seqs) {
    if (!f->on)
        return;
    if (n_seqs)
        f->out_mean += ((double)n_out / n_seqs - f->out_mean) / 8;
    struct fair_tenant *t = find(f, tag);
    uint64_t did = n_in + FAIR_OUT * n_out;
    if (t)
        t->end = t->end + did > cost ? t->end + did - cost : 1;
}
