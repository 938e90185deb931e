#include "router/launch_gpus.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char name[] = "CUDA_VISIBLE_DEVICES=";

/* entry: the k-th of a list separated by commas; n is 0 behind its end. */
static struct str entry(const char *list, unsigned k) {
    while (k > 0 && *list) {
        k -= *list == ',';
        list++;
    }
    return k ? (struct str){0} : (struct str){list, strcspn(list, ",")};
}

enum rc launch_gpus(struct buf *out, const char *all, unsigned i, unsigned n_ranks, struct err *e) {
    for (unsigned k = i * n_ranks; all && k < (i + 1) * n_ranks; k++) {
        if (entry(all, k).n == 0)
            return err_set(e, RC_INVALID, NULL, "CUDA_VISIBLE_DEVICES is \"%s\": worker %u needs %u GPU%s of its own", all, i,
                           n_ranks, n_ranks > 1 ? "s" : "");
    }
    for (unsigned k = i * n_ranks; k < (i + 1) * n_ranks; k++) {
        if (k > i * n_ranks)
            buf_addz(out, ",");
        if (all)
            buf_add(out, entry(all, k).p, entry(all, k).n);
        else
            buf_addf(out, "%u", k);
    }
    return RC_OK;
}

char **launch_environ(char **env, struct buf *line, struct str gpus) {
    size_t n = 0, n_kept = 0;
    while (env[n])
        n++;
    char **out = xcalloc(n + 2, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        if (strncmp(env[i], name, sizeof name - 1))
            out[n_kept++] = env[i];
    }
    buf_addz(line, name);
    buf_add(line, gpus.p, gpus.n);
    out[n_kept] = (char *)(uintptr_t)buf_cstr(line); /* the array's type is execv's, which only reads */
    return out;
}
