/* What is sent: lengths, arrivals and words, all a function of the seed. */
#include <math.h>
#include <stdlib.h>

#include "common/clock.h"
#include "router/client/bench.h"

enum { FIT_WORDS_FEW = 32, FIT_WORDS_MANY = 160, WORDS_MAX = 1 << 20 };

/* next: splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* uniform: in (0, 1), never an end. */
static double uniform(uint64_t *state) {
    return ((double)(next(state) >> 11) + 0.5) * 0x1p-53;
}

/* normal: Box and Muller. */
static double normal(uint64_t *state) {
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(2 * M_PI * uniform(state));
}

static uint32_t log_normal(uint64_t *state, double median, double sigma) {
    double v = round(median * exp(sigma * normal(state)));
    return (uint32_t)MAX((double)BENCH_LENGTH_MIN, MIN(v, (double)BENCH_LENGTH_MAX));
}

void bench_plan(const struct bench_opts *o, struct bench_item *items) {
    uint64_t state = o->seed, arrivals = o->seed ^ 0x6172726976616c73u;
    double due_s = 0;
    for (int64_t i = 0; i < o->n_prompts; i++) {
        struct bench_item *item = &items[i];
        *item = (struct bench_item){.n_input = (uint32_t)o->n_input, .n_output = (uint32_t)o->n_output};
        item->seed = next(&state);
        if (o->shape == SHAPE_SHAREGPT) {
            item->n_input = log_normal(&state, BENCH_INPUT_MEDIAN, BENCH_INPUT_SIGMA);
            item->n_output = log_normal(&state, BENCH_OUTPUT_MEDIAN, BENCH_OUTPUT_SIGMA);
            item->n_input = MIN(item->n_input, (uint32_t)o->n_total_max - 1);
            item->n_output = MIN(item->n_output, (uint32_t)o->n_total_max - item->n_input);
        } else if (o->shape == SHAPE_PREFIX) {
            item->n_prefix = (uint32_t)o->n_prefix;
            item->prefix = (uint32_t)(i % o->n_prefixes);
            item->n_input += item->n_prefix;
        }
        if (o->rate > 0) { /* gaps of a Poisson process; the first request comes at once */
            item->due_ns = (uint64_t)(due_s * 1e9);
            due_s += -log(uniform(&arrivals)) / o->rate;
        }
    }
}

static const char *const words[] = {
    "the",  "of",    "and",   "to",   "in",   "is",    "you",   "that",  "it",   "he",    "was",
    "for",  "on",    "are",   "as",   "with", "his",   "they",  "at",    "be",   "this",  "have",
    "from", "or",    "one",   "had",  "by",   "word",  "but",   "not",   "what", "all",   "were",
    "we",   "when",  "your",  "can",  "said", "there", "use",   "an",    "each", "which", "she",
    "do",   "how",   "their", "if",   "will", "up",    "other", "about", "out",  "many",  "then",
    "them", "these", "so",    "some", "her",  "would", "make",  "like",  "him"};

static void add_words(struct buf *out, uint64_t seed, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (out->len)
            buf_addc(out, ' ');
        buf_addz(out, words[next(&seed) % ARRAY_LEN(words)]);
    }
}

static size_t words_for(double n_tokens, const struct bench_fit *fit) {
    double n = round(n_tokens / fit->per_word);
    return (size_t)MAX(0.0, MIN(n, (double)WORDS_MAX));
}

static void body_with(const struct bench_opts *o, struct str prompt, uint32_t n_output, bool streams,
                      struct buf *out) {
    buf_addz(out, "{\"model\":");
    jw_strz(out, o->model);
    buf_addf(out, ",\"max_tokens\":%u", n_output);
    if (streams)
        buf_addz(out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    if (!isnan(o->temperature)) {
        buf_addz(out, ",\"temperature\":");
        jw_f64(out, o->temperature);
    }
    if (o->ignore_eos)
        buf_addz(out, ",\"ignore_eos\":true");
    buf_addz(out, o->chat ? ",\"messages\":[{\"role\":\"user\",\"content\":" : ",\"prompt\":");
    jw_str(out, prompt);
    buf_addz(out, o->chat ? "}]}" : "}");
}

void bench_body(const struct bench_opts *o, const struct bench_fit *fit, const struct bench_item *item,
                struct buf *out) {
    struct buf prompt = {0};
    size_t n = MAX(words_for((double)item->n_input - fit->base, fit), (size_t)1);
    /* What the server puts around a message counts as part of the prefix. */
    size_t n_shared = MIN(words_for((double)item->n_prefix - fit->base, fit), n - 1);
    uint64_t prefix_seed = o->seed + 0x70726566697865u * (item->prefix + 1ull);
    add_words(&prompt, prefix_seed, n_shared);
    add_words(&prompt, item->seed, n - n_shared);
    body_with(o, buf_str(&prompt), item->n_output, true, out);
    buf_fini(&prompt);
}

/* count_tokens: of a prompt of n words, -1 if the server does not tell. */
static enum rc count_tokens(const struct bench_opts *o, const struct target *t, size_t n, int64_t *n_tokens,
                            struct err *e) {
    struct buf prompt = {0}, body = {0};
    struct api_usage usage = {-1, -1};
    json_t *answer = NULL;
    add_words(&prompt, o->seed, n);
    body_with(o, buf_str(&prompt), 1, false, &body);
    enum rc rc = api_ask(t, o->chat ? "/chat/completions" : "/completions", o->key, buf_str(&body),
                         (int64_t)(o->timeout_s * 1e3), &answer, e);
    if (!rc) {
        api_usage_read(answer, &usage);
        *n_tokens = usage.n_prompt;
    }
    json_decref(answer);
    buf_fini(&prompt);
    buf_fini(&body);
    return rc;
}

enum rc bench_fit_words(const struct bench_opts *o, const struct target *t, struct bench_fit *fit,
                        struct err *e) {
    int64_t few = 0, many = 0;
    enum rc rc = count_tokens(o, t, FIT_WORDS_FEW, &few, e);
    if (!rc)
        rc = count_tokens(o, t, FIT_WORDS_MANY, &many, e);
    if (rc)
        return rc;
    *fit = (struct bench_fit){.per_word = 1};
    if (few > 0 && many > few) {
        fit->known = true;
        fit->per_word = (double)(many - few) / (FIT_WORDS_MANY - FIT_WORDS_FEW);
        fit->base = MAX(0.0, (double)few - fit->per_word * FIT_WORDS_FEW);
    }
    return RC_OK;
}
