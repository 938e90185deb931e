/* pool_inputs.c: texts, ids and pairs to prompts: encoding, special tokens, truncation (api.md 8.8, 12.5). */
#include <stdio.h>

#include "common/text/uni.h"
#include "common/utf8.h"
#include "router/api/pool.h"

enum rc pool_cut_of(const struct field_values *v, const struct gen_req *r, struct pool_cut *out,
                    struct err *e) {
    uint32_t context = r->model->facts.max_model_len;
    struct str side = v->truncation_side.v;
    *out = (struct pool_cut){.on = v->truncate.set, .left = str_eqz(side, "left"), .max = context};
    if (!v->truncate.set || v->truncate.v == -1)
        return RC_OK;
    if (v->truncate.v == 0)
        return err_set(e, RC_INVALID, "truncate_prompt_tokens",
                       "truncate_prompt_tokens must be -1, or greater_than_equal 1");
    if (v->truncate.v > (int64_t)context)
        return err_set(
            e, RC_INVALID, "truncate_prompt_tokens",
            "truncate_prompt_tokens %lld is larger than the context of %u: select a smaller truncation size",
            (long long)v->truncate.v, context);
    out->max = (uint32_t)v->truncate.v;
    return RC_OK;
}

/* lower: text in lower case, as sentence-transformers' do_lower_case. */
static void lower(struct str text, struct buf *out) {
    for (size_t i = 0; i < text.n;) {
        uint32_t low[2];
        size_t len, n;
        int32_t cp = utf8_decode(text.p + i, text.n - i, &len);
        i += len;
        n = uni_lower_of(cp < 0 ? 0xFFFD : (uint32_t)cp, low);
        for (size_t k = 0; k < n; k++) {
            char bytes[4];
            buf_add(out, bytes, utf8_encode(low[k], bytes));
        }
    }
}

void pool_encode(const struct gen_req *r, struct str text, struct tok_ids *out) {
    struct buf changed = {0};
    const struct model_pooling *p = r->model->pooling;
    if (p->prompt || p->lower_case) {
        if (p->prompt)
            buf_addz(&changed, p->prompt);
        if (p->lower_case)
            lower(text, &changed);
        else
            buf_add_str(&changed, text);
        text = buf_str(&changed);
    }
    struct tok_mark client = {p->prompt ? strlen(p->prompt) : 0, text.n};
    tok_encode(r->model->tok, text.p, text.n, &client, r->pool->spelled_is_text, 0, out);
    buf_fini(&changed);
}

/* put: ids as prompt i, if they fit. */
static enum rc put(struct gen_req *r, uint32_t i, const struct tok_ids *ids, const struct tok_ids *types,
                   const char *path, struct err *e) {
    uint32_t context = r->model->facts.max_model_len, vocab_size = r->model->facts.vocab_size;
    bool typed = false;
    if (ids->n == 0)
        return err_set(e, RC_INVALID, path, "%s: prompt cannot be empty", path);
    if (ids->n > context)
        return err_set(e, RC_INVALID, path,
                       "%s has %zu tokens and the maximum context length of the model is %u tokens: reduce "
                       "the length of "
                       "the input, or set truncate_prompt_tokens",
                       path, ids->n, context);
    for (size_t k = 0; k < ids->n; k++)
        if (UNLIKELY(ids->v[k] >= vocab_size))
            return api_check_token(path, ids->v[k], vocab_size, e);
    uint32_t *own = arena_alloc(&r->arena, ids->n * sizeof *own), *own_types = NULL;
    memcpy(own, ids->v, ids->n * sizeof *own);
    for (size_t k = 0; types && k < types->n; k++)
        typed |= types->v[k] != 0;
    if (typed) {
        own_types = arena_alloc(&r->arena, ids->n * sizeof *own_types);
        memcpy(own_types, types->v, ids->n * sizeof *own_types);
    }
    r->prompts[i] = (struct gen_prompt){.ids = own, .n_ids = (uint32_t)ids->n, .types = own_types};
    return RC_OK;
}

/* slice: at most max of n, from the side that is kept. */
static void slice(struct tok_text_ids *ids, size_t max, bool left) {
    if (ids->n <= max)
        return;
    if (left && ids->v)
        ids->v += ids->n - max;
    ids->n = max;
}

enum rc pool_ids(struct gen_req *r, uint32_t i, struct tok_ids *ids, const char *path,
                 const struct pool_cut *cut, struct err *e) {
    struct tok_text_ids part = {ids->v, ids->n};
    if (cut->on)
        slice(&part, cut->max, cut->left);
    struct tok_ids view = {.v = (uint32_t *)(uintptr_t)part.v, .n = part.n};
    return put(r, i, &view, NULL, path, e);
}

enum rc pool_text(struct gen_req *r, uint32_t i, const json_t *value, const char *path, bool add_special,
                  const struct pool_cut *cut, struct err *e) {
    struct tok_ids ids = {0}, whole = {0}, types = {0};
    size_t n_front, n_back;
    enum rc rc = RC_OK;
    if (!json_is_string(value)) {
        rc = input_ids(value, path, r->model->facts.vocab_size, &ids, e);
        if (!rc)
            rc = pool_ids(r, i, &ids, path, cut, e);
        tok_ids_fini(&ids);
        return rc;
    }
    pool_encode(r, (struct str){json_string_value(value), json_string_length(value)}, &ids);
    tok_n_special(r->model->tok, &n_front, &n_back);
    size_t n_special = n_front + n_back;
    struct tok_text_ids text = {ids.v, ids.n};
    if (add_special && cut->on && cut->max > n_special)
        slice(&text, cut->max - n_special, cut->left); /* the special tokens stay */
    if (add_special)
        tok_wrap(r->model->tok, text, &whole, &types);
    if (add_special && !(cut->on && cut->max <= n_special))
        rc = put(r, i, &whole, &types, path, e);
    else
        rc = pool_ids(r, i, add_special ? &whole : &ids, path, cut, e);
    tok_ids_fini(&ids);
    tok_ids_fini(&whole);
    tok_ids_fini(&types);
    return rc;
}

/* pair_plain: the two texts one behind the other without special tokens; the second has type 1 where the
 * template's has. */
static void pair_plain(struct tok_text_ids a, struct tok_text_ids b, struct tok_ids *ids,
                       struct tok_ids *types) {
    bool typed = false;
    for (size_t k = 0; k < types->n; k++)
        typed |= types->v[k] != 0;
    ids->n = types->n = 0;
    for (size_t k = 0; k < a.n + b.n; k++) {
        tok_ids_push(ids, k < a.n ? a.v[k] : b.v[k - a.n]);
        tok_ids_push(types, typed && k >= a.n);
    }
}

enum rc pool_pair(struct gen_req *r, uint32_t i, struct tok_text_ids a, struct tok_text_ids b,
                  const char *path, bool add_special, const struct pool_cut *cut, struct err *e) {
    struct tok_ids ids = {0}, types = {0};
    size_t n_special = add_special ? tok_n_special_pair(r->model->tok) : 0;
    if (cut->on) {
        size_t room = cut->max > n_special ? cut->max - n_special : 0;
        slice(&b, room > a.n ? room - a.n : 0, cut->left); /* the second text first (api.md 12.5.4) */
        slice(&a, room, cut->left);
    }
    tok_wrap_pair(r->model->tok, a, b, &ids, &types);
    if (!add_special)
        pair_plain(a, b, &ids, &types);
    enum rc rc = put(r, i, &ids, &types, path, e);
    tok_ids_fini(&ids);
    tok_ids_fini(&types);
    return rc;
}
