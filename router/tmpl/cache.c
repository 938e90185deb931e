#include "router/tmpl/cache.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/hash.h"

enum { SHARE = 4 /* a template above this part of the room is not kept */ };

/* One reference is the table's, while the entry is in it. */
struct tmpl_entry {
    struct tmpl *t;
    size_t n_bytes;
    uint64_t used; /* the cache's clock when it was last asked for */
    uint32_t n_refs;
    uint8_t digest[32];
};

struct tmpl_cache {
    pthread_mutex_t lock;
    struct tmpl_limits limits;
    struct tmpl_entry *entries[TMPL_CACHE_MAX]; /* [n] */
    size_t n, n_bytes;
    uint64_t clock;
};

struct tmpl_cache *tmpl_cache_new(const struct tmpl_limits *limits) {
    struct tmpl_cache *c = xcalloc(1, sizeof *c);
    c->limits = *limits;
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
    return c;
}

/* unref: the lock is held. */
static void unref(struct tmpl_entry *x) {
    if (--x->n_refs)
        return;
    tmpl_free(x->t);
    free(x);
}

static void evict(struct tmpl_cache *c, size_t i) {
    struct tmpl_entry *x = c->entries[i];
    c->n_bytes -= x->n_bytes;
    c->entries[i] = c->entries[--c->n];
    unref(x);
}

void tmpl_cache_free(struct tmpl_cache *c) {
    if (!c)
        return;
    while (c->n) {
        CHECK(c->entries[0]->n_refs == 1);
        evict(c, 0);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* find: the entry of that text with one more reference, or NULL. The lock is held. */
static struct tmpl_entry *find(struct tmpl_cache *c, const uint8_t digest[32]) {
    for (size_t i = 0; i < c->n; i++) {
        struct tmpl_entry *x = c->entries[i];
        if (memcmp(x->digest, digest, sizeof x->digest) != 0)
            continue;
        x->used = ++c->clock;
        x->n_refs++;
        return x;
    }
    return NULL;
}

/* keep: puts x into the table, which takes a reference. The lock is held. */
static void keep(struct tmpl_cache *c, struct tmpl_entry *x) {
    if (x->n_bytes > TMPL_CACHE_BYTES_MAX / SHARE)
        return;
    while (c->n == TMPL_CACHE_MAX || c->n_bytes + x->n_bytes > TMPL_CACHE_BYTES_MAX) {
        size_t oldest = 0;
        for (size_t i = 1; i < c->n; i++)
            if (c->entries[i]->used < c->entries[oldest]->used)
                oldest = i;
        evict(c, oldest);
    }
    x->used = ++c->clock;
    x->n_refs++;
    c->entries[c->n++] = x;
    c->n_bytes += x->n_bytes;
}

enum rc tmpl_cache_hold(struct tmpl_cache *c, struct str text, struct tmpl_held *out, struct err *e) {
    uint8_t digest[32];
    struct tmpl *t;
    if (text.n > c->limits.template_bytes_max)
        return tmpl_compile(&t, text, &c->limits, e); /* which refuses it unread */
    hash_sha256(text.p, text.n, digest);
    pthread_mutex_lock(&c->lock);
    struct tmpl_entry *x = find(c, digest), *mine = NULL;
    pthread_mutex_unlock(&c->lock);
    if (!x) {
        enum rc rc = tmpl_compile(&t, text, &c->limits, e);
        if (rc)
            return rc;
        mine = xcalloc(1, sizeof *mine);
        *mine = (struct tmpl_entry){.t = t, .n_bytes = tmpl_bytes(t), .n_refs = 1};
        memcpy(mine->digest, digest, sizeof digest);
        pthread_mutex_lock(&c->lock);
        x = find(c, digest); /* another thread may have been faster */
        if (x)
            unref(mine);
        else
            keep(c, x = mine);
        pthread_mutex_unlock(&c->lock);
    }
    *out = (struct tmpl_held){.t = x->t, .fresh = x == mine, .entry = x};
    return RC_OK;
}

void tmpl_cache_drop(struct tmpl_cache *c, struct tmpl_held *h) {
    if (!h->entry)
        return;
    pthread_mutex_lock(&c->lock);
    unref(h->entry);
    pthread_mutex_unlock(&c->lock);
    *h = (struct tmpl_held){0};
}

size_t tmpl_cache_count(struct tmpl_cache *c) {
    pthread_mutex_lock(&c->lock);
    size_t n = c->n;
    pthread_mutex_unlock(&c->lock);
    return n;
}
