#include "router/slots.h"

#include <stdlib.h>

static const uint32_t none = UINT32_MAX;

void slots_init(struct slots *s, uint32_t loop) {
    CHECK(loop < HANDLE_LOOPS_MAX);
    *s = (struct slots){.free_first = none, .free_last = none, .loop = loop};
}

void slots_fini(struct slots *s) {
    CHECK(s->n_used == 0);
    free(s->v);
    s->v = NULL;
}

uint64_t slots_put(struct slots *s, void *p) {
    CHECK(p);
    uint32_t i;
    /* A free slot is used again only when a fair number of others lie before it in the list. */
    if (s->free_first != none && (s->n - s->n_used >= 64 || s->n == SLOTS_MAX)) {
        i = s->free_first;
        s->free_first = s->v[i].next_free;
        if (s->free_first == none)
            s->free_last = none;
    } else {
        if (s->n == SLOTS_MAX)
            return 0;
        if (s->n == s->cap) {
            s->cap = s->cap ? s->cap * 2 : 256;
            s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
        }
        i = s->n++;
        s->v[i].generation = 0;
    }
    struct slot *t = &s->v[i];
    t->generation = (t->generation + 1) & 0xffffff;
    if (t->generation == 0)
        t->generation = 1; /* so that no handle is 0 */
    t->p = p;
    s->n_used++;
    return handle_make(t->generation, s->loop, i);
}

void *slots_get(const struct slots *s, uint64_t handle) {
    uint32_t i = handle_slot(handle);
    if (handle_loop(handle) != s->loop || i >= s->n || s->v[i].generation != handle_generation(handle))
        return NULL;
    return s->v[i].p;
}

void slots_del(struct slots *s, uint64_t handle) {
    CHECK(slots_get(s, handle) != NULL);
    uint32_t i = handle_slot(handle);
    s->v[i].p = NULL;
    s->v[i].next_free = none;
    if (s->free_last == none)
        s->free_first = i;
    else
        s->v[s->free_last].next_free = i;
    s->free_last = i;
    s->n_used--;
}
