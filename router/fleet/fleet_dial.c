/* The addresses that this router dials: by flags, by `weir serve`, by discovery. One that is named twice is dialled
 * once, for as long as somebody names it. */
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

enum rc fleet_dial(struct fleet *f, const char *url, struct err *e) {
    pthread_mutex_lock(&f->lock);
    struct fleet_address *a = find(f, url);
    bool known = a && a->url;
    if (a && !known) {
        a->url = xstrdup(url);
        f->n_dialled++;
    }
    if (a)
        a->n_names++;
    pthread_mutex_unlock(&f->lock);
    if (!a)
        return err_set(e, RC_INVALID, NULL, "more than %d workers", FLEET_WORKERS_MAX);
    enum rc rc = known ? RC_OK : link_dial(f->link, url, e);
    if (rc != RC_OK)
        fleet_undial(f, url);
    return rc;
}

void fleet_undial(struct fleet *f, const char *url) {
    bool last = false;
    pthread_mutex_lock(&f->lock);
    struct fleet_address *a = find(f, url);
    if (a && a->url && --a->n_names == 0) {
        last = true;
        free(a->url);
        a->url = NULL;
        f->n_dialled--;
    }
    pthread_mutex_unlock(&f->lock);
    if (last)
        link_undial(f->link, url);
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
