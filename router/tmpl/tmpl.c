/* tmpl.c: compiling and rendering: what tmpl.h promises. */
#include "router/tmpl/tmpl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/utf8.h"
#include "router/tmpl/ast.h"

const struct tmpl_limits tmpl_limits_default = {
    .template_bytes_max = 256 * KIB, .steps_max = 5000000, .output_bytes_max = 16 * MIB, .depth_max = 64};

/* ---- compiling ---- */

/* The text with "\n" line ends and without its last one, as Jinja reads it. */
static struct str normalise(struct arena *a, struct str text) {
    char *out = arena_alloc(a, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n')
            continue;
        out[n++] = text.p[i] == '\r' ? '\n' : text.p[i];
    }
    if (n && out[n - 1] == '\n')
        n--;
    out[n] = 0;
    return (struct str){out, n};
}

static uint32_t line_at(struct str text, size_t at) {
    uint32_t line = 1;
    for (size_t i = 0; i < at; i++)
        line += text.p[i] == '\n';
    return line;
}

/* Everything that can fail by a jump. */
static bool compile(struct tm_compile *c, struct tmpl *t, struct str text) {
    if (setjmp(c->fail))
        return false;
    if (!utf8_valid(text.p, text.n)) {
        size_t at = 0, len;
        while (utf8_decode(text.p + at, text.n - at, &len) >= 0)
            at += len;
        tm_compile_fail(c, line_at(text, at), "template is not valid UTF-8");
    }
    t->source = normalise(&t->a, text);
    tm_lex(c, t->source);
    t->body = tm_parse(c);
    tm_resolve(c, t);
    return true;
}

enum rc tmpl_compile(struct tmpl **out, struct str text, const struct tmpl_limits *limits, struct err *e) {
    if (!limits)
        limits = &tmpl_limits_default;
    if (text.n > limits->template_bytes_max)
        return err_set(e, RC_INVALID, NULL,
                       "template of %zu bytes is over the limit of %zu (--max-template-bytes) (line 1)",
                       text.n, limits->template_bytes_max);
    struct tmpl *t = xcalloc(1, sizeof *t);
    arena_init(&t->a);
    t->limits = *limits;
    struct arena scratch;
    arena_init(&scratch);
    struct tm_compile c = {.a = &t->a, .scratch = &scratch, .limits = limits, .e = e};
    bool ok = compile(&c, t, text);
    if (ok) {
        t->openai_content = tm_detect_openai(t->body, &scratch);
        *out = t;
    } else {
        tmpl_free(t);
    }
    arena_fini(&scratch);
    return ok ? RC_OK : RC_INVALID;
}

void tmpl_free(struct tmpl *t) {
    if (!t)
        return;
    arena_fini(&t->a);
    free(t);
}

size_t tmpl_bytes(const struct tmpl *t) {
    return sizeof *t + t->a.used_bytes;
}

bool tmpl_uses_openai_content(const struct tmpl *t) {
    return t->openai_content;
}

bool tmpl_mentions(const struct tmpl *t, const char *word) {
    return memmem(t->source.p, t->source.n, word, strlen(word)) != NULL;
}

void tmpl_out_fini(struct tmpl_out *o) {
    buf_fini(&o->text);
    free(o->marks);
    *o = (struct tmpl_out){0};
}

/* ---- rendering ---- */

void tm_fail(struct tm_run *r, const char *fmt, ...) {
    char msg[480];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    err_set(r->e, RC_INVALID, NULL, "%s (line %u)", msg, r->line);
    longjmp(r->fail, 1);
}

void tm_fail_steps(struct tm_run *r) {
    tm_fail(r, "template ran out of its budget of steps, which is %llu (--max-template-steps)",
            (unsigned long long)r->t->limits.steps_max);
}

void tm_fail_undef(struct tm_run *r, struct tm_val v) {
    const struct tm_undef *u = v.u;
    int n = (int)MIN(u->name.n, (size_t)120);
    if (u->unsafe)
        tm_fail(r, "access to attribute '%.*s' of '%s' object is unsafe.", n, u->name.p, u->owner);
    if (u->hint)
        tm_fail(r, "%s", u->hint);
    if (u->owner)
        tm_fail(r, "'%s object' has no attribute '%.*s'", u->owner, n, u->name.p);
    tm_fail(r, "'%.*s' is undefined", n, u->name.p);
}

/* Values may take four times the output and room for what a large request's messages become. */
static size_t arena_budget(const struct tmpl_limits *l) {
    return 4 * l->output_bytes_max + 16 * MIB;
}

static bool run(struct tm_run *r) {
    if (setjmp(r->fail))
        return false;
    const struct tmpl *t = r->t;
    r->act = tm_alloc(r, sizeof *r->act + t->n_slots * sizeof r->act->slots[0]);
    r->act->up = NULL;
    for (size_t i = 0; i < t->n_slots; i++)
        r->act->slots[i] = TM_MISSING;
    r->var_vals = tm_zalloc(r, r->n_vars, sizeof *r->var_vals);
    tm_scope_enter(r, &t->scope);
    tm_exec(r, &t->body);
    return true;
}

enum rc tmpl_render(const struct tmpl *t, const struct tmpl_var *vars, size_t n_vars, int64_t now_unix_s,
                    struct arena *a, struct tmpl_out *out, struct err *e) {
    /* In the arena, so that a jump back finds it as it was left. */
    struct tm_run *r = arena_zalloc(a, 1, sizeof *r);
    r->t = t;
    r->a = a;
    r->arena_bytes_max = a->used_bytes + arena_budget(&t->limits);
    r->steps = t->limits.steps_max;
    r->line = 1;
    r->vars = vars;
    r->n_vars = n_vars;
    r->now_unix_s = now_unix_s;
    r->e = e;
    if (!run(r)) {
        tmpl_out_fini(&r->out);
        return RC_INVALID;
    }
    *out = r->out;
    return RC_OK;
}
