#include "router/admit.h"

#include <strings.h>

#include "common/hash.h"
#include "router/session.h"

bool admit_tenants(const struct router *r) {
    if (!r->opts->fairness)
        return false;
    return r->auth ? auth_count(r->auth) > 1 : r->opts->tenant_header != NULL;
}

/* header: the one value of a header; false: it is not there, or more than once (*n says how often). */
static bool header(const h2o_req_t *req, const char *name, struct str *out, unsigned *n) {
    size_t n_name = strlen(name);
    *n = 0;
    for (size_t i = 0; i < req->headers.size; i++) {
        const h2o_header_t *h = &req->headers.entries[i];
        if (h->name->len != n_name || strncasecmp(h->name->base, name, n_name) != 0)
            continue;
        *out = str_of_iovec(h->value);
        ++*n;
    }
    return *n == 1;
}

/* tenant_of_header: a digest, so that names of any length and make are one size; and of another kind than
 * those of keys. */
static struct id128 tenant_of_header(struct str value) {
    static const char kind[] = "weir tenant by header";
    uint8_t text[sizeof kind + 32], out[32];
    struct id128 id;
    memcpy(text, kind, sizeof kind);
    hash_sha256(value.p, value.n, text + sizeof kind);
    hash_sha256(text, sizeof text, out);
    memcpy(id.b, out, sizeof id.b);
    return id;
}

/* whole: text is an int32 in decimal. */
static bool whole(struct str s, int32_t *out) {
    bool minus = s.n && *s.p == '-';
    int64_t v = 0;
    size_t i = minus;
    if (i == s.n || s.n > 11)
        return false;
    for (; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = v * 10 + (s.p[i] - '0');
    }
    v = minus ? -v : v;
    *out = (int32_t)v;
    return v >= INT32_MIN && v <= INT32_MAX;
}

static bool take_headers(const h2o_req_t *req, const struct router *r, struct admitted *a, struct err *e) {
    const struct router_opts *o = r->opts;
    struct str v;
    unsigned n;
    if (o->fairness && !r->auth && o->tenant_header && header(req, o->tenant_header, &v, &n) && v.n)
        a->tenant = tenant_of_header(v);
    if (!o->priority_header)
        return true;
    if (header(req, o->priority_header, &v, &n)) {
        a->has_priority = true;
        if (whole(v, &a->priority))
            return true;
    } else if (n == 0) {
        return true;
    }
    err_set(e, RC_INVALID, "priority", "the header %.64s must have one whole number, for the priority",
            o->priority_header);
    return false;
}

static void fail_quota(struct router *r, const struct admitted *a, enum quota_verdict v, struct err *e) {
    struct quota_limits l = quota_read(a->quota);
    rmetrics_reject(r->metrics, REJECT_LIMIT, 429);
    if (v == QUOTA_REQUESTS)
        err_set(e, RC_OVERLOAD, NULL, "This key may have %u requests a minute", l.requests);
    else
        err_set(e, RC_OVERLOAD, NULL, "This key may have %u tokens a minute", l.tokens);
}

bool admit(const h2o_req_t *req, struct auth_key *key, struct admitted *out, struct err *e,
           unsigned *retry_after_s) {
    struct router *r = loop_of(req)->router;
    struct admitted a = {.quota = key->quota};
    enum quota_verdict v = QUOTA_OK;
    enum refusal why;
    key->quota = NULL;
    if (r->auth && r->opts->fairness)
        a.tenant = key->tenant;
    if (!take_headers(req, r, &a, e)) {
        *retry_after_s = 0;
    } else if ((why = fleet_refuses(r->fleet, a.tenant)) != REFUSE_NOT) {
        session_refused(r, why, e);
        *retry_after_s = fleet_retry_after_s(r->fleet);
    } else if (a.quota && (v = quota_request(a.quota, clock_ns(), retry_after_s)) != QUOTA_OK) {
        fail_quota(r, &a, v, e);
    } else {
        *out = a;
        return true;
    }
    quota_drop(a.quota);
    return false;
}

bool admit_prompt(struct router *r, struct admitted *a, uint64_t n_tokens, struct err *e,
                  unsigned *retry_after_s) {
    enum quota_verdict v = QUOTA_OK;
    if (a->quota)
        v = quota_prompt(a->quota, clock_ns(), n_tokens, retry_after_s);
    if (v != QUOTA_OK)
        fail_quota(r, a, v, e);
    return v == QUOTA_OK;
}

void admit_output(struct admitted *a, uint32_t n_tokens) {
    if (a->quota && n_tokens)
        quota_output(a->quota, clock_ns(), n_tokens);
}
