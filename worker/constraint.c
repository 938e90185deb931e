#include "worker/constraint.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/log.h"
#include "common/pool.h"

enum { N_BUCKETS = 1024, QUEUE_MAX = 4096 };

struct constraint {
    struct pool_job job;
    struct constraints *all;
    uint8_t key[32]; /* SHA-256 of kind, options and text */
    enum gram_kind kind;
    struct str text, options; /* in this block */
    _Atomic int state;
    struct gram *gram;
    struct err why;
    /* Under the cache's lock: */
    uint32_t n_holds; /* the job's counts too */
    bool listed;      /* in the table */
    size_t bytes;     /* as counted in the cache's sum */
    struct constraint *hash_next;
    struct constraint *older, *newer; /* of those that nobody holds */
};

struct constraints {
    struct constraints_opts o;
    struct pool *pool;
    _Atomic bool stopping; /* what waits to be compiled fails at once */
    pthread_mutex_t lock;
    struct constraint *buckets[N_BUCKETS];
    struct constraint *oldest, *newest;
    size_t idle_bytes;         /* of those that nobody holds */
    struct gram_budget budget; /* of all */

    pthread_mutex_t done_lock;
    void (*done)(void *arg);
    void *done_arg;

    pthread_mutex_t vocab_lock; /* held while the vocabulary is built */
    struct tok *tok;
    struct gram_vocab *vocab;
    struct err vocab_why; /* rc 0: none; the tokenizer did not load */
    struct pool_job vocab_job;
};

/* ---- the vocabulary -------------------------------------------------------------------------------- */

/* struct tok_files is nothing but slices of bytes. */
enum { N_TOK_FILE = sizeof(struct tok_files) / sizeof(struct str) };

static void copy_files(struct tok_files *to, const struct tok_files *from) {
    struct str s[N_TOK_FILE];
    memcpy(s, from, sizeof s);
    for (size_t i = 0; i < N_TOK_FILE; i++)
        s[i].p = s[i].n ? xstrndup(s[i].p, s[i].n) : NULL;
    memcpy(to, s, sizeof s);
}

static void drop_files(struct tok_files *f) {
    struct str s[N_TOK_FILE];
    memcpy(s, f, sizeof s);
    for (size_t i = 0; i < N_TOK_FILE; i++)
        free((char *)(uintptr_t)s[i].p);
    *f = (struct tok_files){0};
}

/* vocab_ready: builds it the first time; the others wait. */
static enum rc vocab_ready(struct constraints *cs, struct err *e) {
    pthread_mutex_lock(&cs->vocab_lock);
    if (!cs->vocab && !cs->vocab_why.rc) {
        if (tok_load(&cs->tok, &cs->o.tokenizer, &cs->vocab_why) == RC_OK)
            cs->vocab = gram_vocab_new(cs->tok, cs->o.n_vocab, cs->o.eos_ids, cs->o.n_eos_ids);
        else
            LOG(LOG_WARN, "no structured output: the tokenizer did not load",
                F_STR("reason", cs->vocab_why.msg));
        drop_files(&cs->o.tokenizer);
    }
    enum rc rc = RC_OK;
    if (!cs->vocab)
        rc = err_set(e, RC_INTERNAL, NULL, "the worker's tokenizer did not load: %s", cs->vocab_why.msg);
    pthread_mutex_unlock(&cs->vocab_lock);
    return rc;
}

static void run_vocab(struct pool_job *job) {
    struct err e;
    (void)!vocab_ready(CONTAINER_OF(job, struct constraints, vocab_job), &e);
}

/* ---- the cache ------------------------------------------------------------------------------------- */

static struct constraint **bucket_of(struct constraints *cs, const uint8_t key[32]) {
    uint32_t at;
    memcpy(&at, key, sizeof at);
    return &cs->buckets[at % N_BUCKETS];
}

static void unlist(struct constraint *c) {
    struct constraint **at = bucket_of(c->all, c->key);
    while (*at != c)
        at = &(*at)->hash_next;
    *at = c->hash_next;
    c->listed = false;
}

static void idle_add(struct constraint *c) {
    struct constraints *cs = c->all;
    c->older = cs->newest;
    c->newer = NULL;
    *(cs->newest ? &cs->newest->newer : &cs->oldest) = c;
    cs->newest = c;
    c->bytes = sizeof *c + c->text.n + c->options.n + gram_bytes(c->gram);
    cs->idle_bytes += c->bytes;
}

static void idle_remove(struct constraint *c) {
    struct constraints *cs = c->all;
    *(c->older ? &c->older->newer : &cs->oldest) = c->newer;
    *(c->newer ? &c->newer->older : &cs->newest) = c->older;
    cs->idle_bytes -= c->bytes;
}

static void destroy(struct constraint *c) {
    gram_drop(c->gram);
    free(c);
}

/* trim: drops what was unused longest. Returns a list of what to free, outside the lock. */
static struct constraint *trim(struct constraints *cs, size_t most) {
    struct constraint *list = NULL;
    while (cs->oldest && cs->idle_bytes > most) {
        struct constraint *c = cs->oldest;
        idle_remove(c);
        unlist(c);
        c->newer = list;
        list = c;
    }
    return list;
}

static void destroy_list(struct constraint *list) {
    for (struct constraint *next; list; list = next) {
        next = list->newer;
        destroy(list);
    }
}

void constraint_drop(struct constraint *c) {
    if (!c)
        return;
    struct constraints *cs = c->all;
    struct constraint *list = NULL;
    pthread_mutex_lock(&cs->lock);
    CHECK(c->n_holds > 0);
    if (--c->n_holds == 0 && c->listed) {
        idle_add(c);
        list = trim(cs, cs->o.cache_bytes);
    } else if (c->n_holds == 0) {
        c->newer = NULL;
        list = c;
    }
    pthread_mutex_unlock(&cs->lock);
    destroy_list(list);
}

/* ---- compiling ------------------------------------------------------------------------------------- */

static void run_compile(struct pool_job *job) {
    struct constraint *c = CONTAINER_OF(job, struct constraint, job);
    struct constraints *cs = c->all;
    enum rc rc = atomic_load(&cs->stopping)
                     ? err_set(&c->why, RC_UNAVAILABLE, NULL, "the worker is shutting down")
                     : vocab_ready(cs, &c->why);
    if (rc == RC_OK)
        rc = gram_compile(&c->gram, c->kind, c->text, c->options, &cs->o.limits, &c->why);
    if (rc == RC_OK)
        gram_share(c->gram, &cs->budget);
    if (rc != RC_OK) {
        pthread_mutex_lock(&cs->lock);
        unlist(c); /* whoever holds it learns why; the next one tries again */
        pthread_mutex_unlock(&cs->lock);
    }
    atomic_store(&c->state, rc == RC_OK ? CONSTRAINT_READY : CONSTRAINT_FAILED);
    pthread_mutex_lock(&cs->done_lock);
    if (cs->done)
        cs->done(cs->done_arg);
    pthread_mutex_unlock(&cs->done_lock);
    constraint_drop(c);
}

static void key_of(enum gram_kind kind, struct str text, struct str options, uint8_t key[32]) {
    struct buf b = {0};
    uint64_t head[2] = {(uint64_t)kind, options.n};
    buf_add(&b, head, sizeof head);
    buf_add_str(&b, options);
    buf_add_str(&b, text);
    hash_sha256(b.data, b.len, key);
    buf_fini(&b);
}

static struct constraint *make(struct constraints *cs, const uint8_t key[32], enum gram_kind kind,
                               struct str text, struct str options) {
    struct constraint *c = xmalloc(sizeof *c + text.n + options.n);
    char *bytes = (char *)(c + 1);
    *c = (struct constraint){.job = {.run = run_compile}, .all = cs, .kind = kind};
    memcpy(c->key, key, sizeof c->key);
    if (text.n)
        memcpy(bytes, text.p, text.n);
    if (options.n)
        memcpy(bytes + text.n, options.p, options.n);
    c->text = (struct str){bytes, text.n};
    c->options = (struct str){bytes + text.n, options.n};
    return c;
}

/* has_room: for a grammar more. Under the lock. */
static bool has_room(const struct constraints *cs) {
    size_t all = atomic_load(&cs->budget.bytes);
    return !cs->o.use_bytes || all - MIN(all, cs->idle_bytes) < cs->o.use_bytes;
}

enum rc constraint_get(struct constraints *cs, enum gram_kind kind, struct str text, struct str options_json,
                       struct constraint **out, struct err *e) {
    if (kind < GRAM_JSON_SCHEMA || kind > GRAM_STRUCTURAL_TAG)
        return err_set(e, RC_INVALID, "constraint", "unknown kind of constraint");
    if (text.n > cs->o.limits.text_bytes || options_json.n > cs->o.limits.text_bytes)
        return err_set(e, RC_INVALID, "constraint", "a constraint of more than %u bytes",
                       cs->o.limits.text_bytes);
    uint8_t key[32];
    bool full = false;
    key_of(kind, text, options_json, key);
    pthread_mutex_lock(&cs->lock);
    struct constraint **bucket = bucket_of(cs, key), *c = *bucket;
    while (c && memcmp(c->key, key, sizeof key) != 0)
        c = c->hash_next;
    if (c) {
        if (c->n_holds++ == 0)
            idle_remove(c);
    } else if (!has_room(cs)) {
        full = true;
    } else {
        c = make(cs, key, kind, text, options_json);
        c->n_holds = 2; /* the caller's and the job's */
        c->listed = true;
        c->hash_next = *bucket;
        *bucket = c;
        if (!pool_submit(cs->pool, POOL_SLOW, &c->job)) {
            unlist(c);
            destroy(c);
            c = NULL;
        }
    }
    pthread_mutex_unlock(&cs->lock);
    if (full)
        return err_set(
            e, RC_OVERLOAD, "constraint",
            "the grammars in use take all of the %zu MiB there are for them (four times --grammar-cache-mb)",
            cs->o.use_bytes / MIB);
    if (!c)
        return err_set(e, RC_OVERLOAD, "constraint", "too many constraints wait to be compiled");
    *out = c;
    return RC_OK;
}

enum constraint_state constraint_state(const struct constraint *c, const struct err **why) {
    enum constraint_state s = (enum constraint_state)atomic_load(&c->state);
    if (s == CONSTRAINT_FAILED && why)
        *why = &c->why;
    return s;
}

enum gram_kind constraint_kind(const struct constraint *c) {
    return c->kind;
}

struct gram_run *constraint_run(struct constraint *c) {
    CHECK(atomic_load(&c->state) == CONSTRAINT_READY);
    return gram_run_new(c->gram, c->all->vocab);
}

/* ---- life ------------------------------------------------------------------------------------------ */

struct constraints *constraints_new(const struct constraints_opts *o) {
    struct constraints *cs = xcalloc(1, sizeof *cs);
    cs->o = *o;
    cs->o.limits.text_bytes = o->limits.text_bytes ? o->limits.text_bytes : 256 * KIB;
    cs->budget.most = o->use_bytes ? o->use_bytes + o->cache_bytes : SIZE_MAX;
    copy_files(&cs->o.tokenizer, &o->tokenizer);
    uint32_t *eos = xcalloc((size_t)o->n_eos_ids + 1, sizeof *eos);
    for (uint32_t i = 0; i < o->n_eos_ids; i++)
        eos[i] = o->eos_ids[i];
    cs->o.eos_ids = eos;
    CHECK(pthread_mutex_init(&cs->lock, NULL) == 0 && pthread_mutex_init(&cs->done_lock, NULL) == 0 &&
          pthread_mutex_init(&cs->vocab_lock, NULL) == 0);
    cs->pool = pool_new(MAX(o->n_threads, 1) + 1, QUEUE_MAX); /* the pool keeps one thread for fast jobs */
    cs->vocab_job.run = run_vocab;
    CHECK(pool_submit(cs->pool, POOL_FAST, &cs->vocab_job));
    return cs;
}

void constraints_free(struct constraints *cs) {
    if (!cs)
        return;
    atomic_store(&cs->stopping, true);
    pool_free(cs->pool);
    destroy_list(trim(cs, 0));
    for (size_t i = 0; i < N_BUCKETS; i++)
        CHECK(!cs->buckets[i]);
    gram_vocab_free(cs->vocab);
    tok_free(cs->tok);
    drop_files(&cs->o.tokenizer);
    free((uint32_t *)(uintptr_t)cs->o.eos_ids);
    pthread_mutex_destroy(&cs->lock);
    pthread_mutex_destroy(&cs->done_lock);
    pthread_mutex_destroy(&cs->vocab_lock);
    free(cs);
}

void constraints_on_done(struct constraints *cs, void (*done)(void *arg), void *arg) {
    pthread_mutex_lock(&cs->done_lock);
    cs->done = done;
    cs->done_arg = arg;
    pthread_mutex_unlock(&cs->done_lock);
}

size_t constraints_bytes(struct constraints *cs) {
    pthread_mutex_lock(&cs->lock);
    size_t n = cs->idle_bytes;
    pthread_mutex_unlock(&cs->lock);
    return n;
}
