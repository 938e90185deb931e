/* tok_unigram.c: a tokenizer.json model of type Unigram: of all ways to cut a text into tokens the one with
 * the highest sum of scores (Viterbi), ties to the one found first, in doubles as Hugging Face adds them.
 */
#include "common/text/tok_impl.h"
#include "common/text/trie.h"
#include "common/text/uni.h"

#include <stdlib.h>

/* Between tokens: NONE, nothing ends here yet; UNK_CHAR, one character that is no token. */
enum { NONE = UINT32_MAX, UNK_CHAR = UINT32_MAX - 1, STACK_N_MAX = 256, RING_MIN = 8 };
#define UNK_PENALTY 10.0

struct unigram {
    const struct tok *t;
    struct trie trie;
    double *scores; /* [n_ids] */
    bool *whole;    /* [n_ids] this token's text is cut into it alone */
    double unk_score;
    uint32_t unk_id; /* NONE: what is unknown vanishes */
    bool byte_fallback;
    uint32_t byte_id[256]; /* NONE: no such token */
    size_t token_n_max;    /* bytes of the longest token */
};

/* ---- encoding ---- */

/* find: the token that is exactly p[0 .. n). */
static uint32_t find(const struct unigram *m, const char *p, size_t n) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++)
        if (!trie_step(&m->trie, &node, (uint8_t)p[i]))
            return NONE;
    return m->trie.nodes[node].value; /* TRIE_NONE is NONE */
}

/* The best way to each place. */
struct path {
    uint32_t *last; /* [n + 1] the token it ends with */
    double *scores; /* ring of mask + 1: sums of the places that tokens from here can reach */
    size_t mask;
    bool plain; /* special tokens do not count */
};

static inline void reach(const struct path *x, size_t to, uint32_t id, double score) {
    if (x->last[to] == NONE || score > x->scores[to & x->mask]) {
        x->last[to] = id;
        x->scores[to & x->mask] = score;
    }
}

static void forward(const struct unigram *m, const char *p, size_t n, const struct path *x) {
    memset(x->last, 0xFF, (n + 1) * sizeof *x->last); /* NONE */
    x->scores[0] = 0;
    for (size_t at = 0, len; at < n; at += len) {
        double here = x->scores[at & x->mask];
        uint32_t node = 0;
        bool single = false;
        (void)uni_decode(p + at, &len);
        for (size_t i = at; i < n && trie_step(&m->trie, &node, (uint8_t)p[i]); i++) {
            uint32_t id = m->trie.nodes[node].value;
            if (id == TRIE_NONE || (x->plain && tok_is_special(m->t, id)))
                continue;
            reach(x, i + 1, id, m->scores[id] + here);
            single |= i + 1 - at == len;
        }
        if (!single)
            reach(x, at + len, UNK_CHAR, m->unk_score + here);
    }
}

/* token_begin: where the token id that ends at end begins. */
static size_t token_begin(const struct unigram *m, const char *p, size_t end, uint32_t id) {
    return id == UNK_CHAR ? uni_prev(p, end) : end - slices_get(&m->t->pieces, id).n;
}

/* turn: makes last[at] the token that begins at at, along the best path. */
static void turn(const struct unigram *m, const char *p, size_t n, uint32_t *last) {
    uint32_t id = last[n];
    for (size_t end = n; end > 0;) {
        size_t begin = token_begin(m, p, end, id);
        uint32_t before = last[begin];
        last[begin] = id;
        id = before;
        end = begin;
    }
}

/* put_unknown: a run of unknown characters, which may be spelled in the vocabulary all the same. */
static void put_unknown(const struct unigram *m, const char *p, size_t n, bool plain, struct tok_ids *out) {
    uint32_t id = find(m, p, n);
    if (plain && id != NONE && tok_is_special(m->t, id))
        id = NONE;
    bool bytes = m->byte_fallback && id == NONE;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = m->byte_id[(uint8_t)p[i]] != NONE;
    if (bytes)
        for (size_t i = 0; i < n; i++)
            tok_ids_push(out, m->byte_id[(uint8_t)p[i]]);
    else if (id != NONE || m->unk_id != NONE)
        tok_ids_push(out, id != NONE ? id : m->unk_id);
}

static void put_path(const struct unigram *m, const char *p, size_t n, const struct path *x,
                     struct tok_ids *out) {
    const uint32_t *first = x->last;
    for (size_t at = 0, len; at < n;) {
        size_t begin = at;
        while (at < n && (first[at] == UNK_CHAR || first[at] == m->unk_id)) {
            if (first[at] == UNK_CHAR)
                (void)uni_decode(p + at, &len);
            else
                len = slices_get(&m->t->pieces, first[at]).n;
            at += len;
        }
        if (at > begin) {
            put_unknown(m, p + begin, at - begin, x->plain, out);
        } else {
            tok_ids_push(out, first[at]);
            at += slices_get(&m->t->pieces, first[at]).n;
        }
    }
}

static void encode_path(const struct unigram *m, const char *p, size_t n, bool plain, struct tok_ids *out) {
    uint32_t few[STACK_N_MAX + 1];
    double few_scores[STACK_N_MAX * 2];
    size_t n_ring = RING_MIN;
    while (n_ring <= MIN(n, m->token_n_max))
        n_ring *= 2;
    bool small = n <= STACK_N_MAX;
    struct path x = {.last = few, .scores = few_scores, .mask = n_ring - 1, .plain = plain};
    if (!small) {
        x.last = xreallocarray(NULL, n + 1, sizeof *x.last);
        x.scores = xreallocarray(NULL, n_ring, sizeof *x.scores);
    }
    forward(m, p, n, &x);
    turn(m, p, n, x.last);
    put_path(m, p, n, &x, out);
    if (!small) {
        free(x.last);
        free(x.scores);
    }
}

static void encode(const struct unigram *m, const char *p, size_t n, bool plain, struct tok_ids *out) {
    uint32_t id = n <= m->token_n_max ? find(m, p, n) : NONE;
    if (id != NONE && m->whole[id] && !(plain && tok_is_special(m->t, id)))
        tok_ids_push(out, id);
    else
        encode_path(m, p, n, plain, out);
}

static void model_encode(const void *self, const char *p, size_t n, struct tok_ids *out) {
    encode(self, p, n, false, out);
}

static void model_encode_plain(const void *self, const char *p, size_t n, struct tok_ids *out) {
    encode(self, p, n, true, out);
}

static void model_free(void *self) {
    struct unigram *m = self;
    trie_fini(&m->trie);
    free(m->scores);
    free(m->whole);
    free(m);
}

static const struct tok_model_ops unigram_ops = {model_encode, model_encode_plain, model_free};

/* ---- loading ---- */

static void fill_trie(struct unigram *m, const bool *in_vocab) {
    const struct slices *pieces = &m->t->pieces;
    struct trie_entry *entries = xreallocarray(NULL, pieces->n, sizeof *entries);
    uint32_t n = 0;
    for (uint32_t id = 0; id < pieces->n; id++) {
        struct str s = slices_get(pieces, id);
        if (!in_vocab[id])
            continue;
        entries[n++] = (struct trie_entry){s, id};
        m->token_n_max = MAX(m->token_n_max, s.n);
    }
    trie_init(&m->trie, entries, n);
    free(entries);
}

/* fill_whole: encodes each token's own text. */
static void fill_whole(struct unigram *m, const bool *in_vocab) {
    enum { WHOLE_N_MAX = 64 }; /* a longer word gains little */
    struct tok_ids ids = {0};
    for (uint32_t id = 0; id < m->t->pieces.n; id++) {
        struct str s = slices_get(&m->t->pieces, id);
        if (!in_vocab[id] || s.n > WHOLE_N_MAX)
            continue;
        ids.n = 0;
        encode_path(m, s.p, s.n, false, &ids);
        m->whole[id] = ids.n == 1 && ids.v[0] == id;
    }
    tok_ids_fini(&ids);
}

static void fill_bytes(struct unigram *m, const bool *in_vocab) {
    static const char digits[] = "0123456789ABCDEF";
    for (unsigned b = 0; b < 256; b++) {
        const char name[6] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>'};
        uint32_t id;
        bool known = tok_find(m->t, (struct str){name, sizeof name}, &id) && in_vocab[id];
        m->byte_id[b] = known ? id : NONE;
    }
}

/* scores_read: of the tokens; the penalty for unknown characters is below the lowest. */
static enum rc scores_read(struct unigram *m, const json_t *vocab, struct err *e) {
    double low = 0;
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *score = json_array_get(json_array_get(vocab, i), 1);
        if (!json_is_number(score))
            return tok_bad(e, "model.vocab", "entry %zu must be a token and its score", i);
        m->scores[i] = json_number_value(score);
        low = i == 0 ? m->scores[i] : MIN(low, m->scores[i]);
    }
    m->unk_score = low - UNK_PENALTY;
    return RC_OK;
}

enum rc tok_load_unigram(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e) {
    const json_t *unk = json_object_get(model, "unk_id"), *vocab = json_object_get(model, "vocab");
    bool byte_fallback;
    enum rc rc = tok_flag(model, "byte_fallback", "model", false, &byte_fallback, e);
    if (rc)
        return rc;
    if (!tok_absent(unk) &&
        (!json_is_integer(unk) || json_integer_value(unk) < 0 || json_integer_value(unk) >= t->pieces.n))
        return tok_bad(e, "model.unk_id", "must be null or an id of the vocabulary");
    struct unigram *m = xcalloc(1, sizeof *m);
    t->model = m;
    t->ops = &unigram_ops;
    m->t = t;
    m->scores = xcalloc(MAX(json_array_size(vocab), t->pieces.n), sizeof *m->scores);
    m->whole = xcalloc(t->pieces.n, sizeof *m->whole);
    m->unk_id = tok_absent(unk) ? NONE : (uint32_t)json_integer_value(unk);
    m->byte_fallback = byte_fallback;
    if ((rc = scores_read(m, vocab, e)))
        return rc;
    fill_bytes(m, in_vocab);
    fill_trie(m, in_vocab);
    fill_whole(m, in_vocab);
    return RC_OK;
}
