#include "router/api/chat.h"

#include <stdio.h>
#include <strings.h>

#include "common/clock.h"
#include "router/api/chat_continue.h"
#include "router/api/messages.h"
#include "router/api/request.h"

enum { KWARGS_MAX = 256 }; /* every reference to a variable may look at all of them */

struct chat_input chat_input_of(const struct field_values *v) {
    return (struct chat_input){
        .messages = v->messages,
        .documents = v->documents,
        .kwargs = v->chat_template_kwargs,
        .tools = v->tools,
        .reasoning_effort = v->reasoning_effort.v,
        .template = v->chat_template.v,
        .add_generation_prompt =
            v->add_generation_prompt.set ? v->add_generation_prompt.v : !v->continue_final_message.v,
        .asks_generation_prompt = v->add_generation_prompt.v,
        .continue_final = v->continue_final_message.v,
        .add_special = v->add_special.v,
    };
}

enum rc chat_check(const struct chat_input *in, const struct router_opts *o, struct err *e) {
    static const char *const reserved[] = {"messages", "chat_template", "tokenize", "continue_final_message"};
    enum rc rc = messages_check(in->messages, e);
    if (rc)
        return rc;
    if (in->template.p && !o->request_template)
        return err_set(e, RC_INVALID, "chat_template",
                       "chat_template: this server takes no templates from requests "
                       "(--no-request-chat-template)");
    if (in->template.p && in->template.n == 0)
        return err_set(e, RC_INVALID, "chat_template", "chat_template must not be empty");
    if (in->continue_final && in->asks_generation_prompt)
        return err_set(e, RC_INVALID, "continue_final_message",
                       "continue_final_message and add_generation_prompt exclude each other");
    for (size_t i = 0; i < ARRAY_LEN(reserved); i++)
        if (json_object_get(in->kwargs, reserved[i]))
            return err_set(e, RC_INVALID, "chat_template_kwargs", "chat_template_kwargs must not set %s",
                           reserved[i]);
    if (json_object_size(in->kwargs) > KWARGS_MAX)
        return err_set(e, RC_INVALID, "chat_template_kwargs",
                       "chat_template_kwargs: the number of members must be less_than_equal %d", KWARGS_MAX);
    return RC_OK;
}

/* ---- variables --------------------------------------------------------------------------------------- */

struct vars {
    struct tmpl_var *v;
    size_t n, cap;
    const json_t *over[2]; /* objects whose members win over what is added now */
};

static void add_var(struct vars *vars, const char *name, const json_t *value, bool client) {
    for (size_t i = 0; i < ARRAY_LEN(vars->over); i++)
        if (json_object_get(vars->over[i], name))
            return;
    CHECK(vars->n < vars->cap);
    vars->v[vars->n++] = (struct tmpl_var){.name = name, .value = value, .client = client};
}

static void add_members(struct vars *vars, json_t *obj, bool client) {
    for (void *it = obj ? json_object_iter(obj) : NULL; it; it = json_object_iter_next(obj, it))
        add_var(vars, json_object_iter_key(it), json_object_iter_value(it), client);
}

/* build_vars: api.md 10.1.3: later ones win, so an earlier one that a later set holds too is left out. */
static struct vars build_vars(const struct model_info *m, const struct chat_input *in, const json_t *effort,
                              struct arena *a) {
    enum { N_FIXED = 5 };
    struct vars vars = {.cap = N_FIXED + json_object_size(m->template_vars) +
                               json_object_size(m->default_kwargs) + json_object_size(in->kwargs)};
    vars.v = arena_zalloc(a, vars.cap, sizeof *vars.v);
    vars.over[0] = m->default_kwargs;
    vars.over[1] = in->kwargs;
    add_var(&vars, "messages", in->messages, true);
    add_var(&vars, "tools", in->tools ? in->tools : json_null(), true);
    add_var(&vars, "documents", in->documents ? in->documents : json_null(), true);
    add_var(&vars, "add_generation_prompt", json_boolean(in->add_generation_prompt), false);
    if (effort)
        add_var(&vars, "reasoning_effort", effort, true);
    add_members(&vars, m->template_vars, false);
    vars.over[0] = NULL;
    add_members(&vars, m->default_kwargs, false);
    vars.over[1] = NULL;
    add_members(&vars, in->kwargs, true);
    return vars;
}

/* ---- tokens ------------------------------------------------------------------------------------------ */

/* is_role: whether a stretch of client text is the name of a known role and nothing else. */
static bool is_role(const char *p, size_t n) {
    static const char *const roles[] = {"system",   "developer", "user",        "assistant", "tool",
                                        "function", "ipython",   "observation", "model"};
    for (size_t i = 0; i < ARRAY_LEN(roles); i++)
        if (n == strlen(roles[i]) && strncasecmp(p, roles[i], n) == 0)
            return true;
    return false;
}

/* client_marks: the stretches in which special tokens are plain text (api.md 10.4.3). Many templates write a
 * role into one, as in
 * `<|` + role + `|>`, so the name of a known role counts as the template's: it holds no token itself, and
 * client text beside it would have made the stretch longer, so only what the template puts around it can
 * complete one. Any other role stays marked. */
static struct tok_mark *client_marks(const struct tmpl_out *text, struct arena *a, size_t *n_marks) {
    struct tok_mark *marks = arena_zalloc(a, text->n_marks + 1, sizeof *marks);
    *n_marks = 0;
    for (size_t i = 0; i < text->n_marks; i++) {
        struct tmpl_mark m = text->marks[i];
        if (!is_role(text->text.data + m.begin, m.end - m.begin))
            marks[(*n_marks)++] = (struct tok_mark){m.begin, m.end};
    }
    return marks;
}

static void encode(const struct model_info *m, const struct router_opts *o, const struct tmpl_out *text,
                   bool add_special, struct arena *a, struct tok_ids *ids) {
    size_t n_marks = 0, begin = ids->n;
    const struct tok_mark *marks = spelled_is_text(o) ? client_marks(text, a, &n_marks) : NULL;
    tok_encode(m->tok, text->text.data, text->text.len, marks, n_marks, add_special ? TOK_ADD_SPECIAL : 0,
               ids);
    uint32_t bos;
    if (!add_special || !tok_bos(m->tok, &bos) || ids->n - begin < 2 || ids->v[begin] != bos ||
        ids->v[begin + 1] != bos)
        return;
    ids->n--; /* the template wrote BOS already (api.md 10.4.1) */
    memmove(ids->v + begin, ids->v + begin + 1, (ids->n - begin) * sizeof *ids->v);
}

/* ---- templates --------------------------------------------------------------------------------------- */

/* Which template renders a request. */
struct choice_of_template {
    const struct tmpl *t;
    bool openai;
    struct tmpl_held held; /* of the request's own */
};

/* own_template: the one that the request brings. */
static enum rc own_template(const struct model_info *m, const struct router_opts *o, struct str text,
                            struct choice_of_template *out, struct err *e) {
    struct err why = {0};
    enum rc rc = tmpl_cache_hold(m->templates, text, &out->held, &why);
    if (rc)
        return err_set(e, rc, "chat_template", "chat_template does not compile: %s", why.msg);
    out->t = out->held.t;
    out->openai = model_openai_content(out->t, o, out->held.fresh);
    return RC_OK;
}

/* choose: api.md 10.1.1. */
static enum rc choose(const struct model_info *m, const struct router_opts *o, const struct chat_input *in,
                      struct choice_of_template *out, struct err *e) {
    *out = (struct choice_of_template){0};
    if (in->template.p)
        return own_template(m, o, in->template, out, e);
    const struct model_template *own = in->tools && m->tools_apart ? &m->chat_tools : &m->chat;
    out->t = own->t;
    out->openai = own->openai;
    if (own->t)
        return RC_OK;
    if (own->why.rc)
        return err_set(e, RC_INVALID, "messages", "the model's chat template does not compile: %s",
                       own->why.msg);
    return err_set(e, RC_INVALID, "messages",
                   "model \"%.200s\" has no chat template: start the server with --chat-template",
                   m->facts.names[0]);
}

static enum rc render(const struct model_info *m, const struct router_opts *o, struct chat_input *in,
                      const struct choice_of_template *with, struct arena *a, struct tmpl_out *text,
                      struct err *e) {
    struct messages_form form = {
        .model_name = m->facts.names[0],
        .openai = with->openai,
        .developer_is_system = !tmpl_mentions(with->t, "developer"),
        .args = {.depth_max = (size_t)o->limit.json_depth,
                 .nodes_max = (size_t)o->limit.json_nodes,
                 .keys_max = (size_t)o->limit.json_keys},
    };
    struct chat_continue last;
    enum rc rc = messages_normalise(in->messages, &form, e);
    if (rc)
        return rc;
    if (in->continue_final)
        chat_continue_mark(&last, in->messages);
    json_t *effort =
        in->reasoning_effort.p ? json_stringn_nocheck(in->reasoning_effort.p, in->reasoning_effort.n) : NULL;
    struct vars vars = build_vars(m, in, effort, a);
    struct err why = {0};
    rc = tmpl_render(with->t, vars.v, vars.n, 0, a, text, &why);
    json_decref(effort);
    if (rc)
        return err_set(e, RC_INVALID, in->template.p ? "chat_template" : "messages", "chat template: %s",
                       why.msg);
    return in->continue_final ? chat_continue_cut(&last, text, e) : RC_OK;
}

enum rc chat_encode(const struct model_info *m, const struct router_opts *o, struct chat_input *in,
                    struct arena *a, struct tok_ids *ids, struct chat_times *times, struct err *e) {
    uint64_t start_ns = clock_ns();
    struct choice_of_template with;
    struct tmpl_out text = {0};
    enum rc rc = choose(m, o, in, &with, e);
    if (!rc)
        rc = render(m, o, in, &with, a, &text, e);
    if (!rc) {
        uint64_t rendered_ns = clock_ns();
        encode(m, o, &text, in->add_special, a, ids);
        times->template_ns += rendered_ns - start_ns;
        times->tokenize_ns += clock_ns() - rendered_ns;
    }
    tmpl_cache_drop(m->templates, &with.held);
    tmpl_out_fini(&text);
    return rc;
}
