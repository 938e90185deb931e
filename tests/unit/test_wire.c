/* The link without sockets: frames, queues, parts, hellos and the receiver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <stdlib.h>

#include "common/link/queue.h"
#include "common/link/rx.h"
#include "common/link/wire.h"

/* ---- frames ------------------------------------------------------------------------------------------ */

static void feed(struct frame_rx *f, const void *p, size_t n) {
    size_t room;
    uint8_t *to = frame_rx_room(f, &room);
    assert_true(n <= room);
    memcpy(to, p, n);
    frame_rx_added(f, n);
}

static void test_frame_lengths(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 4097, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct frame_rx f;
        struct str frame;
        struct err e;
        uint8_t length[4];
        frame_rx_init(&f, 4096);
        wire_put_u32(length, bad[i]);
        feed(&f, length, 3);
        assert_int_equal(frame_rx_next(&f, &frame, &e), RC_AGAIN);
        feed(&f, length + 3, 1);
        assert_int_equal(frame_rx_next(&f, &frame, &e), RC_PROTO);
        assert_true(f.cap <= 4096); /* refused before memory was taken for it */
        frame_rx_fini(&f);
    }
}

/* Frames of many sizes come out whole whatever the sizes of the pieces they came in. */
static void test_frame_pieces(void **state) {
    (void)state;
    for (size_t piece = 1; piece < 200000; piece = piece * 7 + 1) {
        struct frame_rx f;
        struct buf all = {0};
        struct err e;
        size_t sizes[] = {1, 2, 5000, 3, LINK_FRAME_BYTES_MAX, 70000, 1}, next = 0;
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            uint8_t length[4];
            wire_put_u32(length, (uint32_t)sizes[i]);
            buf_add(&all, length, 4);
            memset(buf_reserve(&all, sizes[i]), (int)i + 1, sizes[i]);
            all.len += sizes[i];
        }
        frame_rx_init(&f, 4096);
        frame_rx_raise(&f, LINK_FRAME_BYTES_MAX);
        for (size_t at = 0; at < all.len;) {
            size_t room;
            uint8_t *to = frame_rx_room(&f, &room);
            size_t n = MIN(MIN(piece, room), all.len - at);
            memcpy(to, all.data + at, n);
            frame_rx_added(&f, n);
            at += n;
            struct str frame;
            while (frame_rx_next(&f, &frame, &e) == RC_OK) {
                assert_int_equal(frame.n, sizes[next]);
                for (size_t k = 0; k < frame.n; k += 997)
                    assert_int_equal(frame.p[k], (int)next + 1);
                next++;
            }
        }
        assert_int_equal(next, ARRAY_LEN(sizes));
        assert_true(f.cap < 2 * LINK_FRAME_BYTES_MAX);
        frame_rx_fini(&f);
        buf_fini(&all);
    }
}

/* ---- unpacking --------------------------------------------------------------------------------------- */

static void test_unpack_bounds(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a);
    /* Two bytes of empty message each: 100,000 PoolOutputs would take 15 MB. */
    struct buf inner = {0}, outer = {0};
    for (int i = 0; i < 100000; i++)
        buf_add(&inner, "\x0A\x00", 2);
    buf_add(&outer, "\xD2\x01", 2); /* field 26, pool_outputs */
    size_t n = inner.len;
    for (; n >= 0x80; n >>= 7)
        buf_addc(&outer, (char)(n | 0x80));
    buf_addc(&outer, (char)n);
    buf_add_str(&outer, buf_str(&inner));
    assert_null(wire_unpack(&a, outer.data, outer.len));
    assert_true(a.used_bytes < 40 * outer.len);
    arena_fini(&a);

    /* Duplicates of a field merge; that must not be quadratic either. */
    buf_fini(&inner);
    outer.len = 0;
    buf_add(&outer, "\x62\x06\x22\x04\x01\x02\x03\x04", 8); /* submit { tokens } */
    for (int i = 0; i < 50000; i++)
        buf_add(&outer, "\x62\x03\x22\x01\x05", 5);
    (void)wire_unpack(&a, outer.data, outer.len);
    assert_true(a.used_bytes <= 64 * KIB + 33 * outer.len);
    arena_fini(&a);
    buf_fini(&outer);

    /* Text must be UTF-8, at any depth. */
    Weir__Fault f = WEIR__FAULT__INIT;
    char bad[] = "a\xFF";
    f.message = bad;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_FAULT, &f);
    wire_add_body(&outer, &m);
    assert_null(wire_unpack(&a, outer.data, outer.len));
    outer.len = 0;
    bad[1] = 'b';
    wire_add_body(&outer, &m);
    assert_non_null(wire_unpack(&a, outer.data, outer.len));
    outer.len = 0;
    char *names[] = {"ok", "\xC3"};
    Weir__Asset asset = WEIR__ASSET__INIT, *assets[] = {&asset};
    Weir__WorkerInfo w = WEIR__WORKER_INFO__INIT;
    w.served_names = names;
    w.n_served_names = 2;
    m = wire_envelope(WEIR__ENVELOPE__BODY_WORKER_INFO, &w);
    wire_add_body(&outer, &m);
    assert_null(wire_unpack(&a, outer.data, outer.len));
    outer.len = 0;
    w.n_served_names = 1;
    asset.name = names[1];
    w.assets = assets;
    w.n_assets = 1;
    wire_add_body(&outer, &m);
    assert_null(wire_unpack(&a, outer.data, outer.len));
    buf_fini(&outer);
    arena_fini(&a);
}

/* ---- parts ------------------------------------------------------------------------------------------- */

static enum rc add_part(struct parts *p, uint64_t blob, Weir__BlobPart__Kind kind, uint64_t total,
                        uint64_t offset, const char *z, uint64_t now_ns, struct part_done *done,
                        bool *complete) {
    Weir__BlobPart part = WEIR__BLOB_PART__INIT;
    part.has_blob = part.has_kind = part.has_total_bytes = part.has_offset = part.has_data = true;
    part.blob = blob;
    part.kind = kind;
    part.total_bytes = total;
    part.offset = offset;
    part.data = (ProtobufCBinaryData){strlen(z), (uint8_t *)(uintptr_t)z};
    return parts_add(p, &part, now_ns, done, complete, NULL);
}
#define ENV WEIR__BLOB_PART__KIND__ENVELOPE

static void test_parts(void **state) {
    (void)state;
    struct parts p;
    struct part_done d;
    bool c;
    parts_init(&p, 100);
    assert_int_equal(add_part(&p, 1, ENV, 6, 0, "abc", 0, &d, &c), RC_OK);
    assert_int_equal(add_part(&p, 2, ENV, 2, 0, "x", 0, &d, &c), RC_OK); /* interleaved */
    assert_false(c);
    assert_int_equal(add_part(&p, 2, ENV, 2, 1, "y", 0, &d, &c), RC_OK);
    assert_true(c);
    assert_string_equal(buf_cstr(&d.data), "xy");
    buf_fini(&d.data);
    assert_int_equal(add_part(&p, 1, ENV, 6, 3, "def", 0, &d, &c), RC_OK);
    assert_true(c);
    assert_string_equal(buf_cstr(&d.data), "abcdef");
    buf_fini(&d.data);
    assert_int_equal(p.n_open, 0);
    assert_true(p.announced_bytes == 0);

    assert_int_equal(add_part(&p, 3, ENV, 6, 3, "def", 0, &d, &c), RC_PROTO); /* not begun */
    assert_int_equal(add_part(&p, 3, ENV, 101, 0, "a", 0, &d, &c), RC_PROTO); /* above the limit */
    assert_int_equal(add_part(&p, 3, ENV, UINT64_MAX, 0, "a", 0, &d, &c), RC_PROTO);
    assert_int_equal(add_part(&p, 3, (Weir__BlobPart__Kind)9, 3, 0, "a", 0, &d, &c), RC_PROTO);
    assert_int_equal(add_part(&p, 3, ENV, 3, 0, "abcd", 0, &d, &c), RC_PROTO); /* more than announced */
    parts_fini(&p);
    static const struct {
        uint64_t total, offset;
        const char *z;
    } bad[] = {{6, 0, "abc"},  {6, 2, "c"}, {6, 4, "e"},         {7, 3, "d"},
               {6, 3, "defg"}, {6, 3, ""},  {6, UINT64_MAX, "d"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(add_part(&p, 1, ENV, 6, 0, "abc", 0, &d, &c), RC_OK);
        assert_int_equal(add_part(&p, 1, ENV, bad[i].total, bad[i].offset, bad[i].z, 0, &d, &c), RC_PROTO);
        parts_fini(&p);
    }

    /* Bounded in number and in announced bytes, and in time. */
    for (uint64_t i = 0; i < PART_OPEN_MAX; i++)
        assert_int_equal(add_part(&p, i, ENV, 20, 0, "a", 5 * NS_PER_S, &d, &c), RC_OK);
    assert_int_equal(add_part(&p, 99, ENV, 20, 0, "a", 0, &d, &c), RC_PROTO);
    assert_int_equal(parts_check(&p, 34 * NS_PER_S, NULL), RC_OK);
    assert_int_equal(add_part(&p, 7, ENV, 20, 1, "b", 30 * NS_PER_S, &d, &c), RC_OK);
    assert_int_equal(parts_check(&p, 36 * NS_PER_S, NULL), RC_PROTO);
    parts_fini(&p);
    for (uint64_t i = 0; i < 2; i++)
        assert_int_equal(add_part(&p, i, ENV, 100, 0, "a", 0, &d, &c), RC_OK);
    assert_int_equal(add_part(&p, 99, ENV, 1, 0, "a", 0, &d, &c), RC_PROTO);
    parts_fini(&p);
}

/* ---- the receiver ------------------------------------------------------------------------------------ */

struct peer {
    struct rx rx;
    struct rx_events ev;
    struct queue q;
    struct hello_side self;
    uint8_t proof[HELLO_PROOF_BYTES];
    bool answered, has_proof, up, refuse, ended;
    int n_messages, n_pings, n_tensors;
    uint64_t last_id;
    struct err e;
};

static void ev_answer(void *arg, const uint8_t *proof) {
    struct peer *p = arg;
    p->answered = true;
    p->has_proof = proof != NULL;
    if (proof)
        memcpy(p->proof, proof, sizeof p->proof);
}
static enum rc ev_up(void *arg, const struct hello_side *peer, struct err *e) {
    struct peer *p = arg;
    (void)peer;
    p->up = true;
    return p->refuse ? err_set(e, RC_PROTO, NULL, "stale") : RC_OK;
}
static void ev_message(void *arg, const Weir__Envelope *m) {
    struct peer *p = arg;
    p->n_messages++;
    if (m->body_case == WEIR__ENVELOPE__BODY_CONTROL)
        p->last_id = m->control->id;
    p->ended = m->body_case == WEIR__ENVELOPE__BODY_DRAIN;
}
static void ev_ping(void *arg, uint64_t sent_ns) {
    struct peer *p = arg;
    p->n_pings += sent_ns == 77;
}
static void ev_tensor(void *arg, uint8_t *data, size_t n, const uint8_t digest[32]) {
    struct peer *p = arg;
    (void)n;
    (void)digest;
    p->n_tensors++;
    free(data);
}
static bool ev_ended(void *arg) {
    struct peer *p = arg;
    return p->ended;
}

static void peer_open(struct peer *p, Weir__Role role, const char *secret) {
    *p = (struct peer){.self = {.role = role, .epoch = 100}};
    p->ev = (struct rx_events){p, ev_answer, ev_up, ev_message, ev_ping, ev_tensor, ev_ended};
    fill_random(p->self.id.b, sizeof p->self.id.b);
    fill_random(p->self.nonce, sizeof p->self.nonce);
    rx_init(&p->rx, &p->ev, &p->self, str_of(secret), 1 << 20);
    queue_init(&p->q, 1 << 20);
}

static void peer_close(struct peer *p) {
    rx_fini(&p->rx);
    queue_fini(&p->q);
}

static void say_hello(struct peer *p, uint32_t protocol, bool second, bool with_proof) {
    Weir__Hello h = WEIR__HELLO__INIT;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_HELLO, &h);
    if (!second) {
        h.has_protocol = h.has_role = h.has_nonce = m.has_sender = m.has_epoch = true;
        h.protocol = protocol;
        h.version = "9\n9";
        h.role = p->self.role;
        h.nonce = (ProtobufCBinaryData){sizeof p->self.nonce, p->self.nonce};
        m.sender = (ProtobufCBinaryData){sizeof p->self.id.b, p->self.id.b};
        m.epoch = p->self.epoch;
    } else if (with_proof) {
        h.has_secret_proof = true;
        h.secret_proof = (ProtobufCBinaryData){sizeof p->proof, p->proof};
    }
    queue_add(&p->q, LINK_CONTROL, &m);
}

/* deliver: what `from` has queued, to `to`. */
static enum rc deliver_bytes(struct peer *to, const void *data, size_t n) {
    enum rc rc = RC_OK;
    for (size_t at = 0; at < n && rc == RC_OK;) {
        size_t room;
        uint8_t *p = frame_rx_room(&to->rx.frames, &room);
        size_t take = MIN(room, n - at);
        memcpy(p, (const char *)data + at, take);
        frame_rx_added(&to->rx.frames, take);
        at += take;
        rc = rx_run(&to->rx, 1, &to->e);
    }
    return rc;
}

static enum rc deliver(struct peer *from, struct peer *to) {
    struct buf out = {0};
    enum rc rc = RC_OK;
    while (!queue_empty(&from->q) && rc == RC_OK) {
        out.len = 0;
        assert_true(queue_fill(&from->q, &out, 77) > 0);
        rc = deliver_bytes(to, out.data, out.len);
    }
    buf_fini(&out);
    return rc;
}

static void control(struct peer *p, uint64_t id) {
    Weir__Control c = WEIR__CONTROL__INIT;
    c.has_id = true;
    c.id = id;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_CONTROL, &c);
    queue_add(&p->q, LINK_CONTROL, &m);
}

static void both_up(struct peer *a, struct peer *b) {
    peer_open(a, WEIR__ROLE__ROUTER, "t");
    peer_open(b, WEIR__ROLE__WORKER, "t");
    say_hello(a, LINK_PROTOCOL, false, false);
    say_hello(b, LINK_PROTOCOL, false, false);
    assert_int_equal(deliver(a, b), RC_OK);
    assert_int_equal(deliver(b, a), RC_OK);
    assert_true(a->answered && b->answered && !a->up && !b->up);
    say_hello(a, LINK_PROTOCOL, true, true);
    say_hello(b, LINK_PROTOCOL, true, true);
    assert_int_equal(deliver(a, b), RC_OK);
    assert_int_equal(deliver(b, a), RC_OK);
    assert_true(a->up && b->up);
    assert_string_equal(a->rx.peer.version, "9?9");
}

static void test_conversation(void **state) {
    (void)state;
    struct peer a, b;
    both_up(&a, &b);
    control(&a, 5);
    a.q.ping_due = true;
    assert_int_equal(deliver(&a, &b), RC_OK);
    assert_int_equal(b.n_messages, 1);
    assert_int_equal(b.last_id, 5);
    assert_int_equal(b.n_pings, 1);
    uint8_t data[300000] = {1}, digest[32];
    SHA256(data, sizeof data, digest);
    queue_add_blob(&a.q, LINK_DATA, WEIR__BLOB_PART__KIND__TENSOR, data, sizeof data, digest);
    assert_int_equal(deliver(&a, &b), RC_OK);
    assert_int_equal(b.n_tensors, 1);
    digest[0] ^= 1;
    queue_add_blob(&a.q, LINK_DATA, WEIR__BLOB_PART__KIND__TENSOR, data, sizeof data, digest);
    assert_int_equal(deliver(&a, &b), RC_PROTO);
    assert_non_null(strstr(b.e.msg, "digest"));
    peer_close(&a);
    peer_close(&b);
}

static void test_hello_refusals(void **state) {
    (void)state;
    static const struct {
        uint32_t protocol;
        Weir__Role role;
        const char *want;
    } cases[] = {{LINK_PROTOCOL + 1, WEIR__ROLE__ROUTER, "protocol 2 of weir 9?9"},
                 {LINK_PROTOCOL, WEIR__ROLE__WORKER, "a worker cannot talk to a worker"},
                 {LINK_PROTOCOL, (Weir__Role)3, "unknown"}};
    struct peer a, b;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        peer_open(&a, cases[i].role, "");
        peer_open(&b, WEIR__ROLE__WORKER, "");
        say_hello(&a, cases[i].protocol, false, false);
        assert_int_equal(deliver(&a, &b), RC_PROTO);
        if (!strstr(b.e.msg, cases[i].want))
            fail_msg("%s", b.e.msg);
        assert_false(b.answered);
        peer_close(&a);
        peer_close(&b);
    }
    /* A message instead of a hello, and between the two. */
    for (int n_hellos = 0; n_hellos < 2; n_hellos++) {
        peer_open(&a, WEIR__ROLE__ROUTER, "");
        peer_open(&b, WEIR__ROLE__WORKER, "");
        if (n_hellos)
            say_hello(&a, LINK_PROTOCOL, false, false);
        control(&a, 1);
        assert_int_equal(deliver(&a, &b), RC_PROTO);
        assert_int_equal(b.n_messages, 0);
        peer_close(&a);
        peer_close(&b);
    }
    /* Our own hello sent back, and the peer's words of refusal. */
    peer_open(&a, WEIR__ROLE__ROUTER, "");
    peer_open(&b, WEIR__ROLE__WORKER, "");
    memcpy(a.self.nonce, b.self.nonce, sizeof a.self.nonce);
    say_hello(&a, LINK_PROTOCOL, false, false);
    assert_int_equal(deliver(&a, &b), RC_PROTO);
    assert_non_null(strstr(b.e.msg, "our own nonce"));
    peer_close(&b);
    peer_open(&b, WEIR__ROLE__WORKER, "");
    Weir__Fault f = WEIR__FAULT__INIT;
    f.message = "too\nold";
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_FAULT, &f);
    queue_fini(&a.q);
    queue_init(&a.q, 1 << 20);
    queue_add(&a.q, LINK_CONTROL, &m);
    assert_int_equal(deliver(&a, &b), RC_CLOSED);
    assert_string_equal(b.e.msg, "the peer refused: too?old");
    peer_close(&a);
    peer_close(&b);
}

static void test_proofs(void **state) {
    (void)state;
    struct peer a, b;
    for (int tamper = 0; tamper < 6; tamper++) {
        peer_open(&a, WEIR__ROLE__ROUTER, "token");
        peer_open(&b, WEIR__ROLE__WORKER, "token");
        say_hello(&a, LINK_PROTOCOL, false, false);
        say_hello(&b, LINK_PROTOCOL, false, false);
        assert_int_equal(deliver(&a, &b), RC_OK);
        assert_int_equal(deliver(&b, &a), RC_OK);
        assert_true(a.has_proof && b.has_proof);
        if (tamper == 1)
            a.proof[31] ^= 1;
        else if (tamper == 2)
            memcpy(a.proof, b.proof, sizeof a.proof); /* reflected */
        else if (tamper == 3)
            memset(a.proof, 0, sizeof a.proof);
        else if (tamper == 4)
            hello_proof(STR_LIT("Token"), &a.self, &b.self, a.proof);
        say_hello(&a, LINK_PROTOCOL, true, tamper != 5);
        assert_int_equal(deliver(&a, &b), tamper ? RC_PROTO : RC_OK);
        assert_int_equal(b.up, tamper == 0);
        if (tamper)
            assert_non_null(strstr(b.e.msg, "cluster token"));
        peer_close(&a);
        peer_close(&b);
    }
    /* One side alone has a token: both say so. */
    peer_open(&a, WEIR__ROLE__ROUTER, "token");
    peer_open(&b, WEIR__ROLE__WORKER, "");
    say_hello(&a, LINK_PROTOCOL, false, false);
    say_hello(&b, LINK_PROTOCOL, false, false);
    assert_int_equal(deliver(&a, &b), RC_OK);
    assert_int_equal(deliver(&b, &a), RC_OK);
    say_hello(&a, LINK_PROTOCOL, true, true);
    say_hello(&b, LINK_PROTOCOL, true, false);
    assert_int_equal(deliver(&a, &b), RC_PROTO);
    assert_int_equal(deliver(&b, &a), RC_PROTO);
    assert_non_null(strstr(b.e.msg, "cluster token"));
    assert_false(a.up || b.up);
    peer_close(&a);
    peer_close(&b);
}

/* send_raw: an envelope as a peer might make it, with any head. */
static enum rc send_raw(struct peer *to, Weir__Envelope *m) {
    struct buf b = {0};
    uint8_t length[4];
    wire_put_u32(length, (uint32_t)weir__envelope__get_packed_size(m));
    buf_add(&b, length, 4);
    wire_add_body(&b, m);
    enum rc rc = deliver_bytes(to, b.data, b.len);
    buf_fini(&b);
    return rc;
}

static void test_heads(void **state) {
    (void)state;
    static const struct {
        bool has_seq, has_lane, other_sender, other_epoch;
        uint64_t seq;
        uint32_t lane;
        enum rc want;
    } cases[] = {
        {true, false, false, false, 3, 0, RC_OK},     {true, true, false, false, 1, 1, RC_OK},
        {true, false, false, false, 2, 0, RC_PROTO}, /* again */
        {true, false, false, false, 4, 0, RC_PROTO}, /* a gap */
        {true, false, false, false, 0, 0, RC_PROTO},  {true, true, false, false, 3, 1, RC_PROTO},
        {false, false, false, false, 0, 0, RC_PROTO}, {true, true, false, false, 1, 2, RC_PROTO},
        {true, false, true, false, 3, 0, RC_PROTO},   {true, false, false, true, 3, 0, RC_PROTO},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct peer a, b;
        both_up(&a, &b);
        Weir__Abort body = WEIR__ABORT__INIT;
        Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_ABORT, &body);
        uint8_t other[16] = {0};
        m.has_seq = cases[i].has_seq;
        m.seq = cases[i].seq;
        m.has_lane = cases[i].has_lane;
        m.lane = cases[i].lane;
        m.has_sender = cases[i].other_sender;
        m.sender = (ProtobufCBinaryData){sizeof other, other};
        m.has_epoch = cases[i].other_epoch;
        m.epoch = 99;
        assert_int_equal(send_raw(&b, &m), cases[i].want);
        assert_int_equal(b.n_messages, cases[i].want == RC_OK);
        peer_close(&a);
        peer_close(&b);
    }
}

static void test_after_up(void **state) {
    (void)state;
    struct peer a, b;
    /* A third hello. */
    both_up(&a, &b);
    say_hello(&a, LINK_PROTOCOL, false, false);
    assert_int_equal(deliver(&a, &b), RC_PROTO);
    peer_close(&a);
    peer_close(&b);
    /* A body of a later version is passed over. */
    both_up(&a, &b);
    Weir__Envelope m = WEIR__ENVELOPE__INIT;
    m.has_seq = true;
    m.seq = 3;
    assert_int_equal(send_raw(&b, &m), RC_OK);
    assert_int_equal(b.n_messages, 0);
    /* A hello wrapped in parts. */
    Weir__Hello h = WEIR__HELLO__INIT;
    Weir__Envelope wrapped = wire_envelope(WEIR__ENVELOPE__BODY_HELLO, &h);
    struct buf packed = {0};
    wire_add_body(&packed, &wrapped);
    queue_add_blob(&a.q, LINK_DATA, ENV, packed.data, packed.len, NULL);
    assert_int_equal(deliver(&a, &b), RC_PROTO);
    buf_fini(&packed);
    peer_close(&a);
    peer_close(&b);
    /* What the owner ended in a callback delivers nothing more, though it was in the same read. */
    both_up(&a, &b);
    Weir__Drain d = WEIR__DRAIN__INIT;
    m = wire_envelope(WEIR__ENVELOPE__BODY_DRAIN, &d);
    queue_add(&a.q, LINK_CONTROL, &m);
    control(&a, 1);
    assert_int_equal(deliver(&a, &b), RC_CLOSED);
    assert_int_equal(b.n_messages, 1);
    peer_close(&a);
    peer_close(&b);
    /* A fatal fault is delivered, then ends it. */
    both_up(&a, &b);
    Weir__Fault f = WEIR__FAULT__INIT;
    f.message = "going";
    f.has_fatal = f.fatal = true;
    m = wire_envelope(WEIR__ENVELOPE__BODY_FAULT, &f);
    queue_add(&a.q, LINK_CONTROL, &m);
    assert_int_equal(deliver(&a, &b), RC_CLOSED);
    assert_int_equal(b.n_messages, 1);
    assert_string_equal(b.e.msg, "the peer refused: going");
    peer_close(&a);
    peer_close(&b);
    /* Tensors where none are taken. */
    both_up(&a, &b);
    b.ev.tensor = NULL;
    queue_add_blob(&a.q, LINK_DATA, WEIR__BLOB_PART__KIND__TENSOR, "x", 1, (uint8_t[32]){0});
    assert_int_equal(deliver(&a, &b), RC_PROTO);
    peer_close(&a);
    peer_close(&b);
}

/* ---- queues and epochs ------------------------------------------------------------------------------- */

static void test_queue(void **state) {
    (void)state;
    struct queue q;
    struct buf out = {0};
    queue_init(&q, 1000);
    assert_true(queue_empty(&q));
    assert_true(queue_admits(&q, LINK_DATA, 5000)); /* an empty lane takes anything */
    uint8_t data[600] = {0};
    queue_add_blob(&q, LINK_DATA, ENV, data, sizeof data, NULL);
    assert_true(queue_admits(&q, LINK_DATA, 300));
    assert_false(queue_admits(&q, LINK_DATA, 500));
    assert_false(queue_admits(&q, LINK_DATA, SIZE_MAX));
    assert_true(queue_admits(&q, LINK_CONTROL, 500));
    q.ping_due = q.pong_due = true;
    assert_int_equal(queue_fill(&q, &out, 1), 3);
    assert_true(queue_empty(&q));
    assert_true(q.lanes[LINK_CONTROL].seq == 2 && q.lanes[LINK_DATA].seq == 1);
    buf_fini(&out);
    queue_fini(&q);
}

static void test_epochs(void **state) {
    (void)state;
    struct hello_epochs t;
    struct id128 a = {{1}}, id = {{2}};
    hello_epochs_init(&t);
    assert_true(hello_epochs_admit(&t, a, 10));
    assert_true(hello_epochs_admit(&t, a, 10));
    assert_true(hello_epochs_admit(&t, a, 11));
    assert_false(hello_epochs_admit(&t, a, 10));
    assert_true(hello_epochs_admit(&t, id, 1));
    /* Bounded: others push out the one not seen for longest, which is `id`: a is seen again and again. */
    for (uint32_t i = 0; i < 2 * HELLO_EPOCHS_MAX; i++) {
        struct id128 other = {{3}};
        memcpy(other.b + 1, &i, sizeof i);
        assert_true(hello_epochs_admit(&t, other, 5));
        assert_true(hello_epochs_admit(&t, a, 11));
    }
    assert_int_equal(t.n, HELLO_EPOCHS_MAX);
    assert_false(hello_epochs_admit(&t, a, 10));
    assert_true(hello_epochs_admit(&t, id, 0));
    hello_epochs_fini(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_lengths), cmocka_unit_test(test_frame_pieces),
        cmocka_unit_test(test_unpack_bounds), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_conversation),  cmocka_unit_test(test_hello_refusals),
        cmocka_unit_test(test_proofs),        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_after_up),      cmocka_unit_test(test_queue),
        cmocka_unit_test(test_epochs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
