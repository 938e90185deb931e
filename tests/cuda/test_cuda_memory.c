/* --gpu-memory-utilization, on an emulated device whose memory the test chooses: what the KV cache gets, that a step
 * takes no more than the profile did, and what is said where nothing fits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "worker/device.h"
#include "worker/load.h"

/* In place of the worker's: the emulated device is linked, not loaded. */
enum rc device_ops(const char *device, const struct be_ops **out, struct err *e) {
    (void)device;
    (void)e;
    *out = be_plugin_ops(BE_ABI);
    return RC_OK;
}

static void on_step(void *arg, const struct step_out *out) {
    (void)arg;
    (void)out;
}

static void memory_set(uint64_t kib, uint64_t used_kib) {
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)kib);
    setenv("WEIR_EMU_MEMORY_KIB", text, 1);
    snprintf(text, sizeof text, "%llu", (unsigned long long)used_kib);
    setenv("WEIR_EMU_USED_KIB", text, 1);
}

static uint32_t n_tokens = 32; /* of the context and of a step */

/* load: the tiny model in bf16 with `share` of the memory, 4 sequences. */
static enum rc load(struct load *l, double share, struct err *e) {
    struct worker_flags f;
    worker_flags_init(&f);
    memset(l, 0, sizeof *l);
    memset(e, 0, sizeof *e);
    f.gpu_memory_utilization = share;
    f.max_model_len = n_tokens;
    f.max_num_batched_tokens = MIN(n_tokens, 72);
    f.max_num_seqs = 4;
    struct engine_opts o = {.on_step = on_step};
    enum rc rc = load_files(l, "deploy/tiny-model", &f, e);
    if (rc == RC_OK)
        rc = load_model(l, &f, &o, NULL, NULL, e);
    const struct conf_table t = {.flags = worker_flag_rows, .n_flags = n_worker_flag_rows};
    conf_free(&t, &f, NULL);
    return rc;
}

static uint64_t free_bytes(const struct load *l) {
    struct be_info info;
    l->ops->info(l->be, &info);
    return info.memory_free_bytes;
}

enum { TOTAL_KIB = 65536, BLOCK_KIB = 16 /* 4 layers, keys and values, 2 heads, 16 tokens, 32 numbers of 2 bytes */ };

/* own: KiB that weights and the worst step take, as a load tells. */
static uint64_t own_kib(void) {
    struct load l;
    struct err e;
    memory_set(TOTAL_KIB, 0);
    assert_int_equal(load(&l, 0.5, &e), RC_OK);
    uint64_t own = TOTAL_KIB / 2 - l.kv_bytes / KIB;
    load_free(&l);
    return own;
}

static void the_rest_is_for_the_cache(void **state) {
    (void)state;
    struct load l;
    struct err e;
    uint64_t own = own_kib();
    assert_in_range(own, 2048, 16384); /* the weights alone are 1.7 MiB */
    memory_set(TOTAL_KIB, 0);
    assert_int_equal(load(&l, 0.9, &e), RC_OK);
    assert_int_equal(l.facts.n_blocks, ((uint64_t)(0.9 * TOTAL_KIB) - own) / BLOCK_KIB);
    assert_in_range(free_bytes(&l) / KIB, TOTAL_KIB / 10, TOTAL_KIB / 10 + 2 * BLOCK_KIB);
    load_free(&l);
    memory_set(TOTAL_KIB, TOTAL_KIB / 4); /* others' use counts only where it is in the way */
    assert_int_equal(load(&l, 0.6, &e), RC_OK);
    assert_int_equal(l.facts.n_blocks, ((uint64_t)(0.6 * TOTAL_KIB) - own) / BLOCK_KIB);
    load_free(&l);
}

/* A step as full as the flags allow, a chunk with a past and decodes take not a byte more than the profile did. */
static void steps_take_no_more(void **state) {
    (void)state;
    struct load l;
    struct err e;
    uint32_t tokens[72] = {0}, slot[72], table[32], rows[72], kv_len[4] = {72, 80, 80, 80};
    int32_t pos[72];
    char why[BE_ERR_BYTES] = "";
    memory_set(TOTAL_KIB, 0);
    n_tokens = 80; /* so that chunks of 64 on top of something are profiled */
    assert_int_equal(load(&l, 0.9, &e), RC_OK);
    n_tokens = 32;
    uint64_t before = free_bytes(&l);
    for (uint32_t i = 0; i < 72; i++) {
        slot[i] = rows[i] = i;
        pos[i] = (int32_t)i;
        table[i % 20] = i % 20;
    }
    struct batch b = {.n_tokens = 72, .n_seqs = 1, .n_rows = 72, .n_axes = 1, .n_groups = 1, .tokens = tokens, .pos = pos,
                      .seq_start = (uint32_t[2]){0, 72}, .kv_len = kv_len, .rows = rows};
    b.group[0].table = table;
    b.group[0].table_stride = 5;
    b.group[0].slot = slot;
    model_forward(l.model, &b);
    assert_int_equal(l.ops->wait(l.be, why), 0);
    assert_int_equal(free_bytes(&l), before);
    for (uint32_t i = 0; i < 64; i++) {
        slot[i] = 16 + i;
        pos[i] = (int32_t)(16 + i);
    }
    b.n_tokens = 64;
    b.n_rows = 1;
    b.seq_start = (uint32_t[2]){0, 64};
    kv_len[0] = 80;
    model_forward(l.model, &b);
    assert_int_equal(l.ops->wait(l.be, why), 0);
    assert_int_equal(free_bytes(&l), before);
    for (uint32_t i = 0; i < 4; i++) {
        slot[i] = i * 80 + 79;
        pos[i] = 79;
    }
    b.n_tokens = b.n_seqs = b.n_rows = 4;
    b.seq_start = (uint32_t[5]){0, 1, 2, 3, 4};
    for (int i = 0; i < 3; i++) { /* as it is, captured, launched */
        model_forward(l.model, &b);
        assert_int_equal(l.ops->wait(l.be, why), 0);
    }
    assert_int_equal(free_bytes(&l), before);
    load_free(&l);
}

static void refused(uint64_t kib, uint64_t used_kib, double share, const char *says) {
    struct load l;
    struct err e;
    memory_set(kib, used_kib);
    assert_true(load(&l, share, &e) != RC_OK);
    load_free(&l);
    print_message("%s\n", e.msg);
    assert_non_null(strstr(e.msg, says));
    assert_null(strchr(e.msg, '\n'));
}

static void what_does_not_fit_is_one_line(void **state) {
    (void)state;
    uint64_t own = own_kib();
    refused(TOTAL_KIB, TOTAL_KIB / 2, 0.9, "end what else uses the GPU");
    refused(TOTAL_KIB, 0, (double)(own - 512) / TOTAL_KIB, "raise it, or lower --max-num-batched-tokens");
    refused(TOTAL_KIB, 0, (double)(own + BLOCK_KIB) / TOTAL_KIB, "lower --max-model-len");
    refused(own - 64, 0, 0.9, "the worst step does not fit");
    refused(1024, 0, 0.9, "the weights need");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rest_is_for_the_cache),
        cmocka_unit_test(steps_take_no_more),
        cmocka_unit_test(what_does_not_fit_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
