/* engine_pull.c: blocks of a prompt from another worker, before the scheduler sees its request. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/engine_kvx.h"

/* ---- the pull's thread -------------------------------------------------------------------------- */

static int sink_room(void *arg) {
    struct kvx_pull *p = arg;
    atomic_store(&p->opened, true);
    p->room = (struct kvx_job){.kind = JOB_ROOM, .until_ns = clock_ns() + KVX_ROOM_MS * NS_PER_MS};
    p->room.p.pull = p;
    kvx_post(p->e->kvx, p->e, &p->room);
    return kvx_await(p->e->kvx, &p->room);
}

static void sink_put(void *arg, unsigned buffer, uint32_t group, uint32_t from, uint32_t n, const uint8_t *data) {
    struct kvx_pull *p = arg;
    struct kvx_job *j = &p->import[buffer][group];
    *j = (struct kvx_job){.kind = JOB_IMPORT, .until_ns = UINT64_MAX};
    j->p.pull = p;
    j->p.group = group;
    j->p.from = from;
    j->p.n = n;
    j->p.data = data;
    kvx_post(p->e->kvx, p->e, j);
}

static bool sink_settle(void *arg, unsigned buffer) {
    struct kvx_pull *p = arg;
    bool ok = true;
    for (uint32_t g = 0; g < p->o.layout.n_groups; g++)
        ok &= kvx_await(p->e->kvx, &p->import[buffer][g]) >= 0;
    return ok && !atomic_load(&p->stop);
}

static void *pull_main(void *arg) {
    struct kvx_pull *p = arg;
    struct engine *e = p->e;
    p->rc = kvx_pull_run(&p->o, &p->io, &p->stats, &p->why, &p->err);
    p->end = (struct kvx_job){.kind = JOB_END, .until_ns = UINT64_MAX};
    p->end.p.pull = p;
    kvx_post(e->kvx, e, &p->end); /* from here on p is the engine's */
    return NULL;
}

/* ---- beginning ---------------------------------------------------------------------------------- */

/* fall_back: the request computes its prompt itself, or fails. True: it is over. */
static bool fall_back(struct engine *e, struct req *r, enum kvx_fallback why, const char *text) {
    static const char *const words[N_KVX_FALLBACK] = {"params", "busy", "refused", "mismatch", "network", "protocol"};
    struct kvx *k = e->kvx;
    /* What a router arranged by itself its client knows nothing of: it does not fail by it. */
    const bool fails = k->o.must_load && !r->kv.early;
    LOG(LOG_WARN, "KV transfer failed", F_ID("request", r->id), F_STR("kind", words[why]), F_STR("reason", text),
        F_STR("then", fails ? "the request fails" : "its prompt is computed here"));
    k->stats.fallbacks[why]++;
    if (!fails)
        return false;
    engine_end_all(e, r, FINISH_ERROR, "the KV cache could not be loaded from the prefill worker", 503, false);
    return true;
}

/* keep_local: how many leading blocks of the prompt are in the cache here; they are kept from now on, if there is room. */
static uint32_t keep_local(struct engine *e, struct kvx_pull *p, const struct req *r) {
    struct sched *s = &e->sched;
    uint32_t n = prefix_match(&s->prefix, r->hashes, p->o.end);
    for (uint32_t g = 0; g < s->opts.n_groups; g++)
        if (sched_keep_room(s, g) < e->kvx->reserved[g] + p->o.end) /* for these and the rest; else all of it is pulled */
            n = 0;
    for (uint32_t g = 0; g < s->opts.n_groups; g++)
        for (uint32_t i = kv_group_first(&s->group[g], n * KV_TOKENS); i < n; i++) {
            p->kept[g][i] = prefix_find(&s->prefix, g, r->hashes[i]);
            CHECK(p->kept[g][i] != KV_NO_BLOCK);
            sched_keep(s, g, p->kept[g][i]);
        }
    return n;
}

static void pull_delete(struct kvx_pull *p) {
    kvx_io_fini(&p->io);
    for (uint32_t g = 0; g < BE_GROUPS_MAX; g++)
        free(p->kept[g]);
    free(p->ids);
    free(p);
}

static struct kvx_pull *pull_new(struct engine *e, struct req *r, uint32_t n_blocks) {
    struct kvx *k = e->kvx;
    struct kvx_pull *p = xcalloc(1, sizeof *p);
    p->e = e;
    p->req = r;
    snprintf(p->host, sizeof p->host, "%s", r->kv.host);
    p->o = (struct kvx_pull_opts){.host = p->host, .port = r->kv.port, .secret = k->o.secret, .layout = k->layout};
    p->o.tls = k->o.tls;
    p->o.sink = (struct kvx_sink){p, sink_room, sink_put, sink_settle};
    p->o.end = MIN(n_blocks, (r->n_prompt - 1) / KV_TOKENS);
    struct kvx_open *o = &p->o.open;
    *o = (struct kvx_open){.transfer = r->kv.transfer, .engine = r->kv.engine, .n_blocks = n_blocks, .early = r->kv.early};
    memcpy(o->revision, k->o.revision, sizeof o->revision);
    memcpy(o->domain, r->domain, sizeof o->domain);
    o->chain = r->hashes[n_blocks - 1];
    if (r->kv.n_blocks == n_blocks) {
        p->ids = xmalloc(4 * (size_t)n_blocks);
        for (size_t i = 0; i < 4 * (size_t)n_blocks; i++)
            p->ids[i] = (uint8_t)(r->kv.blocks[i / 4] >> (8 * (i % 4)));
        o->ids = p->ids;
        o->n_ids = n_blocks;
    }
    for (uint32_t g = 0; g < k->layout.n_groups; g++) {
        p->kept[g] = xmalloc((p->o.end + 1) * sizeof(uint32_t));
        for (uint32_t i = 0; i < p->o.end; i++)
            p->kept[g][i] = KV_NO_BLOCK;
    }
    return p;
}

/* says_enough: what the request tells of the other side is complete, and can be of its prompt. */
static bool says_enough(const struct req *r, uint32_t *n_blocks) {
    static const struct id128 none;
    const struct req_kv *v = &r->kv;
    *n_blocks = v->early ? r->n_hashes : v->n_tokens / KV_TOKENS;
    return !id128_eq(v->transfer, none) && !id128_eq(v->engine, none) && v->host[0] && v->port && *n_blocks > 0 &&
           *n_blocks <= r->n_hashes && (v->n_blocks == 0 || v->n_blocks == *n_blocks);
}

bool kvx_pull_begin(struct engine *e, struct req *r) {
    struct kvx *k = e->kvx;
    const struct seq *q = &r->seqs[0];
    struct err err;
    uint32_t n_blocks;
    sigset_t all, before;
    if (!k->o.consumes || !says_enough(r, &n_blocks))
        return fall_back(e, r, KVX_FALL_PARAMS, "kv_transfer_params name no transfer of this prompt");
    if (k->n_pulls == KVX_PULLS_MAX) {
        kvx_tell(e, &r->kv);
        return fall_back(e, r, KVX_FALL_BUSY, "too many transfers run");
    }
    struct kvx_pull *p = pull_new(e, r, n_blocks);
    if (kvx_io_init(&p->io, &err)) {
        pull_delete(p);
        return fall_back(e, r, KVX_FALL_BUSY, err.msg);
    }
    /* Log-probabilities of the prompt are computed, not fetched: the other side only learns that it is over. */
    bool wanted = !seq_wants_prompt_rows(q) && q->req->n_prompt_logprobs < 0;
    p->local = wanted ? keep_local(e, p, r) : p->o.end;
    for (uint32_t g = 0; g < k->layout.n_groups; g++)
        p->o.from[g] = MIN(p->o.end, MAX(p->local, kv_group_first(&e->sched.group[g], p->o.end * KV_TOKENS)));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&p->thread, NULL, pull_main, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    p->next = k->pulls;
    k->pulls = p;
    r->pull = p;
    if (failed) {
        p->landed = true;
        kvx_pull_forget(e, p);
        return fall_back(e, r, KVX_FALL_BUSY, "no thread for a transfer");
    }
    k->n_pulls++;
    r->pulling = wanted && p->local < p->o.end;
    return r->pulling;
}

/* ---- the engine's thread ------------------------------------------------------------------------ */

/* let_go: nothing is kept for the pull any more. */
static void let_go(struct engine *e, struct kvx_pull *p) {
    for (uint32_t g = 0; g < p->o.layout.n_groups; g++) {
        for (uint32_t i = p->o.end; i-- > 0;) {
            if (p->kept[g][i] != KV_NO_BLOCK)
                sched_unkeep(&e->sched, g, p->kept[g][i]);
            p->kept[g][i] = KV_NO_BLOCK;
        }
        e->kvx->reserved[g] -= p->reserved[g];
        p->reserved[g] = 0;
    }
}

static void unlink_pull(struct kvx *k, struct kvx_pull *p) {
    struct kvx_pull **at = &k->pulls;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
}

void kvx_pull_forget(struct engine *e, struct kvx_pull *p) {
    if (p->req)
        p->req->pull = NULL;
    p->req = NULL;
    if (p->landed) {
        let_go(e, p);
        unlink_pull(e->kvx, p);
        pull_delete(p);
        return;
    }
    /* A pull that has been granted ends now, which tells the other side. One that has not goes on until then, and tells it
     * by its end. Either way END comes soon. */
    atomic_store(&p->stop, true);
    if (atomic_load(&p->opened))
        kvx_io_stop(&p->io);
}

void kvx_pull_stop(struct req *r) {
    if (!r->pull || !r->pulling)
        return;
    atomic_store(&r->pull->stop, true);
    kvx_io_stop(&r->pull->io); /* END comes soon, and finds a pull that has failed */
}

/* reserve: room for all that is to come. */
static bool reserve(struct engine *e, struct kvx_pull *p) {
    struct kvx *k = e->kvx;
    for (uint32_t g = 0; g < p->o.layout.n_groups; g++)
        if (sched_keep_room(&e->sched, g) < k->reserved[g] + p->o.end - p->o.from[g])
            return false;
    for (uint32_t g = 0; g < p->o.layout.n_groups; g++) {
        p->reserved[g] = p->o.end - p->o.from[g];
        k->reserved[g] += p->reserved[g];
    }
    return true;
}

/* import: takes blocks for what has come, and fills them. false: not now. */
static bool import(struct engine *e, struct kvx_pull *p, struct kvx_job *j) {
    struct sched *s = &e->sched;
    const uint32_t g = j->p.group, n = j->p.n;
    CHECK(j->p.from >= p->o.from[g] && j->p.from + n <= p->o.end && n <= p->reserved[g]);
    if (kv_available(&s->pool[g]) < n || sched_keep_room(s, g) < n)
        return false;
    uint32_t *to = p->kept[g] + j->p.from;
    for (uint32_t i = 0; i < n; i++) {
        to[i] = sched_keep_new(s, g);
        CHECK(to[i] != KV_NO_BLOCK);
    }
    p->reserved[g] -= n;
    e->kvx->reserved[g] -= n;
    j->result = kvx_move_in(e, g, to, n, j->p.data) ? 1 : -1;
    for (uint32_t i = 0; i < n && j->result > 0; i++)
        prefix_name(&s->prefix, g, to[i], p->req->hashes[j->p.from + i]);
    return true;
}

static enum kvx_fallback fallback_of(const struct kvx_pull *p) {
    if (p->rc == RC_PROTO)
        return KVX_FALL_PROTOCOL;
    if (p->rc == RC_INVALID || p->why == KVX_MISMATCH)
        return KVX_FALL_MISMATCH;
    if (p->why)
        return KVX_FALL_REFUSED;
    if (atomic_load(&p->stop)) /* the router knows that nothing will come */
        return KVX_FALL_NETWORK;
    return p->rc == RC_AGAIN ? KVX_FALL_BUSY : KVX_FALL_NETWORK;
}

/* land: the thread is over: the request goes on, with what has come. What came before a failure is good, too. */
static void land(struct engine *e, struct kvx_pull *p) {
    struct kvx *k = e->kvx;
    struct req *r = p->req;
    pthread_join(p->thread, NULL);
    p->landed = true;
    k->n_pulls--;
    kvx_count(&k->stats, p->rc == RC_OK, p->stats.n_bytes, p->stats.ns);
    if (!r) {
        kvx_pull_forget(e, p);
        return;
    }
    if (!r->pulling) { /* nothing was missing */
        if (p->rc)
            LOG(LOG_DEBUG, "KV transfer: the other side was not told", F_STR("reason", p->err.msg));
        return;
    }
    r->pulling = false;
    r->pull_ns = clock_ns() - r->arrival_ns;
    if (p->rc && fall_back(e, r, fallback_of(p), p->err.msg))
        return;
    engine_release(e, r);
}

bool kvx_pull_try(struct engine *e, struct kvx_job *j, uint64_t now_ns) {
    struct kvx *k = e->kvx;
    struct kvx_pull *p = j->p.pull;
    int result = 1;
    if (j->kind == JOB_END) {
        /* The thread lets go of the job by the lock it posted it under. */
        land(e, p);
        return true;
    }
    if (!p->req || e->failed || atomic_load(&p->stop)) {
        result = -1;
    } else if (j->kind == JOB_ROOM) {
        bool room = reserve(e, p);
        if (!room && now_ns < j->until_ns)
            return false;
        result = room;
    } else {
        if (!import(e, p, j))
            return false;
        result = j->result;
    }
    pthread_mutex_lock(&k->mu);
    j->result = result;
    j->done = true;
    pthread_cond_broadcast(&k->answered);
    pthread_mutex_unlock(&k->mu);
    return true;
}

void kvx_pull_sweep(struct engine *e) {
    for (struct kvx_pull *p = e->kvx->pulls, *next; p; p = next) {
        next = p->next;
        if (p->landed && p->req && p->req->admitted_ns)
            kvx_pull_forget(e, p);
    }
}

void kvx_pulls_free(struct engine *e) {
    struct kvx *k = e->kvx;
    while (k->pulls) {
        struct kvx_pull *p = k->pulls;
        if (!p->landed) {
            kvx_io_stop(&p->io);
            pthread_join(p->thread, NULL);
            p->landed = true;
            k->n_pulls--;
        }
        kvx_pull_forget(e, p);
    }
}

/* ---- statistics --------------------------------------------------------------------------------- */

void kvx_count(struct kvx_stats *s, bool ok, uint64_t n_bytes, uint64_t ns) {
    static const uint64_t bound_ns[KVX_BUCKETS - 1] = {10000,    100000,    500000,    1000000,    5000000,  10000000,
                                                       50000000, 100000000, 500000000, 1000000000, 5000000000};
    static const uint64_t bound_bytes[KVX_BUCKETS - 1] = {
        1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30, 1ull << 32};
    uint32_t i = 0, k = 0;
    s->n_failed += !ok;
    if (!ok || n_bytes == 0)
        return;
    while (i < KVX_BUCKETS - 1 && ns > bound_ns[i])
        i++;
    while (k < KVX_BUCKETS - 1 && n_bytes > bound_bytes[k])
        k++;
    s->times[i]++;
    s->sizes[k]++;
    s->ns += ns;
    s->n_bytes += n_bytes;
}
