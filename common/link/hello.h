/* hello.h: private to common/link: who a peer is, and the proof that it knows the cluster's token.
 *
 * Both sides send Hello {protocol, version, role, nonce} at once and, having read the other's, Hello
 * {secret_proof}. The proof is HMAC-SHA-256(token, "weir link proof" | protocol | role | id | epoch | own
 * nonce | other's nonce) over fields of fixed length, all of the side that proves except the last. Both
 * nonces are fresh, so a proof cannot be replayed; the role differs on the two sides, so it cannot be
 * reflected. Without a token the second Hello has no proof. The token is not sent; the link is not encrypted.
 */
#ifndef WEIR_COMMON_LINK_HELLO_H
#define WEIR_COMMON_LINK_HELLO_H

#include <pthread.h>

#include "common/link/link.h"

enum { HELLO_NONCE_BYTES = 16, HELLO_PROOF_BYTES = 32, HELLO_EPOCHS_MAX = 4096 };

struct hello_side {
    struct id128 id;
    uint64_t epoch;
    Weir__Role role;
    uint8_t nonce[HELLO_NONCE_BYTES];
    char version[64]; /* printable ASCII */
};

/* hello_read: a peer's first envelope. RC_PROTO with what is wrong, for people on both sides. */
MUST_USE enum rc hello_read(const Weir__Envelope *m, const struct hello_side *self, struct hello_side *peer,
                            struct err *e);
/* hello_proof: what `prover` sends to `other`. */
void hello_proof(struct str secret, const struct hello_side *prover, const struct hello_side *other,
                 uint8_t out[HELLO_PROOF_BYTES]);
/* hello_verify: a peer's second envelope. An empty secret asks for no proof. */
MUST_USE enum rc hello_verify(const Weir__Envelope *m, struct str secret, const struct hello_side *peer,
                              const struct hello_side *self, struct err *e);

/* The latest epoch of each process seen, so that a process from before a restart cannot come back. Bounded:
 * the one not seen for longest goes. Any thread. */
struct hello_epochs {
    pthread_mutex_t mu;
    struct {
        struct id128 id;
        uint64_t epoch, used;
    } * seen;
    size_t n;
    uint64_t clock;
};
void hello_epochs_init(struct hello_epochs *t);
void hello_epochs_fini(struct hello_epochs *t);
/* hello_epochs_admit: false if a later epoch of this process was admitted before. Only for peers that proved
 * themselves. */
bool hello_epochs_admit(struct hello_epochs *t, struct id128 id, uint64_t epoch);

#endif
