#include "router/fleet/pick.h"

bool pick_fits(const struct pick_load *w, uint32_t n_seqs, uint32_t n_tokens) {
    if (w->credit_seqs == 0 || w->credit_tokens == 0)
        return false;
    bool seqs = w->n_seqs == 0 || (uint64_t)w->n_seqs + n_seqs <= w->credit_seqs;
    bool tokens = w->n_tokens == 0 || (uint64_t)w->n_tokens + n_tokens <= w->credit_tokens;
    return seqs && tokens;
}

uint64_t pick_cost(const struct pick_load *w) {
    return w->n_tokens - w->n_cached + (uint64_t)PICK_SEQ_TOKENS * w->n_seqs;
}

int pick_least(const struct pick_load *const *w, size_t n, size_t start, uint32_t n_seqs, uint32_t n_tokens) {
    int best = -1;
    for (size_t k = 0; k < n; k++) {
        size_t i = (start + k) % n;
        if (pick_fits(w[i], n_seqs, n_tokens) && (best < 0 || pick_cost(w[i]) < pick_cost(w[best])))
            best = (int)i;
    }
    return best;
}
