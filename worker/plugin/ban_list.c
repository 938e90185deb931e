/* ban_list.c: an example: tokens that never come.
 *
 *   {"qualname": "weir.ban_list", "args": [[5, 17, 99]]}    or    "kwargs": {"token_ids": [5, 17, 99]}
 */
#include "worker/plugin/weir_plugin.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct ban {
    size_t n;
    uint32_t ids[];
};

/* read_ids: a list of ids below vocab_size; NULL with a reason in err. */
static struct ban *read_ids(const json_t *list, uint32_t vocab_size, char *err, size_t err_size) {
    size_t n = json_array_size(list);
    struct ban *b = json_is_array(list) ? malloc(sizeof *b + n * sizeof b->ids[0]) : NULL;
    if (!b) {
        snprintf(err, err_size, "token_ids must be a list of token ids");
        return NULL;
    }
    b->n = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= (json_int_t)vocab_size) {
            snprintf(err, err_size, "token_ids.%zu must be a token id below %u", i, vocab_size);
            free(b);
            return NULL;
        }
        b->ids[i] = (uint32_t)json_integer_value(v);
    }
    return b;
}

static int create(const struct weir_lp_args *a, void **state, char *err, size_t err_size) {
    json_t *args = json_loads(a->args_json, 0, NULL), *kwargs = json_loads(a->kwargs_json, 0, NULL);
    const json_t *list = json_object_get(kwargs, "token_ids");
    struct ban *b = read_ids(list ? list : json_array_get(args, 0), a->vocab_size, err, err_size);
    json_decref(args);
    json_decref(kwargs);
    if (!b)
        return 1;
    *state = b;
    return 0;
}

static int apply(void *state, const struct weir_lp_view *view, float *logits) {
    const struct ban *b = state;
    (void)view;
    for (size_t i = 0; i < b->n; i++)
        logits[b->ids[i]] = -INFINITY;
    return 0;
}

static const struct weir_lp ban_list = {
    .qualname = "weir.ban_list", .create = create, .apply = apply, .destroy = free};
static const struct weir_lp *const list[] = {&ban_list, NULL};

const struct weir_lp *const *weir_plugin_list(uint32_t abi) {
    return abi == WEIR_PLUGIN_ABI ? list : NULL;
}
