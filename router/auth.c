#include "router/auth.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/hash.h"

enum { DIGEST_BYTES = 32 };

struct entry {
    uint8_t digest[DIGEST_BYTES];
    struct quota_limits limits;
    struct quota *quota; /* NULL: without limits */
    struct id128 tenant;
};
struct key_set {
    struct entry *v; /* [n] by digest, once sorted */
    size_t n, cap;
};
/* What a file was when it was read. */
struct seen {
    struct timespec changed;
    off_t size;
    ino_t inode;
};
struct auth {
    pthread_rwlock_t lock; /* of set */
    struct key_set set;
    const struct conf_list *keys;
    const char *file;
    struct seen seen;
};

/* ---- the set ----------------------------------------------------------------------------------------- */

static enum rc add(struct key_set *set, struct str key, struct quota_limits limits, const char *where,
                   struct err *e) {
    if (!keyfile_is_key(key))
        return err_set(e, RC_INVALID, "api-key",
                       "%s: a key is 1 to %d printable ASCII characters without blanks", where,
                       AUTH_KEY_BYTES_MAX);
    if (set->n == AUTH_KEYS_MAX)
        return err_set(e, RC_INVALID, "api-key", "%s: more than %d keys", where, AUTH_KEYS_MAX);
    if (set->n == set->cap) {
        set->cap = set->cap ? set->cap * 2 : 8;
        set->v = xreallocarray(set->v, set->cap, sizeof *set->v);
    }
    struct entry *x = &set->v[set->n++];
    *x = (struct entry){.limits = limits};
    hash_sha256(key.p, key.n, x->digest);
    return RC_OK;
}

static void set_free(struct key_set *set) {
    for (size_t i = 0; i < set->n; i++)
        quota_drop(set->v[i].quota);
    free(set->v);
}

static int by_digest(const void *a, const void *b) {
    return memcmp(((const struct entry *)a)->digest, ((const struct entry *)b)->digest, DIGEST_BYTES);
}

static uint32_t lower(uint32_t a, uint32_t b) {
    return a && b ? MIN(a, b) : a | b;
}

/* sort: by digest, each once. */
static void sort(struct key_set *set) {
    size_t n = 0;
    qsort(set->v, set->n, sizeof *set->v, by_digest);
    for (size_t i = 0; i < set->n; i++) {
        struct entry *x = &set->v[i], *last = n ? &set->v[n - 1] : NULL;
        if (last && !by_digest(last, x)) {
            last->limits.requests = lower(last->limits.requests, x->limits.requests);
            last->limits.tokens = lower(last->limits.tokens, x->limits.tokens);
        } else {
            set->v[n++] = *x;
        }
    }
    set->n = n;
}

static struct id128 tenant_of(const uint8_t digest[DIGEST_BYTES]) {
    static const char kind[] = "weir tenant by key";
    uint8_t text[sizeof kind + DIGEST_BYTES], out[DIGEST_BYTES];
    struct id128 id;
    memcpy(text, kind, sizeof kind);
    memcpy(text + sizeof kind, digest, DIGEST_BYTES);
    hash_sha256(text, sizeof text, out);
    memcpy(id.b, out, sizeof id.b);
    return id;
}

/* settle: of a new set: tenants, and quotas, which a key that was there before keeps. old: sorted; may be
 * empty. */
static void settle(struct key_set *set, const struct key_set *old) {
    uint64_t now = clock_ns();
    for (size_t i = 0; i < set->n; i++) {
        struct entry *x = &set->v[i];
        x->tenant = tenant_of(x->digest);
        if (x->limits.requests == 0 && x->limits.tokens == 0)
            continue;
        const struct entry *was = old->n ? bsearch(x, old->v, old->n, sizeof *old->v, by_digest) : NULL;
        if (was && was->quota) {
            x->quota = quota_hold(was->quota);
            quota_change(x->quota, x->limits, now);
        } else {
            x->quota = quota_new(x->limits, now);
        }
    }
}

static enum rc read_file(const char *path, struct buf *out, struct err *e) {
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(buf_reserve(out, AUTH_FILE_BYTES_MAX + 1), 1, AUTH_FILE_BYTES_MAX + 1, f) : 0;
    int why = f ? ferror(f) ? errno : 0 : errno;
    if (f)
        fclose(f);
    out->len = n;
    if (why)
        return err_set(e, RC_INVALID, "api-key-file", "--api-key-file %s: %s", path, strerror(why));
    if (n > AUTH_FILE_BYTES_MAX)
        return err_set(e, RC_INVALID, "api-key-file", "--api-key-file %s: over %d bytes", path,
                       AUTH_FILE_BYTES_MAX);
    return RC_OK;
}

static enum rc add_file(struct key_set *set, const char *path, struct err *e) {
    struct buf text = {0};
    enum rc rc = read_file(path, &text, e);
    struct str rest = buf_str(&text);
    for (unsigned line = 1; rc == RC_OK && rest.n; line++) {
        const char *end = memchr(rest.p, '\n', rest.n);
        struct str one = {rest.p, end ? (size_t)(end - rest.p) : rest.n};
        size_t used = one.n + (end != NULL);
        rest = (struct str){rest.p + used, rest.n - used};
        struct quota_limits limits;
        struct str key;
        struct err why;
        char where[256];
        snprintf(where, sizeof where, "--api-key-file %.200s: line %u", path, line);
        if (keyfile_line(one, &key, &limits, &why) != RC_OK)
            rc = err_set(e, RC_INVALID, "api-key-file", "%s: %s", where, why.msg);
        else if (key.n)
            rc = add(set, key, limits, where, e);
    }
    if (text.data)
        OPENSSL_cleanse(text.data, text.len);
    buf_fini(&text);
    return rc;
}

static enum rc collect(const struct conf_list *keys, const char *file, struct key_set *out, struct err *e) {
    struct key_set set = {0};
    enum rc rc = RC_OK;
    for (size_t i = 0; i < keys->n && rc == RC_OK; i++)
        rc = add(&set, str_of(keys->v[i]), (struct quota_limits){0, 0}, "--api-key", e);
    if (file && rc == RC_OK)
        rc = add_file(&set, file, e);
    if (rc == RC_OK && set.n == 0)
        rc = err_set(e, RC_INVALID, "api-key-file", "--api-key-file %s: there is no key in it", file);
    if (rc != RC_OK) {
        set_free(&set);
        return rc;
    }
    sort(&set);
    *out = set;
    return RC_OK;
}

/* look: what the file is now; all zero if it cannot be seen. */
static struct seen look(const char *file) {
    struct stat st;
    if (!file || stat(file, &st) != 0)
        return (struct seen){.size = 0};
    return (struct seen){st.st_mtim, st.st_size, st.st_ino};
}

/* ---- life -------------------------------------------------------------------------------------------- */

enum rc auth_new(struct auth **out, const struct conf_list *keys, const char *file, struct err *e) {
    struct key_set set = {0};
    if (keys->n == 0 && !file) {
        *out = NULL;
        return RC_OK;
    }
    const struct seen seen = look(file); /* before it is read: what changes meanwhile is seen later */
    const struct key_set none = {0};
    enum rc rc = collect(keys, file, &set, e);
    if (rc != RC_OK)
        return rc;
    settle(&set, &none);
    struct auth *a = xcalloc(1, sizeof *a);
    a->seen = seen;
    CHECK(pthread_rwlock_init(&a->lock, NULL) == 0);
    a->set = set;
    a->keys = keys;
    a->file = file;
    *out = a;
    return RC_OK;
}

void auth_free(struct auth *a) {
    if (!a)
        return;
    pthread_rwlock_destroy(&a->lock);
    set_free(&a->set);
    free(a);
}

enum rc auth_reload(struct auth *a, size_t *n, struct err *e) {
    struct key_set set;
    a->seen = look(a->file);
    enum rc rc = collect(a->keys, a->file, &set, e);
    if (rc != RC_OK)
        return rc;
    settle(&set, &a->set); /* only this function writes there */
    *n = set.n;
    pthread_rwlock_wrlock(&a->lock);
    struct key_set old = a->set;
    a->set = set;
    pthread_rwlock_unlock(&a->lock);
    set_free(&old);
    return RC_OK;
}

bool auth_changed(struct auth *a) {
    const struct seen now = look(a->file);
    return now.size != a->seen.size || now.inode != a->seen.inode ||
           now.changed.tv_sec != a->seen.changed.tv_sec || now.changed.tv_nsec != a->seen.changed.tv_nsec;
}

size_t auth_count(struct auth *a) {
    pthread_rwlock_rdlock(&a->lock);
    size_t n = a->set.n;
    pthread_rwlock_unlock(&a->lock);
    return n;
}

/* ---- requests ---------------------------------------------------------------------------------------- */

/* bearer: the key behind the scheme. */
static bool bearer(struct str v, struct str *key) {
    static const char scheme[] = "bearer";
    enum { N = sizeof scheme - 1 };
    if (v.n <= N || v.p[N] != ' ')
        return false;
    for (size_t i = 0; i < N; i++) {
        if ((v.p[i] | 0x20) != scheme[i])
            return false;
    }
    *key = (struct str){v.p + N, v.n - N};
    while (key->n && *key->p == ' ')
        key->p++, key->n--;
    return key->n && key->n <= AUTH_KEY_BYTES_MAX;
}

bool auth_allows(struct auth *a, struct str value, struct auth_key *who) {
    struct str key;
    uint8_t digest[DIGEST_BYTES];
    size_t found = 0; /* its place, counted from 1; none comes twice */
    if (!bearer(value, &key))
        return false;
    hash_sha256(key.p, key.n, digest);
    pthread_rwlock_rdlock(&a->lock);
    for (size_t i = 0; i < a->set.n; i++)
        found |= (i + 1) & -(size_t)(CRYPTO_memcmp(digest, a->set.v[i].digest, sizeof digest) == 0);
    if (found && who) {
        const struct entry *x = &a->set.v[found - 1];
        *who = (struct auth_key){x->tenant, x->quota ? quota_hold(x->quota) : NULL};
    }
    pthread_rwlock_unlock(&a->lock);
    return found != 0;
}

bool auth_open(struct str path, bool metrics_too) {
    static const char *const open[] = {"/", "/health", "/livez", "/readyz", "/ping", "/version", "/load"};
    for (size_t i = 0; i < ARRAY_LEN(open); i++) {
        if (str_eqz(path, open[i]))
            return true;
    }
    return metrics_too && str_eqz(path, "/metrics");
}
