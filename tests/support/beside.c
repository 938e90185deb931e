#include "tests/support/beside.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "tests/support/bench.h"
#include "worker/load.h"

enum { FREE = BESIDE_EACH, ALL = 2 * BESIDE_EACH, TOKENS_MAX = 512, N_PROMPT = 8 };

/* The engine's thread writes what is under the lock, the caller's waits. */
struct beside {
    struct load load;
    struct worker_flags flags;
    uint32_t n_runs;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t n_ends, n_errors, n_gaps;
    uint64_t last_ns[FREE];
    double gaps_us[FREE * TOKENS_MAX];
};

static void on_step(void *arg, const struct step_out *out) {
    struct beside *b = arg;
    uint64_t now = clock_ns();
    pthread_mutex_lock(&b->lock);
    for (uint32_t r = 0; r < out->n_routers; r++) {
        for (uint32_t i = 0; i < out->routers[r].n_tokens; i++) {
            const struct token_out *t = &out->routers[r].tokens[i];
            if (t->stream < FREE && t->token != SEQ_NO_TOKEN) {
                if (b->last_ns[t->stream])
                    b->gaps_us[b->n_gaps++] = (double)(now - b->last_ns[t->stream]) / 1e3;
                b->last_ns[t->stream] = now;
            }
            b->n_ends += t->finish != FINISH_NONE;
            b->n_errors += t->finish == FINISH_ERROR;
        }
    }
    if (b->n_ends == ALL)
        pthread_cond_signal(&b->ended);
    pthread_mutex_unlock(&b->lock);
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
        "{\"type\":\"array\",\"minItems\":400,\"items\":{\"type\":\"object\",\"required\":[\"a\",\"b%u\"],",
        i);
    buf_addf(b, "\"properties\":{\"a\":%s,\"b%u\":%s,\"c\":{\"type\":\"boolean\"}}}}}}", kinds[i / 5 % 5], i,
             kinds[i / 25 % 5]);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void submit(struct beside *b, uint32_t i, enum beside_kind kind, uint32_t n_tokens) {
    uint32_t prompt[N_PROMPT];
    struct buf schema = {0};
    struct err e = {0};
    for (uint32_t k = 0; k < N_PROMPT; k++)
        prompt[k] = 300 + (i * 7 + k * 3) % 500;
    struct req q = {.stream = i,
                    .n_samples = 1,
                    .arrival_ns = clock_ns(),
                    .prompt = prompt,
                    .n_prompt = N_PROMPT,
                    .max_tokens = n_tokens,
                    .ignore_eos = true,
                    .temperature = 1,
                    .top_p = 1,
                    .repetition_penalty = 1,
                    .seed = i,
                    .n_logprobs = -1,
                    .n_prompt_logprobs = -1};
    q.id.b[0] = (uint8_t)i;
    q.id.b[1] = (uint8_t)b->n_runs;
    q.id.b[2] = (uint8_t)(b->n_runs >> 8);
    schema_of(kind == BESIDE_SHARED ? 0 : i, &schema);
    if (kind != BESIDE_FREE && i >= FREE &&
        constraint_get(b->load.constraints, GRAM_JSON_SCHEMA, buf_str(&schema), (struct str){0},
                       &q.constraint, &e)) {
        fprintf(stderr, "beside: %s\n", e.msg);
        abort();
    }
    if (engine_submit(b->load.engine, req_new(&q), &e)) {
        fprintf(stderr, "beside: %s\n", e.msg);
        abort();
    }
    buf_fini(&schema);
}

struct beside_run beside_run(struct beside *b, enum beside_kind kind, uint32_t n_tokens) {
    struct beside_run out = {.cpu_s = bench_cpu_s(), .wall_s = bench_now_s()};
    CHECK(n_tokens >= 2 && n_tokens <= TOKENS_MAX);
    pthread_mutex_lock(&b->lock);
    b->n_runs++;
    b->n_ends = b->n_errors = b->n_gaps = 0;
    memset(b->last_ns, 0, sizeof b->last_ns);
    pthread_mutex_unlock(&b->lock);
    for (uint32_t i = 0; i < ALL; i++)
        submit(b, i, kind, n_tokens);
    pthread_mutex_lock(&b->lock);
    while (b->n_ends < ALL)
        pthread_cond_wait(&b->ended, &b->lock);
    CHECK(b->n_errors == 0 && b->n_gaps > 0);
    qsort(b->gaps_us, b->n_gaps, sizeof *b->gaps_us, ascending);
    out.p99_us = b->gaps_us[b->n_gaps * 99 / 100];
    pthread_mutex_unlock(&b->lock);
    out.cpu_s = bench_cpu_s() - out.cpu_s;
    out.wall_s = bench_now_s() - out.wall_s;
    return out;
}

static void give_back(struct beside *b) {
    const struct conf_table t = {.flags = worker_flag_rows, .n_flags = n_worker_flag_rows};
    struct conf_list none = {0};
    load_free(&b->load);
    conf_free(&t, &b->flags, &none);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->ended);
    free(b);
}

enum rc beside_open(struct beside **out, struct err *e) {
    struct beside *b = xcalloc(1, sizeof *b);
    struct engine_opts o = {.arg = b, .on_step = on_step};
    worker_flags_init(&b->flags);
    b->flags.max_num_seqs = ALL;
    b->flags.max_num_batched_tokens = 512;
    CHECK(pthread_mutex_init(&b->lock, NULL) == 0 && pthread_cond_init(&b->ended, NULL) == 0);
    enum rc rc = load_files(&b->load, "deploy/tiny-model", &b->flags, e);
    if (!rc)
        rc = load_model(&b->load, &b->flags, &o, NULL, NULL, e);
    if (!rc)
        rc = engine_start(b->load.engine, e);
    if (rc)
        give_back(b);
    else
        *out = b;
    return rc;
}

void beside_close(struct beside *b) {
    engine_stop(b->load.engine);
    give_back(b);
}
