#include <math.h>
#include <stdio.h>

#include "router/api/request.h"

enum { COMPLETION_TOKENS = 16 /* default max_tokens of completions */ };

static const char *param_of(const struct gen_req *r) {
    return r->route == GEN_CHAT ? "messages" : "prompt";
}

static enum rc empty(const char *param, const char *what, struct err *e) {
    return err_set(e, RC_INVALID, param, "%s: %s", param, what);
}
static const char empty_prompt[] = "decoder prompt cannot be empty";

static bool is_integral(const json_t *v) {
    return json_is_integer(v) || (json_is_real(v) && floor(json_real_value(v)) == json_real_value(v));
}

/* check_ids: a list of integers and of nothing else. */
static enum rc check_ids(const json_t *list, const char *path, const char *if_empty, struct err *e) {
    if (json_array_size(list) == 0)
        return empty(path, if_empty, e);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (LIKELY(is_integral(v)))
            continue;
        char param[64];
        snprintf(param, sizeof param, "%s.%zu", path, i);
        return err_set(e, RC_INVALID, param, "%s must be an integer as the ids around it, not %s", param,
                       json_kind(v));
    }
    return RC_OK;
}

/* check_member: element i of a list of prompts, of the first one's kind. */
static enum rc check_member(const json_t *v, bool text, const char *path, const char *if_empty, size_t i,
                            struct err *e) {
    char param[40];
    snprintf(param, sizeof param, "%s.%zu", path, i);
    if (!text && json_is_array(v))
        return check_ids(v, param, if_empty, e);
    if (text && json_is_string(v))
        return json_string_length(v) ? RC_OK : empty(param, if_empty, e);
    return err_set(e, RC_INVALID, param, "%s must be %s as the first one is, not %s", param,
                   text ? "a string" : "a list of integers", json_kind(v));
}

bool input_several(const json_t *input) {
    const json_t *first = json_array_get(input, 0);
    return json_is_string(first) || json_is_array(first);
}

enum rc input_check(const json_t *input, const char *path, const char *if_empty, int64_t max,
                    const char *flag, size_t *n, struct err *e) {
    const json_t *first = json_array_get(input, 0);
    enum rc rc = RC_OK;
    *n = 1;
    if (json_is_string(input))
        return json_string_length(input) ? RC_OK : empty(path, if_empty, e);
    if (!json_is_array(input))
        return err_set(e, RC_INVALID, path,
                       "%s must be a string or a list of strings, of token ids or of lists of "
                       "token ids, not %s",
                       path, json_kind(input));
    if (!first || is_integral(first))
        return check_ids(input, path, if_empty, e);
    char param[40];
    snprintf(param, sizeof param, "%s.0", path);
    if (!input_several(input))
        return err_set(e, RC_INVALID, param, "%s must be a string, a token id or a list of token ids, not %s",
                       param, json_kind(first));
    *n = json_array_size(input);
    rc = api_field_limit(path, "prompts", *n, max, flag, e);
    for (size_t i = 0; !rc && i < *n; i++)
        rc = check_member(json_array_get(input, i), json_is_string(first), path, if_empty, i, e);
    return rc;
}

enum rc prompts_check(const json_t *prompt, const struct router_limits *limits, struct gen_req *r,
                      struct err *e) {
    size_t n = 1;
    enum rc rc = input_check(prompt, "prompt", empty_prompt, limits->prompts, "--max-prompts", &n, e);
    if (!rc)
        rc = api_field_limit(r->n_samples > r->n ? "best_of" : "n", "sequences (prompts times best_of)",
                             n * r->n_samples, limits->sequences, "--max-sequences", e);
    r->n_prompts = (uint32_t)n;
    return rc;
}

enum rc prompt_set(struct gen_req *r, uint32_t i, const struct tok_ids *ids, struct err *e) {
    const char *param = param_of(r);
    if (ids->n == 0)
        return empty(param, empty_prompt, e);
    uint32_t vocab_size = r->model->facts.vocab_size;
    for (size_t k = 0; k < ids->n; k++)
        if (UNLIKELY(ids->v[k] >= vocab_size))
            return api_check_token(param, ids->v[k], vocab_size, e);
    if (ids->n >= (size_t)r->model->facts.max_model_len + r->echo_alone)
        return err_set(e, RC_INVALID, param,
                       "%s has %zu tokens, which leaves no room: the maximum context length of the "
                       "model is %u tokens",
                       param, ids->n, r->model->facts.max_model_len);
    uint32_t *own = arena_alloc(&r->arena, ids->n * sizeof *own);
    memcpy(own, ids->v, ids->n * sizeof *own);
    r->prompts[i] = (struct gen_prompt){.ids = own, .n_ids = (uint32_t)ids->n};
    return RC_OK;
}

enum rc input_ids(const json_t *list, const char *path, uint32_t vocab_size, struct tok_ids *ids,
                  struct err *e) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t id;
        enum rc rc = api_field_int(list, i, path, &id, e);
        if (rc)
            return rc;
        if (UNLIKELY(id < 0 || id >= (int64_t)vocab_size)) {
            char param[64];
            snprintf(param, sizeof param, "%s.%zu", path, i);
            return api_check_token(param, id, vocab_size, e);
        }
        tok_ids_push(ids, (uint32_t)id);
    }
    return RC_OK;
}

enum rc prompt_cut_of(const struct field_values *v, const struct gen_req *r, struct prompt_cut *out,
                      struct err *e) {
    uint32_t context = r->model->facts.max_model_len;
    struct str side = v->truncation_side.v;
    if (v->truncate.set && v->truncate.v == 0)
        return err_set(e, RC_INVALID, "truncate_prompt_tokens",
                       "truncate_prompt_tokens must be -1, or greater_than_equal 1");
    if (v->truncate.v > (int64_t)context)
        return err_set(
            e, RC_INVALID, "truncate_prompt_tokens",
            "truncate_prompt_tokens %lld is larger than the context of %u: select a smaller truncation size",
            (long long)v->truncate.v, context);
    *out = (struct prompt_cut){.on = v->truncate.set, .right = str_eqz(side, "right")};
    struct opt_int limit = v->max_completion_tokens.set ? v->max_completion_tokens : v->max_tokens;
    int64_t beside = limit.set ? limit.v : 1; /* an explicit limit above the context is refused later */
    out->max = v->truncate.v > 0 ? (uint32_t)v->truncate.v : (uint32_t)MAX((int64_t)context - beside, 1);
    return RC_OK;
}

bool prompt_cut_ids(const struct prompt_cut *cut, size_t n_kept, struct tok_ids *ids) {
    size_t max = cut->max - MIN(n_kept, cut->max);
    if (!cut->on || ids->n <= max)
        return false;
    if (!cut->right)
        memmove(ids->v, ids->v + (ids->n - max), max * sizeof *ids->v);
    ids->n = max;
    return true;
}

/* encode_cut: a text of which the tokenizer's special tokens stay while there is room for others. Returns
 * whether some of it went. */
static bool encode_cut(const json_t *text, bool add_special, const struct prompt_cut *cut,
                       const struct tok *tok, struct tok_ids *ids) {
    struct tok_ids plain = {0};
    size_t n_front = 0, n_back = 0;
    bool less = false;
    tok_encode(tok, json_string_value(text), json_string_length(text), NULL, 0, 0, &plain);
    if (add_special)
        tok_n_special(tok, &n_front, &n_back);
    if (cut->max > n_front + n_back)
        less = prompt_cut_ids(cut, n_front + n_back, &plain);
    if (add_special)
        tok_wrap(tok, (struct tok_text_ids){plain.v, plain.n}, ids, NULL);
    for (size_t i = 0; !add_special && i < plain.n; i++)
        tok_ids_push(ids, plain.v[i]);
    less |= prompt_cut_ids(cut, 0, ids);
    tok_ids_fini(&plain);
    return less;
}

/* encode_one: a text or a list of ids, checked before. *whole: the text, if all of it is there. */
static enum rc encode_one(const json_t *v, const char *path, bool add_special, const struct prompt_cut *cut,
                          struct gen_req *r, struct tok_ids *ids, struct str *whole, struct err *e) {
    if (!json_is_string(v)) {
        enum rc rc = input_ids(v, path, r->model->facts.vocab_size, ids, e);
        prompt_cut_ids(cut, 0, ids);
        return rc;
    }
    struct str text = {json_string_value(v), json_string_length(v)};
    if (cut->on && encode_cut(v, add_special, cut, r->model->tok, ids))
        return RC_OK;
    if (!cut->on)
        tok_encode(r->model->tok, text.p, text.n, NULL, 0, add_special ? TOK_ADD_SPECIAL : 0, ids);
    *whole = text;
    return RC_OK;
}

enum rc prompts_encode(const json_t *prompt, bool add_special, const struct prompt_cut *cut, struct gen_req *r,
                       struct err *e) {
    struct tok_ids ids = {0};
    size_t n_front = 0, n_back;
    bool several = input_several(prompt);
    enum rc rc = RC_OK;
    if (add_special)
        tok_n_special(r->model->tok, &n_front, &n_back);
    for (uint32_t i = 0; !rc && i < r->n_prompts; i++) {
        char path[32] = "prompt";
        if (several)
            snprintf(path, sizeof path, "prompt.%u", i);
        ids.n = 0;
        struct str whole = {0};
        rc = encode_one(several ? json_array_get(prompt, i) : prompt, path, add_special, cut, r, &ids, &whole,
                        e);
        if (!rc)
            rc = prompt_set(r, i, &ids, e);
        if (!rc && r->echo)
            echo_prompt(r, i, whole, (uint32_t)n_front);
    }
    tok_ids_fini(&ids);
    return rc;
}

/* budget: api.md 5.3 for one prompt. asked: the explicit limit, if any. */
static enum rc budget(struct gen_req *r, struct gen_prompt *p, const char *param, struct opt_int asked,
                      struct err *e) {
    uint32_t context = r->model->facts.max_model_len, room = context - p->n_ids;
    if (asked.set && asked.v > (int64_t)room)
        return err_set(e, RC_INVALID, param,
                       "%s %lld and a prompt of %u tokens exceed the maximum context length of %u tokens",
                       param, (long long)asked.v, p->n_ids, context);
    uint64_t limit = room, cap = r->model->max_new_tokens_cap;
    if (asked.set)
        limit = (uint64_t)asked.v;
    else if (r->route == GEN_COMPLETIONS)
        limit = MIN(room, COMPLETION_TOKENS);
    else if (r->model->defaults.max_new_tokens)
        limit = MIN(room, r->model->defaults.max_new_tokens);
    p->max_tokens = (uint32_t)(cap ? MIN(limit, cap) : limit);
    return RC_OK;
}

enum rc prompt_budgets(const struct field_values *v, struct gen_req *r, struct err *e) {
    const char *param = v->max_completion_tokens.set ? "max_completion_tokens" : "max_tokens";
    struct opt_int asked = v->max_completion_tokens.set ? v->max_completion_tokens : v->max_tokens;
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        struct gen_prompt *p = &r->prompts[i];
        enum rc rc = budget(r, p, param, asked, e);
        if (rc)
            return rc;
        if (v->min_tokens.v > (int64_t)p->max_tokens)
            return err_set(e, RC_INVALID, "min_tokens",
                           "min_tokens must be less_than_equal %u, the limit of generated tokens, "
                           "got %lld",
                           p->max_tokens, (long long)v->min_tokens.v);
    }
    r->min_tokens = (uint32_t)v->min_tokens.v;
    return RC_OK;
}
