/* fuzz_regex: any bytes as a pattern, whole or searched for (the first byte says, and which flags). What
 * compiles is run over the rest behind a NUL; an error tells itself. */
#include "common/gram/gram.h"
#include "common/gram/regex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct gram_limits limits = {.n_rx = 20000,
                                              .n_parts = 20000,
                                              .memory_bytes = 8 << 20,
                                              .compile_fuel = 300000,
                                              .mask_fuel = 30000,
                                              .regex_bytes = 512,
                                              .regex_repeat = 200,
                                              .regex_states = 4000};
    if (n == 0)
        return 0;
    struct rx_syntax how = {
        .search = data[0] & 1, .icase = data[0] & 2, .dotall = data[0] & 4, .no_anchors = data[0] & 8};
    const char *text = (const char *)data + 1, *nul = memchr(text, 0, n - 1);
    struct str pattern = {text, nul ? (size_t)(nul - text) : n - 1};
    struct gram *g = gram_new(&limits);
    struct err e = {0};
    uint32_t rx;
    if (rx_parse_as(g, pattern, &how, &rx, &e) != RC_OK) {
        CHECK(*e.msg);
        gram_drop(g);
        return 0;
    }
    if (gram_seal(g, gram_term(g, rx, 0), false, &e) == RC_OK) {
        struct gram_run *r = gram_run_new(g, NULL);
        size_t taken = 0;
        if (nul)
            (void)!gram_run_bytes(r, (struct str){nul + 1, n - pattern.n - 2}, &taken, &e);
        gram_run_free(r);
    } else {
        CHECK(*e.msg);
    }
    gram_drop(g);
    return 0;
}
