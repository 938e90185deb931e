/* The link over TLS: certificates that are good, of the wrong name or authority, missing; and a plain peer on either side.
 * threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/link/link.h"
#include "common/link/secure.h"

/* ---- certificates ------------------------------------------------------------------------------------ */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
    char cert_file[64], key_file[64];
};
static char folder[] = "/tmp/weir-tls-XXXXXX";
static struct identity ca, other_ca, worker, router, stranger;

static void make(struct identity *x, const char *name, const struct identity *issuer) {
    static long serial;
    char san[80];
    X509V3_CTX ctx;
    x->key = EVP_EC_gen("P-256");
    x->cert = X509_new();
    assert_true(x->key && x->cert);
    assert_int_equal(X509_set_version(x->cert, X509_VERSION_3), 1);
    ASN1_INTEGER_set(X509_get_serialNumber(x->cert), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(x->cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x->cert), 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x->cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x->cert, X509_get_subject_name(issuer ? issuer->cert : x->cert));
    X509_set_pubkey(x->cert, x->key);
    X509V3_set_ctx(&ctx, issuer ? issuer->cert : x->cert, x->cert, NULL, NULL, 0);
    snprintf(san, sizeof san, issuer ? "DNS:%s" : "critical,CA:TRUE", name);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, issuer ? NID_subject_alt_name : NID_basic_constraints, san);
    assert_int_equal(X509_add_ext(x->cert, e, -1), 1);
    X509_EXTENSION_free(e);
    assert_true(X509_sign(x->cert, issuer ? issuer->key : x->key, EVP_sha256()) > 0);
    snprintf(x->cert_file, sizeof x->cert_file, "%s/%s.pem", folder, name);
    snprintf(x->key_file, sizeof x->key_file, "%s/%s.key", folder, name);
    FILE *f = fopen(x->cert_file, "w");
    assert_int_equal(PEM_write_X509(f, x->cert), 1);
    fclose(f);
    f = fopen(x->key_file, "w");
    assert_int_equal(PEM_write_PrivateKey(f, x->key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
}

static void drop(struct identity *x) {
    EVP_PKEY_free(x->key);
    X509_free(x->cert);
    unlink(x->cert_file);
    unlink(x->key_file);
}

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder))
        return 1;
    make(&ca, "ca", NULL);
    make(&other_ca, "other-ca", NULL);
    make(&worker, "worker.weir", &ca);
    make(&router, "router.weir", &ca);
    make(&stranger, "stranger.weir", &other_ca);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    drop(&ca);
    drop(&other_ca);
    drop(&worker);
    drop(&router);
    drop(&stranger);
    return rmdir(folder);
}

/* ---- two ends ---------------------------------------------------------------------------------------- */

struct end {
    struct link *link;
    struct link_tls *tls;
    _Atomic int n_up, n_down, n_errors;
    _Atomic size_t n_tokens;
};

static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct end *x = arg;
    uint32_t *tokens = xcalloc(300000, sizeof *tokens); /* 1.2 MB: in parts */
    Weir__Submit m = WEIR__SUBMIT__INIT;
    for (uint32_t i = 0; i < 300000; i++)
        tokens[i] = i * 7919;
    m.tokens = tokens;
    m.n_tokens = 300000;
    (void)peer;
    assert_int_equal(link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_SUBMIT, &m), RC_OK);
    free(tokens);
    atomic_fetch_add(&x->n_up, 1);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct end *x = arg;
    (void)c;
    assert_int_equal(m->body_case, WEIR__ENVELOPE__BODY_SUBMIT);
    for (uint32_t i = 0; i < m->submit->n_tokens; i++)
        assert_int_equal(m->submit->tokens[i], i * 7919);
    atomic_fetch_add(&x->n_tokens, m->submit->n_tokens);
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct end *x = arg;
    (void)c, (void)reason;
    atomic_fetch_add(&x->n_down, 1);
}

static void on_dial_error(void *arg, const char *address, const char *reason) {
    struct end *x = arg;
    (void)address, (void)reason;
    atomic_fetch_add(&x->n_errors, 1);
}

static void end_start(struct end *x, Weir__Role role, const char *secret, const struct link_tls_files *files) {
    struct err e = {0};
    *x = (struct end){.link = NULL};
    if (files && link_tls_new(&x->tls, files, &e) != RC_OK)
        fail_msg("%s", e.msg);
    x->link = link_new(&(struct link_opts){.role = role, .secret = str_of(secret), .tls = x->tls, .seed = 1, .arg = x,
                                           .on_up = on_up, .on_message = on_message, .on_down = on_down,
                                           .on_dial_error = on_dial_error});
}

static void end_stop(struct end *x) {
    link_free(x->link);
    link_tls_free(x->tls);
    assert_int_equal(atomic_load(&x->n_up), atomic_load(&x->n_down));
}

static bool until(bool (*fn)(const struct end *), const struct end *x) {
    for (uint64_t end_ns = clock_ns() + 10 * NS_PER_S; clock_ns() < end_ns; usleep(1000))
        if (fn(x))
            return true;
    return false;
}
static bool has_all(const struct end *x) {
    return atomic_load(&x->n_tokens) >= 300000;
}
static bool has_error(const struct end *x) {
    return atomic_load(&x->n_errors) > 0;
}

/* meet: a worker that listens with `w` and a router that dials with `r` (NULL: plain). Whether they come up; if so,
 * what each says arrives whole. Either way both end in time, and the worker takes a good router afterwards. */
static bool meet(const struct link_tls_files *w, const struct link_tls_files *r, const char *secret, const char *shown) {
    const struct link_tls_files good = {ca.cert_file, router.cert_file, router.key_file, "worker.weir"};
    struct end a, b;
    struct err e;
    char url[64];
    end_start(&a, WEIR__ROLE__WORKER, secret, w);
    end_start(&b, WEIR__ROLE__ROUTER, shown, r);
    assert_int_equal(link_listen(a.link, w ? "tls+tcp://127.0.0.1:0" : "tcp://127.0.0.1:0", &e), RC_OK);
    int port = link_listen_port(a.link);
    assert_true(port > 0);
    snprintf(url, sizeof url, "%s://127.0.0.1:%d", r ? "tls+tcp" : "tcp", port);
    assert_int_equal(link_dial(b.link, url, &e), RC_OK);
    bool up = false;
    for (uint64_t end_ns = clock_ns() + 10 * NS_PER_S; !up && !has_error(&b) && clock_ns() < end_ns; usleep(1000))
        up = atomic_load(&b.n_up) > 0;
    assert_true(up || has_error(&b));
    if (up)
        assert_true(until(has_all, &a) && until(has_all, &b));
    else
        assert_int_equal(atomic_load(&a.n_up), 0);
    uint64_t begin_ns = clock_ns();
    end_stop(&b);
    if (w) { /* nobody was harmed */
        end_start(&b, WEIR__ROLE__ROUTER, secret, &good);
        snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%d", port);
        atomic_store(&a.n_tokens, 0);
        assert_int_equal(link_dial(b.link, url, &e), RC_OK);
        assert_true(until(has_all, &a) && until(has_all, &b));
        end_stop(&b);
    }
    end_stop(&a);
    assert_true(clock_ns() - begin_ns < 10 * NS_PER_S);
    return up;
}

static void test_good(void **state) {
    const struct link_tls_files mutual = {ca.cert_file, worker.cert_file, worker.key_file, NULL},
                                server = {NULL, worker.cert_file, worker.key_file, NULL},
                                both = {ca.cert_file, router.cert_file, router.key_file, "worker.weir"},
                                client = {ca.cert_file, NULL, NULL, "worker.weir"};
    (void)state;
    assert_true(meet(&mutual, &both, "", ""));
    assert_true(meet(&server, &client, "", ""));
    assert_true(meet(&mutual, &both, "token", "token"));
}

static void test_bad(void **state) {
    const struct link_tls_files mutual = {ca.cert_file, worker.cert_file, worker.key_file, NULL},
                                server = {NULL, worker.cert_file, worker.key_file, NULL},
                                both = {ca.cert_file, router.cert_file, router.key_file, "worker.weir"},
                                no_cert = {ca.cert_file, NULL, NULL, "worker.weir"},
                                no_name = {ca.cert_file, NULL, NULL, NULL},
                                wrong_name = {ca.cert_file, router.cert_file, router.key_file, "router.weir"},
                                wrong_ca = {other_ca.cert_file, NULL, NULL, "worker.weir"},
                                foreign = {ca.cert_file, stranger.cert_file, stranger.key_file, "worker.weir"};
    (void)state;
    assert_false(meet(&mutual, &no_cert, "", ""));
    assert_false(meet(&mutual, &foreign, "", ""));
    assert_false(meet(&server, &wrong_name, "", ""));
    assert_false(meet(&server, &no_name, "", "")); /* 127.0.0.1 is not what the certificate says */
    assert_false(meet(&server, &wrong_ca, "", ""));
    assert_false(meet(&mutual, &both, "token", "another"));
    assert_false(meet(&mutual, &both, "token", ""));
}

static void test_plain_peers(void **state) {
    const struct link_tls_files server = {NULL, worker.cert_file, worker.key_file, NULL},
                                client = {ca.cert_file, NULL, NULL, "worker.weir"};
    (void)state;
    assert_false(meet(&server, NULL, "", ""));
    assert_false(meet(NULL, &client, "", ""));
}

static void test_files(void **state) {
    char none[80];
    const struct {
        struct link_tls_files files;
        const char *words;
    } bad[] = {
        {{ca.key_file, NULL, NULL, NULL}, "--cluster-tls-ca"},
        {{none, NULL, NULL, NULL}, "No such file"},
        {{NULL, worker.cert_file, NULL, NULL}, "its key"},
        {{NULL, worker.cert_file, worker.cert_file, NULL}, "its key"},
        {{NULL, worker.key_file, worker.key_file, NULL}, "--cluster-tls-certfile"},
        {{NULL, NULL, worker.key_file, NULL}, "needs --cluster-tls-certfile"},
        {{NULL, NULL, NULL, "x"}, "needs --cluster-tls-ca"},
    };
    struct link_tls *t;
    struct end x;
    struct err e;
    (void)state;
    snprintf(none, sizeof none, "%s/none", folder);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (link_tls_new(&t, &bad[i].files, &e) == RC_OK)
            fail_msg("taken: %zu", i);
        if (!strstr(e.msg, bad[i].words))
            fail_msg("%zu: %s", i, e.msg);
    }
    assert_int_equal(link_tls_new(&t, &(struct link_tls_files){NULL, NULL, NULL, NULL}, &e), RC_OK);
    assert_null(t);
    assert_false(link_tls_listens(t) || link_tls_dials(t) || link_tls_mutual(t));
    end_start(&x, WEIR__ROLE__ROUTER, "", NULL);
    assert_int_equal(link_dial(x.link, "tls+tcp://h:1", &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--cluster-tls-ca"));
    assert_int_equal(link_listen(x.link, "tls+tcp://127.0.0.1:0", &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--cluster-tls-certfile"));
    end_stop(&x);
}

static void test_local(void **state) {
    static const struct {
        const char *url;
        bool local;
    } cases[] = {{"ipc:///x", true},           {"tcp://127.0.0.1:1", true}, {"tcp://127.9.9.9:1", true},
                 {"tcp://localhost:1", true},  {"tcp://[::1]:1", true},     {"tls+tcp://127.0.0.1:1", true},
                 {"tcp://0.0.0.0:1", false},   {"tcp://[::]:1", false},     {"tcp://10.0.0.1:1", false},
                 {"tls+tcp://host:1", false},  {"tcp://:1", false},         {"tcp://*:1", false},
                 {"tcp://localhost.evil.org:1", false}, {"tcp://127.evil.org:1", false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (link_is_local(cases[i].url) != cases[i].local)
            fail_msg("%s", cases[i].url);
}

static void test_secret(void **state) {
    static const struct {
        const char *text, *want;
    } cases[] = {{"token", "token"}, {"token \t\r\n", "token"}, {"a b\nsecond line\n", "a b"}, {"", NULL}, {" \n x", NULL}};
    char path[80];
    struct buf b = {0};
    struct err e;
    (void)state;
    snprintf(path, sizeof path, "%s/token", folder);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        FILE *f = fopen(path, "w");
        fputs(cases[i].text, f);
        fclose(f);
        b.len = 0;
        assert_int_equal(link_secret_read(path, &b, &e), cases[i].want ? RC_OK : RC_INVALID);
        if (cases[i].want)
            assert_string_equal(buf_cstr(&b), cases[i].want);
    }
    unlink(path);
    assert_int_equal(link_secret_read(path, &b, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--cluster-token-file"));
    b.len = 0;
    assert_int_equal(link_secret_read(NULL, &b, &e), RC_OK);
    assert_int_equal(b.len, 0);
    buf_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_bad),   cmocka_unit_test(test_plain_peers),
        cmocka_unit_test(test_files), cmocka_unit_test(test_local), cmocka_unit_test(test_secret),
    };
    return cmocka_run_group_tests_name("link tls", tests, set_up, tear_down);
}
