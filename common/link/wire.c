#include "common/link/wire.h"

#include "common/utf8.h"

/* ---- packing ---------------------------------------------------------------------------------------- */

Weir__Envelope wire_envelope(Weir__Envelope__BodyCase which, void *body) {
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(&weir__envelope__descriptor, (unsigned)which);
    CHECK(f && f->type == PROTOBUF_C_TYPE_MESSAGE && body);
    CHECK(((const ProtobufCMessage *)body)->descriptor == f->descriptor);
    Weir__Envelope m = WEIR__ENVELOPE__INIT;
    m.body_case = which;
    m.hello = body; /* any member of the union: all are pointers to messages */
    return m;
}

size_t wire_add_body(struct buf *out, const Weir__Envelope *m) {
    size_t n = weir__envelope__get_packed_size(m);
    uint8_t *p = (uint8_t *)buf_reserve(out, n);
    CHECK(weir__envelope__pack(m, p) == n);
    out->len += n;
    return n;
}

void wire_add_frame(struct buf *out, enum link_lane lane, uint64_t seq, const void *body, size_t n) {
    CHECK(n <= WIRE_BODY_BYTES_MAX);
    Weir__Envelope head = WEIR__ENVELOPE__INIT;
    head.has_seq = true;
    head.seq = seq;
    head.has_lane = lane != LINK_CONTROL;
    head.lane = lane;
    uint8_t *p = (uint8_t *)buf_reserve(out, WIRE_LENGTH_BYTES + WIRE_HEAD_BYTES_MAX + n);
    size_t n_head = weir__envelope__pack(&head, p + WIRE_LENGTH_BYTES);
    CHECK(n_head <= WIRE_HEAD_BYTES_MAX);
    memcpy(p + WIRE_LENGTH_BYTES + n_head, body, n);
    wire_put_u32(p, (uint32_t)(n_head + n));
    out->len += WIRE_LENGTH_BYTES + n_head + n;
}

/* ---- unpacking -------------------------------------------------------------------------------------- */

struct budget {
    struct arena *a;
    size_t left_bytes;
};

static void *budget_alloc(void *arg, size_t n) {
    struct budget *b = arg;
    size_t rounded = n + (16 - n % 16); /* what the arena takes, or a little more */
    if (n > b->left_bytes || rounded > b->left_bytes)
        return NULL; /* protobuf-c then gives the message up */
    b->left_bytes -= rounded;
    return arena_alloc(b->a, n);
}

static void budget_free(void *arg, void *p) {
    (void)arg;
    (void)p; /* the arena goes as a whole */
}

/* budget_of: small submessages cost up to about 15 times their bytes, packed numbers 4 times; the rest is a
 * margin that narrows for long messages, which are lists of numbers. */
static size_t budget_of(size_t n) {
    return 64 * KIB + MIN(32 * n, 64 * MIB + 6 * n);
}

static bool message_is_text(const ProtobufCMessage *m);

static bool member_is_text(const ProtobufCFieldDescriptor *f, const void *place) {
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        const char *z = *(const char *const *)place;
        return !z || z == f->default_value || utf8_valid(z, strlen(z));
    }
    const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)place;
    return !sub || message_is_text(sub);
}

/* message_is_text: protobuf-c does not check that strings are UTF-8. The depth is that of the schema, which
 * has no cycle. */
static bool message_is_text(const ProtobufCMessage *m) {
    const char *base = (const char *)m;
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        unsigned quantifier;
        memcpy(&quantifier, base + f->quantifier_offset, sizeof quantifier);
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && quantifier != f->id)
            continue;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            if (!member_is_text(f, base + f->offset))
                return false;
            continue;
        }
        size_t n;
        memcpy(&n, base + f->quantifier_offset, sizeof n);
        const void *const *items = *(const void *const *const *)(const void *)(base + f->offset);
        for (size_t k = 0; k < n; k++)
            if (!member_is_text(f, &items[k]))
                return false;
    }
    return true;
}

const Weir__Envelope *wire_unpack(struct arena *a, const void *p, size_t n) {
    struct budget b = {.a = a, .left_bytes = budget_of(n)};
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &b};
    const Weir__Envelope *m = weir__envelope__unpack(&allocator, n, p);
    return m && message_is_text(&m->base) ? m : NULL;
}
