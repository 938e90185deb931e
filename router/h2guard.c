#include "router/h2guard.h"

#include "common/clock.h"

enum { HEAD_BYTES = 9 };

/* RFC 9113, section 6. */
enum kind {
    KIND_DATA = 0,
    KIND_HEADERS,
    KIND_PRIORITY,
    KIND_RST_STREAM,
    KIND_SETTINGS,
    KIND_PUSH_PROMISE,
    KIND_PING,
    KIND_GOAWAY,
    KIND_WINDOW_UPDATE,
    KIND_CONTINUATION,
    N_KIND,
};
enum { FLAG_ACK = 1, FLAG_END_STREAM = 1, FLAG_END_HEADERS = 4 };

struct frame {
    size_t n; /* of the payload */
    unsigned kind, flags;
    const unsigned char *payload;
};

static struct frame frame_at(const char *p) {
    const unsigned char *b = (const unsigned char *)p;
    return (struct frame){.n = (size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2],
                          .kind = b[3],
                          .flags = b[4],
                          .payload = b + HEAD_BYTES};
}

bool h2guard_preface(const char *p, size_t n) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    _Static_assert(sizeof preface - 1 == H2GUARD_PREFACE_BYTES, "RFC 9113, 3.4");
    return n == 0 || memcmp(p, preface, MIN(n, sizeof preface - 1)) == 0;
}

static void turn_window(struct h2guard *g, uint64_t now_ns) {
    if (now_ns - g->from_ns < (uint64_t)H2GUARD_WINDOW_S * NS_PER_S)
        return;
    g->from_ns = now_ns;
    g->n_resets = g->n_early = g->n_answers = g->n_idle = 0;
}

/* is_reset: RST_STREAM; and a WINDOW_UPDATE by nothing, which makes the server reset the stream. */
static bool is_reset(const struct frame *f) {
    static const unsigned char zero[4];
    if (f->kind == KIND_RST_STREAM)
        return true;
    return f->kind == KIND_WINDOW_UPDATE && f->n == 4 && (f->payload[0] & 0x7f) == 0 &&
           memcmp(f->payload + 1, zero, 3) == 0;
}

static bool is_answered(const struct frame *f) {
    return (f->kind == KIND_PING || f->kind == KIND_SETTINGS) && !(f->flags & FLAG_ACK);
}

/* is_idle: says little for the work it makes. Window updates are not among these: honest clients send one for
 * every event that they read. */
static bool is_idle(const struct frame *f) {
    switch (f->kind) {
    case KIND_DATA:
        return f->n < H2GUARD_TINY_BYTES && !(f->flags & FLAG_END_STREAM);
    case KIND_HEADERS:
    case KIND_RST_STREAM:
    case KIND_WINDOW_UPDATE:
        return false;
    default:
        return true;
    }
}

static enum h2guard_fault count(struct h2guard *g, const struct frame *f) {
    if (is_reset(f) && ++g->n_resets > H2GUARD_RESETS_MAX)
        return H2GUARD_RESETS;
    if (is_answered(f) && ++g->n_answers > H2GUARD_ANSWERS_MAX)
        return H2GUARD_ANSWERS;
    if (is_idle(f) && ++g->n_idle > H2GUARD_IDLE_MAX)
        return H2GUARD_IDLE;
    return H2GUARD_OK;
}

enum h2guard_fault h2guard_scan(struct h2guard *g, char *p, size_t *n, uint64_t now_ns, size_t *data_bytes) {
    size_t at = 0, to = 0; /* p[0..to) is what libh2o gets, p[at..) was not looked at yet */
    enum h2guard_fault fault = H2GUARD_OK;
    *data_bytes = 0;
    turn_window(g, now_ns);
    if (!g->begun) {
        if (*n < H2GUARD_PREFACE_BYTES)
            return H2GUARD_OK;
        g->begun = true; /* a wrong one libh2o refuses */
        at = to = H2GUARD_PREFACE_BYTES;
    }
    while (fault == H2GUARD_OK && *n - at >= HEAD_BYTES) {
        struct frame f = frame_at(p + at);
        size_t bytes = HEAD_BYTES + f.n;
        if (f.n > H2GUARD_FRAME_BYTES_MAX || bytes > *n - at)
            break;
        fault = count(g, &f);
        if (f.kind == KIND_DATA)
            *data_bytes += f.n;
        if (f.kind == KIND_HEADERS || f.kind == KIND_CONTINUATION)
            g->in_headers = !(f.flags & FLAG_END_HEADERS);
        if (f.kind < N_KIND || g->in_headers) { /* amid headers it is an error, which is libh2o's to tell */
            if (to < at)
                memmove(p + to, p + at, bytes);
            to += bytes;
        }
        at += bytes;
    }
    if (to < at)
        memmove(p + to, p + at, *n - at);
    *n -= at - to;
    return fault;
}

enum h2guard_fault h2guard_early(struct h2guard *g, uint64_t now_ns) {
    turn_window(g, now_ns);
    return ++g->n_early > H2GUARD_RESETS_MAX ? H2GUARD_RESETS : H2GUARD_OK;
}

const char *h2guard_reason(enum h2guard_fault f) {
    switch (f) {
    case H2GUARD_RESETS:
        return "too many streams reset";
    case H2GUARD_ANSWERS:
        return "too many PING or SETTINGS frames";
    case H2GUARD_IDLE:
        return "too many frames that say nothing";
    case H2GUARD_OK:
        break;
    }
    return "";
}
