/* engine_tell.c: word to those who keep blocks that nobody here will fetch: their leases end at once, not by their time. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/engine_kvx.h"

struct kvx_tell {
    struct kvx *k;
    struct kvx_tell *next; /* under mu */
    struct kvx_pull_opts o;
    char host[KVX_HOST_BYTES];
    struct kvx_io io;
};

/* over: t is gone, and maybe the engine with it: whoever waits for that has the lock next. */
static void over(struct kvx_tell *t) {
    struct kvx *k = t->k;
    pthread_mutex_lock(&k->mu);
    struct kvx_tell **at = &k->tells;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    pthread_mutex_unlock(&k->mu);
    kvx_io_fini(&t->io);
    free(t);
    pthread_mutex_lock(&k->mu);
    k->n_tells--;
    pthread_cond_signal(&k->told);
    pthread_mutex_unlock(&k->mu);
}

static void *tell_main(void *arg) {
    struct kvx_tell *t = arg;
    struct err e = {0};
    if (kvx_tell_run(&t->o, &t->io, &e))
        LOG(LOG_DEBUG, "KV transfer: the other side was not told", F_STR("reason", e.msg));
    over(t);
    return NULL;
}

void kvx_tell(struct engine *e, const struct req_kv *v) {
    static const struct id128 none;
    struct kvx *k = e->kvx;
    sigset_t all, before;
    pthread_t thread;
    struct err err;
    if (!k || id128_eq(v->transfer, none) || id128_eq(v->engine, none) || !v->host[0] || !v->port)
        return;
    struct kvx_tell *t = xcalloc(1, sizeof *t);
    t->k = k;
    snprintf(t->host, sizeof t->host, "%s", v->host);
    t->o = (struct kvx_pull_opts){.host = t->host, .port = v->port, .secret = k->o.secret, .tls = k->o.tls};
    t->o.open = (struct kvx_open){.transfer = v->transfer, .engine = v->engine};
    if (kvx_io_init(&t->io, &err)) {
        free(t);
        return;
    }
    pthread_mutex_lock(&k->mu);
    const bool may = !k->closed && k->n_tells < KVX_TELLS_MAX;
    if (may) {
        t->next = k->tells;
        k->tells = t;
        k->n_tells++;
    }
    pthread_mutex_unlock(&k->mu);
    if (!may) {
        kvx_io_fini(&t->io);
        free(t);
        return;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, NULL, tell_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        over(t);
    else
        pthread_detach(thread);
}

void kvx_tells_free(struct kvx *k) {
    pthread_mutex_lock(&k->mu);
    for (struct kvx_tell *t = k->tells; t; t = t->next)
        kvx_io_stop(&t->io);
    while (k->n_tells)
        pthread_cond_wait(&k->told, &k->mu);
    pthread_mutex_unlock(&k->mu);
}

void engine_end_transfer(struct engine *e, const struct req_kv *v) {
    kvx_tell(e, v);
}
