#include "router/fleet/kvfeed.h"

enum { NAME_BYTES = sizeof(struct id128) };

void kv_feed_init(struct kv_feed *f) {
    *f = (struct kv_feed){.slot = INDEX_NO_SLOT};
}

void kv_feed_gone(struct kv_feed *f, struct prefix_index *x) {
    if (f->slot != INDEX_NO_SLOT)
        index_leave(x, f->slot);
    f->slot = INDEX_NO_SLOT;
}

static const struct id128 *names_of(const ProtobufCBinaryData *d) {
    return (const struct id128 *)(const void *)d->data; /* bytes, of alignment 1 */
}

enum kv_feed_say kv_feed_take(struct kv_feed *f, struct prefix_index *x, const Weir__KvEvents *m) {
    size_t n_stored = m->stored.len / NAME_BYTES, n_removed = m->removed.len / NAME_BYTES;
    bool own = m->snapshot || m->part; /* no numbers of its own */
    if (!m->has_first_seq || m->stored.len % NAME_BYTES || m->removed.len % NAME_BYTES ||
        (own && n_removed) || m->first_seq > UINT64_MAX - n_stored - n_removed)
        return KV_FEED_BAD;
    if (m->snapshot) {
        kv_feed_gone(f, x);
        f->slot = index_join(x); /* none: all are being swept; the snapshot is asked for again later */
        f->next_seq = m->first_seq;
    }
    if (f->slot == INDEX_NO_SLOT)
        return KV_FEED_OK;
    if (m->first_seq != f->next_seq) {
        kv_feed_gone(f, x);
        return KV_FEED_ASK;
    }
    if (n_removed)
        index_removed(x, f->slot, names_of(&m->removed), n_removed);
    if (n_stored)
        index_stored(x, f->slot, names_of(&m->stored), n_stored);
    if (!own)
        f->next_seq += n_stored + n_removed;
    return KV_FEED_OK;
}
