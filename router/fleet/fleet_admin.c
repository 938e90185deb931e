/* What an operator asks of the workers: how they are, and to forget their prefix caches. */
#include <stdlib.h>

#include "common/clock.h"
#include "common/json.h"
#include "router/fleet/fleet_private.h"

enum { RESET_LIMIT_S = 10 };

/* ---- the list of workers ----------------------------------------------------------------------------- */

static void add_names(const struct worker_state *s, struct buf *out) {
    const struct model_info *m = s->model ? s->model->info : NULL;
    buf_addz(out, ",\"models\":[");
    for (size_t i = 0; m && i < m->facts.n_names; i++) {
        if (i)
            buf_addc(out, ',');
        jw_strz(out, m->facts.names[i]);
    }
    if (!m && s->name[0])
        jw_strz(out, s->name);
    buf_addz(out, "],\"tasks\":[");
    if (m)
        jw_strz(out, m->pooling ? m->pooling->task_word : "generate");
    buf_addc(out, ']');
}

/* add_missing: addresses that are dialled, and nobody is there. */
static void add_missing(const struct fleet *f, const char *comma, struct buf *out) {
    for (unsigned i = 0; i < FLEET_WORKERS_MAX; i++) {
        const char *url = f->addresses[i].url;
        bool there = false;
        for (unsigned k = 0; url && k < f->n_workers_end && !there; k++)
            there = f->workers[k] && !strcmp(f->workers[k]->address, url);
        if (!url || there || !f->addresses[i].n_names)
            continue;
        buf_addf(out, "%s{\"id\":null,\"address\":", comma);
        jw_strz(out, url);
        buf_addz(out, ",\"models\":[],\"tasks\":[],\"role\":\"both\",\"state\":\"gone\",\"running\":0,"
                      "\"waiting\":0,\"kv_usage\":0,\"version\":null}");
        comma = ",";
    }
}

void fleet_workers_write(struct fleet *f, struct buf *out) {
    const char *comma = "";
    uint64_t now = clock_ns();
    buf_addz(out, "{\"workers\":[");
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        const struct worker_state *s = f->workers[i];
        if (!s)
            continue;
        buf_addf(out, "%s{\"id\":%u,\"address\":", comma, s->w.engine);
        jw_strz(out, s->address);
        add_names(s, out);
        buf_addf(out,
                 ",\"role\":\"%s\",\"state\":\"%s\",\"running\":%u,\"waiting\":%u,\"kv_usage\":",
                 worker_roles[s->w.role], worker_health_name(f, s, now), s->n_running, s->n_waiting);
        jw_f64(out, s->kv_total_blocks ? (double)s->kv_used_blocks / s->kv_total_blocks : 0);
        buf_addz(out, ",\"version\":");
        jw_strz(out, s->version);
        buf_addc(out, '}');
        comma = ",";
    }
    add_missing(f, comma, out);
    pthread_mutex_unlock(&f->lock);
    buf_addz(out, "]}");
}

/* ---- reset of the prefix caches ---------------------------------------------------------------------- */

/* answer: under the lock: one worker has answered, or cannot any more. */
static void answer(struct fleet *f, bool ok) {
    struct fleet_reset *r = f->reset;
    r->ok = r->ok && ok;
    if (--r->n_left)
        return;
    f->reset = NULL;
    f->o.post(f->o.arg, r->loop, &r->msg);
}

enum rc fleet_reset(struct fleet *f, struct fleet_reset *r) {
    struct link_conn *conns[FLEET_WORKERS_MAX];
    unsigned n = 0;
    enum rc rc = RC_OK;
    Weir__Control m = WEIR__CONTROL__INIT;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->n_workers_end && !f->reset; i++) {
        struct worker_state *s = f->workers[i];
        if (!s || !worker_is_ready(s))
            continue;
        s->resetting = true;
        conns[n++] = link_hold(s->w.conn);
    }
    if (f->reset) {
        rc = RC_AGAIN;
    } else if (n == 0) {
        rc = RC_UNAVAILABLE;
    } else {
        r->ok = true;
        r->n_left = n;
        f->reset = r;
        f->reset_ns = clock_ns();
        f->reset_id++;
    }
    m.has_id = m.has_kind = true;
    m.id = f->reset_id;
    m.kind = WEIR__CONTROL__KIND__RESET_PREFIX_CACHE;
    pthread_mutex_unlock(&f->lock);
    for (unsigned i = 0; i < n; i++) {
        /* A worker that does not read is cut, and answers by its departure. */
        if (link_send(conns[i], LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &m) == RC_AGAIN)
            link_cut(conns[i], "it does not read its orders");
        link_drop(conns[i]);
    }
    return rc;
}

void fleet_reset_answer(struct fleet *f, struct worker_state *s, const Weir__ControlReply *m) {
    pthread_mutex_lock(&f->lock);
    if (s->resetting && m->has_id && m->id == f->reset_id) {
        s->resetting = false;
        answer(f, m->ok);
    }
    pthread_mutex_unlock(&f->lock);
}

void fleet_reset_gone(struct fleet *f, struct worker_state *s) {
    if (!s->resetting)
        return;
    s->resetting = false;
    answer(f, false);
}

void fleet_reset_expire(struct fleet *f, bool now) {
    pthread_mutex_lock(&f->lock);
    if (f->reset && (now || clock_ns() - f->reset_ns > RESET_LIMIT_S * NS_PER_S)) {
        for (unsigned i = 0; i < f->n_workers_end; i++)
            if (f->workers[i])
                f->workers[i]->resetting = false;
        f->reset->n_left = 1;
        answer(f, false);
    }
    pthread_mutex_unlock(&f->lock);
}
