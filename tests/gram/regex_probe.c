/* regex_probe: patterns for scripts. Reads one JSON object per line of standard input and writes one per
 * line:
 *
 *   in   {"regex": P, "search": bool, "texts": [T]}
 *   out  {"accept": [bool per text]} or {"error": "why the pattern was refused"} */
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/regex.h"
#include "common/json.h"

static struct str text_of(const json_t *v) {
    return (struct str){json_string_value(v), json_string_length(v)};
}

static json_t *answer(const json_t *in) {
    struct gram *g = gram_new(NULL);
    struct err e = {0};
    uint32_t rx;
    json_t *out;
    bool search = json_is_true(json_object_get(in, "search"));
    if (rx_parse(g, text_of(json_object_get(in, "regex")), search, &rx, &e) != RC_OK) {
        out = json_pack("{s:s}", "error", e.msg);
    } else {
        json_t *accept = json_array(), *v;
        size_t i;
        json_array_foreach(json_object_get(in, "texts"), i, v)
            json_array_append_new(accept, json_boolean(rx_matches(g, rx, text_of(v))));
        out = json_pack("{s:o}", "accept", accept);
    }
    gram_drop(g);
    return out;
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_t *in = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        CHECK(json_is_object(in));
        json_t *out = answer(in);
        char *text = json_dumps(out, JSON_COMPACT);
        puts(text);
        free(text);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    return 0;
}
