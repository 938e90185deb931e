/* The client's reading: a response and its events, whole and in pieces, are the same; then each event as a
 * chunk. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "router/client/api.h"

struct seen {
    struct buf body, events;
    int status;
    enum rc rc, sse_rc;
};

static void take_events(struct sse *s, struct str slice, struct seen *out) {
    while (slice.n && !out->sse_rc) {
        struct buf text = {0}, thought = {0};
        struct chunk c = {.text = &text, .reasoning = &thought, .usage = {-1, -1}};
        struct str data;
        struct err e;
        bool event;
        out->sse_rc = sse_read(s, &slice, &event, &data, &e);
        if (!out->sse_rc && event) {
            buf_addc(&out->events, '|');
            buf_add_str(&out->events, data);
            if (chunk_read(data, &c, &e) == RC_OK)
                clean_text(&out->events, buf_str(&text));
        }
        buf_fini(&text);
        buf_fini(&thought);
    }
}

static void read_in_pieces(const uint8_t *p, size_t n, size_t piece, struct seen *out) {
    struct http_resp r;
    struct sse s = {0};
    struct err e;
    http_resp_init(&r);
    *out = (struct seen){0};
    for (size_t at = 0; at < n && !r.done && !out->rc; at += piece) {
        struct str in = {(const char *)p + at, MIN(piece, n - at)}, slice;
        while (in.n && !r.done && !out->rc) {
            out->rc = http_resp_read(&r, &in, &slice, &e);
            buf_add_str(&out->body, slice);
            take_events(&s, slice, out);
        }
    }
    if (!out->rc && !r.done)
        out->rc = http_resp_eof(&r, &e);
    out->status = r.status;
    http_resp_fini(&r);
    sse_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct seen whole, cut;
    if (n < 1)
        return 0;
    read_in_pieces(data + 1, n - 1, n, &whole);
    read_in_pieces(data + 1, n - 1, 1 + data[0] % 32, &cut);
    CHECK(whole.rc == cut.rc && whole.status == cut.status && whole.sse_rc == cut.sse_rc);
    CHECK(str_eq(buf_str(&whole.body), buf_str(&cut.body)) && whole.body.len <= n);
    CHECK(str_eq(buf_str(&whole.events), buf_str(&cut.events)));
    buf_fini(&whole.body);
    buf_fini(&whole.events);
    buf_fini(&cut.body);
    buf_fini(&cut.events);
    char *text = xstrndup((const char *)data, n);
    struct url u;
    struct err e;
    if (url_read(text, &u, &e) == RC_OK)
        CHECK(u.host[0] && u.port[0] && u.path[0] == '/');
    free(text);
    return 0;
}
