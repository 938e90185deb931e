/* st_index.c: model.safetensors.index.json: {"metadata": {...}, "weight_map": {TENSOR: SHARD, ...}}. */
#include <stdlib.h>

#include "common/hf/scan.h"
#include "common/hf/st_internal.h"

#define INDEX_NAME "model.safetensors.index.json"

static enum rc bad_json(const struct scan *s, struct err *e) {
    return err_set(e, RC_INVALID, NULL, INDEX_NAME ": byte %zu: %s", scan_offset(s), s->why);
}

/* check_shard_name: a plain name of a safetensors file in the same folder. */
static enum rc check_shard_name(struct str tensor, struct str name, struct err *e) {
    static const char suffix[] = ".safetensors";
    size_t n_suffix = sizeof suffix - 1;
    bool ok = name.n > n_suffix && name.n <= 255 && name.p[0] != '.' &&
              memcmp(name.p + name.n - n_suffix, suffix, n_suffix) == 0;
    for (size_t i = 0; ok && i < name.n; i++)
        ok = name.p[i] != '/' && name.p[i] != '\\' && (unsigned char)name.p[i] >= 0x20;
    if (ok)
        return RC_OK;
    char shown[2][ST_SHOWN_MAX + 4];
    return err_set(e, RC_INVALID, "weight_map",
                   INDEX_NAME
                   ": weight_map: \"%s\": \"%s\" is not the name of a .safetensors file in this folder",
                   st_show(shown[0], tensor), st_show(shown[1], name));
}

static enum rc read_map(struct st_index *x, struct scan *s, struct err *e) {
    bool first = true, more, is_new;
    uint32_t cap = 0;
    if (!scan_eat(s, '{'))
        return bad_json(s, e);
    for (;;) {
        struct str tensor, shard;
        if (!scan_member(s, &x->arena, &first, &more, &tensor))
            return bad_json(s, e);
        if (!more)
            return RC_OK;
        if (!scan_string(s, &x->arena, &shard))
            return bad_json(s, e);
        enum rc rc = check_shard_name(tensor, shard, e);
        if (rc)
            return rc;
        if (x->tensors.n == ST_TENSORS_MAX)
            return err_set(e, RC_INVALID, "weight_map", INDEX_NAME ": more than %d tensors", ST_TENSORS_MAX);
        uint32_t t = names_put(&x->tensors, tensor, &is_new);
        char shown[ST_SHOWN_MAX + 4];
        if (!is_new)
            return err_set(e, RC_INVALID, "weight_map", INDEX_NAME ": weight_map: \"%s\" given twice",
                           st_show(shown, tensor));
        if (t == cap) {
            cap = cap ? cap * 2 : 256;
            x->shard_of = xreallocarray(x->shard_of, cap, sizeof *x->shard_of);
        }
        x->shard_of[t] = names_put(&x->shards, shard, &is_new);
        if (x->shards.n > ST_SHARDS_MAX)
            return err_set(e, RC_INVALID, "weight_map", INDEX_NAME ": more than %d shards", ST_SHARDS_MAX);
    }
}

enum rc st_index_read(struct st_index *x, struct str text, struct err *e) {
    struct scan s;
    scan_init(&s, text);
    arena_init(&x->arena);
    bool first = true, more, mapped = false;
    if (!scan_eat(&s, '{'))
        return bad_json(&s, e);
    for (;;) {
        struct str key;
        if (!scan_member(&s, &x->arena, &first, &more, &key))
            return bad_json(&s, e);
        if (!more)
            break;
        if (!str_eqz(key, "weight_map")) {
            if (!scan_skip(&s))
                return bad_json(&s, e);
            continue;
        }
        if (mapped)
            return err_set(e, RC_INVALID, "weight_map", INDEX_NAME ": weight_map given twice");
        mapped = true;
        enum rc rc = read_map(x, &s, e);
        if (rc)
            return rc;
    }
    if (!scan_end(&s))
        return bad_json(&s, e);
    if (x->tensors.n == 0)
        return err_set(e, RC_INVALID, "weight_map", INDEX_NAME ": weight_map is missing or empty");
    return RC_OK;
}

void st_index_fini(struct st_index *x) {
    names_fini(&x->tensors);
    names_fini(&x->shards);
    free(x->shard_of);
    arena_fini(&x->arena);
    *x = (struct st_index){0};
}
