#include "router/trace/settings.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "router/client/target.h"

enum { NAME_BYTES_MAX = 80 };

/* both: the variable for traces, else the one for all signals. An empty value counts as none. *name: which. */
static const char *both(char *(*get)(const char *), const char *what, char name[NAME_BYTES_MAX]) {
    static const char *const before[] = {"OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"};
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        snprintf(name, NAME_BYTES_MAX, "%s%s", before[i], what);
        const char *v = get(name);
        if (v && *v)
            return v;
    }
    return NULL;
}

static enum rc read_number(const char *name, const char *text, uint64_t least, uint64_t most, uint64_t *out,
                           struct err *e) {
    char *end;
    if (!text || !*text)
        return RC_OK;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9' || v < least || v > most)
        return err_set(e, RC_INVALID, NULL, "%s: \"%.40s\" is no number from %llu to %llu", name, text,
                       (unsigned long long)least, (unsigned long long)most);
    *out = v;
    return RC_OK;
}

/* ---- the sampler ------------------------------------------------------------------------------------- */

static enum rc read_ratio(const char *text, uint64_t *below, bool *always, struct err *e) {
    char *end;
    double v = text && *text ? strtod(text, &end) : 1;
    if (text && *text && (*end || !(v >= 0 && v <= 1)))
        return err_set(e, RC_INVALID, NULL, "OTEL_TRACES_SAMPLER_ARG: \"%.40s\" is no number from 0 to 1", text);
    *always = v >= 1;
    *below = v >= 1 ? UINT64_MAX : (uint64_t)ldexp(v, 64);
    return RC_OK;
}

static enum rc read_sampler(const char *name, const char *arg, struct trace_sampler *out, struct err *e) {
    static const char by_parent[] = "parentbased_";
    const char *rest = name && *name ? name : "parentbased_always_on";
    *out = (struct trace_sampler){.by_parent = !strncmp(rest, by_parent, sizeof by_parent - 1)};
    if (out->by_parent)
        rest += sizeof by_parent - 1;
    if (!strcmp(rest, "always_on"))
        out->always = true;
    else if (!strcmp(rest, "traceidratio"))
        return read_ratio(arg, &out->below, &out->always, e);
    else if (strcmp(rest, "always_off"))
        return err_set(e, RC_INVALID, NULL,
                       "OTEL_TRACES_SAMPLER: \"%.60s\" is none of always_on, always_off, traceidratio, and these with "
                       "parentbased_ before",
                       name);
    return RC_OK;
}

bool trace_sampler_takes(const struct trace_sampler *s, const struct trace_context *c) {
    uint64_t v = 0;
    if (c->has_parent && s->by_parent)
        return c->sampled;
    for (size_t i = sizeof c->trace.b / 2; i < sizeof c->trace.b; i++)
        v = v << 8 | c->trace.b[i];
    return s->always || v < s->below;
}

/* ---- the rest ---------------------------------------------------------------------------------------- */

/* with_path: an endpoint that names a server alone means the path that collectors have. */
static char *with_path(const char *endpoint) {
    const char *host = strstr(endpoint, "://"), *slash = host ? strchr(host + 3, '/') : NULL;
    size_t n = strlen(endpoint);
    char *out = xmalloc(n + sizeof "/v1/traces");
    memcpy(out, endpoint, n + 1);
    if (host && (!slash || !slash[1]))
        strcpy(slash ? out + (slash - endpoint) : out + n, "/v1/traces");
    return out;
}

/* headers_good: names are tokens of HTTP, values visible ASCII and blanks; and none that the request has anyway. */
static bool headers_good(const struct trace_pairs *h) {
    static const char *const own[] = {"host", "content-length", "content-type", "connection", "transfer-encoding"};
    for (size_t i = 0; i < h->n; i++) {
        const char *name = h->v[i].key;
        for (const char *p = name; *p; p++)
            if (*p <= ' ' || *p >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *p))
                return false;
        for (const char *p = h->v[i].value; *p; p++)
            if (*p < ' ' || *p >= 0x7f)
                return false;
        for (size_t k = 0; k < ARRAY_LEN(own); k++)
            if (!strcasecmp(name, own[k]))
                return false;
    }
    return true;
}

static enum rc read_transport(struct trace_settings *s, char *(*get)(const char *), struct err *e) {
    char name[NAME_BYTES_MAX];
    const char *v = both(get, "PROTOCOL", name);
    struct url u;
    if (v && strcmp(v, "http/protobuf"))
        return err_set(e, RC_INVALID, NULL, "%s: \"%.40s\" is not served; traces go out as http/protobuf", name, v);
    v = both(get, "HEADERS", name);
    if (v && (!trace_pairs_read(v, &s->headers) || !headers_good(&s->headers)))
        return err_set(e, RC_INVALID, NULL, "%s is no list of headers, name=value,name=value", name);
    v = both(get, "CERTIFICATE", name);
    s->ca_file = v ? xstrdup(v) : NULL;
    v = both(get, "TIMEOUT", name);
    enum rc rc = read_number(name, v, 1, 600000, &s->timeout_ms, e);
    return rc == RC_OK ? url_read(s->url, &u, e) : rc;
}

enum rc trace_settings_read(struct trace_settings *s, const char *endpoint, char *(*get)(const char *name),
                            struct err *e) {
    *s = (struct trace_settings){.timeout_ms = 10000, .delay_ms = 5000, .queue_max = 2048, .batch_max = 512};
    const char *v = get("OTEL_SDK_DISABLED");
    s->disabled = v && !strcasecmp(v, "true");
    s->url = with_path(endpoint);
    enum rc rc = read_transport(s, get, e);
    v = get("OTEL_RESOURCE_ATTRIBUTES");
    if (rc == RC_OK && v && !trace_pairs_read(v, &s->resource))
        rc = err_set(e, RC_INVALID, NULL, "OTEL_RESOURCE_ATTRIBUTES is no list, key=value,key=value");
    v = get("OTEL_SERVICE_NAME");
    if (!v || !*v)
        v = trace_pairs_get(&s->resource, "service.name");
    s->service = xstrdup(v && *v ? v : "weir");
    if (rc == RC_OK)
        rc = read_sampler(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"), &s->sampler, e);
    const struct {
        const char *name;
        uint64_t least, most, *at;
    } numbers[] = {{"OTEL_BSP_SCHEDULE_DELAY", 0, 600000, &s->delay_ms},
                   {"OTEL_BSP_MAX_QUEUE_SIZE", 1, 1 << 20, &s->queue_max},
                   {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1, 1 << 14, &s->batch_max}};
    for (size_t i = 0; i < ARRAY_LEN(numbers) && rc == RC_OK; i++)
        rc = read_number(numbers[i].name, get(numbers[i].name), numbers[i].least, numbers[i].most, numbers[i].at, e);
    if (rc != RC_OK) {
        struct err why = *e;
        trace_settings_fini(s);
        return err_set(e, RC_INVALID, NULL, "--otlp-traces-endpoint: %s", why.msg);
    }
    return RC_OK;
}

void trace_settings_fini(struct trace_settings *s) {
    free(s->url);
    free(s->service);
    free(s->ca_file);
    trace_pairs_fini(&s->headers);
    trace_pairs_fini(&s->resource);
    *s = (struct trace_settings){.url = NULL};
}
