#include "common/link/hello.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/version.h"

/* printable: a peer's text for logs and messages. */
static void printable(char *out, size_t room, const char *z) {
    size_t n = 0;
    for (; z && *z && n + 1 < room; z++)
        out[n++] = *z >= ' ' && *z <= '~' ? *z : '?';
    out[n] = 0;
}

static const char *role_name(Weir__Role role) {
    return role == WEIR__ROLE__ROUTER ? "router" : role == WEIR__ROLE__WORKER ? "worker" : "unknown";
}

enum rc hello_read(const Weir__Envelope *m, const struct hello_side *self, struct hello_side *peer,
                   struct err *e) {
    if (m->body_case != WEIR__ENVELOPE__BODY_HELLO)
        return err_set(e, RC_PROTO, NULL, "the first message is not a hello");
    const Weir__Hello *h = m->hello;
    struct hello_side p = {.epoch = m->epoch, .role = h->role};
    printable(p.version, sizeof p.version, h->version);
    if (!h->has_protocol || h->protocol != LINK_PROTOCOL)
        return err_set(e, RC_PROTO, NULL,
                       "link protocol %u of weir %s does not go with protocol %d of weir %s", h->protocol,
                       *p.version ? p.version : "(unknown)", LINK_PROTOCOL, WEIR_VERSION);
    if (!m->has_sender || m->sender.len != sizeof p.id.b || !m->has_epoch || !h->has_nonce ||
        h->nonce.len != sizeof p.nonce || !h->has_role)
        return err_set(e, RC_PROTO, NULL, "a hello that lacks sender, epoch, role or nonce");
    memcpy(p.id.b, m->sender.data, sizeof p.id.b);
    memcpy(p.nonce, h->nonce.data, sizeof p.nonce);
    if (p.role == self->role || (p.role != WEIR__ROLE__ROUTER && p.role != WEIR__ROLE__WORKER))
        return err_set(e, RC_PROTO, NULL, "a %s cannot talk to a %s", role_name(self->role),
                       role_name(p.role));
    if (memcmp(p.nonce, self->nonce, sizeof p.nonce) == 0)
        return err_set(e, RC_PROTO, NULL, "a hello with our own nonce");
    *peer = p;
    return RC_OK;
}

static void add_u64(struct buf *b, uint64_t v) {
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(v >> 8 * i);
    buf_add(b, le, sizeof le);
}

void hello_proof(struct str secret, const struct hello_side *prover, const struct hello_side *other,
                 uint8_t out[HELLO_PROOF_BYTES]) {
    struct buf b = {0};
    buf_addz(&b, "weir link proof");
    add_u64(&b, LINK_PROTOCOL);
    add_u64(&b, (uint64_t)prover->role);
    buf_add(&b, prover->id.b, sizeof prover->id.b);
    add_u64(&b, prover->epoch);
    buf_add(&b, prover->nonce, sizeof prover->nonce);
    buf_add(&b, other->nonce, sizeof other->nonce);
    unsigned n = HELLO_PROOF_BYTES;
    CHECK(secret.n > 0 && secret.n <= 64 * KIB);
    CHECK(HMAC(EVP_sha256(), secret.p, (int)secret.n, (const uint8_t *)b.data, b.len, out, &n) &&
          n == HELLO_PROOF_BYTES);
    buf_fini(&b);
}

enum rc hello_verify(const Weir__Envelope *m, struct str secret, const struct hello_side *peer,
                     const struct hello_side *self, struct err *e) {
    if (m->body_case != WEIR__ENVELOPE__BODY_HELLO)
        return err_set(e, RC_PROTO, NULL, "a message before the second hello");
    const Weir__Hello *h = m->hello;
    /* A proof where none is asked for: the peer will ask for ours. Refusing here lets both sides say the
     * same. */
    if (secret.n == 0)
        return h->has_secret_proof ? err_set(e, RC_PROTO, NULL,
                                             "the peer has a cluster token and this side has none "
                                             "(--cluster-token-file)")
                                   : RC_OK;
    uint8_t want[HELLO_PROOF_BYTES];
    hello_proof(secret, peer, self, want);
    bool good = h->has_secret_proof && h->secret_proof.len == sizeof want &&
                CRYPTO_memcmp(h->secret_proof.data, want, sizeof want) == 0;
    return good ? RC_OK
                : err_set(e, RC_PROTO, NULL,
                          "the cluster token is missing or another one (--cluster-token-file)");
}

/* ---- epochs ----------------------------------------------------------------------------------------- */

void hello_epochs_init(struct hello_epochs *t) {
    *t = (struct hello_epochs){0};
    CHECK(pthread_mutex_init(&t->mu, NULL) == 0);
    t->seen = xcalloc(HELLO_EPOCHS_MAX, sizeof *t->seen);
}

void hello_epochs_fini(struct hello_epochs *t) {
    free(t->seen);
    pthread_mutex_destroy(&t->mu);
}

bool hello_epochs_admit(struct hello_epochs *t, struct id128 id, uint64_t epoch) {
    pthread_mutex_lock(&t->mu);
    size_t at = 0, oldest = 0;
    while (at < t->n && !id128_eq(t->seen[at].id, id)) {
        if (t->seen[at].used < t->seen[oldest].used)
            oldest = at;
        at++;
    }
    bool known = at < t->n, good = !known || epoch >= t->seen[at].epoch;
    if (!known && t->n < HELLO_EPOCHS_MAX)
        t->n++;
    else if (!known)
        at = oldest;
    if (good) {
        t->seen[at].id = id;
        t->seen[at].epoch = epoch;
        t->seen[at].used = ++t->clock;
    }
    pthread_mutex_unlock(&t->mu);
    return good;
}
