/* tp_wire.h: the connection between rank 0 and a rank on another host: who is there, and frames, over one of nng's byte
 * streams (tcp:// or tls+tcp://, with the cluster's token and certificates as the link has them).
 *
 * Rank 0 listens and says TPW_HELLO; the rank answers TPW_JOIN, rank 0 that with TPW_WELCOME. Both prove that they know
 * the token: HMAC-SHA-256 over a label of their own and all that both have said, with a fresh number of each. Then
 * frames: a head, and a body whose words are in the byte order of the machine, which the number in front of a JOIN
 * settles. A body is opaque here.
 *
 * Threads: one receives, any may send and stop.
 */
#ifndef WEIR_WORKER_TP_WIRE_H
#define WEIR_WORKER_TP_WIRE_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <pthread.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/link/secure.h"

enum tp_wire_type {
    TPW_HELLO = 1,
    TPW_JOIN,
    TPW_WELCOME,
    TPW_BEAT,    /* both ways; from a rank: struct tp_wire_beat */
    TPW_LOADED,  /* from a rank */
    TPW_REFUSED, /* from a rank, which will end: why */
    TPW_PLAN,    /* to a rank: a message of tp_step.h */
    TPW_CALL,    /* from a rank, to its stand (be_ops.stand_call) */
    TPW_RESULT,  /* to a rank: what came of it */
    TPW_GONE,    /* to a rank: the group is over, and why */
    N_TPW
};
enum { TPW_NONCE_BYTES = 16, TPW_PROOF_BYTES = 32, TPW_REVISION_BYTES = 32, TPW_WHY_BYTES = 256 };
#define TPW_BODY_BYTES_MAX (64u << 20)

struct tp_wire_head {
    uint32_t type, n_bytes, n_answer; /* n_answer: of a CALL: bytes that its RESULT must have */
};
struct tp_wire_beat {
    uint64_t cpu_ns;
    uint32_t reached, unused;
};

/* tp_facts: what a rank must have as rank 0 has it, else they would compute different things. */
enum { TP_FACT_DTYPE, TP_FACT_KV, TP_FACT_QUANT, TP_FACT_LEN, TP_FACT_TOKENS, TP_FACT_SEQS, TP_FACT_ROWS, TP_FACT_DEVICE,
       TP_FACT_ORDER, N_TP_FACTS };
struct tp_facts {
    uint8_t revision[TPW_REVISION_BYTES];
    uint32_t n_ranks, fact[N_TP_FACTS];
};

struct tp_wire {
    pthread_mutex_t mu;        /* the stream, its beginning and its end */
    pthread_mutex_t tx;        /* one sends at a time */
    nng_aio *in, *out;
    nng_stream *s;             /* under mu */
    nng_stream_dialer *dialer; /* under mu; lives as long as the stream */
    bool stopped;              /* under mu */
    struct buf frame;          /* under tx */
    uint64_t until_ns;         /* of the beginning, which one thread makes; 0: it is over */
};

/* tp_wire_init: without a stream. tp_wire_take: the stream of an accepted connection. */
MUST_USE enum rc tp_wire_init(struct tp_wire *w, struct err *e);
void tp_wire_take(struct tp_wire *w, nng_stream *s);
/* tp_wire_dial: one attempt, up to ms. RC_INVALID: no address, or no certificates for it; RC_IO, RC_CLOSED, RC_TIMEOUT:
 * nobody is there. */
MUST_USE enum rc tp_wire_dial(struct tp_wire *w, const char *url, const struct link_tls *tls, unsigned ms, struct err *e);
/* tp_wire_send: a frame with n bytes; ms for each piece that the system takes. */
MUST_USE enum rc tp_wire_send(struct tp_wire *w, enum tp_wire_type type, uint32_t n_answer, const void *body, size_t n,
                              unsigned ms, struct err *e);
/* tp_wire_try_beat: a BEAT, unless another thread is sending, which does as well. */
MUST_USE enum rc tp_wire_try_beat(struct tp_wire *w, unsigned ms, struct err *e);
/* tp_wire_recv: the next frame's head, which keeps the limits; RC_TIMEOUT: nothing came for ms. tp_wire_body: exactly n
 * bytes of its body. ms 0: no limit. */
MUST_USE enum rc tp_wire_recv(struct tp_wire *w, struct tp_wire_head *h, unsigned ms, struct err *e);
MUST_USE enum rc tp_wire_body(struct tp_wire *w, void *p, size_t n, unsigned ms, struct err *e);
/* tp_wire_stop: any number of times; every call returns RC_CLOSED from then on. */
void tp_wire_stop(struct tp_wire *w);
void tp_wire_fini(struct tp_wire *w);

/* tp_wire_admit: rank 0's side of the beginning. taken: whether a rank is there already, or none of those that come
 * from elsewhere. RC_UNAUTHORIZED, RC_INVALID: it was told why. */
MUST_USE enum rc tp_wire_admit(struct tp_wire *w, struct str secret, const struct tp_facts *mine,
                               bool (*taken)(void *arg, uint32_t rank), void *arg, uint32_t *rank, struct err *e);
/* tp_wire_join: a rank's. RC_INVALID: it was refused, and why; RC_UNAUTHORIZED: rank 0 does not know the token. */
MUST_USE enum rc tp_wire_join(struct tp_wire *w, struct str secret, const struct tp_facts *mine, uint32_t rank,
                              struct err *e);

#endif
