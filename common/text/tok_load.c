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

static enum rc load_model(struct tok *t, const json_t *root, const bool *in_vocab, struct err *e) {
    const json_t *model = json_object_get(root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type) /* files of before 2020 leave it out */
        type = json_object_get(model, "merges") ? "BPE" : "(none)";
    if (strcmp(type, "BPE") != 0)
        return tok_unsupported(e, "model.type", "\"%.40s\" is not supported, only byte-level BPE", type);
    return tok_load_bpe(t, model, in_vocab, e);
}

enum rc tok_load(struct tok **out, const struct tok_files *files, struct err *e) {
    struct tok *t = xcalloc(1, sizeof *t);
    bool *in_vocab = NULL;
    enum rc rc = RC_INVALID;
    json_t *root = tok_json(files->tokenizer_json, TOK_JSON_BYTES_MAX, "tokenizer.json", e);
    if (!root)
        goto out;
    if ((rc = tok_load_parts(t, root, e)) || (rc = tok_load_vocab(t, root, &in_vocab, e)) ||
        (rc = load_model(t, root, in_vocab, e)) || (rc = tok_load_post(t, root, e)) ||
        (rc = load_names(t, files, e)))
        goto out;
    *out = t;
    t = NULL;
out:
    json_decref(root);
    free(in_vocab);
    tok_free(t);
    return rc;
}

void tok_free(struct tok *t) {
    if (!t)
        return;
    if (t->ops)
        t->ops->free(t->model);
    slices_fini(&t->pieces);
    slices_fini(&t->bytes);
    idmap_fini(&t->by_piece);
    added_fini(&t->raw_added);
    added_fini(&t->norm_added);
    free(t->flags);
    free(t->norm_contents);
    free(t);
}
