/* bench_gpu_parity.c: tiny models on the GPU against the CPU, token by token.
 *
 *   bench_gpu_parity [FOLDER]     FOLDER: a model with weights, deploy/tiny-model unless named; and, with made-up weights, a
 *                                 Qwen3 and a mixture of experts
 *
 *   gpu.parity_tokens             greedy tokens that differ, in f32 and in bf16; of how many
 *
 * The CPU computes in f32 and goes first; the GPU is given the CPU's tokens, so each position is compared by itself: the
 * prompt as one chunk, then step by step, as an engine decodes. A token may differ where two logits are nearer to each
 * other than twice the largest error of that row, and no error may be above a share of the row's range: 2^-12 in f32,
 * 2^-4 in bf16, whose numbers have 8 bits and go through every layer. Anything else is a failure, and the exit status 1.
 * WEIR_BENCH_SCALE below 1, for an emulated device: one short text a model.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/hf/safetensors.h"
#include "tests/support/bench.h"
#include "tests/support/model_run.h"
#include "worker/device.h"
#include "worker/file.h"

enum { PROMPT = 24, MORE = 40 };

static const struct {
    const char *name, *config;
} made_up[] = {
    {"qwen3",
     "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"torch_dtype\":\"bfloat16\",\"vocab_size\":500,"
     "\"hidden_size\":128,\"intermediate_size\":192,\"num_hidden_layers\":3,\"num_attention_heads\":4,"
     "\"num_key_value_heads\":2,\"head_dim\":64,\"hidden_act\":\"silu\",\"max_position_embeddings\":512,"
     "\"rms_norm_eps\":1e-6,\"rope_theta\":1000000.0,\"tie_word_embeddings\":true,\"bos_token_id\":1,\"eos_token_id\":2}"},
    {"mixtral",
     "{\"architectures\":[\"MixtralForCausalLM\"],\"model_type\":\"mixtral\",\"torch_dtype\":\"bfloat16\",\"vocab_size\":500,"
     "\"hidden_size\":128,\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
     "\"num_key_value_heads\":1,\"hidden_act\":\"silu\",\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,"
     "\"rope_theta\":10000.0,\"num_local_experts\":4,\"num_experts_per_tok\":2,\"tie_word_embeddings\":false,"
     "\"bos_token_id\":1,\"eos_token_id\":2}"},
};

static bool fast = true; /* no emulated device */

static void die(const char *what) {
    fprintf(stderr, "bench_gpu_parity: %s\n", what);
    exit(1);
}

static uint32_t best_of(const float *row, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

/* tally: of a model and a type. */
struct tally {
    uint32_t n, n_near, n_wrong;
    double worst; /* largest error as a share of its row's range */
};

/* compare: one position's logits. */
static void compare(const float *cpu, const float *gpu, uint32_t n_vocab, double error_max, struct tally *t) {
    uint32_t mine = best_of(gpu, n_vocab), its = best_of(cpu, n_vocab);
    double error = 0, low = INFINITY;
    for (uint32_t i = 0; i < n_vocab; i++) {
        double d = fabs((double)gpu[i] - cpu[i]);
        error = d <= error ? error : d; /* NaN stays */
        low = fmin(low, cpu[i]);
    }
    double share = error / (cpu[its] - low);
    t->n++;
    t->worst = share <= t->worst ? t->worst : share;
    if (!(share <= error_max) || cpu[its] - cpu[mine] > 2 * error)
        t->n_wrong++;
    else if (mine != its)
        t->n_near++;
}

static bool check(const struct hf_config *c, const struct st_set *set, const char *model, const struct be_ops *gpu,
                  enum dtype type) {
    struct model_run cpu_run, gpu_run;
    struct tally t = {0};
    struct be_info info;
    uint32_t tokens[PROMPT + MORE], n_prompts = fast ? 3 : 1, more = fast ? MORE : 5;
    uint64_t s = 7;
    char params[300];
    model_run_open(&cpu_run, c, set, &cpu_ops, &(struct be_config){.n_ranks = 1});
    model_run_open(&gpu_run, c, set, gpu, &(struct be_config){.n_ranks = 1, .compute = type});
    for (uint32_t p = 0; p < n_prompts; p++) {
        for (uint32_t i = 0; i < PROMPT; i++) {
            s = s * 6364136223846793005u + 1442695040888963407u;
            tokens[i] = (uint32_t)(s >> 33) % c->vocab;
        }
        model_run_greedy(&cpu_run, tokens, PROMPT, more);
        model_run_chunk(&gpu_run, tokens, 0, PROMPT);
        for (uint32_t i = PROMPT; i + 1 < PROMPT + more; i++)
            model_run_chunk(&gpu_run, tokens, i, i + 1);
        for (uint32_t i = 0; i + 1 < PROMPT + more; i++)
            compare(cpu_run.logits + (size_t)i * c->vocab, gpu_run.logits + (size_t)i * c->vocab, c->vocab,
                    type == DT_F32 ? 0x1p-12 : 0x1p-4, &t);
    }
    gpu->info(gpu_run.be, &info);
    snprintf(params, sizeof params,
             "{\"model\":\"%s\",\"dtype\":\"%s\",\"device\":\"%s\",\"of\":%u,\"near_ties\":%u,\"wrong\":%u,"
             "\"largest_error\":%.3g}",
             model, type == DT_F32 ? "f32" : "bf16", info.name, t.n, t.n_near, t.n_wrong, isfinite(t.worst) ? t.worst : 1e9);
    bench_emit("gpu.parity_tokens", t.n_near + t.n_wrong, "tokens", params);
    model_run_close(&cpu_run);
    model_run_close(&gpu_run);
    return t.n_wrong == 0;
}

static bool both(struct str text, const struct st_set *set, const char *name, const struct be_ops *gpu) {
    struct hf_config c = {0};
    struct err e = {0};
    if (hf_config_parse(text, NULL, &c, &e) != RC_OK)
        die(e.msg);
    bool good = check(&c, set, name, gpu, DT_F32) & check(&c, set, name, gpu, DT_BF16);
    hf_config_fini(&c);
    return good;
}

static bool opens(const struct be_ops *gpu, struct err *e) {
    struct be *b;
    if (gpu->open(&b, &(struct be_config){.n_ranks = 1, .n_tokens_max = 1, .n_seqs_max = 1, .n_rows_max = 1, .n_vocab = 1},
                  e->msg) != 0)
        return false;
    gpu->close(b);
    return true;
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : "deploy/tiny-model", *scale = getenv("WEIR_BENCH_SCALE");
    const struct be_ops *gpu;
    struct st_set *set = NULL;
    struct err e = {0};
    char *config;
    size_t n;
    fast = !scale || strtod(scale, NULL) >= 1;
    if (device_ops("cuda", &gpu, &e) != RC_OK || !opens(gpu, &e)) {
        fprintf(stderr, "bench_gpu_parity: left out: %s\n", e.msg);
        return 77;
    }
    if (file_read(folder, "config.json", MIB, &config, &n, &e) != RC_OK || st_open(&set, folder, &e) != RC_OK)
        die(e.msg);
    bool good = both((struct str){config, n}, set, "tiny-model", gpu);
    for (size_t i = 0; i < ARRAY_LEN(made_up); i++)
        good &= both(str_of(made_up[i].config), NULL, made_up[i].name, gpu);
    st_close(set);
    free(config);
    return good ? 0 : 1;
}
