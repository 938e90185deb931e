/* constraint.*: what 64 constrained sequences do to 64 free ones beside them, in one engine with
 * deploy/tiny-model: the 99th percentile of the time between two tokens of the free ones, and the CPU time of
 * the whole, each over the same with all 128 free. Each constrained sequence has a schema of its own. Run
 * from the project's root. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "tests/support/bench.h"
#include "worker/load.h"

enum { FREE = 64, ALL = 128, TOKENS = 160, ROUNDS = 5, N_PROMPT = 8 };

/* meter: gaps between tokens of the free streams. The engine's thread writes, the main thread waits. */
struct meter {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t n_ends, n_errors, n_gaps, n_other;
    uint64_t last_ns[FREE];
    double gaps_us[FREE * TOKENS];
};

static void on_step(void *arg, const struct step_out *out) {
    struct meter *m = arg;
    uint64_t now = clock_ns();
    pthread_mutex_lock(&m->lock);
    for (uint32_t r = 0; r < out->n_routers; r++) {
        for (uint32_t i = 0; i < out->routers[r].n_tokens; i++) {
            const struct token_out *t = &out->routers[r].tokens[i];
            if (t->stream < FREE && t->token != SEQ_NO_TOKEN) {
                if (m->last_ns[t->stream])
                    m->gaps_us[m->n_gaps++] = (double)(now - m->last_ns[t->stream]) / 1e3;
                m->last_ns[t->stream] = now;
            } else {
                m->n_other += t->token != SEQ_NO_TOKEN;
            }
            m->n_ends += t->finish != FINISH_NONE;
            m->n_errors += t->finish == FINISH_ERROR;
        }
    }
    if (m->n_ends == ALL)
        pthread_cond_signal(&m->ended);
    pthread_mutex_unlock(&m->lock);
}

/* schema_of: an object of some members, one of them a list that is long enough to outlast the run. */
static void schema_of(uint32_t i, struct buf *b) {
    static const char *const kinds[] = {"{\"type\":\"string\",\"maxLength\":20}", "{\"type\":\"integer\"}",
                                        "{\"enum\":[\"red\",\"green\",\"blue\"]}",
                                        "{\"type\":[\"number\",\"null\"]}",
                                        "{\"type\":\"string\",\"pattern\":\"^[a-z]{2,9}(-[0-9]+)?$\"}"};
    b->len = 0;
    buf_addf(b,
             "{\"type\":\"object\",\"required\":[\"n%u\",\"list\"],\"properties\":{\"n%u\":%s,\"list\":", i,
             i, kinds[i % 5]);
    buf_addf(
        b,
        "{\"type\":\"array\",\"minItems\":100,\"items\":{\"type\":\"object\",\"required\":[\"a\",\"b%u\"],",
        i);
    buf_addf(b, "\"properties\":{\"a\":%s,\"b%u\":%s,\"c\":{\"type\":\"boolean\"}}}}}}", kinds[i / 5 % 5], i,
             kinds[i / 25 % 5]);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* run: the p99 gap of the free sequences in microseconds; *cpu_s: what all took. */
static double run(struct load *l, struct meter *m, bool constrained, uint32_t round, double *cpu_s) {
    uint32_t prompt[N_PROMPT];
    struct buf schema = {0};
    struct err e = {0};
    double start_s = bench_cpu_s();
    pthread_mutex_lock(&m->lock);
    m->n_ends = m->n_errors = m->n_gaps = m->n_other = 0;
    memset(m->last_ns, 0, sizeof m->last_ns);
    pthread_mutex_unlock(&m->lock);
    for (uint32_t i = 0; i < ALL; i++) {
        for (uint32_t k = 0; k < N_PROMPT; k++)
            prompt[k] = 300 + (i * 7 + k * 3) % 500;
        struct req q = {.stream = i,
                        .n_samples = 1,
                        .arrival_ns = clock_ns(),
                        .prompt = prompt,
                        .n_prompt = N_PROMPT,
                        .max_tokens = TOKENS,
                        .ignore_eos = true,
                        .temperature = 1,
                        .top_p = 1,
                        .repetition_penalty = 1,
                        .seed = i,
                        .n_logprobs = -1,
                        .n_prompt_logprobs = -1};
        q.id.b[0] = (uint8_t)i;
        q.id.b[1] = (uint8_t)round;
        q.id.b[2] = 1 + constrained;
        schema_of(i, &schema);
        if (constrained && i >= FREE)
            CHECK(constraint_get(l->constraints, GRAM_JSON_SCHEMA, buf_str(&schema), (struct str){0},
                                 &q.constraint, &e) == RC_OK);
        if (engine_submit(l->engine, req_new(&q), &e) != RC_OK) {
            fprintf(stderr, "bench_constraint: %s\n", e.msg);
            exit(1);
        }
    }
    pthread_mutex_lock(&m->lock);
    while (m->n_ends < ALL)
        pthread_cond_wait(&m->ended, &m->lock);
    CHECK(m->n_errors == 0);
    qsort(m->gaps_us, m->n_gaps, sizeof *m->gaps_us, ascending);
    double p99 = m->gaps_us[m->n_gaps * 99 / 100];
    *cpu_s = bench_cpu_s() - start_s;
    pthread_mutex_unlock(&m->lock);
    buf_fini(&schema);
    return p99;
}

int main(void) {
    struct meter *m = xcalloc(1, sizeof *m);
    struct load l = {0};
    struct worker_flags f;
    struct err e = {0};
    struct engine_opts o = {.arg = m, .on_step = on_step};
    worker_flags_init(&f);
    f.max_num_seqs = ALL;
    f.max_num_batched_tokens = 512;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->ended, NULL);
    if (load_files(&l, "deploy/tiny-model", &f, &e) || load_model(&l, &f, &o, NULL, NULL, &e) ||
        engine_start(l.engine, &e)) {
        fprintf(stderr, "bench_constraint: %s\n", e.msg);
        return 1;
    }
    double free_us[ROUNDS], beside_us[ROUNDS], free_s[ROUNDS], beside_s[ROUNDS], first_us = 0;
    run(&l, m, false, 250, free_s);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        free_us[i] = run(&l, m, false, i, &free_s[i]);
        beside_us[i] = run(&l, m, true, i, &beside_s[i]);
        if (i == 0)
            first_us = beside_us[0]; /* with 64 schemas to compile */
    }
    qsort(free_us, ROUNDS, sizeof *free_us, ascending);
    qsort(beside_us, ROUNDS, sizeof *beside_us, ascending);
    qsort(free_s, ROUNDS, sizeof *free_s, ascending);
    qsort(beside_s, ROUNDS, sizeof *beside_s, ascending);
    double a = free_us[ROUNDS / 2], b = beside_us[ROUNDS / 2];
    char params[256];
    snprintf(params, sizeof params,
             "{\"free\":%d,\"constrained\":%d,\"tokens\":%d,\"p99_all_free_us\":%.0f,\"p99_beside_us\":%.0f,"
             "\"p99_beside_cold_us\":%.0f}",
             FREE, ALL - FREE, TOKENS, a, b, first_us);
    bench_emit("constraint.free_p99_ratio", b / a, "x", params);
    bench_emit("constraint.cpu_ratio", beside_s[ROUNDS / 2] / free_s[ROUNDS / 2], "x", params);
    engine_stop(l.engine);
    load_free(&l);
    free(m);
    return 0;
}
