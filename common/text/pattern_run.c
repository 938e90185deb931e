/* pattern_run.c: searching with a pattern's program.
 *
 * What a state (an instruction that branches) at a position comes to is a function of the two: the pattern
 * remembers nothing else. So each may be tried once. A state that failed is marked when all that it branched to
 * has failed; inside a look-around, which needs no end, one that succeeded is marked, too. Marks are only
 * kept once a text has taken long, for until then they cost more than they save.
 */
#include "common/text/pattern_impl.h"

#include <stdlib.h>

enum { STEPS_FREE = 4096, STEPS_A_BYTE = 64 };
/* Beyond 1 << 24 steps and these, searching ends. Nothing gets there while the marks cover the text. */
enum { STEPS_MAX_A_BYTE = 2 * PATTERN_STATES_MAX };

enum frame_kind {
    FRAME_SPLIT,    /* on at y of the split at pc */
    FRAME_MARK,     /* nothing is left of pc at `at` */
    FRAME_BACK_OFF, /* a greedy loop that took up to `at`, and may give back down to low */
    FRAME_LAZY,     /* a lazy loop that may take one more */
};
struct pattern_frame {
    enum frame_kind kind;
    uint32_t pc;
    size_t at, low;
};

struct pattern_run {
    size_t begin, end;
};

void pattern_scan_init(struct pattern_scan *s, const struct pattern *m, const char *p, size_t n) {
    *s = (struct pattern_scan){.m = m,
                               .p = p,
                               .n = n,
                               .last_end = SIZE_MAX,
                               .n_steps_max = (1 << 24) + (uint64_t)n * STEPS_MAX_A_BYTE};
}

void pattern_scan_fini(struct pattern_scan *s) {
    free(s->memo);
    free(s->runs);
    free(s->stack);
    *s = (struct pattern_scan){0};
}

/* ---- marks ---- */

enum { FAILED = 0, SUCCEEDED = 1 };

/* memo_start: marks from `at` on, as many as may be. */
static void memo_start(struct pattern_scan *s, size_t at) {
    size_t n_max = (size_t)PATTERN_MEMO_BYTES_MAX * 8 / 2 / s->m->n_states;
    free(s->memo);
    s->memo_origin = at;
    s->memo_n = MIN(s->n + 1 - at, n_max);
    s->memo = xcalloc(s->memo_n * s->m->n_states * 2 / 64 + 1, sizeof *s->memo);
    if (!s->runs)
        s->runs = xcalloc(s->m->n_states, sizeof *s->runs);
}

static inline bool memo_bit(const struct pattern_scan *s, uint32_t pc, size_t at, int which, size_t *bit) {
    if (!s->memo || at - s->memo_origin >= s->memo_n)
        return false;
    *bit = ((at - s->memo_origin) * s->m->n_states + s->m->insts[pc].state) * 2 + (size_t)which;
    return true;
}
static inline bool marked(const struct pattern_scan *s, uint32_t pc, size_t at, int which) {
    size_t bit;
    return memo_bit(s, pc, at, which, &bit) && s->memo[bit / 64] >> bit % 64 & 1;
}
static inline void mark(struct pattern_scan *s, uint32_t pc, size_t at, int which) {
    size_t bit;
    if (memo_bit(s, pc, at, which, &bit))
        s->memo[bit / 64] |= (uint64_t)1 << bit % 64;
}

static void push(struct pattern_scan *s, struct pattern_frame f) {
    if (s->n_stack == s->cap_stack) {
        s->cap_stack = MAX(s->cap_stack * 2, (size_t)32);
        s->stack = xreallocarray(s->stack, s->cap_stack, sizeof *s->stack);
    }
    s->stack[s->n_stack++] = f;
}

/* succeed: a look-around from frame base on has; all that waits on the stack was on its way. */
static void succeed(struct pattern_scan *s, size_t base) {
    for (size_t i = base; i < s->n_stack && s->memo; i++) {
        const struct pattern_frame *f = &s->stack[i];
        mark(s, f->pc, f->at, SUCCEEDED);
        for (size_t at = f->at; f->kind == FRAME_BACK_OFF && at > f->low;) {
            at = uni_prev(s->p, at);
            mark(s, f->pc, at, SUCCEEDED);
        }
    }
}

/* ---- steps ---- */

static bool is_word(const struct pattern_scan *s, size_t at) {
    size_t len;
    return pat_class_has(&s->m->word, uni_decode(s->p + at, &len));
}

static bool holds(const struct pattern_scan *s, enum pat_assert a, size_t at) {
    bool newline_before = at > 0 && s->p[at - 1] == '\n';
    switch (a) {
    case PAT_TEXT_BEGIN:
        return at == 0;
    case PAT_TEXT_END:
        return at == s->n;
    case PAT_TEXT_END_NEWLINE:
        return at == s->n || (at + 1 == s->n && s->p[at] == '\n');
    case PAT_LINE_BEGIN: /* none begins behind a newline at the end of the text */
        return at == 0 || (newline_before && at < s->n);
    case PAT_LINE_END:
        return at == s->n || s->p[at] == '\n';
    case PAT_EDGE:
    case PAT_NO_EDGE: {
        bool before = at > 0 && is_word(s, uni_prev(s->p, at)), behind = at < s->n && is_word(s, at);
        return (before != behind) == (a == PAT_EDGE);
    }
    }
    return false;
}

static inline bool step_class(const struct pattern_scan *s, const struct pat_class *c, size_t *at) {
    size_t len;
    if (*at == s->n || !pat_class_has(c, uni_decode(s->p + *at, &len)))
        return false;
    *at += len;
    return true;
}

/* loop_possessive: the end of the run at `at`; from any place within one it is the same. */
static size_t loop_possessive(struct pattern_scan *s, const struct pat_inst *i, size_t at) {
    const struct pat_class *c = &s->m->classes[i->x];
    struct pattern_run *run = s->runs ? &s->runs[i->state] : NULL;
    size_t end = at;
    if (run && !i->y && at >= run->begin && at < run->end)
        return run->end;
    for (size_t n = 0; (!i->y || n < i->y) && step_class(s, c, &end);)
        n++;
    s->n_steps += (end - at) / 8;
    if (run)
        *run = (struct pattern_run){at, end};
    return end;
}

enum outcome { GO_ON, FAIL, ACCEPT };

/* loop_greedy: takes all, less what is known to fail. */
static enum outcome loop_greedy(struct pattern_scan *s, uint32_t pc, bool look, size_t *at) {
    const struct pat_class *c = &s->m->classes[s->m->insts[pc].x];
    size_t end = *at;
    do {
        if (UNLIKELY(s->memo != NULL) && marked(s, pc, end, FAILED)) {
            if (end == *at)
                return FAIL;
            push(s, (struct pattern_frame){FRAME_BACK_OFF, pc, end, *at});
            s->n_steps += (end - *at) / 8;
            return FAIL; /* of what it took; the frame gives back */
        }
        if (UNLIKELY(s->memo != NULL) && look && marked(s, pc, end, SUCCEEDED)) {
            push(s, (struct pattern_frame){FRAME_BACK_OFF, pc, end, *at});
            return ACCEPT;
        }
    } while (step_class(s, c, &end));
    s->n_steps += (end - *at) / 8;
    if (end > *at || s->memo)
        push(s, (struct pattern_frame){FRAME_BACK_OFF, pc, end, *at});
    *at = end;
    return GO_ON;
}

/* back_off: pops frames until one has something left to try; false: none has down to base. */
static bool back_off(struct pattern_scan *s, size_t base, uint32_t *pc, size_t *at) {
    while (s->n_stack > base) {
        struct pattern_frame *f = &s->stack[s->n_stack - 1];
        const struct pat_inst *i = &s->m->insts[f->pc];
        size_t end = f->at;
        s->n_steps++;
        switch (f->kind) {
        case FRAME_SPLIT:
            *pc = i->y;
            *at = f->at;
            if (s->memo)
                f->kind = FRAME_MARK;
            else
                s->n_stack--;
            return true;
        case FRAME_MARK:
            mark(s, f->pc, f->at, FAILED);
            s->n_stack--;
            break;
        case FRAME_BACK_OFF:
            mark(s, f->pc, f->at, FAILED);
            if (f->at == f->low) {
                s->n_stack--;
                break;
            }
            f->at = uni_prev(s->p, f->at);
            *pc = f->pc + 1;
            *at = f->at;
            if (!s->memo && f->at == f->low)
                s->n_stack--;
            return true;
        case FRAME_LAZY:
            f->kind = FRAME_MARK;
            if (!step_class(s, &s->m->classes[i->x], &end))
                break;
            *pc = f->pc;
            *at = end;
            if (!s->memo)
                s->n_stack--;
            return true;
        }
    }
    return false;
}

/* slow_down: it took long: marks from where this search started on, and then an end to all. */
static void slow_down(struct pattern_scan *s) {
    if (!s->memo && s->m->n_states)
        memo_start(s, s->at);
    s->exhausted = s->n_steps > s->n_steps_max;
    s->n_steps_mark = s->n_steps_max;
}

static bool run(struct pattern_scan *s, uint32_t pc, size_t at, bool look, size_t *end);

/* run_look: whether the look-around at pc holds. */
static bool run_look(struct pattern_scan *s, uint32_t pc, size_t at) {
    const struct pat_inst *i = &s->m->insts[pc];
    size_t begin = at, end;
    if (marked(s, pc, at, FAILED) || marked(s, pc, at, SUCCEEDED))
        return marked(s, pc, at, SUCCEEDED) != i->negated;
    for (uint32_t k = 0; k < i->y; k++) {
        if (begin == 0)
            return i->negated;
        begin = uni_prev(s->p, begin);
    }
    bool found = run(s, pc + 1, begin, true, &end);
    mark(s, pc, at, found ? SUCCEEDED : FAILED);
    return found != i->negated;
}

/* run_branch: an instruction that branches. */
static enum outcome run_branch(struct pattern_scan *s, uint32_t *pc, size_t *at, bool look) {
    const struct pat_inst *i = &s->m->insts[*pc];
    bool loop = i->op == PAT_OP_LOOP;
    if (loop && i->greed == PAT_GREEDY) {
        enum outcome o = loop_greedy(s, *pc, look, at);
        *pc += o == GO_ON;
        return o;
    }
    if (loop && i->greed == PAT_POSSESSIVE) {
        *at = loop_possessive(s, i, *at);
        ++*pc;
        return GO_ON;
    }
    if (i->op == PAT_OP_LOOK) {
        bool yes = run_look(s, *pc, *at);
        *pc = i->x;
        return yes ? GO_ON : FAIL;
    }
    if (UNLIKELY(s->memo != NULL) && marked(s, *pc, *at, FAILED))
        return FAIL;
    if (i->op == PAT_OP_ATOMIC) {
        uint32_t own = *pc;
        size_t from = *at;
        *pc = i->x;
        if (run(s, own + 1, from, false, at))
            return GO_ON;
        mark(s, own, from, FAILED);
        return FAIL;
    }
    if (UNLIKELY(s->memo != NULL) && look && marked(s, *pc, *at, SUCCEEDED))
        return ACCEPT;
    push(s, (struct pattern_frame){loop ? FRAME_LAZY : FRAME_SPLIT, *pc, *at, *at});
    *pc = loop ? *pc + 1 : i->x;
    return GO_ON;
}

/* run: the program at pc from `at` on, up to its ACCEPT, at *end. look: only whether it gets there. Recursion is
 * as deep as look-arounds and atomic groups are in one another. */
static bool run(struct pattern_scan *s, uint32_t pc, size_t at, bool look, size_t *end) {
    const struct pattern *m = s->m;
    const size_t base = s->n_stack;
    for (;;) {
        const struct pat_inst *i = &m->insts[pc];
        enum outcome o = GO_ON;
        size_t len;
        s->n_steps++;
        switch ((enum pat_op)i->op) {
        case PAT_OP_CHAR:
            if (at < s->n && uni_decode(s->p + at, &len) == i->x)
                at += len;
            else
                o = FAIL;
            pc++;
            break;
        case PAT_OP_SET:
            o = step_class(s, &m->classes[i->x], &at) ? GO_ON : FAIL;
            pc++;
            break;
        case PAT_OP_JUMP:
            pc = i->x;
            break;
        case PAT_OP_ASSERT:
            o = holds(s, (enum pat_assert)i->x, at) ? GO_ON : FAIL;
            pc++;
            break;
        case PAT_OP_ACCEPT:
            o = ACCEPT;
            break;
        default:
            o = run_branch(s, &pc, &at, look);
        }
        if (UNLIKELY(s->n_steps > s->n_steps_mark))
            slow_down(s);
        if (UNLIKELY(s->exhausted))
            o = FAIL;
        if (o == ACCEPT) {
            if (look)
                succeed(s, base);
            s->n_stack = base;
            *end = at;
            return true;
        }
        if (o == FAIL && (s->exhausted || !back_off(s, base, &pc, &at))) {
            s->n_stack = base;
            return false;
        }
    }
}

/* ---- searching ---- */

/* search: the first match from s->at on. */
static bool search(struct pattern_scan *s, size_t *begin, size_t *end) {
    const struct pattern *m = s->m;
    if (s->memo && s->at - s->memo_origin > s->memo_n / 2 && s->memo_n < s->n + 1 - s->memo_origin)
        memo_start(s, s->at); /* they move along with a long text */
    if (!s->memo)
        s->n_steps_mark = STEPS_FREE + (uint64_t)s->at * STEPS_A_BYTE;
    for (size_t at = s->at, len; !s->exhausted; at += len) {
        while (!m->any_first && at < s->n && !m->first[(uint8_t)s->p[at]])
            at++; /* bytes inside characters start none */
        if (at == s->n && !m->any_first)
            return false;
        s->n_stack = 0;
        if (run(s, 0, at, false, end)) {
            *begin = at;
            return true;
        }
        if (at == s->n)
            return false;
        (void)uni_decode(s->p + at, &len);
    }
    return false;
}

bool pattern_next(struct pattern_scan *s, size_t *begin, size_t *end) {
    size_t len;
    while (s->at <= s->n && search(s, begin, end)) {
        if (*begin != *end || s->last_end != *end) {
            s->at = s->last_end = *end;
            return true;
        }
        if (s->at == s->n)
            break;
        (void)uni_decode(s->p + s->at, &len);
        s->at += len;
    }
    s->at = s->n + 1;
    return false;
}
