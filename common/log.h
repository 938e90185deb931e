/* log.h: one structured line per event on standard error.
 *
 *   2026-01-31T12:00:00.123Z info  worker ready model=tiny seconds=0.21
 *
 * Values that need it are quoted, control characters and invalid UTF-8 escaped: a client's text can never
 * forge a line. Any thread; a line is one write. Never log keys, salts, transfer ids, prompts or outputs.
 */
#ifndef WEIR_COMMON_LOG_H
#define WEIR_COMMON_LOG_H

#include "common/base.h"

enum log_level { LOG_DEBUG = 0, LOG_INFO, LOG_WARN, LOG_ERROR, N_LOG_LEVEL };

void log_set_level(enum log_level level);
/* log_set_name: the word before the message ("router", "worker"); a literal. */
void log_set_name(const char *name);
bool log_on(enum log_level level);
/* log_parse_level: false if the word is none of debug, info, warning (warn), error. */
bool log_parse_level(const char *word, enum log_level *out);

/* log_line: message, then fields as key=value, built with the LOG_* macros:
 *   LOG(LOG_INFO, "worker ready", F_STR("model", name), F_F64("seconds", s)); */
struct log_field {
    const char *key;
    enum { LOG_STR, LOG_I64, LOG_U64, LOG_F64, LOG_HEX } kind;
    struct str s;
    int64_t i;
    uint64_t u;
    double f;
};
void log_line(enum log_level level, const char *message, const struct log_field *fields, size_t n);

#define F_STR(k, v)                                                                                          \
    { .key = (k), .kind = LOG_STR, .s = str_of(v) }
#define F_BYTES(k, ptr, len)                                                                                 \
    {                                                                                                        \
        .key = (k), .kind = LOG_STR, .s = {(ptr), (len) }                                                    \
    }
#define F_I64(k, v)                                                                                          \
    { .key = (k), .kind = LOG_I64, .i = (v) }
#define F_U64(k, v)                                                                                          \
    { .key = (k), .kind = LOG_U64, .u = (v) }
#define F_F64(k, v)                                                                                          \
    { .key = (k), .kind = LOG_F64, .f = (v) }
#define F_ID(k, id)                                                                                          \
    {                                                                                                        \
        .key = (k), .kind = LOG_HEX, .s = {(const char *)(id).b, sizeof(id).b }                              \
    }
#define LOG(level, message, ...)                                                                             \
    do {                                                                                                     \
        if (log_on(level)) {                                                                                 \
            const struct log_field log_fields_[] = {{.key = NULL}, ##__VA_ARGS__};                           \
            log_line(level, message, log_fields_ + 1, ARRAY_LEN(log_fields_) - 1);                           \
        }                                                                                                    \
    } while (0)

#endif
