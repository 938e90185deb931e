#include "common/gram/run.h"

#include <stdlib.h>

/* Dropping what no run refers to. Ids of expressions, ctx and texts only refer to smaller ones (those of a
 * cycle of ctx to each other too), so that marking goes down the ids once, and moving together goes up once;
 * the order of ids stays. States, configs and their transitions are dropped altogether and found again. */

struct gc {
    struct gram *g;
    struct thread *thread; /* of all runs, one after another; q is the expression */
    uint32_t n_threads;
    uint8_t *rx, *set, *ctx, *text; /* marks */
    uint32_t *to_rx, *to_set, *to_ctx, *to_text;
};

static void mark_ctx(struct gc *c, uint32_t id) {
    const struct ctx *x = &c->g->ctx.ctx[id];
    memset(c->ctx + x->group, 1, x->n_group);
}

static void save_runs(struct gc *c) {
    struct gram *g = c->g;
    uint32_t n = 0;
    for (const struct gram_run *r = g->runs; r; r = r->next)
        n += g->cfg.config[r->config].n;
    c->thread = xreallocarray(NULL, n + 1, sizeof *c->thread);
    for (struct gram_run *r = g->runs; r; r = r->next) {
        const struct config *f = &g->cfg.config[r->config];
        r->gc_n = f->n;
        r->gc_accept = f->accept;
        for (uint32_t i = 0; i < f->n; i++) {
            struct thread t = g->cfg.thread[f->first + i];
            t.q = g->dfa.state[t.q].rx;
            c->rx[t.q] = 1;
            c->text[t.text] = 1;
            mark_ctx(c, t.ctx);
            c->thread[c->n_threads++] = t;
        }
    }
}

static void mark_all(struct gc *c) {
    struct gram *g = c->g;
    struct rx_pool *p = &g->rx;
    for (uint32_t i = g->ctx.n; i-- > 0;)
        for (uint32_t k = 0; c->ctx[i] && k < g->ctx.ctx[i].n; k++) {
            const struct edge *e = &g->ctx.edge[g->ctx.ctx[i].first + k];
            c->rx[e->keys] = 1;
            mark_ctx(c, e->ctx);
        }
    for (uint32_t i = g->cfg.n_texts; i-- > 0;)
        if (c->text[i])
            c->text[g->cfg.text[i].prev] = 1;
    memset(c->rx, 1, p->n_base);
    memset(c->set, 1, p->n_base_sets);
    for (uint32_t i = p->n; i-- > 0;) {
        const struct rx_node *x = &p->node[i];
        if (!c->rx[i])
            continue;
        if (x->kind == K_SET)
            c->set[x->a] = 1;
        if (x->kind == K_CAT)
            c->rx[x->b] = 1;
        if (x->kind == K_CAT || x->kind == K_NOT || x->kind == K_REP)
            c->rx[x->a] = 1;
        for (uint32_t k = 0; k < x->b && (x->kind == K_ALT || x->kind == K_AND); k++)
            c->rx[p->list[x->a + k]] = 1;
        for (uint32_t k = 0; k < x->b && x->kind == K_SWITCH; k++) {
            c->set[p->list[x->a + 2 * k]] = 1;
            c->rx[p->list[x->a + 2 * k + 1]] = 1;
        }
    }
}

/* number: new ids for what is marked; returns how many. */
static uint32_t number(const uint8_t *mark, uint32_t n, uint32_t *to) {
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (mark[i])
            to[i] = m++;
    return m;
}

static void move_rx(struct gc *c) {
    struct gram *g = c->g;
    struct rx_pool *p = &g->rx;
    uint32_t n_sets = number(c->set, p->n_sets, c->to_set), n = number(c->rx, p->n, c->to_rx), n_list = 0;
    for (uint32_t i = 0; i < p->n_sets; i++)
        if (c->set[i])
            p->set[c->to_set[i]] = p->set[i];
    for (uint32_t i = 0; i < p->n; i++) {
        if (!c->rx[i])
            continue;
        struct rx_node x = p->node[i];
        if (x.kind == K_ALT || x.kind == K_AND || x.kind == K_SWITCH) {
            uint32_t from = x.a, per = x.kind == K_SWITCH ? 2 : 1;
            x.a = n_list;
            for (uint32_t k = 0; k < x.b * per; k++) {
                uint32_t v = p->list[from + k];
                p->list[n_list++] = per == 2 && k % 2 == 0 ? c->to_set[v] : c->to_rx[v];
            }
        } else if (x.kind == K_SET) {
            x.a = c->to_set[x.a];
        } else if (x.kind == K_CAT || x.kind == K_NOT || x.kind == K_REP) {
            x.a = c->to_rx[x.a];
            x.b = x.kind == K_CAT ? c->to_rx[x.b] : x.b;
        }
        p->node[c->to_rx[i]] = x;
    }
    p->n = n;
    p->n_sets = n_sets;
    p->n_list = n_list;
    p->node = table_trim(p->node, &p->cap, n, sizeof *p->node, &g->bytes);
    p->set = table_trim(p->set, &p->cap_sets, n_sets, sizeof *p->set, &g->bytes);
    p->list = table_trim(p->list, &p->cap_list, n_list, sizeof *p->list, &g->bytes);
    p->mark = table_trim(p->mark, &p->cap_mark, 0, sizeof *p->mark, &g->bytes);
    p->tmp = table_trim(p->tmp, &p->cap_tmp, 0, sizeof *p->tmp, &g->bytes);
    p->epoch = 0;
    if (p->memo)
        memset(p->memo, 0, RX_MEMO * sizeof *p->memo);
    rx_rehash(g);
}

static void move_ctx(struct gc *c) {
    struct gram *g = c->g;
    struct ctx_pool *p = &g->ctx;
    uint32_t n = number(c->ctx, p->n, c->to_ctx), n_edges = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        if (!c->ctx[i])
            continue;
        struct ctx x = p->ctx[i];
        uint32_t from = x.first;
        x.first = n_edges;
        for (uint32_t k = 0; k < x.n; k++) {
            struct edge e = p->edge[from + k];
            p->edge[n_edges++] = (struct edge){e.at, c->to_rx[e.keys], c->to_ctx[e.ctx]};
        }
        x.group = c->to_ctx[x.group];
        x.ret = STATE_UNKNOWN;
        p->ctx[c->to_ctx[i]] = x;
    }
    p->n = n;
    p->n_edges = n_edges;
    p->ctx = table_trim(p->ctx, &p->cap, n, sizeof *p->ctx, &g->bytes);
    p->edge = table_trim(p->edge, &p->cap_edges, n_edges, sizeof *p->edge, &g->bytes);
    ctx_rehash(g);
}

static void move_texts(struct gc *c) {
    struct gram *g = c->g;
    struct config_pool *p = &g->cfg;
    uint32_t n = number(c->text, p->n_texts, c->to_text);
    struct text_node *kept = xreallocarray(NULL, n, sizeof *kept);
    for (uint32_t i = 0; i < p->n_texts; i++)
        if (c->text[i])
            kept[c->to_text[i]] = (struct text_node){c->to_text[p->text[i].prev], p->text[i].byte};
    config_fini(g);
    config_init(g);
    for (uint32_t i = p->n_texts; i < n; i++)
        config_text(g, kept[i].prev, kept[i].byte);
    CHECK(p->n_texts == n);
    free(kept);
}

void gram_gc(struct gram *g) {
    struct gc c = {.g = g,
                   .rx = xcalloc(g->rx.n, 1),
                   .set = xcalloc(g->rx.n_sets + 1, 1),
                   .ctx = xcalloc(g->ctx.n, 1),
                   .text = xcalloc(g->cfg.n_texts, 1),
                   .to_rx = xcalloc(g->rx.n, sizeof(uint32_t)),
                   .to_set = xcalloc(g->rx.n_sets + 1, sizeof(uint32_t)),
                   .to_ctx = xcalloc(g->ctx.n, sizeof(uint32_t)),
                   .to_text = xcalloc(g->cfg.n_texts, sizeof(uint32_t))};
    int64_t fuel = g->fuel;
    size_t limit = g->limit.memory_bytes;
    g->fuel = INT64_MAX; /* what lives is put back whatever it costs: it was there before */
    g->limit.memory_bytes = SIZE_MAX;
    g->fail = false;
    mark_ctx(&c, CTX_NONE);
    mark_ctx(&c, CTX_ROOT);
    c.text[TEXT_NONE] = c.text[TEXT_LAST] = c.text[TEXT_EMPTY] = 1;
    mask_forget(g);
    save_runs(&c);
    mark_all(&c);
    move_rx(&c);
    move_ctx(&c);
    move_texts(&c);
    dfa_fini(g);
    dfa_init(g);
    ctx_trim(g);
    keys_forget(g);
    g->config_start = ctx_start(g);
    uint32_t at = 0;
    for (struct gram_run *r = g->runs; r; r = r->next) {
        for (uint32_t i = 0; i < r->gc_n; i++) {
            struct thread *t = &c.thread[at + i];
            *t = (struct thread){dfa_of(g, c.to_rx[t->q]), c.to_ctx[t->ctx], c.to_text[t->text]};
        }
        r->config = config_intern(g, c.thread + at, r->gc_n, r->gc_accept);
        at += r->gc_n;
    }
    CHECK(!g->fail);
    g->fuel = fuel;
    g->limit.memory_bytes = limit;
    g->gc_at = MAX(limit / 4 * 3, MIN(limit, g->bytes + g->bytes / 2));
    g->gc_soon = gram_gc_soon(g->bytes);
    free(c.thread);
    free(c.rx);
    free(c.set);
    free(c.ctx);
    free(c.text);
    free(c.to_rx);
    free(c.to_set);
    free(c.to_ctx);
    free(c.to_text);
}
