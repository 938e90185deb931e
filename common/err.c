#include "common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* cut_utf8: shortens a string that vsnprintf may have cut inside a character. */
static void cut_utf8(char *s) {
    size_t n = strlen(s), i = n;
    while (i > 0 && n - i < 3 && ((unsigned char)s[i - 1] & 0xC0) == 0x80)
        i--;
    if (i == 0)
        return;
    unsigned char lead = (unsigned char)s[i - 1];
    size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (need > n - (i - 1))
        s[i - 1] = 0;
}

enum rc err_set(struct err *e, enum rc rc, const char *param, const char *fmt, ...) {
    if (!e)
        return rc;
    e->rc = rc;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    cut_utf8(e->param);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    cut_utf8(e->msg);
    return rc;
}

enum rc err_io(struct err *e, const char *what) {
    int saved = errno;
    return err_set(e, RC_IO, NULL, "%s: %s", what, strerror(saved));
}

const char *rc_name(enum rc rc) {
    static const char *const names[N_RC] = {
        [RC_OK] = "ok",
        [RC_INVALID] = "invalid",
        [RC_UNAUTHORIZED] = "unauthorized",
        [RC_NOT_FOUND] = "not_found",
        [RC_METHOD] = "method",
        [RC_TOO_LARGE] = "too_large",
        [RC_UNFETCHABLE] = "unfetchable",
        [RC_OVERLOAD] = "overload",
        [RC_HEADERS] = "headers",
        [RC_INTERNAL] = "internal",
        [RC_UNSUPPORTED] = "unsupported",
        [RC_UNAVAILABLE] = "unavailable",
        [RC_TIMEOUT] = "timeout",
        [RC_AGAIN] = "again",
        [RC_CLOSED] = "closed",
        [RC_IO] = "io",
        [RC_PROTO] = "proto",
    };
    CHECK(rc < N_RC);
    return names[rc];
}
