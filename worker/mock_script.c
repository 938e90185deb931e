#include "worker/mock_script.h"

#include <math.h>
#include <stdlib.h>

static const struct {
    const char *name;
    enum { ARG_NONE = 0, ARG_MAY, ARG_MUST } arg;
} kinds[N_MOCK_FAULT] = {[MOCK_DIE] = {"die", ARG_NONE},         [MOCK_STOP] = {"stop", ARG_NONE},
                         [MOCK_FREEZE] = {"freeze", ARG_MAY},    [MOCK_GARBAGE] = {"garbage", ARG_NONE},
                         [MOCK_SLOW] = {"slow", ARG_MUST},       [MOCK_REFUSE] = {"refuse", ARG_MAY}};

enum { TOKEN_DIGITS_MAX = 18, ARG_BYTES_MAX = 24 };

/* read_number: digits, and with `fraction` a point among them. False: that is not all of s. */
static bool read_number(struct str s, bool fraction, double *out) {
    char text[ARG_BYTES_MAX + 1];
    bool point = !fraction;
    if (s.n == 0 || s.n > ARG_BYTES_MAX || s.p[0] == '.')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' && !point)
            point = true;
        else if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    *out = strtod(text, NULL);
    return isfinite(*out) && *out <= 1e9;
}

static bool read_fault(struct str s, struct mock_fault *out) {
    const char *at = memchr(s.p, '@', s.n);
    if (!at)
        return false;
    struct str name = {s.p, (size_t)(at - s.p)}, token = {at + 1, s.n - name.n - 1}, arg = {0};
    const char *colon = memchr(token.p, ':', token.n);
    if (colon) {
        arg = (struct str){colon + 1, token.n - (size_t)(colon - token.p) - 1};
        token.n = (size_t)(colon - token.p);
    }
    double number;
    if (token.n > TOKEN_DIGITS_MAX || !read_number(token, false, &number))
        return false;
    *out = (struct mock_fault){.kind = N_MOCK_FAULT, .token = (uint64_t)number, .arg = -1};
    for (int k = 0; k < N_MOCK_FAULT; k++)
        if (str_eqz(name, kinds[k].name))
            out->kind = (enum mock_fault_kind)k;
    if (out->kind == N_MOCK_FAULT || (colon ? kinds[out->kind].arg == ARG_NONE : kinds[out->kind].arg == ARG_MUST))
        return false;
    return !colon || read_number(arg, true, &out->arg);
}

enum rc mock_script_parse(const char *text, struct mock_script *out, struct err *e) {
    struct mock_script s = {.n = 0};
    struct str rest = str_of(text);
    while (rest.n) {
        const char *comma = memchr(rest.p, ',', rest.n);
        struct str piece = {rest.p, comma ? (size_t)(comma - rest.p) : rest.n};
        if (s.n == MOCK_FAULTS_MAX)
            return err_set(e, RC_INVALID, "mock-faults", "--mock-faults: more than %d faults", MOCK_FAULTS_MAX);
        if (!read_fault(piece, &s.fault[s.n]))
            return err_set(e, RC_INVALID, "mock-faults",
                           "--mock-faults: '%.*s' is no fault: die@K, stop@K, freeze@K[:SECONDS], garbage@K, "
                           "slow@K:MS or refuse@K[:N]",
                           (int)MIN(piece.n, 60), piece.p);
        s.n++;
        rest = comma ? (struct str){comma + 1, rest.n - piece.n - 1} : (struct str){0};
        if (comma && !rest.n)
            return err_set(e, RC_INVALID, "mock-faults", "--mock-faults: nothing behind the last comma");
    }
    *out = s;
    return RC_OK;
}
