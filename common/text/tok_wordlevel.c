/* tok_wordlevel.c: a tokenizer.json model of type WordLevel: a pre-token is a token as a whole, or unknown. */
#include "common/text/tok_impl.h"

#include <stdlib.h>

struct wordlevel {
    const struct tok *t;
    bool *in_vocab; /* [n_ids] added tokens are not found here */
    uint32_t unk_id;
};

static void encode(const struct wordlevel *m, const char *p, size_t n, bool plain, struct tok_ids *out) {
    uint32_t id;
    bool known = tok_find(m->t, (struct str){p, n}, &id) && m->in_vocab[id];
    tok_ids_push(out, known && !(plain && tok_is_special(m->t, id)) ? id : m->unk_id);
}

static void model_encode(const void *self, const char *p, size_t n, struct tok_ids *out) {
    encode(self, p, n, false, out);
}

static void model_encode_plain(const void *self, const char *p, size_t n, struct tok_ids *out) {
    encode(self, p, n, true, out);
}

static void model_free(void *self) {
    struct wordlevel *m = self;
    free(m->in_vocab);
    free(m);
}

static const struct tok_model_ops wordlevel_ops = {model_encode, model_encode_plain, model_free};

enum rc tok_load_wordlevel(struct tok *t, const json_t *model, const bool *in_vocab, struct err *e) {
    struct str unk;
    uint32_t unk_id;
    enum rc rc = tok_text(model, "unk_token", "model", 1, &unk, e);
    if (rc)
        return rc;
    if (!tok_find(t, unk, &unk_id) || !in_vocab[unk_id])
        return tok_bad(e, "model.unk_token", "\"%.40s\" is not in model.vocab", unk.p);
    struct wordlevel *m = xcalloc(1, sizeof *m);
    m->t = t;
    m->unk_id = unk_id;
    m->in_vocab = xreallocarray(NULL, t->pieces.n, sizeof *m->in_vocab);
    memcpy(m->in_vocab, in_vocab, t->pieces.n * sizeof *m->in_vocab);
    t->model = m;
    t->ops = &wordlevel_ops;
    return RC_OK;
}
