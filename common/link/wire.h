/* wire.h: private to common/link: envelopes to bytes and back, with limits.
 *
 * A frame is a length and an Envelope. What is queued is an Envelope without seq and lane ("body"); these are
 * packed apart, when the frame leaves, and put in front: two encodings laid end to end are the encoding of
 * the merged message, so the queue can be ordered late without packing twice.
 */
#ifndef WEIR_COMMON_LINK_WIRE_H
#define WEIR_COMMON_LINK_WIRE_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/link/link.h"

enum {
    WIRE_LENGTH_BYTES = 4,
    WIRE_HEAD_BYTES_MAX = 16, /* seq (11) and lane (2) */
    WIRE_BODY_BYTES_MAX = LINK_FRAME_BYTES_MAX - WIRE_HEAD_BYTES_MAX,
};

/* wire_envelope: an Envelope that holds body. Checks that body is of the type that `which` names. */
Weir__Envelope wire_envelope(Weir__Envelope__BodyCase which, void *body);
/* wire_add_body: appends the packed Envelope; returns its length. */
size_t wire_add_body(struct buf *out, const Weir__Envelope *m);
/* wire_add_frame: appends length, seq, lane and a packed body of n bytes. */
void wire_add_frame(struct buf *out, enum link_lane lane, uint64_t seq, const void *body, size_t n);

/* wire_unpack: the Envelope in n bytes, its memory from a. NULL: it is none, a string in it is not UTF-8, or
 * it would take far more memory than its bytes justify (unpacking two bytes of empty message makes a
 * hundred). */
const Weir__Envelope *wire_unpack(struct arena *a, const void *p, size_t n);

static inline uint32_t wire_get_u32(const uint8_t p[4]) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline void wire_put_u32(uint8_t p[4], uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

#endif
