/* fuzz_mock_script: the text of --mock-faults. */
#include <stdlib.h>

#include "worker/mock_script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char *text = xstrndup((const char *)data, n);
    struct mock_script s;
    struct err e = {0};
    if (mock_script_parse(text, &s, &e) == RC_OK) {
        CHECK(s.n <= MOCK_FAULTS_MAX && (s.n > 0) == (text[0] != '\0'));
        for (unsigned i = 0; i < s.n; i++)
            CHECK(s.fault[i].kind < N_MOCK_FAULT && s.fault[i].arg <= 1e9);
    } else {
        CHECK(e.msg[0]);
    }
    free(text);
    return 0;
}
