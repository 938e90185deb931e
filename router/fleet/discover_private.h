/* discover_private.h: what the kinds of sources share. */
#ifndef WEIR_ROUTER_FLEET_DISCOVER_PRIVATE_H
#define WEIR_ROUTER_FLEET_DISCOVER_PRIVATE_H

#include <pthread.h>

#include "router/fleet/addresses.h"
#include "router/fleet/discover.h"

/* source: one place where workers are looked for. Its thread's own. */
struct source {
    struct discover *d;
    const struct router_opts *opts;
    void (*run)(struct source *s); /* until source_wait says so */
    const char *text;              /* the flag's */
    int stop_fd;                   /* readable: the end */
    pthread_t thread;
    struct addresses now; /* dialled */
    char said[256];       /* the last trouble */
};

/* source_wait: sleeps. False: it is over. */
bool source_wait(struct source *s, uint64_t ms);
/* source_publish: found is what there is now; it is taken, and empty afterwards. */
/* source_publish_found: likewise, of addresses that say tcp://, and mean TLS where --cluster-tls-ca is given. */
void source_publish_found(struct source *s, struct addresses *found);
void source_publish(struct source *s, struct addresses *found);
/* source_trouble: logs it, unless it is what was said last. NULL: it is over. */
void source_trouble(struct source *s, const char *why);

/* kube.c */
MUST_USE enum rc kube_check(const struct router_opts *o, struct err *e);
void kube_run(struct source *s);

#endif
