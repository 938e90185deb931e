#include "common/text/trie.h"

#include <stdlib.h>

/* A node to be given children: the strings [begin, end), which agree in their first depth bytes. */
struct job {
    uint32_t node, begin, end, depth;
};

struct build {
    struct trie *t;
    const struct trie_entry *entries;
    struct job *jobs; /* a stack */
    size_t n_jobs, jobs_cap;
    uint32_t n_slots;  /* allocated nodes */
    uint32_t free_min; /* no slot below is free */
};

static int by_key(const void *a, const void *b) {
    const struct trie_entry *x = a, *y = b;
    size_t n = MIN(x->key.n, y->key.n);
    int order = memcmp(x->key.p, y->key.p, n);
    if (order)
        return order;
    if (x->key.n != y->key.n)
        return x->key.n < y->key.n ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

/* slots_reach: free slots up to n. */
static void slots_reach(struct build *b, uint32_t n) {
    if (n <= b->n_slots)
        return;
    uint32_t n_new = MAX(n, b->n_slots + b->n_slots / 2);
    b->t->nodes = xreallocarray(b->t->nodes, n_new, sizeof *b->t->nodes);
    for (; b->n_slots < n_new; b->n_slots++)
        b->t->nodes[b->n_slots] = (struct trie_node){0, TRIE_NONE, TRIE_NONE};
}

/* place: the base at which all children's slots are free. The search starts at the first free slot; where
 * it has to look far, the slots it passed are given up, so that building stays linear. */
static uint32_t place(struct build *b, const uint8_t *labels, unsigned n) {
    enum { TRIES_MAX = 64 };
    while (b->free_min < b->n_slots && b->t->nodes[b->free_min].parent != TRIE_NONE)
        b->free_min++;
    uint32_t first = b->free_min;
    for (unsigned tries = 0;; first++) {
        slots_reach(b, first + 257);
        if (b->t->nodes[first].parent != TRIE_NONE || first <= labels[0]) /* no base is 0 */
            continue;
        uint32_t base = first - labels[0];
        unsigned k = 0;
        while (k < n && b->t->nodes[base + labels[k]].parent == TRIE_NONE)
            k++;
        if (k == n) {
            slots_reach(b, base + 257);
            return base;
        }
        if (++tries == TRIES_MAX) {
            b->free_min = first;
            tries = 0;
        }
    }
}

static void push(struct build *b, struct job job) {
    if (b->n_jobs == b->jobs_cap) {
        b->jobs_cap = MAX(b->jobs_cap * 2, (size_t)256);
        b->jobs = xreallocarray(b->jobs, b->jobs_cap, sizeof *b->jobs);
    }
    b->jobs[b->n_jobs++] = job;
}

/* children: gives a node its value and its children, and pushes a job for each. */
static void children(struct build *b, struct job job) {
    uint8_t labels[256];
    uint32_t starts[257];
    unsigned n = 0;
    while (job.begin < job.end && b->entries[job.begin].key.n == job.depth)
        b->t->nodes[job.node].value = b->entries[job.begin++].value;
    for (uint32_t i = job.begin; i < job.end; i++) {
        uint8_t label = (uint8_t)b->entries[i].key.p[job.depth];
        if (n == 0 || labels[n - 1] != label) {
            labels[n] = label;
            starts[n++] = i;
        }
    }
    if (n == 0)
        return;
    starts[n] = job.end;
    uint32_t base = place(b, labels, n);
    b->t->nodes[job.node].base = base;
    for (unsigned k = 0; k < n; k++) {
        b->t->nodes[base + labels[k]].parent = job.node;
        push(b, (struct job){base + labels[k], starts[k], starts[k + 1], job.depth + 1});
    }
}

void trie_init(struct trie *t, struct trie_entry *entries, uint32_t n_entries) {
    struct build b = {.t = t, .entries = entries, .free_min = 1};
    *t = (struct trie){0};
    if (n_entries)
        qsort(entries, n_entries, sizeof *entries, by_key);
    slots_reach(&b, 1024);
    t->nodes[0].parent = 0; /* so that its slot is taken; no child is at 0, as no base is */
    push(&b, (struct job){0, 0, n_entries, 0});
    while (b.n_jobs)
        children(&b, b.jobs[--b.n_jobs]);
    t->n_nodes = b.n_slots;
    free(b.jobs);
}

void trie_fini(struct trie *t) {
    free(t->nodes);
    *t = (struct trie){0};
}
