#include "worker/kvx/wire.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

/* "WKVX", in front of what each side says first. */
#define MAGIC 0x58564b57u

const char *const kvx_refusal_words[N_KVX_REFUSAL] = {"granted", "no such transfer", "another prompt or model",
                                                      "no proof of the cluster token", "the lease has ended",
                                                      "busy"};

/* The most that a body of each type may have. */
static const uint32_t bytes_max[N_KVX] = {[KVX_HELLO] = 64,
                                          [KVX_OPEN] = 256 + 4 * KVX_BLOCKS_MAX,
                                          [KVX_GRANT] = 256,
                                          [KVX_REFUSE] = 4,
                                          [KVX_READ] = 16,
                                          [KVX_DATA] = 2 * KVX_BLOCK_BYTES_MAX,
                                          [KVX_WAIT] = 0,
                                          [KVX_BEAT] = 0,
                                          [KVX_DONE] = 0,
                                          [KVX_FORGET] = 128};

/* ---- writing ------------------------------------------------------------------------------------ */

static void put_u32(struct buf *b, uint32_t v) {
    const uint8_t p[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    buf_add(b, p, sizeof p);
}

static void put_u64(struct buf *b, uint64_t v) {
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static void put_head(struct buf *b, enum kvx_type type, uint64_t n_bytes) {
    CHECK(n_bytes <= bytes_max[type]);
    put_u32(b, (uint32_t)n_bytes);
    put_u32(b, type);
}

/* finish: the length of the frame that begins at `at` is known now. */
static void finish(struct buf *b, size_t at) {
    const size_t n = b->len - at - KVX_HEAD_BYTES;
    for (int i = 0; i < 4; i++)
        b->data[at + (size_t)i] = (char)(n >> (8 * i));
}

void kvx_put_hello(struct buf *b, const struct kvx_hello *m) {
    const size_t at = b->len;
    put_head(b, KVX_HELLO, 0);
    put_u32(b, MAGIC);
    put_u32(b, KVX_VERSION);
    put_u32(b, m->wants_proof);
    buf_add(b, m->engine.b, sizeof m->engine.b);
    buf_add(b, m->nonce, sizeof m->nonce);
    finish(b, at);
}

void kvx_put_open(struct buf *b, const struct kvx_open *m) {
    const size_t at = b->len;
    CHECK(m->n_blocks > 0 && m->n_blocks <= KVX_BLOCKS_MAX && (m->n_ids == 0 || m->n_ids == m->n_blocks));
    put_head(b, KVX_OPEN, 0);
    put_u32(b, MAGIC);
    put_u32(b, KVX_VERSION);
    buf_add(b, m->transfer.b, sizeof m->transfer.b);
    buf_add(b, m->engine.b, sizeof m->engine.b);
    buf_add(b, m->nonce, sizeof m->nonce);
    buf_add(b, m->proof, sizeof m->proof);
    buf_add(b, m->revision, sizeof m->revision);
    buf_add(b, m->domain, sizeof m->domain);
    buf_add(b, m->chain.b, sizeof m->chain.b);
    put_u32(b, m->n_blocks);
    put_u32(b, m->early);
    put_u32(b, m->n_ids);
    buf_add(b, m->ids, 4 * (size_t)m->n_ids);
    finish(b, at);
}

void kvx_put_grant(struct buf *b, const struct kvx_grant *m) {
    const size_t at = b->len;
    put_head(b, KVX_GRANT, 0);
    put_u32(b, m->lease_ms);
    put_u32(b, m->layout.n_ranks);
    put_u32(b, m->layout.n_groups);
    for (uint32_t i = 0; i < m->layout.n_groups; i++) {
        const struct kvx_group *g = &m->layout.group[i];
        put_u32(b, g->kind);
        put_u32(b, g->dtype);
        put_u32(b, g->n_layers);
        put_u32(b, g->n_heads);
        put_u32(b, g->head_dim);
        put_u32(b, g->head_dim_v);
        put_u32(b, g->window);
    }
    finish(b, at);
}

void kvx_put_refuse(struct buf *b, const struct kvx_refuse *m) {
    put_head(b, KVX_REFUSE, 4);
    put_u32(b, m->why);
}

void kvx_put_read(struct buf *b, const struct kvx_read *m) {
    put_head(b, KVX_READ, 16);
    put_u32(b, m->group);
    put_u32(b, m->rank);
    put_u32(b, m->from);
    put_u32(b, m->n);
}

void kvx_put_data(struct buf *b, const struct kvx_data *m) {
    put_head(b, KVX_DATA, KVX_DATA_HEAD_BYTES + m->n_bytes);
    put_u32(b, m->group);
    put_u32(b, m->rank);
    put_u32(b, m->from);
    put_u32(b, m->n);
    put_u32(b, m->heads.first);
    put_u32(b, m->heads.n);
    put_u32(b, m->dtype);
    put_u32(b, m->scales);
    put_u64(b, m->n_bytes);
}

void kvx_put_empty(struct buf *b, enum kvx_type type) {
    CHECK(type >= KVX_WAIT && type <= KVX_DONE);
    put_head(b, type, 0);
}

void kvx_put_forget(struct buf *b, const struct kvx_open *m) {
    const size_t at = b->len;
    put_head(b, KVX_FORGET, 0);
    put_u32(b, MAGIC);
    put_u32(b, KVX_VERSION);
    buf_add(b, m->transfer.b, sizeof m->transfer.b);
    buf_add(b, m->engine.b, sizeof m->engine.b);
    buf_add(b, m->nonce, sizeof m->nonce);
    buf_add(b, m->proof, sizeof m->proof);
    finish(b, at);
}

/* ---- reading ------------------------------------------------------------------------------------ */

struct reader {
    const uint8_t *p, *end;
    bool short_of; /* more was taken than there is */
};

static const uint8_t *take(struct reader *r, size_t n) {
    static const uint8_t zeros[64];
    if (n > (size_t)(r->end - r->p)) {
        r->short_of = true;
        return n <= sizeof zeros ? zeros : NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

static uint32_t u32_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t take_u32(struct reader *r) {
    return u32_at(take(r, 4));
}

static void take_bytes(struct reader *r, void *out, size_t n) {
    memcpy(out, take(r, n), n);
}

static enum rc bad(struct err *e, const char *what) {
    return err_set(e, RC_PROTO, NULL, "a KV transfer's frame: %s", what);
}

static enum rc whole(const struct reader *r, struct err *e) {
    return r->short_of || r->p != r->end ? bad(e, "a body of the wrong length") : RC_OK;
}

static enum rc greeting(struct reader *r, struct err *e) {
    if (take_u32(r) != MAGIC)
        return bad(e, "not the beginning of one");
    uint32_t version = take_u32(r);
    return version == KVX_VERSION
               ? RC_OK
               : err_set(e, RC_PROTO, NULL, "the peer moves KV by version %u, and this build by %d", version, KVX_VERSION);
}

enum rc kvx_get_head(const uint8_t p[KVX_HEAD_BYTES], struct kvx_head *out, struct err *e) {
    uint32_t n = u32_at(p), type = u32_at(p + 4);
    if (type < KVX_HELLO || type >= N_KVX)
        return bad(e, "an unknown type");
    if (n > bytes_max[type])
        return bad(e, "longer than its limit");
    *out = (struct kvx_head){(enum kvx_type)type, n};
    return RC_OK;
}

enum rc kvx_get_hello(const uint8_t *p, size_t n, struct kvx_hello *out, struct err *e) {
    struct reader r = {p, p + n, false};
    struct kvx_hello m;
    enum rc rc = greeting(&r, e);
    if (rc)
        return rc;
    m.wants_proof = take_u32(&r) != 0;
    take_bytes(&r, m.engine.b, sizeof m.engine.b);
    take_bytes(&r, m.nonce, sizeof m.nonce);
    rc = whole(&r, e);
    if (!rc)
        *out = m;
    return rc;
}

enum rc kvx_get_open(const uint8_t *p, size_t n, struct kvx_open *out, struct err *e) {
    struct reader r = {p, p + n, false};
    struct kvx_open m;
    enum rc rc = greeting(&r, e);
    if (rc)
        return rc;
    take_bytes(&r, m.transfer.b, sizeof m.transfer.b);
    take_bytes(&r, m.engine.b, sizeof m.engine.b);
    take_bytes(&r, m.nonce, sizeof m.nonce);
    take_bytes(&r, m.proof, sizeof m.proof);
    take_bytes(&r, m.revision, sizeof m.revision);
    take_bytes(&r, m.domain, sizeof m.domain);
    take_bytes(&r, m.chain.b, sizeof m.chain.b);
    m.n_blocks = take_u32(&r);
    m.early = take_u32(&r) != 0;
    m.n_ids = take_u32(&r);
    if (m.n_blocks == 0 || m.n_blocks > KVX_BLOCKS_MAX || (m.n_ids && m.n_ids != m.n_blocks))
        return bad(e, "a number of blocks that cannot be");
    m.ids = m.n_ids ? take(&r, 4 * (size_t)m.n_ids) : NULL;
    rc = whole(&r, e);
    if (!rc)
        *out = m;
    return rc;
}

enum rc kvx_get_forget(const uint8_t *p, size_t n, struct kvx_open *out, struct err *e) {
    struct reader r = {p, p + n, false};
    struct kvx_open m = {0};
    enum rc rc = greeting(&r, e);
    if (rc)
        return rc;
    take_bytes(&r, m.transfer.b, sizeof m.transfer.b);
    take_bytes(&r, m.engine.b, sizeof m.engine.b);
    take_bytes(&r, m.nonce, sizeof m.nonce);
    take_bytes(&r, m.proof, sizeof m.proof);
    rc = whole(&r, e);
    if (!rc)
        *out = m;
    return rc;
}

uint32_t kvx_open_id(const struct kvx_open *m, uint32_t i) {
    CHECK(i < m->n_ids);
    return u32_at(m->ids + 4 * (size_t)i);
}

enum rc kvx_get_grant(const uint8_t *p, size_t n, struct kvx_grant *out, struct err *e) {
    struct reader r = {p, p + n, false};
    struct kvx_grant m = {.lease_ms = take_u32(&r)};
    m.layout.n_ranks = take_u32(&r);
    m.layout.n_groups = take_u32(&r);
    if (m.layout.n_groups > BE_GROUPS_MAX)
        return bad(e, "more cache groups than there can be");
    for (uint32_t i = 0; i < m.layout.n_groups; i++) {
        uint32_t kind = take_u32(&r), dtype = take_u32(&r);
        struct kvx_group *g = &m.layout.group[i];
        if (kind > CACHE_CROSS || dtype >= N_DTYPE)
            return bad(e, "a cache group of no kind");
        *g = (struct kvx_group){.kind = (enum cache_kind)kind, .dtype = (enum dtype)dtype};
        g->n_layers = take_u32(&r);
        g->n_heads = take_u32(&r);
        g->head_dim = take_u32(&r);
        g->head_dim_v = take_u32(&r);
        g->window = take_u32(&r);
    }
    enum rc rc = whole(&r, e);
    if (!rc && m.lease_ms == 0)
        rc = bad(e, "a lease of no time");
    if (!rc && kvx_layout_check(&m.layout, e))
        rc = bad(e, "blocks that cannot be moved");
    if (!rc)
        *out = m;
    return rc;
}

enum rc kvx_get_refuse(const uint8_t *p, size_t n, struct kvx_refuse *out, struct err *e) {
    struct reader r = {p, p + n, false};
    uint32_t why = take_u32(&r);
    enum rc rc = whole(&r, e);
    if (!rc && (why == KVX_GRANTED || why >= N_KVX_REFUSAL))
        rc = bad(e, "a refusal for no reason");
    if (!rc)
        out->why = (enum kvx_refusal)why;
    return rc;
}

enum rc kvx_get_read(const uint8_t *p, size_t n, struct kvx_read *out, struct err *e) {
    struct reader r = {p, p + n, false};
    struct kvx_read m = {.group = take_u32(&r)};
    m.rank = take_u32(&r);
    m.from = take_u32(&r);
    m.n = take_u32(&r);
    enum rc rc = whole(&r, e);
    if (!rc && (m.group >= BE_GROUPS_MAX || m.rank >= BE_RANKS_MAX || m.n == 0 || m.n > KVX_BLOCKS_MAX ||
                m.from > KVX_BLOCKS_MAX))
        rc = bad(e, "a read of no blocks");
    if (!rc)
        *out = m;
    return rc;
}

enum rc kvx_get_data(const uint8_t *p, size_t n, struct kvx_data *out, struct err *e) {
    if (n < KVX_DATA_HEAD_BYTES)
        return bad(e, "data without a header");
    struct reader r = {p, p + KVX_DATA_HEAD_BYTES, false};
    struct kvx_data m = {.group = take_u32(&r)};
    m.rank = take_u32(&r);
    m.from = take_u32(&r);
    m.n = take_u32(&r);
    m.heads.first = take_u32(&r);
    m.heads.n = take_u32(&r);
    uint32_t dtype = take_u32(&r);
    m.scales = take_u32(&r);
    m.n_bytes = take_u32(&r);
    m.n_bytes |= (uint64_t)take_u32(&r) << 32;
    if (m.n == 0 || dtype >= N_DTYPE || m.scales || m.n_bytes != n - KVX_DATA_HEAD_BYTES)
        return bad(e, "data of another length or type than it says");
    m.dtype = (enum dtype)dtype;
    *out = m;
    return RC_OK;
}

/* ---- proof -------------------------------------------------------------------------------------- */

void kvx_prove(struct str secret, const struct kvx_hello *h, const struct kvx_open *o, uint8_t out[KVX_PROOF_BYTES]) {
    static const char tag[] = "weir kvx proof";
    struct buf b = {0};
    unsigned n = KVX_PROOF_BYTES;
    memset(out, 0, KVX_PROOF_BYTES);
    if (!secret.n)
        return;
    buf_add(&b, tag, sizeof tag);
    buf_add(&b, h->nonce, sizeof h->nonce);
    buf_add(&b, h->engine.b, sizeof h->engine.b);
    buf_add(&b, o->nonce, sizeof o->nonce);
    buf_add(&b, o->transfer.b, sizeof o->transfer.b);
    CHECK(HMAC(EVP_sha256(), secret.p, (int)secret.n, (const uint8_t *)b.data, b.len, out, &n) && n == KVX_PROOF_BYTES);
    buf_fini(&b);
}
