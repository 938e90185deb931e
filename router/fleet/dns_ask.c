/* The way to a name server and back. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "router/fleet/dns.h"

enum { DNS_PORT = 53, RESEND_MS = 700 };

enum rc dns_server_read(const char *text, struct dns_server *out, struct err *e) {
    char host[64] = "";
    const char *colon = text[0] == '[' ? strstr(text, "]:") : strchr(text, ':');
    bool bare6 = text[0] != '[' && colon && strchr(colon + 1, ':');
    size_t n = colon && !bare6 ? (size_t)(colon - text) : strlen(text);
    long port = DNS_PORT;
    if (colon && !bare6)
        port = strtol(colon + (text[0] == '[' ? 2 : 1), NULL, 10);
    *out = (struct dns_server){.addr_len = 0};
    if (text[0] == '[') {
        text++;
        n--;
    }
    if (n && n < sizeof host)
        memcpy(host, text, n);
    if (n && host[n - 1] == ']')
        host[n - 1] = '\0';
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (port > 0 && port < 65536 && inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&out->addr, &v4, sizeof v4);
        out->addr_len = sizeof v4;
    } else if (port > 0 && port < 65536 && inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&out->addr, &v6, sizeof v6);
        out->addr_len = sizeof v6;
    }
    return out->addr_len ? RC_OK : err_set(e, RC_INVALID, NULL, "'%.80s' is no name server's address", text);
}

enum rc dns_server_system(struct dns_server *out, struct err *e) {
    char line[256], address[64];
    FILE *f = fopen("/etc/resolv.conf", "re");
    enum rc rc = err_set(e, RC_NOT_FOUND, NULL, "/etc/resolv.conf names no server");
    while (f && rc != RC_OK && fgets(line, sizeof line, f))
        if (sscanf(line, "nameserver %63s", address) == 1)
            rc = dns_server_read(address, out, e);
    if (f)
        fclose(f);
    return rc;
}

/* wait_for: until fd is ready; RC_TIMEOUT by end_ns, RC_AGAIN if stop_fd is. */
static enum rc wait_for(int fd, short events, int stop_fd, uint64_t end_ns, struct err *e) {
    struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
    for (;;) {
        uint64_t now = clock_ns();
        if (now >= end_ns)
            return err_set(e, RC_TIMEOUT, NULL, "the name server does not answer");
        int n = poll(p, 2, (int)((end_ns - now) / NS_PER_MS) + 1);
        if (p[1].revents)
            return err_set(e, RC_AGAIN, NULL, "stopped");
        if (n > 0 && p[0].revents)
            return RC_OK;
    }
}

static int connect_to(const struct dns_server *s, int type, struct err *e) {
    int fd = socket(s->addr.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && (connect(fd, (const struct sockaddr *)&s->addr, s->addr_len) == 0 || errno == EINPROGRESS))
        return fd;
    err_io(e, "the name server");
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ask_udp: the question is sent again while nothing comes. What is no answer to it is left unread. */
static enum rc ask_udp(const struct dns_server *s, const struct buf *question, unsigned type, uint16_t id,
                       int stop_fd, struct dns_answer *out, struct err *e) {
    char *answer = xmalloc(DNS_MESSAGE_BYTES_MAX);
    uint64_t end_ns = clock_ns() + DNS_WAIT_MS * NS_PER_MS, again_ns = 0;
    int fd = connect_to(s, SOCK_DGRAM, e);
    enum rc rc = fd < 0 ? RC_IO : RC_TIMEOUT;
    while (rc == RC_TIMEOUT && clock_ns() < end_ns) {
        if (clock_ns() >= again_ns) {
            (void)!send(fd, question->data, question->len, MSG_NOSIGNAL);
            again_ns = clock_ns() + RESEND_MS * NS_PER_MS;
        }
        rc = wait_for(fd, POLLIN, stop_fd, MIN(again_ns, end_ns), e);
        if (rc != RC_OK)
            continue;
        ssize_t n = recv(fd, answer, DNS_MESSAGE_BYTES_MAX, 0);
        rc = n < 0 ? err_io(e, "the name server") : dns_read((struct str){answer, (size_t)n}, type, id, out, e);
        if (rc == RC_PROTO)
            rc = RC_TIMEOUT;
    }
    if (fd >= 0)
        close(fd);
    free(answer);
    return rc;
}

/* transfer: n bytes in or out. */
static enum rc transfer(int fd, char *p, size_t n, bool out, int stop_fd, uint64_t end_ns, struct err *e) {
    for (size_t at = 0; at < n;) {
        enum rc rc = wait_for(fd, out ? POLLOUT : POLLIN, stop_fd, end_ns, e);
        if (rc != RC_OK)
            return rc;
        ssize_t k = out ? send(fd, p + at, n - at, MSG_NOSIGNAL) : recv(fd, p + at, n - at, 0);
        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
            return err_set(e, RC_IO, NULL, "the name server ended the connection");
        at += k > 0 ? (size_t)k : 0;
    }
    return RC_OK;
}

static enum rc ask_tcp(const struct dns_server *s, const struct buf *question, unsigned type, uint16_t id,
                       int stop_fd, struct dns_answer *out, struct err *e) {
    uint64_t end_ns = clock_ns() + DNS_WAIT_MS * NS_PER_MS;
    char *answer = xmalloc(DNS_MESSAGE_BYTES_MAX), length[2] = {(char)(question->len >> 8), (char)question->len};
    size_t n = 0;
    int fd = connect_to(s, SOCK_STREAM, e);
    enum rc rc = fd < 0 ? RC_IO : transfer(fd, length, 2, true, stop_fd, end_ns, e);
    if (rc == RC_OK)
        rc = transfer(fd, question->data, question->len, true, stop_fd, end_ns, e);
    if (rc == RC_OK)
        rc = transfer(fd, length, 2, false, stop_fd, end_ns, e);
    if (rc == RC_OK) {
        n = (size_t)(uint8_t)length[0] << 8 | (uint8_t)length[1];
        rc = transfer(fd, answer, n, false, stop_fd, end_ns, e);
    }
    if (rc == RC_OK)
        rc = dns_read((struct str){answer, n}, type, id, out, e);
    if (rc == RC_OK && out->truncated)
        rc = err_set(e, RC_PROTO, NULL, "the answer of the name server is cut short");
    if (fd >= 0)
        close(fd);
    free(answer);
    return rc;
}

enum rc dns_ask(const struct dns_server *server, const char *name, unsigned type, int stop_fd,
                struct dns_answer *out, struct err *e) {
    struct buf question = {0};
    uint16_t id;
    fill_random(&id, sizeof id);
    enum rc rc = dns_question(name, type, id, &question, e);
    if (rc == RC_OK)
        rc = ask_udp(server, &question, type, id, stop_fd, out, e);
    if (rc == RC_OK && out->truncated)
        rc = ask_tcp(server, &question, type, id, stop_fd, out, e);
    buf_fini(&question);
    return rc;
}
