#include "router/api/model_info.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/version.h"
#include "router/api/tokenizer_info.h"

const char *const model_asset_name[N_MODEL_ASSET] = {
    [ASSET_TOKENIZER] = "tokenizer.json",
    [ASSET_TOKENIZER_MODEL] = "tokenizer.model",
    [ASSET_VOCAB_JSON] = "vocab.json",
    [ASSET_MERGES] = "merges.txt",
    [ASSET_VOCAB_TXT] = "vocab.txt",
    [ASSET_TOKENIZER_CONFIG] = "tokenizer_config.json",
    [ASSET_SPECIAL_TOKENS] = "special_tokens_map.json",
    [ASSET_ADDED_TOKENS] = "added_tokens.json",
    [ASSET_CHAT_TEMPLATE] = "chat_template.jinja",
    [ASSET_PROCESSOR_TEMPLATE] = "chat_template.json",
    [ASSET_GENERATION] = "generation_config.json",
    [ASSET_POOLING] = "pooling.json",
};

/* ---- facts ------------------------------------------------------------------------------------------- */

static void facts_copy(struct model_facts *to, const struct model_facts *from) {
    *to = *from;
    to->root = xstrdup(from->root);
    char **names = xcalloc(from->n_names, sizeof *names);
    for (size_t i = 0; i < from->n_names; i++)
        names[i] = xstrdup(from->names[i]);
    to->names = (const char *const *)names;
    uint32_t *eos = xcalloc(from->n_eos + 1, sizeof *eos);
    if (from->n_eos)
        memcpy(eos, from->eos, from->n_eos * sizeof *eos);
    to->eos = eos;
}

#define FREE_CONST(p) free((void *)(uintptr_t)(p))

static void facts_fini(struct model_facts *f) {
    for (size_t i = 0; f->names && i < f->n_names; i++)
        FREE_CONST(f->names[i]);
    FREE_CONST(f->names);
    FREE_CONST(f->root);
    FREE_CONST(f->eos);
}

/* ---- special tokens ---------------------------------------------------------------------------------- */

/* token_text: a special token is written as its text, or as an object with `content`. Borrowed, or NULL. */
static json_t *token_text(const json_t *v) {
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_is_string(v) ? (json_t *)(uintptr_t)v : NULL;
}

static void add_token(json_t *vars, const char *name, const json_t *v) {
    json_t *text = token_text(v);
    if (text && !json_object_get(vars, name))
        CHECK(json_object_set(vars, name, text) == 0);
}

static void add_tokens(json_t *vars, json_t *file) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        add_token(vars, names[i], json_object_get(file, names[i]));
    json_t *extra = json_object_get(file, "extra_special_tokens");
    for (void *it = json_is_object(extra) ? json_object_iter(extra) : NULL; it;
         it = json_object_iter_next(extra, it))
        add_token(vars, json_object_iter_key(it), json_object_iter_value(it));
    json_t *more = json_object_get(file, "additional_special_tokens");
    if (!json_is_array(more) || json_object_get(vars, "additional_special_tokens"))
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(more); i++) {
        json_t *text = token_text(json_array_get(more, i));
        CHECK(!text || json_array_append(list, text) == 0);
    }
    CHECK(json_object_set_new(vars, "additional_special_tokens", list) == 0);
}

/* parse_asset: an object, or NULL for an empty file. */
static enum rc parse_asset(const struct str files[N_MODEL_ASSET], enum model_asset asset, json_t **out,
                           struct err *e) {
    *out = NULL;
    if (files[asset].n == 0)
        return RC_OK;
    struct err why = {0};
    enum rc rc = json_parse(files[asset], &json_limits_default, out, &why);
    if (!rc && !json_is_object(*out))
        rc = err_set(&why, RC_INVALID, NULL, "an object is wanted, not %s", json_kind(*out));
    return rc ? err_set(e, rc, NULL, "%s: %s", model_asset_name[asset], why.msg) : RC_OK;
}

/* ---- templates ---------------------------------------------------------------------------------------- */

static enum rc load_kwargs(struct model_info *m, const struct router_opts *o, struct err *e) {
    if (!o->chat_template_kwargs)
        return RC_OK;
    struct err why = {0};
    enum rc rc = json_parse(str_of(o->chat_template_kwargs), &json_limits_default, &m->default_kwargs, &why);
    if (!rc && !json_is_object(m->default_kwargs))
        rc = err_set(&why, RC_INVALID, NULL, "an object is wanted, not %s", json_kind(m->default_kwargs));
    return rc ? err_set(e, rc, NULL, "--default-chat-template-kwargs: %s", why.msg) : RC_OK;
}

/* ---- sampling defaults ------------------------------------------------------------------------------- */

static enum rc load_defaults(struct model_info *m, struct str file, const struct router_opts *o,
                             struct err *e) {
    bool capped = false;
    enum rc rc = hf_generation_load(file, o->generation_config ? o->generation_config : "auto",
                                    o->override_generation_config, &m->defaults, &capped, e);
    m->max_new_tokens_cap = capped ? m->defaults.max_new_tokens : 0;
    return rc;
}

/* ---- pooling ----------------------------------------------------------------------------------------- */

static void pooling_free(struct model_pooling *p) {
    if (!p)
        return;
    for (uint32_t i = 0; p->labels && i < p->n_labels; i++)
        free(p->labels[i]);
    free(p->labels);
    free(p->prompt);
    free(p);
}

/* bounded: a whole number of the file, at most hi; hi + 1 if it is not. */
static uint32_t bounded(const json_t *obj, const char *key, uint32_t hi) {
    const json_t *v = json_object_get(obj, key);
    json_int_t n = json_integer_value(v);
    return json_is_integer(v) && n >= 0 && n <= hi ? (uint32_t)n : hi + 1;
}

/* load_pooling: what a worker says of how its model pools; workers are not trusted with sizes. */
static enum rc load_pooling(struct model_info *m, const json_t *obj, struct err *e) {
    static const char *const words[N_MODEL_TASK] = {"embed", "classify", "score", "reward"};
    enum { WIDTH_MAX = 1 << 20 };
    const char *task = json_string_value(json_object_get(obj, "task"));
    const json_t *labels = json_object_get(obj, "labels"), *sizes = json_object_get(obj, "matryoshka");
    struct model_pooling *p = m->pooling = xcalloc(1, sizeof *p);
    size_t k = 0;
    while (task && k < N_MODEL_TASK && strcmp(task, words[k]))
        k++;
    uint32_t dimensions = bounded(obj, "dimensions", WIDTH_MAX), hidden = bounded(obj, "hidden", WIDTH_MAX);
    uint32_t n_labels = bounded(obj, "n_labels", HF_LABELS_MAX);
    if (!task || k == N_MODEL_TASK || dimensions == 0 || dimensions > WIDTH_MAX || hidden == 0 ||
        hidden > WIDTH_MAX || n_labels > HF_LABELS_MAX || (n_labels > 0) != (k != MODEL_EMBED) ||
        (json_is_array(labels) && json_array_size(labels) != n_labels) ||
        json_array_size(sizes) > HF_MATRYOSHKA_MAX)
        return err_set(e, RC_INVALID, NULL, "pooling.json: a description that cannot be");
    p->task = (enum model_task)k;
    p->task_word = words[k];
    p->dimensions = dimensions;
    p->hidden = hidden;
    p->n_labels = n_labels;
    if (json_is_array(labels))
        p->labels = xcalloc(n_labels, sizeof *p->labels);
    for (uint32_t i = 0; p->labels && i < n_labels; i++) {
        const char *name = json_string_value(json_array_get(labels, i));
        p->labels[i] = xstrdup(name ? name : "");
    }
    for (size_t i = 0; i < json_array_size(sizes); i++) {
        json_int_t n = json_integer_value(json_array_get(sizes, i));
        if (n > 0 && n <= dimensions)
            p->matryoshka[p->n_matryoshka++] = (uint32_t)n;
    }
    p->is_matryoshka = json_is_true(json_object_get(obj, "is_matryoshka"));
    p->cross_encoder = json_is_true(json_object_get(obj, "cross_encoder"));
    p->lower_case = json_is_true(json_object_get(obj, "lower_case"));
    const char *prompt = json_string_value(json_object_get(obj, "prompt"));
    p->prompt = prompt ? xstrdup(prompt) : NULL;
    return RC_OK;
}

/* set_fingerprint: over what changes the answer to a seeded request: the model, its context and its defaults.
 */
static void set_fingerprint(struct model_info *m) {
    const struct hf_generation *d = &m->defaults;
    uint8_t digest[32];
    char text[512], *at = text;
    for (size_t i = 0; i < sizeof m->facts.revision; i++)
        at += sprintf(at, "%02x", m->facts.revision[i]);
    snprintf(at, sizeof text - (size_t)(at - text), " %u %.9g %.9g %.9g %.9g %.9g %llu",
             m->facts.max_model_len, d->temperature, d->top_p, d->top_k, d->min_p, d->repetition_penalty,
             (unsigned long long)d->max_new_tokens);
    hash_sha256(text, strlen(text), digest);
    snprintf(m->fingerprint, sizeof m->fingerprint, "weir-%s-%02x%02x%02x%02x", WEIR_VERSION, digest[0],
             digest[1], digest[2], digest[3]);
}

/* ---- life -------------------------------------------------------------------------------------------- */

enum rc model_info_new(struct model_info **out, const struct model_facts *facts,
                       const struct str files[N_MODEL_ASSET], const struct router_opts *o, struct err *e) {
    CHECK(facts->n_names > 0);
    struct model_info *m = xcalloc(1, sizeof *m);
    json_t *config = NULL, *map = NULL, *processor = NULL, *pooling = NULL;
    atomic_init(&m->n_refs, 1);
    facts_copy(&m->facts, facts);
    m->created_unix_s = clock_unix_s();
    struct tok_files tok_files = {.tokenizer_json = files[ASSET_TOKENIZER],
                                  .tokenizer_config_json = files[ASSET_TOKENIZER_CONFIG],
                                  .special_tokens_map_json = files[ASSET_SPECIAL_TOKENS],
                                  .tokenizer_model = files[ASSET_TOKENIZER_MODEL],
                                  .vocab_json = files[ASSET_VOCAB_JSON],
                                  .merges_txt = files[ASSET_MERGES],
                                  .vocab_txt = files[ASSET_VOCAB_TXT],
                                  .added_tokens_json = files[ASSET_ADDED_TOKENS]};
    enum rc rc = tok_load(&m->tok, &tok_files, e);
    if (!rc)
        rc = parse_asset(files, ASSET_TOKENIZER_CONFIG, &config, e);
    if (!rc)
        rc = parse_asset(files, ASSET_SPECIAL_TOKENS, &map, e);
    if (!rc)
        rc = parse_asset(files, ASSET_PROCESSOR_TEMPLATE, &processor, e);
    if (!rc)
        rc = parse_asset(files, ASSET_POOLING, &pooling, e);
    if (!rc && pooling)
        rc = load_pooling(m, pooling, e);
    if (rc)
        goto out;
    CHECK((m->template_vars = json_object()));
    add_tokens(m->template_vars, config);
    add_tokens(m->template_vars, map);
    rc = model_templates_load(m, config, processor, files[ASSET_CHAT_TEMPLATE], o, e);
    if (!rc)
        rc = load_kwargs(m, o, e);
    if (!rc)
        rc = load_defaults(m, files[ASSET_GENERATION], o, e);
    if (!rc && o->tokenizer_info)
        m->tokenizer_info = api_tokenizer_info(config, m->chat_text);
    if (!rc)
        set_fingerprint(m);
out:
    json_decref(config);
    json_decref(map);
    json_decref(processor);
    json_decref(pooling);
    if (rc)
        model_info_drop(m);
    else
        *out = m;
    return rc;
}

struct model_info *model_info_hold(struct model_info *m) {
    atomic_fetch_add_explicit(&m->n_refs, 1, memory_order_relaxed);
    return m;
}

void model_info_drop(struct model_info *m) {
    if (!m || atomic_fetch_sub_explicit(&m->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    tok_free(m->tok);
    tmpl_free(m->chat.t);
    tmpl_free(m->chat_tools.t);
    tmpl_cache_free(m->templates);
    pooling_free(m->pooling);
    free(m->chat_text);
    free(m->tokenizer_info);
    json_decref(m->template_vars);
    json_decref(m->default_kwargs);
    facts_fini(&m->facts);
    free(m);
}

bool model_info_serves(const struct model_info *m, struct str name) {
    for (size_t i = 0; i < m->facts.n_names; i++)
        if (str_eqz(name, m->facts.names[i]))
            return true;
    return false;
}
