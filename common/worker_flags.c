#include "common/worker_flags.h"

#include <stdio.h>
#include <stdlib.h>

#define AT(field) .offset = offsetof(struct worker_flags, field)

const struct conf_flag worker_flag_rows[] = {
    {.name = "served-model-name",
     .kind = CONF_LIST,
     AT(served_names),
     .help = "names clients may use; the first is the default [MODEL]"},
    {.name = "log-level",
     .kind = CONF_ENUM,
     .choices = "debug|info|warning|error",
     AT(log_level),
     .help = "least level logged [info]"},
    {.name = "tokenizer",
     .kind = CONF_STR,
     AT(tokenizer),
     .help = "folder, or repository in the local Hugging Face cache, with the tokenizer and the chat template [MODEL's]"},
    {.name = "revision",
     .kind = CONF_STR,
     AT(revision),
     .help = "branch, tag or commit of a MODEL in the local Hugging Face cache [main]"},
    {.name = "dtype",
     .kind = CONF_ENUM,
     .choices = "auto|float32|float|bfloat16|float16|half",
     AT(dtype),
     .help = "type of weights in memory [auto: as stored]"},
    {.name = "kv-cache-dtype",
     .kind = CONF_ENUM,
     .choices = "auto|float32|bfloat16|float16|fp8|fp8_e4m3",
     AT(kv_cache_dtype),
     .help = "type of the KV cache; fp8 on GPUs only [auto: as the weights]"},
    {.name = "quantization",
     .synonym = "-q",
     .kind = CONF_ENUM,
     .choices = "fp8",
     AT(quantization),
     .help = "fp8: matrices become e4m3 at load, on GPUs only; a checkpoint in fp8 needs no flag"},
    {.name = "max-model-len",
     .kind = CONF_SIZE,
     AT(max_model_len),
     .help = "context in tokens [the config's]"},
    {.name = "device",
     .kind = CONF_ENUM,
     .choices = "auto|cpu|cuda",
     AT(device),
     .help = "where the model runs [auto]"},
    {.name = "kv-cache-memory-bytes",
     .kind = CONF_SIZE,
     AT(kv_cache_memory_bytes),
     .help = "memory of the KV cache, of each rank [on a CPU a quarter of what is free, shared by the ranks; on a GPU "
             "what --gpu-memory-utilization leaves]"},
    {.name = "gpu-memory-utilization",
     .kind = CONF_FLOAT,
     .min = 0.01,
     .max = 1,
     AT(gpu_memory_utilization),
     .help = "share of a GPU's memory for weights, a step's working memory and the KV cache; nothing on a CPU [0.9]"},
    {.name = "num-gpu-blocks-override",
     .kind = CONF_INT,
     .min = 1,
     .max = 16777216,
     AT(n_blocks_override),
     .help = "KV blocks, whatever memory says"},
    {.name = "block-size",
     .kind = CONF_INT,
     .min = 16,
     .max = 16,
     AT(block_size),
     .help = "tokens in a KV block [16]"},
    {.name = "max-num-seqs",
     .kind = CONF_INT,
     .min = 1,
     .max = 4096,
     AT(max_num_seqs),
     .help = "sequences that run at once [256]"},
    {.name = "max-num-batched-tokens",
     .kind = CONF_INT,
     .min = 16,
     .max = 65536,
     AT(max_num_batched_tokens),
     .help = "tokens of one step [what 200 ms compute, 16 to 2048]"},
    {.name = "long-prefill-token-threshold",
     .kind = CONF_INT,
     .min = 0,
     .max = 65536,
     AT(long_prefill_threshold),
     .help = "most prompt tokens of one request in a step [0: no limit]"},
    {.name = "scheduling-policy",
     .kind = CONF_ENUM,
     .choices = "fcfs|priority",
     AT(scheduling_policy),
     .help = "order of waiting requests [fcfs]"},
    {.name = "enable-prefix-caching",
     .kind = CONF_BOOL,
     AT(prefix_caching),
     .help = "share KV blocks of equal prefixes [on]"},
    {.name = "enable-chunked-prefill",
     .kind = CONF_BOOL,
     AT(chunked_prefill),
     .help = "prompts may span steps; without, --max-num-batched-tokens is at least the context [on]"},
    {.name = "tensor-parallel-size",
     .synonym = "-tp",
     .kind = CONF_INT,
     .min = 1,
     .max = 32,
     AT(tensor_parallel),
     .help = "ranks of a worker, processes that share its model [1]"},
    {.name = "task",
     .kind = CONF_ENUM,
     .choices = "auto|generate|embed|embedding|classify|score|reward|transcription",
     AT(task),
     .help = "what the model is for [auto: by its architecture]"},
    {.name = "runner",
     .kind = CONF_ENUM,
     .choices = "auto|generate|pooling",
     AT(runner),
     .help = "newer spelling of --task, with --convert [auto]"},
    {.name = "convert",
     .kind = CONF_ENUM,
     .choices = "auto|none|embed|classify|reward",
     AT(convert),
     .help = "what a pooling runner makes of the model [auto]"},
    {.name = "pooler-config",
     .synonym = "override-pooler-config",
     .kind = CONF_JSON,
     AT(pooler_config),
     .help = "JSON object: pooling_type (CLS, MEAN, LAST, MAX), normalize, use_activation"},
    {.name = "load-format",
     .kind = CONF_ENUM,
     .choices = "auto|safetensors|dummy",
     AT(load_format),
     .help = "dummy: random weights in the shape of the config [auto]"},
    {.name = "hf-overrides",
     .kind = CONF_JSON,
     AT(hf_overrides),
     .help = "JSON object merged into config.json"},
    {.name = "logprobs-mode",
     .kind = CONF_ENUM,
     .choices = "raw_logprobs|processed_logprobs|raw_logits|processed_logits",
     AT(logprobs_mode),
     .help = "what logprobs report [raw_logprobs]"},
    {.name = "max-logprobs",
     .kind = CONF_INT,
     .min = -1,
     .max = 1024,
     AT(max_logprobs),
     .help = "most alternatives a request may ask for; -1: all of the vocabulary [20]"},
    {.name = "generation-config",
     .kind = CONF_STR,
     AT(generation_config),
     .help = "auto: sampling defaults and end tokens of generation_config.json; vllm: neutral ones, and "
             "config.json's; or a folder with another generation_config.json [auto]"},
    {.name = "override-generation-config",
     .kind = CONF_JSON,
     AT(override_generation_config),
     .help = "JSON object merged into generation_config.json"},
    {.name = "logits-processor-plugin",
     .kind = CONF_LIST,
     AT(plugins),
     .help = "shared object with logits processors (worker/plugin/weir_plugin.h), one or several"},
    {.name = "threads",
     .kind = CONF_INT,
     .min = 0,
     .max = 1024,
     AT(threads),
     .help = "compute threads, shared by a worker's ranks, and the router's loops [cores]"},
    {.name = "deterministic",
     .kind = CONF_BOOL,
     AT(deterministic),
     .help = "sums do not depend on the batch; always so on a CPU [off]"},
    {.name = "enforce-eager", .kind = CONF_BOOL, AT(eager), .help = "no captured graphs on a GPU [off]"},
    {.name = "disable-custom-all-reduce",
     .kind = CONF_BOOL,
     AT(no_own_reduce),
     .help = "ranks on GPUs sum through NCCL alone; on CPUs they sum in shared memory anyway [off]"},
    {.name = "kv-transfer-config",
     .kind = CONF_JSON,
     AT(kv_transfer_config),
     .help = "JSON object as vLLM's: KV blocks of prompts go to and come from other workers; kv_role (kv_producer, "
             "kv_consumer, kv_both), kv_ip and kv_port to listen on [none: they stay]"},
    {.name = "kv-lease-seconds",
     .kind = CONF_FLOAT,
     .min = 0.1,
     .max = 86400,
     AT(kv_lease_s),
     .help = "how long a prompt's blocks are kept for another worker that says nothing [30]"},
    {.name = "kv-load-failure-policy",
     .kind = CONF_ENUM,
     .choices = "recompute|fail",
     AT(kv_load_failure_policy),
     .help = "when blocks cannot be had: compute the prompt, or fail its request with 503 [recompute]"},
    {.name = "kv-peer-allow",
     .kind = CONF_LIST,
     AT(kv_peer_allow),
     .help = "ADDRESS or ADDRESS/BITS that requests may name to fetch blocks from, one or several [only workers of the "
             "same router]"},
    GRAMMAR_FLAG_ROWS(offsetof(struct worker_flags, grammar)),
    {.name = "mock",
     .kind = CONF_BOOL,
     AT(mock),
     .help = "a scripted engine in place of the model, for tests [off]"},
    {.name = "mock-step-ms",
     .kind = CONF_FLOAT,
     .min = 0,
     .max = 10000,
     AT(mock_step_ms),
     .help = "milliseconds between tokens of the scripted engine [5]"},
    {.name = "mock-seq-us",
     .kind = CONF_FLOAT,
     .min = 0,
     .max = 1000000,
     AT(mock_seq_us),
     .help = "what each running sample adds to them, microseconds [0]"},
    {.name = "mock-prefill-us-per-token",
     .kind = CONF_FLOAT,
     .min = 0,
     .max = 100000,
     AT(mock_prefill_us_per_token),
     .help = "its prefill time [0]"},
    {.name = "mock-text",
     .kind = CONF_STR,
     AT(mock_text),
     .help = "file with what it says, read again for each request [tokens by chance, and no end]"},
    {.name = "mock-cache-blocks",
     .kind = CONF_INT,
     .min = 0,
     .max = 1 << 24,
     AT(mock_cache_blocks),
     .help = "scripted: blocks of a prefix cache; prompts are then computed one after the other [0: none]"},
    {.name = "mock-faults",
     .kind = CONF_STR,
     AT(mock_faults),
     .help = "what goes wrong at its K-th token: die@K, stop@K, freeze@K[:SECONDS], garbage@K, slow@K:MS, "
             "refuse@K[:N]; several with commas [nothing]"},
};
const size_t n_worker_flag_rows = ARRAY_LEN(worker_flag_rows);

void worker_flags_init(struct worker_flags *f) {
    *f = (struct worker_flags){.log_level = xstrdup("info"),
                               .dtype = xstrdup("auto"),
                               .kv_cache_dtype = xstrdup("auto"),
                               .device = xstrdup("auto"),
                               .gpu_memory_utilization = 0.9,
                               .block_size = 16,
                               .scheduling_policy = xstrdup("fcfs"),
                               .prefix_caching = true,
                               .chunked_prefill = true,
                               .tensor_parallel = 1,
                               .task = xstrdup("auto"),
                               .runner = xstrdup("auto"),
                               .convert = xstrdup("auto"),
                               .load_format = xstrdup("auto"),
                               .logprobs_mode = xstrdup("raw_logprobs"),
                               .max_logprobs = 20,
                               .generation_config = xstrdup("auto"),
                               .kv_lease_s = 30,
                               .kv_load_failure_policy = xstrdup("recompute"),
                               .mock_step_ms = 5};
    grammar_flags_init(&f->grammar);
}

enum rc worker_flags_task(const struct worker_flags *f, const char **task, struct err *e) {
    bool pooling = strcmp(f->runner, "pooling") == 0, generate = strcmp(f->runner, "generate") == 0;
    bool converts = strcmp(f->convert, "auto") != 0 && strcmp(f->convert, "none") != 0;
    const char *said = converts ? f->convert : generate ? "generate" : "auto";
    const char *plain = strcmp(f->task, "embedding") == 0 ? "embed" : f->task;
    bool task_pools =
        strcmp(plain, "auto") != 0 && strcmp(plain, "generate") != 0 && strcmp(plain, "transcription") != 0;
    if (generate && converts)
        return err_set(e, RC_INVALID, "convert", "--convert %s contradicts --runner generate", f->convert);
    if (strcmp(plain, "auto") != 0 &&
        ((strcmp(said, "auto") != 0 && strcmp(said, plain) != 0) || (pooling && !task_pools)))
        return err_set(e, RC_INVALID, "task", "--task %s contradicts --runner %s and --convert %s", f->task,
                       f->runner, f->convert);
    if (pooling && strcmp(plain, "auto") == 0 && !converts)
        said = "pooling"; /* whatever the architecture pools to */
    *task = strcmp(plain, "auto") != 0 ? plain : said;
    return RC_OK;
}

static void push(struct conf_list *l, char *s) {
    l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
    l->v[l->n++] = s;
}

static void push_text(struct conf_list *l, const char *name, const char *value) {
    struct buf b = {0};
    buf_addf(&b, "--%s=%s", name, value);
    push(l, buf_take(&b));
}

void worker_flags_argv(const struct worker_flags *f, struct conf_list *argv) {
    struct worker_flags d;
    worker_flags_init(&d);
    if (!f->mock)
        d.mock_step_ms = f->mock_step_ms;
    for (size_t i = 0; i < n_worker_flag_rows; i++) {
        const struct conf_flag *row = &worker_flag_rows[i];
        const char *v = (const char *)f + row->offset, *dv = (const char *)&d + row->offset;
        char num[64];
        switch (row->kind) {
        case CONF_BOOL:
            if (*(const bool *)v != *(const bool *)dv) {
                struct buf b = {0};
                buf_addf(&b, *(const bool *)v ? "--%s" : "--no-%s", row->name);
                push(argv, buf_take(&b));
            }
            break;
        case CONF_INT:
            snprintf(num, sizeof num, "%lld", (long long)*(const int64_t *)(const void *)v);
            if (*(const int64_t *)(const void *)v != *(const int64_t *)(const void *)dv)
                push_text(argv, row->name, num);
            break;
        case CONF_SIZE:
            snprintf(num, sizeof num, "%llu", (unsigned long long)*(const uint64_t *)(const void *)v);
            if (*(const uint64_t *)(const void *)v != *(const uint64_t *)(const void *)dv)
                push_text(argv, row->name, num);
            break;
        case CONF_FLOAT:
            snprintf(num, sizeof num, "%.17g", *(const double *)(const void *)v);
            if (*(const double *)(const void *)v != *(const double *)(const void *)dv)
                push_text(argv, row->name, num);
            break;
        case CONF_STR:
        case CONF_JSON:
        case CONF_ENUM: {
            const char *s = *(char *const *)(const void *)v, *ds = *(char *const *)(const void *)dv;
            if (s && (!ds || strcmp(s, ds)))
                push_text(argv, row->name, s);
            break;
        }
        case CONF_LIST: {
            const struct conf_list *list = (const void *)v;
            for (size_t k = 0; k < list->n; k++)
                push_text(argv, row->name, list->v[k]);
            break;
        }
        case CONF_IGNORED:
        case CONF_REFUSED:
            break;
        }
    }
    const struct conf_table t = {.flags = worker_flag_rows, .n_flags = n_worker_flag_rows};
    conf_free(&t, &d, NULL);
}
