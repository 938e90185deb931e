/* safetensors.h: the weights of a folder, single file or shards, mapped and checked.
 *
 * Every check of reliability.md L01 happens at open, before any tensor is touched: header length and
 * JSON, names, shapes, products, spans, overlaps, holes, shard names. The maps stay until close. A file
 * cut short while mapped raises SIGBUS in whoever reads it: the worker's handler (worker/main) ends
 * the process with one line.
 */
#ifndef WEIR_COMMON_HF_SAFETENSORS_H
#define WEIR_COMMON_HF_SAFETENSORS_H

#include "common/err.h"

enum st_dtype {
    ST_F32 = 0,
    ST_F16,
    ST_BF16,
    ST_F8_E4M3,
    ST_F8_E5M2,
    ST_F64,
    ST_I64,
    ST_I32,
    ST_I16,
    ST_I8,
    ST_U8,
    ST_BOOL,
    N_ST_DTYPE
};
enum { ST_DIMS_MAX = 8 };

struct st_tensor {
    struct str name; /* belongs to the set */
    enum st_dtype dtype;
    uint32_t n_dims;
    uint64_t dims[ST_DIMS_MAX];
    const void *data; /* mapped, n_bytes long; may be unaligned for its type */
    uint64_t n_bytes;
};

struct st_set;

/* st_open: model.safetensors, or the shards of model.safetensors.index.json, in dir. Pickle weights without
 * safetensors are refused by name (RC_UNSUPPORTED). RC_NOT_FOUND, RC_INVALID with file, key and reason. */
MUST_USE enum rc st_open(struct st_set **out, const char *dir, struct err *e);
/* st_open_memory: one file already in memory (fuzzing, tests); not copied. */
MUST_USE enum rc st_open_memory(struct st_set **out, const void *data, size_t n, struct err *e);
void st_close(struct st_set *s);
/* st_find: NULL if absent. */
const struct st_tensor *st_find(const struct st_set *s, const char *name);
uint64_t st_total_bytes(const struct st_set *s);
size_t st_count(const struct st_set *s);
/* st_at: tensor i of st_count, in the order of the files; the tensors of a set lie in one array. */
const struct st_tensor *st_at(const struct st_set *s, size_t i);

#endif
