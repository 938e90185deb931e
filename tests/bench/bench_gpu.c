/* bench_gpu.c: a whole model on the GPU, with weights made up in the shape of a known one.
 *
 *   bench_gpu [SHAPE [DTYPE [PART]]]     SHAPE llama-8b (default), qwen3-0.6b, tiny; DTYPE bfloat16 (default), fp8;
 *                                        PART yardstick, steps, attention, offline (default: all)
 *
 *   gpu.copy_gb_s, gpu.gemm_tflop_s      what the device does at best: a copy, counting reads and writes, and a product
 *                                        of random bf16 matrices by the vendor's library; of this very run
 *   gpu.decode_tokens_s                  one sequence, and 32, 128 and 256; share: of the copy's bandwidth
 *   gpu.prefill_tokens_s                 a step full of prompt; share: of the product's rate
 *   gpu.attention_prefill_tflop_s, gpu.attention_decode_gb_s   the kernels alone
 *   gpu.offline_tokens_s                 output tokens of 1,000 requests through the engine, lengths from
 *                                        tests/bench/offline_lengths.txt
 *
 * Steps go from the plan to the tokens on the host. Medians. Weights and KV do not fit any cache; attention alone goes
 * from layer to layer. backend-cuda.so is looked for beside this program; without it, or a GPU, it says so: status 77.
 * WEIR_BENCH_SCALE, default 1, scales contexts, requests and times: 0.05 is for an emulated device.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/apart_flags.h"
#include "common/clock.h"
#include "common/log.h"
#include "tests/support/bench.h"
#include "worker/load.h"

struct bench {
    struct load l;
    struct engine_opts engine;
    const char *shape, *dtype;
    double scale, copy_gb_s, gemm_tflop_s; /* 0: not known */
    char folder[64];
    struct be_mem *qkv, *out; /* of attention alone */
    struct sample_row *rows;
    struct sample_out *outs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t n_tokens, n_ends;
};

static const struct {
    const char *name, *config;
} shapes[] = {
    {"llama-8b",
     "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"torch_dtype\":\"bfloat16\",\"vocab_size\":128256,"
     "\"hidden_size\":4096,\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
     "\"num_key_value_heads\":8,\"hidden_act\":\"silu\",\"max_position_embeddings\":8192,\"rms_norm_eps\":1e-5,"
     "\"rope_theta\":500000.0,\"tie_word_embeddings\":false,\"bos_token_id\":1,\"eos_token_id\":2}"},
    {"qwen3-0.6b",
     "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"torch_dtype\":\"bfloat16\",\"vocab_size\":151936,"
     "\"hidden_size\":1024,\"intermediate_size\":3072,\"num_hidden_layers\":28,\"num_attention_heads\":16,"
     "\"num_key_value_heads\":8,\"head_dim\":128,\"hidden_act\":\"silu\",\"max_position_embeddings\":8192,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true,\"bos_token_id\":1,\"eos_token_id\":2}"},
    {"tiny",
     "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"torch_dtype\":\"bfloat16\",\"vocab_size\":1600,"
     "\"hidden_size\":128,\"intermediate_size\":128,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
     "\"num_key_value_heads\":1,\"hidden_act\":\"silu\",\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"
     "\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"bos_token_id\":1,\"eos_token_id\":2}"},
};

static void die(const char *what) {
    fprintf(stderr, "bench_gpu: %s\n", what);
    exit(1);
}

static const char *beside(const char *name, char *out, size_t n) {
    char self[1024];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(len > 0);
    self[len] = 0;
    *strrchr(self, '/') = 0;
    CHECK((size_t)snprintf(out, n, "%s/%s", self, name) < n);
    return out;
}

static uint32_t scaled(const struct bench *b, uint32_t n, uint32_t least) {
    return MAX((uint32_t)(n * b->scale), least);
}

static void emit(const struct bench *b, const char *name, double value, const char *unit, const char *params) {
    char all[700];
    snprintf(all, sizeof all, "{\"model\":\"%s\",\"dtype\":\"%s\",\"device\":\"%s\"%s%s}", b->shape, b->dtype,
             b->l.device.name, params[0] ? "," : "", params);
    bench_emit(name, value, unit, all);
}

/* share: of a yardstick, as JSON; "null" where it was not taken. */
static const char *share(double value, double of, char *out, size_t n) {
    snprintf(out, n, of > 0 ? "%.3f" : "null", value / of);
    return out;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* wait_all: everything enqueued; a device that failed ends the bench. */
static void wait_all(struct bench *b) {
    char why[BE_ERR_BYTES];
    if (b->l.ops->wait(b->l.be, why) != 0)
        die(why);
}

/* ---- the model ---------------------------------------------------------------------------------- */

static void write_file(const char *dir, const char *name, const char *text, size_t n) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(text, 1, n, f) != n || fclose(f) != 0)
        die("cannot write the model's folder");
}

/* folder_make: config.json of the shape; and a tokenizer of 256 bytes, which nothing here asks. */
static void folder_make(struct bench *b) {
    static const char tokenizer[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}";
    size_t i = 0;
    while (i < ARRAY_LEN(shapes) && strcmp(shapes[i].name, b->shape) != 0)
        i++;
    if (i == ARRAY_LEN(shapes))
        die("SHAPE is llama-8b, qwen3-0.6b or tiny");
    snprintf(b->folder, sizeof b->folder, "/tmp/weir-bench-gpu-XXXXXX");
    if (!mkdtemp(b->folder))
        die("no folder in /tmp");
    write_file(b->folder, "config.json", shapes[i].config, strlen(shapes[i].config));
    write_file(b->folder, "tokenizer.json", tokenizer, strlen(tokenizer));
}

static void folder_remove(const struct bench *b) {
    static const char *const names[] = {"/config.json", "/tokenizer.json", ""};
    char path[100];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s%s", b->folder, names[i]);
        remove(path);
    }
}

static void on_step(void *arg, const struct step_out *out) {
    struct bench *b = arg;
    pthread_mutex_lock(&b->lock);
    for (uint32_t r = 0; r < out->n_routers; r++)
        for (uint32_t i = 0; i < out->routers[r].n_tokens; i++) {
            b->n_tokens += out->routers[r].tokens[i].token != SEQ_NO_TOKEN;
            b->n_ends += out->routers[r].tokens[i].finish != FINISH_NONE;
        }
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void on_failed(void *arg, const char *message) {
    (void)arg;
    die(message);
}

/* model_open: false: this version does not have the dtype, or there is no GPU. */
static bool model_open(struct bench *b) {
    struct worker_flags f;
    struct err e = {0};
    static struct conf_flag rows[192];
    struct conf_list positional = {0};
    struct conf_table t = {.usage = "bench_gpu", .flags = rows};
    char seqs[40], tokens[50];
    bool fp8 = !strcmp(b->dtype, "fp8");
    snprintf(seqs, sizeof seqs, "--max-num-seqs=%u", scaled(b, 1024, 8));
    snprintf(tokens, sizeof tokens, "--max-num-batched-tokens=%u", scaled(b, 4096, 32));
    char *argv[] = {"bench_gpu", "--device=cuda", "--load-format=dummy", "--dtype=bfloat16", "--no-enable-prefix-caching",
                    "--log-level=warning", seqs, tokens, fp8 ? "--quantization=fp8" : "--tensor-parallel-size=1"};
    worker_flags_init(&f);
    t.n_flags = conf_rows_add(rows, 0, ARRAY_LEN(rows), worker_flag_rows, n_worker_flag_rows, 0);
    t.n_flags = conf_rows_add(rows, t.n_flags, ARRAY_LEN(rows), apart_flag_rows, n_apart_flag_rows, 0);
    if (conf_parse(&t, ARRAY_LEN(argv), argv, &f, &positional, &e) != RC_OK) {
        fprintf(stderr, "bench_gpu: %s: left out: %s\n", b->dtype, e.msg);
        return false;
    }
    log_set_level(LOG_WARN);
    b->engine = (struct engine_opts){.arg = b, .on_step = on_step, .on_failed = on_failed};
    enum rc rc = load_files(&b->l, b->folder, &f, &e);
    uint64_t from_ns = clock_ns();
    if (rc == RC_OK)
        rc = load_model(&b->l, &f, &b->engine, NULL, NULL, &e);
    conf_free(&t, &f, &positional);
    if (rc == RC_UNAVAILABLE)
        fprintf(stderr, "bench_gpu: left out: %s\n", e.msg);
    else if (rc != RC_OK)
        die(e.msg);
    if (rc != RC_OK)
        return false;
    fprintf(stderr, "bench_gpu: %s in %s, %.1f GiB of weights made in %.1f s, KV cache for %u tokens\n", b->shape, b->dtype,
            (double)model_weight_bytes(b->l.model) / (double)GIB, (double)(clock_ns() - from_ns) * 1e-9,
            b->l.facts.n_blocks * KV_BLOCK_TOKENS);
    return true;
}

/* ---- batches and steps -------------------------------------------------------------------------- */

/* batch_new: n_seqs sequences with n_new tokens each on top of `past`, blocks in order. One allocation. */
static struct batch *batch_new(const struct bench *b, uint32_t n_seqs, uint32_t n_new, uint32_t past) {
    uint32_t n = n_seqs * n_new, stride = (past + n_new + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    uint32_t *words = xcalloc(3 * (size_t)n + (size_t)n_seqs * (stride + 3) + 2, sizeof *words);
    uint32_t *slot = words + n, *pos = slot + n, *start = pos + n, *len = start + n_seqs + 1, *rows = len + n_seqs,
             *table = rows + n_seqs;
    struct batch *batch = xcalloc(1, sizeof *batch);
    if ((uint64_t)n_seqs * stride > b->l.facts.n_blocks)
        die("the KV cache is too small for a case");
    for (uint32_t s = 0; s < n_seqs; s++) {
        start[s + 1] = (s + 1) * n_new;
        len[s] = past + n_new;
        rows[s] = start[s + 1] - 1;
        for (uint32_t i = 0; i < stride; i++)
            table[s * stride + i] = s * stride + i;
        for (uint32_t i = 0; i < n_new; i++) {
            uint32_t t = s * n_new + i, at = past + i;
            words[t] = (s * 7919 + i * 104729) % b->l.config.vocab;
            pos[t] = at;
            slot[t] = table[s * stride + at / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + at % KV_BLOCK_TOKENS;
        }
    }
    *batch = (struct batch){.n_tokens = n, .n_seqs = n_seqs, .n_rows = n_seqs, .n_axes = 1, .n_groups = 1, .tokens = words,
                            .pos = (const int32_t *)(const void *)pos, .seq_start = start, .kv_len = len, .rows = rows};
    batch->group[0].table = table;
    batch->group[0].table_stride = stride;
    batch->group[0].slot = slot;
    return batch;
}

static void batch_free(struct batch *batch) {
    free((void *)(uintptr_t)batch->tokens);
    free(batch);
}

static void step(struct bench *b, const struct batch *batch) {
    model_forward(b->l.model, batch);
    b->l.ops->sample(b->l.be, b->rows, b->outs, batch->n_rows);
    wait_all(b);
}

/* step_s: the median time of a step, over about two seconds; the first ones fill plans and capture. */
static double step_s(struct bench *b, const struct batch *batch, int *n_steps) {
    enum { N_MAX = 200 };
    double took[N_MAX], until = bench_now_s() + 2 * b->scale;
    int n = 0;
    for (int i = 0; i < 3; i++)
        step(b, batch);
    while (n < N_MAX && (n < 3 || bench_now_s() < until)) {
        double from = bench_now_s();
        step(b, batch);
        took[n++] = bench_now_s() - from;
    }
    qsort(took, (size_t)n, sizeof *took, ascending);
    *n_steps = n;
    return took[n / 2];
}

static void decode(struct bench *b, uint32_t n_seqs, uint32_t context) {
    struct hf_config *c = &b->l.config;
    uint32_t n = scaled(b, n_seqs, 1), past = scaled(b, context, 16) - 1;
    struct batch *batch = batch_new(b, n, 1, past);
    char text[300], part[20];
    int steps;
    double s = step_s(b, batch, &steps);
    uint64_t weights = model_weight_bytes(b->l.model) - (c->tie_embeddings ? 0 : 2ull * c->vocab * c->hidden);
    uint64_t kv = b->l.ops->kv_block_bytes(b->l.be, &(struct cache_group_spec){.kind = CACHE_FULL, .n_layers = c->n_layers,
                                                   .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .dtype = DT_BF16}) /
                  KV_BLOCK_TOKENS * n * (past + 1);
    double gb_s = (double)(weights + kv) * 1e-9 / s;
    snprintf(text, sizeof text, "\"batch\":%u,\"context\":%u,\"step_ms\":%.4f,\"gb_s\":%.4g,\"share_of_copy\":%s,\"steps\":%d",
             n, past + 1, s * 1e3, gb_s, share(gb_s, b->copy_gb_s, part, sizeof part), steps);
    emit(b, "gpu.decode_tokens_s", n / s, "tokens/s", text);
    batch_free(batch);
}

static void prefill(struct bench *b, uint32_t n_tokens) {
    struct hf_config *c = &b->l.config;
    uint32_t n = scaled(b, n_tokens, 16);
    struct batch *batch = batch_new(b, 1, n, 0);
    char text[300], part[20];
    int steps;
    double s = step_s(b, batch, &steps), heads = (double)c->n_heads * c->head_dim, kv = (double)c->n_kv_heads * c->head_dim;
    double products = (heads * 2 + kv * 2 + 3.0 * c->mlp) * c->hidden * c->n_layers;
    double flop = 2 * products * n + 2.0 * c->vocab * c->hidden + 2 * heads * n * n * c->n_layers;
    snprintf(text, sizeof text, "\"tokens\":%u,\"step_ms\":%.3f,\"tflop_s\":%.4g,\"share_of_gemm\":%s,\"steps\":%d", n, s * 1e3,
             flop / s * 1e-12, share(flop / s * 1e-12, b->gemm_tflop_s, part, sizeof part), steps);
    emit(b, "gpu.prefill_tokens_s", n / s, "tokens/s", text);
    batch_free(batch);
}

/* ---- attention alone ---------------------------------------------------------------------------- */

/* layers: attention of every layer, once, enqueued. */
static void layers(struct bench *b) {
    const struct hf_config *c = &b->l.config;
    for (uint32_t i = 0; i < c->n_layers; i++)
        b->l.ops->attn(b->l.be, &(struct op_attn){.out = b->out, .qkv = b->qkv, .layer = i, .n_heads = c->n_heads,
                                                  .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .scale = 0.09f});
}

/* layer_s: the time of a layer's, all layers being enqueued before anything is waited for. */
static double layer_s(struct bench *b, const struct batch *batch) {
    enum { ROUNDS = 5 };
    double took[ROUNDS];
    b->l.ops->plan(b->l.be, batch);
    layers(b);
    wait_all(b);
    for (int i = 0; i < ROUNDS; i++) {
        double from = bench_now_s();
        layers(b);
        wait_all(b);
        took[i] = bench_now_s() - from;
    }
    qsort(took, ROUNDS, sizeof *took, ascending);
    return took[ROUNDS / 2] / b->l.config.n_layers;
}

static void attention(struct bench *b) {
    const struct hf_config *c = &b->l.config;
    uint32_t rows = scaled(b, 4096, 32), width = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    char text[200], part[20];
    b->qkv = b->l.ops->mem_new(b->l.be, rows, width, DT_NONE);
    b->out = b->l.ops->mem_new(b->l.be, rows, c->n_heads * c->head_dim, DT_NONE);
    if (!b->qkv || !b->out)
        die("no memory for attention");
    static const uint32_t contexts[] = {4096, 8192};
    for (size_t i = 0; i < ARRAY_LEN(contexts); i++) {
        uint32_t context = scaled(b, contexts[i], 64), n = MIN(rows, context);
        struct batch *batch = batch_new(b, 1, n, context - n);
        double s = layer_s(b, batch), seen = (double)n * (context - n) + n * (n + 1.0) / 2;
        double rate = 4.0 * seen * c->n_heads * c->head_dim / s * 1e-12;
        snprintf(text, sizeof text, "\"queries\":%u,\"context\":%u,\"us\":%.1f,\"share_of_gemm\":%s", n, context, s * 1e6,
                 share(rate, b->gemm_tflop_s, part, sizeof part));
        emit(b, "gpu.attention_prefill_tflop_s", rate, "TFLOP/s", text);
        batch_free(batch);
    }
    static const uint32_t shapes_of[][2] = {{1, 8192}, {32, 1024}, {256, 1024}};
    for (size_t i = 0; i < ARRAY_LEN(shapes_of); i++) {
        uint32_t n = scaled(b, shapes_of[i][0], 1), context = scaled(b, shapes_of[i][1], 32);
        struct batch *batch = batch_new(b, n, 1, context - 1);
        double s = layer_s(b, batch), gb_s = 4.0 * n * context * c->n_kv_heads * c->head_dim / s * 1e-9;
        snprintf(text, sizeof text, "\"batch\":%u,\"context\":%u,\"us\":%.1f,\"share_of_copy\":%s", n, context, s * 1e6,
                 share(gb_s, b->copy_gb_s, part, sizeof part));
        emit(b, "gpu.attention_decode_gb_s", gb_s, "GB/s", text);
        batch_free(batch);
    }
    b->l.ops->mem_free(b->l.be, b->qkv);
    b->l.ops->mem_free(b->l.be, b->out);
}

/* ---- what the device does at best --------------------------------------------------------------- */

static void yardstick_copy(struct bench *b) {
    char path[1200], text[100];
    void *so = dlopen(beside("backend-cuda.so", path, sizeof path), RTLD_NOW | RTLD_NOLOAD), *sym = NULL;
    bool (*copy)(struct be *, size_t, uint32_t) = NULL;
    size_t bytes = scaled(b, 1024, 4) * MIB;
    uint32_t times = 20;
    if (so)
        sym = dlsym(so, "be_probe_copy");
    memcpy(&copy, &sym, sizeof sym);
    if (!copy || !copy(b->l.be, bytes, 2)) {
        fprintf(stderr, "bench_gpu: no copy was measured: shares are left out\n");
        return;
    }
    double from = bench_now_s();
    copy(b->l.be, bytes, times);
    b->copy_gb_s = 2.0 * (double)bytes * times * 1e-9 / (bench_now_s() - from);
    snprintf(text, sizeof text, "\"mib\":%zu", bytes / MIB);
    emit(b, "gpu.copy_gb_s", b->copy_gb_s, "GB/s", text);
}

static void yardstick_gemm(struct bench *b) {
    uint32_t n = scaled(b, 8192, 64) / 64 * 64;
    const struct be_ops *o = b->l.ops;
    char why[BE_ERR_BYTES], text[60];
    float *data = xmalloc((size_t)n * n * sizeof *data);
    uint64_t s = 1;
    for (size_t i = 0; i < (size_t)n * n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        data[i] = (float)(int32_t)(s >> 32) * 0x1p-31f;
    }
    struct be_mem *x = o->mem_new(b->l.be, n, n, DT_NONE), *y = o->mem_new(b->l.be, n, n, DT_NONE);
    struct be_w *w = o->weight(b->l.be, BE_W_LINEAR, &(struct be_weight_src){.data = data, .dtype = DT_F32, .rows = n, .cols = n},
                               1, why);
    if (!x || !y || !w)
        die("no memory for a product");
    o->mem_put(b->l.be, x, 0, n, data);
    free(data);
    for (int round = 0, times = 1; round < 2; round++, times = 20) { /* the first finds out how */
        double from = bench_now_s();
        for (int i = 0; i < times; i++)
            o->gemm(b->l.be, &(struct op_gemm){.y = y, .x = x, .w = w, .n_rows = n});
        wait_all(b);
        b->gemm_tflop_s = 2.0 * n * n * n * times * 1e-12 / (bench_now_s() - from);
    }
    o->mem_free(b->l.be, x);
    o->mem_free(b->l.be, y);
    o->weight_free(b->l.be, w);
    snprintf(text, sizeof text, "\"rows\":%u,\"columns\":%u,\"depth\":%u", n, n, n);
    emit(b, "gpu.gemm_tflop_s", b->gemm_tflop_s, "TFLOP/s", text);
}

/* ---- offline ------------------------------------------------------------------------------------ */

static void submit(struct bench *b, uint64_t stream, uint32_t n_in, uint32_t n_out) {
    struct err e = {0};
    uint32_t *prompt = xmalloc(n_in * sizeof *prompt);
    uint64_t s = stream + 1;
    for (uint32_t i = 0; i < n_in; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        prompt[i] = (uint32_t)(s >> 33) % b->l.config.vocab;
    }
    struct req q = {.stream = stream, .n_samples = 1, .arrival_ns = clock_ns(), .prompt = prompt,
                    .n_prompt = n_in, .max_tokens = n_out, .ignore_eos = true, .top_p = 1, .repetition_penalty = 1,
                    .n_logprobs = -1, .n_prompt_logprobs = -1};
    memcpy(q.id.b, &stream, sizeof stream);
    struct req *r = req_new(&q);
    free(prompt);
    if (engine_submit(b->l.engine, r, &e) != RC_OK)
        die(e.msg);
}

static void offline(struct bench *b) {
    char path[1200], text[200];
    FILE *f = fopen("tests/bench/offline_lengths.txt", "r");
    if (!f)
        f = fopen(beside("offline_lengths.txt", path, sizeof path), "r");
    struct err e = {0};
    uint32_t n_in, n_out, n = 0, n_max = scaled(b, 1000, 8), cap = b->l.facts.max_model_len / 2 - 1;
    uint64_t in = 0, out = 0;
    if (!f)
        die("offline_lengths.txt is neither in tests/bench nor beside this program");
    double from = bench_now_s();
    if (engine_start(b->l.engine, &e) != RC_OK)
        die(e.msg);
    for (; n < n_max && fscanf(f, "%u %u", &n_in, &n_out) == 2; n++) {
        n_in = MIN(scaled(b, n_in, 1), cap);
        n_out = MIN(scaled(b, n_out, 1), cap);
        submit(b, n, n_in, n_out);
        in += n_in;
        out += n_out;
    }
    fclose(f);
    pthread_mutex_lock(&b->lock);
    while (b->n_ends < n)
        pthread_cond_wait(&b->changed, &b->lock);
    CHECK(b->n_tokens == out);
    pthread_mutex_unlock(&b->lock);
    double s = bench_now_s() - from;
    engine_stop(b->l.engine);
    snprintf(text, sizeof text, "\"requests\":%u,\"tokens_in\":%llu,\"tokens_out\":%llu,\"seconds\":%.3f", n,
             (unsigned long long)in, (unsigned long long)out, s);
    emit(b, "gpu.offline_tokens_s", (double)out / s, "tokens/s", text);
}

int main(int argc, char **argv) {
    static struct bench b = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    const char *part = argc > 3 ? argv[3] : "", *scale = getenv("WEIR_BENCH_SCALE");
    char path[1200];
    b.shape = argc > 1 ? argv[1] : "llama-8b";
    b.dtype = argc > 2 ? argv[2] : "bfloat16";
    b.scale = scale ? strtod(scale, NULL) : 1;
    if (!(b.scale > 0 && b.scale <= 1))
        die("WEIR_BENCH_SCALE is above 0 and at most 1");
    if (access(beside("backend-cuda.so", path, sizeof path), R_OK) != 0) {
        fprintf(stderr, "bench_gpu: left out: no backend-cuda.so beside it (make CUDA=1)\n");
        return 77;
    }
    folder_make(&b);
    bool open = model_open(&b);
    if (open) {
        b.rows = xcalloc(1024, sizeof *b.rows); /* greedy */
        b.outs = xcalloc(1024, sizeof *b.outs);
        if (!part[0] || !strcmp(part, "yardstick") || !strcmp(part, "steps") || !strcmp(part, "attention")) {
            yardstick_copy(&b);
            yardstick_gemm(&b);
        }
        if (!part[0] || !strcmp(part, "steps")) {
            decode(&b, 1, 1024);
            decode(&b, 32, 1024);
            decode(&b, 128, 320);
            decode(&b, 256, 320);
            prefill(&b, 2048);
            prefill(&b, 4096);
        }
        if (!part[0] || !strcmp(part, "attention"))
            attention(&b);
        if (!part[0] || !strcmp(part, "offline"))
            offline(&b);
    }
    load_free(&b.l);
    folder_remove(&b);
    free(b.rows);
    free(b.outs);
    return open ? 0 : 77;
}
