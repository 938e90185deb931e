#include "tests/support/gram_made.h"

#include "tests/support/gram_oracle.h"

struct made {
    uint64_t seed;
    struct buf *b;
    uint32_t n_rules; /* of a grammar */
};

static uint32_t below(struct made *m, uint32_t n) {
    return oracle_random(&m->seed, n);
}

static bool chance(struct made *m, uint32_t percent) {
    return below(m, 100) < percent;
}

static void add(struct made *m, const char *text) {
    buf_addz(m->b, text);
}

#define PICK(m, list) add(m, (list)[below(m, ARRAY_LEN(list))])

/* ---- schemas ------------------------------------------------------------------------------------- */

static const char *const names[] = {"\"a\"", "\"name\"", "\"user id\"", "\"\xC3\xA9t\xC3\xA9\"",
                                    "\"x\\\"y\""};
static const char *const scalars[] = {
    "null", "true", "0", "-3", "12", "1.5", "1e3", "\"\"", "\"ab\"", "\"the \"", "\"\xE6\xBC\xA2\\n\""};
static const char *const patterns[] = {"\"^[a-c]+$\"",    "\"\\\\d{2,4}\"",  "\"^(the|an?) \"",
                                       "\"x$\"",          "\"^[^e]{1,6}$\"", "\"^\\\\w+@\\\\w+[.]com$\"",
                                       "\"^\\\\p{L}+$\"", "\"(?i)^yes|no$\""};

static void schema(struct made *m, unsigned depth);

static void maybe(struct made *m, const char *key, uint32_t percent, uint32_t lo, uint32_t n) {
    if (chance(m, percent))
        buf_addf(m->b, ",\"%s\":%u", key, lo + below(m, n));
}

static void list_of(struct made *m, const char *key, unsigned depth, uint32_t n) {
    buf_addf(m->b, "\"%s\":[", key);
    for (uint32_t i = 0; i < n; i++) {
        add(m, i ? "," : "");
        schema(m, depth);
    }
    add(m, "]");
}

static void value(struct made *m, unsigned depth) {
    uint32_t kind = below(m, 4), n = below(m, 3);
    if (!depth || kind < 2) {
        PICK(m, scalars);
        return;
    }
    add(m, kind == 2 ? "[" : "{");
    for (uint32_t i = 0; i < n; i++) {
        add(m, i ? "," : "");
        if (kind == 3)
            buf_addf(m->b, "%s:", names[i]);
        value(m, depth - 1);
    }
    add(m, kind == 2 ? "]" : "}");
}

static void string_schema(struct made *m) {
    static const char *const formats[] = {"date-time", "date", "time", "duration", "email",       "hostname",
                                          "ipv4",      "ipv6", "uri",  "uuid",     "json-pointer"};
    add(m, "{\"type\":\"string\"");
    if (chance(m, 25)) {
        buf_addf(m->b, ",\"format\":\"%s\"", formats[below(m, ARRAY_LEN(formats))]);
    } else {
        maybe(m, "minLength", 30, 0, 4);
        maybe(m, "maxLength", 40, 3, 30);
        if (chance(m, 30)) {
            add(m, ",\"pattern\":");
            PICK(m, patterns);
        }
    }
    add(m, "}");
}

static void number_schema(struct made *m) {
    static const char *const steps[] = {"2", "7", "0.25", "0.01", "100"};
    add(m, chance(m, 50) ? "{\"type\":\"integer\"" : "{\"type\":\"number\"");
    if (chance(m, 40))
        buf_addf(m->b, ",\"%s\":%d", chance(m, 50) ? "minimum" : "exclusiveMinimum",
                 (int)below(m, 300) - 150);
    if (chance(m, 40))
        buf_addf(m->b, ",\"%s\":%u.5", chance(m, 50) ? "maximum" : "exclusiveMaximum", 150 + below(m, 2000));
    if (chance(m, 20)) {
        add(m, ",\"multipleOf\":");
        PICK(m, steps);
    }
    add(m, "}");
}

static void array_schema(struct made *m, unsigned depth) {
    add(m, "{\"type\":\"array\"");
    if (chance(m, 25)) {
        add(m, ",");
        list_of(m, "prefixItems", depth, 1 + below(m, 2));
    }
    if (chance(m, 15)) {
        add(m, ",\"items\":{\"enum\":[1,12,\"a\"]},\"uniqueItems\":true");
    } else if (chance(m, 75)) {
        add(m, ",\"items\":");
        schema(m, depth);
    }
    maybe(m, "minItems", 40, 0, 3);
    maybe(m, "maxItems", 40, 2, 4);
    if (chance(m, 12)) {
        add(m, ",\"contains\":{\"type\":\"integer\"}");
        maybe(m, "maxContains", 50, 1, 3);
    }
    add(m, "}");
}

static void object_schema(struct made *m, unsigned depth) {
    uint32_t first = below(m, 3), n = below(m, 4);
    add(m, "{\"type\":\"object\"");
    if (n) {
        add(m, ",\"properties\":{");
        for (uint32_t i = 0; i < n; i++) {
            buf_addf(m->b, "%s%s:", i ? "," : "", names[(first + i) % ARRAY_LEN(names)]);
            schema(m, depth);
        }
        buf_addf(m->b, "},\"required\":[%s]", chance(m, 60) ? names[(first + n - 1) % ARRAY_LEN(names)] : "");
    }
    if (chance(m, 30)) {
        add(m, ",\"additionalProperties\":");
        schema(m, 0);
    }
    if (chance(m, 12))
        add(m, ",\"patternProperties\":{\"^n\":{\"type\":[\"string\",\"null\"]}}");
    if (chance(m, 10))
        add(m, ",\"propertyNames\":{\"maxLength\":6}");
    maybe(m, "minProperties", 12, 0, 2);
    maybe(m, "maxProperties", 12, 1, 3);
    if (chance(m, 10))
        add(m, ",\"dependentRequired\":{\"a\":[\"name\"]}");
    if (chance(m, 8))
        add(m, ",\"dependentSchemas\":{\"name\":{\"required\":[\"a\"]}}");
    add(m, "}");
}

static void mixed_schema(struct made *m, unsigned depth) {
    static const char *const lists[] = {"anyOf", "oneOf", "allOf"};
    static const char *const refs[] = {"{\"$ref\":\"#/$defs/tree\"}", "{\"$ref\":\"#/$defs/word\"}"};
    uint32_t kind = below(m, 8);
    if (kind < 4) {
        add(m, "{");
        list_of(m, lists[kind < 2 ? 0 : kind - 1], depth, 2);
        add(m, "}");
    } else if (kind == 4) {
        add(m, "{\"type\":[\"string\",\"integer\"],\"not\":");
        schema(m, 0);
        add(m, "}");
    } else if (kind == 5) {
        add(m, "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,2]},\"b\":{}},\"if\":{\"properties\":"
               "{\"a\":{\"const\":1}}},\"then\":{\"required\":[\"b\"]},\"else\":");
        object_schema(m, 0);
        add(m, "}");
    } else {
        PICK(m, refs);
    }
}

static void schema(struct made *m, unsigned depth) {
    uint32_t kind = below(m, depth ? 14 : 7);
    if (kind < 2) {
        string_schema(m);
    } else if (kind < 4) {
        number_schema(m);
    } else if (kind == 4) {
        add(m, "{\"enum\":[");
        for (uint32_t i = 0, n = 1 + below(m, 5); i < n; i++) {
            add(m, i ? "," : "");
            value(m, depth);
        }
        add(m, "]}");
    } else if (kind == 5) {
        add(m, "{\"const\":");
        value(m, depth);
        add(m, "}");
    } else if (kind == 6) {
        add(m, chance(m, 50) ? "{\"type\":[\"boolean\",\"null\"]}" : "{}");
    } else if (kind < 9) {
        array_schema(m, depth - 1);
    } else if (kind < 12) {
        object_schema(m, depth - 1);
    } else {
        mixed_schema(m, depth - 1);
    }
}

static void document(struct made *m) {
    add(m, "{\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"c\":"
           "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},\"required\":[\"v\"]},\"word\":"
           "{\"type\":\"string\",\"pattern\":\"^[a-z]+$\"}},\"allOf\":[");
    schema(m, 3);
    add(m, "]}");
}

/* ---- patterns ------------------------------------------------------------------------------------ */

static const char *const classes[] = {"[a-z]",   "[^a-z]", "[0-9A-F]", "\\d",   "\\w",
                                      "\\s",     ".",      "\\p{L}",   "[^\"]", "[\xC3\xA0-\xC3\xBF]",
                                      "\\P{Lu}", "[ \\n]", "\\S"};
static const char *const literals[] = {"a",
                                       "the",
                                       " ",
                                       "1",
                                       "x\\.",
                                       "\xC3\xA9",
                                       "\\n",
                                       "\\\"",
                                       "ing",
                                       "\\{",
                                       "\xE6\xBC\xA2",
                                       "\\u00e9",
                                       "= ",
                                       "\xF0\x9F\x98\x80"};

static void pattern(struct made *m, unsigned depth) {
    static const char *const marks[] = {"*", "+", "?", "{2}", "{1,3}", "{0,20}", "{2,}", "*?"};
    uint32_t kind = below(m, depth ? 10 : 4);
    if (kind < 2) {
        PICK(m, literals);
    } else if (kind < 4) {
        PICK(m, classes);
    } else if (kind < 7) {
        for (uint32_t i = 0, n = 2 + below(m, 3); i < n; i++)
            pattern(m, depth - 1);
    } else if (kind == 7) {
        add(m, chance(m, 50) ? "(" : "(?:");
        for (uint32_t i = 0, n = 2 + below(m, 2); i < n; i++) {
            add(m, i ? "|" : "");
            pattern(m, depth - 1);
        }
        add(m, ")");
    } else {
        add(m, "(?:");
        pattern(m, depth - 1);
        add(m, ")");
        PICK(m, marks);
    }
}

/* ---- grammars ------------------------------------------------------------------------------------ */

static void grammar_part(struct made *m, unsigned depth) {
    static const char *const words[] = {"\"a\"",      "\"the \"",  "\"(\"",        "\")\"",
                                        "\", \"",     "\"=\\n\"",  "\"\xC3\xA9\"", "[a-z]",
                                        "[0-9]{1,3}", "[^\"\\\\]", "\"\""};
    static const char *const marks[] = {"*", "+", "?", "{1,3}", ""};
    uint32_t kind = below(m, depth ? 10 : 7);
    if (kind < 5) {
        PICK(m, words);
    } else if (kind < 7) {
        buf_addf(m->b, "r%u", below(m, m->n_rules));
    } else {
        add(m, "(");
        for (uint32_t i = 0, n = 1 + below(m, 3); i < n; i++) {
            add(m, i && chance(m, 40) ? " | " : " ");
            grammar_part(m, depth - 1);
        }
        add(m, ")");
        PICK(m, marks);
    }
}

static void grammar(struct made *m) {
    m->n_rules = 1 + below(m, 4);
    add(m, "root ::= r0\n");
    for (uint32_t r = 0; r < m->n_rules; r++) {
        buf_addf(m->b, "r%u ::= ", r);
        for (uint32_t i = 0, n = 1 + below(m, 3); i < n; i++) {
            add(m, i ? " | " : "");
            for (uint32_t k = 0, n_parts = 1 + below(m, 3); k < n_parts; k++) {
                add(m, " ");
                grammar_part(m, 2);
            }
        }
        add(m, "\n");
    }
}

void gram_made(uint64_t seed, enum gram_kind kind, struct buf *b) {
    struct made m = {.seed = seed * 0x9E3779B97F4A7C15u + kind, .b = b};
    if (kind == GRAM_JSON_SCHEMA)
        document(&m);
    else if (kind == GRAM_REGEX)
        pattern(&m, 4);
    else
        grammar(&m);
}
