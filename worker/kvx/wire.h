/* wire.h: the frames of a KV transfer. Pure: no sockets.
 *
 * A frame is a head of 8 bytes (length of the body, type) and the body; all numbers are little-endian.
 *
 *   server  HELLO   who it is, and a nonce
 *   client  OPEN    the capability, what it expects to find, and the proof of the cluster's token; or FORGET: nobody will
 *                   read what the capability is for, and the end
 *   server  GRANT   what its blocks look like; or REFUSE, and the end
 *   client  READ    blocks [from, from + n) of a group, of one rank; some may be under way at once
 *   server  DATA    the first of them that are there, at least one; or WAIT: none is there yet; or REFUSE
 *   client  BEAT    it has no room at the moment, and wants the lease to last
 *   client  DONE    it needs nothing more; the end. A connection that ends without it is an abort
 *
 * Blocks are numbered within the prompt. Everything is checked before anything is allocated: what is of no
 * length, of no type or beyond a limit is RC_PROTO, and its sender is cut.
 */
#ifndef WEIR_WORKER_KVX_WIRE_H
#define WEIR_WORKER_KVX_WIRE_H

#include "common/buf.h"
#include "worker/kvx/kvx.h"

enum { KVX_VERSION = 1, KVX_HEAD_BYTES = 8, KVX_DATA_HEAD_BYTES = 40, KVX_PROOF_BYTES = 32, KVX_WHY_BYTES = 120 };
enum kvx_type { KVX_HELLO = 1, KVX_OPEN, KVX_GRANT, KVX_REFUSE, KVX_READ, KVX_DATA, KVX_WAIT, KVX_BEAT, KVX_DONE, KVX_FORGET, N_KVX };

struct kvx_head {
    enum kvx_type type;
    uint32_t n_bytes; /* of the body */
};
struct kvx_hello {
    struct id128 engine;
    uint8_t nonce[16];
    bool wants_proof;
};
/* kvx_open: what is asked for. The chain is the name of block n_blocks - 1, which tells all tokens up to it. */
struct kvx_open {
    struct id128 transfer, engine;
    uint8_t nonce[16], proof[KVX_PROOF_BYTES];
    uint8_t revision[32]; /* digest of the model */
    uint8_t domain[16];   /* of the prefix cache: revision, adapter and salt */
    struct id128 chain;
    uint32_t n_blocks;   /* at least 1 */
    bool early;          /* the prefill may not have been heard of yet */
    const uint8_t *ids;  /* [n_ids] 32-bit block numbers of the server's, in its first group; borrowed */
    uint32_t n_ids;      /* 0: not known; else n_blocks */
};
struct kvx_grant {
    struct kvx_layout layout;
    uint32_t lease_ms;
};
enum kvx_refusal {
    KVX_GRANTED = 0,
    KVX_UNKNOWN,  /* no such lease: never, not any more, or in use */
    KVX_MISMATCH, /* the lease is of something else */
    KVX_DENIED,   /* no proof of the cluster's token */
    KVX_GONE,     /* the lease has ended since: expired, or its request was aborted */
    KVX_BUSY,     /* too many readers, or the worker stops */
    N_KVX_REFUSAL
};
extern const char *const kvx_refusal_words[N_KVX_REFUSAL];
struct kvx_refuse {
    enum kvx_refusal why;
};
struct kvx_read {
    uint32_t group, rank, from, n; /* n at least 1 */
};
struct kvx_data {
    uint32_t group, rank, from, n;
    struct kvx_heads heads;
    enum dtype dtype;
    uint32_t scales; /* 0: none, the only kind there is */
    uint64_t n_bytes; /* behind the header */
};

/* kvx_put_*: appends a whole frame. kvx_put_data: but for its bytes, which follow. */
void kvx_put_hello(struct buf *b, const struct kvx_hello *m);
void kvx_put_open(struct buf *b, const struct kvx_open *m);
void kvx_put_grant(struct buf *b, const struct kvx_grant *m);
void kvx_put_refuse(struct buf *b, const struct kvx_refuse *m);
void kvx_put_read(struct buf *b, const struct kvx_read *m);
void kvx_put_data(struct buf *b, const struct kvx_data *m);
void kvx_put_empty(struct buf *b, enum kvx_type type); /* WAIT, BEAT, DONE */
/* kvx_put_forget: of m the capability and the proof. */
void kvx_put_forget(struct buf *b, const struct kvx_open *m);

/* kvx_get_head: of a frame; its body is within the limit of its type. RC_PROTO. */
MUST_USE enum rc kvx_get_head(const uint8_t p[KVX_HEAD_BYTES], struct kvx_head *out, struct err *e);
/* kvx_get_*: from a whole body of n bytes. kvx_get_data: from its first KVX_DATA_HEAD_BYTES; n is the body's. RC_PROTO. */
MUST_USE enum rc kvx_get_hello(const uint8_t *p, size_t n, struct kvx_hello *out, struct err *e);
MUST_USE enum rc kvx_get_open(const uint8_t *p, size_t n, struct kvx_open *out, struct err *e);
MUST_USE enum rc kvx_get_forget(const uint8_t *p, size_t n, struct kvx_open *out, struct err *e);
MUST_USE enum rc kvx_get_grant(const uint8_t *p, size_t n, struct kvx_grant *out, struct err *e);
MUST_USE enum rc kvx_get_refuse(const uint8_t *p, size_t n, struct kvx_refuse *out, struct err *e);
MUST_USE enum rc kvx_get_read(const uint8_t *p, size_t n, struct kvx_read *out, struct err *e);
MUST_USE enum rc kvx_get_data(const uint8_t *p, size_t n, struct kvx_data *out, struct err *e);
/* kvx_open_id: number i of ids. */
uint32_t kvx_open_id(const struct kvx_open *m, uint32_t i);

/* kvx_prove: HMAC-SHA-256 under the cluster's token of "weir kvx proof", the server's nonce and engine, the client's
 * nonce and the transfer. An empty secret proves nothing: zeros. */
void kvx_prove(struct str secret, const struct kvx_hello *h, const struct kvx_open *o, uint8_t out[KVX_PROOF_BYTES]);

#endif
