/* take.c: the text that a step released, to content, reasoning and calls. */
#include "router/api/run.h"

static void on_part(void *arg, enum parse_part part, struct str text) {
    struct gen_run *g = arg;
    const struct gen_req *r = g->r;
    struct choice *c = &g->choices[g->at];
    struct shown *p = shown_of(g, c);
    switch (part) {
    case PARSE_REASONING:
        if (!r->parse.drop_reasoning)
            buf_add_str(&p->reasoning, text);
        break;
    case PARSE_CONTENT:
        if (r->tools_mode != TOOLS_NONE)
            tool_calls_take(g, &c->calls, text, &p->calls);
        else
            buf_add_str(&p->content, text);
        break;
    case PARSE_CALL:
        c->deaf = r->parse.one_call && c->calls.n_calls > 0;
        if (!c->deaf)
            tool_calls_begin(g, &c->calls, text, &p->calls);
        break;
    case PARSE_ARGUMENTS:
        if (!c->deaf)
            tool_calls_arguments(&c->calls, text, &p->calls);
        break;
    }
}

void take_start(struct gen_run *g, struct choice *c) {
    if (g->r->parse.on)
        c->parse = parse_new(&g->r->parse.o, (struct parse_sink){on_part, g});
}

void take_text(struct gen_run *g, uint32_t choice) {
    const struct gen_req *r = g->r;
    struct choice *c = &g->choices[choice];
    g->at = choice;
    if (c->parse) {
        parse_push(c->parse, buf_str(&g->text));
        if (c->done)
            parse_end(c->parse);
    } else if (r->tools_mode != TOOLS_NONE || c->gathers) {
        on_part(g, PARSE_CONTENT, buf_str(&g->text));
    } else { /* the whole content of an event, uncopied */
        struct buf swap = g->step.content;
        g->step.content = g->text;
        g->text = swap;
    }
}

void shown_clear(struct shown *p) {
    p->content.len = p->reasoning.len = p->calls.len = 0;
    lp_clear(&p->lp);
}

void shown_fini(struct shown *p) {
    buf_fini(&p->content);
    buf_fini(&p->reasoning);
    buf_fini(&p->calls);
    lp_fini(&p->lp);
}

bool shown_empty(const struct shown *p) {
    return !p->content.len && !p->reasoning.len && !p->calls.len;
}
