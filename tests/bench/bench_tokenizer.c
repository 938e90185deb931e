/* tokenizer.mb_s: encoding speed on one core (CPU time) per kind of tokenizer, and hostile inputs of 30 MiB
 * (of 4 MiB for the kinds beside byte-level BPE).
 *
 * Usage: bench_tokenizer [--speed [FAMILY] | tokenizer.json [text file]...]
 * --speed leaves the hostile inputs out. Without a file: the trained golden tokenizers on text made up here: words drawn as often as a
 * language does, and code. Their vocabularies of 4,000 must merge more than a real one of 128,000, but
 * fit the cache. */
#include "common/text/tok.h"
#include "tests/support/bench.h"
#include "tests/support/tok_golden.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_TEXT = 4 << 20, N_HOSTILE = 30 << 20, N_HOSTILE_SHORT = 4 << 20 };

/* measure: the fastest of a few runs, in CPU time: one thread computes and never waits. */
static void measure(const struct tok *t, const char *family, const char *input, struct str text, int n_runs) {
    double best_s = 1e9;
    size_t n_ids = 0;
    for (int run = 0; run < n_runs; run++) {
        struct tok_ids ids = {0};
        double start = bench_cpu_s();
        tok_encode(t, text.p, text.n, NULL, 0, 0, &ids);
        best_s = MIN(best_s, bench_cpu_s() - start);
        n_ids = ids.n;
        tok_ids_fini(&ids);
    }
    char params[256];
    snprintf(params, sizeof params,
             "{\"tokenizer\":\"%s\",\"input\":\"%s\",\"bytes\":%zu,\"tokens\":%zu,\"seconds\":%.4f}", family,
             input, text.n, n_ids, best_s);
    bench_emit("tokenizer.mb_s", (double)text.n / 1e6 / best_s, "MB/s", params);
}

/* repeat: a text of about n bytes, of one piece. */
static struct str repeat(const char *piece, size_t n) {
    struct buf b = {0};
    size_t n_piece = strlen(piece);
    while (b.len + n_piece <= n)
        buf_add(&b, piece, n_piece);
    size_t len = b.len;
    return (struct str){buf_take(&b), len};
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* prose: words drawn by rank as language does, the first much more often. */
static struct str prose(const char *const *words, size_t n_words) {
    struct buf b = {0};
    uint64_t seed = 7;
    for (size_t i = 0; b.len < N_TEXT; i++) {
        size_t spread = (size_t)1 << next_random(&seed) % 12;
        const char *word = words[next_random(&seed) % MIN(spread, n_words)];
        buf_addz(&b, i % 13 == 12 ? ". " : i % 7 == 6 ? ", " : b.len ? " " : "");
        buf_addz(&b, word);
        if (i % 97 == 96)
            buf_addz(&b, "\n\n");
    }
    size_t len = b.len;
    return (struct str){buf_take(&b), len};
}

static struct str english(void) {
    static const char *const words[] = {
        "the",           "of",          "and",          "to",         "in",
        "that",          "was",         "for",          "with",       "his",
        "they",          "this",        "had",          "not",        "are",
        "but",           "from",        "have",         "which",      "you",
        "one",           "were",        "all",          "their",      "there",
        "when",          "who",         "will",         "more",       "out",
        "what",          "about",       "than",         "could",      "time",
        "these",         "first",       "then",         "any",        "like",
        "over",          "such",        "even",         "most",       "after",
        "also",          "many",        "before",       "must",       "through",
        "where",         "much",        "should",       "because",    "people",
        "little",        "state",       "world",        "still",      "house",
        "river",         "mountain",    "winter",       "morning",    "computer",
        "language",      "question",    "water",        "history",    "science",
        "walked",        "thinking",    "carefully",    "remarkable", "international",
        "unfortunately", "I",           "It's",         "don't",      "we'll",
        "2024",          "17",          "lanternmaker", "overgrown",  "northwestern",
        "whispering",    "glassblower", "Harbour"};
    return prose(words, ARRAY_LEN(words));
}

static struct str code(void) {
    return repeat(
        "static int find(const struct node *n, uint32_t key) {\n    for (size_t i = 0; i < n->count; i++) {\n"
        "        if (n->keys[i] == key)\n            return (int)i; /* found it */\n    }\n    return "
        "-1;\n}\n\n"
        "def area(width: float, height=2.5):\n    \"\"\"The area.\"\"\"\n    return width * height  # no "
        "checks\n\n"
        "const rows = await query(`SELECT id, name FROM users WHERE age >= ${min}`, { timeout: 3000 });\n",
        N_TEXT);
}

/* random_letters: one word without an end. */
static struct str random_letters(size_t n) {
    struct buf b = {0};
    uint64_t seed = 3;
    while (b.len < n)
        buf_addc(&b, (char)('a' + next_random(&seed) % 26));
    size_t len = b.len;
    return (struct str){buf_take(&b), len};
}

static void hostile(const struct tok *t, const char *family, size_t n) {
    const struct {
        const char *name;
        struct str text;
    } inputs[] = {
        {"letter", repeat("a", n)},
        {"space", repeat(" ", n)},
        {"equals", repeat("=", n)},
        {"newline", repeat("\n", n)},
        {"emoji_zwj", repeat("\xF0\x9F\x91\xA9\xE2\x80\x8D", n)},
        {"combining", repeat("\xCC\x81\xCC\xA3", n)},
        {"random_letters", random_letters(n)},
    };
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        measure(t, family, inputs[i].name, inputs[i].text, 1);
        free((void *)(uintptr_t)inputs[i].text.p);
    }
}

static void bench_file(const char *path, int argc, char **argv) {
    size_t n;
    char *json = golden_file_read(path, &n);
    struct tok *t = NULL;
    struct err e;
    double start = bench_now_s();
    if (tok_load(&t, &(struct tok_files){.tokenizer_json = {json, n}}, &e)) {
        fprintf(stderr, "%s: %s\n", path, e.msg);
        exit(1);
    }
    fprintf(stderr, "loaded in %.0f ms\n", (bench_now_s() - start) * 1e3);
    for (int i = 0; i < argc; i++) {
        char *text = golden_file_read(argv[i], &n);
        measure(t, "file", "file", (struct str){text, n}, 5);
        free(text);
    }
    hostile(t, "file", N_HOSTILE);
    tok_free(t);
    free(json);
}

int main(int argc, char **argv) {
    bool speed = argc > 1 && strcmp(argv[1], "--speed") == 0;
    if (argc > 1 && !speed) {
        bench_file(argv[1], argc - 2, argv + 2);
        return 0;
    }
    static const char *const families[] = {"gpt2",  "llama3", "qwen2", "llama2",       "mistral",
                                           "gemma", "xlmr",   "t5",    "bert_uncased", "bert_cased"};
    struct str texts[2] = {english(), code()};
    for (size_t f = 0; f < ARRAY_LEN(families); f++) {
        if (speed && argc > 2 && strcmp(argv[2], families[f]))
            continue;
        struct tok *t = tok_golden(families[f]);
        measure(t, families[f], "english", texts[0], 5);
        measure(t, families[f], "code", texts[1], 5);
        if (!speed)
            hostile(t, families[f], f < 3 ? N_HOSTILE : N_HOSTILE_SHORT);
        tok_free(t);
    }
    free((void *)(uintptr_t)texts[0].p);
    free((void *)(uintptr_t)texts[1].p);
    return 0;
}
