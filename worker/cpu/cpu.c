/* cpu.c: cpu_ops. */
#include <cpuid.h>

#include "worker/cpu/cpu.h"

/* has_avx2: the processor and the system have what files named *_avx2.c are compiled for. */
static bool has_avx2(void) {
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    /* F16C by hand: not every compiler's __builtin_cpu_supports knows the word */
    bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static int open_best(struct be **out, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    return cpu_open(out, cfg, has_avx2(), err);
}

/* CHOOSE: an entry that is one of two, by the handle. */
#define CHOOSE(name, type)                                                                                   \
    static void name(struct be *b, const struct type *op) {                                                  \
        (b->avx2 ? avx2_##name : ref_##name)(b, op);                                                         \
    }
CHOOSE(embed, op_embed)
CHOOSE(gemm, op_gemm)
CHOOSE(norm, op_norm)
CHOOSE(attn, op_attn)
CHOOSE(moe, op_moe)
CHOOSE(logits, op_logits)

static void sample(struct be *b, const struct sample_row *rows, struct sample_out *out, uint32_t n) {
    (b->avx2 ? avx2_sample : ref_sample)(b, rows, out, n);
}

static void row_logprobs(struct be *b, const struct op_row_logprobs *rows, uint32_t n) {
    (b->avx2 ? avx2_row_logprobs : ref_row_logprobs)(b, rows, n);
}

const struct be_ops cpu_ops = {
    .abi = BE_ABI,
    .bytes = sizeof(struct be_ops),
    .name = "cpu",
    .open = open_best,
    .close = cpu_close,
    .info = cpu_info,
    .mem_new = cpu_mem_new,
    .mem_free = cpu_mem_free,
    .mem_put = cpu_mem_put,
    .mem_get = cpu_mem_get,
    .weight = cpu_weight,
    .weight_free = cpu_weight_free,
    .weight_bytes = cpu_weight_bytes,
    .kv_block_bytes = cpu_kv_block_bytes,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .kv_copy = cpu_kv_copy,
    .kv_export = cpu_kv_export,
    .kv_import = cpu_kv_import,
    .plan = cpu_plan,
    .begin = cpu_begin,
    .end = cpu_end,
    .embed = embed,
    .gemm = gemm,
    .norm = norm,
    .attn = attn,
    .moe = moe,
    .logits = logits,
    .logits_get = cpu_logits_get,
    .logits_put = cpu_logits_put,
    .sample = sample,
    .row_logprobs = row_logprobs,
    .wait = cpu_wait,
    .group_bytes = cpu_group_bytes,
    .stand_open = group_stand_open,
    .stand_call = group_stand_call,
    .stand_close = group_stand_close,
    .gather = cpu_gather,
};
