#include "router/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

/* fail: with OpenSSL's first reason, which names no content. */
static enum rc fail(struct err *e, const char *flag, const char *path) {
    unsigned long code = ERR_peek_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    if (code && ERR_SYSTEM_ERROR(code))
        why = strerror(ERR_GET_REASON(code));
    err_set(e, RC_INVALID, flag, "--%s %s: %s", flag, path, why ? why : "it cannot be used");
    ERR_clear_error();
    return RC_INVALID;
}

static enum rc check_flags(const struct router_opts *o, struct err *e) {
    if (!o->ssl_certfile && (o->ssl_keyfile || o->ssl_ca_certs || o->ssl_cert_reqs))
        return err_set(e, RC_INVALID, "ssl-certfile", "the --ssl flags want --ssl-certfile");
    if (o->ssl_cert_reqs && !o->ssl_ca_certs)
        return err_set(e, RC_INVALID, "ssl-cert-reqs",
                       "--ssl-cert-reqs %lld wants --ssl-ca-certs, to tell good certificates by",
                       (long long)o->ssl_cert_reqs);
    return RC_OK;
}

/* no_passphrase: nobody is there to be asked. */
static int no_passphrase(char *buf, int size, int for_writing, void *arg) {
    (void)buf, (void)size, (void)for_writing, (void)arg;
    return -1;
}

static enum rc load(SSL_CTX *ctx, const struct router_opts *o, struct err *e) {
    const char *key = o->ssl_keyfile ? o->ssl_keyfile : o->ssl_certfile;
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    if (SSL_CTX_use_certificate_chain_file(ctx, o->ssl_certfile) != 1)
        return fail(e, "ssl-certfile", o->ssl_certfile);
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return fail(e, o->ssl_keyfile ? "ssl-keyfile" : "ssl-certfile", key);
    if (!o->ssl_ca_certs)
        return RC_OK;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->ssl_ca_certs);
    if (!names || SSL_CTX_load_verify_locations(ctx, o->ssl_ca_certs, NULL) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return fail(e, "ssl-ca-certs", o->ssl_ca_certs);
    }
    SSL_CTX_set_client_CA_list(ctx, names);
    if (o->ssl_cert_reqs)
        SSL_CTX_set_verify(
            ctx, SSL_VERIFY_PEER | (o->ssl_cert_reqs == 2 ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    return RC_OK;
}

/* choose: of the protocols that the client offers; arg: whether h2 is among ours. A client that offers none
 * of them goes on as if it had offered nothing, and gets HTTP/1.1. */
static int choose(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                  unsigned in_n, void *arg) {
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    const unsigned char *from = ours + (arg ? 0 : 3);
    unsigned n = (unsigned)(ours + sizeof ours - 1 - from);
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_n, from, n, in, in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool configure(SSL_CTX *ctx, bool http2) {
    static const unsigned char context[] = "weir";
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets do */
    SSL_CTX_set_alpn_select_cb(ctx, choose, http2 ? ctx : NULL);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
           SSL_CTX_set_session_id_context(ctx, context, sizeof context - 1) == 1;
}

/* ---- files that change --------------------------------------------------------------------------------- */

/* What tells that a file is another one. */
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
};
enum { N_FILES = 3 };

struct tls {
    const struct router_opts *opts;
    SSL_CTX *front; /* what loops know: settings, and the first certificate */
    pthread_mutex_t lock;
    SSL_CTX *newest;              /* the newest certificate; NULL: the front's is. Under the lock */
    struct stamp stamps[N_FILES]; /* as last looked at */
};

/* look: whether a file has changed; one that is not there counts as changed to nothing. */
static bool look(struct tls *t) {
    const char *paths[N_FILES] = {t->opts->ssl_certfile, t->opts->ssl_keyfile, t->opts->ssl_ca_certs};
    bool changed = false;
    for (size_t i = 0; i < N_FILES; i++) {
        struct stamp now = {0}, *was = &t->stamps[i];
        struct stat st;
        if (paths[i] && stat(paths[i], &st) == 0)
            now = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
        changed |= now.dev != was->dev || now.ino != was->ino || now.size != was->size ||
                   now.changed.tv_sec != was->changed.tv_sec || now.changed.tv_nsec != was->changed.tv_nsec;
        *was = now;
    }
    return changed;
}

/* on_hello: a handshake has begun, and needs a certificate. */
static int on_hello(SSL *ssl, void *arg) {
    struct tls *t = arg;
    bool ok = true;
    pthread_mutex_lock(&t->lock);
    if (t->newest)
        ok = SSL_set_SSL_CTX(ssl, t->newest) != NULL; /* which holds it */
    pthread_mutex_unlock(&t->lock);
    return ok;
}

static enum rc context_new(SSL_CTX **out, const struct router_opts *o, struct err *e) {
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    enum rc rc = ctx && configure(ctx, o->http2) ? load(ctx, o, e) : fail(e, "ssl-certfile", o->ssl_certfile);
    if (rc == RC_OK)
        *out = ctx;
    else
        SSL_CTX_free(ctx);
    return rc;
}

enum tls_news tls_refresh(struct tls *t, bool forced, struct err *e) {
    SSL_CTX *ctx;
    if (!t || (!look(t) && !forced))
        return TLS_SAME;
    if (context_new(&ctx, t->opts, e) != RC_OK)
        return TLS_FAILED;
    pthread_mutex_lock(&t->lock);
    SSL_CTX *old = t->newest;
    t->newest = ctx;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old);
    return TLS_LOADED;
}

enum rc tls_new(struct tls **out, const struct router_opts *o, struct err *e) {
    enum rc rc = check_flags(o, e);
    SSL_CTX *ctx;
    if (rc != RC_OK || !o->ssl_certfile) {
        *out = NULL;
        return rc;
    }
    struct tls *t = xcalloc(1, sizeof *t);
    t->opts = o;
    (void)look(t); /* before it is read: what changes in between is read again */
    rc = context_new(&ctx, o, e);
    if (rc != RC_OK) {
        free(t);
        return rc;
    }
    t->front = ctx;
    pthread_mutex_init(&t->lock, NULL);
    SSL_CTX_set_cert_cb(ctx, on_hello, t);
    *out = t;
    return RC_OK;
}

struct ssl_ctx_st *tls_context(const struct tls *t) {
    return t ? t->front : NULL;
}

void tls_free(struct tls *t) {
    if (!t)
        return;
    SSL_CTX_free(t->front);
    SSL_CTX_free(t->newest);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
