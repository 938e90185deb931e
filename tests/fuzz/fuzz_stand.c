/* fuzz_stand: what a rank on another host may send to its stand. The group is of one rank, so nobody is waited for; memory
 * and messages end where they are said to end. The first word is the length of the answer. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "worker/backend.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ANSWER_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct be_config c = {.n_ranks = 1, .n_rows_max = 3, .n_vocab = 50, .n_reduce_cols = 4};
    char err[BE_ERR_BYTES] = "";
    uint32_t n_out;
    if (size < sizeof n_out)
        return 0;
    memcpy(&n_out, data, sizeof n_out);
    if (n_out > ANSWER_MAX)
        return 0;
    size_t n = size - sizeof n_out, bytes = (cpu_ops.group_bytes(&c) + 63) / 64 * 64;
    uint8_t *in = malloc(n ? n : 1), *out = malloc(n_out ? n_out : 1);
    c.group = aligned_alloc(64, bytes);
    CHECK(in && out && c.group);
    memset(c.group, 0, bytes);
    if (n)
        memcpy(in, data + sizeof n_out, n);
    struct be_stand *s = cpu_ops.stand_open(&c, err);
    CHECK(s);
    for (int i = 0; i < 3; i++) /* both sets of slots, and the first one again */
        if (cpu_ops.stand_call(s, in, n, out, n_out))
            CHECK(n >= 32 && n_out <= n - 32);
    CHECK(c.group->failed == 0);
    cpu_ops.stand_close(s);
    free(c.group);
    free(in);
    free(out);
    return 0;
}
