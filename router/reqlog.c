#include "router/reqlog.h"

#include "common/log.h"
#include "common/text/detok.h"
#include "common/utf8.h"

/* text_of: the text of n ids, at most bytes_max bytes of it and whole characters. */
static void text_of(const struct gen_req *r, const uint32_t *ids, size_t n, size_t bytes_max,
                    struct buf *out) {
    struct detok d;
    detok_init(&d, r->model->tok, NULL, 0, false, r->spaces_between_special);
    for (size_t i = 0; i < n && out->len <= bytes_max; i++) {
        if (ids[i] < tok_vocab_size(r->model->tok))
            detok_push(&d, ids[i], out);
    }
    detok_finish(&d, out);
    if (out->len)
        out->len = utf8_cut(out->data, out->len, bytes_max);
}

void reqlog_prompt(const struct gen_req *r, struct str suffix, size_t bytes_max) {
    struct buf text = {0};
    if (r->n_prompts)
        text_of(r, r->prompts[0].ids, r->prompts[0].n_ids, bytes_max, &text);
    LOG(LOG_INFO, "prompt", F_BYTES("id", suffix.p, suffix.n), F_U64("prompts", r->n_prompts),
        F_U64("tokens", r->n_prompts ? r->prompts[0].n_ids : 0), F_BYTES("text", text.data, text.len));
    buf_fini(&text);
}

void reqlog_token(struct tok_ids *kept, uint32_t id, size_t bytes_max) {
    enum { TOKENS_MAX = 1 << 16 }; /* ids that stand for no text could be any number */
    if (kept->n < MIN(bytes_max + 1, (size_t)TOKENS_MAX))
        tok_ids_push(kept, id);
}

void reqlog_output(const struct gen_req *r, struct str suffix, uint32_t choice, const struct tok_ids *kept,
                   size_t bytes_max) {
    struct buf text = {0};
    text_of(r, kept->v, kept->n, bytes_max, &text);
    LOG(LOG_INFO, "output", F_BYTES("id", suffix.p, suffix.n), F_U64("choice", choice),
        F_BYTES("text", text.data, text.len));
    buf_fini(&text);
}
