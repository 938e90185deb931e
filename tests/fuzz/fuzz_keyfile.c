/* Lines of a key file: a key that comes out is one that a header can carry, and lies within its line. */
#include <stddef.h>
#include <stdint.h>

#include "router/keyfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *p = (const char *)data;
    while (n) {
        const char *end = memchr(p, '\n', n);
        struct str line = {p, end ? (size_t)(end - p) : n}, key;
        struct quota_limits l;
        struct err e;
        if (keyfile_line(line, &key, &l, &e) == RC_OK) {
            CHECK(key.n == 0 || (keyfile_is_key(key) && key.p >= line.p && key.p + key.n <= line.p + line.n));
            CHECK(l.requests <= QUOTA_MAX && l.tokens <= QUOTA_MAX);
        }
        n -= line.n + (end != NULL);
        p += line.n + (end != NULL);
    }
    return 0;
}
