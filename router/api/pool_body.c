/* pool_body.c: results of the pooling family as JSON (api.md 12.2 to 12.6). */
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "router/api/pool.h"
#include "router/api/run.h"

enum rc gen_on_pool(struct gen_run *g, uint32_t prompt, uint32_t rows, uint32_t cols, const float *data,
                    struct err *e) {
    const struct gen_req *r = g->r;
    const struct pool_req *q = r->pool;
    CHECK(q && prompt < r->n_prompts && !g->results[prompt].v);
    bool per_token = q->out == OUT_TOKEN_EMBED || q->out == OUT_TOKEN_CLASSIFY;
    if (cols != q->cols || rows != (per_token ? r->prompts[prompt].n_ids : 1))
        return err_set(e, RC_INTERNAL, NULL, "The worker gave a result of another shape than was asked for");
    size_t n = (size_t)rows * cols;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(data[i]))
            return err_set(e, RC_INTERNAL, NULL, "The model gave a value that is not a number");
    g->results[prompt] = (struct pool_result){.v = xreallocarray(NULL, n, sizeof *data), .rows = rows};
    memcpy(g->results[prompt].v, data, n * sizeof *data);
    g->choices[prompt].done = true;
    g->n_done++;
    return RC_OK;
}

static void write_base64(const float *v, size_t n, struct buf *out) {
    size_t bytes = n * sizeof *v;
    CHECK(bytes < INT32_MAX / 2);
    buf_addc(out, '"');
    buf_reserve(out, (bytes + 2) / 3 * 4 + 1);
    /* floats lie in memory as the wire wants them: this code runs on little-endian machines only */
    out->len +=
        (size_t)EVP_EncodeBlock((unsigned char *)out->data + out->len, (const unsigned char *)v, (int)bytes);
    buf_addc(out, '"');
}

static void write_row(const float *v, size_t n, struct buf *out) {
    buf_addc(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_addc(out, ',');
        jw_f32(out, v[i]);
    }
    buf_addc(out, ']');
}

/* write_values: a vector; of the token tasks, one for each token. */
static void write_values(const struct gen_run *g, uint32_t i, struct buf *out) {
    const struct pool_req *q = g->r->pool;
    const struct pool_result *x = &g->results[i];
    if (q->base64) {
        write_base64(x->v, (size_t)x->rows * q->cols, out);
        return;
    }
    if (q->out == OUT_EMBED || q->out == OUT_CLASSIFY) {
        write_row(x->v, q->cols, out);
        return;
    }
    buf_addc(out, '[');
    for (uint32_t k = 0; k < x->rows; k++) {
        if (k)
            buf_addc(out, ',');
        write_row(x->v + (size_t)k * q->cols, q->cols, out);
    }
    buf_addc(out, ']');
}

static void write_class(const struct gen_run *g, uint32_t i, struct buf *out) {
    const struct model_pooling *m = g->r->model->pooling;
    const struct pool_result *x = &g->results[i];
    uint32_t best = 0;
    for (uint32_t k = 1; k < m->n_labels; k++)
        best = x->v[k] > x->v[best] ? k : best;
    buf_addz(out, ",\"label\":");
    jw_strz(out, m->labels ? m->labels[best] : NULL);
    buf_addz(out, ",\"probs\":");
    write_row(x->v, m->n_labels, out);
    buf_addz(out, ",\"num_classes\":");
    buf_addu64(out, m->n_labels);
}

/* score_of: of item i: the cross-encoder's, or the cosine of two embeddings. */
static float score_of(const struct gen_run *g, uint32_t i) {
    const struct pool_req *q = g->r->pool;
    if (!q->cosine)
        return g->results[i].v[0];
    const float *a = g->results[q->n_left > 1 ? i : 0].v, *b = g->results[q->n_left + i].v;
    double ab = 0, aa = 0, bb = 0;
    for (uint32_t k = 0; k < q->cols; k++) {
        ab += (double)a[k] * b[k];
        aa += (double)a[k] * a[k];
        bb += (double)b[k] * b[k];
    }
    return (float)(ab / fmax(sqrt(aa) * sqrt(bb), 1e-12));
}

static void write_usage(const struct gen_run *g, bool rerank, struct buf *out) {
    struct gen_counts n = gen_run_counts(g);
    buf_addz(out, "\"usage\":{\"prompt_tokens\":");
    buf_addu64(out, n.prompt_tokens);
    buf_addz(out, ",\"total_tokens\":");
    buf_addu64(out, n.prompt_tokens);
    buf_addz(out, rerank ? "}" : ",\"completion_tokens\":0,\"prompt_tokens_details\":null}");
}

/* ---- rerank ------------------------------------------------------------------------------------- */

struct ranked {
    float score;
    uint32_t index;
};

static int by_score(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static void write_rerank(const struct gen_run *g, struct buf *out) {
    const struct gen_req *r = g->r;
    const struct pool_req *q = r->pool;
    struct ranked *all = xreallocarray(NULL, q->n_items, sizeof *all);
    for (uint32_t i = 0; i < q->n_items; i++)
        all[i] = (struct ranked){score_of(g, i), i};
    qsort(all, q->n_items, sizeof *all, by_score);
    buf_addz(out, "{\"id\":");
    jw_str(out, r->id);
    buf_addz(out, ",\"model\":");
    jw_str(out, r->model_name);
    buf_addc(out, ',');
    write_usage(g, true, out);
    buf_addz(out, ",\"results\":[");
    for (uint32_t i = 0; i < q->top_n; i++) {
        buf_addz(out, i ? ",{\"index\":" : "{\"index\":");
        buf_addu64(out, all[i].index);
        if (q->documents) {
            buf_addz(out, ",\"document\":{\"text\":");
            jw_str(out, q->documents[all[i].index]);
            buf_addc(out, '}');
        }
        buf_addz(out, ",\"relevance_score\":");
        jw_f32(out, all[i].score);
        buf_addc(out, '}');
    }
    buf_addz(out, "]}");
    free(all);
}

void pool_body_write(const struct gen_run *g, struct buf *out) {
    static const char *const objects[N_GEN_ROUTE] = {[GEN_EMBEDDINGS] = "embedding",
                                                     [GEN_POOLING] = "pooling",
                                                     [GEN_CLASSIFY] = "classify",
                                                     [GEN_SCORE] = "score"};
    const struct gen_req *r = g->r;
    if (r->route == GEN_RERANK) {
        write_rerank(g, out);
        return;
    }
    buf_addz(out, "{\"id\":");
    jw_str(out, r->id);
    buf_addz(out, ",\"object\":\"list\",\"created\":");
    jw_i64(out, r->created_unix_s);
    buf_addz(out, ",\"model\":");
    jw_str(out, r->model_name);
    buf_addz(out, ",\"data\":[");
    for (uint32_t i = 0; i < r->pool->n_items; i++) {
        buf_addz(out, i ? ",{\"index\":" : "{\"index\":");
        buf_addu64(out, i);
        if (r->route == GEN_CLASSIFY) {
            write_class(g, i, out);
        } else {
            buf_addz(out, ",\"object\":\"");
            buf_addz(out, objects[r->route]);
            buf_addz(out, r->route == GEN_EMBEDDINGS ? "\",\"embedding\":"
                          : r->route == GEN_SCORE    ? "\",\"score\":"
                                                     : "\",\"data\":");
            if (r->route == GEN_SCORE)
                jw_f32(out, score_of(g, i));
            else
                write_values(g, i, out);
        }
        buf_addc(out, '}');
    }
    buf_addz(out, "],");
    write_usage(g, false, out);
    buf_addc(out, '}');
}
