#include "worker/tp_wire.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdio.h>

#include "common/clock.h"

enum { MAGIC = 0x74707731, VERSION = 1, BEGIN_MS = 3000 };

/* ---- bytes -------------------------------------------------------------------------------------- */

enum rc tp_wire_init(struct tp_wire *w, struct err *e) {
    *w = (struct tp_wire){0};
    if (nng_aio_alloc(&w->in, NULL, NULL))
        return err_set(e, RC_IO, NULL, "no memory for a connection between ranks");
    if (nng_aio_alloc(&w->out, NULL, NULL)) {
        nng_aio_free(w->in);
        w->in = NULL;
        return err_set(e, RC_IO, NULL, "no memory for a connection between ranks");
    }
    CHECK(pthread_mutex_init(&w->mu, NULL) == 0 && pthread_mutex_init(&w->tx, NULL) == 0);
    return RC_OK;
}

void tp_wire_take(struct tp_wire *w, nng_stream *s) {
    w->s = s;
}

static enum rc result(nng_aio *aio, const char *what, struct err *e) {
    int rv = nng_aio_result(aio);
    switch (rv) {
    case 0:
        return RC_OK;
    case NNG_ETIMEDOUT:
        return err_set(e, RC_TIMEOUT, NULL, "%s: no answer in time", what);
    case NNG_ECLOSED:
    case NNG_ECONNSHUT:
    case NNG_ECONNRESET:
    case NNG_ECANCELED:
        return err_set(e, RC_CLOSED, NULL, "the connection ended");
    default:
        return err_set(e, RC_IO, NULL, "%s: %s", what, nng_strerror(rv));
    }
}

enum rc tp_wire_dial(struct tp_wire *w, const char *url, const struct link_tls *tls, unsigned ms, struct err *e) {
    nng_tls_config *config = NULL;
    if (link_is_tls(url)) {
        if (!link_tls_dials(tls))
            return err_set(e, RC_INVALID, "leader", "%.200s needs --cluster-tls-ca", url);
        enum rc rc = link_tls_client(tls, url, &config, e);
        if (rc)
            return rc;
    }
    pthread_mutex_lock(&w->mu);
    CHECK(!w->s && !w->dialer);
    int rv = w->stopped ? NNG_ECLOSED : nng_stream_dialer_alloc(&w->dialer, url);
    bool known = !rv;
    if (!rv && config)
        rv = nng_stream_dialer_set_ptr(w->dialer, NNG_OPT_TLS_CONFIG, config);
    if (config)
        nng_tls_config_free(config); /* the dialer holds it */
    if (!rv) {
        nng_aio_set_timeout(w->out, (nng_duration)ms);
        nng_stream_dialer_dial(w->dialer, w->out);
    }
    pthread_mutex_unlock(&w->mu);
    if (rv)
        return err_set(e, known ? RC_IO : RC_INVALID, "leader", "%.200s: %s", url, nng_strerror(rv));
    nng_aio_wait(w->out);
    enum rc rc = result(w->out, "dial", e);
    if (rc)
        return rc;
    pthread_mutex_lock(&w->mu);
    w->s = nng_aio_get_output(w->out, 0);
    if (w->stopped)
        nng_stream_close(w->s);
    pthread_mutex_unlock(&w->mu);
    return RC_OK;
}

/* move: sends or receives all of it. nng does not complete what begins after a close: hence the look, under the lock. */
static enum rc move(struct tp_wire *w, void *p, size_t n, unsigned ms, bool out, struct err *e) {
    nng_aio *aio = out ? w->out : w->in;
    for (size_t at = 0; at < n;) {
        uint64_t now = w->until_ns ? clock_ns() : 0;
        if (now && now >= w->until_ns)
            return err_set(e, RC_TIMEOUT, NULL, "%s: no answer in time", out ? "send" : "receive");
        if (now)
            ms = (unsigned)((w->until_ns - now) / NS_PER_MS) + 1;
        nng_iov iov = {.iov_buf = (uint8_t *)p + at, .iov_len = n - at};
        pthread_mutex_lock(&w->mu);
        bool open = !w->stopped && w->s;
        if (open) {
            CHECK(nng_aio_set_iov(aio, 1, &iov) == 0);
            nng_aio_set_timeout(aio, ms ? (nng_duration)ms : NNG_DURATION_INFINITE);
            if (out)
                nng_stream_send(w->s, aio);
            else
                nng_stream_recv(w->s, aio);
        }
        pthread_mutex_unlock(&w->mu);
        if (!open)
            return err_set(e, RC_CLOSED, NULL, "the connection was closed");
        nng_aio_wait(aio);
        enum rc rc = result(aio, out ? "send" : "receive", e);
        if (rc)
            return rc;
        at += nng_aio_count(aio);
    }
    return RC_OK;
}

/* send_locked: under tx. A frame that went out in part has broken the stream. */
static enum rc send_locked(struct tp_wire *w, enum tp_wire_type type, uint32_t n_answer, const void *body, size_t n,
                           unsigned ms, struct err *e) {
    struct tp_wire_head h = {.type = type, .n_bytes = (uint32_t)n, .n_answer = n_answer};
    CHECK(n <= TPW_BODY_BYTES_MAX);
    w->frame.len = 0;
    buf_add(&w->frame, &h, sizeof h);
    if (n)
        buf_add(&w->frame, body, n);
    enum rc rc = move(w, w->frame.data, w->frame.len, ms, true, e);
    if (rc)
        tp_wire_stop(w);
    return rc;
}

enum rc tp_wire_send(struct tp_wire *w, enum tp_wire_type type, uint32_t n_answer, const void *body, size_t n, unsigned ms,
                     struct err *e) {
    pthread_mutex_lock(&w->tx);
    enum rc rc = send_locked(w, type, n_answer, body, n, ms, e);
    pthread_mutex_unlock(&w->tx);
    return rc;
}

enum rc tp_wire_try_beat(struct tp_wire *w, unsigned ms, struct err *e) {
    if (pthread_mutex_trylock(&w->tx))
        return RC_OK;
    enum rc rc = send_locked(w, TPW_BEAT, 0, NULL, 0, ms, e);
    pthread_mutex_unlock(&w->tx);
    return rc;
}

enum rc tp_wire_body(struct tp_wire *w, void *p, size_t n, unsigned ms, struct err *e) {
    return move(w, p, n, ms, false, e);
}

enum rc tp_wire_recv(struct tp_wire *w, struct tp_wire_head *h, unsigned ms, struct err *e) {
    struct tp_wire_head got;
    enum rc rc = move(w, &got, sizeof got, ms, false, e);
    if (rc)
        return rc;
    if (got.type == 0 || got.type >= N_TPW || got.n_bytes > TPW_BODY_BYTES_MAX || got.n_answer > TPW_BODY_BYTES_MAX)
        return err_set(e, RC_PROTO, NULL, "a frame of %u bytes of type %u", got.n_bytes, got.type);
    *h = got;
    return RC_OK;
}

void tp_wire_stop(struct tp_wire *w) {
    pthread_mutex_lock(&w->mu);
    if (!w->stopped) {
        w->stopped = true;
        if (w->s)
            nng_stream_close(w->s);
        else if (w->dialer)
            nng_stream_dialer_close(w->dialer);
    }
    pthread_mutex_unlock(&w->mu);
}

void tp_wire_fini(struct tp_wire *w) {
    if (!w->in)
        return;
    tp_wire_stop(w);
    nng_aio_free(w->in);
    nng_aio_free(w->out);
    /* The dialler first: the stream holds a reference to it inside nng. */
    if (w->dialer)
        nng_stream_dialer_free(w->dialer);
    if (w->s)
        nng_stream_free(w->s);
    pthread_mutex_destroy(&w->mu);
    pthread_mutex_destroy(&w->tx);
    buf_fini(&w->frame);
    *w = (struct tp_wire){0};
}

/* ---- the beginning ------------------------------------------------------------------------------ */

struct hello {
    uint32_t magic, version, wants_proof;
    uint8_t nonce[TPW_NONCE_BYTES];
};
struct join {
    uint32_t magic, version, rank, wants_proof;
    uint8_t nonce[TPW_NONCE_BYTES];
    struct tp_facts facts;
    uint8_t proof[TPW_PROOF_BYTES];
};
struct welcome {
    uint32_t refused;
    uint8_t proof[TPW_PROOF_BYTES];
    char why[TPW_WHY_BYTES];
};

/* prove: by one side, told apart by the label, of all that was said before the proof. */
static void prove(struct str secret, const char *label, const struct hello *h, const struct join *j,
                  uint8_t out[TPW_PROOF_BYTES]) {
    struct buf b = {0};
    unsigned n = TPW_PROOF_BYTES;
    memset(out, 0, TPW_PROOF_BYTES);
    if (!secret.n)
        return;
    buf_addz(&b, label);
    buf_add(&b, h, sizeof *h);
    buf_add(&b, j, offsetof(struct join, proof));
    CHECK(HMAC(EVP_sha256(), secret.p, (int)secret.n, (const uint8_t *)b.data, b.len, out, &n) &&
          n == TPW_PROOF_BYTES);
    buf_fini(&b);
}

static const char rank_label[] = "weir rank joins", lead_label[] = "weir rank 0 leads";

/* recv_fixed: a frame of that type and size. */
static enum rc recv_fixed(struct tp_wire *w, enum tp_wire_type type, void *p, size_t n, struct err *e) {
    struct tp_wire_head h;
    enum rc rc = tp_wire_recv(w, &h, BEGIN_MS, e);
    if (!rc && (h.type != type || h.n_bytes != n))
        rc = err_set(e, RC_PROTO, NULL, "it is no rank of this version of weir");
    return rc ? rc : tp_wire_body(w, p, n, BEGIN_MS, e);
}

/* differs: what is another on the rank's side; NULL: nothing. */
static const char *differs(const struct tp_facts *mine, const struct tp_facts *its) {
    static const char *const names[N_TP_FACTS] = {
        [TP_FACT_DTYPE] = "--dtype",
        [TP_FACT_KV] = "--kv-cache-dtype",
        [TP_FACT_QUANT] = "--quantization",
        [TP_FACT_LEN] = "--max-model-len",
        [TP_FACT_TOKENS] = "--max-num-batched-tokens",
        [TP_FACT_SEQS] = "--max-num-seqs",
        [TP_FACT_ROWS] = "--max-num-batched-tokens",
        [TP_FACT_DEVICE] = "--device",
        [TP_FACT_ORDER] = "--deterministic",
    };
    if (memcmp(mine->revision, its->revision, sizeof mine->revision) != 0)
        return "MODEL";
    if (mine->n_ranks != its->n_ranks)
        return "--tensor-parallel-size";
    for (uint32_t i = 0; i < N_TP_FACTS; i++)
        if (mine->fact[i] != its->fact[i])
            return names[i];
    return NULL;
}

enum rc tp_wire_admit(struct tp_wire *w, struct str secret, const struct tp_facts *mine,
                      bool (*taken)(void *arg, uint32_t rank), void *arg, uint32_t *rank, struct err *e) {
    struct hello h = {.magic = MAGIC, .version = VERSION, .wants_proof = secret.n > 0};
    struct join j;
    struct welcome answer = {0};
    struct err why = {0};
    uint8_t proof[TPW_PROOF_BYTES];
    fill_random(h.nonce, sizeof h.nonce);
    w->until_ns = clock_ns() + BEGIN_MS * NS_PER_MS; /* others wait at the door */
    enum rc rc = tp_wire_send(w, TPW_HELLO, 0, &h, sizeof h, BEGIN_MS, e);
    if (!rc)
        rc = recv_fixed(w, TPW_JOIN, &j, sizeof j, e);
    if (rc)
        return rc;
    prove(secret, rank_label, &h, &j, proof);
    if (j.magic != MAGIC || j.version != VERSION)
        rc = err_set(&why, RC_INVALID, NULL, "it is of another version, or another kind of machine");
    else if (CRYPTO_memcmp(proof, j.proof, sizeof proof) != 0)
        rc = err_set(&why, RC_UNAUTHORIZED, NULL, "no proof of the cluster token");
    else if (j.wants_proof && !secret.n)
        rc = err_set(&why, RC_UNAUTHORIZED, NULL, "it has a --cluster-token-file, and rank 0 none");
    else if (differs(mine, &j.facts))
        rc = err_set(&why, RC_INVALID, NULL, "%s is another than rank 0's: start both with the same",
                     differs(mine, &j.facts));
    else if (taken(arg, j.rank))
        rc = err_set(&why, RC_INVALID, NULL, "rank %u is none that is missing", j.rank);
    answer.refused = rc != RC_OK;
    snprintf(answer.why, sizeof answer.why, "%.*s", (int)sizeof answer.why - 1, why.msg);
    prove(rc ? (struct str){0} : secret, lead_label, &h, &j, answer.proof);
    enum rc sent = tp_wire_send(w, TPW_WELCOME, 0, &answer, sizeof answer, BEGIN_MS, e);
    if (rc)
        return err_set(e, rc, NULL, "%s", why.msg);
    w->until_ns = 0;
    *rank = j.rank;
    return sent;
}

enum rc tp_wire_join(struct tp_wire *w, struct str secret, const struct tp_facts *mine, uint32_t rank, struct err *e) {
    struct hello h;
    struct welcome answer;
    uint8_t proof[TPW_PROOF_BYTES];
    w->until_ns = clock_ns() + BEGIN_MS * NS_PER_MS;
    enum rc rc = recv_fixed(w, TPW_HELLO, &h, sizeof h, e);
    if (rc)
        return rc;
    if (h.magic != MAGIC || h.version != VERSION)
        return err_set(e, RC_INVALID, "leader", "it is of another version, or another kind of machine");
    if (h.wants_proof && !secret.n)
        return err_set(e, RC_INVALID, "leader", "it asks for the cluster's token: give it --cluster-token-file");
    struct join j;
    memset(&j, 0, sizeof j);
    j.magic = MAGIC;
    j.version = VERSION;
    j.rank = rank;
    j.wants_proof = secret.n > 0;
    j.facts = *mine;
    fill_random(j.nonce, sizeof j.nonce);
    prove(h.wants_proof ? secret : (struct str){0}, rank_label, &h, &j, j.proof);
    rc = tp_wire_send(w, TPW_JOIN, 0, &j, sizeof j, BEGIN_MS, e);
    if (!rc)
        rc = recv_fixed(w, TPW_WELCOME, &answer, sizeof answer, e);
    if (rc)
        return rc;
    if (answer.refused)
        return err_set(e, RC_INVALID, "leader", "%.*s", (int)strnlen(answer.why, sizeof answer.why), answer.why);
    prove(secret, lead_label, &h, &j, proof);
    if (CRYPTO_memcmp(proof, answer.proof, sizeof proof) != 0)
        return err_set(e, RC_UNAUTHORIZED, "leader", "no proof of the cluster token");
    w->until_ns = 0;
    return RC_OK;
}
