#include "worker/model/model.h"

#include <math.h>
#include <stdlib.h>

#include "worker/model/blocks.h"
#include "worker/model/weights.h"

static const struct model_family *const families[N_HF_ARCH] = {
    [HF_LLAMA] = &llama_family,
    [HF_MISTRAL] = &llama_family,
    [HF_QWEN2] = &llama_family,
    [HF_QWEN3] = &llama_family,
    [HF_GEMMA2] = &llama_family,
    [HF_GEMMA3] = &llama_family,
    [HF_PHI3] = &llama_family,
    [HF_MIXTRAL] = &llama_family,
    [HF_QWEN3_MOE] = &llama_family,
    [HF_GPT2] = &gpt_family,
    [HF_OPT] = &gpt_family,
    [HF_BERT] = &bert_family,
    [HF_ROBERTA] = &bert_family,
    [HF_MPNET] = &bert_family,
    [HF_MODERNBERT] = &modernbert_family,
};

static const struct {
    const char *name;
    enum act_kind kind;
} acts[] = {
    {"silu", ACT_SILU}, {"swish", ACT_SILU},
    {"gelu", ACT_GELU}, {"gelu_new", ACT_GELU_TANH},
    {"relu", ACT_RELU}, {"gelu_pytorch_tanh", ACT_GELU_TANH},
    {"tanh", ACT_TANH}, {"quick_gelu", ACT_QUICK_GELU},
};

static enum dtype kv_dtype(const struct hf_config *c, const struct model_opts *o) {
    if (o->kv)
        return o->kv;
    if (o->weights)
        return o->weights;
    return c->dtype == HF_DTYPE_BF16 ? DT_BF16 : c->dtype == HF_DTYPE_F16 ? DT_F16 : DT_F32;
}

static uint32_t max_len(const struct hf_config *c, const struct model_opts *o) {
    return o->max_len ? o->max_len : c->max_positions;
}

/* heads_of: the query heads of a rank, and the KV heads that they use: with more ranks than KV heads, several
 * ranks keep copies of one. */
static struct heads heads_of(const struct hf_config *c, uint32_t rank, uint32_t n_ranks) {
    struct heads h = {.n = c->n_heads / n_ranks, .n_kv = MAX(c->n_kv_heads / n_ranks, 1u)};
    h.first = rank * h.n;
    h.first_kv = (uint32_t)((uint64_t)rank * c->n_kv_heads / n_ranks);
    return h;
}

/* layer_slides: a window that no sequence outgrows is none: its blocks are then shared like all others. */
static bool layer_slides(const struct hf_config *c, const struct model_opts *o, uint32_t i) {
    return c->layer_windowed[i] && c->window < max_len(c, o);
}

static struct group_plan plan_groups(const struct hf_config *c, const struct model_opts *o) {
    uint32_t n_sliding = 0;
    for (uint32_t i = 0; i < c->n_layers; i++)
        n_sliding += layer_slides(c, o, i);
    struct group_plan p = {.full = UINT32_MAX, .windowed = UINT32_MAX};
    if (hf_is_encoder(c))
        return p;
    struct cache_group_spec spec = {.n_kv_heads = heads_of(c, o->rank, MAX(o->n_ranks, 1u)).n_kv,
                                    .head_dim = c->head_dim,
                                    .dtype = kv_dtype(c, o)};
    if (n_sliding < c->n_layers) {
        p.full = p.n_groups++;
        p.spec[p.full] = spec;
        p.spec[p.full].kind = CACHE_FULL;
        p.spec[p.full].n_layers = c->n_layers - n_sliding;
    }
    if (n_sliding > 0) {
        p.windowed = p.n_groups++;
        p.spec[p.windowed] = spec;
        p.spec[p.windowed].kind = CACHE_WINDOW;
        p.spec[p.windowed].n_layers = n_sliding;
        p.spec[p.windowed].window = c->window;
    }
    return p;
}

uint32_t model_groups(const struct hf_config *cfg, const struct model_opts *o, struct cache_group_spec *out) {
    struct group_plan p = plan_groups(cfg, o);
    memcpy(out, p.spec, p.n_groups * sizeof *out);
    return p.n_groups;
}

/* has_mlp: some layer has an MLP rather than experts. */
static bool has_mlp(const struct hf_config *c) {
    for (uint32_t i = 0; c->moe.n_experts && i < c->n_layers; i++)
        if (!c->moe.layer_sparse[i])
            return true;
    return !c->moe.n_experts;
}

enum rc model_check(const struct hf_config *c, const struct model_opts *o, struct err *e) {
    uint32_t n = MAX(o->n_ranks, 1u), len = max_len(c, o);
    CHECK(o->rank < n && o->n_tokens_max > 0);
    if (!o->ops->embed || !o->ops->gemm || !o->ops->attn || !o->ops->logits || (c->moe.n_experts && !o->ops->moe))
        return err_set(e, RC_UNSUPPORTED, NULL, "the %s backend lacks an operation that %s needs",
                       o->ops->name, c->arch_name);
    if (c->arch >= HF_GPT2 && n > 1)
        return err_set(e, RC_UNSUPPORTED, "tensor-parallel-size", "%s runs on one rank", c->arch_name);
    if (c->moe.n_experts && c->moe.mlp % n)
        return err_set(e, RC_INVALID, "tensor-parallel-size",
                       "experts of %u columns cannot be shared by %u ranks evenly", c->moe.mlp, n);
    if (c->n_heads % n || (has_mlp(c) && c->mlp % n) || (c->n_kv_heads % n && n % c->n_kv_heads))
        return err_set(e, RC_INVALID, "tensor-parallel-size",
                       "%u heads, %u KV heads and %u MLP columns cannot be shared by %u ranks evenly",
                       c->n_heads, c->n_kv_heads, c->mlp, n);
    if (c->vocab < n)
        return err_set(e, RC_INVALID, "tensor-parallel-size",
                       "a vocabulary of %u cannot be shared by %u ranks", c->vocab, n);
    if (c->rope.kind == HF_ROPE_DYNAMIC && len > c->max_positions)
        return err_set(e, RC_UNSUPPORTED, "max-model-len",
                       "dynamic rope scaling is supported up to max_position_embeddings, %u",
                       c->max_positions);
    if (len > hf_config_len_limit(c))
        return err_set(e, RC_INVALID, "max-model-len", "a context of %u is above the model's limit of %u",
                       len, hf_config_len_limit(c));
    return RC_OK;
}

static void set_shape(struct model *m, const struct hf_config *c, const struct model_opts *o) {
    m->ops = o->ops;
    m->be = o->be;
    m->family = families[c->arch];
    m->rank = o->rank;
    m->n_ranks = MAX(o->n_ranks, 1u);
    m->hidden = c->hidden;
    m->head_dim = c->head_dim;
    m->mlp = has_mlp(c) ? c->mlp / m->n_ranks : 0;
    m->moe.n_experts = c->moe.n_experts;
    m->moe.top_k = c->moe.top_k;
    m->moe.mlp = c->moe.mlp / m->n_ranks;
    m->moe.renorm = c->moe.renorm;
    m->heads = heads_of(c, m->rank, m->n_ranks);
    m->vocab0 = (uint32_t)((uint64_t)c->vocab * m->rank / m->n_ranks);
    m->n_vocab = (uint32_t)((uint64_t)c->vocab * (m->rank + 1) / m->n_ranks) - m->vocab0;
    m->rms_eps = c->rms_eps;
    m->attn_scale = c->attn_scale > 0 ? c->attn_scale : 1.0f / sqrtf((float)c->head_dim);
    m->norm_offset = c->norm_offset;
    m->embed_scale = c->embed_scale;
    m->attn_softcap = c->attn_softcap;
    m->final_softcap = c->final_softcap;
    m->rotary_dim = c->rotary_dim;
    m->groups = plan_groups(c, o);
    m->n_layers = c->n_layers;
    m->pools = o->pools || hf_is_encoder(c);
    if (hf_is_encoder(c) || c->arch == HF_GPT2 || c->arch == HF_OPT)
        m->enc.layers = xcalloc(c->n_layers, sizeof *m->enc.layers);
    else
        m->layers = xcalloc(c->n_layers, sizeof *m->layers);
    for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
        if (strcmp(c->act, acts[i].name) == 0)
            m->act = acts[i].kind;
    }
    CHECK(m->act != ACT_NONE); /* config.c admits only these */
    uint32_t n_full = 0, n_windowed = 0;
    for (uint32_t i = 0; m->layers && i < c->n_layers; i++) {
        struct attn_block *a = &m->layers[i].attn;
        bool slides = layer_slides(c, o, i);
        a->group = slides ? m->groups.windowed : m->groups.full;
        a->layer = slides ? n_windowed++ : n_full++;
        a->window = slides ? c->window : 0;
    }
}

static enum rc new_buffer(struct model *m, uint64_t rows, uint32_t cols, struct be_mem **out, struct err *e) {
    *out = m->ops->mem_new(m->be, rows, cols, DT_NONE);
    if (!*out)
        return err_set(e, RC_IO, "max-num-batched-tokens", "no memory for activations of %llu tokens by %u",
                       (unsigned long long)rows, cols);
    return RC_OK;
}

static enum rc new_buffers(struct model *m, const struct hf_config *c, uint32_t n_tokens, struct err *e) {
    enum rc rc = new_buffer(m, n_tokens, m->hidden, &m->x, e);
    if (!rc)
        rc = new_buffer(m, n_tokens, (m->heads.n + 2 * m->heads.n_kv) * m->head_dim, &m->qkv, e);
    if (!rc)
        rc = new_buffer(m, n_tokens, m->heads.n * m->head_dim, &m->attn, e);
    if (!rc)
        rc = m->mlp ? new_buffer(m, n_tokens, m->mlp, &m->mid, e) : RC_OK;
    if (!rc && m->pools)
        rc = new_buffer(m, n_tokens, m->hidden, &m->last, e);
    if (!rc && c->sandwich_norms)
        rc = new_buffer(m, n_tokens, m->hidden, &m->branch, e);
    if (!rc && m->ops->gather)
        rc = new_buffer(m, n_tokens, m->heads.n * m->head_dim, &m->row_attn, e);
    if (!rc && m->ops->gather)
        rc = new_buffer(m, n_tokens, m->hidden, &m->row_x, e);
    return rc;
}

/* load_rope: the frequencies, and those of the layers with a window, which turn at a rate of their own in
 * Gemma 3. */
static enum rc load_rope(struct model *m, const struct hf_config *c, const struct model_opts *o,
                         struct weights *w, struct err *e) {
    uint32_t n = c->rotary_dim / 2;
    const struct be_w *local = NULL;
    if (!m->layers)
        return RC_OK; /* the family's own, or none */
    float *freq = xcalloc(n, sizeof *freq);
    hf_rope_inv_freq(c, c->rotary_dim, max_len(c, o), freq, &m->rope_scale);
    enum rc rc = weights_pack_floats(w, freq, n, &m->inv_freq, e);
    for (uint32_t i = 0; i < n && c->local_theta > 0; i++)
        freq[i] = 1.0f / powf((float)c->local_theta, (float)(2 * i) / (float)c->rotary_dim);
    if (!rc && c->local_theta > 0)
        rc = weights_pack_floats(w, freq, n, &local, e);
    for (uint32_t i = 0; i < c->n_layers; i++)
        m->layers[i].attn.inv_freq = c->layer_windowed[i] && local ? local : m->inv_freq;
    free(freq);
    return rc;
}

enum rc model_load(struct model **out, const struct hf_config *cfg, const struct st_set *set,
                   const struct model_opts *o, struct err *e) {
    CHECK(o->dummy == !set);
    enum rc rc = model_check(cfg, o, e);
    if (rc)
        return rc;
    struct model *m = xcalloc(1, sizeof *m);
    struct weights w;
    set_shape(m, cfg, o);
    weights_init(&w, m, cfg, set, o);
    rc = new_buffers(m, cfg, o->n_tokens_max, e);
    if (!rc)
        rc = load_rope(m, cfg, o, &w, e);
    if (!rc)
        rc = m->family->load(m, cfg, &w, e);
    if (!rc)
        rc = weights_check_rest(&w, cfg->tie_embeddings || m->pools, e);
    if (!rc)
        weights_done(&w);
    weights_fini(&w);
    if (rc)
        model_free(m);
    else
        *out = m;
    return rc;
}

void model_free(struct model *m) {
    if (!m)
        return;
    for (uint32_t i = 0; i < m->n_owned; i++)
        m->ops->weight_free(m->be, m->owned[i]);
    struct be_mem *buffers[] = {m->x, m->qkv, m->attn, m->mid, m->last, m->branch, m->row_x, m->row_attn};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++) {
        if (buffers[i])
            m->ops->mem_free(m->be, buffers[i]);
    }
    free(m->owned);
    free(m->layers);
    free(m->enc.layers);
    free(m->enc.windowed);
    free(m);
}

uint64_t model_weight_bytes(const struct model *m) {
    return m->weight_bytes;
}

void model_forward(struct model *m, const struct batch *b) {
    m->ops->plan(m->be, b);
    m->n_tokens = b->n_tokens;
    m->n_rows = b->n_rows;
    if (!m->ops->begin(m->be))
        m->family->forward(m, b->n_rows);
    rows_end(m);
    m->ops->end(m->be);
}

bool model_gathers(const struct model *m) {
    return m->row_x != NULL;
}

void model_hidden(struct model *m, uint32_t row0, uint32_t n, float *dst) {
    CHECK(m->last);
    m->ops->mem_get(m->be, m->last, row0, n, dst);
}
