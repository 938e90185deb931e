#include "router/healthcheck.h"

#include <netdb.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/base.h"

enum { EXIT_USAGE = 2, LIMIT_S = 5 };

static int open_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct timeval limit = {.tv_sec = LIMIT_S};
    if (getaddrinfo(host, port, &hints, &found) || !found) {
        fprintf(stderr, "weir: %s cannot be resolved\n", host);
        return -1;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0)
        fprintf(stderr, "weir: %s:%s does not answer\n", host, port);
    return fd;
}

static bool ask(int fd, const char *request, char *answer, size_t size) {
    size_t n = strlen(request);
    return write(fd, request, n) == (ssize_t)n && read(fd, answer, size) > 0;
}

static bool ask_tls(int fd, const char *request, char *answer, size_t size) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = ctx ? SSL_new(ctx) : NULL;
    bool ok = ssl && SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1 &&
              SSL_write(ssl, request, (int)strlen(request)) > 0 && SSL_read(ssl, answer, (int)size) > 0;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return ok;
}

int healthcheck(const char *url) {
    char scheme[6] = "http", host[256] = "127.0.0.1", port[8] = "", answer[64] = "", request[512];
    int n = url ? sscanf(url, "%5[a-z]://%255[^:/]:%7[0-9]", scheme, host, port) : 2;
    bool tls = !strcmp(scheme, "https");
    if (n < 2 || (!tls && strcmp(scheme, "http"))) {
        fprintf(stderr, "weir: --healthcheck takes http://HOST:PORT or https://HOST:PORT\n");
        return EXIT_USAGE;
    }
    if (!port[0])
        strcpy(port, "8000");
    int fd = open_to(host, port);
    if (fd < 0)
        return 1;
    snprintf(request, sizeof request, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
    bool answered = tls ? ask_tls(fd, request, answer, sizeof answer - 1)
                        : ask(fd, request, answer, sizeof answer - 1);
    close(fd);
    if (answered && !strncmp(answer, "HTTP/1.1 200", 12))
        return 0;
    fprintf(stderr, "weir: %s:%s %s\n", host, port, answer[0] ? "is not ready" : "does not answer");
    return 1;
}
