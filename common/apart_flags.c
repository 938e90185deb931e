#include "common/apart_flags.h"

#define IGNORED(flag, kind_of_value, why)                                                                    \
    { .name = flag, .kind = CONF_IGNORED, .value = kind_of_value, .help = why }
#define REFUSED(flag, kind_of_value, why)                                                                    \
    { .name = flag, .kind = CONF_REFUSED, .value = kind_of_value, .help = why }
/* Refused but for what is so anyway. */
#define ONLY(flag, short_form, kind_of_value, values, why)                                                   \
    {                                                                                                        \
        .name = flag, .synonym = short_form, .kind = CONF_REFUSED, .value = kind_of_value,                   \
        .choices = values, .help = why                                                                       \
    }

#define NO_MEDIA "images and audio are not served in this version"
#define NO_ADAPTERS "LoRA adapters are not served"

const struct conf_flag apart_flag_rows[] = {
    /* 22.2, in its order: not in this version */
    REFUSED("allowed-local-media-path", CONF_STR, NO_MEDIA),
    REFUSED("allowed-media-domains", CONF_LIST, NO_MEDIA),
    REFUSED("allowed-media-cidr", CONF_LIST, NO_MEDIA),
    REFUSED("interleave-mm-strings", CONF_BOOL, NO_MEDIA),
    REFUSED("mm-processor-kwargs", CONF_JSON, NO_MEDIA),
    IGNORED("enable-log-outputs", CONF_BOOL, "a worker knows tokens and no text; give it to the router"),
    IGNORED("max-log-len", CONF_INT, "a worker knows tokens and no text; give it to the router"),
    ONLY("data-parallel-size", "-dp", CONF_INT, "1",
         "this program is or serves single workers; weir serve --data-parallel-size N starts several"),
    IGNORED("otlp-traces-endpoint", CONF_STR,
            "the router sends the traces, with what its workers report; give it to the router"),

    /* 18: limits of what is not in this version */
    REFUSED("limit-mm-per-prompt", CONF_JSON, NO_MEDIA),
    REFUSED("max-image-bytes", CONF_SIZE, NO_MEDIA),
    REFUSED("max-image-pixels", CONF_INT, NO_MEDIA),
    REFUSED("max-audio-bytes", CONF_SIZE, NO_MEDIA),
    REFUSED("max-audio-seconds", CONF_FLOAT, NO_MEDIA),
    REFUSED("media-timeout", CONF_JSON, NO_MEDIA),

    /* 22.3: accepted and ignored */
    IGNORED("trust-remote-code", CONF_BOOL, "no code of a model is ever run"),
    IGNORED("code-revision", CONF_STR, "no code of a model is ever run"),
    IGNORED("hf-config-path", CONF_STR, "config.json is read from the model folder"),
    {.name = "hf-token",
     .kind = CONF_IGNORED,
     .value = CONF_STR,
     .flags = CONF_VALUE_OPTIONAL,
     .help = "nothing is downloaded"},
    IGNORED("download-dir", CONF_STR, "nothing is downloaded"),
    IGNORED("tokenizer-revision", CONF_STR,
            "the tokenizer is MODEL's, of its --revision, or the main revision of --tokenizer"),
    {.name = "tokenizer-mode",
     .kind = CONF_IGNORED,
     .value = CONF_STR,
     .choices = "auto|slow",
     .help = "there is one tokenizer, and it is fast"},
    IGNORED("uvicorn-log-level", CONF_STR, "--log-level sets what is logged"),
    IGNORED("disable-uvicorn-access-log", CONF_BOOL, "requests are logged with --enable-log-requests only"),
    IGNORED("log-config-file", CONF_STR, "--log-level sets what is logged"),
    IGNORED("disable-log-requests", CONF_BOOL, "requests are logged with --enable-log-requests only"),
    IGNORED("disable-log-stats", CONF_BOOL, "statistics are not logged; /metrics has them"),
    IGNORED("enable-server-load-tracking", CONF_BOOL, "/load always counts"),
    IGNORED("disable-access-log-for-endpoints", CONF_STR,
            "requests are logged with --enable-log-requests only"),
    IGNORED("enable-ssl-refresh", CONF_BOOL, "certificates are read at start"),
    IGNORED("disable-frontend-multiprocessing", CONF_BOOL,
            "the router is one process; --threads sets its loops"),
    IGNORED("api-server-count", CONF_INT, "the router is one process; --threads sets its loops"),
    IGNORED("distributed-executor-backend", CONF_STR, "a worker starts its ranks itself"),
    IGNORED("swap-space", CONF_FLOAT, "preempted requests are computed again, not swapped"),
    ONLY("cpu-offload-gb", NULL, CONF_FLOAT, "0|0.0", "weights are not offloaded"),
    IGNORED("prefix-caching-hash-algo", CONF_STR, "blocks are always named by SHA-256"),
    IGNORED("async-scheduling", CONF_BOOL, "there is one scheduler"),
    IGNORED("num-scheduler-steps", CONF_INT, "every step is scheduled"),
    IGNORED("max-num-partial-prefills", CONF_INT, "the token budget of a step decides"),
    IGNORED("watermark", CONF_FLOAT, "blocks are kept for running requests without one"),
    IGNORED("max-seq-len-to-capture", CONF_INT, "no graphs are captured by length"),
    IGNORED("compilation-config", CONF_JSON, "nothing is compiled at run time"),
    IGNORED("guided-decoding-disable-fallback", CONF_BOOL, "there is one engine and no fallback"),
    IGNORED("disable-mm-preprocessor-cache", CONF_BOOL, "there is no such cache"),
    IGNORED("media-io-kwargs", CONF_JSON, NO_MEDIA),
    IGNORED("max-cpu-loras", CONF_INT, NO_ADAPTERS),
    IGNORED("lora-dtype", CONF_STR, NO_ADAPTERS),
    IGNORED("lora-extra-vocab-size", CONF_INT, NO_ADAPTERS),
    IGNORED("show-hidden-metrics-for-version", CONF_STR, "no metric is hidden"),
    IGNORED("fingerprint-mode", CONF_STR, "system_fingerprint has one form"),
    ONLY("pipeline-parallel-size", "-pp", CONF_INT, "1", "a model is not split by layers"),

    /* 22.4: refused */
    REFUSED("enable-lora", CONF_BOOL, NO_ADAPTERS),
    REFUSED("lora-modules", CONF_LIST, NO_ADAPTERS),
    REFUSED("enable-prompt-embeds", CONF_BOOL, "prompts are text or tokens"),
    REFUSED("enable-sleep-mode", CONF_BOOL, "a worker cannot sleep; stop it"),
    REFUSED("speculative-config", CONF_JSON, "there is no speculative decoding"),
    REFUSED("middleware", CONF_LIST, "the router runs no Python"),
    REFUSED("tool-parser-plugin", CONF_STR, "the router runs no Python"),
    REFUSED("skip-tokenizer-init", CONF_BOOL, "the router always tokenises"),
    REFUSED("enable-expert-parallel", CONF_BOOL, "the ranks of a worker share every expert"),
    REFUSED("headless", CONF_BOOL, "start weir-worker for an engine without HTTP"),
    REFUSED("kv-events-config", CONF_JSON, "KV events go to Weir's routers only"),
};
const size_t n_apart_flag_rows = ARRAY_LEN(apart_flag_rows);

size_t conf_rows_add(struct conf_flag *to, size_t n, size_t n_max, const struct conf_flag *from,
                     size_t n_from, size_t base) {
    for (size_t i = 0; i < n_from; i++) {
        bool there = false;
        for (size_t k = 0; k < n && !there; k++)
            there = strcmp(to[k].name, from[i].name) == 0;
        if (there)
            continue;
        CHECK(n < n_max);
        to[n] = from[i];
        to[n++].offset += base;
    }
    return n;
}
