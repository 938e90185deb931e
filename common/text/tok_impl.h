/* tok_impl.h: the inside of struct tok; for common/text only.
 *
 * How text becomes ids: repair UTF-8; cut out added tokens that are not `normalized`; normalise what
 * is left; cut out those that are; split each piece into pre-tokens; hand each to the model.
 * A new kind of model fills struct tok_model_ops; nothing above it changes.
 */
#ifndef WEIR_COMMON_TEXT_TOK_IMPL_H
#define WEIR_COMMON_TEXT_TOK_IMPL_H

#include "common/json.h"
#include "common/text/added.h"
#include "common/text/dec.h"
#include "common/text/idmap.h"
#include "common/text/norm.h"
#include "common/text/pre.h"
#include "common/text/tok.h"

enum {
    TOK_JSON_BYTES_MAX = 128 << 20,    /* tokenizer.json */
    TOK_SIDE_JSON_BYTES_MAX = 4 << 20, /* the other files */
    TOK_JSON_DEPTH_MAX = 64,
    TOK_JSON_NODES_MAX = 64 << 20,
    TOK_ID_MAX = (16 << 20) - 1,
    TOK_ADDED_BYTES_MAX = 16 << 20, /* contents of all added tokens together */
    TOK_MEMBERS_MAX = 32, /* of a normaliser and the like */
    TOK_MEMBER_PATH_MAX = 96,
    TOK_TEMPLATE_IDS_MAX = 64,
    TOK_TEMPLATE_PARTS_MAX = TOK_TEMPLATE_IDS_MAX + 2,
};

/* A kind of model. self is what the kind's loader made. */
struct tok_model_ops {
    /* appends the ids of one pre-token */
    void (*encode)(const void *self, const char *p, size_t n, struct tok_ids *out);
    /* the same, but no special token comes out because its spelling is there: for text of clients. Some
     * vocabularies hold special tokens among the others. The unknown token may come out. */
    void (*encode_plain)(const void *self, const char *p, size_t n, struct tok_ids *out);
    void (*free)(void *self);
};

/* What goes around a text, or a pair of texts. */
enum tok_part_kind { TOK_PART_ID, TOK_PART_A, TOK_PART_B };
struct tok_part {
    enum tok_part_kind kind;
    uint32_t id;   /* TOK_PART_ID */
    uint32_t type; /* token type of the id, or of the text's ids */
};
struct tok_template {
    struct tok_part parts[TOK_TEMPLATE_PARTS_MAX];
    size_t n_parts;
};

struct tok {
    const struct tok_model_ops *ops;
    void *model;
    struct slices pieces; /* [n_ids] vocabulary entries and contents of added tokens */
    struct slices bytes;  /* [n_ids] what they decode to, neither first nor last */
    struct slices shown;  /* [n_ids] what the decoder starts from where that is not the piece; may be empty */
    struct idmap by_piece;
    uint8_t *flags; /* [n_ids] TOK_IS_* */
    struct norm norm;
    struct added raw_added;  /* searched in the text as it comes */
    struct added norm_added; /* searched in normalised text */
    char *norm_contents;     /* what norm_added borrows */
    struct pre pre;
    bool byte_level; /* the pre-tokeniser ends in bytes: models see bytes, not characters */
    struct dec dec;
    struct tok_template single, pair;
    bool has_bos, has_eos;
    uint32_t bos, eos;
};
enum { TOK_IS_ADDED = 1, TOK_IS_SPECIAL = 2, TOK_IS_BYTE = 4 };

/* tok_shown: what the decoder starts from. */
static inline struct str tok_shown(const struct tok *t, uint32_t id) {
    struct str s = t->shown.n ? slices_get(&t->shown, id) : (struct str){0};
    return s.n ? s : slices_get(&t->pieces, id);
}

/* tok_json: parses a file of at most max bytes. NULL with e filled (RC_INVALID, naming the file). */
json_t *tok_json(struct str text, size_t max, const char *file, struct err *e);

/* tok_bad: RC_INVALID for a key of tokenizer.json: "tokenizer.json: KEY: reason". */
enum rc tok_bad(struct err *e, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* tok_unsupported: RC_UNSUPPORTED, the same way. */
enum rc tok_unsupported(struct err *e, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Reading parts (tok_part.c). A part is an object with a type, or a Sequence that lists some. */
/* tok_absent: not there, or null. */
bool tok_absent(const json_t *v);
/* tok_type: the part's type; "(none)" if it has none. */
const char *tok_type(const json_t *part);
/* What a part is made of: itself, or if it is a Sequence, the members of its list, and of theirs if they are
 * Sequences. path: "name" or "name.list[i]". */
struct tok_member {
    const json_t *v;
    char path[TOK_MEMBER_PATH_MAX];
};
struct tok_members {
    struct tok_member at[TOK_MEMBERS_MAX];
    size_t n;
};
MUST_USE enum rc tok_members(const json_t *part, const char *name, const char *list, struct tok_members *out,
                             struct err *e);
/* tok_flag: a boolean with a default for files that leave it out. */
MUST_USE enum rc tok_flag(const json_t *m, const char *key, const char *path, bool fallback, bool *out,
                          struct err *e);
/* tok_text: a string that must be there; n_min bytes at least. Borrowed. */
MUST_USE enum rc tok_text(const json_t *m, const char *key, const char *path, size_t n_min, struct str *out,
                          struct err *e);
/* tok_pattern: a pattern that is not empty: {"String": s} or {"Regex": s}. */
MUST_USE enum rc tok_pattern(const json_t *m, const char *path, struct str *out, bool *regex, struct err *e);
/* tok_compile: a pattern, with its errors at path. */
MUST_USE enum rc tok_compile(struct str re, const char *path, struct pattern **out, struct err *e);
/* tok_scheme: prepend_scheme of Metaspace, or add_prefix_space of older files. */
MUST_USE enum rc tok_scheme(const json_t *m, const char *path, enum pre_scheme *out, struct err *e);
/* tok_one_char: a string of exactly one character. */
MUST_USE enum rc tok_one_char(const json_t *m, const char *key, const char *path, struct str *out,
                              struct err *e);

/* tok_load_norm, tok_load_pre, tok_load_dec: normalizer, pre_tokenizer, decoder. */
MUST_USE enum rc tok_load_norm(struct tok *t, const json_t *part, struct err *e);
MUST_USE enum rc tok_load_pre(struct tok *t, const json_t *part, struct err *e);
/* tok_pre_in_letters: after a ByteLevel at its end, bytes become letters of the byte-level alphabet in a step of
 * their own: what comes next, a step or a model, sees characters. */
MUST_USE enum rc tok_pre_in_letters(struct tok *t, struct err *e);
MUST_USE enum rc tok_load_dec(struct tok *t, const json_t *part, struct err *e);
/* tok_load_vocab: pieces, bytes, flags, by_piece and both automata, from model.vocab and added_tokens;
 * after the three above. vocab is the model's as an object from token to id, n_vocab its length (duplicates
 * count). *in_vocab, [t->pieces.n], tells which ids are of the vocabulary proper; the caller frees it. */
MUST_USE enum rc tok_load_vocab(struct tok *t, json_t *vocab, size_t n_vocab, const json_t *added,
                                bool **in_vocab, struct err *e);
/* The models, from root's model; after tok_load_vocab. */
MUST_USE enum rc tok_load_bpe(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e);
MUST_USE enum rc tok_load_wordpiece(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e);
MUST_USE enum rc tok_load_wordlevel(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e);
MUST_USE enum rc tok_load_unigram(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e);
/* tok_load_post: post_processor; after tok_load_vocab. */
MUST_USE enum rc tok_load_post(struct tok *t, const json_t *part, struct err *e);

#endif
