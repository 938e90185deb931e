/* Workers by EndpointSlices: the slices of a service are listed once, and what changes in them is watched from
 * there on, as https://kubernetes.io/docs/reference/using-api/api-concepts/ describes it: a stream of JSON lines,
 * each an event with an object; a stream that ends is taken up at the last version seen, one whose version is too
 * old begins with a new list. */
#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "router/client/exchange.h"
#include "router/fleet/discover_private.h"

#define ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

enum {
    SLICES_MAX = 128,
    NAME_BYTES_MAX = 253,
    TOKEN_BYTES_MAX = 16384,
    LIST_MS = 10000,
    WATCH_S = 240, /* after which the API ends a watch; it says something now and then before */
    WATCH_AGAIN_MS = 100,
    LIST_AGAIN_MS = 1000, /* from an API that tells no version */
    BACKOFF_MIN_MS = 250,
    BACKOFF_MAX_MS = 10000
};

struct slice {
    char name[NAME_BYTES_MAX + 1]; /* "": a free place */
    struct addresses at;
};
struct kube {
    struct source *s;
    char namespace[NAME_BYTES_MAX + 1], service[NAME_BYTES_MAX + 1], port[32];
    char version[64]; /* resourceVersion, from which to watch; "": list first */
    struct slice slice[SLICES_MAX];
};

/* ---- what the flags say --------------------------------------------------------------------------------- */

/* is_name: as Kubernetes has them: nothing that an URL gives a meaning. */
static bool is_name(const char *s) {
    return *s && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == strlen(s);
}

/* read_small: a file's text without its last line feed. */
static bool read_small(const struct router_opts *o, const char *name, char *out, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", o->kubernetes_account ? o->kubernetes_account : ACCOUNT_DIR, name);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;
    if (f)
        fclose(f);
    while (n && (out[n - 1] == '\n' || out[n - 1] == '\r'))
        n--;
    out[n] = '\0';
    return n > 0;
}

/* read_service: [NAMESPACE/]SERVICE[:PORT] */
static enum rc read_service(const struct router_opts *o, struct kube *k, struct err *e) {
    const char *text = o->worker_endpoints, *slash = strchr(text, '/'), *name = slash ? slash + 1 : text;
    const char *colon = strchr(name, ':');
    size_t n = colon ? (size_t)(colon - name) : strlen(name);
    if (slash)
        snprintf(k->namespace, sizeof k->namespace, "%.*s", (int)MIN((size_t)(slash - text), (size_t)NAME_BYTES_MAX),
                 text);
    else if (!read_small(o, "namespace", k->namespace, sizeof k->namespace))
        snprintf(k->namespace, sizeof k->namespace, "default");
    snprintf(k->service, sizeof k->service, "%.*s", (int)MIN(n, (size_t)NAME_BYTES_MAX), name);
    snprintf(k->port, sizeof k->port, "%s", colon ? colon + 1 : "");
    if (is_name(k->namespace) && is_name(k->service) && (!colon || is_name(k->port)))
        return RC_OK;
    return err_set(e, RC_INVALID, "worker-endpoints", "--worker-endpoints %.100s: [NAMESPACE/]SERVICE[:PORT]", text);
}

/* api_url: with the group's prefix behind it. */
static bool api_url(const struct router_opts *o, char *out, size_t size) {
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    if (o->kubernetes_api)
        snprintf(out, size, "%s%s", o->kubernetes_api, "/apis");
    else if (host && port)
        snprintf(out, size, strchr(host, ':') ? "https://[%s]:%s/apis" : "https://%s:%s/apis", host, port);
    return o->kubernetes_api || (host && port);
}

enum rc kube_check(const struct router_opts *o, struct err *e) {
    struct kube *k = xcalloc(1, sizeof *k);
    struct url u;
    char url[TARGET_URL_BYTES_MAX];
    enum rc rc = read_service(o, k, e);
    if (rc == RC_OK && !api_url(o, url, sizeof url))
        rc = err_set(e, RC_INVALID, "worker-endpoints",
                     "--worker-endpoints: this is no pod of Kubernetes; --kubernetes-api names its API");
    if (rc == RC_OK)
        rc = url_read(url, &u, e);
    free(k);
    return rc;
}

/* ---- slices --------------------------------------------------------------------------------------------- */

static struct slice *find(struct kube *k, const char *name) {
    struct slice *spare = NULL;
    for (unsigned i = 0; i < SLICES_MAX; i++) {
        if (!strcmp(k->slice[i].name, name))
            return &k->slice[i];
        if (!k->slice[i].name[0] && !spare)
            spare = &k->slice[i];
    }
    return spare;
}

static void forget(struct slice *x) {
    addresses_fini(&x->at);
    x->name[0] = '\0';
}

/* keep: what a slice says now. */
static enum rc keep(struct kube *k, const json_t *object, struct err *e) {
    struct addresses at = {.n = 0};
    const char *name = endpoint_slice_name(object);
    struct slice *x = name && *name && strlen(name) <= NAME_BYTES_MAX ? find(k, name) : NULL;
    if (!x)
        return err_set(e, RC_INVALID, NULL, "an EndpointSlice without a name, or more than %d", SLICES_MAX);
    enum rc rc = endpoints_add(object, k->port, &at, e);
    if (rc != RC_OK) {
        addresses_fini(&at);
        return rc;
    }
    forget(x);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->at = at;
    return RC_OK;
}

static void publish(struct kube *k) {
    struct addresses all = {.n = 0};
    for (unsigned i = 0; i < SLICES_MAX; i++)
        for (size_t j = 0; k->slice[i].name[0] && j < k->slice[i].at.n; j++)
            (void)addresses_add(&all, str_of(k->slice[i].at.v[j]));
    source_publish_found(k->s, &all);
}

static void note_version(struct kube *k, const json_t *object) {
    const char *v = json_string_value(json_object_get(json_object_get(object, "metadata"), "resourceVersion"));
    if (v && strlen(v) < sizeof k->version && strspn(v, "0123456789") == strlen(v))
        snprintf(k->version, sizeof k->version, "%s", v);
}

static enum rc take_list(struct kube *k, struct str text, struct err *e) {
    json_t *list = NULL;
    enum rc rc = json_parse(text, &json_limits_default, &list, e);
    const json_t *items = json_object_get(list, "items");
    if (rc == RC_OK && !json_is_array(items))
        rc = err_set(e, RC_INVALID, NULL, "the API's answer is no list");
    for (unsigned i = 0; i < SLICES_MAX && rc == RC_OK; i++)
        if (k->slice[i].name[0])
            forget(&k->slice[i]);
    for (size_t i = 0; i < json_array_size(items) && rc == RC_OK; i++)
        rc = keep(k, json_array_get(items, i), e);
    if (rc == RC_OK) {
        note_version(k, list);
        publish(k);
    }
    json_decref(list);
    return rc;
}

/* take_event: a line of a watch. RC_NOT_FOUND: its version is too old. */
static enum rc take_event(struct kube *k, struct str line, struct err *e) {
    json_t *event = NULL;
    enum rc rc = json_parse(line, &json_limits_default, &event, e);
    const char *type = json_string_value(json_object_get(event, "type"));
    const json_t *object = json_object_get(event, "object");
    if (rc == RC_OK && (!type || !json_is_object(object)))
        rc = err_set(e, RC_INVALID, NULL, "the API's watch says something unknown");
    if (rc == RC_OK && !strcmp(type, "ERROR"))
        rc = err_set(e, RC_NOT_FOUND, NULL, "the API has ended the watch");
    bool change = rc == RC_OK && strcmp(type, "BOOKMARK") != 0;
    if (change && !strcmp(type, "DELETED")) {
        const char *name = endpoint_slice_name(object);
        struct slice *x = name && *name ? find(k, name) : NULL;
        if (x && x->name[0])
            forget(x);
    } else if (change) {
        rc = keep(k, object, e);
    }
    if (rc == RC_OK) {
        note_version(k, object);
        if (change)
            publish(k);
    }
    json_decref(event);
    return rc;
}

/* ---- asking --------------------------------------------------------------------------------------------- */

/* take_lines: whole ones, from the front of the body. */
static enum rc take_lines(struct kube *k, struct buf *body, struct err *e) {
    enum rc rc = RC_OK;
    const char *end;
    while (rc == RC_OK && body->len && (end = memchr(body->data, '\n', body->len))) {
        size_t n = (size_t)(end - body->data);
        if (n)
            rc = take_event(k, (struct str){body->data, n}, e);
        buf_drop(body, n + 1);
    }
    return rc;
}

/* talk: until the answer is complete, or limit_ms. watch: its lines are taken as they come. RC_AGAIN: the source is to
 * stop. */
static enum rc talk(struct kube *k, struct exchange *x, bool watch, uint64_t limit_ms, struct err *e) {
    uint64_t end_ns = clock_ns() + limit_ms * NS_PER_MS, now;
    enum rc rc = RC_OK;
    while (rc == RC_OK && !x->done && (now = clock_ns()) < end_ns) {
        struct pollfd p[2] = {{.fd = x->fd, .events = exchange_wants(x)}, {.fd = k->s->stop_fd, .events = POLLIN}};
        if (poll(p, 2, (int)((end_ns - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
            return err_io(e, "poll");
        if (p[1].revents)
            return RC_AGAIN;
        rc = exchange_step(x, e);
        if (rc == RC_OK && watch && x->resp.status == 200)
            rc = take_lines(k, &x->body, e);
    }
    if (rc == RC_OK && !x->done)
        rc = err_set(e, RC_TIMEOUT, NULL, "the Kubernetes API does not answer");
    if (rc == RC_OK && x->resp.status != 200)
        rc = err_set(e, x->resp.status == 410 ? RC_NOT_FOUND : RC_IO, NULL, "the Kubernetes API answers %d",
                     x->resp.status);
    return rc;
}

/* ask: one request and its answer. */
static enum rc ask(struct kube *k, const struct target *t, bool watch, struct err *e) {
    char path[1024], token[TOKEN_BYTES_MAX];
    struct buf request = {0};
    struct exchange x = {.fd = -1};
    const struct router_opts *o = k->s->opts;
    int n = snprintf(path, sizeof path,
                     "/discovery.k8s.io/v1/namespaces/%s/endpointslices?labelSelector=kubernetes.io%%2Fservice-name%%3D%s",
                     k->namespace, k->service);
    if (watch)
        snprintf(path + n, sizeof path - (size_t)n,
                 "&watch=1&allowWatchBookmarks=true&timeoutSeconds=%d&resourceVersion=%s", WATCH_S, k->version);
    bool has_token = read_small(o, "token", token, sizeof token); /* read each time: tokens are renewed */
    enum rc rc = has_token ? key_check(token, e) : RC_OK;
    if (rc == RC_OK) {
        target_request(t, path, has_token ? token : NULL, (struct str){0}, &request);
        rc = exchange_start(&x, t, &request, NULL, NULL, e);
    }
    if (rc == RC_OK)
        rc = talk(k, &x, watch, watch ? (WATCH_S + 30) * 1000ull : LIST_MS, e);
    if (rc == RC_OK && !watch)
        rc = take_list(k, buf_str(&x.body), e);
    exchange_close(&x);
    return rc;
}

/* open_target: with the account's authority, if it has one. */
static enum rc open_target(const struct router_opts *o, struct target *t, struct err *e) {
    char url[TARGET_URL_BYTES_MAX], ca[4096];
    CHECK(api_url(o, url, sizeof url));
    enum rc rc = target_open(t, url, false, e);
    snprintf(ca, sizeof ca, "%s/ca.crt", o->kubernetes_account ? o->kubernetes_account : ACCOUNT_DIR);
    if (rc == RC_OK && t->tls)
        (void)SSL_CTX_load_verify_locations(t->tls, ca, NULL); /* else the system's: the handshake will tell */
    return rc;
}

void kube_run(struct source *s) {
    struct kube *k = xcalloc(1, sizeof *k);
    uint64_t pause_ms = BACKOFF_MIN_MS;
    struct err e = {0};
    k->s = s;
    CHECK(read_service(s->opts, k, &e) == RC_OK);
    for (bool over = false; !over;) {
        struct target t = {0};
        enum rc rc = open_target(s->opts, &t, &e);
        while (rc == RC_OK) {
            rc = ask(k, &t, k->version[0] != '\0', &e);
            if (rc == RC_OK) {
                source_trouble(s, NULL);
                pause_ms = BACKOFF_MIN_MS;
                if (!source_wait(s, k->version[0] ? WATCH_AGAIN_MS : LIST_AGAIN_MS))
                    rc = RC_AGAIN;
            }
        }
        target_close(&t);
        over = rc == RC_AGAIN;
        if (rc == RC_NOT_FOUND || rc == RC_INVALID)
            k->version[0] = '\0';
        if (over)
            break;
        if (rc != RC_NOT_FOUND && rc != RC_CLOSED)
            source_trouble(s, e.msg);
        over = !source_wait(s, pause_ms);
        pause_ms = MIN(2 * pause_ms, (uint64_t)BACKOFF_MAX_MS);
    }
    for (unsigned i = 0; i < SLICES_MAX; i++)
        forget(&k->slice[i]);
    free(k);
}
