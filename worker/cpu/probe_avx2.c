#include "worker/cpu/probe.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "worker/cpu/simd.h"

enum { PIECE_BYTES = 256 << 10, N_STREAMS = 4, FMA_ROUNDS = 2000000, N_CHAINS = 12 };

void *probe_memory(size_t bytes) {
    const size_t huge = 2 * MIB;
    void *p = aligned_alloc(huge, (bytes + huge - 1) / huge * huge);
    if (!p)
        return NULL;
    madvise(p, bytes, MADV_HUGEPAGE);
    uint64_t *words = p, s = 1;
    for (size_t i = 0; i < bytes / sizeof *words;
         i++) { /* equal pages may be one page to the host: no two are */
        s = s * 6364136223846793005u + 1442695040888963407u;
        words[i] = s;
    }
    return p;
}

struct probe {
    const uint8_t *memory;
    struct team_queue queue;
    _Atomic uint32_t sink; /* keeps the work from being dropped */
};

static void read_run(void *arg, int member) {
    (void)member;
    struct probe *p = arg;
    __m256i s[N_STREAMS];
    uint32_t n, i;
    for (int j = 0; j < N_STREAMS; j++)
        s[j] = _mm256_setzero_si256();
    while (i = queue_take(&p->queue, &n), n) {
        const uint8_t *at = p->memory + (size_t)i * PIECE_BYTES;
        for (size_t k = 0; k < PIECE_BYTES / N_STREAMS; k += 64)
#pragma GCC unroll 4
            for (int j = 0; j < N_STREAMS; j++) {
                const __m256i *v = (const __m256i *)(const void *)(at + j * (PIECE_BYTES / N_STREAMS) + k);
                s[j] =
                    _mm256_xor_si256(s[j], _mm256_xor_si256(_mm256_load_si256(v), _mm256_load_si256(v + 1)));
            }
    }
    for (int j = 1; j < N_STREAMS; j++)
        s[0] = _mm256_xor_si256(s[0], s[j]);
    atomic_fetch_add(&p->sink, (uint32_t)_mm256_extract_epi32(s[0], 0));
}

void probe_read(struct team *team, const void *memory, size_t bytes) {
    struct probe p = {.memory = memory};
    queue_init(&p.queue, (uint32_t)(bytes / PIECE_BYTES), 1);
    team_run(team, read_run, &p);
}

static void fma_run(void *arg, int member) {
    struct probe *p = arg;
    __m256 acc[N_CHAINS], x = v_set(1.0f), y = v_set(1e-9f * (float)(member + 1));
#pragma GCC unroll 12
    for (int j = 0; j < N_CHAINS; j++)
        acc[j] = v_set((float)j);
    for (uint32_t i = 0; i < FMA_ROUNDS; i++)
#pragma GCC unroll 12
        for (int j = 0; j < N_CHAINS; j++)
            acc[j] = _mm256_fmadd_ps(acc[j], x, y);
    for (int j = 1; j < N_CHAINS; j++)
        acc[0] = _mm256_add_ps(acc[0], acc[j]);
    atomic_fetch_add(&p->sink, (uint32_t)v_sum(acc[0]));
}

double probe_fma(struct team *team) {
    struct probe p = {.memory = NULL};
    team_run(team, fma_run, &p);
    return 2.0 * 8 * N_CHAINS * FMA_ROUNDS * team_size(team);
}
