#include "common/hf/repo.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/buf.h"

enum { REVISION_BYTES_MAX = 255 };

static bool is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* path_of: DIR/NAME, or DIR/FOLDER/NAME. The caller's. */
static char *path_of(const char *dir, const char *folder, const char *name) {
    struct buf b = {0};
    buf_addf(&b, "%s/%s%s%s", dir, folder, *folder ? "/" : "", name);
    return buf_take(&b);
}

/* read_line: the first line of a small file, into out[n]; false: there is none, or it does not fit. */
static bool read_line(const char *path, char *out, size_t n) {
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(out, (int)n, f);
    if (f)
        fclose(f);
    if (ok)
        out[strcspn(out, "\r\n")] = 0;
    return ok && out[0];
}

/* is_revision: a name that stays within the folders of the cache. */
static bool is_revision(const char *name) {
    size_t n = strlen(name);
    return n && n <= REVISION_BYTES_MAX && name[0] != '/' && name[0] != '.' && !strstr(name, "..");
}

/* snapshot_of: the folder of a revision in the cache's folder of a repository; NULL: it is not there. */
static char *snapshot_of(const char *repo, const char *revision) {
    char commit[REVISION_BYTES_MAX + 1];
    char *ref = path_of(repo, "refs", revision), *dir = NULL;
    if (read_line(ref, commit, sizeof commit) && is_revision(commit) && !strchr(commit, '/'))
        dir = path_of(repo, "snapshots", commit);
    else if (!strchr(revision, '/'))
        dir = path_of(repo, "snapshots", revision);
    free(ref);
    if (dir && is_dir(dir))
        return dir;
    free(dir);
    return NULL;
}

/* is_repo: the cache's folder of a repository, not a model's: it has snapshots and no config. */
static bool is_repo(const char *dir) {
    char *snapshots = path_of(dir, "", "snapshots"), *config = path_of(dir, "", "config.json");
    struct stat st;
    bool yes = is_dir(snapshots) && stat(config, &st);
    free(snapshots);
    free(config);
    return yes;
}

/* is_snapshot: whether the folder is that revision: .../snapshots/REVISION. */
static bool is_snapshot(const char *dir, const char *revision) {
    static const char parent[] = "snapshots/";
    size_t n = strlen(dir), n_revision = strlen(revision), n_parent = sizeof parent - 1;
    while (n && dir[n - 1] == '/')
        n--;
    return n >= n_revision + n_parent && !memcmp(dir + n - n_revision, revision, n_revision) &&
           !memcmp(dir + n - n_revision - n_parent, parent, n_parent);
}

/* cached_repo: the cache's folder of a repository of that id; NULL: not an id, or not there. The caller's. */
static char *cached_repo(const char *id) {
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    const char *slash = strchr(id, '/');
    struct buf b = {0};
    if (!*id || id[0] == '.' || id[0] == '/' || (slash && (!slash[1] || strchr(slash + 1, '/'))))
        return NULL;
    if (hub && *hub)
        buf_addz(&b, hub);
    else if (home && *home)
        buf_addf(&b, "%s/hub", home);
    else if (user && *user)
        buf_addf(&b, "%s/.cache/huggingface/hub", user);
    else
        return NULL;
    if (slash)
        buf_addf(&b, "/models--%.*s--%s", (int)(slash - id), id, slash + 1);
    else
        buf_addf(&b, "/models--%s", id);
    char *repo = buf_take(&b);
    if (is_dir(repo))
        return repo;
    free(repo);
    return NULL;
}

enum rc hf_repo_find(const char *model, const char *revision, char **dir, struct err *e) {
    char *repo = NULL, *found = NULL;
    if (revision && !is_revision(revision))
        return err_set(e, RC_INVALID, "revision", "--revision \"%.64s\" is no name of a branch, a tag or a commit", revision);
    if (is_dir(model) && is_repo(model)) {
        repo = xstrdup(model);
    } else if (is_dir(model)) {
        if (revision && !is_snapshot(model, revision))
            return err_set(e, RC_INVALID, "revision",
                           "--revision %s: '%s' is a model's folder, which has no revisions: drop the flag, or name a "
                           "repository of the local Hugging Face cache",
                           revision, model);
        *dir = xstrdup(model);
        return RC_OK;
    } else {
        repo = cached_repo(model);
    }
    if (!repo)
        return err_set(e, RC_NOT_FOUND, "model",
                       "there is no model folder '%s', and no repository of that name in the local Hugging Face cache; "
                       "nothing is downloaded",
                       model);
    found = snapshot_of(repo, revision ? revision : "main");
    free(repo);
    if (!found)
        return err_set(e, revision ? RC_INVALID : RC_NOT_FOUND, revision ? "revision" : "model",
                       "the local Hugging Face cache has '%s', but not its revision %s; nothing is downloaded", model,
                       revision ? revision : "main");
    *dir = found;
    return RC_OK;
}

enum rc hf_repo_check(const char *model, const char *revision, struct err *e) {
    char *dir = NULL;
    enum rc rc = revision ? hf_repo_find(model, revision, &dir, e) : RC_OK;
    free(dir);
    return rc == RC_INVALID ? rc : RC_OK;
}
