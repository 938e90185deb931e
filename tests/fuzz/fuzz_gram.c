/* fuzz_gram: the engine against the oracle, a grammar and a walk for each seed that the bytes give. */
#include "tests/support/gram_check.h"
#include "tests/support/gram_oracle.h"

#include "common/hash.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct str *tokens;
    static struct gram_vocab *v;
    static char *bytes;
    bool walked;
    if (!v) { /* kept until the process ends */
        uint32_t eos = GRAM_CHECK_EOS;
        tokens = oracle_vocab(1, GRAM_CHECK_VOCAB, &bytes);
        v = gram_vocab_of(tokens, GRAM_CHECK_VOCAB, &eos, 1);
    }
    uint64_t seed = 0;
    if (n <= sizeof seed)
        memcpy(&seed, data, n); /* a small number is the seed of the unit test */
    else
        seed = hash_fast(data, n, 1);
    const char *bad = gram_check(seed, v, tokens, 6, &walked);
    if (bad) {
        fprintf(stderr, "%s\n", bad);
        abort();
    }
    return 0;
}
