#include "router/client/sse.h"

void sse_fini(struct sse *s) {
    buf_fini(&s->line);
    buf_fini(&s->data);
}

static enum rc too_large(struct err *e) {
    return err_set(e, RC_TOO_LARGE, NULL, "the server sent an event of more than %d bytes",
                   SSE_EVENT_BYTES_MAX);
}

/* on_line: one field; comments, and fields that are not wanted, are nothing. */
static enum rc on_line(struct sse *s, struct str l, struct err *e) {
    if (!s->begun && l.n >= 3 && !memcmp(l.p, "\xef\xbb\xbf", 3))
        l = (struct str){l.p + 3, l.n - 3};
    s->begun = true;
    if (l.n < 4 || memcmp(l.p, "data", 4) || (l.n > 4 && l.p[4] != ':'))
        return RC_OK;
    size_t skip = l.n > 5 && l.p[5] == ' ' ? 6 : MIN(l.n, (size_t)5);
    if (s->data.len + l.n - skip + 1 > SSE_EVENT_BYTES_MAX)
        return too_large(e);
    if (s->has_data)
        buf_addc(&s->data, '\n');
    buf_add(&s->data, l.p + skip, l.n - skip);
    s->has_data = true;
    return RC_OK;
}

enum rc sse_read(struct sse *s, struct str *in, bool *event, struct str *data, struct err *e) {
    *event = false;
    if (s->given) {
        s->data.len = 0;
        s->given = s->has_data = false;
    }
    while (in->n && !*event) {
        if (s->after_cr && in->p[0] == '\n') { /* the second half of the line's end */
            in->p++;
            in->n--;
        }
        s->after_cr = false;
        size_t n = 0;
        while (n < in->n && in->p[n] != '\n' && in->p[n] != '\r')
            n++;
        if (s->line.len + n > SSE_EVENT_BYTES_MAX)
            return too_large(e);
        buf_add(&s->line, in->p, n);
        bool complete = n < in->n;
        s->after_cr = complete && in->p[n] == '\r';
        in->p += n + complete;
        in->n -= n + complete;
        if (!complete)
            break;
        if (s->line.len) {
            enum rc rc = on_line(s, buf_str(&s->line), e);
            s->line.len = 0;
            if (rc)
                return rc;
        } else {
            s->begun = true;
            *event = s->given = s->has_data;
        }
    }
    if (*event)
        *data = buf_str(&s->data);
    return RC_OK;
}
