/* tok_fallback.c: folders without tokenizer.json: what the file would be, from tokenizer.model, from
 * vocab.json and merges.txt, or from vocab.txt, with what the side files say. As transformers converts them.
 */
#include "common/text/tok_fallback.h"

#include "common/text/split.h"
#include "common/text/tok_draft.h"
#include "common/text/tok_impl.h"
#include "common/utf8.h"

#include <stdlib.h>

/* ---- added tokens ---- */

static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

static bool is_added(const struct draft *d, const char *content) {
    for (size_t i = 0; i < json_array_size(d->added); i++) {
        const char *s = json_string_value(json_object_get(json_array_get(d->added, i), "content"));
        if (s && strcmp(s, content) == 0)
            return true;
    }
    return false;
}

/* A token of a list, to be sorted. */
struct listed {
    long id;
    json_t *v;
    const char *key;
};

static int by_id(const void *a, const void *b) {
    const struct listed *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* fill: what an entry leaves out is as AddedToken of transformers has it. */
static void fill(json_t *entry) {
    static const char *const flags[] = {"special", "single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (!json_object_get(entry, flags[i]))
            draft_set(entry, flags[i], json_false());
    if (!json_object_get(entry, "normalized"))
        draft_set(entry, "normalized", json_boolean(!json_is_true(json_object_get(entry, "special"))));
}

/* add_listed: added_tokens_decoder of the config, in order of id. */
static void add_listed(struct draft *d) {
    json_t *list = json_object_get(d->config, "added_tokens_decoder"), *v;
    const char *key;
    struct listed *entries = xcalloc(json_object_size(list) + 1, sizeof *entries);
    size_t n = 0;
    json_object_foreach(list, key, v) entries[n++] = (struct listed){strtol(key, NULL, 10), v, key};
    qsort(entries, n, sizeof *entries, by_id);
    for (size_t i = 0; i < n; i++) {
        json_t *copy = json_deep_copy(entries[i].v);
        if (json_is_object(copy)) {
            draft_set(copy, "id", json_integer(entries[i].id));
            fill(copy);
            draft_push(d->added, copy);
        } else {
            json_decref(copy);
        }
    }
    free(entries);
}

/* is_special: whether one of the side files names it among the special tokens. */
static bool is_special(const struct draft *d, const char *content) {
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    const json_t *files[] = {d->config, d->map};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *s = draft_named(d, names[i], NULL);
        if (s && strcmp(s, content) == 0)
            return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(files) * ARRAY_LEN(lists); i++) {
        const json_t *list = json_object_get(files[i / ARRAY_LEN(lists)], lists[i % ARRAY_LEN(lists)]);
        for (size_t k = 0; k < json_array_size(list); k++) {
            const json_t *v = json_array_get(list, k);
            const char *s = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
            if (s && strcmp(s, content) == 0)
                return true;
        }
    }
    return false;
}

/* add_old: added_tokens.json, an object from token to id, in order of id. */
static enum rc add_old(struct draft *d, struct str file, struct err *e) {
    json_t *root = tok_json(file, TOK_SIDE_JSON_BYTES_MAX, "added_tokens.json", e), *v;
    const char *key;
    enum rc rc = RC_OK;
    size_t n = 0;
    if (!root)
        return RC_INVALID;
    struct listed *entries = xcalloc(json_object_size(root) + 1, sizeof *entries);
    json_object_foreach(root, key, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > TOK_ID_MAX || !*key) {
            rc = err_set(e, RC_INVALID, NULL, "added_tokens.json: \"%.40s\" must have an id from 0 to %d", key,
                         TOK_ID_MAX);
            goto out;
        }
        entries[n++] = (struct listed){(long)json_integer_value(v), NULL, key};
    }
    qsort(entries, n, sizeof *entries, by_id);
    for (size_t i = 0; i < n; i++) {
        bool special = is_special(d, entries[i].key);
        if (is_added(d, entries[i].key))
            continue;
        draft_add(d, entries[i].id, draft_textz(entries[i].key), special);
        draft_set(json_array_get(d->added, json_array_size(d->added) - 1), "normalized", json_boolean(!special));
    }
out:
    free(entries);
    json_decref(root);
    return rc;
}

/* add_named: the special tokens of the side files that are in the vocabulary and not added yet. */
static void add_named(struct draft *d) {
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *s = draft_named(d, names[i], i < 3 ? d->end : NULL);
        if (s && draft_id_of(d, s) >= 0 && !is_added(d, s))
            draft_add(d, draft_id_of(d, s), draft_textz(s), true);
    }
}

/* ---- vocab.json with merges.txt, vocab.txt ---- */

/* line_next: the next line without its end; false at the end of the text. */
static bool line_next(struct str *rest, struct str *line) {
    if (rest->n == 0)
        return false;
    const char *nl = memchr(rest->p, '\n', rest->n);
    size_t n = nl ? (size_t)(nl - rest->p) : rest->n;
    *line = (struct str){rest->p, n};
    rest->p += n + (nl != NULL);
    rest->n -= n + (nl != NULL);
    while (line->n && (line->p[line->n - 1] == '\r'))
        line->n--;
    return true;
}

static enum rc from_vocab_json(struct draft *d, const struct tok_files *files, struct err *e) {
    struct str rest = files->merges_txt, line;
    json_t *merges = json_array(), *pre = draft_part("ByteLevel"), *split;
    bool qwen = draft_is_class(d, "Qwen2");
    d->end = draft_is_class(d, "GPT2") || !json_object_get(d->config, "tokenizer_class") ? "<|endoftext|>" : NULL;
    draft_set(d->model, "type", draft_textz("BPE"));
    draft_set(d->model, "merges", merges);
    if (!utf8_valid(rest.p, rest.n)) {
        json_decref(pre);
        return err_set(e, RC_INVALID, NULL, "merges.txt: not UTF-8");
    }
    while (line_next(&rest, &line))
        if (line.n && !str_starts(line, STR_LIT("#version")))
            draft_push(merges, draft_text(line));
    d->vocab = tok_json(files->vocab_json, TOK_JSON_BYTES_MAX, "vocab.json", e);
    d->ids = json_incref(d->vocab);
    draft_set(pre, "add_prefix_space", json_boolean(draft_flag(d, "add_prefix_space", false)));
    draft_set(pre, "use_regex", json_boolean(!qwen));
    draft_set(d->root, "decoder", draft_part("ByteLevel"));
    if (!d->vocab) {
        json_decref(pre);
        return RC_INVALID;
    }
    if (qwen) {
        json_t *steps = draft_sequence("pretokenizers"), *pattern = json_object();
        draft_set(d->root, "normalizer", draft_part("NFC"));
        split = draft_part("Split");
        draft_set(pattern, "Regex", draft_textz(split_pattern_qwen2));
        draft_set(split, "pattern", pattern);
        draft_set(split, "behavior", draft_textz("Isolated"));
        draft_push(json_object_get(steps, "pretokenizers"), split);
        draft_push(json_object_get(steps, "pretokenizers"), pre);
        pre = steps;
    }
    draft_set(d->root, "pre_tokenizer", pre);
    if (draft_is_class(d, "Roberta") || draft_is_class(d, "Bart") || draft_is_class(d, "Longformer"))
        draft_put_template(d, draft_named(d, "cls_token", "<s>"), draft_named(d, "sep_token", "</s>"),
                     draft_named(d, "sep_token", "</s>"), 0);
    else
        draft_put_bos_eos(d, false, false);
    return RC_OK;
}

static enum rc from_vocab_txt(struct draft *d, const struct tok_files *files, struct err *e) {
    struct str rest = files->vocab_txt, line;
    json_t *norm = draft_part("BertNormalizer"), *dec = draft_part("WordPiece");
    json_t *accents = json_object_get(d->config, "strip_accents");
    draft_set(d->root, "decoder", dec);
    draft_set(d->root, "normalizer", norm);
    if (!utf8_valid(rest.p, rest.n))
        return err_set(e, RC_INVALID, NULL, "vocab.txt: not UTF-8");
    d->vocab = json_object();
    d->ids = json_incref(d->vocab);
    for (json_int_t id = 0; line_next(&rest, &line); id++) {
        while (line.n && (line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\t'))
            line.n--;
        if (line.n)
            CHECK(json_object_setn_new(d->vocab, line.p, line.n, json_integer(id)) == 0);
    }
    draft_set(d->model, "type", draft_textz("WordPiece"));
    draft_set(d->model, "unk_token", draft_textz(draft_named(d, "unk_token", "[UNK]")));
    draft_set(d->model, "continuing_subword_prefix", draft_textz("##"));
    draft_set(norm, "clean_text", json_true());
    draft_set(norm, "handle_chinese_chars", json_boolean(draft_flag(d, "tokenize_chinese_chars", true)));
    draft_set(norm, "strip_accents", json_is_boolean(accents) ? json_incref(accents) : json_null());
    draft_set(norm, "lowercase", json_boolean(draft_flag(d, "do_lower_case", true)));
    draft_set(d->root, "pre_tokenizer", draft_part("BertPreTokenizer"));
    draft_set(dec, "prefix", draft_textz("##"));
    draft_put_template(d, draft_named(d, "cls_token", "[CLS]"), draft_named(d, "sep_token", "[SEP]"), NULL, 1);
    return RC_OK;
}

json_t *tok_fallback(const struct tok_files *files, struct err *e) {
    struct draft d = {.added = json_array(), .model = json_object(), .root = json_object()};
    json_t *root = NULL;
    enum rc rc = RC_OK;
    if (files->tokenizer_config_json.n)
        d.config =
            tok_json(files->tokenizer_config_json, TOK_SIDE_JSON_BYTES_MAX, "tokenizer_config.json", e);
    else
        d.config = json_object();
    d.map = files->special_tokens_map_json.n ? tok_json(files->special_tokens_map_json, TOK_SIDE_JSON_BYTES_MAX,
                                                         "special_tokens_map.json", e)
                                             : json_object();
    if (!d.config || !d.map)
        goto out;
    if (files->tokenizer_model.n)
        rc = draft_from_spm(&d, files->tokenizer_model, e);
    else if (files->vocab_json.n && files->merges_txt.n)
        rc = from_vocab_json(&d, files, e);
    else if (files->vocab_txt.n)
        rc = from_vocab_txt(&d, files, e);
    else
        rc = err_set(
            e, RC_INVALID, NULL,
            "the model has no tokenizer.json, tokenizer.model, vocab.json with merges.txt, or vocab.txt");
    if (rc)
        goto out;
    if (json_object_size(json_object_get(d.config, "added_tokens_decoder"))) {
        json_array_clear(d.added);
        add_listed(&d);
    } else if (files->added_tokens_json.n && (rc = add_old(&d, files->added_tokens_json, e))) {
        goto out;
    }
    add_named(&d);
    draft_set(d.model, "vocab", json_incref(d.vocab));
    draft_set(d.root, "model", json_incref(d.model));
    draft_set(d.root, "added_tokens", json_incref(d.added));
    root = json_incref(d.root);
out:
    json_decref(d.config);
    json_decref(d.map);
    json_decref(d.vocab);
    json_decref(d.ids);
    json_decref(d.model);
    json_decref(d.added);
    json_decref(d.root);
    return root;
}
