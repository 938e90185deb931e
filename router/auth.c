#include "router/auth.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/hash.h"

enum { DIGEST_BYTES = 32 };

struct key_set {
    uint8_t (*digests)[DIGEST_BYTES];
    size_t n, cap;
};
struct auth {
    pthread_rwlock_t lock; /* of set */
    struct key_set set;
    const struct conf_list *keys;
    const char *file;
};

/* ---- the set ----------------------------------------------------------------------------------------- */

static bool is_key(struct str s) {
    if (s.n == 0 || s.n > AUTH_KEY_BYTES_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    }
    return true;
}

static enum rc add(struct key_set *set, struct str key, const char *where, struct err *e) {
    if (!is_key(key))
        return err_set(e, RC_INVALID, "api-key",
                       "%s: a key is 1 to %d printable ASCII characters without blanks", where,
                       AUTH_KEY_BYTES_MAX);
    if (set->n == AUTH_KEYS_MAX)
        return err_set(e, RC_INVALID, "api-key", "%s: more than %d keys", where, AUTH_KEYS_MAX);
    if (set->n == set->cap) {
        set->cap = set->cap ? set->cap * 2 : 8;
        set->digests = xreallocarray(set->digests, set->cap, sizeof *set->digests);
    }
    hash_sha256(key.p, key.n, set->digests[set->n++]);
    return RC_OK;
}

static struct str trimmed(struct str s) {
    while (s.n && strchr(" \t\r", s.p[s.n - 1]))
        s.n--;
    while (s.n && (*s.p == ' ' || *s.p == '\t'))
        s.p++, s.n--;
    return s;
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
        one = trimmed(one);
        if (one.n == 0 || *one.p == '#')
            continue;
        char where[256];
        snprintf(where, sizeof where, "--api-key-file %.200s: line %u", path, line);
        rc = add(set, one, where, e);
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
        rc = add(&set, str_of(keys->v[i]), "--api-key", e);
    if (file && rc == RC_OK)
        rc = add_file(&set, file, e);
    if (rc == RC_OK && set.n == 0)
        rc = err_set(e, RC_INVALID, "api-key-file", "--api-key-file %s: there is no key in it", file);
    if (rc == RC_OK)
        *out = set;
    else
        free(set.digests);
    return rc;
}

/* ---- life -------------------------------------------------------------------------------------------- */

enum rc auth_new(struct auth **out, const struct conf_list *keys, const char *file, struct err *e) {
    struct key_set set = {0};
    if (keys->n == 0 && !file) {
        *out = NULL;
        return RC_OK;
    }
    enum rc rc = collect(keys, file, &set, e);
    if (rc != RC_OK)
        return rc;
    struct auth *a = xcalloc(1, sizeof *a);
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
    free(a->set.digests);
    free(a);
}

enum rc auth_reload(struct auth *a, size_t *n, struct err *e) {
    struct key_set set;
    enum rc rc = collect(a->keys, a->file, &set, e);
    if (rc != RC_OK)
        return rc;
    *n = set.n;
    pthread_rwlock_wrlock(&a->lock);
    struct key_set old = a->set;
    a->set = set;
    pthread_rwlock_unlock(&a->lock);
    free(old.digests);
    return RC_OK;
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

bool auth_allows(struct auth *a, struct str value) {
    struct str key;
    uint8_t digest[DIGEST_BYTES];
    unsigned found = 0;
    if (!bearer(value, &key))
        return false;
    hash_sha256(key.p, key.n, digest);
    pthread_rwlock_rdlock(&a->lock);
    for (size_t i = 0; i < a->set.n; i++)
        found |= CRYPTO_memcmp(digest, a->set.digests[i], sizeof digest) == 0;
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
