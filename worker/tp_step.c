#include "worker/tp_step.h"

#include "common/err.h"

/* The fixed words of a step, behind the head. */
enum { N_TOKENS, N_SEQS, N_ROWS, N_AXES, N_GROUPS, HAS_KINDS, HAS_TYPES, STEP_WORDS };

static uint32_t blocks_of(uint32_t n_tokens) {
    return n_tokens / KV_BLOCK_TOKENS + (n_tokens % KV_BLOCK_TOKENS != 0);
}

static size_t byte_words(uint32_t n) {
    return ((size_t)n + 3) / 4;
}

size_t tp_words_max(const struct tp_limits *l) {
    size_t t = l->n_tokens_max, s = l->n_seqs_max;
    size_t step = TP_HEAD_WORDS + STEP_WORDS + t * (1 + BE_AXES_MAX) + s + 1 + s + l->n_rows_max +
                  byte_words(l->n_seqs_max) + byte_words(l->n_tokens_max) +
                  l->n_groups * (1 + t + s * ((size_t)blocks_of(l->max_len) + 1));
    /* No more copies in one message than blocks of one pool; the engine makes one for each sequence. */
    size_t copies = TP_HEAD_WORDS + 2 + 2 * s;
    return MAX(MAX(step, copies), (size_t)TP_HEAD_WORDS + 5 + TP_MOVE_BLOCKS);
}

/* ---- writing ------------------------------------------------------------------------------------ */

static size_t end(uint32_t *out, enum tp_kind kind, const uint32_t *at) {
    size_t n = (size_t)(at - out);
    CHECK(n <= UINT32_MAX);
    out[0] = (uint32_t)n;
    out[1] = kind;
    return n;
}

static uint32_t *put(uint32_t *at, const void *words, size_t n) {
    if (n)
        memcpy(at, words, n * sizeof *at);
    return at + n;
}

/* put_bytes: the last word is filled up with zeros. NULL: nothing. */
static uint32_t *put_bytes(uint32_t *at, const uint8_t *bytes, uint32_t n) {
    if (!bytes || !n)
        return at;
    at[byte_words(n) - 1] = 0;
    memcpy(at, bytes, n);
    return at + byte_words(n);
}

size_t tp_put_pools(uint32_t *out, const uint32_t *n_blocks, uint32_t n_groups) {
    CHECK(n_groups <= BE_GROUPS_MAX);
    return end(out, TP_POOLS, put(out + TP_HEAD_WORDS, n_blocks, n_groups));
}

size_t tp_put_copies(uint32_t *out, uint32_t group, const struct be_copy *copies, uint32_t n) {
    uint32_t *at = out + TP_HEAD_WORDS;
    *at++ = group;
    *at++ = n;
    for (uint32_t i = 0; i < n; i++) {
        *at++ = copies[i].src;
        *at++ = copies[i].dst;
    }
    return end(out, TP_COPY, at);
}

size_t tp_put_step(uint32_t *out, const struct batch *b) {
    uint32_t *at = out + TP_HEAD_WORDS;
    CHECK(!b->embeds && !b->from_row && b->n_axes <= BE_AXES_MAX && b->n_groups <= BE_GROUPS_MAX);
    at[N_TOKENS] = b->n_tokens;
    at[N_SEQS] = b->n_seqs;
    at[N_ROWS] = b->n_rows;
    at[N_AXES] = b->n_axes;
    at[N_GROUPS] = b->n_groups;
    at[HAS_KINDS] = b->kind != NULL;
    at[HAS_TYPES] = b->token_type != NULL;
    at = put(at + STEP_WORDS, b->tokens, b->n_tokens);
    at = put(at, b->pos, (size_t)b->n_axes * b->n_tokens);
    at = put(at, b->seq_start, (size_t)b->n_seqs + 1);
    at = put(at, b->kv_len, b->n_seqs);
    at = put(at, b->rows, b->n_rows);
    at = put_bytes(at, b->kind, b->n_seqs);
    at = put_bytes(at, b->token_type, b->n_tokens);
    for (uint32_t g = 0; g < b->n_groups; g++) {
        *at++ = b->group[g].table_stride;
        at = put(at, b->group[g].slot, b->n_tokens);
        at = put(at, b->group[g].table, (size_t)b->n_seqs * b->group[g].table_stride);
    }
    return end(out, TP_STEP, at);
}

size_t tp_put_stop(uint32_t *out) {
    return end(out, TP_STOP, out + TP_HEAD_WORDS);
}

size_t tp_put_move(uint32_t *out, bool in, uint32_t rank, uint32_t serial, uint32_t group, const uint32_t *blocks,
                   uint32_t n) {
    uint32_t *at = out + TP_HEAD_WORDS;
    CHECK(n > 0 && n <= TP_MOVE_BLOCKS);
    *at++ = in;
    *at++ = rank;
    *at++ = serial;
    *at++ = group;
    *at++ = n;
    return end(out, TP_MOVE, put(at, blocks, n));
}

/* ---- reading ------------------------------------------------------------------------------------ */

struct reader {
    const uint32_t *at, *end;
    bool short_of; /* more was taken than there is */
};

/* take: the next n words; NULL: there are not so many. */
static const uint32_t *take(struct reader *r, size_t n) {
    if (n > (size_t)(r->end - r->at)) {
        r->short_of = true;
        return NULL;
    }
    const uint32_t *p = r->at;
    r->at += n;
    return p;
}

static enum rc bad(struct err *e, const char *what, uint32_t got, uint32_t limit) {
    return err_set(e, RC_INVALID, NULL, "the step's plan: %s: %u, and the limit is %u", what, got, limit);
}

/* below: that n words are below a limit. */
static enum rc below(const uint32_t *v, size_t n, uint32_t limit, const char *what, struct err *e) {
    for (size_t i = 0; i < n; i++)
        if (v[i] >= limit)
            return bad(e, what, v[i], limit);
    return RC_OK;
}

static enum rc get_pools(struct reader *r, const struct tp_limits *l, struct tp_msg *out, struct err *e) {
    const uint32_t *n = take(r, l->n_groups);
    for (uint32_t g = 0; n && g < l->n_groups; g++) {
        if (n[g] == 0 || n[g] > UINT32_MAX / KV_BLOCK_TOKENS - 1)
            return bad(e, "blocks of a pool", n[g], UINT32_MAX / KV_BLOCK_TOKENS - 1);
        out->n_blocks[g] = n[g];
    }
    return RC_OK;
}

static enum rc get_copies(struct reader *r, const struct tp_limits *l, struct tp_msg *out, struct err *e) {
    const uint32_t *head = take(r, 2);
    if (!head)
        return RC_OK;
    out->group = head[0];
    out->n_copies = head[1];
    if (out->group >= l->n_groups)
        return bad(e, "cache group of copies", out->group, l->n_groups);
    const uint32_t *pairs = take(r, 2 * (size_t)out->n_copies);
    _Static_assert(sizeof(struct be_copy) == 2 * sizeof(uint32_t), "a copy is two words");
    out->copies = (const struct be_copy *)(const void *)pairs;
    return pairs ? below(pairs, 2 * (size_t)out->n_copies, l->n_blocks[out->group], "a block to copy", e)
                 : RC_OK;
}

static enum rc get_move(struct reader *r, const struct tp_limits *l, struct tp_msg *out, struct err *e) {
    const uint32_t *head = take(r, 5);
    if (!head)
        return RC_OK;
    out->in = head[0] != 0;
    out->rank = head[1];
    out->serial = head[2];
    out->group = head[3];
    out->n_blocks_moved = head[4];
    if (out->rank >= BE_RANKS_MAX)
        return bad(e, "rank of blocks to move", out->rank, BE_RANKS_MAX);
    if (out->group >= l->n_groups)
        return bad(e, "cache group of blocks to move", out->group, l->n_groups);
    if (out->n_blocks_moved == 0 || out->n_blocks_moved > TP_MOVE_BLOCKS)
        return bad(e, "blocks to move", out->n_blocks_moved, TP_MOVE_BLOCKS);
    out->blocks = take(r, out->n_blocks_moved);
    return out->blocks ? below(out->blocks, out->n_blocks_moved, l->n_blocks[out->group], "a block to move", e) : RC_OK;
}

/* check_seqs: sequences follow one another and hold all tokens; a token's position lies in what its sequence
 * has in the cache after the step. */
static enum rc check_seqs(const struct batch *b, const struct tp_limits *l, struct err *e) {
    const uint32_t *start = b->seq_start;
    if (start[0] != 0 || start[b->n_seqs] != b->n_tokens)
        return bad(e, "tokens of the sequences", start[b->n_seqs], b->n_tokens);
    for (uint32_t s = 0; s < b->n_seqs; s++) {
        if (start[s] > start[s + 1] || start[s + 1] > b->n_tokens)
            return bad(e, "where a sequence starts", start[s], b->n_tokens);
        if (b->kv_len[s] > l->max_len)
            return bad(e, "length of a sequence", b->kv_len[s], l->max_len);
        for (uint32_t t = start[s]; t < start[s + 1]; t++)
            if (b->n_axes == 0 || b->pos[t] < 0 || (uint32_t)b->pos[t] >= b->kv_len[s])
                return bad(e, "position of a token", b->n_axes ? (uint32_t)b->pos[t] : 0, b->kv_len[s]);
    }
    for (size_t i = b->n_tokens; i < (size_t)b->n_axes * b->n_tokens; i++)
        if (b->pos[i] < 0 || (uint32_t)b->pos[i] >= l->max_len)
            return bad(e, "position of a token", (uint32_t)b->pos[i], l->max_len);
    return RC_OK;
}

static enum rc get_group(struct reader *r, const struct tp_limits *l, struct batch *b, uint32_t g,
                         struct err *e) {
    const uint32_t *stride = take(r, 1);
    if (!stride)
        return RC_OK;
    if (*stride > blocks_of(l->max_len) + 1)
        return bad(e, "width of a block table", *stride, blocks_of(l->max_len) + 1);
    const uint32_t *slot = take(r, b->n_tokens), *table = slot ? take(r, (size_t)b->n_seqs * *stride) : NULL;
    if (!table)
        return RC_OK;
    for (uint32_t s = 0; s < b->n_seqs; s++)
        if (blocks_of(b->kv_len[s]) > *stride)
            return bad(e, "blocks of a sequence", blocks_of(b->kv_len[s]), *stride);
    b->group[g].table_stride = *stride;
    b->group[g].slot = slot;
    b->group[g].table = table;
    enum rc rc = below(slot, b->n_tokens, l->n_blocks[g] * KV_BLOCK_TOKENS, "a slot", e);
    return rc ? rc : below(table, (size_t)b->n_seqs * *stride, l->n_blocks[g], "a block", e);
}

static enum rc check_counts(const uint32_t *head, const struct tp_limits *l, struct err *e) {
    if (head[N_TOKENS] == 0 || head[N_TOKENS] > l->n_tokens_max)
        return bad(e, "tokens", head[N_TOKENS], l->n_tokens_max);
    if (head[N_SEQS] == 0 || head[N_SEQS] > l->n_seqs_max)
        return bad(e, "sequences", head[N_SEQS], l->n_seqs_max);
    if (head[N_ROWS] > l->n_rows_max)
        return bad(e, "rows", head[N_ROWS], l->n_rows_max);
    if (head[N_AXES] == 0 || head[N_AXES] > BE_AXES_MAX)
        return bad(e, "axes", head[N_AXES], BE_AXES_MAX);
    if (head[N_GROUPS] != l->n_groups)
        return bad(e, "cache groups", head[N_GROUPS], l->n_groups);
    return RC_OK;
}

static enum rc get_step(struct reader *r, const struct tp_limits *l, struct tp_msg *out, struct err *e) {
    const uint32_t *head = take(r, STEP_WORDS);
    struct batch *b = &out->batch;
    if (!head)
        return RC_OK;
    enum rc rc = check_counts(head, l, e);
    if (rc)
        return rc;
    *b = (struct batch){.n_tokens = head[N_TOKENS],
                        .n_seqs = head[N_SEQS],
                        .n_rows = head[N_ROWS],
                        .n_axes = head[N_AXES],
                        .n_groups = head[N_GROUPS]};
    b->tokens = take(r, b->n_tokens);
    b->pos = (const int32_t *)(const void *)take(r, (size_t)b->n_axes * b->n_tokens);
    b->seq_start = take(r, (size_t)b->n_seqs + 1);
    b->kv_len = take(r, b->n_seqs);
    b->rows = take(r, b->n_rows);
    if (head[HAS_KINDS])
        b->kind = (const uint8_t *)(const void *)take(r, byte_words(b->n_seqs));
    if (head[HAS_TYPES])
        b->token_type = (const uint8_t *)(const void *)take(r, byte_words(b->n_tokens));
    if (r->short_of)
        return RC_OK;
    if ((rc = below(b->tokens, b->n_tokens, l->n_vocab, "a token", e)) || (rc = check_seqs(b, l, e)) ||
        (rc = below(b->rows, b->n_rows, b->n_tokens, "a row", e)))
        return rc;
    for (uint32_t s = 0; b->kind && s < b->n_seqs; s++)
        if (b->kind[s] != ATTN_CAUSAL && b->kind[s] != ATTN_BIDIRECTIONAL)
            return bad(e, "kind of attention", b->kind[s], ATTN_BIDIRECTIONAL);
    for (uint32_t g = 0; g < b->n_groups && !rc && !r->short_of; g++)
        rc = get_group(r, l, b, g, e);
    return rc;
}

enum rc tp_get(const uint32_t *words, size_t n, const struct tp_limits *l, struct tp_msg *out,
               struct err *e) {
    CHECK(l->n_groups <= BE_GROUPS_MAX);
    if (n < TP_HEAD_WORDS || words[0] != n)
        return bad(e, "words", n ? words[0] : 0, (uint32_t)MIN(n, UINT32_MAX));
    struct reader r = {.at = words + TP_HEAD_WORDS, .end = words + n};
    struct tp_msg m = {.kind = (enum tp_kind)words[1]};
    enum rc rc;
    switch (words[1]) {
    case TP_POOLS:
        rc = get_pools(&r, l, &m, e);
        break;
    case TP_COPY:
        rc = get_copies(&r, l, &m, e);
        break;
    case TP_STEP:
        rc = get_step(&r, l, &m, e);
        break;
    case TP_MOVE:
        rc = get_move(&r, l, &m, e);
        break;
    case TP_STOP:
        rc = RC_OK;
        break;
    default:
        return bad(e, "kind", words[1], TP_MOVE);
    }
    if (rc)
        return rc;
    if (r.short_of || r.at != r.end)
        return err_set(e, RC_INVALID, NULL, "the step's plan: %zu words are %s for what they say", n,
                       r.short_of ? "too few" : "too many");
    *out = m;
    return RC_OK;
}
