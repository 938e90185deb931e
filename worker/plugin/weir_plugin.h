/* weir_plugin.h: logits processors as shared objects: what a plugin of weir-worker exports (api.md 8.10).
 *
 * A plugin is native code that the operator trusts: it is loaded at start by --logits-processor-plugin FILE.so and
 * runs in the worker's process. A request names a processor by its qualname; a sequence that it applies to has a
 * state of its own.
 *
 * For each sequence `create` comes first, then `apply` once for each position to be sampled, with the model's
 * logits after logit_bias and before penalties and masks, and `destroy` last. After a preemption the state is
 * destroyed and created again, and `apply` goes on with the next position: what it does must follow from its view
 * alone. Calls for one state never overlap; those for different states may come on several threads.
 *
 * apply may write any finite value and minus infinity, which rules a token out; anything else fails the request
 * (500), as does a nonzero result.
 */
#ifndef WEIR_PLUGIN_H
#define WEIR_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_PLUGIN_ABI 1u

/* What a request says: JSON text, valid during create only. */
struct weir_lp_args {
    const char *args_json, *kwargs_json; /* a list and an object; "[]" and "{}" when absent */
    const char *xargs_json;              /* the request's vllm_xargs, an object */
    uint32_t vocab_size;
};

/* The sequence so far, valid during apply only. */
struct weir_lp_view {
    const uint32_t *prompt, *output; /* token ids */
    size_t prompt_len, output_len;
};

struct weir_lp {
    const char *qualname;
    /* create: 0 with *state set (NULL is allowed), or nonzero with a line why in err: the request gets 400. */
    int (*create)(const struct weir_lp_args *args, void **state, char *err, size_t err_size);
    /* apply: changes logits [vocab_size] in place. Nonzero: the request fails with 500. */
    int (*apply)(void *state, const struct weir_lp_view *view, float *logits);
    void (*destroy)(void *state);
};

/* weir_plugin_list: exported by the plugin: its processors, NULL-terminated, valid as long as it is loaded. NULL
 * if abi is not the one it was built for. */
const struct weir_lp *const *weir_plugin_list(uint32_t abi);

#ifdef __cplusplus
}
#endif
#endif
