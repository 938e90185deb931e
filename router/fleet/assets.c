/* A model's files, asked from a worker one after the other, checked, and made into a model_info on the pool.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "router/fleet/fleet_private.h"

enum { NAMES_MAX = 64, NAME_BYTES_MAX = 1024, EOS_MAX = 64 };
static const size_t asset_bytes_max[N_MODEL_ASSET] = {
    [ASSET_TOKENIZER] = 64 << 20,      [ASSET_TOKENIZER_MODEL] = 48 << 20,  [ASSET_VOCAB_JSON] = 48 << 20,
    [ASSET_MERGES] = 48 << 20,         [ASSET_VOCAB_TXT] = 48 << 20,        [ASSET_TOKENIZER_CONFIG] = 16 << 20,
    [ASSET_SPECIAL_TOKENS] = 1 << 20,  [ASSET_CHAT_TEMPLATE] = 4 << 20,     [ASSET_PROCESSOR_TEMPLATE] = 4 << 20,
    [ASSET_GENERATION] = 1 << 20,      [ASSET_POOLING] = 1 << 20,           [ASSET_ADDED_TOKENS] = 4 << 20,
};

/* asset_fetch: one model's files on their way. First the connection's callbacks own it, then the job that
 * builds. */
struct asset_fetch {
    struct pool_job job;
    struct fleet *fleet;
    struct fleet_model *model;
    struct arena arena; /* of the facts */
    struct model_facts facts;
    struct {
        bool present;
        size_t n;
        uint8_t digest[32];
        struct buf data;
    } file[N_MODEL_ASSET];
    unsigned at; /* the file that is being received */
};

/* set_fetch: with the time since when, by which fleet_tick knows a worker that does not deliver. */
static void set_fetch(struct worker_state *s, struct asset_fetch *t) {
    s->fetch = t;
    pthread_mutex_lock(&s->fleet->lock);
    s->fetch_ns = t ? clock_ns() : 0;
    pthread_mutex_unlock(&s->fleet->lock);
}

static void fetch_free(struct asset_fetch *t) {
    for (int i = 0; i < N_MODEL_ASSET; i++)
        buf_fini(&t->file[i].data);
    arena_fini(&t->arena);
    free(t);
}

/* failed: the model may be tried again by the next worker that becomes ready. */
static void failed(struct fleet *f, struct fleet_model *m, const char *why) {
    pthread_mutex_lock(&f->lock);
    m->building = false;
    snprintf(m->error, sizeof m->error, "%s", why);
    pthread_mutex_unlock(&f->lock);
    LOG(LOG_ERROR, "the model's files cannot be used", F_STR("reason", why));
    if (f->o.on_change)
        f->o.on_change(f->o.arg);
}

static void build(struct pool_job *job) {
    struct asset_fetch *t = CONTAINER_OF(job, struct asset_fetch, job);
    struct fleet *f = t->fleet;
    struct str files[N_MODEL_ASSET];
    struct model_info *info = NULL;
    struct err e;
    for (int i = 0; i < N_MODEL_ASSET; i++) {
        uint8_t digest[32];
        files[i] = buf_str(&t->file[i].data);
        if (!t->file[i].present)
            continue;
        hash_sha256(files[i].p, files[i].n, digest);
        if (memcmp(digest, t->file[i].digest, sizeof digest) != 0) {
            char why[128];
            snprintf(why, sizeof why, "%s arrived with another digest than announced", model_asset_name[i]);
            failed(f, t->model, why);
            goto out;
        }
    }
    if (model_info_new(&info, &t->facts, files, f->o.opts, &e) != RC_OK) {
        failed(f, t->model, e.msg);
        goto out;
    }
    pthread_mutex_lock(&f->lock);
    t->model->info = info;
    atomic_store_explicit(&f->knows_model, true, memory_order_release);
    t->model->building = false;
    t->model->error[0] = '\0';
    pthread_mutex_unlock(&f->lock);
    LOG(LOG_INFO, "model can be served", F_STR("model", info->facts.names[0]),
        F_STR("fingerprint", info->fingerprint));
    if (f->o.on_change)
        f->o.on_change(f->o.arg);
out:
    fetch_free(t);
}

/* ask_next: asks for the next file there is, or hands over to the pool after the last. */
static bool ask_next(struct worker_state *s, const char **why) {
    struct asset_fetch *t = s->fetch;
    while (t->at < N_MODEL_ASSET && !t->file[t->at].present)
        t->at++;
    if (t->at < N_MODEL_ASSET) {
        Weir__AssetGet m = WEIR__ASSET_GET__INIT;
        m.name =
            (char *)(uintptr_t)model_asset_name[t->at]; /* protobuf-c's strings are not const; only read */
        if (link_send(s->w.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ASSET_GET, &m) == RC_AGAIN) {
            *why = "it does not read";
            return false;
        }
        return true;
    }
    set_fetch(s, NULL);
    t->job.run = build;
    if (!pool_submit(s->fleet->o.pool, POOL_SLOW, &t->job)) {
        failed(s->fleet, t->model, "the router is too busy to load a model");
        fetch_free(t);
        *why = "its model could not be loaded now";
        return false; /* the dialler comes back, and so does the try */
    }
    return true;
}

bool assets_chunk(struct worker_state *s, const Weir__AssetChunk *m, const char **why) {
    struct asset_fetch *t = s->fetch;
    if (!t)
        return true; /* of an earlier try */
    if (!m->name || strcmp(m->name, model_asset_name[t->at]) != 0) {
        *why = "a file that was not asked for";
        return false;
    }
    struct buf *b = &t->file[t->at].data;
    if (m->missing || m->total_bytes != t->file[t->at].n || m->offset != b->len ||
        m->data.len > m->total_bytes - b->len) {
        *why = "a file other than announced";
        return false;
    }
    buf_add(b, m->data.data, m->data.len);
    if (b->len < t->file[t->at].n)
        return true;
    t->at++;
    return ask_next(s, why);
}

bool assets_retry(struct worker_state *s, const char **why) {
    struct asset_fetch *t = s->spare;
    if (!t)
        return true;
    pthread_mutex_lock(&s->fleet->lock);
    struct fleet_model *m = t->model;
    /* That another worker's files were bad says nothing of this one's. */
    bool settled = m->info, begin = !settled && !m->building;
    m->building |= begin;
    pthread_mutex_unlock(&s->fleet->lock);
    if (settled)
        fetch_free(t);
    if (settled || begin)
        s->spare = NULL;
    if (!begin)
        return true;
    set_fetch(s, t);
    return ask_next(s, why);
}

void assets_gone(struct worker_state *s) {
    if (s->spare)
        fetch_free(s->spare);
    s->spare = NULL;
    if (!s->fetch)
        return;
    pthread_mutex_lock(&s->fleet->lock);
    s->fetch->model->building = false;
    pthread_mutex_unlock(&s->fleet->lock);
    fetch_free(s->fetch);
    set_fetch(s, NULL);
}

/* ---- facts ------------------------------------------------------------------------------------------- */

static bool facts_of(const struct router_opts *o, const Weir__WorkerInfo *m, struct arena *a,
                     struct model_facts *out) {
    size_t n_names = o->served_names.n ? o->served_names.n : m->n_served_names;
    char **from = o->served_names.n ? o->served_names.v : m->served_names;
    if (!m->has_revision || m->revision.len != sizeof out->revision || !m->model || n_names == 0 ||
        n_names > NAMES_MAX || m->vocab_size == 0 || m->max_model_len == 0 || m->n_eos_ids > EOS_MAX ||
        m->block_tokens != HASH_BLOCK_TOKENS)
        return false;
    const char **names = arena_zalloc(a, n_names, sizeof *names);
    for (size_t i = 0; i < n_names; i++) {
        size_t n = strlen(from[i]);
        if (n == 0 || n > NAME_BYTES_MAX)
            return false;
        names[i] = arena_strndup(a, from[i], n);
    }
    uint32_t *eos = arena_zalloc(a, m->n_eos_ids + 1, sizeof *eos);
    if (m->n_eos_ids)
        memcpy(eos, m->eos_ids, m->n_eos_ids * sizeof *eos);
    *out = (struct model_facts){
        .root = arena_strndup(a, m->model, strlen(m->model)),
        .names = names,
        .n_names = n_names,
        .max_model_len = m->max_model_len,
        .vocab_size = m->vocab_size,
        .max_logprobs = m->max_logprobs,
        .block_tokens = m->block_tokens,
        .priority_scheduling = m->priority_scheduling,
        .eos = eos,
        .n_eos = m->n_eos_ids,
    };
    memcpy(out->revision, m->revision.data, sizeof out->revision);
    return true;
}

/* key_of: equal for workers that may stand in for one another. */
static void key_of(const struct model_facts *x, uint8_t key[32]) {
    struct buf b = {0};
    buf_add(&b, x->revision, sizeof x->revision);
    const uint32_t numbers[] = {x->max_model_len, x->vocab_size,          x->max_logprobs,
                                x->block_tokens,  x->priority_scheduling, (uint32_t)x->n_eos};
    buf_add(&b, numbers, sizeof numbers);
    buf_add(&b, x->eos, x->n_eos * sizeof *x->eos);
    buf_add(&b, x->root, strlen(x->root) + 1);
    for (size_t i = 0; i < x->n_names; i++)
        buf_add(&b, x->names[i], strlen(x->names[i]) + 1);
    hash_sha256(b.data, b.len, key);
    buf_fini(&b);
}

static bool files_of(const Weir__WorkerInfo *m, struct asset_fetch *t) {
    for (size_t i = 0; i < m->n_assets; i++) {
        const Weir__Asset *a = m->assets[i];
        for (int k = 0; k < N_MODEL_ASSET; k++) {
            if (!a->name || strcmp(a->name, model_asset_name[k]) != 0)
                continue;
            if (a->total_bytes > asset_bytes_max[k] || a->digest.len != sizeof t->file[k].digest)
                return false;
            t->file[k].present = true;
            t->file[k].n = a->total_bytes;
            memcpy(t->file[k].digest, a->digest.data, sizeof t->file[k].digest);
        }
    }
    return true;
}

/* find_or_add: NULL: the table is full. */
static struct fleet_model *find_or_add(struct fleet *f, const uint8_t key[32]) {
    for (unsigned i = 0; i < f->n_models; i++) {
        if (!memcmp(f->models[i]->key, key, 32))
            return f->models[i];
    }
    if (f->n_models == FLEET_MODELS_MAX)
        return NULL;
    struct fleet_model *m = xcalloc(1, sizeof *m);
    memcpy(m->key, key, 32);
    line_init(&m->line, (uint32_t)f->o.opts->max_tenants, f->o.opts->fair_input_weight, f->o.opts->fair_output_weight);
    f->models[f->n_models++] = m;
    return m;
}

bool assets_want(struct worker_state *s, const Weir__WorkerInfo *info, char why[128]) {
    struct fleet *f = s->fleet;
    struct asset_fetch *t = xcalloc(1, sizeof *t);
    uint8_t key[32];
    arena_init(&t->arena);
    t->fleet = f;
    if (!facts_of(f->o.opts, info, &t->arena, &t->facts) || !files_of(info, t)) {
        snprintf(why, 128, "facts of its model that cannot be");
        fetch_free(t);
        return false;
    }
    key_of(&t->facts, key);
    pthread_mutex_lock(&f->lock);
    struct fleet_model *m = find_or_add(f, key);
    bool fetch = m && !m->info && !m->building;
    if (fetch)
        m->building = true;
    s->model = m;
    if (m) {
        m->forgotten = false;
        m->alone_ns = 0;
    }
    pthread_mutex_unlock(&f->lock);
    t->model = m;
    if (!m) {
        fetch_free(t);
        snprintf(why, 128, "one model more than this router can know");
        return false;
    }
    if (!fetch) {
        s->spare = t;
        return true;
    }
    set_fetch(s, t);
    const char *reason = NULL;
    if (!ask_next(s, &reason)) {
        snprintf(why, 128, "%s", reason);
        return false;
    }
    return true;
}
