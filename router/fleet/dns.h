/* dns.h: questions to a name server, and its answers: as much of RFC 1035 and RFC 2782 as finding workers takes.
 *
 * Messages are pure text work; dns_ask sends one over UDP, and over TCP if the answer is too long for that, and
 * waits, but no longer than DNS_WAIT_MS and not once stop_fd is readable.
 */
#ifndef WEIR_ROUTER_FLEET_DNS_H
#define WEIR_ROUTER_FLEET_DNS_H

#include <sys/socket.h>

#include "common/buf.h"
#include "common/err.h"

enum { DNS_A = 1, DNS_AAAA = 28, DNS_SRV = 33 };
enum { DNS_RECORDS_MAX = 256, DNS_NAME_BYTES_MAX = 255, DNS_MESSAGE_BYTES_MAX = 65535, DNS_WAIT_MS = 2000 };

struct dns_record {
    char name[DNS_NAME_BYTES_MAX + 1]; /* SRV: the target; else the address as text */
    uint16_t port;                     /* SRV */
};
struct dns_answer {
    struct dns_record v[DNS_RECORDS_MAX];
    size_t n;        /* more are left out */
    uint32_t ttl_s;  /* the least of theirs; 0 without any */
    bool truncated;  /* there is more: ask by TCP */
    unsigned rcode;  /* 0, or 3: there is no such name (n is 0) */
};

/* dns_question: appends a query. RC_INVALID: name is no domain name. */
MUST_USE enum rc dns_question(const char *name, unsigned type, uint16_t id, struct buf *out, struct err *e);
/* dns_read: the answer to such a question. RC_PROTO: it is none, or broken. RC_IO: the server could not say. */
MUST_USE enum rc dns_read(struct str message, unsigned type, uint16_t id, struct dns_answer *out, struct err *e);

struct dns_server {
    struct sockaddr_storage addr;
    socklen_t addr_len;
};
/* dns_server_read: "ADDRESS", "ADDRESS:PORT", "[V6]:PORT". */
MUST_USE enum rc dns_server_read(const char *text, struct dns_server *out, struct err *e);
/* dns_server_system: the first of /etc/resolv.conf. */
MUST_USE enum rc dns_server_system(struct dns_server *out, struct err *e);
/* dns_ask: RC_TIMEOUT, RC_AGAIN (stop_fd), RC_IO, or as dns_read. */
MUST_USE enum rc dns_ask(const struct dns_server *server, const char *name, unsigned type, int stop_fd,
                         struct dns_answer *out, struct err *e);

#endif
