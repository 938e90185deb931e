#include "common/link/rx.h"

#include "common/link/wire.h"
#include "common/utf8.h"

void rx_init(struct rx *r, const struct rx_events *ev, const struct hello_side *self, struct str secret,
             size_t message_bytes_max) {
    *r = (struct rx){.ev = ev, .self = *self, .secret = secret};
    frame_rx_init(&r->frames, RX_HELLO_BYTES_MAX);
    parts_init(&r->parts, message_bytes_max);
}

void rx_fini(struct rx *r) {
    frame_rx_fini(&r->frames);
    parts_fini(&r->parts);
}

/* ---- before the peer is known ----------------------------------------------------------------------- */

/* refused: the peer's Fault, quoted: it may be text from a stranger. */
static enum rc refused(const Weir__Fault *f, struct err *e) {
    char why[200] = "";
    size_t n = f->message ? utf8_cut(f->message, strlen(f->message), sizeof why - 1) : 0;
    for (size_t i = 0; i < n; i++)
        why[i] = (unsigned char)f->message[i] >= ' ' && f->message[i] != 0x7F ? f->message[i] : '?';
    return err_set(e, RC_CLOSED, NULL, "the peer refused: %s", why);
}

static enum rc take_hello(struct rx *r, const Weir__Envelope *m, struct err *e) {
    enum rc rc;
    if (m->body_case == WEIR__ENVELOPE__BODY_FAULT)
        return refused(m->fault, e);
    if (r->state == RX_HELLO) {
        rc = hello_read(m, &r->self, &r->peer, e);
        if (rc)
            return rc;
        uint8_t proof[HELLO_PROOF_BYTES];
        if (r->secret.n)
            hello_proof(r->secret, &r->self, &r->peer, proof);
        r->state = RX_PROOF;
        r->ev->answer(r->ev->arg, r->secret.n ? proof : NULL);
        return RC_OK;
    }
    rc = hello_verify(m, r->secret, &r->peer, &r->self, e);
    if (rc)
        return rc;
    r->state = RX_UP;
    frame_rx_raise(&r->frames, LINK_FRAME_BYTES_MAX);
    return r->ev->up(r->ev->arg, &r->peer, e);
}

/* ---- messages --------------------------------------------------------------------------------------- */

static enum rc check_head(struct rx *r, const Weir__Envelope *m, struct err *e) {
    uint32_t lane = m->has_lane ? m->lane : LINK_CONTROL;
    if (lane > LINK_DATA)
        return err_set(e, RC_PROTO, NULL, "a message of lane %u", lane);
    if (!m->has_seq || m->seq != r->seq[lane] + 1)
        return err_set(e, RC_PROTO, NULL, "message %llu where %llu was due", (unsigned long long)m->seq,
                       (unsigned long long)(r->seq[lane] + 1));
    r->seq[lane]++;
    if (r->state != RX_HELLO) {
        if (m->has_sender &&
            (m->sender.len != sizeof r->peer.id.b || memcmp(m->sender.data, r->peer.id.b, m->sender.len)))
            return err_set(e, RC_PROTO, NULL, "a message of another sender");
        if (m->has_epoch && m->epoch != r->peer.epoch)
            return err_set(e, RC_PROTO, NULL, "a message of another epoch");
    }
    return RC_OK;
}

/* take_long: an Envelope that came in parts. It carries no seq of its own, and nothing of the link's. */
static enum rc take_long(struct rx *r, const struct buf *data, struct err *e) {
    struct arena a;
    enum rc rc = RC_OK;
    arena_init(&a);
    const Weir__Envelope *m = wire_unpack(&a, data->data, data->len);
    if (!m)
        rc = err_set(e, RC_PROTO, NULL, "a long message that cannot be read");
    else if (m->body_case == WEIR__ENVELOPE__BODY_HELLO || m->body_case == WEIR__ENVELOPE__BODY_BLOB_PART ||
             m->body_case == WEIR__ENVELOPE__BODY_PING || m->body_case == WEIR__ENVELOPE__BODY_PONG)
        rc = err_set(e, RC_PROTO, NULL, "a message that may not come in parts");
    else if (m->body_case != WEIR__ENVELOPE__BODY__NOT_SET)
        r->ev->message(r->ev->arg, m);
    arena_fini(&a);
    return rc;
}

static enum rc take_part(struct rx *r, const Weir__BlobPart *part, uint64_t now_ns, struct err *e) {
    struct part_done done;
    bool complete;
    if (part->kind == WEIR__BLOB_PART__KIND__TENSOR && !r->ev->tensor)
        return err_set(e, RC_PROTO, NULL, "a tensor where none is taken");
    enum rc rc = parts_add(&r->parts, part, now_ns, &done, &complete, e);
    if (rc || !complete)
        return rc;
    if (done.kind == WEIR__BLOB_PART__KIND__TENSOR) {
        size_t n = done.data.len;
        r->ev->tensor(r->ev->arg, (uint8_t *)buf_take(&done.data), n, done.digest);
        return RC_OK;
    }
    rc = take_long(r, &done.data, e);
    buf_fini(&done.data);
    return rc;
}

static enum rc take_body(struct rx *r, const Weir__Envelope *m, uint64_t now_ns, struct err *e) {
    switch (m->body_case) {
    case WEIR__ENVELOPE__BODY_HELLO:
        return err_set(e, RC_PROTO, NULL, "a third hello");
    case WEIR__ENVELOPE__BODY_PING:
        r->ev->ping(r->ev->arg, m->ping->sent_ns);
        return RC_OK;
    case WEIR__ENVELOPE__BODY_PONG:     /* that it came is all it says */
    case WEIR__ENVELOPE__BODY__NOT_SET: /* a body of a later version */
        return RC_OK;
    case WEIR__ENVELOPE__BODY_BLOB_PART:
        return take_part(r, m->blob_part, now_ns, e);
    case WEIR__ENVELOPE__BODY_FAULT:
        r->ev->message(r->ev->arg, m);
        return m->fault->fatal ? refused(m->fault, e) : RC_OK;
    default:
        r->ev->message(r->ev->arg, m);
        return RC_OK;
    }
}

static enum rc take_frame(struct rx *r, struct str frame, uint64_t now_ns, struct err *e) {
    struct arena a;
    arena_init(&a);
    const Weir__Envelope *m = wire_unpack(&a, frame.p, frame.n);
    enum rc rc = m ? check_head(r, m, e) : err_set(e, RC_PROTO, NULL, "a frame that cannot be read");
    if (!rc)
        rc = r->state == RX_UP ? take_body(r, m, now_ns, e) : take_hello(r, m, e);
    arena_fini(&a);
    return rc;
}

enum rc rx_run(struct rx *r, uint64_t now_ns, struct err *e) {
    for (;;) {
        struct str frame;
        if (r->ev->ended(r->ev->arg))
            return RC_CLOSED;
        enum rc rc = frame_rx_next(&r->frames, &frame, e);
        if (rc == RC_AGAIN)
            return parts_check(&r->parts, now_ns, e);
        if (!rc) {
            r->n_frames++;
            rc = take_frame(r, frame, now_ns, e);
        }
        if (rc)
            return rc;
    }
}
