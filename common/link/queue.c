#include "common/link/queue.h"

#include "common/link/wire.h"

enum { CONTROL_ROOM_BYTES = 1 << 20, KEPT_BYTES = 1 << 20 };

void queue_init(struct queue *q, size_t bytes_max) {
    *q = (struct queue){.bytes_max = bytes_max};
}

void queue_fini(struct queue *q) {
    for (size_t i = 0; i < ARRAY_LEN(q->lanes); i++)
        buf_fini(&q->lanes[i].fifo);
}

static size_t lane_bytes(const struct queue_lane *l) {
    return l->fifo.len - l->at;
}

size_t queue_bytes(const struct queue *q) {
    return lane_bytes(&q->lanes[LINK_CONTROL]) + lane_bytes(&q->lanes[LINK_DATA]);
}

bool queue_empty(const struct queue *q) {
    return queue_bytes(q) == 0 && !q->ping_due && !q->pong_due;
}

bool queue_admits(const struct queue *q, enum link_lane lane, size_t n) {
    size_t limit = q->bytes_max + (lane == LINK_CONTROL ? CONTROL_ROOM_BYTES : 0), held = queue_bytes(q);
    return lane_bytes(&q->lanes[lane]) == 0 || (held <= limit && n <= limit - held);
}

void queue_add(struct queue *q, enum link_lane lane, const Weir__Envelope *m) {
    struct buf *fifo = &q->lanes[lane].fifo;
    size_t at = fifo->len;
    buf_reserve(fifo, WIRE_LENGTH_BYTES);
    fifo->len += WIRE_LENGTH_BYTES;
    size_t n = wire_add_body(fifo, m);
    CHECK(n <= WIRE_BODY_BYTES_MAX);
    wire_put_u32((uint8_t *)fifo->data + at, (uint32_t)n);
}

void queue_add_blob(struct queue *q, enum link_lane lane, Weir__BlobPart__Kind kind, const void *data,
                    size_t n, const uint8_t digest[32]) {
    uint64_t blob = ++q->last_blob;
    size_t at = 0;
    do {
        Weir__BlobPart part = WEIR__BLOB_PART__INIT;
        size_t n_part = MIN(n - at, (size_t)LINK_PART_BYTES);
        part.has_blob = part.has_kind = part.has_total_bytes = part.has_offset = part.has_data = true;
        part.blob = blob;
        part.kind = kind;
        part.total_bytes = n;
        part.offset = at;
        part.data = (ProtobufCBinaryData){.len = n_part, .data = (uint8_t *)(uintptr_t)data + at};
        at += n_part;
        if (at == n && digest) {
            part.has_digest = true;
            part.digest = (ProtobufCBinaryData){.len = 32, .data = (uint8_t *)(uintptr_t)digest};
        }
        Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_BLOB_PART, &part);
        queue_add(q, lane, &m);
    } while (at < n);
}

static void fill_body(struct queue *q, struct buf *out, enum link_lane lane, const void *body, size_t n) {
    wire_add_frame(out, lane, ++q->lanes[lane].seq, body, n);
}

static void fill_made(struct queue *q, struct buf *out, Weir__Envelope__BodyCase which, void *body) {
    Weir__Envelope m = wire_envelope(which, body);
    uint8_t packed[64];
    CHECK(weir__envelope__get_packed_size(&m) <= sizeof packed);
    fill_body(q, out, LINK_CONTROL, packed, weir__envelope__pack(&m, packed));
}

/* lane_pop: the first entry leaves. Memory is given back when the lane runs empty, and moved together when
 * half of it is behind. */
static void lane_pop(struct queue_lane *l, size_t n) {
    l->at += n;
    if (l->at == l->fifo.len) {
        l->at = l->fifo.len = 0;
        if (l->fifo.cap > KEPT_BYTES)
            buf_fini(&l->fifo);
    } else if (l->at >= KEPT_BYTES && l->at >= l->fifo.len / 2) {
        buf_drop(&l->fifo, l->at);
        l->at = 0;
    }
}

static size_t fill_lane(struct queue *q, struct buf *out, enum link_lane lane) {
    struct queue_lane *l = &q->lanes[lane];
    size_t n_frames = 0;
    while (lane_bytes(l) > 0 && out->len < QUEUE_WRITE_BYTES) {
        const uint8_t *entry = (const uint8_t *)l->fifo.data + l->at;
        size_t n = wire_get_u32(entry);
        fill_body(q, out, lane, entry + WIRE_LENGTH_BYTES, n);
        lane_pop(l, WIRE_LENGTH_BYTES + n);
        n_frames++;
    }
    return n_frames;
}

size_t queue_fill(struct queue *q, struct buf *out, uint64_t now_ns) {
    size_t n_frames = fill_lane(q, out, LINK_CONTROL);
    if (q->pong_due) {
        Weir__Pong pong = WEIR__PONG__INIT;
        pong.has_sent_ns = true;
        pong.sent_ns = q->pong_sent_ns;
        fill_made(q, out, WEIR__ENVELOPE__BODY_PONG, &pong);
        q->pong_due = false;
        n_frames++;
    }
    if (q->ping_due) {
        Weir__Ping ping = WEIR__PING__INIT;
        ping.has_sent_ns = true;
        ping.sent_ns = now_ns;
        fill_made(q, out, WEIR__ENVELOPE__BODY_PING, &ping);
        q->ping_due = false;
        n_frames++;
    }
    return n_frames + fill_lane(q, out, LINK_DATA);
}
