#include "router/api/tokenizer_info.h"

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

/* is_place: members of the file that say where something lay on the machine that wrote it. */
static bool is_place(const char *key) {
    return ends(key, "_file") || ends(key, "_files") || ends(key, "_path") || ends(key, "_dir") ||
           strstr(key, "name_or_path");
}

char *api_tokenizer_info(const json_t *config, const char *chat_template) {
    struct buf b = {0};
    const char *key;
    const json_t *v, *name = json_object_get(config, "tokenizer_class");
    buf_addz(&b, "{\"tokenizer_class\":");
    jw_strz(&b, json_is_string(name) ? json_string_value(name) : "PreTrainedTokenizerFast");
    buf_addz(&b, ",\"chat_template\":");
    jw_strz(&b, chat_template);
    /* jansson's iteration does not change the object, but takes it as if it did. */
    json_object_foreach((json_t *)(uintptr_t)config, key, v) {
        if (is_place(key) || !strcmp(key, "tokenizer_class") || !strcmp(key, "chat_template"))
            continue;
        buf_addc(&b, ',');
        jw_strz(&b, key);
        buf_addc(&b, ':');
        jw_json(&b, v);
    }
    buf_addc(&b, '}');
    return buf_take(&b);
}
