/* tok_wordpiece.c: a tokenizer.json model of type WordPiece: the longest token a word starts with, then the
 * longest that continues it, and so on; a word that cannot be covered is one unknown token.
 */
#include "common/text/tok_impl.h"
#include "common/text/trie.h"

#include <stdlib.h>

struct wordpiece {
    const struct tok *t;
    struct trie trie;
    uint32_t within; /* the node behind the continuing prefix; TRIE_NONE: no token continues a word */
    uint32_t unk_id;
    size_t n_chars_max;
};

/* longest: the end of the longest token at p[at], found from node on; at if there is none. */
static size_t longest(const struct wordpiece *m, uint32_t node, const char *p, size_t at, size_t n,
                      bool plain, uint32_t *id) {
    const struct trie *t = &m->trie;
    size_t end = at;
    for (size_t i = at; i < n && trie_step(t, &node, (uint8_t)p[i]); i++) {
        uint32_t value = t->nodes[node].value;
        if (value == TRIE_NONE || (plain && tok_is_special(m->t, value)))
            continue;
        *id = value;
        end = i + 1;
    }
    return end;
}

static bool too_long(const struct wordpiece *m, const char *p, size_t n) {
    size_t n_chars = 0;
    if (n <= m->n_chars_max)
        return false;
    for (size_t i = 0; i < n; i++)
        n_chars += ((uint8_t)p[i] & 0xC0) != 0x80;
    return n_chars > m->n_chars_max;
}

static void encode(const struct wordpiece *m, const char *p, size_t n, bool plain, struct tok_ids *out) {
    size_t n_before = out->n;
    bool bad = too_long(m, p, n);
    for (size_t at = 0, end; at < n && !bad; at = end) {
        uint32_t node = at ? m->within : 0, id = 0;
        end = node == TRIE_NONE ? at : longest(m, node, p, at, n, plain, &id);
        bad = end == at;
        if (!bad)
            tok_ids_push(out, id);
    }
    if (bad) {
        out->n = n_before;
        tok_ids_push(out, m->unk_id);
    }
}

static void model_encode(const void *self, const char *p, size_t n, struct tok_ids *out) {
    encode(self, p, n, false, out);
}

static void model_encode_plain(const void *self, const char *p, size_t n, struct tok_ids *out) {
    encode(self, p, n, true, out);
}

static void model_free(void *self) {
    struct wordpiece *m = self;
    trie_fini(&m->trie);
    free(m);
}

static const struct tok_model_ops wordpiece_ops = {model_encode, model_encode_plain, model_free};

static void fill(struct wordpiece *m, const struct tok *t, const bool *in_vocab, struct str prefix) {
    struct trie_entry *entries = xreallocarray(NULL, t->pieces.n, sizeof *entries);
    uint32_t n = 0;
    for (uint32_t id = 0; id < t->pieces.n; id++)
        if (in_vocab[id])
            entries[n++] = (struct trie_entry){slices_get(&t->pieces, id), id};
    trie_init(&m->trie, entries, n);
    free(entries);
    m->within = 0;
    for (size_t i = 0; i < prefix.n; i++)
        if (!trie_step(&m->trie, &m->within, (uint8_t)prefix.p[i])) {
            m->within = TRIE_NONE;
            break;
        }
}

enum rc tok_load_wordpiece(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e) {
    const json_t *max = json_object_get(model, "max_input_chars_per_word");
    struct str unk, prefix = STR_LIT("##");
    uint32_t unk_id;
    enum rc rc;
    if ((rc = tok_text(model, "unk_token", "model", 1, &unk, e)) ||
        (json_object_get(model, "continuing_subword_prefix") &&
         (rc = tok_text(model, "continuing_subword_prefix", "model", 0, &prefix, e))))
        return rc;
    if (max && (!json_is_integer(max) || json_integer_value(max) < 0))
        return tok_bad(e, "model.max_input_chars_per_word", "must be a number from 0");
    if (!tok_find(t, unk, &unk_id) || !in_vocab[unk_id])
        return tok_bad(e, "model.unk_token", "\"%.40s\" is not in model.vocab", unk.p);
    struct wordpiece *m = xcalloc(1, sizeof *m);
    m->t = t;
    m->unk_id = unk_id;
    m->n_chars_max = max ? (size_t)json_integer_value(max) : 100;
    fill(m, t, in_vocab, prefix);
    t->model = m;
    t->ops = &wordpiece_ops;
    return RC_OK;
}
