#include "router/reload.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/link/link.h"
#include "common/log.h"
#include "router/fleet/addresses.h"

struct reload {
    struct reload_opts o;
    pthread_t thread;
    int fd; /* eventfd */
    _Atomic bool stop;
    struct addresses dialled; /* of --worker */
};

static void shown(const struct conf_flag *flag, const struct weir_opts *opts, struct buf *out) {
    const struct conf_table one = {.flags = flag, .n_flags = 1};
    conf_show(&one, opts, out);
}

/* tell_others: flags that say something else than they did, and cannot be changed now. */
static void tell_others(const struct reload *r, const struct weir_opts *new) {
    for (size_t i = 0; i < r->o.table->n_flags; i++) {
        const struct conf_flag *f = &r->o.table->flags[i];
        struct buf was = {0}, is = {0};
        if (!strcmp(f->name, "worker") || !strcmp(f->name, "log-level"))
            continue;
        shown(f, r->o.now, &was);
        shown(f, new, &is);
        if (!str_eq(buf_str(&was), buf_str(&is)))
            LOG(LOG_WARN, "this flag has changed, which takes effect with the next start", F_STR("flag", f->name));
        buf_fini(&was);
        buf_fini(&is);
    }
}

static void redial(struct reload *r, const struct conf_list *workers) {
    struct addresses wanted = {.n = 0};
    struct err e;
    for (size_t i = 0; i < workers->n; i++) {
        if (addresses_have(&wanted, workers->v[i]) || !addresses_add(&wanted, str_of(workers->v[i])))
            continue;
        if (!addresses_have(&r->dialled, workers->v[i]) && router_dial(r->o.router, workers->v[i], &e) != RC_OK)
            LOG(LOG_ERROR, "a worker's address cannot be used", F_STR("address", workers->v[i]), F_STR("reason", e.msg));
    }
    for (size_t i = 0; i < r->dialled.n; i++)
        if (!addresses_have(&wanted, r->dialled.v[i]))
            router_undial(r->o.router, r->dialled.v[i]);
    addresses_fini(&r->dialled);
    r->dialled = wanted;
}

static void reload(struct reload *r) {
    struct weir_opts new;
    struct conf_list positional = {0};
    struct err e = {0};
    weir_opts_init(&new);
    enum rc rc = conf_parse(r->o.table, r->o.argc, r->o.argv, &new, &positional, &e);
    if (rc == RC_OK)
        rc = weir_opts_check(&new, &e);
    for (size_t i = 0; i < new.r.workers.n && rc == RC_OK; i++)
        rc = link_check_url(new.r.workers.v[i], &e);
    if (rc == RC_OK) {
        weir_opts_settle(&new, r->o.serve); /* sets the level of the log */
        if (!r->o.serve)
            redial(r, &new.r.workers);
        tell_others(r, &new);
        LOG(LOG_INFO, "flags read again");
    } else {
        LOG(LOG_ERROR, "the flags stay as they were", F_STR("reason", e.msg));
    }
    weir_opts_free(&new, &positional);
}

static void *reload_main(void *arg) {
    struct reload *r = arg;
    uint64_t n;
    while (!atomic_load(&r->stop)) {
        if (read(r->fd, &n, sizeof n) == sizeof n && !atomic_load(&r->stop))
            reload(r);
    }
    return NULL;
}

struct reload *reload_start(const struct reload_opts *o) {
    struct reload *r = xcalloc(1, sizeof *r);
    r->o = *o;
    r->fd = eventfd(0, EFD_CLOEXEC);
    CHECK(r->fd >= 0);
    for (size_t i = 0; i < o->now->r.workers.n; i++)
        (void)addresses_add(&r->dialled, str_of(o->now->r.workers.v[i]));
    CHECK(pthread_create(&r->thread, NULL, reload_main, r) == 0);
    return r;
}

void reload_ask(struct reload *r) {
    uint64_t one = 1;
    int saved = errno;
    if (r)
        (void)!write(r->fd, &one, sizeof one);
    errno = saved;
}

void reload_stop(struct reload *r) {
    if (!r)
        return;
    atomic_store(&r->stop, true);
    reload_ask(r);
    pthread_join(r->thread, NULL);
    addresses_fini(&r->dialled);
    close(r->fd);
    free(r);
}
