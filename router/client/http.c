#include "router/client/http.h"

#include <strings.h>

enum {
    ST_STATUS, /* the states in which lines are read come first */
    ST_HEADER,
    ST_CHUNK_SIZE,
    ST_CHUNK_END, /* the line end behind a chunk's bytes */
    ST_TRAILER,
    ST_LENGTH, /* a body of `left` bytes */
    ST_CHUNK,
    ST_UNTIL_END, /* a body that ends with the connection */
    ST_DONE
};

void http_resp_init(struct http_resp *r) {
    *r = (struct http_resp){0};
}

void http_resp_fini(struct http_resp *r) {
    buf_fini(&r->line);
}

static enum rc broken(struct err *e, const char *what) {
    return err_set(e, RC_PROTO, NULL, "the server's answer is not valid HTTP/1.1: %s", what);
}

/* take_line: moves bytes to r->line; *complete if its end was among them, without which the line stands. */
static enum rc take_line(struct http_resp *r, struct str *in, bool *complete, struct err *e) {
    const char *end = memchr(in->p, '\n', in->n);
    size_t n = end ? (size_t)(end - in->p) : in->n;
    if (r->line.len + n > HTTP_LINE_BYTES_MAX)
        return broken(e, "a line is too long");
    buf_add(&r->line, in->p, n);
    n += end != NULL;
    in->p += n;
    in->n -= n;
    *complete = end != NULL;
    if (!end)
        return RC_OK;
    if (r->line.len && r->line.data[r->line.len - 1] == '\r')
        r->line.len--;
    for (size_t i = 0; i < r->line.len; i++) {
        unsigned char c = (unsigned char)r->line.data[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return broken(e, "a line holds control characters");
    }
    return RC_OK;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* on_status: "HTTP/1.1 200 OK"; the words may be missing, as may the blank before them. */
static enum rc on_status(struct http_resp *r, struct str l, struct err *e) {
    if (l.n < 12 || memcmp(l.p, "HTTP/1.", 7) || (l.p[7] != '0' && l.p[7] != '1') || l.p[8] != ' ' ||
        !is_digit(l.p[9]) || !is_digit(l.p[10]) || !is_digit(l.p[11]) || (l.n > 12 && l.p[12] != ' '))
        return broken(e, "no status line");
    r->line_status = (l.p[9] - '0') * 100 + (l.p[10] - '0') * 10 + (l.p[11] - '0');
    if (r->line_status < 100 || r->line_status == 101 || r->line_status > 599)
        return broken(e, "its status is none that a request can have");
    if (r->line_status < 200 && ++r->n_interim > HTTP_INTERIM_MAX)
        return broken(e, "too many interim responses");
    r->state = ST_HEADER;
    r->n_headers = 0;
    return RC_OK;
}

static bool is_name(struct str s, const char *name) {
    return s.n == strlen(name) && !strncasecmp(s.p, name, s.n);
}

static struct str trim(struct str s) {
    for (; s.n && (s.p[0] == ' ' || s.p[0] == '\t'); s.n--)
        s.p++;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* on_length: digits only; equal repetitions are one length. */
static enum rc on_length(struct http_resp *r, struct str v, struct err *e) {
    uint64_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (!is_digit(v.p[i]) || i >= 18)
            return broken(e, "Content-Length is no number of bytes");
        n = n * 10 + (uint64_t)(v.p[i] - '0');
    }
    if (!v.n || (r->has_length && r->left != n))
        return broken(e, v.n ? "two lengths that differ" : "an empty Content-Length");
    r->has_length = true;
    r->left = n;
    return RC_OK;
}

static bool is_event_stream(struct str v) {
    static const char type[] = "text/event-stream";
    size_t n = sizeof type - 1;
    return v.n >= n && !strncasecmp(v.p, type, n) && (v.n == n || v.p[n] == ';' || v.p[n] == ' ');
}

static enum rc on_header(struct http_resp *r, struct str l, struct err *e) {
    const char *colon = memchr(l.p, ':', l.n);
    if (!colon || colon == l.p || l.p[0] == ' ' || l.p[0] == '\t' || colon[-1] == ' ' || colon[-1] == '\t')
        return broken(e, "a header without a name");
    struct str name = {l.p, (size_t)(colon - l.p)};
    struct str v = trim((struct str){colon + 1, l.n - name.n - 1});
    if (is_name(name, "content-length"))
        return on_length(r, v, e);
    if (is_name(name, "transfer-encoding")) {
        if (!is_name(v, "chunked") || r->chunked)
            return err_set(e, RC_PROTO, NULL, "the server's transfer coding \"%.*s\" is not supported",
                           (int)MIN(v.n, (size_t)64), v.p);
        r->chunked = true;
    } else if (is_name(name, "content-encoding") && !is_name(v, "identity")) {
        return err_set(e, RC_PROTO, NULL,
                       "the server sent a content coding, \"%.*s\", that was not asked for",
                       (int)MIN(v.n, (size_t)64), v.p);
    } else if (is_name(name, "content-type")) {
        r->event_stream = is_event_stream(v);
    }
    return RC_OK;
}

static void set_done(struct http_resp *r) {
    r->state = ST_DONE;
    r->done = true;
}

/* on_head_end: decides how the body is delimited (RFC 9112, 6.3). */
static enum rc on_head_end(struct http_resp *r, struct err *e) {
    if (r->chunked && r->has_length)
        return broken(e, "both a length and a transfer coding");
    if (r->line_status < 200) { /* the final one follows */
        r->chunked = r->has_length = r->event_stream = false;
        r->left = 0;
        r->state = ST_STATUS;
        return RC_OK;
    }
    r->status = r->line_status;
    if (r->status == 204 || r->status == 304 || (r->has_length && !r->left))
        set_done(r);
    else
        r->state = r->chunked ? ST_CHUNK_SIZE : r->has_length ? ST_LENGTH : ST_UNTIL_END;
    return RC_OK;
}

static int hex(char c) {
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static enum rc on_chunk_size(struct http_resp *r, struct str l, struct err *e) {
    size_t i = 0;
    r->left = 0;
    for (; i < l.n && hex(l.p[i]) >= 0; i++) {
        if (i >= 15)
            return broken(e, "a chunk's size is too large");
        r->left = r->left * 16 + (uint64_t)hex(l.p[i]);
    }
    if (!i || (i < l.n && l.p[i] != ';' && l.p[i] != ' ' && l.p[i] != '\t'))
        return broken(e, "a chunk without a size");
    r->state = r->left ? ST_CHUNK : ST_TRAILER;
    return RC_OK;
}

static enum rc on_line(struct http_resp *r, struct err *e) {
    struct str l = buf_str(&r->line);
    switch (r->state) {
    case ST_STATUS:
        return on_status(r, l, e);
    case ST_CHUNK_SIZE:
        return on_chunk_size(r, l, e);
    case ST_CHUNK_END:
        r->state = ST_CHUNK_SIZE;
        return l.n ? broken(e, "a chunk is longer than its size") : RC_OK;
    default:
        break;
    }
    if (l.n && ++r->n_headers > HTTP_HEADERS_MAX)
        return broken(e, "too many headers");
    if (r->state == ST_HEADER)
        return l.n ? on_header(r, l, e) : on_head_end(r, e);
    if (!l.n) /* trailers say nothing that is wanted here */
        set_done(r);
    return RC_OK;
}

/* take_body: a slice of the body. */
static struct str take_body(struct http_resp *r, struct str *in) {
    struct str body = {in->p, in->n};
    if (r->state != ST_UNTIL_END) {
        body.n = (size_t)MIN((uint64_t)in->n, r->left);
        r->left -= body.n;
        if (!r->left && r->state == ST_LENGTH)
            set_done(r);
        else if (!r->left)
            r->state = ST_CHUNK_END;
    }
    in->p += body.n;
    in->n -= body.n;
    return body;
}

enum rc http_resp_read(struct http_resp *r, struct str *in, struct str *body, struct err *e) {
    *body = (struct str){0};
    while (in->n && !r->done) {
        bool complete = false;
        if (r->state > ST_TRAILER) {
            *body = take_body(r, in);
            return RC_OK;
        }
        enum rc rc = take_line(r, in, &complete, e);
        if (!rc && complete) {
            rc = on_line(r, e);
            r->line.len = 0;
        }
        if (rc)
            return rc;
    }
    return RC_OK;
}

enum rc http_resp_eof(struct http_resp *r, struct err *e) {
    if (r->state == ST_UNTIL_END)
        set_done(r);
    if (r->done)
        return RC_OK;
    return err_set(e, RC_CLOSED, NULL, "the server closed the connection %s",
                   r->status ? "in the middle of its answer" : "without an answer");
}
