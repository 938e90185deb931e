/* grammar.*: the time of masks for 200 made-up schemas of all sizes and a vocabulary of 128,000 tokens.
 *
 * Each schema comes with an instance, cut into tokens by longest match; a mask is asked for before each
 * token, as an engine would. grammar.mask_*_us: over all masks of all schemas in one go, the first of each
 * left out. grammar.first_mask_*_ms: from the schema's text to the first mask. Everything in one process and
 * one thread; what schemas share through the vocabulary is cold at the start.
 *
 * Usage: bench_grammar [number of schemas] [file]. With a file, what was measured is written to it for other
 * engines (scripts/bench_grammar_peers.py): a line {"vocab": tokens in hex, "eos"}, then for each schema one
 * {"schema", "tokens"}, tokens being the instance's ids. */
#include "common/gram/front.h"
#include "common/gram/vocab.h"
#include "tests/support/bench.h"
#include "tests/support/gram_vocab.h"

#include "common/buf.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_VOCAB = 128000 };

/* ---- schemas ----------------------------------------------------------------------------------- */

struct make {
    uint64_t seed;
    struct buf schema, instance;
};

static uint32_t below(struct make *m, uint32_t n) {
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((m->seed >> 33) % n);
}

static const char *const words[] = {"name",    "user",  "id",    "status", "created", "address",
                                    "city",    "price", "total", "items",  "comment", "title",
                                    "weather", "size",  "color", "email",  "active",  "source",
                                    "target",  "value", "unit",  "range",  "level",   "note"};

static void put_words(struct make *m, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (i)
            buf_addc(&m->instance, ' ');
        buf_addz(&m->instance, words[below(m, ARRAY_LEN(words))]);
        if (below(m, 9) == 0)
            buf_addz(&m->instance, below(m, 2) ? " \xC3\xA9t\xC3\xA9" : "\\n");
    }
}

static void value(struct make *m, unsigned depth);

static void string_value(struct make *m) {
    uint32_t kind = below(m, 10), n = 1 + below(m, 12);
    if (kind < 5) {
        buf_addz(&m->schema, "{\"type\":\"string\"}");
        buf_addc(&m->instance, '"');
        put_words(m, n);
        buf_addc(&m->instance, '"');
    } else if (kind < 6) {
        buf_addf(&m->schema, "{\"type\":\"string\",\"minLength\":%u,\"maxLength\":%u}", below(m, 3),
                 20 + below(m, 200));
        buf_addf(&m->instance, "\"%s %s\"", words[below(m, ARRAY_LEN(words))],
                 words[below(m, ARRAY_LEN(words))]);
    } else if (kind < 7) {
        buf_addz(&m->schema, "{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-[0-9]{4}$\"}");
        buf_addf(&m->instance, "\"AB-%04u\"", below(m, 10000));
    } else if (kind < 8) {
        buf_addz(&m->schema, "{\"type\":\"string\",\"format\":\"date\"}");
        buf_addf(&m->instance, "\"20%02u-0%u-1%u\"", below(m, 30), 1 + below(m, 9), below(m, 10));
    } else {
        buf_addz(&m->schema, "{\"enum\":[");
        uint32_t pick = below(m, n);
        for (uint32_t i = 0; i < n; i++) {
            buf_addf(&m->schema, "%s\"%s-%u\"", i ? "," : "", words[(i * 7 + n) % ARRAY_LEN(words)], i);
            if (i == pick)
                buf_addf(&m->instance, "\"%s-%u\"", words[(i * 7 + n) % ARRAY_LEN(words)], i);
        }
        buf_addz(&m->schema, "]}");
    }
}

static void object_value(struct make *m, unsigned depth, uint32_t n_props) {
    buf_addz(&m->schema, "{\"type\":\"object\",\"properties\":{");
    buf_addc(&m->instance, '{');
    bool required[256], any = false;
    for (uint32_t i = 0; i < n_props; i++) {
        size_t at = m->instance.len;
        const char *w = words[(i + n_props) % ARRAY_LEN(words)];
        required[i] = below(m, 2);
        buf_addf(&m->schema, "%s\"%s_%u\":", i ? "," : "", w, i);
        buf_addf(&m->instance, "%s\"%s_%u\": ", any ? ", " : "", w, i);
        value(m, depth);
        if (!required[i] && below(m, 3) == 0)
            m->instance.len = at; /* left out */
        else
            any = true;
    }
    buf_addz(&m->schema, "},\"required\":[");
    for (uint32_t i = 0, first = 1; i < n_props; i++)
        if (required[i]) {
            buf_addf(&m->schema, "%s\"%s_%u\"", first ? "" : ",", words[(i + n_props) % ARRAY_LEN(words)], i);
            first = 0;
        }
    buf_addc(&m->schema, ']');
    if (below(m, 4) == 0) {
        buf_addz(&m->schema, ",\"additionalProperties\":{\"type\":\"string\"}");
        for (uint32_t i = 0; i < 3; i++) {
            buf_addf(&m->instance, "%s\"extra %u\": \"", any ? ", " : "", i);
            put_words(m, 3);
            buf_addc(&m->instance, '"');
            any = true;
        }
    }
    buf_addc(&m->schema, '}');
    buf_addc(&m->instance, '}');
}

/* value: a subschema and what meets it. */
static void value(struct make *m, unsigned depth) {
    uint32_t kind = below(m, depth ? 14 : 9);
    if (kind < 5) {
        string_value(m);
    } else if (kind == 5) {
        bool ranged = below(m, 3) == 0;
        buf_addz(&m->schema,
                 ranged ? "{\"type\":\"integer\",\"minimum\":0,\"maximum\":5000}" : "{\"type\":\"integer\"}");
        buf_addf(&m->instance, "%u", below(m, 5000));
    } else if (kind == 6) {
        buf_addz(&m->schema, "{\"type\":\"number\"}");
        buf_addf(&m->instance, "%s%u.%u", below(m, 4) ? "" : "-", below(m, 900), below(m, 1000));
    } else if (kind == 7) {
        buf_addz(&m->schema, "{\"type\":\"boolean\"}");
        buf_addz(&m->instance, below(m, 2) ? "true" : "false");
    } else if (kind == 8) {
        buf_addz(&m->schema, "{\"anyOf\":[{\"type\":\"null\"},");
        size_t at = m->instance.len;
        string_value(m);
        buf_addz(&m->schema, "]}");
        if (below(m, 2)) {
            m->instance.len = at;
            buf_addz(&m->instance, "null");
        }
    } else if (kind < 11) {
        struct buf once = {0};
        buf_addz(&m->schema, "{\"type\":\"array\",\"items\":");
        buf_addc(&m->instance, '[');
        uint64_t seed = m->seed;
        size_t at = m->schema.len;
        for (uint32_t i = 0, n = 1 + below(m, 5); i < n; i++) {
            size_t from = m->instance.len;
            m->seed = seed; /* the same subschema, and the same value */
            m->schema.len = at;
            value(m, depth - 1);
            if (i == 0)
                buf_add(&once, m->instance.data + from, m->instance.len - from);
            buf_addz(&m->instance, i + 1 < n ? ", " : "");
        }
        buf_addz(&m->schema, "}");
        buf_addc(&m->instance, ']');
        buf_fini(&once);
    } else {
        object_value(m, depth - 1, 1 + below(m, 6));
    }
}

static void make_schema(struct make *m, uint32_t i) {
    uint32_t n_props = i % 10 == 9 ? 60 + below(m, 100) : i % 10 >= 6 ? 10 + below(m, 30) : 1 + below(m, 8);
    m->schema.len = m->instance.len = 0;
    object_value(m, i % 4, n_props);
}

/* ---- measuring --------------------------------------------------------------------------------- */

struct series {
    double *v;
    size_t n, cap;
};

static void add(struct series *s, double v) {
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
    }
    s->v[s->n++] = v;
}

static int cmp_double(const void *a, const void *b) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static double quantile(struct series *s, double q) {
    qsort(s->v, s->n, sizeof *s->v, cmp_double);
    return s->n ? s->v[MIN((size_t)(q * (double)s->n), s->n - 1)] : 0;
}

/* longest: the token of the longest match at the start of s. */
static uint32_t longest(const struct gram_vocab *v, struct str s, size_t *n) {
    uint32_t best = NO_TOKEN, i = 0, end = v->n_nodes;
    *n = 0;
    for (size_t at = 0; at < s.n && i < end;) {
        const struct vocab_node *x = &v->node[i];
        if (x->byte != (uint8_t)s.p[at]) {
            i = x->end;
            continue;
        }
        at++;
        if (x->token != NO_TOKEN) {
            best = x->token;
            *n = at;
        }
        end = x->end;
        i++;
    }
    CHECK(best != NO_TOKEN);
    return best;
}

struct result {
    struct series mask_us, first_ms, compile_ms;
    size_t n_bytes_max, n_refused;
};

static void measure(const struct make *m, const struct gram_vocab *v, uint32_t *mask, struct result *res) {
    struct gram *g;
    struct err e = {0};
    struct str text = buf_str(&m->instance);
    double start = bench_now_s();
    if (gram_compile(&g, GRAM_JSON_SCHEMA, buf_str(&m->schema), (struct str){NULL, 0}, NULL, &e)) {
        fprintf(stderr, "bench_grammar: %s: %s\n", e.param, e.msg);
        res->n_refused++;
        return;
    }
    add(&res->compile_ms, (bench_now_s() - start) * 1e3);
    struct gram_run *r = gram_run_new(g, v);
    bool first = true;
    for (size_t at = 0; at < text.n; first = false) {
        size_t n;
        uint32_t t = longest(v, (struct str){text.p + at, text.n - at}, &n);
        double before = bench_now_s();
        CHECK(gram_run_mask(r, mask, &e) == RC_OK);
        double now = bench_now_s();
        if (first)
            add(&res->first_ms, (now - start) * 1e3);
        else
            add(&res->mask_us, (now - before) * 1e6);
        if (getenv("GRAM_TRACE") && now - before > 300e-6)
            fprintf(stderr, "%.0f us at ...%.*s\n", (now - before) * 1e6, (int)MIN(at, (size_t)40),
                    text.p + at - MIN(at, (size_t)40));
        if (!(mask[t / 32] >> (t % 32) & 1)) {
            fprintf(stderr, "bench_grammar: refused at %zu of %.*s\nschema %.*s\n", at, (int)text.n, text.p,
                    (int)m->schema.len, m->schema.data);
            exit(1);
        }
        CHECK(gram_run_accept(r, t, &e) == RC_OK);
        at += n;
    }
    CHECK(gram_run_may_end(r));
    res->n_bytes_max = MAX(res->n_bytes_max, gram_bytes(g));
    gram_run_free(r);
    gram_drop(g);
}

static void write_out(FILE *f, struct buf *line) {
    buf_addc(line, '\n');
    CHECK(fwrite(line->data, 1, line->len, f) == line->len);
    buf_fini(line);
}

static void write_vocab(FILE *f, const struct str *tokens, uint32_t eos) {
    struct buf line = {0};
    buf_addf(&line, "{\"eos\":%u,\"vocab\":[", eos);
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        buf_addz(&line, i ? ",\"" : "\"");
        for (size_t k = 0; k < tokens[i].n; k++)
            buf_addf(&line, "%02x", (uint8_t)tokens[i].p[k]);
        buf_addc(&line, '"');
    }
    buf_addz(&line, "]}");
    write_out(f, &line);
}

static void write_case(FILE *f, const struct make *m, const struct gram_vocab *v) {
    struct buf line = {0};
    struct str text = buf_str(&m->instance);
    buf_addz(&line, "{\"schema\":");
    buf_add_str(&line, buf_str(&m->schema));
    buf_addz(&line, ",\"tokens\":[");
    for (size_t at = 0, n; at < text.n; at += n)
        buf_addf(&line, at ? ",%u" : "%u", longest(v, (struct str){text.p + at, text.n - at}, &n));
    buf_addz(&line, "]}");
    write_out(f, &line);
}

int main(int argc, char **argv) {
    uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 200, eos = N_VOCAB - 1;
    FILE *f = argc > 2 ? fopen(argv[2], "w") : NULL;
    char *bytes, params[256];
    struct str *tokens = made_vocab(N_VOCAB, &bytes);
    double start = bench_now_s();
    struct gram_vocab *v = gram_vocab_of(tokens, N_VOCAB, &eos, 1);
    double vocab_s = bench_now_s() - start;
    uint32_t *mask = xcalloc(gram_mask_words(N_VOCAB), sizeof *mask);
    struct make m = {.seed = 5};
    if (f)
        write_vocab(f, tokens, eos);
    struct result res = {0};
    size_t schema_bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        make_schema(&m, i);
        schema_bytes += m.schema.len;
        if (f)
            write_case(f, &m, v);
        measure(&m, v, mask, &res);
    }
    if (f)
        fclose(f);
    snprintf(params, sizeof params,
             "{\"schemas\":%u,\"refused\":%zu,\"schema_bytes\":%zu,\"masks\":%zu,\"vocab\":%u,\"nodes\":%u,"
             "\"vocab_ms\":%.0f,\"grammar_mib_max\":%.1f}",
             n, res.n_refused, schema_bytes, res.mask_us.n, N_VOCAB, v->n_nodes, vocab_s * 1e3,
             (double)res.n_bytes_max / (double)MIB);
    bench_emit("grammar.mask_p50_us", quantile(&res.mask_us, 0.5), "us", params);
    bench_emit("grammar.mask_p99_us", quantile(&res.mask_us, 0.99), "us", params);
    bench_emit("grammar.mask_max_us", quantile(&res.mask_us, 1), "us", params);
    bench_emit("grammar.first_mask_p50_ms", quantile(&res.first_ms, 0.5), "ms", params);
    bench_emit("grammar.first_mask_p99_ms", quantile(&res.first_ms, 0.99), "ms", params);
    bench_emit("grammar.compile_p50_ms", quantile(&res.compile_ms, 0.5), "ms", params);
    free(res.mask_us.v);
    free(res.first_ms.v);
    free(res.compile_ms.v);
    buf_fini(&m.schema);
    buf_fini(&m.instance);
    free(mask);
    gram_vocab_free(v);
    free(tokens);
    free(bytes);
    return 0;
}
