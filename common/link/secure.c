#include "common/link/secure.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

enum { FILE_BYTES_MAX = 1 << 20, TOKEN_BYTES_MAX = 4096, HOST_BYTES_MAX = 255 };

struct link_tls {
    char *ca, *cert, *key; /* PEM texts; NULL: none */
    char *name;
};

static const char tls_scheme[] = "tls+tcp://", tcp_scheme[] = "tcp://";

bool link_is_tls(const char *url) {
    return !strncmp(url, tls_scheme, sizeof tls_scheme - 1);
}

/* host_of: without brackets; "" if it is too long or there is none. */
static void host_of(const char *url, char out[HOST_BYTES_MAX + 1]) {
    const char *host = strstr(url, "://"), *end;
    host = host ? host + 3 : url;
    if (*host == '[') {
        end = strchr(++host, ']');
    } else {
        end = strrchr(host, ':');
    }
    size_t n = end ? (size_t)(end - host) : strlen(host);
    snprintf(out, HOST_BYTES_MAX + 1, "%.*s", n <= HOST_BYTES_MAX ? (int)n : 0, host);
}

bool link_is_local(const char *url) {
    char host[HOST_BYTES_MAX + 1];
    if (!link_is_tls(url) && strncmp(url, tcp_scheme, sizeof tcp_scheme - 1))
        return true; /* a Unix socket, which its mode guards */
    host_of(url, host);
    return !strcmp(host, "localhost") || !strcmp(host, "::1") ||
           (!strncmp(host, "127.", 4) && strspn(host, "0123456789.") == strlen(host));
}

/* ---- files ------------------------------------------------------------------------------------------- */

static enum rc read_file(const char *flag, const char *path, size_t bytes_max, struct buf *out, struct err *e) {
    char piece[4096];
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, RC_INVALID, flag, "--%s %.200s: %s", flag, path, strerror(errno));
    for (size_t n; out->len <= bytes_max && (n = fread(piece, 1, sizeof piece, f)) > 0;)
        buf_add(out, piece, n);
    bool failed = ferror(f);
    fclose(f);
    OPENSSL_cleanse(piece, sizeof piece);
    if (failed || out->len > bytes_max || memchr(out->data ? out->data : "", '\0', out->len))
        return err_set(e, RC_INVALID, flag, "--%s %.200s: %s", flag, path,
                       failed                 ? "it cannot be read"
                       : out->len > bytes_max ? "it is too long"
                                              : "it is no text");
    return RC_OK;
}

/* read_text: *out stays NULL without a path. */
static enum rc read_text(const char *flag, const char *path, char **out, struct err *e) {
    struct buf b = {0};
    enum rc rc = path ? read_file(flag, path, FILE_BYTES_MAX, &b, e) : RC_OK;
    if (rc == RC_OK && path)
        *out = buf_take(&b);
    buf_fini(&b);
    return rc;
}

enum rc link_secret_read(const char *path, struct buf *out, struct err *e) {
    static const char flag[] = "cluster-token-file";
    struct buf text = {0};
    if (!path)
        return RC_OK;
    enum rc rc = read_file(flag, path, TOKEN_BYTES_MAX, &text, e);
    const char *end = rc == RC_OK && text.len ? memchr(text.data, '\n', text.len) : NULL;
    size_t n = end ? (size_t)(end - text.data) : text.len;
    while (n && (text.data[n - 1] == ' ' || text.data[n - 1] == '\t' || text.data[n - 1] == '\r'))
        n--;
    if (rc == RC_OK && n == 0)
        rc = err_set(e, RC_INVALID, flag, "--%s %.200s: it is empty, or has no token in its first line", flag, path);
    if (rc == RC_OK)
        buf_add(out, text.data, n);
    if (text.data)
        OPENSSL_cleanse(text.data, text.len);
    buf_fini(&text);
    return rc;
}

/* ---- certificates ------------------------------------------------------------------------------------ */

bool link_tls_listens(const struct link_tls *t) {
    return t && t->cert;
}

bool link_tls_dials(const struct link_tls *t) {
    return t && t->ca;
}

bool link_tls_mutual(const struct link_tls *t) {
    return t && t->cert && t->ca;
}

/* common_config: authorities and certificate, as far as there are some. */
static enum rc common_config(const struct link_tls *t, nng_tls_mode mode, nng_tls_config **out, struct err *e) {
    nng_tls_config *c = NULL;
    const char *what = "TLS";
    int rv = nng_tls_config_alloc(&c, mode);
    if (!rv)
        rv = nng_tls_config_version(c, NNG_TLS_1_2, NNG_TLS_1_3);
    if (!rv && t->ca) {
        what = "--cluster-tls-ca";
        rv = nng_tls_config_ca_chain(c, t->ca, NULL);
    }
    if (!rv)
        rv = nng_tls_config_auth_mode(c, t->ca ? NNG_TLS_AUTH_MODE_REQUIRED : NNG_TLS_AUTH_MODE_NONE);
    if (!rv && t->cert) {
        what = "--cluster-tls-certfile and its key";
        rv = nng_tls_config_own_cert(c, t->cert, t->key ? t->key : t->cert, NULL);
    }
    if (!rv) {
        *out = c;
        return RC_OK;
    }
    if (c)
        nng_tls_config_free(c);
    return err_set(e, RC_INVALID, NULL, "%s: %s", what, nng_strerror(rv));
}

enum rc link_tls_server(const struct link_tls *t, nng_tls_config **out, struct err *e) {
    if (!link_tls_listens(t))
        return err_set(e, RC_INVALID, NULL, "a tls+tcp address to listen on needs --cluster-tls-certfile");
    return common_config(t, NNG_TLS_MODE_SERVER, out, e);
}

enum rc link_tls_client(const struct link_tls *t, const char *url, nng_tls_config **out, struct err *e) {
    char host[HOST_BYTES_MAX + 1];
    nng_tls_config *c;
    if (!link_tls_dials(t))
        return err_set(e, RC_INVALID, NULL, "a tls+tcp address needs --cluster-tls-ca");
    enum rc rc = common_config(t, NNG_TLS_MODE_CLIENT, &c, e);
    if (rc != RC_OK)
        return rc;
    host_of(url, host);
    int rv = nng_tls_config_server_name(c, t->name ? t->name : host);
    if (rv) {
        nng_tls_config_free(c);
        return err_set(e, RC_INVALID, NULL, "--cluster-tls-name: %s", nng_strerror(rv));
    }
    *out = c;
    return RC_OK;
}

enum rc link_tls_new(struct link_tls **out, const struct link_tls_files *files, struct err *e) {
    *out = NULL;
    if (!files->ca && !files->cert) {
        if (files->key || files->name)
            return err_set(e, RC_INVALID, NULL, files->key ? "--cluster-tls-keyfile needs --cluster-tls-certfile"
                                                           : "--cluster-tls-name needs --cluster-tls-ca");
        return RC_OK;
    }
    struct link_tls *t = xcalloc(1, sizeof *t);
    nng_tls_config *probe;
    t->name = files->name ? xstrdup(files->name) : NULL;
    enum rc rc = read_text("cluster-tls-ca", files->ca, &t->ca, e);
    if (rc == RC_OK)
        rc = read_text("cluster-tls-certfile", files->cert, &t->cert, e);
    if (rc == RC_OK)
        rc = read_text("cluster-tls-keyfile", files->key, &t->key, e);
    if (rc == RC_OK)
        rc = common_config(t, NNG_TLS_MODE_SERVER, &probe, e);
    if (rc != RC_OK) {
        link_tls_free(t);
        return rc;
    }
    nng_tls_config_free(probe);
    *out = t;
    return RC_OK;
}

static void wipe(char *text) {
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
}

void link_tls_free(struct link_tls *t) {
    if (!t)
        return;
    wipe(t->ca);
    wipe(t->cert);
    wipe(t->key);
    free(t->name);
    free(t);
}
