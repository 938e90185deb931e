#include "common/conf.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/conf_parts.h"
#include "common/json.h"
#include "common/log.h"

void conf_norm(char *out, const char *name, size_t n) {
    n = MIN(n, (size_t)CONF_NAME_BYTES_MAX);
    for (size_t i = 0; i < n; i++)
        out[i] = name[i] == '_' ? '-' : name[i];
    out[n] = 0;
}

/* distance: Levenshtein's, of names up to CONF_NAME_BYTES_MAX. */
static size_t distance(const char *a, const char *b) {
    size_t row[CONF_NAME_BYTES_MAX + 1], nb = MIN(strlen(b), (size_t)CONF_NAME_BYTES_MAX);
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 1; j <= nb; j++) {
            size_t above = row[j], replaced = diagonal + (a[i] != b[j - 1]);
            row[j] = MIN(MIN(row[j], row[j - 1]) + 1, replaced);
            diagonal = above;
        }
    }
    return row[nb];
}

const char *conf_nearest(const struct conf_table *t, const char *name) {
    const char *nearest = NULL;
    char norm[CONF_NAME_BYTES_MAX + 1];
    size_t least = SIZE_MAX;
    conf_norm(norm, name, strlen(name));
    for (size_t i = 0; i < t->n_flags; i++) {
        size_t d = distance(norm, t->flags[i].name);
        if (t->flags[i].kind != CONF_REFUSED && d < least) {
            least = d;
            nearest = t->flags[i].name;
        }
    }
    return nearest;
}

/* ---- one run of the parser -------------------------------------------------------------------------- */

enum source { FROM_NOTHING = 0, FROM_FILE, FROM_LINE };
struct run {
    const struct conf_table *t;
    void *opts;
    enum source *sources; /* [n_flags] where the value came from */
    struct err *e;
};

static const struct conf_flag *find(const struct run *r, const char *norm) {
    for (size_t i = 0; i < r->t->n_flags; i++) {
        const struct conf_flag *f = &r->t->flags[i];
        if (strcmp(f->name, norm) == 0 ||
            (f->synonym && f->synonym[0] != '-' && strcmp(f->synonym, norm) == 0))
            return f;
    }
    return NULL;
}

/* find_short: "-tp". */
static const struct conf_flag *find_short(const struct run *r, const char *token, size_t n) {
    for (size_t i = 0; i < r->t->n_flags; i++) {
        const char *s = r->t->flags[i].synonym;
        if (s && s[0] == '-' && strlen(s) == n && memcmp(s, token, n) == 0)
            return &r->t->flags[i];
    }
    return NULL;
}

static enum rc unknown(const struct run *r, const char *shown, const char *name) {
    const char *nearest = conf_nearest(r->t, name);
    return err_set(r->e, RC_INVALID, name, "unknown flag %.100s; the closest is --%s", shown,
                   nearest ? nearest : "help");
}

/* is_apart: accepted or refused without a place. */
static bool is_apart(const struct conf_flag *f) {
    return f->kind == CONF_IGNORED || f->kind == CONF_REFUSED;
}

static bool has_value(const struct conf_flag *f) {
    return is_apart(f) ? f->value != CONF_BOOL : f->kind != CONF_BOOL;
}

/* apart: text is the value; NULL: the flag has none, or none was given. */
static enum rc apart(const struct run *r, const struct conf_flag *f, const char *text) {
    if (text) {
        enum rc rc = conf_check(f->value, f->name, text, r->e);
        if (rc)
            return rc;
    }
    bool chosen = text && f->choices && conf_is_choice(f->choices, text);
    if (f->kind == CONF_REFUSED && chosen)
        return RC_OK;
    if (f->kind == CONF_REFUSED && f->choices && text)
        return err_set(r->e, RC_INVALID, f->name, "--%s %.100s is not supported, only %s: %s", f->name, text,
                       f->choices, f->help);
    if (f->kind == CONF_REFUSED)
        return err_set(r->e, RC_INVALID, f->name, "--%s is not supported: %s", f->name, f->help);
    if (f->choices && text && !chosen)
        return err_set(r->e, RC_INVALID, f->name, "--%s must be one of %s, not \"%.100s\"", f->name,
                       f->choices, text);
    LOG(LOG_WARN, "flag ignored", F_STR("flag", f->name), F_STR("reason", f->help));
    return RC_OK;
}

/* begin: what a value from `source` replaces. A list grows within one source and is replaced by the next. */
static void begin(const struct run *r, const struct conf_flag *f, enum source source) {
    enum source *was = &r->sources[f - r->t->flags];
    if (f->kind == CONF_LIST && *was != source)
        conf_clear(f, r->opts);
    *was = source;
}

static enum rc assign(const struct run *r, const struct conf_flag *f, enum source source, const char *text) {
    begin(r, f, source);
    return conf_set(f, r->opts, f->name, text, r->e);
}

/* negated: the flag behind "no-NAME", if it is one that can be negated. */
static const struct conf_flag *negated(const struct run *r, const char *norm) {
    const struct conf_flag *f = strncmp(norm, "no-", 3) == 0 ? find(r, norm + 3) : NULL;
    return f && !has_value(f) ? f : NULL;
}

/* ---- file and environment ---------------------------------------------------------------------------- */

static enum rc pair_apply(const struct run *r, const struct conf_pair *p) {
    char norm[CONF_NAME_BYTES_MAX + 1];
    conf_norm(norm, p->key, strlen(p->key));
    const struct conf_flag *f = find(r, norm), *no = f ? NULL : negated(r, norm);
    const struct conf_value *v = &p->value;
    if (no)
        f = no;
    if (!f)
        return unknown(r, p->key, norm);
    if (v->n == 0 && !v->is_list)
        return RC_OK; /* null: as if absent */
    if (is_apart(f) && !has_value(f)) {
        bool on = false;
        enum rc rc = conf_set(&(struct conf_flag){.kind = CONF_BOOL}, &on, f->name, v->texts[0], r->e);
        return rc ? rc : on != (no != NULL) ? apart(r, f, NULL) : RC_OK;
    }
    if (is_apart(f) && f->value == CONF_LIST)
        return apart(r, f, NULL);
    if (is_apart(f) && !v->is_list)
        return apart(r, f, v->texts[0]);
    if (v->is_list && f->kind != CONF_LIST)
        return err_set(r->e, RC_INVALID, f->name, "--%s takes one value, not a list", f->name);
    begin(r, f, FROM_FILE);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < v->n && !rc; i++)
        rc = conf_set(f, r->opts, f->name, v->texts[i], r->e);
    if (!rc && no && f->kind == CONF_BOOL)
        *(bool *)conf_place(f, r->opts) = !*(bool *)conf_place(f, r->opts);
    return rc;
}

static enum rc file_apply(const struct run *r, const char *path) {
    struct conf_file file = {0};
    struct err why;
    enum rc rc = conf_file_read(path, &file, r->e);
    for (size_t i = 0; i < file.n && !rc; i++) {
        for (size_t k = 0; k < i && !rc; k++)
            if (strcmp(file.pairs[k].key, file.pairs[i].key) == 0)
                rc = err_set(r->e, RC_INVALID, file.pairs[i].key,
                             "%.200s: line %zu: %.100s stands there twice", path, file.pairs[i].line,
                             file.pairs[i].key);
        if (rc)
            break;
        rc = pair_apply(r, &file.pairs[i]);
        if (rc && r->e) {
            why = *r->e;
            err_set(r->e, rc, why.param, "%.200s: line %zu: %.400s", path, file.pairs[i].line, why.msg);
        }
    }
    conf_file_free(&file);
    return rc;
}

static enum rc env_apply(const struct run *r) {
    enum rc rc = RC_OK;
    for (size_t i = 0; i < r->t->n_flags && !rc; i++) {
        const struct conf_flag *f = &r->t->flags[i];
        const char *text = f->env && r->sources[i] == FROM_NOTHING ? getenv(f->env) : NULL;
        if (!text || !*text)
            continue;
        struct err why;
        conf_clear(f, r->opts);
        rc = conf_set(f, r->opts, f->name, text, &why);
        if (rc) /* the value may be a secret: only the flag and the variable are named */
            err_set(r->e, rc, f->name, "environment variable %s: not a value for --%s", f->env, f->name);
    }
    return rc;
}

/* ---- command line ----------------------------------------------------------------------------------- */

/* is_flag: whether a word begins a flag. A lone dash and negative numbers are values. */
static bool is_flag(const char *word) {
    return word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9') && word[1] != '.';
}

/* token: a flag as written, taken apart. */
struct token {
    const struct conf_flag *f;
    bool no;           /* --no-f */
    const char *value; /* behind '=', or NULL */
    const char *path;  /* --f.PATH; borrowed from text */
    char text[512];
};

static enum rc read_token(const struct run *r, const char *word, struct token *k) {
    char norm[CONF_NAME_BYTES_MAX + 1];
    size_t n = strcspn(word, "=");
    *k = (struct token){.value = word[n] ? word + n + 1 : NULL};
    if (word[1] != '-') {
        k->f = find_short(r, word, n);
        conf_norm(norm, word + 1, n - 1);
        return k->f ? RC_OK : unknown(r, word, norm);
    }
    if (n >= sizeof k->text)
        return err_set(r->e, RC_INVALID, NULL, "a flag of %zu bytes", n);
    memcpy(k->text, word, n);
    size_t dot = strcspn(k->text, ".");
    conf_norm(norm, k->text + 2, dot - 2);
    if (dot - 2 <= CONF_NAME_BYTES_MAX)
        k->f = find(r, norm);
    if (k->f && k->text[dot]) {
        if ((is_apart(k->f) ? k->f->value : k->f->kind) != CONF_JSON)
            return err_set(r->e, RC_INVALID, k->f->name, "--%s has no parts", k->f->name);
        k->path = k->text + dot + 1;
    }
    if (!k->f && !k->text[dot]) {
        k->f = negated(r, norm);
        k->no = k->f != NULL;
    }
    if (k->no && k->value)
        return err_set(r->e, RC_INVALID, k->f->name, "--no-%s takes no value", k->f->name);
    return k->f ? RC_OK : unknown(r, k->text, norm);
}

static enum rc flag_apply(const struct run *r, const struct token *k, const char *text) {
    const struct conf_flag *f = k->f;
    if (is_apart(f))
        return k->no && f->kind == CONF_REFUSED ? RC_OK
                                                : apart(r, f, has_value(f) && !k->path ? text : NULL);
    if (k->path) {
        begin(r, f, FROM_LINE);
        return conf_merge(f, r->opts, k->path, text, r->e);
    }
    return assign(r, f, FROM_LINE, text);
}

/* take_flag: the flag at argv[*at] and its values; *at moves behind them. */
static enum rc take_flag(const struct run *r, int argc, char **argv, int *at) {
    struct token k;
    enum rc rc = read_token(r, argv[(*at)++], &k);
    if (rc)
        return rc;
    if (!has_value(k.f)) {
        if (k.value && k.f->kind != CONF_BOOL)
            return err_set(r->e, RC_INVALID, k.f->name, "--%s takes no value", k.f->name);
        return flag_apply(r, &k, k.no ? "false" : k.value ? k.value : "true");
    }
    if (k.value)
        return flag_apply(r, &k, k.value);
    if (*at >= argc || is_flag(argv[*at])) {
        if (k.f->flags & CONF_VALUE_OPTIONAL)
            return apart(r, k.f, NULL);
        return err_set(r->e, RC_INVALID, k.f->name, "--%s needs a value", k.f->name);
    }
    do
        rc = flag_apply(r, &k, argv[(*at)++]);
    while (!rc && k.f->kind == CONF_LIST && *at < argc && !is_flag(argv[*at]));
    return rc;
}

/* config_path: --config FILE or --config=FILE, wherever it stands; it is applied before the rest. */
static enum rc config_path(int argc, char **argv, const char **path, struct err *e) {
    *path = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *found = NULL;
        if (strncmp(argv[i], "--config=", 9) == 0)
            found = argv[i] + 9;
        else if (strcmp(argv[i], "--config") == 0)
            found = i + 1 < argc && !is_flag(argv[i + 1]) ? argv[i + 1] : "";
        if (!found)
            continue;
        if (!*found)
            return err_set(e, RC_INVALID, "config", "--config needs a value");
        if (*path)
            return err_set(e, RC_INVALID, "config", "--config stands there twice");
        *path = found;
    }
    return RC_OK;
}

static enum rc line_apply(const struct run *r, int argc, char **argv, struct conf_list *words) {
    enum rc rc = RC_OK;
    bool flags = true;
    for (int i = 1; i < argc && !rc;) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
            i++;
        } else if (flags && strncmp(argv[i], "--config=", 9) == 0) {
            i++;
        } else if (flags && strcmp(argv[i], "--config") == 0) {
            i += 2;
        } else if (flags && is_flag(argv[i])) {
            rc = take_flag(r, argc, argv, &i);
        } else if (words->n == r->t->n_positional_max) {
            rc = err_set(r->e, RC_INVALID, NULL, "unexpected \"%.100s\" (usage: %s)", argv[i], r->t->usage);
        } else {
            words->v = xreallocarray(words->v, words->n + 1, sizeof *words->v);
            words->v[words->n++] = xstrdup(argv[i++]);
        }
    }
    return rc;
}

enum rc conf_parse(const struct conf_table *t, int argc, char **argv, void *opts,
                   struct conf_list *positional, struct err *e) {
    struct err local;
    struct run r = {
        .t = t, .opts = opts, .sources = xcalloc(t->n_flags, sizeof(enum source)), .e = e ? e : &local};
    struct conf_list words = {0};
    const char *path;
    enum rc rc = config_path(argc, argv, &path, r.e);
    if (!rc && path)
        rc = file_apply(&r, path);
    if (!rc)
        rc = line_apply(&r, argc, argv, &words);
    if (!rc)
        rc = env_apply(&r);
    free(r.sources);
    if (rc) {
        for (size_t i = 0; i < words.n; i++)
            free(words.v[i]);
        free(words.v);
    } else {
        *positional = words;
    }
    return rc;
}

void conf_free(const struct conf_table *t, void *opts, struct conf_list *positional) {
    for (size_t i = 0; i < t->n_flags; i++)
        conf_clear(&t->flags[i], opts);
    for (size_t i = 0; positional && i < positional->n; i++)
        free(positional->v[i]);
    if (positional) {
        free(positional->v);
        *positional = (struct conf_list){0};
    }
}

bool conf_has(int argc, char **argv, const char *flag) {
    bool is_short = flag[0] == '-' && flag[1] != '-';
    const char *bare = flag + strspn(flag, "-");
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (is_short ? strcmp(argv[i], flag) == 0
                     : strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, bare) == 0)
            return true;
    return false;
}

/* ---- showing ---------------------------------------------------------------------------------------- */

enum { HELP_COLUMN = 40 };

void conf_help(const struct conf_table *t, struct buf *out) {
    static const char *const values[] = {
        [CONF_INT] = " N",         [CONF_SIZE] = " SIZE", [CONF_FLOAT] = " X", [CONF_STR] = " VALUE",
        [CONF_LIST] = " VALUE...", [CONF_JSON] = " JSON", [CONF_ENUM] = NULL,  [CONF_BOOL] = ""};
    buf_addf(out, "usage: %s\n\n", t->usage);
    for (size_t i = 0; i < t->n_flags; i++) {
        const struct conf_flag *f = &t->flags[i];
        if (is_apart(f))
            continue;
        struct buf left = {0};
        buf_addf(&left, "  --%s", f->name);
        if (f->synonym)
            buf_addf(&left, ", %s%s", f->synonym[0] == '-' ? "" : "--", f->synonym);
        if (f->kind == CONF_ENUM)
            buf_addf(&left, " %s", f->choices);
        else
            buf_addz(&left, values[f->kind]);
        if (left.len >= HELP_COLUMN) /* too long for the column: the text stands below */
            buf_addf(out, "%s\n%*s%s\n", buf_cstr(&left), HELP_COLUMN, "", f->help);
        else
            buf_addf(out, "%-*s%s\n", HELP_COLUMN, buf_cstr(&left), f->help);
        buf_fini(&left);
    }
    buf_addf(out, "%-*s%s\n\n", HELP_COLUMN, "  --config FILE",
             "flags from a flat YAML or JSON mapping; the command line wins");
    buf_addz(out, "Defaults are in brackets. --no-NAME turns off what is on.\n"
                  "SIZE takes k, m, g (4k is 4000) and K, M, G, KiB, MiB, GiB (4K is 4096).\n");
}

static void show_text(struct buf *out, const char *text) {
    if (*text && !text[strcspn(text, " \t\r\n\"'=\\")])
        buf_addz(out, text);
    else
        jw_strz(out, text);
}

/* show: appends the value unless it is zero; false then. */
static bool show(const struct conf_flag *f, const void *place, struct buf *out) {
    switch (f->kind) {
    case CONF_BOOL:
        if (!*(const bool *)place)
            return false;
        buf_addz(out, "true");
        return true;
    case CONF_INT:
        if (!*(const int64_t *)place)
            return false;
        jw_i64(out, *(const int64_t *)place);
        return true;
    case CONF_SIZE:
        if (!*(const uint64_t *)place)
            return false;
        jw_u64(out, *(const uint64_t *)place);
        return true;
    case CONF_FLOAT:
        if (*(const double *)place == 0)
            return false;
        jw_f64(out, *(const double *)place);
        return true;
    case CONF_STR:
    case CONF_JSON:
    case CONF_ENUM:
        if (!*(char *const *)place)
            return false;
        show_text(out, *(char *const *)place);
        return true;
    case CONF_LIST: {
        const struct conf_list *l = place;
        for (size_t i = 0; i < l->n; i++) {
            buf_addz(out, i ? "," : "");
            show_text(out, l->v[i]);
        }
        return l->n > 0;
    }
    case CONF_IGNORED:
    case CONF_REFUSED:
        break;
    }
    return false;
}

void conf_show(const struct conf_table *t, const void *opts, struct buf *out) {
    bool any = false;
    for (size_t i = 0; i < t->n_flags; i++) {
        const struct conf_flag *f = &t->flags[i];
        size_t from = out->len;
        if (f->flags & CONF_SECRET || is_apart(f))
            continue;
        buf_addf(out, "%s%s=", any ? " " : "", f->name);
        if (show(f, (const char *)opts + f->offset, out))
            any = true;
        else
            out->len = from;
    }
}
