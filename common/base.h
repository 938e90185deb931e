/* base.h: what every file of Weir may assume.
 *
 * Checks, attributes, slices and allocation. No state, no threads, no dependencies beyond libc.
 */
#ifndef WEIR_COMMON_BASE_H
#define WEIR_COMMON_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED __attribute__((unused))
#define NORETURN __attribute__((noreturn))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* CHECK: an invariant that only a programmer's mistake can break. Always on; prints and aborts. */
#define CHECK(cond) (LIKELY(cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))
NORETURN void check_failed(const char *cond, const char *file, int line);

/* str: a borrowed slice of bytes, not NUL-terminated. {NULL, 0} is the empty slice. */
struct str {
    const char *p;
    size_t n;
};
#define STR_LIT(s) ((struct str){"" s, sizeof(s) - 1})
static inline struct str str_of(const char *z) {
    return (struct str){z, z ? strlen(z) : 0};
}
static inline bool str_eq(struct str a, struct str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_eqz(struct str a, const char *z) {
    return str_eq(a, str_of(z));
}
static inline bool str_starts(struct str s, struct str prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* id128: an internal request id, a transfer id, a process id or a block hash. All zero means none. */
struct id128 {
    uint8_t b[16];
};
static inline bool id128_eq(struct id128 a, struct id128 b) {
    return memcmp(a.b, b.b, sizeof a.b) == 0;
}

/* Allocation of sizes that are bounded by a limit checked beforehand: they succeed or end the
 * process with one line. xreallocarray checks the product for overflow. Free with free(). */
void *xmalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t n) __attribute__((returns_nonnull));
void *xreallocarray(void *p, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));

/* fill_random: n bytes from the operating system's generator. Ends the process if there is none. */
void fill_random(void *p, size_t n);

#endif
