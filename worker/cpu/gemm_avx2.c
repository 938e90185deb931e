/* gemm_avx2.c: products with packed weights.
 *
 * x is first normalised and laid out in tiles of up to 6 rows, [tile][k][row]. One row passes four panels at
 * once. 2 to 4 rows pass waves: a short run of k of four panels, one after the other, while the next run is
 * prefetched in four streams: neither the memory nor the multiply-adds wait. 5 or 6 rows are bound by
 * arithmetic and pass panel by panel. More rows go in segments: a chunk of k of a panel, from the first-level
 * cache, meets every tile of up to SEGMENT_ROWS rows while the chunk after it is prefetched. Work is handed
 * out by panels, so threads share the bandwidth whatever else runs on their cores.
 */
#include "worker/cpu/gemm.h"

#include "worker/cpu/simd.h"
#include "worker/cpu/tile.h"

enum {
    CHUNK_BYTES = 8192, /* of a panel; with as much prefetched and a tile's x, in the first-level cache */
    WAVE_BYTES = 2048,  /* of each of four panels; likewise */
    WAVE_ROWS = 4,
    WIDEN_TILES = 4,     /* from here on a chunk of a 16-bit type is widened first */
    AHEAD_BYTES = 4096,  /* of 5 or 6 rows */
    GROUP_MAX = 8,       /* panels of a unit of work */
    STREAM_MAX = 32,     /* panels taken at once when streaming */
    OWN_X_FLOATS = 4096, /* up to here each member makes its own x: cheaper than to wait for each other */
};

_Static_assert((int)SEGMENT_ROWS % (int)TILE_ROWS == 0, "a segment is whole tiles");

struct room {
    _Alignas(64) float w[CHUNK_BYTES / sizeof(uint16_t)];
    float c[GROUP_MAX][SEGMENT_ROWS * PANEL_COLS];
};

/* tile_row: the first row of tile `tile` of a segment, counted from the segment's. */
static uint32_t tile_row(const struct segment *s, uint32_t tile) {
    return tile * (s->n_rows / s->n_tiles) + MIN(tile, s->n_rows % s->n_tiles);
}

uint32_t segments_cut(struct segment *out, uint32_t n, uint32_t matrix, uint32_t row0, uint32_t n_rows) {
    uint32_t n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS,
             n_cuts = (n_rows + SEGMENT_ROWS - 1) / SEGMENT_ROWS;
    uint32_t step = n_cuts ? (n_tiles + n_cuts - 1) / n_cuts * TILE_ROWS : 0;
    uint32_t tile0 = out && n ? out[n - 1].tile0 + out[n - 1].n_tiles : 0;
    for (uint32_t r = 0; r < n_rows; r += step, n++) {
        uint32_t rows = MIN(step, n_rows - r), tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
        if (out)
            out[n] = (struct segment){
                .row0 = row0 + r, .n_rows = rows, .tile0 = tile0, .n_tiles = tiles, .matrix = matrix};
        tile0 += tiles;
    }
    return n;
}

/* segment_of: the segment that a tile belongs to. */
static const struct segment *segment_of(const struct product *p, uint32_t tile) {
    uint32_t lo = 0, hi = p->n_segments;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (p->segments[mid].tile0 <= tile)
            lo = mid;
        else
            hi = mid;
    }
    return &p->segments[lo];
}

/* tile_pack: rows of one tile, normalised, k by k. room: [6][n_in] */
static void tile_pack(const struct product *p, uint32_t tile, float *dst, float *room) {
    const struct segment *s = segment_of(p, tile);
    uint32_t n_in = p->w->n_in, i = tile - s->tile0, r0 = tile_row(s, i), n = tile_row(s, i + 1) - r0;
    const float *rows[TILE_ROWS];
    r0 += s->row0;
    for (uint32_t r = 0; r < n; r++) {
        rows[r] = p->x + (size_t)(p->rows ? p->rows[r0 + r] : r0 + r) * n_in;
        if (p->norm.kind != NORM_NONE && n == 1) {
            row_norm_run(&p->norm, rows[0], dst);
            return;
        }
        if (p->norm.kind != NORM_NONE) {
            row_norm_run(&p->norm, rows[r], room + (size_t)r * n_in);
            rows[r] = room + (size_t)r * n_in;
        }
    }
    rows_interleave(rows, n, n_in, dst);
}

/* load_cols, store_cols: of the columns that exist. */
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
    bool glu = w_gated(p->w);
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

/* panels: some panels of one matrix. */
struct panels {
    const uint8_t *w;
    size_t bytes, k_bytes; /* of a panel, of one k */
    uint32_t n_k;
    enum dtype t;
};

static struct panels panels_at(const struct be_w *w, uint32_t matrix, uint32_t panel) {
    struct panels p = {.k_bytes = PANEL_COLS * dtype_bytes(w->dtype), .n_k = w->n_in, .t = w->dtype};
    p.bytes = p.k_bytes * p.n_k;
    p.w = (const uint8_t *)w->data + ((size_t)matrix * w->n_panels + panel) * p.bytes;
    return p;
}

/* wave: n_rows against four panels; `more`: four more follow. */
static void wave(const struct panels *p, const float *x, uint32_t n_rows, bool more, float *c) {
    uint32_t step = WAVE_BYTES / (uint32_t)p->k_bytes;
    for (uint32_t k0 = 0; k0 < p->n_k; k0 += step) {
        uint32_t n_k = MIN(step, p->n_k - k0);
        size_t at = k0 * p->k_bytes, quarter = n_k * p->k_bytes / TILE_STREAMS;
        const uint8_t *next = k0 + step < p->n_k ? p->w + at + WAVE_BYTES
                              : more             ? p->w + TILE_STREAMS * p->bytes
                                                 : NULL;
        for (uint32_t i = 0; i < TILE_STREAMS; i++) {
            struct tile t = {
                .x = x + (size_t)k0 * n_rows,
                .n_k = n_k,
                .w = p->w + i * p->bytes + at,
                .c = c + (size_t)i * n_rows * PANEL_COLS,
                .more = k0 > 0,
                .next = next ? next + i * quarter : NULL,
                .next_near = (ptrdiff_t)p->bytes,
                .next_far = (ptrdiff_t)(2 * p->k_bytes) - TILE_STREAMS * (ptrdiff_t)p->bytes,
            };
            tile_run(p->t, n_rows, &t);
        }
    }
}

/* stream: a segment of up to 6 rows against panels [panel, panel + n), read once. */
static void stream(const struct product *p, struct room *room, const struct segment *s, const float *x,
                   uint32_t panel, uint32_t n) {
    struct panels w = panels_at(p->w, s->matrix, panel);
    uint32_t rows = s->n_rows;
    float *c = room->c[0];
    while (n > 0) {
        uint32_t step = n >= TILE_STREAMS && rows <= WAVE_ROWS ? TILE_STREAMS : 1;
        struct tile t = {.x = x, .w = w.w, .w_panel = w.bytes, .c = c, .n_k = w.n_k};
        if (step == 1) {
            t.next = w.w + AHEAD_BYTES;
            t.next_near = (ptrdiff_t)(2 * w.k_bytes);
            tile_run(w.t, rows, &t);
        } else if (rows == 1) {
            tile_stream(w.t, &t);
        } else {
            wave(&w, x, rows, n >= 2 * TILE_STREAMS, c);
        }
        for (uint32_t i = 0; i < step; i++)
            finish(p, panel + i, s->row0, rows, c + (size_t)i * rows * PANEL_COLS);
        w.w += step * w.bytes;
        panel += step;
        n -= step;
    }
}

/* chunk: n_k of one panel, from k0 on, against all tiles of a segment. next: what to prefetch meanwhile. */
static void chunk(const struct segment *s, struct room *room, const struct panels *w, const float *x,
                  uint32_t k0, uint32_t n_k, const uint8_t *next, float *c) {
    const uint8_t *at = w->w + k0 * w->k_bytes;
    enum dtype type = w->t;
    if (type != DT_F32 && s->n_tiles >= WIDEN_TILES) {
        panel_widen(type, at, n_k, room->w);
        at = (const uint8_t *)room->w;
        type = DT_F32;
    }
    for (uint32_t i = 0; i < s->n_tiles; i++) {
        uint32_t r0 = tile_row(s, i), rows = tile_row(s, i + 1) - r0;
        struct tile t = {
            .x = x + (size_t)r0 * w->n_k + (size_t)k0 * rows,
            .w = at,
            .c = c + (size_t)r0 * PANEL_COLS,
            .n_k = n_k,
            .more = k0 > 0,
            .next = i == 0 ? next : NULL, /* one tile prefetches all of it */
            .next_near = (ptrdiff_t)(2 * w->k_bytes),
        };
        tile_run(type, rows, &t);
    }
}

/* block: a segment against panels [panel, panel + n). */
static void block(const struct product *p, struct room *room, const struct segment *s, const float *x,
                  uint32_t panel, uint32_t n) {
    const struct panels first = panels_at(p->w, s->matrix, panel);
    uint32_t step = CHUNK_BYTES / (uint32_t)first.k_bytes;
    for (uint32_t k0 = 0; k0 < first.n_k; k0 += step)
        for (uint32_t i = 0; i < n; i++) {
            struct panels w = first;
            w.w += i * w.bytes;
            const uint8_t *next = w.w + w.bytes + k0 * w.k_bytes;
            if (i + 1 == n)
                next = k0 + step < w.n_k ? first.w + (k0 + step) * w.k_bytes : NULL;
            chunk(s, room, &w, x, k0, MIN(step, w.n_k - k0), next, room->c[i]);
        }
    for (uint32_t i = 0; i < n; i++)
        finish(p, panel + i, s->row0, s->n_rows, room->c[i]);
}

/* unit_take: the next panels of a segment for one member; false: none left. When one segment streams: large
 * pieces first, then smaller, so that all end together. */
static bool unit_take(struct product *p, const struct segment **s, uint32_t *panel, uint32_t *n) {
    uint32_t n_groups = (p->w->n_panels + p->group - 1) / p->group, i;
    if (p->n_segments > 1 || p->segments->n_rows > TILE_ROWS) {
        i = queue_take(&p->units, n);
        *s = &p->segments[*n ? i / n_groups : 0];
        *panel = i % n_groups * p->group;
        *n = *n ? MIN(p->group, p->w->n_panels - *panel) : 0;
        return *n > 0;
    }
    uint32_t step = p->n_rows <= WAVE_ROWS ? TILE_STREAMS : 1;
    uint32_t done = atomic_load_explicit(&p->units.next, memory_order_relaxed);
    uint32_t share = (p->units.n - MIN(done, p->units.n)) / (4 * (uint32_t)p->b->n_threads);
    *s = p->segments;
    *panel = queue_take_upto(&p->units, MIN(MAX(share / step * step, step), STREAM_MAX), n);
    return *n > 0;
}

static void member_run(void *arg, int member) {
    struct product *p = arg;
    const struct segment *s;
    uint32_t n, i, panel, n_in = p->w->n_in;
    float *wide = p->wide_rows + (size_t)member * TILE_ROWS * n_in, *own = p->packed;
    const float *packed = own;
    if (p->n_rows == 1 && p->norm.kind == NORM_NONE) {
        packed = p->x + (p->rows ? (size_t)p->rows[0] * n_in : 0); /* as it lies */
    } else if (p->own_x) {
        packed = own += (size_t)member * p->n_rows * n_in;
        tile_pack(p, 0, own, wide);
    } else {
        while (i = queue_take(&p->pack, &n), n) {
            s = segment_of(p, i);
            tile_pack(p, i, own + (size_t)(s->row0 + tile_row(s, i - s->tile0)) * n_in, wide);
        }
        team_barrier(p->b->team);
    }
    while (unit_take(p, &s, &panel, &n)) {
        const float *x = packed + (size_t)s->row0 * n_in;
        (s->n_rows <= TILE_ROWS ? stream : block)(p, &p->rooms[member], s, x, panel, n);
    }
    if (!p->rope)
        return;
    team_barrier(p->b->team);
    while (i = queue_take(&p->tails, &n), n)
        rope_row(p->b, p->rope, i, p->y + i * p->stride);
}

void product_run(struct be *b, struct product *p) {
    const struct be_w *w = p->w;
    uint32_t n_threads = (uint32_t)b->n_threads;
    CHECK(w->panels);
    if (p->n_rows == 0 || w->n_out == 0)
        return;
    if (!p->segments) {
        uint32_t n = segments_cut(NULL, 0, 0, 0, p->n_rows);
        struct segment *out = cpu_scratch(b, SCRATCH_SEGMENT, n * sizeof *out);
        p->n_segments = segments_cut(out, 0, 0, 0, p->n_rows);
        p->segments = out;
    }
    p->b = b;
    p->n_tiles = p->segments[p->n_segments - 1].tile0 + p->segments[p->n_segments - 1].n_tiles;
    p->own_x = p->n_tiles == 1 && (size_t)p->n_rows * w->n_in <= OWN_X_FLOATS;
    size_t packed = (size_t)p->n_rows * w->n_in * (p->own_x ? n_threads : 1);
    p->packed = cpu_scratch(b, SCRATCH_X, packed * sizeof(float));
    p->rooms = cpu_scratch(b, SCRATCH_THREAD, n_threads * sizeof(struct room));
    p->wide_rows = cpu_scratch(b, SCRATCH_ROWS, (size_t)n_threads * TILE_ROWS * w->n_in * sizeof(float));
    p->group = MAX(1u, MIN(GROUP_MAX, p->n_segments * w->n_panels / (16 * n_threads)));
    queue_init(&p->pack, p->n_tiles, 1);
    if (p->n_segments == 1 && p->n_rows <= TILE_ROWS)
        queue_init(&p->units, w->n_panels, 1);
    else
        queue_init(&p->units, p->n_segments * ((w->n_panels + p->group - 1) / p->group), 1);
    queue_init(&p->tails, p->n_rows, 1);
    team_run(b->team, member_run, p);
}

void avx2_gemm(struct be *b, const struct op_gemm *op) {
    if (op->reduce && b->group) {
        group_gemm(b, op, avx2_gemm);
        return;
    }
    uint32_t n = op->n_rows ? op->n_rows : b->plan.n_tokens;
    uint32_t cols = w_gated(op->w) ? op->w->n_out / 2 : op->w->n_out;
    CHECK(op->y != op->x && op->w->n_experts == 1);
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
    product_run(b, &p);
}

void avx2_logits(struct be *b, const struct op_logits *op) {
    const struct plan *plan = &b->plan;
    bool shared = op->sharded && b->group;
    CHECK(op->col0 <= b->n_vocab && op->w->n_out <= b->n_vocab - op->col0);
    CHECK((shared || op->w->n_out == b->n_vocab) && !w_gated(op->w) && op->w->n_experts == 1);
    if (shared)
        group_logits_begin(b->group);
    struct product p = {
        .w = op->w,
        .x = cpu_f32(op->x, op->gathered ? plan->n_rows : plan->n_tokens, op->w->n_in),
        .rows = op->gathered ? NULL : plan->rows,
        .norm = row_norm_of(&op->norm, op->w->n_in),
        .y = b->logits + op->col0,
        .stride = b->n_vocab_padded,
        .cols = op->w->n_out,
        .bias = cpu_vector(op->bias, op->w->n_out),
        .scale = op->scale == 0 ? 1.0f : op->scale,
        .softcap = op->softcap,
        .n_rows = plan->n_rows,
    };
    product_run(b, &p);
    if (shared)
        group_logits_end(b->group, plan->n_rows, op->col0, op->w->n_out);
    b->n_logits = plan->n_rows;
}
