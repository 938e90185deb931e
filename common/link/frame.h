/* frame.h: private to common/link: bytes of a stream into frames. No sockets, no protobuf. */
#ifndef WEIR_COMMON_LINK_FRAME_H
#define WEIR_COMMON_LINK_FRAME_H

#include "common/err.h"

struct frame_rx {
    uint8_t *data;
    size_t cap, at, end; /* [at, end) is not taken yet */
    size_t frame_bytes_max;
};

/* frame_rx_init: frames up to frame_bytes_max; the buffer starts small and grows only to what an admitted
 * length announces. */
void frame_rx_init(struct frame_rx *f, size_t frame_bytes_max);
void frame_rx_fini(struct frame_rx *f);
/* frame_rx_raise: a new limit; also makes room for many frames at a time. */
void frame_rx_raise(struct frame_rx *f, size_t frame_bytes_max);
/* frame_rx_room: where the next bytes go, *n > 0 of them; then frame_rx_added with how many came. */
uint8_t *frame_rx_room(struct frame_rx *f, size_t *n);
void frame_rx_added(struct frame_rx *f, size_t n);
/* frame_rx_next: RC_OK: *frame is the next frame's content, valid until frame_rx_room. RC_AGAIN: not whole
 * yet. RC_PROTO: a length of 0 or above the limit. */
MUST_USE enum rc frame_rx_next(struct frame_rx *f, struct str *frame, struct err *e);

#endif
