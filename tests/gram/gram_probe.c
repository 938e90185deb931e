/* gram_probe: constraints for scripts. Reads one JSON object per line of standard input and writes one per
 * line:
 *
 *   in   {"schema": S, "texts": [T], "options": {..}, "walks": N, "seed": M}   (all but schema may be
 * missing) out  {"accept": [bool per text], "taken": [bytes per text], "walks": [string or null]} or
 * {"error": "why the schema was refused", "at": "JSON pointer"}
 *
 * A walk goes through the grammar byte by byte, in random order; null: it had not ended after 3,000 bytes, or
 * a budget was passed. One that cannot go on and may not end ends the program: grammars have no dead ends. */
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/front.h"
#include "common/gram/gram.h"
#include "common/json.h"

enum { WALK_BYTES = 3000 };

static uint64_t seed;

static uint32_t rnd(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static bool accepts(struct gram *g, struct str text, size_t *taken) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e;
    bool yes = gram_run_bytes(r, text, taken, &e) == RC_OK && gram_run_may_end(r);
    gram_run_free(r);
    return yes;
}

/* one_byte: takes a byte that may come next: most often one that ends something once the text is long.
 * RC_INVALID: there is none; RC_OVERLOAD: a budget was passed. */
static enum rc one_byte(struct gram_run *r, struct buf *out) {
    static const char closing[] = "\"}]", usual[] = "abcz0123456789-.,:\"{}[]tfn \\/@TZ";
    struct err e;
    unsigned char order[256 + sizeof closing + sizeof usual];
    size_t n = 0;
    bool close = rnd(100) < 15 + out->len / 4;
    for (size_t i = 0; close && i < sizeof closing - 1; i++)
        order[n++] = (unsigned char)closing[i];
    size_t from = n;
    for (size_t i = 0; i < sizeof usual - 1; i++)
        order[n++] = (unsigned char)usual[i];
    for (size_t i = n; i-- > from + 1;) {
        size_t k = from + rnd((uint32_t)(i - from + 1));
        unsigned char t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    unsigned first = rnd(256);
    for (unsigned c = 0; c < 256; c++)
        order[n++] = (unsigned char)(first + c);
    for (size_t i = 0; i < n; i++) {
        char c = (char)order[i];
        enum rc rc = gram_run_bytes(r, (struct str){&c, 1}, NULL, &e);
        if (rc == RC_OK)
            buf_addc(out, c);
        if (rc != RC_INVALID)
            return rc;
    }
    return RC_INVALID;
}

static json_t *walk(struct gram *g) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct buf out = {0};
    json_t *text = NULL;
    while (out.len < WALK_BYTES) {
        if (gram_run_may_end(r) && (gram_run_must_end(r) || rnd(3) == 0)) {
            text = json_stringn(out.data ? out.data : "", out.len);
            break;
        }
        enum rc rc = one_byte(r, &out);
        if (rc == RC_OVERLOAD)
            break;
        if (rc) {
            fprintf(stderr, "gram_probe: stuck behind %s\n", buf_cstr(&out));
            exit(1);
        }
    }
    gram_run_free(r);
    buf_fini(&out);
    return text ? text : json_null();
}

static json_t *answer(const json_t *in, struct gram *g) {
    json_t *out = json_object(), *accept = json_array(), *taken = json_array(), *walks = json_array();
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(in, "texts"), i, v) {
        size_t n = 0;
        json_array_append_new(
            accept, json_boolean(accepts(g, (struct str){json_string_value(v), json_string_length(v)}, &n)));
        json_array_append_new(taken, json_integer((json_int_t)n));
    }
    seed = (uint64_t)json_integer_value(json_object_get(in, "seed")) * 2 + 1;
    for (json_int_t n = json_integer_value(json_object_get(in, "walks")); n > 0; n--)
        json_array_append_new(walks, walk(g));
    json_object_set_new(out, "accept", accept);
    json_object_set_new(out, "taken", taken);
    json_object_set_new(out, "walks", walks);
    return out;
}

static char *dump(const json_t *in, const char *key) {
    const json_t *v = json_object_get(in, key);
    return v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : xstrdup("");
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct json_limits limits = {.depth_max = 128, .nodes_max = 1 << 22};
        struct err e = {0};
        json_t *in, *out;
        if (json_parse((struct str){line, (size_t)n}, &limits, &in, &e)) {
            fprintf(stderr, "gram_probe: %s\n", e.msg);
            return 1;
        }
        char *schema = dump(in, "schema"), *options = dump(in, "options");
        struct gram *g;
        if (gram_compile(&g, GRAM_JSON_SCHEMA, str_of(schema), str_of(options), NULL, &e)) {
            out = json_pack("{s:s,s:s}", "error", e.msg, "at", e.param);
        } else {
            out = answer(in, g);
            gram_drop(g);
        }
        char *text = json_dumps(out, JSON_COMPACT);
        puts(text);
        fflush(stdout);
        free(text);
        free(schema);
        free(options);
        json_decref(in);
        json_decref(out);
    }
    free(line);
    return 0;
}
