/* gemm_avx2.c: products with packed weights.
 *
 * x is first normalised and laid out in tiles of 6 rows, [tile][k][row]. Up to 6 rows then stream the weights
 * through registers once, straight from memory. More rows go in blocks: a chunk of KC k of a panel is widened
 * to f32 into the first-level cache and meets every tile of up to ROWS_MAX rows; the chunk after it is
 * prefetched meanwhile. Work is handed out by panels, so threads share the bandwidth whatever else runs on
 * their cores.
 */
#include "worker/cpu/cpu.h"

#include "worker/cpu/simd.h"
#include "worker/cpu/tile.h"

enum {
    KC = 256,        /* k of a chunk: 16 KiB widened */
    ROWS_MAX = 192,  /* rows of a block: with KC, 192 KiB of x in the second-level cache */
    GROUP_MAX = 8,   /* panels of a unit of work */
    STREAM_MAX = 32, /* panels taken at once when streaming */
};

_Static_assert(ROWS_MAX % TILE_ROWS == 0, "a block is whole tiles");

/* room: of one member. */
struct room {
    _Alignas(64) float w[KC * PANEL_COLS];
    float c[GROUP_MAX][ROWS_MAX * PANEL_COLS];
};

struct product {
    const struct be_w *w;
    const float *x; /* [n_rows][n_in], or by `rows` */
    const uint32_t *rows;
    struct row_norm norm;
    float *packed; /* [n_tiles][n_in][rows of the tile] */
    float *y;
    size_t stride;     /* of y, and of add */
    uint32_t cols;     /* of y */
    const float *bias; /* padded to 16, or NULL */
    const float *add;
    enum act_kind act;
    float scale, softcap;
    uint32_t n_rows;
    uint32_t rows_block, group; /* rows and panels of a unit */
    const struct rope_store *rope;
    struct be *b;
    struct room *rooms;
    float *wide_rows; /* [n_threads][TILE_ROWS][n_in], for rows on their way into a tile */
    struct team_queue pack, units, tails;
};

/* tile_pack: rows of one tile, normalised, k by k. room: [TILE_ROWS][n_in] */
static void tile_pack(const struct product *p, uint32_t tile, float *room) {
    uint32_t n_in = p->w->n_in, r0 = tile * TILE_ROWS, n = MIN(TILE_ROWS, p->n_rows - r0);
    float *dst = p->packed + (size_t)r0 * n_in;
    const float *rows[TILE_ROWS];
    for (uint32_t r = 0; r < n; r++) {
        rows[r] = p->x + (size_t)(p->rows ? p->rows[r0 + r] : r0 + r) * n_in;
        if (p->norm.kind != NORM_NONE) {
            row_norm_run(&p->norm, rows[r], room + (size_t)r * n_in);
            rows[r] = room + (size_t)r * n_in;
        }
    }
    rows_interleave(rows, n, n_in, dst);
}

/* masked: a store or load of the columns that exist. */
INLINE __m256 load_cols(const float *p, uint32_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, v_mask((int)n));
}
INLINE void store_cols(float *p, __m256 v, uint32_t n) {
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, v_mask((int)n), v);
}

/* finish: bias, activation, gate, cap and residual of n_rows x 16 sums of one panel, into y. */
static void finish(const struct product *p, uint32_t panel, uint32_t row0, uint32_t n_rows, const float *c) {
    bool glu = p->w->kind == BE_W_GATE_UP;
    uint32_t width = glu ? 8 : 16, col = panel * width, n = MIN(width, p->cols - col), half = p->w->n_out / 2;
    uint32_t n_lo = MIN(n, 8), n_hi = n > 8 ? n - 8 : 0;
    __m256 b_lo = _mm256_setzero_ps(), b_hi = b_lo, scale = v_set(p->scale);
    if (p->bias) {
        b_lo = _mm256_loadu_ps(p->bias + col);
        b_hi = _mm256_loadu_ps(p->bias + (glu ? half + col : col + 8));
    }
    for (uint32_t r = 0; r < n_rows; r++, c += 16) {
        size_t at = (row0 + r) * p->stride + col;
        __m256 lo = _mm256_loadu_ps(c), hi = _mm256_loadu_ps(c + 8);
        if (p->scale != 1.0f) {
            lo = _mm256_mul_ps(lo, scale);
            hi = _mm256_mul_ps(hi, scale);
        }
        if (p->bias) {
            lo = _mm256_add_ps(lo, b_lo);
            hi = _mm256_add_ps(hi, b_hi);
        }
        if (glu) {
            lo = _mm256_mul_ps(v_act(p->act, lo), hi);
        } else if (p->act != ACT_NONE) {
            lo = v_act(p->act, lo);
            hi = v_act(p->act, hi);
        }
        if (p->softcap > 0) {
            __m256 cap = v_set(p->softcap);
            lo = _mm256_mul_ps(cap, v_tanh(_mm256_div_ps(lo, cap)));
            hi = _mm256_mul_ps(cap, v_tanh(_mm256_div_ps(hi, cap)));
        }
        if (p->add) {
            lo = _mm256_add_ps(load_cols(p->add + at, n_lo), lo);
            if (n_hi)
                hi = _mm256_add_ps(load_cols(p->add + at + 8, n_hi), hi);
        }
        store_cols(p->y + at, lo, n_lo);
        if (n_hi)
            store_cols(p->y + at + 8, hi, n_hi);
    }
}

/* stream: up to 6 rows against panels [panel, panel + n). */
static void stream(const struct product *p, struct room *room, uint32_t panel, uint32_t n) {
    const struct be_w *w = p->w;
    size_t panel_bytes = (size_t)w->n_in * PANEL_COLS * dtype_bytes(w->dtype);
    uint32_t rows = p->n_rows, step = tile_panels(rows);
    for (uint32_t i = 0; i < n; i += step) {
        while (step > n - i)
            step /= 2;
        struct tile t = {
            .x = p->packed,
            .w = (const uint8_t *)w->data + (panel + i) * panel_bytes,
            .w_panel = panel_bytes,
            .c = room->c[0],
            .n_k = w->n_in,
        };
        tile_stream(w->dtype, rows, step, &t);
        for (uint32_t j = 0; j < step; j++)
            finish(p, panel + i + j, 0, rows, room->c[0] + (size_t)j * rows * PANEL_COLS);
    }
}

/* chunk: one chunk of one panel against all tiles of the block. */
static void chunk(const struct product *p, struct room *room, const uint8_t *w, const uint8_t *next, float *c,
                  uint32_t k0, uint32_t row0, uint32_t n_rows) {
    enum dtype t = p->w->dtype;
    uint32_t n_k = MIN(KC, p->w->n_in - k0);
    const uint8_t *wide = w;
    if (t != DT_F32) {
        panel_widen(t, w, n_k, room->w);
        wide = (const uint8_t *)room->w;
    }
    /* a chunk of a 16-bit type is 64 bytes for two k, which one tile prefetches; one of f32 takes two tiles
     */
    size_t left = (size_t)n_k * PANEL_COLS * dtype_bytes(t), per_tile = (size_t)n_k * 32;
    for (uint32_t r = 0; r < n_rows; r += TILE_ROWS) {
        uint32_t rows = MIN(TILE_ROWS, n_rows - r);
        struct tile a = {
            .x = p->packed + (size_t)(row0 + r) * p->w->n_in + (size_t)k0 * rows,
            .w = wide,
            .c = c + (size_t)r * PANEL_COLS,
            .n_k = n_k,
            .more = k0 > 0,
            .next = left ? next : NULL,
        };
        tile_run(DT_F32, rows, &a);
        next = next ? next + per_tile : NULL;
        left -= MIN(left, per_tile);
    }
}

/* block: rows [row0, row0 + n_rows) against panels [panel, panel + n). */
static void block(const struct product *p, struct room *room, uint32_t row0, uint32_t n_rows, uint32_t panel,
                  uint32_t n) {
    const struct be_w *w = p->w;
    size_t row_bytes = PANEL_COLS * dtype_bytes(w->dtype), panel_bytes = w->n_in * row_bytes;
    const uint8_t *first = (const uint8_t *)w->data + panel * panel_bytes;
    for (uint32_t k0 = 0; k0 < w->n_in; k0 += KC)
        for (uint32_t i = 0; i < n; i++) {
            const uint8_t *at = first + i * panel_bytes + k0 * row_bytes, *next = at + panel_bytes;
            if (i + 1 == n)
                next = k0 + KC < w->n_in ? first + (k0 + KC) * row_bytes : NULL;
            chunk(p, room, at, next, room->c[i], k0, row0, n_rows);
        }
    for (uint32_t i = 0; i < n; i++)
        finish(p, panel + i, row0, n_rows, room->c[i]);
}

/* take_stream: panels for one member: large pieces first, then smaller, so that all end together. */
static uint32_t take_stream(struct product *p, uint32_t *n) {
    uint32_t step = tile_panels(p->n_rows);
    uint32_t done = atomic_load_explicit(&p->units.next, memory_order_relaxed);
    uint32_t share = (p->units.n - MIN(done, p->units.n)) / (4 * (uint32_t)p->b->n_threads);
    return queue_take_upto(&p->units, MIN(MAX(share / step * step, step), STREAM_MAX), n);
}

static void product_run(void *arg, int member) {
    struct product *p = arg;
    struct room *room = &p->rooms[member];
    uint32_t n, i, n_groups = (p->w->n_panels + p->group - 1) / p->group;
    while (i = queue_take(&p->pack, &n), n)
        tile_pack(p, i, p->wide_rows + (size_t)member * TILE_ROWS * p->w->n_in);
    team_barrier(p->b->team);
    if (p->n_rows <= TILE_ROWS) {
        while (i = take_stream(p, &n), n)
            stream(p, room, i, n);
    } else {
        while (i = queue_take(&p->units, &n), n) {
            uint32_t row0 = i / n_groups * p->rows_block, panel = i % n_groups * p->group;
            block(p, room, row0, MIN(p->rows_block, p->n_rows - row0), panel,
                  MIN(p->group, p->w->n_panels - panel));
        }
    }
    if (!p->rope)
        return;
    team_barrier(p->b->team);
    while (i = queue_take(&p->tails, &n), n)
        rope_row(p->b, p->rope, i, p->y + i * p->stride);
}

static void product(struct be *b, struct product *p) {
    const struct be_w *w = p->w;
    CHECK(w->panels);
    if (p->n_rows == 0 || w->n_out == 0)
        return;
    uint32_t n_tiles = (p->n_rows + TILE_ROWS - 1) / TILE_ROWS;
    uint32_t n_blocks = (p->n_rows + ROWS_MAX - 1) / ROWS_MAX;
    p->b = b;
    p->packed = cpu_scratch(b, SCRATCH_X, (size_t)n_tiles * TILE_ROWS * w->n_in * sizeof(float));
    p->rooms = cpu_scratch(b, SCRATCH_THREAD, (size_t)b->n_threads * sizeof(struct room));
    p->wide_rows = cpu_scratch(b, SCRATCH_ROWS, (size_t)b->n_threads * TILE_ROWS * w->n_in * sizeof(float));
    p->rows_block = (n_tiles + n_blocks - 1) / n_blocks * TILE_ROWS;
    n_blocks = (p->n_rows + p->rows_block - 1) / p->rows_block;
    p->group = MAX(1u, MIN(GROUP_MAX, n_blocks * w->n_panels / (16 * (uint32_t)b->n_threads)));
    queue_init(&p->pack, n_tiles, 1);
    if (p->n_rows <= TILE_ROWS)
        queue_init(&p->units, w->n_panels, 1);
    else
        queue_init(&p->units, n_blocks * ((w->n_panels + p->group - 1) / p->group), 1);
    queue_init(&p->tails, p->n_rows, 1);
    team_run(b->team, product_run, p);
}

void avx2_gemm(struct be *b, const struct op_gemm *op) {
    uint32_t n = op->n_rows ? op->n_rows : b->plan.n_tokens;
    uint32_t cols = op->w->kind == BE_W_GATE_UP ? op->w->n_out / 2 : op->w->n_out;
    CHECK(op->y != op->x);
    struct product p = {
        .w = op->w,
        .x = cpu_f32(op->x, n, op->w->n_in),
        .norm = row_norm_of(&op->norm, op->w->n_in),
        .y = cpu_f32(op->y, n, cols),
        .stride = cols,
        .cols = cols,
        .bias = cpu_vector(op->bias, op->w->n_out),
        .add = op->add ? cpu_f32(op->add, n, cols) : NULL,
        .act = op->act,
        .scale = 1,
        .n_rows = n,
        .rope = op->rope.on ? &op->rope : NULL,
    };
    if (p.rope) {
        CHECK(n == b->plan.n_tokens);
        rope_prepare(b, p.rope);
    }
    product(b, &p);
}

void avx2_logits(struct be *b, const struct op_logits *op) {
    const struct plan *plan = &b->plan;
    CHECK(op->w->n_out == b->n_vocab && op->w->kind != BE_W_GATE_UP);
    struct product p = {
        .w = op->w,
        .x = cpu_f32(op->x, plan->n_tokens, op->w->n_in),
        .rows = plan->rows,
        .norm = row_norm_of(&op->norm, op->w->n_in),
        .y = b->logits,
        .stride = b->n_vocab_padded,
        .cols = b->n_vocab,
        .bias = cpu_vector(op->bias, op->w->n_out),
        .scale = op->scale == 0 ? 1.0f : op->scale,
        .softcap = op->softcap,
        .n_rows = plan->n_rows,
    };
    product(b, &p);
    b->n_logits = plan->n_rows;
}
