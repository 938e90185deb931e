/* conf.h: flags from the command line, a file and the environment (api.md 22.1).
 *
 * One table of flags per program, as data: parsing, --help, the closest-name hint and the
 * effective-configuration line all come from it. Dashes and underscores are interchangeable; `--flag value`
 * and `--flag=value`; booleans have `--no-` forms; --config FILE reads a flat YAML or JSON mapping, which the
 * command line overrides; JSON flags accept `--x.y value`.
 */
#ifndef WEIR_COMMON_CONF_H
#define WEIR_COMMON_CONF_H

#include "common/buf.h"
#include "common/err.h"

enum conf_kind {
    CONF_BOOL,    /* bool */
    CONF_INT,     /* int64_t; min, max */
    CONF_SIZE,    /* uint64_t; suffixes k m g (1000) and K M G, KiB MiB GiB (1024) */
    CONF_FLOAT,   /* double; min, max */
    CONF_STR,     /* char *, heap */
    CONF_LIST,    /* struct conf_list: several values after one flag, or the flag repeated */
    CONF_JSON,    /* char *, heap: JSON text, checked */
    CONF_ENUM,    /* char *, heap: one of `choices`, "a|b|c" */
    CONF_IGNORED, /* accepted, no place; one warning naming the flag and `help` as the reason */
    CONF_REFUSED, /* exit status 2 with `help` as the reason; --no-NAME, and a value in `choices`, pass */
};
struct conf_list {
    char **v;
    size_t n;
};
enum {
    CONF_SECRET = 1 /* not shown in the configuration line */,
    CONF_VALUE_OPTIONAL = 2 /* IGNORED, REFUSED: a value may follow */
};

struct conf_flag {
    const char *name;    /* without dashes: "max-model-len" */
    const char *synonym; /* "-tp", "h11-max-header-count"; NULL for none */
    enum conf_kind kind;
    unsigned flags;
    size_t offset;   /* of the place in the options struct */
    const char *env; /* environment variable read if the flag is absent, or NULL */
    double min, max; /* INT, FLOAT, SIZE; both 0: no bounds */
    /* ENUM: the values there are. IGNORED: the values accepted, NULL for all. REFUSED: those that ask for
     * what is so anyway. */
    const char *choices;
    const char *help;
    enum conf_kind value; /* IGNORED, REFUSED: the kind of its value; BOOL: it has none */
};
struct conf_table {
    const char *usage; /* "weir serve MODEL [flags]" */
    const struct conf_flag *flags;
    size_t n_flags;
    size_t n_positional_max;
};

/* conf_parse: fills opts, which holds the defaults (heap strings or NULL). Positionals go to *positional.
 * RC_INVALID: the message is one line for people, with the closest known flag; the program exits with 2.
 * --help and --version are the caller's: conf_has looks for them. */
MUST_USE enum rc conf_parse(const struct conf_table *t, int argc, char **argv, void *opts,
                            struct conf_list *positional, struct err *e);
/* conf_free: frees what the table's places hold. */
void conf_free(const struct conf_table *t, void *opts, struct conf_list *positional);
/* conf_has: whether flag stands on the line: "help" or "--help" for --help, "-h" for -h. */
bool conf_has(int argc, char **argv, const char *flag);
void conf_help(const struct conf_table *t, struct buf *out);
/* conf_show: "flag=value ..." of everything that differs from zero, without secrets; for the log. */
void conf_show(const struct conf_table *t, const void *opts, struct buf *out);

#endif
