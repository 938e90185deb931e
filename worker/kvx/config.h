/* config.h: what a worker is told about KV transfers: flags, in vLLM's words, and the peers it may dial. */
#ifndef WEIR_WORKER_KVX_CONFIG_H
#define WEIR_WORKER_KVX_CONFIG_H

#include "common/link/secure.h"
#include "common/worker_flags.h"
#include "worker/kvx/kvx.h"

enum { KVX_PEERS_MAX = 64 };

/* kvx_peers: networks that may be dialled. */
struct kvx_peers {
    struct {
        uint8_t address[16]; /* IPv4 as IPv6 (::ffff:0:0/96) */
        unsigned n_bits;
    } v[KVX_PEERS_MAX];
    size_t n;
};

/* kvx_opts: what an engine is given. */
struct kvx_opts {
    char host[KVX_HOST_BYTES]; /* to listen on, and told to those who decode */
    uint32_t port;             /* 0: any */
    struct id128 engine;       /* this process, for others */
    struct str secret;         /* the cluster's token; outlives the engine */
    const struct link_tls *tls; /* likewise: blocks travel under TLS; NULL: in clear text */
    double lease_s;
    bool produces, consumes; /* kv_role: keeps blocks for others; fetches them */
    bool must_load;          /* a pull that fails fails its request */
    uint8_t revision[32];    /* digest of the model */
    uint32_t n_heads;        /* KV heads of the model, all ranks together */
    uint32_t n_ranks;
    /* move: blocks of a rank above 0, between its cache and data, which has room for them. in: into the cache. false: it
     * is gone. NULL for one rank. */
    bool (*move)(void *arg, uint32_t rank, uint32_t group, const uint32_t *blocks, uint32_t n, uint8_t *data, bool in);
    void *move_arg;
};

/* kvx_config: reads the flags. *on: transfers are wanted. RC_INVALID names the flag. */
MUST_USE enum rc kvx_config(const struct worker_flags *f, struct kvx_opts *out, bool *on, struct err *e);

/* kvx_peers_parse: ADDRESS or ADDRESS/BITS each. RC_INVALID: what is wrong. kvx_peers_allow: host is an IP address within
 * one of them. kvx_is_address: host is an IP address. */
MUST_USE enum rc kvx_peers_parse(const struct conf_list *list, struct kvx_peers *out, struct err *e);
bool kvx_peers_allow(const struct kvx_peers *p, const char *host);
bool kvx_is_address(const char *host);
/* kvx_host_of: the IP address of a tcp or tls+tcp URL, to out; as it was for any other, and for one that nobody can dial. */
void kvx_host_of(const char *url, char out[KVX_HOST_BYTES]);

#endif
