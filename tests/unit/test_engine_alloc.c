/* Steady decode allocates nothing: the allocator's calls on the engine's thread are counted between two steps
 * in which the same sequences decode.
 *
 * The C library's allocator is replaced by a counting front of it; a sanitizer brings its own, so there the
 * test is skipped.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/engine_rig.h"
#include "tests/support/fake_be.h"
#include "worker/model/model.h"

#ifndef WEIR_SANITIZE
static __thread uint64_t n_calls;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

void *malloc(size_t n) {
    n_calls++;
    return __libc_malloc(n);
}
void *calloc(size_t count, size_t size) {
    n_calls++;
    return __libc_calloc(count, size);
}
void *realloc(void *p, size_t n) {
    n_calls++;
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n) {
    n_calls++;
    return __libc_memalign(align, n);
}
void free(void *p) {
    n_calls += p != NULL;
    __libc_free(p);
}
#else
static const uint64_t n_calls;
#endif

enum { N_SEQS = 24, N_PROMPT = 40, N_OUT = 300, FROM = 60, TO = 240 };

/* watched: by the engine's thread, read after its end. */
static struct {
    uint64_t at_from, at_to, n_steps;
    bool from_seen, to_seen;
} watched;

/* The first step waits until all requests are in. */
static atomic_bool gate_open;
static void wait_for_gate(void) {
    while (!atomic_load(&gate_open))
        usleep(100);
}

static void watch(struct rig *r, const struct step_out *out) {
    uint32_t least = UINT32_MAX, most = 0;
    (void)out;
    for (uint32_t i = 0; i < N_SEQS; i++) {
        least = MIN(least, r->streams[i].n_tokens);
        most = MAX(most, r->streams[i].n_tokens);
    }
    if (least >= FROM && !watched.from_seen) {
        watched.from_seen = true;
        watched.at_from = n_calls;
    }
    watched.n_steps += watched.from_seen && !watched.to_seen;
    if (most >= TO && !watched.to_seen) {
        watched.to_seen = true;
        watched.at_to = n_calls;
    }
}

/* run: greedy: without draws and top logprobs. */
static void run(struct engine_opts *o, bool greedy) {
    struct rig rig = {.watch = watch};
    uint32_t prompt[N_PROMPT];
    memset(&watched, 0, sizeof watched);
    o->max_len = 512;
    o->n_tokens_max = o->token_budget = 256;
    o->n_seqs_max = o->n_rows_max = 32;
    o->n_requests_max = 64;
    o->n_routers_max = RIG_ROUTERS;
    o->prefix_cache = true;
    o->kv_events = true;
    o->n_top_max = 5;
    for (uint32_t g = 0; g < o->n_groups; g++)
        o->n_blocks[g] = 1024;
    atomic_store(&gate_open, false);
    rig_start(&rig, o);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        for (uint32_t k = 0; k < N_PROMPT; k++)
            prompt[k] = (i * 7 + k) % 90;
        struct req q = rig_req(i, prompt, N_PROMPT, N_OUT);
        q.ignore_eos = true;
        q.router = i % RIG_ROUTERS;
        q.temperature = i % 2 && !greedy ? 0.9f : 0;
        q.top_p = 0.9f;
        q.seed = i;
        q.n_logprobs = i % 3 && !greedy ? 5 : -1;
        q.repetition_penalty = i % 4 ? 1.1f : 1;
        q.frequency_penalty = i % 5 ? 0.2f : 0;
        rig_submit(&rig, &q);
    }
    atomic_store(&gate_open, true);
    rig_wait_ends(&rig, N_SEQS);
    rig_stop(&rig);
    rig_free(&rig);
    assert_true(watched.from_seen && watched.to_seen && watched.n_steps >= 100);
    if (watched.at_to != watched.at_from)
        fail_msg("%llu calls of the allocator in %llu steps",
                 (unsigned long long)(watched.at_to - watched.at_from), (unsigned long long)watched.n_steps);
}

/* The counter counts: otherwise nothing here could fail. */
static void test_counter(void **state) {
    (void)state;
#ifdef WEIR_SANITIZE
    skip();
#else
    uint64_t before = n_calls;
    void *volatile p = xmalloc(10);
    free(p);
    assert_int_equal(n_calls, before + 2);
#endif
}

static void forward_fake(void *be, const struct batch *b) {
    wait_for_gate();
    fake_forward(be, b);
}

static void test_engine_alone(void **state) {
    (void)state;
#ifdef WEIR_SANITIZE
    skip();
#endif
    struct fake_device device = {0};
    struct be *be = fake_open(&device);
    struct cache_group_spec groups[2] = {{.kind = CACHE_FULL, .n_layers = 1},
                                         {.kind = CACHE_WINDOW, .n_layers = 1, .window = 50}};
    struct engine_opts o = {.ops = &fake_ops, .be = be, .model = {forward_fake, be}, .n_vocab = FAKE_VOCAB};
    o.groups = groups;
    o.n_groups = 2;
    run(&o, false);
    fake_close(be);
}

static void forward(void *model, const struct batch *b) {
    wait_for_gate();
    model_forward(model, b);
}

/* With the CPU backend and a model of random weights below it. */
static void test_engine_and_backend(void **state) {
    (void)state;
#ifdef WEIR_SANITIZE
    skip();
#endif
    char path[] = "tests/golden/models/llama/config.json", text[8192], why[BE_ERR_BYTES] = "";
    struct hf_config cfg;
    struct err e = {0};
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    assert_int_equal(hf_config_parse((struct str){text, n}, NULL, &cfg, &e), RC_OK);
    cfg.max_positions = 512;
    struct be_config bc = {
        .n_threads = 2, .n_ranks = 1, .n_tokens_max = 256, .n_seqs_max = 32, .n_rows_max = 32};
    bc.n_vocab = cfg.vocab;
    struct be *be;
    assert_int_equal(cpu_ops.open(&be, &bc, why), 0);
    struct model_opts mo = {
        .ops = &cpu_ops, .be = be, .n_ranks = 1, .max_len = 512, .n_tokens_max = 256, .dummy = true};
    struct model *model;
    assert_int_equal(model_load(&model, &cfg, NULL, &mo, &e), RC_OK);
    struct cache_group_spec groups[BE_GROUPS_MAX];
    struct engine_opts o = {.ops = &cpu_ops, .be = be, .model = {forward, model}, .n_vocab = cfg.vocab};
    o.n_groups = model_groups(&cfg, &mo, groups);
    o.groups = groups;
    /* Plain C sorts with qsort, which takes memory of its own: that is the oracle's way, and that of old
     * processors. */
    struct be_info info;
    cpu_ops.info(be, &info);
    run(&o, !strstr(info.name, "avx2"));
    model_free(model);
    cpu_ops.close(be);
    hf_config_fini(&cfg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter),
        cmocka_unit_test(test_engine_alone),
        cmocka_unit_test(test_engine_and_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
