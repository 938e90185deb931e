/* rawhead and route: the bytes of a request's head, as a socket has them. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "router/rawhead.h"
#include "router/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *p = (const char *)data;
    struct rawhead h, again;
    if (rawhead_scan(p, n, &h)) {
        /* What was read is decided by the head alone: bytes behind it change nothing. */
        CHECK(h.bytes <= n && rawhead_scan(p, h.bytes, &again) && again.bytes == h.bytes);
        CHECK(again.n_headers == h.n_headers && again.n_content_length == h.n_content_length &&
              again.n_host == h.n_host);
        CHECK(h.bytes == 0 || !rawhead_scan(p, h.bytes - 1, &again));
        CHECK(h.host.n == 0 || (h.host.p >= p && h.host.p + h.host.n <= p + h.bytes));
        (void)rawhead_check(&h, 65536, 100);
    }
    struct str path = {p, n};
    const struct route *r = route_find(path);
    if (r && r->flags & ROUTE_PREFIX) {
        struct buf name = {0};
        if (route_name(r, path, &name))
            CHECK(name.len > 0 && name.len < n && !memchr(name.data, 0, name.len));
        buf_fini(&name);
    }
    return 0;
}
