/* Echo: what stands before the generated text (api.md 6.2.3, 7.4.5), and the prompt's log-probabilities
 * (8.7.3, 8.7.5). */
#include <math.h>
#include <stdlib.h>

#include "common/utf8.h"
#include "router/api/request.h"
#include "router/api/run.h"

/* ---- of a request ------------------------------------------------------------------------------------ */

void echo_prompt(struct gen_req *r, uint32_t i, struct str text, uint32_t n_front) {
    struct gen_prompt *p = &r->prompts[i];
    struct buf decoded = {0};
    if (text.p) {
        p->n_front = MIN(n_front, p->n_ids);
    } else {
        detok_all(r->model->tok, p->ids, p->n_ids, false, &decoded);
        text = buf_str(&decoded);
    }
    p->echo = (struct str){arena_strndup(&r->arena, text.n ? text.p : "", text.n), text.n};
    buf_fini(&decoded);
}

/* part_text: of one part of a message; NULL: it has none. */
static const json_t *part_text(const json_t *part) {
    static const char *const keys[] = {"text", "refusal"};
    if (json_is_string(part))
        return part;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (json_is_string(json_object_get(part, keys[i])))
            return json_object_get(part, keys[i]);
    return NULL;
}

void echo_message(const json_t *messages, struct gen_req *r) {
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *role = json_object_get(last, "role"), *content = json_object_get(last, "content");
    struct buf text = {0};
    if (!str_eq((struct str){json_string_value(role), json_string_length(role)}, r->role))
        return;
    if (json_is_string(content))
        buf_add(&text, json_string_value(content), json_string_length(content));
    bool first = true;
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *t = part_text(json_array_get(content, i));
        if (!t)
            continue;
        if (!first)
            buf_addc(&text, '\n');
        first = false;
        buf_add(&text, json_string_value(t), json_string_length(t));
    }
    r->chat_echo = (struct str){arena_strndup(&r->arena, text.len ? text.data : "", text.len), text.len};
    buf_fini(&text);
}

enum rc echo_limit(const struct gen_req *r, const struct router_limits *limits, struct err *e) {
    uint64_t n = r->chat_echo.n;
    for (uint32_t i = 0; i < r->n_prompts; i++)
        n += r->prompts[i].echo.n; /* below 2^10 x 2^32 */
    n *= r->n;
    if (n <= limits->body_bytes)
        return RC_OK;
    return err_set(e, RC_INVALID, "echo",
                   "echo: the prompts once for each choice are %llu bytes, must be less_than_equal %llu "
                   "(--max-body-bytes)",
                   (unsigned long long)n, (unsigned long long)limits->body_bytes);
}

/* ---- of a run ---------------------------------------------------------------------------------------- */

struct str echo_of(const struct gen_run *g, uint32_t choice) {
    const struct gen_req *r = g->r;
    return r->route == GEN_CHAT ? r->chat_echo : r->prompts[choice / r->n_samples].echo;
}

void echo_start(struct gen_run *g) {
    const struct gen_req *r = g->r;
    if (r->n_prompt_top < 0 && !r->echo)
        return;
    g->prompts = xcalloc(r->n_prompts, sizeof *g->prompts);
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        detok_init(&g->prompts[i].detok, r->model->tok, NULL, 0, false, true);
        g->prompts[i].n_points = (uint32_t)utf8_count(r->prompts[i].echo.p, r->prompts[i].echo.n);
    }
}

void echo_fini(struct gen_run *g) {
    for (uint32_t i = 0; g->prompts && i < g->r->n_prompts; i++) {
        lp_fini(&g->prompts[i].lp);
        buf_fini(&g->prompts[i].list);
    }
    free(g->prompts);
}

/* offset_next: where the text of the prompt's next token begins in the echo. */
static uint32_t offset_next(struct gen_run *g, struct prompt_run *p, uint32_t prompt, uint32_t id) {
    const struct gen_req *r = g->r;
    uint32_t offset = MIN(p->at_points, p->n_points);
    if (p->n_rows < r->prompts[prompt].n_front)
        return 0;
    g->piece.len = 0;
    if (id < tok_vocab_size(r->model->tok))
        detok_push(&p->detok, id, &g->piece);
    p->at_points += (uint32_t)utf8_count(g->piece.data, g->piece.len);
    return offset;
}

enum rc gen_on_prompt(struct gen_run *g, uint32_t prompt, const struct gen_prompt_row *rows, uint32_t n,
                      struct err *e) {
    const struct gen_req *r = g->r;
    const struct gen_prompt *in = &r->prompts[prompt];
    struct prompt_run *p = g->prompts ? &g->prompts[prompt] : NULL;
    if (r->n_prompt_top < 0 || n > in->n_ids - p->n_rows)
        return err_set(e, RC_INTERNAL, NULL, "The worker gave log-probabilities of other tokens than the prompt's");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = in->ids[p->n_rows];
        struct gen_token t = {.id = id,
                              .logprob = rows[i].logprob,
                              .rank = rows[i].rank,
                              .top_ids = rows[i].top_ids,
                              .top_logprobs = rows[i].top_logprobs,
                              .n_top = rows[i].n_top,
                              .unknown = rows[i].rank == 0};
        if (t.unknown != (p->n_rows == 0) || !lp_printable(&t))
            return err_set(e, RC_INTERNAL, NULL, "The model gave a log-probability that is not a number");
        if (r->n_prompt_list >= 0)
            lp_list_add(g, &t, &p->list);
        if (r->echo && r->logprobs && r->route == GEN_COMPLETIONS)
            lp_add(g, &t, offset_next(g, p, prompt, id), &p->lp);
        p->n_rows++;
    }
    return RC_OK;
}

bool gen_prompt_known(const struct gen_run *g, uint32_t prompt) {
    return g->r->n_prompt_top < 0 || g->prompts[prompt].n_rows == g->r->prompts[prompt].n_ids;
}

void echo_list_write(const struct gen_run *g, uint32_t prompt, struct buf *out) {
    if (g->r->n_prompt_list < 0) {
        buf_addz(out, "null");
        return;
    }
    buf_addc(out, '[');
    buf_add(out, g->prompts[prompt].list.data, g->prompts[prompt].list.len);
    buf_addc(out, ']');
}

void echo_text_write(const struct gen_run *g, uint32_t choice, struct str text, struct buf *out) {
    struct str echo = echo_of(g, choice);
    if (echo.n) { /* two strings as one: without the quotes between them */
        jw_str(out, echo);
        size_t at = --out->len;
        jw_str(out, text);
        memmove(out->data + at, out->data + at + 1, out->len - at - 1);
        out->len--;
        return;
    }
    jw_str(out, text);
}
