#include "common/gram/engine.h"

/* States of a text: sets of threads, hash-consed, with their transitions. */

static int cmp_thread(const struct thread *x, const struct thread *y) {
    if (x->q != y->q)
        return x->q < y->q ? -1 : 1;
    if (x->text != y->text)
        return x->text < y->text ? -1 : 1;
    return (x->ctx > y->ctx) - (x->ctx < y->ctx);
}
static int cmp_thread_q(const void *a, const void *b) {
    struct thread x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return cmp_thread(&x, &y);
}

static void sort_threads(struct thread *t, uint32_t n) {
    if (n > 16) {
        qsort(t, n, sizeof *t, cmp_thread_q);
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        struct thread x = t[i];
        uint32_t j = i;
        for (; j && cmp_thread(&t[j - 1], &x) > 0; j--)
            t[j] = t[j - 1];
        t[j] = x;
    }
}

static uint32_t add_config(struct gram *g, const struct thread *t, uint32_t n, bool accept) {
    struct config_pool *p = &g->cfg;
    size_t width = g->rx.n_classes;
    p->config = table_grow(p->config, &p->cap, (size_t)p->n + 1, sizeof *p->config, &g->bytes);
    p->thread =
        table_grow(p->thread, &p->cap_threads, (size_t)p->n_threads + n, sizeof *p->thread, &g->bytes);
    p->next = table_grow(p->next, &p->cap_next, (p->n + 1) * width, sizeof *p->next, &g->bytes);
    memset(p->next + p->n * width, 0, width * sizeof *p->next);
    p->config[p->n] = (struct config){.first = p->n_threads, .n = n, .accept = accept};
    for (uint32_t i = 0; i < n; i++)
        p->config[p->n].keyed |= t[i].text != TEXT_NONE;
    if (n)
        memcpy(p->thread + p->n_threads, t, n * sizeof *t);
    p->n_threads += n;
    return p->n++;
}

uint32_t config_intern(struct gram *g, struct thread *t, uint32_t n, bool accept) {
    struct config_pool *p = &g->cfg;
    uint32_t m = 0;
    sort_threads(t, n);
    for (uint32_t i = 0; i < n && !g->fail; i++) {
        if (m && t[m - 1].q == t[i].q && t[m - 1].text == t[i].text) {
            if (t[m - 1].ctx != t[i].ctx)
                t[m - 1].ctx = ctx_union(g, t[m - 1].ctx, t[i].ctx);
        } else {
            t[m++] = t[i];
        }
    }
    if (!gram_spend(g, 8 + n))
        return STATE_UNKNOWN;
    if (m == 0 && !accept)
        return STATE_DEAD;
    uint64_t h = accept;
    for (uint32_t i = 0; i < m; i++)
        h = mix(mix(mix(h, t[i].q), t[i].text), t[i].ctx);
    uint32_t hash = (uint32_t)(h >> 20), at = UINT32_MAX, id;
    while ((id = itab_find(&p->tab, hash, &at)) != UINT32_MAX) {
        const struct config *c = &p->config[id];
        if (c->n == m && c->accept == accept &&
            (m == 0 || memcmp(p->thread + c->first, t, m * sizeof *t) == 0))
            return id;
    }
    size_t width = g->rx.n_classes;
    if (!gram_room(g, table_more(p->cap, (size_t)p->n + 1, sizeof *p->config) + itab_more(&p->tab) +
                          table_more(p->cap_threads, (size_t)p->n_threads + m, sizeof *p->thread) +
                          table_more(p->cap_next, (p->n + 1) * width, sizeof *p->next)))
        return STATE_UNKNOWN;
    id = add_config(g, t, m, accept);
    itab_add(&p->tab, hash, id, &g->bytes);
    return id;
}

uint32_t config_text(struct gram *g, uint32_t prev, unsigned byte) {
    struct config_pool *p = &g->cfg;
    uint32_t hash = (uint32_t)(mix(mix(3, prev), byte) >> 20), at = UINT32_MAX, id;
    while ((id = itab_find(&p->texts, hash, &at)) != UINT32_MAX)
        if (p->text[id].prev == prev && p->text[id].byte == byte)
            return id;
    if (!gram_room(g,
                   table_more(p->cap_texts, (size_t)p->n_texts + 1, sizeof *p->text) + itab_more(&p->texts)))
        return TEXT_EMPTY; /* as good as any: nothing is kept of a step that failed */
    p->text = table_grow(p->text, &p->cap_texts, (size_t)p->n_texts + 1, sizeof *p->text, &g->bytes);
    p->text[p->n_texts] = (struct text_node){prev, byte};
    itab_add(&p->texts, hash, p->n_texts, &g->bytes);
    return p->n_texts++;
}

static void push_step(struct gram *g, struct thread t) {
    struct config_pool *p = &g->cfg;
    p->step = table_grow(p->step, &p->cap_step, (size_t)p->n_step + 1, sizeof *p->step, &g->bytes);
    p->step[p->n_step++] = t;
}

uint32_t config_step_slow(struct gram *g, uint32_t config, uint32_t cls) {
    struct config_pool *p = &g->cfg;
    bool accept = false;
    p->n_step = 0;
    for (uint32_t i = 0; i < p->config[config].n; i++) {
        struct thread t = p->thread[p->config[config].first + i];
        t.q = dfa_step(g, t.q, cls);
        if (t.q == STATE_UNKNOWN || !gram_spend(g, 4))
            return STATE_UNKNOWN;
        if (t.q == STATE_DEAD)
            continue;
        if (t.text >= TEXT_EMPTY)
            t.text = config_text(g, t.text, g->rx.class_byte[cls]);
        if (g->dfa.state[t.q].rx != RX_EMPTY) /* else it ends here */
            push_step(g, t);
        if (!g->dfa.state[t.q].accept)
            continue;
        uint32_t ctx = t.text >= TEXT_EMPTY ? ctx_add_key(g, t.ctx, t.text) : t.ctx,
                 ret = ctx ? ctx_return(g, ctx) : 0;
        if (!ret)
            return STATE_UNKNOWN;
        const struct config *r = &p->config[ret];
        accept = accept || r->accept;
        for (uint32_t k = 0; k < r->n; k++)
            push_step(g, p->thread[r->first + k]);
    }
    uint32_t to = config_intern(g, p->step, p->n_step, accept);
    if (to)
        p->next[(size_t)config * g->rx.n_classes + cls] = to;
    return to;
}

void config_init(struct gram *g) {
    struct config_pool *p = &g->cfg;
    add_config(g, NULL, 0, false); /* STATE_UNKNOWN */
    uint32_t dead = add_config(g, NULL, 0, false);
    CHECK(dead == STATE_DEAD);
    for (uint32_t c = 0; c < g->rx.n_classes; c++)
        p->next[(size_t)dead * g->rx.n_classes + c] = STATE_DEAD;
    p->text = table_grow(p->text, &p->cap_texts, 3, sizeof *p->text, &g->bytes);
    p->text[TEXT_NONE] = p->text[TEXT_LAST] = p->text[TEXT_EMPTY] = (struct text_node){0, 0};
    p->n_texts = 3;
}

void config_fini(struct gram *g) {
    struct config_pool *p = &g->cfg;
    g->bytes -= p->cap * sizeof *p->config + p->cap_threads * sizeof *p->thread +
                p->cap_next * sizeof *p->next + p->cap_texts * sizeof *p->text +
                p->cap_step * sizeof *p->step;
    free(p->config);
    free(p->thread);
    free(p->next);
    free(p->text);
    free(p->step);
    itab_fini(&p->tab, &g->bytes);
    itab_fini(&p->texts, &g->bytes);
    *p = (struct config_pool){0};
}
