#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/conf_parts.h"
#include "common/log.h"

struct opts {
    bool http2, prefix, no_playground;
    int64_t port;
    uint64_t bytes;
    double utilization;
    char *host, *key, *limits, *policy;
    struct conf_list names;
};

#define AT(member) offsetof(struct opts, member)
static const struct conf_flag flags[] = {
    {.name = "host", .kind = CONF_STR, .offset = AT(host), .help = "Address to listen on."},
    {.name = "port",
     .kind = CONF_INT,
     .offset = AT(port),
     .min = 1,
     .max = 65535,
     .help = "Port.",
     .synonym = "-p",
     .env = "WEIR_TEST_PORT"},
    {.name = "http2", .kind = CONF_BOOL, .offset = AT(http2), .help = "HTTP/2."},
    {.name = "enable-prefix-caching", .kind = CONF_BOOL, .offset = AT(prefix), .help = "Reuse."},
    {.name = "no-playground", .kind = CONF_BOOL, .offset = AT(no_playground), .help = "No page."},
    {.name = "max-header-bytes",
     .synonym = "h11-max",
     .kind = CONF_SIZE,
     .offset = AT(bytes),
     .help = "Head."},
    {.name = "gpu-memory-utilization",
     .kind = CONF_FLOAT,
     .offset = AT(utilization),
     .min = 0.01,
     .max = 1,
     .help = "Share."},
    {.name = "api-key",
     .kind = CONF_STR,
     .offset = AT(key),
     .flags = CONF_SECRET,
     .env = "WEIR_TEST_KEY",
     .help = "Key."},
    {.name = "limit-mm-per-prompt", .kind = CONF_JSON, .offset = AT(limits), .help = "Limits."},
    {.name = "policy",
     .kind = CONF_ENUM,
     .offset = AT(policy),
     .choices = "prefix|least-load",
     .help = "Routing."},
    {.name = "served-model-name", .kind = CONF_LIST, .offset = AT(names), .help = "Names."},
    {.name = "swap-space", .kind = CONF_IGNORED, .value = CONF_INT, .help = "nothing is swapped"},
    {.name = "trust-remote-code", .kind = CONF_IGNORED, .help = "no code is loaded"},
    {.name = "enable-lora", .kind = CONF_REFUSED, .help = "adapters are not in this version"},
    {.name = "tokenizer-mode",
     .kind = CONF_IGNORED,
     .value = CONF_STR,
     .choices = "auto|slow",
     .help = "there is one tokenizer"},
    {.name = "pipeline-parallel-size",
     .synonym = "-pp",
     .kind = CONF_REFUSED,
     .value = CONF_INT,
     .choices = "1",
     .help = "a model is not split by layers"},
    {.name = "compilation-config", .kind = CONF_IGNORED, .value = CONF_JSON, .help = "nothing is compiled"},
    {.name = "hf-token",
     .kind = CONF_IGNORED,
     .value = CONF_STR,
     .flags = CONF_VALUE_OPTIONAL,
     .help = "nothing is downloaded"},
};
static const struct conf_table table = {
    .usage = "weir serve MODEL [flags]", .flags = flags, .n_flags = ARRAY_LEN(flags), .n_positional_max = 1};

static struct opts o;
static struct conf_list words;
static struct err e;

/* parse: the words of a line, "'a b'" kept together. */
static enum rc parse(const char *line) {
    char *copy = xstrdup(line), *argv[64] = {copy};
    int argc = 1;
    conf_free(&table, &o, &words);
    o = (struct opts){.port = 8000, .prefix = true, .host = xstrdup("127.0.0.1")};
    e = (struct err){0};
    for (char *p = copy; *p;) {
        while (*p == ' ')
            *p++ = 0;
        if (!*p)
            break;
        char end = *p == '\'' ? *p++ : ' ';
        argv[argc++] = p;
        while (*p && *p != end)
            p++;
        if (*p)
            *p++ = 0;
    }
    argv[0] = "weir";
    enum rc rc = conf_parse(&table, argc, argv, &o, &words, &e);
    free(copy);
    return rc;
}

static void good(const char *line) {
    if (parse(line) != RC_OK)
        fail_msg("%s: %s", line, e.msg);
}

static void bad(const char *line, const char *message) {
    if (parse(line) != RC_INVALID)
        fail_msg("accepted: %s", line);
    if (!strstr(e.msg, message))
        fail_msg("%s: %s", line, e.msg);
    assert_null(strchr(e.msg, '\n'));
    assert_null(words.v);
}

static int done(void **state) {
    (void)state;
    conf_free(&table, &o, &words);
    return 0;
}

static void test_forms(void **state) {
    (void)state;
    good("");
    assert_int_equal(o.port, 8000);
    assert_string_equal(o.host, "127.0.0.1");
    good("m --port 1 --host=0.0.0.0 --http2 --no-enable-prefix-caching");
    assert_int_equal(o.port, 1);
    assert_string_equal(o.host, "0.0.0.0");
    assert_true(o.http2);
    assert_false(o.prefix);
    assert_int_equal(words.n, 1);
    assert_string_equal(words.v[0], "m");
    good(
        "--enable_prefix-caching=off --no_playground --h11_max 2MiB -p 9 --gpu-memory-utilization .5 -- --m");
    assert_false(o.prefix);
    assert_true(o.no_playground);
    assert_int_equal(o.bytes, 2u << 20);
    assert_int_equal(o.port, 9);
    assert_true(o.utilization == 0.5);
    assert_string_equal(words.v[0], "--m");
    good("--served-model-name a b --port 2 --served-model-name c -p=3");
    assert_int_equal(o.names.n, 3);
    assert_string_equal(o.names.v[2], "c");
    assert_int_equal(o.port, 3);
    good("--host -1 --host= --policy least-load");
    assert_string_equal(o.host, "");
    assert_string_equal(o.policy, "least-load");
    good("m --swap-space 4 --trust-remote-code --no-trust-remote-code");
    assert_int_equal(words.n, 1);
}

/* Flags that have no place: what they accept, and what they refuse. */
static void test_apart(void **state) {
    (void)state;
    good("--tokenizer-mode slow --pipeline-parallel-size 1 -pp=1 --no-enable-lora");
    good("--compilation-config {\"level\":3} --compilation-config.level 3 --swap-space 4");
    good("--hf-token --http2 --hf-token abc --hf-token");
    assert_true(o.http2);
    bad("--tokenizer-mode mistral", "--tokenizer-mode must be one of auto|slow, not \"mistral\"");
    bad("-pp 2", "--pipeline-parallel-size 2 is not supported, only 1: a model is not split by layers");
    bad("-pp two", "must be an integer");
    bad("-pp", "--pipeline-parallel-size needs a value");
    bad("--swap-space four", "--swap-space must be an integer");
    bad("--compilation-config {", "JSON decode error");
    bad("--swap-space.x 4", "has no parts");
    bad("--enable-lora --swap-space 4", "not supported");
}

static void test_sizes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t want;
    } sizes[] = {
        {"0", 0},        {"12", 12},           {"3k", 3000},          {"3K", 3072},
        {"2m", 2000000}, {"2M", 2097152},      {"1g", 1000000000},    {"1G", 1073741824},
        {"5KiB", 5120},  {"1.5g", 1500000000}, {"0.5GiB", 536870912}, {"9223372036854775807", INT64_MAX}};
    char line[100];
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        snprintf(line, sizeof line, "--max-header-bytes %s", sizes[i].text);
        good(line);
        assert_true(o.bytes == sizes[i].want);
    }
    static const char *const not_sizes[] = {
        "x", "1.5", "1kb", "1 k", "1.k", ".5k", "-0x1", "9223372036854775808", "99999999999G", "1e3"};
    for (size_t i = 0; i < ARRAY_LEN(not_sizes); i++) {
        snprintf(line, sizeof line, "'--max-header-bytes=%s'", not_sizes[i]);
        bad(line, "must be a size");
    }
}

static void test_refusals(void **state) {
    (void)state;
    bad("--prot 1", "unknown flag --prot; the closest is --port");
    bad("--max_heder_bytes=1", "the closest is --max-header-bytes");
    bad("-x", "unknown flag -x");
    bad("--zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        "unknown flag --zzz");
    bad("--port", "--port needs a value");
    bad("--port --http2", "--port needs a value");
    bad("--port 0", "--port must be between 1 and 65535, not 0");
    bad("--port 65536", "between");
    bad("--port x1", "--port must be an integer, not \"x1\"");
    bad("--port 99999999999999999999", "an integer");
    bad("--port=", "an integer");
    bad("--gpu-memory-utilization nan", "a number");
    bad("--gpu-memory-utilization 1e999", "a number");
    bad("--gpu-memory-utilization 1.5", "between 0.01 and 1");
    bad("--http2=maybe", "true or false");
    bad("--no-http2=1", "takes no value");
    bad("--no-port", "unknown flag --no-port");
    bad("--policy fastest", "one of prefix|least-load");
    bad("--policy=", "one of");
    bad("--limit-mm-per-prompt {", "JSON decode error");
    bad("--limit-mm-per-prompt.a.b", "needs a value");
    bad("--limit-mm-per-prompt.a..b 1", "a path is");
    bad("--limit-mm-per-prompt. 1", "a path is");
    bad("--limit-mm-per-prompt [1] --limit-mm-per-prompt.a 1", "no object");
    bad("--port.x 1", "has no parts");
    bad("--enable-lora", "--enable-lora is not supported: adapters are not");
    bad("--trust-remote-code=1", "takes no value");
    bad("a b", "unexpected \"b\"");
    bad("--config", "--config needs a value");
    bad("--config=/a --config=/b", "twice");
    assert_int_equal(parse("--config /nowhere/x.yaml"), RC_IO);
    assert_non_null(strstr(e.msg, "/nowhere/x.yaml"));
}

static void test_json_parts(void **state) {
    (void)state;
    good("--limit-mm-per-prompt.image 4 --limit-mm-per-prompt.deep.er true --limit_mm_per_prompt.name x-y");
    assert_string_equal(o.limits, "{\"image\":4,\"deep\":{\"er\":true},\"name\":\"x-y\"}");
    good("'--limit-mm-per-prompt={\"image\":1,\"audio\":2}' --limit-mm-per-prompt.image=3");
    assert_string_equal(o.limits, "{\"image\":3,\"audio\":2}");
}

static char path[64];

static void write_file(const char *text) {
    snprintf(path, sizeof path, "/tmp/weir-test-conf-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void with_file(const char *text, const char *line, bool ok, const char *message) {
    char all[300];
    write_file(text);
    snprintf(all, sizeof all, "--config %s %s", path, line);
    if (ok)
        good(all);
    else
        bad(all, message);
    unlink(path);
}

static void test_file(void **state) {
    (void)state;
    with_file("---\n# comment\nhost: \"::1\"   # v6\nport: 81\nhttp2: yes\nenable_prefix_caching: false\n"
              "served-model-name: [a, \"b, c\", 'it''s']\npolicy: 'prefix'\n\napi-key:\nlimit-mm-per-prompt: "
              "{\"image\": 1}\n",
              "--port 82 --served-model-name z --limit-mm-per-prompt.audio 2", true, NULL);
    assert_string_equal(o.host, "::1");
    assert_int_equal(o.port, 82);
    assert_true(o.http2);
    assert_false(o.prefix);
    assert_int_equal(o.names.n, 1); /* the line's list replaces the file's */
    assert_string_equal(o.names.v[0], "z");
    assert_string_equal(o.limits, "{\"image\":1,\"audio\":2}");
    assert_null(o.key);
    with_file("served-model-name:\n  - a\n  - \"b\\n\"\n- c # x\nno-http2: true\nhost: a#b c\n", "--http2",
              true, NULL);
    assert_int_equal(o.names.n, 3);
    assert_string_equal(o.names.v[1], "b\n");
    assert_string_equal(o.names.v[2], "c");
    assert_true(o.http2);
    assert_string_equal(o.host, "a#b c");
    with_file("{\"port\": 7, \"served_model_name\": [\"a\", \"b\"], \"limit-mm-per-prompt\": {\"image\": 2}, "
              "\"http2\": true,"
              " \"gpu-memory-utilization\": 0.25, \"host\": null}",
              "", true, NULL);
    assert_int_equal(o.port, 7);
    assert_int_equal(o.names.n, 2);
    assert_string_equal(o.limits, "{\"image\":2}");
    assert_true(o.utilization == 0.25);
    assert_string_equal(o.host, "127.0.0.1");
    with_file("trust-remote-code: true\nenable-lora: false\n", "", true, NULL);
    with_file("no-enable-lora: true\npipeline-parallel-size: 1\ncompilation-config: null\n", "", true, NULL);
    with_file("", "", true, NULL);

    with_file("prot: 1\n", "", false, "line 1: unknown flag prot; the closest is --port");
    with_file("port: 0\n", "", false, "between 1 and 65535");
    with_file("port: [1, 2]\n", "", false, "takes one value");
    with_file("a:\n  b: 1\n", "", false, "line 2: nested");
    with_file("host: &x 1\n", "", false, "only plain, quoted");
    with_file("host: |\n", "", false, "only plain, quoted");
    with_file("host: 'x\n", "", false, "not closed");
    with_file("host: \"\\q\"\n", "", false, "escape");
    with_file("host: \"a\" b\n", "", false, "text behind a value");
    with_file("host\n", "", false, "expected KEY: VALUE");
    with_file("- a\n", "", false, "belongs to no key");
    with_file("port: 1\n- 2\n", "", false, "belongs to no key");
    with_file("served-model-name: [a\n", "", false, "does not end");
    with_file("served-model-name: [a] b\n", "", false, "text behind a list");
    with_file("port: 1\nport: 2\n", "", false, "twice");
    with_file("enable-lora: true\n", "", false, "not supported");
    with_file("no-enable-lora: false\n", "", false, "not supported");
    with_file("enable-lora: perhaps\n", "", false, "true or false");
    with_file("pipeline-parallel-size: 2\n", "", false, "only 1");
    with_file("tokenizer-mode: [auto, slow]\n", "", false, "takes one value");
    with_file("swap-space: many\n", "", false, "an integer");
    with_file("{\"port\": 1", "", false, "JSON decode error");
    with_file("host: \xFF\n", "", false, "UTF-8");
}

static void test_env(void **state) {
    (void)state;
    setenv("WEIR_TEST_PORT", "77", 1);
    setenv("WEIR_TEST_KEY", "sk-secret", 1);
    good("");
    assert_int_equal(o.port, 77);
    assert_string_equal(o.key, "sk-secret");
    good("--port 78");
    assert_int_equal(o.port, 78);
    with_file("port: 79\n", "", true, NULL);
    assert_int_equal(o.port, 79);
    setenv("WEIR_TEST_PORT", "x", 1);
    bad("", "WEIR_TEST_PORT");
    good("--port 1"); /* a variable that is not read cannot be wrong */
    unsetenv("WEIR_TEST_PORT");
    struct buf b = {0};
    good("--http2 --served-model-name a 'b c' --gpu-memory-utilization 0.5");
    conf_show(&table, &o, &b);
    assert_string_equal(
        buf_cstr(&b),
        "host=127.0.0.1 port=8000 http2=true enable-prefix-caching=true gpu-memory-utilization=0.5 "
        "served-model-name=a,\"b c\"");
    unsetenv("WEIR_TEST_KEY");
    buf_fini(&b);
}

static void test_help(void **state) {
    (void)state;
    struct buf b = {0};
    conf_help(&table, &b);
    const char *text = buf_cstr(&b);
    assert_non_null(strstr(text, "usage: weir serve MODEL [flags]\n"));
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        bool shown = flags[i].kind != CONF_IGNORED && flags[i].kind != CONF_REFUSED;
        char want[80];
        snprintf(want, sizeof want, "  --%s", flags[i].name);
        assert_int_equal(strstr(text, want) != NULL, shown);
        assert_int_equal(strstr(text, flags[i].help) != NULL, shown);
    }
    assert_non_null(strstr(text, "--port, -p N"));
    assert_non_null(strstr(text, "--no-NAME"));
    buf_fini(&b);
    char *argv[] = {"weir", "m", "--help", "--", "--version"}, *brief[] = {"weir", "-h"};
    assert_true(conf_has(2, brief, "-h"));
    assert_false(conf_has(5, argv, "-h"));
    assert_true(conf_has(5, argv, "help"));
    assert_true(conf_has(5, argv, "--help"));
    assert_false(conf_has(5, argv, "version"));
}

int main(void) {
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_forms, done),
        cmocka_unit_test_teardown(test_apart, done),    cmocka_unit_test_teardown(test_sizes, done),
        cmocka_unit_test_teardown(test_refusals, done), cmocka_unit_test_teardown(test_json_parts, done),
        cmocka_unit_test_teardown(test_file, done),     cmocka_unit_test_teardown(test_env, done),
        cmocka_unit_test_teardown(test_help, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
