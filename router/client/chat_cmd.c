#include "router/client/chat_cmd.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "router/client/chat.h"
#include "router/client/client_flags.h"

enum { EXIT_USAGE = 2, LINE_BYTES_MAX = 1 << 20 };

struct cmd {
    char *model, *api_key, *system;
    double temperature, timeout_s;
    int64_t max_tokens;
    bool insecure;
};

static const struct conf_flag flags[] = {
    CLIENT_MODEL_FLAGS,
    {.name = "system", .kind = CONF_STR, CLIENT_AT(system), .help = "a system message"},
    CLIENT_TEMPERATURE_FLAG,
    {.name = "max-tokens",
     .kind = CONF_INT,
     CLIENT_AT(max_tokens),
     .min = 1,
     .max = 1 << 24,
     .help = "of one answer [the server's]"},
    CLIENT_TIMEOUT_FLAG("seconds that an answer may take [600]"),
    CLIENT_INSECURE_FLAG,
};
static const struct conf_table table = {"weir chat [URL] [flags]    URL [http://127.0.0.1:8000/v1]", flags,
                                        ARRAY_LEN(flags), 1};

static const char help[] = "  /system TEXT   set the system message; without a text, take it away\n"
                           "  /reset         forget the conversation, but not the system message\n"
                           "  /save FILE     write the conversation as JSON\n"
                           "  /help          this list\n"
                           "  /quit          end; Ctrl-D does too\n"
                           "Ctrl-C stops the running answer; with none running, it ends.\n";

/* ---- lines from standard input ------------------------------------------------------------------ */

static volatile sig_atomic_t n_interrupts;

static void on_interrupt(int sig) {
    (void)sig;
    n_interrupts = n_interrupts + 1;
}

/* catch_interrupts: SIGINT is seen only where `open` is the mask, so none is missed between a look and a
 * wait. */
static void catch_interrupts(sigset_t *open) {
    struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: a wait ends */
    sigset_t closed;
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&closed);
    sigaddset(&closed, SIGINT);
    sigprocmask(SIG_BLOCK, &closed, open);
    sigdelset(open, SIGINT);
}

struct input {
    struct buf bytes;
    size_t n_taken; /* of bytes: the line given last */
    bool ended;
    sigset_t open;
};

enum { LINE_NONE, LINE_GIVEN, LINE_TOO_LONG };

/* next_line: without its end; holds until the next call. LINE_NONE: the input, or the user, has ended. */
static int next_line(struct input *in, struct str *line) {
    buf_drop(&in->bytes, in->n_taken);
    in->n_taken = 0;
    for (size_t seen = 0;;) {
        const char *data = in->bytes.data;
        const char *end = in->bytes.len > seen ? memchr(data + seen, '\n', in->bytes.len - seen) : NULL;
        if (end || (in->ended && in->bytes.len)) {
            size_t n = end ? (size_t)(end - data) : in->bytes.len;
            in->n_taken = n + (end != NULL);
            *line = (struct str){data, n && data[n - 1] == '\r' ? n - 1 : n};
            return LINE_GIVEN;
        }
        if (in->ended)
            return LINE_NONE;
        if (in->bytes.len > LINE_BYTES_MAX)
            return LINE_TOO_LONG;
        seen = in->bytes.len;
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        if (ppoll(&p, 1, NULL, &in->open) < 0)
            return LINE_NONE; /* Ctrl-C with nothing running */
        ssize_t n = read(STDIN_FILENO, buf_reserve(&in->bytes, 4096), 4096);
        in->ended = n <= 0;
        in->bytes.len += n > 0 ? (size_t)n : 0;
    }
}

/* ---- the conversation --------------------------------------------------------------------------- */

struct session {
    struct chat chat;
    struct input in;
    bool tty; /* somebody sits there */
    bool failed;
};

static void complain(struct session *s, const char *what) {
    fprintf(stderr, "weir: %s\n", what);
    s->failed = true;
}

/* argument: what stands behind a command's name; false if the line is another command. */
static bool is_command(struct str line, const char *name, struct str *argument) {
    size_t n = strlen(name);
    if (line.n < n || memcmp(line.p, name, n) || (line.n > n && line.p[n] != ' '))
        return false;
    while (n < line.n && line.p[n] == ' ')
        n++;
    *argument = (struct str){line.p + n, line.n - n};
    return true;
}

/* command: a line with a slash. False: end. */
static bool command(struct session *s, struct str line) {
    struct str arg;
    if (is_command(line, "/quit", &arg) || is_command(line, "/exit", &arg))
        return false;
    if (is_command(line, "/help", &arg)) {
        fputs(help, stdout);
    } else if (is_command(line, "/system", &arg)) {
        chat_system(&s->chat, arg);
    } else if (is_command(line, "/reset", &arg)) {
        chat_reset(&s->chat);
    } else if (is_command(line, "/save", &arg)) {
        struct err e;
        char *path = xstrndup(arg.n ? arg.p : "", arg.n);
        if (!arg.n)
            complain(s, "/save needs the name of a file");
        else if (chat_save(&s->chat, path, &e))
            complain(s, e.msg);
        free(path);
    } else {
        complain(s, "there is no such command; /help lists them");
    }
    fflush(stdout);
    return true;
}

static void print_figures(const struct chat *c) {
    double took_s = (double)c->took_ns / 1e9, first_s = (double)c->first_ns / 1e9;
    if (c->usage.n_completion > 1 && c->first_ns && took_s > first_s)
        printf("\x1b[2m%lld tokens, the first after %.0f ms, then %.1f a second\x1b[0m\n",
               (long long)c->usage.n_completion, first_s * 1e3,
               (double)(c->usage.n_completion - 1) / (took_s - first_s));
}

static void ask(struct session *s, struct str question) {
    struct err e = {0};
    n_interrupts = 0;
    enum rc rc = chat_ask(&s->chat, question, &e);
    if (rc == RC_AGAIN)
        fputs("weir: stopped\n", stderr);
    else if (rc)
        complain(s, e.msg);
    else if (s->tty)
        print_figures(&s->chat);
    n_interrupts = 0;
}

static void converse(struct session *s) {
    struct str line;
    for (;;) {
        if (s->tty)
            fputs("> ", stdout);
        fflush(stdout);
        int got = next_line(&s->in, &line);
        if (got == LINE_TOO_LONG)
            complain(s, "a line is too long");
        if (got != LINE_GIVEN)
            break;
        if (line.n && line.p[0] == '/') {
            if (!command(s, line))
                return;
        } else if (line.n) {
            ask(s, line);
        }
    }
    if (s->tty)
        putchar('\n');
}

static int run(const struct cmd *c, const char *url) {
    struct session s = {.tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    struct target t = {0};
    struct err e = {0};
    char *model = NULL;
    int status = 1;
    signal(SIGPIPE, SIG_IGN);
    if (key_check(c->api_key, &e) || target_open(&t, url, c->insecure, &e))
        goto out;
    if (!c->model && api_model(&t, c->api_key, &model, &e))
        goto out;
    chat_init(&s.chat);
    catch_interrupts(&s.in.open);
    s.chat.target = &t;
    s.chat.key = c->api_key;
    s.chat.model = c->model ? c->model : model;
    s.chat.temperature = c->temperature;
    s.chat.n_max = c->max_tokens;
    s.chat.timeout_ms = (int64_t)(c->timeout_s * 1e3);
    s.chat.shows_thought = s.tty;
    s.chat.stop = &n_interrupts;
    s.chat.during = s.in.open;
    if (c->system)
        chat_system(&s.chat, str_of(c->system));
    if (s.tty)
        printf("%s at %s; /help lists the commands\n", s.chat.model, url);
    converse(&s);
    chat_fini(&s.chat);
    status = s.failed && !s.tty;
out:
    if (e.msg[0])
        fprintf(stderr, "weir: %s\n", e.msg);
    target_close(&t);
    buf_fini(&s.in.bytes);
    free(model);
    return status;
}

int chat_cmd(int argc, char **argv) {
    struct cmd c = {.temperature = NAN, .timeout_s = 600};
    struct conf_list positional = {0};
    struct err e = {0};
    int status = EXIT_USAGE;
    if (conf_has(argc, argv, "--help") || conf_has(argc, argv, "-h")) {
        struct buf text = {0};
        conf_help(&table, &text);
        fwrite(text.data, 1, text.len, stdout);
        printf("\nA line is a question, or a command:\n%s", help);
        buf_fini(&text);
        status = 0;
    } else if (conf_parse(&table, argc, argv, &c, &positional, &e)) {
        fprintf(stderr, "weir: %s\n", e.msg);
    } else {
        status = run(&c, positional.n ? positional.v[0] : "http://127.0.0.1:8000/v1");
    }
    conf_free(&table, &c, &positional);
    return status;
}
