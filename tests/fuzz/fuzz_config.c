/* fuzz_config: any text as config.json and as generation_config.json. What is accepted must be safe to build
 * a model from: sizes positive, heads that divide, finite rotary frequencies. */
#include <math.h>

#include "common/hf/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_config(const struct hf_config *c) {
    CHECK(c->hidden && c->n_layers && c->n_heads && c->n_kv_heads && c->head_dim && c->mlp && c->vocab);
    CHECK(c->n_heads % c->n_kv_heads == 0 && c->head_dim % 2 == 0 && c->head_dim <= 512);
    CHECK(c->max_positions && hf_config_len_limit(c) >= c->max_positions);
    CHECK(c->rms_eps >= 0 && c->n_eos <= HF_EOS_MAX);
    for (uint32_t i = 0; i < c->n_eos; i++)
        CHECK(c->eos[i] < c->vocab);
    for (uint32_t i = 0; i < c->n_layers; i++)
        CHECK(c->layer_windowed[i] == 0 || (c->layer_windowed[i] == 1 && c->window));
    float freq[256], scale;
    CHECK(c->rotary_dim % 2 == 0 && c->rotary_dim <= c->head_dim); /* 0: no rotary positions */
    hf_rope_inv_freq(c, c->rotary_dim, c->max_positions, freq, &scale);
    CHECK(isfinite(scale));
    for (uint32_t i = 0; i < c->rotary_dim / 2; i++)
        CHECK(isfinite(freq[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct str text = {(const char *)data, n};
    struct hf_config c;
    struct hf_generation g;
    struct err e = {0};
    if (hf_config_parse(text, NULL, &c, &e) == RC_OK) {
        check_config(&c);
        hf_config_fini(&c);
    } else {
        CHECK(*e.msg);
    }
    if (hf_generation_parse(text, &g, &e) == RC_OK) {
        CHECK(!(g.temperature < 0) && !(g.top_p <= 0) && g.n_eos <= HF_EOS_MAX);
    }
    return 0;
}
