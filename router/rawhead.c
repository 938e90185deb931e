#include "router/rawhead.h"

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool name_is(const char *p, size_t n, struct str want) {
    if (n != want.n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (lower(p[i]) != want.p[i])
            return false;
    }
    return true;
}

static struct str trim(const char *p, size_t n) {
    while (n && (*p == ' ' || *p == '\t'))
        p++, n--;
    while (n && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r'))
        n--;
    return (struct str){p, n};
}

/* header_line: counts one header; returns whether it is one of the three that must not be folded. */
static bool header_line(struct rawhead *h, const char *p, size_t n) {
    const char *colon = memchr(p, ':', n);
    if (!colon)
        return false;
    struct str name = trim(p, (size_t)(colon - p));
    if (name_is(name.p, name.n, STR_LIT("content-length"))) {
        h->n_content_length++;
        return true;
    }
    if (name_is(name.p, name.n, STR_LIT("transfer-encoding"))) {
        h->n_transfer_encoding++;
        return true;
    }
    if (name_is(name.p, name.n, STR_LIT("host"))) {
        h->n_host++;
        h->host = trim(colon + 1, n - (size_t)(colon + 1 - p));
        return true;
    }
    return false;
}

bool rawhead_scan(const char *p, size_t n, struct rawhead *out) {
    struct rawhead h = {0};
    bool in_headers = false, guarded = false;
    size_t at = 0;
    while (at < n) {
        const char *line = p + at;
        const char *nl = memchr(line, '\n', n - at);
        if (!nl)
            return false;
        size_t len = (size_t)(nl - line);
        at += len + 1;
        if (len && line[len - 1] == '\r')
            len--;
        if (len == 0) {
            if (!in_headers)
                continue;
            h.bytes = at;
            *out = h;
            return true;
        }
        if (!in_headers) {
            in_headers = true; /* this was the request line */
        } else if (*line == ' ' || *line == '\t') {
            h.folded |= guarded;
        } else {
            h.n_headers++;
            guarded = header_line(&h, line, len);
        }
    }
    return false;
}

static bool host_valid(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        char c = lower(s.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == ':' || c == '_' ||
              c == '-' || c == '[' || c == ']'))
            return false;
    }
    return true;
}

enum rawhead_fault rawhead_check(const struct rawhead *h, size_t header_bytes_max, size_t n_headers_max) {
    if (h->bytes > header_bytes_max)
        return RAWHEAD_TOO_LARGE;
    if (h->n_headers > n_headers_max)
        return RAWHEAD_TOO_MANY;
    if (h->folded)
        return RAWHEAD_FOLDED;
    if (h->n_transfer_encoding > 1 || (h->n_transfer_encoding && h->n_content_length))
        return RAWHEAD_LENGTH_AND_TE;
    if (h->n_content_length > 1)
        return RAWHEAD_LENGTH_REPEATED;
    if (h->n_host > 1 || !host_valid(h->host))
        return RAWHEAD_HOST;
    return RAWHEAD_OK;
}
