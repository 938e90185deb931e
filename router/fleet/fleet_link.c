/* The link's callbacks: workers come, say what they are, and go. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/utf8.h"
#include "router/fleet/fleet_private.h"
#include "router/slots.h"

static void copy_text(char *out, size_t size, const char *s) {
    struct str t = str_of(s);
    size_t n = utf8_valid(t.p, t.n) ? utf8_cut(t.p, t.n, size - 1) : 0;
    memcpy(out, t.p ? t.p : "", n);
    out[n] = '\0';
}

static void changed(struct fleet *f) {
    if (f->o.on_change)
        f->o.on_change(f->o.arg);
}

static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct fleet *f = arg;
    struct worker_state *s = xcalloc(1, sizeof *s);
    s->fleet = f;
    s->w.conn = link_hold(c);
    s->w.state = s;
    atomic_init(&s->w.n_refs, 1);
    s->up = true;
    s->id = hash_fast(peer->address, strlen(peer->address), 0);
    kv_feed_init(&s->feed);
    snprintf(s->address, sizeof s->address, "%s", peer->address);
    copy_text(s->version, sizeof s->version, peer->version);
    s->state = WEIR__WORKER_STATE__LOADING;
    pthread_mutex_lock(&f->lock);
    unsigned i = 0;
    while (i < FLEET_WORKERS_MAX && f->workers[i])
        i++;
    if (i < FLEET_WORKERS_MAX) {
        f->workers[i] = s;
        s->leaving = fleet_leaving(f, s->address);
        f->n_workers_end = MAX(f->n_workers_end, i + 1);
        s->w.engine = i;
    }
    pthread_mutex_unlock(&f->lock);
    if (i == FLEET_WORKERS_MAX) {
        worker_drop(&s->w);
        link_cut(c, "this router has its most workers already");
        return;
    }
    link_set_user(c, s);
    LOG(LOG_INFO, "worker connected", F_STR("address", peer->address), F_STR("version", peer->version));
    changed(f);
}

static void post_lost(struct fleet *f, struct worker_state *s) {
    uint64_t last_ns = s->suspect ? s->suspect_ns - LINK_SUSPECT_MS * NS_PER_MS : clock_ns();
    for (unsigned i = 0; i < f->o.n_loops; i++) {
        struct fleet_lost *m = xcalloc(1, sizeof *m);
        m->msg.step = f->o.on_lost;
        m->worker = worker_hold(&s->w);
        m->last_ns = last_ns;
        f->o.post(f->o.arg, i, &m->msg);
    }
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct fleet *f = arg;
    struct worker_state *s = link_user(c);
    if (!s)
        return;
    assets_gone(s);
    rmetrics_kv(f->o.metrics, &s->kv_seen, NULL);
    pthread_mutex_lock(&f->lock);
    s->up = false;
    fleet_reset_gone(f, s);
    fleet_kv_gone(f, s);
    f->workers[s->w.engine] = NULL;
    if (s->w.metrics.stat[ES_RUNNING]) {
        metric_set(s->w.metrics.stat[ES_RUNNING], 0);
        metric_set(s->w.metrics.stat[ES_WAITING], 0);
        metric_set(s->w.metrics.stat[ES_KV_USAGE], 0);
    }
    post_lost(f, s);
    if (s->model)
        fleet_pump(f, s->model); /* the line ends if this was the last one */
    if (s->w.metrics.queue_depth)
        metric_set(s->w.metrics.queue_depth, s->model->line.n);
    pthread_mutex_unlock(&f->lock);
    LOG(s->state == WEIR__WORKER_STATE__DRAINING ? LOG_INFO : LOG_WARN, "worker gone",
        F_U64("engine", s->w.engine), F_STR("reason", reason));
    worker_drop(&s->w);
    changed(f);
}

static void on_silent(void *arg, struct link_conn *c, bool suspect) {
    struct fleet *f = arg;
    struct worker_state *s = link_user(c);
    if (!s)
        return;
    pthread_mutex_lock(&f->lock);
    s->suspect = suspect;
    s->suspect_ns = clock_ns();
    s->n_suspect_ticks = 0;
    if (s->model)
        fleet_pump(f, s->model);
    pthread_mutex_unlock(&f->lock);
    LOG(suspect ? LOG_WARN : LOG_INFO, suspect ? "worker is silent" : "worker answers again",
        F_U64("engine", s->w.engine));
}

static void on_info(struct fleet *f, struct worker_state *s, struct link_conn *c, const Weir__WorkerInfo *m) {
    bool ready = m->state == WEIR__WORKER_STATE__READY;
    if (ready && !s->model) {
        char why[128] = "";
        if (!assets_want(s, m, why)) {
            link_cut(c, why);
            return;
        }
        s->vocab_size = m->vocab_size;
        s->n_top_max = m->max_logprobs ? m->max_logprobs + 1 : 64;
        struct str name = str_of(f->o.opts->served_names.n ? f->o.opts->served_names.v[0]
                                 : m->n_served_names       ? m->served_names[0]
                                                           : m->model);
        struct engine_metrics series;
        rmetrics_engine(f->o.metrics, name, s->w.engine, &series);
        rmetrics_cache_config(f->o.metrics, s->w.engine, m);
        pthread_mutex_lock(&f->lock);
        s->w.metrics = series;
        if (m->kv_engine_id && m->kv_host) {
            copy_text(s->w.kv_engine, sizeof s->w.kv_engine, m->kv_engine_id);
            copy_text(s->w.kv_host, sizeof s->w.kv_host, m->kv_host);
            s->w.kv_port = m->kv_port <= UINT16_MAX ? m->kv_port : 0;
            s->w.kv_pulls = m->kv_pulls;
            s->w.role = worker_role_of(m->serving_role);
            if (f->o.moves_kv)
                atomic_store(f->o.moves_kv, true);
        }
        pthread_mutex_unlock(&f->lock);
    }
    pthread_mutex_lock(&f->lock);
    s->state = m->has_state ? m->state : WEIR__WORKER_STATE__LOADING;
    copy_text(s->detail, sizeof s->detail, m->detail);
    copy_text(s->name, sizeof s->name, m->model);
    s->load_done_bytes = m->load_done_bytes;
    s->load_total_bytes = m->load_total_bytes;
    s->ready_ms = m->ready_ms;
    s->max_seqs = m->max_seqs;
    s->prefix_caching = ready && m->prefix_caching;
    if (s->model)
        fleet_pump(f, s->model);
    pthread_mutex_unlock(&f->lock);
    if (m->state == WEIR__WORKER_STATE__FAILED)
        LOG(LOG_ERROR, "worker failed", F_U64("engine", s->w.engine), F_STR("reason", s->detail));
    fleet_kv_want(f, s);
    changed(f);
}

static void on_outputs(struct fleet *f, struct worker_state *s, struct link_conn *c,
                       const Weir__StepOutputs *m) {
    struct batch_limits limits = {
        .n_loops = f->o.n_loops, .vocab_size = s->vocab_size, .n_top_max = s->n_top_max};
    struct batch *out[256];
    uint32_t n_foreign;
    struct err e;
    if (batch_split(m, &limits, out, &n_foreign, &e) != RC_OK) {
        link_cut(c, e.msg);
        return;
    }
    if (n_foreign)
        rmetrics_count(f->o.metrics, PM_DROPPED_OUTPUTS, n_foreign);
    bool full = false;
    for (unsigned i = 0; i < f->o.n_loops; i++) {
        if (!out[i])
            continue;
        out[i]->msg.step = f->o.on_batch;
        out[i]->worker = worker_hold(&s->w);
        if (full || !f->o.post_counted(f->o.arg, i, &out[i]->msg, out[i]->bytes)) {
            full = true; /* what was left out makes every later output of this connection worthless */
            worker_drop(out[i]->worker);
            free(out[i]);
        }
    }
    if (full)
        link_cut(c, "its outputs come faster than this router can use them");
}

/* on_pooled: shapes are checked against the request by its owner, sizes here. */
static void on_pooled(struct fleet *f, struct worker_state *s, struct link_conn *c,
                      const Weir__PoolOutputs *m) {
    for (size_t i = 0; i < m->n_outputs; i++) {
        const Weir__PoolOutput *o = m->outputs[i];
        uint32_t loop = handle_loop(o->stream);
        size_t n = o->has_data ? o->data.len : 0;
        if (!o->has_stream || (!o->has_status && (uint64_t)o->rows * o->cols * sizeof(float) != n)) {
            link_cut(c, "a pooled output of no shape");
            return;
        }
        if (loop >= f->o.n_loops) {
            rmetrics_count(f->o.metrics, PM_DROPPED_OUTPUTS, 1);
            continue;
        }
        struct fleet_pooled *x = xmalloc(sizeof *x + n);
        memset(x, 0, sizeof *x);
        x->msg.step = f->o.on_pool;
        x->worker = worker_hold(&s->w);
        x->bytes = sizeof *x + n;
        x->stream = o->stream;
        x->rows = o->rows;
        x->cols = o->cols;
        x->status = o->has_status ? o->status ? o->status : 500 : 0;
        copy_text(x->message, sizeof x->message, o->message);
        if (n)
            memcpy(x->data, o->data.data, n);
        if (!f->o.post_counted(f->o.arg, loop, &x->msg, x->bytes)) {
            worker_drop(x->worker);
            free(x);
            link_cut(c, "its outputs come faster than this router can use them");
            return;
        }
    }
}

static void on_reject(struct fleet *f, struct worker_state *s, struct link_conn *c, const Weir__Reject *m) {
    if (!m->has_request_id || m->request_id.len != sizeof(struct id128)) {
        link_cut(c, "a Reject without a request id");
        return;
    }
    for (unsigned i = 0; i < f->o.n_loops; i++) {
        struct fleet_reject *r = xcalloc(1, sizeof *r);
        r->msg.step = f->o.on_reject;
        r->worker = worker_hold(&s->w);
        memcpy(r->id.b, m->request_id.data, sizeof r->id.b);
        r->status = m->has_status ? m->status : 500;
        copy_text(r->message, sizeof r->message, m->message ? m->message : "the worker refused the request");
        copy_text(r->param, sizeof r->param, m->param);
        if (!f->o.post_counted(f->o.arg, i, &r->msg, sizeof *r)) {
            worker_drop(r->worker);
            free(r);
            link_cut(c, "its refusals come faster than this router can use them");
            return;
        }
    }
}

static void on_load(struct fleet *f, struct worker_state *s, const Weir__Load *m) {
    pthread_mutex_lock(&f->lock);
    s->n_waiting = m->waiting;
    s->n_running = m->running;
    s->kv_used_blocks = m->kv_used_blocks;
    s->kv_total_blocks = m->kv_total_blocks;
    s->step_ago_ns = m->last_step_ns_ago;
    s->step_at_ns = clock_ns();
    bool known = s->w.metrics.stat[ES_RUNNING] != NULL;
    pthread_mutex_unlock(&f->lock);
    if (known)
        rmetrics_load(&s->w.metrics, m);
    rmetrics_masks(f->o.metrics, &s->masks_seen, m);
    rmetrics_kv(f->o.metrics, &s->kv_seen, m);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct fleet *f = arg;
    struct worker_state *s = link_user(c);
    const char *why = NULL;
    if (!s)
        return;
    switch (m->body_case) {
    case WEIR__ENVELOPE__BODY_WORKER_INFO:
        on_info(f, s, c, m->worker_info);
        break;
    case WEIR__ENVELOPE__BODY_STEP_OUTPUTS:
        on_outputs(f, s, c, m->step_outputs);
        break;
    case WEIR__ENVELOPE__BODY_POOL_OUTPUTS:
        on_pooled(f, s, c, m->pool_outputs);
        break;
    case WEIR__ENVELOPE__BODY_REJECT:
        on_reject(f, s, c, m->reject);
        break;
    case WEIR__ENVELOPE__BODY_CREDIT:
        pthread_mutex_lock(&f->lock);
        s->load.credit_seqs = m->credit->sequences;
        s->load.credit_tokens = m->credit->prefill_tokens;
        if (s->model)
            fleet_pump(f, s->model);
        pthread_mutex_unlock(&f->lock);
        break;
    case WEIR__ENVELOPE__BODY_LOAD:
        on_load(f, s, m->load);
        fleet_kv_want(f, s);
        if (!assets_retry(s, &why))
            link_cut(c, why);
        break;
    case WEIR__ENVELOPE__BODY_ASSET_CHUNK:
        if (!assets_chunk(s, m->asset_chunk, &why))
            link_cut(c, why);
        break;
    case WEIR__ENVELOPE__BODY_CONTROL_REPLY:
        fleet_reset_answer(f, s, m->control_reply);
        break;
    case WEIR__ENVELOPE__BODY_KV_EVENTS:
        fleet_kv_on_events(f, s, c, m->kv_events);
        break;
    case WEIR__ENVELOPE__BODY_FAULT:
        LOG(LOG_WARN, "worker reports", F_U64("engine", s->w.engine),
            F_STR("fault", m->fault->message ? m->fault->message : ""));
        break;
    default: /* of a newer peer, or for a feature this build has not: ignored (proto/README.md) */
        break;
    }
}

static void on_dial_error(void *arg, const char *address, const char *reason) {
    (void)arg;
    LOG(LOG_WARN, "worker cannot be reached yet", F_STR("address", address), F_STR("reason", reason));
}

struct link *fleet_link_new(struct fleet *f) {
    return link_new(&(struct link_opts){.role = WEIR__ROLE__ROUTER,
                                        .secret = f->o.secret,
                                        .tls = f->o.tls,
                                        .conns_max = FLEET_WORKERS_MAX,
                                        .arg = f,
                                        .on_up = on_up,
                                        .on_message = on_message,
                                        .on_silent = on_silent,
                                        .on_down = on_down,
                                        .on_dial_error = on_dial_error});
}
