#include "router/fleet/discover.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "router/fleet/discover_private.h"
#include "router/fleet/dns.h"

enum {
    SOURCES_MAX = 34,
    FILE_BYTES_MAX = 256 * 1024,
    FILE_LOOK_MS = 250,
    TTL_MIN_S = 1,
    TTL_MAX_S = 30,
    EMPTY_ANSWERS = 3,
    PORT_BYTES = 6
};

struct discover {
    struct router *router;
    struct source source[SOURCES_MAX];
    unsigned n;
    int stop_fd;
    _Atomic bool again;
};

bool source_wait(struct source *s, uint64_t ms) {
    struct pollfd p = {.fd = s->stop_fd, .events = POLLIN};
    uint64_t end_ns = clock_ns() + ms * NS_PER_MS, now;
    while ((now = clock_ns()) < end_ns)
        if (poll(&p, 1, (int)((end_ns - now) / NS_PER_MS) + 1) > 0)
            return false;
    return true;
}

void source_trouble(struct source *s, const char *why) {
    if (why && strncmp(s->said, why, sizeof s->said - 1) != 0)
        LOG(LOG_WARN, "workers cannot be looked up; those known stay", F_STR("source", s->text), F_STR("reason", why));
    snprintf(s->said, sizeof s->said, "%s", why ? why : "");
}

void source_publish(struct source *s, struct addresses *found) {
    struct err e;
    for (size_t i = 0; i < found->n; i++) {
        if (addresses_have(&s->now, found->v[i]))
            continue;
        LOG(LOG_INFO, "a worker was found", F_STR("address", found->v[i]), F_STR("source", s->text));
        if (router_dial(s->d->router, found->v[i], &e) != RC_OK) {
            LOG(LOG_ERROR, "a worker's address cannot be used", F_STR("address", found->v[i]), F_STR("reason", e.msg));
            free(found->v[i]);
            found->v[i--] = found->v[--found->n]; /* to be tried again when it is found again */
        }
    }
    for (size_t i = 0; i < s->now.n; i++) {
        if (addresses_have(found, s->now.v[i]))
            continue;
        LOG(LOG_INFO, "a worker is no longer named", F_STR("address", s->now.v[i]), F_STR("source", s->text));
        router_undial(s->d->router, s->now.v[i]);
    }
    addresses_fini(&s->now);
    s->now = *found;
    found->n = 0;
}

void source_publish_found(struct source *s, struct addresses *found) {
    struct addresses secure = {.n = 0};
    if (!s->opts->cluster_tls_ca) {
        source_publish(s, found);
        return;
    }
    for (size_t i = 0; i < found->n; i++) {
        struct buf url = {0};
        buf_addf(&url, "tls+%s", found->v[i]);
        if (!addresses_add(&secure, buf_str(&url)))
            LOG(LOG_ERROR, "a worker's address is too long", F_STR("address", found->v[i]));
        buf_fini(&url);
    }
    addresses_fini(found);
    source_publish(s, &secure);
}

/* ---- a file --------------------------------------------------------------------------------------------- */

static enum rc read_file(const char *path, struct addresses *out, struct err *e) {
    struct buf text = {0};
    char piece[4096];
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, RC_INVALID, NULL, "%s: %s", path, strerror(errno));
    for (size_t n; text.len <= FILE_BYTES_MAX && (n = fread(piece, 1, sizeof piece, f)) > 0;)
        buf_add(&text, piece, n);
    bool failed = ferror(f);
    fclose(f);
    struct err why = {0};
    enum rc rc = failed ? err_set(&why, RC_INVALID, NULL, "it cannot be read") : RC_OK;
    if (rc == RC_OK && text.len > FILE_BYTES_MAX)
        rc = err_set(&why, RC_INVALID, NULL, "more than %d bytes", FILE_BYTES_MAX);
    if (rc == RC_OK)
        rc = addresses_read(buf_str(&text), out, &why);
    buf_fini(&text);
    return rc == RC_OK ? RC_OK : err_set(e, RC_INVALID, NULL, "%s: %s", path, why.msg);
}

/* same_file: whether it was not written to, and not replaced. */
static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void file_run(struct source *s) {
    struct stat seen = {0}, st;
    do {
        struct addresses found;
        struct err e;
        bool again = atomic_exchange(&s->d->again, false);
        if (stat(s->text, &st)) {
            source_trouble(s, strerror(errno));
            memset(&seen, 0, sizeof seen);
            continue;
        }
        if (same_file(&st, &seen) && !again)
            continue;
        seen = st;
        if (read_file(s->text, &found, &e) == RC_OK) {
            source_publish(s, &found);
            source_trouble(s, NULL);
        } else {
            source_trouble(s, e.msg);
        }
    } while (source_wait(s, FILE_LOOK_MS));
}

/* ---- DNS ------------------------------------------------------------------------------------------------ */

/* dns_name: what --worker-dns says: a name, a port (empty for SRV records) and a server. */
struct dns_name {
    char name[DNS_NAME_BYTES_MAX + 1], port[PORT_BYTES];
    bool srv, has_server;
    struct dns_server server;
};

static enum rc read_name(const char *text, struct dns_name *out, struct err *e) {
    const char *at = strchr(text, '@');
    struct str s = {text, at ? (size_t)(at - text) : strlen(text)};
    const char *colon = memchr(s.p, ':', s.n);
    struct buf question = {0};
    *out = (struct dns_name){.srv = text[0] == '_', .has_server = at != NULL};
    size_t n = colon ? (size_t)(colon - s.p) : s.n;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (n > DNS_NAME_BYTES_MAX || out->srv != !colon || (colon && (port < 1 || port > 65535)))
        return err_set(e, RC_INVALID, "worker-dns", "--worker-dns %s: NAME:PORT, or _SERVICE._tcp.NAME", text);
    memcpy(out->name, s.p, n);
    if (colon)
        snprintf(out->port, sizeof out->port, "%u", (unsigned)port & 0xffff);
    enum rc rc = dns_question(out->name, DNS_A, 0, &question, e);
    buf_fini(&question);
    return rc == RC_OK && at ? dns_server_read(at + 1, &out->server, e) : rc;
}

/* ask: adds what one type of records names. *ttl_s falls to theirs. */
static enum rc ask(struct source *s, const struct dns_name *n, const struct dns_server *server, unsigned type,
                   struct addresses *found, uint32_t *ttl_s, struct err *e) {
    struct dns_answer *a = xcalloc(1, sizeof *a);
    enum rc rc = dns_ask(server, n->name, type, s->stop_fd, a, e);
    for (size_t i = 0; i < a->n && rc == RC_OK; i++) {
        char url[DNS_NAME_BYTES_MAX + 32];
        if (type == DNS_SRV)
            snprintf(url, sizeof url, "tcp://%s:%u", a->v[i].name, a->v[i].port);
        else
            snprintf(url, sizeof url, type == DNS_A ? "tcp://%s:%s" : "tcp://[%s]:%s", a->v[i].name, n->port);
        if (a->v[i].name[0] && !addresses_add(found, str_of(url)))
            rc = err_set(e, RC_INVALID, NULL, "more than %d workers, or a name that is too long", ADDRESSES_MAX);
        *ttl_s = MIN(*ttl_s, a->ttl_s);
    }
    free(a);
    return rc;
}

static void dns_run(struct source *s) {
    struct dns_name n;
    unsigned n_empty = 0;
    struct err e;
    CHECK(read_name(s->text, &n, &e) == RC_OK);
    for (uint32_t ttl_s = TTL_MIN_S, failed_s = TTL_MIN_S;; ) {
        struct addresses found = {.n = 0};
        uint32_t least_s = TTL_MAX_S;
        struct dns_server server = n.server;
        enum rc rc = n.has_server ? RC_OK : dns_server_system(&server, &e);
        if (rc == RC_OK)
            rc = ask(s, &n, &server, n.srv ? DNS_SRV : DNS_A, &found, &least_s, &e);
        if (rc == RC_OK && !n.srv)
            rc = ask(s, &n, &server, DNS_AAAA, &found, &least_s, &e);
        if (rc == RC_OK) {
            n_empty = found.n ? 0 : n_empty + 1;
            ttl_s = found.n ? MAX(least_s, (uint32_t)TTL_MIN_S) : TTL_MIN_S;
            if (found.n || n_empty == EMPTY_ANSWERS)
                source_publish_found(s, &found);
            source_trouble(s, n_empty ? "no such records" : NULL);
            failed_s = TTL_MIN_S;
        } else {
            source_trouble(s, e.msg);
            ttl_s = failed_s;
            failed_s = MIN(2 * failed_s, (uint32_t)TTL_MAX_S);
        }
        addresses_fini(&found);
        if (!source_wait(s, ttl_s * 1000ull))
            return;
    }
}

/* ---- life ----------------------------------------------------------------------------------------------- */

enum rc discover_check(const struct router_opts *o, struct err *e) {
    struct dns_name n;
    if (o->worker_dns.n > SOURCES_MAX - 2)
        return err_set(e, RC_INVALID, "worker-dns", "--worker-dns: more than %d names", SOURCES_MAX - 2);
    for (size_t i = 0; i < o->worker_dns.n; i++)
        if (read_name(o->worker_dns.v[i], &n, e) != RC_OK)
            return e->rc;
    return o->worker_endpoints ? kube_check(o, e) : RC_OK;
}

static void add(struct discover *d, const struct router_opts *o, const char *text, void (*run)(struct source *s)) {
    CHECK(d->n < SOURCES_MAX);
    d->source[d->n++] = (struct source){.d = d, .opts = o, .run = run, .text = text, .stop_fd = d->stop_fd};
}

static void *source_main(void *arg) {
    struct source *s = arg;
    s->run(s);
    return NULL;
}

enum rc discover_start(struct discover **out, const struct router_opts *o, struct router *r, struct err *e) {
    struct addresses first = {.n = 0};
    *out = NULL;
    if (o->worker_file && read_file(o->worker_file, &first, e) != RC_OK)
        return e->rc;
    addresses_fini(&first);
    if (!o->worker_file && !o->worker_dns.n && !o->worker_endpoints)
        return RC_OK;
    struct discover *d = xcalloc(1, sizeof *d);
    d->router = r;
    d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(d->stop_fd >= 0);
    if (o->worker_file)
        add(d, o, o->worker_file, file_run);
    for (size_t i = 0; i < o->worker_dns.n; i++)
        add(d, o, o->worker_dns.v[i], dns_run);
    if (o->worker_endpoints)
        add(d, o, o->worker_endpoints, kube_run);
    for (unsigned i = 0; i < d->n; i++)
        CHECK(pthread_create(&d->source[i].thread, NULL, source_main, &d->source[i]) == 0);
    *out = d;
    return RC_OK;
}

void discover_again(struct discover *d) {
    if (d)
        atomic_store(&d->again, true);
}

void discover_stop(struct discover *d) {
    uint64_t one = 1;
    if (!d)
        return;
    CHECK(write(d->stop_fd, &one, sizeof one) == sizeof one); /* never read: it stays readable for all */
    for (unsigned i = 0; i < d->n; i++) {
        pthread_join(d->source[i].thread, NULL);
        addresses_fini(&d->source[i].now);
    }
    close(d->stop_fd);
    free(d);
}
