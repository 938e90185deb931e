/* The same request gives the same tokens, and the same bits of logits, whatever else goes on: alone, in a
 * batch of 64, in chunks of 16 and of 2048, with the prefix cache cold, warm and off, and after a preemption;
 * greedy and seeded, on both CPU backends, with full and with sliding attention.
 *
 * The engine's table of operations is the backend's with one change: before each sample call the rows' logits
 * are read and hashed, bit by bit.
 *
 * threads: tsan
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

#include "common/hash.h"
#include "tests/support/engine_rig.h"
#include "worker/model/model.h"

enum { MAX_LEN = 256, N_PROMPT = 150, N_OUT = 32, N_BATCH = 64, TARGET_SEED = 1000 };

/* seen: what the target's rows were, by output position. Written on the engine's thread, read after its end.
 */
static struct {
    const struct be_ops *real;
    uint32_t n_vocab;
    float *row;
    uint64_t bits[N_OUT];
    uint32_t n_rows;      /* of the target's */
    uint32_t n_rows_most; /* of a step */
} seen;

static void spy_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    for (uint32_t r = 0; r < n; r++) {
        if (rows[r].seed != TARGET_SEED)
            continue;
        CHECK(rows[r].position == seen.n_rows && seen.n_rows < N_OUT);
        seen.real->logits_get(b, r, seen.row);
        seen.bits[seen.n_rows++] = hash_fast(seen.row, seen.n_vocab * sizeof *seen.row, 0);
    }
    seen.n_rows_most = MAX(seen.n_rows_most, n);
    seen.real->sample(b, rows, out, n);
}

/* ---- a loaded model
 * ------------------------------------------------------------------------------------------- */

struct loaded {
    struct hf_config cfg;
    struct st_set *set;
    struct be_ops ops; /* with the spy */
    struct be *be;
    struct model *model;
    struct cache_group_spec groups[BE_GROUPS_MAX];
    uint32_t n_groups;
};

/* The first step waits until all requests are in, so that a scenario is the same each time. */
static atomic_bool gate_open;

static void forward(void *model, const struct batch *b) {
    while (!atomic_load(&gate_open))
        usleep(100);
    model_forward(model, b);
}

static void load(struct loaded *l, const char *name, const struct be_ops *ops) {
    char path[128], text[8192], why[BE_ERR_BYTES] = "";
    struct err e = {0};
    *l = (struct loaded){.ops = *ops};
    snprintf(path, sizeof path, "tests/golden/models/%s/config.json", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    if (hf_config_parse((struct str){text, n}, NULL, &l->cfg, &e))
        fail_msg("%s: %s", name, e.msg);
    snprintf(path, sizeof path, "tests/golden/models/%s", name);
    if (st_open(&l->set, path, &e))
        fail_msg("%s: %s", name, e.msg);
    struct be_config bc = {.n_threads = 2, .n_ranks = 1, .n_tokens_max = 2048, .n_seqs_max = N_BATCH};
    bc.n_rows_max = N_BATCH;
    bc.n_vocab = l->cfg.vocab;
    if (ops->open(&l->be, &bc, why))
        fail_msg("%s: %s", ops->name, why);
    struct model_opts mo = {.ops = ops, .be = l->be, .n_ranks = 1, .max_len = MAX_LEN, .n_tokens_max = 2048};
    if (model_load(&l->model, &l->cfg, l->set, &mo, &e))
        fail_msg("%s: %s", name, e.msg);
    l->n_groups = model_groups(&l->cfg, &mo, l->groups);
    seen.real = ops;
    seen.n_vocab = l->cfg.vocab;
    seen.row = xcalloc(l->cfg.vocab, sizeof *seen.row);
    l->ops.sample = spy_sample;
}

static void unload(struct loaded *l) {
    model_free(l->model);
    l->ops.close(l->be);
    st_close(l->set);
    hf_config_fini(&l->cfg);
    free(seen.row);
}

/* ---- scenarios
 * ------------------------------------------------------------------------------------------------ */

struct scenario {
    const char *name;
    uint32_t long_prefill_tokens, token_budget, n_blocks;
    uint32_t n_others;
    bool prefix_cache, warm, preempted;
};
static const struct scenario scenarios[] = {
    {.name = "alone", .token_budget = 2048, .n_blocks = 1200},
    {.name = "batch of 64", .token_budget = 2048, .n_blocks = 1200, .n_others = N_BATCH - 1},
    {.name = "chunks of 16",
     .token_budget = 2048,
     .long_prefill_tokens = 16,
     .n_blocks = 1200,
     .n_others = 5},
    {.name = "steps of 16", .token_budget = 16, .n_blocks = 64, .n_others = 2},
    {.name = "prefix cache cold", .token_budget = 2048, .n_blocks = 1200, .prefix_cache = true},
    {.name = "prefix cache warm", .token_budget = 2048, .n_blocks = 1200, .prefix_cache = true, .warm = true},
    {.name = "warm, chunks of 7, a batch",
     .token_budget = 100,
     .long_prefill_tokens = 7,
     .n_blocks = 1200,
     .prefix_cache = true,
     .warm = true,
     .n_others = 20},
    /* All start with a block and come to hold seven, or three with a window: more than there are. */
    {.name = "preempted", .token_budget = 64, .n_blocks = 26, .n_others = 6, .preempted = true},
    {.name = "preempted, with the cache",
     .token_budget = 64,
     .n_blocks = 26,
     .n_others = 6,
     .preempted = true,
     .prefix_cache = true},
};

static void make_prompt(uint32_t *p, uint32_t n, uint64_t salt, uint32_t n_vocab) {
    for (uint32_t i = 0; i < n; i++)
        p[i] = (uint32_t)(hash_u64(salt * 1000 + i) % n_vocab);
}

struct outcome {
    uint32_t n_tokens;
    uint32_t tokens[N_OUT];
    uint64_t bits[N_OUT];
    float logprobs[N_OUT];
};

/* pool_size: as the scenario says; where some are to be preempted, a window's is just large enough to let all
 * in: with a block held and one to spare for each. */
static uint32_t pool_size(const struct loaded *l, const struct scenario *x, uint32_t g) {
    if (!x->preempted || l->groups[g].kind != CACHE_WINDOW)
        return x->n_blocks;
    struct kv_group window = {.kind = KV_WINDOW, .window = l->groups[g].window};
    return 2 * x->n_others + sched_blocks_needed(&window, MAX_LEN, x->token_budget);
}

static void run(struct loaded *l, const struct scenario *x, bool greedy, struct outcome *out) {
    uint32_t prompt[N_PROMPT];
    struct rig rig = {0};
    struct engine_opts o = {.ops = &l->ops,
                            .be = l->be,
                            .model = {forward, l->model},
                            .groups = l->groups,
                            .n_groups = l->n_groups,
                            .n_vocab = l->cfg.vocab,
                            .max_len = MAX_LEN,
                            .n_tokens_max = 2048,
                            .n_rows_max = N_BATCH,
                            .n_seqs_max = N_BATCH,
                            .token_budget = x->token_budget,
                            .long_prefill_tokens = x->long_prefill_tokens,
                            .n_requests_max = 256,
                            .n_routers_max = 1,
                            .prefix_cache = x->prefix_cache,
                            .n_top_max = 5};
    for (uint32_t g = 0; g < l->n_groups; g++)
        o.n_blocks[g] = pool_size(l, x, g);
    atomic_store(&gate_open, true);
    rig_start(&rig, &o);
    seen.n_rows = seen.n_rows_most = 0;
    uint32_t n_ends = 0;
    if (x->warm) {
        make_prompt(prompt, N_PROMPT, 0, l->cfg.vocab);
        struct req q = rig_req(900, prompt, N_PROMPT, 3);
        rig_submit(&rig, &q);
        rig_wait_ends(&rig, ++n_ends);
    }
    atomic_store(&gate_open, false);
    for (uint32_t i = 0; i <= x->n_others; i++) {
        bool target = i == x->n_others; /* the last to come: the first to be preempted */
        uint32_t n = target ? N_PROMPT : x->preempted ? 10 : 1 + (uint32_t)(hash_u64(i) % 30);
        make_prompt(prompt, n, target ? 0 : i + 1, l->cfg.vocab);
        struct req q = rig_req(i, prompt, n, target ? N_OUT : x->preempted ? 90 : 36);
        q.ignore_eos = true;
        q.temperature = target == greedy ? 0 : 0.8f; /* the others the other way */
        q.top_p = 0.95f;
        q.seed = target ? TARGET_SEED : i;
        q.n_logprobs = target ? 2 : -1;
        q.frequency_penalty = 0.3f;
        rig_submit(&rig, &q);
    }
    atomic_store(&gate_open, true);
    n_ends += x->n_others + 1;
    rig_wait_ends(&rig, n_ends);
    const struct rig_stream *s = &rig.streams[x->n_others];
    out->n_tokens = s->n_tokens;
    memcpy(out->tokens, s->tokens, sizeof out->tokens);
    memcpy(out->logprobs, s->logprobs, sizeof out->logprobs);
    memcpy(out->bits, seen.bits, sizeof out->bits);
    /* The scenario happened. */
    assert_int_equal(seen.n_rows, N_OUT);
    assert_int_equal(s->n_tokens, N_OUT);
    assert_int_equal(s->n_cached, x->warm ? N_PROMPT / KV_TOKENS * KV_TOKENS : 0);
    if ((s->n_preempted > 0) != x->preempted)
        fail_msg("%s: preempted %u times", x->name, s->n_preempted);
    if (x->n_others == N_BATCH - 1)
        assert_int_equal(seen.n_rows_most, N_BATCH);
    rig_stop(&rig);
    rig_free(&rig);
}

static void check_bits(const struct be_ops *ops, const char *name, bool greedy) {
    struct loaded l;
    struct outcome base, other;
    load(&l, name, ops);
    for (size_t i = 0; i < ARRAY_LEN(scenarios); i++) {
        run(&l, &scenarios[i], greedy, i ? &other : &base);
        for (uint32_t k = 0; i > 0 && k < N_OUT; k++)
            if (other.bits[k] != base.bits[k] || other.tokens[k] != base.tokens[k] ||
                memcmp(&other.logprobs[k], &base.logprobs[k], sizeof other.logprobs[k]) != 0)
                fail_msg("%s, %s, %s, %s: output %u differs: token %u, alone %u", ops->name, name,
                         greedy ? "greedy" : "seeded", scenarios[i].name, k, other.tokens[k], base.tokens[k]);
    }
    unload(&l);
}

static void UNUSED test_greedy(void **state) {
    (void)state;
    check_bits(&cpu_ops, "llama", true);
    check_bits(&cpu_ops, "mistral", true);
}

static void test_seeded(void **state) {
    (void)state;
    check_bits(&cpu_ops, "llama", false);
    check_bits(&cpu_ops, "mistral", false);
    check_bits(&cpu_ops, "qwen3", false);
}

static void UNUSED test_oracle(void **state) {
    (void)state;
    check_bits(&ref_ops, "llama", false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeded),
#ifndef WEIR_SANITIZE /* ten times slower, and the same code */
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_oracle),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
