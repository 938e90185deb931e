#include "common/gram/run.h"

/* The state of one output. */

struct gram_run *gram_run_new(struct gram *g, const struct gram_vocab *v) {
    struct gram_run *r = xcalloc(1, sizeof *r);
    CHECK(g->sealed);
    r->g = gram_hold(g);
    r->v = v;
    pthread_mutex_lock(&g->lock);
    r->config = g->config_start;
    r->next = g->runs;
    r->link = &g->runs;
    if (g->runs)
        g->runs->link = &r->next;
    g->runs = r;
    pthread_mutex_unlock(&g->lock);
    return r;
}

void gram_run_free(struct gram_run *r) {
    if (!r)
        return;
    pthread_mutex_lock(&r->g->lock);
    *r->link = r->next;
    if (r->next)
        r->next->link = r->link;
    pthread_mutex_unlock(&r->g->lock);
    gram_drop(r->g);
    free(r);
}

/* walk: from config along s; *n is how many bytes led to a prefix. 0 on fail. */
static uint32_t walk(struct gram *g, uint32_t config, struct str s, size_t *n) {
    uint32_t at = config;
    *n = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint32_t to = config_step(g, at, g->rx.class_of[(uint8_t)s.p[i]]);
        if (to == STATE_UNKNOWN)
            return STATE_UNKNOWN;
        if (to == STATE_DEAD)
            return STATE_DEAD;
        at = to;
        ++*n;
    }
    return at;
}

enum rc gram_run_bytes(struct gram_run *r, struct str s, size_t *n_taken, struct err *e) {
    struct gram *g = r->g;
    size_t n = 0;
    enum rc rc = RC_OK;
    pthread_mutex_lock(&g->lock);
    g->fuel = (int64_t)g->limit.mask_fuel + (int64_t)s.n * 1000;
    g->fail = false;
    uint32_t to = r->ended && s.n ? STATE_DEAD : walk(g, r->config, s, &n);
    if (to == STATE_UNKNOWN)
        rc = err_set(e, RC_OVERLOAD, NULL, "following the grammar takes too much time or memory");
    else if (to == STATE_DEAD)
        rc = err_set(e, RC_INVALID, NULL, "byte %zu cannot follow here", n);
    else
        r->config = to;
    pthread_mutex_unlock(&g->lock);
    if (n_taken)
        *n_taken = n;
    return rc;
}

/* run_goes_on: some byte can follow. */
static bool run_goes_on(const struct gram_run *r) {
    struct gram *g = r->g;
    uint32_t n = g->cfg.config[r->config].n ? g->rx.n_classes : 0;
    g->fuel = (int64_t)g->limit.mask_fuel;
    g->fail = false;
    for (uint32_t c = 0; c < n; c++)
        if (config_step(g, r->config, c) != STATE_DEAD)
            return true;
    return false;
}

bool gram_run_may_end(const struct gram_run *r) {
    pthread_mutex_lock(&r->g->lock);
    bool accept = r->g->cfg.config[r->config].accept;
    pthread_mutex_unlock(&r->g->lock);
    return accept;
}

bool gram_run_must_end(const struct gram_run *r) {
    struct gram *g = r->g;
    pthread_mutex_lock(&g->lock);
    bool end = r->ended || (g->cfg.config[r->config].accept && !run_goes_on(r));
    pthread_mutex_unlock(&g->lock);
    return end;
}
