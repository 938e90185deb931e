/* pooler_impl.h: the inside of a pooler, for pooler.c and pooler_load.c. */
#ifndef WEIR_WORKER_POOLER_IMPL_H
#define WEIR_WORKER_POOLER_IMPL_H

#include "worker/pooler.h"

enum pool_take { TAKE_CLS = 0, TAKE_MEAN, TAKE_LAST, TAKE_MAX, TAKE_MEAN_SQRT, TAKE_WEIGHTED, N_POOL_TAKE };
enum step_act { STEP_NONE = 0, STEP_TANH, STEP_RELU, STEP_GELU, STEP_GELU_TANH, STEP_SILU, STEP_SIGMOID };
enum { POOL_STEPS_MAX = 8 };

/* step: y = act(w x + b), then LayerNorm with norm as weight, if there is one. */
struct step {
    uint32_t n_in, n_out;
    float *w, *b; /* [n_out][n_in], [n_out] or NULL */
    enum step_act act;
    float *norm, *norm_bias; /* [n_out] or NULL */
    float eps;
};

struct steps {
    struct step v[POOL_STEPS_MAX];
    uint32_t n;
};

struct pooler {
    enum pool_task task;
    uint32_t hidden, max_len;
    enum pool_take take[N_POOL_TAKE]; /* one behind the other */
    uint32_t n_takes;
    struct steps dense; /* of embeddings */
    struct steps head;  /* to the labels */
    bool has_head;
    bool normalize; /* by default */
    enum hf_label_act act;
    uint32_t n_labels;
    char **labels; /* [n_labels] or NULL */
    uint32_t matryoshka[HF_MATRYOSHKA_MAX], n_matryoshka;
    bool is_matryoshka, encoder, lower_case;
    char *prompt; /* put before texts; NULL: none */
};

/* steps_width: floats that come out where `hidden` go in. */
static inline uint32_t steps_width(const struct steps *s, uint32_t n_in) {
    return s->n ? s->v[s->n - 1].n_out : n_in;
}

#endif
