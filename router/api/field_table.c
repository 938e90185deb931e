/* The fields of the JSON routes, in the order of api.md 2.4, 5, 6.1, 7.1, 9.1 and 14. */
#include <float.h>
#include <math.h>

#include "router/api/fields.h"

#define PLACE(member) .rule = FIELD_READ, .place = offsetof(struct field_values, member)
#define LIMIT(member, flag_name) .limit = 1 + offsetof(struct router_limits, member), .flag = flag_name
#define RANGE(low, high) .lo = (low), .hi = (high)
#define ABOVE(low, high) .lo = (low), .hi = (high), .lo_open = true
#define REFUSED .rule = FIELD_REFUSED
#define IGNORED .rule = FIELD_IGNORED, .dflt = "null"

#define AUDIO_OUT "audio output is not supported in this build"
#define USE_TOOLS "functions and function_call are not supported: use tools and tool_choice"
#define TOOL_CHOICE                                                                                          \
    "tool_choice is not supported in this build: only none is, \"auto\" needs a server with "                \
    "--enable-auto-tool-choice and --tool-call-parser"

const struct field api_fields[] = {
    /* 5.1 sampling */
    {"model", ON_GENERATE | ON_TOKENIZE | ON_DETOKENIZE, FIELD_STR, PLACE(model), .dflt = "null",
     .meaning = "served name of the model; null and \"\" mean the first served name"},
    {"max_tokens", ON_COMPLETIONS, FIELD_INT, PLACE(max_tokens), RANGE(1, INFINITY), .dflt = "16",
     .meaning = "limit of generated tokens"},
    {"max_tokens", ON_CHAT, FIELD_INT, PLACE(max_tokens), RANGE(1, INFINITY), .dflt = "null",
     .meaning = "limit of generated tokens; null: what room is left"},
    {"max_completion_tokens", ON_CHAT, FIELD_INT, PLACE(max_completion_tokens), RANGE(1, INFINITY),
     .dflt = "null", .meaning = "the same, and wins over max_tokens"},
    {"n", ON_GENERATE, FIELD_INT, PLACE(n), RANGE(1, 0), LIMIT(n, "--max-n"), .dflt = "1",
     .meaning = "choices returned per prompt"},
    {"best_of", ON_GENERATE, FIELD_INT, REFUSED, .dflt = "n"},
    {"use_beam_search", ON_GENERATE, FIELD_BOOL, REFUSED, .dflt = "false"},
    {"length_penalty", ON_GENERATE, FIELD_FLOAT, REFUSED, .dflt = "1.0"},
    {"temperature", ON_GENERATE, FIELD_FLOAT, PLACE(temperature), RANGE(0, 2), .dflt = "null",
     .meaning = "below 1e-5 greedy; null: the model's, else 1"},
    {"top_p", ON_GENERATE, FIELD_FLOAT, PLACE(top_p), ABOVE(0, 1), .dflt = "null",
     .meaning = "nucleus; null: the model's, else 1"},
    {"top_k", ON_GENERATE, FIELD_INT, PLACE(top_k), RANGE(-1, INFINITY), .dflt = "null",
     .meaning = "-1 and 0: off; null: the model's, else off"},
    {"min_p", ON_GENERATE, FIELD_FLOAT, PLACE(min_p), RANGE(0, 1), .dflt = "null",
     .meaning = "floor relative to the best token; null: the model's, else 0"},
    {"presence_penalty", ON_GENERATE, FIELD_FLOAT, PLACE(presence_penalty), RANGE(-2, 2), .dflt = "0",
     .meaning = "subtracted from tokens in the output"},
    {"frequency_penalty", ON_GENERATE, FIELD_FLOAT, PLACE(frequency_penalty), RANGE(-2, 2), .dflt = "0",
     .meaning = "subtracted times the count in the output"},
    {"repetition_penalty", ON_GENERATE, FIELD_FLOAT, PLACE(repetition_penalty), ABOVE(0, DBL_MAX),
     .dflt = "null", .meaning = "divides logits of tokens seen; null: the model's, else 1"},
    {"logit_bias", ON_GENERATE, FIELD_OBJECT, PLACE(logit_bias), .dflt = "null",
     .meaning = "token id to a value added to its logit, clamped to 100 either way"},
    {"allowed_token_ids", ON_GENERATE, FIELD_LIST, REFUSED, .dflt = "null"},
    {"bad_words", ON_GENERATE, FIELD_LIST, REFUSED, .dflt = "[]"},
    {"seed", ON_GENERATE, FIELD_INT, PLACE(seed), .dflt = "null", .meaning = "null and -1: unseeded"},
    {"stop", ON_GENERATE, FIELD_ANY, PLACE(stop), .dflt = "[]", .meaning = "stop string, or a list of them"},
    {"stop_token_ids", ON_GENERATE, FIELD_LIST, PLACE(stop_token_ids), .dflt = "[]",
     .meaning = "stop tokens"},
    {"include_stop_str_in_output", ON_GENERATE, FIELD_BOOL, PLACE(include_stop), .dflt = "false",
     .meaning = "keep the matched stop text"},
    {"ignore_eos", ON_GENERATE, FIELD_BOOL, PLACE(ignore_eos), .dflt = "false",
     .meaning = "the end token does not end the sequence"},
    {"min_tokens", ON_GENERATE, FIELD_INT, PLACE(min_tokens), RANGE(0, INFINITY), .dflt = "0",
     .meaning = "no stop of any kind before; at most the token limit"},
    {"skip_special_tokens", ON_GENERATE, FIELD_BOOL, PLACE(skip_special), .dflt = "true",
     .meaning = "leave special tokens out of the text"},
    {"spaces_between_special_tokens", ON_GENERATE, FIELD_BOOL, PLACE(spaces_between_special), .dflt = "true",
     .meaning = "matters only when they are shown"},
    {"truncate_prompt_tokens", ON_GENERATE, FIELD_INT, REFUSED, .dflt = "null"},
    {"truncation_side", ON_GENERATE, FIELD_STR, REFUSED, .dflt = "\"left\""},
    {"logprobs", ON_COMPLETIONS, FIELD_INT, PLACE(n_logprobs), RANGE(0, 0), LIMIT(logprobs, "--max-logprobs"),
     .dflt = "null", .meaning = "log-probabilities, with this many alternatives"},
    {"logprobs", ON_CHAT, FIELD_BOOL, PLACE(logprobs), .dflt = "false", .meaning = "log-probabilities"},
    {"top_logprobs", ON_CHAT, FIELD_INT, PLACE(top_logprobs), RANGE(0, 0), LIMIT(logprobs, "--max-logprobs"),
     .dflt = "0", .meaning = "alternatives; needs logprobs"},
    {"prompt_logprobs", ON_GENERATE, FIELD_INT, REFUSED, .dflt = "null"},
    {"return_tokens_as_token_ids", ON_GENERATE, FIELD_BOOL, PLACE(ids_as_tokens), .dflt = "null",
     .meaning = "token strings become token_id:N; null: as the server's flag says"},

    /* 5.4 control */
    {"stream", ON_GENERATE, FIELD_BOOL, PLACE(stream), .dflt = "false",
     .meaning = "answer as server-sent events"},
    {"stream_options", ON_GENERATE, FIELD_OBJECT, PLACE(stream_options), .dflt = "null",
     .meaning = "include_usage, continuous_usage_stats; only with stream"},
    {"echo", ON_GENERATE, FIELD_BOOL, REFUSED, .dflt = "false"},
    {"add_special_tokens", ON_COMPLETIONS, FIELD_BOOL, PLACE(add_special), .dflt = "true",
     .meaning = "the tokenizer adds BOS and the like"},
    {"add_special_tokens", ON_CHAT, FIELD_BOOL, PLACE(add_special), .dflt = "false",
     .meaning = "the tokenizer adds BOS and the like; templates write them themselves"},
    {"priority", ON_GENERATE, FIELD_INT, PLACE(priority), RANGE(INT32_MIN, INT32_MAX), .dflt = "0",
     .meaning = "lower runs earlier; not 0 needs priority scheduling"},
    {"request_id", ON_GENERATE, FIELD_STR, PLACE(request_id), .dflt = "null",
     .meaning = "suffix of the answer's id, unless X-Request-Id says it"},
    {"cache_salt", ON_GENERATE, FIELD_STR, PLACE(cache_salt), .dflt = "null",
     .meaning = "prefix blocks are shared only under equal salts"},
    {"kv_transfer_params", ON_GENERATE, FIELD_OBJECT, IGNORED, .meaning = "without KV transfer: no effect"},
    {"vllm_xargs", ON_GENERATE, FIELD_OBJECT, REFUSED, .dflt = "{}"},
    {"logits_processors", ON_GENERATE, FIELD_LIST, REFUSED, .dflt = "[]"},

    /* 6.1, 7.1 inputs */
    {"prompt", ON_COMPLETIONS, FIELD_ANY, PLACE(prompt), .dflt = "null",
     .meaning = "required: text, texts, token ids or lists of token ids"},
    {"messages", ON_CHAT | ON_TOKENIZE, FIELD_LIST, PLACE(messages), .dflt = "null",
     .meaning = "the conversation"},
    {"tools", ON_CHAT | ON_TOKENIZE, FIELD_LIST, REFUSED, .dflt = "null"},
    {"tool_choice", ON_CHAT, FIELD_ANY, REFUSED, .dflt = "\"none\"", .meaning = TOOL_CHOICE},
    {"parallel_tool_calls", ON_CHAT, FIELD_BOOL, IGNORED, .meaning = "no effect"},
    {"reasoning_effort", ON_CHAT, FIELD_STR, PLACE(reasoning_effort), .dflt = "null",
     .meaning = "none, minimal, low, medium, high, xhigh or max; handed to the template"},
    {"include_reasoning", ON_CHAT, FIELD_BOOL, REFUSED, .dflt = "true"},
    {"add_generation_prompt", ON_CHAT | ON_TOKENIZE, FIELD_BOOL, PLACE(add_generation_prompt), .dflt = "true",
     .meaning = "ask the template for the assistant's header"},
    {"continue_final_message", ON_CHAT | ON_TOKENIZE, FIELD_BOOL, REFUSED, .dflt = "false"},
    {"documents", ON_CHAT, FIELD_LIST, PLACE(documents), .dflt = "null", .meaning = "handed to the template"},
    {"chat_template", ON_CHAT | ON_TOKENIZE, FIELD_STR, REFUSED, .dflt = "null"},
    {"chat_template_kwargs", ON_CHAT | ON_TOKENIZE, FIELD_OBJECT, PLACE(chat_template_kwargs), .dflt = "null",
     .meaning = "more variables of the template"},
    {"mm_processor_kwargs", ON_CHAT | ON_TOKENIZE, FIELD_OBJECT, REFUSED, .dflt = "{}"},

    /* 9.1 structured output */
    {"response_format", ON_GENERATE, FIELD_OBJECT, REFUSED, .dflt = "{\"type\":\"text\"}"},
    {"guided_json", ON_GENERATE, FIELD_ANY, REFUSED, .dflt = "null"},
    {"guided_regex", ON_GENERATE, FIELD_STR, REFUSED, .dflt = "null"},
    {"guided_choice", ON_GENERATE, FIELD_LIST, REFUSED, .dflt = "null"},
    {"guided_grammar", ON_GENERATE, FIELD_STR, REFUSED, .dflt = "null"},
    {"structural_tag", ON_GENERATE, FIELD_ANY, REFUSED, .dflt = "null"},
    {"guided_decoding_backend", ON_GENERATE, FIELD_STR, REFUSED, .dflt = "\"auto\""},
    {"guided_whitespace_pattern", ON_GENERATE, FIELD_STR, REFUSED, .dflt = "null"},
    {"structured_outputs", ON_GENERATE, FIELD_OBJECT, REFUSED, .dflt = "null"},

    /* 14 tokenizer routes */
    {"prompt", ON_TOKENIZE, FIELD_STR, PLACE(text), .dflt = "null", .meaning = "the text; or messages"},
    {"add_special_tokens", ON_TOKENIZE, FIELD_BOOL, PLACE(add_special), .dflt = "true",
     .meaning = "BOS and the like; false is the default with messages"},
    {"return_token_strs", ON_TOKENIZE, FIELD_BOOL, PLACE(return_token_strs), .dflt = "false",
     .meaning = "also the vocabulary's pieces"},
    {"tokens", ON_DETOKENIZE, FIELD_LIST, PLACE(tokens), .dflt = "null", .meaning = "required: token ids"},

    /* 2.4 known but refused */
    {"prompt_embeds", ON_COMPLETIONS, FIELD_ANY, REFUSED, .dflt = "null",
     .meaning = "prompt_embeds is not supported"},
    {"suffix", ON_COMPLETIONS, FIELD_ANY, REFUSED, .dflt = "null",
     .meaning = "suffix is not currently supported"},
    {"functions", ON_CHAT, FIELD_ANY, REFUSED, .dflt = "null", .meaning = USE_TOOLS},
    {"function_call", ON_CHAT, FIELD_ANY, REFUSED, .dflt = "\"none\"", .meaning = USE_TOOLS},
    {"modalities", ON_CHAT, FIELD_ANY, REFUSED, .dflt = "[\"text\"]", .meaning = AUDIO_OUT},
    {"audio", ON_CHAT, FIELD_ANY, REFUSED, .dflt = "null", .meaning = AUDIO_OUT},
    {"web_search_options", ON_CHAT, FIELD_ANY, REFUSED, .dflt = "null",
     .meaning = "web_search_options is not supported"},

    /* 2.4 accepted and ignored everywhere */
    {"user", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"store", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"metadata", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"service_tier", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"safety_identifier", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"prompt_cache_key", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"prediction", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
    {"verbosity", ON_GENERATE, FIELD_ANY, IGNORED, .meaning = "no effect"},
};
const size_t n_api_fields = ARRAY_LEN(api_fields);
