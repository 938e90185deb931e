#include "worker/procs.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/utf8.h"

struct plugin {
    void *handle;
    const struct weir_lp *const *list;
};
struct plugins {
    size_t n;
    struct plugin v[];
};

static const struct weir_lp *const nothing[] = {NULL};

/* ---- loading ----------------------------------------------------------------------------------------- */

const struct weir_lp *plugins_find(const struct plugins *p, const char *name) {
    for (size_t i = 0; p && i < p->n; i++)
        for (const struct weir_lp *const *x = p->v[i].list; *x; x++)
            if (strcmp((*x)->qualname, name) == 0)
                return *x;
    return NULL;
}

static enum rc load_one(struct plugins *p, const char *file, struct err *e) {
    union {
        void *object;
        const struct weir_lp *const *(*call)(uint32_t abi);
    } list;
    char path[4096]; /* a bare name is a file here, not one of the system's libraries */
    snprintf(path, sizeof path, "%s%s", strchr(file, '/') ? "" : "./", file);
    struct plugin x = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL), .list = nothing};
    if (!x.handle)
        return err_set(e, RC_INVALID, "logits-processor-plugin", "--logits-processor-plugin: %s", dlerror());
    p->v[p->n++] = x;
    list.object = dlsym(x.handle, "weir_plugin_list");
    if (!list.object)
        return err_set(e, RC_INVALID, "logits-processor-plugin",
                       "--logits-processor-plugin %s: it exports no weir_plugin_list", file);
    x.list = list.call(WEIR_PLUGIN_ABI);
    if (!x.list)
        return err_set(e, RC_INVALID, "logits-processor-plugin",
                       "--logits-processor-plugin %s: it was built for another version of the ABI than %u", file,
                       WEIR_PLUGIN_ABI);
    for (const struct weir_lp *const *k = x.list; *k; k++) {
        bool twice = false;
        if (!(*k)->qualname || !(*k)->create || !(*k)->apply || !(*k)->destroy)
            return err_set(e, RC_INVALID, "logits-processor-plugin",
                           "--logits-processor-plugin %s: a processor lacks its name or a function", file);
        for (const struct weir_lp *const *other = x.list; other < k; other++)
            twice |= strcmp((*other)->qualname, (*k)->qualname) == 0;
        if (twice || plugins_find(p, (*k)->qualname))
            return err_set(e, RC_INVALID, "logits-processor-plugin",
                           "--logits-processor-plugin %s: there are two processors of the name %s", file,
                           (*k)->qualname);
    }
    p->v[p->n - 1] = x;
    return RC_OK;
}

enum rc plugins_load(struct plugins **out, const struct conf_list *files, struct err *e) {
    *out = NULL;
    if (files->n == 0)
        return RC_OK;
    struct plugins *p = xcalloc(1, sizeof *p + files->n * sizeof p->v[0]);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < files->n && rc == RC_OK; i++)
        rc = load_one(p, files->v[i], e);
    if (rc == RC_OK)
        *out = p;
    else
        plugins_free(p);
    return rc;
}

void plugins_free(struct plugins *p) {
    for (size_t i = 0; p && i < p->n; i++)
        dlclose(p->v[i].handle);
    free(p);
}

/* ---- states ------------------------------------------------------------------------------------------ */

static enum rc create(struct seq *q, uint32_t n_vocab, struct err *e) {
    const struct req *r = q->req;
    q->lp_state = xcalloc(r->n_procs, sizeof *q->lp_state);
    q->lp_made = q->n_preempted;
    for (q->n_lp = 0; q->n_lp < r->n_procs; q->n_lp++) {
        const struct req_proc *x = &r->procs[q->n_lp];
        struct weir_lp_args a = {x->args, x->kwargs, r->xargs, n_vocab};
        char why[PROCS_WHY_BYTES] = "";
        if (x->lp->create(&a, &q->lp_state[q->n_lp], why, sizeof why) == 0)
            continue;
        why[sizeof why - 1] = '\0';
        if (!why[0] || !utf8_valid(why, strlen(why)))
            snprintf(why, sizeof why, "it refused its arguments");
        procs_destroy(q);
        return err_set(e, RC_INVALID, "logits_processors", "logits processor %s: %s", x->lp->qualname, why);
    }
    return RC_OK;
}

enum rc procs_create(struct req *r, uint32_t n_vocab, struct err *e) {
    enum rc rc = RC_OK;
    for (uint32_t k = 0; k < r->n_samples && rc == RC_OK; k++)
        rc = create(&r->seqs[k], n_vocab, e);
    for (uint32_t k = 0; k < r->n_samples && rc != RC_OK; k++)
        procs_destroy(&r->seqs[k]);
    return rc;
}

void procs_destroy(struct seq *q) {
    for (; q->n_lp > 0; q->n_lp--)
        q->req->procs[q->n_lp - 1].lp->destroy(q->lp_state[q->n_lp - 1]);
    free(q->lp_state);
    q->lp_state = NULL;
}

bool procs_apply(struct seq *q, float *logits, uint32_t n_vocab, char why[PROCS_WHY_BYTES], uint32_t *status) {
    const struct req *r = q->req;
    struct err e;
    *status = 500;
    if (!q->lp_state || q->lp_made != q->n_preempted) {
        procs_destroy(q);
        if (create(q, n_vocab, &e) != RC_OK) {
            snprintf(why, PROCS_WHY_BYTES, "%.*s", PROCS_WHY_BYTES - 1, e.msg);
            *status = 400;
            return false;
        }
    }
    struct weir_lp_view view = {r->prompt, q->out, r->n_prompt, q->n_out};
    for (uint32_t i = 0; i < r->n_procs; i++) {
        const struct weir_lp *lp = r->procs[i].lp;
        if (lp->apply(q->lp_state[i], &view, logits) != 0) {
            snprintf(why, PROCS_WHY_BYTES, "logits processor %.100s failed", lp->qualname);
            return false;
        }
        for (uint32_t k = 0; k < n_vocab; k++)
            if (UNLIKELY(!(logits[k] < INFINITY))) { /* NaN, too */
                snprintf(why, PROCS_WHY_BYTES, "logits processor %.100s wrote a value that is not finite",
                         lp->qualname);
                return false;
            }
    }
    return true;
}
