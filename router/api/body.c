#include <stdlib.h>

#include "router/api/run.h"

void usage_write(const struct gen_req *r, struct gen_counts n, struct buf *out) {
    buf_addz(out, "{\"prompt_tokens\":");
    buf_addu64(out, n.prompt_tokens);
    buf_addz(out, ",\"completion_tokens\":");
    buf_addu64(out, n.completion_tokens);
    buf_addz(out, ",\"total_tokens\":");
    buf_addu64(out, (uint64_t)n.prompt_tokens + n.completion_tokens);
    buf_addz(out, ",\"prompt_tokens_details\":");
    if (r->prompt_details) {
        buf_addz(out, "{\"cached_tokens\":");
        buf_addu64(out, n.cached_tokens);
        buf_addc(out, '}');
    } else {
        buf_addz(out, "null");
    }
    buf_addz(out, ",\"completion_tokens_details\":");
    if (r->parse.counts_reasoning) {
        buf_addz(out, "{\"reasoning_tokens\":");
        buf_addu64(out, n.reasoning_tokens);
        buf_addz(out, "}}");
    } else {
        buf_addz(out, "null}");
    }
}

void finish_write(const struct gen_run *g, const struct choice *c, struct buf *out) {
    static const char *const names[] = {
        [GEN_STOP] = "\"stop\"", [GEN_LENGTH] = "\"length\"", [GEN_ABORT] = "\"abort\""};
    buf_addz(out, "\"finish_reason\":");
    bool called =
        g->r->tools_mode != TOOLS_NAMED && c->reason == GEN_STOP && c->calls.n_calls > 0; /* api.md 7.4.6 */
    buf_addz(out, called ? "\"tool_calls\"" : names[c->reason]);
    buf_addz(out, ",\"stop_reason\":");
    if (c->stop_string >= 0)
        jw_str(out, g->r->stop_strings[c->stop_string]);
    else if (c->has_stop_id)
        buf_addu64(out, c->stop_id);
    else
        buf_addz(out, "null");
}

/* has_content: null instead: nothing but calls of the model's own, or cut inside the reasoning. */
static bool has_content(const struct gen_run *g, const struct choice *c) {
    return c->shown.content.len || !((g->r->parse.auto_tools && c->calls.n_calls) || (c->parse && parse_reasons(c->parse)));
}

static void write_reasoning(const struct choice *c, struct buf *out) {
    static const char *const names[] = {",\"reasoning\":", ",\"reasoning_content\":"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf_addz(out, names[i]);
        if (c->shown.reasoning.len)
            jw_str(out, buf_str(&c->shown.reasoning));
        else
            buf_addz(out, "null");
    }
}

/* write_choice: sample i of the run, as choice `index`. */
static void write_choice(const struct gen_run *g, uint32_t i, uint32_t index, struct buf *out) {
    const struct choice *c = &g->choices[i];
    bool chat = g->r->route == GEN_CHAT;
    buf_addz(out, "{\"index\":");
    buf_addu64(out, index);
    if (chat) {
        buf_addz(out, ",\"message\":{\"role\":");
        jw_str(out, g->r->role);
        buf_addz(out, ",\"content\":");
        if (has_content(g, c) || echo_of(g, i).n)
            echo_text_write(g, i, buf_str(&c->shown.content), out);
        else
            buf_addz(out, "null");
        buf_addz(out, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null");
        write_reasoning(c, out);
        if (c->calls.n_calls) {
            buf_addz(out, ",\"tool_calls\":[");
            buf_add(out, c->shown.calls.data, c->shown.calls.len);
            buf_addc(out, ']');
        }
        buf_addc(out, '}');
    } else {
        buf_addz(out, ",\"text\":");
        echo_text_write(g, i, buf_str(&c->shown.content), out);
    }
    buf_addz(out, ",\"logprobs\":");
    lp_write(g, echo_columns(g, i), &c->shown.lp, out);
    buf_addc(out, ',');
    finish_write(g, c, out);
    if (!chat) {
        buf_addz(out, ",\"prompt_logprobs\":");
        echo_list_write(g, i / g->r->n_samples, out);
    }
    buf_addc(out, '}');
}

void kv_write(const struct gen_run *g, struct buf *out) {
    if (g->kv.len)
        buf_add(out, g->kv.data, g->kv.len);
    else
        buf_addz(out, "null");
}

void body_write(const struct gen_run *g, struct buf *out) {
    const struct gen_req *r = g->r;
    bool chat = r->route == GEN_CHAT;
    buf_addz(out, "{\"id\":");
    jw_str(out, r->id);
    buf_addz(out, chat ? ",\"object\":\"chat.completion\",\"created\":"
                       : ",\"object\":\"text_completion\",\"created\":");
    jw_i64(out, r->created_unix_s);
    buf_addz(out, ",\"model\":");
    jw_str(out, r->model_name);
    buf_addz(out, ",\"choices\":[");
    uint32_t *order = xcalloc(r->n_samples, sizeof *order);
    for (uint32_t i = 0; i < r->n_prompts * r->n; i++) {
        if (i)
            buf_addc(out, ',');
        if (i % r->n == 0)
            samples_order(g, i / r->n, order);
        write_choice(g, i / r->n * r->n_samples + order[i % r->n], i, out);
    }
    free(order);
    buf_addz(out, "],\"service_tier\":null,\"system_fingerprint\":");
    jw_strz(out, r->model->fingerprint);
    buf_addz(out, ",\"usage\":");
    usage_write(r, gen_run_counts(g), out);
    if (chat) {
        buf_addz(out, ",\"prompt_logprobs\":");
        echo_list_write(g, 0, out);
    }
    buf_addz(out, ",\"kv_transfer_params\":");
    kv_write(g, out);
    buf_addc(out, '}');
}
