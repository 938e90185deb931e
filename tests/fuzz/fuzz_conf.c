/* fuzz_conf: a configuration file and, from the same bytes, a command line, against a table with every kind
 * of flag. */
#include <stdlib.h>

#include "common/conf_parts.h"
#include "common/log.h"

struct opts {
    bool b;
    int64_t i;
    uint64_t u;
    double f;
    char *s, *j, *e;
    struct conf_list l;
};
#define AT(member) offsetof(struct opts, member)
static const struct conf_flag flags[] = {
    {.name = "b", .kind = CONF_BOOL, .offset = AT(b), .help = ""},
    {.name = "int", .synonym = "-i", .kind = CONF_INT, .offset = AT(i), .min = -5, .max = 500, .help = ""},
    {.name = "size", .synonym = "length", .kind = CONF_SIZE, .offset = AT(u), .help = ""},
    {.name = "f", .kind = CONF_FLOAT, .offset = AT(f), .help = ""},
    {.name = "s", .kind = CONF_STR, .offset = AT(s), .help = ""},
    {.name = "j", .kind = CONF_JSON, .offset = AT(j), .help = ""},
    {.name = "e", .kind = CONF_ENUM, .choices = "a|bc|d", .offset = AT(e), .help = ""},
    {.name = "l", .kind = CONF_LIST, .offset = AT(l), .help = ""},
    {.name = "old", .kind = CONF_IGNORED, .value = CONF_INT, .help = "gone"},
    {.name = "bad", .kind = CONF_REFUSED, .help = "no"},
};
static const struct conf_table table = {
    .usage = "x", .flags = flags, .n_flags = ARRAY_LEN(flags), .n_positional_max = 2};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct conf_file file = {0};
    log_set_level(LOG_ERROR);
    if (conf_file_parse((struct str){(const char *)data, n}, &file, &e) == RC_OK)
        for (size_t i = 0; i < file.n; i++)
            CHECK(file.pairs[i].key && (file.pairs[i].value.n == 0 || file.pairs[i].value.texts));
    conf_file_free(&file);

    /* Words end at line feeds. "--config" is left out: it opens files. */
    char *text = xstrndup((const char *)data, n), *argv[34] = {"x"};
    int argc = 1;
    for (char *p = text, *end = text + n; p < end && argc < 33; p += strlen(p) + 1) {
        p[strcspn(p, "\n")] = 0;
        if (strncmp(p, "--config", 8) != 0)
            argv[argc++] = p;
    }
    struct opts o = {0};
    struct conf_list words = {0};
    struct buf shown = {0};
    if (conf_parse(&table, argc, argv, &o, &words, &e) == RC_OK) {
        CHECK(o.i >= -5 && o.i <= 500 && words.n <= 2);
        conf_show(&table, &o, &shown);
    } else {
        CHECK(e.msg[0]);
    }
    buf_fini(&shown);
    conf_free(&table, &o, &words);
    free(text);
    return 0;
}
