/* kv_params.h: kv_transfer_params in and out (api.md 16.1), for proxies that run prefill and decode on two servers. */
#ifndef WEIR_ROUTER_API_KV_PARAMS_H
#define WEIR_ROUTER_API_KV_PARAMS_H

#include "common/arena.h"
#include "common/json.h"
#include "proto/weir.pb-c.h"

/* kv_params: what a request says. Text and list live in its arena. */
struct kv_params {
    bool offer, pull; /* do_remote_decode, do_remote_prefill; never both */
    bool has_transfer;
    struct id128 transfer;
    const char *engine, *host; /* NULL: not said */
    uint32_t port, n_tokens;   /* 0: not said */
    const uint32_t *blocks;    /* [n_blocks] */
    uint32_t n_blocks;
};
/* kv_reply: what a worker keeps for another server. blocks is behind it, in the same memory. */
struct kv_reply {
    struct id128 transfer;
    char engine[33], host[46]; /* checked: hexadecimal digits; an IP address's characters */
    uint32_t port, n_tokens, tp_size, n_blocks;
    double expiry_unix_s;
    uint32_t blocks[];
};
enum { KV_PARAMS_BLOCKS_MAX = 1 << 20 };

/* kv_params_read: RC_INVALID: a member of the wrong type, or both legs at once. A transfer or engine that is no id is as if
 * it were not said: the worker falls back. */
MUST_USE enum rc kv_params_read(json_t *object, struct arena *a, struct kv_params *out, struct err *e);
/* kv_params_fill: for a worker, but for `known`; *m points into p and transfer. */
void kv_params_fill(const struct kv_params *p, Weir__KvTransfer *m);
/* kv_reply_bytes: of the reply that m makes; 0: no correct worker says m. kv_reply_make: into so many bytes, aligned to 8. */
size_t kv_reply_bytes(const Weir__KvTransfer *m);
void kv_reply_make(const Weir__KvTransfer *m, struct kv_reply *out);
/* kv_reply_write: the object; request: the internal id of the leg. */
void kv_reply_write(const struct kv_reply *r, struct id128 request, struct buf *out);

#endif
