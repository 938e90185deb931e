/* worker_flags.h: the flags of a worker, which `weir serve` takes too and hands on (rows S W of api.md 22.2).
 *
 * One table, so that the two programs cannot drift. A struct worker_flags is filled by conf_parse and
 * read-only afterwards.
 */
#ifndef WEIR_COMMON_WORKER_FLAGS_H
#define WEIR_COMMON_WORKER_FLAGS_H

#include "common/conf.h"
#include "common/err.h"
#include "common/grammar_flags.h"

struct worker_flags {
    struct conf_list served_names;
    char *log_level;
    char *tokenizer;                /* its folder or repository; NULL: MODEL's */
    char *revision;                 /* of MODEL in the local Hugging Face cache; NULL: main */
    char *dtype;                    /* auto, float32, float16, bfloat16 and their short forms */
    char *kv_cache_dtype;           /* auto, or as dtype, or fp8 */
    char *quantization;             /* fp8, or NULL */
    uint64_t max_model_len;         /* 0: the config's */
    char *device;                   /* auto, cpu, cuda */
    uint64_t kv_cache_memory_bytes; /* 0: from the machine */
    double gpu_memory_utilization;  /* share of a GPU's memory */
    int64_t n_blocks_override;      /* 0: none */
    int64_t block_size;             /* 16 */
    int64_t max_num_seqs, max_num_batched_tokens, long_prefill_threshold; /* 0: default */
    char *scheduling_policy;                                              /* fcfs, priority */
    bool prefix_caching, chunked_prefill;
    int64_t tensor_parallel;
    char *task, *runner, *convert; /* see worker_flags_task */
    char *pooler_config;           /* JSON object or NULL */
    char *load_format;             /* auto, safetensors, dummy */
    char *hf_overrides;            /* JSON object or NULL */
    char *logprobs_mode;
    int64_t max_logprobs;    /* -1: the vocabulary */
    char *generation_config; /* auto, vllm: generation_config.json does not count, or a folder with another */
    char *override_generation_config;  /* JSON object or NULL */
    struct conf_list plugins;          /* --logits-processor-plugin: shared objects */
    int64_t threads; /* compute threads; 0: cores */
    bool deterministic, eager;
    bool no_own_reduce; /* --disable-custom-all-reduce: ranks on GPUs sum through NCCL alone */
    char *kv_transfer_config; /* JSON object or NULL: no KV transfers */
    double kv_lease_s;
    char *kv_load_failure_policy; /* recompute, fail */
    struct conf_list kv_peer_allow;
    struct grammar_flags grammar;
    /* A scripted engine in place of the model (worker/mock.h); for tests and benchmarks of routers. */
    bool mock;
    double mock_step_ms, mock_seq_us, mock_prefill_us_per_token;
    char *mock_text;   /* NULL: none */
    int64_t mock_cache_blocks; /* 0: no prefix cache */
    char *mock_faults; /* worker/mock_script.h; NULL: none */
};

/* The rows, with offsets relative to a struct worker_flags. */
extern const struct conf_flag worker_flag_rows[];
extern const size_t n_worker_flag_rows;
/* worker_flags_init: the defaults. */
void worker_flags_init(struct worker_flags *f);
/* worker_flags_task: what --task, --runner and --convert say together, in the words of --task; borrowed.
 * RC_INVALID: they contradict each other. */
MUST_USE enum rc worker_flags_task(const struct worker_flags *f, const char **task, struct err *e);
/* worker_flags_argv: appends "--flag=value" for everything that differs from the defaults; each element is
 * heap memory. */
void worker_flags_argv(const struct worker_flags *f, struct conf_list *argv);

#endif
