/* tok_fallback.c: folders without tokenizer.json: what the file would be, from tokenizer.model, from
 * vocab.json and merges.txt, or from vocab.txt, with what tokenizer_config.json says. As transformers
 * converts them.
 */
#include "common/text/tok_fallback.h"

#include "common/text/idmap.h"
#include "common/text/spm.h"
#include "common/text/tok_impl.h"
#include "common/utf8.h"

#include <stdlib.h>

#define META "\xE2\x96\x81"

/* What is being put together. */
struct draft {
    json_t *config; /* tokenizer_config.json, or empty */
    json_t *map;    /* special_tokens_map.json, or empty */
    const char *end; /* what GPT-2 takes for the tokens that nothing names; else NULL */
    json_t *vocab;  /* object from token to id; of Unigram, list of [token, score] */
    json_t *ids;    /* the former in both cases; borrowed where it is vocab */
    json_t *model, *added, *root;
};

static json_t *text(struct str s) {
    json_t *v = json_stringn(s.p ? s.p : "", s.n);
    CHECK(v); /* UTF-8 was checked */
    return v;
}

static json_t *textz(const char *z) {
    return text(str_of(z));
}

static void set(json_t *object, const char *key, json_t *v) {
    CHECK(v && json_object_set_new(object, key, v) == 0);
}

static void push(json_t *list, json_t *v) {
    CHECK(v && json_array_append_new(list, v) == 0);
}

/* part: an object with a type. */
static json_t *part(const char *type) {
    json_t *v = json_object();
    set(v, "type", textz(type));
    return v;
}

static json_t *sequence(const char *key) {
    json_t *v = part("Sequence");
    set(v, key, json_array());
    return v;
}

static json_t *replace_part(const char *kind, const char *pattern, const char *content) {
    json_t *v = part("Replace"), *p = json_object();
    set(p, kind, textz(pattern));
    set(v, "pattern", p);
    set(v, "content", textz(content));
    return v;
}

/* ---- tokenizer_config.json ---- */

static bool config_flag(const struct draft *d, const char *key, bool fallback) {
    const json_t *v = json_object_get(d->config, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static bool is_class(const struct draft *d, const char *prefix) {
    const char *class = json_string_value(json_object_get(d->config, "tokenizer_class"));
    return class && strncmp(class, prefix, strlen(prefix)) == 0;
}

/* named: the text of bos_token and the like: a string or an object with content. */
static const char *named(const struct draft *d, const char *key, const char *fallback) {
    const json_t *files[] = {d->config, d->map};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        const json_t *v = json_object_get(files[i], key);
        if (json_is_object(v))
            v = json_object_get(v, "content");
        const char *s = json_string_value(v);
        if (s && *s)
            return s;
    }
    return fallback;
}

static json_int_t id_of(const struct draft *d, const char *token) {
    const json_t *id = token ? json_object_get(d->ids, token) : NULL;
    return id ? json_integer_value(id) : -1;
}

/* ---- added tokens ---- */

static bool is_added(const struct draft *d, const char *content) {
    for (size_t i = 0; i < json_array_size(d->added); i++) {
        const char *s = json_string_value(json_object_get(json_array_get(d->added, i), "content"));
        if (s && strcmp(s, content) == 0)
            return true;
    }
    return false;
}

static void add_token(struct draft *d, json_int_t id, json_t *content, bool special) {
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    json_t *v = json_object();
    set(v, "id", json_integer(id));
    set(v, "content", content);
    set(v, "special", json_boolean(special));
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        set(v, flags[i], json_false());
    push(d->added, v);
}

struct listed {
    long id;
    json_t *v;
};

static int by_id(const void *a, const void *b) {
    const struct listed *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* add_listed: added_tokens_decoder of the config, in order of id. */
static void add_listed(struct draft *d) {
    json_t *list = json_object_get(d->config, "added_tokens_decoder"), *v;
    const char *key;
    struct listed *entries = xcalloc(json_object_size(list) + 1, sizeof *entries);
    size_t n = 0;
    json_object_foreach(list, key, v) entries[n++] = (struct listed){strtol(key, NULL, 10), v};
    qsort(entries, n, sizeof *entries, by_id);
    for (size_t i = 0; i < n; i++) {
        json_t *copy = json_deep_copy(entries[i].v);
        if (json_is_object(copy)) {
            set(copy, "id", json_integer(entries[i].id));
            push(d->added, copy);
        } else {
            json_decref(copy);
        }
    }
    free(entries);
}

/* add_named: the special tokens of the side files that are in the vocabulary and not added yet. */
static void add_named(struct draft *d) {
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const char *s = named(d, keys[i], i < 3 ? d->end : NULL);
        if (s && id_of(d, s) >= 0 && !is_added(d, s))
            add_token(d, id_of(d, s), textz(s), true);
    }
}

/* ---- templates ---- */

/* template_part: '$A', '$B' or a token, of a type. */
static void template_part(struct draft *d, json_t *list, json_t *tokens, const char *name, int type) {
    bool sequence_part = name[0] == '$';
    json_t *inner = json_object(), *outer = json_object();
    set(inner, "id", textz(sequence_part ? name + 1 : name));
    set(inner, "type_id", json_integer(type));
    set(outer, sequence_part ? "Sequence" : "SpecialToken", inner);
    push(list, outer);
    if (sequence_part)
        return;
    json_t *token = json_object(), *ids = json_array();
    push(ids, json_integer(id_of(d, name)));
    set(token, "ids", ids);
    set(tokens, name, token);
}

/* put_template: front A back, and front A back middle B back; NULL for none. */
static void put_template(struct draft *d, const char *front, const char *back, const char *middle,
                         int type_b) {
    json_t *post = part("TemplateProcessing"), *single = json_array(), *pair = json_array(),
           *tokens = json_object();
    front = id_of(d, front) >= 0 ? front : NULL;
    back = id_of(d, back) >= 0 ? back : NULL;
    middle = id_of(d, middle) >= 0 ? middle : NULL;
    for (int is_pair = 0; is_pair < 2; is_pair++) {
        json_t *list = is_pair ? pair : single;
        if (front)
            template_part(d, list, tokens, front, 0);
        template_part(d, list, tokens, "$A", 0);
        if (back)
            template_part(d, list, tokens, back, 0);
        if (!is_pair)
            continue;
        if (middle)
            template_part(d, list, tokens, middle, type_b);
        template_part(d, list, tokens, "$B", type_b);
        if (back)
            template_part(d, list, tokens, back, type_b);
    }
    set(post, "single", single);
    set(post, "pair", pair);
    set(post, "special_tokens", tokens);
    set(d->root, "post_processor", post);
}

/* put_bos_eos: as add_bos_token and add_eos_token say. */
static void put_bos_eos(struct draft *d, bool bos, bool eos) {
    const char *front = named(d, "bos_token", d->end ? d->end : "<s>");
    const char *back = named(d, "eos_token", d->end ? d->end : "</s>");
    front = config_flag(d, "add_bos_token", bos) ? front : NULL;
    back = config_flag(d, "add_eos_token", eos) ? back : NULL;
    put_template(d, front, back, front, 1);
}

/* ---- tokenizer.model ---- */

/* One way to make a piece of two. Ranked as transformers does: by falling score, then by the lengths of the
 * parts in characters, the longer first; equals by the piece's place, then by the parts' ids. */
struct way {
    float score;
    uint32_t n_left, n_right, piece, left, right;
};

static int by_rank(const void *a, const void *b) {
    const struct way *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->n_left != y->n_left)
        return x->n_left > y->n_left ? -1 : 1;
    if (x->n_right != y->n_right)
        return x->n_right > y->n_right ? -1 : 1;
    if (x->piece != y->piece)
        return x->piece < y->piece ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

/* spm_slices: the pieces as one block, for the hash table. */
static struct slices spm_slices(const struct spm *m) {
    struct slices s = {.n = m->n_pieces};
    struct buf b = {0};
    s.at = xcalloc((size_t)s.n + 1, sizeof *s.at);
    for (uint32_t i = 0; i < s.n; i++) {
        buf_add_str(&b, m->pieces[i].text);
        s.at[i + 1] = (uint32_t)b.len;
    }
    s.blob = buf_take(&b);
    return s;
}

static bool plain(const struct spm_piece *p) {
    return p->type != SPM_CONTROL && p->type != SPM_USER_DEFINED;
}

enum { PIECE_BYTES_MAX = 1024 };

/* merges_of: the merges of a BPE model: all ways to make a piece of two others. */
static json_t *merges_of(const struct spm *m) {
    struct slices s = spm_slices(m);
    struct idmap map;
    struct way *ways = NULL;
    size_t n = 0, cap = 0;
    idmap_init(&map, m->n_pieces);
    for (uint32_t i = 0; i < m->n_pieces; i++)
        if (m->pieces[i].text.n)
            (void)idmap_put(&map, &s, i);
    for (uint32_t i = 0; i < m->n_pieces; i++) {
        struct str t = m->pieces[i].text;
        uint32_t n_chars = (uint32_t)utf8_count(t.p, t.n), n_left = 0;
        for (size_t at = 1; at < t.n && plain(&m->pieces[i]); at++) {
            uint32_t left, right;
            if (((uint8_t)t.p[at] & 0xC0) == 0x80)
                continue;
            n_left++;
            if (!idmap_find(&map, &s, (struct str){t.p, at}, &left) ||
                !idmap_find(&map, &s, (struct str){t.p + at, t.n - at}, &right) || !plain(&m->pieces[left]) ||
                !plain(&m->pieces[right]))
                continue;
            if (n == cap) {
                cap = MAX(cap * 2, (size_t)4096);
                ways = xreallocarray(ways, cap, sizeof *ways);
            }
            ways[n++] = (struct way){m->pieces[i].score, n_left, n_chars - n_left, i, left, right};
        }
    }
    if (n)
        qsort(ways, n, sizeof *ways, by_rank);
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *pair = json_array();
        push(pair, text(m->pieces[ways[i].left].text));
        push(pair, text(m->pieces[ways[i].right].text));
        push(out, pair);
    }
    free(ways);
    idmap_fini(&map);
    slices_fini(&s);
    return out;
}

static char *base64(struct str s) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf b = {0};
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t word = 0;
        size_t n = MIN(s.n - i, (size_t)3);
        for (size_t k = 0; k < 3; k++)
            word = word << 8 | (k < n ? (uint8_t)s.p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            buf_addc(&b, k <= n ? digits[word >> (18 - 6 * k) & 63] : '=');
    }
    return buf_take(&b);
}

static json_t *charsmap_part(struct str charsmap) {
    json_t *v = part("Precompiled");
    char *blob = base64(charsmap);
    set(v, "precompiled_charsmap", textz(blob));
    free(blob);
    return v;
}

static void put_spm_normalizer(struct draft *d, const struct spm *m, bool bpe) {
    json_t *norm = sequence("normalizers"), *list = json_object_get(norm, "normalizers");
    if (m->charsmap.n)
        push(list, charsmap_part(m->charsmap));
    if (m->no_extra_spaces) {
        json_t *strip = part("Strip");
        set(strip, "strip_left", json_boolean(bpe));
        set(strip, "strip_right", json_true());
        push(list, strip);
        push(list, replace_part("Regex", " {2,}", bpe ? " " : META));
    }
    if (bpe && m->dummy_prefix) {
        json_t *prepend = part("Prepend");
        set(prepend, "prepend", textz(META));
        push(list, prepend);
    }
    if (bpe)
        push(list, replace_part("String", " ", META));
    set(d->root, "normalizer", norm);
}

static json_t *metaspace_part(const struct spm *m) {
    json_t *v = part("Metaspace");
    set(v, "replacement", textz(META));
    set(v, "prepend_scheme", textz(m->dummy_prefix ? "always" : "never"));
    return v;
}

static void put_spm_decoder(struct draft *d, const struct spm *m) {
    json_t *dec = sequence("decoders"), *list = json_object_get(dec, "decoders"), *strip = part("Strip");
    push(list, replace_part("String", META, " "));
    push(list, part("ByteFallback"));
    push(list, part("Fuse"));
    set(strip, "content", textz(" "));
    set(strip, "start", json_integer(1));
    set(strip, "stop", json_integer(0));
    if (m->dummy_prefix)
        push(list, strip);
    else
        json_decref(strip);
    set(d->root, "decoder", dec);
}

/* spm_vocab: ids are places in the file, but for XLM-RoBERTa, whose first four tokens are others. */
static void spm_vocab(struct draft *d, const struct spm *m, bool bpe) {
    static const char *const fairseq[] = {"<s>", "<pad>", "</s>", "<unk>"};
    bool moved = !bpe && (is_class(d, "XLMRoberta") || is_class(d, "XLMR"));
    uint32_t first = moved ? 3 : 0, shift = moved ? 4 : 0;
    json_int_t unk = -1;
    d->vocab = bpe ? json_object() : json_array();
    d->ids = json_object();
    for (uint32_t i = 0; i < shift + m->n_pieces - MIN(first, m->n_pieces) + moved; i++) {
        uint32_t at = i - shift + first;
        struct spm_piece special = {.text = str_of(i < shift ? fairseq[i] : "<mask>"), .type = SPM_CONTROL};
        bool own = i >= shift && at < m->n_pieces;
        const struct spm_piece *p = own ? &m->pieces[at] : &special;
        json_int_t id = (json_int_t)i;
        if (p->type == SPM_UNKNOWN || (moved && i == 3))
            unk = unk < 0 ? id : unk;
        if (!bpe) {
            json_t *entry = json_array();
            push(entry, text(p->text));
            push(entry, json_real((double)p->score));
            push(d->vocab, entry);
        }
        if (p->text.n)
            CHECK(json_object_setn_new(d->ids, p->text.p, p->text.n, json_integer(id)) == 0);
        if (p->text.n && (p->type == SPM_CONTROL || p->type == SPM_USER_DEFINED || p->type == SPM_UNKNOWN))
            add_token(d, id, text(p->text), p->type != SPM_USER_DEFINED);
    }
    if (bpe)
        CHECK(json_object_update(d->vocab, d->ids) == 0);
    if (!bpe)
        set(d->model, "unk_id", unk < 0 ? json_null() : json_integer(unk));
    else if (unk >= 0)
        set(d->model, "unk_token", text(m->pieces[unk].text));
}

static enum rc from_spm(struct draft *d, struct str file, struct err *e) {
    struct spm m;
    enum rc rc = spm_read(&m, file, e);
    if (rc)
        return rc;
    bool bpe = m.kind == SPM_BPE;
    for (uint32_t i = 0; bpe && i < m.n_pieces && !rc; i++)
        if (m.pieces[i].text.n > PIECE_BYTES_MAX)
            rc = err_set(e, RC_INVALID, NULL, "tokenizer.model: piece %u of %zu bytes, the limit is %d", i,
                         m.pieces[i].text.n, PIECE_BYTES_MAX);
    if (!rc && !bpe && m.kind != SPM_UNIGRAM)
        rc = err_set(e, RC_UNSUPPORTED, NULL,
                     "tokenizer.model: model type %u is not supported, only BPE and Unigram", m.kind);
    if (rc)
        goto out;
    set(d->model, "type", textz(bpe ? "BPE" : "Unigram"));
    set(d->model, "byte_fallback", json_boolean(m.byte_fallback));
    spm_vocab(d, &m, bpe);
    put_spm_normalizer(d, &m, bpe);
    if (bpe) {
        set(d->model, "fuse_unk", json_true());
        set(d->model, "merges", merges_of(&m));
        put_spm_decoder(d, &m);
    } else {
        set(d->root, "pre_tokenizer", metaspace_part(&m));
        set(d->root, "decoder", metaspace_part(&m));
    }
    if (is_class(d, "T5"))
        put_template(d, NULL, named(d, "eos_token", "</s>"), NULL, 0);
    else if (is_class(d, "XLMR"))
        put_template(d, "<s>", "</s>", "</s>", 0);
    else
        put_bos_eos(d, bpe, false);
out:
    spm_fini(&m);
    return rc;
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
    json_t *merges = json_array(), *pre = part("ByteLevel"), *split;
    bool qwen = is_class(d, "Qwen2");
    d->end = is_class(d, "GPT2") || !json_object_get(d->config, "tokenizer_class") ? "<|endoftext|>" : NULL;
    set(d->model, "type", textz("BPE"));
    set(d->model, "merges", merges);
    if (!utf8_valid(rest.p, rest.n)) {
        json_decref(pre);
        return err_set(e, RC_INVALID, NULL, "merges.txt: not UTF-8");
    }
    while (line_next(&rest, &line))
        if (line.n && !str_starts(line, STR_LIT("#version")))
            push(merges, text(line));
    d->vocab = tok_json(files->vocab_json, TOK_JSON_BYTES_MAX, "vocab.json", e);
    d->ids = json_incref(d->vocab);
    set(pre, "add_prefix_space", json_boolean(config_flag(d, "add_prefix_space", false)));
    set(pre, "use_regex", json_boolean(!qwen));
    set(d->root, "decoder", part("ByteLevel"));
    if (!d->vocab) {
        json_decref(pre);
        return RC_INVALID;
    }
    if (qwen) {
        json_t *steps = sequence("pretokenizers"), *pattern = json_object();
        set(d->root, "normalizer", part("NFC"));
        split = part("Split");
        set(pattern, "Regex", textz(split_pattern_qwen2));
        set(split, "pattern", pattern);
        set(split, "behavior", textz("Isolated"));
        push(json_object_get(steps, "pretokenizers"), split);
        push(json_object_get(steps, "pretokenizers"), pre);
        pre = steps;
    }
    set(d->root, "pre_tokenizer", pre);
    if (is_class(d, "Roberta") || is_class(d, "Bart") || is_class(d, "Longformer"))
        put_template(d, named(d, "cls_token", "<s>"), named(d, "sep_token", "</s>"),
                     named(d, "sep_token", "</s>"), 0);
    else
        put_bos_eos(d, false, false);
    return RC_OK;
}

static enum rc from_vocab_txt(struct draft *d, const struct tok_files *files, struct err *e) {
    struct str rest = files->vocab_txt, line;
    json_t *norm = part("BertNormalizer"), *dec = part("WordPiece");
    json_t *accents = json_object_get(d->config, "strip_accents");
    set(d->root, "decoder", dec);
    set(d->root, "normalizer", norm);
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
    set(d->model, "type", textz("WordPiece"));
    set(d->model, "unk_token", textz(named(d, "unk_token", "[UNK]")));
    set(d->model, "continuing_subword_prefix", textz("##"));
    set(norm, "clean_text", json_true());
    set(norm, "handle_chinese_chars", json_boolean(config_flag(d, "tokenize_chinese_chars", true)));
    set(norm, "strip_accents", json_is_boolean(accents) ? json_incref(accents) : json_null());
    set(norm, "lowercase", json_boolean(config_flag(d, "do_lower_case", true)));
    set(d->root, "pre_tokenizer", part("BertPreTokenizer"));
    set(dec, "prefix", textz("##"));
    put_template(d, named(d, "cls_token", "[CLS]"), named(d, "sep_token", "[SEP]"), NULL, 1);
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
        rc = from_spm(&d, files->tokenizer_model, e);
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
    }
    add_named(&d);
    set(d.model, "vocab", json_incref(d.vocab));
    set(d.root, "model", json_incref(d.model));
    set(d.root, "added_tokens", json_incref(d.added));
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
