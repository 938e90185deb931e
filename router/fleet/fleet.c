/* The table of workers and of the models they serve. */
#include "router/fleet/fleet.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "router/fleet/fleet_private.h"

#define FETCH_NS (120 * NS_PER_S) /* for all files of a model */

struct worker *worker_hold(struct worker *w) {
    atomic_fetch_add_explicit(&w->n_refs, 1, memory_order_relaxed);
    return w;
}

void worker_drop(struct worker *w) {
    if (!w || atomic_fetch_sub_explicit(&w->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    link_drop(w->conn);
    free(w->state);
}

/* ---- life -------------------------------------------------------------------------------------------- */

struct fleet *fleet_new(const struct fleet_opts *o) {
    struct fleet *f = xcalloc(1, sizeof *f);
    f->o = *o;
    pthread_mutex_init(&f->lock, NULL);
    pthread_mutex_init(&f->dial_lock, NULL);
    fleet_kv_init(f);
    f->link = fleet_link_new(f);
    return f;
}

void fleet_stop(struct fleet *f) {
    if (f->stopped)
        return;
    f->stopped = true;
    link_free(f->link);
    f->link = NULL;
    fleet_reset_expire(f, true);
}

void fleet_free(struct fleet *f) {
    if (!f)
        return;
    CHECK(f->stopped);
    for (unsigned i = 0; i < f->n_models; i++) {
        line_fini(&f->models[i]->line);
        if (f->models[i]->info)
            model_info_drop(f->models[i]->info);
        free(f->models[i]);
    }
    fleet_addresses_free(f);
    fleet_kv_fini(f);
    pthread_mutex_destroy(&f->dial_lock);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---- models ------------------------------------------------------------------------------------------ */

bool worker_is_ready(const struct worker_state *s) {
    return s->up && !s->leaving && s->state == WEIR__WORKER_STATE__READY && s->model && s->model->info;
}

bool fleet_serves(const struct fleet *f, const struct model_info *info) {
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        if (f->workers[i] && worker_is_ready(f->workers[i]) && f->workers[i]->model->info == info)
            return true;
    }
    return false;
}

struct model_info *fleet_find_model(struct fleet *f, struct str name, bool *serving) {
    struct model_info *found = NULL;
    *serving = false;
    pthread_mutex_lock(&f->lock);
    /* Of several with the name (a new revision beside an old one) one with workers is meant. */
    for (unsigned i = 0; i < f->n_models && !*serving; i++) {
        struct model_info *m = f->models[i]->info;
        if (!m || f->models[i]->forgotten || (name.n && !model_info_serves(m, name)))
            continue;
        *serving = fleet_serves(f, m);
        if (!found || *serving)
            found = m;
    }
    if (found)
        model_info_hold(found);
    pthread_mutex_unlock(&f->lock);
    return found;
}

bool fleet_knows_model(const struct fleet *f) {
    return atomic_load_explicit(&f->knows_model, memory_order_acquire);
}

size_t fleet_models(struct fleet *f, struct model_info **out, size_t max) {
    size_t n = 0;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_models && n < max; i++) {
        if (f->models[i]->info && !f->models[i]->forgotten)
            out[n++] = model_info_hold(f->models[i]->info);
    }
    pthread_mutex_unlock(&f->lock);
    return n;
}

void fleet_first_name(struct fleet *f, struct buf *out) {
    struct model_info *m;
    if (f->o.opts->served_names.n) {
        buf_addz(out, f->o.opts->served_names.v[0]);
        return;
    }
    if (fleet_models(f, &m, 1)) {
        buf_addz(out, m->facts.names[0]);
        model_info_drop(m);
        return;
    }
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        if (f->workers[i]) {
            buf_addz(out, f->workers[i]->name);
            break;
        }
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- workers that go ---------------------------------------------------------------------------------- */

void fleet_unusable(struct fleet *f, struct worker *w) {
    pthread_mutex_lock(&f->lock);
    w->state->up = false;
    pthread_mutex_unlock(&f->lock);
}

bool fleet_kv_known(struct fleet *f, const char *host, uint32_t port) {
    bool known = false;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && !known; i++) {
        const struct worker_state *s = f->workers[i];
        known = s && s->up && s->w.kv_port == port && port && !strcmp(s->w.kv_host, host);
    }
    pthread_mutex_unlock(&f->lock);
    return known;
}

bool fleet_has_other(struct fleet *f, const struct worker *w) {
    bool other = false;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && !other; i++) {
        const struct worker_state *s = f->workers[i];
        other = s && &s->w != w && s->model == w->state->model && worker_is_ready(s);
    }
    pthread_mutex_unlock(&f->lock);
    return other;
}

/* ---- what others ask --------------------------------------------------------------------------------- */

static bool is_stalled(const struct fleet *f, const struct worker_state *s, uint64_t now) {
    double limit_s = f->o.opts->engine_stall_timeout_s;
    if (limit_s <= 0 || s->step_ago_ns == 0)
        return false;
    return (double)(s->step_ago_ns + (now - s->step_at_ns)) > limit_s * (double)NS_PER_S;
}

const char *worker_state_name(const struct fleet *f, const struct worker_state *s, uint64_t now) {
    if (s->state == WEIR__WORKER_STATE__FAILED)
        return "dead";
    if (s->leaving || s->state == WEIR__WORKER_STATE__DRAINING)
        return "draining";
    if (!worker_is_ready(s))
        return "loading";
    return is_stalled(f, s, now) ? "stalled" : "ready";
}

const char *worker_health_name(const struct fleet *f, const struct worker_state *s, uint64_t now) {
    if (!s->up || s->state == WEIR__WORKER_STATE__FAILED)
        return "gone";
    if (s->suspect || s->slow)
        return "suspect";
    if (s->leaving || s->state == WEIR__WORKER_STATE__DRAINING)
        return "draining";
    return !worker_is_ready(s) ? "joining" : is_stalled(f, s, now) ? "stalled" : "ready";
}

/* hide_folders: clients see what fleet_health says, and paths are none of their business (api.md 3.1): of
 * each one only the file's name is left. */
static void hide_folders(char *text) {
    char *out = text;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " '\""), from = 0;
        for (size_t i = 0; i < n && *p == '/'; i++) {
            if (p[i] == '/' && i + 1 < n)
                from = i + 1;
        }
        memmove(out, p + from, n - from);
        out += n - from;
        p += n;
        if (*p)
            *out++ = *p++;
    }
    *out = '\0';
}

bool fleet_health(struct fleet *f, char *why, size_t n) {
    uint64_t now = clock_ns();
    unsigned n_workers = 0;
    const char *worst = NULL, *detail = "";
    bool ok = false;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && !ok; i++) {
        struct worker_state *s = f->workers[i];
        if (!s)
            continue;
        n_workers++;
        worst = worker_state_name(f, s, now);
        ok = !strcmp(worst, "ready");
        if (s->state == WEIR__WORKER_STATE__FAILED)
            detail = s->detail;
        else if (s->model && s->model->error[0])
            detail = s->model->error;
    }
    if (!ok && n_workers == 0)
        snprintf(why, n, "no worker is connected");
    else if (!ok && !strcmp(worst, "loading") && !detail[0])
        snprintf(why, n, "the model is loading");
    else if (!ok)
        snprintf(why, n, "no worker is ready (%s)%s%s", worst, detail[0] ? ": " : "", detail);
    pthread_mutex_unlock(&f->lock);
    if (!ok)
        hide_folders(why);
    return ok;
}

void fleet_progress(struct fleet *f, struct router_progress *out) {
    *out = (struct router_progress){0};
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        struct worker_state *s = f->workers[i];
        if (!s)
            continue;
        out->n_workers++;
        out->load_done_bytes = s->load_done_bytes;
        out->load_total_bytes = s->load_total_bytes;
        if (worker_is_ready(s)) {
            out->n_ready++;
            out->ready_ms = s->ready_ms;
        }
        if (s->state == WEIR__WORKER_STATE__FAILED) {
            out->failed = out->worker_failed = true;
            memcpy(out->detail, s->detail, sizeof out->detail);
        } else if (s->model && s->model->error[0]) {
            out->failed = true;
            memcpy(out->detail, s->model->error, sizeof out->detail);
        }
    }
    pthread_mutex_unlock(&f->lock);
}

static const char *const states[] = {"loading", "ready", "draining", "stalled", "dead"};

/* set_gauges: the line of a model, and how many of its workers are in each state. What waits here is added to
 * the first engine's waiting gauge, so that who scales by it sees all that wait. */
static void set_gauges(struct fleet *f, struct fleet_model *m, uint64_t now,
                       unsigned count[ARRAY_LEN(states)]) {
    bool first = true;
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        struct worker_state *s = f->workers[i];
        if (!s || s->model != m)
            continue;
        const char *name = worker_state_name(f, s, now);
        for (size_t k = 0; k < ARRAY_LEN(states); k++)
            count[k] += !strcmp(name, states[k]);
        if (worker_is_ready(s)) {
            metric_set(s->w.metrics.queue_depth, m->line.n);
            metric_set(s->w.metrics.queue_tokens, (double)m->line.n_tokens);
            metric_set(s->w.metrics.queue_tenants, m->line.order.n);
            metric_set(s->w.metrics.stat[ES_WAITING], s->n_waiting + (first ? m->line.n : 0));
            first = false;
        }
    }
}

void fleet_gauges(struct fleet *f) {
    uint64_t now = clock_ns();
    for (unsigned i = 0;; i++) {
        unsigned count[ARRAY_LEN(states)] = {0};
        struct model_info *info = NULL;
        pthread_mutex_lock(&f->lock);
        bool more = i < f->n_models;
        if (more) {
            set_gauges(f, f->models[i], now, count);
            info = f->models[i]->info ? model_info_hold(f->models[i]->info) : NULL;
        }
        pthread_mutex_unlock(&f->lock);
        if (!more)
            return;
        /* Not under the lock: a series that is new takes memory. */
        for (size_t k = 0; k < ARRAY_LEN(states) && info; k++)
            rmetrics_workers(f->o.metrics, str_of(info->facts.names[0]), states[k], count[k]);
        if (info)
            model_info_drop(info);
    }
}

void fleet_tick(struct fleet *f) {
    pthread_mutex_lock(&f->lock);
    f->done_per_s = 0.7 * f->done_per_s + 0.3 * (double)(f->n_done - f->n_done_ticked);
    f->n_done_ticked = f->n_done;
    pthread_mutex_unlock(&f->lock);
    fleet_reset_expire(f, false);
    fleet_kv_tick(f);
}

static bool is_there(struct fleet *f, const char *url, bool ready) {
    bool there = false;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && !there; i++) {
        const struct worker_state *s = f->workers[i];
        there = s && s->up && !strcmp(s->address, url);
        if (ready)
            there = there && worker_is_ready(s) && s->load.credit_seqs > 0; /* its credit follows its state */
    }
    pthread_mutex_unlock(&f->lock);
    return there;
}

bool fleet_is_up(struct fleet *f, const char *url) {
    return is_there(f, url, false);
}

bool fleet_is_ready(struct fleet *f, const char *url) {
    return is_there(f, url, true);
}

/* look_at_model: who waits for a worker that does not come is told; a model is forgotten in the end. */
static void look_at_model(struct fleet *f, struct fleet_model *m, uint64_t now) {
    const double retention_s = f->o.opts->model_retention_s;
    bool has_worker = false;
    if (m->line.first && !fleet_serves(f, m->info))
        fleet_pump(f, m);
    for (unsigned i = 0; i < f->n_workers_end; i++)
        has_worker |= f->workers[i] && f->workers[i]->up && f->workers[i]->model == m;
    if (has_worker)
        m->alone_ns = 0;
    else if (m->alone_ns == 0)
        m->alone_ns = now;
    m->forgotten = retention_s > 0 && m->alone_ns && !m->line.first &&
                   (double)(now - m->alone_ns) > retention_s * (double)NS_PER_S;
}

/* Time from suspicion, not from the last word: a machine that slept as a whole hears its workers first. And
 * in ticks as well as by the clock: a router that did not run had no chance to hear. */
void fleet_cut_silent(struct fleet *f) {
    enum { SILENT_MS = 600, SILENT_TICKS = 3 };
    struct {
        struct link_conn *conn;
        const char *why;
    } cut[FLEET_WORKERS_MAX];
    size_t n_cut = 0;
    fleet_kv_sweep(f);
    fleet_let_go(f);
    pthread_mutex_lock(&f->lock);
    uint64_t now = clock_ns();
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        struct worker_state *s = f->workers[i];
        const char *why = NULL;
        if (s)
            fleet_look_slow(f, s, now);
        if (s && s->suspect && ++s->n_suspect_ticks >= SILENT_TICKS &&
            now - s->suspect_ns > SILENT_MS * NS_PER_MS)
            why = "it is silent: frozen, or cut off";
        else if (s && s->fetch_ns && now - s->fetch_ns > FETCH_NS)
            why = "its model's files do not come";
        if (!why)
            continue;
        cut[n_cut].conn = link_hold(s->w.conn);
        cut[n_cut++].why = why;
    }
    for (unsigned i = 0; i < f->n_models; i++)
        look_at_model(f, f->models[i], now);
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < n_cut; i++) {
        link_cut(cut[i].conn, cut[i].why);
        link_drop(cut[i].conn);
    }
}
