/* pool_prepare.c: bodies of the pooling family, checked and encoded. */
#include <stdio.h>

#include "common/clock.h"
#include "router/api/chat.h"
#include "router/api/pool.h"

enum { FLOATS_MAX = 64 << 20 /* of one answer */ };

static const char *const out_words[] = {[OUT_EMBED] = "embed",
                                        [OUT_CLASSIFY] = "classify",
                                        [OUT_TOKEN_EMBED] = "token_embed",
                                        [OUT_TOKEN_CLASSIFY] = "token_classify"};

/* ---- tasks -------------------------------------------------------------------------------------- */

enum rc pool_check_task(const struct gen_req *r, struct err *e) {
    const struct model_pooling *p = r->model->pooling;
    bool labels = p && (p->task == MODEL_CLASSIFY || p->task == MODEL_SCORE), ok = false;
    switch (r->route) {
    case GEN_COMPLETIONS:
    case GEN_CHAT:
        ok = !p;
        break;
    case GEN_EMBEDDINGS:
        ok = p && p->task == MODEL_EMBED;
        break;
    case GEN_POOLING:
        ok = p != NULL;
        break;
    case GEN_CLASSIFY:
        ok = labels;
        break;
    case GEN_SCORE:
    case GEN_RERANK:
        ok = p && (p->task == MODEL_EMBED || (labels && p->n_labels == 1));
        break;
    case N_GEN_ROUTE:
        break;
    }
    if (ok)
        return RC_OK;
    static const char *const paths[N_GEN_ROUTE] = {
        "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/pooling", "/classify", "/score",
        "/rerank"};
    struct str name = api_quote(str_of(r->model->facts.names[0]));
    return err_set(e, RC_NOT_FOUND, NULL, "%s is not served for the model `%.*s`, whose task is %s",
                   paths[r->route], (int)name.n, name.p, p ? p->task_word : "generate");
}

/* ---- what no model is needed for ---------------------------------------------------------------- */

/* object_text: the text of {"text": ...} or {"content": [text parts]}; NULL: it has none. Borrowed or in the
 * arena. */
static const char *object_text(struct gen_req *r, const json_t *v, size_t *n) {
    const json_t *text = json_object_get(v, "text"), *parts = json_object_get(v, "content");
    struct buf b = {0};
    if (json_is_string(text)) {
        *n = json_string_length(text);
        return json_string_value(text);
    }
    if (!json_is_array(parts) || json_array_size(parts) == 0)
        return NULL;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *t = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") != 0 || !json_is_string(t)) {
            buf_fini(&b);
            return NULL;
        }
        if (i)
            buf_addc(&b, '\n');
        buf_add(&b, json_string_value(t), json_string_length(t));
    }
    *n = b.len;
    const char *own = arena_strndup(&r->arena, b.data ? b.data : "", b.len);
    buf_fini(&b);
    return own;
}

/* text_of: a text of score or rerank, which may not be empty. */
static enum rc text_of(struct gen_req *r, const json_t *v, const char *path, struct str *out, struct err *e) {
    *out = (struct str){json_string_value(v), json_is_string(v) ? json_string_length(v) : 0};
    if (json_is_object(v))
        out->p = object_text(r, v, &out->n);
    if (!out->p)
        return err_set(e, RC_INVALID, path,
                       "%s must be a text, or an object with text; this model takes no media", path);
    return out->n ? RC_OK : err_set(e, RC_INVALID, path, "%s: prompt cannot be empty", path);
}

/* texts: the texts of one side of score, or of rerank's documents. */
struct texts {
    struct str *v;
    uint32_t n;
    bool list; /* given as one */
    const char *name;
};

/* text_path: what text i is called in errors. */
static const char *text_path(const struct texts *t, uint32_t i, char path[64]) {
    snprintf(path, 64, t->list ? "%s.%u" : "%s", t->name, i);
    return path;
}

static enum rc texts_of(struct gen_req *r, const json_t *v, const char *name,
                        const struct router_limits *limits, struct texts *out, struct err *e) {
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n == 0)
        return err_set(e, RC_INVALID, name, "%s must not be empty", name);
    enum rc rc = api_field_limit(name, "texts", n, limits->inputs, "--max-inputs", e);
    if (rc)
        return rc;
    *out = (struct texts){.v = arena_alloc(&r->arena, n * sizeof *out->v),
                          .n = (uint32_t)n,
                          .list = json_is_array(v),
                          .name = name};
    for (uint32_t i = 0; i < n && !rc; i++) {
        char path[64];
        rc = text_of(r, out->list ? json_array_get(v, i) : v, text_path(out, i, path), &out->v[i], e);
    }
    return rc;
}

/* The spellings of score's pair. queries goes with documents or items. */
static const struct {
    const char *left, *right;
    int left_at, right_at;
} pairs[] = {{"text_1", "text_2", 0, 0},
             {"queries", "documents", 1, 1},
             {"queries", "items", 1, 2},
             {"data_1", "data_2", 3, 3}};

static enum rc score_texts(const struct field_values *v, const struct router_limits *limits,
                           struct gen_req *r, struct texts *left, struct texts *right, struct err *e) {
    size_t n_given = 0, at = ARRAY_LEN(pairs);
    for (size_t i = 0; i < ARRAY_LEN(v->left); i++)
        n_given += (v->left[i] != NULL) + (v->right[i] != NULL);
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
        if (v->left[pairs[i].left_at] && v->right[pairs[i].right_at])
            at = i;
    if (at == ARRAY_LEN(pairs)) {
        const char *missing = "text_1";
        for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
            if (v->left[pairs[i].left_at])
                missing = pairs[i].right;
            else if (v->right[pairs[i].right_at])
                missing = pairs[i].left;
        }
        return err_set(e, RC_INVALID, missing, "%s is required", missing);
    }
    if (n_given > 2)
        return err_set(e, RC_INVALID, pairs[at].left,
                       "give one pair only: %s and %s, or another spelling of it", pairs[at].left,
                       pairs[at].right);
    enum rc rc = texts_of(r, v->left[pairs[at].left_at], pairs[at].left, limits, left, e);
    if (!rc)
        rc = texts_of(r, v->right[pairs[at].right_at], pairs[at].right, limits, right, e);
    if (!rc && left->n != 1 && left->n != right->n)
        rc = err_set(e, RC_INVALID, pairs[at].left,
                     "%s has %u texts and %s %u: one against all, or as many of each", pairs[at].left,
                     left->n, pairs[at].right, right->n);
    return rc;
}

static enum rc rerank_texts(const struct field_values *v, const struct router_limits *limits,
                            struct gen_req *r, struct texts *left, struct texts *right, struct err *e) {
    *left = (struct texts){.v = arena_alloc(&r->arena, sizeof *left->v), .n = 1, .name = "query"};
    enum rc rc = text_of(r, v->query, "query", left->v, e);
    return rc ? rc : texts_of(r, v->documents, "documents", limits, right, e);
}

enum rc pool_check(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                   struct err *e) {
    enum rc rc = RC_OK;
    size_t n = 1;
    r->pool = arena_zalloc(&r->arena, 1, sizeof *r->pool);
    r->pool->spelled_is_text = spelled_is_text(o);
    r->n = r->n_samples = 1;
    r->n_prompt_top = r->n_prompt_list = -1;
    if (r->route == GEN_SCORE || r->route == GEN_RERANK)
        return RC_OK;
    if (!v->input == !v->messages)
        return err_set(e, RC_INVALID, "input",
                       v->input ? "input and messages exclude each other" : "input or messages is required");
    if (v->messages) {
        struct chat_input chat = chat_input_of(v);
        rc = chat_check(&chat, o, e);
    } else {
        rc = input_check(v->input, "input", "prompt cannot be empty", o->limit.inputs, "--max-inputs", &n, e);
    }
    r->n_prompts = (uint32_t)n;
    return rc;
}

/* ---- with the model ----------------------------------------------------------------------------- */

static enum rc set_out(const struct field_values *v, struct gen_req *r, struct err *e) {
    const struct model_pooling *p = r->model->pooling;
    struct pool_req *q = r->pool;
    bool labels = p->n_labels > 0;
    q->has_activation = v->use_activation.set;
    q->activation = v->use_activation.v;
    q->base64 = str_eqz(v->encoding_format.v, "base64");
    q->out = labels ? OUT_CLASSIFY : OUT_EMBED;
    if (r->route == GEN_POOLING) {
        q->out = labels ? OUT_TOKEN_CLASSIFY : OUT_TOKEN_EMBED;
        size_t k = 0;
        while (v->task.set && k < ARRAY_LEN(out_words) && !str_eqz(v->task.v, out_words[k]))
            k++;
        bool wants_labels = k == OUT_CLASSIFY || k == OUT_TOKEN_CLASSIFY;
        if (v->task.set && (wants_labels != labels || (p->task == MODEL_REWARD && k == OUT_CLASSIFY)))
            return err_set(e, RC_INVALID, "task", "the model does not serve this task: its tasks are %s",
                           p->task == MODEL_REWARD ? "token_classify"
                           : labels                ? "classify and token_classify"
                                                   : "embed and token_embed");
        if (v->task.set)
            q->out = (enum pool_out)k;
    }
    q->cols = q->out == OUT_EMBED ? p->dimensions : q->out == OUT_TOKEN_EMBED ? p->hidden : p->n_labels;
    if (!v->dimensions.set || v->dimensions.v == (int64_t)p->dimensions)
        return RC_OK;
    bool allowed = p->is_matryoshka && p->n_matryoshka == 0 && v->dimensions.v < (int64_t)p->dimensions;
    for (uint32_t i = 0; i < p->n_matryoshka; i++)
        allowed |= v->dimensions.v == (int64_t)p->matryoshka[i];
    if (!allowed || v->dimensions.v > (int64_t)p->dimensions)
        return err_set(e, RC_INVALID, "dimensions",
                       "the model's embeddings have %u dimensions; %lld is not one of its sizes",
                       p->dimensions, (long long)v->dimensions.v);
    q->cols = q->dimensions = (uint32_t)v->dimensions.v;
    return RC_OK;
}

static enum rc encode_inputs(const struct router_opts *o, const struct field_values *v,
                             const struct pool_cut *cut, struct gen_req *r, struct err *e) {
    bool several = input_several(v->input);
    enum rc rc = RC_OK;
    r->prompts = arena_zalloc(&r->arena, r->n_prompts, sizeof *r->prompts);
    if (v->messages) {
        struct chat_input chat = chat_input_of(v);
        struct chat_times times = {0};
        struct tok_ids ids = {0};
        chat.add_generation_prompt = v->add_generation_prompt.set && v->add_generation_prompt.v;
        rc = chat_encode(r->model, o, &chat, &r->arena, &ids, &times, e);
        r->template_ns = times.template_ns;
        if (!rc)
            rc = pool_ids(r, 0, &ids, "messages", cut, e);
        tok_ids_fini(&ids);
        return rc;
    }
    for (uint32_t i = 0; i < r->n_prompts && !rc; i++) {
        char path[32] = "input";
        if (several)
            snprintf(path, sizeof path, "input.%u", i);
        rc = pool_text(r, i, several ? json_array_get(v->input, i) : v->input, path,
                       v->add_special.set ? v->add_special.v : true, cut, e);
    }
    return rc;
}

/* encode_texts: of one side, as prompts of their own from `first` on (cosine). */
static enum rc encode_texts(const struct texts *t, uint32_t first, bool add_special,
                            const struct pool_cut *cut, uint32_t max_tokens, struct gen_req *r,
                            struct err *e) {
    enum rc rc = RC_OK;
    for (uint32_t i = 0; i < t->n && !rc; i++) {
        struct pool_cut own = *cut;
        if (max_tokens && (!own.on || max_tokens < own.max))
            own = (struct pool_cut){.on = true, .left = cut->left, .max = max_tokens};
        char path[64];
        json_t *text = json_stringn_nocheck(t->v[i].p, t->v[i].n);
        rc = pool_text(r, first + i, text, text_path(t, i, path), add_special, &own, e);
        json_decref(text);
    }
    return rc;
}

/* encode_pairs: left and right together, for a cross-encoder. A left text that serves all is encoded once. */
static enum rc encode_pairs(const struct texts *left, const struct texts *right, bool add_special,
                            const struct pool_cut *cut, uint32_t max_tokens, struct gen_req *r,
                            struct err *e) {
    struct tok_ids a = {0}, b = {0};
    enum rc rc = RC_OK;
    for (uint32_t i = 0; i < right->n && !rc; i++) {
        if (i == 0 || left->n > 1) {
            a.n = 0;
            pool_encode(r, left->v[left->n > 1 ? i : 0], &a);
        }
        b.n = 0;
        pool_encode(r, right->v[i], &b);
        size_t n = max_tokens ? MIN(b.n, max_tokens) : b.n;
        char path[64];
        rc = pool_pair(r, i, (struct tok_text_ids){a.v, a.n}, (struct tok_text_ids){b.v, n},
                       text_path(right, i, path), add_special, cut, e);
    }
    tok_ids_fini(&a);
    tok_ids_fini(&b);
    return rc;
}

static enum rc encode_scores(const struct router_opts *o, const struct field_values *v,
                             const struct pool_cut *cut, struct gen_req *r, struct err *e) {
    struct texts left, right;
    struct pool_req *q = r->pool;
    bool add_special = v->add_special.set ? v->add_special.v : true;
    uint32_t max_tokens = (uint32_t)MIN(v->max_tokens_per_doc.v, (int64_t)UINT32_MAX);
    enum rc rc = (r->route == GEN_SCORE ? score_texts : rerank_texts)(v, &o->limit, r, &left, &right, e);
    if (rc)
        return rc;
    q->cosine = q->out == OUT_EMBED;
    q->n_left = left.n;
    q->n_items = right.n;
    r->n_prompts = right.n + (q->cosine ? left.n : 0);
    r->prompts = arena_zalloc(&r->arena, r->n_prompts, sizeof *r->prompts);
    if (r->route == GEN_RERANK) {
        q->top_n = v->top_n.v && v->top_n.v < (int64_t)right.n ? (uint32_t)v->top_n.v : right.n;
        if (!v->return_documents.set || v->return_documents.v) {
            struct str *own = arena_alloc(&r->arena, right.n * sizeof *own);
            for (uint32_t i = 0; i < right.n; i++)
                own[i] = (struct str){arena_strndup(&r->arena, right.v[i].p, right.v[i].n), right.v[i].n};
            q->documents = own;
        }
    }
    if (!q->cosine)
        return encode_pairs(&left, &right, add_special, cut, max_tokens, r, e);
    rc = encode_texts(&left, 0, add_special, cut, 0, r, e);
    return rc ? rc : encode_texts(&right, left.n, add_special, cut, max_tokens, r, e);
}

/* check_size: an answer is kept whole until its last part is there. */
static enum rc check_size(const struct gen_req *r, struct err *e) {
    bool rows = r->pool->out == OUT_TOKEN_EMBED || r->pool->out == OUT_TOKEN_CLASSIFY;
    uint64_t n = 0;
    for (uint32_t i = 0; i < r->n_prompts; i++)
        n += (uint64_t)(rows ? r->prompts[i].n_ids : 1) * r->pool->cols;
    if (n <= FLOATS_MAX)
        return RC_OK;
    return err_set(e, RC_INVALID, "input", "the answer would hold %llu numbers, must be less_than_equal %d",
                   (unsigned long long)n, (int)FLOATS_MAX);
}

enum rc pool_prepare(const struct router_opts *o, const struct field_values *v, struct gen_req *r,
                     struct err *e) {
    struct pool_cut cut;
    uint64_t start_ns = r->encode_ns = clock_ns();
    bool scores = r->route == GEN_SCORE || r->route == GEN_RERANK;
    if (v->priority.v && !r->model->facts.priority_scheduling)
        return err_set(e, RC_INVALID, "priority",
                       "priority needs a server with --scheduling-policy priority");
    r->priority = (int32_t)v->priority.v;
    enum rc rc = set_out(v, r, e);
    if (!rc)
        rc = pool_cut_of(v, r, &cut, e);
    if (!rc)
        rc = scores ? encode_scores(o, v, &cut, r, e) : encode_inputs(o, v, &cut, r, e);
    if (!rc && !scores)
        r->pool->n_items = r->n_prompts;
    r->tokenize_ns = clock_ns() - start_ns - r->template_ns;
    return rc ? rc : check_size(r, e);
}

void pool_submit_fill(const struct gen_req *r, Weir__Pooling *p) {
    const struct pool_req *q = r->pool;
    p->kind = (char *)(uintptr_t)out_words[q->out]; /* protobuf-c's strings are not const; only read */
    p->has_dimensions = q->dimensions > 0;
    p->dimensions = q->dimensions;
    p->has_use_activation = q->has_activation;
    p->use_activation = q->activation;
}
