/* ref.c: ref_ops, the table in plain C on one thread unless more are asked for. */
#include "worker/cpu/be.h"

static int ref_open(struct be **out, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    struct be_config c = *cfg;
    if (c.n_threads == 0)
        c.n_threads = 1;
    return cpu_open(out, &c, false, err);
}

const struct be_ops ref_ops = {
    .abi = BE_ABI,
    .bytes = sizeof(struct be_ops),
    .name = "ref",
    .open = ref_open,
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
    .embed = ref_embed,
    .gemm = ref_gemm,
    .norm = ref_norm,
    .attn = ref_attn,
    .moe = ref_moe,
    .logits = ref_logits,
    .logits_get = cpu_logits_get,
    .logits_put = cpu_logits_put,
    .sample = ref_sample,
    .row_logprobs = ref_row_logprobs,
    .wait = cpu_wait,
    .group_bytes = cpu_group_bytes,
    .stand_open = group_stand_open,
    .stand_call = group_stand_call,
    .stand_close = group_stand_close,
    .gather = cpu_gather,
};
