#include "worker/kvx/lease.h"

#include <stdlib.h>

void kvx_leases_init(struct kvx_leases *l, struct sched *sched, uint64_t lease_ns) {
    *l = (struct kvx_leases){.sched = sched, .lease_ns = lease_ns, .next_serial = 1};
}

void kvx_leases_fini(struct kvx_leases *l) {
    while (l->first)
        kvx_lease_end(l, l->first);
}

static struct kvx_lease *find(const struct kvx_leases *l, struct id128 transfer) {
    struct kvx_lease *x = l->first;
    while (x && !id128_eq(x->transfer, transfer))
        x = x->next;
    return x;
}

struct kvx_lease *kvx_lease_new(struct kvx_leases *l, struct req *r) {
    static const struct id128 none;
    CHECK(r->n_hashes > 0 && !r->lease);
    if (l->n == KVX_LEASES_MAX || r->n_hashes > KVX_BLOCKS_MAX)
        return NULL;
    struct kvx_lease *x = xcalloc(1, sizeof *x);
    x->transfer = r->kv.transfer;
    if (id128_eq(x->transfer, none))
        fill_random(x->transfer.b, sizeof x->transfer.b);
    if (find(l, x->transfer)) {
        free(x);
        return NULL;
    }
    x->serial = l->next_serial++;
    x->req = r;
    x->request = r->id;
    x->router = r->router;
    x->router_epoch = r->router_epoch;
    r->lease = x;
    x->n_blocks = r->n_hashes;
    x->chain = r->hashes[x->n_blocks - 1];
    memcpy(x->domain, r->domain, sizeof x->domain);
    x->expiry_ns = UINT64_MAX;
    const struct sched *s = l->sched;
    /* A reader computes the last token itself, so it looks back from the last full block before that. */
    const uint32_t end = (r->n_prompt - 1) / KV_TOKENS;
    for (uint32_t g = 0; g < s->opts.n_groups; g++) {
        x->first[g] = MIN(x->n_blocks, kv_group_first(&s->group[g], end * KV_TOKENS));
        x->kept[g] = xcalloc(x->n_blocks, sizeof *x->kept[g]);
    }
    x->next = l->first;
    l->first = x;
    l->n++;
    return x;
}

void kvx_lease_refuse(struct kvx_leases *l, struct id128 transfer) {
    l->ended[l->n_ended++ % KVX_ENDED] = transfer;
}

void kvx_lease_forget(struct kvx_leases *l, struct id128 transfer) {
    struct kvx_lease *x = find(l, transfer);
    if (x && !x->opened)
        kvx_lease_end(l, x);
}

void kvx_lease_abort(struct kvx_leases *l, struct id128 request, uint32_t router, uint32_t router_epoch) {
    for (struct kvx_lease *x = l->first, *next; x; x = next) {
        next = x->next;
        if (!x->req && id128_eq(x->request, request) && x->router == router && x->router_epoch == router_epoch)
            kvx_lease_end(l, x);
    }
}

void kvx_lease_end(struct kvx_leases *l, struct kvx_lease *x) {
    struct kvx_lease **at = &l->first;
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    l->n--;
    if (x->req)
        x->req->lease = NULL;
    kvx_lease_refuse(l, x->transfer);
    for (uint32_t g = 0; g < l->sched->opts.n_groups; g++) {
        /* From the end, as sequences do: of a cached prefix the tail is to be evicted first. */
        for (uint32_t i = x->n_ready; i > x->first[g]; i--)
            sched_unkeep(l->sched, g, x->kept[g][i - 1].block);
        free(x->kept[g]);
    }
    free(x);
}

bool kvx_lease_grow(struct kvx_leases *l, struct kvx_lease *x) {
    struct sched *s = l->sched;
    const struct seq *q = &x->req->seqs[0];
    while (q->state == SEQ_RUNNING && x->n_ready < x->n_blocks && (x->n_ready + 1) * KV_TOKENS <= q->n_computed) {
        const uint32_t i = x->n_ready;
        for (uint32_t g = 0; g < s->opts.n_groups; g++)
            if (i >= x->first[g] && (i < q->n_gone[g] || sched_keep_room(s, g) == 0)) {
                kvx_lease_end(l, x);
                return false;
            }
        for (uint32_t g = 0; g < s->opts.n_groups; g++) {
            if (i < x->first[g])
                continue;
            uint32_t block = sched_table(s, g, q)[i];
            sched_keep(s, g, block);
            x->kept[g][i] = (struct kvx_kept){block, s->pool[g].blocks[block].generation};
        }
        x->n_ready++;
    }
    return true;
}

void kvx_lease_complete(struct kvx_leases *l, struct kvx_lease *x, uint64_t now_ns) {
    CHECK(x->n_ready == x->n_blocks && x->req);
    x->req->lease = NULL;
    x->req = NULL;
    x->expiry_ns = now_ns + l->lease_ns;
}

uint64_t kvx_leases_expire(struct kvx_leases *l, uint64_t now_ns) {
    uint64_t next_ns = UINT64_MAX;
    for (struct kvx_lease *x = l->first, *next; x; x = next) {
        next = x->next;
        if (x->expiry_ns > now_ns) {
            next_ns = MIN(next_ns, x->expiry_ns);
            continue;
        }
        kvx_lease_end(l, x);
        l->n_expired++;
    }
    return next_ns;
}

/* same_ids: the reader's list of blocks, if it has one, is what was recorded. Of a window group the first ones are not. */
static bool same_ids(const struct kvx_lease *x, const struct kvx_open *o) {
    bool same = o->n_ids == 0 || (!x->req && o->n_ids == x->n_blocks);
    for (uint32_t i = x->first[0]; same && i < o->n_ids; i++)
        same = kvx_open_id(o, i) == x->kept[0][i].block;
    return same;
}

static bool has_ended(const struct kvx_leases *l, struct id128 transfer) {
    bool ended = false;
    for (uint32_t i = 0; i < MIN(l->n_ended, (uint32_t)KVX_ENDED) && !ended; i++)
        ended = id128_eq(l->ended[i], transfer);
    return ended;
}

enum kvx_refusal kvx_lease_open(struct kvx_leases *l, const struct kvx_open *o, uint64_t now_ns, struct kvx_lease **out) {
    struct kvx_lease *x = find(l, o->transfer);
    if (!x)
        return has_ended(l, o->transfer) ? KVX_GONE : KVX_UNKNOWN;
    if (x->opened)
        return KVX_GONE;
    if (o->n_blocks != x->n_blocks || memcmp(o->domain, x->domain, sizeof x->domain) || !id128_eq(o->chain, x->chain) ||
        !same_ids(x, o))
        return KVX_MISMATCH;
    x->opened = true;
    kvx_lease_renew(l, x, now_ns);
    *out = x;
    return KVX_GRANTED;
}

struct kvx_lease *kvx_lease_at(const struct kvx_leases *l, uint64_t serial) {
    struct kvx_lease *x = l->first;
    while (x && x->serial != serial)
        x = x->next;
    return x;
}

void kvx_lease_renew(struct kvx_leases *l, struct kvx_lease *x, uint64_t now_ns) {
    if (!x->req)
        x->expiry_ns = now_ns + l->lease_ns;
}

int kvx_lease_blocks(const struct kvx_leases *l, const struct kvx_lease *x, uint32_t group, uint32_t from, uint32_t n,
                     uint32_t *out) {
    CHECK(group < l->sched->opts.n_groups);
    uint32_t i = from;
    if (from < x->first[group])
        return -1;
    for (; i < x->n_ready && i - from < n; i++) {
        const struct kvx_kept *k = &x->kept[group][i];
        if (l->sched->pool[group].blocks[k->block].generation != k->generation)
            return -1;
        out[i - from] = k->block;
    }
    return (int)(i - from);
}
