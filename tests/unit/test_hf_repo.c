/* The folder of a MODEL argument: folders, and repositories of the local Hugging Face cache by their revisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hf/repo.h"

static char root[] = "/tmp/weir-hf-XXXXXX";

/* put: a file below root, with the folders in front of it; text NULL: a folder. */
static void put(const char *path, const char *text) {
    char full[512];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(full, 0700);
        *p = '/';
    }
    if (!text) {
        assert_int_equal(mkdir(full, 0700), 0);
        return;
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

#define REPO "hub/models--org--name"
#define A "1111111111111111111111111111111111111111"
#define B "2222222222222222222222222222222222222222"

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(root))
        return -1;
    setenv("HF_HUB_CACHE", "", 1);
    setenv("HF_HOME", root, 1);
    put(REPO "/refs/main", A);
    put(REPO "/refs/v2", B "\n");
    put(REPO "/refs/pr/7", B);
    put(REPO "/refs/gone", "3333");
    put(REPO "/refs/out", "../../../plain");
    put(REPO "/snapshots/" A "/config.json", "{}");
    put(REPO "/snapshots/" B "/config.json", "{}");
    put("hub/models--single/refs/main", "c");
    put("hub/models--single/snapshots/c", NULL);
    put("hub/models--org--headless/snapshots/" A "/config.json", "{}");
    put("plain/config.json", "{}");
    put("odd/config.json", "{}"); /* a model's folder that happens to have one of this name */
    put("odd/snapshots/x", "");
    return 0;
}

static int unlink_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int teardown(void **state) {
    (void)state;
    return nftw(root, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_find(void **state) {
    (void)state;
    static const struct {
        const char *model, *revision; /* a model that begins with '/' is below root */
        const char *dir;              /* below root; NULL: refused... */
        enum rc rc;
        const char *why; /* ...with these words */
    } rows[] = {
        {"/plain", NULL, "plain", RC_OK, NULL},
        {"/odd", NULL, "odd", RC_OK, NULL},
        {"org/name", NULL, REPO "/snapshots/" A, RC_OK, NULL},
        {"org/name", "main", REPO "/snapshots/" A, RC_OK, NULL},
        {"org/name", "v2", REPO "/snapshots/" B, RC_OK, NULL},
        {"org/name", "pr/7", REPO "/snapshots/" B, RC_OK, NULL},
        {"org/name", B, REPO "/snapshots/" B, RC_OK, NULL},
        {"/" REPO, NULL, REPO "/snapshots/" A, RC_OK, NULL},
        {"/" REPO, "v2", REPO "/snapshots/" B, RC_OK, NULL},
        {"/" REPO "/snapshots/" B, NULL, REPO "/snapshots/" B, RC_OK, NULL},
        {"/" REPO "/snapshots/" B, B, REPO "/snapshots/" B, RC_OK, NULL},
        {"single", NULL, "hub/models--single/snapshots/c", RC_OK, NULL},
        {"org/headless", A, "hub/models--org--headless/snapshots/" A, RC_OK, NULL},

        {"org/headless", NULL, NULL, RC_NOT_FOUND, "not its revision main"},
        {"org/name", "v3", NULL, RC_INVALID, "not its revision v3"},
        {"org/name", "2222", NULL, RC_INVALID, "not its revision 2222"},
        {"org/name", "gone", NULL, RC_INVALID, "not its revision gone"},
        {"org/name", "out", NULL, RC_INVALID, "not its revision out"},
        {"org/name", "../refs/main", NULL, RC_INVALID, "no name of a branch"},
        {"org/name", "", NULL, RC_INVALID, "no name of a branch"},
        {"/plain", "main", NULL, RC_INVALID, "which has no revisions"},
        {"/" REPO "/snapshots/" B, A, NULL, RC_INVALID, "which has no revisions"},
        {"/none", NULL, NULL, RC_NOT_FOUND, "no model folder"},
        {"/none", "main", NULL, RC_NOT_FOUND, "no model folder"},
        {"org/other", "main", NULL, RC_NOT_FOUND, "nothing is downloaded"},
        {"org/name/more", NULL, NULL, RC_NOT_FOUND, "no model folder"},
        {"../x", NULL, NULL, RC_NOT_FOUND, "no model folder"},
        {"", NULL, NULL, RC_NOT_FOUND, "no model folder"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char model[512], want[512], *dir = NULL;
        struct err e = {0};
        snprintf(model, sizeof model, "%s%s", rows[i].model[0] == '/' ? root : "", rows[i].model);
        enum rc rc = hf_repo_find(model, rows[i].revision, &dir, &e);
        struct err why = {0};
        assert_int_equal(hf_repo_check(model, rows[i].revision, &why),
                         rows[i].revision && rc == RC_INVALID ? RC_INVALID : RC_OK);
        if (rc != rows[i].rc)
            fail_msg("%s, %s: %d: %s", model, rows[i].revision ? rows[i].revision : "", rc, e.msg);
        if (rc == RC_OK) {
            snprintf(want, sizeof want, "%s/%s", root, rows[i].dir);
            assert_string_equal(dir, want);
        } else if (!strstr(e.msg, rows[i].why)) {
            fail_msg("%s, %s: %s", model, rows[i].revision ? rows[i].revision : "", e.msg);
        }
        free(dir);
    }
}

/* Where the cache lies, as huggingface_hub looks for it. */
static void test_cache_folder(void **state) {
    (void)state;
    char home[512], hub[512], *dir = NULL;
    struct err e = {0};
    char *user = xstrdup(getenv("HOME") ? getenv("HOME") : "");
    snprintf(home, sizeof home, "%s/nowhere", root);
    snprintf(hub, sizeof hub, "%s/hub", root);
    setenv("HF_HOME", home, 1);
    assert_int_equal(hf_repo_find("org/name", NULL, &dir, &e), RC_NOT_FOUND);
    setenv("HF_HUB_CACHE", hub, 1);
    assert_int_equal(hf_repo_find("org/name", NULL, &dir, &e), RC_OK);
    free(dir);
    unsetenv("HF_HUB_CACHE");
    unsetenv("HF_HOME");
    setenv("HOME", home, 1);
    put("nowhere/.cache/huggingface/hub/models--a--b/refs/main", "c");
    put("nowhere/.cache/huggingface/hub/models--a--b/snapshots/c", NULL);
    assert_int_equal(hf_repo_find("a/b", NULL, &dir, &e), RC_OK);
    free(dir);
    setenv("HOME", user, 1);
    free(user);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_cache_folder),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
