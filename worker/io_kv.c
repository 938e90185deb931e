/* What routers learn of the prefix cache: its changes, step by step, and snapshots. Runs on the engine's
 * thread; costs nothing but a look at the table of routers while none of them follows. */
#include "worker/io_private.h"

enum { NAMES_MAX = 4096, NAME_BYTES = sizeof(struct id128) }; /* of one message: 64 KiB each way */
_Static_assert(2 * NAMES_MAX * NAME_BYTES < LINK_FRAME_BYTES_MAX, "a message is a frame");

static void send_kv(struct link_conn *c, Weir__KvEvents *m) {
    m->has_stored = m->stored.len > 0;
    m->has_removed = m->removed.len > 0;
    m->has_first_seq = true;
    /* What a router misses shows it a gap, but the queue does not fill with this alone: it does not read. */
    if (link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_KV_EVENTS, m) == RC_AGAIN)
        link_cut(c, "the router does not read");
}

static void send_all(struct link_conn *const *to, size_t n, Weir__KvEvents *m) {
    for (size_t i = 0; i < n; i++)
        send_kv(to[i], m);
}

/* send_events: as few messages as keep the order: what a message removes goes before what it stores. */
static void send_events(struct link_conn *const *to, size_t n, const struct prefix_event *v,
                        uint32_t n_events, uint64_t seq) {
    struct id128 stored[NAMES_MAX], removed[NAMES_MAX];
    for (uint32_t i = 0; i < n_events;) {
        Weir__KvEvents m = WEIR__KV_EVENTS__INIT;
        uint32_t n_stored = 0, n_removed = 0;
        m.first_seq = seq + i;
        if (v[i].kind == PREFIX_CLEARED) {
            m.first_seq = seq + ++i;
            m.has_snapshot = m.snapshot = true;
            send_all(to, n, &m);
            continue;
        }
        while (i < n_events && v[i].kind == PREFIX_REMOVED && n_removed < NAMES_MAX)
            removed[n_removed++] = v[i++].name;
        while (i < n_events && v[i].kind == PREFIX_STORED && n_stored < NAMES_MAX)
            stored[n_stored++] = v[i++].name;
        m.removed = (ProtobufCBinaryData){n_removed * NAME_BYTES, removed[0].b};
        m.stored = (ProtobufCBinaryData){n_stored * NAME_BYTES, stored[0].b};
        send_all(to, n, &m);
    }
}

static void send_piece(struct link_conn *c, const struct kv_piece *p, uint64_t next_seq) {
    Weir__KvEvents m = WEIR__KV_EVENTS__INIT;
    m.first_seq = next_seq;
    m.has_snapshot = m.snapshot = p->begins;
    m.has_part = m.part = true;
    /* protobuf-c takes no const pointers; packing only reads */
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
        send_events(to, n, out->kv_events, out->n_kv_events, out->first_kv_event);
    for (size_t i = 0; i < n; i++)
        link_drop(to[i]);
    struct link_conn *c = p ? io_conn_of(io, p->router, p->router_epoch) : NULL;
    if (c) {
        send_piece(c, p, out->first_kv_event + out->n_kv_events);
        link_drop(c);
    }
}
