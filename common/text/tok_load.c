#include "common/text/tok_fallback.h"
#include "common/text/tok_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static enum rc fail(struct err *e, enum rc rc, const char *key, const char *fmt, va_list ap) {
    char reason[400];
    vsnprintf(reason, sizeof reason, fmt, ap);
    return err_set(e, rc, key, "tokenizer.json: %s: %s", key, reason);
}

enum rc tok_bad(struct err *e, const char *key, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    enum rc rc = fail(e, RC_INVALID, key, fmt, ap);
    va_end(ap);
    return rc;
}

enum rc tok_unsupported(struct err *e, const char *key, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    enum rc rc = fail(e, RC_UNSUPPORTED, key, fmt, ap);
    va_end(ap);
    return rc;
}

json_t *tok_json(struct str text, size_t max, const char *file, struct err *e) {
    const struct json_limits limits = {.depth_max = TOK_JSON_DEPTH_MAX, .nodes_max = TOK_JSON_NODES_MAX};
    json_t *root = NULL;
    struct err why;
    if (text.n > max) {
        (void)err_set(e, RC_INVALID, NULL, "%s: %zu bytes, the limit is %zu", file, text.n, max);
        return NULL;
    }
    if (json_parse(text, &limits, &root, &why)) {
        (void)err_set(e, RC_INVALID, NULL, "%s: %s", file, why.msg);
        return NULL;
    }
    if (!json_is_object(root)) {
        (void)err_set(e, RC_INVALID, NULL, "%s: not a JSON object", file);
        json_decref(root);
        return NULL;
    }
    return root;
}

/* named_token: the id of bos_token or eos_token: a string, or an object with content. */
static bool named_token(const struct tok *t, const json_t *config, const char *key, uint32_t *id) {
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_is_string(v) && tok_find(t, (struct str){json_string_value(v), json_string_length(v)}, id);
}

/* load_names: bos and eos from the first of the two side files that names them. */
static enum rc load_names(struct tok *t, const struct tok_files *files, struct err *e) {
    const struct {
        struct str text;
        const char *name;
    } side[] = {{files->tokenizer_config_json, "tokenizer_config.json"},
                {files->special_tokens_map_json, "special_tokens_map.json"}};
    for (size_t i = 0; i < ARRAY_LEN(side); i++) {
        if (!side[i].text.n)
            continue;
        json_t *config = tok_json(side[i].text, TOK_SIDE_JSON_BYTES_MAX, side[i].name, e);
        if (!config)
            return RC_INVALID;
        if (!t->has_bos)
            t->has_bos = named_token(t, config, "bos_token", &t->bos);
        if (!t->has_eos)
            t->has_eos = named_token(t, config, "eos_token", &t->eos);
        json_decref(config);
    }
    return RC_OK;
}

/* model_type: of old files that leave it out, by what else is there. */
static const char *model_type(const json_t *model) {
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type)
        return type;
    if (json_object_get(model, "merges"))
        return "BPE";
    if (json_object_get(model, "max_input_chars_per_word"))
        return "WordPiece";
    const json_t *vocab = json_object_get(model, "vocab");
    return json_is_array(vocab) ? "Unigram" : json_is_object(vocab) ? "WordLevel" : "(none)";
}

/* vocab_object: a list of [token, score] as an object from token to id; of equal tokens the last counts, and
 * an empty one is never found. NULL with e filled if it is none. */
static json_t *vocab_object(const json_t *list, struct err *e) {
    json_t *out = json_object();
    CHECK(out);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(json_array_get(list, i), 0);
        if (!json_is_string(token)) {
            (void)tok_bad(e, "model.vocab", "entry %zu must be a token and its score", i);
            json_decref(out);
            return NULL;
        }
        size_t n = json_string_length(token);
        if (n > 0)
            CHECK(json_object_setn_new(out, json_string_value(token), n, json_integer((json_int_t)i)) == 0);
    }
    return out;
}

static enum rc load_model(struct tok *t, const json_t *root, struct err *e) {
    static const struct {
        const char *type;
        enum rc (*load)(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e);
    } kinds[] = {
        {"BPE", tok_load_bpe},
        {"WordPiece", tok_load_wordpiece},
        {"WordLevel", tok_load_wordlevel},
        {"Unigram", tok_load_unigram},
    };
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    json_t *vocab = json_object_get(model, "vocab"), *object;
    const char *type = model_type(model);
    size_t kind = 0;
    bool *in_vocab = NULL;
    while (kind < ARRAY_LEN(kinds) && strcmp(type, kinds[kind].type) != 0)
        kind++;
    if (kind == ARRAY_LEN(kinds))
        return tok_unsupported(e, "model.type", "\"%.40s\" is not supported", type);
    enum rc rc = RC_OK;
    if (strcmp(type, "BPE") != 0)
        rc = tok_pre_in_letters(t, e); /* only BPE takes bytes */
    if (rc)
        return rc;
    bool list = strcmp(type, "Unigram") == 0;
    if (list && (!json_is_array(vocab) || json_array_size(vocab) > TOK_ID_MAX))
        return tok_bad(e, "model.vocab", "must be an array of at most %d", TOK_ID_MAX);
    if (!(object = list ? vocab_object(vocab, e) : json_incref(vocab)))
        return list ? RC_INVALID : tok_bad(e, "model.vocab", "is missing");
    size_t n_vocab = list ? json_array_size(vocab) : json_object_size(vocab);
    rc = tok_load_vocab(t, object, n_vocab, added, &in_vocab, e);
    json_decref(object);
    if (!rc)
        rc = kinds[kind].load(t, model, in_vocab, e);
    free(in_vocab);
    return rc;
}

static bool has_fallback(const struct tok_files *files) {
    return files->tokenizer_model.n || files->vocab_json.n || files->vocab_txt.n;
}

enum rc tok_load(struct tok **out, const struct tok_files *files, struct err *e) {
    struct tok *t = xcalloc(1, sizeof *t);
    enum rc rc = RC_INVALID;
    json_t *root = files->tokenizer_json.n || !has_fallback(files)
                       ? tok_json(files->tokenizer_json, TOK_JSON_BYTES_MAX, "tokenizer.json", e)
                       : tok_fallback(files, e);
    if (!root) {
        rc = e ? e->rc : RC_INVALID;
        goto out;
    }
    if ((rc = tok_load_norm(t, json_object_get(root, "normalizer"), e)) ||
        (rc = tok_load_pre(t, json_object_get(root, "pre_tokenizer"), e)) ||
        (rc = tok_load_dec(t, json_object_get(root, "decoder"), e)) || (rc = load_model(t, root, e)) ||
        (rc = tok_load_post(t, json_object_get(root, "post_processor"), e)) || (rc = load_names(t, files, e)))
        goto out;
    *out = t;
    t = NULL;
out:
    json_decref(root);
    tok_free(t);
    return rc;
}

void tok_free(struct tok *t) {
    if (!t)
        return;
    if (t->model)
        t->ops->free(t->model);
    norm_fini(&t->norm);
    pre_fini(&t->pre);
    dec_fini(&t->dec);
    slices_fini(&t->pieces);
    slices_fini(&t->bytes);
    slices_fini(&t->shown);
    idmap_fini(&t->by_piece);
    added_fini(&t->raw_added);
    added_fini(&t->norm_added);
    free(t->flags);
    free(t->norm_contents);
    free(t);
}
