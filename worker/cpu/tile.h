/* tile.h: the one inner loop of products and attention.
 *
 * c[panel][row][16] (+)= sum over k, in order, of x[k][row] * w[panel][k][16], for up to 6 rows of one panel,
 * or one row of four panels: what fits 16 registers. Each output element is one chain of fused multiply-adds
 * over ascending k, so its bits do not depend on the tile it is computed in, nor on where a caller cuts K.
 */
#ifndef WEIR_WORKER_CPU_TILE_H
#define WEIR_WORKER_CPU_TILE_H

#include "worker/backend.h"

enum { TILE_ROWS = 6, TILE_STREAMS = 4 };

struct tile {
    const float *x; /* [k][n_rows]; for tile_rows [n_rows][16] */
    uint32_t n_k;
    const uint8_t *w; /* panels of one type, [k][16] */
    size_t w_panel;   /* tile_rows, tile_stream: bytes from panel to panel */
    float *c;         /* [n_panels][n_rows][16] */
    size_t c_panel;   /* tile_rows: floats from panel to panel of c, which need not lie close */
    bool more;        /* c holds the sum of earlier k */

    /* tile_run: what to prefetch meanwhile: for each two k as many bytes as they take in w, at `next`, which
     * then moves on by next_near, and after every fourth time by next_far too. It may pass the end of w: a
     * prefetch does not fault. NULL: nothing. */
    const uint8_t *next;
    ptrdiff_t next_near, next_far;
};

/* tile_run: n_rows in 1..6 of one panel. */
void tile_run(enum dtype t, uint32_t n_rows, const struct tile *tile);

/* tile_rows: any number of panels, one after the other, with at most 16 k: attention's weights times values.
 */
void tile_rows(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *tile);

/* tile_stream: one row of four panels that come straight from memory. */
void tile_stream(enum dtype t, const struct tile *tile);

#endif
