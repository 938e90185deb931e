#include "common/hf/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hf/st_internal.h"

#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME "model.safetensors.index.json"

/* open_regular: a descriptor of a regular file and its size; -1 with errno set. Never waits on a pipe. */
static int open_regular(const char *path, uint64_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        if (!S_ISREG(st.st_mode))
            errno = EINVAL;
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

static enum rc map_file(const char *dir, struct st_file *f, struct err *e) {
    char path[PATH_MAX];
    uint64_t size = 0;
    if (snprintf(path, sizeof path, "%s/%s", dir, f->name) >= (int)sizeof path)
        return err_set(e, RC_INVALID, NULL, "the path of the model folder is too long");
    int fd = open_regular(path, &size);
    if (fd < 0)
        return errno == ENOENT ? err_set(e, RC_NOT_FOUND, NULL, "%s is missing", path) : err_io(e, path);
    void *p = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int saved = errno;
    close(fd);
    errno = saved;
    if (p == MAP_FAILED)
        return err_io(e, path);
    f->data = p;
    f->n = size;
    f->mapped = size > 0;
    return RC_OK;
}

/* read_text: a whole file of at most max bytes; *out is the caller's to free. */
static enum rc read_text(const char *path, size_t max, struct str *out, struct err *e) {
    uint64_t size = 0;
    int fd = open_regular(path, &size);
    if (fd < 0)
        return err_io(e, path);
    char *text = NULL;
    size_t n = 0;
    enum rc rc = RC_OK;
    if (size > max)
        rc = err_set(e, RC_TOO_LARGE, NULL, "%s: %llu bytes, at most %zu", path, (unsigned long long)size,
                     max);
    else
        text = xmalloc(size + 1);
    while (!rc && n < size) {
        ssize_t got = read(fd, text + n, size - n);
        if (got == 0)
            break; /* the file shrank meanwhile: the parser sees what there is */
        if (got < 0 && errno != EINTR)
            rc = err_io(e, path);
        n += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (rc)
        free(text);
    else
        *out = (struct str){text, n};
    return rc;
}

/* explain_none: why a folder without safetensors cannot be served: no folder, pickles, or nothing at all. */
static enum rc explain_none(const char *dir, struct err *e) {
    static const char *const others[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".h5", ".msgpack"};
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT || errno == ENOTDIR ? err_set(e, RC_NOT_FOUND, NULL, "%s: no such folder", dir)
                                                   : err_io(e, dir);
    struct dirent *entry;
    char found[NAME_MAX + 1] = "";
    while ((entry = readdir(d))) {
        size_t n = strlen(entry->d_name);
        for (size_t i = 0; i < ARRAY_LEN(others); i++) {
            size_t m = strlen(others[i]);
            bool match = n > m && strcmp(entry->d_name + n - m, others[i]) == 0;
            if (match &&
                (!*found || strcmp(entry->d_name, found) < 0)) /* the same one on every file system */
                snprintf(found, sizeof found, "%s", entry->d_name);
        }
    }
    closedir(d);
    if (*found) {
        char shown[ST_SHOWN_MAX + 4];
        return err_set(
            e, RC_UNSUPPORTED, NULL,
            "%s holds %s but no safetensors: weights in other formats are not read; convert them with "
            "save_pretrained of Hugging Face transformers",
            dir, st_show(shown, str_of(found)));
    }
    return err_set(e, RC_NOT_FOUND, NULL, "%s holds neither " SINGLE_NAME " nor " INDEX_NAME, dir);
}

static struct st_set *set_new(uint32_t n_files) {
    struct st_set *s = xcalloc(1, sizeof *s);
    arena_init(&s->arena);
    s->files = xcalloc(n_files, sizeof *s->files);
    s->n_files = n_files;
    return s;
}

/* check_index: every tensor of the index is in the shard that the index names. */
static enum rc check_index(const struct st_set *s, const struct st_index *x, struct err *e) {
    for (uint32_t i = 0; i < x->tensors.n; i++) {
        uint32_t t = names_find(&s->names, x->tensors.at[i]);
        if (t != UINT32_MAX && s->file_of[t] == x->shard_of[i])
            continue;
        char shown[2][ST_SHOWN_MAX + 4];
        st_show(shown[0], x->tensors.at[i]);
        return err_set(e, RC_INVALID, shown[0], INDEX_NAME ": tensor \"%s\" is not in %s", shown[0],
                       st_show(shown[1], x->shards.at[x->shard_of[i]]));
    }
    return RC_OK;
}

static enum rc open_shards(struct st_set **out, const char *dir, const char *index_path, struct err *e) {
    struct str text = {0};
    struct st_index x = {0};
    struct st_set *s = NULL;
    enum rc rc = read_text(index_path, ST_INDEX_BYTES_MAX, &text, e);
    if (!rc)
        rc = st_index_read(&x, text, e);
    if (rc)
        goto out;
    s = set_new(x.shards.n);
    for (uint32_t i = 0; i < x.shards.n && !rc; i++) {
        s->files[i].name = arena_strndup(&s->arena, x.shards.at[i].p, x.shards.at[i].n);
        rc = map_file(dir, &s->files[i], e);
        if (!rc)
            rc = st_header_read(s, i, e);
    }
    if (!rc)
        rc = check_index(s, &x, e);
out:
    free((void *)(uintptr_t)text.p);
    st_index_fini(&x);
    if (rc)
        st_close(s);
    else
        *out = s;
    return rc;
}

enum rc st_open(struct st_set **out, const char *dir, struct err *e) {
    char single[PATH_MAX], index[PATH_MAX];
    if (snprintf(single, sizeof single, "%s/" SINGLE_NAME, dir) >= (int)sizeof single ||
        snprintf(index, sizeof index, "%s/" INDEX_NAME, dir) >= (int)sizeof index)
        return err_set(e, RC_INVALID, NULL, "the path of the model folder is too long");
    if (access(single, F_OK) != 0)
        return access(index, F_OK) == 0 ? open_shards(out, dir, index, e) : explain_none(dir, e);
    struct st_set *s = set_new(1);
    s->files[0].name = SINGLE_NAME;
    enum rc rc = map_file(dir, &s->files[0], e);
    if (!rc)
        rc = st_header_read(s, 0, e);
    if (rc)
        st_close(s);
    else
        *out = s;
    return rc;
}

enum rc st_open_memory(struct st_set **out, const void *data, size_t n, struct err *e) {
    struct st_set *s = set_new(1);
    s->files[0] = (struct st_file){.name = "memory", .data = data, .n = n};
    enum rc rc = st_header_read(s, 0, e);
    if (rc)
        st_close(s);
    else
        *out = s;
    return rc;
}

void st_close(struct st_set *s) {
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_files; i++) {
        if (s->files[i].mapped)
            munmap((void *)(uintptr_t)s->files[i].data, s->files[i].n);
    }
    names_fini(&s->names);
    free(s->files);
    free(s->tensors);
    free(s->file_of);
    arena_fini(&s->arena);
    free(s);
}

const struct st_tensor *st_find(const struct st_set *s, const char *name) {
    uint32_t i = names_find(&s->names, str_of(name));
    return i == UINT32_MAX ? NULL : &s->tensors[i];
}

uint64_t st_total_bytes(const struct st_set *s) {
    return s->total_bytes;
}

size_t st_count(const struct st_set *s) {
    return s->names.n;
}

const struct st_tensor *st_at(const struct st_set *s, size_t i) {
    CHECK(i < s->names.n);
    return &s->tensors[i];
}
