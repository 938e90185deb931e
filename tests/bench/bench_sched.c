/* bench_sched: what the scheduler costs beside the model: one step of 256 decoding sequences, from plan to
 * accepted tokens, arrays for the backend included; and the admission of a prompt that the prefix cache holds
 * whole.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/bench.h"
#include "tests/support/engine_rig.h"
#include "worker/batch.h"

enum { N_SEQS = 256, N_PROMPT = 1000, MAX_LEN = 4096, N_STEPS = 1000, N_REPEATS = 200 };

static void step(struct sched *s, struct batch_arrays *b) {
    const struct step_plan *p = sched_plan(s, 1);
    batch_build(b, s, p);
    sched_computed(s);
    for (uint32_t i = 0; i < p->n_sample_rows; i++) {
        struct seq *q = p->rows[i].seq;
        if (seq_accept(q, 7, MAX_LEN))
            sched_end(s, q);
    }
}

static struct req *submit(struct sched *s, uint64_t salt, uint32_t n_prompt, uint32_t max_tokens) {
    static uint32_t prompt[MAX_LEN];
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (uint32_t)(salt * MAX_LEN + i);
    struct req q = rig_req(salt, prompt, n_prompt, max_tokens), *r = req_new(&q);
    req_prepare(r, NULL, 0, true);
    sched_add(s, r);
    return r;
}

int main(void) {
    struct kv_group group = {.kind = KV_FULL, .n_blocks = N_SEQS * MAX_LEN / KV_TOKENS};
    struct sched_opts o = {.groups = &group, .n_groups = 1, .max_len = MAX_LEN, .n_seqs_max = N_SEQS};
    o.token_budget = 2048;
    o.n_rows_max = N_SEQS;
    o.prefix_cache = true;
    static struct req *reqs[N_SEQS];
    struct sched s;
    struct batch_arrays b;
    sched_init(&s, &o);
    batch_init(&b, &s);
    for (uint32_t i = 0; i < N_SEQS; i++)
        reqs[i] = submit(&s, i, N_PROMPT, N_STEPS + 1000);
    while (s.n_running < N_SEQS || s.plan.n_entries < N_SEQS || s.plan.n_prefill_tokens > 0)
        step(&s, &b);
    double from = bench_cpu_s();
    for (int i = 0; i < N_STEPS; i++)
        step(&s, &b);
    char params[96];
    snprintf(params, sizeof params, "{\"sequences\":%d,\"prompt_tokens\":%d}", N_SEQS, N_PROMPT);
    bench_emit("sched.decode_step_us", (bench_cpu_s() - from) / N_STEPS * 1e6, "us", params);
    for (uint32_t i = 0; i < N_SEQS; i++) {
        sched_end(&s, &reqs[i]->seqs[0]);
        req_free(reqs[i]);
    }
    double spent = 0;
    for (int i = 0; i <= N_REPEATS; i++) { /* the first one fills the cache */
        struct req *r = submit(&s, N_SEQS, 4000, 1);
        from = bench_cpu_s();
        while (!sched_idle(&s))
            step(&s, &b);
        spent += i ? bench_cpu_s() - from : 0;
        req_free(r);
    }
    bench_emit("sched.cached_admission_us", spent / N_REPEATS * 1e6, "us", "{\"prompt_tokens\":4000}");
    batch_fini(&b);
    sched_fini(&s);
    return 0;
}
