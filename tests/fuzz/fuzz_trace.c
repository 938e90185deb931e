/* fuzz_trace: what clients and the environment say of traces, and what a collector answers. */
#include <stdlib.h>

#include "router/trace/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct str s = {(const char *)data, n};
    struct trace_context c;
    struct trace_pairs p;
    if (trace_parent_read(s, &c))
        CHECK(n >= 55 && c.has_parent);
    if (trace_state_good(s))
        CHECK(n <= TRACE_STATE_BYTES_MAX && memchr(data, '=', n));
    char *text = xstrndup(s.p, n);
    if (trace_pairs_read(text, &p)) {
        CHECK(p.n <= TRACE_PAIRS_MAX);
        for (size_t i = 0; i < p.n; i++) {
            CHECK(p.v[i].key[0] && trace_pairs_get(&p, p.v[i].key));
            for (const char *v = p.v[i].value; *v; v++)
                CHECK((unsigned char)*v >= ' ' && *v != 0x7f);
        }
        trace_pairs_fini(&p);
    } else {
        CHECK(p.n == 0);
    }
    (void)trace_rejected(s);
    free(text);
    return 0;
}
