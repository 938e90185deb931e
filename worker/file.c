#include "worker/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum rc file_read(const char *dir, const char *name, size_t limit, char **data, size_t *n, struct err *e) {
    char path[4096];
    struct stat st;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
        return err_set(e, RC_INVALID, NULL, "the path of %s is too long", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* never waits on a pipe */
    if (fd < 0)
        return err_set(e, errno == ENOENT ? RC_NOT_FOUND : RC_IO, NULL, "%s: %s", name, strerror(errno));
    enum rc rc = RC_OK;
    char *buf = NULL;
    size_t got = 0;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        rc = err_set(e, RC_INVALID, NULL, "%s is not a regular file", name);
    else if ((uint64_t)st.st_size > limit)
        rc = err_set(e, RC_TOO_LARGE, NULL, "%s has %lld bytes, at most %zu", name, (long long)st.st_size,
                     limit);
    if (rc == RC_OK) {
        buf = xmalloc((size_t)st.st_size + 1);
        while (got < (size_t)st.st_size) {
            ssize_t r = read(fd, buf + got, (size_t)st.st_size - got);
            if (r < 0 && errno == EINTR)
                continue;
            if (r <= 0)
                break;
            got += (size_t)r;
        }
        buf[got] = 0;
        *data = buf;
        *n = got;
    }
    close(fd);
    return rc;
}
