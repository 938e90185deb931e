#include "worker/kvx/config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"

/* ---- peers -------------------------------------------------------------------------------------- */

/* address_of: 16 bytes, IPv4 mapped. Returns the bits in front of an address of its kind, -1 for none. */
static int address_of(const char *text, uint8_t out[16]) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (inet_pton(AF_INET, text, out + 12) == 1) {
        memcpy(out, mapped, sizeof mapped);
        return 96;
    }
    return inet_pton(AF_INET6, text, out) == 1 ? 0 : -1;
}

bool kvx_is_address(const char *host) {
    uint8_t a[16];
    return address_of(host, a) >= 0;
}

void kvx_host_of(const char *url, char out[KVX_HOST_BYTES]) {
    char host[KVX_HOST_BYTES];
    const char *at = strstr(url, "tcp://");
    at = at ? at + strlen("tcp://") : "";
    const bool v6 = *at == '[';
    const size_t n = strcspn(at + v6, v6 ? "]" : ":");
    if (n == 0 || n >= sizeof host)
        return;
    snprintf(host, sizeof host, "%.*s", (int)n, at + v6);
    if (kvx_is_address(host) && strcmp(host, "0.0.0.0") && strcmp(host, "::"))
        snprintf(out, KVX_HOST_BYTES, "%s", host);
}

enum rc kvx_peers_parse(const struct conf_list *list, struct kvx_peers *out, struct err *e) {
    struct kvx_peers p = {.n = list->n};
    if (list->n > KVX_PEERS_MAX)
        return err_set(e, RC_INVALID, "kv-peer-allow", "--kv-peer-allow: more than %d networks", KVX_PEERS_MAX);
    for (size_t i = 0; i < list->n; i++) {
        char text[KVX_HOST_BYTES];
        const char *slash = strchr(list->v[i], '/');
        size_t n = slash ? (size_t)(slash - list->v[i]) : strlen(list->v[i]);
        snprintf(text, sizeof text, "%.*s", (int)MIN(n, sizeof text - 1), list->v[i]);
        int front = n < sizeof text ? address_of(text, p.v[i].address) : -1;
        size_t digits = slash ? strspn(slash + 1, "0123456789") : 0;
        long bits = slash && digits >= 1 && digits <= 3 && !slash[1 + digits] ? atol(slash + 1) : slash ? -1 : 128 - front;
        if (front < 0 || bits < 0 || bits + front > 128)
            return err_set(e, RC_INVALID, "kv-peer-allow", "--kv-peer-allow %s: not ADDRESS or ADDRESS/BITS", list->v[i]);
        p.v[i].n_bits = (unsigned)(bits + front);
    }
    *out = p;
    return RC_OK;
}

bool kvx_peers_allow(const struct kvx_peers *p, const char *host) {
    uint8_t a[16];
    if (address_of(host, a) < 0)
        return false;
    for (size_t i = 0; i < p->n; i++) {
        const unsigned whole = p->v[i].n_bits / 8, rest = p->v[i].n_bits % 8;
        const uint8_t *b = p->v[i].address;
        if (memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0))
            return true;
    }
    return false;
}

/* ---- flags -------------------------------------------------------------------------------------- */

static enum rc bad(struct err *e, const char *what) {
    return err_set(e, RC_INVALID, "kv-transfer-config", "--kv-transfer-config: %s", what);
}

/* read_role: kv_role, which says who keeps and who fetches. */
static enum rc read_role(const json_t *v, struct kvx_opts *o, struct err *e) {
    const char *role = v ? json_string_value(v) : "kv_both";
    o->produces = role && (!strcmp(role, "kv_both") || !strcmp(role, "kv_producer"));
    o->consumes = role && (!strcmp(role, "kv_both") || !strcmp(role, "kv_consumer"));
    return o->produces || o->consumes ? RC_OK : bad(e, "kv_role must be kv_producer, kv_consumer or kv_both");
}

static enum rc read_engine(const json_t *v, struct kvx_opts *o, struct err *e) {
    const char *text = json_string_value(v);
    if (!v || json_is_null(v))
        return RC_OK;
    if (!text || strlen(text) != 2 * sizeof o->engine.b || strspn(text, "0123456789abcdef") != strlen(text))
        return bad(e, "engine_id must be 32 hexadecimal digits; without it there is a random one");
    for (size_t i = 0; i < sizeof o->engine.b; i++) {
        char byte[3] = {text[2 * i], text[2 * i + 1], 0};
        o->engine.b[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return RC_OK;
}

/* What vLLM's object may have beside, and has no meaning here: no buffer, no ranks, no code to load. */
static bool is_known(const char *key) {
    static const char *const keys[] = {"kv_connector",   "kv_role",        "kv_ip",        "kv_port",
                                       "engine_id",      "kv_rank",        "kv_parallel_size", "kv_buffer_device",
                                       "kv_buffer_size", "kv_connector_extra_config", "kv_connector_module_path",
                                       "kv_load_failure_policy", "enable_permute_local_kv"};
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(keys) && !known; i++)
        known = strcmp(key, keys[i]) == 0;
    return known;
}

static enum rc read_object(json_t *root, struct kvx_opts *o, struct err *e) {
    const char *key;
    json_t *v;
    const char *policy;
    if (!json_is_object(root))
        return bad(e, "not a JSON object");
    json_object_foreach(root, key, v)
        if (!is_known(key))
            return err_set(e, RC_INVALID, "kv-transfer-config", "--kv-transfer-config: unknown field %.60s", key);
    if ((v = json_object_get(root, "kv_connector")) && !json_is_string(v))
        return bad(e, "kv_connector must be a string");
    if ((v = json_object_get(root, "kv_ip"))) {
        const char *host = json_string_value(v);
        if (!host || strlen(host) >= sizeof o->host || !kvx_is_address(host))
            return bad(e, "kv_ip must be an IP address");
        if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::"))
            return bad(e, "kv_ip must be the address that other workers dial");
        snprintf(o->host, sizeof o->host, "%s", host);
    }
    if ((v = json_object_get(root, "kv_port"))) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 65535)
            return bad(e, "kv_port must be 0 to 65535");
        o->port = (uint32_t)json_integer_value(v);
    }
    if ((v = json_object_get(root, "kv_load_failure_policy"))) {
        policy = json_string_value(v);
        if (!policy || (strcmp(policy, "fail") && strcmp(policy, "recompute")))
            return bad(e, "kv_load_failure_policy must be recompute or fail");
        o->must_load = !strcmp(policy, "fail");
    }
    enum rc rc = read_engine(json_object_get(root, "engine_id"), o, e);
    return rc ? rc : read_role(json_object_get(root, "kv_role"), o, e);
}

enum rc kvx_config(const struct worker_flags *f, struct kvx_opts *out, bool *on, struct err *e) {
    struct kvx_opts o = {.host = "127.0.0.1", .lease_s = f->kv_lease_s, .produces = true, .consumes = true};
    enum rc rc = RC_OK;
    fill_random(o.engine.b, sizeof o.engine.b);
    if (f->kv_transfer_config) {
        json_t *root = json_loads(f->kv_transfer_config, 0, NULL);
        rc = root ? read_object(root, &o, e) : bad(e, "not JSON");
        json_decref(root);
    }
    if (rc)
        return rc;
    o.must_load |= strcmp(f->kv_load_failure_policy, "fail") == 0;
    *on = f->kv_transfer_config != NULL;
    *out = o;
    return RC_OK;
}
