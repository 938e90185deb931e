#include "router/fleet/batch.h"

#include <math.h>
#include <stdlib.h>

#include "common/utf8.h"
#include "router/api/kv_params.h"
#include "router/slots.h"

enum { MESSAGE_BYTES_MAX = 200 };
static const uint32_t none = UINT32_MAX;

/* check_prompt: the rows of a First. */
static enum rc check_prompt(const Weir__First *f, const struct batch_limits *l, struct err *e) {
    for (size_t i = 0; i < f->n_prompt; i++) {
        const Weir__PromptLogprob *p = f->prompt[i];
        if (p->n_ids != p->n_logprobs || p->n_ids > l->n_top_max || (p->has_rank && p->rank == 0))
            return err_set(e, RC_PROTO, NULL, "%zu alternatives of a prompt's token with %zu log-probabilities",
                           p->n_ids, p->n_logprobs);
        for (size_t k = 0; k < p->n_ids; k++)
            if (p->ids[k] >= l->vocab_size)
                return err_set(e, RC_PROTO, NULL, "an alternative that is out of vocabulary");
    }
    return RC_OK;
}

static enum rc check(const Weir__StepOutputs *m, const struct batch_limits *l, struct err *e) {
    if (m->n_stream > BATCH_ENTRIES_MAX || m->n_first > BATCH_ENTRIES_MAX || m->n_finish > BATCH_ENTRIES_MAX)
        return err_set(e, RC_PROTO, NULL, "a step of over %d entries", BATCH_ENTRIES_MAX);
    if (m->n_token != m->n_stream || (m->n_logprob && m->n_logprob != m->n_stream) ||
        (m->n_raw_logprob && m->n_raw_logprob != m->n_stream))
        return err_set(e, RC_PROTO, NULL, "columns of different lengths");
    for (size_t i = 0; i < m->n_token; i++) {
        if (m->token[i] >= l->vocab_size)
            return err_set(e, RC_PROTO, NULL, "token %u is out of vocabulary", m->token[i]);
    }
    size_t last = 0;
    for (size_t i = 0; i < m->n_top; i++) {
        const Weir__TopLogprobs *t = m->top[i];
        /* In the order of the columns and at most one an entry, so that one walk joins them. */
        if (!t->has_entry || t->entry >= m->n_stream || (i && t->entry <= last) || !m->n_logprob)
            return err_set(e, RC_PROTO, NULL, "alternatives for no token");
        last = t->entry;
        if (t->n_ids != t->n_logprobs || t->n_ids > l->n_top_max)
            return err_set(e, RC_PROTO, NULL, "%zu alternatives with %zu log-probabilities", t->n_ids,
                           t->n_logprobs);
        for (size_t k = 0; k < t->n_ids; k++) {
            if (t->ids[k] >= l->vocab_size)
                return err_set(e, RC_PROTO, NULL, "an alternative that is out of vocabulary");
        }
    }
    for (size_t i = 0; i < m->n_first; i++)
        if (m->first[i]->n_prompt && check_prompt(m->first[i], l, e) != RC_OK)
            return RC_PROTO;
    for (size_t i = 0; i < m->n_finish; i++) {
        const Weir__Finish *f = m->finish[i];
        if (!f->has_stream || !f->has_reason || f->reason < WEIR__FINISH__REASON__STOP ||
            f->reason > WEIR__FINISH__REASON__ERROR)
            return err_set(e, RC_PROTO, NULL, "a finish without stream or reason");
        if (f->kv_transfer && !kv_reply_bytes(f->kv_transfer))
            return err_set(e, RC_PROTO, NULL, "kept blocks that cannot be");
    }
    return RC_OK;
}

/* last_tokens: a table from stream to the last column with a token of it; finishes look themselves up in it.
 */
struct last_tokens {
    uint32_t *v; /* column, or none */
    size_t mask;
    const uint64_t *stream;
    uint64_t seed; /* a worker must not be able to choose collisions */
};

static size_t probe(const struct last_tokens *t, uint64_t stream) {
    uint64_t x = (stream ^ t->seed) * 0x9e3779b97f4a7c15ull;
    size_t i = (size_t)(x ^ x >> 29) & t->mask;
    while (t->v[i] != none && t->stream[t->v[i]] != stream)
        i = (i + 1) & t->mask;
    return i;
}

static void last_tokens_init(struct last_tokens *t, const Weir__StepOutputs *m) {
    size_t cap = 16;
    while (cap < m->n_stream * 2)
        cap *= 2;
    *t = (struct last_tokens){
        .v = xreallocarray(NULL, cap, sizeof *t->v), .mask = cap - 1, .stream = m->stream};
    fill_random(&t->seed, sizeof t->seed);
    memset(t->v, 0xff, cap * sizeof *t->v);
    for (size_t i = 0; i < m->n_stream; i++)
        t->v[probe(t, m->stream[i])] = (uint32_t)i;
}

/* printable: NaN and +infinity have no form in JSON; a request that gets one fails (api.md 2.8.3). */
static bool printable(float v) {
    return !isnan(v) && !(isinf(v) && v > 0);
}

/* counts: how much each loop gets, for one allocation each. */
struct counts {
    uint32_t n, n_top, n_rows;
    size_t text, kv; /* bytes */
};

/* rows_of_entry: how many rows of f from `at` on go into one entry. */
static uint32_t rows_of_entry(const Weir__First *f, size_t at) {
    uint32_t n = 0;
    for (size_t n_top = 0; at + n < f->n_prompt && n < BATCH_ROWS_MAX; n++) {
        n_top += f->prompt[at + n]->n_ids;
        if (n > 0 && n_top > BATCH_ROW_TOPS_MAX)
            break;
    }
    return n;
}

static struct str message_of(const Weir__Finish *f) {
    if (f->reason != WEIR__FINISH__REASON__ERROR || !f->message)
        return (struct str){0};
    struct str s = str_of(f->message);
    if (!utf8_valid(s.p, s.n))
        return (struct str){0};
    s.n = utf8_cut(s.p, s.n, MESSAGE_BYTES_MAX);
    return s;
}

static void count(const Weir__StepOutputs *m, uint32_t n_loops, struct counts *c, uint32_t *n_foreign) {
    for (size_t i = 0; i < m->n_first; i++) {
        uint32_t loop = handle_loop(m->first[i]->stream);
        if (loop >= n_loops || !m->first[i]->has_stream) {
            ++*n_foreign;
            continue;
        }
        const Weir__First *f = m->first[i];
        for (size_t at = 0; at < f->n_prompt; at += rows_of_entry(f, at))
            c[loop].n++;
        for (size_t k = 0; k < f->n_prompt; k++)
            c[loop].n_top += (uint32_t)f->prompt[k]->n_ids;
        c[loop].n_rows += (uint32_t)f->n_prompt;
        c[loop].n++;
    }
    for (size_t i = 0; i < m->n_stream; i++) {
        uint32_t loop = handle_loop(m->stream[i]);
        if (loop < n_loops)
            c[loop].n++;
        else
            ++*n_foreign;
    }
    for (size_t i = 0; i < m->n_top; i++) {
        uint32_t loop = handle_loop(m->stream[m->top[i]->entry]);
        if (loop < n_loops)
            c[loop].n_top += (uint32_t)m->top[i]->n_ids;
    }
    for (size_t i = 0; i < m->n_finish; i++) {
        uint32_t loop = handle_loop(m->finish[i]->stream);
        if (loop >= n_loops) {
            ++*n_foreign;
            continue;
        }
        struct str s = message_of(m->finish[i]);
        c[loop].text += s.n ? s.n + 1 : 0;
        c[loop].kv += m->finish[i]->kv_transfer ? kv_reply_bytes(m->finish[i]->kv_transfer) : 0;
        c[loop].n++; /* at most: it may share the entry of a token, unless an earlier finish has that */
    }
}

/* filling: where the next piece of a loop's batch goes. */
struct filling {
    struct batch *b;
    uint32_t n_top, n_rows;
    char *text;
    uint8_t *kv;
};

static struct filling batch_alloc(const struct counts *c) {
    size_t bytes = sizeof(struct batch) + c->kv + c->n * sizeof(struct batch_entry) +
                   c->n_rows * sizeof(struct batch_row) +
                   c->n_top * (sizeof(uint32_t) + sizeof(float)) + c->text;
    struct batch *b = xcalloc(1, bytes);
    b->bytes = bytes;
    uint8_t *kv = (uint8_t *)(b + 1); /* of sizes that keep what follows aligned */
    b->entries = (struct batch_entry *)(void *)(kv + c->kv);
    b->rows = (struct batch_row *)(b->entries + c->n);
    b->top_ids = (uint32_t *)(b->rows + c->n_rows);
    b->top_logprobs = (float *)(b->top_ids + c->n_top);
    return (struct filling){.b = b, .kv = kv, .text = (char *)(b->top_logprobs + c->n_top)};
}

static void set_finish(struct batch_entry *t, struct filling *f, const Weir__Finish *m) {
    struct str s = message_of(m);
    t->flags |= ENTRY_FINISH;
    t->reason = (uint8_t)m->reason;
    t->has_stop_id = m->has_stop_id;
    t->stop_id = m->stop_id;
    t->eos = m->has_eos && m->eos;
    t->status = m->has_status ? m->status : 500;
    t->n_preempted = m->n_preempted;
    if (m->kv_transfer) {
        struct kv_reply *kv = (struct kv_reply *)(void *)f->kv;
        kv_reply_make(m->kv_transfer, kv);
        t->kv = kv;
        f->kv += kv_reply_bytes(m->kv_transfer);
    }
    if (s.n) {
        memcpy(f->text, s.p, s.n);
        f->text[s.n] = '\0';
        t->message = f->text;
        f->text += s.n + 1;
    }
}

/* add_tops: the list goes into f's columns. Returns where it begins. False in *ok: a value cannot be printed. */
static uint32_t add_tops(struct filling *f, size_t n, const uint32_t *ids, const float *logprobs, bool *ok) {
    uint32_t at = f->n_top;
    if (n) {
        memcpy(f->b->top_ids + at, ids, n * sizeof *ids);
        memcpy(f->b->top_logprobs + at, logprobs, n * sizeof *logprobs);
    }
    for (size_t k = 0; k < n; k++)
        *ok &= printable(logprobs[k]);
    f->n_top += (uint32_t)n;
    return at;
}

static void fill_prompt(const Weir__First *m, struct filling *f) {
    for (size_t at = 0; at < m->n_prompt;) {
        uint32_t n = rows_of_entry(m, at);
        bool ok = true;
        struct batch_entry *t = &f->b->entries[f->b->n++];
        *t = (struct batch_entry){
            .stream = m->stream, .flags = ENTRY_PROMPT, .top_at = f->n_rows, .n_top = n};
        for (uint32_t i = 0; i < n; i++, at++) {
            const Weir__PromptLogprob *p = m->prompt[at];
            struct batch_row *row = &f->b->rows[f->n_rows++];
            *row = (struct batch_row){.logprob = p->logprob, .rank = p->rank, .n_top = (uint32_t)p->n_ids};
            row->top_at = add_tops(f, p->n_ids, p->ids, p->logprobs, &ok);
            ok &= printable(p->logprob);
        }
        t->flags |= ok ? 0 : ENTRY_NAN;
    }
}

static void fill_tokens(const Weir__StepOutputs *m, uint32_t n_loops, struct filling *fill,
                        uint32_t *entry_of) {
    size_t top = 0;
    for (size_t i = 0; i < m->n_stream; i++) {
        const Weir__TopLogprobs *alt = top < m->n_top && m->top[top]->entry == i ? m->top[top++] : NULL;
        uint32_t loop = handle_loop(m->stream[i]);
        if (loop >= n_loops)
            continue;
        struct filling *f = &fill[loop];
        entry_of[i] = f->b->n;
        struct batch_entry *t = &f->b->entries[f->b->n++];
        t->flags = ENTRY_TOKEN;
        t->stream = m->stream[i];
        t->token = m->token[i];
        if (m->n_logprob) {
            t->flags |= ENTRY_LOGPROB;
            t->logprob = m->logprob[i];
            t->raw_logprob = m->n_raw_logprob ? m->raw_logprob[i] : t->logprob;
            t->flags |= printable(t->logprob) && printable(t->raw_logprob) ? 0 : ENTRY_NAN;
        }
        if (alt) {
            t->rank = alt->rank;
            t->n_top = (uint32_t)alt->n_ids;
            bool ok = true;
            t->top_at = add_tops(f, alt->n_ids, alt->ids, alt->logprobs, &ok);
            t->flags |= ok ? 0 : ENTRY_NAN;
        }
    }
}

enum rc batch_split(const Weir__StepOutputs *m, const struct batch_limits *l, struct batch **out,
                    uint32_t *n_foreign, struct err *e) {
    CHECK(l->n_loops <= HANDLE_LOOPS_MAX);
    enum rc rc = check(m, l, e);
    if (rc != RC_OK)
        return rc;
    /* finish_column[i]: the column whose token finish i belongs to. A second finish of the same stream stands
     * alone. */
    uint32_t *finish_column = xreallocarray(NULL, m->n_finish + m->n_stream + 1, sizeof *finish_column);
    uint32_t *entry_of = finish_column + m->n_finish;
    if (m->n_finish) {
        struct last_tokens t;
        last_tokens_init(&t, m);
        for (size_t i = 0; i < m->n_finish; i++)
            finish_column[i] = t.v[probe(&t, m->finish[i]->stream)];
        free(t.v);
    }
    struct counts c[HANDLE_LOOPS_MAX];
    struct filling fill[HANDLE_LOOPS_MAX];
    memset(c, 0, l->n_loops * sizeof *c);
    *n_foreign = 0;
    count(m, l->n_loops, c, n_foreign);
    for (uint32_t i = 0; i < l->n_loops; i++) {
        fill[i] = c[i].n ? batch_alloc(&c[i]) : (struct filling){0};
        out[i] = fill[i].b;
    }
    for (size_t i = 0; i < m->n_first; i++) {
        const Weir__First *f = m->first[i];
        uint32_t loop = handle_loop(f->stream);
        if (loop >= l->n_loops || !f->has_stream)
            continue;
        fill_prompt(f, &fill[loop]);
        fill[loop].b->entries[fill[loop].b->n++] = (struct batch_entry){.stream = f->stream,
                                                                        .flags = ENTRY_FIRST,
                                                                        .cached_tokens = f->cached_tokens,
                                                                        .queue_us = f->queue_us,
                                                                        .prefill_us = f->prefill_us,
                                                                        .transfer_us = f->transfer_us};
    }
    fill_tokens(m, l->n_loops, fill, entry_of);
    for (size_t i = 0; i < m->n_finish; i++) {
        uint32_t loop = handle_loop(m->finish[i]->stream);
        if (loop >= l->n_loops)
            continue;
        struct filling *f = &fill[loop];
        struct batch_entry *t = finish_column[i] == none ? NULL : &f->b->entries[entry_of[finish_column[i]]];
        if (!t || t->flags & ENTRY_FINISH) {
            t = &f->b->entries[f->b->n++];
            t->stream = m->finish[i]->stream;
        }
        set_finish(t, f, m->finish[i]);
    }
    free(finish_column);
    return RC_OK;
}
