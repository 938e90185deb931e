#include "router/api/kv_params.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"

#define FIELD "kv_transfer_params"

/* hex_of: 16 bytes of 32 lower-case digits; false: the text is no id. */
static bool hex_of(const char *text, struct id128 *out) {
    static const char digits[] = "0123456789abcdef";
    struct id128 id = {{0}};
    if (!text || strlen(text) != 2 * sizeof id.b)
        return false;
    for (size_t i = 0; i < 2 * sizeof id.b; i++) {
        const char *at = strchr(digits, text[i]);
        if (!at)
            return false;
        id.b[i / 2] = (uint8_t)(id.b[i / 2] << 4 | (at - digits));
    }
    *out = id;
    return true;
}

static enum rc bad(const char *name, const char *what, struct err *e) {
    char param[64];
    snprintf(param, sizeof param, FIELD ".%s", name);
    return err_set(e, RC_INVALID, param, FIELD ".%s must be %s", name, what);
}

static enum rc read_bool(const json_t *o, const char *name, bool *out, struct err *e) {
    const json_t *v = json_object_get(o, name);
    if (v && !json_is_null(v) && !json_is_boolean(v))
        return bad(name, "a boolean or null", e);
    *out = json_is_true(v);
    return RC_OK;
}

static enum rc read_text(const json_t *o, const char *name, struct arena *a, const char **out, struct err *e) {
    enum { BYTES_MAX = 256 };
    const json_t *v = json_object_get(o, name);
    if (v && !json_is_null(v) && !json_is_string(v))
        return bad(name, "a string or null", e);
    const size_t n = json_string_length(v);
    if (n > BYTES_MAX || (n && memchr(json_string_value(v), 0, n)))
        return bad(name, "a string of at most 256 bytes", e);
    *out = n ? arena_strndup(a, json_string_value(v), n) : NULL;
    return RC_OK;
}

static enum rc read_int(const json_t *v, const char *name, int64_t most, uint32_t *out, struct err *e) {
    char what[64];
    if (v && !json_is_null(v) && (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > most)) {
        snprintf(what, sizeof what, "an integer from 0 to %lld, or null", (long long)most);
        return bad(name, what, e);
    }
    *out = (uint32_t)json_integer_value(v);
    return RC_OK;
}

static enum rc read_blocks(const json_t *o, struct arena *a, struct kv_params *p, struct err *e) {
    const json_t *v = json_object_get(o, "remote_block_ids");
    if (!v || json_is_null(v))
        return RC_OK;
    const size_t n = json_array_size(v);
    if (!json_is_array(v) || n > KV_PARAMS_BLOCKS_MAX)
        return bad("remote_block_ids", "a list of integers or null", e);
    uint32_t *blocks = arena_zalloc(a, n + 1, sizeof *blocks);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(v, i);
        if (!json_is_integer(x) || read_int(x, "remote_block_ids", UINT32_MAX, &blocks[i], e) != RC_OK)
            return bad("remote_block_ids", "a list of integers or null", e);
    }
    p->blocks = blocks;
    p->n_blocks = (uint32_t)n;
    return RC_OK;
}

enum rc kv_params_read(json_t *object, struct arena *a, struct kv_params *out, struct err *e) {
    struct kv_params p = {0};
    const char *transfer = NULL, *request = NULL;
    uint32_t ranks;
    const json_t *expiry = json_object_get(object, "remote_blocks_expiry_time");
    enum rc rc = read_bool(object, "do_remote_decode", &p.offer, e);
    if (!rc)
        rc = read_bool(object, "do_remote_prefill", &p.pull, e);
    if (!rc)
        rc = read_text(object, "remote_engine_id", a, &p.engine, e);
    if (!rc)
        rc = read_text(object, "remote_request_id", a, &request, e);
    if (!rc)
        rc = read_text(object, "remote_host", a, &p.host, e);
    if (!rc)
        rc = read_text(object, "transfer_id", a, &transfer, e);
    if (!rc)
        rc = read_int(json_object_get(object, "remote_port"), "remote_port", 65535, &p.port, e);
    if (!rc)
        rc = read_int(json_object_get(object, "remote_num_tokens"), "remote_num_tokens", INT32_MAX, &p.n_tokens, e);
    if (!rc)
        rc = read_int(json_object_get(object, "tp_size"), "tp_size", INT32_MAX, &ranks, e);
    if (!rc && expiry && !json_is_null(expiry) && !json_is_number(expiry))
        rc = bad("remote_blocks_expiry_time", "a number or null", e);
    if (!rc)
        rc = read_blocks(object, a, &p, e);
    if (!rc && p.offer && p.pull)
        rc = err_set(e, RC_INVALID, FIELD, FIELD ": either do_remote_decode or do_remote_prefill");
    if (rc)
        return rc;
    p.has_transfer = hex_of(transfer, &p.transfer);
    *out = p;
    return RC_OK;
}

/* protobuf-c takes no const pointers; packing only reads. */
#define UNCONST(type, p) ((type *)(uintptr_t)(p))

void kv_params_fill(const struct kv_params *p, Weir__KvTransfer *m) {
    weir__kv_transfer__init(m);
    m->has_do_remote_decode = m->has_do_remote_prefill = true;
    m->do_remote_decode = p->offer;
    m->do_remote_prefill = p->pull;
    if (!p->pull)
        return;
    m->has_transfer_id = p->has_transfer;
    m->transfer_id = (ProtobufCBinaryData){sizeof p->transfer.b, UNCONST(uint8_t, p->transfer.b)};
    m->remote_engine_id = UNCONST(char, p->engine);
    m->remote_host = UNCONST(char, p->host);
    m->has_remote_port = m->has_remote_tokens = true;
    m->remote_port = p->port;
    m->remote_tokens = p->n_tokens;
    m->remote_blocks = UNCONST(uint32_t, p->blocks);
    m->n_remote_blocks = p->n_blocks;
}

/* ---- out ----------------------------------------------------------------------------------------- */

size_t kv_reply_bytes(const Weir__KvTransfer *m) {
    struct id128 engine;
    const char *host = m->remote_host ? m->remote_host : "";
    if (!m->has_transfer_id || m->transfer_id.len != sizeof engine.b || !hex_of(m->remote_engine_id, &engine) || !host[0] ||
        strlen(host) >= sizeof((struct kv_reply *)0)->host || strspn(host, "0123456789abcdefABCDEF:.") != strlen(host) ||
        m->n_remote_blocks == 0 || m->n_remote_blocks > KV_PARAMS_BLOCKS_MAX || !(m->expiry_unix_s >= 0) ||
        m->expiry_unix_s > 1e12 || m->remote_port > UINT16_MAX)
        return 0;
    return (sizeof(struct kv_reply) + m->n_remote_blocks * sizeof(uint32_t) + 7) / 8 * 8;
}

void kv_reply_make(const Weir__KvTransfer *m, struct kv_reply *out) {
    *out = (struct kv_reply){.port = m->remote_port,
                             .n_tokens = m->remote_tokens,
                             .tp_size = m->tp_size,
                             .n_blocks = (uint32_t)m->n_remote_blocks,
                             .expiry_unix_s = m->expiry_unix_s};
    memcpy(out->transfer.b, m->transfer_id.data, sizeof out->transfer.b);
    snprintf(out->engine, sizeof out->engine, "%s", m->remote_engine_id);
    snprintf(out->host, sizeof out->host, "%s", m->remote_host);
    memcpy(out->blocks, m->remote_blocks, m->n_remote_blocks * sizeof *out->blocks);
}

static void write_id(struct id128 id, struct buf *out) {
    for (size_t i = 0; i < sizeof id.b; i++)
        buf_addf(out, "%02x", id.b[i]);
}

void kv_reply_write(const struct kv_reply *r, struct id128 request, struct buf *out) {
    buf_addf(out, "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_engine_id\":\"%s\"", r->engine);
    buf_addz(out, ",\"remote_request_id\":\"");
    write_id(request, out);
    buf_addf(out, "\",\"remote_host\":\"%s\",\"remote_port\":%u,\"remote_block_ids\":[", r->host, r->port);
    for (uint32_t i = 0; i < r->n_blocks; i++)
        buf_addf(out, i ? ",%u" : "%u", r->blocks[i]);
    buf_addf(out, "],\"remote_num_tokens\":%u,\"remote_blocks_expiry_time\":%.3f,\"tp_size\":%u,\"transfer_id\":\"",
             r->n_tokens, r->expiry_unix_s, r->tp_size);
    write_id(r->transfer, out);
    buf_addz(out, "\"}");
}
