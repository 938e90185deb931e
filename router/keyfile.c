#include "router/keyfile.h"

bool keyfile_is_key(struct str s) {
    if (s.n == 0 || s.n > KEYFILE_KEY_BYTES_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x21 || s.p[i] > 0x7e)
            return false;
    }
    return true;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

/* next_word: takes it from the front of *rest; empty: there is none. */
static struct str next_word(struct str *rest) {
    size_t at = 0, end;
    while (at < rest->n && is_blank(rest->p[at]))
        at++;
    for (end = at; end < rest->n && !is_blank(rest->p[end]);)
        end++;
    struct str word = {rest->p + at, end - at};
    *rest = (struct str){rest->p + end, rest->n - end};
    return word;
}

/* limit: of "rpm=N". */
static bool limit(struct str word, const char *name, uint32_t *out) {
    size_t n_name = strlen(name);
    uint64_t n = 0;
    if (word.n <= n_name || memcmp(word.p, name, n_name) || *out)
        return false;
    for (size_t i = n_name; i < word.n; i++) {
        if (word.p[i] < '0' || word.p[i] > '9' || n > QUOTA_MAX)
            return false;
        n = n * 10 + (uint64_t)(word.p[i] - '0');
    }
    *out = (uint32_t)MIN(n, (uint64_t)QUOTA_MAX + 1);
    return n >= 1 && n <= QUOTA_MAX;
}

enum rc keyfile_line(struct str line, struct str *key, struct quota_limits *limits, struct err *e) {
    struct quota_limits l = {0, 0};
    struct str rest = line, word = next_word(&rest), first = word;
    if (word.n == 0 || *word.p == '#') {
        *key = (struct str){line.p, 0};
        *limits = l;
        return RC_OK;
    }
    if (!keyfile_is_key(word))
        return err_set(e, RC_INVALID, "api-key-file",
                       "a key is 1 to %d printable ASCII characters without blanks", KEYFILE_KEY_BYTES_MAX);
    while ((word = next_word(&rest)).n) {
        if (!limit(word, "rpm=", &l.requests) && !limit(word, "tpm=", &l.tokens))
            return err_set(e, RC_INVALID, "api-key-file",
                           "behind a key come rpm=N and tpm=N alone, each once, N from 1 to %u", QUOTA_MAX);
    }
    *key = first;
    *limits = l;
    return RC_OK;
}
