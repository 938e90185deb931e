/* queue.h: private to common/link: what one connection has to send, in two lanes, bounded. No sockets; the
 * caller locks.
 *
 * Bodies are packed when queued, frames made when they leave: that is when seq is counted, and when a Ping or
 * Pong, of which at most one each ever waits, is made. Control goes first, so it overtakes data between
 * frames.
 */
#ifndef WEIR_COMMON_LINK_QUEUE_H
#define WEIR_COMMON_LINK_QUEUE_H

#include "common/buf.h"
#include "common/link/link.h"

struct queue_lane {
    struct buf fifo; /* entries: 4-byte length, packed body */
    size_t at;       /* start of the first entry */
    uint64_t seq;    /* of the latest frame that left */
};
struct queue {
    struct queue_lane lanes[2];
    size_t bytes_max;
    uint64_t last_blob;
    bool ping_due, pong_due;
    uint64_t pong_sent_ns;
};

void queue_init(struct queue *q, size_t bytes_max);
void queue_fini(struct queue *q);
size_t queue_bytes(const struct queue *q);
bool queue_empty(const struct queue *q);
/* queue_admits: whether a message of n bytes may be added. A lane that is empty takes a message of any size;
 * control has a little room of its own, so that an abort still fits behind a heap of data. */
bool queue_admits(const struct queue *q, enum link_lane lane, size_t n);
/* queue_add: a message whose packed size is at most WIRE_BODY_BYTES_MAX. */
void queue_add(struct queue *q, enum link_lane lane, const Weir__Envelope *m);
/* queue_add_blob: n bytes in parts. digest for TENSOR, else NULL. */
void queue_add_blob(struct queue *q, enum link_lane lane, Weir__BlobPart__Kind kind, const void *data,
                    size_t n, const uint8_t digest[32]);
/* queue_fill: appends the frames that leave next, about QUEUE_WRITE_BYTES of them; returns how many. */
enum { QUEUE_WRITE_BYTES = 64 * 1024 };
size_t queue_fill(struct queue *q, struct buf *out, uint64_t now_ns);

#endif
