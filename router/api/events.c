/* Every token becomes an event, so nothing here allocates once sse has grown, and the constant parts are
 * copied whole. */
#include "router/api/run.h"

#define LIT(b, s) buf_add(b, s, sizeof(s) - 1)

void events_head(struct gen_run *g) {
    const struct gen_req *r = g->r;
    struct buf *b = &g->head;
    LIT(b, "data: {\"id\":");
    jw_str(b, r->id);
    buf_addz(b, r->route == GEN_CHAT ? ",\"object\":\"chat.completion.chunk\""
                                     : ",\"object\":\"text_completion\"");
    LIT(b, ",\"created\":");
    jw_i64(b, r->created_unix_s);
    LIT(b, ",\"model\":");
    jw_str(b, r->model_name);
    LIT(b, ",\"choices\":[");
}

static void open_choice(const struct gen_run *g, uint32_t choice, struct buf *sse) {
    buf_add(sse, g->head.data, g->head.len);
    LIT(sse, "{\"index\":");
    buf_addu64(sse, choice);
}

static void add_fingerprint(const struct gen_run *g, struct buf *sse) {
    LIT(sse, ",\"system_fingerprint\":");
    jw_strz(sse, g->r->model->fingerprint);
}

/* add_kv: to the last chunk of a stream (api.md 16.2.3). */
static void add_kv(const struct gen_run *g, struct buf *sse) {
    LIT(sse, ",\"kv_transfer_params\":");
    kv_write(g, sse);
}

/* continuous: the usage of a choice and its prompt so far. */
static void continuous(const struct gen_run *g, uint32_t choice, struct buf *sse) {
    uint32_t prompt = choice / g->r->n_samples;
    LIT(sse, ",\"usage\":");
    usage_write(
        g->r,
        (struct gen_counts){g->r->prompts[prompt].n_ids, g->cached[prompt], g->choices[choice].n_tokens,
                            g->choices[choice].n_reasoning},
        sse);
}

/* event_echo: the echoed message of a chat's choice. */
static void event_echo(const struct gen_run *g, uint32_t choice, struct buf *sse) {
    open_choice(g, choice, sse);
    LIT(sse, ",\"delta\":{\"content\":");
    jw_str(sse, g->r->chat_echo);
    LIT(sse, "},\"logprobs\":null,\"finish_reason\":null}]");
    if (g->r->continuous_usage)
        continuous(g, choice, sse);
    LIT(sse, "}\n\n");
}

void event_roles(const struct gen_run *g, struct buf *sse) {
    for (uint32_t i = 0; i < g->n_choices; i++) {
        open_choice(g, i, sse);
        LIT(sse, ",\"delta\":{\"role\":");
        jw_str(sse, g->r->role);
        LIT(sse, ",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
        if (g->r->continuous_usage)
            continuous(g, i, sse);
        LIT(sse, "}\n\n");
    }
    for (uint32_t i = 0; g->r->chat_echo.n && i < g->n_choices; i++)
        event_echo(g, i, sse);
}

/* delta: of a chat whose text is taken apart. */
static void delta(const struct shown *p, struct buf *sse) {
    const char *comma = "";
    LIT(sse, ",\"delta\":{");
    if (p->reasoning.len) {
        LIT(sse, "\"reasoning\":");
        jw_str(sse, buf_str(&p->reasoning));
        LIT(sse, ",\"reasoning_content\":");
        jw_str(sse, buf_str(&p->reasoning));
        comma = ",";
    }
    if (p->content.len) {
        buf_addz(sse, comma);
        LIT(sse, "\"content\":");
        jw_str(sse, buf_str(&p->content));
        comma = ",";
    }
    if (p->calls.len) {
        buf_addz(sse, comma);
        LIT(sse, "\"tool_calls\":[");
        buf_add(sse, p->calls.data, p->calls.len);
        buf_addc(sse, ']');
    }
    buf_addc(sse, '}');
}

void event_step(const struct gen_run *g, uint32_t choice, const struct shown *p, struct buf *sse) {
    const struct choice *c = &g->choices[choice];
    struct str text = buf_str(&p->content);
    bool chat = g->r->route == GEN_CHAT, echoes = !chat && g->r->echo && !c->begun;
    open_choice(g, choice, sse);
    if (!chat) {
        LIT(sse, ",\"text\":");
        if (echoes)
            echo_text_write(g, choice, text, sse);
        else
            jw_str(sse, text);
    } else if (c->parse || g->r->tools_mode != TOOLS_NONE || (c->done && text.n == 0)) {
        delta(p, sse);
    } else {
        LIT(sse, ",\"delta\":{\"content\":");
        jw_str(sse, text);
        buf_addc(sse, '}');
    }
    LIT(sse, ",\"logprobs\":");
    if (p->lp.tokens.len || (echoes && g->r->logprobs))
        lp_write(g, echoes ? echo_columns(g, choice) : NULL, &p->lp, sse);
    else
        LIT(sse, "null");
    if (c->done) {
        buf_addc(sse, ',');
        finish_write(g, c, sse);
    } else if (chat) {
        LIT(sse, ",\"finish_reason\":null");
    } else {
        LIT(sse, ",\"finish_reason\":null,\"stop_reason\":null");
    }
    LIT(sse, "}]");
    if (c->done)
        add_fingerprint(g, sse);
    if (g->r->kv.offer && gen_run_done(g) && !g->r->include_usage)
        add_kv(g, sse);
    if (g->r->continuous_usage)
        continuous(g, choice, sse);
    LIT(sse, "}\n\n");
}

void event_end(const struct gen_run *g, struct buf *sse) {
    if (g->r->include_usage) {
        buf_add(sse, g->head.data, g->head.len);
        buf_addc(sse, ']');
        add_fingerprint(g, sse);
        LIT(sse, ",\"usage\":");
        usage_write(g->r, gen_run_counts(g), sse);
        if (g->r->kv.offer)
            add_kv(g, sse);
        LIT(sse, "}\n\n");
    }
    LIT(sse, "data: [DONE]\n\n");
}
