/* What routers learn of the prefix cache: its changes, step by step, and snapshots. Runs on the engine's
 * thread; costs nothing but a look at the table of routers while none of them follows. */
#include "worker/io_private.h"

enum { NAME_BYTES = sizeof(struct id128) };
_Static_assert(2 * IO_KV_NAMES_MAX * NAME_BYTES < LINK_FRAME_BYTES_MAX, "a message is a frame");

uint32_t io_kv_fill(const struct prefix_event *v, uint32_t n, uint64_t seq,
                    struct id128 stored[IO_KV_NAMES_MAX], struct id128 removed[IO_KV_NAMES_MAX],
                    Weir__KvEvents *m) {
    uint32_t i = 0, n_stored = 0, n_removed = 0;
    weir__kv_events__init(m);
    m->has_first_seq = true;
    if (v[0].kind == PREFIX_CLEARED) {
        m->first_seq = seq + 1;
        m->has_snapshot = m->snapshot = true;
        return 1;
    }
    m->first_seq = seq;
    while (i < n && v[i].kind == PREFIX_REMOVED && n_removed < IO_KV_NAMES_MAX)
        removed[n_removed++] = v[i++].name;
    while (i < n && v[i].kind == PREFIX_STORED && n_stored < IO_KV_NAMES_MAX)
        stored[n_stored++] = v[i++].name;
    m->has_removed = n_removed > 0;
    m->has_stored = n_stored > 0;
    m->removed = (ProtobufCBinaryData){n_removed * NAME_BYTES, removed[0].b};
    m->stored = (ProtobufCBinaryData){n_stored * NAME_BYTES, stored[0].b};
    return i;
}

/* send_kv: a full queue is not these few bytes' doing. */
static void send_kv(struct link_conn *c, Weir__KvEvents *m) {
    if (link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_KV_EVENTS, m) == RC_AGAIN)
        link_cut(c, "the router does not read");
}

static void send_events(struct link_conn *const *to, size_t n, const struct step_out *out) {
    struct id128 stored[IO_KV_NAMES_MAX], removed[IO_KV_NAMES_MAX];
    Weir__KvEvents m;
    for (uint32_t i = 0; i < out->n_kv_events;) {
        i += io_kv_fill(out->kv_events + i, out->n_kv_events - i, out->first_kv_event + i, stored, removed,
                        &m);
        for (size_t k = 0; k < n; k++)
            send_kv(to[k], &m);
    }
}

static void send_piece(struct link_conn *c, const struct kv_piece *p, uint64_t next_seq) {
    Weir__KvEvents m = WEIR__KV_EVENTS__INIT;
    m.has_first_seq = true;
    m.first_seq = next_seq;
    m.has_snapshot = m.snapshot = p->begins;
    m.has_part = m.part = true;
    /* protobuf-c takes no const pointers; packing only reads */
    m.has_stored = p->n_names > 0;
    m.stored = (ProtobufCBinaryData){p->n_names * NAME_BYTES, (uint8_t *)(uintptr_t)p->names->b};
    send_kv(c, &m);
}

void io_kv_step(struct io *io, const struct step_out *out) {
    struct link_conn *to[IO_ROUTERS_MAX];
    size_t n = 0;
    const struct kv_piece *p = out->kv_piece;
    pthread_mutex_lock(&io->lock);
    for (size_t i = 0; i < IO_ROUTERS_MAX; i++)
        if (io->routers[i].conn && io->routers[i].kv_events)
            to[n++] = link_hold(io->routers[i].conn);
    if (p && io->routers[p->router].epoch == p->router_epoch)
        io->routers[p->router].kv_events = true; /* from the next events on */
    pthread_mutex_unlock(&io->lock);
    if (n)
        send_events(to, n, out);
    for (size_t i = 0; i < n; i++)
        link_drop(to[i]);
    struct link_conn *c = p ? io_conn_of(io, p->router, p->router_epoch) : NULL;
    if (c) {
        send_piece(c, p, out->first_kv_event + out->n_kv_events);
        link_drop(c);
    }
}
