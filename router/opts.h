/* opts.h: what the router's flags say. Filled by router/main (conf.h), read-only afterwards, shared by all
 * threads. */
#ifndef WEIR_ROUTER_OPTS_H
#define WEIR_ROUTER_OPTS_H

#include "common/conf.h"
#include "common/grammar_flags.h"
#include "common/json.h"
#include "router/tmpl/tmpl.h"

/* Limits of api.md 18, each with its flag. */
struct router_limits {
    uint64_t header_bytes, body_bytes;
    int64_t header_count, body_timeout_s, connections;
    int64_t json_depth, json_nodes, json_keys;
    int64_t n, prompts, sequences, messages, inputs, tools;
    int64_t stop_strings, stop_bytes, stop_token_ids, bad_words, logit_bias, logprobs, logprob_entries;
    int64_t template_bytes, template_steps, template_output, template_depth;
    int64_t queued_requests, queued_tokens;
    uint64_t stream_buffer_bytes;
};

#define GUIDED_BACKEND_CHOICES "auto|xgrammar|guidance|outlines|lm-format-enforcer"

struct router_opts {
    char *host;
    int64_t port;
    char *uds;       /* a Unix socket's path instead of host and port, or NULL */
    char *root_path; /* --root-path as given, or NULL */
    bool http2;
    struct conf_list api_keys; /* --api-key, or what the environment gave instead */
    char *api_key_file;
    bool metrics_auth;
    char *ssl_certfile, *ssl_keyfile, *ssl_ca_certs; /* certfile NULL: plain HTTP */
    int64_t ssl_cert_reqs;                           /* of clients: 0 none, 1 optional, 2 required */
    char *allowed_origins, *allowed_methods, *allowed_headers; /* JSON lists; NULL: ["*"] */
    bool allow_credentials;
    bool no_docs, no_playground; /* --disable-fastapi-docs, --no-playground */
    bool tokenizer_info, admin_api;
    int64_t threads; /* 0: cores */
    struct router_limits limit;
    struct grammar_flags grammar;
    char *guided_backend; /* GUIDED_BACKEND_CHOICES; every name is the one engine */
    char *structured_config; /* --structured-outputs-config (structured.h), JSON or NULL */
    bool no_json_whitespace, no_additional_properties; /* --guided-decoding-disable-... */
    double keep_alive_s, write_timeout_s, sse_keepalive_s, shutdown_timeout_s, queue_timeout_s,
        request_timeout_s;
    double engine_stall_timeout_s;
    int64_t stream_interval; /* steps of an event */
    bool request_id_headers, prompt_tokens_details, force_include_usage;
    bool return_tokens_as_token_ids;
    char *otlp_endpoint; /* where traces go, or NULL */
    bool log_requests, log_outputs;
    int64_t max_log_len; /* bytes of a prompt or an output in the log */
    char *log_level;
    struct conf_list served_names;      /* empty: as the worker says */
    char *chat_template;                /* path or literal; NULL: the model's */
    char *chat_template_content_format; /* auto, string, openai; NULL: auto */
    char *chat_template_kwargs;         /* --default-chat-template-kwargs, JSON object or NULL */
    bool request_template;              /* --request-chat-template: requests may bring templates */
    char *response_role;                /* "assistant" */
    char *special_tokens_in_content;    /* "text" or "special" */
    bool auto_tool_choice, exclude_tools_when_none, enforce_parallel_calls;
    char *tool_call_parser, *reasoning_parser; /* NULL: none; names of router/parse/parse.h */
    char *generation_config;                   /* auto, vllm, or a folder */
    char *override_generation_config;          /* JSON object or NULL */
    char *logits_processor_pattern;            /* of names that requests may use; NULL: none */
    char *policy;      /* POLICY_CHOICES (fleet/policy.h) */
    char *hash_header; /* of consistent-hash */
    int64_t prefix_index_mb;
    int64_t remote_prefill_min_tokens; /* 0: prompts are computed where they are decoded */
    struct conf_list workers;           /* --worker: addresses to dial */
    char *worker_file;                  /* more of them, a line each; NULL: none */
    struct conf_list worker_dns;        /* names of headless services */
    char *worker_endpoints;             /* a Kubernetes service, or NULL */
    char *kubernetes_api, *kubernetes_account; /* its API's URL, and the folder of the account's token */
    char *cluster_token_file;
    char *cluster_tls_ca, *cluster_tls_certfile, *cluster_tls_keyfile, *cluster_tls_name; /* link/secure.h */
    bool replay; /* a request whose worker is lost goes on at another one */
    int64_t max_replays;      /* of one prompt */
    double hedge_after_s;          /* without progress; 0: requests wait until a worker is gone */
    double worker_drain_timeout_s; /* that a worker whose address is gone has for what it runs */
    double replay_timeout_s;  /* to find it, from the lost worker's last word; below 0: fleet_replay_ns says */
    double model_wait_s;      /* that a request waits for a worker of a model that has none */
    double model_retention_s; /* that a model without workers stays known; 0: for ever */
    double max_queue_wait_s;                      /* predicted; 0: no limit */
    double fair_input_weight, fair_output_weight; /* of a token, in what tenants have had (fleet/vtc.h) */
    bool fairness;
    char *tenant_header, *priority_header; /* that whatever stands in front of the router sets; NULL: none */
    int64_t max_tenants;                          /* that are told apart at a time */
    int64_t seed; /* --seed; has_seed false: none */
    bool has_seed;
};

#endif
