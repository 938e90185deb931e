/* repetition_breaker.c: an example: a run of tokens that has come often enough does not come again.
 *
 *   {"qualname": "weir.repetition_breaker", "kwargs": {"ngram": 3, "times": 2, "window": 256}}
 *
 * A token is ruled out if with the last ngram - 1 ones it would make a run that is in the last `window` tokens of the
 * output `times` times already. The request's vllm_xargs {"repetition_times": 1} has the last word on `times`, so
 * that one setting of the processor serves several kinds of request.
 */
#include "worker/plugin/weir_plugin.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct breaker {
    size_t ngram, times, window;
    uint32_t vocab_size;
    uint8_t *seen; /* [vocab_size] runs found with this last token; all 0 between calls */
};

/* number: obj[key] from lo to hi, if it is there. */
static int number(const json_t *obj, const char *key, size_t lo, size_t hi, size_t *out, char *err, size_t err_size) {
    const json_t *v = json_object_get(obj, key);
    if (!v)
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < (json_int_t)lo || json_integer_value(v) > (json_int_t)hi) {
        snprintf(err, err_size, "%s must be a whole number from %zu to %zu", key, lo, hi);
        return 1;
    }
    *out = (size_t)json_integer_value(v);
    return 0;
}

static void destroy(void *state) {
    struct breaker *b = state;
    free(b->seen);
    free(b);
}

static int create(const struct weir_lp_args *a, void **state, char *err, size_t err_size) {
    struct breaker *b = malloc(sizeof *b);
    if (!b)
        return 1;
    *b = (struct breaker){.ngram = 3, .times = 2, .window = 256, .vocab_size = a->vocab_size};
    b->seen = calloc(a->vocab_size, 1);
    json_t *kwargs = json_loads(a->kwargs_json, 0, NULL), *xargs = json_loads(a->xargs_json, 0, NULL);
    int bad = !b->seen || number(kwargs, "ngram", 1, 16, &b->ngram, err, err_size) ||
              number(kwargs, "times", 1, 255, &b->times, err, err_size) ||
              number(kwargs, "window", 1, 4096, &b->window, err, err_size) ||
              number(xargs, "repetition_times", 1, 255, &b->times, err, err_size);
    json_decref(kwargs);
    json_decref(xargs);
    if (bad) {
        destroy(b);
        return 1;
    }
    *state = b;
    return 0;
}

/* last_of_run: the last token of the run that begins at `at`, if its others are the newest of the output. */
static int last_of_run(const struct breaker *b, const struct weir_lp_view *v, size_t at, uint32_t *last) {
    size_t n = b->ngram - 1;
    for (size_t i = 0; i < n; i++)
        if (v->output[at + i] != v->output[v->output_len - n + i])
            return 0;
    *last = v->output[at + n];
    return *last < b->vocab_size;
}

static int apply(void *state, const struct weir_lp_view *v, float *logits) {
    struct breaker *b = state;
    size_t from = v->output_len > b->window ? v->output_len - b->window : 0;
    uint32_t id;
    for (size_t at = from; at + b->ngram <= v->output_len; at++)
        if (last_of_run(b, v, at, &id) && b->seen[id] < b->times && ++b->seen[id] == b->times)
            logits[id] = -INFINITY;
    for (size_t at = from; at + b->ngram <= v->output_len; at++)
        if (last_of_run(b, v, at, &id))
            b->seen[id] = 0;
    return 0;
}

static const struct weir_lp breaker = {
    .qualname = "weir.repetition_breaker", .create = create, .apply = apply, .destroy = destroy};
static const struct weir_lp *const list[] = {&breaker, NULL};

const struct weir_lp *const *weir_plugin_list(uint32_t abi) {
    return abi == WEIR_PLUGIN_ABI ? list : NULL;
}
