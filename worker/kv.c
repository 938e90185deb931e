#include "worker/kv.h"

#include <stdlib.h>

static void list_push(struct kv_pool *p, enum kv_list l, uint32_t b) {
    struct kv_block *x = &p->blocks[b];
    x->list = (uint8_t)l;
    x->next = KV_NO_BLOCK;
    x->prev = p->list[l].tail;
    if (x->prev == KV_NO_BLOCK)
        p->list[l].head = b;
    else
        p->blocks[x->prev].next = b;
    p->list[l].tail = b;
    if (l == KV_LIST_FREE)
        p->n_free++;
    else
        p->n_idle++;
}

static void list_remove(struct kv_pool *p, uint32_t b) {
    struct kv_block *x = &p->blocks[b];
    enum kv_list l = x->list;
    if (x->prev == KV_NO_BLOCK)
        p->list[l].head = x->next;
    else
        p->blocks[x->prev].next = x->next;
    if (x->next == KV_NO_BLOCK)
        p->list[l].tail = x->prev;
    else
        p->blocks[x->next].prev = x->prev;
    x->list = KV_LIST_NONE;
    if (l == KV_LIST_FREE)
        p->n_free--;
    else
        p->n_idle--;
}

void kv_init(struct kv_pool *p, uint32_t n_blocks, void (*on_evict)(void *arg, uint32_t block), void *arg) {
    CHECK(n_blocks > 0 && n_blocks < KV_NO_BLOCK / KV_TOKENS);
    *p = (struct kv_pool){.n_blocks = n_blocks, .on_evict = on_evict, .arg = arg};
    p->blocks = xcalloc(n_blocks, sizeof *p->blocks);
    for (size_t l = 0; l < ARRAY_LEN(p->list); l++)
        p->list[l].head = p->list[l].tail = KV_NO_BLOCK;
    for (uint32_t b = 0; b < n_blocks; b++)
        list_push(p, KV_LIST_FREE, b);
}

void kv_fini(struct kv_pool *p) {
    free(p->blocks);
    *p = (struct kv_pool){0};
}

uint32_t kv_take(struct kv_pool *p) {
    uint32_t b = p->list[KV_LIST_FREE].head;
    if (b == KV_NO_BLOCK) {
        b = p->list[KV_LIST_IDLE].head;
        if (b == KV_NO_BLOCK)
            return KV_NO_BLOCK;
        if (p->on_evict)
            p->on_evict(p->arg, b);
        p->blocks[b].named = false;
    }
    list_remove(p, b);
    p->n_used++;
    p->blocks[b].n_holds = 1;
    p->blocks[b].generation++;
    return b;
}

void kv_hold(struct kv_pool *p, uint32_t block) {
    CHECK(block < p->n_blocks);
    struct kv_block *x = &p->blocks[block];
    if (x->n_holds == 0) {
        CHECK(x->list == KV_LIST_IDLE);
        list_remove(p, block);
        p->n_used++;
    }
    x->n_holds++;
}

void kv_drop(struct kv_pool *p, uint32_t block) {
    CHECK(block < p->n_blocks);
    struct kv_block *x = &p->blocks[block];
    CHECK(x->n_holds > 0);
    if (--x->n_holds)
        return;
    p->n_used--;
    list_push(p, x->named ? KV_LIST_IDLE : KV_LIST_FREE, block);
}

void kv_set_named(struct kv_pool *p, uint32_t block, bool named) {
    CHECK(block < p->n_blocks);
    struct kv_block *x = &p->blocks[block];
    CHECK(x->list != KV_LIST_FREE);
    x->named = named;
    if (!named && x->list == KV_LIST_IDLE) {
        list_remove(p, block);
        list_push(p, KV_LIST_FREE, block);
    }
}

void kv_check(const struct kv_pool *p) {
    uint32_t n_used = 0, n[3] = {0};
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        const struct kv_block *x = &p->blocks[b];
        CHECK((x->list == KV_LIST_NONE) == (x->n_holds > 0));
        CHECK(x->list != KV_LIST_FREE || !x->named);
        CHECK(x->list != KV_LIST_IDLE || x->named);
        n_used += x->n_holds > 0;
    }
    for (int l = KV_LIST_FREE; l <= KV_LIST_IDLE; l++) {
        uint32_t prev = KV_NO_BLOCK;
        for (uint32_t b = p->list[l].head; b != KV_NO_BLOCK; prev = b, b = p->blocks[b].next) {
            CHECK(p->blocks[b].list == l && p->blocks[b].prev == prev);
            CHECK(++n[l] <= p->n_blocks);
        }
        CHECK(p->list[l].tail == prev);
    }
    CHECK(n[KV_LIST_FREE] == p->n_free && n[KV_LIST_IDLE] == p->n_idle && n_used == p->n_used);
    CHECK(p->n_free + p->n_idle + p->n_used == p->n_blocks);
}
