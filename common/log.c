#include "common/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_min = LOG_INFO;
static const char *_Atomic log_name = "weir";

void log_set_level(enum log_level level) {
    atomic_store(&log_min, (int)level);
}

void log_set_name(const char *name) {
    atomic_store(&log_name, name);
}

bool log_on(enum log_level level) {
    return (int)level >= atomic_load_explicit(&log_min, memory_order_relaxed);
}

bool log_parse_level(const char *word, enum log_level *out) {
    static const struct {
        const char *word;
        enum log_level level;
    } words[] = {{"debug", LOG_DEBUG},
                 {"info", LOG_INFO},
                 {"warning", LOG_WARN},
                 {"warn", LOG_WARN},
                 {"error", LOG_ERROR}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(word, words[i].word)) {
            *out = words[i].level;
            return true;
        }
    return false;
}

/* line: a fixed place, so that logging allocates nothing; text beyond it is cut. */
struct line {
    char data[2048];
    size_t n;
};
enum { LINE_ROOM = 2040 };

static void put(struct line *l, const char *s, size_t n) {
    size_t room = LINE_ROOM - l->n;
    n = MIN(n, room);
    memcpy(l->data + l->n, s, n);
    l->n += n;
}

static bool is_plain(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || (unsigned char)s.p[i] >= 0x7F || s.p[i] == '"' || s.p[i] == '=' ||
            s.p[i] == '\\')
            return false;
    return s.n > 0;
}

/* put_quoted: bytes outside printable ASCII as \xNN; a value is cut at 512 bytes. */
static void put_quoted(struct line *l, struct str s) {
    put(l, "\"", 1);
    for (size_t i = 0; i < MIN(s.n, (size_t)512); i++) {
        unsigned char c = (unsigned char)s.p[i];
        char esc[8];
        if (c == '"' || c == '\\')
            put(l, esc, (size_t)snprintf(esc, sizeof esc, "\\%c", c));
        else if (c < ' ' || c >= 0x7F)
            put(l, esc, (size_t)snprintf(esc, sizeof esc, "\\x%02x", c));
        else
            put(l, s.p + i, 1);
    }
    put(l, s.n > 512 ? "\"..." : "\"", s.n > 512 ? 4 : 1);
}

static void put_field(struct line *l, const struct log_field *f) {
    char num[40];
    put(l, " ", 1);
    put(l, f->key, strlen(f->key));
    put(l, "=", 1);
    switch (f->kind) {
    case LOG_STR:
        if (is_plain(f->s) && f->s.n <= 512)
            put(l, f->s.p, f->s.n);
        else
            put_quoted(l, f->s);
        break;
    case LOG_I64:
        put(l, num, (size_t)snprintf(num, sizeof num, "%lld", (long long)f->i));
        break;
    case LOG_U64:
        put(l, num, (size_t)snprintf(num, sizeof num, "%llu", (unsigned long long)f->u));
        break;
    case LOG_F64:
        put(l, num, (size_t)snprintf(num, sizeof num, "%.6g", f->f));
        break;
    case LOG_HEX:
        for (size_t i = 0; i < f->s.n; i++)
            put(l, num, (size_t)snprintf(num, sizeof num, "%02x", (unsigned char)f->s.p[i]));
        break;
    }
}

void log_line(enum log_level level, const char *message, const struct log_field *fields, size_t n) {
    static const char *const words[N_LOG_LEVEL] = {"debug", "info", "warn", "error"};
    struct line l;
    struct timespec t;
    struct tm tm;
    char head[96];
    l.n = 0;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    int len = snprintf(head, sizeof head, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %-5s %s ", tm.tm_year + 1900,
                       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                       (int)(t.tv_nsec / 1000000), words[level], atomic_load(&log_name));
    put(&l, head, MIN((size_t)len, sizeof head - 1));
    put(&l, message, strlen(message));
    for (size_t i = 0; i < n; i++)
        put_field(&l, &fields[i]);
    l.data[l.n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, l.data, l.n);
    (void)ignored;
}
