/* fuzz_safetensors: any bytes as a safetensors file. What opens must hold together: every tensor lies inside
 * the file, is found by its name, and has the size its shape says. */
#include "common/hf/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct st_set *s;
    struct err e = {0};
    if (st_open_memory(&s, data, n, &e)) {
        CHECK(e.rc != RC_OK && *e.msg);
        return 0;
    }
    uint64_t total = 0;
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < st_count(s); i++) {
        const struct st_tensor *t = st_at(s, i);
        CHECK(st_find(s, t->name.p) == t);
        CHECK(t->n_dims <= ST_DIMS_MAX);
        uint64_t elements = 1;
        for (uint32_t d = 0; d < t->n_dims; d++)
            elements *= t->dims[d];
        CHECK(elements == 0 ? t->n_bytes == 0 : t->n_bytes % elements == 0);
        const uint8_t *p = t->data;
        CHECK(p >= data && t->n_bytes <= n - (size_t)(p - data));
        if (t->n_bytes)
            sink = (uint8_t)(p[0] ^ p[t->n_bytes - 1]);
        total += t->n_bytes;
    }
    (void)sink;
    CHECK(total == st_total_bytes(s)); /* neither holes nor overlaps */
    st_close(s);
    return 0;
}
