#include "router/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* watch_peers: a client whose machine is gone says nothing, and nothing is sent to it while its request
 * waits: it is asked after a minute of silence, and given up half a minute later. Connections inherit this
 * from the socket that listens. */
static void watch_peers(int fd) {
    static const struct {
        int level, option, value;
    } set[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
               {IPPROTO_TCP, TCP_KEEPIDLE, 60},
               {IPPROTO_TCP, TCP_KEEPINTVL, 10},
               {IPPROTO_TCP, TCP_KEEPCNT, 3}};
    for (size_t i = 0; i < ARRAY_LEN(set); i++)
        (void)setsockopt(fd, set[i].level, set[i].option, &set[i].value, sizeof set[i].value);
}

static enum rc open_tcp(const struct router_opts *o, int *out, int *bound, struct err *e) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list;
    char port[16];
    snprintf(port, sizeof port, "%lld", (long long)o->port);
    int rc = getaddrinfo(o->host, port, &hints, &list);
    if (rc != 0)
        return err_set(e, RC_INVALID, NULL, "--host %s: %s", o->host, gai_strerror(rc));
    int fd = -1, on = 1, why = EADDRNOTAVAIL;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd < 0) {
            why = errno;
            continue;
        }
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return err_set(e, RC_IO, NULL, "cannot listen on %s:%s: %s", o->host, port, strerror(why));
    watch_peers(fd);
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    CHECK(getsockname(fd, (struct sockaddr *)&at, &n) == 0);
    *bound = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                            : ((struct sockaddr_in *)&at)->sin_port);
    *out = fd;
    return RC_OK;
}

/* is_stale: a socket file that nobody listens on. */
static bool is_stale(const struct sockaddr_un *at) {
    struct stat st;
    if (lstat(at->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool refused =
        fd >= 0 && connect(fd, (const struct sockaddr *)at, sizeof *at) != 0 && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refused;
}

static enum rc open_unix(const char *path, int *out, struct err *e) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof at.sun_path)
        return err_set(e, RC_INVALID, "uds", "--uds: a path of 1 to %zu bytes", sizeof at.sun_path - 1);
    memcpy(at.sun_path, path, strlen(path));
    if (is_stale(&at))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, SOMAXCONN) != 0) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        return err_set(e, RC_IO, "uds", "cannot listen on %s: %s", path, strerror(why));
    }
    *out = fd;
    return RC_OK;
}

enum rc listen_open(const struct router_opts *o, int *fd, int *port, struct err *e) {
    if (!o->uds)
        return open_tcp(o, fd, port, e);
    *port = 0;
    return open_unix(o->uds, fd, e);
}

void listen_close(const struct router_opts *o, int fd) {
    close(fd);
    if (o->uds)
        unlink(o->uds);
}
