/* fuzz_schema: a JSON Schema, a NUL, and a text. The schema is refused by name or becomes a grammar within
 * its budget; then any bytes may be tried, and a walk that follows the text where it may ends nowhere it
 * cannot go on. */
#include <stdlib.h>

#include "common/gram/front.h"
#include "common/gram/gram.h"

/* follow: takes each byte of the text that may come, and checks after each that something may follow it. */
static void follow(struct gram *g, struct str text) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e;
    for (size_t i = 0; i < text.n && i < 200; i++) {
        enum rc rc = gram_run_bytes(r, (struct str){text.p + i, 1}, NULL, &e);
        CHECK(rc == RC_OK || rc == RC_INVALID || rc == RC_OVERLOAD);
        if (rc == RC_OVERLOAD)
            break;
        if (rc || gram_run_may_end(r))
            continue;
        bool on = false;
        for (unsigned b = 0; b < 256 && !on; b++) {
            char c = (char)b; /* if it is taken, the walk goes on behind it */
            rc = gram_run_bytes(r, (struct str){&c, 1}, NULL, &e);
            on = rc == RC_OK || rc == RC_OVERLOAD;
        }
        CHECK(on);
    }
    gram_run_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct gram_limits limits = {
        .compile_fuel = 3000000, .mask_fuel = 300000, .text_bytes = 4096};
    const char *p = (const char *)data, *nul = n ? memchr(p, 0, n) : NULL;
    struct str schema = {p, nul ? (size_t)(nul - p) : n}, text = {NULL, 0};
    struct err e = {0};
    struct gram *g;
    if (nul)
        text = (struct str){nul + 1, n - schema.n - 1};
    enum rc rc = gram_compile(&g, GRAM_JSON_SCHEMA, schema, text, &limits, &e);
    if (rc)
        rc = gram_compile(&g, GRAM_JSON_SCHEMA, schema, STR_LIT(""), &limits, &e);
    CHECK(rc == RC_OK || (rc == RC_INVALID && e.msg[0]));
    if (rc)
        return 0;
    follow(g, text);
    gram_drop(g);
    return 0;
}
