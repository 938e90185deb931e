/* What routers and the engine tell each other of KV transfers. */
#include <stdio.h>
#include <stdlib.h>

#include "worker/io_private.h"

/* may_dial: the other side is a worker of the router's, or one that the operator allows. */
static bool may_dial(const Weir__KvTransfer *v, const struct io_facts *f, const char *host) {
    return (v->has_known && v->known) || kvx_peers_allow(&f->kvx_peers, host);
}

enum rc io_kv_check(const Weir__Submit *m, const struct io_facts *f, struct err *e) {
    const Weir__KvTransfer *v = m->kv_transfer;
    const char *host = v->remote_host ? v->remote_host : "";
    if (v->has_transfer_id && v->transfer_id.len != sizeof(struct id128))
        return err_set(e, RC_INVALID, "kv_transfer_params", "transfer_id has 16 bytes");
    if (v->n_remote_blocks > KVX_BLOCKS_MAX)
        return err_set(e, RC_INVALID, "kv_transfer_params", "remote_block_ids: more than %d", KVX_BLOCKS_MAX);
    if (v->do_remote_decode && m->sampling->has_n_samples && m->sampling->n_samples > 1)
        return err_set(e, RC_INVALID, "kv_transfer_params",
                       "a prompt that is computed for another server has one sample");
    if (!v->do_remote_prefill || !host[0])
        return RC_OK;
    if (strlen(host) >= KVX_HOST_BYTES || !kvx_is_address(host))
        return err_set(e, RC_INVALID, "kv_transfer_params", "remote_host must be an IP address");
    if (!may_dial(v, f, host))
        return err_set(e, RC_INVALID, "kv_transfer_params",
                       "remote_host %s is not among the hosts that this server may fetch from (--kv-peer-allow)", host);
    return RC_OK;
}

/* engine_of: 32 hexadecimal digits; anything else is nobody. */
static struct id128 engine_of(const char *text) {
    struct id128 id = {{0}}, none = {{0}};
    if (!text || strlen(text) != 2 * sizeof id.b)
        return none;
    for (size_t i = 0; i < 2 * sizeof id.b; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, text[i]);
        if (!at)
            return none;
        id.b[i / 2] = (uint8_t)(id.b[i / 2] << 4 | (at - digits));
    }
    return id;
}

static void read_kv(const Weir__KvTransfer *v, struct req_kv *out) {
    *out = (struct req_kv){.offer = v->do_remote_decode, .pull = v->do_remote_prefill, .early = v->early};
    if (v->has_transfer_id)
        memcpy(out->transfer.b, v->transfer_id.data, sizeof out->transfer.b);
    if (!out->pull)
        return;
    out->engine = engine_of(v->remote_engine_id);
    snprintf(out->host, sizeof out->host, "%s", v->remote_host ? v->remote_host : "");
    out->port = v->remote_port <= UINT16_MAX ? v->remote_port : 0;
    out->blocks = v->remote_blocks;
    out->n_blocks = (uint32_t)v->n_remote_blocks;
    out->n_tokens = v->remote_tokens;
}

void io_kv_read(const Weir__Submit *m, struct req_kv *out) {
    read_kv(m->kv_transfer, out);
}

void io_kv_end(struct io *io, const Weir__KvTransfer *m) {
    struct req_kv v;
    if (!m || !m->do_remote_prefill || m->transfer_id.len != sizeof v.transfer || !atomic_load(&io->ready) ||
        !io->facts.kvx || !io->engine.end_transfer)
        return;
    read_kv(m, &v);
    if (kvx_is_address(v.host) && may_dial(m, &io->facts, v.host))
        io->engine.end_transfer(io->engine.arg, &v);
}

bool io_kv_offer(const struct req *r, const struct io_facts *f, struct io_kv_text *text, Weir__KvTransfer *m) {
    const struct kv_offer *o = r->offer;
    if (!o || !f->kvx)
        return false;
    weir__kv_transfer__init(m);
    io_hex(f->kvx->engine, text->engine);
    memcpy(text->transfer, o->transfer.b, sizeof text->transfer);
    m->has_do_remote_prefill = m->do_remote_prefill = true;
    m->has_transfer_id = m->has_remote_port = m->has_remote_tokens = m->has_tp_size = m->has_expiry_unix_s = true;
    m->transfer_id = (ProtobufCBinaryData){sizeof text->transfer, text->transfer};
    m->remote_engine_id = text->engine;
    m->remote_host = (char *)(uintptr_t)f->kvx->host; /* protobuf-c's strings and lists are not const; they are only read */
    m->remote_port = f->kvx_port;
    m->remote_blocks = (uint32_t *)(uintptr_t)o->blocks;
    m->n_remote_blocks = o->n_blocks;
    m->remote_tokens = o->n_blocks * KV_TOKENS;
    m->tp_size = MAX(f->n_ranks, 1u);
    m->expiry_unix_s = o->expiry_unix_s;
    return true;
}
