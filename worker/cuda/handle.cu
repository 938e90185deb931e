/* handle.cu: opening and closing a device, and the table of operations that the worker loads. */
#include "worker/cuda/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int config_check(const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    if (cfg->compute != DT_NONE && cfg->compute != DT_BF16 && cfg->compute != DT_F16 && cfg->compute != DT_F32)
        return dev_err(err, "the CUDA backend computes in bf16, f16 or f32");
    if (cfg->n_vocab >= 1u << 24)
        return dev_err(err, "a vocabulary of %u; the CUDA backend takes fewer than 2^24", cfg->n_vocab);
    return 0;
}

static void dev_close(struct be *b) {
    char err[BE_ERR_BYTES];
    if (!b)
        return;
    if (b->rt) {
        rt_wait(b->rt, err);
        graphs_drop(b);
        group_leave(b);
        while (b->mems.next != &b->mems)
            dev_mem_free(b, b->mems.next);
        while (b->weights.next != &b->weights)
            dev_weight_free(b, b->weights.next);
        while (b->kvs.next != &b->kvs)
            dev_kv_free(b, b->kvs.next);
        for (int i = 0; i < N_SCRATCH; i++)
            rt_free(b->rt, b->scratch[i].data);
        for (int i = 0; i < PENDING_MAX; i++) {
            rt_unpinned(b->rt, b->pending[i].host);
            free(b->pending[i].outs);
            free(b->n_tops[i]);
        }
        rt_free(b->rt, b->dplan);
        rt_free(b->rt, b->logits);
        rt_free(b->rt, b->processed);
        rt_free(b->rt, b->last_ids);
        rt_close(b->rt);
    }
    free(b);
}

/* device_of: a rank's. Where there are fewer than ranks, they share: that is for tests, and slow. */
static int device_of(const struct be_config *cfg) {
    int n = cfg->n_ranks > 1 ? rt_devices() : 0;
    return n > 0 ? cfg->device_index % n : cfg->device_index;
}

static int dev_open(struct be **out, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    if (config_check(cfg, err) != 0)
        return -1;
    struct be *b = static_cast<struct be *>(calloc(1, sizeof *b));
    if (!b)
        return dev_err(err, "no memory for the CUDA backend");
    b->mems.prev = b->mems.next = &b->mems;
    b->weights.prev = b->weights.next = &b->weights;
    b->kvs.prev = b->kvs.next = &b->kvs;
    b->act = cfg->compute == DT_NONE ? DT_BF16 : cfg->compute;
    b->deterministic = cfg->deterministic;
    b->eager = cfg->eager;
    b->n_tokens_max = cfg->n_tokens_max;
    b->n_seqs_max = cfg->n_seqs_max;
    b->n_rows_max = cfg->n_rows_max;
    b->n_vocab = cfg->n_vocab;
    b->rank = static_cast<uint32_t>(cfg->rank);
    b->n_copiers = static_cast<uint32_t>(MAX(cfg->n_threads ? cfg->n_threads : sysconf(_SC_NPROCESSORS_ONLN), 1));
    b->n_vocab_padded = (cfg->n_vocab + 63) / 64 * 64;
    for (uint32_t i = 0; i < PENDING_MAX; i++)
        b->pending[i].mark = i;
    if (rt_open(&b->rt, device_of(cfg), err) != 0) {
        b->rt = NULL;
        dev_close(b);
        return -1;
    }
    rt_info(b->rt, &b->device);
    size_t floats = static_cast<size_t>(MAX(b->n_rows_max, 1u)) * MAX(b->n_vocab_padded, 1u);
    b->logits = static_cast<float *>(rt_alloc(b->rt, floats * sizeof(float)));
    b->processed = static_cast<float *>(rt_alloc(b->rt, floats * sizeof(float)));
    b->last_ids = static_cast<uint32_t *>(rt_alloc(b->rt, MAX(b->n_rows_max, 1u) * sizeof(uint32_t)));
    if (!b->logits || !b->processed || !b->last_ids) {
        dev_err(err, "no memory on the GPU for %u rows of %u logits", cfg->n_rows_max, cfg->n_vocab);
        dev_close(b);
        return -1;
    }
    if (cfg->n_ranks > 1 && group_join(b, cfg, err) != 0) {
        dev_close(b);
        return -1;
    }
    *out = b;
    return 0;
}

static void dev_info(struct be *b, struct be_info *out) {
    struct rt_info now;
    rt_info(b->rt, &now);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "cuda %s", now.name);
    out->act = b->act;
    out->memory_total_bytes = now.memory_total_bytes;
    out->memory_free_bytes = now.memory_free_bytes;
    out->memory_start_bytes = b->device.memory_free_bytes;
    out->n_vocab_padded = b->n_vocab_padded;
    out->fp8 = b->act != DT_F32;
}

static int dev_wait(struct be *b, char err[BE_ERR_BYTES]) {
    int bad = rt_wait(b->rt, err);
    if (bad)
        b->n_pending = 0; /* the handle is only good for close */
    else
        pending_deliver(b, 0);
    return bad;
}

static int dev_wait_sampled(struct be *b, uint32_t n_behind, char err[BE_ERR_BYTES]) {
    if (b->n_pending <= n_behind)
        return 0;
    int bad = rt_wait_mark(b->rt, b->pending[b->n_pending - n_behind - 1].mark, err);
    if (bad)
        b->n_pending = 0;
    else
        pending_deliver(b, n_behind);
    return bad;
}

static struct be_ops make_ops(void) {
    struct be_ops o;
    memset(&o, 0, sizeof o);
    o.abi = BE_ABI;
    o.bytes = sizeof o;
    o.name = "cuda";
    o.open = dev_open;
    o.close = dev_close;
    o.info = dev_info;
    o.mem_new = dev_mem_new;
    o.mem_free = dev_mem_free;
    o.mem_put = dev_mem_put;
    o.mem_get = dev_mem_get;
    o.weight = dev_weight;
    o.weight_free = dev_weight_free;
    o.weight_bytes = dev_weight_bytes;
    o.kv_block_bytes = dev_kv_block_bytes;
    o.kv_new = dev_kv_new;
    o.kv_free = dev_kv_free;
    o.kv_copy = dev_kv_copy;
    o.kv_export = dev_kv_export;
    o.kv_import = dev_kv_import;
    o.plan = dev_plan;
    o.begin = dev_begin;
    o.end = dev_end;
    o.embed = dev_embed;
    o.gemm = dev_gemm;
    o.norm = dev_norm;
    o.attn = dev_attn;
    o.moe = dev_moe;
    o.logits = dev_logits;
    o.logits_get = dev_logits_get;
    o.logits_put = dev_logits_put;
    o.sample = dev_sample;
    o.row_logprobs = dev_row_logprobs;
    o.wait = dev_wait;
    o.group_bytes = group_shared_bytes;
    o.wait_sampled = dev_wait_sampled;
    o.stand_open = group_stand_open;
    o.stand_call = group_stand_call;
    o.stand_close = group_stand_close;
    return o;
}

extern "C" __attribute__((visibility("default"))) const struct be_ops *be_plugin_ops(uint32_t abi) {
    static const struct be_ops ops = make_ops();
    return abi == BE_ABI ? &ops : NULL;
}
