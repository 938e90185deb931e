#include "tests/support/engine_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "tests/support/fake_be.h"

enum { PATIENCE_S = 60 };

const uint32_t rig_eos[2] = {97, 98};

struct engine_opts rig_opts(struct be *be, struct cache_group_spec *group) {
    *group = (struct cache_group_spec){.kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = 1, .head_dim = 8};
    return (struct engine_opts){.ops = &fake_ops,
                                .be = be,
                                .model = {.forward = fake_forward, .arg = be},
                                .groups = group,
                                .n_groups = 1,
                                .n_blocks = {512},
                                .n_vocab = FAKE_VOCAB,
                                .max_len = 256,
                                .n_tokens_max = 256,
                                .n_rows_max = 96,
                                .n_seqs_max = 64,
                                .token_budget = 128,
                                .n_requests_max = 512,
                                .n_routers_max = RIG_ROUTERS,
                                .prefix_cache = true,
                                .eos_ids = rig_eos,
                                .n_eos_ids = ARRAY_LEN(rig_eos),
                                .n_top_max = 20};
}

void rig_prompt(uint32_t *p, uint32_t n, uint64_t salt) {
    for (uint32_t i = 0; i < n; i++)
        p[i] = (uint32_t)(hash_u64(salt * 1000 + i) % 90);
}

static void record_first(struct rig_stream *s, const struct first_out *f) {
    s->n_firsts++;
    s->n_cached = f->n_cached;
    s->n_prompt = f->n_prompt;
    if (!f->prompt)
        return;
    CHECK(f->n_prompt <= RIG_PROMPT);
    s->n_prompt_logprobs = f->n_prompt;
    memcpy(s->prompt, f->prompt, f->n_prompt * sizeof *f->prompt);
    size_t n = MIN((size_t)f->n_prompt * f->n_prompt_top, (size_t)RIG_PROMPT);
    memcpy(s->prompt_top_ids, f->prompt_top_ids, n * sizeof *f->prompt_top_ids);
    memcpy(s->prompt_top_logprobs, f->prompt_top_logprobs, n * sizeof *f->prompt_top_logprobs);
}

static void record(struct rig *r, const struct token_out *t) {
    CHECK(t->stream < RIG_STREAMS && t->stream == t->req->stream + t->sample);
    struct rig_stream *s = &r->streams[t->stream];
    CHECK(s->n_ends == 0); /* nothing comes after the end */
    s->router = t->req->router;
    if (t->first)
        record_first(s, t->first);
    if (t->token != SEQ_NO_TOKEN) {
        CHECK(s->n_tokens < RIG_TOKENS && s->n_firsts == 1);
        s->logprobs[s->n_tokens] = t->has_logprob ? t->logprob : 1;
        for (uint32_t i = 0; i < MIN(t->n_top, (uint32_t)RIG_TOP); i++) {
            s->top_ids[s->n_tokens][i] = t->top_ids[i];
            s->top_logprobs[s->n_tokens][i] = t->top_logprobs[i];
        }
        s->tokens[s->n_tokens++] = t->token;
    }
    if (t->finish == FINISH_NONE)
        return;
    s->n_ends++;
    s->finish = t->finish;
    s->stop_id = t->stop_id;
    s->eos = t->eos;
    s->status = t->status;
    s->n_preempted = t->n_preempted;
    snprintf(s->message, sizeof s->message, "%s", t->message ? t->message : "");
    const struct kv_offer *o = t->req->offer;
    if (o) {
        CHECK(o->n_blocks <= RIG_OFFER);
        s->offered = true;
        s->transfer = o->transfer;
        s->expiry_unix_s = o->expiry_unix_s;
        s->n_offer = o->n_blocks;
        memcpy(s->offer, o->blocks, o->n_blocks * sizeof *o->blocks);
    }
    r->n_ends++;
}

static void on_step(void *arg, const struct step_out *out) {
    struct rig *r = arg;
    pthread_mutex_lock(&r->lock);
    for (uint32_t i = 0; i < out->n_routers; i++) {
        CHECK(out->routers[i].n_tokens > 0 &&
              (i == 0 || out->routers[i].router > out->routers[i - 1].router));
        for (uint32_t k = 0; k < out->routers[i].n_tokens; k++) {
            CHECK(out->routers[i].tokens[k].req->router == out->routers[i].router);
            record(r, &out->routers[i].tokens[k]);
        }
    }
    r->n_steps++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->watch)
        r->watch(r, out);
}

static void on_control(void *arg, uint32_t router, uint32_t epoch, uint64_t id, bool ok) {
    struct rig *r = arg;
    (void)router, (void)epoch, (void)id;
    pthread_mutex_lock(&r->lock);
    r->n_controls++;
    r->control_ok = ok;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void on_drained(void *arg) {
    struct rig *r = arg;
    pthread_mutex_lock(&r->lock);
    r->n_drained++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void on_failed(void *arg, const char *message) {
    struct rig *r = arg;
    CHECK(message[0]);
    pthread_mutex_lock(&r->lock);
    r->n_failed++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void rig_start(struct rig *r, struct engine_opts *o) {
    struct err e = {0};
    struct rig before = *r;
    *r = (struct rig){.watch = before.watch, .watch_arg = before.watch_arg};
    CHECK(pthread_mutex_init(&r->lock, NULL) == 0 && pthread_cond_init(&r->changed, NULL) == 0);
    r->streams = xcalloc(RIG_STREAMS, sizeof *r->streams);
    o->arg = r;
    o->on_step = on_step;
    o->on_control = on_control;
    o->on_drained = on_drained;
    o->on_failed = on_failed;
    if (engine_new(&r->engine, o, &e) != RC_OK || engine_start(r->engine, &e) != RC_OK) {
        fprintf(stderr, "engine: %s\n", e.msg);
        abort();
    }
}

void rig_stop(struct rig *r) {
    engine_stop(r->engine);
    engine_free(r->engine);
    r->engine = NULL;
}

void rig_free(struct rig *r) {
    if (r->engine)
        rig_stop(r);
    free(r->streams);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
}

struct req rig_req(uint64_t stream, const uint32_t *prompt, uint32_t n_prompt, uint32_t max_tokens) {
    struct req q = {.stream = stream,
                    .n_samples = 1,
                    .arrival_ns = clock_ns(),
                    .prompt = prompt,
                    .n_prompt = n_prompt,
                    .cache_read = true,
                    .cache_write = true,
                    .max_tokens = max_tokens,
                    .temperature = 0,
                    .top_p = 1,
                    .repetition_penalty = 1,
                    .n_logprobs = -1,
                    .n_prompt_logprobs = -1};
    memcpy(q.id.b, &stream, sizeof stream);
    q.id.b[15] = 1;
    return q;
}

void rig_submit(struct rig *r, const struct req *q) {
    struct err e = {0};
    if (engine_submit(r->engine, req_new(q), &e) != RC_OK) {
        fprintf(stderr, "submit: %s\n", e.msg);
        abort();
    }
}

/* wait_locked: one wakeup, or the end of all patience. */
static void wait_locked(struct rig *r, const char *what) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    if (pthread_cond_timedwait(&r->changed, &r->lock, &until)) {
        fprintf(stderr, "nothing happened while waiting for %s\n", what);
        abort();
    }
}

void rig_wait_ends(struct rig *r, uint32_t n) {
    pthread_mutex_lock(&r->lock);
    while (r->n_ends < n)
        wait_locked(r, "ends");
    CHECK(r->n_ends == n);
    pthread_mutex_unlock(&r->lock);
}

void rig_wait_tokens(struct rig *r, uint64_t stream, uint32_t n) {
    pthread_mutex_lock(&r->lock);
    while (r->streams[stream].n_tokens < n && !r->streams[stream].n_ends)
        wait_locked(r, "tokens");
    pthread_mutex_unlock(&r->lock);
}

void rig_wait_idle(struct rig *r) {
    struct engine_stats s;
    for (int ms = 0; ms < PATIENCE_S * 1000; ms++) {
        engine_stats_get(r->engine, &s);
        if (s.running == 0 && s.waiting == 0 && s.kv_used_blocks == 0 && s.step_done_ns == 0)
            return;
        usleep(1000);
    }
    fprintf(stderr, "running %u waiting %u blocks %u\n", s.running, s.waiting, s.kv_used_blocks);
    abort();
}

void rig_clear(struct rig *r) {
    pthread_mutex_lock(&r->lock);
    memset(r->streams, 0, RIG_STREAMS * sizeof *r->streams);
    r->n_ends = r->n_steps = 0;
    pthread_mutex_unlock(&r->lock);
}
