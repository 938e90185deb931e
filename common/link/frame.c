#include "common/link/frame.h"

#include <stdlib.h>

#include "common/link/wire.h"

enum { FRAME_ROOM_FIRST = 4096, FRAME_ROOM_RAISED = 64 * 1024, FRAME_ROOM_MIN = 1024 };

void frame_rx_init(struct frame_rx *f, size_t frame_bytes_max) {
    *f = (struct frame_rx){
        .data = xmalloc(FRAME_ROOM_FIRST), .cap = FRAME_ROOM_FIRST, .frame_bytes_max = frame_bytes_max};
}

void frame_rx_fini(struct frame_rx *f) {
    free(f->data);
    *f = (struct frame_rx){0};
}

static void grow(struct frame_rx *f, size_t cap) {
    if (cap <= f->cap)
        return;
    f->data = xrealloc(f->data, cap);
    f->cap = cap;
}

void frame_rx_raise(struct frame_rx *f, size_t frame_bytes_max) {
    f->frame_bytes_max = frame_bytes_max;
    grow(f, FRAME_ROOM_RAISED);
}

uint8_t *frame_rx_room(struct frame_rx *f, size_t *n) {
    size_t held = f->end - f->at, whole = 0;
    if (held >= WIRE_LENGTH_BYTES)
        whole = WIRE_LENGTH_BYTES + (size_t)wire_get_u32(f->data + f->at);
    CHECK(whole <= WIRE_LENGTH_BYTES + f->frame_bytes_max); /* frame_rx_next refused the rest */
    if (held == 0) {
        f->at = f->end = 0;
    } else if (f->at > 0 && (f->cap - f->end < FRAME_ROOM_MIN || f->cap - f->at < whole)) {
        memmove(f->data, f->data + f->at, held);
        f->at = 0;
        f->end = held;
    }
    grow(f, MAX(whole, held + FRAME_ROOM_MIN));
    *n = f->cap - f->end;
    return f->data + f->end;
}

void frame_rx_added(struct frame_rx *f, size_t n) {
    CHECK(n <= f->cap - f->end);
    f->end += n;
}

enum rc frame_rx_next(struct frame_rx *f, struct str *frame, struct err *e) {
    size_t held = f->end - f->at;
    if (held < WIRE_LENGTH_BYTES)
        return RC_AGAIN;
    size_t n = wire_get_u32(f->data + f->at);
    if (n == 0 || n > f->frame_bytes_max)
        return err_set(e, RC_PROTO, NULL, "a frame of %zu bytes (limit %zu)", n, f->frame_bytes_max);
    if (held - WIRE_LENGTH_BYTES < n)
        return RC_AGAIN;
    *frame = (struct str){(const char *)f->data + f->at + WIRE_LENGTH_BYTES, n};
    f->at += WIRE_LENGTH_BYTES + n;
    return RC_OK;
}
