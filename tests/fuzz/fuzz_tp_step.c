/* fuzz_tp_step: a follower's reading of plans. What passes is used as a follower would: every array is read
 * whole, every index stays in what it indexes. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "worker/tp_step.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tp_limits limits = {.n_tokens_max = 64,
                                        .n_seqs_max = 16,
                                        .n_rows_max = 32,
                                        .n_vocab = 1000,
                                        .max_len = 256,
                                        .n_groups = 2,
                                        .n_blocks = {32, 64}};

static void use_batch(const struct batch *b) {
    CHECK(b->n_tokens <= limits.n_tokens_max && b->n_seqs <= limits.n_seqs_max &&
          b->n_rows <= limits.n_rows_max);
    for (uint32_t i = 0; i < b->n_tokens; i++)
        CHECK(b->tokens[i] < limits.n_vocab && (!b->token_type || b->token_type[i] <= UINT8_MAX));
    for (uint32_t i = 0; i < b->n_rows; i++)
        CHECK(b->rows[i] < b->n_tokens);
    for (uint32_t s = 0; s < b->n_seqs; s++) {
        CHECK(!b->kind || b->kind[s] < ATTN_CROSS);
        for (uint32_t t = b->seq_start[s]; t < b->seq_start[s + 1]; t++)
            for (uint32_t g = 0; g < b->n_groups; g++) {
                uint32_t at = (uint32_t)b->pos[t] / KV_BLOCK_TOKENS;
                CHECK(at < b->group[g].table_stride &&
                      b->group[g].slot[t] / KV_BLOCK_TOKENS < limits.n_blocks[g]);
                CHECK(b->group[g].table[(size_t)s * b->group[g].table_stride + at] < limits.n_blocks[g]);
            }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t n = size / sizeof(uint32_t);
    uint32_t *words = malloc(n * sizeof *words + 1); /* exact, so that a read beyond it is seen */
    struct tp_msg m;
    struct err e;
    if (!words)
        return 0;
    if (n)
        memcpy(words, data, n * sizeof *words);
    if (tp_get(words, n, &limits, &m, &e) == RC_OK) {
        CHECK(words[0] == n && n <= tp_words_max(&limits) + 2 * (size_t)m.n_copies);
        if (m.kind == TP_STEP)
            use_batch(&m.batch);
        for (uint32_t i = 0; m.kind == TP_COPY && i < m.n_copies; i++)
            CHECK(m.copies[i].src < limits.n_blocks[m.group] && m.copies[i].dst < limits.n_blocks[m.group]);
        for (uint32_t i = 0; m.kind == TP_MOVE && i < m.n_blocks_moved; i++)
            CHECK(m.rank < BE_RANKS_MAX && m.blocks[i] < limits.n_blocks[m.group]);
    } else {
        CHECK(e.msg[0]);
    }
    free(words);
    return 0;
}
