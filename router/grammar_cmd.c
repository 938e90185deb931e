#include "router/grammar_cmd.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/gram/front.h"
#include "common/gram/gram.h"
#include "common/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXIT_USAGE = 2, FILE_BYTES_MAX = 256 << 20 };

struct cmd {
    char *json_schema, *regex, *grammar, *choice, *structural_tag; /* text, or @FILE */
    char *options, *tokenizer, *tokens;
};

#define AT(field) .offset = offsetof(struct cmd, field)
static const struct conf_flag flags[] = {
    {.name = "json-schema", .kind = CONF_STR, AT(json_schema), .help = "a schema, or @FILE"},
    {.name = "regex", .kind = CONF_STR, AT(regex), .help = "a regular expression, or @FILE"},
    {.name = "grammar", .kind = CONF_STR, AT(grammar), .help = "EBNF (GBNF or Lark), or @FILE"},
    {.name = "choice", .kind = CONF_STR, AT(choice), .help = "a JSON list of strings, or @FILE"},
    {.name = "structural-tag", .kind = CONF_STR, AT(structural_tag), .help = "a structural tag, or @FILE"},
    {.name = "options",
     .kind = CONF_JSON,
     AT(options),
     .help = "whitespace_pattern, disable_any_whitespace, disable_additional_properties"},
    {.name = "tokenizer",
     .kind = CONF_STR,
     AT(tokenizer),
     .help = "a model folder or tokenizer.json: the text is cut into its tokens, and masks are timed"},
    {.name = "tokens",
     .kind = CONF_STR,
     AT(tokens),
     .help = "token ids instead of a text: a JSON list; needs --tokenizer"},
};
static const struct conf_table table = {
    "weir grammar (--json-schema|--regex|--grammar|--choice|--structural-tag) TEXT|@FILE [flags] "
    "[TEXT|@FILE]",
    flags, ARRAY_LEN(flags), 1};

/* read_file: `-` is standard input. */
static enum rc read_file(const char *path, struct buf *out, struct err *e) {
    FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    if (!f)
        return err_set(e, RC_IO, NULL, "%s: %s", path, strerror(errno));
    for (size_t n = 1; n > 0 && out->len <= FILE_BYTES_MAX;) {
        n = fread(buf_reserve(out, 1 << 16), 1, 1 << 16, f);
        out->len += n;
    }
    bool bad = ferror(f) || out->len > FILE_BYTES_MAX;
    if (f != stdin)
        fclose(f);
    return bad ? err_set(e, RC_IO, NULL, "%s cannot be read, or is too long", path) : RC_OK;
}

/* given: a value as it stands, or the file it names. */
static enum rc given(const char *value, struct buf *out, struct err *e) {
    if (value[0] == '@')
        return read_file(value + 1, out, e);
    buf_addz(out, value);
    return RC_OK;
}

/* load_tokenizer: of a folder, or a file named .json. A file that is not there is empty, and tok_load says what
 * is missing. */
static enum rc load_tokenizer(const char *path, struct tok **t, struct err *e) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt",
                                        "added_tokens.json"};
    size_t n = strlen(path);
    bool is_file = n > 5 && !strcmp(path + n - 5, ".json");
    struct buf text[ARRAY_LEN(names)] = {{0}}, name = {0};
    struct err none;
    enum rc rc = is_file ? read_file(path, &text[0], e) : RC_OK;
    for (size_t i = 0; !is_file && i < ARRAY_LEN(names); i++) {
        name.len = 0;
        buf_addf(&name, "%s/%s", path, names[i]);
        (void)!read_file(buf_cstr(&name), &text[i], &none);
    }
    if (!rc)
        rc = tok_load(t,
                      &(struct tok_files){.tokenizer_json = buf_str(&text[0]),
                                          .tokenizer_config_json = buf_str(&text[1]),
                                          .special_tokens_map_json = buf_str(&text[2]),
                                          .tokenizer_model = buf_str(&text[3]),
                                          .vocab_json = buf_str(&text[4]),
                                          .merges_txt = buf_str(&text[5]),
                                          .vocab_txt = buf_str(&text[6]),
                                          .added_tokens_json = buf_str(&text[7])},
                      e);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        buf_fini(&text[i]);
    buf_fini(&name);
    return rc;
}

static enum rc read_tokens(const char *text, struct tok_ids *ids, struct err *e) {
    json_t *list = NULL;
    enum rc rc = json_parse(str_of(text), NULL, &list, e);
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < UINT32_MAX)
            tok_ids_push(ids, (uint32_t)json_integer_value(v));
        else
            rc = err_set(e, RC_INVALID, NULL, "--tokens: member %zu is no token id", i);
    }
    if (!rc && !json_is_array(list))
        rc = err_set(e, RC_INVALID, NULL, "--tokens takes a JSON list");
    json_decref(list);
    return rc;
}

static int cmp_u64(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void print_times(uint64_t *ns, size_t n) {
    if (!n)
        return;
    double first = (double)ns[0] / 1e3;
    qsort(ns, n, sizeof *ns, cmp_u64);
    printf("masks: %zu, first %.1f us, p50 %.1f us, p99 %.1f us, max %.1f us\n", n, first,
           (double)ns[n / 2] / 1e3, (double)ns[MIN(n * 99 / 100, n - 1)] / 1e3, (double)ns[n - 1] / 1e3);
}

/* conclude: says how the text stands; the exit status. */
static int conclude(const struct gram_run *r) {
    if (!gram_run_may_end(r)) {
        puts("incomplete: the text is a prefix of what is accepted");
        return 1;
    }
    puts(gram_run_must_end(r) ? "accepted" : "accepted; more may follow");
    return 0;
}

/* try_tokens: a mask before each token, as an engine asks for. */
static int try_tokens(struct gram_run *r, const struct tok *t, const struct tok_ids *ids, struct err *e) {
    uint32_t n_vocab = tok_vocab_size(t), *mask = xcalloc(gram_mask_words(n_vocab), sizeof *mask);
    uint64_t *ns = xcalloc(ids->n + 1, sizeof *ns);
    size_t i = 0;
    enum rc rc = RC_OK;
    for (; i <= ids->n; i++) {
        uint64_t start = clock_ns();
        if ((rc = gram_run_mask(r, mask, e)))
            break;
        ns[i] = clock_ns() - start;
        if (i < ids->n && (rc = gram_run_accept(r, ids->v[i], e)))
            break;
    }
    print_times(ns, MIN(i, ids->n));
    if (rc) {
        struct str s = ids->v[i] < n_vocab ? tok_bytes(t, ids->v[i]) : (struct str){"", 0};
        printf("refused at token %zu of %zu, \"%.*s\": %s\n", i, ids->n, (int)s.n, s.p, e->msg);
    }
    free(mask);
    free(ns);
    return rc ? 1 : conclude(r);
}

static int try_text(struct gram_run *r, struct str text, struct err *e) {
    size_t n = 0;
    if (gram_run_bytes(r, text, &n, e)) {
        printf("refused at byte %zu of %zu, before \"%.*s\": %s\n", n, text.n,
               (int)MIN(text.n - n, (size_t)32), text.p + n, e->msg);
        return 1;
    }
    return conclude(r);
}

/* try_all: with a sealed grammar. */
static int try_all(struct gram *g, const struct cmd *c, struct str text, struct err *e) {
    struct tok *t = NULL;
    struct gram_vocab *v = NULL;
    struct gram_run *r = NULL;
    struct tok_ids ids = {0};
    int status = 1;
    if (c->tokenizer && load_tokenizer(c->tokenizer, &t, e))
        goto out;
    if (t) {
        uint32_t eos;
        bool has_eos = tok_eos(t, &eos);
        v = gram_vocab_new(t, tok_vocab_size(t), &eos, has_eos);
        if (c->tokens && read_tokens(c->tokens, &ids, e))
            goto out;
        if (!c->tokens)
            tok_encode(t, text.p, text.n, &(struct tok_mark){0, text.n}, 1, 0, &ids);
    }
    r = gram_run_new(g, v);
    status = t ? try_tokens(r, t, &ids, e) : try_text(r, text, e);
    e->msg[0] = '\0'; /* told */
out:
    gram_run_free(r);
    gram_vocab_free(v);
    tok_ids_fini(&ids);
    tok_free(t);
    return status;
}

static int run(const struct cmd *c, const char *text_given) {
    const char *const texts[] = {c->json_schema, c->regex, c->grammar, c->choice, c->structural_tag};
    struct buf what = {0}, text = {0};
    struct gram *g = NULL;
    struct err e = {0};
    int kind = 0, n = 0, status = 1;
    for (int i = 0; i < (int)ARRAY_LEN(texts); i++)
        if (texts[i]) {
            kind = i + 1; /* in the order of enum gram_kind */
            n++;
        }
    if (n != 1 || (c->tokens && !c->tokenizer) || (!text_given && !c->tokens)) {
        fprintf(stderr, "weir: name one constraint, and a text or --tokens with --tokenizer: %s\n",
                table.usage);
        return EXIT_USAGE;
    }
    if (given(texts[kind - 1], &what, &e) || (text_given && given(text_given, &text, &e)))
        goto out;
    uint64_t start = clock_ns();
    if (gram_compile(&g, (enum gram_kind)kind, buf_str(&what), str_of(c->options), NULL, &e))
        goto out;
    printf("compiled in %.2f ms, %zu KiB\n", (double)(clock_ns() - start) / 1e6, gram_bytes(g) / KIB);
    status = try_all(g, c, buf_str(&text), &e);
out:
    if (e.msg[0])
        fprintf(stderr, "weir: %s%s%s\n", e.param, e.param[0] ? ": " : "", e.msg);
    gram_drop(g);
    buf_fini(&what);
    buf_fini(&text);
    return status;
}

int grammar_cmd(int argc, char **argv) {
    struct cmd c = {0};
    struct conf_list positional = {0};
    struct err e = {0};
    int status = EXIT_USAGE;
    if (conf_has(argc, argv, "--help") || conf_has(argc, argv, "-h")) {
        struct buf help = {0};
        conf_help(&table, &help);
        fwrite(help.data, 1, help.len, stdout);
        buf_fini(&help);
        status = 0;
    } else if (conf_parse(&table, argc, argv, &c, &positional, &e)) {
        fprintf(stderr, "weir: %s\n", e.msg);
    } else {
        status = run(&c, positional.n ? positional.v[0] : NULL);
    }
    conf_free(&table, &c, &positional);
    return status;
}
