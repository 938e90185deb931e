#include "common/gram/engine.h"

/* Whether what is left of a production can be matched at all, when its keys must differ from those seen. Each
 * terminal is looked at by itself: that some string of it is left. A production that asks for several more
 * keys of a finite expression than there are is not found out before they run out (ir.h tells front ends). */

enum { DEPTH_MAX = 64 };
enum { NO, YES, BUSY, OPEN }; /* key_memo.is; OPEN: to be looked at again */

static bool viable(struct gram *g, uint32_t at, uint32_t keys, unsigned depth);

static uint32_t find(const struct gram *g, uint32_t at, uint32_t keys, uint32_t hash) {
    uint32_t cursor = UINT32_MAX, id;
    while ((id = itab_find(&g->keys.tab, hash, &cursor)) != UINT32_MAX)
        if (g->keys.memo[id].at == at && g->keys.memo[id].keys == keys)
            break;
    return id;
}

static bool part_viable(struct gram *g, uint32_t sym, uint32_t keys, unsigned depth) {
    const struct gram_sym *s = &g->sym[sym];
    if (!s->uses_keys || (!s->is_term && (s->flags & RULE_SCOPE)))
        return true;
    if (s->is_term) {
        uint32_t base = g->rx.n_tmp;
        rx_push(g, s->rx);
        rx_push(g, rx_mk_not(g, keys));
        return rx_is_live(g, rx_mk_and(g, base));
    }
    for (uint32_t i = 0; i < s->n; i++)
        if (viable(g, g->prod_place[s->first + i], keys, depth + 1))
            return true;
    return false;
}

static bool viable(struct gram *g, uint32_t at, uint32_t keys, unsigned depth) {
    struct key_pool *p = &g->keys;
    uint32_t hash = (uint32_t)(mix(mix(5, at), keys) >> 20), id = find(g, at, keys, hash);
    if (!g->place_keys[at] || depth > DEPTH_MAX)
        return true;
    if (id != UINT32_MAX && p->memo[id].is != OPEN) {
        p->leans |= p->memo[id].is == BUSY; /* one in progress does not stand on itself */
        return p->memo[id].is == YES;
    }
    if (!gram_spend(g, 8))
        return false;
    if (id == UINT32_MAX) {
        p->memo = table_grow(p->memo, &p->cap, (size_t)p->n + 1, sizeof *p->memo, &g->bytes);
        p->memo[p->n] = (struct key_memo){.at = at, .keys = keys};
        id = p->n++;
        itab_add(&p->tab, hash, id, &g->bytes);
    }
    bool all = true, leaned = p->leans;
    p->leans = false;
    p->memo[id].is = BUSY;
    for (uint32_t k = at; all && g->place[k] != PART_END; k++)
        all = part_viable(g, g->place[k], keys, depth);
    /* A no that leans on one in progress holds for this question only; at the bottom there is none left. */
    p->memo[id].is = all ? YES : g->fail || (p->leans && depth > 0) ? OPEN : NO;
    p->leans = p->leans || leaned;
    return all;
}

bool keys_viable(struct gram *g, uint32_t at, uint32_t keys) {
    g->keys.leans = false;
    return keys == RX_NONE || viable(g, at, keys, 0);
}

void keys_forget(struct gram *g) {
    struct key_pool *p = &g->keys;
    itab_clear(&p->tab, &g->bytes);
    p->memo = table_trim(p->memo, &p->cap, 0, sizeof *p->memo, &g->bytes);
    p->n = 0;
}
