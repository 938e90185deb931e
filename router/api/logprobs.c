#include <math.h>

#include "common/hash.h"
#include "router/api/run.h"

bool lp_printable(const struct gen_token *t) {
    bool bad = isnan(t->logprob) || t->logprob == INFINITY;
    for (uint32_t i = 0; i < t->n_top; i++)
        bad |= isnan(t->top_logprobs[i]) || t->top_logprobs[i] == INFINITY;
    return !bad;
}

static struct str bytes_of(const struct gen_req *r, uint32_t id) {
    return id < tok_vocab_size(r->model->tok) ? tok_bytes(r->model->tok, id) : (struct str){0};
}

/* token_write: the token's string: half a character shows as U+FFFD. */
static void token_write(const struct gen_req *r, uint32_t id, struct buf *out) {
    if (!r->ids_as_tokens) {
        jw_str(out, bytes_of(r, id));
        return;
    }
    buf_addz(out, "\"token_id:");
    buf_addu64(out, id);
    buf_addc(out, '"');
}

static void comma(struct buf *b) {
    if (b->len)
        buf_addc(b, ',');
}

/* ---- completions ------------------------------------------------------------------------------------- */

/* key_is_new: whether g->key is not yet a key of the map that `tops` ends with; notes that it goes to
 * position `at`. */
static bool key_is_new(struct gen_run *g, const struct buf *tops, size_t at) {
    uint32_t slot = (uint32_t)hash_fast(g->key.data, g->key.len, 0) & (g->n_seen - 1);
    for (; g->seen[slot]; slot = (slot + 1) & (g->n_seen - 1)) {
        size_t p = g->seen[slot] - 1; /* both end in the closing quote, so equal bytes are equal keys */
        if (tops->len - p >= g->key.len && !memcmp(tops->data + p, g->key.data, g->key.len))
            return false;
    }
    g->seen[slot] = (uint32_t)at + 1;
    return true;
}

static void top_add(struct gen_run *g, uint32_t id, float logprob, size_t begin, struct buf *tops) {
    g->key.len = 0;
    token_write(g->r, id, &g->key);
    bool first = tops->len == begin;
    if (!key_is_new(g, tops, tops->len + !first))
        return; /* the better one is there */
    if (!first)
        buf_addc(tops, ',');
    buf_add(tops, g->key.data, g->key.len);
    buf_addc(tops, ':');
    jw_f32(tops, logprob);
}

static void completions_add(struct gen_run *g, const struct gen_token *t, uint32_t offset,
                            struct lp_columns *to) {
    comma(&to->offsets);
    buf_addu64(&to->offsets, offset);
    comma(&to->logprobs);
    comma(&to->tokens);
    token_write(g->r, t->id, &to->tokens);
    comma(&to->tops);
    if (t->unknown) {
        buf_addz(&to->logprobs, "null");
        buf_addz(&to->tops, "null");
        return;
    }
    jw_f32(&to->logprobs, t->logprob);
    buf_addc(&to->tops, '{');
    size_t begin = to->tops.len;
    bool sampled = false;
    memset(g->seen, 0, g->n_seen * sizeof *g->seen);
    for (uint32_t i = 0; i < MIN(t->n_top, g->r->n_top); i++) {
        top_add(g, t->top_ids[i], t->top_logprobs[i], begin, &to->tops);
        sampled |= t->top_ids[i] == t->id;
    }
    if (!sampled)
        top_add(g, t->id, t->logprob, begin, &to->tops);
    buf_addc(&to->tops, '}');
}

/* ---- chat -------------------------------------------------------------------------------------------- */

/* chat_token: `"token":...,"logprob":...,"bytes":[...]`. */
static void chat_token(const struct gen_req *r, uint32_t id, float logprob, struct buf *out) {
    struct str bytes = bytes_of(r, id);
    buf_addz(out, "\"token\":");
    token_write(r, id, out);
    buf_addz(out, ",\"logprob\":");
    jw_f32(out, logprob);
    buf_addz(out, ",\"bytes\":[");
    for (size_t i = 0; i < bytes.n; i++) {
        if (i)
            buf_addc(out, ',');
        buf_addu64(out, (unsigned char)bytes.p[i]);
    }
    buf_addc(out, ']');
}

static void chat_add(const struct gen_run *g, const struct gen_token *t, struct buf *out) {
    comma(out);
    buf_addc(out, '{');
    chat_token(g->r, t->id, t->logprob, out);
    buf_addz(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < MIN(t->n_top, g->r->n_top); i++) {
        buf_addz(out, i ? ",{" : "{");
        chat_token(g->r, t->top_ids[i], t->top_logprobs[i], out);
        buf_addc(out, '}');
    }
    buf_addz(out, "]}");
}

/* ---- both -------------------------------------------------------------------------------------------- */

void lp_add(struct gen_run *g, const struct gen_token *t, uint32_t offset, struct lp_columns *to) {
    if (g->r->route == GEN_CHAT)
        chat_add(g, t, &to->tokens);
    else
        completions_add(g, t, offset, to);
}

void lp_clear(struct lp_columns *c) {
    c->offsets.len = c->logprobs.len = c->tokens.len = c->tops.len = 0;
}

void lp_fini(struct lp_columns *c) {
    buf_fini(&c->offsets);
    buf_fini(&c->logprobs);
    buf_fini(&c->tokens);
    buf_fini(&c->tops);
}

void lp_list_add(const struct gen_run *g, const struct gen_token *t, struct buf *out) {
    comma(out);
    if (t->unknown) {
        buf_addz(out, "null");
        return;
    }
    uint32_t n = MIN(t->n_top, (uint32_t)g->r->n_prompt_list);
    bool own = false;
    buf_addc(out, '{');
    for (uint32_t i = 0; i < n || !own; i++) {
        bool listed = i < n;
        uint32_t id = listed ? t->top_ids[i] : t->id;
        if (i)
            buf_addc(out, ',');
        buf_addz(out, g->r->ids_as_tokens ? "\"token_id:" : "\"");
        buf_addu64(out, id);
        buf_addz(out, "\":{\"logprob\":");
        jw_f32(out, listed ? t->top_logprobs[i] : t->logprob);
        buf_addz(out, ",\"rank\":");
        buf_addu64(out, listed ? i + 1 : t->rank);
        buf_addz(out, ",\"decoded_token\":");
        token_write(g->r, id, out);
        buf_addc(out, '}');
        own |= id == t->id;
    }
    buf_addc(out, '}');
}

/* column: the values of both, in brackets. */
static void column(struct buf *out, const char *open, const struct buf *before, const struct buf *values) {
    buf_addz(out, open);
    buf_add(out, before->data, before->len);
    if (before->len && values->len)
        buf_addc(out, ',');
    buf_add(out, values->data, values->len);
    buf_addc(out, ']');
}

void lp_write(const struct gen_run *g, const struct lp_columns *before, const struct lp_columns *c,
              struct buf *out) {
    static const struct lp_columns none = {0};
    if (!before)
        before = &none;
    if (!g->r->logprobs) {
        buf_addz(out, "null");
    } else if (g->r->route == GEN_CHAT) {
        column(out, "{\"content\":[", &none.tokens, &c->tokens);
        buf_addz(out, ",\"refusal\":null}");
    } else {
        column(out, "{\"text_offset\":[", &before->offsets, &c->offsets);
        column(out, ",\"token_logprobs\":[", &before->logprobs, &c->logprobs);
        column(out, ",\"tokens\":[", &before->tokens, &c->tokens);
        column(out, ",\"top_logprobs\":[", &before->tops, &c->tops);
        buf_addc(out, '}');
    }
}
