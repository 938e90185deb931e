/* st_internal.h: what the files of safetensors share. Included by common/hf/st_*.c and safetensors.c only.
 *
 * A set is built by one thread and read-only from st_open's return on.
 */
#ifndef WEIR_COMMON_HF_ST_INTERNAL_H
#define WEIR_COMMON_HF_ST_INTERNAL_H

#include "common/arena.h"
#include "common/hf/safetensors.h"

enum {
    ST_TENSORS_MAX = 1 << 18, /* of a set; the largest public checkpoints have about 10^5 */
    ST_SHARDS_MAX = 1024,
    ST_SHOWN_MAX = 128 /* bytes of a name in a message */
};
#define ST_HEADER_BYTES_MAX ((uint64_t)100 * 1000 * 1000) /* the format's own limit */
#define ST_INDEX_BYTES_MAX (64 * MIB)

/* names: strings in the order they came, each once, found by hash. The strings belong to an arena. */
struct names {
    struct str *at;
    uint32_t n, cap;
    uint32_t *slots; /* index + 1, 0 free; n_slots is a power of two, twice n at least */
    uint32_t n_slots;
    uint64_t seed;
};
void names_fini(struct names *t);
/* names_put: index of s, which is added if it is new. */
uint32_t names_put(struct names *t, struct str s, bool *is_new);
/* names_find: index, or UINT32_MAX. */
uint32_t names_find(const struct names *t, struct str s);

struct st_file {
    const char *name; /* in messages; for shards, the name inside the folder */
    const uint8_t *data;
    size_t n;
    bool mapped;
    uint32_t first, n_tensors; /* its range of tensors */
};

struct st_set {
    struct arena arena;
    struct st_file *files;
    uint32_t n_files;
    struct names names; /* of tensors; same index as tensors */
    struct st_tensor *tensors;
    uint32_t *file_of; /* [names.n] index of the tensor's file */
    uint32_t cap_tensors;
    uint64_t total_bytes;
};

/* st_header_read: parses and checks the header of files[file] and appends its tensors to the set. */
MUST_USE enum rc st_header_read(struct st_set *s, uint32_t file, struct err *e);

/* index: which shard holds which tensor, from model.safetensors.index.json. */
struct st_index {
    struct arena arena;
    struct names tensors, shards;
    uint32_t *shard_of; /* [tensors.n] */
};
MUST_USE enum rc st_index_read(struct st_index *x, struct str text, struct err *e);
void st_index_fini(struct st_index *x);

/* st_show: s for a message: cut, control characters as '?'. Returns out. */
const char *st_show(char out[ST_SHOWN_MAX + 4], struct str s);

#endif
