#include "router/flags.h"

#include <stdlib.h>

#include "common/apart_flags.h"
#include "common/link/secure.h"
#include "common/log.h"
#include "router/fleet/policy.h"
#include "router/fleet/vtc.h"
#include "router/launch.h"
#include "router/parse/parse.h"
#include "router/structured.h"
#include "router/trace/tracer.h"

#define AT(field) .offset = offsetof(struct router_opts, field)
#define LIMIT(flag, field, text)                                                                             \
    { .name = flag, .kind = CONF_INT, .min = 0, .max = 1e15, AT(limit.field), .help = text }
/* What a worker takes of one request (worker/io_submit.c) is the most that the flag can allow. */
#define LIMIT_TO(flag, field, most, text)                                                                    \
    { .name = flag, .kind = CONF_INT, .min = 0, .max = most, AT(limit.field), .help = text }
#define BYTES(flag, field, text)                                                                             \
    { .name = flag, .kind = CONF_SIZE, AT(limit.field), .help = text }
#define SECONDS(flag, field, text)                                                                           \
    { .name = flag, .kind = CONF_FLOAT, .min = 0, .max = 1e9, AT(field), .help = text }

const struct conf_flag router_flag_rows[] = {
    {.name = "host", .kind = CONF_STR, AT(host), .help = "address to listen on [127.0.0.1]"},
    {.name = "port",
     .kind = CONF_INT,
     .min = 0,
     .max = 65535,
     AT(port),
     .help = "port to listen on, 0 for any free one [8000]"},
    {.name = "uds", .kind = CONF_STR, AT(uds), .help = "Unix socket to listen on, instead of host and port"},
    {.name = "http2",
     .kind = CONF_BOOL,
     AT(http2),
     .help = "HTTP/2, too: by ALPN with TLS, in clear text for clients that begin with it [off]"},
    {.name = "ssl-certfile",
     .kind = CONF_STR,
     AT(ssl_certfile),
     .help = "PEM file with the certificate and its chain: serves HTTPS, TLS 1.2 or later"},
    {.name = "ssl-keyfile",
     .kind = CONF_STR,
     AT(ssl_keyfile),
     .help = "PEM file with its key [the certfile]"},
    {.name = "ssl-ca-certs",
     .kind = CONF_STR,
     AT(ssl_ca_certs),
     .help = "PEM file with the authorities of clients' certificates"},
    {.name = "ssl-cert-reqs",
     .kind = CONF_INT,
     .min = 0,
     .max = 2,
     AT(ssl_cert_reqs),
     .help = "clients' certificates: 0 not asked for, 1 good if shown, 2 required [0]"},
    {.name = "root-path",
     .kind = CONF_STR,
     AT(root_path),
     .help = "prefix that a proxy leaves before every path; paths without it work, too"},
    {.name = "allowed-origins",
     .kind = CONF_JSON,
     AT(allowed_origins),
     .help = "CORS: JSON list of origins whose pages may read answers [[\"*\"]]"},
    {.name = "allowed-methods", .kind = CONF_JSON, AT(allowed_methods), .help = "CORS: methods [[\"*\"]]"},
    {.name = "allowed-headers", .kind = CONF_JSON, AT(allowed_headers), .help = "CORS: headers [[\"*\"]]"},
    {.name = "allow-credentials",
     .kind = CONF_BOOL,
     AT(allow_credentials),
     .help = "CORS: requests may carry cookies [off]"},
    {.name = "disable-fastapi-docs", .kind = CONF_BOOL, AT(no_docs), .help = "no /openapi.json [off]"},
    {.name = "no-playground", .kind = CONF_BOOL, AT(no_playground), .help = "no page at / [off]"},
    {.name = "enable-admin-api",
     .kind = CONF_BOOL,
     AT(admin_api),
     .help = "routes that abort requests, reset caches, list requests and workers [off]"},
    {.name = "enable-tokenizer-info-endpoint",
     .kind = CONF_BOOL,
     AT(tokenizer_info),
     .help = "GET /tokenizer_info [off]"},
    {.name = "api-key",
     .kind = CONF_LIST,
     .flags = CONF_SECRET,
     AT(api_keys),
     .help =
         "keys that clients must show one of; WEIR_API_KEY or VLLM_API_KEY gives one that ps does not see"},
    {.name = "api-key-file",
     .kind = CONF_STR,
     AT(api_key_file),
     .help = "file of keys, one per line; read again on SIGHUP"},
    {.name = "metrics-auth", .kind = CONF_BOOL, AT(metrics_auth), .help = "/metrics wants a key, too [off]"},
    {.name = "enable-request-id-headers",
     .kind = CONF_BOOL,
     AT(request_id_headers),
     .help = "answer with X-Request-Id [off]"},
    {.name = "enable-prompt-tokens-details",
     .kind = CONF_BOOL,
     AT(prompt_tokens_details),
     .help = "usage tells cached tokens [off]"},
    {.name = "enable-force-include-usage",
     .kind = CONF_BOOL,
     AT(force_include_usage),
     .help = "usage in every stream [off]"},
    {.name = "enable-log-requests",
     .kind = CONF_BOOL,
     AT(log_requests),
     .help = "log each request: its prompt, cut, and how it ended [off]"},
    {.name = "enable-log-outputs", .kind = CONF_BOOL, AT(log_outputs), .help = "log each output, cut [off]"},
    {.name = "max-log-len",
     .kind = CONF_INT,
     .min = 0,
     .max = 1 << 20,
     AT(max_log_len),
     .help = "bytes of a prompt or an output in the log [512]"},
    {.name = "otlp-traces-endpoint",
     .kind = CONF_STR,
     AT(otlp_endpoint),
     .help = "URL of a collector that takes OTLP traces as protobuf over HTTP: http://HOST:4318[/v1/traces] [none]"},
    {.name = "chat-template",
     .kind = CONF_STR,
     AT(chat_template),
     .help = "file with the chat template, or its text [the model's]"},
    {.name = "chat-template-content-format",
     .kind = CONF_ENUM,
     .choices = "auto|string|openai",
     AT(chat_template_content_format),
     .help = "what templates get as content [auto: as the template reads it]"},
    {.name = "return-tokens-as-token-ids",
     .kind = CONF_BOOL,
     AT(return_tokens_as_token_ids),
     .help = "token strings of logprobs as token_id:N [off]"},
    {.name = "default-chat-template-kwargs",
     .kind = CONF_JSON,
     AT(chat_template_kwargs),
     .help = "JSON object of template variables"},
    {.name = "request-chat-template",
     .synonym = "trust-request-chat-template",
     .kind = CONF_BOOL,
     AT(request_template),
     .help = "requests may bring chat templates [on]"},
    {.name = "response-role", .kind = CONF_STR, AT(response_role), .help = "role of answers [assistant]"},
    {.name = "special-tokens-in-content",
     .kind = CONF_ENUM,
     .choices = "text|special",
     AT(special_tokens_in_content),
     .help = "how clients' text that spells a special token is read [text]"},
    {.name = "enable-auto-tool-choice",
     .kind = CONF_BOOL,
     AT(auto_tool_choice),
     .help = "the model may call tools where it likes; needs --tool-call-parser [off]"},
    {.name = "tool-call-parser",
     .kind = CONF_ENUM,
     .choices = PARSE_TOOLS_CHOICES,
     AT(tool_call_parser),
     .help = "how the model writes calls [none]"},
    {.name = "reasoning-parser",
     .kind = CONF_ENUM,
     .choices = PARSE_REASONING_CHOICES,
     AT(reasoning_parser),
     .help = "how the model marks its reasoning [none]"},
    {.name = "exclude-tools-when-tool-choice-none",
     .kind = CONF_BOOL,
     AT(exclude_tools_when_none),
     .help = "with tool_choice none the template sees no tools [off]"},
    {.name = "enforce-parallel-tool-calls",
     .kind = CONF_BOOL,
     AT(enforce_parallel_calls),
     .help = "parallel_tool_calls false keeps the first call only [off]"},
    {.name = "generation-config",
     .kind = CONF_STR,
     AT(generation_config),
     .help = "auto: sampling defaults of the model; vllm: neutral ones; or a folder with another "
             "generation_config.json. Give it to the workers, too [auto]"},
    {.name = "override-generation-config",
     .kind = CONF_JSON,
     AT(override_generation_config),
     .help = "JSON object merged into them; likewise"},
    {.name = "logits-processor-pattern",
     .kind = CONF_STR,
     AT(logits_processor_pattern),
     .help = "regular expression of the logits processors that requests may name, matched in full [none]"},
    {.name = "guided-decoding-backend",
     .kind = CONF_ENUM,
     .choices = GUIDED_BACKEND_CHOICES,
     AT(guided_backend),
     .help = "no effect: one engine serves structured output [auto]"},
    {.name = "guided-decoding-disable-any-whitespace",
     .kind = CONF_BOOL,
     AT(no_json_whitespace),
     .help = "structured JSON without white space but one space after ',' and ':' [off]"},
    {.name = "guided-decoding-disable-additional-properties",
     .kind = CONF_BOOL,
     AT(no_additional_properties),
     .help = "objects of structured JSON have the properties of their schema only [off]"},
    {.name = "structured-outputs-config",
     .kind = CONF_JSON,
     AT(structured_config),
     .help = "JSON object as vLLM's, for what the flags above and --reasoning-parser say: backend, "
             "disable_any_whitespace, disable_additional_properties, reasoning_parser [none]"},
    GRAMMAR_FLAG_ROWS(offsetof(struct router_opts, grammar)),
    {.name = "policy",
     .kind = CONF_ENUM,
     .choices = POLICY_CHOICES,
     AT(policy),
     .help = "which worker gets a request: by cached prefix and load, by load, the better of two, in turn, or by a "
             "key [prefix]"},
    {.name = "hash-header",
     .kind = CONF_STR,
     AT(hash_header),
     .help = "header with the key of --policy consistent-hash; without it the conversation's beginning is the key "
             "[X-Session-Id]"},
    {.name = "prefix-index-mb",
     .kind = CONF_INT,
     .min = 1,
     .max = 1 << 16,
     AT(prefix_index_mb),
     .help = "memory for what workers' prefix caches hold, with --policy prefix; 1 MiB is some 240,000 tokens [64]"},
    {.name = "remote-prefill-min-tokens",
     .kind = CONF_INT,
     .min = 0,
     .max = 1 << 24,
     AT(remote_prefill_min_tokens),
     .help = "prompts of which so many tokens are to be computed may be computed by another worker (--role prefill), if that "
             "is faster by what has been measured [256; 0: none is]"},
    SECONDS("http-keep-alive", keep_alive_s, "idle connections close after so many seconds [65]"),
    SECONDS("sse-keepalive", sse_keepalive_s,
            "comment lines in silent streams, every so many seconds [0: none]"),
    {.name = "stream-interval",
     .kind = CONF_INT,
     .min = 1,
     .max = 1e9,
     AT(stream_interval),
     .help = "steps of an answer that share an event of its stream; the first and the last do not wait [1]"},
    SECONDS("write-timeout", write_timeout_s, "a client that reads nothing for so long is cut [60]"),
    SECONDS("shutdown-timeout", shutdown_timeout_s, "seconds that running requests have after SIGTERM [30]"),
    SECONDS("queue-timeout", queue_timeout_s, "seconds a request may wait for a worker [0: no limit]"),
    SECONDS("request-timeout", request_timeout_s, "seconds a request may take [0: no limit]"),
    SECONDS("hedge-after", hedge_after_s,
            "a request goes on at another worker once its own made no progress for so many seconds, at least 0.5, and "
            "another has room; the longest step must be shorter [0: not before it is lost]"),
    SECONDS("worker-drain-timeout", worker_drain_timeout_s,
            "seconds that requests have at a worker whose address is no longer named; then they go on at another [30]"),
    {.name = "replay",
     .kind = CONF_BOOL,
     AT(replay),
     .help = "a request whose worker is lost goes on at another one, with what it has said so far [on]"},
    {.name = "max-replays",
     .kind = CONF_INT,
     .min = 0,
     .max = 1000,
     AT(max_replays),
     .help = "workers that a request may lose [3]"},
    {.name = "replay-timeout",
     .kind = CONF_FLOAT,
     .min = 0,
     .max = 1e9,
     AT(replay_timeout_s),
     .help = "seconds, from the last word of its worker, in which another must be found [2; a lone worker: 0]"},
    SECONDS("model-wait", model_wait_s,
            "seconds that a request waits for a worker of a model that has none [0: refused at once]"),
    SECONDS("model-retention", model_retention_s,
            "seconds that a model without workers stays listed [0: for ever]"),
    SECONDS("engine-stall-timeout", engine_stall_timeout_s,
            "work pending and no step for so long is unhealthy [60]"),
    {.name = "max-header-bytes",
     .synonym = "h11-max-incomplete-event-size",
     .kind = CONF_SIZE,
     AT(limit.header_bytes),
     .help = "request line and headers [64 KiB]"},
    {.name = "max-header-count",
     .synonym = "h11-max-header-count",
     .kind = CONF_INT,
     .min = 0,
     .max = 100,
     AT(limit.header_count),
     .help = "headers of a request [100]"},
    BYTES("max-body-bytes", body_bytes, "body of a request [32 MiB]"),
    LIMIT("body-timeout", body_timeout_s, "seconds to receive a request [60]"),
    {.name = "max-connections",
     .kind = CONF_INT,
     .min = 1,
     .max = 1e9,
     AT(limit.connections),
     .help = "open connections [8192]"},
    LIMIT("max-json-depth", json_depth, "nesting of a body [64]"),
    LIMIT("max-json-nodes", json_nodes, "values in a body [1048576]"),
    {.name = "max-json-keys",
     .kind = CONF_INT,
     .min = 1,
     .max = 1e9,
     AT(limit.json_keys),
     .help = "keys of one object in a body [131072]"},
    LIMIT_TO("max-n", n, 128, "n and best_of [128]"),
    LIMIT("max-prompts", prompts, "prompts of a request [1024]"),
    LIMIT("max-inputs", inputs, "inputs, pairs or documents of a pooling request [2048]"),
    LIMIT("max-sequences", sequences, "prompts times best_of [4096]"),
    LIMIT("max-messages", messages, "messages of a chat [8192]"),
    LIMIT("max-tools", tools, "tools of a chat [256]"),
    LIMIT("max-stop-strings", stop_strings, "stop strings [16]"),
    BYTES("max-stop-bytes", stop_bytes, "bytes of a stop string [1024]"),
    LIMIT_TO("max-stop-token-ids", stop_token_ids, 512, "stop token ids [256]"),
    LIMIT_TO("max-bad-words", bad_words, 128, "bad words [128]"),
    LIMIT_TO("max-logit-bias", logit_bias, 4096, "entries of logit_bias [4096]"),
    {.name = "max-logprobs",
     .kind = CONF_INT,
     .min = -1,
     .max = 1024,
     AT(limit.logprobs),
     .help = "logprobs and top_logprobs; -1: as many as the worker allows [20]"},
    LIMIT("max-logprob-entries", logprob_entries,
          "alternatives in one answer that is not streamed [4194304]"),
    BYTES("max-template-bytes", template_bytes, "text of a chat template [256 KiB]"),
    LIMIT("max-template-steps", template_steps, "steps of a rendering [5000000]"),
    BYTES("max-template-output", template_output, "bytes of a rendering [16 MiB]"),
    LIMIT("max-template-depth", template_depth, "loop and call depth of a template [64]"),
    LIMIT("max-queued-requests", queued_requests, "requests that wait for a worker; more get 429 [2048]"),
    LIMIT("max-queued-tokens", queued_tokens, "tokens of their prompts; more get 429 [16777216]"),
    SECONDS("max-queue-wait", max_queue_wait_s,
            "a request that would wait longer, by the rate at which requests end, gets 429 [0: no limit]"),
    {.name = "fairness",
     .kind = CONF_BOOL,
     AT(fairness),
     .help = "waiting tenants take turns by what they have had: API keys, or else names by --tenant-header [on]"},
    {.name = "tenant-header",
     .kind = CONF_STR,
     AT(tenant_header),
     .help = "where there are no API keys: header with the tenant's name, set by whatever stands in front of the "
             "router, since clients could write anything [none]"},
    {.name = "priority-header",
     .kind = CONF_STR,
     AT(priority_header),
     .help = "header with a request's priority, likewise; it replaces the body's [none]"},
    {.name = "fair-input-weight",
     .kind = CONF_FLOAT,
     .min = 0.001,
     .max = 1000,
     AT(fair_input_weight),
     .help = "what a computed token of a prompt counts in a tenant's share [1]"},
    {.name = "fair-output-weight",
     .kind = CONF_FLOAT,
     .min = 0.001,
     .max = 1000,
     AT(fair_output_weight),
     .help = "likewise, a token of output [2]"},
    {.name = "max-tenants",
     .kind = CONF_INT,
     .min = 1,
     .max = VTC_TENANTS_MAX,
     AT(max_tenants),
     .help = "tenants of a model that are told apart at a time [4096]"},
    BYTES("max-stream-buffer", stream_buffer_bytes, "output waiting for a slow client [4 MiB]"),
    {.name = "seed",
     .kind = CONF_INT,
     .min = -9e18,
     .max = 9e18,
     AT(seed),
     .help = "seeds of requests without one come from this and a counter"},
};
const size_t n_router_flag_rows = ARRAY_LEN(router_flag_rows);

void router_opts_init(struct router_opts *o) {
    *o = (struct router_opts){
        .host = xstrdup("127.0.0.1"),
        .port = 8000,
        .limit = {.header_bytes = 64 * KIB,
                  .header_count = 100,
                  .body_bytes = 32 * MIB,
                  .body_timeout_s = 60,
                  .connections = 8192,
                  .json_depth = 64,
                  .json_nodes = 1048576,
                  .json_keys = 131072,
                  .n = 128,
                  .prompts = 1024,
                  .sequences = 4096,
                  .messages = 8192,
                  .inputs = 2048,
                  .tools = 256,
                  .stop_strings = 16,
                  .stop_bytes = 1024,
                  .stop_token_ids = 256,
                  .bad_words = 128,
                  .logit_bias = 4096,
                  .logprobs = 20,
                  .logprob_entries = 4194304,
                  .template_bytes = 256 * 1024,
                  .template_steps = 5000000,
                  .template_output = 16 * 1024 * 1024,
                  .template_depth = 64,
                  .queued_requests = 2048,
                  .queued_tokens = 1 << 24,
                  .stream_buffer_bytes = 4 * MIB},
        .keep_alive_s = 65,
        .stream_interval = 1,
        .write_timeout_s = 60,
        .shutdown_timeout_s = 30,
        .worker_drain_timeout_s = 30,
        .replay = true,
        .max_replays = 3,
        .replay_timeout_s = -1,
        .engine_stall_timeout_s = 60,
        .chat_template_content_format = xstrdup("auto"),
        .request_template = true,
        .response_role = xstrdup("assistant"),
        .special_tokens_in_content = xstrdup("text"),
        .generation_config = xstrdup("auto"),
        .policy = xstrdup("prefix"),
        .hash_header = xstrdup("X-Session-Id"),
        .prefix_index_mb = 64,
        .remote_prefill_min_tokens = 256,
        .fairness = true,
        .fair_input_weight = 1,
        .fair_output_weight = 2,
        .max_tenants = 4096,
        .guided_backend = xstrdup("auto"),
        .log_level = xstrdup("info"),
        .max_log_len = 512,
    };
    grammar_flags_init(&o->grammar);
}

enum rc router_opts_check(const struct router_opts *o, struct err *e) {
    if (o->auto_tool_choice && !o->tool_call_parser)
        return err_set(e, RC_INVALID, "enable-auto-tool-choice",
                       "--enable-auto-tool-choice needs --tool-call-parser, one of %s", PARSE_TOOLS_CHOICES);
    if (o->tool_call_parser && !o->auto_tool_choice)
        LOG(LOG_WARN, "--tool-call-parser has no effect without --enable-auto-tool-choice");
    if (o->tenant_header && (o->api_keys.n || o->api_key_file))
        LOG(LOG_WARN, "--tenant-header has no effect where there are API keys: they are the tenants");
    for (size_t i = 0; i < o->workers.n; i++)
        if (link_is_tls(o->workers.v[i]) && !o->cluster_tls_ca)
            return err_set(e, RC_INVALID, "worker", "%.200s needs --cluster-tls-ca", o->workers.v[i]);
    if (o->hedge_after_s > 0 && o->hedge_after_s < 0.5)
        return err_set(e, RC_INVALID, "hedge-after",
                       "--hedge-after must be 0 or at least 0.5: workers say every 0.2 s how they are");
    return o->otlp_endpoint ? tracer_check(o->otlp_endpoint, e) : RC_OK;
}

/* ---- subcommands ------------------------------------------------------------------------------------ */

static const struct conf_flag serve_rows[] = {
    {.name = "workers",
     .kind = CONF_INT,
     .min = 1,
     .max = LAUNCH_WORKERS_MAX,
     .offset = offsetof(struct weir_opts, n_workers),
     .help = "workers to start on this machine [1]"},
    {.name = "data-parallel-size",
     .synonym = "-dp",
     .kind = CONF_INT,
     .min = 1,
     .max = LAUNCH_WORKERS_MAX,
     .offset = offsetof(struct weir_opts, n_replicas),
     .help = "replicas of the model, which are workers: as --workers [1]"},
};
static const struct conf_flag router_only_rows[] = {
    {.name = "worker",
     .kind = CONF_LIST,
     .offset = offsetof(struct weir_opts, r.workers),
     .help = "a worker's address: ipc://PATH, tcp://HOST:PORT or tls+tcp://HOST:PORT; one or several"},
    {.name = "worker-file",
     .synonym = "workers-file",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.worker_file),
     .help = "file of workers' addresses, one per line; read again when it changes"},
    {.name = "worker-dns",
     .kind = CONF_LIST,
     .offset = offsetof(struct weir_opts, r.worker_dns),
     .help = "workers by DNS: NAME:PORT (A and AAAA records), or _SERVICE._tcp.NAME (SRV); with @SERVER[:PORT] "
             "another name server than the system's; looked up again as the records expire"},
    {.name = "worker-endpoints",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.worker_endpoints),
     .help = "workers by a Kubernetes service's EndpointSlices: [NAMESPACE/]SERVICE[:PORT], PORT a number or a name"},
    {.name = "kubernetes-api",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.kubernetes_api),
     .help = "URL of the Kubernetes API [the pod's]"},
    {.name = "kubernetes-account",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.kubernetes_account),
     .help = "folder with the account's token, ca.crt and namespace [/var/run/secrets/kubernetes.io/serviceaccount]"},
    {.name = "cluster-token-file",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.cluster_token_file),
     .help = "file with the secret that workers and routers share"},
    {.name = "cluster-tls-ca",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.cluster_tls_ca),
     .help = "PEM file with the authorities of workers' certificates, for tls+tcp addresses; workers that are found by "
             "DNS or Kubernetes are then dialled so"},
    {.name = "cluster-tls-certfile",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.cluster_tls_certfile),
     .help = "PEM file with this router's certificate, for workers that ask for one"},
    {.name = "cluster-tls-keyfile",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.cluster_tls_keyfile),
     .help = "PEM file with its key [the certfile]"},
    {.name = "cluster-tls-name",
     .kind = CONF_STR,
     .offset = offsetof(struct weir_opts, r.cluster_tls_name),
     .help = "the DNS name that workers' certificates must have [the address's host]"},
    {.name = "log-level",
     .kind = CONF_ENUM,
     .choices = "debug|info|warning|error",
     .offset = offsetof(struct weir_opts, r.log_level),
     .help = "least level logged [info]"},
    {.name = "threads",
     .kind = CONF_INT,
     .min = 0,
     .max = 1024,
     .offset = offsetof(struct weir_opts, r.threads),
     .help = "loops, and threads of the pool [cores]"},
    {.name = "served-model-name",
     .kind = CONF_LIST,
     .offset = offsetof(struct weir_opts, r.served_names),
     .help = "names clients may use [as the workers say]"},
};

struct conf_table weir_flags(struct conf_flag *rows, bool serve) {
    const struct {
        const struct conf_flag *rows;
        size_t n, base;
        bool serve, router;
    } tables[] = {
        {worker_flag_rows, n_worker_flag_rows, offsetof(struct weir_opts, w), true, false},
        {serve_rows, ARRAY_LEN(serve_rows), 0, true, false},
        {router_only_rows, ARRAY_LEN(router_only_rows), 0, false, true},
        {router_flag_rows, n_router_flag_rows, offsetof(struct weir_opts, r), true, true},
        {apart_flag_rows, n_apart_flag_rows, 0, true, true},
    };
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        if (serve ? tables[i].serve : tables[i].router)
            n = conf_rows_add(rows, n, WEIR_FLAG_ROWS_MAX, tables[i].rows, tables[i].n, tables[i].base);
    return (struct conf_table){.usage = serve ? "weir serve MODEL [flags]"
                                              : "weir router --worker ADDRESS [flags]",
                               .flags = rows,
                               .n_flags = n,
                               .n_positional_max = serve ? 1 : 0};
}

void weir_opts_init(struct weir_opts *o) {
    *o = (struct weir_opts){.n_workers = 0};
    router_opts_init(&o->r);
    o->r.seed = INT64_MIN;
    worker_flags_init(&o->w);
}

enum rc weir_opts_check(struct weir_opts *o, struct err *e) {
    if (o->n_workers && o->n_replicas && o->n_workers != o->n_replicas)
        return err_set(e, RC_INVALID, "data-parallel-size",
                       "--data-parallel-size %lld contradicts --workers %lld: a replica is a worker",
                       (long long)o->n_replicas, (long long)o->n_workers);
    o->n_workers = MAX(MAX(o->n_workers, o->n_replicas), 1);
    enum rc rc = structured_apply(&o->r, e);
    return rc ? rc : router_opts_check(&o->r, e);
}

void weir_opts_settle(struct weir_opts *o, bool serve) {
    enum log_level level;
    if (serve) {
        o->r.threads = o->w.threads;
        o->r.limit.logprobs = o->w.max_logprobs;
        o->r.grammar = o->w.grammar;
        free(o->r.generation_config);
        o->r.generation_config = xstrdup(o->w.generation_config);
        free(o->r.override_generation_config);
        o->r.override_generation_config =
            o->w.override_generation_config ? xstrdup(o->w.override_generation_config) : NULL;
        free(o->r.log_level);
        o->r.log_level = xstrdup(o->w.log_level);
    }
    o->r.has_seed = o->r.seed != INT64_MIN;
    if (!o->r.has_seed)
        o->r.seed = 0;
    if (!o->w.mock)
        o->w.mock_step_ms = 0; /* so that the line of the configuration does not show it */
    if (log_parse_level(o->r.log_level, &level))
        log_set_level(level);
}

void weir_opts_free(struct weir_opts *o, struct conf_list *positional) {
    /* Every row of every table, whichever subcommand it was. */
    const struct {
        const struct conf_flag *rows;
        size_t n, base;
    } tables[] = {{worker_flag_rows, n_worker_flag_rows, offsetof(struct weir_opts, w)},
                  {router_only_rows, ARRAY_LEN(router_only_rows), 0},
                  {router_flag_rows, n_router_flag_rows, offsetof(struct weir_opts, r)}};
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        const struct conf_table t = {.flags = tables[i].rows, .n_flags = tables[i].n};
        conf_free(&t, (char *)o + tables[i].base, NULL);
    }
    const struct conf_table none = {0};
    conf_free(&none, o, positional);
}
