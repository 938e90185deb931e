/* pattern_comp.c: the tree of a pattern to its program. */
#include "common/text/pattern_impl.h"

#include "common/utf8.h"

#include <stdlib.h>

struct compiler {
    const struct pat_tree *t;
    struct pattern *m;
    struct str re;
    struct err *e;
    enum rc rc;
};

static void stop(struct compiler *c, enum rc rc, const char *why) {
    if (!c->rc)
        c->rc = err_set(c->e, rc, NULL, "the pattern %.*s: %s", (int)MIN(c->re.n, (size_t)300), c->re.p, why);
}

static const struct pat_node *at(const struct compiler *c, uint32_t n) {
    return &c->t->nodes[n];
}

/* ---- what is known of a part ---- */

/* bare: the part itself where groups hold nothing else. */
static uint32_t bare(const struct compiler *c, uint32_t n) {
    while ((at(c, n)->kind == PAT_ALT || at(c, n)->kind == PAT_CAT) && at(c, n)->child != PAT_NONE &&
           at(c, n)->child == at(c, n)->last)
        n = at(c, n)->child;
    return n;
}

static bool one_char(const struct compiler *c, uint32_t n) {
    return at(c, n)->kind == PAT_CHAR || at(c, n)->kind == PAT_SET;
}

static bool may_be_empty(const struct compiler *c, uint32_t n) {
    const struct pat_node *p = at(c, n);
    bool all = true, any = false;
    if (one_char(c, n))
        return false;
    if (p->kind == PAT_REPEAT)
        return p->min == 0 || may_be_empty(c, p->child);
    if (p->kind == PAT_ATOMIC)
        return may_be_empty(c, p->child);
    if (p->kind != PAT_CAT && p->kind != PAT_ALT)
        return true;
    for (uint32_t k = p->child; k != PAT_NONE; k = at(c, k)->next) {
        bool empty = may_be_empty(c, k);
        all &= empty;
        any |= empty;
    }
    return p->kind == PAT_CAT ? all : any;
}

enum { WIDTH_MAX = 255, NO_WIDTH = -1 };

/* width: how many characters the part matches; NO_WIDTH: not always as many, or more than WIDTH_MAX. */
static int width(const struct compiler *c, uint32_t n) {
    const struct pat_node *p = at(c, n);
    int sum = 0, own;
    switch (p->kind) {
    case PAT_CHAR:
    case PAT_SET:
        return 1;
    case PAT_EMPTY:
    case PAT_ASSERT:
    case PAT_LOOK:
        return 0;
    case PAT_ATOMIC:
        return width(c, p->child);
    case PAT_REPEAT:
        own = width(c, p->child);
        if (own == NO_WIDTH || p->min != p->max || own * (int64_t)p->min > WIDTH_MAX)
            return NO_WIDTH;
        return own * (int)p->min;
    case PAT_CAT:
        for (uint32_t k = p->child; k != PAT_NONE; k = at(c, k)->next) {
            own = width(c, k);
            if (own == NO_WIDTH || (sum += own) > WIDTH_MAX)
                return NO_WIDTH;
        }
        return sum;
    case PAT_ALT:
        sum = width(c, p->child);
        for (uint32_t k = p->child; k != PAT_NONE; k = at(c, k)->next)
            if (width(c, k) != sum)
                return NO_WIDTH;
        return sum;
    }
    return NO_WIDTH;
}

/* ---- emitting ---- */

static uint32_t inst(struct compiler *c, struct pat_inst own) {
    struct pattern *m = c->m;
    bool branches = own.op == PAT_OP_SPLIT || own.op == PAT_OP_LOOP || own.op == PAT_OP_LOOK ||
                    own.op == PAT_OP_ATOMIC;
    if (m->n_insts == PATTERN_INSTS_MAX || (branches && m->n_states == PATTERN_STATES_MAX)) {
        stop(c, RC_INVALID, "too large with its repeats");
        return 0;
    }
    if (branches)
        own.state = (uint16_t)m->n_states++;
    m->insts[m->n_insts] = own;
    return m->n_insts++;
}

static uint32_t here(const struct compiler *c) {
    return c->m->n_insts;
}

static void emit(struct compiler *c, uint32_t n, bool tail);

/* class_of: the class of a part of one character. */
static uint32_t class_of(struct compiler *c, uint32_t n) {
    const struct pat_node *p = at(c, n);
    if (p->kind == PAT_SET)
        return p->set;
    if (c->m->n_classes == 2 * PATTERN_SETS_MAX) {
        stop(c, RC_INVALID, "too many classes");
        return 0;
    }
    struct pat_set s = {0};
    pat_set_add(&s, p->cp, p->cp);
    CHECK(pat_class_init(&c->m->classes[c->m->n_classes], &s));
    pat_set_fini(&s);
    return c->m->n_classes++;
}

/* emit_optional: the part, or nothing, n_max times one in the other. */
static void emit_optional(struct compiler *c, uint32_t child, uint32_t n_max, enum pat_greed greed) {
    uint32_t last = PAT_NONE; /* the splits are chained by the target they wait for */
    for (uint32_t i = 0; i < n_max && !c->rc; i++) {
        uint32_t split = inst(c, (struct pat_inst){.op = PAT_OP_SPLIT});
        struct pat_inst *s = &c->m->insts[split];
        *(greed == PAT_LAZY ? &s->y : &s->x) = split + 1;
        *(greed == PAT_LAZY ? &s->x : &s->y) = last;
        last = split;
        emit(c, child, false);
    }
    while (!c->rc && last != PAT_NONE) {
        struct pat_inst *s = &c->m->insts[last];
        uint32_t *out = greed == PAT_LAZY ? &s->x : &s->y;
        last = *out;
        *out = here(c);
    }
}

/* emit_endless: the part any number of times. */
static void emit_endless(struct compiler *c, uint32_t child, enum pat_greed greed, bool tail) {
    if (one_char(c, child)) {
        if (tail && greed == PAT_GREEDY)
            greed = PAT_POSSESSIVE; /* nothing follows that could want less */
        (void)inst(c, (struct pat_inst){.op = PAT_OP_LOOP, .x = class_of(c, child), .greed = (uint8_t)greed});
        return;
    }
    if (may_be_empty(c, child))
        stop(c, RC_UNSUPPORTED, "repetition without a bound of what may be empty is not supported");
    if (greed == PAT_POSSESSIVE)
        stop(c, RC_UNSUPPORTED, "possessive repetition of more than a character is not supported");
    uint32_t split = inst(c, (struct pat_inst){.op = PAT_OP_SPLIT});
    emit(c, child, false);
    (void)inst(c, (struct pat_inst){.op = PAT_OP_JUMP, .x = split});
    if (c->rc)
        return;
    struct pat_inst *s = &c->m->insts[split];
    s->x = greed == PAT_LAZY ? here(c) : split + 1;
    s->y = greed == PAT_LAZY ? split + 1 : here(c);
}

static void emit_repeat(struct compiler *c, const struct pat_node *p, bool tail) {
    uint32_t child = bare(c, p->child);
    for (uint32_t i = 0; i < p->min && !c->rc; i++)
        emit(c, child, false);
    if (c->rc)
        return;
    if (p->max == PAT_NO_MAX) {
        emit_endless(c, child, p->greed, tail);
    } else if (p->greed == PAT_POSSESSIVE && one_char(c, child)) { /* ?+ */
        (void)inst(c, (struct pat_inst){
                          .op = PAT_OP_LOOP, .x = class_of(c, child), .y = 1, .greed = PAT_POSSESSIVE});
    } else if (p->greed == PAT_POSSESSIVE) {
        stop(c, RC_UNSUPPORTED, "possessive repetition of more than a character is not supported");
    } else {
        emit_optional(c, child, p->max - p->min, p->greed);
    }
}

/* emit_alt: each alternative but the last behind a split, with a jump to the end behind it. */
static void emit_alt(struct compiler *c, const struct pat_node *p, bool tail) {
    uint32_t last_jump = PAT_NONE;
    for (uint32_t k = p->child; k != PAT_NONE && !c->rc; k = at(c, k)->next) {
        if (at(c, k)->next == PAT_NONE) {
            emit(c, k, tail);
            break;
        }
        uint32_t split = inst(c, (struct pat_inst){.op = PAT_OP_SPLIT});
        emit(c, k, tail);
        last_jump = inst(c, (struct pat_inst){.op = PAT_OP_JUMP, .x = last_jump});
        c->m->insts[split].x = split + 1;
        c->m->insts[split].y = here(c);
    }
    while (!c->rc && last_jump != PAT_NONE) {
        uint32_t before = c->m->insts[last_jump].x;
        c->m->insts[last_jump].x = here(c);
        last_jump = before;
    }
}

/* emit_look: one look; n_back: how far before here it starts. */
static void emit_look(struct compiler *c, const struct pat_node *p, uint32_t child, int n_back) {
    if (n_back == NO_WIDTH)
        stop(c, RC_UNSUPPORTED, "look-behind of no fixed length is not supported");
    uint32_t look = inst(c, (struct pat_inst){.op = PAT_OP_LOOK, .behind = p->behind, .negated = p->negated,
                                              .y = (uint32_t)MAX(n_back, 0)});
    emit(c, child, false);
    (void)inst(c, (struct pat_inst){.op = PAT_OP_ACCEPT});
    c->m->insts[look].x = here(c);
}

/* emit_behind: alternatives of a look-behind may have a length each: one of the looks must hold, or none. */
static void emit_behind(struct compiler *c, const struct pat_node *p) {
    const struct pat_node *alt = at(c, p->child);
    uint32_t last_jump = PAT_NONE;
    for (uint32_t k = alt->child; k != PAT_NONE && !c->rc; k = at(c, k)->next) {
        bool last = at(c, k)->next == PAT_NONE;
        uint32_t split = p->negated || last ? PAT_NONE : inst(c, (struct pat_inst){.op = PAT_OP_SPLIT});
        emit_look(c, p, k, width(c, k));
        if (split == PAT_NONE || c->rc)
            continue;
        last_jump = inst(c, (struct pat_inst){.op = PAT_OP_JUMP, .x = last_jump});
        c->m->insts[split].x = split + 1;
        c->m->insts[split].y = here(c);
    }
    while (!c->rc && last_jump != PAT_NONE) {
        uint32_t before = c->m->insts[last_jump].x;
        c->m->insts[last_jump].x = here(c);
        last_jump = before;
    }
}

/* check_atomic: an endless repeat only of a character, and only at the end: what an atomic group matched is not
 * remembered, so that matching it again must be cheap. */
static void check_atomic(struct compiler *c, uint32_t n, bool tail) {
    const struct pat_node *p = at(c, n);
    if (p->kind == PAT_REPEAT && p->max == PAT_NO_MAX && !(tail && one_char(c, bare(c, p->child))))
        stop(c, RC_UNSUPPORTED, "an atomic group with a repetition without a bound is only supported if it ends "
                                "in that, and what repeats is a character");
    for (uint32_t k = p->child; k != PAT_NONE && !c->rc; k = at(c, k)->next)
        check_atomic(c, k,
                     (tail && (p->kind == PAT_ALT || p->kind == PAT_ATOMIC ||
                               (p->kind == PAT_CAT && at(c, k)->next == PAT_NONE))));
}

static void emit(struct compiler *c, uint32_t n, bool tail) {
    const struct pat_node *p = at(c, n);
    if (c->rc)
        return;
    switch (p->kind) {
    case PAT_EMPTY:
        return;
    case PAT_CHAR:
        (void)inst(c, (struct pat_inst){.op = PAT_OP_CHAR, .x = p->cp});
        return;
    case PAT_SET:
        (void)inst(c, (struct pat_inst){.op = PAT_OP_SET, .x = p->set});
        return;
    case PAT_CAT:
        for (uint32_t k = p->child; k != PAT_NONE; k = at(c, k)->next)
            emit(c, k, tail && at(c, k)->next == PAT_NONE);
        return;
    case PAT_ALT:
        emit_alt(c, p, tail);
        return;
    case PAT_REPEAT:
        emit_repeat(c, p, tail);
        return;
    case PAT_ASSERT:
        (void)inst(c, (struct pat_inst){.op = PAT_OP_ASSERT, .x = (uint32_t)p->assert});
        return;
    case PAT_LOOK:
        if (p->behind)
            emit_behind(c, p);
        else
            emit_look(c, p, p->child, 0);
        return;
    case PAT_ATOMIC: {
        check_atomic(c, p->child, true);
        uint32_t atomic = inst(c, (struct pat_inst){.op = PAT_OP_ATOMIC});
        emit(c, p->child, true);
        (void)inst(c, (struct pat_inst){.op = PAT_OP_ACCEPT});
        c->m->insts[atomic].x = here(c);
        return;
    }
    }
}

/* ---- where a match may start ---- */

static void first_of_class(struct pattern *m, const struct pat_class *k) {
    for (unsigned b = 0; b < 128; b++)
        m->first[b] |= k->ascii[b];
    for (unsigned b = 0xC2; b <= 0xF4; b++)
        m->first[b] = true;
}

/* fill_first: follows what needs no character from the start on. */
static void fill_first(struct pattern *m) {
    bool *seen = xcalloc(m->n_insts, sizeof *seen);
    uint32_t *todo = xreallocarray(NULL, m->n_insts, 2 * sizeof *todo);
    size_t n = 0;
    char lead[4];
    todo[n++] = 0;
    while (n && !m->any_first) {
        uint32_t pc = todo[--n];
        const struct pat_inst *i = &m->insts[pc];
        if (seen[pc])
            continue;
        seen[pc] = true;
        switch ((enum pat_op)i->op) {
        case PAT_OP_CHAR:
            m->first[(uint8_t)(i->x < 0x80 ? (char)i->x : (utf8_encode(i->x, lead), lead[0]))] = true;
            break;
        case PAT_OP_SET:
            first_of_class(m, &m->classes[i->x]);
            break;
        case PAT_OP_SPLIT:
            todo[n++] = i->x;
            todo[n++] = i->y;
            break;
        case PAT_OP_JUMP:
        case PAT_OP_LOOK: /* may hold */
            todo[n++] = i->x;
            break;
        case PAT_OP_LOOP:
            first_of_class(m, &m->classes[i->x]);
            todo[n++] = pc + 1;
            break;
        case PAT_OP_ASSERT:
            todo[n++] = pc + 1;
            break;
        case PAT_OP_ATOMIC:
        case PAT_OP_ACCEPT:
            m->any_first = true;
            break;
        }
    }
    free(seen);
    free(todo);
}

enum rc pattern_new(struct pattern **out, struct str re, struct err *e) {
    struct pat_tree t;
    struct pattern *m = xcalloc(1, sizeof *m);
    struct compiler c = {.t = &t, .m = m, .re = re, .e = e};
    struct pat_set word = {0};
    if ((c.rc = pat_parse(&t, re, e)))
        goto out;
    m->insts = xcalloc(PATTERN_INSTS_MAX, sizeof *m->insts);
    m->classes = xcalloc(2 * PATTERN_SETS_MAX, sizeof *m->classes);
    for (uint32_t i = 0; i < t.n_sets && !c.rc; i++) {
        m->n_classes = i + 1; /* first: what a failed one holds is freed with the rest */
        if (!pat_class_init(&m->classes[i], &t.sets[i]))
            stop(&c, RC_INVALID, "a class with too many parts");
    }
    pat_set_word(&word);
    CHECK(pat_class_init(&m->word, &word));
    emit(&c, t.root, false);
    (void)inst(&c, (struct pat_inst){.op = PAT_OP_ACCEPT});
    if (c.rc)
        goto out;
    fill_first(m);
    m->insts = xreallocarray(m->insts, m->n_insts, sizeof *m->insts); /* what is left of the room */
    m->classes = xreallocarray(m->classes, MAX(m->n_classes, 1u), sizeof *m->classes);
    *out = m;
    m = NULL;
out:
    pat_set_fini(&word);
    pat_tree_fini(&t);
    pattern_free(m);
    return c.rc;
}

void pattern_free(struct pattern *m) {
    if (!m)
        return;
    for (uint32_t i = 0; i < m->n_classes; i++)
        free(m->classes[i].blocks);
    free(m->word.blocks);
    free(m->classes);
    free(m->insts);
    free(m);
}
