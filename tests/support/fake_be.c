#include "tests/support/fake_be.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/hash.h"

struct be_kv {
    uint32_t window; /* 0: full */
    uint32_t n_blocks;
    uint64_t *slots;
};

/* late: results of a call of sample or row_logprobs that are under way. */
struct late {
    struct sample_out *now, **to; /* [n] */
    uint32_t *n_top;              /* [n] */
    uint32_t n;
};
enum { LATE_MAX = 4 };

struct be {
    struct fake_device *device;
    struct late late[LATE_MAX];
    uint32_t n_late;
    uint32_t *last_ids; /* [n_last] of the last sample */
    uint32_t n_last;
    struct be_kv *kv[BE_GROUPS_MAX];
    uint64_t *rows;
    uint32_t n_rows, n_rows_max;
};

static void late_take(struct be *b, uint32_t n_behind, bool deliver);

static uint64_t slot_value(uint32_t token, uint32_t pos) {
    return hash_u64((uint64_t)token << 32 | pos | 1ull << 63);
}

static uint64_t mix(uint64_t h, uint64_t v) {
    return hash_u64(h * 3 + v);
}

struct be *fake_open(struct fake_device *d) {
    struct be *b = xcalloc(1, sizeof *b);
    b->device = d;
    b->n_rows_max = 4096;
    b->rows = xcalloc(b->n_rows_max, sizeof *b->rows);
    return b;
}

void fake_close(struct be *b) {
    late_take(b, 0, false);
    free(b->last_ids);
    free(b->rows);
    free(b);
}

static uint64_t fake_block_bytes(struct be *b, const struct cache_group_spec *spec) {
    (void)b;
    return (uint64_t)spec->n_layers * 1024;
}

static struct be_kv *fake_kv_new(struct be *b, uint32_t group, const struct cache_group_spec *spec,
                                 uint32_t n_blocks, char err[BE_ERR_BYTES]) {
    (void)err;
    struct be_kv *kv = xcalloc(1, sizeof *kv);
    *kv = (struct be_kv){.window = spec->kind == CACHE_WINDOW ? spec->window : 0, .n_blocks = n_blocks};
    kv->slots = xcalloc((size_t)n_blocks * KV_BLOCK_TOKENS, sizeof *kv->slots);
    b->kv[group] = kv;
    return kv;
}

static void fake_kv_free(struct be *b, struct be_kv *kv) {
    (void)b;
    free(kv->slots);
    free(kv);
}

static void fake_kv_copy(struct be *b, struct be_kv *kv, const struct be_copy *copies, uint32_t n) {
    size_t block = KV_BLOCK_TOKENS;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(copies[i].src < kv->n_blocks && copies[i].dst < kv->n_blocks && copies[i].src != copies[i].dst);
        memcpy(kv->slots + copies[i].dst * block, kv->slots + copies[i].src * block,
               block * sizeof *kv->slots);
    }
    atomic_fetch_add(&b->device->n_copied, n);
}

/* Blocks that travel: a slot's 8 bytes are as many as one layer, one head, one dimension of K and V in f32 have. */
static void fake_kv_export(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, void *dst) {
    const size_t bytes = KV_BLOCK_TOKENS * sizeof *kv->slots;
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(blocks[i] < kv->n_blocks);
        memcpy((uint8_t *)dst + i * bytes, kv->slots + (size_t)blocks[i] * KV_BLOCK_TOKENS, bytes);
    }
}

static void fake_kv_import(struct be *b, struct be_kv *kv, const uint32_t *blocks, uint32_t n, const void *src) {
    const size_t bytes = KV_BLOCK_TOKENS * sizeof *kv->slots;
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(blocks[i] < kv->n_blocks);
        memcpy(kv->slots + (size_t)blocks[i] * KV_BLOCK_TOKENS, (const uint8_t *)src + i * bytes, bytes);
    }
}

/* attend: hash over what token t of sequence s sees in the group. */
static uint64_t attend(const struct be *b, const struct batch *batch, uint32_t g, uint32_t s, uint32_t pos,
                       uint64_t h) {
    const struct be_kv *kv = b->kv[g];
    const uint32_t *table = batch->group[g].table + (size_t)s * batch->group[g].table_stride;
    for (uint32_t i = kv->window && pos + 1 > kv->window ? pos + 1 - kv->window : 0; i <= pos; i++) {
        CHECK(i / KV_BLOCK_TOKENS < batch->group[g].table_stride &&
              table[i / KV_BLOCK_TOKENS] < kv->n_blocks);
        h = mix(h, kv->slots[table[i / KV_BLOCK_TOKENS] * (size_t)KV_BLOCK_TOKENS + i % KV_BLOCK_TOKENS]);
    }
    return h;
}

void fake_forward(void *be, const struct batch *batch) {
    struct be *b = be;
    CHECK(batch->n_rows <= b->n_rows_max && batch->n_axes == 1 && batch->seq_start[0] == 0);
    CHECK(batch->seq_start[batch->n_seqs] == batch->n_tokens);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        for (uint32_t t = 0; t < batch->n_tokens; t++) {
            uint32_t from = batch->from_row ? batch->from_row[t] : 0;
            CHECK(batch->group[g].slot[t] / KV_BLOCK_TOKENS < b->kv[g]->n_blocks && from <= b->n_last);
            b->kv[g]->slots[batch->group[g].slot[t]] =
                slot_value(from ? b->last_ids[from - 1] : batch->tokens[t], (uint32_t)batch->pos[t]);
        }
    b->n_rows = batch->n_rows;
    for (uint32_t r = 0; r < batch->n_rows; r++) {
        uint32_t s = 0, t = batch->rows[r];
        while (batch->seq_start[s + 1] <= t)
            s++;
        CHECK((uint32_t)batch->pos[t] < batch->kv_len[s]);
        b->rows[r] = 1;
        for (uint32_t g = 0; g < batch->n_groups; g++)
            b->rows[r] = attend(b, batch, g, s, (uint32_t)batch->pos[t], b->rows[r]);
    }
    struct fake_device *d = b->device;
    atomic_fetch_add(&d->n_steps, 1);
    if (batch->n_tokens > atomic_load(&d->n_tokens_max))
        atomic_store(&d->n_tokens_max, batch->n_tokens);
    if (batch->n_seqs > atomic_load(&d->n_seqs_max))
        atomic_store(&d->n_seqs_max, batch->n_seqs);
}

static uint32_t draw(uint64_t row, const struct sample_row *x, uint32_t try) {
    uint64_t seed = x->temperature > 0 ? be_philox64(x->seed, x->position) : 0;
    return (uint32_t)((hash_u64(row ^ seed) + try) % FAKE_VOCAB);
}

static bool allowed(const struct sample_row *x, uint32_t id) {
    for (uint32_t i = 0; i < x->n_banned; i++)
        if (x->banned[i] == id)
            return false;
    return !x->mask || (x->mask[id / 32] >> id % 32 & 1);
}

static float logprob_of(uint64_t row, uint32_t token) {
    return -(float)(hash_u64(row + token) % 1000) / 100;
}

/* report_ranked: the best ones by insertion, the lower id first among equals. */
static void report_ranked(uint64_t row, uint32_t n_top, struct sample_out *out) {
    uint32_t n = 0;
    for (uint32_t id = 0; id < FAKE_VOCAB; id++) {
        float v = logprob_of(row, id);
        uint32_t at = n < n_top ? n++ : n;
        if (at == n && (n == 0 || v <= out->top_logprobs[n - 1]))
            continue;
        for (at = at == n ? n - 1 : at; at > 0 && out->top_logprobs[at - 1] < v; at--) {
            out->top_logprobs[at] = out->top_logprobs[at - 1];
            out->top_ids[at] = out->top_ids[at - 1];
        }
        out->top_logprobs[at] = v;
        out->top_ids[at] = id;
    }
}

static void report(const struct be *b, uint64_t row, uint32_t n_top, struct sample_out *out) {
    if (atomic_load(&b->device->ranked)) {
        out->logprob = logprob_of(row, out->id);
        out->rank = 1 + out->id;
        report_ranked(row, n_top, out);
        return;
    }
    out->logprob = logprob_of(row, out->id);
    out->rank = 1 + out->id;
    for (uint32_t i = 0; i < n_top; i++) {
        out->top_ids[i] = i;
        out->top_logprobs[i] = logprob_of(row, i);
    }
}

static void fake_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    bool nan = atomic_load(&b->device->nan_in) > 0 && atomic_fetch_sub(&b->device->nan_in, 1) == 1;
    CHECK(n <= b->n_rows);
    for (uint32_t r = 0; r < n; r++) {
        out[r].id = BE_NO_TOKEN;
        out[r].nan = nan;
        for (uint32_t i = 1; i < rows[r].n_seen; i++)
            CHECK(rows[r].seen[i - 1].id < rows[r].seen[i].id);
        for (uint32_t i = 0; !nan && i < FAKE_VOCAB && out[r].id == BE_NO_TOKEN; i++)
            if (allowed(&rows[r], draw(b->rows[r], &rows[r], i)))
                out[r].id = draw(b->rows[r], &rows[r], i);
        if (out[r].id != BE_NO_TOKEN && rows[r].want_logprob)
            report(b, b->rows[r], rows[r].n_top, &out[r]);
    }
}

static void fake_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        CHECK(rows[i].row < b->n_rows);
        rows[i].out->id = rows[i].target;
        rows[i].out->nan = false;
        report(b, b->rows[rows[i].row], rows[i].n_top, rows[i].out);
    }
}

static int fake_wait(struct be *b, char err[BE_ERR_BYTES]) {
    unsigned us = atomic_load(&b->device->step_us);
    if (us)
        usleep(us);
    if (atomic_load(&b->device->fail_in) == 0 || atomic_fetch_sub(&b->device->fail_in, 1) != 1)
        return 0;
    snprintf(err, BE_ERR_BYTES, "a cosmic ray");
    return 1;
}

const struct be_ops fake_ops = {.abi = BE_ABI,
                                .bytes = sizeof(struct be_ops),
                                .name = "fake",
                                .kv_block_bytes = fake_block_bytes,
                                .kv_new = fake_kv_new,
                                .kv_free = fake_kv_free,
                                .kv_copy = fake_kv_copy,
                                .kv_export = fake_kv_export,
                                .kv_import = fake_kv_import,
                                .sample = fake_sample,
                                .row_logprobs = fake_row_logprobs,
                                .wait = fake_wait};

/* ---- a device that runs ahead */

static struct late *late_new(struct be *b, uint32_t n) {
    CHECK(b->n_late < LATE_MAX);
    struct late *l = &b->late[b->n_late++];
    *l = (struct late){.n = n, .now = xcalloc(n, sizeof *l->now), .to = xcalloc(n, sizeof *l->to)};
    l->n_top = xcalloc(n, sizeof *l->n_top);
    return l;
}

/* late_row: room for what goes to `to` later. */
static struct sample_out *late_row(struct late *l, uint32_t i, struct sample_out *to, uint32_t n_top) {
    l->to[i] = to;
    l->n_top[i] = n_top;
    l->now[i] = *to;
    l->now[i].top_ids = xcalloc((size_t)n_top + 1, sizeof *to->top_ids);
    l->now[i].top_logprobs = xcalloc((size_t)n_top + 1, sizeof *to->top_logprobs);
    return &l->now[i];
}

/* late_take: all but the last n_behind; they are lost where the device failed. */
static void late_take(struct be *b, uint32_t n_behind, bool deliver) {
    while (b->n_late > n_behind) {
        struct late l = b->late[0];
        for (uint32_t i = 0; i < l.n; i++) {
            struct sample_out now = l.now[i], *to = l.to[i];
            if (l.n_top[i] && deliver) {
                memcpy(to->top_ids, now.top_ids, l.n_top[i] * sizeof *to->top_ids);
                memcpy(to->top_logprobs, now.top_logprobs, l.n_top[i] * sizeof *to->top_logprobs);
            }
            free(now.top_ids);
            free(now.top_logprobs);
            if (!deliver)
                continue;
            now.top_ids = to->top_ids;
            now.top_logprobs = to->top_logprobs;
            *to = now;
        }
        free(l.now);
        free(l.to);
        free(l.n_top);
        memmove(b->late, b->late + 1, --b->n_late * sizeof *b->late);
    }
}

static void ahead_sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    struct late *l = late_new(b, n);
    for (uint32_t r = 0; r < n; r++)
        late_row(l, r, &out[r], rows[r].n_top);
    fake_sample(b, rows, l->now, n);
    b->last_ids = xreallocarray(b->last_ids, n, sizeof *b->last_ids);
    for (uint32_t r = 0; r < n; r++)
        b->last_ids[r] = l->now[r].id;
    b->n_last = n;
}

static void ahead_row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n) {
    struct late *l = late_new(b, n);
    for (uint32_t i = 0; i < n; i++) {
        struct op_row_logprobs one = rows[i];
        one.out = late_row(l, i, rows[i].out, rows[i].n_top);
        fake_row_logprobs(b, &one, 1);
    }
}

static int ahead_wait_sampled(struct be *b, uint32_t n_behind, char err[BE_ERR_BYTES]) {
    int bad = fake_wait(b, err);
    atomic_fetch_add(&b->device->n_ahead, n_behind > 0);
    late_take(b, n_behind, !bad);
    return bad;
}

static int ahead_wait(struct be *b, char err[BE_ERR_BYTES]) {
    return ahead_wait_sampled(b, 0, err);
}

const struct be_ops fake_ahead_ops = {.abi = BE_ABI,
                                      .bytes = sizeof(struct be_ops),
                                      .name = "fake, ahead",
                                      .kv_block_bytes = fake_block_bytes,
                                      .kv_new = fake_kv_new,
                                      .kv_free = fake_kv_free,
                                      .kv_copy = fake_kv_copy,
                                      .sample = ahead_sample,
                                      .row_logprobs = ahead_row_logprobs,
                                      .wait = ahead_wait,
                                      .wait_sampled = ahead_wait_sampled};

static uint64_t row_of(const uint32_t *known, uint32_t n_known, uint32_t window) {
    uint64_t h = 1;
    for (uint32_t i = window && n_known > window ? n_known - window : 0; i < n_known; i++)
        h = mix(h, slot_value(known[i], i));
    return h;
}

float fake_logprob(const uint32_t *known, uint32_t n_known, uint32_t window, uint32_t token) {
    return logprob_of(row_of(known, n_known, window), token);
}

uint32_t fake_expect(const struct req *r, uint32_t sample, const uint32_t *stops, uint32_t n_stops,
                     uint32_t *out, uint32_t n) {
    uint32_t *known = xcalloc((size_t)r->n_prompt + n, sizeof *known), i = 0;
    bool stopped = false;
    memcpy(known, r->prompt, r->n_prompt * sizeof *known);
    for (; i < n && i < r->max_tokens && !stopped; i++) {
        struct sample_row x = {.temperature = r->temperature, .seed = r->seed + sample, .position = i};
        x.mask = r->allowed;
        x.banned = stops;
        x.n_banned = i < r->min_tokens ? n_stops : 0;
        uint64_t row = row_of(known, r->n_prompt + i, 0);
        uint32_t try = 0;
        while (!allowed(&x, draw(row, &x, try)))
            CHECK(++try < FAKE_VOCAB);
        out[i] = known[r->n_prompt + i] = draw(row, &x, try);
        for (uint32_t k = 0; k < n_stops; k++)
            stopped = stopped || stops[k] == out[i];
    }
    free(known);
    return i;
}
