/* weights.h: from the names of tensors to packed weights: found, checked, converted, cut for the rank,
 * packed.
 *
 * With no set, tensors are made up (--load-format dummy): the same values for every rank and number of ranks.
 * Used on the loading thread, by model_load, and gone afterwards.
 */
#ifndef WEIR_WORKER_MODEL_WEIGHTS_H
#define WEIR_WORKER_MODEL_WEIGHTS_H

#include "worker/model/family.h"

/* tensor: one the model needs, and what part of it this rank takes. */
struct tensor {
    char name[96];
    uint32_t rows, cols;   /* shape; cols 0: one dimension, `rows` long */
    uint32_t row0, n_rows; /* n_rows 0: all */
    uint32_t col0, n_cols;
    bool is_norm; /* made up, it is 1 */
    bool wide;    /* f32, whatever type the model is loaded in */
};

struct weights {
    struct model *m;          /* owns what is packed */
    const struct st_set *set; /* NULL: made up */
    enum dtype dtype;         /* DT_NONE: as stored */
    enum dtype dummy_dtype;
    bool fp8_stored, static_inputs, kv_scales; /* hf_config.quant */
    bool fp8_taken;                 /* by the backend; what it does not take is widened */
    bool to_fp8;                    /* matrices of floats become fp8 (--quantization) */
    bool *used; /* [st_count] tensors taken so far */
    struct weight_temp {
        void *data;
        size_t bytes;
        float *factors; /* of a source in fp8 */
    } *temp; /* [n_temp] converted sources of the weight being packed */
    struct be_weight_src *src; /* [n_temp] */
    uint32_t n_temp;
    uint64_t done_bytes, total_bytes;
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_arg;
};

void weights_init(struct weights *w, struct model *m, const struct hf_config *cfg, const struct st_set *set,
                  const struct model_opts *o);
void weights_fini(struct weights *w);

/* A tensor is found by its name, else by what is left of it without the first part ("bert.", "model."), as a
 * body saved without a head has it, else with the LayerNorm names of old checkpoints (gamma, beta). */

/* weights_find: so. NULL: there is none. weights_use: it belongs to the model. weights_temp: room for the converted
 * source i; what it held is lost. NULL: no memory. */
const struct st_tensor *weights_find(const struct weights *w, const char *name);
void weights_use(struct weights *w, const struct st_tensor *st);
void *weights_temp(struct weights *w, uint32_t i, size_t bytes);
/* weights_read_fp8: source i, stored in fp8: as it is, for a matrix and a backend that takes it, or widened
 * (weights_fp8.c). src has its part of the shape filled in. */
MUST_USE enum rc weights_read_fp8(struct weights *w, uint32_t i, const struct tensor *t, const struct st_tensor *st,
                                  bool matrix, struct be_weight_src *src, struct err *e);

/* weights_kv_scales: the factors of keys and values of the attention whose tensors' names begin with `attn`, as fp8
 * checkpoints store them (weights_fp8.c); 0 where there are none. RC_INVALID: the config promises them, or they are no
 * factors. */
MUST_USE enum rc weights_kv_scales(struct weights *w, const char *attn, float *k, float *v, struct err *e);

/* weights_pack: the tensors, stacked, as one weight. RC_INVALID: one is missing or has another shape or a
 * type that is not a float; RC_IO: no memory. */
MUST_USE enum rc weights_pack(struct weights *w, enum be_weight_kind kind, const struct tensor *t, uint32_t n,
                              const struct be_w **out, struct err *e);
/* weights_load_moe: the experts of layer i (moe.c). */
MUST_USE enum rc weights_load_moe(struct weights *w, const struct hf_config *c, uint32_t i,
                                  struct moe_block *b, struct err *e);
/* weights_pack_floats: n values of our own, as a VECTOR. */
MUST_USE enum rc weights_pack_floats(struct weights *w, const float *v, uint32_t n, const struct be_w **out,
                                     struct err *e);
/* weights_floats: one tensor, whole, as f32 on the host; the caller frees it. */
MUST_USE enum rc weights_floats(struct weights *w, const struct tensor *t, float **out, struct err *e);
/* weights_pack_turned: a matrix stored as [n_in][n_out] (rows and cols of t), as a LINEAR of n_out rows. */
MUST_USE enum rc weights_pack_turned(struct weights *w, const struct tensor *t, const struct be_w **out,
                                     struct err *e);
/* weights_check_rest: RC_UNSUPPORTED if the set holds a tensor of the model's layers or ends that was not
 * used: then the checkpoint computes something else than this graph. */
MUST_USE enum rc weights_check_rest(const struct weights *w, bool tied, struct err *e);
/* weights_done: reports all bytes as packed. */
void weights_done(struct weights *w);

#endif
