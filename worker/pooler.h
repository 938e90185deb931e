/* pooler.h: from the final hidden states of a text to what a pooling request asks for.
 *
 * Which rows count (first, mean, last ...), what is applied to their sum (dense layers, a head of labels),
 * whether the result is normalised or put through an activation: from the checkpoint (sentence-transformers'
 * modules.json and what it names, the heads of classifiers), and from --task and --pooler-config.
 *
 * Plain C on the host, in f32 with sums over rows in f64, row by row in order: a text's result has the same
 * bits alone, in a batch, and in chunks. A pooler is immutable; a state belongs to one text and the engine's
 * thread. Sources: sentence-transformers' Pooling, Dense and Normalize modules; Hugging Face's
 * *ForSequenceClassification.
 */
#ifndef WEIR_WORKER_POOLER_H
#define WEIR_WORKER_POOLER_H

#include "common/buf.h"
#include "common/err.h"
#include "common/hf/config.h"
#include "common/hf/safetensors.h"

enum pool_kind {
    POOL_NONE = 0, /* not a pooling request */
    POOL_EMBED,
    POOL_CLASSIFY,
    POOL_TOKEN_EMBED,   /* a row for each token: hidden states */
    POOL_TOKEN_CLASSIFY /* a row for each token: the head's outputs */
};
enum pool_task { POOL_TASK_EMBED = 1, POOL_TASK_CLASSIFY, POOL_TASK_SCORE, POOL_TASK_REWARD };

/* pool_ask: what one request wants. */
struct pool_ask {
    enum pool_kind kind;
    uint32_t dimensions; /* EMBED: the first so many, normalised again; 0: all */
    bool activate;       /* normalise, or the labels' activation */
};

/* pooler_opts: where a pooler comes from. */
struct pooler_opts {
    const char *dir; /* the model's folder; its modules.json may be absent */
    const struct hf_config *config;
    const struct st_set *weights; /* NULL: made-up weights (--load-format dummy) */
    const char *pooler_config;    /* JSON object of --pooler-config, or NULL */
    const char *task;             /* as worker_flags_task gives it; "pooling": whatever it pools to */
};

struct pooler;
struct pool_state;

/* pooler_task: what --task makes of a config: 0 with *out 0 for a generating model. RC_INVALID: the
 * architecture cannot do it. */
MUST_USE enum rc pooler_task(const struct hf_config *c, const char *task, enum pool_task *out, struct err *e);
/* pooler_load: RC_INVALID names file and key, or the missing tensor. */
MUST_USE enum rc pooler_load(struct pooler **out, const struct pooler_opts *o, struct err *e);
void pooler_free(struct pooler *p);

enum pool_task pooler_task_of(const struct pooler *p);
/* pooler_labels: outputs of its head; 0: it has none. */
uint32_t pooler_labels(const struct pooler *p);
/* pooler_max_len: tokens that sentence_bert_config.json allows; 0: it says nothing. */
uint32_t pooler_max_len(const struct pooler *p);
/* pooler_describe: a JSON object for routers: task, sizes, labels, defaults (see pooler_load.c). */
void pooler_describe(const struct pooler *p, struct buf *out);
/* pooler_check: RC_INVALID: the model does not do this. */
MUST_USE enum rc pooler_check(const struct pooler *p, const struct pool_ask *ask, struct err *e);
/* pooler_activates: whether a request that does not say gets normalisation, or the labels' activation. */
bool pooler_activates(const struct pooler *p, enum pool_kind kind);
/* pooler_cols: floats of a row of the result. */
uint32_t pooler_cols(const struct pooler *p, const struct pool_ask *ask);
/* pooler_span: rows [*lo, *hi) of a text of n tokens that count. */
void pooler_span(const struct pooler *p, const struct pool_ask *ask, uint32_t n, uint32_t *lo, uint32_t *hi);

/* pool_start: for a text of n_tokens. The pooler must outlive the state. */
struct pool_state *pooling_start(const struct pooler *p, const struct pool_ask *ask, uint32_t n_tokens)
    __attribute__((returns_nonnull));
/* pool_rows: hidden states of tokens [first, first + n), [n][hidden], in order. Those outside
 * pooler_span may be left out; those that were seen (computed again after a preemption) are skipped. */
void pooling_rows(struct pool_state *s, const float *hidden, uint32_t first, uint32_t n);
/* pool_finish: the result, [*rows][*cols], the state's own; NULL: it holds a value that is not finite. */
const float *pooling_finish(struct pool_state *s, uint32_t *rows, uint32_t *cols);
void pooling_free(struct pool_state *s); /* NULL is fine */

#endif
