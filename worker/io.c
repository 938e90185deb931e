#include "worker/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/version.h"
#include "worker/io_private.h"

enum { REPORT_MS = 200, PROGRESS_MS = 100, ASSET_CHUNK_BYTES = 128 * 1024 };

/* send_soft: state that a full queue may lose; it is sent again within REPORT_MS. */
static void send_soft(struct link_conn *c, enum link_lane lane, Weir__Envelope__BodyCase which, void *body) {
    enum rc rc = link_send(c, lane, which, body);
    if (rc == RC_AGAIN)
        link_cut(c, "the router does not read");
}

/* ---- what routers are told ---------------------------------------------------------------------- */

enum { IO_TASKS_MAX = 4 };

/* tasks_of: what the model serves (api.md 4.2). One label is also a score. */
static size_t tasks_of(const struct io_facts *f, Weir__Task *out) {
    size_t n = 0;
    switch (f->pooler ? pooler_task_of(f->pooler) : 0) {
    case POOL_TASK_EMBED:
        out[n++] = WEIR__TASK__EMBED;
        break;
    case POOL_TASK_CLASSIFY:
    case POOL_TASK_SCORE:
        out[n++] = WEIR__TASK__CLASSIFY;
        if (pooler_labels(f->pooler) == 1)
            out[n++] = WEIR__TASK__SCORE;
        break;
    case POOL_TASK_REWARD:
        out[n++] = WEIR__TASK__REWARD;
        break;
    default:
        out[n++] = WEIR__TASK__GENERATE;
    }
    return n;
}

void io_hex(struct id128 id, char out[2 * sizeof(struct id128) + 1]) {
    for (size_t i = 0; i < sizeof id.b; i++)
        snprintf(out + 2 * i, 3, "%02x", id.b[i]);
}

static void send_info(struct io *io, struct link_conn *c) {
    Weir__WorkerInfo m = WEIR__WORKER_INFO__INIT;
    Weir__Asset assets[IO_ASSETS_MAX], *asset_ptrs[IO_ASSETS_MAX];
    char version[] = WEIR_VERSION, both[] = "both", kv_engine[2 * sizeof(struct id128) + 1];
    Weir__Task tasks[IO_TASKS_MAX];

    m.has_state = true;
    m.state = io->state;
    m.detail = io->detail[0] ? io->detail : NULL;
    m.has_load_done_bytes = m.has_load_total_bytes = true;
    m.load_done_bytes = io->load_done_bytes;
    m.load_total_bytes = io->load_total_bytes;
    m.model = io->model;
    m.version = version;
    if (atomic_load(&io->ready)) {
        struct io_facts *f = &io->facts;
        m.serving_role = f->role ? (char *)(uintptr_t)f->role : both;
        m.served_names = io->names.v;
        m.n_served_names = io->names.n;
        m.has_revision = true;
        m.revision = (ProtobufCBinaryData){32, f->revision};
        m.tasks = tasks;
        m.n_tasks = tasks_of(f, tasks);
#define FACT(field, value) (m.has_##field = true, m.field = (value))
        FACT(max_model_len, f->max_model_len);
        FACT(vocab_size, f->vocab_size);
        FACT(block_tokens, HASH_BLOCK_TOKENS);
        FACT(n_blocks, f->n_blocks);
        FACT(max_seqs, f->max_seqs);
        FACT(max_batched_tokens, f->max_batched_tokens);
        FACT(priority_scheduling, f->priority_scheduling);
        FACT(prefix_caching, f->prefix_caching);
        FACT(tensor_parallel, MAX(f->n_ranks, 1u));
        FACT(ready_ms, f->ready_ms);
        FACT(max_logprobs, f->max_logprobs);
#undef FACT
        /* protobuf-c's strings are not const; they are only read */
        m.device = io->facts.device ? (char *)(uintptr_t)f->device : NULL;
        m.dtype = (char *)(uintptr_t)f->dtype;
        m.kv_dtype = (char *)(uintptr_t)f->kv_dtype;
        if (f->kvx) {
            io_hex(f->kvx->engine, kv_engine);
            m.kv_engine_id = kv_engine;
            m.kv_host = (char *)(uintptr_t)f->kvx->host;
            m.has_kv_port = m.has_kv_pulls = true;
            m.kv_port = f->kvx_port;
            m.kv_pulls = f->kvx->consumes;
        }
        m.eos_ids = f->eos;
        m.n_eos_ids = f->n_eos;
        for (size_t i = 0; i < io->n_assets; i++) {
            weir__asset__init(&assets[i]);
            assets[i].name = (char *)(uintptr_t)io->assets[i].name;
            assets[i].has_total_bytes = true;
            assets[i].total_bytes = io->assets[i].n;
            assets[i].has_digest = true;
            assets[i].digest = (ProtobufCBinaryData){32, io->asset_digest[i]};
            asset_ptrs[i] = &assets[i];
        }
        m.assets = asset_ptrs;
        m.n_assets = io->n_assets;
    }
    send_soft(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_WORKER_INFO, &m);
}

/* send_credit: to one of n_routers: a batch, so that each of them alone can keep the engine busy, and its part of a
 * line as long again; the line has room for the largest request (128 samples). So a line can form here, where priority
 * and the order of tenants are kept between routers, but most waiting happens in the routers. */
static void send_credit(struct io *io, struct link_conn *c, size_t n_routers) {
    enum { SAMPLES = 128 };
    Weir__Credit m = WEIR__CREDIT__INIT;
    const struct io_facts *f = &io->facts;
    uint64_t tokens = MAX(MAX((uint64_t)f->n_blocks * HASH_BLOCK_TOKENS, f->max_model_len),
                          2ull * f->max_batched_tokens);
    uint64_t line = MAX(((uint64_t)f->max_seqs + SAMPLES) / n_routers, SAMPLES);
    m.has_sequences = m.has_prefill_tokens = true;
    m.sequences = (uint32_t)MIN(f->max_seqs + line, UINT32_MAX);
    m.prefill_tokens = (uint32_t)MIN(tokens + tokens / n_routers, UINT32_MAX);
    send_soft(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CREDIT, &m);
}

static void send_load(struct io *io, struct link_conn *c, const struct engine_stats *s) {
    Weir__Load m = WEIR__LOAD__INIT;
    uint64_t counts[ENGINE_ITER_BUCKETS];
#define LOAD(field, value) (m.has_##field = true, m.field = (value))
    LOAD(running, s->running);
    LOAD(waiting, s->waiting);
    LOAD(kv_used_blocks, s->kv_used_blocks);
    LOAD(kv_total_blocks, s->kv_total_blocks);
    LOAD(steps, s->steps);
    LOAD(prefix_queries, s->prefix_queries);
    LOAD(prefix_hits, s->prefix_hits);
    LOAD(preemptions, s->preemptions);
    LOAD(prompt_tokens, s->prompt_tokens);
    LOAD(generated_tokens, s->generated_tokens);
    LOAD(computed_tokens, s->computed_tokens);
    LOAD(queued_tokens, s->queued_tokens);
    LOAD(iteration_tokens_sum, s->iteration_tokens_sum);
    LOAD(last_step_ns_ago, s->step_done_ns ? MAX(clock_ns() - s->step_done_ns, 1) : 0);
#undef LOAD
    memcpy(counts, s->iteration_tokens, sizeof counts);
    m.iteration_tokens = counts;
    m.n_iteration_tokens = ENGINE_ITER_BUCKETS;
    uint64_t mask_times[ENGINE_MASK_KINDS * ENGINE_MASK_BUCKETS], mask_ns[ENGINE_MASK_KINDS];
    memcpy(mask_times, s->mask_times, sizeof mask_times);
    memcpy(mask_ns, s->mask_ns, sizeof mask_ns);
    m.mask_times = mask_times;
    m.n_mask_times = ARRAY_LEN(mask_times);
    m.mask_ns = mask_ns;
    m.n_mask_ns = ENGINE_MASK_KINDS;
    struct kvx_stats kv = s->kvx;
    if (io->facts.kvx) {
        m.kv_times = kv.times;
        m.kv_sizes = kv.sizes;
        m.kv_fallbacks = kv.fallbacks;
        m.n_kv_times = m.n_kv_sizes = KVX_BUCKETS;
        m.n_kv_fallbacks = N_KVX_FALLBACK;
        m.has_kv_ns = m.has_kv_bytes = m.has_kv_failed = m.has_kv_expired = m.has_kv_leases = true;
        m.kv_ns = kv.ns;
        m.kv_bytes = kv.n_bytes;
        m.kv_failed = kv.n_failed;
        m.kv_expired = kv.n_expired;
        m.kv_leases = kv.n_leases;
    }
    send_soft(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_LOAD, &m);
}

/* for_each_conn: fn runs without the lock for every router there is. */
static size_t hold_all(struct io *io, struct link_conn *held[IO_ROUTERS_MAX]) {
    size_t n = 0;
    for (size_t i = 0; i < IO_ROUTERS_MAX; i++)
        if (io->routers[i].conn)
            held[n++] = link_hold(io->routers[i].conn);
    return n;
}

static void tell_all(struct io *io) {
    struct link_conn *held[IO_ROUTERS_MAX];
    pthread_mutex_lock(&io->lock);
    size_t n = hold_all(io, held);
    for (size_t i = 0; i < n; i++)
        send_info(io, held[i]);
    if (io->state == WEIR__WORKER_STATE__READY)
        for (size_t i = 0; i < n; i++)
            send_credit(io, held[i], n);
    pthread_mutex_unlock(&io->lock);
    for (size_t i = 0; i < n; i++)
        link_drop(held[i]);
}

static void *report_loop(void *arg) {
    struct io *io = arg;
    pthread_mutex_lock(&io->lock);
    while (!io->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += REPORT_MS * 1000000l;
        until.tv_sec += until.tv_nsec / 1000000000l;
        until.tv_nsec %= 1000000000l;
        pthread_cond_timedwait(&io->tick, &io->lock, &until);
        if (io->stopping)
            break;
        struct link_conn *held[IO_ROUTERS_MAX];
        size_t n = hold_all(io, held);
        pthread_mutex_unlock(&io->lock);
        struct engine_stats s;
        io->engine.stats(io->engine.arg, &s);
        for (size_t i = 0; i < n; i++) {
            send_load(io, held[i], &s);
            link_drop(held[i]);
        }
        pthread_mutex_lock(&io->lock);
    }
    pthread_mutex_unlock(&io->lock);
    return NULL;
}

/* ---- connections -------------------------------------------------------------------------------- */

/* grant: the routers are others: what each may have depends on how many there are. Under the lock. */
static void grant(struct io *io) {
    size_t n = 0;
    for (size_t i = 0; i < IO_ROUTERS_MAX; i++)
        n += io->routers[i].conn != NULL;
    for (size_t i = 0; i < IO_ROUTERS_MAX && io->state == WEIR__WORKER_STATE__READY; i++)
        if (io->routers[i].conn)
            send_credit(io, io->routers[i].conn, n);
}

/* A connection's user pointer is its entry in io.routers, whose epoch is fixed while the connection is up. */
static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct io *io = arg;
    struct io_router *r = NULL;
    pthread_mutex_lock(&io->lock);
    for (size_t i = 0; i < IO_ROUTERS_MAX && !r; i++)
        if (!io->routers[i].conn)
            r = &io->routers[i];
    if (r) {
        r->conn = link_hold(c);
        r->epoch = ++io->next_epoch;
        r->kv_events = false;
        link_set_user(c, r);
        send_info(io, c);
    }
    grant(io);
    pthread_mutex_unlock(&io->lock);
    if (!r) {
        Weir__Fault m = WEIR__FAULT__INIT;
        char text[] = "this worker has its most routers already";
        m.message = text;
        (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_FAULT, &m);
        link_cut(c, text);
        return;
    }
    LOG(LOG_INFO, "router connected", F_ID("router", peer->id));
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct io *io = arg;
    struct io_router *r = link_user(c);
    if (!r)
        return;
    pthread_mutex_lock(&io->lock);
    uint32_t index = (uint32_t)(r - io->routers), epoch = r->epoch;
    pthread_mutex_unlock(&io->lock);
    /* The engine must hear of it before the index can be reused. */
    if (atomic_load(&io->ready))
        io->engine.drop_router(io->engine.arg, index, epoch);
    pthread_mutex_lock(&io->lock);
    r->conn = NULL;
    grant(io);
    pthread_mutex_unlock(&io->lock);
    link_drop(c);
    LOG(LOG_INFO, "router left", F_STR("reason", reason));
}

struct link_conn *io_conn_of(struct io *io, uint32_t router, uint32_t epoch) {
    CHECK(router < IO_ROUTERS_MAX);
    pthread_mutex_lock(&io->lock);
    struct io_router *r = &io->routers[router];
    struct link_conn *c = r->conn && r->epoch == epoch ? link_hold(r->conn) : NULL;
    pthread_mutex_unlock(&io->lock);
    return c;
}

static void on_asset_get(struct io *io, struct link_conn *c, const Weir__AssetGet *m) {
    Weir__AssetChunk out = WEIR__ASSET_CHUNK__INIT;
    const struct io_asset *a = NULL;
    out.name = m->name;
    for (size_t i = 0; m->name && atomic_load(&io->ready) && i < io->n_assets; i++)
        if (!strcmp(io->assets[i].name, m->name))
            a = &io->assets[i];
    if (!a) {
        out.has_missing = out.missing = true;
        send_soft(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_ASSET_CHUNK, &out);
        return;
    }
    out.has_total_bytes = out.has_offset = out.has_data = true;
    out.total_bytes = a->n;
    for (size_t at = 0;;) {
        size_t n = MIN(a->n - at, (size_t)ASSET_CHUNK_BYTES);
        out.offset = at;
        out.data = (ProtobufCBinaryData){n, (uint8_t *)a->data + at};
        send_soft(c, LINK_DATA, WEIR__ENVELOPE__BODY_ASSET_CHUNK, &out);
        if ((at += n) >= a->n)
            return;
    }
}

static struct io_tomb *tomb_at(struct io *io, struct id128 id, uint64_t stream) {
    uint32_t slot;
    memcpy(&slot, id.b, sizeof slot);
    return &io->tombs[(slot + (stream == IO_TOMB_WHOLE ? 0 : (uint32_t)stream + 1)) % IO_TOMBS];
}

static void tomb_put(struct io *io, struct id128 id, uint64_t stream) {
    pthread_mutex_lock(&io->lock);
    *tomb_at(io, id, stream) = (struct io_tomb){id, stream};
    pthread_mutex_unlock(&io->lock);
}

bool io_tomb_find(struct io *io, struct id128 id, uint64_t stream) {
    pthread_mutex_lock(&io->lock);
    const struct io_tomb *t = tomb_at(io, id, stream);
    bool hit = id128_eq(t->id, id) && t->stream == stream;
    pthread_mutex_unlock(&io->lock);
    return hit;
}

/* io_abort: the engine's inbox has room for it soon: its thread empties it every step. */
void io_abort(struct io *io, uint32_t router, uint32_t epoch, struct id128 id, bool whole, uint64_t stream) {
    while (io->engine.abort(io->engine.arg, router, epoch, id, whole, stream) == RC_AGAIN) {
        struct timespec ms = {0, 1000000};
        nanosleep(&ms, NULL);
    }
}

/* abort_transfer: as io_abort. */
static void abort_transfer(struct io *io, uint32_t router, uint32_t epoch, struct id128 id) {
    tomb_put(io, id, IO_TOMB_TRANSFER);
    while (atomic_load(&io->ready) && io->engine.abort_pull &&
           io->engine.abort_pull(io->engine.arg, router, epoch, id) == RC_AGAIN) {
        struct timespec ms = {0, 1000000};
        nanosleep(&ms, NULL);
    }
}

static void on_abort(struct io *io, struct link_conn *c, uint32_t router, uint32_t epoch,
                     const Weir__Abort *m) {
    struct id128 id;
    if (!m->has_request_id || m->request_id.len != sizeof id.b) {
        link_cut(c, "an Abort without a request id");
        return;
    }
    memcpy(id.b, m->request_id.data, sizeof id.b);
    bool whole = m->has_whole && m->whole;
    if (!whole && m->transfer) {
        abort_transfer(io, router, epoch, id);
        return;
    }
    tomb_put(io, id, whole ? IO_TOMB_WHOLE : m->stream);
    if (atomic_load(&io->ready))
        io_abort(io, router, epoch, id, whole, m->stream);
}

static void on_control(struct io *io, struct link_conn *c, uint32_t router, uint32_t epoch,
                       const Weir__Control *m) {
    Weir__ControlReply reply = WEIR__CONTROL_REPLY__INIT;
    char text[] = "not supported by this worker";
    if (m->kind == WEIR__CONTROL__KIND__END_TRANSFER) {
        io_kv_end(io, m->kv_transfer);
        return;
    }
    if (atomic_load(&io->ready) && m->kind == WEIR__CONTROL__KIND__RESET_PREFIX_CACHE &&
        io->engine.reset_prefix(io->engine.arg, router, epoch, m->id) == RC_OK)
        return;
    reply.has_id = reply.has_ok = true;
    reply.id = m->id;
    reply.message = text;
    send_soft(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL_REPLY, &reply);
}

/* on_snapshot_get: without a prefix cache nothing ever comes, as WorkerInfo says. A full inbox loses it: the
 * router asks again. */
static void on_snapshot_get(struct io *io, uint32_t router, uint32_t epoch) {
    if (atomic_load(&io->ready) && io->engine.kv_snapshot)
        (void)!io->engine.kv_snapshot(io->engine.arg, router, epoch);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct io *io = arg;
    struct io_router *r = link_user(c);
    if (!r)
        return;
    uint32_t router = (uint32_t)(r - io->routers), epoch = r->epoch;
    switch (m->body_case) {
    case WEIR__ENVELOPE__BODY_SUBMIT:
        io_submit(io, c, router, epoch, m->submit);
        break;
    case WEIR__ENVELOPE__BODY_ABORT:
        on_abort(io, c, router, epoch, m->abort);
        break;
    case WEIR__ENVELOPE__BODY_ASSET_GET:
        on_asset_get(io, c, m->asset_get);
        break;
    case WEIR__ENVELOPE__BODY_CONTROL:
        on_control(io, c, router, epoch, m->control);
        break;
    case WEIR__ENVELOPE__BODY_KV_SNAPSHOT_GET:
        on_snapshot_get(io, router, epoch);
        break;
    case WEIR__ENVELOPE__BODY_DRAIN:
        io->on_drain(io->arg);
        break;
    default: /* of a newer peer, or not for a worker: ignored (proto/README.md rule 3) */
        break;
    }
}

/* ---- life --------------------------------------------------------------------------------------- */

enum rc io_new(struct io **out, const struct conf_list *listen, struct str secret, const struct link_tls *tls,
               const char *model, void (*on_drain)(void *arg), void *arg, struct err *e) {
    struct io *io = xcalloc(1, sizeof *io);
    pthread_condattr_t attr;
    CHECK(pthread_condattr_init(&attr) == 0 && pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&io->lock, NULL) == 0 && pthread_cond_init(&io->tick, &attr) == 0);
    pthread_condattr_destroy(&attr);
    io->state = WEIR__WORKER_STATE__LOADING;
    io->model = xstrdup(model);
    io->on_drain = on_drain;
    io->arg = arg;
    io->out = io_out_new();
    io->link = link_new(&(struct link_opts){.role = WEIR__ROLE__WORKER,
                                            .secret = secret,
                                            .tls = tls,
                                            .conns_max = 2 * IO_ROUTERS_MAX,
                                            .arg = io,
                                            .on_up = on_up,
                                            .on_message = on_message,
                                            .on_down = on_down});
    enum rc rc = RC_OK;
    for (size_t i = 0; i < listen->n && rc == RC_OK; i++)
        rc = link_listen(io->link, listen->v[i], e);
    if (rc != RC_OK) {
        io_free(io);
        return rc;
    }
    *out = io;
    return RC_OK;
}

int io_port(const struct io *io) {
    return link_listen_port(io->link);
}

void io_progress(struct io *io, uint64_t done_bytes, uint64_t total_bytes) {
    uint64_t now = clock_ns();
    pthread_mutex_lock(&io->lock);
    io->load_done_bytes = done_bytes;
    io->load_total_bytes = total_bytes;
    bool due = now - io->progress_sent_ns >= PROGRESS_MS * NS_PER_MS || done_bytes == total_bytes;
    if (due)
        io->progress_sent_ns = now;
    pthread_mutex_unlock(&io->lock);
    if (due)
        tell_all(io);
}

void io_ready(struct io *io, const struct io_engine *engine, const struct io_facts *facts,
              struct io_asset *assets, size_t n_assets) {
    CHECK(n_assets <= IO_ASSETS_MAX);
    pthread_mutex_lock(&io->lock);
    io->engine = *engine;
    io->facts = *facts;
    io->facts.device = xstrdup(facts->device);
    io->facts.dtype = xstrdup(facts->dtype);
    io->facts.kv_dtype = xstrdup(facts->kv_dtype);
    io->facts.served_names = NULL;
    size_t n_names = facts->served_names->n;
    io->names.n = MAX(n_names, 1);
    io->names.v = xcalloc(io->names.n, sizeof *io->names.v);
    for (size_t i = 0; i < io->names.n; i++)
        io->names.v[i] = xstrdup(n_names ? facts->served_names->v[i] : io->model);
    for (size_t i = 0; i < n_assets; i++) {
        io->assets[i] = assets[i];
        hash_sha256(assets[i].data, assets[i].n, io->asset_digest[i]);
    }
    io->n_assets = n_assets;
    io->state = WEIR__WORKER_STATE__READY;
    atomic_store(&io->ready, true);
    CHECK(pthread_create(&io->reporter, NULL, report_loop, io) == 0);
    io->reporter_on = true;
    pthread_mutex_unlock(&io->lock);
    tell_all(io);
}

static void set_state(struct io *io, Weir__WorkerState state, const char *why) {
    pthread_mutex_lock(&io->lock);
    io->state = state;
    snprintf(io->detail, sizeof io->detail, "%s", why ? why : "");
    pthread_mutex_unlock(&io->lock);
    tell_all(io);
}

void io_draining(struct io *io) {
    set_state(io, WEIR__WORKER_STATE__DRAINING, NULL);
}

void io_failed(struct io *io, const char *why) {
    set_state(io, WEIR__WORKER_STATE__FAILED, why);
}

void io_on_control(void *arg, uint32_t router, uint32_t router_epoch, uint64_t id, bool ok) {
    struct link_conn *c = io_conn_of(arg, router, router_epoch);
    if (!c)
        return;
    Weir__ControlReply m = WEIR__CONTROL_REPLY__INIT;
    m.has_id = m.has_ok = true;
    m.id = id;
    m.ok = ok;
    send_soft(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL_REPLY, &m);
    link_drop(c);
}

void io_flush(struct io *io, unsigned ms) {
    uint64_t end_ns = clock_ns() + ms * NS_PER_MS;
    for (bool waiting = true; waiting && clock_ns() < end_ns;) {
        struct link_conn *held[IO_ROUTERS_MAX];
        struct timespec pause = {0, 1000000};
        pthread_mutex_lock(&io->lock);
        size_t n = hold_all(io, held);
        pthread_mutex_unlock(&io->lock);
        waiting = false;
        for (size_t i = 0; i < n; i++) {
            waiting |= link_queue_bytes(held[i]) > 0;
            link_drop(held[i]);
        }
        if (waiting)
            nanosleep(&pause, NULL);
    }
}

void io_free(struct io *io) {
    if (!io)
        return;
    pthread_mutex_lock(&io->lock);
    io->stopping = true;
    pthread_cond_signal(&io->tick);
    pthread_mutex_unlock(&io->lock);
    if (io->reporter_on)
        pthread_join(io->reporter, NULL);
    atomic_store(&io->ready, false); /* the engine has stopped: on_down has nobody to tell */
    link_free(io->link);
    for (size_t i = 0; i < io->n_assets; i++)
        free(io->assets[i].data);
    for (size_t i = 0; i < io->names.n; i++)
        free(io->names.v[i]);
    free(io->names.v);
    free((char *)(uintptr_t)io->facts.device);
    free((char *)(uintptr_t)io->facts.dtype);
    free((char *)(uintptr_t)io->facts.kv_dtype);
    free(io->model);
    io_out_free(io->out);
    pthread_cond_destroy(&io->tick);
    pthread_mutex_destroy(&io->lock);
    free(io);
}
