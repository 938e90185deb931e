#include "worker/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/hf/repo.h"
#include "common/log.h"
#include "worker/assets.h"
#include "worker/cpu/team.h"
#include "worker/device.h"
#include "worker/file.h"
#include "worker/load_impl.h"
#include "worker/procs.h"

enum { MASK_THREADS_MAX = 8 };
enum { ROWS_MAX = 4096, ROWS_MAX_GPU = 512, TOKENS_MAX_CPU = 2048, SEQS_DEFAULT = 256 };

/* ---- files -------------------------------------------------------------------------------------- */

/* layer_of: the layer that a tensor's name speaks of, as in model.layers.5.mlp or encoder.layer.5.output;
 * -1: none. */
static int64_t layer_of(struct str name) {
    static const struct str words[] = {{"layers.", 7}, {"layer.", 6}};
    for (size_t at = 0; at < name.n; at++)
        for (size_t w = 0; w < ARRAY_LEN(words); w++) {
            struct str rest = {name.p + at, name.n - at};
            int64_t n = 0;
            if (!str_starts(rest, words[w]) || (at > 0 && name.p[at - 1] != '.'))
                continue;
            size_t i = words[w].n, first = i;
            for (; i < rest.n && rest.p[i] >= '0' && rest.p[i] <= '9' && i < first + 9; i++)
                n = 10 * n + rest.p[i] - '0';
            return i > first && i < rest.n && rest.p[i] == '.' ? n : -1;
        }
    return -1;
}

/* check_layers: weights of layers that the config does not have mean that the two do not belong together; the
 * model would be cut without a word. Whoever overrides the number means it. */
static enum rc check_layers(const struct load *l, const struct worker_flags *f, struct err *e) {
    json_t *overrides = f->hf_overrides ? json_loads(f->hf_overrides, 0, NULL) : NULL;
    bool meant = json_object_get(overrides, "num_hidden_layers") != NULL;
    json_decref(overrides);
    for (size_t i = 0; !meant && l->weights && i < st_count(l->weights); i++) {
        const struct st_tensor *t = st_at(l->weights, i);
        if (layer_of(t->name) >= (int64_t)l->config.n_layers)
            return err_set(
                e, RC_INVALID, "num_hidden_layers",
                "config.json: num_hidden_layers: %u, and the weights have %.*s: they do not "
                "belong together; --hf-overrides '{\"num_hidden_layers\": %u}' cuts the model on purpose",
                l->config.n_layers, (int)MIN(t->name.n, 100), t->name.p, l->config.n_layers);
    }
    return RC_OK;
}

/* revision_of: names the model: its config, of every tensor the name, type, shape and first bytes, and a tokenizer
 * that is not its own: for routers, workers of one name can stand in for each other. */
static void revision_of(const struct load *l, struct str config, bool own_tokenizer, uint8_t out[32]) {
    struct buf b = {0};
    buf_add_str(&b, config);
    for (size_t i = 0; !own_tokenizer && i < l->n_assets; i++) {
        buf_addz(&b, l->assets[i].name);
        buf_add(&b, l->assets[i].data, l->assets[i].n);
    }
    for (size_t i = 0; l->weights && i < st_count(l->weights); i++) {
        const struct st_tensor *t = st_at(l->weights, i);
        buf_add_str(&b, t->name);
        buf_addf(&b, " %d %llu", (int)t->dtype, (unsigned long long)t->n_bytes);
        for (uint32_t d = 0; d < t->n_dims; d++)
            buf_addf(&b, ",%llu", (unsigned long long)t->dims[d]);
        buf_add(&b, t->data, (size_t)MIN(t->n_bytes, (uint64_t)256));
    }
    hash_sha256(b.data, b.len, out);
    buf_fini(&b);
}

static enum rc fill_eos(struct load *l, bool reads_generation, struct err *e) {
    struct io_facts *f = &l->facts;
    const uint32_t *eos = l->generation.n_eos ? l->generation.eos : l->config.eos;
    f->n_eos = l->generation.n_eos ? l->generation.n_eos : l->config.n_eos;
    CHECK(f->n_eos <= ARRAY_LEN(f->eos));
    if (!f->n_eos)
        return err_set(e, RC_INVALID, "eos_token_id",
                       "config.json: eos_token_id: missing, and generation_config.json %s: no answer would "
                       "ever end; name it with --hf-overrides '{\"eos_token_id\": ID}'",
                       reads_generation ? "names none" : "does not count (--generation-config vllm)");
    for (uint32_t i = 0; i < f->n_eos;
         i++) /* config.json's are in range; generation_config.json knows no vocabulary */
        if (eos[i] >= l->config.vocab)
            return err_set(e, RC_INVALID, "eos_token_id",
                           "generation_config.json: eos_token_id: id %u is not in the vocabulary of %u",
                           eos[i], l->config.vocab);
    memcpy(f->eos, eos, f->n_eos * sizeof *eos);
    return RC_OK;
}

static enum rc context_length(const struct load *l, const struct worker_flags *f, uint32_t *out,
                              struct err *e) {
    uint64_t limit = hf_config_len_limit(&l->config);
    if (f->max_model_len > limit)
        return err_set(e, RC_INVALID, "max-model-len",
                       "--max-model-len %llu is above the %llu positions that the model allows",
                       (unsigned long long)f->max_model_len, (unsigned long long)limit);
    uint32_t own = l->pooler ? pooler_max_len(l->pooler) : 0; /* what sentence-transformers cuts texts to */
    *out =
        f->max_model_len ? (uint32_t)f->max_model_len : MIN(l->config.max_positions, own ? own : UINT32_MAX);
    return RC_OK;
}

static enum rc read_config(struct load *l, const struct worker_flags *f, struct str *text, struct err *e) {
    char *data = NULL;
    size_t n = 0;
    json_t *overrides = NULL;
    enum rc rc = file_read(l->dir, "config.json", MIB, &data, &n, e);
    if (rc == RC_NOT_FOUND)
        return err_set(e, rc, NULL, "config.json is missing from %s", l->dir);
    if (rc != RC_OK)
        return rc;
    *text = (struct str){data, n};
    if (f->hf_overrides)
        overrides = json_loads(f->hf_overrides, 0, NULL);
    if (f->hf_overrides && !json_is_object(overrides))
        rc = err_set(e, RC_INVALID, "hf-overrides", "--hf-overrides must be a JSON object");
    if (rc == RC_OK)
        rc = hf_config_parse(*text, overrides, &l->config, e);
    json_decref(overrides);
    return rc;
}

/* read_assets: what routers get; tokenizer and templates from the folder of --tokenizer, if there is one. A model has
 * no embeddings for more tokens than its vocabulary. */
static enum rc read_assets(struct load *l, const struct worker_flags *f, struct err *e) {
    char *dir = NULL;
    struct tok *tok = NULL;
    if (!f->tokenizer)
        return assets_read(l->dir, l->dir, l->assets, &l->n_assets, e);
    enum rc rc = hf_repo_find(f->tokenizer, NULL, &dir, e);
    if (rc != RC_OK)
        return err_set(e, rc, "tokenizer",
                       "--tokenizer: there is no folder '%s', and no repository of that name in the local Hugging Face "
                       "cache; nothing is downloaded",
                       f->tokenizer);
    rc = assets_read(l->dir, dir, l->assets, &l->n_assets, e);
    free(dir);
    if (rc != RC_OK || l->rank)
        return rc;
    struct tok_files files = assets_tokenizer(l->assets, l->n_assets);
    rc = tok_load(&tok, &files, e);
    if (rc == RC_OK && tok_vocab_size(tok) > l->config.vocab)
        rc = err_set(e, RC_INVALID, "tokenizer",
                     "--tokenizer %s: its vocabulary of %u tokens is larger than the model's of %u: it is another model's",
                     f->tokenizer, tok_vocab_size(tok), l->config.vocab);
    tok_free(tok);
    return rc;
}

/* load_pooler: what becomes of the hidden states, and the asset that tells routers of it. */
static enum rc load_pooler(struct load *l, const struct worker_flags *f, const char *task, struct err *e) {
    struct buf text = {0};
    enum rc rc = pooler_load(&l->pooler,
                             &(struct pooler_opts){.dir = l->dir,
                                                   .config = &l->config,
                                                   .weights = l->weights,
                                                   .pooler_config = f->pooler_config,
                                                   .task = task},
                             e);
    if (rc != RC_OK)
        return rc;
    pooler_describe(l->pooler, &text);
    l->assets[l->n_assets].name = "pooling.json";
    l->assets[l->n_assets].n = text.len;
    l->assets[l->n_assets++].data = buf_take(&text);
    l->facts.pooler = l->pooler;
    l->facts.n_token_types = l->config.encoder.n_types;
    return RC_OK;
}

static struct str generation_text(const struct load *l) {
    const struct io_asset *a = assets_find(l->assets, l->n_assets, "generation_config.json");
    return a ? (struct str){a->data, a->n} : (struct str){0};
}

enum rc load_files(struct load *l, const char *model, const struct worker_flags *f, struct err *e) {
    struct str config = {0};
    const char *task = NULL;
    enum pool_task pools = 0;
    enum rc rc = worker_flags_task(f, &task, e);
    if (rc == RC_OK && !l->rank)
        rc = plugins_load(&l->plugins, &f->plugins, e);
    l->facts.plugins = l->plugins;
    if (rc == RC_OK)
        rc = hf_repo_find(model, f->revision, &l->dir, e);
    if (rc == RC_OK)
        rc = read_config(l, f, &config, e);
    if (rc == RC_OK)
        rc = pooler_task(&l->config, task, &pools, e);
    if (rc == RC_OK)
        rc = read_assets(l, f, e);
    bool reads_generation = strcmp(f->generation_config, "vllm") != 0, capped; /* api.md 5.2.2 */
    if (rc == RC_OK)
        rc = hf_generation_load(generation_text(l), f->generation_config,
                                f->override_generation_config, &l->generation, &capped, e);
    if (rc == RC_OK && !pools)
        rc = fill_eos(l, reads_generation, e);
    if (rc == RC_OK && strcmp(f->load_format, "dummy"))
        rc = st_open(&l->weights, l->dir, e);
    if (rc == RC_OK)
        rc = check_layers(l, f, e);
    if (rc == RC_OK && pools)
        rc = load_pooler(l, f, task, e);
    if (rc == RC_OK)
        rc = context_length(l, f, &l->facts.max_model_len, e);
    if (rc == RC_OK) {
        revision_of(l, config, !f->tokenizer, l->facts.revision);
        l->facts.vocab_size = l->config.vocab;
        l->facts.max_logprobs = f->max_logprobs < 0 ? l->config.vocab : (uint32_t)f->max_logprobs;
    }
    free((char *)(uintptr_t)config.p);
    return rc;
}

/* ---- types and sizes ---------------------------------------------------------------------------- */

static enum dtype parse_dtype(const char *s, enum hf_dtype stored) {
    if (!strcmp(s, "float32") || !strcmp(s, "float"))
        return DT_F32;
    if (!strcmp(s, "bfloat16"))
        return DT_BF16;
    if (!strcmp(s, "float16") || !strcmp(s, "half"))
        return DT_F16;
    if (!strncmp(s, "fp8", 3))
        return DT_F8E4M3;
    return stored == HF_DTYPE_BF16 ? DT_BF16 : stored == HF_DTYPE_F16 ? DT_F16 : DT_F32;
}

static const char *dtype_word(enum dtype t) {
    return t == DT_BF16 ? "bfloat16" : t == DT_F16 ? "float16" : t == DT_F8E4M3 ? "fp8_e4m3" : "float32";
}

/* params: weights of the config's shape, as elements. */
static uint64_t params(const struct hf_config *c) {
    uint64_t q = (uint64_t)c->n_heads * c->head_dim, kv = (uint64_t)c->n_kv_heads * c->head_dim;
    uint64_t sum = (2 * q + 2 * kv) * c->n_layers + (c->tie_embeddings ? 1ull : 2ull) * c->vocab;
    for (uint32_t i = 0; i < c->n_layers; i++)
        sum += c->moe.n_experts && c->moe.layer_sparse[i] ? 3ull * c->moe.n_experts * c->moe.mlp
                                                          : 3ull * c->mlp;
    return sum * c->hidden;
}

static enum rc check_fp8(const struct load *l, const struct load_sizes *z, struct err *e) {
    if (z->to_fp8 && !l->device.fp8)
        return err_set(e, RC_UNSUPPORTED, "quantization", "--quantization fp8 needs a GPU, and bf16 or f16 there: the "
                       "%s backend computes in f32", l->ops->name);
    if (z->kv == DT_F8E4M3 && l->ops == &cpu_ops)
        return err_set(e, RC_UNSUPPORTED, "kv-cache-dtype", "--kv-cache-dtype fp8 needs a GPU");
    return RC_OK;
}

static enum rc check_memory(const struct load *l, const struct worker_flags *f, enum dtype dt, struct err *e) {
    bool fp8 = l->device.fp8 && (l->config.quant.fp8 || f->quantization); /* nearly all of it */
    uint64_t need = params(&l->config) * dtype_bytes(fp8 ? DT_F8E4M3 : dt), free_bytes = l->device.memory_free_bytes;
    if (l->device.memory_start_bytes) /* each rank has a GPU's */
        need /= (uint64_t)f->tensor_parallel;
    if (need <= free_bytes)
        return RC_OK;
    return err_set(e, RC_INVALID, "dtype",
                   "the weights need %.1f GiB as %s and %.1f GiB are free: take a smaller model%s",
                   (double)need / (double)GIB, dtype_word(dt), (double)free_bytes / (double)GIB,
                   dt == DT_F32 ? ", or --dtype bfloat16" : "");
}

/* kv_budget: bytes for the KV pool of a rank: as asked, else a quarter of what is free after loading, shared
 * with the workers that start beside this one and with this one's ranks, and never more than the sequences
 * that may run at once could fill. Pages are taken from the system when they are first written. */
static uint64_t kv_budget(const struct load *l, const struct worker_flags *f, uint64_t block_bytes,
                          uint32_t n_seqs) {
    if (f->kv_cache_memory_bytes)
        return f->kv_cache_memory_bytes;
    struct be_info now;
    l->ops->info(l->be, &now);
    uint64_t blocks =
        (uint64_t)n_seqs * ((l->facts.max_model_len + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS + 1);
    return MIN(now.memory_free_bytes / 4 / MAX(l->n_sharing, 1) / (uint64_t)f->tensor_parallel,
               blocks * block_bytes);
}

/* check_kv_memory: pages come when they are first written, so the system would grant any size and kill the
 * worker later. Of a GPU each rank has its own, and what is free is all there is. */
static enum rc check_kv_memory(const struct load *l, const struct worker_flags *f, struct err *e) {
    struct be_info now;
    l->ops->info(l->be, &now);
    bool gpu = now.memory_start_bytes > 0, of_all = f->n_blocks_override && !gpu;
    uint64_t most = of_all ? now.memory_total_bytes : now.memory_free_bytes;
    uint64_t all = l->kv_bytes * (gpu ? 1 : (uint64_t)f->tensor_parallel);
    if (all <= most)
        return RC_OK;
    return err_set(e, RC_INVALID, "kv_cache_memory_bytes",
                   "the KV cache would take %.1f GiB and the %s has %.1f GiB%s: lower %s",
                   (double)all / (double)GIB, gpu ? "GPU" : "machine", (double)most / (double)GIB,
                   of_all ? "" : " free",
                   f->n_blocks_override ? "--num-gpu-blocks-override" : "--kv-cache-memory-bytes");
}

static enum rc size_pools(struct load *l, const struct worker_flags *f, struct engine_opts *o,
                          struct err *e) {
    uint64_t block_bytes = 0;
    for (uint32_t g = 0; g < o->n_groups; g++)
        block_bytes += l->ops->kv_block_bytes(l->be, &o->groups[g]);
    enum rc rc = RC_OK;
    struct load_room room = {0};
    if (l->device.memory_start_bytes)
        rc = load_gpu_room(l, f, o, &room, e);
    if (rc != RC_OK)
        return rc;
    if (f->n_blocks_override) {
        for (uint32_t g = 0; g < o->n_groups; g++)
            o->n_blocks[g] = (uint32_t)f->n_blocks_override;
        l->kv_bytes = block_bytes * (uint64_t)f->n_blocks_override;
    } else {
        bool rest = l->device.memory_start_bytes && !f->kv_cache_memory_bytes;
        l->kv_bytes = rest ? room.kv_bytes : kv_budget(l, f, block_bytes, o->n_seqs_max);
        rc = engine_size_pools(o, l->kv_bytes, o->n_blocks, e);
        if (rc != RC_OK)
            return rest && !strcmp(e->param, "kv_cache_memory_bytes") ? load_gpu_full(f, o, &room, e) : rc;
    }
    l->facts.n_blocks = o->n_groups ? o->n_blocks[0] : 0;
    rc = check_kv_memory(l, f, e);
    if (rc == RC_OK && l->device.memory_start_bytes)
        load_gpu_tell(l, &room);
    return rc;
}

static uint32_t logprobs_mode(const char *word) {
    static const char *const words[] = {"raw_logprobs", "processed_logprobs", "raw_logits",
                                        "processed_logits"};
    for (uint32_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(word, words[i]))
            return i;
    return BE_RAW_LOGPROBS;
}

struct load_sizes load_sizes_of(const struct load *l, const struct worker_flags *f) {
    struct load_sizes z = {.dt = parse_dtype(f->dtype, l->config.dtype),
                           .n_ranks = (uint32_t)f->tensor_parallel,
                           .to_fp8 = f->quantization != NULL};
    z.kv = strcmp(f->kv_cache_dtype, "auto") ? parse_dtype(f->kv_cache_dtype, l->config.dtype) : z.dt;
    if (!strcmp(f->kv_cache_dtype, "auto") && l->config.quant.kv_scales && l->ops && l->ops != &cpu_ops)
        z.kv = DT_F8E4M3; /* as the checkpoint was made for; a CPU keeps wider numbers, and needs no factors */
    z.n_seqs = f->max_num_seqs ? (uint32_t)f->max_num_seqs : SEQS_DEFAULT;
    z.n_tokens = f->max_num_batched_tokens ? (uint32_t)f->max_num_batched_tokens : TOKENS_MAX_CPU;
    z.n_tokens = MAX(z.n_tokens, z.n_seqs); /* a step of decodes alone must fit */
    if ((hf_is_encoder(&l->config) || !f->chunked_prefill) && !f->max_num_batched_tokens)
        z.n_tokens = MAX(z.n_tokens, l->facts.max_model_len); /* a text is computed in one step */
    z.n_rows = MIN(MAX(z.n_seqs, z.n_tokens), ROWS_MAX);
    if (l->ops && l->ops != &cpu_ops) /* rows of logits take three times the vocabulary in f32 of a GPU's memory */
        z.n_rows = MAX(z.n_seqs, MIN(z.n_rows, ROWS_MAX_GPU));
    int cores = team_cores(), threads = f->threads ? (int)f->threads : cores;
    int n_here = l->is_far ? 1 : (int)(z.n_ranks - l->n_far); /* ranks that share this host's cores */
    z.n_threads = MAX(1, threads / n_here);
    z.may_spin = z.n_threads * n_here <= cores;
    return z;
}

void load_facts(const struct load *l, const struct worker_flags *f, const struct load_sizes *z, struct tp_facts *out) {
    *out = (struct tp_facts){.n_ranks = z->n_ranks};
    memcpy(out->revision, l->facts.revision, sizeof out->revision);
    out->fact[TP_FACT_DTYPE] = z->dt;
    out->fact[TP_FACT_KV] = z->kv;
    out->fact[TP_FACT_QUANT] = z->to_fp8;
    out->fact[TP_FACT_LEN] = l->facts.max_model_len;
    out->fact[TP_FACT_TOKENS] = z->n_tokens;
    out->fact[TP_FACT_SEQS] = z->n_seqs;
    out->fact[TP_FACT_ROWS] = z->n_rows;
    out->fact[TP_FACT_DEVICE] = l->ops != &cpu_ops;
    out->fact[TP_FACT_ORDER] = f->deterministic;
}

struct be_config load_device_config(const struct load *l, const struct worker_flags *f,
                                    const struct load_sizes *z, uint32_t rank) {
    return (struct be_config){.device_index = l->is_far ? 0 : (int)rank,
                              .n_threads = z->n_threads,
                              .rank = (int)rank,
                              .n_ranks = (int)z->n_ranks,
                              .compute = l->ops == &cpu_ops ? DT_F32 : z->dt,
                              .n_tokens_max = z->n_tokens,
                              .n_seqs_max = z->n_seqs,
                              .n_rows_max = z->n_rows,
                              .n_vocab = l->config.vocab,
                              .deterministic = f->deterministic,
                              .eager = f->eager,
                              .no_own_reduce = f->no_own_reduce || l->n_far || l->is_far,
                              .n_reduce_cols = l->config.hidden};
}

enum rc load_device_open(struct load *l, const struct be_config *cfg, struct err *e) {
    char why[BE_ERR_BYTES] = "";
    if (l->ops->open(&l->be, cfg, why))
        return err_set(e, RC_UNAVAILABLE, "device", "%s: %s", l->ops->name, why);
    l->ops->info(l->be, &l->device);
    return RC_OK;
}

struct model_opts load_model_opts(const struct load *l, const struct load_sizes *z, uint32_t rank) {
    return (struct model_opts){.ops = l->ops,
                               .be = l->be,
                               .rank = rank,
                               .n_ranks = z->n_ranks,
                               .weights = z->dt,
                               .kv = z->kv,
                               .max_len = l->facts.max_model_len,
                               .n_tokens_max = z->n_tokens,
                               .to_fp8 = z->to_fp8,
                               .pools = l->pooler != NULL,
                               .dummy = !l->weights};
}

struct tp_limits load_limits(const struct load *l, const struct load_sizes *z, uint32_t n_groups) {
    return (struct tp_limits){.n_tokens_max = z->n_tokens,
                              .n_seqs_max = z->n_seqs,
                              .n_rows_max = z->n_rows,
                              .n_vocab = l->config.vocab,
                              .max_len = l->facts.max_model_len,
                              .n_groups = n_groups};
}

/* move_bytes: of the memory in which KV blocks go from rank to rank: a block at least. */
static size_t move_bytes(const struct load *l, uint32_t n_groups) {
    uint64_t bytes = MIB;
    for (uint32_t g = 0; g < n_groups; g++)
        bytes = MAX(bytes, l->kv_block_bytes[g]);
    return l->kvx_on ? (size_t)bytes : 0;
}

/* waits: of a load that waits for other ranks, which may be long in coming: it can still be stopped. */
struct waits {
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t total_bytes;
};

static void on_wait(void *arg) {
    const struct waits *w = arg;
    if (w->progress)
        w->progress(w->arg, w->total_bytes - 1, w->total_bytes); /* not done: routers are told now and then */
}

/* start_ranks: of a group, before this rank loads, so that all load at once. */
static enum rc start_ranks(struct load *l, const struct worker_flags *f, const struct load_sizes *z,
                           struct be_config *cfg, uint32_t n_groups, const struct waits *waits, struct err *e) {
    struct conf_list argv = {0};
    if (l->n_far >= z->n_ranks)
        return err_set(e, RC_INVALID, "remote-ranks", "--remote-ranks %u: rank 0 of %u is on this host", l->n_far,
                       z->n_ranks);
    if (l->n_far && !l->ops->stand_open)
        return err_set(e, RC_UNSUPPORTED, "remote-ranks", "the %s backend runs on one host", l->ops->name);
    if (l->n_far && l->kvx_on)
        return err_set(e, RC_UNSUPPORTED, "kv-transfer-config", "KV transfers are for ranks of one host");
    if (!l->ops->group_bytes)
        return err_set(e, RC_UNSUPPORTED, "tensor-parallel-size", "the %s backend runs on one rank",
                       l->ops->name);
    argv.v = xcalloc(2, sizeof *argv.v);
    argv.v[argv.n++] = xstrdup("weir-worker");
    argv.v[argv.n++] = xstrdup(l->dir);
    struct worker_flags same = *f;
    same.revision = NULL; /* it has said which folder */
    worker_flags_argv(&same, &argv);
    if (l->n_far && !f->no_own_reduce) { /* no memory that all devices reach */
        argv.v = xreallocarray(argv.v, argv.n + 1, sizeof *argv.v);
        argv.v[argv.n++] = xstrdup("--disable-custom-all-reduce");
    }
    load_facts(l, f, z, &l->far_facts);
    l->far.facts = &l->far_facts;
    struct tp_opts o = {.n_ranks = z->n_ranks,
                        .argc = (int)argv.n,
                        .argv = argv.v,
                        .group_bytes = l->ops->group_bytes(cfg),
                        .limits = load_limits(l, z, n_groups),
                        .may_spin = z->may_spin,
                        .move_bytes = move_bytes(l, n_groups),
                        .on_gone = l->on_gone,
                        .arg = l->on_gone_arg,
                        .n_far = l->n_far,
                        .far = l->far,
                        .ops = l->ops,
                        .be = *cfg,
                        .on_wait = on_wait,
                        .wait_arg = (void *)(uintptr_t)waits};
    enum rc rc = tp_lead(&l->tp, &o, e);
    for (size_t i = 0; i < argv.n; i++)
        free(argv.v[i]);
    free(argv.v);
    if (rc == RC_OK)
        cfg->group = tp_group(l->tp);
    if (rc == RC_OK && l->n_far)
        LOG(LOG_INFO, "waiting for ranks", F_STR("address", l->far.url), F_U64("port", (uint64_t)tp_port(l->tp)),
            F_U64("first", z->n_ranks - l->n_far), F_U64("of", z->n_ranks));
    return rc;
}

static void forward(void *arg, const struct batch *b) {
    model_forward(arg, b);
}

static void hidden(void *arg, uint32_t row0, uint32_t n, float *dst) {
    model_hidden(arg, row0, n, dst);
}

/* Of a group's rank 0: the others are told first. */
static void forward_all(void *arg, const struct batch *b) {
    struct load *l = arg;
    tp_step(l->tp, b);
    model_forward(l->model, b);
    tp_settle(l->tp);
}

static void hidden_all(void *arg, uint32_t row0, uint32_t n, float *dst) {
    model_hidden(((struct load *)arg)->model, row0, n, dst);
}

static void copies_all(void *arg, uint32_t group, const struct be_copy *copies, uint32_t n) {
    tp_copies(((struct load *)arg)->tp, group, copies, n);
}

/* move_rank: KV blocks of another rank, whose share of the heads is as large as this one's. */
static bool move_rank(void *arg, uint32_t rank, uint32_t group, const uint32_t *blocks, uint32_t n, uint8_t *data,
                      bool in) {
    struct load *l = arg;
    return tp_move(l->tp, rank, group, blocks, n, (size_t)l->kv_block_bytes[group], data, in);
}

static void open_constraints(struct load *l, const struct grammar_flags *f, struct engine_opts *o) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct constraints_opts co = {
        .tokenizer = assets_tokenizer(l->assets, l->n_assets),
        .n_vocab = o->n_vocab,
        .eos_ids = o->eos_ids,
        .n_eos_ids = o->n_eos_ids,
        .limits = grammar_flags_limits(f),
        .cache_bytes = (size_t)f->cache_mb * MIB,
        .use_bytes = (size_t)MAX(f->cache_mb * 4, 256) * MIB,
        .n_threads = cores > 4 ? 2 : 1};
    l->constraints = constraints_new(&co);
    o->constraints = l->constraints;
    o->n_mask_threads = (unsigned)MIN(MAX(cores, 1), MASK_THREADS_MAX);
}

enum rc load_model(struct load *l, const struct worker_flags *f, struct engine_opts *o,
                   void (*progress)(void *arg, uint64_t done, uint64_t total), void *progress_arg,
                   struct err *e) {
    struct cache_group_spec groups[BE_GROUPS_MAX];
    const struct waits waits = {progress, progress_arg, MAX(l->weights ? st_total_bytes(l->weights) : 0, 2)};
    enum rc rc = device_ops(f->device, &l->ops, e);
    if (rc != RC_OK)
        return rc;
    struct load_sizes z = load_sizes_of(l, f);
    struct model_opts mo = load_model_opts(l, &z, 0);
    struct be_config cfg = load_device_config(l, f, &z, 0);
    mo.progress = progress;
    mo.progress_arg = progress_arg;
    o->n_groups = model_groups(&l->config, &mo, groups);
    for (uint32_t g = 0; g < o->n_groups; g++) {
        const struct cache_group_spec *s = &groups[g];
        l->kv_block_bytes[g] = (uint64_t)s->n_layers * s->n_kv_heads * KV_BLOCK_TOKENS * dtype_bytes(s->dtype) *
                               (s->head_dim + (s->head_dim_v ? s->head_dim_v : s->head_dim));
    }
    if (l->n_far && z.n_ranks == 1)
        return err_set(e, RC_INVALID, "remote-ranks", "--remote-ranks takes --tensor-parallel-size");
    if (z.n_ranks > 1)
        rc = model_check(&l->config, &mo, e);
    if (rc == RC_OK && z.n_ranks > 1)
        rc = start_ranks(l, f, &z, &cfg, o->n_groups, &waits, e);
    if (rc == RC_OK)
        rc = load_device_open(l, &cfg, e);
    if (rc == RC_OK)
        rc = check_fp8(l, &z, e);
    if (rc == RC_OK)
        rc = check_memory(l, f, z.dt, e);
    mo.be = l->be;
    if (rc == RC_OK)
        rc = model_load(&l->model, &l->config, l->weights, &mo, e);
    if (rc == RC_OK && l->tp)
        rc = tp_await_loaded(l->tp, e);
    if (rc != RC_OK)
        return rc;
    o->ops = l->ops;
    o->be = l->be;
    o->model =
        (struct engine_model){.forward = forward, .arg = l->model, .hidden = l->pooler ? hidden : NULL};
    if (l->tp)
        o->model = (struct engine_model){
            .forward = forward_all, .arg = l, .hidden = l->pooler ? hidden_all : NULL, .copies = copies_all};
    o->model.gathers = l->pooler && model_gathers(l->model);
    o->pooler = l->pooler;
    o->hidden = l->config.hidden;
    o->bidirectional = hf_is_encoder(&l->config);
    o->groups = groups;
    o->n_vocab = l->config.vocab;
    o->max_len = l->facts.max_model_len;
    o->n_tokens_max = z.n_tokens;
    o->n_rows_max = z.n_rows;
    o->n_seqs_max = z.n_seqs;
    o->token_budget = (uint32_t)f->max_num_batched_tokens;
    /* Ranks that share cores wait for each other: then only the clock tells how long a step takes. */
    o->n_cpu_threads = l->ops != &cpu_ops || (l->tp && !z.may_spin) ? 0 : (uint32_t)z.n_threads;
    o->long_prefill_tokens = hf_is_encoder(&l->config) ? 0 : (uint32_t)f->long_prefill_threshold;
    o->whole_prompts = !f->chunked_prefill;
    o->n_requests_max = 8 * z.n_seqs + 4096;
    o->n_routers_max = IO_ROUTERS_MAX;
    o->policy = strcmp(f->scheduling_policy, "priority") ? SCHED_FCFS : SCHED_PRIORITY;
    o->prefix_cache = o->kv_events = f->prefix_caching && !o->bidirectional;
    o->eos_ids = l->facts.eos;
    o->n_eos_ids = l->facts.n_eos;
    o->n_top_max = l->facts.max_logprobs;
    o->logprobs_mode = logprobs_mode(f->logprobs_mode);
    if (!l->pooler)
        open_constraints(l, &f->grammar, o);
    if (l->kvx_on) {
        l->kvx.n_heads = l->config.n_kv_heads;
        l->kvx.n_ranks = z.n_ranks;
        memcpy(l->kvx.revision, l->facts.revision, sizeof l->kvx.revision);
        o->kvx = &l->kvx;
        if (l->pooler)
            return err_set(e, RC_INVALID, "kv-transfer-config", "KV transfers are for models that generate");
        l->kvx.move = l->tp ? move_rank : NULL;
        l->kvx.move_arg = l;
    }
    rc = size_pools(l, f, o, e);
    if (rc == RC_OK && l->tp)
        tp_pools(l->tp, o->n_blocks, o->n_groups);
    if (rc == RC_OK)
        rc = engine_new(&l->engine, o, e);
    o->groups = NULL;
    if (rc != RC_OK)
        return rc;
    snprintf(l->dtype_name, sizeof l->dtype_name, "%s", dtype_word(z.dt));
    snprintf(l->kv_dtype_name, sizeof l->kv_dtype_name, "%s", dtype_word(z.kv));
    if (l->tp) {
        size_t n = strlen(l->device.name);
        snprintf(l->device.name + n, sizeof l->device.name - n, ", %u ranks", z.n_ranks);
    }
    l->facts.n_ranks = z.n_ranks;
    l->facts.device = l->device.name;
    l->facts.dtype = l->dtype_name;
    l->facts.kv_dtype = l->kv_dtype_name;
    l->facts.max_seqs = engine_seats(l->engine);
    l->facts.max_batched_tokens = engine_token_budget(l->engine);
    l->facts.priority_scheduling = o->policy == SCHED_PRIORITY;
    l->facts.prefix_caching = o->prefix_cache;
    l->facts.kvx = o->kvx;
    l->facts.kvx_port = engine_kvx_port(l->engine);
    return RC_OK;
}

void load_free(struct load *l) {
    engine_free(l->engine);
    tp_end(l->tp);            /* the engine was freed: it tells them nothing any more */
    plugins_free(l->plugins); /* no state is left: the engine was freed */
    constraints_free(l->constraints);
    pooler_free(l->pooler);
    model_free(l->model);
    if (l->be)
        l->ops->close(l->be);
    if (l->weights)
        st_close(l->weights);
    hf_config_fini(&l->config);
    for (size_t i = 0; i < l->n_assets; i++)
        free(l->assets[i].data);
    free(l->dir);
    *l = (struct load){0};
}
