/* The bodies of answers (api.md 3.1, 6.2, 6.3, 7.4, 7.5, 8.7, 8.12, 12, 14, 15). */
#include "router/api/openapi.h"

/* clang-format off */
const struct openapi_part openapi_answers[] = {
    {"Error", OPENAPI_JSON({
        "type": "object", "required": ["error"], "additionalProperties": false,
        "properties": {"error": {
            "type": "object", "required": ["message", "type", "param", "code"], "additionalProperties": false,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "dotted path of the field at fault"},
                "code": {"type": "integer", "description": "the HTTP status"}}}}})},
    {"Usage", OPENAPI_JSON({
        "type": "object",
        "required": ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details",
                     "completion_tokens_details"],
        "properties": {
            "prompt_tokens": {"type": "integer", "minimum": 0},
            "completion_tokens": {"type": "integer", "minimum": 0},
            "total_tokens": {"type": "integer", "minimum": 0},
            "prompt_tokens_details": {"type": ["object", "null"], "properties": {
                "cached_tokens": {"type": "integer", "minimum": 0}}},
            "completion_tokens_details": {"type": ["object", "null"], "properties": {
                "reasoning_tokens": {"type": "integer", "minimum": 0}}}}})},
    {"FinishReason", OPENAPI_JSON({"enum": ["stop", "length", "tool_calls", "abort"]})},
    {"StopReason", OPENAPI_JSON({"type": ["string", "integer", "null"],
        "description": "the stop string, or the id of the stop token"})},
    {"PromptLogprobs", OPENAPI_JSON({"type": ["array", "null"], "items": {"type": ["object", "null"],
        "additionalProperties": {"type": "object", "required": ["logprob", "rank", "decoded_token"], "properties": {
            "logprob": {"type": "number"},
            "rank": {"type": "integer", "minimum": 1},
            "decoded_token": {"type": "string"}}}}})},
    {"CompletionLogprobs", OPENAPI_JSON({"type": ["object", "null"],
        "required": ["text_offset", "token_logprobs", "tokens", "top_logprobs"],
        "properties": {
            "text_offset": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "token_logprobs": {"type": "array", "items": {"type": ["number", "null"]}},
            "tokens": {"type": "array", "items": {"type": "string"}},
            "top_logprobs": {"type": "array", "items": {"type": ["object", "null"],
                "additionalProperties": {"type": "number"}}}}})},
    {"ChatLogprobs", OPENAPI_JSON({"type": ["object", "null"], "required": ["content", "refusal"], "properties": {
        "content": {"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/TokenLogprob"},
            {"required": ["top_logprobs"], "properties": {"top_logprobs": {"type": "array",
                "items": {"$ref": "#/components/schemas/TokenLogprob"}}}}]}},
        "refusal": {"type": "null"}}})},
    {"TokenLogprob", OPENAPI_JSON({"type": "object", "required": ["token", "logprob", "bytes"], "properties": {
        "token": {"type": "string"},
        "logprob": {"type": "number"},
        "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}}}})},
    {"Completion", OPENAPI_JSON({
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
                     "kv_transfer_params"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "text_completion"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": {
                "type": "object",
                "required": ["index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_logprobs"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "text": {"type": "string"},
                    "logprobs": {"$ref": "#/components/schemas/CompletionLogprobs"},
                    "finish_reason": {"$ref": "#/components/schemas/FinishReason"},
                    "stop_reason": {"$ref": "#/components/schemas/StopReason"},
                    "prompt_logprobs": {"$ref": "#/components/schemas/PromptLogprobs"}}}},
            "service_tier": {"type": "null"},
            "system_fingerprint": {"type": "string"},
            "usage": {"$ref": "#/components/schemas/Usage"},
            "kv_transfer_params": {"type": ["object", "null"]}}})},
    {"CompletionChunk", OPENAPI_JSON({
        "type": "object", "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "text_completion"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "maxItems": 1, "items": {
                "type": "object", "required": ["index", "text", "logprobs", "finish_reason", "stop_reason"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "text": {"type": "string"},
                    "logprobs": {"$ref": "#/components/schemas/CompletionLogprobs"},
                    "finish_reason": {"anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/FinishReason"}]},
                    "stop_reason": {"$ref": "#/components/schemas/StopReason"}}}},
            "system_fingerprint": {"type": "string"},
            "usage": {"$ref": "#/components/schemas/Usage"}}})},
    {"ToolCall", OPENAPI_JSON({"type": "object", "required": ["id", "type", "function"], "properties": {
        "id": {"type": "string"},
        "type": {"const": "function"},
        "function": {"type": "object", "required": ["name", "arguments"], "properties": {
            "name": {"type": "string"},
            "arguments": {"type": "string", "description": "JSON"}}}}})},
    {"ChatCompletion", OPENAPI_JSON({
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
                     "prompt_logprobs", "kv_transfer_params"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "chat.completion"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": {
                "type": "object", "required": ["index", "message", "logprobs", "finish_reason", "stop_reason"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "message": {
                        "type": "object",
                        "required": ["role", "content", "refusal", "annotations", "audio", "function_call",
                                     "reasoning", "reasoning_content"],
                        "properties": {
                            "role": {"type": "string"},
                            "content": {"type": ["string", "null"]},
                            "refusal": {"type": "null"},
                            "annotations": {"type": "null"},
                            "audio": {"type": "null"},
                            "function_call": {"type": "null"},
                            "reasoning": {"type": ["string", "null"]},
                            "reasoning_content": {"type": ["string", "null"]},
                            "tool_calls": {"type": "array", "minItems": 1,
                                "items": {"$ref": "#/components/schemas/ToolCall"}}}},
                    "logprobs": {"$ref": "#/components/schemas/ChatLogprobs"},
                    "finish_reason": {"$ref": "#/components/schemas/FinishReason"},
                    "stop_reason": {"$ref": "#/components/schemas/StopReason"}}}},
            "service_tier": {"type": "null"},
            "system_fingerprint": {"type": "string"},
            "usage": {"$ref": "#/components/schemas/Usage"},
            "prompt_logprobs": {"$ref": "#/components/schemas/PromptLogprobs"},
            "kv_transfer_params": {"type": ["object", "null"]}}})},
    {"ChatCompletionChunk", OPENAPI_JSON({
        "type": "object", "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "chat.completion.chunk"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "maxItems": 1, "items": {
                "type": "object", "required": ["index", "delta", "logprobs", "finish_reason"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "delta": {"type": "object", "properties": {
                        "role": {"type": "string"},
                        "content": {"type": ["string", "null"]},
                        "reasoning": {"type": ["string", "null"]},
                        "reasoning_content": {"type": ["string", "null"]},
                        "tool_calls": {"type": "array", "items": {"type": "object", "required": ["index", "function"],
                            "properties": {
                                "index": {"type": "integer", "minimum": 0},
                                "id": {"type": "string"},
                                "type": {"const": "function"},
                                "function": {"type": "object", "required": ["arguments"], "properties": {
                                    "name": {"type": "string"}, "arguments": {"type": "string"}}}}}}}},
                    "logprobs": {"$ref": "#/components/schemas/ChatLogprobs"},
                    "finish_reason": {"anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/FinishReason"}]},
                    "stop_reason": {"$ref": "#/components/schemas/StopReason"}}}},
            "system_fingerprint": {"type": "string"},
            "usage": {"$ref": "#/components/schemas/Usage"}}})},
    {"PoolingUsage", OPENAPI_JSON({"type": "object", "required": ["prompt_tokens", "total_tokens"], "properties": {
        "prompt_tokens": {"type": "integer", "minimum": 0},
        "total_tokens": {"type": "integer", "minimum": 0},
        "completion_tokens": {"const": 0},
        "prompt_tokens_details": {"type": "null"}}})},
    {"PoolingHead", OPENAPI_JSON({
        "type": "object", "required": ["id", "object", "created", "model", "data", "usage"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "list"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "data": {"type": "array", "items": {"type": "object", "required": ["index"],
                "properties": {"index": {"type": "integer", "minimum": 0}}}},
            "usage": {"$ref": "#/components/schemas/PoolingUsage"}}})},
    {"Vector", OPENAPI_JSON({"type": ["array", "string"], "items": {"type": "number"}})},
    {"Embeddings", OPENAPI_JSON({"allOf": [{"$ref": "#/components/schemas/PoolingHead"}], "properties": {
        "data": {"items": {"required": ["object", "embedding"], "properties": {
            "object": {"const": "embedding"},
            "embedding": {"$ref": "#/components/schemas/Vector"}}}}}})},
    {"Pooled", OPENAPI_JSON({"allOf": [{"$ref": "#/components/schemas/PoolingHead"}], "properties": {
        "data": {"items": {"required": ["object", "data"], "properties": {
            "object": {"const": "pooling"},
            "data": {"anyOf": [{"$ref": "#/components/schemas/Vector"},
                {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}]}}}}}})},
    {"Classes", OPENAPI_JSON({"allOf": [{"$ref": "#/components/schemas/PoolingHead"}], "properties": {
        "data": {"items": {"required": ["label", "probs", "num_classes"], "properties": {
            "label": {"type": ["string", "null"]},
            "probs": {"type": "array", "items": {"type": "number"}},
            "num_classes": {"type": "integer", "minimum": 1}}}}}})},
    {"Scores", OPENAPI_JSON({"allOf": [{"$ref": "#/components/schemas/PoolingHead"}], "properties": {
        "data": {"items": {"required": ["object", "score"], "properties": {
            "object": {"const": "score"},
            "score": {"type": "number"}}}}}})},
    {"Ranking", OPENAPI_JSON({
        "type": "object", "required": ["id", "model", "usage", "results"],
        "properties": {
            "id": {"type": "string"},
            "model": {"type": "string"},
            "usage": {"$ref": "#/components/schemas/PoolingUsage"},
            "results": {"type": "array", "items": {"type": "object", "required": ["index", "relevance_score"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "document": {"type": "object", "required": ["text"],
                        "properties": {"text": {"type": "string"}}},
                    "relevance_score": {"type": "number"}}}}}})},
    {"Tokens", OPENAPI_JSON({
        "type": "object", "required": ["count", "max_model_len", "tokens", "token_strs"],
        "properties": {
            "count": {"type": "integer", "minimum": 0},
            "max_model_len": {"type": "integer", "minimum": 1},
            "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "token_strs": {"type": ["array", "null"], "items": {"type": "string"}}}})},
    {"TextOfTokens", OPENAPI_JSON({"type": "object", "required": ["prompt"],
        "properties": {"prompt": {"type": "string"}}})},
    {"Aborted", OPENAPI_JSON({"type": "object", "required": ["status", "aborted"],
        "properties": {"status": {"const": "aborted"}, "aborted": {"type": "integer", "minimum": 0}}})},
    {"Reset", OPENAPI_JSON({"type": "object", "required": ["success"],
        "properties": {"success": {"type": "boolean"}}})},
    {"Requests", OPENAPI_JSON({"type": "object", "required": ["requests"],
        "properties": {"requests": {"type": "array", "items": {"type": "object"}}}})},
    {"Workers", OPENAPI_JSON({"type": "object", "required": ["workers"],
        "properties": {"workers": {"type": "array", "items": {"type": "object"}}}})},
    {"TokenizerInfo", OPENAPI_JSON({"type": "object", "required": ["tokenizer_class", "chat_template"],
        "properties": {"tokenizer_class": {"type": "string"}, "chat_template": {"type": ["string", "null"]}}})},
    {"Model", OPENAPI_JSON({
        "type": "object",
        "required": ["id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"const": "weir"},
            "root": {"type": "string"},
            "parent": {"type": "null"},
            "max_model_len": {"type": "integer", "minimum": 1},
            "permission": {"type": "array", "items": {"type": "object"}}}})},
    {"Models", OPENAPI_JSON({"type": "object", "required": ["object", "data"], "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}})},
    {"Version", OPENAPI_JSON({"type": "object", "required": ["version"],
        "properties": {"version": {"type": "string"}}})},
    {"Load", OPENAPI_JSON({"type": "object", "required": ["server_load"],
        "properties": {"server_load": {"type": "integer", "minimum": 0}}})},
};
/* clang-format on */
const size_t n_openapi_answers = ARRAY_LEN(openapi_answers);
