#include "worker/pooler.h"

#include <math.h>
#include <stdlib.h>

#include "worker/pooler_impl.h"

struct pool_state {
    const struct pooler *p;
    struct pool_ask ask;
    uint32_t n_tokens, n_seen;
    double *sum;  /* [hidden] of means */
    float *row;   /* [n_takes][hidden] what single rows and maxima gave */
    float *out;   /* [n_rows][cols] of the token tasks, as they come; else the result */
    float *a, *b; /* a step's input and output */
};

static bool per_token(const struct pool_ask *ask) {
    return ask->kind == POOL_TOKEN_EMBED || ask->kind == POOL_TOKEN_CLASSIFY;
}

/* takes_of: a head of labels reads one vector, the first kind that was asked for. */
static uint32_t takes_of(const struct pooler *p, const struct pool_ask *ask) {
    return ask->kind == POOL_CLASSIFY ? 1 : p->n_takes;
}

uint32_t pooler_cols(const struct pooler *p, const struct pool_ask *ask) {
    switch (ask->kind) {
    case POOL_TOKEN_EMBED:
        return p->hidden;
    case POOL_CLASSIFY:
    case POOL_TOKEN_CLASSIFY:
        return p->n_labels;
    case POOL_EMBED:
    case POOL_NONE:
        break;
    }
    return ask->dimensions ? ask->dimensions : steps_width(&p->dense, p->hidden * p->n_takes);
}

static enum rc check_dimensions(const struct pooler *p, uint32_t n, struct err *e) {
    uint32_t whole = steps_width(&p->dense, p->hidden * p->n_takes);
    if (n == 0 || n == whole)
        return RC_OK;
    for (uint32_t i = 0; i < p->n_matryoshka; i++)
        if (p->matryoshka[i] == n && n < whole)
            return RC_OK;
    if (p->is_matryoshka && p->n_matryoshka == 0 && n < whole)
        return RC_OK;
    return err_set(e, RC_INVALID, "dimensions",
                   "the model's embeddings have %u dimensions; %u is not one of its sizes", whole, n);
}

enum rc pooler_check(const struct pooler *p, const struct pool_ask *ask, struct err *e) {
    bool labels = ask->kind == POOL_CLASSIFY || ask->kind == POOL_TOKEN_CLASSIFY;
    if (labels && !p->has_head)
        return err_set(e, RC_INVALID, "task", "the model has no head of labels");
    if (ask->kind == POOL_EMBED && p->task != POOL_TASK_EMBED)
        return err_set(e, RC_INVALID, "task", "the model serves labels, not embeddings");
    return ask->kind == POOL_EMBED ? check_dimensions(p, ask->dimensions, e) : RC_OK;
}

bool pooler_activates(const struct pooler *p, enum pool_kind kind) {
    return kind == POOL_EMBED ? p->normalize : kind == POOL_CLASSIFY;
}

void pooler_span(const struct pooler *p, const struct pool_ask *ask, uint32_t n, uint32_t *lo, uint32_t *hi) {
    *lo = n;
    *hi = 0;
    for (uint32_t i = 0; i < takes_of(p, ask); i++) {
        bool last = p->take[i] == TAKE_LAST, first = p->take[i] == TAKE_CLS;
        *lo = MIN(*lo, last ? n - 1 : 0);
        *hi = MAX(*hi, first ? 1 : n);
    }
    if (per_token(ask)) {
        *lo = 0;
        *hi = n;
    }
}

/* ---- steps -------------------------------------------------------------------------------------- */

static float dot(const float *a, const float *b, uint32_t n) {
    float s[8] = {0}, rest = 0;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t k = 0; k < 8; k++)
            s[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        rest += a[i] * b[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest;
}

static float activate(enum step_act act, float x) {
    switch (act) {
    case STEP_TANH:
        return tanhf(x);
    case STEP_RELU:
        return x > 0 ? x : 0;
    case STEP_GELU:
        return 0.5f * x * (1 + erff(x * 0.70710678f));
    case STEP_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case STEP_SILU:
        return x / (1 + expf(-x));
    case STEP_SIGMOID:
        return 1 / (1 + expf(-x));
    case STEP_NONE:
        break;
    }
    return x;
}

static void layer_norm(float *x, uint32_t n, const struct step *s) {
    double sum = 0, var = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / n;
    for (uint32_t i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean);
    double scale = 1 / sqrt(var / n + s->eps);
    for (uint32_t i = 0; i < n; i++)
        x[i] = (float)((x[i] - mean) * scale) * s->norm[i] + (s->norm_bias ? s->norm_bias[i] : 0);
}

/* run_steps: x[n_in] through all steps; the result is in a or b, which have room for the widest, or x itself.
 */
static const float *run_steps(const struct steps *s, const float *x, float *a, float *b) {
    for (uint32_t i = 0; i < s->n; i++) {
        const struct step *t = &s->v[i];
        float *y = x == a ? b : a;
        for (uint32_t o = 0; o < t->n_out; o++)
            y[o] = activate(t->act, dot(t->w + (size_t)o * t->n_in, x, t->n_in) + (t->b ? t->b[o] : 0));
        if (t->norm)
            layer_norm(y, t->n_out, t);
        x = y;
    }
    return x;
}

static uint32_t widest(const struct steps *s, uint32_t n) {
    for (uint32_t i = 0; i < s->n; i++)
        n = MAX(n, s->v[i].n_out);
    return n;
}

/* ---- the ends ----------------------------------------------------------------------------------- */

/* normalize: to length 1, as torch.nn.functional.normalize: a vector shorter than 1e-12 is divided by that.
 */
static void normalize(float *x, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double scale = 1 / fmax(sqrt(sum), 1e-12);
    for (uint32_t i = 0; i < n; i++)
        x[i] = (float)(x[i] * scale);
}

static void softmax(float *x, uint32_t n) {
    float max = x[0];
    double sum = 0;
    for (uint32_t i = 1; i < n; i++)
        max = fmaxf(max, x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    for (uint32_t i = 0; i < n; i++)
        x[i] = (float)(exp((double)x[i] - max) / sum);
}

/* label_act: by default sigmoid for one label, softmax for several. */
static void label_act(const struct pooler *p, float *x) {
    enum hf_label_act act = p->act;
    if (act == HF_LABEL_ACT_DEFAULT)
        act = p->n_labels == 1 ? HF_LABEL_ACT_SIGMOID : HF_LABEL_ACT_SOFTMAX;
    if (act == HF_LABEL_ACT_SOFTMAX)
        softmax(x, p->n_labels);
    for (uint32_t i = 0; act == HF_LABEL_ACT_SIGMOID && i < p->n_labels; i++)
        x[i] = activate(STEP_SIGMOID, x[i]);
}

/* finish_row: one vector of hidden states becomes a row of the result. */
static void finish_row(struct pool_state *s, const float *x, float *out) {
    const struct pooler *p = s->p;
    uint32_t cols = pooler_cols(p, &s->ask);
    bool labels = s->ask.kind == POOL_CLASSIFY || s->ask.kind == POOL_TOKEN_CLASSIFY;
    if (labels)
        x = run_steps(&p->head, x, s->a, s->b);
    else if (s->ask.kind == POOL_EMBED)
        x = run_steps(&p->dense, x, s->a, s->b);
    memcpy(out, x, cols * sizeof *out);
    if (!s->ask.activate)
        return;
    if (labels)
        label_act(p, out);
    else
        normalize(out, cols);
}

/* ---- a text ------------------------------------------------------------------------------------- */

struct pool_state *pooling_start(const struct pooler *p, const struct pool_ask *ask, uint32_t n_tokens) {
    uint32_t hidden = p->hidden, n_in = hidden * p->n_takes;
    uint32_t width = MAX(widest(&p->dense, n_in), widest(&p->head, hidden));
    size_t n_rows = per_token(ask) ? n_tokens : 1;
    struct pool_state *s = xcalloc(1, sizeof *s);
    s->p = p;
    s->ask = *ask;
    s->n_tokens = n_tokens;
    s->sum = xcalloc(hidden, sizeof *s->sum);
    s->row = xcalloc(n_in, sizeof *s->row);
    s->a = xcalloc(width, sizeof *s->a);
    s->b = xcalloc(width, sizeof *s->b);
    s->out = xcalloc(n_rows * pooler_cols(p, ask), sizeof *s->out);
    return s;
}

void pooling_free(struct pool_state *s) {
    if (!s)
        return;
    free(s->sum);
    free(s->row);
    free(s->a);
    free(s->b);
    free(s->out);
    free(s);
}

/* weighs: some take needs a sum of the rows. Weighted and plain sums do not come together: pooler_load. */
static bool weighs(const struct pooler *p, bool *weighted) {
    bool any = false;
    *weighted = false;
    for (uint32_t i = 0; i < p->n_takes; i++) {
        *weighted |= p->take[i] == TAKE_WEIGHTED;
        any |= p->take[i] == TAKE_MEAN || p->take[i] == TAKE_MEAN_SQRT || p->take[i] == TAKE_WEIGHTED;
    }
    return any;
}

static void add_row(struct pool_state *s, const float *x, uint32_t at) {
    const struct pooler *p = s->p;
    bool weighted;
    if (weighs(p, &weighted))
        for (uint32_t d = 0; d < p->hidden; d++)
            s->sum[d] += (double)x[d] * (weighted ? at + 1 : 1);
    for (uint32_t i = 0; i < takes_of(p, &s->ask); i++) {
        float *row = s->row + (size_t)i * p->hidden;
        if ((p->take[i] == TAKE_CLS && at == 0) || (p->take[i] == TAKE_LAST && at + 1 == s->n_tokens) ||
            (p->take[i] == TAKE_MAX && at == 0))
            memcpy(row, x, p->hidden * sizeof *row);
        else if (p->take[i] == TAKE_MAX)
            for (uint32_t d = 0; d < p->hidden; d++)
                row[d] = fmaxf(row[d], x[d]);
    }
}

void pooling_rows(struct pool_state *s, const float *hidden, uint32_t first, uint32_t n) {
    uint32_t cols = pooler_cols(s->p, &s->ask);
    CHECK(first + n <= s->n_tokens);
    uint32_t known = s->n_seen > first ? MIN(s->n_seen - first, n) : 0;
    s->n_seen = MAX(s->n_seen, first + n);
    for (uint32_t i = known; i < n; i++) {
        const float *x = hidden + (size_t)i * s->p->hidden;
        if (per_token(&s->ask))
            finish_row(s, x, s->out + (size_t)(first + i) * cols);
        else
            add_row(s, x, first + i);
    }
}

/* divide: sums become what their take says. */
static void divide(struct pool_state *s) {
    const struct pooler *p = s->p;
    double n = s->n_tokens;
    for (uint32_t i = 0; i < takes_of(p, &s->ask); i++) {
        double by = p->take[i] == TAKE_MEAN        ? n
                    : p->take[i] == TAKE_MEAN_SQRT ? sqrt(n)
                    : p->take[i] == TAKE_WEIGHTED  ? n * (n + 1) / 2
                                                   : 0;
        for (uint32_t d = 0; by > 0 && d < p->hidden; d++)
            s->row[(size_t)i * p->hidden + d] = (float)(s->sum[d] / by);
    }
}

const float *pooling_finish(struct pool_state *s, uint32_t *rows, uint32_t *cols) {
    *cols = pooler_cols(s->p, &s->ask);
    *rows = per_token(&s->ask) ? s->n_tokens : 1;
    if (!per_token(&s->ask)) {
        divide(s);
        finish_row(s, s->row, s->out);
    }
    for (size_t i = 0; i < (size_t)*rows * *cols; i++)
        if (!isfinite(s->out[i]))
            return NULL;
    return s->out;
}

void pooler_free(struct pooler *p) {
    if (!p)
        return;
    struct steps *all[] = {&p->dense, &p->head};
    for (size_t k = 0; k < ARRAY_LEN(all); k++)
        for (uint32_t i = 0; i < all[k]->n; i++) {
            free(all[k]->v[i].w);
            free(all[k]->v[i].b);
            free(all[k]->v[i].norm);
            free(all[k]->v[i].norm_bias);
        }
    for (uint32_t i = 0; p->labels && i < p->n_labels; i++)
        free(p->labels[i]);
    free(p->labels);
    free(p->prompt);
    free(p);
}

enum pool_task pooler_task_of(const struct pooler *p) {
    return p->task;
}

uint32_t pooler_labels(const struct pooler *p) {
    return p->has_head ? p->n_labels : 0;
}

uint32_t pooler_max_len(const struct pooler *p) {
    return p->max_len;
}
