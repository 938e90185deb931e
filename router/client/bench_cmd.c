#include "router/client/bench_cmd.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "router/client/bench.h"
#include "router/client/client_flags.h"

enum { EXIT_USAGE = 2, PROMPTS_MAX = 1000000, TOKENS_MAX = 1 << 20 };

struct cmd {
    char *model, *api_key, *endpoint, *shape, *goodput;
    int64_t num_prompts, concurrency, input_len, output_len, max_total_len, prefix_len, n_prefixes, seed;
    double request_rate, temperature, timeout_s;
    bool json, ignore_eos, insecure;
};

#define INT_FLAG(flag_name, field, least, most, text)                                                        \
    { .name = flag_name, .kind = CONF_INT, CLIENT_AT(field), .min = least, .max = most, .help = text }
static const struct conf_flag flags[] = {
    CLIENT_MODEL_FLAGS,
    {.name = "endpoint", .kind = CONF_ENUM, CLIENT_AT(endpoint), .choices = "chat|completions", .help = "[chat]"},
    INT_FLAG("num-prompts", num_prompts, 1, PROMPTS_MAX, "requests to send [100]"),
    {.name = "request-rate",
     .kind = CONF_FLOAT,
     CLIENT_AT(request_rate),
     .min = 0.001,
     .max = 100000,
     .help = "open loop: Poisson arrivals, this many a second"},
    INT_FLAG("concurrency", concurrency, 1, BENCH_CONNECTIONS_MAX, "closed loop: this many at once [8]"),
    {.name = "shape",
     .kind = CONF_ENUM,
     CLIENT_AT(shape),
     .choices = "fixed|sharegpt|prefix",
     .help = "lengths of prompts and answers, see below [fixed]"},
    INT_FLAG("input-len", input_len, 1, TOKENS_MAX,
             "fixed, prefix: tokens of a prompt, without its prefix [128]"),
    INT_FLAG("output-len", output_len, 1, TOKENS_MAX, "fixed, prefix: most tokens of an answer [128]"),
    INT_FLAG("prefix-len", prefix_len, 1, TOKENS_MAX, "prefix: tokens of a shared prefix [256]"),
    INT_FLAG("n-prefixes", n_prefixes, 1, TOKENS_MAX, "prefix: how many there are, in turn [4]"),
    INT_FLAG("max-total-len", max_total_len, 8, TOKENS_MAX,
             "sharegpt: tokens of prompt and answer, at most [1920]"),
    INT_FLAG("seed", seed, 0, 9e15, "of lengths, words and arrivals [0]"),
    CLIENT_TEMPERATURE_FLAG,
    {.name = "ignore-eos",
     .kind = CONF_BOOL,
     CLIENT_AT(ignore_eos),
     .help = "send ignore_eos, so that answers have their full length; Weir and vLLM know it"},
    {.name = "goodput",
     .kind = CONF_STR,
     CLIENT_AT(goodput),
     .help = "ttft:MS,tpot:MS,e2e:MS: also count the requests that meet every goal given"},
    CLIENT_TIMEOUT_FLAG("seconds that a request may take [600]"),
    {.name = "json", .kind = CONF_BOOL, CLIENT_AT(json), .help = "one JSON object instead of a table"},
    CLIENT_INSECURE_FLAG,
};
static const struct conf_table table = {"weir bench serve [URL] [flags]    URL [http://127.0.0.1:8000/v1]",
                                        flags, ARRAY_LEN(flags), 1};

static const char notes[] = "\nShapes: `fixed`: every request alike. `prefix`: prompts share prefixes, as "
                            "system messages are shared.\n"
                            "`sharegpt`: lengths from two log-normal distributions, of prompts with median "
                            "90 and sigma 1.2, of answers\n"
                            "with median 140 and sigma 0.9, each cut to 4..1024. Prompts are common English "
                            "words; how many tokens a word\n"
                            "has is asked of the server first, by two requests for one token.\n"
                            "Every request has a connection of its own, at most 1024 at once. In an open "
                            "loop a request's time begins when\n"
                            "it is due. Token counts are the server's usage; percentiles are exact to 0.4 %. "
                            "The exit status is 1 if a\n"
                            "request failed.\n";

/* read_goals: "ttft:200,tpot:50": each name once, any order. */
static enum rc read_goals(const char *text, uint64_t *goal_ns, struct err *e) {
    static const char *const names[] = {"ttft", "tpot", "e2e"};
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t i = 0, n = strcspn(at, ":,");
        while (i < ARRAY_LEN(names) && (n != strlen(names[i]) || memcmp(at, names[i], n)))
            i++;
        char *end = NULL;
        double ms = i < ARRAY_LEN(names) && at[n] == ':' ? strtod(at + n + 1, &end) : 0;
        if (!end || (*end && *end != ',') || !(ms > 0 && ms < 1e9) || goal_ns[i])
            return err_set(e, RC_INVALID, NULL, "--goodput takes ttft:MS,tpot:MS,e2e:MS, not \"%.100s\"",
                           text);
        goal_ns[i] = (uint64_t)(ms * 1e6);
    }
    return RC_OK;
}

static enum rc settle(const struct cmd *c, const char *url, struct bench_opts *o, struct err *e) {
    *o = (struct bench_opts){.url = url,
                             .key = c->api_key,
                             .chat = !c->endpoint || !strcmp(c->endpoint, "chat"),
                             .n_prompts = c->num_prompts,
                             .n_concurrent = c->concurrency ? c->concurrency : 8,
                             .rate = c->request_rate,
                             .n_input = c->input_len,
                             .n_output = c->output_len,
                             .n_total_max = c->max_total_len,
                             .n_prefix = c->prefix_len,
                             .n_prefixes = c->n_prefixes,
                             .seed = (uint64_t)c->seed,
                             .timeout_s = c->timeout_s,
                             .temperature = c->temperature,
                             .ignore_eos = c->ignore_eos};
    if (c->shape && strcmp(c->shape, "fixed"))
        o->shape = !strcmp(c->shape, "prefix") ? SHAPE_PREFIX : SHAPE_SHAREGPT;
    if (c->request_rate > 0 && c->concurrency)
        return err_set(e, RC_INVALID, NULL,
                       "--request-rate is an open loop, --concurrency a closed one: give one");
    enum rc rc = c->goodput ? read_goals(c->goodput, o->goal_ns, e) : RC_OK;
    return rc ? rc : key_check(c->api_key, e);
}

/* measure: the exit status. */
static int measure(const struct cmd *c, struct bench_opts *o) {
    struct bench_item *items = NULL;
    struct bench_result *r = xcalloc(1, sizeof *r);
    struct bench_fit fit = {0};
    struct target t = {0};
    struct buf out = {0};
    struct err e = {0};
    char *model = NULL;
    int status = 1;
    signal(SIGPIPE, SIG_IGN);
    if (target_open(&t, o->url, c->insecure, &e) || (!c->model && api_model(&t, o->key, &model, &e)))
        goto out;
    o->model = c->model ? c->model : model;
    items = xcalloc((size_t)o->n_prompts, sizeof *items);
    bench_plan(o, items);
    if (bench_fit_words(o, &t, &fit, &e) || bench_run(o, &t, &fit, items, r, &e))
        goto out;
    (c->json ? bench_report_json : bench_report_table)(o, &fit, r, &out);
    fwrite(out.data, 1, out.len, stdout);
    status = r->n_failed > 0;
out:
    if (e.msg[0])
        fprintf(stderr, "weir: %s\n", e.msg);
    target_close(&t);
    buf_fini(&out);
    free(items);
    free(model);
    free(r);
    return status;
}

int bench_cmd(int argc, char **argv) {
    struct cmd c = {.num_prompts = 100,
                    .input_len = 128,
                    .output_len = 128,
                    .max_total_len = 1920,
                    .prefix_len = 256,
                    .n_prefixes = 4,
                    .temperature = NAN,
                    .timeout_s = 600};
    struct conf_list positional = {0};
    struct bench_opts o;
    struct err e = {0};
    int status = EXIT_USAGE;
    if (conf_has(argc, argv, "--help") || conf_has(argc, argv, "-h")) {
        struct buf help = {0};
        conf_help(&table, &help);
        buf_addz(&help, notes);
        fwrite(help.data, 1, help.len, stdout);
        buf_fini(&help);
        return 0;
    }
    if (argc < 2 || strcmp(argv[1], "serve")) {
        fprintf(stderr, "weir: what is to be measured? %s\n", table.usage);
        return EXIT_USAGE;
    }
    if (conf_parse(&table, argc - 1, argv + 1, &c, &positional, &e) ||
        settle(&c, positional.n ? positional.v[0] : "http://127.0.0.1:8000/v1", &o, &e))
        fprintf(stderr, "weir: %s\n", e.msg);
    else
        status = measure(&c, &o);
    conf_free(&table, &c, &positional);
    return status;
}
