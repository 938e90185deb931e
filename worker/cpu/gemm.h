/* gemm.h: products with packed weights, as the AVX2 operations share them: linear layers, logits, experts. */
#ifndef WEIR_WORKER_CPU_GEMM_H
#define WEIR_WORKER_CPU_GEMM_H

#include "worker/cpu/cpu.h"

struct room; /* of one member; gemm_avx2.c */

/* segment: consecutive rows that meet the same matrix; at most SEGMENT_ROWS. They are cut into tiles of at
 * most 6 rows as evenly as possible. */
enum { SEGMENT_ROWS = 192 };
struct segment {
    uint32_t row0, n_rows, tile0, n_tiles;
    uint32_t matrix; /* of an experts' weight; 0 elsewhere */
};

/* product: y[r] = add[r] + cap(act(scale * norm(x[rows[r]]) W^T + bias)), and a tail of rope_store. */
struct product {
    const struct be_w *w;
    const float *x;       /* [..][n_in] */
    const uint32_t *rows; /* [n_rows] of x; NULL: in order */
    struct row_norm norm;
    float *y;
    size_t stride;     /* of y, and of add, in floats */
    uint32_t cols;     /* of y */
    const float *bias; /* padded to 16, or NULL */
    const float *add;
    enum act_kind act;
    float scale, softcap;
    uint32_t n_rows;
    const struct rope_store *rope;
    const struct segment *segments; /* NULL: one matrix, cut by product_run */
    uint32_t n_segments;

    /* product_run's own */
    struct be *b;
    bool own_x;                       /* each member makes its own x */
    float *packed;                    /* [n_tiles][n_in][rows of the tile]; own_x: one for each member */
    uint32_t n_tiles, n_units, group; /* group: panels of a unit */
    struct room *rooms;
    float *wide_rows; /* [n_threads][6][n_in], for rows on their way into a tile */
    struct team_queue pack, units, tails;
};

/* product_run: to its end, on the whole team; by member 0. */
void product_run(struct be *b, struct product *p);

/* segments_cut: cuts rows [row0, row0 + n_rows) of one matrix, after `n` segments that there are; their new
 * number. out NULL: only counts. */
uint32_t segments_cut(struct segment *out, uint32_t n, uint32_t matrix, uint32_t row0, uint32_t n_rows);

#endif
