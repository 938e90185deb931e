/* weir: subcommands, flags, signals. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hf/repo.h"
#include "common/link/link.h"
#include "common/log.h"
#include "common/version.h"
#include "router/client/bench_cmd.h"
#include "router/client/chat_cmd.h"
#include "router/flags.h"
#include "router/fleet/discover.h"
#include "router/grammar_cmd.h"
#include "router/healthcheck.h"
#include "router/launch.h"
#include "router/reload.h"
#include "router/router.h"

enum { EXIT_USAGE = 2 };

/* For the signal handlers; set before they are. */
static struct router *the_router;
static struct launch *the_launch;
static struct discover *the_discover;
static struct reload *the_reload;

static void on_signal(int sig) {
    (void)sig;
    router_shutdown(the_router);
}

static void on_hangup(int sig) {
    (void)sig;
    router_reload(the_router);
    discover_again(the_discover);
    reload_ask(the_reload);
}

static void on_roll(int sig) {
    (void)sig;
    launch_roll(the_launch);
}

/* ---- subcommands -------------------------------------------------------------------------------- */

static void catch_signals(struct router *r, bool reloads) {
    struct sigaction sa = {.sa_handler = on_signal}, hangup = {.sa_handler = on_hangup};
    the_router = r;
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    if (reloads) /* without a file to read again it ends the process, as it does by default */
        sigaction(SIGHUP, &hangup, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* A parent may have left these ignored or blocked: then children could not be waited for, nor this
     * process be told to end. */
    sigset_t told;
    sigemptyset(&told);
    sigaddset(&told, SIGTERM);
    sigaddset(&told, SIGINT);
    sigprocmask(SIG_UNBLOCK, &told, NULL);
    signal(SIGCHLD, SIG_DFL);
}

static bool is_loopback(const char *host) {
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

/* where: what a client is told to connect to. */
static void where(const struct router_opts *o, int port, struct buf *out) {
    bool v6 = strchr(o->host, ':') != NULL;
    if (o->uds)
        buf_addf(out, "unix:%s", o->uds);
    else
        buf_addf(out, "%s://%s%s%s:%d/v1", o->ssl_certfile ? "https" : "http", v6 ? "[" : "", o->host,
                 v6 ? "]" : "", port);
}

/* line: the command line, without the program. */
struct line {
    int argc;
    char **argv;
};

static bool has_config(const struct line *line) {
    static const char flag[] = "--config";
    for (int i = 1; i < line->argc; i++)
        if (!strcmp(line->argv[i], flag) || !strncmp(line->argv[i], "--config=", sizeof flag))
            return true;
    return false;
}

static int run(struct weir_opts *o, const char *model, const struct conf_table *table, const struct line *line,
               uint64_t started_ns) {
    struct err e = {0};
    struct router *r = NULL;
    struct launch *l = NULL;
    struct discover *d = NULL;
    struct reload *again = NULL;
    struct conf_list argv = {0};
    struct buf shown = {0}, url = {0};
    int status = 1;

    if (router_new(&r, &o->r, &e) != RC_OK)
        goto out;
    buf_addz(&shown, "configuration ");
    conf_show(table, o, &shown);
    for (size_t i = 0; i < shown.len; i++)
        if ((unsigned char)shown.data[i] < ' ')
            shown.data[i] = ' '; /* a template given as text has lines */
    LOG(LOG_INFO, buf_cstr(&shown));
    where(&o->r, router_port(r), &url);
    if (!o->r.api_keys.n && !o->r.api_key_file && !o->r.uds && !is_loopback(o->r.host))
        LOG(LOG_WARN, "listening beyond this machine, and nobody has to show a key",
            F_STR("host", o->r.host));
    if (!model && discover_start(&d, &o->r, r, &e) != RC_OK)
        goto out;
    if (has_config(line))
        again = reload_start(&(struct reload_opts){.table = table,
                                                   .argc = line->argc,
                                                   .argv = line->argv,
                                                   .serve = model != NULL,
                                                   .now = o,
                                                   .router = r});
    the_discover = d;
    the_reload = again;
    catch_signals(r, o->r.api_key_file || o->r.ssl_certfile || o->r.worker_file || again);
    if (!model)
        LOG(LOG_INFO, "listening", F_STR("url", buf_cstr(&url)));
    if (model) {
        worker_flags_argv(&o->w, &argv);
        struct launch_opts lo = {.model = model,
                                 .worker_argv = &argv,
                                 .n_workers = (unsigned)o->n_workers,
                                 .gpus_each = strcmp(o->w.device, "cpu") ? (unsigned)o->w.tensor_parallel : 0,
                                 .router = r,
                                 .drain_timeout_s = o->r.shutdown_timeout_s,
                                 .url = buf_cstr(&url),
                                 .started_ns = started_ns};
        if (launch_start(&l, &lo, &e) != RC_OK)
            goto out;
        struct sigaction sa = {.sa_handler = on_roll};
        the_launch = l;
        sigaction(SIGUSR1, &sa, NULL);
    }
    bool peaceful = router_run(r);
    signal(SIGUSR1, SIG_IGN); /* what they tell ends before the router does */
    signal(SIGHUP, SIG_IGN);
    bool started = launch_stop(l, !peaceful);
    l = NULL;
    status = peaceful && started ? 0 : 1;
out:
    if (e.msg[0])
        fprintf(stderr, "weir: %s\n", e.msg);
    launch_stop(l, true);
    discover_stop(d);
    reload_stop(again);
    router_free(r);
    for (size_t i = 0; i < argv.n; i++)
        free(argv.v[i]);
    free(argv.v);
    buf_fini(&shown);
    buf_fini(&url);
    return status;
}

static enum rc check_workers(const struct conf_list *urls, struct err *e) {
    enum rc rc = RC_OK;
    for (size_t i = 0; i < urls->n && rc == RC_OK; i++)
        rc = link_check_url(urls->v[i], e);
    return rc;
}

/* take_key: the environment's key, if no flag gives one; workers do not inherit it. */
static void take_key(struct router_opts *o) {
    static const char *const names[] = {"WEIR_API_KEY", "VLLM_API_KEY"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *key = getenv(names[i]);
        if (key && *key && !o->api_keys.n && !o->api_key_file) {
            o->api_keys.v = xcalloc(1, sizeof *o->api_keys.v);
            o->api_keys.v[o->api_keys.n++] = xstrdup(key);
        }
        unsetenv(names[i]);
    }
}

static int serve_or_route(bool serve, int argc, char **argv, uint64_t started_ns) {
    struct conf_flag *rows = xcalloc(WEIR_FLAG_ROWS_MAX, sizeof *rows);
    struct conf_table table = weir_flags(rows, serve);
    struct conf_list positional = {0};
    struct weir_opts o;
    struct err e = {0};
    int status = EXIT_USAGE;

    weir_opts_init(&o);
    if (conf_has(argc, argv, "--help") || conf_has(argc, argv, "-h")) {
        struct buf help = {0};
        conf_help(&table, &help);
        fwrite(help.data, 1, help.len, stdout);
        buf_fini(&help);
        status = 0;
    } else if (conf_parse(&table, argc, argv, &o, &positional, &e) != RC_OK ||
               check_workers(&o.r.workers, &e) != RC_OK || discover_check(&o.r, &e) != RC_OK ||
               weir_opts_check(&o, &e) != RC_OK) {
        fprintf(stderr, "weir: %s\n", e.msg);
    } else if (serve && positional.n != 1) {
        fprintf(stderr, "weir: name one MODEL: %s\n", table.usage);
    } else if (serve && hf_repo_check(positional.v[0], o.w.revision, &e) != RC_OK) {
        fprintf(stderr, "weir: %s\n", e.msg);
    } else if (!serve && !o.r.workers.n && !o.r.worker_file && !o.r.worker_dns.n && !o.r.worker_endpoints) {
        fprintf(stderr, "weir: name at least one worker, or where to find some: %s\n", table.usage);
    } else {
        weir_opts_settle(&o, serve);
        take_key(&o.r);
        status = run(&o, serve ? positional.v[0] : NULL, &table, &(struct line){argc, argv}, started_ns);
    }
    weir_opts_free(&o, &positional);
    free(rows);
    return status;
}

static void usage(FILE *f) {
    fputs("weir " WEIR_VERSION ": an OpenAI-compatible inference server\n\n"
          "  weir serve MODEL [flags]              start workers for a model folder and serve it\n"
          "  weir router --worker ADDRESS [flags]  serve workers that run elsewhere\n"
          "  weir chat [URL]                       a chat in the terminal; see weir chat --help\n"
          "  weir bench serve [URL]                a measured load on a server; see weir bench --help\n"
          "  weir grammar --json-schema S TEXT     try a constraint on a text; see weir grammar --help\n"
          "  weir --healthcheck [URL]              exit 0 if a server answers\n"
          "  weir --version\n\n"
          "weir serve --help and weir router --help list the flags.\n",
          f);
}

int main(int argc, char **argv) {
    uint64_t started_ns = clock_ns();
    /* Large buffers come from the kernel and go back to it. Left alone, the allocator takes the first one
     * that is freed as a reason to keep up to 32 MiB of them, for each thread. */
    (void)mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
    log_set_name("router");
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("weir " WEIR_VERSION);
        return 0;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--healthcheck"))
        return healthcheck(argc > 2 ? argv[2] : NULL);
    if (!strcmp(argv[1], "serve") || !strcmp(argv[1], "router"))
        return serve_or_route(argv[1][0] == 's', argc - 1, argv + 1, started_ns);
    if (!strcmp(argv[1], "grammar"))
        return grammar_cmd(argc - 1, argv + 1);
    if (!strcmp(argv[1], "bench"))
        return bench_cmd(argc - 1, argv + 1);
    if (!strcmp(argv[1], "chat"))
        return chat_cmd(argc - 1, argv + 1);
    fprintf(stderr, "weir: unknown command '%.64s'\n\n", argv[1]);
    usage(stderr);
    return EXIT_USAGE;
}
