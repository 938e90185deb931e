#include "common/gram/run.h"

/* The state of one output. */

struct gram_run *gram_run_new(struct gram *g, const struct gram_vocab *v) {
    struct gram_run *r = xcalloc(1, sizeof *r);
    CHECK(g->sealed);
    r->g = gram_hold(g);
    r->v = v;
    r->stack = v ? xcalloc(v->depth_max + 1, sizeof *r->stack) : NULL;
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
    free(r->stack);
    free(r);
}

/* tell: the budget's sum follows. Under the lock. */
static void tell(struct gram *g) {
    if (!g->budget || g->told == g->bytes)
        return;
    atomic_fetch_add_explicit(&g->budget->bytes, g->bytes - g->told, memory_order_relaxed); /* may wrap */
    g->told = g->bytes;
}

void gram_share(struct gram *g, struct gram_budget *b) {
    pthread_mutex_lock(&g->lock);
    CHECK(g->sealed && !g->runs && !g->budget);
    g->budget = b;
    g->gc_soon = gram_gc_soon(g->bytes);
    tell(g);
    pthread_mutex_unlock(&g->lock);
}

static bool is_short(const struct gram *g) {
    return g->budget && g->bytes > g->gc_soon &&
           atomic_load_explicit(&g->budget->bytes, memory_order_relaxed) > g->budget->most;
}

/* gram_refuel: for one mask, or for n bytes. */
static void gram_refuel(struct gram *g, size_t n) {
    if (g->bytes > g->gc_at || is_short(g))
        gram_gc(g);
    g->fuel = (int64_t)g->limit.mask_fuel + (int64_t)n * 1000;
    g->fail = false;
}

/* retry: after a fail for want of memory, when collecting has made room. */
static bool retry(struct gram *g) {
    if (g->fuel < 0 || g->bytes <= g->limit.memory_bytes / 2) /* no table asks for more than all have */
        return false;
    gram_gc(g);
    return g->bytes <= g->limit.memory_bytes / 2;
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

static enum rc too_much(struct err *e) {
    return err_set(e, RC_OVERLOAD, NULL, "following the grammar takes too much time or memory");
}

enum rc gram_run_bytes(struct gram_run *r, struct str s, size_t *n_taken, struct err *e) {
    struct gram *g = r->g;
    size_t n = 0;
    enum rc rc = RC_OK;
    pthread_mutex_lock(&g->lock);
    gram_refuel(g, s.n);
    uint32_t to = r->ended && s.n ? STATE_DEAD : walk(g, r->config, s, &n);
    if (to == STATE_UNKNOWN && retry(g))
        to = walk(g, r->config, s, &n);
    if (to == STATE_UNKNOWN)
        rc = too_much(e);
    else if (to == STATE_DEAD)
        rc = err_set(e, RC_INVALID, NULL, "byte %zu cannot follow here", n);
    else
        r->config = to;
    tell(g);
    pthread_mutex_unlock(&g->lock);
    if (n_taken)
        *n_taken = n;
    return rc;
}

enum rc gram_run_accept(struct gram_run *r, uint32_t token, struct err *e) {
    const struct gram_vocab *v = r->v;
    struct str s = token < v->n_vocab ? vocab_token(v, token) : (struct str){NULL, 0};
    if (token < v->n_vocab && v->is_eos[token]) {
        if (r->ended || !gram_run_may_end(r))
            return err_set(e, RC_INVALID, NULL, "the text cannot end here");
        r->ended = true;
        return RC_OK;
    }
    if (!s.n)
        return err_set(e, RC_INVALID, NULL, "token %u is never allowed", token);
    enum rc rc = gram_run_bytes(r, s, NULL, e);
    return rc == RC_INVALID ? err_set(e, rc, NULL, "token %u cannot follow here", token) : rc;
}

enum rc gram_run_mask(struct gram_run *r, uint32_t *mask, struct err *e) {
    struct gram *g = r->g;
    const struct gram_vocab *v = r->v;
    pthread_mutex_lock(&g->lock);
    gram_refuel(g, 0);
    bool ok = true;
    if (r->ended)
        memset(mask, 0, gram_mask_words(v->n_vocab) * sizeof *mask);
    else
        ok = mask_of(g, v, r->config, r->stack, mask) ||
             (retry(g) && mask_of(g, v, r->config, r->stack, mask));
    tell(g);
    pthread_mutex_unlock(&g->lock);
    return ok ? RC_OK : too_much(e);
}

/* run_goes_on: some byte can follow. */
static bool run_goes_on(const struct gram_run *r) {
    struct gram *g = r->g;
    uint32_t n = g->cfg.config[r->config].n ? g->rx.n_classes : 0;
    gram_refuel(g, 0);
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
    tell(g);
    pthread_mutex_unlock(&g->lock);
    return end;
}

/* only_byte: the byte that must follow; -1 if the text may end or several can. */
static int only_byte(struct gram *g, uint32_t config) {
    const struct config *c = &g->cfg.config[config];
    int only = -1;
    if (c->accept)
        return -1;
    for (unsigned b = 0; b < 256; b++)
        for (uint32_t i = 0; i < c->n; i++) {
            uint32_t q = dfa_step(g, g->cfg.thread[c->first + i].q, g->rx.class_of[b]);
            if (q == STATE_UNKNOWN || (q != STATE_DEAD && only >= 0))
                return -1;
            if (q != STATE_DEAD) {
                only = (int)b;
                break;
            }
        }
    return only;
}

size_t gram_run_forced(struct gram_run *r, char *out, size_t cap) {
    struct gram *g = r->g;
    size_t n = 0;
    pthread_mutex_lock(&g->lock);
    gram_refuel(g, cap);
    for (uint32_t at = r->config; n < cap && !r->ended; n++) {
        int b = only_byte(g, at);
        if (b < 0)
            break;
        at = config_step(g, at, g->rx.class_of[b]);
        if (at <= STATE_DEAD)
            break;
        out[n] = (char)b;
    }
    tell(g);
    pthread_mutex_unlock(&g->lock);
    return n;
}
