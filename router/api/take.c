/* take.c: the text that a step released, to content, reasoning and calls. */
#include "router/api/run.h"

static void on_part(void *arg, enum parse_part part, struct str text) {
    struct gen_run *g = arg;
    const struct gen_req *r = g->r;
    struct choice *c = &g->choices[g->at];
    struct buf *calls = r->stream ? &g->calls : &c->calls_json;
    switch (part) {
    case PARSE_REASONING:
        if (!r->parse.drop_reasoning)
            buf_add_str(r->stream ? &g->reasoning : &c->reasoning, text);
        break;
    case PARSE_CONTENT:
        if (r->tools_mode != TOOLS_NONE)
            tool_calls_take(g, &c->calls, text, calls);
        else
            buf_add_str(r->stream ? &g->content : &c->text, text);
        break;
    case PARSE_CALL:
        c->deaf = r->parse.one_call && c->calls.n_calls > 0;
        if (!c->deaf)
            tool_calls_begin(g, &c->calls, text, calls);
        break;
    case PARSE_ARGUMENTS:
        if (!c->deaf)
            tool_calls_arguments(&c->calls, text, calls);
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
    g->content.len = g->reasoning.len = g->calls.len = 0;
    tool_calls_step(g, &c->calls);
    if (c->parse) {
        parse_push(c->parse, buf_str(&g->text));
        if (c->done)
            parse_end(c->parse);
    } else if (r->tools_mode != TOOLS_NONE || !r->stream) {
        on_part(g, PARSE_CONTENT, buf_str(&g->text));
    }
    if (r->stream || c->done)
        tool_calls_close(&c->calls, r->stream ? &g->calls : &c->calls_json);
}

bool take_nothing(const struct gen_run *g) {
    return !g->content.len && !g->reasoning.len && !g->calls.len;
}
