/* load.h: from a MODEL argument to a running engine: files, checks, memory, weights.
 *
 * Every refusal is one readable line that says what to change (api.md 21.1, 22.5).
 */
#ifndef WEIR_WORKER_LOAD_H
#define WEIR_WORKER_LOAD_H

#include "common/hf/config.h"
#include "common/hf/safetensors.h"
#include "common/worker_flags.h"
#include "worker/engine.h"
#include "worker/io.h"
#include "worker/model/model.h"
#include "worker/tp_wire.h"
#include "worker/tp.h"

struct load {
    char *dir; /* the model's folder */
    struct hf_config config;
    struct hf_generation generation;
    struct st_set *weights; /* NULL with --load-format dummy */
    const struct be_ops *ops;
    struct be *be;
    struct model *model;
    struct pooler *pooler; /* NULL: the model generates */
    struct plugins *plugins; /* logits processors; NULL: none */
    struct engine *engine;
    struct constraints *constraints; /* NULL for a model that does not generate */
    struct io_facts facts;
    struct io_asset assets[IO_ASSETS_MAX];
    size_t n_assets;
    char dtype_name[16], kv_dtype_name[16];
    struct be_info device;
    uint64_t kv_bytes;
    uint64_t kv_block_bytes[BE_GROUPS_MAX]; /* of a rank, in its canonical layout; with KV transfers */
    struct tp *tp; /* the other ranks; NULL: there are none */
    uint32_t rank; /* of this process; only 0 has an engine */
    /* Of a group over several hosts; set by the caller. n_far: rank 0: of its ranks, how many are elsewhere; far.url: where
     * they come in; or, of a rank that is elsewhere, is_far, and where rank 0 is. */
    uint32_t n_far;
    bool is_far;
    struct tp_far_config far;
    struct tp_facts far_facts; /* load.c's */
    /* on_gone: see tp_opts; set by the caller before load_model. */
    void (*on_gone)(void *arg, const char *why);
    void *on_gone_arg;
    struct kvx_opts kvx; /* of the engine; kvx_on: they count */
    bool kvx_on;
    uint32_t n_sharing; /* workers that share the machine's memory, this one included; 0: alone */
};

/* load_files: config, generation config and the assets for routers; fast, no weights. */
MUST_USE enum rc load_files(struct load *l, const char *model, const struct worker_flags *f, struct err *e);
/* load_model: opens the device, packs the weights, sizes the KV pool and makes the engine (not started).
 * progress as in model_opts. */
MUST_USE enum rc load_model(struct load *l, const struct worker_flags *f, struct engine_opts *engine,
                            void (*progress)(void *arg, uint64_t done, uint64_t total), void *progress_arg,
                            struct err *e);
/* load_follow: what a rank above 0 does: loads its shard, follows rank 0, and returns the exit status of the
 * process when rank 0 says that it is over. l is zero but for rank. */
int load_follow(struct load *l, const char *model, const struct worker_flags *f);
/* load_free: frees everything, the engine (stopped) included; assets not taken by io too. */
void load_free(struct load *l);

#endif
