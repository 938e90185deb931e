#include "router/fleet/addresses.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/link/link.h"

void addresses_fini(struct addresses *a) {
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i]);
    a->n = 0;
}

bool addresses_have(const struct addresses *a, const char *url) {
    for (size_t i = 0; i < a->n; i++)
        if (!strcmp(a->v[i], url))
            return true;
    return false;
}

bool addresses_add(struct addresses *a, struct str url) {
    char text[ADDRESS_BYTES_MAX + 1];
    if (url.n > ADDRESS_BYTES_MAX || memchr(url.p, '\0', url.n))
        return false;
    memcpy(text, url.p, url.n);
    text[url.n] = '\0';
    if (addresses_have(a, text))
        return true;
    if (a->n == ADDRESSES_MAX)
        return false;
    a->v[a->n++] = xstrdup(text);
    return true;
}

/* ---- a file of lines ----------------------------------------------------------------------------------- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

enum rc addresses_read(struct str text, struct addresses *out, struct err *e) {
    enum rc rc = RC_OK;
    *out = (struct addresses){.n = 0};
    for (unsigned line = 1; text.n && rc == RC_OK; line++) {
        const char *end = memchr(text.p, '\n', text.n);
        struct str s = {text.p, end ? (size_t)(end - text.p) : text.n};
        text = end ? (struct str){end + 1, text.n - s.n - 1} : (struct str){0};
        while (s.n && is_blank(s.p[0]))
            s = (struct str){s.p + 1, s.n - 1};
        while (s.n && is_blank(s.p[s.n - 1]))
            s.n--;
        if (!s.n || s.p[0] == '#')
            continue;
        struct err why = {0};
        char url[ADDRESS_BYTES_MAX + 1];
        snprintf(url, sizeof url, "%.*s", (int)MIN(s.n, (size_t)ADDRESS_BYTES_MAX), s.p);
        if (strlen(url) != s.n)
            rc = err_set(e, RC_INVALID, NULL, "line %u is no address", line);
        else if (link_check_url(url, &why) != RC_OK)
            rc = err_set(e, RC_INVALID, NULL, "line %u: %s", line, why.msg);
        else if (!addresses_add(out, s))
            rc = err_set(e, RC_INVALID, NULL, "line %u: more than %d addresses", line, ADDRESSES_MAX);
    }
    if (rc != RC_OK)
        addresses_fini(out);
    return rc;
}

/* ---- an EndpointSlice ---------------------------------------------------------------------------------- */

const char *endpoint_slice_name(const json_t *slice) {
    return json_string_value(json_object_get(json_object_get(slice, "metadata"), "name"));
}

/* port_of: of the slice; 0: it does not have that one. */
static unsigned port_of(const json_t *slice, const char *port) {
    const json_t *ports = json_object_get(slice, "ports");
    char *end;
    unsigned long number = strtoul(port, &end, 10);
    if (*port && !*end && number > 0 && number < 65536)
        return (unsigned)number;
    for (size_t i = 0; i < json_array_size(ports); i++) {
        const json_t *p = json_array_get(ports, i);
        const char *name = json_string_value(json_object_get(p, "name"));
        json_int_t n = json_integer_value(json_object_get(p, "port"));
        if (n > 0 && n < 65536 && (!*port || (name && !strcmp(name, port))))
            return (unsigned)n;
    }
    return 0;
}

/* serves: conditions are nullable; of an absent one the best is assumed, as Kubernetes says. */
static bool serves(const json_t *endpoint) {
    const json_t *c = json_object_get(endpoint, "conditions");
    const json_t *serving = json_object_get(c, "serving"), *ready = json_object_get(c, "ready");
    return json_is_boolean(serving) ? json_is_true(serving) : !json_is_false(ready);
}

enum rc endpoints_add(const json_t *slice, const char *port, struct addresses *out, struct err *e) {
    const json_t *endpoints = json_object_get(slice, "endpoints");
    const char *type = json_string_value(json_object_get(slice, "addressType"));
    unsigned number = port_of(slice, port);
    if (!type || (endpoints && !json_is_array(endpoints) && !json_is_null(endpoints)))
        return err_set(e, RC_INVALID, NULL, "no EndpointSlice");
    bool v6 = !strcmp(type, "IPv6");
    if (!number || (!v6 && strcmp(type, "IPv4") != 0))
        return RC_OK;
    for (size_t i = 0; i < json_array_size(endpoints); i++) {
        const json_t *at = json_array_get(endpoints, i);
        const char *ip = json_string_value(json_array_get(json_object_get(at, "addresses"), 0));
        unsigned char bits[16];
        char url[96];
        if (!ip || inet_pton(v6 ? AF_INET6 : AF_INET, ip, bits) != 1)
            return err_set(e, RC_INVALID, NULL, "an endpoint without an IP address");
        if (!serves(at))
            continue;
        snprintf(url, sizeof url, v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", ip, number);
        if (!addresses_add(out, str_of(url)))
            return err_set(e, RC_INVALID, NULL, "more than %d endpoints", ADDRESSES_MAX);
    }
    return RC_OK;
}
