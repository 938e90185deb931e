/* Tokens that alone may come, and words that never do (api.md 5.1, 8.5). */
#include <stdio.h>

#include "router/api/request.h"

enum { WORD_FORMS = 2 /* as given, and with a space in front */ };

/* ---- before the model is known ----------------------------------------------------------------------- */

static enum rc check_allowed(const json_t *list, struct arena *a, struct sampling_raw *raw, struct err *e) {
    size_t n = json_array_size(list);
    if (!list)
        return RC_OK;
    if (n == 0)
        return err_set(e, RC_INVALID, "allowed_token_ids", "allowed_token_ids must not be empty");
    int64_t *ids = arena_zalloc(a, n, sizeof *ids);
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < n; i++)
        rc = api_field_int(list, i, "allowed_token_ids", &ids[i], e);
    raw->allowed = ids;
    raw->n_allowed = n;
    return rc;
}

static enum rc check_words(const json_t *list, struct arena *a, struct sampling_raw *raw, struct err *e) {
    size_t n = json_array_size(list);
    if (n == 0)
        return RC_OK;
    struct str *words = arena_zalloc(a, n, sizeof *words);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        char param[32];
        snprintf(param, sizeof param, "bad_words.%zu", i);
        if (json_string_length(v) == 0)
            return err_set(e, RC_INVALID, param, "%s must not be empty", param);
        words[i] = (struct str){json_string_value(v), json_string_length(v)};
    }
    raw->bad_words = words;
    raw->n_bad_words = n;
    return RC_OK;
}

enum rc bans_check(const struct field_values *v, struct gen_req *r, struct sampling_raw *raw, struct err *e) {
    enum rc rc = check_allowed(v->allowed_ids, &r->arena, raw, e);
    return rc ? rc : check_words(v->bad_words, &r->arena, raw, e);
}

/* ---- with the model ---------------------------------------------------------------------------------- */

static enum rc resolve_allowed(const struct sampling_raw *raw, struct gen_req *r, struct err *e) {
    uint32_t *ids = arena_zalloc(&r->arena, raw->n_allowed + 1, sizeof *ids);
    for (size_t i = 0; i < raw->n_allowed; i++) {
        char param[48];
        snprintf(param, sizeof param, "allowed_token_ids.%zu", i);
        enum rc rc = api_check_token(param, raw->allowed[i], r->model->facts.vocab_size, e);
        if (rc)
            return rc;
        ids[i] = (uint32_t)raw->allowed[i];
    }
    r->s.allowed = ids;
    r->s.n_allowed = (uint32_t)raw->n_allowed;
    return RC_OK;
}

/* word_ids: the ids of a form. False: the model cannot produce it anyway. */
static bool word_ids(const struct gen_req *r, struct str word, bool spaced, struct tok_ids *ids) {
    struct buf text = {0};
    if (spaced)
        buf_addc(&text, ' ');
    buf_add_str(&text, word);
    ids->n = 0;
    tok_encode(r->model->tok, text.data, text.len, NULL, 0, 0, ids);
    buf_fini(&text);
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] >= r->model->facts.vocab_size)
            return false;
    return ids->n > 0;
}

static void add_form(struct gen_req *r, const struct tok_ids *ids) {
    Weir__BadWord *w = arena_zalloc(&r->arena, 1, sizeof *w);
    weir__bad_word__init(w);
    w->tokens = arena_alloc(&r->arena, ids->n * sizeof *w->tokens);
    memcpy(w->tokens, ids->v, ids->n * sizeof *w->tokens);
    w->n_tokens = ids->n;
    r->s.bad_words[r->s.n_bad_words++] = w;
}

/* resolve_words: the form with a space counts if it begins with another token and has as many. */
static void resolve_words(const struct sampling_raw *raw, struct gen_req *r) {
    struct tok_ids plain = {0}, spaced = {0};
    r->s.bad_words = arena_zalloc(&r->arena, WORD_FORMS * raw->n_bad_words + 1, sizeof(Weir__BadWord *));
    for (size_t i = 0; i < raw->n_bad_words; i++) {
        if (word_ids(r, raw->bad_words[i], false, &plain))
            add_form(r, &plain);
        if (word_ids(r, raw->bad_words[i], true, &spaced) && plain.n == spaced.n && spaced.v[0] != plain.v[0])
            add_form(r, &spaced);
    }
    tok_ids_fini(&plain);
    tok_ids_fini(&spaced);
}

enum rc bans_resolve(const struct sampling_raw *raw, struct gen_req *r, struct err *e) {
    if (raw->n_bad_words)
        resolve_words(raw, r);
    return raw->n_allowed ? resolve_allowed(raw, r, e) : RC_OK;
}
