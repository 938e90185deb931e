/* What the values of requests look like inside: of openapi_parts, struct field names one in `schema`. Lists say
 * their own sizes only where no flag does. */
#include "router/api/openapi.h"

/* clang-format off */
const struct openapi_part openapi_parts[] = {
    {"LaxBoolean", "{\"type\":[\"boolean\",\"integer\",\"string\",\"null\"],\"minimum\":0,\"maximum\":1,"
                   "\"pattern\":\"" OPENAPI_BOOL_PATTERN "\"}"},
    {"RequestId", OPENAPI_JSON({"type": "string", "pattern": "^[!-~]{1,128}$"})},
    {"CacheSalt", OPENAPI_JSON({"type": "string", "minLength": 1, "maxLength": 256,
        "description": "at most 256 bytes"})},
    {"Prompt", OPENAPI_JSON({
        "description": "One text, several, one list of token ids, or several.",
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
            {"type": "array", "minItems": 1,
             "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}}]})},
    {"Stop", OPENAPI_JSON({"type": ["string", "array"], "minLength": 1,
        "items": {"type": "string", "minLength": 1}})},
    {"LogitBias", OPENAPI_JSON({"type": "object", "propertyNames": {"pattern": "^[0-9]{1,18}$"},
        "description": "Token ids to values; values are clamped to -100 .. 100."})},
    {"Xargs", OPENAPI_JSON({"type": "object", "maxProperties": 64, "additionalProperties": {
        "type": ["string", "number", "array"], "items": {"type": ["string", "number"]}}})},
    {"LogitsProcessor", OPENAPI_JSON({
        "description": "a name, or an object with one and what the processor is made with",
        "anyOf": [
            {"type": "string"},
            {"type": "object", "required": ["qualname"], "additionalProperties": false, "properties": {
                "qualname": {"type": "string"},
                "args": {"type": ["array", "null"]},
                "kwargs": {"type": ["object", "null"]}}}]})},
    {"StreamOptions", OPENAPI_JSON({"type": "object", "properties": {
        "include_usage": {"$ref": "#/components/schemas/LaxBoolean", "default": false,
            "description": "a chunk with the usage before the end"},
        "continuous_usage_stats": {"$ref": "#/components/schemas/LaxBoolean", "default": false,
            "description": "with include_usage: the usage so far in every chunk"}}})},
    {"Message", OPENAPI_JSON({
        "type": "object", "required": ["role"],
        "anyOf": [{"required": ["content"]}, {"required": ["tool_calls"]}],
        "properties": {
            "role": {"type": "string", "minLength": 1,
                "description": "system, developer, user, assistant, tool, or what the template knows"},
            "content": {"anyOf": [{"type": ["string", "null"]},
                {"type": "array", "items": {"$ref": "#/components/schemas/ContentPart"}}]},
            "tool_calls": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/CallGiven"}},
            "tool_call_id": {"description": "handed to the template"},
            "name": {"description": "handed to the template"},
            "reasoning": {"description": "of an assistant: handed to the template"},
            "reasoning_content": {"description": "the same as reasoning"}}})},
    {"ContentPart", OPENAPI_JSON({
        "description": "A text is a part of type text.",
        "anyOf": [
            {"type": "string"},
            {"type": "object", "required": ["text"],
             "properties": {"type": {"enum": ["text", "input_text", null]}, "text": {"type": "string"}}},
            {"type": "object", "required": ["type", "refusal"],
             "properties": {"type": {"const": "refusal"}, "refusal": {"type": "string"}}},
            {"type": "object", "required": ["type", "thinking"],
             "properties": {"type": {"const": "thinking"}, "thinking": {"type": "string"}, "closed": {}}}]})},
    {"CallGiven", OPENAPI_JSON({
        "type": "object", "required": ["function"],
        "properties": {
            "id": {"description": "handed to the template"},
            "type": {"description": "handed to the template"},
            "function": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "minLength": 1},
                "arguments": {"type": ["string", "object", "null"],
                    "description": "an object, or its JSON; an empty string is {}"}}}}})},
    {"Tool", OPENAPI_JSON({
        "type": "object", "required": ["type", "function"],
        "properties": {
            "type": {"const": "function"},
            "function": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9_./:-]{1,64}$"},
                "description": {"type": ["string", "null"]},
                "parameters": {"type": ["object", "null"], "description": "a JSON schema; null: no parameters"},
                "strict": {"description": "no effect: a schema always holds"}}}}})},
    {"ToolChoice", OPENAPI_JSON({"anyOf": [
        {"enum": ["none", "auto", "required"]},
        {"type": "object", "required": ["type", "function"],
         "properties": {
            "type": {"const": "function"},
            "function": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}}]})},
    {"TemplateText", OPENAPI_JSON({"type": "string", "minLength": 1})},
    {"TemplateKwargs", OPENAPI_JSON({"type": "object", "maxProperties": 256,
        "propertyNames": {"not": {"enum": ["messages", "chat_template", "tokenize", "continue_final_message"]}}})},
    {"ObjectOrText", OPENAPI_JSON({"type": ["object", "string"], "description": "an object, or its JSON"})},
    {"ResponseFormat", OPENAPI_JSON({"type": "object", "required": ["type"], "anyOf": [
        {"properties": {"type": {"enum": ["text", "json_object"]}}},
        {"required": ["json_schema"],
         "properties": {
            "type": {"const": "json_schema"},
            "json_schema": {"type": "object", "required": ["name", "schema"], "properties": {
                "name": {"type": "string", "minLength": 1},
                "description": {},
                "schema": {"type": ["object", "boolean"]},
                "strict": {"description": "no effect: the schema always holds"}}}}},
        {"properties": {"type": {"const": "structural_tag"}}}]})},
    {"StructuredOutputs", OPENAPI_JSON({
        "type": "object", "additionalProperties": false, "minProperties": 1,
        "description": "exactly one of json, regex, choice, grammar, json_object and structural_tag",
        "properties": {
            "json": {"type": ["object", "string", "null"]},
            "regex": {"type": ["string", "null"]},
            "choice": {"type": ["array", "null"], "minItems": 1, "items": {"type": "string"}},
            "grammar": {"type": ["string", "null"]},
            "json_object": {"$ref": "#/components/schemas/LaxBoolean"},
            "structural_tag": {"type": ["object", "string", "null"]},
            "disable_any_whitespace": {"$ref": "#/components/schemas/LaxBoolean"},
            "disable_additional_properties": {"$ref": "#/components/schemas/LaxBoolean"},
            "whitespace_pattern": {"type": ["string", "null"]},
            "disable_fallback": {"description": "no effect"}}})},
    {"Text", OPENAPI_JSON({
        "description": "a text, or an object with one",
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
            {"type": "object", "required": ["content"], "properties": {"content": {"type": "array", "minItems": 1,
                "items": {"type": "object", "required": ["type", "text"],
                    "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}}}}]})},
    {"Texts", OPENAPI_JSON({"anyOf": [
        {"$ref": "#/components/schemas/Text"},
        {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Text"}}]})},
};
/* clang-format on */
const size_t n_openapi_parts = ARRAY_LEN(openapi_parts);
