#include "router/fleet/dns.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>

enum { LABEL_BYTES_MAX = 63, HEAD_BYTES = 12, OPT = 41, UDP_BYTES = 4096, CLASS_IN = 1, JUMPS_MAX = 64 };

/* ---- questions ----------------------------------------------------------------------------------------- */

static void add16(struct buf *b, unsigned v) {
    buf_addc(b, (char)(v >> 8));
    buf_addc(b, (char)v);
}

static bool add_name(struct buf *b, const char *name) {
    size_t n = strlen(name), at = 0;
    if (n && name[n - 1] == '.')
        n--;
    if (n == 0 || n > DNS_NAME_BYTES_MAX - 2)
        return false;
    while (at < n) {
        const char *dot = memchr(name + at, '.', n - at);
        size_t label = dot ? (size_t)(dot - name) - at : n - at;
        if (label == 0 || label > LABEL_BYTES_MAX)
            return false;
        buf_addc(b, (char)label);
        buf_add(b, name + at, label);
        at += label + 1;
    }
    buf_addc(b, 0);
    return true;
}

enum rc dns_question(const char *name, unsigned type, uint16_t id, struct buf *out, struct err *e) {
    const size_t was = out->len;
    add16(out, id);
    add16(out, 0x0100); /* a query that wants recursion */
    add16(out, 1);
    add16(out, 0);
    add16(out, 0);
    add16(out, 1);
    if (!add_name(out, name)) {
        out->len = was;
        return err_set(e, RC_INVALID, NULL, "'%.100s' is no domain name", name);
    }
    add16(out, type);
    add16(out, CLASS_IN);
    buf_addc(out, 0); /* EDNS (RFC 6891): answers of up to UDP_BYTES */
    add16(out, OPT);
    add16(out, UDP_BYTES);
    add16(out, 0);
    add16(out, 0);
    add16(out, 0);
    return RC_OK;
}

/* ---- answers ------------------------------------------------------------------------------------------- */

/* reader: `ok` falls, and stays down, with the first thing that is not there. */
struct reader {
    const uint8_t *p;
    size_t n, at;
    bool ok;
};

static unsigned take8(struct reader *r) {
    if (!r->ok || r->at >= r->n) {
        r->ok = false;
        return 0;
    }
    return r->p[r->at++];
}

static unsigned take16(struct reader *r) {
    unsigned hi = take8(r);
    return hi << 8 | take8(r);
}

static uint32_t take32(struct reader *r) {
    uint32_t hi = take16(r);
    return hi << 16 | take16(r);
}

/* take_name: pointers only go back, and no more often than JUMPS_MAX. out may be NULL. */
static void take_name(struct reader *r, char *out) {
    size_t n = 0, at = r->at, least = r->at;
    bool jumped = false;
    for (unsigned jumps = 0; r->ok;) {
        struct reader x = {r->p, r->n, at, true};
        unsigned c = take8(&x);
        if (!x.ok)
            break;
        at = x.at;
        if (!jumped)
            r->at = at;
        if (c == 0) {
            if (out)
                out[n ? n - 1 : 0] = '\0'; /* without its last dot */
            return;
        }
        if (c >= 0xc0) {
            unsigned low = take8(&x), to = (c & 0x3f) << 8 | low;
            if (!x.ok || to >= least || ++jumps > JUMPS_MAX)
                break;
            if (!jumped)
                r->at = x.at;
            jumped = true;
            at = least = to;
            continue;
        }
        if (c > LABEL_BYTES_MAX || c > r->n - at || n + c + 1 > DNS_NAME_BYTES_MAX)
            break;
        for (unsigned i = 0; i < c; i++) {
            unsigned char byte = r->p[at + i];
            if (!isalnum(byte) && byte != '-' && byte != '_')
                r->ok = false; /* no host has it in its name, and URLs give it a meaning */
            if (out)
                out[n + i] = (char)byte;
        }
        if (out)
            out[n + c] = '.';
        n += c + 1;
        at += c;
        if (!jumped)
            r->at = at;
    }
    r->ok = false;
}

/* take_record: one of the answer section, which counts if it is of the type that was asked for. */
static void take_record(struct reader *r, unsigned type, struct dns_answer *out) {
    struct dns_record rec = {.port = 0};
    take_name(r, NULL);
    unsigned t = take16(r), class = take16(r);
    uint32_t ttl = take32(r);
    size_t n = take16(r), end = r->at + n;
    if (!r->ok || n > r->n - r->at) {
        r->ok = false;
        return;
    }
    if (t == type && class == CLASS_IN && out->n < DNS_RECORDS_MAX) {
        if (type == DNS_SRV) {
            (void)take32(r); /* priority and weight: every worker counts */
            rec.port = (uint16_t)take16(r);
            take_name(r, rec.name);
            r->ok = r->ok && r->at <= end;
        } else {
            r->ok = n == (type == DNS_A ? 4 : 16) &&
                    inet_ntop(type == DNS_A ? AF_INET : AF_INET6, r->p + r->at, rec.name, sizeof rec.name);
        }
        out->ttl_s = out->n ? MIN(out->ttl_s, ttl) : ttl;
        out->v[out->n++] = rec;
    }
    r->at = end;
}

enum rc dns_read(struct str message, unsigned type, uint16_t id, struct dns_answer *out, struct err *e) {
    struct reader r = {(const uint8_t *)message.p, message.n, 0, true};
    *out = (struct dns_answer){.n = 0};
    unsigned got_id = take16(&r), flags = take16(&r), n_questions = take16(&r), n_answers = take16(&r);
    (void)take32(&r);
    if (!r.ok || got_id != id || !(flags & 0x8000) || n_questions > 1)
        return err_set(e, RC_PROTO, NULL, "no answer to the question");
    out->rcode = flags & 15;
    if (out->rcode != 0 && out->rcode != 3)
        return err_set(e, RC_IO, NULL, "the name server says code %u", out->rcode);
    out->truncated = flags & 0x0200;
    for (unsigned i = 0; i < n_questions; i++) {
        take_name(&r, NULL);
        (void)take32(&r);
    }
    /* What was cut off is asked for again; what is left here may end anywhere. */
    for (unsigned i = 0; i < n_answers && r.ok && !out->truncated; i++)
        take_record(&r, type, out);
    if (!r.ok)
        return err_set(e, RC_PROTO, NULL, "the answer of the name server is broken");
    return RC_OK;
}
