/* The addresses that this router dials: by flags, by `weir serve`, by discovery. One that is named twice is dialled
 * once, for as long as somebody names it, and then until its worker has finished. */
#include <stdlib.h>

#include "common/clock.h"
#include "router/fleet/fleet_private.h"

/* find: the place of url in the table, or the first free one; NULL: it is full. Under the lock. */
static struct fleet_address *find(struct fleet *f, const char *url) {
    struct fleet_address *free_one = NULL;
    for (unsigned i = 0; i < FLEET_WORKERS_MAX; i++) {
        struct fleet_address *a = &f->addresses[i];
        if (a->url && !strcmp(a->url, url))
            return a;
        if (!a->url && !free_one)
            free_one = a;
    }
    return free_one;
}

/* set_leaving: tells the worker at an address, if there is one, whether it is wanted. Under the lock. */
static void set_leaving(struct fleet *f, const char *url, bool leaving) {
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        struct worker_state *s = f->workers[i];
        if (!s || strcmp(s->address, url))
            continue;
        s->leaving = leaving;
        if (s->model)
            fleet_pump(f, s->model); /* the line moves, or ends if this was the last one */
    }
}

/* is_busy: whether the worker at an address has requests of this router. Under the lock. */
static bool is_busy(const struct fleet *f, const char *url) {
    for (unsigned i = 0; i < f->n_workers_end; i++) {
        const struct worker_state *s = f->workers[i];
        if (s && s->up && s->load.n_seqs > 0 && !strcmp(s->address, url))
            return true;
    }
    return false;
}

bool fleet_leaving(const struct fleet *f, const char *url) {
    for (unsigned i = 0; i < FLEET_WORKERS_MAX; i++)
        if (f->addresses[i].url && !strcmp(f->addresses[i].url, url))
            return f->addresses[i].n_names == 0;
    return false;
}

/* dial: *room: it has a place in the table, also if it cannot be dialled. With dial_lock. */
static enum rc dial(struct fleet *f, const char *url, bool *room, struct err *e) {
    pthread_mutex_lock(&f->lock);
    struct fleet_address *a = find(f, url);
    bool known = a && a->url;
    *room = a != NULL;
    if (a && !known)
        a->url = xstrdup(url);
    if (a && a->n_names++ == 0) {
        f->n_dialled++;
        set_leaving(f, url, false); /* it may have come back while it was leaving */
    }
    pthread_mutex_unlock(&f->lock);
    if (!a)
        return err_set(e, RC_INVALID, NULL, "more than %d workers", FLEET_WORKERS_MAX);
    return known ? RC_OK : link_dial(f->link, url, e);
}

/* let_go: the address is free, and the connection ends; what its worker still has is replayed. With dial_lock. */
static void let_go(struct fleet *f, const char *url) {
    pthread_mutex_lock(&f->lock);
    struct fleet_address *a = find(f, url);
    CHECK(a && a->url && a->n_names == 0);
    char *gone = a->url;
    *a = (struct fleet_address){.url = NULL};
    pthread_mutex_unlock(&f->lock);
    link_undial(f->link, gone);
    free(gone);
}

/* undial: at_once: whatever the worker has. With dial_lock. */
static void undial(struct fleet *f, const char *url, bool at_once) {
    const uint64_t limit_ns = (uint64_t)(f->o.opts->worker_drain_timeout_s * (double)NS_PER_S);
    bool idle = false;
    pthread_mutex_lock(&f->lock);
    struct fleet_address *a = find(f, url);
    if (a && a->url && --a->n_names == 0) {
        f->n_dialled--;
        a->leave_ns = clock_ns() + limit_ns;
        set_leaving(f, url, true);
        idle = at_once || limit_ns == 0 || !is_busy(f, url);
    }
    pthread_mutex_unlock(&f->lock);
    if (idle)
        let_go(f, url);
}

enum rc fleet_dial(struct fleet *f, const char *url, struct err *e) {
    pthread_mutex_lock(&f->dial_lock);
    bool room = true;
    enum rc rc = dial(f, url, &room, e);
    if (rc != RC_OK && room)
        undial(f, url, true);
    pthread_mutex_unlock(&f->dial_lock);
    return rc;
}

void fleet_undial(struct fleet *f, const char *url) {
    pthread_mutex_lock(&f->dial_lock);
    undial(f, url, false);
    pthread_mutex_unlock(&f->dial_lock);
}

void fleet_let_go(struct fleet *f) {
    char *due[FLEET_WORKERS_MAX];
    size_t n = 0;
    pthread_mutex_lock(&f->dial_lock);
    pthread_mutex_lock(&f->lock);
    uint64_t now = clock_ns();
    for (unsigned i = 0; i < FLEET_WORKERS_MAX; i++) {
        const struct fleet_address *a = &f->addresses[i];
        if (a->url && a->n_names == 0 && (now >= a->leave_ns || !is_busy(f, a->url)))
            due[n++] = xstrdup(a->url);
    }
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < n; i++) {
        let_go(f, due[i]);
        free(due[i]);
    }
    pthread_mutex_unlock(&f->dial_lock);
}

void fleet_addresses_free(struct fleet *f) {
    for (unsigned i = 0; i < FLEET_WORKERS_MAX; i++)
        free(f->addresses[i].url);
}

uint64_t fleet_replay_ns(struct fleet *f) {
    const double several_s = 2;
    double s = f->o.opts->replay_timeout_s;
    if (s < 0) {
        pthread_mutex_lock(&f->lock);
        s = f->n_dialled > 1 ? several_s : 0;
        pthread_mutex_unlock(&f->lock);
    }
    return (uint64_t)(s * (double)NS_PER_S);
}
