/* tok_impl.h: the inside of struct tok; for common/text only.
 *
 * How text becomes ids: repair UTF-8; cut out added tokens that are not `normalized`; normalise what
 * is left; cut out those that are; split each piece into pre-tokens; hand each to the model.
 * A new kind of model fills struct tok_model and sets the steps; nothing above it changes.
 */
#ifndef WEIR_COMMON_TEXT_TOK_IMPL_H
#define WEIR_COMMON_TEXT_TOK_IMPL_H

#include "common/json.h"
#include "common/text/added.h"
#include "common/text/bpe.h"
#include "common/text/split.h"
#include "common/text/tok.h"

enum {
    TOK_JSON_BYTES_MAX = 128 << 20,    /* tokenizer.json */
    TOK_SIDE_JSON_BYTES_MAX = 4 << 20, /* the other files */
    TOK_JSON_DEPTH_MAX = 64,
    TOK_JSON_NODES_MAX = 64 << 20,
    TOK_ID_MAX = (16 << 20) - 1,
    TOK_ADDED_BYTES_MAX = 16 << 20, /* contents of all added tokens together */
    TOK_STEPS_MAX = 16,
    TOK_TEMPLATE_IDS_MAX = 64,
};

/* One step of the pre-tokeniser: cut every piece by a splitter, or put a space before it. */
struct tok_step {
    split_fn *split; /* NULL: prefix a space unless the piece starts with one */
};

/* A kind of model. self is what the kind's loader made. */
struct tok_model_ops {
    /* appends the ids of one pre-token */
    void (*encode)(const void *self, const char *p, size_t n, struct tok_ids *out);
    void (*free)(void *self);
};

struct tok {
    const struct tok_model_ops *ops;
    void *model;
    struct slices pieces; /* [n_ids] vocabulary entries and contents of added tokens */
    struct slices bytes;  /* [n_ids] what they decode to */
    struct idmap by_piece;
    uint8_t *flags; /* [n_ids] TOK_IS_* */
    bool nfc;
    struct added raw_added;  /* searched in the text as it comes */
    struct added norm_added; /* searched in normalised text */
    char *norm_contents;     /* what norm_added borrows */
    struct tok_step steps[TOK_STEPS_MAX];
    size_t n_steps;
    uint32_t front[TOK_TEMPLATE_IDS_MAX], back[TOK_TEMPLATE_IDS_MAX];
    size_t n_front, n_back;
    bool has_bos, has_eos;
    uint32_t bos, eos;
};
enum { TOK_IS_ADDED = 1, TOK_IS_SPECIAL = 2 };

/* tok_json: parses a file of at most max bytes. NULL with e filled (RC_INVALID, naming the file). */
json_t *tok_json(struct str text, size_t max, const char *file, struct err *e);

/* tok_bad: RC_INVALID for a key of tokenizer.json: "tokenizer.json: KEY: reason". */
enum rc tok_bad(struct err *e, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* tok_unsupported: RC_UNSUPPORTED, the same way. */
enum rc tok_unsupported(struct err *e, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* tok_load_vocab: pieces, bytes, flags, by_piece and both automata, from model.vocab and
 * added_tokens; t->nfc must be set. *in_vocab, [t->pieces.n], tells which ids are of the vocabulary
 * proper; the caller frees it. */
MUST_USE enum rc tok_load_vocab(struct tok *t, const json_t *root, bool **in_vocab, struct err *e);
/* tok_load_bpe: the model, from root's model; after tok_load_vocab. */
MUST_USE enum rc tok_load_bpe(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e);
/* tok_load_parts: normalizer, pre_tokenizer, decoder. */
MUST_USE enum rc tok_load_parts(struct tok *t, const json_t *root, struct err *e);
/* tok_load_post: post_processor; after tok_load_vocab. */
MUST_USE enum rc tok_load_post(struct tok *t, const json_t *root, struct err *e);

/* byte_level_decode: a piece in the byte-level alphabet to its bytes (out has room for s.n); SIZE_MAX
 * if a character is not of that alphabet. */
size_t byte_level_decode(struct str s, char *out);

#endif
