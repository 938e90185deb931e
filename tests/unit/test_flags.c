/* Every flag of api.md 22.2, 22.3, 22.4 and 18, in every program that must know it: served, accepted and
 * ignored with a reason, or refused with one. None of them may be an unknown flag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/apart_flags.h"
#include "common/log.h"
#include "router/flags.h"
#include "worker/flags.h"

enum program { SERVE = 1, ROUTER = 2, WORKER = 4, SR = SERVE | ROUTER, SW = SERVE | WORKER, ALL = 7 };
enum standing { SERVED, IGNORED, REFUSED };

static const struct row {
    const char *words; /* of the line, as written */
    unsigned in;
    enum standing standing;
} rows[] = {
    /* 22.2 */
    {"--host 127.0.0.1", SR, SERVED},
    {"--port 1", SR, SERVED},
    {"--uds /tmp/x", SR, SERVED},
    {"--http2", SR, SERVED},
    {"--no-http2", SR, SERVED},
    {"--api-key a b", SR, SERVED},
    {"--api-key-file /x", SR, SERVED},
    {"--metrics-auth", SR, SERVED},
    {"--ssl-certfile /x", SR, SERVED},
    {"--ssl-keyfile /x", SR, SERVED},
    {"--ssl-ca-certs /x", SR, SERVED},
    {"--ssl-cert-reqs 2", SR, SERVED},
    {"--allowed-origins [\"*\"]", SR, SERVED},
    {"--allowed-methods [\"*\"]", SR, SERVED},
    {"--allowed-headers [\"*\"]", SR, SERVED},
    {"--allow-credentials", SR, SERVED},
    {"--enable-request-id-headers", SR, SERVED},
    {"--disable-fastapi-docs", SR, SERVED},
    {"--no-playground", SR, SERVED},
    {"--root-path /x", SR, SERVED},
    {"--http-keep-alive 65", SR, SERVED},
    {"--sse-keepalive 0", SR, SERVED},
    {"--stream-interval 1", SR, SERVED},
    {"--stream-interval 20", SR, SERVED},
    {"--stream-interval 0", SR, REFUSED},
    {"--write-timeout 60", SR, SERVED},
    {"--enable-prompt-tokens-details", SR, SERVED},
    {"--enable-force-include-usage", SR, SERVED},
    {"--enable-tokenizer-info-endpoint", SR, SERVED},
    {"--enable-admin-api", SR, SERVED},
    {"--max-queued-requests 2048", SR, SERVED},
    {"--queue-timeout 0", SR, SERVED},
    {"--request-timeout 0", SR, SERVED},
    {"--shutdown-timeout 30", SR, SERVED},
    {"--engine-stall-timeout 60", SR, SERVED},
    {"--served-model-name a b", ALL, SERVED},
    {"--task auto", SW, SERVED},
    {"--task embed", SW, SERVED},
    {"--runner generate", SW, SERVED},
    {"--runner pooling", SW, SERVED},
    {"--convert none", SW, SERVED},
    {"--convert embed", SW, SERVED},
    {"--chat-template x", SR, SERVED},
    {"--chat-template-content-format openai", SR, SERVED},
    {"--default-chat-template-kwargs {\"a\":1}", SR, SERVED},
    {"--request-chat-template", SR, SERVED},
    {"--no-request-chat-template", SR, SERVED},
    {"--trust-request-chat-template", SR, SERVED},
    {"--response-role assistant", SR, SERVED},
    {"--special-tokens-in-content text", SR, SERVED},
    {"--enable-auto-tool-choice", SR, SERVED},
    {"--tool-call-parser hermes", SR, SERVED},
    {"--tool-call-parser xlam", SR, REFUSED},
    {"--exclude-tools-when-tool-choice-none", SR, SERVED},
    {"--enforce-parallel-tool-calls", SR, SERVED},
    {"--reasoning-parser qwen3", SR, SERVED},
    {"--reasoning-parser glm45", SR, REFUSED},
    {"--return-tokens-as-token-ids", SR, SERVED},
    {"--generation-config vllm", SR, SERVED},
    {"--generation-config /some/folder", SR, SERVED},
    {"--override-generation-config {\"top_k\":1}", SR, SERVED},
    {"--guided-decoding-backend xgrammar", SR, SERVED},
    {"--guided-decoding-backend other", SR, REFUSED},
    {"--guided-decoding-backend auto", SR, SERVED},
    {"--guided-decoding-disable-any-whitespace", SR, SERVED},
    {"--guided-decoding-disable-additional-properties", SR, SERVED},
    {"--structured-outputs-config {}", SR, SERVED},
    {"--structured-outputs-config.backend xgrammar", SR, SERVED},
    {"--grammar-cache-mb 256", ALL, SERVED},
    {"--allowed-local-media-path /x", SR, REFUSED},
    {"--allowed-media-domains x", SR, REFUSED},
    {"--allowed-media-cidr 10.0.0.0/8", SR, REFUSED},
    {"--interleave-mm-strings", SR, REFUSED},
    {"--mm-processor-kwargs {}", SR, REFUSED},
    {"--enable-log-requests", SR, SERVED},
    {"--enable-log-outputs", SR, SERVED},
    {"--max-log-len 512", SR, SERVED},
    {"--enable-log-outputs", WORKER, IGNORED},
    {"--max-log-len 512", WORKER, IGNORED},
    {"--log-level info", ALL, SERVED},
    {"--tokenizer /x", SW, SERVED},
    {"--revision main", SW, SERVED},
    {"--hf-overrides {\"a\":1}", SW, SERVED},
    {"--hf-overrides.rope_theta 1e6", SW, SERVED},
    {"--seed 1", SR, SERVED},
    {"--dtype auto", SW, SERVED},
    {"--kv-cache-dtype auto", SW, SERVED},
    {"--max-model-len 4k", SW, SERVED},
    {"--device cpu", SW, SERVED},
    {"--gpu-memory-utilization 0.5", SW, SERVED},
    {"--kv-cache-memory-bytes 1GiB", SW, SERVED},
    {"--num-gpu-blocks-override 100", SW, SERVED},
    {"--block-size 16", SW, SERVED},
    {"--block-size 32", SW, REFUSED},
    {"--max-num-seqs 256", SW, SERVED},
    {"--max-num-batched-tokens 2048", SW, SERVED},
    {"--long-prefill-token-threshold 0", SW, SERVED},
    {"--scheduling-policy fcfs", SW, SERVED},
    {"--enable-prefix-caching", SW, SERVED},
    {"--enable-chunked-prefill", SW, SERVED},
    {"--tensor-parallel-size 2", SW, SERVED},
    {"-tp 1", SW, SERVED},
    {"-tp 2", SW, SERVED},
    {"-tp 33", SW, REFUSED},
    {"--data-parallel-size 1", SW, SERVED},
    {"-dp 1", ALL, SERVED},
    {"-dp 2", SERVE, SERVED},
    {"-dp 2", ROUTER | WORKER, REFUSED},
    {"-dp 0", SERVE, REFUSED},
    {"--enforce-eager", SW, SERVED},
    {"--deterministic", SW, SERVED},
    {"--disable-custom-all-reduce", SW, SERVED},
    {"--load-format dummy", SW, SERVED},
    {"--quantization fp8", SW, SERVED},
    {"-q fp8", SW, SERVED},
    {"--kv-cache-dtype fp8", SW, SERVED},
    {"--otlp-traces-endpoint http://x:4318", SR, SERVED},
    {"--otlp-traces-endpoint http://x:4318", WORKER, IGNORED},
    {"--logprobs-mode raw_logprobs", SW, SERVED},
    {"--pooler-config {}", SW, SERVED},
    {"--override-pooler-config {}", SW, SERVED},
    {"--logits-processor-pattern .*", SR, SERVED},
    {"--logits-processor-plugin /x /y", SW, SERVED},
    {"--kv-transfer-config {}", SW, SERVED},
    {"--kv-lease-seconds 30", SW, SERVED},
    {"--kv-load-failure-policy recompute", SW, SERVED},
    {"--kv-peer-allow 10.0.0.0/8", SW, SERVED},
    {"--worker ipc:///x", ROUTER, SERVED},
    {"--cluster-token-file /x", ROUTER | WORKER, SERVED},
    {"--cluster-tls-ca /x --cluster-tls-certfile /y --cluster-tls-keyfile /z", ROUTER | WORKER, SERVED},
    {"--cluster-tls-name x", ROUTER | WORKER, SERVED},
    {"--rank 1 --leader tcp://127.0.0.1:1", WORKER, SERVED},
    {"--remote-ranks 1 --rank-listen tcp://127.0.0.1:1", WORKER, SERVED},
    {"--worker-file /x", ROUTER, SERVED},
    {"--worker-dns x", ROUTER, SERVED},
    {"--worker-endpoints x", ROUTER, SERVED},
    {"--policy least-load", SR, SERVED},
    {"--policy prefix", SR, SERVED},
    {"--policy power-of-two", SR, SERVED},
    {"--policy consistent-hash --hash-header X-Chat", SR, SERVED},
    {"--threads 2", ALL, SERVED},
    {"--workers 2", SERVE, SERVED},
    {"--listen ipc:///x", WORKER, SERVED},
    {"--role both", WORKER, SERVED},
    {"--role prefill", WORKER, SERVED},

    /* 18 */
    {"--max-header-bytes 64KiB", SR, SERVED},
    {"--h11-max-incomplete-event-size 65536", SR, SERVED},
    {"--max-header-count 100", SR, SERVED},
    {"--h11-max-header-count 100", SR, SERVED},
    {"--max-body-bytes 32MiB", SR, SERVED},
    {"--body-timeout 60", SR, SERVED},
    {"--max-connections 8192", SR, SERVED},
    {"--max-json-depth 64", SR, SERVED},
    {"--max-json-nodes 1048576", SR, SERVED},
    {"--max-json-keys 131072", SR, SERVED},
    {"--max-n 128", SR, SERVED},
    {"--max-prompts 1024", SR, SERVED},
    {"--max-sequences 4096", SR, SERVED},
    {"--max-inputs 2048", SR, SERVED},
    {"--max-messages 8192", SR, SERVED},
    {"--max-tools 256", SR, SERVED},
    {"--max-stop-strings 16", SR, SERVED},
    {"--max-stop-bytes 1024", SR, SERVED},
    {"--max-stop-token-ids 256", SR, SERVED},
    {"--max-bad-words 128", SR, SERVED},
    {"--max-logit-bias 4096", SR, SERVED},
    {"--max-logprobs 20", ALL, SERVED},
    {"--max-logprobs -1", ALL, SERVED},
    {"--max-logprobs -2", ALL, REFUSED},
    {"--max-schema-bytes 256KiB", ALL, SERVED},
    {"--max-schema-nodes 32768", ALL, SERVED},
    {"--max-choices 4096", ALL, SERVED},
    {"--max-grammar-states 1000000", ALL, SERVED},
    {"--max-grammar-moves 20000000", ALL, SERVED},
    {"--max-regex-bytes 16KiB", ALL, SERVED},
    {"--max-regex-repeat 1024", ALL, SERVED},
    {"--max-regex-states 100000", ALL, SERVED},
    {"--max-template-bytes 256KiB", SR, SERVED},
    {"--max-template-depth 64", SR, SERVED},
    {"--max-template-steps 5000000", SR, SERVED},
    {"--max-template-output 16MiB", SR, SERVED},
    {"--limit-mm-per-prompt {\"image\":1}", SR, REFUSED},
    {"--limit-mm-per-prompt.image 1", SR, REFUSED},
    {"--max-image-bytes 20MiB", SR, REFUSED},
    {"--max-image-pixels 50000000", SR, REFUSED},
    {"--max-audio-bytes 25MiB", SR, REFUSED},
    {"--max-audio-seconds 600", SR, REFUSED},
    {"--media-timeout {\"image\":5}", SR, REFUSED},
    {"--max-stream-buffer 4MiB", SR, SERVED},

    /* 22.3 */
    {"--trust-remote-code", ALL, IGNORED},
    {"--code-revision x", ALL, IGNORED},
    {"--hf-config-path /x", ALL, IGNORED},
    {"--hf-token x", ALL, IGNORED},
    {"--hf-token", ALL, IGNORED},
    {"--download-dir /x", ALL, IGNORED},
    {"--tokenizer-revision x", ALL, IGNORED},
    {"--tokenizer-mode auto", ALL, IGNORED},
    {"--tokenizer-mode slow", ALL, IGNORED},
    {"--uvicorn-log-level info", ALL, IGNORED},
    {"--disable-uvicorn-access-log", ALL, IGNORED},
    {"--log-config-file /x", ALL, IGNORED},
    {"--disable-log-requests", ALL, IGNORED},
    {"--no-disable-log-requests", ALL, IGNORED},
    {"--disable-log-stats", ALL, IGNORED},
    {"--enable-server-load-tracking", ALL, IGNORED},
    {"--disable-access-log-for-endpoints /health", ALL, IGNORED},
    {"--enable-ssl-refresh", ALL, IGNORED},
    {"--disable-frontend-multiprocessing", ALL, IGNORED},
    {"--api-server-count 4", ALL, IGNORED},
    {"--distributed-executor-backend mp", ALL, IGNORED},
    {"--swap-space 4", ALL, IGNORED},
    {"--swap-space 0.5", ALL, IGNORED},
    {"--cpu-offload-gb 0", ALL, SERVED},
    {"--prefix-caching-hash-algo sha256", ALL, IGNORED},
    {"--async-scheduling", ALL, IGNORED},
    {"--num-scheduler-steps 8", ALL, IGNORED},
    {"--max-num-partial-prefills 1", ALL, IGNORED},
    {"--watermark 0.01", ALL, IGNORED},
    {"--max-seq-len-to-capture 8192", ALL, IGNORED},
    {"--compilation-config {\"level\":3}", ALL, IGNORED},
    {"--compilation-config.level 3", ALL, IGNORED},
    {"--compilation-config 3", ALL, IGNORED},
    {"--guided-decoding-disable-fallback", ALL, IGNORED},
    {"--disable-mm-preprocessor-cache", ALL, IGNORED},
    {"--media-io-kwargs {}", ALL, IGNORED},
    {"--max-cpu-loras 1", ALL, IGNORED},
    {"--lora-dtype auto", ALL, IGNORED},
    {"--lora-extra-vocab-size 256", ALL, IGNORED},
    {"--show-hidden-metrics-for-version 0.9", ALL, IGNORED},
    {"--fingerprint-mode x", ALL, IGNORED},
    {"--pipeline-parallel-size 1", ALL, SERVED},
    {"-pp 1", ALL, SERVED},

    /* 22.4 */
    {"--enable-lora", ALL, REFUSED},
    {"--no-enable-lora", ALL, SERVED},
    {"--lora-modules a=/x b=/y", ALL, REFUSED},
    {"--enable-prompt-embeds", ALL, REFUSED},
    {"--enable-sleep-mode", ALL, REFUSED},
    {"--speculative-config {}", ALL, REFUSED},
    {"--speculative-config.model x", ALL, REFUSED},
    {"--quantization awq", SW, REFUSED},
    {"--middleware a.b", ALL, REFUSED},
    {"--tool-parser-plugin /x", ALL, REFUSED},
    {"--skip-tokenizer-init", ALL, REFUSED},
    {"--tokenizer-mode mistral", ALL, REFUSED},
    {"--tokenizer-mode custom", ALL, REFUSED},
    {"--load-format gguf", SW, REFUSED},
    {"--pipeline-parallel-size 2", ALL, REFUSED},
    {"--cpu-offload-gb 4", ALL, REFUSED},
    {"--enable-expert-parallel", ALL, REFUSED},
    {"--headless", ALL, REFUSED},
    {"--kv-events-config {}", ALL, REFUSED},
};

/* Lines that the log wrote while a row was parsed. */
static unsigned n_warnings;
static char warning[1024];

static enum rc parse(enum program in, const char *text, struct err *e) {
    static struct conf_flag table_rows[WEIR_FLAG_ROWS_MAX];
    struct weir_opts weir;
    struct worker_opts worker = {0};
    struct conf_list words = {0};
    char copy[256], *argv[8] = {"x"}, *rest = copy;
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w; (w = strsep(&rest, " ")); )
        argv[argc++] = w;
    if (in == WORKER) {
        struct conf_table t = worker_table(table_rows);
        worker_flags_init(&worker.w);
        enum rc rc = conf_parse(&t, argc, argv, &worker, &words, e);
        conf_free(&t, &worker, &words);
        return rc;
    }
    struct conf_table t = weir_flags(table_rows, in == SERVE);
    weir_opts_init(&weir);
    enum rc rc = conf_parse(&t, argc, argv, &weir, &words, e);
    weir_opts_free(&weir, &words);
    return rc;
}

/* warnings_of: the log goes to standard error, which lies in a file meanwhile. */
static enum rc warnings_of(enum program in, const char *text, struct err *e) {
    FILE *f = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_non_null(f);
    fflush(stderr);
    dup2(fileno(f), STDERR_FILENO);
    enum rc rc = parse(in, text, e);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(f);
    n_warnings = 0;
    warning[0] = 0;
    for (char line[1024]; fgets(line, sizeof line, f); n_warnings++)
        snprintf(warning, sizeof warning, "%s", line);
    fclose(f);
    return rc;
}

static void check(const struct row *r, enum program in) {
    struct err e = {0};
    enum rc rc = warnings_of(in, r->words, &e);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(r->words, " ."), r->words);
    if (strstr(e.msg, "unknown flag"))
        fail_msg("program %d, %s: %s", in, r->words, e.msg);
    if (r->standing == REFUSED) {
        if (rc != RC_INVALID || n_warnings)
            fail_msg("program %d accepts %s", in, r->words);
        assert_null(strchr(e.msg, '\n'));
        if (strlen(e.msg) < 20)
            fail_msg("%s: \"%s\" says too little", r->words, e.msg);
        return;
    }
    if (rc != RC_OK)
        fail_msg("program %d refuses %s: %s", in, r->words, e.msg);
    if (n_warnings != (r->standing == IGNORED))
        fail_msg("program %d, %s: %u warnings: %s", in, r->words, n_warnings, warning);
    /* Short forms and the two spellings of --no-NAME are told by their full name. */
    if (n_warnings && !strstr(warning, name + 2) && strncmp(name, "--no-", 5))
        fail_msg("%s is not named: %s", r->words, warning);
}

static void test_spec_table(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (unsigned in = SERVE; in <= WORKER; in *= 2)
            if (rows[i].in & in)
                check(&rows[i], (enum program)in);
}

/* Flags that need one another are checked together. */
static void test_together(void **state) {
    (void)state;
    struct err e = {0};
    char hermes[] = "hermes";
    struct router_opts o = {.auto_tool_choice = true};
    assert_int_equal(router_opts_check(&o, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--tool-call-parser"));
    o.tool_call_parser = hermes;
    assert_int_equal(router_opts_check(&o, &e), RC_OK);
    o.auto_tool_choice = false;
    assert_int_equal(router_opts_check(&o, &e), RC_OK);
}

static enum rc together(const char *line, struct weir_opts *o, struct err *e) {
    static struct conf_flag table_rows[WEIR_FLAG_ROWS_MAX];
    struct conf_table t = weir_flags(table_rows, true);
    struct conf_list words = {0};
    char copy[256], *argv[8] = {"x"}, *rest = copy;
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *w; (w = strsep(&rest, " ")); )
        argv[argc++] = *w ? w : "";
    weir_opts_init(o);
    enum rc rc = conf_parse(&t, argc, argv, o, &words, e);
    assert_int_equal(rc, RC_OK);
    conf_free(&(struct conf_table){.n_flags = 0}, o, &words);
    rc = weir_opts_check(o, e);
    return rc ? rc : weir_opts_check(o, e); /* as after SIGHUP */
}

/* --data-parallel-size and --workers are one number. */
static void test_replicas(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int n;
    } lines[] = {{"m", 1}, {"m --workers 3", 3}, {"m -dp 4", 4}, {"m -dp=2 --workers 2", 2}, {"m -dp 2 --workers 1", 0}};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct weir_opts o;
        struct err e = {0};
        assert_int_equal(together(lines[i].line, &o, &e), lines[i].n ? RC_OK : RC_INVALID);
        assert_true(lines[i].n ? o.n_workers == lines[i].n : strstr(e.msg, "contradicts --workers 1") != NULL);
        weir_opts_free(&o, &(struct conf_list){0});
    }
}

static bool same(const char *a, const char *b) {
    return a && b ? !strcmp(a, b) : a == b;
}

/* Every key of --structured-outputs-config is a single flag, or is refused by its name. */
static void test_structured_config(void **state) {
    (void)state;
#define CONFIG "--structured-outputs-config "
    static const struct {
        const char *config, *flags; /* that say the same; NULL: refused... */
        const char *why;            /* ...with these words */
    } lines[] = {
        {CONFIG "{}", "m", NULL},
        {CONFIG "{\"backend\":\"outlines\"}", "--guided-decoding-backend outlines", NULL},
        {CONFIG "{\"disable_any_whitespace\":true}", "--guided-decoding-disable-any-whitespace", NULL},
        {CONFIG "{\"disable_any_whitespace\":false}", "m", NULL},
        {CONFIG "{\"disable_any_whitespace\":false} --guided-decoding-disable-any-whitespace",
         "--guided-decoding-disable-any-whitespace", NULL},
        {CONFIG "{\"disable_additional_properties\":true,\"enable_in_reasoning\":false,\"reasoning_parser\":null}",
         "--guided-decoding-disable-additional-properties", NULL},
        {CONFIG "{\"reasoning_parser\":\"qwen3\",\"reasoning_parser_plugin\":\"\"}", "--reasoning-parser qwen3", NULL},
        {CONFIG "{\"reasoning_parser\":\"qwen3\"} --reasoning-parser qwen3", "--reasoning-parser qwen3", NULL},
        {CONFIG "{\"reasoning_parser\":\"\",\"disable_fallback\":true}", "m", NULL},
        {"--structured-outputs-config.disable_any_whitespace true --structured-outputs-config.backend xgrammar",
         "--guided-decoding-disable-any-whitespace --guided-decoding-backend xgrammar", NULL},
        {CONFIG "{\"reasoning_parser\":\"qwen3\"} --reasoning-parser granite", NULL, "contradicts --reasoning-parser"},
        {CONFIG "{\"reasoning_parser\":\"glm45\"}", NULL, "reasoning_parser \"glm45\" is not one of deepseek_r1|"},
        {CONFIG "{\"reasoning_parser_plugin\":\"/x.py\"}", NULL, "reasoning_parser_plugin is not supported"},
        {CONFIG "{\"enable_in_reasoning\":true}", NULL, "enable_in_reasoning is not supported"},
        {CONFIG "{\"backend\":\"other\"}", NULL, "backend \"other\" is not one of auto|"},
        {CONFIG "{\"backend\":1}", NULL, "backend must be a string, not"},
        {CONFIG "{\"disable_any_whitespace\":\"yes\"}", NULL, "disable_any_whitespace must be a boolean, not"},
        {CONFIG "{\"whitespace\":true}", NULL, "no key \"whitespace\""},
        {CONFIG "[]", NULL, "must be a JSON object"},
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct weir_opts o, want;
        struct err e = {0};
        enum rc rc = together(lines[i].config, &o, &e);
        if (lines[i].flags) {
            if (rc != RC_OK)
                fail_msg("%s: %s", lines[i].config, e.msg);
            assert_int_equal(together(lines[i].flags, &want, &e), RC_OK);
            assert_true(o.r.no_json_whitespace == want.r.no_json_whitespace &&
                        o.r.no_additional_properties == want.r.no_additional_properties);
            assert_true(same(o.r.reasoning_parser, want.r.reasoning_parser));
            assert_true(same(o.r.guided_backend, want.r.guided_backend));
            weir_opts_free(&want, &(struct conf_list){0});
        } else if (rc != RC_INVALID || !strstr(e.msg, lines[i].why)) {
            fail_msg("%s: %s", lines[i].config, e.msg);
        }
        weir_opts_free(&o, &(struct conf_list){0});
    }
}

/* Every row of the table of flags without a place stands in the specification's list above, and says why. */
static void test_apart_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < n_apart_flag_rows; i++) {
        const struct conf_flag *f = &apart_flag_rows[i];
        bool listed = false;
        for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
            size_t n = strlen(f->name);
            listed |= !strncmp(rows[k].words + 2, f->name, n) && strchr(" .", rows[k].words[2 + n]);
        }
        if (!listed || !f->help || strlen(f->help) < 10)
            fail_msg("--%s: no row, or no reason", f->name);
        assert_true(f->kind == CONF_IGNORED || f->kind == CONF_REFUSED);
    }
}

/* What a program serves is not shadowed by a row that refuses it. */
static void test_first_table_wins(void **state) {
    (void)state;
    static const struct conf_flag a[] = {{.name = "x", .kind = CONF_BOOL, .offset = 1}},
                                  b[] = {{.name = "x", .kind = CONF_REFUSED}, {.name = "y", .offset = 2}};
    struct conf_flag to[4];
    size_t n = conf_rows_add(to, 0, 4, a, 1, 8);
    n = conf_rows_add(to, n, 4, b, 2, 16);
    assert_int_equal(n, 2);
    assert_int_equal(to[0].kind, CONF_BOOL);
    assert_int_equal(to[0].offset, 9);
    assert_int_equal(to[1].offset, 18);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec_table),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_replicas),
        cmocka_unit_test(test_structured_config),
        cmocka_unit_test(test_apart_rows),
        cmocka_unit_test(test_first_table_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
