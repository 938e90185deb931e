/* The chat templates of a model: where they come from, and what they get as content (api.md 10.1, 10.3). */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/log.h"
#include "router/api/model_info.h"

/* read_template: --chat-template is a path, or literal text if it cannot be opened and looks like a template
 * (api.md 10.1.2). */
static enum rc read_template(const char *value, size_t bytes_max, struct buf *out, struct err *e) {
    int fd = open(value, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && strpbrk(value, "{}\n")) {
        buf_addz(out, value);
        return RC_OK;
    }
    if (fd < 0)
        return err_set(e, RC_INVALID, NULL, "--chat-template %s: %s", value, strerror(errno));
    enum rc rc = RC_OK;
    for (ssize_t n = 1; n > 0 && out->len <= bytes_max;) {
        n = read(fd, buf_reserve(out, 16 * KIB), 16 * KIB);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n < 0)
            rc = err_set(e, RC_INVALID, NULL, "--chat-template %s: %s", value, strerror(errno));
        else
            out->len += (size_t)n;
    }
    close(fd);
    return rc;
}

static struct str text_of(const json_t *v) {
    return (struct str){json_string_value(v), json_string_length(v)};
}

/* named: the text of the template of that name in a list of {name, template}, else empty. */
static struct str named(const json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *its = json_string_value(json_object_get(item, "name"));
        struct str text = text_of(json_object_get(item, "template"));
        if (its && !strcmp(its, name) && text.n)
            return text;
    }
    return (struct str){0};
}

bool model_openai_content(const struct tmpl *t, const struct router_opts *o, bool fresh) {
    const char *format = o->chat_template_content_format;
    bool openai = tmpl_uses_openai_content(t);
    if (format && strcmp(format, "auto"))
        return !strcmp(format, "openai");
    if (!fresh)
        return openai;
    if (openai)
        LOG(LOG_INFO, "Detected the chat template content format to be 'openai'");
    else
        LOG(LOG_INFO, "Detected the chat template content format to be 'string'");
    return openai;
}

static void compile(struct model_template *out, struct str text, const struct tmpl_limits *limits,
                    const struct router_opts *o) {
    if (!text.n)
        return;
    if (tmpl_compile(&out->t, text, limits, &out->why))
        LOG(LOG_WARN, "a chat template does not compile", F_STR("reason", out->why.msg));
    else
        out->openai = model_openai_content(out->t, o, true);
}

enum rc model_templates_load(struct model_info *m, const json_t *config, const json_t *processor,
                             struct str file, const struct router_opts *o, struct err *e) {
    const struct tmpl_limits limits = {
        .template_bytes_max = (size_t)o->limit.template_bytes,
        .steps_max = (uint64_t)o->limit.template_steps,
        .output_bytes_max = (size_t)o->limit.template_output,
        .depth_max = (unsigned)o->limit.template_depth,
    };
    struct buf given = {0};
    m->templates = tmpl_cache_new(&limits);
    if (o->chat_template) {
        enum rc rc = read_template(o->chat_template, limits.template_bytes_max, &given, e);
        if (!rc)
            compile(&m->chat, buf_str(&given), &limits, o);
        if (!rc && o->tokenizer_info)
            m->chat_text = buf_take(&given);
        buf_fini(&given);
        return rc;
    }
    /* The processor's template knows no tools; of the tokenizer's, one may be for tools. */
    const json_t *own = json_object_get(config, "chat_template");
    const json_t *other = json_object_get(processor, "chat_template");
    struct str plain = json_is_array(own) ? named(own, "default") : text_of(own);
    struct str tools = json_is_array(own) ? named(own, "tool_use") : plain;
    tools = tools.n ? tools : plain.n ? plain : file;
    plain = plain.n ? plain : file;
    struct str processors = json_is_array(other) ? named(other, "default") : text_of(other);
    plain = processors.n ? processors : plain;
    compile(&m->chat, plain, &limits, o);
    if (o->tokenizer_info && plain.n)
        m->chat_text = xstrndup(plain.p, plain.n);
    m->tools_apart = !str_eq(plain, tools);
    if (m->tools_apart)
        compile(&m->chat_tools, tools, &limits, o);
    return RC_OK;
}
