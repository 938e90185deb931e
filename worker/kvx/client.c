#include "worker/kvx/client.h"

#include <stdlib.h>

#include "common/clock.h"

enum {
    DIAL_MS = 2000,
    SEND_MS = 5000,
    ANSWER_MS = 15000, /* to a read: the other side may be in the middle of a long step */
    READS_MAX = 2 * BE_GROUPS_MAX * BE_RANKS_MAX
};

/* pull: the work of kvx_pull_run. Reads are answered in the order in which they were sent. */
struct pull {
    const struct kvx_pull_opts *o;
    struct kvx_io *io;
    struct kvx_layout peer;
    struct buf body, out;
    uint8_t *data[KVX_BUFFERS][BE_GROUPS_MAX]; /* [chunk][block bytes] */
    uint8_t *part;                             /* of one rank, if there are several */
    uint32_t chunk;
    uint64_t lease_ms, beaten_ns;
    struct kvx_pull_stats stats;
    enum kvx_refusal why;
};

static enum rc send_out(struct pull *p, struct err *e) {
    enum rc rc = kvx_io_send(p->io, p->out.data, p->out.len, SEND_MS, e);
    p->out.len = 0;
    return rc;
}

static enum rc refused(struct pull *p, struct err *e) {
    struct kvx_refuse m;
    enum rc rc = kvx_get_refuse((const uint8_t *)p->body.data, p->body.len, &m, e);
    if (rc)
        return rc;
    p->why = m.why;
    return err_set(e, RC_CLOSED, NULL, "refused: %s", kvx_refusal_words[m.why]);
}

static enum rc unexpected(struct err *e) {
    return err_set(e, RC_PROTO, NULL, "the peer sends a frame that is not due");
}

/* meet: until the other side has said who it is; *open is the request's, with its proof. */
static enum rc meet(struct pull *p, struct kvx_open *open, struct err *e) {
    const struct kvx_pull_opts *o = p->o;
    struct kvx_head head;
    struct kvx_hello hello;
    enum rc rc = kvx_io_dial(p->io, o->host, o->port, o->tls, DIAL_MS, e);
    if (!rc)
        rc = kvx_io_frame(p->io, &p->body, &head, ANSWER_MS, e);
    if (!rc && head.type != KVX_HELLO)
        rc = unexpected(e);
    if (!rc)
        rc = kvx_get_hello((const uint8_t *)p->body.data, p->body.len, &hello, e);
    if (rc)
        return rc;
    *open = o->open;
    fill_random(open->nonce, sizeof open->nonce);
    kvx_prove(hello.wants_proof ? o->secret : (struct str){0}, &hello, open, open->proof);
    return RC_OK;
}

/* open: until the grant. */
static enum rc open_transfer(struct pull *p, struct err *e) {
    const struct kvx_pull_opts *o = p->o;
    struct kvx_head head;
    struct kvx_grant grant;
    struct kvx_open open;
    enum rc rc = meet(p, &open, e);
    if (rc)
        return rc;
    kvx_put_open(&p->out, &open);
    rc = send_out(p, e);
    if (!rc)
        rc = kvx_io_frame(p->io, &p->body, &head, ANSWER_MS, e);
    if (rc)
        return rc;
    if (head.type == KVX_REFUSE)
        return refused(p, e);
    if (head.type != KVX_GRANT)
        return unexpected(e);
    rc = kvx_get_grant((const uint8_t *)p->body.data, p->body.len, &grant, e);
    if (!rc && !kvx_layout_same(&grant.layout, &o->layout))
        rc = err_set(e, RC_INVALID, NULL, "the peer's cache has another layout: the model, or --kv-cache-dtype, differs");
    if (rc)
        return rc;
    p->peer = grant.layout;
    p->chunk = kvx_chunk_blocks(&p->peer);
    p->lease_ms = grant.lease_ms;
    p->beaten_ns = clock_ns();
    return RC_OK;
}

/* beat: the lease lasts; every quarter of it. */
static enum rc beat(struct pull *p, struct err *e) {
    uint64_t now = clock_ns();
    if (now - p->beaten_ns < p->lease_ms * NS_PER_MS / 4)
        return RC_OK;
    p->beaten_ns = now;
    kvx_put_empty(&p->out, KVX_BEAT);
    return send_out(p, e);
}

static enum rc await_room(struct pull *p, struct err *e) {
    for (;;) {
        int room = p->o->sink.room(p->o->sink.arg);
        if (room > 0)
            return RC_OK;
        if (room < 0)
            return err_set(e, RC_AGAIN, NULL, "it is wanted no more");
        enum rc rc = beat(p, e);
        if (rc)
            return rc;
    }
}

/* answer: of one read, into dst, which has room for n blocks of that rank; *got of them. Waits as long as the other side
 * computes. */
static enum rc answer(struct pull *p, const struct kvx_read *r, uint8_t *dst, uint32_t *got, struct err *e) {
    const struct kvx_group *g = &p->peer.group[r->group];
    const struct kvx_heads heads = kvx_heads_of(g->n_heads, r->rank, p->peer.n_ranks);
    const size_t block = kvx_block_bytes(g, heads.n);
    for (;;) {
        uint8_t h[KVX_DATA_HEAD_BYTES];
        struct kvx_head head;
        struct kvx_data d;
        enum rc rc = kvx_io_frame(p->io, &p->body, &head, ANSWER_MS, e);
        if (rc)
            return rc;
        if (head.type == KVX_REFUSE)
            return refused(p, e);
        if (head.type == KVX_WAIT) { /* it has renewed the lease by that */
            p->beaten_ns = clock_ns();
            kvx_put_read(&p->out, r);
            if ((rc = send_out(p, e)))
                return rc;
            continue;
        }
        if (head.type != KVX_DATA || head.n_bytes < KVX_DATA_HEAD_BYTES)
            return unexpected(e);
        rc = kvx_io_recv(p->io, h, sizeof h, ANSWER_MS, e);
        if (!rc)
            rc = kvx_get_data(h, head.n_bytes, &d, e);
        if (rc)
            return rc;
        if (d.group != r->group || d.rank != r->rank || d.from != r->from || d.n > r->n || d.dtype != g->dtype ||
            d.heads.first != heads.first || d.heads.n != heads.n || d.n_bytes != block * d.n)
            return err_set(e, RC_PROTO, NULL, "the peer sends blocks that were not asked for");
        rc = kvx_io_recv(p->io, dst, (size_t)d.n_bytes, ANSWER_MS, e);
        if (rc)
            return rc;
        p->stats.n_bytes += d.n_bytes;
        *got = d.n;
        return RC_OK;
    }
}

/* read_part: one rank's blocks, which go between the others' heads. exact: all of them must be there. */
static enum rc read_part(struct pull *p, const struct kvx_read *r, uint8_t *all, bool exact, uint32_t *got,
                         struct err *e) {
    const struct kvx_group *g = &p->peer.group[r->group];
    bool alone = p->peer.n_ranks == 1;
    enum rc rc = answer(p, r, alone ? all : p->part, got, e);
    if (!rc && exact && *got != r->n)
        rc = err_set(e, RC_PROTO, NULL, "the peer has blocks of one group or rank and not of another");
    if (!rc && !alone)
        kvx_slice(g, kvx_heads_of(g->n_heads, r->rank, p->peer.n_ranks), *got, all, p->part, true);
    return rc;
}

/* first_of: whether this side needs blocks of [from, from + n) of a group; the read of them. Window groups begin later than
 * full ones. */
static bool read_of(const struct pull *p, uint32_t group, uint32_t from, uint32_t n, struct kvx_read *out) {
    uint32_t lo = MAX(from, p->o->from[group]);
    if (lo >= from + n)
        return false;
    *out = (struct kvx_read){.group = group, .from = lo, .n = from + n - lo};
    return true;
}

/* lead: the group that begins first: what there is of it is there of all. */
static uint32_t lead_group(const struct pull *p) {
    uint32_t lead = 0;
    for (uint32_t g = 1; g < p->peer.n_groups; g++)
        if (p->o->from[g] < p->o->from[lead])
            lead = g;
    return lead;
}

static enum rc ask(struct pull *p, uint32_t lead, uint32_t from, struct err *e) {
    kvx_put_read(&p->out, &(struct kvx_read){.group = lead, .from = from, .n = MIN(p->chunk, p->o->end - from)});
    return send_out(p, e);
}

/* read_rest: what goes with blocks [from, from + n) of the leading group's rank 0. They are asked for all at once, and
 * behind them the beginning of the next chunk. */
static enum rc read_rest(struct pull *p, uint32_t lead, uint32_t from, uint32_t n, unsigned buffer, struct err *e) {
    struct kvx_read reads[BE_GROUPS_MAX * BE_RANKS_MAX];
    uint32_t n_reads = 0, got;
    enum rc rc = RC_OK;
    for (uint32_t g = 0; g < p->peer.n_groups; g++)
        for (uint32_t rank = g == lead; rank < p->peer.n_ranks; rank++) {
            if (!read_of(p, g, from, n, &reads[n_reads]))
                continue;
            reads[n_reads].rank = rank;
            kvx_put_read(&p->out, &reads[n_reads++]);
        }
    if (from + n < p->o->end)
        kvx_put_read(&p->out, &(struct kvx_read){
                                  .group = lead, .from = from + n, .n = MIN(p->chunk, p->o->end - from - n)});
    if (p->out.len)
        rc = send_out(p, e);
    for (uint32_t i = 0; i < n_reads && !rc; i++)
        rc = read_part(p, &reads[i], p->data[buffer][reads[i].group], true, &got, e);
    return rc;
}

static enum rc read_chunks(struct pull *p, struct err *e) {
    const struct kvx_sink *sink = &p->o->sink;
    const uint32_t lead = lead_group(p), end = p->o->end;
    enum rc rc = ask(p, lead, p->o->from[lead], e);
    unsigned buffer = 0;
    uint32_t n;
    for (uint32_t from = p->o->from[lead]; from < end && !rc; from += n, buffer = (buffer + 1) % KVX_BUFFERS) {
        struct kvx_read first = {.group = lead, .from = from, .n = MIN(p->chunk, end - from)};
        if (!sink->settle(sink->arg, buffer))
            return err_set(e, RC_AGAIN, NULL, "it is wanted no more");
        rc = read_part(p, &first, p->data[buffer][lead], false, &n, e);
        if (!rc)
            rc = read_rest(p, lead, from, n, buffer, e);
        for (uint32_t g = 0; g < p->peer.n_groups && !rc; g++) {
            struct kvx_read r;
            if (read_of(p, g, from, n, &r))
                sink->put(sink->arg, buffer, g, r.from, r.n, p->data[buffer][g]);
        }
    }
    for (unsigned i = 0; i < KVX_BUFFERS && !rc; i++)
        if (!sink->settle(sink->arg, i))
            rc = err_set(e, RC_AGAIN, NULL, "it is wanted no more");
    return rc;
}

static void make_buffers(struct pull *p) {
    size_t part = 0;
    for (uint32_t g = 0; g < p->peer.n_groups; g++) {
        const struct kvx_group *x = &p->peer.group[g];
        size_t bytes = kvx_block_bytes(x, x->n_heads) * p->chunk;
        for (unsigned i = 0; i < KVX_BUFFERS; i++)
            p->data[i][g] = xmalloc(bytes);
        part = MAX(part, kvx_block_bytes(x, kvx_heads_of(x->n_heads, 0, p->peer.n_ranks).n) * p->chunk);
    }
    p->part = p->peer.n_ranks > 1 ? xmalloc(part) : NULL;
}

enum rc kvx_tell_run(const struct kvx_pull_opts *o, struct kvx_io *io, struct err *e) {
    struct pull p = {.o = o, .io = io};
    struct kvx_open open;
    uint8_t end;
    struct err ignored;
    enum rc rc = meet(&p, &open, e);
    if (!rc) {
        kvx_put_forget(&p.out, &open);
        rc = send_out(&p, e);
    }
    if (!rc) /* it ends the connection once it has read that */
        (void)!kvx_io_recv(io, &end, 1, SEND_MS, &ignored);
    buf_fini(&p.body);
    buf_fini(&p.out);
    return rc;
}

enum rc kvx_pull_run(const struct kvx_pull_opts *o, struct kvx_io *io, struct kvx_pull_stats *stats,
                     enum kvx_refusal *why, struct err *e) {
    struct pull p = {.o = o, .io = io};
    bool any = false;
    for (uint32_t g = 0; g < o->layout.n_groups; g++)
        any |= o->from[g] < o->end;
    enum rc rc = open_transfer(&p, e);
    const uint64_t begin_ns = clock_ns();
    if (!rc && any)
        rc = await_room(&p, e);
    if (!rc && any) {
        make_buffers(&p);
        rc = read_chunks(&p, e);
    }
    if (rc && p.data[0][0]) /* what was put may still be in use */
        for (unsigned i = 0; i < KVX_BUFFERS; i++)
            (void)o->sink.settle(o->sink.arg, i);
    if (!rc) {
        struct err ignored;
        p.stats.ns = clock_ns() - begin_ns;
        kvx_put_empty(&p.out, KVX_DONE);
        (void)!send_out(&p, &ignored); /* everything is here; if this is lost, the end of the connection tells */
    }
    *stats = p.stats;
    *why = p.why;
    for (uint32_t g = 0; g < BE_GROUPS_MAX; g++)
        for (unsigned i = 0; i < KVX_BUFFERS; i++)
            free(p.data[i][g]);
    free(p.part);
    buf_fini(&p.body);
    buf_fini(&p.out);
    return rc;
}
