#include "router/client/chat.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"

#define DIM "\x1b[2m"
#define PLAIN "\x1b[0m"

void chat_init(struct chat *c) {
    *c = (struct chat){.temperature = NAN, .timeout_ms = 600000, .messages = json_array()};
    CHECK(c->messages);
    sigprocmask(SIG_SETMASK, NULL, &c->during);
}

void chat_fini(struct chat *c) {
    json_decref(c->messages);
    c->messages = NULL;
}

/* message: bytes that are no UTF-8 become U+FFFD: jansson takes no others. */
static json_t *message(const char *role, struct str text) {
    struct buf quoted = {0};
    struct err e;
    json_t *content = NULL;
    jw_str(&quoted, text);
    json_t *m = json_object();
    CHECK(m && !json_parse(buf_str(&quoted), NULL, &content, &e));
    buf_fini(&quoted);
    CHECK(!json_object_set_new(m, "role", json_string(role)) && !json_object_set_new(m, "content", content));
    return m;
}

static bool has_system(const struct chat *c) {
    const json_t *role = json_object_get(json_array_get(c->messages, 0), "role");
    return role && !strcmp(json_string_value(role), "system");
}

void chat_system(struct chat *c, struct str text) {
    if (has_system(c))
        CHECK(!json_array_remove(c->messages, 0));
    if (text.n)
        CHECK(!json_array_insert_new(c->messages, 0, message("system", text)));
}

void chat_reset(struct chat *c) {
    size_t kept = has_system(c);
    while (json_array_size(c->messages) > kept)
        CHECK(!json_array_remove(c->messages, kept));
}

static void body_of(const struct chat *c, struct buf *out) {
    buf_addz(out, "{\"model\":");
    jw_strz(out, c->model);
    buf_addz(out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    if (!isnan(c->temperature)) {
        buf_addz(out, ",\"temperature\":");
        jw_f64(out, c->temperature);
    }
    if (c->n_max) {
        buf_addz(out, ",\"max_tokens\":");
        jw_i64(out, c->n_max);
    }
    buf_addz(out, ",\"messages\":");
    jw_json(out, c->messages);
    buf_addc(out, '}');
}

struct answer {
    struct chat *chat;
    struct buf text, thought, shown;
    size_t n_shown;
    bool dimmed, complete;
    uint64_t start_ns;
    struct chunk chunk;
    enum rc rc;
    struct err e;
};

static void write_out(struct answer *a) {
    if (a->shown.len)
        fwrite(a->shown.data, 1, a->shown.len, stdout);
    fflush(stdout);
    a->shown.len = 0;
}

/* show: what the event brought. */
static void show(struct answer *a) {
    bool thinks = a->thought.len > 0;
    if (thinks && a->chat->shows_thought) {
        buf_addz(&a->shown, DIM);
        clean_text(&a->shown, buf_str(&a->thought));
        buf_addz(&a->shown, PLAIN);
        a->dimmed = true;
    }
    a->thought.len = 0;
    if (a->n_shown < a->text.len) {
        if (a->dimmed)
            buf_addz(&a->shown, "\n\n");
        a->dimmed = false;
        clean_text(&a->shown, (struct str){a->text.data + a->n_shown, a->text.len - a->n_shown});
        a->n_shown = a->text.len;
    }
    write_out(a);
}

static bool on_event(void *arg, struct str data) {
    struct answer *a = arg;
    a->rc = chunk_read(data, &a->chunk, &a->e);
    if (!a->rc && a->text.len > CHAT_ANSWER_BYTES_MAX)
        a->rc =
            err_set(&a->e, RC_TOO_LARGE, NULL, "the answer is longer than %d bytes", CHAT_ANSWER_BYTES_MAX);
    if (a->rc)
        return false;
    a->complete |= a->chunk.last || a->chunk.finished;
    if (a->chunk.has_output && !a->chat->first_ns)
        a->chat->first_ns = clock_ns() - a->start_ns;
    show(a);
    return !a->chunk.last;
}

static enum rc stream(struct chat *c, struct answer *a, struct err *e) {
    struct buf body = {0}, request = {0};
    struct exchange x;
    body_of(c, &body);
    target_request(c->target, "/chat/completions", c->key, buf_str(&body), &request);
    buf_fini(&body);
    enum rc rc = exchange_start(&x, c->target, &request, on_event, a, e);
    if (!rc)
        rc = exchange_run(&x, c->timeout_ms, c->stop, &c->during, e);
    if (!rc)
        rc = api_check(&x, e);
    if (!rc && a->rc) {
        *e = a->e;
        rc = a->rc;
    } else if (!rc && !x.resp.event_stream) {
        rc = err_set(e, RC_PROTO, NULL, "the server's answer is no event stream");
    } else if (!rc && !a->complete) {
        rc = err_set(e, RC_CLOSED, NULL, "the stream ended before the answer did");
    }
    exchange_close(&x);
    return rc;
}

enum rc chat_ask(struct chat *c, struct str question, struct err *e) {
    struct answer a = {.chat = c, .start_ns = clock_ns(), .chunk.usage = {-1, -1}};
    a.chunk.text = &a.text;
    a.chunk.reasoning = &a.thought;
    c->first_ns = 0;
    CHECK(!json_array_append_new(c->messages, message("user", question)));
    enum rc rc = stream(c, &a, e);
    c->took_ns = clock_ns() - a.start_ns;
    c->usage = a.chunk.usage;
    if (a.n_shown || a.dimmed)
        putchar('\n');
    if (!rc || (rc == RC_AGAIN && a.text.len))
        CHECK(!json_array_append_new(c->messages, message("assistant", buf_str(&a.text))));
    else
        CHECK(!json_array_remove(c->messages, json_array_size(c->messages) - 1));
    fflush(stdout);
    buf_fini(&a.text);
    buf_fini(&a.thought);
    buf_fini(&a.shown);
    return rc;
}

enum rc chat_save(const struct chat *c, const char *path, struct err *e) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f)
        return err_io(e, path);
    json_t *all = json_pack("{s:s, s:O}", "model", c->model, "messages", c->messages);
    CHECK(all);
    bool ok = json_dumpf(all, f, JSON_INDENT(2)) == 0 && fputc('\n', f) != EOF;
    json_decref(all);
    ok = fclose(f) == 0 && ok;
    return ok ? RC_OK : err_io(e, path);
}
