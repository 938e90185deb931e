/* tile.h: the one inner loop of products and attention.
 *
 * c[panel][row][16] (+)= sum over k, in order, of x[k][row] * w[panel][k][16], for up to 6 rows and up to 4
 * panels, whatever fits 16 registers. Each output element is one chain of fused multiply-adds over ascending
 * k, so its bits do not depend on the tile it is computed in, nor on where a caller cuts K.
 */
#ifndef WEIR_WORKER_CPU_TILE_H
#define WEIR_WORKER_CPU_TILE_H

#include "worker/backend.h"

enum { TILE_ROWS = 6 };

struct tile {
    const float *x; /* [k][n_rows]; for tile_rows [n_rows][16] */
    uint32_t n_k;
    const uint8_t *w;    /* panels of one type, [k][16] */
    size_t w_panel;      /* bytes from panel to panel */
    float *c;            /* [n_panels][n_rows][16] */
    size_t c_panel;      /* tile_rows: floats from panel to panel of c, which need not lie close */
    bool more;           /* c holds the sum of earlier k */
    const uint8_t *next; /* what to prefetch, 64 bytes for every two k; NULL: nothing */
};

/* tile_run: n_rows in 1..6 of one panel. */
void tile_run(enum dtype t, uint32_t n_rows, const struct tile *tile);

/* tile_rows: any number of panels, one after the other, with at most 16 k: attention's weights times values.
 */
void tile_rows(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *tile);

/* tile_stream: for weights that come straight from memory: each panel is prefetched some way ahead, and after
 * its end the panel that is n_panels further. n_panels 4, 2 or 1, at most tile_panels(n_rows). */
void tile_stream(enum dtype t, uint32_t n_rows, uint32_t n_panels, const struct tile *tile);

static inline uint32_t tile_panels(uint32_t n_rows) {
    return n_rows == 1 ? 4 : n_rows == 2 ? 2 : 1;
}

#endif
