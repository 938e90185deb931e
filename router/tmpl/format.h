/* format.h: numbers and texts with a width, for "..." % args and "...".format(...). Pure but for the run's
 * output and budget. */
#ifndef WEIR_ROUTER_TMPL_FORMAT_H
#define WEIR_ROUTER_TMPL_FORMAT_H

#include "router/tmpl/val.h"

enum { TM_WIDTH_MAX = 1 << 24, TM_PRECISION_MAX = 100 };

struct tm_spec {
    const struct tm_str *fill; /* NULL: a space */
    char align;                /* '<' '>' '^' '=', or 0 */
    char sign;                 /* '+' ' ' '-', or 0 */
    bool alt, zero;
    char group; /* ',' '_', or 0 */
    int64_t width;
    int precision; /* -1: none */
    char type;     /* 0: none */
};

/* tm_put_int: type is one of d, i, u, x, X, o, b, n or 0. percent_style: as % has precision and prefixes. */
void tm_put_int(struct tm_run *r, const struct tm_spec *s, int64_t v, bool percent_style);
/* tm_put_float: type is one of e, E, f, F, g, G, n, % or 0. */
void tm_put_float(struct tm_run *r, const struct tm_spec *s, double f);
/* tm_put_char: of %c and type c. */
void tm_put_char(struct tm_run *r, const struct tm_spec *s, struct tm_val v);
/* tm_put_padded: the precision cuts, the width pads; align is '<', '>' or '^'. */
void tm_put_padded(struct tm_run *r, const struct tm_spec *s, struct tm_str *text, char align);

#endif
