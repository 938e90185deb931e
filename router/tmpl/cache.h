/* cache.h: compiled templates that requests bring along (api.md 10.1.1), kept for the next request.
 *
 * A template is found by the digest of its text. Number and memory are bounded; the one unused for longest
 * goes first, and one that takes a large share of the room is not kept at all. Nothing is remembered of texts
 * that do not compile. Any thread; compiling happens outside the lock, so two threads may compile the same
 * text at once.
 */
#ifndef WEIR_ROUTER_TMPL_CACHE_H
#define WEIR_ROUTER_TMPL_CACHE_H

#include "router/tmpl/tmpl.h"

enum { TMPL_CACHE_MAX = 64, TMPL_CACHE_BYTES_MAX = 16 << 20 };

struct tmpl_cache;
/* A template in use. */
struct tmpl_held {
    struct tmpl *t;
    bool fresh; /* compiled by this tmpl_cache_hold */
    struct tmpl_entry *entry;
};

struct tmpl_cache *tmpl_cache_new(const struct tmpl_limits *limits);
/* tmpl_cache_free: nothing may be held any more. NULL is fine. */
void tmpl_cache_free(struct tmpl_cache *c);
/* tmpl_cache_hold: the template of that text. Errors as tmpl_compile's. */
MUST_USE enum rc tmpl_cache_hold(struct tmpl_cache *c, struct str text, struct tmpl_held *out, struct err *e);
void tmpl_cache_drop(struct tmpl_cache *c, struct tmpl_held *h);
/* tmpl_cache_count: templates kept now. */
size_t tmpl_cache_count(struct tmpl_cache *c);

#endif
