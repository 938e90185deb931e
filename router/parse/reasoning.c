/* reasoning.c: where the thinking ends (api.md 11.3). */
#include "router/parse/private.h"

#define MARK(s) {s, sizeof(s) - 1}

struct reasoner {
    const char *name;
    struct str mark[4]; /* the spellings of the first mark, then those of the last */
    size_t n_open, n_close;
    bool need_open; /* without the first mark, all is content */
};

static const struct reasoner reasoners[] = {
    [REASONING_DEEPSEEK_R1] = {"deepseek_r1", {MARK("<think>"), MARK("</think>")}, 1, 1, false},
    [REASONING_QWEN3] = {"qwen3", {MARK("<think>"), MARK("</think>")}, 1, 1, true},
    [REASONING_GRANITE] = {"granite",
                           {MARK("Here is my thought process:"), MARK("Here's my thought process:"),
                            MARK("Here is my response:"), MARK("Here's my response:")},
                           2,
                           2,
                           true},
};

const struct reasoner *reasoner_of(enum parse_reasoning r) {
    return r == REASONING_NONE ? NULL : &reasoners[r];
}

bool parse_reasoning_find(const char *name, enum parse_reasoning *out) {
    for (size_t i = REASONING_DEEPSEEK_R1; i < ARRAY_LEN(reasoners); i++)
        if (strcmp(name, reasoners[i].name) == 0) {
            *out = (enum parse_reasoning)i;
            return true;
        }
    return false;
}

size_t parse_reasoning_marks(enum parse_reasoning kind, const struct str **open, const struct str **close) {
    const struct reasoner *r = reasoner_of(kind);
    CHECK(r && r->n_open == r->n_close);
    *open = r->mark;
    *close = r->mark + r->n_open;
    return r->n_open;
}

/* ---- the stage ---------------------------------------------------------------------------------------- */

enum {
    THINKS_NOT = 0, /* all is content from here on */
    THINKS_FIRST,   /* nothing but white space so far; the first mark may come */
    THINKS_IN,
};

bool parse_reasoning_begins(const struct parse_opts *o) {
    return reasoners[o->reasoning].need_open && !o->in_reasoning;
}

static bool need_open(const struct parse *p) {
    return parse_reasoning_begins(&p->o);
}

static void content(struct parse *p, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p->shut || !p->family) {
            emit(p, PARSE_CONTENT, s + i, n - i);
            return;
        }
        p->family->byte(p, s[i]);
        if (p->shut)
            p->family->end(p);
    }
}

/* go: the next state. `lead` has what belongs to it already; what may begin a mark is looked at again. */
static void go(struct parse *p, int to) {
    const struct reasoner *r = p->reasoner;
    char tail[MARK_BYTES_MAX];
    size_t n = p->think_marks.n_tail;
    memcpy(tail, p->think_marks.tail, n);
    p->think_marks.n_tail = 0;
    p->thinks = to;
    if (to == THINKS_IN)
        marks_set(&p->think_marks, r->mark + r->n_open, r->n_close, (unsigned)r->n_open);
    for (size_t i = 0; i < n; i++)
        reasoning_byte(p, tail[i]);
}

void reasoning_start(struct parse *p) {
    const struct reasoner *r = p->reasoner;
    if (!r)
        return;
    p->thinks = THINKS_FIRST;
    marks_set(&p->think_marks, r->mark, r->n_open + (need_open(p) ? 0 : r->n_close), 0);
}

static void lead_out(struct parse *p, enum parse_part part) {
    if (part == PARSE_REASONING)
        emit(p, part, p->lead.data, p->lead.len);
    else
        content(p, p->lead.data, p->lead.len);
    p->lead.len = 0;
}

static void first_byte(struct parse *p, char c) {
    int mark = marks_byte(&p->think_marks, c, &p->lead);
    if (mark >= 0) {
        lead_out(p, PARSE_REASONING);
        go(p, mark < (int)p->reasoner->n_open ? THINKS_IN : THINKS_NOT);
        return;
    }
    bool text = false;
    for (size_t i = p->n_lead; i < p->lead.len; i++)
        text |= !is_space(p->lead.data[i]) && !is_hidden(p->lead.data[i]);
    p->n_lead = p->lead.len;
    if (text) {
        bool out = need_open(p);
        lead_out(p, out ? PARSE_CONTENT : PARSE_REASONING);
        go(p, out ? THINKS_NOT : THINKS_IN);
    }
}

void reasoning_byte(struct parse *p, char c) {
    if (p->thinks == THINKS_NOT) {
        content(p, &c, 1);
    } else if (p->thinks == THINKS_FIRST) {
        first_byte(p, c);
    } else {
        p->lead.len = 0;
        int mark = marks_byte(&p->think_marks, c, &p->lead);
        emit(p, PARSE_REASONING, p->lead.data, p->lead.len);
        if (mark >= 0)
            go(p, THINKS_NOT);
    }
}

void reasoning_end(struct parse *p) {
    if (p->thinks == THINKS_NOT)
        return;
    if (p->thinks == THINKS_IN)
        p->lead.len = 0;
    marks_rest(&p->think_marks, &p->lead);
    bool out = p->thinks == THINKS_FIRST && need_open(p);
    lead_out(p, out ? PARSE_CONTENT : PARSE_REASONING);
    p->thinks = out ? THINKS_NOT : THINKS_IN;
}

bool parse_reasons(const struct parse *p) {
    return p->thinks == THINKS_IN || (p->thinks == THINKS_FIRST && !need_open(p));
}
