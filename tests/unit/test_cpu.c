/* The CPU backend's own parts: 16-bit floats, selection, buffers, cache blocks, and that a step allocates
 * nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/backend.h"
#include "worker/cpu/convert.h"
#include "worker/cpu/select.h"

#ifndef WEIR_SANITIZE
/* glibc lets a program bring its own malloc; these count and pass on. */
static unsigned n_allocations;
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void *malloc(size_t n) {
    __atomic_fetch_add(&n_allocations, 1, __ATOMIC_RELAXED);
    return __libc_malloc(n);
}
void *calloc(size_t count, size_t size) {
    __atomic_fetch_add(&n_allocations, 1, __ATOMIC_RELAXED);
    return __libc_calloc(count, size);
}
void *realloc(void *p, size_t n) {
    __atomic_fetch_add(&n_allocations, 1, __ATOMIC_RELAXED);
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n) {
    __atomic_fetch_add(&n_allocations, 1, __ATOMIC_RELAXED);
    return __libc_memalign(align, n);
}
#endif

static const struct be_ops *const tables[] = {&ref_ops, &cpu_ops};

/* Every 16-bit value survives the way to f32 and back; NaN stays NaN. */
static void sixteen_bits_survive(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float a = f32_of_f16((uint16_t)h), b = f32_of_bf16((uint16_t)h);
        if (isnan(a))
            assert_true(isnan(f32_of_f16(f16_of_f32(a))));
        else
            assert_int_equal(f16_of_f32(a), h);
        if (isnan(b))
            assert_true(isnan(f32_of_bf16(bf16_of_f32(b))));
        else
            assert_int_equal(bf16_of_f32(b), h);
    }
}

/* A value between two neighbours goes to the nearer one, and from the middle to the even one. */
static void rounding_is_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7BFF; h++) { /* finite, positive f16, and the next */
        double lo = f32_of_f16((uint16_t)h), hi = f32_of_f16((uint16_t)(h + 1)), mid = (lo + hi) / 2;
        assert_int_equal(f16_of_f32((float)mid), h + (h & 1));
        assert_int_equal(f16_of_f32(nextafterf((float)mid, 0)), h);
        assert_int_equal(f16_of_f32(nextafterf((float)mid, 1e9f)), h + 1);
        assert_int_equal(f16_of_f32(-(float)mid), 0x8000 | (h + (h & 1)));
    }
    assert_int_equal(f16_of_f32(65519.996f), 0x7BFF);
    assert_int_equal(f16_of_f32(65520), 0x7C00);
    for (uint32_t h = 0; h < 0x7F7F; h += 3) {
        float mid = f32_of_bits(h << 16 | 0x8000);
        assert_int_equal(bf16_of_f32(mid), h + (h & 1));
        assert_int_equal(bf16_of_f32(f32_of_bits(h << 16 | 0x7FFF)), h);
        assert_int_equal(bf16_of_f32(f32_of_bits(h << 16 | 0x8001)), h + 1);
    }
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void selection_equals_sorting(void **state) {
    (void)state;
    enum { N_MAX = 500 };
    uint64_t keys[N_MAX], sorted[N_MAX], weights[N_MAX];
    uint32_t room[N_MAX];
    for (uint64_t c = 0, r = 0; c < 300; c++) {
        uint32_t n = 1 + (uint32_t)(be_philox64(1, r++) % N_MAX),
                 spread = (uint32_t)(be_philox64(1, r++) % 56);
        uint64_t total = 0, sum = 0;
        for (uint32_t i = 0; i < n; i++) { /* unique: the low bits count */
            keys[i] = sorted[i] = (be_philox64(2, r++) >> spread & ~(uint64_t)511) | ((i * 7u + c) % 512);
            weights[i] = be_philox64(3, r++) >> 30;
            total += weights[i];
        }
        qsort(sorted, n, sizeof *sorted, ascending);
        uint32_t count = 1 + (uint32_t)(be_philox64(4, r++) % n);
        assert_true(select_key(keys, NULL, n, count, room) == sorted[count - 1]);
        uint64_t target = 1 + be_philox64(5, r++) % total, got = select_key(keys, weights, n, target, room);
        for (uint32_t i = 0; i < n; i++)
            sum += keys[i] < got ? weights[i] : 0;
        assert_true(sum < target);
        for (uint32_t i = 0; i < n; i++)
            sum += keys[i] == got ? weights[i] : 0;
        assert_true(sum >= target);
        select_sort(keys, n);
        assert_memory_equal(keys, sorted, n * sizeof *keys);
    }
}

static struct be *open_small(const struct be_ops *ops, int n_threads) {
    struct be_config cfg = {
        .n_threads = n_threads, .n_tokens_max = 8, .n_seqs_max = 8, .n_rows_max = 8, .n_vocab = 1000};
    char err[BE_ERR_BYTES] = "";
    struct be *b = NULL;
    assert_int_equal(ops->open(&b, &cfg, err), 0);
    return b;
}

static void handles_tell_what_they_are(void **state) {
    (void)state;
    struct be_info info;
    for (int s = 0; s < 2; s++) {
        struct be *b = open_small(tables[s], 2);
        tables[s]->info(b, &info);
        assert_non_null(strstr(info.name, "2 threads"));
        assert_int_equal(info.act, DT_F32);
        assert_true(info.n_vocab_padded >= 1000);
        assert_true(info.memory_free_bytes > 0 && info.memory_free_bytes <= info.memory_total_bytes);
        tables[s]->close(b);
    }
    struct be *none = NULL;
    char err[BE_ERR_BYTES] = "";
    assert_int_not_equal(cpu_ops.open(&none, &(struct be_config){.n_threads = -1}, err), 0);
    assert_int_not_equal(cpu_ops.open(&none, &(struct be_config){.compute = DT_BF16}, err), 0);
    assert_non_null(strstr(err, "f32"));
}

static void buffers_are_cleared_and_converted(void **state) {
    (void)state;
    const float in[6] = {1, -2, 3.14159f, 65504, 1e-7f, 0};
    static const enum dtype types[] = {DT_NONE, DT_F32, DT_F16, DT_BF16};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct be *b = open_small(&cpu_ops, 1);
        struct be_mem *m = cpu_ops.mem_new(b, 4, 3, types[i]);
        float out[12];
        assert_non_null(m);
        cpu_ops.mem_get(b, m, 0, 4, out);
        for (int k = 0; k < 12; k++)
            assert_true(out[k] == 0);
        cpu_ops.mem_put(b, m, 1, 2, in);
        cpu_ops.mem_get(b, m, 0, 4, out);
        for (int k = 0; k < 6; k++) {
            float want = types[i] == DT_F16    ? f32_of_f16(f16_of_f32(in[k]))
                         : types[i] == DT_BF16 ? f32_of_bf16(bf16_of_f32(in[k]))
                                               : in[k];
            assert_true(out[3 + k] == want && out[k % 3] == 0 && out[9 + k % 3] == 0);
        }
        assert_null(cpu_ops.mem_new(b, UINT64_MAX / 2, 1000, DT_F32));
        cpu_ops.mem_free(b, m);
        cpu_ops.close(b);
    }
}

/* Blocks leave in the canonical layout, whatever the pool's own is, and come back into another table's pool.
 */
static void blocks_travel_between_backends(void **state) {
    (void)state;
    struct cache_group_spec spec = {.kind = CACHE_FULL,
                                    .n_layers = 2,
                                    .n_kv_heads = 3,
                                    .head_dim = 20,
                                    .head_dim_v = 36,
                                    .dtype = DT_BF16};
    enum { N = 4 };
    const uint32_t in[2] = {2, 0}, out[2] = {3, 1};
    char err[BE_ERR_BYTES];
    for (int s = 0; s < 2; s++) {
        struct be *a = open_small(tables[s], 1), *b = open_small(tables[1 - s], 1);
        struct be_kv *ka = tables[s]->kv_new(a, 0, &spec, N, err),
                     *kb = tables[1 - s]->kv_new(b, 0, &spec, N, err);
        uint64_t bytes = tables[s]->kv_block_bytes(a, &spec);
        assert_true(ka && kb && bytes == 2u * 3 * (20 + 36) * 16 * 2);
        assert_true(bytes == tables[1 - s]->kv_block_bytes(b, &spec));
        uint8_t *want = malloc(2 * bytes), *got = malloc(2 * bytes);
        for (uint64_t i = 0; i < 2 * bytes; i++)
            want[i] = (uint8_t)be_philox64(9, i);
        tables[s]->kv_import(a, ka, in, 2, want);
        tables[s]->kv_copy(
            a, ka, (struct be_copy[]){{.src = 2, .dst = 3}, {.src = 0, .dst = 1}, {.src = 1, .dst = 1}}, 3);
        tables[s]->kv_export(a, ka, out, 2, got);
        assert_memory_equal(got, want, 2 * bytes);
        tables[1 - s]->kv_import(b, kb, out, 2, got);
        memset(got, 0, 2 * bytes);
        tables[1 - s]->kv_export(b, kb, out, 2, got);
        assert_memory_equal(got, want, 2 * bytes);
        free(want), free(got);
        tables[s]->kv_free(a, ka);
        assert_non_null(tables[s]->kv_new(a, 0, &spec, N, err)); /* the group is free again */
        tables[s]->close(a);
        tables[1 - s]->close(b);
    }
}

#ifndef WEIR_SANITIZE
/* A decoding step, once warm, allocates nothing, whatever it samples with. */
static void steps_allocate_nothing(void **state) {
    (void)state;
    enum { HIDDEN = 64, HEADS = 4, KV = 2, HD = 16, QKV = (HEADS + 2 * KV) * HD, N_VOCAB = 1000, N = 8 };
    struct be *b = open_small(&cpu_ops, 2);
    const struct be_ops *o = &cpu_ops;
    char err[BE_ERR_BYTES];
    float *data = calloc((size_t)N_VOCAB * HIDDEN, sizeof *data);
    for (size_t i = 0; i < (size_t)N_VOCAB * HIDDEN; i++)
        data[i] = (float)(be_philox64(7, i) % 1000) / 5000 - 0.1f;
    struct be_weight_src src = {.data = data, .dtype = DT_F32, .rows = N_VOCAB, .cols = HIDDEN};
    struct be_w *embed = o->weight(b, BE_W_EMBED, &src, 1, err);
    src.n_rows = QKV;
    struct be_w *qkv = o->weight(b, BE_W_LINEAR, &src, 1, err);
    src.n_rows = HIDDEN;
    struct be_w *back = o->weight(b, BE_W_LINEAR, &src, 1, err);
    src.n_rows = 1;
    src.n_cols = HD / 2;
    struct be_w *inv_freq = o->weight(b, BE_W_VECTOR, &src, 1, err);
    struct be_mem *x = o->mem_new(b, N, HIDDEN, DT_NONE), *row = o->mem_new(b, N, QKV, DT_NONE);
    struct be_mem *a = o->mem_new(b, N, HEADS * HD, DT_NONE);
    struct cache_group_spec spec = {
        .kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = KV, .head_dim = HD, .dtype = DT_F32};
    assert_non_null(o->kv_new(b, 0, &spec, N * 3, err));
    uint32_t tokens[N], slot[N], start[N + 1], len[N], table[N * 3], rows[N], top_ids[N][5];
    int32_t pos[N];
    float tops[N][5];
    struct sample_row want[N];
    struct sample_out out[N];
    struct batch batch = {.n_tokens = N,
                          .n_seqs = N,
                          .n_rows = N,
                          .n_axes = 1,
                          .n_groups = 1,
                          .tokens = tokens,
                          .pos = pos,
                          .seq_start = start,
                          .kv_len = len,
                          .rows = rows};
    batch.group[0].table = table;
    batch.group[0].table_stride = 3;
    batch.group[0].slot = slot;
    for (uint32_t i = 0; i < N; i++) {
        want[i] = (struct sample_row){.temperature = i % 2 ? 0.7f : 0,
                                      .top_p = i % 3 ? 0.9f : 1,
                                      .top_k = i % 4 * 10,
                                      .repetition_penalty = 1,
                                      .seed = i,
                                      .n_top = 5,
                                      .want_logprob = true};
        out[i] = (struct sample_out){.top_ids = top_ids[i], .top_logprobs = tops[i]};
        start[i] = rows[i] = tokens[i] = i;
        for (uint32_t k = 0; k < 3; k++)
            table[i * 3 + k] = i * 3 + k;
    }
    start[N] = N;
    unsigned before = 0;
    for (uint32_t at = 0; at < 48; at++) {
        if (at == 1)
            before = __atomic_load_n(&n_allocations, __ATOMIC_RELAXED);
        for (uint32_t i = 0; i < N; i++) {
            pos[i] = (int32_t)at;
            len[i] = at + 1;
            slot[i] = table[i * 3 + at / 16] * 16 + at % 16;
        }
        struct rope_store rope = {.on = true,
                                  .n_heads = HEADS,
                                  .n_kv_heads = KV,
                                  .head_dim = HD,
                                  .rotary_dim = HD,
                                  .rope = ROPE_NEOX,
                                  .inv_freq = inv_freq};
        o->plan(b, &batch);
        o->embed(b, &(struct op_embed){.y = x, .tokens = embed, .cols = HIDDEN});
        o->gemm(b, &(struct op_gemm){.y = row, .x = x, .w = qkv, .rope = rope});
        o->attn(
            b, &(struct op_attn){
                   .out = a, .qkv = row, .n_heads = HEADS, .n_kv_heads = KV, .head_dim = HD, .scale = 0.25f});
        o->gemm(b, &(struct op_gemm){.y = x, .x = a, .w = back, .add = x});
        o->logits(b, &(struct op_logits){.x = x, .w = embed});
        o->sample(b, want, out, N);
        assert_int_equal(o->wait(b, err), 0);
        for (uint32_t i = 0; i < N; i++)
            tokens[i] = out[i].id;
    }
    assert_int_equal(__atomic_load_n(&n_allocations, __ATOMIC_RELAXED), before);
    free(data);
    o->close(b);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bits_survive),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(selection_equals_sorting),
        cmocka_unit_test(handles_tell_what_they_are),
        cmocka_unit_test(buffers_are_cleared_and_converted),
        cmocka_unit_test(blocks_travel_between_backends),
#ifndef WEIR_SANITIZE
        cmocka_unit_test(steps_allocate_nothing),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
