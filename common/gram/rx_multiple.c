#include "common/gram/engine.h"

/* Multiples of step / 10^scale, read digit by digit: K_MULTIPLE is what may follow. The state is the
 * remainder of the digits so far by step, and the place: before the number, in its whole part, or behind the
 * point with `left` digits of the scale to come. Behind those, only zeros keep it a multiple. */

enum { PLACE_START = 0, PLACE_WHOLE = 1, PLACE_FRACTION = 2 };

/* c of the node: where, left, scale. */
static uint32_t pack(uint32_t where, uint32_t left, uint32_t scale) {
    return where | left << 8 | scale << 16;
}

/* shift: rest * 10^n modulo step. */
static uint32_t shift(uint64_t rest, uint32_t n, uint32_t step) {
    while (n--)
        rest = rest * 10 % step;
    return (uint32_t)rest;
}

bool rx_multiple_nullable(const struct rx_node *x) {
    uint32_t where = x->c & 0xFF, left = x->c >> 8 & 0xFF, scale = x->c >> 16;
    if (where == PLACE_START)
        return false;
    return shift(x->b, where == PLACE_WHOLE ? scale : left, x->a) == 0;
}

/* reaches: `left` more digits can make it a multiple. Any remainder can be reached from any other by enough
 * digits, so in the whole part the answer is always yes. */
static bool reaches(uint32_t rest, uint32_t left, uint32_t step) {
    uint64_t want = (step - shift(rest, left, step)) % step, power = 1;
    for (uint32_t i = 0; i < left && power <= want; i++)
        power *= 10;
    return want < power;
}

uint32_t rx_multiple_derive(struct gram *g, const struct rx_node *x, unsigned byte) {
    uint32_t where = x->c & 0xFF, left = x->c >> 8 & 0xFF, scale = x->c >> 16, step = x->a;
    if (byte == '-')
        return where == PLACE_START ? rx_mk_multiple(g, step, 0, pack(PLACE_WHOLE, 0, scale)) : RX_NONE;
    if (byte == '.') {
        if (where != PLACE_WHOLE || !reaches(x->b, scale, step))
            return RX_NONE;
        return rx_mk_multiple(g, step, x->b, pack(PLACE_FRACTION, scale, scale));
    }
    if (byte < '0' || byte > '9')
        return RX_NONE;
    uint32_t rest = (uint32_t)(((uint64_t)x->b * 10 + (byte - '0')) % step);
    if (where != PLACE_FRACTION)
        return rx_mk_multiple(g, step, rest, pack(PLACE_WHOLE, 0, scale));
    if (left == 0)
        return byte == '0' ? rx_mk_multiple(g, step, x->b, x->c) : RX_NONE;
    if (!reaches(rest, left - 1, step))
        return RX_NONE;
    return rx_mk_multiple(g, step, rest, pack(PLACE_FRACTION, left - 1, scale));
}

uint32_t rx_multiple(struct gram *g, uint32_t step, uint32_t scale) {
    CHECK(step > 0 && step <= RX_STEP_MAX && scale <= RX_SCALE_MAX);
    return rx_mk_multiple(g, step, 0, pack(PLACE_START, 0, scale));
}
