/* fuzz_ebnf: any text as a grammar in either dialect. What compiles is run over the rest behind a NUL; an
 * error tells itself. */
#include "common/gram/front.h"
#include "common/gram/gram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct gram_limits limits = {.n_rx = 20000,
                                              .n_symbols = 4000,
                                              .n_parts = 20000,
                                              .memory_bytes = 8 << 20,
                                              .compile_fuel = 300000,
                                              .mask_fuel = 30000,
                                              .text_bytes = 2048,
                                              .regex_bytes = 512,
                                              .regex_repeat = 200,
                                              .regex_states = 4000};
    const char *text = (const char *)data, *nul = n ? memchr(text, 0, n) : NULL;
    size_t n_text = nul ? (size_t)(nul - text) : n;
    struct gram *g = NULL;
    struct err e = {0};
    if (gram_compile(&g, GRAM_EBNF, (struct str){text, n_text}, (struct str){0}, &limits, &e) != RC_OK) {
        CHECK(*e.msg && !g);
        return 0;
    }
    struct gram_run *r = gram_run_new(g, NULL);
    size_t taken = 0;
    if (nul)
        (void)!gram_run_bytes(r, (struct str){nul + 1, n - n_text - 1}, &taken, &e);
    (void)gram_run_may_end(r);
    gram_run_free(r);
    gram_drop(g);
    return 0;
}
