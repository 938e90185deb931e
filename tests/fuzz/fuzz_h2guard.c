/* fuzz_h2guard: what an HTTP/2 connection's client sends, in pieces whose sizes the first bytes say. What is
 * let through is what came, less whole frames of unknown kinds; how it is cut into pieces changes nothing. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/buf.h"
#include "router/h2guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* whole: bytes of whole frames at p, as libh2o uses them up. */
static size_t whole(const char *p, size_t n) {
    size_t at = 0;
    while (n - at >= 9) {
        const unsigned char *b = (const unsigned char *)p + at;
        size_t bytes = 9 + ((size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2]);
        if (bytes - 9 > H2GUARD_FRAME_BYTES_MAX || bytes > n - at)
            break;
        at += bytes;
    }
    return at;
}

static enum h2guard_fault run(const uint8_t *data, size_t n, size_t step, struct buf *got) {
    struct h2guard g = {.begun = true};
    struct buf input = {0};
    enum h2guard_fault fault = H2GUARD_OK;
    for (size_t at = 0; at < n && fault == H2GUARD_OK; at += step) {
        size_t data_bytes, before;
        buf_add(&input, data + at, MIN(step, n - at));
        before = input.len;
        fault = h2guard_scan(&g, input.data, &input.len, 1, &data_bytes);
        CHECK(input.len <= before && data_bytes <= before);
        size_t used = whole(input.data, input.len);
        buf_add(got, input.data, used);
        memmove(input.data, input.data + used, input.len - used);
        input.len -= used;
    }
    if (fault == H2GUARD_OK && input.len)
        buf_add(got, input.data, input.len);
    buf_fini(&input);
    return fault;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2)
        return 0;
    size_t step = 1 + (data[0] | (size_t)data[1] << 8) % 1024;
    struct buf once = {0}, pieces = {0};
    enum h2guard_fault a = run(data + 2, n - 2, n, &once), b = run(data + 2, n - 2, step, &pieces);
    CHECK(a == b);
    if (a == H2GUARD_OK)
        CHECK(once.len == pieces.len && once.len <= n - 2 &&
              (once.len == 0 || memcmp(once.data, pieces.data, once.len) == 0));
    (void)h2guard_preface((const char *)data, n);
    buf_fini(&once);
    buf_fini(&pieces);
    return 0;
}
