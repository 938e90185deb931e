#include "worker/cpu/be.h"

#include "worker/cpu/convert.h"

/* taken: how many rows and columns of a source this rank takes. */
static uint32_t taken_rows(const struct be_weight_src *s) {
    return s->n_rows ? s->n_rows : s->rows - s->row0;
}

static uint32_t taken_cols(const struct be_weight_src *s) {
    return s->n_cols ? s->n_cols : s->cols - s->col0;
}

static int src_check(const struct be_weight_src *s, char err[BE_ERR_BYTES]) {
    static const char *const names[N_DTYPE] = {"none", "f32", "f16", "bf16", "fp8 e4m3",
                                               "i8",   "i32", "i64", "u8",   "bool"};
    if (!is_float_type(s->dtype))
        return cpu_err(err, "weights of type %s: the CPU backend holds f32, f16 and bf16",
                       (unsigned)s->dtype < N_DTYPE ? names[s->dtype] : "unknown");
    if (s->scale)
        return cpu_err(err, "scaled weights: the CPU backend holds f32, f16 and bf16 without scales");
    if (s->row0 > s->rows || s->n_rows > s->rows - s->row0 || s->col0 > s->cols ||
        s->n_cols > s->cols - s->col0)
        return cpu_err(err, "shard of rows %u+%u and columns %u+%u lies outside a %u x %u weight", s->row0,
                       s->n_rows, s->col0, s->n_cols, s->rows, s->cols);
    return 0;
}

static int kind_check(enum be_weight_kind kind, const struct be_weight_src *src, uint32_t n_src,
                      char err[BE_ERR_BYTES]) {
    bool experts = kind == BE_W_EXPERTS || kind == BE_W_EXPERTS_GATE_UP;
    if (n_src == 0)
        return cpu_err(err, "a weight without sources");
    for (uint32_t i = 0; i < n_src; i++) {
        if (src_check(&src[i], err) != 0)
            return -1;
        if (kind != BE_W_VECTOR && taken_cols(&src[i]) != taken_cols(&src[0]))
            return cpu_err(err, "stacked weights of %u and %u columns", taken_cols(&src[0]),
                           taken_cols(&src[i]));
        if (experts && taken_rows(&src[i]) != taken_rows(&src[0]))
            return cpu_err(err, "experts of %u and %u rows", taken_rows(&src[0]), taken_rows(&src[i]));
    }
    if (kind == BE_W_EXPERTS_GATE_UP && n_src % 2 != 0)
        return cpu_err(err, "experts' gate and up: %u sources are not pairs", n_src);
    if (kind == BE_W_GATE_UP && (n_src != 2 || taken_rows(&src[0]) != taken_rows(&src[1])))
        return cpu_err(err, "gate and up must be two weights of equal shape");
    return 0;
}

/* row_at: output row `row` of the stack: its source, and the row within what is taken of it. */
static const struct be_weight_src *row_at(const struct be_weight_src *src, uint32_t *row) {
    while (*row >= taken_rows(src)) {
        *row -= taken_rows(src);
        src++;
    }
    return src;
}

/* w_column: the output column at place j of a panel; n_out or more: padding. */
static uint32_t w_column(const struct be_w *w, uint32_t panel, uint32_t j) {
    if (!w_gated(w))
        return panel * PANEL_COLS + j;
    uint32_t half = w->n_out / 2, col = panel * (PANEL_COLS / 2) + j % (PANEL_COLS / 2);
    if (col >= half)
        return w->n_out;
    return j < PANEL_COLS / 2 ? col : half + col;
}

struct pack {
    struct be_w *w;
    const struct be_weight_src *src;
    uint32_t n_each; /* sources of one expert; of a weight without experts, all */
    struct team_queue queue;
};

/* column_pack: copies `n_in` values of a source's row, `step` elements apart in the packed weight. The
 * types are equal, or the packed one is f32. */
static void column_pack(const struct be_w *w, size_t at, size_t step, const struct be_weight_src *s,
                        uint32_t row) {
    size_t from = (size_t)(s->row0 + row) * s->cols + s->col0;
    if (w->dtype == DT_F32) {
        float *d = (float *)w->data + at;
        for (uint32_t k = 0; k < w->n_in; k++)
            d[k * step] = f32_load(s->data, s->dtype, from + k);
        return;
    }
    uint16_t *d = (uint16_t *)w->data + at;
    const uint16_t *h = (const uint16_t *)s->data + from;
    for (uint32_t k = 0; k < w->n_in; k++)
        d[k * step] = h[k];
}

static void pack_run(void *arg, int member) {
    (void)member;
    struct pack *p = arg;
    struct be_w *w = p->w;
    uint32_t n, i;
    uint32_t n_items = w->panels ? w->n_panels : w->n_out, n_places = w->panels ? PANEL_COLS : 1;
    while (i = queue_take(&p->queue, &n), n) {
        for (uint32_t item = i; item < i + n; item++) {
            const struct be_weight_src *src = p->src + item / n_items * p->n_each;
            for (uint32_t j = 0; j < n_places; j++) {
                uint32_t row = w->panels ? w_column(w, item % n_items, j) : item % n_items;
                if (row >= w->n_out)
                    continue;
                size_t at = w->panels ? (size_t)item * w->n_in * PANEL_COLS + panel_place(w->dtype, j)
                                      : (size_t)item * w->n_in;
                const struct be_weight_src *s = row_at(src, &row);
                column_pack(w, at, w->panels ? PANEL_COLS : 1, s, row);
            }
        }
    }
}

static struct be_w *vector_new(struct be *b, const struct be_weight_src *src, uint32_t n_src) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < n_src; i++)
        n += (uint64_t)taken_rows(&src[i]) * taken_cols(&src[i]);
    struct be_w *w = n <= UINT32_MAX ? owned_new(b, sizeof *w, (n + PANEL_COLS) * sizeof(float)) : NULL;
    if (!w)
        return NULL;
    memset((float *)w->own.data + n, 0, PANEL_COLS * sizeof(float)); /* read by whole vectors */
    *w = (struct be_w){.own = w->own, .kind = BE_W_VECTOR, .dtype = DT_F32, .n_out = 1, .n_in = (uint32_t)n};
    w->n_experts = 1;
    w->data = w->own.data;
    w->bytes = n * sizeof(float);
    float *d = w->data;
    for (uint32_t i = 0; i < n_src; i++)
        for (uint32_t r = 0; r < taken_rows(&src[i]); r++)
            for (uint32_t c = 0; c < taken_cols(&src[i]); c++)
                *d++ = f32_load(src[i].data, src[i].dtype,
                                (size_t)(src[i].row0 + r) * src[i].cols + src[i].col0 + c);
    return w;
}

static struct be_w *matrix_new(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src,
                               uint32_t n_src) {
    uint64_t n_out = 0, bytes;
    enum dtype t = src[0].dtype;
    uint32_t n_each = kind == BE_W_EXPERTS ? 1 : kind == BE_W_EXPERTS_GATE_UP ? 2 : n_src;
    for (uint32_t i = 0; i < n_src; i++) {
        n_out += i < n_each ? taken_rows(&src[i]) : 0;
        if (src[i].dtype != t)
            t = DT_F32; /* mixed: all become f32 */
    }
    struct be_w is = {.kind = kind, .dtype = t, .panels = b->avx2, .n_in = taken_cols(src)};
    is.n_experts = n_src / n_each;
    uint64_t n_panels = w_gated(&is) ? (n_out / 2 + 7) / 8 : (n_out + PANEL_COLS - 1) / PANEL_COLS;
    uint64_t n_stored = is.n_experts * (b->avx2 ? n_panels * PANEL_COLS : n_out);
    struct be_w *w;
    if (n_stored > UINT32_MAX ||
        __builtin_mul_overflow(n_stored * dtype_bytes(t), (uint64_t)is.n_in, &bytes) ||
        !(w = owned_new(b, sizeof *w, bytes)))
        return NULL;
    is.own = w->own;
    is.data = w->own.data;
    is.bytes = bytes;
    is.n_out = (uint32_t)n_out;
    is.n_panels = b->avx2 ? (uint32_t)n_panels : 0;
    *w = is;
    size_t panel_bytes = (size_t)w->n_in * PANEL_COLS * dtype_bytes(t);
    for (size_t x = 1; w->n_panels && x <= w->n_experts; x++) /* what a last panel has no columns for */
        memset((uint8_t *)w->data + (x * w->n_panels - 1) * panel_bytes, 0, panel_bytes);
    struct pack p = {.w = w, .src = src, .n_each = n_each};
    queue_init(&p.queue, w->n_experts * (w->panels ? w->n_panels : w->n_out), 1);
    team_run(b->team, pack_run, &p);
    return w;
}

struct be_w *cpu_weight(struct be *b, enum be_weight_kind kind, const struct be_weight_src *src,
                        uint32_t n_src, char err[BE_ERR_BYTES]) {
    if (kind_check(kind, src, n_src, err) != 0)
        return NULL;
    struct be_w *w = kind == BE_W_VECTOR ? vector_new(b, src, n_src) : matrix_new(b, kind, src, n_src);
    if (!w) {
        cpu_err(err, "no memory for a weight of %u x %u, %u stacked", taken_rows(src), taken_cols(src),
                n_src);
        return NULL;
    }
    if (kind != BE_W_VECTOR) /* grown now, not in a step; rows come in tiles of 6 */
        cpu_scratch(b, SCRATCH_X, ((size_t)b->n_tokens_max + 6) * w->n_in * sizeof(float));
    return w;
}

void cpu_weight_free(struct be *b, struct be_w *w) {
    (void)b;
    owned_free(w ? &w->own : NULL);
}

uint64_t cpu_weight_bytes(const struct be_w *w) {
    return w->bytes;
}

void w_row_get(const struct be_w *w, uint32_t row, float *dst) {
    CHECK(row < w->n_out && !w_gated(w) && w->n_experts == 1);
    size_t at = (size_t)row * w->n_in, step = 1;
    if (w->panels) {
        at = (size_t)(row / PANEL_COLS) * w->n_in * PANEL_COLS + panel_place(w->dtype, row % PANEL_COLS);
        step = PANEL_COLS;
    }
    for (uint32_t k = 0; k < w->n_in; k++)
        dst[k] = f32_load(w->data, w->dtype, at + k * step);
}
