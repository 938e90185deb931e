/* fuzz_wire: bytes from a peer into the receiver of the link, without sockets.
 *
 * The first byte chooses: bit 0: the peer already said hello; bit 1: the rest are packed bodies, each behind
 * a 2-byte length, which get a right frame, lane and seq (so that mutations reach the messages); bit 2:
 * tensors are refused; the high bits: how many bytes come at a time. Invariants: what is delivered is within
 * the limits, nothing comes before the hello or after an error. */
#include <stdlib.h>

#include "common/link/rx.h"
#include "common/link/wire.h"

enum { MESSAGE_BYTES_MAX = 1 << 20 };
static const struct str secret = {"token", 5};

struct owner {
    bool up, over, ended;
    uint64_t n_messages;
};

static void answer(void *arg, const uint8_t *proof) {
    struct owner *o = arg;
    CHECK(!o->up && !o->over && proof);
}

static enum rc up(void *arg, const struct hello_side *peer, struct err *e) {
    struct owner *o = arg;
    CHECK(!o->up && !o->over && peer->role == WEIR__ROLE__ROUTER);
    o->up = true;
    return peer->epoch == 13 ? err_set(e, RC_PROTO, NULL, "stale") : RC_OK;
}

static void message(void *arg, const Weir__Envelope *m) {
    struct owner *o = arg;
    CHECK(o->up && !o->over && !o->ended);
    CHECK(weir__envelope__get_packed_size(m) <= 2 * MESSAGE_BYTES_MAX + 64);
    o->ended = m->body_case == WEIR__ENVELOPE__BODY_DRAIN; /* as if the user cut it in its callback */
    o->n_messages++;
}

static void ping(void *arg, uint64_t sent_ns) {
    struct owner *o = arg;
    (void)sent_ns;
    CHECK(o->up && !o->over);
}

static void tensor(void *arg, uint8_t *data, size_t n, const uint8_t digest[32]) {
    struct owner *o = arg;
    (void)digest;
    CHECK(o->up && !o->over && n <= MESSAGE_BYTES_MAX);
    free(data);
}

static bool ended(void *arg) {
    struct owner *o = arg;
    return o->ended;
}

/* greet: the two hellos of a peer that knows the token. */
static void greet(const struct rx *r, struct buf *out, uint64_t epoch) {
    struct hello_side peer = {.id = {{1}}, .epoch = epoch, .role = WEIR__ROLE__ROUTER, .nonce = {2}};
    uint8_t proof[HELLO_PROOF_BYTES];
    hello_proof(secret, &peer, &r->self, proof);
    for (uint64_t seq = 1; seq <= 2; seq++) {
        Weir__Hello h = WEIR__HELLO__INIT;
        Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_HELLO, &h);
        if (seq == 1) {
            h.has_protocol = h.has_role = h.has_nonce = m.has_sender = m.has_epoch = true;
            h.protocol = LINK_PROTOCOL;
            h.role = peer.role;
            h.nonce = (ProtobufCBinaryData){sizeof peer.nonce, peer.nonce};
            m.sender = (ProtobufCBinaryData){sizeof peer.id.b, peer.id.b};
            m.epoch = peer.epoch;
        } else {
            h.has_secret_proof = true;
            h.secret_proof = (ProtobufCBinaryData){sizeof proof, proof};
        }
        struct buf body = {0};
        wire_add_body(&body, &m);
        wire_add_frame(out, LINK_CONTROL, seq, body.data, body.len);
        buf_fini(&body);
    }
}

/* frame_bodies: the bodies that the input spells, in frames. The top bit of a length is the lane. */
static void frame_bodies(const uint8_t *p, size_t n, bool greeted, struct buf *out) {
    uint64_t seq[2] = {greeted ? 2 : 0, 0};
    while (n >= 2) {
        enum link_lane lane = p[1] >> 7;
        size_t len = MIN((size_t)(p[0] | (p[1] & 0x7F) << 8), n - 2);
        wire_add_frame(out, lane, ++seq[lane], p + 2, len);
        p += 2 + len;
        n -= 2 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1)
        return 0;
    uint8_t mode = data[0];
    size_t step = mode >> 4 ? (size_t)1 << (mode >> 4) : 1;
    struct owner o = {0};
    struct rx_events ev = {.arg = &o,
                           .answer = answer,
                           .up = up,
                           .message = message,
                           .ping = ping,
                           .tensor = tensor,
                           .ended = ended};
    struct hello_side self = {.id = {{9}}, .epoch = 5, .role = WEIR__ROLE__WORKER, .nonce = {7}};
    struct rx r;
    struct err e = {0};
    struct buf in = {0};
    if (mode & 4)
        ev.tensor = NULL;
    rx_init(&r, &ev, &self, secret, MESSAGE_BYTES_MAX);
    if (mode & 1)
        greet(&r, &in, n % 16);
    if (mode & 2)
        frame_bodies(data + 1, n - 1, mode & 1, &in);
    else
        buf_add(&in, data + 1, n - 1);
    enum rc rc = RC_OK;
    uint64_t now_ns = 1;
    for (size_t at = 0; at < in.len && rc == RC_OK; now_ns += NS_PER_S) {
        size_t room;
        uint8_t *to = frame_rx_room(&r.frames, &room);
        size_t take = MIN(MIN(step, room), in.len - at);
        memcpy(to, in.data + at, take);
        at += take;
        frame_rx_added(&r.frames, take);
        rc = rx_run(&r, now_ns, &e);
        CHECK(rc == RC_OK || rc == RC_CLOSED || (rc == RC_PROTO && e.msg[0]));
    }
    o.over = true;
    rx_fini(&r);
    buf_fini(&in);
    return 0;
}
