/* engine_kvx.c: jobs of KV transfers, and what readers of this engine's blocks get. */
#include "worker/engine_kvx.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"

/* ---- jobs --------------------------------------------------------------------------------------- */

void kvx_post(struct kvx *k, struct engine *e, struct kvx_job *j) {
    pthread_mutex_lock(&k->mu);
    j->next = NULL;
    j->posted = true;
    j->done = k->closed;
    if (k->closed) {
        j->result = -1;
    } else {
        *k->in_last = j;
        k->in_last = &j->next;
    }
    pthread_mutex_unlock(&k->mu);
    inbox_poke(&e->inbox);
}

int kvx_await(struct kvx *k, struct kvx_job *j) {
    pthread_mutex_lock(&k->mu);
    while (j->posted && !j->done)
        pthread_cond_wait(&k->answered, &k->mu);
    int result = j->result;
    j->posted = j->done = false;
    pthread_mutex_unlock(&k->mu);
    return result;
}

static void answer(struct kvx *k, struct kvx_job *j, int result) {
    pthread_mutex_lock(&k->mu);
    j->result = result;
    j->done = true;
    pthread_cond_broadcast(&k->answered);
    pthread_mutex_unlock(&k->mu);
}

/* ---- moving ------------------------------------------------------------------------------------- */

/* move_out: blocks of one rank, as it has them. */
static bool move_out(struct engine *e, uint32_t group, uint32_t rank, const uint32_t *blocks, uint32_t n, uint8_t *dst) {
    struct kvx *k = e->kvx;
    if (rank > 0)
        return k->o.move(k->o.move_arg, rank, group, blocks, n, dst, false);
    e->opts.ops->kv_export(e->opts.be, e->kv[group], blocks, n, dst);
    return true;
}

bool kvx_move_in(struct engine *e, uint32_t group, const uint32_t *blocks, uint32_t n, const uint8_t *data) {
    struct kvx *k = e->kvx;
    const struct kvx_group *g = &k->layout.group[group];
    if (k->layout.n_ranks == 1) {
        e->opts.ops->kv_import(e->opts.be, e->kv[group], blocks, n, data);
        return true;
    }
    for (uint32_t rank = 0; rank < k->layout.n_ranks; rank++) {
        /* slices are read only: `in` is false */
        kvx_slice(g, kvx_heads_of(g->n_heads, rank, k->layout.n_ranks), n, (uint8_t *)(uintptr_t)data, k->part, false);
        if (rank == 0)
            e->opts.ops->kv_import(e->opts.be, e->kv[group], blocks, n, k->part);
        else if (!k->o.move(k->o.move_arg, rank, group, blocks, n, k->part, true))
            return false;
    }
    return true;
}

/* ---- readers: their threads --------------------------------------------------------------------- */

static enum kvx_refusal on_open(void *arg, const struct kvx_open *o, uint64_t *lease) {
    struct engine *e = arg;
    struct kvx_job j = {.kind = JOB_OPEN, .until_ns = clock_ns() + (o->early ? KVX_EARLY_MS * NS_PER_MS : 0)};
    j.o.open = o;
    kvx_post(e->kvx, e, &j);
    int result = kvx_await(e->kvx, &j);
    *lease = j.o.lease;
    return result < 0 ? KVX_BUSY : (enum kvx_refusal)result;
}

static int on_read(void *arg, uint64_t lease, const struct kvx_read *r, uint8_t *dst) {
    struct engine *e = arg;
    struct kvx_job j = {.kind = JOB_READ, .until_ns = clock_ns() + KVX_READ_MS * NS_PER_MS};
    j.r.lease = lease;
    j.r.read = r;
    j.r.dst = dst;
    kvx_post(e->kvx, e, &j);
    return kvx_await(e->kvx, &j);
}

static bool on_renew(void *arg, uint64_t lease) {
    struct engine *e = arg;
    struct kvx_job j = {.kind = JOB_RENEW, .until_ns = UINT64_MAX};
    j.r.lease = lease;
    kvx_post(e->kvx, e, &j);
    return kvx_await(e->kvx, &j) > 0;
}

static void on_close(void *arg, uint64_t lease, bool done) {
    struct engine *e = arg;
    struct kvx_job j = {.kind = JOB_CLOSE, .until_ns = UINT64_MAX};
    j.r.lease = lease;
    j.r.finished = done;
    kvx_post(e->kvx, e, &j);
    (void)kvx_await(e->kvx, &j);
}

static void on_forget(void *arg, struct id128 transfer) {
    struct engine *e = arg;
    struct kvx_job j = {.kind = JOB_FORGET, .until_ns = UINT64_MAX};
    j.transfer = transfer;
    kvx_post(e->kvx, e, &j);
    (void)kvx_await(e->kvx, &j);
}

/* ---- readers: the engine's thread --------------------------------------------------------------- */

static bool try_open(struct engine *e, struct kvx_job *j, uint64_t now_ns) {
    struct kvx *k = e->kvx;
    struct kvx_lease *x;
    enum kvx_refusal why = KVX_UNKNOWN;
    if (memcmp(j->o.open->revision, k->o.revision, sizeof k->o.revision))
        why = KVX_MISMATCH;
    else if (!e->failed)
        why = kvx_lease_open(&k->leases, j->o.open, now_ns, &x);
    if (why == KVX_UNKNOWN && now_ns < j->until_ns)
        return false;
    if (!why) {
        j->o.lease = x->serial;
        k->n_open++;
    }
    answer(k, j, (int)why);
    return true;
}

static bool try_read(struct engine *e, struct kvx_job *j, uint64_t now_ns) {
    struct kvx *k = e->kvx;
    const struct kvx_read *r = j->r.read;
    struct kvx_lease *x = e->failed ? NULL : kvx_lease_at(&k->leases, j->r.lease);
    int n = x ? kvx_lease_blocks(&k->leases, x, r->group, r->from, r->n, k->blocks) : -1;
    if (n == 0 && now_ns < j->until_ns)
        return false;
    if (x)
        kvx_lease_renew(&k->leases, x, now_ns);
    if (n > 0 && !move_out(e, r->group, r->rank, k->blocks, (uint32_t)n, j->r.dst))
        n = -1;
    answer(k, j, n);
    return true;
}

static bool try_job(struct engine *e, struct kvx_job *j, uint64_t now_ns) {
    struct kvx *k = e->kvx;
    struct kvx_lease *x;
    switch (j->kind) {
    case JOB_OPEN:
        return try_open(e, j, now_ns);
    case JOB_READ:
        return try_read(e, j, now_ns);
    case JOB_RENEW:
        x = kvx_lease_at(&k->leases, j->r.lease);
        if (x)
            kvx_lease_renew(&k->leases, x, now_ns);
        answer(k, j, x != NULL);
        return true;
    case JOB_CLOSE:
        x = kvx_lease_at(&k->leases, j->r.lease);
        if (x)
            kvx_lease_end(&k->leases, x); /* an aborted reader does not come back: it computes the prompt itself */
        k->n_open--;
        k->stats.n_served += j->r.finished;
        answer(k, j, 0);
        return true;
    case JOB_FORGET:
        kvx_lease_forget(&k->leases, j->transfer);
        answer(k, j, 0);
        return true;
    default:
        return kvx_pull_try(e, j, now_ns);
    }
}

/* take_jobs: appends what was posted to those held. */
static void take_jobs(struct kvx *k) {
    struct kvx_job **last = &k->held;
    while (*last)
        last = &(*last)->next;
    pthread_mutex_lock(&k->mu);
    *last = k->in_first;
    k->in_first = NULL;
    k->in_last = &k->in_first;
    pthread_mutex_unlock(&k->mu);
}

bool kvx_run(struct engine *e) {
    struct kvx *k = e->kvx;
    bool any = false;
    if (!k)
        return false;
    uint64_t now_ns = clock_ns(), end_ns = now_ns + KVX_SLICE_MS * NS_PER_MS;
    take_jobs(k);
    const uint64_t n_expired = k->leases.n_expired;
    k->wake_ns = kvx_leases_expire(&k->leases, now_ns);
    for (struct kvx_job **at = &k->held; *at;) {
        struct kvx_job *j = *at, *next = j->next; /* an answered job is its thread's again */
        if (now_ns >= end_ns && !sched_idle(&e->sched)) {
            k->wake_ns = now_ns; /* the rest has its turn after a step */
            break;
        }
        if (try_job(e, j, now_ns)) {
            *at = next;
            any = true;
        } else {
            k->wake_ns = MIN(k->wake_ns, j->until_ns);
            at = &j->next;
        }
        now_ns = clock_ns();
    }
    kvx_pull_sweep(e);
    return any || k->leases.n_expired != n_expired;
}

/* ---- requests ----------------------------------------------------------------------------------- */

bool kvx_begin(struct engine *e, struct req *r) {
    struct kvx *k = e->kvx;
    if (!k || e->failed)
        return false;
    if (r->kv.offer && k->o.produces && r->n_hashes > 0) {
        if (!kvx_lease_new(&k->leases, r)) {
            kvx_lease_refuse(&k->leases, r->kv.transfer);
            LOG(LOG_WARN, "KV transfer: no lease for a prompt", F_ID("request", r->id));
        }
    }
    return r->kv.pull && kvx_pull_begin(e, r);
}

void kvx_computed(struct engine *e) {
    struct kvx *k = e->kvx;
    if (!k)
        return;
    for (struct kvx_lease *x = k->leases.first, *next; x; x = next) {
        next = x->next;
        if (x->req && !kvx_lease_grow(&k->leases, x))
            LOG(LOG_WARN, "KV transfer: no room to keep a prompt for another worker");
    }
}

void kvx_ended(struct engine *e, struct seq *q, enum finish_reason why) {
    struct req *r = q->req;
    struct kvx_lease *x = r->lease;
    if (!x)
        return;
    if (why != FINISH_LENGTH || x->n_ready < x->n_blocks) {
        kvx_lease_end(&e->kvx->leases, x);
        return;
    }
    uint64_t now_ns = clock_ns();
    uint32_t n = x->n_blocks;
    r->offer = xmalloc(sizeof *r->offer + n * sizeof(uint32_t));
    uint32_t *blocks = (uint32_t *)(r->offer + 1);
    for (uint32_t i = 0; i < n; i++)
        blocks[i] = x->kept[0][i].block;
    *r->offer = (struct kv_offer){
        .transfer = x->transfer, .expiry_unix_s = clock_unix() + e->kvx->o.lease_s, .blocks = blocks, .n_blocks = n};
    kvx_lease_complete(&e->kvx->leases, x, now_ns);
}

void kvx_forget(struct engine *e, struct req *r) {
    if (r->lease)
        kvx_lease_end(&e->kvx->leases, r->lease);
    if (r->pull)
        kvx_pull_forget(e, r->pull);
}

void kvx_aborted(struct engine *e, struct id128 request, uint32_t router, uint32_t router_epoch) {
    if (e->kvx)
        kvx_lease_abort(&e->kvx->leases, request, router, router_epoch);
}

bool kvx_waits(const struct engine *e) {
    bool waits = false;
    for (const struct kvx_pull *p = e->kvx ? e->kvx->pulls : NULL; p && !waits; p = p->next)
        waits = p->req && p->req->pulling;
    return waits;
}

/* ---- life --------------------------------------------------------------------------------------- */

static void layout_of(const struct engine *e, struct kvx_layout *l) {
    const struct kvx_opts *o = e->opts.kvx;
    *l = (struct kvx_layout){.n_groups = e->opts.n_groups, .n_ranks = MAX(o->n_ranks, 1u)};
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const struct cache_group_spec *s = &e->groups[g];
        l->group[g] = (struct kvx_group){.kind = s->kind,
                                         .dtype = s->dtype,
                                         .n_layers = s->n_layers,
                                         .n_heads = o->n_heads ? o->n_heads : s->n_kv_heads,
                                         .head_dim = s->head_dim,
                                         .head_dim_v = s->head_dim_v ? s->head_dim_v : s->head_dim,
                                         .window = s->window};
    }
}

static enum rc check(const struct engine *e, const struct kvx_layout *l, struct err *err) {
    if (!e->opts.prefix_cache)
        return err_set(err, RC_INVALID, "kv-transfer-config",
                       "KV transfers need the prefix cache: drop --no-enable-prefix-caching, and serve a model that has a "
                       "KV cache");
    if (!e->opts.ops->kv_export || !e->opts.ops->kv_import)
        return err_set(err, RC_UNSUPPORTED, "kv-transfer-config", "the %s backend moves no KV blocks", e->opts.ops->name);
    return kvx_layout_check(l, err);
}

enum rc kvx_new(struct engine *e, struct err *err) {
    struct kvx_layout layout;
    if (!e->opts.kvx)
        return RC_OK;
    layout_of(e, &layout);
    enum rc rc = check(e, &layout, err);
    if (rc)
        return rc;
    struct kvx *k = xcalloc(1, sizeof *k);
    size_t part = 0;
    k->o = *e->opts.kvx;
    k->layout = layout;
    k->wake_ns = UINT64_MAX;
    k->in_last = &k->in_first;
    CHECK(pthread_mutex_init(&k->mu, NULL) == 0 && pthread_cond_init(&k->answered, NULL) == 0 &&
          pthread_cond_init(&k->told, NULL) == 0);
    kvx_leases_init(&k->leases, &e->sched, (uint64_t)(k->o.lease_s * (double)NS_PER_S));
    k->blocks = xcalloc(kvx_chunk_blocks(&layout), sizeof *k->blocks);
    for (uint32_t g = 0; g < layout.n_groups; g++)
        part = MAX(part, kvx_block_bytes(&layout.group[g], kvx_heads_of(layout.group[g].n_heads, 0, layout.n_ranks).n));
    k->part = layout.n_ranks > 1 ? xmalloc(part * kvx_chunk_blocks(&layout)) : NULL;
    e->kvx = k;
    struct kvx_server_opts so = {.host = k->o.host,
                                 .port = k->o.port,
                                 .engine = k->o.engine,
                                 .secret = k->o.secret,
                                 .tls = k->o.tls,
                                 .layout = layout,
                                 .lease_ms = (uint32_t)MAX(k->o.lease_s * 1000, 1),
                                 .source = {e, on_open, on_read, on_renew, on_close, on_forget}};
    rc = k->o.produces ? kvx_server_start(&k->server, &so, err) : RC_OK;
    if (rc)
        kvx_free(e);
    return rc;
}

void kvx_halt(struct engine *e) {
    struct kvx *k = e->kvx;
    if (!k)
        return;
    take_jobs(k);
    pthread_mutex_lock(&k->mu);
    k->closed = true;
    /* What was posted since is here, too: nothing more can be. */
    struct kvx_job **last = &k->held;
    while (*last)
        last = &(*last)->next;
    *last = k->in_first;
    k->in_first = NULL;
    k->in_last = &k->in_first;
    for (struct kvx_job *j = k->held, *next; j; j = next) {
        next = j->next;
        j->result = -1;
        j->done = true;
    }
    k->held = NULL;
    pthread_cond_broadcast(&k->answered);
    pthread_mutex_unlock(&k->mu);
}

void kvx_free(struct engine *e) {
    struct kvx *k = e->kvx;
    if (!k)
        return;
    kvx_halt(e);
    kvx_server_stop(k->server);
    kvx_pulls_free(e);
    kvx_tells_free(k);
    kvx_leases_fini(&k->leases);
    pthread_mutex_destroy(&k->mu);
    pthread_cond_destroy(&k->answered);
    pthread_cond_destroy(&k->told);
    free(k->blocks);
    free(k->part);
    free(k);
    e->kvx = NULL;
}

uint32_t engine_kvx_port(const struct engine *e) {
    return e->kvx && e->kvx->server ? kvx_server_port(e->kvx->server) : 0;
}

void kvx_stats_fill(const struct engine *e, struct kvx_stats *out) {
    if (!e->kvx)
        return;
    *out = e->kvx->stats;
    out->n_leases = e->kvx->leases.n;
    out->n_expired = e->kvx->leases.n_expired;
}
