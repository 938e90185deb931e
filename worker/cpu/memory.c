/* memory.c: the memory of a handle's objects, on huge pages where the system has them.
 *
 * A weight below a huge page's size would lie on small pages, and a product that streams it would wait for page
 * tables: such weights share slabs. Small objects stay on the heap.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "worker/cpu/be.h"

enum { HUGE_PAGE_BYTES = 2 << 20, SLAB_BYTES = 8 * HUGE_PAGE_BYTES, SLAB_LEAST_BYTES = 256 << 10 };

struct slab {
    uint8_t *data;
    size_t used_bytes;
    uint32_t n_holders; /* objects, and the handle while it takes from it */
};

void *cpu_alloc(size_t bytes) {
    if (bytes > SIZE_MAX - HUGE_PAGE_BYTES)
        return NULL;
    bytes = MAX(bytes, 1);
    if (bytes < HUGE_PAGE_BYTES)
        return aligned_alloc(64, (bytes + 63) / 64 * 64);
    size_t whole = (bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    void *p = aligned_alloc(HUGE_PAGE_BYTES, whole);
    if (p)
        madvise(p, whole, MADV_HUGEPAGE); /* a hint: it may be refused */
    return p;
}

void slab_drop(struct slab *s) {
    if (!s || --s->n_holders > 0)
        return;
    free(s->data);
    free(s);
}

/* slab_take: `bytes` of the handle's slab, or of a new one. NULL: no memory. */
static void *slab_take(struct be *b, size_t bytes, struct slab **slab) {
    bytes = (bytes + 63) / 64 * 64;
    if (!b->slab || SLAB_BYTES - b->slab->used_bytes < bytes) {
        struct slab *s = calloc(1, sizeof *s);
        uint8_t *data = s ? cpu_alloc(SLAB_BYTES) : NULL;
        if (!data) {
            free(s);
            return NULL;
        }
        *s = (struct slab){.data = data, .n_holders = 1};
        slab_drop(b->slab);
        b->slab = s;
    }
    void *p = b->slab->data + b->slab->used_bytes;
    b->slab->used_bytes += bytes;
    b->slab->n_holders++;
    *slab = b->slab;
    return p;
}

static void *owned_link(struct be *b, struct owned *o, struct owned is) {
    if (!is.data) {
        free(o);
        return NULL;
    }
    *o = is;
    o->prev = &b->objects;
    o->next = b->objects.next;
    o->prev->next = o->next->prev = o;
    return o;
}

void *owned_new(struct be *b, size_t bytes, size_t data_bytes) {
    struct owned *o = calloc(1, bytes);
    struct slab *slab = NULL;
    bool shared = data_bytes >= SLAB_LEAST_BYTES && data_bytes < HUGE_PAGE_BYTES;
    void *data = !o ? NULL : shared ? slab_take(b, data_bytes, &slab) : cpu_alloc(data_bytes);
    return owned_link(b, o, (struct owned){.data = data, .data_bytes = data_bytes, .slab = slab});
}

void *owned_new_zero(struct be *b, size_t bytes, size_t data_bytes) {
    if (data_bytes < HUGE_PAGE_BYTES) {
        struct owned *o = owned_new(b, bytes, data_bytes);
        if (o)
            memset(o->data, 0, data_bytes);
        return o;
    }
    struct owned *o = calloc(1, bytes);
    void *data =
        o ? mmap(NULL, data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
          : NULL;
    if (data == MAP_FAILED)
        data = NULL;
    return owned_link(b, o, (struct owned){.data = data, .data_bytes = data_bytes, .mapped = true});
}

void owned_free(struct owned *o) {
    if (!o)
        return;
    o->prev->next = o->next;
    o->next->prev = o->prev;
    if (o->mapped)
        munmap(o->data, o->data_bytes);
    else if (o->slab)
        slab_drop(o->slab);
    else
        free(o->data);
    free(o);
}

void *cpu_scratch(struct be *b, enum scratch_id id, size_t bytes) {
    if (b->scratch[id].bytes < bytes) {
        free(b->scratch[id].data);
        b->scratch[id].data = cpu_alloc(bytes);
        CHECK(b->scratch[id].data); /* bounded by the limits given at open and the weights' widths */
        b->scratch[id].bytes = bytes;
    }
    return b->scratch[id].data;
}

